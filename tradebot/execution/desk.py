"""Where orders of PAPER meet the account: fills are settled, money is held back, and all of it becomes rows. Pure."""

from __future__ import annotations

from decimal import Context, Decimal
from typing import Final

from tradebot.core.events import (
    BUY,
    FINAL_STATUSES,
    FOK,
    NO_BALANCE,
    REDUCE_ONLY,
    Fill,
    LimitBreach,
    Notice,
    Order,
    OrderEvent,
    OrderStatus,
    Side,
    Signal,
    Tick,
    TickOutcome,
)
from tradebot.core.ids import event_prefix, fill_id, order_id, signal_id
from tradebot.execution.moves import Execution, Settlement
from tradebot.execution.orders import WorkingOrder
from tradebot.portfolio.account import Account
from tradebot.portfolio.exact import ZERO, add, exact, multiply, subtract
from tradebot.portfolio.instruments import Instrument, Instruments, value_of
from tradebot.portfolio.round_trips import RoundTrips

_RATIO: Final = Context(prec=20)  # more than a double has
_TEN_THOUSAND: Final = Decimal(10_000)


class PaperDesk:
    """The account's side of all venues, and the rows of the tick in hand. Owned by one thread; nothing blocks."""

    def __init__(self, run_id: str, account: Account, instruments: Instruments, counts_trades: bool) -> None:
        """`counts_trades`: the profit of each trade from flat to flat is needed (`closed`)."""
        self.account = account
        self.round_trips = RoundTrips()
        self._counts_trades = counts_trades
        self._run_id = run_id
        self._instruments = instruments
        self._begin_rows()
        self.tick: Tick | None = None
        self._stem = ""
        self.number = 0
        self.now_ms = 0

    def continue_as(self, run_id: str) -> None:
        """From the next tick on, ids are those of run `run_id`."""
        self._run_id = run_id

    # ---- the tick in hand ------------------------------------------------------------------------------------------

    def begin(self, tick: Tick, number: int, now_ms: int) -> None:
        """From here on everything is caused by `tick`, whose number in the run is `number`; `now_ms` is event time."""
        self.tick, self.number, self.now_ms = tick, number, now_ms
        self._stem = ""

    def outcome(self) -> TickOutcome | None:
        """What the tick in hand has caused; None: nothing. The rows are handed over."""
        tick = self.tick
        events = self._order_events
        if tick is None or not (events or self._signals or self.notices):
            return None
        found = TickOutcome(
            tick, self.number, tuple(self._signals), tuple(self._orders), tuple(events), tuple(self._fills),
            tuple(self.notices),
        )  # fmt: skip
        self._begin_rows()
        return found

    def _begin_rows(self) -> None:
        self._signals: list[Signal] = []
        self._orders: list[Order] = []
        self._order_events: list[OrderEvent] = []
        self._fills: list[Fill] = []
        self.notices: list[Notice] = []
        """Those that the tick caused; may be added to."""
        self.refusals: list[str] = []
        """The reason codes of the orders that the tick saw refused, in order."""
        self.accepted = 0
        """How many orders were accepted."""
        self.closed: list[Decimal] = []
        """The profits of the trades that the tick's fills ended, in order."""
        self._ids = 0

    def new_signal(self, symbol: str, side: Side, confidence: float, reason: str, size: float, price: float) -> Signal:
        """A signal of the tick in hand, with the time of that tick; `price` is the last one of `symbol`."""
        if self.tick is None:
            raise RuntimeError("there is no tick in hand")
        name = signal_id(self._stem or self._prefix(), len(self._signals) + 1)
        signal = Signal(name, symbol, side, confidence, reason, size, price, self.tick.ts)
        self._signals.append(signal)
        return signal

    def new_order_id(self) -> str:
        """The next order id of the tick in hand."""
        self._ids += 1
        return order_id(self._stem or self._prefix(), self._ids)

    def _prefix(self) -> str:
        self._stem = event_prefix(self._run_id, self.number)
        return self._stem

    # ---- what happens to orders ------------------------------------------------------------------------------------

    def refuse(self, order: WorkingOrder, reason: str, breach: LimitBreach | None) -> None:
        """An order that is not sent."""
        order.move("REJECTED")
        order.remaining = order.qty
        self.moved(order, "REJECTED", reason, breach=breach)

    def moved(
        self, order: WorkingOrder, status: OrderStatus, reason: str, execution: Execution | None = None,
        breach: LimitBreach | None = None,
    ) -> None:  # fmt: skip
        """See `Desk`: the transition becomes a row, and the end of an order frees what it holds back."""
        order_id, n, remaining = order.order_id, order.events, float(order.remaining)
        if n == 1:
            self._orders.append(_row(order, reason, breach, self.now_ms))
        self._order_events.append(OrderEvent(order_id, n, status, reason, self.now_ms, self.number, remaining))
        if status in FINAL_STATUSES:
            self.account.release_all(order_id)
            if status == "REJECTED":
                self.refusals.append(reason)

    def check_balance(self, order: WorkingOrder, instrument: Instrument, price: Decimal) -> LimitBreach | None:
        """What an order that costs `price` a unit lacks; None: nothing. It learns how much money it is to hold back."""
        account = self.account
        needed = account.needed(instrument, order.side, order.qty, price, instrument.taker_fee)
        if needed:
            order.reserved, order.reserved_at = needed, price
        return account.refuses(instrument, order.side, order.qty, needed)

    def lift(self, order: WorkingOrder) -> None:
        """Give back what an order holds back, for as long as it takes to check the one that is to replace it."""
        self.account.release_all(order.order_id)

    def reserve(self, order: WorkingOrder) -> None:
        """Hold back what an accepted order may need: the money that it asks for, or the holdings that it sells."""
        if order.reserved:
            self.account.reserve(order.order_id, self._instruments.of(order.symbol).currency, order.reserved)
        elif not order.reduce_only and order.side != BUY and not self.account.allow_short:
            self.account.reserve_qty(order.order_id, order.symbol, order.remaining)

    def lowered(self, order: WorkingOrder, qty: Decimal) -> None:
        """See `Desk`."""
        self._release(order, qty, self._instruments.of(order.symbol))

    def settle(self, order: WorkingOrder, execution: Execution) -> Settlement:
        """See `Desk`."""
        instrument = self._instruments.of(order.symbol)
        fee_rate = instrument.maker_fee if execution.liquidity == "MAKER" else instrument.taker_fee
        qty = self._allowed(order, execution, instrument, fee_rate)
        cut = None
        if qty < execution.qty:
            cut = REDUCE_ONLY if order.reduce_only else NO_BALANCE
            if qty <= ZERO or order.time_in_force == FOK:
                return Settlement(ZERO, cut)
        self._book(order, qty, execution, instrument, fee_rate)
        return Settlement(qty, cut)

    def _allowed(self, order: WorkingOrder, execution: Execution, instrument: Instrument, fee_rate: Decimal) -> Decimal:
        """How much of a fill position and money allow. Closing needs no money; spot sells what is held."""
        qty = execution.qty
        closing = self.account.closing(order.symbol, order.side, qty)
        if closing == qty or order.reduce_only or (order.side != BUY and not self.account.allow_short):
            return closing
        opening = subtract(qty, closing) if closing else qty
        affordable = self.account.affordable(instrument, opening, execution.price, fee_rate, order.order_id)
        return qty if affordable == opening else add(closing, affordable)

    def _book(
        self, order: WorkingOrder, qty: Decimal, execution: Execution, instrument: Instrument, fee_rate: Decimal
    ) -> None:
        price, account, symbol = execution.price, self.account, order.symbol
        fees = float(multiply(value_of(instrument, qty, price), fee_rate))
        name = fill_id(self._stem or self._prefix(), len(self._fills) + 1)
        fill = Fill(
            name, order.order_id, symbol, order.side, float(qty), float(price), fees, self.now_ms, 1,
            execution.liquidity, self.number, slippage_bps(order.side, price, order.reference), int(order.after_gap),
        )  # fmt: skip
        self._fills.append(fill)
        if self._counts_trades:
            self._apply_to_trade(fill, instrument)
        else:
            account.apply(fill, instrument)
        self._release(order, qty, instrument)

    def _apply_to_trade(self, fill: Fill, instrument: Instrument) -> None:
        positions, symbol = self.account.positions, fill.symbol
        before, realized = positions.at_stake(symbol)[0], positions.realized(symbol)
        self.account.apply(fill, instrument)
        after, earned = positions.at_stake(symbol)[0], subtract(positions.realized(symbol), realized)
        profit = self.round_trips.on_fill(symbol, before, after, earned, fill.fees)
        if profit is not None:
            self.closed.append(profit)

    def _release(self, order: WorkingOrder, qty: Decimal, instrument: Instrument) -> None:
        """Without `qty`, which is filled or no longer asked for, the order holds back what the rest of it may need."""
        if qty == order.remaining:
            return  # its end frees all of it
        if order.reserved:
            left = subtract(order.remaining, qty)
            still = self.account.cost_of(instrument, left, order.reserved_at, instrument.taker_fee)
            if still < order.reserved:
                self.account.release(order.order_id, subtract(order.reserved, still))
                order.reserved = still
        elif order.side != BUY:
            self.account.release_qty(order.order_id, qty)


def slippage_bps(side: Side, price: Decimal, reference: float) -> float:
    """By how much `price` is worse than `reference`, in basis points of it; negative where it is better."""
    wanted = exact(reference)
    worse = subtract(price, wanted) if side == BUY else subtract(wanted, price)
    return float(_RATIO.divide(multiply(worse, _TEN_THOUSAND), wanted)) if worse else 0.0


def _row(order: WorkingOrder, reason: str, breach: LimitBreach | None, now_ms: int) -> Order:
    limit = None if order.limit is None else float(order.limit)
    stop = None if order.stop is None else float(order.stop)
    status: OrderStatus = "REJECTED" if order.status == "REJECTED" else "SUBMITTED"
    return Order(
        order.order_id, order.signal_id, order.symbol, order.side, float(order.qty), limit, status, reason, now_ms, 1,
        (), breach, order.type, limit, stop, order.time_in_force, order.expire_ts, int(order.post_only),
        int(order.reduce_only), order.parent_id,
    )  # fmt: skip
