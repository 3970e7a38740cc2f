"""Refusals that depended on time: of a signal that was too old, or found no room. A replay of the run repeats them.

Nothing else in a run depends on the clock or on how fast its threads were, so with these a replay decides as the run
did. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from tradebot.core.events import BP_DROP_SIGNAL, STALE_DATA
from tradebot.execution.risk import Refusal, check_tick_age

TIMING_REASONS: Final = (BP_DROP_SIGNAL, STALE_DATA)
"""The reason codes of these refusals."""


class TimingRefusals(Protocol):
    """The refusals of the run that is replayed, or by the clock. One thread asks, about ascending tick numbers."""

    def of(self, number: int, ts: int) -> Refusal | None:
        """How all signals of tick `number` (from 1) with time `ts` are refused; None: they are not, for timing.

        May block for a read of the database. Raises ConfigError, OverloadError.
        """
        ...


class TooOld:
    """Refuses the signals of ticks that are older than `max_tick_age_ms` (0: none is) by `clock` (Unix ms UTC)."""

    def __init__(self, clock: Callable[[], int], max_tick_age_ms: int) -> None:
        self._clock = clock
        self._max_tick_age_ms = max_tick_age_ms

    def of(self, number: int, ts: int) -> Refusal | None:
        """See `TimingRefusals`; never blocks."""
        return check_tick_age(ts, self._clock(), self._max_tick_age_ms) if self._max_tick_age_ms else None


class Recorded:
    """Refusals by tick number, as a stored run has them."""

    def __init__(self, refusals: Mapping[int, Refusal]) -> None:
        self._refusals = refusals

    def of(self, number: int, ts: int) -> Refusal | None:
        """See `TimingRefusals`; never blocks."""
        return self._refusals.get(number)
