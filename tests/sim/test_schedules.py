"""The kinds of schedules: what each does, that each finds planted races, and which needs the fewest seeds."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from sim import SimRuntime
from sim.kernel.schedule_profile import ScheduleKind, ScheduleProfile
from sim.kernel.schedules import Priorities, Shares, Starve, Uniform
from sim.kernel.timers import BatonThread

KINDS: tuple[ScheduleKind, ...] = ("uniform", "shares", "priorities", "starve")


def threads(count: int) -> list[BatonThread]:
    return [BatonThread(name, name, number) for number, name in enumerate("abcdefgh"[:count])]


# ---- the policies by themselves ------------------------------------------------------------------------------------


def test_uniform_picks_everyone_alike() -> None:
    policy, picked = Uniform(random.Random(1).random, 0.25), [0, 0, 0]
    three = threads(3)
    for _ in range(3000):
        picked[policy.pick(three, 1)] += 1
    assert min(picked) > 900
    handed_on = sum([policy.yields(three[0], three[1:], 1, drawn=False) for _ in range(1000)])
    assert 200 < handed_on < 300
    assert policy.yields(three[0], three[1:], 1, drawn=True)


def test_shares_weigh_the_turns() -> None:
    policy, three = Shares(random.Random(3).random, 0.1), threads(3)
    for thread in three:
        policy.started(thread)
    shares, picked = policy._shares, [0, 0, 0]
    assert len(set(shares)) > 1
    for _ in range(3000):
        picked[policy.pick(three, 1)] += 1
    for share, turns in zip(shares, picked, strict=True):
        assert turns == pytest.approx(3000 * share / sum(shares), rel=0.2)


def test_priorities_run_the_highest_that_is_ready_and_never_hand_down() -> None:
    policy, four = Priorities(random.Random(1).random, changes=0, horizon=100), threads(4)
    for thread in four:
        policy.started(thread)
    order = []
    while len(four) > 1:
        order.append(four.pop(policy.pick(four, 1)))
    order += four
    for index, thread in enumerate(order):
        for other in order[index + 1 :]:
            assert not policy.yields(thread, [other], 1, drawn=True)
            assert policy.yields(other, [thread], 1, drawn=False)


def test_a_priority_change_makes_the_running_thread_the_lowest() -> None:
    """As often in each `horizon` steps as configured, at random steps."""
    policy, two = Priorities(random.Random(1).random, changes=3, horizon=1000), threads(2)
    for thread in two:
        policy.started(thread)
    me, other = two
    handed_over: list[int] = []
    for step in range(3000):
        if policy.yields(me, [other], step, drawn=False):
            handed_over.append(step)
            me, other = other, me
    assert 7 <= len(handed_over) <= 10  # 3 rounds of 3, and one at the beginning if `a` was the lower
    assert [sum([n // 1000 == round_ for n in handed_over]) for round_ in range(3)] in ([3, 3, 3], [4, 3, 3])
    assert len({step % 1000 for step in handed_over}) > 6


def test_starve_passes_its_victim_over_until_it_has_waited_enough() -> None:
    policy, three = Starve(random.Random(1).random, 0.5, victim=1, patience=50), threads(3)
    assert {policy.pick(three, 50) for _ in range(100)} == {0, 2}
    assert policy.pick(three, 51) == 1
    assert policy.yields(three[1], [three[0]], 1, drawn=False)
    assert not policy.yields(three[0], [three[1]], 50, drawn=True)
    assert policy.yields(three[0], [three[1]], 51, drawn=True)
    assert {policy.pick([three[0], three[2]], 1) for _ in range(100)} == {0, 1}


def test_every_kind_is_drawn() -> None:
    profiles = [SimRuntime(seed).profile for seed in range(200)]
    assert {profile.kind for profile in profiles} == set(KINDS)
    assert len({(c.kind, c.switch_chance, c.spurious_chance, c.horizon, c.victim) for c in profiles}) > 150


def test_the_trace_begins_with_the_character() -> None:
    for kind in KINDS:
        runtime = SimRuntime(1, kind=kind)
        assert f"profile {kind}" in runtime.trace.last[0]
        assert isinstance(runtime.profile, ScheduleProfile)


# ---- fairness ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_that_never_blocks_starves_nobody_for_ever(kind: ScheduleKind) -> None:
    """Two threads use a lock in turn until a third, of lower priority or starved, reports that it has finished."""
    for seed in range(40):
        runtime = SimRuntime(seed, kind=kind)
        lock, done = runtime.lock(), [False]

        def spin(lock: object = lock, done: list[bool] = done) -> None:
            while not done[0]:
                with lock:  # type: ignore[attr-defined]
                    pass

        def finish(runtime: SimRuntime = runtime, done: list[bool] = done) -> None:
            for _ in range(10):
                runtime.checkpoint()
            done[0] = True

        def main(
            runtime: SimRuntime = runtime, spin: Callable[[], None] = spin, finish: Callable[[], None] = finish
        ) -> None:
            for thread in [runtime.spawn("one", spin), runtime.spawn("two", spin), runtime.spawn("last", finish)]:
                thread.join()

        runtime.run(main, max_steps=1_000_000)


# ---- planted races -------------------------------------------------------------------------------------------------


def lost_update(runtime: SimRuntime) -> bool:
    """Two threads read, and write what they read plus one: the simplest race."""
    value = [0]

    def worker() -> None:
        for _ in range(3):
            seen = value[0]
            runtime.checkpoint()
            value[0] = seen + 1

    def main() -> None:
        for thread in [runtime.spawn("a", worker), runtime.spawn("b", worker)]:
            thread.join()

    runtime.run(main)
    return value[0] != 6


def used_before_made(runtime: SimRuntime) -> bool:
    """A value is created within 5 steps and used after 40: found only if one thread is slow at the wrong time."""
    made, missing = [False], [False]

    def make() -> None:
        for _ in range(5):
            runtime.checkpoint()
        made[0] = True

    def use() -> None:
        for _ in range(40):
            runtime.checkpoint()
        missing[0] = not made[0]

    def main() -> None:
        for thread in [runtime.spawn("make", make), runtime.spawn("use", use)]:
            thread.join()

    runtime.run(main)
    return missing[0]


def stale_read(runtime: SimRuntime) -> bool:
    """Between two steps of one thread, two others hand over to each other twenty times: an unlikely schedule."""
    ping, pong = runtime.event(), runtime.event()
    rounds, worst = [0], [0]

    def one() -> None:
        for _ in range(60):
            pong.set()
            ping.wait()
            ping.clear()
            rounds[0] += 1
        pong.set()

    def two() -> None:
        for _ in range(60):
            pong.wait()
            pong.clear()
            ping.set()

    def reader() -> None:
        for _ in range(10):
            seen = rounds[0]
            runtime.checkpoint()
            worst[0] = max(worst[0], rounds[0] - seen)

    def main() -> None:
        for thread in [runtime.spawn("one", one), runtime.spawn("two", two), runtime.spawn("reader", reader)]:
            thread.join()

    runtime.run(main)
    return worst[0] >= 20


def first_seed(toy: Callable[[SimRuntime], bool], kind: ScheduleKind | None, seeds: int) -> int | None:
    """The first of `seeds` seeds (from 0) whose history has the race; None: none of them."""
    runtimes = (SimRuntime(seed, kind=kind, grain="calls", spurious_chance=0.0) for seed in range(seeds))
    return next((runtime.seed for runtime in runtimes if toy(runtime)), None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("toy", [lost_update, used_before_made])
def test_every_kind_finds_shallow_races(toy: Callable[[SimRuntime], bool], kind: ScheduleKind) -> None:
    assert first_seed(toy, kind, seeds=60) is not None


@pytest.mark.parametrize("kind", ["priorities", "starve"])
def test_priorities_and_starvation_find_what_takes_a_run_of_luck(kind: ScheduleKind) -> None:
    assert first_seed(stale_read, kind, seeds=400) is not None


def test_uniform_schedules_do_not() -> None:
    """The reason for the other kinds: twenty consecutive choices would have to select one of two threads."""
    assert first_seed(stale_read, "uniform", seeds=300) is None


def test_drawn_schedules_find_all_three() -> None:
    for toy in (lost_update, used_before_made, stale_read):
        assert first_seed(toy, None, seeds=250) is not None
