"""The optional Prometheus endpoint: converts the newest `Status` into metrics for each scrape.

`families` is pure and names every metric; `MetricsServer` serves them by the package prometheus-client (extra
`[metrics]`, so this module is imported only by a run that serves metrics) from a thread of its own
(`telemetry/http_server.py`), so that a scrape takes nothing from the pipeline but a moment of the processor. Counters
start at zero with each run, as Prometheus expects of a restart.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from prometheus_client import CollectorRegistry, Metric, ProcessCollector, make_wsgi_app
from prometheus_client.registry import Collector

from tradebot.config.model import MetricsConfig
from tradebot.core.errors import ConfigError
from tradebot.core.events import (
    BP_DROP_SIGNAL,
    MIN_NOTIONAL,
    MIN_QTY,
    NO_BALANCE,
    NO_INSTRUMENT,
    NO_RATE,
    RISK_CAP,
    STALE_DATA,
    as_unix_ms,
)
from tradebot.core.log_events import LogEvent
from tradebot.core.runtime import Runtime
from tradebot.execution.paper_view import PaperView
from tradebot.execution.trips import KEYS
from tradebot.output.log import Log
from tradebot.telemetry.http_request import Request
from tradebot.telemetry.http_server import PLAIN_TEXT, HttpServer, Response, listen
from tradebot.telemetry.status_file import Status
from tradebot.threads.commit import CommitStage
from tradebot.threads.pipeline import STAGES

THREAD: Final = "tradebot-metrics"
PATHS: Final = ("/metrics", "/")


class _Counter(NamedTuple):
    name: str
    text: str
    labels: Mapping[str, str] = {}


_REFUSALS: Final = "tradebot_refusals_total", "Signals refused, by reason."
_UNFILLED: Final = "tradebot_paper_orders_unfilled_total", "Orders of PAPER that ended without being filled whole."

OF_COUNTERS: Final[Mapping[str, _Counter]] = {
    "ingest_received": _Counter("tradebot_ticks_received_total", "Trades that arrived, malformed input included."),
    "ingest_processed": _Counter("tradebot_ticks_accepted_total", "Trades that entered the tick channel."),
    "malformed": _Counter("tradebot_malformed_total", "Lines or frames that could not be understood."),
    "duplicates": _Counter("tradebot_duplicates_total", "Trades dropped because they had been seen before."),
    "history_dropped": _Counter("tradebot_history_dropped_total", "Trades from before the connection, dropped."),
    "out_of_band": _Counter("tradebot_out_of_band_total", "Trades whose price was too far from the recent ones."),
    "sampled_out": _Counter("tradebot_sampled_out_total", "Good trades that sampling did not keep."),
    "already_stored": _Counter("tradebot_already_stored_total", "Trades that a resumed run found stored."),
    "refused": _Counter("tradebot_ticks_refused_total", "Trades refused because of an overload."),
    "bp_drops_tick": _Counter("tradebot_tick_channel_refused_total", "Ticks that the full tick channel refused."),
    "bp_drops_persist": _Counter(
        "tradebot_tick_channel_refused_by_persist_total", "Ticks refused because the persist stage was too slow."
    ),
    "gaps": _Counter("tradebot_gaps_total", "Gaps in the senders' sequence numbers."),
    "reconnects": _Counter("tradebot_reconnects_total", "Connections made after the first."),
    "tick_count": _Counter("tradebot_strategy_ticks_total", "Accepted ticks that the strategy has taken."),
    "signal_count": _Counter("tradebot_signals_total", "Signals generated, including refused ones."),
    "bp_drops_signal": _Counter(*_REFUSALS, {"reason": BP_DROP_SIGNAL}),
    "risk_vetoes": _Counter(*_REFUSALS, {"reason": RISK_CAP}),
    "stale_vetoes": _Counter(*_REFUSALS, {"reason": STALE_DATA}),
    "rate_vetoes": _Counter(*_REFUSALS, {"reason": NO_RATE}),
    "instrument_vetoes": _Counter(*_REFUSALS, {"reason": NO_INSTRUMENT}),
    "min_qty_vetoes": _Counter(*_REFUSALS, {"reason": MIN_QTY}),
    "min_notional_vetoes": _Counter(*_REFUSALS, {"reason": MIN_NOTIONAL}),
    "balance_vetoes": _Counter(*_REFUSALS, {"reason": NO_BALANCE}),
    "breaker_vetoes": _Counter(*_REFUSALS, {"reason": "BREAKER"}),  # a halt or a liquidation as well
    "paper_orders": _Counter("tradebot_paper_orders_total", "Orders that the simulated venue of PAPER accepted."),
    "orders_canceled": _Counter(*_UNFILLED, {"status": "CANCELED"}),
    "orders_expired": _Counter(*_UNFILLED, {"status": "EXPIRED"}),
    "orders_bounced": _Counter(*_UNFILLED, {"status": "REJECTED"}),
    "shadow_orders": _Counter("tradebot_orders_filled_total", "Orders filled in simulation."),
    "trade_count": _Counter("tradebot_fills_total", "Simulated fills."),
    "persist_count": _Counter("tradebot_events_stored_total", "Events stored: ticks, signals, orders and fills."),
    "persist_errors": _Counter("tradebot_storage_errors_total", "Failed attempts to store a batch."),
}
"""Which metric tells which counter of `tradebot.threads.counters`."""


def families(status: Status, now_s: float) -> list[Metric]:
    """Every metric of a status, at a moment of the monotonic clock. Pure. What is not known has no sample."""
    return [*_counters(status.counters), *_of_run(status, now_s), *_of_link(status), *_of_pipeline(status)]


def _counters(counters: Mapping[str, int]) -> Collection[Metric]:
    found: dict[str, Metric] = {}
    for counter, (name, text, labels) in OF_COUNTERS.items():
        found.setdefault(name, _metric(name, text)).add_sample(name, dict(labels), counters[counter])
    return found.values()


def _of_run(status: Status, now_s: float) -> Iterator[Metric]:
    run = {
        "version": status.version, "run_id": status.run_id, "mode": status.mode, "ingest": status.ingest,
        "source": status.source, "config_hash": status.config_hash,
    }  # fmt: skip
    yield _metric("tradebot_run_info", "The run, described by the labels; all fills are simulated.", 1, run)
    yield _metric("tradebot_start_time_seconds", "When the run began (Unix time).", status.started_ms / 1000)
    age_s = max(0.0, now_s - status.written_s)
    yield _metric("tradebot_status_age_seconds", "Age of the status that these figures come from.", age_s)
    yield _metric("tradebot_draining", "1 while the engine is stopping.", status.state != "running")
    yield _metric("tradebot_sample_every", "Every N-th tick is kept.", status.sample_every)


def _of_link(status: Status) -> Iterator[Metric]:
    up = None if status.link is None else status.link == "up"
    down_s = None if up is None else status.link_down_s or 0.0
    silent_s = None if status.link_age_ms is None else status.link_age_ms / 1000
    yield _metric("tradebot_link_up", "1 while the feed's link is up.", up)
    yield _metric("tradebot_link_down_seconds", "Time since the link went down.", down_s)
    yield _metric("tradebot_link_silence_seconds", "Time since the peer last sent a frame or a pong.", silent_s)
    asked_s = None if up is None else status.retry_after_s or 0.0
    yield _metric("tradebot_retry_after_seconds", "Remaining pause requested by the server.", asked_s)
    symbols = status.symbols
    silent = {} if symbols is None else {
        "refused": symbols.refused_count, "silent": symbols.silent_count, "no_trade_yet": symbols.untraded_count,
    }  # fmt: skip
    text = "Requested symbols without trades, by reason."
    yield _by_label("tradebot_symbols_silent", text, "reason", silent)
    yield _metric(
        "tradebot_symbols_requested",
        "Symbols requested from the exchange.",
        None if symbols is None else symbols.requested,
    )
    announced = None if symbols is None else symbols.announced
    yield _metric("tradebot_exchange_notices_total", "Announcements by the exchange.", announced)
    tick = status.last_tick
    tick_s = None if tick is None else as_unix_ms(tick.ts_ms) / 1000
    yield _metric("tradebot_last_tick_time_seconds", "The last tick's own time (Unix time).", tick_s)


def _of_pipeline(status: Status) -> Iterator[Metric]:
    yield _by_label("tradebot_channel_depth_events", "Events waiting in a channel.", "channel", status.depths)
    stages = (*reversed(STAGES), *([CommitStage.name] if status.push else []))
    running = {stage: stage in status.running for stage in stages}
    yield _by_label("tradebot_stage_running", "1 while the stage's thread is running.", "stage", running)
    still_s = {stage: status.still_s.get(stage, 0.0) for stage in stages}
    yield _by_label("tradebot_stage_still_seconds", "Time without progress of a stage that has work.", "stage", still_s)
    stored_s = None if status.last_stored_ms is None else status.last_stored_ms / 1000
    took_s = None if status.commit_ms is None else status.commit_ms / 1000
    yield _metric("tradebot_last_commit_time_seconds", "Last commit with more than notices (Unix time).", stored_s)
    yield _metric("tradebot_last_commit_duration_seconds", "Duration of the last commit.", took_s)
    view = status.breakers
    halted = None if view is None else view.halted_since_ms is not None
    tripped = {} if view is None else {code: view.count(code) for code in KEYS}
    yield _metric("tradebot_halted", "1 while orders that add exposure are refused by a halt.", halted)
    yield _by_label("tradebot_breakers_tripped", "Tripped breakers; for STALE_MARKET, symbols.", "code", tripped)
    book = status.book
    yield _metric("tradebot_open_positions", "Open simulated positions.", None if book is None else book.open_positions)
    yield from _of_account(status.paper)
    unit = {} if book is None else {"unit": book.unit}
    yield _metric("tradebot_exposure", "Exposure of all positions.", None if book is None else book.exposure, unit)
    yield _metric("tradebot_profit", "Simulated profit after fees.", None if book is None else book.profit, unit)


def _of_account(paper: PaperView | None) -> Iterator[Metric]:
    """The account of PAPER; no sample in SHADOW."""
    unit = {} if paper is None else {"unit": paper.unit}
    equity, free = (None, None) if paper is None else (paper.equity, paper.free)
    yield _metric("tradebot_equity", "Simulated cash and positions of PAPER.", equity, unit)
    yield _metric("tradebot_free_balance", "What a new order of PAPER may spend.", free, unit)
    yield _by_label("tradebot_cash", "Simulated cash of PAPER.", "unit", {} if paper is None else paper.cash)
    yield _metric("tradebot_open_orders", "Open orders of PAPER.", None if paper is None else paper.open_orders)
    yield _metric(
        "tradebot_liquidated", "1 once PAPER's account is used up.", None if paper is None else paper.liquidated
    )
    sides = {} if paper is None else {"given": paper.sides_given, "inferred": paper.sides_inferred}
    yield _by_label("tradebot_taker_sides", "Prints by where the side of their taker is from.", "source", sides)


def _metric(
    name: str, text: str, value: float | None = None, labels: Mapping[str, str] = MappingProxyType({})
) -> Metric:
    """A counter (by its ending) or gauge, with one sample unless `value` is None."""
    family = name.removesuffix("_total")
    metric = Metric(family, text, "gauge" if family == name else "counter")
    if value is not None:
        metric.add_sample(name, dict(labels), float(value))
    return metric


def _by_label(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    """A gauge with one sample for each value of `label`."""
    metric = _metric(name, text)
    for of, value in values.items():
        metric.add_sample(name, {label: of}, float(value))
    return metric


class MetricsServer(Collector):
    """Serves the metrics from its construction until `close`. Made and closed by the main thread.

    `read` gives the newest status, None before the first; it is called by the serving thread at each scrape and must
    not block.
    """

    def __init__(self, config: MetricsConfig, read: Callable[[], Status | None], runtime: Runtime, log: Log) -> None:
        """Raises ConfigError when the port cannot be had."""
        self._read = read
        self._runtime = runtime
        self._log = log.bind("metrics")
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        ProcessCollector(registry=registry)  # memory, processor time, open files
        self._app = make_wsgi_app(registry)
        address = config.address
        try:
            listener = listen(address, config.port)
        except OSError as error:
            raise ConfigError(
                f"metrics: cannot listen at {address} port {config.port}: {error.strerror or error}; choose another"
                " metrics.port (0 turns them off) or metrics.address"
            ) from error
        self.port: int = listener.getsockname()[1]
        self._server = HttpServer(listener, _hosts(config), self._answer, THREAD, runtime, self._log)
        self._log.info("metrics are served", event=LogEvent.METRICS, address=address, port=self.port)

    def close(self) -> None:
        """Stop serving. Blocks for at most a second; idempotent."""
        self._server.close()

    def collect(self) -> list[Metric]:
        """All metrics as they are now; called by the library at each scrape."""
        status = self._read()
        return [] if status is None else families(status, self._runtime.monotonic())

    def _answer(self, request: Request) -> Response:
        """One scrape, by the library's own WSGI application: it chooses format and compression."""
        if request.path not in PATHS:
            return Response("404 Not Found", (PLAIN_TEXT,), b"the metrics are at /metrics\n")
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query,
            "HTTP_ACCEPT": request.headers.get("accept", ""),
            "HTTP_ACCEPT_ENCODING": request.headers.get("accept-encoding", ""),
        }
        began: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Any:
            began.append((status, headers))

        body = b"".join(self._app(environ, start_response))
        status, headers = began[-1]
        return Response(status, tuple(headers), body)


def _hosts(config: MetricsConfig) -> frozenset[str]:
    """Names by which a scraper may address the endpoint: this machine's, the configured ones; addresses always may."""
    named = [] if config.hosts is None else config.hosts.split(",")
    known = ("localhost", config.address, socket.gethostname(), *named)
    return frozenset(name.strip().lower().removesuffix(".") for name in known)
