"""Orders from the command to the venue: what is refused and why, what is kept for them, and their transitions."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from sim.paper_reference.account import Account
from sim.paper_reference.market import Market
from sim.paper_reference.orders import Order, on_grid
from sim.paper_reference.values import (
    Cancel,
    Command,
    Event,
    Fill,
    Instrument,
    OrderId,
    OrderRow,
    Request,
    Settings,
    Submit,
)


class OrderBook:
    """Markets, orders and account between two prints, and what commands do to them."""

    def __init__(self, settings: Settings, instruments: Iterable[Instrument] = ()) -> None:
        self.settings = settings
        self.instruments = {instrument.symbol: instrument for instrument in instruments}
        self.markets: dict[str, Market] = {}
        self.account = Account(settings)
        self.rows: list[OrderRow] = []
        self.made_by_venue: set[OrderId] = set()
        self.liquidated = False
        self.living: list[Order] = []  # by their submission: those open after the last print, and newer ones
        self.named: dict[int, Order] = {}
        self.events: list[Event] = []
        self.fills: list[Fill] = []
        self.number = 0
        self.time = 0

    # -- commands ------------------------------------------------------------------------------------------------

    def obey(self, command: Command, price: Fraction) -> None:
        """Carry out a command at the end of a print of this price."""
        if isinstance(command, Submit):
            market = self.market(command.request.symbol)
            self.named[command.name] = self.accept(command.request, market, price, self.settings.latency_ms, check=True)
            return
        order = self.named[command.name]
        if isinstance(command, Cancel):
            self.ask_to_cancel(order, "CANCEL_REQUESTED")
        else:
            self.named[command.new_name] = self.amend(order, command.request, price)

    def ask_to_cancel(self, order: Order, reason: str) -> None:
        """Ask for the end of an order, unless that was asked for before."""
        if order.open and order.cancel_from is None:
            order.cancel_from = self.now(order) + self.settings.cancel_latency_ms
            order.cancel_reason = reason

    def amend(self, order: Order, request: Request, price: Fraction) -> Order:
        """Cancel and replace: the new order is not active before the cancel is; refused, it changes nothing."""
        market = self.market(request.symbol)
        new = self.accept(request, market, price, self.settings.latency_ms, check=True, instead_of=order)
        if new.open:
            self.ask_to_cancel(order, "AMENDED")
            new.replaces = order
            new.replaces_from = order.remaining
            new.active_from = max(new.active_from, self.now(order) + self.settings.cancel_latency_ms)
        return new

    def accept(
        self,
        request: Request,
        market: Market,
        signal_price: Fraction,
        latency_ms: int,
        check: bool,
        instead_of: Order | None = None,
        parent: OrderId | None = None,
    ) -> Order:
        """Make the order, SUBMITTED or REJECTED."""
        qty, limit, stop = on_grid(market.instrument, request, signal_price)
        assert market.event_time is not None
        order = Order(
            (self.number, 1 + sum(order.id[0] == self.number for order in self.living)),
            request,
            qty,
            limit,
            stop,
            signal_price,
            active_from=market.event_time + latency_ms,
            reserve_each=self.reserve_price(request, limit, stop, signal_price)
            * market.instrument.unit
            * (1 + market.instrument.taker_fee),
            reference_price=signal_price,
            remaining=qty or request.qty,
        )
        order.opening = qty - min(qty, self.account.reducible(order))
        refusal = self.refusal(order, market, instead_of) if check else ""
        if not check:
            self.made_by_venue.add(order.id)
        self.living.append(order)
        self.pass_on(order, "REJECTED" if refusal else "SUBMITTED", refusal)
        self.rows.append(row_of(order, parent))
        return order

    def reserve_price(
        self, request: Request, limit: Fraction | None, stop: Fraction | None, price: Fraction
    ) -> Fraction:
        """The price at which an open order keeps cash: a BUY the worst that one can see, a short SELL what it gets."""
        if limit is not None:
            return limit
        if request.type == "TRAILING_STOP":
            worst = price + (request.trail_amount or price * (request.trail_bps or 0) / 10_000)
        else:
            quote = self.market(request.symbol).ask if request.side == "BUY" else self.market(request.symbol).bid
            worst = stop or quote or price
        return worst * (1 + self.settings.slippage_bps / 10_000)

    def refusal(self, order: Order, market: Market, instead_of: Order | None) -> str:
        """The reason code with which the order is refused; empty: it is not."""
        instrument = market.instrument
        if instead_of is not None and (not instead_of.open or instead_of.cancel_from is not None):
            return "UNKNOWN_ORDER"
        if order.qty <= 0 or order.qty < (instrument.min_qty or 0):
            return "MIN_QTY"
        notional = order.qty * (order.limit or order.stop or order.signal_price) * instrument.contract_size
        if notional < (instrument.min_notional or 0) and not order.request.reduce_only:
            return "MIN_NOTIONAL"
        if self.liquidated:
            return "LIQUIDATED"
        if order.request.reduce_only:
            return ""
        others = [other for other in self.living if other.open and other is not instead_of]
        if not self.lowers(order, others):
            if instrument.rate is None:
                return "NO_RATE"
            if self.passes_a_cap(order, others):
                return "RISK_CAP"
        if order.side == "SELL" and not self.settings.allow_short:
            return "NO_BALANCE" if order.qty > self.account.sellable(order.request.symbol, others) else ""
        needed = self.account.reserved(order)
        return "NO_BALANCE" if needed and needed > self.account.free(others) else ""

    def lowers(self, order: Order, others: list[Order]) -> bool:
        """Whether it lowers its symbol's position, when all open orders of its side are filled before it."""
        position = self.account.position(order.request.symbol)
        qty = open_qty(others, order.request.symbol, order.side) + order.qty
        return abs(position + (qty if order.side == "BUY" else -qty)) < abs(position)

    def passes_a_cap(self, order: Order, others: list[Order]) -> bool:
        """Whether it would take the account past a cap, open orders counted as if filled, each side by itself."""
        settings, account, symbol = self.settings, self.account, order.request.symbol
        worst: dict[str, Fraction] = {}
        for name, price in {**account.prices, symbol: order.signal_price}.items():
            bought, sold = open_qty([*others, order], name, "BUY"), open_qty([*others, order], name, "SELL")
            net = account.position(name)
            worst[name] = max(abs(net + bought), abs(net - sold)) * price * self.market(name).instrument.unit
        return (
            (settings.max_symbol_exposure is not None and worst[symbol] > settings.max_symbol_exposure)
            or (settings.max_exposure is not None and sum(worst.values()) > settings.max_exposure)
            or (settings.max_open_orders is not None and len(others) >= settings.max_open_orders)
        )

    # -- small things --------------------------------------------------------------------------------------------

    def market(self, symbol: str) -> Market:
        """The market of a symbol."""
        if symbol not in self.markets:
            self.markets[symbol] = Market(self.instruments.get(symbol, Instrument(symbol)))
            self.account.units[symbol] = self.markets[symbol].instrument.unit
        return self.markets[symbol]

    def now(self, order: Order) -> int:
        """Event time is that of the order's own symbol."""
        time = self.markets[order.request.symbol].event_time
        assert time is not None
        return time

    def open_orders(self, market: Market) -> list[Order]:
        """By their submission."""
        symbol = market.instrument.symbol
        return [order for order in self.living if order.open and order.request.symbol == symbol]

    def pass_on(self, order: Order, status: str, reason: str = "") -> None:
        """A transition of an order."""
        assert order.open, f"{order.id} is {order.status}, which is final, and cannot be {status}"
        order.status = status
        order.n += 1
        order.reason = reason or status
        self.events.append(Event(order.id, order.n, status, order.reason, self.time, self.number, order.remaining))


def row_of(order: Order, parent: OrderId | None) -> OrderRow:
    """The order as at its submission."""
    request = order.request
    return OrderRow(
        order.id,
        request.symbol,
        request.side,
        order.qty or request.qty,
        request.type,
        order.limit,
        order.stop,
        request.time_in_force,
        request.expire_ts,
        request.post_only,
        request.reduce_only,
        parent,
        order.status,
        order.reason,
    )


def open_qty(orders: list[Order], symbol: str, side: str) -> Fraction:
    """What these orders can still buy, or sell, of a symbol. Those that only reduce add nothing."""
    own = [order for order in orders if order.request.symbol == symbol and order.side == side]
    return sum((order.remaining for order in own if not order.request.reduce_only), Fraction(0))
