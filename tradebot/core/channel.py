"""A bounded queue between two stages: counts events whatever the batching, knows its name, depth and high-water mark.

Items are chunks (lists of events) and single events, which count as one. The bound is in events and binds exactly: a
chunk that does not fit whole is split. Order is kept. Closing is in-band: what was put before `close` is still taken.
Chunks are handed on as they are, not copied: who has put one must not change it.
"""

from __future__ import annotations

import queue
from collections import deque
from typing import Any, Generic, TypeVar

from tradebot.core.chunk import Chunk
from tradebot.core.runtime import Runtime

Item = TypeVar("Item")
_CHUNKS = (list, tuple)


def event_count(item: object) -> int:
    """How many events an item of a channel stands for."""
    return len(item) if isinstance(item, _CHUNKS) else 1


class ChannelClosed(Exception):
    """Nothing is left and nothing will come: the consumer is done."""


class ConsumerGone(Exception):
    """Nobody will take what is put here: the consumer died, or the engine gave up draining. The producer must stop."""


class Channel(queue.Queue[Item], Generic[Item]):
    """`queue.Queue` whose size counts events, with waits that go through the seam.

    `producers` threads and one consumer. `name` is for logs. `maxsize` >= 1, in events.
    """

    queue: deque[Item]

    def __init__(self, runtime: Runtime, name: str, maxsize: int, producers: int = 1) -> None:
        if maxsize < 1:
            raise ValueError(f"channel {name}: size {maxsize} is not at least 1")
        super().__init__(maxsize)
        self.name = name
        self._runtime = runtime
        # The same lock and conditions as queue.Queue's own, made by the seam so that waits can be simulated.
        mutex = runtime.lock()
        self.mutex = mutex  # type: ignore[assignment]
        self.not_empty = runtime.condition(mutex)  # type: ignore[assignment]
        self.not_full = runtime.condition(mutex)  # type: ignore[assignment]
        self.all_tasks_done = runtime.condition(mutex)  # type: ignore[assignment]
        self._producers = producers
        self._gone = False
        self._wanted = 1
        self.high_water = 0
        self.refused = 0
        self.entered = 0
        """Events ever put."""
        self.passed = 0
        """Events ever taken."""
        self.awaited = False
        """Whether the consumer is waiting for events: then it has none in its hands. Any thread may read."""

    # queue.Queue's hooks: what makes its size and bound count events.
    def _init(self, maxsize: int) -> None:
        self.queue = deque()
        self._events = 0

    def _qsize(self) -> int:
        return self._events

    def put(self, item: Item, block: bool = True, timeout: float | None = None) -> None:
        """Not for use: it would bound chunks, not events. Raises TypeError; use `send` or `offer`."""
        raise TypeError(f"channel {self.name}: use send or offer")

    def get(self, block: bool = True, timeout: float | None = None) -> Item:
        """Not for use: its timeouts would go round the seam. Raises TypeError; use `take`."""
        raise TypeError(f"channel {self.name}: use take")

    @property
    def depth(self) -> int:
        """Events waiting now. Any thread; never blocks."""
        return self._events

    @property
    def is_full(self) -> bool:
        """True when not one event more would fit. Any thread; never blocks."""
        return self._events >= self.maxsize

    def send(self, item: Item) -> None:
        """Put all of `item`, waiting for room as long as it takes.

        Blocks. Raises ConsumerGone when the consumer will take no more.
        """
        start, total = 0, event_count(item)
        while start < total:
            with self.not_full:
                while self._events >= self.maxsize and not self._gone and self._producers > 0:
                    self.not_full.wait()
                start += self._put_part(item, start, total)

    def offer(self, item: Item) -> int:
        """Put as much of the front of `item` as fits now; how many events that was. Never waits for room.

        The rest is counted in `refused`. Raises ConsumerGone when the consumer will take no more.
        """
        total = event_count(item)
        with self.not_full:
            over = self._gone or self._producers <= 0
            taken = self._put_part(item, 0, total) if over or self._events < self.maxsize else 0
            self.refused += total - taken
            return taken

    def _put_part(self, item: Item, start: int, total: int) -> int:
        """Put what fits of `item`, whose first `start` of `total` events have been put; how many events that was."""
        if self._gone or self._producers <= 0:
            raise ConsumerGone(self.name)
        fits = min(total - start, self.maxsize - self._events)
        if fits > 0:
            self.queue.append(item if fits == total else _part(item, start, start + fits))
            self._events += fits
            if self._events > self.high_water:
                self.high_water = self._events
            self.entered += fits
            if self._events >= self._wanted:
                self.not_empty.notify()
        return fits

    def take(self, max_events: int, timeout: float | None = None, least: int = 1) -> list[Item]:
        """Wait for events, then take what is there, oldest first, at most `max_events`; [] when `timeout` (s) passed.

        With `least` it waits until so many are there (never for more than half the channel), the time has passed or no
        more will come: a consumer that has no use for fewer is not woken for each of them. Blocks. Raises ChannelClosed
        when the channel is closed and empty, or was abandoned.
        """
        deadline = None if timeout is None else self._runtime.monotonic() + timeout
        wanted = max(1, min(least, self.maxsize // 2))
        with self.not_empty:
            while self._gone or self._events < wanted:
                if self._gone or (self._producers <= 0 and not self._events):
                    raise ChannelClosed(self.name)
                remaining = None if deadline is None else deadline - self._runtime.monotonic()
                if self._producers <= 0 or (remaining is not None and remaining <= 0):
                    break
                self._wanted = wanted
                self.awaited = True
                try:
                    self.not_empty.wait(remaining)
                finally:
                    self.awaited = False
                    self._wanted = 1
            return self._take_now(max_events)

    def _take_now(self, max_events: int) -> list[Item]:
        items: list[Item] = []
        room = max_events
        while self.queue and room > 0:
            item = self.queue.popleft()
            count = event_count(item)
            if count > room:
                self.queue.appendleft(_part(item, room, count))
                item, count = _part(item, 0, room), room
            self._events -= count
            items.append(item)
            room -= count
        self.passed += max_events - room
        self.not_full.notify_all()
        return items

    def close(self, everyone: bool = False) -> None:
        """One producer is done (with `everyone`: all of them). Any thread.

        After the last one the consumer gets what is left, then ChannelClosed.
        """
        with self.mutex:
            self._producers = 0 if everyone else self._producers - 1
            if self._producers <= 0:
                self.not_empty.notify_all()
                self.not_full.notify_all()

    def abandon(self) -> None:
        """Give up on what is left: producers get ConsumerGone, the consumer ChannelClosed. Idempotent; any thread."""
        with self.mutex:
            self._gone = True
            self.not_empty.notify_all()
            self.not_full.notify_all()


def _part(chunk: Any, begin: int, end: int) -> Any:
    return chunk.part(begin, end) if isinstance(chunk, Chunk) else chunk[begin:end]
