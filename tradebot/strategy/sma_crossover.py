"""The crossover of two simple moving averages per symbol, decided by exact arithmetic (see `sma_window`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Final

from tradebot.core.errors import ConfigError
from tradebot.core.events import Tick
from tradebot.strategy.base import Decision, Strategy, SymbolHistory
from tradebot.strategy.sma_window import PriceWindow, Shape

if TYPE_CHECKING:
    from tradebot.config.model import Config

MAX_WINDOW: Final = 100_000


class SmaCrossover(Strategy):
    """BUY when the short average rises above the long one, SELL when it falls below.

    With diff = short - long of consecutive full windows: previous <= 0 and now > 0 is a BUY, previous >= 0 and now < 0
    a SELL. Nothing before `long` prices of a symbol, and the first full window only sets what the next compares with.
    """

    name: ClassVar[str] = "sma_crossover"
    unread: ClassVar[frozenset[str]] = frozenset({"engine.signal_every_n_ticks"})

    def __init__(self, short_window: int, long_window: int) -> None:
        """Windows in ticks. Raises ConfigError unless 1 <= short < long <= MAX_WINDOW."""
        if not 1 <= short_window < long_window <= MAX_WINDOW:
            raise ConfigError(
                f"strategy.short_window = {short_window}, strategy.long_window = {long_window}: "
                f"must be 1 <= short_window < long_window <= {MAX_WINDOW}"
            )
        self.lookback = long_window
        self._shape = Shape(short_window, long_window)
        self._windows: dict[str, PriceWindow] = {}

    @classmethod
    def from_config(cls, config: Config) -> SmaCrossover:
        """With `strategy.short_window` and `strategy.long_window`."""
        return cls(config.strategy.short_window, config.strategy.long_window)

    def on_ticks(self, symbol: str, ticks: Sequence[Tick]) -> list[Decision]:
        """See `Strategy.on_ticks`. With an observer, each tick gives it one SMA_CALC record."""
        window = self._windows.get(symbol)
        if window is None:
            window = self._windows[symbol] = PriceWindow(self._shape)
        if self.observer is None:
            return window.advance(ticks)
        decisions = []
        for index, tick in enumerate(ticks):
            record, decided = self._observed(window, tick)
            self.observer(record)
            decisions += [decision._replace(index=index) for decision in decided]
        return decisions

    def restore(self, symbol: str, history: SymbolHistory) -> None:
        """See `Strategy.restore`. SMA_CALC's `tick` counts on from the number of prices restored."""
        window = self._windows[symbol] = PriceWindow(self._shape)
        window.advance([Tick(symbol, price, 0.0, 0) for price in history.prices])

    def _observed(self, window: PriceWindow, tick: Tick) -> tuple[dict[str, object], list[Decision]]:
        """The SMA_CALC record of one tick (`tick` numbers the symbol's ticks from 0), and what was decided."""
        number = window.seen
        short, long = window.averages()
        prev_diff = short - long if number >= self._shape.long else 0.0
        decided = window.advance((tick,))
        short, long = window.averages()
        quiet = "NONE" if window.seen >= self._shape.long else "WARMUP"
        record: dict[str, object] = {
            "tick": number,
            "symbol": tick.symbol,
            "price": tick.price,
            "ts": tick.ts,
            "short": short,
            "long": long,
            "prev_diff": prev_diff,
            "curr_diff": short - long,
            "emit": bool(decided),
            "action": decided[0].side if decided else quiet,
        }
        return record, decided
