"""The original system's acceptance scenario, end to end."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.process import CROSSOVER, REPO, Engine, Finished, assert_sound, counts, rows
from tradebot.core.events import SMA_CROSSOVER
from tradebot.core.log_events import LogEvent

EXPECTED = REPO / "fixtures" / "sma_calc_expected.jsonl"
AVERAGES = ("short", "long", "prev_diff", "curr_diff", "emit", "action")


def replay(engine: Engine, *more: str) -> Finished:
    return engine.run("--ingest=replay", f"--replay-file={CROSSOVER}", "--db=x.db", *more).expect(0)


def sma_calc_lines(done: Finished) -> list[str]:
    return [line for line in done.stderr.splitlines() if '"SMA_CALC"' in line]


def numbers_as_text(line: str) -> dict[str, str]:
    """The JSON text of every number and word of a flat object, exactly as written."""
    return dict(re.findall(r'"(\w+)": ?(-?[\d.]+(?:[eE][-+]?\d+)?|true|false|"\w*")', line))


def test_the_scenario_gives_its_signals_orders_and_fills(engine: Engine) -> None:
    """G0, S9, I3: rows, prices and fees; all of it simulated and linked."""
    done = replay(engine)
    db = engine.path("x.db")
    assert rows(db, "SELECT symbol, kind, value, ts FROM signals ORDER BY ts") == [
        ("TEST/USD", "BUY:SMA_CROSSOVER", 0.75, 1700000020),
        ("TEST/USD", "SELL:SMA_CROSSOVER", 0.75, 1700000037),
    ]
    assert counts(db) == {"ticks": 50, "signals": 2, "orders": 2, "trades": 2}
    fills = rows(db, "SELECT side, fill_qty, fill_price, fees, is_shadow FROM trades ORDER BY id")
    assert fills == [("BUY", 0.1, 101.0, 0.0101, 1), ("SELL", 0.1, 102.0, 0.0102, 1)]
    orders = rows(db, "SELECT status, reason, price, is_shadow FROM orders ORDER BY id")
    assert orders == [("FILLED", "SHADOW_RECORDED", 101.0, 1), ("FILLED", "SHADOW_RECORDED", 102.0, 1)]
    assert_sound(db)
    final = done.one(LogEvent.FINAL_METRICS)
    assert final["persist_count"] == 56
    assert (final["tick_count"], final["signal_count"], final["shadow_orders"], final["trade_count"]) == (50, 2, 2, 2)
    assert done.ledger["stored"] == 50


def test_the_log_keeps_the_names_of_the_original(engine: Engine) -> None:
    """G4, S1, S9: the event names are kept, and the first line says SHADOW."""
    done = replay(engine)
    first = done.logs[0]
    assert first["message"] == "tradebot starting"
    assert first["mode"] == "SHADOW"
    assert "simulated" in first["note"]
    assert first["database"] == "x.db"
    assert done.one(LogEvent.PRAGMA_VERIFICATION)["journal_mode"] == "wal"
    assert done.one(LogEvent.INITIAL_DATABASE_STATE)["ticks"] == 0
    signals = done.all(SMA_CROSSOVER)
    assert [fields["side"] for fields in signals] == ["BUY", "SELL"]
    assert {fields["reason_code"] for fields in signals} == {"SMA_CROSSOVER"}
    assert {(fields["confidence"], fields["desired_size"]) for fields in signals} == {(0.75, 0.1)}
    assert len(done.all(LogEvent.ORDER_FILLED)) == 2
    assert sum(fields["persisted"] for fields in done.all(LogEvent.BATCH_FLUSHED)) == 56
    assert done.one(LogEvent.FINAL_FLUSH_ON_SHUTDOWN)
    for line in done.stderr.splitlines():
        assert set(json.loads(line)) == {"timestamp", "level", "fields", "target"}


def test_the_replay_is_announced_as_finished(engine: Engine) -> None:
    """G4: the last lines of the original system."""
    done = replay(engine)
    assert done.one(LogEvent.REPLAY_FINISHED)
    summary = done.one(LogEvent.REPLAY_SUMMARY)
    assert (summary["ticks_read"], summary["signals_emitted"]) == (50, 2)


def expected_records(place: Path) -> list[str]:
    lines = place.read_text().splitlines()
    assert len(lines) == 50
    return lines


def assert_equal_to_the_last_digit(wanted: list[str], got: list[str]) -> None:
    assert len(got) == len(wanted)
    for line, (expected, logged) in enumerate(zip(wanted, got, strict=True), start=1):
        original: dict[str, Any] = json.loads(expected)
        fields: dict[str, Any] = json.loads(logged)["fields"]
        assert {name: fields[name] for name in AVERAGES} == {name: original[name] for name in AVERAGES}, line
        texts, original_texts = numbers_as_text(logged), numbers_as_text(expected)
        assert {name: texts[name] for name in AVERAGES} == {name: original_texts[name] for name in AVERAGES}, line


def test_sma_calc_equals_the_originals_records(engine: Engine) -> None:
    """S8: the 50 DEBUG records equal those of the original to the last digit, as numbers and as text."""
    done = replay(engine, "--log-level=debug")
    assert_equal_to_the_last_digit(expected_records(EXPECTED), sma_calc_lines(done))


def test_the_fixture_is_the_shared_oracle(shared_data: Path) -> None:
    oracle = shared_data / "oracle" / "sma_calc_expected.jsonl"
    if not oracle.exists():
        pytest.skip(f"no {oracle}")
    assert expected_records(oracle) == expected_records(EXPECTED)


def test_nothing_is_left_open(engine: Engine) -> None:
    """With Python's own checks enabled there is no warning about an unclosed file, socket or connection."""
    command = (sys.executable, "-X", "dev", "-W", "ignore::SyntaxWarning", "-m", "tradebot")
    done = engine.run("--ingest=replay", f"--replay-file={CROSSOVER}", "--db=x.db", command=command).expect(0)
    assert done.complaint == ""
