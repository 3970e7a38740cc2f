"""Which trades of a live feed are new: duplicates, late trades and gaps, by the sender's own sequence numbers. Pure.

A `seq` alone decides where there is one, otherwise an `event_id`. A duplicate has the number **and** the content (time,
price, volume) of a trade that was seen. Of a symbol's numbering the highest seq is remembered, and which ones of the
`window` below it have not come:

- one more than the highest: new;
- further above: new, and a gap before it;
- within the window below, not seen: late, and stored;
- within the window below, seen: a duplicate if the content is the same, else the sender has restarted its numbering;
- further below: the sender has restarted its numbering.

The trade at which a numbering restarts is stored, with a gap of unknown size before it, and the numbering continues
from there. An `event_id` that is seen with another content is stored likewise. Such a restart is reported once: not
again until the numbering has continued for a while (`numbering.SETTLED`), since some senders give every trade the same
number.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from tradebot.core.events import SequenceState, Tick, TickChunk, content_digest
from tradebot.feeds.frame_order import in_time_order, index_of_first
from tradebot.feeds.numbering import DUPLICATE, RESTARTED, Numbering, SeenIds

WINDOW: Final = 4096

IDS_MAX: Final = 1 << 18
"""About how many event ids are remembered over all symbols; more than IDS_MAX / WINDOW symbols share them evenly."""

CONTENTS_MAX: Final = 1 << 16
"""About how many trades with a seq are remembered over all symbols: CONTENTS_A_SYMBOL each, or an even share."""

CONTENTS_A_SYMBOL: Final = 1024
"""The most contents of one symbol's trades that are remembered by seq, and the most that a `SequenceState` holds."""

_LEAST: Final = 16


class Gap(Struct, frozen=True, gc=False):
    """Trades of a symbol are missing: how many, or None when the numbering restarted; `detail` is what was seen."""

    symbol: str
    missing: int | None
    detail: str


