"""Input for simulated engines: generated tick files and feeds that fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.world.slow_threads import InjectedCrash
from tradebot.feeds.base import Feed, FeedBatch
from tradebot.feeds.status import FeedStatus

if TYPE_CHECKING:
    from sim.world.world import World

_GARBAGE = ("", "{", "null", '{"symbol":"A","price":-1,"volume":1,"ts":1}', "\x00\x01", '{"price":1}')


def tick_lines(world: World, count: int) -> list[str]:
    """`count` lines: walks of one to three symbols on a coarse grid (many ties), with a few malformed ones between.

    In half of the files, the ticks have the side of the taker.
    """
    symbols = [f"SYM{n}/USD" for n in range(world.between(1, 3))]
    prices = {symbol: world.between(300, 3000) for symbol in symbols}
    # Nothing is drawn for the sides, so that a seed keeps its history.
    with_takers = sum(prices.values()) % 2 == 0
    lines = []
    ts = 1_700_000_000_000
    for _ in range(count):
        if world.chance(0.02):
            lines.append(_GARBAGE[world.between(0, len(_GARBAGE) - 1)])
            continue
        symbol = symbols[world.between(0, len(symbols) - 1)]
        prices[symbol] = max(1, prices[symbol] + world.between(-2, 2))
        ts += world.between(0, 300)
        price = prices[symbol]
        taker = f',"taker":"{"BUY" if price % 2 else "SELL"}"' if with_takers else ""
        lines.append(
            f'{{"symbol":"{symbol}","price":{price // 10}.{price % 10},"volume":{world.between(0, 50)},"ts":{ts}'
            f"{taker}}}"
        )
    return lines


class ForwardingFeed:
    """Delegates everything to another feed; subclasses add to it."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    @property
    def push(self) -> bool:
        """The other feed's."""
        return self._feed.push

    @property
    def total(self) -> int | None:
        """The other feed's."""
        return self._feed.total

    @property
    def position(self) -> int:
        """The other feed's."""
        return self._feed.position

    def read(self) -> FeedBatch | None:
        """The other feed's next batch."""
        return self._feed.read()

    def status(self) -> FeedStatus:
        """The other feed's."""
        return self._feed.status()

    def close(self) -> None:
        """Close the other feed."""
        self._feed.close()


class CrashingFeed(ForwardingFeed):
    """Crashes at the n-th read."""

    def __init__(self, feed: Feed, crash_at_read: int) -> None:
        super().__init__(feed)
        self._reads_left = crash_at_read

    def read(self) -> FeedBatch | None:
        """The other feed's next batch. Raises InjectedCrash at the n-th call."""
        self._reads_left -= 1
        if self._reads_left <= 0:
            raise InjectedCrash("the feed crashed by the scenario")
        return self._feed.read()


class FeedWithoutPosition(ForwardingFeed):
    """Crashes when its position is read for the n-th time."""

    def __init__(self, feed: Feed, crash_at_look: int) -> None:
        super().__init__(feed)
        self._looks_left = crash_at_look

    @property
    def position(self) -> int:
        """The other feed's. Raises InjectedCrash at the n-th call."""
        self._looks_left -= 1
        if self._looks_left == 0:
            raise InjectedCrash("the feed's position crashed by the scenario")
        return self._feed.position
