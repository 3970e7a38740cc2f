"""Repeated SIGKILLs of an engine with a live feed, each followed by a restart on the same database."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from mockws_server import actions
from sim.checks.checkers import check_run
from tests.e2e.live import Live, StoredTick, assert_feed_sound, notices, stored_ticks
from tests.e2e.mockws import MockWsProcess
from tests.e2e.process import Engine, counts, rows, run_ids, ticks_stored, wait_until
from tradebot.config.model import Config
from tradebot.core.events import Tick
from tradebot.core.log_events import LogEvent
from tradebot.strategy.registry import create

KILLS = 4
SYMBOLS = ("SOL/USDC", "BTC/USD")
SCENARIO = f"""
description = "lively, with gaps and losses"
symbols = {list(SYMBOLS)}
repeat = true
[[step]]
do = "ticks"
count = 150
per_s = 500
[[step]]
do = "skip"
count = 5
[[step]]
do = "ticks"
count = 100
per_s = 500
[[step]]
do = "disconnect"
code = 1011
"""


def signals_of(ticks: list[StoredTick], config: Config) -> list[tuple[int, str, str]]:
    """Index of the tick, symbol and side of each signal of an uninterrupted run over `ticks`."""
    strategy = create(config.strategy.name, config)
    found: list[tuple[int, str, str]] = []
    for index, tick in enumerate(ticks):
        one = Tick(tick.symbol, tick.price, tick.volume, tick.ts)
        found += [(index, tick.symbol, decision.side) for decision in strategy.on_ticks(tick.symbol, [one])]
    return found


def signals_stored(db: Path, ticks: list[StoredTick]) -> list[tuple[int, str, str]]:
    """The same for the stored signals, in the order of the ticks; a signal's id contains the number of its tick."""
    first = {run: [tick.run for tick in ticks].index(run) for run in {tick.run for tick in ticks}}
    query = "SELECT run, event_id, symbol, kind FROM signals ORDER BY id"
    return [
        (first[run] + int(event_id.rsplit("-", 2)[1]) - 1, symbol, kind.partition(":")[0])
        for run, event_id, symbol, kind in rows(db, query)
    ]


def assert_strategy_went_on(db: Path, config: Config) -> None:
    """The signals are those of one run over all stored ticks, except that the last one before a kill may be missing."""
    ticks = stored_ticks(db)
    wanted, held = signals_of(ticks, config), signals_stored(db, ticks)
    for run in sorted({tick.run for tick in ticks}):
        of_run = [[one for one in signals if ticks[one[0]].run == run] for signals in (wanted, held)]
        assert of_run[1] == of_run[0][: len(of_run[1])], f"run {run}"
        killed = rows(db, f"SELECT exit_code FROM runs WHERE id = {run}") == [(None,)]
        assert killed or len(of_run[1]) == len(of_run[0]), f"run {run}"
    assert len({ticks[index].run for index, _symbol, _side in held}) > KILLS // 2, "signals in too few runs to tell"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_kill_and_restart_a_live_feed(engine: Engine, tmp_path: Path, seed: int) -> None:
    """Intact file, no duplicate tick, no row without its cause; numbers, windows and positions continue.

    The next run reports the gaps of the time in between, in the right place.
    """
    chance = random.Random(seed)
    (tmp_path / "lively.toml").write_text(SCENARIO)
    with MockWsProcess(tmp_path, "--scenario=./lively.toml") as mockws:
        for _ in range(KILLS):
            batch, early = chance.choice((1, 10, 100)), chance.random() < 0.25
            live = Live(engine, f"--ws-url={mockws.url}", persist__batch_size=batch, persist__flush_interval_ms=100)
            db, before = live.db, ticks_stored(live.db)
            if early:
                live.running.wait_for(LogEvent.LINK_UP)
            else:
                live.wait_ticks(before + chance.randint(20, 250))
            time.sleep(chance.random() * 0.02)  # so that kills occur between two transactions as well as within one
            assert live.running.kill().code == -signal.SIGKILL
            assert_feed_sound(db)
            check_run(db, live.config, run_ids(db)[-1], whole=False)
        last = Live(engine, f"--ws-url={mockws.url}")
        before = ticks_stored(last.db)
        last.wait_ticks(before + 100)
        done = last.stop()
    assert done.one(LogEvent.CARRIED_OVER)["ticks"] == before
    assert_strategy_went_on(last.db, last.config)
    ticks = stored_ticks(last.db)
    assert {tick.symbol for tick in ticks} == set(SYMBOLS)
    # Ticks are nearly always missed between the last tick of a run and the first of the next.
    later = sorted({tick.run for tick in ticks})[1:]
    told = [run for run in later if any(gap.ticks_before == 0 for gap in notices(last.db, "GAP", run))]
    assert len(told) > len(later) // 2
    assert len(later) >= KILLS // 2


def test_a_kill_while_the_link_is_down(engine: Engine, tmp_path: Path) -> None:
    """The missing trades of both runs are one gap of the next run, which also continues the position."""
    keys: dict[str, Any] = {"strategy__name": "periodic", "engine__signal_every_n_ticks": 5}
    with MockWsProcess(tmp_path) as mockws:
        first = Live(engine, f"--ws-url={mockws.url}", **keys)
        mockws.wait_said(" connected from ")
        for seq in range(1, 6):
            mockws.tick(seq=seq, ts=1_700_000_000_000 + seq)
        first.wait_ticks(5)
        mockws.control(actions.Refuse(seconds=60))
        mockws.control(actions.Disconnect(1013))
        first.wait_notice("LINK_LOST")
        wait_until(lambda: counts(first.db)["trades"] == 1, "the fill of the fifth tick")
        assert first.running.kill().code == -signal.SIGKILL
        mockws.control(actions.Refuse(seconds=0.001))
        second = Live(engine, f"--ws-url={mockws.url}", **keys, risk_caps__max_symbol_exposure_usd=0.0)
        mockws.wait_said(" connected from ", 2)
        for seq in (4, 5, *range(9, 19)):
            mockws.tick(seq=seq, ts=1_700_000_000_000 + seq)
        second.wait_ticks(15)
        ledger = second.stop().ledger
    assert (ledger["received"], ledger["duplicates"], ledger["stored"]) == (12, 2, 10)
    assert rows(second.db, "SELECT side, status, reason FROM orders ORDER BY id") == [
        ("SELL", "FILLED", "SHADOW_RECORDED"), ("BUY", "FILLED", "SHADOW_RECORDED"), ("SELL", "REJECTED", "RISK_CAP")
    ]  # fmt: skip
    assert [(notice.kind, notice.missing) for notice in notices(second.db)] == [
        ("LINK_UP", None), ("LINK_LOST", None), ("LINK_UP", None), ("GAP", 3)
    ]  # fmt: skip
