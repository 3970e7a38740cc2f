"""Performs actions on all clients: the one place where ticks and faults are applied to connections."""

from __future__ import annotations

import math
import struct
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from mockws_server.actions import (
    Action,
    DelayHandshake,
    Disconnect,
    DropPings,
    HalfFrame,
    Quit,
    Raw,
    Refuse,
    Reject,
    Reset,
    Stall,
)
from mockws_server.connection import ROOM_BYTES, ClientConnection, ConnectionEnd, ConnectionRejected
from mockws_server.frames import OutgoingFrame, Sender
from mockws_server.handshake_policy import HandshakePolicy

CONNECTIONS_MAX: Final = 100
"""Further connections are refused; unfinished handshakes count."""

NO_CODE: Final = 1005
NO_FRAME: Final = 1006
GOING_AWAY: Final = 1001

_OP_CLOSE: Final = 8
_FIN: Final = 0x80


def frame_bytes(message: OutgoingFrame) -> bytes:
    """A message as an unmasked frame, as servers send it; also frames that the library would reject."""
    size = len(message.data)
    head = message.opcode | (_FIN if message.fin else 0)
    if size < 126:
        return struct.pack("!BB", head, size) + message.data
    if size < 65_536:
        return struct.pack("!BBH", head, 126, size) + message.data
    return struct.pack("!BBQ", head, 127, size) + message.data


def close_frame(code: int, reason: str) -> bytes:
    """A close frame with any code; 1005 is a close frame without a code."""
    payload = b"" if code == NO_CODE else struct.pack("!H", code) + reason.encode()
    return frame_bytes(OutgoingFrame(payload, _OP_CLOSE))


