"""PAPER as a whole: from decisions and prints to rows, with account, caps, halts and restarts."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradebot.config.model import BreakersConfig, ExecutionConfig, RiskCaps, StrategyConfig
from tradebot.config.money import AccountConfig, InstrumentConfig, RateSymbol
from tradebot.config.paper import PaperConfig
from tradebot.core.events import (
    BP_DROP_SIGNAL,
    BUY,
    PERIODIC_TRIGGER,
    SELL,
    Notice,
    NoticeKind,
    Side,
    Tick,
    TickOutcome,
)
from tradebot.execution.breakers import Breakers
from tradebot.execution.order_entry import PaperSettings
from tradebot.execution.orders import Amend, Cancel, Command, OrderRequest, Submit
from tradebot.execution.paper import PaperExecution
from tradebot.execution.risk import Refusal
from tradebot.execution.timing import TimingRefusals
from tradebot.portfolio.exact import add, exact, multiply, subtract
from tradebot.portfolio.money import money_of
from tradebot.strategy.base import Decision

D = Decimal
SYMBOL = "TEST/USD"
START_MS = 1_700_000_000_000
STEP_MS = 100
RICH = AccountConfig(initial_balance=1_000_000.0)
WIDE = RiskCaps(max_exposure_usd=1e9, max_symbol_exposure_usd=1e9, max_open_orders=100)


class Paper:
    """A PaperExecution that is fed print by print; a print is STEP_MS after the one before."""

    def __init__(
        self,
        account: AccountConfig = RICH,
        caps: RiskCaps = WIDE,
        breakers: BreakersConfig | None = None,
        instruments: dict[str, InstrumentConfig] | None = None,
        rates: dict[str, float | RateSymbol] | None = None,
        venue: dict[str, Any] | None = None,
        refusals: TimingRefusals | None = None,
        size: float = 1.0,
        **decisions: Any,
    ) -> None:
        self.money = money_of(0.001, {SYMBOL: InstrumentConfig(tick_size=0.01)} | (instruments or {}), rates or {})
        wanted = PaperSettings(
            StrategyConfig(desired_size=size), ExecutionConfig(**decisions), PaperConfig(**venue or {})
        )
        watching = Breakers(breakers or BreakersConfig())
        self.execution = PaperExecution("r1", wanted, self.money, account, caps, watching, refusals)
        self.number = 0
        self.outcomes: list[TickOutcome] = []

    def tick(
        self, price: float, taker: Side | None = BUY, *commands: Command, volume: float = 100.0, symbol: str = SYMBOL,
        at: int | None = None,
    ) -> TickOutcome:  # fmt: skip
        """A print, and the commands at its end."""
        self.number += 1
        ts = START_MS + (self.number * STEP_MS if at is None else at)
        tick = Tick(symbol, price, volume, ts, taker=taker)
        outcome = self.execution.on_tick(tick, self.number, commands) or TickOutcome(tick, self.number)
        self.outcomes.append(outcome)
        return outcome

    def notice(self, kind: NoticeKind, symbol: str | None = None) -> None:
        self.execution.on_notice(Notice(kind, START_MS, "why", symbol, None, self.number))

    def life(self, order_id: str) -> list[tuple[str, str]]:
        return [
            (event.status, event.reason)
            for outcome in self.outcomes
            for event in outcome.order_events
            if event.order_id == order_id
        ]


def buy(qty: float = 1.0, kind: Any = "MARKET", symbol: str = SYMBOL, **fields: Any) -> Submit:
    return Submit(request(BUY, qty, kind, symbol, **fields), "TEST")


def sell(qty: float = 1.0, kind: Any = "MARKET", symbol: str = SYMBOL, **fields: Any) -> Submit:
    return Submit(request(SELL, qty, kind, symbol, **fields), "TEST")


def request(side: Side, qty: float, kind: Any = "MARKET", symbol: str = SYMBOL, **fields: Any) -> OrderRequest:
    exacted: dict[str, Any] = {
        name: exact(value) if isinstance(value, float) else value for name, value in fields.items()
    }
    return OrderRequest(symbol, side, exact(qty), kind, **exacted)


def statuses(outcome: TickOutcome) -> list[tuple[str, str]]:
    return [(event.order_id.rpartition("-")[2], event.status) for event in outcome.order_events]


# ---- rows -----------------------------------------------------------------------------------------------


def test_a_market_order_from_its_decision_to_its_fill() -> None:
    """Signal, order and first transition belong to the deciding tick, the rest to the tick that allowed the fill."""
    paper = Paper()
    ticks = [Tick(SYMBOL, price, 100.0, START_MS + i * STEP_MS, taker=BUY) for i, price in enumerate((100.0, 101.0))]
    first, second = paper.execution.on_ticks(SYMBOL, ticks, 1, [Decision(0, BUY, PERIODIC_TRIGGER)])
    (signal,), (order,) = first.signals, first.orders
    assert (signal.event_id, signal.reason, signal.price, signal.ts) == (
        "r1-0000000001-S", PERIODIC_TRIGGER, 100.0, START_MS,
    )  # fmt: skip
    assert (order.event_id, order.signal_id) == ("r1-0000000001-O", signal.event_id)
    assert (order.status, order.order_type, order.price, order.time_in_force) == ("SUBMITTED", "MARKET", None, "GTC")
    assert (order.post_only, order.reduce_only, order.is_shadow, order.fills) == (0, 0, 1, ())
    assert (first.number, first.fills, second.number, second.signals, second.orders) == (1, (), 2, (), ())
    events = [
        (e.order_id, e.n, e.status, e.ts, e.tick, e.remaining) for e in (*first.order_events, *second.order_events)
    ]
    name = order.event_id
    assert events == [
        (name, 1, "SUBMITTED", START_MS, 1, 1.0),
        (name, 2, "ACKNOWLEDGED", START_MS + 100, 2, 1.0),
        (name, 3, "FILLED", START_MS + 100, 2, 0.0),
    ]
    (fill,) = second.fills
    assert (fill.event_id, fill.order_id) == ("r1-0000000002-T", name)
    assert (fill.fill_qty, fill.fill_price, fill.fees, fill.liquidity) == (1.0, 101.0, 0.101, "TAKER")
    assert (fill.tick, fill.slippage_bps, fill.after_gap, fill.is_shadow) == (2, 100.0, 0, 1)
    assert paper.execution.positions.at_stake(SYMBOL)[0] == 1


class Dropped:
    """The refusals of a run whose second tick gave a signal for which there was no room."""

    def of(self, number: int, ts: int) -> Refusal | None:
        return Refusal(BP_DROP_SIGNAL) if number == 2 else None


def test_refusals_of_the_replayed_run_are_repeated() -> None:
    """All orders of that tick, and of no other; an order can still be canceled there."""
    paper = Paper(refusals=Dropped())
    resting = paper.tick(100.0, BUY, buy(kind="LIMIT", limit=90.0)).orders[0]
    refused = paper.tick(101.0, BUY, buy(), buy(), Cancel(resting.event_id)).orders
    assert [(order.status, order.reason) for order in refused] == [("REJECTED", BP_DROP_SIGNAL)] * 2
    assert paper.tick(102.0, BUY, buy()).orders[0].status == "SUBMITTED"
    assert paper.life(resting.event_id)[-1][0] == "CANCELED"


def test_ids_are_numbered_within_a_tick_each_kind_on_its_own() -> None:
    paper = Paper()
    outcome = paper.tick(100.0, BUY, buy(take_profit=110.0), buy())
    assert [signal.event_id[-4:] for signal in outcome.signals] == ["01-S", "1-S2"]
    assert [order.event_id[-4:] for order in outcome.orders] == ["01-O", "1-O2"]
    filled = paper.tick(100.0)
    assert [fill.event_id[-4:] for fill in filled.fills] == ["02-T", "2-T2"]
    (child,) = filled.orders
    assert (child.event_id, child.signal_id) == ("r1-0000000002-O", "r1-0000000001-S")
    assert (child.parent_id, child.reduce_only, child.limit_price) == ("r1-0000000001-O", 1, 110.0)
    assert [event.order_id[-1] for event in filled.order_events] == ["O", "2", "O", "O", "2"]


@pytest.mark.parametrize(("side", "offset", "price"), [(BUY, 10.0, 99.9), (SELL, 10.0, 100.1), (BUY, -10.0, 100.1)])
def test_limit_orders_by_configuration(side: Side, offset: float, price: float) -> None:
    """The price is the signal's, improved by the offset, and on a whole step."""
    paper = Paper(
        AccountConfig(allow_short=True), order_type="limit", limit_offset_bps=offset, post_only=True,
    )  # fmt: skip
    tick = Tick(SYMBOL, 100.0, 1.0, START_MS, taker=BUY)
    (outcome,) = paper.execution.on_ticks(SYMBOL, [tick], 1, [Decision(0, side, PERIODIC_TRIGGER)])
    (order,) = outcome.orders
    assert (order.order_type, order.limit_price, order.price, order.post_only) == ("LIMIT", price, price, 1)


