"""When the writer flushes, and how long it insists on a database that cannot be written. Pure: `now` is an argument."""

from __future__ import annotations

from typing import Final

# One transaction at most; also the most that waits in the writer's hands.
MAX_BATCH_EVENTS: Final = 8192
FINAL_FLUSH_S: Final = 5.0
# SQLite starts to empty the write-ahead log at 4 MB; when that was hindered for long, it cuts the file down to this.
WAL_BYTES_KEPT: Final = 8 * 1024 * 1024
_BLOCK_TICKS: Final = (50, 200, 2000)
_BLOCK_S: Final = 0.010
_PAUSE_S_MIN: Final = 0.002
_PAUSE_FACTOR: Final = 4.0
_BACKOFF_FIRST_S: Final = 0.05
_BACKOFF_MAX_S: Final = 1.0


AWAY_S: Final = 0.5
"""After so long in commit a batch of a push feed shows that the storage is away, and events go to the spill file.

A transaction of MAX_BATCH_EVENTS with a checkpoint takes about half of it beside an engine that is fully busy.
"""
SPILL_GROUP_S: Final = 0.05
"""For so long, at most, events are gathered before they are written to the spill file and synced."""


def is_away(waited_s: float) -> bool:
    """Whether the storage counts as away when a batch has been in commit for `waited_s`.

    A storage that is slow, but stores each batch in time, is never away: a feed that it cannot follow is an overload,
    not a reason to spill.
    """
    return waited_s >= AWAY_S


class FlushPolicy:
    """Flush at `batch_size` events or `flush_interval_s` after the first of them, whichever comes first.

    While a reader keeps the write-ahead log from being emptied, only by the interval: every transaction writes its
    pages whole, however few rows it adds to them, so that larger ones make the log grow several times more slowly.
    """

    def __init__(self, batch_size: int, flush_interval_s: float) -> None:
        self._batch_size = batch_size
        self._flush_interval_s = flush_interval_s
        self._events_due = batch_size
        self._due_at: float | None = None

    def for_spill(self) -> FlushPolicy:
        """The policy while batches go to the spill file: no later than in fair weather, and after SPILL_GROUP_S."""
        return FlushPolicy(self._batch_size, min(self._flush_interval_s, SPILL_GROUP_S))

    def added(self, now: float) -> None:
        """Events came into the open batch at `now` (seconds)."""
        if self._due_at is None:
            self._due_at = now + self._flush_interval_s

    def flushed(self, wal_bytes: int = 0) -> None:
        """The open batch is empty again, and the write-ahead log is that large."""
        self._due_at = None
        self._events_due = MAX_BATCH_EVENTS if wal_bytes > WAL_BYTES_KEPT else self._batch_size

    def due(self, events: int, now: float) -> bool:
        """Whether an open batch of `events` is to be flushed at `now`."""
        return events >= self._events_due or (self._due_at is not None and now >= self._due_at)

    def missing(self, events: int) -> int:
        """How many more events make an open batch of `events` due at once; 1 where it is empty, as time then counts."""
        return max(1, self._events_due - events) if events else 1

    def wait_s(self, now: float) -> float | None:
        """Seconds until the open batch is due; None without an open batch."""
        return None if self._due_at is None else max(0.0, self._due_at - now)


class BlockPolicy:
    """How many ticks a transaction of `prune` deletes with what hangs on them, and the pause after it.

    The engine's writer waits for no more than one such transaction, and finds the database free most of the time.
    """

    def __init__(self) -> None:
        self._least, self.ticks, self._most = _BLOCK_TICKS

    def pause_s(self, took_s: float) -> float:
        """A transaction took so long: fit the next one to about 10 ms, and wait so many seconds before it."""
        if took_s > _BLOCK_S:
            self.ticks = max(self._least, self.ticks // 2)
        elif took_s < _BLOCK_S / 2:
            self.ticks = min(self._most, self.ticks * 2)
        return max(_PAUSE_S_MIN, _PAUSE_FACTOR * took_s)


class RetryPolicy:
    """How long to retry one flush: `storage_retry_s` from its first failure, less when a stop sets a deadline."""

    def __init__(self, storage_retry_s: float) -> None:
        self._storage_retry_s = storage_retry_s
        self._give_up_at: float | None = None
        self._delay_s = _BACKOFF_FIRST_S

    def succeeded(self) -> None:
        """The flush succeeded: the next failure restarts the count."""
        self._give_up_at = None
        self._delay_s = _BACKOFF_FIRST_S

    def patience_s(self, now: float, deadline: float | None) -> float:
        """How long one attempt at `now` may wait for a lock: what is left of the patience; never below zero."""
        end = now + self._storage_retry_s if self._give_up_at is None else self._give_up_at
        return max(0.0, (end if deadline is None else min(end, deadline)) - now)

    def next_delay_s(self, now: float, deadline: float | None) -> float | None:
        """After a failure at `now`: seconds to wait before the next attempt, or None to give up.

        `deadline` is the end that a stop has set (None: none). At least one attempt is made after any wait.
        """
        if self._give_up_at is None:
            self._give_up_at = now + self._storage_retry_s
        end = self._give_up_at if deadline is None else min(self._give_up_at, deadline)
        if now >= end:
            return None
        delay = min(self._delay_s, end - now)
        self._delay_s = min(self._delay_s * 2, _BACKOFF_MAX_S)
        return delay
