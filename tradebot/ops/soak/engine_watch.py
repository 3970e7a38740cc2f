"""The supervisor's view of the engine: pressure, unit, status and ticks at each poll, and what follows from all polls.

Reads through `Seams`, decides nothing.
"""

from __future__ import annotations

from tradebot.core.errors import TradebotError
from tradebot.ops.soak.probes import ProbeReading, Seams
from tradebot.ops.soak.psi import RESOURCES
from tradebot.ops.soak.reasons import (
    ConfigurationRefused,
    EngineNeverSeen,
    ForeignDatabase,
    Problem,
    SkipReason,
    UnitNotRunning,
    UnitStopped,
    Unreadable,
    db_hint,
)
from tradebot.ops.soak.stall import Newest, database_missing
from tradebot.ops.soak.systemctl import ServiceError, Sight, Starts, UnitLook
from tradebot.telemetry.status_file import Status


class EngineWatch:
    """Call `look` before each decision; one thread."""

    def __init__(self, seams: Seams, unit: str) -> None:
        self._seams = seams
        self._unit = unit
        self._starts = Starts()
        self._sight = Sight()
        self._proven = False
        """Whether the unit was once seen to write this database."""
        self._found = False
        """Whether there ever was anything of an engine in or beside this database, be it an old one's."""
        self._engine_seen = False
        self.last: ProbeReading | None = None
        """The newest look."""
        self.maxima: dict[str, float] = {}
        """The greatest some avg10 of each resource."""

    @property
    def starts(self) -> int:
        """Starts of the engine observed since the first poll, requested by the soak or not."""
        return self._starts.count

    def look(self) -> ProbeReading:
        """Read everything. What cannot be read is a problem of this look. Blocks for a short time."""
        seams = self._seams
        psi = seams.psi()
        problems: list[Problem] = [Unreadable("psi", problem) for problem in psi.problems]
        unit, unseen = self._look_at_unit(problems)
        status, mute = self._read_status(problems)
        newest = self._read_newest(problems)
        for resource in RESOURCES:
            value = psi.pressure.some_avg10(resource)
            if value is not None:
                self.maxima[resource] = max(value, self.maxima.get(resource, 0.0))
        # The clock comes last: what was seen was so by now.
        look = ProbeReading(seams.now_s(), psi.pressure, newest, status, unit, (), mute)
        self._sight.look(look.now_s, unseen)
        foreign = self.foreign(look)
        if foreign is not None and self.last is not None:  # an engine that is starting may have written no status yet
            problems.append(foreign)
        self.last = look._replace(problems=tuple(problems))
        return self.last

    def _look_at_unit(self, problems: list[Problem]) -> tuple[UnitLook | None, str | None]:
        """The unit, or why it could not be read."""
        unit, unseen = None, None
        try:
            unit = self._seams.service.show()
            self._starts.look(unit)
            if unit.trouble is not None:
                problems.append(UnitNotRunning(self._unit, unit.trouble))
            if unit.silent:
                unseen = f"the service manager reports nothing about {self._unit}"
        except ServiceError as error:
            unseen = str(error)
        if unseen is not None:
            problems.append(Unreadable("unit", unseen))
        return unit, unseen

    def _read_status(self, problems: list[Problem]) -> tuple[Status | None, bool]:
        """The status, and whether there is one that could not be read."""
        try:
            status = self._seams.status()
        except TradebotError as error:
            self._found = True
            problems.append(Unreadable("status", str(error)))
            return None, True
        self._found |= status is not None
        return status, False

    def _read_newest(self, problems: list[Problem]) -> Newest | None:
        try:
            newest = self._seams.newest_tick()
        except TradebotError as error:
            self._found = True  # there is something, and it may be read later
            problems.append(Unreadable("ticks", str(error)))
            return None
        self._found |= newest.made
        return newest

    def note_engine(self, look: ProbeReading, moved: bool) -> None:
        """Record whether a running engine was seen; `moved`: whether a new tick was ever seen."""
        runs = self._found and look.unit is not None and look.unit.active == "active"
        self._engine_seen |= moved or runs or (look.status is not None and look.status.fresh(look.now_s))

    def foreign(self, look: ProbeReading) -> ForeignDatabase | None:
        """Why the unit's engine seems to write another database; None without such evidence.

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
        fresh = status is not None and status.fresh(look.now_s)
        return ForeignDatabase(self._unit, pid, status.pid if status is not None and fresh else None)

    def skip_reason(self, look: ProbeReading, for_stall: bool, mended: bool) -> SkipReason | None:
        """Why a restart is not requested although it would be possible.

        `mended`: the throttle file that was there had kept every engine from starting, and was replaced.
        """
        unit = look.unit
        if (foreign := self.foreign(look)) is not None:
            return foreign
        if unit is not None and unit.stopped:
            return UnitStopped(self._unit, unit.trouble)
        if unit is not None and unit.refused and not mended:
            return ConfigurationRefused(self._unit)
        # Of an engine that is known not to run none need be seen. But pressure is the machine's: it needs no database.
        if for_stall and not self._found and (unit is None or unit.trouble is None):
            return EngineNeverSeen(self._unit, self._seams.database)
        return None

    def troubles(self, limit_s: float) -> list[str]:
        """The problems of unit, database and engine at the last look, for people."""
        look, found = self.last, []
        if look is None:
            return []
        trouble = None if look.unit is None else look.unit.trouble
        if trouble is not None:
            found.append(str(UnitNotRunning(self._unit, trouble)))
        if (lost := self._sight.lost(self._seams.now_s(), limit_s)) is not None:
            found.append(lost)
        if (wrong := self.foreign(look) or database_missing(look.status, look.newest, look.now_s)) is not None:
            found.append(str(wrong))
        elif not self._engine_seen:
            hint = "" if trouble is not None else db_hint(self._unit)
            found.append(f"neither a tick nor an engine was ever seen in {self._seams.database}{hint}")
        return found
