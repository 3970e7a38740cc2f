"""Prices that cannot be true: refused when they are far from the recent prints of their symbol. Pure.

A price more than `max_jump` times above or below the median of the symbol's last RECENT_PRINTS accepted prints is
refused, until AGREEING_PRINTS refused ones in a row lie within `max_jump` of each other: the last of them is accepted,
and these prints are the recent ones from then on. An accepted print in between means that those before it were wrong.

Almost every print is accepted without a median: where all recent prints lie within the square root of `max_jump` of a
centre, so does their median, and any further print that does is within `max_jump` of it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct

from tradebot.core.events import Tick

RECENT_PRINTS: Final = 15
AGREEING_PRINTS: Final = 3

EPISODE_PRINTS: Final = 16
"""After so many accepted prints in a row, a refused one is reported again."""

_ROUNDING: Final = 1 - 1e-12


class BandEvent(Struct, frozen=True, gc=False):
    """What is to be reported of a symbol: the first refused print of an episode, or that the band moved."""

    symbol: str
    detail: str


class Sifted(Struct, frozen=True, gc=False):
    """`ticks` are accepted; `refused` are the reasons of those that are not.

    `events` are (index into the ticks that were given, event): what happened at that tick.
    """

    ticks: list[Tick]
    refused: tuple[str, ...]
    events: tuple[tuple[int, BandEvent], ...]
    places: tuple[int, ...]
    """The index of each refused tick among those that were given."""


class _Prints:
    """One symbol: its recent prints, those refused since, and the range in which a price needs no closer look."""

    __slots__ = ("alert", "high", "low", "recent", "refused")

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=RECENT_PRINTS)
        self.refused: list[float] = []
        self.alert = 0
        """After a refused print: so many are to be accepted until the episode is over. Each gets a closer look."""
        self.low = math.inf
        self.high = -math.inf

    def median(self) -> float:
        """The middle one of the recent prints, the higher of two. There must be one."""
        ordered = sorted(self.recent)
        return ordered[len(ordered) // 2]


class PriceBand:
    """The bands of all symbols; one thread uses it (ingest). `max_jump` is above 1, or 0: every price is accepted.

    The caller bounds how many symbols there are (`SequenceGuard` does).
    """

    def __init__(self, max_jump: float) -> None:
        if not (max_jump == 0 or 1 < max_jump < math.inf):
            raise ValueError(f"max_jump {max_jump} is neither 0 nor above 1")
        self._jump = max_jump
        self._root = math.sqrt(max_jump) * _ROUNDING
        self._prints: dict[str, _Prints] = {}

    def sift(self, ticks: list[Tick]) -> Sifted | None:
        """Sort the next `ticks` out, in their order; None: all are accepted. Never raises, never blocks."""
        if not self._jump:
            return None
        symbol: str | None = None
        for index, tick in enumerate(ticks):
            if tick.symbol != symbol:
                symbol = tick.symbol
                prints = self._prints.get(symbol) or self._of(symbol)
            price = tick.price
            if not prints.low <= price <= prints.high:
                return self._sift_one_by_one(ticks, index)
            prints.recent.append(price)
        return None

    def take_usual(self, tick: Tick) -> bool:
        """`sift` for a tick with a usual price, which is accepted. False: nothing was done, `sift` is to decide."""
        if not self._jump:
            return True
        prints = self._prints.get(tick.symbol)
        if prints is None or not prints.low <= tick.price <= prints.high:
            return False
        prints.recent.append(tick.price)
        return True

    def recent(self, symbol: str) -> tuple[float, ...]:
        """The recent prints of a symbol, oldest first, for `restore`."""
        prints = self._prints.get(symbol)
        return () if prints is None else tuple(prints.recent)

    def restore(self, symbol: str, prices: Sequence[float]) -> None:
        """Continue a symbol from its recent prints, oldest first; the newest RECENT_PRINTS count."""
        if prices:
            prints = self._of(symbol)
            prints.recent.extend(prices)
            self._centre(prints)

    def remember(self, ticks: Iterable[Tick]) -> None:
        """Take note of ticks that an earlier run accepted, in their order. Call it before the first `sift`.

        One out of band was accepted because others, which are not known, agreed with it: it stands for all of them.
        """
        for tick in ticks:
            if self.take_usual(tick):
                continue
            prints = self._of(tick.symbol)
            if prints.recent and not self._within(tick.price, prints.median()):
                prints.recent = deque([tick.price] * (AGREEING_PRINTS - 1), RECENT_PRINTS)
            prints.recent.append(tick.price)
            self._centre(prints)

    def _of(self, symbol: str) -> _Prints:
        found = self._prints.get(symbol)
        if found is None:
            found = self._prints[symbol] = _Prints()
        return found

    def _sift_one_by_one(self, ticks: list[Tick], start: int) -> Sifted | None:
        """`sift`, of which the ticks before `start` are done and were all accepted."""
        kept = ticks[:start]
        refused: list[str] = []
        places: list[int] = []
        events: list[tuple[int, BandEvent]] = []
        for index, tick in enumerate(ticks[start:], start):
            prints = self._of(tick.symbol)
            median = prints.median() if prints.recent else tick.price
            if self._within(tick.price, median):
                self._accept(prints, tick.price)
                kept.append(tick)
            elif self._agree(prints, tick.price):
                prints.recent = deque(prints.refused, RECENT_PRINTS)
                self._accept(prints, tick.price)
                kept.append(tick)
                detail = f"the last {AGREEING_PRINTS} prints agree on {tick.price!r}; the median before was {median!r}"
                events.append((index, BandEvent(tick.symbol, detail)))
            else:
                reason = self._reason(tick, median)
                if not prints.alert:
                    events.append((index, BandEvent(tick.symbol, reason)))
                self._refuse(prints, tick.price)
                refused.append(reason)
                places.append(index)
        return Sifted(kept, tuple(refused), tuple(events), tuple(places)) if events or refused else None

    def _within(self, one: float, other: float) -> bool:
        return one <= other * self._jump and other <= one * self._jump

    def _agree(self, prints: _Prints, price: float) -> bool:
        """Whether `price` and the prints refused last agree, and are enough."""
        row = [*prints.refused, price]
        return len(row) >= AGREEING_PRINTS and self._within(min(row), max(row))

    def _accept(self, prints: _Prints, price: float) -> None:
        prints.recent.append(price)
        prints.refused.clear()
        prints.alert = max(0, prints.alert - 1)
        self._centre(prints)

    def _refuse(self, prints: _Prints, price: float) -> None:
        prints.refused = [*prints.refused[-(AGREEING_PRINTS - 2) :], price]
        prints.alert = EPISODE_PRINTS
        self._centre(prints)

    def _centre(self, prints: _Prints) -> None:
        """Set the range in which prices need no closer look; empty during an episode, or if the prints differ."""
        median = prints.median()
        low, high = median / self._root, median * self._root
        if prints.alert or not (low <= min(prints.recent) and max(prints.recent) <= high):
            low, high = math.inf, -math.inf
        prints.low, prints.high = low, high

    def _reason(self, tick: Tick, median: float) -> str:
        times = tick.price / median if tick.price > median else median / tick.price
        side = "above" if tick.price > median else "below"
        return (
            f"price {tick.price!r} of {tick.symbol} is {times:.4g} times {side} {median!r}, the median of its recent"
            f" prints (feed.max_price_jump {self._jump:g})"
        )