def test_a_decision_without_a_side_is_a_bug() -> None:
    tick = Tick(SYMBOL, 100.0, 1.0, START_MS)
    with pytest.raises(ValueError, match="'HOLD', which is not a side"):
        Paper().execution.on_ticks(SYMBOL, [tick], 1, [Decision(0, "HOLD", "X")])  # type: ignore[arg-type]


def test_a_decision_on_a_late_print_counts_with_the_event_time() -> None:
    """The signal has the price and time of its tick; the latency begins at the event time."""
    paper = Paper()
    paper.tick(100.0)
    outcome = paper.tick(90.0, BUY, buy(), at=0)
    assert (outcome.signals[0].price, outcome.signals[0].ts) == (90.0, START_MS)
    assert outcome.order_events[0].ts == START_MS + 100
    assert paper.tick(100.0, at=199).order_events == ()
    assert paper.tick(100.0, at=200).fills[0].fill_price == 100.0


def test_a_cancel_and_an_amend_by_command() -> None:
    paper = Paper()
    first = paper.tick(100.0, BUY, buy(1.0, "LIMIT", limit=90.0), buy(1.0, "LIMIT", limit=91.0)).orders
    names = [order.event_id for order in first]
    new = request(BUY, 2.0, "LIMIT", limit=80.0)
    amended = paper.tick(100.0, BUY, Cancel(names[0]), Amend(names[1], new, "TEST"), Amend("nothing", new, "TEST"))
    assert [(order.status, order.reason) for order in amended.orders] == [
        ("SUBMITTED", "SUBMITTED"), ("REJECTED", "UNKNOWN_ORDER"),
    ]  # fmt: skip
    paper.tick(100.0)
    assert paper.life(names[0])[-1] == ("CANCELED", "CANCEL_REQUESTED")
    assert paper.life(names[1])[-1] == ("CANCELED", "AMENDED")
    assert paper.life(amended.orders[0].event_id)[-1] == ("ACKNOWLEDGED", "ACKNOWLEDGED")


