"""SIGINT, SIGTERM and SIGHUP, once, twice and during start-up, and streams whose reader has gone."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.process import (
    REPO,
    SESSION,
    SESSION_CONFIG,
    Engine,
    assert_sound,
    counts,
    dump,
    rows,
    ticks_stored,
    wait_for_ticks,
)
from tradebot.core.log_events import LogEvent

FAST = "[engine]\ntick_interval_ms = 2\n[persist]\nflush_interval_ms = 50\n"
STOP_SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
EACH = pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)

# Python imports this at its start; it interrupts the process there, or when the named module is imported.
INTERRUPTED = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPT_AT"]:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
Finder().find_spec("the start")
"""


@EACH
def test_a_push_feed_is_stopped_with_everything_stored(engine: Engine, number: signal.Signals) -> None:
    """S13: exit 0, the ledger balances, everything accepted is stored."""
    db = engine.path("x.db")
    running = engine.start(engine.config("fast.toml", FAST), "--db=x.db")
    wait_for_ticks(db, 100)
    running.send(number)
    done = running.finish(10).expect(0)
    ledger = done.ledger
    assert ledger["not_stored"] == ledger["refused"] == 0
    assert counts(db)["ticks"] == ledger["accepted"] == ledger["received"]
    final = done.one(LogEvent.FINAL_METRICS)
    assert sum(counts(db).values()) == final["persist_count"]
    assert rows(db, "SELECT exit_code, complete FROM runs") == [(0, 0)]
    assert_sound(db)
    assert "ticks read" in done.stdout


@EACH
def test_a_replay_is_stopped_in_the_middle_and_resumed(
    engine: Engine, number: signal.Signals, undisturbed: Path
) -> None:
    """S13: exit 0 with everything accepted stored; a resume completes it to the undisturbed rows."""
    db = engine.path("x.db")
    args = (f"--config={SESSION_CONFIG}", f"--replay-file={SESSION}", "--db=x.db")
    running = engine.start(*args, "--speed=20x")
    wait_for_ticks(db, 100)
    running.send(number)
    done = running.finish(10).expect(0)
    assert done.ledger["not_stored"] == 0
    assert counts(db)["ticks"] == done.ledger["accepted"] < 13_932
    assert rows(db, "SELECT exit_code, complete FROM runs") == [(0, 0)]
    assert engine.run(*args).code == 12
    engine.run(*args, "--resume").expect(0)
    assert dump(db) == dump(undisturbed)


def test_a_signal_while_the_engine_starts_is_served(engine: Engine) -> None:
    """S13: as soon as the first line is logged."""
    running = engine.start(engine.config("fast.toml", FAST), "--db=x.db")
    running.wait_for(LogEvent.START)
    running.send(signal.SIGTERM)
    running.finish(10).expect(0)


def test_a_hangup_that_was_ignored_stays_so(engine: Engine) -> None:
    """An engine started by nohup continues when its terminal is closed."""
    running = engine.start(
        engine.config("fast.toml", FAST), "--db=x.db", command=("nohup", sys.executable, "-m", "tradebot")
    )
    wait_for_ticks(engine.path("x.db"), 10)
    running.send(signal.SIGHUP)
    wait_for_ticks(engine.path("x.db"), ticks_stored(engine.path("x.db")) + 100)
    running.send(signal.SIGTERM)
    running.finish(10).expect(0)


@pytest.mark.parametrize("at", ["the start", "docopt", "msgspec", "tradebot.config.model", "peewee"])
@pytest.mark.parametrize(("command", "code"), [("run", 0), ("soak", 1)])
def test_an_interrupt_while_it_is_imported_ends_it_quietly(engine: Engine, at: str, command: str, code: int) -> None:
    """Nothing has started, so nothing is printed; 0 for run, 1 for a command that has not answered."""
    if at == "the start" and subprocess.run(["env", "--block-signal=INT", "true"], capture_output=True).returncode:
        pytest.skip("this env cannot block signals")
    engine.path("sitecustomize.py").write_text(INTERRUPTED)
    paths = {"PYTHONPATH": str(engine.home), "TRADEBOT_PYTHON": sys.executable, "INTERRUPT_AT": at}
    done = engine.run(command, "--db=x.db", env=paths, command=(REPO / "bin" / "tradebot",))
    assert (done.code, done.stdout, done.stderr.replace("tradebot: interrupted\n", "")) == (code, "", "")
    assert not engine.path("x.db").exists()


