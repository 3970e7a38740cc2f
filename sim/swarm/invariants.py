"""What must be true of a swarm history, whatever happened in it. Checks raise AssertionError with what is wrong."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Final

from sim.checks.caps import check_caps
from sim.checks.checkers import check_database, check_feed, check_outcome, check_run
from sim.checks.deadlines import (
    SLACK_S,
    check_ages,
    check_attempts,
    check_drain,
    check_overload,
    check_patience,
    first_stop_s,
)
from sim.checks.feed_model import FeedModel, Item, MalformedItem
from sim.checks.input_model import check_replayed, check_walk, ticks_of_lines
from sim.kernel.clock import START_MS
from sim.swarm.oracle import ProcessFacts, describe, expected_exit, unexplained
from sim.swarm.plan import MOCKWS, REPLAY, SYNTHETIC
from sim.swarm.swarm import ProcessRun, Swarm, check_live
from sim.world.world import ProcessOutcome
from tradebot.core.events import BP_DROP_SIGNAL, INT64_MAX, Tick
from tradebot.feeds.exchanges import EXCHANGES
from tradebot.store.policy import FINAL_FLUSH_S
from tradebot.telemetry.publisher import EVERY_S

_BEAT_SLACK_S: Final = 0.2
_CROWDING: Final = frozenset({"slow_persist", "slow_strategy", "slow_execution", "spill_fails", "disk_errors", "crash"})
"""What fills channels, or keeps events out of the spill file."""
_AT_WORK_S: Final = 20.0
"""For so long a stage may be at work on something."""
_LOOKS_S: Final = 2.5
"""Two looks of the main thread, from the first of which a stage counts as standing still."""


def check_process(swarm: Swarm) -> None:
    """Check the process that ended last."""
    process_run = swarm.process_runs[-1]
    with _about(process_run.process.number):
        facts = facts_of(swarm, process_run)
        allowed, code = expected_exit(facts), process_run.outcome.exit_code
        description = "killed" if code is None else f"exit code {code}"
        assert code in allowed, f"{description}, but what happened means {_listed(allowed)}: {describe(facts)}"
        _check_logs(swarm, process_run)
        check_heartbeat(process_run)
        check_watchdog(process_run, _patience_s(swarm))
        check_deadlines(swarm, process_run)
        check_live(process_run, swarm.plan, swarm.exchange)
        _check_end(swarm, process_run)


@contextmanager
def _about(number: int) -> Iterator[None]:
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"process {number}: {error}") from error


def _listed(codes: frozenset[int | None]) -> str:
    return ", ".join(sorted("killed" if code is None else str(code) for code in codes)) or "none at all"


# ---- one process ---------------------------------------------------------------------------------------------------


def facts_of(swarm: Swarm, process_run: ProcessRun) -> ProcessFacts:
    """What happened to a process, for the oracle."""
    process, outcome, plan = process_run.process, process_run.outcome, swarm.plan
    observer, storage = process.observer, process.storage
    push = plan.feed != REPLAY
    unreadable = surely = 0
    if plan.feed == MOCKWS:
        unreadable, surely = _unreadable(swarm, process_run, sure=False), _unreadable(swarm, process_run, sure=True)
    budget = plan.values["feed.reconnect_budget_s"] if plan.feed == MOCKWS else None
    assert budget is None or isinstance(budget, float)
    limit = plan.values["feed.parse_error_limit"]
    assert isinstance(limit, int)
    strict = bool(plan.options.get("strict")) and ticks_of_lines(swarm.lines)[1] > 0
    return ProcessFacts(
        ended_s=outcome.sim_s,
        killed=process.runtime.was_killed,
        began=observer.began,
        signals_s=tuple(process_run.injector.signals_s),
        run_seconds=process_run.run_seconds,
        fed_out=not push
        and (_fed_out(process_run) or any(_may_be_complete(other) for other in swarm.process_runs[:-1])),
        crashed=process.seam.crashed,
        refused=observer.channels[0].refused if observer.began and push else 0,
        file_moved_s=process_run.injector.file_moved_s,
        disk_failing_s=process_run.injector.disk_failing_s,
        storage_retry_s=float(str(plan.values["persist.storage_retry_s"])),
        storage_failing=storage is not None and storage.failing,
        over_s=_ledger_s(outcome),
        end_unrecorded=bool(outcome.events("FINISH_FAILED")),
        drain_timed_out=bool(outcome.events("DRAIN_TIMEOUT"))
        or any(line["fields"]["message"] == "stages did not end" for line in outcome.logs),
        no_handshake_s=_no_handshake_s(process_run),
        budget_s=budget,
        unreadable=unreadable,
        surely_unreadable=surely,
        unreadable_limit=limit,
        strict_malformed=strict,
    )


def _fed_out(process_run: ProcessRun) -> bool:
    return _read_to_its_end(process_run) and process_run.outcome.exit_code == 0


def _may_be_complete(process_run: ProcessRun) -> bool:
    """A process that was killed may have recorded its end just before (seed 128)."""
    return _read_to_its_end(process_run) and process_run.outcome.exit_code in (0, None)


def _read_to_its_end(process_run: ProcessRun) -> bool:
    feed = process_run.process.observer.feed
    return feed is not None and feed.ended


def _ledger_s(outcome: ProcessOutcome) -> float | None:
    """When the process accounted for everything."""
    for at_s, line in zip(outcome.times_s, outcome.logs, strict=True):
        if line["fields"].get("event") == "LEDGER":
            return at_s
    return None


def _no_handshake_s(process_run: ProcessRun) -> float:
    """The longest time without a completed handshake that was still going on when the process stopped reading.

    Less what the server asked to be left alone for.
    """
    network = process_run.process.network
    if network is None or not network.dialled_at_s:
        return 0.0
    since_s = network.dialled_at_s[0]
    if network.sessions:
        over_s = network.sessions[-1].over_s
        if over_s is None:
            return 0.0
        since_s = over_s
    asked_s = sum(attempt.retry_after_s or 0.0 for attempt in network.attempts if attempt.began_s >= since_s)
    return process_run.outcome.sim_s - since_s - asked_s


def _unreadable(swarm: Swarm, process_run: ProcessRun, sure: bool) -> int:
    """The longest row of unreadable messages among those that the process's connections handed out."""
    network, settings = process_run.process.network, swarm.settings(None)
    assert network is not None and settings.live is not None
    adapter = EXCHANGES[settings.live.exchange]
    longest = row = 0
    for number, session in enumerate(network.sessions, start=1):
        exchange = adapter()
        texts = session.texts
        if sure and number == len(network.sessions):
            texts = texts[: session.before_last]
        for item in _readable(FeedModel(adapter, (), True), exchange, texts):
            row = 0 if item else row + 1
            longest = max(longest, row)
    return longest


