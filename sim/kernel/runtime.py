"""`SimRuntime`: the seam of tradebot.core.runtime under the baton. One seed is one history.

Threads use it like the real runtime. The code that drives a history uses `run`, the world's calls (`call_at`,
`call_at_step`, `send_signal`, `jump_wall`, `kill`) and, afterwards, `trace`, `history_hash` and `thread_errors`.

A history is deterministic on these conditions: simulated code blocks only through the seam, draws random numbers only
from `token` and `stream`, never iterates over a set or sorts by id or hash, and reads no real clock
(`sim.kernel.clock.frozen` ensures this). A thread must not reach a scheduling point while it holds a lock that the seam
did not create (of a log handler or a database library): the next thread that wants the lock would block while it holds
the baton. Clock reads and `Event.set` are allowed there, because `sim.kernel.switching` decides from the stack whether
they may be interrupted. See docs/determinism.md.
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
"""The simulated time of a step: 1 us, about as long as a real lock operation, and too short to affect timeouts."""
MAX_STEPS: Final = 2_000_000
# Not zero: a real monotonic clock is far from zero, and code that confuses "never" with 0.0 must fail here too.
_MONOTONIC_START_NS: Final = 10_000 * NS


class SimRuntime:
    """A simulated `tradebot.core.runtime.Runtime`, and the driver of one history.

    `seed` determines the schedule and its profile (see `sim.kernel.schedule_profile`): the kind of schedule, how often
    threads are switched where they need not block, where they are interrupted, and whether conditions have spurious
    wake-ups. `kind`, `grain` and the chances override single parts of the profile; `switch_chance` alone implies the
    kind "uniform". `start_ms` is the initial wall clock (Unix ms). `freezer` (from `sim.kernel.clock.frozen`) is set to
    the simulated time. `step_ns` is the simulated time of a scheduling point. `interrupts` are the modules whose code
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
        drawn = ScheduleProfile.drawn(self.stream("character"))  # the name of a stream determines its numbers: keep it
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
        """Block for `seconds` of simulated time. Raises ValueError below zero, as `time.sleep` does."""
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
        """Count the signals of `send_signal` from now on; before, a signal kills the process."""
        self._catching = True

    def stop_signals(self) -> int:
        """The number of signals sent with `send_signal` since `catch_stop_signals`."""
        signals = self._stop_signals
        self._scheduler.poll()
        return signals

    def exit_now(self, code: int) -> None:
        """End the simulated process like `kill`; `run` raises SimExit with the code."""
        self.note("exit", code)
        self._die(SimExit(code))

    def token(self) -> str:
        """Eight hex digits, determined by the seed."""
        return f"{self._tokens.getrandbits(32):08x}"

    # ---- the driver's and the world's calls --------------------------------------------------------------------

    @property
    def trace(self) -> Trace:
        """The record of the history: `trace.last`, `trace.tail()`."""
        return self._scheduler.trace

    @property
    def steps(self) -> int:
        """The number of steps so far: scheduling points and jumps of time."""
        return self._scheduler.steps

    @property
    def between_turns(self) -> bool:
        """For callbacks of the world: whether every thread is in a blocking call, not between two statements."""
        return self._scheduler.interrupted == 0

    @property
    def elapsed_s(self) -> float:
        """Simulated seconds since the start of the history."""
        return self._scheduler.now_ns / NS

    @property
    def killed(self) -> bool:
        """True once the simulated process has been killed: file and database calls must then have no effect."""
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
        """Run `main` as the simulated thread "main" and return its result. One history per runtime.

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
            for name, crash in self.thread_errors:  # often the cause: others wait for it
                error.add_note(f"thread {name} had crashed:\n{''.join(traceback.format_exception(crash))}")
            raise
        if self.thread_errors and not thread_errors_expected:
            crashes = "; ".join(f"{name}: {type(error).__name__}: {error}" for name, error in self.thread_errors)
            raise ThreadCrashed(f"uncaught exceptions in threads: {crashes}") from self.thread_errors[0][1]
        return result

    def checkpoint(self) -> None:
        """A scheduling point for the world's code, where a real call could be interrupted (a write, a fault)."""
        self._scheduler.point()

    def call_at(self, seconds: float, call: Callable[[], None]) -> None:
        """Schedule `call` for `seconds` of simulated time after the start of the history.

        It runs in no thread, while no thread runs. It may set events, notify, spawn, send signals, kill and note, but
        not block (RuntimeError). An exception in it ends the history and propagates from `run`.
        """
        self._scheduler.call_at_ns(as_ns(seconds), call)

    def call_at_step(self, step: int, call: Callable[[], None]) -> None:
        """Like `call_at`, at step number `step` (from 1), or the first one after it that is `between_turns`.

        So it never sees the engine with a thread interrupted between two statements.
        """
        self._scheduler.call_at_step(step, call, calm=True)

    def kill(self) -> None:
        """kill -9: SimKilled is raised in every thread at its park point, and immediately in a calling thread.

        While the threads unwind, blocking calls of the seam raise SimKilled and all other calls do nothing.
        """
        self._die(SimKilled(f"killed at step {self.steps}"))

    def kill_at_step(self, step: int) -> None:
        """`kill` exactly at step number `step`, whatever the threads are doing."""
        self._scheduler.call_at_step(step, self.kill)

    def send_signal(self) -> None:
        """SIGINT, SIGTERM or SIGHUP: counted after `catch_stop_signals`; before, it kills the process."""
        self.note("signal")
        if self._catching:
            self._stop_signals += 1
        else:
            self.kill()

    def jump_wall(self, ms: int) -> None:
        """Step the wall clock by `ms` (negative: back), as a time service may do. Monotonic time is unaffected."""
        self.note("wall", ms)
        self._wall_zero_ms += ms
        if self._freezer is not None:
            self._freezer.set_ms(self._wall_zero_ms + self._elapsed_ms)

    def note(self, *fields: Noted) -> None:
        """Add a record to the history. Only plain values, whose `repr` is the same in every process.

        Raises TypeError for anything else, enumeration members included.
        """
        for field in fields:
            if type(field) not in _NOTABLE:
                raise TypeError(f"cannot note a {type(field).__name__}: its repr may differ between processes")
        self._scheduler.record("note", " ".join(map(repr, fields)))

    def history_hash(self) -> str:
        """SHA-256 (hex) over all records of the history so far."""
        return self._scheduler.trace.hash()

    def stream(self, name: str) -> random.Random:
        """A new random stream for the world, for example for its faults; it depends only on the seed and `name`.

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
