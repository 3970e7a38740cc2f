"""The soak supervisor: looks every few seconds, and has the engine throttled or restarted through the service manager.

`Ladder` and `StallDetector` decide; this reads what they need through seams, acts, and records each decision. A restart
that is decided but could not be had is owed: it is asked for again at every poll until it comes about. What would not
help, or what nothing seen so far speaks for, is not asked for: the reason is recorded once.
"""

from __future__ import annotations

from typing import Final, Literal

from tradebot.core.errors import TradebotError
from tradebot.ops.soak.decision_log import Action, Decision
from tradebot.ops.soak.probes import Look, Seams
from tradebot.ops.soak.psi import RESOURCES
from tradebot.ops.soak.stall import STALL_S, Newest, StallDetector, alive_s, evidence, gone
from tradebot.ops.soak.systemctl import ServiceError, Sight, Starts, UnitLook
from tradebot.ops.soak.throttle_ladder import RUNGS, Ladder, Rung
from tradebot.output.log_format import timestamp
from tradebot.telemetry.status_file import Status
from tradebot.telemetry.throttle_file import Throttle

SOAK_START: Final = "Soak Start"
SOAK_END: Final = "Soak End"
NO_PROGRESS: Final = "No progress"
PSI_OFF: Final = "PSI actions are off, it would have been: "

