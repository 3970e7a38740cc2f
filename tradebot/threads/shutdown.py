"""What the stages and the engine tell each other: stop, what failed first, who has ended, when patience ends."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from tradebot.core.cancellation import Cancellation
from tradebot.core.errors import ExitCode
from tradebot.core.runtime import Event, Runtime


class Failure(Struct, frozen=True):
    """Why the run does not end with 0: the code, the stage that met it, and a line for people."""

    code: ExitCode
    stage: str
    cause: str


class Control:
    """Shared by all threads of one engine. Setting is idempotent; nothing here blocks but waiting on the events."""

    def __init__(self, runtime: Runtime, stages: Iterable[str]) -> None:
        self._runtime = runtime
        self._lock = runtime.lock()
        self._running = set(stages)
        self.stop = Cancellation(runtime)
        """Requested when no more input is to be read: by a signal, the end of --seconds, or a failure."""
        self.finished: Event = runtime.event()
        """Set when every stage of the pipeline has ended."""
        self.failure: Failure | None = None
        self.drain_deadline: float | None = None
        """Monotonic second by which the channels must be empty once a stop was asked for; None before."""

    def fail(self, code: ExitCode, stage: str, cause: str) -> None:
        """Record a failure and stop reading. The first failure stays, but a crash outranks every other."""
        with self._lock:
            if self.failure is None or (code is ExitCode.CRASH and self.failure.code is not ExitCode.CRASH):
                self.failure = Failure(code, stage, cause)
        self.stop.request()

    def begin_stop(self, drain_timeout_s: float) -> None:
        """Stop reading, and give what was accepted `drain_timeout_s` seconds to be stored."""
        if self.drain_deadline is None:
            self.drain_deadline = self._runtime.monotonic() + drain_timeout_s
        self.stop.request()

    def expect(self, stage: str) -> None:
        """One more stage is to end before the pipeline has finished. Before any thread runs."""
        with self._lock:
            self._running.add(stage)

    def ended(self, stage: str) -> None:
        """A stage's thread is about to end, well or not."""
        with self._lock:
            self._running.discard(stage)
            last = not self._running
        if last:
            self.finished.set()

    def running(self) -> list[str]:
        """Stages that have not ended, by name."""
        with self._lock:
            return sorted(self._running)
