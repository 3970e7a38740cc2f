"""Runs the simulator on copies of the program, with and without a planted bug, and says what it found."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from sim.runner.history import SWARMS
from tests.sim.planted.bug import Bug, copy_program, plant

CHECKS: Final[tuple[tuple[str, str], ...]] = (
    ("deadlock", r"Deadlock: "),
    ("livelock", r"Livelock: "),
    ("endless computation", r"Stuck: "),
    ("end of threads", r"(ThreadCrashed|ThreadsLeft|TimeLimit): "),
    ("protocol of the wire", r"MisusedConnection: |\w+ on a connection that was lost|\w+ by a second thread"),
    ("exit code", r"process \d+: (killed|exit code -?\d+), but what happened means"),
    ("complaints", r"process \d+: no fault explains: "),
    (
        "deadlines",
        r"process \d+: (a batch was open|a write was tried|the storage was given up|stopping took|attempt \d+ was"
        r"|the watchdog was)",
    ),
    ("causes", r"process \d+: (signal|order|notice) \S+ .*was stored"),
    ("ages of ticks", r"process \d+: (an order of|refused as stale|not refused as stale)"),
    ("heartbeat", r"process \d+: (no heartbeat from|ended [\d.]+ s after its ledger)"),
    (
        "liveness",
        r"process \d+: (the link is|\d+ messages received of|\d+ ticks in|of \d+ ticks accepted|only \d+ looks)",
    ),
    (
        "ledger",
        r"(process \d+: )?(ledger does not balance|the ledger does|accepted but not stored|exit code 0, but not all"
        r"|\d+ ticks are (neither|stored; the ledger))",
    ),
    ("bounds of channels", r"(process \d+: )?channel \w+"),
    (
        "flow of events",
        r"-?\d+ ticks and notices in the strategy's hands|process \d+: \d+ ticks and notices were under",
    ),
    (
        "what a kill leaves",
        r"power: |process \d+: (\d+ ticks are stored; before|\d+ ticks were stored under"
        r"|a batch counted as stored|a new database was made)",
    ),
    ("database", r"(orders|trades|order events) without their|filled orders without|runs\.\w+ say"),
    ("risk caps", r"order \S+ (BUY|SELL) .* caps "),
    (
        "reference",
        r"(process \d+: )?((signals|orders|order_events|orders_now|trades)(\[\d+\])?: stored|positions: |account: )",
    ),
    (
        "account of the feed",
        r"process \d+(, item|: (the ledger says|gaps|reconnects|stored, refused|\d+ (trades were|sockets|notices)))"
        r"|a notice after|stored tick \d+ was not sent|\d+ trades are stored twice",
    ),
    ("replayed file", r"stored tick \d+ is|\d+ (of \d+ )?ticks are stored"),
    ("synthetic walk", r"run \d+, kept tick \d+: "),
    ("what prune leaves", r"pruned: "),
    ("sums carried over", r"carried: "),
    ("copies", r"backup: "),
)
"""The check that a failure comes from: its name, and how its messages begin. The first match counts."""

_ERROR: Final = re.compile(r"[A-Za-z_.]*(Error|Exception|Interrupt|Exit|Failed|Lost|Gone|Closed|Unavailable|Stopped): ")
_TIMEOUT_S: Final = 900.0


class Odd(Exception):
    """The simulator neither passed nor found a failure."""


class Find(NamedTuple):
    """A failing history: the number of seeds, its scenario, the check that failed, and its message."""

    seed: int
    scenario: str
    check: str
    words: str


def check_of(words: str, scenario: str, raised_in: str = "") -> str:
    """The check that reports such a message; `raised_in` is the program's file in which an exception was raised.

    Raises Odd for an exception of the simulator itself: then it is broken, and nothing was found.
    """
    for name, pattern in CHECKS:
        if re.match(pattern, words):
            return name
    if _ERROR.match(words):
        if raised_in.startswith("tradebot/"):
            return "an exception escaped"
        raise Odd(f"not found, but broken: {words}")
    if scenario in SWARMS:
        raise Odd(f"no check is known to speak so: {words}")
    return f"expectation of {scenario}"


@contextmanager
def program(bug: Bug | None) -> Iterator[Path]:
    """A copy of the program with `bug` (None: without a bug), for the duration of the block."""
    with tempfile.TemporaryDirectory(prefix="tradebot-planted-") as name:
        directory = Path(name)
        copy_program(directory)
        plant(bug, directory)
        yield directory


def hunt(directory: Path, first: int, seeds: int, scenario: str | None) -> tuple[int, Find | None]:
    """Run seeds with the program in `directory` until one fails. Returns the number that passed, and the failure.

    Raises Odd if the simulator neither passed them nor failed with the message of one of its checks.
    """
    command = [sys.executable, "-m", "sim", "--until-failure", "--jobs=1", "--no-shrink"]
    command += [f"--first={first}", f"--seeds={seeds}"]
    if scenario is not None:
        command.append(f"--scenario={scenario}")
    environment = {**os.environ, "PYTHONPATH": str(directory), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    lines = done.stdout.splitlines()
    ends = [line for line in lines if " history=" in line]
    passed = sum(" ok " in line for line in ends)
    if done.returncode == 0 and passed == seeds:
        return passed, None
    wrong = [line.removeprefix("wrong: ") for line in lines if line.startswith("wrong: ")]
    if done.returncode != 1 or len(wrong) != 1:
        tail = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
        raise Odd(f"{' '.join(command[1:])} ended with {done.returncode}: {' / '.join(tail)}")
    found = re.match(r"seed=(\d+) .* scenario=(\w+)$", ends[-1])
    assert found is not None, ends[-1]
    frames: list[str] = re.findall(rf'^ +File "{re.escape(str(directory))}/([^"]+)", line', done.stdout, re.M)
    check = check_of(wrong[0], found[2], frames[-1] if frames else "")
    return passed, Find(int(found[1]), found[2], check, wrong[0])


def find(bug: Bug) -> Find | None:
    """The result of a search for `bug` within its limit of seeds. Raises Stale, Odd."""
    with program(bug) as directory:
        return hunt(directory, 1, bug.seeds, bug.scenario)[1]


def find_without(seeds: int, scenario: str | None) -> Find | None:
    """The result of a search in the program without a bug, which must be nothing. Raises Odd."""
    with program(None) as directory:
        return hunt(directory, 1, seeds, scenario)[1]
