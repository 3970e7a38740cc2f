"""Risk caps: no approved order takes exposure past one; an order that lowers it is always approved."""

from __future__ import annotations

import math
import re
import sys
from fractions import Fraction
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradebot.config.model import RiskCaps
from tradebot.core.events import BUY, RISK_CAP, SELL, Fill, LimitBreach, Signal
from tradebot.execution.risk import ApprovedOrder, RefusedOrder, refusal_text
from tradebot.execution.risk import check as check_with
from tradebot.execution.shadow import refuse
from tradebot.portfolio.money import money_of
from tradebot.portfolio.positions import Positions

CAPS = RiskCaps(max_exposure_usd=1_000.0, max_symbol_exposure_usd=600.0, max_open_orders=2)


def signal(side: Literal["BUY", "SELL"], qty: float, price: float, symbol: str = "A") -> Signal:
    return Signal("r-1-S", symbol, side, 0.75, "SMA_CROSSOVER", qty, price, 0)


def check(order: Signal, positions: Positions, caps: RiskCaps, open_orders: int) -> ApprovedOrder | RefusedOrder:
    return check_with(order, positions, caps, open_orders, money_of())


def holding(**positions_at: tuple[float, float]) -> Positions:
    """Positions of symbol=(net quantity, price)."""
    positions = Positions()
    for symbol, (qty, price) in positions_at.items():
        positions.apply(Fill("T", "O", symbol, BUY if qty > 0 else SELL, abs(qty), price, 0.0, 0))
    return positions


@pytest.mark.parametrize(
    ("order", "positions", "open_orders", "detail"),
    [
        (signal(BUY, 6.0, 100.0), holding(), 0, None),
        (
            signal(BUY, 6.1, 100.0),
            holding(),
            0,
            "exposure in A would be 610.0 USD, above risk_caps.max_symbol_exposure_usd",
        ),
        (signal(SELL, 6.1, 100.0), holding(), 0, "exposure in A would be 610.0"),
        (signal(BUY, 4.0, 100.0), holding(B=(-6.0, 100.0)), 0, None),
        (signal(BUY, 4.1, 100.0), holding(B=(-6.0, 100.0)), 0, "total exposure would be 1010.0 USD, above .*= 1000.0"),
        (signal(BUY, 0.1, 100.0), holding(), 1, None),
        (signal(BUY, 0.1, 100.0), holding(), 2, "open orders would be 3, above risk_caps.max_open_orders = 2"),
    ],
)
def test_each_cap_binds_exactly(order: Signal, positions: Positions, open_orders: int, detail: str | None) -> None:
    """I2: up to a cap, not past it; the refusal names cap, value and limit."""
    verdict = check(order, positions, CAPS, open_orders)
    if detail is None:
        assert isinstance(verdict, ApprovedOrder)
        assert (verdict.signal, verdict.qty) == (order, order.desired_size)
        assert float(verdict.notional) == order.desired_size * order.price
    else:
        assert isinstance(verdict, RefusedOrder)
        assert (verdict.signal, verdict.reason) == (order, RISK_CAP)
        assert re.match(detail, refusal_text(refuse(order, verdict.reason, verdict.breach), money_of()))


def test_rounding_neither_bends_a_cap_nor_closes_it() -> None:
    """I2: 0.1 x 3 is 0.3, which as floats it is not, on either side of the cap."""
    caps = RiskCaps(max_exposure_usd=0.3, max_symbol_exposure_usd=0.3)
    assert isinstance(check(signal(BUY, 0.1, 3.0), holding(), caps, 0), ApprovedOrder)
    assert isinstance(check(signal(BUY, 0.1, 1.0), holding(A=(0.2, 1.0)), caps, 0), ApprovedOrder)
    assert isinstance(check(signal(BUY, 0.1, 3.0000000000000004), holding(), caps, 0), RefusedOrder)
    below = RiskCaps(max_exposure_usd=0.30000000000000004, max_symbol_exposure_usd=0.29999999999999993)
    assert isinstance(check(signal(BUY, 0.1, 3.0), holding(), below, 0), RefusedOrder)


def test_a_refused_value_is_above_its_limit_though_it_rounds_to_it() -> None:
    """I2: 0.1 x 3.0000000000000004 is 0.30000000000000004 exactly, and 1e-30 more than a cap is more."""
    caps = RiskCaps(max_symbol_exposure_usd=600.0)
    verdict = check(signal(BUY, 1e-30, 1.0), holding(A=(600.0, 1.0)), caps, 0)
    assert isinstance(verdict, RefusedOrder)
    assert verdict.breach == LimitBreach("risk_caps.max_symbol_exposure_usd", math.nextafter(600.0, math.inf), 600.0)


def test_a_refused_value_beyond_the_largest_double_is_the_largest() -> None:
    """Files of earlier versions hold such prices; JSON and the spill file have no infinity."""
    verdict = check(signal(BUY, 10.0, 1.7e308), holding(), RiskCaps(), 0)
    assert isinstance(verdict, RefusedOrder) and verdict.breach is not None
    assert verdict.breach.value == sys.float_info.max


