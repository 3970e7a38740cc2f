"""Opens TCP and TLS connections within one deadline, and provides them as non-blocking streams.

Nothing here blocks longer than `SLICE_S` without asking whether it should still go on. Proxy environment variables are
not used. Everything is called by one thread (ingest), but for the name lookups.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
from contextlib import suppress
from typing import Final

from tradebot.core.cancellation import Cancellation
from tradebot.core.runtime import Event, Runtime
from tradebot.feeds.websocket.http import one_line
from tradebot.feeds.websocket.transport import ConnectFailed, ConnectionLimits

SLICE_S: Final = 0.25
"""The longest wait between two polls of the cancellation."""

LOOKUPS_MAX: Final = 4
"""The most name lookups that may hang at the same time (each holds a thread that cannot be interrupted)."""

READ_BYTES: Final = 65536

Address = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]

# X.509 verification results of OpenSSL (x509_vfy.h) for which there is a clearer message than OpenSSL's own.
_NOT_YET_VALID, _EXPIRED, _SELF_SIGNED, _SELF_SIGNED_ROOT, _NO_ISSUER, _NO_LEAF_ISSUER = 9, 10, 18, 19, 20, 21
_WRONG_NAME, _WRONG_ADDRESS = 62, 64


class TimedAttempt:
    """One attempt to get an answer from a server, with its deadline and cancellation."""

    def __init__(self, runtime: Runtime, limits: ConnectionLimits, cancel: Cancellation) -> None:
        self.runtime = runtime
        self._timeout_s = limits.connect_timeout_s
        self._end = runtime.monotonic() + limits.connect_timeout_s
        self._cancel = cancel
        self.waits_for = "an answer"
        """What the attempt is about, for the message when time is over."""

    def left_s(self) -> float:
        """Seconds until the deadline. Raises ConnectFailed if it has passed or if `cancel` is requested."""
        if self._cancel.is_requested():
            raise ConnectFailed("cancelled because the run is stopping")
        left = self._end - self.runtime.monotonic()
        if left <= 0:
            raise ConnectFailed(f"no {self.waits_for} within {self._timeout_s:g} s")
        return left

    def slice_s(self) -> float:
        """How long to wait before the next check; raises like `left_s`."""
        return min(self.left_s(), SLICE_S)


class _Lookup:
    """A running getaddrinfo; its result is valid once `done` is set."""

    def __init__(self, done: Event) -> None:
        self.done = done
        self.found: list[Address] = []
        self.error: str | None = None

    def run(self, host: str, port: int) -> None:
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            self.found = [(family, address) for family, _type, _protocol, _name, address in answers]
        except socket.gaierror as error:
            self.error = error.strerror
        except (OSError, UnicodeError) as error:
            self.error = str(error)
        finally:
            self.done.set()


class Resolver:
    """Name lookups, each in a separate thread, because getaddrinfo cannot be interrupted and has no time limit.

    There is one lookup for a name at a time: one that outlives its attempt serves the next attempt.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._running: dict[tuple[str, int], _Lookup] = {}

    def addresses(self, host: str, port: int, attempt: TimedAttempt) -> list[Address]:
        """The addresses of `host`, at least one. Raises ConnectFailed."""
        attempt.waits_for = f"address for {host} (name lookup)"
        lookup = self._running.get((host, port))
        if lookup is None:
            self._running = {key: running for key, running in self._running.items() if not running.done.is_set()}
            if len(self._running) >= LOOKUPS_MAX:
                raise ConnectFailed(f"cannot look up {host}: {LOOKUPS_MAX} earlier lookups still hang")
            lookup = _Lookup(self._runtime.event())
            self._running[(host, port)] = lookup
            run = lookup.run
            self._runtime.spawn("lookup", lambda: run(host, port))
        while not lookup.done.wait(attempt.slice_s()):
            pass
        del self._running[(host, port)]
        if not lookup.found:
            raise ConnectFailed(one_line(f"cannot look up {host}: {lookup.error or 'no address'}"))
        return lookup.found


