from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.frames import check_file
from tests.unit.stated_trades import check_tardis
from tradebot.core.events import BUY, SELL, Tick
from tradebot.feeds.exchanges.base import HEARTBEAT, IGNORED, ParsedFrame, Unparseable
from tradebot.feeds.exchanges.bybit import Bybit

TRADES = (
    '{"topic":"publicTrade.XRPUSDT","type":"snapshot","ts":1700000000009,"data":['
    '{"T":1700000000007,"s":"XRPUSDT","S":"Buy","v":"120.5","p":"0.6123","i":"2290000000000000007","BT":false},'
    '{"T":1700000000006,"s":"XRPUSDT","S":"Sell","v":"3","p":"0.6122","i":"b7","BT":true,"RPI":false,"seq":5}]}'
)
ACK = '{"success":true,"ret_msg":"subscribe","conn_id":"c","op":"subscribe"}'
REFUSED = '{"success":false,"ret_msg":"error:handler not found,topic:publicTrade.NO","conn_id":"c","op":"subscribe"}'
AUTH = '{"op":"auth","success":false,"retCode":10003,"retMsg":"Invalid key"}'
PONG = '{"success":true,"ret_msg":"pong","conn_id":"c","op":"ping"}'
BOOK = '{"topic":"orderbook.1.XRPUSDT","type":"delta","ts":1,"data":{"s":"XRPUSDT","b":[],"a":[],"u":1,"seq":2}}'
# Frames of every kind, which test_any_text.py breaks.
SAMPLES = [TRADES, ACK, REFUSED, AUTH, PONG, BOOK]


def old_protocol(message: Any) -> bool:
    """Topics of v2 (`trade.BTCUSD`) and of spot v1 (`trade`), whose fields have other names."""
    return str(message["topic"]).split(".")[0] == "trade"


@pytest.mark.parametrize("name", ["bybit", "bybit.misc", "bybit_v2.misc"])
def test_recorded_frames_give_the_expected_ticks(shared_data: Path, name: str) -> None:
    parsed = check_file(Bybit, shared_data, name)
    assert {frame.kind for line, frame in parsed if line.label in ("book", "ticker", "candle")} == {"ignored"}
    for label in {"ack", "error", "heartbeat"} & {line.label for line, _ in parsed}:
        assert {frame.kind for line, frame in parsed if line.label == label} == {label}


@pytest.mark.parametrize(("exchange", "least"), [("bybit", 2), ("bybit spot", 4)])
def test_frames_with_stated_trades(shared_data: Path, exchange: str, least: int) -> None:
    assert check_tardis(Bybit, shared_data, exchange, other=old_protocol) >= least


def test_the_trades_of_a_frame_in_its_order_block_trades_among_them() -> None:
    assert Bybit().parse(TRADES) == ParsedFrame(
        "trades",
        [
            Tick("XRPUSDT", 0.6123, 120.5, 1700000000007, "2290000000000000007", taker=BUY),
            Tick("XRPUSDT", 0.6122, 3.0, 1700000000006, "b7", taker=SELL),
        ],
    )


def test_answers() -> None:
    assert Bybit().parse(ACK) == ParsedFrame("ack")
    assert Bybit().parse(REFUSED) == ParsedFrame("error", detail="error:handler not found,topic:publicTrade.NO")
    assert Bybit().parse(AUTH) == ParsedFrame("error", detail="Invalid key")
    assert Bybit().parse('{"success":false,"op":"subscribe"}') == ParsedFrame(
        "error", detail="refused without a reason"
    )
    assert Bybit().parse(PONG) is HEARTBEAT
    assert Bybit().parse('{"op":"pong","args":["1700000000000"],"conn_id":"c"}') is HEARTBEAT


@pytest.mark.parametrize(
    "text",
    [BOOK, "{}", "[]", "7", "null", '{"topic":7}', '{"data":[{"s":"XRPUSDT","p":"1","v":"1","T":1}]}',
     '{"topic":"allLiquidation.XRPUSDT","data":[{"T":1,"s":"XRPUSDT","S":"Buy","v":"1","p":"1"}]}',
     '{"topic":"trade.XRPUSDT","data":[{"symbol":"XRPUSDT","price":"1","size":1,"trade_time_ms":"1"}]}'],
)  # fmt: skip
def test_what_is_no_public_trade_of_v5_is_ignored(text: str) -> None:
    assert Bybit().parse(text) is IGNORED


@pytest.mark.parametrize(
    ("key", "wrong", "reason"),
    [("p", "0", "price"), ("p", "-1", "price"), ("p", None, "price"), ("v", "1,5", "volume"), ("v", "-1", "volume"),
     ("T", "soon", "time"), ("T", 1.5, "time"), ("s", "", "symbol"), ("s", 7, "symbol"), ("i", [], "trade id")],
)  # fmt: skip
def test_one_wrong_field_makes_the_whole_frame_unparseable(key: str, wrong: object, reason: str) -> None:
    frame = json.loads(TRADES)
    frame["data"][1][key] = wrong
    with pytest.raises(Unparseable, match=reason):
        Bybit().parse(json.dumps(frame))


@pytest.mark.parametrize(
    "text", ["", "pong", TRADES[:-1], '{"topic":"publicTrade.A"}', '{"topic":"publicTrade.A","data":[null]}']
)
def test_garbage_and_broken_trade_frames_are_unparseable(text: str) -> None:
    with pytest.raises(Unparseable):
        Bybit().parse(text)


def test_ten_topics_a_message() -> None:
    assert Bybit().subscriptions(["BTCUSDT"]) == ['{"op":"subscribe","args":["publicTrade.BTCUSDT"]}']
    assert Bybit().subscriptions([]) == []


@given(st.lists(st.text(), max_size=45))
def test_every_symbol_is_subscribed_once_and_in_order(symbols: list[str]) -> None:
    messages = [json.loads(text) for text in Bybit().subscriptions(symbols)]
    assert [topic for message in messages for topic in message["args"]] == [f"publicTrade.{name}" for name in symbols]
    assert all(1 <= len(message["args"]) <= 10 and message["op"] == "subscribe" for message in messages)


def test_it_asks_for_a_sign_of_life_and_confirms_subscriptions() -> None:
    assert json.loads(Bybit().keepalive() or "") == {"op": "ping"}
    assert Bybit.acknowledges and Bybit.url == "wss://stream.bybit.com/v5/public/spot"
