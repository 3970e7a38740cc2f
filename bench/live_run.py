"""One run of the live path: a mockws process, an engine process, and ticks sent to mockws by ZeroMQ at a fixed rate."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq

from bench import engine, measure
from bench.ticks import LEAST_VOLUME, NS_A_TS, START_CENTS, STEPS_CENTS, SYMBOL

START_S = 20.0
"""How long a process may take to start or to end."""

SLICE_S = 0.001
"""The interval at which all due ticks are sent."""

QUIET_S = 5.0
"""If no further tick is stored for this time, the run has stopped storing."""

PRICES = 4096

# Ticks of about 130 bytes, with the sender's numbers, as exchanges send them; latencies are computed from `ts`.
_TICK = b'{"symbol":"%s","price":%s,"volume":%s,"ts":%d,"event_id":"bench-%d","seq":%d}'


class MockWs:
    """A running bin/mockws, on free ports; use it in a `with` statement."""

    def __init__(self, scratch: Path, *options: str) -> None:
        self._log = scratch / "mockws.txt"
        with self._log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [engine.REPO / "bin" / "mockws", "--port=0", *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, "TRADEBOT_PYTHON": sys.executable},
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise measure.BenchError(f"bin/mockws did not start and wrote:\n{self._log.read_text()[-2000:]}")
        self.addresses: dict[str, str] = json.loads(line)

    def __enter__(self) -> MockWs:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    @property
    def url(self) -> str:
        """ws://HOST:PORT."""
        return self.addresses["ws"]

    def health(self) -> dict[str, Any]:
        """The counters of mockws. Raises BenchError if it has ended."""
        try:
            with urllib.request.urlopen(f"{self.url.replace('ws:', 'http:', 1)}/healthz", timeout=START_S) as answer:
                counters: dict[str, Any] = json.load(answer)
        except OSError as error:
            raise measure.BenchError(f"bin/mockws: {error}; it wrote:\n{self._log.read_text()[-2000:]}") from None
        return counters


class Engine:
    """A running engine (bench.live_engine) that connects to `url`; use it in a `with` statement."""

    def __init__(self, scratch: Path, url: str, what: str, config: str) -> None:
        self._log = scratch / "engine.txt"
        self._stamps = scratch / "stamps.json"
        self.database = scratch / "live.db"
        engine.remove(self.database)
        self._stamps.unlink(missing_ok=True)
        file = scratch / "live.toml"
        file.write_text(config)
        options = ["--ingest=mockws", f"--ws-url={url}", f"--config={file}", f"--db={self.database}"]
        command = engine.python("bench.live_engine", self._stamps, what, *options, "--log-format=json")
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=engine.REPO, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log
            )

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            self.process.wait()

    def running(self) -> bool:
        """Whether the process is still running."""
        return self.process.poll() is None

    def stored(self) -> int:
        """The number of ticks in the database."""
        if not self.database.exists():
            return 0
        with closing(sqlite3.connect(f"{self.database.absolute().as_uri()}?mode=ro", uri=True)) as database:
            found = database.execute("SELECT SUM(ticks) FROM runs").fetchone()[0]
            return int(found or 0)

    def wait_stored(self, ticks: int) -> None:
        """Wait until the engine has stored `count` ticks, has ended, or has stopped storing."""
        before, until_s = -1, 0.0
        while self.running() and (stored := self.stored()) < ticks:
            if stored > before:
                before, until_s = stored, time.monotonic() + QUIET_S
            elif time.monotonic() > until_s:
                return
            time.sleep(0.1)

    def stop(self) -> int:
        """Stop the engine as a service manager does; returns 0 or 13. Raises BenchError for other exit codes."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(START_S)
        if code not in (0, 13):
            raise measure.BenchError(f"the engine exited with {code} and wrote:\n{self._log.read_text()[-2000:]}")
        return code

    def stamps(self) -> dict[str, Any]:
        """The file written by bench.live_engine; call this after its end."""
        stamps: dict[str, Any] = json.loads(self._stamps.read_text())
        return stamps

    def overload(self) -> str:
        """The stage named in the OVERLOAD line of the log."""
        for line in self._log.read_text().splitlines():
            if '"OVERLOAD"' in line:
                return f", held up by {json.loads(line)['fields']['stage']}"
        return ""

    def busy(self) -> dict[str, float]:
        """Processor seconds of each stage; call this after the end."""
        busy: dict[str, float] = engine.final_metrics(self._log).get("busy_s", {})
        return busy


@dataclass(frozen=True)
class Outcome:
    """The result of a run at one rate. `seconds` and `sent` are the feeder's; `why` is "" if the rate held."""

    rate: int
    sent: int
    seconds: float
    stored: int
    stamps: dict[str, Any]
    busy: dict[str, float]
    why: str

    @property
    def age_ms_max(self) -> float:
        """The greatest age of a tick when it was stored."""
        return float(self.stamps["age_ns_max"]) / 1e6


