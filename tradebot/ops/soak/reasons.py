"""Reasons as values: problems of a look, why the engine is restarted or not, and why a soak ends.

`str` of each is the message for people; no code reads it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from msgspec import Struct

Cause = Literal["STALL", "ENGINE_RESTART"]
"""What a restart is for: no progress, or a step of the throttle ladder. Also the action of the decision about it."""


class SoakEnding(StrEnum):
    """Why a soak ended."""

    STOP_SIGNAL = "a stop signal"
    DURATION_OVER = "its duration is over"
    ABORTED = "the pressure stayed too high"


class ForeignDatabase(Struct, frozen=True):
    """The unit's engine seems to write another database than the one looked at."""

    unit: str
    unit_pid: int
    status_pid: int | None
    """The process that writes the status beside this database; None if no process does."""

    def __str__(self) -> str:
        if self.status_pid is not None:
            return (
                f"process {self.status_pid} writes the status beside this database,"
                f" and {self.unit} is process {self.unit_pid}"
            )
        return f"process {self.unit_pid} of {self.unit} has written no status beside this database{db_hint(self.unit)}"


class DatabaseMissing(Struct, frozen=True):
    """A process says that it writes a database, or that it wrote it, and there is none."""

    pid: int
    ended: bool

    def __str__(self) -> str:
        writes = "wrote" if self.ended else "writes"
        return f"the database does not exist, although process {self.pid} {writes} it: was it moved away?"


class Unreadable(Struct, frozen=True):
    """A source that a look could not read, or not whole."""

    source: Literal["psi", "unit", "status", "ticks"]
    detail: str

    def __str__(self) -> str:
        return self.detail


class UnitNotRunning(Struct, frozen=True):
    """The service manager reports that the unit is not running."""

    unit: str
    trouble: str

    def __str__(self) -> str:
        return f"{self.unit} is {self.trouble}"


class UnitStopped(Struct, frozen=True):
    """A user has stopped the unit, or its run is complete."""

    unit: str
    trouble: str | None

    def __str__(self) -> str:
        return f"{self.unit} is {self.trouble}, and soak does not start a stopped unit; its next start is throttled"


class ConfigurationRefused(Struct, frozen=True):
    """The engine exited with 12: another start would have the same result."""

    unit: str

    def __str__(self) -> str:
        return f"{self.unit} exited with 12 (configuration error): correct it (see its log), then start the unit"


class EngineNeverSeen(Struct, frozen=True):
    """No sign of an engine was ever found in or beside the database."""

    unit: str
    database: str

    def __str__(self) -> str:
        return f"no engine was ever seen in {self.database}, so no stall can be detected{db_hint(self.unit)}"


class ThrottleNotWritten(Struct, frozen=True):
    """The throttle file could not be set to the step of the ladder."""

    detail: str

    def __str__(self) -> str:
        return f"throttle file: {self.detail}"


class UnitBusy(Struct, frozen=True):
    """The manager is already starting or stopping the unit."""

    unit: str
    active: str

    def __str__(self) -> str:
        return f"{self.unit} is already {self.active}"


class RestartFailed(Struct, frozen=True):
    """A restart was requested and failed."""

    detail: str

    def __str__(self) -> str:
        return self.detail


Problem = Unreadable | UnitNotRunning | ForeignDatabase
"""What is recorded about a look, once as long as it lasts."""
SkipReason = ForeignDatabase | UnitStopped | ConfigurationRefused | EngineNeverSeen
"""Why a restart is not asked for, although it could be."""
Obstacle = ThrottleNotWritten | UnitBusy | RestartFailed
"""What kept a restart from being carried out. It is tried again at the next poll."""


def db_hint(unit: str) -> str:
    """A question that helps if a running engine leaves no trace."""
    return f": is --db the one that {unit} writes?"