def _readable(account: FeedModel, exchange: object, texts: list[str]) -> Iterator[bool]:
    for text in texts:
        items: list[Item] = list(account._message(exchange, text))  # type: ignore[arg-type]
        yield not any(isinstance(item, MalformedItem) for item in items)


def _check_logs(swarm: Swarm, process_run: ProcessRun) -> None:
    first = process_run.process.number == 1
    kinds = swarm.plan.kinds if process_run.faulty else ()
    found = unexplained(process_run.outcome.logs, kinds, None if first else swarm.plan.kinds)
    assert not found, f"no fault explains: {found[0]}" + (f" (and {len(found) - 1} more)" if len(found) > 1 else "")


def check_watchdog(process_run: ProcessRun, patience_s: float) -> None:
    """The watchdog is fed about once a second from READY to the end of the pipeline, unless a stage hangs.

    From there on it is fed for 20 s at least, and for no longer than the stage may be patient with others.
    """
    manager, outcome, hung = process_run.process.manager, process_run.outcome, process_run.injector.hung
    if manager.ready_s is None:
        return
    ledger_s = _ledger_s(outcome)
    end_s = outcome.sim_s if ledger_s is None else ledger_s
    fed_s = [at_s for at_s in manager.alive_s if at_s <= end_s]
    if hung is not None:
        stage, since_s = hung
        bites_s = since_s + _AT_WORK_S + patience_s + _LOOKS_S
        late_s = [at_s for at_s in fed_s if at_s > bites_s]
        assert not late_s, f"the watchdog was fed at {late_s[0]:.3f} s, but {stage} has hung since {since_s:.3f} s"
        end_s = min(end_s, since_s + _AT_WORK_S)
        fed_s = [at_s for at_s in fed_s if at_s <= end_s]
    for one, other in pairwise([manager.ready_s, *fed_s, end_s]):
        assert other - one <= EVERY_S + _BEAT_SLACK_S, f"the watchdog was not fed from {one:.3f} s to {other:.3f} s"


def _patience_s(swarm: Swarm) -> float:
    """How long a stage may have to wait for the writer, and that for the storage."""
    values = swarm.plan.values
    return float(str(values["persist.flush_interval_ms"])) / 1000 + float(str(values["persist.storage_retry_s"]))


