"""make soak: runs a supervised engine for minutes on a feed with faults, and prints figures at the end.

Usage:
  bench.soak [options]

Options:
  --minutes=N      The duration in minutes [default: 20].
  --scenario=NAME  The scenario of bin/mockws [default: storm].
  --psi=WHICH      made: invented pressure figures that cause throttling; real: the pressure of this machine
                   [default: made].
  --every=S        The time between two faults, SIGSTOP and SIGKILL in turns; 0: no faults [default: 150].
  -h --help        Show this help.

A substitute for the service manager restarts an engine two seconds after its death, as the unit file specifies.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

from docopt import docopt

from bench import engine, live_run, measure
from bench.replay import machine, whole_number
from tests.e2e.fake_systemctl import alive, start_if_dead, state_of, stop
from tradebot.ops.soak.psi import RESOURCES, read_psi
from tradebot.output.streams import run_tool
from tradebot.store.database import beside

UNIT: Final = "tradebot.service"
RESTART_S: Final = 2.0
CONFIG: Final = (
    '[strategy]\nname = "periodic"\ndesired_size = 0.0001\n[feed]\nidle_timeout_s = 10\nping_interval_s = 3\n'
)
PRESSURE: Final = ((5, 30.0), (9, 15.0), (20, 60.0), (24, 1.0))
"""The second within every ten minutes at which each pressure begins: two steps up, then down again."""
PERIOD_S: Final = 600


class Fault(NamedTuple):
    """A signal sent to a process, with its time (Unix ms)."""

    name: str
    pid: int
    at_ms: int


class Box:
    """An engine with its feed, service manager and supervisor, in a scratch directory."""

    def __init__(self, scratch: Path, url: str, minutes: int, made_up: bool) -> None:
        self.db = scratch / "soak.db"
        self.units = scratch / "units"
        self.psi = scratch / "psi"
        self.decisions = scratch / "decisions.jsonl"
        self.faults: list[Fault] = []
        self.rss: dict[str, list[int]] = {"engine": [], "supervisor": []}
        self.wal_max = 0
        self.greatest = dict.fromkeys(RESOURCES, 0.0)
        self._dead_since_s: float | None = None
        self.units.mkdir()
        self.press(1.0)
        (scratch / "unit.toml").write_text(CONFIG)
        command = [*engine.python("tradebot"), "--ingest=mockws", f"--ws-url={url}", f"--config={scratch}/unit.toml"]
        described = {
            "command": [*map(str, command), f"--db={self.db}"],
            "cwd": str(engine.REPO),
            "env": {},
            "stop_s": 45,
        }
        (self.units / f"{UNIT}.json").write_text(json.dumps(described))
        start_if_dead(self.units, UNIT)
        soak = [*engine.python("tradebot"), "soak", f"--db={self.db}", f"--decisions={self.decisions}"]
        soak += [
            f"--systemctl={sys.executable} {engine.REPO}/tests/e2e/fake_systemctl.py",
            f"--duration={minutes * 60}",
        ]
        soak += [f"--psi-root={self.psi}"] if made_up else []
        with (scratch / "soak.log").open("wb") as log:
            self.soak = subprocess.Popen(
                [str(word) for word in soak], cwd=engine.REPO, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=log, env={**os.environ, "TRADEBOT_FAKE_UNITS": str(self.units)},
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """The engine's process."""
        return int(state_of(self.units, UNIT)["pid"])

    def press(self, cpu: float) -> None:
        """Write pressure files with this value."""
        self.psi.mkdir(exist_ok=True)
        for name in RESOURCES:
            value = cpu if name == "cpu" else 0.0
            (self.psi / f"{name}.part").write_text(f"some avg10={value:.2f} avg60=0.00 avg300=0.00 total=1\n")
            (self.psi / f"{name}.part").replace(self.psi / name)

    def harm(self, name: str) -> None:
        """Send the engine a signal."""
        pid = self.pid
        if alive(pid):
            self.faults.append(Fault(name, pid, time.time_ns() // 1_000_000))
            os.kill(pid, signal.Signals[name])

    def look(self, now_s: float) -> None:
        """Called once a second: collects figures, and restarts the engine like Restart=on-failure."""
        for name, pid in (("engine", self.pid), ("supervisor", self.soak.pid)):
            if (rss := _rss(pid)) is not None:
                self.rss[name].append(rss)
        wal = beside(self.db, "-wal")
        self.wal_max = max(self.wal_max, wal.stat().st_size if wal.exists() else 0)
        pressure = read_psi().pressure
        for resource in RESOURCES:
            self.greatest[resource] = max(self.greatest[resource], pressure.some_avg10(resource) or 0.0)
        if alive(self.pid):
            self._dead_since_s = None
        elif self._dead_since_s is None:
            self._dead_since_s = now_s
        elif now_s - self._dead_since_s >= RESTART_S:
            start_if_dead(self.units, UNIT)

    def close(self) -> None:
        """End all processes that were started here."""
        if self.soak.poll() is None:
            self.soak.terminate()
            self.soak.wait()
        stop(self.pid, 45)


def _rss(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return None


def drive(box: Box, begin_s: float, every_s: int) -> None:
    """Run until the supervisor ends."""
    turn, pressed = 0, -1
    while box.soak.poll() is None:
        now_s = time.monotonic() - begin_s
        measure.progress(f"{now_s:.0f} s, engine {box.pid}, {len(box.faults)} faults")
        box.look(now_s)
        part = sum(second <= now_s % PERIOD_S for second, _ in PRESSURE)
        if part != pressed:
            pressed = part
            box.press(PRESSURE[part - 1][1] if part else 1.0)
        if every_s and now_s >= (turn + 1) * every_s:
            box.harm(("SIGSTOP", "SIGKILL")[turn % 2])
            turn += 1
        time.sleep(1.0)
    measure.progress("")


def figures(box: Box, seconds: float) -> list[str]:
    """The figures of the run."""
    lines = [json.loads(line) for line in box.decisions.read_text().splitlines()]
    with closing(sqlite3.connect(box.db)) as db:
        ticks, runs = db.execute("SELECT MAX(id), (SELECT COUNT(*) FROM runs) FROM ticks").fetchone()
        integrity = db.execute("PRAGMA integrity_check").fetchone()[0]
        codes = db.execute("SELECT exit_code, COUNT(*) FROM runs GROUP BY exit_code ORDER BY exit_code").fetchall()
    told = [
        f"decisions            {len(lines)}: {_counted(line['action'] for line in lines)}",
        f"states               {_counted(line['state'] for line in lines)}",
        f"engine               {runs} runs; exit codes {', '.join(f'{code}: {count}' for code, count in codes)}"
        " (None: killed)",
        f"faults               {_counted(fault.name for fault in box.faults)}",
        f"SIGSTOP to STALL     {', '.join(f'{s:.1f}' for s in _stalls_s(box, lines)) or '-'} s",
        f"ticks stored         {measure.count(ticks)}, {ticks / seconds:.1f} a second over all",
        f"database             {box.db.stat().st_size / 1e6:.1f} MB, integrity {integrity}; WAL at most"
        f" {box.wal_max / 1e6:.1f} MB",
        f"greatest PSI here    {', '.join(f'{name} {value:g}' for name, value in box.greatest.items())} (some avg10)",
    ]
    for name, values in box.rss.items():
        fifth = max(1, len(values) // 5)
        first, last = measure.median(values[:fifth]) / 1e6, measure.median(values[-fifth:]) / 1e6
        told.append(
            f"{name + ' MB':<21}{first:.1f} in the first fifth, {last:.1f} in the last, {max(values) / 1e6:.1f} at most"
        )
    return told


def _stalls_s(box: Box, lines: Sequence[dict[str, Any]]) -> list[float]:
    """The time from each SIGSTOP to its STALL, except where another restart came first."""
    found = []
    for fault in box.faults:
        after = [
            line for line in lines if line["ts_ms"] > fault.at_ms and line["action"] in ("STALL", "ENGINE_RESTART")
        ]
        if fault.name == "SIGSTOP" and after and after[0]["action"] == "STALL":
            found.append((after[0]["ts_ms"] - fault.at_ms) / 1000)
    return found


def _counted(names: Any) -> str:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


def main(argv: Sequence[str] | None = None) -> int:
    """The supervisor's exit code."""
    given = docopt(__doc__ or "", argv)
    minutes, every_s = whole_number(given, "--minutes"), int(given["--every"])
    print(machine())
    with tempfile.TemporaryDirectory(prefix="tradebot-soak-") as directory:
        scratch = Path(directory)
        os.environ["TRADEBOT_FAKE_UNITS"] = str(scratch / "units")
        with live_run.MockWs(scratch, f"--scenario={given['--scenario']}") as mock:
            begin_s = time.monotonic()
            box = Box(scratch, mock.url, minutes, given["--psi"] == "made")
            try:
                drive(box, begin_s, every_s)
                said = box.soak.communicate()[0].decode()
            finally:
                box.close()
            print(said, end="")
            print("\n".join(figures(box, time.monotonic() - begin_s)))
            if box.soak.returncode:
                print((scratch / "soak.log").read_text()[-2000:])
    return box.soak.returncode


if __name__ == "__main__":
    run_tool(main)
