"""`SimRuntime`: the seam of tradebot.core.runtime under the baton. One seed is one history.

Threads may write code against it as against the real runtime. The test that drives it uses `run`, the world's calls
(`call_at`, `call_at_step`, `send_signal`, `jump_wall`, `kill`) and, afterwards, `trace`, `history_hash` and
`thread_errors`.

Conditions of determinism: code under simulation blocks only through the seam, draws randomness only from `token` and
`stream`, never iterates a set or orders by id or hash, and reads no real clock (`sim.kernel.clock.frozen` sees to
that). Scheduling points must not stand inside a lock the seam did not make (a log handler's, a database library's): the
next thread that wants that lock would block with the baton in its hand. Clock reads and `Event.set` may be called
there: `sim.kernel.switching` tells from the stack whether they may be interrupted. docs/determinism.md has all of it.
"""

from __future__ import annotations

import hashlib
import math
import random
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, TypeVar, cast

from sim.kernel.clock import START_MS, SettableClock
from sim.kernel.errors import SimExit, SimKilled, ThreadCrashed
from sim.kernel.schedule_profile import ScheduleKind, ScheduleProfile, SwitchGrain
from sim.kernel.scheduler import Scheduler
from sim.kernel.switching import ENGINE, SwitchPoints
from sim.kernel.sync import SimCondition, SimEvent, SimLock, SimThread
from sim.kernel.timers import NS, as_ns
from sim.kernel.trace import Trace
from tradebot.core.runtime import Condition, Event, Lock, Thread

T = TypeVar("T")
Noted = str | int | float | bytes | bool | None

STEP_NS: Final = 1_000
"""Simulated time one step costs: 1 us, about what a lock costs in reality, and too little to disturb timeouts."""
MAX_STEPS: Final = 2_000_000
# Not zero: a real monotonic clock is far from zero, and code that confuses "never" with 0.0 must behave as it would.
_MONOTONIC_START_NS: Final = 10_000 * NS


