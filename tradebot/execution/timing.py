"""Refusals that depended on time: of a signal that was too old, or found no room. A replay of the run repeats them.

Nothing else in a run depends on the clock or on how fast its threads were, so with these a replay decides as the run
did. Pure.
"""

from __future__ import annotations

from typing import Final, Protocol

from tradebot.core.events import BP_DROP_SIGNAL, STALE_DATA
from tradebot.execution.risk import Refusal

TIMING_REASONS: Final = (BP_DROP_SIGNAL, STALE_DATA)
"""The reason codes of these refusals."""


class TimingRefusals(Protocol):
    """The refusals of the run that is replayed. One thread asks, about ascending tick numbers."""

    def of(self, number: int) -> Refusal | None:
        """How all signals of tick `number` (from 1, in the replay) are refused; None: they were not, for timing.

        May block for a read of the database. Raises ConfigError, OverloadError.
        """
        ...
