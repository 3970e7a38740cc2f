"""What the stages do in a resumed replay, in a replay and in a push feed, each stage by itself."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, cast

import pytest

from tests.unit.store_helpers import Logged, signal, tick
from tests.unit.threads.strategies import Always
from tradebot.config.model import BreakersConfig, RiskCaps
from tradebot.core.channel import Channel
from tradebot.core.events import (
    BP_DROP_SIGNAL,
    BUY,
    STALE_DATA,
    LimitBreach,
    Notice,
    Order,
    Signal,
    Tick,
    TickChunk,
    as_item,
)
from tradebot.core.runtime import RealRuntime
from tradebot.execution.breakers import Breakers
from tradebot.execution.risk import Refusal
from tradebot.execution.shadow import ShadowExecution, refuse
from tradebot.feeds.base import Feed, FeedBatch
from tradebot.feeds.sampling import Intake
from tradebot.feeds.status import NO_LINK, FeedStatus
from tradebot.portfolio.money import money_of
from tradebot.store.batch import StoredCounts
from tradebot.strategy.base import Decision
from tradebot.strategy.decider import Decider
from tradebot.threads.counters import Metrics
from tradebot.threads.execution import ExecutionStage
from tradebot.threads.ingest import IngestStage
from tradebot.threads.shutdown import Control
from tradebot.threads.strategy import StrategyStage


def notice(number: int) -> Notice:
    return Notice("LINK_UP", number, f"notice {number}")


def channel_of(name: str, size: int = 100) -> Channel[Any]:
    return Channel(RealRuntime(), name, size)


def left_in(channel: Channel[Any]) -> list[Any]:
    """What a stage has put there."""
    items = channel.take(1000, 0.0) if channel.depth else []
    return [event for item in items for event in (item if isinstance(item, list) else [item])]


def strategy_stage(
    logged: Logged, stored: StoredCounts, push: bool = False, signals: int = 100
) -> tuple[StrategyStage, list[Channel[Any]]]:
    channels = [channel_of("tick"), channel_of("signal", signals), channel_of("persist")]
    decider = Decider(Always(), "r1", 0.1, 0.75)
    stage = StrategyStage(
        decider, cast(Any, tuple(channels)), push, stored, Metrics(), logged.log, Breakers(BreakersConfig())
    )
    return stage, channels


# ---- strategy ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", range(5))
def test_notices_that_are_stored_are_not_handed_on_again(logged: Logged, stored: int) -> None:
    """I3: a resumed capture stores each notice once, however many there are and however they come in chunks."""
    stage, channels = strategy_stage(logged, StoredCounts(notices=stored))
    for number in range(4):
        channels[0].send(notice(number))
    channels[0].close()
    stage.run()
    assert left_in(channels[2]) == [notice(number) for number in range(stored, 4)]


def test_a_signal_that_nobody_takes_gives_its_prices_back(logged: Logged) -> None:
    """I2: exposure is as of the signal's tick, whatever was dropped before it."""
    stage, (ticks, signals, persist) = strategy_stage(logged, StoredCounts(), push=True, signals=1)
    for number, symbol in enumerate(["A/USD", "B/USD", "C/USD"]):
        ticks.send(as_item(tick(number, symbol, price=10.0 + number)))
    ticks.close()
    stage.run()
    assert [order.reason for order in left_in(persist) if isinstance(order, Order)] == [BP_DROP_SIGNAL] * 2
    assert len(left_in(signals)) == 1
    assert dict(stage._decider.pending_marks) == {"B/USD": 11.0, "C/USD": 12.0}


def test_prices_given_back_are_older_than_those_that_came_since() -> None:
    """I2: of two prices of a symbol the newer one counts."""

    class Never(Always):
        def on_ticks(self, symbol: str, ticks: Sequence[Tick]) -> list[Decision]:
            return []

    decider = Decider(Never(), "r1", 0.1, 0.75)
    decider.decide([tick(1, "A/USD", price=11.0), tick(2, "B/USD", price=21.0)])
    dropped = Signal("r1-1-S", "A/USD", BUY, 0.75, "ALWAYS", 0.1, 10.0, 1, marks=(("B/USD", 20.0), ("C/USD", 30.0)))
    decider.return_marks([dropped])
    assert dict(decider.pending_marks) == {"A/USD": 11.0, "B/USD": 21.0, "C/USD": 30.0}


def test_of_two_dropped_signals_the_later_one_knows_better() -> None:
    early = Signal("r1-1-S", "A/USD", BUY, 0.75, "ALWAYS", 0.1, 10.0, 1)
    late = Signal("r1-2-S", "B/USD", BUY, 0.75, "ALWAYS", 0.1, 20.0, 2, marks=(("A/USD", 12.0),))
    decider = Decider(Always(), "r1", 0.1, 0.75)
    decider.return_marks([early, late])
    assert dict(decider.pending_marks) == {"A/USD": 12.0, "B/USD": 20.0}


# ---- ingest --------------------------------------------------------------------------------------------------------


class Script:
    """A feed that hands out batches and remembers what was true when it was asked for each."""

    push = False
    total = None
    position = 0

    def __init__(self, batches: list[FeedBatch], closed: list[int]) -> None:
        self.batches = batches
        self.closed = closed
        self.closed_at_read: list[bool] = []

    def read(self) -> FeedBatch | None:
        self.closed_at_read.append(bool(self.closed))
        return self.batches.pop(0) if self.batches else None

    def status(self) -> FeedStatus:
        return NO_LINK

    def close(self) -> None:
        pass


