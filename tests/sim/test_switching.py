"""Switch points inside the engine's code: what they find, that all Pythons agree on them, and which code has none."""

from __future__ import annotations

import sqlite3
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import loguru
import pytest

from sim import Livelock, SimKilled, SimRuntime
from sim.kernel.clock import frozen
from sim.kernel.schedule_profile import SwitchGrain
from sim.kernel.scheduler import Scheduler
from sim.kernel.switching import ENGINE, SwitchPoints, statement_lines
from sim.world.world import World
from tradebot.core.channel import Channel

HERE = (__name__,)
REPO = Path(__file__).resolve().parents[2]


# ---- races that blocking calls alone would hide --------------------------------------------------------------------


def check_then_act(runtime: SimRuntime) -> bool:
    """A thread that saw no stop acts on it after the stop: two uses of the seam without a wait between them."""
    stop, stopped, late = runtime.event(), [False], [False]

    def worker() -> None:
        for _ in range(20):
            if not stop.is_set():
                late[0] = late[0] or stopped[0]
            runtime.checkpoint()

    def main() -> None:
        thread = runtime.spawn("worker", worker)
        runtime.checkpoint()
        stop.set()
        stopped[0] = True
        thread.join()

    runtime.run(main)
    return late[0]


def told_before_set(runtime: SimRuntime) -> bool:
    """A value written just before an event is set can be seen while the event is not set."""
    event, told, seen = runtime.event(), [False], [False]

    def observer() -> None:
        for _ in range(20):
            runtime.checkpoint()
            seen[0] = seen[0] or (told[0] and not event.is_set())

    def main() -> None:
        thread = runtime.spawn("watch", observer)
        runtime.checkpoint()
        told[0] = True
        event.set()
        thread.join()

    runtime.run(main)
    return seen[0]


def plain_lost_update(runtime: SimRuntime) -> bool:
    """Two threads read and write a counter, without using the seam in between."""
    value = [0]

    def worker() -> None:
        for _ in range(5):
            seen = value[0]
            value[0] = seen + 1

    def main() -> None:
        for thread in [runtime.spawn("a", worker), runtime.spawn("b", worker)]:
            thread.join()

    runtime.run(main)
    return value[0] != 10


def found(toy: Callable[[SimRuntime], bool], grain: SwitchGrain, seeds: int = 60) -> int:
    """The number of histories with the race, among those of `seeds` seeds."""
    return sum([toy(SimRuntime(seed, grain=grain, interrupts=HERE)) for seed in range(seeds)])


def test_a_race_between_a_flag_and_the_next_statement() -> None:
    assert found(check_then_act, "calls", seeds=200) == 0
    assert found(check_then_act, "seam", seeds=200) > 2
    assert found(check_then_act, "statements", seeds=200) > 2


def test_a_race_between_a_statement_and_the_setting_of_an_event() -> None:
    assert found(told_before_set, "calls", seeds=200) == 0
    assert found(told_before_set, "seam", seeds=200) > 2


def test_the_stack_of_an_interrupted_thread_is_that_of_its_own_code() -> None:
    runtime = SimRuntime(1, grain="statements", interrupt_chance=1.0, kind="uniform", interrupts=HERE)

    def worker() -> None:
        value = 0
        while True:
            value += 1

    def main() -> None:
        for thread in [runtime.spawn("one", worker), runtime.spawn("two", worker)]:
            thread.join()

    with pytest.raises(Livelock, match=r"(?s)--- one: (ready|has the baton)\n.*in worker\n    value \+= 1\n--- two"):
        runtime.run(main, max_steps=500)


def test_a_race_between_two_statements() -> None:
    assert found(plain_lost_update, "calls") == found(plain_lost_update, "seam") == 0
    assert found(plain_lost_update, "statements") > 2


def test_only_the_named_modules_are_interrupted() -> None:
    for seed in range(60):
        assert not plain_lost_update(SimRuntime(seed, grain="statements", interrupt_chance=1.0))
        assert not check_then_act(SimRuntime(seed, grain="seam", interrupt_chance=1.0))


def test_every_grain_is_drawn() -> None:
    assert {SimRuntime(seed).profile.grain for seed in range(100)} == {"calls", "seam", "statements"}


