"""Observes the running engine: its stages, counters and channels, and their invariants between turns.

It finds the stages when their threads are started through the seam; the product itself contains no hook for this.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, Final

from sim.kernel.runtime import SimRuntime
from sim.kernel.scheduler import RUNS
from sim.world.faults import open_files
from sim.world.tick_inputs import ForwardingFeed
from tradebot.core.channel import Channel, event_count
from tradebot.core.events import Checkpoint, Notice, TickChunk
from tradebot.core.ledger import Ledger
from tradebot.core.outcome_ticks import OutcomeTicks
from tradebot.core.runtime import Thread
from tradebot.feeds.base import Feed, FeedBatch
from tradebot.portfolio.account import Account
from tradebot.portfolio.positions import Positions, PositionView
from tradebot.store.batch import StoredCounts
from tradebot.store.spill import Spill
from tradebot.threads.counters import Metrics
from tradebot.threads.inline import InlineStage

CHECK_EVERY_S: Final = 1.0
CHECK_EVERY_STEPS: Final = 61
_RETRY_S: Final = 0.000_7
_TRIES_MAX: Final = 20


class ObservedFeed(ForwardingFeed):
    """`reading` is True while the ingest thread is inside `read`."""

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed)
        self.reading = False
        self.ended = False
        """Whether it has reported its end."""

    def read(self) -> FeedBatch | None:
        """The other feed's next batch."""
        self.reading = True
        batch = self._feed.read()
        self.reading = False
        self.ended = batch is None
        return batch


