"""States of a feed and what was stored after them: a restart reads the newest one and the little that follows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace
from peewee import SqliteDatabase

from tests.unit.outcomes import outcome_batch
from tests.unit.store_helpers import batch_of, full_batch, order, rows, run_info, signal, tick
from tradebot.core.errors import ConfigError
from tradebot.core.events import STALE_DATA, Checkpoint, Fill, Notice, NoticeKind, Tick, TickOutcome
from tradebot.core.ids import event_prefix, fill_id, order_id
from tradebot.portfolio.positions import Positions
from tradebot.store.batch import StoredCounts, WriteBatch
from tradebot.store.database import connect, migrate
from tradebot.store.runs import RunRecord, begin_run
from tradebot.store.saved_state import STATES_KEPT, SavedState, StoredItem, newest_state, stored_since
from tradebot.store.takeover import take_over
from tradebot.store.writer import SqliteWriter, insert_batch

STARTED_MS = 1_700_000_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with closing(connect(tmp_path / "x.db")) as db:
        migrate(db)
    return tmp_path / "x.db"


@pytest.fixture
def db(path: Path) -> Iterator[SqliteDatabase]:
    with closing(connect(path)) as made:
        yield made


def begin(db: SqliteDatabase, run_id: str, source: str = "synthetic:TEST/USD") -> RunRecord:
    record = begin_run(db, run_info(run_id, push=True, source=source), STARTED_MS, resume=False)
    take_over(db, record.no, 3, None)
    return record


def notice(kind: NoticeKind, ticks_before: int, detail: str = "") -> Notice:
    return Notice(kind, STARTED_MS, detail, ticks_before=ticks_before)


def write(path: Path, record: RunRecord, *batches: WriteBatch) -> None:
    with closing(SqliteWriter(path, "NORMAL", record)) as writer:
        for batch in batches:
            writer.write(batch)


def with_state(batch: WriteBatch, ticks_before: int, state: bytes | None, inputs: int = 0) -> WriteBatch:
    batch.add_event(Checkpoint(ticks_before, (), 3, state, inputs))
    return batch


def flat(items: Iterator[StoredItem]) -> list[tuple[str, int, Tick | Notice]]:
    """Each tick with its number, each notice with that of the next tick."""
    found: list[tuple[str, int, Tick | Notice]] = []
    for run_id, number, item, *_decisions in items:
        if isinstance(item, Notice):
            found.append((run_id, number, item))
        else:
            found += [(run_id, number + index, tick) for index, tick in enumerate(item)]
    return found


class TestStates:
    def test_the_newest_one_is_found(self, path: Path, db: SqliteDatabase) -> None:
        first = begin(db, "l1")
        assert newest_state(db, 1) is None
        write(path, first, with_state(full_batch(1, 5), 5, b"five"), with_state(full_batch(6, 5), 8, b"\0eight", 2))
        assert newest_state(db, 1) == SavedState(first.no, "l1", 8, 2, b"\0eight")
        begin(db, "l2")
        assert newest_state(db, 1) == SavedState(first.no, "l1", 8, 2, b"\0eight"), "a start makes no state"
        other = begin(db, "l3", "synthetic:OTHER")
        write(path, other, with_state(full_batch(1, 5, run_id=other.run_id), 5, b"other"))
        assert newest_state(db, 1) == SavedState(first.no, "l1", 8, 2, b"\0eight")

    def test_few_are_kept_of_each_feed_and_all_are_counted(self, path: Path, db: SqliteDatabase) -> None:
        first, other = begin(db, "l1"), begin(db, "l2", "synthetic:OTHER")
        write(path, other, with_state(full_batch(1, 5, run_id=other.run_id), 5, b"other"))
        write(path, first, *(with_state(batch_of(tick(n)), n, b"%d" % n) for n in range(1, 8)))
        second = begin(db, "l3")
        write(path, second, with_state(batch_of(tick(1)), 1, b"last"))
        kept = rows(path, "SELECT run, ticks_before, state FROM checkpoints ORDER BY run, ticks_before")
        assert kept == [(1, 6, b"6"), (1, 7, b"7"), (2, 5, b"other"), (3, 1, b"last")]
        assert len([row for row in kept if row[0] != 2]) == STATES_KEPT
        assert rows(path, "SELECT checkpoints, pruned_checkpoints FROM runs ORDER BY id") == [(7, 5), (1, 0), (1, 0)]

    def test_a_checkpoint_without_a_state_enters_none(self, path: Path, db: SqliteDatabase) -> None:
        write(path, begin(db, "l1"), with_state(full_batch(1, 5), 5, None))
        assert rows(path, "SELECT COUNT(*) FROM checkpoints") == [(0,)]
        assert rows(path, "SELECT run_ticks FROM feeds") == [(5,)]

    def test_the_same_checkpoint_again_changes_nothing(self, path: Path, db: SqliteDatabase) -> None:
        """As after a commit in doubt; a later one at the same tick replaces the state."""
        record = begin(db, "l1")
        batch = with_state(full_batch(1, 5), 5, b"five")
        write(path, record, batch)
        again = WriteBatch()
        again.add_event(Checkpoint(5, (), 3, b"later", 1))
        with closing(SqliteWriter(path, "NORMAL", RunRecord(1, "l1", StoredCounts().plus(batch)))) as writer:
            for _ in range(2):
                writer.write(again)
        assert rows(path, "SELECT ticks_before, inputs, state FROM checkpoints") == [(5, 1, b"later")]
        assert rows(path, "SELECT checkpoints FROM runs") == [(1,)]

    def test_of_a_replay_no_state_is_kept(self, path: Path, db: SqliteDatabase) -> None:
        """It is resumed by computing its stored ticks again."""
        record = begin_run(db, run_info("r1"), STARTED_MS, resume=False)
        write(path, record, with_state(full_batch(1, 5), 5, b"five"))
        assert rows(path, "SELECT COUNT(*) FROM checkpoints") == [(0,)]

    def test_the_newest_checkpoint_of_a_batch_determines_the_state(self) -> None:
        batch = with_state(with_state(full_batch(1, 5), 2, b"two", 1), 4, b"four", 0)
        assert batch.checkpoint is not None
        assert (batch.checkpoint.ticks_before, batch.checkpoint.state, batch.checkpoint.inputs) == (4, b"four", 0)


class TestSince:
    def test_ticks_and_notices_over_several_runs(self, path: Path, db: SqliteDatabase) -> None:
        """Each notice in its place, those of breakers and of the storage left out, and nothing of other feeds."""
        first = begin(db, "l1")
        early, halt, link = notice("GAP", 2), notice("HALT", 4, "a"), notice("LINK_LOST", 6, "b")
        batch = batch_of(notice("SPILL_ORPHANED", 0), tick(1), tick(2), early, tick(3), tick(4), halt)
        batch = with_state(batch, 4, b"state", inputs=1)
        batch.add_event(notice("RESUME", 4))
        for event in (notice("LINK_UP", 4, "c"), notice("BREAKER_TRIPPED", 5), tick(5), tick(6), link):
            batch.add_event(event)
        write(path, first, batch)
        other = begin(db, "l2", "synthetic:OTHER")
        write(path, other, full_batch(1, 4))
        second = begin(db, "l3")
        restart = notice("RESTART", 0)
        write(path, second, batch_of(restart, tick(11), tick(12)))
        third = begin(db, "l4")
        write(path, third, batch_of(tick(21)))
        saved = newest_state(db, 1)
        assert saved is not None
        wanted = [
            ("l1", 5, notice("RESUME", 4)), ("l1", 5, notice("LINK_UP", 4, "c")),
            ("l1", 5, tick(5)), ("l1", 6, tick(6)), ("l1", 7, link),
            ("l3", 1, restart), ("l3", 1, tick(11)), ("l3", 2, tick(12)),
        ]  # fmt: skip
        assert flat(stored_since(path, third.no, saved)) == wanted
        begun = [("l1", 1, tick(1)), ("l1", 2, tick(2)), ("l1", 3, early), ("l1", 3, tick(3)), ("l1", 4, tick(4))]
        assert flat(stored_since(path, third.no, None)) == [*begun, ("l1", 5, halt), *wanted]
        assert flat(stored_since(path, first.no, None)) == []

    def test_a_state_at_the_end_is_followed_by_nothing(self, path: Path, db: SqliteDatabase) -> None:
        record = begin(db, "l1")
        write(path, record, with_state(outcome_batch(1, 9, "l1"), 9, b"x"))
        assert flat(stored_since(path, begin(db, "l2").no, newest_state(db, 1))) == []

    def test_ticks_bear_the_takers_side_and_the_senders_numbers(self, path: Path, db: SqliteDatabase) -> None:
        ticks = [Tick("A", 1.0, 2.0, 3, "id", 4, "SELL"), Tick("B", 0.1, 0.0, 0)]
        write(path, begin(db, "l1"), batch_of(*ticks))
        assert [tick for _run, _number, tick in flat(stored_since(path, begin(db, "l2").no, None))] == ticks

    def test_it_comes_in_pieces(self, path: Path, db: SqliteDatabase) -> None:
        write(path, begin(db, "l1"), full_batch(1, 2500), batch_of(notice("GAP", 2500)))
        items = stored_since(path, begin(db, "l2").no, SavedState(1, "l1", 100, 0, b""))
        found = [(item.number, 1 if isinstance(item.item, Notice) else len(item.item)) for item in items]
        assert found == [(101, 1000), (1101, 1000), (2101, 400), (2501, 1)]

    def test_runs_that_lie_one_in_the_other(self, path: Path, db: SqliteDatabase) -> None:
        """A spill that was adopted after a newer run had begun."""
        first, second = begin(db, "l1"), begin(db, "l2")
        after = StoredCounts()
        for record, number in ((first, 1), (second, 11), (first, 2), (first, 3), (first, 4)):
            batch = batch_of(tick(number))
            if record is first:
                after = after.plus(batch)
            insert_batch(db, record.no, batch, after if record is first else StoredCounts(1))
        found = flat(stored_since(path, begin(db, "l3").no, SavedState(1, "l1", 2, 0, b"")))
        assert found == [("l1", 3, tick(3)), ("l1", 4, tick(4)), ("l2", 1, tick(11))]

    def test_ticks_that_were_deleted(self, path: Path, db: SqliteDatabase) -> None:
        """By hand, or by a version that knew nothing of states: one clear message instead of a wrong account."""
        write(path, begin(db, "l1"), with_state(full_batch(1, 5), 2, b"x"))
        second = begin(db, "l2")
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("UPDATE runs SET pruned_ticks = 3 WHERE id = 1")
        with pytest.raises(
            ConfigError, match=r"x\.db: ticks 3 to 3 of run l1 were deleted, which come after the newest"
        ):
            list(stored_since(path, second.no, newest_state(db, 1)))

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            ("UPDATE notices SET kind = 'FIRE'", "table notices, row with id 1: .*FIRE.*kind"),
            ("UPDATE orders SET refused_by = 'x', refused_limit = 'far'", "table orders, row with id 1: "),
        ],
    )
    def test_rows_that_another_program_wrote(self, path: Path, db: SqliteDatabase, change: str, problem: str) -> None:
        """Named, as a replay of the run names them."""
        late = replace(order(2, "l1", fills=0), reason=STALE_DATA)
        write(path, begin(db, "l1"), batch_of(notice("HALT", 0), tick(1), tick(2), signal(2, "l1"), late))
        with closing(sqlite3.connect(path)) as other, other:
            other.execute(change)
        with pytest.raises(ConfigError, match=rf"x\.db: {problem}"):
            list(stored_since(path, begin(db, "l2").no, None))


def test_fills_of_one_tick_are_taken_into_the_position_in_their_order(path: Path, db: SqliteDatabase) -> None:
    """Eleven of them, bought and sold in turn: what was realized depends on which came first."""
    stem = event_prefix("l1", 1)
    fills = tuple(
        Fill(
            fill_id(stem, n), order_id(stem), "A", "BUY" if n % 3 else "SELL", 1.0, 100.0 + n * n, 0.0, 1, 1, "TAKER", 1
        )
        for n in range(1, 12)
    )
    record = begin(db, "l1")
    write(path, record, with_state(batch_of(TickOutcome(tick(1), 1, fills=fills)), 1, b"x"))
    wanted = Positions()
    for fill in fills:
        wanted.apply(fill)
    carried = take_over(db, begin(db, "l2").no, 3, None)
    assert carried.positions.states() == wanted.states()
