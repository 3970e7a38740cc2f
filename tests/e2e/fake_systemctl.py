"""A substitute for systemctl and its service manager, with the commands of `tradebot soak`: `restart` and `show`.

It really stops and starts the engine that DIR/UNIT.json describes:

    TRADEBOT_FAKE_UNITS=DIR fake_systemctl.py restart|show UNIT

DIR/UNIT.json: {"command": [...], "cwd": "...", "env": {...}, "stop_s": 10}. The files UNIT.state.json (pid, starts) and
UNIT.log (standard error of all starts) are written beside it. Like systemd it sends SIGTERM and SIGCONT, SIGKILL after
`stop_s`, and waits for the end. If DIR/UNIT.fails exists, restart fails with its text.
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
    """Returns an exit code like systemctl's: 0, 1, or 5 for an unknown unit."""
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
    """The manager's state of a unit: pid, starts, invocation."""
    path = directory / f"{unit}.state.json"
    if not path.exists():
        return {"pid": 0, "starts": 0, "invocation": ""}
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def alive(pid: int) -> bool:
    """Whether a process is running; a zombie does not count."""
    if pid <= 0:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def stop(pid: int, stop_s: float) -> None:
    """Stop the process as systemd does, and wait for its end."""
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
    """Restart like Restart=on-failure; False if the engine is running."""
    with _one_job(directory, unit):
        if alive(state_of(directory, unit)["pid"]):
            return False
        _start(directory, unit)
    return True


@contextmanager
def _one_job(directory: Path, unit: str) -> Iterator[None]:
    """Serialize the jobs of a unit, as a service manager does."""
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
