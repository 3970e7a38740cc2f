"""A strategy for the tests of the stages."""

from __future__ import annotations

from collections.abc import Sequence

from tradebot.config.model import Config
from tradebot.core.events import BUY, Tick
from tradebot.strategy.base import Decision, Strategy, SymbolHistory


class Always(Strategy):
    """Buys at each tick. Constructed by the tests, for feeds without stored ticks."""

    name = "always"
    lookback = 0

    @classmethod
    def from_config(cls, config: Config) -> Strategy:
        raise AssertionError("tests construct it directly")

    def restore(self, symbol: str, history: SymbolHistory) -> None:
        raise AssertionError("nothing is stored that could be restored")

    def on_ticks(self, symbol: str, ticks: Sequence[Tick]) -> list[Decision]:
        return [Decision(index, BUY, "ALWAYS") for index in range(len(ticks))]
