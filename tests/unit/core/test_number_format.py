"""Numbers as people read them: no amount so small that it shows as nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradebot.core.number_format import money, number
from tradebot.portfolio.book import book_of, total
from tradebot.portfolio.money import money_of
from tradebot.portfolio.positions import PositionView


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0000001234, "0.0000001234"), (43123.25, "43,123.25"), (1 / 3, "0.33333333"), (-0.0, "0.00"), (None, "-"),
     (1.23456789012e-5, "0.000012345679"), (12_345.678_901_234, "12,345.67890123"), (5e-324, "4.940656e-324")],
)  # fmt: skip
def test_prices_and_quantities(value: float | None, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1234.56789, "1,234.5679"), (0.0, "0.0000"), (-0.0, "0.0000"), (1.234e-11, "0.00000000001234"), (0.5, "0.5000"),
     (-0.00043219, "-0.0004322"), (1e-30, "1e-30")],
)  # fmt: skip
def test_money(value: float, shown: str) -> None:
    assert money(value) == shown
    assert money(abs(value), plus=True) == "+" + shown.removeprefix("-")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_only_nothing_shows_as_nothing(value: float) -> None:
    for text in (number(value), money(value), money(value, plus=True)):
        assert (float(text.replace(",", "")) == 0) == (value == 0)
        assert text[0] != "-" or value < 0
        assert float(text.replace(",", "")) == pytest.approx(value, rel=1e-2)


def test_noise_of_floating_point_is_no_amount() -> None:
    assert total([0.1, 0.2], less=0.3) == 0.0
    assert total([]) == 0.0
    assert total([1e-11, 2e-11]) == 3e-11
    assert str(total([-1.0], less=-1.0)) == "0.0"


def test_the_book_of_two_symbols() -> None:
    views = [
        PositionView("A", 2.0, 1.0, 3.0, 6.0, 0.5, 4.0, 0.25),
        PositionView("B", 0.0, 0.0, 9.0, 0.0, -1.0, 0.0, 0.125),
    ]
    book = book_of(views, "A", money_of())
    assert (book.open_positions, book.net_qty, book.exposure) == (1, 2.0, 6.0)
    assert (book.profit, book.fees) == (3.125, 0.375)
    assert book_of(views, None, money_of()).net_qty == 0.0
