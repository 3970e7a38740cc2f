"""What holds for every outcome of either calculation. Each function raises AssertionError that says what is wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from fractions import Fraction

from sim.paper_reference.market import Market
from sim.paper_reference.values import (
    LIQUIDATED,
    OCO,
    Event,
    Fill,
    Instrument,
    OrderId,
    OrderRow,
    Outcome,
    Print,
    Settings,
    milliseconds,
)

MAY_SHRINK = (OCO, "ACKNOWLEDGED", "POST_ONLY")
"""Reasons of events at which the rest of an order may be smaller without a fill of its own."""

FOLLOWERS = {
    "": {"SUBMITTED", "REJECTED"},
    "SUBMITTED": {"ACKNOWLEDGED", "REJECTED", "CANCELED", "EXPIRED"},
    "ACKNOWLEDGED": {"ACKNOWLEDGED", "TRIGGERED", "PARTIAL_FILL", "FILLED", "CANCELED", "EXPIRED"},
    "TRIGGERED": {"PARTIAL_FILL", "FILLED", "CANCELED", "EXPIRED"},
    "PARTIAL_FILL": {"PARTIAL_FILL", "FILLED", "CANCELED", "EXPIRED"},
}
# The phases of one tick in which an event may stand.
PHASES = {
    "GAP": (0,),
    "CANCEL_REQUESTED": (1,),
    "AMENDED": (1,),
    "EXPIRED": (2,),
    "NO_LIQUIDITY": (3,),
    "ACKNOWLEDGED": (4,),
    "POST_ONLY": (4,),
    "UNKNOWN_ORDER": (4, 8),
    "TRIGGERED": (5,),
    "IOC": (4, 5, 6),
    "FOK": (4, 5, 6),
    "OCO": (5, 6),
    "PARTIAL_FILL": (6,),
    "FILLED": (6,),
    "REDUCE_ONLY": (6,),
    "NO_BALANCE": (6, 8),
    "LIQUIDATED": (7, 8),
    "SUBMITTED": (6, 7, 8),
    "MIN_QTY": (4, 8),
    "MIN_NOTIONAL": (8,),
    "NO_RATE": (8,),
    "RISK_CAP": (8,),
}


def check(prints: Sequence[Print], instruments: Iterable[Instrument], settings: Settings, outcome: Outcome) -> None:
    """Everything that must hold for any outcome of these prints."""
    known = {instrument.symbol: instrument for instrument in instruments}
    rows = {row.order: row for row in outcome.orders}
    check_lives(outcome)
    check_quantities(rows, outcome)
    check_budgets(prints, settings, outcome)
    check_times(prints, settings, rows, outcome)
    check_prices(prints, known, settings, rows, outcome)
    check_order_of_events(outcome)
    check_money(prints, known, settings, rows, outcome)


def check_lives(outcome: Outcome) -> None:
    """Only allowed transitions, numbered from 1; final is final."""
    status: dict[OrderId, str] = defaultdict(str)
    numbers: dict[OrderId, int] = defaultdict(int)
    for event in outcome.events:
        before = status[event.order]
        assert event.status in FOLLOWERS.get(before, ()), f"{event} after {before!r}"
        numbers[event.order] += 1
        assert event.n == numbers[event.order], event
        status[event.order] = event.status
    assert set(status) == {row.order for row in outcome.orders}


def check_quantities(rows: dict[OrderId, OrderRow], outcome: Outcome) -> None:
    """What is ordered is filled, given up or still open: nothing appears and nothing is lost, event by event."""
    remaining = {order: row.qty for order, row in rows.items()}
    fills = defaultdict(list)
    for fill in outcome.fills:
        fills[fill.order, fill.tick].append(fill.qty)
    for event in outcome.events:
        if event.status in ("PARTIAL_FILL", "FILLED"):
            remaining[event.order] -= fills[event.order, event.tick].pop(0)
            assert (event.remaining == 0) == (event.status == "FILLED"), event
        elif event.reason in MAY_SHRINK:
            # A sibling's fill shrinks a stop; what replaces an order is shrunk by what that one has filled since.
            assert event.remaining <= remaining[event.order], event
            remaining[event.order] = event.remaining
        assert event.remaining == remaining[event.order] >= 0, event
    assert not any(fills.values()), "fills without an event"


def check_budgets(prints: Sequence[Print], settings: Settings, outcome: Outcome) -> None:
    """No print is spent twice, nor taken beyond its share."""
    spent: dict[int, Fraction] = defaultdict(Fraction)
    taken: dict[int, Fraction] = defaultdict(Fraction)
    for fill in outcome.fills:
        assert fill.qty > 0 and fill.price > 0, fill
        spent[fill.tick] += fill.qty
        if fill.liquidity == "TAKER":
            taken[fill.tick] += fill.qty
    for tick, qty in spent.items():
        volume = prints[tick - 1].volume
        assert qty <= volume, f"tick {tick}: {qty} filled by a print of {volume}"
        assert taken[tick] <= volume * settings.participation, f"tick {tick}: {taken[tick]} taken of {volume}"


def check_times(prints: Sequence[Print], settings: Settings, rows: dict[OrderId, OrderRow], outcome: Outcome) -> None:
    """Nothing happens to an order before it is active, before its trigger, at a late print, or at another symbol's."""
    late = late_ticks(prints)
    first: dict[tuple[OrderId, str], Event] = {}
    for event in outcome.events:
        first.setdefault((event.order, event.status), event)
        symbol = rows[event.order].symbol
        if event.n > 1 and event.reason != LIQUIDATED:
            assert prints[event.tick - 1].symbol == symbol and event.tick not in late, event
        submitted = first.get((event.order, "SUBMITTED"))
        if event.status == "ACKNOWLEDGED":
            assert submitted is not None and event.tick > submitted.tick, event
            if event.order in own_orders(outcome):
                assert event.ts >= submitted.ts + settings.latency_ms, event
        if event.status == "TRIGGERED":
            assert event.tick > first[event.order, "ACKNOWLEDGED"].tick, event
    for fill in outcome.fills:
        assert fill.tick >= first[fill.order, "ACKNOWLEDGED"].tick, fill
        row = rows[fill.order]
        if row.type in ("STOP", "STOP_LIMIT", "TRAILING_STOP"):
            assert fill.tick > first[fill.order, "TRIGGERED"].tick, fill
        if row.expire_ts is not None:
            assert milliseconds(prints[fill.tick - 1].ts) < row.expire_ts, fill


