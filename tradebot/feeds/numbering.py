"""What is remembered of one symbol's trades: its seqs with their contents, its event ids with theirs. Pure, bounded.

A number that was seen before is a duplicate when the content (time, price and volume) is the same too. With another
content the sender has restarted its numbering. Contents are kept for the newest numbers only; a trade with an older
number is a duplicate if it is older than the newest trade as well: a trade that is sent again has its old time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import Final

from msgspec import Struct

from tradebot.core.events import Tick, content_digest

# What `take` returns where it is no count of missing trades.
DUPLICATE: Final = -1
"""The trade was seen before."""
RESTARTED: Final = -2
"""The sender's numbering restarted with this trade."""
RESTARTED_AGAIN: Final = -3
"""As RESTARTED, but it belongs to a restart that was reported before."""

SETTLED: Final = 16
"""A restart is reported again only after so many numbers: a sender's constant number restarts with each trade."""

_NONE: Final = -(1 << 64)  # a highest seq that no seq follows


class Known(Struct, frozen=True, gc=False):
    """A trade of which only the number and the content's digest are known: an earlier process has seen it."""

    seq: int
    digest: int


class Numbering:
    """What is known of one symbol's seqs: the highest, the lowest, and the ranges between them that have not come.

    Ranges, not single numbers, so that one tick costs the same however wide a gap it opens. `contents[seq & mask]` is
    the trade of that seq, if it is among the newest (`room`, a power of two): a reference costs less than a digest, and
    most trades are never compared.
    """

    __slots__ = (
        "_ends",
        "_restarted",
        "_restored_ts",
        "_starts",
        "contents",
        "highest",
        "lowest",
        "mask",
    )

    def __init__(self, room: int = 1) -> None:
        self.highest = _NONE
        self.lowest = _NONE
        self.contents: list[Tick | Known | None] = []  # allocated with the first seq: many symbols have none
        self.mask = room - 1
        self._restarted = False
        self._restored_ts = 0
        # Missing ranges in ascending order, the ends exclusive. Those below the window are dropped now and then.
        self._starts: list[int] = []
        self._ends: list[int] = []

    def take(self, tick: Tick, seq: int, window: int) -> int:
        """How many trades are missing before `tick`, or what else it is: DUPLICATE, RESTARTED, RESTARTED_AGAIN."""
        if not self.began:
            self._begin(seq)
            self._remember(seq, tick)
            return 0
        missing = self._place(seq, window)
        if missing == DUPLICATE and not self._is_same(tick, seq):
            missing = RESTARTED
        if missing == RESTARTED:
            if self._restarted and self.highest - self.lowest < SETTLED:
                missing = RESTARTED_AGAIN
            self._restarted = True
            self._begin(seq)
        if missing != DUPLICATE:
            self._remember(seq, tick)
        return missing

    def skip(self, seq: int, window: int) -> int:
        """Like `take`, for a number that was used up by something that is no trade."""
        if not self.began:
            self._begin(seq)
            return 0
        missing = self._place(seq, window)
        if missing == RESTARTED:
            self._begin(seq)
        return missing

    @property
    def began(self) -> bool:
        """Whether a number was seen."""
        return self.highest != _NONE

    def _place(self, seq: int, window: int) -> int:
        """What the number alone says: how many are missing before it, DUPLICATE if seen, RESTARTED if far below."""
        highest = self.highest
        if seq > highest:
            missing = seq - highest - 1
            if missing:
                self._starts.append(highest + 1)
                self._ends.append(seq)
            self.highest = seq
            self._forget_below(seq - window)
            return missing
        if seq < highest - window:
            return RESTARTED
        return 0 if self._is_late(seq) else DUPLICATE

    def _begin(self, seq: int) -> None:
        self.highest = self.lowest = seq
        self._restored_ts = 0
        self.contents = [None] * (self.mask + 1)
        self._starts.clear()
        self._ends.clear()

    def _remember(self, seq: int, known: Tick | Known) -> None:
        if seq >= self.highest - self.mask:  # the place of a lower one belongs to a higher one
            self.contents[seq & self.mask] = known

    def _is_same(self, tick: Tick, seq: int) -> bool:
        """Whether `tick`, whose number was seen, is the trade that had it."""
        known = self.contents[seq & self.mask]
        if known is None or known.seq != seq:
            return tick.ts < self.newest_ts()
        if isinstance(known, Known):
            return known.digest == content_digest(tick)
        return known.ts == tick.ts and known.price == tick.price and known.volume == tick.volume

    def newest_ts(self) -> int:
        """The time of the trade with the highest number whose content is remembered; 0 without one."""
        for seq in range(self.highest, self.highest - self.mask - 1, -1):
            known = self.contents[seq & self.mask]
            if isinstance(known, Tick) and known.seq == seq:
                return max(known.ts, self._restored_ts)
        return self._restored_ts

    def _is_late(self, seq: int) -> bool:
        """Whether `seq`, inside the window, has not come before; from now on it has."""
        if seq < self.lowest:
            if seq + 1 < self.lowest:
                self._starts.insert(0, seq + 1)
                self._ends.insert(0, self.lowest)
            self.lowest = seq
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

    def resize(self, room: int) -> None:
        """Remember the contents of at most `room` (a power of two) numbers."""
        kept = self.known()[-room:]
        self.mask = room - 1
        if self.began:
            self.contents = [None] * room
            for seq, known in kept:
                self._remember(seq, known)

    def known(self) -> list[tuple[int, Tick | Known]]:
        """The numbers whose contents are remembered, ascending."""
        found = [(known.seq, known) for known in self.contents if known is not None and known.seq is not None]
        return sorted(found, key=lambda pair: pair[0])

    def missing(self) -> tuple[tuple[int, int], ...]:
        """The ranges that have not come, ascending, ends exclusive."""
        return tuple(zip(self._starts, self._ends, strict=True))

    @property
    def restarted(self) -> bool:
        """Whether the numbering has restarted since it was first met."""
        return self._restarted

    def restore(
        self, highest: int, lowest: int, missing: tuple[tuple[int, int], ...], newest_ts: int, restarted: bool
    ) -> None:
        """Continue from what `highest`, `lowest`, `missing`, `newest_ts` and `restarted` were."""
        self._begin(highest)
        self.lowest = lowest
        self._starts = [start for start, _end in missing]
        self._ends = [end for _start, end in missing]
        self._restored_ts = newest_ts
        self._restarted = restarted

    def restore_content(self, seq: int, digest: int) -> None:
        """The content of a number below or at the highest; those given later take the place of those before."""
        self._remember(seq, Known(seq, digest))


