"""Which trades of a live feed are new: duplicates, late ones and gaps, told by the sender's own numbers. Pure.

A `seq` alone decides where there is one, otherwise an `event_id`; equal values say nothing, since two trades may be
alike. Of a symbol's numbering the highest seq is remembered, and which ones of the `window` below it have not come:

- one more than the highest: new;
- further above: new, and a gap before it;
- within the window below: a duplicate if it was seen, else late, and stored;
- further below: the sender's numbering has started anew. It is stored, with a gap of unknown size before it, and the
  numbering goes on from there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from tradebot.events import Tick, TickChunk

WINDOW: Final = 4096

IDS_MAX: Final = 1 << 18
"""About how many event ids are remembered over all symbols; more than IDS_MAX / WINDOW symbols share them evenly."""

_IDS_LEAST: Final = 16
_NONE: Final = -(1 << 64)  # a highest seq that no seq follows


class Gap(Struct, frozen=True, gc=False):
    """Trades of a symbol are missing: how many, or None when the numbering started anew; `detail` is what was seen."""

    symbol: str
    missing: int | None
    detail: str


class Taken(Struct, frozen=True, gc=False):
    """What `SequenceGuard.take` let through: `ticks` in their order, and what it left out, counted.

    `gaps` are (index into `ticks`, gap): each comes before the tick of that index. `refused` ticks were of more symbols
    than there may be.
    """

    ticks: list[Tick]
    gaps: tuple[tuple[int, Gap], ...] = ()
    duplicates: int = 0
    refused: int = 0


class SequenceGuard:
    """Remembers what was seen of each symbol, across reconnects; one thread uses it (ingest).

    `window`: how far below the highest seq of a symbol, and how many event ids of it, are remembered. `symbols_max`
    bounds the memory: ticks of further symbols are refused, whether they carry numbers or not.
    """

    def __init__(self, symbols_max: int, window: int = WINDOW) -> None:
        if symbols_max < 1 or window < 1:
            raise ValueError(f"symbols_max {symbols_max} or window {window} is not at least 1")
        self._symbols_max = symbols_max
        self._window = window
        self._numbering: dict[str, _Numbering] = {}
        self._ids: dict[str, _Ids] = {}

    def too_many(self, tick: Tick) -> bool:
        """Whether there is no room for the symbol of `tick`."""
        return tick.symbol not in self._numbering and len(self._numbering) >= self._symbols_max

    def restore(self, symbol: str, seqs: Iterable[int], event_ids: Iterable[str]) -> bool:
        """Take note of what an earlier run stored of `symbol`, oldest first; the newest `window` of it is enough.

        Call it before the first `take`. False: there is no room for the symbol.
        """
        numbering = self._numbering_of(symbol)
        if numbering is None:
            return False
        for seq in seqs:
            numbering.take(seq, self._window)
        for event_id in event_ids:
            self._seen_id(symbol, event_id)
        return True

    def pass_over(self, skipped: Iterable[tuple[str, int]]) -> list[Gap]:
        """Take note of (symbol, seq) that came and are no trades; the gaps before them."""
        gaps = []
        for symbol, seq in skipped:
            numbering = self._numbering_of(symbol)
            if numbering is not None:
                highest = numbering.highest
                _new, missing = numbering.take(seq, self._window)
                if missing != 0:
                    gaps.append(_gap(symbol, missing, seq, highest))
        return gaps

    def take(self, ticks: list[Tick]) -> Taken:
        """Sort the next `ticks` out: those of one frame, which may come newest first.

        Never raises, never blocks; may hand on the list it was given.
        """
        if isinstance(ticks, TickChunk):
            # No tick of it has a number.
            return Taken(ticks) if self._numbering_of(ticks.symbol) is not None else Taken([], refused=len(ticks))
        symbol: str | None = None
        numbering = _NOBODY
        for index, tick in enumerate(ticks):
            if tick.symbol != symbol:
                symbol = tick.symbol
                numbering = self._numbering.get(symbol, _NOBODY)
            if tick.seq != numbering.highest + 1:
                # A frame whose first trade is just the next one cannot have begun with the newest.
                if index == 0 and _newest_first(ticks):
                    return _turned(self._take_one_by_one(ticks[::-1], 0))
                return self._take_one_by_one(ticks, index)
            numbering.highest += 1
        return Taken(ticks)

    def _take_one_by_one(self, ticks: list[Tick], start: int) -> Taken:
        """`take`, of which the ticks before `start` are done and were all new."""
        kept = ticks[:start]
        gaps: list[tuple[int, Gap]] = []
        duplicates = refused = 0
        for tick in ticks[start:]:
            numbering = self._numbering_of(tick.symbol)
            if numbering is None:
                refused += 1
                continue
            if tick.seq is not None:
                highest = numbering.highest
                new, missing = numbering.take(tick.seq, self._window)
                if missing != 0:
                    gaps.append((len(kept), _gap(tick.symbol, missing, tick.seq, highest)))
            else:
                new = tick.event_id is None or not self._seen_id(tick.symbol, tick.event_id)
            if new:
                kept.append(tick)
            else:
                duplicates += 1
        return Taken(kept, tuple(gaps), duplicates, refused)

    def _numbering_of(self, symbol: str) -> _Numbering | None:
        """The numbering of a symbol, known or new; None when there is no room for it."""
        found = self._numbering.get(symbol)
        if found is None and len(self._numbering) < self._symbols_max:
            found = self._numbering[symbol] = _Numbering()
        return found

    def _seen_id(self, symbol: str, event_id: str) -> bool:
        """Whether the id is among the newest of its symbol; it is from now on."""
        ids = self._ids.get(symbol)
        if ids is None:
            ids = self._ids[symbol] = _Ids()
        return ids.seen(event_id, min(self._window, max(_IDS_LEAST, IDS_MAX // len(self._ids))))


def joined(first: Taken, second: Taken) -> Taken:
    """What two calls came to, as one."""
    moved = tuple((index + len(first.ticks), gap) for index, gap in second.gaps)
    return Taken(
        first.ticks + second.ticks,
        first.gaps + moved,
        first.duplicates + second.duplicates,
        first.refused + second.refused,
    )


def _gap(symbol: str, missing: int | None, seq: int, highest: int) -> Gap:
    what = f"seq {seq} after {highest}"
    return Gap(symbol, missing, f"the numbering started anew: {what}" if missing is None else what)


def _newest_first(ticks: list[Tick]) -> bool:
    """Whether the numbers of each symbol fall, and those of one do."""
    last: dict[str, int] = {}
    falls = False
    for tick in ticks:
        if tick.seq is not None:
            before = last.get(tick.symbol)
            if before is not None and tick.seq >= before:
                return False
            falls = falls or before is not None
            last[tick.symbol] = tick.seq
    return falls


def _turned(taken: Taken) -> Taken:
    """Back in the order they were sent; what is missing was missing before all of them."""
    return Taken(taken.ticks[::-1], tuple((0, gap) for _index, gap in taken.gaps), taken.duplicates, taken.refused)


class _Ids:
    """The newest event ids of one symbol."""

    __slots__ = ("_known", "_order")

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._order: deque[str] = deque()

    def seen(self, event_id: str, room: int) -> bool:
        """Whether the id is known; it is from now on, and at most `room` are."""
        if event_id in self._known:
            return True
        self._known.add(event_id)
        self._order.append(event_id)
        while len(self._order) > room:
            self._known.remove(self._order.popleft())
        return False


class _Numbering:
    """What is known of one symbol's seqs: the highest, the lowest, and the ranges between them that have not come.

    Ranges, not single numbers, so that one tick costs the same however wide a gap it opens.
    """

    __slots__ = ("_ends", "_lowest", "_starts", "highest")

    def __init__(self) -> None:
        self.highest = _NONE
        self._lowest = _NONE
        # Missing ranges in ascending order, the ends exclusive. Those below the window are dropped now and then.
        self._starts: list[int] = []
        self._ends: list[int] = []

    def take(self, seq: int, window: int) -> tuple[bool, int | None]:
        """Whether `seq` is new (stored), and how many are missing before it (None: started anew)."""
        highest = self.highest
        if highest == _NONE:
            self._begin(seq)
            return True, 0
        if seq > highest:
            missing = seq - highest - 1
            if missing:
                self._starts.append(highest + 1)
                self._ends.append(seq)
            self.highest = seq
            self._forget_below(seq - window)
            return True, missing
        if seq < highest - window:
            self._begin(seq)
            return True, None
        return self._is_late(seq), 0

    def _begin(self, seq: int) -> None:
        self.highest = self._lowest = seq
        self._starts.clear()
        self._ends.clear()

    def _is_late(self, seq: int) -> bool:
        """Whether `seq`, inside the window, has not come before; from now on it has."""
        if seq < self._lowest:
            if seq + 1 < self._lowest:
                self._starts.insert(0, seq + 1)
                self._ends.insert(0, self._lowest)
            self._lowest = seq
            return True
        place = bisect_right(self._starts, seq) - 1
        if place < 0 or seq >= self._ends[place]:
            return False
        start, end = self._starts[place], self._ends[place]
        pieces = [(a, b) for a, b in ((start, seq), (seq + 1, end)) if a < b]
        self._starts[place : place + 1] = [a for a, _ in pieces]
        self._ends[place : place + 1] = [b for _, b in pieces]
        return True

    def _forget_below(self, lowest: int) -> None:
        passed = bisect_right(self._ends, lowest)
        if passed:
            del self._starts[:passed], self._ends[:passed]


_NOBODY: Final = _Numbering()
"""Stands in for a symbol not met yet: no seq follows its highest."""