def check_prices(
    prints: Sequence[Print],
    known: dict[str, Instrument],
    settings: Settings,
    rows: dict[OrderId, OrderRow],
    outcome: Outcome,
) -> None:
    """No fill past its limit, nor outside the range of the symbol's prints, one tick and the slippage added."""
    by_tick: dict[int, list[Fill]] = defaultdict(list)
    for fill in outcome.fills:
        by_tick[fill.tick].append(fill)
    markets: dict[str, Market] = {}
    ranges: dict[str, tuple[Fraction, Fraction]] = {}
    slippage = settings.slippage_bps / 10_000
    for number, print_ in enumerate(prints, 1):
        symbol = print_.symbol
        market = markets.setdefault(symbol, Market(known[symbol]))
        if market.is_late(print_):
            continue
        market.event_time = milliseconds(print_.ts)
        market.learn(print_)
        low, high = ranges.get(symbol, (print_.price, print_.price))
        widest = market.tick
        ranges[symbol] = low, high = min(low, print_.price), max(high, print_.price)
        if known[symbol].tick_size is None:
            widest = high - low  # an inferred size shrinks as more is seen
        for fill in by_tick[number]:
            step = known[symbol].price_step(print_.price)
            assert fill.price <= (high + widest) * (1 + slippage) + step, (fill, high)
            assert fill.price >= (low - widest) * (1 - slippage) - step, (fill, low)
            limit = rows[fill.order].limit
            if limit is not None:
                assert fill.price <= limit if fill.side == "BUY" else fill.price >= limit, (fill, limit)


def check_order_of_events(outcome: Outcome) -> None:
    """Within a tick: due cancels, expiries, timeouts, activations, triggers, fills, what was asked for at its end."""
    tick, phase = 0, 0
    own = own_orders(outcome)
    for event in outcome.events:
        if event.tick != tick:
            assert event.tick > tick, event
            tick, phase = event.tick, 0
        possible = PHASES[event.reason]
        if event.n == 1 and event.order in own:
            possible = (8,)
        later = [place for place in possible if place >= phase]
        assert later, f"{event} after phase {phase}"
        phase = later[0]


def check_money(
    prints: Sequence[Print],
    known: dict[str, Instrument],
    settings: Settings,
    rows: dict[OrderId, OrderRow],
    outcome: Outcome,
) -> None:
    """Cash and positions are those of the fills, exactly; in spot neither is ever below nothing."""
    cash = settings.initial_balance
    positions: dict[str, Fraction] = defaultdict(Fraction)
    for fill in outcome.fills:
        symbol = rows[fill.order].symbol
        signed = fill.qty if fill.side == "BUY" else -fill.qty
        cash -= (signed * fill.price * known[symbol].contract_size + fill.fee) * (known[symbol].rate or 1)
        positions[symbol] += signed
        if not settings.allow_short:
            assert cash >= 0, f"{fill}: {float(cash)} of cash left"
            assert positions[symbol] >= 0, fill
    assert cash == outcome.cash
    assert {symbol: qty for symbol, qty in positions.items() if qty} == outcome.positions
    late = late_ticks(prints)
    marks = {print_.symbol: print_.price for number, print_ in enumerate(prints, 1) if number not in late}
    held = (qty * marks[symbol] * known[symbol].unit for symbol, qty in positions.items())
    assert outcome.equity == cash + sum(held, Fraction(0))


def own_orders(outcome: Outcome) -> set[OrderId]:
    """The orders that were asked for, without the exits of brackets and the closing orders of a liquidation."""
    return {row.order for row in outcome.orders} - outcome.made_by_venue


def late_ticks(prints: Sequence[Print]) -> set[int]:
    """The numbers of the prints that are older than one before them."""
    times: dict[str, int] = {}
    late = set()
    for number, print_ in enumerate(prints, 1):
        ts = milliseconds(print_.ts)
        if ts < times.get(print_.symbol, ts):
            late.add(number)
        times[print_.symbol] = max(ts, times.get(print_.symbol, ts))
    return late
