"""Credentials in URLs are masked, terminal tricks are escaped, long texts are clipped; everything else stays."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tradebot.output.redaction import clip, escape, mask


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        # user and password
        ("wss://bob:pw@host:9001/ws", "wss://***@host:9001/ws"),
        ("wss://bob@host/ws", "wss://***@host/ws"),
        ("wss://bob:p@ss@host", "wss://***@host"),
        ("wss://bob:pa/ss@host/ws", "wss://***@host/ws"),
        ("wss://bob:pa?ss@host/ws", "wss://***@host/ws"),
        ("wss://bob:pa#ss@host/ws", "wss://***@host/ws"),
        ("wss://bob:secr", "wss://bob:***"),
        ("WSS://bob:pw@[::1]:9001", "WSS://***@[::1]:9001"),
        ("ws://h/?next=ws://d:e@f", "ws://h/?next=ws://***@f"),
        ("ws://a:b@c,ws://d:e@f", "ws://***@c,ws://***@f"),
        ("cannot reach 'ws://a:b@c/d', retry in 5s", "cannot reach 'ws://***@c/d', retry in 5s"),
        # parameters
        ("wss://h/ws?token=abc&symbol=BTC", "wss://h/ws?token=***&symbol=BTC"),
        ("wss://h/ws?symbol=BTC&API-Key=abc", "wss://h/ws?symbol=BTC&API-Key=***"),
        ("wss://h?apikey=a&api_key=b&key=c&listenKey=d", "wss://h?apikey=***&api_key=***&key=***&listenKey=***"),
        ("wss://h/?secret=a&signature=b&sig=c&X-Amz-Signature=d", "wss://h/?secret=***&signature=***&sig=***&X-Amz-Signature=***"),
        ("wss://h/?access_token=a#id_token=b", "wss://h/?access_token=***#id_token=***"),
        ("wss://h/?%74oken=abc", "wss://h/?%74oken=***"),
        ("wss://h/?a=1;token=x;y", "wss://h/?a=1;token=***"),
        ("wss://h/?token=x?y&a=1", "wss://h/?token=***&a=1"),
        ("wss://h/?token=YWJj==", "wss://h/?token=***"),
        ("wss://h/#token=abc", "wss://h/#token=***"),
        # webhooks and unguessable paths
        ("https://hooks.slack.com/services/T0/B0/xyz", "https://hooks.slack.com/***"),
        ("https://discord.com/api/webhooks/123/abc", "https://discord.com/api/webhooks/***"),
        ("https://api.telegram.org/bot12345:AAbb/sendMessage", "https://api.telegram.org/***/sendMessage"),
        ("https://hc-ping.com/2f7a1f2e-1111-4222-8333-444455556666", "https://hc-ping.com/***"),
        ("wss://h:9443/ws/pqia91ma19a5s61cv6a81va65sdf19v8a65a1a5s61cv6a81va65", "wss://h:9443/ws/***"),
    ],
)  # fmt: skip
def test_credentials_are_masked(text: str, shown: str) -> None:
    assert mask(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no url: bob:pw@host?token=abc",
        "ws://localhost:9001",
        "ws://localhost:9001.",
        "(ws://localhost:9001)",
        "wss://stream.binance.com:9443/ws/btcusdt@trade",
        "wss://stream.binance.com:9443/stream?streams=btcusdt@trade/ethusdt@trade",
        "wss://h/ws?symbol=BTC&depth=5#top",
        "http://[::1]:8080/x",
        "https://example.com/webhook",
        "file:///tmp/run-2024-01-02-abcdef0123456789/ticks",
        "://",
    ],
)
def test_everything_else_stays(text: str) -> None:
    assert mask(text) == text


SECRET = st.text("abcXYZ01289:[]/?#@!$%()*+,;=~._-", min_size=1, max_size=12).map(lambda s: f"{s}SECRET{s}")


@given(SECRET)
def test_no_password_survives(secret: str) -> None:
    """Whatever stands between "user:" and "@": raw slashes, question marks, hashes and at signs included."""
    # Not such a text: a URL with a port ("host:12/..."); one whose path holds an "@" behind the credentials;
    # two URLs.
    assume(not re.split("[/?#]", secret)[0].isdigit())
    assume("://" not in f":{secret}")
    assume("@" not in secret or not any(stop in secret for stop in "/?#"))
    assert "SECRET" not in mask(f"ws://user:{secret}@host/ws")


@given(st.sampled_from(["token", "apiKey", "SIGNATURE", "x_secret", "auth"]), st.text("abc019+/=;?:@.", max_size=9))
def test_no_sensitive_parameter_survives(name: str, filler: str) -> None:
    assume("://" not in filler)  # what follows is then a URL of its own
    for value in (f"{filler}SECRET", f"SECRET{filler}"):
        for url in (f"wss://h/p?a=1&{name}={value}&b=2", f"wss://h/p?{name}={value}"):
            assert "SECRET" not in mask(url)


@given(st.text())
def test_masks_any_text_and_masking_twice_changes_nothing(text: str) -> None:
    once = mask(f"{text}://{text}")
    assert mask(once) == once


def test_long_texts_cost_linear_time() -> None:
    """One line of a feed may be a mebibyte; a quadratic pattern would take minutes here and meet the test's timeout."""
    for piece in ("a", "a.", "ws://", "://", "@", "?a=", "/hook", ":"):
        mask("ws://" + piece * (300_000 // len(piece)) + "://")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("BTC/USDT ü 日本", "BTC/USDT ü 日本"),
        ("a\nb\r\tc\x00", "a\\nb\\r\\tc\\x00"),
        ("\x1b[31mred\x9b0m\x7f", "\\x1b[31mred\\x9b0m\\x7f"),
        ("abc\u202edcba\u2066\u200b\ufeff", "abc\\u202edcba\\u2066\\u200b\\ufeff"),
        ("a\u2028b\u00a0c", "a\\u2028b\\xa0c"),
        ("\ud800", "\\ud800"),
    ],
)
def test_escape(text: str, shown: str) -> None:
    assert escape(text) == shown


@given(st.text(st.characters()))
def test_escaped_text_is_printable(text: str) -> None:
    assert escape(text).isprintable()


@given(st.text(max_size=60), st.integers(0, 40))
def test_clip_keeps_both_ends_and_says_what_is_gone(text: str, limit: int) -> None:
    shown = clip(text, limit)
    if len(text) <= limit:
        assert shown == text
        return
    head, note, tail = shown.partition(f" ...({len(text) - limit} characters left out)... ")
    assert note
    assert len(head) + len(tail) == limit
    assert text.startswith(head)
    assert text.endswith(tail)