def test_an_order_that_lowers_exposure_is_always_approved() -> None:
    """I2: also above every cap, after prices moved, and with too many orders open."""
    positions = holding(A=(6.0, 100.0), B=(-4.0, 100.0))
    positions.mark("A", 500.0)
    positions.mark("B", 500.0)
    assert isinstance(check(signal(SELL, 0.1, 500.0), positions, CAPS, 99), ApprovedOrder)
    assert isinstance(check(signal(BUY, 0.1, 500.0, "B"), positions, CAPS, 99), ApprovedOrder)
    assert isinstance(check(signal(BUY, 0.1, 500.0), positions, CAPS, 0), RefusedOrder)
    assert isinstance(check(signal(SELL, 0.1, 500.0, "B"), positions, CAPS, 0), RefusedOrder)
    nothing = RiskCaps(max_exposure_usd=0.0, max_symbol_exposure_usd=0.0, max_open_orders=0)
    assert isinstance(check(signal(SELL, 6.0, 500.0), positions, nothing, 0), ApprovedOrder)
    assert isinstance(check(signal(SELL, 11.9, 500.0), positions, RiskCaps(1e9, 1e9, 0), 0), ApprovedOrder)


def test_an_order_through_zero_counts_by_where_it_ends() -> None:
    """I2: selling 10 of 5 leaves -5, not 10 and not 15."""
    assert isinstance(check(signal(SELL, 10.0, 100.0), holding(A=(5.0, 100.0)), CAPS, 0), ApprovedOrder)
    assert isinstance(check(signal(SELL, 11.1, 100.0), holding(A=(5.0, 100.0)), CAPS, 0), RefusedOrder)
    # Ending as far on the other side lowers nothing: above the cap it is refused.
    positions = holding(A=(5.0, 100.0))
    assert isinstance(check(signal(SELL, 10.0, 200.0), positions, CAPS, 0), RefusedOrder)
    assert isinstance(check(signal(SELL, 9.9, 200.0), positions, CAPS, 0), ApprovedOrder)


def test_the_signals_own_price_counts_for_its_symbol() -> None:
    """I2: not the mark of an earlier tick, neither for the symbol nor within the total."""
    positions = holding(A=(5.0, 10.0), B=(4.0, 100.0))
    assert isinstance(check(signal(BUY, 0.5, 109.0), positions, CAPS, 0), ApprovedOrder)
    assert isinstance(check(signal(BUY, 0.5, 109.2), positions, CAPS, 0), RefusedOrder)
    assert isinstance(check(signal(BUY, 1.0, 99.0), holding(A=(5.0, 200.0), B=(4.0, 100.0)), CAPS, 0), ApprovedOrder)


def test_checking_changes_nothing() -> None:
    positions = holding(A=(5.0, 10.0))
    before = positions.views()
    check(signal(BUY, 0.5, 20.0), positions, CAPS, 0)
    check(signal(BUY, 5000.0, 20.0), positions, CAPS, 0)
    assert positions.views() == before


orders = st.lists(
    st.tuples(
        st.sampled_from(["A", "B", "C"]),
        st.sampled_from([BUY, SELL, "MARK"]),
        st.one_of(st.sampled_from([0.1, 0.2, 0.3, 3.0]), st.floats(1e-6, 1e4)),
        st.one_of(st.sampled_from([100.1, 100.3, 1000.0, 199.99999999999997]), st.floats(1e-6, 1e6)),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(orders=orders)
def test_no_sequence_of_orders_passes_a_cap(
    orders: list[tuple[str, Literal["BUY", "SELL", "MARK"], float, float]],
) -> None:
    """I2: in exact arithmetic, after each approved order that does not lower exposure; and nothing else is refused."""
    positions = Positions()
    net: dict[str, Fraction] = {}
    last: dict[str, Fraction] = {}
    for symbol, what, qty, price in orders:
        last[symbol] = Fraction(repr(price))
        positions.mark(symbol, price)
        if what == "MARK":
            continue
        verdict = check(signal(what, qty, price, symbol), positions, CAPS, 0)
        before = net.get(symbol, Fraction(0))
        after = before + Fraction(repr(qty)) * (1 if what == BUY else -1)
        total = sum(abs(net[s]) * last[s] for s in net if s != symbol) + abs(after) * last[symbol]
        within = abs(after) * last[symbol] <= 600 and total <= 1_000
        assert isinstance(verdict, ApprovedOrder) == (within or abs(after) < abs(before))
        if isinstance(verdict, RefusedOrder):
            assert verdict.breach is not None
            exposure = abs(after) * last[symbol]
            value, limit = (exposure, 600.0) if exposure > 600 else (total, 1_000.0)
            assert verdict.breach.limit == limit
            assert verdict.breach.value == max(float(value), math.nextafter(limit, math.inf))
        if isinstance(verdict, ApprovedOrder):
            net[symbol] = after
            positions.apply(Fill("T", "O", symbol, what, verdict.qty, price, 0.0, 0))
