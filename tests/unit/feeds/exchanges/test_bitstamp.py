from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.frames import check_file
from tests.unit.stated_trades import check_tardis
from tradebot.core.events import SELL, Tick
from tradebot.feeds.exchanges.base import HEARTBEAT, IGNORED, ParsedFrame, Unparseable
from tradebot.feeds.exchanges.bitstamp import Bitstamp

TRADE = (
    '{"data":{"id":300000001,"timestamp":"1700000000","amount":0.25,"amount_str":"0.25000000","price":41000.5,'
    '"price_str":"41000.50","type":1,"microtimestamp":"1700000000123999","buy_order_id":1,"sell_order_id":2},'
    '"channel":"live_trades_btceur","event":"trade"}'
)
ACK = '{"event":"bts:subscription_succeeded","channel":"live_trades_btceur","data":{}}'
ERROR = '{"event":"bts:error","channel":"","data":{"code":null,"message":"Bad subscription string."}}'
HEARTBEAT_TEXT = '{"event":"bts:heartbeat","channel":"","data":{"status":"success"}}'
RECONNECT = '{"event":"bts:request_reconnect","channel":"","data":""}'
BOOK = '{"data":{"timestamp":"1","bids":[],"asks":[]},"channel":"order_book_a","event":"data"}'
# Frames of every kind, which test_any_text.py breaks.
SAMPLES = [TRADE, ACK, ERROR, HEARTBEAT_TEXT, RECONNECT, BOOK]


@pytest.mark.parametrize("name", ["bitstamp", "bitstamp.misc"])
def test_recorded_frames_give_the_expected_ticks(shared_data: Path, name: str) -> None:
    parsed = check_file(Bitstamp, shared_data, name)
    assert {frame.kind for line, frame in parsed if line.label in ("book", "other")} == {"ignored"}
    assert {frame.kind for line, frame in parsed if line.label == "ack"} <= {"ack"}


def test_frames_with_stated_trades(shared_data: Path) -> None:
    assert check_tardis(Bitstamp, shared_data, "bitstamp") >= 2


def test_a_trade_takes_its_symbol_from_the_channel_and_its_time_cut_down_to_ms() -> None:
    tick = Tick("btceur", 41000.5, 0.25, 1700000000123, "300000001", taker=SELL)
    assert Bitstamp().parse(TRADE) == ParsedFrame("trades", [tick])


def test_older_frames_have_no_texts_and_no_microseconds() -> None:
    frame = json.loads(TRADE)
    for key in ("amount_str", "price_str", "microtimestamp"):
        del frame["data"][key]
    frame["data"] |= {"price": 1e-05, "amount": 1e-08}
    tick = Tick("btceur", 1e-05, 1e-08, 1700000000000, "300000001", taker=SELL)
    assert Bitstamp().parse(json.dumps(frame)).ticks == [tick]


def test_answers_and_announcements() -> None:
    assert Bitstamp().parse(ACK) == ParsedFrame("ack", detail="live_trades_btceur", confirmed=("btceur",))
    assert Bitstamp().parse(ERROR) == ParsedFrame("error", detail="Bad subscription string.")
    assert Bitstamp().parse('{"event":"bts:error","data":{"code":4009}}') == ParsedFrame(
        "error", detail='{"code":4009}'
    )
    assert Bitstamp().parse('{"event":"bts:error"}') == ParsedFrame("error", detail="null")
    assert Bitstamp().parse(HEARTBEAT_TEXT) is HEARTBEAT
    asked = Bitstamp().parse(RECONNECT).announcement
    assert asked is not None and asked.reconnect and "bts:request_reconnect" in asked.text


@pytest.mark.parametrize(
    "text",
    [BOOK, "{}", "[]", "7", '{"event":"bts:unsubscription_succeeded","channel":"live_trades_a","data":{}}',
     TRADE.replace("live_trades_btceur", "private-my_trades_btceur-77"), '{"event":["trade"]}',
     '{"event":"order_created","channel":"live_orders_btceur","data":{"id":1,"price":1,"amount":1}}'],
)  # fmt: skip
def test_what_is_no_public_trade_is_ignored(text: str) -> None:
    assert Bitstamp().parse(text) is IGNORED


@pytest.mark.parametrize(
    ("key", "wrong", "reason"),
    [("price_str", "0.00", "price"), ("price_str", None, "price"), ("amount_str", "x", "volume"),
     ("microtimestamp", "1.5", "microtimestamp"), ("microtimestamp", None, "microtimestamp"), ("id", 1.5, "trade id")],
)  # fmt: skip
def test_a_wrong_field_makes_the_frame_unparseable(key: str, wrong: object, reason: str) -> None:
    frame = json.loads(TRADE)
    frame["data"][key] = wrong
    with pytest.raises(Unparseable, match=reason):
        Bitstamp().parse(json.dumps(frame))


@pytest.mark.parametrize(
    "text",
    ["", "pong", '{"event":"trade"}', '{"event":"trade","channel":"live_trades_a"}',
     '{"event":"trade","channel":"live_trades_a","data":[]}', TRADE.replace("live_trades_btceur", "live_trades_")],
)  # fmt: skip
def test_garbage_and_broken_trade_frames_are_unparseable(text: str) -> None:
    with pytest.raises(Unparseable):
        Bitstamp().parse(text)


def test_one_channel_a_message() -> None:
    assert Bitstamp().subscriptions(["btcusd", "etheur"]) == [
        '{"event":"bts:subscribe","data":{"channel":"live_trades_btcusd"}}',
        '{"event":"bts:subscribe","data":{"channel":"live_trades_etheur"}}',
    ]


def test_it_asks_for_a_sign_of_life_and_confirms_subscriptions() -> None:
    assert json.loads(Bitstamp().keepalive() or "") == {"event": "bts:heartbeat"}
    assert Bitstamp.acknowledges and Bitstamp.url == "wss://ws.bitstamp.net"
