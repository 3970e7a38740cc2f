"""Detects stalled stages: those that have work but make no progress. Pure; a quiet market is not a stall."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class StageProgress(NamedTuple):
    """One look at a stage: what it should be doing, and how far it has come (any value that changes)."""

    stage: str
    busy: bool
    reached: object
    allowed_s: float
    """For how long it may be busy without coming any further."""


class StallTimer:
    """Remembers since when each stage has stood still."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[object, float]] = {}

    def look(self, now_s: float, marks: Iterable[StageProgress]) -> dict[str, float]:
        """Stages that have been busy without coming any further for longer than allowed, and for how many seconds."""
        still: dict[str, float] = {}
        for mark in marks:
            known = self._since.get(mark.stage)
            if known is None or not mark.busy or known[0] != mark.reached:
                self._since[mark.stage] = (mark.reached, now_s)
            elif now_s - known[1] > mark.allowed_s:
                still[mark.stage] = now_s - known[1]
        return still
