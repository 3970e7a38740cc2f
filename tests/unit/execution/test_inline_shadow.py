"""SHADOW with breakers: the rows of SHADOW until one trips, then what each breaker refuses; restarts change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tradebot.config.model import BreakersConfig, Config, RiskCaps
from tradebot.config.money import RateSymbol
from tradebot.core.events import (
    BUY,
    DAILY_LOSS,
    LOSSES_IN_A_ROW,
    MAX_DRAWDOWN,
    ORDERS_PER_MINUTE,
    REFUSALS_PER_MINUTE,
    RISK_CAP,
    SELL,
    SHADOW_RECORDED,
    STALE_DATA,
    STALE_MARKET,
    LimitBreach,
    Notice,
    Order,
    Side,
    Signal,
    Tick,
    TickChunk,
    TickOutcome,
)
from tradebot.execution.breakers import Breakers
from tradebot.execution.inline_shadow import InlineShadow
from tradebot.execution.shadow import ShadowExecution
from tradebot.execution.timing import TooOld
from tradebot.execution.trips import Release, Trip
from tradebot.portfolio.money import money_of
from tradebot.strategy.base import Decision, Strategy, SymbolHistory
from tradebot.strategy.decider import Decider, symbol_runs

DAY = 20_000 * 86_400_000
CAPS = RiskCaps(max_exposure_usd=3_000.0, max_symbol_exposure_usd=1_200.0)
NEVER = BreakersConfig(
    max_drawdown_pct=100.0, daily_loss_usd=1e12, losses_in_a_row=1_000_000, refusals_per_minute=10_000,
    orders_per_minute=10_000, stale_ms=604_800_000,
)  # fmt: skip
TIGHT = BreakersConfig(
    max_drawdown_pct=0.4, daily_loss_usd=30.0, losses_in_a_row=2, refusals_per_minute=2, orders_per_minute=3,
    stale_ms=20_000,
)  # fmt: skip


class Step(NamedTuple):
    """A tick, `after_ms` after the one before, and what is decided on it."""

    symbol: str
    price: float
    after_ms: int = 1000
    side: Side | None = None


class Scripted(Strategy):
    """Decides what the steps say, tick by tick."""

    name = "scripted"
    lookback = 0

    def __init__(self, steps: Sequence[Step]) -> None:
        self._sides = iter([step.side for step in steps])

    @classmethod
    def from_config(cls, config: Config) -> Strategy:
        raise AssertionError("tests construct it directly")

    def restore(self, symbol: str, history: SymbolHistory) -> None:
        raise AssertionError("nothing is stored that could be restored")

    def on_ticks(self, symbol: str, ticks: Sequence[Tick]) -> list[Decision]:
        decided = [(index, next(self._sides)) for index in range(len(ticks))]
        return [Decision(index, side, "SCRIPT") for index, side in decided if side is not None]


def ticks_of(steps: Sequence[Step]) -> list[Tick]:
    now_ms, found = DAY, []
    for step in steps:
        now_ms += step.after_ms
        found.append(Tick(step.symbol, step.price, 1.0, now_ms))
    return found


def shadow() -> ShadowExecution:
    """With a rate that is a price of one of the symbols."""
    return ShadowExecution(CAPS, money_of(0.001, rates={"EUR": RateSymbol("EUR/USD")}), max_tick_age_ms=60_000)


class Watched(Breakers):
    """Breakers that record the equity of each tick."""

    def __init__(self, limits: BreakersConfig) -> None:
        super().__init__(limits)
        self.equities: list[Fraction] = []

    def on_tick(self, now_ms: int, symbol: str, ts: int, equity: Decimal) -> list[Trip | Release]:
        self.equities.append(Fraction(equity))
        return super().on_tick(now_ms, symbol, ts, equity)


class Inline:
    """Inline execution, fed like the strategy stage feeds it."""

    def __init__(self, limits: BreakersConfig, size: float = 1.0, run_id: str = "r1") -> None:
        self.execution = InlineShadow(run_id, size, 0.75, shadow(), Breakers(limits), 10_000.0)
        self.number = 0

    def play(self, steps: Sequence[Step], ticks: Sequence[Tick], cuts: Sequence[int] = ()) -> list[TickOutcome]:
        """All outcomes; chunks end at `cuts`."""
        strategy, outcomes = Scripted(steps), []
        bounds = [0, *sorted({min(cut, len(ticks)) for cut in cuts}), len(ticks)]
        for begin, end in pairwise(bounds):
            for symbol, run in symbol_runs(list(ticks[begin:end])):
                decisions = strategy.on_ticks(symbol, run)
                outcomes += self.execution.on_ticks(symbol, run, self.number + 1, decisions)
                self.number += len(run)
        return outcomes


def played(limits: BreakersConfig, *steps: Step, size: float = 1.0) -> list[TickOutcome]:
    return Inline(limits, size).play(steps, ticks_of(steps))


def reasons(outcomes: Sequence[TickOutcome]) -> list[str]:
    return [order.reason for outcome in outcomes for order in outcome.orders]


def notices_of(outcomes: Sequence[TickOutcome]) -> list[tuple[int, str, str]]:
    """Tick, kind and code of each notice."""
    found = [notice for outcome in outcomes for notice in outcome.notices]
    return [(notice.ticks_before, notice.kind, notice.detail.split(":")[0].split()[0]) for notice in found]


steps_of = st.lists(
    st.builds(
        Step,
        st.sampled_from(["A/USD", "B/USD", "C/EUR", "EUR/USD", "odd"]),
        st.integers(400, 700).map(float),
        st.sampled_from([0, 1, 500, 1000, 15_000, 25_000, -3_000]),
        st.sampled_from([None, BUY, SELL]),
    ),
    max_size=40,
)
cuts_of = st.lists(st.integers(0, 40), max_size=5)


@given(steps_of, cuts_of)
def test_while_nothing_trips_rows_are_those_of_the_execution_thread(steps: list[Step], cuts: list[int]) -> None:
    """Signals, orders, fills and refusals, with their ids; with other symbols' prices, rates, caps and late ticks."""
    ticks = ticks_of(steps)
    decider = Decider(Scripted(steps), "r1", 1.0, 0.75)
    signals = list(decider.decide(TickChunk(ticks))) if ticks else []
    thread = shadow()
    orders = [thread.execute(signal) for signal in signals]
    inline = Inline(NEVER)
    outcomes = inline.play(steps, ticks, cuts)
    assert [one for outcome in outcomes for one in outcome.orders] == orders
    assert [one for outcome in outcomes for one in outcome.signals] == [replace(signal, marks=()) for signal in signals]
    assert [outcome.tick for outcome in outcomes] == [ticks[outcome.number - 1] for outcome in outcomes]
    assert notices_of(outcomes) == []
    assert [one[:4] for one in inline.execution.positions.states()] == [one[:4] for one in thread.positions.states()]


