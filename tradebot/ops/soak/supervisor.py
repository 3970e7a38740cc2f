"""The soak supervisor: checks every few seconds, and throttles or restarts the engine through the service manager.

`EngineWatch` looks, `Ladder` and `StallDetector` decide, `PendingRestarts` acts; this joins them and records each
decision.
"""

from __future__ import annotations

from typing import Final

from tradebot.ops.soak.decision_log import Action, SoakDecision
from tradebot.ops.soak.engine_watch import EngineWatch
from tradebot.ops.soak.pending_restarts import PendingRestarts, RestartOutcome, ThrottleKeeper
from tradebot.ops.soak.probes import ProbeReading, Seams
from tradebot.ops.soak.reasons import Problem, SoakEnding
from tradebot.ops.soak.stall import STALL_S, StallDetector, alive_s
from tradebot.ops.soak.throttle_ladder import RUNGS, Ladder, Rung
from tradebot.output.log_format import timestamp

SOAK_START: Final = "Soak Start"
SOAK_END: Final = "Soak End"
PSI_OFF: Final = "PSI actions are off, it would have been: "


class Supervisor:
    """`begin` once, `poll` every few seconds, `check_stall` when `due_s` is reached between two polls; one thread."""

    def __init__(
        self,
        seams: Seams,
        unit: str,
        rung: Rung = RUNGS[0],
        psi_actions: bool = True,
        stall_s: float = STALL_S,
    ) -> None:
        """`rung`: that of the existing throttle file. Without `psi_actions` pressure is only recorded."""
        self._seams = seams
        self._psi_actions = psi_actions
        self._ladder = Ladder(rung)
        self._stall = StallDetector(seams.now_s(), stall_s)
        self._watch = EngineWatch(seams, unit)
        self._throttle = ThrottleKeeper(seams, self._ladder)
        self._pending = PendingRestarts(seams, unit, self._watch, self._stall, self._throttle)
        self._recorded: frozenset[Problem] = frozenset()
        """The problems of the newest line."""
        self.polls = 0
        self.aborted = False

    @property
    def rung(self) -> Rung:
        """The step in the throttle file, as far as it could be written."""
        return self._throttle.rung

    @property
    def throttled(self) -> bool:
        """Whether the engine has been started since the last step of the ladder, as far as the supervisor knows."""
        return "ENGINE_RESTART" not in self._pending

    @property
    def restarts(self) -> int:
        """The number of restarts carried out for this soak."""
        return self._pending.restarts

    @property
    def stalls(self) -> int:
        """The number of those for a stall."""
        return self._pending.stalls

    @property
    def other_starts(self) -> int:
        """The number of observed starts that this soak did not request."""
        return max(0, self._watch.starts - self.restarts)

    @property
    def maxima(self) -> dict[str, float]:
        """The greatest some avg10 of each resource."""
        return self._watch.maxima

    @property
    def due_s(self) -> float:
        """When a stall is due unless there is progress."""
        return self._stall.due_s

    @property
    def last(self) -> ProbeReading | None:
        """The newest look, for the live line."""
        return self._watch.last

    def since_s(self) -> tuple[float, float]:
        """Seconds since the last progress, and since the last new tick."""
        now_s = self._seams.now_s()
        return self._stall.since_progress_s(now_s), self._stall.since_tick_s(now_s)

    def begin(self, detail: str = "") -> SoakDecision:
        """The first look, which makes no decision: its line is the first of the soak."""
        look = self._watch.look()
        self._detect(look)
        return self._record(look, "NONE", SOAK_START, detail)

    def poll(self) -> list[SoakDecision]:
        """Look, decide and act. Blocks as long as a restart takes."""
        self.polls += 1
        look = self._watch.look()
        stalled = self._detect(look)
        step = self._ladder.look(look.pressure.cpu_some_avg10)
        reason = step.reason
        if self._psi_actions:
            if step.move in ("up", "down"):
                self._pending.add_step(reason)
            self.aborted = step.move == "abort"
        elif step.move is not None or self._ladder.rung != self.rung:
            reason = PSI_OFF + reason
        if stalled:
            self._pending.add_stall(look)
        decided = self._act(look)
        if self.aborted:
            if not self.throttled:
                reason += ": not done, because the restart for the last step is still pending"
            decided.append(self._record(look, "ABORT", reason, *self.unwell()))
        elif not decided or (step.move is not None and not self._psi_actions):
            decided.append(self._record(look, "NONE", reason))
        return decided

    def check_stall(self) -> list[SoakDecision]:
        """Check only for a stall, between two polls. Without one, there is no decision."""
        look = self._watch.look()
        if not self._detect(look):
            return []
        self._pending.add_stall(look)
        return self._act(look)

    def end(self, ending: SoakEnding) -> SoakDecision:
        """The last look and the last line."""
        look = self._watch.look()
        self._detect(look)
        return self._record(look, "NONE", f"{SOAK_END}: {ending.value}", *self.unwell())

    def unwell(self) -> list[str]:
        """The problems of the engine at the last look; empty if it works, or waits in a quiet market."""
        found = [f"still pending: {reason}" for reason in self._pending.texts()]
        if self.last is None:
            return found
        found += self._watch.troubles(self._stall.limit_s)
        now_s = self._seams.now_s()
        if self._stall.stalled(now_s):
            found.append(f"no progress for {self._stall.since_progress_s(now_s):.1f} s")
        return found

    def _detect(self, look: ProbeReading) -> bool:
        """Whether a restart for a stall is due."""
        alive = alive_s(look.status, look.newest, look.now_s)
        due = self._stall.look(look.now_s, look.newest, alive, look.unit is not None and look.unit.stopped)
        self._watch.note_engine(look, self._stall.moved)
        return self._pending.review(look, due)

    def _act(self, look: ProbeReading) -> list[SoakDecision]:
        """Do what is pending; each outcome is recorded before the next one."""
        decided = []
        for outcome in self._pending.act(look, self._psi_actions):
            action: Action = outcome.cause if outcome.withheld is None else "NONE"
            decided.append(self._record(look, action, outcome.text(), outcome=outcome))
        return decided

    def _record(
        self, look: ProbeReading, action: Action, reason: str, *notes: str, outcome: RestartOutcome | None = None
    ) -> SoakDecision:
        """One line. A lasting problem is reported once, and again after it had disappeared."""
        now_ms = self._seams.now_ms()
        fresh = [str(problem) for problem in look.problems if problem not in self._recorded]
        self._recorded = frozenset(look.problems)
        decision = SoakDecision(
            timestamp=timestamp(now_ms),
            ts_ms=now_ms,
            state=self.rung.state,
            action=action,
            reason=reason,
            pressure=look.pressure,
            seconds_since_progress=round(self._stall.since_progress_s(look.now_s), 3),
            seconds_since_tick=round(self._stall.since_tick_s(look.now_s), 3),
            sample_every=self.rung.sample_every,
            restarts=self.restarts,
            stalls=self.stalls,
            engine_starts=self._watch.starts,
            unit_state=None if look.unit is None else look.unit.active,
            detail="; ".join(dict.fromkeys(note for note in (*notes, *fresh) if note)) or None,
            cause=None if outcome is None else outcome.cause,
            withheld=None if outcome is None else outcome.withheld,
        )
        self._seams.record(decision)
        return decision
