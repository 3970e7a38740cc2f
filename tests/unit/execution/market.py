"""A market for tests of the venue: prints go in one by one, and what became of each order can be read."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, NamedTuple

from tradebot.config.paper import PaperConfig
from tradebot.core.events import BUY, FOK, NO_BALANCE, REDUCE_ONLY, SELL, OrderStatus, Side, Tick
from tradebot.execution.moves import Execution, Settlement
from tradebot.execution.orders import OrderRequest, WorkingOrder, working
from tradebot.execution.venue import SymbolVenue
from tradebot.portfolio.instruments import Instrument

SYMBOL = "TEST/USD"
START_MS = 1_700_000_000_000
STEP_MS = 100
D = Decimal


class Move(NamedTuple):
    """A transition of an order, with the fill that is its cause."""

    order: WorkingOrder
    n: int
    status: str
    reason: str
    remaining: Decimal
    execution: Execution | None


class Market:
    """One venue and the desk in front of it. A print is STEP_MS after the one before unless its `at` says when.

    Money is no limit unless `can_buy` is set: then so much can be bought in all.
    """

    def __init__(self, tick_size: str | None = "0.01", lot_size: str | None = None, **settings: Any) -> None:
        self.instrument = Instrument(
            SYMBOL, "TEST", "USD",
            tick_size=None if tick_size is None else D(tick_size), lot_size=None if lot_size is None else D(lot_size),
        )  # fmt: skip
        self.settings = PaperConfig(**settings)
        self.venue = SymbolVenue(self.instrument, self.settings, self)
        self.net = D(0)
        self.can_buy: Decimal | None = None
        self.moves: list[Move] = []
        self.ticks = 0
        self.filled_at: list[int] = []
        """The number of the print that gave each fill."""
        self._orders = 0

    # ---- what is done ----------------------------------------------------------------------------------------------

    def trade(self, price: float, volume: float = 100.0, taker: Side | None = None, at: int | None = None) -> None:
        """A print; `at` is its time in ms after the start."""
        ts = START_MS + (self.ticks * STEP_MS if at is None else at)
        self.ticks += 1
        self.venue.on_print(Tick(SYMBOL, price, volume, ts, taker=taker))

    def order(self, side: Side, qty: str | int, kind: Any = "MARKET", **request: Any) -> str:
        """Send an order after the last print; returns its id."""
        order = self._working(side, qty, kind, **request)
        self.venue.submit(order)
        return order.order_id

    def amend(self, order_id: str, side: Side, qty: str | int, kind: Any = "LIMIT", **request: Any) -> str:
        """Replace an order; returns the id of the new one."""
        order = self._working(side, qty, kind, **request)
        assert self.venue.amend(order_id, order)
        return order.order_id

    # ---- what became of it -----------------------------------------------------------------------------------------

    def life(self, order_id: str) -> list[str]:
        """The statuses of an order, with the reason where it is another word."""
        found = [move for move in self.moves if move.order.order_id == order_id]
        assert [move.n for move in found] == list(range(1, len(found) + 1))
        return [move.status if move.reason == move.status else f"{move.status} {move.reason}" for move in found]

    def fills(self, order_id: str | None = None) -> list[tuple[str, str, str]]:
        """(quantity, price, liquidity) of the fills of one order, or of all."""
        return [
            (_plain(move.execution.qty), _plain(move.execution.price), move.execution.liquidity)
            for move in self.moves
            if move.execution is not None and order_id in (None, move.order.order_id)
        ]

    def working_order(self, order_id: str) -> WorkingOrder:
        """An order that is alive."""
        return next(order for order in self.venue.orders if order.order_id == order_id)

    # ---- the desk --------------------------------------------------------------------------------------------------

    def new_order_id(self) -> str:
        """See `Desk`."""
        self._orders += 1
        return f"O{self._orders}"

    def moved(self, order: WorkingOrder, status: OrderStatus, reason: str, execution: Execution | None = None) -> None:
        """See `Desk`."""
        assert order.status == status
        self.moves.append(Move(order, order.events, status, reason, order.remaining, execution))
        if execution is not None:
            self.filled_at.append(self.ticks)

    def lowered(self, order: WorkingOrder, qty: Decimal) -> None:
        """There is no account that holds anything back."""

    def settle(self, order: WorkingOrder, execution: Execution) -> Settlement:
        """See `Desk`."""
        qty, cut = execution.qty, None
        if order.reduce_only:
            held = max(self.net if order.side == SELL else -self.net, D(0))
            if held < qty:
                qty, cut = held, REDUCE_ONLY
        if order.side == BUY and self.can_buy is not None and self.can_buy < qty:
            qty, cut = self.can_buy, NO_BALANCE
        if cut is not None and order.time_in_force == FOK:
            return Settlement(D(0), cut)
        if order.side == BUY and self.can_buy is not None:
            self.can_buy -= qty
        self.net += qty if order.side == BUY else -qty
        return Settlement(qty, cut)

    def _working(self, side: Side, qty: str | int, kind: Any, **request: Any) -> WorkingOrder:
        prices = ("limit", "stop", "trail_amount", "trail_bps", "take_profit", "stop_loss")
        asked: dict[str, Any] = {name: D(str(value)) if name in prices else value for name, value in request.items()}
        wanted = OrderRequest(SYMBOL, side, D(str(qty)), kind, **asked)
        wanted.check()
        return working(wanted, self.new_order_id(), "S", 100.0)


def _plain(value: Decimal) -> str:
    return f"{value.normalize():f}"
