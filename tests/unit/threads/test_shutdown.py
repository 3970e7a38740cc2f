"""What the stages tell each other: the first failure, the end of each stage, and until when to drain."""

from __future__ import annotations

import pytest

from tests.unit.store_helpers import FakeRuntime
from tradebot.core.errors import ExitCode
from tradebot.threads.shutdown import Control, Failure


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture
def control(runtime: FakeRuntime) -> Control:
    return Control(runtime, ("persist", "strategy", "ingest"))


def test_at_the_beginning(control: Control) -> None:
    assert not control.stop.is_requested()
    assert not control.finished.is_set()
    assert (control.failure, control.drain_deadline) == (None, None)
    assert control.running() == ["ingest", "persist", "strategy"]


class TestFailure:
    def test_stops_reading(self, control: Control) -> None:
        """G5: whatever failed, no more input is read."""
        control.fail(ExitCode.OVERLOAD, "ingest", "full")
        assert control.stop.is_requested()
        assert not control.finished.is_set()
        assert control.failure == Failure(ExitCode.OVERLOAD, "ingest", "full")

    def test_the_first_one_stays(self, control: Control) -> None:
        """G5: the exit code tells what went wrong first, not what followed from it."""
        control.fail(ExitCode.PARSE, "ingest", "line 7")
        control.fail(ExitCode.OVERLOAD, "persist", "storage failed")
        assert control.failure == Failure(ExitCode.PARSE, "ingest", "line 7")

    def test_a_crash_outranks_others_but_not_the_crash_before(self, control: Control) -> None:
        """A bug is never hidden behind another code."""
        control.fail(ExitCode.OVERLOAD, "ingest", "full")
        control.fail(ExitCode.CRASH, "strategy", "ValueError: first")
        control.fail(ExitCode.CRASH, "persist", "ValueError: second")
        control.fail(ExitCode.OVERLOAD, "engine", "drain")
        assert control.failure == Failure(ExitCode.CRASH, "strategy", "ValueError: first")


class TestStop:
    def test_sets_the_deadline_once(self, control: Control, runtime: FakeRuntime) -> None:
        """S13: asking again, as the engine does at each look, never moves the deadline."""
        control.begin_stop(30.0)
        assert control.stop.is_requested()
        runtime.sleep(10.0)
        control.begin_stop(30.0)
        assert control.drain_deadline == 1030.0

    def test_a_failure_leaves_the_deadline_to_the_engine(self, control: Control) -> None:
        control.fail(ExitCode.OVERLOAD, "ingest", "full")
        assert control.drain_deadline is None
        control.begin_stop(5.0)
        assert control.drain_deadline == 1005.0


class TestEnd:
    def test_finished_when_the_last_stage_has_ended(self, control: Control) -> None:
        control.ended("ingest")
        control.ended("strategy")
        assert control.running() == ["persist"]
        assert not control.finished.is_set()
        control.ended("persist")
        assert control.running() == []
        assert control.finished.is_set()

    def test_a_thread_that_is_no_stage_does_not_count(self, control: Control) -> None:
        """The heartbeat waits for the stages: it cannot be one that they wait for."""
        control.ended("heartbeat")
        control.ended("ingest")
        control.ended("ingest")
        assert control.running() == ["persist", "strategy"]
        assert not control.finished.is_set()

    def test_failing_is_not_ending(self, control: Control) -> None:
        control.fail(ExitCode.CRASH, "strategy", "x")
        assert "strategy" in control.running()
