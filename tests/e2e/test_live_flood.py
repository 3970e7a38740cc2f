"""More ticks than the pipeline can process: exit 13, all accepted ticks stored, the rest counted."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mockws_server import actions
from tests.e2e.live import Live, notices, stored_ticks
from tests.e2e.live_peers import ExchangeServer, Talk
from tests.e2e.mockws import MockWsProcess
from tests.e2e.process import Engine, wait_until
from tradebot.core.log_events import LogEvent

ROOM = 200
SIZES: dict[str, Any] = {"channels__tick_channel_size": ROOM, "channels__persist_channel_size": ROOM}


@pytest.mark.slow
def test_a_flood_meets_a_slow_strategy(engine: Engine, tmp_path: Path) -> None:
    """G5, S6: mockws sends at full speed: exit 13 naming the strategy; a restart reports what was missed."""
    count = 20_000
    with MockWsProcess(tmp_path) as mockws:
        live = Live(engine, f"--ws-url={mockws.url}", delays_s={"tradebot-strategy": 0.005}, **SIZES)
        mockws.wait_said(" connected from ")
        mockws.control(actions.Burst(count))
        stored = assert_overloaded(live, "strategy")
        assert stored < count
        wait_until(lambda: mockws.health()["ticks"] == count, "the end of the flood")
        again = Live(engine, f"--ws-url={mockws.url}")
        mockws.wait_said(" connected from ", 2)
        mockws.control(actions.Ticks(10, 1000.0))
        again.wait_ticks(stored + 10)
        again.stop()
    assert [gap.missing for gap in notices(live.db, "GAP")] == [count - stored]


@pytest.mark.slow
def test_a_flood_meets_a_slow_writer(engine: Engine, tmp_path: Path) -> None:
    """G5, S6, I6: a database locked by another program: exit 13 naming the writer; afterwards everything is stored.

    The spill file has space for only a small part of the flood, so that the channels fill.
    """
    with MockWsProcess(tmp_path) as mockws:
        live = Live(engine, f"--ws-url={mockws.url}", **SIZES, persist__spill_max_mb=1)
        live.wait_notice("LINK_UP")
        with closing(sqlite3.connect(live.db, timeout=30, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            mockws.control(actions.Burst(40_000))
            live.running.wait_for(LogEvent.OVERLOAD)
        assert_overloaded(live, "persist")


def assert_overloaded(live: Live, stage: str) -> int:
    """Only the refused tick is missing, and the bounds held. Returns the stored ticks."""
    done = live.end(13)
    ledger, overload, final = done.ledger, done.one(LogEvent.OVERLOAD), done.one(LogEvent.FINAL_METRICS)
    stored: int = ledger["stored"]
    assert (overload["stage"], overload["depths"]["tick"]) == (stage, ROOM)
    assert overload["refused"] == ledger["refused"] == 1
    assert (final["bp_drops_tick"], final["bp_drops_persist"]) == (1, stage == "persist")
    assert ledger["received"] == ledger["accepted"] + 1 == stored + 1
    assert stored >= ROOM - 1  # the notice that the link is up takes room too
    assert [tick.seq for tick in stored_ticks(live.db)] == list(range(1, stored + 1))
    assert max(final[f"{name}_high_water"] for name in ("tick", "persist")) <= ROOM
    return stored


def test_a_frame_with_more_trades_than_there_is_room_for(engine: Engine) -> None:
    """The trades that fit are stored, the rest of the frame is refused, the next frame is never read."""
    trades = [
        {"trade_id": number, "product_id": "BTC-USD", "price": "100.5", "size": "1", "side": "BUY",
         "time": "2026-01-02T03:04:05.678Z"}
        for number in range(1, 1001)
    ]  # fmt: skip

    def frame(some: list[dict[str, object]]) -> str:
        return json.dumps({"channel": "market_trades", "events": [{"type": "update", "trades": some}]})

    def talk(this: Talk) -> None:
        this.hear()
        this.say(*[frame(trades[at : at + 50]) for at in range(0, 200, 50)], frame(trades[200:]), frame(trades))
        this.listen()

    with ExchangeServer(talk) as server:
        live = Live(
            engine, "--ingest=realws", "--exchange=coinbase", "--symbol=BTC-USD", f"--ws-url={server.url}",
            delays_s={"tradebot-strategy": 0.05}, channels__tick_channel_size=ROOM,
        )  # fmt: skip
        done = live.end(13)
    ledger = done.ledger
    seqs = [tick.seq for tick in stored_ticks(live.db)]
    assert seqs == list(range(1, ledger["stored"] + 1))
    frame_end = next(end for end in (50, 100, 150, 200, 1000) if end > len(seqs))
    assert done.one(LogEvent.OVERLOAD)["refused"] == ledger["refused"] == frame_end - len(seqs) > 0
    assert ledger["received"] == frame_end
