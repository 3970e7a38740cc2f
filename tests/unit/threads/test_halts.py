"""A halt on its way: from ingest between two ticks to the refused order, in a pipeline with free threads."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.store_helpers import Logged, new_run, tick
from tests.unit.threads.test_pipeline import ListFeed, Recorder
from tradebot.config.model import Config
from tradebot.core.errors import ExitCode
from tradebot.core.events import HALTED, SHADOW_RECORDED, Notice, Tick
from tradebot.core.log_events import LogEvent
from tradebot.execution.shadow import ShadowExecution
from tradebot.feeds.base import Feed
from tradebot.portfolio.money import money_of
from tradebot.store.batch import StoredCounts
from tradebot.store.writer import SqliteWriter
from tradebot.strategy.decider import Decider
from tradebot.strategy.periodic import Periodic
from tradebot.threads.pipeline import STAGES, Parts, Pipeline
from tradebot.threads.shutdown import Control

HALT = Notice("HALT", 11, "tradebot halt: news")
RESUME = Notice("RESUME", 12, "tradebot resume")


class Run:
    """One push feed that brings one tick a batch; `notices` come before the ticks of those numbers (from 0)."""

    def __init__(self, path: Path, logged: Logged, ticks: int, notices: dict[int, Notice]) -> None:
        self.path = path
        runtime, config, polls = Recorder(), Config(), iter(range(ticks + 1))
        control = Control(runtime, STAGES)
        self.pipeline = Pipeline(
            Parts(
                config=config,
                run_id="r1",
                feed=cast(Feed, ListFeed([[tick(number)] for number in range(ticks)], push=True)),
                decider=Decider(Periodic(1), "r1", 0.1, 0.75),
                execution=ShadowExecution(config.risk_caps, money_of(config.execution.fee_rate)),
                storage=SqliteWriter(path, "NORMAL", new_run(path, push=True)),
                spill=None,
                stored=StoredCounts(),
                held=(tick for tick in cast("list[Tick]", [])),
                poll_halt=lambda: notices.get(next(polls, -1)),
            ),
            control,
            runtime,
            logged.log,
        )
        assert self.pipeline.run() is ExitCode.COMPLETE
        assert self.pipeline.metrics.bp_drops_signal == 0

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(self.path)) as db:
            return db.execute(sql).fetchall()

    @property
    def reasons(self) -> list[object]:
        return [reason for (reason,) in self.rows("SELECT reason FROM orders ORDER BY id")]


def test_orders_that_add_exposure_are_refused_between_a_halt_and_its_end(tmp_path: Path, logged: Logged) -> None:
    """The strategy sells and buys in turn: what is open may be closed while halted, nothing may be opened."""
    run = Run(tmp_path / "x.db", logged, 8, {3: HALT, 6: RESUME})
    assert run.reasons == [*[SHADOW_RECORDED] * 4, HALTED, HALTED, *[SHADOW_RECORDED] * 2]
    assert run.rows("SELECT kind, ts, detail, ticks_before FROM notices ORDER BY id") == [
        ("HALT", 11, "tradebot halt: news", 3),
        ("RESUME", 12, "tradebot resume", 6),
    ]
    refused = run.rows("SELECT status, refused_by, side FROM orders WHERE reason = 'HALTED' ORDER BY id")
    assert refused == [("REJECTED", None, "SELL"), ("REJECTED", None, "BUY")]
    metrics = run.pipeline.metrics
    assert (metrics.breaker_vetoes, metrics.orders_rejected, metrics.shadow_orders) == (2, 2, 6)
    assert logged.one(LogEvent.HALT)["detail"] == "tradebot halt: news"
    assert logged.one(LogEvent.RESUME)["detail"] == "tradebot resume"
    details = {line["fields"].get("detail") for line in logged.lines() if line["fields"].get("reason_code") == HALTED}
    assert "halted: only orders that reduce a position are accepted until tradebot resume" in details


def test_a_halt_at_the_start_comes_before_the_first_tick(tmp_path: Path, logged: Logged) -> None:
    run = Run(tmp_path / "x.db", logged, 3, {0: HALT})
    assert run.rows("SELECT ticks_before FROM notices") == [(0,)]
    assert run.reasons == [HALTED] * 3
    view = run.pipeline.breakers.view
    assert (view.halted_since_ms, view.halt_detail, view.codes) == (11, "tradebot halt: news", (HALTED,))


@given(st.lists(st.sampled_from([None, HALT, RESUME]), min_size=1, max_size=12))
def test_each_tick_is_halted_exactly_by_the_notices_before_it(
    tmp_path_factory: pytest.TempPathFactory, script: list[Notice | None]
) -> None:
    """Whatever the timing of the threads; counted with integers: a position of lots, and a flag."""
    logged = Logged()
    path = tmp_path_factory.mktemp("halts") / "x.db"
    run = Run(path, logged, len(script), {number: one for number, one in enumerate(script) if one is not None})
    lots, halted, expected = 0, False, []
    for number, notice in enumerate(script):
        halted = halted if notice is None else notice.kind == "HALT"
        after = lots + (-1 if number % 2 == 0 else 1)
        refused = halted and abs(after) >= abs(lots)
        expected.append(HALTED if refused else SHADOW_RECORDED)
        lots = lots if refused else after
    assert run.reasons == expected
    logged.log.close()
