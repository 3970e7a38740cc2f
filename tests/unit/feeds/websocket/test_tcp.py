from __future__ import annotations

import datetime
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.contract.peers import GENEROUS, LONG_S, Link, RealPeer, Received, never
from tradebot.core.cancellation import Cancellation
from tradebot.core.runtime import RealRuntime
from tradebot.feeds.websocket.client import WebSocketTransport
from tradebot.feeds.websocket.tcp import LOOKUPS_MAX
from tradebot.feeds.websocket.transport import ConnectFailed, Connection, ConnectionLimits, Frame

IPV4 = "127.0.0.1"


def connect(url: str, limits: ConnectionLimits = GENEROUS, cancel: Cancellation = never) -> Connection:
    return WebSocketTransport(RealRuntime()).connect(url, limits, cancel)


def failure(
    url: str,
    limits: ConnectionLimits = GENEROUS,
    cancel: Cancellation = never,
    transport: WebSocketTransport | None = None,
) -> str:
    """Why connecting fails."""
    with pytest.raises(ConnectFailed) as caught:
        (transport or WebSocketTransport(RealRuntime())).connect(url, limits, cancel)
    assert str(caught.value).isprintable()
    return str(caught.value)


def taken_s(call: Callable[[], object]) -> float:
    runtime = RealRuntime()
    begin = runtime.monotonic()
    call()
    return runtime.monotonic() - begin


