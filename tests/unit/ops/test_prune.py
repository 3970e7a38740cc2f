"""Pruning: what is old goes, what a restart needs stays, and at no commit does a row miss the row it came from."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from peewee import SqliteDatabase

from tests.unit.store_helpers import (
    NOT_OURS,
    FakeRuntime,
    counts,
    full_batch,
    locked,
    new_run,
    rows,
    storage_of,
)
from tradebot.core.errors import ConfigError
from tradebot.core.events import BUY, SELL, Checkpoint, Fill, Notice, Order, OrderStatus, Side, Signal, Tick
from tradebot.ops.prune import run_prune
from tradebot.output.progress_bar import ProgressBar
from tradebot.portfolio.positions import Positions, PositionState
from tradebot.store import joining, policy
from tradebot.store.adoption import adopt
from tradebot.store.batch import StoredCounts, WriteBatch
from tradebot.store.database import connect, connect_readonly, migrate
from tradebot.store.errors import StorageUnavailable
from tradebot.store.feed_identity import feed_of_source
from tradebot.store.policy import BlockPolicy
from tradebot.store.pruner import Pruned, Pruner, PruneStopped
from tradebot.store.reader import find_tick_source, read_ticks
from tradebot.store.restart_state import SymbolState, store_checkpoint
from tradebot.store.runs import RunInfo, begin_run
from tradebot.store.session import open_existing
from tradebot.store.spill import spill_path
from tradebot.store.takeover import take_over
from tradebot.store.writer import insert_batch

START_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
KEPT = 6
"""Ticks of each feed that a restart looks at, in these tests."""

ORPHANS = (
    "SELECT COUNT(*) FROM trades WHERE order_id NOT IN (SELECT event_id FROM orders)",
    "SELECT COUNT(*) FROM orders WHERE signal_id NOT IN (SELECT event_id FROM signals)",
    "SELECT COUNT(*) FROM orders WHERE status = 'FILLED' AND event_id NOT IN (SELECT order_id FROM trades)",
    "SELECT COUNT(*) FROM signals s JOIN runs r ON r.id = s.run WHERE NOT EXISTS (SELECT 1 FROM ticks t"
    " WHERE t.run = s.run AND t.id = r.first_tick_id + CAST(substr(s.event_id, -12, 10) AS INTEGER) - 1)",
)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "_BLOCK_TICKS", (2, 2, 2))
    monkeypatch.setattr(joining, "TICKS_MAX", KEPT)


class PastRun(NamedTuple):
    """A run to be: each tick is (symbol, side of the signal it gives or none, filled, price); times in seconds."""

    feed: str
    ticks: list[tuple[str, Side | None, bool, float]]
    pause_s: int
    step_s: int
    ended: bool
    notices: int
    covered: int | None = None
    """It is a run of this version, with a checkpoint after so many ticks; None: as schema 3 stored it."""


def store(db: SqliteDatabase, past: PastRun, number: int, begin_ms: int) -> int:
    """Store the run; when it ended (Unix ms)."""
    replay = past.feed == "replay"
    run_id = f"run-{number}"
    ingest, feed = "replay" if replay else "mockws", feed_of_source("mockws", past.feed)
    is_new = not replay and past.covered is not None
    record = begin_run(
        db, RunInfo(run_id, "0.1", "SHADOW", ingest, past.feed, "c0ffee", is_new, feed), begin_ms, resume=False
    )
    if is_new:
        take_over(db, record.no, 3, None)
    batch, now_ms = WriteBatch(), begin_ms
    for at in range(past.notices):
        batch.add_event(Notice("LINK_UP", begin_ms, "", ticks_before=min(at, len(past.ticks))))
    for n, (symbol, side, filled, price) in enumerate(past.ticks, 1):
        now_ms += past.step_s * 1000
        batch.add_event(Tick(symbol, price, 1.0, now_ms))
        if side is not None:
            stem = f"{run_id}-{n:010d}"
            batch.add_event(Signal(f"{stem}-S", symbol, side, 0.75, "X", 0.1, price, now_ms))
            fill = Fill(f"{stem}-T", f"{stem}-O", symbol, side, 0.1, price, 0.01 * price, now_ms)
            status: OrderStatus = "FILLED" if filled else "REJECTED"
            fills = (fill,) if filled else ()
            batch.add_event(Order(f"{stem}-O", f"{stem}-S", symbol, side, 0.1, price, status, "X", now_ms, 1, fills))
    if batch.events:
        insert_batch(db, record.no, batch, StoredCounts().plus(batch))
    if is_new:
        store_checkpoint(db, record.no, Checkpoint(min(past.covered or 0, len(past.ticks)), (), 3))
    if past.ended:
        db.execute_sql("UPDATE runs SET last_end_ms = ?, exit_code = 0 WHERE id = ?", (now_ms, record.no))
    return now_ms


@contextmanager
def history(runs: list[PastRun]) -> Iterator[tuple[SqliteDatabase, int]]:
    """A database in memory with these runs one after the other, and when the last one ended."""
    db = SqliteDatabase(":memory:", autoconnect=False)
    db.connect()
    with closing(db):
        migrate(db)
        now_ms = START_MS
        for number, past in enumerate(runs, 1):
            now_ms = store(db, past, number, now_ms + past.pause_s * 1000)
        yield db, now_ms


def restart_of(db: SqliteDatabase, feed: str) -> tuple[dict[str, SymbolState], list[PositionState]]:
    """What a new run of the feed would take over; the database stays as it is."""
    name = feed_of_source("mockws", feed)
    with db.atomic() as transaction:
        record = begin_run(db, RunInfo("new", "0.1", "SHADOW", "mockws", feed, "c0ffee", True, name), 1, resume=False)
        carried = take_over(db, record.no, 3, None)
        transaction.rollback()
    return carried.symbols, carried.positions.states()


def replayed(db: SqliteDatabase, feed: str) -> list[PositionState]:
    """The positions from all fills one by one, as long as all are there."""
    positions = Positions()
    fields = ", ".join(Fill.__struct_fields__)
    query = f"SELECT {fields} FROM trades WHERE run IN (SELECT id FROM runs WHERE source = ?) ORDER BY id"
    for row in db.execute_sql(query, (feed,)).fetchall():
        positions.apply(Fill(*row))
    return positions.states()


def assert_whole(db: SqliteDatabase) -> None:
    """No orphan, and every run has as many rows as it stored and nobody pruned."""
    assert [db.execute_sql(query).fetchone()[0] for query in ORPHANS] == [0] * len(ORPHANS)
    for table in ("ticks", "signals", "orders", "trades", "notices"):
        query = f"SELECT r.{table} - r.pruned_{table}, (SELECT COUNT(*) FROM {table} t WHERE t.run = r.id) FROM runs r"
        for counted, held in db.execute_sql(query).fetchall():
            assert counted == held, table
    assert db.execute_sql("SELECT COUNT(*) FROM ticks WHERE run NOT IN (SELECT id FROM runs)").fetchone() == (0,)


def prune(
    db: SqliteDatabase, cutoff_ms: int, dry_run: bool = False, on_sleep: Callable[[], None] | None = None
) -> Pruned:
    runtime = FakeRuntime()
    runtime.on_sleep = on_sleep or (lambda: None)
    pruner = Pruner(db, cutoff_ms, dry_run, runtime, ProgressBar(None, None, "rows"))
    pruner.prune()
    return pruner.done


def dump_of(db: SqliteDatabase) -> list[Any]:
    tables = ("ticks", "signals", "orders", "trades", "notices", "runs", "carried", "feeds", "restart_state")
    return [db.execute_sql(f"SELECT * FROM {table}").fetchall() for table in tables]


_prices = st.sampled_from([100.0, 100.1, 99.7, 3e-5, 123456.789])
_ticks = st.tuples(
    st.sampled_from("AB"), st.none() | st.sampled_from([BUY, SELL]), st.booleans(), _prices
)  # fmt: skip
_of_a_run = (
    st.sampled_from(["a:X", "a:X", "b:X", "replay"]), st.lists(_ticks, max_size=14),
    st.integers(0, 30), st.integers(0, 3), st.booleans(), st.integers(0, 2),
)  # fmt: skip


_new_runs = st.lists(st.builds(PastRun, *_of_a_run, st.integers(0, 14)), min_size=1, max_size=3)


def past_runs(min_size: int, max_size: int) -> st.SearchStrategy[list[PastRun]]:
    """Runs of schema 3, then runs of this version."""
    old = st.lists(st.builds(PastRun, *_of_a_run, st.none()), max_size=max_size)
    new = st.lists(st.builds(PastRun, *_of_a_run, st.integers(0, 14)), max_size=max_size)
    return st.tuples(old, new).map(lambda both: [*both[0], *both[1]]).filter(lambda runs: len(runs) >= min_size)


class TestAnyHistory:
    @given(runs=past_runs(1, 4), share=st.floats(0, 1.1))
    @hypothesis_settings(max_examples=15, deadline=None)
    def test_a_restart_finds_what_it_would_have_found(self, runs: list[PastRun], share: float) -> None:
        """Positions to the last digit, windows, last sides; no orphan at any commit; nothing young goes."""
        with history(runs) as (db, end_ms):
            cutoff_ms = START_MS + int((end_ms - START_MS) * share)
            before = {feed: (restart_of(db, feed)[0], replayed(db, feed)) for feed in ("a:X", "b:X")}
            young = "SELECT id FROM ticks WHERE ts >= ?"
            kept = db.execute_sql(young, (cutoff_ms,)).fetchall()
            prune(db, cutoff_ms, on_sleep=lambda: assert_whole(db))
            assert_whole(db)
            assert {feed: restart_of(db, feed) for feed in before} == before
            assert db.execute_sql(young, (cutoff_ms,)).fetchall() == kept
            again = dump_of(db)
            assert prune(db, cutoff_ms) == Pruned(unfinished=prune(db, cutoff_ms, dry_run=True).unfinished)
            assert dump_of(db) == again

    @given(runs=past_runs(1, 4), more=_new_runs)
    @hypothesis_settings(max_examples=15, deadline=None)
    def test_fills_that_come_later_are_added_once(self, runs: list[PastRun], more: list[PastRun]) -> None:
        """Also when all rows of the table were pruned, so that new ones get their row ids again."""
        with history([*runs, *more]) as (db, _end_ms):
            wanted = replayed(db, "a:X")
        with history(runs) as (db, end_ms):
            prune(db, end_ms + 1)
            for number, past in enumerate(more, len(runs) + 1):
                end_ms = store(db, past, number, end_ms + past.pause_s * 1000)
                restart_of(db, "a:X")
                prune(db, end_ms - 5000)
            assert restart_of(db, "a:X")[1] == wanted

    @given(runs=past_runs(1, 4), share=st.floats(0, 1.1), steps=st.integers(0, 12))
    @hypothesis_settings(max_examples=15, deadline=None)
    def test_one_that_is_cut_short_is_finished_by_the_next(self, runs: list[PastRun], share: float, steps: int) -> None:
        """Stopped, or killed, after any transaction."""
        with history(runs) as (db, end_ms):
            prune(db, cutoff_ms := START_MS + int((end_ms - START_MS) * share))
            wanted = dump_of(db)
        with history(runs) as (db, _end_ms):
            runtime = FakeRuntime()
            runtime.on_sleep = lambda: runtime.signal() if len(runtime.slept) > steps else None
            try:
                Pruner(db, cutoff_ms, False, runtime, ProgressBar(None, None, "rows")).prune()
            except PruneStopped:
                assert_whole(db)
            prune(db, cutoff_ms)
            assert dump_of(db) == wanted


def ticks_run(count: int, step_s: int = 1, feed: str = "a:X", ended: bool = False, pause_s: int = 0) -> PastRun:
    """Every third tick gives a signal, every sixth a fill."""
    ticks: list[tuple[str, Side | None, bool, float]] = [
        ("A", BUY if n % 3 == 0 else None, n % 2 == 0, 100.0 + n) for n in range(1, count + 1)
    ]
    return PastRun(feed, ticks, pause_s, step_s, ended, 0)


def test_the_side_of_a_signal_that_went() -> None:
    """The strategy goes on from its last signal, however long ago that was."""
    ticks: list[tuple[str, Side | None, bool, float]] = [("A", SELL, True, 100.0), *[("A", None, False, 101.0)] * 20]
    with history([PastRun("a:X", ticks, 0, 1, True, 0)]) as (db, end_ms):
        prune(db, end_ms + 1)
        assert db.execute_sql("SELECT COUNT(*) FROM signals").fetchone() == (0,)
        assert restart_of(db, "a:X")[0]["A"].last_side == SELL


class TestWhatGoes:
    def test_a_run_that_goes_on_is_judged_by_the_times_of_its_ticks(self) -> None:
        with history([ticks_run(40)]) as (db, _end_ms):
            done = prune(db, START_MS + 20_500)
            left = [ts for (ts,) in db.execute_sql("SELECT ts FROM ticks ORDER BY id")]
            # Only whole blocks go, and only before others that are old as well.
            assert START_MS + 12_000 < left[0] <= START_MS + 20_500
            assert done.ticks == 40 - len(left)
            assert_whole(db)

    def test_the_newest_ticks_stay_however_old(self) -> None:
        """The windows of a restart."""
        with history([ticks_run(9, ended=True), ticks_run(3, ended=True)]) as (db, end_ms):
            assert prune(db, end_ms + HOUR_MS).ticks == 12 - KEPT

    def test_a_run_that_is_over_goes_whatever_its_ticks_say(self) -> None:
        with history([ticks_run(9, ended=True), ticks_run(20, pause_s=100)]) as (db, end_ms):
            db.execute_sql("UPDATE ticks SET ts = ? WHERE run = 1", (end_ms + HOUR_MS,))
            assert prune(db, START_MS + 10_000).ticks == 9

    def test_a_killed_run_was_over_when_the_next_one_began(self) -> None:
        with history([ticks_run(9), ticks_run(20, pause_s=100)]) as (db, end_ms):
            db.execute_sql("UPDATE ticks SET ts = ? WHERE run = 1", (end_ms + HOUR_MS,))
            assert prune(db, START_MS + 100_000).ticks == 0
            assert prune(db, START_MS + 109_001).ticks == 9

    def test_a_run_that_began_lately_stays_whatever_its_ticks_say(self) -> None:
        """A feed that plays old data again: what was stored today is no old data."""
        with history([ticks_run(40)]) as (db, _end_ms):
            db.execute_sql("UPDATE ticks SET ts = ts - ?", (1000 * HOUR_MS,))
            assert prune(db, START_MS).ticks == 0

    @pytest.mark.parametrize("wrong_ms", [START_MS + 1000 * HOUR_MS, 0])
    def test_a_few_wrong_times_change_nothing(self, wrong_ms: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(policy, "_BLOCK_TICKS", (4, 4, 4))
        with history([ticks_run(60)]) as (db, _end_ms):
            db.execute_sql("UPDATE ticks SET ts = ? WHERE id IN (5, 33, 55)", (wrong_ms,))
            prune(db, START_MS + 30_000)
            (first,) = db.execute_sql("SELECT MIN(id) FROM ticks").fetchone()
            assert 20 < first <= 31

    def test_times_in_seconds_are_old(self) -> None:
        """Values below 1e11 are seconds."""
        with history([ticks_run(20)]) as (db, _end_ms):
            db.execute_sql("UPDATE ticks SET ts = ts / 1000")
            assert prune(db, START_MS + 8_500).ticks == 6

    def test_another_prune_that_finishes_a_run_first(self) -> None:
        """What one may still take of the next run was reckoned before: the newest ticks of the feed would go."""
        with history([ticks_run(20, ended=True), ticks_run(KEPT, ended=True)]) as (db, end_ms):
            late = Pruner(db, end_ms + 1, False, FakeRuntime(), ProgressBar(None, None, "rows"))
            blocks = late._blocks

            def after_the_other(*values: Any) -> Iterator[Any]:
                late._blocks = blocks  # type: ignore[method-assign]
                prune(db, end_ms + 1)
                yield from blocks(*values)

            late._blocks = after_the_other  # type: ignore[method-assign,assignment]
            late.prune()
            assert late.done == Pruned()
            assert db.execute_sql("SELECT COUNT(*) FROM ticks").fetchone() == (KEPT,)
            assert_whole(db)

    def test_a_run_whose_ticks_somebody_deleted_by_hand(self) -> None:
        """They are counted among those of the feed, but nothing of another run may go in their place."""
        with history([ticks_run(20, ended=True), ticks_run(20, ended=True)]) as (db, end_ms):
            db.execute_sql("DELETE FROM ticks WHERE run = 1")
            prune(db, end_ms + 1)
            assert db.execute_sql("SELECT COUNT(*) FROM ticks").fetchone() == (KEPT,)

    def test_rows_of_the_original_system_stay(self) -> None:
        with history([ticks_run(20, ended=True)]) as (db, end_ms):
            db.execute_sql("INSERT INTO ticks (symbol, price, volume, ts) VALUES ('OLD', 1.0, 1.0, 1)")
            prune(db, end_ms + 1)
            assert db.execute_sql("SELECT COUNT(*) FROM ticks WHERE symbol = 'OLD'").fetchone() == (1,)

    def test_ids_that_begin_alike(self) -> None:
        """A run whose id looks like another one's event."""
        with history([ticks_run(12, ended=True), ticks_run(12, feed="b:X")]) as (db, _end_ms):
            db.execute_sql("UPDATE runs SET run_id = 'run-1-0000000001' WHERE id = 2")
            for table in ("signals", "orders", "trades"):
                db.execute_sql(f"UPDATE {table} SET event_id = replace(event_id, 'run-2', 'run-1-0000000001')")
            prune(db, START_MS + 12_001)
            assert db.execute_sql("SELECT COUNT(*) FROM signals WHERE run = 2").fetchone() == (4,)

    def test_rows_that_somebody_deleted_by_hand_before(self) -> None:
        """As users did before `prune` existed: numbers follow the row ids, and counters agree again."""
        with history([ticks_run(40, ended=True)]) as (db, end_ms):
            for table in ("ticks", "signals", "orders", "trades"):
                db.execute_sql(f"DELETE FROM {table} WHERE ts <= ?", (START_MS + 17_000,))
            prune(db, end_ms + 1)
            left = db.execute_sql("SELECT COUNT(*), MIN(id) FROM ticks").fetchone()
            assert left[0] >= KEPT
            assert db.execute_sql("SELECT ticks - pruned_ticks FROM runs").fetchone() == (left[0],)
            assert [db.execute_sql(query).fetchone()[0] for query in ORPHANS] == [0] * 4


