"""The synthetic feed: an endless walk of one symbol's price on a fixed schedule."""

from __future__ import annotations

from typing import Final

from tradebot.core.cancellation import Cancellation
from tradebot.core.events import Tick
from tradebot.core.runtime import Runtime
from tradebot.feeds.base import READ_WAIT_S, FeedBatch
from tradebot.feeds.status import NO_LINK, FeedStatus

START_PRICE: Final = 100.0
CATCH_UP_TICKS_MAX: Final = 64
"""Most late ticks made up for in one read: a quarter of the default tick channel, so that a hiccup of the machine
is not mistaken for an overload of the pipeline. What is later than that is skipped."""

_UNITS_PER_DOLLAR: Final = 40
_FLOOR_UNITS: Final = 40
_CYCLE_UNITS: Final = (2, -1, 2, 2, -1)


class Walk:
    """The price walk, pure: kept tick n (from 0) moves the price by 0.05 x (+1 if n % 5 in {0, 2, 3} else -0.5).

    The move comes before the tick, so the first kept tick of a fresh walk is 100.05. The floor is 1.0. Prices are
    whole multiples of 0.025, counted as integers, so that no rounding error gathers and every price is the double
    nearest to its decimal. Give `n` (kept ticks so far) and `price` (of the last one) to continue an earlier walk;
    the price is then taken to its nearest multiple.
    """

    def __init__(self, n: int = 0, price: float = START_PRICE) -> None:
        if n < 0:
            raise ValueError(f"n {n} is negative")
        self.n = n
        self._units = max(_FLOOR_UNITS, round(price * _UNITS_PER_DOLLAR))

    @property
    def price(self) -> float:
        """The price of the last kept tick (before the first: where the walk starts)."""
        return self._units / _UNITS_PER_DOLLAR

    def step(self) -> float:
        """Move to the next kept tick; its price."""
        self._units = max(_FLOOR_UNITS, self._units + _CYCLE_UNITS[self.n % 5])
        self.n += 1
        return self.price


class SyntheticFeed:
    """One tick each `tick_interval_ms`, the first one at once, on a schedule fixed at the first read (no drift).

    The walk moves with the ticks that sampling will keep, those whose number (from `sequence` + 1) is a multiple of
    `sample_every`; the others repeat the last price. So the kept prices are the same for every `sample_every`.
    `n` and `price` continue an earlier walk, `sequence` an earlier numbering; both must be what Intake is given.

    A late reader gets the missed ticks at once, up to CATCH_UP_TICKS_MAX; missed beyond that (the machine slept)
    they never were: counted in `missed`, and the schedule goes on where it would be. ts is the time of handing out.
    """

    push: Final = True
    total: Final = None

    def __init__(
        self,
        runtime: Runtime,
        cancel: Cancellation,
        symbol: str,
        tick_interval_ms: int,
        sample_every: int = 1,
        *,
        n: int = 0,
        price: float = START_PRICE,
        sequence: int = 0,
    ) -> None:
        if tick_interval_ms < 1:
            raise ValueError(f"tick_interval_ms {tick_interval_ms} is not at least 1")
        if sample_every < 1:
            raise ValueError(f"sample_every {sample_every} is not at least 1")
        self._runtime = runtime
        self._cancel = cancel
        self._symbol = symbol
        self._interval_ms = tick_interval_ms
        self._sample_every = sample_every
        self._sequence = sequence
        self._start_s: float | None = None
        self._slot = 0
        self.walk = Walk(n, price)
        self.missed = 0
        self.position = 0

    def read(self) -> FeedBatch:
        """The ticks that are due, after a wait if there are none; empty when READ_WAIT_S or a stop cut it short."""
        now = self._runtime.monotonic()
        if self._start_s is None:
            self._start_s = now
        # From the slot number each time: adding up intervals would gather rounding errors.
        wait_s = self._start_s + self._slot * self._interval_ms / 1000 - now
        if wait_s > 0:
            self._cancel.wait(min(wait_s, READ_WAIT_S))
            now = self._runtime.monotonic()
        return FeedBatch(self._due(now - self._start_s))

    def _due(self, elapsed_s: float) -> list[Tick]:
        # A thousandth of a millisecond of grace, or a wait that ended a rounding error early would find nothing due.
        due = int((elapsed_s * 1000 + 0.001) // self._interval_ms) + 1 - self._slot
        if due <= 0:
            return []
        self._slot += due
        count = min(due, CATCH_UP_TICKS_MAX)
        self.missed += due - count
        ts = self._runtime.now_ms()
        return [self._next_tick(ts) for _ in range(count)]

    def _next_tick(self, ts: int) -> Tick:
        self._sequence += 1
        self.position += 1
        price = self.walk.price if self._sequence % self._sample_every else self.walk.step()
        return Tick(self._symbol, price, 1.0, ts)

    def status(self) -> FeedStatus:
        """That of a feed without a link."""
        return NO_LINK

    def close(self) -> None:
        """Nothing to give back."""
