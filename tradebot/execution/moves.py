"""What goes between a venue and the desk that sends orders there: settings, fills, transitions. Pure."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal, Protocol

from msgspec import Struct

from tradebot.core.events import Liquidity, OrderStatus
from tradebot.execution.orders import WorkingOrder

QueueModel = Literal["through", "trades", "front"]
OnGap = Literal["keep", "cancel"]


class VenueSettings(Struct, frozen=True):
    """What is assumed of a venue; the section [paper] of the configuration.

    `latency_ms` passes before an order is active, `cancel_latency_ms` before it is canceled. Orders that take get at
    most `participation` (0 to 1) of a print's volume and pay `slippage_bps` on top of the quote. `queue` says when a
    print at the very price of a resting order fills it: never ("through"), after an estimated queue ("trades"), at once
    ("front"). A market order lives for `market_timeout_ms`; `on_gap` says what missed trades do to open orders.
    """

    latency_ms: int = 100
    cancel_latency_ms: int = 100
    participation: float = 0.25
    slippage_bps: float = 0.0
    queue: QueueModel = "through"
    market_timeout_ms: int = 5000
    on_gap: OnGap = "keep"


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
    """Who owns the account and the ids."""

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
