"""Parts of HTTP as plain values: the target of a URL, and the reason of a refusal."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit

from msgspec import Struct

from tradebot.feeds.websocket.transport import ConnectFailed
from tradebot.output.redaction import clip, escape, mask

RETRY_AFTER_MAX_S: Final = 86_400.0
"""A server's wish to be left alone for longer than a day is taken for a day."""

HEAD_END: Final = re.compile(rb"\r?\n\r?\n")
"""Where the head of an answer ends."""

STATUS_LINE: Final = re.compile(rb"HTTP/(1\.[0-9]) ([1-5][0-9][0-9])(?: ([^\r\n]*))?\r?\n")
"""The first line of an answer: version, status, phrase."""

_TEXT_CHARS_MAX: Final = 300
# A URL goes into a request line as it is: what could end that line or begin another is refused, not repaired.
_URL: Final = re.compile(r"[!-~]+")
_SECURE: Final = frozenset({"wss", "https"})


def one_line(text: str) -> str:
    """`text` as one printable line of bounded length, without credentials, for a message."""
    return escape(clip(mask(text), _TEXT_CHARS_MAX))


_HEADER_NAME: Final = re.compile(rb"^([^:\s]+)[ \t]*:", re.MULTILINE)


def upgrade_problem(head: bytes) -> str | None:
    """An error in a 101 answer that websocket-client does not detect; None if the answer has no such error.

    What HTTP/1.0, or a length of a body, may mean behind a proxy is not guessed: the bytes that follow could be taken
    for frames by one side and for a body by the other.
    """
    line = STATUS_LINE.match(head)
    if line is None or line[1] == b"1.0":
        return "it is HTTP/1.0, which has no upgrade"
    names = [name.lower() for name in _HEADER_NAME.findall(head)]
    for name in (b"Transfer-Encoding", b"Content-Length"):
        if name.lower() in names:
            return f"it announces a body ({name.decode()})"
    if names.count(b"sec-websocket-accept") > 1:
        return "it has two Sec-WebSocket-Accept headers"
    return None


class UrlTarget(Struct, frozen=True):
    """The target of a URL. `resource` is path and query; `authorization` a header value, "" without credentials."""

    tls: bool
    host: str
    port: int
    resource: str
    authorization: str

    @property
    def authority(self) -> str:
        """Host and port as in a URL and in the Host header (always with the port, which is permitted)."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_url(url: str, schemes: Mapping[str, int]) -> UrlTarget:
    """The target of `url`, whose scheme must be one of `schemes` (with their ports). Raises ConnectFailed.

    User and password become the value of an Authorization header and are in nothing else; a fragment is dropped.
    """
    try:
        if not _URL.fullmatch(url):
            raise ValueError("only printable ASCII characters without spaces can be used; write others as %XX")
        parts = urlsplit(url)
        if parts.scheme not in schemes:
            raise ValueError(f"it must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        if not parts.hostname:
            raise ValueError("it names no host")
        port = parts.port
        if port == 0:
            raise ValueError("port 0 cannot be connected to")
    except ValueError as error:
        raise ConnectFailed(one_line(f"the URL {url} cannot be used: {error}")) from None
    credentials = ""
    if parts.username is not None:
        pair = unquote_to_bytes(parts.username) + b":" + unquote_to_bytes(parts.password or "")
        credentials = f"Basic {base64.b64encode(pair).decode()}"
    resource = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    return UrlTarget(parts.scheme in _SECURE, parts.hostname, port or schemes[parts.scheme], resource, credentials)


def refusal(status: int, phrase: str | None, retry_after: str | None, now_ms: int) -> ConnectFailed:
    """The error for an HTTP answer other than the expected one; a date in `retry_after` is relative to `now_ms`."""
    said = one_line(f"{status} {phrase or ''}".strip())
    if 300 <= status < 400:
        return ConnectFailed(f"the server answered HTTP {said}; redirects are not followed", status)
    wait_s = retry_after_s(retry_after, now_ms)
    asked = "" if wait_s is None else f" and asks to wait {wait_s:g} s"
    return ConnectFailed(f"the server answered HTTP {said}{asked}", status, wait_s)


def retry_after_s(value: str | None, now_ms: int) -> float | None:
    """The seconds requested by a Retry-After header (a number or a date); None if it is invalid."""
    if value is None:
        return None
    if re.fullmatch(r"[0-9]+", value, re.ASCII):
        # Digits without end would cost time to convert.
        return RETRY_AFTER_MAX_S if len(value) > 9 else min(float(value), RETRY_AFTER_MAX_S)
    try:
        date = parsedate_to_datetime(value)
        wait_s = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now_ms / 1000
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(wait_s, RETRY_AFTER_MAX_S) if wait_s > 0 else None