class TestReplays:
    def test_as_a_whole_and_as_if_it_had_never_been(self) -> None:
        runs = [ticks_run(20, feed="replay", ended=True), ticks_run(8, pause_s=100)]
        with history(runs) as (db, _end_ms):
            assert prune(db, START_MS + 20_000).replays == 0
            done = prune(db, START_MS + 20_001, on_sleep=lambda: assert_whole(db))
            assert (done.ticks, done.replays) == (20, 1)
            assert db.execute_sql("SELECT run_id FROM runs").fetchall() == [("run-2",)]
            begin_run(db, RunInfo("run-1", "0.1", "SHADOW", "replay", "replay", "c0ffee", False), 1, resume=False)

    def test_one_without_an_end_is_left_alone(self) -> None:
        """It may be going on just now."""
        with history([ticks_run(20, feed="replay")]) as (db, end_ms):
            assert prune(db, end_ms + HOUR_MS) == Pruned(unfinished=["run-1"])
            assert prune(db, START_MS) == Pruned()

    def test_one_that_is_resumed_meanwhile(self) -> None:
        with history([ticks_run(20, feed="replay", ended=True)]) as (db, end_ms):
            pruner = Pruner(db, end_ms + 1, False, FakeRuntime(), ProgressBar(None, None, "rows"))
            found: list[Any] = []
            blocks = pruner._blocks

            def resumed_first(*values: Any) -> Iterator[Any]:
                info = RunInfo("run-1", "0.1", "SHADOW", "replay", "replay", "c0ffee", False)
                found.append(begin_run(db, info, 1, resume=True))
                yield from blocks(*values)

            pruner._blocks = resumed_first  # type: ignore[method-assign,assignment]
            with pytest.raises(PruneStopped, match="another prune is running, or a replay is being resumed"):
                pruner.prune()
            assert found[0].counts.ticks == 20
            assert pruner.done == Pruned()

    @pytest.mark.parametrize("resume", [True, False])
    def test_a_part_of_one_is_refused(self, resume: bool) -> None:
        """A resume would give wrong results; it says so, and what to do."""
        with history([ticks_run(20, feed="replay", ended=True)]) as (db, end_ms):
            runtime = FakeRuntime()
            runtime.on_sleep = runtime.signal
            with pytest.raises(PruneStopped):
                Pruner(db, end_ms + 1, False, runtime, ProgressBar(None, None, "rows")).prune()
            info = RunInfo("run-1", "0.1", "SHADOW", "replay", "replay", "c0ffee", False)
            with pytest.raises(ConfigError, match=r"\(run run-1\), but 2 of its 20 ticks were pruned.*tradebot prune"):
                begin_run(db, info, 1, resume=resume)
            # The rest goes although it would be young by another --keep.
            assert prune(db, START_MS).replays == 1


