"""Announcements of an exchange, each text reported once: an exchange may repeat it at each connection. Pure."""

from __future__ import annotations

from typing import Final

AGAIN_AFTER_S: Final = 3600.0
"""The same text is news again after so long without it."""
_REMEMBERED_MAX: Final = 64
NEWEST: Final = 10


class Announcements:
    """Remembers what was reported. One thread."""

    def __init__(self) -> None:
        self._heard_s: dict[str, float] = {}
        self.count = 0
        self.newest: tuple[str, ...] = ()

    def is_news(self, text: str, now_s: float) -> bool:
        """Whether to report `text`, heard now (monotonic seconds)."""
        before_s = self._heard_s.pop(text, None)
        while len(self._heard_s) >= _REMEMBERED_MAX:
            del self._heard_s[next(iter(self._heard_s))]
        self._heard_s[text] = now_s
        if before_s is not None and now_s - before_s < AGAIN_AFTER_S:
            return False
        self.count += 1
        self.newest = (*self.newest, text)[-NEWEST:]
        return True
