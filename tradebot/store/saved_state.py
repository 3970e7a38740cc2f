"""The table `checkpoints`: states that a restart of a push feed continues from, and what was stored after them.

A state covers the ticks of a run up to some number, and everything that they caused: it is stored in the transaction of
those ticks or later. The ticks and notices after it, run again through the same stages, lead to what was stored; so a
restart reads the newest state and the little that follows it, however much the database holds.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from msgspec import Struct
from peewee import SqliteDatabase

from tradebot.core.errors import ConfigError, OverloadError
from tradebot.core.events import Checkpoint, FeedItem, Notice, Side, Tick, TickChunk
from tradebot.core.ids import event_prefix, tick_number_of
from tradebot.execution.risk import Refusal
from tradebot.store.bulk_read import rows_of
from tradebot.store.database import connect_readonly, file_of, reading
from tradebot.store.errors import StorageUnavailable
from tradebot.store.models import CheckpointRow, NoticeRow, RunRow, SignalRow, TickRow, fields_of
from tradebot.store.stored_inputs import input_notices, timing_refusals

STATES_KEPT: Final = 3
"""Of each feed, the newest ones."""
_TICK_FIELDS: Final = fields_of(TickRow, Tick)


class SavedState(Struct, frozen=True):
    """A row of `checkpoints`: the state after the first `ticks_before` ticks of run number `run`, named `run_id`.

    It includes the first `inputs` notices of origin INPUT between the last of these ticks and the next one.
    """

    run: int
    run_id: str
    ticks_before: int
    inputs: int
    state: bytes


class StoredDecision(NamedTuple):
    """What a stored signal says of its tick, by the tick's `number` in the run."""

    number: int
    side: Side
    reason: str


class StoredItem(NamedTuple):
    """Ticks of a run, the first of which is its tick `number` (from 1), or a notice that came before tick `number`.

    `decisions` are the signals of these ticks, in order; `refusals` how some of their ticks were refused for timing.
    """

    run_id: str
    number: int
    item: FeedItem
    decisions: tuple[StoredDecision, ...] = ()
    refusals: tuple[tuple[int, Refusal], ...] = ()


class _Part(Struct, frozen=True):
    """What follows a state in one run: after `covered` of its ticks, and the `inputs` notices after these."""

    run: int
    run_id: str
    ticks: int
    pruned_ticks: int
    first_tick_id: int | None
    last_tick_id: int | None
    covered: int = 0
    inputs: int = 0


def store_state(db: SqliteDatabase, feed_id: int, run: int, checkpoint: Checkpoint) -> None:
    """Enter the state of a checkpoint, if it has one, and delete those that are too many: inside a transaction.

    The same checkpoint again changes nothing. Raises sqlite3 errors as they come.
    """
    if checkpoint.state is None:
        return
    same = (CheckpointRow.run == run) & (CheckpointRow.ticks_before == checkpoint.ticks_before)
    values = {"inputs": checkpoint.inputs, "state": checkpoint.state}
    if CheckpointRow.update(values).where(same).execute(db):
        return
    CheckpointRow.insert(run=run, ticks_before=checkpoint.ticks_before, **values).execute(db)
    RunRow.update(checkpoints=RunRow.checkpoints + 1).where(RunRow.id == run).execute(db)
    too_many = list(_newest(feed_id, CheckpointRow.id, CheckpointRow.run).offset(STATES_KEPT).limit(-1).execute(db))
    for row_id, of_run in too_many:
        CheckpointRow.delete().where(CheckpointRow.id == row_id).execute(db)
        pruned = RunRow.update(pruned_checkpoints=RunRow.pruned_checkpoints + 1)
        pruned.where(RunRow.id == of_run).execute(db)


def newest_state(db: SqliteDatabase, feed_id: int) -> SavedState | None:
    """The state that a restart of the feed continues from. Inside the caller's error handling."""
    fields = CheckpointRow.run, RunRow.run_id, CheckpointRow.ticks_before, CheckpointRow.inputs, CheckpointRow.state
    row: Any = _newest(feed_id, *fields).first(db)
    if row is None:
        return None
    run, run_id, ticks_before, inputs, state = row
    return SavedState(run, run_id, ticks_before, inputs, bytes(state))


def newest_covered(db: SqliteDatabase, feed_id: int) -> tuple[int, int] | None:
    """Run number and `ticks_before` of that state. Inside the caller's error handling."""
    row: Any = _newest(feed_id, CheckpointRow.run, CheckpointRow.ticks_before).first(db)
    return row


def _newest(feed_id: int, *fields: Any) -> Any:
    """Rows of a feed, newest first: the table is small, and `runs` is read by its row id."""
    query = CheckpointRow.select(*fields).join(RunRow, on=(RunRow.id == CheckpointRow.run))
    query = query.where(RunRow.feed == feed_id)
    return query.order_by(CheckpointRow.run.desc(), CheckpointRow.ticks_before.desc()).tuples()


