"""How long the persist stage insists on a storage that fails, to the second: simulated time, one thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from sim.kernel.runtime import SimRuntime
from tests.unit.store_helpers import Logged, order, signal, tick
from tradebot.core.channel import Channel
from tradebot.core.errors import ExitCode
from tradebot.core.events import Event, PersistItem, as_item
from tradebot.core.log_events import LogEvent
from tradebot.store.batch import StoredCounts, WriteBatch
from tradebot.store.errors import StorageUnavailable
from tradebot.store.policy import FINAL_FLUSH_S, FlushPolicy, RetryPolicy
from tradebot.threads.counters import Metrics
from tradebot.threads.persist import writer_stages
from tradebot.threads.shutdown import Control

_A_LITTLE_S = 0.01


class Failing:
    """A storage that says no in the given spans of time (seconds), at once and without using its patience."""

    counts = StoredCounts()
    wal_bytes = 0

    def __init__(self, runtime: SimRuntime, spans: Sequence[tuple[float, float]], passing: bool = True) -> None:
        self.runtime = runtime
        self.spans = spans
        self.passing = passing
        self.patience_ms: list[int] = []
        self.stored: list[float] = []
        self.wal_bytes = 0

    def open(self) -> None:
        pass

    def write(self, batch: WriteBatch, patience_ms: int) -> None:
        self.patience_ms.append(patience_ms)
        now_s = self.runtime.elapsed_s
        if any(start <= now_s < end for start, end in self.spans):
            raise StorageUnavailable("SQLITE_BUSY" if self.passing else "SQLITE_CORRUPT", "no", self.passing)
        self.stored.append(now_s)

    def sync_wal(self) -> None:
        pass

    def close(self) -> None:
        pass


class Case:
    """A persist stage over a storage that fails; `play` runs it, as the only thread but for the caller's."""

    def __init__(
        self, spans: Sequence[tuple[float, float]], retry_s: float, *, passing: bool = True, batch_size: int = 100
    ) -> None:
        self.runtime = SimRuntime(1, switch_chance=0.0, spurious_chance=0.0, grain="calls")
        self.storage = Failing(self.runtime, spans, passing)
        self.logged = Logged(cast(Any, self.runtime))
        self.control = Control(self.runtime, ["persist"])
        self.channel: Channel[PersistItem] = Channel(self.runtime, "persist", 100)
        self.stage, _commit = writer_stages(
            self.channel, self.storage, None, "r1", False, FlushPolicy(batch_size, 1.0), RetryPolicy(retry_s),
            Metrics(), self.control, self.logged.log, self.runtime,
        )  # fmt: skip

    def play(self, before: Callable[[], None]) -> float:
        """Do `before` and run the stage to its end; the simulated seconds that took."""

        def main() -> float:
            before()
            self.stage.run()
            return self.runtime.elapsed_s

        seconds = self.runtime.run(main, until_s=100_000.0)
        self.logged.log.close()
        return seconds

    def send(self, *events: Event) -> None:
        """Put them on the channel, one chunk each, and close it."""
        for event in events:
            self.channel.send(as_item(event))
        self.channel.close()


def test_the_last_flush_has_five_seconds_after_a_stop() -> None:
    """However much of drain_timeout_s is left, and however long a storage may be retried otherwise."""
    case = Case([(0.0, 1e9)], retry_s=3600.0)

    def stop() -> None:
        case.control.begin_stop(1000.0)
        case.send(tick(1))

    assert case.play(stop) == pytest.approx(FINAL_FLUSH_S, abs=_A_LITTLE_S)
    assert case.stage.storage_error is not None
    assert case.control.failure is not None and case.control.failure.code is ExitCode.OVERLOAD


def test_a_replay_that_ended_by_itself_has_all_its_patience() -> None:
    """Nobody waits for its end: the last batch is retried as long as any other."""
    case = Case([(0.0, 1e9)], retry_s=20.0)
    assert case.play(lambda: case.send(tick(1))) == pytest.approx(20.0, abs=_A_LITTLE_S)
    assert case.stage.storage_error is not None


def test_a_batch_before_the_last_one_ends_with_the_drain() -> None:
    """While channels drain, the deadline is theirs."""
    case = Case([(0.0, 1e9)], retry_s=3600.0, batch_size=1)

    def stop() -> None:
        case.control.begin_stop(8.0)
        case.send(tick(1))

    assert case.play(stop) == pytest.approx(8.0, abs=_A_LITTLE_S)


def test_each_attempt_waits_for_a_lock_as_long_as_there_is_patience() -> None:
    """SQLite's own waiting never outlasts the stage's, and is never below a twentieth of a second."""
    case = Case([(0.0, 1e9)], retry_s=2.0)
    case.play(lambda: case.send(tick(1)))
    first, *later, last = case.storage.patience_ms
    assert first == 2000
    assert later == sorted(later, reverse=True) and later[0] < 2000
    assert last == 50
    patient = Case([], retry_s=3600.0)
    patient.play(lambda: patient.send(tick(1)))
    assert patient.storage.patience_ms == [5000]


def test_what_cannot_pass_is_not_tried_again() -> None:
    """A damaged file stays damaged: given up at the first failure."""
    case = Case([(0.0, 1e9)], retry_s=3600.0, passing=False)
    assert case.play(lambda: case.send(tick(1))) < _A_LITTLE_S
    assert len(case.storage.patience_ms) == 1
    assert case.logged.one(LogEvent.STORAGE_FAILED)["code"] == "SQLITE_CORRUPT"


def test_patience_begins_anew_after_a_success() -> None:
    """Two short failures a minute apart are not one long one."""
    case = Case([(0.0, 1.5), (60.0, 61.5)], retry_s=2.0, batch_size=1)

    def feed() -> None:
        def later() -> None:
            case.runtime.sleep(60.0)
            case.send(tick(2))

        case.channel.send(as_item(tick(1)))
        case.runtime.spawn("feeder", later)

    case.play(feed)
    assert case.stage.storage_error is None and case.stage.ticks_stored == 2
    assert [round(at_s) for at_s in case.storage.stored] == [2, 62]


def test_without_a_spill_file_everything_is_counted_as_lost() -> None:
    """The count of lost events is known: all kinds, not ticks alone."""
    case = Case([(0.0, 1e9)], retry_s=0.0)
    case.play(lambda: case.send(tick(5), signal(5), order(5)))
    assert case.stage.events_lost == 3
    assert (case.stage.ticks_stored, case.stage.ticks_spilled) == (0, 0)
