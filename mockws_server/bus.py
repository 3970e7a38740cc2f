"""Ticks and control messages from other programs, over ZeroMQ: JSON only; one thread owns both sockets.

A message on the tick socket is one tick, forwarded byte for byte. A message on the control socket is one action.
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
"""Longest tick message. ZeroMQ closes the connection of a sender that exceeds it."""

TICKS_WAITING_MAX: Final = 10_000
"""Tick messages queued here; when the queue is full, senders have to wait."""

CONTROLS_WAITING_MAX: Final = 1000

_BATCH: Final = 500
_POLL_MS: Final = 50
_COMPLAINTS_PER_S: Final = 1


class Addresses(NamedTuple):
    """The addresses to which the sockets are bound."""

    ticks: str
    control: str


class Bus:
    """Two PULL sockets, bound by the constructor (raises ConfigError), used and closed by the thread that calls `run`.

    `ticks` is called with batches of valid ticks, `control` with actions. `room`, which may wait a moment, says whether
    there is room for ticks; without room they wait in the sockets, then at their senders. `say` is called at most once
    a second with a line about invalid messages.
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
        """The number of invalid messages."""
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
        """Forward messages until `stop`, then close both sockets. Blocks."""
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
                data.decode()  # the decoder does not check texts of unknown fields
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
    """The parts of a message joined. Raises BadAction if they exceed the limit of a single part."""
    size = sum(map(len, parts))
    if size > bytes_max:
        raise BadAction(f"has {size} bytes in {len(parts)} parts, more than {bytes_max}")
    return b"".join(parts)


def _waiting(socket: zmq.Socket[bytes]) -> list[list[bytes]]:
    """The waiting messages, at most _BATCH, each as a list of its parts (usually one)."""
    found: list[list[bytes]] = []
    try:
        while len(found) < _BATCH:
            found.append(socket.recv_multipart(zmq.NOBLOCK))
    except zmq.Again:
        pass
    return found