class Stream:
    """A connected socket, plain or TLS, that never blocks by itself."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        # Not select(): it cannot watch file descriptors over 1023.
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._watched = select.POLLIN
        # What reading or writing waits for: under TLS it can be the other direction.
        self._reading = select.POLLIN
        self._writing = select.POLLOUT

    def read(self) -> bytes | None:
        """Up to 64 KiB of available data; None if none is available, b"" at the end. Raises OSError. Does not block."""
        try:
            return self._sock.recv(READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            self._reading = select.POLLIN
        except ssl.SSLWantWriteError:
            self._reading = select.POLLOUT
        return None

    def write(self, data: bytes | memoryview) -> int:
        """Send what fits into the socket buffer; returns its size. Raises OSError. Does not block."""
        try:
            return self._sock.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError):
            self._writing = select.POLLOUT
        except ssl.SSLWantReadError:
            self._writing = select.POLLIN
        return 0

    def wait_readable(self, seconds: float) -> bool:
        """Block at most `seconds` until a read may succeed; False if the time has passed."""
        return self._wait(self._reading, seconds)

    def wait_writable(self, seconds: float) -> bool:
        """Like `wait_readable`, for writing."""
        return self._wait(self._writing, seconds)

    def _wait(self, events: int, seconds: float) -> bool:
        if events != self._watched:
            self._poll.modify(self._sock, events)
            self._watched = events
        return bool(self._poll.poll(max(0.0, seconds) * 1000))

    def start_tls(self, host: str, attempt: TimedAttempt) -> None:
        """Start TLS, with a certificate valid for `host`. Raises ConnectFailed; then `close` is still required."""
        attempt.waits_for = f"TLS connection to {host}"
        try:
            # A new context each time: certificate authorities change while a process lives for months.
            context = ssl.create_default_context()
            context.set_alpn_protocols(["http/1.1"])
            self._sock = tls = context.wrap_socket(self._sock, server_hostname=host, do_handshake_on_connect=False)
            while True:
                try:
                    tls.do_handshake()
                    return
                except ssl.SSLWantReadError:
                    self._wait(select.POLLIN, attempt.slice_s())
                except ssl.SSLWantWriteError:
                    self._wait(select.POLLOUT, attempt.slice_s())
        except (OSError, ValueError) as error:
            raise ConnectFailed(one_line(_tls_trouble(error, host))) from None

    def read_within(self, attempt: TimedAttempt) -> bytes:
        """The next data, b"" at the end of the connection. Blocks within `attempt`. Raises ConnectFailed."""
        try:
            while (data := self.read()) is None:
                self.wait_readable(attempt.slice_s())
        except OSError as error:
            raise ConnectFailed(one_line(f"no {attempt.waits_for}: {os_trouble(error)}")) from None
        # Also a peer that sends a byte now and then meets the deadline.
        attempt.left_s()
        return data

    def write_within(self, data: bytes, attempt: TimedAttempt) -> None:
        """Send all of `data`. Blocks within `attempt`. Raises ConnectFailed."""
        rest = memoryview(data)
        try:
            while rest := rest[self.write(rest) :]:
                self.wait_writable(attempt.slice_s())
        except OSError as error:
            raise ConnectFailed(one_line(f"no {attempt.waits_for}: {os_trouble(error)}")) from None

    def close(self, last: bytes = b"") -> None:
        """Send `last` if the socket buffer has room for it, and close. Never raises or waits; may be called again."""
        if self._sock.fileno() < 0:
            return
        with suppress(OSError, ValueError):
            if last:
                self._sock.send(last)
            # An end in good order before the close: that alone would be a reset where something is left unread, and the
            # peer might not see `last`. As a plain socket, TLS or not: there is no time for the farewell of TLS.
            socket.socket.shutdown(self._sock, socket.SHUT_WR)
        with suppress(OSError):
            self._sock.close()


def dial(resolver: Resolver, host: str, port: int, tls: bool, attempt: TimedAttempt) -> Stream:
    """Connect to `host`, trying its addresses in turn, each with its share of the time left. Raises ConnectFailed."""
    addresses = resolver.addresses(host, port, attempt)
    attempt.waits_for = f"TCP connection to {host} port {port}"
    failures: list[str] = []
    for at, address in enumerate(addresses):
        share_s = attempt.left_s() / (len(addresses) - at)
        try:
            stream = Stream(_connect(address, share_s, attempt))
        except OSError as error:
            failures.append(f"{address[1][0]!s} {os_trouble(error)}")
            continue
        try:
            if tls:
                stream.start_tls(host, attempt)
        except BaseException:
            stream.close()
            raise
        return stream
    attempt.left_s()
    raise ConnectFailed(one_line(f"cannot connect to {host} port {port}: {', '.join(failures)}"))


def _connect(address: Address, share_s: float, attempt: TimedAttempt) -> socket.socket:
    """A connected TCP socket. Raises OSError if this address fails, ConnectFailed if the attempt has ended."""
    end = attempt.runtime.monotonic() + share_s
    sock = socket.socket(address[0], socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = sock.connect_ex(address[1])
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        while code in (errno.EINPROGRESS, errno.EINTR):
            left = end - attempt.runtime.monotonic()
            if left <= 0:
                raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            if poll.poll(min(left, attempt.slice_s()) * 1000):
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


def os_trouble(error: OSError) -> str:
    """A short description of an error of the operating system or of OpenSSL."""
    return (error.strerror or str(error)).lower()


def _tls_trouble(error: OSError | ValueError, host: str) -> str:
    """A readable message for a failed TLS handshake."""
    if isinstance(error, ssl.SSLCertVerificationError):
        code, said = error.verify_code, error.verify_message
        if code in (_WRONG_NAME, _WRONG_ADDRESS):
            return f"the certificate is not one for {host}: {said}"
        if code == _EXPIRED:
            return f"the certificate of {host} has expired"
        if code == _NOT_YET_VALID:
            return f"the certificate of {host} is not yet valid (or this machine's clock is wrong)"
        if code in (_SELF_SIGNED, _SELF_SIGNED_ROOT, _NO_ISSUER, _NO_LEAF_ISSUER):
            authorities = "no authority known to this machine (to add one, set SSL_CERT_FILE to a file with it)"
            return f"the certificate of {host} was issued by {authorities}: {said}"
        return f"the certificate of {host} cannot be trusted: {said}"
    # Which of these a hang-up is depends on the version of Python: 3.11.2 says SSLZeroReturnError, 3.11.7 SSLEOFError.
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ConnectionError):
        return f"{host} ended the connection during the TLS handshake"
    if isinstance(error, ssl.SSLError):
        said = (error.reason or str(error)).replace("_", " ").lower()
        return f"the TLS handshake with {host} failed: {said}"
    return f"the TLS handshake with {host} failed: {error}"
