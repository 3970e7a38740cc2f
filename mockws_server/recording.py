"""Recorded sessions: ticks, raw frames or captures, one per line, and when each is due. Pure, except for its input.

A line is a record of a capture (with the time `received_ms`), a tick (with the time `ts`), or any other text: a raw
frame without a time; those are sent at UNTIMED_PER_S per second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from tradebot.core.events import Tick, as_unix_ms
from tradebot.feeds.capture_file import CaptureHeader, Record, frame_of_line
from tradebot.feeds.exchanges.base import Unparseable
from tradebot.feeds.replay.decompress import Damaged
from tradebot.feeds.replay.line_splitter import BOM, LINE_BYTES_MAX, TOO_LONG, LineCutter

UNTIMED_PER_S: Final = 100
"""The rate of lines without a time, per second at `realtime`."""

FRAMES_AT_ONCE_MAX: Final = 500


class RecordedMessage(NamedTuple):
    """One recorded message, and the time of its arrival (Unix ms) if known."""

    data: bytes
    at_ms: int | None


_tick: Final = msgspec.json.Decoder(Tick)


def recorded(line: bytes) -> RecordedMessage | None:
    """The message in a line (without its LF); None for a blank line or the header of a capture. Raises Unparseable."""
    if len(line) > LINE_BYTES_MAX:
        raise Unparseable(TOO_LONG)
    line = line.strip()
    if not line:
        return None
    found = frame_of_line(line)
    if isinstance(found, CaptureHeader):
        return None
    if isinstance(found, Record):
        return RecordedMessage(found.text.encode(), found.received_ms)
    try:
        return RecordedMessage(line, as_unix_ms(_tick.decode(line).ts))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return RecordedMessage(line, None)


def messages(pieces: Iterable[bytes], complain: Callable[[int, str], None]) -> Iterator[RecordedMessage | None]:
    """The messages in the (decompressed) pieces of a file; None if no further message is available yet.

    `complain` is called with the number (from 1) of each skipped line and the reason. Blocks where `pieces` does.
    """
    cutter, number = LineCutter(), 0

    def read(line: bytes) -> RecordedMessage | None:
        nonlocal number
        number += 1
        try:
            return recorded(line.removeprefix(BOM) if number == 1 else line)
        except Unparseable as error:
            complain(number, str(error))
            return None

    try:
        for piece in pieces:
            if not piece:
                yield None
            cut = cutter.feed(piece)
            for line in cut.block.split(b"\n")[:-1]:
                if (found := read(line)) is not None:
                    yield found
            if cut.too_long:
                number += 1
                complain(number, TOO_LONG)
    except Damaged as error:
        complain(number + 1, str(error))
        return
    rest = cutter.rest()
    if rest and (found := read(rest)) is not None:
        yield found


class RecordingSchedule:
    """When each recorded message is due, like `script.ScriptSchedule`. `start_s` is on any clock that counts seconds.

    `speed`: a multiple of real time, None: as fast as possible. The first message is due immediately, each other one as
    much later as it was recorded later; one older than its predecessor is due together with it. Calls may block where
    the source of the messages does.
    """

    def __init__(self, source: Iterator[RecordedMessage | None], speed: float | None, start_s: float) -> None:
        self._source = source
        self._speed = speed
        self._start_s = self._due_s = start_s
        self._first_ms: int | None = None
        self._waiting: RecordedMessage | None = None
        self._over = False
        self.untimed = 0
        """The number of messages without a time so far."""

    def next_at(self) -> float | None:
        """When the next message is due; None: no more messages. If none is available yet: the time of the last one."""
        self._fetch()
        return None if self._over else self._due_s

    def due(self, now_s: float) -> list[bytes]:
        """The messages due at `now_s`, in order, at most FRAMES_AT_ONCE_MAX."""
        found: list[bytes] = []
        while len(found) < FRAMES_AT_ONCE_MAX and self._fetch() and self._waiting is not None and self._due_s <= now_s:
            found.append(self._waiting.data)
            self._waiting = None
        return found

    def _fetch(self) -> bool:
        """Fetch the next message unless one is waiting; False if none is available (yet)."""
        if self._waiting is None and not self._over:
            try:
                self._waiting = next(self._source)
            except StopIteration:
                self._over = True
                return False
            if self._waiting is not None:
                self._schedule(self._waiting)
        return self._waiting is not None

    def _schedule(self, message: RecordedMessage) -> None:
        self.untimed += message.at_ms is None
        if self._speed is None:
            return
        if message.at_ms is None:
            self._due_s += 1 / (UNTIMED_PER_S * self._speed) if self._first_ms is None and self.untimed > 1 else 0.0
            return
        if self._first_ms is None:
            self._first_ms = message.at_ms
        self._due_s = self._start_s + (message.at_ms - self._first_ms) / (1000 * self._speed)
