"""When messages that are too large end a feed: they come again on each connection, so going on would never help."""

from __future__ import annotations

from typing import Final

from tradebot.config.model import FeedConfig
from tradebot.core.errors import ConfigError
from tradebot.feeds.websocket.transport import CLOSE_TOO_BIG, ConnectionLost

TOO_BIG_MAX: Final = 3
"""So many connections in a row may end with a message that is too large before the feed gives up."""


def message_bytes_max(configured: int, known: int) -> int:
    """The bound on a message: the configured one; for the default, at least what the exchange is known to send."""
    return max(configured, known) if configured == FeedConfig().max_message_bytes else configured


class TooLarge:
    """Counts consecutive connections that ended because of a too large message. One thread (ingest)."""

    def __init__(self, url: str) -> None:
        """`url` is for the message, without credentials."""
        self._url = url
        self._in_a_row = 0

    def trade(self) -> None:
        """A trade was received: the connection works."""
        self._in_a_row = 0

    def lost(self, error: ConnectionLost, bytes_max: int) -> ConfigError | None:
        """A connection has ended. Returns the error with which to end the run, or None to continue."""
        self._in_a_row = self._in_a_row + 1 if error.code == CLOSE_TOO_BIG else 0
        if self._in_a_row < TOO_BIG_MAX:
            return None
        return ConfigError(
            f"{TOO_BIG_MAX} connections in a row to {self._url} ended with a message that is too large: {error};"
            f" raise feed.max_message_bytes, which is {bytes_max}"
        )
