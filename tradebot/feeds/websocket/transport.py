"""The seam between the WebSocket feed and the network: a transport that connects, a connection that receives.

`feeds/websocket/client.py` is the real one (websocket-client), `sim/world/transport.py` the simulated one; one contract
suite (tests/contract/test_wire.py) holds both to the semantics written here.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol

from msgspec import Struct

from tradebot.core.cancellation import Cancellation

CLOSE_NORMAL: Final = 1000
CLOSE_GOING_AWAY: Final = 1001
CLOSE_PROTOCOL_ERROR: Final = 1002
CLOSE_ABNORMAL: Final = 1006
"""Never sent: what one reports when a connection ended without a close frame."""
CLOSE_BAD_PAYLOAD: Final = 1007
CLOSE_POLICY: Final = 1008
CLOSE_TOO_BIG: Final = 1009

FrameKind = Literal["text", "binary", "ping", "pong"]


class Frame(Struct, frozen=True, gc=False):
    """One received message or control frame. `text` is the content of a text message, `data` that of the others."""

    kind: FrameKind
    text: str = ""
    data: bytes = b""


class ConnectionLimits(Struct, frozen=True):
    """Bounds of a connection: seconds for TCP, TLS and handshake together, and bytes of one message."""

    connect_timeout_s: float
    max_message_bytes: int


class ConnectFailed(Exception):
    """No handshake was completed. The message gives the reason on one line, without credentials.

    `status` is the HTTP status where the server answered one; `retry_after_s` what its Retry-After asked for.
    """

    def __init__(self, reason: str, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after_s = retry_after_s


class ConnectionLost(Exception):
    """The connection has ended; the message gives the reason on one line.

    `code` is the close code: the peer's (1005 for a close frame without one), ours when the peer broke the protocol
    or a bound (1002, 1007, 1008, 1009), CLOSE_ABNORMAL when the connection ended without any.
    """

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code


class Connection(Protocol):
    """An open WebSocket. One thread uses it (ingest); it is never used after `ConnectionLost` or `close`."""

    def receive(self, timeout_s: float) -> list[Frame]:
        """The frames that have arrived, in order, at most FRAMES_MAX; blocks at most `timeout_s` until there is one.

        An empty list: nothing whole came. A part of a frame is kept for the next call. Pings are answered before they
        are handed out; a close frame is answered too. Raises ConnectionLost, after the frames before it were handed
        out by earlier calls; by then the socket is closed, and the peer was sent the reason if that was still possible.
        """
        ...

    def send_text(self, text: str) -> None:
        """Send one text message. Blocks at most `SEND_TIMEOUT_S`; raises ConnectionLost."""
        ...

    def ping(self) -> None:
        """Send a ping frame. Like `send_text`."""
        ...

    def close(self, code: int = CLOSE_NORMAL) -> None:
        """Send a close frame if this is possible without waiting, and close the socket immediately. Never raises."""
        ...


FRAMES_MAX: Final = 256
"""The most frames one `receive` hands out."""

CONTROL_FRAMES_MAX: Final = 1000
CONTROL_WINDOW_S: Final = 10.0
"""More pings and pongs than CONTROL_FRAMES_MAX within CONTROL_WINDOW_S end the connection (1008): no exchange sends
more than one a second, and a flood of them would keep ingest busy with nothing."""

SEND_TIMEOUT_S: Final = 5.0


class Transport(Protocol):
    """Makes connections. Used by one thread (ingest)."""

    def connect(self, url: str, limits: ConnectionLimits, cancel: Cancellation) -> Connection:
        """Connect and complete the handshake, in at most `limits.connect_timeout_s`.

        `cancel` is polled at least every half second; once it is requested the attempt ends. wss:// always verifies
        the certificate and the host name. Raises ConnectFailed.
        """
        ...

    def fetch(self, url: str, limits: ConnectionLimits, cancel: Cancellation) -> str:
        """The text of the answer to an HTTP POST to `url` (connection tokens); like `connect`. Raises ConnectFailed."""
        ...
