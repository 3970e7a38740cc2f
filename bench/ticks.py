"""The ticks used by all benchmarks: a seeded random walk that resembles trades of BTCUSDT."""

from __future__ import annotations

import random
from pathlib import Path

SEED = 1
NS_A_TS = 1000
"""Nanoseconds per unit of `ts` in ticks whose latency is measured."""

SYMBOL = "BTCUSDT"
START_CENTS = 6_000_000
START_MS = 1_700_000_000_000
STEP_MS = 37
# Half of the trades leave the price unchanged or move it by one step: many ties, as in real data.
STEPS_CENTS = (-2, -1, -1, 0, 0, 1, 1, 2)
# No trade is smaller than the orders of the benchmarks, so that a peer that checks the volume fills each completely.
LEAST_VOLUME = 0.0001


def write_ticks(path: Path, count: int, seed: int = SEED) -> None:
    """Write `count` replay lines to `path`, the same for the same seed; memory does not grow with `count`."""
    rng = random.Random(seed)
    cents = START_CENTS
    with path.open("w") as file:
        for i in range(count):
            cents = max(100, cents + rng.choice(STEPS_CENTS))
            price, volume = f"{cents // 100}.{cents % 100:02d}", LEAST_VOLUME + rng.random()
            ts = START_MS + i * STEP_MS
            file.write(f'{{"symbol":"{SYMBOL}","price":{price},"volume":{volume:.5f},"ts":{ts}}}\n')