@pytest.fixture
def closed_port() -> int:
    with socket.create_server((IPV4, 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port that answers no SYN: its queue of connections is full and nobody takes one out."""
    with socket.create_server((IPV4, 0), backlog=0) as listener:
        port: int = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex((IPV4, port))
        yield port
        for filler in fillers:
            filler.close()


def resolve_to(monkeypatch: pytest.MonkeyPatch, *places: tuple[str, int]) -> None:
    """Every name has these addresses, in this order."""
    answers = [
        (socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))
        for host, port in places
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_kwargs: answers)


# ---- names -------------------------------------------------------------------------------------------------------


def test_an_unknown_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert failure("wss://no.example/") == "cannot look up no.example: Name or service not known"


def test_a_name_that_no_lookup_takes() -> None:
    assert failure(f"ws://{'x' * 64}.example/").startswith("cannot look up x")


class HangingLookups:
    """getaddrinfo that answers when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.go_on = threading.Event()
        self.real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: str, port: int, **rest: Any) -> Any:
        self.calls.append(host)
        assert self.go_on.wait(LONG_S)
        return self.real(IPV4, port, **rest)


def test_a_lookup_that_hangs_ends_at_the_deadline_and_serves_the_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    with RealPeer() as peer:
        lookups = HangingLookups(monkeypatch)
        transport = WebSocketTransport(RealRuntime())
        said: list[str] = []
        took_s = taken_s(lambda: said.append(failure(peer.url, ConnectionLimits(0.3, 1000), transport=transport)))
        assert said == ["no address for localhost (name lookup) within 0.3 s"]
        assert 0.3 <= took_s <= 0.8
        lookups.go_on.set()
        transport.connect(peer.url, GENEROUS, never).close()
        assert lookups.calls == ["localhost"]
        transport.connect(peer.url, GENEROUS, never).close()
        assert lookups.calls == ["localhost", "localhost"]


def test_a_stop_ends_the_wait_for_a_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    lookups = HangingLookups(monkeypatch)
    stop = Cancellation(RealRuntime())
    threading.Timer(0.1, stop.request).start()
    took_s = taken_s(lambda: failure("ws://a.example/", cancel=stop))
    assert took_s <= 0.1 + 0.5
    lookups.go_on.set()


def test_hanging_lookups_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    lookups = HangingLookups(monkeypatch)
    transport = WebSocketTransport(RealRuntime())
    brief = ConnectionLimits(0.01, 1000)
    for n in range(LOOKUPS_MAX):
        failure(f"ws://{n}.example/", brief, transport=transport)
    assert "still hang" in failure("ws://one-more.example/", brief, transport=transport)
    assert "within" in failure("ws://0.example/", brief, transport=transport)
    threads = [thread for thread in threading.enumerate() if thread.name == "lookup"]
    assert len(threads) == len(lookups.calls) == LOOKUPS_MAX
    lookups.go_on.set()
    for thread in threads:
        thread.join(LONG_S)
    with RealPeer() as peer:
        transport.connect(f"ws://good.example:{peer.port}/", GENEROUS, never).close()


# ---- TCP ---------------------------------------------------------------------------------------------------------


def test_refused(closed_port: int) -> None:
    said = failure(f"ws://{IPV4}:{closed_port}/")
    assert said == f"cannot connect to {IPV4} port {closed_port}: {IPV4} connection refused"


def test_all_addresses_are_tried(monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    with RealPeer() as peer:
        resolve_to(monkeypatch, ("::1", closed_port), (IPV4, closed_port), (IPV4, peer.port))
        connect("ws://a.example/").close()
        resolve_to(monkeypatch, (IPV4, closed_port), (IPV4, closed_port))
        assert failure("ws://a.example/").count("refused") == 2


def test_no_answer_to_syn(black_hole: int) -> None:
    said: list[str] = []
    took_s = taken_s(lambda: said.append(failure(f"ws://{IPV4}:{black_hole}/", ConnectionLimits(0.3, 1000))))
    assert said == [f"no TCP connection to {IPV4} port {black_hole} within 0.3 s"]
    assert took_s <= 0.8


def test_an_address_that_does_not_answer_leaves_time_for_the_next(
    monkeypatch: pytest.MonkeyPatch, black_hole: int
) -> None:
    with RealPeer() as peer:
        resolve_to(monkeypatch, (IPV4, black_hole), (IPV4, peer.port))
        assert 0.3 <= taken_s(lambda: connect("ws://a.example/", ConnectionLimits(0.6, 1000)).close()) <= 0.6


def test_a_stop_ends_the_wait_for_tcp(black_hole: int) -> None:
    stop = Cancellation(RealRuntime())
    threading.Timer(0.1, stop.request).start()
    assert taken_s(lambda: failure(f"ws://{IPV4}:{black_hole}/", cancel=stop)) <= 0.1 + 0.5


def test_no_proxy_is_used(monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://{IPV4}:{closed_port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with RealPeer() as peer:
        connect(peer.url).close()
        peer.answer("token")
        assert WebSocketTransport(RealRuntime()).fetch(peer.fetch_url, GENEROUS, never) == "token"


# ---- TLS ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def authority_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def server_side(authority: trustme.CA, *names: str, expired: bool = False) -> ssl.SSLContext:
    yesterday = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC) if expired else None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names, not_after=yesterday).configure_cert(context)
    return context


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch, authority_file: Path) -> None:
    """This machine trusts the test's authority."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority_file))


@pytest.mark.usefixtures("trusting")
def test_tls_with_a_good_certificate(authority: trustme.CA) -> None:
    with RealPeer(server_side(authority, "localhost")) as peer:
        connection = connect(peer.url)
        for n in range(3000):
            connection.send_text(f"{n}")
        peer.send_raw(b"".join(b"\x81\x04%04d" % n for n in range(9999)))
        frames: list[Frame] = []
        while len(frames) < 9999:
            frames += connection.receive(LONG_S)
        assert [frame.text for frame in frames] == [f"{n:04d}" for n in range(9999)]
        assert [peer.take() for _ in range(3000)] == [Received("text", b"%d" % n) for n in range(3000)]
        connection.close(1001)
        assert peer.take().code == 1001


@pytest.mark.usefixtures("trusting")
def test_what_tls_has_buffered_needs_no_further_packet(authority: trustme.CA) -> None:
    """A TLS record is decrypted whole: what is left of it must not wait for the socket to become readable again."""
    with RealPeer(server_side(authority, "localhost")) as peer:
        connection = connect(peer.url)
        # Three records of 16 KiB at least, in one go: the last two are in the process or in the kernel, then silence.
        peer.send_raw(b"".join(b"\x81\x7e\x03\xe8" + b"x" * 1000 for _ in range(50)))
        frames: list[Frame] = []
        while more := connection.receive(0.2):
            frames += more
        assert len(frames) == 50
        connection.close()


@pytest.mark.usefixtures("trusting")
def test_tls_for_an_address_and_for_fetch(authority: trustme.CA) -> None:
    with RealPeer(server_side(authority, "127.0.0.1"), host=IPV4) as peer:
        connect(peer.url).close()
        peer.answer("token")
        assert WebSocketTransport(RealRuntime()).fetch(peer.fetch_url, GENEROUS, never) == "token"


@pytest.mark.usefixtures("trusting")
def test_a_certificate_for_another_name(authority: trustme.CA) -> None:
    with RealPeer(server_side(authority, "other.example")) as peer:
        said = failure(peer.url)
        assert said.startswith("the certificate is not one for localhost") and peer.requests == 0
        with pytest.raises(ConnectFailed, match="not one for localhost"):
            WebSocketTransport(RealRuntime()).fetch(peer.fetch_url, GENEROUS, never)
    with RealPeer(server_side(authority, "localhost"), host=IPV4) as peer:
        assert failure(peer.url).startswith(f"the certificate is not one for {IPV4}")


@pytest.mark.usefixtures("trusting")
def test_an_expired_certificate(authority: trustme.CA) -> None:
    with RealPeer(server_side(authority, "localhost", expired=True)) as peer:
        assert failure(peer.url) == "the certificate of localhost has expired"


def test_an_unknown_authority(authority: trustme.CA) -> None:
    with RealPeer(server_side(authority, "localhost")) as peer:
        said = failure(peer.url)
        assert said.startswith("the certificate of localhost was issued by no authority known to this machine")


@pytest.mark.usefixtures("trusting")
def test_a_self_signed_certificate(authority: trustme.CA) -> None:
    other = trustme.CA()
    with RealPeer(server_side(other, "localhost")) as peer:
        assert "issued by no authority known" in failure(peer.url)


def test_no_tls_where_tls_was_asked_for() -> None:
    with RealPeer() as peer:
        peer.on_accept = lambda link: link.send_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        said = failure(peer.url.replace("ws://", "wss://"), ConnectionLimits(2.0, 1000))
        assert said.startswith("the TLS handshake with localhost failed: ")


TLS_CLOSE_NOTIFY = b"\x15\x03\x03\x00\x02\x01\x00"  # an alert (21) of TLS 1.2, two bytes: warning, close_notify


@pytest.mark.parametrize("farewell", [b"", TLS_CLOSE_NOTIFY], ids=["without a word", "close_notify"])
def test_a_peer_that_hangs_up_during_the_tls_handshake(farewell: bytes) -> None:
    with RealPeer() as peer:

        def hang_up(link: Link) -> None:
            link.send_raw(farewell)
            link.shut()

        peer.on_accept = hang_up
        assert failure(peer.url.replace("ws://", "wss://")) == "localhost ended the connection during the TLS handshake"


def test_a_tls_handshake_that_never_ends() -> None:
    with RealPeer() as peer:
        said: list[str] = []
        took_s = taken_s(lambda: said.append(failure(peer.url.replace("ws://", "wss://"), ConnectionLimits(0.3, 1000))))
        assert said == ["no TLS connection to localhost within 0.3 s"] and took_s <= 0.8


# ---- nothing is left behind ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("trusting")
def test_no_failure_leaves_a_socket_or_a_thread(
    monkeypatch: pytest.MonkeyPatch, authority: trustme.CA, closed_port: int, black_hole: int
) -> None:
    brief = ConnectionLimits(0.02, 1000)
    with (
        RealPeer() as plain,
        RealPeer(server_side(authority, "other.example")) as wrong,
        RealPeer(server_side(authority, "localhost")) as right,
    ):

        def everything() -> None:
            failure(f"ws://{IPV4}:{closed_port}/")
            failure(f"ws://{IPV4}:{black_hole}/", brief)
            failure(wrong.url)
            for peer in (plain, right):
                peer.refuse(503)
                failure(peer.url)
                peer.stay_mute()
                failure(peer.url, ConnectionLimits(0.5, 1000))  # shorter, a busy peer would be mute to the next one
                peer.hang_up()
                failure(peer.url)
                peer.answer_raw(b"nonsense\r\n\r\n")
                failure(peer.url)
                peer.refuse(500)
                with pytest.raises(ConnectFailed):
                    WebSocketTransport(RealRuntime()).fetch(peer.fetch_url, GENEROUS, never)
                peer.answer("x")
                WebSocketTransport(RealRuntime()).fetch(peer.fetch_url, GENEROUS, never)
                connect(peer.url).close()
            for peer in (plain, wrong, right):
                peer.forget_links()

        everything()
        before = len(os.listdir("/proc/self/fd")), threading.active_count()
        for _ in range(2):
            everything()
        assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before
