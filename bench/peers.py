"""make bench-peers: compares a complete replay of tradebot with other engines running the same strategy and orders.

Usage:
  bench.peers --peer-python=FILE [--ticks=N] [--rounds=N]

Options:
  --peer-python=FILE  The Python of an environment with NautilusTrader and backtrader (requirements-peers.txt).
  --ticks=N           The number of ticks to generate [default: 1000000].
  --rounds=N          Run each engine N times, in turns, and use the medians [default: 3].

The time of tradebot is that of the whole process, including start, parsing and storing. For the others only run() is
timed: they start with parsed ticks in memory and store nothing.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from docopt import docopt

from bench import engine, measure
from bench.replay import machine, whole_number
from bench.ticks import write_ticks
from tradebot.output.streams import run_tool

TARGET = 12.0
PEERS = ("peer_nautilus.py", "peer_backtrader.py")


class Engine:
    """The rounds of one engine."""

    def __init__(self) -> None:
        self.name = ""
        self.seconds: list[float] = []
        self.peak_mb = 0.0
        self.signals = self.filled = 0

    def add(self, process: measure.Measured, answer: dict[str, Any]) -> None:
        """One round."""
        self.name, self.signals, self.filled = answer["peer"], answer["signals"], answer["filled"]
        self.seconds.append(answer["seconds"])
        self.peak_mb = max(self.peak_mb, process.peak_mb)

    def line(self, ticks: int, best: float) -> str:
        """A line of the table; `best` is the time of tradebot."""
        seconds = measure.median(self.seconds)
        return (
            f"{self.name:<26}{seconds:9.2f}{measure.count(ticks / seconds):>12}{seconds / best:9.1f}"
            f"{measure.count(self.signals):>10}{measure.count(self.filled):>10}{self.peak_mb:9.0f}"
        )


def run_tradebot(scratch: Path, file: Path, ticks: int) -> tuple[measure.Measured, dict[str, Any]]:
    """One complete replay with everything stored, log level INFO."""
    database = scratch / "target.db"
    run = engine.replay(scratch, database, file, "INFO")
    counts = engine.check_rows(database, ticks)
    answer = {"peer": "tradebot (c)", "seconds": run.process.wall_s, "signals": counts["signals"]}
    return run.process, answer | {"filled": counts["trades"]}


def run_peer(scratch: Path, python: Path, script: str, file: Path) -> tuple[measure.Measured, dict[str, Any]]:
    """One run of a peer in its environment."""
    process = measure.run([python, engine.REPO / "bench" / script, file], scratch, scratch)
    answer: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return process, answer


def compare(scratch: Path, python: Path, ticks: int, rounds: int) -> list[Engine]:
    """Measure all engines `rounds` times, in turns; tradebot is the first."""
    file = scratch / "ticks.jsonl"
    measure.progress(f"making {measure.count(ticks)} ticks")
    write_ticks(file, ticks)
    engines = [Engine() for _ in range(1 + len(PEERS))]
    for number in range(rounds):
        measure.progress(f"round {number + 1} of {rounds}: tradebot")
        engines[0].add(*run_tradebot(scratch, file, ticks))
        for peer, script in zip(engines[1:], PEERS, strict=True):
            measure.progress(f"round {number + 1} of {rounds}: {script}")
            peer.add(*run_peer(scratch, python, script, file))
    measure.progress("")
    return engines


def main() -> None:
    """Measure and print."""
    arguments = docopt(__doc__ or "")
    ticks, rounds = whole_number(arguments, "--ticks"), whole_number(arguments, "--rounds")
    where = machine()
    python = Path(arguments["--peer-python"]).absolute()
    with tempfile.TemporaryDirectory(prefix="tradebot-bench-") as scratch:
        try:
            engines = compare(Path(scratch), python, ticks, rounds)
        except measure.BenchError as error:
            sys.exit(f"bench: {error}")
    best = measure.median(engines[0].seconds)
    print(f"{measure.count(ticks)} ticks, medians of {rounds} rounds, measured in turns; tradebot: {where}\n")
    print(f"{'':<26}{'seconds':>9}{'ticks/s':>12}{'times':>9}{'signals':>10}{'filled':>10}{'peak MB':>9}")
    for each in engines:
        print(each.line(ticks, best))
    ratio = measure.median(engines[1].seconds) / best
    print(f"\nspeed of tradebot, storing, to {engines[1].name} not storing  {measure.verdict(ratio, TARGET)}")


if __name__ == "__main__":
    run_tool(main)
