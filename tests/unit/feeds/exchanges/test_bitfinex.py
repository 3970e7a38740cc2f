from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.frames import check_file
from tests.unit.stated_trades import check_tardis
from tradebot.core.events import BUY, SELL, Tick
from tradebot.feeds.exchanges.base import HEARTBEAT, IGNORED, ParsedFrame, Unparseable, announcement
from tradebot.feeds.exchanges.bitfinex import Bitfinex

ACK = '{"event":"subscribed","channel":"trades","chanId":77,"symbol":"tETHUSD","pair":"ETHUSD"}'
HISTORY = "[77,[[1002,1700000000200,-0.5,2000.25],[1001,1700000000100,1.25,2000]]]"
EXECUTED = '[77,"te",[1003,1700000000300,-0.125,2001.5]]'
UPDATED = '[77,"tu",[1003,1700000000300,-0.125,2001.5]]'
FUNDING = '{"event":"subscribed","channel":"trades","chanId":78,"symbol":"fUSD","currency":"USD"}'
ERROR = '{"channel":"trades","symbol":"tNOUSD","event":"error","msg":"symbol: invalid","code":10300,"pair":"NOUSD"}'
INFO = '{"event":"info","version":2,"serverId":"x","platform":{"status":1}}'
RESTART = '{"event":"info","code":20051,"msg":"Stopping. Please try to reconnect"}'
# Frames of every kind, which test_any_text.py breaks.
SAMPLES = [ACK, HISTORY, EXECUTED, UPDATED, FUNDING, ERROR, INFO, RESTART, '[77,"hb"]', '{"event":"pong","ts":1}']

LAST = Tick("tETHUSD", 2001.5, 0.125, 1700000000300, "1003", taker=SELL)


def subscribed() -> Bitfinex:
    exchange = Bitfinex()
    assert exchange.parse(ACK) == ParsedFrame("ack", detail="tETHUSD", confirmed=("tETHUSD",))
    return exchange


@pytest.mark.parametrize("name", ["bitfinex", "bitfinex.misc"])
def test_recorded_frames_give_the_expected_ticks(shared_data: Path, name: str) -> None:
    """The isolated frames have trades of a channel that no ack names: they give none."""
    parsed = check_file(Bitfinex, shared_data, name)
    for label in {"ack", "error", "heartbeat"} & {line.label for line, _ in parsed}:
        assert {frame.kind for line, frame in parsed if line.label == label} == {label}


@pytest.mark.parametrize("exchange", ["bitfinex", "bitfinex derivatives"])
def test_frames_with_stated_trades(shared_data: Path, exchange: str) -> None:
    check_tardis(Bitfinex, shared_data, exchange)


def test_a_trade_takes_its_symbol_from_the_ack_of_its_channel() -> None:
    assert subscribed().parse(EXECUTED) == ParsedFrame("trades", [LAST])
    assert Bitfinex().parse(EXECUTED) is IGNORED
    assert Bitfinex().parse(HISTORY) is IGNORED


def test_an_adapter_knows_nothing_of_another_connections_channels() -> None:
    subscribed()
    assert Bitfinex().parse(EXECUTED) is IGNORED


def test_one_trade_comes_once() -> None:
    exchange = subscribed()
    assert exchange.parse(EXECUTED).ticks == [LAST]
    assert exchange.parse(UPDATED) is IGNORED


def test_the_first_array_is_history_in_its_order() -> None:
    assert subscribed().parse(HISTORY) == ParsedFrame(
        "trades",
        history=[
            Tick("tETHUSD", 2000.25, 0.5, 1700000000200, "1002", taker=SELL),
            Tick("tETHUSD", 2000.0, 1.25, 1700000000100, "1001", taker=BUY),
        ],
    )
    assert subscribed().parse("[77,[]]") == ParsedFrame("trades")


def test_elements_appended_by_conf_flags_or_by_newer_versions_are_passed_over() -> None:
    exchange = subscribed()
    assert exchange.parse(EXECUTED.replace("2001.5", '2001.5,null,"new"')).ticks == [LAST]
    assert exchange.parse(EXECUTED[:-1] + ",19,1700000000834]").ticks == [LAST]
    assert len(exchange.parse(HISTORY[:-1] + ",1]").history) == 2
    assert exchange.parse('[77,"hb",20]') is HEARTBEAT


