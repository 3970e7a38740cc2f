"""The persist stage when its storage stays away and the spill file has no room for all."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from tests.unit.store_helpers import Logged, order, signal, tick
from tradebot.core.channel import Channel
from tradebot.core.errors import ExitCode
from tradebot.core.events import Event, Notice, PersistItem, as_item
from tradebot.core.log_events import LogEvent
from tradebot.core.runtime import RealRuntime
from tradebot.store.batch import StoredCounts, WriteBatch
from tradebot.store.errors import StorageUnavailable
from tradebot.store.policy import FlushPolicy, RetryPolicy
from tradebot.store.spill import Spill
from tradebot.threads.counters import Metrics
from tradebot.threads.persist import PersistStage, writer_stages
from tradebot.threads.shutdown import Control


class Away:
    """A storage that fails for good."""

    counts = StoredCounts()
    wal_bytes = 0

    def open(self) -> None:
        pass

    def write(self, batch: WriteBatch, patience_ms: int) -> None:
        raise StorageUnavailable("SQLITE_CORRUPT", "malformed", passing=False)

    def sync_wal(self) -> None:
        pass

    def close(self) -> None:
        pass


class SmallSpill:
    """A spill file with room for so many events. `fails` are the methods that a failing disk lets fail."""

    used = False
    events = 0
    path = Path("x.spill")

    def __init__(self, room: int, *fails: str, number: int = errno.EIO) -> None:
        self.room = room
        self.kinds: list[str] = []
        self.fails = fails
        self.number = number

    def _may_fail(self, name: str) -> None:
        if name in self.fails:
            raise OSError(self.number, os.strerror(self.number))

    def begin(self, run_id: str, counts: StoredCounts, events: Sequence[Event] = ()) -> None:
        self._may_fail("begin")
        self.append(events)
        self.used = True

    def append(self, chunk: Sequence[Event], at_end: bool = False) -> None:
        self._may_fail("append")
        if self.events + len(chunk) > self.room:
            raise OSError(27, "File too large")
        self.kinds += [type(event).__name__ for event in chunk]
        self.events += len(chunk)

    def finish(self) -> None:
        self._may_fail("finish")

    def close(self) -> None:
        self._may_fail("close")


@pytest.mark.parametrize("room", range(5))
def test_a_batch_is_spilled_whole_or_counted_as_lost(room: int) -> None:
    """No tick without the gap before it, no order without its signal, however little room there is."""
    stage, spill, control, _logged = spilled(SmallSpill(room), Away())
    assert spill.kinds == (["Notice", "Tick", "Signal", "Order"] if room >= 4 else [])
    assert stage.events_lost == (0 if room >= 4 else 4)
    assert stage.ticks_spilled == (1 if room >= 4 else 0)
    assert control.failure is not None and control.failure.code is ExitCode.OVERLOAD


def spilled(spill: SmallSpill, storage: Away) -> tuple[PersistStage, SmallSpill, Control, Logged]:
    """What came of a stage that was given a notice, a tick, a signal and an order."""
    runtime, logged = RealRuntime(), Logged()
    control = Control(runtime, ["persist"])
    channel: Channel[PersistItem] = Channel(runtime, "persist", 10)
    stage, _commit = writer_stages(
        channel, storage, cast(Spill, cast(Any, spill)), "r1", False, FlushPolicy(100, 1.0), RetryPolicy(0.0),
        Metrics(), control, logged.log, runtime,
    )  # fmt: skip
    for event in (Notice("GAP", 1, "", "TEST/USD", 2), tick(5), signal(5), order(5)):
        channel.send(as_item(event))
    channel.close()
    stage.run()
    logged.log.close()
    return stage, spill, control, logged


@pytest.mark.parametrize("number", [errno.EROFS, errno.EIO])
@pytest.mark.parametrize(
    ("fails", "lost"),
    [
        (("begin",), 4),
        (("append",), 4),
        (("finish",), 0),
        (("begin", "close"), 4),
        (("append", "finish", "close"), 4),
        (("finish", "close"), 0),
    ],
)
def test_a_disk_that_fails_while_a_spill_ends_is_13_and_everything_is_counted(
    fails: tuple[str, ...], lost: int, number: int
) -> None:
    """No step of cleaning up may end with a traceback, exit code 1, or events that nothing accounts for."""
    stage, spill, control, logged = spilled(SmallSpill(9, *fails, number=number), Away())
    assert control.failure is not None and control.failure.code is ExitCode.OVERLOAD
    assert stage.events_lost == lost
    assert stage.events_lost + spill.events == 4
    assert stage.ticks_spilled == (0 if lost else 1)
    said = {line["fields"].get("event"): line["fields"] for line in logged.lines()}
    reason = os.strerror(number)
    if lost:
        assert said[LogEvent.SPILL_FAILED]["detail"].endswith(reason)
    if set(fails) & {"finish", "close"}:
        assert said[LogEvent.CLEANUP_FAILED]["detail"].endswith(reason)
    assert not any(line["level"] == "ERROR" and "exception" in line["fields"] for line in logged.lines())


def test_a_connection_that_cannot_be_closed_is_13() -> None:
    """SQLite moves its log into the database as it closes, which may fail."""

    class Unclosable(Away):
        def write(self, batch: WriteBatch, patience_ms: int) -> None:
            pass

        def close(self) -> None:
            raise StorageUnavailable("SQLITE_IOERR", "disk I/O error", passing=True)

    stage, spill, control, logged = spilled(SmallSpill(9), Unclosable())
    assert control.failure is not None and control.failure.code is ExitCode.OVERLOAD
    assert stage.ticks_stored == 1 and not spill.used
    assert "SQLITE_IOERR" in logged.one(LogEvent.CLEANUP_FAILED)["detail"]


def test_a_log_that_cannot_be_synced_does_not_keep_events_from_the_spill() -> None:
    """Without the sync a power loss may set the spill aside; without the spill the events are lost now."""

    class Unsynced(Away):
        def sync_wal(self) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    stage, spill, _control, logged = spilled(SmallSpill(9), Unsynced())
    assert spill.events == 4 and stage.events_lost == 0
    assert logged.one(LogEvent.WAL_SYNC_FAILED)["event"] == LogEvent.WAL_SYNC_FAILED


def test_the_log_is_synced_before_the_header_is_written() -> None:
    """The header counts only what no power loss can take."""
    steps: list[str] = []

    class Steps(Away):
        def sync_wal(self) -> None:
            steps.append("sync")

    class Begins(SmallSpill):
        def begin(self, run_id: str, counts: StoredCounts, events: Sequence[Event] = ()) -> None:
            steps.append("begin")

    spilled(Begins(9), Steps())
    assert steps == ["sync", "begin"]
