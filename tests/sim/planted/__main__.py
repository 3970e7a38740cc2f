"""Plant each bug, let the simulator hunt it, print the table: `python -m tests.sim.planted [NAME...]`.

The table is Markdown, as in docs/planted-bugs.md. Exit code 0: all were found within their bounds; 1: one was not, a
patch no longer fits, or the program fails without any bug.
"""

from __future__ import annotations

import argparse
import os
import sys

from sim.runner.history import SWARMS
from tests.sim.planted.bug import Bug, Stale
from tests.sim.planted.bugs import BUGS
from tests.sim.planted.finder import Find, Odd, find, find_without
from tradebot.output.streams import run_tool


def main(names: list[str]) -> int:
    """Print the table of the bugs named, or of all."""
    chosen = [bug for bug in BUGS if not names or bug.name in names]
    began_s = os.times().elapsed
    print("| bug | what is wrong | found by | seeds |\n|---|---|---|---|", flush=True)
    failed = 0
    needed: dict[str | None, int] = {}
    for bug in chosen:
        found = _row(bug)
        failed += found is None
        if found is not None:
            needed[bug.scenario] = max(needed.get(bug.scenario, 0), found.seed)
    for scenario, seeds in needed.items():
        failed += not _passes(seeds, scenario)
    minutes = (os.times().elapsed - began_s) / 60
    print(f"{len(chosen)} bugs, {failed} failures, {minutes:.1f} min", file=sys.stderr)
    return 1 if failed else 0


def _row(bug: Bug) -> Find | None:
    found = None
    try:
        found = find(bug)
        told = "**not found**" if found is None else found.check
    except (Odd, Stale) as error:
        told = f"**{error}**"
    in_scenario = (
        "" if found is None or found.scenario in SWARMS or found.scenario in told else f" (in {found.scenario})"
    )
    seeds = f"over {bug.seeds}" if found is None else str(found.seed)
    print(f"| `{bug.name}` | {bug.what} | {told}{in_scenario} | {seeds} |", flush=True)
    if found is not None:
        print(f"{bug.name}: {found.words[:300]}", file=sys.stderr, flush=True)
    return found


def _passes(seeds: int, scenario: str | None) -> bool:
    """Whether the program without a bug passes all seeds that the bugs needed."""
    told = "as drawn" if scenario is None else scenario
    try:
        found = find_without(seeds, scenario)
    except Odd as error:
        print(f"without a bug: {error}", file=sys.stderr)
        return False
    if found is not None:
        print(f"without a bug seed {found.seed} fails ({told}): {found.words}", file=sys.stderr)
        return False
    print(f"without a bug seeds 1 to {seeds} pass ({told})", file=sys.stderr)
    return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.sim.planted", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="only these bugs", choices=[[], *(b.name for b in BUGS)]
    )
    run_tool(lambda: main(parser.parse_args().names))
