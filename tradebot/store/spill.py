"""The spill file beside the database: where accepted events go when the database stays locked or full.

Its room is reserved at start (allocated, filled with zeros), so that a disk that fills up later cannot take it away.
Format: one JSON array a line: a header `["spill", version, run_id, ticks, signals, orders, trades, notices]` with the
counts the database held, then `["t", ...]`, `["s", ...]`, `["o", ...]`, `["n", ...]` with the stored fields of Tick,
Signal, Order (the last of an order are its fills) and Notice, then `["end", n]`. Whoever writes it may be killed at any
byte: a last line without its end is no error.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final, Literal

import msgspec
from msgspec.structs import astuple
from peewee import SqliteDatabase

from tradebot.events import Event, Fill, Notice, Order, Signal, Tick
from tradebot.exits import ConfigError
from tradebot.private_files import open_private
from tradebot.store.batch import Batch, StoredCounts
from tradebot.store.database import beside
from tradebot.store.errors import storage_errors
from tradebot.store.models import RunRow
from tradebot.store.runs import counts_of
from tradebot.store.writer import insert_batch

FORMAT_VERSION: Final = 2
# A stored event is at most this long as a JSON line, but for extreme symbols and ids.
BYTES_AN_EVENT: Final = 512
_RESERVE_BYTES_MAX: Final = 64 * 1024 * 1024
_LINE_BYTES_MAX: Final = 1024 * 1024

_ENCODER: Final = msgspec.json.Encoder()
_TICK_FIELDS: Final = Tick.__struct_fields__
_SIGNAL_FIELDS: Final = tuple(name for name in Signal.__struct_fields__ if name != "marks")
_ORDER_FIELDS: Final = Order.__struct_fields__
_FILL_FIELDS: Final = Fill.__struct_fields__
_NOTICE_FIELDS: Final = Notice.__struct_fields__
_HEADER_START: Final = b'["spill",'
_END: Final = "end"


def spill_path(db_path: Path) -> Path:
    """Where the spill file of a database lies."""
    return beside(db_path, ".spill")


class Spill:
    """Appends events to the reserved file. Used by the persist thread; may block as the disk does."""

    def __init__(self, path: Path, reserve_events: int) -> None:
        """Reserve room for `reserve_events` events (bounded). Raises OSError when the disk has no room for it."""
        self.path = path
        self.events = 0
        self.used = False
        self._offset = 0
        self._file: IO[bytes] | None = os.fdopen(open_private(path, os.O_WRONLY | os.O_TRUNC), "wb", buffering=0)
        size = min(_RESERVE_BYTES_MAX, BYTES_AN_EVENT * max(1, reserve_events))
        try:
            os.posix_fallocate(self._file.fileno(), 0, size)
        except OSError:
            self.close()  # what there was room for is given back: the database needs it more
            raise

    def begin(self, run_id: str, counts: StoredCounts) -> None:
        """Write the header. Raises OSError."""
        self._write([["spill", FORMAT_VERSION, run_id, *astuple(counts)]])
        self.used = True

    def append(self, chunk: Sequence[Event]) -> None:
        """Write a chunk of events and have it on disk. Raises OSError: then nothing of it is in the file."""
        self._write([_record(event) for event in chunk])
        self.events += len(chunk)

    def finish(self) -> None:
        """Mark the end, give unused room back, and close. Raises OSError."""
        if self._file is None:
            return
        if self.used:
            self._write([[_END, self.events]])
            self._file.truncate(self._offset)
            os.fsync(self._file.fileno())
        self.close()

    def close(self) -> None:
        """Close; an unused reserve is deleted. Idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None
            if not self.used:
                self.path.unlink(missing_ok=True)

    def _write(self, records: list[list[Any]]) -> None:
        assert self._file is not None
        descriptor, start = self._file.fileno(), self._offset
        view = memoryview(b"".join([_ENCODER.encode(record) + b"\n" for record in records]))
        try:
            while view:
                written = os.pwrite(descriptor, view, self._offset)
                self._offset += written
                view = view[written:]
            os.fdatasync(descriptor)
        except OSError:
            self._offset = start
            with suppress(OSError):
                os.ftruncate(descriptor, start)
            raise


class Adopted(msgspec.Struct, frozen=True):
    """What the adoption of a spill file did, for the log. `whole` is False when its writing was cut short."""

    run_id: str
    events: int
    already_stored: int
    whole: bool


class _Header(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    kind: Literal["spill"]
    version: int
    run_id: str
    ticks: int
    signals: int
    orders: int
    trades: int
    notices: int = 0  # format 1 had none

    @property
    def counts(self) -> StoredCounts:
        return StoredCounts(self.ticks, self.signals, self.orders, self.trades, self.notices)


def adopt(db: SqliteDatabase, path: Path) -> Adopted | None:
    """Store what an earlier run spilled, in one transaction, then delete the file; None when there is nothing.

    Rows that the database holds already are passed over. Raises StorageUnavailable, or ConfigError when the file is
    damaged or does not belong to this database; the file stays in both cases.
    """
    try:
        found = _read(path)
        adopted = None if found is None else _store(db, path, *found)
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"spill file {path}: {error.strerror}; see to it, or move it away") from error
    return adopted


