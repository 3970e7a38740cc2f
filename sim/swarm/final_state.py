"""What must be true of the database after all processes of a swarm history. Checks raise AssertionError."""

from __future__ import annotations

import sqlite3

from sim.checks.caps import check_caps
from sim.checks.checkers import check_database, check_feed, check_run
from sim.checks.deadlines import check_ages
from sim.checks.input_model import check_replayed, check_walk
from sim.checks.paper import check_paper_run
from sim.kernel.clock import START_MS
from sim.swarm.invariants import naming_process
from sim.swarm.plan import MOCKWS, REPLAY, SYNTHETIC
from sim.swarm.swarm import ProcessRun, Swarm
from tradebot.core.events import BP_DROP_SIGNAL, INT64_MAX, Tick
from tradebot.core.log_events import LogEvent


def check_final_state(swarm: Swarm) -> None:
    """Check the database after all processes."""
    world, plan = swarm.world, swarm.plan
    if not world.db_path.exists():
        return
    db = sqlite3.connect(world.db_path)
    try:
        if not db.execute("SELECT name FROM sqlite_master WHERE name = 'runs'").fetchall():
            return
        runs = [no for (no,) in db.execute("SELECT id FROM runs ORDER BY id")]
        check_database(world.db_path)
        config = swarm.settings(None).config
        if config.mode == "SHADOW":  # caps of PAPER count open orders: the reference judges them
            check_caps(db, runs, config.risk_caps)
        for process_run in swarm.process_runs:
            with naming_process(process_run.process.number):
                _check_rows(swarm, process_run, db)
        if plan.feed == SYNTHETIC:
            check_walk(db, runs)
        elif plan.feed == REPLAY:
            rows = db.execute("SELECT symbol, price, volume, ts, event_id, seq, taker FROM ticks ORDER BY id")
            last = swarm.process_runs[-1]
            lost = last.process.loss is not None and bool(last.process.loss.ticks)
            whole = last.outcome.exit_code == 0 and not last.injector.signals_s and not lost
            check_replayed([Tick(*row) for row in rows], swarm.lines, config.engine.sample_every, whole)
    finally:
        db.close()
    if swarm.exchange is not None:
        renumbered = not {"numbering", "numbers_restart", "price_spikes"}.isdisjoint(plan.kinds)
        check_feed(world.db_path, swarm.settings(None), swarm.exchange, world.outcomes, once=not renumbered)


def _check_rows(swarm: Swarm, process_run: ProcessRun, db: sqlite3.Connection) -> None:
    """The rows of a process's run match the reference and the counts that it reported."""
    outcome, plan = process_run.outcome, swarm.plan
    if not outcome.events(LogEvent.START):
        return
    run_id = str(outcome.event(LogEvent.START)["run_id"])
    ended = bool(outcome.events(LogEvent.LEDGER))
    ledger = outcome.event(LogEvent.LEDGER) if ended else {}
    all_kept = ended and ledger["not_stored"] == ledger["spilled"] and outcome.exit_code != 1
    lost = outcome.events(LogEvent.NOT_STORED)
    given_up = bool(lost and lost[-1]["events_lost"]) or bool(outcome.events(LogEvent.DRAIN_TIMEOUT))
    whole = all_kept and not given_up
    if plan.feed == REPLAY:  # only the process that reached the end must have completed it, the others are resumed
        whole = process_run is swarm.process_runs[-1] and outcome.exit_code == 0 and not process_run.injector.signals_s
    loss = process_run.process.loss
    whole = whole and not (outcome.lost if plan.feed != REPLAY else loss is not None and loss.ticks)
    full = plan.values["persist.synchronous"] == "FULL"
    assert not (full and outcome.lost), f"{outcome.lost} ticks were stored under synchronous=FULL, and are lost"
    # A process killed after its ledger may not have valued them at the last prices.
    valued = outcome.exit_code is not None and process_run.process.observer.began
    observer, config = process_run.process.observer, swarm.settings(None).config
    if config.mode == "PAPER":
        check_paper_run(swarm.world.db_path, config, run_id, observer.account if whole and valued else None)
    else:
        check_run(swarm.world.db_path, config, run_id, whole, observer.positions if ended and valued else None)
    # A process killed between its ledger and its last line has not logged them.
    description = bool(outcome.events(LogEvent.FINAL_METRICS))
    if whole and description and plan.feed == MOCKWS and swarm.process_runs[-1].process.observer.began:
        refused = sum(event.get("notices_refused", 0) for event in outcome.events(LogEvent.OVERLOAD))
        _check_notices(db, run_id, outcome.event(LogEvent.FINAL_METRICS), refused)
    query = "SELECT reason, ts FROM orders WHERE run = (SELECT id FROM runs WHERE run_id = ?) AND reason != ?"
    max_age_ms = swarm.settings(None).config.execution.max_tick_age_ms
    check_ages(db.execute(query, (run_id, BP_DROP_SIGNAL)), max_age_ms, _wall_ms(swarm, process_run))
    if plan.feed == REPLAY or not process_run.process.observer.began:
        return
    found = db.execute(
        "SELECT COUNT(*) FROM ticks WHERE run = (SELECT id FROM runs WHERE run_id = ?)", (run_id,)
    ).fetchone()[0]
    if not ended:
        least = process_run.process.observer.ticks_kept - outcome.lost
        assert found >= least, f"{found} ticks are stored; before it was killed {least} were, or in the spill file"
        return
    kept = ledger["stored"] + ledger["spilled"] - outcome.lost
    # Rows that failing storage committed despite an error count as lost.
    most = ledger["accepted"] if outcome.events(LogEvent.STORAGE_FAILED) else kept
    assert kept <= found <= most, f"{found} ticks are stored; the ledger says {ledger}"


def _check_notices(db: sqlite3.Connection, run_id: str, metrics: dict[str, int], refused: int) -> None:
    """All gaps and restored links of a run are stored, except for `refused` notices of an overload."""
    query = "SELECT COUNT(*) FROM notices WHERE run = (SELECT id FROM runs WHERE run_id = ?) AND kind = ?"
    for kind, counter in (("GAP", "gaps"), ("LINK_RESTORED", "reconnects")):
        found, description = db.execute(query, (run_id, kind)).fetchone()[0], metrics[counter]
        assert description - refused <= found <= description, (
            f"{found} notices {kind} are stored, {description} were told"
        )


def _wall_ms(swarm: Swarm, process_run: ProcessRun) -> tuple[int, int] | None:
    """The range of the engine's wall clock in a process; None: a replay does not use it."""
    if swarm.plan.feed == REPLAY:
        return None
    if process_run.faulty and "wall_jumps" in swarm.plan.kinds:
        return -INT64_MAX, INT64_MAX
    return START_MS, START_MS + int(process_run.outcome.sim_s * 1000) + 1
