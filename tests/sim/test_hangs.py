"""Programs that never end: each kind of hang is detected and reported with the stacks of all threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

import sim.kernel.machine
import sim.kernel.scheduler
from sim import Deadlock, Livelock, SimRuntime, Stuck, ThreadCrashed, TimeLimit
from tests.sim.test_sim_runtime import take_both
from tradebot.core.runtime import Event, Runtime

KINDS_SEEDS = range(10)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No thread of a hung program remains."""
    threads = threading.enumerate()
    yield
    assert [thread for thread in threading.enumerate() if thread not in threads] == []


def beat_for_ever(runtime: Runtime, never: Event) -> None:
    while not never.wait(5.0):
        pass


def test_a_thread_that_computes_for_ever_is_shown_and_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim.kernel.machine, "STUCK_AFTER_S", 0.5)
    runtime = SimRuntime(1)

    def compute() -> None:
        number = 0
        while True:
            number += 1

    with pytest.raises(Stuck, match=r"(?s)--- main: joins computer.*--- computer: has the baton.*in compute\n"):
        runtime.run(lambda: runtime.spawn("computer", compute).join())


@pytest.mark.parametrize("seed", KINDS_SEEDS)
def test_a_wait_for_nothing_beside_a_heartbeat(seed: int) -> None:
    """The timers of the heartbeat advance the time, so there is no deadlock, but nothing else ever happens."""
    runtime = SimRuntime(seed)

    def main() -> None:
        never = runtime.event()
        runtime.spawn("heartbeat", lambda: beat_for_ever(runtime, never))
        runtime.event().wait()

    with pytest.raises(Livelock, match=r"(?s)for 6.0 simulated hours nothing woke but by timeout.*--- main: waits for"):
        runtime.run(main)
    assert runtime.elapsed_s < 7 * 3600


def test_a_deadlock_beside_a_heartbeat() -> None:
    """Both threads of it are shown."""
    texts = []
    for seed in range(60):
        runtime = SimRuntime(seed, spurious_chance=0.0)

        def main(runtime: SimRuntime = runtime) -> None:
            never = runtime.event()
            runtime.spawn("heartbeat", lambda: beat_for_ever(runtime, never))
            take_both(runtime)
            never.set()
            runtime.sleep(10)

        try:
            runtime.run(main)
        except Livelock as error:
            texts.append(str(error))
    assert 0 < len(texts) < 60
    for text in texts:
        assert "--- forwards: waits for a lock held by backwards\n" in text
        assert "--- backwards: waits for a lock held by forwards\n" in text


def test_a_poll_that_waits_for_the_dead() -> None:
    """A watcher polls for the end of a thread that crashed without a report: the crash is shown as the cause."""
    runtime = SimRuntime(1)

    def main() -> None:
        finished = runtime.event()

        def worker() -> None:
            raise ValueError("mine")

        runtime.spawn("worker", worker)
        while not finished.wait(60.0):
            pass

    with pytest.raises(Livelock) as caught:
        runtime.run(main)
    assert "thread worker had crashed" in caught.value.__notes__[0]


def test_what_sleeps_long_or_wakes_others_is_no_livelock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim.kernel.scheduler, "IDLE_JUMPS", 10)
    runtime = SimRuntime(1)

    def main() -> None:
        event = runtime.event()

        def waiter() -> None:
            for _ in range(50):
                event.wait()
                event.clear()

        thread = runtime.spawn("waiter", waiter)
        for _ in range(50):
            runtime.sleep(3600)  # each time it wakes another thread
            event.set()
        thread.join()
        runtime.sleep(86_400 * 365)

    runtime.run(main)


def test_a_loop_that_takes_a_lock_for_ever_is_a_livelock() -> None:
    runtime = SimRuntime(1)

    def main() -> None:
        lock = runtime.lock()
        while True:
            with lock:
                pass

    with pytest.raises(Livelock, match=r"(?s)more than 5000 steps.*--- main: has the baton.*in main\n"):
        runtime.run(main, max_steps=5000)


def test_an_end_far_beyond_the_scenarios_is_a_time_limit() -> None:
    runtime = SimRuntime(1)

    def main() -> None:
        runtime.spawn("late", lambda: runtime.sleep(1000)).join()

    with pytest.raises(TimeLimit, match=r"(?s)past 60.0 s.*--- main: joins late.*--- late: sleeps 1000 s"):
        runtime.run(main, until_s=60)


def test_two_threads_that_wait_for_each_other_without_time() -> None:
    runtime = SimRuntime(1)

    def main() -> None:
        a, b = runtime.event(), runtime.event()

        def one() -> None:
            a.wait()
            b.set()

        def two() -> None:
            b.wait()
            a.set()

        for thread in [runtime.spawn("one", one), runtime.spawn("two", two)]:
            thread.join()

    with pytest.raises(
        Deadlock, match=r"(?s)--- one: waits for an event\n.*a.wait.*--- two: waits for an event\n.*b.wait"
    ):
        runtime.run(main)


def test_a_crash_alone_is_no_hang() -> None:
    runtime = SimRuntime(1)
    with pytest.raises(ThreadCrashed):
        runtime.run(lambda: runtime.spawn("broken", lambda: [][0]).join())
