"""Risk caps: what may be ordered. Approved and refused orders are different types, so neither passes for the other.

Caps are in the account currency. `check` judges a signal of SHADOW, which is filled at once; `check_order` an order of
PAPER, which stays open, beside all others that are open.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from tradebot.core.currencies import ACCOUNT_CURRENCY
from tradebot.core.events import (
    BUY,
    HALTED,
    LIQUIDATED,
    MIN_NOTIONAL,
    MIN_QTY,
    NO_INSTRUMENT,
    NO_RATE,
    RISK_CAP,
    STALE_DATA,
    LimitBreach,
    Order,
    Side,
    Signal,
    as_unix_ms,
)
from tradebot.execution.trips import BREACH_TEXTS
from tradebot.portfolio.account import BALANCE, HOLDINGS
from tradebot.portfolio.exact import ONE, ZERO, add, exact, finite, multiply, subtract
from tradebot.portfolio.instruments import Instrument, round_down, too_small, value_of
from tradebot.portfolio.money import Money
from tradebot.portfolio.positions import Positions
from tradebot.portfolio.rates import Rates

if TYPE_CHECKING:
    from tradebot.config.model import RiskCaps

SYMBOL_CAP: Final = "risk_caps.max_symbol_exposure_usd"
TOTAL_CAP: Final = "risk_caps.max_exposure_usd"
OPEN_ORDERS_CAP: Final = "risk_caps.max_open_orders"
TICK_AGE_CAP: Final = "execution.max_tick_age_ms"

_BREACH_TEXTS: Final = {
    SYMBOL_CAP: "exposure in {symbol} would be {value!r} {account}, above {key} = {limit!r}",
    TOTAL_CAP: "total exposure would be {value!r} {account}, above {key} = {limit!r}",
    OPEN_ORDERS_CAP: "open orders would be {value:.0f}, above {key} = {limit:.0f}",
    TICK_AGE_CAP: "the tick of {symbol} is {value:.0f} ms old, above {key} = {limit:.0f}",
    BALANCE: "the order needs {value!r} {account}, and {limit!r} are free",
    HOLDINGS: "{value!r} {symbol} would be sold, and {limit!r} are free; {key} is false",
    **BREACH_TEXTS,
}
_TOO_SMALL_TEXTS: Final = {
    "min_qty": "quantity {value!r} is below {key} = {limit!r}",
    "lot_size": "the quantity is less than one lot: {key} = {limit!r}",
    "min_notional": "the order is worth {value!r} {unit}, below {key} = {limit!r}",
}


class ApprovedOrder(Struct, frozen=True, gc=False):
    """An order that may be sent: `qty` of the signal's symbol at the signal's price, worth `notional` exactly."""

    signal: Signal
    qty: float
    notional: Decimal


class RefusedOrder(Struct, frozen=True, gc=False):
    """An order that must not be sent: the reason code and, where that is a limit, the one that it does not keep."""

    signal: Signal
    reason: str
    breach: LimitBreach | None = None


class Refusal(Struct, frozen=True, gc=False):
    """Why an order is not accepted: the reason code and, where the reason is a limit, the one that it does not keep."""

    reason: str
    breach: LimitBreach | None = None


HALT: Final = Refusal(HALTED)
"""How an order that adds exposure is refused while halted."""


def check(
    signal: Signal,
    positions: Positions,
    caps: RiskCaps,
    open_orders: int,
    money: Money,
    blocked: Refusal | None = None,
) -> ApprovedOrder | RefusedOrder:
    """May the signal's order be sent? `open_orders` counts those not yet in a final status. Changes nothing.

    Exposure is |net quantity| x price x rate: the signal's own price for its symbol, the last marks for the others, so
    apply `signal.marks` first. A value equal to its cap is within it. An order through zero counts by where it ends,
    and one that lowers its symbol's |net quantity| is always approved, also where a cap is already passed because
    prices moved or because too many orders are open. Any other order is refused NO_RATE when its currency, or that of
    something held, has no rate to the account currency: its exposure cannot be compared with the caps. A symbol whose
    currency is not known counts 1:1.

    `blocked` is how a halt or a breaker refuses the orders that do not lower |net quantity|.

    The quantity is rounded down to the lot of the instrument, whose smallest sizes hold for every order. A market known
    to count in contracts is refused NO_INSTRUMENT without its entry, and an inverse one always: SHADOW keeps positions
    in the currency of their prices.
    """
    instrument = money.instruments.of(signal.symbol)
    qty, price = exact(signal.desired_size), exact(signal.price)
    if instrument.restricts_size:
        qty = round_down(qty, instrument.lot_size)
        small = too_small(instrument, qty, price)
        if small is not None:
            return RefusedOrder(signal, small.reason, small.breach)
    net, exposure = positions.at_stake(signal.symbol)
    after = (add(net, qty) if signal.side == BUY else subtract(net, qty)).copy_abs()
    if after >= net.copy_abs():
        if blocked is not None:
            return RefusedOrder(signal, blocked.reason, blocked.breach)
        if instrument.needs_entry or instrument.inverse:
            return RefusedOrder(signal, NO_INSTRUMENT)
        rates = money.rates
        rate = rates.rate(instrument.currency)
        before = positions.rated_exposure(rates)
        if rate is None or before is None:
            return RefusedOrder(signal, NO_RATE)
        would_be = value_of(instrument, after, price)
        change = subtract(would_be, exposure)
        if rate is not ONE:
            would_be, change = multiply(would_be, rate), multiply(change, rate)
        breach = _cap_breach(caps, would_be, add(before, change), open_orders)
        if breach is not None:
            return RefusedOrder(signal, RISK_CAP, breach)
    size = signal.desired_size if instrument.lot_size is None else float(qty)
    return ApprovedOrder(signal, size, value_of(instrument, qty, price))


class OpenOrder(Struct, frozen=True, gc=False):
    """An order that has no final status yet, as caps see it; `qty` is what is still to be filled.

    `siblings` is what the orders have in common of which at most one can be filled (the children of a bracket).
    """

    symbol: str
    side: Side
    qty: Decimal
    reduce_only: bool = False
    siblings: str | None = None


def open_quantities(orders: Iterable[OpenOrder]) -> tuple[Decimal, Decimal]:
    """What open orders of one symbol could buy and sell at most: siblings once, reduce_only left out."""
    bought, sold = ZERO, ZERO
    largest: dict[tuple[str, str], Decimal] = {}
    for order in orders:
        if order.reduce_only:
            continue
        qty = order.qty
        if order.siblings is not None:
            counted = largest.get((order.siblings, order.side), ZERO)
            largest[order.siblings, order.side] = max(counted, qty)
            qty = subtract(max(counted, qty), counted)
        if order.side == BUY:
            bought = add(bought, qty)
        else:
            sold = add(sold, qty)
    return bought, sold


def worst_case(net: Decimal, bought: Decimal, sold: Decimal) -> Decimal:
    """The largest |net quantity| that open orders can lead to."""
    return max(add(net, bought).copy_abs(), subtract(net, sold).copy_abs())


def lowers(net: Decimal, side: Side, qty: Decimal, open_qty: Decimal) -> bool:
    """Whether an order lowers |net quantity| though all open orders of its side (`open_qty`) are filled before it."""
    if not net:
        return False
    moved = add(qty, open_qty)
    return (add(net, moved) if side == BUY else subtract(net, moved)).copy_abs() < net.copy_abs()


def check_order(
    order: OpenOrder,
    price: Decimal,
    open_orders: Mapping[str, Iterable[OpenOrder]],
    price_of: Callable[[str], Decimal],
    positions: Positions,
    caps: RiskCaps,
    money: Money,
    blocked: Refusal | None = None,
) -> Refusal | None:
    """Whether caps, rates and instruments refuse a new `order` of PAPER; None: they do not. Changes nothing.

    `price` is the last one of the order's symbol; `open_orders` are those of each symbol, `price_of` the last price of
    a symbol that has any. Every symbol counts with its worst case: max(|net + open buys|, |net - open sells|). An order
    that lowers what its symbol comes to (`lowers`), or is reduce_only, is never refused here. `blocked` is how a halt
    or a breaker refuses all others.
    """
    symbol, rates = order.symbol, money.rates
    instrument = money.instruments.of(symbol)
    net, exposure = positions.at_stake(symbol)
    own = [*open_orders.get(symbol, ())]
    bought, sold = open_quantities(own) if own else (ZERO, ZERO)
    if order.reduce_only or (net and lowers(net, order.side, order.qty, bought if order.side == BUY else sold)):
        return None
    if blocked is not None:
        return blocked
    if instrument.needs_entry:
        return Refusal(NO_INSTRUMENT)
    rate = rates.rate(instrument.currency)
    before = positions.rated_exposure(rates)
    if rate is None or before is None:
        return Refusal(NO_RATE)
    if order.siblings is not None:
        bought, sold = open_quantities([*own, order])
    elif order.side == BUY:
        bought = add(bought, order.qty)
    else:
        sold = add(sold, order.qty)
    worst = worst_case(net, bought, sold)
    would_be = value_of(instrument, worst, price)
    change = subtract(would_be, exposure)
    if rate is not ONE:
        would_be, change = multiply(would_be, rate), multiply(change, rate)
    total = add(before, change)
    count = len(own)
    for other, orders in open_orders.items():
        if other != symbol:
            others = [*orders]
            count += len(others)
            total = add(total, _raised(money, positions, other, others, price_of))
    breach = _cap_breach(caps, would_be, total, count)
    return None if breach is None else Refusal(RISK_CAP, breach)


def _raised(
    money: Money, positions: Positions, symbol: str, orders: list[OpenOrder], price_of: Callable[[str], Decimal]
) -> Decimal:
    """By how much the worst case of another symbol is above its exposure, in the account currency."""
    if not orders:
        return ZERO
    instrument = money.instruments.of(symbol)
    net, exposure = positions.at_stake(symbol)
    change = subtract(value_of(instrument, worst_case(net, *open_quantities(orders)), price_of(symbol)), exposure)
    return money.rates.in_account(change, instrument.currency)


def _cap_breach(caps: RiskCaps, symbol: Decimal, total: Decimal, open_orders: int) -> LimitBreach | None:
    if symbol > exact(caps.max_symbol_exposure_usd):
        return _breach(SYMBOL_CAP, symbol, caps.max_symbol_exposure_usd)
    if total > exact(caps.max_exposure_usd):
        return _breach(TOTAL_CAP, total, caps.max_exposure_usd)
    if open_orders >= caps.max_open_orders:
        return _breach(OPEN_ORDERS_CAP, open_orders + 1, caps.max_open_orders)
    return None


def check_tick_age(ts: int, now_ms: int, max_tick_age_ms: int) -> Refusal | None:
    """Refuse a signal of a tick with time `ts` that is older than `max_tick_age_ms` (0: no limit) at `now_ms` (Unix ms
    UTC).
    """
    age_ms = now_ms - as_unix_ms(ts)
    if not max_tick_age_ms or age_ms <= max_tick_age_ms:
        return None
    return Refusal(STALE_DATA, _breach(TICK_AGE_CAP, age_ms, max_tick_age_ms))


def _breach(limit_key: str, value: Decimal | int, limit: float) -> LimitBreach:
    """The exact `value` as a double; where that rounds down to the limit itself, the next double above the limit."""
    return LimitBreach(limit_key, max(finite(value), math.nextafter(limit, math.inf)), float(limit))


def refusal_text(order: Order, money: Money, positions: Positions | None = None) -> str:
    """Why `order` was refused, for people; call it before anything else is executed.

    `positions` are those that it was judged by, where there are any.
    """
    breach, symbol = order.breach, order.symbol
    instrument = money.instruments.of(symbol)
    if breach is not None:
        return _breach_text(breach, instrument)
    if order.reason == NO_RATE:
        return _no_rate_text(instrument, money.rates, positions)
    if order.reason == HALTED:
        return "halted: only orders that reduce a position are accepted until tradebot resume"
    if order.reason == NO_INSTRUMENT:
        return _no_instrument_text(instrument)
    if order.reason == LIQUIDATED:
        return "the account has lost all it had: no order is sent any more; continue with another --db"
    if order.reason in (MIN_QTY, MIN_NOTIONAL):
        return _nothing_left_text(order, instrument)
    return f"reason {order.reason}"


def _nothing_left_text(order: Order, instrument: Instrument) -> str:
    """Of a quantity or price of which rounding to its step leaves nothing."""
    if order.reason == MIN_QTY:
        what, step, key = f"quantity {order.qty}", instrument.lot_size, "lot_size"
    else:
        what, step, key = "the price of the order", instrument.tick_size, "tick_size"
    if step is None:
        return f"{what} is 0 when it is rounded down"
    return f'{what} is less than one step, instruments."{instrument.symbol}".{key} = {finite(step)}'


def _breach_text(breach: LimitBreach, instrument: Instrument) -> str:
    text = _BREACH_TEXTS.get(breach.limit_key) or _TOO_SMALL_TEXTS[breach.limit_key.rpartition(".")[2]]
    return text.format(
        symbol=instrument.symbol, value=breach.value, key=breach.limit_key, limit=breach.limit,
        account=ACCOUNT_CURRENCY, unit=instrument.currency or "(unit unknown)",
    )  # fmt: skip


def _no_rate_text(instrument: Instrument, rates: Rates, positions: Positions | None) -> str:
    currency, what = instrument.currency, f"{instrument.symbol} is priced in {instrument.currency}"
    if currency is None or rates.rate(currency) is not None:
        currency = None if positions is None else positions.unrated(rates)
        what = f"a position is held that is priced in {currency}"
    if currency is None:
        return f"reason {NO_RATE}"
    return f"{what}, and {rates.missing(currency)}; without it only orders that reduce a position are accepted"


def _no_instrument_text(instrument: Instrument) -> str:
    entry = f'[instruments."{instrument.symbol}"]'
    if instrument.inverse:
        return (
            f"{instrument.symbol} is an inverse contract, settled in {instrument.currency or 'its base currency'}:"
            f" SHADOW does not account for these; PAPER needs an entry {entry} with contract_size and inverse = true"
        )
    return f"the quantities of {instrument.symbol} are contracts: add an entry {entry} with their contract_size"
