"""The heartbeat: one line at a fixed interval with all counters, depths, and what progressed since the last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tradebot.core.channel import Channel
from tradebot.core.log_events import LogEvent
from tradebot.output.log import Log
from tradebot.threads.counters import Metrics
from tradebot.threads.shutdown import Control

# Counters whose growth is progress: one for each stage of the pipeline.
_PROGRESS = ("ingest_received", "tick_count", "signal_count", "shadow_orders", "persist_count")


class Heartbeat:
    """Logs HEARTBEAT until the pipeline has finished. Changes nothing, so it may run beside every stage."""

    name = "heartbeat"

    def __init__(
        self,
        interval_s: float,
        metrics: Metrics,
        channels: Sequence[Channel[Any]],
        status: Callable[[], dict[str, object]],
        control: Control,
        log: Log,
    ) -> None:
        """`status` gives the fields that come first: last price, position, profit, and the feed's own."""
        self._interval_s = interval_s
        self._metrics = metrics
        self._channels = channels
        self._status = status
        self._control = control
        self._log = log.bind(self.name)
        self._last: dict[str, int] = metrics.snapshot()
        self.inputs: tuple[Channel[Any], ...] = ()
        self.outputs: tuple[Channel[Any], ...] = ()

    def run(self) -> None:
        """The thread's loop; blocks on the end of the pipeline."""
        while not self._control.finished.wait(self._interval_s):
            self.beat()

    def beat(self) -> None:
        """Log one line."""
        counters = self._metrics.snapshot()
        progressed = {
            name: counters[name] - self._last[name] for name in _PROGRESS if counters[name] > self._last[name]
        }
        self._last = counters
        self._log.flush_suppressed()
        self._log.info(
            "HEARTBEAT", event=LogEvent.HEARTBEAT, **self._status(), **counters, **depth_fields(self._channels),
            progressed=progressed,
        )  # fmt: skip


def depths(channels: Sequence[Channel[Any]]) -> dict[str, int]:
    """Events waiting in each channel, by its name."""
    return {channel.name: channel.depth for channel in channels}


def depth_fields(channels: Sequence[Channel[Any]]) -> dict[str, int]:
    """Depth, high-water mark and refused count of each channel, as flat log fields."""
    fields: dict[str, int] = {}
    for channel in channels:
        fields[f"{channel.name}_depth"] = channel.depth
        fields[f"{channel.name}_high_water"] = channel.high_water
        fields[f"{channel.name}_refused"] = channel.refused
    return fields
