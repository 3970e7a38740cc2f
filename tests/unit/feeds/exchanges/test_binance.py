"""Binance's frames: recorded ones as expected, and what each part of the protocol means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.frames import (
    ABSENT,
    check_file,
    check_tardis,
    crypto_msg_parser,
    rows,
    spoil,
)
from tradebot.core.events import BUY, SELL, Tick
from tradebot.feeds.exchanges.base import IGNORED, ParsedFrame, Unparseable
from tradebot.feeds.exchanges.binance import Binance

SPOT = {
    "e": "trade", "E": 1700000000125, "s": "XYZUSDT", "t": 71, "p": "20.50000000", "q": "0.70000000",
    "T": 1700000000123, "m": True, "M": True,
}  # fmt: skip
AGGREGATE = {
    "e": "aggTrade", "E": 1700000000125, "s": "XYZUSD_PERP", "a": 9, "p": "20.5", "q": "3", "f": 70, "l": 71,
    "T": 1700000000123, "m": False,
}  # fmt: skip
FUTURES = {**{key: SPOT[key] for key in SPOT if key != "M"}, "X": "MARKET"}
COMBINED = {"stream": "xyzusdt@trade", "data": SPOT}
# Frames of every kind, which test_any_text.py breaks.
SAMPLES = [
    json.dumps(sample)
    for sample in (
        SPOT, AGGREGATE, FUTURES, COMBINED, {"result": None, "id": 1}, {"error": {"code": 2, "msg": "no"}, "id": 1},
        {"stream": "!ticker@arr", "data": [{"e": "24hrTicker", "s": "A"}]}, [SPOT],
    )
]  # fmt: skip


def parse(frame: object) -> ParsedFrame:
    return Binance().parse(json.dumps(frame))


@pytest.mark.parametrize(
    "name",
    [
        "binance", "binance_usdm", "binance_coinm", "binance_us", "binance_aggtrade", "binance_usdm_aggtrade",
        "binance.misc", "binance_usdm.misc",
    ],
)  # fmt: skip
def test_recorded_frames(shared_data: Path, name: str) -> None:
    # Line 2 is made up: `expected/` takes its "m", the text "yes", for true. The adapter takes no side from it.
    other = {2} if name == "binance.misc" else ()
    for line, parsed in check_file(Binance, shared_data, name, other=other):
        assert parsed.kind == {"trade": "trades", "ack": "ack"}.get(line.label, "ignored"), line


@pytest.mark.parametrize(
    "name", ["binance", "binance_us", "binance_usdm_aggtrade", "binance_aggtrade", "binance_usdm", "binance_coinm"]
)
def test_recorded_trades_are_numbered_without_holes(shared_data: Path, name: str) -> None:
    """What `seq` promises."""
    highest: dict[str, int] = {}
    for line, parsed in check_file(Binance, shared_data, name):
        for tick in parsed.ticks:
            number = int(tick.event_id or "")
            assert tick.seq == number == highest.get(tick.symbol, number - 1) + 1, line
            highest[tick.symbol] = number
        for symbol, number in parsed.skipped:
            highest[symbol] = number
    assert highest


@pytest.mark.parametrize(("exchange", "trades"), [("binance", 1), ("binance futures", 2), ("binance delivery", 1)])
def test_tardis_states_the_same(shared_data: Path, exchange: str, trades: int) -> None:
    assert check_tardis(Binance, shared_data, exchange) == trades


def test_crypto_msg_parser_states_the_same(shared_data: Path) -> None:
    (stated,) = crypto_msg_parser(shared_data, "binance")
    # Its timestamp is the event's, not the trade's; quantity_contract is the quantity as sent.
    assert rows(Binance().parse(stated["frame"])) == [
        (False, "BTCUSD_PERP", 58570.1, 58.0, 1616201883304, "41045788", SELL),
    ]
    assert stated["asserted"]["trade.side"] == "TradeSide::Sell"
    assert stated["asserted"]["trade.price"] == "58570.1"
    assert stated["asserted"]["trade.quantity_contract"] == "Some(58.0)"


@pytest.mark.parametrize("frame", [SPOT, COMBINED])
def test_a_trade(frame: dict[str, Any]) -> None:
    assert parse(frame) == ParsedFrame("trades", [Tick("XYZUSDT", 20.5, 0.7, 1700000000123, "71", 71, SELL)])


@pytest.mark.parametrize("frame", [AGGREGATE, {"stream": "xyzusd_perp@aggTrade", "data": AGGREGATE}])
def test_an_aggregate_trade(frame: dict[str, Any]) -> None:
    assert parse(frame) == ParsedFrame("trades", [Tick("XYZUSD_PERP", 20.5, 3.0, 1700000000123, "9", 9, BUY)])


def test_raw_trades_of_futures() -> None:
    assert parse(FUTURES) == ParsedFrame("trades", [Tick("XYZUSDT", 20.5, 0.7, 1700000000123, "71", 71, SELL)])


@pytest.mark.parametrize("kind", ["INSURANCE_FUND", "ADL", "LIQUIDATION", "NA"])
def test_what_is_no_market_trade_only_uses_up_a_number(kind: str) -> None:
    skipped = ParsedFrame("ignored", skipped=[("XYZUSDT", 71)])
    assert parse({**FUTURES, "X": kind}) == skipped
    assert parse({**FUTURES, "X": kind, "p": "0", "q": "0"}) == skipped
    assert parse({**FUTURES, "X": kind, "t": None}) == IGNORED


def test_price_and_quantity_are_the_nearest_doubles() -> None:
    (tick,) = parse({**SPOT, "p": "0.1234567890123456789", "q": "123456789.123456789"}).ticks
    assert (tick.price, tick.volume) == (0.1234567890123456789, 123456789.123456789)


def test_times_in_microseconds_are_cut_down() -> None:
    (tick,) = parse({**SPOT, "T": 1700000000123999}).ticks
    assert tick.ts == 1700000000123


@pytest.mark.parametrize("event", ["trade", "aggTrade"])
@pytest.mark.parametrize("key", ["s", "p", "q", "T", "number"])
@pytest.mark.parametrize("odd", [ABSENT, None, True, -1, [], {}, "", "x"])
def test_a_trade_with_a_wrong_field_is_refused(event: str, key: str, odd: object) -> None:
    frame: dict[str, Any] = dict(SPOT if event == "trade" else AGGREGATE)
    key = {"trade": "t", "aggTrade": "a"}[event] if key == "number" else key
    spoil(frame, key, "x" * 65 if (key, odd) == ("s", "x") else odd)
    with pytest.raises(Unparseable):
        parse(frame)


@pytest.mark.parametrize(
    "frame",
    [
        {"stream": "xyzusdt@trade", "data": None},
        {"stream": "xyzusdt@aggTrade", "data": [SPOT]},
        {"stream": "xyzusdt@trade", "data": {"s": "XYZUSDT"}},
        {"stream": "xyzusdt@trade"},
        {key: SPOT[key] for key in SPOT if key != "e"},
        [SPOT],
        {**FUTURES, "X": 5},
        {**SPOT, "p": "0"},
        7, "pong", None, True,
    ],
)  # fmt: skip
def test_what_should_have_been_a_trade_is_refused(frame: object) -> None:
    with pytest.raises(Unparseable):
        parse(frame)


@pytest.mark.parametrize("text", ["", "pong", "{", '{"e":"trade"', "\ud800", "nan", '{"e":"trade","p":1e999}'])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(Unparseable):
        Binance().parse(text)


@pytest.mark.parametrize(
    "frame",
    [
        {},
        [],
        {"u": 1, "s": "XYZUSDT", "b": "1", "B": "2", "a": "3", "A": "4"},
        {"lastUpdateId": 1, "bids": [], "asks": []},
        {"stream": "xyzusdt@depth20", "data": {"lastUpdateId": 1, "bids": [], "asks": []}},
        {"e": "trade_all", "t": []},
        {"e": "24hrTicker", "s": "XYZUSDT", "p": "1", "q": "2"},
        [{"e": "24hrTicker", "s": "XYZUSDT", "p": "1"}],
        {"e": "forceOrder", "o": {"s": "XYZUSDT", "p": "1", "q": "1", "T": 5}},
    ],
)
def test_other_streams_are_ignored(frame: object) -> None:
    assert parse(frame) == IGNORED


def test_acks_and_errors() -> None:
    assert parse({"result": None, "id": 1}) == ParsedFrame("ack", detail="request 1")
    for error in ({"error": {"code": 2, "msg": "Invalid request"}, "id": 1}, {"code": 2, "msg": "Invalid request"}):
        parsed = parse(error)
        assert parsed.kind == "error" and "Invalid request" in parsed.detail


@pytest.mark.parametrize(
    ("url", "streams"),
    [
        (Binance.url, ["xyzusdt@trade", "abcusdt@trade"]),
        ("wss://stream.binance.us:9443/ws", ["xyzusdt@trade", "abcusdt@trade"]),
        ("wss://fstream.binance.com/market/ws", ["xyzusdt@aggTrade", "abcusdt@aggTrade"]),
        ("wss://dstream.binance.com/stream", ["xyzusdt@aggTrade", "abcusdt@aggTrade"]),
        ("ws://127.0.0.1:9001/", ["xyzusdt@trade", "abcusdt@trade"]),
        ("wss://stream.binance.com:9443/ws/xyzusdt@trade", ["abcusdt@trade"]),
        ("wss://stream.binance.com:9443/stream?streams=xyzusdt@depth/xyzusdt@trade/abcusdt@aggTrade", []),
        ("wss://stream.binance.com:9443/stream?streams=xyzusdt@trade/abcusdt@trade&timeUnit=MICROSECOND", []),
        ("wss://stream.binance.com:9443/ws/xyzusdt@depth/abcusdt@trade_all", ["xyzusdt@trade", "abcusdt@trade"]),
    ],
)
def test_subscriptions_are_for_what_the_url_does_not_name(url: str, streams: list[str]) -> None:
    exchange = Binance()
    assert exchange.connection_url(url, ["XYZUSDT", "ABCUSDT"]) == url
    messages = [json.loads(message) for message in exchange.subscriptions(["XYZUSDT", "ABCUSDT"])]
    assert messages == ([{"method": "SUBSCRIBE", "params": streams, "id": 1}] if streams else [])


def test_many_symbols_take_few_messages() -> None:
    """A thousand symbols stay within five messages, the limit of a second, and a message within 8 kB."""
    symbols = [f"LONGNAME{n}USDT" for n in range(1000)]
    texts = Binance().subscriptions(symbols)
    messages = [json.loads(text) for text in texts]
    assert len(messages) == 5 and max(map(len, texts)) < 8000
    assert [message["id"] for message in messages] == [1, 2, 3, 4, 5]
    streams = [stream for message in messages for stream in message["params"]]
    assert streams == [f"{symbol.lower()}@trade" for symbol in symbols]
    assert Binance().subscriptions([]) == []


def test_what_is_said_of_the_exchange() -> None:
    assert (Binance.name, Binance.acknowledges, Binance().keepalive()) == ("binance", True, None)
