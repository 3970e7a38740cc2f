"""mockws as a real process: what clients receive for ticks and for each kind of fault, and that it stops promptly."""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import websocket
import zstandard

from mockws_server import actions
from tests.e2e.mockws import BIN, MockWsProcess
from tests.e2e.process import SESSION, environment, wait_until

OP_TEXT, OP_BINARY, OP_CLOSE, OP_PING, OP_PONG = 1, 2, 8, 9, 10
QUICK_S = 5.0


@pytest.fixture
def mockws(tmp_path: Path) -> Iterator[MockWsProcess]:
    with MockWsProcess(tmp_path) as process:
        yield process


class Client:
    """A client that receives raw frames, including invalid ones. A read waits at most QUICK_S."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self.ws = websocket.create_connection(url, timeout=timeout_s)
        assert self.ws.sock is not None
        self.sock: socket.socket = self.ws.sock
        self.sock.settimeout(QUICK_S)

    def frame(self) -> tuple[int, bytes]:
        """The opcode and payload of the next frame, which must be final."""
        first, size = self.exactly(2)
        assert first & 0x80
        if size == 126:
            [size] = struct.unpack("!H", self.exactly(2))
        elif size == 127:
            [size] = struct.unpack("!Q", self.exactly(8))
        return first & 0x0F, self.exactly(size)

    def exactly(self, size: int) -> bytes:
        """The next `size` bytes of the stream."""
        data = b""
        while len(data) < size:
            piece = self.sock.recv(size - len(data))
            assert piece, "the stream has ended"
            data += piece
        return data

    def ticks(self, count: int) -> list[dict[str, Any]]:
        """The next frames, which must be JSON texts."""
        found = []
        for _ in range(count):
            opcode, data = self.frame()
            assert opcode == OP_TEXT
            found.append(json.loads(data))
        return found

    def ended(self) -> bool:
        """Whether the stream ends here; then closes this side too."""
        data = self.sock.recv(1)
        self.sock.close()
        return data == b""

    def quiet(self, seconds: float) -> bool:
        """Whether nothing arrives in that time."""
        return not select.select([self.sock], [], [], seconds)[0]

    def ping(self, data: bytes) -> None:
        self.ws.ping(data)

    def close(self, code: int) -> None:
        """Send a close frame and nothing else."""
        self.ws.send(struct.pack("!H", code), OP_CLOSE)


class Connect:
    """Creates clients and closes their sockets."""

    def __init__(self) -> None:
        self._made: list[Client] = []

    def __call__(self, server: MockWsProcess, timeout_s: float = QUICK_S) -> Client:
        """A client that the server already counts."""
        before = server.said.count(" connected from ")
        client = self.unseen(server, timeout_s)
        server.wait_said(" connected from ", before + 1)
        return client

    def unseen(self, server: MockWsProcess, timeout_s: float = QUICK_S) -> Client:
        """A client whose own side of the handshake is complete; the server's may not be."""
        client = Client(server.url, timeout_s)
        self._made.append(client)
        return client

    def close(self) -> None:
        for client in self._made:
            client.ws.shutdown()
            client.sock.close()


@pytest.fixture
def connect() -> Iterator[Connect]:
    made = Connect()
    yield made
    made.close()


@pytest.fixture
def client(mockws: MockWsProcess, connect: Connect) -> Client:
    return connect(mockws)


def patched(assignment: str) -> tuple[str, ...]:
    """The command that runs mockws with other limits, for those that would take long to reach."""
    return (
        sys.executable, "-c",
        f"import sys\nfrom mockws_server import cli, connection, hub\n{assignment}\nsys.exit(cli.main())",
    )  # fmt: skip


def let_in(mockws: MockWsProcess) -> bool:
    """Whether a connection is currently accepted."""
    try:
        return bool(mockws.health()["status"] == "ok")
    except (urllib.error.URLError, OSError):
        return False


def answered(client: Client) -> bool:
    """Whether a ping is answered, or anything else arrives, within a moment."""
    client.ping(b"?")
    return not client.quiet(0.05)


