"""Stands for systemctl and the service manager behind it, as far as `tradebot soak` asks: `restart UNIT`, `show UNIT`.

It really ends and starts the engine of the unit file UNIT.json beside this call's state directory:

    TRADEBOT_FAKE_UNITS=DIR fake_systemctl.py restart|show UNIT

DIR/UNIT.json: {"command": [...], "cwd": "...", "env": {...}, "stop_s": 10}. Beside it are written UNIT.state.json (pid,
starts) and UNIT.log (standard error of the engine, all starts). Like systemd it sends SIGTERM and SIGCONT, after
`stop_s` SIGKILL, and waits. With DIR/UNIT.fails present, restart fails with its text.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def main(argv: list[str]) -> int:
    """Exit code as systemctl's: 0, 1, or 5 for a unit that is not there."""
    verb, unit = argv
    directory = Path(os.environ["TRADEBOT_FAKE_UNITS"])
    described = directory / f"{unit}.json"
    if verb == "show":
        print("\n".join(f"{key}={value}" for key, value in _show(directory, unit, described.exists()).items()))
        return 0
    if verb != "restart":
        print(f"Unknown command verb {verb!r}", file=sys.stderr)
        return 1
    fails = directory / f"{unit}.fails"
    if fails.exists():
        print(fails.read_text(), file=sys.stderr)
        return 1
    if not described.exists():
        print(f"Failed to restart {unit}: Unit {unit} not found.", file=sys.stderr)
        return 5
    with _one_job(directory, unit):
        stop(state_of(directory, unit)["pid"], json.loads(described.read_text()).get("stop_s", 10))
        _start(directory, unit)
    return 0


def state_of(directory: Path, unit: str) -> dict[str, Any]:
    """What the manager knows: pid, starts, invocation."""
    path = directory / f"{unit}.state.json"
    if not path.exists():
        return {"pid": 0, "starts": 0, "invocation": ""}
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def alive(pid: int) -> bool:
    """Whether a process runs, and is no corpse that nobody has waited for."""
    if pid <= 0:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def stop(pid: int, stop_s: float) -> None:
    """End it as systemd does, and wait for that."""
    until_s = time.monotonic() + stop_s
    for number in (signal.SIGTERM, signal.SIGCONT):
        _send(pid, number)
    while alive(pid) and time.monotonic() < until_s:
        time.sleep(0.01)
    while alive(pid):
        _send(pid, signal.SIGKILL)
        time.sleep(0.01)


def _send(pid: int, number: signal.Signals) -> None:
    if alive(pid):
        os.kill(pid, number)


def start_if_dead(directory: Path, unit: str) -> bool:
    """What Restart=on-failure does; False when the engine runs."""
    with _one_job(directory, unit):
        if alive(state_of(directory, unit)["pid"]):
            return False
        _start(directory, unit)
    return True


@contextmanager
def _one_job(directory: Path, unit: str) -> Iterator[None]:
    """A manager does one thing at a time with a unit."""
    with (directory / f"{unit}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _start(directory: Path, unit: str) -> None:
    described = json.loads((directory / f"{unit}.json").read_text())
    with (directory / f"{unit}.log").open("ab") as log:
        process = subprocess.Popen(
            described["command"], cwd=described["cwd"], env={**os.environ, **described["env"]},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True,
        )  # fmt: skip
    starts = state_of(directory, unit)["starts"] + 1
    part = directory / f"{unit}.state.part"
    part.write_text(json.dumps({"pid": process.pid, "starts": starts, "invocation": uuid.uuid4().hex}))
    part.replace(directory / f"{unit}.state.json")


def _show(directory: Path, unit: str, described: bool) -> dict[str, Any]:
    state = state_of(directory, unit)
    runs = alive(state["pid"])
    return {
        "Id": unit,
        "LoadState": "loaded" if described else "not-found",
        "ActiveState": "active" if runs else "failed" if state["starts"] else "inactive",
        "SubState": "running" if runs else "failed" if state["starts"] else "dead",
        "MainPID": state["pid"] if runs else 0,
        "NRestarts": 0,
        "InvocationID": state["invocation"],
        "Description": "a = b",
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
