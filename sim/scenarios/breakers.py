"""Breakers in SHADOW across kills and restarts: what has tripped refuses what adds exposure until it is released."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from fractions import Fraction
from typing import Any, Final

from sim.checks.checkers import check_database
from sim.scenarios.common import scenario, synthetic_settings
from sim.scenarios.halts import Operator
from sim.world.world import Faults, World

_CODE: Final = "MAX_DRAWDOWN"


def _check_refused_while_tripped(world: World) -> None:
    """Across all runs, in the order of ticks: a filled order never adds exposure between a trip and its release."""
    with closing(sqlite3.connect(world.db_path)) as db:
        events: list[tuple[int, int, int, str, Any]] = []
        # No other breaker is configured.
        query = "SELECT run, ticks_before, kind FROM notices WHERE kind LIKE 'BREAKER_%' ORDER BY id"
        events += [(run, number, 0, kind, None) for run, number, kind in db.execute(query)]
        query = "SELECT run, event_id, side, qty, status, reason FROM orders ORDER BY id"
        for run, event_id, side, qty, status, reason in db.execute(query):
            signed = Fraction(repr(qty)) * (1 if side == "BUY" else -1)
            events.append((run, int(event_id.split("-")[1]), 1, "ORDER", (signed, status, reason)))
    net, tripped = Fraction(0), False
    for run, number, _rank, kind, order in sorted(events, key=lambda event: event[:3]):
        where = f"run {run}, tick {number}"
        if kind == "ORDER":
            signed, status, reason = order
            adds = abs(net + signed) >= abs(net)
            refused = status == "REJECTED"
            assert refused == (tripped and adds), f"{where}: {reason} while tripped is {tripped}, adding is {adds}"
            assert not refused or reason == _CODE, f"{where}: refused for {reason}"
            net += 0 if refused else signed
        else:
            assert tripped == (kind == "BREAKER_RELEASED"), f"{where}: {kind}, although tripped is {tripped}"
            tripped = kind == "BREAKER_TRIPPED"


@scenario
def breakers_across_kills(world: World) -> None:
    """A drawdown by fees trips; kills, restarts and resumes while engines run and between them."""
    operator = Operator(world)
    settings = synthetic_settings(
        world,
        engine__run_seconds=float(world.between(4, 10)),
        persist__flush_interval_ms=world.between(100, 1000),
        breakers__max_drawdown_pct=world.between(2, 20) / 1000,
    )
    for _ in range(4):
        if world.chance(0.3):
            operator.give(False)
        kill_s = world.between(5, 100) / 10 if world.chance(0.7) else None
        faults = Faults(kill_at_s=kill_s, checkpoint_ticks=world.between(5, 60))
        outcome = world.run(settings, faults)
        assert outcome.exit_code in (0, None), outcome.error
        if world.db_path.exists():
            check_database(world.db_path)
            _check_refused_while_tripped(world)
