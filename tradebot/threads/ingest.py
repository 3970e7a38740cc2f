"""The ingest stage: feed in, sampled ticks out. Overload is met here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Final

from msgspec.structs import replace

from tradebot.core.channel import Channel
from tradebot.core.errors import ConfigError, ExitCode
from tradebot.core.events import Checkpoint, FeedItem, Notice, NoticeKind, Tick, TickChunk, TickItem
from tradebot.core.log_events import LogEvent
from tradebot.feeds.base import Feed, FeedBatch
from tradebot.feeds.sampling import Intake
from tradebot.output.log import Log
from tradebot.store.takeover import Memory
from tradebot.threads.counters import Metrics
from tradebot.threads.shutdown import Control

_NOTICE_TEXTS: Final[dict[NoticeKind, str]] = {
    "LINK_UP": "link up",
    "LINK_LOST": "link lost",
    "LINK_RESTORED": "link restored",
    "GAP": "trades missing",
    "PRICE_BAND": "price out of band",
    "SYMBOL_REFUSED": "the exchange refuses a symbol",
    "SYMBOL_SILENT": "a symbol has stopped trading while others trade",
    "EXCHANGE_NOTICE": "the exchange announces",
    "HALT": "halted: orders that add exposure are refused until tradebot resume",
    "RESUME": "resumed: the halt and the breakers that wait for a resume have ended",
    "RESTART": "the run continues an earlier one: what was traded in between is missing",
}


CHECKPOINT_TICKS: Final = 16_384
"""After so many accepted ticks of a push feed a checkpoint follows: about what a restart has to read."""

_BREATH_S: Final = 0.0005
"""How long a push feed leaves the processor to the consumers when the tick channel is half full or more.

