"""Which ticks are kept: the sampling invariant, in one place for every feed and mode. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from tradebot.core.events import Tick

if TYPE_CHECKING:
    from tradebot.config.model import Config


def without_sampling(config: Config) -> Config:
    """`config` for ticks that were sampled when they were stored: all of them are kept."""
    return replace(config, engine=replace(config.engine, sample_every=1))


class Intake:
    """Keeps every `sample_every`-th good tick, numbered from 1 over all symbols: those with number % N == 0.

    `sequence` is the number of the last good tick seen; give it to go on where an earlier run stopped.
    `sampled_out` counts the ticks dropped by this object.
    """

    def __init__(self, sample_every: int, sequence: int = 0) -> None:
        if sample_every < 1:
            raise ValueError(f"sample_every {sample_every} is not at least 1")
        if sequence < 0:
            raise ValueError(f"sequence {sequence} is negative")
        self.sample_every = sample_every
        self.sequence = sequence
        self.sampled_out = 0

    def keep(self, ticks: list[Tick]) -> list[Tick]:
        """The ticks to keep of the next good `ticks`, in order. May return the list it was given. Never blocks."""
        count = len(ticks)
        step = self.sample_every
        kept = ticks if step == 1 else ticks[step - 1 - self.sequence % step :: step]
        self.sequence += count
        self.sampled_out += count - len(kept)
        return kept
