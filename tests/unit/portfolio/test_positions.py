"""Positions: average cost, realized and unrealized profit, exact net quantity and exposure."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradebot.core.events import BUY, SELL, Fill
from tradebot.portfolio.money import money_of
from tradebot.portfolio.positions import Positions, PositionView


def fill(side: Literal["BUY", "SELL"], qty: float, price: float, symbol: str = "A", fees: float = 0.0) -> Fill:
    return Fill("T", "O", symbol, side, qty, price, fees, 0)


def view_after(*fills: Fill) -> PositionView:
    positions = Positions()
    for each in fills:
        positions.apply(each)
    view = positions.view("A")
    assert view is not None
    return view


def test_buying_more_averages_the_cost() -> None:
    view = view_after(fill(BUY, 200.0, 200.0, fees=0.5), fill(SELL, 100.0, 210.0, fees=0.25), fill(BUY, 100.0, 205.0))
    assert view == PositionView(
        symbol="A",
        net_qty=200.0,
        average_cost=202.5,
        last_price=205.0,
        exposure=41_000.0,
        realized=1_000.0,
        unrealized=500.0,
        fees=0.75,
    )


def test_a_partial_sale_keeps_the_average() -> None:
    view = view_after(fill(BUY, 0.1, 100.1), fill(BUY, 0.2, 100.4), fill(SELL, 0.1, 101.3))
    assert (view.net_qty, view.average_cost, view.realized) == (0.2, 100.3, 0.1)


def test_a_short_position_mirrors_a_long_one() -> None:
    view = view_after(fill(SELL, 2.0, 100.0), fill(SELL, 2.0, 110.0), fill(BUY, 1.0, 95.0))
    assert (view.net_qty, view.average_cost, view.realized, view.unrealized) == (-3.0, 105.0, 10.0, 30.0)
    assert view.exposure == 285.0


def test_a_fill_through_zero_closes_and_opens() -> None:
    view = view_after(fill(BUY, 1.0, 100.0), fill(SELL, 3.0, 103.0))
    assert (view.net_qty, view.average_cost, view.realized, view.unrealized) == (-2.0, 103.0, 3.0, 0.0)


def test_a_closed_position_stays_in_view() -> None:
    view = view_after(fill(BUY, 1.0, 100.0), fill(SELL, 1.0, 99.0))
    assert view == PositionView("A", 0.0, 0.0, 99.0, 0.0, -1.0, 0.0, 0.0)


def test_marks_move_exposure_and_unrealized_profit() -> None:
    """I2: also of other symbols, and exactly: 0.3 x 0.1 is 0.03."""
    positions = Positions()
    positions.apply(fill(BUY, 0.3, 0.2))
    positions.apply(fill(SELL, 2.0, 5.0, "B"))
    positions.mark("A", 0.1)
    positions.mark("never traded", 7.0)
    assert str(positions.total_exposure(money_of().rates).normalize()) == "10.03"
    assert [(v.symbol, v.exposure, v.unrealized) for v in positions.views()] == [
        ("A", 0.03, -0.03),
        ("B", 10.0, 0.0),
    ]
    assert positions.view("never traded") is None


def test_no_dust_after_many_fills() -> None:
    """I2: a plain float sum of these is off by some 1e-9, and would be taken for a position."""
    positions = Positions()
    for _ in range(20_000):
        positions.apply(fill(BUY, 0.1, 100.1))
    assert positions.at_stake("A")[0] == 2000
    for _ in range(10_000):
        positions.apply(fill(SELL, 0.2, 100.1))
    assert positions.view("A") == PositionView("A", 0.0, 0.0, 100.1, 0.0, 0.0, 0.0, 0.0)
    assert [float(number) for number in positions.at_stake("A")] == [0.0, 0.0]
    assert positions.total_exposure(money_of().rates) == 0


quantities = st.one_of(st.sampled_from([0.1, 0.2, 0.3, 1.0, 1 / 3]), st.floats(1e-9, 1e9))
prices = st.one_of(st.sampled_from([100.1, 100.3, 61837.63, 1.234e-5]), st.floats(5e-324, 1.7e308))
events = st.lists(
    st.tuples(st.sampled_from(["A", "B", "C"]), st.sampled_from([BUY, SELL, "MARK"]), quantities, prices), max_size=40
)


@settings(deadline=None)
@given(events=events)
def test_profit_is_cash_plus_value_and_exposure_exact(
    events: list[tuple[str, Literal["BUY", "SELL", "MARK"], float, float]],
) -> None:
    """I2: whatever comes, net and exposure equal fractions, and no money appears or vanishes in the books."""
    positions = Positions()
    net: dict[str, Fraction] = {}
    cash: dict[str, Fraction] = {}
    last: dict[str, Fraction] = {}
    for symbol, what, qty, price in events:
        last[symbol] = Fraction(repr(price))
        if what == "MARK":
            positions.mark(symbol, price)
        else:
            change = Fraction(repr(qty)) * (1 if what == BUY else -1)
            net[symbol] = net.get(symbol, Fraction(0)) + change
            cash[symbol] = cash.get(symbol, Fraction(0)) - change * last[symbol]
            positions.apply(fill(what, qty, price, symbol))
        assert Fraction(positions.total_exposure(money_of().rates)) == sum(abs(net[s]) * last[s] for s in net)
        for s in net:
            position = positions._positions[s]
            assert Fraction(position.net) == net[s]
            assert Fraction(position.exposure) == abs(net[s]) * last[s]
            assert Fraction(position.realized) - Fraction(position.cost) == cash[s]
            assert bool(position.cost) <= bool(position.net)


@settings(deadline=None)
@given(
    fills=st.lists(st.tuples(st.sampled_from([BUY, SELL]), st.integers(1, 9), st.integers(1, 99)), min_size=1),
)
def test_average_cost_equals_its_definition(fills: list[tuple[Literal["BUY", "SELL"], int, int]]) -> None:
    net = 0
    average, realized = Fraction(0), Fraction(0)
    for side, qty, price in fills:
        change = qty if side == BUY else -qty
        if net * change >= 0:
            average = (abs(net) * average + qty * price) / (abs(net) + qty)
        else:
            closed = min(abs(net), qty)
            realized += closed * (price - average) * (1 if net > 0 else -1)
            if qty > abs(net):
                average = Fraction(price)
        net += change
    view = view_after(*(fill(side, qty, price) for side, qty, price in fills))
    assert view.net_qty == net
    assert view.realized == pytest.approx(float(realized), rel=1e-15, abs=1e-30)
    assert view.average_cost == pytest.approx(float(average) if net else 0.0, rel=1e-15)
