"""Converts lines of recorded frames to ticks: a capture or a plain file of frames, with an exchange's adapter.

The same result however the input is cut into pieces. Lines are numbered as in a replay of ticks; blank ones are
nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from tradebot.config.model import History
from tradebot.core.errors import ConfigError
from tradebot.feeds.base import NOTES_MAX, FeedBatch, Malformed
from tradebot.feeds.capture_file import CaptureHeader, Record, decode_record, frame_of_line
from tradebot.feeds.exchanges import EXCHANGES
from tradebot.feeds.exchanges.base import Exchange, Unparseable
from tradebot.feeds.frame_reader import FrameReader
from tradebot.feeds.price_band import PriceBand
from tradebot.feeds.replay.line_splitter import BOM, LINE_BYTES_MAX, TOO_LONG, LineCutter
from tradebot.feeds.sequence_tracker import SequenceGuard


def check_first_line(line: bytes, name: str, exchange: str | None) -> None:
    """Raises ConfigError if the first line of the replay file `name` shows that the options do not match the file.

    That is a capture read as ticks (`exchange` None) or as the frames of another exchange, which would only give as
    many malformed lines as it has.
    """
    try:
        found = decode_record(line)
    except Unparseable:
        return  # to be counted in its place
    origin = found.exchange if isinstance(found, CaptureHeader) and found.exchange in EXCHANGES else None
    if isinstance(found, CaptureHeader | Record) and exchange is None:
        told = (
            f"--exchange={origin}"
            if origin
            else "--exchange=NAME, the exchange that sent them (tradebot sources lists the names)"
        )
        raise ConfigError(f"{name}: holds recorded frames, not ticks; add {told}")
    if origin not in (None, exchange):
        raise ConfigError(f"{name}: holds frames recorded from {origin}, not {exchange}; give --exchange={origin}")


class FrameLineDecoder:
    """Has the interface of `tick_lines.LineDecoder`: feed it the bytes of a file in any pieces, then `finish`.

    A capture is a recorded session: its connections are distinguished, and duplicates, gaps and prices out of band are
    found as they were live. Lines of a plain file are taken as they are. With `strict`, decoding ends at the first
    malformed line.
    """

    def __init__(
        self,
        make_exchange: Callable[[], Exchange],
        history: History,
        symbols_max: int,
        *,
        max_price_jump: float = 0,
        strict: bool = False,
    ) -> None:
        self.line = 0
        self._cutter = LineCutter()
        self._plain = FrameReader(make_exchange, history, None)
        self._captured = FrameReader(make_exchange, history, SequenceGuard(symbols_max), PriceBand(max_price_jump))
        self._connection: int | None = None
        self._strict = strict
        self._done = False

    def feed(self, data: bytes) -> FeedBatch:
        """Ticks and malformed lines that `data` completes. Never raises on any input; never blocks."""
        found = FeedBatch([])
        cut = self._cutter.feed(data)
        for line in cut.block.split(b"\n")[:-1]:
            self._read(line, found)
        if cut.too_long:
            self._malformed(TOO_LONG, found)
        return found

    def finish(self, damage: str | None = None) -> FeedBatch:
        """What is left at the end; `damage`: the input broke off here, which counts as one malformed line."""
        found = FeedBatch([])
        rest = self._cutter.rest()
        if damage is None:
            if rest:
                self._read(rest, found)
        else:
            self._malformed(damage, found)
        self._done = True
        return found

    def _read(self, line: bytes, found: FeedBatch) -> None:
        if self._done:
            return
        line = (line.removeprefix(BOM) if self.line == 0 else line).removesuffix(b"\r")
        if len(line) > LINE_BYTES_MAX:
            self._malformed(TOO_LONG, found)
            return
        self.line += 1
        if not line.strip():
            return
        try:
            content = frame_of_line(line)
        except Unparseable as error:
            self._note(str(error), found)
            return
        if isinstance(content, CaptureHeader):
            # A new file, so perhaps a new capture: its connections are numbered from the start again.
            self._connection = None
            return
        if isinstance(content, Record):
            if content.connection != self._connection:
                self._connection = content.connection
                self._captured.new_connection()
            read = self._captured.take(content.text, content.received_ms)
        else:
            read = self._plain.take(content, 0)
        if read.problem is not None:
            self._note(read.problem, found, counted=read.batch.malformed)
        start = len(found.ticks)
        found.notices += tuple((start + index, notice) for index, notice in read.batch.notices)
        found.ticks += read.batch.ticks
        found.duplicates += read.batch.duplicates
        found.history_dropped += read.batch.history_dropped
        found.out_of_band += read.batch.out_of_band

    def _malformed(self, reason: str, found: FeedBatch) -> None:
        if not self._done:
            self.line += 1
            self._note(reason, found)

    def _note(self, reason: str, found: FeedBatch, counted: int = 1) -> None:
        found.malformed += counted
        if len(found.notes) < NOTES_MAX:
            found.notes += (Malformed(self.line, reason),)
        self._done = self._strict
