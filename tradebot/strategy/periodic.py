"""The periodic strategy: every n-th tick of a symbol a signal, SELL first, then alternating."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from tradebot.core.errors import ConfigError
from tradebot.core.events import BUY, PERIODIC_TRIGGER, SELL, Side, Tick
from tradebot.strategy.base import Decision, Strategy, SymbolHistory

if TYPE_CHECKING:
    from tradebot.config.model import Config


class Periodic(Strategy):
    """Decides by counting alone, so it exercises everything behind it whatever the market does."""

    name: ClassVar[str] = "periodic"
    unread: ClassVar[frozenset[str]] = frozenset({"strategy.short_window", "strategy.long_window"})

    def __init__(self, every_n_ticks: int) -> None:
        """`every_n_ticks` is counted per symbol. Raises ConfigError when it is below 1."""
        if every_n_ticks < 1:
            raise ConfigError(f"engine.signal_every_n_ticks: {every_n_ticks} is not at least 1")
        self.lookback = every_n_ticks
        self._every = every_n_ticks
        self._state: dict[str, tuple[int, Side]] = {}  # ticks since the last signal, side of the next one

    @classmethod
    def from_config(cls, config: Config) -> Periodic:
        """With `engine.signal_every_n_ticks`."""
        return cls(config.engine.signal_every_n_ticks)

    def on_ticks(self, symbol: str, ticks: Sequence[Tick]) -> list[Decision]:
        """See `Strategy.on_ticks`."""
        since, side = self._state.get(symbol, (0, SELL))
        decisions = []
        # After a restart with a smaller n the next signal may be overdue: then it comes with the next tick.
        index = max(self._every - since, 1) - 1
        while index < len(ticks):
            decisions.append(Decision(index, side, PERIODIC_TRIGGER))
            side = _other(side)
            index += self._every
        since = len(ticks) - 1 - decisions[-1].index if decisions else since + len(ticks)
        self._state[symbol] = (since, side)
        return decisions

    def restore(self, symbol: str, history: SymbolHistory) -> None:
        """See `Strategy.restore`."""
        since = history.ticks_since_signal
        if since is None:
            since = len(history.prices)
        self._state[symbol] = (since, SELL if history.last_side is None else _other(history.last_side))


def _other(side: Side) -> Side:
    return BUY if side == SELL else SELL
