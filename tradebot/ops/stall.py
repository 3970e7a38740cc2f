"""The stall detector: for how long nothing has shown that the engine gets anywhere. Pure; `now_s` comes with each call.

The clock runs from the last progress. No restart sets it back, whoever asked for it: an engine that is restarted again
and again without storing a tick is a stalled one.
"""

from __future__ import annotations

from typing import Final, NamedTuple

STALL_S: Final = 45.0


class Newest(NamedTuple):
    """MAX(id) and MAX(ts) of the ticks; None, None while there are none."""

    id: int | None
    ts: int | None


class StallDetector:
    """All times are seconds of one monotonic clock."""

    def __init__(self, now_s: float, limit_s: float = STALL_S) -> None:
        """The clock starts now."""
        self.limit_s = limit_s
        self._progress_s = now_s
        self._tick_s = now_s
        self._restarted_s: float | None = None
        self._newest: Newest | None = None

    def look(self, now_s: float, newest: Newest | None, alive_s: float | None, held: bool = False) -> bool:
        """Whether the engine is to be restarted for a stall, now that this was seen.

        `newest` is None when the database could not be read. `alive_s` is when the engine last said that its link is
        live and ingest alive with nothing waiting to be stored: a silent or sampled market counts as progress until
        then, and no longer. `held`: the engine is stopped on purpose, so that the clock stands still.
        """
        if newest is not None:
            if self._newest is not None and newest != self._newest:
                self._progress_s = self._tick_s = now_s
            self._newest = newest
        if alive_s is not None:
            self._progress_s = max(self._progress_s, min(alive_s, now_s))
        if held:
            self._progress_s = now_s
        return now_s >= self.due_s

    @property
    def due_s(self) -> float:
        """When it will be a stall unless something moves: at least `limit_s` after the last restart for a stall."""
        since_s = self._progress_s
        if self._restarted_s is not None:
            since_s = max(since_s, self._restarted_s)
        return since_s + self.limit_s

    def restarted(self, now_s: float) -> None:
        """A restart for a stall has been carried out."""
        self._restarted_s = now_s

    def since_progress_s(self, now_s: float) -> float:
        """Seconds since anything last showed that the engine gets on."""
        return max(0.0, now_s - self._progress_s)

    def since_tick_s(self, now_s: float) -> float:
        """Seconds since a new tick was last seen in the database."""
        return max(0.0, now_s - self._tick_s)

    def stalled(self, now_s: float) -> bool:
        """Whether there has been no progress for the limit, a restart or not."""
        return self.since_progress_s(now_s) >= self.limit_s
