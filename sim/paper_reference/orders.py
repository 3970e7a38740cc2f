"""The life of one order at the venue."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from sim.paper_reference.market import Market
from sim.paper_reference.values import Instrument, OrderId, Request, down_to, up_to

FINAL = {"FILLED", "CANCELED", "EXPIRED", "REJECTED"}


def passive_price(side: str, price: Fraction, step: Fraction) -> Fraction:
    """A limit on the grid that is no better for the market than the one asked for."""
    return down_to(step, price) if side == "BUY" else up_to(step, price)


def later_stop(side: str, price: Fraction, step: Fraction) -> Fraction:
    """A stop on the grid that is triggered no earlier than the one asked for."""
    return up_to(step, price) if side == "BUY" else down_to(step, price)


@dataclass
class Order:
    """An order and what has become of it. `limit` and `stop` are on the instrument's grid."""

    id: OrderId
    request: Request
    qty: Fraction
    limit: Fraction | None
    stop: Fraction | None
    signal_price: Fraction
    active_from: int  # event time
    reference_price: Fraction  # what the slippage of its fills is counted from
    reserve_each: Fraction  # the cash that it keeps from others for each unit that it may open
    opening: Fraction = Fraction(0)  # how much of it was more than closing a position when it was asked for
    remaining: Fraction = Fraction(0)
    status: str = ""
    reason: str = ""  # of its last transition
    n: int = 0
    activated_at: int | None = None  # event time of the activating tick
    activated_tick: int | None = None
    triggered_tick: int | None = None
    extreme: Fraction | None = None  # trailing stop: the best price since it is active
    taking: bool = False  # takes at the next prints; else rests, or waits for its trigger
    queue: Fraction | None = None  # what is still ahead of it at its limit; None: no print said
    cancel_from: int | None = None  # event time from which a cancel that was asked for counts
    cancel_reason: str = ""
    replaces: Order | None = None  # of an amended order
    replaces_from: Fraction = Fraction(0)  # what the replaced order had still to fill at the request
    sibling: Order | None = None
    after_gap: bool = False

    @property
    def side(self) -> str:
        """BUY or SELL."""
        return self.request.side

    @property
    def open(self) -> bool:
        """Whether it has not ended."""
        return self.status not in FINAL

    @property
    def active(self) -> bool:
        """Whether it has arrived at the venue and not ended."""
        return self.open and self.activated_at is not None

    @property
    def is_stop(self) -> bool:
        """Whether it waits for a trigger first."""
        return self.request.type in ("STOP", "STOP_LIMIT", "TRAILING_STOP")

    @property
    def at_once(self) -> bool:
        """Takes at its first print or not at all."""
        return self.request.time_in_force in ("IOC", "FOK")

    @property
    def waits_for_trigger(self) -> bool:
        """Whether it still does."""
        return self.active and self.is_stop and self.triggered_tick is None

    @property
    def age(self) -> tuple[int, int, int]:
        """Its place in the sequence: a triggered stop is placed again, after the orders activated by the same print."""
        assert self.activated_tick is not None
        if self.triggered_tick is None:
            return self.activated_tick, 0, 0
        return self.triggered_tick, 1, self.activated_tick

    @property
    def rests(self) -> bool:
        """Whether it waits at its limit."""
        return self.active and not self.taking and not self.waits_for_trigger

    def stop_price(self) -> Fraction:
        """Where it is triggered now."""
        if self.request.type != "TRAILING_STOP":
            assert self.stop is not None
            return self.stop
        assert self.extreme is not None
        away = self.request.trail_amount
        if away is None:
            assert self.request.trail_bps is not None
            away = self.extreme * self.request.trail_bps / 10_000
        return self.extreme + away if self.side == "BUY" else self.extreme - away

    def marketable(self, market: Market) -> bool:
        """Whether its limit reaches the other side of the quote; before there is one, the price of the last print."""
        if self.limit is None:
            return True
        last = market.price_path[-1]
        if self.side == "BUY":
            return self.limit >= (last if market.ask is None else market.ask)
        return self.limit <= (last if market.bid is None else market.bid)

    def passes_limit(self, price: Fraction) -> bool:
        """Whether a fill at this price would be past its limit."""
        if self.limit is None:
            return False
        return price > self.limit if self.side == "BUY" else price < self.limit


def on_grid(
    instrument: Instrument, request: Request, signal_price: Fraction
) -> tuple[Fraction, Fraction | None, Fraction | None]:
    """Quantity, limit and stop as the exchange would take them."""
    limit = request.limit
    stop = request.stop
    step = instrument.price_step(signal_price)
    return (
        down_to(instrument.qty_step, request.qty),
        None if limit is None else passive_price(request.side, limit, step),
        None if stop is None else later_stop(request.side, stop, step),
    )
