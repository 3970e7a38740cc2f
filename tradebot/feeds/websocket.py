"""The live feed: one WebSocket connection, kept alive or known to be lost, read by the ingest thread.

The feed never waits longer than READ_WAIT_S. It is in one of two states: connected, with deadlines on what is received
(`liveness`), or on its way to the next attempt (`reconnect`). What comes over the link goes through a `FrameReader`,
one frame a batch, so that an overload costs no more than the frame it met.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from tradebot.config import FeedConfig
from tradebot.events import Notice
from tradebot.exits import NetworkError, ParseError
from tradebot.feeds.base import READ_WAIT_S, Batch
from tradebot.feeds.exchanges.base import Exchange, Parsed, Unparseable
from tradebot.feeds.frame_reader import FrameReader
from tradebot.feeds.liveness import Liveness
from tradebot.feeds.quarantine import Quarantine
from tradebot.feeds.reconnect import ReconnectPolicy
from tradebot.feeds.retry_after import RetryAfterFile
from tradebot.feeds.wire import CLOSE_GOING_AWAY, ConnectFailed, Connection, ConnectionLost, Frame, Limits, Transport
from tradebot.log import Log
from tradebot.masking import mask
from tradebot.runtime import Event, Runtime

_NOTE_EVERY_S: Final = 1.0
_NO_TRADE_S: Final = 60.0
_DETAIL_CHARS_MAX: Final = 300


class Target(Struct, frozen=True):
    """Where to connect and what to ask for there."""

    url: str
    symbols: tuple[str, ...]


class WebSocketFeed:
    """Implements `base.Feed`; `position` counts received frames. All but `position` and `status`: one thread."""

    push: Final = True
    total: Final = None

    def __init__(
        self,
        target: Target,
        config: FeedConfig,
        transport: Transport,
        reader: FrameReader,
        quarantine: Quarantine | None,
        retry_after: RetryAfterFile | None,
        runtime: Runtime,
        stop: Event,
        log: Log,
    ) -> None:
        """Connects with the first `read`, not before."""
        self._target = target
        self._config = config
        self._transport = transport
        self._reader = reader
        self._quarantine = quarantine
        self._retry_after = retry_after
        self._asked_until_s = 0.0
        self._runtime = runtime
        self._stop = stop
        self._log = log.bind("feed")
        self._policy = ReconnectPolicy(config.backoff_max_s, config.stable_after_s, config.reconnect_budget_s)
        self._liveness = Liveness(config.idle_timeout_s, config.ping_interval_s, config.idle_timeout_s)
        self._connection: Connection | None = None
        self._frames: deque[Frame] = deque()
        self._broken: ConnectionLost | None = None
        self._began = False
        self._was_up = False
        self._lost_at_s = 0.0
        self._failure: ParseError | None = None
        self._last_reason = "no attempt was made"
        self._note_at_s = float("-inf")
        self._unnoted = 0
        self._last_frame_s: float | None = None
        self._trade_by_s: float | None = None
        self._due_s = float("inf")

    @property
    def position(self) -> int:
        """Frames received so far. Any thread; never blocks."""
        return self._reader.frames

    def status(self) -> dict[str, object]:
        """The link's state for the heartbeat. Any thread; never blocks.

        `overdue_ms`: for how long the link has shown neither life nor a loss nor a new attempt though one was due; 0
        as long as this feed's thread works, whatever the peer does. `retry_after_s`: how much is left of the time that
        the server asked to be left alone for; None when it asked for none.
        """
        last_s, now_s = self._last_frame_s, self._runtime.monotonic()
        return {
            "link": "up" if self._connection is not None else "down",
            "frames": self._reader.frames,
            "last_frame_age_ms": None if last_s is None else round((now_s - last_s) * 1000),
            "overdue_ms": round(max(0.0, now_s - self._due_s) * 1000),
            "retry_after_s": round(left_s, 3) if (left_s := self._asked_until_s - now_s) > 0 else None,
        }

    def read(self) -> Batch:
        """What the next frame brought, or what happened to the link; see Feed.

        Raises NetworkError when the reconnect budget is used up, ParseError after `parse_error_limit` frames in a row
        that could not be understood.
        """
        if self._failure is not None:
            raise self._failure
        while self._frames:
            batch = self._take(self._frames.popleft())
            if batch is not None:
                return batch
        if self._unnoted and self._runtime.monotonic() >= self._note_at_s:
            self._tell_unnoted()
        if self._connection is not None:
            return self._receive(self._connection)
        return self._connect()

    # ---- not connected -----------------------------------------------------------------------------------------

    def _connect(self) -> Batch:
        policy, now_s = self._policy, self._runtime.monotonic()
        if not self._began:
            self._began = True
            policy.begin(now_s, self._still_asked_s(now_s))
            self._attempt_due(now_s)
        if policy.exhausted(now_s):
            raise NetworkError(
                f"no connection to {mask(self._target.url)} within feed.reconnect_budget_s"
                f" ({self._config.reconnect_budget_s:g} s); the last attempt: {self._last_reason}"
            )
        wait_s = policy.wait_s(now_s)
        if wait_s > 0:
            self._stop.wait(min(wait_s, READ_WAIT_S))
            return Batch([])
        return self._attempt()

    def _still_asked_s(self, now_s: float) -> float:
        """For how long the server has asked an earlier process to stay away."""
        if self._retry_after is None:
            return 0.0
        asked_s, trouble = self._retry_after.remaining_s(self._runtime.now_ms())
        if trouble is not None:
            self._log.warning("Retry-After file ignored", event="RETRY_AFTER_FAILED", detail=trouble)
        if asked_s > 0:
            self._asked_until_s = now_s + asked_s
            self._log.warning(
                "the server asked for a pause before this start: waiting", event="RETRY_AFTER",
                url=mask(self._target.url), wait_s=round(asked_s, 3),
            )  # fmt: skip
        return asked_s

    def _attempt(self) -> Batch:
        exchange = self._reader.new_connection()
        try:
            url = self._url(exchange)
            connection = self._transport.connect(url, self._limits(), self._stop.is_set)
        except ConnectFailed as error:
            if not self._stop.is_set():
                self._failed(error)
            return Batch([])
        now_s = self._runtime.monotonic()
        self._policy.connected(now_s)
        self._asked_until_s = 0.0
        if self._retry_after is not None:
            self._retry_after.clear()
        self._connection = connection
        messages = exchange.subscriptions(self._target.symbols)
        # Nothing asked for (the URL says it all): nothing will be confirmed.
        self._liveness.opened(now_s, bool(messages) and exchange.acknowledges)
        self._last_frame_s = now_s
        self._due_s = now_s + self._config.idle_timeout_s
        self._trade_by_s = now_s + _NO_TRADE_S
        self._send(connection, messages)
        return Batch([], notices=((0, self._up(now_s)),))

    def _limits(self) -> Limits:
        """What an attempt that is made now may take."""
        timeout_s = self._policy.attempt_timeout_s(self._runtime.monotonic(), self._config.connect_timeout_s)
        return Limits(timeout_s, self._message_bytes_max())

    def _message_bytes_max(self) -> int:
        """The configured bound; where that is the default, at least what the exchange is known to send."""
        configured = self._config.max_message_bytes
        usual = configured == FeedConfig().max_message_bytes
        return max(configured, self._reader.exchange.message_bytes) if usual else configured

    def _url(self, exchange: Exchange) -> str:
        """Where to connect, which may have to be asked for first. Raises ConnectFailed."""
        url = exchange.connection_url(self._target.url, self._target.symbols)
        if exchange.token_url is None:
            return url
        answer = self._transport.fetch(exchange.token_url, self._limits(), self._stop.is_set)
        try:
            return exchange.url_with_token(url, answer)
        except Unparseable as error:
            where = mask(exchange.token_url)
            raise ConnectFailed(f"the token that {where} answered cannot be understood: {error}") from None

    def _failed(self, error: ConnectFailed) -> None:
        now_s = self._runtime.monotonic()
        self._policy.failed(now_s, self._fraction(), error.retry_after_s)
        if error.retry_after_s is not None and error.retry_after_s > 0:
            self._keep_away(error.retry_after_s, now_s)
        self._attempt_due(now_s)
        # The attempt that the end of the budget cut short only says so: the one before it tells more.
        if self._policy.attempts == 1 or not self._policy.exhausted(now_s):
            self._last_reason = str(error)
        hint = self._reader.exchange.unreachable_hint
        # Said once for each time the link is away, where no server answered at all.
        hinted: dict[str, Any] = {}
        if hint is not None and self._policy.attempts == 1 and error.status is None:
            hinted["hint"] = hint
        self._log.warning(
            "connecting failed", event="CONNECT_FAILED", url=mask(self._target.url), reason=str(error),
            status=error.status, attempt=self._policy.attempts, retry_in_s=round(self._policy.wait_s(now_s), 3),
            gives_up_in_s=round(max(0.0, (self._policy.deadline_s or now_s) - now_s), 3), **hinted,
        )  # fmt: skip

    def _keep_away(self, asked_s: float, now_s: float) -> None:
        """Remember what the server asked for, also for the process after this one."""
        self._asked_until_s = now_s + asked_s
        trouble = None if self._retry_after is None else self._retry_after.keep(asked_s, self._runtime.now_ms())
        if trouble is not None:
            self._log.warning("Retry-After not kept", event="RETRY_AFTER_FAILED", detail=trouble)

    def _attempt_due(self, now_s: float) -> None:
        """By when the next attempt must have ended: a token may be asked for first, and both have their timeout."""
        self._due_s = now_s + self._policy.wait_s(now_s) + 2 * self._config.connect_timeout_s

    def _up(self, now_s: float) -> Notice:
        first, self._was_up = not self._was_up, True
        where = mask(self._target.url)
        if first:
            return Notice("LINK_UP", self._runtime.now_ms(), where)
        down_s = now_s - self._lost_at_s
        attempts = self._policy.attempts
        return Notice("LINK_RESTORED", self._runtime.now_ms(), f"{where} after {down_s:.3f} s, attempt {attempts}")

    # ---- connected ---------------------------------------------------------------------------------------------

    def _receive(self, connection: Connection) -> Batch:
        liveness, runtime = self._liveness, self._runtime
        try:
            if self._broken is not None:
                raise self._broken
            frames = connection.receive(liveness.wait_s(runtime.monotonic(), READ_WAIT_S))
        except ConnectionLost as error:
            return Batch([], notices=((0, self._lost(str(error), error.code)),))
        now_s = runtime.monotonic()
        if frames:
            liveness.received(now_s)
            self._last_frame_s = now_s
            self._due_s = now_s + self._config.idle_timeout_s
            self._frames.extend(frames)
        # Only when nothing came: what has just come may be the confirmation that was waited for.
        elif (reason := liveness.dead(now_s)) is not None:
            connection.close(CLOSE_GOING_AWAY)
            return Batch([], notices=((0, self._lost(reason, None)),))
        if self._trade_by_s is not None and now_s >= self._trade_by_s:
            self._trade_by_s = None
            self._log.warning(
                "no trade yet on this connection", event="NO_TRADES", after_s=_NO_TRADE_S, frames=self._reader.frames,
                hint="a quiet market, or the wrong symbol or exchange",
            )  # fmt: skip
        if liveness.ping_due(now_s):
            liveness.pinged(now_s)
            own = self._reader.exchange.keepalive()
            self._send(connection, () if own is None else (own,), ping=True)
        return Batch([])

    def _send(self, connection: Connection, texts: Iterable[str], *, ping: bool = False) -> None:
        """A ping, where asked for, and `texts`. A loss found here is told after the frames that came before it."""
        try:
            if ping:
                connection.ping()
            for text in texts:
                connection.send_text(text)
        except ConnectionLost as error:
            self._broken = error

    def _lost(self, reason: str, code: int | None) -> Notice:
        now_s = self._runtime.monotonic()
        self._connection = self._broken = None
        self._lost_at_s = now_s
        self._policy.lost(now_s, self._fraction())
        self._attempt_due(now_s)
        detail = f"{reason} (close code {code})" if code is not None else reason
        return Notice("LINK_LOST", self._runtime.now_ms(), detail[:_DETAIL_CHARS_MAX])

    def _take(self, frame: Frame) -> Batch | None:
        """What a frame comes to; None for one that says nothing."""
        now_ms = self._runtime.now_ms()
        if frame.kind == "text":
            read = self._reader.take(frame.text, now_ms)
        elif frame.kind == "binary":
            self._reader.frames += 1
            read = self._reader.refuse("a binary frame")
        else:
            return None
        if read.parsed is not None:
            self._heed(read.parsed)
        if read.out_of_band:
            more = f" (and {len(read.out_of_band) - 1} more of this frame)" if len(read.out_of_band) > 1 else ""
            self._keep(frame, read.out_of_band[0] + more, now_ms)
        if read.problem is not None:
            self._malformed(frame, read.problem, now_ms)
            return self._noted(read.batch)
        return read.batch if _says_something(read.batch) else None

    def _heed(self, parsed: Parsed) -> None:
        """What a frame says beside trades."""
        if parsed.kind in ("trades", "ack"):
            self._liveness.confirmed()
        if parsed.kind == "trades":
            self._trade_by_s = None
        if parsed.kind == "ack":
            self._log.info("subscription confirmed", event="SUBSCRIBED", detail=parsed.detail)
        elif parsed.kind == "error":
            self._log.error("exchange reports an error", event="EXCHANGE_ERROR", detail=parsed.detail)
        if parsed.reply is not None and self._connection is not None and self._broken is None:
            self._send(self._connection, (parsed.reply,))

    def _keep(self, frame: Frame, reason: str, now_ms: int) -> None:
        """Have the frame in quarantine."""
        if self._quarantine is not None:
            trouble = self._quarantine.keep(frame.text if frame.kind == "text" else frame.data, now_ms, reason)
            if trouble is not None:
                self._log.warning("quarantine failed", event="QUARANTINE_FAILED", detail=trouble)

    def _malformed(self, frame: Frame, problem: str, now_ms: int) -> None:
        self._keep(frame, problem, now_ms)
        limit = self._config.parse_error_limit
        if limit and self._reader.malformed_in_a_row >= limit:
            kept = "" if self._quarantine is None else f"; the newest are kept in {self._quarantine.path}"
            self._failure = ParseError(
                f"{limit} frames in a row from {mask(self._target.url)} could not be understood"
                f" (feed.parse_error_limit); the last: {problem}{kept}"
            )

    def _noted(self, batch: Batch) -> Batch:
        """The batch with its note at most once a second: the rest is counted, and the count said a second later."""
        now_s = self._runtime.monotonic()
        if now_s < self._note_at_s:
            self._unnoted += 1
            return replace(batch, notes=())
        self._note_at_s = now_s + _NOTE_EVERY_S
        self._tell_unnoted()
        return batch

    def _tell_unnoted(self) -> None:
        if self._unnoted:
            self._log.warning("malformed frames not listed", event="MALFORMED_MORE", frames=self._unnoted)
            self._unnoted = 0

    def _fraction(self) -> float:
        """From 0 to 1, at random: jitter keeps many clients from coming back in step."""
        return int(self._runtime.token(), 16) / 0x1_0000_0000

    def close(self) -> None:
        """Say goodbye and give the socket back. Idempotent; never while another thread is inside `read`."""
        connection, self._connection = self._connection, None
        if connection is not None and self._broken is None:
            connection.close()
        self._tell_unnoted()
        if self._quarantine is not None:
            self._quarantine.close()


def _says_something(batch: Batch) -> bool:
    parts: Sequence[object] = (batch.ticks, batch.notices)
    return any(parts) or batch.malformed + batch.duplicates + batch.history_dropped + batch.out_of_band > 0
