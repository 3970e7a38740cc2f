"""What the prints of one symbol say of its market: event time, who took, the quote, the tick size, sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from sim.paper_reference.values import Instrument, Print, milliseconds, up_to

REMEMBERED_SIZES = 1000
QUEUE_OF_MEAN_SIZES = 20


@dataclass
class Market:
    """The market of one symbol after the prints that it has seen."""

    instrument: Instrument
    event_time: int | None = None
    bid: Fraction | None = None
    ask: Fraction | None = None
    # The newest price, and before it the last different one.
    price_path: list[Fraction] = field(default_factory=list)
    smallest_step: Fraction | None = None
    sizes: list[Fraction] = field(default_factory=list)

    def is_late(self, print_: Print) -> bool:
        """Whether the print is older than the event time."""
        return self.event_time is not None and milliseconds(print_.ts) < self.event_time

    def side_of(self, print_: Print) -> str | None:
        """Who took: as the exchange says, else by the tick rule of Lee and Ready (1991); None: unknown."""
        if print_.taker is not None:
            return print_.taker
        for earlier in reversed(self.price_path):
            if earlier != print_.price:
                return "BUY" if print_.price > earlier else "SELL"
        return None

    @property
    def tick(self) -> Fraction:
        """The tick size, or the smallest difference of consecutive prints so far; 0 before two prints differ."""
        return self.instrument.tick_size or self.smallest_step or Fraction(0)

    def learn(self, print_: Print) -> str | None:
        """Take in a print that is not late. Returns who took it."""
        side = self.side_of(print_)
        if not self.price_path:
            self.price_path = [print_.price]
        elif self.price_path[-1] != print_.price:
            step = abs(print_.price - self.price_path[-1])
            self.smallest_step = min(step, self.smallest_step or step)
            self.price_path = [self.price_path[-1], print_.price]
        self.sizes = [*self.sizes[1 - REMEMBERED_SIZES :], print_.volume]
        price = print_.price
        if side == "BUY":
            self.ask = price
            self.bid = price - self.tick if self.bid is None else min(self.bid, price - self.tick)
        elif side == "SELL":
            self.bid = price
            self.ask = price + self.tick if self.ask is None else max(self.ask, price + self.tick)
        return side

    def queue_ahead(self) -> Fraction | None:
        """What is assumed to wait at a price before an order that is placed now; None where no print says."""
        if not self.sizes:
            return None
        return up_to(self.instrument.qty_step, QUEUE_OF_MEAN_SIZES * sum(self.sizes, Fraction(0)) / len(self.sizes))