def test_a_kill_may_come_between_two_statements() -> None:
    reached = set()
    for step in range(1, 40):
        done: list[int] = []

        def main(done: list[int] = done) -> None:
            done.append(1)
            done.append(2)
            done.append(3)

        runtime = SimRuntime(1, grain="statements", interrupt_chance=1.0, interrupts=HERE)
        runtime.kill_at_step(step)
        try:
            runtime.run(main)
        except SimKilled:
            reached.add(len(done))
    assert reached == {0, 1, 2}


def test_a_history_left_no_trace_function_behind() -> None:
    plain_lost_update(SimRuntime(1, grain="statements", interrupts=HERE))
    assert sys.gettrace() is None


def test_callbacks_of_the_world_know_whether_a_thread_stands_in_the_midst_of_its_work() -> None:
    runtime = SimRuntime(1, grain="statements", interrupt_chance=1.0, interrupts=HERE, step_ns=1000)
    seen: set[bool] = set()
    calm_seen: set[bool] = set()
    for step in range(1, 30):
        runtime.call_at(step / 1_000_000, lambda: seen.add(runtime.between_turns))
        runtime.call_at_step(step, lambda: calm_seen.add(runtime.between_turns))

    def main() -> None:
        for _ in range(5):
            runtime.checkpoint()
            runtime.sleep(0)

    runtime.run(main)
    assert seen == {True, False}
    assert calm_seen == {True}


# ---- never while a lock outside the seam is held -------------------------------------------------------------------


def test_no_switch_inside_a_log_handler() -> None:
    """A sink runs under loguru's lock: the next thread that logs would block while it holds the baton."""
    switched: list[bool] = []
    runtime = SimRuntime(
        1, kind="uniform", switch_chance=1.0, grain="statements", interrupt_chance=1.0, interrupts=HERE
    )

    def look() -> None:
        before = runtime.steps
        runtime.now_ms()
        flag.is_set()
        flag.set()
        switched.append(runtime.steps > before)

    def talk() -> None:
        for _ in range(20):
            loguru.logger.info("hello")

    def main() -> None:
        for thread in [runtime.spawn("a", talk), runtime.spawn("b", talk)]:
            thread.join()
        look()

    flag = runtime.event()
    loguru.logger.remove()
    handler = loguru.logger.add(lambda _message: look())
    try:
        runtime.run(main)
    finally:
        loguru.logger.remove(handler)
    assert switched == [False] * 40 + [True]
    assert any(" > b" in record for record in runtime.trace.last)


def called_by(module: str, inner: Callable[[], Any]) -> Callable[[], Any]:
    """`inner`, called by a function of a module with that name."""
    names: dict[str, Any] = {"__name__": module, "inner": inner}
    exec("def outer():\n    return inner()\n", names)
    outer: Callable[[], Any] = names["outer"]
    return outer


@pytest.mark.parametrize(
    ("modules", "may"),
    [
        (("tradebot.threads.shutdown",), True),
        (("tradebot.feeds.replay.feed", "sim.world.tick_inputs"), True),  # the first frames of the thread do not matter
        (("tradebot.threads.counters", "tradebot.threads.ingest", "loguru"), True),
        (("tradebot.threads.shutdown", "sim.world.slow_threads", "tradebot.engine"), True),
        (("tradebot.threads.shutdown", "loguru._handler", "tradebot.threads.ingest"), False),
        (("tradebot.threads.shutdown", "peewee", "tradebot.threads.persist"), False),
        (("tradebot.feeds.websocket.frame_decoder", "sim.world.transport", "tradebot.feeds.websocket.feed"), False),
        (("tradebot.threads.persist", "tradebot.store.database", "tradebot.engine"), False),
        (("tradebot.output.log", "tradebot.threads.ingest"), False),
        (("tradebot.store.writer", "tradebot.threads.persist"), False),
        (("tradebot.strategy.decider", "tradebot.threads.strategy"), False),
        (("tradebot.feeds.exchanges.okx", "tradebot.feeds.websocket.feed"), False),
        (("sim.world.network", "sim.world.transport"), False),
    ],
)
def test_where_a_thread_may_be_interrupted(modules: tuple[str, ...], may: bool) -> None:
    """`modules` are those on the stack, innermost first."""
    points = SwitchPoints(ENGINE)
    call: Callable[[], Any] = lambda: points.may_switch(sys._getframe(1))  # noqa: E731
    for module in modules:
        call = called_by(module, call)
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(call()))  # a separate stack, without pytest's frames
    thread.start()
    thread.join()
    assert answers == [may]


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[sqlite3.Connection]]:
    """Every SQLite connection opened in the block."""
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def spy(*args: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*args, **options)
        opened.append(connection)
        return connection

    monkeypatch.setattr("peewee.sqlite3.connect", spy)
    yield opened


