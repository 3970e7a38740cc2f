"""A tick with all that it caused is one event: stored whole or not at all, also at a kill, a spill or a doubt."""

from __future__ import annotations

import signal as signals
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from peewee import SqliteDatabase

from tests.unit.outcomes import limit_order, outcome_batch, outcomes, transition
from tests.unit.store_helpers import (
    batch_of,
    dump_of,
    full_batch,
    memory_run,
    new_run,
    order,
    python,
    rows,
    run_info,
    signal,
    storage_of,
    tick,
)
from tradebot.core.events import Notice, OrderChunk, SignalChunk, Tick, TickChunk, TickOutcome
from tradebot.store.adoption import Adopted, adopt
from tradebot.store.batch import StoredCounts, WriteBatch
from tradebot.store.database import connect
from tradebot.store.errors import StorageUnavailable
from tradebot.store.results import read_results
from tradebot.store.row_counts import row_counts
from tradebot.store.runs import begin_run
from tradebot.store.spill import Spill, spill_path
from tradebot.store.spill_format import in_causal_order
from tradebot.store.writer import SqliteWriter, insert_batch

STATEMENTS = 15
"""Of the transaction that `TestWhole` kills: some tables take several."""
CONSEQUENCES = ("signals", "orders", "order_events", "trades", "notices")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


def stored(db: sqlite3.Connection) -> tuple[int, ...]:
    """Rows of each table."""
    tables = ("ticks", *CONSEQUENCES)
    return tuple(int(db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]) for table in tables)


def expected(ticks: int) -> tuple[int, ...]:
    """The rows that the first so many ticks of `outcomes` make."""
    counts = StoredCounts().plus(outcome_batch(1, ticks))
    return tuple(getattr(counts, name) for name in ("ticks", *CONSEQUENCES))