def tick_text(seq: int) -> bytes:
    return b'{"symbol":"SOL/USDC","price":101.25,"volume":1.5,"ts":1700000000000,"seq":%d}' % seq


class TestTicks:
    def test_announces_its_ports_and_answers_healthz(self, mockws: MockWsProcess) -> None:
        assert set(mockws.addresses) == {"ws", "ticks", "control"}
        assert all("127.0.0.1" in address for address in mockws.addresses.values())
        health = mockws.health()
        assert (health["status"], health["clients"], health["frames_sent"]) == ("ok", 0, 0)

    def test_zeromq_ticks_go_to_all_clients_byte_for_byte(self, mockws: MockWsProcess, connect: Connect) -> None:
        clients = [connect(mockws), connect(mockws)]
        texts = [tick_text(seq) for seq in range(1, 101)] + [b'{"ts":1,"volume":0,"price":1e2,"symbol":"X","more":[1]}']
        for text in texts:
            mockws.send_tick(text)
        for client in clients:
            assert [client.frame() for _ in texts] == [(OP_TEXT, text) for text in texts]

    def test_ticks_for_nobody_are_counted_and_dropped(self, mockws: MockWsProcess, connect: Connect) -> None:
        for seq in range(10):
            mockws.send_tick(tick_text(seq))
        wait_until(lambda: mockws.health()["frames_dropped"] == 10, "dropped ticks")
        client = connect(mockws)
        mockws.send_tick(tick_text(99))
        assert client.ticks(1)[0]["seq"] == 99

    def test_bad_messages_are_counted_and_never_fatal(self, mockws: MockWsProcess, client: Client) -> None:
        bad_ticks = (
            b"", b"{", b"\xff", b"[]", b'{"symbol":"A","price":-1,"volume":1,"ts":1}', b"[" * 60_000,
            b'{"symbol":"A","price":1,"volume":1,"ts":1,"x":"\xff"}',
        )  # fmt: skip
        bad_controls = (b"", b"{}", b'{"do":"nothing"}', b'{"do":"ticks"}', b"\xff", b"[" * 60_000)
        begun_s, count = time.monotonic(), 0
        for send, texts in ((mockws.send_tick, bad_ticks), (mockws.send_control, bad_controls)):
            for data in texts:
                send(data)
                count += 1
                wait_until(lambda count=count: mockws.health()["bad_messages"] == count, "it is counted")  # type: ignore[misc]
        mockws.wait_said("warning: skipped: ")
        assert mockws.said.count("warning") <= 1 + (time.monotonic() - begun_s)  # at most one a second
        mockws.send_tick(tick_text(1))
        assert client.ticks(1)[0]["seq"] == 1
        mockws.stop()

    def test_a_message_in_parts_has_the_same_bound(self, mockws: MockWsProcess, client: Client) -> None:
        """ZeroMQ limits the size of each part, but not their number."""
        tick = tick_text(1)
        mockws.send_tick_in_parts([tick[:-1], *[b" " * 60_000] * 2, b"}"])
        wait_until(lambda: mockws.health()["bad_messages"] == 1, "it is counted")
        mockws.wait_said("in 4 parts, more than 65536")
        mockws.send_tick_in_parts([tick[:-1], b"}"])
        assert client.frame() == (OP_TEXT, tick)

    def test_made_up_ticks_reach_two_clients_alike_and_in_time(self, mockws: MockWsProcess, connect: Connect) -> None:
        clients = [connect(mockws), connect(mockws)]
        begun_s = time.monotonic()
        mockws.control(actions.Ticks(20, 100.0))
        first, second = (client.ticks(20) for client in clients)
        assert first == second
        assert [tick["seq"] for tick in first] == list(range(1, 21))
        assert time.monotonic() - begun_s >= 0.19

    def test_what_clients_say_is_ignored(self, mockws: MockWsProcess, client: Client) -> None:
        for n in range(200):
            client.ws.send(json.dumps({"op": "subscribe", "n": n}))
        client.ping(b"still there?")
        assert client.frame() == (OP_PONG, b"still there?")

    def test_duplicates_gaps_and_disorder(self, mockws: MockWsProcess, client: Client) -> None:
        for seq in (1, 2, 3):
            mockws.control(actions.OneTick({"seq": seq}))
        mockws.control(actions.Duplicate(2))
        mockws.control(actions.Skip(2))
        for seq in (4, 5, 6):
            mockws.control(actions.OneTick({"seq": seq}))
        mockws.control(actions.Reorder(3))
        for seq in (7, 8, 9, 10):
            mockws.control(actions.OneTick({"seq": seq}))
        assert [tick["seq"] for tick in client.ticks(10)] == [1, 2, 3, 2, 3, 6, 9, 8, 7, 10]

    def test_a_flood_goes_out_fast(self, mockws: MockWsProcess, client: Client) -> None:
        """At least 30 000 ticks a second to one client; here the reader only counts bytes."""
        count = 120_000
        begun_s = time.monotonic()
        mockws.control(actions.Burst(count))
        seen = 0
        while seen < count:
            seen += client.sock.recv(1 << 18).count(b"}")
        assert count / (time.monotonic() - begun_s) > 30_000


