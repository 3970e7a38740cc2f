"""Ticks and control messages from other programs, over ZeroMQ: JSON only, one thread that owns both sockets.

One message on the tick socket is one tick, sent on byte for byte. One on the control socket is one action.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec
import zmq

from mockws_server.actions import DATA_BYTES_MAX, Action, BadAction, decode
from tradebot.core.errors import ConfigError
from tradebot.core.events import Tick

TICK_BYTES_MAX: Final = 65_536
"""Longest tick message. ZeroMQ ends the connection of a sender who exceeds it."""

TICKS_WAITING_MAX: Final = 10_000
"""Tick messages that wait here before their senders have to."""

CONTROLS_WAITING_MAX: Final = 1000

_BATCH: Final = 500
_POLL_MS: Final = 50
_COMPLAINTS_PER_S: Final = 1


class Addresses(NamedTuple):
    """Where the sockets are bound."""

    ticks: str
    control: str


class Bus:
    """Two PULL sockets. Bound when made (raises ConfigError), used and closed by the one thread that calls `run`.

    `ticks` gets batches of good ticks, `control` gets actions, `room` (which waits a moment) says whether ticks are
    wanted: while not, they wait in the sockets and then with their senders. `say` gets a line at most once a second
    about messages that are no good.
    """

    def __init__(
        self,
        addresses: Addresses,
        ticks: Callable[[Sequence[bytes]], None],
        control: Callable[[Action], None],
        room: Callable[[float], bool],
        say: Callable[[str], None],
    ) -> None:
        self._give_ticks = ticks
        self._give_control = control
        self._room = room
        self._say = say
        self.bad = 0
        """Messages that were no tick or no action."""
        self._bad_unreported = 0
        self._last_reason = ""
        self._reported_s = -1e9
        self._decoder = msgspec.json.Decoder(Tick)
        self._context = zmq.Context()
        try:
            self._ticks = self._bind("--ticks", addresses.ticks, TICKS_WAITING_MAX, TICK_BYTES_MAX)
            self._control = self._bind("--control", addresses.control, CONTROLS_WAITING_MAX, 2 * DATA_BYTES_MAX)
        except ConfigError:
            self._context.destroy(linger=0)
            raise
        self.addresses = Addresses(
            self._ticks.getsockopt_string(zmq.LAST_ENDPOINT), self._control.getsockopt_string(zmq.LAST_ENDPOINT)
        )

    def _bind(self, option: str, address: str, waiting_max: int, bytes_max: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.PULL)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, waiting_max)
        socket.setsockopt(zmq.MAXMSGSIZE, bytes_max)
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            raise ConfigError(f"{option}: cannot bind {address}: {error.strerror}") from None
        return socket

    def run(self, stop: threading.Event) -> None:
        """Pass on what comes until `stop`; then close both sockets. Blocks."""
        poller = zmq.Poller()
        poller.register(self._control, zmq.POLLIN)
        poller.register(self._ticks, zmq.POLLIN)
        try:
            while not stop.is_set():
                events = dict(poller.poll(_POLL_MS))
                if self._control in events:
                    self._controls()
                if self._ticks in events and self._room(_POLL_MS / 1000):
                    self._pass_ticks()
                self._report()
        finally:
            self._context.destroy(linger=0)

    def _controls(self) -> None:
        for parts in _waiting(self._control):
            try:
                action = decode(_whole(parts, 2 * DATA_BYTES_MAX))
            except BadAction as error:
                self._refuse(f"control message: {error}")
            else:
                self._give_control(action)

    def _pass_ticks(self) -> None:
        good = []
        for parts in _waiting(self._ticks):
            try:
                data = _whole(parts, TICK_BYTES_MAX)
                self._decoder.decode(data)
                data.decode()  # the decoder passes over texts of unknown fields without looking
            except (ValueError, RecursionError) as error:
                self._refuse(f"tick message: {str(error).partition(chr(10))[0]}")
            else:
                good.append(data)
        if good:
            self._give_ticks(good)

    def _refuse(self, reason: str) -> None:
        self.bad += 1
        self._bad_unreported += 1
        self._last_reason = reason

    def _report(self) -> None:
        now_s = time.monotonic()
        if self._bad_unreported and now_s - self._reported_s >= 1 / _COMPLAINTS_PER_S:
            more = f" ({self._bad_unreported} such messages)" if self._bad_unreported > 1 else ""
            self._say(f"warning: skipped: {self._last_reason}{more}")
            self._bad_unreported, self._reported_s = 0, now_s


def _whole(parts: Sequence[bytes], bytes_max: int) -> bytes:
    """A message whose parts are together no longer than ZeroMQ lets one of them be. Raises BadAction."""
    size = sum(map(len, parts))
    if size > bytes_max:
        raise BadAction(f"has {size} bytes in {len(parts)} parts, more than {bytes_max}")
    return b"".join(parts)


def _waiting(socket: zmq.Socket[bytes]) -> list[list[bytes]]:
    """The messages that are there, at most _BATCH; each in its parts (mostly one)."""
    found: list[list[bytes]] = []
    try:
        while len(found) < _BATCH:
            found.append(socket.recv_multipart(zmq.NOBLOCK))
    except zmq.Again:
        pass
    return found
