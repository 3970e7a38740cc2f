"""A clock that moves only when a test says so or a wait for the stop signal passes: feeds without real time."""

from __future__ import annotations

from tests.unit.talk import START_MS
from tradebot.core.cancellation import Cancellation
from tradebot.core.runtime import RealRuntime
from tradebot.feeds.base import READ_WAIT_S


class HandClock(RealRuntime):
    """The monotonic clock reads `seconds`; the wall clock is START_MS at `start_s` and moves with it."""

    def __init__(self, start_s: float = 50.0) -> None:
        super().__init__()
        self._start_s = start_s
        self.seconds = start_s

    def monotonic(self) -> float:
        return self.seconds

    def now_ms(self) -> int:
        return START_MS + round((self.seconds - self._start_s) * 1000)


class ClockMovingStop(Cancellation):
    """A wait moves the clock by the whole timeout, or not at all once the stop is requested; `waits` lists them."""

    def __init__(self, clock: HandClock) -> None:
        super().__init__(clock)
        self.clock = clock
        self.stopped = False
        self.waits: list[float] = []

    def request(self) -> None:
        self.stopped = True

    def is_requested(self) -> bool:
        return self.stopped

    def wait(self, timeout_s: float) -> bool:
        assert 0 < timeout_s <= READ_WAIT_S
        self.waits.append(timeout_s)
        if not self.stopped:
            self.clock.seconds += timeout_s
        return self.stopped
