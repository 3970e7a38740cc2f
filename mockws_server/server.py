"""The server: starts, supervises and stops the WebSocket server, the bus and the player."""

from __future__ import annotations

import http
import logging
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

import msgspec
from msgspec import Struct
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from mockws_server.actions import DelayHandshake, Reject
from mockws_server.bus import Addresses, Bus
from mockws_server.connection import ClientConnection, ConnectionRejected
from mockws_server.console import Console
from mockws_server.frames import Sender
from mockws_server.hub import Hub
from mockws_server.market import DEFAULT_SYMBOLS, first_seq_at
from mockws_server.player import Player
from mockws_server.recording import RecordedMessage
from mockws_server.script import Script
from tradebot.core.errors import ConfigError, ExitCode

HEALTH_PATH: Final = "/healthz"
HANDSHAKE_S: Final = 10.0
"""How long a client may take to send its request."""

CLIENT_MESSAGE_BYTES_MAX: Final = 1 << 20


_CLOSE_S: Final = 0.4
_LOOK_S: Final = 0.1
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


def stop_signals() -> tuple[signal.Signals, ...]:
    """The signals that stop the server. SIGHUP is not one if it was ignored at start (nohup)."""
    hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    return (signal.SIGINT, signal.SIGTERM, *hangup)


class Recording(Struct, frozen=True):
    """A recorded session to play: its name for people, its messages, and a multiple of real time (None: max)."""

    name: str
    messages: Iterator[RecordedMessage | None]
    speed: float | None


class ServerOptions(Struct, frozen=True):
    """The options of a server. `port` 0: any free port; `quit_at_end`: exit when everything has been played."""

    host: str
    port: int
    addresses: Addresses
    seed: int | None = None
    script: Script | None = None
    recording: Recording | None = None
    wait_clients: int = 1
    quit_at_end: bool = False
    first_seq: int | None = None


