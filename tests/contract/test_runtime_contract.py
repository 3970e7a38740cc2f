"""S8: real and simulated clock, threads, locks, conditions, events and signals keep the same promises."""

from __future__ import annotations

import threading

import pytest

from tests.contract.driving import LONG_S, Drive, Stage
from tradebot.core.runtime import Thread

TOO_LONG_S = 1e12


# ---- event ---------------------------------------------------------------------------------------------------------


def test_event_is_a_flag(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        event = stage.runtime.event()
        assert not event.is_set()
        assert event.wait(0) is False
        event.set()
        assert event.is_set()
        assert event.wait() is True
        assert event.wait(0) is True
        event.clear()
        assert not event.is_set()
        assert event.wait(0) is False

    drive(body)


def test_event_wait_ends_with_its_timeout_and_not_before(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        start = stage.runtime.monotonic()
        assert stage.runtime.event().wait(stage.short_s) is False
        assert stage.runtime.monotonic() - start >= stage.short_s

    drive(body)


def test_event_set_wakes_every_waiter_at_once(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        rt = stage.runtime
        event, results = rt.event(), []
        threads = [rt.spawn(f"w{i}", lambda: results.append(event.wait(LONG_S))) for i in range(3)]
        start = rt.monotonic()
        event.set()
        stage.finish(*threads)
        assert results == [True] * 3
        assert rt.monotonic() - start < LONG_S / 2

    drive(body)


def test_event_wait_without_timeout_blocks_until_set(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        rt = stage.runtime
        event, order = rt.event(), []

        def waiter() -> None:
            assert event.wait() is True
            order.append("woken")

        thread = rt.spawn("waiter", waiter)
        rt.sleep(0)
        order.append("set")
        event.set()
        stage.finish(thread)
        assert order == ["set", "woken"]

    drive(body)


# ---- lock ----------------------------------------------------------------------------------------------------------


def test_lock_lets_one_thread_in_at_a_time(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        rt = stage.runtime
        lock, inside, count = rt.lock(), [0], [0]

        def worker() -> None:
            for _ in range(10):
                with lock:
                    inside[0] += 1
                    assert inside[0] == 1
                    seen = count[0]
                    rt.sleep(0)  # where another thread would come in, if it could
                    count[0] = seen + 1
                    inside[0] -= 1

        stage.finish(*(rt.spawn(f"w{i}", worker) for i in range(4)))
        assert count[0] == 40

    drive(body)


def test_lock_is_free_again_after_an_exception(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        lock, entered = stage.runtime.lock(), []
        with pytest.raises(KeyError), lock:
            raise KeyError

        def other() -> None:
            with lock:
                entered.append(True)

        stage.finish(stage.runtime.spawn("other", other))
        assert entered

    drive(body)


# ---- condition -----------------------------------------------------------------------------------------------------


def test_condition_needs_its_lock(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        for condition in (stage.runtime.condition(), stage.runtime.condition(stage.runtime.lock())):
            with pytest.raises(RuntimeError, match="un-acquired"):
                condition.wait(0)
            with pytest.raises(RuntimeError, match="un-acquired"):
                condition.notify()
            with pytest.raises(RuntimeError, match="un-acquired"):
                condition.notify_all()

    drive(body)


def test_condition_wait_ends_with_its_timeout_and_holds_the_lock_again(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        rt = stage.runtime
        condition = rt.condition()
        with condition:
            deadline = rt.monotonic() + stage.short_s
            woken = True
            while woken:  # it may wake spuriously
                woken = condition.wait(deadline - rt.monotonic())
            assert rt.monotonic() >= deadline
            condition.notify()  # raises without the lock

    drive(body)


def test_condition_wait_for_no_time_does_not_block(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        rt = stage.runtime
        condition = rt.condition()
        start = rt.monotonic()
        for timeout in (0.0, -1.0):
            with condition:
                while condition.wait(timeout):
                    pass
        assert rt.monotonic() - start < stage.short_s

    drive(body)


def test_condition_wait_lets_the_lock_go(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        rt = stage.runtime
        condition, ready = rt.condition(), []

        def other() -> None:
            with condition:
                ready.append(True)
                condition.notify()

        with condition:
            thread = rt.spawn("other", other)
            while not ready:
                condition.wait(LONG_S)
            assert ready
        stage.finish(thread)

    drive(body)


def test_condition_notify_wakes_as_many_as_it_says(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        rt = stage.runtime
        condition, waiting, permits, through = rt.condition(), [0], [0], [0]

        def waiter() -> None:
            with condition:
                waiting[0] += 1
                arrived.notify()
                while not permits[0]:
                    condition.wait()
                permits[0] -= 1
                through[0] += 1
                arrived.notify()

        lock = rt.lock()
        condition, arrived = rt.condition(lock), rt.condition(lock)
        threads = [rt.spawn(f"w{i}", waiter) for i in range(4)]
        with lock:
            while waiting[0] < 4:
                arrived.wait(LONG_S)
            for permitted, total in ((1, 1), (2, 3), (1, 4)):
                permits[0] += permitted
                condition.notify(permitted)
                while through[0] < total:
                    assert arrived.wait(LONG_S), "a notified waiter did not wake"
                assert (permits[0], through[0]) == (0, total)
        stage.finish(*threads)

    drive(body)


def test_condition_notify_all_wakes_all(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        rt = stage.runtime
        condition, state = rt.condition(), {"waiting": 0, "go": False}

        def waiter() -> None:
            with condition:
                state["waiting"] += 1
                while not state["go"]:
                    condition.wait()

        threads = [rt.spawn(f"w{i}", waiter) for i in range(4)]
        with condition:
            state["go"] = True
            condition.notify_all()
        stage.finish(*threads)
        assert state["waiting"] == 4

    drive(body)


def test_two_conditions_on_one_lock_hand_over_in_order(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        rt = stage.runtime
        lock = rt.lock()
        empty, full = rt.condition(lock), rt.condition(lock)
        slot: list[int] = []
        got: list[int] = []

        def producer() -> None:
            for i in range(20):
                with empty:
                    while slot:
                        empty.wait()
                    slot.append(i)
                    full.notify()

        thread = rt.spawn("producer", producer)
        for _ in range(20):
            with full:
                while not slot:
                    full.wait()
                got.append(slot.pop())
                empty.notify()
        stage.finish(thread)
        assert got == list(range(20))

    drive(body)


# ---- time ----------------------------------------------------------------------------------------------------------


def test_sleep_lasts_at_least_as_long_as_told_on_both_clocks(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        rt = stage.runtime
        start, wall_ms = rt.monotonic(), rt.now_ms()
        rt.sleep(stage.short_s)
        assert rt.monotonic() - start >= stage.short_s
        assert rt.now_ms() - wall_ms >= stage.short_s * 1000 - 2  # whole milliseconds, and clocks of their own

    drive(body)


def test_monotonic_never_goes_back(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        rt = stage.runtime
        readings = []
        for _ in range(50):
            readings.append(rt.monotonic())
            rt.sleep(0)
        assert readings == sorted(readings)
        assert type(rt.now_ms()) is int
        assert rt.cpu_seconds() >= 0.0

    drive(body)


def test_impossible_times_are_refused(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        rt = stage.runtime
        with pytest.raises(ValueError, match="non-negative"):
            rt.sleep(-1)
        with pytest.raises(OverflowError):
            rt.sleep(TOO_LONG_S)
        with pytest.raises(OverflowError):
            rt.event().wait(TOO_LONG_S)
        condition = rt.condition()
        with condition, pytest.raises(OverflowError):
            condition.wait(TOO_LONG_S)

    drive(body)


def test_a_shorter_sleep_ends_first(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        rt = stage.runtime
        order: list[int] = []

        def sleeper(shorts: int) -> None:
            rt.sleep(shorts * stage.short_s)
            order.append(shorts)

        stage.finish(*(rt.spawn(f"s{n}", lambda n=n: sleeper(n)) for n in (8, 1, 4)))  # type: ignore[misc]
        assert order == [1, 4, 8]

    drive(body)


# ---- threads -------------------------------------------------------------------------------------------------------


def test_thread_lives_from_spawn_to_the_end_of_its_target(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        rt = stage.runtime
        go, names = rt.event(), []

        def target() -> None:
            names.append(threading.current_thread().name)
            go.wait()

        thread = rt.spawn("stage-one", target)
        assert thread.name == "stage-one"
        assert thread.is_alive()
        thread.join(stage.short_s)
        assert thread.is_alive()
        go.set()
        thread.join()
        assert not thread.is_alive()
        thread.join()
        assert names == ["stage-one"]

    drive(body)


def test_join_with_a_timeout_returns_when_it_is_over_and_not_before(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        rt = stage.runtime
        go = rt.event()
        thread = rt.spawn("waits", lambda: void(go.wait()))
        start = rt.monotonic()
        thread.join(0)
        thread.join(-1)
        assert rt.monotonic() - start < stage.short_s
        start = rt.monotonic()
        thread.join(stage.short_s)
        assert rt.monotonic() - start >= stage.short_s
        go.set()
        stage.finish(thread)

    drive(body)


def test_several_threads_may_join_one(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        rt = stage.runtime
        go, order = rt.event(), []

        def first() -> None:
            go.wait()
            order.append("first")

        thread = rt.spawn("first", first)

        def joiner() -> None:
            thread.join()
            order.append("joiner")

        joiners = [rt.spawn(f"j{i}", joiner) for i in range(3)]
        go.set()
        stage.finish(thread, *joiners)
        assert order == ["first", "joiner", "joiner", "joiner"]

    drive(body)


def test_a_thread_cannot_join_itself(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        rt = stage.runtime
        known, errors = rt.event(), []
        threads: list[Thread] = []

        def target() -> None:
            known.wait()
            try:
                threads[0].join()
            except RuntimeError as error:
                errors.append(str(error))

        threads.append(rt.spawn("self", target))
        known.set()
        stage.finish(*threads)
        assert errors == ["cannot join current thread"]

    drive(body)


def test_threads_run_side_by_side(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        rt = stage.runtime
        ping, pong = rt.event(), rt.event()
        met: list[str] = []

        def one() -> None:
            ping.set()
            assert pong.wait(LONG_S)
            met.append("one")

        def two() -> None:
            assert ping.wait(LONG_S)
            pong.set()
            met.append("two")

        stage.finish(rt.spawn("one", one), rt.spawn("two", two))
        assert sorted(met) == ["one", "two"]

    drive(body)


# ---- the rest ------------------------------------------------------------------------------------------------------


def test_tokens_are_eight_hex_digits_and_differ(drive: Drive) -> None:
    def body(stage: Stage) -> None:
        tokens = [stage.runtime.token() for _ in range(20)]
        assert all(len(token) == 8 and int(token, 16) >= 0 for token in tokens)
        assert len(set(tokens)) == 20

    drive(body)


def test_stop_signals_are_counted_once_caught(drive: Drive) -> None:
    """S13: signals only count; nothing is interrupted."""

    def body(stage: Stage) -> None:
        rt = stage.runtime
        rt.catch_stop_signals()
        assert rt.stop_signals() == 0
        stage.send_signal()
        assert rt.stop_signals() == 1
        assert rt.event().wait(0) is False
        stage.send_signal()
        assert rt.stop_signals() == 2

    drive(body)


def void(_value: object) -> None:
    """Makes a target of an expression."""