class TestRows:
    def test_every_column(self, path: Path) -> None:
        """An order that was filled in two parts, and one that was refused."""
        with storage_of(path, new_run(path)) as storage:
            storage.write(outcome_batch(1, 9))
        made = "order_type, limit_price, stop_price, time_in_force, expire_ts, post_only, reduce_only, parent_id"
        assert rows(path, f"SELECT event_id, status, price, refused_limit, {made} FROM orders ORDER BY id") == [
            ("r1-0000000004-O", "REJECTED", None, 10.0, "MARKET", *[None] * 7),
            ("r1-0000000005-O", "SUBMITTED", 99.5, None, "LIMIT", 99.5, None, "GTC", None, 1, 0, None),
            ("r1-0000000009-O", "REJECTED", None, 10.0, "MARKET", *[None] * 7),
        ]
        assert rows(path, "SELECT run, order_id, n, status, reason, ts, tick, remaining FROM order_events") == [
            (1, "r1-0000000004-O", 1, "REJECTED", "WHY_1", 1_700_000_000_004, 4, 0.2),
            (1, "r1-0000000005-O", 1, "SUBMITTED", "WHY_1", 1_700_000_000_005, 5, 0.2),
            (1, "r1-0000000005-O", 2, "ACKNOWLEDGED", "WHY_2", 1_700_000_000_006, 6, 0.2),
            (1, "r1-0000000005-O", 3, "PARTIAL_FILL", "WHY_3", 1_700_000_000_007, 7, 0.1),
            (1, "r1-0000000005-O", 4, "FILLED", "WHY_4", 1_700_000_000_008, 8, 0.0),
            (1, "r1-0000000009-O", 1, "REJECTED", "WHY_1", 1_700_000_000_009, 9, 0.2),
        ]
        assert rows(path, "SELECT event_id, order_id, liquidity, tick, slippage_bps, after_gap FROM trades") == [
            ("r1-0000000007-T", "r1-0000000005-O", "MAKER", 7, -1.5, 0),
            ("r1-0000000008-T", "r1-0000000005-O", "MAKER", 8, -1.5, 0),
        ]
        assert rows(path, "SELECT kind, ticks_before FROM notices") == [("BREAKER_TRIPPED", 4), ("BREAKER_TRIPPED", 9)]
        counted = "SELECT ticks, signals, orders, trades, notices, order_events, checkpoints FROM runs"
        assert rows(path, counted) == [(9, 3, 3, 2, 2, 6, 0)]
        with closing(connect(path)) as db:
            assert row_counts(db) == {"ticks": 9, "signals": 3, "orders": 3, "trades": 2, "order_events": 6}

    def test_a_transition_is_stored_once(self, path: Path) -> None:
        """An order has one n-th transition: storing another is an error, and nothing is stored."""
        with storage_of(path, new_run(path)) as storage:
            storage.write(outcome_batch(1, 5))
            again = TickOutcome(tick(6), 6, (), (), (transition("r1-0000000005-O", 1, "CANCELED", 6),))
            with pytest.raises(Exception, match=r"UNIQUE constraint failed: order_events\.order_id, order_events\.n"):
                storage.write(batch_of(again))
        assert rows(path, "SELECT COUNT(*) FROM ticks") == [(5,)]

    @given(events=st.integers(0, 25), cuts=st.lists(st.integers(1, 7), min_size=1, max_size=5))
    @hypothesis_settings(max_examples=25)
    def test_how_they_are_cut_into_batches_changes_nothing(self, events: int, cuts: list[int]) -> None:
        """And what is stored is the same as of the events by themselves, table by table."""
        made = outcomes(1, events)
        with memory_run() as (db, record), memory_run() as (apart, _):
            after = StoredCounts()
            at = 0
            while at < len(made):
                size = cuts[at % len(cuts)]
                batch = batch_of(*made[at : at + size])
                after, at = after.plus(batch), at + size
                insert_batch(db, record.no, batch, after)
            alone = WriteBatch()
            whole = batch_of(*made)
            alone.add(TickChunk(whole.ticks))
            alone.add(SignalChunk(whole.signals))
            alone.add(OrderChunk(whole.orders))
            for notice in whole.notices:
                alone.add(notice)
            alone.fills, alone.order_events = whole.fills, whole.order_events
            if made:
                insert_batch(apart, record.no, alone, StoredCounts().plus(alone))
            assert dump_of(db) == dump_of(apart)

    def test_they_count_as_one_event_each_and_as_all_their_rows(self) -> None:
        batch = batch_of(*outcomes(1, 10), signal(11), order(11))
        assert batch.events == 10 + 2
        assert batch.rows == sum(expected(10)) + 1 + 2
        assert [index + 1 for index in batch.outcomes] == [4, 5, 6, 7, 8, 9, 10]

    def test_ticks_that_are_alike_stay_so(self) -> None:
        """An outcome among ticks of one symbol without numbers does not make the insert slower."""
        batch = WriteBatch()
        batch.add(TickChunk([tick(1), tick(2)], "TEST/USD"))
        batch.add(TickOutcome(tick(3), 3))
        assert batch.symbol == "TEST/USD"
        batch.add(TickOutcome(Tick("TEST/USD", 1.0, 1.0, 1, taker="BUY"), 4))
        assert batch.symbol is None


class TestOrdersNow:
    QUERY = "SELECT event_id, status, reason, remaining, qty FROM orders_now ORDER BY id"

    def test_the_newest_transition_counts(self, path: Path) -> None:
        with storage_of(path, new_run(path)) as storage:
            storage.write(outcome_batch(1, 7))
            assert rows(path, self.QUERY) == [
                ("r1-0000000004-O", "REJECTED", "WHY_1", 0.2, 0.2),
                ("r1-0000000005-O", "PARTIAL_FILL", "WHY_3", 0.1, 0.2),
            ]
            storage.write(outcome_batch(8, 1))
        assert rows(path, self.QUERY)[1] == ("r1-0000000005-O", "FILLED", "WHY_4", 0.0, 0.2)
        assert rows(path, "SELECT status, reason FROM orders WHERE id = 2") == [("SUBMITTED", "SUBMITTED")]

    def test_an_order_of_shadow_shows_its_own_status(self, path: Path) -> None:
        refused = order(2, fills=0)
        with storage_of(path, new_run(path)) as storage:
            storage.write(batch_of(tick(1), tick(2), signal(1), order(1), signal(2), refused))
        assert rows(path, self.QUERY) == [
            ("r1-0000000001-O", "FILLED", "SHADOW_RECORDED", 0.0, 0.1),
            ("r1-0000000002-O", "REJECTED", "SHADOW_RECORDED", 0.1, 0.1),
        ]

    def test_figures_of_a_run_tell_what_became_of_its_orders(self, path: Path) -> None:
        with storage_of(path, new_run(path)) as storage:
            storage.write(outcome_batch(1, 11))
        with closing(connect(path)) as db:
            found = read_results(db, 1)
        assert found.orders_by_status == {"ACKNOWLEDGED": 1, "FILLED": 1, "REJECTED": 2}
        assert found.refusals_by_reason == {"WHY_1": 2}
        assert (found.signals, found.fills) == (4, 2)