def held_ticks(count: int, closed: list[int]) -> Generator[Tick, None, None]:
    """The stored ticks; tells when nobody reads them any more, and at which one that was."""
    number = 0
    try:
        for number in range(count):
            yield tick(number)
        number = count
        yield tick(10**6)  # never asked for
    finally:
        closed.append(number)


def ingest(
    logged: Logged, batches: list[FeedBatch], stored: int, every: int = 1
) -> tuple[Script, Channel[Any], Metrics]:
    closed: list[int] = []
    feed = Script(batches, closed)
    channels = (channel_of("tick"), channel_of("signal"), channel_of("persist"))
    metrics, control = Metrics(), Control(RealRuntime(), ["ingest"])
    held = held_ticks(stored, closed)
    stage = IngestStage(cast(Feed, feed), Intake(every), channels, stored, held, metrics, control, logged.log)
    stage.run()
    assert stage.complete
    return feed, channels[0], metrics


def test_a_notice_counts_the_stored_ticks_before_it_too(logged: Logged) -> None:
    """I3: a resumed capture gives each notice its place in the whole run, not in what this process stores."""
    batches = [
        FeedBatch([tick(0), tick(1)], notices=((1, notice(7)),)),
        FeedBatch([tick(2), tick(3), tick(4)], notices=((2, notice(8)),)),
        FeedBatch([], notices=((0, notice(9)),)),
    ]
    _feed, ticks, metrics = ingest(logged, batches, stored=3)
    notices = [event for event in left_in(ticks) if isinstance(event, Notice)]
    assert [found.ticks_before for found in notices] == [1, 4, 5]
    assert (metrics.already_stored, metrics.ingest_processed) == (3, 2)


def test_the_stored_ticks_are_let_go_when_all_are_compared(logged: Logged) -> None:
    """An open read transaction would let the database's log grow as long as the replay lasts."""
    batches = [FeedBatch([tick(0)]), FeedBatch([tick(1), tick(2)]), FeedBatch([tick(3)])]
    feed, _ticks, _metrics = ingest(logged, batches, stored=2)
    assert feed.closed_at_read == [False, False, True, True]


def test_a_chunk_of_one_symbol_stays_one_when_it_is_sampled_or_cut(logged: Logged) -> None:
    """Later stages then need not look at each of its ticks again."""
    alike = TickChunk([tick(number) for number in range(4)], "SOL/USDC")
    _feed, ticks, _metrics = ingest(logged, [FeedBatch(alike, notices=((2, notice(7)),))], stored=0, every=2)
    chunks = [item for item in ticks.take(1000, 0.0) if isinstance(item, TickChunk)]
    assert [(chunk.symbol, len(chunk)) for chunk in chunks] == [("SOL/USDC", 1), ("SOL/USDC", 1)]


# ---- execution -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("push", "reason"), [(False, "SHADOW_RECORDED"), (True, STALE_DATA)])
def test_only_a_push_feed_has_stale_signals(logged: Logged, push: bool, reason: str) -> None:
    """S7, S8: what a replay decides does not depend on when it is run."""
    signals, persist = channel_of("signal"), channel_of("persist")
    execution = ShadowExecution(RiskCaps(), money_of(0.001), max_tick_age_ms=1000)
    stage = ExecutionStage(execution, (signals, persist), push, 0, Metrics(), logged.log, RealRuntime())
    signals.send(as_item(signal(7)))
    signals.close()
    stage.run()
    [stored] = left_in(persist)
    assert stored.reason == reason


class Repeated:
    """The refusals of a run whose second signal was dropped and whose third was stale."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def of(self, number: int, ts: int) -> Refusal | None:
        self.asked.append(number)
        return {2: Refusal(BP_DROP_SIGNAL), 3: Refusal(STALE_DATA, AGE)}.get(number)


AGE = LimitBreach("execution.max_tick_age_ms", 1500.0, 1000.0)


def test_a_replay_repeats_the_refusals_of_the_run(logged: Logged) -> None:
    """S8: the same orders, with the stored evidence; the prices of refused signals count all the same."""
    signals, persist, metrics, repeated = channel_of("signal"), channel_of("persist"), Metrics(), Repeated()
    execution = ShadowExecution(RiskCaps(), money_of(0.001))
    stage = ExecutionStage(execution, (signals, persist), False, 0, metrics, logged.log, RealRuntime(), repeated)
    for number in (1, 2, 3, 4):
        signals.send(as_item(signal(number)))
    signals.close()
    stage.run()
    stored = left_in(persist)
    assert [(order.reason, order.breach) for order in stored] == [
        ("SHADOW_RECORDED", None), (BP_DROP_SIGNAL, None), (STALE_DATA, AGE), ("SHADOW_RECORDED", None),
    ]  # fmt: skip
    assert stored[1] == refuse(signal(2), BP_DROP_SIGNAL)
    assert (repeated.asked, metrics.bp_drops_signal, metrics.stale_vetoes) == ([1, 2, 3, 4], 1, 1)
    assert metrics.orders_rejected == 2
    assert execution.positions.views()[0].last_price == signal(4).price
