"""`tradebot soak` with real engines and a substitute for systemctl: throttling, stalls, quiet feeds, errors."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.fake_systemctl import alive, state_of, stop
from tests.e2e.mockws import MockWsProcess
from tests.e2e.process import REPO, Engine, Running, assert_sound, environment, reading, ticks_stored, wait_until
from tests.unit.ops.soak.test_psi import write_psi
from tradebot.core.log_events import LogEvent
from tradebot.telemetry.status_file import Status, read_status, status_path
from tradebot.telemetry.throttle_file import read_throttle, throttle_path

UNIT: Final = "tradebot.service"
FAKE: Final = f"{sys.executable} {REPO / 'tests' / 'e2e' / 'fake_systemctl.py'}"

RUNNER: Final = """
import sys
from pathlib import Path
from tradebot.core.errors import TradebotError
from tradebot.ops.soak.command import SoakOrder, run_soak
from tradebot.core.runtime import RealRuntime
order = SoakOrder(Path("x.db"), psi_root=Path("psi"), systemctl=sys.argv[1], poll_s=float(sys.argv[2]),
                  stall_s=float(sys.argv[3]), psi_actions=sys.argv[4] == "on",
                  duration_s=float(sys.argv[5]) or None, log_format="json")
try:
    sys.exit(run_soak(order, RealRuntime(), sys.stdout, sys.stderr))
except TradebotError as error:
    sys.exit(str(error))
"""
"""Replaces the command line, where the stall limit is fixed at 45 s."""


class Box:
    """A machine with one unit: its pressure files, its manager, and a supervisor."""

    def __init__(self, engine: Engine, config: str, *args: str) -> None:
        self.engine = engine
        self.db = engine.path("x.db")
        self.psi = engine.path("psi")
        write_psi(self.psi, 1.0)
        option = engine.config("unit.toml", config)
        self.units = engine.path("units")
        self.units.mkdir()
        command = [sys.executable, "-m", "tradebot", option, "--db=x.db", *args]
        described = {"command": command, "cwd": str(engine.home), "env": environment(engine.home), "stop_s": 10}
        (self.units / f"{UNIT}.json").write_text(json.dumps(described))
        self.env = {"TRADEBOT_FAKE_UNITS": str(self.units)}

    def start_engine(self) -> None:
        """Start the engine as `systemctl start` does, and wait until it stores."""
        words = FAKE.split()
        self.engine.run("restart", UNIT, env=self.env, command=words).expect(0)
        wait_until(lambda: self.status_of_running() is not None, "a status of the engine")

    def soak(self, poll_s: float, stall_s: float = 45.0, psi_actions: str = "on", duration_s: float = 0.0) -> Running:
        """Start the supervisor, and wait for its first decision."""
        if stall_s == 45.0:
            ends = [f"--duration={duration_s:g}"] if duration_s else []
            running = self.engine.start(*self.command(poll_s), f"--psi-actions={psi_actions}", *ends, env=self.env)
        else:
            numbers = [str(poll_s), str(stall_s), psi_actions, str(duration_s)]
            running = self.engine.start(FAKE, *numbers, env=self.env, command=(sys.executable, "-c", RUNNER))
        wait_until(lambda: self.decisions() or running.process.poll() is not None, "the first decision")
        return running

    def command(self, poll_s: float) -> list[str]:
        """The command line of the supervisor."""
        return ["soak", "--db=x.db", "--psi-root=psi", f"--systemctl={FAKE}", f"--poll={poll_s:g}"]

    def decisions(self, action: str | None = None) -> list[dict[str, Any]]:
        """All complete lines so far, or those with an action."""
        path = self.engine.path("x.db.decisions.jsonl")
        text = path.read_text() if path.exists() else ""
        lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return [line for line in lines if action in (None, line["action"])]

    def wait_state(self, state: str, deadline_s: float = 30.0) -> None:
        """Wait for the first decision with this state, and for the engine that it restarted."""
        wait_until(lambda: self.decisions()[-1]["state"] == state, state, deadline_s)

    @property
    def pid(self) -> int:
        """The engine's process."""
        pid: int = state_of(self.units, UNIT)["pid"]
        return pid

    def status_of_running(self) -> Status | None:
        """The status of the process that the manager currently runs; waits for it."""
        status = read_status(status_path(self.db))
        return status if status is not None and status.pid == self.pid and status.last_tick is not None else None

    def close(self) -> None:
        """End the engine."""
        if alive(self.pid):
            os.kill(self.pid, signal.SIGCONT)
            stop(self.pid, 5)