class SimRuntime:
    """`tradebot.core.runtime.Runtime` in simulation, and the driver of one history.

    `seed` decides the schedule and its profile (see `sim.kernel.schedule_profile`): which kind of schedule it is, how
    often free points switch, where threads are interrupted, whether conditions wake spuriously. `kind`, `grain` and the
    chances fix single parts of that character; a `switch_chance` alone means the kind that it decides most of,
    "uniform". `start_ms` is the wall clock at the beginning (Unix ms). `freezer` (from `sim.kernel.clock.frozen`) is
    moved along. `step_ns` is what a scheduling point costs in simulated time. `interrupts` are the modules whose code
    may be interrupted outside blocking calls.
    """

    def __init__(
        self,
        seed: int,
        start_ms: int = START_MS,
        freezer: SettableClock | None = None,
        *,
        step_ns: int = STEP_NS,
        switch_chance: float | None = None,
        spurious_chance: float | None = None,
        kind: ScheduleKind | None = None,
        grain: SwitchGrain | None = None,
        interrupt_chance: float | None = None,
        interrupts: tuple[str, ...] = ENGINE,
    ) -> None:
        self.seed = seed
        if kind is None and switch_chance is not None:
            kind = "uniform"
        fixed: dict[str, Any] = {
            "switch_chance": switch_chance, "spurious_chance": spurious_chance, "kind": kind, "grain": grain,
            "interrupt_chance": interrupt_chance,
        }  # fmt: skip
        drawn = ScheduleProfile.drawn(self.stream("character"))  # a stream's name decides its numbers: keep it
        self.profile = replace(drawn, **{name: value for name, value in fixed.items() if value is not None})
        choices = self.stream("schedule")
        schedule = self.profile.schedule(choices.random)
        self._scheduler = Scheduler(
            choices,
            schedule,
            step_ns=step_ns,
            on_time=self._time_moved,
            points=SwitchPoints(interrupts),
            interrupt_chance=0.0 if self.profile.grain == "calls" else self.profile.interrupt_chance,
            statements=self.profile.grain == "statements",
        )
        self._scheduler.record("profile", self.profile.describe(schedule))
        self._tokens = self.stream("token")
        self._freezer = freezer
        self._wall_zero_ms = start_ms
        self._elapsed_ms = 0
        self._catching = False
        self._stop_signals = 0

    # ---- tradebot.core.runtime.Runtime ------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """The simulated wall clock, Unix ms: simulated time since the start, plus every `jump_wall`."""
        now_ms = self._wall_zero_ms + self._scheduler.now_ns // 1_000_000
        self._scheduler.poll()
        return now_ms

    def monotonic(self) -> float:
        """Simulated seconds on a clock that starts at 10 000 and never goes back."""
        now_ns = self._scheduler.now_ns
        self._scheduler.poll()
        return (now_ns + _MONOTONIC_START_NS) / NS

    def cpu_seconds(self) -> float:
        """0.0: a real figure would differ from run to run."""
        return 0.0

    def sleep(self, seconds: float) -> None:
        """Block for `seconds` of simulated time. Raises ValueError below zero, as the real one does."""
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        self._scheduler.new_wait(seconds)
        self._scheduler.park(f"sleeps {seconds} s")

    def lock(self) -> Lock:
        """A lock that only this runtime's threads may use."""
        return SimLock(self._scheduler)

    def condition(self, lock: Lock | None = None) -> Condition:
        """A condition on `lock`, which must come from this runtime's `lock`, or on a new one."""
        inner = SimLock(self._scheduler) if lock is None else lock
        if not isinstance(inner, SimLock):
            raise TypeError(f"a simulated condition needs a simulated lock, not {type(inner).__name__}")
        return SimCondition(self._scheduler, inner, self.profile.spurious_chance)

    def event(self) -> Event:
        """A new event, not set."""
        return SimEvent(self._scheduler)

    def spawn(self, name: str, target: Callable[[], None]) -> Thread:
        """Start a simulated thread (a scheduling point). The world may call it while the history runs."""
        thread = SimThread(self._scheduler, self._scheduler.start(name, target))
        if self._scheduler.current is not None:
            self._scheduler.point()
        return thread

    def catch_stop_signals(self) -> None:
        """From now on `send_signal` is counted; before, it kills."""
        self._catching = True

    def stop_signals(self) -> int:
        """How many signals `send_signal` brought since `catch_stop_signals`."""
        signals = self._stop_signals
        self._scheduler.poll()
        return signals

    def exit_now(self, code: int) -> None:
        """End the simulated process like `kill`; `run` raises SimExit with the code."""
        self.note("exit", code)
        self._die(SimExit(code))

    def token(self) -> str:
        """Eight hex digits, from the seed."""
        return f"{self._tokens.getrandbits(32):08x}"

    # ---- the driver's and the world's calls --------------------------------------------------------------------

    @property
    def trace(self) -> Trace:
        """What happened: `trace.last`, `trace.tail()`."""
        return self._scheduler.trace

    @property
    def steps(self) -> int:
        """Steps so far: scheduling points passed, and jumps of time."""
        return self._scheduler.steps

    @property
    def between_turns(self) -> bool:
        """For callbacks of the world: whether every thread stands in a blocking call, not in the midst of its work."""
        return self._scheduler.interrupted == 0

    @property
    def elapsed_s(self) -> float:
        """Simulated seconds since the history began."""
        return self._scheduler.now_ns / NS

    @property
    def killed(self) -> bool:
        """True once the simulated process is dying: the world's edges (files, databases) must then do nothing."""
        return self._scheduler.dead is not None

    @property
    def thread_errors(self) -> list[tuple[str, BaseException]]:
        """Uncaught exceptions of threads other than main, with the thread's name, in order."""
        return self._scheduler.thread_errors

    def run(
        self,
        main: Callable[[], T],
        *,
        max_steps: int = MAX_STEPS,
        until_s: float | None = None,
        thread_errors_expected: bool = False,
    ) -> T:
        """Run `main` as the simulated thread "main" until it returns; its result. One history per runtime.

        Blocks the calling (real) thread. An exception of `main` propagates. SimKilled: `kill` was called; SimExit:
        `exit_now` was. Deadlock, Livelock (more than `max_steps`), TimeLimit (past `until_s` simulated seconds),
        ThreadsLeft (main returned before others ended), ThreadCrashed (unless `thread_errors_expected`), Stuck: see
        sim.kernel.errors; an exception of a `call_at` callback propagates too. Whatever the outcome, no thread of the
        simulation is left (Stuck excepted).
        """
        if self._freezer is not None:
            self._freezer.set_ms(self._wall_zero_ms)
        until_ns = math.inf if until_s is None else as_ns(until_s)
        try:
            result = cast(T, self._scheduler.run(main, max_steps, until_ns))
        except Exception as error:
            for name, crash in self.thread_errors:  # often the cause: what the dead thread owed the others never came
                error.add_note(f"thread {name} had crashed:\n{''.join(traceback.format_exception(crash))}")
            raise
        if self.thread_errors and not thread_errors_expected:
            crashes = "; ".join(f"{name}: {type(error).__name__}: {error}" for name, error in self.thread_errors)
            raise ThreadCrashed(f"uncaught exceptions in threads: {crashes}") from self.thread_errors[0][1]
        return result

    def checkpoint(self) -> None:
        """A scheduling point for the world's own code, where a real call could be interrupted (a write, a fault)."""
        self._scheduler.point()

    def call_at(self, seconds: float, call: Callable[[], None]) -> None:
        """Have `call` run when `seconds` of simulated time have passed since the history began.

        It runs between two turns, in no thread: it may set events, notify, spawn, send signals, kill, note, but not
        block (RuntimeError); an exception in it ends the history and propagates from `run`.
        """
        self._scheduler.call_at_ns(as_ns(seconds), call)

    def call_at_step(self, step: int, call: Callable[[], None]) -> None:
        """Like `call_at`, at the `step`-th step (from 1), or the first after it that is `between_turns`.

        So it never sees the engine with a thread in the midst of its work.
        """
        self._scheduler.call_at_step(step, call, calm=True)

    def kill(self) -> None:
        """kill -9: every thread unwinds by SimKilled at its park point, the caller (if a thread) at once.

        While they unwind, blocking calls of the seam raise SimKilled and all others do nothing.
        """
        self._die(SimKilled(f"killed at step {self.steps}"))

    def kill_at_step(self, step: int) -> None:
        """`kill` at the `step`-th step exactly, wherever threads stand then."""
        self._scheduler.call_at_step(step, self.kill)

    def send_signal(self) -> None:
        """SIGINT, SIGTERM or SIGHUP: counted after `catch_stop_signals`, deadly before."""
        self.note("signal")
        if self._catching:
            self._stop_signals += 1
        else:
            self.kill()

    def jump_wall(self, ms: int) -> None:
        """Step the wall clock by `ms` (negative: back), as a time server or a user may. Monotonic time is not moved."""
        self.note("wall", ms)
        self._wall_zero_ms += ms
        if self._freezer is not None:
            self._freezer.set_ms(self._wall_zero_ms + self._elapsed_ms)

    def note(self, *fields: Noted) -> None:
        """Add a record to the history. Plain values only, whose `repr` is the same in every process.

        Raises TypeError for anything else, enumeration members included.
        """
        for field in fields:
            if type(field) not in _NOTABLE:
                raise TypeError(f"cannot note a {type(field).__name__}: its repr may differ between processes")
        self._scheduler.record("note", " ".join(map(repr, fields)))

    def history_hash(self) -> str:
        """sha256 (hex) over every record of the history so far."""
        return self._scheduler.trace.hash()

    def stream(self, name: str) -> random.Random:
        """A new random stream that depends on the seed and `name` alone: for the world's feed and faults.

        Use random() and getrandbits() only: the other methods may differ between Python versions.
        """
        digest = hashlib.sha256(f"{self.seed}:{name}".encode()).digest()
        return random.Random(int.from_bytes(digest[:16], "big"))

    def _die(self, reason: SimKilled) -> None:
        self._scheduler.die(reason)
        if self._scheduler.current is not None:
            raise SimKilled

    def _time_moved(self, now_ns: int) -> None:
        elapsed_ms = now_ns // 1_000_000
        if elapsed_ms != self._elapsed_ms:
            self._elapsed_ms = elapsed_ms
            if self._freezer is not None:
                self._freezer.set_ms(self._wall_zero_ms + elapsed_ms)


_NOTABLE: Final = (str, int, float, bytes, bool, type(None))
