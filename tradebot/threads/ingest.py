"""The ingest stage: feed in, sampled ticks out. Overload is met here and nowhere else."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from tradebot.channel import Channel
from tradebot.control import Control
from tradebot.events import Tick
from tradebot.exits import ConfigError, ExitCode
from tradebot.feeds.base import Batch, Feed
from tradebot.feeds.intake import Intake
from tradebot.log import Log
from tradebot.metrics import Metrics


def overload_cause(depths: Sequence[Channel[Any]]) -> str:
    """The stage that holds the pipeline up: the consumer of the full channel nearest to the database.

    `depths` are the channels from ingest to the writer: (tick, signal, persist). A full persist channel makes the
    strategy wait, which then shows at the tick channel; a full signal channel loses signals but holds nothing up.
    """
    _tick, _signal, persist = depths
    return "persist" if persist.is_full else "strategy"


class IngestStage:
    """Reads the feed until it ends, a stop is seen, or the tick channel refuses a tick."""

    name = "ingest"

    def __init__(
        self,
        feed: Feed,
        intake: Intake,
        channels: tuple[Channel[Tick], Channel[Any], Channel[Any]],
        already_stored: int,
        held: Generator[Tick, None, None],
        metrics: Metrics,
        control: Control,
        log: Log,
    ) -> None:
        """`channels` are (tick, signal, persist); `already_stored`: ticks at the front that an earlier start stored.

        `held` gives those ticks as they are stored.
        """
        self._feed = feed
        self._intake = intake
        self._tick_channel = channels[0]
        self._channels = channels
        self._already_stored = already_stored
        self._held = held
        self._metrics = metrics
        self._control = control
        self._log = log.bind(self.name)
        self.inputs: tuple[Channel[Any], ...] = ()
        self.outputs = (channels[0],)
        self.complete = False

    def run(self) -> None:
        """The stage's loop; blocks in the feed and, in a replay, on the full tick channel."""
        try:
            self._read_on()
        finally:
            self._feed.close()

    def _read_on(self) -> None:
        while not self._control.stop.is_set():
            batch = self._feed.read()
            if batch is None:
                self.complete = not self._control.stop.is_set()
                if self.complete and not self._feed.push:
                    self._log.info("replay finished", event="replay finished", ticks_read=self._metrics.ingest_received)
                return
            kept = self._take_in(batch)
            if not kept:
                continue
            if not self._feed.push:
                self._send(kept)
            elif self._offer(kept):
                return

    def _take_in(self, batch: Batch) -> Sequence[Tick]:
        metrics = self._metrics
        metrics.ingest_received += len(batch.ticks) + batch.malformed
        metrics.malformed += batch.malformed
        for note in batch.notes:
            self._log.warning("malformed input", line=note.line, reason=note.reason)
        if batch.malformed > len(batch.notes):
            self._log.warning("malformed input, not listed", lines=batch.malformed - len(batch.notes))
        kept = self._intake.keep(batch.ticks)
        metrics.sampled_out += len(batch.ticks) - len(kept)
        return kept

    def _compare(self, kept: Sequence[Tick]) -> None:
        """A resume must continue the very input that was begun. Raises ConfigError at the first tick that differs."""
        if not self._already_stored:
            return
        for tick in kept[: self._already_stored]:
            stored = next(self._held, None)
            if tick != stored:
                raise ConfigError(
                    f"--resume: the input is not the one this run was begun with: it has {tick}, stored is {stored};"
                    " resume with the same input, or use another --db or --run-id"
                )
        if len(kept) >= self._already_stored:
            # At once, not at the end: an open read transaction would let the WAL grow for as long as the replay lasts.
            self._held.close()

    def _accept(self, ticks: int) -> None:
        held = min(self._already_stored, ticks)
        self._already_stored -= held
        self._metrics.already_stored += held
        self._metrics.ingest_processed += ticks - held

    def _send(self, kept: Sequence[Tick]) -> None:
        """Put all ticks of a replay on the channel; however that ends, every tick is accounted for."""
        entered_before = self._tick_channel.entered
        try:
            self._compare(kept)
            self._tick_channel.send(kept)
        finally:
            entered = self._tick_channel.entered - entered_before
            self._accept(entered)
            self._metrics.refused += len(kept) - entered

    def _offer(self, kept: Sequence[Tick]) -> bool:
        """Offer ticks of a push feed; True when the channel refused one and the run is over."""
        metrics, entered_before = self._metrics, self._tick_channel.entered
        try:
            self._tick_channel.offer(kept)
        finally:
            accepted = self._tick_channel.entered - entered_before
            refused = len(kept) - accepted
            self._accept(accepted)
            metrics.refused += refused
        if not refused:
            return False
        metrics.bp_drops_tick += refused
        cause = overload_cause(self._channels)
        if cause == "persist":
            metrics.bp_drops_persist += refused
        depths = {channel.name: channel.depth for channel in self._channels}
        self._log.error("OVERLOAD", event="OVERLOAD", stage=cause, refused=refused, depths=depths)
        self._control.fail(ExitCode.OVERLOAD, self.name, f"tick channel full, held up by the {cause} stage")
        return True