@pytest.fixture
def boxes(engine: Engine) -> Iterator[list[Box]]:
    """Boxes that are closed at the end."""
    made: list[Box] = []
    yield made
    for box in made:
        box.close()


SYNTHETIC: Final = "[engine]\ntick_interval_ms = 2\n[persist]\nflush_interval_ms = 20\n[strategy]\nlong_window = 2000\n"
PER_S: Final = 500.0


def measured_rate(box: Box, sample_every: int, for_s: float) -> float:
    """The ticks stored per second by an engine with this sampling, measured between two commits."""

    def running() -> Status | None:
        status = box.status_of_running()
        return status if status is not None and status.sample_every == sample_every else None

    wait_until(running, f"an engine that keeps 1 of {sample_every}")
    first = wait_change(box.db)
    wait_until(lambda: time.monotonic() >= first[0] + for_s, "the time to measure")
    last = wait_change(box.db)
    return (last[1] - first[1]) / (last[0] - first[0])


def wait_change(db: Path) -> tuple[float, int]:
    """The time at which the next tick was stored, and its number."""
    with reading(db) as connection:

        def newest() -> int:
            return int(connection.execute("SELECT COALESCE(MAX(id), 0) FROM ticks").fetchone()[0])

        before = newest()
        after = wait_until(lambda: (found := newest()) > before and found, "a tick")
        return time.monotonic(), int(after)


def test_each_rung_keeps_its_part_of_the_ticks(engine: Engine, boxes: list[Box]) -> None:
    """NORMAL to THROTTLE3 and back, with measured rates within 10 % of 1/5, 1/10, 1/20 and 1."""
    box = Box(engine, SYNTHETIC)
    boxes.append(box)
    box.start_engine()
    rates = {"NORMAL": measured_rate(box, 1, 1.0)}
    soak = box.soak(0.15)
    for state, every, for_s in (("THROTTLE1", 5, 1.0), ("THROTTLE2", 10, 1.2), ("THROTTLE3", 20, 2.0)):
        write_psi(box.psi, 48.0)
        box.wait_state(state)
        write_psi(box.psi, 15.0)
        rates[state] = measured_rate(box, every, for_s)
    write_psi(box.psi, 0.5)
    box.wait_state("NORMAL")
    rates["RESTORED"] = measured_rate(box, 1, 1.0)
    soak.send(signal.SIGTERM)
    done = soak.finish().expect(0)
    wanted = {"NORMAL": 1, "THROTTLE1": 5, "THROTTLE2": 10, "THROTTLE3": 20, "RESTORED": 1}
    assert rates == {name: pytest.approx(PER_S / every, rel=0.1) for name, every in wanted.items()}
    assert done.stdout.startswith("soak: GOOD after ") and done.stdout.count("\n") == 1
    lines = box.decisions()
    assert (lines[0]["reason"], lines[0]["state"], lines[0]["action"]) == ("Soak Start", "NORMAL", "NONE")
    acted = [line for line in lines if line["action"] != "NONE"]
    assert [line["state"] for line in acted] == [
        "THROTTLE1", "THROTTLE2", "THROTTLE3", "THROTTLE2", "THROTTLE1", "NORMAL",
    ]  # fmt: skip
    assert {line["action"] for line in acted} == {"ENGINE_RESTART"}
    assert acted[0]["reason"] == "Throttling up to THROTTLE1 due to PSI: CPU 48.0"
    assert acted[0]["cpu_some_raw"] == "some avg10=48.00 avg60=0.00 avg300=0.00 total=1"
    assert lines[-1]["restarts"] == lines[-1]["engine_starts"] == 6
    assert_sound(box.db)


def test_abort_leaves_the_engine_throttled(engine: Engine, boxes: list[Box]) -> None:
    """Exit 1, and the verdict says what remains and what to do; the next soak continues from there."""
    box = Box(engine, SYNTHETIC)
    boxes.append(box)
    box.start_engine()
    write_psi(box.psi, 80.0)
    done = box.soak(0.2).finish()
    assert done.code == 1 and done.stdout.startswith("soak: ABORT after "), done.stdout + done.stderr
    assert "the engine stays throttled: THROTTLE3, 1 of 20 ticks" in done.stdout
    last = box.decisions()[-1]
    assert (last["action"], last["state"], last["restarts"]) == ("ABORT", "THROTTLE3", 3)
    throttle = read_throttle(throttle_path(box.db))
    assert throttle is not None and (throttle.sample_every, throttle.state) == (20, "THROTTLE3")
    assert alive(box.pid)
    write_psi(box.psi, 15.0)
    again = box.soak(0.2, duration_s=1.0).finish().expect(0)
    assert "continuing at THROTTLE3" in again.one(LogEvent.SOAK_START)["detail"]