@given(steps_of, cuts_of, cuts_of)
def test_how_ticks_are_cut_changes_nothing(steps: list[Step], cuts: list[int], others: list[int]) -> None:
    ticks = ticks_of(steps)
    assert Inline(TIGHT).play(steps, ticks, cuts) == Inline(TIGHT).play(steps, ticks, others)


@given(steps_of, st.integers(0, 40))
def test_a_restart_at_any_tick_changes_nothing_but_the_run(steps: list[Step], cut: int) -> None:
    """Breakers, positions, exact fees and round trips go on; later rows have the ids of the new run."""
    ticks = ticks_of(steps)
    whole = Inline(TIGHT).play(steps, ticks)
    first, second = Inline(TIGHT), Inline(TIGHT, run_id="r2")
    before = first.play(steps[:cut], ticks[:cut])
    second.execution.restore(first.execution.state())
    second.execution.continue_as("r2")
    second.number = first.number
    after = second.play(steps[cut:], ticks[cut:])
    assert before + [renamed(outcome) for outcome in after] == whole
    assert all(one.event_id.startswith("r2-") for outcome in after for one in outcome.signals)


def renamed(outcome: TickOutcome) -> TickOutcome:
    """The outcome with the ids of run r1."""

    def order(one: Order) -> Order:
        fills = tuple(replace(f, event_id=old(f.event_id), order_id=old(f.order_id)) for f in one.fills)
        return replace(one, event_id=old(one.event_id), signal_id=old(one.signal_id), fills=fills)

    def old(name: str) -> str:
        return name.replace("r2-", "r1-")

    signals = tuple(replace(one, event_id=old(one.event_id)) for one in outcome.signals)
    return replace(outcome, signals=signals, orders=tuple(map(order, outcome.orders)))


