"""The loop of `tradebot soak` under a simulated clock: its beat, its ends, and what it finds when it begins."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sim.kernel.runtime import SimRuntime
from tests.unit.ops.soak.test_decision_log import DECISION
from tests.unit.ops.soak.test_psi import write_psi
from tests.unit.ops.soak.test_supervisor import Bench
from tests.unit.telemetry.test_engine_side import status_of
from tradebot.core.errors import ConfigError, TradebotError
from tradebot.ops.soak.command import LiveLine, SoakOrder, _Journal, live_text, run_soak
from tradebot.ops.soak.decision_log import DecisionLog
from tradebot.ops.soak.reasons import Cause, RestartFailed, UnitBusy
from tradebot.output.log import setup_logging
from tradebot.output.streams import GuardedStream
from tradebot.telemetry.alerts import Alert
from tradebot.telemetry.status_file import status_path, write_status
from tradebot.telemetry.throttle_file import Throttle, read_throttle, throttle_path, write_throttle


class Terminal(StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


class Soak:
    """A supervisor of an engine that was there: its last status, no database, a manager that restarts nothing."""

    def __init__(self, tmp_path: Path, cpu: float = 1.0) -> None:
        self.home = tmp_path
        self.db = tmp_path / "x.db"
        self.runtime = SimRuntime(1)
        self.out, self.errors = StringIO(), StringIO()
        write_psi(tmp_path / "psi", cpu)
        write_status(status_path(self.db), status_of(written_s=-1.0))
        self.manager = tmp_path / "manager"
        self.says("ActiveState=active")

    def says(self, output: str, code: int = 0) -> None:
        """What the manager answers to everything."""
        self.manager.write_text(f"#!/bin/sh\necho '{output}'\nexit {code}\n")
        self.manager.chmod(0o755)

    def run(self, **changes: Any) -> int:
        """To its end; the exit code."""
        order = SoakOrder(self.db, systemctl=str(self.manager), psi_root=self.home / "psi", log_format="json")
        order = order._replace(**changes)
        return self.runtime.run(lambda: run_soak(order, self.runtime, self.out, self.errors))

    @property
    def lines(self) -> list[dict[str, Any]]:
        path = self.home / "x.db.decisions.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def times_s(self) -> list[float]:
        """When each line was written, from the first."""
        return [round((line["ts_ms"] - self.lines[0]["ts_ms"]) / 1000, 1) for line in self.lines]


def test_it_looks_every_five_seconds_and_at_a_stall_when_it_is_due(tmp_path: Path) -> None:
    soak = Soak(tmp_path)
    assert soak.run(duration_s=62.0, poll_s=7.0) == 1
    stalls = [(line["action"], at_s) for line, at_s in zip(soak.lines, soak.times_s, strict=True)]
    assert stalls == [
        *(("NONE", 7.0 * n) for n in range(7)), ("STALL", 45.0), ("NONE", 49.0), ("NONE", 56.0), ("NONE", 62.0),
    ]  # fmt: skip
    assert soak.lines[-1]["reason"] == "Soak End: its duration is over"
    assert soak.out.getvalue().startswith(
        "soak: FAILED after 0:01:02: its duration is over; no progress for 62.0 s; 8 polls"
    )


def test_a_stop_signal_ends_it_in_order_with_0(tmp_path: Path) -> None:
    soak = Soak(tmp_path)
    soak.runtime.call_at(12.0, soak.runtime.send_signal)
    assert soak.run() == 0
    assert soak.times_s == [0.0, 5.0, 10.0, pytest.approx(12.1, abs=0.11)]
    assert soak.lines[-1]["reason"] == "Soak End: a stop signal"
    assert soak.out.getvalue().startswith("soak: GOOD after 0:00:12: a stop signal; 2 polls, 0 restarts")


def test_a_stop_signal_during_a_stall_is_served_too(tmp_path: Path) -> None:
    soak = Soak(tmp_path)
    soak.runtime.call_at(50.0, soak.runtime.send_signal)
    assert soak.run() == 0
    assert soak.out.getvalue().startswith("soak: STOPPED after 0:00:50: a stop signal; no progress for 5")


def test_abort_ends_it_with_1_and_the_throttle_stays(tmp_path: Path) -> None:
    soak = Soak(tmp_path, cpu=48.0)
    assert soak.run() == 1
    assert soak.times_s[-1] == 30.0 and soak.lines[-1]["action"] == "ABORT"
    throttle = read_throttle(throttle_path(soak.db))
    assert throttle is not None and throttle.sample_every == 20
    assert "the engine stays throttled: THROTTLE3, 1 of 20 ticks" in soak.out.getvalue()
    assert len(soak.out.getvalue().splitlines()) == 1


def test_an_engine_that_could_not_be_restarted_is_not_called_throttled(tmp_path: Path) -> None:
    soak = Soak(tmp_path, cpu=48.0)
    soak.manager.write_text('#!/bin/sh\n[ "$1" = restart ] && echo denied >&2 && exit 1\necho ActiveState=active\n')
    assert soak.run() == 1
    assert "still pending: Throttling up to THROTTLE3" in soak.out.getvalue()
    assert "the engine's next start is throttled: THROTTLE3, 1 of 20 ticks" in soak.out.getvalue()


@pytest.mark.parametrize(
    ("found", "state", "detail"),
    [
        (None, "NORMAL", None),
        (Throttle(1, "NORMAL", 0), "NORMAL", None),
        (Throttle(10, "THROTTLE2", 0), "THROTTLE2", "continuing at THROTTLE2: the throttle file says THROTTLE2"),
        (Throttle(7, "by hand", 0), "THROTTLE2", "continuing at THROTTLE2: the throttle file says by hand, 1 of 7"),
    ],
)
def test_it_goes_on_where_an_earlier_soak_ended(
    tmp_path: Path, found: Throttle | None, state: str, detail: str | None
) -> None:
    soak = Soak(tmp_path)
    if found is not None:
        write_throttle(throttle_path(soak.db), found)
    soak.run(duration_s=6.0)
    first = soak.lines[0]
    assert (first["reason"], first["state"]) == ("Soak Start", state)
    assert (first["detail"] or "").startswith(detail or "") and bool(first["detail"]) == bool(detail)


@pytest.mark.parametrize("psi_actions", [True, False])
def test_a_damaged_throttle_file_is_removed_unless_actions_are_off(tmp_path: Path, psi_actions: bool) -> None:
    soak = Soak(tmp_path)
    throttle_path(soak.db).write_text("{")
    assert soak.run(duration_s=6.0, psi_actions=psi_actions) == 0
    assert throttle_path(soak.db).exists() != psi_actions
    assert "throttle file" in soak.lines[0]["detail"]


def test_decisions_that_cannot_be_written_do_not_end_it_but_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    soak = Soak(tmp_path)
    monkeypatch.setattr("tradebot.ops.soak.decision_log.os.fsync", full)
    assert soak.run(duration_s=16.0) == 1
    assert "5 decisions could not be recorded" in soak.out.getvalue()
    assert "No space left on device" in soak.errors.getvalue()


def test_decisions_go_where_told(tmp_path: Path) -> None:
    soak = Soak(tmp_path)
    with pytest.raises(ConfigError, match="there is no directory"):
        Soak(tmp_path).run(decisions=tmp_path / "there" / "d.jsonl")
    (tmp_path / "there").mkdir()
    assert soak.run(duration_s=6.0, decisions=tmp_path / "there" / "d.jsonl") == 0
    assert len((tmp_path / "there" / "d.jsonl").read_text().splitlines()) == 3 and soak.lines == []
    with pytest.raises(ConfigError, match="not a regular file"):
        Soak(tmp_path).run(decisions=tmp_path)


def test_one_line_on_a_terminal_and_nothing_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    soak = Soak(tmp_path)
    soak.errors = Terminal()
    soak.run(duration_s=11.0, log_format="text", log_level="error")
    shown = soak.errors.getvalue().split("\r")[1:]
    assert len(shown) == 11 and all("\n" not in line for line in shown[:-1])
    assert shown[6].startswith("soak 0:00:06 | NORMAL (1 of 1) | PSI cpu 1.0 memory 0.0 io 0.0 | unit active | prog")
    quiet = Soak(tmp_path)
    quiet.run(duration_s=11.0, log_level="error")
    assert quiet.errors.getvalue() == ""


def test_the_line_steps_aside_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    stream = Terminal()
    live = LiveLine(GuardedStream(stream))
    live.show("x" * 100)
    with live.aside():
        stream.write("a log line\n")
    live.end()
    assert stream.getvalue() == f"\r{'x' * 29}\x1b[K\r\x1b[Ka log line\n{'x' * 29}\n"


def test_the_words_of_the_line() -> None:
    bench = Bench(cpu=None)
    bench.poll(3, ticking=False)
    assert live_text(bench.supervisor, 3723.0) == (
        "soak 1:02:03 | NORMAL (1 of 1) | PSI cpu - memory - io - | unit active | progress 15 s, tick 15 s ago"
        " | 0 restarts, 0 stalls"
    )


def test_polls_that_a_long_restart_has_taken_the_place_of_are_not_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soak = Soak(tmp_path)
    monkeypatch.setattr("tradebot.ops.soak.command.Systemctl.restart", lambda _self: soak.runtime.sleep(22.0))
    soak.run(duration_s=81.0)
    assert [at_s for at_s in soak.times_s if at_s >= 40.0] == [40.0, 67.0, 70.0, 75.0, 80.0, 81.0]


def test_stalls_and_steps_are_told_to_the_webhook(tmp_path: Path) -> None:
    output: list[Alert] = []

    class Hook:
        def send(self, alert: Alert) -> None:
            output.append(alert)

        def close(self) -> None:
            output.append(Alert("stop", "info", "closed"))

    log = setup_logging("INFO", "json", SimRuntime(1), StringIO())
    journal = _Journal(DecisionLog(tmp_path / "d.jsonl"), log, Hook())  # type: ignore[arg-type]
    up = {"state": "THROTTLE1", "sample_every": 5, "reason": "Throttling up to THROTTLE1 due to PSI: CPU 48.0"}
    journal.record(replace(DECISION, action="NONE"))
    journal.record(replace(DECISION, action="ENGINE_RESTART", **up))
    journal.record(replace(DECISION, action="STALL", reason="nothing new for 45 s"))
    denied, busy = RestartFailed("denied"), UnitBusy("tradebot.service", "activating")
    withheld = [("a", denied), ("the same", denied), ("none", None), ("anew", denied), ("other", busy)]
    for reason, why in withheld:
        cause: Cause | None = None if why is None else "STALL"
        journal.record(replace(DECISION, action="NONE", reason=reason, cause=cause, withheld=why))
    journal.record(replace(DECISION, action="NONE", reason="a step", cause="ENGINE_RESTART", withheld=denied))
    journal.close()
    log.close()
    assert [(alert.event, alert.text) for alert in output] == [
        ("ladder", "soak: THROTTLE1, 1 of 5 ticks kept: Throttling up to THROTTLE1 due to PSI: CPU 48.0"),
        ("stall", "soak: nothing new for 45 s"),
        ("stall", "soak: a"),
        ("stall", "soak: anew"),
        ("stall", "soak: other"),
        ("stop", "closed"),
    ]


def test_what_cannot_be_meant_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """Found by a newcomer: a text file, a directory and a typo were supervised, and called GOOD."""
    (tmp_path / "notes.txt").write_text("some text")
    with closing(sqlite3.connect(tmp_path / "foreign.db")) as db:
        db.execute("CREATE TABLE other (x)")
    soak = Soak(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    for changes, complaint in (
        ({"db_path": tmp_path / "nowhere" / "x.db"}, "nowhere is not a directory"),
        ({"db_path": tmp_path / "notes.txt"}, "not a SQLite database"),
        ({"db_path": tmp_path / "foreign.db"}, "belongs to another program"),
        ({"db_path": tmp_path}, "is a directory"),
        ({"psi_root": tmp_path / "nowhere"}, "holds none of the files cpu, memory, io"),
        ({"systemctl": "/none/systemctl"}, "is not an executable program"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            soak.run(duration_s=6.0, **changes)
        soak = Soak(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_soak_that_saw_nothing_is_no_good_one(tmp_path: Path) -> None:
    """Found by review: a manager that fails and no database, and the verdict was GOOD."""
    soak = Soak(tmp_path)
    soak.manager.write_text('#!/bin/sh\n[ -e "$0.asked" ] && exit 1\n: >"$0.asked"\n')
    status_path(soak.db).unlink()
    assert soak.run(duration_s=20.0) == 1
    output = soak.out.getvalue()
    assert output.startswith("soak: FAILED after 0:00:20: its duration is over; the unit was never seen: ")
    unseen = f"neither a tick nor an engine was ever seen in {soak.db}"
    assert f"{unseen}: is --db the one that tradebot.service writes?" in output


def test_one_that_was_ended_before_it_saw_anything_says_so(tmp_path: Path) -> None:
    soak = Soak(tmp_path)
    soak.says("")
    soak.runtime.call_at(12.0, soak.runtime.send_signal)
    assert soak.run() == 0
    assert soak.out.getvalue().startswith(
        "soak: STOPPED after 0:00:12: a stop signal; the unit was never seen: the service manager reports nothing about"
    )


def test_starts_that_nobody_asked_for_are_in_the_verdict(tmp_path: Path) -> None:
    """Found by review: an engine that crashed and was started again all day made a soak without a restart."""
    soak = Soak(tmp_path)
    soak.says("ActiveState=active\nInvocationID=a")
    soak.runtime.call_at(7.0, lambda: soak.says("ActiveState=active\nInvocationID=b"))
    soak.runtime.call_at(12.0, lambda: soak.says("ActiveState=active\nInvocationID=c"))
    assert soak.run(duration_s=21.0) == 0
    assert "2 further starts of the engine, not requested by this soak" in soak.out.getvalue()


def test_what_keeps_it_from_restarting_is_warned_of_once(tmp_path: Path) -> None:
    """Found by review: the same warning at every stall and at every poll."""
    soak = Soak(tmp_path)
    status_path(soak.db).unlink()
    soak.run(duration_s=200.0)
    assert soak.errors.getvalue().count("not restarted: no engine was ever seen") == 1
    failing = Soak(tmp_path)
    failing.manager.write_text('#!/bin/sh\n[ "$1" = restart ] && echo denied >&2 && exit 1\necho ActiveState=active\n')
    failing.run(duration_s=80.0)
    assert len([line for line in failing.lines if "denied; tried again" in line["reason"]]) >= 7
    assert failing.errors.getvalue().count("denied; tried again") == 1


def test_a_soak_too_short_for_a_poll_is_no_good_one(tmp_path: Path) -> None:
    soak = Soak(tmp_path)
    assert soak.run(duration_s=1.0) == 1
    assert "no decision was made: it ended before the first poll" in soak.out.getvalue()


def test_without_a_manager_it_fails_at_once(tmp_path: Path) -> None:
    """Found by use: an hour of supervising nothing, in a container without systemd."""
    soak = Soak(tmp_path)
    soak.manager.write_text("#!/bin/sh\necho 'System has not been booted with systemd' >&2\nexit 1\n")
    before_s = soak.runtime.monotonic()
    with pytest.raises(TradebotError, match=r"no service manager answers: .*not been booted.*--systemctl"):
        soak.run(duration_s=3600.0)
    assert soak.runtime.monotonic() - before_s < 5.0
    assert not list(tmp_path.glob("x.db.decisions*")) and not list(tmp_path.glob("*.soak*"))


def test_a_message_bus_that_is_just_starting_is_waited_for(tmp_path: Path) -> None:
    soak = Soak(tmp_path)
    soak.manager.write_text('#!/bin/sh\n[ -e "$0.asked" ] && exec echo ActiveState=active\n: >"$0.asked"\nexit 1\n')
    soak.run(duration_s=6.0)
    assert soak.out.getvalue().startswith("soak: ")
