"""Prices and quantities as a venue takes them: whole steps, rounded against the one who ordered. Pure.

What comes out is the value of a double (its shortest decimal), so that rows hold exactly what was decided.
"""

from __future__ import annotations

from decimal import Decimal
from math import nextafter
from typing import Final

from tradebot.core.events import BUY, Side
from tradebot.execution.orders import BASIS_POINT
from tradebot.portfolio.exact import ONE, add, exact, multiply, subtract
from tradebot.portfolio.instruments import UNKNOWN_STEP, round_down, round_up

UNKNOWN_EXPONENT: Final = -8  # of UNKNOWN_STEP


def whole_lots(qty: Decimal, lot: Decimal) -> Decimal:
    """The largest whole number of lots in `qty` (>= 0), as the value of a double that is not above it."""
    found = round_down(qty, lot)
    value = exact(float(found))
    return value if value <= found else exact(nextafter(float(found), 0.0))


def price_step(price: Decimal, tick_size: Decimal | None) -> Decimal:
    """The step that computed prices near `price` are rounded to.

    Where none is known it is 1e-8, or the last decimal place of `price` where that is finer: a price that was printed
    is a price.
    """
    if tick_size is not None:
        return tick_size
    exponent = price.as_tuple().exponent
    if isinstance(exponent, int) and exponent < UNKNOWN_EXPONENT:
        return Decimal((0, (1,), exponent))
    return UNKNOWN_STEP


def limit_price(side: Side, price: Decimal, step: Decimal) -> Decimal:
    """A limit price on the step at its passive side: a BUY pays no more than asked for, a SELL gets no less."""
    return _double(round_down(price, step) if side == BUY else round_up(price, step))


def stop_price(side: Side, price: Decimal, step: Decimal) -> Decimal:
    """A trigger price on the step that is reached later: up for a BUY, down for a SELL."""
    return _double(round_up(price, step) if side == BUY else round_down(price, step))


def offset_limit(side: Side, price: Decimal, offset_bps: Decimal) -> Decimal:
    """`price`, improved by `offset_bps`: a BUY is lower, a SELL higher. A negative offset pays more. Exact."""
    share = multiply(offset_bps, BASIS_POINT)
    return multiply(price, subtract(ONE, share) if side == BUY else add(ONE, share))


class Slippage:
    """What a taker pays on top of the quote, on whole steps of the price, rounded against it."""

    def __init__(self, slippage_bps: float, tick_size: Decimal | None) -> None:
        share = multiply(exact(slippage_bps), BASIS_POINT)
        self.buying = add(ONE, share)
        """Factor on the price of a BUY."""
        self.selling = subtract(ONE, share)
        """Factor on the price of a SELL."""
        self._moves_price = bool(share)
        self._tick_size = tick_size

    def bought_at(self, quote: Decimal) -> Decimal:
        """What a BUY pays where the market asks `quote`."""
        if not self._moves_price and self._tick_size is None:
            return quote
        return _double(round_up(multiply(quote, self.buying), price_step(quote, self._tick_size)))

    def sold_at(self, quote: Decimal) -> Decimal:
        """What a SELL gets where the market bids `quote`; not above 0: nothing, it is no price."""
        if not self._moves_price and self._tick_size is None:
            return quote
        return _double(round_down(multiply(quote, self.selling), price_step(quote, self._tick_size)))


def _double(price: Decimal) -> Decimal:
    return exact(float(price))
