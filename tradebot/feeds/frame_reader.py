"""From frame texts to ticks, for live feeds and their replay alike: adapter, history, duplicates and gaps, order, band.

Pure: the time a frame was received comes with it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from tradebot.config.model import History
from tradebot.core.events import Notice
from tradebot.feeds.base import FeedBatch, Malformed
from tradebot.feeds.exchanges.base import Exchange, ParsedFrame, Unparseable
from tradebot.feeds.frame_order import in_time_order
from tradebot.feeds.price_band import PriceBand, Sifted
from tradebot.feeds.sequence_tracker import SequenceGuard, joined

_DETAIL_CHARS_MAX: Final = 200


class Read(Struct, frozen=True, gc=False):
    """What a frame came to. `parsed` is None for one that could not be understood, which `problem` explains.

    `out_of_band` are the reasons of the trades whose price was refused.
    """

    batch: FeedBatch
    parsed: ParsedFrame | None
    problem: str | None = None
    out_of_band: tuple[str, ...] = ()


class FrameReader:
    """Reads the frames of one source, connection after connection. One thread.

    `make_exchange` gives a fresh adapter for each connection. `guard` None means that frames are taken as they are: a
    plain file of frames is no session, in which a number seen twice would mean a trade sent twice. `band` None: every
    price is accepted. `frames` counts.
    """

    def __init__(
        self,
        make_exchange: Callable[[], Exchange],
        history: History,
        guard: SequenceGuard | None,
        band: PriceBand | None = None,
    ) -> None:
        self._make_exchange = make_exchange
        self._history = history
        self._guard = guard
        self._band = PriceBand(0) if band is None else band
        self.exchange = make_exchange()
        self.frames = 0
        self.malformed_in_a_row = 0

    def fresh_exchange(self) -> Exchange:
        """An adapter for a connection that is not read yet; see `new_connection`."""
        return self._make_exchange()

    def new_connection(self, exchange: Exchange | None = None) -> Exchange:
        """Forget what belonged to the connection before; the new connection's adapter, which may be there already."""
        self.exchange = self._make_exchange() if exchange is None else exchange
        return self.exchange

    def take(self, text: str, received_ms: int) -> Read:
        """Read one frame, received at `received_ms` (Unix ms). Never raises on any text; never blocks."""
        self.frames += 1
        try:
            parsed = self.exchange.parse(text)
        except Unparseable as error:
            return self.refuse(str(error))
        self.malformed_in_a_row = 0
        ticks, guard = parsed.ticks, self._guard
        if not parsed.history and not parsed.skipped:
            if not ticks:
                return Read(_NOTHING, parsed)
            if len(ticks) == 1 and guard is not None and guard.take_next(ticks[0]):
                # Nearly every frame of most exchanges.
                read = Read(FeedBatch(ticks), parsed)
                return read if self._band.take_usual(ticks[0]) else self._sift(read, received_ms)
        keep = self._history == "keep"
        dropped = 0 if keep else len(parsed.history)
        if guard is None:
            ticks = in_time_order(ticks)
            if keep and parsed.history:
                ticks = [*in_time_order(parsed.history), *ticks]
            return Read(FeedBatch(ticks, history_dropped=dropped), parsed)
        taken = guard.take(parsed.history if keep and parsed.history else ticks)
        if keep and parsed.history and ticks:
            taken = joined(taken, guard.take(ticks))
        gaps = (*((0, gap) for gap in guard.pass_over(parsed.skipped)), *taken.gaps)
        notices = tuple((index, Notice("GAP", received_ms, gap.detail, gap.symbol, gap.missing)) for index, gap in gaps)
        notes: tuple[Malformed, ...] = ()
        if taken.refused:
            notes = (Malformed(self.frames, f"{taken.refused} trades of more symbols than feed.max_symbols allows"),)
        batch = FeedBatch(taken.ticks, taken.refused, notes, notices, taken.duplicates, dropped)
        return self._sift(Read(batch, parsed, notes[0].reason if notes else None), received_ms)

    def _sift(self, read: Read, received_ms: int) -> Read:
        """`read` without the trades whose price is out of band."""
        sifted = self._band.sift(read.batch.ticks)
        return read if sifted is None else _sifted(read, sifted, received_ms)

    def refuse(self, reason: str) -> Read:
        """Take note that the frame counted last cannot be understood, for `reason`."""
        self.malformed_in_a_row += 1
        note = Malformed(self.frames, reason[:_DETAIL_CHARS_MAX])
        return Read(FeedBatch([], 1, (note,)), None, note.reason)


def _sifted(read: Read, sifted: Sifted, received_ms: int) -> Read:
    """`read` without the trades whose price was refused."""
    notices = list(read.batch.notices)
    for at, event in sifted.events:
        notices.append((at, Notice("PRICE_BAND", received_ms, event.detail, event.symbol)))
    notices.sort(key=lambda place: place[0])
    moved = tuple((at - bisect_left(sifted.places, at), notice) for at, notice in notices)
    batch = replace(read.batch, ticks=sifted.ticks, notices=moved, out_of_band=len(sifted.refused))
    return replace(read, batch=batch, out_of_band=sifted.refused)


_NOTHING: Final = FeedBatch([])