class Taken(Struct, frozen=True, gc=False):
    """What `SequenceGuard.take` let through: `ticks`, each symbol oldest first, and what it left out, counted.

    `gaps` are (index into `ticks`, gap): the tick of that index is the first one after the hole. `refused` ticks were
    of more symbols than there may be.
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
        self._numbering: dict[str, Numbering] = {}
        self._ids: dict[str, SeenIds] = {}
        self._room = CONTENTS_A_SYMBOL
        self._changed: set[str] = set()

    def state(self, symbol: str) -> SequenceState:
        """What a restart is to know of a symbol; contents and ids of its newest CONTENTS_A_SYMBOL trades at most."""
        ids = self._ids.get(symbol)
        newest_ids = tuple(ids.known()[-CONTENTS_A_SYMBOL:]) if ids is not None else ()
        numbering = self._numbering.get(symbol)
        if numbering is None or not numbering.began:
            return SequenceState(ids=newest_ids)
        contents = tuple(
            (seq, content_digest(known) if isinstance(known, Tick) else known.digest)
            for seq, known in numbering.known()
        )
        return SequenceState(
            numbering.highest, numbering.lowest, numbering.missing(), numbering.newest_ts(), contents, newest_ids,
            numbering.restarted,
        )  # fmt: skip

    def restore(self, symbol: str, state: SequenceState) -> bool:
        """Continue a symbol from `state`. Call it before the first `take`. False: there is no room for the symbol."""
        numbering = self._numbering_of(symbol)
        if numbering is None:
            return False
        if state.highest is not None and state.lowest is not None:
            numbering.restore(state.highest, state.lowest, state.missing, state.newest_ts, state.restarted)
            for seq, digest in state.contents:
                numbering.restore_content(seq, digest)
        for event_id, digest in state.ids:
            self._take_id(symbol, event_id, digest)
        return True

    def changed(self) -> list[str]:
        """The symbols of which something came since the last call, sorted."""
        changed, self._changed = sorted(self._changed), set()
        return changed

    def remember(self, ticks: Iterable[Tick]) -> None:
        """Take note of ticks that an earlier run stored, in their order. Call it before the first `take`."""
        self._take_one_by_one(list(ticks), 0)

    def pass_over(self, skipped: Iterable[tuple[str, int]]) -> list[Gap]:
        """Take note of (symbol, seq) that came and are no trades; the gaps before them."""
        gaps = []
        for symbol, seq in skipped:
            numbering = self._numbering_of(symbol)
            if numbering is not None:
                self._changed.add(symbol)
                highest = numbering.highest
                missing = numbering.skip(seq, self._window)
                if missing in (0, DUPLICATE):
                    continue
                gaps.append(_gap(symbol, missing, seq, highest))
        return gaps

    def take_next(self, tick: Tick) -> bool:
        """`take` for a tick with just the next number of its symbol. False: nothing was done, `take` is to decide."""
        symbol, seq = tick.symbol, tick.seq
        numbering = self._numbering.get(symbol, _NOBODY)
        if seq != numbering.highest + 1:
            return False
        self._changed.add(symbol)
        numbering.highest = seq
        numbering.contents[seq & numbering.mask] = tick
        return True

    def take(self, ticks: list[Tick]) -> Taken:
        """Sort the next `ticks` out: those of one frame, which may come newest first.

        Duplicates and gaps are decided in the order of the sender's numbers, then the ticks are put in the order of
        their times (`frame_order`). Never raises, never blocks; may hand on the list it was given.
        """
        if isinstance(ticks, TickChunk) and ticks.symbol is not None:
            # No tick of it has a number.
            if self._numbering_of(ticks.symbol) is None:
                return Taken([], refused=len(ticks))
            self._changed.add(ticks.symbol)
            return Taken(in_time_order(ticks))
        symbol: str | None = None
        numbering = _NOBODY
        for index, tick in enumerate(ticks):
            if tick.symbol != symbol:
                symbol = tick.symbol
                numbering = self._numbering.get(symbol, _NOBODY)
                if numbering is not _NOBODY:  # there may be no room for the symbol
                    self._changed.add(symbol)
            seq = tick.seq
            if seq != numbering.highest + 1:
                # A frame whose first trade is just the next one cannot have begun with the newest.
                if index == 0 and _newest_first(ticks):
                    return _arranged(self._take_one_by_one(ticks[::-1], 0), turned=True)
                return _arranged(self._take_one_by_one(ticks, index), turned=False)
            numbering.highest = seq
            numbering.contents[seq & numbering.mask] = tick
        return Taken(in_time_order(ticks) if len(ticks) > 1 else ticks)

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
            self._changed.add(tick.symbol)
            missing = 0
            if tick.seq is not None:
                highest = numbering.highest
                missing = numbering.take(tick, tick.seq, self._window)
                if missing > 0 or missing == RESTARTED:
                    gaps.append((len(kept), _gap(tick.symbol, missing, tick.seq, highest)))
            elif tick.event_id is not None:
                missing = self._take_id(tick.symbol, tick.event_id, content_digest(tick))
                if missing == RESTARTED:
                    gaps.append((len(kept), Gap(tick.symbol, None, f"event_id {tick.event_id} came with other values")))
            if missing == DUPLICATE:
                duplicates += 1
            else:
                kept.append(tick)
        return Taken(kept, tuple(gaps), duplicates, refused)

    def _numbering_of(self, symbol: str) -> Numbering | None:
        """The numbering of a symbol, known or new; None when there is no room for it."""
        found = self._numbering.get(symbol)
        if found is None and len(self._numbering) < self._symbols_max:
            found = self._numbering[symbol] = Numbering(self._room)
            self._share_room()
        return found

    def _share_room(self) -> None:
        """Make all symbols' contents smaller when there are too many symbols for the room they have."""
        share = max(_LEAST, min(CONTENTS_A_SYMBOL, CONTENTS_MAX // len(self._numbering)))
        room = 1 << (share.bit_length() - 1)
        if room != self._room:
            self._room = room
            for numbering in self._numbering.values():
                numbering.resize(room)

    def _take_id(self, symbol: str, event_id: str, digest: int) -> int:
        ids = self._ids.get(symbol)
        if ids is None:
            ids = self._ids[symbol] = SeenIds()
        return ids.take(event_id, digest, min(self._window, max(_LEAST, IDS_MAX // len(self._ids))))


def joined(first: Taken, second: Taken) -> Taken:
    """What two calls came to, as one."""
    moved = tuple((index + len(first.ticks), gap) for index, gap in second.gaps)
    return Taken(
        first.ticks + second.ticks,
        first.gaps + moved,
        first.duplicates + second.duplicates,
        first.refused + second.refused,
    )


def _gap(symbol: str, missing: int, seq: int, highest: int) -> Gap:
    what = f"seq {seq} after {highest}"
    if missing == RESTARTED:
        return Gap(symbol, None, f"the sender's numbering restarted: {what}")
    return Gap(symbol, missing, what)


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


def _arranged(taken: Taken, *, turned: bool) -> Taken:
    """`taken`, whose ticks are in the order they were decided in, with its ticks in the order of their times.

    `turned`: that is the reverse of the order they were sent in, which remains among equal times.
    """
    decided = taken.ticks
    ticks = in_time_order(decided[::-1] if turned else decided)
    gaps = taken.gaps
    if gaps and ticks is not decided:
        places = [(index_of_first(ticks, _after_hole(decided, index)), gap) for index, gap in gaps]
        gaps = tuple(sorted(places, key=lambda place: place[0]))
    return Taken(ticks, gaps, taken.duplicates, taken.refused)


def _after_hole(decided: list[Tick], index: int) -> list[Tick]:
    """The tick of `index`, before which trades are missing, and those of its symbol behind it with higher numbers."""
    first = decided[index]
    return [
        tick
        for tick in decided[index:]
        if tick.symbol == first.symbol and (tick.seq is None or first.seq is None or tick.seq >= first.seq)
    ]


_NOBODY: Final = Numbering()
"""Stands in for a symbol not met yet: no seq follows its highest."""
