"""Trades from flat to flat, and what each of them earned after fees. Pure, exact."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Context, Decimal
from typing import Final

from tradebot.portfolio.exact import ZERO, add, exact, multiply, subtract

_SHARE: Final = Context(prec=50)
"""The one rounding: how the fee of a fill through zero is shared between the trade it ends and the one it opens."""


class RoundTrips:
    """The open trades, one for each symbol with a position. Owned by one thread; memory is bounded by open positions.

    A trade begins when a position is opened and ends when it is flat; a fill that goes through zero ends one and
    begins another. Amounts are in the symbol's quote currency.
    """

    def __init__(self) -> None:
        self._earned: dict[str, Decimal] = {}

    def on_fill(self, symbol: str, before: Decimal, after: Decimal, realized: Decimal, fees: float) -> Decimal | None:
        """Take in a fill that changed the net quantity from `before` to `after` and realized this profit.

        Returns the profit of the trade that it ended, fees of all its fills taken off; None when no trade ended.
        """
        fee = exact(fees)
        through_zero = before and after and (before > 0) != (after > 0)
        opening = _opening_fee(fee, before, after) if through_zero else ZERO
        earned = add(self._earned.get(symbol, ZERO), subtract(realized, subtract(fee, opening)))
        if after and not through_zero:
            self._earned[symbol] = earned
            return None
        if through_zero:
            self._earned[symbol] = opening.copy_negate()
        else:
            self._earned.pop(symbol, None)
        return earned

    def state(self) -> dict[str, str]:
        """What the open trades have earned so far, as exact text by symbol."""
        return {symbol: str(earned) for symbol, earned in self._earned.items()}

    def restore(self, state: Mapping[str, str]) -> None:
        """Continue from what `state` gave."""
        self._earned = {symbol: Decimal(earned) for symbol, earned in state.items()}


def _opening_fee(fee: Decimal, before: Decimal, after: Decimal) -> Decimal:
    whole = add(before.copy_abs(), after.copy_abs())
    return _SHARE.divide(multiply(fee, after.copy_abs()), whole)
