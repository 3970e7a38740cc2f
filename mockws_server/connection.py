"""One client's connection: one thread sends everything, in order, from one bounded queue.

The library (websockets.sync) performs the handshake and reads. What it sends (pongs, answers to close frames) goes
through the same queue as the ticks, so faults are applied in one place: suppressed data is not queued.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections import deque
from contextlib import suppress
from enum import Enum, auto
from typing import Any, Final, Protocol

from websockets.http11 import Request
from websockets.protocol import Event
from websockets.sync.server import ServerConnection

BACKLOG_BYTES_MAX: Final = 8 << 20
"""A client with more unread data than this is disconnected."""

ROOM_BYTES: Final = 256 << 10
"""A client with less unsent data than this has room for more (see `Hub.has_room`)."""

SLOW_S: Final = 10.0
"""A client that reads nothing for this long although data is waiting is disconnected."""

END_S: Final = 1.0
"""How long a client may take to end its side of a closed connection."""

_PIECE_BYTES: Final = 64 << 10
_POLL_MS: Final = 50
_OPCODE_MASK: Final = 0x0F
_OP_PONG: Final = 0x0A
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class ConnectionEnd(Enum):
    """How a connection ends after the queued data has been sent."""

    SHUT = auto()
    """The end of the TCP stream."""
    CLOSE_FRAME = auto()
    """A close frame is sent last; the stream ends when the client has answered it."""
    RESET = auto()
    """A TCP reset."""


class ConnectionRejected(Exception):
    """The connection is refused."""


class ConnectionOwner(Protocol):
    """The callbacks of a connection; called by the connection's own threads."""

    def drops_pings(self) -> bool:
        """Whether pings are currently left unanswered."""
        ...

    def connecting(self, connection: ClientConnection) -> None:
        """A connection begins its handshake; its `kill` may be called from now on. Raises ConnectionRejected."""
        ...

    def opened(self, connection: ClientConnection) -> None:
        """The handshake is complete, frames may be sent."""
        ...

    def closed(self, connection: ClientConnection, why: str) -> None:
        """The connection has ended; `why` is one line. Called once for every connection that was opened."""
        ...

    def gone(self, connection: ClientConnection) -> None:
        """The socket is closed, whether or not it was ever opened. Called once."""
        ...


