"""The simulated network and transport alone; tests/contract tests what they share with the real one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sim import SimRuntime
from sim.world.network import (
    TEXT,
    FetchOutcome,
    Handshake,
    HandshakeAccepted,
    HandshakeRefused,
    HandshakeRejected,
    HandshakeUnanswered,
    HttpAnswer,
    Peer,
    ReceivedMessage,
    SimNetwork,
    StreamEnd,
    frame,
)
from sim.world.transport import MisusedConnection, SimConnection, SimTransport
from tradebot.core.cancellation import Cancellation
from tradebot.feeds.websocket.transport import ConnectFailed, ConnectionLimits, ConnectionLost

URL = "ws://sim:9001"
LIMITS = ConnectionLimits(connect_timeout_s=5.0, max_message_bytes=1000)
LATENCY_S = 0.1


class Stub:
    """A server with configured answers."""

    def __init__(self, handshake: Handshake | None = None) -> None:
        self.answer: Handshake = HandshakeAccepted() if handshake is None else handshake
        self.peer: Peer | None = None
        self.asked: list[tuple[int, str]] = []

    def handshake(self, number: int, url: str) -> Handshake:
        self.asked.append((number, url))
        return self.answer

    def opened(self, peer: Peer) -> None:
        self.peer = peer

    def received(self, peer: Peer, message: ReceivedMessage) -> None:
        pass

    def fetched(self, number: int, url: str) -> FetchOutcome:
        return HttpAnswer("token", after_s=1.0) if number == 1 else HandshakeRejected(503, 7.0)


class Bench:
    """One history: a runtime, a network, a client."""

    def __init__(self, handshake: Handshake | None = None, seed: int = 1) -> None:
        self.server = Stub(handshake)
        self.runtime = SimRuntime(seed)
        self.network = SimNetwork(self.runtime, self.server, LATENCY_S)
        self.transport = SimTransport(self.runtime, self.network)

    def connect(self, limits: ConnectionLimits = LIMITS) -> SimConnection:
        return self.transport.connect(URL, limits, Cancellation(self.runtime))

    @property
    def peer(self) -> Peer:
        assert self.server.peer is not None
        return self.server.peer


def texts(connection: SimConnection, timeout_s: float) -> list[str]:
    """The texts received within `timeout_s`."""
    return [found.text for found in connection.receive(timeout_s) if found.kind == "text"]


def all_seeds(body: Callable[[Bench], None], handshake: Handshake | None = None) -> None:
    for seed in range(10):
        bench = Bench(handshake, seed)
        bench.runtime.run(lambda bench=bench: body(bench), until_s=1000.0)  # type: ignore[misc]


def test_a_handshake_takes_the_latency_there_and_back_and_what_the_server_adds() -> None:
    def body(bench: Bench) -> None:
        bench.connect()
        assert 2 * LATENCY_S + 0.5 <= bench.runtime.elapsed_s <= 4 * LATENCY_S + 0.51
        assert bench.server.asked == [(1, URL)]

    all_seeds(body, HandshakeAccepted(after_s=0.5))


@pytest.mark.parametrize(
    ("handshake", "status", "retry_after_s", "least_s", "most_s"),
    [
        (HandshakeRefused(), None, None, 2 * LATENCY_S, 4 * LATENCY_S),
        (StreamEnd(), None, None, 2 * LATENCY_S, 4 * LATENCY_S),
        (HandshakeRejected(429, 3.0, after_s=1.0), 429, 3.0, 1.0, 1.5),
        (HandshakeUnanswered(), None, None, 5.0, 5.0),
    ],
)
def test_a_failed_handshake_says_why_and_leaves_no_socket(
    handshake: Handshake, status: int | None, retry_after_s: float | None, least_s: float, most_s: float
) -> None:
    def body(bench: Bench) -> None:
        with pytest.raises(ConnectFailed) as failed:
            bench.connect()
        assert (failed.value.status, failed.value.retry_after_s) == (status, retry_after_s)
        assert least_s <= bench.runtime.elapsed_s <= most_s + 0.01
        assert (bench.network.sockets, bench.network.sockets_max) == (0, 1)

    all_seeds(body, handshake)


class Late(Cancellation):
    """A stop that is requested from second 1.7 on."""

    def __init__(self, runtime: SimRuntime) -> None:
        super().__init__(runtime)
        self._clock = runtime

    def is_requested(self) -> bool:
        return self._clock.elapsed_s > 1.7


def test_a_stop_ends_a_handshake_within_half_a_second() -> None:
    def body(bench: Bench) -> None:
        with pytest.raises(ConnectFailed, match="stopping"):
            bench.transport.connect(URL, LIMITS, Late(bench.runtime))
        assert 1.7 <= bench.runtime.elapsed_s <= 2.3

    all_seeds(body, HandshakeUnanswered())


def test_messages_arrive_whole_in_order_and_not_before_their_latency() -> None:
    def body(bench: Bench) -> None:
        connection = bench.connect()
        sent = [f"message {n}" * n for n in range(50)]
        began_s = bench.runtime.elapsed_s
        for text in sent:
            assert bench.peer.send_text(text)
        got = texts(connection, 1.0)
        assert bench.runtime.elapsed_s >= began_s + LATENCY_S
        while len(got) < len(sent):
            got += texts(connection, 1.0)
        assert got == sent
        assert bench.network.sessions[0].texts == sent

    all_seeds(body)


def test_nothing_gets_through_while_the_link_is_down_and_all_of_it_afterwards() -> None:
    def body(bench: Bench) -> None:
        connection = bench.connect()
        bench.network.link_down()
        bench.peer.send_text("one")
        connection.send_text("two")
        assert texts(connection, 50.0) == []
        assert bench.peer.received == []
        bench.network.link_up()
        assert texts(connection, 1.0) == ["one"]
        connection.receive(1.0)
        assert bench.peer.received == [ReceivedMessage("text", b"two")]

    all_seeds(body)


def test_an_attempt_begun_while_the_link_is_down_succeeds_when_it_comes_back_in_time() -> None:
    def body(bench: Bench) -> None:
        bench.network.link_down()
        bench.runtime.call_at(3.0, bench.network.link_up)
        bench.connect()
        assert bench.runtime.elapsed_s > 3.0
        bench.network.link_down(unreachable=True)
        with pytest.raises(ConnectFailed, match="unreachable"):
            bench.connect()

    all_seeds(body)


def test_a_mute_peer_answers_nothing_until_it_speaks_again() -> None:
    def body(bench: Bench) -> None:
        connection = bench.connect()
        bench.peer.mute = True
        connection.ping()
        assert not bench.peer.send_text("lost")
        assert connection.receive(10.0) == []
        bench.peer.mute = False
        connection.ping()
        assert [found.kind for found in connection.receive(1.0)] == ["pong"]

    all_seeds(body)


def test_half_a_frame_is_nothing_and_nothing_passes_it() -> None:
    def body(bench: Bench) -> None:
        connection = bench.connect()
        bench.peer.send_half("whole")
        assert not bench.peer.send_text("behind it")
        connection.ping()
        assert connection.receive(10.0) == []
        bench.peer.send_rest()
        assert texts(connection, 1.0) == ["whole"]

    all_seeds(body)


def test_a_reset_may_lose_what_is_in_flight() -> None:
    def body(bench: Bench) -> None:
        connection = bench.connect()
        bench.peer.send_text("lost")
        bench.peer.reset(lose_in_flight=True)
        with pytest.raises(ConnectionLost, match="reset") as lost:
            connection.receive(1.0)
        assert lost.value.code == 1006
        assert bench.network.sockets == 0

    all_seeds(body)


def test_a_reset_that_has_arrived_is_met_by_sending_too() -> None:
    def body(bench: Bench) -> None:
        connection = bench.connect()
        bench.peer.reset()
        connection.send_text("not yet known")
        bench.runtime.sleep(1.0)
        with pytest.raises(ConnectionLost):
            connection.ping()

    all_seeds(body)


def test_the_server_learns_of_the_clients_close() -> None:
    def body(bench: Bench) -> None:
        connection = bench.connect()
        connection.close(1001)
        connection.close()
        bench.runtime.sleep(1.0)
        assert [(message.kind, message.code) for message in bench.peer.received] == [("close", 1001), ("end", None)]
        assert not bench.peer.open
        assert bench.network.sockets == 0

    all_seeds(body)


def test_a_client_that_gave_up_before_the_server_accepted_is_known_to_be_gone() -> None:
    def body(bench: Bench) -> None:
        with pytest.raises(ConnectFailed, match="no completed handshake"):
            bench.connect()
        bench.runtime.sleep(10.0)
        assert [message.kind for message in bench.peer.received] == ["end"]

    all_seeds(body, HandshakeAccepted(after_s=8.0))


@pytest.mark.parametrize("how", ["after close", "after loss", "by another thread"])
def test_misuse_is_an_error(how: str) -> None:
    def body(bench: Bench) -> None:
        connection = bench.connect()
        if how == "after close":
            connection.close()
        elif how == "after loss":
            bench.peer.end()
            with pytest.raises(ConnectionLost):
                connection.receive(1.0)
        errors: list[MisusedConnection] = []

        def use() -> None:
            try:
                connection.receive(1.0)
            except MisusedConnection as error:
                errors.append(error)

        if how == "by another thread":
            bench.runtime.spawn("other", use).join()
        else:
            use()
        assert len(errors) == 1

    all_seeds(body)


def test_bytes_are_read_by_the_products_own_decoder() -> None:
    def body(bench: Bench) -> None:
        connection = bench.connect()
        bench.peer.send_bytes(frame(TEXT, b"\xff\xfe"))
        with pytest.raises(ConnectionLost) as lost:
            connection.receive(1.0)
        assert lost.value.code == 1007
        bench.runtime.sleep(1.0)
        assert bench.peer.received[0].code == 1007

    all_seeds(body)


def test_fetch_gives_the_answer_or_says_why_not() -> None:
    def body(bench: Bench) -> None:
        assert bench.transport.fetch("http://sim/token", LIMITS, Cancellation(bench.runtime)) == "token"
        with pytest.raises(ConnectFailed) as failed:
            bench.transport.fetch("http://sim/token", LIMITS, Cancellation(bench.runtime))
        assert (failed.value.status, failed.value.retry_after_s) == (503, 7.0)
        assert bench.network.sockets == 0

    all_seeds(body)


def test_one_seed_is_one_history() -> None:
    def history(seed: int) -> str:
        bench = Bench(seed=seed)

        def body() -> None:
            connection = bench.connect()
            for n in range(20):
                bench.peer.send_text(f"{n}")
                connection.receive(0.15)

        bench.runtime.run(body)
        return bench.runtime.history_hash()

    assert len({history(7) for _ in range(3)}) == 1
    assert len({history(seed) for seed in range(5)}) == 5
