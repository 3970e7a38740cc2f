"""The small HTTP server over real sockets: slow, silent, greedy and countless clients cost the others nothing."""

from __future__ import annotations

import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import StringIO

import pytest

from tradebot.core.runtime import RealRuntime
from tradebot.output.log import setup_logging
from tradebot.telemetry import http_server
from tradebot.telemetry.http_request import HEAD_BYTES_MAX, Request
from tradebot.telemetry.http_server import CLIENTS_MAX, PLAIN_TEXT, REST_FACTOR, HttpServer, Response, listen

GET = b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"
IDLE = 1000

Serve = Callable[[Callable[[Request], Response]], int]


def hello(request: Request) -> Response:
    return Response("200 OK", (PLAIN_TEXT,), f"hello {request.path}".encode())


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server with an answer, and gives its port."""
    runtime, servers = RealRuntime(), []

    def start(answer: Callable[[Request], Response]) -> int:
        listener = listen("127.0.0.1", 0)
        port = int(listener.getsockname()[1])
        log = setup_logging("INFO", "json", runtime, StringIO())
        servers.append(HttpServer(listener, frozenset({"localhost"}), answer, "http-test", runtime, log))
        return port

    yield start
    for server in servers:
        server.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "http-test"]


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def read_all(sock: socket.socket) -> bytes:
    parts = []
    while data := sock.recv(65_536):
        parts.append(data)
    return b"".join(parts)


def ask(port: int, request: bytes = GET) -> bytes:
    with connect(port) as sock:
        sock.sendall(request)
        return read_all(sock)


def test_an_answer(serve: Serve) -> None:
    head, _, body = ask(serve(hello)).partition(b"\r\n\r\n")
    first, *headers = head.split(b"\r\n")
    assert first == b"HTTP/1.1 200 OK" and {b"Content-Length: 8", b"Connection: close"} < set(headers)
    assert body == b"hello /x"


def test_a_request_that_comes_in_pieces(serve: Serve) -> None:
    with connect(serve(hello)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in GET:
            sock.sendall(bytes([byte]))
        assert read_all(sock).endswith(b"hello /x")


def test_a_thousand_idle_connections_and_one_that_drips_hold_nobody_up(serve: Serve) -> None:
    """Of idle connections only CLIENTS_MAX stay open; a newcomer is always answered."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = IDLE + 200
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"this process may not open {needed} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    port, dripped = serve(hello), threading.Event()
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        idle = [stack.enter_context(connect(port)) for _ in range(IDLE)]
        dripping = stack.enter_context(connect(port))

        def drip() -> None:
            while not dripped.wait(0.01):
                try:
                    dripping.sendall(b"G")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        began = time.monotonic()
        assert all(ask(port).endswith(b"hello /x") for _ in range(5))
        took_s = time.monotonic() - began
        dripped.set()
        thread.join()
        open_ones = 0
        for sock in idle:
            sock.setblocking(False)
            try:
                assert sock.recv(1) == b""
            except BlockingIOError:
                open_ones += 1
            except ConnectionResetError:
                pass
    assert took_s < 2.0, "five answers"
    assert open_ones <= CLIENTS_MAX


@pytest.mark.parametrize("first", [b"", b"GET / HT"])
def test_one_deadline_for_the_whole_request(serve: Serve, monkeypatch: pytest.MonkeyPatch, first: bytes) -> None:
    """Also for a client that sends a byte now and then."""
    monkeypatch.setattr(http_server, "REQUEST_S", 0.5)
    with connect(serve(hello)) as sock:
        began = time.monotonic()
        sock.sendall(first)
        sock.settimeout(0.05)
        for _ in range(200):
            try:
                assert sock.recv(1) == b""
                break
            except TimeoutError:
                if first:
                    sock.sendall(b"x")
            except ConnectionResetError:
                break
        assert 0.4 < time.monotonic() - began < 5.0


def test_a_client_that_takes_no_answer_is_given_up(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "ANSWER_S", 0.5)
    given_up, drop = threading.Event(), HttpServer._drop

    def dropped(server: HttpServer, client: http_server._Client) -> None:
        drop(server, client)
        if client.phase is http_server._Phase.ANSWER:
            given_up.set()

    monkeypatch.setattr(HttpServer, "_drop", dropped)
    much = bytes(50_000_000)
    port = serve(lambda request: Response("200 OK", (), much if request.path == "/much" else b"little"))
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(10)
        slow.connect(("127.0.0.1", port))
        slow.sendall(GET.replace(b"/x", b"/much"))
        assert ask(port).endswith(b"little"), "others are answered meanwhile"
        assert given_up.wait(10)
        assert len(read_all(slow)) < len(much)


def test_an_endless_head_is_answered_and_ended(serve: Serve) -> None:
    assert ask(serve(hello), b"GET / HTTP/1.1\r\nX: " + b"x" * 10 * HEAD_BYTES_MAX).startswith(b"HTTP/1.1 431 ")


def test_a_body_does_not_take_the_answer_back(serve: Serve) -> None:
    """Closing a socket on data that was not read would reset the connection, and with it what was just sent."""
    request = b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000\r\n\r\n" + bytes(50_000)
    assert ask(serve(hello), request).startswith(b"HTTP/1.1 405 ")


def test_a_failing_answer_is_a_500_and_the_next_is_made(serve: Serve) -> None:
    def answer(request: Request) -> Response:
        if request.path == "/bad":
            raise ValueError("not now")
        return hello(request)

    port = serve(answer)
    assert ask(port, GET.replace(b"/x", b"/bad")).startswith(b"HTTP/1.1 500 ")
    assert ask(port).endswith(b"hello /x")


def test_a_flood_of_requests_takes_no_more_than_its_share(serve: Serve) -> None:
    """After an answer that took 20 ms the thread rests 60 ms: within a second some 12 are made, not 50."""
    made = 0

    def answer(request: Request) -> Response:
        nonlocal made
        made += 1
        end = time.monotonic() + 0.02
        while time.monotonic() < end:
            pass
        return hello(request)

    port, began = serve(answer), time.monotonic()
    while time.monotonic() < began + 1.0:
        ask(port)
    seconds = time.monotonic() - began  # more than one where the machine is busy
    assert made <= seconds / (0.02 * (1 + REST_FACTOR)) + 3
