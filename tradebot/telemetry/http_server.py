"""A small HTTP server for a few local readers: one thread, bounded in every direction.

All connections are watched at once and none is waited for, so that a client which says nothing, drips its request or
does not take its answer costs the others nothing. One deadline covers the whole request, another the whole answer; of
more than CLIENTS_MAX connections the oldest is closed, so that a newcomer is always served. After work of any kind the
thread rests REST_FACTOR times as long as that took: a flood of connections or requests cannot take more than a quarter
of a processor from the pipeline.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, NamedTuple

from tradebot.core.log_events import LogEvent
from tradebot.core.runtime import Runtime, Thread
from tradebot.output.log import Log
from tradebot.telemetry.http_request import HttpRefusal, Request, read_request

CLIENTS_MAX: Final = 32
REQUEST_S: Final = 5.0
"""From accepting a connection until its request is whole."""
ANSWER_S: Final = 5.0
"""From the first byte of an answer until the client has taken all of it."""
REST_FACTOR: Final = 3.0
REST_S_MAX: Final = 1.0

_BACKLOG: Final = 256
_ACCEPTS_A_TURN: Final = 256
_READ_BYTES: Final = 4096
_POLL_S: Final = 0.25
_CLOSE_S: Final = 1.0
_FAREWELL_S: Final = 1.0
_FAREWELL_BYTES_MAX: Final = 65_536


PLAIN_TEXT: Final = ("Content-Type", "text/plain; charset=utf-8")


class Response(NamedTuple):
    """An answer: status line without the version, headers but for length and connection, body."""

    status: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


class _Phase(Enum):
    REQUEST = auto()
    """Its request is not whole yet."""
    ANSWER = auto()
    """It is sent its answer."""
    FAREWELL = auto()
    """It has been sent all. What it still sends is read, as closing on unread data would take the answer back."""


class _Client:
    def __init__(self, sock: socket.socket, deadline_s: float) -> None:
        self.sock = sock
        self.deadline_s = deadline_s
        self.phase = _Phase.REQUEST
        self.received = bytearray()
        self.to_send = memoryview(b"")
        self.farewell_bytes = 0


class HttpServer:
    """Serves from its construction until `close`. Made and closed by the main thread.

    `answer` is called by the serving thread for each request and must not block; what it raises is logged and a 500.
    """

    def __init__(
        self,
        listener: socket.socket,
        hosts: frozenset[str],
        answer: Callable[[Request], Response],
        thread: str,
        runtime: Runtime,
        log: Log,
    ) -> None:
        """Takes over `listener` (see `listen`). `hosts`: the names in a Host header that are accepted."""
        self._listener = listener
        self._hosts = hosts
        self._answer = answer
        self._runtime = runtime
        self._log = log
        self._stop = runtime.event()
        self._poll = select.poll()  # not select(): it cannot watch file descriptors over 1023
        self._clients: dict[int, _Client] = {}  # by descriptor, the oldest first
        self._accept_from_s = 0.0
        self._thread: Thread = runtime.spawn(thread, self._serve)

    def close(self) -> None:
        """Stop serving. Blocks for at most a second; idempotent."""
        self._stop.set()
        self._thread.join(_CLOSE_S)

    def _serve(self) -> None:
        try:
            while not self._stop.is_set():
                took_s = self._turn()
                self._stop.wait(min(REST_S_MAX, REST_FACTOR * took_s))
        except Exception as error:
            self._log.error("the metrics server has failed", event=LogEvent.HTTP_SERVER_FAILED, exc_info=error)
        finally:
            self._listener.close()
            for client in self._clients.values():
                client.sock.close()

    def _turn(self) -> float:
        """Wait until there is something to do, at most _POLL_S, and do it; how many seconds the doing took."""
        now_s = self._runtime.monotonic()
        accepting = now_s >= self._accept_from_s
        if accepting:
            self._poll.register(self._listener, select.POLLIN)
        events = self._poll.poll(self._patience_s(now_s) * 1000)
        if accepting:
            self._poll.unregister(self._listener)
        began_s = now_s = self._runtime.monotonic()
        for descriptor, _event in events:
            client = self._clients.get(descriptor)
            if client is not None:
                self._attend(client, now_s)
        if accepting and any(descriptor == self._listener.fileno() for descriptor, _event in events):
            self._accept(now_s)
        for client in [client for client in self._clients.values() if client.deadline_s <= now_s]:
            self._drop(client)
        return self._runtime.monotonic() - began_s

    def _patience_s(self, now_s: float) -> float:
        due_s = min([now_s + _POLL_S, *(client.deadline_s for client in self._clients.values())])
        return max(0.0, due_s - now_s)

    def _accept(self, now_s: float) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            try:
                sock, _address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:  # no descriptor is free: the listener would stay readable, and this thread busy with it
                self._drop_oldest()
                self._accept_from_s = now_s + _POLL_S
                return
            if len(self._clients) >= CLIENTS_MAX:
                self._drop_oldest()
            sock.setblocking(False)
            client = self._clients[sock.fileno()] = _Client(sock, now_s + REQUEST_S)
            self._poll.register(sock, select.POLLIN)
            self._attend(client, now_s)  # its request is mostly there already

    def _attend(self, client: _Client, now_s: float) -> None:
        try:
            if client.phase is _Phase.ANSWER:
                self._send(client, now_s)
            else:
                self._receive(client)
        except BlockingIOError:
            pass
        except OSError:  # it is gone
            self._drop(client)

    def _receive(self, client: _Client) -> None:
        data = client.sock.recv(_READ_BYTES)
        if client.phase is _Phase.FAREWELL:
            client.farewell_bytes += len(data)
            if not data or client.farewell_bytes > _FAREWELL_BYTES_MAX:
                self._drop(client)
            return
        if not data:
            self._drop(client)
            return
        client.received += data
        found = read_request(bytes(client.received), self._hosts)
        if isinstance(found, HttpRefusal):
            body = f"{found.text}\n".encode("ascii")
            self._begin_answer(client, Response(found.status, (PLAIN_TEXT, *found.headers), body), head=False)
        elif found is not None:
            self._begin_answer(client, self._response(found), found.method == "HEAD")

    def _response(self, request: Request) -> Response:
        try:
            return self._answer(request)
        except Exception as error:  # whatever it is, the next request is answered again
            self._log.error("request failed", event=LogEvent.REQUEST_FAILED, path=request.path, exc_info=error)
            return Response("500 Internal Server Error", (PLAIN_TEXT,), b"see the log\n")

    def _begin_answer(self, client: _Client, response: Response, head: bool) -> None:
        lines = [f"HTTP/1.1 {response.status}", *(f"{name}: {value}" for name, value in response.headers)]
        lines += [f"Content-Length: {len(response.body)}", "Cache-Control: no-store", "Connection: close", "", ""]
        client.to_send = memoryview("\r\n".join(lines).encode("latin-1") + (b"" if head else response.body))
        client.phase, now_s = _Phase.ANSWER, self._runtime.monotonic()
        client.deadline_s = now_s + ANSWER_S
        self._poll.modify(client.sock, select.POLLOUT)
        self._attend(client, now_s)

    def _send(self, client: _Client, now_s: float) -> None:
        client.to_send = client.to_send[client.sock.send(client.to_send) :]
        if not client.to_send:
            client.phase, client.deadline_s = _Phase.FAREWELL, now_s + _FAREWELL_S
            self._poll.modify(client.sock, select.POLLIN)
            client.sock.shutdown(socket.SHUT_WR)

    def _drop_oldest(self) -> None:
        oldest = next(iter(self._clients.values()), None)
        if oldest is not None:
            self._drop(oldest)

    def _drop(self, client: _Client) -> None:
        if self._clients.pop(client.sock.fileno(), None) is not None:
            self._poll.unregister(client.sock)
            client.sock.close()


def listen(address: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError. Blocks only where `address` is a name that must be looked up."""
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
