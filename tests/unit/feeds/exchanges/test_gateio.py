from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.frames import check_file
from tests.unit.stated_trades import check_msg_parser, check_tardis
from tradebot.core.events import BUY, SELL, Tick
from tradebot.feeds.exchanges.base import HEARTBEAT, IGNORED, ParsedFrame, Unparseable
from tradebot.feeds.exchanges.gateio import GateIo

TRADE = (
    '{"time":1700000001,"time_ms":1700000001002,"channel":"spot.trades","event":"update","result":{"id":4242,'
    '"id_market":88,"create_time":1700000000,"create_time_ms":"1700000000999.987654","side":"sell",'
    '"currency_pair":"LTC_USDT","amount":"1.50","price":"71.25","range":"88-88"}}'
)
OLD = (
    '{"time":1600000001,"channel":"spot.trades","event":"update","result":{"id":41,"create_time":1600000000,'
    '"create_time_ms":"1600000000123","side":"buy","currency_pair":"LTC_USDT","amount":"2","price":"50"}}'
)
ACK = '{"time":1,"channel":"spot.trades","event":"subscribe","payload":["LTC_USDT"],"result":{"status":"success"}}'
REFUSED = (
    '{"time":1,"channel":"spot.trades","event":"subscribe","error":{"code":2,"message":"unknown currency pair NO_NO"},'
    '"result":{"status":"fail"}}'
)
PONG = '{"time":1,"channel":"spot.pong","event":"","error":null,"result":null}'
BOOK = '{"time":1,"channel":"spot.order_book_update","event":"update","result":{"s":"LTC_USDT","b":[],"a":[]}}'
FUTURES = (
    '{"time":1,"channel":"futures.trades","event":"update","error":null,"result":'
    '[{"size":-7,"id":3,"create_time":1,"create_time_ms":1000,"price":"29009.9","contract":"BTC_USDT"}]}'
)
# Frames of every kind, which test_any_text.py breaks.
SAMPLES = [TRADE, OLD, ACK, REFUSED, PONG, BOOK, FUTURES]


def old_protocol(message: Any) -> bool:
    """The methods of v3 (`trades.update`)."""
    return "method" in message


@pytest.mark.parametrize("name", ["gateio", "gateio.misc"])
def test_recorded_frames_give_the_expected_ticks(shared_data: Path, name: str) -> None:
    parsed = check_file(GateIo, shared_data, name)
    assert {frame.kind for line, frame in parsed if line.label in ("book", "ticker", "candle")} == {"ignored"}
    acks = [line.text for line, frame in parsed if frame.kind == "ack"]
    assert len(acks) == sum('"event":"subscribe"' in line.text for line, _ in parsed) > 0
    assert {frame.kind for line, frame in parsed if line.label == "heartbeat"} <= {"heartbeat"}


def test_frames_with_stated_trades(shared_data: Path) -> None:
    assert check_tardis(GateIo, shared_data, "gate-io", other=old_protocol) >= 1
    assert check_msg_parser(GateIo(), shared_data, "gate", {"spot"}) >= 1


def test_a_trade_has_its_id_its_markets_number_and_its_time_cut_down_to_ms() -> None:
    assert GateIo().parse(TRADE) == ParsedFrame(
        "trades", [Tick("LTC_USDT", 71.25, 1.5, 1700000000999, "4242", 88, SELL)]
    )
    assert GateIo().parse(OLD) == ParsedFrame("trades", [Tick("LTC_USDT", 50.0, 2.0, 1600000000123, "41", taker=BUY)])


@pytest.mark.parametrize(
    ("sent", "ts"),
    [("1700000000001", 1700000000001), ("1700000000001.", 1700000000001), ("1700000000001.9999999", 1700000000001),
     (1700000000001, 1700000000001), (1700000000001.75, 1700000000001)],
)  # fmt: skip
def test_times_as_text_and_as_numbers(sent: object, ts: int) -> None:
    frame = json.loads(TRADE)
    frame["result"]["create_time_ms"] = sent
    if sent == "1700000000001.":
        with pytest.raises(Unparseable):
            GateIo().parse(json.dumps(frame))
    else:
        assert GateIo().parse(json.dumps(frame)).ticks[0].ts == ts


def test_answers() -> None:
    assert GateIo().parse(ACK) == ParsedFrame("ack", detail='["LTC_USDT"]')
    assert GateIo().parse(REFUSED) == ParsedFrame("error", detail="unknown currency pair NO_NO")
    assert GateIo().parse('{"channel":"spot.trades","error":"busy"}') == ParsedFrame("error", detail="busy")
    assert GateIo().parse(PONG) is HEARTBEAT


@pytest.mark.parametrize(
    "text",
    [BOOK, FUTURES, "{}", "[]", "7", '{"channel":7}', ACK.replace("subscribe", "unsubscribe"),
     '{"method":"trades.update","params":["LTC_USDT",[{"id":1,"time":1.5,"price":"1","amount":"1"}]],"id":null}',
     '{"time":1,"channel":"futures.liquidates","event":"update","result":[{"fill_price":1,"size":1,"time":1}]}'],
)  # fmt: skip
def test_what_is_no_spot_trade_is_ignored(text: str) -> None:
    assert GateIo().parse(text) is IGNORED


@pytest.mark.parametrize(
    ("key", "wrong", "reason"),
    [("price", "0", "price"), ("amount", "", "volume"), ("create_time_ms", "1.x", "create_time_ms"),
     ("create_time_ms", "-1.5", "create_time_ms"), ("create_time_ms", -1.5, "time"), ("create_time_ms", None, "time"),
     ("create_time_ms", 1e300, "time"), ("currency_pair", None, "symbol"), ("id", [], "trade id"),
     ("id_market", "x", "id_market"), ("id_market", -1, "id_market")],
)  # fmt: skip
def test_a_wrong_field_makes_the_frame_unparseable(key: str, wrong: object, reason: str) -> None:
    frame = json.loads(TRADE)
    frame["result"][key] = wrong
    with pytest.raises(Unparseable, match=reason):
        GateIo().parse(json.dumps(frame))


@pytest.mark.parametrize("text", ["", "pong", '{"channel":"spot.trades","event":"update"}', TRADE[:-1]])
def test_garbage_and_broken_trade_frames_are_unparseable(text: str) -> None:
    with pytest.raises(Unparseable):
        GateIo().parse(text)


def test_a_subscription_message() -> None:
    assert GateIo().subscriptions(["BTC_USDT", "LTC_USDT"]) == [
        '{"channel":"spot.trades","event":"subscribe","payload":["BTC_USDT","LTC_USDT"]}'
    ]
    assert GateIo().subscriptions([]) == []


@given(st.lists(st.text(), max_size=250))
@example(["X"] * 101)
def test_every_symbol_is_subscribed_once_and_in_order(symbols: list[str]) -> None:
    messages = [json.loads(text) for text in GateIo().subscriptions(symbols)]
    assert [pair for message in messages for pair in message["payload"]] == symbols
    assert all(1 <= len(message["payload"]) <= 100 for message in messages)


def test_it_has_no_ping_that_needs_no_clock() -> None:
    assert GateIo().keepalive() is None
    assert GateIo.acknowledges and GateIo.url == "wss://api.gateio.ws/ws/v4/"
