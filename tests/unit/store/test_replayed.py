"""What a replay of stored runs reads besides ticks: notices and refusals, in the numbers of the replay."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.unit.store_helpers import (
    ORIGINAL_SCHEMA,
    batch_of,
    new_database,
    new_run,
    order,
    run_info,
    signal,
    storage_of,
    tick,
)
from tradebot.core.errors import ConfigError
from tradebot.core.events import BP_DROP_SIGNAL, RISK_CAP, STALE_DATA, Event, LimitBreach, Notice, Order, Tick
from tradebot.execution.risk import Refusal
from tradebot.store import replayed
from tradebot.store.database import connect_readonly
from tradebot.store.reader import TickReader, open_reader
from tradebot.store.replayed import (
    RecordedRefusals,
    ReplaySource,
    find_replay_source,
    read_all_ticks,
    read_notices,
    read_refusals,
)
from tradebot.store.runs import RunRecord, begin_run

AGE = LimitBreach("execution.max_tick_age_ms", 1500.0, 1000.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


def lost(ticks_before: int, ts: int = 7) -> Notice:
    return Notice("LINK_LOST", ts, "reset", None, None, ticks_before)


def ticks(begin: int, end: int) -> list[Event]:
    return [tick(number) for number in range(begin, end + 1)]


def refused(number: int, reason: str, breach: LimitBreach | None = None, run_id: str = "r1") -> Order:
    return replace(order(number, run_id, fills=0), reason=reason, breach=breach)


def store(path: Path, record: RunRecord, *events: Event) -> RunRecord:
    with storage_of(path, record) as storage:
        storage.write(batch_of(*events))
    return record


def paper_run(path: Path, run_id: str, *events: Event, mode: str = "PAPER", source: str = "kraken:BTC/USD") -> None:
    """A run of a push feed."""
    with closing(new_database(path)) as db:
        record = begin_run(db, run_info(run_id, push=True, source=source, mode=mode), 1, resume=False)
    store(path, record, *events)


def pruned(path: Path, run_id: str, ticks: int) -> None:
    """As `tradebot prune` leaves a run of which it deleted the first ticks; the notices stay."""
    with closing(sqlite3.connect(path)) as db, db:
        (no,) = db.execute("SELECT id FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        ids = f"SELECT id FROM ticks WHERE run = {no} ORDER BY id LIMIT {ticks}"
        db.execute(f"DELETE FROM ticks WHERE id IN ({ids})")
        db.execute("DELETE FROM orders WHERE run = ? AND event_id < ?", (no, f"{run_id}-{ticks + 1:010d}"))
        db.execute(f"UPDATE runs SET pruned_ticks = {ticks} WHERE id = {no}")


@contextmanager
def found(path: Path, run_id: str | None = None) -> Iterator[tuple[TickReader, ReplaySource]]:
    with open_reader(path) as reader:
        yield reader, find_replay_source(reader.db, run_id)


def notices_of(path: Path, run_id: str | None = None) -> list[tuple[int, str, int]]:
    with found(path, run_id) as (reader, source):
        return [(at, notice.kind, notice.ts) for at, notice in read_notices(reader.db, source)]


def refusals_of(path: Path, run_id: str | None = None) -> list[tuple[int, Refusal]]:
    with found(path, run_id) as (_reader, source):
        return list(read_refusals(source, lambda: open_reader(path)))


def ticks_of(path: Path, run_id: str | None = None) -> list[Tick]:
    with found(path, run_id) as (reader, source):
        read = [each for chunk in read_all_ticks(reader.db, source) for each in chunk]
        assert len(read) == source.rows
        return read


class TestNotices:
    def test_come_whole_and_in_their_places(self, path: Path) -> None:
        gap = Notice("GAP", 5, "3 to 6", "TEST/USD", 4, 2)
        store(path, new_run(path, push=True), lost(0), *ticks(1, 2), gap, *ticks(3, 3), lost(3))
        with found(path) as (reader, source):
            assert list(read_notices(reader.db, source)) == [(0, lost(0)), (2, gap), (3, lost(3))]

    def test_only_those_that_came_from_outside(self, path: Path) -> None:
        """Breakers are computed again, and what was found beside the database concerns nobody else."""
        kinds: list[Any] = ["SPILL_ORPHANED", "HALT", "BREAKER_TRIPPED", "RESUME", "BREAKER_RELEASED", "RESTART"]
        store(path, new_run(path, push=True), *ticks(1, 1), *(Notice(kind, 1, "x") for kind in kinds))
        assert [kind for _at, kind, _ts in notices_of(path)] == ["HALT", "RESUME", "RESTART"]

    def test_places_in_a_pruned_run(self, path: Path) -> None:
        """Places count the ticks that are left; what came before these comes first, so that a halt still holds."""
        store(path, new_run(path, push=True), *ticks(1, 9), lost(2, 1), lost(5, 2), lost(6, 3), lost(9, 4))
        pruned(path, "r1", 5)
        assert [(at, ts) for at, _kind, ts in notices_of(path)] == [(0, 1), (0, 2), (1, 3), (4, 4)]

    def test_of_a_run_that_is_being_written(self, path: Path) -> None:
        """What was hashed is what is replayed: nothing that was stored since."""
        record = store(path, new_run(path, push=True), *ticks(1, 2), lost(1, 1))
        with found(path) as (reader, source), storage_of(path, record) as storage:
            storage.write(batch_of(*ticks(3, 4), lost(2, 2), lost(3, 3)))
            assert [notice.ts for _at, notice in read_notices(reader.db, source)] == [1]

    def test_a_run_pruned_meanwhile(self, path: Path) -> None:
        store(path, new_run(path, push=True), *ticks(1, 9), lost(2))
        with found(path) as (reader, source):
            with closing(sqlite3.connect(path)) as db, db:
                db.execute("UPDATE runs SET pruned_notices = 3")
            with pytest.raises(ConfigError, match="run r1 was pruned while it was read"):
                list(read_notices(reader.db, source))

    def test_a_row_that_is_no_notice(self, path: Path) -> None:
        store(path, new_run(path, push=True), *ticks(1, 1), lost(0), lost(1))
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("UPDATE notices SET kind = 'FIRE' WHERE id = 2")
        with pytest.raises(ConfigError, match=r"x\.db: table notices, row with id 2: .*FIRE.*kind"):
            notices_of(path)

    def test_files_without_them(self, path: Path, tmp_path: Path) -> None:
        store(path, new_run(path), *ticks(1, 3))
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("DROP TABLE notices")
        assert notices_of(path) == []
        original = tmp_path / "original.db"
        with closing(sqlite3.connect(original)) as db:
            db.executescript(ORIGINAL_SCHEMA)
        assert (notices_of(original), refusals_of(original), len(ticks_of(original))) == ([], [], 2)


class TestRefusals:
    def test_only_those_for_timing_by_tick_number(self, path: Path) -> None:
        """Two threads store them, so that row ids are in another order than the ticks."""
        refusals = [
            refused(4, BP_DROP_SIGNAL), refused(2, STALE_DATA, AGE), refused(3, RISK_CAP), order(5),
            refused(6, STALE_DATA, AGE),
        ]  # fmt: skip
        store(path, new_run(path, push=True), *ticks(1, 6), *map(signal, range(2, 7)), *refusals)
        stale, dropped = Refusal(STALE_DATA, AGE), Refusal(BP_DROP_SIGNAL)
        assert refusals_of(path) == [(2, stale), (4, dropped), (6, stale)]

    def test_numbers_in_a_pruned_run(self, path: Path) -> None:
        refusals = [refused(number, BP_DROP_SIGNAL) for number in (2, 5, 6, 9)]
        store(path, new_run(path, push=True), *ticks(1, 9), *refusals)
        pruned(path, "r1", 5)
        assert [number for number, _refusal in refusals_of(path)] == [1, 4]

    def test_more_than_a_page(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(replayed, "PAGE_ROWS", 3)
        refusals = [refused(number, STALE_DATA) for number in range(1, 10)]
        store(path, new_run(path, push=True), *ticks(1, 12), *refusals)
        opened = []

        @contextmanager
        def open_db() -> Iterator[TickReader]:
            opened.append(1)
            with open_reader(path) as reader:
                yield reader

        with found(path) as (_reader, source):
            rest = read_refusals(source, open_db)
            assert ([next(rest)[0] for _ in range(3)], len(opened)) == ([1, 2, 3], 1)
            assert [number for number, _refusal in rest] == [4, 5, 6, 7, 8, 9]
        assert len(opened) == 4

    def test_of_a_run_that_is_being_written(self, path: Path) -> None:
        record = store(path, new_run(path, push=True), *ticks(1, 4), refused(1, STALE_DATA))
        with found(path) as (_reader, source), storage_of(path, record) as storage:
            storage.write(batch_of(*ticks(5, 6), refused(3, STALE_DATA), refused(6, STALE_DATA)))
            assert [number for number, _ in read_refusals(source, lambda: open_reader(path))] == [1]

    def test_a_run_pruned_meanwhile(self, path: Path) -> None:
        store(path, new_run(path, push=True), *ticks(1, 4), refused(1, STALE_DATA))
        with found(path) as (_reader, source):
            pruned(path, "r1", 1)
            with pytest.raises(ConfigError, match="run r1 was pruned while it was read"):
                list(read_refusals(source, lambda: open_reader(path)))

    def test_a_file_whose_orders_have_no_evidence(self, path: Path) -> None:
        """Schema 4 did not store it."""
        store(path, new_run(path, push=True), *ticks(1, 4), refused(3, STALE_DATA, AGE))
        with closing(sqlite3.connect(path)) as db, db:
            for column in ("refused_by", "refused_value", "refused_limit"):
                db.execute(f"ALTER TABLE orders DROP COLUMN {column}")
        assert refusals_of(path) == [(3, Refusal(STALE_DATA))]

    def test_a_row_that_makes_no_sense(self, path: Path) -> None:
        store(path, new_run(path, push=True), *ticks(1, 4), refused(3, STALE_DATA, AGE))
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("UPDATE orders SET refused_limit = NULL")
        with pytest.raises(ConfigError, match=r"x\.db: table orders, row with id 1: "):
            refusals_of(path)

    def test_are_asked_for_by_ascending_numbers(self) -> None:
        """Those at ticks without a signal in this replay are passed over."""
        stored = [(3, Refusal("A")), (5, Refusal("B")), (5, Refusal("C")), (9, Refusal("D"))]
        refusals = RecordedRefusals(iter(stored))
        answers = {number: refusals.of(number, 0) for number in (1, 2, 5, 5, 6, 9, 10, 99)}
        assert {number: answer.reason for number, answer in answers.items() if answer} == {5: "B", 9: "D"}
        assert refusals.of(100, 0) is None


class TestRunsOfARestartedFeed:
    def fill(self, path: Path, mode: str) -> None:
        restart = Notice("RESTART", 1, "restarted")
        paper_run(path, "r1", *ticks(1, 3), lost(2, 2), refused(3, STALE_DATA), mode=mode)
        paper_run(path, "other", *ticks(50, 51), mode=mode, source="binance:btcusdt")
        paper_run(path, "r2", replace(restart, ts=3), lost(0, 4), mode=mode)
        paper_run(path, "r3", restart, *ticks(11, 14), lost(4, 5), refused(2, BP_DROP_SIGNAL, run_id="r3"), mode=mode)

    def test_are_one_in_paper(self, path: Path) -> None:
        """Open orders and balance went from one to the next; other feeds have nothing to do with it."""
        self.fill(path, "PAPER")
        assert ticks_of(path, "r3") == ticks_of(path) == [*ticks(1, 3), *ticks(11, 14)]
        places = [(2, "LINK_LOST", 2), (3, "RESTART", 3), (3, "LINK_LOST", 4), (3, "RESTART", 1), (7, "LINK_LOST", 5)]
        assert notices_of(path, "r3") == places
        assert refusals_of(path, "r3") == [(3, Refusal(STALE_DATA)), (5, Refusal(BP_DROP_SIGNAL))]

    def test_up_to_the_chosen_one(self, path: Path) -> None:
        self.fill(path, "PAPER")
        assert ticks_of(path, "r1") == ticks(1, 3)
        assert [ts for _at, _kind, ts in notices_of(path, "r2")] == [2, 3, 4]
        assert ticks_of(path, "other") == ticks(50, 51)

    def test_with_the_ticks_that_are_left(self, path: Path) -> None:
        self.fill(path, "PAPER")
        pruned(path, "r1", 2)
        assert ticks_of(path, "r3") == [*ticks(3, 3), *ticks(11, 14)]
        assert [at for at, *_ in notices_of(path, "r3")] == [0, 1, 1, 1, 5]
        assert [number for number, _refusal in refusals_of(path, "r3")] == [1, 3]
        with found(path, "r3") as (_reader, source):
            assert (source.pruned, source.run_id) == (2, "r3")

    def test_stand_alone_in_shadow(self, path: Path) -> None:
        self.fill(path, "SHADOW")
        assert ticks_of(path, "r3") == ticks(11, 14)
        assert [(at, ts) for at, _kind, ts in notices_of(path, "r3")] == [(0, 1), (4, 5)]
        assert refusals_of(path, "r3") == [(2, Refusal(BP_DROP_SIGNAL))]

    def test_older_files_know_no_feeds(self, path: Path) -> None:
        self.fill(path, "PAPER")
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("ALTER TABLE runs DROP COLUMN feed")
        assert ticks_of(path, "r3") == ticks(11, 14)


def test_only_reads(path: Path) -> None:
    store(path, new_run(path, push=True), *ticks(1, 3), lost(1))
    with closing(connect_readonly(path)) as db:
        before = path.read_bytes()
        source = find_replay_source(db, None)
        list(read_notices(db, source))
    assert path.read_bytes() == before
