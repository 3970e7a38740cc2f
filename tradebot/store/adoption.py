"""Adoption: a start stores what an earlier run left in the spill file. What cannot be stored is set aside by name.

The counts in the header and those in the database decide, event by event, what is stored already. Nothing is stored out
of order: each table of a run stays a prefix of what the run produced. A start is never refused because of a spill file
that cannot be placed: the file is renamed to DATABASE.spill.orphan-RUN, and what was wrong with it is reported.
"""

from __future__ import annotations

import glob
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import astuple
from peewee import IntegrityError, SqliteDatabase

from tradebot.core.events import Notice, Order, Signal, StoredEvent, Tick, TickOutcome
from tradebot.core.private_files import sync_directory
from tradebot.store.batch import StoredCounts, WriteBatch
from tradebot.store.errors import os_failure, storage_errors
from tradebot.store.models import RunRow
from tradebot.store.policy import MAX_BATCH_EVENTS
from tradebot.store.runs import counts_of
from tradebot.store.spill_format import DamagedSpill, SpillHeader, SpillReader, batch_of
from tradebot.store.writer import insert_batch

_ORPHANS_MAX: Final = 10_000
_UNKNOWN_RUN: Final = "unknown"


class Orphan(Struct, frozen=True):
    """A spill file that could not be placed, or not to its end: where it is now, whose it is, and why."""

    path: Path
    run_id: str | None
    reason: str


class Adopted(Struct, frozen=True):
    """What was done with a spill file. `whole` is False when its writing was cut short.

    `events` were stored, `already_stored` the database held. With an `orphan`, the file was set aside after that.
    """

    run_id: str
    events: int
    already_stored: int
    whole: bool
    orphan: Orphan | None = None


class _Unplaceable(Exception):
    """Why no event of the file can be stored in this database."""


def adopt(db: SqliteDatabase, path: Path) -> Adopted | None:
    """Store what an earlier run spilled, then delete the file; None when there is nothing.

    Rows that the database holds already are passed over, so that an adoption that was cut short is completed by the
    next one. Raises StorageUnavailable when the database or the disk fails, ConfigError when the file may not be
    touched; the file stays in both cases. Blocks as long as the disk takes; memory does not grow with the file.
    """
    try:
        try:
            reader = SpillReader(path)
        except FileNotFoundError:
            return None
        except DamagedSpill as error:
            return Adopted(_UNKNOWN_RUN, 0, 0, False, _set_aside(path, None, f"{error}; it is not a spill file"))
        with closing(reader):
            return _adopt(db, path, reader)
    except OSError as error:
        raise os_failure(error, f"spill file {path}: cannot be stored in the database") from error


def orphans(db_path: Path) -> list[Path]:
    """The spill files beside a database that were set aside. Raises OSError."""
    name = glob.escape(db_path.name)
    return sorted(db_path.parent.glob(f"{name}.spill.orphan-*"))


def _adopt(db: SqliteDatabase, path: Path, reader: SpillReader) -> Adopted | None:
    header = reader.header
    if header is None:
        path.unlink(missing_ok=True)
        return None
    stored, passed, reason = 0, 0, None
    try:
        for added, held in _stored(db, reader, header):
            stored += added
            passed += held
    except (_Unplaceable, DamagedSpill) as error:
        reason = str(error)
    if reason is None:
        path.unlink(missing_ok=True)
        return Adopted(header.run_id, stored, passed, reader.whole)
    return Adopted(header.run_id, stored, passed, False, _set_aside(path, header.run_id, reason))


def _stored(db: SqliteDatabase, reader: SpillReader, header: SpillHeader) -> Iterator[tuple[int, int]]:
    """Store the file block by block: of each, how many events were added and how many the database held.

    Raises _Unplaceable, DamagedSpill, StorageUnavailable, OSError.
    """
    before = header.counts
    while True:
        with storage_errors(), db.atomic("IMMEDIATE"):
            row = RunRow.select().where(RunRow.run_id == header.run_id).dicts().first(db)
            if row is None:
                raise _Unplaceable(f"the database has no run {header.run_id}: the file belongs to another database")
            held = counts_of(row)
            if any(now < then for now, then in zip(astuple(held), astuple(before), strict=True)):
                raise _Unplaceable(
                    f"it continues after {before.ticks} ticks of run {header.run_id}, but the database has lost some of"
                    f" the {before.rows} rows before it and holds {held.rows} (after a power loss, or an older copy)"
                )
            events = reader.read(MAX_BATCH_EVENTS)
            batch = _rest(events, before, held)
            if batch.events:
                try:
                    insert_batch(db, row["id"], batch, held.plus(batch))
                except (IntegrityError, sqlite3.IntegrityError) as error:
                    raise _Unplaceable(f"its rows do not match those of run {header.run_id}: {error}") from error
        if not events:
            return
        before = before.plus(batch_of(events))
        yield batch.events, len(events) - batch.events


def _rest(events: list[StoredEvent], before: StoredCounts, held: StoredCounts) -> WriteBatch:
    """The events after `before` that are not in the database yet: each table holds a prefix of the run."""
    skip: Counter[type] = Counter(
        {
            Tick: held.ticks - before.ticks,
            Signal: held.signals - before.signals,
            Order: held.orders - before.orders,
            Notice: held.notices - before.notices,
        }
    )
    fresh: list[StoredEvent] = []
    for event in events:
        kind = Tick if isinstance(event, TickOutcome) else type(event)
        if skip[kind] <= 0:
            fresh.append(event)
        elif isinstance(event, TickOutcome):  # stored whole, or not at all
            skip.subtract(map(type, (event.tick, *event.signals, *event.orders, *event.notices)))
        else:
            skip[kind] -= 1
    return batch_of(fresh)


def _set_aside(path: Path, run_id: str | None, reason: str) -> Orphan:
    """Give the file a name that no start adopts. Raises OSError."""
    run = re.sub(r"[^A-Za-z0-9._:-]", "_", _UNKNOWN_RUN if run_id is None else run_id)[:64]
    for number in range(1, _ORPHANS_MAX):
        target = path.with_name(f"{path.name}.orphan-{run}" + (f"-{number}" if number > 1 else ""))
        # Nobody else renames here: the caller holds the database's lock.
        if not target.is_symlink() and not target.exists():
            path.rename(target)
            sync_directory(path.parent)
            return Orphan(target, run_id, reason)
    raise OSError(f"{_ORPHANS_MAX} files are set aside already; move or delete them")
