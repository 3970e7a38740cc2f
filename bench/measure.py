"""Running a program and measuring it from outside; medians, tables, progress. Nothing here knows what is measured."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class BenchError(Exception):
    """A measured program failed; the text says which and what it wrote."""


@dataclass(frozen=True)
class Measured:
    """One run of a program: wall and processor seconds of the whole process, its peak memory, its standard output."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    stdout: str


def run(command: Sequence[str | Path], scratch: Path, cwd: Path) -> Measured:
    """Run `command` to its end and measure it. Its output goes to files, so that nobody waits for a reader.

    Peak memory is what the kernel counted for the process (a lower bound is this process's own, which the child starts
    from: keep that small). Raises BenchError when it does not exit 0.
    """
    out, err = scratch / "stdout.txt", scratch / "stderr.txt"
    words = [str(word) for word in command]
    with out.open("wb") as stdout, err.open("wb") as stderr:
        begin = time.perf_counter()
        process = subprocess.Popen(words, cwd=cwd, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        tail = err.read_text(errors="replace")[-2000:]
        raise BenchError(f"{' '.join(words)}\nexited with {process.returncode} and wrote:\n{tail}")
    return Measured(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, out.read_text())


def median(values: Sequence[float]) -> float:
    """The median, as the one number of several rounds."""
    return statistics.median(values)


def count(number: float) -> str:
    """A whole number with thin groups: 1 234 567."""
    return f"{round(number):,}".replace(",", " ")


def verdict(ratio: float, target: float) -> str:
    """The ratio with its target, and whether it is met."""
    return f"{ratio:6.2f}   target at least {target:.2f}: {met(ratio >= target)}"


def met(reached: bool) -> str:
    """A target's outcome, in a word that is easy to find."""
    return "met" if reached else "MISSED"


def progress(text: str) -> None:
    """Show what is going on, on a terminal only."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
