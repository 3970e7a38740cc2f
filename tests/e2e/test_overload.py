"""Overload and crashes with real threads: faults are injected through the seam, the product has no hook."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.e2e.process import REPO, SESSION, SESSION_CONFIG, Engine, Finished, assert_sound, counts, dump, rows
from tradebot.core.log_events import LogEvent

SCRIPT = REPO / "tests" / "e2e" / "slow_engine.py"
SMALL = """
[engine]
tick_interval_ms = 1
signal_every_n_ticks = 3
[strategy]
name = "periodic"
[channels]
tick_channel_size = 100
signal_channel_size = 10
persist_channel_size = 100
"""


def run(engine: Engine, delays_s: dict[str, float], crashes: dict[str, int], *args: str) -> Finished:
    faults = json.dumps({"delays_s": delays_s, "crashes": crashes})
    return engine.run(faults, *args, command=(sys.executable, SCRIPT))


def assert_everything_accepted_is_stored(engine: Engine, done: Finished) -> None:
    ledger, final, db = done.ledger, done.one(LogEvent.FINAL_METRICS), engine.path("x.db")
    assert ledger["not_stored"] == 0
    assert counts(db)["ticks"] == ledger["stored"] == ledger["accepted"] > 0
    assert sum(counts(db).values()) == final["persist_count"]
    assert counts(db)["signals"] == counts(db)["orders"] == final["signal_count"]
    assert_sound(db)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["strategy", "persist"])
def test_a_stage_that_is_too_slow_ends_the_run_with_13(engine: Engine, stage: str) -> None:
    """G5, S6: exit 13, the stage is named, stored = accepted, and only the refused ticks are missing."""
    config = engine.config("small.toml", SMALL)
    # The writer takes all waiting events together; the strategy is delayed several times per tick.
    delay_s = {"strategy": 0.005, "persist": 0.4}[stage]
    done = run(engine, {f"tradebot-{stage}": delay_s}, {}, config, "--db=x.db", "--seconds=30").expect(13)
    overload = done.one(LogEvent.OVERLOAD)
    assert overload["stage"] == stage
    assert overload["depths"]["tick"] == 100
    assert overload["depths"]["persist"] == 100 or stage == "strategy"
    assert_everything_accepted_is_stored(engine, done)
    final = done.one(LogEvent.FINAL_METRICS)
    ledger = done.ledger
    assert overload["refused"] == ledger["refused"] == final["bp_drops_tick"] == final["tick_refused"] > 0
    assert final["bp_drops_persist"] == (ledger["refused"] if stage == "persist" else 0)
    assert ledger["received"] == ledger["accepted"] + ledger["refused"]
    assert final["tick_high_water"] == 100
    assert final["persist_high_water"] <= 100
    assert rows(engine.path("x.db"), "SELECT exit_code FROM runs") == [(13,)]


@pytest.mark.slow
def test_signals_for_a_slow_execution_are_refused_not_executed_late(engine: Engine) -> None:
    """G5: BP_DROP_SIGNAL, stored as a refused order with its signal; the run continues."""
    config = engine.config("small.toml", SMALL)
    done = run(engine, {"tradebot-execution": 0.05}, {}, config, "--db=x.db", "--seconds=1.2").expect(0)
    assert_everything_accepted_is_stored(engine, done)
    final = done.one(LogEvent.FINAL_METRICS)
    dropped = "SELECT status, is_shadow, COUNT(*) FROM orders WHERE reason = 'BP_DROP_SIGNAL' GROUP BY 1, 2"
    assert rows(engine.path("x.db"), dropped) == [("REJECTED", 1, final["bp_drops_signal"])]
    assert final["bp_drops_signal"] > 0
    assert final["signal_high_water"] == 10
    assert not done.all(LogEvent.OVERLOAD)


@pytest.mark.parametrize("stage", ["strategy", "execution", "persist"])
def test_a_replay_only_gets_slower(engine: Engine, undisturbed: Path, stage: str) -> None:
    """S6, S8: in a replay producers wait for full channels: no overload, and the same rows."""
    sizes = "[channels]\ntick_channel_size = 2000\nsignal_channel_size = 64\npersist_channel_size = 2000\n"
    config = engine.config("replay.toml", SESSION_CONFIG.read_text() + sizes)
    args = (config, f"--replay-file={SESSION}", "--db=x.db")
    run(engine, {f"tradebot-{stage}": 0.005}, {}, *args).expect(0)
    assert dump(engine.path("x.db")) == dump(undisturbed)


@pytest.mark.parametrize("stage", ["ingest", "strategy", "execution", "persist"])
def test_a_dead_thread_never_leaves_the_process_living_on(engine: Engine, undisturbed: Path, stage: str) -> None:
    """Exit 1 after the writer has flushed; the ledger balances; a resume completes the replay."""
    sizes = "[channels]\ntick_channel_size = 500\nsignal_channel_size = 16\npersist_channel_size = 500\n"
    config = engine.config("replay.toml", SESSION_CONFIG.read_text() + sizes)
    args = (config, f"--replay-file={SESSION}", "--db=x.db")
    done = run(engine, {}, {f"tradebot-{stage}": 8}, *args)
    assert done.code == 1, done.stderr[-2000:]
    assert done.one(LogEvent.THREAD_CRASHED)["stage"] == stage
    ledger = done.one(LogEvent.LEDGER)
    # The tick that a crashing ingest was processing is in no column; the ledger reports it.
    assert ledger["balanced"] or stage == "ingest"
    assert counts(engine.path("x.db"))["ticks"] == ledger["stored"]
    assert ledger["not_stored"] == 0 or ledger["cause"] == "the engine crashed"
    if stage in ("ingest", "execution"):
        assert ledger["stored"] > 0
    assert_sound(engine.path("x.db"))
    engine.run(*args, "--resume").expect(0)
    assert dump(engine.path("x.db")) == dump(undisturbed)
