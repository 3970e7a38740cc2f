"""Messages waiting to be sent, limited to the rate that the exchange accepts. Pure: `now` is an argument.

An exchange that gets more closes the connection, and may ban the address. Memory: the messages that were added.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class Outbox:
    """The messages of one connection, sent at even intervals, so that no time window contains more than allowed."""

    def __init__(self, messages_per_s: float | None) -> None:
        """`messages_per_s` None: the exchange documents no limit, so every message is due immediately."""
        self._spacing_s = 0.0 if messages_per_s is None else 1.0 / messages_per_s
        self._waiting: deque[str] = deque()
        self._next_s = float("-inf")

    def add(self, messages: Iterable[str]) -> None:
        """Add messages to the end of the queue."""
        self._waiting.extend(messages)

    def due(self, now_s: float) -> list[str]:
        """Remove and return the messages to send now."""
        found: list[str] = []
        while self._waiting and now_s >= self._next_s:
            found.append(self._waiting.popleft())
            self._next_s = now_s + self._spacing_s
        return found

    def wait_s(self, now_s: float, most_s: float) -> float:
        """Seconds until the next message is due, at most `most_s`."""
        return most_s if not self._waiting else min(most_s, max(0.0, self._next_s - now_s))
