"""Kraken Futures' frames."""

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
from tradebot.core.events import SELL, Tick
from tradebot.feeds.exchanges.base import HEARTBEAT, IGNORED, ParsedFrame, Unparseable
from tradebot.feeds.exchanges.kraken_futures import KrakenFutures

TRADE = {
    "feed": "trade", "product_id": "PF_XYZUSD", "uid": "0c5a-1", "side": "sell", "type": "fill", "seq": 41,
    "time": 1700000000123, "qty": 440, "price": 2.25,
}  # fmt: skip
NEWER = {**TRADE, "uid": "0c5a-2", "seq": 42, "time": 1700000000456, "qty": 1.5}
SNAPSHOT: dict[str, Any] = {"feed": "trade_snapshot", "product_id": "PF_XYZUSD", "trades": [NEWER, TRADE]}
ACK = {"event": "subscribed", "feed": "trade", "product_ids": ["PF_XYZUSD"]}
# Frames of every kind, which test_any_text.py breaks.
SAMPLES = [json.dumps(sample) for sample in (TRADE, SNAPSHOT, ACK, {"event": "alert", "message": "Bad request"})]

TICK = Tick("PF_XYZUSD", 2.25, 440.0, 1700000000123, "0c5a-1", 41, SELL)
NEWER_TICK = Tick("PF_XYZUSD", 2.25, 1.5, 1700000000456, "0c5a-2", 42, SELL)


def parse(frame: object) -> ParsedFrame:
    return KrakenFutures().parse(json.dumps(frame))


@pytest.mark.parametrize("name", ["kraken_futures", "kraken_futures.misc"])
def test_recorded_frames(shared_data: Path, name: str) -> None:
    for line, parsed in check_file(KrakenFutures, shared_data, name):
        kinds = {"trade": "trades", "ack": "ack" if '"feed":"trade"' in line.text else "ignored"}
        assert parsed.kind == kinds.get(line.label, "ignored"), line


def test_recorded_trades_are_numbered_without_holes(shared_data: Path) -> None:
    """What `seq` promises, from the history to the live trades."""
    seen: dict[str, set[int]] = {}
    live = 0
    for _, parsed in check_file(KrakenFutures, shared_data, "kraken_futures"):
        live += len(parsed.ticks)
        for tick in parsed.history + parsed.ticks:
            assert tick.seq is not None
            seen.setdefault(tick.symbol, set()).add(tick.seq)
    assert live and all(len(seqs) == max(seqs) - min(seqs) + 1 for seqs in seen.values())


def test_tardis_states_the_same(shared_data: Path) -> None:
    """Its one trade is a liquidation."""
    assert check_tardis(KrakenFutures, shared_data, "cryptofacilities") == 1


def test_crypto_msg_parser_states_the_same(shared_data: Path) -> None:
    stated = [row for row in crypto_msg_parser(shared_data, "kraken") if row["test"] != "spot"]
    assert len(stated) == 4
    for row in stated:
        asserted = row["asserted"]
        found = rows(KrakenFutures().parse(row["frame"]))
        assert len(found) == int(asserted.get("trades.len()", 1))
        history, _, price, volume, ts, _, taker = found[0]
        assert history == row["test"].endswith("_snapshot")
        assert (price, ts) == (float(asserted["trade.price"]), int(asserted["trade.timestamp"]))
        assert taker and asserted["trade.side"] == f"TradeSide::{taker.capitalize()}"
        assert asserted["trade.quantity_contract"] == f"Some({volume})"


def test_a_trade() -> None:
    assert parse(TRADE) == ParsedFrame("trades", [TICK])


def test_a_snapshot_is_history_in_the_order_sent() -> None:
    assert parse(SNAPSHOT) == ParsedFrame("trades", [], [NEWER_TICK, TICK])


def test_liquidations_are_matched_in_the_book_and_kept() -> None:
    assert parse({**TRADE, "type": "liquidation"}) == ParsedFrame("trades", [TICK])


