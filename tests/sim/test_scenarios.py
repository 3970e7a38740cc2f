"""The engine's own threads in simulated histories: every scenario over some seeds, and one seed is one history."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sim.__main__ import main, run_one
from sim.clock import frozen
from sim.scenarios import SCENARIOS

# More with TRADEBOT_SIM_SEEDS=500; `make sim` runs as many as one likes.
SEEDS = int(os.environ.get("TRADEBOT_SIM_SEEDS", "8"))
REPO = Path(__file__).resolve().parents[2]


def _failing_seeds() -> list[tuple[str, int]]:
    """Seeds that once failed: run for ever."""
    path = REPO / "fixtures" / "seeds.txt"
    lines = [line.split("#")[0].split() for line in path.read_text().splitlines()]
    return [(fields[0], int(fields[1])) for fields in lines if fields]


@pytest.mark.parametrize("name", SCENARIOS)
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


def test_one_seed_is_one_history_in_any_process() -> None:
    """S8: the same hash under any PYTHONHASHSEED."""
    outputs = set()
    for hash_seed in ("0", "1", "4242"):
        done = subprocess.run(
            [sys.executable, "-m", "sim", "--seed=7", "--scenario=" + ",".join(list(SCENARIOS)[::5])],
            cwd=REPO,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        outputs.add(done.stdout)
    assert len(outputs) == 1, outputs


def test_different_seeds_give_different_histories() -> None:
    with frozen() as freezer:
        hashes = {run_one("replay_to_the_end", seed, freezer)[0] for seed in range(1, 11)}
    assert len(hashes) == 10


def test_a_broken_expectation_fails_and_names_the_rerun_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_world: object) -> None:
        raise AssertionError("on purpose")

    monkeypatch.setitem(SCENARIOS, "broken", broken)
    assert main(["--scenario=broken", "--seed=3"]) == 1
    printed = capsys.readouterr().out
    assert "FAIL" in printed and "on purpose" in printed
    assert "rerun: python -m sim --scenario=broken --seed=3" in printed


def test_misuse_is_one_line_and_12(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--scenario=nonsense"]) == 12
    assert "unknown scenario nonsense" in capsys.readouterr().err
    assert main(["--seeds=many"]) == 12
    assert main(["--bogus"]) == 12
