"""periodic: every n-th tick, SELL first, per symbol, whatever the cuts and restarts."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradebot.config.model import Config
from tradebot.core.errors import ConfigError
from tradebot.core.events import Tick
from tradebot.strategy.base import SymbolHistory
from tradebot.strategy.periodic import Periodic


def ticks_of(count: int, symbol: str = "A") -> list[Tick]:
    return [Tick(symbol, 100.0, 1.0, i) for i in range(count)]


def expected(every: int, count: int) -> list[tuple[int, str]]:
    indexes = [i for i in range(count) if (i + 1) % every == 0]
    return [(index, "BUY" if n % 2 else "SELL") for n, index in enumerate(indexes)]


def test_every_tenth_tick_sell_first() -> None:
    decisions = Periodic.from_config(Config()).on_ticks("A", ticks_of(35))
    assert [tuple(decision) for decision in decisions] == [
        (9, "SELL", "PERIODIC_TRIGGER"),
        (19, "BUY", "PERIODIC_TRIGGER"),
        (29, "SELL", "PERIODIC_TRIGGER"),
    ]


def test_symbols_count_apart() -> None:
    strategy = Periodic(2)
    assert strategy.on_ticks("A", ticks_of(1)) == []
    assert strategy.on_ticks("B", ticks_of(1, "B")) == []
    assert [d.side for d in strategy.on_ticks("A", ticks_of(3))] == ["SELL", "BUY"]
    assert [d.side for d in strategy.on_ticks("B", ticks_of(1, "B"))] == ["SELL"]


@settings(deadline=None)
@given(every=st.integers(1, 12), count=st.integers(0, 60), cuts=st.lists(st.integers(0, 60)))
def test_how_ticks_are_cut_changes_nothing(every: int, count: int, cuts: list[int]) -> None:
    """S8: channel and batch sizes never change a decision."""
    strategy = Periodic(every)
    ticks = ticks_of(count)
    found: list[tuple[int, str]] = []
    for start, end in pairwise(sorted({0, count, *(min(cut, count) for cut in cuts)})):
        found += [(start + d.index, d.side) for d in strategy.on_ticks("A", ticks[start:end])]
    assert found == expected(every, count)


@settings(deadline=None)
@given(every=st.integers(1, 12), count=st.integers(0, 60), cut=st.integers(0, 60), counted=st.booleans())
def test_a_restart_changes_nothing(every: int, count: int, cut: int, counted: bool) -> None:
    """S8: restored from its last signal, or, before the first, from its prices or its count of ticks."""
    cut = min(cut, count)
    strategy = Periodic(every)
    before = expected(every, cut)
    since = cut - 1 - before[-1][0] if before else cut if counted else None
    last_side = "BUY" if before and before[-1][1] == "BUY" else "SELL" if before else None
    history = SymbolHistory((100.0,) * min(cut, strategy.lookback), last_side, since)  # type: ignore[arg-type]
    strategy.restore("A", history)
    found = [(cut + d.index, d.side) for d in strategy.on_ticks("A", ticks_of(count)[cut:])]
    assert found == [decision for decision in expected(every, count) if decision[0] >= cut]


def test_a_signal_overdue_after_a_restart_comes_with_the_next_tick() -> None:
    strategy = Periodic(10)
    strategy.restore("A", SymbolHistory((), "SELL", 15))
    assert [(d.index, d.side) for d in strategy.on_ticks("A", ticks_of(12))] == [(0, "BUY"), (10, "SELL")]


def test_a_senseless_number_is_refused() -> None:
    """G5: exit 12, naming the key."""
    with pytest.raises(ConfigError, match=r"engine\.signal_every_n_ticks: 0"):
        Periodic(0)