# ---- refusals and money ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "reason", "setup"),
    [
        (buy(0.5), "MIN_QTY", {"instruments": {SYMBOL: InstrumentConfig(lot_size=1.0)}}),
        (buy(0.000000001), "MIN_QTY", {}),
        (sell(0.5, reduce_only=True), "MIN_QTY", {"instruments": {SYMBOL: InstrumentConfig(min_qty=1.0)}}),
        (buy(0.5), "MIN_NOTIONAL", {"instruments": {SYMBOL: InstrumentConfig(min_notional=51.0)}}),
        (buy(1.0, "LIMIT", limit=0.009), "MIN_NOTIONAL", {}),
        (sell(), "NO_BALANCE", {}),
        (buy(), "NO_BALANCE", {"account": AccountConfig(initial_balance=100.09)}),
        (buy(), "RISK_CAP", {"caps": RiskCaps(max_symbol_exposure_usd=99.0)}),
    ],
)
def test_a_refused_order_is_a_row_with_its_reason(command: Submit, reason: str, setup: dict[str, Any]) -> None:
    paper = Paper(**setup)
    outcome = paper.tick(100.0, BUY, command)
    (order,), (event,) = outcome.orders, outcome.order_events
    assert (order.status, order.reason, len(outcome.signals)) == ("REJECTED", reason, 1)
    assert (event.n, event.status, event.reason) == (1, "REJECTED", reason)
    assert order.qty == float(command.request.qty)
    assert paper.tick(1.0).order_events == ()


