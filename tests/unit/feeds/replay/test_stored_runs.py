"""Runs of a database as input: their content decides the run id, and notices come back in their places."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.unit.store_helpers import batch_of, full_batch, new_run, order, storage_of, tick
from tradebot.core.cancellation import Cancellation, Cancelled
from tradebot.core.events import STALE_DATA, Event, LimitBreach, Notice, Order, Tick, TickChunk
from tradebot.core.runtime import RealRuntime
from tradebot.feeds.replay import feed as feeds
from tradebot.feeds.replay.feed import DatabaseReplay
from tradebot.feeds.replay.stored_runs import StoredRuns, find_stored_runs

LOST = Notice("LINK_LOST", 7, "reset", None, None, 3)
HALT = Notice("HALT", 8, "news", None, None, 3)
STALE = replace(order(4, fills=0), reason=STALE_DATA, breach=LimitBreach("execution.max_tick_age_ms", 15.0, 10.0))
TICKS = [tick(number) for number in range(1, 10)]


def stored(path: Path, *events: Event) -> Path:
    with storage_of(path, new_run(path, push=True)) as storage:
        storage.write(batch_of(*TICKS, *events))
    return path


def found(path: Path, all_count: bool = False) -> StoredRuns:
    return find_stored_runs(path, None, all_count, Cancellation(RealRuntime()))


def sequence(feed: DatabaseReplay | _Bounded) -> list[Tick | Notice]:
    """Everything that a feed brings, in the order in which the stages see it."""
    events: list[Tick | Notice] = []
    while (batch := feed.read()) is not None:
        start = 0
        for index, notice in batch.notices:
            events += [*batch.ticks[start:index], notice]
            start = index
        events += batch.ticks[start:]
    return events


class TestDigest:
    def test_is_that_of_the_ticks_where_nothing_else_can_change_the_result(self, tmp_path: Path) -> None:
        """So replays keep the ids that they had when a replay read ticks only."""
        lines = msgspec.json.Encoder().encode_lines(TICKS).replace(b',"taker":null', b"")
        of_ticks = hashlib.sha256(lines).hexdigest()
        assert found(stored(tmp_path / "ticks.db")).digest == of_ticks
        assert found(stored(tmp_path / "ticks.db2"), all_count=True).digest == of_ticks
        assert found(stored(tmp_path / "lost.db", LOST)).digest == of_ticks

    @pytest.mark.parametrize(
        ("events", "all_count"),
        [([LOST], True), ([HALT], False), ([STALE], False), ([replace(HALT, kind="RESUME")], False)],
    )
    def test_counts_what_can_change_it(self, tmp_path: Path, events: list[Event], all_count: bool) -> None:
        """With its place and its content: two runs with the same ticks are two inputs."""
        inputs: list[list[Event]] = [events, [], [moved(event) for event in events]]
        if STALE not in events:
            inputs.append([*events, *events])
        digests = [found(stored(tmp_path / f"{n}.db", *each), all_count).digest for n, each in enumerate(inputs)]
        assert len(set(digests)) == len(digests)
        assert found(stored(tmp_path / "again.db", *events), all_count).digest == digests[0]

    def test_counts_the_evidence_of_a_refusal(self, tmp_path: Path) -> None:
        other = replace(STALE, breach=LimitBreach("execution.max_tick_age_ms", 16.0, 10.0))
        assert found(stored(tmp_path / "a.db", STALE)).digest != found(stored(tmp_path / "b.db", other)).digest


def moved(event: Any) -> Event:
    return replace(event, event_id=order(5).event_id) if isinstance(event, Order) else replace(event, ticks_before=4)


def test_a_stop_ends_the_reading(tmp_path: Path) -> None:
    runtime = RealRuntime()
    cancel = Cancellation(runtime)
    cancel.request()
    with pytest.raises(Cancelled, match=r"x\.db: reading was stopped"):
        find_stored_runs(stored(tmp_path / "x.db"), None, False, cancel)


def test_notices_come_before_the_ticks_that_they_preceded(tmp_path: Path) -> None:
    """Read in step with the ticks: a chunk of ticks brings those before and in it."""
    path = tmp_path / "x.db"
    places = [0, 1, 1, 999, 1000, 1001, 2499, 2500]
    notices = [Notice("LINK_LOST", number, "reset", None, None, at) for number, at in enumerate(places)]
    with storage_of(path, new_run(path, push=True)) as storage:
        storage.write(full_batch(1, 2500))
        storage.write(batch_of(*notices))
    runs = found(path)
    assert (runs.notices, runs.refusals, runs.repeated()) == (8, 0, None)
    feed = runs.feed()
    batches = []
    while (batch := feed.read()) is not None:
        batches.append((len(batch.ticks), [(index, notice.ts) for index, notice in batch.notices], feed.position))
    assert batches == [
        (1000, [(0, 0), (1, 1), (1, 2), (999, 3)], 1000),
        (1000, [(0, 4), (1, 5)], 2000),
        (500, [(499, 6)], 2500),
        (0, [(0, 7)], 2500),
    ]
    feed.close()


def test_chunks_of_ticks_without_notices_stay_whole(tmp_path: Path) -> None:
    runs = found(stored(tmp_path / "x.db"))
    batch = runs.feed().read()
    assert batch is not None and isinstance(batch.ticks, TickChunk) and batch.ticks.symbol == "TEST/USD"
    assert batch.notices == ()


def test_refusals_are_those_of_the_run(tmp_path: Path) -> None:
    refusals = found(stored(tmp_path / "x.db", STALE)).repeated()
    assert refusals is not None
    assert [refusals.of(number, 0) is not None for number in (3, 4, 5)] == [False, True, False]


@given(st.lists(st.integers(0, 12), max_size=12).map(sorted), st.lists(st.integers(1, 5), max_size=6), st.booleans())
def test_however_ticks_are_cut_and_notices_lie(places: list[int], sizes: list[int], alike: bool) -> None:
    """The feed brings each once, in order, and never more than its bound at a time."""
    count = sum(sizes)
    all_ticks = [tick(number) for number in range(count)]
    cut: list[list[Tick]] = []
    for size in sizes:
        begin = sum(map(len, cut))
        part = all_ticks[begin : begin + size]
        cut.append(TickChunk(part, part[0].symbol) if alike else part)
    notices = [(at, Notice("LINK_LOST", number, "x")) for number, at in enumerate(min(at, count) for at in places)]
    wanted: list[Tick | Notice] = []
    for at in range(count + 1):
        wanted += [notice for place, notice in notices if place == at]
        wanted += all_ticks[at : at + 1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feeds, "_NOTICES_A_BATCH", 2)
        feed = DatabaseReplay(iter(cut), count, iter(notices))
        seen = sequence(_Bounded(feed, alike))
    assert seen == wanted
    assert (feed.position, feed.total, feed.read()) == (count, count, None)


class _Bounded:
    """A feed whose batches are looked at."""

    def __init__(self, feed: DatabaseReplay, alike: bool) -> None:
        self.feed = feed
        self.alike = alike

    def read(self) -> Any:
        batch = self.feed.read()
        if batch is not None:
            assert len(batch.notices) <= 2
            assert all(0 <= index <= len(batch.ticks) for index, _notice in batch.notices)
            assert not self.alike or not batch.ticks or isinstance(batch.ticks, TickChunk)
        return batch


def test_closing_ends_both_readers() -> None:
    closed: list[str] = []

    def reader(name: str, values: list[Any]) -> Any:
        try:
            yield from values
        finally:
            closed.append(name)

    feed = DatabaseReplay(reader("ticks", [TICKS, TICKS]), 18, reader("notices", [(3, LOST), (99, LOST)]))
    feed.read()
    feed.close()
    feed.close()
    assert sorted(closed) == ["notices", "ticks"]
    assert feed.read() is None
