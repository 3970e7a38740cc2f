"""The webhook: bounded, rate-limited, never in anybody's way, and silent about its URL."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import SimRuntime
from tradebot.core.errors import ConfigError
from tradebot.core.runtime import RealRuntime, Runtime
from tradebot.output.log import Log, setup_logging
from tradebot.telemetry.alerts import Alert
from tradebot.telemetry.webhook import (
    ALL_BURST,
    EVENT_BURST,
    QUEUE_MAX,
    MessageLimits,
    TokenBucket,
    Webhook,
    take_apart,
)
from tradebot.telemetry.webhook_post import HttpPost

URL = "https://hooks.example.com/services/T0/secret"
STALL = Alert("stall", "error", "stalled: persist for 61 s", {"still_s": {"persist": 61.0}})


class Receiver:
    """A `Post` that answers as told: statuses in turn (the last one for ever), or the errors in their place."""

    def __init__(self, runtime: Runtime, *answers: int | Exception, takes_s: float = 0.0) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.at_s: list[float] = []
        self._runtime = runtime
        self._answers = list(answers) or [200]
        self._takes_s = takes_s

    def __call__(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> int:
        assert (url, timeout_s) == (URL, 5.0)
        self.at_s.append(round(self._runtime.monotonic(), 1))
        self.bodies.append(json.loads(body))
        if self._takes_s:
            self._runtime.sleep(self._takes_s)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Run:
    """A webhook in simulation, and its log."""

    def __init__(self, *answers: int | Exception, takes_s: float = 0.0) -> None:
        self.runtime = SimRuntime(1, spurious_chance=0.0)
        self.stream = StringIO()
        self.receiver = Receiver(self.runtime, *answers, takes_s=takes_s)
        self.began_s = 0.0
        self.took_s = 0.0
        self.sent = 0
        """When `close` came back."""

    def do(self, *alerts: Alert, wait_s: float = 0.0) -> Webhook:
        """Tell the alerts, wait, and close."""

        def main() -> Webhook:
            log = setup_logging("INFO", "json", self.runtime, self.stream)
            webhook = Webhook(URL, "r1", self.runtime, log, self.receiver, "box")
            self.began_s = self.runtime.monotonic()
            for alert in alerts:
                webhook.send(alert)
            assert self.runtime.monotonic() - self.began_s < 0.1, "telling never waits"
            if wait_s:
                self.runtime.sleep(wait_s)
            closing_s = self.runtime.monotonic()
            webhook.close()
            self.took_s = self.runtime.monotonic() - closing_s
            webhook.close()
            self.sent = webhook.sent
            webhook._thread.join()  # what is still on its way: simulation leaves no thread behind
            return webhook

        done: Webhook = self.runtime.run(main, until_s=100.0)
        return done

    @property
    def attempts_s(self) -> list[float]:
        return [round(at_s - self.began_s, 1) for at_s in self.receiver.at_s]


def test_what_is_posted() -> None:
    run = Run()
    webhook = run.do(STALL)
    (body,) = run.receiver.bodies
    assert list(body) == ["event", "severity", "text", "run_id", "host", "ts_ms", "fields"]
    assert body["ts_ms"] > 1_600_000_000_000
    assert body | {"ts_ms": 0} == {
        "event": "stall", "severity": "error", "text": STALL.text, "run_id": "r1", "host": "box", "ts_ms": 0,
        "fields": {"still_s": {"persist": 61.0}},
    }  # fmt: skip
    assert (webhook.sent, webhook.failed, webhook.suppressed) == (1, 0, 0)
    assert run.stream.getvalue() == ""


def test_credentials_in_a_text_are_masked() -> None:
    run = Run()
    run.do(Alert("exit_code", "error", "cannot reach wss://bob:pw@h/"))
    assert run.receiver.bodies[0]["text"] == "cannot reach wss://***@h/"


@pytest.mark.parametrize("answer", [OSError("connection refused"), 500, 503, 429, 408])
def test_what_may_pass_is_tried_three_times(answer: int | Exception) -> None:
    run = Run(answer)
    webhook = run.do(STALL, wait_s=30.0)
    assert run.attempts_s == [0.0, 1.0, 5.0]
    assert (webhook.sent, webhook.failed) == (0, 1)
    assert '"event":"WEBHOOK_FAILED"' in run.stream.getvalue()


def test_a_second_attempt_that_works_is_enough() -> None:
    run = Run(OSError("refused"), 204)
    assert run.do(STALL, wait_s=30.0).sent == 1
    assert run.attempts_s == [0.0, 1.0]


@pytest.mark.parametrize("answer", [404, 400, 301, ValueError("odd")])
def test_what_will_not_pass_is_tried_once_and_the_next_message_is_sent(answer: int | Exception) -> None:
    run = Run(answer, 200)
    webhook = run.do(STALL, STALL, wait_s=30.0)
    assert run.attempts_s == [0.0, 0.0]
    assert (webhook.sent, webhook.failed) == (1, 1)


def test_nothing_of_the_url_but_its_host_is_logged() -> None:
    run = Run(ValueError(f"cannot use {URL} nor /services/T0/secret"), 404)
    run.do(STALL, STALL)
    log = run.stream.getvalue()
    assert "hooks.example.com/***" in log
    assert "secret" not in log


def test_the_end_waits_for_two_seconds_at_most() -> None:
    run = Run(takes_s=1.5)
    webhook = run.do(STALL, STALL, STALL, STALL)
    assert run.took_s == pytest.approx(2.0, abs=0.1)
    assert run.sent == 1
    assert webhook.sent == 2, "what was on its way; nothing is begun after the end"
    assert '"event":"WEBHOOK_END","sent":1,"failed":0,"suppressed":0,"given_up":3' in run.stream.getvalue()


def test_the_end_sends_what_is_left_without_second_attempts() -> None:
    run = Run(OSError("refused"))
    webhook = run.do(STALL, STALL, STALL)
    assert run.took_s < 0.5
    assert webhook.failed == 3


def test_a_full_queue_drops_and_counts() -> None:
    many = [Alert(f"e{n}", "info", "x") for n in range(ALL_BURST)]  # type: ignore[arg-type]  # one of a kind each
    run = Run(takes_s=1.9)

    def main() -> tuple[int, int]:
        log = setup_logging("INFO", "json", run.runtime, run.stream)
        webhook = Webhook(URL, "r1", run.runtime, log, run.receiver, "box")
        webhook._limits = _NoLimits()
        for _ in range(5):
            for alert in many:
                webhook.send(alert)
        webhook.close()
        webhook._thread.join()
        return webhook.suppressed, webhook._queue.high_water

    suppressed, high_water = run.runtime.run(main, until_s=100.0)
    assert high_water == QUEUE_MAX
    assert suppressed in (5 * ALL_BURST - QUEUE_MAX, 5 * ALL_BURST - QUEUE_MAX - 1)
    assert '"event":"WEBHOOK_DROPPED"' in run.stream.getvalue()


class _NoLimits(MessageLimits):
    def admit(self, event: str, now_s: float) -> int | None:
        return 0


def test_a_flood_of_one_event_is_cut_and_the_next_message_says_by_how_much() -> None:
    run = Run()

    def main() -> int:
        log = setup_logging("INFO", "json", run.runtime, run.stream)
        webhook = Webhook(URL, "r1", run.runtime, log, run.receiver, "box")
        for _ in range(100):
            webhook.send(STALL)
        webhook.send(Alert("stop", "info", "another event has its own limit"))
        run.runtime.sleep(61.0)
        webhook.send(STALL)
        webhook.close()
        return webhook.suppressed

    assert run.runtime.run(main, until_s=100.0) == 95
    assert [body["event"] for body in run.receiver.bodies] == ["stall"] * EVENT_BURST + ["stop", "stall"]
    assert [body["fields"].get("suppressed") for body in run.receiver.bodies] == [None] * 6 + [95]


class TestTokenBucket:
    @given(
        st.integers(1, 10),
        st.floats(0.1, 600),
        st.lists(st.floats(0, 120, allow_nan=False), min_size=1, max_size=100),
    )
    def test_never_more_than_burst_and_rate_allow(self, burst: int, per_minute: float, waits: list[float]) -> None:
        bucket = TokenBucket(burst, per_minute)
        now, taken = 0.0, []
        for wait in waits:
            now += wait
            if bucket.has(now):
                bucket.take()
                taken.append(now)
        for first in range(len(taken)):
            for last in range(first, len(taken)):
                allowed = burst + (taken[last] - taken[first]) * per_minute / 60
                assert last - first + 1 <= allowed + 1e-6

    def test_it_fills_up_again_but_not_beyond_its_burst(self) -> None:
        bucket = TokenBucket(2, 60.0)
        for now, has in (
            (0.0, True),
            (0.0, True),
            (0.5, False),
            (1.0, True),
            (100.0, True),
            (100.0, True),
            (100, False),
        ):
            assert bucket.has(now) is has
            if has:
                bucket.take()

    def test_a_clock_that_goes_back_gives_nothing(self) -> None:
        bucket = TokenBucket(1, 60.0)
        assert bucket.has(10.0)
        bucket.take()
        assert not bucket.has(5.0)


def test_all_events_together_have_a_limit_too() -> None:
    limits = MessageLimits()
    admitted = [limits.admit(f"e{n}", 0.0) for n in range(ALL_BURST + 5)]
    assert admitted == [0] * ALL_BURST + [None] * 5
    assert limits.admit(f"e{ALL_BURST}", 10.0) == 1, "one more after ten seconds, and it knows what was let go"


@pytest.mark.parametrize(
    ("url", "clean", "shown"),
    [
        (URL, URL, "https://hooks.example.com/***"),
        ("http://bob:p%40w@127.0.0.1:9/x?y=z#f", "http://127.0.0.1:9/x?y=z", "http://127.0.0.1:9/***"),
        ("http://[::1]:9", "http://[::1]:9/", "http://[::1]:9/***"),
    ],
)
def test_urls_are_taken_apart(url: str, clean: str, shown: str) -> None:
    target = take_apart(url)
    assert (target.url, target.shown) == (clean, shown)
    assert target.headers.get("Authorization") == ("Basic Ym9iOnBAdw==" if "bob" in url else None)


@pytest.mark.parametrize(
    "url",
    ["", "secret", "ftp://h/secret", "https:///secret", "http://h:x/secret", "http://h/sec ret", "http://h/\nsecret"],
)
def test_what_is_no_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigError, match=r"notify\.webhook_url: must be a URL") as caught:
        take_apart(url)
    assert "secret" not in str(caught.value)


class _Server(HTTPServer):
    got: list[tuple[str, str, Mapping[str, str], bytes]]
    status = 200


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.command, self.path, dict(self.headers), body))
        self.send_response(self.server.status)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.got = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("status", [200, 302, 307, 404, 500])
def test_over_http(server: _Server, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One POST; no redirect is followed, no proxy of the environment is asked."""
    monkeypatch.setitem(os.environ, "http_proxy", "http://127.0.0.1:1")
    server.status = status
    target = take_apart(f"http://bob:pw@127.0.0.1:{server.server_port}/hook?x=1")
    assert HttpPost(RealRuntime())(target.url, target.headers, b'{"a":1}', 5.0) == status
    ((command, path, headers, body),) = server.got
    assert (command, path, body) == ("POST", "/hook?x=1", b'{"a":1}')
    assert headers["Content-Type"] == "application/json"
    assert headers["Authorization"] == "Basic Ym9iOnB3"


