"""The persist stage: takes events, gathers them into batches, and has each stored exactly once.

A replay's batches are stored here: every channel waits during a commit, and nothing is buffered. Those of a push feed
go to the commit stage, so that a commit that blocks does not keep events in the channels. While the storage is away
(a batch has been in commit for half a second) they go into the spill file, and from there into the database, in order.
A storage that is merely slower than the feed is not away: then the channels fill, and the run ends as an overload.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from tradebot.core.channel import Channel, ChannelClosed
from tradebot.core.events import Notice, PersistItem
from tradebot.core.log_events import LogEvent
from tradebot.core.runtime import Runtime
from tradebot.output.log import Log
from tradebot.store.batch import WriteBatch
from tradebot.store.errors import StorageUnavailable
from tradebot.store.policy import FINAL_FLUSH_S, MAX_BATCH_EVENTS, FlushPolicy, RetryPolicy
from tradebot.store.protocol import BatchWriter
from tradebot.store.spill import Spill
from tradebot.threads.commit import CommitStage, Committer
from tradebot.threads.counters import Metrics
from tradebot.threads.handover import CommitHandover
from tradebot.threads.shutdown import Control
from tradebot.threads.spilling import Spilling
from tradebot.threads.stage import OutputChannel

_LOOK_S: Final = 0.1
"""How often the stage looks whether the spill is empty, or has room again."""
_COMMIT_LOOK_S: Final = 0.01
"""How often it takes what has come, and looks whether the storage is away, while a batch is in commit."""
_GRACE_S: Final = 0.5
"""How long the commit stage may take to notice the deadline of the final flush by itself."""


class PersistStage:
    """Takes events, stores them exactly once. Without a committer (a replay that stores nothing) it only counts."""

    name = "persist"

    def __init__(
        self,
        channel: Channel[PersistItem],
        committer: Committer | None,
        handover: CommitHandover | None,
        spilling: Spilling,
        flush: FlushPolicy,
        control: Control,
        log: Log,
        runtime: Runtime,
        notices: Sequence[Notice] = (),
    ) -> None:
        """With a `handover` the commit stage has the committer, otherwise this stage uses it.

        `notices` are stored before everything else: what the start has to report.
        """
        self._channel = channel
        self._committer = committer
        self._handover = handover
        self._spilling = spilling
        self._fair_policy = flush
        self._policy = flush
        self._control = control
        self._log = log.bind(self.name)
        self._runtime = runtime
        self._batch = WriteBatch()
        for notice in notices:
            self._batch.add(notice)
        self._ticks_passed_on = 0 if committer is None else committer.storage.counts.ticks
        """Ticks of the run before the open batch: stored, handed over, spilled or lost."""
        self._spilled_events = 0
        self._spilled_ticks = 0
        self._given_up: StorageUnavailable | None = None
        self._ending = False
        self.inputs = (channel,)
        self.outputs: tuple[OutputChannel, ...] = () if handover is None else (handover,)

    # ---- figures: any thread; none of them blocks ------------------------------------------------------------------

    @property
    def in_hand(self) -> int:
        """Events of the open batch."""
        return self._batch.events

    @property
    def stores_nothing(self) -> bool:
        """True for a run that stores nothing by design."""
        return self._committer is None

    @property
    def storage_error(self) -> StorageUnavailable | None:
        """Why the storage was given up, once it was."""
        return self._given_up if self._handover is None else self._handover.given_up

    @property
    def ticks_spilled(self) -> int:
        """Ticks in the spill file that are not known to be stored."""
        return self._spilled_ticks if self._handover is None else self._handover.waiting_ticks

    @property
    def events_waiting(self) -> int:
        """Events in the spill file that are not known to be stored."""
        return self._spilled_events if self._handover is None else self._handover.waiting_events

    @property
    def events_lost(self) -> int:
        """Accepted events that are neither stored nor spilled."""
        return self._spilling.events_lost

    @property
    def ticks_stored(self) -> int:
        """Ticks that are known to be stored."""
        return 0 if self._committer is None else self._committer.ticks_stored

    @property
    def commits(self) -> int:
        """Transactions that were committed."""
        return 0 if self._committer is None else self._committer.commits

    @property
    def commit_ms(self) -> float | None:
        """How long the newest commit took."""
        return None if self._committer is None else self._committer.commit_ms

    @property
    def last_stored_ms(self) -> int | None:
        """When it was done, on the wall clock."""
        return None if self._committer is None else self._committer.last_stored_ms

    @property
    def last_stored_s(self) -> float | None:
        """The same on the monotonic clock, which is never set back."""
        return None if self._committer is None else self._committer.last_stored_s

    # ---- the loop ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """The stage's loop; blocks on its channel, in a replay in the storage, and otherwise for room in the spill."""
        committer, handover = self._committer, self._handover
        try:
            if committer is None:
                self._discard()
            elif handover is None:
                self._take(lambda: self._store(committer))
                self._announce_end(committer)
                self._store(committer)
            else:
                self._take(lambda: self._pass_on(committer, handover))
                self._announce_end(committer)
                self._settle(committer, handover)
        finally:
            if committer is not None and handover is None:
                committer.close()
            self._spilling.finish(self.events_waiting)

    def _discard(self) -> None:
        while True:
            try:
                self._channel.take(MAX_BATCH_EVENTS)
            except ChannelClosed:
                return

    def _take(self, pass_on: Callable[[], None]) -> None:
        """Fill the open batch, and pass it on whenever it is due, until the channel is closed and empty."""
        if self._batch.events:
            self._policy.added(self._now())
        while True:
            room, now = MAX_BATCH_EVENTS - self._batch.events, self._now()
            wait_s = 0.0 if self._policy.due(self._batch.events, now) else self._policy.wait_s(now)
            if self._spilling.is_on:
                wait_s = _LOOK_S if wait_s is None else min(wait_s, _LOOK_S)
            try:
                items = self._channel.take(room, wait_s, self._policy.missing(self._batch.events))
            except ChannelClosed:
                return
            for item in items:
                self._batch.add(item)
            now = self._now()
            if items:
                self._policy.added(now)
            if self._spilling.is_on or self._policy.due(self._batch.events, now):
                pass_on()

    def _announce_end(self, committer: Committer) -> None:
        if self._control.stop.is_requested():
            # What is in commit, or spilled, came before the end.
            committer.is_draining = self._handover is not None and not self._handover.is_idle
            committer.final_deadline = self._runtime.monotonic() + FINAL_FLUSH_S
        self._log.info("final flush on shutdown", event=LogEvent.FINAL_FLUSH_ON_SHUTDOWN, remaining=self._batch.events)

    def _now(self) -> float:
        """The clock by which batches are due."""
        return self._runtime.monotonic()

    def _begin_batch(self, committer: Committer) -> None:
        """The open batch has gone: begin another one. Where it went into the spill, its checkpoint waits for that."""
        before = self._batch
        self._ticks_passed_on += len(before.ticks)
        self._batch = WriteBatch()
        if self._spilling.is_on:
            self._batch.add_earlier(before.checkpoint)
        self._policy.flushed(committer.storage.wal_bytes)

    # ---- a replay: everything waits for the storage ------------------------------------------------------------------

    def _store(self, committer: Committer) -> None:
        batch = self._batch
        if not batch.events:
            return
        if self._given_up is None:
            try:
                committer.commit(batch)
            except StorageUnavailable as error:
                self._given_up = error.without_frames()
                committer.give_up(error, self._spilling.path)
                storage = committer.storage
                if self._spilling.begin(storage.sync_wal, storage.counts, batch):
                    self._count_spilled(batch)
                else:
                    self._spilling.lose(batch)
            else:
                committer.count(batch)
        elif self._spilling.append(batch, self._ticks_passed_on):
            self._count_spilled(batch)
        else:
            self._spilling.lose(batch)
        self._begin_batch(committer)

    def _count_spilled(self, batch: WriteBatch) -> None:
        self._spilled_events += batch.events
        self._spilled_ticks += len(batch.ticks)

    # ---- a push feed: the commit stage stores ------------------------------------------------------------------------

    def _pass_on(self, committer: Committer, handover: CommitHandover) -> None:
        """Hand the open batch over or, while the storage is away, spill it; wait as long as neither is possible.

        While a batch is in commit the open one grows, so that the channel stays empty, and a storage that is slow for a
        moment gets fewer and larger transactions.
        """
        while not self._try_to_pass_on(committer, handover):
            if self._spilling.is_on:
                handover.wait(_LOOK_S / 2)  # it is nearly stored, or has no room until it is
                continue
            is_free = handover.wait_free(_COMMIT_LOOK_S)
            if is_free or (self._channel.depth and self._batch.events < MAX_BATCH_EVENTS):
                return  # what has come meanwhile goes along with it

    def _try_to_pass_on(self, committer: Committer, handover: CommitHandover) -> bool:
        """Pass the open batch on if it is due. False when it has to wait."""
        if self._spilling.is_on and handover.is_idle and not handover.is_over:
            self._end_spill(committer)
        batch = self._batch
        if batch.is_empty or not (self._ending or self._policy.due(batch.events, self._now())):
            return True
        if handover.is_over:
            self._keep_or_lose(committer, handover)
            return True
        if self._spilling.is_on and not self._is_pressed() and handover.is_soon_idle():
            return False
        if not self._spilling.is_on and not handover.offer(batch):
            spills = handover.is_away() and self._begin_spill(committer, handover)
            if not spills:
                return False
        if self._spilling.is_on and batch.events:
            if not self._spilling.append(batch, self._ticks_passed_on):
                return False
            handover.spilled(batch, self._spilling.size)
        self._begin_batch(committer)
        return True

    def _is_pressed(self) -> bool:
        return 2 * self._channel.depth >= self._channel.maxsize

    def _begin_spill(self, committer: Committer, handover: CommitHandover) -> bool:
        """Begin to spill, with the batch in commit first. False without such a batch, or without room for it."""
        counts, first = handover.unconfirmed()
        if first is None or not self._spilling.begin(committer.storage.sync_wal, counts, first):
            return False
        handover.begin_spill(first, self._spilling.size)
        self._batch.add_earlier(first.checkpoint)  # first may be stored from the file, which holds none
        self._policy = self._fair_policy.for_spill()
        self._log.warning(
            "the database cannot be written: events go to the spill file", event=LogEvent.SPILL_BEGUN,
            spill_file=str(self._spilling.path), hint="they are stored when the database can be written again",
        )  # fmt: skip
        return True

    def _end_spill(self, committer: Committer) -> None:
        """All of the spill is stored: batches go to the commit stage again."""
        events = self._spilling.events
        try:
            committer.storage.sync_wal()  # before what a power loss could take from the database is gone from the file
        except OSError as error:
            self._log.warning("write-ahead log could not be synced", event=LogEvent.WAL_SYNC_FAILED, detail=str(error))
        self._spilling.empty()
        self._policy = self._fair_policy
        self._policy.flushed(committer.storage.wal_bytes)
        if self._batch.events:
            self._policy.added(self._now())
        self._log.info(
            "the database can be written again: all spilled events are stored",
            event=LogEvent.SPILL_DRAINED,
            events=events,
        )

    def _keep_or_lose(self, committer: Committer, handover: CommitHandover) -> None:
        """The storage was given up: all that is not stored stays in the spill for the next start, or is lost."""
        counts, first = handover.reclaim()
        if first is not None:
            self._keep(committer, handover, first, counts.ticks)
        if self._batch.events:
            self._keep(committer, handover, self._batch, self._ticks_passed_on)
        if not self._batch.is_empty:  # also a checkpoint alone: a batch that stays due is no reason to spin
            self._begin_batch(committer)

    def _keep(self, committer: Committer, handover: CommitHandover, batch: WriteBatch, ticks_before: int) -> None:
        spilling = self._spilling
        if spilling.is_on:
            kept = spilling.append(batch, ticks_before)
        else:
            kept = spilling.begin(committer.storage.sync_wal, handover.unconfirmed()[0], batch)
        if kept:
            handover.spilled(batch, spilling.size)
        else:
            spilling.lose(batch)

    def _settle(self, committer: Committer, handover: CommitHandover) -> None:
        """After the last event: wait until all is stored, or what is not is in the spill for the next start."""
        self._ending = True
        while not handover.is_over:
            self._try_to_pass_on(committer, handover)
            if self._batch.is_empty and not self._spilling.is_on and handover.is_idle:
                break
            if self._is_overdue():
                self._give_up_waiting(committer, handover)
            handover.wait(_LOOK_S)
        if handover.is_over:
            self._keep_or_lose(committer, handover)
        handover.close()

    def _is_overdue(self) -> bool:
        """Whether the time that a stop allows is over. A failing storage is given up before, by the commit stage."""
        drain_deadline = self._control.drain_deadline
        return drain_deadline is not None and self._runtime.monotonic() >= drain_deadline + FINAL_FLUSH_S + _GRACE_S

    def _give_up_waiting(self, committer: Committer, handover: CommitHandover) -> None:
        """A commit does not end, or the spill is not stored in time: the next start stores it."""
        text = f"some events could not be stored within persist.drain_timeout_s and {FINAL_FLUSH_S:g} s after it"
        error = StorageUnavailable("FINAL_FLUSH_TIMEOUT", text, passing=True)
        handover.give_up(error)
        committer.give_up(error, self._spilling.path)


def writer_stages(
    channel: Channel[PersistItem],
    storage: BatchWriter | None,
    spill: Spill | None,
    run_id: str,
    push: bool,
    flush: FlushPolicy,
    retry: RetryPolicy,
    metrics: Metrics,
    control: Control,
    log: Log,
    runtime: Runtime,
    notices: Sequence[Notice] = (),
) -> tuple[PersistStage, CommitStage | None]:
    """The persist stage of a run and, for a push feed that stores, the commit stage that must run beside it."""
    own_log = log.bind(PersistStage.name)
    spilling = Spilling(spill, run_id, control, own_log)
    committer = None if storage is None else Committer(storage, retry, metrics, control, own_log, runtime)
    handover = None if storage is None or not push else CommitHandover(runtime, storage.counts)
    stage = PersistStage(channel, committer, handover, spilling, flush, control, log, runtime, notices)
    if committer is None or handover is None:
        return stage, None
    return stage, CommitStage(committer, handover, spilling.path)
