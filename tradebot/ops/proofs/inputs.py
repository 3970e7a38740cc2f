"""Input for the experiments that replay: made up, the same on every machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_SYMBOLS: Final = ("AAA/USD", "BBB/USD", "CCC/USD")
_FIRST_TS_MS: Final = 1_700_000_000_000
_SEED: Final = 20_240_808
_LOWEST_CENTS: Final = 100


def _prices(ticks: int) -> Iterator[tuple[str, float]]:
    """Random walks in cents. A linear congruence (Knuth's), not `random`: its numbers are the same for ever."""
    state, cents = _SEED, dict.fromkeys(_SYMBOLS, 10_000)
    for _ in range(ticks):
        state = (state * 6_364_136_223_846_793_005 + 1_442_695_040_888_963_407) % 2**64
        symbol = _SYMBOLS[(state >> 33) % len(_SYMBOLS)]
        cents[symbol] = max(_LOWEST_CENTS, cents[symbol] + (state >> 40) % 41 - 20)
        yield symbol, cents[symbol] / 100


def write_input(path: Path, ticks: int, step_ms: int) -> None:
    """So many ticks of several symbols, `step_ms` apart, as a replay reads them. Blocks. Raises OSError."""
    with path.open("w", encoding="ascii") as file:
        for number, (symbol, price) in enumerate(_prices(ticks)):
            tick = {"symbol": symbol, "price": price, "volume": 1.5, "ts": _FIRST_TS_MS + number * step_ms}
            file.write(json.dumps(tick) + "\n")
