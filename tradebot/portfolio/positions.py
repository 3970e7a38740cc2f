"""Positions: what is held of each symbol, what it cost, what it earned, and how much is at stake.

Average-cost method (weighted average cost, as in IAS 2 paragraph 27 for holdings that are interchangeable): buying
more of what is held averages its cost; selling a part leaves the average as it is and realizes
(sale price - average cost) x quantity. Short positions mirror this, and a fill that goes through zero closes the one
position and opens the other at the fill's price. An inverse contract counts with -1/price in the place of its price.
Fees are no part of the cost: they are summed apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Context, Decimal
from typing import Any, Final, NamedTuple

from tradebot.core.events import BUY, Fill
from tradebot.portfolio.exact import ONE, ZERO, add, exact, finite, multiply, subtract
from tradebot.portfolio.instruments import Instrument, Instruments, unit_value
from tradebot.portfolio.rates import Rates

# The one rounding here: the cost of what a partial sale leaves. What is rounded away is realized, so that realized +
# unrealized profit is exactly cash flow + value at all times.
_COST: Final = Context(prec=50)
_TWO: Final = Decimal(2)


class PositionView(NamedTuple):
    """One symbol's position as plain finite numbers, for people and reports; money in `currency` (None: unknown)."""

    symbol: str
    net_qty: float
    average_cost: float
    last_price: float
    exposure: float
    realized: float
    unrealized: float
    fees: float
    currency: str | None = None


class PositionState(NamedTuple):
    """One symbol's exact state: what a restart continues from as it would from all the fills.

    `cost` and `realized` are quantity x price: money only once they are multiplied by the size of a contract.
    """

    symbol: str
    net: Decimal
    cost: Decimal
    realized: Decimal
    fees: float
    price: float

    def plain(self) -> list[str | float]:
        """As plain values, decimals as text; see `of_plain`."""
        return [self.symbol, str(self.net), str(self.cost), str(self.realized), self.fees, self.price]

    @classmethod
    def of_plain(cls, values: Iterable[Any]) -> PositionState:
        """The state with these values, made by `plain`."""
        symbol, net, cost, realized, fees, price = values
        return cls(symbol, Decimal(net), Decimal(cost), Decimal(realized), fees, price)


class _Sums:
    """Over all symbols of one currency: the exposures, and those of them whose value is negative."""

    __slots__ = ("currency", "exposure", "negative")

    def __init__(self, currency: str | None) -> None:
        self.currency = currency
        self.exposure = ZERO
        self.negative = ZERO


class _Position:
    """Exact state of one symbol. `net` and `cost` are negative when short.

    `value` is net x unit value at `price` x contract size, in the currency of the instrument; `exposure` is |value|.
    """

    __slots__ = ("cost", "exposure", "fees", "instrument", "net", "price", "realized", "sums", "value")

    def __init__(self, instrument: Instrument, sums: _Sums, price: float) -> None:
        self.instrument = instrument
        self.sums = sums
        self.net = ZERO
        self.cost = ZERO
        self.realized = ZERO
        self.fees = 0.0  # a plain sum: nothing is decided by it
        self.price = price
        self.exposure = ZERO
        self.value = ZERO

    def money(self, amount: Decimal) -> Decimal:
        """Quantity x unit value as an amount of the instrument's currency."""
        size = self.instrument.contract_size
        return amount if size == ONE else multiply(amount, size)