class TestWeather:
    def test_text_raw_bytes_and_frames_of_any_kind(self, mockws: MockWsProcess, client: Client) -> None:
        mockws.control(actions.Text("häh?"))
        assert client.frame() == (OP_TEXT, "häh?".encode())
        mockws.control(actions.FrameOut(OP_TEXT, b"\xff\xfe"))
        assert client.frame() == (OP_TEXT, b"\xff\xfe")
        for size in (125, 126, 65_535, 65_536):
            mockws.control(actions.FrameOut(OP_BINARY, b"x" * size))
            assert client.frame() == (OP_BINARY, b"x" * size)
        mockws.control(actions.FrameOut(OP_PING, b"?"))
        assert client.frame() == (OP_PING, b"?")
        mockws.control({"do": "raw", "data": base64.b64encode(b"\x81\x02hi\x0b\x00").decode()})
        assert client.frame() == (OP_TEXT, b"hi")
        assert client.sock.recv(2) == b"\x0b\x00"

    def test_garbage(self, mockws: MockWsProcess, client: Client) -> None:
        mockws.control(actions.Garbage(12))
        assert len({client.frame()[1] for _ in range(12)}) == 12

    @pytest.mark.parametrize("code", [1000, 1001, 1011, 1013, 4999, 999])
    def test_disconnect_with_a_close_code(
        self, mockws: MockWsProcess, client: Client, code: int, connect: Connect
    ) -> None:
        mockws.control(actions.OneTick({"seq": 1}))
        mockws.control(actions.Disconnect(code, "bye"))
        mockws.control(actions.OneTick({"seq": 2}))
        assert client.ticks(1) == [{"seq": 1}]
        assert client.frame() == (OP_CLOSE, struct.pack("!H", code) + b"bye")
        client.close(1000)
        assert client.ended()
        mockws.wait_said(f"client 1 closed by mockws with {code} -> 0 clients")

    def test_disconnect_without_a_code(self, mockws: MockWsProcess, client: Client, connect: Connect) -> None:
        mockws.control(actions.Disconnect(1005))
        assert client.frame() == (OP_CLOSE, b"")

    def test_disconnect_without_a_close_frame(self, mockws: MockWsProcess, client: Client, connect: Connect) -> None:
        mockws.control(actions.OneTick({"seq": 1}))
        mockws.control(actions.Disconnect(1006))
        assert client.ticks(1) == [{"seq": 1}]
        assert client.ended()

    def test_a_client_that_does_not_answer_a_close_is_not_waited_for(
        self, mockws: MockWsProcess, client: Client, connect: Connect
    ) -> None:
        mockws.control(actions.Disconnect(1000))
        assert client.frame()[0] == OP_CLOSE
        assert client.ended()
        wait_until(lambda: mockws.health()["connections"] == 1, "only the question itself is connected")

    def test_a_close_of_the_client_is_answered(self, mockws: MockWsProcess, client: Client) -> None:
        client.close(4001)
        assert client.frame() == (OP_CLOSE, struct.pack("!H", 4001))
        assert client.ended()
        mockws.wait_said("client 1 closed by the client with 4001 -> 0 clients")

    def test_reset(self, mockws: MockWsProcess, client: Client) -> None:
        mockws.control(actions.OneTick({"seq": 1}))
        mockws.control(actions.Reset())
        assert client.ticks(1) == [{"seq": 1}]
        with pytest.raises(ConnectionResetError):
            client.sock.recv(1)
        mockws.wait_said("client 1 reset by mockws -> 0 clients")

    def test_stall_sends_nothing_and_answers_nothing(
        self, mockws: MockWsProcess, client: Client, connect: Connect
    ) -> None:
        mockws.control(actions.Stall(3600.0))
        late = connect(mockws)
        client.ping(b"anybody?")
        mockws.control(actions.OneTick({"seq": 1}))
        assert late.ticks(1) == [{"seq": 1}]  # connections opened in the meantime are not mute
        assert client.quiet(0.3)
        mockws.control(actions.Disconnect(1000))
        assert client.ended()  # without a close frame: it is mute

    def test_a_stall_ends(self, mockws: MockWsProcess, client: Client) -> None:
        begun_s = time.monotonic()
        mockws.control(actions.Stall(0.3))
        wait_until(lambda: answered(client), "the end of the stall")
        assert time.monotonic() - begun_s >= 0.3
        mockws.control(actions.OneTick({"seq": 2}))
        frames = [client.frame()]
        while frames[-1][0] == OP_PONG:
            frames.append(client.frame())
        assert frames[-1] == (OP_TEXT, b'{"seq":2}')

    def test_half_a_frame_then_silence_until_somebody_ends_it(
        self, mockws: MockWsProcess, client: Client, connect: Connect
    ) -> None:
        mockws.control(actions.HalfFrame())
        first, size = client.sock.recv(2)
        assert first == 0x81
        half = b""
        while len(half) < (2 + size) // 2 - 2:
            half += client.sock.recv(65_536)
        assert len(half) == (2 + size) // 2 - 2
        client.ping(b"")
        mockws.control(actions.Burst(10))
        client.close(1000)
        assert client.quiet(0.3)
        mockws.control(actions.Disconnect(1000))
        assert client.ended()  # no close frame in the middle of another

    def test_pings_are_dropped_while_ticks_go_on(self, mockws: MockWsProcess, client: Client) -> None:
        mockws.control(actions.DropPings(3600.0))
        client.ping(b"anybody?")
        client.close(4000)  # answered after the ping would have been
        mockws.control(actions.OneTick({"seq": 1}))
        assert client.frame() in ((OP_TEXT, b'{"seq":1}'), (OP_CLOSE, struct.pack("!H", 4000)))

    def test_dropping_pings_ends(self, mockws: MockWsProcess, client: Client) -> None:
        begun_s = time.monotonic()
        mockws.control(actions.DropPings(0.3))
        wait_until(lambda: answered(client), "pongs again")
        assert time.monotonic() - begun_s >= 0.3

    def test_rejected_handshakes_in_their_order(self, mockws: MockWsProcess, connect: Connect) -> None:
        mockws.control(actions.Reject(429, count=2, retry_after_s=1))
        mockws.control(actions.Reject(503))
        found = []
        for _ in range(3):
            with pytest.raises(websocket.WebSocketBadStatusException) as caught:
                connect.unseen(mockws)
            found.append((caught.value.status_code, (caught.value.resp_headers or {}).get("retry-after")))
        assert found == [(429, "1"), (429, "1"), (503, None)]
        connect(mockws)

    def test_delayed_handshakes(self, mockws: MockWsProcess, connect: Connect) -> None:
        mockws.control(actions.DelayHandshake(0.3))
        begun_s = time.monotonic()
        connect.unseen(mockws)
        assert time.monotonic() - begun_s >= 0.3
        mockws.control(actions.DelayHandshake(3600))
        with pytest.raises(websocket.WebSocketTimeoutException):
            connect.unseen(mockws, 0.2)
        assert mockws.health()["status"] == "ok"

    @pytest.mark.parametrize("reset", [False, True])
    def test_refused_connections(self, mockws: MockWsProcess, reset: bool, connect: Connect) -> None:
        mockws.control(actions.Refuse(count=2, reset=reset))
        for _ in range(2):
            if reset:  # which may happen before the connection counts as open
                with (
                    pytest.raises(ConnectionResetError),
                    socket.create_connection(mockws.address, timeout=QUICK_S) as raw,
                ):
                    raw.recv(1)
            else:
                with socket.create_connection(mockws.address, timeout=QUICK_S) as raw:
                    assert raw.recv(1) == b""
        connect(mockws)

    def test_refused_for_a_time(self, mockws: MockWsProcess) -> None:
        begun_s = time.monotonic()
        mockws.control(actions.Refuse(seconds=0.4))

        wait_until(lambda: let_in(mockws), "the end of the refusal")
        assert time.monotonic() - begun_s >= 0.4

    def test_quit(self, mockws: MockWsProcess, client: Client) -> None:
        mockws.control(actions.Quit())
        assert client.frame() == (OP_CLOSE, struct.pack("!H", 1001) + b"mockws ends")
        client.close(1001)
        assert client.ended()
        assert mockws.wait() == 0


