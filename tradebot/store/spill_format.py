"""The format of a spill file: one JSON array a line. Pure but for `SpillReader`, which reads.

A header `["spill", version, run_id, ticks, signals, orders, trades, notices, order_events]` with the counts that the
database held, then `["t", ...]`, `["s", ...]`, `["o", ...]`, `["n", ...]` with the stored fields of Tick, Signal, Order
(its fills and the breach of a limit last) and Notice, then `["end", n]`. `["x", ...]` is a whole TickOutcome, with such
lines in it, so that a file can be cut between ticks only. The process that writes the file may be killed at any byte: a
last line without its end is not an error. Behind the last line lie the zeros of the reserve.

Lines stand in causal order: every prefix of them can be stored without an effect before its cause.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from msgspec.structs import astuple

from tradebot.core.events import (
    Fill,
    LimitBreach,
    Notice,
    Order,
    OrderChunk,
    OrderEvent,
    Signal,
    SignalChunk,
    StoredEvent,
    StoredTick,
    Tick,
    TickChunk,
    TickOutcome,
)
from tradebot.store.batch import StoredCounts, WriteBatch

FORMAT_VERSION: Final = 4
"""1 had no notices, 2 no breaches of limits, 3 no takers and nothing of PAPER; all are read."""
HEADER_START: Final = b'["spill",'
# A stored event is at most this long as a JSON line, except with extreme symbols and ids.
BYTES_AN_EVENT: Final = 512

_LINE_BYTES_MAX: Final = 16 * 1024 * 1024
_BLOCK_BYTES: Final = 256 * 1024
_END: Final = "end"
_ENCODER: Final = msgspec.json.Encoder()
_TICK_FIELDS: Final = Tick.__struct_fields__
_SIGNAL_FIELDS: Final = tuple(name for name in Signal.__struct_fields__ if name not in ("marks", "halted"))
_CHUNKS: Final[dict[type, Any]] = {Tick: TickChunk, Signal: SignalChunk, Order: OrderChunk}
_ORDER_FIELDS: Final = tuple(name for name in Order.__struct_fields__ if name not in ("fills", "breach"))
_FILL_FIELDS: Final = Fill.__struct_fields__
# How many fields, the first ones, formats 1 to 3 had; today lines are as short where the others are all None.
_FIRST_FIELDS: Final = {_TICK_FIELDS: 6, _ORDER_FIELDS: 10, _FILL_FIELDS: 9}
_BREACH_FIELDS: Final = LimitBreach.__struct_fields__
_NOTICE_FIELDS: Final = Notice.__struct_fields__
_ORDER_EVENT_FIELDS: Final = OrderEvent.__struct_fields__


class SpillHeader(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The first line: the run, and the rows of it that the database held when the spill began."""

    kind: Literal["spill"]
    version: int
    run_id: str
    ticks: int
    signals: int
    orders: int
    trades: int
    notices: int = 0  # format 1 had none
    order_events: int = 0  # formats 1 to 3 had none

    @property
    def counts(self) -> StoredCounts:
        """The rows of the run that the database held."""
        return StoredCounts(**{name: getattr(self, name) for name in StoredCounts.__struct_fields__})


