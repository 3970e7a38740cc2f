from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.unit.frames import check_file
from tests.unit.stated_trades import check_tardis
from tradebot.core.events import BUY, SELL, Tick
from tradebot.feeds.exchanges.base import HEARTBEAT, IGNORED, ParsedFrame, Unparseable
from tradebot.feeds.exchanges.gemini import Gemini

TRADE = (
    '{"event_id":1700000000000010,"price":"64000.25","quantity":"0.0125","side":"buy","symbol":"BTCUSD",'
    '"tid":2840000000000007,"timestamp":1700000000456,"type":"trade"}'
)
FIRST = (
    '{"auction_events":[],"changes":[["buy","1.5","10"]],"symbol":"BTCUSD","trades":['
    '{"event_id":9,"price":"63999","quantity":"1","side":"sell","symbol":"BTCUSD","tid":5,"timestamp":1699999999000,'
    '"type":"trade"},'
    '{"event_id":9,"price":"63998.5","quantity":"2","side":"sell","symbol":"BTCUSD","tid":6,"timestamp":1699999999000,'
    '"type":"trade"}],"type":"l2_updates"}'
)
QUIET = '{"auction_events":[],"changes":[["buy","1.5","10"]],"symbol":"BTCGBP","trades":[],"type":"l2_updates"}'
BOOK = '{"changes":[["buy","1.5","0.0"]],"symbol":"BTCUSD","type":"l2_updates"}'
HEARTBEAT_TEXT = '{"timestamp":1700000000000,"type":"heartbeat"}'
ERROR = '{"result":"error","reason":"InvalidJson","message":"Could not parse the request"}'
# Frames of every kind, which test_any_text.py breaks.
SAMPLES = [TRADE, FIRST, QUIET, BOOK, HEARTBEAT_TEXT, ERROR]


def test_recorded_frames_give_the_expected_ticks(shared_data: Path) -> None:
    parsed = check_file(Gemini, shared_data, "gemini")
    assert {frame.kind for line, frame in parsed if line.label == "heartbeat"} == {"heartbeat"}
    assert [len(frame.history) for _, frame in parsed].count(0) < len(parsed)
    acked = [line.number for line, frame in parsed if frame.kind == "ack"]
    assert {line.number for line, frame in parsed if frame.kind == "ignored"} | set(acked) == {
        line.number for line, _ in parsed if line.label == "book"
    }
    assert len(acked) == 1


def test_frames_with_stated_trades_block_trades_among_them(shared_data: Path) -> None:
    assert check_tardis(Gemini, shared_data, "gemini") >= 1


def test_a_live_trade_has_its_own_id_and_no_seq() -> None:
    tick = Tick("BTCUSD", 64000.25, 0.0125, 1700000000456, "2840000000000007")
    assert Gemini().parse(TRADE) == ParsedFrame("trades", [replace(tick, taker=BUY)])
    for side in ("auction", "block"):
        assert Gemini().parse(TRADE.replace('"buy"', f'"{side}"')) == ParsedFrame("trades", [tick])


def test_a_recording_without_trade_ids_has_those_of_its_events() -> None:
    frame = json.loads(TRADE)
    del frame["tid"]
    assert Gemini().parse(json.dumps(frame)).ticks[0].event_id == "1700000000000010"


def test_the_first_frame_of_a_symbol_is_history_in_its_order() -> None:
    assert Gemini().parse(FIRST) == ParsedFrame(
        "trades",
        history=[
            Tick("BTCUSD", 63999.0, 1.0, 1699999999000, "5", taker=SELL),
            Tick("BTCUSD", 63998.5, 2.0, 1699999999000, "6", taker=SELL),
        ],
        confirmed=("BTCUSD",),
    )


def test_the_first_frame_of_a_quiet_symbol_confirms_the_subscription() -> None:
    assert Gemini().parse(QUIET) == ParsedFrame("ack", detail="BTCGBP", confirmed=("BTCGBP",))
    assert Gemini().parse(BOOK) is IGNORED


def test_heartbeats_and_errors() -> None:
    assert Gemini().parse(HEARTBEAT_TEXT) is HEARTBEAT
    assert Gemini().parse(ERROR) == ParsedFrame("error", detail="Could not parse the request")
    assert Gemini().parse('{"type":"error","reason":"No"}') == ParsedFrame("error", detail="No")
    assert Gemini().parse('{"result":"error"}') == ParsedFrame("error", detail="no reason given")


@pytest.mark.parametrize(
    "text",
    ["{}", "[]", "7", '{"type":["trade"]}', '{"type":"candles_1m_updates","symbol":"BTCUSD","changes":[[1,2,3]]}',
     '{"type":"auction_indicative","symbol":"BTCUSD","indicative_price":"1","indicative_quantity":"1"}',
     '{"E":1700000000085684200,"s":"btcusd","t":1,"p":"1.5","q":"1","m":true}'],
)  # fmt: skip
def test_what_is_no_trade_of_v2_is_ignored(text: str) -> None:
    assert Gemini().parse(text) is IGNORED


@pytest.mark.parametrize(
    ("key", "wrong", "reason"),
    [("price", "0", "price"), ("quantity", "-1", "volume"), ("timestamp", "now", "timestamp"),
     ("symbol", None, "symbol"), ("tid", [], "trade id")],
)  # fmt: skip
def test_one_wrong_field_makes_the_whole_frame_unparseable(key: str, wrong: object, reason: str) -> None:
    first = json.loads(FIRST)
    first["trades"][1][key] = wrong
    for frame in (json.loads(TRADE) | {key: wrong}, first):
        with pytest.raises(Unparseable, match=reason):
            Gemini().parse(json.dumps(frame))


@pytest.mark.parametrize(
    "text", ["", "pong", '{"type":"trade"}', '{"type":"l2_updates","trades":7}', '{"type":"l2_updates","trades":[7]}']
)
def test_garbage_and_broken_trade_frames_are_unparseable(text: str) -> None:
    with pytest.raises(Unparseable):
        Gemini().parse(text)


def test_one_message_for_all_symbols() -> None:
    assert Gemini().subscriptions(["BTCUSD", "ETHUSD"]) == [
        '{"type":"subscribe","subscriptions":[{"name":"l2","symbols":["BTCUSD","ETHUSD"]}]}'
    ]
    assert Gemini().subscriptions([]) == []


def test_it_has_no_ping_of_its_own() -> None:
    assert Gemini().keepalive() is None
    assert Gemini.acknowledges and Gemini.url == "wss://api.gemini.com/v2/marketdata"
