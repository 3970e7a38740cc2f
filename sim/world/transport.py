"""The simulated transport: `tradebot.feeds.websocket.transport` over `sim.world.network`, for the engine's own ingest
thread.

It checks its user: using a connection from a second thread, or after it was lost or closed, is an error that ends the
history. tests/contract/test_wire.py checks the real transport for the same semantics; the product's own decoder parses
the bytes.
"""

from __future__ import annotations

import struct
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from sim.kernel.runtime import SimRuntime
from sim.world.network import (
    BINARY_MESSAGE,
    ConnectAttempt,
    HandshakeAccepted,
    HandshakeRefused,
    HandshakeRejected,
    HandshakeUnanswered,
    HttpAnswer,
    Peer,
    Pipe,
    ReceivedMessage,
    Session,
    SimNetwork,
    StreamEnd,
    ToClient,
)
from tradebot.core.cancellation import Cancellation
from tradebot.feeds.websocket.frame_decoder import FrameDecoder
from tradebot.feeds.websocket.transport import (
    CLOSE_ABNORMAL,
    CLOSE_NORMAL,
    FRAMES_MAX,
    ConnectFailed,
    ConnectionLimits,
    ConnectionLost,
    Frame,
)

_LOOK_S: Final = 0.5
"""How often `stopped` is asked while dialling."""

_PIECES: Final = (1, 3, FRAMES_MAX, FRAMES_MAX)
"""The number of arrived pieces that one `receive` reads: a real socket also delivers them together or singly."""


class MisusedConnection(AssertionError):
    """The user of a connection broke the protocol of `tradebot.feeds.websocket.transport`."""


