"""The pipeline's wiring with free threads: start order, how it ends, and what its ledger says. More is in tests/sim."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from tests.unit.store_helpers import Logged, counts, new_run, tick
from tradebot.config.model import Config
from tradebot.core.channel import Channel
from tradebot.core.errors import ExitCode, ParseError
from tradebot.core.events import Tick
from tradebot.core.ledger import NotStored
from tradebot.core.runtime import RealRuntime, Thread
from tradebot.execution.shadow import ShadowExecution
from tradebot.feeds.base import Feed, FeedBatch
from tradebot.feeds.status import FeedStatus
from tradebot.portfolio.money import money_of
from tradebot.store.batch import StoredCounts
from tradebot.store.protocol import BatchWriter
from tradebot.store.writer import SqliteWriter
from tradebot.strategy.decider import Decider
from tradebot.strategy.registry import create
from tradebot.threads.ingest import overload_cause
from tradebot.threads.pipeline import STAGES, Parts, Pipeline
from tradebot.threads.shutdown import Control


@dataclass
class ListFeed:
    """Chunks of ticks, then what happens: the end (None) or an error."""

    chunks: list[list[Tick]]
    then: Callable[[], FeedBatch | None] = lambda: None
    push: bool = False
    total: int | None = None
    position: int = 0
    closed: bool = False

    def read(self) -> FeedBatch | None:
        return FeedBatch(self.chunks.pop(0)) if self.chunks else self.then()

    def status(self) -> FeedStatus:
        return FeedStatus("up")

    def close(self) -> None:
        self.closed = True


@dataclass
class Recorder(RealRuntime):
    """Remembers the order in which threads are started."""

    started: list[str] = field(default_factory=list)
    signals: int = 0

    def spawn(self, name: str, target: Callable[[], None]) -> Thread:
        self.started.append(name)
        return super().spawn(name, target)

    def stop_signals(self) -> int:
        return self.signals


def _no_ticks() -> Generator[Tick, None, None]:
    yield from ()


@dataclass
class Run:
    """A pipeline around a feed."""

    feed: ListFeed
    logged: Logged
    storage: BatchWriter | None = None
    runtime: Recorder = field(default_factory=Recorder)

    def __post_init__(self) -> None:
        config = Config()
        decider = Decider(create("sma_crossover", config), "r1", 0.1, 0.75)
        execution = ShadowExecution(config.risk_caps, money_of(config.execution.fee_rate))
        feed = cast(Feed, self.feed)
        parts = Parts(config, "r1", feed, decider, execution, self.storage, None, StoredCounts(), _no_ticks())
        self.control = Control(self.runtime, STAGES)
        self.pipeline = Pipeline(parts, self.control, self.runtime, self.logged.log)


def ticks(count: int) -> list[Tick]:
    return [tick(n, price=100.0 + (n // 25) % 2) for n in range(count)]


def test_a_stage_starts_before_whoever_feeds_it(logged: Logged) -> None:
    """Writer first, ingest last; each in a thread of its name."""
    run = Run(ListFeed([ticks(3)]), logged)
    assert run.pipeline.run() is ExitCode.COMPLETE
    assert run.runtime.started == [
        "tradebot-persist", "tradebot-execution", "tradebot-strategy", "tradebot-ingest", "tradebot-heartbeat",
    ]  # fmt: skip
    assert tuple(name.removeprefix("tradebot-") for name in run.runtime.started[:-1]) == STAGES


def test_a_replay_that_stores_nothing(logged: Logged) -> None:
    """not_stored has its cause, by design; the ledger balances."""
    run = Run(ListFeed([ticks(30), ticks(1)]), logged)
    assert run.pipeline.run() is ExitCode.COMPLETE
    ledger = run.pipeline.ledger()
    assert (ledger.received, ledger.accepted, ledger.stored, ledger.not_stored) == (31, 31, 0, 31)
    assert ledger.cause is NotStored.BY_DESIGN
    assert ledger.problems() == []
    assert run.pipeline.complete
    assert run.feed.closed


def test_a_replay_that_stores(tmp_path: Path, logged: Logged) -> None:
    path = tmp_path / "x.db"
    storage = SqliteWriter(path, "NORMAL", new_run(path))
    run = Run(ListFeed([ticks(60), ticks(60)]), logged, storage)
    assert run.pipeline.run() is ExitCode.COMPLETE
    ledger = run.pipeline.ledger()
    assert (ledger.accepted, ledger.stored, ledger.cause) == (120, 120, None)
    assert counts(path)[0] == 120
    assert counts(path)[1] == run.pipeline.metrics.signal_count > 0


@pytest.mark.parametrize(
    ("error", "code"), [(ParseError("line 7: no tick"), ExitCode.PARSE), (ValueError("a bug"), ExitCode.CRASH)]
)
def test_a_feed_that_fails(tmp_path: Path, logged: Logged, error: Exception, code: ExitCode) -> None:
    """G5: the typed code; what was accepted before is stored; the run is not whole."""

    def fail() -> FeedBatch | None:
        raise error

    path = tmp_path / "x.db"
    run = Run(ListFeed([ticks(40)], fail), logged, SqliteWriter(path, "NORMAL", new_run(path)))
    assert run.pipeline.run() is code
    assert run.pipeline.failure is not None
    assert (run.pipeline.failure.stage, run.feed.closed) == ("ingest", True)
    assert str(error) in run.pipeline.failure.cause
    assert counts(path)[0] == 40
    assert run.pipeline.ledger().problems() == []
    assert not run.pipeline.complete


def test_a_stop_signal_is_served(tmp_path: Path, logged: Logged) -> None:
    """S13: reading stops, what was accepted is stored, exit 0; a replay stopped half-way is not whole."""
    path = tmp_path / "x.db"
    run = Run(ListFeed([ticks(40)]), logged, SqliteWriter(path, "NORMAL", new_run(path)))

    def wait() -> FeedBatch | None:
        run.runtime.signals = 1
        run.control.stop.wait(0.5)
        return FeedBatch([])

    run.feed.then = wait
    assert run.pipeline.run() is ExitCode.COMPLETE
    assert counts(path)[0] == 40
    assert not run.pipeline.complete
    assert run.pipeline.ledger().problems() == []


def test_a_second_signal_does_not_wait(logged: Logged) -> None:
    """A second signal exits at once, with the stages still running."""
    run = Run(ListFeed([ticks(40)]), logged)
    held = run.runtime.event()

    def hang() -> FeedBatch | None:
        run.runtime.signals = 2
        held.wait(20)
        return None

    run.feed.then = hang
    assert run.pipeline.run() is ExitCode.CRASH
    assert "ingest" in run.control.running()
    assert run.pipeline.ledger().cause is NotStored.SECOND_SIGNAL
    held.set()
    assert run.control.finished.wait(20)


def channels(runtime: RealRuntime, full: str) -> Sequence[Channel[Any]]:
    made: list[Channel[Any]] = [Channel(runtime, name, 2) for name in ("tick", "signal", "persist")]
    for channel in made:
        channel.send([1, 2] if channel.name in full else [1])
    return made


@pytest.mark.parametrize(
    ("full", "cause"),
    [
        ("tick", "strategy"),
        ("tick signal", "strategy"),
        ("tick persist", "persist"),
        ("tick signal persist", "persist"),
    ],
)
def test_overload_cause(full: str, cause: str) -> None:
    """G5: the stage that holds the pipeline up is the consumer of the full channel nearest to the database."""
    assert overload_cause(channels(RealRuntime(), full)) == cause
