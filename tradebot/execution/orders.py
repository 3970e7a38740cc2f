"""What an order is and which ways its life can take. Pure.

Quantities and prices are exact decimals. `TRANSITIONS` is the whole life of an order; a final status is final.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from math import inf, nextafter
from typing import Final

from msgspec import Struct

from tradebot.core.events import BUY, FINAL_STATUSES, SELL, OrderStatus, OrderType, Side, TimeInForce
from tradebot.portfolio.exact import ZERO, add, exact, multiply, subtract

BASIS_POINT: Final = Decimal("0.0001")

TRANSITIONS: Final[Mapping[OrderStatus | None, frozenset[OrderStatus]]] = {
    None: frozenset({"SUBMITTED", "REJECTED"}),
    "SUBMITTED": frozenset({"ACKNOWLEDGED", "CANCELED", "EXPIRED", "REJECTED"}),
    # From ACKNOWLEDGED to itself: the stop of a bracket becomes smaller when its take-profit fills in part.
    "ACKNOWLEDGED": frozenset({"ACKNOWLEDGED", "TRIGGERED", "PARTIAL_FILL", "FILLED", "CANCELED", "EXPIRED"}),
    "TRIGGERED": frozenset({"PARTIAL_FILL", "FILLED", "CANCELED", "EXPIRED"}),
    "PARTIAL_FILL": frozenset({"PARTIAL_FILL", "FILLED", "CANCELED", "EXPIRED"}),
    "FILLED": frozenset(),
    "CANCELED": frozenset(),
    "EXPIRED": frozenset(),
    "REJECTED": frozenset(),
}
"""Which status may follow which; None stands before the first."""

_NEEDS_LIMIT: Final = frozenset({"LIMIT", "STOP_LIMIT"})
_NEEDS_STOP: Final = frozenset({"STOP", "STOP_LIMIT"})
STOPS: Final[frozenset[OrderType]] = frozenset({"STOP", "STOP_LIMIT", "TRAILING_STOP"})
"""The types that wait for a trigger."""


class OrderRequest(Struct, frozen=True, gc=False):
    """An order as asked for. `check` says whether it makes sense.

    `stop` is the trigger price of a STOP or STOP_LIMIT; a TRAILING_STOP has a distance instead, either `trail_amount`
    in units of the price or `trail_bps` in hundredths of a percent. `expire_ts` (event time, Unix ms) belongs to GTD.
    `take_profit` and `stop_loss` are the prices of the orders that each fill of this one gets as protection.
    """

    symbol: str
    side: Side
    qty: Decimal
    type: OrderType = "MARKET"
    limit: Decimal | None = None
    stop: Decimal | None = None
    trail_amount: Decimal | None = None
    trail_bps: Decimal | None = None
    time_in_force: TimeInForce = "GTC"
    expire_ts: int | None = None
    post_only: bool = False
    reduce_only: bool = False
    take_profit: Decimal | None = None
    stop_loss: Decimal | None = None

    def check(self) -> None:
        """Raise ValueError, which names what contradicts what, for a request that no venue could understand."""
        kind = self.type
        if self.side not in (BUY, SELL):
            raise ValueError(f"side is {self.side!r}, not BUY or SELL")
        if not _is_positive(self.qty):
            raise ValueError(f"quantity is {self.qty}, not above 0")
        if (self.limit is not None) != (kind in _NEEDS_LIMIT):
            raise ValueError(f"a {kind} order {'needs a' if kind in _NEEDS_LIMIT else 'has no'} limit price")
        if (self.stop is not None) != (kind in _NEEDS_STOP):
            raise ValueError(f"a {kind} order {'needs a' if kind in _NEEDS_STOP else 'has no'} stop price")
        trails = [trail for trail in (self.trail_amount, self.trail_bps) if trail is not None]
        if len(trails) != (kind == "TRAILING_STOP"):
            raise ValueError(
                "a TRAILING_STOP order needs one distance, an amount or basis points"
                if kind == "TRAILING_STOP"
                else f"a {kind} order has no trailing distance"
            )
        for price in (self.limit, self.stop, self.take_profit, self.stop_loss, *trails):
            if price is not None and not _is_positive(price):
                raise ValueError(f"a price or distance is {price}, not above 0")
        if self.trail_bps is not None and self.trail_bps >= 10_000:
            raise ValueError(f"a trailing distance is {self.trail_bps} basis points, not below 10000")
        if (self.expire_ts is not None) != (self.time_in_force == "GTD"):
            raise ValueError("an expiry time belongs to GTD orders, and to these only")
        if self.post_only and (kind != "LIMIT" or self.time_in_force in ("IOC", "FOK")):
            raise ValueError("only a LIMIT order that stays (GTC or GTD) can be post_only")


class Submit(Struct, frozen=True, gc=False):
    """Send an order; `reason` (a code) and `confidence` are those of its signal."""

    request: OrderRequest
    reason: str
    confidence: float = 1.0


class Cancel(Struct, frozen=True, gc=False):
    """End an order that is open; one that has ended is left alone."""

    order_id: str


class Amend(Struct, frozen=True, gc=False):
    """Cancel an order and send another one in its place, which is active only if the cancel was in time."""

    order_id: str
    request: OrderRequest
    reason: str
    confidence: float = 1.0


Command = Submit | Cancel | Amend


class WorkingOrder(Struct):
    """An order that is not final, as the venue keeps it; nearly all of it changes while the order lives.

    `sequence` counts submissions, `age` activations and triggers: both are the venue's. Times are event time (Unix ms).
    """

    order_id: str
    signal_id: str
    symbol: str
    side: Side
    type: OrderType
    qty: Decimal
    reference: float
    """The price with which its fills are compared: the signal's, of a bracket's child its own."""
    limit: Decimal | None = None
    stop: Decimal | None = None
    trail_amount: Decimal | None = None
    trail_bps: Decimal | None = None
    time_in_force: TimeInForce = "GTC"
    expire_ts: int | None = None
    post_only: bool = False
    reduce_only: bool = False
    take_profit: Decimal | None = None
    stop_loss: Decimal | None = None
    parent_id: str | None = None
    sibling_id: str | None = None
    """Of a bracket's child: the other one."""
    replaces_id: str | None = None
    """The order that an amendment replaces by this one, while that is not settled."""
    replaced_by: str | None = None
    """The order that is to replace this one, once it is canceled."""
    replaced: bool = False
    """`replaces_id` was canceled for this one, which may become active."""
    replaces_remaining: Decimal = ZERO
    """What was not filled of that order when the amendment was asked for; once `replaced`, what it filled since."""
    status: OrderStatus | None = None
    events: int = 0
    """How many transitions so far."""
    remaining: Decimal = ZERO
    sequence: int = 0
    active_from_ms: int = 0
    """First event time at which the order is active; 0: at the next print."""
    age: int = 0
    taking: bool = False
    """It takes liquidity; otherwise, once active, it rests or waits for its trigger."""
    queue: Decimal | None = None
    """The quantity that stands before it at its price; None: not known, only a print through the price fills."""
    best: float = 0.0
    """Of a trailing stop: the best price since it is active."""
    timeout_at_ms: int | None = None
    cancel_at_ms: int | None = None
    cancel_reason: str = ""
    gap_cancel: bool = False
    after_gap: bool = False
    reserved: Decimal = ZERO
    """The money that the account holds back for it."""
    reserved_at: Decimal = ZERO
    """The price at which it holds that money back."""

    @property
    def waits_for_trigger(self) -> bool:
        """It is a stop that has not been triggered."""
        return self.type in STOPS and self.status == "ACKNOWLEDGED"

    @property
    def is_final(self) -> bool:
        """Nothing can happen to it any more."""
        return self.status in FINAL_STATUSES

    def trigger_level(self) -> Decimal:
        """The price that triggers a stop; of a trailing stop, as far as it has moved."""
        if self.stop is not None:
            return self.stop
        best, distance = exact(self.best), self.trail_amount
        if distance is None:
            distance = multiply(best, multiply(self.trail_bps or ZERO, BASIS_POINT))
        return add(best, distance) if self.side == BUY else subtract(best, distance)

    def quiet_between(self) -> tuple[float, float]:
        """Prints between these two, exclusively, mean nothing to an order that rests or waits for its trigger."""
        if not self.waits_for_trigger:
            limit = float(self.limit or ZERO)
            return (limit, inf) if self.side == BUY else (0.0, limit)
        level = float(self.trigger_level())
        if self.stop is not None:
            return (0.0, level) if self.side == BUY else (level, inf)
        # The level of a trailing stop need not be a double; it also moves with every better price.
        return (self.best, nextafter(level, 0.0)) if self.side == BUY else (nextafter(level, inf), self.best)

    def move(self, status: OrderStatus) -> None:
        """Change the status. Raises RuntimeError where `TRANSITIONS` does not allow it: that is a bug."""
        if status not in TRANSITIONS[self.status]:
            raise RuntimeError(f"order {self.order_id} cannot go from {self.status} to {status}")
        self.status = status
        self.events += 1


def _is_positive(value: Decimal) -> bool:
    return value.is_finite() and value > ZERO


def working(request: OrderRequest, order_id: str, signal_id: str, reference: float) -> WorkingOrder:
    """The order that `request` becomes, not yet submitted."""
    return WorkingOrder(
        order_id, signal_id, request.symbol, request.side, request.type, request.qty, reference,
        request.limit, request.stop, request.trail_amount, request.trail_bps,
        request.time_in_force, request.expire_ts, request.post_only, request.reduce_only,
        request.take_profit, request.stop_loss, remaining=request.qty,
    )  # fmt: skip
