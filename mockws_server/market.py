"""Ticks made up, the same for the same seed, and what may go wrong with their order. Pure: the time is an argument."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from typing import Final

from mockws_server.actions import MEMORY_TICKS
from tradebot.core.events import Tick

DEFAULT_SYMBOLS: Final = ("SOL/USDC",)

_CENTS: Final = 100
_FLOOR: Final = 1 * _CENTS
# Until the year 2096, and such that JSON readers with doubles keep the numbers exact.
_NUMBERING_FROM: Final = 4_000_000_000_000_000


class _SymbolMarket:
    """One symbol: its numbering and its price, a walk on a grid of 0.01 that never falls below 1."""

    def __init__(self, symbol: str, seed: int, first_seq: int) -> None:
        # Of its own for each symbol, so that the ticks of one do not depend on how often another one's turn came.
        # Only `getrandbits` is used: what the other methods make of a seed may differ between versions of Python.
        self._random = random.Random(f"{seed} {symbol}")
        self._symbol = symbol
        self._prefix = f"mock-{seed}-{symbol}-"
        self._seq = first_seq - 1
        self._price = (50 + self._random.getrandbits(7)) * _CENTS

    def tick(self, ts_ms: int) -> Tick:
        bits = self._random.getrandbits(16)
        # Steps of -7 to +7 hundredths, small ones more often.
        self._price = max(_FLOOR, self._price + (bits & 7) - (bits >> 3 & 7))
        self._seq += 1
        volume = (1 + (bits >> 6)) / _CENTS
        return Tick(self._symbol, self._price / _CENTS, volume, ts_ms, f"{self._prefix}{self._seq}", self._seq)


def first_seq_at(now_ms: int) -> int:
    """Where a server started at `now_ms` (Unix ms) begins to number: far below whatever one started earlier came to.

    So a listener takes its numbers for a numbering begun anew, which they are, and not for trades seen before.
    """
    return _NUMBERING_FROM - 1000 * now_ms


class Market:
    """Ticks of `symbols` in turn.

    Each symbol's `seq` counts from `first_seq` without a hole, and its `event_id` says the same. A symbol that is asked
    for by name and is not among `symbols` is made up too.
    """

    def __init__(self, symbols: Sequence[str] = DEFAULT_SYMBOLS, seed: int = 1, first_seq: int = 1) -> None:
        self._symbols = tuple(symbols)
        self._seed = seed
        self._first_seq = first_seq
        self._books: dict[str, _SymbolMarket] = {}
        self._turn: dict[tuple[str, ...], int] = {}

    def ticks(self, count: int, ts_ms: int, symbols: Sequence[str] | None = None) -> list[Tick]:
        """The next `count` ticks, all at `ts_ms` (Unix ms), of `symbols` (else the market's) in turn."""
        chosen = self._symbols if symbols is None else tuple(symbols)
        turn = self._turn.get(chosen, 0)
        self._turn[chosen] = (turn + count) % len(chosen)
        found = []
        for n in range(turn, turn + count):
            symbol = chosen[n % len(chosen)]
            book = self._books.get(symbol)
            if book is None:
                book = self._books[symbol] = _SymbolMarket(symbol, self._seed, self._first_seq)
            found.append(book.tick(ts_ms))
        return found


class TickShaper:
    """What becomes of ticks on their way out: left out, held back and turned round, remembered to be sent again.

    Ticks are texts (JSON) here; where they come from does not matter.
    """

    def __init__(self) -> None:
        self._sent: deque[bytes] = deque(maxlen=MEMORY_TICKS)
        self._skipping = 0
        self._turning = 0
        self._held: list[bytes] = []
        self.skipped = 0

    def skip(self, count: int) -> None:
        """Leave out the next `count` ticks (and those of earlier calls)."""
        self._skipping += count

    def reorder(self, count: int) -> None:
        """Hold back the next `count` ticks (at most MEMORY_TICKS at once) to send them in reverse order."""
        self._turning = min(self._turning + count, MEMORY_TICKS)

    def pass_on(self, ticks: Sequence[bytes]) -> list[bytes]:
        """What of `ticks` is to be sent now, in the order to send it."""
        left_out = min(self._skipping, len(ticks))
        self._skipping -= left_out
        self.skipped += left_out
        out = list(ticks[left_out:])
        if self._turning:
            taken = min(self._turning - len(self._held), len(out))
            self._held += out[:taken]
            out = out[taken:]
            if len(self._held) == self._turning:
                out = [*reversed(self._held), *out]
                self._turning, self._held = 0, []
        self._sent.extend(out)
        return out

    def again(self, count: int) -> list[bytes]:
        """The last `count` ticks that were sent, or as many as there were, in the order they were sent in."""
        return list(self._sent)[-count:]
