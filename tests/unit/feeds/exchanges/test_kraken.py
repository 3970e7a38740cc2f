"""Kraken's spot frames, of the WebSocket API v2 and v1."""

from __future__ import annotations

import copy
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
from tradebot.feeds.exchanges.base import HEARTBEAT, IGNORED, ParsedFrame, Unparseable
from tradebot.feeds.exchanges.kraken import Kraken

FIRST = {
    "symbol": "XYZ/USD", "side": "buy", "price": 2.25, "qty": 0.3, "ord_type": "limit", "trade_id": 41,
    "timestamp": "2023-11-14T22:13:20.123999Z",
}  # fmt: skip
SECOND = {**FIRST, "trade_id": 42, "price": 2.5, "timestamp": "2023-11-14T22:13:21Z"}
UPDATE: dict[str, Any] = {"channel": "trade", "type": "update", "data": [FIRST, SECOND]}
SNAPSHOT = {**UPDATE, "type": "snapshot"}
V1: list[Any] = [
    7,
    [["2.25000", "0.30000000", "1700000000.123999", "s", "l", ""], ["2.50000", "0.1", "1700000001.000001", "b", "m"]],
    "trade",
    "XYZ/USD",
]
ACK: dict[str, Any] = {"method": "subscribe", "result": {"channel": "trade", "symbol": "XYZ/USD"}, "success": True}
V1_ACK = {
    "channelID": 7, "event": "subscriptionStatus", "pair": "XYZ/USD", "status": "subscribed",
    "subscription": {"name": "trade"},
}  # fmt: skip
ERROR = {"method": "subscribe", "success": False, "error": "Currency pair not supported", "symbol": "NO/NE"}
# Frames of every kind, which test_any_text.py breaks.
SAMPLES = [
    json.dumps(sample) for sample in (UPDATE, SNAPSHOT, V1, ACK, V1_ACK, ERROR, {"event": "error", "errorMessage": "x"})
]

TICKS = [
    Tick("XYZ/USD", 2.25, 0.3, 1700000000123, "41", 41, BUY),
    Tick("XYZ/USD", 2.5, 0.3, 1700000001000, "42", 42, BUY),
]


def parse(frame: object) -> ParsedFrame:
    return Kraken().parse(json.dumps(frame))


@pytest.mark.parametrize("name", ["kraken", "kraken.misc", "kraken_v2.misc"])
def test_recorded_frames(shared_data: Path, name: str) -> None:
    for line, parsed in check_file(Kraken, shared_data, name):
        confirms_trades = '"subscribed"' in line.text and '"name":"trade"' in line.text
        kinds = {"trade": "trades", "heartbeat": "heartbeat", "error": "error", "ack": "ack" if confirms_trades else ""}
        assert parsed.kind == (kinds.get(line.label) or "ignored"), line


@pytest.mark.parametrize(("exchange", "trades"), [("kraken", 1), ("kraken v2", 1)])
def test_tardis_states_the_same(shared_data: Path, exchange: str, trades: int) -> None:
    assert check_tardis(Kraken, shared_data, exchange) == trades


def test_crypto_msg_parser_states_the_same(shared_data: Path) -> None:
    (stated,) = (row for row in crypto_msg_parser(shared_data, "kraken") if row["test"] == "spot")
    ((_, symbol, _, volume, ts, _, taker),) = rows(Kraken().parse(stated["frame"]))
    assert symbol == "XBT/USD"
    assert volume == float(stated["asserted"]["trade.quantity_base"])
    assert ts == int(stated["asserted"]["extract_timestamp"])
    assert (stated["asserted"]["trade.side"], taker) == ("TradeSide::Buy", BUY)


def test_v2_trades() -> None:
    assert parse(UPDATE) == ParsedFrame("trades", TICKS)


def test_a_v2_snapshot_is_history() -> None:
    assert parse(SNAPSHOT) == ParsedFrame("trades", [], TICKS)


def test_v1_trades_have_neither_id_nor_seq() -> None:
    assert parse(V1) == ParsedFrame(
        "trades",
        [
            Tick("XYZ/USD", 2.25, 0.3, 1700000000123, taker=SELL),
            Tick("XYZ/USD", 2.5, 0.1, 1700000001000, taker=BUY),
        ],
    )


@pytest.mark.parametrize(
    ("time", "ts"), [("1700000000", 1700000000000), ("1700000000.1", 1700000000100), ("0.0009", 0)]
)
def test_v1_times_are_cut_down_to_the_millisecond(time: str, ts: int) -> None:
    (tick,) = parse([7, [["1", "1", time]], "trade", "XYZ/USD"]).ticks
    assert tick.ts == ts


@pytest.mark.parametrize("base", [UPDATE, SNAPSHOT])
@pytest.mark.parametrize("key", ["symbol", "trade_id", "price", "qty", "timestamp"])
@pytest.mark.parametrize("odd", [ABSENT, None, True, -1, [], {}, ""])
def test_a_v2_frame_with_one_wrong_field_is_refused_whole(base: dict[str, Any], key: str, odd: object) -> None:
    frame = copy.deepcopy(base)
    spoil(frame["data"][1], key, odd)
    with pytest.raises(Unparseable):
        parse(frame)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("odd", [None, True, -1, [], {}, "", "x", "1700000000,5", "17e8", "\u0661", "1." + "5" * 10])
