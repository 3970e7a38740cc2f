"""The venue of one symbol, made of its trade prints: what becomes of orders that are sent there. Pure.

What a print does is decided in a fixed order (`SymbolVenue.on_print`). A fill is given only where a real venue would
surely have given one: taking pays at least the quote, resting needs a print through the price, and no volume is spent
twice. Where several readings of a print are possible, the one that fills less is taken.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from decimal import Context, Decimal
from math import inf
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tradebot.core.events import (
    AMENDED,
    BUY,
    CANCEL_REQUESTED,
    EXPIRED,
    FOK,
    GAP,
    IOC,
    MIN_QTY,
    NO_LIQUIDITY,
    OCO,
    POST_ONLY,
    UNKNOWN_ORDER,
    OrderStatus,
    Tick,
    as_unix_ms,
)
from tradebot.execution.brackets import children_of
from tradebot.execution.moves import Desk, Execution
from tradebot.execution.orders import WorkingOrder
from tradebot.execution.prices import Slippage, whole_lots
from tradebot.execution.quote import Tape
from tradebot.execution.resting import priority, reached
from tradebot.portfolio.exact import ZERO, add, exact, multiply, subtract
from tradebot.portfolio.instruments import UNKNOWN_STEP, Instrument, round_up

if TYPE_CHECKING:
    from tradebot.config.paper import PaperConfig

QUEUE_PRINTS: Final = Decimal(20)
"""The queue before a new resting order is estimated as so many prints of mean size."""
_QUOTIENT: Final = Context(prec=50)  # of a mean, which is rounded up to a lot afterwards


class SymbolVenue:
    """Orders of one symbol, from their arrival to their end. Owned by one thread; nothing blocks.

    Memory is bounded by the orders that are alive. Knows no account, no caps and no rows.
    """

    def __init__(self, instrument: Instrument, settings: PaperConfig, desk: Desk) -> None:
        """`desk` gets each transition at once, and settles each fill before the next one is decided."""
        self.instrument = instrument
        self._desk = desk
        self.tape = Tape(instrument.tick_size, sizes=settings.queue == "trades")
        self._settings = settings
        self._participation = exact(settings.participation)
        self._surely = settings.participation * 0.999999  # less than that, whatever floats round
        self._slippage = Slippage(settings.slippage_bps, instrument.tick_size)
        self._lot = instrument.lot_size or UNKNOWN_STEP
        self._orders: dict[str, WorkingOrder] = {}  # alive, in the order of submission
        self._sequence = 0
        self._ages = 0
        self._until_ms: float = inf
        self._due_ms: float = inf
        self._next_arrival_ms: float = inf
        self._watch()

    # ---- what is asked of it ---------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """No order is alive here."""
        return not self._orders

    @property
    def orders(self) -> Collection[WorkingOrder]:
        """Those alive, in the order of their submission; to be read only."""
        return self._orders.values()

    def submit(self, order: WorkingOrder, latency_ms: int | None = None) -> None:
        """Send a checked order, after the print of this moment; it is active from a later one.

        `latency_ms` None: as set; children of a bracket and closing orders of the venue itself have none.
        """
        self._sequence += 1
        order.sequence = self._sequence
        wait_ms = self._settings.latency_ms if latency_ms is None else latency_ms
        active_from_ms = self.tape.now_ms + wait_ms
        if active_from_ms > order.active_from_ms:
            order.active_from_ms = active_from_ms
        self._orders[order.order_id] = order
        self._move(order, "SUBMITTED", "SUBMITTED")
        if order.expire_ts is not None and order.expire_ts < self._due_ms:
            self._due_ms = order.expire_ts
        if order.active_from_ms < self._next_arrival_ms:
            self._next_arrival_ms = order.active_from_ms
        if self._until_ms:  # 0: every print is looked at already
            self._until_ms = min(self._due_ms, self._next_arrival_ms)

    def cancel(self, order_id: str, reason: str = CANCEL_REQUESTED) -> bool:
        """Ask for the end of an order, which takes `cancel_latency_ms`.

        False: it has ended, or was asked for before.
        """
        order = self._orders.get(order_id)
        if order is None or order.cancel_at_ms is not None:
            return False
        order.cancel_at_ms, order.cancel_reason = self.tape.now_ms + self._settings.cancel_latency_ms, reason
        self._watch()
        return True

    def amend(self, order_id: str, replacement: WorkingOrder) -> bool:
        """Cancel an order and send `replacement`, which becomes active only when the cancel was in time.

        What the old order fills in the meantime is taken off the new one, which has no place in any queue yet. False:
        nothing was done, as the order has ended or is asked to end.
        """
        old = self._orders.get(order_id)
        if old is None or not self.cancel(order_id, AMENDED):
            return False
        replacement.replaces_id, replacement.replaces_remaining = order_id, old.remaining
        replacement.active_from_ms = self.tape.now_ms + self._settings.cancel_latency_ms
        self.submit(replacement)
        return True

    def cancel_all(self, reason: str) -> None:
        """End every order now."""
        for order in list(self._orders.values()):
            self._end(order, "CANCELED", reason)
        self._watch()

    def mark_gap(self) -> None:
        """Trades were missed while the orders here were open; if so set, these end before the next print."""
        for order in self._orders.values():
            order.after_gap = True
            order.gap_cancel = self._settings.on_gap == "cancel"
        self._watch()

    # ---- prints ----------------------------------------------------------------------------------------------------

    def observe(self, ticks: Sequence[Tick], start: int, stop: int) -> int:
        """Take in prints from index `start` on, up to `stop` or the first that may touch an order; return its index."""
        if not self._orders:
            return self.tape.observe(ticks, start, stop)
        return self.tape.observe(ticks, start, stop, self._until_ms, self._low, self._high)

    def on_print(self, tick: Tick) -> bool:
        """What one print does, in the order in which it does it. False: it is late and does nothing."""
        tape, now_ms, before = self.tape, as_unix_ms(tick.ts), self._ages
        if now_ms < tape.now_ms:
            tape.observe((tick,), 0, 1)
            return False
        if now_ms >= self._due_ms:
            self._end_due(now_ms)
        if now_ms >= self._next_arrival_ms:
            self._activate(now_ms, tick)  # judged on the quote before this print
        tape.observe((tick,), 0, 1)
        active = self._ages
        if self._stops:
            self._trigger(tick, before)  # orders that were active before this print
        self._fill(tick, active)  # orders that are active now, but for those just triggered
        self._watch()
        return True

    def _end_due(self, now_ms: int) -> None:
        """Cancels, expiries and timeouts whose time has come."""
        alive = list(self._orders.values())
        for order in alive:
            if order.gap_cancel:
                self._end(order, "CANCELED", GAP)
        for order in alive:
            if order.cancel_at_ms is not None and now_ms >= order.cancel_at_ms and not order.is_final:
                self._end(order, "CANCELED", order.cancel_reason)
        for order in alive:
            if order.expire_ts is not None and now_ms >= order.expire_ts and not order.is_final:
                self._end(order, "EXPIRED", EXPIRED)
        for order in alive:
            if order.timeout_at_ms is not None and now_ms >= order.timeout_at_ms and not order.is_final:
                self._end(order, "CANCELED", NO_LIQUIDITY)

    def _activate(self, now_ms: int, tick: Tick) -> None:
        """Orders that have arrived."""
        for order in list(self._orders.values()):
            if order.status != "SUBMITTED" or now_ms < order.active_from_ms:
                continue
            refusal = self._refusal_on_arrival(order)
            if refusal is not None:
                self._end(order, "REJECTED", refusal)
                continue
            self._move(order, "ACKNOWLEDGED", "ACKNOWLEDGED")
            self._ages += 1
            order.age = self._ages
            if order.type == "MARKET":
                order.taking = True
                if not order.reduce_only:
                    order.timeout_at_ms = now_ms + self._settings.market_timeout_ms
            elif order.type == "LIMIT":
                self._enter_limit(order)
            else:
                order.best = tick.price

    def _refusal_on_arrival(self, order: WorkingOrder) -> str | None:
        if order.replaces_id is not None:
            if not order.replaced:
                return UNKNOWN_ORDER
            if order.remaining <= order.replaces_remaining:
                return MIN_QTY
            self._desk.lowered(order, order.replaces_remaining)
            order.remaining = subtract(order.remaining, order.replaces_remaining)
        return POST_ONLY if order.post_only and self._is_marketable(order) else None

    def _enter_limit(self, order: WorkingOrder) -> None:
        """A limit price counts from now on, against the quote as it is."""
        order.taking = self._is_marketable(order)
        if not order.taking and order.time_in_force in (IOC, FOK):
            self._end(order, "CANCELED", order.time_in_force)
            return
        total, prints = self.tape.mean_size()
        if prints:
            order.queue = round_up(_QUOTIENT.divide(multiply(QUEUE_PRINTS, total), Decimal(prints)), self._lot)

    def _is_marketable(self, order: WorkingOrder) -> bool:
        limit = order.limit
        if limit is None:
            return False
        quote = self.tape.ask if order.side == BUY else self.tape.bid
        if quote is None:  # no print had a side yet: the last one stands in for the quote
            quote = exact(self.tape.last_price)
        return limit >= quote if order.side == BUY else limit <= quote

    def _trigger(self, tick: Tick, before: int) -> None:
        """Stops that this print reaches. They fill from the next print on."""
        waiting = [order for order in self._orders.values() if order.waits_for_trigger and order.age <= before]
        for order in sorted(waiting, key=_age):
            order.best = max(order.best, tick.price) if order.side != BUY else min(order.best, tick.price)
            level, price = order.trigger_level(), exact(tick.price)
            if price < level if order.side == BUY else price > level:
                continue
            self._move(order, "TRIGGERED", "TRIGGERED")
            self._ages += 1
            order.age = self._ages
            sibling = self._orders.get(order.sibling_id or "")
            if sibling is not None:
                self._end(sibling, "CANCELED", OCO)
            if order.limit is None:
                order.taking = True
            else:
                self._enter_limit(order)

    # ---- fills -----------------------------------------------------------------------------------------------------

    def _fill(self, tick: Tick, newest: int) -> None:
        """Spend the volume of one print on orders whose age is at most `newest`: takers first, then resting ones."""
        active = [o for o in self._orders.values() if 0 < o.age <= newest and (o.taking or not o.waits_for_trigger)]
        if not active:
            return
        used = ZERO
        if len(active) == 1 and float(active[0].remaining) < tick.volume * self._surely:
            left = active[0].remaining  # surely there: no need to compute how much is
        else:
            left = multiply(exact(tick.volume), self._participation)
        takers = [order for order in active if order.taking]
        if len(takers) > 1:
            takers.sort(key=_age)
        for order in takers:
            used = add(used, self._take(order, tick.price, subtract(left, used)))
        resting = [order for order in active if not order.taking and not order.is_final]
        if not resting:
            return
        price, volume = exact(tick.price), exact(tick.volume)
        if len(resting) > 1:
            resting.sort(key=lambda order: priority(order, price))
        for order in resting:
            available = reached(order, price, subtract(volume, used), volume, self.tape, self._settings.queue)
            qty = order.remaining if order.remaining <= available else whole_lots(max(available, ZERO), self._lot)
            if qty > ZERO and order.limit is not None:
                used = add(used, self._execute(order, Execution(qty, order.limit, "MAKER")))

    def _take(self, order: WorkingOrder, price: float, left: Decimal) -> Decimal:
        """A taking order at one print of `price`, of whose volume `left` may be taken; returns what it took."""
        tape, slippage = self.tape, self._slippage
        buys = order.side == BUY
        paid = slippage.bought_at(tape.dearest(price)) if buys else slippage.sold_at(tape.cheapest(price))
        limit, filled = order.limit, ZERO
        passed = limit is not None and (paid > limit if buys else paid < limit)
        if passed:
            order.taking = False  # for good
        elif paid > ZERO:
            qty = order.remaining if order.remaining <= left else whole_lots(left, self._lot)
            if qty > ZERO and (qty == order.remaining or order.time_in_force != FOK):
                filled = self._execute(order, Execution(qty, paid, "TAKER"))
        if order.time_in_force in (IOC, FOK) and not order.is_final:
            self._end(order, "CANCELED", order.time_in_force)
        return filled

    def _execute(self, order: WorkingOrder, execution: Execution) -> Decimal:
        """Give a fill, as far as the desk can settle it, with what it changes in other orders; returns its quantity."""
        settled = self._desk.settle(order, execution)
        qty = settled.qty
        if qty > ZERO:
            if qty != execution.qty:
                execution = Execution(qty, execution.price, execution.liquidity)
            order.remaining = subtract(order.remaining, qty)
            status: OrderStatus = "PARTIAL_FILL" if order.remaining > ZERO else "FILLED"
            self._move(order, status, status, execution)
            if order.sibling_id is not None:
                self._shrink(order.sibling_id, qty)
            if order.take_profit is not None or order.stop_loss is not None:
                for child in children_of(order, qty, self.instrument.tick_size, self._desk.new_order_id):
                    self.submit(child, latency_ms=0)
            if status == "FILLED":
                del self._orders[order.order_id]
        if settled.cut is not None and not order.is_final:
            self._end(order, "CANCELED", FOK if order.time_in_force == FOK else settled.cut)
        return qty

    def _shrink(self, order_id: str, qty: Decimal) -> None:
        """The other child of a bracket protects less, as part of what it protects is closed."""
        order = self._orders.get(order_id)
        if order is None:
            return
        order.remaining = max(ZERO, subtract(order.remaining, qty))
        if order.remaining > ZERO:
            self._move(order, "ACKNOWLEDGED", OCO)
        else:
            self._end(order, "CANCELED", OCO)

    def _end(self, order: WorkingOrder, status: OrderStatus, reason: str) -> None:
        self._move(order, status, reason)
        del self._orders[order.order_id]
        if reason == AMENDED:
            for other in self._orders.values():
                if other.replaces_id == order.order_id:
                    other.replaced = True
                    other.replaces_remaining = subtract(other.replaces_remaining, order.remaining)

    def _move(self, order: WorkingOrder, status: OrderStatus, reason: str, execution: Execution | None = None) -> None:
        order.move(status)
        self._desk.moved(order, status, reason, execution)

    # ---- what need not be looked at --------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Find what prints change nothing: those earlier than `_until_ms` with a price between `_low` and `_high`."""
        due: float = inf
        arrival: float = inf
        low, high, taking, stops = 0.0, inf, False, False
        for order in self._orders.values():
            for at_ms in (order.cancel_at_ms, order.expire_ts, order.timeout_at_ms):
                if at_ms is not None and at_ms < due:
                    due = at_ms
            if order.gap_cancel:
                due = 0
            if order.status == "SUBMITTED":
                arrival = min(arrival, order.active_from_ms)
            elif order.taking:
                taking = True
            else:
                stops = stops or order.waits_for_trigger
                below, above = order.quiet_between()
                low, high = max(low, below), min(high, above)
        self._due_ms, self._next_arrival_ms = due, arrival
        self._until_ms = 0.0 if taking else min(due, arrival)
        self._low, self._high, self._stops = low, high, stops

    # ---- restart ---------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All of it as plain values with exact decimals as text; bounded."""
        orders = [msgspec.to_builtins(order) for order in self._orders.values()]
        return {"tape": self.tape.state(), "sequence": self._sequence, "ages": self._ages, "orders": orders}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave. Raises ValueError for anything else."""
        self.tape.restore(state["tape"])
        self._sequence, self._ages = state["sequence"], state["ages"]
        orders = msgspec.convert(state["orders"], list[WorkingOrder])
        self._orders = {order.order_id: order for order in orders}
        self._watch()


def _age(order: WorkingOrder) -> int:
    return order.age
