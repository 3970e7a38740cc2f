"""What goes between a venue and the desk that sends orders there: fills and transitions. Pure."""

from __future__ import annotations

from decimal import Decimal
from typing import Protocol

from msgspec import Struct

from tradebot.core.events import Liquidity, OrderStatus
from tradebot.execution.orders import WorkingOrder


class Execution(Struct, frozen=True, gc=False):
    """A fill as the venue gives it: exact, both are values of doubles."""

    qty: Decimal
    price: Decimal
    liquidity: Liquidity


class Settlement(Struct, frozen=True, gc=False):
    """How much of a fill was booked. With `cut`, a reason code, the rest of the order is to be canceled."""

    qty: Decimal
    cut: str | None = None


class Desk(Protocol):
    """The owner of the account and of the ids."""

    def new_order_id(self) -> str:
        """The id of an order that the venue creates at this tick."""
        ...

    def moved(self, order: WorkingOrder, status: OrderStatus, reason: str, execution: Execution | None = None) -> None:
        """Take note that `order` has changed to `status`, and of the fill that is the cause."""
        ...

    def lowered(self, order: WorkingOrder, qty: Decimal) -> None:
        """The rest of `order` is about to become smaller by `qty`, without a fill of its own."""
        ...

    def settle(self, order: WorkingOrder, execution: Execution) -> Settlement:
        """Book a fill before the next one is decided, or as much of it as money and position allow; FOK: all or 0."""
        ...
