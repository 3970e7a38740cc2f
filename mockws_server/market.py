"""Generated ticks, determined by a seed, and faults in their order. Pure: the time is an argument."""

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
# Sufficient until the year 2096, and small enough that JSON readers which use doubles keep the numbers exact.
_NUMBERING_FROM: Final = 4_000_000_000_000_000


class _SymbolMarket:
    """One symbol: its numbering and its price, a walk on a grid of 0.01 that never falls below 1."""

    def __init__(self, symbol: str, seed: int, first_seq: int) -> None:
        # Separate for each symbol, so that its ticks do not depend on how many ticks other symbols had.
        # Only `getrandbits` is used: the results of the other methods may differ between versions of Python.
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
    """The first number of a server started at `now_ms` (Unix ms): far below all numbers of servers started earlier.

    So a client recognizes a restarted numbering, and does not treat the ticks as duplicates.
    """
    return _NUMBERING_FROM - 1000 * now_ms


class Market:
    """Ticks of `symbols` in turn.

    The `seq` of each symbol counts from `first_seq` without gaps; `event_id` contains the same number. A symbol that is
    requested by name but is not among `symbols` is generated too.
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
    """Faults in the order of outgoing ticks: skips ticks, reverses their order, keeps the last ones for repetition.

    Ticks are texts (JSON) from any source.
    """

    def __init__(self) -> None:
        self._sent: deque[bytes] = deque(maxlen=MEMORY_TICKS)
        self._skipping = 0
        self._turning = 0
        self._held: list[bytes] = []
        self.skipped = 0

    def skip(self, count: int) -> None:
        """Skip the next `count` ticks, in addition to those of earlier calls."""
        self._skipping += count

    def reorder(self, count: int) -> None:
        """Hold back the next `count` ticks (at most MEMORY_TICKS at once) to send them in reverse order."""
        self._turning = min(self._turning + count, MEMORY_TICKS)

    def pass_on(self, ticks: Sequence[bytes]) -> list[bytes]:
        """The ticks to send now, in the order of sending."""
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
        """The last `count` ticks sent (fewer if there were not as many), in the order of sending."""
        return list(self._sent)[-count:]
