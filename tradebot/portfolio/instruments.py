"""What is known of a symbol beside its name: currencies, steps of price and quantity, smallest orders, fees. Pure.

An entry `[instruments."SYMBOL"]` of the configuration comes first. Where it names no quote currency, the form of the
symbol does (`core.currencies`), else the adapter of the exchange, else the currency is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Context, Decimal
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from tradebot.core.currencies import Pair, pair_of_form
from tradebot.core.events import MIN_NOTIONAL, MIN_QTY, LimitBreach
from tradebot.portfolio.exact import ONE, ZERO, add, divide_towards_zero, exact, finite, multiply, subtract

if TYPE_CHECKING:
    from tradebot.config.money import InstrumentConfig

PairOf = Callable[[str], Pair | None]
"""The pair of a symbol, by the adapter of its exchange; None where the adapter does not know it."""

UNKNOWN_STEP: Final = Decimal("1e-8")
"""The step to which quantities and prices computed here are rounded where an instrument's own step is not known."""

# The one rounding here: an inverse contract's value is a quotient, which has no end in general.
_QUOTIENT: Final = Context(prec=50)


class Instrument(Struct, frozen=True):
    """One symbol. Steps and smallest orders are None where they are not known: then they refuse and round nothing.

    `tick_size` is the step of prices, `lot_size` that of quantities, `min_notional` is in units of `currency`. Fees are
    fractions of an order's value. `contract_size` is how much one unit of quantity stands for: of the base currency,
    or of the quote currency in an `inverse` contract, which is settled in its base currency. `needs_entry`: the
    market is known to count in contracts or to be inverse, and the configuration has no entry that says their size.
    """

    symbol: str
    base: str | None = None
    quote: str | None = None
    tick_size: Decimal | None = None
    lot_size: Decimal | None = None
    min_qty: Decimal | None = None
    min_notional: Decimal | None = None
    maker_fee: Decimal = ZERO
    taker_fee: Decimal = ZERO
    contract_size: Decimal = ONE
    inverse: bool = False
    needs_entry: bool = False

    @property
    def restricts_size(self) -> bool:
        """Whether a quantity may have to be rounded, or an order may be too small."""
        return not (self.lot_size is self.min_qty is self.min_notional is None)

    @property
    def currency(self) -> str | None:
        """What value, profit and fees are in: the quote currency, of an inverse contract the base; None: unknown."""
        return self.base if self.inverse else self.quote


class Instruments:
    """The instrument of each symbol, found once. Owned by one thread; nothing blocks.

    Memory is bounded by the number of symbols that were asked for.
    """

    def __init__(
        self, configured: Mapping[str, InstrumentConfig], fee_rate: float, pair_of: PairOf | None = None
    ) -> None:
        """`configured` is the section [instruments]; `fee_rate` applies where an entry names no fee."""
        self._configured = configured
        self._fee_rate = exact(fee_rate)
        self._pair_of = pair_of
        self._known: dict[str, Instrument] = {}

    def configured_as(self, entries: Mapping[str, InstrumentConfig], fee_rate: float) -> Instruments:
        """The instruments by another configuration, of the same exchange."""
        return Instruments(entries, fee_rate, self._pair_of)

    def of(self, symbol: str) -> Instrument:
        """What is known of `symbol`."""
        found = self._known.get(symbol)
        if found is None:
            found = self._known[symbol] = self._find(symbol)
        return found

    def currency_of(self, symbol: str) -> str | None:
        """The currency of the symbol's amounts; None where it is not known."""
        return self.of(symbol).currency

    def pair(self, symbol: str) -> Pair:
        """Base and quote of `symbol`."""
        found = self.of(symbol)
        return Pair(found.base, found.quote)

    def _find(self, symbol: str) -> Instrument:
        entry = self._configured.get(symbol)
        by_form = pair_of_form(symbol)
        by_adapter = None if self._pair_of is None else self._pair_of(symbol)
        pair = by_form or by_adapter or Pair(None, None)
        if entry is None:
            needs_entry = by_adapter is not None and (by_adapter.inverse or by_adapter.contracts)
            return Instrument(
                symbol, pair.base, pair.quote, maker_fee=self._fee_rate, taker_fee=self._fee_rate,
                inverse=by_adapter is not None and by_adapter.inverse, needs_entry=needs_entry,
            )  # fmt: skip
        return Instrument(
            symbol,
            entry.base or pair.base,
            entry.quote or pair.quote,
            _exact(entry.tick_size),
            _exact(entry.lot_size),
            _exact(entry.min_qty),
            _exact(entry.min_notional),
            self._fee_rate if entry.maker_fee is None else exact(entry.maker_fee),
            self._fee_rate if entry.taker_fee is None else exact(entry.taker_fee),
            ONE if entry.contract_size == 1 else exact(entry.contract_size),
            entry.inverse,
        )


def _exact(value: float | None) -> Decimal | None:
    return None if value is None else exact(value)


def unit_value(instrument: Instrument, price: Decimal) -> Decimal:
    """What one contract's share of value is at `price`, before its size: the price, of an inverse contract -1/price.

    quantity x contract_size x the change of it is the profit, in `instrument.currency`. Exact but for an inverse
    contract, whose quotient is rounded to 50 digits: the same everywhere, so that sums agree.
    """
    return _QUOTIENT.divide(ONE.copy_negate(), price) if instrument.inverse else price


def value_of(instrument: Instrument, qty: Decimal, price: Decimal) -> Decimal:
    """The value (notional) of `qty` (>= 0) at `price` (> 0), in `instrument.currency`."""
    value = multiply(qty, unit_value(instrument, price).copy_abs() if instrument.inverse else price)
    return value if instrument.contract_size is ONE else multiply(value, instrument.contract_size)


def round_down(value: Decimal, step: Decimal | None) -> Decimal:
    """The largest multiple of `step` that is not above `value`; `value` itself without a step."""
    if step is None:
        return value
    found = multiply(divide_towards_zero(value, step), step)
    return found if found <= value else subtract(found, step)


def round_up(value: Decimal, step: Decimal | None) -> Decimal:
    """The smallest multiple of `step` that is not below `value`; `value` itself without a step."""
    if step is None:
        return value
    found = multiply(divide_towards_zero(value, step), step)
    return found if found >= value else add(found, step)


class TooSmall(Struct, frozen=True, gc=False):
    """Why an instrument does not take an order: the reason code, and the limit that its value is below."""

    reason: str
    breach: LimitBreach


def too_small(instrument: Instrument, qty: Decimal, price: Decimal) -> TooSmall | None:
    """Whether an order of `qty`, rounded to the lot, is smaller than the instrument takes: MIN_QTY or MIN_NOTIONAL.

    A quantity that rounds to nothing is below one lot. `price` is the limit of the order, else the last price.
    """
    smallest = instrument.min_qty
    if smallest is not None and qty < smallest:
        return TooSmall(MIN_QTY, _below(instrument, "min_qty", qty, smallest))
    if qty == ZERO and instrument.lot_size is not None:
        return TooSmall(MIN_QTY, _below(instrument, "lot_size", qty, instrument.lot_size))
    if instrument.min_notional is not None:
        value = value_of(instrument, qty, price)
        if value < instrument.min_notional:
            return TooSmall(MIN_NOTIONAL, _below(instrument, "min_notional", value, instrument.min_notional))
    return None


def _below(instrument: Instrument, leaf: str, value: Decimal, limit: Decimal) -> LimitBreach:
    return LimitBreach(f'instruments."{instrument.symbol}".{leaf}', finite(value), finite(limit))
