"""Risk caps: what may be ordered. Approved and refused orders are different types, so neither passes for the other."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from tradebot.core.events import (
    BP_DROP_SIGNAL,
    BUY,
    NO_RATE,
    RISK_CAP,
    STALE_DATA,
    LimitBreach,
    Order,
    Signal,
    as_unix_ms,
)
from tradebot.portfolio.currencies import needs_rate
from tradebot.portfolio.exact import add, exact, finite, multiply, subtract
from tradebot.portfolio.positions import Positions

if TYPE_CHECKING:
    from tradebot.config.model import RiskCaps

SYMBOL_CAP: Final = "risk_caps.max_symbol_exposure_usd"
TOTAL_CAP: Final = "risk_caps.max_exposure_usd"
OPEN_ORDERS_CAP: Final = "risk_caps.max_open_orders"
TICK_AGE_CAP: Final = "execution.max_tick_age_ms"

_BREACH_TEXTS: Final = {
    SYMBOL_CAP: "exposure in {symbol} would be {value!r}, above {key} = {limit!r}",
    TOTAL_CAP: "total exposure would be {value!r}, above {key} = {limit!r}",
    OPEN_ORDERS_CAP: "open orders would be {value:.0f}, above {key} = {limit:.0f}",
    TICK_AGE_CAP: "the tick of {symbol} is {value:.0f} ms old, above {key} = {limit:.0f}",
}


class ApprovedOrder(Struct, frozen=True, gc=False):
    """An order that may be sent: `qty` of the signal's symbol at the signal's price, worth `notional` exactly."""

    signal: Signal
    qty: float
    notional: Decimal


class RefusedOrder(Struct, frozen=True, gc=False):
    """An order that must not be sent: the reason code and, unless the reason is NO_RATE, the limit that it exceeds."""

    signal: Signal
    reason: str
    breach: LimitBreach | None = None


def check(
    signal: Signal, positions: Positions, caps: RiskCaps, open_orders: int, rates: bool = True
) -> ApprovedOrder | RefusedOrder:
    """May the signal's order be sent? `open_orders` counts those not yet in a final status. Changes nothing.

    Exposure is |net quantity| x price: the signal's own price for its symbol, the last marks for the others, so apply
    `signal.marks` first. A value equal to its cap is within it. An order through zero counts by where it ends, and one
    that lowers its symbol's |net quantity| is always approved, also where a cap is already passed because prices moved
    or because too many orders are open. Any other order of a symbol that is priced in another currency than dollars is
    refused NO_RATE: its exposure cannot be compared with caps in dollars. A symbol whose currency nothing says counts
    1:1. `rates` False: so does every symbol, as under result rules 1 (`store.runs.RESULT_RULES`).
    """
    qty, price = exact(signal.desired_size), exact(signal.price)
    net, exposure = positions.at_stake(signal.symbol)
    after = (add(net, qty) if signal.side == BUY else subtract(net, qty)).copy_abs()
    if after >= net.copy_abs():
        if rates and needs_rate(signal.symbol) is not None:
            return RefusedOrder(signal, NO_RATE)
        would_be = multiply(after, price)
        if would_be > exact(caps.max_symbol_exposure_usd):
            return RefusedOrder(signal, RISK_CAP, _breach(SYMBOL_CAP, would_be, caps.max_symbol_exposure_usd))
        total = add(positions.total_exposure, subtract(would_be, exposure))
        if total > exact(caps.max_exposure_usd):
            return RefusedOrder(signal, RISK_CAP, _breach(TOTAL_CAP, total, caps.max_exposure_usd))
        if open_orders >= caps.max_open_orders:
            return RefusedOrder(signal, RISK_CAP, _breach(OPEN_ORDERS_CAP, open_orders + 1, caps.max_open_orders))
    return ApprovedOrder(signal, signal.desired_size, multiply(qty, price))


def check_tick_age(signal: Signal, now_ms: int, max_tick_age_ms: int) -> RefusedOrder | None:
    """Refuse a signal whose tick is older than `max_tick_age_ms` (0: no limit) at `now_ms` (Unix ms UTC)."""
    age_ms = now_ms - as_unix_ms(signal.ts)
    if not max_tick_age_ms or age_ms <= max_tick_age_ms:
        return None
    return RefusedOrder(signal, STALE_DATA, _breach(TICK_AGE_CAP, age_ms, max_tick_age_ms))


def _breach(limit_key: str, value: Decimal | int, limit: float) -> LimitBreach:
    """The exact `value` as a double; where that rounds down to the limit itself, the next double above the limit."""
    return LimitBreach(limit_key, max(finite(value), math.nextafter(limit, math.inf)), float(limit))


def refusal_text(order: Order) -> str:
    """Why `order` was refused, for people; everything it says is stored with the order."""
    breach, symbol = order.breach, order.symbol
    if breach is not None:
        text = _BREACH_TEXTS[breach.limit_key]
        return text.format(symbol=symbol, value=breach.value, key=breach.limit_key, limit=breach.limit)
    if order.reason == NO_RATE:
        return (
            f"{symbol} is priced in {needs_rate(symbol)}, and there is no rate to USD, in which risk_caps are set;"
            " only orders that reduce a position are accepted"
        )
    return "signal channel full" if order.reason == BP_DROP_SIGNAL else f"reason {order.reason}"
