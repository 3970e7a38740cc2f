"""Positions: what is held of each symbol, what it cost, what it earned, and how much is at stake.

Average-cost method (weighted average cost, as in IAS 2 paragraph 27 for holdings that are interchangeable): buying
more of what is held averages its cost; selling a part leaves the average as it is and realizes
(sale price - average cost) x quantity. Short positions mirror this, and a fill that goes through zero closes the one
position and opens the other at the fill's price. Fees are no part of the cost: they are summed apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Context, Decimal
from typing import Final, NamedTuple

from tradebot.core.events import BUY, Fill
from tradebot.portfolio.exact import ZERO, add, exact, finite, multiply, subtract

# The one rounding here: the cost of what a partial sale leaves. What is rounded away is realized, so that realized +
# unrealized profit is exactly cash flow + value at all times.
_COST: Final = Context(prec=50)


class PositionView(NamedTuple):
    """One symbol's position as plain finite numbers, for people and reports; money in units of the quote currency."""

    symbol: str
    net_qty: float
    average_cost: float
    last_price: float
    exposure: float
    realized: float
    unrealized: float
    fees: float


class PositionState(NamedTuple):
    """One symbol's exact state: what a restart continues from as it would from all the fills."""

    symbol: str
    net: Decimal
    cost: Decimal
    realized: Decimal
    fees: float
    price: float


class _Position:
    """Exact state of one symbol. `net` and `cost` are negative when short; `exposure` is |net| x `price`."""

    __slots__ = ("cost", "exposure", "fees", "net", "price", "realized")

    def __init__(self, price: float) -> None:
        self.net = ZERO
        self.cost = ZERO
        self.realized = ZERO
        self.fees = 0.0  # a plain sum: nothing is decided by it
        self.price = price
        self.exposure = ZERO


class Positions:
    """All positions, with exposure kept exactly up to date. Owned by one thread; nothing blocks.

    Memory is bounded by the number of symbols ever traded.
    """

    def __init__(self) -> None:
        self._positions: dict[str, _Position] = {}
        self.total_exposure = ZERO
        """Exact sum of the exposures of all symbols; to be read only."""

    @classmethod
    def of(cls, states: Iterable[PositionState]) -> Positions:
        """The positions that gave these `states`."""
        positions = cls()
        for state in states:
            position = positions._positions[state.symbol] = _Position(state.price)
            position.net, position.cost, position.realized = state.net, state.cost, state.realized
            position.fees = state.fees
            positions._value(position, state.price)
        return positions

    def states(self) -> list[PositionState]:
        """Every position that ever was, exactly, by symbol."""
        found = sorted(self._positions.items())
        return [PositionState(name, p.net, p.cost, p.realized, p.fees, p.price) for name, p in found]

    def apply(self, fill: Fill) -> None:
        """Take in a fill (quantity and price > 0), which is also the newest price of its symbol."""
        position = self._positions.get(fill.symbol)
        if position is None:
            position = self._positions[fill.symbol] = _Position(fill.fill_price)
        price = exact(fill.fill_price)
        qty = exact(fill.fill_qty)
        change = qty if fill.side == BUY else qty.copy_negate()
        paid = multiply(change, price)
        before, cost_before = position.net, position.cost
        after = add(before, change)
        if not before or (before > 0) == (change > 0):
            position.cost = add(cost_before, paid)
        else:
            if (after > 0) == (before > 0) and after:
                position.cost = _COST.divide(multiply(cost_before, after), before)
            else:
                position.cost = multiply(after, price)
            # What was paid either went into the cost of what is held or was lost.
            lost = subtract(paid, subtract(position.cost, cost_before))
            position.realized = subtract(position.realized, lost)
        position.net = after
        position.fees += fill.fees
        self._value(position, fill.fill_price)

    def mark(self, symbol: str, price: float) -> None:
        """The newest price (> 0) of `symbol`. Symbols never traded are not remembered: nothing of them is at stake."""
        position = self._positions.get(symbol)
        if position is not None and position.price != price:
            if position.net:
                self._value(position, price)
            else:
                position.price = price

    def at_stake(self, symbol: str) -> tuple[Decimal, Decimal]:
        """Exact net quantity of `symbol` (negative when short), and its exposure: |net quantity| x last price."""
        position = self._positions.get(symbol)
        return (position.net, position.exposure) if position is not None else (ZERO, ZERO)

    def realized(self, symbol: str) -> Decimal:
        """The exact realized profit of `symbol` so far, before fees."""
        position = self._positions.get(symbol)
        return ZERO if position is None else position.realized

    def view(self, symbol: str, price: float | None = None) -> PositionView | None:
        """The position in `symbol`, also when closed; none when it was never traded. Valued at `price` where given."""
        position = self._positions.get(symbol)
        if position is None:
            return None
        price = position.price if price is None else price
        value = multiply(position.net, exact(price))
        return PositionView(
            symbol=symbol,
            net_qty=finite(position.net),
            average_cost=finite(_COST.divide(position.cost, position.net)) if position.net else 0.0,
            last_price=price,
            exposure=finite(value.copy_abs()),
            realized=finite(position.realized),
            unrealized=finite(subtract(value, position.cost)),
            fees=finite(position.fees),
        )

    def views(self, newer: Mapping[str, float] | None = None) -> list[PositionView]:
        """Every position that ever was, by symbol; at the prices of `newer` where it names the symbol."""
        prices: Mapping[str, float] = {} if newer is None else newer
        found = [self.view(symbol, prices.get(symbol)) for symbol in sorted(self._positions)]
        return [view for view in found if view is not None]

    def _value(self, position: _Position, price: float) -> None:
        position.price = price
        exposure = multiply(position.net.copy_abs(), exact(price))
        self.total_exposure = add(self.total_exposure, subtract(exposure, position.exposure))
        position.exposure = exposure
