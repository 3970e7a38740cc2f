"""A simulated network: one server, clients that connect to it, and links with latency, silence and outages.

Everything here runs in callbacks of the world (`SimRuntime.call_at`) or atomically inside a client's call; nothing
blocks. The clients' side is `sim/world/transport.py`; servers (`sim/world/exchange.py`, the contract suite's peer)
implement `Server`.

Data arrives at the other end of a connection in order and after a latency, as with TCP. While the link is down it waits
and arrives when the link is up again, unless the connection has ended. The client gets bytes in pieces of any size,
which the product's own decoder reads; the server gets whole messages.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, Literal, Protocol, TypeVar

from msgspec import Struct

from sim.kernel.runtime import SimRuntime
from tradebot.feeds.websocket.transport import CLOSE_NORMAL

T = TypeVar("T")

LATENCY_S: Final = 0.02
_SPLIT_CHANCE: Final = 0.1

CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10


class HandshakeAccepted(Struct, frozen=True):
    """The handshake succeeds, `after_s` after the request came in."""

    after_s: float = 0.0


class HandshakeRefused(Struct, frozen=True):
    """Connection refused."""


class HandshakeRejected(Struct, frozen=True):
    """An HTTP answer other than 101, `after_s` after the request; `retry_after_s` is what its Retry-After asks for."""

    status: int
    retry_after_s: float | None = None
    after_s: float = 0.0


class HandshakeUnanswered(Struct, frozen=True):
    """The request is accepted and never answered."""


class HttpAnswer(Struct, frozen=True):
    """The text of a 200 answer: only for `Server.fetched`."""

    text: str
    after_s: float = 0.0


class StreamEnd(Struct, frozen=True):
    """The end of the byte stream: orderly (FIN), or a reset."""

    reset: bool = False


Handshake = HandshakeAccepted | HandshakeRefused | HandshakeRejected | HandshakeUnanswered | StreamEnd
"""What a server does with a request; End: it ends the connection without an answer."""

FetchOutcome = HttpAnswer | HandshakeRefused | HandshakeRejected | HandshakeUnanswered | StreamEnd
"""How a server answers an HTTP request."""

ToClient = bytes | StreamEnd | HandshakeAccepted | HandshakeRefused | HandshakeRejected | HttpAnswer


class ReceivedMessage(Struct, frozen=True):
    """A message, a control frame or the end of the stream, received from a client."""

    kind: Literal["text", "ping", "pong", "close", "end"]
    data: bytes = b""

    @property
    def code(self) -> int | None:
        """The code of a close frame, None when it carries none."""
        return int.from_bytes(self.data[:2], "big") if self.data else None


class Server(Protocol):
    """The server. The world makes all calls; none of them may block."""

    def handshake(self, number: int, url: str) -> Handshake:
        """A WebSocket request has arrived; `number` counts attempts from 1."""
        ...

    def opened(self, peer: Peer) -> None:
        """The handshake was just answered with 101; later data follows it."""
        ...

    def received(self, peer: Peer, message: ReceivedMessage) -> None:
        """A message of the client has arrived, including "close" and "end"."""
        ...

    def fetched(self, number: int, url: str) -> FetchOutcome:
        """A client sends an HTTP POST."""
        ...


BINARY_MESSAGE: Final = "\0 a binary message"
"""Placeholder for a binary message in a session; it cannot be parsed."""


class Session(Struct):
    """One connection from the client's view: the peer's number, and the messages returned by `receive`.

    `before_last`: the number of messages returned before the last call that returned any. Times are simulated seconds:
    of the completed handshake, of the last returned frame of any kind, of the end.
    """

    peer: int
    texts: list[str]
    began_s: float
    last_frame_s: float
    over_s: float | None = None
    before_last: int = 0


class ConnectAttempt(Struct):
    """One connection attempt, with times in simulated seconds. `ended_s` and `retry_after_s` are set if it failed."""

    number: int
    began_s: float
    ended_s: float | None = None
    retry_after_s: float | None = None


class SimNetwork:
    """The network of one simulated process: it lives as long as its runtime.

    The latency of each message is between `latency_s` and twice as much, drawn from the seed. Messages are never
    reordered; some arrive in two pieces.
    """

    def __init__(self, runtime: SimRuntime, server: Server, latency_s: float = LATENCY_S) -> None:
        self.runtime = runtime
        self.server = server
        self.up = True
        self.unreachable = False
        self.dialled_at_s: list[float] = []
        """Start of each connection attempt."""
        self.attempts: list[ConnectAttempt] = []
        self.fetches = 0
        self.peers: list[Peer] = []
        """Every connection that the server accepted, in order."""
        self.sessions: list[Session] = []
        """Every connection that was completed at the client, in order."""
        self.sockets = 0
        """Open sockets of the client, connecting or connected."""
        self.sockets_max = 0
        self._latency_s = latency_s
        self._random = runtime.stream("network").random
        self._pipes: list[_Direction] = []

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Schedule `call` in `delay_s` simulated seconds."""
        self.runtime.call_at(self.runtime.elapsed_s + delay_s, call)

    def slow_down(self, latency_s: float = LATENCY_S) -> None:
        """Set the latency of later messages to between `latency_s` and twice as much."""
        self._latency_s = latency_s

    def link_down(self, unreachable: bool = False) -> None:
        """Take the link down in both directions; with `unreachable`, connecting fails at once."""
        self.runtime.note("link", "down")
        self.up = False
        self.unreachable = unreachable

    def link_up(self) -> None:
        """Bring the link up and deliver waiting data."""
        self.runtime.note("link", "up")
        self.up = True
        self.unreachable = False
        self._pipes = [pipe for pipe in self._pipes if not pipe.cut_off]
        for pipe in self._pipes:
            pipe.go_on()

    def pipe(self, deliver: Callable[[T], None]) -> Pipe[T]:
        """A new direction that ends in `deliver`."""
        pipe = Pipe(self, deliver)
        self._pipes.append(pipe)
        return pipe

    def draw_latency_s(self) -> float:
        """How long the next message takes."""
        return self._latency_s * (1.0 + self._random())

    def draw_split(self, size: int) -> int:
        """The position at which `size` bytes are split on their way; 0: not split."""
        return int(self._random() * size) if self._random() < _SPLIT_CHANCE else 0

    def opened_socket(self) -> None:
        """Count one more open socket of the client."""
        self.sockets += 1
        self.sockets_max = max(self.sockets_max, self.sockets)