@pytest.mark.parametrize(("module", "program"), [("tradebot.cli", "tradebot"), ("mockws_server", "mockws")])
def test_the_installed_programs_end_quietly_too(engine: Engine, module: str, program: str) -> None:
    """Their entry point arranges this before it imports anything else."""
    engine.path("sitecustomize.py").write_text(INTERRUPTED)
    paths = {"PYTHONPATH": f"{engine.home}:{REPO}", "INTERRUPT_AT": "msgspec"}
    script = f"import sys; from {module}.startup import {program}; sys.exit({program}())"
    done = engine.run(env=paths, command=(sys.executable, "-c", script))
    assert (done.code, done.stdout, done.stderr) == (0, "", "")


def test_a_silent_pipe_does_not_hold_off_a_stop(engine: Engine) -> None:
    """S13: SIGTERM while reading from a silent standard input ends the run within 2 s."""
    running = engine.start("--ingest=replay", "--replay-file=-", "--db=x.db", stdin=subprocess.PIPE)
    stdin = running.process.stdin
    assert stdin is not None
    stdin.write(SESSION.read_bytes()[:20_000])
    stdin.flush()
    wait_for_ticks(engine.path("x.db"), 100)
    began = time.monotonic()
    running.send(signal.SIGTERM)
    done = running.finish(10).expect(0)
    assert time.monotonic() - began < 2
    assert done.ledger["not_stored"] == 0
    assert counts(engine.path("x.db"))["ticks"] == done.ledger["accepted"] > 100
    stdin.close()


def test_a_named_pipe_without_a_writer_does_not_hold_off_a_stop(engine: Engine) -> None:
    """S13: also while it waits for a writer to open the other end."""
    os.mkfifo(engine.path("pipe"))
    running = engine.start("--ingest=replay", "--replay-file=pipe", "--db=x.db")
    running.wait_for(LogEvent.INITIAL_DATABASE_STATE)
    began = time.monotonic()
    running.send(signal.SIGINT)
    running.finish(10).expect(0)
    assert time.monotonic() - began < 2


def test_a_second_signal_ends_it_at_once(engine: Engine) -> None:
    """Exit 1 immediately while the storage is locked; the log counts what was not stored."""
    db = engine.path("x.db")
    running = engine.start(engine.config("fast.toml", FAST), "--db=x.db")
    wait_for_ticks(db, 100)
    with closing(sqlite3.connect(db, timeout=30, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        held = ticks_stored(db)
        # Nothing can be stored from here on, so the engine has unstored ticks when it is stopped.
        running.send(signal.SIGTERM)
        running.wait_for(LogEvent.DRAINING)
        began = time.monotonic()
        running.send(signal.SIGTERM)
        done = running.finish(10)
        assert time.monotonic() - began < 2
    done.expect(1)
    assert done.all(LogEvent.SECOND_SIGNAL)
    ledger = done.ledger
    assert (ledger["stored"], ledger["cause"]) == (held, "a second stop signal ended the run")
    assert ledger["not_stored"] == ledger["accepted"] - held
    assert done.one(LogEvent.NOT_STORED)["ticks"] == ledger["not_stored"] > 0
    assert counts(db)["ticks"] == held
    assert_sound(db)


@pytest.mark.parametrize("gone", ["stdout", "stderr", "both"])
def test_readers_that_go_away_do_not_break_a_run(engine: Engine, gone: str, undisturbed: Path) -> None:
    """A broken pipe loses text, but no row, and does not change the exit code."""
    read, write = os.pipe()
    os.close(read)
    options: dict[str, Any] = {name: write for name in ("stdout", "stderr") if gone in (name, "both")}
    running = engine.start(f"--config={SESSION_CONFIG}", f"--replay-file={SESSION}", "--db=x.db", **options)
    os.close(write)
    done = running.finish().expect(0)
    assert dump(engine.path("x.db")) == dump(undisturbed)
    if gone == "stdout":
        assert done.ledger["stored"] == 13_932
    if gone == "stderr":
        assert "log lines could not be written" in done.stdout


def test_streams_that_were_never_open_do_not_break_a_run(engine: Engine, undisturbed: Path) -> None:
    """Some service managers and cron jobs start programs like this."""
    args = f"--config={SESSION_CONFIG} --replay-file={SESSION} --db=x.db"
    shell = f"exec {sys.executable} -m tradebot {args} <&- >&- 2>&-"
    engine.run(command=("sh", "-c", shell)).expect(0)
    assert dump(engine.path("x.db")) == dump(undisturbed)


def test_a_full_device_as_standard_output_does_not_break_a_run(engine: Engine) -> None:
    """The rows are stored and the exit code is that of the run."""
    with open("/dev/full", "w") as full:
        done = engine.run("--seconds=0.1", "--db=x.db", stdout=full)
    done.expect(0)
    assert counts(engine.path("x.db"))["ticks"] == done.ledger["stored"] >= 1
