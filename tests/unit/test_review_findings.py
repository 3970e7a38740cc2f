"""What a review of the engine showed to be wrong, each with the way it showed."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from tests.unit.store_helpers import Logged, new_run, tick
from tradebot.config.model import Config
from tradebot.core.channel import Channel
from tradebot.core.errors import ConfigError, ExitCode
from tradebot.core.events import Notice, Tick, TickChunk
from tradebot.core.ledger import Ledger
from tradebot.core.runtime import RealRuntime, Thread
from tradebot.execution.shadow import ShadowExecution
from tradebot.feeds.base import Feed, FeedBatch
from tradebot.feeds.sampling import Intake
from tradebot.feeds.status import NO_LINK, FeedStatus
from tradebot.portfolio.money import money_of
from tradebot.store.batch import StoredCounts, WriteBatch
from tradebot.store.database import connect, connect_readonly
from tradebot.store.policy import WAL_BYTES_KEPT
from tradebot.store.reader import find_tick_source, read_ticks
from tradebot.store.writer import SqliteWriter
from tradebot.strategy.decider import Decider
from tradebot.strategy.registry import create
from tradebot.threads.counters import Metrics
from tradebot.threads.ingest import IngestStage
from tradebot.threads.pipeline import STAGES, Parts, Pipeline
from tradebot.threads.shutdown import Control


class Batches:
    """A feed of given batches; an exception among them is raised."""

    total = None
    position = 0

    def __init__(self, batches: list[FeedBatch | BaseException], push: bool, close_fails: bool = False) -> None:
        self.batches = batches
        self.push = push
        self.close_fails = close_fails

    def status(self) -> FeedStatus:
        return NO_LINK

    def read(self) -> FeedBatch | None:
        batch = self.batches.pop(0) if self.batches else None
        if isinstance(batch, BaseException):
            raise batch
        return batch

    def close(self) -> None:
        if self.close_fails:
            raise OSError("no")


def ticks(count: int) -> list[Tick]:
    return [tick(n) for n in range(1, count + 1)]


def held(stored: list[Tick]) -> Generator[Tick, None, None]:
    yield from stored


def pipeline_of(feed: Batches, logged: Logged, runtime: RealRuntime | None = None) -> Pipeline:
    config, runtime = Config(), RealRuntime() if runtime is None else runtime
    parts = Parts(
        config, "r1", cast(Feed, feed), Decider(create("sma_crossover", config), "r1", 0.1, 0.75),
        ShadowExecution(config.risk_caps, money_of(0.001)), None, None, StoredCounts(), held([]),
    )  # fmt: skip
    return Pipeline(parts, Control(runtime, STAGES), runtime, logged.log)


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt(), GeneratorExit()])
def test_no_exception_at_all_ends_a_stage_unnoticed(error: BaseException, logged: Logged) -> None:
    """An uncaught exception of a thread is exit 1, and the process never lives on with a dead thread."""
    pipeline = pipeline_of(Batches([FeedBatch(ticks(3)), error], push=True), logged)
    assert pipeline.run() is ExitCode.CRASH
    assert pipeline.failure is not None and type(error).__name__ in pipeline.failure.cause
    assert pipeline.ledger().accepted == 3


def test_a_thread_that_cannot_be_started_is_a_crash_and_ends_the_others(logged: Logged) -> None:
    class NoHeartbeat(RealRuntime):
        def spawn(self, name: str, target: Any) -> Thread:
            if name == "tradebot-ingest":
                raise RuntimeError("can't start new thread")
            return super().spawn(name, target)

    pipeline = pipeline_of(Batches([FeedBatch(ticks(3))], push=True), logged, NoHeartbeat())
    assert pipeline.run() is ExitCode.CRASH
    assert pipeline.ledger().problems() == []


def test_a_feed_that_fails_to_close_does_not_hide_how_it_ended(logged: Logged) -> None:
    pipeline = pipeline_of(Batches([ConfigError("the real reason")], push=True, close_fails=True), logged)
    assert pipeline.run() is ExitCode.CONFIG
    assert pipeline.failure is not None and pipeline.failure.cause == "the real reason"


def stage(feed: Batches, stored: list[Tick], logged: Logged) -> tuple[IngestStage, Metrics, Channel[Any]]:
    runtime, metrics = RealRuntime(), Metrics()
    channels = tuple(Channel[Any](runtime, name, 100) for name in ("tick", "signal", "persist"))
    made = IngestStage(
        cast(Feed, feed), Intake(1), channels, len(stored), held(stored), metrics, Control(runtime, STAGES),  # type: ignore[arg-type]
        logged.log,
    )  # fmt: skip
    return made, metrics, channels[0]


def ledger_of(metrics: Metrics) -> Ledger:
    return Ledger(
        received=metrics.ingest_received, already_stored=metrics.already_stored, refused=metrics.refused,
        accepted=metrics.ingest_processed, stored=metrics.ingest_processed,
    )  # fmt: skip


def test_a_resume_that_differs_accounts_for_all_pieces_of_a_batch(logged: Logged) -> None:
    """A notice cuts a batch into pieces; what comes after the piece that failed is accounted for too."""
    batch = FeedBatch(ticks(6), notices=((2, Notice("GAP", 1, "x", "A", 1)), (4, Notice("GAP", 1, "x", "A", 1))))
    made, metrics, _channel = stage(Batches([batch], push=False), [tick(1), tick(9)], logged)
    with pytest.raises(ConfigError, match="the input differs from the one this run began with"):
        made.run()
    assert ledger_of(metrics).problems() == []


def test_a_resume_with_an_input_that_is_too_short_is_refused(logged: Logged) -> None:
    """What is stored of a replay is a part of its input, or it is another input."""
    made, metrics, _channel = stage(Batches([FeedBatch(ticks(2))], push=False), ticks(5), logged)
    with pytest.raises(ConfigError, match="ends after 2 ticks, and 3 more are stored"):
        made.run()
    assert not made.complete
    assert ledger_of(metrics).problems() == []


def test_a_resume_with_just_what_is_stored_is_complete(logged: Logged) -> None:
    made, metrics, _channel = stage(Batches([FeedBatch(ticks(5))], push=False), ticks(5), logged)
    made.run()
    assert made.complete and metrics.already_stored == 5


def test_a_run_that_is_still_written_is_replayed_as_it_was_hashed(tmp_path: Path) -> None:
    """S8: the content that gives the run its id is the content that is replayed."""
    path = tmp_path / "x.db"
    storage = SqliteWriter(path, "NORMAL", new_run(path))

    def store(some: list[Tick]) -> None:
        batch = WriteBatch()
        batch.add(TickChunk(some))
        storage.write(batch)

    store(ticks(5))
    with closing(connect_readonly(path)) as db:
        source = find_tick_source(db, None)
    store(ticks(7))
    with closing(connect_readonly(path)) as db:
        assert sum(len(chunk) for chunk in read_ticks(db, source)) == source.rows == 5
    storage.close()


def test_the_wal_is_cut_down_again(tmp_path: Path) -> None:
    """A long reader lets the WAL grow; once it has gone the file shrinks to the size that is kept."""
    path = tmp_path / "x.db"
    new_run(path)
    wal = Path(f"{path}-wal")
    with closing(connect(path)) as db, closing(sqlite3.connect(path, isolation_level=None)) as reader:
        db.execute_sql("CREATE TABLE big (x BLOB)")
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM big").fetchall()
        for _ in range(3):
            db.execute_sql("INSERT INTO big VALUES (zeroblob(?))", (WAL_BYTES_KEPT // 2,))
        assert wal.stat().st_size > WAL_BYTES_KEPT
        reader.execute("COMMIT")
        for _ in range(3):
            db.execute_sql("INSERT INTO big VALUES (1)")
        assert wal.stat().st_size <= WAL_BYTES_KEPT


def test_a_sweep_does_not_fill_the_channel_before_the_strategy_had_a_turn(logged: Logged) -> None:
    """Hundreds of ticks that lie ready at once: the feed leaves the processor to the consumers when half is full."""
    pipeline = pipeline_of(Batches([FeedBatch([one]) for one in ticks(3000)], push=True), logged)
    assert pipeline.run() is ExitCode.COMPLETE
    assert pipeline.ledger().accepted == 3000
