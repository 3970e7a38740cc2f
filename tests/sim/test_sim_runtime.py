"""S8: one seed is one history; and the special functions of the simulated runtime: jumps, kills, stacks."""

from __future__ import annotations

import gc
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path

import freezegun
import freezegun.api
import loguru
import pytest

import sim.kernel.machine
import sim.kernel.scheduler
from sim import (
    Deadlock,
    Livelock,
    SimExit,
    SimKilled,
    SimRuntime,
    Stuck,
    ThreadCrashed,
    ThreadsLeft,
    TimeLimit,
    frozen,
)
from sim.kernel.clock import START_MS
from sim.kernel.schedule_profile import ScheduleKind
from sim.kernel.timers import STALE_MAX, BatonThread, BatonWait, Timers
from sim.kernel.trace import Trace
from tests.contract.history import history
from tradebot.core.runtime import Runtime

REPO = Path(__file__).resolve().parents[2]
SEEDS = (1, 2, 3, 6, 8, 14)
# The same on every supported Python and machine, with three kinds and grains: see test_the_seeds_here_differ_in_kind.
GOLDEN = {
    1: "372d100fd66783667857023f0566d3b1e5a1d65cf19b744d44f4f64516400e55",
    6: "d1d1e5a0ef83d0ae0af3ab263b8ed24a72a42599e39988a26590be9bdee40ec9",
    14: "dc51e25a7c7f4ebe5fb1c648481c317eebe9e032703b084545f04797524cf582",
}
IF_GOLDEN_DIFFERS = (
    "on one Python only: a breach of determinism; on all: sim/ or tradebot/core/channel.py was changed, "
    "and GOLDEN becomes what `python -m tests.contract.history 1 6 14` prints"
)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No thread of the simulation outlives `run`, however it ends, and the allowed processors are unchanged."""
    threads, cpus = threading.enumerate(), os.sched_getaffinity(0)
    yield
    # Threads of earlier tests may end in the meantime, but no new ones may appear.
    assert [thread for thread in threading.enumerate() if thread not in threads] == []
    assert os.sched_getaffinity(0) == cpus


def never(runtime: Runtime) -> None:
    """Wait for an event that is never set."""
    runtime.event().wait()


def void(_value: object) -> None:
    """Turn an expression into a thread's target."""


# ---- one seed, one history -----------------------------------------------------------------------------------------


def test_a_seed_is_one_history() -> None:
    assert len({history(7).history_hash() for _ in range(50)}) == 1


def test_seeds_are_different_histories() -> None:
    assert len({history(seed).history_hash() for seed in range(60)}) >= 58


def test_negative_seeds_are_seeds_of_their_own() -> None:
    assert history(-1).history_hash() != history(1).history_hash()


@pytest.mark.parametrize("seed", GOLDEN)
def test_a_history_is_the_same_on_every_python(seed: int) -> None:
    assert history(seed).history_hash() == GOLDEN[seed], IF_GOLDEN_DIFFERS


def test_the_seeds_here_differ_in_kind() -> None:
    profiles = [SimRuntime(seed).profile for seed in GOLDEN]
    assert {profile.grain for profile in profiles} == {"calls", "seam", "statements"}
    assert len({profile.kind for profile in profiles}) == 3
    assert {SimRuntime(seed).profile.kind for seed in SEEDS} == {"uniform", "shares", "priorities", "starve"}


