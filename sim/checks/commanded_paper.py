"""The program's PAPER on the inputs of the second calculation, and what it answers in the same form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Context, Decimal, Inexact
from fractions import Fraction
from random import Random
from typing import Any

from msgspec import convert

from sim.checks.rows import compare as compare_rows
from sim.paper_reference.calculation import NO_GAPS, calculate
from sim.paper_reference.invariants import check
from sim.paper_reference.values import (
    Amend,
    Cancel,
    Command,
    Event,
    Fill,
    Instrument,
    OrderId,
    OrderRow,
    Outcome,
    Print,
    Request,
    Settings,
)
from tradebot.config.model import BreakersConfig, ExecutionConfig, RiskCaps, StrategyConfig
from tradebot.config.money import AccountConfig, InstrumentConfig
from tradebot.config.paper import PaperConfig
from tradebot.core.events import BUY, LIQUIDATED, SELL, Notice, Order, Side, Tick, TickOutcome
from tradebot.execution import orders
from tradebot.execution.breakers import Breakers
from tradebot.execution.order_entry import PaperSettings
from tradebot.execution.orders import OrderRequest
from tradebot.execution.paper import PaperExecution
from tradebot.portfolio.money import money_of
from tradebot.strategy.base import Decision

RUN_ID = "r"
NO_CAP = 1e15
ZERO = Fraction(0)
ORDER_ID = re.compile(rf"{RUN_ID}-(\d+)-O(\d*)")
_EXACT = Context(prec=200, traps=[Inexact])


def compare(
    prints: Sequence[Print],
    commands: Mapping[int, Sequence[Command]],
    settings: Settings,
    instruments: Sequence[Instrument],
    gaps: Mapping[int, str | None] = NO_GAPS,
    cut: int = 0,
) -> Outcome:
    """The outcome, when both calculations agree on it and the rules for all outcomes hold."""
    right = calculate(prints, commands, settings, instruments, gaps)
    found = run_program(prints, commands, settings, instruments, gaps, cut)
    assert_same(found, right)
    check(prints, instruments, settings, found)
    return found


def assert_same(found: Outcome, right: Outcome) -> None:
    """Every order, transition, fill and amount is that of the second calculation. Raises AssertionError."""
    for what, name in (("orders", "orders"), ("order_events", "events"), ("trades", "fills")):
        rows, wanted = ([plain(row) for row in getattr(outcome, name)] for outcome in (found, right))
        compare_rows(what, rows, wanted)
    for what in ("cash", "positions", "equity"):
        mine, other = getattr(found, what), getattr(right, what)
        assert mine == other, f"account: {what} {mine}, the reference has {other}"


def plain(row: Any) -> tuple[Any, ...]:
    """The row with amounts as doubles, and slippage to a billionth: a quotient, which both round at the end."""
    values = {name: float(value) if isinstance(value, Fraction) else value for name, value in vars(row).items()}
    if "slippage_bps" in values:
        values["slippage_bps"] = round(values["slippage_bps"], 9)
    return tuple(values.values())


def run_program(
    prints: Sequence[Print],
    commands: Mapping[int, Sequence[Command]],
    settings: Settings,
    instruments: Sequence[Instrument],
    gaps: Mapping[int, str | None] = NO_GAPS,
    cut: int = 0,
) -> Outcome:
    """What `calculate` answers, from the program.

    `cut` is the seed of how the prints are cut into calls; with an odd one, now and then another PAPER continues from
    the state of the one before.
    """
    paper, random = new_paper(settings, instruments), Random(cut)
    outcome = Outcome()
    names: dict[int, str] = {}
    for begin, end in calls(prints, commands, gaps, random):
        number = begin + 1
        if cut % 2 and random.random() < 0.1:
            state = paper.state()
            paper = new_paper(settings, instruments)
            paper.restore(state)
        if number in gaps:
            symbol = gaps[number]
            paper.on_notice(Notice("LINK_LOST" if symbol is None else "GAP", 0, "", symbol, ticks_before=begin))
        ticks = [tick(print_) for print_ in prints[begin:end]]
        if number not in commands:
            for found in paper.on_ticks(ticks[0].symbol, ticks, number, []):
                take_in(found, outcome)
            continue
        caused = paper.on_tick(ticks[0], number, [translated(command, names) for command in commands[number]])
        if caused is not None:
            take_in(caused, outcome)
            given = [command for command in commands[number] if not isinstance(command, Cancel)]
            own = [order.event_id for order in caused.orders if not is_made_by_venue(order, caused)]
            for command, name in zip(given, own, strict=True):
                names[command.new_name if isinstance(command, Amend) else command.name] = name
    conclude(paper, outcome, instruments)
    return outcome


def run_decisions(
    prints: Sequence[Print],
    decisions: Mapping[int, Sequence[str]],
    settings: Settings,
    instruments: Sequence[Instrument],
    orders_of: ExecutionConfig,
    size: float,
    cut: int,
) -> Outcome:
    """What becomes of decisions (sides, by tick) with the configured kind of order, whole runs of a symbol at once."""
    paper = new_paper(settings, instruments, orders_of, size)
    outcome = Outcome()
    for begin, end in calls(prints, {}, NO_GAPS, Random(cut)):
        ticks = [tick(print_) for print_ in prints[begin:end]]
        taken = [
            Decision(number - begin - 1, as_side(side), "T")
            for number in range(begin + 1, end + 1)
            for side in decisions.get(number, ())
        ]
        for found in paper.on_ticks(ticks[0].symbol, ticks, begin + 1, taken):
            take_in(found, outcome)
    conclude(paper, outcome, instruments)
    return outcome


def new_paper(
    settings: Settings, instruments: Sequence[Instrument], orders_of: ExecutionConfig | None = None, size: float = 1.0
) -> PaperExecution:
    """The program's PAPER with these assumptions."""
    return PaperExecution(
        RUN_ID,
        PaperSettings(StrategyConfig(desired_size=size), orders_of or ExecutionConfig(), venue_settings(settings)),
        money_of(
            instruments={one.symbol: instrument_config(one) for one in instruments},
            rates={one.quote: float(one.rate) for one in instruments if one.rate is not None and one.rate != 1},
        ),
        AccountConfig(float(settings.initial_balance), settings.allow_short, float(settings.max_leverage)),
        caps(settings),
        Breakers(BreakersConfig()),
    )


