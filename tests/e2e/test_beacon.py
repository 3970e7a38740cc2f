"""Reports of a real engine: to the service manager's socket, in its status file, and on SIGABRT."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.process import Engine, assert_sound, synthetic_units, ticks_stored, wait_for_ticks, wait_until
from tradebot.core.log_events import LogEvent
from tradebot.telemetry.status_file import Status, read_status, status_path
from tradebot.telemetry.throttle_file import Throttle, throttle_path, write_throttle

FAST = "[engine]\ntick_interval_ms = 2\n[persist]\nflush_interval_ms = 50\n"


def test_ready_alive_status_and_stopping_reach_the_manager(engine: Engine) -> None:
    """Type=notify, a watchdog that is fed while the engine works, and a status line."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(engine.path("notify")))
        manager.settimeout(10)
        running = engine.start(
            engine.config("fast.toml", FAST), "--db=x.db", env={"NOTIFY_SOCKET": str(engine.path("notify"))}
        )
        heard = [manager.recv(1000).decode() for _ in range(7)]
        running.send(signal.SIGTERM)
        while heard[-1] != "STATUS=ended with 0":
            heard.append(manager.recv(1000).decode())
        running.finish().expect(0)
    assert heard[0] == "READY=1"
    assert heard.count("READY=1") == 1
    assert heard[:7].count("WATCHDOG=1") >= 2
    assert heard.count("STOPPING=1") <= 1  # none if the drain took less than a second
    assert any(line.startswith("STATUS=SHADOW synthetic, SOL/USDC 1") for line in heard), heard


def test_a_finished_replay_counts_as_started(engine: Engine) -> None:
    """Without READY a service manager treats exit 0 as a failure and restarts the engine endlessly."""
    lines = '{"symbol":"A","price":1.0,"volume":1.0,"ts":1}\n'
    engine.path("in.jsonl").write_text(lines)
    words = ("--ingest=replay", "--replay-file=in.jsonl", "--db=x.db")
    engine.run(*words).expect(0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(engine.path("notify")))
        manager.settimeout(10)
        env = {"NOTIFY_SOCKET": str(engine.path("notify"))}
        assert engine.run(*words, "--resume", env=env).expect(0).one(LogEvent.REPLAY_COMPLETE)
        assert manager.recv(1000) == b"READY=1"


def _running_status(engine: Engine) -> Status:
    def seen() -> Status | None:
        status = read_status(status_path(engine.path("x.db")))
        return status if status is not None and status.last_tick is not None else None

    status = wait_until(seen, "a status with a tick")
    assert status is not None
    return status


def test_the_status_file_follows_the_engine_and_keeps_its_end(engine: Engine) -> None:
    running = engine.start(engine.config("fast.toml", FAST), "--db=x.db")
    status = _running_status(engine)
    assert (status.pid, status.state, status.exit_code, status.still_s) == (running.pid, "running", None, {})
    assert set(status.running) == {"commit", "execution", "ingest", "persist", "strategy"}
    running.send(signal.SIGTERM)
    done = running.finish().expect(0)
    after = read_status(status_path(engine.path("x.db")))
    assert after is not None
    assert (after.state, after.exit_code, after.running) == ("ended", 0, ())
    assert after.counters["persist_count"] == done.one(LogEvent.FINAL_METRICS)["persist_count"]
    assert after.book is not None and after.last_stored_ms is not None
    assert after.stored_age_s is not None and 0 <= after.stored_age_s < 60


def test_a_push_feed_is_throttled_by_the_file_and_replays_are_not(engine: Engine) -> None:
    """sample_every of the supervisor overrides the configuration file; it is not part of the configuration hash."""
    db = engine.path("x.db")
    config = engine.config("sampled.toml", "[engine]\ntick_interval_ms = 2\nsample_every = 2\n")
    ends = []
    for throttle in (1, 5):
        write_throttle(throttle_path(db), Throttle(throttle, "THROTTLE1", 0))
        before = ticks_stored(db)
        running = engine.start(config, "--db=x.db")
        wait_for_ticks(db, before + 20)
        running.send(signal.SIGTERM)
        ends.append(running.finish().expect(0))
    plain, done = ends
    assert plain.ledger["accepted"] == plain.ledger["received"] // 2 and not plain.all(LogEvent.THROTTLED)
    assert done.one(LogEvent.THROTTLED)["sample_every"] == 5
    assert done.ledger["accepted"] == done.ledger["received"] // 5
    assert done.one(LogEvent.START)["config_hash"] == plain.one(LogEvent.START)["config_hash"]
    assert_sound(db)
    told = engine.run(config, "--db=x.db", "--sample-every=3", "--seconds=0.2").expect(0)
    assert told.one(LogEvent.THROTTLE_IGNORED)["sample_every"] == 3
    assert told.ledger["accepted"] == told.ledger["received"] // 3
    engine.path("in.jsonl").write_text('{"symbol":"A","price":1.0,"volume":1.0,"ts":1}\n' * 10)
    replayed = engine.run("--ingest=replay", "--replay-file=in.jsonl", "--db=x.db").expect(0)
    assert replayed.ledger["accepted"] == 10 and not replayed.all(LogEvent.THROTTLED)


def damaged(path: Path) -> str:
    path.write_text("5")
    return "Expected `object`"


def of_another_user(path: Path) -> str:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to another user")
    write_throttle(path, Throttle(5, "THROTTLE1", 0))
    os.chown(path, 12_345, 12_345)
    return "belongs to another user"


def changeable(path: Path) -> str:
    write_throttle(path, Throttle(5, "THROTTLE1", 0))
    path.chmod(0o606)
    return "other users can change it"


def a_link(path: Path) -> str:
    write_throttle(path.with_name("elsewhere"), Throttle(5, "THROTTLE1", 0))
    path.symlink_to(path.with_name("elsewhere"))
    return "is a symbolic link"


def a_fifo(path: Path) -> str:
    os.mkfifo(path)
    return "is not a regular file"


@pytest.mark.parametrize("left", [damaged, of_another_user, changeable, a_link, a_fifo])
def test_a_throttle_file_that_cannot_be_trusted_is_ignored_and_told(
    engine: Engine, left: Callable[[Path], str]
) -> None:
    """A file that another user can write must not change the sampling or prevent the start."""
    said = left(throttle_path(engine.path("x.db")))
    config = engine.config("sampled.toml", "[engine]\ntick_interval_ms = 2\nsample_every = 2\n")
    done = engine.run(config, "--db=x.db", "--seconds=0.2").expect(0)
    told = done.one(LogEvent.THROTTLE_IGNORED)
    assert said in str(told["detail"]) and "remove it to keep all ticks" in str(told["detail"])
    assert done.ledger["accepted"] == done.ledger["received"] // 2


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV], ids=lambda number: number.name)
def test_the_watchdogs_signal_leaves_all_stacks(engine: Engine, number: signal.Signals) -> None:
    """The journal shows the stacks of all threads; the database is as after any kill.

    The rate is low, because stacks are read while the other threads run, and that of a busy one can end the dump
    (SIGSEGV).
    """
    db = engine.path("x.db")
    running = engine.start(engine.config("calm.toml", "[engine]\ntick_interval_ms = 100\n"), "--db=x.db")
    wait_for_ticks(db, 5)
    running.send(number)
    done = running.finish()
    assert done.code == -number
    for thread in ("ingest.py", "strategy.py", "execution.py", "persist.py", "heartbeat.py", "pipeline.py"):
        assert thread in done.complaint, done.complaint
    assert_sound(db)
    assert synthetic_units(db)
