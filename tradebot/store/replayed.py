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

import msgspec
from msgspec import Struct
from peewee import SQL, Model, SqliteDatabase, fn

from tradebot.core.errors import ConfigError
from tradebot.core.events import LimitBreach, Notice, Tick, origin_of
from tradebot.core.ids import event_prefix, tick_number_of
from tradebot.execution.risk import Refusal
from tradebot.execution.timing import TIMING_REASONS
from tradebot.store.database import file_of, reading
from tradebot.store.models import NoticeRow, OrderRow, RunRow, fields_of
from tradebot.store.reader import (
    TickReader,
    TickSource,
    as_source,
    check_unchanged,
    find_tick_source,
    later_columns,
    read_ticks,
    rows_of,
)

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
        """The name of the push feed that stored it; empty where there was none."""
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
                yield from _notices_of(db, run, before, source.last_notice)
            before += run.rows


def _notices_of(db: SqliteDatabase, run: TickSource, before: int, last: int) -> Iterator[tuple[int, Notice]]:
    query = NoticeRow.select(NoticeRow.id, *fields_of(NoticeRow, Notice))
    query = query.where((NoticeRow.run == run.no) & (NoticeRow.id <= last)).order_by(NoticeRow.id)
    at = 0
    for index, rows in enumerate(rows_of(db, query)):
        if not index:
            check_unchanged(db, run)
        for row_id, *values in rows:
            try:
                notice = msgspec.convert(dict(zip(Notice.__struct_fields__, values, strict=True)), Notice)
            except ValueError as error:
                raise ConfigError(f"database {file_of(db)}: table notices, row with id {row_id}: {error}") from error
            if origin_of(notice.kind) != "INPUT":
                continue
            at = max(at, notice.ticks_before - run.pruned)
            if at > run.rows:
                return  # it came after ticks that are not part of the replay
            yield before + at, notice


def read_refusals(
    source: ReplaySource, open_db: Callable[[], AbstractContextManager[TickReader]]
) -> Iterator[tuple[int, Refusal]]:
    """The refusals that depended on time, by ascending tick number (from 1, in the replay).

    `open_db` opens the database for each page of them. Raises ConfigError, and what `open_db` raises.
    """
    before = 0
    for run in source.runs:
        after = event_prefix(run.run_id, run.pruned + 1)
        more = run.no is not None
        while more:
            with open_db() as reader:
                page = _refusals_of(reader.db, run, after, source.last_order)
            for number, _event_id, refusal in page:
                yield before + number - run.pruned, refusal
            more = len(page) == PAGE_ROWS
            if more:
                after = page[-1][1]
        before += run.rows


def _refusals_of(db: SqliteDatabase, run: TickSource, after: str, last: int) -> list[tuple[int, str, Refusal]]:
    """The refusals of orders whose ids follow `after`, at most PAGE_ROWS: tick number in the run, id, refusal."""
    with reading(db):
        present = {column.name for column in db.get_columns("orders")}
        numbers = OrderRow.refused_by, OrderRow.refused_value, OrderRow.refused_limit
        breach = [field if field.column_name in present else SQL("NULL") for field in numbers]
        # Ids are in the order of their ticks, row ids are not: two threads stored them.
        high = event_prefix(run.run_id, run.pruned + run.rows + 1)
        of_ids = (OrderRow.event_id > after) & (OrderRow.event_id < high) & (OrderRow.run == run.no)
        query = OrderRow.select(OrderRow.id, OrderRow.event_id, OrderRow.reason, *breach)
        query = query.where(of_ids & OrderRow.reason.in_(TIMING_REASONS) & (OrderRow.id <= last))
        rows = list(query.order_by(OrderRow.event_id).limit(PAGE_ROWS).tuples().execute(db))
        check_unchanged(db, run)
    found = []
    for row_id, event_id, reason, key, value, limit in rows:
        try:
            number = tick_number_of(event_id)
            stored = None if key is None else msgspec.convert((key, value, limit), _Breach).as_breach()
        except (ValueError, IndexError) as error:
            raise ConfigError(f"database {file_of(db)}: table orders, row with id {row_id}: {error}") from error
        found.append((number, event_id, Refusal(reason, stored)))
    return found


class _Breach(Struct, array_like=True):
    """The stored columns of a breach."""

    limit_key: str
    value: float
    limit: float

    def as_breach(self) -> LimitBreach:
        return LimitBreach(self.limit_key, self.value, self.limit)


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