class TestWhole:
    @pytest.mark.parametrize("cut", range(STATEMENTS + 1))
    def test_a_kill_between_any_two_statements(self, path: Path, cut: int) -> None:
        """SIGKILL before the `cut`-th statement of a batch: what is stored are whole ticks."""
        new_run(path)
        code = f"""
import os, signal, sys
from pathlib import Path
from tests.unit.outcomes import outcome_batch
from tradebot.store.runs import RunRecord
from tradebot.store.writer import SqliteWriter
writer = SqliteWriter(Path(sys.argv[1]), "NORMAL", RunRecord(1, "r1"))
writer.write(outcome_batch(1, 4))
left = {cut}
def about_to(statement):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
writer._db.connection().set_trace_callback(about_to)
writer.write(outcome_batch(5, 8))
"""
        process = python(code, path)
        code_of = process.wait(60)
        assert process.stdout is not None
        process.stdout.close()
        assert code_of in (0, -signals.SIGKILL)
        with closing(sqlite3.connect(path)) as db:
            found = stored(db)
            assert found == expected(12 if code_of == 0 else 4)
            counted = db.execute("SELECT ticks, signals, orders, order_events, trades, notices FROM runs").fetchone()
            assert counted == found

    def test_there_are_as_many_statements_as_kills(self, path: Path) -> None:
        """Each table, the counters, begin and commit: the kills above fall between all of them."""
        seen: list[str] = []
        with storage_of(path, new_run(path)) as storage:
            storage.write(outcome_batch(1, 4))
            assert storage._db is not None
            storage._db.connection().set_trace_callback(seen.append)
            storage.write(outcome_batch(5, 8))
        verbs = [statement.split()[0] for statement in seen]
        assert verbs[0] == "BEGIN" and verbs[-1] == "COMMIT"
        assert verbs.count("INSERT") >= 1 + len(CONSEQUENCES) and "UPDATE" in verbs
        assert len(verbs) == STATEMENTS

    @pytest.mark.parametrize("committed", [False, True])
    def test_a_commit_in_doubt(self, path: Path, committed: bool) -> None:
        """The counters tell whether it was stored; a batch of transitions alone cannot exist, since it has a tick."""

        class Doubtful(SqliteWriter):
            doubts = 1

            def _transact(self, db: SqliteDatabase, batch: WriteBatch, after: StoredCounts) -> None:
                if committed or not self.doubts:
                    super()._transact(db, batch, after)
                if self.doubts:
                    self.doubts -= 1
                    raise StorageUnavailable("SQLITE_IOERR", "disk I/O error", passing=True)

        with closing(Doubtful(path, "NORMAL", new_run(path))) as writer:
            with pytest.raises(StorageUnavailable):
                writer.write(outcome_batch(1, 8))
            writer.write(outcome_batch(1, 8))
            writer.write(outcome_batch(9, 4))
            assert writer.counts == StoredCounts().plus(outcome_batch(1, 12))
        with closing(sqlite3.connect(path)) as db:
            assert stored(db) == expected(12)

    def test_resuming_counts_transitions(self, path: Path) -> None:
        with storage_of(path, new_run(path)) as storage:
            storage.write(outcome_batch(1, 8))
        with closing(connect(path)) as db:
            again = begin_run(db, run_info("r1"), 1, resume=True)
        assert again.counts == StoredCounts().plus(outcome_batch(1, 8))


def spilled(place: str, events: list[Any], before: StoredCounts) -> Path:
    """A finished spill file of these events."""
    made = Spill(spill_path(Path(place, "x.db")), 10)
    made.begin("r1", before, events)
    made.finish()
    return made.path