def feed(address: str, rate: int, count: int, watch: Callable[[int], bool]) -> tuple[int, float]:
    """Send `count` ticks, `rate` a second, to the ZeroMQ socket of mockws. Returns the number sent and the seconds.

    `watch` is called about ten times a second with the number sent so far, and returns whether to continue.
    """
    rng = random.Random(1)
    cents, prices = START_CENTS, []
    for _ in range(PRICES):
        cents += rng.choice(STEPS_CENTS)
        prices.append((b"%d.%02d" % divmod(cents, 100), b"%.5f" % (LEAST_VOLUME + rng.random())))
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDTIMEO, int(START_S * 1000))
        socket.connect(address)
        symbol, clock_ns = SYMBOL.encode(), time.monotonic_ns
        begin_s, sent, look_s = time.monotonic(), 0, 0.0
        while sent < count:
            now_s = time.monotonic()
            if now_s >= look_s:
                look_s = now_s + 0.1
                if not watch(sent):
                    break
            for number in range(sent, min(count, int((now_s - begin_s) * rate) + 1)):
                price, volume = prices[number % PRICES]
                socket.send(_TICK % (symbol, price, volume, clock_ns() // NS_A_TS, number, number))
                sent += 1
            time.sleep(max(SLICE_S, begin_s + sent / rate - time.monotonic()))
        seconds = time.monotonic() - begin_s
        if sent == count:
            socket.setsockopt(zmq.LINGER, int(START_S * 1000))
    return sent, seconds


def wait_client(mock: MockWs, process: Engine) -> None:
    """Wait until the engine is connected. Raises BenchError."""
    until_s = time.monotonic() + START_S
    while mock.health()["clients"] < 1:
        if not process.running() or time.monotonic() > until_s:
            process.stop()
            raise measure.BenchError("the engine did not connect to mockws")
        time.sleep(0.05)


def paced(scratch: Path, rate: int, seconds: float, what: str, config: str, age_s_max: float) -> Outcome:
    """Send ticks at a fixed rate to an engine with this configuration.

    The rate holds if every tick was stored, none older than `age_s_max`, and the engine exited with 0.
    """
    count = max(1, round(rate * seconds))
    with ExitStack() as stack:
        mock = stack.enter_context(MockWs(scratch))
        process = stack.enter_context(Engine(scratch, mock.url, what, config))
        wait_client(mock, process)

        def watch(sent: int) -> bool:
            measure.progress(f"{measure.count(rate)} ticks/s: {sent / rate:.0f} of {seconds:.0f} s")
            return process.running()

        sent, took_s = feed(mock.addresses["ticks"], rate, count, watch)
        process.wait_stored(count)
        measure.progress("")
        code = process.stop()
        health = mock.health()
    stored, stamps = process.stored(), process.stamps()
    if code:
        why = f"OVERLOAD after {sent / rate:.1f} s{process.overload()}"
    elif health["clients_cut"]:
        why = "mockws cut the engine off: it left too much unread"
    elif stored < count:
        why = f"{count - stored} ticks not stored"
    elif stamps["age_ns_max"] > age_s_max * 1e9:
        why = f"fell {stamps['age_ns_max'] / 1e9:.1f} s behind"
    elif took_s > 1.02 * seconds + 2 * SLICE_S:
        why = f"the feeder was too slow: {measure.count(sent / took_s)} ticks/s"
    else:
        why = ""
    return Outcome(rate, sent, took_s, stored, stamps, process.busy(), why)