def hashes_of(python: str, hash_seed: str, path: str = "") -> list[str]:
    """The hashes of SEEDS in a new process."""
    done = subprocess.run(
        [python, "-m", "tests.contract.history", *map(str, SEEDS)],
        cwd=REPO,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.parametrize("hash_seed", ["0", "1", "random"])
def test_other_processes_with_other_hash_seeds_agree(hash_seed: str) -> None:
    assert hashes_of(sys.executable, hash_seed) == [history(seed).history_hash() for seed in SEEDS]


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_other_pythons_agree(version: str) -> None:
    """Lends this environment's freezegun, which is pure Python, to the other interpreter."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        pytest.skip(f"this is Python {version}")
    found = sorted(Path(sys.base_prefix).parent.glob(f"{version}*/bin/python{version}"))
    python = str(found[0]) if found else shutil.which(f"python{version}")
    packages = str(Path(freezegun.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": packages, "PYTHONDONTWRITEBYTECODE": "1"}
    if python is None or subprocess.run([python, "-c", "import freezegun"], env=env, capture_output=True).returncode:
        pytest.skip(f"no Python {version} here that can use our packages")
    assert hashes_of(python, "random", packages) == [history(seed).history_hash() for seed in SEEDS]


def test_freezing_the_clock_changes_no_history() -> None:
    plain = history(3).history_hash()
    with frozen():
        assert history(3).history_hash() == plain


def test_the_history_is_what_was_noted() -> None:
    hashes = []
    for noted in ("a", "b", "a"):
        runtime = SimRuntime(1)
        runtime.run(lambda noted=noted, runtime=runtime: runtime.note(noted, 1, 2.5, None, True, b"x"))  # type: ignore[misc]
        hashes.append(runtime.history_hash())
        assert any(f"note '{noted}' 1 2.5 None True b'x'" in record for record in runtime.trace.last)
    assert hashes[0] == hashes[2] != hashes[1]


def test_a_note_must_be_the_same_in_every_process() -> None:
    class Code(IntEnum):
        ONE = 1

    runtime = SimRuntime(1)
    for value in (object(), {"a"}, Code.ONE):
        with pytest.raises(TypeError, match="cannot note"):
            runtime.note(value)  # type: ignore[arg-type]


def test_a_trace_is_bounded_and_hashes_all() -> None:
    long, short = Trace(keep=10), Trace(keep=1000)
    for i in range(700):
        long.add(f"record {i}")
        short.add(f"record {i}")
    assert list(long.last) == [f"record {i}" for i in range(690, 700)]
    text = "".join(f"record {i}\n" for i in range(700))
    assert long.hash() == short.hash() == hashlib.sha256(text.encode()).hexdigest()
    assert long.tail(2) == "... 698 earlier records\nrecord 698\nrecord 699"


def test_streams_and_tokens_come_from_the_seed_alone() -> None:
    a, b, c = SimRuntime(5), SimRuntime(5), SimRuntime(6)
    assert a.token() == b.token() != c.token()
    a.stream("faults").random()
    assert a.stream("faults").random() == b.stream("faults").random() != a.stream("feed").random()


# ---- the schedule --------------------------------------------------------------------------------------------------


def lost_updates(seed: int, with_lock: bool) -> int:
    runtime = SimRuntime(seed)
    lock, value = runtime.lock(), [0]

    def add() -> None:
        seen = value[0]
        runtime.checkpoint()
        value[0] = seen + 1

    def worker() -> None:
        for _ in range(3):
            if with_lock:
                with lock:
                    add()
            else:
                add()

    def main() -> None:
        for thread in [runtime.spawn(f"w{i}", worker) for i in range(2)]:
            thread.join()

    runtime.run(main)
    return 6 - value[0]


def test_some_schedules_show_a_race_and_some_do_not() -> None:
    assert {lost_updates(seed, with_lock=False) > 0 for seed in range(40)} == {True, False}
    assert {lost_updates(seed, with_lock=True) for seed in range(40)} == {0}


def test_between_two_points_a_thread_is_alone() -> None:
    for seed in range(5):
        runtime = SimRuntime(seed, switch_chance=1.0)
        value = [0]

        def worker(value: list[int] = value) -> None:
            for _ in range(2000):  # far longer than the interpreter's switch interval
                seen = value[0]
                sum(range(50))
                value[0] = seen + 1

        def main(runtime: SimRuntime = runtime, worker: Callable[[], None] = worker) -> None:
            for thread in [runtime.spawn(f"w{i}", worker) for i in range(3)]:
                thread.join()

        runtime.run(main)
        assert value == [6000]


def turns(runtime: SimRuntime) -> list[str]:
    """The order in which threads pass 100 points each."""
    order: list[str] = []

    def worker(name: str) -> None:
        for _ in range(100):
            runtime.sleep(0)
        order.append(name)

    def main() -> None:
        for thread in [runtime.spawn(n, lambda n=n: worker(n)) for n in "abcd"]:  # type: ignore[misc]
            thread.join()

    runtime.run(main)
    return order


def test_with_unequal_shares_some_threads_are_far_behind() -> None:
    def spread(kind: ScheduleKind) -> int:
        """Over 20 seeds: the largest number of turns by which the last thread was behind the first."""
        worst = 0
        for seed in range(20):
            runtime = SimRuntime(seed, kind=kind)
            assert sorted(turns(runtime)) == list("abcd")
            ends = [int(record.split()[0]) for record in runtime.trace.last if " end " in record][:4]
            worst = max(worst, ends[-1] - ends[0])
        return worst

    assert spread("shares") > 2 * spread("uniform")


def test_conditions_wake_spuriously_in_some_histories_only() -> None:
    def woken(runtime: SimRuntime) -> bool:
        def main() -> bool:
            condition = runtime.condition()
            with condition:
                return condition.wait(0.1)

        return runtime.run(main)

    assert {woken(SimRuntime(seed)) for seed in range(100)} == {True, False}
    assert {woken(SimRuntime(seed, spurious_chance=0.0)) for seed in range(100)} == {False}


def test_a_wait_may_time_out_in_the_moment_it_is_notified() -> None:
    outcomes = set()
    for seed in range(60):
        runtime = SimRuntime(seed, spurious_chance=0.0)

        def main(runtime: SimRuntime = runtime) -> tuple[bool, bool]:
            condition, event, results = runtime.condition(), runtime.event(), {}

            def waits_condition() -> None:
                with condition:
                    results["condition"] = condition.wait(0.001)

            def waits_event() -> None:
                results["event"] = event.wait(0.001)

            threads = [runtime.spawn("c", waits_condition), runtime.spawn("e", waits_event)]
            runtime.sleep(0.000998 + runtime.stream("now").random() * 1e-5)
            with condition:
                condition.notify_all()
            event.set()
            for thread in threads:
                thread.join()
            return results["condition"], results["event"]

        outcomes.add(runtime.run(main))
    assert outcomes == {(True, True), (True, False), (False, True), (False, False)}


def test_notify_wakes_no_more_than_it_says() -> None:
    runtime = SimRuntime(1, spurious_chance=0.0)
    condition, woken = runtime.condition(), []

    def waiter() -> None:
        with condition:
            woken.append(condition.wait(10))

    def main() -> None:
        threads = [runtime.spawn(f"w{i}", waiter) for i in range(4)]
        runtime.sleep(1)
        with condition:
            condition.notify(2)
        for thread in threads:
            thread.join()

    runtime.run(main)
    assert sorted(woken) == [False, False, True, True]


def test_a_history_keeps_no_timers_of_ended_waits() -> None:
    runtime = SimRuntime(1)

    def main() -> None:
        for _ in range(3 * STALE_MAX):
            event = runtime.event()
            thread = runtime.spawn("waiter", lambda event=event: void(event.wait(10_000)))  # type: ignore[misc]
            runtime.sleep(0.001)
            event.set()
            thread.join()

    runtime.run(main)
    assert len(runtime._scheduler._timers) <= STALE_MAX + 2


def test_timers_of_ended_waits_are_cleared_out() -> None:
    timers, thread = Timers(), BatonThread("t", "t", 1)
    timers.add(5, kept := BatonWait(thread, timed=True))
    for i in range(20 * STALE_MAX):
        wait = BatonWait(thread, timed=True)
        timers.add(10 + i, wait)
        wait.ended = True
        timers.went_stale()
        assert len(timers) <= STALE_MAX + 2
    assert timers.next_due_ns() == 5
    assert timers.pop(4) is None
    assert timers.pop(5) is kept
    assert timers.next_due_ns() is None
    assert timers.pop(10**9) is None


# ---- time ----------------------------------------------------------------------------------------------------------


def test_time_jumps_to_the_next_timer() -> None:
    runtime = SimRuntime(1, step_ns=0)
    seen = []

    def main() -> None:
        day = 86_400
        threads = [runtime.spawn(f"s{n}", lambda n=n: sleeper(n * day)) for n in (3, 1, 2)]  # type: ignore[misc]
        for thread in threads:
            thread.join()

    def sleeper(seconds: int) -> None:
        runtime.sleep(seconds)
        seen.append((seconds, runtime.elapsed_s, runtime.now_ms() - START_MS))

    runtime.run(main)
    assert seen == [(n * 86_400, n * 86_400.0, n * 86_400_000) for n in (1, 2, 3)]
    assert runtime.steps < 30


def test_each_step_costs_a_little_time() -> None:
    runtime = SimRuntime(1, step_ns=1000)

    def main() -> None:
        start = runtime.monotonic()
        for _ in range(500):
            runtime.checkpoint()
            runtime.sleep(0)
        assert runtime.monotonic() - start == pytest.approx(0.001)

    runtime.run(main)
    assert not any(" > " in record for record in runtime.trace.last), "a thread hands the baton to itself"


def test_a_loop_that_polls_the_clock_ends() -> None:
    runtime = SimRuntime(1)

    def main() -> None:
        deadline = runtime.monotonic() + 0.01
        while runtime.monotonic() < deadline:
            pass
        deadline_ms = runtime.now_ms() + 10
        while runtime.now_ms() < deadline_ms:
            pass

    runtime.run(main)


def test_a_wall_clock_that_jumps_disturbs_no_wait() -> None:
    runtime = SimRuntime(1, step_ns=0)
    runtime.call_at(1.0, lambda: runtime.jump_wall(3_600_000))
    runtime.call_at(2.0, lambda: runtime.jump_wall(-7_200_000))

    def main() -> list[tuple[float, int]]:
        readings = []
        start = runtime.monotonic()
        for _ in range(3):
            assert runtime.event().wait(0.75) is False
            readings.append((runtime.monotonic() - start, runtime.now_ms() - START_MS))
        return readings

    assert runtime.run(main) == [(0.75, 750), (1.5, 1500 + 3_600_000), (2.25, 2250 - 3_600_000)]


# ---- freezegun -----------------------------------------------------------------------------------------------------


def wall_clocks_ms() -> list[int]:
    """The time that code without the seam reads."""
    return [
        time.time_ns() // 1_000_000,
        int(time.time() * 1000),
        int(datetime.now(UTC).timestamp() * 1000),
        int(datetime.now().astimezone().timestamp() * 1000),
    ]


def test_every_clock_of_the_process_shows_simulated_time() -> None:
    with frozen() as freezer:
        for seed in range(3):
            runtime = SimRuntime(seed, START_MS + seed * 12_345_678, freezer)
            runtime.call_at(1.0, lambda runtime=runtime: runtime.jump_wall(-90_000))  # type: ignore[misc]

            def check(runtime: SimRuntime = runtime) -> None:
                for _ in range(20):
                    assert wall_clocks_ms() == [runtime.now_ms()] * 4
                    runtime.jump_wall(-777)
                    assert wall_clocks_ms() == [runtime.now_ms()] * 4
                    runtime.sleep(0.1237)

            def main(runtime: SimRuntime = runtime, check: Callable[[], None] = check) -> None:
                # Directly under Thread.run too: freezegun would give the real time to callers with so short a stack.
                threads = [runtime.spawn("deep", lambda: check()), runtime.spawn("shallow", check)]
                for thread in threads:
                    thread.join()
                check()

            runtime.run(main)


def test_loguru_records_carry_simulated_time_and_thread() -> None:
    """G4: the times in the log agree with the engine's clock."""
    records: list[tuple[int, str]] = []

    def sink(message: loguru.Message) -> None:
        record = message.record
        records.append((int(record["time"].timestamp() * 1000), record["thread"].name))

    with frozen() as freezer:
        runtime = SimRuntime(1, freezer=freezer)
        expected: list[tuple[int, str]] = []

        def talk(name: str) -> None:
            for _ in range(5):
                expected.append((runtime.now_ms(), name))
                loguru.logger.info("hello")
                runtime.sleep(1.001)

        def main() -> None:
            thread = runtime.spawn("talker", lambda: talk("talker"))
            talk("main")
            thread.join()

        loguru.logger.remove()
        handler = loguru.logger.add(sink)
        try:
            runtime.run(main)
        finally:
            loguru.logger.remove(handler)
    assert records == expected
    assert len({ms for ms, _name in records}) >= 5


def test_frozen_ends_and_nests() -> None:
    before = time.time()
    limit = freezegun.api.call_stack_inspection_limit
    assert limit > 0
    with frozen() as outer:
        with frozen() as inner:
            assert inner is outer
        assert freezegun.api.call_stack_inspection_limit == 0
        outer.set_ms(START_MS + 1)
        assert wall_clocks_ms() == [START_MS + 1] * 4
    assert freezegun.api.call_stack_inspection_limit == limit
    assert time.time() >= before


def test_real_waits_stay_real_while_frozen() -> None:
    with frozen():
        assert threading.Event().wait(0.01) is False
        assert threading.Semaphore(0).acquire(timeout=0.01) is False


# ---- ends ----------------------------------------------------------------------------------------------------------


def take_both(runtime: SimRuntime) -> None:
    """Two threads take the same two locks in opposite order: some schedules lead to a deadlock."""
    one, two = runtime.lock(), runtime.lock()

    def forwards() -> None:
        with one, two:
            pass

    def backwards() -> None:
        with two, one:
            pass

    threads = [runtime.spawn("forwards", forwards), runtime.spawn("backwards", backwards)]
    for thread in threads:
        thread.join()


def test_a_deadlock_is_found_and_shown() -> None:
    found = []
    for seed in range(60):
        runtime = SimRuntime(seed)
        try:
            runtime.run(lambda runtime=runtime: take_both(runtime))  # type: ignore[misc]
        except Deadlock as error:
            found.append(str(error))
    assert 0 < len(found) < 60
    for text in found:
        assert "--- main: joins forwards\n" in text
        assert "--- forwards: waits for a lock held by backwards\n" in text
        assert "--- backwards: waits for a lock held by forwards\n" in text
        assert "in forwards\n    with one, two:" in text
        assert "in backwards\n    with two, one:" in text
        assert "sim/kernel/scheduler.py" not in text


def test_a_wait_for_nothing_is_a_deadlock() -> None:
    runtime = SimRuntime(1)
    with pytest.raises(Deadlock, match="--- main: waits for an event\n"):
        runtime.run(lambda: never(runtime))


def test_a_crashed_thread_is_named_as_the_cause_of_a_deadlock() -> None:
    runtime = SimRuntime(1)

    def main() -> None:
        runtime.spawn("broken", lambda: void(int("x")))
        never(runtime)

    with pytest.raises(Deadlock) as caught:
        runtime.run(main)
    assert "thread broken had crashed" in caught.value.__notes__[0]
    assert "ValueError" in caught.value.__notes__[0]


def test_taking_a_lock_twice_is_an_error_not_a_hang() -> None:
    runtime = SimRuntime(1)

    def main() -> None:
        lock = runtime.lock()
        with lock, pytest.raises(RuntimeError, match="main takes a lock it already holds"), lock:
            pass

    runtime.run(main)


def test_a_livelock_is_found_and_shown() -> None:
    runtime = SimRuntime(1)

    def spin() -> None:
        while True:
            runtime.sleep(0)

    with pytest.raises(Livelock, match=r"(?s)more than 5000 steps.*--- spinner:.*in spin\n"):
        runtime.run(lambda: runtime.spawn("spinner", spin).join(), max_steps=5000)
    assert runtime.steps == 5001


def test_a_loop_that_only_tests_a_flag_is_a_livelock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim.kernel.scheduler, "POLLS_MAX", 5000)
    runtime = SimRuntime(1)

    def main() -> None:
        event = runtime.event()
        while not event.is_set():
            pass

    with pytest.raises(Livelock, match=r"(?s)main polls without ever blocking.*in main\n"):
        runtime.run(main)