def check_heartbeat(process_run: ProcessRun) -> None:
    """From the start to the end of the pipeline there is never a longer time without a HEARTBEAT.

    What is left then, to write down how the run ended, takes no longer than a final flush.
    """
    outcome, observer = process_run.outcome, process_run.process.observer
    if not observer.began:
        return
    interval_s = observer.stages["heartbeat"]._interval_s
    beats = [
        at_s
        for at_s, line in zip(outcome.times_s, outcome.logs, strict=True)
        if line["fields"].get("event") == "HEARTBEAT"
    ]
    ledger_s = _ledger_s(outcome)
    end_s = outcome.sim_s if ledger_s is None else ledger_s
    assert outcome.sim_s - end_s <= FINAL_FLUSH_S + _BEAT_SLACK_S, f"ended {outcome.sim_s - end_s} s after its ledger"
    for one, other in pairwise([observer.began_s, *beats, end_s]):
        assert other - one <= interval_s + _BEAT_SLACK_S, (
            f"no heartbeat from {one:.3f} s to {other:.3f} s, the interval is {interval_s} s"
        )


def check_deadlines(swarm: Swarm, process_run: ProcessRun) -> None:
    """What a process had to do in time, it did, and not before its time."""
    plan, outcome, observer, storage = (
        swarm.plan,
        process_run.outcome,
        process_run.process.observer,
        process_run.process.storage,
    )
    if not observer.began:
        return

    def number(key: str) -> float:
        return float(str(plan.values[key]))

    run_over_s = None if process_run.run_seconds is None else observer.began_s + process_run.run_seconds
    asked_s = min(
        [max(observer.began_s, at_s) for at_s in process_run.injector.signals_s] + ([run_over_s] if run_over_s else []),
        default=None,
    )
    if asked_s is not None:
        check_drain(asked_s, _ledger_s(outcome), number("persist.drain_timeout_s"))
    flush_s, hold_s = number("persist.flush_interval_ms") / 1000, 1.0 if "slow_persist" in plan.kinds else 0.0
    hung = process_run.injector.hung is not None and process_run.injector.hung[0] == "persist"
    assert hung or observer.longest_batch_s <= flush_s + hold_s + SLACK_S, (
        f"a batch was open for {observer.longest_batch_s:.3f} s, the flush interval is {flush_s} s"
    )
    if storage is not None:
        wrong = None if storage.causes is None else storage.causes.wrong
        assert wrong is None, wrong
        assert not storage.stored_nowhere, "a batch counted as stored though the database had been moved away"
        assert not process_run.process.made_another, (
            "a new database was made where the one it wrote had been moved away"
        )
        stop_s = first_stop_s(outcome, process_run.injector.signals_s, run_over_s)
        if process_run.injector.file_moved_s is not None:
            stop_s = min(stop_s, process_run.injector.file_moved_s)  # that is given up at once
        check_patience(storage, outcome, stop_s, number("persist.storage_retry_s"))
        if plan.feed == SYNTHETIC and not (process_run.faulty and _CROWDING & set(plan.kinds)):
            tick, _signal, persist = observer.channels
            check_overload(outcome, 1000 / number("engine.tick_interval_ms"), tick.maxsize, persist.maxsize)
    network = process_run.process.network
    if network is not None and not (process_run.faulty and "slow_ingest" in plan.kinds):
        keys = ("backoff_max_s", "reconnect_budget_s", "stable_after_s")
        check_attempts(network, {key: number(f"feed.{key}") for key in keys})


def _check_end(swarm: Swarm, process_run: ProcessRun) -> None:
    """A process that was not killed accounts for everything; one that was has lost no more than it had in hands."""
    outcome, observer, plan = process_run.outcome, process_run.process.observer, swarm.plan
    if not observer.began:
        return
    if outcome.exit_code is not None and outcome.events("LEDGER"):
        ledger, metrics = outcome.event("LEDGER"), outcome.event("FINAL METRICS")
        if outcome.has_exact_ledger:
            check_outcome(outcome, swarm.settings(None).config, plan.feed != REPLAY)
        assert metrics["exit_code"] == outcome.exit_code, metrics
        if outcome.exit_code == 0:
            assert ledger["not_stored"] == 0, f"exit code 0, but not all is stored: {ledger}"
        if ledger["not_stored"]:
            assert ledger["cause"] is not None, ledger
        lost = ledger["not_stored"] - ledger["spilled"]
        assert lost == 0 or _may_lose(outcome), (
            f"{lost} ticks are neither stored nor spilled, and no line says why: {ledger}"
        )
        return
    if observer.stages["persist"].storage_error is not None:
        return  # what it spilled is the next process's
    tick, _signal, persist = observer.channels
    batch_max = int(str(plan.values["persist.batch_size"])) - 1 + persist.maxsize
    bound = 2 * tick.maxsize + persist.maxsize + batch_max * (1 if plan.feed == REPLAY else 2)
    lost = observer.handed_over - observer.in_spill
    assert lost <= bound, f"{lost} ticks and notices were under way and not in the spill, more than {bound}"


