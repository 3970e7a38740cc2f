"""What the real transport does with bytes; the cases it shares with the simulated one are in tests/contract."""

from __future__ import annotations

import base64
import re
import socket
import struct
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.peers import (
    BINARY,
    CONT,
    GENEROUS,
    LONG_S,
    PING,
    PONG,
    TEXT,
    Link,
    RealPeer,
    Received,
    close_frame,
    frame,
    http_answer,
    never,
    upgrade_answer,
)
from tradebot import __version__
from tradebot.core.runtime import RealRuntime
from tradebot.feeds.websocket import client as websocket_wire
from tradebot.feeds.websocket.client import FETCH_BYTES_MAX, WebSocketConnection, WebSocketTransport
from tradebot.feeds.websocket.frame_decoder import EMPTY_FRAGMENTS_MAX
from tradebot.feeds.websocket.transport import (
    CLOSE_ABNORMAL,
    CLOSE_POLICY,
    CLOSE_PROTOCOL_ERROR,
    CONTROL_FRAMES_MAX,
    ConnectFailed,
    ConnectionLimits,
    ConnectionLost,
    Frame,
)

BRIEF = ConnectionLimits(0.3, 1000)


@pytest.fixture
def peer() -> Iterator[RealPeer]:
    with RealPeer() as peer:
        yield peer


def connect(
    peer: RealPeer, limits: ConnectionLimits = GENEROUS, url: str = "", send_timeout_s: float = 5.0
) -> WebSocketConnection:
    return WebSocketTransport(RealRuntime(), send_timeout_s).connect(url or peer.url, limits, never)


def refused(peer: RealPeer, limits: ConnectionLimits = GENEROUS, url: str = "") -> ConnectFailed:
    with pytest.raises(ConnectFailed) as caught:
        connect(peer, limits, url)
    assert str(caught.value).isprintable()
    return caught.value


def fetch(peer: RealPeer, limits: ConnectionLimits = GENEROUS, url: str = "") -> str:
    return WebSocketTransport(RealRuntime()).fetch(url or peer.fetch_url, limits, never)


def lose(connection: WebSocketConnection) -> ConnectionLost:
    with pytest.raises(ConnectionLost) as caught:
        while not connection.receive(LONG_S):
            pass
    assert str(caught.value).isprintable()
    return caught.value


def taken_s(call: Callable[[], object]) -> float:
    runtime = RealRuntime()
    begin = runtime.monotonic()
    call()
    return runtime.monotonic() - begin


def headers_of(request: bytes) -> dict[str, str]:
    lines = request.decode().split("\r\n")[1:-2]
    return dict(line.lower().split(": ", 1) for line in lines)


def send_slowly(data: bytes, wait_s: float, link: Link) -> None:
    """Byte by byte until the client is gone."""
    runtime = RealRuntime()
    for at in range(len(data)):
        try:
            link.sock.sendall(data[at : at + 1])
        except OSError:
            return
        runtime.sleep(wait_s)


# ---- the opening handshake -----------------------------------------------------------------------------------------


def test_what_the_request_says(peer: RealPeer) -> None:
    url = f"ws://me:p%40ss@localhost:{peer.port}/a;v=1/b;v=2?x=1;2&y#fragment"
    connect(peer, url=url).close()
    request = peer.link.request
    assert request.startswith(b"GET /a%3Bv=1/b%3Bv=2?x=1%3B2&y HTTP/1.1\r\n")
    headers = headers_of(request)
    assert headers.pop("sec-websocket-key")
    assert headers == {
        "host": f"localhost:{peer.port}",
        "upgrade": "websocket",
        "connection": "upgrade",
        "sec-websocket-version": "13",
        "user-agent": f"tradebot/{__version__}",
        "authorization": "basic " + base64.b64encode(b"me:p@ss").decode().lower(),
    }


def test_no_cookie_is_kept(peer: RealPeer) -> None:
    def accept_with_cookie(link: Link, request: bytes) -> None:
        answer = upgrade_answer(request).replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=b; domain=localhost\r\n\r\n")
        link.send_raw(answer)
        peer.read(link)

    peer.on_attempt(accept_with_cookie)
    connect(peer).close()
    connect(peer).close()
    assert "cookie" not in headers_of(peer.link.request)


