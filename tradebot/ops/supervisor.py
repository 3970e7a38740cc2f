"""The soak supervisor: looks every few seconds, and has the engine throttled or restarted through the service manager.

`Ladder` and `StallDetector` decide; this reads what they need through seams, acts, and records each decision. A restart
that is decided but could not be had is owed: it is asked for again at every poll until it comes about.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from tradebot.exits import TradebotError
from tradebot.logformat import timestamp
from tradebot.ops.decisions import Action, Decision
from tradebot.ops.ladder import RUNGS, Ladder, Rung
from tradebot.ops.psi import RESOURCES, Pressure, PsiLook
from tradebot.ops.service import Service, ServiceError, Starts, UnitLook
from tradebot.ops.stall import STALL_S, Newest, StallDetector
from tradebot.ops.status import Status
from tradebot.ops.throttle import Throttle

SOAK_START: Final = "Soak Start"
SOAK_END: Final = "Soak End"
PSI_OFF: Final = "PSI actions are off, it would have been: "

_SILENT_S: Final = 3.0
"""A status is written once a second."""

_Cause = Literal["STALL", "ENGINE_RESTART"]


@dataclass(frozen=True)
class Seams:
    """What a supervisor touches. Everything may block shortly, and raises what stands beside it."""

    now_s: Callable[[], float]
    """The monotonic clock of `Status.written_s`."""
    now_ms: Callable[[], int]
    psi: Callable[[], PsiLook]
    newest_tick: Callable[[], Newest]
    """TradebotError."""
    status: Callable[[], Status | None]
    """TradebotError."""
    service: Service
    """ServiceError."""
    throttle: Callable[[Throttle], None]
    """OSError."""
    record: Callable[[Decision], None]
    """Nothing: whoever records decides what to do about a full disk."""
    throttle_broken: Callable[[], bool] = lambda: False
    """Whether there is a throttle file with which no engine would start. Nothing."""


class Look(NamedTuple):
    """One look at everything."""

    now_s: float
    pressure: Pressure
    newest: Newest | None
    status: Status | None
    unit: UnitLook | None
    problems: tuple[str, ...]


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
        self._unwritten = False
        self._proven = False
        self._mended = False
        self._starts = Starts()
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
                self._unwritten = True
            self.aborted = step.move == "abort"
        elif step.move is not None or self._ladder.rung != self._rung:
            reason = PSI_OFF + reason
        if stalled:
            self._owe_stall(look)
        decided = self._act(look)
        if self.aborted:
            decided.append(self._record(look, "ABORT", reason))
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
        unit = self._last.unit if self._last is not None else None
        if unit is not None and unit.trouble is not None:
            found.append(f"{self._unit} is {unit.trouble}")
        if self._last is not None and (foreign := self._foreign(self._last)) is not None:
            found.append(foreign)
        now_s = self._seams.now_s()
        if self._stall.stalled(now_s):
            found.append(f"no progress for {self._stall.since_progress_s(now_s):.1f} s")
        return found

    # ---- looking -------------------------------------------------------------------------------------------------

    def _look(self) -> Look:
        seams = self._seams
        psi = seams.psi()
        problems = list(psi.problems)
        unit: UnitLook | None = None
        status: Status | None = None
        newest: Newest | None = None
        try:
            unit = seams.service.show()
            self._starts.look(unit)
            if unit.trouble is not None:
                problems.append(f"{self._unit} is {unit.trouble}")
        except ServiceError as error:
            problems.append(str(error))
        try:
            status = seams.status()
        except TradebotError as error:
            problems.append(str(error))
        try:
            newest = seams.newest_tick()
        except TradebotError as error:
            problems.append(str(error))
        for resource in RESOURCES:
            value = psi.pressure.some_avg10(resource)
            if value is not None:
                self.maxima[resource] = max(value, self.maxima.get(resource, 0.0))
        # The clock comes last: what was seen was so by now.
        look = Look(seams.now_s(), psi.pressure, newest, status, unit, ())
        if (foreign := self._foreign(look)) is not None and self.polls:
            problems.append(foreign)
        self._last = look._replace(problems=tuple(problems))
        return self._last

    def _detect(self, look: Look) -> bool:
        """Whether a restart for a stall is due."""
        held = look.unit is not None and look.unit.stopped
        due = self._stall.look(look.now_s, look.newest, alive_s(look.status, look.now_s), held)
        if "STALL" in self._owed and not self._stall.stalled(look.now_s):
            del self._owed["STALL"]
        return due

    def _owe_stall(self, look: Look) -> None:
        if "STALL" not in self._owed:
            for_s = self._stall.since_progress_s(look.now_s)
            self._owed["STALL"] = f"No progress for {for_s:.1f} s: {_evidence(look)}"

    # ---- acting --------------------------------------------------------------------------------------------------

    def _act(self, look: Look) -> list[Decision]:
        """Do what is owed, with one restart for all of it; one line for each cause."""
        if not self._owed:
            return []
        if self._psi_actions and self._seams.throttle_broken():
            self._unwritten = self._mended = True
        trouble = self._write_throttle()
        waived = None if trouble else self._waived(look)
        if look.unit is not None and look.unit.active in ("activating", "deactivating") and not waived:
            trouble = trouble or f"{self._unit} is {look.unit.active} already"
        restarted = False
        if trouble is None and waived is None:
            try:
                self._seams.service.restart()
            except ServiceError as error:
                trouble = str(error)
            else:
                restarted = True
                self._mended = False
                self.restarts += 1
        causes = dict(self._owed)
        if trouble is None:
            self._owed.clear()
            if "STALL" in causes:
                self._stall.restarted(self._seams.now_s())
                self.stalls += restarted
        decided = []
        for cause, reason in causes.items():
            if trouble is not None:
                reason += f"; not done: {trouble}; tried again at the next poll"
            elif waived is not None:
                reason += f"; not restarted: {waived}"
            decided.append(self._record(look, cause if restarted else "NONE", reason))
        return decided

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
        return None

    def _foreign(self, look: Look) -> str | None:
        """Why the unit's engine seems to write another database than the one looked at; None where nothing says so.

        A unit that is active has an engine that was ready, and so has written its status. Once its process and that of
        the status were the same, the database is the unit's for as long as this supervisor lives.
        """
        unit, status = look.unit, look.status
        pid = None if unit is None or unit.active != "active" else unit.main_pid
        if self._proven or not pid:
            return None
        if status is not None and status.pid == pid:
            self._proven = True
            return None
        return f"process {pid} of {self._unit} has written no status beside this database: is --db the one it writes?"

    def _waived(self, look: Look) -> str | None:
        """Why a restart is not asked for although it could be."""
        unit = look.unit
        if unit is None:
            return None
        if (foreign := self._foreign(look)) is not None:
            return foreign
        if unit.stopped:
            return f"{self._unit} is {unit.trouble}, and what was stopped is not started; its next start is throttled"
        if unit.refused and not self._mended:
            return (
                f"{self._unit} ended with 12, it refuses its configuration: correct that, its log says what, then start"
            )
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


def alive_s(status: Status | None, now_s: float) -> float | None:
    """When the engine last said that it is well and has nothing left to store; None when it does not say so.

    It is the moment of writing that counts: a stopped process goes on looking alive for as long as its words are fresh.
    """
    if status is None or not status.ingest_alive(now_s) or status.still_s or any(status.depths.values()):
        return None
    return status.written_s


def _evidence(look: Look) -> str:
    """What there was instead of ticks."""
    status, told = look.status, "no new tick"
    if look.newest is None:
        told = "the database cannot be read"
    elif look.newest.id is None:
        told = "the database holds no tick"
    if status is None:
        return f"{told}, no status of an engine"
    age_s = look.now_s - status.written_s
    if status.state == "ended":
        return f"{told}, the engine has ended with {status.exit_code}"
    if not 0 <= age_s < _SILENT_S:
        return (
            f"{told}, the engine has written no status for {age_s:.0f} s"
            if age_s > 0
            else f"{told}, no status since boot"
        )
    if status.still_s:
        return f"{told}, standing still: {', '.join(sorted(status.still_s))}"
    if status.link == "down":
        return f"{told}, the link is down"
    waiting = sum(status.depths.values())
    return f"{told}, {waiting} events wait in channels" if waiting else f"{told}, ingest is not alive"
