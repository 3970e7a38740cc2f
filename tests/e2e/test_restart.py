"""Two engines on one database, and an engine that comes back."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from tests.e2e.process import (
    CROSSOVER,
    REPO,
    SESSION,
    SESSION_CONFIG,
    Engine,
    assert_sound,
    counts,
    dump,
    rows,
    synthetic_units,
    ticks_stored,
    wait_until,
)

FAST = "[engine]\ntick_interval_ms = 2\nsignal_every_n_ticks = 10\n[persist]\nflush_interval_ms = 20\n"


def test_a_second_engine_on_the_same_database_is_refused(engine: Engine) -> None:
    """Contract 7: 12 naming the process; the first one does not notice. bin/tradebot's process is the engine."""
    db = engine.path("x.db")
    first = engine.start(
        engine.config("fast.toml", FAST), "--db=x.db", command=[REPO / "bin" / "tradebot"],
        env={"TRADEBOT_PYTHON": sys.executable},
    )  # fmt: skip
    wait_until(lambda: ticks_stored(db) > 20, "20 ticks")
    engine.path("link.db").symlink_to("x.db")
    for args in (
        ("--seconds=1", "--db=x.db"),
        ("--ingest=replay", f"--replay-file={CROSSOVER}", "--db=x.db"),
        ("--seconds=1", "--db=link.db"),
    ):
        second = engine.run(*args).expect(12)
        assert f"process {first.pid}" in second.complaint
        assert "another engine" in second.complaint
    seen = ticks_stored(db)
    wait_until(lambda: ticks_stored(db) > seen, "more ticks")
    first.send(signal.SIGTERM)
    assert first.finish(10).expect(0).ledger["not_stored"] == 0
    # Gone, and so is its claim.
    engine.run("--ingest=replay", f"--replay-file={CROSSOVER}", "--db=x.db").expect(0)


def test_a_database_may_be_replayed_while_it_is_written(engine: Engine) -> None:
    """S1: `--replay-db` only reads."""
    db = engine.path("x.db")
    running = engine.start(engine.config("fast.toml", FAST), "--db=x.db")
    wait_until(lambda: ticks_stored(db) > 50, "50 ticks")
    done = engine.run("--ingest=replay", "--replay-db=x.db", "--db=copy.db").expect(0)
    assert done.ledger["stored"] >= 50
    running.send(signal.SIGTERM)
    running.finish(10).expect(0)


def test_a_restarted_push_feed_continues(engine: Engine) -> None:
    """Contract 6: prices, strategy and positions go on over restarts, also after kill -9; a replay between them, in the

    same file, touches nothing of it. Signals come every 10th tick, sides in turn, as in one undisturbed run.
    """
    db = engine.path("x.db")
    args = (engine.config("fast.toml", FAST), "--db=x.db", "--strategy=periodic")
    first = engine.start(*args)
    wait_until(lambda: ticks_stored(db) > 35, "35 ticks")
    first.send(signal.SIGTERM)
    held = first.finish(10).expect(0).ledger["stored"]

    second = engine.start(*args)
    assert second.wait_for("CARRIED_OVER")["ticks"] == held
    wait_until(lambda: ticks_stored(db) > held + 35, "35 ticks more")
    assert second.kill().code == -signal.SIGKILL
    assert_sound(db)
    held = ticks_stored(db)
    assert len(synthetic_units(db)) == held

    engine.run("--ingest=replay", f"--replay-file={CROSSOVER}", "--db=x.db").expect(0)
    third = engine.run(*args, "--seconds=0.3").expect(0)
    assert third.one("CARRIED_OVER")["ticks"] == held
    assert_sound(db)
    assert len(rows(db, "SELECT * FROM runs WHERE ingest = 'synthetic'")) == 3
    own = "FROM {} WHERE run IN (SELECT id FROM runs WHERE ingest = 'synthetic')"
    units = synthetic_units(db)
    assert len(units) == held + third.ledger["stored"]
    kinds = [kind for (kind,) in rows(db, f"SELECT kind {own.format('signals')} ORDER BY id")]
    assert kinds == [("SELL:PERIODIC_TRIGGER", "BUY:PERIODIC_TRIGGER")[n % 2] for n in range(len(units) // 10)]
    marks = rows(db, f"SELECT price {own.format('signals')} ORDER BY id")
    assert [round(price * 40) for (price,) in marks] == units[9::10]


def test_a_replay_in_a_file_with_other_runs_is_as_in_a_file_of_its_own(engine: Engine, undisturbed: Path) -> None:
    """Contract 6: positions and windows of other runs never reach a replay."""
    engine.run(engine.config("fast.toml", FAST), "--db=x.db", "--strategy=periodic", "--seconds=0.3").expect(0)
    engine.run(f"--config={SESSION_CONFIG}", f"--replay-file={SESSION}", "--db=x.db").expect(0)
    own = "WHERE run = (SELECT id FROM runs WHERE ingest = 'replay') ORDER BY id"
    for columns in (
        "symbol, price, volume, ts FROM ticks",
        "symbol, kind, value, ts, event_id, desired_size, price FROM signals",
        "symbol, side, qty, price, status, ts, event_id, signal_id, reason, is_shadow FROM orders",
        "event_id, order_id, symbol, side, fill_qty, fill_price, fees, ts, is_shadow FROM trades",
    ):
        query = f"SELECT {columns} {own}"
        assert rows(engine.path("x.db"), query) == rows(undisturbed, query)


def test_the_default_database_is_below_the_home(engine: Engine) -> None:
    """Contract 11: never inside the installation; $STATE_DIRECTORY where systemd gives one."""
    engine.run("--seconds=0.1").expect(0)
    assert counts(engine.home / ".local" / "state" / "tradebot" / "tradebot.db")["ticks"] >= 1
    service = engine.path("service")
    engine.run("--seconds=0.1", env={"STATE_DIRECTORY": os.fspath(service)}).expect(0)
    assert counts(service / "tradebot.db")["ticks"] >= 1


def test_the_configuration_is_found(engine: Engine) -> None:
    """Contract 1: the command line over the environment over the file; a missing default file means defaults."""
    text = f'[engine]\ningest_mode = "replay"\nreplay_file = "{CROSSOVER}"\n[app]\ndb_path = "file.db"\n'
    engine.config("mine.toml", text)
    engine.run(env={"TRADEBOT_CONFIG": "mine.toml"}).expect(0)
    engine.run("--db=line.db", env={"TRADEBOT_CONFIG": "mine.toml"}).expect(0)
    own = engine.home / ".config" / "tradebot"
    own.mkdir(parents=True)
    engine.path("mine.toml").rename(own / "tradebot.toml")
    engine.run("--resume").expect(0)
    assert dump(engine.path("file.db")) == dump(engine.path("line.db"))
