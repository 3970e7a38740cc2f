"""The service manager's client: two calls, bounded, and tolerant of what it does not understand."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradebot.core.errors import UsageError
from tradebot.core.runtime import RealRuntime
from tradebot.ops.soak.systemctl import ServiceError, Sight, Starts, Systemctl, UnitLook, command_words, parse_show


def program(tmp_path: Path, script: str) -> str:
    """An executable that stands for systemctl."""
    path = tmp_path / "system ctl"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


class Asked(RealRuntime):
    """A runtime in which a stop signal has come once `after` questions were asked."""

    def __init__(self, after: int = 1_000_000) -> None:
        super().__init__()
        self.questions = 0
        self.after = after

    def stop_signals(self) -> int:
        self.questions += 1
        return int(self.questions > self.after)


def test_only_restart_and_show_with_the_units_name(tmp_path: Path) -> None:
    command = program(tmp_path, f'echo "$# $1 $2" >> "{tmp_path}/calls"; echo ActiveState=active')
    systemctl = Systemctl(command, "a.service", RealRuntime())
    systemctl.restart()
    assert systemctl.show() == UnitLook(active="active")
    assert (tmp_path / "calls").read_text() == "2 restart a.service\n2 show a.service\n"


def test_arguments_may_follow_the_program() -> None:
    assert command_words("systemctl --user") == ["systemctl", "--user"]
    for wrong in ("", "'"):
        with pytest.raises(UsageError, match="--systemctl"):
            command_words(wrong)


def test_a_failure_says_what_the_program_said(tmp_path: Path) -> None:
    command = program(tmp_path, "echo hint >&2; printf 'Unit x not\\033[31m found.\\n' >&2; exit 5")
    with pytest.raises(ServiceError, match=r"restart x.service: exit 5: Unit x not\\x1b\[31m found."):
        Systemctl(command, "x.service", RealRuntime()).restart()
    with pytest.raises(ServiceError, match="No such file"):
        Systemctl("/none/systemctl", "x.service", RealRuntime()).show()
    with pytest.raises(ServiceError, match="exit 1: no error message"):
        Systemctl("false", "x.service", RealRuntime()).show()


def test_no_call_waits_for_ever(tmp_path: Path) -> None:
    systemctl = Systemctl(program(tmp_path, "exec sleep 60"), "x.service", RealRuntime(), restart_s=0.2)
    began_s = time.monotonic()
    with pytest.raises(ServiceError, match=r"no answer within 0\.2 s"):
        systemctl.restart()
    assert time.monotonic() - began_s < 5


def test_one_that_talks_without_end_does_not_fill_the_memory() -> None:
    began_s = time.monotonic()
    with pytest.raises(
        ServiceError, match=r"yes show x.service: cancelled: its output is too long for a service manager"
    ):
        Systemctl("yes", "x.service", RealRuntime()).show()
    assert time.monotonic() - began_s < 5


def test_a_stop_signal_ends_the_wait(tmp_path: Path) -> None:
    systemctl = Systemctl(program(tmp_path, "exec sleep 60"), "x.service", Asked(2))
    with pytest.raises(ServiceError, match="asked to stop"):
        systemctl.restart()


def test_what_the_engine_inherits_keeps_nobody_waiting(tmp_path: Path) -> None:
    """A stand-in may leave its standard streams to the engine it starts."""
    systemctl = Systemctl(program(tmp_path, "sleep 3 & echo ActiveState=active"), "x.service", RealRuntime())
    began_s = time.monotonic()
    assert systemctl.show().active == "active"
    assert time.monotonic() - began_s < 2.5


@pytest.mark.parametrize("unit", ["", "-x", "a b", "a/b", "x" * 300, "a\n"])
def test_what_is_no_unit_is_refused(unit: str) -> None:
    with pytest.raises(UsageError, match="--unit"):
        Systemctl("systemctl", unit, RealRuntime())


def test_show_as_systemd_answers() -> None:
    look = parse_show(
        "Type=notify\nLoadState=loaded\nActiveState=failed\nSubState=failed\nResult=exit-code\nMainPID=0\n"
        "ExecMainStatus=12\nInvocationID=0123abcd\nEnvironment=A=b C=d\nno equals\n=\n"
    )
    assert look == UnitLook("loaded", "failed", "failed", "exit-code", 0, 12, "0123abcd")
    assert look.refused and not look.stopped and look.trouble == "not running: failed: exit-code, exit status 12"


@pytest.mark.parametrize(
    ("text", "stopped", "trouble"),
    [
        ("", False, None),
        ("ActiveState=active", False, None),
        ("ActiveState=refreshing", False, None),
        ("ActiveState=\nMainPID=x\n", False, None),
        ("ActiveState=inactive\nSubState=dead\nLoadState=loaded", True, "not running: inactive (dead)"),
        ("ActiveState=inactive\nLoadState=not-found", False, "not known to the service manager"),
        ("ActiveState=activating\nSubState=auto-restart", False, "not running: activating (auto-restart)"),
        ("ActiveState=failed\nResult=signal", False, "not running: failed: signal"),
    ],
)
def test_what_a_look_means(text: str, stopped: bool, trouble: str | None) -> None:
    look = parse_show(text)
    assert (look.stopped, look.trouble) == (stopped, trouble)


@given(st.text(max_size=400))
def test_no_answer_breaks_it(text: str) -> None:
    parse_show(text)


def test_when_it_was_last_seen() -> None:
    sight = Sight()
    assert sight.lost(99.0, 45.0) == "the unit was never seen: not polled yet"
    sight.look(100.0, "exit 1")
    assert sight.lost(100.0, 45.0) == "the unit was never seen: exit 1"
    sight.look(105.0, None)
    sight.look(110.0, "exit 2")
    assert sight.lost(149.9, 45.0) is None
    assert sight.lost(150.0, 45.0) == "the unit was not seen for 45 s: exit 2"
    assert UnitLook().silent and not UnitLook(main_pid=0).silent


def test_all_starts_are_counted_not_only_those_of_soak() -> None:
    starts = Starts()
    looks = [
        UnitLook(),
        UnitLook(main_pid=7, invocation="a"),
        UnitLook(main_pid=7, invocation="a"),
        UnitLook(main_pid=0, invocation="b"),
        UnitLook(main_pid=9, invocation="b"),
        UnitLook(active="active"),
        UnitLook(main_pid=9, invocation="b"),
        UnitLook(main_pid=9, invocation="c"),
    ]
    counted = []
    for look in looks:
        starts.look(look)
        counted.append(starts.count)
    assert counted == [0, 0, 0, 0, 1, 1, 1, 2]
    by_pid = Starts()
    for pid in (3, 3, 0, 4):
        by_pid.look(UnitLook(main_pid=pid))
    assert by_pid.count == 1