class Hub:
    """All clients. May be called by any thread; only `has_room` and `close_all` wait for clients.

    `say` is called with a line for people for each event, `quit` when an action requests the end. The lock is held
    while an action is performed, so that all clients see all actions in the same order.
    """

    def __init__(self, sender: Sender, say: Callable[[str], None], quit_: Callable[[], None]) -> None:
        self._sender = sender
        self._say = say
        self._quit = quit_
        self._handshake_policy = HandshakePolicy()
        self._lock = threading.Condition(threading.RLock())
        self._clients: list[ClientConnection] = []
        self._connections: set[ClientConnection] = set()
        self._numbered = 0
        self._no_pongs_until_s = 0.0
        self._stopping = False
        self.cut = 0
        """The number of clients disconnected because they read too slowly."""
        self.frames = 0
        """The number of frames queued for at least one client; each counts once."""
        self.dropped = 0
        """The number of frames queued for no client: none was connected, or all were mute."""

    # Called by the sources of ticks and actions.

    def perform(self, action: Action, note: str = "") -> None:
        """Perform an action on all connected clients, then write the `note`."""
        with self._lock:
            messages = self._sender.messages(action, time.time_ns() // 1_000_000)
            if messages:
                self._send(messages)
            else:
                self._perform_fault(action, time.monotonic())
            if note:
                self._say(f"{note}{self.recipients()}")

    def clear_handshake_faults(self) -> None:
        """Remove all pending handshake faults."""
        with self._lock:
            self._handshake_policy.clear()

    def external(self, ticks: Sequence[bytes]) -> None:
        """Send ticks (or other texts) from another source."""
        with self._lock:
            self._send(self._sender.external(ticks))

    def has_room(self, timeout_s: float) -> bool:
        """Wait at most `timeout_s` until no client is connected or one of them has caught up; whether that is so.

        Unlimited sources call this before they send: they run as fast as the fastest client reads, and a slower client
        never delays them.
        """
        until_s = time.monotonic() + timeout_s
        while not self._room():
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return False
            time.sleep(min(left_s, 0.005))  # polled: a client reads 256 KiB faster than a notification would take
        return True

    def wait_clients(self, count: int, timeout_s: float) -> bool:
        """Wait at most `timeout_s` until `count` clients are connected at the same time; whether they are."""
        with self._lock:
            return self._lock.wait_for(lambda: len(self._clients) >= count, timeout_s)

    @property
    def clients(self) -> int:
        """The number of connected clients."""
        return len(self._clients)

    @property
    def connections(self) -> int:
        """The number of open sockets, including those with an unfinished handshake."""
        return len(self._connections)

    def recipients(self) -> str:
        """ " -> 2 clients", for messages."""
        return f" -> {self.clients} client{'' if self.clients == 1 else 's'}"

    @property
    def ticks(self) -> int:
        """The number of ticks made so far, including repeated ones, whether or not a client was connected."""
        return self._sender.ticks

    # Shutdown.

    def close_all(self, timeout_s: float, code: int = GOING_AWAY) -> None:
        """Refuse new connections, close all with `code`, and kill those left after `timeout_s`. Blocks until then."""
        with self._lock:
            self._stopping = True
            self._end(ConnectionEnd.CLOSE_FRAME, f"closed by mockws with {code}", close_frame(code, "mockws ends"))
            self._lock.wait_for(lambda: not self._clients, timeout_s)
            left = list(self._connections)
        for connection in left:
            connection.kill("was still connected when mockws ended")

    def finish(self) -> None:
        """Refuse new connections, and close all with 1000 after their queued data. Does not block."""
        with self._lock:
            self._stopping = True
            end = close_frame(1000, "everything has been played")
            self._end(ConnectionEnd.CLOSE_FRAME, "closed by mockws with 1000", end)

    # Called by the server when a client connects.

    def refusal(self) -> Refuse | None:
        """The refusal of a TCP connection that was just accepted; None: it may stay."""
        with self._lock:
            if self._stopping or len(self._connections) >= CONNECTIONS_MAX:
                return Refuse(count=1)
            return self._handshake_policy.on_accept(time.monotonic())

    def connecting(self, connection: ClientConnection) -> None:
        """A connection begins its handshake. Raises ConnectionRejected during a shutdown."""
        with self._lock:
            if self._stopping:
                raise ConnectionRejected
            self._connections.add(connection)

    def answer(self) -> DelayHandshake | Reject | None:
        """The fault for a WebSocket handshake; None: it succeeds."""
        with self._lock:
            return self._handshake_policy.on_request()

    # Called by connections (`connection.ConnectionOwner`).

    def drops_pings(self) -> bool:
        """Whether pings are currently left unanswered."""
        return time.monotonic() < self._no_pongs_until_s

    def opened(self, connection: ClientConnection) -> None:
        """The handshake is complete: from now on the connection gets all ticks and actions."""
        with self._lock:
            self._numbered += 1
            connection.number = self._numbered
            self._clients.append(connection)
            self._say(f"client {connection.number} connected from {connection.peer}{self.recipients()}")
            self._lock.notify_all()

    def closed(self, connection: ClientConnection, why: str) -> None:
        """The connection has ended."""
        with self._lock:
            self._clients.remove(connection)
            self.cut += why.startswith("cut off")
            self._say(f"client {connection.number} {why}{self.recipients()}")
            self._lock.notify_all()

    def gone(self, connection: ClientConnection) -> None:
        """The connection's socket is closed."""
        with self._lock:
            self._connections.discard(connection)

    # Internal.

    def _room(self) -> bool:
        clients = self._clients
        return not clients or any(client.backlog_bytes < ROOM_BYTES for client in list(clients))

    def _send(self, messages: Sequence[OutgoingFrame]) -> None:
        """Send frames to all clients in one piece. The caller holds the lock."""
        if messages and self._push(b"".join(map(frame_bytes, messages))):
            self.frames += len(messages)
        else:
            self.dropped += len(messages)

    def _push(self, data: bytes) -> bool:
        """Queue bytes for all clients; whether at least one accepted them."""
        return any([client.push(data) for client in self._clients])

    def _perform_fault(self, action: Action, now_s: float) -> None:
        match action:
            case Raw():
                self._push(action.data)
            case HalfFrame():
                frame = frame_bytes(self._sender.half(time.time_ns() // 1_000_000))
                self._push(frame[: len(frame) // 2])
                self._mute(math.inf)
            case Stall():
                self._mute(now_s + action.seconds)
            case Disconnect(code=code) if code == NO_FRAME:
                self._end(ConnectionEnd.SHUT, "closed by mockws without a close frame")
            case Disconnect(code=code, reason=reason):
                self._end(ConnectionEnd.CLOSE_FRAME, f"closed by mockws with {code}", close_frame(code, reason))
            case Reset():
                self._end(ConnectionEnd.RESET, "reset by mockws")
            case Refuse() | DelayHandshake() | Reject():
                if not self._handshake_policy.add(action, now_s):
                    self._say("warning: ignored, too many faults are already waiting for a handshake")
            case DropPings():
                self._no_pongs_until_s = max(self._no_pongs_until_s, now_s + action.seconds)
            case Quit():
                self._quit()
            case _:
                pass  # the player waits; the sender skips and reorders

    def _mute(self, until_s: float) -> None:
        for client in self._clients:
            client.mute(until_s)

    def _end(self, how: ConnectionEnd, why: str, frame: bytes = b"") -> None:
        for client in self._clients:
            client.end(how, why, frame)
