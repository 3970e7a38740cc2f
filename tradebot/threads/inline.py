"""The strategy stage with execution inside it: each tick goes on to the writer together with all that it caused.

So a decision can depend on what became of earlier orders without depending on how fast a thread is. `ReportStage` takes
the place of the execution stage: it gets copies, counts them and logs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from tradebot.core.channel import Channel, ChannelClosed
from tradebot.core.events import (
    Checkpoint,
    Notice,
    OutcomeChunk,
    PersistItem,
    Tick,
    TickChunk,
    TickItem,
    TickOutcome,
    origin_of,
)
from tradebot.core.outcome_ticks import OutcomeTicks
from tradebot.execution.base import InlineExecutor
from tradebot.store.batch import StoredCounts
from tradebot.strategy.base import Strategy
from tradebot.strategy.decider import symbol_runs
from tradebot.threads.counters import Metrics
from tradebot.threads.strategy import MAX_TAKE


class InlineStage:
    """Takes ticks; puts ticks with their outcomes on persist, and copies of the outcomes on the signal channel.

    Every full channel waits: nothing is dropped here, whatever the feed.
    """

    name = "strategy"

    def __init__(
        self,
        strategy: Strategy,
        execution: InlineExecutor,
        channels: tuple[Channel[TickItem], Channel[OutcomeChunk], Channel[PersistItem]],
        stored: StoredCounts,
        metrics: Metrics,
        before: Sequence[Notice] = (),
        save_first: bool = False,
    ) -> None:
        """`stored`: rows at the front of this run that the database holds already; they are not handed on again.

        `before`: the notices that come before everything else and do not pass here. `save_first`: a checkpoint comes
        before everything else: no other state has this run's configuration, or what it begins with.

        A transaction holds whole ticks, so what the stored ticks caused is stored with them.
        """
        self._strategy = strategy
        self._execution = execution
        self._ticks, self._reports, self._persist = channels
        self._stored_ticks = stored.ticks
        self._stored_notices = stored.notices
        self._metrics = metrics
        self._inputs = sum(origin_of(notice.kind) == "INPUT" for notice in before)
        """Notices of origin INPUT since the last tick."""
        self._save_first = save_first
        self._lookback = max(1, strategy.lookback)
        self._number = 0
        self.inputs = (self._ticks,)
        self.outputs: tuple[Channel[Any], ...] = (self._reports, self._persist)
        self.last_tick: Tick | None = None
        """The newest tick taken. Any thread may read."""
        self.checkpoints = 0
        """How many were passed on."""
        self.notices_added = 0
        """How many notices arose here."""

    def run(self) -> None:
        """The stage's loop; blocks on its input and on full channels."""
        if self._save_first:
            self._checkpoint(Checkpoint(0))
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
                    self._checkpoint(item)

    def _checkpoint(self, checkpoint: Checkpoint) -> None:
        state = self._execution.state()
        self._persist.send(replace(checkpoint, prices=self._lookback, state=state, inputs=self._inputs))

    def _notice(self, notice: Notice) -> None:
        self._inputs += origin_of(notice.kind) == "INPUT"
        self._strategy.on_notice(notice)
        self._execution.on_notice(notice)
        if self._stored_notices:
            self._stored_notices -= 1
        else:
            self._persist.send(notice)

    def _process(self, chunk: TickChunk) -> None:
        begin, self._inputs = self._number, 0
        outcomes: list[TickOutcome] = []
        for symbol, run in symbol_runs(chunk):
            decisions = self._strategy.on_ticks(symbol, run)
            outcomes += self._execution.on_ticks(symbol, run, self._number + 1, decisions)
            self._number += len(run)
        self.notices_added += sum([len(outcome.notices) for outcome in outcomes])
        self._execution.publish()
        self._metrics.tick_count += len(chunk)
        self.last_tick = chunk[-1]
        stored = max(0, min(self._stored_ticks - begin, len(chunk)))
        if stored < len(chunk):
            with_outcomes = OutcomeTicks(chunk, chunk.symbol, begin + 1, outcomes) if outcomes else chunk
            self._persist.send(with_outcomes.part(stored) if stored else with_outcomes)
        if outcomes:
            if stored:
                self._stored_notices -= sum(len(one.notices) for one in outcomes if one.number <= self._stored_ticks)
            self._metrics.signal_count += sum([len(outcome.signals) for outcome in outcomes])
            self._reports.send(OutcomeChunk(outcomes))
