"""Two engines on one database, and restarts of an engine."""

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
    wait_for_ticks,
)
from tradebot.core.log_events import LogEvent

FAST = "[engine]\ntick_interval_ms = 2\nsignal_every_n_ticks = 10\n[persist]\nflush_interval_ms = 20\n"


def test_a_second_engine_on_the_same_database_is_refused(engine: Engine) -> None:
    """Exit 12 naming the process; the first engine is not affected. bin/tradebot's process is the engine."""
    db = engine.path("x.db")
    first = engine.start(
        engine.config("fast.toml", FAST), "--db=x.db", command=[REPO / "bin" / "tradebot"],
        env={"TRADEBOT_PYTHON": sys.executable},
    )  # fmt: skip
    wait_for_ticks(db, 21)
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
    wait_for_ticks(db, seen + 1)
    first.send(signal.SIGTERM)
    assert first.finish(10).expect(0).ledger["not_stored"] == 0
    # It has ended, and so has its lock.
    engine.run("--ingest=replay", f"--replay-file={CROSSOVER}", "--db=x.db").expect(0)


def test_a_database_may_be_replayed_while_it_is_written(engine: Engine) -> None:
    """S1: `--replay-db` only reads."""
    db = engine.path("x.db")
    running = engine.start(engine.config("fast.toml", FAST), "--db=x.db")
    wait_for_ticks(db, 51)
    done = engine.run("--ingest=replay", "--replay-db=x.db", "--db=copy.db").expect(0)
    assert done.ledger["stored"] >= 50
    running.send(signal.SIGTERM)
    running.finish(10).expect(0)


SIDES_IN_TURN = ("SELL:PERIODIC_TRIGGER", "BUY:PERIODIC_TRIGGER")
SYNTHETIC_SIGNALS = "SELECT kind, price FROM signals WHERE run IN (SELECT id FROM runs WHERE ingest = 'synthetic')"


def test_a_restarted_push_feed_continues(engine: Engine) -> None:
    """Prices, strategy and positions continue across restarts; a replay in the same file changes none of them.

    Signals occur at every 10th tick, with alternating sides, as in one uninterrupted run.
    """
    db = engine.path("x.db")
    args = (engine.config("fast.toml", FAST), "--db=x.db", "--strategy=periodic")
    held = 0
    for _ in range(2):
        running = engine.start(*args)
        wait_for_ticks(db, held + 36)
        running.send(signal.SIGTERM)
        done = running.finish(10).expect(0)
        assert [fields["ticks"] for fields in done.all(LogEvent.CARRIED_OVER)] == ([held] if held else [])
        held += done.ledger["stored"]
    engine.run("--ingest=replay", f"--replay-file={CROSSOVER}", "--db=x.db").expect(0)
    third = engine.run(*args, "--seconds=0.3").expect(0)
    assert third.one(LogEvent.CARRIED_OVER)["ticks"] == held
    assert_sound(db)
    units = synthetic_units(db)
    assert len(units) == held + third.ledger["stored"]
    signals = rows(db, f"{SYNTHETIC_SIGNALS} ORDER BY id")
    assert [kind for kind, _ in signals] == [SIDES_IN_TURN[n % 2] for n in range(len(units) // 10)]
    assert [round(price * 40) for _, price in signals] == units[9::10]


def test_a_push_feed_continues_after_kill_9(engine: Engine) -> None:
    """Events in the pipeline are lost, stored rows are intact, and the next run continues."""
    db = engine.path("x.db")
    args = (engine.config("fast.toml", FAST), "--db=x.db", "--strategy=periodic")
    running = engine.start(*args)
    wait_for_ticks(db, 36)
    assert running.kill().code == -signal.SIGKILL
    assert_sound(db)
    held = ticks_stored(db)
    assert len(synthetic_units(db)) == held
    again = engine.run(*args, "--seconds=0.3").expect(0)
    assert again.one(LogEvent.CARRIED_OVER)["ticks"] == held
    assert_sound(db)
    assert len(synthetic_units(db)) == held + again.ledger["stored"]
    # The kill may lose a signal whose tick was stored; then the next tick causes it, with the same side.
    kinds = [kind for kind, _ in rows(db, f"{SYNTHETIC_SIGNALS} ORDER BY id")]
    assert kinds == [SIDES_IN_TURN[n % 2] for n in range(len(kinds))]
    assert abs(len(kinds) - (held + again.ledger["stored"]) // 10) <= 1


def test_a_replay_in_a_file_with_other_runs_is_as_in_a_file_of_its_own(engine: Engine, undisturbed: Path) -> None:
    """Positions and windows of other runs do not affect a replay."""
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
    """Never inside the installation; in $STATE_DIRECTORY if systemd sets it."""
    engine.run("--seconds=0.1").expect(0)
    assert counts(engine.home / ".local" / "state" / "tradebot" / "tradebot.db")["ticks"] >= 1
    service = engine.path("service")
    engine.run("--seconds=0.1", env={"STATE_DIRECTORY": os.fspath(service)}).expect(0)
    assert counts(service / "tradebot.db")["ticks"] >= 1


def test_the_configuration_is_found(engine: Engine) -> None:
    """The command line overrides the environment, which overrides the file; without a file the defaults apply."""
    text = f'[engine]\ningest_mode = "replay"\nreplay_file = "{CROSSOVER}"\n[app]\ndb_path = "file.db"\n'
    engine.config("mine.toml", text)
    engine.run(env={"TRADEBOT_CONFIG": "mine.toml"}).expect(0)
    engine.run("--db=line.db", env={"TRADEBOT_CONFIG": "mine.toml"}).expect(0)
    own = engine.home / ".config" / "tradebot"
    own.mkdir(parents=True)
    engine.path("mine.toml").rename(own / "tradebot.toml")
    engine.run("--resume").expect(0)
    assert dump(engine.path("file.db")) == dump(engine.path("line.db"))
