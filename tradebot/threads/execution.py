"""The execution stage: signals in, simulated orders out. Opens no socket."""

from __future__ import annotations

from collections.abc import Sequence

from tradebot.core.channel import Channel, ChannelClosed
from tradebot.core.events import Order, OrderChunk, PersistItem, SignalChunk
from tradebot.core.ids import tick_number_of
from tradebot.core.log_events import LogEvent
from tradebot.core.runtime import Runtime
from tradebot.execution.shadow import ShadowExecution
from tradebot.execution.timing import TimingRefusals
from tradebot.output.log import Log
from tradebot.threads.counters import Metrics
from tradebot.threads.refusal_lines import log_refusal
from tradebot.threads.strategy import MAX_TAKE
from tradebot.threads.unknown_units import UnknownUnits


class ExecutionStage:
    """Takes signals, puts each order together with its fills on persist."""

    name = "execution"

    def __init__(
        self,
        execution: ShadowExecution,
        channels: tuple[Channel[SignalChunk], Channel[PersistItem]],
        push: bool,
        stored_orders: int,
        metrics: Metrics,
        log: Log,
        runtime: Runtime,
        refusals: TimingRefusals | None = None,
    ) -> None:
        """`stored_orders`: orders at the front of this run that the database holds already.

        `refusals` are those that a replay repeats.
        """
        self._execution = execution
        self._signals, self._persist = channels
        self._push = push
        self._stored_orders = stored_orders
        self._metrics = metrics
        self._log = log.bind(self.name)
        self._runtime = runtime
        self._refusals = refusals
        self._units = UnknownUnits(execution.money.instruments, self._log)
        self.inputs = (self._signals,)
        self.outputs = (self._persist,)

    def run(self) -> None:
        """The stage's loop; blocks on its input and on a full persist channel."""
        while True:
            try:
                chunks = self._signals.take(MAX_TAKE)
            except ChannelClosed:
                return
            for chunk in chunks:
                self._process(chunk)

    def _process(self, chunk: SignalChunk) -> None:
        # In a replay the clock never decides: age is not checked.
        now_ms = self._runtime.now_ms() if self._push else None
        execute, refusals = self._execution.execute, self._refusals
        orders = OrderChunk()
        for signal in chunk:
            repeated = None if refusals is None else refusals.of(tick_number_of(signal.event_id), signal.ts)
            order = execute(signal, now_ms, repeated=repeated)
            orders.append(order)
            if not order.fills:
                self._refused(order)
        self._report_filled([order for order in orders if order.fills])
        fresh = orders.part(self._stored_orders) if self._stored_orders else orders
        self._stored_orders -= len(orders) - len(fresh)
        if fresh:
            self._persist.send(fresh)

    def _report_filled(self, orders: Sequence[Order]) -> None:
        metrics, log = self._metrics, self._log
        self._units.look([order.symbol for order in orders])
        metrics.shadow_orders += len(orders)
        metrics.trade_count += sum([len(order.fills) for order in orders])
        if not orders or not log.allows("shadow order executed", len(orders)):
            return
        for order in orders:
            log.info(
                "shadow order executed", event=LogEvent.ORDER_FILLED, event_id=order.event_id, symbol=order.symbol,
                side=order.side, qty=order.qty, price=order.price, reason_code=order.reason,
            )  # fmt: skip

    def _refused(self, order: Order) -> None:
        self._metrics.count_veto(order.reason)
        log_refusal(self._log, order, self._execution.refusal_text(order))
