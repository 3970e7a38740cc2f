"""Hashes of some histories of the whole engine: `python -m tests.sim.engine_histories`, for any interpreter."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sim.kernel.clock import frozen
from sim.scenarios import SCENARIOS
from sim.world.world import World

# Fast ones: a replay, one with kills and restarts, one with a broken input, one with stops and links, a power loss.
# Together they use every grain (see test_determinism.py).
HISTORIES = (
    ("full_replay", 2),
    ("kill_and_resume", 8),
    ("malformed_at_limit", 6),
    ("stop_in_any_link_state", 7),
    ("power_cut_at_any_moment", 3),
)


def hash_of(name: str, seed: int) -> str:
    """The hashes of the processes of one history of a scenario. Call it under `frozen`."""
    with tempfile.TemporaryDirectory() as directory:
        world = World(seed, Path(directory))
        SCENARIOS[name](world)
        return " ".join(outcome.history for outcome in world.outcomes)


def hashes() -> list[str]:
    """The hashes of all HISTORIES."""
    with frozen():
        return [hash_of(name, seed) for name, seed in HISTORIES]


if __name__ == "__main__":
    print(*hashes(), sep="\n")
