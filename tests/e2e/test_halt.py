"""`tradebot halt` and `tradebot resume` beside a real engine: confirmed, in its place, and across a SIGKILL."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.process import Engine, rows, wait_until
from tests.e2e.test_ops_commands import begun, status_of

# A signal at each tick, sold and bought in turn; fifty ticks a second.
KEYS = """
[app]
db_path = "a.db"
[engine]
tick_interval_ms = 20
signal_every_n_ticks = 1
[strategy]
name = "periodic"
[persist]
flush_interval_ms = 50
"""


def halted_orders(db: Path) -> int:
    return int(rows(db, "SELECT count(*) FROM orders WHERE reason = 'HALTED'")[0][0])


def expected_reasons(db: Path, run: int) -> list[str]:
    """What each order of a run must have become, from sides, and the notices that are stored between the ticks."""
    places = rows(db, f"SELECT ticks_before, kind FROM notices WHERE run = {run} AND kind IN ('HALT', 'RESUME')")
    lots, found = 0, []
    for number, (side,) in enumerate(rows(db, f"SELECT side FROM orders WHERE run = {run} ORDER BY id"), start=1):
        last = [kind for before, kind in places if before < number][-1:]
        after = lots + (1 if side == "BUY" else -1)
        refused = last == ["HALT"] and abs(after) >= abs(lots)
        found.append("HALTED" if refused else "SHADOW_RECORDED")
        lots = lots if refused else after
    return found


def test_a_halt_outlives_a_kill_and_ends_with_a_resume(engine: Engine) -> None:
    """Each order is refused or not by what stands before its tick in the database, also in the first run after it."""
    db, config = engine.path("a.db"), engine.config("c.toml", KEYS)
    running = begun(engine, config)

    done = engine.run("halt", "--db=a.db", "--reason=news", "--json")
    answer = json.loads(done.expect(0).stdout)
    assert (answer["engine"], answer["confirmed"], answer["pid"]) == ("running", True, running.pid)
    wait_until(lambda: halted_orders(db), "a refused order")
    health = engine.run("health", "--db=a.db").expect(0)
    assert "ORDERS BLOCKED: HALTED" in health.stdout
    view = engine.run("status", "--db=a.db").expect(0)
    assert "by tradebot halt: news; see tradebot resume" in view.stdout
    running.kill()

    before = halted_orders(db)
    again = begun(engine, config)
    wait_until(lambda: halted_orders(db) > before, "a refused order of the next run")
    assert status_of(engine)["breakers"]["halt_detail"] == "tradebot halt: news"
    resumed = engine.run("resume", "--db=a.db").expect(0)
    assert resumed.stdout.startswith(f"resumed: process {again.pid} accepts all orders again")
    filled = "SELECT count(*) FROM orders WHERE run = 2 AND reason = 'SHADOW_RECORDED'"
    before = rows(db, filled)[0][0]
    wait_until(lambda: rows(db, filled)[0][0] > before + 2, "orders after the resume")
    again.process.terminate()
    again.finish().expect(0)

    notices = rows(db, "SELECT run, kind, detail FROM notices WHERE kind IN ('HALT', 'RESUME') ORDER BY id")
    assert notices == [
        (1, "HALT", "tradebot halt: news"), (2, "HALT", "tradebot halt: news"), (2, "RESUME", "tradebot resume"),
    ]  # fmt: skip
    assert rows(db, "SELECT min(ticks_before) FROM notices WHERE run = 2 AND kind = 'HALT'") == [(0,)]
    reasons = [reason for (reason,) in rows(db, "SELECT reason FROM orders WHERE run = 1 ORDER BY id")]
    assert reasons == expected_reasons(db, 1)


def test_bad_input_is_one_line(engine: Engine) -> None:
    """No traceback, no file: what is wrong, and what to do."""
    missing = engine.run("halt", "--db=typo.db")
    assert missing.code == 1 and missing.stdout.startswith("halt failed: there is no database")
    assert "check --db" in missing.stdout and missing.stdout.count("\n") == 1
    long = engine.run("halt", "--db=a.db", "--reason=" + "x" * 201).expect(12)
    assert "--reason: must have at most 200 characters, not 201; try tradebot halt --help" in long.stderr
    control = engine.run("halt", "--db=a.db", "--reason=a\nb").expect(12)
    assert "--reason: must be one line without control characters" in control.stderr
    other = engine.run("resume", "--db=a.db", "--reason=x").expect(12)
    assert "--reason" in other.stderr
    slip = engine.run("hallt").expect(12)
    assert "did you mean halt" in slip.stderr
    assert list(engine.home.glob("*.halt.json")) == []
