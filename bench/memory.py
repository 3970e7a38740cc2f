"""make bench-memory: the peak memory of a replay must not grow with the number of its ticks.

Usage:
  bench.memory [--ticks=N] [--times=N]

Options:
  --ticks=N  The smaller number of ticks [default: 1000000].
  --times=N  The larger number is N times as high [default: 4].
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from docopt import docopt

from bench import engine, measure
from bench.replay import machine, whole_number
from bench.ticks import write_ticks
from tradebot.output.streams import run_tool

GROWTH_MAX = 1.10
PEAK_MB_MAX = 80.0


def peak_mb(scratch: Path, ticks: int) -> float:
    """Peak memory, in MB of 2**20 bytes, of a replay of `ticks` ticks that stores everything and logs at INFO."""
    file, database = scratch / "ticks.jsonl", scratch / "target.db"
    measure.progress(f"{measure.count(ticks)} ticks")
    write_ticks(file, ticks)
    run = engine.replay(scratch, database, file, "INFO")
    engine.check_rows(database, ticks)
    measure.progress("")
    return run.process.peak_mb


def main() -> None:
    """Measure and print."""
    arguments = docopt(__doc__ or "")
    ticks = whole_number(arguments, "--ticks")
    sizes = (ticks, ticks * whole_number(arguments, "--times"))
    print(machine())
    peaks = []
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="tradebot-bench-") as scratch:
            try:
                peaks.append(peak_mb(Path(scratch), size))
            except measure.BenchError as error:
                sys.exit(f"bench: {error}")
        print(f"peak memory at {measure.count(size):>12} ticks: {peaks[-1]:6.1f} MB")
    growth = peaks[1] / peaks[0]
    print(f"growth {growth:6.3f}   target at most {GROWTH_MAX:.2f}: {measure.met(growth <= GROWTH_MAX)}")
    print(f"peak {max(peaks):.1f} MB   target below {PEAK_MB_MAX:.0f} MB: {measure.met(max(peaks) < PEAK_MB_MAX)}")


if __name__ == "__main__":
    run_tool(main)
