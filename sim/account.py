"""What a live feed must make of the messages its connections brought: a plain account, one message after the other.

Written for clearness, not speed, and independent of tradebot.feeds.sequence and of the feed's states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from sim.network import Session
from tradebot.events import Tick
from tradebot.feeds.exchanges.base import Exchange, Unparseable

WINDOW: Final = 4096
"""How far below the highest number a trade is late rather than the sign of a numbering that began anew."""


class Link(NamedTuple):
    """The link came up, was lost, or was restored."""

    kind: str


class Gap(NamedTuple):
    """Trades of a symbol are missing; None: the numbering began anew."""

    symbol: str
    missing: int | None


class Duplicate(NamedTuple):
    """A trade that came before."""

    symbol: str


class Dropped(NamedTuple):
    """A trade from before the connection, which is not wanted."""

    symbol: str


class Malformed(NamedTuple):
    """A message that cannot be understood."""

    text: str


Item = Link | Gap | Duplicate | Dropped | Malformed | Tick


class Numbering:
    """All numbers of one symbol that were seen since its numbering began."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.highest = -1

    def take(self, symbol: str, seq: int) -> list[Gap | Duplicate]:
        """What is to be said before the trade; a Duplicate: instead of it."""
        if not self.seen:
            said: list[Gap | Duplicate] = []
        elif seq > self.highest:
            missing = seq - self.highest - 1
            said = [Gap(symbol, missing)] if missing else []
        elif seq < self.highest - WINDOW:
            self.seen.clear()
            said = [Gap(symbol, None)]
        else:
            said = [Duplicate(symbol)] if seq in self.seen else []
        self.highest = max(self.highest, seq) if self.seen else seq
        self.seen.add(seq)
        return said


class Account:
    """Everything that the sessions of one process mean, in order.

    `adapter` reads the messages, one object a connection. `known` are the ticks stored by earlier runs; `keep_history`:
    trades from before the connection count too.
    """

    def __init__(self, adapter: Callable[[], Exchange], known: Sequence[Tick], keep_history: bool) -> None:
        self._adapter = adapter
        self._keep_history = keep_history
        self._numberings: dict[str, Numbering] = {}
        self._ids: set[str | None] = set()
        for tick in known:
            self._judge(tick)

    def items(self, sessions: Sequence[Session]) -> Iterator[Item]:
        """One for each message that says something, and one for each change of the link."""
        for number, session in enumerate(sessions):
            yield Link("LINK_RESTORED" if number else "LINK_UP")
            adapter = self._adapter()
            for text in session.texts:
                yield from self._message(adapter, text)
            yield Link("LINK_LOST")

    def _message(self, adapter: Exchange, text: str) -> Iterator[Item]:
        try:
            parsed = adapter.parse(text)
        except Unparseable:
            yield Malformed(text)
            return
        if not self._keep_history:
            yield from [Dropped(tick.symbol) for tick in parsed.history]
        yield from self._trades(parsed.history if self._keep_history else [])
        yield from self._trades(parsed.ticks)

    def _trades(self, ticks: Sequence[Tick]) -> Iterator[Item]:
        """Where the numbers fall, the newest was sent first: what is missing was missing before all of them."""
        turned = _falling(ticks)
        judged = [(tick, self._judge(tick)) for tick in (reversed(ticks) if turned else ticks)]
        if turned:
            yield from [word for _tick, said in judged for word in said if isinstance(word, Gap)]
            judged.reverse()
        for tick, said in judged:
            yield from [word for word in said if not (turned and isinstance(word, Gap))]
            if not any(isinstance(word, Duplicate) for word in said):
                yield tick

    def _judge(self, tick: Tick) -> list[Gap | Duplicate]:
        if tick.seq is not None:
            return self._numberings.setdefault(tick.symbol, Numbering()).take(tick.symbol, tick.seq)
        if tick.event_id is None or tick.event_id not in self._ids:
            self._ids.add(tick.event_id)
            return []
        return [Duplicate(tick.symbol)]


def _falling(ticks: Sequence[Tick]) -> bool:
    """Whether each symbol's numbers fall, and some symbol has two."""
    numbers: dict[str, list[int]] = {}
    for tick in ticks:
        if tick.seq is not None:
            numbers.setdefault(tick.symbol, []).append(tick.seq)
    several = [seqs for seqs in numbers.values() if len(seqs) > 1]
    return bool(several) and all(seqs == sorted(set(seqs), reverse=True) for seqs in several)
