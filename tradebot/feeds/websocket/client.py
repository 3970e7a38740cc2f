"""The real transport: WebSocket connections over TCP and TLS.

websocket-client makes the opening handshake and builds (masks) the frames that are sent; tradebot.feeds.websocket.tcp
connects within one deadline and tradebot.feeds.websocket.frame_decoder reads what comes. wss:// and https:// always
verify certificate and host name, against the authorities this machine trusts (or the file that SSL_CERT_FILE names).
Proxy environment variables are not used, redirects are not followed, no Origin header is sent, no extension
(compression) is offered, and no cookie is kept.
"""

from __future__ import annotations

import http.client
import io
import re
import struct
from collections.abc import Callable
from typing import Any, Final

import websocket

from tradebot import __version__
from tradebot.core.cancellation import Cancellation
from tradebot.core.runtime import Runtime
from tradebot.feeds.websocket.frame_decoder import FrameDecoder
from tradebot.feeds.websocket.http import (
    HEAD_END,
    STATUS_LINE,
    UrlTarget,
    one_line,
    parse_url,
    refusal,
    upgrade_problem,
)
from tradebot.feeds.websocket.tcp import Resolver, Stream, TimedAttempt, dial, os_trouble
from tradebot.feeds.websocket.transport import (
    CLOSE_ABNORMAL,
    CLOSE_NORMAL,
    CLOSE_POLICY,
    CONTROL_FRAMES_MAX,
    CONTROL_WINDOW_S,
    FRAMES_MAX,
    SEND_TIMEOUT_S,
    ConnectFailed,
    ConnectionLimits,
    ConnectionLost,
    Frame,
)

FETCH_BYTES_MAX: Final = 1 << 20
"""The longest answer that `fetch` takes."""

