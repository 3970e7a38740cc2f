"""The time that a server has asked to be left alone for (Retry-After), in this process and for the one after it."""

from __future__ import annotations

from tradebot.core.log_events import LogEvent
from tradebot.core.runtime import Runtime
from tradebot.feeds.websocket.retry_after import RetryAfterFile
from tradebot.output.log import Log


class ServerPause:
    """One feed's pause. One thread, but `left_s`, which any may ask. `where`: the feed's address, safe to show."""

    def __init__(self, file: RetryAfterFile | None, where: str, runtime: Runtime, log: Log) -> None:
        """`file` None: nothing is kept for the next process."""
        self._file = file
        self._where = where
        self._runtime = runtime
        self._log = log
        self._until_s = 0.0

    def begin(self, now_s: float) -> float:
        """The feed starts: for how many seconds the server has asked an earlier process to stay away."""
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
        """What the server asks for, in seconds from now, if anything: remember it, also for the next process."""
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
        """How much of the pause is left; None when the server asked for none."""
        left_s = self._until_s - now_s
        return round(left_s, 3) if left_s > 0 else None