def test_an_order_that_only_reduces_may_be_worth_little() -> None:
    paper = Paper(instruments={SYMBOL: InstrumentConfig(min_notional=1e6)})
    assert paper.tick(100.0, BUY, sell(1.0, reduce_only=True)).orders[0].status == "SUBMITTED"


def test_caps_count_open_orders_as_filled() -> None:
    paper = Paper(caps=RiskCaps(max_symbol_exposure_usd=250.0, max_open_orders=3))
    orders = paper.tick(100.0, BUY, *[buy(1.0, "LIMIT", limit=90.0)] * 3).orders
    assert [order.reason for order in orders] == ["SUBMITTED", "SUBMITTED", "RISK_CAP"]
    assert orders[2].breach is not None and orders[2].breach.value == 300.0


def test_an_order_and_its_replacement_count_once() -> None:
    """For caps as for money: only one of them can be filled. A refused replacement changes nothing."""
    paper = Paper(AccountConfig(initial_balance=250.0), RiskCaps(max_symbol_exposure_usd=250.0))
    order = paper.tick(100.0, BUY, buy(2.0, "LIMIT", limit=90.0)).orders[0].event_id
    new, large = request(BUY, 2.4, "LIMIT", limit=91.0), request(BUY, 2.6, "LIMIT", limit=91.0)
    refused, sent = paper.tick(100.0, BUY, Amend(order, large, "TEST"), Amend(order, new, "TEST")).orders
    assert (refused.reason, sent.reason) == ("RISK_CAP", "SUBMITTED")
    assert paper.tick(100.0, BUY, buy(0.2, "LIMIT", limit=90.0)).orders[0].reason == "RISK_CAP"
    paper.tick(90.0, SELL)
    assert paper.execution.positions.at_stake(SYMBOL)[0] == D("2.4")


def test_money_is_held_back_until_an_order_ends() -> None:
    """A BUY reserves its limit with fees; a fill releases its part, the end the rest; a SELL reserves what it sells."""
    paper = Paper(AccountConfig(initial_balance=1000.0))
    order = paper.tick(100.0, BUY, buy(5.0, "LIMIT", limit=90.0)).orders[0].event_id
    account = paper.execution.account
    assert account.free() == D("1000") - D("450.45")
    paper.tick(89.0, SELL, volume=2.0)
    assert account.free() == D("1000") - D("180.18") - D("270.27")
    paper.tick(89.0, SELL, Cancel(order), sell(1.5, "LIMIT", limit=95.0), sell(0.6), volume=0.0)
    assert account.free_qty(SYMBOL) == D("0.5")
    assert paper.outcomes[-1].orders[1].reason == "NO_BALANCE"
    paper.tick(89.0, SELL)
    assert account.free() == D("1000") - D("180.18")