def test_a_server_that_is_not_there_is_an_oserror(server: _Server) -> None:
    with pytest.raises(OSError):
        HttpPost(RealRuntime())("http://127.0.0.1:1/", {}, b"{}", 5.0)


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("first", "dripped", "said"),
    [
        (b"", b"", "no answer of 127.0.0.1 within 0.5 s"),
        (b"", b"H", "no answer of 127.0.0.1 within 0.5 s"),
        (HEAD, b"X: y\r\n", "no answer of 127.0.0.1 within 0.5 s"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", "no answer of 127.0.0.1 within 0.5 s"),
        (HEAD + b"X: " + b"y" * 40_000, b"y", "are longer than 32768 bytes"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", b"", "is not HTTP"),
    ],
)
def test_one_deadline_for_the_whole_call(first: bytes, dripped: bytes, said: str) -> None:
    """Also for a server that sends a byte now and then, or an answer without end."""
    with dripping(first, dripped) as port:
        began_s = RealRuntime().monotonic()
        with pytest.raises(OSError, match=said):
            HttpPost(RealRuntime())(f"http://127.0.0.1:{port}/", {}, b"{}", 0.5)
        assert RealRuntime().monotonic() - began_s < 2.0


def test_a_body_without_end_is_not_read() -> None:
    with dripping(b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"\r\n", b"x" * 1000) as port:
        assert HttpPost(RealRuntime())(f"http://127.0.0.1:{port}/", {}, b"{}", 5.0) == 200


def test_a_server_that_takes_no_body_ends_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        port = listener.getsockname()[1]
        began_s = RealRuntime().monotonic()
        with pytest.raises(OSError, match=r"no answer of 127\.0\.0\.1 within 0\.5 s"):
            HttpPost(RealRuntime())(f"http://127.0.0.1:{port}/", {}, bytes(20_000_000), 0.5)
        assert RealRuntime().monotonic() - began_s < 2.0


@contextmanager
def dripping(first: bytes, dripped: bytes) -> Iterator[int]:
    """The port of a server that answers a request with `first`, then `dripped` every 20 ms."""
    over = threading.Event()

    def serve() -> None:
        sock, _address = listener.accept()
        with sock:
            sock.recv(65_536)
            try:
                sock.sendall(first)
                while not over.wait(0.02):
                    sock.sendall(dripped)
            except OSError:
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield int(listener.getsockname()[1])
        over.set()
        thread.join()


def test_over_http_from_its_own_thread(server: _Server) -> None:
    runtime = RealRuntime()
    log: Log = setup_logging("INFO", "json", runtime, StringIO())
    webhook = Webhook(f"http://127.0.0.1:{server.server_port}/", "r1", runtime, log)
    webhook.send(STALL)
    webhook.close()
    assert webhook.sent == 1
    assert json.loads(server.got[0][3])["text"] == STALL.text