class _Socket:
    """The client's end of one connection or request."""

    def __init__(self, network: SimNetwork) -> None:
        self.network = network
        self.inbox: deque[ToClient] = deque()
        self.arrived = network.runtime.event()
        self.from_server: Pipe[ToClient] = network.pipe(self._arrive)
        self.to_server: Pipe[ReceivedMessage] | None = None
        self.was_reset = False
        self._closed = False
        network.opened_socket()

    def _arrive(self, item: ToClient) -> None:
        self.was_reset = self.was_reset or item == StreamEnd(reset=True)
        self.inbox.append(item)
        self.arrived.set()

    def wait(self, seconds: float) -> None:
        """Block until something has arrived, at most so long. Call it with an empty inbox."""
        self.arrived.clear()
        self.arrived.wait(seconds)

    def close(self) -> None:
        """Close the socket and notify the server. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self.network.sockets -= 1
        self.from_server.cut()
        if self.to_server is not None:
            self.to_server.put(ReceivedMessage("end"))


class SimTransport:
    """`tradebot.feeds.websocket.transport.Transport` in simulation."""

    def __init__(self, runtime: SimRuntime, network: SimNetwork) -> None:
        self._runtime = runtime
        self._network = network
        self._draw = runtime.stream("pieces of a receive")

    def connect(self, url: str, limits: ConnectionLimits, cancel: Cancellation) -> SimConnection:
        """See `tradebot.feeds.websocket.transport.Transport`. Blocks through the seam. Raises ConnectFailed."""
        network = self._network
        network.dialled_at_s.append(self._runtime.elapsed_s)
        number = len(network.dialled_at_s)
        self._runtime.note("dial", number)
        socket = _Socket(network)

        def ask(_nothing: None) -> None:
            handshake = network.server.handshake(number, url)
            if isinstance(handshake, HandshakeAccepted):
                network.later(handshake.after_s, lambda: _accept(socket, number, url))
            elif isinstance(handshake, HandshakeRejected):
                network.later(handshake.after_s, lambda: socket.from_server.put(handshake))
            elif not isinstance(handshake, HandshakeUnanswered):
                socket.from_server.put(handshake)

        attempt = ConnectAttempt(number, network.dialled_at_s[-1])
        network.attempts.append(attempt)
        try:
            self._answer(socket, ask, limits, cancel)
        except ConnectFailed as error:
            attempt.ended_s, attempt.retry_after_s = self._runtime.elapsed_s, error.retry_after_s
            raise
        now_s = self._runtime.elapsed_s
        session = Session(number, [], now_s, now_s)
        network.sessions.append(session)
        return SimConnection(self._runtime, socket, session, limits, _PIECES[self._draw.getrandbits(2)])

    def fetch(self, url: str, limits: ConnectionLimits, cancel: Cancellation) -> str:
        """See `tradebot.feeds.websocket.transport.Transport`. Blocks through the seam. Raises ConnectFailed."""
        network = self._network
        network.fetches += 1
        number = network.fetches
        socket = _Socket(network)

        def ask(_nothing: None) -> None:
            answer = network.server.fetched(number, url)
            if isinstance(answer, HttpAnswer | HandshakeRejected):
                network.later(answer.after_s, lambda: socket.from_server.put(answer))
            elif not isinstance(answer, HandshakeUnanswered):
                socket.from_server.put(answer)

        answer = self._answer(socket, ask, limits, cancel)
        socket.close()
        assert isinstance(answer, HttpAnswer)
        if len(answer.text.encode()) > limits.max_message_bytes:
            raise ConnectFailed(f"the answer has more than {limits.max_message_bytes} bytes", 200)
        return answer.text

    def _answer(
        self, socket: _Socket, ask: Callable[[None], None], limits: ConnectionLimits, cancel: Cancellation
    ) -> ToClient:
        """Send the request and wait for its answer. On failure the socket is closed."""
        runtime, network = self._runtime, self._network
        deadline_s = runtime.monotonic() + limits.connect_timeout_s
        try:
            runtime.checkpoint()
            if network.unreachable:
                raise ConnectFailed("network is unreachable")
            network.pipe(ask).put(None)
            while not socket.inbox:
                if cancel.is_requested():
                    raise ConnectFailed("given up: the run is stopping")
                left_s = deadline_s - runtime.monotonic()
                if left_s <= 0:
                    raise ConnectFailed(f"no completed handshake within {limits.connect_timeout_s:g} s")
                socket.wait(min(left_s, _LOOK_S))
            answer = socket.inbox.popleft()
            if isinstance(answer, HandshakeRefused):
                raise ConnectFailed("connection refused")
            if isinstance(answer, HandshakeRejected):
                raise ConnectFailed(f"the server answered {answer.status}", answer.status, answer.retry_after_s)
            if isinstance(answer, StreamEnd):
                raise ConnectFailed("the connection ended before the handshake was complete")
        except BaseException:
            socket.close()
            raise
        return answer


def _accept(socket: _Socket, number: int, url: str) -> None:
    """The server answers 101: the connection now has two ends."""
    network = socket.network
    peer = Peer(network, number, url, socket.from_server)
    socket.to_server = network.pipe(peer.take)
    network.peers.append(peer)
    if socket.from_server.cut_off:  # the client has already closed it
        socket.to_server.put(ReceivedMessage("end"))
    socket.from_server.put(HandshakeAccepted())
    network.server.opened(peer)


class SimConnection:
    """`tradebot.feeds.websocket.transport.Connection` in simulation.

    Raises MisusedConnection if it is not used as that protocol requires.
    """

    def __init__(
        self, runtime: SimRuntime, socket: _Socket, session: Session, limits: ConnectionLimits, pieces_max: int
    ) -> None:
        assert socket.to_server is not None
        self._runtime = runtime
        self._socket = socket
        self._session = session
        self._to_server = socket.to_server
        self._decoder = FrameDecoder(limits.max_message_bytes)
        self._pieces_max = pieces_max
        self._user = threading.get_ident()
        self._is_over = False

    def receive(self, timeout_s: float) -> list[Frame]:
        """See `tradebot.feeds.websocket.transport.Connection`. Blocks through the seam."""
        self._begin("receive")
        deadline_s = self._runtime.monotonic() + timeout_s
        while True:
            frames = self._decoder.take(FRAMES_MAX)
            if frames:
                self._handed_out(frames)
                return frames
            ending = self._decoder.ending
            if ending is not None:
                self._to_server.put(ReceivedMessage("close", ending.answer))
                raise self._lost(ending.reason, ending.code)
            if not self._read_arrived():
                left_s = deadline_s - self._runtime.monotonic()
                if left_s <= 0:
                    return []
                self._socket.wait(left_s)

    def _read_arrived(self) -> bool:
        """Pass arrived data to the decoder; False without any. Raises ConnectionLost at the end of the stream."""
        inbox = self._socket.inbox
        pieces = 0
        while inbox and pieces < self._pieces_max:
            piece = inbox[0]
            if isinstance(piece, bytes):
                self._decoder.feed(piece)
                inbox.popleft()
                pieces += 1
                continue
            if pieces:
                break
            assert isinstance(piece, StreamEnd)
            raise self._lost("the connection was reset" if piece.reset else "the connection ended", CLOSE_ABNORMAL)
        return pieces > 0

    def _handed_out(self, frames: list[Frame]) -> None:
        self._session.before_last = len(self._session.texts)
        self._session.last_frame_s = self._runtime.elapsed_s
        for frame in frames:
            if frame.kind == "ping":
                self._to_server.put(ReceivedMessage("pong", frame.data))
            elif frame.kind == "text":
                self._session.texts.append(frame.text)
            elif frame.kind == "binary":
                self._session.texts.append(BINARY_MESSAGE)

    def send_text(self, text: str) -> None:
        """See `tradebot.feeds.websocket.transport.Connection`.

        The network accepts any amount immediately, even while the link is down.
        """
        self._send("send_text", ReceivedMessage("text", text.encode()))

    def ping(self) -> None:
        """See `tradebot.feeds.websocket.transport.Connection`."""
        self._send("ping", ReceivedMessage("ping"))

    def close(self, code: int = CLOSE_NORMAL) -> None:
        """See `tradebot.feeds.websocket.transport.Connection`. Never blocks."""
        if not self._is_over:
            self._to_server.put(ReceivedMessage("close", struct.pack("!H", code)))
            self._end()

    def _send(self, what: str, message: ReceivedMessage) -> None:
        self._begin(what)
        if self._socket.was_reset:
            raise self._lost("the connection was reset", CLOSE_ABNORMAL)
        self._to_server.put(message)

    def _begin(self, what: str) -> None:
        if self._is_over:
            raise MisusedConnection(f"{what} on a connection that was lost or closed")
        if threading.get_ident() != self._user:
            raise MisusedConnection(f"{what} by a second thread")
        self._runtime.checkpoint()

    def _lost(self, reason: str, code: int) -> ConnectionLost:
        self._end()
        return ConnectionLost(reason, code)

    def _end(self) -> None:
        self._is_over = True
        self._session.over_s = self._runtime.elapsed_s
        self._socket.close()
