"""Reading runs back: the ticks that a replay reads, and last signals for `prune` of what schema 3 left."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from peewee import SQL, SqliteDatabase, fn

from tradebot.core.errors import ConfigError, OverloadError
from tradebot.core.events import Side, StoredTick, Tick, TickChunk
from tradebot.core.ids import tick_number_of
from tradebot.store.bulk_read import rows_of
from tradebot.store.database import connect_readonly, file_of, reading
from tradebot.store.errors import StorageUnavailable
from tradebot.store.models import FeedRow, RunRow, SignalRow, TickRow, of_runs
from tradebot.store.older_positions import read_sides
from tradebot.store.runs import RunRecord


class TickSource(Struct, frozen=True):
    """The ticks of one run (or, in a file of the original system, all ticks); the first `pruned` ones are gone.

    `feed` is the name of the push feed that stored them (`feed_identity.feed_name`); empty for other runs.
    """

    run_id: str
    rows: int
    no: int | None
    pruned: int = 0
    feed: str = ""
    pruned_notices: int = 0


class TickReader:
    """Reads runs on one connection, in the thread that opened it."""

    def __init__(self, db: SqliteDatabase) -> None:
        self.db = db

    def find(self, run_id: str | None) -> TickSource:
        """As `find_tick_source`."""
        return find_tick_source(self.db, run_id)

    def ticks(self, source: TickSource) -> Iterator[list[Tick]]:
        """As `read_ticks`."""
        return read_ticks(self.db, source)


@contextmanager
def open_reader(path: Path) -> Iterator[TickReader]:
    """A reader of the database at `path`, closed at the end. Raises ConfigError, StorageUnavailable."""
    db = connect_readonly(path)
    try:
        yield TickReader(db)
    finally:
        db.close()


@contextmanager
def reopen_reader(path: Path) -> Iterator[TickReader]:
    """Like `open_reader`, for what was read or opened a moment ago: a failure now is one of the disk, and can pass.

    Raises ConfigError, OverloadError.
    """
    try:
        with open_reader(path) as reader:
            yield reader
    except StorageUnavailable as error:
        raise OverloadError(error.describe(path)) from error


def stored_ticks(path: Path, record: RunRecord) -> Generator[Tick, None, None]:
    """The ticks stored of one run, on a connection that lives from the first `next` to `close`.

    Raises ConfigError, OverloadError.
    """
    with reopen_reader(path) as reader:
        for chunk in reader.ticks(TickSource(record.run_id, record.counts.ticks, record.no)):
            yield from chunk


def find_tick_source(db: SqliteDatabase, run_id: str | None) -> TickSource:
    """The run to replay: `run_id`, or the newest that has ticks.

    Raises ConfigError naming what there is, StorageUnavailable.
    """
    with reading(db):
        tables = set(db.get_tables())
        if "ticks" not in tables:
            raise ConfigError(f"database {file_of(db)}: has no table ticks: not a tradebot database")
        runs = []
        if "runs" in tables:
            query = RunRow.select(RunRow.id, RunRow.run_id, RunRow.ticks, *later_columns(db))
            runs = list(query.order_by(RunRow.id.desc()).tuples().execute(db))
        if run_id is not None:
            for row in runs:
                if row[1] == run_id:
                    return _run_source(db, row)
            known = ", ".join(row[1] for row in runs[:10]) or "none"
            raise ConfigError(f"database {file_of(db)}: holds no run {run_id}; newest runs: {known}")
        for row in runs:
            if row[2] > row[3]:
                return _run_source(db, row)
        if "run" in {column.name for column in db.get_columns("ticks")}:
            rows = int(TickRow.select().where(TickRow.run.is_null()).count(db))
        else:
            rows = int(db.execute_sql('SELECT COUNT(*) FROM "ticks"').fetchone()[0])
    if not rows:
        raise ConfigError(f"database {file_of(db)}: holds no ticks to replay; name a file with --replay-file")
    return TickSource("original", rows, None)


def later_columns(db: SqliteDatabase) -> tuple[Any, ...]:
    """How many ticks and notices of a run were pruned, and its feed.

    Files of earlier schemas are read as they are: they know nothing of pruning, nor of feeds.
    """
    present = {column.name for column in db.get_columns("runs")}
    fields = ((RunRow.pruned_ticks, "0"), (RunRow.pruned_notices, "0"), (RunRow.feed, "NULL"))
    return tuple(field if field.column_name in present else SQL(absent) for field, absent in fields)


def as_source(db: SqliteDatabase, row: tuple[int, str, int, int, int, int | None]) -> TickSource:
    """The ticks that are left of a run: of its id, name and ticks, and `later_columns`."""
    no, name, stored, pruned, pruned_notices, feed_id = row
    feed = None if feed_id is None else FeedRow.select(FeedRow.name).where(FeedRow.id == feed_id).scalar(db)
    return TickSource(name, max(0, stored - pruned), no, pruned, feed or "", pruned_notices)


def _run_source(db: SqliteDatabase, row: tuple[int, str, int, int, int, int | None]) -> TickSource:
    source = as_source(db, row)
    if source.pruned and not source.rows:
        raise ConfigError(
            f"database {file_of(db)}: all {source.pruned} ticks of run {source.run_id} were pruned; nothing to replay"
        )
    return source


class _Row(StoredTick, array_like=True, frozen=True, gc=False):
    """A tick as a row of the query: what the conversion of rows checks them against."""


def read_ticks(db: SqliteDatabase, source: TickSource) -> Iterator[list[Tick]]:
    """The source's ticks in arrival order, in chunks.

    Raises ConfigError (a row is no tick, or the source was pruned since it was found), StorageUnavailable.
    """
    with reading(db):
        present = {column.name for column in db.get_columns("ticks")}
        fields: list[Any] = [TickRow.symbol, TickRow.price, TickRow.volume, TickRow.ts]
        later: tuple[Any, ...] = TickRow.event_id, TickRow.seq, TickRow.taker
        fields += [field if field.column_name in present else SQL("NULL") for field in later]
        query = TickRow.select(*fields).order_by(TickRow.id)
        if source.no is not None:
            span: Any = RunRow.select(RunRow.first_tick_id, RunRow.last_tick_id).where(RunRow.id == source.no)
            ids = span.tuples().first(db) or (0, 0)  # deleted since: reported as soon as no row is found
            query = query.where((TickRow.run == source.no) & TickRow.id.between(*ids))
        elif "run" in present:
            query = query.where(TickRow.run.is_null())
        # No more than were counted: the run may still be written, and what is replayed is what was hashed.
        query = query.limit(source.rows)
        done = 0
        for rows in rows_of(db, query):
            if not done:
                check_unchanged(db, source)
            try:
                ticks = _ticks(rows)
            except ValueError as error:
                index, what = _first_bad(rows)
                [(row_id,)] = query.select(TickRow.id).offset(done + index).limit(1).tuples().execute(db)
                raise ConfigError(f"database {file_of(db)}: table ticks, row with id {row_id}: {what}") from error
            done += len(rows)
            yield ticks
        if not done and source.rows:
            check_unchanged(db, source)


def check_unchanged(db: SqliteDatabase, source: TickSource) -> None:
    """What is replayed must be what was hashed. Sees the same moment as the statement that is being read.

    Raises ConfigError.
    """
    if source.no is None:
        return
    pruned = RunRow.select(*later_columns(db)[:2]).where(RunRow.id == source.no).tuples().first(db)
    if pruned != (source.pruned, source.pruned_notices):
        raise ConfigError(
            f"database {file_of(db)}: run {source.run_id} was pruned while it was read; replay it again, or a backup"
        )


def _ticks(rows: list[tuple[Any, ...]]) -> list[Tick]:
    """Rows as ticks, a million a second: column by column. Raises ValueError when one of them is no tick."""
    valid = msgspec.convert(rows, list[_Row])
    prices, volumes = [row.price for row in valid], [row.volume for row in valid]
    if math.inf in (max(prices), max(volumes)):  # all other values out of range are found by the conversion
        raise ValueError("a price or volume is not finite")
    symbols, times = [row.symbol for row in valid], [row.ts for row in valid]
    event_ids, seqs, takers = [row.event_id for row in valid], [row.seq for row in valid], [row.taker for row in valid]
    if {*event_ids, *seqs, *takers} == {None}:
        ticks = list(map(Tick, symbols, prices, volumes, times))
        return TickChunk(ticks, symbols[0]) if len(set(symbols)) == 1 else ticks
    return list(map(Tick, symbols, prices, volumes, times, event_ids, seqs, takers))


def _first_bad(rows: list[tuple[Any, ...]]) -> tuple[int, str]:
    """Index of the first row that is no tick, and why, with the name of the column. One of `rows` must be bad."""
    for index, row in enumerate(rows):
        try:
            msgspec.convert(dict(zip(Tick.__struct_fields__, row, strict=True)), StoredTick)
            _ticks([row])
        except ValueError as error:
            return index, str(error)
    raise AssertionError("all rows are ticks")


def last_signals(db: SqliteDatabase, first_ids: dict[int, int | None]) -> dict[str, tuple[Side, int]]:
    """Per symbol: side of its newest signal, and the row id of its tick (whose number is in the event id)."""
    newest = SignalRow.select(fn.MAX(SignalRow.id)).where(of_runs(SignalRow, first_ids)).group_by(SignalRow.symbol)
    query = SignalRow.select(SignalRow.symbol, SignalRow.kind, SignalRow.event_id, SignalRow.run)
    found: dict[str, tuple[Side, int]] = {}
    for rows in rows_of(db, query.where(SignalRow.id.in_(newest))):
        for symbol, kind, event_id, run in rows:
            before = tick_number_of(event_id) - 1
            found[symbol] = (kind.split(":", 1)[0], (first_ids[run] or 0) + before)
    for symbol, side in read_sides(db, list(first_ids)).items():
        found.setdefault(symbol, (side, 0))  # pruned, so that all ticks there are came after it
    return found
