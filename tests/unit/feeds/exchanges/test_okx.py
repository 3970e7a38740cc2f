from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.frames import check_file
from tests.unit.stated_trades import check_msg_parser, check_tardis
from tradebot.core.events import BUY, SELL, Tick
from tradebot.feeds.exchanges.base import HEARTBEAT, IGNORED, ParsedFrame, Unparseable, announcement
from tradebot.feeds.exchanges.okx import Okx

TRADES = (
    '{"arg":{"channel":"trades","instId":"ETH-USD-SWAP"},"data":['
    '{"instId":"ETH-USD-SWAP","tradeId":"501","px":"2101.55","sz":"12","side":"buy","ts":"1700000000123","count":"2"},'
    '{"instId":"ETH-USD-SWAP","tradeId":"500","px":"2101.5","sz":"0.5","side":"sell","ts":"1700000000100"}]}'
)
ACK = '{"event":"subscribe","arg":{"channel":"trades","instId":"ETH-USD-SWAP"},"connId":"a4d3ae55"}'
ERROR = '{"event":"error","code":"60018","msg":"Wrong URL or channel:trades,instId:NO doesn\'t exist.","connId":"a4"}'
NOTICE = '{"event":"notice","code":"64008","msg":"The connection will soon be closed.","connId":"a4d3ae55"}'
BOOK = '{"arg":{"channel":"books","instId":"ETH-USD-SWAP"},"action":"update","data":[{"asks":[],"bids":[],"ts":"1"}]}'
# Frames of every kind, which test_any_text.py breaks.
SAMPLES = [TRADES, ACK, ERROR, NOTICE, BOOK]


@pytest.mark.parametrize("name", ["okx", "okx.misc"])
def test_recorded_frames_give_the_expected_ticks(shared_data: Path, name: str) -> None:
    parsed = check_file(Okx, shared_data, name)
    assert {frame.kind for line, frame in parsed if line.label in ("book", "ticker", "candle")} == {"ignored"}
    for label in {"ack", "error"} & {line.label for line, _ in parsed}:
        assert {frame.kind for line, frame in parsed if line.label == label} == {label}


def test_frames_with_stated_trades(shared_data: Path) -> None:
    assert check_tardis(Okx, shared_data, "okex") >= 2
    kinds = {"spot", "linear_future", "linear_swap", "inverse_future"}
    assert check_msg_parser(Okx(), shared_data, "okx", kinds) >= 4


def test_the_trades_of_a_frame_in_its_order_contracts_unconverted_and_without_seq() -> None:
    expected = [
        Tick("ETH-USD-SWAP", 2101.55, 12.0, 1700000000123, "501", taker=BUY),
        Tick("ETH-USD-SWAP", 2101.5, 0.5, 1700000000100, "500", taker=SELL),
    ]
    assert Okx().parse(TRADES) == ParsedFrame("trades", expected)
    assert Okx().parse(TRADES.replace('"trades"', '"trades-all"')) == ParsedFrame("trades", expected)


def test_bare_pong_is_a_heartbeat() -> None:
    assert Okx().parse("pong") is HEARTBEAT
    with pytest.raises(Unparseable):
        Okx().parse("pang")


def test_answers_and_announcements() -> None:
    assert Okx().parse(ACK) == ParsedFrame(
        "ack", detail='{"channel":"trades","instId":"ETH-USD-SWAP"}', confirmed=("ETH-USD-SWAP",)
    )
    assert Okx().parse(ERROR) == ParsedFrame("error", detail="Wrong URL or channel:trades,instId:NO doesn't exist.")
    assert Okx().parse(NOTICE) == announcement("The connection will soon be closed.", reconnect=True)
    assert Okx().parse('{"event":"channel-conn-count-error","channel":"x"}').kind == "error"
    assert Okx().parse('{"event":"unsubscribe","arg":{"channel":"trades","instId":"A"}}') is IGNORED


@pytest.mark.parametrize(
    "text",
    [BOOK, "{}", "[]", "7", '{"arg":"trades","data":[]}', '{"arg":{"channel":["trades"]},"data":[]}',
     '{"arg":{"channel":"liquidation-orders"},"data":[{"details":[{"bkPx":"1","sz":"1","ts":"1"}]}]}',
     '{"table":"spot/trade","data":[{"instrument_id":"A-B","price":"1","size":"1"}]}',
     '{"code":"0","msg":"","data":[{"instId":"A-B","px":"1","sz":"1","ts":"1"}]}'],
)  # fmt: skip
def test_what_is_no_public_trade_of_v5_is_ignored(text: str) -> None:
    assert Okx().parse(text) is IGNORED


@pytest.mark.parametrize(
    ("key", "wrong", "reason"),
    [("px", "0", "price"), ("px", "1_0", "price"), ("sz", None, "volume"), ("ts", "12.5", "ts"), ("ts", -1, "ts"),
     ("instId", None, "symbol"), ("tradeId", {}, "trade id")],
)  # fmt: skip
def test_one_wrong_field_makes_the_whole_frame_unparseable(key: str, wrong: object, reason: str) -> None:
    frame = json.loads(TRADES)
    frame["data"][1][key] = wrong
    with pytest.raises(Unparseable, match=reason):
        Okx().parse(json.dumps(frame))


@pytest.mark.parametrize("data", [None, {}, "x", [7]])
def test_a_trade_frame_without_a_list_of_trades_is_unparseable(data: object) -> None:
    with pytest.raises(Unparseable):
        Okx().parse(json.dumps({"arg": {"channel": "trades"}, "data": data}))


def test_a_subscription_message() -> None:
    assert Okx().subscriptions(["BTC-USDT", "ETH-USDT"]) == [
        '{"op":"subscribe","args":[{"channel":"trades","instId":"BTC-USDT"},{"channel":"trades","instId":"ETH-USDT"}]}'
    ]
    assert Okx().subscriptions([]) == []


@given(st.lists(st.text(alphabet="ABC-019", max_size=64), max_size=250))
@example(["X" * 64] * 2_000)
def test_every_symbol_is_subscribed_once_and_no_message_is_above_64_kb(symbols: list[str]) -> None:
    texts = Okx().subscriptions(symbols)
    args = [arg for text in texts for arg in json.loads(text)["args"]]
    assert args == [{"channel": "trades", "instId": symbol} for symbol in symbols]
    assert all(len(text.encode()) < 65_536 and json.loads(text)["args"] for text in texts)


def test_it_asks_for_a_sign_of_life_and_confirms_subscriptions() -> None:
    assert Okx().keepalive() == "ping"
    assert Okx.acknowledges and Okx.url == "wss://ws.okx.com:8443/ws/v5/public"