class TestTheEnd:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    def test_at_once_while_clients_do_not_read(
        self, mockws: MockWsProcess, number: signal.Signals, connect: Connect
    ) -> None:
        """Stops within a second with clients that do not read, do not finish the handshake, or send no request."""
        connect(mockws)
        connect(mockws)
        mockws.control(actions.DelayHandshake(3600))
        asking = socket.create_connection(mockws.address)
        asking.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                       b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")  # fmt: skip
        mockws.wait_said("delaying a handshake")
        silent = socket.create_connection(mockws.address)
        mockws.control(actions.Burst(10_000_000))
        mockws.control(actions.Ticks(10_000, 1.0))
        wait_until(lambda: mockws.health()["frames_sent"] > 10_000, "buffers are filling")
        assert mockws.stop(number) < 1.0
        assert "was still connected when mockws ended" in mockws.said
        for sock in (asking, silent):
            sock.close()

    def test_sends_1001_to_those_who_listen(self, mockws: MockWsProcess, client: Client) -> None:
        mockws.process.send_signal(signal.SIGTERM)
        assert client.frame() == (OP_CLOSE, struct.pack("!H", 1001) + b"mockws ends")
        client.close(1001)
        assert client.ended()
        assert mockws.wait() == 0

    def test_a_restart_gets_the_same_port(self, mockws: MockWsProcess, tmp_path: Path, connect: Connect) -> None:
        connect(mockws)
        port = mockws.address[1]
        mockws.stop()
        with MockWsProcess(tmp_path, f"--port={port}") as again:
            assert again.address[1] == port


