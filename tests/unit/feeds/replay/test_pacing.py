"""Replay at the recording's speed: when a tick is due, and a feed that waits for it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.feeds.clock import ClockMovingStop, HandClock
from tests.unit.store_helpers import Logged
from tests.unit.talk import START_MS
from tradebot.core.events import Notice, Tick
from tradebot.core.log_events import LogEvent
from tradebot.feeds.base import FeedBatch, Malformed
from tradebot.feeds.replay.feed import DatabaseReplay
from tradebot.feeds.replay.pacing import LONG_WAIT_S, SAY_EVERY_S, PacedFeed, Pacer
from tradebot.feeds.status import NO_LINK, FeedStatus


def _tick(ts: int) -> Tick:
    return Tick("A", 1.0, 1.0, ts)


def _play(offsets: list[int], speed: float, chunk: int = 3) -> list[tuple[float, int]]:
    """(seconds since the start, ts offset) of every tick, at the moment the paced feed hands it out."""
    clock = HandClock()
    ticks = [_tick(START_MS + offset) for offset in offsets]
    chunks = iter([ticks[place : place + chunk] for place in range(0, len(ticks), chunk)])
    feed = PacedFeed(DatabaseReplay(chunks, len(ticks)), speed, clock, ClockMovingStop(clock), Logged(clock).log)
    seen = []
    while (batch := feed.read()) is not None:
        seen += [(round(clock.seconds - 50, 4), tick.ts - START_MS) for tick in batch.ticks]
    assert feed.position == feed.total == len(ticks)
    return seen


def test_realtime_follows_the_recording() -> None:
    assert _play([0, 10, 10, 2500, 2600], 1.0) == [(0, 0), (0.01, 10), (0.01, 10), (2.5, 2500), (2.6, 2600)]


def test_a_multiple_divides_the_waits() -> None:
    assert _play([0, 1000, 5000], 10.0) == [(0, 0), (0.1, 1000), (0.5, 5000)]
    assert _play([0, 1000], 0.5) == [(0, 0), (2.0, 1000)]


def test_a_ts_lower_than_the_latest_seen_is_due_at_once() -> None:
    assert _play([0, 1000, 400, 999, 1200], 1.0) == [(0, 0), (1, 1000), (1, 400), (1, 999), (1.2, 1200)]


def test_seconds_of_old_data_are_paced_as_seconds() -> None:
    pacer = Pacer(1.0)
    assert [pacer.due_s(_tick(ts)) for ts in (1_700_000_000, 1_700_000_003)] == [0.0, 3.0]


@given(offsets=st.lists(st.integers(0, 5_000), min_size=1, max_size=30), chunk=st.integers(1, 7))
def test_order_is_kept_and_nothing_is_early_late_or_lost(offsets: list[int], chunk: int) -> None:
    """S8: pacing changes when, never what."""
    seen = _play(offsets, 1.0, chunk)
    assert [offset for _, offset in seen] == offsets
    latest = offsets[0]
    for at, offset in seen:
        latest = max(latest, offset)
        assert at == pytest.approx((latest - offsets[0]) / 1000, abs=1e-3)


def test_a_late_reader_catches_up() -> None:
    clock = HandClock()
    chunks = iter([[_tick(START_MS + 100 * number) for number in range(10)]])
    feed = PacedFeed(DatabaseReplay(chunks, 10), 1.0, clock, ClockMovingStop(clock), Logged(clock).log)
    first = feed.read()
    assert first is not None
    assert len(first.ticks) == 1
    clock.seconds += 0.55
    second = feed.read()
    assert second is not None
    assert len(second.ticks) == 5


def test_a_stop_ends_the_wait_with_nothing() -> None:
    """S13."""
    clock = HandClock()
    stop = ClockMovingStop(clock)
    feed = PacedFeed(
        DatabaseReplay(iter([[_tick(START_MS), _tick(START_MS + 9_000)]]), 2), 1.0, clock, stop, Logged(clock).log
    )
    feed.read()
    stop.request()
    assert feed.read() == FeedBatch([])
    assert clock.seconds == 50.0


class _Scripted:
    """A replay feed that hands out given batches."""

    push = False
    total = None
    position = 0

    def __init__(self, batches: list[FeedBatch]) -> None:
        self._batches: Iterator[FeedBatch] = iter(batches)
        self.closed = False

    def status(self) -> FeedStatus:
        return NO_LINK

    def read(self) -> FeedBatch | None:
        return next(self._batches, None)

    def close(self) -> None:
        self.closed = True


def test_malformed_counts_and_empty_batches_pass_through() -> None:
    clock = HandClock()
    notes = (Malformed(2, "bad"),)
    inner = _Scripted(
        [FeedBatch([], 1, notes), FeedBatch([]), FeedBatch([_tick(START_MS)], 3), FeedBatch([_tick(START_MS + 1000)])]
    )
    feed = PacedFeed(inner, 1.0, clock, ClockMovingStop(clock), Logged(clock).log)
    batches = []
    while (batch := feed.read()) is not None:
        batches.append(batch)
    assert batches[0] == FeedBatch([], 1, notes)
    assert sum(batch.malformed for batch in batches) == 4
    assert [tick.ts for batch in batches for tick in batch.ticks] == [START_MS, START_MS + 1000]
    assert not feed.push
    feed.close()
    assert inner.closed


@pytest.mark.parametrize("speed", [0.0, -1.0, math.nan, math.inf])
def test_pacer_refuses_what_makes_no_sense(speed: float) -> None:
    with pytest.raises(ValueError):
        Pacer(speed)


@given(
    batches=st.lists(st.lists(st.integers(0, 3_000) | st.none(), max_size=6), max_size=6),
    counted=st.integers(0, 3),
)
def test_notices_keep_their_places(batches: list[list[int | None]], counted: int) -> None:
    """Of the batches here, None stands for a notice: each comes once, between the ticks it came between."""
    made = []
    for batch in batches:
        ticks = [_tick(START_MS + offset) for offset in batch if offset is not None]
        places = [sum(each is not None for each in batch[:at]) for at, each in enumerate(batch) if each is None]
        notices = tuple((place, Notice("GAP", START_MS, str(at))) for at, place in enumerate(places))
        made.append(FeedBatch(ticks, counted, (), notices, counted, counted))
    clock = HandClock()
    feed = PacedFeed(_Scripted(made), 1.0, clock, ClockMovingStop(clock), Logged(clock).log)
    seen: list[int | None] = []
    totals = [0, 0, 0]
    while (part := feed.read()) is not None:
        for index in range(len(part.ticks) + 1):
            seen += [None for at, _notice in part.notices if at == index]
            seen += [tick.ts - START_MS for tick in part.ticks[index : index + 1]]
        assert all(0 <= at <= len(part.ticks) for at, _notice in part.notices)
        totals = [a + b for a, b in zip(totals, (part.malformed, part.duplicates, part.history_dropped), strict=True)]
    assert seen == [each for batch in batches for each in batch]
    assert totals == [counted * len(batches)] * 3


def test_the_position_is_that_of_what_was_handed_out() -> None:
    """Seen: a progress bar that promised one second for a replay of 22, because whole batches counted as done."""
    clock = HandClock()
    ticks = [_tick(START_MS + 1000 * second) for second in range(10)]
    feed = PacedFeed(DatabaseReplay(iter([ticks]), 10), 1.0, clock, ClockMovingStop(clock), Logged(clock).log)
    while clock.seconds < 54.0:
        feed.read()
    assert 4 <= feed.position <= 5


def test_a_long_wait_is_logged_when_it_begins_and_now_and_then() -> None:
    """A recording of several days, or one with a wrong time in it, does not look like a hang."""
    clock = HandClock()
    logged = Logged(clock)
    offsets = (0, 1000 * int(LONG_WAIT_S), 1000 * int(LONG_WAIT_S + SAY_EVERY_S * 2.5))
    ticks = [_tick(START_MS + offset) for offset in offsets]
    feed = PacedFeed(DatabaseReplay(iter([ticks]), 3), 1.0, clock, ClockMovingStop(clock), logged.log)
    while feed.read() is not None:
        pass
    logged.log.close()
    told = logged.all(LogEvent.REPLAY_WAITS)
    assert [line["wait_s"] for line in told] == [1500.0, 900.0, 300.0]
    assert told[0]["next_ts"] == ticks[2].ts
    assert "--speed" in told[0]["hint"]
