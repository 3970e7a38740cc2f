"""From chunks of ticks to signals: cuts chunks into runs of one symbol, numbers ticks, derives ids, carries marks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter

from tradebot.core.events import BUY, SELL, Notice, Signal, SignalChunk, Tick, TickChunk
from tradebot.core.ids import event_prefix
from tradebot.strategy.base import Strategy

_symbol_of = attrgetter("symbol")


def symbol_runs(ticks: Sequence[Tick]) -> Iterator[tuple[str, Sequence[Tick]]]:
    """Consecutive ticks of one symbol, as (symbol, ticks)."""
    if isinstance(ticks, TickChunk) and ticks.symbol is not None:
        yield ticks.symbol, ticks
        return
    for symbol, run in groupby(ticks, _symbol_of):
        yield symbol, list(run)


class Decider:
    """Numbers the kept ticks of one run (from 1) and turns the strategy's decisions into signals."""

    def __init__(self, strategy: Strategy, run_id: str, desired_size: float, confidence: float) -> None:
        self.strategy = strategy
        self._run_id = run_id
        self._desired_size = desired_size
        self._confidence = confidence
        self._marks: dict[str, float] = {}
        self.ticks_seen = 0
        self.lookback = max(1, strategy.lookback)
        """How many last prices of a symbol a restart must find."""

    def notice(self, notice: Notice) -> None:
        """Pass a notice to the strategy, at its position between two ticks."""
        self.strategy.on_notice(notice)

    def decide(self, ticks: Sequence[Tick], halted: bool = False) -> SignalChunk:
        """Signals for a chunk of at least one tick, in order. How ticks are cut into chunks never changes a signal.

        `halted` is passed on in them: execution is another thread, and must know what held at these ticks.
        """
        signals = SignalChunk()
        number = self.ticks_seen
        for symbol, run in symbol_runs(ticks):
            decisions = self.strategy.on_ticks(symbol, run)
            for index, side, reason in decisions:
                if side != BUY and side != SELL:
                    raise ValueError(f"strategy {self.strategy.name} decided for side {side!r}, which is not a side")
                tick = run[index]
                self._marks.pop(symbol, None)
                signals.append(
                    Signal(
                        event_id=event_prefix(self._run_id, number + index + 1) + "-S",
                        symbol=symbol,
                        side=side,
                        confidence=self._confidence,
                        reason=reason,
                        desired_size=self._desired_size,
                        price=tick.price,
                        ts=tick.ts,
                        marks=self._take_marks(),
                        halted=halted,
                    )
                )
            if not decisions or decisions[-1][0] < len(run) - 1:
                self._marks[symbol] = run[-1].price
            number += len(run)
        self.ticks_seen = number
        return signals

    def _take_marks(self) -> tuple[tuple[str, float], ...]:
        if not self._marks:
            return ()
        marks = tuple(self._marks.items())
        self._marks.clear()
        return marks

    @property
    def pending_marks(self) -> dict[str, float]:
        """Prices that changed since the last signal: what execution does not know yet. Any thread may read."""
        return self._marks.copy()

    def return_marks(self, signals: Sequence[Signal]) -> None:
        """Signals that never reached execution give their marks back, so that the next one carries them."""
        returned: dict[str, float] = {}
        for signal in signals:
            returned.update(signal.marks)
            returned[signal.symbol] = signal.price
        self._marks = returned | self._marks