class TestManyClients:
    def test_a_slow_client_delays_nobody_and_is_cut_off(self, mockws: MockWsProcess, connect: Connect) -> None:
        connect(mockws)  # never reads
        quick = connect(mockws)
        count = 200_000  # about 20 MB: above the limit for unread data
        mockws.control(actions.Burst(count))
        seen = 0
        while seen < count:
            piece = quick.sock.recv(1 << 18)
            assert piece
            seen += piece.count(b"}")
        mockws.wait_said("client 1 cut off: it left more than 8 MiB unread -> 1 client")
        resident_kib = int(
            next(
                line.split()[1]
                for line in Path(f"/proc/{mockws.process.pid}/status").read_text().splitlines()
                if line.startswith("VmRSS")
            )
        )
        assert resident_kib < 120_000

    def test_a_client_that_reads_nothing_is_cut_off_in_time(self, tmp_path: Path, connect: Connect) -> None:
        with MockWsProcess(tmp_path, command=patched("connection.SLOW_S = 0.3")) as mockws:
            connect(mockws)
            mockws.control(actions.Burst(200_000))
            mockws.wait_said("client 1 cut off: it read nothing for 0.3 s -> 0 clients")
            assert mockws.health()["clients_cut"] == 1

    def test_more_clients_than_there_is_room_for_are_refused(self, tmp_path: Path, connect: Connect) -> None:
        with MockWsProcess(tmp_path, command=patched("hub.CONNECTIONS_MAX = 2")) as mockws:
            first, _second = connect(mockws), connect(mockws)
            with pytest.raises((websocket.WebSocketException, OSError)):
                connect.unseen(mockws)
            first.ws.shutdown()
            wait_until(lambda: let_in(mockws), "room again")

    def test_connects_and_leaves_without_a_trace(self, mockws: MockWsProcess, connect: Connect) -> None:
        def resources() -> tuple[int, int]:
            place = Path(f"/proc/{mockws.process.pid}")
            return len(list((place / "fd").iterdir())), len(list((place / "task").iterdir()))

        def settled() -> bool:
            return mockws.health()["connections"] == 1

        for _ in range(5):
            connect(mockws).ws.close()
        wait_until(settled, "all are gone")
        before = resources()
        for n in range(30):
            client = connect(mockws)
            if n % 3 == 0:
                client.ws.close()
            elif n % 3 == 1:
                mockws.control(actions.Reset())
                assert not client.quiet(QUICK_S)
            client.ws.shutdown()
        wait_until(settled, "all are gone")
        wait_until(lambda: resources() <= before, f"descriptors and threads as before, {before}")