def test_a_fill_is_cut_to_what_is_free() -> None:
    """The market moved between the order and its fill."""
    paper = Paper(AccountConfig(initial_balance=1001.0))
    order = paper.tick(100.0, BUY, buy(10.0)).orders[0].event_id
    filled = paper.tick(110.0)
    assert filled.fills[0].fill_qty == 9.09090909
    assert [reason for _status, reason in paper.life(order)][2:] == ["PARTIAL_FILL", "NO_BALANCE"]
    assert 0 <= paper.execution.account.free() < D("0.000002")


def test_fees_follow_the_instrument_and_who_took() -> None:
    entry = InstrumentConfig(tick_size=0.01, maker_fee=0.0002, taker_fee=0.0005)
    paper = Paper(instruments={SYMBOL: entry})
    paper.tick(100.0, BUY, buy(1.0, "LIMIT", limit=99.0), buy(1.0))
    assert paper.tick(100.0).fills[0].fees == 0.05
    assert paper.tick(98.0, SELL).fills[0].fees == 0.0198


def test_a_stop_loss_is_compared_with_its_own_price() -> None:
    paper = Paper()
    paper.tick(100.0, BUY, buy(1.0, stop_loss=98.0))
    paper.tick(100.0)
    paper.tick(100.0)
    paper.tick(98.0, SELL)
    assert paper.tick(97.0, SELL).fills[0].slippage_bps == pytest.approx(10_000 / 98)


# ---- notices, breakers, liquidation ---------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "symbol", "marked"), [("GAP", SYMBOL, 1), ("GAP", "B", 0), ("LINK_LOST", None, 1)])
def test_fills_after_a_gap_say_so(kind: NoticeKind, symbol: str | None, marked: int) -> None:
    paper = Paper()
    paper.tick(100.0, BUY, buy())
    paper.notice(kind, symbol)
    assert paper.tick(100.0).fills[0].after_gap == marked


def test_a_halt_refuses_what_adds_exposure_until_a_resume() -> None:
    paper = Paper()
    paper.tick(100.0, BUY, buy(2.0))
    paper.tick(100.0)
    paper.notice("HALT")
    orders = paper.tick(100.0, BUY, buy(), sell(1.0)).orders
    assert [order.reason for order in orders] == ["HALTED", "SUBMITTED"]
    paper.notice("RESUME")
    assert paper.tick(100.0, BUY, buy()).orders[0].reason == "SUBMITTED"


def test_a_halt_can_end_open_orders() -> None:
    paper = Paper(breakers=BreakersConfig(cancel_open=True))
    order = paper.tick(100.0, BUY, buy(1.0, "LIMIT", limit=90.0)).orders[0].event_id
    paper.notice("HALT")
    paper.tick(100.0)
    paper.tick(100.0)
    assert paper.life(order)[-1] == ("CANCELED", "HALTED")


def test_a_breaker_that_trips_is_a_notice_of_the_tick_and_ends_open_orders_if_asked() -> None:
    paper = Paper(breakers=BreakersConfig(daily_loss_usd=5.0, cancel_open=True))
    order = paper.tick(100.0, BUY, buy(1.0), buy(1.0, "LIMIT", limit=50.0)).orders[1].event_id
    paper.tick(100.0)
    tripped = paper.tick(94.0, SELL, buy())
    assert [(notice.kind, notice.ticks_before) for notice in tripped.notices] == [("BREAKER_TRIPPED", 3)]
    assert tripped.orders[0].reason == "DAILY_LOSS"
    paper.tick(94.0)
    assert paper.life(order)[-1] == ("CANCELED", "DAILY_LOSS")


def test_losses_in_a_row_count_trades_from_flat_to_flat() -> None:
    paper = Paper(breakers=BreakersConfig(losses_in_a_row=2))
    for _ in range(2):
        paper.tick(100.0, BUY, buy())
        paper.tick(100.0)
        paper.tick(99.0, SELL, sell())
        outcome = paper.tick(99.0, SELL)
    assert [notice.kind for notice in outcome.notices] == ["BREAKER_TRIPPED"]


