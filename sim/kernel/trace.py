"""The record of one history: its last records for people, and a running hash over all records for comparison."""

from __future__ import annotations

import hashlib
from collections import deque
from typing import Final

KEPT_RECORDS: Final = 2000
_HASHED_AT_ONCE: Final = 256


class Trace:
    """An append-only list of text records in bounded memory: `last` keeps the newest, `hash` covers all.

    Only the thread that holds the baton adds records, so there is no lock.
    """

    def __init__(self, keep: int = KEPT_RECORDS) -> None:
        self.last: deque[str] = deque(maxlen=keep)
        self.count = 0
        self._digest = hashlib.sha256()
        self._unhashed: list[str] = []

    def add(self, record: str) -> None:
        """Append one record (one line of text)."""
        self.count += 1
        self.last.append(record)
        self._unhashed.append(record)
        if len(self._unhashed) >= _HASHED_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if self._unhashed:
            self._digest.update(("\n".join(self._unhashed) + "\n").encode("utf-8", "backslashreplace"))
            self._unhashed.clear()

    def hash(self) -> str:
        """SHA-256 (hex) over all records so far, whether or not they are kept."""
        self._flush()
        return self._digest.hexdigest()

    def tail(self, records: int = 50) -> str:
        """The newest `records` records, one per line, oldest first, with the number of earlier ones."""
        shown = list(self.last)[-records:] if records > 0 else []
        earlier = self.count - len(shown)
        return "\n".join([f"... {earlier} earlier records", *shown] if earlier else shown)
