"""The supervisor that does not see the unit's engine: another database, none, a manager that tells nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.ops.soak.test_supervisor import Bench
from tests.unit.telemetry.test_engine_side import status_of
from tradebot.ops.soak.systemctl import UnitLook
from tradebot.ops.soak.throttle_ladder import RUNGS


class TestAnotherDatabase:
    """Found by a newcomer: with a wrong --db a healthy engine was restarted every 45 seconds."""

    def bench(self, **changes: Any) -> Bench:
        return Bench(unit=UnitLook(load="loaded", active="active", main_pid=7), ticking=False, **changes)

    def test_an_engine_that_wrote_no_status_here_is_not_restarted(self) -> None:
        for status in (None, status_of(pid=8, written_s=900.0)):
            bench = self.bench(status=status)
            bench.poll(20)
            assert bench.restarts == []
            assert any("is --db the one that tradebot.service writes?" in (line.detail or "") for line in bench.lines)
            assert any("not restarted: process 7" in line.reason for line in bench.lines)
            assert any("is --db the one that tradebot.service writes?" in wrong for wrong in bench.supervisor.unwell())

    def test_the_reason_is_told_once_and_again_when_it_is_another(self) -> None:
        bench = self.bench()
        bench.poll(40)
        assert sum("; not restarted" in line.reason for line in bench.lines) == 1
        bench.poll(unit=UnitLook(load="loaded", active="active", main_pid=8))
        assert "not restarted: process 8" in bench.lines[-1].reason
        bench.poll(40)
        assert sum("; not restarted" in line.reason for line in bench.lines) == 2
        bench.poll(ticking=True)
        bench.poll(9, ticking=False)
        assert "not restarted: process 8" in bench.lines[-1].reason, "another stall"

    def test_nor_for_pressure_and_no_throttle_is_written_beside_what_is_not_the_units(self) -> None:
        bench = self.bench(cpu=48.0)
        bench.poll(6)
        assert (bench.restarts, bench.throttles, bench.supervisor.rung) == ([], [], RUNGS[0])
        assert sum("not restarted: process 7" in line.reason for line in bench.lines) == 3, "one for each step"
        last = bench.lines[-1]
        assert last.action == "ABORT" and last.reason.endswith(
            "throttled: not done, because the restart for the last step is still pending"
        )
        assert last.detail is not None and "still pending: Throttling up to THROTTLE3" in last.detail

    def test_a_step_waits_for_an_engine_that_had_not_written_yet(self) -> None:
        bench = self.bench(cpu=48.0)
        bench.poll()
        (line,) = bench.poll(cpu=15.0, status=status_of(pid=7, written_s=1009.0))
        assert (line.action, bench.throttles, bench.restarts) == ("ENGINE_RESTART", [(5, "THROTTLE1")], [1010.0])
        assert bench.supervisor.unwell() == []

    def test_one_that_was_seen_to_write_it_is(self) -> None:
        bench = self.bench(status=status_of(pid=7, written_s=1000.0))
        bench.poll(20, status=status_of(pid=6, written_s=900.0))
        assert bench.restarts != []

    def test_a_throttle_file_that_broke_is_mended_before_a_restart(self) -> None:
        bench = self.bench(status=status_of(pid=7, written_s=1000.0), broken=True)
        bench.poll(12, unit=UnitLook(load="loaded", active="failed", exit_status=12))
        assert bench.throttles[:1] == [(1, "NORMAL")]
        assert bench.restarts != []

    def test_a_unit_on_its_way_is_not_asked_again(self) -> None:
        bench = Bench(unit=UnitLook(load="loaded", active="activating", sub="auto-restart"), ticking=False)
        bench.poll(20)
        assert bench.restarts == []
        assert any("is already activating" in line.reason for line in bench.lines)
        bench.poll(1, unit=UnitLook(load="loaded", active="active"))
        assert bench.restarts != []


class TestNoEngine:
    """Found by review: nothing was ever seen of an engine, and its unit was restarted every 45 s and called GOOD."""

    @pytest.mark.parametrize("pid", [None, 0])
    @pytest.mark.parametrize("active", ["active", "reloading", None])
    def test_what_was_never_seen_does_not_stand_still(self, active: str | None, pid: int | None) -> None:
        bench = Bench(made=False, unit=UnitLook(load="loaded", active=active, main_pid=pid))
        bench.poll(40)
        assert bench.restarts == []
        (already_reported,) = [line for line in bench.lines if "; not restarted" in line.reason]
        assert already_reported.reason == (
            "No progress for 45.0 s: there is no database of an engine, no status of an engine; not restarted: no"
            " engine was ever seen in this database, so no stall can be detected: is --db the one that"
            " tradebot.service writes?"
        )

    def test_nor_where_the_manager_does_not_answer(self) -> None:
        bench = Bench(made=False, show_error="show: exit 1")
        bench.poll(40)
        assert bench.restarts == []

    def test_a_unit_that_is_known_not_to_run_is_started(self) -> None:
        bench = Bench(made=False, unit=UnitLook(load="loaded", active="failed", main_pid=0, exit_status=1))
        bench.poll(9)
        assert bench.restarts == [1045.0]
        assert bench.lines[-1].reason == "No progress for 45.0 s: tradebot.service is not running: failed"

    @pytest.mark.parametrize(
        "seen", [{"made": True}, {"status": status_of(written_s=1.0)}, {"status_error": "damaged"}]
    )
    def test_one_that_was_seen_once_is_restarted(self, seen: dict[str, Any]) -> None:
        bench = Bench(made=False, ticking=False)
        bench.poll(**seen)
        bench.poll(10, made=False, status=None, status_error=None)
        assert len(bench.restarts) == 1

    def test_pressure_is_the_machines_and_needs_no_database(self) -> None:
        bench = Bench(made=False, cpu=48.0)
        assert [line.action for line in bench.poll()] == ["ENGINE_RESTART"]
        bench.poll(8, cpu=15.0)
        assert bench.restarts == [1005.0]

    def test_a_step_of_the_ladder_at_a_stall_of_nothing_is_carried_out(self) -> None:
        bench = Bench(made=False)
        bench.poll(8)
        assert [line.action for line in bench.poll(cpu=48.0)] == ["ENGINE_RESTART", "NONE"]
        assert bench.supervisor.stalls == 0 and bench.restarts == [1045.0]

    def test_what_was_never_seen_is_not_well(self) -> None:
        bench = Bench(made=False, show_error="systemctl show: exit 1")
        bench.poll(2)
        assert bench.supervisor.unwell() == [
            "the unit was never seen: systemctl show: exit 1",
            "neither a tick nor an engine was ever seen in this database:"
            " is --db the one that tradebot.service writes?",
        ]

    @pytest.mark.parametrize(
        "seen",
        [
            {"made": True, "ticking": False},
            {"made": True, "status": status_of(written_s=1003.0)},
            {"status": status_of(written_s=-5)},
        ],
    )
    def test_an_engine_that_starts_or_is_quiet_is_well(self, seen: dict[str, Any]) -> None:
        bench = Bench(made=False, unit=UnitLook(active="activating"))
        bench.poll(unit=UnitLook(load="loaded", active="active"), **seen)
        assert bench.supervisor.unwell() == []

    def test_a_manager_that_tells_nothing(self) -> None:
        bench = Bench(unit=UnitLook())
        bench.poll(2)
        assert bench.lines[0].detail == "the service manager reports nothing about tradebot.service"
        assert bench.supervisor.unwell() == [
            "the unit was never seen: the service manager reports nothing about tradebot.service"
        ]

    def test_a_manager_that_is_lost_on_the_way(self) -> None:
        bench = Bench()
        bench.poll(9, show_error="Connection timed out")
        assert bench.supervisor.unwell() == ["the unit was not seen for 45 s: Connection timed out"]
        bench.poll(show_error=None)
        assert bench.supervisor.unwell() == []


class TestRemovedDatabase:
    """Found by hand: an engine whose database was deleted under it looked like one of a quiet market, and GOOD."""

    def test_it_is_said_and_a_stall(self) -> None:
        bench = Bench()
        for _ in range(8):
            bench.poll(made=False, status=status_of(written_s=bench.now_s + 4.5))
        already_reported = "the database does not exist, although process 7 writes it: was it moved away?"
        assert bench.restarts == [] and bench.supervisor.unwell() == [already_reported]
        bench.poll(status=status_of(written_s=bench.now_s + 4.5))
        assert (
            bench.lines[-1].action == "STALL"
            and bench.lines[-1].reason == f"No progress for 45.0 s: {already_reported}"
        )
        bench.poll(made=True, status=status_of(written_s=bench.now_s + 4.5))
        assert bench.supervisor.unwell() == []


class TestLateRestart:
    """A client that is given up after its time does not take back what it asked the manager for."""

    def test_a_restart_that_came_about_after_all_is_not_asked_for_again(self) -> None:
        bench = Bench(ticking=False, unit=UnitLook(active="active", invocation="a"))
        bench.poll(9, restart_error="no answer within 180 s")
        (line,) = bench.poll(restart_error=None, unit=UnitLook(active="active", invocation="b"))
        assert (line.action, line.restarts, line.stalls, bench.restarts) == ("STALL", 1, 1, [])
        assert line.reason.endswith("no status of an engine; it took effect after all")
        bench.poll(8)
        assert bench.restarts == []
        bench.poll()
        assert bench.restarts == [1095.0]

    def test_not_so_when_the_throttle_has_changed_since(self) -> None:
        bench = Bench(unit=UnitLook(active="active", invocation="a"))
        bench.poll(cpu=48.0, restart_error="no answer within 180 s")
        bench.poll(restart_error=None, unit=UnitLook(active="active", invocation="b"))
        assert bench.restarts == [1010.0] and bench.throttles == [(5, "THROTTLE1"), (10, "THROTTLE2")]

    def test_a_start_of_an_earlier_matter_is_none(self) -> None:
        bench = Bench(ticking=False, unit=UnitLook(active="active", invocation="a"))
        bench.poll(9, restart_error="failed")
        bench.poll(ticking=True, unit=UnitLook(active="active", invocation="b"))
        (line,) = bench.poll(restart_error=None, cpu=48.0)
        assert line.action == "ENGINE_RESTART" and len(bench.restarts) == 1
        assert bench.supervisor.other_starts == 0
        bench.poll(unit=UnitLook(active="active", invocation="c"), cpu=15.0)
        assert bench.supervisor.other_starts == 1

    def test_nor_is_it_one_of_the_next_stall(self) -> None:
        bench = Bench(ticking=False, unit=UnitLook(active="active", invocation="a"))
        bench.poll(9, restart_error="failed")
        bench.poll(ticking=True, restart_error=None, unit=UnitLook(active="active", invocation="b"))
        bench.poll(9, ticking=False)
        assert bench.restarts == [1095.0]


class TestReviewed:
    """What a review found: each lost a restart, or told one that was not."""

    def test_a_step_is_not_credited_with_a_start_that_was_under_way_before_its_file(self) -> None:
        bench = Bench(cpu=48.0, unit=UnitLook(active="active", invocation="a"))
        bench.poll(restart_error="no answer within 180 s")
        bench.poll(unit=UnitLook(active="activating", invocation="b"), restart_error=None)
        assert bench.throttles == [(5, "THROTTLE1"), (10, "THROTTLE2")] and bench.restarts == []
        bench.poll(unit=UnitLook(active="active", invocation="b"), cpu=5.0)
        assert len(bench.restarts) == 1, "the engine that came up may have read 1 of 5"

    def test_a_stall_does_not_wait_for_a_throttle_file_that_cannot_be_written(self) -> None:
        bench = Bench(cpu=48.0, ticking=False, throttle_error="No space left on device")
        bench.poll(10, cpu=30.0)
        assert [line.action for line in bench.lines].count("STALL") == len(bench.restarts) == 1
        assert bench.throttles == []
        bench.poll(throttle_error=None, ticking=True)
        assert bench.throttles and len(bench.restarts) == 2, "the step was still pending"

    def test_but_for_one_with_which_no_engine_would_start(self) -> None:
        bench = Bench(ticking=False, throttle_error="No space left on device", broken=True)
        bench.poll(12)
        assert bench.restarts == []
        bench.poll(throttle_error=None, broken=False)
        assert len(bench.restarts) == 1

    def test_a_status_that_cannot_be_read_speaks_against_no_restart(self) -> None:
        bench = Bench(ticking=False, status_error="damaged", unit=UnitLook(active="active", main_pid=7))
        bench.poll(9)
        assert len(bench.restarts) == 1

    def test_a_status_of_another_process_is_named(self) -> None:
        bench = Bench(ticking=False, unit=UnitLook(active="active", main_pid=7))
        for _ in range(9):
            (line,) = bench.poll(status=status_of(pid=9, written_s=bench.now_s + 5, depths={"tick": 1}))
        assert bench.restarts == []
        assert "process 9 writes the status beside this database, and tradebot.service is process 7" in line.reason

    def test_fewer_ticks_are_no_progress(self) -> None:
        bench = Bench(tick=1000, ticking=False)
        for _ in range(9):
            bench.poll(tick=bench.tick - 10)
        assert len(bench.restarts) == 1

    def test_killed_by_signal_12_is_not_refused(self) -> None:
        assert UnitLook(active="failed", exit_status=12, result="exit-code").refused
        assert not UnitLook(active="failed", exit_status=12, result="signal").refused

    def test_a_name_that_is_no_text_can_be_recorded(self) -> None:
        bench = Bench(status_error="status file a\udcff.json: damaged")
        bench.poll()
        assert b"\\\\udcff" in b"".join(line.as_line() for line in bench.lines)
