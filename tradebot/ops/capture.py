"""`tradebot capture`: records the frames of a live feed in files, with the same connection handling as a run."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from msgspec.structs import replace

from tradebot.config.model import Live, Settings
from tradebot.core.cancellation import Cancellation
from tradebot.core.events import Notice
from tradebot.core.log_events import LogEvent
from tradebot.core.runtime import RealRuntime, Runtime
from tradebot.feeds.base import FeedBatch
from tradebot.feeds.capture_file import CaptureWriter
from tradebot.feeds.exchanges import EXCHANGES
from tradebot.feeds.exchanges.base import Exchange
from tradebot.feeds.frame_reader import FrameReader, Read
from tradebot.feeds.sequence_tracker import SequenceGuard
from tradebot.feeds.websocket.client import WebSocketTransport
from tradebot.feeds.websocket.feed import FeedTarget, WebSocketFeed
from tradebot.output.log import Log, setup_logging

_FILES_MAX: Final = 8
_FILE_BYTES_LEAST: Final = 500_000  # well above the size of one flush, so that --max-mb holds
_FLUSH_EVERY_S: Final = 1.0
_REPORT_EVERY_S: Final = 10.0


class _Recorder(FrameReader):
    """Passes every frame to the writer before it is parsed."""

    def __init__(self, writer: CaptureWriter, exchange: type[Exchange], symbols_max: int) -> None:
        super().__init__(exchange, "keep", SequenceGuard(symbols_max))
        self._writer = writer
        self._connection = 0
        self._begins = True

    def new_connection(self, exchange: Exchange | None = None) -> Exchange:
        self._begins = True
        return super().new_connection(exchange)

    def take(self, text: str, received_ms: int) -> Read:
        # Attempts that failed, or brought nothing, have no number.
        self._connection += self._begins
        self._begins = False
        self._writer.write(received_ms, self._connection, text)
        read = super().take(text, received_ms)
        if read.parsed is not None and read.parsed.kind == "ack":
            self._writer.repeat(text)
        return read


class Captured(NamedTuple):
    """The result of a recording. `file`: its last file, None if no frame was received."""

    frames: int
    trades: int
    exchange: str
    file: str | None

    def text(self) -> str:
        """For people."""
        if self.file is None:
            return "no frame arrived: nothing was captured\n"
        return (
            f"{self.frames:,} frames ({self.trades:,} trades) captured, the last of them in {self.file}\n"
            f"replay a file with --ingest=replay --replay-file=FILE --exchange={self.exchange}\n"
        )


def run_capture(settings: Settings) -> Captured:
    """Record until the time is over or a stop signal arrives; returns the result.

    Blocks; main thread. Raises ConfigError (no place for the files), NetworkError (no connection within the reconnect
    budget), CaptureFailed (disk full); what was flushed before is whole.
    """
    live = settings.live
    assert live is not None  # settings see to it
    runtime = RealRuntime()
    log = setup_logging(settings.options.log_level, settings.options.log_format, runtime)
    runtime.catch_stop_signals()
    try:
        return _Capture(settings, live, runtime, log).run()
    finally:
        log.close()


class _Capture:
    """One recording, from its first file to its last."""

    def __init__(self, settings: Settings, live: Live, runtime: Runtime, log: Log) -> None:
        options, config = settings.options, settings.config
        self._runtime = runtime
        self._log = log.bind("capture")
        self._run_seconds = config.engine.run_seconds
        self._trades = self._malformed = self._reconnects = 0
        # A source's files bear its name: another source of the same exchange must not push them out.
        path = Path(options.out or ".") / (settings.config.engine.ws_source or live.exchange)
        bytes_max = options.max_mb * 1_000_000
        files_max = min(_FILES_MAX, bytes_max // _FILE_BYTES_LEAST)
        self._writer = CaptureWriter(
            path, live.exchange, live.symbols, runtime.now_ms(), bytes_max // files_max, files_max
        )
        self._reader = _Recorder(self._writer, EXCHANGES[live.exchange], config.feed.max_symbols)
        self._live = live
        # A recording takes what comes: what cannot be understood is in it, and is no reason to stop.
        self._feed = WebSocketFeed(
            FeedTarget(live.url, live.symbols), replace(config.feed, parse_error_limit=0), WebSocketTransport(runtime),
            self._reader, None, None, runtime, Cancellation(runtime, by_signal=True), log,
        )  # fmt: skip

    def run(self) -> Captured:
        """Record until the end."""
        self._log.info("capture starting", event=LogEvent.START, source=self._live.source, file=str(self._writer.path))
        try:
            self._record()
        finally:
            self._feed.close()
            self._writer.close()
            self._log.info("capture ended", event=LogEvent.END, frames=self._writer.frames, file=str(self._writer.path))
            if not self._writer.frames:
                self._writer.path.unlink(missing_ok=True)  # a header and nothing else
        file = str(self._writer.path) if self._writer.frames else None
        return Captured(self._writer.frames, self._trades, self._live.exchange, file)

    def _record(self) -> None:
        runtime = self._runtime
        began_s = runtime.monotonic()
        flush_at_s, report_at_s = began_s + _FLUSH_EVERY_S, began_s + _REPORT_EVERY_S
        while not runtime.stop_signals():
            now_s = runtime.monotonic()
            if self._run_seconds is not None and now_s >= began_s + self._run_seconds:
                return
            if now_s >= flush_at_s:
                self._writer.flush()
                flush_at_s = now_s + _FLUSH_EVERY_S
            if now_s >= report_at_s:
                self._report()
                report_at_s = now_s + _REPORT_EVERY_S
            self._count(self._feed.read())

    def _count(self, batch: FeedBatch) -> None:
        self._trades += len(batch.ticks)
        self._malformed += batch.malformed
        for note in batch.notes:
            self._log.warning("malformed frame", event=LogEvent.MALFORMED_INPUT, frame=note.line, reason=note.reason)
        for _index, notice in batch.notices:
            self._print_notice(notice)

    def _print_notice(self, notice: Notice) -> None:
        self._reconnects += notice.kind == "LINK_RESTORED"
        if notice.kind == "LINK_LOST":
            self._writer.flush()  # connecting again may take its time
        log = self._log.info if notice.kind == "LINK_UP" else self._log.warning
        log("feed notice", event=LogEvent(notice.kind), detail=notice.detail)

    def _report(self) -> None:
        self._log.info(
            "CAPTURING", event=LogEvent.CAPTURING, trades=self._trades, malformed=self._malformed,
            reconnects=self._reconnects, file=str(self._writer.path), **self._feed.status().log_fields(),
        )  # fmt: skip