@pytest.mark.parametrize("scenario", ["stop_at_any_moment", "storage_full_then_adopted", "reset_while_sending"])
def test_whoever_gives_the_baton_up_holds_neither_the_log_nor_a_transaction(
    scenario: str, connections: list[sqlite3.Connection], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The engine, interrupted at every third statement."""
    from sim.scenarios import SCENARIOS

    handed_on = [0]
    switch = Scheduler._switch

    def spy(scheduler: Scheduler, me: Any) -> None:
        handed_on[0] += 1 if scheduler.interrupted else 0
        core: Any = loguru.logger._core  # type: ignore[attr-defined]
        assert not any(handler._lock.locked() for handler in core.handlers.values())
        assert not core.lock.locked()
        assert not any(_in_transaction(connection) for connection in connections)
        switch(scheduler, me)

    monkeypatch.setattr(Scheduler, "_switch", spy)
    monkeypatch.setattr("sim.kernel.schedule_profile._GRAINS", ("statements",) * 8)
    monkeypatch.setattr("sim.kernel.schedule_profile._INTERRUPT_CHANCES", (0.3,) * 4)
    with frozen() as freezer:
        SCENARIOS[scenario](World(1, tmp_path, freezer))
    assert handed_on[0] > 50
    assert connections


def _in_transaction(connection: sqlite3.Connection) -> bool:
    try:
        return connection.in_transaction
    except sqlite3.ProgrammingError:  # closed
        return False


# ---- the same everywhere -------------------------------------------------------------------------------------------


def test_statement_lines_are_those_that_every_python_announces_alike(tmp_path: Path) -> None:
    source = """\
    x = 1
    class Settings:
        size: int = 3
    def work(a, b):
        \"\"\"Doc.\"\"\"
        one = a
        two = a if b else one
        a.three += a and b
        four = [n for n in b]
        five = (
            a
        )
        if one < two:
            call(one)
        elif one < two < a:
            six = one < a < two
        else:
            seven: int = 7
        for n in b:
            eight = n
        while a:
            nine = lambda: a
        try:
            ten = a[0]
        except KeyError:
            eleven()
        finally:
            twelve = 12
        with a:
            thirteen = yield
        match a:
            case 1:
                fourteen = 14
        def inner():
            fifteen = 15
        return one
    """
    path = tmp_path / "code.py"
    path.write_text(textwrap.dedent(source))
    lines = path.read_text().splitlines()
    taken = [lines[number - 1].split()[0].split("(")[0].rstrip(":") for number in sorted(statement_lines(str(path)))]
    wanted = ["Doc", "one", "call", "seven", "eight", "ten", "eleven", "twelve", "fourteen", "fifteen"]
    assert [word.strip('".') for word in taken] == wanted
    assert statement_lines("<string>") == frozenset()


def test_the_engines_modules_have_such_statements() -> None:
    files = [
        path
        for name in ENGINE
        for path in sorted((REPO / name.replace(".", "/")).parent.glob(f"{name.split('.')[-1]}*"))
    ]
    sources = [source for path in files for source in ([path] if path.suffix == ".py" else sorted(path.glob("*.py")))]
    assert sum([len(statement_lines(str(source))) for source in sources]) > 500


def channel_history(seed: int) -> SimRuntime:
    runtime = SimRuntime(seed, grain="statements", interrupt_chance=0.3)
    channel: Channel[list[int]] = Channel(runtime, "c", 3)

    def main() -> None:
        def produce() -> None:
            for i in range(20):
                channel.send([i] * 2)
            channel.close(everyone=True)

        thread = runtime.spawn("producer", produce)
        taken = 0
        while taken < 40:
            taken += sum([len(chunk) for chunk in channel.take(5)])
        thread.join()

    runtime.run(main)
    return runtime


def test_under_another_tracer_statements_are_left_alone_and_the_history_says_so() -> None:
    plain = channel_history(1)
    sys.settrace(lambda _frame, _event, _arg: None)
    try:
        traced = channel_history(1)
    finally:
        sys.settrace(None)
    assert traced.history_hash() != plain.history_hash()
    assert any("statements left alone" in record for record in traced.trace.last)
    assert channel_history(1).history_hash() == plain.history_hash()
