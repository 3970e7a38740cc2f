"""Ticks on their way to the writer together with what they caused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

from tradebot.core.events import Tick, TickChunk, TickOutcome


class OutcomeTicks(TickChunk):
    """Consecutive ticks with all that they caused. A tick and its outcome stay together, wherever a chunk is cut.

    `first_number` is the number of the first tick in the run; `outcomes` are in the order of their ticks, which they
    hold too.
    """

    __slots__ = ("first_number", "outcomes")

    def __init__(
        self, ticks: Iterable[Tick], symbol: str | None, first_number: int, outcomes: Sequence[TickOutcome]
    ) -> None:
        super().__init__(ticks, symbol)
        self.first_number = first_number
        self.outcomes = outcomes

    def part(self, begin: int, end: int | None = None) -> Self:
        """As of every chunk, with the outcomes of those ticks."""
        ticks = self[begin:end]
        first = self.first_number + begin
        within = [one for one in self.outcomes if first <= one.number < first + len(ticks)]
        return type(self)(ticks, self.symbol, first, within)
