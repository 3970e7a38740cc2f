"""The other end of a WebSocket, scripted: what the contract suite of the wire (test_wire.py) talks to.

`Peer` is what a case may do to a transport; `RealPeer` does it on loopback with raw sockets, that of `sim_peer.py` in
simulation. A case is a function of a `WireStage`, run by a `DriveWire`: `drive_wire_real` of this file on the real
runtime once, `sim_peer.drive_wire_simulated` on the simulated one over several seeds.
A peer is told first what to do with the next attempts (`accept` is the default); its other calls act on the newest
connection, at once and in order. None of them waits for the client, but `take`.
"""

from __future__ import annotations

import base64
import hashlib
import queue
import select
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, Protocol

from tradebot.core.cancellation import Cancellation
from tradebot.core.runtime import RealRuntime, Runtime
from tradebot.feeds.websocket.transport import ConnectionLimits, Transport

LONG_S = 20.0
"""A wait that only a failing test waits out."""

GENEROUS = ConnectionLimits(connect_timeout_s=LONG_S, max_message_bytes=1 << 20)

ReceivedKind = Literal["text", "binary", "ping", "pong", "close", "end"]


@dataclass(frozen=True)
class Received:
    """Something the client sent. `data` is the payload (of a close: the two bytes of its code, and the reason).

    "end" is the end of the connection as the peer sees it, reset or not; nothing follows it.
    """

    kind: ReceivedKind
    data: bytes = b""

    @property
    def code(self) -> int | None:
        """The close code of a close frame, None when it carries none."""
        return struct.unpack("!H", self.data[:2])[0] if self.kind == "close" and self.data else None


class Peer(Protocol):
    """A scripted server."""

    @property
    def url(self) -> str:
        """Where it is: ws://... for `connect`."""
        ...

    @property
    def fetch_url(self) -> str:
        """Where it is for `fetch`: http://..."""
        ...

    # ---- what the next attempt to connect meets (each call is for one attempt, in order) ----

    def accept(self) -> None:
        """A completed handshake. Also what an attempt meets that nothing was said about."""
        ...

    def refuse(self, status: int, retry_after: str | None = None) -> None:
        """An HTTP answer with `status`, with that Retry-After header where there is one."""
        ...

    def stay_mute(self) -> None:
        """A TCP connection and never an answer."""
        ...

    def hang_up(self) -> None:
        """A TCP connection that is closed before any answer."""
        ...

    def answer(self, text: str) -> None:
        """HTTP 200 with `text`: for `fetch`."""
        ...

    def go_down(self) -> None:
        """From now on nothing listens: every attempt is refused. Open connections stay."""
        ...

    # ---- on the newest connection ----

    @property
    def answer_pings(self) -> bool:
        """Whether pings are answered (they are, unless set otherwise)."""
        ...

    @answer_pings.setter
    def answer_pings(self, value: bool) -> None: ...

    def send_text(self, text: str) -> None: ...

    def send_binary(self, data: bytes) -> None: ...

    def ping(self, data: bytes = b"") -> None: ...

    def pong(self, data: bytes = b"") -> None: ...

    def half_frame(self, text: str) -> None:
        """The first half of a text frame. `other_half` sends the rest; nothing else may be sent in between."""
        ...

    def other_half(self) -> None: ...

    def close(self, code: int | None, reason: str = "") -> None:
        """A close frame, without a code when None. The connection stays until the client ends it."""
        ...

    def end(self) -> None:
        """End the connection in good order, but without a close frame (FIN)."""
        ...

    def reset(self) -> None:
        """End the connection at once (RST); what was sent before may be lost."""
        ...

    def take(self) -> Received:
        """The next thing that the client sent on the newest connection; waits for it (at most LONG_S: fails then).

        Pings that were answered are among them.
        """
        ...


@dataclass(frozen=True)
class WireStage:
    """What a case gets."""

    runtime: Runtime
    transport: Transport
    peer: Peer
    slack_s: float
    """By how much a wait may be longer than asked for."""

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Have `call` run in a thread of its own after `seconds`."""

        def wait_and_call() -> None:
            self.runtime.sleep(seconds)
            call()

        self.runtime.spawn("later", wait_and_call)


WireBody = Callable[[WireStage], None]
DriveWire = Callable[[WireBody], None]


never = Cancellation(RealRuntime())
"""Is not requested."""


# ---- the real one ----------------------------------------------------------------------------------------------------

OPCODES: dict[int, ReceivedKind] = {1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, length: int | None = None) -> bytes:
    """The bytes of a server's frame; `length` lies about the payload's (and uses the 64-bit form)."""
    first = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    size = len(payload)
    if length is not None or size >= 1 << 16:
        return first + b"\x7f" + struct.pack("!Q", size if length is None else length) + payload
    if size >= 126:
        return first + b"\x7e" + struct.pack("!H", size) + payload
    return first + bytes([size]) + payload


def close_frame(code: int | None, reason: bytes = b"") -> bytes:
    """The bytes of a server's close frame."""
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


