"""`--replay-db` of a run with a live feed: the same signals, orders, trades and notices, run ids aside."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

from mockws_server import actions
from tests.e2e.live import Live, notices
from tests.e2e.mockws import MockWsProcess
from tests.e2e.process import Engine, rows, run_ids, ticks_stored, wait_for_ticks, wait_until
from tradebot.core.log_events import LogEvent
from tradebot.execution.timing import TIMING_REASONS

TABLES = ("ticks", "signals", "orders", "trades")
PERIODIC: dict[str, Any] = {"strategy__name": "periodic", "engine__signal_every_n_ticks": 1}


def of_run(db: Path, table: str, run_id: str) -> list[tuple[Any, ...]]:
    """The rows of a run without row id, run and the run part of ids, in the order of their ids."""
    found = rows(db, f"SELECT * FROM {table} WHERE run = (SELECT id FROM runs WHERE run_id = '{run_id}') ORDER BY id")
    names = [row[1] for row in rows(db, f"PRAGMA table_info({table})")]
    kept = [index for index, name in enumerate(names) if name not in ("id", "run")]
    told = [
        tuple(value.replace(run_id, "RUN") if isinstance(value, str) else value for value in map(row.__getitem__, kept))
        for row in found
    ]
    # A signal without room is refused by another thread than the others, so row ids do not order the orders.
    return sorted(told, key=str) if table == "orders" else told


def replay(engine: Engine, name: str, db: Path, *options: str) -> Path:
    engine.run("--ingest=replay", f"--replay-db={db}", f"--db={name}", "--config=x.toml", *options).expect(0)
    return engine.path(name)


def assert_same(db: Path, run_id: str, again: Path) -> None:
    """The replay in `again` has the rows of the run, and its notices."""
    [copy] = run_ids(again)
    for table in (*TABLES, "notices"):
        assert of_run(again, table, copy) == of_run(db, table, run_id), table


def reasons(db: Path, run_id: str) -> dict[str, int]:
    found = rows(db, "SELECT reason, count(*), run FROM orders GROUP BY reason, run")
    [(no,)] = rows(db, f"SELECT id FROM runs WHERE run_id = '{run_id}'")
    return {reason: count for reason, count, run in found if run == no}


def wait_for_orders(live: Live, count: int) -> None:
    """Wait until all ticks so far have become orders, of which no signal is left on its way."""
    live.wait_ticks(count)
    wait_until(lambda: rows(live.db, "SELECT count(*) FROM orders") == [(count,)], f"{count} orders")


def test_links_gaps_stale_and_dropped_signals(engine: Engine, tmp_path: Path) -> None:
    """S8, S7: what depended on time is repeated: signals too old for the clock, or without room, are refused again."""
    with MockWsProcess(tmp_path) as mockws:
        live = Live(
            engine, f"--ws-url={mockws.url}", delays_s={"tradebot-execution": 0.02}, **PERIODIC,
            execution__max_tick_age_ms=60_000, channels__signal_channel_size=2,
        )  # fmt: skip
        mockws.wait_said(" connected from ")
        mockws.control(actions.Burst(100))  # faster than execution
        wait_for_orders(live, 100)
        for number in range(8):  # every second tick is ten minutes old
            mockws.tick(price=100.0 + number, ts=time.time_ns() // 1_000_000 - 600_000 * (number % 2))
            wait_for_orders(live, 101 + number)
        for losses in (1, 2):
            mockws.control(actions.Skip(2))
            mockws.control(actions.Burst(52))
            live.wait_ticks(58 + 50 * (losses + 1))
            mockws.control(actions.Disconnect(1012))
            live.wait_notice("LINK_RESTORED", losses)
            mockws.wait_clients(1)
        live.stop()
    [run_id] = run_ids(live.db)
    counted = reasons(live.db, run_id)
    assert counted["STALE_DATA"] and counted["BP_DROP_SIGNAL"] and counted["SHADOW_RECORDED"], counted
    kinds = {notice.kind for notice in notices(live.db)}
    assert kinds == {"LINK_UP", "LINK_LOST", "LINK_RESTORED", "GAP"}
    again = replay(engine, "again.db", live.db)
    assert_same(live.db, run_id, again)
    assert reasons(again, run_ids(again)[0]) == counted
    # A replay of the replay has the same input, and with it the same id, cut at a kill or not.
    resumed = killed_and_resumed(engine, "third.db", again)
    assert run_ids(resumed) == run_ids(again)
    assert_same(again, run_ids(again)[0], resumed)
    # Other sizes and batches, and a paced replay, change nothing.
    paced = replay(engine, "paced.db", live.db, "--speed=200x", "--set=channels.tick_channel_size=1")
    assert run_ids(paced) == run_ids(again)
    assert_same(live.db, run_id, paced)
    # Also PAPER refuses the signals that the run refused.
    paper = replay(engine, "paper.db", live.db, "--mode=paper")
    in_paper = reasons(paper, run_ids(paper)[0])
    assert {reason: in_paper[reason] for reason in TIMING_REASONS} == {r: counted[r] for r in TIMING_REASONS}


def killed_and_resumed(engine: Engine, name: str, db: Path, *more: str) -> Path:
    """A replay that is killed after some of its batches, then resumed."""
    options = ("--ingest=replay", f"--replay-db={db}", f"--db={name}", "--config=x.toml", "--resume", *more)
    running = engine.start(*options, "--speed=1x", "--set=persist.batch_size=7")
    wait_for_ticks(engine.path(name), 20)
    running.kill()
    assert rows(engine.path(name), "SELECT complete FROM runs") == [(0,)]
    engine.run(*options).expect(0)
    return engine.path(name)


def test_a_halt_is_repeated_without_its_file(engine: Engine) -> None:
    """The replay reads no halt file: it is halted where the run was, and nowhere else."""
    config = engine.config(
        "x.toml",
        '[engine]\ntick_interval_ms = 5\nsignal_every_n_ticks = 1\n[strategy]\nname = "periodic"\n'
        "[persist]\nflush_interval_ms = 20\n",
    )
    running = engine.start(config, "--ingest=synthetic", "--db=live.db")
    live = engine.path("live.db")
    wait_for_ticks(live, 20)
    engine.run("halt", "--db=live.db", "--reason=news").expect(0)
    wait_for_ticks(live, ticks_stored(live) + 50)
    engine.run("resume", "--db=live.db").expect(0)
    wait_for_ticks(live, ticks_stored(live) + 50)
    engine.run("halt", "--db=live.db", "--reason=night").expect(0)
    wait_for_ticks(live, ticks_stored(live) + 20)
    running.send(signal.SIGTERM)
    running.finish().expect(0)
    [run_id] = run_ids(live)
    assert reasons(live, run_id)["HALTED"]
    assert_same(live, run_id, replay(engine, "again.db", live))


def test_nothing_is_sampled_again(engine: Engine, tmp_path: Path) -> None:
    """The ticks of a stored run are those that sampling left; the same configuration replays all of them."""
    with MockWsProcess(tmp_path) as mockws:
        live = Live(engine, f"--ws-url={mockws.url}", **PERIODIC, engine__sample_every=3)
        mockws.wait_said(" connected from ")
        mockws.control(actions.Burst(60))
        live.wait_ticks(20)
        live.ask_to_stop()
        live.running.finish().expect(0)
    [run_id] = run_ids(live.db)
    done = engine.run("--ingest=replay", f"--replay-db={live.db}", "--db=again.db", "--config=x.toml").expect(0)
    assert done.one(LogEvent.SAMPLING_IGNORED)["sample_every"] == 3
    assert done.ledger["sampled_out"] == 0
    assert_same(live.db, run_id, engine.path("again.db"))
    plain = replay(engine, "plain.db", live.db, "--sample-every=1")
    assert run_ids(plain) == run_ids(engine.path("again.db"))  # the same results, so the same run


PAPER: dict[str, Any] = {
    **PERIODIC, "engine__signal_every_n_ticks": 3, "paper__latency_ms": 0, "paper__participation": 0.05,
    "execution__order_type": "limit", "execution__limit_offset_bps": 2.0,
    "persist__batch_size": 5, "risk_caps__max_open_orders": 50,
}  # fmt: skip
ALL_TABLES = (*TABLES, "order_events", "notices")


def joined_runs(db: Path, table: str) -> list[tuple[Any, ...]]:
    """The rows of a table as those of one run: ids of runs and numbers of their ticks become those of the first."""
    runs = rows(db, "SELECT id, run_id, ticks FROM runs ORDER BY id")
    names = [row[1] for row in rows(db, f"PRAGMA table_info({table})")]
    before = {no: sum(ticks for other, _id, ticks in runs if other < no) for no, _id, _ticks in runs}
    offsets = {run_id: before[no] for no, run_id, _ticks in runs}

    def value(name: str, given: Any, no: int) -> Any:
        if name in ("tick", "ticks_before"):
            return None if given is None else given + before[no]
        if isinstance(given, str) and given.split("-")[0] in offsets:
            run_id, number, *rest = given.split("-")
            return "-".join([f"{int(number) + offsets[run_id]:010d}", *rest])
        return given

    found = []
    for row in rows(db, f"SELECT * FROM {table} ORDER BY id"):
        no = row[names.index("run")]
        named = [(name, each) for name, each in zip(names, row, strict=True) if name not in ("id", "run")]
        found.append(tuple(value(name, each, no) for name, each in named))
    return found


def test_a_paper_run_with_restarts(engine: Engine, tmp_path: Path) -> None:
    """Three kills, gaps, a lost link, a halt and a resume: the runs of the feed are replayed as one.

    Orders, their events and fills are the same, also of orders that were open across a restart.
    """
    with MockWsProcess(tmp_path) as mockws:
        for part in range(4):
            live = Live(engine, "--mode=paper", f"--ws-url={mockws.url}", **PAPER)
            mockws.wait_clients(1)
            live.wait_notice("LINK_UP", part + 1)
            mockws.control(actions.Burst(40))
            live.wait_ticks(100 * part + 40)
            {1: halt, 2: resume}.get(part, lambda *_: None)(engine, live)
            mockws.control(actions.Skip(3))
            mockws.control(actions.Burst(33))
            live.wait_ticks(100 * part + 70)
            if part == 0:
                mockws.control(actions.Disconnect(1012))
                live.wait_notice("LINK_RESTORED")
                mockws.wait_clients(1)
            mockws.control(actions.Burst(30))
            live.wait_ticks(100 * (part + 1))  # so that the kill loses none
            if part < 3:
                live.running.kill()
                mockws.wait_clients(0)
        live.ask_to_stop()
        live.running.finish().expect(0)
    later = run_ids(live.db)[1:]
    met = [notice.kind for notice in notices(live.db)]
    assert met.count("RESTART") == len(later) == 3
    assert {"GAP", "LINK_LOST", "HALT", "RESUME"} < set(met)
    across = "FROM trades t JOIN orders o ON o.event_id = t.order_id WHERE o.run < t.run AND after_gap = 1"
    assert rows(live.db, f"SELECT count(*) {across}") != [(0,)], "no order was filled after a restart"
    assert rows(live.db, "SELECT count(*) FROM orders WHERE reason = 'HALTED'") != [(0,)]
    replayed = ("--ingest=replay", f"--replay-db={live.db}", "--config=x.toml", "--mode=paper")
    done = engine.run(*replayed, "--db=again.db").expect(0)
    assert done.one(LogEvent.RUNS_JOINED)["runs"] == 4
    assert f"run:{later[-1]} and the 3 before it" in done.stdout
    assert_joined_same(live.db, engine.path("again.db"))
    assert_joined_same(live.db, killed_and_resumed(engine, "resumed.db", live.db, "--mode=paper"))
    # An earlier run of the chain can be chosen; it is replayed with those before it.
    done = engine.run(*replayed, f"--replay-run={later[0]}", "--db=part.db").expect(0)
    assert done.one(LogEvent.RUNS_JOINED)["runs"] == 2
    whole = joined_runs(engine.path("again.db"), "orders")
    assert joined_runs(engine.path("part.db"), "orders") == whole[: len(joined_runs(engine.path("part.db"), "orders"))]


def halt(engine: Engine, live: Live) -> None:
    """From now on, orders that add exposure are refused."""
    engine.run("halt", f"--db={live.db}", "--reason=news").expect(0)
    live.wait_notice("HALT")


def resume(engine: Engine, live: Live) -> None:
    """No longer."""
    engine.run("resume", f"--db={live.db}").expect(0)
    live.wait_notice("RESUME")


def assert_joined_same(db: Path, again: Path) -> None:
    """The replay in `again` has the rows of all runs in `db`."""
    for table in ALL_TABLES:
        found, wanted = joined_runs(again, table), joined_runs(db, table)
        assert found and found == wanted, table
