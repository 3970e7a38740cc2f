"""The echo client that Autobahn's fuzzing server tests: the real transport, one connection a case."""

from __future__ import annotations

import sys

from tradebot.core.cancellation import Cancellation
from tradebot.core.runtime import RealRuntime
from tradebot.feeds.websocket.client import WebSocketConnection, WebSocketTransport
from tradebot.feeds.websocket.transport import ConnectionLimits, ConnectionLost

AGENT = "tradebot"
_LIMITS = ConnectionLimits(connect_timeout_s=10.0, max_message_bytes=32 << 20)
_QUIET_S = 30.0


def _connect(transport: WebSocketTransport, url: str) -> WebSocketConnection:
    return transport.connect(url, _LIMITS, Cancellation(RealRuntime()))


def echo(connection: WebSocketConnection) -> ConnectionLost | None:
    """Send every message back until the connection is over: how it ended, None when it fell silent."""
    try:
        while frames := connection.receive(_QUIET_S):
            for frame in frames:
                if frame.kind == "text":
                    connection.send_text(frame.text)
                elif frame.kind == "binary":
                    connection.send_binary(frame.data)
    except ConnectionLost as end:
        return end
    connection.close()
    return None


def run_cases(base_url: str) -> None:
    """Run all cases of the server at `base_url` and have it write its reports. Raises ConnectFailed."""
    transport = WebSocketTransport(RealRuntime())
    count = int(_connect(transport, f"{base_url}/getCaseCount").receive(_QUIET_S)[0].text)
    for case in range(1, count + 1):
        if echo(_connect(transport, f"{base_url}/runCase?case={case}&agent={AGENT}")) is None:
            print(f"case {case} of {count} fell silent", file=sys.stderr)
    echo(_connect(transport, f"{base_url}/updateReports?agent={AGENT}"))


if __name__ == "__main__":
    run_cases(sys.argv[1])
