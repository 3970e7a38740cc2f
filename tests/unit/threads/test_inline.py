"""The strategy stage with execution inside it, and the stage that reports, each by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.store_helpers import Logged, tick
from tests.unit.threads.strategies import Always
from tradebot.config.model import BreakersConfig
from tradebot.core.channel import Channel
from tradebot.core.events import (
    BUY,
    Checkpoint,
    Fill,
    Notice,
    Order,
    OrderEvent,
    OutcomeChunk,
    Signal,
    Tick,
    TickChunk,
    TickOutcome,
)
from tradebot.core.outcome_ticks import OutcomeTicks
from tradebot.core.runtime import RealRuntime
from tradebot.execution.breakers import Breakers
from tradebot.execution.timing import TimingRefusals
from tradebot.portfolio.money import money_of
from tradebot.portfolio.positions import Positions
from tradebot.store.batch import StoredCounts, WriteBatch
from tradebot.strategy.base import Decision
from tradebot.threads.counters import Metrics
from tradebot.threads.inline import InlineStage
from tradebot.threads.report import ReportStage


class EveryThird:
    """An executor that does something at each third tick, and remembers what it was shown."""

    def __init__(self) -> None:
        self.money = money_of()
        self.positions = Positions(self.money.instruments)
        self.breakers = Breakers(BreakersConfig())
        self.fees_before: Mapping[str, float] = {}
        self.refusals: TimingRefusals | None = None
        self.seen: list[object] = []

    view = None

    def publish(self) -> None:
        pass

    def refusal_text(self, order: Order) -> str:
        return "because"

    def on_notice(self, notice: Notice) -> None:
        self.seen.append(notice.detail)

    def on_ticks(
        self, symbol: str, ticks: Sequence[Tick], first_number: int, decisions: Sequence[Decision]
    ) -> list[TickOutcome]:
        assert [decision.index for decision in decisions] == list(range(len(ticks)))
        self.seen += range(first_number, first_number + len(ticks))
        numbered = enumerate(ticks, start=first_number)
        return [outcome(number, tick) for number, tick in numbered if number % 3 == 0]

    def state(self) -> bytes:
        return repr(self.seen).encode()

    def continue_as(self, run_id: str) -> None:
        raise AssertionError("the stage never restarts")

    def restore(self, state: bytes) -> None:
        raise AssertionError("the stage never restarts")


def outcome(number: int, of: Tick) -> TickOutcome:
    signal = Signal(f"r-{number}-S", of.symbol, BUY, 1.0, "ALWAYS", 1.0, of.price, of.ts)
    derived = Notice("BREAKER_TRIPPED", of.ts, f"tripped at {number}", ticks_before=number)
    return TickOutcome(of, number, (signal,), notices=(derived,))


def input_notice(detail: str, ticks_before: int) -> Notice:
    return Notice("LINK_LOST", 1, detail, ticks_before=ticks_before)


def run(items: Sequence[Any], stored: StoredCounts) -> tuple[EveryThird, list[Any], list[Any], Metrics]:
    """What the stage puts on persist and on the report channel for these items of the tick channel."""
    ticks, reports, persist = (Channel[Any](RealRuntime(), name, 100) for name in ("tick", "signal", "persist"))
    for item in items:
        ticks.send(item)
    ticks.close()
    executor, metrics = EveryThird(), Metrics()
    InlineStage(Always(), executor, (ticks, reports, persist), stored, metrics).run()
    persisted, reported = (channel.take(100, 0.0) if channel.depth else [] for channel in (persist, reports))
    return executor, persisted, reported, metrics


TICKS = [tick(number) for number in range(1, 8)]
ITEMS = (TickChunk(TICKS[:4]), input_notice("a", 4), TickChunk(TICKS[4:]), Checkpoint(7))


def test_a_tick_goes_on_with_all_that_it_caused() -> None:
    executor, persist, reports, metrics = run(ITEMS, StoredCounts())
    assert [len(item) for item in persist if isinstance(item, OutcomeTicks)] == [4, 3]
    assert flat(persist) == [
        *TICKS[:2], outcome(3, TICKS[2]), TICKS[3], input_notice("a", 4),
        TICKS[4], outcome(6, TICKS[5]), TICKS[6], Checkpoint(7, (), 1, executor.state()),
    ]  # fmt: skip
    assert reports == [[outcome(3, TICKS[2])], [outcome(6, TICKS[5])]]
    assert executor.seen == [1, 2, 3, 4, "a", 5, 6, 7]
    assert (metrics.tick_count, metrics.signal_count) == (7, 2)


def test_a_checkpoint_says_which_notices_its_state_includes() -> None:
    """Those of origin INPUT since the last tick: a restart must neither repeat nor miss one."""
    derived = Notice("BREAKER_TRIPPED", 1, "", ticks_before=0)
    first, again = input_notice("a", 0), input_notice("b", 2)
    items = (first, derived, input_notice("c", 0), Checkpoint(0), TickChunk(TICKS[:2]), Checkpoint(2), again)
    persist = run((*items, Checkpoint(2)), StoredCounts())[1]
    assert [item.inputs for item in persist if isinstance(item, Checkpoint)] == [2, 0, 1]


@pytest.mark.parametrize("stored", range(8))
def test_what_is_stored_is_not_handed_on_again(stored: int) -> None:
    """I3: the rows of every table are those of the first so many ticks, so the rest is exactly what is missing."""
    whole = run(ITEMS, StoredCounts())[1]
    notices = sum(stored >= number for number in (3, 4, 6))
    executor, persist, reports, _metrics = run(ITEMS, StoredCounts(ticks=stored, notices=notices))
    assert flat(persist) == flat(whole)[stored + (stored >= 4) :]
    assert executor.seen == [1, 2, 3, 4, "a", 5, 6, 7], "the state comes from all ticks"
    assert [number for chunk in reports for number in (one.number for one in chunk)] == [3, 6]


def flat(items: Sequence[Any]) -> list[Any]:
    """Each tick, in its place the outcome that it has, and whatever else there is."""
    found: list[Any] = []
    for item in items:
        if isinstance(item, OutcomeTicks):
            outcomes = {one.number: one for one in item.outcomes}
            assert len(outcomes) == sum(one.tick in item for one in outcomes.values()), "each with its tick"
            found += [outcomes.get(number, one) for number, one in enumerate(item, start=item.first_number)]
        else:
            found += item if isinstance(item, list) else [item]
    return found


@given(st.lists(st.integers(1, 4), max_size=8), st.sets(st.integers(1, 12)))
def test_however_a_chunk_is_cut_a_tick_keeps_its_outcome(sizes: list[int], with_outcome: set[int]) -> None:
    ticks = [tick(number) for number in range(1, 13)]
    outcomes = [outcome(number, ticks[number - 1]) for number in sorted(with_outcome)]
    whole = OutcomeTicks(ticks, None, 1, outcomes)
    cuts = sorted({0, 12, *(min(12, sum(sizes[:index])) for index in range(len(sizes)))})
    parts = [whole.part(begin, end) for begin, end in pairwise(cuts)]
    assert flat(parts) == flat([whole])
    batch, at_once = WriteBatch(), WriteBatch()
    for part in parts:
        batch.add(part)
    for event in flat([whole]):
        at_once.add_event(event)
    for name in ("ticks", "signals", "notices", "outcomes", "events", "rows"):
        assert getattr(batch, name) == getattr(at_once, name), name


# ---- reports ---------------------------------------------------------------------------------------------------------


def order(status: str, reason: str, fills: tuple[Fill, ...] = ()) -> Order:
    return Order("r-1-O", "r-1-S", "A/USD", BUY, 1.0, None, status, reason, 1, fills=fills)  # type: ignore[arg-type]


def event(n: int, status: str, reason: str) -> OrderEvent:
    return OrderEvent("r-1-O", n, status, reason, 1, 1, 0.0)  # type: ignore[arg-type]


def test_each_order_is_counted_once_by_its_end(logged: Logged) -> None:
    fill = Fill("r-1-T", "r-1-O", "A/USD", BUY, 1.0, 2.0, 0.0, 1)
    outcomes = [
        TickOutcome(tick(1), 1, orders=(order("REJECTED", "NO_BALANCE"),),
                    order_events=(event(1, "REJECTED", "NO_BALANCE"),)),
        TickOutcome(tick(2), 2, orders=(order("SUBMITTED", "SUBMITTED"),) * 4,
                    order_events=(event(1, "SUBMITTED", "SUBMITTED"),) * 4),
        TickOutcome(tick(3), 3, order_events=(
            event(2, "CANCELED", "NO_LIQUIDITY"), event(3, "EXPIRED", "EXPIRED"), event(2, "REJECTED", "POST_ONLY"),
            event(3, "FILLED", "FILLED"),
        ), fills=(fill, fill)),
        TickOutcome(tick(4), 4, orders=(order("FILLED", "SHADOW_RECORDED", (fill,)),)),
    ]  # fmt: skip
    reports: Channel[OutcomeChunk] = Channel(RealRuntime(), "signal", 100)
    reports.send(OutcomeChunk(outcomes))
    reports.close()
    metrics = Metrics()
    ReportStage(reports, lambda order: "because", money_of().instruments, metrics, logged.log).run()
    assert (metrics.balance_vetoes, metrics.orders_rejected, metrics.paper_orders) == (1, 1, 4)
    assert (metrics.orders_canceled, metrics.orders_expired, metrics.orders_bounced) == (1, 1, 1)
    assert (metrics.shadow_orders, metrics.trade_count) == (2, 3)
