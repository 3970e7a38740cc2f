"""Generated ticks, determined by a seed, and faults in their order. Pure: the time is an argument."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from mockws_server.actions import MEMORY_TICKS
from tradebot.core.events import BUY, SELL, Side, Tick

DEFAULT_SYMBOLS: Final = ("SOL/USDC",)

_CENTS: Final = 100
_FLOOR: Final = 1 * _CENTS
# Sufficient until the year 2096, and small enough that JSON readers which use doubles keep the numbers exact.
_NUMBERING_FROM: Final = 4_000_000_000_000_000


class MarketStyle(Struct, frozen=True):
    """How the trades of a market with takers look: prices and volumes in hundredths.

    `spread`: of the ask above the bid. `step`: the most that a trade moves both, mostly in the direction of its taker.
    `turn_every` and `jump_every`: one trade in so many, on average, has the other side, or follows a jump of the price
    by up to `jump_bps`. `volume`: the largest one.
    """

    spread: int
    step: int
    turn_every: int
    volume: int
    jump_every: int = 0
    jump_bps: int = 0


STYLES: Final[Mapping[str, MarketStyle]] = {
    # At prices of 50 to 180: a spread of 17 to 60 basis points, prints of at most 0.05.
    "thin": MarketStyle(spread=30, step=6, turn_every=2, volume=5),
    # Series of about 16 trades with one side.
    "fast": MarketStyle(spread=1, step=2, turn_every=16, volume=400),
    # A jump of up to 3 % about every 50 trades.
    "gapping": MarketStyle(spread=4, step=3, turn_every=4, volume=100, jump_every=50, jump_bps=300),
}
"""Markets whose ticks have the side of the taker, by the name that `market` in a scenario gives."""


class _SymbolMarket:
    """One symbol: its numbering and its price, a walk on a grid of 0.01 that never falls below 1. No taker is given."""

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
        return self._numbered(self._price, 1 + (bits >> 6), ts_ms, None)

    def _numbered(self, price: int, volume: int, ts_ms: int, taker: Side | None) -> Tick:
        self._seq += 1
        event_id = f"{self._prefix}{self._seq}"
        return Tick(self._symbol, price / _CENTS, volume / _CENTS, ts_ms, event_id, self._seq, taker)


class _QuotedMarket(_SymbolMarket):
    """One symbol with a bid and an ask: a BUY trades at the ask, a SELL at the bid. `_price` is the bid."""

    def __init__(self, symbol: str, seed: int, first_seq: int, style: MarketStyle) -> None:
        super().__init__(symbol, seed, first_seq)
        self._style = style
        self._taker: Side = BUY

    def tick(self, ts_ms: int) -> Tick:
        style = self._style
        turn, jump, size, step, volume = (self._random.getrandbits(32) for _ in range(5))
        if turn % style.turn_every == 0:
            self._taker = SELL if self._taker == BUY else BUY
        if style.jump_every and jump % style.jump_every == 0:
            moved = self._price * (1 + size % style.jump_bps) // 10_000
            self._price += moved if jump >> 31 else -moved
        # From one against the taker's direction to the whole step with it.
        drift = step % (style.step + 2) - 1
        self._price = max(_FLOOR, self._price + (drift if self._taker == BUY else -drift))
        price = self._price + style.spread if self._taker == BUY else self._price
        return self._numbered(price, 1 + volume % style.volume, ts_ms, self._taker)


def first_seq_at(now_ms: int) -> int:
    """The first number of a server started at `now_ms` (Unix ms): far below all numbers of servers started earlier.

    So a client recognizes a restarted numbering, and does not treat the ticks as duplicates.
    """
    return _NUMBERING_FROM - 1000 * now_ms


class Market:
    """Ticks of `symbols` in turn.

    The `seq` of each symbol counts from `first_seq` without gaps; `event_id` contains the same number. A symbol that is
    requested by name but is not among `symbols` is generated too. `style` is one of STYLES; None: prices alone, without
    the side of a taker.
    """

    def __init__(
        self,
        symbols: Sequence[str] = DEFAULT_SYMBOLS,
        seed: int = 1,
        first_seq: int = 1,
        style: MarketStyle | None = None,
    ) -> None:
        self._symbols = tuple(symbols)
        self._seed = seed
        self._first_seq = first_seq
        self._style = style
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
                book = self._books[symbol] = self._new_book(symbol)
            found.append(book.tick(ts_ms))
        return found

    def _new_book(self, symbol: str) -> _SymbolMarket:
        if self._style is None:
            return _SymbolMarket(symbol, self._seed, self._first_seq)
        return _QuotedMarket(symbol, self._seed, self._first_seq, self._style)


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
