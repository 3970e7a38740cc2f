"""The expected ticks of non-network inputs: a replay file and the synthetic walk."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Sequence
from fractions import Fraction

from tradebot.core.events import Tick

_START: Fraction = Fraction(100)
_FLOOR: Fraction = Fraction(1)
_STEP: Fraction = Fraction(1, 20)


def ticks_of_lines(lines: Sequence[str]) -> tuple[list[Tick], int]:
    """The good ticks of a replay file's lines, and how many lines are malformed. Blank lines are ignored."""
    ticks: list[Tick] = []
    malformed = 0
    for line in lines:
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            tick = Tick(
                value["symbol"],
                float(value["price"]),
                float(value["volume"]),
                int(value["ts"]),
                taker=value.get("taker"),
            )
            good = tick.price > 0 and tick.volume >= 0 and math.isfinite(tick.price) and math.isfinite(tick.volume)
        except (ValueError, TypeError, KeyError):
            good = False
        if good:
            ticks.append(tick)
        else:
            malformed += 1
    return ticks, malformed


def check_replayed(stored: Sequence[Tick], lines: Sequence[str], sample_every: int, whole: bool) -> None:
    """The stored ticks are every n-th good one of the file, all of them or (not `whole`) the first of them."""
    ticks, _malformed = ticks_of_lines(lines)
    wanted = ticks[sample_every - 1 :: sample_every]
    for index, (one, other) in enumerate(zip(stored, wanted, strict=False)):
        assert one == other, f"stored tick {index} is {one}, the file has {other}"
    assert len(stored) <= len(wanted), f"{len(stored)} ticks are stored, the file has {len(wanted)}"
    assert not whole or len(stored) == len(wanted), f"{len(stored)} of {len(wanted)} ticks are stored"


def check_walk(db: sqlite3.Connection, runs: Sequence[int]) -> None:
    """The stored prices of consecutive runs of the synthetic feed are one walk without a hole."""
    price, n = _START, 0
    for run in runs:
        for symbol, stored, volume in db.execute(
            "SELECT symbol, price, volume FROM ticks WHERE run = ? ORDER BY id", (run,)
        ):
            direction = Fraction(1) if n % 5 in (0, 2, 3) else Fraction(-1, 2)
            price = max(_FLOOR, price + _STEP * direction)
            n += 1
            assert stored == float(price), f"run {run}, kept tick {n}: {symbol} {stored}, the walk has {float(price)}"
            assert volume == 1.0, f"run {run}, kept tick {n}: volume {volume}"
