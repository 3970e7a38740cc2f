"""Restarts that are due but not yet done: each is requested at every poll until it is done or no longer needed.

One restart serves all causes that are pending. What would not help, or what nothing seen so far speaks for, is not
asked for: the reason is reported once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tradebot.ops.soak.engine_watch import EngineWatch
from tradebot.ops.soak.probes import ProbeReading, Seams
from tradebot.ops.soak.reasons import (
    Cause,
    Obstacle,
    RestartFailed,
    SkipReason,
    ThrottleNotWritten,
    UnitBusy,
    UnitNotRunning,
)
from tradebot.ops.soak.stall import StallDetector, evidence
from tradebot.ops.soak.systemctl import ServiceError
from tradebot.ops.soak.throttle_ladder import Ladder
from tradebot.telemetry.throttle_file import Throttle

NO_PROGRESS = "No progress"


class RestartOutcome(NamedTuple):
    """The result of one attempt for one cause: done if `withheld` is None."""

    cause: Cause
    reason: str
    withheld: SkipReason | Obstacle | None = None
    late: bool = False
    """Whether an earlier attempt, which seemed to have failed, came about after all."""

    def text(self) -> str:
        """The message for people."""
        if self.withheld is None:
            return self.reason + ("; it took effect after all" if self.late else "")
        if isinstance(self.withheld, SkipReason):
            return f"{self.reason}; not restarted: {self.withheld}"
        return f"{self.reason}; not done: {self.withheld}; tried again at the next poll"


class ThrottleKeeper:
    """Keeps the throttle file equal to the step of the ladder."""

    def __init__(self, seams: Seams, ladder: Ladder) -> None:
        """The file agrees with the ladder now."""
        self._seams = seams
        self._ladder = ladder
        self.rung = ladder.rung
        """What the file asks the engine to keep, as far as it could be written."""
        self.due = False
        """Whether it has to be written."""
        self.mended = False
        """Whether the file that was there kept every engine from starting; until the next restart is done."""

    def check(self) -> None:
        """Replace a file with which no engine would start."""
        if self._seams.throttle_broken():
            self.due = self.mended = True

    def write(self) -> ThrottleNotWritten | None:
        """Write the file if necessary; returns the reason of a failure."""
        rung = self._ladder.rung
        try:
            self._seams.throttle(Throttle(rung.sample_every, rung.state, self._seams.now_ms()))
        except OSError as error:
            return ThrottleNotWritten(error.strerror or str(error))
        self.rung, self.due = rung, False
        return None


class PendingRestarts:
    """Add what is due, `review` it at every look, `act` on it; one thread."""

    def __init__(
        self, seams: Seams, unit: str, watch: EngineWatch, stall: StallDetector, throttle: ThrottleKeeper
    ) -> None:
        self._seams = seams
        self._unit = unit
        self._watch = watch
        self._stall = stall
        self._throttle = throttle
        self._pending: dict[Cause, str] = {}
        """Each cause with its message for people."""
        self._suppressed: dict[Cause, SkipReason] = {}
        """The reason that was reported for not asking for a restart, as long as that lasts."""
        self._tried_at: int | None = None
        """The count of the engine's starts when a restart was last asked for in vain: a late one may come about."""
        self.restarts = 0
        """Restarts that were carried out."""
        self.stalls = 0
        """Those of them for a stall."""

    def __contains__(self, cause: Cause) -> bool:
        return cause in self._pending

    def texts(self) -> list[str]:
        """What is pending, for people."""
        return list(self._pending.values())

    def add_step(self, reason: str) -> None:
        """The ladder has changed: write the throttle file and restart the engine."""
        self._pending["ENGINE_RESTART"] = reason
        self._suppressed.pop("ENGINE_RESTART", None)
        self._throttle.due = True

    def add_stall(self, look: ProbeReading) -> None:
        """The engine makes no progress. A pending stall keeps its first message."""
        if "STALL" in self._pending:
            return
        for_s = self._stall.since_progress_s(look.now_s)
        trouble = None if look.unit is None else look.unit.trouble
        why = evidence(look.newest, look.status, look.now_s) if trouble is None else UnitNotRunning(self._unit, trouble)
        self._pending["STALL"] = f"{NO_PROGRESS} for {for_s:.1f} s: {why}"

    def review(self, look: ProbeReading, due: bool) -> bool:
        """Remove what is no longer needed; returns whether a restart for a stall is due. `due`: detector's result."""
        if not self._stall.stalled(look.now_s):
            self._pending.pop("STALL", None)
            self._suppressed.pop("STALL", None)
        if not self._pending:
            self._tried_at = None
        reported = self._suppressed.get("STALL")
        if reported is not None and (why := self._skip_reason(look, "STALL")) is not None:
            self._stall.restarted(look.now_s)  # what was in the way may end: then it has the whole limit to show life
            return why != reported
        return due

    def act(self, look: ProbeReading, psi_actions: bool) -> Iterator[RestartOutcome]:
        """Do everything that is pending, with a single restart; at most one outcome for each cause.

        Each outcome holds when it is handed out, the following ones not yet. Blocks as long as a restart takes.
        """
        if not self._pending:
            return
        if psi_actions:
            self._throttle.check()
        late = self._tried_at is not None and self._watch.starts > self._tried_at and not self._throttle.due
        obstacles = self._throttle_obstacles(look)
        skipped = {
            cause: None if cause in obstacles or late else self._skip_reason(look, cause) for cause in self._pending
        }
        wanted = [cause for cause, why in skipped.items() if why is None and cause not in obstacles]
        if wanted:
            failed = None if late else self._restart(look)
            if failed is None:
                self._tried_at, self._throttle.mended = None, False
                self.restarts += 1
            else:
                obstacles |= dict.fromkeys(wanted, failed)
        for cause, why in skipped.items():
            reason = self._pending[cause]
            if why is not None:
                if self._skip(cause, why):
                    yield RestartOutcome(cause, reason, why)
            elif cause in obstacles:
                yield RestartOutcome(cause, reason, obstacles[cause])
            else:
                self._done(cause)
                yield RestartOutcome(cause, reason, late=late)

    def _skip_reason(self, look: ProbeReading, cause: Cause) -> SkipReason | None:
        return self._watch.skip_reason(look, cause == "STALL", self._throttle.mended)

    def _throttle_obstacles(self, look: ProbeReading) -> dict[Cause, Obstacle]:
        """What waits because the throttle file could not be brought to where the ladder stands, and why."""
        # Beside a database that is not the unit's, it would be another engine's.
        if not self._throttle.due or self._watch.foreign(look) is not None:
            return {}
        failed = self._throttle.write()
        if failed is None:
            self._tried_at = None  # an engine that is starting already may have read the file before
            return {}
        # A stall does not wait for that, unless no engine would start with the file that is there.
        return {cause: failed for cause in self._pending if cause != "STALL" or self._throttle.mended}

    def _restart(self, look: ProbeReading) -> Obstacle | None:
        """Request a restart; returns the reason if it failed."""
        unit = look.unit
        if unit is not None and unit.active in ("activating", "deactivating"):
            return UnitBusy(self._unit, unit.active)
        try:
            self._seams.service.restart()
        except ServiceError as error:
            self._tried_at = self._watch.starts
            return RestartFailed(str(error))
        return None

    def _done(self, cause: Cause) -> None:
        del self._pending[cause]
        self._suppressed.pop(cause, None)
        if cause == "STALL":
            self._stall.restarted(self._seams.now_s())
            self.stalls += 1

    def _skip(self, cause: Cause, why: SkipReason) -> bool:
        """No restart, for that reason; whether it has to be reported, since it was not yet."""
        reported, self._suppressed[cause] = self._suppressed.get(cause) == why, why
        if cause == "STALL":
            self._stall.restarted(self._seams.now_s())
        if cause == "STALL" or not self._throttle.due:
            del self._pending[cause]  # else it waits for the unit's own engine, and is for it
        return not reported
