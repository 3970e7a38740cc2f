"""mockws as a real process: start, control through ZeroMQ, health, stop."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

import msgspec
import zmq

from mockws_server import actions
from tests.e2e.process import DEADLINE_S, REPO, environment, wait_until


class MockWsProcess:
    """A running mockws, on a free port and with numbers from 1 unless `args` say otherwise; use it in a `with`.

    Every wait lasts at most `DEADLINE_S`, then fails with the output of mockws.
    """

    def __init__(self, home: Path, *args: str | Path, command: Sequence[str] = (sys.executable, "-m", "mockws_server")):
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._said_all = False
        self._controls = 0
        words = [str(word) for word in args]
        if not any(word.startswith("--port") for word in words):
            words.append("--port=0")
        if not any(word.startswith("--first-seq") for word in words):
            words.append("--first-seq=1")
        self.process = subprocess.Popen(
            [*command, *words],
            cwd=home,
            env=environment(home, {"TRADEBOT_PYTHON": sys.executable}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdout is not None and self.process.stderr is not None
        self._listener = threading.Thread(target=self._listen, args=(self.process.stderr,), daemon=True)
        self._listener.start()
        self._context = zmq.Context()
        try:
            self.addresses = self._announcement(self.process.stdout)
            self._ticks = self._socket(self.addresses["ticks"])
            self._control = self._socket(self.addresses["control"])
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> MockWsProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Its address: ws://HOST:PORT."""
        return self.addresses["ws"]

    @property
    def address(self) -> tuple[str, int]:
        """Its host and port."""
        host, _, port = self.url.removeprefix("ws://").rpartition(":")
        return host, int(port)

    @property
    def said(self) -> str:
        """The standard error so far."""
        with self._changed:
            return "".join(self._lines)

    def wait_said(self, text: str, times: int = 1, deadline_s: float = DEADLINE_S) -> None:
        """Wait until `text` occurs in that many lines of standard error."""
        with self._changed:
            done = self._changed.wait_for(lambda: self._count(text) >= times or self._said_all, deadline_s)
            assert done and self._count(text) >= times, f"not said {times} times: {text!r} in:\n{''.join(self._lines)}"

    def control(self, action: actions.Action | Mapping[str, Any]) -> None:
        """Request an action and wait until it is performed (an action that takes time: until it has started)."""
        self.send_control(actions.encode(action) if isinstance(action, msgspec.Struct) else json.dumps(action).encode())
        self._controls += 1
        self.wait_said(" control: ", self._controls)

    def send_control(self, data: bytes) -> None:
        """Send any message to the control socket, without waiting."""
        self._control.send(data)

    def tick(
        self, symbol: str = "SOL/USDC", price: float = 100.0, volume: float = 1.0, ts: int = 0, **more: Any
    ) -> None:
        """Send a tick through ZeroMQ, without waiting; `ts` 0 is the current time."""
        ts = ts or time.time_ns() // 1_000_000
        self.send_tick(json.dumps({"symbol": symbol, "price": price, "volume": volume, "ts": ts, **more}).encode())

    def send_tick(self, data: bytes) -> None:
        """Send any message to the tick socket; waits only while mockws accepts no more."""
        self._ticks.send(data)

    def send_tick_in_parts(self, parts: Sequence[bytes]) -> None:
        """Send a multipart message to the tick socket, without waiting."""
        self._ticks.send_multipart(parts)

    def health(self) -> dict[str, Any]:
        """The answer of /healthz. Fails while connections are refused."""
        with urllib.request.urlopen(self.url.replace("ws:", "http:", 1) + "/healthz", timeout=DEADLINE_S) as answer:
            assert answer.status == 200
            found: dict[str, Any] = json.loads(answer.read())
        return found

    def wait_clients(self, count: int) -> None:
        """Wait until exactly that many clients are connected."""
        wait_until(lambda: self.health()["clients"] == count, f"{count} clients of mockws")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Stop it and check that it ends correctly; returns the seconds that it took."""
        begun_s = time.monotonic()
        self.process.send_signal(number)
        assert self.wait() == 0, self.said
        return time.monotonic() - begun_s

    def wait(self, deadline_s: float = DEADLINE_S) -> int:
        """Wait for the end and return the exit code. The output must not contain a traceback."""
        code = self.process.wait(deadline_s)
        self._listener.join(deadline_s)
        assert "Traceback" not in self.said and "a bug" not in self.said, self.said
        return code

    def close(self) -> None:
        """Kill it if it is still running, and release all resources."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._listener.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._context.destroy(linger=0)

    def _count(self, text: str) -> int:
        return sum(text in line for line in self._lines)

    def _announcement(self, stdout: IO[bytes]) -> dict[str, str]:
        ready, _, _ = select.select([stdout], [], [], DEADLINE_S)
        line = stdout.readline() if ready else b""
        if not line:
            self._listener.join(1.0)
        assert line, f"mockws did not say where it listens; exit {self.process.poll()}:\n{self.said}"
        found: dict[str, str] = json.loads(line)
        return found

    def _socket(self, address: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.PUSH)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDTIMEO, int(DEADLINE_S * 1000))
        socket.connect(address)
        return socket

    def _listen(self, stderr: IO[bytes]) -> None:
        with stderr:
            for line in stderr:
                with self._changed:
                    self._lines.append(line.decode("utf-8", "backslashreplace"))
                    self._changed.notify_all()
        with self._changed:
            self._said_all = True
            self._changed.notify_all()


BIN: Final = (str(REPO / "bin" / "mockws"),)
"""The command that people use; slower to start than the module."""
