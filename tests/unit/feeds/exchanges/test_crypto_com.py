"""Crypto.com frames, written by hand after its documentation (there are no recorded ones)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tradebot.core.events import SELL, Tick
from tradebot.feeds.exchanges.base import HEARTBEAT, IGNORED, ParsedFrame, Unparseable
from tradebot.feeds.exchanges.crypto_com import CryptoCom


def push(channel: str, data: object, instrument: str = "SOL_USD", number: int = -1) -> str:
    result = {
        "instrument_name": instrument, "subscription": f"{channel}.{instrument}", "channel": channel, "data": data,
    }  # fmt: skip
    return json.dumps({"id": number, "method": "subscribe", "code": 0, "result": result})


def trade(number: int, price: object = "151.25", instrument: str = "SOL_USD", **other: object) -> dict[str, Any]:
    return {
        "d": f"17{number:05}", "t": 1_754_000_000_000 + number, "tn": f"{1_754_000_000_000 + number}000999",
        "p": price, "q": "2.50", "s": "SELL", "i": instrument, "m": "461168",
    } | other  # fmt: skip


def tick(number: int, price: float = 151.25, instrument: str = "SOL_USD") -> Tick:
    return Tick(instrument, price, 2.5, 1_754_000_000_000 + number, f"17{number:05}", taker=SELL)


def test_the_first_frame_after_subscribing_is_history_and_the_next_are_live() -> None:
    exchange = CryptoCom()
    exchange.subscriptions(["SOL_USD", "BTCUSD-PERP"])
    assert exchange.parse(push("trade", [trade(3), trade(2)])) == ParsedFrame("trades", history=[tick(3), tick(2)])
    assert exchange.parse(push("trade", [trade(5), trade(4)])) == ParsedFrame("trades", [tick(5), tick(4)])
    pair = [trade(2, instrument="BTCUSD-PERP"), trade(1, instrument="BTCUSD-PERP")]
    assert len(exchange.parse(push("trade", pair, "BTCUSD-PERP")).history) == 2


def test_a_first_frame_of_a_single_trade_is_live() -> None:
    """To take a live trade for history would lose it."""
    exchange = CryptoCom()
    exchange.subscriptions(["SOL_USD"])
    assert exchange.parse(push("trade", [trade(1)])).ticks == [tick(1)]


def test_an_ack_shows_in_a_capture_that_the_subscription_begins() -> None:
    for ack in (
        '{"id":1,"method":"subscribe","code":0}',
        '{"id":1,"method":"subscribe","code":0,"channel":"trade.SOL_USD"}',
        '{"id":1,"method":"subscribe","code":0,"result":{"instrument_name":"SOL_USD","subscription":"trade.SOL_USD",'
        '"channel":"trade"}}',
    ):
        exchange = CryptoCom()
        assert exchange.parse(ack).kind == "ack"
        assert exchange.parse(push("trade", [trade(2), trade(1)])).history == [tick(2), tick(1)]
        assert exchange.parse(push("trade", [trade(4), trade(3)])).ticks == [tick(4), tick(3)]


def test_a_capture_that_starts_later_begins_live() -> None:
    assert CryptoCom().parse(push("trade", [trade(1)])) == ParsedFrame("trades", [tick(1)])
    assert CryptoCom().parse(push("trade", [trade(2), trade(1)])) == ParsedFrame("trades", [tick(2), tick(1)])


def test_a_market_without_trades_has_an_empty_history() -> None:
    exchange = CryptoCom()
    exchange.subscriptions(["SOL_USD"])
    assert exchange.parse(push("trade", [])) == ParsedFrame("trades")
    assert exchange.parse(push("trade", [trade(1)])).ticks == [tick(1)]


def test_a_broken_history_does_not_make_the_next_frame_one() -> None:
    exchange = CryptoCom()
    exchange.subscriptions(["SOL_USD"])
    with pytest.raises(Unparseable):
        exchange.parse(push("trade", [trade(1), trade(2, price="0")]))
    assert exchange.parse(push("trade", [trade(3)])).ticks == [tick(3)]


def test_what_is_remembered_of_a_connection_is_bounded() -> None:
    exchange = CryptoCom()
    for number in range(10_100):
        exchange.parse(push("trade", [], f"S{number}"))
    assert len(exchange._begun) == 10_000


def test_numbers_may_be_numbers_and_the_instrument_may_be_said_once() -> None:
    entry = trade(7, price=151.25, d=1700007)
    del entry["i"], entry["tn"], entry["m"]
    assert CryptoCom().parse(push("trade", [entry])) == ParsedFrame("trades", [tick(7)])


def test_the_channel_may_bear_the_instrument() -> None:
    text = push("trade", [trade(1)]).replace('"channel": "trade"', '"channel": "trade.SOL_USD"')
    assert "trade.SOL_USD" in text and CryptoCom().parse(text) == ParsedFrame("trades", [tick(1)])


def test_the_heartbeat_is_answered_with_its_id() -> None:
    parsed = CryptoCom().parse('{"id":1754000000123,"method":"public/heartbeat","code":0}')
    assert parsed.kind == "heartbeat" and parsed.reply is not None
    assert json.loads(parsed.reply) == {"id": 1754000000123, "method": "public/respond-heartbeat"}
    assert CryptoCom().parse('{"id":[],"method":"public/heartbeat"}') == HEARTBEAT


def test_refusals_and_other_channels() -> None:
    refusal = CryptoCom().parse('{"id":1,"method":"subscribe","code":40004,"message":"Unknown symbol"}')
    assert refusal == ParsedFrame("error", detail='{"code":40004,"message":"Unknown symbol"}')
    for channel in ("book", "book.update", "ticker", "candlestick", "index", "mark", "user.trade"):
        assert CryptoCom().parse(push(channel, [{"t": 1}])) == IGNORED
    for text in (
        "[]",
        "1",
        "null",
        '"pong"',
        "{}",
        '{"method":"public/auth","code":0}',
        '{"id":1,"method":"unsubscribe"}',
    ):
        assert CryptoCom().parse(text) == IGNORED


@pytest.mark.parametrize("key", ["d", "t", "p", "q"])
def test_a_trade_without_a_field_spoils_the_frame(key: str) -> None:
    missing = {name: value for name, value in trade(2).items() if name != key}
    spoilt: list[object] = [missing, trade(2) | {key: None}, 7, []]
    for broken in spoilt:
        with pytest.raises(Unparseable):
            CryptoCom().parse(push("trade", [trade(1), broken]))


def test_text_that_is_no_json_or_whose_data_is_no_list() -> None:
    for text in ("", "pong", "{", push("trade", {}), push("trade", None)):
        with pytest.raises(Unparseable):
            CryptoCom().parse(text)


def test_subscriptions_of_a_hundred_channels_each() -> None:
    messages = [json.loads(text) for text in CryptoCom().subscriptions([f"S{n}_USD" for n in range(250)])]
    assert [len(message["params"]["channels"]) for message in messages] == [100, 100, 50]
    assert messages[1] == {
        "id": 2, "method": "subscribe", "params": {"channels": [f"trade.S{n}_USD" for n in range(100, 200)]}
    }  # fmt: skip
    assert CryptoCom().subscriptions([]) == [] and CryptoCom().keepalive() is None


# Frames of every kind, which test_any_text.py breaks.
SAMPLES = [
    push("trade", [trade(1), trade(2)]), push("ticker", [{"a": "1"}]), '{"id":3,"method":"public/heartbeat","code":0}',
    '{"id":1,"method":"subscribe","code":0,"channel":"trade.X"}',
]  # fmt: skip
