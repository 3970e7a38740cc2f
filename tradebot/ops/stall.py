"""The stall detector: for how long nothing has shown that the engine gets anywhere. Pure; `now_s` comes with each call.

The clock runs from the last progress. No restart sets it back, whoever asked for it: an engine that is restarted again
and again without storing a tick is a stalled one.
"""

from __future__ import annotations

from typing import Final, NamedTuple

STALL_S: Final = 45.0
GRACE_S: Final = 10.0
"""For so long an engine that has just been started may not have written its status."""


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


class Kinship:
    """Whether the database that is watched is that of the unit that would be restarted.

    It is once the process that the unit runs has been seen as the writer of the status: the unit's later processes
    write it too, also one that hangs before its first word. Until then nothing that the database lacks is a reason to
    restart a process that may be at work on another one.
    """

    def __init__(self) -> None:
        self._proven = False
        self._strange_s: float | None = None
        self._lasting = False
        self.strange = False
        """Whether no restart is to be asked for, by the last look."""

    def look(self, now_s: float, exists: bool, writer: int | None, main_pid: int | None, active: str | None) -> None:
        """One look: whether there is a database file, who wrote its status, and what the service manager runs.

        `main_pid` is None or 0 while that is not known, `active` is the unit's ActiveState.
        """
        if self._proven:
            return
        runs = active in ("active", "reloading") or (active is None and bool(main_pid))
        if main_pid and writer == main_pid:
            self._proven, self.strange, self._lasting = True, False, False
        elif runs and (not exists or (main_pid and writer != main_pid)):
            self._strange_s = now_s if self._strange_s is None else self._strange_s
            self._lasting = self._lasting or now_s - self._strange_s >= GRACE_S
            self.strange = True
        else:
            # What has been found to write another database does so after a crash too, and while nobody answers.
            self.strange = self._lasting and active not in ("failed", "inactive")
            if not self.strange:
                self._strange_s, self._lasting = None, False

    @property
    def lasting(self) -> bool:
        """Whether it is for longer than a start takes."""
        return self.strange and self._lasting