def test_frames_right_behind_the_handshake(peer: RealPeer) -> None:
    def accept_and_talk(link: Link, request: bytes) -> None:
        link.send_raw(upgrade_answer(request) + frame(TEXT, b"at once") + frame(TEXT, b"and half")[:5])
        peer.read(link)

    peer.on_attempt(accept_and_talk)
    connection = connect(peer)
    assert connection.receive(0.0) == [Frame("text", "at once")]
    peer.send_raw(frame(TEXT, b"and half")[5:])
    assert connection.receive(LONG_S) == [Frame("text", "and half")]
    connection.close()


def test_lines_of_the_answer_may_end_in_newlines_alone(peer: RealPeer) -> None:
    peer.on_attempt(lambda link, request: link.send_raw(upgrade_answer(request).replace(b"\r\n", b"\n")))
    connect(peer).close()


def changed(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda request: re.sub(old, new, upgrade_answer(request))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (changed(rb"Sec-WebSocket-Accept:.*\r\n", b""), "Sec-WebSocket-Accept missing"),
        (changed(rb"(Upgrade: .*|Connection: .*)\r\n", b""), "Upgrade, Connection missing"),
        (changed(rb"Accept: .*\r\n", b"Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n"), "Invalid WebSocket Header"),
        (changed(rb"Upgrade: websocket", b"Upgrade: h2c"), "Invalid WebSocket Header"),
        (changed(rb"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"), "not offered"),
        (changed(rb"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: chat\r\n\r\n"), "not offered"),
        (changed(rb"\r\n\r\n", b"\r\nno colon\r\n\r\n"), "not a WebSocket handshake"),
        (changed(rb"\r\n\r\n", b"\r\nX: \xff\r\n\r\n"), "not a WebSocket handshake"),
        (changed(rb"HTTP/1.1", b"HTTP/1.0"), "it is HTTP/1.0"),
        (changed(rb"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"), "announces a body (Transfer-Encoding)"),
        (changed(rb"\r\n\r\n", b"\r\nCONTENT-LENGTH : 0\r\n\r\n"), "announces a body (Content-Length)"),
        (changed(rb"(Sec-WebSocket-Accept:.*\r\n)", rb"\1\1"), "two Sec-WebSocket-Accept"),
        (changed(rb"\r\n\r\n", b"\r\nsec-websocket-accept: x\r\n\r\n"), "two Sec-WebSocket-Accept"),
        (lambda _: b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "is not HTTP"),
        (lambda _: b"HTTP/1.1 " + b"9" * 5000 + b" x\r\n\r\n", "is not HTTP"),
        (lambda _: b"\r\n\r\n", "is not HTTP"),
        (lambda _: b"HTTP/1.1 1000 x\r\n\r\n", "is not HTTP"),
        (lambda _: b"HTTP/1.1 101 Switch\r\n", "ended the connection during the WebSocket handshake"),
        (lambda _: b"\x1b[2J\xff", "ended the connection during the WebSocket handshake"),
    ],
)
def test_answers_that_are_no_handshake(peer: RealPeer, answer: Callable[[bytes], bytes], said: str) -> None:
    def send_and_end(link: Link, request: bytes) -> None:
        link.send_raw(answer(request))
        link.shut_sending()
        peer.read(link)

    peer.on_attempt(send_and_end)
    error = refused(peer)
    assert said in str(error)
    assert error.status is None


@settings(max_examples=50)
@given(st.binary(max_size=200), st.booleans())
def test_no_answer_is_a_crash(noise: bytes, status_line: bool) -> None:
    with RealPeer() as peer:
        peer.answer_raw((b"HTTP/1.1 101 X\r\n" if status_line else b"") + noise + b"\r\n\r\n")
        refused(peer)


@pytest.mark.parametrize("length", [10**12, -1])
def test_a_refusal_is_told_at_once_whatever_body_it_announces(peer: RealPeer, length: int) -> None:
    head = f"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 4\r\nContent-Length: {length}\r\n\r\nsome"
    peer.on_attempt(lambda link, _request: link.send_raw(head.encode()))
    errors: list[ConnectFailed] = []
    assert taken_s(lambda: errors.append(refused(peer))) < 1.0
    assert (errors[0].status, errors[0].retry_after_s) == (503, 4.0)


