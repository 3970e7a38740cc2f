"""The synthetic feed: its walk, its schedule and what it does when it is late."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.feeds.clock import ClockMovingStop, HandClock
from tradebot.core.events import Tick
from tradebot.feeds.base import READ_WAIT_S
from tradebot.feeds.sampling import Intake
from tradebot.feeds.synthetic import CATCH_UP_TICKS_MAX, SyntheticFeed, Walk


def _collect(feed: SyntheticFeed, count: int) -> list[Tick]:
    ticks: list[Tick] = []
    while len(ticks) < count:
        ticks += feed.read().ticks
    return ticks


def test_walk_moves_before_each_tick_by_fixed_steps() -> None:
    walk = Walk()
    assert walk.price == 100.0
    assert [walk.step() for _ in range(11)] == [
        100.05, 100.025, 100.075, 100.125, 100.1, 100.15, 100.125, 100.175, 100.225, 100.2, 100.25,
    ]  # fmt: skip


def test_walk_prices_are_the_doubles_of_their_decimals_for_ever() -> None:
    """S8: no rounding dust gathers; the reference is exact decimal arithmetic."""
    walk, exact = Walk(), Decimal(100)
    for n in range(20_000):
        exact += Decimal("0.05") if n % 5 in (0, 2, 3) else Decimal("-0.025")
        assert walk.step() == float(exact)


@given(n=st.integers(0, 10_000), price=st.floats(0.001, 3.0))
def test_walk_never_falls_below_one_and_continues_from_any_point(n: int, price: float) -> None:
    walk = Walk(n, price)
    assert min(walk.step() for _ in range(7)) >= 1.0


def test_walk_floor_binds() -> None:
    assert Walk(1, 1.0).step() == 1.0
    assert Walk(1, 1.025).step() == 1.0


def test_walk_continues_where_an_earlier_one_stopped() -> None:
    whole = Walk()
    prices = [whole.step() for _ in range(50)]
    first = Walk()
    for _ in range(23):
        first.step()
    rest = Walk(first.n, first.price)
    assert [rest.step() for _ in range(27)] == prices[23:]


def test_one_tick_per_interval_without_drift() -> None:
    """The first at once; an interval that is no binary fraction gathers no error over 10 000 ticks."""
    clock = HandClock(1000.0)
    feed = SyntheticFeed(clock, ClockMovingStop(clock), "SOL/USDC", 7)
    batches = [feed.read().ticks for _ in range(10_000)]
    assert all(len(ticks) == 1 for ticks in batches)
    assert [ticks[0].ts - 1_700_000_000_000 for ticks in batches] == [7 * slot for slot in range(10_000)]
    assert clock.seconds == pytest.approx(1000 + 9_999 * 0.007, abs=1e-6)
    assert batches[0][0] == Tick("SOL/USDC", 100.05, 1.0, 1_700_000_000_000)
    assert feed.position == 10_000
    assert feed.missed == 0


def test_a_slow_reader_does_not_slow_the_schedule() -> None:
    clock = HandClock(1000.0)
    feed = SyntheticFeed(clock, ClockMovingStop(clock), "S", 100)
    sent = 0
    for _ in range(50):
        sent += len(feed.read().ticks)
        clock.seconds += 0.13
    sent += len(feed.read().ticks)
    assert sent == int((clock.seconds - 1000) / 0.1 + 1e-6) + 1


def test_waits_are_short_and_a_stop_ends_them() -> None:
    """S13: no wait is longer than half a second, and none is served when the stop is set."""
    clock = HandClock(1000.0)
    stop = ClockMovingStop(clock)
    feed = SyntheticFeed(clock, stop, "S", 1700)
    assert len(feed.read().ticks) == 1
    assert [len(feed.read().ticks) for _ in range(4)] == [0, 0, 0, 1]
    assert max(stop.waits) == READ_WAIT_S
    stop.request()
    clock.seconds += 0.001
    assert feed.read().ticks == []


def test_late_ticks_are_made_up_for_up_to_the_bound_and_the_rest_never_was() -> None:
    """A suspend of an hour is no burst; the schedule goes on at its place and what was skipped is counted."""
    clock = HandClock(1000.0)
    feed = SyntheticFeed(clock, ClockMovingStop(clock), "S", 10)
    feed.read()
    clock.seconds += 0.3
    assert len(feed.read().ticks) == 30
    clock.seconds += 3600
    assert len(feed.read().ticks) == CATCH_UP_TICKS_MAX
    assert feed.missed == 360_000 - CATCH_UP_TICKS_MAX
    before = clock.seconds
    assert len(feed.read().ticks) == 1
    assert clock.seconds - before == pytest.approx(0.01, abs=1e-5)
    assert feed.position == 1 + 30 + CATCH_UP_TICKS_MAX + 1


@pytest.mark.parametrize("sample_every", [1, 3, 5, 10])
def test_kept_prices_are_the_same_for_every_sampling(sample_every: int) -> None:
    """The walk moves with kept ticks only, and what Intake keeps are exactly the moved ones."""
    clock = HandClock(1000.0)
    feed = SyntheticFeed(clock, ClockMovingStop(clock), "S", 1, sample_every)
    ticks = _collect(feed, 203)
    kept = Intake(sample_every).keep(ticks)
    walk = Walk()
    assert [tick.price for tick in kept] == [walk.step() for _ in range(203 // sample_every)]
    assert len({tick.price for tick in ticks[: sample_every - 1]} | {100.0}) == 1
    assert feed.walk.n == len(kept)


def test_continues_an_earlier_run() -> None:
    clock = HandClock(1000.0)
    whole = _collect(SyntheticFeed(clock, ClockMovingStop(clock), "S", 5, 3), 40)
    first = SyntheticFeed(clock, ClockMovingStop(clock), "S", 5, 3)
    _collect(first, 17)
    second = SyntheticFeed(
        clock, ClockMovingStop(clock), "S", 5, 3, n=first.walk.n, price=first.walk.price, sequence=17
    )
    assert [tick.price for tick in _collect(second, 23)] == [tick.price for tick in whole[17:]]


@pytest.mark.parametrize(("interval", "sample_every"), [(0, 1), (-5, 1), (1, 0)])
def test_refuses_what_makes_no_sense(interval: int, sample_every: int) -> None:
    clock = HandClock(1000.0)
    with pytest.raises(ValueError):
        SyntheticFeed(clock, ClockMovingStop(clock), "S", interval, sample_every)


def test_is_a_push_feed_without_end() -> None:
    clock = HandClock(1000.0)
    feed = SyntheticFeed(clock, ClockMovingStop(clock), "S", 5)
    assert feed.push
    assert feed.total is None
    feed.close()