class TestPlaying:
    def test_a_scenario_begins_with_its_first_client_and_ends(self, tmp_path: Path, connect: Connect) -> None:
        (tmp_path / "mine.toml").write_text(
            'description = "mine"\nsymbols = ["A", "B"]\nseed = 7\nrepeat = true\n'
            '[[step]]\ndo = "ticks"\ncount = 6\nper_s = 100\n'
            '[[step]]\ndo = "text"\ndata = "between"\n'
            '[[step]]\ndo = "wait"\nseconds = 0.1\n'
            '[[step]]\ndo = "burst"\ncount = 1000\n'
        )
        with MockWsProcess(tmp_path, "--scenario=./mine.toml", "--once", "--quit-at-end") as mockws:
            mockws.wait_said("waiting for a client")
            client = connect.unseen(mockws)
            ticks = client.ticks(6)
            assert [(tick["symbol"], tick["seq"]) for tick in ticks] == [
                ("A", 1), ("B", 1), ("A", 2), ("B", 2), ("A", 3), ("B", 3)
            ]  # fmt: skip
            assert client.frame() == (OP_TEXT, b"between")
            assert len(client.ticks(1000)) == 1000
            assert client.frame() == (OP_CLOSE, struct.pack("!H", 1000) + b"everything has been played")
            client.close(1000)
            assert client.ended()
            assert mockws.wait() == 0
        for line in (
            "ticks count=6 per_s=100 -> 1 client",
            'text data="between" -> 1 client',
            "everything has been played: 1 client",
        ):
            assert line in mockws.said

    def test_a_recorded_session_byte_for_byte(self, tmp_path: Path, connect: Connect) -> None:
        lines = SESSION.read_bytes().splitlines()[:2000]
        (tmp_path / "ticks.jsonl.zst").write_bytes(zstandard.compress(b"\n".join(lines)))
        with MockWsProcess(tmp_path, "--replay=ticks.jsonl.zst", "--speed=max", "--wait-clients=2") as mockws:
            first = connect(mockws)
            assert mockws.health()["frames_sent"] == 0
            second = connect(mockws)
            for client in (first, second):
                assert [client.frame()[1] for _ in lines] == lines
            mockws.wait_said("everything has been played")
            first.ping(b"")
            assert first.frame()[0] == OP_PONG  # it keeps running, without sending

    def test_weather_that_nobody_met_is_forgotten_in_the_next_round(self, tmp_path: Path, connect: Connect) -> None:
        (tmp_path / "mine.toml").write_text(
            'description = "mine"\nrepeat = 5\n'
            '[[step]]\ndo = "reject"\nstatus = 503\n[[step]]\ndo = "wait"\nseconds = 0.1\n'
        )
        with MockWsProcess(tmp_path, "--scenario=mine.toml", "--wait-clients=0") as mockws:
            mockws.wait_said("everything has been played")
            with pytest.raises(websocket.WebSocketBadStatusException):
                connect.unseen(mockws)
            connect.unseen(mockws)

    def test_all_of_a_recording_comes_before_the_end(self, tmp_path: Path, connect: Connect) -> None:
        # More than fits in the system's buffers, and no client reads before everything has been played.
        (tmp_path / "ticks.jsonl").write_bytes(SESSION.read_bytes() * 12)
        roomy = patched("connection.BACKLOG_BYTES_MAX = hub.ROOM_BYTES = 1 << 30")
        with MockWsProcess(
            tmp_path, "--replay=ticks.jsonl", "--speed=max", "--quit-at-end", command=roomy
        ) as mockws:  # fmt: skip
            client = connect.unseen(mockws)
            mockws.wait_said("everything has been played")
            time.sleep(0.8)  # a slow client: slower than mockws waits for after a stop signal
            seen, last = 0, b""
            while b"everything has been played" not in last[-50:]:
                last = client.sock.recv(1 << 18)
                assert last
                seen += last.count(b"}")
            assert seen == 12 * 13_932
            client.close(1000)
            assert client.ended()
            assert mockws.wait() == 0

    def test_raw_frames_and_captures_with_bad_lines_between(self, tmp_path: Path, connect: Connect) -> None:
        (tmp_path / "session").write_bytes(
            b'{"tradebot_capture":1,"exchange":"okx","symbols":["X"],"started_ms":1}\n'
            b'{"received_ms":1000,"connection":1,"text":"{\\"a\\": 1}"}\n\nnot json at all\n\xff\n'
            b'{"received_ms":1200,"connection":1,"text":"pong"}\n'
        )
        with MockWsProcess(tmp_path, "--replay=session", "--speed=2x", "--quit-at-end") as mockws:
            client = connect.unseen(mockws)
            assert client.frame() == (OP_TEXT, b'{"a": 1}')
            begun_s = time.monotonic()
            assert client.frame() == (OP_TEXT, b"not json at all")
            assert client.frame() == (OP_TEXT, b"pong")
            assert 0.05 < time.monotonic() - begun_s < QUICK_S
            assert client.frame()[0] == OP_CLOSE
            mockws.wait_said("session:5: skipped: not UTF-8")


