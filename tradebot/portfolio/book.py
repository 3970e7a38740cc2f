"""What all simulated fills come to, in one place: status, summary, heartbeat and metrics read their figures here."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from math import floor, fsum, log10
from typing import Final

from msgspec import Struct

from tradebot.portfolio.currencies import UNKNOWN_UNIT, common_unit
from tradebot.portfolio.exact import ZERO, finite
from tradebot.portfolio.positions import PositionView

_DIGITS: Final = 12


class Book(Struct, frozen=True):
    """What all simulated fills come to: open positions, and profit at the last known prices, fees taken off.

    `unit` is the label of its amounts: the currency they are in, or `UNKNOWN_UNIT`.
    """

    open_positions: int
    net_qty: float
    """Of the symbol of the last tick."""
    exposure: float
    profit: float
    fees: float = 0.0
    unit: str = UNKNOWN_UNIT


def book_of(positions: Sequence[PositionView], symbol: str | None) -> Book:
    """The sums over `positions`; `symbol` is that of the last tick, None where there was none. Pure.

    Sums are rounded to 12 significant digits: what floating point adds behind those is noise.
    """
    paid = fees(positions)
    earned = [part for view in positions for part in (view.realized, view.unrealized)]
    return Book(
        open_positions=sum(view.net_qty != 0 for view in positions),
        net_qty=next((view.net_qty for view in positions if view.symbol == symbol), 0.0) + 0.0,
        exposure=total([view.exposure for view in positions]),
        profit=total(earned, less=paid),
        fees=paid,
        unit=common_unit([view.symbol for view in positions] or ([] if symbol is None else [symbol])),
    )


def fees(positions: Sequence[PositionView]) -> float:
    """The fees of all fills."""
    return total([view.fees for view in positions])


def total(amounts: Sequence[float], less: float = 0.0) -> float:
    """The sum of finite `amounts`, less `less`, to 12 significant digits of the largest of them; never -0.0.

    A sum beyond the largest double is the largest double.
    """
    parts = [*amounts, -less]
    largest = max(map(abs, parts))
    if not largest:
        return 0.0
    try:
        return round(fsum(parts), _DIGITS - 1 - floor(log10(largest))) + 0.0
    except OverflowError:
        return finite(sum(map(Decimal, parts), ZERO))
