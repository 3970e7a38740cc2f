"""The engine's threads in simulated histories: every named scenario with some seeds, and all seeds that once failed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sim.__main__ import run_one
from sim.kernel.clock import frozen
from sim.runner.history import SWARMS
from sim.scenarios import SCENARIOS

# More with TRADEBOT_SIM_SEEDS=500; `make sim` runs any number.
SEEDS = int(os.environ.get("TRADEBOT_SIM_SEEDS", "1"))
REPO = Path(__file__).resolve().parents[2]


def _failing_seeds() -> list[tuple[str, int]]:
    """Seeds that once failed."""
    path = REPO / "fixtures" / "seeds.txt"
    lines = [line.split("#")[0].split() for line in path.read_text().splitlines()]
    return [(fields[0], int(fields[1])) for fields in lines if fields]


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in SWARMS])  # many of it: test_swarm.py
@pytest.mark.timeout(600)
def test_scenario(name: str) -> None:
    with frozen() as freezer:
        for seed in range(1, SEEDS + 1):
            _digest, failure, _steps, _sim_s = run_one(name, seed, freezer)
            assert failure is None, f"{failure}\nrerun: python -m sim --scenario={name} --seed={seed}"


@pytest.mark.parametrize(("name", "seed"), _failing_seeds())
def test_a_seed_that_once_failed(name: str, seed: int) -> None:
    with frozen() as freezer:
        _digest, failure, _steps, _sim_s = run_one(name, seed, freezer)
    assert failure is None, failure


def test_different_seeds_give_different_histories() -> None:
    with frozen() as freezer:
        hashes = {run_one("full_replay", seed, freezer)[0] for seed in range(1, 11)}
    assert len(hashes) == 10