class TestCommandLine:
    def run(self, tmp_path: Path, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mockws_server", *args],
            cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=30,
        )  # fmt: skip

    def test_a_port_in_use_is_said_in_a_line(self, mockws: MockWsProcess, tmp_path: Path) -> None:
        port = mockws.address[1]
        for args in ((f"--port={port}",), ("--port=0", f"--control={mockws.addresses['control']}")):
            answer = self.run(tmp_path, *args)
            assert (answer.returncode, answer.stdout) == (12, "")
            assert answer.stderr.count("\n") == 1
            assert "Address already in use" in answer.stderr

    def test_bin_mockws_is_one_process_and_ends_with_0(self, tmp_path: Path) -> None:
        with MockWsProcess(tmp_path, "--scenario=quiet", command=BIN) as mockws:
            status = Path(f"/proc/{mockws.process.pid}/cmdline").read_bytes()
            assert b"mockws" in status and not status.startswith((b"/bin/sh", b"sh"))
            mockws.stop(signal.SIGINT)

    def test_on_a_terminal_there_is_a_status_line(self, tmp_path: Path) -> None:
        master, slave = os.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "mockws_server", "--port=0", "--scenario=quiet"],
            cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=slave,
        )  # fmt: skip
        os.close(slave)
        seen = b""
        try:
            until = _deadline()
            while b"| 0 clients, 0 frames sent | waiting for a client" not in seen:
                seen += os.read(master, 4096)
                until()
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()
            process.wait()
            os.close(master)
            assert process.stdout is not None
            process.stdout.close()


def _deadline() -> Callable[[], None]:
    until_s = time.monotonic() + 10

    def check() -> None:
        assert time.monotonic() < until_s

    return check
