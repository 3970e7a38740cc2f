"""The values that travel through the pipeline. Immutable, without behaviour beyond construction.

`ts` is Unix milliseconds UTC, stored exactly as it came; only `as_unix_ms` reads small values as seconds (old data).
Side, status and reason are plain text constants: they are stored as they are, and the SQLite driver binds exact
`str` objects several times faster than enum members.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct as Layout
from typing import Annotated, Final, Literal, Self
from zlib import crc32

from msgspec import Meta, Struct

from tradebot.core.chunk import Chunk

Side = Literal["BUY", "SELL"]
BUY: Final = "BUY"
SELL: Final = "SELL"

Liquidity = Literal["MAKER", "TAKER"]

OrderStatus = Literal[
    "SUBMITTED", "ACKNOWLEDGED", "TRIGGERED", "PARTIAL_FILL", "FILLED", "CANCELED", "EXPIRED", "REJECTED"
]
FINAL_STATUSES: Final[frozenset[OrderStatus]] = frozenset({"FILLED", "CANCELED", "EXPIRED", "REJECTED"})
OrderType = Literal["MARKET", "LIMIT", "STOP", "STOP_LIMIT", "TRAILING_STOP"]
TimeInForce = Literal["GTC", "IOC", "FOK", "GTD"]

# Reason codes: of signals, of refused orders, of transitions. Those of the original system keep its names.
PERIODIC_TRIGGER: Final = "PERIODIC_TRIGGER"
SMA_CROSSOVER: Final = "SMA_CROSSOVER"
THRESHOLD_CROSSED: Final = "THRESHOLD_CROSSED"
RISK_CAP: Final = "RISK_CAP"
STALE_DATA: Final = "STALE_DATA"
SHADOW_RECORDED: Final = "SHADOW_RECORDED"
BP_DROP_SIGNAL: Final = "BP_DROP_SIGNAL"
NO_RATE: Final = "NO_RATE"
NO_BALANCE: Final = "NO_BALANCE"
MIN_QTY: Final = "MIN_QTY"
MIN_NOTIONAL: Final = "MIN_NOTIONAL"
NO_INSTRUMENT: Final = "NO_INSTRUMENT"
NEEDS_PAPER: Final = "NEEDS_PAPER"
HALTED: Final = "HALTED"
LIQUIDATED: Final = "LIQUIDATED"
MAX_DRAWDOWN: Final = "MAX_DRAWDOWN"
DAILY_LOSS: Final = "DAILY_LOSS"
LOSSES_IN_A_ROW: Final = "LOSSES_IN_A_ROW"
REFUSALS_PER_MINUTE: Final = "REFUSALS_PER_MINUTE"
ORDERS_PER_MINUTE: Final = "ORDERS_PER_MINUTE"
STALE_MARKET: Final = "STALE_MARKET"
POST_ONLY: Final = "POST_ONLY"
NO_LIQUIDITY: Final = "NO_LIQUIDITY"
CANCEL_REQUESTED: Final = "CANCEL_REQUESTED"
OCO: Final = "OCO"
GAP: Final = "GAP"
EXPIRED: Final = "EXPIRED"
IOC: Final = "IOC"
FOK: Final = "FOK"
REDUCE_ONLY: Final = "REDUCE_ONLY"
AMENDED: Final = "AMENDED"
UNKNOWN_ORDER: Final = "UNKNOWN_ORDER"

MAX_SYMBOL_CHARS: Final = 64
MAX_ID_CHARS: Final = 128
INT64_MAX: Final = 2**63 - 1
SEQ_MAX: Final = INT64_MAX
TS_MS_MAX: Final = 4_102_444_800_000
"""2100-01-01 in Unix milliseconds: a larger time is in another unit, or wrong."""
AMOUNT_MAX: Final = 1e100
"""The largest price or volume: products of three of them, and sums of those, are finite."""

SECONDS_BELOW: Final = 100_000_000_000
"""Smaller times are seconds of old data; see `as_unix_ms`."""


def as_unix_ms(ts: int) -> int:
    """`ts` as Unix milliseconds for comparison with the clock: values below 1e11 are seconds of old data."""
    return ts * 1000 if ts < SECONDS_BELOW else ts


class Tick(Struct, frozen=True, gc=False):
    """One trade print of a market: also the JSON form of replay lines and of mockws frames.

    price > 0 and volume >= 0 are finite; `event_id` and `seq` (the sender's own numbering, +1 per symbol) are optional.
    `taker` is the side of the trade's taker, who crossed the spread: BUY or SELL, None if the sender does not say.
    """

    symbol: Annotated[str, Meta(min_length=1, max_length=MAX_SYMBOL_CHARS)]
    price: Annotated[float, Meta(gt=0, le=AMOUNT_MAX)]
    volume: Annotated[float, Meta(ge=0, le=AMOUNT_MAX)]
    ts: Annotated[int, Meta(ge=0, le=TS_MS_MAX)]
    event_id: Annotated[str, Meta(min_length=1, max_length=MAX_ID_CHARS)] | None = None
    seq: Annotated[int, Meta(ge=0, le=SEQ_MAX)] | None = None
    taker: Side | None = None


class StoredTick(Tick, frozen=True, gc=False):
    """A tick that is stored already: earlier versions accepted any finite price and volume and any time."""

    symbol: Annotated[str, Meta(min_length=1, max_length=MAX_SYMBOL_CHARS)]
    price: Annotated[float, Meta(gt=0)]
    volume: Annotated[float, Meta(ge=0)]
    ts: Annotated[int, Meta(ge=0, le=INT64_MAX)]
    event_id: Annotated[str, Meta(min_length=1, max_length=MAX_ID_CHARS)] | None = None
    seq: Annotated[int, Meta(ge=0, le=SEQ_MAX)] | None = None
    taker: Side | None = None

    def as_tick(self) -> Tick:
        """The same as a `Tick`."""
        return Tick(self.symbol, self.price, self.volume, self.ts, self.event_id, self.seq, self.taker)


class TickChunk(Chunk[Tick]):
    """Consecutive ticks.

    With a `symbol` they are known to be alike: all of that symbol, none with an `event_id`, a `seq` or a `taker`. That
    spares the stages from looking at each tick again to find out what the feed already knew. None is always right too.
    """

    __slots__ = ("symbol",)

    def __init__(self, ticks: Iterable[Tick], symbol: str | None = None) -> None:
        super().__init__(ticks)
        self.symbol = symbol

    def part(self, begin: int, end: int | None = None) -> Self:
        """As of every chunk; what is known of all ticks is known of some."""
        return type(self)(self[begin:end], self.symbol)


_content: Final = Layout("<qdd").pack


def content_digest(tick: Tick) -> int:
    """A small number (32 bits) that stands for a trade's time, price and volume: the same in every process."""
    return crc32(_content(tick.ts, tick.price, tick.volume + 0.0))  # + 0.0: -0.0 equals 0.0


class SequenceState(Struct, frozen=True):
    """What a feed remembers of one symbol's numbering, so that a restart can go on from it.

    `highest` and `lowest` seq (None: no trade had one); `missing`: ranges between them that have not come, ascending,
    ends exclusive; `newest_ts`: the time of the newest trade with a seq. `contents` are (seq, `content_digest`) and
    `ids` (event_id, `content_digest`) of the newest trades, oldest first. `restarted`: the numbering has restarted, and
    that was reported. All of it is bounded by the feed.
    """

    highest: int | None = None
    lowest: int | None = None
    missing: tuple[tuple[int, int], ...] = ()
    newest_ts: int = 0
    contents: tuple[tuple[int, int], ...] = ()
    ids: tuple[tuple[str, int], ...] = ()
    restarted: bool = False


FeedNoticeKind = Literal[
    "LINK_UP", "LINK_LOST", "LINK_RESTORED", "GAP", "PRICE_BAND", "SPILL_ORPHANED",
    "SYMBOL_REFUSED", "SYMBOL_SILENT", "EXCHANGE_NOTICE",
]  # fmt: skip
OperatorNoticeKind = Literal["HALT", "RESUME"]
BreakerNoticeKind = Literal["BREAKER_TRIPPED", "BREAKER_RELEASED"]
NoticeKind = FeedNoticeKind | OperatorNoticeKind | BreakerNoticeKind | Literal["RESTART"]
NoticeOrigin = Literal["INPUT", "DERIVED", "STORAGE"]
_DERIVED: Final[frozenset[NoticeKind]] = frozenset({"BREAKER_TRIPPED", "BREAKER_RELEASED"})


def origin_of(kind: NoticeKind) -> NoticeOrigin:
    """Where notices of a kind come from.

    INPUT: from outside, as ticks do; a replay of the run must repeat them. DERIVED: from ticks and notices before it;
    a replay computes them again. STORAGE: about the database of that one process; a replay has nothing to do with them.
    """
    if kind == "SPILL_ORPHANED":
        return "STORAGE"
    return "DERIVED" if kind in _DERIVED else "INPUT"


class Notice(Struct, frozen=True, gc=False):
    """Something other than a tick, at its place between two ticks: an event of a live feed (its link, missing trades,
    refused prices, symbols that the exchange refuses or that have become silent, announcements of the exchange), a halt
    or its end, a restart, or a change of a breaker.

    It travels in-band, so that strategy, log and database see it in its place. `ts` is when it was noticed,
    for HALT and RESUME when the command was given (the local clock, Unix ms), and event time for BREAKER_*; `symbol`
    belongs to a GAP, a PRICE_BAND and a SYMBOL_*, `missing` (trades) to a GAP; `ticks_before` counts the run's accepted
    ticks before it.
    """

    kind: NoticeKind
    ts: int
    detail: str
    symbol: str | None = None
    missing: int | None = None
    ticks_before: int = 0


class Signal(Struct, frozen=True, gc=False):
    """What the strategy decided from one tick; `price` and `ts` are that tick's.

    `marks` are the last prices of other symbols that changed since the previous signal: they travel in-band so that
    execution values exposure as of this tick whatever the timing of the threads. `halted`: the tick came after a HALT
    and before its end. Neither is stored.
    """

    event_id: str
    symbol: str
    side: Side
    confidence: float
    reason: str
    desired_size: float
    price: float
    ts: int
    marks: tuple[tuple[str, float], ...] = ()
    halted: bool = False


class Fill(Struct, frozen=True, gc=False):
    """One execution of (a part of) an order; stored in the table `trades`. All fills are simulated.

    The last four are None in SHADOW. `tick` is the number, in the run, of the tick that allowed the fill.
    `slippage_bps` compares with the price of the signal, positive where the fill is worse. `after_gap` is 1 when the
    order was open while trades were missed, else 0.
    """

    event_id: str
    order_id: str
    symbol: str
    side: Side
    fill_qty: float
    fill_price: float
    fees: float
    ts: int
    is_shadow: int = 1
    liquidity: Liquidity | None = None
    tick: int | None = None
    slippage_bps: float | None = None
    after_gap: int | None = None


class LimitBreach(Struct, frozen=True, gc=False):
    """Why an order was refused, in numbers: `value` is past `limit`, which the configuration key `limit_key` sets.

    Above it, but for the smallest sizes of an instrument, which `value` is below.
    """

    limit_key: str
    value: float
    limit: float


class Order(Struct, frozen=True, gc=False):
    """An order as it is stored, together with its fills: one event, so that no transaction can part them.

    `breach` is there when the order was refused because of a limit. The fields after it are None in SHADOW. In PAPER
    `price` is the limit price (None for a market order), `status` is SUBMITTED or REJECTED, as at submission, and the
    fills come by themselves, in a `TickOutcome`. `expire_ts` is in event time (Unix ms); `post_only` and `reduce_only`
    are 1 or 0; `parent_id` is the order whose entry a take-profit or stop-loss closes.
    """

    event_id: str
    signal_id: str
    symbol: str
    side: Side
    qty: float
    price: float | None
    status: OrderStatus
    reason: str
    ts: int
    is_shadow: int = 1
    fills: tuple[Fill, ...] = ()
    breach: LimitBreach | None = None
    order_type: OrderType | None = None
    limit_price: float | None = None
    stop_price: float | None = None
    time_in_force: TimeInForce | None = None
    expire_ts: int | None = None
    post_only: int | None = None
    reduce_only: int | None = None
    parent_id: str | None = None


class OrderEvent(Struct, frozen=True, gc=False):
    """A transition of an order's status; `n` counts those of an order from 1.

    `ts` is event time (Unix ms), `tick` the number in the run of the tick that caused it, `remaining` the quantity that
    is not filled after it.
    """

    order_id: str
    n: int
    status: OrderStatus
    reason: str
    ts: int
    tick: int
    remaining: float


class TickOutcome(Struct, frozen=True, gc=False):
    """A tick with all that it caused: one event, so that a transaction holds whole ticks.

    `number` is the tick's in the run, from 1. Each of the others is in the order in which it arose.
    """

    tick: Tick
    number: int
    signals: tuple[Signal, ...] = ()
    orders: tuple[Order, ...] = ()
    order_events: tuple[OrderEvent, ...] = ()
    fills: tuple[Fill, ...] = ()
    notices: tuple[Notice, ...] = ()


class SymbolMemory(Struct, frozen=True, gc=False):
    """What a feed remembers of one symbol: the sender's numbers, and recent prices as received."""

    symbol: str
    sequence: SequenceState
    prints: tuple[float, ...] = ()


class Checkpoint(Struct, frozen=True, gc=False):
    """What a restart of a push feed will continue from, as of the run's first `ticks_before` accepted ticks.

    It travels in-band, from ingest to the writer, which stores it in the transaction of the ticks before it or later,
    never earlier. It may be left out: a restart then reads more ticks, with the same result. `symbols` are those that
    the feed learned of since the checkpoint before. `prices` is how many last prices of a symbol the strategy needs.

    `state` is what the strategy stage adds: its state after those ticks, and after the first `inputs` notices of origin
    INPUT between the last of them and the next tick. None where it keeps no state.
    """

    ticks_before: int
    symbols: tuple[SymbolMemory, ...] = ()
    prices: int = 0
    state: bytes | None = None
    inputs: int = 0


class SignalChunk(Chunk[Signal]):
    """Consecutive signals."""

    __slots__ = ()


class OrderChunk(Chunk[Order]):
    """Consecutive orders with their fills."""

    __slots__ = ()


class OutcomeChunk(Chunk[TickOutcome]):
    """Outcomes of ticks, oldest first."""

    __slots__ = ()


StoredEvent = Tick | Notice | Signal | Order | TickOutcome
"""The events that are stored as rows."""

Event = StoredEvent | Checkpoint
"""What the persist channel carries, one by one or in chunks."""

FeedItem = TickChunk | Notice
"""What a feed's ticks and notices are when they enter the tick channel."""
TickItem = FeedItem | Checkpoint
"""An item of the tick channel."""
PersistItem = TickItem | SignalChunk | OrderChunk | TickOutcome
"""An item of the persist channel."""


def as_item(event: Event) -> PersistItem:
    """One event as an item of the persist channel."""
    if isinstance(event, Tick):
        return TickChunk((event,))
    if isinstance(event, Signal):
        return SignalChunk((event,))
    if isinstance(event, Order):
        return OrderChunk((event,))
    return event
