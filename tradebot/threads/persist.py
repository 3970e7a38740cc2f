"""The persist stage: the single writer. Batches events into transactions; what cannot be stored is spilled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from tradebot.channel import Channel, ChannelClosed
from tradebot.control import Control
from tradebot.events import Event, Notice
from tradebot.exits import ExitCode
from tradebot.log import Log
from tradebot.metrics import Metrics
from tradebot.runtime import Runtime
from tradebot.store.batch import Batch
from tradebot.store.database import BUSY_TIMEOUT_MS
from tradebot.store.errors import StorageUnavailable
from tradebot.store.policy import FINAL_FLUSH_S, MAX_BATCH_EVENTS, FlushPolicy, RetryPolicy
from tradebot.store.spill import Spill
from tradebot.store.spill_format import in_causal_order
from tradebot.store.writer import Storage
from tradebot.threads.flush_lines import FlushLines

_PATIENCE_MS_MIN: Final = 50


class PersistStage:
    """Takes events, stores them exactly once. Without a storage (a replay that stores nothing) it only counts."""

    name = "persist"

    def __init__(
        self,
        channel: Channel[Event],
        storage: Storage | None,
        spill: Spill | None,
        run_id: str,
        flush: FlushPolicy,
        retry: RetryPolicy,
        metrics: Metrics,
        control: Control,
        log: Log,
        runtime: Runtime,
        notices: Sequence[Notice] = (),
    ) -> None:
        """`notices` are stored before everything else: what the start has to report."""
        self._channel = channel
        self._storage = storage
        self._spill = spill
        self._run_id = run_id
        self._flush_policy = flush
        self._retry = retry
        self._metrics = metrics
        self._control = control
        self._log = log.bind(self.name)
        self._runtime = runtime
        self._batch = Batch()
        if notices:
            self._batch.add(notices)
        self._final_deadline: float | None = None
        self._flush_lines = FlushLines()
        self.inputs = (channel,)
        self.outputs: tuple[Channel[Event], ...] = ()
        self.ticks_stored = 0
        self.ticks_spilled = 0
        self._ticks_passed_on = 0 if storage is None else storage.counts.ticks
        """Ticks of the run before the open batch: stored, spilled or lost."""
        self.events_lost = 0
        self.storage_error: str | None = None
        self.commits = 0
        self.commit_ms: float | None = None
        """How long the newest commit took."""
        self.last_stored_ms: int | None = None
        """When it was done, on the wall clock."""
        self.last_stored_s: float | None = None
        """The same on the monotonic clock, which nobody sets."""

    @property
    def in_hand(self) -> int:
        """Events of the open batch. Any thread; never blocks."""
        return self._batch.events

    @property
    def stores_nothing(self) -> bool:
        """True for a run that stores nothing by design."""
        return self._storage is None

    def run(self) -> None:
        """The stage's loop; blocks on its channel and in the storage."""
        try:
            if self._storage is None:
                self._discard()
            else:
                self._store(self._storage)
        finally:
            if self._storage is not None:
                self._clean_up("database", self._storage.close)
            if self._spill is not None:
                self._finish_spill(self._spill)

    def _discard(self) -> None:
        while True:
            try:
                self._channel.take(MAX_BATCH_EVENTS)
            except ChannelClosed:
                return

    def _store(self, storage: Storage) -> None:
        policy, monotonic = self._flush_policy, self._runtime.monotonic
        if self._batch.events:
            policy.added(monotonic())
        while True:
            room = MAX_BATCH_EVENTS - self._batch.events
            try:
                chunks = self._channel.take(room, policy.wait_s(monotonic()))
            except ChannelClosed:
                break
            for chunk in chunks:
                self._batch.add(chunk)
            now = monotonic()
            if chunks:
                policy.added(now)
            if policy.due(self._batch.events, now):
                self._flush(storage)
        if self._control.stop.is_set():
            self._final_deadline = monotonic() + FINAL_FLUSH_S
        self._log.info("final flush on shutdown", event="final flush on shutdown", remaining=self._batch.events)
        if self._batch.events:
            self._flush(storage)
        self._log_flushed(self._flush_lines.take())

    def _flush(self, storage: Storage) -> None:
        """Store the open batch, however often that has to be tried; spill it when the storage stays away."""
        batch = self._batch
        while self.storage_error is None:
            began_s = self._runtime.monotonic()
            try:
                storage.write(batch, self._patience_ms())
            except StorageUnavailable as error:
                self._metrics.persist_errors += 1
                now = self._runtime.monotonic()
                delay_s = self._retry.next_delay_s(now, self._deadline()) if error.passing else None
                if delay_s is None:
                    self._give_up(storage, error)
                else:
                    self._log.warning("storage unavailable", detail=str(error), retry_in_s=delay_s)
                    self._runtime.sleep(delay_s)
            else:
                self._stored(batch, began_s)
                break
        if self.storage_error is not None:
            self._spill_batch(batch)
        self._batch = Batch()
        self._flush_policy.flushed(storage.wal_bytes)

    def _stored(self, batch: Batch, began_s: float) -> None:
        self._retry.succeeded()
        self.commits += 1
        self.last_stored_s = self._runtime.monotonic()
        self.commit_ms = round((self.last_stored_s - began_s) * 1000, 3)
        self.last_stored_ms = self._runtime.now_ms()
        self.ticks_stored += len(batch.ticks)
        self._ticks_passed_on += len(batch.ticks)
        self._metrics.persist_count += batch.rows
        self._log_flushed(self._flush_lines.add(batch.rows, self.last_stored_s))

    def _log_flushed(self, fields: dict[str, int] | None) -> None:
        if fields is not None:
            self._log.info("batch flushed", event="batch flushed", errors=self._metrics.persist_errors, **fields)

    def _deadline(self) -> float | None:
        return self._control.drain_deadline if self._final_deadline is None else self._final_deadline

    def _patience_ms(self) -> int:
        left_s = self._retry.patience_s(self._runtime.monotonic(), self._deadline())
        return max(_PATIENCE_MS_MIN, min(BUSY_TIMEOUT_MS, int(left_s * 1000)))

    def _give_up(self, storage: Storage, error: StorageUnavailable) -> None:
        self.storage_error = str(error)
        where = str(self._spill.path) if self._spill is not None else None
        self._log.error("storage failed", event="STORAGE_FAILED", code=error.code, detail=str(error), spill_file=where)
        self._begin_spill(storage)
        self._control.fail(ExitCode.OVERLOAD, self.name, f"storage failed: {error}")

    def _begin_spill(self, storage: Storage) -> None:
        if self._spill is None:
            return
        try:
            storage.sync_wal()  # before the header counts what a power loss could take from the database
        except OSError as error:
            self._log.warning("write-ahead log not synced", event="WAL_SYNC_FAILED", detail=str(error))
        try:
            self._spill.begin(self._run_id, storage.counts)
        except OSError as error:
            self._spill_failed(error)

    def _spill_batch(self, batch: Batch) -> None:
        """Spill all of the batch or, where there is no room for all, nothing: notices and ticks belong together."""
        events = in_causal_order(batch, self._ticks_passed_on)
        self._ticks_passed_on += len(batch.ticks)
        if self._spill is not None and events:
            try:
                self._spill.append(events)
            except OSError as error:
                self._spill_failed(error)
            else:
                self.ticks_spilled += len(batch.ticks)
                return
        self.events_lost += len(events)

    def _spill_failed(self, error: OSError) -> None:
        assert self._spill is not None
        spill, self._spill = self._spill, None
        self._log.error(
            "spill failed", event="SPILL_FAILED", spill_file=str(spill.path), detail=str(error),
            events_spilled=spill.events,
        )  # fmt: skip
        self._clean_up("spill file", spill.close)

    def _finish_spill(self, spill: Spill) -> None:
        self._clean_up("spill file", spill.finish)
        if spill.used:
            self._log.error(
                "events spilled", event="SPILLED", events=spill.events, spill_file=str(spill.path),
                hint="the next start with this database stores them",
            )  # fmt: skip

    def _clean_up(self, what: str, step: Callable[[], None]) -> None:
        """Do a step of cleaning up. A failing disk must not hide how the run ended, so it is reported as 13."""
        try:
            step()
        except (OSError, StorageUnavailable) as error:
            self._log.error("clean-up failed", event="CLEANUP_FAILED", file=what, detail=str(error))
            self._control.fail(ExitCode.OVERLOAD, self.name, f"cannot close the {what}: {error}")
