"""Trades from flat to flat: what each earned, whatever its fills were."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradebot.core.events import BUY, SELL, Fill
from tradebot.portfolio.exact import subtract
from tradebot.portfolio.positions import Positions
from tradebot.portfolio.round_trips import RoundTrips

Trade = tuple[Literal["BUY", "SELL"], float, float, float]
"""Side, quantity, price, fees."""


def play(fills: list[Trade], trips: RoundTrips | None = None, positions: Positions | None = None) -> list[Decimal]:
    """The profit of each trade that ended, in order."""
    trips, positions = trips or RoundTrips(), positions or Positions()
    ended = []
    for side, qty, price, fee in fills:
        before, earned = positions.at_stake("A")[0], positions.realized("A")
        positions.apply(Fill("T", "O", "A", side, qty, price, fee, 0))
        profit = trips.on_fill("A", before, positions.at_stake("A")[0], subtract(positions.realized("A"), earned), fee)
        ended += [] if profit is None else [profit]
    return ended


@pytest.mark.parametrize(
    ("fills", "ended"),
    [
        ([(BUY, 1.0, 100.0, 0.1)], []),
        ([(BUY, 1.0, 100.0, 0.1), (SELL, 1.0, 103.0, 0.2)], ["2.7"]),
        ([(SELL, 1.0, 100.0, 0.1), (BUY, 1.0, 100.0, 0.1)], ["-0.2"]),
        ([(BUY, 1.0, 100.0, 0.1), (BUY, 1.0, 102.0, 0.1), (SELL, 1.0, 101.0, 0.1), (SELL, 1.0, 102.0, 0.1)], ["0.6"]),
        # Through zero: a fourth of the fee closes, three fourths open.
        ([(BUY, 1.0, 100.0, 0.0), (SELL, 4.0, 90.0, 0.4), (BUY, 3.0, 80.0, 0.0)], ["-10.1", "29.7"]),
    ],
)
def test_a_trade_is_flat_to_flat_after_fees(fills: list[Trade], ended: list[str]) -> None:
    """Averaging in and selling a part are one trade; a fill through zero ends one and begins another."""
    assert play(fills) == [Decimal(profit) for profit in ended]


fills_of = st.lists(
    st.tuples(
        st.sampled_from([BUY, SELL]),
        st.integers(1, 5).map(float),
        st.integers(50, 150).map(float),
        st.integers(0, 8).map(lambda eighths: eighths / 8),
    ),
    max_size=30,
)


@given(fills_of)
def test_all_trades_together_earn_the_cash_that_came_in(fills: list[Trade]) -> None:
    """Closed at the end, the profits sum to what was received less what was paid and all fees, to 40 digits."""
    net = sum(qty if side == BUY else -qty for side, qty, _price, _fee in fills)
    closing: list[Trade] = [] if not net else [(SELL if net > 0 else BUY, abs(net), 100.0, 0.125)]
    cash = Fraction(0)
    for side, qty, price, fee in [*fills, *closing]:
        cash += (Fraction(qty) if side == SELL else -Fraction(qty)) * Fraction(price) - Fraction(fee)
    assert abs(sum(map(Fraction, play([*fills, *closing])), Fraction(0)) - cash) < Fraction(1, 10**40)


@given(fills_of, st.integers(0, 30))
def test_a_restart_goes_on_with_the_open_trade(fills: list[Trade], cut: int) -> None:
    """The profit so far of an open trade is part of the state."""
    positions, trips, after = Positions(), RoundTrips(), RoundTrips()
    ended = play(fills[:cut], trips, positions)
    after.restore(trips.state())
    assert ended + play(fills[cut:], after, positions) == play(fills)
    assert len(after.state()) <= 1