_HEAD_BYTES_MAX: Final = 32_768
_RETRY_AFTER: Final = re.compile(rb"^retry-after[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
# websocket-client would keep cookies in a store of the process and send them again.
_COOKIES: Final = re.compile(rb"^set-cookie[ \t]*:.*\n", re.IGNORECASE | re.MULTILINE)
_UPGRADE_HEADERS: Final = ("Upgrade", "Connection", "Sec-WebSocket-Accept")
_CONTROL_KINDS: Final = frozenset({"ping", "pong"})
_USER_AGENT: Final = f"tradebot/{__version__}"


class WebSocketTransport:
    """`tradebot.feeds.websocket.transport.Transport` over the network."""

    def __init__(self, runtime: Runtime, send_timeout_s: float = SEND_TIMEOUT_S) -> None:
        self._runtime = runtime
        self._send_timeout_s = send_timeout_s
        self._resolver = Resolver(runtime)

    def connect(self, url: str, limits: ConnectionLimits, cancel: Cancellation) -> WebSocketConnection:
        """A WebSocket connection to `url` (ws:// or wss://). See Transport.connect."""
        target = parse_url(url, {"ws": 80, "wss": 443})
        attempt = TimedAttempt(self._runtime, limits, cancel)
        stream = dial(self._resolver, target.host, target.port, target.tls, attempt)
        try:
            decoder = FrameDecoder(limits.max_message_bytes)
            decoder.feed(self._upgrade(stream, target, attempt))
        except BaseException:
            stream.close()
            raise
        return WebSocketConnection(self._runtime, stream, decoder, self._send_timeout_s)

    def fetch(self, url: str, limits: ConnectionLimits, cancel: Cancellation) -> str:
        """The text that an empty POST to `url` (http:// or https://) answers, at most FETCH_BYTES_MAX of it."""
        target = parse_url(url, {"http": 80, "https": 443})
        attempt = TimedAttempt(self._runtime, limits, cancel)
        stream = dial(self._resolver, target.host, target.port, target.tls, attempt)
        try:
            attempt.waits_for = f"complete answer to a POST to {target.host}"
            lines = [f"POST {target.resource} HTTP/1.1", f"Host: {target.authority}", *_common_headers(target)]
            lines += ["Accept: application/json", "Accept-Encoding: identity", "Content-Length: 0", "Connection: close"]
            stream.write_within("\r\n".join([*lines, "", ""]).encode("ascii"), attempt)
            return self._read_answer(stream, attempt)
        finally:
            stream.close()

    def _upgrade(self, stream: Stream, target: UrlTarget, attempt: TimedAttempt) -> bytes:
        """Perform the opening handshake; returns bytes received after the server's answer. Raises ConnectFailed."""
        attempt.waits_for = f"answer of {target.host} to the WebSocket handshake"
        sock = _HandshakeSocket(stream, attempt, self._runtime.now_ms)
        # websocket-client has only some type information.
        client: Any = websocket.WebSocket(enable_multithread=False)
        # It takes what follows a ";" in a path for something else, and drops it.
        url = f"{'wss' if target.tls else 'ws'}://{target.authority}{target.resource.replace(';', '%3B')}"
        try:
            client.connect(
                url,
                socket=sock,
                host=target.authority,
                header=_common_headers(target),
                suppress_origin=True,
            )
        except (websocket.WebSocketException, ValueError) as error:
            raise ConnectFailed(_bad_upgrade(sock.head, error)) from None
        for name in ("Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"):
            if name.lower() in client.headers:
                raise ConnectFailed(f"the server's handshake accepts something that was not offered ({name})")
        return sock.rest

    def _read_answer(self, stream: Stream, attempt: TimedAttempt) -> str:
        source: Any = _ReadableSocket(stream, attempt)
        response = http.client.HTTPResponse(source, method="POST")
        try:
            response.begin()
            if not 200 <= response.status < 300:
                after = response.getheader("Retry-After")
                raise refusal(response.status, response.reason, after, self._runtime.now_ms())
            body = response.read(FETCH_BYTES_MAX + 1)
            if len(body) > FETCH_BYTES_MAX:
                raise ConnectFailed(f"the answer is longer than {FETCH_BYTES_MAX} bytes")
            if response.length:
                raise ConnectFailed("the answer ended early")
            return body.decode()
        except (http.client.HTTPException, ValueError) as error:
            raise ConnectFailed(one_line(f"the answer cannot be parsed: {error!r}")) from None
        finally:
            # Python 3.13 complains from the garbage collector about one that is not closed.
            response.close()


class WebSocketConnection:
    """`tradebot.feeds.websocket.transport.Connection` over a stream whose handshake is done."""

    def __init__(self, runtime: Runtime, stream: Stream, decoder: FrameDecoder, send_timeout_s: float) -> None:
        self._runtime = runtime
        self._stream = stream
        self._decoder = decoder
        self._send_timeout_s = send_timeout_s
        # Reason and code once the connection is over; its socket is closed then.
        self._lost: tuple[str, int] | None = None
        # Pings and pongs received since the window began.
        self._window_end_s = 0.0
        self._control_frames = 0

    def receive(self, timeout_s: float) -> list[Frame]:
        """See Connection.receive. One read (up to 64 KiB) serves many small frames.

        A peer that sends pings but takes no pongs can hold it for the send timeout longer.
        """
        end = self._runtime.monotonic() + timeout_s
        frames = self._take()
        while not frames and self._lost is None:
            data = self._read()
            if data:
                self._decoder.feed(data)
                frames = self._take()
            left = end - self._runtime.monotonic()
            # Also a peer that only ever sends parts of a message must not hold us longer.
            if not frames and (left <= 0 or (data is None and not self._stream.wait_readable(left))):
                break
        if not frames and self._lost is not None:
            raise ConnectionLost(*self._lost)
        return frames

    def send_text(self, text: str) -> None:
        """See Connection.send_text."""
        self._send(text.encode(), websocket.ABNF.OPCODE_TEXT)

    def send_binary(self, data: bytes) -> None:
        """Send one binary message, like `send_text`: for tests that echo."""
        self._send(data, websocket.ABNF.OPCODE_BINARY)

    def ping(self) -> None:
        """See Connection.ping."""
        self._send(b"", websocket.ABNF.OPCODE_PING)

    def close(self, code: int = CLOSE_NORMAL) -> None:
        """See Connection.close."""
        if self._lost is None:
            self._lose("closed by tradebot", code, struct.pack("!H", code))

    def _take(self) -> list[Frame]:
        """Whole frames that have arrived; pings are answered. An ending is dealt with once all before it is handed out.

        Not earlier: who was handed the frames may still answer them.
        """
        frames = self._decoder.take(FRAMES_MAX)
        for frame in frames:
            if frame.kind in _CONTROL_KINDS and self._lost is None:
                self._take_control(frame)
        ending = self._decoder.ending
        if ending is not None and not frames and self._lost is None:
            self._lose(ending.reason, ending.code, ending.answer)
        return frames

    def _take_control(self, frame: Frame) -> None:
        """Answer a ping, as long as the peer keeps to the bound on control frames."""
        now_s = self._runtime.monotonic()
        if now_s >= self._window_end_s:
            self._window_end_s, self._control_frames = now_s + CONTROL_WINDOW_S, 0
        self._control_frames += 1
        if self._control_frames > CONTROL_FRAMES_MAX:
            reason = f"the peer sent more than {CONTROL_FRAMES_MAX} pings and pongs within {CONTROL_WINDOW_S:g} s"
            self._lose(reason, CLOSE_POLICY, struct.pack("!H", CLOSE_POLICY))
        elif frame.kind == "ping":
            self._pong(frame.data)

    def _read(self) -> bytes | None:
        """Like Stream.read; records the end of the connection."""
        try:
            data = self._stream.read()
        except OSError as error:
            self._lose(f"the connection broke: {os_trouble(error)}", CLOSE_ABNORMAL)
            return b""
        if data == b"":
            self._lose("the peer ended the connection without a close frame", CLOSE_ABNORMAL)
        return data

    def _pong(self, data: bytes) -> None:
        try:
            self._write(data, websocket.ABNF.OPCODE_PONG)
        except TimeoutError as error:
            self._lose(str(error), CLOSE_ABNORMAL)
        except OSError:
            # The peer is gone, but what it sent before is still to be read: reading finds the end after that.
            pass

    def _send(self, data: bytes, opcode: int) -> None:
        if self._lost is None:
            try:
                self._write(data, opcode)
                return
            except TimeoutError as error:
                self._lose(str(error), CLOSE_ABNORMAL)
            except OSError as error:
                self._lose(f"the connection broke: {os_trouble(error)}", CLOSE_ABNORMAL)
        assert self._lost is not None
        raise ConnectionLost(*self._lost)

    def _write(self, data: bytes, opcode: int) -> None:
        """Send one frame. Raises TimeoutError after the send timeout, OSError when the connection is broken."""
        rest = memoryview(_frame(data, opcode))
        end = self._runtime.monotonic() + self._send_timeout_s
        while rest := rest[self._stream.write(rest) :]:
            left = end - self._runtime.monotonic()
            if left <= 0 or not self._stream.wait_writable(left):
                raise TimeoutError(f"the peer accepted no data for {self._send_timeout_s:g} s")

    def _lose(self, reason: str, code: int, farewell: bytes | None = None) -> None:
        """Close, with `farewell` as the payload of a close frame if one is due, and record the reason."""
        self._lost = reason, code
        self._stream.close(b"" if farewell is None else _frame(farewell, websocket.ABNF.OPCODE_CLOSE))


class _HandshakeSocket:
    """The socket that websocket-client uses during the handshake.

    It reads byte by byte, follows redirects, waits for whatever body a refusal announces, and its versions tell of a
    refusal in different ways. So the head of the answer is read whole first, within the attempt and bounded, and only
    one that agrees (101) is handed to it.
    """

    def __init__(self, stream: Stream, attempt: TimedAttempt, now_ms: Callable[[], int]) -> None:
        self._stream = stream
        self._attempt = attempt
        self._now_ms = now_ms
        self._unread: io.BytesIO | None = None
        self.head = b""
        self.rest = b""

    def gettimeout(self) -> float:
        """As of a non-blocking socket: then `recv` and `send` are called directly."""
        return 0.0

    def send(self, data: bytes) -> int:
        """Send all of it."""
        self._stream.write_within(data, self._attempt)
        return len(data)

    def recv(self, size: int) -> bytes:
        """The next bytes of the answer's head."""
        if self._unread is None:
            self._read_head()
            self._check_status()
            self._unread = io.BytesIO(_COOKIES.sub(b"", self.head))
        return self._unread.read(size)

    def close(self) -> None:
        """Does nothing: the owner of the stream closes it."""

    def _read_head(self) -> None:
        data = b""
        while (end := HEAD_END.search(data)) is None:
            if len(data) > _HEAD_BYTES_MAX:
                raise ConnectFailed(f"the headers of the WebSocket handshake are longer than {_HEAD_BYTES_MAX} bytes")
            more = self._stream.read_within(self._attempt)
            if not more:
                so_far = f" (after {one_line(ascii(data[:80]))})" if data else ""
                raise ConnectFailed(f"the server ended the connection during the WebSocket handshake{so_far}")
            data += more
        self.head, self.rest = data[: end.end()], data[end.end() :]

    def _check_status(self) -> None:
        line = STATUS_LINE.match(self.head)
        if line is None:
            raise ConnectFailed(f"the server's answer is not HTTP: {one_line(ascii(self.head[:80]))}")
        status = int(line[2])
        if status != http.HTTPStatus.SWITCHING_PROTOCOLS:
            after = _RETRY_AFTER.search(self.head)
            raise refusal(
                status, (line[3] or b"").decode("latin-1"), after and after[1].decode("latin-1").strip(), self._now_ms()
            )
        problem = upgrade_problem(self.head)
        if problem is not None:
            raise ConnectFailed(f"the server's answer is not a WebSocket handshake: {problem}")


class _ReadableSocket(io.RawIOBase):
    """The socket that http.client uses: only its reading side, within the attempt."""

    def __init__(self, stream: Stream, attempt: TimedAttempt) -> None:
        self._stream = stream
        self._attempt = attempt
        self._data = b""

    def makefile(self, mode: str) -> io.BufferedReader:
        """The side to read from; `mode` is "rb"."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, target: Any) -> int:
        """Fill `target` with what there is, at least one byte but at the end."""
        self._data = self._data or self._stream.read_within(self._attempt)
        size = min(len(target), len(self._data))
        target[:size] = self._data[:size]
        self._data = self._data[size:]
        return size


def _common_headers(target: UrlTarget) -> list[str]:
    headers = [f"User-Agent: {_USER_AGENT}"]
    return [*headers, f"Authorization: {target.authorization}"] if target.authorization else headers


def _frame(payload: bytes, opcode: int) -> bytes:
    data: bytes = websocket.ABNF.create_frame(payload, opcode).format()
    return data


def _bad_upgrade(head: bytes, error: Exception) -> str:
    """Why an answer with status 101 is still not a valid WebSocket handshake."""
    present = {line.partition(b":")[0].strip().lower() for line in head.split(b"\n")[1:]}
    missing = [name for name in _UPGRADE_HEADERS if name.lower().encode() not in present]
    what = f"{', '.join(missing)} missing" if missing else str(error)
    return one_line(f"the server's answer is not a WebSocket handshake: {what}")
