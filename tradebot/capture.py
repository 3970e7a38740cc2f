"""`tradebot capture`: the frames of a live feed into files, through the same connection handling as a run."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from msgspec.structs import replace

from tradebot.config import Live, Settings
from tradebot.events import Notice
from tradebot.exits import ConfigError
from tradebot.feeds.base import Batch
from tradebot.feeds.capture_file import CaptureWriter
from tradebot.feeds.exchanges import EXCHANGES
from tradebot.feeds.exchanges.base import Exchange
from tradebot.feeds.frame_reader import FrameReader, Read
from tradebot.feeds.sequence import SequenceGuard
from tradebot.feeds.websocket import Target, WebSocketFeed
from tradebot.feeds.websocket_wire import WebSocketTransport
from tradebot.log import Log, setup_logging
from tradebot.runtime import RealRuntime, Runtime

_FILES_MAX: Final = 8
_FLUSH_EVERY_S: Final = 1.0
_REPORT_EVERY_S: Final = 10.0


class _Recorder(FrameReader):
    """Hands every frame to the writer before it is read."""

    def __init__(self, writer: CaptureWriter, exchange: type[Exchange], symbols_max: int) -> None:
        super().__init__(exchange, "keep", SequenceGuard(symbols_max))
        self._writer = writer
        self._connection = 0

    def new_connection(self) -> Exchange:
        self._connection += 1
        return super().new_connection()

    def take(self, text: str, received_ms: int) -> Read:
        self._writer.write(received_ms, self._connection, text)
        return super().take(text, received_ms)


def run_capture(settings: Settings) -> str:
    """Record until the seconds are over or a stop signal comes; what to tell the person who asked for it.

    Blocks; main thread. Raises ConfigError (nothing to listen to, no place for the files), NetworkError (no connection
    within the reconnect budget), CaptureFailed (disk full); what was flushed before is whole.
    """
    live = settings.live
    if live is None:
        raise ConfigError("capture needs --ws-source=NAME, or --exchange=NAME and --symbol=SYM")
    runtime = RealRuntime()
    log = setup_logging(settings.options.log_level, settings.options.log_format, runtime)
    runtime.catch_stop_signals()
    try:
        return _Capture(settings, live, runtime, log).run()
    finally:
        log.close()


class _Asked:
    """Has the interface of an event: set by the first stop signal."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._never = runtime.event()

    def is_set(self) -> bool:
        return self._runtime.stop_signals() > 0

    def wait(self, timeout: float | None = None) -> bool:
        self._never.wait(timeout)
        return self.is_set()

    def set(self) -> None:
        raise NotImplementedError("only a signal asks for the end")

    clear = set


class _Capture:
    """One recording, from its first file to its last."""

    def __init__(self, settings: Settings, live: Live, runtime: Runtime, log: Log) -> None:
        options, config = settings.options, settings.config
        self._runtime = runtime
        self._log = log.bind("capture")
        self._run_seconds = config.engine.run_seconds
        self._trades = self._malformed = self._reconnects = 0
        bytes_max = options.max_mb * 1_000_000 // _FILES_MAX
        self._writer = CaptureWriter(
            Path("." if options.out is None else options.out), live.exchange, live.symbols, runtime.now_ms(),
            max(1, bytes_max), _FILES_MAX,
        )  # fmt: skip
        self._reader = _Recorder(self._writer, EXCHANGES[live.exchange], config.feed.max_symbols)
        self._live = live
        # A recording takes what comes: what cannot be understood is in it, and is no reason to stop.
        self._feed = WebSocketFeed(
            Target(live.url, live.symbols), replace(config.feed, parse_error_limit=0), WebSocketTransport(runtime),
            self._reader, None, runtime, _Asked(runtime), log,
        )  # fmt: skip

    def run(self) -> str:
        """Record to the end."""
        self._log.info("capture starting", event="START", source=self._live.source, file=str(self._writer.path))
        try:
            self._record()
        finally:
            self._feed.close()
            self._writer.close()
        return (
            f"{self._writer.frames:,} frames ({self._trades:,} trades) captured, the last of them in"
            f" {self._writer.path}\nreplay a file with --ingest=replay --replay-file=FILE"
            f" --exchange={self._live.exchange}\n"
        )

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

    def _count(self, batch: Batch) -> None:
        self._trades += len(batch.ticks)
        self._malformed += batch.malformed
        for note in batch.notes:
            self._log.warning("malformed frame", frame=note.line, reason=note.reason)
        for _index, notice in batch.notices:
            self._tell(notice)

    def _tell(self, notice: Notice) -> None:
        self._reconnects += notice.kind == "LINK_RESTORED"
        log = self._log.info if notice.kind == "LINK_UP" else self._log.warning
        log("feed notice", event=notice.kind, detail=notice.detail)

    def _report(self) -> None:
        self._log.info(
            "CAPTURING", event="CAPTURING", trades=self._trades, malformed=self._malformed,
            reconnects=self._reconnects, file=str(self._writer.path), **self._feed.status(),
        )  # fmt: skip
