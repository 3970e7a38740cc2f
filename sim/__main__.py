"""Run scenarios over seeds: `python -m sim --help`."""

from __future__ import annotations

import hashlib
import sys
import tempfile
import traceback
from pathlib import Path

import docopt

from sim.clock import Movable, frozen
from sim.scenarios import SCENARIOS
from sim.world import World

USAGE = """\
Run the engine's own threads under simulated time, one history a seed.

Usage:
  sim [options]         (that is: python -m sim [options])

Options:
  --scenario=NAMES  Only these scenarios, separated by commas; all unless told.
  --seed=N          Just this seed.
  --seeds=N         This many seeds, from --first on [default: 20].
  --first=N         The first seed [default: 1].
  --list            Name the scenarios.
  -h --help         Print this.

Each history ends with a line `seed=N scenario=NAME history=SHA256 ok|FAIL ...`; exit 1 when one failed.
"""


def run_one(name: str, seed: int, freezer: Movable | None) -> tuple[str, str | None, int, float]:
    """One history: its hash, what went wrong (None: nothing), steps and simulated seconds."""
    failure = None
    with tempfile.TemporaryDirectory(prefix="tradebot-sim-", dir=_fast_directory()) as directory:
        world = World(seed, Path(directory), freezer)
        try:
            SCENARIOS[name](world)
        except Exception:
            failure = traceback.format_exc()
    digest = hashlib.sha256("".join(outcome.history for outcome in world.outcomes).encode()).hexdigest()
    steps = sum(outcome.steps for outcome in world.outcomes)
    return digest, failure, steps, sum(outcome.sim_s for outcome in world.outcomes)


def _fast_directory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 all histories passed, 1 one failed, 12 misused."""
    try:
        given = docopt.docopt(USAGE, argv)
        if given["--list"]:
            for name, function in SCENARIOS.items():
                print(f"{name}: {(function.__doc__ or '').splitlines()[0]}")
            return 0
        first = int(given["--seed"] or given["--first"])
        count = 1 if given["--seed"] else int(given["--seeds"])
    except docopt.DocoptExit as error:
        print(f"{error}\ntry python -m sim --help".strip(), file=sys.stderr)
        return 12
    except ValueError:
        print("--seed, --seeds and --first take whole numbers; try python -m sim --help", file=sys.stderr)
        return 12
    names = given["--scenario"].split(",") if given["--scenario"] else list(SCENARIOS)
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        print(f"unknown scenario {', '.join(unknown)}; there are: {', '.join(SCENARIOS)}", file=sys.stderr)
        return 12
    failed = 0
    with frozen() as freezer:
        for name in names:
            for seed in range(first, first + count):
                digest, failure, steps, sim_s = run_one(name, seed, freezer)
                verdict = "ok" if failure is None else "FAIL"
                print(
                    f"seed={seed} scenario={name} history={digest} {verdict} steps={steps} sim_s={sim_s:.1f}",
                    flush=True,
                )
                if failure is not None:
                    failed += 1
                    print(f"{failure}rerun: python -m sim --scenario={name} --seed={seed}", flush=True)
    print(f"{count * len(names)} histories, {failed} failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