class TestReadingWhatWasPruned:
    def pruned(self, path: Path) -> None:
        with closing(connect(path)) as db:
            migrate(db)
            end_ms = store(db, ticks_run(30, ended=True), 1, START_MS)
            prune(db, end_ms + 1)

    def test_it_says_how_much_is_missing(self, tmp_path: Path) -> None:
        """A replay reads what is left, and reports how much is missing."""
        self.pruned(tmp_path / "x.db")
        with closing(connect_readonly(tmp_path / "x.db")) as db:
            source = find_tick_source(db, None)
            assert (source.rows, source.pruned) == (KEPT, 30 - KEPT)
            assert [tick.price for chunk in read_ticks(db, source) for tick in chunk] == [125.0 + n for n in range(6)]

    def test_pruned_between_hashing_and_reading(self, tmp_path: Path) -> None:
        """S8: what is replayed is what was hashed."""
        path = tmp_path / "x.db"
        with closing(connect(path)) as db:
            migrate(db)
            end_ms = store(db, ticks_run(30, ended=True), 1, START_MS)
            source = find_tick_source(db, None)
            prune(db, end_ms + 1)
            with pytest.raises(ConfigError, match=r"x\.db: run run-1 was pruned while it was read"):
                list(read_ticks(db, source))

    def test_gone_between_hashing_and_reading(self, tmp_path: Path) -> None:
        with closing(connect(tmp_path / "x.db")) as db:
            migrate(db)
            end_ms = store(db, ticks_run(30, feed="replay", ended=True), 1, START_MS)
            source = find_tick_source(db, None)
            prune(db, end_ms + 1)
            with pytest.raises(ConfigError):
                list(read_ticks(db, source))

    def test_all_of_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(joining, "TICKS_MAX", 0)
        self.pruned(tmp_path / "x.db")
        with closing(connect_readonly(tmp_path / "x.db")) as db:
            with pytest.raises(ConfigError, match=r"all 30 ticks of run run-1 were pruned"):
                find_tick_source(db, "run-1")
            with pytest.raises(ConfigError, match="holds no ticks to replay"):
                find_tick_source(db, None)


