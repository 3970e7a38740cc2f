"""Sends alerts to one webhook: JSON by POST, rate-limited, in a separate thread.

Sending never blocks the caller: a message is counted and dropped if the queue is full or its rate limit is reached.
The body is `WebhookMessage`; its `text` is what chat services show. Nothing of the URL but its host is ever logged:
with webhooks the path is the secret.
"""

from __future__ import annotations

import base64
import socket
from collections.abc import Mapping
from typing import Final, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

import msgspec
from msgspec import Struct

from tradebot.core.channel import Channel, ChannelClosed, ConsumerGone
from tradebot.core.errors import ConfigError
from tradebot.core.log_events import LogEvent
from tradebot.core.runtime import Runtime
from tradebot.output.log import Log
from tradebot.output.redaction import MASK, clip, mask
from tradebot.telemetry.alerts import Alert
from tradebot.telemetry.webhook_post import HttpPost

THREAD: Final = "tradebot-webhook"
QUEUE_MAX: Final = 64
TIMEOUT_S: Final = 5.0
FLUSH_S: Final = 2.0
RETRY_DELAYS_S: Final = (1.0, 4.0)
"""Waits before the second and the third attempt, which is the last."""

EVENT_BURST: Final = 5
EVENT_PER_MINUTE: Final = 1.0
ALL_BURST: Final = 20
ALL_PER_MINUTE: Final = 6.0

# Answers after which the same request may do better later; the other ones below 500 say that it is wrong.
_PASSING: Final = frozenset({408, 425, 429})
_TEXT_CHARS_MAX: Final = 2000


class WebhookMessage(Struct, frozen=True):
    """What is posted. `ts_ms`: when it happened; `fields["suppressed"]`: messages of its kind let go before it.

    `run_id` is empty for a run that was refused before it had one.
    """

    event: str
    severity: str
    text: str
    run_id: str
    host: str
    ts_ms: int
    fields: dict[str, object]


