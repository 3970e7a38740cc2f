"""The counters: complete, from zero, in a fixed order, and nothing else."""

from __future__ import annotations

import re

import pytest

from tradebot.threads.counters import COUNTERS, Metrics

NAMED = {
    "tick_count", "signal_count", "shadow_orders", "trade_count", "persist_count", "persist_errors", "ingest_received",
    "ingest_processed", "bp_drops_tick", "bp_drops_signal", "bp_drops_persist", "risk_vetoes", "duplicates", "gaps",
    "reconnects", "malformed", "stale_vetoes",
}  # fmt: skip


def test_every_named_counter_starts_at_zero() -> None:
    """G4: the counters that the original named are all there."""
    snapshot = Metrics().snapshot()
    assert set(snapshot) >= NAMED
    assert set(snapshot.values()) == {0}


def test_snapshot_holds_each_counter_in_a_fixed_order() -> None:
    metrics = Metrics()
    for number, name in enumerate(COUNTERS):
        setattr(metrics, name, number)
    assert list(metrics.snapshot().items()) == [(name, number) for number, name in enumerate(COUNTERS)]


def test_snapshot_is_not_changed_by_later_counting() -> None:
    metrics = Metrics()
    before = metrics.snapshot()
    metrics.tick_count += 3
    assert before["tick_count"] == 0
    assert metrics.snapshot()["tick_count"] == 3


def test_a_misspelt_counter_is_an_error() -> None:
    with pytest.raises(AttributeError):
        setattr(Metrics(), "tick_cuont", 1)  # noqa: B010  (plain assignment would not pass the type checker)


def test_each_counter_names_its_one_writing_thread() -> None:
    """The docstring is where a stage's author looks up what its thread may count."""
    told = re.findall(r"^ +([a-z_]+)  ", Metrics.__doc__ or "", re.MULTILINE)
    assert tuple(told) == COUNTERS


def test_signals_that_found_no_space_are_no_progress_of_execution() -> None:
    """The strategy drops them while execution hangs: the watchdog must notice that."""
    metrics = Metrics()
    metrics.bp_drops_signal += 1
    assert (metrics.executed, metrics.orders_rejected) == (0, 1)
    metrics.shadow_orders += 1
    metrics.count_veto("RISK_CAP")
    assert metrics.executed == 2
