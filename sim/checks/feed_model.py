"""A model of a live feed: the expected ticks and notices for the messages of its connections.

Written for clarity, not speed, and independent of tradebot.feeds.sequence_tracker and of the feed's states.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from sim.world.network import Session
from tradebot.core.events import Tick
from tradebot.feeds.exchanges.base import Exchange, Unparseable

WINDOW: Final = 4096
"""How far below the highest number a trade counts as late; further below, the numbering has restarted."""

SETTLED: Final = 16
"""How far a restarted numbering must advance before another restart is reported."""


CALM: Final = 16
"""How many consecutive accepted prices end an episode of refused ones."""


class LinkItem(NamedTuple):
    """The link came up, was lost, or was restored."""

    kind: str


class GapItem(NamedTuple):
    """Trades of a symbol are missing; None: the numbering restarted."""

    symbol: str
    missing: int | None


class DuplicateItem(NamedTuple):
    """A trade received before."""

    symbol: str


class DroppedItem(NamedTuple):
    """A trade older than the connection, dropped by configuration."""

    symbol: str


class OutOfBandItem(NamedTuple):
    """A trade whose price is too far from recent prices."""

    symbol: str


class BandItem(NamedTuple):
    """The first such trade of an episode, or the price level changed."""

    symbol: str


class MalformedItem(NamedTuple):
    """A malformed message."""

    text: str


Item = LinkItem | GapItem | DuplicateItem | DroppedItem | OutOfBandItem | BandItem | MalformedItem | Tick


class NumberingModel:
    """All numbered trades of one symbol since the last restart of the numbering."""

    def __init__(self) -> None:
        self.seen: dict[int, tuple[int, float, float]] = {}
        self.highest = self._lowest = -1
        self._reported = False

    def take(self, tick: Tick, seq: int) -> list[GapItem | DuplicateItem]:
        """What is to be said before the trade; a Duplicate: instead of it."""
        symbol, content, highest = tick.symbol, _content(tick), self.highest
        said: list[GapItem | DuplicateItem] = []
        if self.seen and (seq < highest - WINDOW or self.seen.get(seq, content) != content):
            # A restart; a sender with one number for all trades causes one with each trade.
            if not self._reported or highest - self._lowest >= SETTLED:
                said = [GapItem(symbol, None)]
            self._reported = True
            self.seen.clear()
        elif seq in self.seen:
            return [DuplicateItem(symbol)]
        elif self.seen and seq > highest + 1:
            said = [GapItem(symbol, seq - highest - 1)]
        self.highest = max(highest, seq) if self.seen else seq
        self._lowest = min(self._lowest, seq) if self.seen else seq
        self.seen[seq] = content
        return said


class EventIdModel:
    """All trades of one symbol with an event id and without a number."""

    def __init__(self) -> None:
        self._seen: dict[str, set[tuple[int, float, float]]] = {}
        self._new_since_restart: int | None = None

    def take(self, tick: Tick, event_id: str) -> list[GapItem | DuplicateItem]:
        """See `NumberingModel.take`."""
        known, content = self._seen.setdefault(event_id, set()), _content(tick)
        if content in known:
            return [DuplicateItem(tick.symbol)]
        said: list[GapItem | DuplicateItem] = []
        if known:
            if self._new_since_restart is None or self._new_since_restart >= SETTLED:
                said = [GapItem(tick.symbol, None)]
            self._new_since_restart = 0
        elif self._new_since_restart is not None:
            self._new_since_restart += 1
        known.add(content)
        return said


class PriceBandModel:
    """The price band of one symbol: a price far from the median of the last 15 is refused until three in a row
    agree.
    """

    def __init__(self, max_jump: float) -> None:
        self.accepted: list[float] = []
        self._max_jump = max_jump
        self._row: list[float] = []
        self._calm_since_refusal = CALM

    def begin_process(self) -> None:
        """Keep only the accepted prices over a restart."""
        self._row = []
        self._calm_since_refusal = CALM

    def take(self, tick: Tick) -> list[BandItem | OutOfBandItem]:
        """What is to be said before the trade; an OutOfBandItem: instead of it."""
        price, symbol = tick.price, tick.symbol
        recent = sorted(self.accepted[-15:])
        if not recent or self._near([price, recent[len(recent) // 2]]):
            self._accept(price)
            return []
        self._row.append(price)
        if len(self._row) >= 3 and self._near(self._row[-3:]):
            self.accepted = self._row[-3:-1]
            self._accept(price)
            return [BandItem(symbol)]
        said: list[BandItem | OutOfBandItem] = [BandItem(symbol)] if self._calm_since_refusal >= CALM else []
        self._calm_since_refusal = 0
        return [*said, OutOfBandItem(symbol)]

    def _accept(self, price: float) -> None:
        self.accepted.append(price)
        self._row = []
        self._calm_since_refusal += 1

    def _near(self, prices: list[float]) -> bool:
        return max(prices) <= min(prices) * self._max_jump


def _content(tick: Tick) -> tuple[int, float, float]:
    return tick.ts, tick.price, tick.volume


class FeedModel:
    """The expected items for the sessions of one process, in order.

    `adapter` reads the messages, one object a connection. `known` are the ticks stored by earlier runs; with
    `keep_history`, trades older than the connection count too. `max_jump` limits the jump of a price; infinite accepts
    every price.
    """

    def __init__(
        self,
        adapter: Callable[[], Exchange],
        known: Sequence[Tick],
        keep_history: bool,
        max_jump: float = math.inf,
    ) -> None:
        self._adapter = adapter
        self._max_jump = max_jump
        self._bands: dict[str, PriceBandModel] = {}
        self._keep_history = keep_history
        self._numberings: dict[str, NumberingModel] = {}
        self._ids: dict[str, EventIdModel] = {}
        self.remember(known)

    def items(self, sessions: Sequence[Session]) -> Iterator[Item]:
        """The items of all messages and link changes."""
        for items in self.messages(sessions):
            yield from items

    def messages(self, sessions: Sequence[Session]) -> Iterator[list[Item]]:
        """The items of each message and of each link change; messages are parsed lazily."""
        for number, session in enumerate(sessions):
            yield [LinkItem("LINK_RESTORED" if number else "LINK_UP")]
            adapter = self._adapter()
            for text in session.texts:
                yield list(self._message(adapter, text))
            yield [LinkItem("LINK_LOST")]

    def begin_process(self) -> None:
        """Continue as the next process, which knows only carried-over state."""
        for band in self._bands.values():
            band.begin_process()

    def remember(self, ticks: Sequence[Tick]) -> None:
        """Add stored ticks to the known ones."""
        for tick in ticks:
            self._judge(tick)
            self._band(tick.symbol).accepted.append(tick.price)

    def _message(self, adapter: Exchange, text: str) -> Iterator[Item]:
        try:
            parsed = adapter.parse(text)
        except Unparseable:
            yield MalformedItem(text)
            return
        if not self._keep_history:
            yield from [DroppedItem(tick.symbol) for tick in parsed.history]
        for item in (*self._trades(parsed.history if self._keep_history else []), *self._trades(parsed.ticks)):
            said = self._band(item.symbol).take(item) if isinstance(item, Tick) else []
            yield from said
            if not any(isinstance(word, OutOfBandItem) for word in said):
                yield item

    def _trades(self, ticks: Sequence[Tick]) -> Iterator[Item]:
        """Decide in the order of the numbers (falling numbers: newest sent first), then sort by time.

        A gap precedes the first trade of its symbol after the missing ones.
        """
        turned = _falling(ticks) and not self._is_next(ticks[0])
        decided = [(tick, self._judge(tick)) for tick in (reversed(ticks) if turned else ticks)]
        yield from [word for _tick, said in decided for word in said if isinstance(word, DuplicateItem)]
        new = [(tick, said) for tick, said in decided if not any(isinstance(word, DuplicateItem) for word in said)]
        gaps: list[tuple[GapItem, list[int]]] = []
        for number, (first, said) in enumerate(new):
            behind = [id(tick) for tick, _said in new[number:] if _behind(first, tick)]
            gaps += [(word, behind) for word in said if isinstance(word, GapItem)]
        sent = [tick for tick, _said in new]
        for tick in oldest_first(sent[::-1] if turned else sent):
            yield from [gap for gap, behind in gaps if id(tick) in behind]
            gaps = [(gap, behind) for gap, behind in gaps if id(tick) not in behind]
            yield tick

    def _band(self, symbol: str) -> PriceBandModel:
        return self._bands.setdefault(symbol, PriceBandModel(self._max_jump))

    def _is_next(self, tick: Tick) -> bool:
        known = self._numberings.get(tick.symbol)
        return known is not None and bool(known.seen) and tick.seq == known.highest + 1

    def _judge(self, tick: Tick) -> list[GapItem | DuplicateItem]:
        if tick.seq is not None:
            return self._numberings.setdefault(tick.symbol, NumberingModel()).take(tick, tick.seq)
        if tick.event_id is not None:
            return self._ids.setdefault(tick.symbol, EventIdModel()).take(tick, tick.event_id)
        return []


def _behind(first: Tick, tick: Tick) -> bool:
    return tick.symbol == first.symbol and (tick.seq is None or first.seq is None or tick.seq >= first.seq)


def oldest_first(ticks: Sequence[Tick]) -> list[Tick]:
    """Sort each symbol's ticks by time within the positions of that symbol; the sort is stable."""
    by_symbol = {
        symbol: sorted([one for one in ticks if one.symbol == symbol], key=lambda one: one.ts)
        for symbol in {tick.symbol for tick in ticks}
    }
    return [by_symbol[tick.symbol].pop(0) for tick in ticks]


def _falling(ticks: Sequence[Tick]) -> bool:
    """Whether each symbol's numbers fall, and some symbol has two."""
    numbers: dict[str, list[int]] = {}
    for tick in ticks:
        if tick.seq is not None:
            numbers.setdefault(tick.symbol, []).append(tick.seq)
    several = [seqs for seqs in numbers.values() if len(seqs) > 1]
    return bool(several) and all(seqs == sorted(set(seqs), reverse=True) for seqs in several)
