"""Changes from a connection that its exchange will close to a new one, without losing frames of either.

The new connection is made and subscribed while the old one is still read. What it brings is held back for HOLD_S, or
until the old one is lost; then the old one is given up, and what was held is read. Trades that came over both are
duplicates to the sequence guard.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from tradebot.feeds.exchanges.base import Exchange
from tradebot.feeds.websocket.transport import CLOSE_GOING_AWAY, Connection, ConnectionLost, Frame

HOLD_S: Final = 3.0
"""Long enough for a subscription to be confirmed; exchanges announce their restarts by 5 s to 10 min."""
HELD_MAX: Final = 20_000
"""Frames that are held back at most: with more the old connection is given up at once."""


class ConnectionHandover:
    """The new connection while the old one is still in use. One thread."""

    def __init__(self, connection: Connection, exchange: Exchange, messages: list[str], now_s: float) -> None:
        """Subscribes immediately with `messages`; a loss is recorded."""
        self.connection = connection
        self.exchange = exchange
        self.confirms = bool(messages) and exchange.acknowledges
        self.frames: list[Frame] = []
        self.broken: ConnectionLost | None = None
        self._until_s = now_s + HOLD_S
        for text in messages:
            self._do(partial(connection.send_text, text))

    def poll(self) -> None:
        """Receive what has arrived. Does not block."""
        self._do(lambda: self.frames.extend(self.connection.receive(0.0)))

    def due(self, now_s: float) -> bool:
        """Whether to switch over now."""
        return now_s >= self._until_s or len(self.frames) >= HELD_MAX

    def abandon(self) -> None:
        """Close the new connection: the feed ends, or it is lost."""
        if self.broken is None:
            self.connection.close(CLOSE_GOING_AWAY)

    def _do(self, what: Callable[[], object]) -> None:
        if self.broken is None:
            try:
                what()
            except ConnectionLost as error:
                self.broken = error