_Cause = Literal["STALL", "ENGINE_RESTART"]


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
        """`rung`: that of the throttle file as it was found. Without `psi_actions` pressure is only recorded."""
        self._seams = seams
        self._unit = unit
        self._psi_actions = psi_actions
        self._ladder = Ladder(rung)
        self._rung = rung
        self._stall = StallDetector(seams.now_s(), stall_s)
        self._owed: dict[_Cause, str] = {}
        self._spared: dict[_Cause, str] = {}
        """What was recorded of why a restart is not asked for, as long as that lasts."""
        self._tried_at: int | None = None
        """The count of the engine's starts when a restart was last asked for in vain: a late one may come about."""
        self._unwritten = False
        self._proven = False
        self._found = False
        """Whether there ever was anything of an engine in or beside this database, be it an old one's."""
        self._engine_seen = False
        self._mended = False
        self._starts = Starts()
        self._sight = Sight()
        self._told: frozenset[str] = frozenset()
        self._last: Look | None = None
        self.polls = 0
        self.restarts = 0
        self.stalls = 0
        self.aborted = False
        self.maxima: dict[str, float] = {}
        """The greatest some avg10 of each resource."""

    @property
    def rung(self) -> Rung:
        """What the throttle file asks the engine to keep, as far as it could be written."""
        return self._rung

    @property
    def throttled(self) -> bool:
        """Whether the engine was started since the last step of the ladder, as far as it is known here."""
        return "ENGINE_RESTART" not in self._owed

    @property
    def other_starts(self) -> int:
        """Starts of the engine seen since the soak began for which it did not ask."""
        return max(0, self._starts.count - self.restarts)

    @property
    def due_s(self) -> float:
        """When it is a stall unless something moves before."""
        return self._stall.due_s

    @property
    def last(self) -> Look | None:
        """The newest look, for the live line."""
        return self._last

    def since_s(self) -> tuple[float, float]:
        """Seconds since the last progress, and since the last new tick."""
        now_s = self._seams.now_s()
        return self._stall.since_progress_s(now_s), self._stall.since_tick_s(now_s)

    def begin(self, detail: str = "") -> Decision:
        """The first look, which decides nothing: its line is the soak's first."""
        look = self._look()
        self._detect(look)
        return self._record(look, "NONE", SOAK_START, detail)

    def poll(self) -> list[Decision]:
        """One look at everything, and what is to be done about it. Blocks as long as a restart takes."""
        self.polls += 1
        look = self._look()
        stalled = self._detect(look)
        step = self._ladder.look(look.pressure.cpu_some_avg10)
        reason = step.reason
        if self._psi_actions:
            if step.move in ("up", "down"):
                self._owed["ENGINE_RESTART"] = reason
                self._spared.pop("ENGINE_RESTART", None)
                self._unwritten = True
            self.aborted = step.move == "abort"
        elif step.move is not None or self._ladder.rung != self._rung:
            reason = PSI_OFF + reason
        if stalled:
            self._owe_stall(look)
        decided = self._act(look)
        if self.aborted:
            if not self.throttled:
                reason += ": not so, its last step is still owed"
            decided.append(self._record(look, "ABORT", reason, *self.unwell()))
        elif not decided or (step.move is not None and not self._psi_actions):
            decided.append(self._record(look, "NONE", reason))
        return decided

    def check_stall(self) -> list[Decision]:
        """A look between two polls, when a stall is due: only that is looked for. No line when it is none."""
        look = self._look()
        if not self._detect(look):
            return []
        self._owe_stall(look)
        return self._act(look)

    def end(self, why: str) -> Decision:
        """The last look and the last line."""
        look = self._look()
        self._detect(look)
        return self._record(look, "NONE", f"{SOAK_END}: {why}", *self.unwell())

    def unwell(self) -> list[str]:
        """What is wrong with the engine by the last look; empty when it works, or waits in a quiet market."""
        found = [f"still owed: {reason}" for reason in self._owed.values()]
        look, now_s = self._last, self._seams.now_s()
        if look is None:
            return found
        if look.unit is not None and look.unit.trouble is not None:
            found.append(f"{self._unit} is {look.unit.trouble}")
        if (lost := self._sight.lost(now_s, self._stall.limit_s)) is not None:
            found.append(lost)
        if (wrong := self._foreign(look) or gone(look.status, look.newest, look.now_s)) is not None:
            found.append(wrong)
        elif not self._engine_seen:
            found.append(f"no tick and no engine was ever seen in {self._seams.database}{self._doubt()}")
        if self._stall.stalled(now_s):
            found.append(f"no progress for {self._stall.since_progress_s(now_s):.1f} s")
        return found

    # ---- looking -------------------------------------------------------------------------------------------------

    def _look(self) -> Look:
        seams = self._seams
        psi = seams.psi()
        problems = list(psi.problems)
        unseen = None
        unit: UnitLook | None = None
        mute = False
        status: Status | None = None
        newest: Newest | None = None
        try:
            unit = seams.service.show()
            self._starts.look(unit)
            if unit.trouble is not None:
                problems.append(f"{self._unit} is {unit.trouble}")
            if unit.silent:
                unseen = f"the service manager tells nothing of {self._unit}"
        except ServiceError as error:
            unseen = str(error)
        if unseen is not None:
            problems.append(unseen)
        try:
            status = seams.status()
            self._found |= status is not None
        except TradebotError as error:
            self._found = mute = True
            problems.append(str(error))
        try:
            newest = seams.newest_tick()
            self._found |= newest.made
        except TradebotError as error:
            self._found = True  # there is something, and it may be read later
            problems.append(str(error))
        for resource in RESOURCES:
            value = psi.pressure.some_avg10(resource)
            if value is not None:
                self.maxima[resource] = max(value, self.maxima.get(resource, 0.0))
        # The clock comes last: what was seen was so by now.
        look = Look(seams.now_s(), psi.pressure, newest, status, unit, (), mute)
        self._sight.look(look.now_s, unseen)
        if (foreign := self._foreign(look)) is not None and self.polls:
            problems.append(foreign)
        self._last = look._replace(problems=tuple(problems))
        return self._last

    def _detect(self, look: Look) -> bool:
        """Whether a restart for a stall is due."""
        unit, status = look.unit, look.status
        alive = alive_s(status, look.newest, look.now_s)
        due = self._stall.look(look.now_s, look.newest, alive, unit is not None and unit.stopped)
        runs = self._found and unit is not None and unit.active == "active"
        self._engine_seen |= self._stall.moved or runs or (status is not None and status.fresh(look.now_s))
        if not self._stall.stalled(look.now_s):
            self._owed.pop("STALL", None)
            self._spared.pop("STALL", None)
        if not self._owed:
            self._tried_at = None
        if "STALL" in self._spared and (why := self._waived(look, "STALL")) is not None:
            self._stall.restarted(look.now_s)  # what was in the way may end: then it has the whole limit to show life
            return why != self._spared["STALL"]
        return due

    def _owe_stall(self, look: Look) -> None:
        if "STALL" not in self._owed:
            for_s = self._stall.since_progress_s(look.now_s)
            trouble = None if look.unit is None else look.unit.trouble
            what = evidence(look.newest, look.status, look.now_s) if trouble is None else f"{self._unit} is {trouble}"
            self._owed["STALL"] = f"{NO_PROGRESS} for {for_s:.1f} s: {what}"

    # ---- acting --------------------------------------------------------------------------------------------------

    def _act(self, look: Look) -> list[Decision]:
        """Do what is owed, with one restart for all of it; at most one line for each cause."""
        if not self._owed:
            return []
        if self._psi_actions and self._seams.throttle_broken():
            self._unwritten = self._mended = True
        came = self._tried_at is not None and self._starts.count > self._tried_at and not self._unwritten
        trouble = self._unwritten_for(look)
        waived = {cause: None if cause in trouble or came else self._waived(look, cause) for cause in self._owed}
        wanted = [cause for cause, why in waived.items() if why is None and cause not in trouble]
        if wanted:
            failed = None if came else self._restart(look)
            if failed is None:
                self._tried_at, self._mended = None, False
                self.restarts += 1
            else:
                trouble |= dict.fromkeys(wanted, failed)
        decided = []
        for cause, why in waived.items():
            reason = self._owed[cause]
            if why is not None:
                decided += self._spare(look, cause, why)
            elif cause in trouble:
                reason += f"; not done: {trouble[cause]}; tried again at the next poll"
                decided.append(self._record(look, "NONE", reason))
            else:
                self._done(cause)
                decided.append(self._record(look, cause, reason + ("; it came about after all" if came else "")))
        return decided

    def _unwritten_for(self, look: Look) -> dict[_Cause, str]:
        """What waits because the throttle file could not be brought to where the ladder stands, and why."""
        # Beside a database that is not the unit's, it would be another engine's.
        unwritten = None if self._foreign(look) else self._write_throttle()
        if unwritten is None:
            return {}
        # A stall does not wait for that, unless no engine would start with the file that is there.
        return {cause: unwritten for cause in self._owed if cause != "STALL" or self._mended}

    def _restart(self, look: Look) -> str | None:
        """Ask for it; what kept it from being carried out."""
        unit = look.unit
        if unit is not None and unit.active in ("activating", "deactivating"):
            return f"{self._unit} is {unit.active} already"
        try:
            self._seams.service.restart()
        except ServiceError as error:
            self._tried_at = self._starts.count
            return str(error)
        return None

    def _done(self, cause: _Cause) -> None:
        del self._owed[cause]
        self._spared.pop(cause, None)
        if cause == "STALL":
            self._stall.restarted(self._seams.now_s())
            self.stalls += 1

    def _spare(self, look: Look, cause: _Cause, why: str) -> list[Decision]:
        """No restart, for that reason: a line, unless it was told already."""
        reason = self._owed[cause]
        told, self._spared[cause] = self._spared.get(cause) == why, why
        if cause == "STALL":
            self._stall.restarted(self._seams.now_s())
        if cause == "STALL" or not self._unwritten:
            del self._owed[cause]  # else it waits for the unit's own engine, and is for it
        return [] if told else [self._record(look, "NONE", f"{reason}; not restarted: {why}")]

    def _write_throttle(self) -> str | None:
        """Bring the throttle file to where the ladder stands; what kept it from that."""
        if not self._unwritten:
            return None
        rung = self._ladder.rung
        try:
            self._seams.throttle(Throttle(rung.sample_every, rung.state, self._seams.now_ms()))
        except OSError as error:
            return f"throttle file: {error.strerror or error}"
        self._rung, self._unwritten = rung, False
        self._tried_at = None  # an engine that is starting already may have read the file before
        return None

    def _foreign(self, look: Look) -> str | None:
        """Why the unit's engine seems to write another database than the one looked at; None where nothing says so.

        A unit that is active has an engine that was ready, and so has written its status. Once its process and that of
        the status were the same, the database is the unit's for as long as this supervisor lives.
        """
        unit, status = look.unit, look.status
        pid = None if unit is None or unit.active != "active" else unit.main_pid
        if self._proven or not pid or look.mute:
            return None
        if status is not None and status.pid == pid:
            self._proven = True
            return None
        if status is not None and status.fresh(look.now_s):
            return f"process {status.pid} writes the status beside this database, and {self._unit} is process {pid}"
        return f"process {pid} of {self._unit} has written no status beside this database{self._doubt()}"

    def _doubt(self) -> str:
        unit = None if self._last is None else self._last.unit
        return f": is --db the one that {self._unit} writes?" if unit is None or unit.trouble is None else ""

    def _waived(self, look: Look, cause: _Cause) -> str | None:
        """Why a restart is not asked for although it could be."""
        unit = look.unit
        if (foreign := self._foreign(look)) is not None:
            return foreign
        if unit is not None and unit.stopped:
            return f"{self._unit} is {unit.trouble}, and what was stopped is not started; its next start is throttled"
        if unit is not None and unit.refused and not self._mended:
            return (
                f"{self._unit} ended with 12, it refuses its configuration: correct that, its log says what, then start"
            )
        # Of an engine that is known not to run none need be seen. But pressure is the machine's: it needs no database.
        if cause == "STALL" and not self._found and (unit is None or unit.trouble is None):
            return f"no engine was ever seen in {self._seams.database}, so none is known to stand still{self._doubt()}"
        return None

    def _record(self, look: Look, action: Action, reason: str, *notes: str) -> Decision:
        """One line. A problem that lasts is told once, and again after it was gone."""
        now_ms = self._seams.now_ms()
        fresh = [problem for problem in look.problems if problem not in self._told]
        self._told = frozenset(look.problems)
        decision = Decision(
            timestamp=timestamp(now_ms),
            ts_ms=now_ms,
            state=self._rung.state,
            action=action,
            reason=reason,
            pressure=look.pressure,
            seconds_since_progress=round(self._stall.since_progress_s(look.now_s), 3),
            seconds_since_tick=round(self._stall.since_tick_s(look.now_s), 3),
            sample_every=self._rung.sample_every,
            restarts=self.restarts,
            stalls=self.stalls,
            engine_starts=self._starts.count,
            unit_state=None if look.unit is None else look.unit.active,
            detail="; ".join(dict.fromkeys(note for note in (*notes, *fresh) if note)) or None,
        )
        self._seams.record(decision)
        return decision
