"""The service manager's notification socket (Type=notify): a few datagrams, no library.

Protocol: sd_notify(3). Lines KEY=VALUE in one datagram to the socket that NOTIFY_SOCKET names, a path or, beginning
with "@", an abstract name. WATCHDOG_USEC says how often WATCHDOG=1 must come at least.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Protocol

_STATUS_CHARS_MAX: Final = 200


class Notifier(Protocol):
    """Tells a service manager how the engine is. Never raises, never blocks."""

    def ready(self) -> None:
        """The pipeline runs."""
        ...

    def status(self, line: str) -> None:
        """A line for people."""
        ...

    def alive(self) -> None:
        """Every thread makes progress: feed the watchdog."""
        ...

    def stopping(self) -> None:
        """A stop is under way."""
        ...

    def close(self) -> None:
        """Nothing more will be said. Idempotent."""
        ...


class NoManager:
    """Where no service manager listens."""

    def ready(self) -> None:
        """Does nothing: there is no service manager."""

    def status(self, line: str) -> None:
        """Does nothing: there is no service manager."""

    def alive(self) -> None:
        """Does nothing: there is no service manager."""

    def stopping(self) -> None:
        """Does nothing: there is no service manager."""

    def close(self) -> None:
        """Nothing to give back."""


class SystemdNotifier:
    """Sends to systemd's socket; what cannot be sent is dropped, as sd_notify's callers do. Main thread only."""

    def __init__(self, address: str) -> None:
        """`address`: the value of NOTIFY_SOCKET."""
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    def ready(self) -> None:
        """See Notifier."""
        self._send("READY=1")

    def status(self, line: str) -> None:
        """See Notifier. One line: what would begin another is taken out."""
        self._send("STATUS=" + " ".join(line.split())[:_STATUS_CHARS_MAX])

    def alive(self) -> None:
        """See Notifier."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """See Notifier."""
        self._send("STOPPING=1")

    def close(self) -> None:
        """See Notifier."""
        self._socket.close()

    def _send(self, text: str) -> None:
        # A manager that is restarting or busy: the next line comes in a second, and its watchdog is its own.
        with suppress(OSError):
            self._socket.sendto(text.encode("utf-8", "replace"), self._address)


def find_notifier(environ: Mapping[str, str] | None = None) -> Notifier:
    """The manager that started this process, if one did and listens."""
    address = (os.environ if environ is None else environ).get("NOTIFY_SOCKET", "")
    return SystemdNotifier(address) if address.startswith(("/", "@")) else NoManager()
