"""The commit stage: runs the transactions of a push feed, so that a blocked commit delays no other stage.

A replay has none: its persist stage stores by itself, and waits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from tradebot.core.channel import Channel
from tradebot.core.errors import ExitCode
from tradebot.core.log_events import LogEvent
from tradebot.core.runtime import Runtime
from tradebot.output.log import Log
from tradebot.store.batch import WriteBatch
from tradebot.store.database import BUSY_TIMEOUT_MS
from tradebot.store.errors import StorageUnavailable
from tradebot.store.policy import MAX_BATCH_EVENTS, RetryPolicy
from tradebot.store.protocol import BatchWriter
from tradebot.store.spill_format import DamagedSpill, SpillReader, batch_of
from tradebot.threads.counters import Metrics
from tradebot.threads.flush_lines import FlushLines
from tradebot.threads.handover import CommitHandover, SpillRange
from tradebot.threads.shutdown import Control

_PATIENCE_MS_MIN: Final = 50


class Committer:
    """Stores batches one after the other and retries what can pass. Used by one thread; others may read the figures."""

    def __init__(
        self, storage: BatchWriter, retry: RetryPolicy, metrics: Metrics, control: Control, log: Log, runtime: Runtime
    ) -> None:
        self.storage = storage
        self._retry = retry
        self._metrics = metrics
        self._control = control
        self._log = log
        self._runtime = runtime
        self._flush_lines = FlushLines()
        self.final_deadline: float | None = None
        """Monotonic second by which the last batch must be stored; None before the end of the input."""
        self.is_draining = False
        """Whether at that end there was still something to store: it has the time for draining, if that is longer."""
        self.ticks_stored = 0
        self.commits = 0
        self.commit_ms: float | None = None
        """How long the newest commit took."""
        self.last_stored_ms: int | None = None
        """When more than notices was last stored, on the wall clock: the engine's own reports are no progress."""
        self.last_stored_s: float | None = None
        """The same on the monotonic clock, which is never set back."""

    def commit(self, batch: WriteBatch) -> None:
        """Store `batch`, however often that has to be tried.

        Blocks for storage_retry_s from the first failure at most, less when a stop sets a deadline. Raises
        StorageUnavailable when the storage is given up.
        """
        while True:
            began_s = self._runtime.monotonic()
            try:
                self.storage.write(batch, self._patience_ms())
            except StorageUnavailable as error:
                self._metrics.persist_errors += 1
                now = self._runtime.monotonic()
                delay_s = self._retry.next_delay_s(now, self._deadline()) if error.passing else None
                if delay_s is None:
                    raise
                self._log.warning(
                    "storage unavailable", event=LogEvent.STORAGE_UNAVAILABLE, detail=str(error), retry_in_s=delay_s
                )
                self._runtime.sleep(delay_s)
            else:
                break
        self._retry.succeeded()
        self.commits += 1
        now_s = self._runtime.monotonic()
        self.commit_ms = round((now_s - began_s) * 1000, 3)
        if batch.rows > len(batch.notices):
            self.last_stored_s, self.last_stored_ms = now_s, self._runtime.now_ms()

    def count(self, batch: WriteBatch) -> None:
        """`batch` counts as stored from now on."""
        self.ticks_stored += len(batch.ticks)
        self._metrics.persist_count += batch.rows
        self._log_flushed(self._flush_lines.add(batch.rows, self._runtime.monotonic()))

    def give_up(self, error: StorageUnavailable, spill_file: Path | None) -> None:
        """Report that the storage was given up, and end the run with 13."""
        where = None if spill_file is None else str(spill_file)
        self._log.error(
            "storage failed", event=LogEvent.STORAGE_FAILED, code=error.code, detail=str(error), spill_file=where
        )
        self._control.fail(ExitCode.OVERLOAD, "persist", f"storage failed: {error}")

    def close(self) -> None:
        """Close the connection. A failing disk must not hide how the run ended, so it is reported as 13."""
        try:
            self.storage.close()
        except (OSError, StorageUnavailable) as error:
            self._log.error("clean-up failed", event=LogEvent.CLEANUP_FAILED, file="database", detail=str(error))
            self._control.fail(ExitCode.OVERLOAD, "persist", f"cannot close the database: {error}")
        self._log_flushed(self._flush_lines.take())  # last, so that the connection is closed even if logging fails

    def _log_flushed(self, fields: dict[str, int] | None) -> None:
        if fields is not None:
            self._log.info("batch flushed", event=LogEvent.BATCH_FLUSHED, errors=self._metrics.persist_errors, **fields)

    def _deadline(self) -> float | None:
        # After a failure the main thread sets the time for draining a moment after the stop.
        final, drain = self.final_deadline, self._control.drain_deadline
        if final is None or drain is None:
            return drain if final is None else final
        return max(final, drain) if self.is_draining else final

    def _patience_ms(self) -> int:
        left_s = self._retry.patience_s(self._runtime.monotonic(), self._deadline())
        return max(_PATIENCE_MS_MIN, min(BUSY_TIMEOUT_MS, int(left_s * 1000)))


class CommitStage:
    """Stores what the persist stage hands over, then what it has spilled. Owns the connection to the database."""

    name = "commit"

    def __init__(self, committer: Committer, handover: CommitHandover, spill_file: Path | None) -> None:
        self._committer = committer
        self._handover = handover
        self._spill_file = spill_file
        self._reader: SpillReader | None = None
        self.inputs = (handover,)
        self.outputs: tuple[Channel[Any], ...] = ()

    @property
    def is_busy(self) -> bool:
        """Whether there is something to store. Any thread."""
        return not self._handover.is_idle and not self._handover.is_over

    def run(self) -> None:
        """The stage's loop; blocks on the hand-over and in the storage."""
        try:
            while (work := self._handover.next()) is not None:
                try:
                    if isinstance(work, SpillRange):
                        self._drain(work)
                    else:
                        self._commit(work)
                except StorageUnavailable as error:
                    self._committer.give_up(error, self._spill_file)
                    self._handover.give_up(error)
        finally:
            if self._reader is not None:
                self._reader.close()
            self._committer.close()

    def _commit(self, batch: WriteBatch) -> None:
        self._committer.commit(batch)
        if self._handover.committed(batch):
            self._committer.count(batch)

    def _drain(self, waiting: SpillRange) -> None:
        batch, at = self._read(waiting)
        self._handover.draining(at)
        self._committer.commit(batch)
        if self._handover.drained(batch, at):
            self._committer.count(batch)

    def _read(self, waiting: SpillRange) -> tuple[WriteBatch, int]:
        """The next events of the spill file and where they end. Raises StorageUnavailable: they cannot be read back."""
        assert self._spill_file is not None
        try:
            if self._reader is None:
                self._reader = SpillReader(self._spill_file)
            if self._reader.offset != waiting.start:
                self._reader.pass_over(waiting.start)
            events = self._reader.read(MAX_BATCH_EVENTS, waiting.end)
            if not events:
                raise DamagedSpill(0, f"no event between bytes {waiting.start} and {waiting.end}")
        except (OSError, DamagedSpill) as error:
            text = f"spill file {self._spill_file} cannot be read back: {error}"
            raise StorageUnavailable("SPILL_UNREADABLE", text, passing=False) from error
        return batch_of(events), self._reader.offset