class TestSpill:
    @given(held=st.integers(0, 12), length=st.integers(1, 12))
    @hypothesis_settings(max_examples=40)
    def test_outcomes_that_are_stored_already_are_passed_over(self, held: int, length: int) -> None:
        """A commit in doubt that did happen, of more or fewer ticks than were spilled."""
        first, rest = outcome_batch(1, 5), outcome_batch(6, length)
        before = StoredCounts().plus(first)
        whole = outcome_batch(1, 5 + max(held, length))
        with TemporaryDirectory() as place, memory_run() as (db, record), memory_run() as (plain, _):
            insert_batch(db, record.no, first, before)
            if held:
                insert_batch(db, record.no, outcome_batch(6, held), before.plus(outcome_batch(6, held)))
            found = adopt(db, spilled(place, in_causal_order(rest, 5), before))
            insert_batch(plain, record.no, whole, StoredCounts().plus(whole))
            assert found == Adopted("r1", max(0, length - held), min(held, length), whole=True)
            assert dump_of(db) == dump_of(plain)

    def test_what_comes_by_itself_is_told_from_what_outcomes_hold(self) -> None:
        """A breaker's notice is passed over with its tick, and does not count for a gap that is not stored yet."""
        gaps = [Notice("GAP", 1, "", "A", 1, ticks_before=place) for place in (1, 2)]
        refused = TickOutcome(tick(1), 1, notices=(Notice("BREAKER_TRIPPED", 1, "x", ticks_before=1),))
        held = batch_of(refused, gaps[0])
        with TemporaryDirectory() as place, memory_run() as (db, record):
            insert_batch(db, record.no, held, StoredCounts().plus(held))
            found = adopt(db, spilled(place, [refused, gaps[0], tick(2), gaps[1]], StoredCounts()))
            assert found == Adopted("r1", 2, 2, whole=True)
            kinds = db.execute_sql("SELECT kind, ticks_before FROM notices ORDER BY id").fetchall()
            assert kinds == [("BREAKER_TRIPPED", 1), ("GAP", 1), ("GAP", 2)]

    def test_cut_at_any_byte(self) -> None:
        """Whole ticks are stored; of the line that was cut short nothing is."""
        with TemporaryDirectory() as place:
            content = spilled(place, outcomes(1, 9), StoredCounts()).read_bytes()
            for end in range(content.index(b"\n") + 1, len(content) + 1, 7):
                Path(place, "x.db.spill").write_bytes(content[:end])
                with memory_run() as (db, _):
                    assert adopt(db, Path(place, "x.db.spill")) is not None
                    assert stored(db.connection()) == expected(content[:end].count(b"\n") - 1 - (end == len(content)))

    @pytest.mark.parametrize(
        "line",
        [
            '["x",1,["A",1.0,1.0,1,null,null],[],[],[],[]]',
            '["x","1",["A",1.0,1.0,1,null,null],[],[],[],[],[]]',
            '["x",1,["A",1.0,1.0,1],[],[],[],[],[]]',
            '["x",1,["A",1.0,1.0,1,null,null],[],[],[["o",1,"LOST","r",1,1,0.5]],[],[]]',
            '["x",1,["A",1.0,1.0,1,null,null],[],[],[],[["t","o","A","BUY",1.0,1.0,0.0,1,1,"NONE",1,0.0,0]],[]]',
            '["x",1,["A",1.0,1.0,1,null,null],[["s"]],[],[],[],[]]',
        ],
    )
    def test_a_damaged_line_is_set_aside(self, path: Path, line: str) -> None:
        new_run(path)
        spill_path(path).write_text(f'["spill",4,"r1",0,0,0,0,0,0]\n{line}\n["end",1]\n')
        with closing(connect(path)) as db:
            found = adopt(db, spill_path(path))
        assert found is not None and found.orphan is not None
        assert found.orphan.reason.startswith("line 2 is damaged")

    def test_in_shadow_the_lines_are_those_of_format_3(self) -> None:
        """A spill of the same size holds as many events as before."""
        with TemporaryDirectory() as place:
            lines = spilled(place, in_causal_order(full_batch(1, 5), 0), StoredCounts()).read_text().splitlines()
        assert lines[1] == '["t","TEST/USD",100.25,1.0,1700000000001,null,null]'
        assert lines[7] == (
            '["o","r1-0000000005-O","r1-0000000005-S","TEST/USD","BUY",0.1,100.0,"FILLED","SHADOW_RECORDED",5,1,'
            '[["r1-0000000005-F0","r1-0000000005-O","TEST/USD","BUY",0.1,101.25,0.01,5,1]],null]'
        )


def test_a_bracket_cites_the_signal_of_its_entry() -> None:
    """Of the helper: a child has the id of the tick that made it, and the entry's signal."""
    _signal, entry = limit_order(5)
    _signal, child = limit_order(8, n=2, parent=entry.event_id)
    assert (child.event_id, child.signal_id) == ("r1-0000000008-O2", "r1-0000000005-S")
