from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradebot.feeds.websocket.http import RETRY_AFTER_MAX_S, UrlTarget, one_line, parse_url, refusal, retry_after_s
from tradebot.feeds.websocket.transport import ConnectFailed

SCHEMES = {"ws": 80, "wss": 443}
NOON_MS = 1_767_268_800_000  # 2026-01-01 12:00:00 UTC


@pytest.mark.parametrize(
    ("url", "target", "authority"),
    [
        ("ws://localhost:9001", UrlTarget(False, "localhost", 9001, "/", ""), "localhost:9001"),
        ("wss://a.example/ws/x?y=1&z#part", UrlTarget(True, "a.example", 443, "/ws/x?y=1&z", ""), "a.example:443"),
        ("ws://A.Example?q=1", UrlTarget(False, "a.example", 80, "/?q=1", ""), "a.example:80"),
        ("WSS://[::1]:7/p;v=1", UrlTarget(True, "::1", 7, "/p;v=1", ""), "[::1]:7"),
    ],
)
def test_where_a_url_leads(url: str, target: UrlTarget, authority: str) -> None:
    assert parse_url(url, SCHEMES) == target
    assert target.authority == authority


def test_credentials_become_a_header_and_nothing_else() -> None:
    target = parse_url("wss://me:p%40ss%3Aword@a.example/", SCHEMES)
    assert target.authorization == "Basic " + base64.b64encode(b"me:p@ss:word").decode()
    assert target.authority == "a.example:443" and target.resource == "/"
    assert parse_url("wss://me@a.example/", SCHEMES).authorization == "Basic " + base64.b64encode(b"me:").decode()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:9001",
        "http://localhost",
        "ws://",
        "ws://:9001/",
        "ws://a.example:port/",
        "ws://a.example:70000/",
        "ws://a.example:0/",
        "ws://a.example/with space",
        "ws://a.example/x\r\nHost: b.example",
        "ws://\u00e4.example/",
        "ws://[::1/",
    ],
)
def test_urls_that_cannot_be_used(url: str) -> None:
    with pytest.raises(ConnectFailed, match="cannot be used") as caught:
        parse_url(url, SCHEMES)
    assert str(caught.value).isprintable()


@given(st.text(st.characters(max_codepoint=300)))
def test_no_url_is_a_crash(text: str) -> None:
    for url in (text, f"ws://{text}"):
        try:
            target = parse_url(url, SCHEMES)
        except ConnectFailed as error:
            assert str(error).isprintable()
        else:
            assert target.host and 0 < target.port < 65536 and target.resource[0] == "/"


def test_a_password_is_in_no_message() -> None:
    for url in ("http://me:hunter2@a.example/", "ws://me:hunter2@a.example:70000/", "ws://me:hunter2@a.example/ x"):
        with pytest.raises(ConnectFailed) as caught:
            parse_url(url, SCHEMES)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        ("99999999", RETRY_AFTER_MAX_S),
        ("9" * 5000, RETRY_AFTER_MAX_S),
        ("-5", None),
        ("1.5", None),
        ("\u0663", None),
        ("", None),
        ("soon", None),
        ("Thu, 01 Jan 2026 12:01:30 GMT", 90.0),
        ("Thu, 01 Jan 2026 12:01:30 -0000", 90.0),
        ("Thu, 01 Jan 2026 11:59:59 GMT", None),
        ("Fri, 01 Jan 2027 12:00:00 GMT", RETRY_AFTER_MAX_S),
        ("Thu, 01 Jan 99999 12:00:00 GMT", None),
        ("Thu, 99 Jan 2026 12:00:00 GMT", None),
    ],
)
def test_retry_after(value: str | None, expected: float | None) -> None:
    assert retry_after_s(value, NOON_MS) == expected


@given(st.text())
def test_no_retry_after_is_a_crash(value: str) -> None:
    wait_s = retry_after_s(value, NOON_MS)
    assert wait_s is None or 0 <= wait_s <= RETRY_AFTER_MAX_S


def test_a_refusal_says_what_the_server_said() -> None:
    error = refusal(429, "Too Many\x1b[31m", "30", NOON_MS)
    assert (str(error), error.status, error.retry_after_s) == (
        "the server answered HTTP 429 Too Many\\x1b[31m and asks to wait 30 s",
        429,
        30.0,
    )
    moved = refusal(302, "Found", None, NOON_MS)
    assert "redirects are not followed" in str(moved) and moved.status == 302


def test_one_line_is_printable_bounded_and_masked() -> None:
    line = one_line("wss://me:hunter2@a.example/\n\u202e" + "x" * 10_000)
    assert line.isprintable() and len(line) < 400 and "hunter2" not in line
