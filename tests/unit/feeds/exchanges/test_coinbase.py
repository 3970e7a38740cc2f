"""Coinbase's frames, of Advanced Trade and of the older Exchange feed."""

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
from tradebot.core.events import BUY, Tick
from tradebot.feeds.exchanges.base import HEARTBEAT, IGNORED, ParsedFrame, Unparseable
from tradebot.feeds.exchanges.coinbase import Coinbase

OLDER_URL = "wss://ws-feed.exchange.coinbase.com"

TRADE = {
    "product_id": "XYZ-USD", "trade_id": "41", "price": "2.25", "size": "0.3", "time": "2023-11-14T22:13:20.123999Z",
    "side": "SELL",
}  # fmt: skip
NEWER = {**TRADE, "trade_id": "42", "price": "2.5", "time": "2023-11-14T22:13:20.5Z"}
UPDATE: dict[str, Any] = {
    "channel": "market_trades", "timestamp": "2023-11-14T22:13:20.6Z", "sequence_num": 3,
    "events": [{"type": "update", "trades": [NEWER, TRADE]}],
}  # fmt: skip
SNAPSHOT = {**UPDATE, "events": [{"type": "snapshot", "trades": [NEWER, TRADE]}]}
MATCH = {
    "type": "match", "trade_id": 41, "maker_order_id": "a", "taker_order_id": "b", "side": "sell", "size": "0.3",
    "price": "2.25", "product_id": "XYZ-USD", "sequence": 900, "time": "2023-11-14T22:13:20.123999Z",
}  # fmt: skip
SUBSCRIBED: dict[str, Any] = {
    "channel": "subscriptions", "events": [{"subscriptions": {"market_trades": ["XYZ-USD"], "heartbeats": ["x"]}}]
}  # fmt: skip
OLDER_SUBSCRIBED = {"type": "subscriptions", "channels": [{"name": "matches", "product_ids": ["XYZ-USD"]}]}
ERROR = {"type": "error", "message": "Failed to subscribe", "reason": "NO-NE is not a valid product"}
# Frames of every kind, which test_any_text.py breaks.
SAMPLES = [json.dumps(sample) for sample in (UPDATE, SNAPSHOT, MATCH, SUBSCRIBED, OLDER_SUBSCRIBED, ERROR)]

TICK = Tick("XYZ-USD", 2.25, 0.3, 1700000000123, "41", 41, BUY)
NEWER_TICK = Tick("XYZ-USD", 2.5, 0.3, 1700000000500, "42", 42, BUY)


def parse(frame: object) -> ParsedFrame:
    return Coinbase().parse(json.dumps(frame))


@pytest.mark.parametrize("name", ["coinbase", "coinbase.misc", "coinbase_legacy", "coinbase_legacy.misc"])
def test_recorded_frames(shared_data: Path, name: str) -> None:
    kinds = {"trade": "trades", "ack": "ack", "heartbeat": "heartbeat", "error": "error"}
    for line, parsed in check_file(Coinbase, shared_data, name):
        confirms_others = line.label == "ack" and "market_trades" not in line.text and "matches" not in line.text
        assert parsed.kind == ("ignored" if confirms_others else kinds.get(line.label, "ignored")), line


@pytest.mark.parametrize("name", ["coinbase", "coinbase_legacy"])
def test_recorded_trades_are_numbered_without_holes(shared_data: Path, name: str) -> None:
    """What `seq` promises, from the history to the live trades."""
    seen: dict[str, set[int]] = {}
    for _, parsed in check_file(Coinbase, shared_data, name):
        for tick in parsed.history + parsed.ticks:
            assert tick.seq is not None and str(tick.seq) == tick.event_id
            seen.setdefault(tick.symbol, set()).add(tick.seq)
    assert any(len(seqs) > 2 for seqs in seen.values())
    assert all(len(seqs) == max(seqs) - min(seqs) + 1 for seqs in seen.values())


def test_tardis_states_the_same(shared_data: Path) -> None:
    assert check_tardis(Coinbase, shared_data, "coinbase") == 1


def test_crypto_msg_parser_states_the_same(shared_data: Path) -> None:
    (stated,) = crypto_msg_parser(shared_data, "coinbase_pro")
    ((history, symbol, _, volume, ts, _, taker),) = rows(Coinbase().parse(stated["frame"]))
    assert (history, symbol) == (True, "BTC-USD")
    assert volume == float(stated["asserted"]["trade.quantity_base"])
    assert ts == int(stated["asserted"]["extract_timestamp"])
    # It states the side as sent: the maker's.
    assert (stated["asserted"]["trade.side"], taker) == ("TradeSide::Sell", BUY)


def test_trades_come_in_the_order_sent() -> None:
    assert parse(UPDATE) == ParsedFrame("trades", [NEWER_TICK, TICK])


def test_a_snapshot_is_history() -> None:
    assert parse(SNAPSHOT) == ParsedFrame("trades", [], [NEWER_TICK, TICK])
    both = {**UPDATE, "events": [*SNAPSHOT["events"], {"type": "update", "trades": [TRADE]}]}
    assert parse(both) == ParsedFrame("trades", [TICK], [NEWER_TICK, TICK])


