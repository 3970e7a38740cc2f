"""S8: the simulation of the whole engine: one seed is one history, in any process and on every supported Python."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from sim.kernel.clock import frozen
from sim.kernel.schedule_profile import ScheduleProfile
from sim.kernel.schedules import Dice, Schedule
from tests.contract.history import history
from tests.e2e.pythons import lend_freezegun, other_python
from tests.sim.engine_histories import HISTORIES, hash_of, hashes

# More with TRADEBOT_SIM_RUNS=200.
RUNS = int(os.environ.get("TRADEBOT_SIM_RUNS", "10"))
REPO = Path(__file__).resolve().parents[2]


def elsewhere(python: str | Path, hash_seed: str, path: str = "") -> list[str]:
    """The HISTORIES in a new process."""
    done = subprocess.run(
        [python, "-m", "tests.sim.engine_histories"],
        cwd=REPO,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def here() -> list[str]:
    """The HISTORIES in this process, after whatever ran in it before."""
    return hashes()


@pytest.mark.parametrize("seed", [1, 6, 14])
def test_many_runs_of_a_seed_are_one_history(seed: int) -> None:
    """S8: with the channels of the engine, for each grain."""
    assert len({history(seed).history_hash() for _ in range(50)}) == 1


def test_many_runs_of_the_engine_are_one_history() -> None:
    """S8: a complete replay, interrupted between statements; the last run equals the first."""
    name, seed = HISTORIES[0]
    with frozen():
        assert len({hash_of(name, seed) for _ in range(RUNS)}) == 1


@pytest.mark.parametrize("hash_seed", ["1", "4242"])
def test_other_processes_agree(hash_seed: str, here: list[str]) -> None:
    """S8: new processes with two values of PYTHONHASHSEED, at least one of which differs from this one's."""
    assert elsewhere(sys.executable, hash_seed) == here


@pytest.mark.parametrize("minor", [11, 12, 13])
def test_other_pythons_agree(minor: int, here: list[str], tmp_path: Path) -> None:
    """S8: histories are the same on 3.11 to 3.13, including those interrupted between statements."""
    assert elsewhere(other_python(minor), "random", lend_freezegun(tmp_path)) == here


def test_these_histories_have_every_grain(monkeypatch: pytest.MonkeyPatch) -> None:
    grains: Counter[str] = Counter()
    schedule = ScheduleProfile.schedule

    def spy(profile: ScheduleProfile, dice: Dice) -> Schedule:
        grains[profile.grain] += 1
        return schedule(profile, dice)

    monkeypatch.setattr(ScheduleProfile, "schedule", spy)
    first = HISTORIES[0]
    with frozen():
        hash_of(*first)
        assert grains["statements"] >= 1, "the first is of statements, since it is run most often"
        for name, seed in HISTORIES[1:]:
            hash_of(name, seed)
    assert set(grains) == {"calls", "seam", "statements"}


@pytest.mark.parametrize("grain", ["calls", "seam", "statements"])
def test_what_ran_before_in_a_process_changes_nothing(grain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first history fills the caches of the process; the second finds them filled."""
    monkeypatch.setattr("sim.kernel.schedule_profile._GRAINS", (grain,) * 8)
    names = ["reset_while_sending", "stop_at_any_moment", "thread_crash"]
    with frozen():
        first = [hash_of(name, 4) for name in names]
        assert [hash_of(name, 4) for name in reversed(names)] == first[::-1]
