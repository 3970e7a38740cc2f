"""The output of mockws for people: a line per event on standard error and, on a terminal, a status line below."""

from __future__ import annotations

import threading
import time

from tradebot.output.redaction import clip, escape
from tradebot.output.streams import GuardedStream

_LINE_CHARS_MAX = 300


class Console:
    """May be used by any thread; a write blocks as long as standard error does. Never raises."""

    def __init__(self, stream: GuardedStream) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._terminal = stream.isatty()
        self._status = ""

    @property
    def terminal(self) -> bool:
        """Whether standard error is a terminal."""
        return self._terminal

    def say(self, text: str) -> None:
        """Write one line, preceded by the time of day (UTC)."""
        line = f"{time.strftime('%H:%M:%S', time.gmtime())} {clip(escape(text), _LINE_CHARS_MAX)}\n"
        with self._lock:
            self._stream.write(f"\r\x1b[K{line}{self._status}" if self._terminal else line)

    def status(self, text: str) -> None:
        """Replace the status line; an empty text removes it. Does nothing unless standard error is a terminal."""
        if self._terminal:
            with self._lock:
                self._status = clip(escape(text), 100)
                self._stream.write(f"\r\x1b[K{self._status}")
