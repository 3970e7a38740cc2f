"""What a chain of PAPER runs must have stored, calculated again from its ticks, notices and settings with fractions.

The calculation is `sim.paper_reference`, which shares nothing with the program; decisions come from one strategy object
that is never restarted. So a run after a restart must continue as one that was never killed, from the ticks it has.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, NamedTuple

from sim.checks.rows import compare
from sim.paper_reference.calculation import Calculation
from sim.paper_reference.market import Market
from sim.paper_reference.orders import Order
from sim.paper_reference.values import Instrument, OrderId, Print, Request, Settings, Submit
from tradebot.config.model import Config
from tradebot.core.events import LIQUIDATED, Tick, origin_of
from tradebot.portfolio.account import Account
from tradebot.strategy.registry import create

_CHAIN: Final = (
    "SELECT earlier.id, earlier.run_id FROM runs AS earlier, runs AS this WHERE this.id = ? AND earlier.id <= this.id"
    " AND earlier.feed = this.feed ORDER BY earlier.id"
)
_COUNTED_AS_DOLLARS: Final = frozenset({"USD", "USDT", "USDC"})
_TICKS: Final = "SELECT symbol, price, volume, ts, event_id, seq, taker FROM ticks WHERE run = ? ORDER BY id"
_ORDERS: Final = (
    "SELECT event_id, signal_id, symbol, side, qty, price, status, reason, ts, is_shadow, order_type, limit_price,"
    " stop_price, time_in_force, expire_ts, post_only, reduce_only, parent_id FROM orders WHERE run = ? ORDER BY id"
)
_EVENTS: Final = "SELECT order_id, n, status, reason, ts, tick, remaining FROM order_events WHERE run = ? ORDER BY id"
_FILLS: Final = (
    "SELECT event_id, order_id, symbol, side, fill_qty, fill_price, fees, ts, is_shadow, liquidity, tick,"
    " slippage_bps, after_gap FROM trades WHERE run = ? ORDER BY id"
)

Row = tuple[Any, ...]


class _Run(NamedTuple):
    """A run of the chain: its row id, its name, and how many ticks of the chain come before it."""

    id: int
    run_id: str
    before: int


class PaperModel(Calculation):
    """The calculation with signals and halts."""

    def __init__(self, settings: Settings, instruments: Iterable[Instrument]) -> None:
        super().__init__(settings, instruments)
        self.halted = False
        self.sent: dict[OrderId, tuple[Order, str]] = {}
        """By id: each order and the reason of its signal, which has the same numbers."""
        self.reason = ""
        """Of the decision that is carried out."""

    def pass_on(self, order: Order, status: str, reason: str = "") -> None:
        """As without signals; an order without a command closes a position of a liquidated account."""
        if order.id not in self.sent:
            self.sent[order.id] = order, LIQUIDATED if order.id in self.made_by_venue else self.reason
        super().pass_on(order, status, reason)

    def refusal(self, order: Order, market: Market, instead_of: Order | None) -> str:
        """A halt refuses before rates, caps and balance; what lowers the exposure passes it."""
        found = super().refusal(order, market, instead_of)
        if not self.halted or found not in ("", "NO_RATE", "RISK_CAP", "NO_BALANCE"):
            return found
        return found if self.lowers(order, [other for other in self.living if other.open]) else "HALTED"


def check_paper_run(path: Path, config: Config, run_id: str, account: Account | None = None) -> None:
    """The rows of a run are exactly those that its stored ticks cause: whole ticks, also where it was killed.

    `account` is the engine's own at the end, after no other ticks than the stored ones.
    """
    db = sqlite3.connect(path)
    try:
        found = db.execute("SELECT id FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        if found is None:
            return
        # A replay has no feed, nor has a run that ended before it knew where to continue.
        chain = db.execute(_CHAIN, found).fetchall() or [(*found, run_id)]
        _check(db, config, chain, account)
    finally:
        db.close()


def _check(db: sqlite3.Connection, config: Config, chain: Sequence[tuple[int, str]], account: Account | None) -> None:
    settings = settings_of(config)
    symbols = sorted({symbol for no, _ in chain for (symbol,) in db.execute(_SYMBOLS, (no,))})
    model = PaperModel(settings, [instrument_of(config, symbol) for symbol in symbols])
    strategy = create(config.strategy.name, config)
    runs: list[_Run] = []
    stored: list[Tick] = []
    for no, name in chain:
        runs.append(_Run(no, name, len(stored)))
        notices = _inputs(db, no)
        ticks = [Tick(*row) for row in db.execute(_TICKS, (no,))]
        for number, tick in enumerate(ticks, 1):
            for kind, symbol in notices.pop(number - 1, ()):
                _on_notice(model, kind, symbol)
            stored.append(tick)
            commands = []
            for decision in strategy.on_ticks(tick.symbol, [tick]):
                model.reason = decision.reason
                commands.append(Submit(len(stored), _request(config, tick, decision.side)))
            model.at_print(len(stored), print_of(tick), commands)
        for kind, symbol in [each for place in sorted(notices) for each in notices[place]]:
            _on_notice(model, kind, symbol)
    _compare_rows(db, config, model, runs, stored)
    _check_orders_now(db, model, runs)
    if account is not None:
        check_account(account, model)


_SYMBOLS: Final = "SELECT DISTINCT symbol FROM ticks WHERE run = ?"


def _inputs(db: sqlite3.Connection, run: int) -> dict[int, list[tuple[str, str | None]]]:
    """What came from outside, by the number of ticks before it."""
    found: dict[int, list[tuple[str, str | None]]] = {}
    query = "SELECT ticks_before, kind, symbol FROM notices WHERE run = ? ORDER BY id"
    for before, kind, symbol in db.execute(query, (run,)):
        if origin_of(kind) == "INPUT":
            found.setdefault(before, []).append((kind, symbol))
    return found


def _on_notice(model: PaperModel, kind: str, symbol: str | None) -> None:
    if kind == "GAP":
        model.at_gap(symbol)
    elif kind in ("LINK_LOST", "RESTART"):
        model.at_gap(None)
        model.halted = model.halted and kind == "LINK_LOST"  # a start while halted has a HALT of its own
    elif kind in ("HALT", "RESUME"):
        model.halted = kind == "HALT"


def _compare_rows(
    db: sqlite3.Connection, config: Config, model: PaperModel, runs: Sequence[_Run], stored: Sequence[Tick]
) -> None:
    """The rows of the last run against what the model has from its first tick on."""
    run = runs[-1]

    def name(number: int, n: int, letter: str) -> str:
        of_tick = next(each for each in reversed(runs) if each.before < number)
        return f"{of_tick.run_id}-{number - of_tick.before:010d}-{letter}{n if n > 1 else ''}"

    def order_name(order_id: OrderId) -> str:
        return name(*order_id, "O")

    since = run.before
    signals = [
        (
            name(*order.id, "S"), order.request.symbol, f"{order.side}:{reason}",
            1.0 if reason == LIQUIDATED else config.strategy.confidence, stored[order.id[0] - 1].ts,
            float(order.signal_price),
        )
        for order, reason in model.sent.values() if order.id[0] > since
    ]  # fmt: skip
    query = "SELECT event_id, symbol, kind, value, ts, price FROM signals WHERE run = ? ORDER BY id"
    compare("signals", db.execute(query, (run.id,)).fetchall(), signals)
    times = {(event.order, event.n): event.ts for event in model.events}
    orders: list[Row] = []
    for row in model.rows:
        if row.order[0] <= since:
            continue
        limit, stop = (None if price is None else float(price) for price in (row.limit, row.stop))
        orders.append(
            (
                order_name(row.order), name(*row.order, "S"), row.symbol, row.side, float(row.qty), limit,
                row.status, row.reason, times[row.order, 1], 1, row.type, limit, stop, row.time_in_force,
                row.expire_ts, int(row.post_only), int(row.reduce_only),
                None if row.parent is None else order_name(row.parent),
            )
        )  # fmt: skip
    compare("orders", db.execute(_ORDERS, (run.id,)).fetchall(), orders)
    events = [
        (
            order_name(event.order), event.n, event.status, event.reason, event.ts, event.tick - since,
            float(event.remaining),
        )
        for event in model.events if event.tick > since
    ]  # fmt: skip
    compare("order_events", db.execute(_EVENTS, (run.id,)).fetchall(), events)
    at = {event.tick: event.ts for event in model.events}
    fills = [
        (
            name(fill.tick, fill.number, "T"), order_name(fill.order), model.sent[fill.order][0].request.symbol,
            fill.side, float(fill.qty), float(fill.price), float(fill.fee), at[fill.tick], 1, fill.liquidity,
            fill.tick - since, round(float(fill.slippage_bps), 9), int(fill.after_gap),
        )
        for fill in model.fills if fill.tick > since
    ]  # fmt: skip
    found = [(*row[:11], round(row[11], 9), row[12]) for row in db.execute(_FILLS, (run.id,))]
    compare("trades", found, fills)


def _check_orders_now(db: sqlite3.Connection, model: PaperModel, runs: Sequence[_Run]) -> None:
    """The view shows each order as the last run of the chain has left it, if no later run continues it."""
    run = runs[-1]
    later = db.execute("SELECT 1 FROM runs AS a, runs AS b WHERE a.id = ? AND b.feed = a.feed AND b.id > a.id", run[:1])
    if later.fetchone() is not None:
        return
    wanted = sorted((order.status, float(order.remaining)) for order, _reason in model.sent.values())
    places = ", ".join("?" * len(runs))
    query = f"SELECT status, remaining FROM orders_now WHERE run IN ({places})"
    found = sorted(db.execute(query, [each.id for each in runs]).fetchall())
    compare("orders_now", found, wanted)


def check_account(account: Account, model: PaperModel) -> None:
    """Cash, what is free, and the quantities held are those of the model, exactly."""
    cash = sum((Fraction(amount) for amount in account.cash().values()), Fraction(0))
    assert cash == model.account.cash, f"account: cash {float(cash)}, the reference has {float(model.account.cash)}"
    held = {state.symbol: Fraction(state.net) for state in account.positions.states() if state.net}
    wanted = {symbol: qty for symbol, qty in model.account.positions.items() if qty}
    assert held == wanted, f"account: positions {held}, the reference has {wanted}"
    free, expected = Fraction(account.free()), model.account.free(model.living)
    assert free == expected, f"account: {float(free)} are free, the reference has {float(expected)}"


def settings_of(config: Config) -> Settings:
    """The assumptions of a configuration."""
    paper, account, caps = config.paper, config.account, config.risk_caps
    return Settings(
        paper.latency_ms,
        paper.cancel_latency_ms,
        exact(paper.participation),
        exact(paper.slippage_bps),
        paper.queue,
        paper.market_timeout_ms,
        paper.on_gap,
        exact(account.initial_balance),
        account.allow_short,
        exact(account.max_leverage),
        exact(caps.max_exposure_usd),
        exact(caps.max_symbol_exposure_usd),
        caps.max_open_orders,
    )


def instrument_of(config: Config, symbol: str) -> Instrument:
    """What the configuration and the form of the symbol, BASE/QUOTE, say of it."""
    given = config.instruments.get(symbol)
    fee, quote = exact(config.execution.fee_rate), symbol.rpartition("/")[2]
    rate = config.rates.get(quote, 1.0 if quote in _COUNTED_AS_DOLLARS else None)
    assert rate is None or isinstance(rate, float), f"the reference has no rates that move with prints: {rate}"
    values: dict[str, Any] = {"maker_fee": fee, "taker_fee": fee, "quote": quote}
    values["rate"] = None if rate is None else exact(rate)
    names = ("tick_size", "lot_size", "min_qty", "min_notional", "maker_fee", "taker_fee")
    for key in names if given is not None else ():
        value = getattr(given, key)
        if value is not None:
            values[key] = exact(value)
    return Instrument(symbol, **values)


def print_of(tick: Tick) -> Print:
    """The tick with exact amounts."""
    return Print(tick.symbol, exact(tick.price), exact(tick.volume), tick.ts, tick.taker)


def _request(config: Config, tick: Tick, side: str) -> Request:
    """The order that the configuration makes of a decision."""
    execution, size, price = config.execution, exact(config.strategy.desired_size), exact(tick.price)
    if execution.order_type == "market":
        return Request(tick.symbol, side, size)
    share = exact(execution.limit_offset_bps) / 10_000
    limit = price * (1 - share if side == "BUY" else 1 + share)
    return Request(tick.symbol, side, size, "LIMIT", limit, post_only=execution.post_only)


def exact(value: float) -> Fraction:
    """The exact value of the shortest decimal representation."""
    return Fraction(repr(float(value)))