def test_the_size_of_a_block_fits_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """I6: about 10 ms a transaction, and four times as long a pause."""
    monkeypatch.setattr(policy, "_BLOCK_TICKS", (1, 2, 4))
    sizes = BlockPolicy()
    assert sizes.ticks == 2
    assert sizes.pause_s(0.020) == pytest.approx(0.080)
    assert sizes.ticks == 1
    assert sizes.pause_s(0.0) == 0.002
    assert sizes.ticks == 2
    sizes.pause_s(0.007)
    assert sizes.ticks == 2


def old_run(path: Path, ticks: int = 30) -> None:
    """A run of push ticks far in the past."""
    with storage_of(path, new_run(path, push=True)) as storage:
        storage.write(full_batch(1, ticks))


def command(path: Path, runtime: FakeRuntime, keep_ms: int = HOUR_MS, dry_run: bool = False) -> tuple[int, str]:
    answers = io.StringIO()
    runtime.catch_stop_signals = lambda: None  # type: ignore[method-assign]
    return run_prune(path, keep_ms, dry_run, runtime, answers, io.StringIO()), answers.getvalue()


class TestCommand:
    def test_it_tells_what_it_did(self, tmp_path: Path) -> None:
        path = tmp_path / "x.db"
        old_run(path)
        code, text = command(path, FakeRuntime(), dry_run=True)
        assert code == 0 and text.startswith(f"Would delete from {path} what is older than 20")
        assert counts(path) == (30, 6, 6, 6)
        code, text = command(path, FakeRuntime())
        assert code == 0
        gone = 30 - counts(path)[0]
        assert gone > 10 and f"UTC: {gone} ticks, " in text and "Free space inside the file" in text
        assert rows(path, "PRAGMA integrity_check") == [("ok",)]

    def test_locked_for_a_while(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tradebot.store.database.BUSY_TIMEOUT_MS", 5)
        path, runtime = tmp_path / "x.db", FakeRuntime()
        old_run(path)
        with locked(path) as other:
            runtime.on_sleep = lambda: other.close() if len(runtime.slept) == 3 else None
            assert command(path, runtime)[0] == 0
        assert runtime.slept[:3] == [0.05, 0.1, 0.2]
        assert counts(path)[0] < 30

    def test_locked_for_good(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tradebot.store.database.BUSY_TIMEOUT_MS", 5)
        path, runtime = tmp_path / "x.db", FakeRuntime()
        old_run(path)
        with locked(path):
            code, text = command(path, runtime)
        assert code == 1 and "Not finished: database is locked (SQLITE_BUSY" in text
        assert sum(runtime.slept) == pytest.approx(60.0)

    def test_a_stop_signal(self, tmp_path: Path) -> None:
        path, runtime = tmp_path / "x.db", FakeRuntime()
        old_run(path)
        runtime.on_sleep = runtime.signal
        code, text = command(path, runtime)
        assert (code, counts(path)[0]) == (1, 28)
        assert "2 ticks" in text and "stopped by a signal. Run it again" in text

    @pytest.mark.parametrize(
        ("make", "complaint"),
        [
            *NOT_OURS,
            (lambda path: path.symlink_to(path), "circle|cannot be opened|does not exist"),
        ],
    )
    def test_what_is_no_database_of_ours(self, tmp_path: Path, make: Callable[[Path], Any], complaint: str) -> None:
        """12, by name, and nothing is made or changed."""
        path = tmp_path / "x.db"
        make(path)
        before = path.read_bytes() if path.is_file() else None
        with pytest.raises(ConfigError, match=rf"x\.db: .*({complaint})"):
            command(path, FakeRuntime())
        assert (path.read_bytes() if path.is_file() else None) == before
        assert len(list(tmp_path.iterdir())) <= 1

    def test_an_older_schema(self, tmp_path: Path) -> None:
        """An engine of the older version may be writing it."""
        path = tmp_path / "x.db"
        old_run(path)
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA user_version = 2")
        with pytest.raises(ConfigError, match="start the engine with it once"):
            command(path, FakeRuntime())

    def test_a_table_that_somebody_wrote_into(self, tmp_path: Path) -> None:
        path = tmp_path / "x.db"
        old_run(path)
        command(path, FakeRuntime())
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("UPDATE carried SET cost = 'much'")
        with pytest.raises(ConfigError, match="table carried, row with id 1: is not a position"):
            command(path, FakeRuntime())

    def test_a_file_that_was_cut_off(self, tmp_path: Path) -> None:
        """What is wrong, and where: once."""
        path = tmp_path / "x.db"
        old_run(path, 300)
        with path.open("r+b") as file:
            file.truncate(4096)
        with pytest.raises(ConfigError) as found:
            command(path, FakeRuntime())
        assert str(found.value).startswith(f"database {path}: database disk image is malformed")

    def test_damage_that_is_met_later(self, tmp_path: Path) -> None:
        path = tmp_path / "x.db"
        old_run(path, 3000)
        with closing(sqlite3.connect(path)) as db:
            (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'ticks'").fetchone()
        with path.open("r+b") as file:
            file.seek((page - 1) * 4096)
            file.write(b"\xff" * 4096)
        with pytest.raises(ConfigError) as found:
            command(path, FakeRuntime())
        assert str(found.value).count(f"database {path}") == 1

    def test_a_dry_run_that_begins_anew_counts_once(self, tmp_path: Path) -> None:
        path = tmp_path / "x.db"
        old_run(path)
        failing = iter([*[False] * 9, True])

        def opened(path: Path) -> SqliteDatabase:
            db = open_existing(path)
            execute = db.execute

            def execute_or_fail(query: Any, **context: Any) -> Any:
                if next(failing, False):
                    raise StorageUnavailable("SQLITE_IOERR", "disk I/O error", passing=True)
                return execute(query, **context)

            db.execute = execute_or_fail  # type: ignore[method-assign]
            return db

        _code, wanted = command(path, FakeRuntime(), dry_run=True)
        runtime, answers = FakeRuntime(), io.StringIO()
        runtime.catch_stop_signals = lambda: None  # type: ignore[method-assign]
        assert run_prune(path, HOUR_MS, True, runtime, answers, None, opened) == 0
        assert runtime.slept == [0.05]
        assert answers.getvalue().partition("UTC")[2] == wanted.partition("UTC")[2]


class TestSpill:
    """The start that adopts a spill file must find the run that its events belong to."""

    HEADER = '["spill",2,"run-{}",0,0,0,0,0]\n'

    def stored(self, path: Path, *runs: PastRun) -> None:
        with closing(connect(path)) as db:
            migrate(db)
            end_ms = START_MS
            for number, past in enumerate(runs, 1):
                end_ms = store(db, past, number, end_ms)

    def test_a_replay_whose_events_wait(self, tmp_path: Path) -> None:
        """It ended with 13, and no start has adopted what it spilled: that start would be refused for ever."""
        path = tmp_path / "x.db"
        self.stored(path, ticks_run(20, feed="replay", ended=True), ticks_run(20, feed="replay", ended=True))
        event = msgspec.json.encode(["t", "A", 1.0, 1.0, 1, None, None])
        spill_path(path).write_bytes(b'["spill",2,"run-1",20,6,6,3,0]\n' + event + b"\n")
        for dry_run in (True, False):
            code, text = command(path, FakeRuntime(), dry_run=dry_run)
            assert code == 0 and "1 replays" in text
            assert (
                f"Not deleted, because its events are waiting in {spill_path(path)}: run run-1; the next start" in text
            )
        assert rows(path, "SELECT run_id, ticks, pruned_ticks FROM runs") == [("run-1", 20, 0)]
        with closing(connect(path)) as db:
            adopt(db, spill_path(path))
        assert rows(path, "SELECT COUNT(*) FROM ticks") == [(21,)]
        code, text = command(path, FakeRuntime())
        assert code == 0 and "1 replays" in text and "Left alone" not in text

    def test_a_run_of_a_push_feed_whose_events_wait(self, tmp_path: Path) -> None:
        """Neither it nor what came after it; other feeds, and what came before it, go."""
        path = tmp_path / "x.db"
        runs = [ticks_run(20, ended=True), ticks_run(20, feed="b:X", ended=True)]
        self.stored(path, *runs, *runs)
        spill_path(path).write_text(self.HEADER.format(3))
        code, text = command(path, FakeRuntime())
        assert code == 0 and "run run-3" in text
        left = dict(rows(path, "SELECT run, COUNT(*) FROM ticks GROUP BY run"))
        assert left == {3: 20, 4: KEPT}

    def test_one_that_is_young_is_not_spoken_of(self, tmp_path: Path) -> None:
        path = tmp_path / "x.db"
        self.stored(path, ticks_run(20, ended=True), ticks_run(20, feed="replay", ended=True))
        for number in (1, 2):
            spill_path(path).write_text(self.HEADER.format(number))
            code, text = command(path, FakeRuntime(), keep_ms=10**12)
            assert code == 0 and "Left alone" not in text

    @pytest.mark.parametrize("content", [b"", b"\0" * 9000, b'["spill",2,"ru'])
    def test_a_reserve_holds_nothing(self, tmp_path: Path, content: bytes) -> None:
        """That of a running engine, or of one that was killed."""
        path = tmp_path / "x.db"
        self.stored(path, ticks_run(20, feed="replay", ended=True))
        spill_path(path).write_bytes(content)
        code, text = command(path, FakeRuntime())
        assert code == 0 and "1 replays" in text

    @pytest.mark.parametrize(
        ("make", "why"),
        [
            (lambda path: path.write_text("some text\n"), "damaged or was not written by tradebot"),
            (lambda path: path.write_text('["spill",9,"run-1",0,0,0,0,0]\n'), "format 9 is not supported"),
            (lambda path: path.mkdir(), "is not a regular file"),
        ],
    )
    def test_one_that_cannot_be_read(self, tmp_path: Path, make: Callable[[Path], Any], why: str) -> None:
        """No replay goes, for it may be any one's; and it is said, with 1: it needs somebody to look."""
        path = tmp_path / "x.db"
        self.stored(path, ticks_run(20, ended=True), ticks_run(20, feed="replay", ended=True))
        make(spill_path(path))
        code, text = command(path, FakeRuntime())
        assert code == 1 and "0 replays" in text
        assert (
            f"Not finished: no replay was deleted, because the spill file may hold its events: spill file {path}.sp"
            in text
        )
        assert why in text
        assert dict(rows(path, "SELECT run, COUNT(*) FROM ticks GROUP BY run")) == {1: KEPT, 2: 20}
        assert command(path, FakeRuntime(), keep_ms=10**12)[0] == 0, "where no replay is old, nothing is left undone"