def upgrade_answer(request: bytes) -> bytes:
    """A good 101 to the request's bytes."""
    key = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
    digest = hashlib.sha1(key.split(b":")[1].strip() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
    return f"{head}{base64.b64encode(digest).decode()}\r\n\r\n".encode()


def http_answer(status: int, headers: dict[str, str], body: bytes = b"") -> bytes:
    """The bytes of a plain HTTP answer."""
    lines = [f"HTTP/1.1 {status} Because", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])).encode() + body


Answer = Callable[["Link", bytes], None]
"""What an attempt meets: called in the link's thread with the request's bytes."""


@dataclass
class Link:
    """One accepted TCP connection, as the server sees it."""

    sock: socket.socket
    received: queue.Queue[Received] = field(default_factory=queue.Queue)
    request: bytes = b""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def start_tls(self, context: ssl.SSLContext) -> None:
        """From now on TLS. Raises OSError."""
        self.sock = context.wrap_socket(self.sock, server_side=True)
        # OpenSSL must not be called by two threads at once, so nothing may block inside it.
        self.sock.setblocking(False)

    def send_raw(self, data: bytes) -> None:
        """Send these bytes; a client that is gone is no error."""
        rest = memoryview(data)
        with suppress(OSError):
            while rest:
                try:
                    with self.lock:
                        rest = rest[self.sock.send(rest) :]
                except ssl.SSLWantWriteError:
                    select.select([], [self.sock], [], LONG_S)

    def recv(self, size: int) -> bytes:
        """Up to `size` bytes that the client sent; b"" at the end. Raises OSError."""
        if not isinstance(self.sock, ssl.SSLSocket):
            return self.sock.recv(size)
        while True:
            try:
                with self.lock:
                    return self.sock.recv(size)
            except ssl.SSLWantReadError:
                select.select([self.sock], [], [], 0.05)

    def read_request(self) -> bytes:
        """The request up to the empty line. EOFError when the connection ends before."""
        data = b""
        while b"\r\n\r\n" not in data:
            part = self.recv(65536)
            if not part:
                raise EOFError
            data += part
        return data

    def shut_sending(self) -> None:
        """End what this side sends. Not a close: that would reset what the client has yet to read."""
        with suppress(OSError):
            # Not SSLSocket's: from then on it reads undecrypted bytes.
            socket.socket.shutdown(self.sock, socket.SHUT_WR)

    def shut(self, *, hard: bool = False) -> None:
        """End the connection; hard: by a reset."""
        with suppress(OSError):
            if hard:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # Wakes the reading thread, which a close alone does not.
            socket.socket.shutdown(self.sock, socket.SHUT_RD if hard else socket.SHUT_RDWR)
        with suppress(OSError):
            self.sock.close()

    def read_exactly(self, size: int) -> bytes:
        """`size` bytes; EOFError when the connection ends before."""
        data = b""
        while len(data) < size:
            part = self.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def read_frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the client's next frame, which must be masked and whole."""
        first, second = self.read_exactly(2)
        assert first & 0xF0 == 0x80 and second & 0x80, "the client's frames are whole and masked"
        size = second & 0x7F
        if size == 126:
            size = int.from_bytes(self.read_exactly(2), "big")
        elif size == 127:
            size = int.from_bytes(self.read_exactly(8), "big")
        mask = self.read_exactly(4) * (size // 4 + 1)
        payload = self.read_exactly(size)
        return first & 15, (int.from_bytes(payload, "big") ^ int.from_bytes(mask[:size], "big")).to_bytes(size, "big")


class RealPeer:
    """A `Peer` on loopback, and more: raw bytes, TLS, answers of one's own. In a `with`: no thread of it lives on."""

    def __init__(self, tls: ssl.SSLContext | None = None, host: str = "localhost") -> None:
        self.answer_pings = True
        self.reading = True
        self.requests = 0
        self.on_accept: Callable[[Link], None] = lambda link: None
        self._tls = tls
        self._host = host
        self._script: deque[Answer] = deque()
        self._links: queue.Queue[Link] = queue.Queue()
        self._all: list[tuple[threading.Thread, Link]] = []
        self._current: Link | None = None
        self._rest = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._listening = threading.Thread(target=self._listen, name="peer", daemon=True)
        self._listening.start()

    def __enter__(self) -> RealPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.go_down()
        self.forget_links()
        self._join(self._listening)

    def forget_links(self) -> None:
        """End all connections, and keep nothing of them."""
        while self._all:
            thread, link = self._all.pop()
            link.shut()
            self._join(thread)
        self._links, self._current = queue.Queue(), None

    @staticmethod
    def _join(thread: threading.Thread) -> None:
        thread.join(LONG_S)
        assert not thread.is_alive(), "a thread of the peer hangs"

    @property
    def url(self) -> str:
        return f"{'wss' if self._tls else 'ws'}://{self._host}:{self.port}/feed"

    @property
    def fetch_url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self._host}:{self.port}/token"

    @property
    def link(self) -> Link:
        """The newest connection that sent a request; waits for the first."""
        with suppress(queue.Empty):
            while True:
                self._current = self._links.get(block=self._current is None, timeout=LONG_S)
        assert self._current is not None, "no connection came"
        return self._current

    # ---- the script ----

    def on_attempt(self, answer: Answer) -> None:
        """The next attempt that nothing was said about yet is answered by `answer`, in the link's own thread."""
        self._script.append(answer)

    def accept(self) -> None:
        self.on_attempt(lambda link, request: self._talk(link, upgrade_answer(request)))

    def refuse(self, status: int, retry_after: str | None = None) -> None:
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        self.answer_raw(http_answer(status, headers, b"no"))

    def stay_mute(self) -> None:
        self.on_attempt(lambda link, _request: self._talk(link, b""))

    def hang_up(self) -> None:
        self.on_attempt(lambda link, _request: link.shut())

    def answer(self, text: str) -> None:
        self.answer_raw(http_answer(200, {"Content-Type": "application/json"}, text.encode()))

    def answer_raw(self, data: bytes) -> None:
        """The next attempt is answered by these bytes, and the connection ended."""

        def send_and_end(link: Link, _request: bytes) -> None:
            link.send_raw(data)
            link.shut_sending()
            self.read(link)

        self.on_attempt(send_and_end)

    def go_down(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    # ---- on the newest connection ----

    def send_raw(self, data: bytes) -> None:
        """Any bytes."""
        self.link.send_raw(data)

    def send_text(self, text: str) -> None:
        self.send_raw(frame(TEXT, text.encode()))

    def send_binary(self, data: bytes) -> None:
        self.send_raw(frame(BINARY, data))

    def ping(self, data: bytes = b"") -> None:
        self.send_raw(frame(PING, data))

    def pong(self, data: bytes = b"") -> None:
        self.send_raw(frame(PONG, data))

    def half_frame(self, text: str) -> None:
        whole = frame(TEXT, text.encode())
        self._rest = whole[len(whole) // 2 :]
        self.send_raw(whole[: len(whole) // 2])

    def other_half(self) -> None:
        self.send_raw(self._rest)

    def close(self, code: int | None, reason: str = "") -> None:
        self.send_raw(close_frame(code, reason.encode()))

    def end(self) -> None:
        self.link.shut_sending()

    def reset(self) -> None:
        self.link.shut(hard=True)

    def take(self) -> Received:
        return self.link.received.get(timeout=LONG_S)

    # ---- threads ----

    def _listen(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            link = Link(sock)
            thread = threading.Thread(target=self._serve, args=(link,), name="peer link", daemon=True)
            self._all.append((thread, link))
            thread.start()

    def _serve(self, link: Link) -> None:
        if not self._script:
            self.accept()
        answer = self._script.popleft()
        try:
            link.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                link.start_tls(self._tls)
            self.on_accept(link)
            link.request = link.read_request()
        except (OSError, ValueError, EOFError):
            link.shut()
            return
        self.requests += 1
        # It is there for the test before the client can know that it is connected.
        self._links.put(link)
        answer(link, link.request)

    def _talk(self, link: Link, first: bytes) -> None:
        link.send_raw(first)
        if self.reading:
            self.read(link)

    def read(self, link: Link) -> None:
        """Take what the client sends until the end: the last thing an answer of one's own does."""
        # ValueError: the test has closed the socket meanwhile.
        with suppress(OSError, EOFError, ValueError):
            while True:
                opcode, payload = link.read_frame()
                if opcode == PING and self.answer_pings:
                    link.send_raw(frame(PONG, payload))
                link.received.put(Received(OPCODES[opcode], payload))
        link.received.put(Received("end"))


def drive_wire_real(body: WireBody) -> None:
    """Run a case over loopback."""
    from tradebot.feeds.websocket.client import WebSocketTransport

    runtime = RealRuntime()
    with RealPeer() as peer:
        body(WireStage(runtime, WebSocketTransport(runtime), peer, slack_s=0.5))
