"""`tradebot prune` and orders that outlive their tick: no row misses the row it came from, and no order stops it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import pytest
from peewee import SqliteDatabase

from tests.unit.outcomes import half, limit_order, outcomes, transition
from tests.unit.store_helpers import FakeRuntime, batch_of, tick
from tradebot.core.events import Checkpoint, Event, Notice, Tick, TickOutcome
from tradebot.output.progress_bar import ProgressBar
from tradebot.store import policy
from tradebot.store.batch import StoredCounts
from tradebot.store.database import migrate
from tradebot.store.pruner import Pruned, Pruner
from tradebot.store.restart_state import store_checkpoint
from tradebot.store.runs import RunInfo, begin_run
from tradebot.store.takeover import take_over
from tradebot.store.writer import insert_batch

LONG_AFTER_MS = 1_800_000_000_000
TABLES = ("ticks", "signals", "orders", "trades", "order_events", "notices", "checkpoints")
ORPHANS = (
    "SELECT COUNT(*) FROM trades WHERE order_id NOT IN (SELECT event_id FROM orders)",
    "SELECT COUNT(*) FROM order_events WHERE order_id NOT IN (SELECT event_id FROM orders)",
    "SELECT COUNT(*) FROM orders WHERE signal_id NOT IN (SELECT event_id FROM signals)",
    "SELECT COUNT(*) FROM orders WHERE parent_id IS NOT NULL AND parent_id NOT IN (SELECT event_id FROM orders)",
)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "_BLOCK_TICKS", (2, 2, 2))


@contextmanager
def database() -> Iterator[SqliteDatabase]:
    db = SqliteDatabase(":memory:", autoconnect=False)
    db.connect()
    with closing(db):
        migrate(db)
        yield db


def store(
    db: SqliteDatabase,
    run_id: str,
    events: Sequence[Event],
    state_at: int | None = None,
    mode: str = "PAPER",
    ingest: str = "mockws",
) -> None:
    """Store a run that has ended; with a state after its first `state_at` ticks."""
    push = ingest != "replay"
    info = RunInfo(run_id, "0.1", mode, ingest, "mockws:here", "c0ffee", push, "mockws" if push else "")
    record = begin_run(db, info, 1_700_000_000_000, resume=False)
    if push:
        take_over(db, record.no, 3, None)
    batch = batch_of(*events)
    insert_batch(db, record.no, batch, StoredCounts().plus(batch))
    if push:
        state = None if state_at is None else b"state"
        store_checkpoint(db, record.no, Checkpoint(len(batch.ticks) if state is None else state_at or 0, (), 3, state))
    db.execute_sql("UPDATE runs SET last_end_ms = ?, exit_code = 0 WHERE id = ?", (1_700_000_000_999, record.no))


def prune(db: SqliteDatabase, dry_run: bool = False, on_commit: Callable[[], None] = lambda: None) -> Pruned:
    runtime = FakeRuntime()
    runtime.on_sleep = on_commit
    pruner = Pruner(db, LONG_AFTER_MS, dry_run, runtime, ProgressBar(None, None, "rows"))
    pruner.prune()
    return pruner.done


def orders_now(db: SqliteDatabase) -> dict[str, tuple[Any, ...]]:
    query = "SELECT event_id, status, reason, remaining, status_ts FROM orders_now"
    return {row[0]: row for row in db.execute_sql(query).fetchall()}


def left(db: SqliteDatabase, table: str, column: str = "event_id") -> list[Any]:
    return [value for (value,) in db.execute_sql(f"SELECT {column} FROM {table} ORDER BY id").fetchall()]


def assert_whole(db: SqliteDatabase) -> None:
    """No orphan, and every run has as many rows as it stored and nobody deleted."""
    assert [db.execute_sql(query).fetchone()[0] for query in ORPHANS] == [0] * len(ORPHANS)
    for table in TABLES:
        query = f"SELECT r.{table} - r.pruned_{table}, (SELECT COUNT(*) FROM {table} t WHERE t.run = r.id) FROM runs r"
        for counted, held in db.execute_sql(query).fetchall():
            assert counted == held, table


def pruned_soundly(db: SqliteDatabase) -> Pruned:
    """Prune; after every commit nothing is amiss, and `orders_now` says of what is left what it said before."""
    before = orders_now(db)
    foretold = prune(db, dry_run=True)

    def look() -> None:
        assert_whole(db)
        now = orders_now(db)
        assert now == {order: before[order] for order in now}

    done = prune(db, on_commit=look)
    look()
    assert foretold == done
    return done


def test_an_order_goes_with_the_tick_of_its_last_transition() -> None:
    """Blocks are of two ticks, an order lives for four: it outlives the tick that submitted it."""
    with database() as db:
        store(db, "l1", outcomes(1, 29, "l1"), state_at=29)
        done = pruned_soundly(db)
        # The newest tick stays, and with it what it caused.
        assert left(db, "ticks", "id") == [29]
        assert left(db, "orders") == ["l1-0000000029-O"] == left(db, "order_events", "order_id")
        assert left(db, "signals") == ["l1-0000000029-S"] and left(db, "trades") == []
        assert (done.ticks, done.orders, done.signals, done.trades, done.order_events) == (28, 10, 10, 10, 25)


def test_an_open_order_stays_whole_and_stops_nothing() -> None:
    """What is filled half at tick 7 and no more: its signal, fill and transitions are there, its ticks are not."""
    events = [*outcomes(1, 7, "l1"), *(tick(number) for number in range(8, 31))]
    with database() as db:
        store(db, "l1", events, state_at=30)
        pruned_soundly(db)
        assert left(db, "ticks", "id") == [30]
        assert left(db, "orders") == ["l1-0000000005-O"]
        assert left(db, "signals") == ["l1-0000000005-S"]
        assert left(db, "trades") == ["l1-0000000007-T"]
        assert left(db, "order_events", "n") == [1, 2, 3]
        assert orders_now(db)["l1-0000000005-O"][1:4] == ("PARTIAL_FILL", "WHY_3", 0.1)


@pytest.mark.parametrize("pruned_between", [False, True])
def test_an_order_that_ends_in_a_later_run_goes_with_that_tick(pruned_between: bool) -> None:
    """Each row is counted in the run that stored it."""
    order = "l1-0000000005-O"
    done_at = TickOutcome(
        tick(4), 4, (), (), (transition(order, 4, "FILLED", 4, 0.0),), (half(order, 4, "l2"),)
    )  # fmt: skip
    later: list[Event] = [*(tick(n) for n in range(1, 4)), done_at, *(tick(n) for n in range(5, 10))]
    with database() as db:
        store(db, "l1", outcomes(1, 7, "l1"), state_at=7)
        if pruned_between:
            pruned_soundly(db)
        store(db, "l2", later, state_at=9)
        pruned_soundly(db)
        assert [left(db, table, "id") for table in ("orders", "signals", "trades", "order_events")] == [[]] * 4
        counters = "SELECT pruned_orders, pruned_signals, pruned_trades, pruned_order_events FROM runs ORDER BY id"
        assert db.execute_sql(counters).fetchall() == [(2, 2, 1, 4), (0, 0, 1, 1)]


def test_a_bracket_goes_as_a_whole() -> None:
    """The entry is filled at tick 3, its stop is canceled at tick 9 when the take-profit is filled."""
    signal, entry = limit_order(1, "l1")
    _signal, profit = limit_order(3, "l1", n=1, parent=entry.event_id)
    _signal, stop = limit_order(3, "l1", n=2, parent=entry.event_id)
    filled = (transition(entry.event_id, 2, "FILLED", 3, 0.0), transition(profit.event_id, 1, "SUBMITTED", 3))
    caused = {
        1: TickOutcome(tick(1), 1, (signal,), (entry,), (transition(entry.event_id, 1, "SUBMITTED", 1),)),
        3: TickOutcome(
            tick(3), 3, (), (profit, stop), (*filled, transition(stop.event_id, 1, "SUBMITTED", 3)),
            (half(entry.event_id, 3, "l1"),),
        ),
        9: TickOutcome(
            tick(9), 9, (), (),
            (transition(profit.event_id, 2, "FILLED", 9, 0.0), transition(stop.event_id, 2, "CANCELED", 9)),
        ),
    }  # fmt: skip
    events = [caused.get(number, tick(number)) for number in range(1, 15)]
    with database() as db:
        store(db, "l1", events[:8], state_at=8)
        pruned_soundly(db)
        assert left(db, "orders") == [entry.event_id, profit.event_id, stop.event_id]
        assert left(db, "signals") == [signal.event_id] and len(left(db, "trades")) == 1
    with database() as db:
        store(db, "l1", events, state_at=14)
        pruned_soundly(db)
        assert [left(db, table, "id") for table in ("orders", "signals", "trades", "order_events")] == [[]] * 4


def test_a_replay_goes_whole_with_orders_that_are_open_at_its_end() -> None:
    with database() as db:
        store(db, "r1", outcomes(1, 7, "r1"), ingest="replay")
        done = pruned_soundly(db)
        assert done.replays == 1 and left(db, "runs", "id") == []
        assert [left(db, table, "id") for table in TABLES] == [[]] * len(TABLES)


def test_signals_without_an_order_go_with_their_tick() -> None:
    signal, _order = limit_order(2, "l1")
    alone = TickOutcome(tick(2), 2, (signal,))
    with database() as db:
        store(db, "l1", [tick(1), alone, *outcomes(3, 10, "l1")], state_at=12)
        pruned_soundly(db)
        assert signal.event_id not in left(db, "signals")


class TestWhatARestartNeeds:
    def test_ticks_after_the_newest_state_stay(self) -> None:
        """And a notice of the same place, which the state may not include."""
        notices = [Notice("GAP", 1, "", "A", 1, ticks_before=place) for place in (3, 10, 12)]
        ticks = [tick(number) for number in range(1, 21)]
        with database() as db:
            store(db, "l1", [*ticks, *notices], state_at=10)
            assert pruned_soundly(db).ticks == 10
            assert left(db, "ticks", "id") == list(range(11, 21))
            assert left(db, "notices", "ticks_before") == [10, 12]

    def test_the_start_of_a_run_moves_nothing(self) -> None:
        """Its checkpoint covers all ticks for prices and numbers, but a new state is not stored yet."""
        with database() as db:
            store(db, "l1", [tick(number) for number in range(1, 21)], state_at=10)
            record = begin_run(
                db, RunInfo("l2", "0.1", "PAPER", "mockws", "mockws:here", "c0ffee", True, "mockws"), 2, resume=False
            )
            take_over(db, record.no, 3, None)
            assert db.execute_sql("SELECT run, run_ticks FROM feeds").fetchall() == [(2, 0)]
            assert pruned_soundly(db).ticks == 10

    def test_in_paper_nothing_goes_before_the_first_state(self) -> None:
        with database() as db:
            store(db, "l1", outcomes(1, 20, "l1"))
            assert pruned_soundly(db) == Pruned()

    def test_in_shadow_states_of_a_run_before_are_of_no_use(self) -> None:
        """Breakers were on once: a run that keeps no state makes the old one worthless."""
        ticks: list[Tick] = [tick(number) for number in range(1, 11)]
        with database() as db:
            store(db, "l1", ticks, state_at=5, mode="SHADOW")
            assert pruned_soundly(db).ticks == 5
            store(db, "l2", ticks, mode="SHADOW")
            assert pruned_soundly(db).ticks == 14
