"""The sampling invariant, in every mode."""

from __future__ import annotations

import pytest

from tests.e2e.process import SESSION, Engine, assert_sound, counts, rows
from tradebot.core.log_events import LogEvent

FAST = '[engine]\ntick_interval_ms = 2\n[app]\nsymbol = "A/B"\n'
SESSION_TICKS = 13_932


@pytest.mark.parametrize("every", [1, 5, 10])
def test_a_replay_keeps_every_nth_tick(engine: Engine, every: int) -> None:
    """Sampling invariant: exactly floor(n / N) ticks, number N, 2N, 3N and so on of the file."""
    args = ("--ingest=replay", f"--replay-file={SESSION}", "--db=x.db", f"--sample-every={every}")
    done = engine.run(*args).expect(0)
    db = engine.path("x.db")
    assert counts(db)["ticks"] == SESSION_TICKS // every
    ledger = done.ledger
    assert (ledger["received"], ledger["stored"]) == (SESSION_TICKS, SESSION_TICKS // every)
    assert ledger["sampled_out"] == SESSION_TICKS - SESSION_TICKS // every
    final = done.one(LogEvent.FINAL_METRICS)
    assert (final["ingest_received"], final["ingest_processed"]) == (SESSION_TICKS, SESSION_TICKS // every)
    stamps = [int(line.rpartition(":")[2].rstrip("}")) for line in SESSION.read_text().split()]
    assert [ts for (ts,) in rows(db, "SELECT ts FROM ticks ORDER BY id")] == stamps[every - 1 :: every]


@pytest.mark.slow
def test_synthetic_keeps_every_nth_tick(engine: Engine) -> None:
    """Sampling invariant, G5: the same with a push feed; the prices are from the same walk for every N."""
    config = engine.config("fast.toml", FAST)
    # Concurrently, because each only waits for its clock.
    runs = {
        every: engine.start(config, "--seconds=1.5", f"--db={every}.db", f"--sample-every={every}")
        for every in (1, 5, 10)
    }
    prices = {}
    for every, running in runs.items():
        done = running.finish().expect(0)
        received = done.one(LogEvent.FINAL_METRICS)["ingest_received"]
        assert received > 100
        ledger = done.ledger
        assert ledger["stored"] == received // every
        assert ledger["sampled_out"] == received - received // every
        assert counts(engine.path(f"{every}.db"))["ticks"] == received // every
        assert_sound(engine.path(f"{every}.db"))
        prices[every] = [price for (price,) in rows(engine.path(f"{every}.db"), "SELECT price FROM ticks ORDER BY id")]
    assert prices[1][:3] == [100.05, 100.025, 100.075]
    assert prices[10] == prices[5][: len(prices[10])] == prices[1][: len(prices[10])]
