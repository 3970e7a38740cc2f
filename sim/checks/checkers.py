"""Invariants of every history. Each check raises AssertionError with a description of the failure."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from sim.checks.feed_model import (
    BandItem,
    DroppedItem,
    DuplicateItem,
    FeedModel,
    GapItem,
    Item,
    LinkItem,
    MalformedItem,
    OutOfBandItem,
    oldest_first,
)
from sim.checks.paper import check_paper_run
from sim.checks.restart_model import take_over
from sim.checks.rows import compare
from sim.world.exchange import SimExchange, content_of
from sim.world.network import Session
from sim.world.world import ProcessOutcome
from tradebot.config.model import Config, Settings
from tradebot.core.events import BP_DROP_SIGNAL, STALE_DATA, Order, Signal, Tick
from tradebot.core.log_events import LogEvent
from tradebot.execution.shadow import ShadowExecution
from tradebot.feeds.exchanges import EXCHANGES
from tradebot.feeds.exchanges.base import Exchange, Unparseable
from tradebot.portfolio.money import money_of
from tradebot.portfolio.positions import PositionView
from tradebot.strategy.decider import Decider
from tradebot.strategy.registry import create

_CHANNELS: Final = ("tick", "signal", "persist")
_RECEIVED: Final = (Tick, DuplicateItem, DroppedItem, OutOfBandItem, MalformedItem)


def check_outcome(outcome: ProcessOutcome, config: Config, push: bool) -> None:
    """The ledger balances and no channel went over its bound."""
    assert outcome.event(LogEvent.LEDGER)["balanced"], f"ledger does not balance: {outcome.event(LogEvent.LEDGER)}"
    metrics = outcome.event(LogEvent.FINAL_METRICS)
    for name, size in zip(_CHANNELS, config.channels.sizes(push), strict=True):
        high = metrics[f"{name}_high_water"]
        assert high <= size, f"channel {name} held {high} events, its bound is {size}"


def check_accepted_stored(outcome: ProcessOutcome) -> None:
    """Everything accepted is stored."""
    ledger = outcome.event(LogEvent.LEDGER)
    assert ledger["not_stored"] == 0, f"accepted but not stored: {ledger}"


def check_database(path: Path) -> None:
    """The file is sound and every row has its cause."""
    db = sqlite3.connect(path)
    try:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        lost_orders = db.execute(
            "SELECT event_id FROM orders WHERE signal_id NOT IN (SELECT event_id FROM signals)"
        ).fetchall()
        assert not lost_orders, f"orders without their signal: {lost_orders[:3]}"
        lost_trades = db.execute(
            "SELECT event_id FROM trades WHERE order_id NOT IN (SELECT event_id FROM orders WHERE status != 'REJECTED')"
        ).fetchall()
        assert not lost_trades, f"trades without their order: {lost_trades[:3]}"
        unfilled = db.execute(
            "SELECT event_id FROM orders WHERE status = 'FILLED' AND event_id NOT IN (SELECT order_id FROM trades)"
        ).fetchall()
        assert not unfilled, f"filled orders without their trade: {unfilled[:3]}"
        lost_events = db.execute(
            "SELECT order_id, n FROM order_events WHERE order_id NOT IN (SELECT event_id FROM orders)"
        ).fetchall()
        assert not lost_events, f"order events without their order: {lost_events[:3]}"
        for table in ("ticks", "signals", "orders", "order_events", "trades", "notices"):
            counted = db.execute(f"SELECT COALESCE(SUM({table}), 0) FROM runs").fetchone()[0]
            rows = db.execute(f"SELECT COUNT(*) FROM {table} WHERE run IS NOT NULL").fetchone()[0]
            assert counted == rows, f"runs.{table} say {counted}, there are {rows} rows"
    finally:
        db.close()


def reference(
    decider: Decider,
    execution: ShadowExecution,
    ticks: list[Tick],
    dropped: frozenset[str],
    stale: frozenset[str],
    halts: Mapping[int, bool],
) -> tuple[list[Signal], list[Order]]:
    """Signals and orders of a single-threaded computation for `ticks`.

    `dropped` and `stale` are ids of signals that the run recorded as refused for a reason that depends on timing.
    `halts`: after so many ticks the run was halted, or resumed (False).
    """
    signals: list[Signal] = []
    orders: list[Order] = []
    halted = False
    for before, tick in enumerate(ticks):
        halted = halts.get(before, halted)
        for decided in decider.decide([tick]):
            signal = replace(decided, halted=halted)
            signals.append(signal)
            if signal.event_id in dropped:
                decider.return_marks([signal])
            else:
                late_ms = 10**15 if signal.event_id in stale else None
                orders.append(execution.execute(signal, late_ms))
    return signals, orders


def check_run(
    path: Path, config: Config, run_id: str, whole: bool, positions: Sequence[PositionView] | None = None
) -> None:
    """One run's rows are what the reference computes from its stored ticks; not `whole` (a kill): a prefix of that.

    A run of a push feed begins with the state of its predecessors. `positions` are the engine's final positions, valued
    at the last prices of all ticks. Of PAPER, see `check_paper_run`.
    """
    if config.mode == "PAPER":
        check_paper_run(path, config, run_id)
        return
    strategy = create(config.strategy.name, config)
    money = money_of(config.execution.fee_rate, config.instruments, config.rates)
    execution = ShadowExecution(config.risk_caps, money, config.execution.max_tick_age_ms)
    db = sqlite3.connect(path)
    try:
        found = db.execute("SELECT id FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        if found is None:
            return
        run = found[0]
        if config.engine.ingest_mode != "replay":
            take_over(db, run, strategy, execution)
        query = "SELECT symbol, price, volume, ts, event_id, seq, taker FROM ticks WHERE run = ? ORDER BY id"
        ticks = [Tick(*row) for row in db.execute(query, (run,))]
        signals = _rows(db, "SELECT event_id, symbol, kind, value, ts, price FROM signals", run)
        columns = "event_id, signal_id, symbol, side, qty, price, status, reason, ts, refused_by"
        orders = _rows(db, f"SELECT {columns} FROM orders", run)
        trades = _rows(db, "SELECT event_id, order_id, symbol, side, fill_qty, fill_price, fees, ts FROM trades", run)
        halts = _halts(db, run)
    finally:
        db.close()
    refused = {
        reason: frozenset(row[1] for row in orders if row[7] == reason) for reason in (BP_DROP_SIGNAL, STALE_DATA)
    }
    decider = Decider(strategy, run_id, config.strategy.desired_size, config.strategy.confidence)
    dropped, stale = refused[BP_DROP_SIGNAL], refused[STALE_DATA]
    want_signals, want_orders = reference(decider, execution, ticks, dropped, stale, halts)
    compare(
        "signals",
        signals,
        [(s.event_id, s.symbol, f"{s.side}:{s.reason}", s.confidence, s.ts, s.price) for s in want_signals],
        whole,
    )
    executed = [row for row in orders if row[7] != BP_DROP_SIGNAL]
    compare("orders", executed, [_order_row(order) for order in want_orders], whole)
    fills = [fill for order in want_orders for fill in order.fills]
    compare(
        "trades",
        trades,
        [(f.event_id, f.order_id, f.symbol, f.side, f.fill_qty, f.fill_price, f.fees, f.ts) for f in fills],
        whole,
    )
    if whole and positions is not None:
        for symbol, price in decider.pending_marks.items():
            execution.positions.mark(symbol, price)
        for one, other in zip_longest(positions, execution.positions.views()):
            assert one == other, f"positions: {_difference(one, other)}"


def _halts(db: sqlite3.Connection, run: int) -> dict[int, bool]:
    """After how many ticks a halt began (True) or ended."""
    query = "SELECT ticks_before, kind = 'HALT' FROM notices WHERE run = ? AND kind IN ('HALT', 'RESUME')"
    return {before: bool(halted) for before, halted in db.execute(f"{query} ORDER BY id", (run,))}


def _order_row(order: Order) -> tuple[Any, ...]:
    """What is compared of an order; not the numbers of its refusal, which depend on the clock where a tick was late."""
    limit_key = None if order.breach is None else order.breach.limit_key
    return (
        order.event_id, order.signal_id, order.symbol, order.side, order.qty, order.price, order.status, order.reason,
        order.ts, limit_key,
    )  # fmt: skip


def _difference(one: PositionView | None, other: PositionView | None) -> str:
    """Describe how the engine's position differs from the reference's."""
    if one is None or other is None or one.symbol != other.symbol:
        return f"the engine has {one}, the reference {other}"
    fields = zip(one._fields, one, other, strict=True)
    different = [f"{name} {value} instead of {wanted}" for name, value, wanted in fields if value != wanted]
    return f"{one.symbol}: {', '.join(different)}"


def check_feed(
    path: Path, settings: Settings, exchange: SimExchange, outcomes: Sequence[ProcessOutcome], once: bool = True
) -> None:
    """The runs stored each received tick of an exchange once, and a notice for each gap at its position.

    `outcomes` are all processes that read from `exchange`, in order. Against what was sent: stored ticks are a
    subsequence of it, across all runs no trade is there twice. Against what the connections handed out: ticks and
    notices are those of the model (`sim.checks.feed_model`), in its order, up to where each process ended. The next
    process knows what the model knew at the newest stored checkpoint, and what was stored after it. With `once` False
    a trade may be stored again: a numbering that restarts forgets what came before it.
    """
    assert settings.live is not None
    config, adapter = settings.config, EXCHANGES[settings.live.exchange]
    keep = config.feed.history == "keep"
    db = sqlite3.connect(path)
    try:
        runs = dict(db.execute("SELECT run_id, id FROM runs").fetchall())
        known: list[Tick] = []
        model = FeedModel(adapter, (), keep, config.feed.max_price_jump)
        for number, (outcome, network) in enumerate(zip(outcomes, exchange.networks, strict=True), start=1):
            started = outcome.events(LogEvent.START)
            run = runs.get(started[-1]["run_id"]) if started else None
            if outcome.exit_code is not None:
                assert network.sockets == 0, f"process {number}: {network.sockets} sockets were left open"
            assert network.sockets_max <= exchange.connections_max, (
                f"process {number}: {network.sockets_max} sockets at once"
            )
            stored, ticks = stored_stream(db, run)
            _check_takers(ticks, exchange)
            _check_sent(ticks, [sent.data for sent in exchange.sent if sent.process == number], adapter())

            def account(sessions: Sequence[Session], model: FeedModel = model) -> list[Item]:
                return list(deepcopy(model).items(sessions))

            _check_account(number, stored, account(network.sessions), config)
            if outcome.has_exact_ledger:
                _check_counts(number, len(ticks), outcome, account(network.sessions), config)
            if outcome.exit_code == 0 and network.sessions and outcome.events(LogEvent.LEDGER):
                *earlier, last = network.sessions
                surely = account([*earlier, replace(last, texts=last.texts[: last.before_last])])
                least, received = _trades(surely), outcome.event(LogEvent.LEDGER)["received"]
                assert received >= least, f"process {number}: {least} trades were handed out, {received} were read"
            known += ticks
            if run is not None:
                model = _known_after(model, outcome, network.sessions, ticks, config.engine.sample_every)
        twice = len(known) - len(set(known))
        assert not (twice and once), f"{twice} trades are stored twice"
    finally:
        db.close()


def _known_after(
    model: FeedModel, outcome: ProcessOutcome, sessions: Sequence[Session], stored: list[Tick], sample_every: int
) -> FeedModel:
    """The model for the next process: everything up to the newest stored checkpoint, then the stored ticks."""
    covered = 0 if outcome.lost else outcome.covered_ticks
    ledgers = outcome.events(LogEvent.LEDGER)
    # A run whose feed ended in order has checkpointed all of it, though a stage that hung may have made it end with 13.
    whole = bool(ledgers) and covered == ledgers[-1]["accepted"] and (outcome.exit_code == 0 or covered > 0)
    after, counted, received = deepcopy(model), 0, 0
    if covered or whole:
        for items in after.messages(sessions):
            received += _trades(items)
            counted += sum(isinstance(item, Tick) for item in items)
            enough = (
                received >= outcome.event(LogEvent.LEDGER)["received"] if whole else counted // sample_every >= covered
            )
            if enough:
                break
    after.remember(stored[covered:])
    after.begin_process()
    return after


_BESIDE_THE_STREAM: Final = frozenset(
    {"SPILL_ORPHANED", "SYMBOL_REFUSED", "SYMBOL_SILENT", "EXCHANGE_NOTICE", "RESTART"}
)
"""Notices not derived from trades; scenarios that cause them check them."""


def stored_stream(db: sqlite3.Connection, run: int | None) -> tuple[list[Item], list[Tick]]:
    """A run's ticks and notices in the order of the pipeline, and its ticks alone."""
    if run is None:
        return [], []
    query = "SELECT symbol, price, volume, ts, event_id, seq, taker FROM ticks WHERE run = ? ORDER BY id"
    ticks = [Tick(*row) for row in db.execute(query, (run,))]
    stream: list[Item] = []
    taken = 0
    query = "SELECT ticks_before, kind, symbol, missing FROM notices WHERE run = ? ORDER BY id"
    for before, kind, symbol, missing in db.execute(query, (run,)):
        if kind in _BESIDE_THE_STREAM:
            continue
        assert taken <= before, f"a notice after {before} ticks follows one after {taken}"
        # After a kill the notice may be stored and the last ticks before it not, never the other way round.
        stream += ticks[taken:before]
        by_kind: dict[str, Item] = {"GAP": GapItem(symbol, missing), "PRICE_BAND": BandItem(symbol)}
        stream.append(by_kind.get(kind, LinkItem(kind)))
        taken = before
    return [*stream, *ticks[taken:]], ticks


