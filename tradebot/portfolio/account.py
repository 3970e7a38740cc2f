"""The account of PAPER: one pot in the account currency, cash of each currency, and what open orders reserve. Exact.

Cash is kept in the currency that each symbol is settled in and may be negative in one of them: what counts is the sum
at current rates. In every currency, cash + value of positions = initial balance + profit - fees, exactly. Funding of
perpetual contracts and interest are not modelled.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from decimal import Context, Decimal
from typing import TYPE_CHECKING, Any, Final

from tradebot.core.currencies import ACCOUNT_CURRENCY
from tradebot.core.events import BUY, SELL, Fill, LimitBreach, Side
from tradebot.portfolio.exact import ONE, ZERO, add, exact, finite, multiply, subtract
from tradebot.portfolio.instruments import UNKNOWN_STEP, Instrument, Instruments, round_down, value_of
from tradebot.portfolio.positions import Positions, PositionState
from tradebot.portfolio.rates import Rates

if TYPE_CHECKING:
    from tradebot.config.money import AccountConfig

BALANCE: Final = "account.initial_balance"
HOLDINGS: Final = "account.allow_short"

# A size is rounded down to a lot after this, so that its last digits never buy more than the share.
_SIZE: Final = Context(prec=50)

_TWO: Final = Decimal(2)
_Reserved = dict[str, tuple[str | None, Decimal]]


class Account:
    """Cash, positions, fees and reservations. Owned by one thread; nothing blocks.

    Memory is bounded by the symbols ever traded and the orders that are open.
    """

    def __init__(self, settings: AccountConfig, instruments: Instruments, rates: Rates) -> None:
        self._initial = exact(settings.initial_balance)
        self.allow_short = settings.allow_short
        """Whether more may be sold than is held; otherwise a SELL needs holdings."""
        self._leverage = exact(settings.max_leverage)
        self.is_spot = not settings.allow_short and self._leverage == ONE
        """Whether neither short sales nor leverage are allowed."""
        self._instruments = instruments
        self._rates = rates
        self.positions = Positions(instruments)
        self._cash: dict[str | None, Decimal] = {ACCOUNT_CURRENCY: self._initial}
        self._fees: dict[str, Decimal] = {}
        self._reserved: _Reserved = {}
        self._reserved_qty: dict[str, tuple[str, Decimal]] = {}

    @classmethod
    def of_positions(
        cls, settings: AccountConfig, states: Collection[PositionState], instruments: Instruments, rates: Rates
    ) -> Account:
        """The account after fills that gave these positions, if it began with `settings`; no order is open."""
        account = cls(settings, instruments, rates)
        for state in states:
            instrument = instruments.of(state.symbol)
            earned = multiply(subtract(state.realized, state.cost), instrument.contract_size)
            currency, fees = instrument.currency, exact(state.fees)
            account._cash[currency] = add(account._cash.get(currency, ZERO), subtract(earned, fees))
            account._fees[state.symbol] = fees
        account.positions = Positions.of(states, instruments)
        return account

    # ---- what open orders hold back ----------------------------------------------------------------------------

    def reserve(self, order_id: str, currency: str | None, amount: Decimal) -> None:
        """Hold back `amount` (>= 0) of `currency` for an open BUY, in addition to what the order holds already."""
        held = self._reserved.get(order_id, (currency, ZERO))[1]
        self._reserved[order_id] = (currency, add(held, amount))

    def release(self, order_id: str, amount: Decimal) -> None:
        """Give back `amount` of the money that the order holds back, at most all of it."""
        currency, held = self._reserved.pop(order_id, (None, ZERO))
        if held > amount:
            self._reserved[order_id] = (currency, subtract(held, amount))

    def reserve_qty(self, order_id: str, symbol: str, qty: Decimal) -> None:
        """Hold back `qty` of what is held of `symbol` for an open SELL, in addition to what the order holds already."""
        held = self._reserved_qty.get(order_id, (symbol, ZERO))[1]
        self._reserved_qty[order_id] = (symbol, add(held, qty))

    def release_qty(self, order_id: str, qty: Decimal) -> None:
        """Give back `qty` of the holdings that the order holds back, at most all of them."""
        symbol, held = self._reserved_qty.pop(order_id, ("", ZERO))
        if held > qty:
            self._reserved_qty[order_id] = (symbol, subtract(held, qty))

    def release_all(self, order_id: str) -> None:
        """Give back everything that the order holds back, money and holdings. Without a reservation: nothing."""
        self._reserved.pop(order_id, None)
        self._reserved_qty.pop(order_id, None)

    # ---- what can be spent and sold ----------------------------------------------------------------------------

    def free(self, order_id: str | None = None) -> Decimal:
        """What a new order may spend, in the account currency; negative when prices or rates have moved against it.

        Equity x max_leverage, less what is at stake, less reservations: in spot that is the cash. With `order_id`, its
        own reservation counts as free: what a fill of that order may spend.
        """
        if self.is_spot:
            # What is held is worth what is at stake; where its value is negative, that is owed on top.
            left, owed = self._cash_total(), self.positions.total_owed(self._rates)
            if owed:
                left = subtract(left, multiply(_TWO, owed))
        else:
            limit = multiply(self.equity(), self._leverage)
            left = subtract(limit, self.positions.total_exposure(self._rates))
        for other, (currency, amount) in self._reserved.items():
            if other != order_id:
                left = subtract(left, self._rates.in_account(amount, currency))
        return left

    def free_qty(self, symbol: str) -> Decimal:
        """What is held of `symbol` (0 when short) less what open sells hold back."""
        left = max(self.positions.at_stake(symbol)[0], ZERO)
        for reserved, qty in self._reserved_qty.values():
            if reserved == symbol:
                left = subtract(left, qty)
        return left

    def affordable(
        self, instrument: Instrument, qty: Decimal, price: Decimal, fee_rate: Decimal, order_id: str | None = None
    ) -> Decimal:
        """How much of `qty` can be bought at `price` with fees from what is free for `order_id`, down to a lot."""
        whole = self.cost_of(instrument, qty, price, fee_rate)
        rate = self._rates.rate(instrument.currency)
        free = self.free(order_id)
        if rate is None or free <= ZERO:
            return ZERO
        needed = whole if rate is ONE else multiply(whole, rate)
        if needed <= free:
            return qty
        step = instrument.lot_size or UNKNOWN_STEP
        found = round_down(_SIZE.divide(multiply(qty, free), needed), step)
        # The quotient is rounded: one lot less where that made it too much.
        if multiply(self.cost_of(instrument, found, price, fee_rate), rate) > free:
            found = subtract(found, step)
        return max(found, ZERO)

    def cost_of(self, instrument: Instrument, qty: Decimal, price: Decimal, fee_rate: Decimal) -> Decimal:
        """What buying `qty` at `price` costs with fees, in the currency of the instrument: what a BUY reserves."""
        value = value_of(instrument, qty, price)
        return add(value, multiply(value, fee_rate))

    def closing(self, symbol: str, side: Side, qty: Decimal) -> Decimal:
        """How much of `qty` closes the position that is held on the other side."""
        net = self.positions.at_stake(symbol)[0]
        if not net or (net > ZERO) == (side == BUY):
            return ZERO
        return min(qty, net.copy_abs())

    def needed(self, instrument: Instrument, side: Side, qty: Decimal, price: Decimal, fee_rate: Decimal) -> Decimal:
        """The money that an order needs, in the currency of the instrument; 0 when it only closes a position.

        That is its cost at `price` but for what closes a position. A SELL of spot needs holdings instead.
        """
        if side == SELL and not self.allow_short:
            return ZERO
        closing = self.closing(instrument.symbol, side, qty)
        if closing:
            qty = subtract(qty, closing)
        return self.cost_of(instrument, qty, price, fee_rate) if qty else ZERO

    def refuses(self, instrument: Instrument, side: Side, qty: Decimal, needed: Decimal) -> LimitBreach | None:
        """Why an order that needs this much money (`needed`) is refused NO_BALANCE; None when there is enough."""
        if side == SELL and not self.allow_short:
            held = self.free_qty(instrument.symbol)
            return LimitBreach(HOLDINGS, finite(qty), finite(held)) if qty > held else None
        rate = self._rates.rate(instrument.currency)
        if not needed or rate is None:  # without a rate the order is refused NO_RATE
            return None
        needed, free = needed if rate is ONE else multiply(needed, rate), self.free()
        return LimitBreach(BALANCE, finite(needed), finite(free)) if needed > free else None

    def size_of_share(
        self, share: Decimal, instrument: Instrument, price: Decimal, slippage: Decimal = ZERO
    ) -> Decimal:
        """The quantity that `share` of the equity buys at `price`, slippage and taker's fee included, down to a lot.

        `slippage` is a fraction of the price. 0 when the equity is not positive, or there is no rate.
        """
        rate, equity = self._rates.rate(instrument.currency), self.equity()
        if rate is None or equity <= ZERO:
            return ZERO
        one = multiply(value_of(instrument, ONE, price), add(ONE, add(slippage, instrument.taker_fee)))
        per_unit = multiply(one, rate)
        qty = _SIZE.divide(multiply(share, equity), per_unit)
        return round_down(qty, instrument.lot_size or UNKNOWN_STEP)

    # ---- what happens ------------------------------------------------------------------------------------------

    def apply(self, fill: Fill, instrument: Instrument) -> None:
        """Take in a fill of `instrument`: cash, fee, position. What the order reserved is for the caller to release."""
        qty, price, fee = exact(fill.fill_qty), exact(fill.fill_price), exact(fill.fees)
        paid = value_of(instrument, qty, price)
        gains_cash = (fill.side == BUY) == instrument.inverse  # an inverse contract counts with -1/price
        spent = add(paid.copy_negate() if gains_cash else paid, fee)
        currency = instrument.currency
        self._cash[currency] = subtract(self._cash.get(currency, ZERO), spent)
        self._fees[fill.symbol] = add(self._fees.get(fill.symbol, ZERO), fee)
        self.positions.apply(fill)

    def mark(self, symbol: str, price: float) -> None:
        """The newest price of `symbol`, for its position and for the rates that name it."""
        self.positions.mark(symbol, price)
        self._rates.on_price(symbol, price)

    # ---- what it comes to --------------------------------------------------------------------------------------

    def equity(self) -> Decimal:
        """Cash and the value of all positions at current rates, in the account currency.

        Amounts in a currency that has lost its rate, because the configuration was changed, count 1:1.
        """
        return add(self.positions.total_value(self._rates), self._cash_total())

    def is_ruined(self) -> bool:
        """Whether the equity is used up: a margin account is to be liquidated (LIQUIDATED)."""
        return self.equity() <= ZERO

    def cash(self) -> dict[str | None, Decimal]:
        """Cash by currency; None: the unknown one."""
        return dict(self._cash)

    def fees_of(self, symbol: str) -> Decimal:
        """All fees of `symbol`, in its currency."""
        return self._fees.get(symbol, ZERO)

    # ---- restart -----------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything as plain values, decimals as text; see `restore`. The prints of rates are not in it."""
        return {
            "cash": [[currency, str(amount)] for currency, amount in self._cash.items()],
            "fees": [[symbol, str(fee)] for symbol, fee in self._fees.items()],
            "reserved": [[order, currency, str(amount)] for order, (currency, amount) in self._reserved.items()],
            "reserved_qty": [[order, symbol, str(qty)] for order, (symbol, qty) in self._reserved_qty.items()],
            "positions": [position.plain() for position in self.positions.states()],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` gave, in the place of everything here."""
        self._cash = {currency: Decimal(amount) for currency, amount in state["cash"]}
        self._fees = {symbol: Decimal(fee) for symbol, fee in state["fees"]}
        self._reserved = {order: (currency, Decimal(amount)) for order, currency, amount in state["reserved"]}
        self._reserved_qty = {order: (symbol, Decimal(qty)) for order, symbol, qty in state["reserved_qty"]}
        self.positions = Positions.of(map(PositionState.of_plain, state["positions"]), self._instruments)

    def _cash_total(self) -> Decimal:
        total = ZERO
        for currency, amount in self._cash.items():
            amount = self._rates.in_account(amount, currency)
            total = add(total, amount) if total else amount
        return total