class EngineObserver:
    """Wraps a process's seam. Everything but `spawn` is the wrapped runtime's."""

    def __init__(self, inner: Any, runtime: SimRuntime) -> None:
        self._inner = inner
        self._runtime = runtime
        self.stages: dict[str, Any] = {}
        self.feed: ObservedFeed | None = None
        self.began_s = 0.0
        """When the last stage was started, in simulated seconds."""
        self._batch: tuple[Any, float] = (None, 0.0)
        self.longest_batch_s = 0.0
        """The longest time that a batch was open while storage worked."""
        self.quiet_checks = 0
        """Number of checks at quiet points."""
        self.turn_checks = 0
        """Number of checks between two turns of threads, where all counts must match too."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def spawn(self, name: str, target: Callable[[], None]) -> Thread:
        """Start a thread; register its stage, if it has one."""
        stage = getattr(getattr(target, "__self__", None), "_stage", None)
        if stage is not None:
            self.stages[stage.name] = stage
            self.began_s = self._runtime.elapsed_s
            if stage.name == "strategy":
                self._held: int = stage._stored_ticks + stage._stored_notices
                self._held_notices: int = stage._stored_notices
            elif stage.name == "persist":
                self._added: int = stage._batch.events  # notices of the start itself
        thread: Thread = self._inner.spawn(name, target)
        return thread

    def wrap_feed(self, feed: Feed) -> Feed:
        """Wrap the feed of the ingest stage."""
        self.feed = ObservedFeed(feed)
        return self.feed

    def drop_tracebacks(self) -> None:
        """Drop the tracebacks of storage errors at the end of a process: their frames reference its connection."""
        persist = self.stages.get("persist")
        error: BaseException | None = None if persist is None else persist.storage_error
        while error is not None:
            error.__traceback__, error = None, error.__cause__ or error.__context__

    def close_leftovers(self) -> None:
        """Close what a killed process left open; its counts stay readable."""
        spilling = getattr(self.stages.get("persist"), "_spilling", None)
        if spilling is not None and spilling._spill is not None:
            spilling._spill._file.close()
        gc.collect()  # objects that no stage owned yet
        if any(name.endswith(".spill") for _descriptor, name in open_files()):
            for thing in gc.get_objects():  # killed while closing: some frame still references it
                if isinstance(thing, Spill):
                    thing._file.close()

    # ---- observations --------------------------------------------------------------------------------------------

    @property
    def began(self) -> bool:
        """Whether every stage was started."""
        return "heartbeat" in self.stages and "ingest" in self.stages

    @property
    def metrics(self) -> Metrics:
        """The engine's counters, at any time after `began`."""
        metrics: Metrics = self.stages["heartbeat"]._metrics
        return metrics

    @property
    def channels(self) -> tuple[Channel[Any], ...]:
        """Tick, signal and persist channel."""
        channels: tuple[Channel[Any], ...] = self.stages["heartbeat"]._channels
        return channels

    @property
    def ticks_stored(self) -> int:
        """Ticks of this process that the writer has confirmed as stored."""
        return int(self.stages["persist"].ticks_stored)

    @property
    def account(self) -> Account:
        """The account of PAPER."""
        account: Account = self.stages["strategy"]._execution.account
        return account

    @property
    def positions(self) -> list[PositionView]:
        """The positions of the execution stage of SHADOW, at the prices of the last ticks."""
        positions: Positions = self.stages["execution"]._execution.positions
        return positions.views(self.stages["strategy"]._decider.pending_marks)

    @property
    def handed_over(self) -> int:
        """Ticks and notices in the pipeline that are not confirmed as stored: the loss of a kill now.

        Events that a resumed run skips do not count.
        """
        strategy = self.stages["strategy"]
        skipped: int = self._held - strategy._stored_ticks - strategy._stored_notices
        if isinstance(strategy, InlineStage):  # counts ticks up to the stored ones, not down
            skipped = min(strategy._number, strategy._stored_ticks) + self._held_notices - strategy._stored_notices
        counts = self._counts
        stored = counts.ticks + counts.notices - self._held
        tick = self.channels[0]
        waiting = tick.depth - self._in_tick  # checkpoints, which produce no rows
        passed_on: int = strategy.checkpoints
        added: int = self._added + getattr(strategy, "notices_added", 0)  # by breakers
        return tick.entered + added - waiting - passed_on - skipped - stored

    @property
    def _in_tick(self) -> int:
        """Ticks and notices in the tick channel."""
        return sum([event_count(item) for item in self.channels[0].queue if not isinstance(item, Checkpoint)])

    @property
    def in_batch(self) -> int:
        """Ticks and notices in the writer's open batch, in the one in commit, and in the spill file."""
        persist = self.stages["persist"]
        batches = [persist._batch]
        found = 0
        handover = persist._handover
        if handover is not None:
            found += handover.waiting_ticks + handover.waiting_notices
            # Between its commit and the confirmation a batch is stored but not confirmed.
            found -= _over(self._counts, handover._confirmed)
            if handover._batch is not None and not handover._batch_is_spilled:
                batches.append(handover._batch)
        return found + sum([len(batch.ticks) + len(batch.notices) for batch in batches])

    @property
    def in_spill(self) -> int:
        """Ticks and notices that the spill file would keep after a kill now."""
        handover = self.stages["persist"]._handover
        if handover is None:
            return 0
        found: int = handover.waiting_ticks + handover.waiting_notices
        return max(0, found - _over(self._counts, handover._confirmed)) if found else 0

    @property
    def ticks_kept(self) -> int:
        """Ticks that the database or the spill file would keep after a kill now."""
        persist, stored = self.stages["persist"], self._counts.ticks
        handover = persist._handover
        if handover is None:
            return stored + int(persist.ticks_spilled)
        waiting: int = handover.waiting_ticks
        return stored + max(0, waiting - (stored - int(handover._confirmed.ticks))) if waiting else stored

    @property
    def _counts(self) -> StoredCounts:
        counts: StoredCounts = self.stages["persist"]._committer.storage.counts
        return counts

    # ---- checks ---------------------------------------------------------------------------------------------------

    def check_periodically(self, seconds: float = CHECK_EVERY_S, steps: int = CHECK_EVERY_STEPS) -> None:
        """Check everything at quiet points every `seconds`, and every `steps` steps, while the process lives."""
        self._runtime.call_at(seconds, lambda: self._check_when_quiet(seconds, 0))
        self._runtime.call_at_step(steps, lambda: self._check_between_turns(steps))

    def _check_between_turns(self, every: int) -> None:
        if self.began and self._runtime.between_turns:
            self.turn_checks += 1
            self.check()
        self._runtime.call_at_step(self._runtime.steps + every, lambda: self._check_between_turns(every))

    def _check_when_quiet(self, every_s: float, tries: int) -> None:
        runtime = self._runtime
        if not self.began:
            runtime.call_at(runtime.elapsed_s + every_s, lambda: self._check_when_quiet(every_s, 0))
            return
        if not quiet(runtime) and tries < _TRIES_MAX:
            runtime.call_at(runtime.elapsed_s + _RETRY_S, lambda: self._check_when_quiet(every_s, tries + 1))
            return
        if quiet(runtime):
            self.quiet_checks += 1
            self.check()
        runtime.call_at(runtime.elapsed_s + every_s, lambda: self._check_when_quiet(every_s, 0))

    def check(self) -> None:
        """Check that all counts match while no thread is in the middle of a turn. Raises AssertionError."""
        for channel in self.channels:
            held = sum([event_count(item) for item in channel.queue])
            assert channel.depth == held == channel.entered - channel.passed, (
                f"channel {channel.name}: depth {channel.depth}, holds {held}, entered {channel.entered},"
                f" passed {channel.passed}"
            )
            assert channel.high_water <= channel.maxsize, (
                f"channel {channel.name} held {channel.high_water} events, its bound is {channel.maxsize}"
            )
        assert self.feed is not None
        if self.feed.reading:
            self._check_ledger()
        persist = self.stages["persist"]
        if persist._committer is not None and persist.storage_error is None:
            self._check_flow()
            self._note_batch(persist)

    def _note_batch(self, persist: Any) -> None:
        """Record how long the open batch has held events."""
        batch, since_s = self._batch
        now_s = self._runtime.elapsed_s
        if not persist._batch.events or persist._committer.storage.failing:
            self._batch = (None, now_s)
        elif batch is not persist._batch:
            self._batch = (persist._batch, now_s)
        else:
            self.longest_batch_s = max(self.longest_batch_s, now_s - since_s)

    def _check_ledger(self) -> None:
        """The ledger balances whenever ingest requests more."""
        m = self.metrics
        problems = Ledger(
            received=m.ingest_received,
            malformed=m.malformed,
            duplicates=m.duplicates,
            history_dropped=m.history_dropped,
            out_of_band=m.out_of_band,
            sampled_out=m.sampled_out,
            already_stored=m.already_stored,
            refused=m.refused,
            accepted=m.ingest_processed,
            stored=m.ingest_processed,
        ).problems()
        assert not problems, f"the ledger does not balance at a quiet point: {problems}"

    def _check_flow(self) -> None:
        """Every event between ingest and the database is in a channel, in the strategy or in a batch."""
        tick, _signal, persist = self.channels
        waiting = sum([event_count(item) for item in persist.queue if isinstance(item, TickChunk | Notice)])
        chunks = [item for item in persist.queue if isinstance(item, OutcomeTicks)]
        waiting += sum([len(one.notices) for chunk in chunks for one in chunk.outcomes])
        in_strategy = self.handed_over - self._in_tick - waiting - self.in_batch
        idle = _has_waiter(tick.not_empty)
        most = 0 if idle else tick.maxsize
        assert 0 <= in_strategy <= most, (
            f"{in_strategy} ticks and notices in the strategy's hands, not between 0 and {most}:"
            f" entered {tick.entered},"
            f" in tick {self._in_tick}, in persist {waiting}, in the batch {self.in_batch}"
        )


def _over(counts: StoredCounts, confirmed: StoredCounts) -> int:
    """Ticks and notices of `counts` beyond `confirmed`."""
    return counts.ticks + counts.notices - confirmed.ticks - confirmed.notices


def quiet(runtime: SimRuntime) -> bool:
    """Whether all live threads are parked and none is ready. Call it from a callback of the world."""
    scheduler = runtime._scheduler
    return (
        runtime.between_turns
        and not scheduler._ready
        and all(thread.doing not in (RUNS, "ready") for thread in scheduler._living)
    )


def _has_waiter(condition: Any) -> bool:
    inner = getattr(condition, "_inner", condition)
    return bool(inner._waiters)
