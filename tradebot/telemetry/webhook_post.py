"""One HTTP POST within one deadline: name lookup, TCP, TLS, sending and the answer's head together.

urllib's timeout counts from byte to byte, so that a server which drips its answer holds a thread for as long as it
likes. Of the answer only status and headers are read, at most HEAD_BYTES_MAX; its body is left unread. No proxies, no
redirects (a POST must not become a GET), certificates checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tradebot.core.cancellation import Cancellation
from tradebot.core.runtime import Runtime
from tradebot.feeds.websocket.http import HEAD_END, STATUS_LINE, one_line, parse_url
from tradebot.feeds.websocket.tcp import Resolver, Stream, TimedAttempt, dial
from tradebot.feeds.websocket.transport import ConnectFailed, ConnectionLimits

HEAD_BYTES_MAX: Final = 32_768


class HttpPost:
    """A `tradebot.telemetry.webhook.Post` over the network. For one thread."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._resolver = Resolver(runtime)

    def __call__(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> int:
        """The HTTP status of the answer. Raises OSError without an answer within `timeout_s`. May block so long.

        Credentials belong into `headers`, not into `url`.
        """
        attempt = TimedAttempt(self._runtime, ConnectionLimits(timeout_s, HEAD_BYTES_MAX), Cancellation(self._runtime))
        try:
            target = parse_url(url, {"http": 80, "https": 443})
            stream = dial(self._resolver, target.host, target.port, target.tls, attempt)
            try:
                attempt.waits_for = f"answer of {target.host}"
                lines = [f"POST {target.resource} HTTP/1.1", f"Host: {target.authority}"]
                lines += [f"{name}: {value}" for name, value in headers.items()]
                lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
                stream.write_within("\r\n".join(lines).encode("latin-1") + body, attempt)
                return _read_status(stream, attempt)
            finally:
                stream.close()
        except ConnectFailed as error:
            raise OSError(str(error)) from None


def _read_status(stream: Stream, attempt: TimedAttempt) -> int:
    """The status of the final answer; interim ones (1xx) are passed over. Raises ConnectFailed."""
    data, left = b"", HEAD_BYTES_MAX
    while True:
        while (end := HEAD_END.search(data)) is None:
            more = stream.read_within(attempt)
            left -= len(more)
            if not more:
                raise ConnectFailed(f"no {attempt.waits_for}: the connection ended before")
            if left < 0:
                raise ConnectFailed(f"the answer's headers are longer than {HEAD_BYTES_MAX} bytes")
            data += more
        line = STATUS_LINE.match(data)
        if line is None:
            raise ConnectFailed(f"the answer is not HTTP: {one_line(ascii(data[:80]))}")
        status = int(line[2])
        if status >= 200:
            return status
        data = data[end.end() :]