@pytest.mark.parametrize("psi_actions", ["on", "off"])
def test_a_stopped_engine_is_found_and_restarted(engine: Engine, boxes: list[Box], psi_actions: str) -> None:
    """SIGSTOP: STALL at the limit or at most one poll later, then ticks are stored again; with PSI actions off too."""
    limit_s, poll_s = 2.0, 1.0  # on a busy machine a call of the substitute for systemctl takes half a second
    box = Box(engine, SYNTHETIC)
    boxes.append(box)
    box.start_engine()
    soak = box.soak(poll_s, limit_s, psi_actions)
    if psi_actions == "off":
        write_psi(box.psi, 90.0)
        wait_until(lambda: any("PSI actions are off" in line["reason"] for line in box.decisions()), "a word on PSI")
    stopped, stopped_ms = box.pid, time.time() * 1000
    os.kill(stopped, signal.SIGSTOP)
    stall = wait_until(lambda: box.decisions("STALL"), "STALL")[0]
    wait_until(lambda: box.pid != stopped and box.status_of_running() is not None, "the next engine")
    wait_change(box.db)
    soak.send(signal.SIGINT)
    soak.finish().expect(0)
    late_s = 1.5  # a busy machine reads and acts later than the poll is due
    assert limit_s <= stall["seconds_since_progress"] <= limit_s + poll_s + late_s
    found_s = (stall["ts_ms"] - stopped_ms) / 1000  # the engine's last status may be a second old
    assert limit_s - 1.2 <= found_s <= limit_s + poll_s + late_s, found_s
    assert len(box.decisions("STALL")) == 1
    assert box.decisions("ENGINE_RESTART") == [] and not throttle_path(box.db).exists()
    assert not alive(stopped)
    assert_sound(box.db)


def test_a_quiet_feed_that_pings_is_no_stall(engine: Engine, boxes: list[Box]) -> None:
    """Three times the limit passes without a tick; the link is live, so nothing is restarted."""
    with MockWsProcess(engine.home) as mock:
        keys = "[feed]\nidle_timeout_s = 1.0\nping_interval_s = 0.3\n[persist]\nflush_interval_ms = 20\n"
        box = Box(engine, keys, "--ingest=mockws", f"--ws-url={mock.url}")
        boxes.append(box)
        engine.run("restart", UNIT, env=box.env, command=FAKE.split()).expect(0)
        mock.wait_clients(1)
        mock.tick()
        wait_until(lambda: ticks_stored(box.db), "a tick")
        soak = box.soak(0.3, 1.8)
        wait_until(lambda: box.decisions()[-1]["seconds_since_tick"] > 4.5, "silence")
        assert box.decisions("STALL") == []
        mock.process.kill()
        stall = wait_until(lambda: box.decisions("STALL"), "STALL once the link is lost")
        assert "the link is down" in stall[0]["reason"]
        soak.send(signal.SIGTERM)
        soak.finish().expect(0)


def test_what_is_not_there_is_said_and_waited_for(engine: Engine, boxes: list[Box]) -> None:
    """No unit, no pressure file, no database, a failing manager: reported, tried again, no traceback, exit 1."""
    box = Box(engine, SYNTHETIC)
    boxes.append(box)
    (box.units / f"{UNIT}.json").unlink()
    (box.psi / "cpu").unlink()
    done = box.soak(0.2, 0.5, duration_s=2.0).finish()
    assert done.code == 1 and "Traceback" not in done.stderr
    assert done.stdout.startswith("soak: FAILED after ") and "still pending: No progress" in done.stdout
    lines = box.decisions()
    assert lines[0]["cpu_some_raw"] is None and "No such file" in lines[0]["detail"]
    assert "not known to the service manager" in lines[0]["detail"] and not any(line["detail"] for line in lines[1:-1])
    tried = [line for line in lines if "not done" in line["reason"]]
    assert len(tried) >= 3 and all(line["action"] == "NONE" for line in tried)


def test_one_supervisor_at_a_time(engine: Engine, boxes: list[Box]) -> None:
    box = Box(engine, SYNTHETIC)
    boxes.append(box)
    soak = box.soak(0.2)
    second = engine.run(*box.command(0.2), env=box.env)
    assert second.code == 1 and "another soak supervises its engine already" in second.stderr
    soak.send(signal.SIGTERM)
    soak.finish().expect(0)
