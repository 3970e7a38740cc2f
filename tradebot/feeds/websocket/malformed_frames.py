"""Malformed frames: saves them, logs them at most once a second, and detects too many in a row."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from tradebot.core.errors import ParseError
from tradebot.core.log_events import LogEvent
from tradebot.core.runtime import Runtime
from tradebot.feeds.base import FeedBatch
from tradebot.feeds.quarantine import Quarantine
from tradebot.feeds.websocket.transport import Frame
from tradebot.output.log import Log

_NOTE_EVERY_S: Final = 1.0


class MalformedFrames:
    """The malformed frames of one feed. One thread.

    `limit`: so many in a row are a failure, 0 for no limit. `where`: the feed's address, safe to show.
    """

    def __init__(self, limit: int, where: str, quarantine: Quarantine | None, runtime: Runtime, log: Log) -> None:
        self._limit = limit
        self._where = where
        self._quarantine = quarantine
        self._runtime = runtime
        self._log = log
        self._note_at_s = float("-inf")
        self._unnoted = 0

    def keep(self, frame: Frame, reason: str, now_ms: int) -> None:
        """Save the frame in the quarantine file."""
        if self._quarantine is not None:
            trouble = self._quarantine.keep(frame.text if frame.kind == "text" else frame.data, now_ms, reason)
            if trouble is not None:
                self._log.warning("malformed frames cannot be saved", event=LogEvent.QUARANTINE_FAILED, detail=trouble)

    def failure(self, problem: str, in_a_row: int) -> ParseError | None:
        """The error that ends the feed, if the frame with `problem` exceeded the limit."""
        if not self._limit or in_a_row < self._limit:
            return None
        kept = "" if self._quarantine is None else f"; the newest are kept in {self._quarantine.path}"
        return ParseError(
            f"{self._limit} frames in a row from {self._where} could not be parsed"
            f" (feed.parse_error_limit); the last: {problem}{kept}"
        )

    def noted(self, batch: FeedBatch) -> FeedBatch:
        """The batch with its note at most once a second: other frames are counted, and reported a second later."""
        now_s = self._runtime.monotonic()
        if now_s < self._note_at_s:
            self._unnoted += 1
            return replace(batch, notes=())
        self._note_at_s = now_s + _NOTE_EVERY_S
        self._report_unnoted()
        return batch

    def poll(self) -> None:
        """Log what is due. Call this often."""
        if self._unnoted and self._runtime.monotonic() >= self._note_at_s:
            self._report_unnoted()

    def close(self) -> None:
        """Log the rest and close the quarantine file. Idempotent."""
        self._report_unnoted()
        if self._quarantine is not None:
            self._quarantine.close()

    def _report_unnoted(self) -> None:
        if self._unnoted:
            self._log.warning(
                "further malformed frames were not logged", event=LogEvent.MALFORMED_SUPPRESSED, frames=self._unnoted
            )
            self._unnoted = 0