class DamagedSpill(Exception):
    """A line that is whole but not what was written. `line` counts from 1."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line} is damaged or was not written by tradebot: {reason}")
        self.line = line


def in_causal_order(batch: WriteBatch, ticks_before: int) -> list[StoredEvent]:
    """The events of a batch so that none precedes its cause; `ticks_before`: ticks of the run before the batch."""
    ticks: list[Tick | TickOutcome] = [*batch.ticks]
    for index, outcome in batch.outcomes.items():
        ticks[index] = outcome
    notices, signals, orders = _by_themselves(batch)
    events: list[StoredEvent] = []
    at = 0
    for notice in notices:
        until = min(max(at, notice.ticks_before - ticks_before), len(ticks))
        events += ticks[at:until]
        events.append(notice)
        at = until
    return [*events, *ticks[at:], *signals, *orders]


def _by_themselves(batch: WriteBatch) -> tuple[list[Notice], list[Signal], list[Order]]:
    """The notices, signals and orders of a batch that are in no outcome."""
    if not batch.outcomes:
        return batch.notices, batch.signals, batch.orders
    outcomes = batch.outcomes.values()
    within = {id(event) for one in outcomes for event in (*one.notices, *one.signals, *one.orders)}
    return (
        [notice for notice in batch.notices if id(notice) not in within],
        [signal for signal in batch.signals if id(signal) not in within],
        [order for order in batch.orders if id(order) not in within],
    )


def batch_of(events: Sequence[StoredEvent]) -> WriteBatch:
    """The events as a batch, in their order."""
    batch = WriteBatch()
    for kind, some in groupby(events, type):
        if kind in _CHUNKS:
            batch.add(_CHUNKS[kind](some))
        else:
            for event in some:
                batch.add_event(event)
    return batch


def header_line(run_id: str, counts: StoredCounts) -> bytes:
    """The first line of a file of run `run_id`, whose database holds `counts`."""
    return _line(["spill", FORMAT_VERSION, run_id, *astuple(counts)])


def event_lines(events: Sequence[StoredEvent]) -> bytes:
    """The lines of events."""
    return b"".join([_line(_record(event)) for event in events])


def end_line(events: int) -> bytes:
    """The last line of a file of so many events."""
    return _line([_END, events])


def _line(record: list[Any]) -> bytes:
    return _ENCODER.encode(record) + b"\n"


def _record(event: StoredEvent) -> list[Any]:
    """What the database stores of an event."""
    if isinstance(event, Tick):
        return ["t", *_values(event, _TICK_FIELDS)]
    if isinstance(event, Signal):
        return ["s", *_signal_values(event)]
    if isinstance(event, Notice):
        return ["n", *astuple(event)]
    if isinstance(event, Order):
        return ["o", *_order_values(event)]
    return [
        "x",
        event.number,
        _values(event.tick, _TICK_FIELDS),
        [_signal_values(one) for one in event.signals],
        [_order_values(one) for one in event.orders],
        [astuple(one) for one in event.order_events],
        [_values(one, _FILL_FIELDS) for one in event.fills],
        [astuple(one) for one in event.notices],
    ]


def _signal_values(event: Signal) -> list[Any]:
    return [getattr(event, name) for name in _SIGNAL_FIELDS]


def _order_values(event: Order) -> list[Any]:
    breach = None if event.breach is None else astuple(event.breach)
    return [*_values(event, _ORDER_FIELDS), [_values(fill, _FILL_FIELDS) for fill in event.fills], breach]


def _values(event: Tick | Order | Fill, fields: tuple[str, ...]) -> list[Any]:
    values = [getattr(event, name) for name in fields]
    first = _FIRST_FIELDS[fields]
    return values[:first] if all(value is None for value in values[first:]) else values


def _event(record: list[Any]) -> StoredEvent:
    """The event of a line. Raises ValueError (or its subclass, msgspec's ValidationError) if it is not an event."""
    match record:
        case ["t", *values]:
            return _tick(values)
        case ["n", *values]:
            return _notice(values)
        case ["s", *values]:
            return _signal(values)
        case ["o", *values]:
            return _order(values)
        case ["x", int(number), [*tick], [*signals], [*orders], [*order_events], [*fills], [*notices]]:
            return TickOutcome(
                _tick(tick),
                number,
                tuple(map(_signal, signals)),
                tuple(map(_order, orders)),
                tuple(msgspec.convert(_named(_ORDER_EVENT_FIELDS, one), OrderEvent) for one in order_events),
                tuple(msgspec.convert(_named(_FILL_FIELDS, one), Fill) for one in fills),
                tuple(map(_notice, notices)),
            )
    raise ValueError("is not an event")


def _tick(values: list[Any]) -> Tick:
    return msgspec.convert(_named(_TICK_FIELDS, values), StoredTick).as_tick()


def _notice(values: list[Any]) -> Notice:
    return msgspec.convert(_named(_NOTICE_FIELDS, values), Notice)


def _signal(values: list[Any]) -> Signal:
    return msgspec.convert(_named(_SIGNAL_FIELDS, values), Signal)


def _order(values: list[Any]) -> Order:
    match values:
        case [*first, [*fills], ([*_] | None) as breach]:
            named = _named(_ORDER_FIELDS, first)
        case [*first, [*fills]]:  # formats 1 and 2
            named, breach = _named(_ORDER_FIELDS, first), None
        case _:
            raise ValueError("is not an order")
    named["fills"] = [_named(_FILL_FIELDS, fill) for fill in fills]
    named["breach"] = None if breach is None else _named(_BREACH_FIELDS, breach)
    return msgspec.convert(named, Order)


def _named(fields: tuple[str, ...], values: list[Any]) -> dict[str, Any]:
    """The values with the names of their fields: all of these, or the first ones. Raises ValueError."""
    if len(values) == _FIRST_FIELDS.get(fields):
        fields = fields[: len(values)]
    return dict(zip(fields, values, strict=True))


class SpillReader:
    """Reads a spill file from its front through a descriptor of its own, while another thread may append to it.

    Used by one thread. Blocks as the disk does.
    """

    def __init__(self, path: Path) -> None:
        """Open the file and read its header. Raises OSError, DamagedSpill when it does not begin as a spill file."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise DamagedSpill(1, "is a symbolic link") from error
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise DamagedSpill(1, "is not a regular file")
        self._file = os.fdopen(descriptor, "rb", buffering=0)
        self._descriptor = descriptor
        self._buffer = b""
        self._at = 0
        self._read_to = 0
        self._lines = 0
        self.events = 0
        """Events read so far; those that `pass_over` skipped do not count."""
        self.whole = False
        """Whether the end mark was reached: nothing was cut off."""
        try:
            self.header = self._read_header()
            self.pass_over(self.offset)  # what was read with it may be written to later
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the descriptor. Idempotent. Raises OSError."""
        self._file.close()

    def read(self, events_max: int, end: int | None = None) -> list[StoredEvent]:
        """The next events, at most so many; none at the end of what was written, or at the offset `end`.

        Raises OSError; DamagedSpill at a damaged line, once the events before it have been returned.
        """
        events: list[StoredEvent] = []
        try:
            while len(events) < events_max and not self.whole:
                line = self._next_line(end)
                if line is None:
                    break
                self._take(line, events)
                self._lines += 1
        except DamagedSpill:
            if not events:
                raise
        self.events += len(events)
        return events

    def _take(self, line: bytes, events: list[StoredEvent]) -> None:
        """Add the event of a line to `events`. Raises DamagedSpill, after which the line is the next one again."""
        try:
            record = msgspec.json.decode(line, type=list[Any])
            if record == [_END, self.events + len(events)]:
                self.whole = True
            else:
                events.append(_event(record))
        except (ValueError, TypeError) as error:
            self._at -= len(line)
            raise DamagedSpill(self._lines + 1, str(error)) from error

    def pass_over(self, end: int) -> None:
        """Go on at the offset `end` of the file, where a line begins."""
        self._buffer = b""
        self._at = 0
        self._read_to = end

    @property
    def offset(self) -> int:
        """Where the next line begins."""
        return self._read_to - len(self._buffer) + self._at

    def _read_header(self) -> SpillHeader | None:
        """The header; None for a reserve that was never used, or a header that was cut short."""
        line = self._next_line(None)
        if line is None:
            text = self._buffer.partition(b"\0")[0]
            if not text.startswith(HEADER_START[: len(text)]):
                raise DamagedSpill(1, "is not a header")
            return None
        self._lines = 1
        try:
            header = msgspec.json.decode(line, type=SpillHeader)
            if not 1 <= header.version <= FORMAT_VERSION:
                raise ValueError(f"format {header.version} is not supported; this version reads up to {FORMAT_VERSION}")
        except (ValueError, TypeError) as error:
            raise DamagedSpill(1, str(error)) from error
        return header

    def _next_line(self, end: int | None) -> bytes | None:
        """The next line with its newline; None at the end, at zeros, and for a line that was cut short."""
        while True:
            newline = self._buffer.find(b"\n", self._at)
            if newline >= 0:
                line = self._buffer[self._at : newline + 1]
                if b"\0" in line:
                    return None
                self._at = newline + 1
                return line
            rest = self._buffer[self._at :]
            if b"\0" in rest:
                return None
            if len(rest) > _LINE_BYTES_MAX:
                raise DamagedSpill(self._lines + 1, f"more than {_LINE_BYTES_MAX} bytes")
            size = _BLOCK_BYTES if end is None else min(_BLOCK_BYTES, end - self._read_to)
            block = os.pread(self._descriptor, size, self._read_to) if size > 0 else b""
            if not block:
                return None
            self._buffer, self._at = rest + block, 0
            self._read_to += len(block)
