"""The one way to cancel work: the code that does the work holds a `Cancellation`, polls it and waits on it."""

from __future__ import annotations

from tradebot.core.runtime import Runtime


class Cancelled(Exception):
    """Work before the pipeline runs ended early, on request or on a stop signal: nothing was accepted or lost."""


class Cancellation:
    """A request to end early, which is never withdrawn. Any thread may request it, poll it or wait for it."""

    def __init__(self, runtime: Runtime, *, by_signal: bool = False) -> None:
        """`by_signal`: the first stop signal counts as a request too (see `Runtime.catch_stop_signals`)."""
        self._runtime = runtime
        self._by_signal = by_signal
        self._event = runtime.event()

    def request(self) -> None:
        """Ask for the end. Idempotent; never blocks."""
        self._event.set()

    def is_requested(self) -> bool:
        """Whether the work should end. Never blocks."""
        return self._event.is_set() or (self._by_signal and self._runtime.stop_signals() > 0)

    def wait(self, timeout_s: float) -> bool:
        """Block until `request` is called, `timeout_s` seconds at most; then as `is_requested`.

        A signal does not wake it: keep `timeout_s` short where `by_signal` is set.
        """
        self._event.wait(timeout_s)
        return self.is_requested()
