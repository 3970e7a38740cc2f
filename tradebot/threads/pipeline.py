"""The pipeline of one run: makes channels and stages, starts them writer first, watches, and stops them in order."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Final

import msgspec
from msgspec import Struct

from tradebot.config.model import BreakersConfig, Config
from tradebot.core.channel import Channel
from tradebot.core.errors import ExitCode
from tradebot.core.events import Notice, PersistItem, Tick, TickItem
from tradebot.core.ledger import Ledger, NotStored
from tradebot.core.log_events import LogEvent
from tradebot.core.runtime import Runtime, Thread
from tradebot.execution.base import InlineExecutor
from tradebot.execution.breakers import Breakers
from tradebot.execution.paper_view import PaperView
from tradebot.execution.shadow import ShadowExecution
from tradebot.execution.timing import TimingRefusals
from tradebot.feeds.base import Feed
from tradebot.feeds.sampling import Intake
from tradebot.feeds.status import FeedStatus
from tradebot.output.log import Log
from tradebot.portfolio.book import Book, book_of, fees
from tradebot.portfolio.money import Money
from tradebot.portfolio.positions import PositionView
from tradebot.store.batch import StoredCounts
from tradebot.store.policy import FINAL_FLUSH_S, FlushPolicy, RetryPolicy
from tradebot.store.protocol import BatchWriter
from tradebot.store.spill import Spill
from tradebot.store.takeover import Memory
from tradebot.strategy.decider import Decider
from tradebot.threads.commit import CommitStage
from tradebot.threads.counters import Metrics
from tradebot.threads.execution import ExecutionStage
from tradebot.threads.heartbeat import Heartbeat, depth_fields
from tradebot.threads.ingest import CHECKPOINT_TICKS, IngestStage
from tradebot.threads.inline import InlineStage
from tradebot.threads.persist import PersistStage, writer_stages
from tradebot.threads.report import ReportStage
from tradebot.threads.shutdown import Control, Failure
from tradebot.threads.stage import Stage, StageThread
from tradebot.threads.stall_detector import StageProgress
from tradebot.threads.strategy import StrategyStage

STAGES: Final = ("persist", "execution", "strategy", "ingest")
"""Start order: a stage starts before the stage that feeds it."""

WRITERS: Final = frozenset({PersistStage.name, CommitStage.name})
"""Stages that may have the database or the spill file in use."""

_POLL_S: Final = 0.1
_ABORT_GRACE_S: Final = 1.0
_BOOK_READS_MAX: Final = 3
_AT_WORK_S: Final = 20.0
"""How long a stage may take over what it has in its hands, beside what its own deadlines allow."""


class Parts(Struct):
    """What a run is made of; the engine opens these, the pipeline joins them."""

    config: Config
    run_id: str
    feed: Feed
    decider: Decider
    execution: ShadowExecution | InlineExecutor
    """With an InlineExecutor, it runs inside the strategy stage, and the decider only has the strategy."""
    storage: BatchWriter | None
    spill: Spill | None
    stored: StoredCounts
    held: Generator[Tick, None, None]
    """The ticks that the database holds of this run already, for a resume to compare its input with."""
    notices: tuple[Notice, ...] = ()
    """What the start has to report: stored before everything that the feed brings."""
    memory: Memory | None = None
    """What a live feed remembers of each symbol."""
    checkpoint_ticks: int = CHECKPOINT_TICKS
    breakers: Breakers = msgspec.field(default_factory=lambda: Breakers(BreakersConfig()))
    poll_halt: Callable[[], Notice | None] | None = None  # tells ingest of a halt and a resume
    refusals: TimingRefusals | None = None
    """What a replay of stored runs refuses because they did."""


class Pipeline:
    """Owns the threads of one run. `run` is called once, by the main thread."""

    def __init__(self, parts: Parts, control: Control, runtime: Runtime, log: Log) -> None:
        config, feed = parts.config, parts.feed
        self._parts = parts
        self._config = config
        self._control = control
        self._runtime = runtime
        self._log = log.bind("engine")
        self._second_signal = False
        self._abort_at: float | None = None
        self._stopped_by: str | None = None
        self._time_over = False
        self.metrics = metrics = Metrics()
        sizes = config.channels.sizes(feed.push)
        self._ticks: Channel[TickItem] = Channel(runtime, "tick", sizes.tick)
        self._signals: Channel[Any] = Channel(runtime, "signal", sizes.signal)
        producers = 2 if isinstance(parts.execution, ShadowExecution) else 1
        self._persisted: Channel[PersistItem] = Channel(runtime, "persist", sizes.persist, producers)
        self.channels: tuple[Channel[Any], ...] = (self._ticks, self._signals, self._persisted)
        self.ingest = IngestStage(
            feed, Intake(config.engine.sample_every), (self._ticks, self._signals, self._persisted),
            parts.stored.ticks, parts.held, metrics, control, log, parts.memory, parts.checkpoint_ticks,
            parts.poll_halt,
        )  # fmt: skip
        self.strategy, self.execution = self._decision_stages(parts, log)
        self.persist, self.commit = writer_stages(
            self._persisted,
            parts.storage,
            parts.spill,
            parts.run_id,
            feed.push,
            FlushPolicy(config.persist.batch_size, config.persist.flush_interval_ms / 1000),
            RetryPolicy(config.persist.storage_retry_s),
            metrics,
            control,
            log,
            runtime,
            parts.notices,
        )
        self.heartbeat = Heartbeat(
            config.engine.heartbeat_interval_secs, metrics, self.channels, self._heartbeat_fields, control, log
        )
        stages: list[Stage] = [self.persist, self.execution, self.strategy, self.ingest, self.heartbeat]
        if self.commit is not None:
            control.expect(self.commit.name)
            stages.insert(0, self.commit)
        self._threads = {stage.name: StageThread(runtime, stage, control, log) for stage in stages}

    def _decision_stages(
        self, parts: Parts, log: Log
    ) -> tuple[StrategyStage | InlineStage, ExecutionStage | ReportStage]:
        """What decides and what executes: two threads either way, so that all else is the same."""
        execution, stored, metrics, push = parts.execution, parts.stored, self.metrics, parts.feed.push
        channels: Any = (self._ticks, self._signals, self._persisted)
        if isinstance(execution, ShadowExecution):
            orders, refusals = stored.orders, parts.refusals
            return (
                StrategyStage(parts.decider, channels, push, stored, metrics, log, parts.breakers),
                ExecutionStage(execution, channels[1:], push, orders, metrics, log, self._runtime, refusals),
            )
        return (
            InlineStage(parts.decider.strategy, execution, channels, stored, metrics, parts.notices, save_first=push),
            ReportStage(self._signals, execution.refusal_text, execution.money.instruments, metrics, log),
        )

    def run(self, on_poll: Callable[[], None] = lambda: None) -> ExitCode:
        """Start every thread, wait for the end, and say how it ended. Blocks; main thread only.

        `on_poll` is called about ten times a second. After a second stop signal or a drain that timed out, threads may
        still be running when this returns.
        """
        started: list[Thread] = []
        try:
            for name, thread in self._threads.items():
                started.append(self._runtime.spawn(f"tradebot-{name}", thread.main))
            ended = self._watch(on_poll)
        except Exception as error:
            # Even when the main thread itself is at fault, what was accepted is drained and stored.
            self._log.error("thread crashed", event=LogEvent.THREAD_CRASHED, stage="engine", exc_info=error)
            self._control.fail(ExitCode.CRASH, "engine", f"{type(error).__name__}: {error}")
            for never_started in list(self._threads.values())[len(started) :]:
                never_started.end()
            ended = self._watch(lambda: None)
        if ended:
            for running in started:
                running.join()
        self._log.flush_suppressed()
        failure = self._control.failure
        if self._second_signal:
            return ExitCode.CRASH
        return ExitCode.COMPLETE if failure is None else failure.code

    def _watch(self, on_poll: Callable[[], None]) -> bool:
        """Wait until all stages have ended (True), or patience with them has (False)."""
        control, runtime = self._control, self._runtime
        run_seconds = self._config.engine.run_seconds
        end_at = None if run_seconds is None else runtime.monotonic() + run_seconds
        while not control.finished.wait(_POLL_S):
            on_poll()
            signals = runtime.stop_signals()
            if signals >= 2:
                self._second_signal = True
                self._announce_stop("a second stop signal arrived")
                self._log.error(
                    "second stop signal: exiting immediately", event=LogEvent.SECOND_SIGNAL, running=control.running()
                )
                return False
            if signals and control.drain_deadline is None:
                self._log.info(
                    "stop signal: draining", event=LogEvent.DRAINING,
                    drain_timeout_s=self._config.persist.drain_timeout_s,
                )  # fmt: skip
                self._stop_early("a stop signal arrived")
            if end_at is not None and runtime.monotonic() >= end_at and not control.stop.is_requested():
                self._log.info("engine.run_seconds elapsed: draining", event=LogEvent.DRAINING, run_seconds=run_seconds)
                self._time_over = True
                self._stop_early("the time limit was reached")
            if control.stop.is_requested() and not self._draining():
                return False
        return True

    def _stop_early(self, why: str) -> None:
        self._announce_stop(why)
        self._control.begin_stop(self._config.persist.drain_timeout_s)

    def _announce_stop(self, why: str) -> None:
        push = self._parts.feed.push
        self._stopped_by = why if push else f"{why} before the end of the replay; --resume completes it"

    def _draining(self) -> bool:
        """While a stop is under way: keep its deadlines. False when the last one has passed."""
        control, now = self._control, self._runtime.monotonic()
        control.begin_stop(self._config.persist.drain_timeout_s)
        assert control.drain_deadline is not None
        if now < control.drain_deadline:
            return True
        if self._abort_at is None:
            self._abort_at = now
            running = control.running()
            if not set(running) <= WRITERS:
                self._log.error("drain ran out of time", event=LogEvent.DRAIN_TIMEOUT, running=running)
                control.fail(ExitCode.OVERLOAD, "engine", f"drain ran out of time; still running: {', '.join(running)}")
            # What has reached the writer is still flushed; what is before it is given up.
            self._ticks.abandon()
            self._signals.abandon()
            self._persisted.close(everyone=True)
        if now < self._abort_at + FINAL_FLUSH_S + _ABORT_GRACE_S:
            return True
        self._log.error("stages did not end", event=LogEvent.STAGES_NOT_ENDED, running=control.running())
        control.fail(ExitCode.OVERLOAD, "engine", f"stages did not end: {', '.join(control.running())}")
        return False

    @property
    def breakers(self) -> Breakers:
        """The halt, and the breakers; any thread may read their `view`."""
        return self._parts.breakers

    @property
    def complete(self) -> bool:
        """True when the feed was read to its end and all of it is stored."""
        return self.ingest.complete and self._control.failure is None and not self._second_signal

    @property
    def done(self) -> bool:
        """Whether the run ended because all was done that it was asked for: a replay whole, or a feed for its time."""
        return self.complete or (self._parts.feed.push and self._time_over and self._control.failure is None)

    def ledger(self) -> Ledger:
        """Where every trade that arrived has gone. Exact once all stages have ended."""
        metrics = self.metrics
        accepted, stored = metrics.ingest_processed, self.persist.ticks_stored
        return Ledger(
            received=metrics.ingest_received,
            malformed=metrics.malformed,
            duplicates=metrics.duplicates,
            history_dropped=metrics.history_dropped,
            out_of_band=metrics.out_of_band,
            sampled_out=metrics.sampled_out,
            already_stored=metrics.already_stored,
            refused=metrics.refused,
            accepted=accepted,
            stored=stored,
            not_stored=accepted - stored,
            spilled=self.persist.ticks_spilled,
            cause=self._cause() if accepted != stored else None,
        )

    def _cause(self) -> NotStored | None:
        failure = self._control.failure
        if self._second_signal:
            return NotStored.SECOND_SIGNAL
        if self.persist.stores_nothing:
            return NotStored.BY_DESIGN
        if failure is not None and failure.code is ExitCode.CRASH:
            return NotStored.CRASHED
        if self.persist.storage_error is not None or (failure is not None and failure.stage in WRITERS):
            return NotStored.STORAGE_FAILED
        return NotStored.DRAIN_TIMEOUT if self._abort_at is not None else None

    @property
    def stopped_by(self) -> str | None:
        """What ended the run before its feed ended by itself, in words; None when nothing did."""
        return None if self.ingest.complete else self._stopped_by

    @property
    def failure(self) -> Failure | None:
        """What made the run end with another code than 0, if anything did."""
        return self._control.failure

    @property
    def stopping(self) -> bool:
        """Whether no more input is read."""
        return self._control.stop.is_requested()

    def running(self) -> list[str]:
        """Stages that have not ended."""
        return self._control.running()

    def _heartbeat_fields(self) -> dict[str, object]:
        tick, book = self.strategy.last_tick, self.book()
        fields: dict[str, object] = {"profit": book.profit, "unit": book.unit, **self.feed_status().log_fields()}
        if (paper := self.paper) is not None:
            fields |= paper.log_fields()
        if self.persist.events_waiting:
            fields["spilled_events"] = self.persist.events_waiting
        if tick is not None:
            fields |= {"symbol": tick.symbol, "price": tick.price, "net_qty": book.net_qty}
        return fields

    def feed_status(self) -> FeedStatus:
        """What the feed says of itself. Any thread."""
        return self._parts.feed.status()

    def marks(self) -> list[StageProgress]:
        """How far each running stage has come, for the watchdog. Main thread."""
        persist, ticks, signals = self.persist, self._ticks, self._signals
        settings, running, metrics = self._config.persist, self._control.running(), self.metrics
        # A stage may have to wait for the writer, and the writer for the storage.
        allowed_s = _AT_WORK_S + settings.flush_interval_ms / 1000 + settings.storage_retry_s
        commits = persist.commits if self.commit is None else 0  # those of the commit stage are no progress of this one
        stored = (commits, persist.events_waiting, persist.events_lost, self._persisted.passed)
        marks = [
            StageProgress("persist", persist.in_hand > 0 or not _is_idle(self._persisted), stored, allowed_s),
            StageProgress("strategy", not _is_idle(ticks), (ticks.passed, metrics.tick_count), allowed_s),
            StageProgress("execution", not _is_idle(signals), (signals.passed, metrics.executed), allowed_s),
        ]
        if self.commit is not None:
            marks.append(StageProgress("commit", self.commit.is_busy, persist.commits, allowed_s))
        if self._parts.feed.push and not self.stopping:
            marks.append(self._ingest_mark())
        return [mark for mark in marks if mark.stage in running]

    def _ingest_mark(self) -> StageProgress:
        """A link must show life, a loss or an attempt in time, whatever comes of it; other push feeds must tick."""
        overdue_ms = self.feed_status().overdue_ms
        if overdue_ms is not None:
            return StageProgress("ingest", overdue_ms > 0, None, _AT_WORK_S)
        interval_s = self._config.engine.tick_interval_ms / 1000
        return StageProgress("ingest", True, self.metrics.ingest_received, interval_s + _AT_WORK_S)

    def positions(self) -> list[PositionView]:
        """Positions at the prices of the last ticks. Any thread; exact once the stages have ended.

        While they run, a fill may be seen in part: two equal results in a row are those of one moment.
        """
        return self._parts.execution.positions.views(self._parts.decider.pending_marks)

    def book(self) -> Book:
        """The totals of the positions. Any thread; see `positions`."""
        views = self.positions()
        for _ in range(_BOOK_READS_MAX):
            again = self.positions()
            if again == views:
                break
            views = again
        tick = self.strategy.last_tick
        return book_of(views, None if tick is None else tick.symbol, self._money())

    @property
    def paper(self) -> PaperView | None:
        """The account of PAPER after the last ticks; None in SHADOW. Any thread."""
        return self._parts.execution.view

    @property
    def continues(self) -> bool:
        """Whether this run continues the positions of earlier runs."""
        return any(self._parts.execution.fees_before.values())

    def fees(self) -> float:
        """The fees of this run's own fills, in the unit of `book`. Any thread; as `positions`."""
        return fees(self.positions(), self._money().rates, self._parts.execution.fees_before)

    def _money(self) -> Money:
        """Instruments, and rates at the last ticks."""
        money = self._parts.execution.money
        return Money(money.instruments, money.rates.at(self._parts.decider.pending_marks))

    def busy_s(self) -> dict[str, float]:
        """Processor seconds each stage's thread used."""
        return {name: round(thread.busy_s, 3) for name, thread in self._threads.items()}

    def final_fields(self) -> dict[str, Any]:
        """What the last log line of a run says: all counters, depths and busy times."""
        return {**self.metrics.snapshot(), **depth_fields(self.channels), "busy_s": self.busy_s()}


def _is_idle(channel: Channel[Any]) -> bool:
    """Whether a consumer has nothing to do: it waits, and nothing waits for it."""
    return channel.awaited and not channel.depth
