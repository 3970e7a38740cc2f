"""The system calls of the soak supervisor (`Seams`), and the readings of one poll (`ProbeReading`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from tradebot.ops.soak.decision_log import SoakDecision
from tradebot.ops.soak.psi import Pressure, PsiLook
from tradebot.ops.soak.reasons import Problem
from tradebot.ops.soak.stall import Newest
from tradebot.ops.soak.systemctl import Service, UnitLook
from tradebot.telemetry.status_file import Status
from tradebot.telemetry.throttle_file import Throttle


@dataclass(frozen=True)
class Seams:
    """The supervisor's access to the system. Calls may block for a short time; each raises the error named with it."""

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
    record: Callable[[SoakDecision], None]
    """Raises nothing: the recorder decides what to do about a full disk."""
    throttle_broken: Callable[[], bool] = lambda: False
    """Whether there is a throttle file with which no engine would start. Nothing."""
    database: str = "this database"
    """Its name, for people."""


class ProbeReading(NamedTuple):
    """The readings of one poll."""

    now_s: float
    pressure: Pressure
    newest: Newest | None
    status: Status | None
    unit: UnitLook | None
    problems: tuple[Problem, ...]
    mute: bool = False
    """Whether there is a status that could not be read."""