class _Direction(Protocol):
    @property
    def cut_off(self) -> bool: ...

    def go_on(self) -> None: ...


class Pipe(Generic[T]):
    """One direction of one connection."""

    def __init__(self, network: SimNetwork, deliver: Callable[[T], None]) -> None:
        self._network = network
        self._deliver = deliver
        self._waiting: deque[tuple[float, T]] = deque()
        self._last_due_s = 0.0
        self._timer_set = False
        self._cut_off = False

    @property
    def cut_off(self) -> bool:
        """Whether delivery has ended."""
        return self._cut_off

    def put(self, item: T) -> None:
        """Send `item`: it arrives after the latency, behind all earlier items."""
        if self._cut_off:
            return
        network = self._network
        self._last_due_s = max(self._last_due_s, network.runtime.elapsed_s + network.draw_latency_s())
        self._waiting.append((self._last_due_s, item))
        self.go_on()

    def lose(self) -> None:
        """Drop everything in flight."""
        self._waiting.clear()

    def cut(self) -> None:
        """End delivery and drop everything in flight."""
        self._cut_off = True
        self._waiting.clear()

    def go_on(self) -> None:
        """Set the timer for the next item, if there is one and the link is up."""
        if not self._waiting or self._timer_set or not self._network.up:
            return
        self._timer_set = True
        runtime = self._network.runtime
        due_s = self._waiting[0][0]
        if due_s < runtime.elapsed_s:  # the link was down: it is on its way only now
            due_s = runtime.elapsed_s + self._network.draw_latency_s()
        runtime.call_at(due_s, lambda: self._fire(due_s))

    def _fire(self, now_s: float) -> None:
        self._timer_set = False
        while self._waiting and self._network.up and self._waiting[0][0] <= now_s:
            self._deliver(self._waiting.popleft()[1])
        self.go_on()