def test_retry_after_as_a_date_is_seen_from_now(peer: RealPeer) -> None:
    class AtNoon(RealRuntime):
        def now_ms(self) -> int:
            return 1_767_268_800_000

    peer.refuse(429, "Thu, 01 Jan 2026 12:00:20 GMT")
    peer.refuse(429, "Thu, 01 Jan 2026 12:00:40 GMT")
    transport = WebSocketTransport(AtNoon())
    with pytest.raises(ConnectFailed) as caught:
        transport.connect(peer.url, GENEROUS, never)
    assert caught.value.retry_after_s == 20.0
    with pytest.raises(ConnectFailed) as caught:
        transport.fetch(peer.fetch_url, GENEROUS, never)
    assert caught.value.retry_after_s == 40.0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(peer: RealPeer, status: int) -> None:
    for attempt in (lambda: connect(peer), lambda: fetch(peer)):
        peer.answer_raw(http_answer(status, {"Location": peer.url}))
        with pytest.raises(ConnectFailed, match="redirects are not followed") as caught:
            attempt()
        assert caught.value.status == status
    assert peer.requests == 2


@pytest.mark.parametrize("attempt", [connect, fetch])
def test_an_answer_that_drips_ends_at_the_deadline(
    peer: RealPeer, attempt: Callable[[RealPeer, ConnectionLimits], object]
) -> None:
    data = b"HTTP/1.1 101 X\r\n" + b"X-Header: 1\r\n" * 1000
    peer.on_attempt(lambda link, _request: send_slowly(data, 0.01, link))

    def drip() -> None:
        with pytest.raises(ConnectFailed, match=r"within 0\.3 s"):
            attempt(peer, BRIEF)

    assert 0.3 <= taken_s(drip) <= 0.8


def test_a_fetch_that_is_put_off_for_ever_ends_at_the_deadline(peer: RealPeer) -> None:
    def put_off(link: Link, _request: bytes) -> None:
        try:
            while True:
                link.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 3000)
        except OSError:
            return

    def attempt() -> None:
        with pytest.raises(ConnectFailed, match=r"within 0\.3 s"):
            fetch(peer, BRIEF)

    peer.on_attempt(put_off)
    assert taken_s(attempt) <= 0.8


@pytest.mark.parametrize("attempt", [connect, fetch])
def test_an_endless_head_is_given_up_before_it_costs_memory(
    peer: RealPeer, attempt: Callable[[RealPeer], object]
) -> None:
    def send_for_ever(link: Link, _request: bytes) -> None:
        try:
            link.sock.sendall(b"HTTP/1.1 101 X\r\nX: ")
            while True:
                link.sock.sendall(b"x" * 65536)
        except OSError:
            return

    peer.on_attempt(send_for_ever)
    tracemalloc.start()
    try:
        with pytest.raises(ConnectFailed):
            attempt(peer)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_credentials_are_in_no_message(peer: RealPeer) -> None:
    secret = f"ws://me:hunter2@localhost:{peer.port}/ws?token=hunter3"
    failures: list[Callable[[], None]] = [
        lambda: peer.refuse(401),
        peer.hang_up,
        peer.stay_mute,
        lambda: peer.answer_raw(b"nonsense\r\n\r\n"),
        lambda: peer.answer_raw(f"HTTP/1.1 302 {secret}\r\nLocation: {secret}\r\n\r\n".encode()),
        peer.go_down,
    ]
    for fail in failures:
        fail()
        text = str(refused(peer, BRIEF, secret))
        assert "hunter" not in text and base64.b64encode(b"me:hunter2").decode() not in text


# ---- receiving -----------------------------------------------------------------------------------------------------


