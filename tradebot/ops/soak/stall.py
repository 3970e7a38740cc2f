"""The stall detector: the time since the engine last showed progress. Pure; `now_s` is an argument.

The clock runs from the last progress. No restart resets it, requested by the soak or not: an engine that is restarted
again and again without storing a tick is a stalled one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from tradebot.ops.soak.reasons import DatabaseMissing

if TYPE_CHECKING:
    from tradebot.telemetry.status_file import Status  # impure: its module also reads the file, this is a value

STALL_S: Final = 45.0
_SILENT_S: Final = 3.0
"""A status is written once a second."""


class Newest(NamedTuple):
    """MAX(id) and MAX(ts) of the ticks; None, None while there are none."""

    id: int | None
    ts: int | None
    made: bool = True
    """Whether there is a table of ticks at all."""


class StallDetector:
    """Detects that an engine makes no progress. All times are in seconds of one monotonic clock."""

    def __init__(self, now_s: float, limit_s: float = STALL_S) -> None:
        """The clock starts now."""
        self.limit_s = limit_s
        self._progress_s = now_s
        self._tick_s = now_s
        self._restarted_s: float | None = None
        self._newest: Newest | None = None
        self.moved = False
        """Whether a new tick was ever seen."""

    def look(self, now_s: float, newest: Newest | None, alive_s: float | None, held: bool = False) -> bool:
        """Whether these readings require a restart for a stall.

        `newest` is None when the database could not be read. `alive_s` is when the engine last said that its link is
        live and ingest alive with nothing waiting to be stored: a silent or sampled market counts as progress until
        then, and no longer. `held`: the engine is stopped on purpose, so the clock is paused.
        """
        if newest is not None:
            if self._newest is not None and newest.made and _moved(self._newest, newest):
                self._progress_s = self._tick_s = now_s
                self.moved = True
            self._newest = newest
        if alive_s is not None:
            self._progress_s = max(self._progress_s, min(alive_s, now_s))
        if held:
            self._progress_s = now_s
        return now_s >= self.due_s

    @property
    def due_s(self) -> float:
        """When a stall is due unless there is progress: at least `limit_s` after the last `restarted`."""
        since_s = self._progress_s
        if self._restarted_s is not None:
            since_s = max(since_s, self._restarted_s)
        return since_s + self.limit_s

    def restarted(self, now_s: float) -> None:
        """A restart for a stall has been carried out, or there was still a reason against one."""
        self._restarted_s = now_s

    def since_progress_s(self, now_s: float) -> float:
        """Seconds since the last sign of progress."""
        return max(0.0, now_s - self._progress_s)

    def since_tick_s(self, now_s: float) -> float:
        """Seconds since the last new tick in the database."""
        return max(0.0, now_s - self._tick_s)

    def stalled(self, now_s: float) -> bool:
        """Whether there has been no progress for the limit, regardless of restarts."""
        return self.since_progress_s(now_s) >= self.limit_s


def _moved(before: Newest, after: Newest) -> bool:
    """Whether a tick arrived between two looks. Fewer ticks mean a deletion or another file, not progress."""
    return after[:2] != before[:2] and (after.id or 0) >= (before.id or 0)


def alive_s(status: Status | None, newest: Newest | None, now_s: float) -> float | None:
    """When the engine last reported that it works and has nothing left to store; None if it does not.

    The time of writing counts: a stopped process looks alive as long as its last status is recent.
    A process whose database was removed goes on writing to the deleted file.
    """
    if status is None or not status.ingest_alive(now_s) or status.still_s or any(status.depths.values()):
        return None
    return None if database_missing(status, newest, now_s) is not None else status.written_s


def database_missing(status: Status | None, newest: Newest | None, now_s: float) -> DatabaseMissing | None:
    """The engine whose status is fresh and whose database is not there; None while that is not so."""
    if status is None or newest is None or newest.made or not status.fresh(now_s):
        return None
    return DatabaseMissing(status.pid, status.state == "ended")


def evidence(newest: Newest | None, status: Status | None, now_s: float) -> str:
    """What was seen instead of ticks, for people."""
    if (missing := database_missing(status, newest, now_s)) is not None:
        return str(missing)
    summary = "no new tick"
    if newest is None:
        summary = "the database cannot be read"
    elif not newest.made:
        summary = "there is no database of an engine"
    elif newest.id is None:
        summary = "the database holds no tick"
    if status is None:
        return f"{summary}, no status of an engine"
    age_s = now_s - status.written_s
    if status.state == "ended":
        return f"{summary}, the engine has ended with {status.exit_code}"
    if not 0 <= age_s < _SILENT_S:
        return (
            f"{summary}, the engine has written no status for {age_s:.0f} s"
            if age_s > 0
            else f"{summary}, no status since boot"
        )
    if status.still_s:
        return f"{summary}, stalled: {', '.join(sorted(status.still_s))}"
    if status.link == "down":
        return f"{summary}, the link is down"
    waiting = sum(status.depths.values())
    return f"{summary}, {waiting} events wait in channels" if waiting else f"{summary}, ingest is not alive"
