"""What the engine says and does at the end of a run: the ledger, lost events, the record of how it ended."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.store_helpers import Logged
from tradebot.core.errors import ExitCode, OverloadError
from tradebot.core.ledger import Ledger, NotStored
from tradebot.core.log_events import LogEvent
from tradebot.engine import _Run
from tradebot.store.errors import StorageUnavailable
from tradebot.store.policy import FINAL_FLUSH_S

FULL = StorageUnavailable("SQLITE_FULL", "disk full", passing=True)


class Store:
    """Records the patience with which the end was to be written; fails if `fails`."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.patience_s: list[float] = []

    def finish_run(self, _record: object, _end: object, patience_s: float) -> None:
        self.patience_s.append(patience_s)
        if self.fails:
            raise OverloadError("database x.db: disk full")


def run_of(logged: Logged, running: tuple[str, ...] = (), store: Store | None = None) -> Any:
    """As much of a run as its end needs."""
    control = SimpleNamespace(running=lambda: list(running))
    return SimpleNamespace(
        _log=logged.log, _control=control, _store=store, _runtime=SimpleNamespace(now_ms=lambda: 7)
    )  # fmt: skip


def pipeline_of(ledger: Ledger, lost: int = 0, storage_error: StorageUnavailable | None = None) -> Any:
    persist = SimpleNamespace(events_lost=lost, storage_error=storage_error)
    return SimpleNamespace(ledger=lambda: ledger, persist=persist, complete=True)


BALANCED = Ledger(received=5, accepted=5, stored=5)


def test_a_ledger_that_does_not_balance_is_a_crash(logged: Logged) -> None:
    """A bug, whatever else happened."""
    code, _ledger = _Run._account(run_of(logged), pipeline_of(Ledger(received=6, accepted=5, stored=5)), ExitCode.PARSE)
    assert code is ExitCode.CRASH
    assert logged.one(LogEvent.LEDGER_UNBALANCED)["problems"]


def test_while_threads_count_on_it_is_none(logged: Logged) -> None:
    """After a second signal stages are met in the midst of counting."""
    unbalanced = pipeline_of(Ledger(received=6, accepted=5, stored=5))
    code, _ledger = _Run._account(run_of(logged, ("strategy",)), unbalanced, ExitCode.CRASH)
    assert code is ExitCode.CRASH and not logged.all(LogEvent.LEDGER_UNBALANCED)
    code, _ledger = _Run._account(run_of(logged, ("strategy",)), unbalanced, ExitCode.OVERLOAD)
    assert code is ExitCode.OVERLOAD


@pytest.mark.parametrize(
    ("ledger", "lost", "told"),
    [
        (BALANCED, 0, None),
        (Ledger(received=5, accepted=5, stored=3, not_stored=2, cause=NotStored.BY_DESIGN), 0, None),
        (Ledger(received=5, accepted=5, stored=3, not_stored=2, cause=NotStored.STORAGE_FAILED), 3, (2, 3)),
        (Ledger(received=5, accepted=5, stored=3, not_stored=2, spilled=2, cause=NotStored.STORAGE_FAILED), 0, (2, 0)),
        # Every tick was stored, and then two orders were not: found by seeds 1531 and 1675 of the swarm.
        (BALANCED, 2, (0, 2)),
    ],
)
def test_what_is_not_stored_is_told(logged: Logged, ledger: Ledger, lost: int, told: tuple[int, int] | None) -> None:
    """The count of lost events is in the log, of whatever kind they are."""
    _Run._account(run_of(logged), pipeline_of(ledger, lost, FULL), ExitCode.OVERLOAD)
    lines = logged.all(LogEvent.NOT_STORED)
    assert [(line["ticks"], line["events_lost"]) for line in lines] == ([] if told is None else [told])
    assert all(line["cause"] == str(NotStored.STORAGE_FAILED) for line in lines)


def finish(run: Any, code: ExitCode, storage_error: StorageUnavailable | None = None) -> ExitCode:
    return _Run._finish(run, pipeline_of(BALANCED, storage_error=storage_error), SimpleNamespace(no=1), code, BALANCED)  # type: ignore[arg-type]


def test_the_end_is_not_written_while_the_writer_lives(logged: Logged) -> None:
    """One connection writes at a time."""
    store = Store()
    assert finish(run_of(logged, ("persist",), store), ExitCode.OVERLOAD) is ExitCode.OVERLOAD
    assert store.patience_s == []
    assert finish(run_of(logged, ("strategy",), store), ExitCode.OVERLOAD) is ExitCode.OVERLOAD
    assert store.patience_s == [FINAL_FLUSH_S]


def test_a_storage_that_has_failed_is_not_waited_for_again(logged: Logged) -> None:
    store = Store()
    finish(run_of(logged, (), store), ExitCode.OVERLOAD, storage_error=FULL)
    assert store.patience_s == [0.0]


@pytest.mark.parametrize(
    ("before", "after"), [(ExitCode.COMPLETE, ExitCode.OVERLOAD), (ExitCode.NETWORK, ExitCode.NETWORK)]
)
def test_an_end_that_cannot_be_recorded(logged: Logged, before: ExitCode, after: ExitCode) -> None:
    """13, unless the run had another reason to end."""
    assert finish(run_of(logged, (), Store(fails=True)), before) is after
    assert "disk full" in logged.one(LogEvent.FINISH_FAILED)["detail"]
