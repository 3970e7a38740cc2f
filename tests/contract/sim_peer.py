"""The peer of the wire's contract suite over the simulated network, and the driver that runs a case over seeds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from sim import SimRuntime
from sim.world.network import (
    BINARY,
    PING,
    PONG,
    FetchOutcome,
    Handshake,
    HandshakeAccepted,
    HandshakeRefused,
    HandshakeRejected,
    HandshakeUnanswered,
    HttpAnswer,
    SimNetwork,
    StreamEnd,
    frame,
)
from sim.world.network import Peer as NetworkPeer
from sim.world.network import ReceivedMessage as NetworkReceived
from sim.world.transport import SimTransport
from tests.contract.peers import LONG_S, Received, WireBody, WireStage

SEEDS = range(12)


class SimPeer:
    """`tests.contract.peers.Peer` as a server of the simulated network."""

    url = "ws://sim:9001/feed"
    fetch_url = "http://sim:9001/token"

    def __init__(self, runtime: SimRuntime) -> None:
        self.network = SimNetwork(runtime, self, latency_s=0.001)
        self._runtime = runtime
        self._script: deque[Handshake | HttpAnswer] = deque()
        self._down = False
        self._answer_pings = True
        self._came = runtime.event()
        self._taken: dict[int, int] = {}

    # ---- the server, called by the world ----

    def handshake(self, number: int, url: str) -> Handshake:
        """What the script says; accepted when it says nothing."""
        if self._down:
            return HandshakeRefused()
        step = self._script.popleft() if self._script else HandshakeAccepted()
        assert not isinstance(step, HttpAnswer), "an answer is for fetch"
        return step

    def fetched(self, number: int, url: str) -> FetchOutcome:
        """What the script says."""
        if self._down:
            return HandshakeRefused()
        step = self._script.popleft()
        assert not isinstance(step, HandshakeAccepted), "an accepted handshake is for connect"
        return step

    def opened(self, peer: NetworkPeer) -> None:
        """The newest connection is this one."""
        peer.answers_pings = self._answer_pings
        self._came.set()

    def received(self, peer: NetworkPeer, message: NetworkReceived) -> None:
        """`take` may go on."""
        self._came.set()

    # ---- the script ----

    def accept(self) -> None:
        self._script.append(HandshakeAccepted())

    def refuse(self, status: int, retry_after: str | None = None) -> None:
        self._script.append(HandshakeRejected(status, self._seconds(retry_after)))

    def _seconds(self, retry_after: str | None) -> float | None:
        if retry_after is None:
            return None
        if retry_after.isdigit():
            return float(retry_after)
        try:
            when = parsedate_to_datetime(retry_after)
        except ValueError:
            return None
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        now = datetime.fromtimestamp(self._runtime.now_ms() / 1000, UTC)
        return max(0.0, (when - now).total_seconds())

    def stay_mute(self) -> None:
        self._script.append(HandshakeUnanswered())

    def hang_up(self) -> None:
        self._script.append(StreamEnd())

    def answer(self, text: str) -> None:
        self._script.append(HttpAnswer(text))

    def go_down(self) -> None:
        self._down = True

    # ---- on the newest connection ----

    @property
    def _newest(self) -> NetworkPeer:
        self._wait_until(lambda: bool(self.network.peers), "no connection came")
        return self.network.peers[-1]

    @property
    def answer_pings(self) -> bool:
        return self._answer_pings

    @answer_pings.setter
    def answer_pings(self, value: bool) -> None:
        self._answer_pings = value
        for peer in self.network.peers:
            peer.answers_pings = value

    def send_text(self, text: str) -> None:
        self._newest.send_text(text)

    def send_binary(self, data: bytes) -> None:
        self._newest.send_bytes(frame(BINARY, data))

    def ping(self, data: bytes = b"") -> None:
        self._newest.send_bytes(frame(PING, data))

    def pong(self, data: bytes = b"") -> None:
        self._newest.send_bytes(frame(PONG, data))

    def half_frame(self, text: str) -> None:
        self._newest.send_half(text)

    def other_half(self) -> None:
        self._newest.send_rest()

    def close(self, code: int | None, reason: str = "") -> None:
        self._newest.close(code, reason)

    def end(self) -> None:
        self._newest.end()

    def reset(self) -> None:
        self._newest.reset()

    def take(self) -> Received:
        peer = self._newest
        index = self._taken.get(peer.number, 0)
        self._wait_until(lambda: len(peer.received) > index, "nothing came from the client")
        self._taken[peer.number] = index + 1
        got = peer.received[index]
        return Received(got.kind, got.data)

    def _wait_until(self, there: Callable[[], bool], otherwise: str) -> None:
        deadline_s = self._runtime.monotonic() + LONG_S
        while not there():
            self._came.clear()
            self._came.wait(max(0.0, deadline_s - self._runtime.monotonic()))
            assert self._runtime.monotonic() < deadline_s, otherwise


def drive_wire_simulated(body: WireBody) -> None:
    """Run a case over the simulated network, once for each seed."""
    for seed in SEEDS:
        runtime = SimRuntime(seed)
        peer = SimPeer(runtime)
        stage = WireStage(runtime, SimTransport(runtime, peer.network), peer, slack_s=0.01)
        try:
            runtime.run(lambda stage=stage: body(stage))  # type: ignore[misc]  # mypy does not infer a lambda's default
        except BaseException as error:
            error.add_note(f"SimRuntime({seed})\n{runtime.trace.tail(30)}")
            raise