def test_what_a_resume_releases_is_a_notice_of_the_next_tick() -> None:
    paper = Paper(breakers=BreakersConfig(max_drawdown_pct=1.0))
    paper.tick(100.0, BUY, buy(1000.0))
    paper.tick(100.0, volume=4000.0)
    assert paper.tick(80.0).notices[0].kind == "BREAKER_TRIPPED"
    paper.notice("RESUME")
    tick = Tick(SYMBOL, 80.0, 1.0, START_MS + 10_000)
    (outcome,) = paper.execution.on_ticks(SYMBOL, [tick], 4, [])
    assert [notice.kind for notice in outcome.notices] == ["BREAKER_RELEASED"]


def test_orders_per_minute_refuse_the_rest() -> None:
    paper = Paper(breakers=BreakersConfig(orders_per_minute=2))
    paper.tick(100.0, BUY, buy())
    assert paper.tick(100.0, BUY, buy()).notices[0].kind == "BREAKER_TRIPPED"
    assert paper.tick(100.0, BUY, buy()).orders[0].reason == "ORDERS_PER_MINUTE"


def test_a_margin_account_without_equity_is_liquidated() -> None:
    """All orders end in the tick, the position is closed at the next prints, and nothing is ordered any more."""
    paper = Paper(AccountConfig(initial_balance=100.0, max_leverage=10.0))
    paper.tick(100.0, BUY, buy(5.0))
    paper.tick(100.0)
    resting = paper.tick(100.0, BUY, buy(1.0, "LIMIT", limit=50.0)).orders[0].event_id
    ruined = paper.tick(79.0, SELL)
    assert paper.life(resting)[-1] == ("CANCELED", "LIQUIDATED")
    (signal,), (order,) = ruined.signals, ruined.orders
    assert (signal.reason, order.side, order.qty, order.reduce_only) == ("LIQUIDATED", SELL, 5.0, 1)
    assert paper.tick(79.0, SELL, buy(0.01)).orders[0].reason == "LIQUIDATED"
    assert paper.execution.positions.at_stake(SYMBOL)[0] == 0


def test_a_rate_from_prints_is_as_of_its_last_print() -> None:
    paper = Paper(rates={"EUR": RateSymbol("EUR/USD")})
    refused = paper.tick(10.0, BUY, buy(1.0, symbol="A/EUR"), symbol="A/EUR").orders[0]
    assert refused.reason == "NO_RATE"
    paper.tick(1.25, BUY, symbol="EUR/USD")
    paper.tick(10.0, BUY, buy(1.0, symbol="A/EUR"), symbol="A/EUR")
    paper.tick(10.0, BUY, symbol="A/EUR")
    assert paper.execution.account.equity() == D(1_000_000) - D("0.0125")


@pytest.mark.parametrize("size", [1, 2])
def test_prints_that_touch_no_order_still_move_the_rates_that_fills_are_paid_at(size: int) -> None:
    """500 EUR are owed; at 1.5 USD they leave 250 of 1000 USD, which is what can be spent."""
    paper = Paper(AccountConfig(initial_balance=1000.0), rates={"EUR": RateSymbol("EUR/USD")})
    paper.tick(1.0, BUY, symbol="EUR/USD")
    paper.tick(10.0, BUY, buy(50.0, symbol="B/EUR"), symbol="B/EUR")
    paper.tick(10.0, BUY, symbol="B/EUR", volume=1000.0)
    paper.tick(1.0, BUY, buy(400.0, symbol="EUR/USD"), symbol="EUR/USD")
    ticks = [Tick("EUR/USD", 1.5, 1e6, START_MS + ms, taker=BUY) for ms in (450, 500)]
    outcomes = feed(paper.execution, ticks, [None, None], 5, size)
    assert outcomes[-1].fills[0].fill_qty == pytest.approx((1000 - 500.5 * 1.5) / 1.5 / 1.001)


