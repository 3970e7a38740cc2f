"""Performs actions on all clients: the one place where ticks and weather meet connections."""

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
"""More at a time, those with an unfinished handshake included, are refused."""

NO_CODE: Final = 1005
NO_FRAME: Final = 1006
GOING_AWAY: Final = 1001

_OP_CLOSE: Final = 8
_FIN: Final = 0x80


def frame_bytes(message: OutgoingFrame) -> bytes:
    """A message as an unmasked frame, as servers send them; also frames that the library would refuse to make."""
    size = len(message.data)
    head = message.opcode | (_FIN if message.fin else 0)
    if size < 126:
        return struct.pack("!BB", head, size) + message.data
    if size < 65_536:
        return struct.pack("!BBH", head, 126, size) + message.data
    return struct.pack("!BBQ", head, 127, size) + message.data


def close_frame(code: int, reason: str) -> bytes:
    """A close frame, whatever the code; 1005 is one without."""
    payload = b"" if code == NO_CODE else struct.pack("!H", code) + reason.encode()
    return frame_bytes(OutgoingFrame(payload, _OP_CLOSE))


class Hub:
    """All clients, and what is done to them. Any thread may call it; nothing here waits for a client.

    `say` gets a line for people for each event; `quit` is called when an action asks for the end. The lock is held
    while an action is performed, so that all clients see all actions in one order.
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
        """Clients that were cut off because they read too slowly."""
        self.frames = 0
        """Frames that somebody gets, each counted once."""
        self.dropped = 0
        """Frames that nobody gets: nobody was connected, or all were mute."""

    # What the sources of ticks and weather call.

    def perform(self, action: Action, note: str = "") -> None:
        """Do it, to all that are connected now, then say the `note`: who has read it finds it done."""
        with self._lock:
            messages = self._sender.messages(action, time.time_ns() // 1_000_000)
            if messages:
                self._send(messages)
            else:
                self._perform_fault(action, time.monotonic())
            if note:
                self._say(f"{note}{self.recipients()}")

    def clear_handshake_faults(self) -> None:
        """Forget weather for handshakes that nobody has met."""
        with self._lock:
            self._handshake_policy.clear()

    def external(self, ticks: Sequence[bytes]) -> None:
        """Send ticks (or other texts) that were made elsewhere."""
        with self._lock:
            self._send(self._sender.external(ticks))

    def has_room(self, timeout_s: float) -> bool:
        """Whether there is no client, or one that is not behind; else wait for it, at most `timeout_s`.

        Sources that could go on for ever ask this first: they run as fast as the fastest client reads, and a slower one
        never holds them up.
        """
        until_s = time.monotonic() + timeout_s
        while not self._room():
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return False
            time.sleep(min(left_s, 0.005))  # a client that reads is faster through 256 KiB than it could tell us
        return True

    def wait_clients(self, count: int, timeout_s: float) -> bool:
        """Wait until so many are connected at the same time, at most `timeout_s`; whether they are."""
        with self._lock:
            return self._lock.wait_for(lambda: len(self._clients) >= count, timeout_s)

    @property
    def clients(self) -> int:
        """How many are connected now."""
        return len(self._clients)

    @property
    def connections(self) -> int:
        """How many sockets are open, those with an unfinished handshake included."""
        return len(self._connections)

    def recipients(self) -> str:
        """ " -> 2 clients", for messages."""
        return f" -> {self.clients} client{'' if self.clients == 1 else 's'}"

    @property
    def ticks(self) -> int:
        """Ticks given out so far, repeated ones too, whether or not anybody was there."""
        return self._sender.ticks

    # The end.

    def close_all(self, timeout_s: float, code: int = GOING_AWAY) -> None:
        """Take nobody in any more, close all with `code`, and end what is left after `timeout_s`. Blocks as long."""
        with self._lock:
            self._stopping = True
            self._end(ConnectionEnd.CLOSE_FRAME, f"closed by mockws with {code}", close_frame(code, "mockws ends"))
            self._lock.wait_for(lambda: not self._clients, timeout_s)
            left = list(self._connections)
        for connection in left:
            connection.kill("was still connected when mockws ended")

    def finish(self) -> None:
        """Take nobody in any more, and close all with 1000 once they have what is meant for them. Does not block."""
        with self._lock:
            self._stopping = True
            end = close_frame(1000, "everything has been played")
            self._end(ConnectionEnd.CLOSE_FRAME, "closed by mockws with 1000", end)

    # What the server calls when somebody connects.

    def refusal(self) -> Refuse | None:
        """What meets a TCP connection that was just accepted: None when it may stay."""
        with self._lock:
            if self._stopping or len(self._connections) >= CONNECTIONS_MAX:
                return Refuse(count=1)
            return self._handshake_policy.on_accept(time.monotonic())

    def connecting(self, connection: ClientConnection) -> None:
        """A connection begins its handshake. Raises Refused when it is too late for that."""
        with self._lock:
            if self._stopping:
                raise ConnectionRejected
            self._connections.add(connection)

    def answer(self) -> DelayHandshake | Reject | None:
        """What meets a handshake that asks for a WebSocket."""
        with self._lock:
            return self._handshake_policy.on_request()

    # What connections call (`connection.ConnectionOwner`).

    def drops_pings(self) -> bool:
        """Whether pings are left unanswered now."""
        return time.monotonic() < self._no_pongs_until_s

    def opened(self, connection: ClientConnection) -> None:
        """The handshake is complete: from now on it gets what all get."""
        with self._lock:
            self._numbered += 1
            connection.number = self._numbered
            self._clients.append(connection)
            self._say(f"client {connection.number} connected from {connection.peer}{self.recipients()}")
            self._lock.notify_all()

    def closed(self, connection: ClientConnection, why: str) -> None:
        """It is over."""
        with self._lock:
            self._clients.remove(connection)
            self.cut += why.startswith("cut off")
            self._say(f"client {connection.number} {why}{self.recipients()}")
            self._lock.notify_all()

    def gone(self, connection: ClientConnection) -> None:
        """Its socket is closed."""
        with self._lock:
            self._connections.discard(connection)

    # Inside.

    def _room(self) -> bool:
        clients = self._clients
        return not clients or any(client.backlog_bytes < ROOM_BYTES for client in list(clients))

    def _send(self, messages: Sequence[OutgoingFrame]) -> None:
        """To all clients, in one piece. The caller holds the lock."""
        if messages and self._push(b"".join(map(frame_bytes, messages))):
            self.frames += len(messages)
        else:
            self.dropped += len(messages)

    def _push(self, data: bytes) -> bool:
        """Queue it for all clients; whether anybody gets it."""
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
                pass  # waiting is the player's; skip and reorder are the sender's

    def _mute(self, until_s: float) -> None:
        for client in self._clients:
            client.mute(until_s)

    def _end(self, how: ConnectionEnd, why: str, frame: bytes = b"") -> None:
        for client in self._clients:
            client.end(how, why, frame)
