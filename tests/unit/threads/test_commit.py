"""Taking and committing as two threads: in order, once, whatever the storage does meanwhile. Simulated time."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peewee import SqliteDatabase

from sim.kernel.runtime import SimRuntime
from sim.world.faults import open_files
from tests.unit.store_helpers import Logged, counts, full_batch, new_run, order, signal, tick
from tradebot.core.channel import Channel
from tradebot.core.errors import ExitCode
from tradebot.core.events import Checkpoint, Event, Notice, Order, PersistItem, Signal, StoredEvent, Tick, as_item
from tradebot.core.log_events import LogEvent
from tradebot.core.runtime import Runtime
from tradebot.store.adoption import Adopted, adopt
from tradebot.store.batch import StoredCounts, WriteBatch
from tradebot.store.database import connect
from tradebot.store.errors import StorageUnavailable
from tradebot.store.policy import (
    AWAY_S,
    FINAL_FLUSH_S,
    MAX_BATCH_EVENTS,
    SPILL_GROUP_S,
    FlushPolicy,
    RetryPolicy,
    is_away,
)
from tradebot.store.spill import Spill, spill_path
from tradebot.store.spill_format import batch_of, in_causal_order
from tradebot.store.writer import SqliteWriter, insert_batch
from tradebot.threads.counters import Metrics
from tradebot.threads.handover import CommitHandover, SpillRange
from tradebot.threads.persist import writer_stages
from tradebot.threads.shutdown import Control
from tradebot.threads.stage import Stage, StageThread

RUN = "r1"


class Moody:
    """A storage that blocks, fails, or fails after it has stored, by the clock; what it has is in `stored`.

    Spans are (from, to) in seconds. A call that falls into one of `blocks` ends when the span does.
    """

    def __init__(
        self,
        runtime: SimRuntime,
        fails: Sequence[tuple[float, float]] = (),
        blocks: Sequence[tuple[float, float]] = (),
        passing: bool = True,
        slow_s: float = 0.0,
    ) -> None:
        self.runtime = runtime
        self.fails, self.blocks, self.passing, self.slow_s = fails, blocks, passing, slow_s
        self.counts = StoredCounts()
        self.wal_bytes = 0
        self.stored: list[StoredEvent] = []
        self.synced_at: list[int] = []
        self.closed = False
        self.largest = 0

    def open(self) -> None:
        pass

    def write(self, batch: WriteBatch, patience_ms: int) -> None:
        runtime = self.runtime
        if self.slow_s:
            runtime.sleep(self.slow_s)
        for start, end in self.blocks:
            if start <= runtime.elapsed_s < end:
                runtime.sleep(end - runtime.elapsed_s)
        if any(start <= runtime.elapsed_s < end for start, end in self.fails):
            raise StorageUnavailable("SQLITE_BUSY" if self.passing else "SQLITE_CORRUPT", "no", self.passing)
        self.stored += in_causal_order(batch, self.counts.ticks)
        self.counts = self.counts.plus(batch)
        self.largest = max(self.largest, batch.events)

    def sync_wal(self) -> None:
        self.synced_at.append(self.counts.ticks)

    def close(self) -> None:
        self.closed = True


class Case:
    """The two stages over a moody storage, fed by a third thread."""

    def __init__(
        self,
        directory: Path,
        make_storage: Callable[[SimRuntime], Moody],
        *,
        seed: int = 1,
        retry_s: float = 30.0,
        batch_size: int = 10,
        channel: int = 100,
        spill: bool = True,
        max_mb: int = 256,
        reserve: int = 100,
    ) -> None:
        self.runtime = SimRuntime(seed)
        self.storage = make_storage(self.runtime)
        self.logged = Logged(cast(Any, self.runtime))
        self.control = Control(self.runtime, ["persist"])
        self.channel: Channel[PersistItem] = Channel(self.runtime, "persist", channel)
        self.path = directory / "x.db"
        self.spill = Spill(spill_path(self.path), reserve, max_mb) if spill else None
        self.stage, self.commit = writer_stages(
            self.channel, self.storage, self.spill, RUN, True, FlushPolicy(batch_size, 1.0), RetryPolicy(retry_s),
            Metrics(), self.control, self.logged.log, cast(Runtime, self.runtime),
        )  # fmt: skip
        assert self.commit is not None
        self.control.expect("commit")
        self.sent = 0
        self.waited_s = 0.0
        """For how long, at most, an event found no room in the channel."""

    def play(
        self, events: Sequence[tuple[float, Event]], stop: bool = False, drain_s: float = 30.0, overload: bool = False
    ) -> None:
        """Send each event in its time (seconds), close the channel, and wait for both stages.

        With `overload` no more is sent once the channel is full, as by a push feed.
        """

        def feed() -> None:
            for at_s, event in events:
                if overload and self.channel.is_full:
                    break
                if at_s > self.runtime.elapsed_s:
                    self.runtime.sleep(at_s - self.runtime.elapsed_s)
                began_s = self.runtime.elapsed_s
                self.channel.send(as_item(event))
                self.sent += 1
                self.waited_s = max(self.waited_s, self.runtime.elapsed_s - began_s)
            if stop:
                self.control.begin_stop(drain_s)
            self.channel.close()

        def main() -> None:
            assert self.commit is not None
            threads = [self.runtime.spawn("feeder", feed)]
            for stage in (self.commit, self.stage):
                runner = StageThread(self.runtime, stage, self.control, self.logged.log)
                threads.append(self.runtime.spawn(f"tradebot-{stage.name}", runner.main))
            for thread in threads:
                thread.join()

        self.runtime.run(main, until_s=100_000.0)
        self.logged.log.close()

    def said(self, event: str) -> list[dict[str, Any]]:
        return [line["fields"] for line in self.logged.lines() if line["fields"].get("event") == event]


def market(seconds: float, rate: float = 100.0, every: int = 5) -> list[tuple[float, Event]]:
    """Ticks at a rate; every `every`-th gives a signal and a filled order, every 50th follows a notice."""
    events: list[tuple[float, Event]] = []
    for number in range(1, int(seconds * rate) + 1):
        at_s = number / rate
        if number % 50 == 0:
            events.append((at_s, Notice("GAP", 1, "", "TEST/USD", 1, ticks_before=number - 1)))
        events.append((at_s, tick(number)))
        if number % every == 0:
            events += [(at_s, signal(number)), (at_s, order(number))]
    return events


def of_kind(events: Sequence[Event], kind: type) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]


def assert_in_order(stored: Sequence[StoredEvent], sent: Sequence[tuple[float, Event]], whole: bool = True) -> None:
    """Each table holds what was sent, once and in order (not `whole`: a prefix of it); no effect precedes its cause."""
    events = [event for _at, event in sent]
    for kind in (Tick, Notice, Signal, Order):
        found, wanted = of_kind(stored, kind), of_kind(events, kind)
        assert found == (wanted if whole else wanted[: len(found)]), kind
    seen, ticks = set(), 0
    for event in stored:
        if isinstance(event, Tick):
            ticks += 1
        elif isinstance(event, Notice):
            assert event.ticks_before <= ticks
        elif isinstance(event, Signal):
            assert int(event.event_id.split("-")[1]) <= ticks
            seen.add(event.event_id)
        else:
            assert isinstance(event, Order) and event.signal_id in seen


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("fails", "blocks"),
    [
        ([], []),
        ([(2.0, 6.0)], []),
        ([], [(2.0, 4.0)]),
        ([], [(1.0, 3.0), (3.2, 5.0), (7.0, 7.4)]),
        ([(1.0, 3.0), (3.05, 5.0)], [(6.0, 9.0)]),
        ([(0.0, 20.0)], []),
    ],
    ids=["fair", "fails", "blocks", "blocks-again", "both", "from-the-start"],
)
def test_everything_is_stored_once_and_in_order(
    tmp_path: Path, seed: int, fails: list[tuple[float, float]], blocks: list[tuple[float, float]]
) -> None:
    """Whatever the schedule of the threads; and nobody who feeds the channel waits for the storage."""
    case = Case(tmp_path, lambda runtime: Moody(runtime, fails, blocks), seed=seed)
    sent = market(10.0)
    case.play(sent)
    assert_in_order(case.storage.stored, sent)
    away = bool(fails) or any(end - start > AWAY_S for start, end in blocks)
    assert bool(case.said(LogEvent.SPILL_BEGUN)) == away
    assert len(case.said(LogEvent.SPILL_BEGUN)) == len(case.said(LogEvent.SPILL_DRAINED))
    assert case.control.failure is None and case.storage.closed
    assert (case.stage.ticks_stored, case.stage.ticks_spilled, case.stage.events_lost) == (1000, 0, 0)
    assert case.waited_s < AWAY_S, "the channel holds half a second of this market"
    assert not spill_path(case.path).exists()


def test_the_log_is_synced_before_a_spill_begins_and_before_it_is_emptied(tmp_path: Path) -> None:
    """The header must not count, and the file not forget, what a power loss could take."""
    case = Case(tmp_path, lambda runtime: Moody(runtime, [(2.0, 6.0)]))
    case.play(market(10.0))
    begun, emptied = case.storage.synced_at
    assert 150 < begun < 250 and emptied > 500


def test_a_storage_that_never_returns_leaves_a_spill_that_completes_the_run(tmp_path: Path) -> None:
    """G5: given up after storage_retry_s; ledger, spill and the next start agree to the event."""
    path = tmp_path / "x.db"
    new_run(path)
    case = Case(tmp_path, lambda runtime: Moody(runtime, [(0.0, 1e9)]), retry_s=5.0)
    sent = market(10.0)
    case.play(sent)
    failure = case.control.failure
    assert failure is not None and failure.code is ExitCode.OVERLOAD and "SQLITE_BUSY" in failure.cause
    assert case.stage.ticks_spilled == 1000 and case.stage.ticks_stored == 0 and case.stage.events_lost == 0
    (spilled,) = case.said(LogEvent.SPILLED)
    assert spilled["events"] == len(sent) == case.stage.events_waiting
    with closing(connect(path)) as db:
        assert adopt(db, spill_path(path)) == Adopted(RUN, len(sent), 0, whole=True)
    assert counts(path) == (1000, 200, 200, 200)


@pytest.mark.parametrize("seed", range(4))
def test_a_spill_that_was_stored_in_part_is_completed_by_the_next_start(tmp_path: Path, seed: int) -> None:
    """The storage came back for one transaction, and went again for good."""
    path = tmp_path / "x.db"
    new_run(path)
    case = Case(tmp_path, lambda runtime: Moody(runtime, [(0.0, 4.0), (5.2, 1e9)]), retry_s=6.0, seed=seed)
    sent = market(10.0)
    case.play(sent)
    held = case.storage.counts
    assert 0 < held.ticks < 1000
    assert case.stage.ticks_stored == held.ticks and case.stage.ticks_spilled == 1000 - held.ticks
    with closing(connect(path)) as db:
        db.execute_sql("BEGIN")
        insert_batch(db, 1, batch_of(case.storage.stored), held)
        db.execute_sql("COMMIT")
        found = adopt(db, spill_path(path))
    assert found is not None and found.orphan is None
    assert found.events == case.said(LogEvent.SPILLED)[0]["events"]
    assert counts(path) == (1000, 200, 200, 200)


def test_a_storage_that_is_merely_slow_is_no_reason_to_spill(tmp_path: Path) -> None:
    """It gets larger transactions: what comes while a batch is in commit does not stay in the channel."""
    case = Case(tmp_path, lambda runtime: Moody(runtime, slow_s=0.15), batch_size=5, channel=5)
    sent = market(4.0)
    case.play(sent)
    assert not case.said(LogEvent.SPILL_BEGUN)
    assert case.waited_s < 0.01
    assert_in_order(case.storage.stored, sent)


def test_a_storage_that_cannot_follow_is_an_overload_and_no_reason_to_spill(tmp_path: Path) -> None:
    """G5: the open batch and then the channel fill, and their producer waits."""
    case = Case(tmp_path, lambda runtime: Moody(runtime, slow_s=0.45), batch_size=5, channel=512)
    sent = market(1.0, rate=40_000.0, every=1000)
    case.play(sent)
    assert not case.said(LogEvent.SPILL_BEGUN)
    assert case.waited_s > 0.1
    assert_in_order(case.storage.stored, sent)


@pytest.mark.parametrize("slow_s", [0.02, 0.06, 0.15, 0.3])
def test_a_spill_ends_though_a_commit_takes_longer_than_a_group_of_events(tmp_path: Path, slow_s: float) -> None:
    """After a short absence everything went through the file until it was full, and no checkpoint was stored."""
    blocks = [(2.0, 3.0)]
    case = Case(tmp_path, lambda runtime: Moody(runtime, (), blocks, slow_s=slow_s), batch_size=100, channel=512)
    sent = market(20.0)
    case.play(sent)
    (drained,) = case.said(LogEvent.SPILL_DRAINED)
    assert drained["events"] < 500, "of about 3,000"
    assert_in_order(case.storage.stored, sent)
    assert case.waited_s < 0.01


def test_what_cannot_pass_is_given_up_at_once(tmp_path: Path) -> None:
    """A damaged or replaced file: everything from then on is spilled."""
    case = Case(tmp_path, lambda runtime: Moody(runtime, [(2.0, 1e9)], passing=False))
    case.play(market(4.0))
    (failed,) = case.said(LogEvent.STORAGE_FAILED)
    assert failed["code"] == "SQLITE_CORRUPT"
    assert case.stage.ticks_stored + case.stage.ticks_spilled == 400
    assert case.stage.ticks_spilled > 150 and case.stage.events_lost == 0


def test_a_checkpoint_alone_after_the_storage_was_given_up_is_waited_with(tmp_path: Path) -> None:
    """Seed 335 of the simulator: a batch of nothing but a checkpoint stayed due, and the stage spun (a livelock)."""
    case = Case(tmp_path, lambda runtime: Moody(runtime, [(1.0, 1e9)], passing=False))
    late = market(2.0)[-1]
    case.play([*market(2.0)[:-1], (3.0, Checkpoint(200)), (5.0, Checkpoint(200)), (60.0, late[1])])
    assert case.stage.ticks_stored + case.stage.ticks_spilled == 200
    assert case.runtime.steps < 50_000


def test_the_final_flush_ends_in_time_though_a_commit_does_not(tmp_path: Path) -> None:
    """S13: a commit that hangs keeps nothing from the spill; its thread is left behind."""
    case = Case(tmp_path, lambda runtime: Moody(runtime, blocks=[(2.0, 60.0)]))
    ended_s: list[float] = []
    finish = case.stage._spilling.finish

    def finished(waiting_events: int) -> None:
        ended_s.append(case.runtime.elapsed_s)
        finish(waiting_events)

    case.stage._spilling.finish = finished  # type: ignore[method-assign]
    case.play(market(4.0), stop=True, drain_s=3.0)
    assert 4.0 + 3.0 + FINAL_FLUSH_S < ended_s[0] < 4.0 + 3.0 + FINAL_FLUSH_S + 1.0
    assert case.said(LogEvent.STORAGE_FAILED)[0]["code"] == "FINAL_FLUSH_TIMEOUT"
    assert case.stage.ticks_stored + case.stage.ticks_spilled == 400, "what was committed late counts once"


def test_what_is_spilled_has_the_time_for_draining_however_the_stop_came(tmp_path: Path) -> None:
    """After an overload stop is set at once, and the deadline by the main thread when it looks next."""
    case = Case(tmp_path, lambda runtime: Moody(runtime, [(2.0, 14.0)]))

    begin_stop = case.control.begin_stop

    def look() -> None:
        case.runtime.sleep(0.1)
        begin_stop(30.0)

    def overload(drain_timeout_s: float) -> None:
        case.control.stop.request()
        case.runtime.spawn("main", look)

    case.control.begin_stop = overload  # type: ignore[method-assign]
    case.play(market(4.0), stop=True)
    assert case.stage.ticks_stored == 400
    assert not case.said(LogEvent.STORAGE_FAILED)


def test_a_commit_stage_that_crashes_costs_nothing(tmp_path: Path) -> None:
    """The run ends with 1; what it was committing, and everything after it, is spilled."""

    class Buggy(Moody):
        def write(self, batch: WriteBatch, patience_ms: int) -> None:
            if self.runtime.elapsed_s > 2.0:
                raise RuntimeError("a bug")
            super().write(batch, patience_ms)

    case = Case(tmp_path, Buggy)
    case.play(market(4.0))
    assert case.control.failure is not None and case.control.failure.code is ExitCode.CRASH
    assert case.stage.ticks_stored + case.stage.ticks_spilled == 400 and case.stage.events_lost == 0
    assert not case.control.running()


def test_without_a_spill_the_channel_waits_as_it_always_did(tmp_path: Path) -> None:
    case = Case(tmp_path, lambda runtime: Moody(runtime, [(2.0, 6.0)]), spill=False)
    sent = market(8.0, rate=4000.0, every=100)
    case.play(sent)
    assert_in_order(case.storage.stored, sent)
    assert case.waited_s > 1.0 and not case.said(LogEvent.SPILL_BEGUN)


def test_without_a_spill_everything_that_is_not_stored_is_counted(tmp_path: Path) -> None:
    case = Case(tmp_path, lambda runtime: Moody(runtime, [(2.0, 1e9)]), spill=False, retry_s=1.0)
    sent = market(4.0)
    case.play(sent)
    assert len(case.storage.stored) + case.stage.events_lost == len(sent)
    assert_in_order(case.storage.stored, sent, whole=False)


def test_a_spill_without_room_makes_the_channel_wait_and_loses_nothing(tmp_path: Path) -> None:
    """persist.spill_max_mb: when the file is full the stage holds its batch until the storage is back."""
    case = Case(tmp_path, lambda runtime: Moody(runtime, [(1.0, 90.0)]), max_mb=1, retry_s=1000.0)
    sent = market(100.0, rate=200.0, every=4)
    case.play(sent)
    assert_in_order(case.storage.stored, sent)
    assert "spill_max_mb" in case.said(LogEvent.SPILL_FAILED)[0]["detail"]
    assert len(case.said(LogEvent.SPILL_FAILED)) == 1, "once for as long as it lasts"
    assert case.waited_s > 1.0 and case.stage.events_lost == 0


def test_what_is_on_its_way_when_the_spill_is_full_finds_room_in_it(tmp_path: Path) -> None:
    """The overload that a full file ends in loses nothing that was accepted: some room is kept for the end."""
    case = Case(tmp_path, lambda runtime: Moody(runtime, [(1.0, 1e9)]), max_mb=1, retry_s=1000.0, reserve=5000)
    sent = market(100.0, rate=400.0, every=4)
    case.play(sent, stop=True, drain_s=5.0, overload=True)
    assert case.sent < len(sent) and case.channel.high_water == case.channel.maxsize
    assert case.stage.events_lost == 0
    assert len(case.storage.stored) + case.stage.events_waiting == case.sent
    assert_in_order(case.storage.stored, sent, whole=False)


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.ENOSPC])
def test_a_disk_that_fails_for_a_while_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """An append that fails is repeated as long as there is time."""
    case = Case(tmp_path, lambda runtime: Moody(runtime, [(2.0, 8.0)]))
    pwrite = os.pwrite

    def failing(descriptor: int, data: bytes, at: int) -> int:
        if 3.0 <= case.runtime.elapsed_s < 4.0:
            raise OSError(number, os.strerror(number))
        return pwrite(descriptor, data, at)

    monkeypatch.setattr(os, "pwrite", failing)
    sent = market(10.0)
    case.play(sent)
    assert_in_order(case.storage.stored, sent)
    assert len(case.said(LogEvent.SPILL_FAILED)) == 1 and case.stage.events_lost == 0


def test_a_spill_that_cannot_be_read_back_is_left_to_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(tmp_path, lambda runtime: Moody(runtime, [(2.0, 4.0)]))

    def failing(*_arguments: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", failing)
    case.play(market(6.0))
    assert case.said(LogEvent.STORAGE_FAILED)[0]["code"] == "SPILL_UNREADABLE"
    assert case.control.failure is not None and case.control.failure.code is ExitCode.OVERLOAD
    assert case.stage.ticks_stored + case.stage.ticks_spilled == 600


@pytest.mark.parametrize("push", [True, False])
def test_a_database_that_was_given_up_is_really_closed(tmp_path: Path, push: bool) -> None:
    """The reason is kept to the end of the run; the frames it came from refer to cursors of the connection."""
    path = tmp_path / "x.db"
    runtime, logged = SimRuntime(1), Logged()
    control = Control(runtime, ["persist"])
    channel: Channel[PersistItem] = Channel(runtime, "persist", 100)

    class Failing(SqliteWriter):
        def _transact(self, db: SqliteDatabase, batch: WriteBatch, after: StoredCounts) -> None:
            cursor = db.execute_sql("SELECT 1 UNION SELECT 2")
            cursor.fetchone()
            raise StorageUnavailable("SQLITE_IOERR", "disk I/O error", passing=True)

    storage = Failing(path, "NORMAL", new_run(path))
    stage, commit = writer_stages(
        channel, storage, None, RUN, push, FlushPolicy(1, 1.0), RetryPolicy(0.0), Metrics(), control, logged.log,
        cast(Runtime, runtime),
    )  # fmt: skip

    def main() -> None:
        stages: list[Stage] = [stage] if commit is None else [commit, stage]
        threads = [runtime.spawn(each.name, StageThread(runtime, each, control, logged.log).main) for each in stages]
        channel.send(as_item(tick(1)))
        channel.close()
        for thread in threads:
            thread.join()

    runtime.run(main)
    logged.log.close()
    assert stage.storage_error is not None and stage.storage_error.code == "SQLITE_IOERR"
    assert not [name for _descriptor, name in open_files() if name.startswith(str(path))]


class TestHandover:
    def made(self) -> CommitHandover:
        return CommitHandover(cast(Runtime, _Still()), StoredCounts(ticks=5))

    def test_one_batch_at_a_time(self) -> None:
        handover, first, second = self.made(), full_batch(1, 5), full_batch(6, 5)
        assert handover.is_idle and not handover.is_away()
        assert handover.offer(first) and not handover.offer(second)
        assert handover.next() is first
        assert handover.committed(first)
        assert handover.unconfirmed() == (StoredCounts(5).plus(first), None)
        assert handover.offer(second)

    def test_the_spill_follows_the_batch_in_commit(self) -> None:
        handover, first, later = self.made(), full_batch(1, 5), full_batch(6, 10)
        handover.offer(first)
        handover.begin_spill(first, 100)
        handover.spilled(later, 300)
        assert (handover.waiting_ticks, handover.waiting_events) == (15, first.events + later.events)
        assert handover.next() is first
        assert handover.committed(first) and handover.waiting_ticks == 10
        assert handover.next() == SpillRange(100, 300)
        assert handover.drained(later, 300)
        assert handover.is_idle and (handover.waiting_ticks, handover.waiting_events) == (0, 0)

    def test_a_batch_that_was_committed_while_the_spill_began_is_not_waiting(self) -> None:
        handover, first = self.made(), full_batch(1, 5)
        handover.offer(first)
        handover.committed(first)
        handover.begin_spill(first, 100)
        assert handover.is_idle and handover.waiting_events == 0

    def test_after_giving_up_nothing_counts_as_stored(self) -> None:
        """The persist stage has spilled it by then: it must not count twice."""
        handover, first = self.made(), full_batch(1, 5)
        handover.offer(first)
        handover.give_up(StorageUnavailable("X", "x", passing=True))
        handover.give_up(StorageUnavailable("Y", "y", passing=True))
        assert handover.given_up is not None and handover.given_up.code == "X"
        assert handover.reclaim() == (StoredCounts(5), first)
        assert handover.reclaim() == (StoredCounts(5), None)
        assert not handover.committed(first) and handover.next() is None and not handover.offer(first)

    def test_closed_with_work_left(self) -> None:
        """A persist stage that died has left a batch and a spill: both are stored."""
        handover, first, later = self.made(), full_batch(1, 5), full_batch(6, 10)
        handover.offer(first)
        handover.begin_spill(first, 100)
        handover.spilled(later, 300)
        handover.close()
        assert handover.next() is first
        handover.committed(first)
        assert handover.next() == SpillRange(100, 300)
        handover.drained(later, 300)
        assert handover.next() is None


class _Still(SimRuntime):
    """For one thread, outside a simulation: locks that are always free, a clock that stands."""

    def __init__(self) -> None:
        super().__init__(1)

    def monotonic(self) -> float:
        return 1.0

    def lock(self) -> Any:
        return _Free()

    def condition(self, lock: Any = None) -> Any:
        return _Free()


class _Free:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_error: object) -> None:
        pass

    def wait(self, timeout: float | None = None) -> bool:
        raise AssertionError("would wait for ever")

    def notify(self, n: int = 1) -> None:
        pass


@given(waited_s=st.floats(0, 10))
def test_when_storage_counts_as_away(waited_s: float) -> None:
    """A batch that is in commit for long."""
    assert is_away(waited_s) == (waited_s >= AWAY_S)
    assert is_away(waited_s + AWAY_S)


@given(st.integers(1, MAX_BATCH_EVENTS), st.floats(0.001, 60.0), st.integers(1, MAX_BATCH_EVENTS))
def test_spilled_batches_are_never_later_than_flushed_ones(size: int, interval_s: float, events: int) -> None:
    """The stated bound: what a kill can cost while the storage is away is at most SPILL_GROUP_S old."""
    fair = FlushPolicy(size, interval_s)
    spill = fair.for_spill()
    for policy in (fair, spill):
        policy.added(100.0)
    for now in (100.0, 100.0 + SPILL_GROUP_S, 100.0 + interval_s):
        assert spill.due(events, now) or not fair.due(events, now)
    assert spill.due(1, 100.0 + SPILL_GROUP_S)
