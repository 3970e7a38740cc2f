"""Exact sums and products of quantities and prices: a double stands for its shortest decimal (`repr`).

So 0.1 bought ten times and sold ten times leaves exactly nothing, 0.1 x 101.0 x 0.001 is 0.0101, and no cap is passed
by a rounding error. Never use the operators + - * on these decimals, nor unary - and abs(): they round to the
thread's decimal context. Comparisons, `copy_abs` and `copy_negate` are exact by themselves.
"""

from __future__ import annotations

from decimal import Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow
from functools import lru_cache
from typing import Final

# Three doubles multiplied have at most 51 digits between 10**927 and 10**-1023, so nothing ever needs more than this;
# should it, Inexact raises instead of rounding. Precision is a bound here, memory is used only for digits that are.
EXACT: Final = Context(prec=10_000, traps=[Inexact, InvalidOperation, Overflow, DivisionByZero])

add: Final = EXACT.add
multiply: Final = EXACT.multiply
subtract: Final = EXACT.subtract
divide_towards_zero: Final = EXACT.divide_int
"""The whole part of a quotient."""

ZERO: Final = Decimal(0)
ONE: Final = Decimal(1)
_LARGEST: Final = 1.7976931348623157e308  # the largest double


@lru_cache(maxsize=4096)
def exact(value: float) -> Decimal:
    """The shortest decimal that `value` prints as. Prices and sizes repeat, hence the (bounded) cache."""
    return Decimal(repr(value))


def finite(value: Decimal | float) -> float:
    """The nearest finite double: files of earlier versions hold prices whose products are beyond the largest one."""
    return max(-_LARGEST, min(_LARGEST, float(value)))