def frame(opcode: int, payload: bytes = b"", fin: bool = True) -> bytes:
    """A server's WebSocket frame."""
    head = bytes([(0x80 if fin else 0) | opcode])
    size = len(payload)
    if size < 126:
        return head + bytes([size]) + payload
    if size < 1 << 16:
        return head + b"\x7e" + struct.pack("!H", size) + payload
    return head + b"\x7f" + struct.pack("!Q", size) + payload


class Peer:
    """The server's end of one connection. Used by the world (or, in contract tests, between two calls of the client).

    Pings are answered unless `answers_pings` is False; a close frame is answered always. `mute` suppresses everything
    the server would send, answers included: the connection stays open and silent. `deaf` is for the server's own use.
    """

    def __init__(self, network: SimNetwork, number: int, url: str, to_client: Pipe[ToClient]) -> None:
        self._network = network
        self._to_client = to_client
        self.number = number
        self.url = url
        self.received: list[ReceivedMessage] = []
        self.answers_pings = True
        self.mute = False
        self.deaf = False
        self._ended = False
        self._rest: bytes | None = None

    @property
    def open(self) -> bool:
        """True until either end has closed the connection."""
        return not self._ended

    def send_bytes(self, data: bytes) -> bool:
        """Send raw bytes; False if they were suppressed (muted, closed, or inside a frame)."""
        if self._ended or self.mute or self._rest is not None:
            return False
        cut = self._network.draw_split(len(data))
        if cut:
            self._to_client.put(data[:cut])
        self._to_client.put(data[cut:])
        return True

    def send_text(self, text: str) -> bool:
        """Send a text message; False if it was suppressed."""
        return self.send_bytes(frame(TEXT, text.encode()))

    def send_half(self, text: str) -> None:
        """The first half of a text message's bytes. Nothing else goes out before `send_rest`."""
        whole = frame(TEXT, text.encode())
        if self.send_bytes(whole[: len(whole) // 2]):
            self._rest = whole[len(whole) // 2 :]

    def send_rest(self) -> None:
        """The second half of what `send_half` began."""
        rest, self._rest = self._rest, None
        if rest is not None:
            self.send_bytes(rest)

    def close(self, code: int | None = CLOSE_NORMAL, reason: str = "") -> None:
        """A close frame, without a code when that is None; the client ends the connection on it."""
        self.send_bytes(frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason.encode()))
        self._ended = True

    def end(self) -> None:
        """The stream ends without a close frame, as when a server's process ends."""
        if not self._ended:
            self._to_client.put(StreamEnd())
        self._ended = True

    def reset(self, lose_in_flight: bool = False) -> None:
        """TCP reset; `lose_in_flight`: what is still on its way is lost with it."""
        if self._ended:
            return
        if lose_in_flight:
            self._to_client.lose()
        self._to_client.put(StreamEnd(reset=True))
        self._ended = True

    def take(self, message: ReceivedMessage) -> None:
        """A message has arrived from the client. Called by the pipe."""
        self.received.append(message)
        if message.kind == "ping" and self.answers_pings:
            self.send_bytes(frame(PONG, message.data))
        elif message.kind == "close":
            self.send_bytes(frame(CLOSE, message.data[:2]))
        if message.kind in ("close", "end"):
            self._ended = True
        self._network.server.received(self, message)