class ClientConnection(ServerConnection):
    """A client. Methods without an underscore may be called by any thread and never block."""

    def __init__(self, sock: socket.socket, *more: Any, owner: ConnectionOwner, **options: Any) -> None:
        self._owner = owner
        self._changed = threading.Condition()
        self._queue: deque[bytes | ConnectionEnd] = deque()
        self._queued_bytes = 0
        self._ending = False
        self._streaming = False
        self._mute_until_s = 0.0
        self._over: str | None = None
        self._why = ""
        self._peer_closed = False
        # Held while the socket is written to or closed: a descriptor closed during a write could already belong to
        # another connection.
        self._io = threading.Lock()
        self.number = 0
        """The number of the client, from 1; 0 until the handshake is complete."""
        host, port = sock.getpeername()[:2]
        self.peer = f"{host}:{port}"
        self.socket = sock
        owner.connecting(self)
        super().__init__(sock, *more, **options)  # starts a thread, so it comes last

    # Called by the hub.

    def push(self, data: bytes) -> bool:
        """Queue bytes for sending; False: not queued, because the connection is mute, about to end, or too slow."""
        with self._changed:
            if self._ending or self._over or time.monotonic() < self._mute_until_s:
                return False
            if self._queue and self._queued_bytes + len(data) > BACKLOG_BYTES_MAX:
                self._cut(f"cut off: it left more than {BACKLOG_BYTES_MAX >> 20} MiB unread")
                return False
            self._queue.append(data)
            self._queued_bytes += len(data)
            self._changed.notify_all()
            return True

    def end(self, how: ConnectionEnd, why: str, frame: bytes = b"") -> None:
        """Queue the end of the connection, after `frame`. A mute connection sends no frame: its stream ends."""
        with self._changed:
            if self._ending or self._over:
                return
            self._ending = True
            self._why = why
            if how is ConnectionEnd.CLOSE_FRAME and time.monotonic() < self._mute_until_s:
                how, frame = ConnectionEnd.SHUT, b""
            if frame:
                self._queue.append(frame)
                self._queued_bytes += len(frame)
            self._queue.append(how)
            self._changed.notify_all()

    def mute(self, until_s: float) -> None:
        """Discard everything that is to be sent until then (monotonic seconds), except what is already queued."""
        with self._changed:
            self._mute_until_s = max(self._mute_until_s, until_s)

    def kill(self, why: str) -> None:
        """End the connection immediately; queued data is discarded."""
        with self._changed:
            self._cut(why)
        with self._io, suppress(OSError):  # already closed, here or by the client
            self.socket.shutdown(socket.SHUT_RDWR)

    @property
    def backlog_bytes(self) -> int:
        """The number of bytes waiting to be sent."""
        return self._queued_bytes

    # Called by the library.

    def send_data(self) -> None:
        """Queue the protocol's data; during the handshake, send it. The caller holds `protocol_mutex`."""
        if not self._streaming:
            super().send_data()
            return
        for data in self.protocol.data_to_send():
            if not data:
                with self._changed:
                    self._peer_closed = True
                    self._changed.notify_all()
                    mute = time.monotonic() < self._mute_until_s
                if not mute:
                    self.end(ConnectionEnd.SHUT, self._close_reason())
            elif data[0] & _OPCODE_MASK != _OP_PONG or not self._owner.drops_pings():
                self.push(data)

    def process_event(self, event: Event) -> None:
        """Process the handshake request; messages of clients (subscriptions) are read and ignored."""
        if isinstance(event, Request):
            super().process_event(event)

    def recv_events(self) -> None:
        """Read until the end of the stream, then wake the threads that wait for it."""
        try:
            super().recv_events()
        finally:
            with self._changed:
                self._over = self._over or self._why or self._close_reason()
                self._changed.notify_all()
            self._owner.gone(self)

    def close_socket(self) -> None:
        """Close the socket, but never during a write."""
        with self._io:
            super().close_socket()

    # The connection's own thread.

    def wait_gone(self, timeout_s: float) -> bool:
        """Wait at most `timeout_s` for the end of the connection; True if it has ended."""
        with self._changed:
            return self._changed.wait_for(lambda: self._over is not None, timeout_s)

    def serve(self) -> None:
        """Send queued data until the connection ends. Blocks; runs in the thread that the library starts per client."""
        with self.protocol_mutex:
            self._streaming = True
        self._owner.opened(self)
        try:
            while (piece := self._next()) is not None:
                if isinstance(piece, ConnectionEnd):
                    self._finish(piece)
                    break
                if not self._write(piece):
                    break
        finally:
            with self._changed:
                self._over = why = self._over or self._why
                self._queue.clear()
                self._queued_bytes = 0
            self.close_socket()
            self._owner.closed(self, why)

    def _next(self) -> bytes | ConnectionEnd | None:
        """The next piece to write, or how to end the connection; None if it has already ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._over)
            if self._over:
                return None
            first = self._queue.popleft()
            if isinstance(first, ConnectionEnd):
                return first
            parts, size = [first], len(first)
            while self._queue and isinstance(part := self._queue[0], bytes) and size + len(part) <= _PIECE_BYTES:
                self._queue.popleft()
                parts.append(part)
                size += len(part)
            return first if len(parts) == 1 else b"".join(parts)

    def _write(self, data: bytes) -> bool:
        """Write everything; False if the connection ended first."""
        view = memoryview(data)
        last_s = time.monotonic()
        while view:
            try:
                with self._io:
                    written = self.socket.send(view, socket.MSG_DONTWAIT)
            except BlockingIOError:
                if not self._wait_writable(last_s):
                    return False
                continue
            except OSError as error:
                with self._changed:
                    self._over = self._over or self._why or f"disconnected ({error.strerror or error})"
                return False
            view = view[written:]
            last_s = time.monotonic()
            with self._changed:
                self._queued_bytes -= written
        return True

    def _wait_writable(self, last_s: float) -> bool:
        """Wait a moment for room in the socket buffer; False if the connection has ended or the client is too slow."""
        with self._changed:
            if self._over:
                return False
            if time.monotonic() - last_s > SLOW_S:
                self._cut(f"cut off: it read nothing for {SLOW_S:g} s")
                return False
        poll = select.poll()
        try:
            poll.register(self.socket.fileno(), select.POLLOUT)
        except ValueError:  # closed in the meantime: the next write reports it
            return True
        poll.poll(_POLL_MS)
        return True

    def _finish(self, how: ConnectionEnd) -> None:
        """End the connection as requested. Data from the client is still read until then."""
        if how is ConnectionEnd.RESET:
            with self._changed:
                self._over = self._why
            with self._io:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            return
        with self._changed:
            if how is ConnectionEnd.CLOSE_FRAME:
                self._changed.wait_for(lambda: self._peer_closed or self._over, END_S)
            if self._over:
                return
        with self._io, suppress(OSError):  # the client closed it first
            self.socket.shutdown(socket.SHUT_WR)
        self.wait_gone(END_S)

    def _close_reason(self) -> str:
        """How the client ended the connection."""
        said = self.protocol.close_rcvd
        return "disconnected without a close frame" if said is None else f"closed by the client with {int(said.code)}"

    def _cut(self, why: str) -> None:
        """Mark the connection as ended; the caller holds `_changed`."""
        if self._over is None:
            self._over = why
        self._changed.notify_all()
