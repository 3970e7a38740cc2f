"""S6: channels keep order and bound, lose nothing, wake every thread that can continue; real and simulated threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import SimRuntime
from tests.contract.driving import LONG_S, Drive, Stage
from tradebot.core.channel import Channel, ChannelClosed, ConsumerGone
from tradebot.core.runtime import RealRuntime, Runtime, Thread


def channel(runtime: Runtime, maxsize: int, producers: int = 1) -> Channel[list[int]]:
    return Channel(runtime, "test", maxsize, producers)


def flat(chunks: Sequence[Sequence[int]]) -> list[int]:
    return [event for chunk in chunks for event in chunk]


def drain(ch: Channel[list[int]], max_events: int = 1000) -> list[int]:
    """Take until the channel is closed and empty."""
    got: list[int] = []
    while True:
        try:
            part = flat(ch.take(max_events, LONG_S))
        except ChannelClosed:
            return got
        assert part, "nothing came for a long time"
        assert len(part) <= max_events
        got += part


class Word(list[str]):
    """A chunk with a type of its own."""

    def __getitem__(self, key: Any) -> Any:
        item = super().__getitem__(key)
        return Word(item) if isinstance(key, slice) else item


def test_a_single_event_counts_as_one_and_stays_what_it_is(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        ch: Channel[Word | int] = Channel(stage.runtime, "test", 3)
        ch.send(7)
        ch.send(Word("ab"))
        assert (ch.depth, ch.offer(8), ch.refused, ch.entered) == (3, 0, 1, 3)
        assert ch.take(2) == [7, ["a"]]
        ch.send(9)
        items = ch.take(10)
        assert items == [["b"], 9] and isinstance(items[0], Word), "a part of a chunk is of its type"

    drive(body)


def test_a_chunk_that_fits_is_handed_on_and_not_copied(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        ch, chunk = channel(stage.runtime, 3), [1, 2, 3]
        ch.send(chunk)
        assert ch.take(3)[0] is chunk

    drive(body)


def test_what_is_sent_is_taken_in_order(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        ch = channel(stage.runtime, 10)
        ch.send([1, 2, 3])
        ch.send([4, 5])
        ch.send([])
        assert (ch.depth, ch.qsize(), ch.is_full) == (5, 5, False)
        assert flat(ch.take(100)) == [1, 2, 3, 4, 5]
        assert (ch.depth, ch.high_water, ch.passed, ch.refused) == (0, 5, 5, 0)

    drive(body)


def test_take_splits_a_chunk_at_its_limit(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        ch = channel(stage.runtime, 10)
        ch.send([1, 2, 3, 4])
        ch.send([5, 6])
        assert flat(ch.take(1)) == [1]
        assert flat(ch.take(2)) == [2, 3]
        assert (ch.depth, ch.passed) == (3, 3)
        assert flat(ch.take(2)) == [4, 5]
        assert flat(ch.take(2)) == [6]

    drive(body)


def test_send_splits_a_chunk_that_does_not_fit_and_waits_for_room(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        ch = channel(stage.runtime, 3)

        def producer() -> None:
            ch.send(list(range(20)))
            ch.close()

        thread = stage.runtime.spawn("producer", producer)
        assert drain(ch, 2) == list(range(20))
        stage.finish(thread)
        assert ch.high_water <= 3
        assert ch.passed == 20

    drive(body)


def test_the_bound_is_in_events_and_exact(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        ch = channel(stage.runtime, 5)
        assert ch.offer([1, 2, 3]) == 3
        assert ch.offer([4, 5, 6]) == 2
        assert ch.is_full
        assert ch.offer([7, 8]) == 0
        assert ch.offer([]) == 0
        assert (ch.depth, ch.high_water, ch.refused) == (5, 5, 3)
        assert flat(ch.take(10)) == [1, 2, 3, 4, 5]
        assert ch.offer([9]) == 1

    drive(body)


def test_take_times_out_empty_handed_and_not_before(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        ch = channel(stage.runtime, 5)
        assert ch.take(10, 0) == []
        start = stage.runtime.monotonic()
        assert ch.take(10, stage.short_s) == []
        assert stage.runtime.monotonic() - start >= stage.short_s

    drive(body)


def test_send_and_offer_wake_a_waiting_consumer(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        ch = channel(stage.runtime, 5)
        got: list[list[int]] = []

        def consumer() -> None:
            got.append(flat(ch.take(1)))
            got.append(flat(ch.take(1)))

        thread = stage.runtime.spawn("consumer", consumer)
        stage.runtime.sleep(stage.short_s)  # likely, not surely, it waits by now
        ch.send([1])
        while ch.depth:
            stage.runtime.sleep(stage.short_s)
        assert ch.offer([2]) == 1
        stage.finish(thread)
        assert got == [[1], [2]]

    drive(body)


def test_take_waits_for_as_many_as_it_wants(drive: Drive) -> None:
    """A consumer with no use for fewer is not woken for each event; time, the end and half a channel come first."""

    def body(stage: Stage) -> None:
        ch, wanted = channel(stage.runtime, 100), []

        def consumer() -> None:
            wanted.append(flat(ch.take(100, LONG_S, least=3)))

        thread = stage.runtime.spawn("consumer", consumer)
        ch.send([1])
        ch.send([2])
        ch.send([3])
        thread.join(LONG_S)
        assert wanted == [[1, 2, 3]]
        ch.send([4])
        assert flat(ch.take(100, 0.02, least=3)) == [4], "the time has passed"
        ch.send(list(range(50)))
        assert len(flat(ch.take(100, LONG_S, least=99))) == 50, "half the channel is enough"
        ch.send([5])
        ch.close()
        assert flat(ch.take(100, LONG_S, least=3)) == [5], "no more will come"
        with pytest.raises(ChannelClosed):
            ch.take(100, LONG_S, least=3)

    drive(body)


@given(least=st.integers(1, 30), maxsize=st.integers(1, 20), sizes=st.lists(st.integers(1, 9), max_size=12))
def test_whatever_is_wanted_nothing_is_left_behind(least: int, maxsize: int, sizes: list[int]) -> None:
    """Seeded schedules: all that a producer sends is taken, also where more is wanted than the channel holds."""

    def main() -> None:
        ch = channel(runtime, maxsize)

        def produce() -> None:
            for size in sizes:
                ch.send([1] * size)
            ch.close()

        producer = runtime.spawn("producer", produce)
        got = 0
        while True:
            try:
                got += len(flat(ch.take(1000, 60.0, least)))
            except ChannelClosed:
                break
        producer.join()
        assert got == sum(sizes)

    runtime = SimRuntime(least)
    runtime.run(main)


def test_close_hands_out_the_rest_then_says_closed(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        ch = channel(stage.runtime, 5)
        ch.send([1, 2])
        ch.close()
        assert flat(ch.take(1)) == [1]
        assert flat(ch.take(1, 0)) == [2]
        for timeout in (None, 0, stage.short_s):
            with pytest.raises(ChannelClosed, match="test"):
                ch.take(1, timeout)
        with pytest.raises(ConsumerGone, match="test"):
            ch.send([3])
        with pytest.raises(ConsumerGone, match="test"):
            ch.offer([3])

    drive(body)


def test_the_last_of_several_producers_closes(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        ch = channel(stage.runtime, 5, producers=2)
        ch.close()
        assert ch.take(1, 0) == []
        ch.send([1])
        ch.close()
        assert flat(ch.take(5, 0)) == [1]
        with pytest.raises(ChannelClosed):
            ch.take(1)

    drive(body)


def test_closing_for_everyone_ends_waiting_producers_and_keeps_what_is_in(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        rt = stage.runtime
        ch = channel(rt, 2, producers=3)
        ch.send([1, 2])
        gone: list[str] = []

        def producer() -> None:
            with pytest.raises(ConsumerGone):
                ch.send([3])
            gone.append("gone")

        threads = [rt.spawn(f"p{i}", producer) for i in range(2)]
        rt.sleep(stage.short_s)
        ch.close(everyone=True)
        stage.finish(*threads)
        assert gone == ["gone", "gone"]
        assert flat(ch.take(9)) == [1, 2]
        with pytest.raises(ChannelClosed):
            ch.take(1)

    drive(body)


def test_offer_to_a_full_closed_channel_says_that_it_is_closed(drive: Drive) -> None:
    """G5: a feed that offers while the engine stops must not take the closed channel for an overload."""

    def body(stage: Stage) -> None:
        ch = channel(stage.runtime, 2)
        ch.send([1, 2])
        ch.close(everyone=True)
        with pytest.raises(ConsumerGone):
            ch.offer([3])
        assert ch.refused == 0

    drive(body)


@pytest.mark.parametrize("end", [Channel.close, Channel.abandon], ids=["close", "abandon"])
def test_an_end_wakes_a_waiting_consumer(drive: Drive, end: Callable[[Channel[list[int]]], None]) -> None:
    def body(stage: Stage) -> None:
        ch = channel(stage.runtime, 5)
        ended: list[bool] = []

        def consumer() -> None:
            with pytest.raises(ChannelClosed):
                ch.take(1)
            ended.append(True)

        thread = stage.runtime.spawn("consumer", consumer)
        stage.runtime.sleep(stage.short_s)
        end(ch)
        stage.finish(thread)
        assert ended

    drive(body)


def test_abandon_ends_waiting_and_later_producers(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        rt = stage.runtime
        ch = channel(rt, 2)
        ch.send([1, 2])
        gone: list[str] = []

        def producer() -> None:
            try:
                ch.send([3])
            except ConsumerGone as error:
                gone.append(str(error))

        threads = [rt.spawn(f"p{i}", producer) for i in range(3)]
        rt.sleep(stage.short_s)
        ch.abandon()
        ch.abandon()
        stage.finish(*threads)
        assert gone == ["test"] * 3
        with pytest.raises(ConsumerGone):
            ch.send([4])
        with pytest.raises(ConsumerGone):
            ch.offer([4])
        assert ch.depth == 2
        assert ch.refused == 0
        with pytest.raises(ChannelClosed):
            ch.take(1)

    drive(body)


def test_one_take_wakes_every_producer_there_is_room_for(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        rt = stage.runtime
        ch = channel(rt, 4)
        ch.send([0, 0, 0, 0])
        threads = [rt.spawn(f"p{i}", lambda i=i: ch.send([i])) for i in range(1, 5)]  # type: ignore[misc]
        rt.sleep(stage.short_s)
        assert ch.depth == 4
        assert flat(ch.take(4)) == [0, 0, 0, 0]
        stage.finish(*threads)
        assert sorted(flat(ch.take(4, 0))) == [1, 2, 3, 4]

    drive(body)


def test_producers_keep_their_own_order(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        rt = stage.runtime
        ch = channel(rt, 7)

        def producer(base: int) -> None:
            for start in range(0, 60, 4):
                ch.send([base + i for i in range(start, start + 4)])

        def close_when_done() -> None:
            for thread in threads:
                thread.join()
            ch.close()

        threads = [rt.spawn(f"p{n}", lambda n=n: producer(n * 1000)) for n in range(3)]  # type: ignore[misc]
        closer = rt.spawn("closer", close_when_done)
        got = drain(ch, 5)
        stage.finish(closer)
        for n in range(3):
            assert [event for event in got if event // 1000 == n] == [n * 1000 + i for i in range(60)]
        assert len(got) == 180
        assert ch.high_water <= 7

    drive(body)


def test_a_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="channel test: size 0"):
        channel(RealRuntime(), 0)


# ---- properties ----------------------------------------------------------------------------------------------------

operation = st.one_of(
    st.tuples(st.just("offer"), st.integers(0, 12)),
    st.tuples(st.just("take"), st.integers(1, 12)),
    st.tuples(st.just("close"), st.just(0)),
    st.tuples(st.just("abandon"), st.just(0)),
)


@given(maxsize=st.integers(1, 10), operations=st.lists(operation, max_size=40))
def test_any_sequence_of_calls_matches_a_plain_list(maxsize: int, operations: list[tuple[str, int]]) -> None:
    """S6: order, bound, counts and errors are those of a bounded list."""
    ch = channel(RealRuntime(), maxsize)
    model: list[int] = []
    numbers = iter(range(10_000))
    closed = gone = False
    refused = passed = high_water = 0
    for name, size in operations:
        if name == "offer":
            chunk = [next(numbers) for _ in range(size)]
            room = maxsize - len(model)
            if gone or closed:
                with pytest.raises(ConsumerGone):
                    ch.offer(chunk)
                continue
            assert ch.offer(chunk) == min(size, room)
            model += chunk[:room]
            refused += max(0, size - room)
            high_water = max(high_water, len(model))
        elif name == "take" and (gone or (closed and not model)):
            with pytest.raises(ChannelClosed):
                ch.take(size, 0)
        elif name == "take":
            assert flat(ch.take(size, 0)) == model[:size]
            passed += len(model[:size])
            del model[:size]
        elif name == "close":
            ch.close()
            closed = True
        else:
            ch.abandon()
            gone = True
        assert (ch.depth, ch.is_full) == (len(model), len(model) == maxsize)
        assert (ch.refused, ch.passed, ch.high_water) == (refused, passed, high_water)


@given(
    seed=st.integers(0, 2**32),
    maxsize=st.integers(1, 9),
    sizes=st.lists(st.integers(0, 15), max_size=15),
    takes=st.lists(st.integers(1, 12), min_size=1, max_size=5),
)
def test_nothing_is_lost_between_two_threads(seed: int, maxsize: int, sizes: list[int], takes: list[int]) -> None:
    runtime = SimRuntime(seed)
    ch = channel(runtime, maxsize)
    events = list(range(sum(sizes)))

    def producer() -> None:
        start = 0
        for size in sizes:
            ch.send(events[start : start + size])
            start += size
        ch.close()

    def main() -> list[int]:
        thread = runtime.spawn("producer", producer)
        got: list[int] = []
        try:
            for turn in range(10_000):
                got += flat(ch.take(takes[turn % len(takes)]))
        except ChannelClosed:
            thread.join()
        return got

    assert runtime.run(main) == events
    assert ch.high_water <= maxsize


@pytest.mark.parametrize("block", range(4))
def test_many_schedules_of_several_producers(block: int) -> None:
    """S6, over 200 seeds: each producer's order is kept, the bound holds at every look, all that was let in arrives."""
    for seed in range(block * 50, block * 50 + 50):
        one_schedule(seed)


