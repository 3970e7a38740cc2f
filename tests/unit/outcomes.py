"""Ticks of a run in PAPER with what they caused, for tests of the store: orders that live for several ticks."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from tests.unit.store_helpers import batch_of, tick, ticks_st
from tradebot.core.events import (
    BUY,
    Fill,
    LimitBreach,
    Notice,
    Order,
    OrderEvent,
    OrderStatus,
    Signal,
    Tick,
    TickOutcome,
)
from tradebot.core.ids import event_prefix, fill_id, order_id, signal_id
from tradebot.store.batch import WriteBatch

QTY = 0.2


def transition(order: str, n: int, status: OrderStatus, number: int, remaining: float = QTY) -> OrderEvent:
    """The n-th transition of an order, at tick `number`."""
    return OrderEvent(order, n, status, f"WHY_{n}", 1_700_000_000_000 + number, number, remaining)


def limit_order(number: int, run_id: str = "r1", n: int = 1, parent: str | None = None) -> tuple[Signal, Order]:
    """The n-th order of a tick, at a limit of 99.5, and its signal; `parent`: the entry that it closes."""
    stem = event_prefix(run_id, number)
    at = tick(number)
    made = Signal(signal_id(stem, n), at.symbol, BUY, 0.75, "SMA_CROSSOVER", QTY, at.price, at.ts)
    cited = made.event_id if parent is None else parent.replace("-O", "-S")
    order = Order(
        order_id(stem, n), cited, at.symbol, BUY, QTY, 99.5, "SUBMITTED", "SUBMITTED", at.ts,
        order_type="LIMIT", limit_price=99.5, time_in_force="GTC", post_only=1, reduce_only=0, parent_id=parent,
    )  # fmt: skip
    return made, order


def half(order: str, number: int, run_id: str = "r1", n: int = 1) -> Fill:
    """A fill of half of an order at tick `number`."""
    stem, at = event_prefix(run_id, number), tick(number)
    return Fill(fill_id(stem, n), order, at.symbol, BUY, QTY / 2, 99.5, 0.01, at.ts, 1, "MAKER", number, -1.5, 0)


def outcome(number: int, run_id: str = "r1", every: int = 5) -> Tick | TickOutcome:
    """What tick `number` causes where every `every`-th submits an order.

    The next one acknowledges it, the one after that fills it half, the third one whole. The tick before is refused.
    """
    late = number % every
    made = order_id(event_prefix(run_id, number - late))
    if late == 0:
        signal, order = limit_order(number, run_id)
        return TickOutcome(tick(number), number, (signal,), (order,), (transition(made, 1, "SUBMITTED", number),))
    if late == every - 1:
        signal, order = limit_order(number, run_id)
        refused = Order(
            order.event_id, order.signal_id, order.symbol, BUY, QTY, None, "REJECTED", "RISK_CAP", order.ts,
            breach=LimitBreach("risk_caps.max_exposure_usd", 11.0, 10.0), order_type="MARKET",
        )  # fmt: skip
        return TickOutcome(
            tick(number), number, (signal,), (refused,), (transition(refused.event_id, 1, "REJECTED", number),),
            notices=(Notice("BREAKER_TRIPPED", tick(number).ts, "REFUSALS_PER_MINUTE", ticks_before=number),),
        )  # fmt: skip
    if number - late < every:
        return tick(number)  # no order before it
    if late == 1:
        return TickOutcome(tick(number), number, (), (), (transition(made, 2, "ACKNOWLEDGED", number),))
    if late == 2:
        event = transition(made, 3, "PARTIAL_FILL", number, QTY / 2)
        return TickOutcome(tick(number), number, (), (), (event,), (half(made, number, run_id),))
    event = transition(made, 4, "FILLED", number, 0.0)
    return TickOutcome(tick(number), number, (), (), (event,), (half(made, number, run_id),))


def outcomes(start: int, ticks: int, run_id: str = "r1") -> list[Tick | TickOutcome]:
    """What ticks from number `start` on cause: of five, one submits, one acknowledges, two fill, one is refused."""
    return [outcome(number, run_id) for number in range(start, start + ticks)]


def outcome_batch(start: int, ticks: int, run_id: str = "r1") -> WriteBatch:
    """The same as a batch."""
    return batch_of(*outcomes(start, ticks, run_id))


def _made(parts: Sequence[tuple[Tick, int, int, int, int]]) -> list[TickOutcome]:
    found = []
    for number, (at, orders, events, fills, notices) in enumerate(parts, 1):
        pairs = [limit_order(number, n=n) for n in range(1, orders + 1)]
        stem = event_prefix("r1", number)
        found.append(
            TickOutcome(
                at, number,
                tuple(signal for signal, _order in pairs),
                tuple(order for _signal, order in pairs),
                tuple(transition(order_id(stem), n, "TRIGGERED", number) for n in range(1, events + 1)),
                tuple(half(order_id(stem), number, n=n) for n in range(1, fills + 1)),
                tuple(Notice("BREAKER_RELEASED", n, "x", None, None, number) for n in range(notices)),
            )
        )  # fmt: skip
    return found


_few = st.integers(0, 3)
outcomes_st = st.lists(st.tuples(ticks_st, _few, _few, _few, _few), max_size=6).map(_made)
"""Ticks with any number of consequences of each kind; ids are unique."""
