"""What goes into the calculation and what comes out of it. Amounts are exact fractions; times are Unix milliseconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

SMALLEST_STEP = Fraction(1, 10**8)
"""The grid of prices and quantities where the instrument does not say."""

# Reason codes that something else depends on.
AMENDED = "AMENDED"
LIQUIDATED = "LIQUIDATED"
OCO = "OCO"

OrderId = tuple[int, int]
"""The number of the tick that made the order, and its place among that tick's orders, from 1."""


@dataclass(frozen=True)
class Print:
    """One trade of the market; `taker` is BUY, SELL or None where the exchange does not say."""

    symbol: str
    price: Fraction
    volume: Fraction
    ts: int
    taker: str | None = None


def a_print(symbol: str, price: str, volume: str, ts: int, taker: str | None = None) -> Print:
    """The print with price and volume as the exchange wrote them."""
    return Print(symbol, Fraction(price), Fraction(volume), ts, taker)


@dataclass(frozen=True)
class Instrument:
    """What is known of a symbol. None: the exchange's grid or minimum is unknown."""

    symbol: str
    quote: str = "USDT"
    tick_size: Fraction | None = None
    lot_size: Fraction | None = None
    min_qty: Fraction | None = None
    min_notional: Fraction | None = None
    maker_fee: Fraction = Fraction(1, 1000)
    taker_fee: Fraction = Fraction(1, 1000)
    contract_size: Fraction = Fraction(1)
    rate: Fraction | None = Fraction(1)
    """What one unit of the quote currency is worth in the account currency; None: unknown."""

    @property
    def unit(self) -> Fraction:
        """What quantity x price is multiplied by to be money of the account."""
        return self.contract_size * (self.rate or 1)

    def price_step(self, near: Fraction) -> Fraction:
        """The grid of prices: the tick size, else 1e-8, else what `near` itself is written in where that is finer."""
        return self.tick_size or min(SMALLEST_STEP, last_place(near))

    @property
    def qty_step(self) -> Fraction:
        """The grid of quantities."""
        return self.lot_size or SMALLEST_STEP


@dataclass(frozen=True)
class Settings:
    """The assumptions of a run."""

    latency_ms: int = 100
    cancel_latency_ms: int = 100
    participation: Fraction = Fraction(1, 4)
    slippage_bps: Fraction = Fraction(0)
    queue: str = "through"
    market_timeout_ms: int = 5000
    on_gap: str = "keep"
    initial_balance: Fraction = Fraction(10_000)
    allow_short: bool = False
    max_leverage: Fraction = Fraction(1)
    max_exposure: Fraction | None = None
    max_symbol_exposure: Fraction | None = None
    max_open_orders: int | None = None


@dataclass(frozen=True)
class Request:
    """An order as a strategy asks for it."""

    symbol: str
    side: str
    qty: Fraction
    type: str = "MARKET"
    limit: Fraction | None = None
    stop: Fraction | None = None
    trail_amount: Fraction | None = None
    trail_bps: Fraction | None = None
    time_in_force: str = "GTC"
    expire_ts: int | None = None
    post_only: bool = False
    reduce_only: bool = False
    take_profit: Fraction | None = None
    stop_loss: Fraction | None = None


@dataclass(frozen=True)
class Submit:
    """Send an order. `name` is chosen by the sender of the commands: the order's id is not known before."""

    name: int
    request: Request


@dataclass(frozen=True)
class Cancel:
    """Ask for the end of an order."""

    name: int


@dataclass(frozen=True)
class Amend:
    """Cancel and replace."""

    name: int
    new_name: int
    request: Request


Command = Submit | Cancel | Amend


@dataclass(frozen=True)
class OrderRow:
    """An order as it was sent or refused: quantity and prices are on the grid. `parent` is the entry of a bracket."""

    order: OrderId
    symbol: str
    side: str
    qty: Fraction
    type: str
    limit: Fraction | None
    stop: Fraction | None
    time_in_force: str
    expire_ts: int | None
    post_only: bool
    reduce_only: bool
    parent: OrderId | None
    status: str
    reason: str


@dataclass(frozen=True)
class Event:
    """One transition of an order: `n` from 1, `ts` in event time, `remaining` after it."""

    order: OrderId
    n: int
    status: str
    reason: str
    ts: int
    tick: int
    remaining: Fraction


@dataclass(frozen=True)
class Fill:
    """A fill, `number` counting those of the tick from 1."""

    tick: int
    number: int
    order: OrderId
    side: str
    qty: Fraction
    price: Fraction
    fee: Fraction
    liquidity: str
    slippage_bps: Fraction
    after_gap: bool


@dataclass
class Outcome:
    """Everything that a run came to."""

    events: list[Event] = field(default_factory=list)
    fills: list[Fill] = field(default_factory=list)
    orders: list[OrderRow] = field(default_factory=list)
    # Those of them that no command asked for: exits of brackets, closing orders of a liquidation.
    made_by_venue: set[OrderId] = field(default_factory=set)
    cash: Fraction = Fraction(0)
    positions: dict[str, Fraction] = field(default_factory=dict)
    equity: Fraction = Fraction(0)


def down_to(step: Fraction, amount: Fraction) -> Fraction:
    """The largest multiple of `step` that is not above `amount`."""
    return amount // step * step


def up_to(step: Fraction, amount: Fraction) -> Fraction:
    """The smallest multiple of `step` that is not below `amount`."""
    return -(-amount // step) * step


def as_recorded(amount: Fraction) -> Fraction:
    """The amount as a row of the database holds it: the shortest decimal of the nearest double."""
    return Fraction(repr(float(amount)))


def last_place(amount: Fraction) -> Fraction:
    """The value of the last decimal place in which the amount is written."""
    place = Fraction(1)
    while amount % place:
        place /= 10
    return place


def milliseconds(ts: int) -> int:
    """A time below 1e11 is in seconds (old data)."""
    return ts * 1000 if ts < 10**11 else ts
