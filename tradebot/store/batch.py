"""A batch of events on its way into one transaction, sorted by table, order kept within each."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from tradebot.core.events import (
    Checkpoint,
    Event,
    Fill,
    Notice,
    Order,
    OrderChunk,
    OrderEvent,
    PersistItem,
    Signal,
    SignalChunk,
    Tick,
    TickChunk,
    TickOutcome,
    as_item,
)
from tradebot.core.outcome_ticks import OutcomeTicks


class StoredCounts(Struct, frozen=True):
    """Rows of one run that the database holds; the rows of each table are a prefix of what the run produces."""

    ticks: int = 0
    signals: int = 0
    orders: int = 0
    trades: int = 0
    notices: int = 0
    order_events: int = 0

    @property
    def rows(self) -> int:
        """All rows of the run."""
        return self.ticks + self.signals + self.orders + self.trades + self.notices + self.order_events

    def plus(self, batch: WriteBatch) -> StoredCounts:
        """The counts after `batch` is stored."""
        return StoredCounts(
            ticks=self.ticks + len(batch.ticks),
            signals=self.signals + len(batch.signals),
            orders=self.orders + len(batch.orders),
            trades=self.trades + len(batch.fills),
            notices=self.notices + len(batch.notices),
            order_events=self.order_events + len(batch.order_events),
        )


class WriteBatch:
    """Events taken from the persist channel and not yet stored.

    An order and its fills are one event, and so is a tick with its outcome.
    """

    __slots__ = (
        "_of_outcomes",
        "_unlike",
        "checkpoint",
        "fills",
        "notices",
        "order_events",
        "orders",
        "outcomes",
        "signals",
        "symbol",
        "ticks",
    )

    def __init__(self) -> None:
        self.ticks: list[Tick] = []
        self.signals: list[Signal] = []
        self.orders: list[Order] = []
        self.fills: list[Fill] = []
        self.order_events: list[OrderEvent] = []
        self.notices: list[Notice] = []
        self.outcomes: dict[int, TickOutcome] = {}
        """By the index in `ticks` of their tick; all that they hold is in the lists too."""
        self.checkpoint: Checkpoint | None = None
        """The newest one. It may be stored only when everything before it is."""
        self.symbol: str | None = None
        """Set while all ticks are known to be of this symbol, without `event_id`, `seq` and `taker`."""
        self._unlike = False
        self._of_outcomes = 0
        """Signals, orders and notices that came in outcomes."""

    def add(self, item: PersistItem) -> None:
        """Append an item of the persist channel."""
        if isinstance(item, TickChunk):
            self._note_symbol(item.symbol)
            if isinstance(item, OutcomeTicks):
                for outcome in item.outcomes:
                    self._add_outcome(outcome, len(self.ticks) + outcome.number - item.first_number)
            self.ticks.extend(item)
        elif isinstance(item, SignalChunk):
            self.signals.extend(item)
        elif isinstance(item, OrderChunk):
            self._add_orders(item)
        elif isinstance(item, TickOutcome):
            tick = item.tick
            alike = tick.event_id is None and tick.seq is None and tick.taker is None
            self._note_symbol(tick.symbol if alike else None)
            self._add_outcome(item, len(self.ticks))
            self.ticks.append(tick)
        elif isinstance(item, Notice):
            self.notices.append(item)
        else:
            self._add_checkpoint(item)

    def add_event(self, event: Event) -> None:
        """Append one event of any type."""
        self.add(as_item(event))

    def add_earlier(self, checkpoint: Checkpoint | None) -> None:
        """Take over a checkpoint that came before this batch and is not known to be stored."""
        if checkpoint is not None:
            later, self.checkpoint = self.checkpoint, checkpoint
            if later is not None:
                self._add_checkpoint(later)

    def _add_orders(self, orders: OrderChunk | tuple[Order, ...]) -> None:
        self.orders.extend(orders)
        self.fills += [fill for order in orders for fill in order.fills]

    def _add_outcome(self, outcome: TickOutcome, index: int) -> None:
        """Append what the tick at `index` of `ticks` caused."""
        self.outcomes[index] = outcome
        self.signals += outcome.signals
        if outcome.orders:
            self._add_orders(outcome.orders)
        self.order_events += outcome.order_events
        self.fills += outcome.fills
        self.notices += outcome.notices
        self._of_outcomes += len(outcome.signals) + len(outcome.orders) + len(outcome.notices)

    def _add_checkpoint(self, later: Checkpoint) -> None:
        """The newest one counts, and knows of what each symbol's newest says."""
        before = () if self.checkpoint is None else self.checkpoint.symbols
        symbols = {memory.symbol: memory for memory in (*before, *later.symbols)}
        self.checkpoint = replace(later, symbols=tuple(symbols.values()))

    def _note_symbol(self, symbol: str | None) -> None:
        if symbol is None or (self.ticks and symbol != self.symbol):
            self._unlike = True
        self.symbol = None if self._unlike else symbol

    @property
    def events(self) -> int:
        """Events as channels count them, but for checkpoints: an outcome is one, and fills ride with their order."""
        return len(self.ticks) + len(self.signals) + len(self.orders) + len(self.notices) - self._of_outcomes

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to store: no event and no checkpoint."""
        return not self.events and self.checkpoint is None

    @property
    def rows(self) -> int:
        """Rows it will make."""
        return self.events + self._of_outcomes + len(self.fills) + len(self.order_events)
