"""The log line of a refused order: the same from the stage that drops a signal and from the one that checks it."""

from __future__ import annotations

from typing import Any

from tradebot.core.events import Order
from tradebot.core.log_events import LogEvent
from tradebot.output.log import Log


def log_refusal(log: Log, order: Order, why: str) -> None:
    """Log why `order` was refused: in words (`why`), and with the fields that are stored with it."""
    breach = order.breach
    numbers: dict[str, Any] = {}
    if breach is not None:
        numbers = {"refused_by": breach.limit_key, "refused_value": breach.value, "refused_limit": breach.limit}
    log.warning(
        "order refused", event=LogEvent.ORDER_REFUSED, event_id=order.event_id, symbol=order.symbol, side=order.side,
        reason_code=order.reason, detail=why, **numbers,
    )  # fmt: skip