@pytest.mark.parametrize("pause_s", [0.0, 7.0])
def test_simulated_time_can_be_limited(pause_s: float) -> None:
    runtime = SimRuntime(1, step_ns=1_000_000)

    def main() -> None:
        while True:
            runtime.sleep(pause_s)

    with pytest.raises(TimeLimit, match=r"(?s)past 10.0 s.*--- main"):
        runtime.run(main, until_s=10)
    assert runtime.elapsed_s <= 10.002


def test_threads_must_end_before_main() -> None:
    runtime = SimRuntime(1)

    def main() -> None:
        runtime.spawn("left-one", lambda: never(runtime))
        runtime.spawn("left-two", lambda: runtime.sleep(1000))

    with pytest.raises(ThreadsLeft, match="left-one, left-two\n"):
        runtime.run(main)


def test_what_main_raises_comes_out_and_the_rest_ends() -> None:
    runtime = SimRuntime(1)

    def main() -> None:
        runtime.spawn("left", lambda: never(runtime))
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as caught:
        runtime.run(main)
    assert "still lived: left" in caught.value.__notes__[0]


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit(3)])
def test_uncaught_exceptions_of_threads_surface(error: BaseException) -> None:
    """S13: no thread ends unnoticed."""

    def crash() -> None:
        raise error

    def run(**options: bool) -> SimRuntime:
        runtime = SimRuntime(1)

        def main() -> str:
            runtime.spawn("broken", crash).join()
            return "result"

        assert runtime.run(main, **options) == "result"
        return runtime

    with pytest.raises(ThreadCrashed, match=f"broken: {type(error).__name__}") as caught:
        run()
    assert caught.value.__cause__ is error
    assert run(thread_errors_expected=True).thread_errors == [("broken", error)]


