"""Two moving sums over one symbol's last prices, exact, and the sign of the difference of their averages.

A price's value is its double's shortest decimal (`repr`): 100.3 means 100.3, not the nearest binary fraction. The sign
of (short average - long average) is the sign of

    d = c_short * (sum of the last `short` prices) - c_long * (sum of the last `long` prices)

with c_short = long/g, c_long = short/g, g = gcd(short, long). Prices are held as whole numbers k = price * unit, unit a
power of ten, in floats: as long as lcm(short, long) * k stays below 2**53, each sum and product is a whole number that
a double holds exactly, and so is d, which each tick updates in place. Nothing is ever rounded, so nothing drifts. A
price whose decimals or size do not fit is met by another unit for the symbol, or, where no unit fits all prices in the
window, by Python's unbounded integers until such prices have left the window.

Why k / unit == price proves that k is the price's shortest decimal: k and unit (at most 10**22) are exact doubles, so
the quotient is the double nearest to the decimal k/unit; with k below 10**15 that decimal has at most 15 digits, as
then has the shortest one, and no two decimals of at most 15 digits share a (normal) double.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from tradebot.core.events import BUY, SELL, SMA_CROSSOVER, Tick
from tradebot.strategy.base import Decision

# x + _ROUND - _ROUND is x rounded to a whole number, for 0 <= x < 2**51: the sum has no room for a fraction.
_ROUND: Final = 1.5 * 2**52
_SHORTEST_BELOW: Final = 10**15
_EXACT_BELOW: Final = 2**53
_UNITS: Final = tuple(float(10**exponent) for exponent in range(22, -1, -1))  # all exact doubles
_HEADROOMS: Final = (100, 10, 1)  # how far prices may rise before the unit must change, best first


class Shape:
    """What all windows of one strategy share: the two lengths in ticks (1 <= short < long) and what follows."""

    __slots__ = ("c_long", "c_short", "in_floats", "limit", "long", "short")

    def __init__(self, short: int, long: int) -> None:
        divisor = math.gcd(short, long)
        self.short = short
        self.long = long
        self.c_short = long // divisor
        self.c_long = short // divisor
        lcm = self.c_short * short
        self.limit = float(min(_SHORTEST_BELOW, _EXACT_BELOW // lcm) - 1)
        """The largest k for which floats are exact; below 1 when the lengths leave no room at all."""
        self.in_floats = (float(self.c_short - self.c_long), float(self.c_short), float(self.c_long))


class PriceWindow:
    """The last `shape.long` prices of one symbol. Memory is bounded by that length."""

    __slots__ = ("_d", "_ring", "_shape", "_slot", "_unit", "_whole", "seen")

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._ring: list[float] = [0.0] * shape.long  # k of each price; 0 where none is yet
        self._slot = 0  # of the oldest price, which the next one replaces
        self._d: float = 0.0
        self._unit: float = 1.0
        self._whole = False  # True: _ring, _d and _unit hold Python ints instead of floats
        self.seen = 0
        """Prices so far, also those long gone."""

    def advance(self, ticks: Sequence[Tick]) -> list[Decision]:
        """Take the prices of `ticks` and say where the averages crossed: nothing up to the first full window."""
        warmup = self._shape.long - self.seen
        decisions: list[Decision] = []
        index = 0
        while index < len(ticks):
            index = (self._advance_whole if self._whole else self._advance_floats)(ticks, index, decisions)
        self.seen += len(ticks)
        if warmup > 0:
            # Until the first full window the sums were partial, and what they crossed means nothing.
            return [decision for decision in decisions if decision.index >= warmup]
        return decisions

    def averages(self) -> tuple[float, float]:
        """Short and long average of the prices so far, each the double nearest to the exact one; 0.0 before any."""
        if not self.seen:
            return 0.0, 0.0
        shape = self._shape
        short_sum = sum(int(self._ring[self._slot - back]) for back in range(1, shape.short + 1))
        long_sum = sum(int(k) for k in self._ring)
        # A quotient of ints is correctly rounded, whatever their size and on every Python.
        unit = int(self._unit)
        return short_sum / (unit * min(self.seen, shape.short)), long_sum / (unit * min(self.seen, shape.long))

    def _advance_floats(self, ticks: Sequence[Tick], start: int, decisions: list[Decision]) -> int:
        """Go on while prices fit the unit, else change it; the index of the first tick not taken."""
        # This loop bounds the strategy's speed: local names, and nothing that could be done outside.
        shape, ring, slot, d, unit = self._shape, self._ring, self._slot, self._d, self._unit
        short, last_slot, limit, rounder = shape.short, shape.long - 1, shape.limit, _ROUND
        c_both, c_short, c_long = shape.in_floats
        index = start
        for tick in ticks[start:] if start else ticks:
            price = tick.price
            k = price * unit + rounder - rounder
            if k / unit != price or k > limit:
                self._slot, self._d = slot, d
                self._change_unit(price)
                return index
            previous = d
            # ring[slot] leaves the long window and ring[slot - short] the short one; k enters both.
            d += c_both * k - c_short * ring[slot - short] + c_long * ring[slot]
            ring[slot] = k
            slot = slot + 1 if slot < last_slot else 0
            if d > 0.0:
                if previous <= 0.0:
                    decisions.append(Decision(index, BUY, SMA_CROSSOVER))
            elif d < 0.0 and previous >= 0.0:
                decisions.append(Decision(index, SELL, SMA_CROSSOVER))
            index += 1
        self._slot, self._d = slot, d
        return index

    def _advance_whole(self, ticks: Sequence[Tick], start: int, decisions: list[Decision]) -> int:
        """The same with unbounded integers, until floats would do again; the index of the first tick not taken."""
        shape, ring = self._shape, self._ring
        for index in range(start, len(ticks)):
            k = self._whole_number(ticks[index].price)
            previous = self._d
            slot = self._slot
            self._d += (
                (shape.c_short - shape.c_long) * k
                - shape.c_short * ring[slot - shape.short]
                + shape.c_long * ring[slot]
            )
            ring[slot] = k
            self._slot = (slot + 1) % shape.long
            if self._d > 0 and previous <= 0:
                decisions.append(Decision(index, BUY, SMA_CROSSOVER))
            elif self._d < 0 and previous >= 0:
                decisions.append(Decision(index, SELL, SMA_CROSSOVER))
            # Once a round is often enough to be back soon and seldom enough to cost nothing.
            if self._slot == 0 and self._change_unit():
                return index + 1
        return len(ticks)

    def _whole_number(self, price: float) -> int:
        """`price` times the unit, which grows (with all that hangs on it) where the price has more decimals."""
        numerator, denominator = Decimal(repr(price)).as_integer_ratio()
        unit = int(self._unit)
        if unit % denominator:
            factor = denominator // math.gcd(unit, denominator)
            self._unit = unit = unit * factor
            self._d *= factor
            self._ring[:] = [k * factor for k in self._ring]
        return numerator * (unit // denominator)

    def _change_unit(self, *coming: float) -> bool:
        """Hold the window's prices in floats with a unit that fits them and the `coming` ones, else in ints.

        True when floats do. Each price is had back exactly, as k over unit is its shortest decimal.
        """
        prices = [k / self._unit for k in self._ring]
        unit = _unit_for([*prices, *coming], self._shape.limit)
        if unit is None:
            if not self._whole:
                self._whole = True
                self._unit, self._d, self._ring = int(self._unit), int(self._d), [int(k) for k in self._ring]
            return False
        shape, slot = self._shape, self._slot
        self._whole = False
        self._unit = unit
        self._ring = ring = [price * unit + _ROUND - _ROUND for price in prices]
        # Sums of whole numbers within the limit: exact in floats, in any order, on every Python.
        short_sum = sum(ring[slot - back] for back in range(1, shape.short + 1))
        self._d = shape.c_short * short_sum - shape.c_long * sum(ring)
        return True


def _unit_for(prices: Sequence[float], limit: float) -> float | None:
    """A power of ten that makes whole numbers of at most `limit` of all `prices`, if there is one."""
    top = max(prices)
    for headroom in _HEADROOMS:
        for unit in _UNITS:
            if top * headroom * unit <= limit:
                if all((price * unit + _ROUND - _ROUND) / unit == price for price in prices):
                    return unit
                break
    return None
