"""What passes between the persist stage, which takes events, and the commit stage, which stores them.

In fair weather that is one batch at a time, in memory. While the storage is away the persist stage writes a spill
file, which begins with the batch in commit; the commit stage stores it from there, in order, when the storage returns.
Everything later goes through the spill until it is empty, so that nothing overtakes.
"""

from __future__ import annotations

from typing import NamedTuple

from tradebot.core.runtime import Runtime
from tradebot.store.batch import StoredCounts, WriteBatch
from tradebot.store.errors import StorageUnavailable
from tradebot.store.policy import is_away


class SpillRange(NamedTuple):
    """Bytes of the spill file that are on disk and not yet stored."""

    start: int
    end: int


class CommitHandover:
    """Shared by the two threads; no method blocks but `next`, `wait` and `wait_free`, and no lock is held for long."""

    def __init__(self, runtime: Runtime, counts: StoredCounts) -> None:
        """`counts`: rows of the run that the database holds."""
        self._runtime = runtime
        self._lock = runtime.lock()
        self._work = runtime.condition(self._lock)
        self._done = runtime.condition(self._lock)
        self._batch: WriteBatch | None = None
        self._offered_s = 0.0
        self._batch_is_spilled = False
        self._spill_at = 0
        self._spill_end = 0
        self._drain_end = 0
        self._closed = False
        self._gone = False
        self._confirmed = counts
        self.given_up: StorageUnavailable | None = None
        """Why the storage was given up, once it was. Any thread may read."""
        self.waiting_events = 0
        """Events in the spill file that are not known to be stored. Any thread may read."""
        self.waiting_ticks = 0
        self.waiting_notices = 0

    # ---- the persist stage ---------------------------------------------------------------------------------------

    def offer(self, batch: WriteBatch) -> bool:
        """Hand a batch over; False while the one before it is not stored."""
        now_s = self._runtime.monotonic()
        with self._lock:
            if self._batch is not None or self._is_over():
                return False
            self._batch, self._offered_s = batch, now_s
            self._work.notify()
            return True

    def is_away(self) -> bool:
        """Whether a batch has been in commit for so long that the storage counts as away."""
        now_s = self._runtime.monotonic()
        with self._lock:
            return self._batch is not None and is_away(now_s - self._offered_s)

    def wait(self, timeout_s: float) -> None:
        """Wait until the commit stage has got something done, at most so long; not when it has nothing to do."""
        with self._lock:
            if not self._is_over() and not self._is_idle():
                self._done.wait(timeout_s)

    def wait_free(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` until no batch is in commit; whether another one can be offered then."""
        with self._lock:
            if self._batch is not None and not self._is_over():
                self._done.wait(timeout_s)
            return self._batch is None and not self._is_over()

    def unconfirmed(self) -> tuple[StoredCounts, WriteBatch | None]:
        """The rows known to be stored, and the batch after them that is not."""
        with self._lock:
            return self._confirmed, self._batch

    def begin_spill(self, first: WriteBatch, end: int) -> None:
        """The spill file has been begun with `first`, a batch that was in commit; it ends at the offset `end`."""
        with self._lock:
            self._spill_at = self._spill_end = end
            if self._batch is first:
                self._batch_is_spilled = True
                self._count(first, 1)

    def spilled(self, batch: WriteBatch, end: int) -> None:
        """`batch` is in the spill file, on disk, up to the offset `end`."""
        with self._lock:
            self._spill_end = end
            self._count(batch, 1)
            self._work.notify()

    def is_soon_idle(self) -> bool:
        """Whether what is being stored is all that the spill holds, and the storage does not count as away.

        Who spills more then may do so for ever: a storage that takes longer than a group of events is never done.
        """
        now_s = self._runtime.monotonic()
        with self._lock:
            if self._is_over() or self._is_idle() or self._batch is not None or self._drain_end != self._spill_end:
                return False
            return not is_away(now_s - self._offered_s)

    @property
    def is_idle(self) -> bool:
        """Whether all that was handed over or spilled is stored."""
        with self._lock:
            return self._is_idle()

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be stored: the storage was given up, or the commit stage has ended."""
        with self._lock:
            return self._is_over()

    def reclaim(self) -> tuple[StoredCounts, WriteBatch | None]:
        """Once it is over: the rows known to be stored, and the batch after them, which nobody will store any more."""
        with self._lock:
            batch, self._batch = self._batch, None
            return self._confirmed, None if self._batch_is_spilled else batch

    def close(self) -> None:
        """Nothing more will be handed over; what was is still stored. Idempotent."""
        with self._lock:
            self._closed = True
            self._work.notify()

    # ---- the commit stage ----------------------------------------------------------------------------------------

    def next(self) -> WriteBatch | SpillRange | None:
        """Wait for something to store; None when there is nothing left to do. Blocks."""
        with self._lock:
            while not self._is_over():
                if self._batch is not None:
                    return self._batch
                if self._spill_at < self._spill_end:
                    return SpillRange(self._spill_at, self._spill_end)
                if self._closed:
                    return None
                self._work.wait()
            return None

    def committed(self, batch: WriteBatch) -> bool:
        """The batch in commit is stored. False when the storage was given up meanwhile: then it counts as spilled."""
        with self._lock:
            if self._is_over():
                return False
            self._confirmed = self._confirmed.plus(batch)
            if self._batch_is_spilled:
                self._batch_is_spilled = False
                self._count(batch, -1)
            self._batch = None
            self._done.notify()
            return True

    def draining(self, at: int) -> None:
        """The spill file is being stored up to the offset `at`."""
        now_s = self._runtime.monotonic()
        with self._lock:
            self._drain_end, self._offered_s = at, now_s

    def drained(self, batch: WriteBatch, at: int) -> bool:
        """`batch`, which the spill file holds up to the offset `at`, is stored. False as for `committed`."""
        with self._lock:
            if self._is_over():
                return False
            self._confirmed = self._confirmed.plus(batch)
            self._spill_at = at
            self._count(batch, -1)
            self._done.notify()
            return True

    def abandon(self) -> None:
        """The commit stage has ended, well or not. Idempotent."""
        with self._lock:
            self._gone = True
            self._done.notify()

    # ---- both ----------------------------------------------------------------------------------------------------

    def give_up(self, error: StorageUnavailable) -> None:
        """Nothing more is to be stored by this process; the first reason stays."""
        with self._lock:
            if self.given_up is None:
                self.given_up = error.without_frames()
            self._work.notify()
            self._done.notify()

    def _is_over(self) -> bool:
        return self.given_up is not None or self._gone

    def _is_idle(self) -> bool:
        return self._batch is None and self._spill_at == self._spill_end

    def _count(self, batch: WriteBatch, sign: int) -> None:
        self.waiting_events += sign * batch.events
        self.waiting_ticks += sign * len(batch.ticks)
        self.waiting_notices += sign * len(batch.notices)
