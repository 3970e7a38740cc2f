"""Bitget frames of API v1, v2 and v3, written by hand after its documentation (there are no recorded ones)."""

from __future__ import annotations

import json

import pytest

from tradebot.core.events import SELL, Tick
from tradebot.feeds.exchanges.base import HEARTBEAT, IGNORED, ParsedFrame, Unparseable
from tradebot.feeds.exchanges.bitget import Bitget

V1_ARG = {"instType": "sp", "channel": "trade", "instId": "SOLUSDT"}
V2_ARG = {"instType": "USDT-FUTURES", "channel": "trade", "instId": "SOLUSDT"}
V3_ARG = {"instType": "spot", "topic": "publicTrade", "symbol": "SOLUSDT"}


def frame(arg: object, data: object, action: object = "update") -> str:
    return json.dumps({"action": action, "arg": arg, "data": data, "ts": 1754000009999})


def v1(number: int) -> list[str]:
    return [f"175400000{number:04}", "151.25", "2.50", "sell"]


def v2(number: int) -> dict[str, str]:
    return {"ts": f"175400000{number:04}", "price": "151.25", "size": "2.50", "side": "sell", "tradeId": f"99{number}"}


def v3(number: int) -> dict[str, str]:
    return {"T": f"175400000{number:04}", "p": "151.25", "v": "2.50", "S": "sell", "i": f"99{number}"}


def tick(number: int, trade_id: str | None, symbol: str = "SOLUSDT") -> Tick:
    return Tick(symbol, 151.25, 2.5, 1_754_000_000_000 + number, trade_id, taker=SELL)


def two(symbol: str) -> list[Tick]:
    return [tick(2, "992", symbol), tick(1, "991", symbol)]


@pytest.mark.parametrize(
    ("arg", "data", "ticks"),
    [
        (V1_ARG, [v1(2), v1(1)], [tick(2, None), tick(1, None)]),
        (V2_ARG, [v2(2), v2(1)], two("USDT-FUTURES:SOLUSDT")),
        (V2_ARG | {"instType": "SPOT"}, [v2(2), v2(1)], two("SOLUSDT")),
        (V2_ARG | {"instType": "mc", "channel": "tradeNew"}, [v2(2), v2(1)], two("MC:SOLUSDT")),
        (V3_ARG, [v3(2), v3(1)], two("SOLUSDT")),
        (V3_ARG | {"instType": "usdt-futures"}, [v3(2), v3(1)], two("USDT-FUTURES:SOLUSDT")),
    ],
)
def test_snapshots_are_history_and_updates_are_live_in_the_order_sent(
    arg: object, data: object, ticks: list[Tick]
) -> None:
    assert Bitget().parse(frame(arg, data)) == ParsedFrame("trades", ticks)
    assert Bitget().parse(frame(arg, data, "snapshot")) == ParsedFrame("trades", history=ticks)


def test_times_and_numbers_may_be_numbers() -> None:
    entry = {"ts": 1754000000001, "price": 151.25, "size": 2.5, "side": "sell", "tradeId": 991}
    assert Bitget().parse(frame(V2_ARG, [entry])).ticks == [tick(1, "991", "USDT-FUTURES:SOLUSDT")]


def test_pong_acks_refusals_and_other_channels() -> None:
    assert Bitget().parse("pong") == HEARTBEAT and Bitget().keepalive() == "ping"
    ack = Bitget().parse(json.dumps({"event": "subscribe", "arg": V2_ARG}))
    assert ack == ParsedFrame(
        "ack", detail='{"instType":"USDT-FUTURES","channel":"trade","instId":"SOLUSDT"}', confirmed=("SOLUSDT",)
    )
    refusal = Bitget().parse('{"event":"error","code":30001,"msg":"instId:XX doesn\'t exist","op":"subscribe"}')
    assert refusal == ParsedFrame("error", detail='{"code":30001,"msg":"instId:XX doesn\'t exist","arg":null}')
    for channel in ("ticker", "books", "books5", "candle1m"):
        assert Bitget().parse(frame(V2_ARG | {"channel": channel}, [{"ts": "1"}])) == IGNORED
        assert Bitget().parse(frame(V3_ARG | {"topic": channel}, [{"ts": "1"}], "snapshot")) == IGNORED
    for text in ("[]", "1", "null", '"ping"', "{}", '{"event":"unsubscribe"}', '{"event":"login","code":0}'):
        assert Bitget().parse(text) == IGNORED


