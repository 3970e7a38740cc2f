"""Deadlines of a swarm process: nothing too early, nothing too late. Each check raises AssertionError.

The checks use what the world observed: connection attempts, writes, signals, the clock. The engine's log is used only
for the time at which it stopped retrying.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sim.world.faults import FaultyWriter
from sim.world.network import ConnectAttempt, SimNetwork
from sim.world.world import ProcessOutcome
from tradebot.core.events import STALE_DATA, as_unix_ms
from tradebot.core.log_events import LogEvent
from tradebot.store.policy import AWAY_S, FINAL_FLUSH_S

SLACK_S: Final = 0.25
"""Tolerance for thread turns, polls of the main thread and pauses below a millisecond."""

ATTEMPT_KEYS: Final = ("backoff_max_s", "reconnect_budget_s", "stable_after_s")
"""Configuration keys that determine the time of the next attempt."""

_ABORT_GRACE_S: Final = 1.0
_STOPPED_BY: Final = (
    LogEvent.OVERLOAD,
    LogEvent.STORAGE_FAILED,
    LogEvent.DRAIN_TIMEOUT,
    LogEvent.STAGE_FAILED,
    LogEvent.THREAD_CRASHED,
)


def first_stop_s(outcome: ProcessOutcome, signals_s: Iterable[float], run_over_s: float | None) -> float:
    """When a stop was first requested, by whatever cause; infinity: never."""
    logged_s = [
        at_s
        for at_s, line in zip(outcome.times_s, outcome.logs, strict=True)
        if line["fields"].get("event") in _STOPPED_BY
    ]
    return min([*signals_s, *logged_s, float("inf") if run_over_s is None else run_over_s])


# ---- the end -------------------------------------------------------------------------------------------------------


def check_drain(asked_s: float, over_s: float | None, drain_timeout_s: float) -> None:
    """A stop takes no longer than the drain timeout and a final flush."""
    most_s = drain_timeout_s + FINAL_FLUSH_S + _ABORT_GRACE_S + SLACK_S
    assert over_s is None or over_s - asked_s <= most_s, (
        f"stopping took {over_s - asked_s:.3f} s, drain_timeout_s is {drain_timeout_s}"
    )


# ---- the storage ---------------------------------------------------------------------------------------------------


def check_patience(storage: FaultyWriter, outcome: ProcessOutcome, stop_s: float, retry_s: float) -> None:
    """A failing write is retried for storage_retry_s: not longer and, without a stop, not shorter."""
    assert storage.insisted_s <= retry_s + SLACK_S, (
        f"a write was tried again {storage.insisted_s:.3f} s after it had first failed, storage_retry_s is {retry_s}"
    )
    for at_s, line in zip(outcome.times_s, outcome.logs, strict=True):
        if line["fields"].get("event") == LogEvent.STORAGE_FAILED and at_s < stop_s + SLACK_S:
            since_s = storage.failing_since_s
            assert since_s is not None, "the storage was given up, but had not failed"
            lasted_s = at_s - since_s
            assert at_s >= stop_s or lasted_s >= retry_s - SLACK_S, (
                f"the storage was given up {lasted_s:.3f} s after it had first failed, storage_retry_s is {retry_s}"
            )


def check_overload(outcome: ProcessOutcome, rate: float, tick_size: int, persist_size: int) -> None:
    """Unavailable storage causes no overload if the channels can hold all events until spilling begins.

    `rate`: ticks a second of a feed that sends evenly; each makes three events at most. The sizes are in events.
    """
    until_spilled_s = 2 * AWAY_S
    if tick_size + persist_size / 3 < rate * until_spilled_s:
        return
    for overload in outcome.events(LogEvent.OVERLOAD):
        assert overload["stage"] != "persist", (
            f"an overload by persist, though {tick_size} and {persist_size} events hold {until_spilled_s} s of"
            f" {rate:g} ticks a second: {overload}"
        )


# ---- the link ------------------------------------------------------------------------------------------------------


def check_attempts(network: SimNetwork, feed: dict[str, float]) -> None:
    """Each connection attempt is made at the correct time; `feed` are the values of the feed's keys.

    After the loss of a stable connection, or of the first one: immediately. Otherwise after a random part of a backoff
    of 1, 2, 4 ... seconds up to the cap, and not before a requested Retry-After.
    """
    most_s = min(feed["backoff_max_s"], feed["reconnect_budget_s"] / 2)
    sessions = {session.peer: session for session in network.sessions}
    exponent, at_once = 0, True
    for before, attempt in zip(network.attempts, network.attempts[1:], strict=False):
        session = sessions.get(before.number)
        ended_s = before.ended_s if session is None else session.over_s
        assert ended_s is not None, f"attempt {attempt.number} was begun beside another one"
        if session is not None:
            up_s = ended_s - session.began_s
            if up_s >= feed["stable_after_s"] - SLACK_S:
                # Within the tolerance it is unknown whether it counts as stable: the larger delay is allowed.
                at_once = at_once or up_s >= feed["stable_after_s"]
                exponent = 0 if up_s >= feed["stable_after_s"] + SLACK_S else exponent
        else:
            at_once = False
        allowed_s = 0.0 if at_once else min(most_s, 2.0**exponent)
        exponent += not at_once
        at_once = False
        _check_wait(attempt, attempt.began_s - ended_s, allowed_s, before.retry_after_s)


def _check_wait(attempt: ConnectAttempt, waited_s: float, allowed_s: float, asked_s: float | None) -> None:
    least_s = 0.0 if asked_s is None else asked_s
    prefix = f"attempt {attempt.number} was made {waited_s:.3f} s after the end of the one before"
    assert waited_s >= least_s - 0.001, f"{prefix}, the server had asked for {least_s} s"
    assert waited_s <= max(allowed_s, least_s) + SLACK_S, f"{prefix}, not within {max(allowed_s, least_s)} s"


# ---- the age of ticks ----------------------------------------------------------------------------------------------


def check_ages(orders: Iterable[tuple[Any, Any]], max_age_ms: int, wall_ms: tuple[int, int] | None) -> None:
    """An order is STALE_DATA if its tick was too old during the whole process, and not if it never was.

    `orders` are (reason, ts). `wall_ms`: the wall clock at the start and the end of the process; None: a replay, which
    ignores age.
    """
    for reason, ts in orders:
        stale = reason == STALE_DATA
        if not max_age_ms or wall_ms is None:
            assert not stale, f"an order of {ts} ms was refused for its age, which is not looked at"
            continue
        youngest_ms, oldest_ms = (moment - as_unix_ms(ts) for moment in wall_ms)
        assert not stale or oldest_ms > max_age_ms, f"refused as stale at an age of {oldest_ms} ms at most"
        assert stale or youngest_ms <= max_age_ms, f"not refused as stale at an age of {youngest_ms} ms at least"
