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

from tradebot.config.model import FeedConfig
from tradebot.core.cancellation import Cancellation
from tradebot.core.errors import NetworkError, TradebotError
from tradebot.core.events import Notice
from tradebot.core.log_events import LogEvent
from tradebot.core.runtime import Runtime
from tradebot.feeds.base import READ_WAIT_S, FeedBatch
from tradebot.feeds.exchanges.base import Exchange, ParsedFrame, Unparseable
from tradebot.feeds.frame_reader import FrameReader
from tradebot.feeds.quarantine import Quarantine
from tradebot.feeds.status import FeedStatus
from tradebot.feeds.websocket.exchange_reports import ExchangeReports
from tradebot.feeds.websocket.handover import ConnectionHandover
from tradebot.feeds.websocket.keepalive import Liveness
from tradebot.feeds.websocket.malformed_frames import MalformedFrames
from tradebot.feeds.websocket.message_size import TooLarge, message_bytes_max
from tradebot.feeds.websocket.outbox import Outbox
from tradebot.feeds.websocket.reconnect import ReconnectPolicy
from tradebot.feeds.websocket.retry_after import RetryAfterFile
from tradebot.feeds.websocket.server_pause import ServerPause
from tradebot.feeds.websocket.transport import (
    CLOSE_GOING_AWAY,
    ConnectFailed,
    Connection,
    ConnectionLimits,
    ConnectionLost,
    Frame,
    Transport,
)
from tradebot.output.log import Log
from tradebot.output.redaction import mask

_HANDOVER_WAIT_S: Final = 0.05
_DETAIL_CHARS_MAX: Final = 300


class FeedTarget(Struct, frozen=True):
    """Where to connect, and which symbols to subscribe to."""

    url: str
    symbols: tuple[str, ...]