def stored_since(path: Path, run: int, saved: SavedState | None) -> Generator[StoredItem, None, None]:
    """What earlier runs of the feed of run number `run` stored after `saved` (None: all of it), in order.

    Ticks in chunks, and notices of origin INPUT. Memory does not grow with the database. The connection lives from the
    first `next` to `close`. Raises ConfigError (some of it was pruned), OverloadError.
    """
    try:
        with closing(connect_readonly(path)) as db, reading(db):
            for part in _parts(db, run, saved):
                yield from _items(db, part)
    except StorageUnavailable as error:
        raise OverloadError(error.describe(path)) from error


def _parts(db: SqliteDatabase, run: int, saved: SavedState | None) -> list[_Part]:
    feed = RunRow.select(RunRow.feed).where(RunRow.id == run)
    fields = RunRow.id, RunRow.run_id, RunRow.ticks, RunRow.pruned_ticks, RunRow.first_tick_id, RunRow.last_tick_id
    query = RunRow.select(*fields).where((RunRow.feed == feed) & (RunRow.id < run))
    if saved is None:
        return [_Part(*row) for row in query.order_by(RunRow.id).tuples().execute(db)]
    found = []
    for row in query.where(RunRow.id >= saved.run).order_by(RunRow.id).tuples().execute(db):
        part = _Part(*row, *(saved.ticks_before, saved.inputs) if row[0] == saved.run else ())
        if part.pruned_ticks > part.covered:
            raise ConfigError(
                f"database {file_of(db)}: ticks {part.covered + 1} to {part.pruned_ticks} of run {part.run_id} were"
                " deleted, which come after the newest checkpoint, so that open orders and balances are not known;"
                " restore a backup, or use another --db"
            )
        found.append(part)
    return found


def _items(db: SqliteDatabase, part: _Part) -> Iterator[StoredItem]:
    """The ticks and notices of a run, each notice in its place."""
    number = max(part.covered, part.pruned_ticks) + 1
    notices = _inputs(db, part)
    notice = next(notices, None)
    for ticks in _ticks(db, part, number):
        while ticks:
            while notice is not None and notice.ticks_before < number:
                yield StoredItem(part.run_id, number, notice)
                notice = next(notices, None)
            end = len(ticks) if notice is None else min(len(ticks), notice.ticks_before - number + 1)
            found = _decisions(db, part, number, end), _refusals(db, part, number, end)
            yield StoredItem(part.run_id, number, TickChunk(ticks[:end]), *found)
            ticks, number = ticks[end:], number + end
    while notice is not None:
        yield StoredItem(part.run_id, number, notice)
        notice = next(notices, None)


def _ticks(db: SqliteDatabase, part: _Part, number: int) -> Iterator[list[Tick]]:
    """The ticks from `number` on, in chunks."""
    if part.first_tick_id is None or part.last_tick_id is None or number > part.ticks:
        return
    query = TickRow.select(*_TICK_FIELDS).where(TickRow.run == part.run).order_by(TickRow.id)
    if part.last_tick_id - part.first_tick_id + 1 == part.ticks:
        query = query.where(TickRow.id.between(part.first_tick_id + number - 1, part.last_tick_id))
    else:  # another run's lie between them
        query = query.where(TickRow.id.between(part.first_tick_id, part.last_tick_id))
        query = query.limit(-1).offset(number - 1 - part.pruned_ticks)
    for rows in rows_of(db, query):
        yield [Tick(*row) for row in rows]


def _decisions(db: SqliteDatabase, part: _Part, number: int, ticks: int) -> tuple[StoredDecision, ...]:
    """The signals of that many ticks from `number` on: event ids grow with the number of the tick."""
    low, high = event_prefix(part.run_id, number), event_prefix(part.run_id, number + ticks)
    query = SignalRow.select(SignalRow.event_id, SignalRow.kind).order_by(SignalRow.id)
    query = query.where((SignalRow.event_id >= low) & (SignalRow.event_id < high) & (SignalRow.run == part.run))
    found = []
    for event_id, kind in query.tuples().execute(db):
        side, _, reason = kind.partition(":")
        found.append(StoredDecision(tick_number_of(event_id), side, reason))
    return tuple(found)


def _refusals(db: SqliteDatabase, part: _Part, number: int, ticks: int) -> tuple[tuple[int, Refusal], ...]:
    """The refusals for timing of those ticks, by tick number."""
    low, high = event_prefix(part.run_id, number), event_prefix(part.run_id, number + ticks)
    return tuple((stored.number, stored.refusal) for stored in timing_refusals(db, part.run, low, high))


def _inputs(db: SqliteDatabase, part: _Part) -> Iterator[Notice]:
    """The notices of origin INPUT that the state does not include."""
    chunks = input_notices(db, part.run, NoticeRow.ticks_before >= part.covered)
    return islice(chain.from_iterable(chunks), part.inputs, None)
