"""The two orders that protect a fill: a take-profit and a stop-loss, of which one ends the other. Pure."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from tradebot.core.events import BUY, SELL, OrderType, Side
from tradebot.execution.orders import WorkingOrder
from tradebot.execution.prices import limit_price, price_step, stop_price


def children_of(
    entry: WorkingOrder, qty: Decimal, tick_size: Decimal | None, new_order_id: Callable[[], str]
) -> list[WorkingOrder]:
    """The orders that protect a fill of `qty` of `entry`, the take-profit first; none where it asks for none.

    They cite the signal of the entry, only reduce the position, and are compared with their own price when they fill.
    """
    children: list[WorkingOrder] = []
    side: Side = SELL if entry.side == BUY else BUY
    profit, loss = entry.take_profit, entry.stop_loss
    if profit is not None:
        limit = limit_price(side, profit, price_step(profit, tick_size))
        children.append(_child(entry, new_order_id(), side, "LIMIT", qty, limit))
        children[0].limit = limit
    if loss is not None:
        stop = stop_price(side, loss, price_step(loss, tick_size))
        children.append(_child(entry, new_order_id(), side, "STOP", qty, stop))
        children[-1].stop = stop
    if len(children) == 2:
        children[0].sibling_id, children[1].sibling_id = children[1].order_id, children[0].order_id
    return children


def _child(
    entry: WorkingOrder, order_id: str, side: Side, kind: OrderType, qty: Decimal, price: Decimal
) -> WorkingOrder:
    return WorkingOrder(
        order_id, entry.signal_id, entry.symbol, side, kind, qty, float(price),
        reduce_only=True, parent_id=entry.order_id, remaining=qty,
    )  # fmt: skip
