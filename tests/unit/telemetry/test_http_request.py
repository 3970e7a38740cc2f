"""Requests of the small HTTP server: what is one, what is refused and how, at the level of bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradebot.telemetry.http_request import HEAD_BYTES_MAX, HttpRefusal, Request, host_is_ours, read_request

HOSTS = frozenset({"localhost", "trader"})


def read(text: str) -> Request | HttpRefusal | None:
    return read_request(text.encode("latin-1"), HOSTS)


def status_of(text: str) -> str:
    found = read(text)
    assert isinstance(found, HttpRefusal), found
    return found.status


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_a_request(end: str) -> None:
    lines = ["GET /metrics?a=b HTTP/1.1", "Host: localhost:9464", "ACCEPT: text/plain ", "X: 1", "x:2", "", ""]
    expected = {"host": "localhost:9464", "accept": "text/plain", "x": "1, 2"}
    assert read(end.join(lines)) == Request("GET", "/metrics", "a=b", expected)


def test_it_is_waited_for_until_its_head_is_whole() -> None:
    text = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert [read(text[:length]) for length in range(len(text))] == [None] * len(text)
    assert isinstance(read(text), Request)


def test_without_a_host_only_in_http_1_0() -> None:
    assert isinstance(read("GET / HTTP/1.0\r\n\r\n"), Request), "no browser speaks it"
    assert status_of("GET / HTTP/1.1\r\n\r\n").startswith("400")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH"])
def test_only_get_and_head(method: str) -> None:
    found = read(f"{method} / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert isinstance(found, HttpRefusal)
    assert (found.status[:3], found.headers) == ("405", (("Allow", "GET, HEAD"),))
    assert isinstance(read("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n"), Request)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("\r\n\r\n", "400"),
        ("GET /\r\n\r\n", "400"),
        ("get / HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
        ("GET  / HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
        ("GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", "505"),
        ("GET http://localhost/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: localhost\r\n folded\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n", "400"),
        ("\x16\x03\x01\x00\xff\r\n\r\n", "400"),
    ],
)
def test_what_is_no_request(text: str, status: str) -> None:
    assert status_of(text)[:3] == status


def test_a_head_without_end_is_bounded() -> None:
    start = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "
    assert read_request(start.ljust(HEAD_BYTES_MAX - 1, b"x"), HOSTS) is None
    for length in (HEAD_BYTES_MAX, HEAD_BYTES_MAX + 100):
        found = read_request(start.ljust(length, b"x") + b"\r\n\r\n", HOSTS)
        assert isinstance(found, HttpRefusal) and found.status.startswith("431")


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:80", "localhost.", "trader:9464", "127.0.0.1", "192.0.2.1:1", "[::1]", "[::1]:94"],
)
def test_hosts_that_are_ours(host: str) -> None:
    assert host_is_ours(host, HOSTS)


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "localhost.evil.example", "evil.example:9464", "localhost:port", "localhost@evil.example",
     "127.0.0.1.evil.example", "[evil.example]", "::1", "[::1", "[::1]x", "1.2.3.4.5", "[127.0.0.1]"],
)  # fmt: skip
def test_hosts_that_are_not(host: str) -> None:
    assert not host_is_ours(host, HOSTS)
    assert status_of(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")[:3] == "403"


@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_are_a_crash(data: bytes, with_end: bool) -> None:
    read_request(data + b"\r\n\r\n" * with_end, HOSTS)