def test_one_read_serves_many_small_frames(peer: RealPeer, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = connect(peer)
    peer.send_raw(frame(TEXT, b"x" * 100) * 500)
    assert sum(len(connection.receive(LONG_S)) for _ in range(2)) == 500
    connection.close()


def test_a_message_that_is_announced_too_long_is_refused_at_its_header(peer: RealPeer) -> None:
    connection = connect(peer)
    peer.send_raw(frame(BINARY, b"first bytes", length=1 << 62))
    tracemalloc.start()
    try:
        assert lose(connection).code == 1009
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert peer.take().code == 1009


def test_the_peer_learns_why_although_it_sent_more_than_was_read(peer: RealPeer) -> None:
    """To close a socket with unread data resets the connection: the peer may then not see the close frame."""
    peer.reading = False
    connection = connect(peer, ConnectionLimits(LONG_S, 1000))
    peer.send_raw(frame(TEXT, b"x" * 1001) + b"x" * 300_000)
    assert lose(connection).code == 1009
    assert peer.link.read_frame() == (8, struct.pack("!H", 1009))
    assert peer.link.recv(1) == b""


def test_a_text_cut_inside_a_character_is_whole_in_the_end(peer: RealPeer) -> None:
    connection = connect(peer)
    data = "\u20ac\U0001f600".encode()
    for at in range(len(data)):
        peer.send_raw(frame(CONT if at else TEXT, data[at : at + 1], fin=at == len(data) - 1))
        if at < len(data) - 1:
            assert connection.receive(0.01) == []
            peer.ping(b"%d" % at)
            assert connection.receive(LONG_S) == [Frame("ping", data=b"%d" % at)]
    assert connection.receive(LONG_S) == [Frame("text", "\u20ac\U0001f600")]
    connection.close()


def test_empty_fragments_without_end_are_told_and_ended(peer: RealPeer) -> None:
    connection = connect(peer)
    peer.send_raw(frame(BINARY, fin=False) + frame(CONT, fin=False) * EMPTY_FRAGMENTS_MAX)
    assert lose(connection).code == CLOSE_PROTOCOL_ERROR
    assert peer.take().code == CLOSE_PROTOCOL_ERROR


def test_a_message_without_end_does_not_hold_receive(peer: RealPeer) -> None:
    connection = connect(peer, ConnectionLimits(5.0, 1 << 30))
    runtime = RealRuntime()
    done = runtime.event()

    def send_parts() -> None:
        peer.send_raw(frame(BINARY, fin=False))
        while not done.is_set():
            peer.send_raw(frame(CONT, b"x", fin=False) * 30_000)

    thread = runtime.spawn("parts", send_parts)
    assert taken_s(lambda: connection.receive(0.2)) <= 0.7
    done.set()
    # The close first: the sender may be waiting for us to read.
    connection.close()
    thread.join(LONG_S)
    assert not thread.is_alive()


def test_what_came_before_a_broken_rule_can_still_be_answered(peer: RealPeer) -> None:
    connection = connect(peer)
    peer.send_raw(frame(TEXT, b"good") + frame(TEXT, b"\xff"))
    assert connection.receive(LONG_S) == [Frame("text", "good")]
    connection.send_text("thanks")
    assert lose(connection).code == 1007
    assert [peer.take(), peer.take().code] == [Received("text", b"thanks"), 1007]


def test_pings_of_a_peer_that_is_gone_lose_nothing_it_sent(peer: RealPeer) -> None:
    connection = connect(peer)
    peer.reading = False
    peer.send_raw((frame(9, b"?") + frame(TEXT, b"x")) * 1000 + close_frame(1013))
    # Gone for good: pongs are answered by resets.
    link = peer.link
    link.sock.shutdown(socket.SHUT_RDWR)
    frames: list[Frame] = []
    with pytest.raises(ConnectionLost) as caught:
        while True:
            frames += connection.receive(LONG_S)
    assert len(frames) == 2000 and caught.value.code == 1013


# ---- sending -------------------------------------------------------------------------------------------------------


def deaf(peer: RealPeer) -> WebSocketConnection:
    """A connection to a peer that takes nothing after the handshake."""
    peer.reading = False
    return connect(peer, send_timeout_s=0.2)


def test_a_peer_that_takes_nothing_is_lost_after_the_send_timeout(peer: RealPeer) -> None:
    connection = deaf(peer)

    def send_a_lot() -> None:
        with pytest.raises(ConnectionLost, match=r"accepted no data for 0\.2 s") as caught:
            connection.send_text("x" * 20_000_000)
        assert caught.value.code == CLOSE_ABNORMAL

    assert taken_s(send_a_lot) <= 3.0
    with pytest.raises(ConnectionLost):
        connection.ping()
    with pytest.raises(ConnectionLost):
        connection.receive(0.0)
    assert taken_s(connection.close) <= 0.2


def test_a_peer_that_pings_and_takes_no_pongs_is_lost(peer: RealPeer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_wire, "CONTROL_FRAMES_MAX", 1_000_000)
    connection = deaf(peer)
    runtime = RealRuntime()
    thread = runtime.spawn("pings", lambda: peer.send_raw(frame(9, b"x" * 125) * 100_000))
    assert "accepted no data" in str(lose_after_frames(connection))
    thread.join(LONG_S)


@pytest.mark.parametrize("opcode", [PING, PONG])
def test_a_flood_of_control_frames_ends_the_connection(peer: RealPeer, opcode: int) -> None:
    """Each costs a system call or two, and none of them is a trade."""
    connection = connect(peer)
    peer.send_raw(frame(opcode) * CONTROL_FRAMES_MAX + frame(TEXT, b"still there"))
    frames: list[Frame] = []
    while not frames or frames[-1].kind != "text":
        frames += connection.receive(LONG_S)
    assert len(frames) == CONTROL_FRAMES_MAX + 1
    peer.send_raw(frame(opcode))
    error = lose_after_frames(connection)
    assert error.code == CLOSE_POLICY and f"more than {CONTROL_FRAMES_MAX} pings and pongs" in str(error)


def test_control_frames_are_counted_for_each_window_anew(peer: RealPeer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_wire, "CONTROL_WINDOW_S", 0.0)
    connection = connect(peer)
    peer.send_raw(frame(PING) * (CONTROL_FRAMES_MAX + 10) + frame(TEXT, b"still there"))
    while (frames := connection.receive(LONG_S))[-1].kind != "text":
        pass
    assert frames[-1].text == "still there"
    connection.close()


def lose_after_frames(connection: WebSocketConnection) -> ConnectionLost:
    with pytest.raises(ConnectionLost) as caught:
        while True:
            connection.receive(LONG_S)
    return caught.value


def test_a_large_message_is_sent_whole_to_a_slow_peer(peer: RealPeer) -> None:
    connection = connect(peer)
    text = "0123456789" * 500_000
    connection.send_text(text)
    assert peer.take() == Received("text", text.encode())
    connection.close()


def test_sending_to_a_peer_that_is_gone(peer: RealPeer) -> None:
    connection = connect(peer)
    peer.reset()

    def send_until_told() -> None:
        for _ in range(1000):
            connection.send_text("x")

    with pytest.raises(ConnectionLost) as caught:
        send_until_told()
    assert caught.value.code == CLOSE_ABNORMAL and str(caught.value).startswith("the connection broke: ")


# ---- fetch ---------------------------------------------------------------------------------------------------------


def test_what_a_fetch_asks(peer: RealPeer) -> None:
    peer.answer("x")
    fetch(peer, url=f"http://me:p@localhost:{peer.port}/api/v1/bullet?x=1#fragment")
    request = peer.link.request
    assert request.startswith(b"POST /api/v1/bullet?x=1 HTTP/1.1\r\n")
    headers = headers_of(request)
    assert headers["host"] == f"localhost:{peer.port}" and headers["content-length"] == "0"
    assert headers["authorization"] == "basic " + base64.b64encode(b"me:p").decode().lower()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "data",
    [
        CHUNKED + b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nabcdef",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 6\r\n\r\nabcdef",
    ],
)
def test_answers_of_every_form(peer: RealPeer, data: bytes) -> None:
    peer.answer_raw(data)
    assert fetch(peer) == "abcdef"


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc",
        CHUNKED + b"zzz\r\n",
        CHUNKED + b"3\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n\xff",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (FETCH_BYTES_MAX + 1),
        b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 \x1b[2J 200\r\n\r\n",
    ],
)
def test_bad_answers_to_a_fetch(peer: RealPeer, data: bytes) -> None:
    peer.answer_raw(data)
    with pytest.raises(ConnectFailed) as caught:
        fetch(peer)
    assert str(caught.value).isprintable() and caught.value.status is None


def test_the_longest_answer(peer: RealPeer) -> None:
    peer.answer("x" * FETCH_BYTES_MAX)
    assert len(fetch(peer)) == FETCH_BYTES_MAX
