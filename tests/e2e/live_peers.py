"""Peers of an engine other than mockws: a link that can be interrupted, and servers that imitate exchanges."""

from __future__ import annotations

import itertools
import json
import logging
import select
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from tests.e2e.process import DEADLINE_S


class Link:
    """A connection to `target` that can be interrupted without an error at either end. Use it in a `with` statement.

    A client that connects during the interruption gets a TCP connection (from the kernel) but no answer.
    """

    def __init__(self, target: tuple[str, int], cut: bool = False) -> None:
        self._target = target
        self._cut = cut
        self._closed = False
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._wake, self._waker = socket.socketpair()
        self._other: dict[socket.socket, socket.socket] = {}
        self.url = f"ws://127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)

    def __enter__(self) -> Link:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._waker.send(b".")
        self._thread.join(DEADLINE_S)
        for sock in (self._listening, self._wake, self._waker, *self._other):
            sock.close()

    def cut(self) -> None:
        """Interrupt the link: from now on nothing passes, except data that is being forwarded at this moment."""
        self._cut = True
        self._waker.send(b".")

    def mend(self) -> None:
        """End the interruption: data sent during it is delivered now."""
        self._cut = False
        self._waker.send(b".")

    def _run(self) -> None:
        while not self._closed:
            watched = [self._wake] if self._cut else [self._wake, self._listening, *self._other]
            for sock in select.select(watched, [], [])[0]:
                if sock is self._wake:
                    self._wake.recv(16)
                    break  # interrupted: do not even forward what was readable at the same moment
                if sock is self._listening:
                    near, far = self._listening.accept()[0], socket.create_connection(self._target)
                    self._other |= {near: far, far: near}
                elif sock in self._other:
                    self._pass_on(sock)

    def _pass_on(self, sock: socket.socket) -> None:
        with suppress(OSError):
            data = sock.recv(65_536)
            if data:
                self._other[sock].sendall(data)
                return
        for one in (sock, self._other.pop(sock)):
            self._other.pop(one, None)
            one.close()


class Talk:
    """One client's conversation with an `ExchangeServer`. Waits at most DEADLINE_S, then fails."""

    def __init__(self, connection: ServerConnection, number: int) -> None:
        self.connection = connection
        self.number = number
        """Which connection of this server it is, from 1."""
        request = connection.request
        assert request is not None
        self.path = request.path
        self.authorization = request.headers.get("Authorization")

    def hear(self) -> Any:
        """The next message of the client, decoded if it is JSON."""
        text = self.connection.recv(DEADLINE_S)
        assert isinstance(text, str)
        try:
            return json.loads(text)
        except ValueError:
            return text

    def say(self, *messages: object) -> None:
        """Send messages: a text unchanged, anything else as JSON."""
        for message in messages:
            self.connection.send(message if isinstance(message, str) else json.dumps(message))

    def listen(self, beat: object = None) -> None:
        """Wait until the client closes the connection; meanwhile send `beat` every tenth of a second."""
        while True:
            try:
                self.connection.recv(None if beat is None else 0.1)
            except TimeoutError:
                self.say(beat)


class ExchangeServer:
    """Imitates an exchange: `talk` is called for each connection, which is closed with 1000 when it returns.

    An exception in `talk` fails the test at the end of the `with` statement, unless the client only left early.
    """

    def __init__(self, talk: Callable[[Talk], None], tls: ssl.SSLContext | None = None) -> None:
        self._talk = talk
        self._talks = itertools.count(1)
        self._failures: list[BaseException] = []
        self._server = serve(self._serve, "127.0.0.1", 0, ssl=tls, compression=None, logger=_quiet())
        self.port: int = self._server.socket.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="exchange", daemon=True)

    def __enter__(self) -> ExchangeServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(DEADLINE_S)
        print(*self._failures, sep="\n", end="")  # in addition to any other failure
        if self._failures and kind is None:
            raise self._failures[0]

    def _serve(self, connection: ServerConnection) -> None:
        try:
            self._talk(Talk(connection, next(self._talks)))
        except ConnectionClosed:
            pass
        except BaseException as error:
            self._failures.append(error)
            raise


def _quiet() -> logging.Logger:
    logger = logging.Logger("exchange")  # no handler: refused clients are expected
    logger.addHandler(logging.NullHandler())
    return logger
