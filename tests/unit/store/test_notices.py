"""Notices of a live feed travel in-band: their place between ticks, in database and spill file; sampling, ledger."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from tests.unit.store_helpers import new_run, tick
from tradebot.config.model import Config, EngineConfig
from tradebot.core.cancellation import Cancellation
from tradebot.core.channel import Channel
from tradebot.core.errors import ExitCode
from tradebot.core.events import Notice, Tick
from tradebot.core.log_events import LogEvent
from tradebot.core.runtime import RealRuntime
from tradebot.execution.shadow import ShadowExecution
from tradebot.feeds.base import Feed, FeedBatch
from tradebot.feeds.replay.pacing import PacedFeed
from tradebot.feeds.sampling import Intake
from tradebot.feeds.status import NO_LINK, FeedStatus
from tradebot.portfolio.money import money_of
from tradebot.store.adoption import adopt
from tradebot.store.batch import StoredCounts, WriteBatch
from tradebot.store.database import connect
from tradebot.store.spill import Spill, spill_path
from tradebot.store.writer import SqliteWriter
from tradebot.strategy.base import Decision, Strategy, SymbolHistory
from tradebot.strategy.decider import Decider
from tradebot.threads.counters import Metrics
from tradebot.threads.ingest import IngestStage
from tradebot.threads.pipeline import STAGES, Parts, Pipeline
from tradebot.threads.shutdown import Control

UP = Notice("LINK_UP", 1, "ws://here")
LOST = Notice("LINK_LOST", 2, "reset")
BACK = Notice("LINK_RESTORED", 3, "ws://here after 1 s")
GAP = Notice("GAP", 4, "3 to 6", "A", 2)


class Watching(Strategy):
    """Notes what it is shown, in order."""

    name = "watching"
    lookback = 1

    def __init__(self) -> None:
        self.seen: list[object] = []

    @classmethod
    def from_config(cls, config: Config) -> Strategy:
        return cls()

    def on_ticks(self, symbol: str, ticks: Any) -> list[Decision]:
        self.seen += [each.ts for each in ticks]
        return []

    def on_notice(self, notice: Notice) -> None:
        self.seen.append(notice.kind)

    def restore(self, symbol: str, history: SymbolHistory) -> None:
        pass


class Batches:
    """A push feed (or replay) of given batches."""

    total = None
    position = 0

    def __init__(self, batches: list[FeedBatch], push: bool = True) -> None:
        self.batches = batches
        self.push = push

    def status(self) -> FeedStatus:
        return NO_LINK

    def read(self) -> FeedBatch | None:
        return self.batches.pop(0) if self.batches else None

    def close(self) -> None:
        pass


def _no_ticks() -> Generator[Tick, None, None]:
    yield from ()


def numbered(count: int, start: int = 0) -> list[Tick]:
    return [replace(tick(0), ts=start + n) for n in range(count)]


def run(
    path: Path, logged: Any, batches: list[FeedBatch], sample_every: int = 1
) -> tuple[Pipeline, Watching, ExitCode]:
    runtime = RealRuntime()
    config = replace(Config(), engine=EngineConfig(sample_every=sample_every))
    watching = Watching()
    storage = SqliteWriter(path, "NORMAL", new_run(path, push=True))
    parts = Parts(
        config, "r1", cast(Feed, Batches(batches)), Decider(watching, "r1", 0.1, 0.75),
        ShadowExecution(config.risk_caps, money_of(0.001)), storage, None, StoredCounts(), _no_ticks(),
    )  # fmt: skip
    pipeline = Pipeline(parts, Control(runtime, STAGES), runtime, logged.log)
    return pipeline, watching, pipeline.run()


def stored(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT kind, ts, symbol, missing, detail, ticks_before FROM notices ORDER BY id").fetchall()


def test_strategy_and_database_see_them_in_their_place(tmp_path: Path, logged: Any) -> None:
    """Link lost and restored travel in-band, in sequence."""
    batches = [
        FeedBatch([], notices=((0, UP),)),
        FeedBatch(numbered(3), notices=((0, LOST), (2, GAP), (3, BACK))),
        FeedBatch(numbered(1, 3)),
    ]
    pipeline, watching, code = run(tmp_path / "x.db", logged, batches)
    assert code is ExitCode.COMPLETE
    assert watching.seen == ["LINK_UP", "LINK_LOST", 0, 1, "GAP", 2, "LINK_RESTORED", 3]
    assert stored(tmp_path / "x.db") == [
        ("LINK_UP", 1, None, None, "ws://here", 0),
        ("LINK_LOST", 2, None, None, "reset", 0),
        ("GAP", 4, "A", 2, "3 to 6", 2),
        ("LINK_RESTORED", 3, None, None, "ws://here after 1 s", 3),
    ]
    assert (pipeline.metrics.gaps, pipeline.metrics.reconnects, pipeline.metrics.persist_count) == (1, 1, 8)
    assert pipeline.ledger().problems() == []
    with closing(sqlite3.connect(tmp_path / "x.db")) as db:
        assert db.execute("SELECT ticks, notices FROM runs").fetchall() == [(4, 4)]


def test_sampling_counts_ticks_only(tmp_path: Path, logged: Any) -> None:
    """The sampling invariant holds across notices; what is left out does not count in ticks_before."""
    batches = [FeedBatch(numbered(3), notices=((1, LOST), (2, BACK))), FeedBatch(numbered(4, 3), notices=((2, GAP),))]
    pipeline, watching, _code = run(tmp_path / "x.db", logged, batches, sample_every=2)
    assert watching.seen == ["LINK_LOST", 1, "LINK_RESTORED", 3, "GAP", 5]
    assert [row[0::5] for row in stored(tmp_path / "x.db")] == [("LINK_LOST", 0), ("LINK_RESTORED", 1), ("GAP", 2)]
    assert pipeline.metrics.sampled_out == 4
    assert pipeline.ledger().problems() == []


def test_what_the_feed_left_out_is_in_the_ledger(tmp_path: Path, logged: Any) -> None:
    batches = [FeedBatch(numbered(2), malformed=1, duplicates=3, history_dropped=5, out_of_band=7)]
    pipeline, _watching, _code = run(tmp_path / "x.db", logged, batches)
    ledger = pipeline.ledger()
    assert (ledger.received, ledger.malformed, ledger.duplicates, ledger.history_dropped) == (18, 1, 3, 5)
    assert ledger.out_of_band == pipeline.metrics.out_of_band == 7
    assert ledger.problems() == []


@pytest.mark.parametrize(
    ("room", "accepted", "notices"), [(0, 0, 0), (1, 0, 1), (2, 1, 1), (3, 2, 1), (4, 2, 2), (5, 3, 2), (6, 4, 2)]
)
def test_an_overload_anywhere_in_a_batch(room: int, accepted: int, notices: int, logged: Any) -> None:
    """G5: only what came after the refusal is missing, counted as refused; a notice may be what is refused."""
    runtime, metrics = RealRuntime(), Metrics()
    channels = tuple(Channel[Any](runtime, name, 10) for name in ("tick", "signal", "persist"))
    channels[0].send(["filler"] * (10 - room))
    control = Control(runtime, STAGES)
    batch = FeedBatch(numbered(4), notices=((0, UP), (2, LOST)))
    feed = cast(Feed, Batches([batch, FeedBatch(numbered(1))]))
    stage = IngestStage(feed, Intake(1), channels, 0, _no_ticks(), metrics, control, logged.log)  # type: ignore[arg-type]
    stage.run()
    whole = room == 6
    assert (metrics.ingest_processed, metrics.refused) == (accepted, 4 - accepted + whole)
    assert metrics.bp_drops_tick == metrics.refused
    assert (control.failure is not None) and control.failure.code is ExitCode.OVERLOAD
    items = [item if isinstance(item, list) else [item] for item in channels[0].take(100)]
    entered = [event for item in items for event in item if event != "filler"]
    assert sum(isinstance(event, Notice) for event in entered) == notices
    # Those without room stand in the log, and nowhere else: seed 702596 found the line to say refused=0.
    assert logged.one(LogEvent.OVERLOAD).get("notices_refused", 0) == (0 if whole else 2 - notices)
    assert sum(isinstance(event, Tick) for event in entered) == accepted


def test_a_spill_file_keeps_them(tmp_path: Path) -> None:
    """What was spilled is adopted whole, each notice once."""
    path = tmp_path / "x.db"
    record = new_run(path)
    notices = [replace(UP, ticks_before=0), replace(GAP, ticks_before=2)]
    first = WriteBatch()
    first.add(notices[0])
    storage = SqliteWriter(path, "NORMAL", record)
    before = storage.counts
    storage.write(first)
    storage.close()
    spill = Spill(spill_path(path), 10)
    spill.begin("r1", before)
    spill.append(notices)
    spill.append(numbered(2))
    spill.finish()
    with closing(connect(path)) as db:
        adopted = adopt(db, spill_path(path))
    assert adopted is not None and (adopted.events, adopted.already_stored, adopted.whole) == (3, 1, True)
    assert [row[0] for row in stored(path)] == ["LINK_UP", "GAP"]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT ticks, notices FROM runs").fetchall() == [(2, 2)]


def test_a_spill_file_of_the_first_format_is_still_adopted(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    new_run(path)
    spill_path(path).write_text('["spill",1,"r1",0,0,0,0]\n["t","A",1.0,2.0,3,null,null]\n["end",1]\n')
    with closing(connect(path)) as db:
        adopted = adopt(db, spill_path(path))
    assert adopted is not None and adopted.events == 1


def test_a_failed_write_of_notices_alone_is_not_repeated(tmp_path: Path) -> None:
    """In doubt whether a commit happened: the counters of the run tell, notices included."""
    path = tmp_path / "x.db"
    storage = SqliteWriter(path, "NORMAL", new_run(path))
    batch = WriteBatch()
    batch.add_event(UP)
    storage.write(batch)
    counts = storage.counts
    storage.counts = StoredCounts()
    storage._in_doubt = True
    storage.write(batch)
    storage.close()
    assert storage.counts == counts == StoredCounts(notices=1)
    assert len(stored(path)) == 1


def test_pacing_keeps_their_place(logged: Any) -> None:
    """A paced replay hands each notice out once, before the tick it stands before and not before the tick after it."""
    runtime = RealRuntime()
    batch = FeedBatch(numbered(3, 1_700_000_000_000), notices=((0, UP), (1, LOST), (3, BACK)), duplicates=2)
    feed = PacedFeed(cast(Feed, Batches([batch], push=False)), 1000.0, runtime, Cancellation(runtime), logged.log)
    seen: list[object] = []
    duplicates = 0
    while (part := feed.read()) is not None:
        duplicates += part.duplicates
        places = dict.fromkeys(range(len(part.ticks) + 1), ())
        for index in places:
            seen += [notice.kind for at, notice in part.notices if at == index]
            seen += [each.ts - 1_700_000_000_000 for each in part.ticks[index : index + 1]]
    assert seen == ["LINK_UP", 0, "LINK_LOST", 1, 2, "LINK_RESTORED"]
    assert duplicates == 2