def _may_lose(outcome: ProcessOutcome) -> bool:
    """Whether accepted events may be lost: a spill that failed, a drain out of time, a crash, a second signal."""
    named = any(outcome.events(name) for name in ("SPILL_FAILED", "DRAIN_TIMEOUT"))
    said = {line["fields"]["message"] for line in outcome.logs}
    return named or outcome.exit_code == 1 or bool(said & {"no room for a spill file", "stages did not end"})


# ---- what they left ------------------------------------------------------------------------------------------------


def check_final_state(swarm: Swarm) -> None:
    """Check what all processes left together: the database."""
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
        check_caps(db, runs, config.risk_caps)
        for process_run in swarm.process_runs:
            with _about(process_run.process.number):
                _check_rows(swarm, process_run, db)
        if plan.feed == SYNTHETIC:
            check_walk(db, runs)
        elif plan.feed == REPLAY:
            rows = db.execute("SELECT symbol, price, volume, ts, event_id, seq FROM ticks ORDER BY id")
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
    """The rows of a process's run are what the reference makes of its ticks, and as many as it said it stored."""
    outcome, plan = process_run.outcome, swarm.plan
    if not outcome.events("START"):
        return
    run_id = str(outcome.event("START")["run_id"])
    ended = bool(outcome.events("LEDGER"))
    ledger = outcome.event("LEDGER") if ended else {}
    all_kept = ended and ledger["not_stored"] == ledger["spilled"] and outcome.exit_code != 1
    lost = outcome.events("NOT_STORED")
    given_up = bool(lost and lost[-1]["events_lost"]) or bool(outcome.events("DRAIN_TIMEOUT"))
    whole = all_kept and not given_up
    if plan.feed == REPLAY:  # only the process that came to its end must have made it whole, the others are resumed
        whole = process_run is swarm.process_runs[-1] and outcome.exit_code == 0 and not process_run.injector.signals_s
    loss = process_run.process.loss
    whole = whole and not (outcome.lost if plan.feed != REPLAY else loss is not None and loss.ticks)
    full = plan.values["persist.synchronous"] == "FULL"
    assert not (full and outcome.lost), f"{outcome.lost} ticks were stored under synchronous=FULL, and are lost"
    # A process that was killed after its ledger may not have come to value them at the last prices.
    valued = outcome.exit_code is not None and process_run.process.observer.began
    positions = process_run.process.observer.positions if ended and valued else None
    check_run(swarm.world.db_path, swarm.settings(None).config, run_id, whole, positions)
    # A process that was killed between its ledger and its last line has not told them.
    description = bool(outcome.events("FINAL METRICS"))
    if whole and description and plan.feed == MOCKWS and swarm.process_runs[-1].process.observer.began:
        refused = sum(event.get("notices_refused", 0) for event in outcome.events("OVERLOAD"))
        _check_notices(db, run_id, outcome.event("FINAL METRICS"), refused)
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
    # What a failing storage stored without saying so counts as lost, until somebody looks.
    most = ledger["accepted"] if outcome.events("STORAGE_FAILED") else kept
    assert kept <= found <= most, f"{found} ticks are stored; the ledger says {ledger}"


def _check_notices(db: sqlite3.Connection, run_id: str, metrics: dict[str, int], refused: int) -> None:
    """All of a run's gaps and restored links are stored, but those `refused` by an overload: so many notices."""
    query = "SELECT COUNT(*) FROM notices WHERE run = (SELECT id FROM runs WHERE run_id = ?) AND kind = ?"
    for kind, counter in (("GAP", "gaps"), ("LINK_RESTORED", "reconnects")):
        found, description = db.execute(query, (run_id, kind)).fetchone()[0], metrics[counter]
        assert description - refused <= found <= description, (
            f"{found} notices {kind} are stored, {description} were told"
        )


def _wall_ms(swarm: Swarm, process_run: ProcessRun) -> tuple[int, int] | None:
    """Between which times the engine's wall clock stood in a process; None: in a replay it is not asked."""
    if swarm.plan.feed == REPLAY:
        return None
    if process_run.faulty and "wall_jumps" in swarm.plan.kinds:
        return -INT64_MAX, INT64_MAX
    return START_MS, START_MS + int(process_run.outcome.sim_s * 1000) + 1
