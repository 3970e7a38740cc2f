"""The supervisor on a bench: what it does about what it sees, what it records, and what it leaves alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.telemetry.test_engine_side import status_of
from tradebot.core.errors import ConfigError
from tradebot.ops.soak.decision_log import SoakDecision
from tradebot.ops.soak.probes import Seams
from tradebot.ops.soak.psi import Pressure, PsiLook
from tradebot.ops.soak.reasons import SoakEnding
from tradebot.ops.soak.stall import Newest, alive_s
from tradebot.ops.soak.supervisor import PSI_OFF, Supervisor
from tradebot.ops.soak.systemctl import ServiceError, UnitLook
from tradebot.ops.soak.throttle_ladder import RUNGS, Rung
from tradebot.store.errors import StorageUnavailable
from tradebot.telemetry.status_file import Status
from tradebot.telemetry.throttle_file import Throttle

UNIT = "tradebot.service"


@dataclass
class Bench:
    """A world that a test sets up field by field; `restarts` are the times at which one was carried out."""

    now_s: float = 1000.0
    cpu: float | None = 1.0
    problems: tuple[str, ...] = ()
    tick: int = 1
    made: bool = True
    ticking: bool = True
    database_error: str | None = None
    status: Status | None = None
    status_error: str | None = None
    unit: UnitLook = field(default_factory=lambda: UnitLook(load="loaded", active="active"))
    show_error: str | None = None
    restart_error: str | None = None
    throttle_error: str | None = None
    restarts: list[float] = field(default_factory=list)
    throttles: list[tuple[int, str]] = field(default_factory=list)
    lines: list[SoakDecision] = field(default_factory=list)
    rung: Rung = RUNGS[0]
    psi_actions: bool = True
    broken: bool = False

    def __post_init__(self) -> None:
        seams = Seams(
            now_s=lambda: self.now_s, now_ms=lambda: int(self.now_s * 1000), psi=self._psi,
            newest_tick=self._newest, status=self._status, service=self, throttle=self._throttle,
            record=self.lines.append, throttle_broken=lambda: self.broken,
        )  # fmt: skip
        self.supervisor = Supervisor(seams, UNIT, self.rung, self.psi_actions)
        self.supervisor.begin()

    def restart(self) -> None:
        if self.restart_error is not None:
            raise ServiceError(self.restart_error)
        self.restarts.append(self.now_s)

    def show(self) -> UnitLook:
        if self.show_error is not None:
            raise ServiceError(self.show_error)
        return self.unit

    def poll(self, times: int = 1, **changes: Any) -> list[SoakDecision]:
        """So many polls of five seconds; the lines of the last one."""
        for name, value in changes.items():
            setattr(self, name, value)
        for _ in range(times):
            self.now_s += 5.0
            self.tick += self.ticking
            decided = self.supervisor.poll()
        return decided

    @property
    def acted(self) -> list[tuple[str, str]]:
        """Action and state of every line but those where nothing was done."""
        return [(line.action, line.state) for line in self.lines if line.action != "NONE"]

    def _psi(self) -> PsiLook:
        raw = None if self.cpu is None else f"some avg10={self.cpu:.2f}"
        return PsiLook(Pressure(cpu_some_raw=raw, cpu_some_avg10=self.cpu), self.problems)

    def _newest(self) -> Newest:
        if self.database_error is not None:
            raise StorageUnavailable("SQLITE_BUSY", self.database_error, True)
        return Newest(self.tick, 0) if self.made else Newest(None, None, made=False)

    def _status(self) -> Status | None:
        if self.status_error is not None:
            raise ConfigError(self.status_error)
        return self.status

    def _throttle(self, throttle: Throttle) -> None:
        if self.throttle_error is not None:
            raise OSError(28, self.throttle_error)
        self.throttles.append((throttle.sample_every, throttle.state))


class TestLadder:
    def test_the_first_line_and_a_calm_one(self) -> None:
        bench = Bench()
        bench.poll()
        start, calm = bench.lines
        assert (start.reason, start.action, start.state, start.sample_every) == ("Soak Start", "NONE", "NORMAL", 1)
        assert (calm.reason, calm.action, calm.pressure.cpu_some_raw) == ("Calm: CPU 1.0", "NONE", "some avg10=1.00")
        assert (calm.timestamp, calm.ts_ms) == ("1970-01-01T00:16:45.000Z", 1_005_000)

    def test_the_start_decides_nothing(self) -> None:
        assert Bench(cpu=99.0).restarts == []

    def test_up_to_the_end_abort_and_no_more(self) -> None:
        bench = Bench(cpu=48.0)
        bench.poll(6)
        assert bench.throttles == [(5, "THROTTLE1"), (10, "THROTTLE2"), (20, "THROTTLE3")]
        assert bench.restarts == [1005.0, 1010.0, 1015.0]
        assert bench.acted == [
            ("ENGINE_RESTART", "THROTTLE1"), ("ENGINE_RESTART", "THROTTLE2"), ("ENGINE_RESTART", "THROTTLE3"),
            ("ABORT", "THROTTLE3"),
        ]  # fmt: skip
        assert bench.lines[1].reason == "Throttling up to THROTTLE1 due to PSI: CPU 48.0"
        assert bench.supervisor.aborted and len(bench.lines) == 7
        assert [line.restarts for line in bench.lines] == [0, 1, 2, 3, 3, 3, 3]

    def test_down_again_after_a_minute_of_calm(self) -> None:
        bench = Bench(rung=RUNGS[2])
        bench.poll(24)
        assert bench.throttles == [(5, "THROTTLE1"), (1, "NORMAL")]
        assert bench.restarts == [1060.0, 1120.0]
        assert bench.acted == [("ENGINE_RESTART", "THROTTLE1"), ("ENGINE_RESTART", "NORMAL")]

    def test_with_actions_off_all_is_recorded_and_nothing_done(self) -> None:
        bench = Bench(psi_actions=False, cpu=48.0)
        bench.poll(8)
        assert (bench.restarts, bench.throttles, bench.acted, bench.supervisor.aborted) == ([], [], [], False)
        assert all(line.state == "NORMAL" and line.sample_every == 1 for line in bench.lines)
        assert bench.lines[1].reason == PSI_OFF + "Throttling up to THROTTLE1 due to PSI: CPU 48.0"
        assert [line.reason for line in bench.lines if "poll" in line.reason and "for 3 polls" in line.reason] == [
            bench.lines[6].reason
        ]
        bench.poll(12, cpu=1.0)
        assert bench.lines[-1].reason.startswith(PSI_OFF + "Throttling down to THROTTLE2")

    def test_a_restart_that_fails_is_tried_again(self) -> None:
        bench = Bench(restart_error="restart: exit 1: Access denied")
        (line,) = bench.poll(cpu=48.0)
        assert (line.action, line.state, line.restarts) == ("NONE", "THROTTLE1", 0)
        assert line.reason == (
            "Throttling up to THROTTLE1 due to PSI: CPU 48.0; not done: restart: exit 1: Access denied;"
            " tried again at the next poll"
        )
        bench.poll(3, cpu=15.0)
        assert bench.restarts == [] and bench.supervisor.unwell() != []
        (line,) = bench.poll(restart_error=None)
        assert (line.action, bench.restarts, bench.throttles) == ("ENGINE_RESTART", [1025.0], [(5, "THROTTLE1")])
        assert bench.poll()[0].action == "NONE" and bench.supervisor.unwell() == []

    def test_a_throttle_file_that_cannot_be_written_holds_the_restart_back(self) -> None:
        bench = Bench(throttle_error="No space left on device")
        (line,) = bench.poll(cpu=48.0)
        assert (line.action, line.state, bench.restarts) == ("NONE", "NORMAL", [])
        assert "not done: throttle file: No space left on device" in line.reason
        bench.poll(cpu=48.0)
        (line,) = bench.poll(cpu=15.0, throttle_error=None)
        assert (line.action, line.state, bench.throttles) == ("ENGINE_RESTART", "THROTTLE2", [(10, "THROTTLE2")])
        assert len(bench.restarts) == 1

    def test_what_somebody_stopped_is_not_started(self) -> None:
        bench = Bench(unit=UnitLook(load="loaded", active="inactive", sub="dead"))
        (line,) = bench.poll(cpu=48.0)
        assert (line.action, line.state, bench.throttles) == ("NONE", "THROTTLE1", [(5, "THROTTLE1")])
        assert "soak does not start a stopped unit" in line.reason and line.unit_state == "inactive"
        bench.poll(20, ticking=False)
        assert bench.restarts == [] and bench.supervisor.unwell() == [f"{UNIT} is not running: inactive (dead)"]


class TestStall:
    def test_45_seconds_without_a_tick(self) -> None:
        bench = Bench()
        bench.poll(2)
        bench.poll(8, ticking=False)
        assert bench.restarts == [] and bench.supervisor.due_s == 1055.0
        (line,) = bench.poll()
        assert (line.action, line.seconds_since_progress, line.stalls, bench.restarts) == ("STALL", 45.0, 1, [1055.0])
        assert line.reason == "No progress for 45.0 s: no new tick, no status of an engine"
        bench.poll(8)
        assert len(bench.restarts) == 1
        bench.poll()
        assert bench.restarts == [1055.0, 1100.0]

    def test_between_two_polls_when_it_is_due(self) -> None:
        bench = Bench(ticking=False)
        bench.now_s = bench.supervisor.due_s - 0.1
        assert bench.supervisor.check_stall() == []
        before = len(bench.lines)
        bench.now_s += 0.1
        (line,) = bench.supervisor.check_stall()
        assert (line.action, line.seconds_since_progress, len(bench.lines)) == ("STALL", 45.0, before + 1)

    def test_restarts_of_the_ladder_do_not_hide_it(self) -> None:
        bench = Bench(ticking=False)
        bench.poll(3, cpu=48.0)
        bench.poll(5, cpu=15.0)
        assert len(bench.restarts) == 3
        assert [line.action for line in bench.poll()] == ["STALL"]

    def test_one_restart_for_both_causes(self) -> None:
        bench = Bench(ticking=False)
        bench.poll(8)
        assert [line.action for line in bench.poll(cpu=48.0)] == ["ENGINE_RESTART", "STALL"]
        assert bench.restarts == [1045.0] and bench.throttles == [(5, "THROTTLE1")]

    @pytest.mark.parametrize("psi_actions", [True, False])
    def test_with_psi_actions_off_too(self, psi_actions: bool) -> None:
        bench = Bench(ticking=False, psi_actions=psi_actions)
        bench.poll(9)
        assert bench.acted == [("STALL", "NORMAL")] and len(bench.restarts) == 1

    def test_one_that_fails_is_tried_again_at_the_next_poll(self) -> None:
        bench = Bench(ticking=False, restart_error="no answer within 120 s")
        (line,) = bench.poll(9)
        assert (line.action, line.stalls) == ("NONE", 0)
        assert "No progress for 45.0 s" in line.reason and "no answer within 120 s; tried again" in line.reason
        (line,) = bench.poll(restart_error=None)
        assert (line.action, line.seconds_since_progress, bench.restarts) == ("STALL", 50.0, [1050.0])
        bench.poll(8)
        assert bench.restarts == [1050.0]
        bench.poll()
        assert bench.restarts == [1050.0, 1095.0]

    def test_one_that_is_owed_is_dropped_when_ticks_come(self) -> None:
        bench = Bench(ticking=False, restart_error="exit 1")
        bench.poll(9)
        (line,) = bench.poll(ticking=True, restart_error=None)
        assert (line.action, bench.restarts, bench.supervisor.unwell()) == ("NONE", [], [])

    def test_a_quiet_market_is_none_until_the_engine_falls_silent(self) -> None:
        bench = Bench(ticking=False)
        for _ in range(40):
            bench.poll(status=status_of(written_s=bench.now_s + 4.5))
        assert bench.restarts == [] and bench.lines[-1].seconds_since_tick == 200.0
        bench.poll(8)
        assert bench.restarts == []
        bench.poll()  # 45.5 s after it last spoke
        assert bench.restarts == [1245.0] and "written no status for 46 s" in bench.lines[-1].reason

    @pytest.mark.parametrize(
        "change",
        [
            {"link": "down"}, {"running": ("persist",)}, {"still_s": {"persist": 40.0}}, {"state": "ended"},
            {"depths": {"tick": 0, "signal": 0, "persist": 3}},
        ],
        ids=lambda change: next(iter(change)),
    )  # fmt: skip
    def test_an_engine_that_is_not_well_is_no_quiet_one(self, change: dict[str, Any]) -> None:
        bench = Bench(ticking=False)
        for _ in range(9):
            bench.poll(status=status_of(written_s=bench.now_s + 4.5, **change))
        assert bench.restarts == [1045.0]

    def test_words_of_another_boot_are_no_life(self) -> None:
        assert alive_s(status_of(written_s=5000.0), None, 100.0) is None
        assert alive_s(status_of(written_s=99.0), Newest(1, 1), 100.0) == 99.0

    def test_an_engine_that_refuses_its_configuration_is_not_started_again_and_again(self) -> None:
        failed = UnitLook(load="loaded", active="failed", sub="failed", result="exit-code", exit_status=12)
        bench = Bench(ticking=False, unit=failed)
        bench.poll(30)
        assert bench.restarts == []
        already_reported = [line for line in bench.lines if "exited with 12 (configuration error)" in line.reason]
        assert len(already_reported) == 1 and all(line.action == "NONE" for line in already_reported)
        bench.poll(8, unit=UnitLook(load="loaded", active="active"))
        assert bench.restarts == [], "an engine started by another has the whole limit to show progress"
        bench.poll()
        assert len(bench.restarts) == 1

    def test_one_that_crashed_is(self) -> None:
        failed = UnitLook(load="loaded", active="failed", sub="failed", result="exit-code", exit_status=12)
        bench = Bench(ticking=False, unit=failed)
        bench.poll(30)
        bench.poll(10, unit=replace_unit(failed, exit_status=1))
        assert len(bench.restarts) == 1


def replace_unit(unit: UnitLook, **changes: Any) -> UnitLook:
    """The unit with changes."""
    return UnitLook(**{name: changes.get(name, getattr(unit, name)) for name in unit.__struct_fields__})


class TestTrouble:
    def test_all_at_once_is_told_once_and_nothing_breaks(self) -> None:
        bench = Bench(
            cpu=None, problems=("PSI /x/cpu: gone",), database_error="database is locked", status_error="damaged",
            show_error="systemctl: No such file or directory", restart_error="systemctl: No such file or directory",
        )  # fmt: skip
        bench.poll(20)
        details = [line.detail for line in bench.lines]
        assert details[0] is not None
        for already_reported in ("PSI /x/cpu: gone", "database is locked", "damaged", "No such file"):
            assert already_reported in details[0]
        assert details[1:] == [None] * 20
        assert all("tried again" in line.reason for line in bench.lines[9:])
        assert bench.poll(problems=("PSI /x/cpu: other",))[0].detail == "PSI /x/cpu: other"

    def test_ticks_count_although_nothing_else_can_be_read(self) -> None:
        bench = Bench(cpu=None, show_error="x", status_error="y")
        bench.poll(40)
        assert bench.acted == []

    def test_a_unit_that_is_not_there_is_said_and_asked_for(self) -> None:
        bench = Bench(ticking=False, unit=UnitLook(load="not-found", active="inactive"), restart_error="not found")
        assert bench.lines[0].detail == f"{UNIT} is not known to the service manager"
        (line,) = bench.poll(9)
        assert "not done: not found" in line.reason

    def test_the_last_line_says_what_is_wrong(self) -> None:
        bench = Bench(ticking=False)
        bench.poll(9)
        last = bench.supervisor.end(SoakEnding.DURATION_OVER)
        assert last.reason == "Soak End: its duration is over" and last.detail == "no progress for 45.0 s"


@given(
    st.lists(
        st.tuples(st.sampled_from([None, 1.0, 15.0, 48.0]), st.booleans(), st.booleans(), st.booleans()), max_size=60
    ),
    st.booleans(),
)
def test_every_poll_has_a_line_and_every_restart_a_cause(
    polls: list[tuple[float | None, bool, bool, bool]], psi_actions: bool
) -> None:
    bench = Bench(psi_actions=psi_actions)
    last_stall_s = -1000.0
    for cpu, ticking, alive, failing in polls:
        if bench.supervisor.aborted:
            break
        before, at_s = len(bench.restarts), bench.now_s + 5.0
        lines = bench.poll(
            cpu=cpu, ticking=ticking, status=status_of(written_s=at_s - 0.5) if alive else None,
            restart_error="failed" if failing else None,
        )  # fmt: skip
        actions = [line.action for line in lines]
        assert lines and lines == bench.lines[-len(lines) :]
        assert (len(bench.restarts) > before) == bool({"STALL", "ENGINE_RESTART"} & set(actions))
        assert not (failing and len(bench.restarts) > before)
        if "STALL" in actions:
            assert lines[0].seconds_since_progress >= 45.0 and at_s - last_stall_s >= 45.0
            last_stall_s = at_s
        if not psi_actions:
            assert set(actions) <= {"NONE", "STALL"} and bench.throttles == []
        assert lines[-1].sample_every == bench.supervisor.rung.sample_every
        # Nothing is left undone for longer than the limit, unless the manager does not do it.
        since_s = lines[-1].seconds_since_progress
        assert since_s < 45.0 or failing or "STALL" in actions or at_s - last_stall_s < 45.0