class WebSocketFeed:
    """Implements `base.Feed`; `position` counts received frames. All but `position` and `status`: one thread."""

    push: Final = True
    total: Final = None

    def __init__(
        self,
        target: FeedTarget,
        config: FeedConfig,
        transport: Transport,
        reader: FrameReader,
        quarantine: Quarantine | None,
        retry_after: RetryAfterFile | None,
        runtime: Runtime,
        cancel: Cancellation,
        log: Log,
    ) -> None:
        """Connects with the first `read`, not before."""
        self._target = target
        self._config = config
        self._transport = transport
        self._reader = reader
        self._runtime = runtime
        self._cancel = cancel
        self._log = log.bind("feed")
        self._pause = ServerPause(retry_after, mask(target.url), runtime, self._log)
        self._bad = MalformedFrames(config.parse_error_limit, mask(target.url), quarantine, runtime, self._log)
        self._policy = ReconnectPolicy(config.backoff_max_s, config.stable_after_s, config.reconnect_budget_s)
        self._liveness = Liveness(config.idle_timeout_s, config.ping_interval_s, config.idle_timeout_s)
        self._connection: Connection | None = None
        self._frames: deque[Frame] = deque()
        self._broken: ConnectionLost | None = None
        self._began = False
        self._was_up = False
        self._lost_at_s = 0.0
        self._failure: TradebotError | None = None
        self._outbox = Outbox(None)
        self._too_large = TooLarge(mask(target.url))
        self._last_reason = "no attempt was made"
        self._last_frame_s: float | None = None
        self._due_s = float("inf")
        self._reports = ExchangeReports(target.symbols, mask(target.url), self._log)
        self._handover: ConnectionHandover | None = None
        self._handover_from_s = float("-inf")

    @property
    def position(self) -> int:
        """Frames received so far. Any thread; never blocks."""
        return self._reader.frames

    def status(self) -> FeedStatus:
        """The link's state. Any thread; never blocks."""
        last_s, now_s = self._last_frame_s, self._runtime.monotonic()
        return FeedStatus(
            link="up" if self._connection is not None else "down",
            frames=self._reader.frames,
            last_frame_age_ms=None if last_s is None else round((now_s - last_s) * 1000),
            overdue_ms=round(max(0.0, now_s - self._due_s) * 1000),
            retry_after_s=self._pause.left_s(now_s),
            symbols=self._reports.look,
        )

    def read(self) -> FeedBatch:
        """The result of the next frame, or a change of the link; see Feed.

        Raises NetworkError when the reconnect budget is used up without a connection or a confirmation, ParseError
        after `parse_error_limit` frames in a row that could not be understood, ConfigError when messages are too large.
        """
        if self._failure is not None:
            raise self._failure
        while self._frames:
            batch = self._take(self._frames.popleft())
            if batch is not None:
                return batch
        self._bad.poll()
        if self._connection is None:
            return self._connect()
        now_s = self._runtime.monotonic()
        self._reports.check_confirmed(now_s, self._config.reconnect_budget_s)
        if self._handover is not None:
            return self._hand_over(self._connection, self._handover)
        if self._reports.restart_planned and now_s >= self._handover_from_s and self._pause.left_s(now_s) is None:
            return self._begin_handover()
        batch = self._receive(self._connection, now_s)
        return batch if batch.notices or not self._frames else self._take(self._frames.popleft()) or batch

    # ---- not connected -----------------------------------------------------------------------------------------

    def _connect(self) -> FeedBatch:
        policy, now_s = self._policy, self._runtime.monotonic()
        if not self._began:
            self._began = True
            policy.begin(now_s, self._pause.begin(now_s))
            self._attempt_due(now_s)
        if policy.exhausted(now_s):
            raise NetworkError(
                f"no connection to {mask(self._target.url)} within feed.reconnect_budget_s"
                f" ({self._config.reconnect_budget_s:g} s); the last attempt: {self._last_reason}"
            )
        wait_s = policy.wait_s(now_s)
        if wait_s > 0:
            self._cancel.wait(min(wait_s, READ_WAIT_S))
            return FeedBatch([])
        return self._attempt()

    def _attempt(self) -> FeedBatch:
        exchange = self._reader.new_connection()
        try:
            url = self._url(exchange)
            connection = self._transport.connect(url, self._limits(), self._cancel)
        except ConnectFailed as error:
            if not self._cancel.is_requested():
                self._failed(error)
            return FeedBatch([])
        messages = exchange.subscriptions(self._target.symbols)
        # Nothing asked for (the URL says it all): nothing will be confirmed.
        notice = self._connected(connection, bool(messages) and exchange.acknowledges)
        self._outbox.add(messages)
        self._send(connection, self._outbox.due(self._runtime.monotonic()))
        return FeedBatch([], notices=((0, notice),))

    def _connected(self, connection: Connection, confirms: bool) -> Notice:
        """Use `connection` from now on. `confirms`: an answer to its subscription is expected."""
        now_s = self._runtime.monotonic()
        self._policy.connected(now_s)
        self._pause.end()
        self._connection = connection
        self._outbox = Outbox(self._reader.exchange.messages_per_s)
        self._liveness.opened(now_s, confirms)
        self._reports.opened(now_s, confirms, self._reader.exchange.stored_symbol)
        self._last_frame_s = now_s
        self._due_s = now_s + self._config.idle_timeout_s
        return self._up(now_s)

    def _limits(self) -> ConnectionLimits:
        """The limits of an attempt made now."""
        timeout_s = self._policy.attempt_timeout_s(self._runtime.monotonic(), self._config.connect_timeout_s)
        return ConnectionLimits(timeout_s, self._message_bytes_max())

    def _message_bytes_max(self) -> int:
        return message_bytes_max(self._config.max_message_bytes, self._reader.exchange.message_bytes)

    def _url(self, exchange: Exchange) -> str:
        """The URL to connect to; may request a token first. Raises ConnectFailed."""
        url = exchange.connection_url(self._target.url, self._target.symbols)
        if exchange.token_url is None:
            return url
        answer = self._transport.fetch(exchange.token_url, self._limits(), self._cancel)
        try:
            return exchange.url_with_token(url, answer)
        except Unparseable as error:
            where = mask(exchange.token_url)
            raise ConnectFailed(f"the token that {where} sent cannot be parsed: {error}") from None

    def _failed(self, error: ConnectFailed) -> None:
        now_s = self._runtime.monotonic()
        self._policy.failed(now_s, self._fraction(), error.retry_after_s)
        self._pause.keep(error.retry_after_s, now_s)
        self._attempt_due(now_s)
        # The attempt cut short by the end of the budget has no useful error; the attempt before it has.
        if self._policy.attempts == 1 or not self._policy.exhausted(now_s):
            self._last_reason = str(error)
        hint = self._reader.exchange.unreachable_hint
        # Said once for each time the link is away, where no server answered at all.
        hinted: dict[str, Any] = {}
        if hint is not None and self._policy.attempts == 1 and error.status is None:
            hinted["hint"] = hint
        self._log.warning(
            "connecting failed", event=LogEvent.CONNECT_FAILED, url=mask(self._target.url), reason=str(error),
            status=error.status, attempt=self._policy.attempts, retry_in_s=round(self._policy.wait_s(now_s), 3),
            gives_up_in_s=round(max(0.0, (self._policy.deadline_s or now_s) - now_s), 3), **hinted,
        )  # fmt: skip

    def _attempt_due(self, now_s: float) -> None:
        """The time by which the next attempt must have ended, including the timeout of a token request."""
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

    def _receive(self, connection: Connection, now_s: float) -> FeedBatch:
        liveness, runtime = self._liveness, self._runtime
        try:
            if self._broken is not None:
                raise self._broken
            frames = connection.receive(liveness.wait_s(now_s, self._wait_s(now_s)))
        except ConnectionLost as error:
            self._failure = self._too_large.lost(error, self._message_bytes_max())
            return FeedBatch([], notices=((0, self._lost(str(error), error.code)),))
        now_s = runtime.monotonic()
        if frames:
            liveness.received(now_s)
            self._last_frame_s = now_s
            self._due_s = now_s + self._config.idle_timeout_s
            self._frames.extend(frames)
        # Only when nothing came: what has just come may be the confirmation that was waited for.
        elif (reason := liveness.dead(now_s)) is not None:
            connection.close(CLOSE_GOING_AWAY)
            return FeedBatch([], notices=((0, self._lost(reason, None)),))
        if liveness.ping_due(now_s):
            liveness.pinged(now_s)
            own = self._reader.exchange.keepalive()
            self._send(connection, () if own is None else (own,), ping=True)
        alone = self._reports.subscriptions.next_alone(now_s)
        if alone is not None and self._broken is None:
            self._outbox.add(self._reader.exchange.subscriptions((alone,)))
        if self._broken is None:
            self._send(connection, self._outbox.due(now_s))
        if not self._reports.check_due(now_s):
            return FeedBatch([])
        notices = self._reports.check(now_s, runtime.now_ms(), self._reader.frames)
        return FeedBatch([], notices=tuple((0, notice) for notice in notices))

    def _wait_s(self, now_s: float) -> float:
        """How long a receive may block before something other than liveness is due."""
        if self._handover is not None:
            return _HANDOVER_WAIT_S
        return self._outbox.wait_s(now_s, self._reports.subscriptions.wait_s(now_s, READ_WAIT_S))

    # ---- a restart that the exchange has announced -------------------------------------------------------------

    def _begin_handover(self) -> FeedBatch:
        """Open a new connection while the old one still works. If that fails, the old one is used until it ends."""
        now_s = self._runtime.monotonic()
        self._handover_from_s = now_s + self._config.stable_after_s
        exchange = self._reader.fresh_exchange()
        try:
            connection = self._transport.connect(self._url(exchange), self._limits(), self._cancel)
        except ConnectFailed as error:
            self._pause.keep(error.retry_after_s, self._runtime.monotonic())
            self._log.warning(
                "connecting before the announced restart failed", event=LogEvent.CONNECT_FAILED, reason=str(error)
            )  # fmt: skip
            return FeedBatch([])
        messages = exchange.subscriptions(self._target.symbols)
        self._handover = ConnectionHandover(connection, exchange, messages, self._runtime.monotonic())
        return FeedBatch([])

    def _hand_over(self, old: Connection, handover: ConnectionHandover) -> FeedBatch:
        """Read the old connection, hold back the frames of the new one, and switch over in time."""
        batch = self._receive(old, self._runtime.monotonic())
        handover.poll()
        if handover.broken is not None:
            self._handover = None
            return batch
        lost = self._connection is None
        if self._frames or not (lost or handover.due(self._runtime.monotonic())):
            return batch
        self._handover = None
        notices = [notice for _index, notice in batch.notices]
        if not lost:
            old.close(CLOSE_GOING_AWAY)
            notices.append(self._lost("replaced by a new connection before the announced server restart", None))
        self._reader.new_connection(handover.exchange)
        notices.append(self._connected(handover.connection, handover.confirms))
        self._frames.extend(handover.frames)
        return FeedBatch([], notices=tuple((0, notice) for notice in notices))

    def _send(self, connection: Connection, texts: Iterable[str], *, ping: bool = False) -> None:
        """Send a ping, if requested, and `texts`. A loss found here is reported after the frames received before it."""
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
        self._policy.lost(now_s, self._fraction(), self._pause.left_s(now_s) or 0.0)
        self._attempt_due(now_s)
        detail = f"{reason} (close code {code})" if code is not None else reason
        detail = detail[:_DETAIL_CHARS_MAX]
        self._reports.lost(detail)
        return Notice("LINK_LOST", self._runtime.now_ms(), detail)

    def _take(self, frame: Frame) -> FeedBatch | None:
        """The content of a frame; None if it has none to report."""
        now_ms = self._runtime.now_ms()
        if frame.kind == "text":
            read = self._reader.take(frame.text, now_ms)
        elif frame.kind == "binary":
            self._reader.frames += 1
            read = self._reader.refuse("a binary frame")
        else:
            return None
        said = () if read.parsed is None else self._apply_control(read.parsed, now_ms)
        if read.out_of_band:
            more = f" (and {len(read.out_of_band) - 1} more of this frame)" if len(read.out_of_band) > 1 else ""
            self._bad.keep(frame, read.out_of_band[0] + more, now_ms)
        if read.problem is not None:
            self._bad.keep(frame, read.problem, now_ms)
            self._failure = self._bad.failure(read.problem, self._reader.malformed_in_a_row)
            return self._bad.noted(read.batch)
        batch = read.batch
        if said:
            batch = replace(batch, notices=(*batch.notices, *((len(batch.ticks), notice) for notice in said)))
        return batch if _says_something(batch) else None

    def _apply_control(self, parsed: ParsedFrame, now_ms: int) -> Sequence[Notice]:
        """Process the content of a frame other than trades, and report it if necessary."""
        if parsed.kind in ("trades", "ack"):
            self._liveness.confirmed()
        if parsed.kind == "trades":
            self._too_large.trade()
        if parsed.reply is not None and self._connection is not None and self._broken is None:
            self._send(self._connection, (parsed.reply,))
        # When it was received: at most a few frames ago.
        return self._reports.heard(parsed, self._last_frame_s or 0.0, now_ms)

    def _fraction(self) -> float:
        """From 0 to 1, at random: jitter keeps many clients from coming back in step."""
        return int(self._runtime.token(), 16) / 0x1_0000_0000

    def close(self) -> None:
        """Close the connection and release the socket. Idempotent; not while another thread is inside `read`."""
        if self._handover is not None:
            self._handover.abandon()
            self._handover = None
        connection, self._connection = self._connection, None
        if connection is not None and self._broken is None:
            connection.close()
        self._bad.close()


def _says_something(batch: FeedBatch) -> bool:
    left_out = batch.malformed + batch.duplicates + batch.history_dropped + batch.out_of_band
    return bool(batch.ticks or batch.notices) or left_out > 0