class Post(Protocol):
    """Sends one request: the seam to the network. Blocks for `timeout_s` at most."""

    def __call__(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> int:
        """The HTTP status of the answer. Raises OSError without an answer."""
        ...


class WebhookTarget(Struct, frozen=True):
    """A webhook's URL taken apart: credentials go into a header; `shown` may be logged."""

    url: str
    headers: dict[str, str]
    shown: str


class TokenBucket:
    """Permits bursts of `burst` and on average `per_minute`. Pure: `now_s` is an argument."""

    def __init__(self, burst: int, per_minute: float) -> None:
        self._burst = burst
        self._per_s = per_minute / 60
        self._tokens = float(burst)
        self._at_s: float | None = None

    def has(self, now_s: float) -> bool:
        """Whether one is left at `now_s`."""
        if self._at_s is not None:
            self._tokens = min(self._burst, self._tokens + max(0.0, now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        return self._tokens >= 1

    def take(self) -> None:
        """Use one; ask `has` first."""
        self._tokens -= 1


class MessageLimits:
    """A bucket for each event and one for all. Pure."""

    def __init__(self) -> None:
        self._all = TokenBucket(ALL_BURST, ALL_PER_MINUTE)
        self._events: dict[str, TokenBucket] = {}
        self._suppressed: dict[str, int] = {}

    def admit(self, event: str, now_s: float) -> int | None:
        """How many of this event were let go since the last admitted one; None when this one is to be let go, too."""
        bucket = self._events.setdefault(event, TokenBucket(EVENT_BURST, EVENT_PER_MINUTE))
        # Both are asked, so that both know the time.
        if not all([bucket.has(now_s), self._all.has(now_s)]):
            self._suppressed[event] = self._suppressed.get(event, 0) + 1
            return None
        bucket.take()
        self._all.take()
        return self._suppressed.pop(event, 0)


class Webhook:
    """Sends alerts in a separate thread, which starts immediately. `send` and `close` are for one thread (main)."""

    def __init__(
        self, url: str, run_id: str, runtime: Runtime, log: Log, post: Post | None = None, host: str | None = None
    ) -> None:
        """Raises ConfigError when the URL is none that can be posted to.

        `post` None: over HTTP. `host` None: the name of this machine.
        """
        self._target = take_apart(url)
        self._run_id = run_id
        self._runtime = runtime
        self._log = log.bind("webhook")
        self._post: Post = HttpPost(runtime) if post is None else post
        self._host = socket.gethostname() if host is None else host
        self._limits = MessageLimits()
        self._queue: Channel[WebhookMessage] = Channel(runtime, "webhook", QUEUE_MAX)
        self._closing = runtime.event()
        self.sent = 0
        self.failed = 0
        self.suppressed = 0
        """Let go because of the limits or a full queue."""
        self._thread = runtime.spawn(THREAD, self._run)

    def send(self, alert: Alert) -> None:
        """Queue an alert, if its limits allow. Never blocks, never raises."""
        before = self._limits.admit(alert.event, self._runtime.monotonic())
        if before is None:
            self.suppressed += 1
            return
        fields = dict(alert.fields) | ({"suppressed": before} if before else {})
        text = clip(mask(alert.text), _TEXT_CHARS_MAX)
        message = WebhookMessage(
            alert.event, alert.severity, text, self._run_id, self._host, self._runtime.now_ms(), fields
        )  # fmt: skip
        try:
            taken = self._queue.offer(message)
        except ConsumerGone:
            taken = 0
        if not taken:
            self.suppressed += 1
            self._log.warning(
                "webhook queue full: an alert was dropped", event=LogEvent.WEBHOOK_DROPPED, alert=alert.event
            )

    def close(self) -> None:
        """Send what is left, for at most two seconds; the rest is given up. Idempotent."""
        if self._closing.is_set():
            return
        self._queue.close()
        self._closing.set()
        self._thread.join(FLUSH_S)
        left = self._queue.depth + int(self._thread.is_alive())
        self._queue.abandon()
        if left or self.failed or self.suppressed:
            self._log.warning(
                "the webhook did not receive every alert", event=LogEvent.WEBHOOK_END, sent=self.sent,
                failed=self.failed, suppressed=self.suppressed, given_up=left,
            )  # fmt: skip

    def _run(self) -> None:
        while True:
            try:
                [message] = self._queue.take(1)
            except ChannelClosed:
                return
            self._deliver(message)

    def _deliver(self, message: WebhookMessage) -> None:
        body = msgspec.json.encode(message)
        problem = ""
        for delay_s in (*RETRY_DELAYS_S, None):
            problem, again = self._attempt(body)
            if not problem:
                self.sent += 1
                return
            # At the end there is time for one attempt each.
            if not again or delay_s is None or self._closing.wait(delay_s):
                break
        self.failed += 1
        self._log.warning(
            "webhook failed", event=LogEvent.WEBHOOK_FAILED, alert=message.event, url=self._target.shown, detail=problem
        )  # fmt: skip

    def _attempt(self, body: bytes) -> tuple[str, bool]:
        """What went wrong ("": nothing), and whether another attempt makes sense."""
        target = self._target
        try:
            status = self._post(target.url, target.headers, body, TIMEOUT_S)
        except OSError as error:
            return _without(target, f"{type(error).__name__}: {error}"), True
        except Exception as error:  # a library's own kind: a thread that dies would tell nothing ever again
            return _without(target, f"{type(error).__name__}: {error}"), False
        if 200 <= status < 300:
            return "", False
        return f"answered {status}", status in _PASSING or status >= 500


def take_apart(url: str) -> WebhookTarget:
    """Check a webhook's URL. Raises ConfigError, without saying what was secret in it."""
    trouble = "notify.webhook_url: must be a URL like https://HOST/PATH"
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError(f"{trouble}, without spaces, and with %XX for characters that are not ASCII")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError(f"{trouble}; its host or port is not valid") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(trouble)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    place = host if port is None else f"{host}:{port}"
    headers = {"Content-Type": "application/json", "User-Agent": "tradebot"}
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(credentials.encode()).decode()
    clean = urlunsplit((parts.scheme, place, parts.path or "/", parts.query, ""))
    return WebhookTarget(clean, headers, f"{parts.scheme}://{place}/{MASK}")


def _without(target: WebhookTarget, text: str) -> str:
    """`text` without the URL, its path or a value of its query."""
    parts = urlsplit(target.url)
    values = (value for _name, value in parse_qsl(parts.query))
    for secret in (target.url, f"{parts.path}?{parts.query}", parts.path, parts.query, *values):
        if secret not in ("", "/", "?", "/?"):
            text = text.replace(secret, MASK)
    return text
