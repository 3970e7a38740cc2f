"""A service manager that hears what an engine says of itself, and when; it does nothing about it."""

from __future__ import annotations

from sim.runtime import SimRuntime


class HearingManager:
    """The `Notifier` of a simulated process. Times are simulated seconds of that process."""

    def __init__(self, runtime: SimRuntime) -> None:
        self._runtime = runtime
        self.ready_s: float | None = None
        self.stopping_s: float | None = None
        self.alive_s: list[float] = []
        """When the watchdog was fed."""
        self.line = ""
        """The newest line for people."""

    def ready(self) -> None:
        """The pipeline runs."""
        if self.ready_s is not None:
            raise AssertionError("READY was said twice")
        self.ready_s = self._runtime.elapsed_s

    def status(self, line: str) -> None:
        """A line for people."""
        self.line = line

    def alive(self) -> None:
        """The watchdog is fed."""
        self.alive_s.append(self._runtime.elapsed_s)

    def stopping(self) -> None:
        """A stop is under way."""
        if self.stopping_s is not None:
            raise AssertionError("STOPPING was said twice")
        self.stopping_s = self._runtime.elapsed_s

    def close(self) -> None:
        """Nothing more will be said."""
