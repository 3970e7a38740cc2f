"""Runs and measures programs from outside; medians, tables, progress. Independent of the programs measured."""

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
    """A measured program failed; the message contains its command and its output."""


@dataclass(frozen=True)
class Measured:
    """One run of a program: wall and processor seconds of the whole process, its peak memory, its standard output."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    stdout: str


def run(command: Sequence[str | Path], scratch: Path, cwd: Path) -> Measured:
    """Run `command` to its end and measure it. Its output goes to files, so that it never waits for a reader.

    Peak memory is the kernel's figure for the process. It is at least that of this process, from which the child is
    forked: keep it small. Raises BenchError if the exit code is not 0.
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
    """The median of several rounds."""
    return statistics.median(values)


def count(number: float) -> str:
    """A whole number with its digits in groups: 1 234 567."""
    return f"{round(number):,}".replace(",", " ")


def verdict(ratio: float, target: float) -> str:
    """The ratio with its target, and whether it is met."""
    return f"{ratio:6.2f}   target at least {target:.2f}: {met(ratio >= target)}"


def met(reached: bool) -> str:
    """Whether a target is met, as a word that is easy to search for."""
    return "met" if reached else "MISSED"


def progress(text: str) -> None:
    """Show the progress, if standard error is a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
