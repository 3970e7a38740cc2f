"""The seam for time and threads: the only module that reads clocks, starts threads, makes locks and draws randomness.

Everything else receives a `Runtime`. The product runs on `RealRuntime`; `sim.kernel.runtime.SimRuntime` gives the same
interface under a simulated clock and a seeded scheduler, so that the engine's own threads run unchanged in simulation.
One contract suite (tests/contract) holds both to the same semantics.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Protocol


class Lock(Protocol):
    """A non-reentrant mutual exclusion lock, used as a context manager."""

    def __enter__(self) -> object: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> object: ...


class Condition(Lock, Protocol):
    """A condition variable on a lock; `wait` may wake spuriously, so callers loop on their predicate."""

    def wait(self, timeout: float | None = None) -> bool:
        """Release the lock, block until notified or `timeout` seconds passed, take the lock again; False on timeout."""
        ...

    def notify(self, n: int = 1) -> None:
        """Wake up to `n` waiting threads. The caller holds the lock."""
        ...

    def notify_all(self) -> None:
        """Wake all waiting threads. The caller holds the lock."""
        ...


class Event(Protocol):
    """A flag that threads can wait for."""

    def set(self) -> None:
        """Raise the flag and wake all waiting threads."""
        ...

    def clear(self) -> None:
        """Lower the flag."""
        ...

    def is_set(self) -> bool:
        """Whether the flag is raised."""
        ...

    def wait(self, timeout: float | None = None) -> bool:
        """Block until set or `timeout` seconds passed; the flag's state."""
        ...


class Thread(Protocol):
    """A started thread."""

    @property
    def name(self) -> str:
        """The name given to `Runtime.spawn`."""
        ...

    def join(self, timeout: float | None = None) -> None:
        """Block until the thread has ended or `timeout` seconds passed."""
        ...

    def is_alive(self) -> bool:
        """Whether the thread has not ended yet."""
        ...


class Runtime(Protocol):
    """Clock, threads, locks, process signals and randomness."""

    def now_ms(self) -> int:
        """Wall clock, Unix milliseconds UTC. May jump; never used to measure a wait."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        ...

    def cpu_seconds(self) -> float:
        """Processor seconds used by the calling thread (0.0 in simulation): for the busy times of the benchmarks."""
        ...

    def sleep(self, seconds: float) -> None:
        """Block the calling thread. Prefer waiting on an event, which a stop can interrupt."""
        ...

    def lock(self) -> Lock:
        """A lock that is not re-entrant."""
        ...

    def condition(self, lock: Lock | None = None) -> Condition:
        """A condition on `lock`, or on a new lock; several conditions may share one lock."""
        ...

    def event(self) -> Event:
        """An event whose flag is lowered."""
        ...

    def spawn(self, name: str, target: Callable[[], None]) -> Thread:
        """Start `target` in a thread called `name`. The thread never keeps the process alive by itself."""
        ...

    def catch_stop_signals(self) -> None:
        """From now on count SIGINT, SIGTERM and SIGHUP instead of dying of them. Main thread only.

        A SIGHUP that the caller had ignored (nohup) stays ignored.
        """
        ...

    def stop_signals(self) -> int:
        """How many stop signals came since `catch_stop_signals`."""
        ...

    def exit_now(self, code: int) -> None:
        """End the process immediately, even with running threads: only the standard streams are flushed."""
        ...

    def token(self) -> str:
        """Eight random hex digits, for the ids of live runs."""
        ...


class RealRuntime:
    """`threading`, `time` and `signal` behind the `Runtime` interface."""

    def __init__(self) -> None:
        self._stop_signals = 0

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    def cpu_seconds(self) -> float:
        return time.thread_time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def lock(self) -> Lock:
        return threading.Lock()

    def condition(self, lock: Lock | None = None) -> Condition:
        # A plain Lock, as documented: Condition's own default would be re-entrant.
        inner = self.lock() if lock is None else lock
        return threading.Condition(inner)  # type: ignore[arg-type]  # the seam's locks are threading.Lock here

    def event(self) -> Event:
        return threading.Event()

    def spawn(self, name: str, target: Callable[[], None]) -> Thread:
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        return thread

    def catch_stop_signals(self) -> None:
        # The handler only counts: taking any lock here could deadlock with the main thread it interrupts.
        def count(_number: int, _frame: FrameType | None) -> None:
            self._stop_signals += 1
            if self._stop_signals > 2:
                # The second one was not served: the main thread is stuck, in a log line that nobody reads perhaps.
                os._exit(1)

        signal.signal(signal.SIGINT, count)
        signal.signal(signal.SIGTERM, count)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, count)

    def stop_signals(self) -> int:
        return self._stop_signals

    def exit_now(self, code: int) -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # a closed pipe must not keep us
                stream.flush()
        os._exit(code)

    def token(self) -> str:
        return secrets.token_hex(4)
