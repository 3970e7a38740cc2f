"""What must be true of every history, whatever happened in it. Each check raises AssertionError with what is wrong."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Final

from sim.world import Outcome
from tradebot.config import Config
from tradebot.events import BP_DROP_SIGNAL, STALE_DATA, Order, Signal, Tick
from tradebot.execution.shadow import ShadowExecution
from tradebot.strategy import create
from tradebot.strategy.decider import Decider

_CHANNELS: Final = ("tick", "signal", "persist")


def check_outcome(outcome: Outcome, config: Config, push: bool) -> None:
    """The ledger balances and no channel went over its bound."""
    assert outcome.event("LEDGER")["balanced"], f"ledger does not balance: {outcome.event('LEDGER')}"
    metrics = outcome.event("FINAL METRICS")
    for name, size in zip(_CHANNELS, config.channels.sizes(push), strict=True):
        high = metrics[f"{name}_high_water"]
        assert high <= size, f"channel {name} held {high} events, its bound is {size}"


def check_accepted_stored(outcome: Outcome) -> None:
    """Everything accepted is stored."""
    ledger = outcome.event("LEDGER")
    assert ledger["not_stored"] == 0, f"accepted but not stored: {ledger}"


def check_database(path: Path) -> None:
    """The file is sound and nothing in it is without its cause."""
    db = sqlite3.connect(path)
    try:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        lost_orders = db.execute(
            "SELECT event_id FROM orders WHERE signal_id NOT IN (SELECT event_id FROM signals)"
        ).fetchall()
        assert not lost_orders, f"orders without their signal: {lost_orders[:3]}"
        lost_trades = db.execute(
            "SELECT event_id FROM trades WHERE order_id NOT IN (SELECT event_id FROM orders WHERE status = 'FILLED')"
        ).fetchall()
        assert not lost_trades, f"trades without their order: {lost_trades[:3]}"
        unfilled = db.execute(
            "SELECT event_id FROM orders WHERE status = 'FILLED' AND event_id NOT IN (SELECT order_id FROM trades)"
        ).fetchall()
        assert not unfilled, f"filled orders without their trade: {unfilled[:3]}"
        for table in ("ticks", "signals", "orders", "trades"):
            counted = db.execute(f"SELECT COALESCE(SUM({table}), 0) FROM runs").fetchone()[0]
            rows = db.execute(f"SELECT COUNT(*) FROM {table} WHERE run IS NOT NULL").fetchone()[0]
            assert counted == rows, f"runs.{table} say {counted}, there are {rows} rows"
    finally:
        db.close()


def reference(
    config: Config, run_id: str, ticks: list[Tick], dropped: frozenset[str], stale: frozenset[str]
) -> tuple[list[Signal], list[Order]]:
    """Signals and orders that a straight single-threaded computation gives for `ticks`, one at a time.

    `dropped` and `stale` are ids of signals that the run recorded as refused for a reason that depends on timing.
    """
    decider = Decider(
        create(config.strategy.name, config), run_id, config.strategy.desired_size, config.strategy.confidence
    )
    execution = ShadowExecution(config.risk_caps, config.execution.fee_rate, config.execution.max_tick_age_ms)
    signals: list[Signal] = []
    orders: list[Order] = []
    for tick in ticks:
        for signal in decider.decide([tick]):
            signals.append(signal)
            if signal.event_id in dropped:
                decider.return_marks([signal])
            else:
                late_ms = 10**15 if signal.event_id in stale else None
                orders.append(execution.execute(signal, late_ms))
    return signals, orders


def check_run(path: Path, config: Config, run_id: str, whole: bool) -> None:
    """One run's rows are what the reference computes from its stored ticks; not `whole` (a kill): a prefix of that."""
    db = sqlite3.connect(path)
    try:
        found = db.execute("SELECT id FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        if found is None:
            return
        run = found[0]
        ticks = [
            Tick(*row)
            for row in db.execute(
                "SELECT symbol, price, volume, ts, event_id, seq FROM ticks WHERE run = ? ORDER BY id", (run,)
            )
        ]
        signals = _rows(db, "SELECT event_id, symbol, kind, value, ts, price FROM signals", run)
        orders = _rows(db, "SELECT event_id, signal_id, symbol, side, qty, price, status, reason, ts FROM orders", run)
        trades = _rows(db, "SELECT event_id, order_id, symbol, side, fill_qty, fill_price, fees, ts FROM trades", run)
    finally:
        db.close()
    refused = {
        reason: frozenset(row[1] for row in orders if row[7] == reason) for reason in (BP_DROP_SIGNAL, STALE_DATA)
    }
    want_signals, want_orders = reference(config, run_id, ticks, refused[BP_DROP_SIGNAL], refused[STALE_DATA])
    _compare(
        "signals",
        signals,
        [(s.event_id, s.symbol, f"{s.side}:{s.reason}", s.confidence, s.ts, s.price) for s in want_signals],
        whole,
    )
    executed = [row for row in orders if row[7] != BP_DROP_SIGNAL]
    _compare(
        "orders",
        executed,
        [(o.event_id, o.signal_id, o.symbol, o.side, o.qty, o.price, o.status, o.reason, o.ts) for o in want_orders],
        whole,
    )
    fills = [fill for order in want_orders for fill in order.fills]
    _compare(
        "trades",
        trades,
        [(f.event_id, f.order_id, f.symbol, f.side, f.fill_qty, f.fill_price, f.fees, f.ts) for f in fills],
        whole,
    )


def _rows(db: sqlite3.Connection, query: str, run: int) -> list[tuple[Any, ...]]:
    return db.execute(f"{query} WHERE run = ? ORDER BY id", (run,)).fetchall()


def _compare(what: str, stored: list[tuple[Any, ...]], wanted: list[tuple[Any, ...]], whole: bool) -> None:
    if not whole:
        wanted = wanted[: len(stored)]
    for index, (one, other) in enumerate(zip(stored, wanted, strict=False)):
        assert one == other, f"{what}[{index}]: stored {one}, the reference has {other}"
    assert len(stored) == len(wanted), f"{what}: stored {len(stored)}, the reference has {len(wanted)}"