def one_schedule(seed: int) -> None:
    """Producers that send or offer chunks of any size, a consumer that takes any number with and without timeouts."""
    runtime = SimRuntime(seed)
    plan = runtime.stream("plan")
    maxsize = 1 + plan.getrandbits(3)
    ch: Channel[list[tuple[int, int]]] = Channel(runtime, "test", maxsize)
    accepted: list[list[tuple[int, int]]] = [[] for _ in range(2 + plan.getrandbits(1))]
    refused = [0]

    def producer(me: int) -> None:
        dice = runtime.stream(f"producer {me}")
        count = 0
        for _ in range(12):
            chunk = [(me, count + i) for i in range(dice.getrandbits(3))]
            count += len(chunk)
            if dice.random() < 0.3:
                let_in = ch.offer(chunk)
                refused[0] += len(chunk) - let_in
                accepted[me] += chunk[:let_in]
            else:
                ch.send(chunk)
                accepted[me] += chunk
            if dice.random() < 0.2:
                runtime.sleep(dice.random())

    def close_when_done() -> None:
        for thread in threads:
            thread.join()
        ch.close()

    threads: list[Thread] = []

    def main() -> list[tuple[int, int]]:
        dice = runtime.stream("consumer")
        threads.extend(runtime.spawn(f"p{n}", lambda n=n: producer(n)) for n in range(len(accepted)))  # type: ignore[misc]
        closer = runtime.spawn("closer", close_when_done)
        got: list[tuple[int, int]] = []
        while True:
            limit = 1 + dice.getrandbits(3)
            try:
                part = [e for chunk in ch.take(limit, dice.random() if dice.random() < 0.5 else None) for e in chunk]
            except ChannelClosed:
                closer.join()
                return got
            assert len(part) <= limit
            assert ch.depth <= maxsize
            got += part

    got = runtime.run(main)
    for me, events in enumerate(accepted):
        assert [event for event in got if event[0] == me] == events, f"SimRuntime({seed})"
    assert len(got) == sum(map(len, accepted)) == ch.passed
    assert ch.refused == refused[0]
    assert ch.high_water <= maxsize