def _check_takers(ticks: list[Tick], exchange: SimExchange) -> None:
    """Every stored side is the taker's, whether the exchange's format names the taker or the maker."""
    for index, tick in enumerate(ticks):
        meant = exchange.takers.get(content_of(tick))
        assert meant is None or tick.taker in meant, f"stored tick {index}: taker {tick.taker}, not {meant}: {tick}"


def _check_sent(ticks: list[Tick], messages: Sequence[bytes], adapter: Exchange) -> None:
    sent: dict[str, list[Tick]] = {}
    for message in messages:
        for tick in _ticks_of(message, adapter):
            sent.setdefault(tick.symbol, []).append(tick)
    rest = {symbol: iter(ticks) for symbol, ticks in sent.items()}
    for index, tick in enumerate(ticks):
        # `any` leaves the iterator behind what it found: what is stored of a symbol is a subsequence of what was sent.
        others = rest.get(tick.symbol, iter(()))
        assert any(tick == other for other in others), f"stored tick {index} was not sent, or not in this order: {tick}"


def _ticks_of(message: bytes, adapter: Exchange) -> list[Tick]:
    try:
        parsed = adapter.parse(message.decode("utf-8", "replace"))
    except Unparseable:
        return []
    return [*oldest_first(parsed.history), *oldest_first(parsed.ticks)]


