"""Passes one baton among real threads: exactly one runs, a seeded choice selects it, and time jumps when none can run.

A thread gives up the baton only at a *scheduling point* (`point`, `park`, or an `interrupt` that was drawn). Each point
is a *step*: it takes `step_ns` of simulated time, so that polling loops advance the clock, fires the timers that are
due, and runs the world's callbacks. Code between two points is atomic. A parked thread blocks on its own raw lock (its
gate); a hand-over is one release and one acquire, and nothing if the same thread is selected again.

All code here runs in the thread that holds the baton, so no state needs a lock.
"""

from __future__ import annotations

import math
import random
import sys
import threading
from _thread import allocate_lock
from collections.abc import Callable
from typing import Any, Final, Literal

from sim.kernel import machine
from sim.kernel.errors import Deadlock, Livelock, SimKilled, Stuck, ThreadsLeft, TimeLimit
from sim.kernel.schedules import Schedule
from sim.kernel.stacks import stacks_of
from sim.kernel.switching import SwitchPoints
from sim.kernel.timers import NS, BatonThread, BatonWait, StepCalls, Timers, as_ns
from sim.kernel.trace import Trace

FREE_POLLS: Final = 1_000
"""Clock reads and flag tests between two steps that take no time; each further one takes a step's time."""
POLLS_MAX: Final = 1_000_000
IDLE_S: Final = 21_600.0
"""`run` reports a livelock after this many simulated seconds and IDLE_JUMPS jumps with nothing but timeouts."""
IDLE_JUMPS: Final = 1_000
RUNS: Final = "has the baton"


