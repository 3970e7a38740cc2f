"""What a replay of stored runs reads: their ticks, and what they met besides ticks.

That is the notices of origin INPUT (links, gaps, halts, restarts) and the refusals that depended on time: with these, a
replay decides as the runs did. Positions and tick numbers are those of the replay, which has the ticks that were not
pruned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Final

from msgspec import Struct
from peewee import Model, SqliteDatabase, fn

from tradebot.core.events import Notice, Tick
from tradebot.core.ids import event_prefix
from tradebot.execution.risk import Refusal
from tradebot.store.database import reading
from tradebot.store.models import NoticeRow, OrderRow, RunRow
from tradebot.store.reader import (
    TickReader,
    TickSource,
    as_source,
    check_unchanged,
    find_tick_source,
    later_columns,
    read_ticks,
)
from tradebot.store.stored_inputs import StoredRefusal, input_notices, timing_refusals

PAGE_ROWS: Final = 1000
"""Refusals are read so many at a time, each time on a new connection: none stays open while nothing is refused."""

_CHAINED_MODE: Final = "PAPER"


class ReplaySource(Struct, frozen=True):
    """The runs of a replay, oldest first: the chosen one, and in PAPER those before it that a restart continued.

    Of a run that is still being written, what is stored after this was found is not read: `last_notice` and
    `last_order` are the newest row ids then.
    """

    runs: tuple[TickSource, ...]
    last_notice: int
    last_order: int

    @property
    def run_id(self) -> str:
        """The chosen run."""
        return self.runs[-1].run_id

    @property
    def feed(self) -> str:
        """The name of the push feed that stored it; empty for other runs."""
        return self.runs[-1].feed

    @property
    def rows(self) -> int:
        """The ticks of the replay."""
        return sum(run.rows for run in self.runs)

    @property
    def pruned(self) -> int:
        """How many ticks of the runs were pruned."""
        return sum(run.pruned for run in self.runs)


def find_replay_source(db: SqliteDatabase, run_id: str | None) -> ReplaySource:
    """The run `run_id`, or the newest that has ticks, with the runs that it continued.

    Raises ConfigError naming what there is, StorageUnavailable.
    """
    chosen = find_tick_source(db, run_id)
    with reading(db):
        return ReplaySource((*_continued(db, chosen), chosen), _newest(db, NoticeRow), _newest(db, OrderRow))


def _continued(db: SqliteDatabase, chosen: TickSource) -> list[TickSource]:
    """The earlier runs of a PAPER run's feed: open orders and balance went from one to the next.

    A SHADOW run is replayed alone.
    """
    if chosen.no is None or "feed" not in {column.name for column in db.get_columns("runs")}:
        return []
    row: Any = RunRow.select(RunRow.mode, RunRow.feed).where(RunRow.id == chosen.no).tuples().get(db)
    mode, feed = row
    if mode != _CHAINED_MODE or feed is None:
        return []
    query = RunRow.select(RunRow.id, RunRow.run_id, RunRow.ticks, *later_columns(db))
    earlier = query.where((RunRow.feed == feed) & (RunRow.id < chosen.no)).order_by(RunRow.id)
    return [as_source(db, row) for row in earlier.tuples().execute(db)]


def _newest(db: SqliteDatabase, model: type[Model]) -> int:
    if model._meta.table_name not in db.get_tables():
        return 0
    return int(model.select(fn.MAX(model._meta.fields["id"])).scalar(db) or 0)


def read_all_ticks(db: SqliteDatabase, source: ReplaySource) -> Iterator[list[Tick]]:
    """The ticks of all runs, as `reader.read_ticks`."""
    for run in source.runs:
        yield from read_ticks(db, run)


def read_notices(db: SqliteDatabase, source: ReplaySource) -> Iterator[tuple[int, Notice]]:
    """The notices of origin INPUT in their order, each with the number of ticks of the replay that precede it.

    Those from before the first tick that is left come first: a halt among them still holds. Raises ConfigError (a row
    is no notice, or a run was pruned since it was found), StorageUnavailable.
    """
    if not source.last_notice:
        return
    before = 0
    with reading(db):
        for run in source.runs:
            if run.no is not None:
                for at, notice in _notices_of(db, run, run.no, source.last_notice):
                    yield before + at, notice
            before += run.rows


def _notices_of(db: SqliteDatabase, run: TickSource, no: int, last: int) -> Iterator[tuple[int, Notice]]:
    """The notices of run number `no`, each with how many of the ticks that are left precede it."""
    at = 0
    for index, notices in enumerate(input_notices(db, no, NoticeRow.id <= last)):
        if not index:
            check_unchanged(db, run)
        for notice in notices:
            at = max(at, notice.ticks_before - run.pruned)
            if at > run.rows:
                return  # it came after ticks that are not part of the replay
            yield at, notice


def read_refusals(
    source: ReplaySource, open_db: Callable[[], AbstractContextManager[TickReader]]
) -> Iterator[tuple[int, Refusal]]:
    """The refusals that depended on time, by ascending tick number (from 1, in the replay).

    `open_db` opens the database for each page of them. Raises ConfigError, and what `open_db` raises.
    """
    before = 0
    for run in source.runs:
        if run.no is not None:
            for number, _order_id, refusal in _refusals_of(run, run.no, source.last_order, open_db):
                yield before + number - run.pruned, refusal
        before += run.rows


def _refusals_of(
    run: TickSource, no: int, last: int, open_db: Callable[[], AbstractContextManager[TickReader]]
) -> Iterator[StoredRefusal]:
    """The refusals at the ticks of run number `no` that are left; `last` is the newest row id to read."""
    after, end = (event_prefix(run.run_id, run.pruned + number) for number in (1, run.rows + 1))
    while True:
        with open_db() as reader, reading(reader.db):
            page = timing_refusals(reader.db, no, after, end, last, PAGE_ROWS)
            check_unchanged(reader.db, run)
        yield from page
        if len(page) < PAGE_ROWS:
            return
        after = page[-1].order_id


class RecordedRefusals:
    """The `TimingRefusals` of stored runs, read in step with the replay."""

    def __init__(self, refusals: Iterator[tuple[int, Refusal]]) -> None:
        """`refusals` as from `read_refusals`, which is used in the thread that asks."""
        self._rest = refusals
        self._number: float = 0
        self._refusal: Refusal | None = None

    def of(self, number: int, ts: int) -> Refusal | None:
        """As `TimingRefusals.of`."""
        while self._number < number:
            self._number, self._refusal = next(self._rest, (math.inf, None))
        return self._refusal if self._number == number else None