class MockServer:
    """The server. The constructor binds its ports (raises ConfigError); `run` blocks until the end."""

    def __init__(self, options: ServerOptions, console: Console) -> None:
        self._options = options
        self._console = console
        self._stop = threading.Event()
        self._failure: str | None = None
        script = options.script
        seed = options.seed if options.seed is not None else script.seed if script else 1
        first_seq = first_seq_at(time.time_ns() // 1_000_000) if options.first_seq is None else options.first_seq
        sender = (
            Sender(script.symbols, seed, first_seq, script.style)
            if script
            else Sender(DEFAULT_SYMBOLS, seed, first_seq)
        )
        self._hub = Hub(sender, console.say, self.stop)
        self._player = Player(self._hub, console.say, self._stop)
        self._listening = _listen(options.host, options.port)
        try:
            self._bus = Bus(
                options.addresses, self._hub.external, self._player.control, self._hub.has_room, console.say
            )
        except ConfigError:
            self._listening.close()
            raise
        self._server = self._serve(self._listening)

    @property
    def announcement(self) -> dict[str, str]:
        """The bound addresses: `ws`, `ticks`, `control`."""
        host, port = self._listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        return {"ws": f"ws://{shown}:{port}", **self._bus.addresses._asdict()}

    def stop(self) -> None:
        """Request the end. May be called by any thread; does not block."""
        self._stop.set()

    def run(self) -> ExitCode:
        """Serve until the end is requested, then close everything within a second. Main thread.

        The caller has blocked `stop_signals`, so that they are received only here. A second signal during the shutdown
        ends the process.
        """
        accepting = self._thread("accept", self._server.serve_forever)
        bus = self._thread("bus", lambda: self._bus.run(self._stop))
        playing = self._thread("play", self._play)
        started_s = time.monotonic()
        stopping = stop_signals()
        while not self._stop.is_set():
            if signal.sigtimedwait(stopping, _LOOK_S) is not None:
                self._stop.set()
            elif self._console.terminal:
                self._console.status(self._status(time.monotonic() - started_s))
        for number in stopping:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stopping)
        self._console.status("")
        self._hub.close_all(_CLOSE_S)
        self._server.shutdown()
        for thread in (accepting, bus, playing):
            thread.join(1.0)
        self._console.say(f"stopped: {self._counts()}")
        if self._failure is not None:
            self._console.say(f"internal error, a bug: {self._failure}")
            return ExitCode.CRASH
        return ExitCode.COMPLETE

    def _play(self) -> None:
        options, player = self._options, self._player
        if options.script is None and options.recording is None:
            self._console.say("no --scenario and no --replay: sending what arrives over ZeroMQ")
            return
        if not player.wait_clients(options.wait_clients):
            return
        if options.script is not None:
            player.play_script(options.script)
        elif options.recording is not None:
            player.play_recording(*_fields(options.recording))
        player.showing = "everything has been played"
        if not self._stop.is_set():
            self._console.say(f"everything has been played: {self._counts()}")
            if options.quit_at_end:
                self._hub.finish()
                while self._hub.clients and not self._stop.wait(_LOOK_S):
                    pass  # a client that reads gets everything, one that does not is disconnected
                self.stop()

    def _thread(self, name: str, target: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                target()
            except ConfigError as error:  # the input can no longer be read
                self._console.say(f"error: {error}")
            except Exception as error:
                self._failure = f"{type(error).__name__} in thread {name}: {error}"
                self.stop()

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread

    def _serve(self, listening: socket.socket) -> Server:
        logger = logging.getLogger("mockws_server.websockets")
        logger.propagate = False
        logger.setLevel(logging.ERROR)
        logger.handlers = [_ToConsole(self._console)]
        return serve(
            lambda connection: connection.serve() if isinstance(connection, ClientConnection) else None,
            sock=listening,
            create_connection=cast(type[ServerConnection], self._connect),  # its documentation permits a factory
            process_request=self._answer,
            compression=None,
            open_timeout=HANDSHAKE_S,
            ping_interval=None,
            close_timeout=1.0,
            max_size=CLIENT_MESSAGE_BYTES_MAX,
            logger=logger,
        )

    def _connect(self, sock: socket.socket, *more: Any, **options: Any) -> ClientConnection:
        """A connection, unless a fault refuses it. Accepts whatever arguments the library's version passes."""
        refusal = self._hub.refusal()
        if refusal is not None:
            if refusal.reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._console.say(f"refused a connection{' with a reset' if refusal.reset else ''}")
            raise ConnectionRejected  # the library closes the socket
        return ClientConnection(sock, *more, owner=self._hub, **options)

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """The response to a request: health, a fault, or None for the handshake. Blocks while it is delayed."""
        if request.path == HEALTH_PATH:
            return self._health()
        weather = self._hub.answer()
        if isinstance(weather, DelayHandshake):
            self._console.say(f"delaying a handshake by {weather.seconds:g} s")
            assert isinstance(connection, ClientConnection)
            connection.wait_gone(weather.seconds)
        elif isinstance(weather, Reject):
            self._console.say(f"rejecting a handshake with {weather.status}")
            more = {} if weather.retry_after_s is None else {"Retry-After": str(weather.retry_after_s)}
            return _response(weather.status, "text/plain", b"mockws was told to reject this\n", more)
        return None

    def _health(self) -> Response:
        hub = self._hub
        body = {
            "status": "ok",
            "clients": hub.clients,
            "connections": hub.connections,
            "ticks": hub.ticks,
            "frames_sent": hub.frames,
            "frames_dropped": hub.dropped,
            "clients_cut": hub.cut,
            "bad_messages": self._bus.bad,
            "playing": self._player.showing,
        }
        return _response(200, "application/json", msgspec.json.encode(body), {})

    def _status(self, elapsed_s: float) -> str:
        minutes, seconds = divmod(int(elapsed_s), 60)
        return f"mockws {minutes}:{seconds:02d} | {self._counts()} | {self._player.showing}"

    def _counts(self) -> str:
        hub = self._hub
        parts = [hub.recipients().removeprefix(" -> "), f"{hub.frames} frames sent"]
        for count, what in (
            (hub.dropped, "frames without a client"),
            (hub.cut, "clients cut off"),
            (self._bus.bad, "bad messages"),
        ):
            if count:
                parts.append(f"{count} {what}")
        return ", ".join(parts)


class _ToConsole(logging.Handler):
    """Writes the library's errors to the console, one line each."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        reason = f": {record.exc_info[1]!r}" if record.exc_info else ""
        self._console.say(f"error: {record.getMessage()}{reason}")


def _fields(recording: Recording) -> tuple[str, Iterator[RecordedMessage | None], float | None]:
    return recording.name, recording.messages, recording.speed


def _response(status: int, content_type: str, body: bytes, more: dict[str, str]) -> Response:
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    headers = Headers({"Connection": "close", "Content-Length": str(len(body)), "Content-Type": content_type, **more})
    return Response(status, phrase, headers, body)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigError."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        hint = "; is another mockws running? --port=0 takes any free port" if port else ""
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror or error}{hint}") from None
