"""What becomes of a list of orders in a list of prints, one print after the other.

`Calculation.at_print` has the order of events at one print. The phases are methods in that order, each walks all open
orders by age. Orders are asked for at the end of a print and never see it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from sim.paper_reference.entry import OrderBook
from sim.paper_reference.market import Market
from sim.paper_reference.orders import Order
from sim.paper_reference.values import (
    AMENDED,
    Command,
    Fill,
    Instrument,
    Outcome,
    Print,
    Request,
    Settings,
    as_recorded,
    down_to,
    milliseconds,
    up_to,
)

NO_GAPS: Mapping[int, str | None] = {}


def calculate(
    prints: Sequence[Print],
    commands: Mapping[int, Sequence[Command]],
    settings: Settings,
    instruments: Iterable[Instrument] = (),
    gaps: Mapping[int, str | None] = NO_GAPS,
) -> Outcome:
    """The outcome of `commands` (by the number of the tick at whose end they are given, from 1) in `prints`.

    `gaps` has by the number of a tick the symbol that has a gap before it; None: the link was lost, a gap of all.
    """
    calculation = Calculation(settings, instruments)
    for number, print_ in enumerate(prints, 1):
        if number in gaps:
            calculation.at_gap(gaps[number])
        calculation.at_print(number, print_, commands.get(number, ()))
    return calculation.outcome()


class Calculation(OrderBook):
    """What prints do to orders."""

    # -- one print -----------------------------------------------------------------------------------------------

    def at_print(self, number: int, print_: Print, commands: Sequence[Command]) -> None:
        """All that one print does, then the commands that are given at its end."""
        self.number = number
        market = self.market(print_.symbol)
        self.time = market.event_time or 0
        if not market.is_late(print_):
            market.event_time = milliseconds(print_.ts)
            self.time = market.event_time
            self.cancels_for_gaps(market)
            self.due_cancels(market)
            self.expiries(market)
            self.timeouts(market)
            self.activations(market)  # judged on the quote before this print
            taker_side = market.learn(print_)
            self.triggers(market, print_)
            taken = self.takers(market, print_)
            self.resting(market, print_, taker_side, print_.volume - taken)
            self.account.prices[print_.symbol] = print_.price
            self.liquidation()
        for command in commands:
            self.obey(command, print_.price)
        self.living = [order for order in self.living if order.open]

    def at_gap(self, symbol: str | None) -> None:
        """Prints of a symbol (None: of all) are missing: what they would have done to open orders is unknown."""
        for order in self.living:
            if order.open and symbol in (None, order.request.symbol):
                order.after_gap = True

    def cancels_for_gaps(self, market: Market) -> None:
        """Where gaps are to end orders."""
        for order in self.open_orders(market):
            if order.after_gap and self.settings.on_gap == "cancel":
                self.pass_on(order, "CANCELED", "GAP")

    def due_cancels(self, market: Market) -> None:
        """Cancels whose latency is over."""
        for order in self.open_orders(market):
            if order.cancel_from is not None and self.now(order) >= order.cancel_from:
                self.pass_on(order, "CANCELED", order.cancel_reason)

    def expiries(self, market: Market) -> None:
        """Orders whose time is over."""
        for order in self.open_orders(market):
            if order.request.expire_ts is not None and self.now(order) >= order.request.expire_ts:
                self.pass_on(order, "EXPIRED", "EXPIRED")

    def timeouts(self, market: Market) -> None:
        """Market orders that found too little."""
        for order in self.open_orders(market):
            if order.request.type != "MARKET" or order.request.reduce_only or order.activated_at is None:
                continue
            if self.now(order) >= order.activated_at + self.settings.market_timeout_ms:
                self.pass_on(order, "CANCELED", "NO_LIQUIDITY")

    def activations(self, market: Market) -> None:
        """Orders that have arrived at the venue."""
        for order in self.open_orders(market):
            if order.activated_at is not None or self.now(order) < order.active_from or self.waits_for_replaced(order):
                continue
            if order.request.post_only and order.marketable(market):
                self.pass_on(order, "REJECTED", "POST_ONLY")
                continue
            order.activated_at = self.now(order)
            order.activated_tick = self.number
            self.pass_on(order, "ACKNOWLEDGED")
            if not order.is_stop:
                self.place(order, market)

    def place(self, order: Order, market: Market) -> None:
        """Where an order that is no stop, or no longer, stands at the venue: taking, resting, or gone at once."""
        order.taking = order.marketable(market)
        if self.settings.queue == "trades":
            order.queue = market.queue_ahead()
        if order.at_once and not order.taking:
            self.pass_on(order, "CANCELED", order.request.time_in_force)

    def triggers(self, market: Market, print_: Print) -> None:
        """Stops that the print reaches."""
        for order in sorted((order for order in self.open_orders(market) if order.waits_for_trigger), key=age_of):
            further = min if order.side == "BUY" else max
            order.extreme = print_.price if order.extreme is None else further(order.extreme, print_.price)
            if order.activated_tick == self.number:
                continue  # only the prints after it can trigger it
            stop = order.stop_price()
            if print_.price < stop if order.side == "BUY" else print_.price > stop:
                continue
            order.triggered_tick = self.number
            self.pass_on(order, "TRIGGERED")
            if order.sibling is not None and order.sibling.open:
                self.pass_on(order.sibling, "CANCELED", "OCO")
            self.place(order, market)

    def takers(self, market: Market, print_: Print) -> Fraction:
        """Returns how much of the print was taken."""
        share = self.settings.participation * print_.volume
        taken = Fraction(0)
        for order in self.at_work(market):
            if not order.open or not order.taking:
                continue
            price = self.taking_price(order, market, print_)
            if price > 0 and not order.passes_limit(price):
                taken += self.fill(order, market, price, share - taken, "TAKER")
            elif order.limit is not None:
                order.taking = False  # for good: from this print on it rests
            if order.at_once and order.open:
                self.pass_on(order, "CANCELED", order.request.time_in_force)
        return taken

    def resting(self, market: Market, print_: Print, taker_side: str | None, budget: Fraction) -> None:
        """What is left of the print goes to resting orders."""
        waiting = [order for order in self.at_work(market) if order.rests]
        # The one that the print passes furthest comes first, a BUY before a SELL; sorted() keeps the age of equals.
        for order in sorted(waiting, key=lambda order: (-beyond(order, print_.price), order.side)):
            if order.open:  # no fill of a sibling has ended it
                reach = self.reach(order, market, print_, taker_side, budget)
                budget -= self.fill(order, market, limit_of(order), reach, "MAKER")

    def reach(self, order: Order, market: Market, print_: Print, taker_side: str | None, budget: Fraction) -> Fraction:
        """How much of what is left of the print would have come to a resting order."""
        distance = beyond(order, print_.price)
        if distance > 0 and distance >= market.tick:
            order.queue = None if order.queue is None else Fraction(0)  # what was ahead of it at this price is gone
            return budget
        if distance != 0 or taker_side is None or taker_side == order.side:
            return Fraction(0)
        if self.settings.queue == "front":
            return budget
        if self.settings.queue == "trades" and order.queue is not None:
            ahead = order.queue
            order.queue = max(Fraction(0), ahead - print_.volume)
            return budget - ahead
        return Fraction(0)

    # -- fills ---------------------------------------------------------------------------------------------------

    def taking_price(self, order: Order, market: Market, print_: Print) -> Fraction:
        """What taking at this print costs or brings."""
        slippage = self.settings.slippage_bps / 10_000
        if order.side == "BUY":
            worst = print_.price if market.ask is None else max(print_.price, market.ask)
            return up_to(market.instrument.price_step(worst), worst * (1 + slippage))
        worst = print_.price if market.bid is None else min(print_.price, market.bid)
        return down_to(market.instrument.price_step(worst), worst * (1 - slippage))

    def fill(self, order: Order, market: Market, price: Fraction, offered: Fraction, liquidity: str) -> Fraction:
        """Give the order what it can have of what is offered. Returns how much that was."""
        instrument = market.instrument
        rate = instrument.taker_fee if liquidity == "TAKER" else instrument.maker_fee
        wanted = down_to(instrument.qty_step, max(Fraction(0), min(order.remaining, offered)))
        if wanted == 0:
            return wanted
        all_or_nothing = order.request.time_in_force == "FOK"
        if all_or_nothing and wanted < order.remaining:
            return Fraction(0)
        reason = ""
        qty = wanted
        if order.request.reduce_only and self.account.reducible(order) < qty:
            qty = down_to(instrument.qty_step, self.account.reducible(order))
            reason = "REDUCE_ONLY"
        payable = down_to(instrument.qty_step, self.payable(order, price, rate))
        if payable < qty:
            qty = payable
            reason = "NO_BALANCE"
        if all_or_nothing and qty < wanted:
            return Fraction(0)
        if qty:
            self.book(order, market, qty, price, as_recorded(qty * price * instrument.contract_size * rate), liquidity)
        if reason and order.open:
            self.pass_on(order, "CANCELED", reason)
        return qty

    def payable(self, order: Order, price: Fraction, fee: Fraction) -> Fraction:
        """How much the account can pay for or deliver at this price. What closes a position needs no money."""
        closing = self.account.reducible(order)
        if order.request.reduce_only or (order.side == "SELL" and not self.settings.allow_short):
            return closing
        others = [other for other in self.living if other is not order]
        each = price * self.market(order.request.symbol).instrument.unit * (1 + fee)
        return closing + max(Fraction(0), self.account.free(others)) / each

    def book(self, order: Order, market: Market, qty: Fraction, price: Fraction, fee: Fraction, liquidity: str) -> None:
        """A fill, and what it changes in the orders that belong to this one."""
        self.account.apply(order, qty, price, fee * (market.instrument.rate or 1))
        order.remaining -= qty
        self.pass_on(order, "PARTIAL_FILL" if order.remaining else "FILLED")
        worse = price - order.reference_price if order.side == "BUY" else order.reference_price - price
        slippage_bps = worse / order.reference_price * 10_000
        last = self.fills[-1] if self.fills else None
        number = last.number + 1 if last is not None and last.tick == self.number else 1
        self.fills.append(
            Fill(self.number, number, order.id, order.side, qty, price, fee, liquidity, slippage_bps, order.after_gap)
        )
        stop = order.sibling
        if stop is not None and stop.open:  # so this is the take-profit: the stop's trigger would have ended it
            stop.remaining -= qty
            self.pass_on(stop, stop.status if stop.remaining else "CANCELED", "OCO")
        if order.request.take_profit is not None or order.request.stop_loss is not None:
            self.hold_exits(order, market, qty)

    def hold_exits(self, entry: Order, market: Market, qty: Fraction) -> None:
        """The exits of a bracket for one fill of its entry: at the venue from the next print."""
        side = "SELL" if entry.side == "BUY" else "BUY"
        symbol = entry.request.symbol
        exits = []
        if entry.request.take_profit is not None:
            exits.append(Request(symbol, side, qty, "LIMIT", limit=entry.request.take_profit, reduce_only=True))
        if entry.request.stop_loss is not None:
            exits.append(Request(symbol, side, qty, "STOP", stop=entry.request.stop_loss, reduce_only=True))
        children = [
            self.accept(request, market, entry.signal_price, latency_ms=0, check=False, parent=entry.id)
            for request in exits
        ]
        for child in children:
            child.reference_price = child.limit or child.stop or child.reference_price
        if len(children) == 2:
            children[0].sibling, children[1].sibling = children[1], children[0]

    def liquidation(self) -> None:
        """On margin: no equity left ends all orders and closes all positions at the next prints, for good."""
        if not self.settings.allow_short or self.liquidated or self.account.equity() > 0:
            return
        self.liquidated = True
        for order in self.living:
            if order.open:
                self.pass_on(order, "CANCELED", "LIQUIDATED")
        for symbol, qty in sorted(self.account.positions.items()):
            if qty:
                closing = Request(symbol, "SELL" if qty > 0 else "BUY", abs(qty), reduce_only=True)
                self.accept(closing, self.market(symbol), self.account.prices[symbol], latency_ms=0, check=False)

    def waits_for_replaced(self, order: Order) -> bool:
        """Whether the order that this one replaces is still there. One that ended otherwise cannot be replaced."""
        if order.replaces is None:
            return False
        if order.replaces.open:
            return True
        if order.replaces.reason != AMENDED:
            self.pass_on(order, "REJECTED", "UNKNOWN_ORDER")
            return True
        filled_since = order.replaces_from - order.replaces.remaining
        if filled_since >= order.remaining:
            self.pass_on(order, "REJECTED", "MIN_QTY")
            return True
        order.remaining -= filled_since
        return False

    def at_work(self, market: Market) -> list[Order]:
        """The orders that this print may fill, by age: those active now that did not only wait for their trigger."""
        orders = [order for order in self.open_orders(market) if order.active and not order.waits_for_trigger]
        return sorted((order for order in orders if order.triggered_tick != self.number), key=age_of)

    def outcome(self) -> Outcome:
        """Everything so far."""
        return Outcome(
            self.events,
            self.fills,
            self.rows,
            self.made_by_venue,
            self.account.cash,
            {symbol: qty for symbol, qty in self.account.positions.items() if qty},
            self.account.equity(),
        )


def beyond(order: Order, price: Fraction) -> Fraction:
    """How far the price has gone past the order's limit."""
    return limit_of(order) - price if order.side == "BUY" else price - limit_of(order)


def age_of(order: Order) -> tuple[int, int, int]:
    """For sorting."""
    return order.age


def limit_of(order: Order) -> Fraction:
    """The limit of an order that has one."""
    assert order.limit is not None
    return order.limit