def test_funding_trades_have_a_rate_and_no_price() -> None:
    exchange = Bitfinex()
    refused = exchange.parse(FUNDING)
    assert refused.kind == "error" and "fUSD" in refused.detail
    for text in ("[78,[[1,1700000000000,500,0.0002,30]]]", '[78,"fte",[2,1700000000000,500,0.0002,30]]'):
        assert exchange.parse(text) is IGNORED


def test_answers_and_announcements() -> None:
    assert Bitfinex().parse('[77,"hb"]') is HEARTBEAT
    assert Bitfinex().parse('{"event":"pong","ts":1700000000000,"cid":1}') is HEARTBEAT
    assert Bitfinex().parse(ERROR) == ParsedFrame("error", detail="symbol: invalid", refused=("tNOUSD",))
    assert Bitfinex().parse('{"event":"error","code":10000}') == ParsedFrame("error", detail="10000")
    assert Bitfinex().parse(INFO) is IGNORED
    assert Bitfinex().parse(RESTART) == announcement("Stopping. Please try to reconnect", reconnect=True)
    assert Bitfinex().parse('{"event":"conf","status":"OK","flags":65536}') is IGNORED
    assert Bitfinex().parse('{"event":"subscribed","channel":"book","chanId":5,"symbol":"tETHUSD"}') == ParsedFrame(
        "ack"
    )


def test_channels_of_books_and_channels_left_are_no_trades() -> None:
    exchange = subscribed()
    exchange.parse('{"event":"subscribed","channel":"book","chanId":5,"symbol":"tETHUSD"}')
    assert exchange.parse("[5,[[2000.5,3,1.5],[2000.75,1,-2]]]") is IGNORED
    assert exchange.parse('{"event":"unsubscribed","status":"OK","chanId":77}') is IGNORED
    assert exchange.parse(EXECUTED) is IGNORED


@pytest.mark.parametrize("text", ["{}", "[]", "[77]", "7", '[{"chanId":77},"te",[]]', '["77","te",[]]', '{"event":{}}'])
def test_what_has_no_known_shape_is_ignored(text: str) -> None:
    assert subscribed().parse(text) is IGNORED


@pytest.mark.parametrize(
    "text",
    ["", "pong", '[77,"te"]', '[77,"te",7]', '[77,"te",[1003,1700000000300,-0.125]]', "[77,[1003,1700000000300,1,2]]",
     '[77,"te",[1003,1700000000300,null,2001.5]]', '[77,"te",[1003,1700000000300,1,0]]', "[77,7]",
     '[77,"te",[1003,"x",1,2001.5]]', '[77,"te",[[],1700000000300,1,2001.5]]',
     "[77,[[1002,1700000000200,-0.5,2000.25],[1001,1700000000100,1.25,-2000]]]",
     '{"event":"subscribed","channel":"trades","symbol":"tETHUSD"}',
     '{"event":"subscribed","channel":"trades","chanId":79}', '{"event":"unsubscribed","chanId":{}}'],
)  # fmt: skip
def test_garbage_and_broken_frames_are_unparseable(text: str) -> None:
    with pytest.raises(Unparseable):
        subscribed().parse(text)


def test_the_channels_remembered_are_bounded() -> None:
    exchange = Bitfinex()
    with pytest.raises(Unparseable, match="too many"):
        for channel in range(1_001):
            exchange.parse(ACK.replace("77", str(channel)))


def test_one_channel_a_message() -> None:
    assert Bitfinex().subscriptions(["tBTCUSD", "tBTCF0:USTF0"]) == [
        '{"event":"subscribe","channel":"trades","symbol":"tBTCUSD"}',
        '{"event":"subscribe","channel":"trades","symbol":"tBTCF0:USTF0"}',
    ]


def test_it_asks_for_a_sign_of_life_and_confirms_subscriptions() -> None:
    assert json.loads(Bitfinex().keepalive() or "") == {"event": "ping"}
    assert Bitfinex.acknowledges and Bitfinex.url == "wss://api-pub.bitfinex.com/ws/2"