@pytest.mark.parametrize(
    ("arg", "entry", "keys"),
    [(V2_ARG, v2(1), ("ts", "price", "size", "tradeId")), (V3_ARG, v3(1), ("T", "p", "v", "i"))],
)
def test_a_trade_without_a_field_spoils_the_frame(arg: object, entry: dict[str, object], keys: tuple[str, ...]) -> None:
    for key in keys:
        for broken in ({name: value for name, value in entry.items() if name != key}, entry | {key: None}, "x"):
            with pytest.raises(Unparseable):
                Bitget().parse(frame(arg, [entry, broken]))


@pytest.mark.parametrize(
    "text",
    [
        "", "ping", "Pong", "{", frame(V1_ARG, [v1(1), v1(2)[:3]]), frame(V1_ARG, [["x", *v1(1)[1:]]]),
        frame(V2_ARG, {}), frame(V2_ARG, [v2(1)], "delta"), frame(V2_ARG, [v2(1)], None),
        frame({"channel": "trade"}, [v2(1)]), frame({"topic": "publicTrade"}, [v3(1)]),
    ],
)  # fmt: skip
def test_what_cannot_be_understood(text: str) -> None:
    with pytest.raises(Unparseable):
        Bitget().parse(text)


@pytest.mark.parametrize(
    ("url", "symbol", "argument"),
    [
        (Bitget.url, "SOLUSDT", {"instType": "SPOT", "channel": "trade", "instId": "SOLUSDT"}),
        (Bitget.url, "USDT-FUTURES:SOLUSDT", V2_ARG),
        ("ws://127.0.0.1:9001", "SOLUSDT", {"instType": "SPOT", "channel": "trade", "instId": "SOLUSDT"}),
        ("wss://ws.bitget.com/spot/v1/stream", "SOLUSDT", V1_ARG),
        ("wss://ws.bitget.com/mix/v1/stream", "SOLUSDT", V1_ARG | {"instType": "mc"}),
        ("wss://ws.bitget.com/v3/ws/public", "SOLUSDT", V3_ARG),
        ("wss://ws.bitget.com/v3/ws/public", "usdt-futures:SOLUSDT", V3_ARG | {"instType": "usdt-futures"}),
    ],
)
def test_the_address_says_which_api_is_spoken(url: str, symbol: str, argument: object) -> None:
    exchange = Bitget()
    assert exchange.connection_url(url, [symbol]) == url
    (message,) = exchange.subscriptions([symbol])
    assert json.loads(message) == {"op": "subscribe", "args": [argument]}


@pytest.mark.parametrize(
    ("url", "asked", "stored"),
    [
        (Bitget.url, "SOLUSDT", "SOLUSDT"), (Bitget.url, "SPOT:SOLUSDT", "SOLUSDT"),
        (Bitget.url, "USDT-FUTURES:SOLUSDT", "USDT-FUTURES:SOLUSDT"),
        ("wss://ws.bitget.com/mix/v1/stream", "SOLUSDT", "MC:SOLUSDT"),
        ("wss://ws.bitget.com/v3/ws/public", "usdt-futures:SOLUSDT", "USDT-FUTURES:SOLUSDT"),
    ],
)  # fmt: skip
def test_the_stored_symbol_names_every_market_but_spot(url: str, asked: str, stored: str) -> None:
    exchange = Bitget()
    exchange.connection_url(url, [asked])
    [message] = exchange.subscriptions([asked])
    [argument] = json.loads(message)["args"]
    entry, found = (v3(1), "i") if "topic" in argument else (v2(1), "tradeId")
    [tick] = exchange.parse(frame(argument, [entry])).ticks
    assert tick.symbol == stored == exchange.stored_symbol(asked) and tick.event_id == entry[found]


def test_messages_stay_below_4096_bytes_and_hold_what_fits() -> None:
    symbols = [f"COIN{n:03}USDT" for n in range(300)]
    messages = Bitget().subscriptions(symbols)
    assert max(map(len, messages)) <= 4096 and min(map(len, messages[:-1])) > 4096 - 80
    assert [argument["instId"] for message in messages for argument in json.loads(message)["args"]] == symbols
    assert Bitget().subscriptions([]) == []


# Frames of every kind, which test_any_text.py breaks.
SAMPLES = [
    frame(V1_ARG, [v1(1)]), frame(V2_ARG, [v2(1), v2(2)], "snapshot"), frame(V3_ARG, [v3(1)]),
    json.dumps({"event": "error", "code": 1, "msg": "x", "arg": V2_ARG}),
    json.dumps({"event": "subscribe", "arg": V2_ARG}),
]  # fmt: skip
