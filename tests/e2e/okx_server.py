"""A small exchange on the loopback interface, in the process of the test: uses the protocol of OKX."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from tests.e2e.process import DEADLINE_S

SYMBOL = "BTC-USDT"
ACK = json.dumps({"event": "subscribe", "arg": {"channel": "trades", "instId": SYMBOL}})
BOOK = json.dumps({"arg": {"channel": "books", "instId": SYMBOL}, "data": [{"asks": [], "bids": []}]})


def trade(number: int, price: float = 100.0, note: str = "") -> str:
    """The frame of one trade; `note` makes it longer."""
    one = {
        "instId": SYMBOL, "tradeId": str(number), "px": str(price), "sz": "0.5", "side": "buy",
        "ts": str(1_700_000_000_000 + number),
    }  # fmt: skip
    return json.dumps({"arg": {"channel": "trades", "instId": SYMBOL}, "data": [one], "note": note})


class Exchange:
    """The subscribed connections, in order. May be used by any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._subscribed: list[ServerConnection] = []
        self.asked: list[str] = []
        self.server = serve(self._handle, "127.0.0.1", 0, compression=None)
        self.url = f"ws://127.0.0.1:{self.server.socket.getsockname()[1]}"

    def _handle(self, connection: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            asked = str(connection.recv())
            connection.send(ACK)
            with self._changed:
                self.asked.append(asked)
                self._subscribed.append(connection)
                self._changed.notify_all()
            for message in connection:
                if message == "ping":
                    connection.send("pong")

    def connection(self, number: int = 1) -> ServerConnection:
        """The `number`-th subscribed connection (from 1); waits for it."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._subscribed) >= number, DEADLINE_S), "nobody subscribed"
            return self._subscribed[number - 1]

    def send(self, *frames: str, connection: int = 1) -> None:
        """Send frames on a connection."""
        for frame in frames:
            self.connection(connection).send(frame)


@contextmanager
def running_exchange() -> Iterator[Exchange]:
    """An exchange that runs until the end of the block."""
    exchange = Exchange()
    thread = threading.Thread(target=exchange.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield exchange
    finally:
        exchange.server.shutdown()
        thread.join(DEADLINE_S)
