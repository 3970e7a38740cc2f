"""How a print fills orders that rest at their limit: in which order, and how much of each at most. Pure."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from tradebot.core.events import BUY
from tradebot.execution.orders import WorkingOrder
from tradebot.execution.quote import Tape
from tradebot.portfolio.exact import ZERO, subtract

if TYPE_CHECKING:
    from tradebot.config.paper import Queue


def priority(order: WorkingOrder, price: Decimal) -> tuple[Decimal, bool, int]:
    """The better price first, which is the one that a print at `price` is further through; BUY before SELL; age."""
    limit = order.limit or price
    beyond = subtract(price, limit) if order.side == BUY else subtract(limit, price)
    return beyond, order.side != BUY, order.age


def reached(order: WorkingOrder, price: Decimal, left: Decimal, volume: Decimal, tape: Tape, model: Queue) -> Decimal:
    """How much of a print at `price` a resting order can get when `left` of its `volume` is not spent yet.

    All that is left by a print a whole step through its limit. By one of the other side at the very limit: nothing, or
    what passes the queue before it, or all that is left, as `model` says. `order.queue` moves on. At most 0: nothing.
    """
    limit = order.limit
    if limit is None:
        return ZERO
    beyond = subtract(limit, price) if order.side == BUY else subtract(price, limit)
    if beyond > ZERO:
        if beyond < tape.tick_size:
            return ZERO
        order.queue = None if order.queue is None else ZERO
        return left
    if beyond < ZERO or model == "through" or tape.side is None or tape.side == order.side:
        return ZERO
    if model == "front":
        return left
    queue = order.queue
    if queue is None:
        return ZERO
    order.queue = max(ZERO, subtract(queue, volume))
    return subtract(left, queue)