def _check_account(number: int, stored: list[Item], account: list[Item], config: Config) -> None:
    wanted = kept(account, config.engine.sample_every)
    for index, item in enumerate(stored):
        other = wanted[index] if index < len(wanted) else None
        assert item == other, f"process {number}, item {index}: stored {item}, the account of its frames has {other}"


def kept(items: list[Item], sample_every: int) -> list[Item]:
    """The items to be stored: every n-th tick, and all notices."""
    found: list[Item] = []
    ticks = 0
    for item in items:
        if isinstance(item, Tick):
            ticks += 1
            if ticks % sample_every == 0:
                found.append(item)
        elif isinstance(item, LinkItem | GapItem | BandItem):
            found.append(item)
    return found


def _check_counts(number: int, stored: int, outcome: ProcessOutcome, account: list[Item], config: Config) -> None:
    """The counters match the model for the same number of trades and malformed messages."""
    metrics, ledger = outcome.event(LogEvent.FINAL_METRICS), outcome.event(LogEvent.LEDGER)
    read: list[Item] = []
    received = 0
    for item in account:
        if isinstance(item, _RECEIVED):
            if received == ledger["received"]:
                break
            received += 1
        read.append(item)
    while read and isinstance(read[-1], LinkItem | GapItem | BandItem):  # belongs to later items, or was never read
        read.pop()
    counted = {
        "received": received,
        "duplicates": sum(isinstance(item, DuplicateItem) for item in read),
        "history_dropped": sum(isinstance(item, DroppedItem) for item in read),
        "out_of_band": sum(isinstance(item, OutOfBandItem) for item in read),
        "malformed": sum(isinstance(item, MalformedItem) for item in read),
    }
    said = {name: ledger[name] for name in counted}
    assert said == counted, f"process {number}: the ledger says {said}, counted {counted}"
    gaps = sum(isinstance(item, GapItem) for item in read)
    assert metrics["gaps"] == gaps, f"process {number}: gaps {metrics['gaps']}, counted {gaps}"
    restored = len(outcome.events(LogEvent.LINK_RESTORED))
    assert metrics["reconnects"] == restored, f"reconnects {metrics['reconnects']}, restored {restored}"
    ticks = sum(isinstance(item, Tick) for item in kept(read, config.engine.sample_every))
    has_exact_ledger = stored + ledger["refused"] + ledger["not_stored"]
    assert has_exact_ledger >= ticks, f"stored, refused or not stored {has_exact_ledger} of {ticks} ticks"


def _trades(items: Sequence[Item]) -> int:
    """The number of items that the ledger counts as received."""
    return sum(isinstance(item, _RECEIVED) for item in items)


def _rows(db: sqlite3.Connection, query: str, run: int) -> list[tuple[Any, ...]]:
    return db.execute(f"{query} WHERE run = ? ORDER BY id", (run,)).fetchall()