@given(steps_of)
def test_equity_is_the_balance_and_all_cash_flows_and_the_value_of_what_is_held(steps: list[Step]) -> None:
    """Counted with fractions from the fills, in dollars: no rate is a part of it, and no tick is late."""
    steps = [step._replace(symbol=f"{step.symbol[0]}/USD", after_ms=abs(step.after_ms)) for step in steps]
    ticks, watched = ticks_of(steps), Watched(NEVER)
    inline = Inline(NEVER)
    inline.execution.breakers = watched
    outcomes = {outcome.number: outcome for outcome in inline.play(steps, ticks)}
    cash, held, price = Fraction(10_000), dict[str, Fraction](), dict[str, Fraction]()
    expected = []
    for number, tick in enumerate(ticks, start=1):
        price[tick.symbol] = Fraction(repr(tick.price))
        expected.append(cash + sum(qty * price[symbol] for symbol, qty in held.items()))
        for order in outcomes[number].orders if number in outcomes else ():
            for fill in order.fills:
                qty = Fraction(repr(fill.fill_qty)) * (1 if fill.side == BUY else -1)
                cash -= qty * Fraction(repr(fill.fill_price)) + Fraction(repr(fill.fees))
                held[fill.symbol] = held.get(fill.symbol, Fraction(0)) + qty
    assert watched.equities == expected


# ---- each breaker ---------------------------------------------------------------------------------------------------


def test_a_drawdown_refuses_what_adds_and_lets_what_reduces_pass() -> None:
    """The evidence is stored with each refusal; the notice comes with the tick that tripped."""
    outcomes = played(
        BreakersConfig(max_drawdown_pct=2.0),
        Step("A/USD", 1000.0, side=BUY), Step("A/USD", 850.0), Step("A/USD", 700.0, side=BUY),
        Step("A/USD", 700.0, side=SELL), Step("A/USD", 700.0, side=SELL),
    )  # fmt: skip
    assert reasons(outcomes) == [SHADOW_RECORDED, MAX_DRAWDOWN, SHADOW_RECORDED, MAX_DRAWDOWN]
    assert notices_of(outcomes) == [(3, "BREAKER_TRIPPED", MAX_DRAWDOWN)]
    refused = outcomes[1].orders[0]
    assert (refused.status, refused.fills) == ("REJECTED", ())
    assert refused.breach == LimitBreach("breakers.max_drawdown_pct", 3.01, 2.0)
    assert outcomes[1].notices[0].ts == outcomes[1].tick.ts


def test_a_resume_releases_with_the_next_tick() -> None:
    inline = Inline(BreakersConfig(losses_in_a_row=1))
    steps = [Step("A/USD", 100.0, side=BUY), Step("A/USD", 90.0, side=SELL), Step("A/USD", 90.0, side=SELL)]
    ticks = ticks_of([*steps, Step("A/USD", 95.0)])
    outcomes = inline.play(steps, ticks[:3])
    assert notices_of(outcomes) == [(2, "BREAKER_TRIPPED", LOSSES_IN_A_ROW)]
    assert reasons(outcomes)[2] == LOSSES_IN_A_ROW
    inline.execution.on_notice(Notice("RESUME", 5, "tradebot resume", ticks_before=3))
    (outcome,) = inline.play([steps[0]], ticks[3:])
    assert reasons([outcome]) == [SHADOW_RECORDED]
    assert [(notice.kind, notice.ticks_before) for notice in outcome.notices] == [("BREAKER_RELEASED", 3)]


