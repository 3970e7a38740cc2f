"""What the trade prints of one symbol show: event time, taker, best bid and ask, the step of prices, sizes. Pure.

There is no order book. A trade that a buyer started was made at the ask, so it shows the ask; the bid is at least one
step below it. Where a print does not name its taker, the tick rule infers it (Lee and Ready 1991): a price above
the last different price was paid by a buyer, one below it was taken by a seller.

Every price that is kept is one that was printed, so floats are compared exactly here; sums with the step of prices are
made as decimals, and only when the quote is asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from math import inf
from typing import Any, Final

from tradebot.core.events import BUY, SECONDS_BELOW, SELL, Side, Tick
from tradebot.portfolio.exact import ZERO, add, exact, subtract

SIZES_MAX: Final = 1000
"""So many print sizes are kept for the estimate of a queue."""

_NO_TIME: Final = -1
_INFINITE: Final = Decimal("Infinity")


class Tape:
    """The prints of one symbol so far, in a few numbers. Owned by one thread; nothing blocks; memory is bounded.

    A print that is older than the event time is late: it changes nothing.
    """

    def __init__(self, tick_size: Decimal | None = None, sizes: bool = False) -> None:
        """`tick_size`: the known step of prices, None: infer it. `sizes`: keep sizes of prints."""
        self.now_ms = _NO_TIME
        """Event time: the highest `ts` so far (Unix ms); -1 before the first print."""
        self.last_price = 0.0
        """Of the newest print; 0.0 before the first."""
        self.side: Side | None = None
        """The taker of the newest print; None where it is not known."""
        self.tick_size = ZERO if tick_size is None else tick_size
        """The step of prices: as known, else the smallest difference of consecutive prints, 0 before one is seen."""
        self.late = 0
        """How many prints were late."""
        self.sided = 0
        """How many prints named their taker."""
        self.inferred = 0
        """For how many prints the tick rule inferred it."""
        self._infers = tick_size is None
        # `tick_size` as a float: only a difference below it makes a new one. Infinite at first; -inf where it is known.
        self._step = inf if tick_size is None else -inf
        self._rule: Side | None = None  # by the tick rule, at the last price
        # The ask is the higher of `_ask` and `_high_sell` + tick_size (0.0: none), the bid is mirrored.
        self._ask: Decimal | float | None = None
        self._bid: Decimal | float | None = None
        self._high_sell = 0.0
        self._low_buy = 0.0
        self._sizes: deque[float] | None = deque(maxlen=SIZES_MAX) if sizes else None

    def observe(
        self, ticks: Sequence[Tick], start: int, stop: int, until_ms: float = inf, low: float = 0.0, high: float = inf
    ) -> int:
        """Take in prints from index `start` on, up to `stop` or the first that needs a closer look; return its index.

        That is one with an event time from `until_ms` on, or a price that is not between `low` and `high` exclusively.
        """
        # One loop over local variables: this runs for every print of a run.
        now_ms, last, side, rule = self.now_ms, self.last_price, self.side, self._rule
        ask, bid, high_sell, low_buy = self._ask, self._bid, self._high_sell, self._low_buy
        sizes, size, step = self._sizes, self.tick_size or _INFINITE, self._step
        late, sided, untold = 0, 0, 0
        for index in range(start, stop):
            tick = ticks[index]
            ts = tick.ts
            if ts < SECONDS_BELOW:  # as_unix_ms, without a call for each print
                ts *= 1000
            if ts < now_ms:
                late += 1
                continue
            price = tick.price
            if ts >= until_ms or not low < price < high:
                break
            now_ms = ts
            if price != last:
                if last:
                    rule, gap = BUY if price > last else SELL, abs(price - last)
                    # The second term is more than floats can be wrong by; beyond it, decimals decide.
                    if gap < step + (price + gap) * 1e-15 and difference(price, last) < size:
                        # The quote by the old step stays; the new one counts from this print on.
                        ask, bid = self._ask_of(ask, high_sell), self._bid_of(bid, low_buy)
                        high_sell = low_buy = 0.0
                        size = self.tick_size = difference(price, last)
                        step = self._step = float(size)
                last = price
            side = tick.taker
            if side is None:
                side = rule
            else:
                sided += 1
            if side == BUY:
                ask, high_sell = price, 0.0
                if price < low_buy or not low_buy:
                    low_buy = price
            elif side == SELL:
                bid, low_buy = price, 0.0
                if price > high_sell:
                    high_sell = price
            else:
                untold += 1
            if sizes is not None:
                sizes.append(tick.volume)
        else:
            index = stop
        self.now_ms, self.last_price, self.side, self._rule = now_ms, last, side, rule
        self._ask, self._bid, self._high_sell, self._low_buy = ask, bid, high_sell, low_buy
        self.late += late
        self.sided += sided
        self.inferred += index - start - late - sided - untold
        return index

    @property
    def ask(self) -> Decimal | None:
        """The best price at which something was offered; None until the taker of a print is known."""
        return self._ask_of(self._ask, self._high_sell)

    @property
    def bid(self) -> Decimal | None:
        """The best price at which something was wanted, as `ask`. One step below a print may be no price (<= 0)."""
        return self._bid_of(self._bid, self._low_buy)

    def dearest(self, price: float) -> Decimal:
        """The higher of `price` and the ask: what a buyer surely gets the other side of a print at."""
        if isinstance(self._ask, float) and not self._high_sell:
            return exact(max(price, self._ask))
        ask = self.ask
        return exact(price) if ask is None else max(exact(price), ask)

    def cheapest(self, price: float) -> Decimal:
        """The lower of `price` and the bid, as `dearest`; it may be no price (<= 0)."""
        if isinstance(self._bid, float) and not self._low_buy:
            return exact(min(price, self._bid))
        bid = self.bid
        return exact(price) if bid is None else min(exact(price), bid)

    def mean_size(self) -> tuple[Decimal, int]:
        """The sum of the last sizes of prints and their number, which is 0 where none is kept."""
        total = ZERO
        for size in self._sizes or ():
            total = add(total, exact(size))
        return total, len(self._sizes or ())

    def state(self) -> dict[str, Any]:
        """All of it as plain values, bounded; see `restore`."""
        return {
            "now_ms": self.now_ms, "last_price": self.last_price, "side": self.side, "rule": self._rule,
            "tick_size": str(self.tick_size), "late": self.late, "sided": self.sided, "inferred": self.inferred,
            "ask": _plain(self._ask), "bid": _plain(self._bid), "high_sell": self._high_sell, "low_buy": self._low_buy,
            "sizes": list(self._sizes or ()),
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave. A configured step of prices stays as configured."""
        self.now_ms, self.last_price, self.side, self._rule = (
            state["now_ms"], state["last_price"], state["side"], state["rule"],
        )  # fmt: skip
        if self._infers:
            self.tick_size = Decimal(state["tick_size"])
            self._step = float(self.tick_size or _INFINITE)
        self.late, self.sided, self.inferred = state["late"], state["sided"], state["inferred"]
        self._ask, self._bid = _unplain(state["ask"]), _unplain(state["bid"])
        self._high_sell, self._low_buy = state["high_sell"], state["low_buy"]
        if self._sizes is not None:
            self._sizes.extend(state["sizes"])

    def _ask_of(self, ask: Decimal | float | None, high_sell: float) -> Decimal | None:
        shown = exact(ask) if isinstance(ask, float) else ask
        if not high_sell:
            return shown
        least = add(exact(high_sell), self.tick_size)
        return least if shown is None or least > shown else shown

    def _bid_of(self, bid: Decimal | float | None, low_buy: float) -> Decimal | None:
        shown = exact(bid) if isinstance(bid, float) else bid
        if not low_buy:
            return shown
        most = subtract(exact(low_buy), self.tick_size)
        return most if shown is None or most < shown else shown


@lru_cache(maxsize=4096)
def difference(price: float, last: float) -> Decimal:
    """How far two prices are apart, exactly."""
    return subtract(exact(price), exact(last)).copy_abs()


def _plain(price: Decimal | float | None) -> str | float | None:
    return str(price) if isinstance(price, Decimal) else price


def _unplain(price: str | float | None) -> Decimal | float | None:
    return Decimal(price) if isinstance(price, str) else price
