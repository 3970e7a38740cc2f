"""A restart in PAPER continues as if the run had never been interrupted, whatever state was stored last."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.unit.store_helpers import Logged, run_info
from tradebot.config.model import Config
from tradebot.config.paper import PaperConfig
from tradebot.config.validation import build
from tradebot.core.errors import ConfigError
from tradebot.core.events import BUY, SELL, STALE_DATA, Checkpoint, Notice, Side, Tick, TickChunk, TickOutcome
from tradebot.core.outcome_ticks import OutcomeTicks
from tradebot.core.runtime import RealRuntime
from tradebot.execution.base import InlineExecutor
from tradebot.execution.risk import Refusal
from tradebot.execution.shadow import ShadowExecution
from tradebot.execution.timing import Recorded, TooOld
from tradebot.executor import continue_execution, make_executor
from tradebot.portfolio.money import money_of
from tradebot.store.batch import WriteBatch
from tradebot.store.session import SqliteStore
from tradebot.strategy.base import Decision

SYMBOL = "TEST/USD"
NO_CLOCK = TooOld(lambda: 0, 0)
LIMIT_ORDERS = {"execution.order_type": "limit", "execution.limit_offset_bps": 5.0}


def config_of(**more: Any) -> Config:
    paper = PaperConfig(latency_ms=2, participation=1.0)
    config = build({"mode": "PAPER", "strategy.desired_size": 1.0, **more})
    return replace(config, paper=paper)


def executor_of(config: Config, run_id: str) -> InlineExecutor:
    executor = make_executor(config, run_id, money_of(0.001))
    assert not isinstance(executor, ShadowExecution)
    return executor


class Market:
    """Ticks, decisions on some of them, ticks whose signals are too old, and links that were lost."""

    def __init__(self, cents: Sequence[int], decided: dict[int, Side], stale: set[int], lost: set[int]) -> None:
        takers: tuple[Side, Side] = (BUY, SELL)
        self.ticks = [
            Tick(SYMBOL, 100.0 + cent / 100, 0.5, 1_700_000_000_000 + 2 * number, taker=takers[number % 2])
            for number, cent in enumerate(cents)
        ]
        self.decided, self.lost = decided, lost
        self.stale = {number: Refusal(STALE_DATA) for number in stale}

    def play(self, executor: InlineExecutor, begin: int, end: int, before: int = 0) -> list[TickOutcome]:
        """What the ticks with numbers above `begin` up to `end` cause, in a run that began after tick `before`."""
        outcomes: list[TickOutcome] = []
        executor.refusals = Recorded({number - before: refusal for number, refusal in self.stale.items()})
        for number in range(begin + 1, end + 1):
            if number in self.lost:
                executor.on_notice(self.notice(number, before))
            side = self.decided.get(number)
            decisions = [] if side is None else [Decision(0, side, "SCRIPT")]
            outcomes += executor.on_ticks(SYMBOL, [self.ticks[number - 1]], number - before, decisions)
        return outcomes

    def notice(self, number: int, before: int) -> Notice:
        return Notice("LINK_LOST", 1, "lost", ticks_before=number - 1 - before)


def store_of(path: Path, logged: Logged) -> SqliteStore:
    return SqliteStore(path, "NORMAL", 1.0, RealRuntime(), logged.log)


def begin(store: SqliteStore, run_id: str) -> Any:
    record = store.begin_run(run_info(run_id, push=True, mode="PAPER"), 1, resume=False)
    store.read_restart_state(record, 1, lambda: None)
    return record


def first_life(store: SqliteStore, market: Market, config: Config, checkpoint: int, end: int) -> None:
    """A run that is killed after tick `end`; its newest state is that after tick `checkpoint` (0: it has no state)."""
    executor = executor_of(config, "l1")
    with closing(store.writer(begin(store, "l1"))) as writer:
        for number in range(1, end + 1):
            batch = WriteBatch()
            if number in market.lost:
                batch.add(market.notice(number, 0))
            outcomes = market.play(executor, number - 1, number)
            batch.add(OutcomeTicks(TickChunk([market.ticks[number - 1]]), None, number, outcomes))
            if number == checkpoint:
                batch.add(Checkpoint(number, prices=1, state=executor.state()))
            writer.write(batch, 100)
    store.close()


def told(outcomes: Sequence[TickOutcome], before: int) -> list[Any]:
    """What can be compared: without the run and its numbering. `before`: ticks of the runs before."""

    def named(name: str) -> str:
        run, number, letter = name.rsplit("-", 2)
        return f"{int(number) + (before if run == 'l2' else 0)}-{letter}"

    return [
        (
            outcome.number + before,
            [(named(one.event_id), one.side, one.reason, one.price) for one in outcome.signals],
            [(named(one.event_id), one.status, one.reason, one.qty, one.limit_price) for one in outcome.orders],
            [(named(one.order_id), one.n, one.status, one.reason, one.remaining) for one in outcome.order_events],
            [
                (named(one.event_id), one.fill_qty, one.fill_price, one.fees, one.liquidity, one.after_gap)
                for one in outcome.fills
            ],
        )
        for outcome in outcomes
    ]


numbers_st = st.sets(st.integers(1, 24), max_size=6)


@settings(max_examples=25, deadline=None)
@given(
    cents=st.lists(st.integers(-3, 3), min_size=24, max_size=24),
    decided=st.dictionaries(st.integers(1, 24), st.sampled_from((BUY, SELL)), max_size=14),
    stale=numbers_st,
    lost=numbers_st,
    cut=st.tuples(st.integers(0, 12), st.integers(0, 12)),
    limit=st.booleans(),
)
@example(cents=[0] * 24, decided={5: BUY, 7: BUY}, stale={5}, lost=set(), cut=(2, 6), limit=False)
@example(cents=[0, 1, *[0] * 5, *[-20] * 17], decided={4: BUY}, stale=set(), lost={5}, cut=(2, 3), limit=True)
def test_it_goes_on_as_one_that_was_never_killed(
    cents: list[int], decided: dict[int, Side], stale: set[int], lost: set[int], cut: tuple[int, int], limit: bool
) -> None:
    market, config = Market(cents, decided, stale, lost), config_of(**(LIMIT_ORDERS if limit else {}))
    checkpoint, end = cut[0], sum(cut)
    logged = Logged()
    with TemporaryDirectory() as directory:
        path = Path(directory) / "x.db"
        first_life(store_of(path, logged), market, config, checkpoint, end)
        whole = executor_of(config, "l1")
        market.play(whole, 0, end)
        store = store_of(path, logged)
        executor = executor_of(config, "l2")
        record = begin(store, "l2")
        carried, _memory = store.read_restart_state(record, 1, lambda: None)
        continued = continue_execution(store, record, executor, "l2", carried, NO_CLOCK)
        assert continued == (None if not end else "l1")
        assert told(market.play(executor, end, 24, before=end), end) == told(market.play(whole, end, 24), 0)
        assert executor.positions.states() == whole.positions.states()
        store.close()
    logged.log.close()


def test_ticks_that_follow_are_judged_by_the_clock() -> None:
    config, logged = config_of(), Logged()
    market = Market([0, 0], {1: BUY, 2: BUY}, set(), set())
    with TemporaryDirectory() as directory:
        path = Path(directory) / "x.db"
        first_life(store_of(path, logged), market, config, 0, 1)
        store, executor = store_of(path, logged), executor_of(config, "l2")
        record = begin(store, "l2")
        carried, _memory = store.read_restart_state(record, 1, lambda: None)
        continue_execution(store, record, executor, "l2", carried, TooOld(lambda: market.ticks[1].ts + 11, 10))
        [outcome] = executor.on_ticks(SYMBOL, market.ticks[1:], 1, [Decision(0, BUY, "SCRIPT")])
        assert [order.reason for order in outcome.orders] == [STALE_DATA]
        store.close()
    logged.log.close()


def test_a_state_of_another_version_is_refused_in_one_line() -> None:
    config, logged = config_of(), Logged()
    with TemporaryDirectory() as directory:
        path = Path(directory) / "x.db"
        store = store_of(path, logged)
        with closing(store.writer(begin(store, "l1"))) as writer:
            batch = WriteBatch()
            batch.add(TickChunk(Market([0], {}, set(), set()).ticks))
            batch.add(Checkpoint(1, prices=1, state=b"\x81\xa7version\x00"))
            writer.write(batch, 100)
        store.close()
        store, executor = store_of(path, logged), executor_of(config, "l2")
        record = begin(store, "l2")
        carried, _memory = store.read_restart_state(record, 1, lambda: None)
        with pytest.raises(ConfigError, match=r"after tick 1 of run l1.*use another --db"):
            continue_execution(store, record, executor, "l2", carried, NO_CLOCK)
        store.close()
    logged.log.close()
