"""What a cancellation is requested by."""

from __future__ import annotations

from tradebot.core.cancellation import Cancellation
from tradebot.core.runtime import RealRuntime


class Signalled(RealRuntime):
    """A process that got `signals` stop signals."""

    signals = 0

    def stop_signals(self) -> int:
        return self.signals


def test_a_request_ends_every_wait() -> None:
    cancel = Cancellation(RealRuntime())
    assert not cancel.is_requested() and not cancel.wait(0.001)
    cancel.request()
    cancel.request()
    assert cancel.is_requested() and cancel.wait(3600)


def test_a_stop_signal_counts_only_where_that_was_asked_for() -> None:
    runtime = Signalled()
    by_request, by_signal = Cancellation(runtime), Cancellation(runtime, by_signal=True)
    assert not by_signal.is_requested()
    runtime.signals = 1
    assert by_signal.is_requested() and by_signal.wait(0.001)
    assert not by_request.is_requested() and not by_request.wait(0.001)
