"""Invariants of every swarm history. Checks raise AssertionError with a description of the failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Final

from sim.checks.checkers import check_outcome
from sim.checks.deadlines import (
    SLACK_S,
    check_attempts,
    check_drain,
    check_overload,
    check_patience,
    first_stop_s,
)
from sim.checks.feed_model import FeedModel, Item, MalformedItem
from sim.checks.input_model import ticks_of_lines
from sim.swarm.oracle import ProcessFacts, describe, expected_exit, unexplained
from sim.swarm.plan import MOCKWS, REPLAY, SYNTHETIC
from sim.swarm.swarm import ProcessRun, Swarm, check_live
from sim.world.world import ProcessOutcome
from tradebot.core.log_events import LogEvent
from tradebot.feeds.exchanges import EXCHANGES
from tradebot.store.policy import FINAL_FLUSH_S
from tradebot.telemetry.publisher import EVERY_S

_BEAT_SLACK_S: Final = 0.2
_CROWDING: Final = frozenset({"slow_persist", "slow_strategy", "slow_execution", "spill_fails", "disk_errors", "crash"})
"""Kinds that fill channels or prevent spilling."""
_AT_WORK_S: Final = 20.0
"""The time a stage may work on one item."""
_LOOKS_S: Final = 2.5
"""Two polls of the main thread: from the first one on a stage counts as stalled."""


def check_process(swarm: Swarm) -> None:
    """Check the process that ended last."""
    process_run = swarm.process_runs[-1]
    with naming_process(process_run.process.number):
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
def naming_process(number: int) -> Iterator[None]:
    """Prefix the message of a failed check with the number of the process."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"process {number}: {error}") from error


def _listed(codes: frozenset[int | None]) -> str:
    return ", ".join(sorted("killed" if code is None else str(code) for code in codes)) or "none at all"


# ---- one process ---------------------------------------------------------------------------------------------------


def facts_of(swarm: Swarm, process_run: ProcessRun) -> ProcessFacts:
    """The facts about a process, for the oracle."""
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
        end_unrecorded=bool(outcome.events(LogEvent.FINISH_FAILED)),
        drain_timed_out=bool(outcome.events(LogEvent.DRAIN_TIMEOUT) or outcome.events(LogEvent.STAGES_NOT_ENDED)),
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
    """A killed process may have recorded its end just before (seed 128)."""
    return _read_to_its_end(process_run) and process_run.outcome.exit_code in (0, None)


def _read_to_its_end(process_run: ProcessRun) -> bool:
    feed = process_run.process.observer.feed
    return feed is not None and feed.ended


def _ledger_s(outcome: ProcessOutcome) -> float | None:
    """When the process logged its ledger."""
    for at_s, line in zip(outcome.times_s, outcome.logs, strict=True):
        if line["fields"].get("event") == LogEvent.LEDGER:
            return at_s
    return None


def _no_handshake_s(process_run: ProcessRun) -> float:
    """The time without a completed handshake when the process stopped reading, minus requested Retry-After times."""
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
    """The longest series of unreadable messages among those returned to the process."""
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

    After a hang it is fed for at least 20 s, and no longer than the stage may wait for others.
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
    """How long a stage may wait for the writer, and the writer for the storage."""
    values = swarm.plan.values
    return float(str(values["persist.flush_interval_ms"])) / 1000 + float(str(values["persist.storage_retry_s"]))


def check_heartbeat(process_run: ProcessRun) -> None:
    """HEARTBEATs keep their interval from the start to the end of the pipeline.

    Recording the end of the run afterwards takes no longer than a final flush.
    """
    outcome, observer = process_run.outcome, process_run.process.observer
    if not observer.began:
        return
    interval_s = observer.stages["heartbeat"]._interval_s
    beats = [
        at_s
        for at_s, line in zip(outcome.times_s, outcome.logs, strict=True)
        if line["fields"].get("event") == LogEvent.HEARTBEAT
    ]
    ledger_s = _ledger_s(outcome)
    end_s = outcome.sim_s if ledger_s is None else ledger_s
    assert outcome.sim_s - end_s <= FINAL_FLUSH_S + _BEAT_SLACK_S, f"ended {outcome.sim_s - end_s} s after its ledger"
    for one, other in pairwise([observer.began_s, *beats, end_s]):
        assert other - one <= interval_s + _BEAT_SLACK_S, (
            f"no heartbeat from {one:.3f} s to {other:.3f} s, the interval is {interval_s} s"
        )


def check_deadlines(swarm: Swarm, process_run: ProcessRun) -> None:
    """A process met its deadlines and did nothing too early."""
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
            stop_s = min(stop_s, process_run.injector.file_moved_s)  # a moved file is not retried
        check_patience(storage, outcome, stop_s, number("persist.storage_retry_s"))
        if plan.feed == SYNTHETIC and not (process_run.faulty and _CROWDING & set(plan.kinds)):
            tick, _signal, persist = observer.channels
            check_overload(outcome, 1000 / number("engine.tick_interval_ms"), tick.maxsize, persist.maxsize)
    network = process_run.process.network
    if network is not None and not (process_run.faulty and "slow_ingest" in plan.kinds):
        keys = ("backoff_max_s", "reconnect_budget_s", "stable_after_s")
        check_attempts(network, {key: number(f"feed.{key}") for key in keys})


def _check_end(swarm: Swarm, process_run: ProcessRun) -> None:
    """A process that was not killed accounts for everything; a killed one lost at most the events in the pipeline."""
    outcome, observer, plan = process_run.outcome, process_run.process.observer, swarm.plan
    if not observer.began:
        return
    if outcome.exit_code is not None and outcome.events(LogEvent.LEDGER):
        ledger, metrics = outcome.event(LogEvent.LEDGER), outcome.event(LogEvent.FINAL_METRICS)
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
    """Whether accepted events may be lost: a failed spill, a drain timeout, a crash, a second signal."""
    losses = (LogEvent.SPILL_FAILED, LogEvent.DRAIN_TIMEOUT, LogEvent.SPILL_NO_ROOM, LogEvent.STAGES_NOT_ENDED)
    return outcome.exit_code == 1 or any(outcome.events(name) for name in losses)