class Positions:
    """All positions, with exposure kept exactly up to date. Owned by one thread; nothing blocks.

    Memory is bounded by the number of symbols ever traded.
    """

    def __init__(self, instruments: Instruments | None = None) -> None:
        """Without `instruments`, the currency of every symbol is unknown, and nothing counts in contracts."""
        self._instruments = instruments
        self._positions: dict[str, _Position] = {}
        self._sums: dict[str | None, _Sums] = {}

    @classmethod
    def of(cls, states: Iterable[PositionState], instruments: Instruments | None = None) -> Positions:
        """The positions with these `states`."""
        positions = cls(instruments)
        for state in states:
            position = positions._new(state.symbol, state.price)
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
            position = self._new(fill.symbol, fill.fill_price)
        price, qty = exact(fill.fill_price), exact(fill.fill_qty)
        if position.instrument.inverse:
            price = unit_value(position.instrument, price)
        buys = fill.side == BUY
        change = qty if buys else qty.copy_negate()
        paid = multiply(change, price)
        before, cost_before = position.net, position.cost
        after = add(before, change)
        if not before or (before > ZERO) == buys:
            position.cost = add(cost_before, paid)
        else:
            if after and (after > ZERO) != buys:
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
        """Exact net quantity of `symbol` (negative when short), and its exposure: |net quantity| x last price.

        Exposure is in the currency of the symbol.
        """
        position = self._positions.get(symbol)
        return (position.net, position.exposure) if position is not None else (ZERO, ZERO)

    def realized(self, symbol: str) -> Decimal:
        """The exact realized profit of `symbol` so far, before fees, in its currency."""
        position = self._positions.get(symbol)
        return ZERO if position is None else position.money(position.realized)

    def total_exposure(self, rates: Rates) -> Decimal:
        """Exact sum of the exposures of all symbols in the account currency.

        Amounts without a rate count 1:1; `unrated` names their currency.
        """
        total = ZERO
        for sums in self._sums.values():
            total = add(total, rates.in_account(sums.exposure, sums.currency))
        return total

    def rated_exposure(self, rates: Rates) -> Decimal | None:
        """`total_exposure`; None where something is at stake in a currency without a rate."""
        total = ZERO
        for sums in self._sums.values():
            rate, exposure = rates.rate(sums.currency), sums.exposure
            if rate is None:
                if exposure:
                    return None
                continue
            if rate is not ONE:
                exposure = multiply(exposure, rate)
            total = add(total, exposure) if total else exposure
        return total

    def total_value(self, rates: Rates) -> Decimal:
        """Exact sum of net quantity x price over all symbols in the account currency, negative when short."""
        total = ZERO
        for sums in self._sums.values():
            # What is negative is in the exposure with the other sign.
            value = subtract(sums.exposure, multiply(_TWO, sums.negative))
            total = add(total, rates.in_account(value, sums.currency))
        return total

    def total_owed(self, rates: Rates) -> Decimal:
        """Exact sum of the values below zero, without their sign: short positions, and inverse contracts held long."""
        total = ZERO
        for sums in self._sums.values():
            if sums.negative:
                total = add(total, rates.in_account(sums.negative, sums.currency))
        return total

    def unrated(self, rates: Rates) -> str | None:
        """A currency without a rate in which something is at stake; None if every such currency has a rate.

        Any thread may ask.
        """
        for sums in tuple(self._sums.values()):
            if rates.rate(sums.currency) is None and sums.exposure:
                return sums.currency
        return None

    def value(self, symbol: str) -> Decimal:
        """Exact net quantity x last price of `symbol`, in its currency; negative when short."""
        position = self._positions.get(symbol)
        return ZERO if position is None else position.value

    def profit(self, symbol: str) -> Decimal:
        """Exact realized and unrealized profit of `symbol` before fees, in its currency."""
        position = self._positions.get(symbol)
        if position is None:
            return ZERO
        return add(position.money(position.realized), subtract(position.value, position.money(position.cost)))

    def view(self, symbol: str, price: float | None = None) -> PositionView | None:
        """The position in `symbol`, also when closed; none when it was never traded. Valued at `price` where given."""
        position = self._positions.get(symbol)
        if position is None:
            return None
        price = position.price if price is None else price
        instrument, cost = position.instrument, position.money(position.cost)
        value = position.money(multiply(position.net, unit_value(instrument, exact(price))))
        return PositionView(
            symbol=symbol,
            net_qty=finite(position.net),
            average_cost=finite(_average_price(position)) if position.net else 0.0,
            last_price=price,
            exposure=finite(value.copy_abs()),
            realized=finite(position.money(position.realized)),
            unrealized=finite(subtract(value, cost)),
            fees=finite(position.fees),
            currency=instrument.currency,
        )

    def views(self, newer: Mapping[str, float] | None = None) -> list[PositionView]:
        """Every position that ever was, by symbol; at the prices of `newer` where it names the symbol."""
        prices: Mapping[str, float] = {} if newer is None else newer
        found = [self.view(symbol, prices.get(symbol)) for symbol in sorted(self._positions)]
        return [view for view in found if view is not None]

    def _new(self, symbol: str, price: float) -> _Position:
        instrument = Instrument(symbol) if self._instruments is None else self._instruments.of(symbol)
        sums = self._sums.get(instrument.currency)
        if sums is None:
            sums = self._sums[instrument.currency] = _Sums(instrument.currency)
        position = self._positions[symbol] = _Position(instrument, sums, price)
        return position

    def _value(self, position: _Position, price: float) -> None:
        position.price = price
        instrument, unit = position.instrument, exact(price)
        value = multiply(position.net, unit_value(instrument, unit) if instrument.inverse else unit)
        if instrument.contract_size is not ONE:
            value = position.money(value)
        exposure, sums = value.copy_abs(), position.sums
        sums.exposure = add(sums.exposure, subtract(exposure, position.exposure))
        if value < ZERO:
            sums.negative = add(sums.negative, exposure)
        if position.value < ZERO:
            sums.negative = subtract(sums.negative, position.exposure)
        position.value, position.exposure = value, exposure


def _average_price(position: _Position) -> Decimal:
    """The price at which what is held cost what it cost: for an inverse contract the harmonic mean of its prices."""
    unit = _COST.divide(position.cost, position.net)
    return _COST.divide(ONE.copy_negate(), unit) if position.instrument.inverse else unit
