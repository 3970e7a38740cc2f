"""The execution thread while execution runs inside the strategy stage: it counts and logs what was decided there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from tradebot.core.channel import Channel, ChannelClosed
from tradebot.core.events import Fill, NoticeKind, Order, OrderEvent, OutcomeChunk
from tradebot.core.log_events import LogEvent
from tradebot.output.log import Log
from tradebot.portfolio.instruments import Instruments
from tradebot.threads.counters import ENDED, Metrics
from tradebot.threads.refusal_lines import log_refusal
from tradebot.threads.signal_lines import log_signals
from tradebot.threads.strategy import MAX_TAKE
from tradebot.threads.unknown_units import UnknownUnits

_SHADOW_ORDER: Final = "shadow order executed"
_NOTICE_TEXTS: Final[dict[NoticeKind, str]] = {
    "BREAKER_TRIPPED": "a breaker has tripped: orders that add exposure are refused",
    "BREAKER_RELEASED": "a breaker is released",
}
_ORDER_EVENT: Final = "paper order changed"
_FILL: Final = "paper order filled"


class ReportStage:
    """Takes outcomes, puts nothing."""

    name = "execution"

    def __init__(
        self,
        reports: Channel[OutcomeChunk],
        refusal_text: Callable[[Order], str],
        instruments: Instruments,
        metrics: Metrics,
        log: Log,
    ) -> None:
        """`refusal_text` says why an order was refused; called on this thread."""
        self._reports = reports
        self._refusal_text = refusal_text
        self._metrics = metrics
        self._log = log.bind(self.name)
        self._units = UnknownUnits(instruments, self._log)
        self.inputs = (self._reports,)
        self.outputs: tuple[Channel[OutcomeChunk], ...] = ()

    def run(self) -> None:
        """The stage's loop; blocks on its input."""
        while True:
            try:
                chunks = self._reports.take(MAX_TAKE)
            except ChannelClosed:
                return
            for chunk in chunks:
                self._report(chunk)

    def _report(self, outcomes: OutcomeChunk) -> None:
        """All of a kind at once: a replay logs few lines of very many."""
        log_signals(self._log, [signal for outcome in outcomes for signal in outcome.signals])
        for outcome in outcomes:
            for order in outcome.orders:
                self._order(order)
        self._order_events([event for outcome in outcomes for event in outcome.order_events])
        self._fills([fill for outcome in outcomes for fill in outcome.fills])
        for outcome in outcomes:
            for notice in outcome.notices:
                log = self._log.info if notice.kind == "BREAKER_RELEASED" else self._log.warning
                log(_NOTICE_TEXTS.get(notice.kind, notice.kind), event=LogEvent(notice.kind), detail=notice.detail)

    def _order(self, order: Order) -> None:
        metrics = self._metrics
        if order.status == "REJECTED":
            metrics.count_veto(order.reason)
            log_refusal(self._log, order, self._refusal_text(order))
        elif order.status == "FILLED":
            metrics.shadow_orders += 1
            metrics.trade_count += len(order.fills)
            self._units.look((order.symbol,))
            if self._log.allows(_SHADOW_ORDER):
                self._log.info(
                    _SHADOW_ORDER, event=LogEvent.ORDER_FILLED, event_id=order.event_id, symbol=order.symbol,
                    side=order.side, qty=order.qty, price=order.price, reason_code=order.reason,
                )  # fmt: skip
        else:
            metrics.paper_orders += 1

    def _order_events(self, events: Sequence[OrderEvent]) -> None:
        metrics, log = self._metrics, self._log
        for event in events:
            counter = ENDED.get(event.status)
            # An order that was refused at submission never reached the venue: `_order` counts it.
            if counter is not None and not (event.status == "REJECTED" and event.n == 1):
                setattr(metrics, counter, getattr(metrics, counter) + 1)
        if not events or not log.allows(_ORDER_EVENT, len(events)):
            return
        for event in events:
            log.info(
                _ORDER_EVENT, event=LogEvent.ORDER_EVENT, order_id=event.order_id, n=event.n, status=event.status,
                reason_code=event.reason, remaining=event.remaining, ts=event.ts,
            )  # fmt: skip

    def _fills(self, fills: Sequence[Fill]) -> None:
        metrics, log = self._metrics, self._log
        metrics.trade_count += len(fills)
        self._units.look([fill.symbol for fill in fills])
        if not fills or not log.allows(_FILL, len(fills)):
            return
        for fill in fills:
            log.info(
                _FILL, event=LogEvent.FILL, event_id=fill.event_id, order_id=fill.order_id, symbol=fill.symbol,
                side=fill.side, qty=fill.fill_qty, price=fill.fill_price, fees=fill.fees, liquidity=fill.liquidity,
                slippage_bps=fill.slippage_bps,
            )  # fmt: skip
