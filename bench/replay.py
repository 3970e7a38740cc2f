"""make bench: compares a replay that stores everything with plain sqlite3 storing the same rows, and SHADOW with PAPER.

Usage:
  bench.replay [--ticks=N] [--rounds=N]

Options:
  --ticks=N   The number of ticks to generate [default: 1000000].
  --rounds=N  Measure each variant N times, in turns, and use the medians [default: 3].
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docopt import docopt

from bench import engine, measure
from bench.ticks import write_ticks
from tradebot.output.streams import run_tool

TARGET_STORED, TARGET_LOGGING, TARGET_PAPER = 1.2, 0.9, 0.6


@dataclass
class Samples:
    """The results of all rounds for one variant: the time that counts, and times and memory of the whole process."""

    label: str
    seconds: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peak_mb: list[float] = field(default_factory=list)

    def add(self, process: measure.Measured, seconds: float) -> None:
        """One round."""
        self.seconds.append(seconds)
        self.wall_s.append(process.wall_s)
        self.cpu_s.append(process.cpu_s)
        self.peak_mb.append(process.peak_mb)

    def line(self, ticks: int) -> str:
        """A line of the table."""
        seconds = measure.median(self.seconds)
        spread = f"{min(self.seconds):.2f}-{max(self.seconds):.2f}"
        return (
            f"{self.label:<44}{seconds:8.2f}  {spread:>13}{measure.count(ticks / seconds):>12}"
            f"{measure.median(self.wall_s):11.2f}{measure.median(self.cpu_s):7.2f}{max(self.peak_mb):9.0f}"
        )


HEADING = f"{'':<44}{'seconds':>8}  {'least-most':>13}{'ticks/s':>12}{'process s':>11}{'cpu s':>7}{'peak MB':>9}"


class Bench:
    """The measured variants, with a scratch directory for the ticks and the databases."""

    def __init__(self, scratch: Path, ticks: int) -> None:
        self.machine = machine()
        self.scratch = scratch
        self.ticks = ticks
        self.file = scratch / "ticks.jsonl"
        self.source = scratch / "source.db"
        self.target = scratch / "target.db"
        self.busy: dict[str, list[dict[str, float]]] = {"c": [], "p": []}
        self.inside_s: list[float] = []
        self.plain = Samples("(a) plain executemany of the same rows")
        self.decoding = Samples("(b) decoding the file alone")
        self.stored = Samples("(c) whole replay, all stored, log at INFO")
        self.quiet = Samples("(c) the same, log at ERROR")
        self.unstored = Samples("(d) whole replay, nothing stored, INFO")
        self.paper = Samples("(p) whole replay in PAPER, all stored, INFO")

    def prepare(self) -> dict[str, int]:
        """Generate the ticks and, with an unmeasured replay, the rows for (a) and (d). Returns the row counts."""
        measure.progress(f"making {measure.count(self.ticks)} ticks")
        write_ticks(self.file, self.ticks)
        measure.progress("a first replay, for the rows")
        engine.replay(self.scratch, self.source, self.file, "ERROR")
        return engine.check_rows(self.source, self.ticks)

    def rounds(self, count: int) -> None:
        """Measure every variant `count` times, in turns, each time in a new process."""
        steps: list[Callable[[], None]] = [
            self.measure_plain,
            self.measure_decoding,
            lambda: self.measure_stored(self.stored, "INFO"),
            lambda: self.measure_stored(self.quiet, "ERROR"),
            self.measure_unstored,
            self.measure_paper,
        ]
        for number in range(count):
            for at, step in enumerate(steps):
                measure.progress(f"round {number + 1} of {count}, step {at + 1} of {len(steps)}")
                step()
        measure.progress("")

    def measure_plain(self) -> None:
        """(a): the time of storing the rows, measured in the process."""
        engine.remove(self.target)
        process = measure.run(engine.python("bench.plain", self.source, self.target), self.scratch, engine.REPO)
        self.plain.add(process, json.loads(process.stdout)["seconds"])
        engine.check_rows(self.target, self.ticks)

    def measure_decoding(self) -> None:
        """(b): the time measured in the process."""
        process = measure.run(engine.python("bench.decode", self.file), self.scratch, engine.REPO)
        self.decoding.add(process, json.loads(process.stdout)["seconds"])

    def measure_stored(self, samples: Samples, level: str) -> None:
        """(c): the whole process, from its start to its end."""
        run = engine.replay(self.scratch, self.target, self.file, level)
        samples.add(run.process, run.process.wall_s)
        engine.check_rows(self.target, self.ticks)
        if run.final.get("busy_s"):
            self.busy["c"].append(run.final["busy_s"])
            self.inside_s.append(run.final["elapsed_s"])

    def measure_unstored(self) -> None:
        """(d): the whole process; the ticks come from the database of the first replay."""
        run = engine.replay(self.scratch, self.source, None, "INFO")
        self.unstored.add(run.process, run.process.wall_s)

    def measure_paper(self) -> None:
        """(p): the whole process, in PAPER with the same decisions as (c)."""
        run = engine.replay(self.scratch, self.target, self.file, "INFO", mode="paper")
        self.paper.add(run.process, run.process.wall_s)
        engine.check_rows(self.target, self.ticks)
        if run.final.get("busy_s"):
            self.busy["p"].append(run.final["busy_s"])

    def report(self, counts: dict[str, int]) -> str:
        """The table."""
        plain, stored = measure.median(self.plain.seconds), measure.median(self.stored.seconds)
        every = (self.plain, self.decoding, self.stored, self.quiet, self.unstored, self.paper)
        lines = [", ".join(f"{measure.count(number)} {table}" for table, number in counts.items())]
        lines += [self.machine, f"medians of {len(self.plain.seconds)} rounds, measured in turns", "", HEADING]
        lines += [samples.line(self.ticks) for samples in every]
        quiet = measure.median(self.quiet.seconds)
        lines += ["", f"c/a, start-up included in c only   {measure.verdict(plain / stored, TARGET_STORED)}"]
        if self.inside_s:
            inside = measure.median(self.inside_s)
            lines += [
                f"c/a, start-up of Python in neither   {plain / inside:.2f}   (c inside the engine: {inside:.2f} s)"
            ]
        lines += [f"c with log at INFO / at ERROR      {measure.verdict(quiet / stored, TARGET_LOGGING)}"]
        paper = measure.median(self.paper.seconds)
        lines += [f"speed in PAPER (p) / in SHADOW (c) {measure.verdict(stored / paper, TARGET_PAPER)}", ""]
        return "\n".join([*lines, *self.busy_lines()])

    def busy_lines(self) -> list[str]:
        """Processor seconds of each stage in (c) and (p), from the engine's log."""
        lines = []
        for letter, measured in self.busy.items():
            if measured:
                stages = {stage: measure.median([busy[stage] for busy in measured]) for stage in measured[0]}
                text = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in stages.items())
                lines.append(f"processor seconds of each stage in ({letter}): {text}")
        return lines


def machine() -> str:
    """A description of the machine, with a warning if it is busy. Call it before the first measurement."""
    versions = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    text = f"{versions}, {cores} cores, {platform.system()} {platform.machine()}"
    if load > cores / 2:
        text += f"\nNOTE: load {load:.1f} before the start: other programs share the processors, times will be too long"
    return text


def whole_number(arguments: dict[str, Any], name: str) -> int:
    """The value of the option, a whole number of at least 1; exits with a message otherwise."""
    text = str(arguments[name])
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise SystemExit(f"{name}={text}: not a whole number of at least 1")
    return int(text)


def main() -> None:
    """Measure and print."""
    arguments = docopt(__doc__ or "")
    ticks, rounds = whole_number(arguments, "--ticks"), whole_number(arguments, "--rounds")
    with tempfile.TemporaryDirectory(prefix="tradebot-bench-") as scratch:
        bench = Bench(Path(scratch), ticks)
        try:
            counts = bench.prepare()
            bench.rounds(rounds)
        except measure.BenchError as error:
            sys.exit(f"bench: {error}")
        print(bench.report(counts))


if __name__ == "__main__":
    run_tool(main)
