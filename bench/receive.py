"""Receives and discards frames as fast as possible: `python -m bench.receive websocket-client|tradebot URL FRAMES`.

Prints one JSON object: the seconds from the first frames to the last, the processor seconds of this thread in that
time, and the number of frames received.
"""

from __future__ import annotations

import json
import sys
import time

import websocket

from tradebot.core.cancellation import Cancellation
from tradebot.core.runtime import RealRuntime
from tradebot.feeds.websocket.client import WebSocketTransport
from tradebot.feeds.websocket.transport import ConnectionLimits

CONNECT_S = 10.0


def websocket_client(url: str, frames: int) -> dict[str, float]:
    """The receive loop of websocket-client, without anything else."""
    connection = websocket.create_connection(url, timeout=CONNECT_S)
    connection.recv()
    begin_s, begin_cpu_s = time.perf_counter(), time.thread_time()
    for _ in range(frames - 1):
        connection.recv()
    taken = _taken(begin_s, begin_cpu_s, frames - 1)
    connection.close()
    return taken


def tradebot(url: str, frames: int) -> dict[str, float]:
    """The receive loop of tradebot's transport."""
    connection = WebSocketTransport(RealRuntime()).connect(
        url, ConnectionLimits(CONNECT_S, 1 << 20), Cancellation(RealRuntime())
    )
    first = 0
    while not first:
        first = len(connection.receive(0.5))
    begin_s, begin_cpu_s, received = time.perf_counter(), time.thread_time(), first
    while received < frames:
        received += len(connection.receive(0.5))
    taken = _taken(begin_s, begin_cpu_s, received - first)
    connection.close()
    return taken


def _taken(begin_s: float, begin_cpu_s: float, frames: int) -> dict[str, float]:
    return {"seconds": time.perf_counter() - begin_s, "cpu_s": time.thread_time() - begin_cpu_s, "frames": frames}


def main() -> None:
    """Measure once."""
    loop = {"websocket-client": websocket_client, "tradebot": tradebot}[sys.argv[1]]
    print(json.dumps(loop(sys.argv[2], int(sys.argv[3]))))


if __name__ == "__main__":
    main()