def test_a_halt_refuses_and_is_no_refusal_that_counts() -> None:
    inline = Inline(BreakersConfig(refusals_per_minute=1))
    inline.execution.on_notice(Notice("HALT", 5, "news"))
    steps = [Step("A/USD", 100.0, side=BUY)] * 3
    outcomes = inline.play(steps, ticks_of(steps))
    assert (reasons(outcomes), notices_of(outcomes)) == (["HALTED"] * 3, [])
    text = inline.execution.refusal_text(outcomes[0].orders[0])
    assert text == "halted: only orders that reduce a position are accepted until tradebot resume"


@pytest.mark.parametrize(
    ("limits", "steps", "expected"),
    [
        (
            BreakersConfig(daily_loss_usd=50.0),
            [Step("A/USD", 500.0, side=BUY), Step("A/USD", 440.0, side=BUY), Step("A/USD", 440.0, 86_400_000, BUY)],
            [SHADOW_RECORDED, DAILY_LOSS, SHADOW_RECORDED],
        ),
        (
            BreakersConfig(orders_per_minute=2),
            [*[Step("A/USD", 100.0, side=BUY)] * 3, Step("A/USD", 100.0, 60_000, BUY)],
            [SHADOW_RECORDED, SHADOW_RECORDED, ORDERS_PER_MINUTE, SHADOW_RECORDED],
        ),
        (
            BreakersConfig(refusals_per_minute=1),
            [Step("A/USD", 1300.0, side=BUY), Step("A/USD", 100.0, side=BUY), Step("A/USD", 100.0, 60_000, BUY)],
            [RISK_CAP, REFUSALS_PER_MINUTE, SHADOW_RECORDED],
        ),
        (
            BreakersConfig(stale_ms=5000),
            [Step("A/USD", 100.0), Step("A/USD", 100.0, 5001, BUY), Step("B/USD", 1.0, side=BUY),
             Step("A/USD", 100.0, side=BUY)],
            [STALE_MARKET, SHADOW_RECORDED, SHADOW_RECORDED],
        ),
    ],
)  # fmt: skip
def test_the_others(limits: BreakersConfig, steps: list[Step], expected: list[str]) -> None:
    outcomes = played(limits, *steps)
    assert reasons(outcomes) == expected
    inline = Inline(limits)
    for order in (order for outcome in outcomes for order in outcome.orders if order.status == "REJECTED"):
        assert order.breach is not None and order.breach.limit_key in inline.execution.refusal_text(order)


def test_the_wall_clock_refuses_where_there_is_one() -> None:
    """A live feed's tick that is too old; a replay has no clock."""
    ticks = ticks_of([Step("A/USD", 100.0)])
    decisions = [Decision(0, BUY, "SCRIPT")]
    for clock, reason in ((lambda: ticks[0].ts + 60_001, STALE_DATA), (None, SHADOW_RECORDED)):
        execution = InlineShadow("r1", 1.0, 0.75, shadow(), Breakers(BreakersConfig()), 10_000.0)
        execution.refusals = None if clock is None else TooOld(clock, 60_000)
        assert reasons(execution.on_ticks("A/USD", ticks, 1, decisions)) == [reason]


def test_what_runs_without_breakers_left_behind_is_continued() -> None:
    """Positions of a plain SHADOW run: equity counts them, with what they have earned so far."""
    before = shadow()
    before.execute(Signal("r0-1-S", "A/USD", BUY, 0.75, "SCRIPT", 1.0, 500.0, DAY))
    inline = Inline(BreakersConfig(max_drawdown_pct=1.0))
    inline.execution.take_over([("A/USD", 500.0)], before.positions)
    assert inline.execution.fees_before == {"A/USD": 0.5}
    steps = [Step("A/USD", 500.0), Step("A/USD", 399.0, side=BUY)]
    outcomes = inline.play(steps, ticks_of(steps))
    assert notices_of(outcomes) == [(2, "BREAKER_TRIPPED", MAX_DRAWDOWN)]


def test_a_decision_without_a_side_is_an_error() -> None:
    with pytest.raises(ValueError, match="not a side"):
        Inline(NEVER).execution.on_ticks("A/USD", ticks_of([Step("A/USD", 1.0)]), 1, [Decision(0, "HOLD", "")])  # type: ignore[arg-type]


def test_a_state_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="not of version 1"):
        Inline(NEVER).execution.restore(b"\x80")
