"""The strategy stage: hands each tick on to the writer, followed by what it decided from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from msgspec.structs import replace

from tradebot.core.channel import Channel, ChannelClosed
from tradebot.core.events import (
    BP_DROP_SIGNAL,
    Notice,
    OrderChunk,
    PersistItem,
    Signal,
    SignalChunk,
    Tick,
    TickChunk,
    TickItem,
)
from tradebot.execution.breakers import Breakers
from tradebot.execution.shadow import refuse
from tradebot.output.log import Log
from tradebot.store.batch import StoredCounts
from tradebot.strategy.decider import Decider
from tradebot.threads.counters import Metrics
from tradebot.threads.refusal_lines import log_refusal
from tradebot.threads.signal_lines import log_signals

# At most this many events are in a stage's hands at once: part of the bound of what a kill can lose.
MAX_TAKE: Final = 4096


class StrategyStage:
    """Takes ticks, puts ticks and signals on persist and signals on to execution."""

    name = "strategy"

    def __init__(
        self,
        decider: Decider,
        channels: tuple[Channel[TickItem], Channel[SignalChunk], Channel[PersistItem]],
        push: bool,
        stored: StoredCounts,
        metrics: Metrics,
        log: Log,
        breakers: Breakers,
    ) -> None:
        """`stored`: rows at the front of this run that the database holds already; they are not handed on again.

        `breakers` hear of halts here; what they refuse is refused by execution.
        """
        self._decider = decider
        self._breakers = breakers
        self._ticks, self._signals, self._persist = channels
        self._push = push
        self._stored_ticks = stored.ticks
        self._stored_signals = stored.signals
        self._stored_notices = stored.notices
        self._metrics = metrics
        self._log = log.bind(self.name)
        self.inputs = (self._ticks,)
        self.outputs: tuple[Channel[Any], ...] = (self._signals, self._persist)
        self.last_tick: Tick | None = None
        """The newest tick taken. Any thread may read."""
        self.checkpoints = 0
        """How many were passed on."""

    def run(self) -> None:
        """The stage's loop; blocks on its input, on a full persist channel and, in a replay, on a full signal one."""
        while True:
            try:
                items = self._ticks.take(MAX_TAKE)
            except ChannelClosed:
                return
            for item in items:
                if isinstance(item, TickChunk):
                    self._process(item)
                elif isinstance(item, Notice):
                    self._notice(item)
                else:
                    self.checkpoints += 1
                    self._persist.send(replace(item, prices=self._decider.lookback))

    def _notice(self, notice: Notice) -> None:
        self._decider.notice(notice)
        self._breakers.on_notice(notice)
        if self._stored_notices:
            self._stored_notices -= 1
        else:
            self._persist.send(notice)

    def _process(self, chunk: TickChunk) -> None:
        self._metrics.tick_count += len(chunk)
        self.last_tick = chunk[-1]
        fresh = chunk.part(self._stored_ticks) if self._stored_ticks else chunk
        self._stored_ticks -= len(chunk) - len(fresh)
        if fresh:
            self._persist.send(fresh)
        signals = self._decider.decide(chunk, halted=self._breakers.view.halted_since_ms is not None)
        if not signals:
            return
        self._metrics.signal_count += len(signals)
        log_signals(self._log, signals)
        new = signals.part(self._stored_signals) if self._stored_signals else signals
        self._stored_signals -= len(signals) - len(new)
        if new:
            self._persist.send(new)
        if not self._push:
            self._signals.send(signals)
            return
        accepted = self._signals.offer(signals)
        if accepted < len(signals):
            self._drop(signals[accepted:])

    def _drop(self, signals: Sequence[Signal]) -> None:
        """A push feed's signal is never executed late: it becomes a refused order at once (G5)."""
        self._metrics.bp_drops_signal += len(signals)
        self._decider.return_marks(signals)
        orders = OrderChunk([refuse(signal, BP_DROP_SIGNAL) for signal in signals])
        for order in orders:
            log_refusal(self._log, order, "signal channel full")
        self._persist.send(orders)
