"""Prices, quantities and amounts of money as people read them: none so small that it shows as nothing. Pure."""

from __future__ import annotations

from math import floor, isfinite, log10
from typing import Final

_DIGITS: Final = 8
"""Significant digits of a price or quantity below one."""
_MONEY_DECIMALS: Final = 4
_MONEY_DIGITS: Final = 4
_PLAIN_MIN: Final = 1e-18
"""Below this a number is written with an exponent."""


def number(value: float | None) -> str:
    """A price or quantity: at least two decimals, up to eight, more where the number is small; "-" for None."""
    if value is None:
        return "-"
    if not isfinite(value):
        return str(value)
    if 0 < abs(value) < _PLAIN_MIN:
        return f"{value:.{_DIGITS - 1}g}"
    return _plain(value, max(_DIGITS, _decimals(value, _DIGITS)), 2)


def money(value: float, decimals: int = _MONEY_DECIMALS, plus: bool = False) -> str:
    """An amount: `decimals` of them, more where it is so small that fewer would show nothing; `plus`: with its sign."""
    if not isfinite(value):
        return str(value)
    if 0 < abs(value) < _PLAIN_MIN:
        return f"{value:+.3g}" if plus else f"{value:.3g}"
    # What is shown whole at that many decimals, or nearly, needs no more.
    few = abs(value) < 10.0 ** (1 - decimals)
    text = _plain(value, max(decimals, _decimals(value, _MONEY_DIGITS)) if few else decimals, decimals)
    return f"+{text}" if plus and not text.startswith("-") else text


def _decimals(value: float, digits: int) -> int:
    """How many decimals show so many significant digits."""
    return 0 if not value else digits - 1 - floor(log10(abs(value)))


def _plain(value: float, decimals: int, least: int) -> str:
    """Without an exponent; zeros at the end go, but for the first `least` decimals. Never "-0"."""
    whole, _, fraction = f"{abs(value):,.{decimals}f}".partition(".")
    kept = fraction.rstrip("0").ljust(least, "0")
    shown = f"{whole}.{kept}" if kept else whole
    return f"-{shown}" if value < 0 and shown.strip("0.,") else shown
