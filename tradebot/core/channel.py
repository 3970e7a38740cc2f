"""A bounded queue between two stages: counts events whatever the batching, knows its name, depth and high-water mark.

Items are chunks (lists of events). The bound is in events and binds exactly: a chunk that does not fit whole is split.
Order is kept. Closing is in-band: what was put before `close` is still taken.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

from tradebot.core.runtime import Runtime

E = TypeVar("E")


class ChannelClosed(Exception):
    """Nothing is left and nothing will come: the consumer is done."""


class ConsumerGone(Exception):
    """Nobody will take what is put here: the consumer died, or the engine gave up draining. The producer must stop."""


class Channel(queue.Queue[Sequence[E]], Generic[E]):
    """`queue.Queue` whose size counts events, with waits that go through the seam.

    `producers` threads and one consumer. `name` is for logs. `maxsize` >= 1, in events.
    """

    queue: deque[Sequence[E]]

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

    def _put(self, item: Sequence[E]) -> None:
        self.queue.append(item)
        self._events += len(item)
        if self._events > self.high_water:
            self.high_water = self._events

    def _get(self) -> Sequence[E]:
        item = self.queue.popleft()
        self._events -= len(item)
        return item

    def put(self, item: Sequence[E], block: bool = True, timeout: float | None = None) -> None:
        """Not for use: it would bound chunks, not events. Raises TypeError; use `send` or `offer`."""
        raise TypeError(f"channel {self.name}: use send or offer")

    def get(self, block: bool = True, timeout: float | None = None) -> Sequence[E]:
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

    def send(self, chunk: Sequence[E]) -> None:
        """Put all of `chunk`, waiting for room as long as it takes.

        Blocks. Raises ConsumerGone when the consumer will take no more.
        """
        start, total = 0, len(chunk)
        while start < total:
            with self.not_full:
                while self._events >= self.maxsize and not self._gone and self._producers > 0:
                    self.not_full.wait()
                start += self._put_part(chunk, start)

    def offer(self, chunk: Sequence[E]) -> int:
        """Put as much of the front of `chunk` as fits now; how many events that was. Never waits for room.

        The rest is counted in `refused`. Raises ConsumerGone when the consumer will take no more.
        """
        with self.not_full:
            over = self._gone or self._producers <= 0
            taken = self._put_part(chunk, 0) if over or self._events < self.maxsize else 0
            self.refused += len(chunk) - taken
            return taken

    def _put_part(self, chunk: Sequence[E], start: int) -> int:
        if self._gone or self._producers <= 0:
            raise ConsumerGone(self.name)
        part = chunk[start : start + self.maxsize - self._events]
        if part:
            self._put(part)
            self.entered += len(part)
            if self._events >= self._wanted:
                self.not_empty.notify()
        return len(part)

    def take(self, max_events: int, timeout: float | None = None, least: int = 1) -> list[Sequence[E]]:
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

    def _take_now(self, max_events: int) -> list[Sequence[E]]:
        chunks: list[Sequence[E]] = []
        room = max_events
        while self.queue and room > 0:
            chunk = self._get()
            if len(chunk) > room:
                self.queue.appendleft(chunk[room:])
                self._events += len(chunk) - room
                chunk = chunk[:room]
            chunks.append(chunk)
            room -= len(chunk)
        self.passed += max_events - room
        self.not_full.notify_all()
        return chunks

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
