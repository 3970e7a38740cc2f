"""PAPER across restarts of a live feed: open orders, positions and the balance go on, by the ticks that are there."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.live import Live, notices
from tests.e2e.mockws import MockWsProcess
from tests.e2e.paper import assert_paper_sound, assert_replay_same, open_orders
from tests.e2e.process import Engine, rows, run_ids, wait_until

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
