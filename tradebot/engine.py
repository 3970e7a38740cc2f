"""One run from settings to exit code: open the input and the database, run the pipeline, account for everything."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tradebot import __version__
from tradebot.config.model import BreakersConfig, Settings, Synchronous, config_hash, db_path, result_hash
from tradebot.config.secret_urls import visible_credentials
from tradebot.core.cancellation import Cancellation, Cancelled
from tradebot.core.errors import ConfigError, ExitCode, OverloadError, TradebotError
from tradebot.core.events import Notice, Tick
from tradebot.core.ids import live_run_id, replay_run_id, short_digest
from tradebot.core.ledger import Ledger, NotStored
from tradebot.core.log_events import LogEvent
from tradebot.core.runtime import RealRuntime, Runtime
from tradebot.execution.base import InlineExecutor
from tradebot.execution.breakers import Breakers
from tradebot.execution.shadow import ShadowExecution
from tradebot.execution.timing import TooOld
from tradebot.executor import continue_execution, make_executor, take_over
from tradebot.feeds.base import Feed
from tradebot.feeds.factory import Input, Surroundings, open_input
from tradebot.feeds.memory import FeedMemory
from tradebot.feeds.websocket.client import WebSocketTransport
from tradebot.feeds.websocket.transport import Transport
from tradebot.output.log import Log, setup_logging
from tradebot.portfolio.money import Money, money_of
from tradebot.report.output import Output
from tradebot.report.results import summarize, summarize_stored
from tradebot.store.database import absolute
from tradebot.store.errors import FILE_REPLACED
from tradebot.store.policy import FINAL_FLUSH_S
from tradebot.store.protocol import Store
from tradebot.store.runs import EXCHANGE_PAIR_RULES, NO_RATE_RULES, RESULT_RULES, RunEnd, RunInfo, RunRecord
from tradebot.store.session import SqliteStore
from tradebot.store.takeover import Carried
from tradebot.strategy.base import Strategy
from tradebot.strategy.decider import Decider
from tradebot.strategy.registry import broken, create, unread_keys
from tradebot.telemetry.exporters import Exporters
from tradebot.telemetry.halt_file import HaltWatch, halt_path
from tradebot.telemetry.publisher import Publisher
from tradebot.telemetry.sd_notify import Notifier, find_notifier
from tradebot.telemetry.snapshot import Observer
from tradebot.telemetry.status_file import status_path
from tradebot.telemetry.throttle_file import apply_throttle, throttle_path
from tradebot.threads.ingest import CHECKPOINT_TICKS
from tradebot.threads.pipeline import STAGES, WRITERS, Parts, Pipeline
from tradebot.threads.shutdown import Control
from tradebot.threads.spilling import reserve_spill

_SIMULATED = "all fills are simulated; no order leaves this machine"


@dataclass
class Edges:
    """What a run touches outside itself; the simulator and tests put their own in place."""

    runtime: Runtime = field(default_factory=RealRuntime)
    output: Output = field(default_factory=Output)
    make_store: Callable[[Path, Synchronous, float, Runtime, Log], Store] = SqliteStore
    wrap_feed: Callable[[Feed], Feed] = lambda feed: feed
    make_transport: Callable[[Runtime], Transport] = WebSocketTransport
    make_notifier: Callable[[], Notifier] = find_notifier
    checkpoint_ticks: int = CHECKPOINT_TICKS


def run_engine(settings: Settings, edges: Edges | None = None) -> ExitCode:
    """Run to the end and return the exit code. Main thread; blocks as long as the run lasts.

    Raises TradebotError when the run could not begin.
    """
    edges = Edges() if edges is None else edges
    options = settings.options
    log = setup_logging(options.log_level, options.log_format, edges.runtime, edges.output.errors)
    edges.runtime.catch_stop_signals()
    run = _Run(settings, edges, log)
    try:
        return run.run()
    except Cancelled:
        log.info("stopped before the run began", event=LogEvent.STOPPED)
        return ExitCode.COMPLETE
    except TradebotError as error:
        run.failed(error.exit_code, str(error))
        raise
    except Exception as error:
        run.failed(ExitCode.CRASH, f"{type(error).__name__}: {error}")
        raise
    finally:
        run.close()
        edges.output.close()
        log.close()


class _Run:
    """The steps of one run, in their order."""

    def __init__(self, settings: Settings, edges: Edges, log: Log) -> None:
        self._settings = settings
        self._config = settings.config
        self._edges = edges
        self._runtime = edges.runtime
        self._log = log.bind("engine")
        self._root_log = log
        self._control = Control(edges.runtime, STAGES)
        self._named = db_path(self._config)
        """As it was given, for people."""
        self._path = absolute(self._named)
        """What is opened, and opened again: the working directory may be deleted meanwhile."""
        self._store: Store | None = None
        self._notifier = edges.make_notifier()
        self._exporters: Exporters | None = None
        self._started_ms = edges.runtime.now_ms()
        self._began_s = edges.runtime.monotonic()

    def run(self) -> ExitCode:
        """The steps in their order; the exit code. Before threads run: TradebotError, Cancelled."""
        if self._config.mode != "SHADOW":
            # Late: the gate brings in the doctor and the proofs, which nothing else in a run needs.
            from tradebot.ops.gate import require_available

            require_available(self._config, self._runtime)
        throttled = apply_throttle(self._settings, throttle_path(self._path), self._log)
        source = self._open_input(throttled)
        info = self._identify(source)  # with the configuration as it was given: a throttle is no part of its hash
        self._config = source.applied(throttled.config)
        self._announce(info)
        self._money(source)  # for its errors, before the database is opened
        exporters = self._open_exporters(info)
        record = self._open_store(info) if source.stores else RunRecord(0, info.run_id)
        if record.complete:
            return self._show_stored(info, record, self._money(source, record.result_rules))
        parts = self._parts(source, info, record)
        pipeline = Pipeline(parts, self._control, self._runtime, self._root_log)
        publisher = self._publisher(pipeline, info, source.stores, exporters)
        began_s = self._runtime.monotonic()
        code = self._run_stages(pipeline, parts.feed, source.unit, publisher)
        elapsed_s = self._runtime.monotonic() - began_s
        code, ledger = self._account(pipeline, code)
        code = self._finish(pipeline, record, code, ledger)
        publisher.end(int(code))
        if not source.push:
            self._report_replay(pipeline, elapsed_s)
        self._report_metrics(pipeline, code)
        database, lost = str(self._named) if source.stores else None, self._log.lost_lines
        summary = summarize(self._settings, info, record, pipeline, ledger, code, elapsed_s, database, lost)
        self._edges.output.print_summary(summary)
        if self._control.running():
            self._exit_with_threads(code, exporters)
        return code

    # ---- before the pipeline ---------------------------------------------------------------------------------------

    def _open_input(self, settings: Settings) -> Input:
        """Open what is read, and hash what can be: a stop signal ends that."""
        hashing = Cancellation(self._runtime, by_signal=True)
        make_transport = self._edges.make_transport
        around = Surroundings(self._path, self._runtime, self._control.stop, hashing, make_transport, self._root_log)
        return open_input(settings, around)

    def _open_exporters(self, info: RunInfo) -> Exporters:
        url = self._settings.secrets.webhook_url
        self._exporters = Exporters(self._config, info.run_id, self._runtime, self._root_log, webhook_url=url)
        return self._exporters

    def _show_stored(self, info: RunInfo, record: RunRecord, money: Money) -> ExitCode:
        """Print the summary of a replay that is complete already; nothing is left to do."""
        assert self._store is not None
        self._notifier.ready()  # a service that ends without having been ready counts as failed
        self._log.info(
            "replay already complete", event=LogEvent.REPLAY_COMPLETE, run_id=info.run_id, ticks=record.counts.ticks
        )
        found = self._store.read_results(record)
        self._edges.output.print(
            f"The database already holds this whole replay: run {info.run_id},"
            f" {record.counts.ticks:,} ticks in {self._named}. Nothing to do; its summary:\n\n"
        )
        summary = summarize_stored(self._settings, info, found, str(self._named), money)
        self._edges.output.print_summary(summary)
        return ExitCode.COMPLETE

    def failed(self, code: ExitCode, cause: str) -> None:
        """The run could not begin, or ended by an error: notify the configured outputs."""
        if self._exporters is None:
            with suppress(ConfigError):  # a webhook that cannot be used is no reason to hide why the run was refused
                self._exporters = Exporters.of_refused(
                    self._config, self._runtime, self._root_log, webhook_url=self._settings.secrets.webhook_url
                )
        if self._exporters is not None:
            self._exporters.failed(code, cause)

    def close(self) -> None:
        """Give back the lock, an unused spill reserve and the manager's socket. Idempotent."""
        if self._store is not None:
            self._store.close()
        if self._exporters is not None:
            self._exporters.close()
        self._notifier.close()

    def _publisher(self, pipeline: Pipeline, info: RunInfo, stores: bool, exporters: Exporters) -> Publisher:
        path = status_path(self._path) if stores else None
        observer = Observer(pipeline, self._config, info, self._started_ms, self._runtime)
        return Publisher(path, observer, self._notifier, self._runtime, self._root_log, (exporters.look,))

    def _identify(self, source: Input) -> RunInfo:
        config, options = self._config, self._settings.options
        if options.run_id is not None:
            run_id = options.run_id
        elif source.push:
            run_id = live_run_id(self._started_ms, self._runtime.token())
        else:
            counted = result_hash(source.applied(config), replay=True, unread=unread_keys(config.strategy.name))
            run_id = replay_run_id(source.digest or short_digest(source.source), counted)
        return RunInfo(
            run_id, __version__, config.mode, config.engine.ingest_mode, source.source, config_hash(config),
            source.push, source.feed, source.frames,
        )  # fmt: skip

    def _announce(self, info: RunInfo) -> None:
        caps = self._config.risk_caps
        self._log.info(
            "tradebot starting", event=LogEvent.START, version=info.version, run_id=info.run_id,
            config_hash=info.config_hash, mode=info.mode, ingest=info.ingest, source=info.source,
            database=str(self._named), max_exposure_usd=caps.max_exposure_usd,
            max_symbol_exposure_usd=caps.max_symbol_exposure_usd,
            max_open_orders=caps.max_open_orders, note=f"{info.mode}: {_SIMULATED}",
        )  # fmt: skip
        for reason in sorted(set(broken().values())):
            self._log.warning(
                "a strategy that is not chosen cannot be used", event=LogEvent.STRATEGY_BROKEN, detail=reason
            )
        for message in visible_credentials(self._config, self._settings.sources):
            self._log.warning(message, event=LogEvent.CREDENTIALS_VISIBLE)

    def _open_store(self, info: RunInfo) -> RunRecord:
        persist = self._config.persist
        self._store = self._edges.make_store(
            self._path, persist.synchronous, persist.storage_retry_s, self._runtime, self._root_log
        )
        return self._store.begin_run(info, self._started_ms, self._settings.options.resume)

    def _parts(self, source: Input, info: RunInfo, record: RunRecord) -> Parts:
        config = self._config
        strategy = create(config.strategy.name, config)
        if self._log.enabled("DEBUG"):
            debug = self._root_log.bind("strategy").debug
            strategy.observer = lambda fields: debug("SMA_CALC", event=LogEvent.SMA_CALC, **fields)
        money = self._money(source, record.result_rules)
        execution = make_executor(config, info.run_id, money, source.refusals)
        notices = self._start_notices(source.push)
        carried, memory = None, None
        if source.push:
            carried, memory = self._carry_over(source, record, strategy, execution)
            if not isinstance(execution, ShadowExecution):
                notices += self._continue_inline(record, execution, info.run_id, carried)
        breakers = None if isinstance(execution, ShadowExecution) else execution.breakers
        resumed_ms = None if breakers is None else breakers.view.resumed_ms
        halts = HaltWatch(halt_path(self._path), resumed_ms, self._runtime, self._root_log)
        return Parts(
            config=config,
            run_id=info.run_id,
            feed=self._edges.wrap_feed(source.open(carried, memory)),
            decider=Decider(strategy, info.run_id, config.strategy.desired_size, config.strategy.confidence),
            execution=execution,
            storage=None if self._store is None else self._store.writer(record),
            spill=None if self._store is None else reserve_spill(self._path, config, source.push, self._log),
            stored=record.counts,
            held=_no_ticks() if self._store is None else self._store.stored_ticks(record),
            notices=notices,
            memory=memory,
            checkpoint_ticks=self._edges.checkpoint_ticks,
            poll_halt=halts.poll if source.push else None,
            refusals=source.refusals,
            breakers=Breakers(BreakersConfig()) if breakers is None else breakers,
        )

    def _money(self, source: Input, rules: int = RESULT_RULES) -> Money:
        """Currencies, rates and fees by these result rules. Raises ConfigError for rates that cannot be."""
        config, pair_of = self._config, source.pair_of if rules >= EXCHANGE_PAIR_RULES else None
        fee_rate, entries, rates = config.execution.fee_rate, config.instruments, config.rates
        return money_of(fee_rate, entries, rates, pair_of, one_to_one=rules < NO_RATE_RULES)

    def _start_notices(self, push: bool) -> tuple[Notice, ...]:
        """What opening the database found that a reader of the run should know. A replay's rows never depend on it."""
        orphan = None if self._store is None else self._store.orphan
        if orphan is None:
            return ()
        assert self._exporters is not None
        self._exporters.orphaned(str(orphan.path), orphan.reason)
        text = f"{orphan.path.name}: events of run {orphan.run_id or 'unknown'} were set aside: {orphan.reason}"
        return (Notice("SPILL_ORPHANED", self._started_ms, text),) if push else ()

    def _carry_over(
        self, source: Input, record: RunRecord, strategy: Strategy, executor: ShadowExecution | InlineExecutor
    ) -> tuple[Carried, FeedMemory | None]:
        """Continue strategy and positions where earlier runs of this feed ended; what the feed needs for the same."""
        assert self._store is not None
        carried, memory = take_over(self._store, record, strategy, executor, source.memory)
        if carried.ticks:
            self._log.info(
                "continuing from earlier runs", event=LogEvent.CARRIED_OVER, runs=carried.runs, ticks=carried.ticks,
                symbols=len(carried.symbols),
            )  # fmt: skip
        return carried, memory

    def _continue_inline(
        self, record: RunRecord, execution: InlineExecutor, run_id: str, carried: Carried
    ) -> tuple[Notice, ...]:
        """Continue open orders, account and breakers; the first notice of a run that does."""
        assert self._store is not None
        too_old = TooOld(self._runtime.now_ms, self._config.execution.max_tick_age_ms)
        before = continue_execution(self._store, record, execution, run_id, carried, too_old)
        if before is None:
            return ()
        restart = Notice("RESTART", self._started_ms, f"continues run {before}: trades between the two were missed")
        execution.on_notice(restart)
        return (restart,)

    # ---- the pipeline and what follows -----------------------------------------------------------------------------

    def _run_stages(self, pipeline: Pipeline, feed: Feed, unit: str, publisher: Publisher) -> ExitCode:
        """Run all threads to their end, with a progress bar and a status once a second."""
        with self._edges.output.progress(feed, unit, self._root_log) as on_poll:

            def poll() -> None:
                on_poll(pipeline.metrics.ingest_received)
                publisher.poll()

            return pipeline.run(poll)

    def _report_metrics(self, pipeline: Pipeline, code: ExitCode) -> None:
        elapsed_s = round(self._runtime.monotonic() - self._began_s, 3)
        self._log.info(
            "FINAL METRICS",
            event=LogEvent.FINAL_METRICS,
            exit_code=int(code),
            elapsed_s=elapsed_s,
            **pipeline.final_fields(),
        )

    def _exit_with_threads(self, code: ExitCode, exporters: Exporters) -> None:
        """Threads that cannot be stopped must not keep the process: nothing they could still do would be stored."""
        exporters.close()
        self._log.close()
        self._runtime.exit_now(int(code))

    def _report_replay(self, pipeline: Pipeline, elapsed_s: float) -> None:
        metrics, rate = pipeline.metrics, 0.0
        if elapsed_s > 0:
            rate = round(metrics.ingest_received / elapsed_s, 1)
        self._log.info(
            "replay summary", event=LogEvent.REPLAY_SUMMARY, ticks_read=metrics.ingest_received,
            kept=metrics.ingest_processed + metrics.already_stored, malformed=metrics.malformed,
            signals_emitted=metrics.signal_count, orders_filled=metrics.shadow_orders,
            orders_rejected=metrics.orders_rejected,
            trades=metrics.trade_count, ticks_per_s=rate,
        )  # fmt: skip

    def _account(self, pipeline: Pipeline, code: ExitCode) -> tuple[ExitCode, Ledger]:
        """Check the ledger at every exit; one that does not balance is a bug, whatever else happened."""
        ledger = pipeline.ledger()
        problems = ledger.problems()
        self._log.info("ledger", event=LogEvent.LEDGER, balanced=not problems, **ledger.as_dict())
        if problems and not self._control.running():
            self._log.error("ledger does not balance", event=LogEvent.LEDGER_UNBALANCED, problems=problems)
            return ExitCode.CRASH, ledger
        lost = pipeline.persist.events_lost  # orders can be lost though every tick is stored
        if lost or (ledger.not_stored and ledger.cause not in (None, NotStored.BY_DESIGN)):
            self._log.warning(
                "accepted events were not stored", event=LogEvent.NOT_STORED, ticks=ledger.not_stored,
                spilled=ledger.spilled, events_lost=lost, cause=str(ledger.cause or NotStored.STORAGE_FAILED),
            )  # fmt: skip
        return code, ledger

    def _finish(self, pipeline: Pipeline, record: RunRecord, code: ExitCode, ledger: Ledger) -> ExitCode:
        """Write how the run ended, unless a stage still holds the database."""
        if self._store is None or WRITERS & set(self._control.running()):
            return code
        complete = pipeline.complete and code is ExitCode.COMPLETE
        end = RunEnd(self._runtime.now_ms(), int(code), complete, ledger.as_dict())
        failure = pipeline.persist.storage_error
        if failure is not None and failure.code == FILE_REPLACED:
            return code  # what stands at the path now is not what this run wrote, or no longer whole
        patience_s = 0.0 if failure is not None else FINAL_FLUSH_S
        try:
            self._store.finish_run(record, end, patience_s)
        except OverloadError as error:
            self._log.error("the run's end could not be recorded", event=LogEvent.FINISH_FAILED, detail=str(error))
            return ExitCode.OVERLOAD if code is ExitCode.COMPLETE else code
        return code


def _no_ticks() -> Generator[Tick, None, None]:
    """The stored ticks of a run that stores nothing."""
    yield from ()
