"""Simulates a day of engines and their supervisor with a fault every few minutes: `python -m sim.runner.soak_day`.

`SoakWorld` checks the invariants every simulated second. At the end the engine must run unthrottled, and nothing but
the database may have grown.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import docopt

from sim.kernel.clock import frozen
from sim.scenarios.soak import soak_world
from sim.scenarios.soak_world import SoakWorld
from sim.world.world import World
from tradebot.ops.soak.throttle_ladder import RUNGS
from tradebot.output.streams import run_tool
from tradebot.threads.pipeline import STAGES

USAGE: Final = """\
Usage:
  soak_day [options]

Options:
  --hours=H   Simulated hours [default: 24].
  --seed=N    The seed of faults and schedules [default: 1].
  -h --help   Show this help.
"""

CALM_S: Final = 600
"""The end of the day without faults, in seconds: long enough to return from the highest throttle step."""
RSS_GROWTH_MAX: Final = 16 * 1024 * 1024
"""Memory that the allocator keeps after a free, and the last copy of the database, which grows all day."""
_SETTLED: Final = 8
"""After this fraction of the day (1/8), when every code path has been used, the reference figures are measured."""
_STAGES: Final = STAGES[2::-1]


class Figures(NamedTuple):
    """Figures that must not grow: resident memory, allocated blocks, open files, bytes of decisions."""

    rss_bytes: int
    blocks: int
    open_files: int
    decision_bytes: int


def measure(directory: Path) -> Figures:
    """The current figures."""
    gc.collect()
    # Freed memory that the allocator keeps is not a leak.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    decisions = sum(path.stat().st_size for path in directory.glob("decisions.txt*"))
    rss_bytes, open_files = pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))
    return Figures(rss_bytes, sys.getallocatedblocks(), open_files, decisions)


def plan_faults(soak: SoakWorld, world: World, end_s: int) -> Counter[str]:
    """Plan a fault every one to ten minutes until CALM_S before the end; returns the number of each kind."""
    planned: Counter[str] = Counter()
    second = 60
    while second < end_s - CALM_S - 300:
        kind = _KINDS[world.between(0, len(_KINDS) - 1)]
        planned[kind] += 1
        _plan(soak, world, kind, second)
        second += world.between(60, 600)
    last_s = end_s - CALM_S
    soak.at(last_s, lambda: soak.refuse(False))
    soak.at(last_s, lambda: soak.press(0.0))
    return planned


_KINDS: Final = (
    "stopped", "paused", "killed", "hangs", "crashes", "refused", "mute", "locked", "quiet", "pressure", "peak",
    "manager away", "status garbled",
)  # fmt: skip


def _plan(soak: SoakWorld, world: World, kind: str, at_s: int) -> None:
    for_s = world.between(5, 120)
    stage = _STAGES[world.between(0, 2)]
    match kind:
        case "stopped":
            soak.at(at_s, soak.freeze)
        case "paused":
            soak.at(at_s, soak.freeze)
            soak.at(at_s + min(for_s, 40), soak.thaw)
        case "killed":
            soak.at(at_s, soak.kill)
        case "hangs":
            soak.at(at_s, lambda: soak.hang(stage))
        case "crashes":
            soak.at(at_s, lambda: soak.crash(stage))
        case "refused":
            soak.at(at_s, lambda: soak.refuse(True))
            soak.at(at_s + for_s, lambda: soak.refuse(False))
        case "mute":
            soak.at(at_s, soak.mute)
        case "locked":
            soak.at(at_s, lambda: soak.lock_database(float(for_s)))
        case "quiet":
            soak.at(at_s, lambda: setattr(soak, "quiet_until_s", at_s + 3 * for_s))
        case "pressure":
            soak.at(at_s, lambda: soak.press(30.0))
            soak.at(at_s + 14, lambda: soak.press(5.0))
        case "peak":
            soak.at(at_s, lambda: soak.press(99.0))
            soak.at(at_s + 4, lambda: soak.press(15.0))
            soak.at(at_s + 60, lambda: soak.press(0.0))
        case "manager away":
            soak.at(at_s, soak.freeze)
            soak.at(at_s, lambda: setattr(soak, "failing_until_s", at_s + for_s))
        case "status garbled":
            soak.at(at_s, soak.garble_status)


def play_day(seed: int, hours: float, directory: Path) -> list[str]:
    """Simulate one day; returns its summary, for people. Raises AssertionError if a check fails."""
    end_s = int(hours * 3600)
    with frozen() as freezer:
        world = World(seed, directory, freezer)
        soak = soak_world(world, end_s, forgetful=True)
        planned = plan_faults(soak, world, end_s)
        settled: list[Figures] = []
        soak.at(end_s // _SETTLED, lambda: settled.append(measure(directory)))
        soak.play()
    before, after = settled[0], measure(directory)
    lines = [
        f"{soak.now_s / 3600:g} simulated hours, {soak.supervisor.polls} polls, {sum(planned.values())} faults:"
        f" {', '.join(f'{count} {kind}' for kind, count in sorted(planned.items()))}",
        f"restarts by the supervisor: {soak.supervisor.restarts}, {soak.supervisor.stalls} of them for a stall;"
        f" ticks stored: {soak.ticks}; at the end {soak.supervisor.rung.state}",
        f"after {hours / _SETTLED:g} h: {_shown(before)}",
        f"after {hours:g} h: {_shown(after)}",
    ]
    summary = "\n".join(lines)
    assert not soak.supervisor.aborted and soak.now_s >= end_s, f"it ended early\n{summary}"
    assert soak.supervisor.rung == RUNGS[0] and soak.supervisor.unwell() == [], summary
    assert after.rss_bytes - before.rss_bytes < RSS_GROWTH_MAX, f"memory grew\n{summary}"
    assert after.blocks < 1.25 * before.blocks, f"objects are left behind\n{summary}"
    assert after.open_files <= before.open_files + 4, f"files are left open\n{summary}"
    assert after.decision_bytes < 1024 * 1024, f"decisions grow without bound\n{summary}"
    return lines


def _shown(figures: Figures) -> str:
    return (
        f"{figures.rss_bytes / 2**20:.0f} MB resident, {figures.open_files} open files,"
        f" {figures.decision_bytes // 1024} KB of decisions, {figures.blocks} blocks allocated"
    )


def main() -> int:
    """The exit code: 0, or 1 if a check failed."""
    given = docopt.docopt(USAGE)
    with tempfile.TemporaryDirectory(prefix="tradebot-soak-day-") as directory:
        try:
            lines = play_day(int(given["--seed"]), float(given["--hours"]), Path(directory))
        except AssertionError as error:
            sys.stdout.write(f"FAIL: {error}\n")
            return 1
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    run_tool(main)
