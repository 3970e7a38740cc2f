"""Symbols that are priced in other currencies, under caps in dollars: rates that move with prints, over restarts."""

from __future__ import annotations

import sqlite3

from mockws_server.actions import Action, OneTick, Wait
from sim.checks.caps import check_caps
from sim.scenarios.common import check_all, expect, scenario
from sim.scenarios.live import exchange_of, live_settings
from sim.world.world import Faults, World
from tradebot.config.money import RateSymbol

_RATE, _PRICED = "BTC/USD", "ETH/BTC"


@scenario
def rates_from_prints(world: World) -> None:
    """The last print of BTC/USD is what ETH/BTC costs in dollars, also in the run after a restart (I2, S8)."""
    settings = live_settings(
        world,
        rates__BTC=RateSymbol(_RATE),
        engine__run_seconds=8.0,
        engine__signal_every_n_ticks=world.between(1, 3),
        risk_caps__max_exposure_usd=float(world.between(1000, 3000)),
        risk_caps__max_symbol_exposure_usd=1000.0,
        feed__max_price_jump=100.0,
    )
    seq = dict.fromkeys((_RATE, _PRICED), 0)
    for run in range(2):
        steps: list[Action] = [Wait(1.0)]
        for n in range(world.between(20, 60)):
            # The first ticks after the restart find the rate of the run before.
            symbol = _PRICED if (run and n < 3) or world.chance(0.6) else _RATE
            price = float(world.between(100, 900)) if symbol == _RATE else float(world.between(1, 3)) / 2
            seq[symbol] += 1
            tick = {"symbol": symbol, "price": price, "volume": 1.0, "ts": n, "seq": seq[symbol]}
            steps += [OneTick(tick), Wait(0.05)]
        exchange = exchange_of(world, *steps, Wait(10.0))
        outcome = world.run(settings, Faults(network=exchange.online))
        expect(outcome, 0)
        check_all(world, settings, outcome, push=True)
    orders = world.dump()["orders"]
    with_rate = [row for row in orders if row[1] == _PRICED and row[9] != "NO_RATE"]
    assert with_rate, "no order of a symbol with a rate"
    db = sqlite3.connect(world.db_path)
    try:
        runs = [no for (no,) in db.execute("SELECT id FROM runs ORDER BY id")]
        (late,) = db.execute("SELECT COUNT(*) FROM orders WHERE run = ? AND reason = 'NO_RATE'", runs[1:]).fetchone()
        assert not late, f"{late} orders were refused after the restart as if no rate were known"
        check_caps(db, runs, settings.config.risk_caps, rates={_PRICED: _RATE})
    finally:
        db.close()
