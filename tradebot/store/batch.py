"""A batch of events on its way into one transaction, sorted by table, order kept within each."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from tradebot.core.events import (
    Checkpoint,
    Event,
    Notice,
    Order,
    OrderChunk,
    PersistItem,
    Signal,
    SignalChunk,
    Tick,
    TickChunk,
    as_item,
)


class StoredCounts(Struct, frozen=True):
    """Rows of one run that the database holds; the rows of each table are a prefix of what the run produces."""

    ticks: int = 0
    signals: int = 0
    orders: int = 0
    trades: int = 0
    notices: int = 0

    @property
    def rows(self) -> int:
        """All rows of the run."""
        return self.ticks + self.signals + self.orders + self.trades + self.notices

    def plus(self, batch: WriteBatch) -> StoredCounts:
        """The counts after `batch` is stored."""
        return StoredCounts(
            ticks=self.ticks + len(batch.ticks),
            signals=self.signals + len(batch.signals),
            orders=self.orders + len(batch.orders),
            trades=self.trades + batch.trades,
            notices=self.notices + len(batch.notices),
        )


class WriteBatch:
    """Events taken from the persist channel and not yet stored. An order and its fills are one event."""

    __slots__ = ("_unlike", "checkpoint", "notices", "orders", "signals", "symbol", "ticks", "trades")

    def __init__(self) -> None:
        self.ticks: list[Tick] = []
        self.signals: list[Signal] = []
        self.orders: list[Order] = []
        self.notices: list[Notice] = []
        self.checkpoint: Checkpoint | None = None
        """The newest one. It may be stored only when everything before it is."""
        self.trades = 0
        self.symbol: str | None = None
        """Set while all ticks are known to be of this symbol, without `event_id`, `seq` and `taker`."""
        self._unlike = False

    def add(self, item: PersistItem) -> None:
        """Append an item of the persist channel."""
        if isinstance(item, TickChunk):
            self._note_symbol(item.symbol)
            self.ticks.extend(item)
        elif isinstance(item, SignalChunk):
            self.signals.extend(item)
        elif isinstance(item, OrderChunk):
            self.orders.extend(item)
            self.trades += sum([len(order.fills) for order in item])
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
        """Events as channels count them, but for checkpoints: fills ride with their order."""
        return len(self.ticks) + len(self.signals) + len(self.orders) + len(self.notices)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to store: no event and no checkpoint."""
        return not self.events and self.checkpoint is None

    @property
    def rows(self) -> int:
        """Rows it will make."""
        return self.events + self.trades
