"""The section [paper]: the venue that PAPER simulates."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

OrderType = Literal["market", "limit"]
Queue = Literal["through", "trades", "front"]
OnGap = Literal["keep", "cancel"]


class PaperConfig(Struct, frozen=True):
    """The venue of PAPER, which is made of trade prints (`tradebot.execution.venue`). Times are event time.

    `latency_ms` passes before an order is active, `cancel_latency_ms` before it is canceled. Orders that take get at
    most the share `participation` of a print's volume and pay `slippage_bps` on top of the quote. `queue` says when a
    print at the very price of a resting order fills it: never ("through"), after an estimated queue ("trades"), at once
    ("front"). A market order lives for `market_timeout_ms`; `on_gap` says what missed trades do to open orders.
    """

    latency_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 100
    cancel_latency_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 100
    participation: Annotated[float, Meta(gt=0, le=1)] = 0.25
    slippage_bps: Annotated[float, Meta(ge=0, le=5000)] = 0.0
    queue: Queue = "through"
    market_timeout_ms: Annotated[int, Meta(ge=0, le=86_400_000)] = 5000
    on_gap: OnGap = "keep"
