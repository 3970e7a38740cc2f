"""The spill file beside the database: where accepted events go when the database stays locked or full.

Its room is reserved at start (allocated, filled with zeros), so that a disk that fills up later cannot take it away.
Format: one JSON array a line: a header `["spill", version, run_id, ticks, signals, orders, trades]` with the counts the
database held, then `["t", ...]`, `["s", ...]`, `["o", ...]` with the fields of Tick, Signal and Order, and at the end
`["end", n]`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final

import msgspec
from peewee import SqliteDatabase

from tradebot.events import Event, Order, Signal, Tick
from tradebot.store.batch import Batch, StoredCounts
from tradebot.store.errors import storage_errors
from tradebot.store.models import RunRow
from tradebot.store.writer import insert_batch

FORMAT_VERSION: Final = 1
# A stored event is at most this long as a JSON line, but for extreme symbols and ids.
BYTES_AN_EVENT: Final = 512
_RESERVE_BYTES_MAX: Final = 64 * 1024 * 1024

_ENCODER: Final = msgspec.json.Encoder()
_TAGS: Final[dict[type, str]] = {Tick: "t", Signal: "s", Order: "o"}
_TYPES: Final[dict[str, type]] = {tag: kind for kind, tag in _TAGS.items()}


def spill_path(db_path: Path) -> Path:
    """Where the spill file of a database lies."""
    return db_path.with_name(db_path.name + ".spill")


class Spill:
    """Appends events to the reserved file. Used by the persist thread; may block as the disk does."""

    def __init__(self, path: Path, reserve_events: int) -> None:
        """Reserve room for `reserve_events` events (bounded). Raises OSError when the disk has no room for it."""
        self.path = path
        self.events = 0
        self.used = False
        self._offset = 0
        self._file: IO[bytes] | None = open(path, "wb", buffering=0)  # noqa: SIM115 - open as long as the run
        os.posix_fallocate(self._file.fileno(), 0, min(_RESERVE_BYTES_MAX, BYTES_AN_EVENT * max(1, reserve_events)))

    def begin(self, run_id: str, counts: StoredCounts) -> None:
        """Write the header. Raises OSError."""
        self._write([["spill", FORMAT_VERSION, run_id, counts.ticks, counts.signals, counts.orders, counts.trades]])
        self.used = True

    def append(self, chunk: Sequence[Event]) -> None:
        """Write a chunk of events of one type and have it on disk. Raises OSError."""
        tag = _TAGS[type(chunk[0])]
        self._write([[tag, *msgspec.structs.astuple(event)] for event in chunk])
        self.events += len(chunk)

    def finish(self) -> None:
        """Mark the end, give unused room back, and close. Raises OSError."""
        if self._file is None:
            return
        if self.used:
            self._write([["end", self.events]])
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
        data = b"".join([_ENCODER.encode(record) + b"\n" for record in records])
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file.fileno(), view, self._offset)
            self._offset += written
            view = view[written:]
        os.fdatasync(self._file.fileno())


class Adopted(msgspec.Struct, frozen=True):
    """What the adoption of a spill file did, for the log."""

    run_id: str
    events: int
    already_stored: int
    whole: bool


def adopt(db: SqliteDatabase, path: Path) -> Adopted | None:
    """Store what an earlier run spilled, in one transaction, then delete the file; None when there is nothing.

    Rows that the database holds already are passed over. Raises StorageUnavailable (the file stays).
    """
    try:
        lines = _read_lines(path)
    except FileNotFoundError:
        return None
    if not lines:
        path.unlink(missing_ok=True)
        return None
    header = lines[0]
    before = StoredCounts(*header[3:7])
    events = [_event(record) for record in lines[1:] if record[0] in _TYPES]
    whole = lines[-1] == ["end", len(events)]
    with storage_errors(), db.atomic("IMMEDIATE"):
        row: Any = RunRow.select().where(RunRow.run_id == header[2]).dicts().get(db)
        held = StoredCounts(row["ticks"], row["signals"], row["orders"], row["trades"])
        batch = _rest(events, before, held)
        if batch.events:
            insert_batch(db, row["id"], batch, held.plus(batch))
    path.unlink()
    return Adopted(header[2], batch.events, len(events) - batch.events, whole)


def _read_lines(path: Path) -> list[list[Any]]:
    """Records up to the first torn line; [] for an unused reserve (zeros) or an empty file."""
    records: list[list[Any]] = []
    with path.open("rb") as file:
        for line in file:
            if line.startswith(b"\0") or not line.endswith(b"\n"):
                break
            try:
                record = msgspec.json.decode(line, type=list[Any])
            except (msgspec.DecodeError, UnicodeDecodeError):
                break
            records.append(record)
    if records and (len(records[0]) != 7 or records[0][0] != "spill"):
        return []
    return records


def _event(record: list[Any]) -> Event:
    kind = _TYPES[record[0]]
    fields = dict(zip(kind.__struct_fields__, record[1:], strict=True))  # type: ignore[attr-defined]
    if kind is Order:
        names = _FILL_FIELDS
        fields["fills"] = [
            fill if isinstance(fill, dict) else dict(zip(names, fill, strict=True)) for fill in fields["fills"]
        ]
    event: Event = msgspec.convert(fields, kind)
    return event


_FILL_FIELDS: Final = ("event_id", "order_id", "symbol", "side", "fill_qty", "fill_price", "fees", "ts", "is_shadow")


def _rest(events: list[Event], before: StoredCounts, held: StoredCounts) -> Batch:
    """The events that are not in the database yet: each table holds a prefix of the run."""
    skip = {Tick: held.ticks - before.ticks, Signal: held.signals - before.signals, Order: held.orders - before.orders}
    batch = Batch()
    for event in events:
        kind = type(event)
        if skip[kind] > 0:
            skip[kind] -= 1
        else:
            batch.add([event])
    return batch