class SeenIds:
    """The newest event ids of one symbol, with their contents."""

    __slots__ = ("_contents", "_further", "_order", "_since_restart")

    def __init__(self) -> None:
        # An id stands for its first content; further contents of the same id have entries of their own.
        self._contents: dict[str | tuple[str, int], int] = {}
        self._order: deque[str | tuple[str, int]] = deque()
        self._further = 0
        self._since_restart: int | None = None

    def take(self, event_id: str, digest: int, room: int) -> int:
        """0 for a new id, DUPLICATE, RESTARTED or RESTARTED_AGAIN: the id was seen with another content.

        At most `room` ids are remembered.
        """
        known = self._contents.get(event_id)
        if known == digest or (self._further and (event_id, digest) in self._contents):
            return DUPLICATE
        if known is None:
            self._add(event_id, digest, room)
            if self._since_restart is not None:
                self._since_restart += 1
            return 0
        self._further += 1
        self._add((event_id, digest), digest, room)
        again = self._since_restart is not None and self._since_restart < SETTLED
        self._since_restart = 0
        return RESTARTED_AGAIN if again else RESTARTED

    def _add(self, key: str | tuple[str, int], digest: int, room: int) -> None:
        self._contents[key] = digest
        self._order.append(key)
        while len(self._order) > room:
            oldest = self._order.popleft()
            del self._contents[oldest]
            self._further -= isinstance(oldest, tuple)

    def known(self) -> list[tuple[str, int]]:
        """(id, digest) of what is remembered, oldest first."""
        return [(key if isinstance(key, str) else key[0], self._contents[key]) for key in self._order]
