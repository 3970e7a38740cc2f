"""A simulated exchange: plays mockws scenarios over the simulated network and records everything that it sends.

Its messages are made by the same code as those of bin/mockws (`mockws_server.script`, `frames`); only the socket server
is replaced. In addition to script actions, `at` schedules any action in a process: take the link down, quit, return.

An exchange outlives the engine's processes: `online` connects it to the next process, and its numbering continues.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from mockws_server.actions import (
    Action,
    Burst,
    DelayHandshake,
    Disconnect,
    DropPings,
    HalfFrame,
    Quit,
    Raw,
    Refuse,
    Reject,
    Reset,
    Stall,
)
from mockws_server.frames import OutgoingFrame, Sender
from mockws_server.handshake_policy import HandshakePolicy
from mockws_server.script import Script, ScriptSchedule
from sim.kernel.clock import START_MS
from sim.kernel.runtime import SimRuntime
from sim.world import network as net
from sim.world.network import Handshake, Peer, ReceivedMessage, SimNetwork
from tradebot.core.events import Side, Tick

ABNORMAL: Final = 1006
NO_CODE: Final = 1005
_SEED_STEP: Final = 1_000_003


class Sent(Struct, frozen=True):
    """A sent message: the number of the process (from 1), the number of the connection, and the payload."""

    process: int
    peer: int
    data: bytes


Content = tuple[str, int, float, float]
"""Symbol, time (Unix ms), price and volume of a trade."""


def content_of(tick: Tick) -> Content:
    """What a trade is recognized by, without its number and its side."""
    return tick.symbol, tick.ts, tick.price, tick.volume


class SimExchange:
    """The server of one scenario. `skew_ms`: how far its clock is ahead of the engine's at the start."""

    def __init__(self, script: Script, *, skew_ms: int = 0) -> None:
        self._script = script
        self._skew_ms = skew_ms
        self._sender = Sender(script.symbols, script.seed, style=script.style)
        self._numberings = 1
        self._appointments: list[tuple[float, Callable[[], None]]] = []
        self._answers: deque[Handshake] = deque()
        self._always: Handshake | None = None
        self._hang_ups: deque[tuple[float, int]] = deque()
        self._handshake_policy = HandshakePolicy()
        self._no_pongs_until_s = 0.0
        self._processes = 0
        self._elapsed_before_s = 0.0
        self._stalls: dict[int, float] = {}
        self._down = False
        self._fragments = b""
        self.connections_max = 1
        """The maximum number of simultaneous connections of a client: 2 only after an announced restart."""
        self.sent: list[Sent] = []
        """All sent messages in order, without suppressed ones."""
        self.takers: dict[Content, set[Side]] = {}
        """The sides of the takers of all trades, as the exchange means them; none if it sends the market's own JSON."""
        self.networks: list[SimNetwork] = []
        """One for each process, in order."""

    @property
    def network(self) -> SimNetwork:
        """The network of the running (or last) process."""
        return self.networks[-1]

    def at(self, seconds: float, do: Callable[[], None]) -> None:
        """Schedule `do` at `seconds` in the next process. It must not block."""
        self._appointments.append((seconds, do))

    def perform_at(self, seconds: float, action: Action) -> None:
        """Schedule an action at `seconds` in the next process."""
        self.at(seconds, lambda: self.perform(action))

    def while_away(self, ticks: int) -> None:
        """Advance the market by `ticks` trades while no process is connected."""
        for message in self._sender.messages(Burst(ticks), self._now_ms()) if ticks else ():
            self.translate(message.data)

    def answer_next(self, *handshakes: Handshake) -> None:
        """Set the results of the next handshakes, in order."""
        self._answers.extend(handshakes)

    def answer_always(self, handshake: Handshake | None) -> None:
        """Set the default result of handshakes; None: success."""
        self._always = handshake

    def hang_up_on(self, connections: int, after_s: float, code: int = 1012) -> None:
        """Close each of the next `connections` connections with `code`, `after_s` after it is opened."""
        self._hang_ups.extend([(after_s, code)] * connections)

    def restart_numbering(self) -> None:
        """Restart the numbering at 1, with new trades."""
        seed = self._script.seed + _SEED_STEP * self._numberings
        self._sender = Sender(self._script.symbols, seed, style=self._script.style)
        self._numberings += 1

    def spike(self, price: float) -> None:
        """Send the market's next trade with an implausible price; a later repetition has the real price."""
        for message in self._sender.messages(Burst(1), self._now_ms()):
            tick = replace(msgspec.json.decode(message.data, type=Tick), price=price)
            self.broadcast(message._replace(data=msgspec.json.encode(tick)))

    def online(self, runtime: SimRuntime) -> SimNetwork:
        """Attach to a new process and play the script from its beginning."""
        if self.networks:
            self._elapsed_before_s += self.network.runtime.elapsed_s
        self._processes += 1
        self._handshake_policy = HandshakePolicy()
        self._no_pongs_until_s = 0.0
        self._stalls.clear()
        self._down = False
        network = SimNetwork(runtime, self)
        self.networks.append(network)
        for seconds, do in self._appointments:
            runtime.call_at(seconds, do)
        self._appointments = []
        self._play_on(ScriptSchedule(self._script, runtime.elapsed_s))
        return network

    def _play_on(self, schedule: ScriptSchedule) -> None:
        due_s = schedule.next_at()
        if due_s is None or self._down:
            return

        def turn() -> None:
            for action in schedule.due(due_s):
                self.perform(action)
            self._play_on(schedule)

        self.network.runtime.call_at(due_s, turn)

    def set_clock(self, skew_ms: int) -> None:
        """Set the clock to `skew_ms` ahead of the engine's initial clock."""
        self._skew_ms = skew_ms

    def heal(self) -> None:
        """Stop all faults; the client must recover from the effects of earlier ones."""
        network = self.network
        self._answers.clear()
        self._always = None
        self._hang_ups.clear()
        self._handshake_policy.clear()
        self._no_pongs_until_s = 0.0
        self._set_pongs()
        self._stalls.clear()
        for peer in network.peers:
            peer.mute = False
        self._skew_ms = 0
        network.slow_down()
        network.link_up()
        self.return_if_away()

    def _now_ms(self) -> int:
        # Not the engine's wall clock: that one may jump.
        return START_MS + self._skew_ms + round((self._elapsed_before_s + self.network.runtime.elapsed_s) * 1000)

    def _open(self) -> list[Peer]:
        return [peer for peer in self.network.peers if peer.open]

    # ---- actions -----------------------------------------------------------------------------------------------

    def perform(self, action: Action) -> None:
        """Perform an action now."""
        network = self.network
        now_s = network.runtime.elapsed_s
        for message in self._sender.messages(action, self._now_ms()):
            self.broadcast(message)
        match action:
            case Stall():
                for peer in self._open():
                    self._mute(peer, action.seconds)
            case HalfFrame():
                for peer in self._open():
                    peer.send_half(self._sender.half(self._now_ms()).data.decode())
            case Raw():
                for peer in self._open():
                    peer.send_bytes(action.data)
            case Disconnect():
                for peer in self._open():
                    _disconnect(peer, action.code, action.reason)
            case Reset():
                for peer in self._open():
                    peer.reset(lose_in_flight=True)
            case Refuse() | DelayHandshake() | Reject():
                self._handshake_policy.add(action, now_s)
            case DropPings():
                self._drop_pings(now_s + action.seconds)
            case Quit():
                self.quit()
            case _:
                pass

    def broadcast(self, message: OutgoingFrame) -> None:
        """Send a message of the market to all listeners. May be overridden."""
        if message.opcode == net.TEXT and message.fin:
            text = self.translate(message.data)
            for peer in self.listeners():
                self.send(peer, text)
            return
        data = net.frame(message.opcode, message.data, message.fin)
        whole = None
        if message.opcode < net.CLOSE:
            self._fragments = (self._fragments if message.opcode == net.CONTINUATION else b"") + message.data
            whole = self._fragments if message.fin else None
        for peer in self.listeners():
            if peer.send_bytes(data) and whole is not None:
                self.sent.append(Sent(self._processes, peer.number, whole))

    def send(self, peer: Peer, text: bytes) -> None:
        """Send a text message to one client and record it, unless it is suppressed."""
        if peer.send_bytes(net.frame(net.TEXT, text)):
            self.sent.append(Sent(self._processes, peer.number, text))

    def translate(self, message: bytes) -> bytes:
        """Convert a market message to this exchange's format; here unchanged. May be overridden."""
        return message

    def listeners(self) -> Sequence[Peer]:
        """The receivers of a broadcast: every open connection. May be overridden."""
        return self._open()

    def _mute(self, peer: Peer, seconds: float) -> None:
        peer.mute = True
        self._stalls[peer.number] = until_s = self.network.runtime.elapsed_s + seconds

        def speak() -> None:
            if self._stalls.get(peer.number) == until_s:
                peer.mute = False

        self.network.later(seconds, speak)

    def _drop_pings(self, until_s: float) -> None:
        """Stop answering pings on all connections, including later ones."""
        self._no_pongs_until_s = max(self._no_pongs_until_s, until_s)
        self._set_pongs()
        self.network.runtime.call_at(self._no_pongs_until_s, self._set_pongs)

    def _set_pongs(self) -> None:
        for peer in self._open():
            peer.answers_pings = self.network.runtime.elapsed_s >= self._no_pongs_until_s

    def quit(self) -> None:
        """The server's process ends: connections are closed with 1001, and nothing listens until `come_back`."""
        for peer in self._open():
            peer.close(1001, "server is going away")
        self._down = True

    def come_back(self) -> None:
        """Listen again after `quit` and play the script from its beginning; the market has continued."""
        self._down = False
        self._play_on(ScriptSchedule(self._script, self.network.runtime.elapsed_s))

    def return_if_away(self) -> None:
        """`come_back`, if it quit."""
        if self._down:
            self.come_back()

    # ---- Server ------------------------------------------------------------------------------------------------

    def handshake(self, number: int, url: str) -> Handshake:
        """The result of a handshake: from `answer_next`, else from the script, else the default."""
        if self._down:
            return net.HandshakeRefused()
        if self._answers:
            return self._answers.popleft()
        refusal = self._handshake_policy.on_accept(self.network.runtime.elapsed_s)
        if refusal is not None:
            return net.StreamEnd(reset=refusal.reset)
        match self._handshake_policy.on_request():
            case Reject(status=status, retry_after_s=retry_after_s):
                return net.HandshakeRejected(status, None if retry_after_s is None else float(retry_after_s))
            case DelayHandshake(seconds=seconds):
                return net.HandshakeAccepted(seconds)
            case None:
                return net.HandshakeAccepted() if self._always is None else self._always

    def opened(self, peer: Peer) -> None:
        """Apply dropped pings and scheduled hang-ups to the new connection."""
        self._set_pongs()
        if self._hang_ups:
            after_s, code = self._hang_ups.popleft()
            self.network.later(after_s, lambda: peer.close(code))

    def received(self, peer: Peer, message: ReceivedMessage) -> None:
        """Ignore messages of clients."""

    def fetched(self, number: int, url: str) -> net.FetchOutcome:
        """No HTTP endpoint. May be overridden."""
        return net.HandshakeRefused()


def _disconnect(peer: Peer, code: int, reason: str) -> None:
    if code == ABNORMAL:
        peer.end()
    else:
        peer.close(None if code == NO_CODE else code, reason)
