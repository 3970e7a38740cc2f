"""The pause that a server requested with Retry-After, kept for this process and the next one."""

from __future__ import annotations

from tradebot.core.log_events import LogEvent
from tradebot.core.runtime import Runtime
from tradebot.feeds.websocket.retry_after import RetryAfterFile
from tradebot.output.log import Log


class ServerPause:
    """The pause of one feed. Used by one thread, except `left_s`. `where`: the feed's address, safe to show."""

    def __init__(self, file: RetryAfterFile | None, where: str, runtime: Runtime, log: Log) -> None:
        """`file` None: the pause is not kept for the next process."""
        self._file = file
        self._where = where
        self._runtime = runtime
        self._log = log
        self._until_s = 0.0

    def begin(self, now_s: float) -> float:
        """The feed starts. Returns the rest of a pause, in seconds, that the server requested before this process."""
        if self._file is None:
            return 0.0
        asked_s, trouble = self._file.remaining_s(self._runtime.now_ms())
        if trouble is not None:
            self._log.warning("Retry-After file ignored", event=LogEvent.RETRY_AFTER_FAILED, detail=trouble)
        if asked_s > 0:
            self._until_s = now_s + asked_s
            self._log.warning(
                "waiting: the server requested a pause before this start (Retry-After)", event=LogEvent.RETRY_AFTER,
                url=self._where, wait_s=round(asked_s, 3),
            )  # fmt: skip
        return asked_s

    def keep(self, asked_s: float | None, now_s: float) -> None:
        """Remember the pause that the server requested, in seconds from now, if any; also for the next process."""
        if asked_s is None or asked_s <= 0:
            return
        self._until_s = now_s + asked_s
        trouble = None if self._file is None else self._file.keep(asked_s, self._runtime.now_ms())
        if trouble is not None:
            self._log.warning("Retry-After could not be saved", event=LogEvent.RETRY_AFTER_FAILED, detail=trouble)

    def end(self) -> None:
        """The server has accepted a connection."""
        self._until_s = 0.0
        if self._file is not None:
            self._file.clear()

    def left_s(self, now_s: float) -> float | None:
        """The rest of the pause; None if the server requested none. Any thread."""
        left_s = self._until_s - now_s
        return round(left_s, 3) if left_s > 0 else None