def test_a_match_of_the_older_feed() -> None:
    assert parse(MATCH) == ParsedFrame("trades", [TICK])


def test_the_last_match_is_history() -> None:
    assert parse({**MATCH, "type": "last_match"}) == ParsedFrame("trades", [], [TICK])


@pytest.mark.parametrize("base", [UPDATE, SNAPSHOT, MATCH])
@pytest.mark.parametrize("key", ["product_id", "trade_id", "price", "size", "time"])
@pytest.mark.parametrize("odd", [ABSENT, None, True, -1, [], {}, ""])
def test_a_frame_with_one_wrong_field_is_refused_whole(base: dict[str, Any], key: str, odd: object) -> None:
    frame = copy.deepcopy(base)
    spoil(frame if base is MATCH else frame["events"][0]["trades"][1], key, odd)
    with pytest.raises(Unparseable):
        parse(frame)


@pytest.mark.parametrize(
    "frame",
    [
        {**UPDATE, "events": None},
        {key: UPDATE[key] for key in UPDATE if key != "events"},
        {key: UPDATE[key] for key in UPDATE if key != "channel"},
        {**UPDATE, "events": [None]},
        {**UPDATE, "events": [{"type": "update"}]},
        {**UPDATE, "events": [{"type": "other", "trades": []}]},
        {**UPDATE, "events": [{"trades": [TRADE]}]},
        {**UPDATE, "events": [{"type": "update", "trades": ["x"]}]},
        {key: MATCH[key] for key in MATCH if key != "type"},
        {**MATCH, "time": "2023-11-14 25:13:20Z"},
        [UPDATE], 7, "pong", None,
    ],
)  # fmt: skip
def test_what_should_have_been_trades_is_refused(frame: object) -> None:
    with pytest.raises(Unparseable):
        parse(frame)


@pytest.mark.parametrize(
    "frame",
    [
        {},
        {"channel": "ticker", "events": [{"type": "update", "tickers": []}]},
        {"channel": "l2_data", "events": []},
        {"channel": 5},
        {"type": "ticker", "trade_id": 5, "product_id": "XYZ-USD", "price": "1"},
        {"type": "l2update", "product_id": "XYZ-USD", "changes": []},
        {"type": "unknown"},
        {"channel": "subscriptions", "events": [{"subscriptions": {"heartbeats": ["heartbeats"]}}]},
        {"type": "subscriptions", "channels": [{"name": "ticker", "product_ids": ["XYZ-USD"]}]},
        {"type": "subscriptions"},
    ],
)
def test_other_channels_are_ignored(frame: object) -> None:
    assert parse(frame) == IGNORED


def test_acks_heartbeats_and_errors() -> None:
    for frame in (SUBSCRIBED, OLDER_SUBSCRIBED):
        parsed = parse(frame)
        assert parsed.kind == "ack" and "XYZ-USD" in parsed.detail
    assert parse({"channel": "heartbeats", "events": [{"heartbeat_counter": 4}]}) == HEARTBEAT
    assert parse({"type": "heartbeat", "sequence": 90, "last_trade_id": 20}) == HEARTBEAT
    assert parse(ERROR) == ParsedFrame("error", detail="Failed to subscribe: NO-NE is not a valid product")
    assert parse({"type": "error", "message": "no"}) == ParsedFrame("error", detail="no")


@pytest.mark.parametrize("url", [Coinbase.url, "ws://127.0.0.1:9001"])
def test_advanced_trade_is_subscribed_to(url: str) -> None:
    exchange = Coinbase()
    assert exchange.connection_url(url, ["XYZ-USD"]) == url
    assert [json.loads(message) for message in exchange.subscriptions(("XYZ-USD", "ABC-USD"))] == [
        {"type": "subscribe", "product_ids": ["XYZ-USD", "ABC-USD"], "channel": "market_trades"},
        {"type": "subscribe", "channel": "heartbeats"},
    ]


@pytest.mark.parametrize("url", [OLDER_URL, "wss://ws-feed.pro.coinbase.com", "wss://ws-direct.exchange.coinbase.com"])
def test_the_older_feed_is_subscribed_to_on_its_hosts(url: str) -> None:
    exchange = Coinbase()
    assert exchange.connection_url(url, ["XYZ-USD"]) == url
    assert [json.loads(message) for message in exchange.subscriptions(["XYZ-USD"])] == [
        {"type": "subscribe", "product_ids": ["XYZ-USD"], "channels": ["matches", "heartbeat"]},
    ]


@pytest.mark.parametrize(("url", "messages"), [(Coinbase.url, 5), (OLDER_URL, 4)])
def test_many_symbols_take_few_messages(url: str, messages: int) -> None:
    """A thousand products stay within the eight messages of a second."""
    exchange, symbols = Coinbase(), [f"N{n}-USD" for n in range(1000)]
    exchange.connection_url(url, symbols)
    sent = [json.loads(message) for message in exchange.subscriptions(symbols)]
    assert len(sent) == messages
    assert [product for message in sent for product in message.get("product_ids", [])] == symbols
    assert exchange.subscriptions([]) == []


def test_what_is_said_of_the_exchange() -> None:
    assert (Coinbase.name, Coinbase.acknowledges, Coinbase().keepalive()) == ("coinbase", True, None)
