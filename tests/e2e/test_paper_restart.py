"""PAPER across restarts of a live feed: open orders, positions and the balance go on, by the ticks that are there."""

from __future__ import annotations

import gzip
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.live import Live, notices
from tests.e2e.mockws import MockWsProcess
from tests.e2e.paper import assert_paper_sound, assert_replay_same, open_orders
from tests.e2e.process import REPO, Engine, assert_sound, rows, run_ids, tables, wait_until
from tests.e2e.test_storage import assert_adopted, assert_failed_and_spilled, locked

SYMBOL = "SOL/USDC"
BASE_MS = 1_700_000_000_000
# Every fourth tick a signal, SELL first. The BUY of tick 8 waits one percent below the market.
KEYS: dict[str, Any] = {
    "strategy__name": "periodic", "engine__signal_every_n_ticks": 4, "strategy__desired_size": 1.5,
    "execution__order_type": "limit", "execution__limit_offset_bps": 100.0,
}  # fmt: skip


def send(mockws: MockWsProcess, numbers: range, price: float) -> None:
    """Ticks with these numbers, one a second; every second one a hundredth higher, which becomes the tick size."""
    for seq in numbers:
        mockws.tick(
            SYMBOL, price + 0.01 * (seq % 2), 1.0, BASE_MS + 1000 * seq, seq=seq, taker="SELL" if seq % 2 else "BUY"
        )


def start(engine: Engine, mockws: MockWsProcess, connected: int, **keys: Any) -> Live:
    live = Live(engine, f"--ws-url={mockws.url}", "--mode=paper", **KEYS, **keys)
    mockws.wait_said(" connected from ", connected)
    return live


def account(engine: Engine) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(engine.run("status", "--json", "--db=x.db").stdout)["status"]["paper"]
    return found


def is_pruned(engine: Engine) -> bool:
    """Prune; whether that has deleted all but the last tick and what the open order needs."""
    engine.run("prune", "--keep=1s", "--db=x.db").expect(0)
    counted = "pruned_ticks, pruned_signals, pruned_orders, pruned_order_events"
    return rows(engine.path("x.db"), f"SELECT {counted} FROM runs") == [(9, 1, 1, 1)]


def first_run(engine: Engine, mockws: MockWsProcess) -> Live:
    """An engine that has stored ten ticks and has one order open."""
    live = start(engine, mockws, 1)
    send(mockws, range(1, 11), 100.0)
    live.wait_ticks(10)
    return live


def check_second_run(engine: Engine, live: Live) -> None:
    """The order of the first run was filled by ticks 11 and 12, which are the first two of the second run."""
    db = live.db
    assert_paper_sound(db)
    first, second = run_ids(db)
    order = f"{first}-0000000008-O"
    assert rows(db, "SELECT event_id, side, status, reason, limit_price FROM orders ORDER BY id")[-2:] == [
        (order, "BUY", "SUBMITTED", "SUBMITTED", 99.0),
        (f"{second}-0000000002-O", "SELL", "SUBMITTED", "SUBMITTED", 98.98),
    ]
    assert rows(db, f"SELECT run, n, status, tick FROM order_events WHERE order_id = '{order}' ORDER BY id") == [
        (1, 1, "SUBMITTED", 8), (1, 2, "ACKNOWLEDGED", 9), (2, 3, "PARTIAL_FILL", 1), (2, 4, "FILLED", 2),
    ]  # fmt: skip
    assert rows(db, "SELECT run, event_id, order_id, fill_qty, fill_price, tick, after_gap FROM trades") == [
        (2, f"{second}-0000000001-T", order, 1.0, 99.0, 1, 1), (2, f"{second}-0000000002-T", order, 0.5, 99.0, 2, 1)
    ]  # fmt: skip
    assert [notice.kind for notice in notices(db, run=2)][:2] == ["RESTART", "LINK_UP"]
    assert first in notices(db, "RESTART")[0].detail
    paper = account(engine)
    fees = 1.5 * 99.0 * 0.001
    assert paper["cash"] == {"USD": 10_000.0, "USDC": pytest.approx(-1.5 * 99.0 - fees, rel=1e-12)}
    assert paper["equity"] == pytest.approx(10_000 - 1.5 - fees, rel=1e-12)
    assert paper["open_orders"] == len(open_orders(db)) == 1


def test_outcomes_that_waited_in_a_spill_file_are_continued(engine: Engine, tmp_path: Path) -> None:
    """The database is locked from the fifth tick on: order and events reach it with the next start."""
    with MockWsProcess(tmp_path) as mockws:
        live = start(engine, mockws, 1, persist__storage_retry_s=0)
        send(mockws, range(1, 5), 100.0)
        live.wait_ticks(4)
        with locked(live.db):
            send(mockws, range(5, 11), 100.0)
            done = live.running.finish()
        assert_failed_and_spilled(done, "SQLITE_BUSY")
        live = start(engine, mockws, 2)
        assert_paper_sound(live.db)
        send(mockws, range(11, 13), 98.0)
        live.wait_ticks(12)
        live.ask_to_stop()
        assert_adopted(done, live.db, live.running.finish().expect(0), committed=True)
    check_second_run(engine, live)
    engine.run("--ingest=replay", "--replay-db=x.db", "--db=again.db", "--config=x.toml", "--mode=paper").expect(0)
    assert_replay_same(live.db, engine.path("again.db"))


