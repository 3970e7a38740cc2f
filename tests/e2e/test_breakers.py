"""Breakers in real processes: a replay trips at the same ticks however it runs; a restart forgets nothing."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.e2e.process import SESSION, Engine, rows, wait_for_ticks, wait_until
from tests.e2e.test_ops_commands import begun, status_of

# A signal at each tick, sold and bought in turn, so that fees make a drawdown; fifty ticks a second.
LIVE = """
[app]
db_path = "a.db"
[engine]
tick_interval_ms = 20
signal_every_n_ticks = 1
[strategy]
name = "periodic"
[persist]
flush_interval_ms = 50
[breakers]
max_drawdown_pct = 0.001
"""
SESSION_KEYS = """
[risk_caps]
max_exposure_usd = 1e6
max_symbol_exposure_usd = 1e6
[strategy]
desired_size = 0.01
"""
TABLES = {
    "signals": "event_id, symbol, kind, value, ts",
    "orders": "event_id, signal_id, side, qty, price, status, reason, refused_by, refused_value, refused_limit, ts",
    "trades": "event_id, order_id, side, fill_qty, fill_price, fees, ts",
    "notices": "kind, ts, detail, symbol, ticks_before",
}


def replayed(engine: Engine, db: str, *options: str) -> dict[str, list[tuple[Any, ...]]]:
    """What a replay of the recorded session stores, without the run part of ids."""
    config = engine.config("s.toml", SESSION_KEYS)
    engine.run(config, f"--db={db}", "--ingest=replay", f"--replay-file={SESSION}", *options).expect(0)
    path = engine.path(db)
    found = {name: rows(path, f"SELECT {columns} FROM {name} ORDER BY id") for name, columns in TABLES.items()}
    text = json.dumps(found)
    return {name: list(map(tuple, part)) for name, part in json.loads(re.sub(r"r[0-9a-f]{12}-", "run-", text)).items()}


def test_a_replay_stores_the_rows_of_shadow_until_a_breaker_trips(engine: Engine) -> None:
    """Breakers that never trip change only the run id; those that trip do so whatever the channel sizes are."""
    plain = replayed(engine, "plain.db")
    assert replayed(engine, "never.db", "--set=breakers.daily_loss_usd=1e12") == plain
    assert len(plain["orders"]) > 20
    limit = "--set=breakers.orders_per_minute=3"
    small = [
        "--set=channels.tick_channel_size=1",
        "--set=channels.persist_channel_size=7",
        "--set=persist.batch_size=3",
    ]
    tripped = replayed(engine, "trips.db", limit)
    assert replayed(engine, "small.db", limit, *small) == tripped
    refused = [order for order in tripped["orders"] if order[6] == "ORDERS_PER_MINUTE"]
    assert refused and all(
        order[5] == "REJECTED" and order[7:10] == ("breakers.orders_per_minute", 3, 3) for order in refused
    )
    kinds = [notice[0] for notice in tripped["notices"]]
    assert kinds == ["BREAKER_TRIPPED", "BREAKER_RELEASED"] * (len(kinds) // 2) + ["BREAKER_TRIPPED"] * (len(kinds) % 2)
    assert tripped["signals"] == plain["signals"], "a refused order does not change what the strategy decides"


def test_a_resumed_replay_is_that_of_one_go(engine: Engine) -> None:
    """Stopped after some ticks and resumed: the same rows, notices included."""
    limit = "--set=breakers.orders_per_minute=3"
    whole = replayed(engine, "whole.db", limit)
    config = engine.config("s.toml", SESSION_KEYS)
    options = [config, "--db=part.db", "--ingest=replay", f"--replay-file={SESSION}", limit]
    running = engine.start(*options, "--speed=200x", "--set=persist.batch_size=1")
    wait_for_ticks(engine.path("part.db"), 101)
    running.kill()
    assert replayed(engine, "part.db", limit, "--resume") == whole


def tripped_codes(engine: Engine) -> list[str]:
    return [trip["code"] for trip in status_of(engine)["breakers"]["tripped"]]


def test_what_has_tripped_outlives_a_kill_until_a_resume(engine: Engine) -> None:
    """MAX_DRAWDOWN is in the checkpoint, or computed again from what is stored; a resume releases it."""
    db, config = engine.path("a.db"), engine.config("c.toml", LIVE)
    running = begun(engine, config)
    refused = "SELECT count(*) FROM orders WHERE reason = 'MAX_DRAWDOWN' AND run = "
    wait_until(lambda: rows(db, refused + "1")[0][0], "a refused order")
    wait_until(lambda: tripped_codes(engine), "the breaker in the status")
    assert "ORDERS BLOCKED: MAX_DRAWDOWN" in engine.run("health", "--db=a.db").expect(0).stdout
    view = engine.run("status", "--db=a.db").expect(0).stdout
    assert re.search(r"^TRIPPED     .* UTC: MAX_DRAWDOWN: equity was .* below its peak", view, re.M)
    running.kill()

    again = begun(engine, config)
    wait_until(lambda: rows(db, refused + "2")[0][0], "a refused order of the next run")
    assert tripped_codes(engine) == ["MAX_DRAWDOWN"]
    assert rows(db, "SELECT count(*) FROM notices WHERE kind = 'BREAKER_TRIPPED'") == [(1,)]
    engine.run("resume", "--db=a.db").expect(0)
    released = "SELECT count(*) FROM notices WHERE run = 2 AND kind = 'BREAKER_RELEASED'"
    wait_until(lambda: rows(db, released)[0][0], "the release in the database")
    again.process.terminate()
    done = again.finish().expect(0)
    assert done.one("BREAKER_RELEASED")["detail"] == "MAX_DRAWDOWN released"