@pytest.mark.parametrize("kind", ["block", "termination", "something new"])
def test_what_is_no_market_trade_only_uses_up_a_number(kind: str) -> None:
    assert parse({**TRADE, "type": kind}) == ParsedFrame("ignored", skipped=[(TICK.symbol, TICK.seq or 0)])
    frame = {**SNAPSHOT, "trades": [{**NEWER, "type": kind}, TRADE]}
    assert parse(frame) == ParsedFrame("trades", [], [TICK])


@pytest.mark.parametrize("base", [TRADE, SNAPSHOT])
@pytest.mark.parametrize("key", ["product_id", "uid", "type", "seq", "time", "qty", "price"])
@pytest.mark.parametrize("odd", [ABSENT, None, True, -1, [], {}, ""])
def test_a_frame_with_one_wrong_field_is_refused_whole(base: dict[str, Any], key: str, odd: object) -> None:
    frame = copy.deepcopy(base)
    spoil(frame if base is TRADE else frame["trades"][1], key, odd)
    with pytest.raises(Unparseable):
        parse(frame)


@pytest.mark.parametrize(
    "frame",
    [
        {"feed": "trade"},
        {"feed": "trade_snapshot", "product_id": "PF_XYZUSD"},
        {**SNAPSHOT, "trades": {}},
        {**SNAPSHOT, "trades": ["x"]},
        {key: TRADE[key] for key in TRADE if key != "feed"},
        [TRADE], 7, "pong", None,
    ],
)  # fmt: skip
def test_what_should_have_been_trades_is_refused(frame: object) -> None:
    with pytest.raises(Unparseable):
        parse(frame)


@pytest.mark.parametrize(
    "frame",
    [
        {},
        {"event": "info", "version": 1},
        {"event": "subscribed", "feed": "book", "product_ids": ["PF_XYZUSD"]},
        {"event": "subscribed", "feed": "heartbeat"},
        {"event": "unsubscribed", "feed": "trade", "product_ids": ["PF_XYZUSD"]},
        {"feed": "book", "product_id": "PF_XYZUSD", "side": "sell", "seq": 1, "price": 1, "qty": 0},
        {"feed": "ticker_lite", "product_id": "PF_XYZUSD"},
    ],
)
def test_other_feeds_are_ignored(frame: object) -> None:
    assert parse(frame) == IGNORED


def test_acks_heartbeats_and_errors() -> None:
    assert parse(ACK) == ParsedFrame("ack", detail='["PF_XYZUSD"]', confirmed=("PF_XYZUSD",))
    assert parse({"feed": "heartbeat", "time": 1700000000123}) == HEARTBEAT
    for event in ("alert", "error", "subscribed_failed"):
        assert parse({"event": event, "message": "Invalid product id"}) == ParsedFrame(
            "error", detail="Invalid product id"
        )
    parsed = parse({"event": "subscribed_failed", "feed": "trade"})
    assert parsed.kind == "error" and "subscribed_failed" in parsed.detail


def test_subscriptions() -> None:
    exchange = KrakenFutures()
    assert exchange.connection_url(exchange.url, ["PF_XYZUSD"]) == exchange.url
    assert [json.loads(message) for message in exchange.subscriptions(("PF_XYZUSD", "FI_ABCUSD_241227"))] == [
        {"event": "subscribe", "feed": "trade", "product_ids": ["PF_XYZUSD", "FI_ABCUSD_241227"]},
        {"event": "subscribe", "feed": "heartbeat"},
    ]
    assert exchange.subscriptions([]) == []


def test_many_symbols_take_few_messages() -> None:
    symbols = [f"PF_N{n}USD" for n in range(1000)]
    sent = [json.loads(message) for message in KrakenFutures().subscriptions(symbols)]
    assert len(sent) == 11
    assert [product for message in sent for product in message.get("product_ids", [])] == symbols


def test_what_is_said_of_the_exchange() -> None:
    assert (KrakenFutures.name, KrakenFutures.acknowledges) == ("kraken_futures", True)
    # {"event":"ping"} is answered with an alert; WebSocket pings are what keeps a connection alive.
    assert KrakenFutures().keepalive() is None