class Scheduler:
    """Threads, time, timers, the world's callbacks, and kills.

    `schedule` selects the next thread; all other choices are drawn from `choices`. `on_time` is called when the time
    has changed. `points`: where threads may be interrupted outside blocking calls, each time with probability
    `interrupt_chance`; with `statements` also between statements of the engine.
    """

    def __init__(
        self,
        choices: random.Random,
        schedule: Schedule,
        *,
        step_ns: int,
        on_time: Callable[[int], None],
        points: SwitchPoints,
        interrupt_chance: float,
        statements: bool,
    ) -> None:
        self.trace = Trace()
        self.now_ns = 0
        self.steps = 0
        self.current: BatonThread | None = None  # None: the world (a callback, or the test outside `run`)
        self.dead: BaseException | None = None
        self.thread_errors: list[tuple[str, BaseException]] = []
        self.interrupted = 0  # threads stopped at a point where they do not block
        self.random = choices.random
        self._schedule = schedule
        self._points = points
        self._interrupt_chance = interrupt_chance
        self._tracer = points.tracer(self.interrupt) if statements else None
        self._step_ns = step_ns
        self._on_time = on_time
        self._polls = 0
        self._idle_jumps, self._idle_from_ns = 0, 0
        self._started = 0
        self._ready: list[BatonThread] = []
        self._living: list[BatonThread] = []
        self._names: dict[str, int] = {}
        self._timers = Timers()
        self._step_calls = StepCalls()
        self._until_ns: float = math.inf
        self._state: Literal["new", "running", "over"] = "new"
        self._main: BatonThread | None = None
        self._os_threads: list[threading.Thread] = []
        self._done = allocate_lock()
        self._done.acquire()

    # ---- called by threads -------------------------------------------------------------------------------------

    def point(self) -> None:
        """A step at which the calling thread could continue: hands over if the schedule says so. Raises SimKilled."""
        me = self._begin_step()
        if self._ready and self._schedule.yields(me, self._ready, self.steps, False):
            self._hand_on(me)

    def interrupt(self) -> None:
        """A step with some probability, if `SwitchPoints` allow it, like a preemption. Raises SimKilled."""
        if self._interrupt_chance and self.random() < self._interrupt_chance:
            me = self.current
            if me is None or self.dead is not None or me.ident != threading.get_ident():
                return
            if self._points.may_switch(sys._getframe(1)):
                self.interrupted += 1
                try:
                    self._begin_step()
                    if self._ready and self._schedule.yields(me, self._ready, self.steps, True):
                        self._hand_on(me)
                finally:
                    self.interrupted -= 1

    def new_wait(self, timeout: float | None) -> BatonWait:
        """A wait of the calling thread that ends after at most `timeout` seconds; `park` then blocks on it."""
        wait = BatonWait(self._caller(), timeout is not None)
        if timeout is not None:
            self._timers.add(self.now_ns + as_ns(timeout), wait)
        return wait

    def park(self, doing: str) -> None:
        """Give up the baton until a wait of this thread ends; `doing` is shown in stacks. Raises SimKilled."""
        me = self._begin_step()
        me.doing = doing
        self._switch(me)

    def wake(self, wait: BatonWait) -> None:
        """End `wait`, unless it has ended: its thread may run again. Never gives up the baton."""
        if wait.ended:
            return
        wait.ended = True
        self._idle_jumps = 0
        if wait.timed:
            self._timers.went_stale()
        wait.thread.ready_at = self.steps
        self._ready.append(wait.thread)

    def poll(self) -> None:
        """Count a clock read or flag test: a loop with nothing else advances time, and finally ends as a livelock.

        Called after the read, so that an interruption occurs before the caller uses the value.
        """
        self._polls += 1
        if self._polls > FREE_POLLS and self.current is not None and self.dead is None:
            if self._polls > POLLS_MAX:
                self.die(Livelock(f"{self.current.label} polls without ever blocking\n{self.stacks()}"))
                raise SimKilled
            self._move_time(self.now_ns + self._step_ns)
        if self._interrupt_chance:
            self.interrupt()

    def choose(self, count: int) -> int:
        """Draw a number from range(count)."""
        return int(self.random() * count) if count > 1 else 0

    def start(self, name: str, target: Callable[[], None]) -> BatonThread:
        """Start a simulated thread; it runs when it is first selected. Not a scheduling point by itself."""
        if self._state != "running":
            raise RuntimeError(f"cannot start thread {name}: the history is {self._state}, not running")
        if self.dead is not None:
            raise SimKilled
        count = self._names[name] = self._names.get(name, 0) + 1
        thread = BatonThread(name, name if count == 1 else f"{name}#{count}", self._started)
        self._started += 1
        self._schedule.started(thread)
        os_thread = threading.Thread(target=self._body, args=(thread, target), name=name, daemon=True)
        self._os_threads = [*(t for t in self._os_threads if t.is_alive()), os_thread]
        os_thread.start()
        thread.ident = os_thread.ident or 0
        self._living.append(thread)
        self._make_ready(thread)
        self._idle_jumps = 0
        self.record("start", thread.label)
        return thread

    # ---- called by the world -----------------------------------------------------------------------------------

    def call_at_ns(self, due_ns: int, call: Callable[[], None]) -> None:
        """Schedule `call` for the simulated time `due_ns`. It must not block."""
        self._timers.add(due_ns, call)

    def call_at_step(self, step: int, call: Callable[[], None], calm: bool = False) -> None:
        """Schedule `call` for that step or, if `calm`, for the first from then on with no interrupted thread."""
        self._step_calls.add(step, call, calm)

    def die(self, reason: BaseException) -> None:
        """End the history: SimKilled unwinds the threads one after the other. The first reason counts."""
        if self.dead is None:
            self.record("dead", type(reason).__name__)
            self.dead = reason

    def record(self, kind: str, text: str) -> None:
        """Add a record to the trace, with step, time (ns) and running thread; does nothing after `die`."""
        if self.dead is None:
            who = self.current.label if self.current is not None else "-"
            self.trace.add(f"{self.steps} {self.now_ns} {who} {kind} {text}")

    def run(self, main: Callable[[], Any], max_steps: int, until_ns: float) -> Any:
        """See `SimRuntime.run`."""
        if self._state != "new":
            raise RuntimeError("a runtime runs one history; make a new one for the next")
        self._state = "running"
        self._until_ns = until_ns
        if self._tracer is not None and machine.is_traced():
            self._tracer = None
            self.record("statements", "left alone: a debugger or coverage.py traces them")
        self.call_at_step(max_steps + 1, lambda: self.die(Livelock(f"more than {max_steps} steps\n{self.stacks()}")))
        outcome: list[Any] = []
        failure: list[BaseException] = []

        def body() -> None:
            try:
                outcome.append(main())
            except BaseException as error:
                if self.dead is None:
                    failure.append(error)

        try:
            with machine.pinned_process():
                self._start_main(body)
                self._await_end()
        finally:
            self._state = "over"
            self.current = None
        if failure:
            if self.dead is not None:
                failure[0].add_note(str(self.dead))
            raise failure[0]
        if self.dead is not None:
            raise self.dead
        return outcome[0]

    def stacks(self) -> str:
        """Each thread that has not ended, what it waits for, and its stack."""
        return stacks_of(self._living)

    # ---- internal ----------------------------------------------------------------------------------------------

    def _caller(self) -> BatonThread:
        me = self.current
        if me is None:
            raise RuntimeError("a callback of the world, or code outside run(), may not block")
        if me.ident != threading.get_ident():
            raise RuntimeError(f"thread {threading.current_thread().name} is no part of the simulation")
        return me

    def _begin_step(self) -> BatonThread:
        if self.dead is not None:
            raise SimKilled
        me = self._caller()
        self._polls = 0
        self._move_time(self.now_ns + self._step_ns)
        self._count_step()
        self._fire_due()
        if self.now_ns > self._until_ns:
            self._time_is_up()
        if self.dead is not None:
            raise SimKilled
        return me

    def _count_step(self) -> None:
        self.steps += 1
        if self.steps >= self._step_calls.next_step:
            while (call := self._step_calls.pop(self.steps, self.interrupted > 0)) is not None:
                self._call(call)

    def _move_time(self, now_ns: int) -> None:
        self.now_ns = now_ns
        self._on_time(now_ns)

    def _time_is_up(self) -> None:
        self.die(TimeLimit(f"simulated time is past {self._until_ns / NS} s\n{self.stacks()}"))

    def _fire_due(self) -> None:
        while (item := self._timers.pop(self.now_ns)) is not None:
            if not isinstance(item, BatonWait):
                self._call(item)
            else:
                item.ended = item.timed_out = True
                self.record("timer", item.thread.label)
                self._make_ready(item.thread)

    def _call(self, call: Callable[[], None]) -> None:
        if self.dead is not None:
            return
        me, self.current = self.current, None
        self.record("call", "")
        try:
            call()
        except BaseException as error:
            self.die(error)
        finally:
            self.current = me

    def _jump(self) -> bool:
        """No thread can run: advance to the next timer and fire it. False without a timer."""
        due_ns = self._timers.next_due_ns()
        if due_ns is None:
            return False
        if due_ns > self._until_ns:
            self._time_is_up()
            return True
        self._move_time(max(due_ns, self.now_ns))
        self._count_step()
        self._fire_due()
        self._idle_jumps += 1
        if self._idle_jumps == 1:
            self._idle_from_ns = self.now_ns
        elif self._idle_jumps > IDLE_JUMPS and self.now_ns - self._idle_from_ns > IDLE_S * NS:
            self.die(Livelock(f"for {IDLE_S / 3600} simulated hours nothing woke but by timeout\n{self.stacks()}"))
        return True

    def _pick(self) -> BatonThread | None:
        """Remove the next thread to run from `_ready`, advancing time if necessary; None after `die`."""
        ready = self._ready
        while not ready and self.dead is None:
            if not self._jump():
                self.die(Deadlock(f"no thread can run and no timer is pending\n{self.stacks()}"))
        if self.dead is not None:
            return None
        return ready.pop(self._schedule.pick(ready, self.steps) if len(ready) > 1 else 0)

    def _make_ready(self, thread: BatonThread) -> None:
        thread.ready_at = self.steps
        self._ready.append(thread)

    def _hand_on(self, me: BatonThread) -> None:
        me.doing = "ready"
        self._make_ready(me)
        self._switch(me)

    def _switch(self, me: BatonThread) -> None:
        chosen = self._pick()
        if chosen is not None and chosen is not me:
            self.record(">", chosen.label)
            self.current = chosen
            chosen.gate.release()
            me.gate.acquire()
        if self.dead is not None:
            raise SimKilled
        me.doing = RUNS

    def _body(self, me: BatonThread, target: Callable[[], None]) -> None:
        me.gate.acquire()
        me.doing = RUNS
        try:
            if self.dead is None:
                if self._tracer is not None:
                    sys.settrace(self._tracer)
                target()
        except BaseException as error:
            # After `die` this is SimKilled, or an exception raised during unwinding: a killed process reports nothing.
            if self.dead is None:
                self.record("crash", type(error).__name__)
                self.thread_errors.append((me.label, error))
        finally:
            self._end(me)

    def _start_main(self, body: Callable[[], None]) -> None:
        main = self.start("main", body)
        self._ready.remove(main)
        self.current = self._main = main
        main.gate.release()

    def _end(self, me: BatonThread) -> None:
        """The calling thread has ended: wake its joiners and hand over the baton, from the last thread to `run`."""
        self.record("end", me.label)
        self._idle_jumps = 0
        me.finished = True
        self._living.remove(me)
        for wait in me.joiners:
            self.wake(wait)
        if me is self._main and self._living:
            names = ", ".join(thread.label for thread in self._living)
            self.die(ThreadsLeft(f"main ended while these threads still lived: {names}\n{self.stacks()}"))
        following: BatonThread | None = None
        if self._living:
            # After `die`, threads unwind one at a time, in the order in which they were started.
            following = self._pick() or self._living[0]
            self.record(">", following.label)
        self.current = following
        (following.gate if following is not None else self._done).release()

    def _await_end(self) -> None:
        """Wait, in the thread that called `run`, for the last simulated thread to end."""
        try:
            if not machine.wait_for(self._done, lambda: self.steps):
                why = f"no step for {machine.STUCK_AFTER_S} real seconds: it computes, or blocks outside the seam"
                raise Stuck(f"{why}\n{self.stacks()}")
        except BaseException as error:
            # Ctrl-C, a test's timeout, or Stuck: threads unwind at their next seam call, or while they compute.
            self.dead = self.dead or error
            if isinstance(error, Stuck) and self.current is not None:
                machine.raise_in_thread(self.current.ident, SimKilled)
            if self._done.acquire(timeout=machine.UNWIND_WAIT_S):
                self._join_all()
            raise
        self._join_all()

    def _join_all(self) -> None:
        for thread in self._os_threads:
            thread.join()
