"""What happens to new connections: refused, delayed or rejected handshakes. Pure: the time is an argument."""

from __future__ import annotations

from collections import deque
from typing import Final

from mockws_server.actions import DelayHandshake, Refuse, Reject

WAITING_MAX: Final = 100
"""The maximum number of pending faults for new connections; further ones are ignored."""


class HandshakePolicy:
    """Decides about new connections: the faults apply one after another, in the order in which they were added.

    Each attempt uses up one of `count`; a `Refuse` with a duration takes effect immediately, before all others.
    """

    def __init__(self) -> None:
        self._waiting: deque[Refuse | DelayHandshake | Reject] = deque()
        self._left = 0
        self._shut_until_s = 0.0
        self._shut: Refuse | None = None

    def add(self, weather: Refuse | DelayHandshake | Reject, now_s: float) -> bool:
        """Add a fault for the next connections; False if too many are pending."""
        if isinstance(weather, Refuse) and weather.seconds is not None:
            self._shut, self._shut_until_s = weather, now_s + weather.seconds
            return True
        if len(self._waiting) >= WAITING_MAX:
            return False
        if not self._waiting:
            self._left = weather.count or 1
        self._waiting.append(weather)
        return True

    def clear(self) -> None:
        """Remove all pending faults."""
        self._waiting.clear()
        self._shut = None

    def on_accept(self, now_s: float) -> Refuse | None:
        """The refusal of a new TCP connection; None: it is accepted."""
        if self._shut is not None and now_s < self._shut_until_s:
            return self._shut
        if self._waiting and isinstance(head := self._waiting[0], Refuse):
            self._use()
            return head
        return None

    def on_request(self) -> DelayHandshake | Reject | None:
        """The fault for a WebSocket handshake on an accepted connection; None: it succeeds."""
        if self._waiting and isinstance(head := self._waiting[0], DelayHandshake | Reject):
            self._use()
            return head
        return None

    def _use(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._waiting.popleft()
            self._left = (self._waiting[0].count or 1) if self._waiting else 0
