"""From frame texts to ticks: adapter, history, duplicates and gaps in one place, for live feeds and their replay alike.

Pure: the time a frame was received comes with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from tradebot.config import History
from tradebot.events import Notice
from tradebot.feeds.base import Batch, Malformed
from tradebot.feeds.exchanges.base import Exchange, Parsed, Unparseable
from tradebot.feeds.frame_order import in_time_order
from tradebot.feeds.sequence import SequenceGuard, joined

_DETAIL_CHARS_MAX: Final = 200


class Read(NamedTuple):
    """What a frame came to. `parsed` is None for one that could not be understood, which `problem` explains."""

    batch: Batch
    parsed: Parsed | None
    problem: str | None = None


class FrameReader:
    """Reads the frames of one source, connection after connection. One thread.

    `make_exchange` gives a fresh adapter for each connection. `guard` None means that frames are taken as they are: a
    plain file of frames is no session, in which a number seen twice would mean a trade sent twice. `frames` counts.
    """

    def __init__(self, make_exchange: Callable[[], Exchange], history: History, guard: SequenceGuard | None) -> None:
        self._make_exchange = make_exchange
        self._history = history
        self._guard = guard
        self.exchange = make_exchange()
        self.frames = 0
        self.malformed_in_a_row = 0

    def new_connection(self) -> Exchange:
        """Forget what belonged to the connection before; the new connection's adapter."""
        self.exchange = self._make_exchange()
        return self.exchange

    def take(self, text: str, received_ms: int) -> Read:
        """Read one frame, received at `received_ms` (Unix ms). Never raises on any text; never blocks."""
        self.frames += 1
        try:
            parsed = self.exchange.parse(text)
        except Unparseable as error:
            return self.refuse(str(error))
        self.malformed_in_a_row = 0
        if not parsed.ticks and not parsed.history and not parsed.skipped:
            return Read(_NOTHING, parsed)
        keep = self._history == "keep"
        dropped = 0 if keep else len(parsed.history)
        if self._guard is None:
            ticks = in_time_order(parsed.ticks)
            if keep and parsed.history:
                ticks = [*in_time_order(parsed.history), *ticks]
            return Read(Batch(ticks, history_dropped=dropped), parsed)
        taken = self._guard.take(parsed.history if keep and parsed.history else parsed.ticks)
        if keep and parsed.history and parsed.ticks:
            taken = joined(taken, self._guard.take(parsed.ticks))
        gaps = (*((0, gap) for gap in self._guard.pass_over(parsed.skipped)), *taken.gaps)
        notices = tuple((index, Notice("GAP", received_ms, gap.detail, gap.symbol, gap.missing)) for index, gap in gaps)
        notes: tuple[Malformed, ...] = ()
        if taken.refused:
            notes = (Malformed(self.frames, f"{taken.refused} trades of more symbols than feed.max_symbols allows"),)
        batch = Batch(taken.ticks, taken.refused, notes, notices, taken.duplicates, dropped)
        return Read(batch, parsed, notes[0].reason if notes else None)

    def refuse(self, reason: str) -> Read:
        """Take note that the frame counted last cannot be understood, for `reason`."""
        self.malformed_in_a_row += 1
        note = Malformed(self.frames, reason[:_DETAIL_CHARS_MAX])
        return Read(Batch([], 1, (note,)), None, note.reason)


_NOTHING: Final = Batch([])