def test_run_returns_what_main_returns_and_runs_once() -> None:
    runtime = SimRuntime(1)
    assert runtime.run(lambda: 42) == 42
    with pytest.raises(RuntimeError, match="one history"):
        runtime.run(lambda: 42)


def test_threads_start_only_inside_a_history() -> None:
    runtime = SimRuntime(1)
    with pytest.raises(RuntimeError, match="not running"):
        runtime.spawn("early", lambda: None)
    runtime.run(lambda: None)
    with pytest.raises(RuntimeError, match="not running"):
        runtime.spawn("late", lambda: None)


def test_a_thread_the_simulation_does_not_know_may_not_block_in_it() -> None:
    runtime = SimRuntime(1)
    errors = []

    def foreign() -> None:
        try:
            runtime.sleep(1)
        except RuntimeError as error:
            errors.append(str(error))

    def main() -> None:
        thread = threading.Thread(target=foreign, name="foreign")
        thread.start()
        thread.join()

    runtime.run(main)
    assert errors == ["thread foreign is no part of the simulation"]


def test_a_thread_that_blocks_outside_the_seam_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim.kernel.machine, "STUCK_AFTER_S", 0.5)
    monkeypatch.setattr(sim.kernel.machine, "UNWIND_WAIT_S", 0.05)
    runtime = SimRuntime(1)
    outside = threading.Event()

    def main() -> None:
        runtime.spawn("other", lambda: never(runtime))
        outside.wait()
        runtime.sleep(1)

    with pytest.raises(Stuck, match=r"(?s)--- main: has the baton.*outside.wait"):
        runtime.run(main)
    outside.set()  # now it can unwind
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(10)


