"""SHADOW execution: what would have been ordered, recorded as filled at the signal's price. Nothing leaves the house.

Everything is a function of the signals in their order: ids derive from the signal's, prices travel with it, and the
clock, where it matters at all, is an argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from tradebot.core.events import SHADOW_RECORDED, Fill, LimitBreach, Order, Signal
from tradebot.execution.risk import HALT, ApprovedOrder, Refusal, RefusedOrder, check, check_tick_age, refusal_text
from tradebot.portfolio.exact import multiply
from tradebot.portfolio.instruments import Instrument
from tradebot.portfolio.money import Money
from tradebot.portfolio.positions import Positions

if TYPE_CHECKING:
    from tradebot.config.model import RiskCaps


def refuse(signal: Signal, reason: str, breach: LimitBreach | None = None) -> Order:
    """The order to be stored for a signal that is not executed; `reason` is a reason code, such as BP_DROP_SIGNAL.

    `breach`: the limit that it would have exceeded, if that is the reason. Any thread. The signal's `marks` are not
    applied: the caller must pass them on with the next signal.
    """
    return Order(
        event_id=_ids(signal)[0],
        signal_id=signal.event_id,
        symbol=signal.symbol,
        side=signal.side,
        qty=signal.desired_size,
        price=signal.price,
        status="REJECTED",
        reason=reason,
        ts=signal.ts,
        breach=breach,
    )


class ShadowExecution:
    """Orders and fills for signals. Owned by the execution thread; nothing blocks."""

    view = None
    """SHADOW has no account."""

    positions: Positions
    """What the fills so far add up to; to be read by the owning thread, or once it has ended."""

    fees_before: Mapping[str, float]
    """By symbol: the fees of the fills that `restore` was given."""

    def __init__(self, caps: RiskCaps, money: Money, max_tick_age_ms: int = 0) -> None:
        """`money` has the fees and the rates; `max_tick_age_ms` 0: no tick is too old."""
        self.money = money
        self.positions = Positions(money.instruments)
        self.fees_before = {}
        self._caps = caps
        self._max_tick_age_ms = max_tick_age_ms

    def restore(
        self, fills: Iterable[Fill], marks: Iterable[tuple[str, float]] = (), positions: Positions | None = None
    ) -> None:
        """Start from stored fills, in their order, and the prices as of the same moment (else those of the fills).

        `positions` are what the fills before those come to.
        """
        states = () if positions is None else positions.states()
        self.positions = Positions.of(states, self.money.instruments)
        for fill in fills:
            self.positions.apply(fill)
        for symbol, price in marks:
            self.positions.mark(symbol, price)
            self.money.rates.on_price(symbol, price)
        self.fees_before = {view.symbol: view.fees for view in self.positions.views()}

    def execute(
        self,
        signal: Signal,
        now_ms: int | None = None,
        blocked: Refusal | None = None,
        repeated: Refusal | None = None,
    ) -> Order:
        """The order for `signal`: FILLED with one fill, or REJECTED with a reason code and none.

        `now_ms` is the wall clock (Unix ms UTC), or None in a replay, where no tick is ever stale by the clock.
        `blocked` is how a breaker refuses an order that adds exposure, `repeated` how the run that is replayed refused
        this signal.
        """
        positions, rates = self.positions, self.money.rates
        for symbol, price in signal.marks:
            positions.mark(symbol, price)
        if rates.symbols:
            rates.on_prices(signal.marks)
            rates.on_price(signal.symbol, signal.price)
        verdict: ApprovedOrder | RefusedOrder
        if repeated is None and now_ms is not None:
            repeated = check_tick_age(signal.ts, now_ms, self._max_tick_age_ms)
        if repeated is not None:
            verdict = RefusedOrder(signal, repeated.reason, repeated.breach)
        else:
            if signal.halted:
                blocked = HALT
            verdict = check(signal, positions, self._caps, open_orders=0, money=self.money, blocked=blocked)
        if isinstance(verdict, RefusedOrder):
            # A refused signal's prices count, too: no later signal repeats them.
            positions.mark(signal.symbol, signal.price)
            return refuse(signal, verdict.reason, verdict.breach)
        order = _filled(verdict, self.money.instruments.of(signal.symbol))
        positions.apply(order.fills[0])
        return order

    def refusal_text(self, order: Order) -> str:
        """Why `order`, the newest that `execute` refused, was refused, for people."""
        return refusal_text(order, self.money, self.positions)


def _filled(order: ApprovedOrder, instrument: Instrument) -> Order:
    """An approved order, filled whole and at once at the signal's price.

    Fees are the order's value x the taker's fee, multiplied exactly as decimals and rounded once, to the nearest
    double.
    """
    signal, qty = order.signal, order.qty
    order_id, fill_id = _ids(signal)
    fees = float(multiply(order.notional, instrument.taker_fee))
    fill = Fill(fill_id, order_id, signal.symbol, signal.side, qty, signal.price, fees, signal.ts)
    return Order(
        event_id=order_id,
        signal_id=signal.event_id,
        symbol=signal.symbol,
        side=signal.side,
        qty=qty,
        price=signal.price,
        status="FILLED",
        reason=SHADOW_RECORDED,
        ts=signal.ts,
        fills=(fill,),
    )


def _ids(signal: Signal) -> tuple[str, str]:
    """The ids of a signal's order (-O) and trade (-T): as the signal's own (-S), with its number where it has one."""
    stem, dash, number = signal.event_id.rpartition("-S")
    if not dash:
        raise ValueError(f"signal id {signal.event_id!r} does not end in -S")
    return f"{stem}-O{number}", f"{stem}-T{number}"