def test_a_v1_frame_with_one_wrong_field_is_refused_whole(place: int, odd: object) -> None:
    frame = copy.deepcopy(V1)
    frame[1][1][place] = odd
    if place < 2 and odd == "1." + "5" * 10:
        assert len(parse(frame).ticks) == 2  # any number of decimals in prices, nine in times
    elif place == 2 or odd != "17e8":
        with pytest.raises(Unparseable):
            parse(frame)


@pytest.mark.parametrize(
    "frame",
    [
        {**UPDATE, "data": None},
        {**UPDATE, "type": "other"},
        {"channel": "trade", "type": "update"},
        {"channel": "trade"},
        {"type": "update", "data": [FIRST]},
        {**UPDATE, "data": ["x"]},
        V1[:3],
        V1[1:],
        [*V1, "more"],
        ["trade", V1[1], 7, "XYZ/USD"],
        [7, {}, "trade", "XYZ/USD"],
        [7, [["1", "1"]], "trade", "XYZ/USD"],
        [7, ["x"], "trade", "XYZ/USD"],
        [7, V1[1], "trade", None],
        7, "pong", None,
    ],
)  # fmt: skip
def test_what_should_have_been_trades_is_refused(frame: object) -> None:
    with pytest.raises(Unparseable):
        parse(frame)


@pytest.mark.parametrize(
    "frame",
    [
        {},
        [],
        {"channel": "book", "type": "update", "data": []},
        {"channel": "status", "type": "update", "data": [{"system": "online"}]},
        {"event": "systemStatus", "status": "online"},
        [7, {"a": []}, "book-10", "XYZ/USD"],
        [7, ["1", "2", "3"], "spread", "XYZ/USD"],
        {**ACK, "result": {"channel": "book", "symbol": "XYZ/USD"}},
        {**ACK, "success": None},
        {**V1_ACK, "subscription": {"name": "book"}},
        {**V1_ACK, "status": "unsubscribed"},
        {"feed": "trade", "product_id": "PI_XYZUSD"},
        {"error": [], "result": {}},
    ],
)
def test_other_channels_are_ignored(frame: object) -> None:
    assert parse(frame) == IGNORED


def test_acks_heartbeats_and_errors() -> None:
    assert parse(ACK) == ParsedFrame("ack", detail='{"channel":"trade","symbol":"XYZ/USD"}', confirmed=("XYZ/USD",))
    assert parse(V1_ACK) == ParsedFrame("ack", detail="XYZ/USD", confirmed=("XYZ/USD",))
    for heartbeat in ({"channel": "heartbeat"}, {"event": "heartbeat"}, {"method": "pong"}, {"event": "pong"}):
        assert parse(heartbeat) == HEARTBEAT
    assert parse(ERROR) == ParsedFrame("error", detail="Currency pair not supported: NO/NE", refused=("NO/NE",))
    assert parse({"Error": "Exceeded msg rate"}) == ParsedFrame("error", detail="Exceeded msg rate")
    assert parse({"event": "error", "errorMessage": "Malformed request"}) == ParsedFrame(
        "error", detail="Malformed request"
    )
    refused = {**V1_ACK, "status": "error", "errorMessage": "Currency pair not supported"}
    assert parse(refused) == ParsedFrame("error", detail="Currency pair not supported: XYZ/USD", refused=("XYZ/USD",))


@pytest.mark.parametrize("url", [Kraken.url, "wss://beta-ws.kraken.com/v2", "ws://127.0.0.1:9001"])
def test_v2_is_subscribed_to(url: str) -> None:
    exchange = Kraken()
    assert exchange.connection_url(url, ["XYZ/USD"]) == url
    assert [json.loads(message) for message in exchange.subscriptions(("XYZ/USD", "ABC/USD"))] == [
        {"method": "subscribe", "params": {"channel": "trade", "symbol": ["XYZ/USD", "ABC/USD"], "snapshot": True}},
    ]


@pytest.mark.parametrize("url", ["wss://ws.kraken.com", "wss://ws.kraken.com:443/", "wss://beta-ws.kraken.com/"])
def test_v1_is_subscribed_to_on_its_hosts(url: str) -> None:
    exchange = Kraken()
    assert exchange.connection_url(url, ["XYZ/USD"]) == url
    assert [json.loads(message) for message in exchange.subscriptions(["XYZ/USD"])] == [
        {"event": "subscribe", "pair": ["XYZ/USD"], "subscription": {"name": "trade"}},
    ]


@pytest.mark.parametrize("url", [Kraken.url, "wss://ws.kraken.com"])
def test_many_symbols_take_few_messages(url: str) -> None:
    exchange, symbols = Kraken(), [f"N{n}/USD" for n in range(1000)]
    exchange.connection_url(url, symbols)
    sent = [json.loads(message) for message in exchange.subscriptions(symbols)]
    assert len(sent) == 5
    assert [symbol for message in sent for symbol in message.get("pair") or message["params"]["symbol"]] == symbols
    assert exchange.subscriptions([]) == []


def test_what_is_said_of_the_exchange() -> None:
    assert (Kraken.name, Kraken.acknowledges, Kraken().keepalive()) == ("kraken", True, None)