def test_an_interrupted_run_ends_its_threads() -> None:
    runtime = SimRuntime(1)

    def main() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        while True:
            runtime.sleep(1)

    with pytest.raises(KeyboardInterrupt):
        runtime.run(main, max_steps=10**9)


def test_run_joins_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    joined: list[str] = []
    join = threading.Thread.join

    def spy(thread: threading.Thread, timeout: float | None = None) -> None:
        join(thread, timeout)
        joined.append(thread.name)

    monkeypatch.setattr(threading.Thread, "join", spy)
    small_history(SimRuntime(1))
    assert joined == ["main", "w0", "w1", "w2"]


def test_a_history_runs_on_one_processor_and_gives_the_others_back(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[set[int]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _thread: {3, 5, 7})
    monkeypatch.setattr(os, "sched_setaffinity", lambda _thread, cpus: asked.append(cpus))
    with pytest.raises(KeyError):
        SimRuntime(1).run(lambda: dict[int, int]()[1])
    during, after = asked
    assert len(during) == 1
    assert during < after == {3, 5, 7}
    monkeypatch.undo()


def test_no_garbage_is_collected_during_a_history() -> None:
    """A collection would run finalizers in any thread, after some number of allocations."""
    during: list[bool] = []
    assert gc.isenabled()
    SimRuntime(1).run(lambda: during.append(gc.isenabled()))
    assert gc.isenabled()
    gc.disable()
    try:
        SimRuntime(1).run(lambda: during.append(gc.isenabled()))
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert during == [False, False]


# ---- death ---------------------------------------------------------------------------------------------------------


def test_killed_threads_unwind_without_doing_anything() -> None:
    """After a kill nothing is sent, set, started, waited for or noted while threads unwind."""
    runtime = SimRuntime(1, switch_chance=0.5)
    flag, lock, unwound = runtime.event(), runtime.lock(), []

    def worker(name: str) -> None:
        try:
            never(runtime)
        except Exception:  # the engine's own handlers must not catch a kill
            unwound.append("survived")
        finally:
            flag.set()
            runtime.note("must not be seen")
            for call in (
                lambda: runtime.sleep(1),
                lambda: flag.wait(1),
                lambda: lock.__enter__(),
                lambda: runtime.condition().wait(1),
                lambda: runtime.spawn("child", lambda: None),
                lambda: runtime.checkpoint(),
            ):
                with pytest.raises(SimKilled):
                    call()
            assert runtime.killed
            unwound.append(name)

    def main() -> None:
        for i in range(3):
            runtime.spawn(f"w{i}", lambda i=i: worker(f"w{i}"))  # type: ignore[misc]
        with lock:
            worker("main")

    runtime.call_at(1.0, runtime.kill)
    with pytest.raises(SimKilled, match="killed at step"):
        runtime.run(main)
    assert sorted(unwound) == ["main", "w0", "w1", "w2"]
    assert not flag.is_set()
    assert not any("must not" in record for record in runtime.trace.last)


def small_history(runtime: SimRuntime) -> None:
    lock, event = runtime.lock(), runtime.event()
    condition = runtime.condition(lock)

    def worker() -> None:
        for _ in range(3):
            with condition:
                condition.wait(0.01)
            event.set()

    def main() -> None:
        threads = [runtime.spawn(f"w{i}", worker) for i in range(3)]
        event.wait()
        runtime.sleep(0.005)
        for thread in threads:
            thread.join()

    runtime.run(main)


def test_a_history_can_be_killed_at_every_step() -> None:
    whole = SimRuntime(3)
    small_history(whole)
    assert whole.steps > 20
    hashes = set()
    for step in range(1, whole.steps + 1):
        killed = [SimRuntime(3), SimRuntime(3)]
        for runtime in killed:
            runtime.kill_at_step(step)
            with pytest.raises(SimKilled, match=f"killed at step {step}$"):
                small_history(runtime)
            assert runtime.steps == step
        assert killed[0].history_hash() == killed[1].history_hash()
        hashes.add(killed[0].history_hash())
    assert len(hashes) == whole.steps
    late = SimRuntime(3)
    late.kill_at_step(whole.steps + 1)
    small_history(late)


def test_a_thread_can_kill_the_process_and_the_unstarted_never_start() -> None:
    runtime = SimRuntime(1, switch_chance=0.0)
    ran = []

    def main() -> None:
        runtime.spawn("unstarted", lambda: ran.append("unstarted"))
        try:
            runtime.kill()
        finally:
            ran.append("unwinds")
        ran.append("goes on")

    with pytest.raises(SimKilled):
        runtime.run(main)
    assert ran == ["unwinds"]


def test_a_kill_is_no_thread_error() -> None:
    runtime = SimRuntime(1)

    def worker() -> None:
        try:
            never(runtime)
        finally:
            raise ValueError("made while unwinding")

    def main() -> None:
        runtime.spawn("worker", worker)
        never(runtime)

    runtime.call_at(1, runtime.kill)
    with pytest.raises(SimKilled):
        runtime.run(main)
    assert runtime.thread_errors == []


def test_exit_now_ends_everything_with_a_code() -> None:
    runtime = SimRuntime(1)

    def main() -> None:
        runtime.spawn("other", lambda: never(runtime))
        runtime.exit_now(13)

    with pytest.raises(SimExit) as caught:
        runtime.run(main)
    assert caught.value.code == 13


def test_what_is_left_can_be_looked_at_after_a_kill() -> None:
    runtime = SimRuntime(1)
    lock = runtime.lock()

    def main() -> None:
        with lock:
            never(runtime)

    runtime.call_at(1, runtime.kill)
    with pytest.raises(SimKilled):
        runtime.run(main)
    with lock:
        assert runtime.elapsed_s == 1.0


# ---- the world -----------------------------------------------------------------------------------------------------


def test_callbacks_run_at_their_time_in_order_and_may_act() -> None:
    runtime = SimRuntime(1, step_ns=0)
    event, condition, seen = runtime.event(), runtime.condition(), []

    def notify() -> None:
        with condition:
            condition.notify_all()

    def spawned() -> None:
        runtime.sleep(1)
        seen.append(("spawned", runtime.elapsed_s))
        done.set()

    done = runtime.event()
    runtime.call_at(2.0, lambda: seen.append(("late", runtime.elapsed_s)))
    runtime.call_at(1.0, lambda: seen.append(("first", runtime.elapsed_s)))
    runtime.call_at(1.0, lambda: seen.append(("second", runtime.elapsed_s)))
    runtime.call_at(3.0, event.set)
    runtime.call_at(4.0, notify)
    runtime.call_at(5.0, lambda: void(runtime.spawn("spawned", spawned)))

    def main() -> None:
        event.wait()
        seen.append(("event", runtime.elapsed_s))
        with condition:
            while runtime.elapsed_s < 4:
                condition.wait()
        done.wait()

    runtime.run(main)
    assert seen == [("first", 1.0), ("second", 1.0), ("late", 2.0), ("event", 3.0), ("spawned", 6.0)]


@pytest.mark.parametrize("blocking", ["sleep", "wait", "join", "lock"])
def test_callbacks_may_not_block(blocking: str) -> None:
    runtime = SimRuntime(1)
    lock = runtime.lock()

    def main() -> None:
        with lock:
            me = runtime.spawn("other", lambda: runtime.sleep(5))
            call = {
                "sleep": lambda: runtime.sleep(1),
                "wait": lambda: never(runtime),
                "join": me.join,
                "lock": lambda: void(lock.__enter__()),
            }[blocking]
            runtime.call_at(1.0, call)
            me.join()

    with pytest.raises(RuntimeError, match="may not"):
        runtime.run(main)


def test_callbacks_run_at_their_step() -> None:
    runtime = SimRuntime(1)
    seen = []
    for step in (7, 3):
        runtime.call_at_step(step, lambda: seen.append(runtime.steps))

    def main() -> None:
        for _ in range(10):
            runtime.checkpoint()

    runtime.run(main)
    assert seen == [3, 7]


def test_signals_come_when_they_are_sent() -> None:
    """S13"""
    runtime = SimRuntime(1, step_ns=0)
    runtime.call_at(1.5, runtime.send_signal)
    runtime.call_at_step(6, runtime.send_signal)

    def main() -> list[int]:
        runtime.catch_stop_signals()
        counts = []
        for _ in range(8):
            runtime.sleep(0.25)
            counts.append(runtime.stop_signals())
        return counts

    # Two steps per sleep: its start, and the jump to its end.
    assert runtime.run(main) == [0, 0, 1, 1, 1, 2, 2, 2]


def test_a_signal_that_is_not_caught_kills() -> None:
    runtime = SimRuntime(1)
    runtime.call_at(1.0, runtime.send_signal)
    with pytest.raises(SimKilled):
        runtime.run(lambda: never(runtime))