def conclude(paper: PaperExecution, outcome: Outcome, instruments: Sequence[Instrument]) -> None:
    """Add what the account came to."""
    worth = {one.quote: one.rate or Fraction(1) for one in instruments}
    cash = paper.account.cash().items()
    outcome.cash = sum((fraction(amount) * worth.get(currency or "", Fraction(1)) for currency, amount in cash), ZERO)
    positions = {state.symbol: fraction(state.net) for state in paper.positions.states()}
    outcome.positions = {symbol: net for symbol, net in positions.items() if net}
    outcome.equity = fraction(paper.account.equity())


def calls(
    prints: Sequence[Print], commands: Mapping[int, Sequence[Command]], gaps: Mapping[int, str | None], random: Random
) -> Iterable[tuple[int, int]]:
    """Prints that are handed over together: of one symbol, without gap or command, cut at random places, too."""
    begin = 0
    for place in range(1, len(prints) + 1):
        whole = place < len(prints) and prints[place].symbol == prints[begin].symbol
        alone = {begin + 1, place + 1} & commands.keys() or place + 1 in gaps
        if not whole or alone or random.random() < 0.05:
            yield begin, place
            begin = place


def translated(command: Command, names: Mapping[int, str]) -> orders.Command:
    """The command in the program's own terms."""
    if isinstance(command, Cancel):
        return orders.Cancel(names[command.name])
    if isinstance(command, Amend):
        return orders.Amend(names[command.name], asked(command.request), "T")
    return orders.Submit(asked(command.request), "T")