def _store(db: SqliteDatabase, path: Path, header: _Header, events: list[Event], whole: bool) -> Adopted:
    with storage_errors(), db.atomic("IMMEDIATE"):
        row = RunRow.select().where(RunRow.run_id == header.run_id).dicts().first(db)
        if row is None:
            raise ConfigError(
                f"spill file {path}: holds {len(events)} events of run {header.run_id}, which database {db.database}"
                " does not know; put back the database it belongs to, or move it away"
            )
        held = counts_of(row)
        if any(now < then for now, then in zip(astuple(held), astuple(header.counts), strict=True)):
            raise ConfigError(
                f"spill file {path}: begins after {header.ticks} ticks of run {header.run_id}, but database"
                f" {db.database} has lost some of its {header.counts.rows} rows and holds {held.rows} (a power loss, or"
                " an older copy); put back the newest copy, or move the spill file away: its events are lost then,"
                " unless the run is a replay, which --resume completes"
            )
        batch = _rest(events, header.counts, held)
        if batch.events:
            insert_batch(db, row["id"], batch, held.plus(batch))
    return Adopted(header.run_id, batch.events, len(events) - batch.events, whole)


def _record(event: Event) -> list[Any]:
    """What the database stores of an event, as a line of the file."""
    if isinstance(event, Tick):
        return ["t", *astuple(event)]
    if isinstance(event, Signal):
        return ["s", *(getattr(event, name) for name in _SIGNAL_FIELDS)]
    if isinstance(event, Notice):
        return ["n", *astuple(event)]
    return ["o", *astuple(event)[:-1], [astuple(fill) for fill in event.fills]]


def _event(record: list[Any]) -> Event:
    """The event of a line. Raises ValueError (msgspec's ValidationError is one) when it is none."""
    match record:
        case ["t", *values]:
            return msgspec.convert(dict(zip(_TICK_FIELDS, values, strict=True)), Tick)
        case ["n", *values]:
            return msgspec.convert(dict(zip(_NOTICE_FIELDS, values, strict=True)), Notice)
        case ["s", *values]:
            return msgspec.convert(dict(zip(_SIGNAL_FIELDS, values, strict=True)), Signal)
        case ["o", *values, [*fills]]:
            named = [dict(zip(_FILL_FIELDS, fill, strict=True)) for fill in fills]
            return msgspec.convert(dict(zip(_ORDER_FIELDS, [*values, named], strict=True)), Order)
    raise ValueError("is no event")


def waiting_run(path: Path) -> str | None:
    """The run of which events wait in a spill file; None when none do. May be called while it is being written.

    Raises ConfigError when that cannot be told: the file cannot be read, or does not begin as tradebot wrote it.
    """
    try:
        with path.open("rb") as file:
            header = _header(path, file.readline(_LINE_BYTES_MAX))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"spill file {path}: {error.strerror}; see to it, or move it away") from error
    return None if header is None else header.run_id


def _header(path: Path, line: bytes) -> _Header | None:
    """The header; None for a reserve that was never used, or a header that was cut short. Raises ConfigError."""
    text = line.partition(b"\0")[0]
    if not text.endswith(b"\n"):
        if not text.startswith(_HEADER_START[: len(text)]):
            raise ConfigError(f"spill file {path}: is none of tradebot's; move it away")
        return None
    try:
        header = msgspec.json.decode(line, type=_Header)
        if not 1 <= header.version <= FORMAT_VERSION:
            raise ValueError(f"format {header.version}, known here: up to {FORMAT_VERSION}")
    except (ValueError, TypeError) as error:
        raise _not_ours(path, 1, error) from error
    return header


def _not_ours(path: Path, number: int, error: Exception) -> ConfigError:
    return ConfigError(
        f"spill file {path}:{number}: not as tradebot wrote it: {error}; move it away to start without it"
    )


def _read(path: Path) -> tuple[_Header, list[Event], bool] | None:
    """Header and events up to the end or to where writing was cut short; None when nothing was spilled.

    Raises ConfigError at a line that is not what was written, OSError.
    """
    events: list[Event] = []
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with file:
        # Not line by line: after the last written line comes the reserve, megabytes of zeros without an end.
        header = _header(path, file.readline(_LINE_BYTES_MAX))
        if header is None:
            return None
        for number, line in enumerate(iter(lambda: file.readline(_LINE_BYTES_MAX), b""), 2):
            if not line.partition(b"\0")[0].endswith(b"\n"):
                break
            try:
                record = msgspec.json.decode(line, type=list[Any])
                if record == [_END, len(events)]:
                    return header, events, True
                events.append(_event(record))
            except (ValueError, TypeError) as error:
                raise _not_ours(path, number, error) from error
    return header, events, False


def _rest(events: list[Event], before: StoredCounts, held: StoredCounts) -> Batch:
    """The events that are not in the database yet: each table holds a prefix of the run."""
    skip = {
        Tick: held.ticks - before.ticks,
        Signal: held.signals - before.signals,
        Order: held.orders - before.orders,
        Notice: held.notices - before.notices,
    }
    batch = Batch()
    for event in events:
        kind = type(event)
        if skip[kind] > 0:
            skip[kind] -= 1
        else:
            batch.add([event])
    return batch