# ---- what always holds ----------------------------------------------------------------------------------

steps = st.lists(
    st.tuples(
        st.sampled_from(["A/USD", "B/EUR", "EUR/USD"]),
        st.integers(95, 105),  # price
        st.integers(0, 12),  # volume
        st.sampled_from([None, BUY, SELL]),
        st.integers(-30, 150),  # ms after the tick before
        st.sampled_from([None, None, BUY, SELL]),  # decision
    ),
    min_size=5,
    max_size=60,
)
worlds = st.fixed_dictionaries(
    {
        "queue": st.sampled_from(["through", "trades", "front"]),
        "latency_ms": st.sampled_from([0, 100]),
        "slippage_bps": st.sampled_from([0.0, 7.0]),
        "market_timeout_ms": st.sampled_from([0, 300]),
    }
)
CAPS = RiskCaps(max_exposure_usd=900.0, max_symbol_exposure_usd=700.0, max_open_orders=4)
Run = list[tuple[str, int, int, Side | None, int, Side | None]]


def the_paper(world: dict[str, Any], kind: str, margin: bool, eur: float | RateSymbol = 1.25) -> Paper:
    return Paper(
        AccountConfig(800.0, allow_short=margin, max_leverage=3.0 if margin else 1.0), CAPS,
        instruments={"A/USD": InstrumentConfig(tick_size=1.0)}, rates={"EUR": eur}, venue=world,
        order_type=kind, limit_offset_bps=100.0, size=2.5,
    )  # fmt: skip


def ticks_of(run: Run) -> tuple[list[Tick], list[Side | None]]:
    ts, ticks = START_MS, []
    for symbol, price, volume, taker, later_ms, _decision in run:
        ts += later_ms
        ticks.append(Tick(symbol, price / (80 if symbol == "EUR/USD" else 1), float(volume), ts, taker=taker))
    return ticks, [step[5] for step in run]


def feed(
    execution: PaperExecution, ticks: Sequence[Tick], sides: Sequence[Side | None], first: int, size: int
) -> list[TickOutcome]:
    """In calls of at most `size` ticks of one symbol."""
    outcomes: list[TickOutcome] = []
    at = 0
    while at < len(ticks):
        end = at + 1
        while end < len(ticks) and end - at < size and ticks[end].symbol == ticks[at].symbol:
            end += 1
        decisions = [Decision(i - at, side, "X") for i in range(at, end) if (side := sides[i]) is not None]
        outcomes += execution.on_ticks(ticks[at].symbol, ticks[at:end], first + at, decisions)
        at = end
    return outcomes


@settings(deadline=None, max_examples=150)
@given(run=steps, world=worlds, kind=st.sampled_from(["market", "limit"]), margin=st.booleans(), cut=st.integers(0, 60))
def test_cuts_and_restarts_change_nothing(run: Run, world: dict[str, Any], kind: str, margin: bool, cut: int) -> None:
    """S8: the same outcomes for any size of calls, and for a run that goes on from its state at any tick."""
    ticks, sides = ticks_of(run)

    def fresh() -> PaperExecution:
        return the_paper(world, kind, margin, RateSymbol("EUR/USD")).execution

    whole = feed(fresh(), ticks, sides, 1, 1000)
    assert feed(fresh(), ticks, sides, 1, 1) == whole
    cut = min(cut, len(ticks))
    before, after = fresh(), fresh()
    outcomes = feed(before, ticks[:cut], sides[:cut], 1, 1000)
    after.restore(before.state())
    assert after.state() == before.state()
    assert outcomes + feed(after, ticks[cut:], sides[cut:], cut + 1, 1000) == whole


