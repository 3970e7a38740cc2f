"""The log line of a signal."""

from __future__ import annotations

from collections.abc import Sequence

from tradebot.core.events import Signal
from tradebot.output.log import Log


def log_signals(log: Log, signals: Sequence[Signal]) -> None:
    """Log each of `signals`, as far as the log has room."""
    if not signals or not log.allows("signal generated", len(signals)):
        return
    for signal in signals:
        log.info(
            "signal generated", event=signal.reason, reason_code=signal.reason, side=signal.side,
            confidence=signal.confidence, desired_size=signal.desired_size, event_id=signal.event_id,
            symbol=signal.symbol, price=signal.price, ts=signal.ts,
        )  # fmt: skip