def take_in(found: TickOutcome, outcome: Outcome) -> None:
    """Add the rows of one tick."""
    for order in found.orders:
        outcome.orders.append(order_row(order))
        if is_made_by_venue(order, found):
            outcome.made_by_venue.add(order_id(order.event_id))
    for event in found.order_events:
        id_, remaining = order_id(event.order_id), fraction(event.remaining)
        outcome.events.append(Event(id_, event.n, event.status, event.reason, event.ts, event.tick, remaining))
    for number, fill in enumerate(found.fills, 1):
        assert fill.tick == found.number and fill.liquidity is not None and fill.slippage_bps is not None
        outcome.fills.append(
            Fill(
                found.number, number, order_id(fill.order_id), fill.side, fraction(fill.fill_qty),
                fraction(fill.fill_price), fraction(fill.fees), fill.liquidity, fraction(fill.slippage_bps),
                bool(fill.after_gap),
            )
        )  # fmt: skip


def is_made_by_venue(order: Order, cause: TickOutcome) -> bool:
    """An exit of a bracket, or an order that closes a position of a liquidated account."""
    signal = next((signal for signal in cause.signals if signal.event_id == order.signal_id), None)
    return signal is None or signal.reason == LIQUIDATED


def order_row(order: Order) -> OrderRow:
    """The row of an order."""
    assert order.order_type is not None and order.time_in_force is not None
    return OrderRow(
        order_id(order.event_id), order.symbol, order.side, fraction(order.qty), order.order_type,
        None if order.limit_price is None else fraction(order.limit_price),
        None if order.stop_price is None else fraction(order.stop_price),
        order.time_in_force, order.expire_ts, bool(order.post_only), bool(order.reduce_only),
        None if order.parent_id is None else order_id(order.parent_id), order.status, order.reason,
    )  # fmt: skip


def asked(request: Request) -> OrderRequest:
    """The request in the program's own terms."""
    return convert({name: as_plain(value) for name, value in vars(request).items()}, OrderRequest)


def as_plain(value: Any) -> Any:
    """Fractions as decimals, everything else as it is."""
    return decimal(value) if isinstance(value, Fraction) else value


def as_side(text: str) -> Side:
    """BUY or SELL as the program types it."""
    return BUY if text == "BUY" else SELL


def tick(print_: Print) -> Tick:
    """The print as a tick."""
    taker = None if print_.taker is None else as_side(print_.taker)
    return Tick(print_.symbol, float(print_.price), float(print_.volume), print_.ts, taker=taker)


def venue_settings(settings: Settings) -> PaperConfig:
    """The assumptions that are the venue's."""
    return convert(
        {
            "latency_ms": settings.latency_ms,
            "cancel_latency_ms": settings.cancel_latency_ms,
            "participation": float(settings.participation),
            "slippage_bps": float(settings.slippage_bps),
            "queue": settings.queue,
            "market_timeout_ms": settings.market_timeout_ms,
            "on_gap": settings.on_gap,
        },
        PaperConfig,
    )


def caps(settings: Settings) -> RiskCaps:
    """The caps; those that are not set are out of reach."""
    exposure, symbol, orders = settings.max_exposure, settings.max_symbol_exposure, settings.max_open_orders
    return RiskCaps(
        NO_CAP if exposure is None else float(exposure),
        NO_CAP if symbol is None else float(symbol),
        10**6 if orders is None else orders,
    )


def instrument_config(one: Instrument) -> InstrumentConfig:
    """What is known of the symbol, as a configuration says it."""
    steps = {
        name: None if value is None else float(value)
        for name, value in vars(one).items()
        if name in ("tick_size", "lot_size", "min_qty", "min_notional", "maker_fee", "taker_fee", "contract_size")
    }
    return convert({"quote": one.quote, **steps}, InstrumentConfig)


def decimal(amount: Fraction) -> Decimal:
    """Exact: all amounts here have an end."""
    return _EXACT.divide(Decimal(amount.numerator), Decimal(amount.denominator))


def fraction(amount: float | Decimal) -> Fraction:
    """The value that a double stands for: its shortest decimal."""
    return Fraction(repr(amount) if isinstance(amount, float) else amount)


def order_id(text: str) -> OrderId:
    """The id without the run."""
    found = ORDER_ID.fullmatch(text)
    assert found is not None, text
    return int(found[1]), int(found[2] or 1)