@settings(deadline=None, max_examples=150)
@given(run=steps, world=worlds, kind=st.sampled_from(["market", "limit"]), margin=st.booleans())
def test_money_and_quantities_add_up(run: Run, world: dict[str, Any], kind: str, margin: bool) -> None:
    """Cash + value = initial + profit - fees in every currency; no volume twice; caps and balance never passed."""
    paper = the_paper(world, kind, margin)
    ticks, sides = ticks_of(run)
    account = paper.execution.account
    for number, (tick, side) in enumerate(zip(ticks, sides, strict=True), 1):
        for outcome in feed(paper.execution, [tick], [side], number, 1):
            paper.outcomes.append(outcome)
            spent = sum((exact(fill.fill_qty) for fill in outcome.fills), D(0))
            taken = sum((exact(fill.fill_qty) for fill in outcome.fills if fill.liquidity == "TAKER"), D(0))
            assert spent <= exact(tick.volume) and taken <= multiply(exact(tick.volume), D("0.25"))
        positions = account.positions
        for currency, initial, symbols in (("USD", D(800), ("A/USD", "EUR/USD")), ("EUR", D(0), ("B/EUR",))):
            balance = account.cash().get(currency, D(0))
            earned = initial
            for symbol in symbols:
                balance = add(balance, positions.value(symbol))
                earned = add(earned, subtract(positions.profit(symbol), account.fees_of(symbol)))
                assert margin or positions.at_stake(symbol)[0] >= 0
            assert balance == earned
        cash = account.cash()
        assert margin or add(cash["USD"], multiply(cash.get("EUR", D(0)), D("1.25"))) >= 0
    for order in (order for outcome in paper.outcomes for order in outcome.orders if order.status == "SUBMITTED"):
        events = [e for outcome in paper.outcomes for e in outcome.order_events if e.order_id == order.event_id]
        filled = sum((exact(f.fill_qty) for o in paper.outcomes for f in o.fills if f.order_id == order.event_id), D(0))
        assert add(filled, exact(events[-1].remaining)) == exact(order.qty)
        assert [event.n for event in events] == list(range(1, len(events) + 1))


def test_a_restart_keeps_halts_breakers_and_the_liquidation() -> None:
    def restarted(paper: Paper) -> Paper:
        fresh = Paper(AccountConfig(initial_balance=100.0, max_leverage=10.0), breakers=limits)
        fresh.execution.restore(paper.execution.state())
        fresh.number = paper.number
        return fresh

    limits = BreakersConfig(daily_loss_usd=1.0, losses_in_a_row=1)
    paper = Paper(AccountConfig(initial_balance=100.0, max_leverage=10.0), breakers=limits)
    paper.tick(100.0, BUY, buy(5.0))
    paper.tick(100.0)
    paper.tick(99.0, SELL)
    assert restarted(paper).tick(99.0, SELL, buy(1.0)).orders[0].reason == "DAILY_LOSS"
    paper.notice("HALT")
    assert restarted(paper).tick(99.0, SELL, buy(1.0)).orders[0].reason == "HALTED"
    paper.tick(79.0, SELL)
    last = restarted(paper)
    closed = last.tick(85.0, SELL, buy(1.0))  # equity is above 0 again
    assert (closed.orders[0].reason, closed.fills[0].fill_qty) == ("LIQUIDATED", 5.0)
    assert [notice.detail[:15] for notice in closed.notices] == ["LOSSES_IN_A_ROW"]


def test_a_release_that_waits_for_its_tick_survives_a_restart() -> None:
    paper, fresh = (Paper(breakers=BreakersConfig(max_drawdown_pct=1.0)) for _ in range(2))
    paper.tick(100.0, BUY, buy(1000.0))
    paper.tick(100.0, volume=4000.0)
    paper.tick(80.0)
    paper.notice("RESUME")
    fresh.execution.restore(paper.execution.state())
    assert [notice.kind for notice in fresh.tick(80.0, at=1000).notices] == ["BREAKER_RELEASED"]


def test_a_state_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="not of version 1"):
        Paper().execution.restore(b"\x80")