The ticks of a sweep (hundreds in a millisecond) lie in our own buffers when the first of them is offered: without a
pause this thread would fill the channel before the strategy's thread had been given its first turn. The pause is
bounded and never waits for room, so a strategy that is too slow is met by the full channel all the same.
"""


def _ticks_in(items: Sequence[FeedItem]) -> int:
    return sum([len(item) for item in items if isinstance(item, TickChunk)])


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
        channels: tuple[Channel[TickItem], Channel[Any], Channel[Any]],
        already_stored: int,
        held: Generator[Tick, None, None],
        metrics: Metrics,
        control: Control,
        log: Log,
        memory: Memory | None = None,
        checkpoint_ticks: int = CHECKPOINT_TICKS,
        poll_halt: Callable[[], Notice | None] | None = None,
    ) -> None:
        """`channels` are (tick, signal, persist); `already_stored`: ticks at the front that an earlier start stored.

        `held` gives those ticks as they are stored. `memory` is what a push feed remembers, where it remembers
        anything; a checkpoint follows every `checkpoint_ticks` accepted ticks of a push feed. `poll_halt` tells a push
        feed of a halt or a resume, once; it never blocks for long.
        """
        self._feed = feed
        self._intake = intake
        self._tick_channel = channels[0]
        self._channels = channels
        self._already_stored = already_stored
        self._ticks_before = 0
        self._checkpointed = 0
        self._checkpoint_ticks = checkpoint_ticks
        self._memory = memory
        self._poll_halt = poll_halt
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
            self._held.close()
            try:
                self._feed.close()
            except Exception as error:
                # It must not take the place of how the feed ended.
                self._log.error("the feed could not be closed", event=LogEvent.CLOSE_FAILED, exc_info=error)

    def _read_on(self) -> None:
        while not self._control.stop.is_requested():
            self._offer_halt()
            batch = self._feed.read()
            if batch is None:
                self._offer_checkpoint()
                self._check_all_compared()
                self.complete = not self._control.stop.is_requested()
                if self.complete and not self._feed.push:
                    self._log.info(
                        "replay finished", event=LogEvent.REPLAY_FINISHED, ticks_read=self._metrics.ingest_received
                    )
                return
            self._count(batch)
            items = self._items(batch)
            if not self._feed.push:
                self._send(items)
            elif self._offer(items):
                return  # without a checkpoint: what was refused must count as never seen
            elif self._ticks_before - self._checkpointed >= self._checkpoint_ticks:
                self._offer_checkpoint()
        self._offer_checkpoint()

    def _offer_halt(self) -> None:
        """Pass on a halt or a resume before the next ticks. A full channel leaves it to the next time.

        The first of a run comes before its first tick.
        """
        if self._poll_halt is None or self._tick_channel.is_full:
            return
        notice = self._poll_halt()
        if notice is not None:
            self._announce(notice)
            self._tick_channel.offer(replace(notice, ticks_before=self._ticks_before))

    def _offer_checkpoint(self) -> None:
        """What a restart continues from, after all that was read until now. A full channel leaves it to the next."""
        # Nobody else puts anything here, so the room stays. A refusal would count as a loss, which this is not.
        if not self._feed.push or self._tick_channel.is_full:
            return
        symbols = () if self._memory is None else self._memory.changed()
        if self._tick_channel.offer(Checkpoint(self._ticks_before, symbols)):
            self._checkpointed = self._ticks_before
            if self._memory is not None:
                self._memory.confirmed()

    def _count(self, batch: FeedBatch) -> None:
        metrics = self._metrics
        left_out = batch.malformed + batch.duplicates + batch.history_dropped + batch.out_of_band
        metrics.ingest_received += len(batch.ticks) + left_out
        metrics.malformed += batch.malformed
        metrics.duplicates += batch.duplicates
        metrics.history_dropped += batch.history_dropped
        metrics.out_of_band += batch.out_of_band
        for note in batch.notes:
            self._log.warning("malformed input", event=LogEvent.MALFORMED_INPUT, line=note.line, reason=note.reason)
        if (
            batch.malformed > len(batch.notes) and not self._feed.push
        ):  # a push feed chooses what it describes, and when
            self._log.warning(
                "further malformed input was not logged", event=LogEvent.MALFORMED_SUPPRESSED,
                lines=batch.malformed - len(batch.notes),
            )  # fmt: skip
        for _index, notice in batch.notices:
            self._announce(notice)

    def _announce(self, notice: Notice) -> None:
        """Count and log what a feed says between ticks."""
        log = self._log.info if notice.kind in ("LINK_UP", "RESUME") else self._log.warning
        if notice.kind == "SYMBOL_REFUSED":
            log = self._log.error
        fields: dict[str, Any] = {} if notice.symbol is None else {"symbol": notice.symbol}
        if notice.kind == "GAP":
            fields["missing"] = notice.missing
        restarted = notice.kind == "GAP" and notice.missing is None
        text = "sequence numbering restarted" if restarted else _NOTICE_TEXTS[notice.kind]
        log(text, event=LogEvent(notice.kind), detail=notice.detail, **fields)
        if notice.kind == "GAP":
            self._metrics.gaps += 1
        elif notice.kind == "LINK_RESTORED":
            self._metrics.reconnects += 1

    def _items(self, batch: FeedBatch) -> list[FeedItem]:
        """What is kept of a batch, in order."""
        items: list[FeedItem] = []
        symbol = batch.ticks.symbol if isinstance(batch.ticks, TickChunk) else None
        start = 0
        for index, notice in (*batch.notices, (len(batch.ticks), None)):
            ticks = batch.ticks[start:index] if start or index < len(batch.ticks) else batch.ticks
            kept = self._intake.keep(ticks)
            self._metrics.sampled_out += len(ticks) - len(kept)
            if kept:
                items.append(kept if isinstance(kept, TickChunk) else TickChunk(kept, symbol))
            if notice is not None:
                items.append(notice)
            start = index
        return items

    def _compare(self, kept: Sequence[Tick]) -> None:
        """A resume must continue the very input that was begun. Raises ConfigError at the first tick that differs."""
        if not self._already_stored:
            return
        for tick in kept[: self._already_stored]:
            stored = next(self._held, None)
            if tick != stored:
                raise ConfigError(
                    f"--resume: the input differs from the one this run began with: it has {tick}, but {stored} is"
                    " stored; resume with the same input, or use another --db or --run-id"
                )
        if len(kept) >= self._already_stored:
            # At once, not at the end: an open read transaction would let the WAL grow for as long as the replay lasts.
            self._held.close()

    def _check_all_compared(self) -> None:
        """At the end of the input. Raises ConfigError when a resumed run holds more ticks than the input has."""
        if self._already_stored and not self._control.stop.is_requested():
            raise ConfigError(
                "--resume: the input differs from the one this run began with: it ends after"
                f" {self._ticks_before} ticks, and {self._already_stored} more are stored; resume with the same input,"
                " or use another --db"
            )

    def _accept(self, ticks: int) -> None:
        self._ticks_before += ticks
        held = min(self._already_stored, ticks)
        self._already_stored -= held
        self._metrics.already_stored += held
        self._metrics.ingest_processed += ticks - held

    def _send(self, items: Sequence[FeedItem]) -> None:
        """Put all of a replay's items on the channel; however that ends, every tick is accounted for."""
        waiting = _ticks_in(items)
        try:
            for item in items:
                if isinstance(item, Notice):
                    self._tick_channel.send(replace(item, ticks_before=self._ticks_before))
                    continue
                entered_before = self._tick_channel.entered
                try:
                    self._compare(item)
                    self._tick_channel.send(item)
                finally:
                    entered = self._tick_channel.entered - entered_before
                    self._accept(entered)
                    waiting -= entered
        finally:
            self._metrics.refused += waiting

    def _offer(self, items: Sequence[FeedItem]) -> bool:
        """Offer what a push feed brought; True when the channel was full and the run is over."""
        waiting = _ticks_in(items)
        if 2 * self._tick_channel.depth >= self._tick_channel.maxsize:
            self._control.stop.wait(_BREATH_S)
        try:
            for number, item in enumerate(items):
                if isinstance(item, Notice):
                    full = not self._tick_channel.offer(replace(item, ticks_before=self._ticks_before))
                else:
                    entered_before = self._tick_channel.entered
                    try:
                        full = self._tick_channel.offer(item) < len(item)
                    finally:
                        accepted = self._tick_channel.entered - entered_before
                        self._accept(accepted)
                        waiting -= accepted
                if full:
                    self._overload(waiting, sum(isinstance(left, Notice) for left in items[number:]))
                    return True
        finally:
            self._metrics.refused += waiting
        return False

    def _overload(self, refused: int, notices: int) -> None:
        """`refused` ticks and `notices` found no room: the latter stand in the log, and nowhere else."""
        metrics = self._metrics
        metrics.bp_drops_tick += refused
        cause = overload_cause(self._channels)
        if cause == "persist":
            metrics.bp_drops_persist += refused
        depths = {channel.name: channel.depth for channel in self._channels}
        told: dict[str, Any] = {"notices_refused": notices} if notices else {}
        self._log.error("OVERLOAD", event=LogEvent.OVERLOAD, stage=cause, refused=refused, **told, depths=depths)
        self._control.fail(ExitCode.OVERLOAD, self.name, f"tick channel full: the {cause} stage is too slow")
