"""From a decision or command to an order that is sent or refused: steps, lots, halts, caps, balance. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from tradebot.core.events import BUY, MIN_NOTIONAL, MIN_QTY, NO_BALANCE, SELL, UNKNOWN_ORDER, Tick
from tradebot.execution.breakers import Breakers
from tradebot.execution.desk import PaperDesk
from tradebot.execution.orders import BASIS_POINT, Amend, Cancel, Command, OrderRequest, Submit, WorkingOrder, working
from tradebot.execution.prices import limit_price, offset_limit, price_step, stop_price
from tradebot.execution.risk import OpenOrder, Refusal, check_order
from tradebot.execution.venue import SymbolVenue
from tradebot.portfolio.exact import ONE, ZERO, add, exact, multiply
from tradebot.portfolio.instruments import UNKNOWN_STEP, round_down, too_small
from tradebot.portfolio.money import Money
from tradebot.strategy.base import Decision

if TYPE_CHECKING:
    from tradebot.config.model import ExecutionConfig, RiskCaps, StrategyConfig
    from tradebot.config.paper import PaperConfig


class PaperSettings(NamedTuple):
    """Which orders a decision makes, and the venue that they go to, as the sections of the configuration say."""

    strategy: StrategyConfig
    execution: ExecutionConfig
    paper: PaperConfig


class OrderEntry:
    """Where orders are checked before they go to their venue. Owned by one thread; nothing blocks."""

    def __init__(
        self, settings: PaperSettings, desk: PaperDesk, venues: Mapping[str, SymbolVenue], money: Money, caps: RiskCaps,
        breakers: Breakers,
    ) -> None:  # fmt: skip
        """`venues` are those of all symbols, also of later ones."""
        self._settings = settings
        self._desk = desk
        self._venues = venues
        self._money = money
        self._caps = caps
        self._breakers = breakers
        self._size = exact(settings.strategy.desired_size)
        self._slipped = add(ONE, multiply(exact(settings.paper.slippage_bps), BASIS_POINT))
        self.closed: str | None = None
        """The reason code with which every order is refused from now on; None: not all are."""
        self.repeated: Refusal | None = None
        """How the orders of this tick are refused because those of the replayed run were; None: they were not."""

    def command(self, tick: Tick, decision: Decision) -> Submit:
        """The order that the configuration makes of a decision."""
        side, execution, size = decision.side, self._settings.execution, self._size
        if side != BUY and side != SELL:
            raise ValueError(f"the strategy decided for side {side!r}, which is not a side")
        if execution.order_type == "limit":
            price = offset_limit(side, exact(tick.price), exact(execution.limit_offset_bps))
            request = OrderRequest(tick.symbol, side, size, "LIMIT", price, post_only=execution.post_only)
        else:
            request = OrderRequest(tick.symbol, side, size)
        return Submit(request, decision.reason, self._settings.strategy.confidence)

    def obey(self, venue: SymbolVenue, tick: Tick, command: Command) -> None:
        """Check an order, after everything else of its tick, and send or refuse it; or end one."""
        if isinstance(command, Cancel):
            venue.cancel(command.order_id)
            return
        order = self._ordered(venue, tick.price, command)
        if isinstance(command, Submit):
            self._send(venue, order, None)
            return
        old = next((each for each in venue.orders if each.order_id == command.order_id), None)
        if old is None or old.cancel_at_ms is not None:
            self._desk.refuse(order, UNKNOWN_ORDER, None)
        else:
            order.replaces_id, old.replaced_by = old.order_id, order.order_id
            self._send(venue, order, old)

    def _ordered(self, venue: SymbolVenue, price: float, command: Submit | Amend) -> WorkingOrder:
        """The order of a command with its signal, in whole lots and steps of the price."""
        desk, request, instrument = self._desk, command.request, venue.instrument
        signal = desk.new_signal(
            request.symbol, request.side, command.confidence, command.reason, float(request.qty), price
        )
        order = working(request, desk.new_order_id(), signal.event_id, price)
        order.remaining = round_down(request.qty, instrument.lot_size or UNKNOWN_STEP)
        order.qty = order.remaining or request.qty
        if request.limit is not None or request.stop is not None:
            step = price_step(exact(price), instrument.tick_size)
            order.limit = None if request.limit is None else limit_price(order.side, request.limit, step)
            order.stop = None if request.stop is None else stop_price(order.side, request.stop, step)
        return order

    def _send(self, venue: SymbolVenue, order: WorkingOrder, old: WorkingOrder | None) -> None:
        """Refuse the order with a reason code, or send it, in the place of `old` where there is one."""
        desk = self._desk
        if old is not None:
            desk.lift(old)
        refusal = self._refusal(venue, order)
        if old is not None:
            desk.reserve(old)
        if refusal is not None:
            if old is not None:
                old.replaced_by = None
            desk.refuse(order, refusal.reason, refusal.breach)
            return
        desk.accepted += 1
        desk.reserve(order)
        if old is None:
            venue.submit(order)
        else:
            venue.amend(old.order_id, order)

    def _refusal(self, venue: SymbolVenue, order: WorkingOrder) -> Refusal | None:
        """Why an order is not sent."""
        if self.repeated is not None:
            return self.repeated
        instrument, last = venue.instrument, exact(order.reference)
        if instrument.restricts_size:
            small = too_small(instrument, order.remaining, order.limit or order.stop or last)
            if small is not None and not (order.reduce_only and small.reason == MIN_NOTIONAL):
                return Refusal(small.reason, small.breach)
        if not order.remaining:
            return Refusal(MIN_QTY)
        price = self._reservation_price(venue, order, last)
        if price <= ZERO or (order.stop is not None and not order.stop):
            return Refusal(MIN_NOTIONAL)  # a price below one step
        if self.closed is not None:
            return Refusal(self.closed)
        desk = self._desk
        refusal = check_order(
            _as_open(order), last, self._open_orders(), self._last_price, desk.account.positions, self._caps,
            self._money, self._breakers.refusal(order.symbol),
        )  # fmt: skip
        if refusal is not None or order.reduce_only:
            return refusal
        breach = desk.check_balance(order, instrument, price)
        return None if breach is None else Refusal(NO_BALANCE, breach)

    def _open_orders(self) -> dict[str, list[OpenOrder]]:
        """Those of each symbol that has any."""
        found: dict[str, list[OpenOrder]] = {}
        for symbol, venue in self._venues.items():
            if not venue.idle:
                found[symbol] = [_as_open(order) for order in venue.orders]
        return found

    def _last_price(self, symbol: str) -> Decimal:
        return exact(self._venues[symbol].tape.last_price)

    def _reservation_price(self, venue: SymbolVenue, order: WorkingOrder, last: Decimal) -> Decimal:
        """What one unit may cost: the limit; else stop, quote or last price with the trail and the slippage on top."""
        if order.limit is not None:
            return order.limit
        price = order.stop
        if price is None:
            if order.type == "MARKET":
                quote = venue.tape.ask if order.side == BUY else venue.tape.bid
                price = last if quote is None or quote <= ZERO else quote
            else:
                trail = order.trail_amount
                if trail is None:
                    trail = multiply(last, multiply(order.trail_bps or ZERO, BASIS_POINT))
                price = add(last, trail)
        return price if self._slipped == ONE else multiply(price, self._slipped)


def _as_open(order: WorkingOrder) -> OpenOrder:
    """As caps see it. Of the children of a bracket, and of an order and its replacement, only one can be filled."""
    one_of = order.replaced_by
    if order.replaces_id is not None:
        one_of = order.order_id
    elif order.sibling_id is not None:
        one_of = min(order.order_id, order.sibling_id)
    return OpenOrder(order.symbol, order.side, order.remaining, order.reduce_only, one_of)
