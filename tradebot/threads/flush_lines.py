"""The log lines of stored batches: at most one every ten seconds, and none of the rows untold."""

from __future__ import annotations

from typing import Final

FLUSH_LINE_S: Final = 10.0
"""A live feed commits once a second; a line for each commit would bury all others."""


class FlushLines:
    """Sums up commits until they are worth a line: the first one, one every FLUSH_LINE_S, and the rest at the end."""

    def __init__(self) -> None:
        self._rows = 0
        self._batches = 0
        self._next_s: float | None = None

    def add(self, rows: int, now_s: float) -> dict[str, int] | None:
        """Count a commit of `rows` rows; the fields of the line that is due, else None. `now_s`: monotonic clock."""
        self._rows += rows
        self._batches += 1
        if self._next_s is not None and now_s < self._next_s:
            return None
        self._next_s = now_s + FLUSH_LINE_S
        return self.take()

    def take(self) -> dict[str, int] | None:
        """The fields of a line for what no line was written for; None when there is nothing."""
        rows, batches, self._rows, self._batches = self._rows, self._batches, 0, 0
        return {"persisted": rows, "batches": batches} if batches else None