def test_a_file_of_schema_5_is_continued(engine: Engine, tmp_path: Path) -> None:
    """PAPER begins with its own balance and no position: those of the file are of SHADOW, and stay as they are."""
    for part in ("push.db", "push.db-wal"):
        packed = REPO / "fixtures" / "schema5" / f"{part}.gz"
        engine.path(part.replace("push", "x")).write_bytes(gzip.decompress(packed.read_bytes()))
    old = tables(engine.path("x.db"))
    with MockWsProcess(tmp_path) as mockws:
        for connected, numbers in ((1, range(1, 11)), (2, range(11, 13))):
            live = start(engine, mockws, connected)
            send(mockws, numbers, 100.0 if connected == 1 else 98.0)
            live.wait_ticks(308 + numbers[-1])
            live.ask_to_stop()
            live.running.finish().expect(0)
    assert_sound(live.db)
    assert rows(live.db, "PRAGMA user_version") == [(6,)]
    for table, before in old.items():
        width, now = len(before[0]), tables(live.db)[table]
        assert [row[:width] for row in now[: len(before)]] == before, table
    assert rows(live.db, "SELECT mode, ticks FROM runs ORDER BY id DESC LIMIT 2") == [("PAPER", 2), ("PAPER", 10)]
    assert [notice.kind for notice in notices(live.db, run=4)][:2] == ["RESTART", "LINK_UP"]
    assert rows(live.db, "SELECT fill_qty, fill_price, run FROM trades WHERE liquidity IS NOT NULL") == [
        (1.0, 99.0, 4), (0.5, 99.0, 4)
    ]  # fmt: skip
    assert account(engine)["cash"]["USD"] == 10_000.0


@pytest.mark.parametrize("between", ["SIGTERM", "SIGKILL", "pruned"])
def test_a_restart_continues_open_orders(engine: Engine, tmp_path: Path, between: str) -> None:
    """Events and fills of the first run's order are rows of the second run; RESTART comes first."""
    with MockWsProcess(tmp_path) as mockws:
        live = first_run(engine, mockws)
        live.running.send(signal.SIGKILL if between == "SIGKILL" else signal.SIGTERM)
        assert live.running.finish().code == (-signal.SIGKILL if between == "SIGKILL" else 0)
        assert_paper_sound(live.db)
        assert len(open_orders(live.db)) == 1
        if between == "pruned":
            wait_until(lambda: is_pruned(engine), "the run ended a second ago")
        live = start(engine, mockws, 2)
        send(mockws, range(11, 13), 98.0)
        live.wait_ticks(12)
        live.ask_to_stop()
        live.running.finish().expect(0)
    check_second_run(engine, live)
    if between != "pruned":
        engine.run("--ingest=replay", "--replay-db=x.db", "--db=again.db", "--config=x.toml", "--mode=paper").expect(0)
        assert_replay_same(live.db, engine.path("again.db"))


def test_an_order_outlives_a_kill_and_a_change_of_the_configuration(engine: Engine, tmp_path: Path) -> None:
    """What the killed run did is computed again as it was configured then, and goes on with the new configuration.

    Regression: the open order became another one, whose events collided with the stored ones.
    """
    changed: dict[str, Any] = {
        "execution__order_type": "market", "strategy__desired_size": 0.2, "account__initial_balance": 50.0,
        "risk_caps__max_exposure_usd": 1.0, "paper__latency_ms": 60_000, "breakers__orders_per_minute": 1,
        "execution__fee_rate": 0.002,
    }  # fmt: skip
    with MockWsProcess(tmp_path) as mockws:
        live = first_run(engine, mockws)
        live.running.kill()
        live = Live(engine, f"--ws-url={mockws.url}", "--mode=paper", **{**KEYS, **changed})
        mockws.wait_said(" connected from ", 2)
        send(mockws, range(11, 13), 98.0)
        live.wait_ticks(12)
        live.ask_to_stop()
        live.running.finish().expect(0)
    assert_paper_sound(live.db)
    order = f"{run_ids(live.db)[0]}-0000000008-O"
    assert rows(live.db, f"SELECT run, n, status, tick FROM order_events WHERE order_id = '{order}' ORDER BY id") == [
        (1, 1, "SUBMITTED", 8), (1, 2, "ACKNOWLEDGED", 9), (2, 3, "PARTIAL_FILL", 1), (2, 4, "FILLED", 2),
    ]  # fmt: skip
    assert rows(live.db, "SELECT order_id, fill_qty, fees FROM trades") == [(order, 1.0, 0.198), (order, 0.5, 0.099)]
    assert rows(live.db, "SELECT order_type, qty, status FROM orders WHERE run = 2") == [("MARKET", 0.2, "SUBMITTED")]
    cash = account(engine)["cash"]
    assert cash == {"USD": 10_000.0, "USDC": pytest.approx(-1.5 * 99.0 - 0.297, rel=1e-12)}
