"""Simulated exchanges with the protocols of real ones, which require subscriptions and confirm them or not."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from mockws_server.frames import OutgoingFrame
from mockws_server.script import Script
from sim.checks.feed_model import WINDOW
from sim.kernel.runtime import SimRuntime
from sim.world import network as net
from sim.world.exchange import SimExchange, content_of
from sim.world.network import Peer, ReceivedMessage, SimNetwork
from tradebot.core.events import BUY, SELL, Side, Tick

_TICK = msgspec.json.Decoder(Tick)


def _tick_of(message: bytes) -> Tick | None:
    """The market tick in a message; None for other messages."""
    try:
        return _TICK.decode(message)
    except msgspec.DecodeError:
        return None


class SubscriptionExchange(SimExchange):
    """Sends trades only to subscribed clients, in its own format. `deaf_to`: number of connections that are never
    confirmed.
    """

    def __init__(self, script: Script, *, skew_ms: int = 0, deaf_to: int = 0) -> None:
        super().__init__(script, skew_ms=skew_ms)
        self._deaf_to = deaf_to
        self._asked: list[Peer] = []

    def taker_of(self, tick: Tick) -> Side:
        """The taker's side to be reported of a market tick, noted in `takers`. Without one it alternates by number."""
        taker: Side = tick.taker or (BUY if (tick.seq or 0) % 2 else SELL)
        self.takers.setdefault(content_of(tick), set()).add(taker)
        return taker

    def online(self, runtime: SimRuntime) -> SimNetwork:
        """Attach to a new process without subscriptions."""
        self._asked = []
        return super().online(runtime)

    def listeners(self) -> Sequence[Peer]:
        """The subscribed clients."""
        self._asked = [peer for peer in self._asked if peer.open]
        return self._asked

    def opened(self, peer: Peer) -> None:
        """See `SimExchange.opened`; the first `deaf_to` connections are ignored."""
        super().opened(peer)
        peer.deaf = self._deaf_to > 0
        self._deaf_to -= peer.deaf

    def received(self, peer: Peer, message: ReceivedMessage) -> None:
        """Handle a text message, unless this connection is ignored."""
        if message.kind == "text" and peer.open and not peer.deaf:
            self.heard(peer, json.loads(message.data))

    def heard(self, peer: Peer, said: dict[str, Any]) -> None:
        """Handle a message of a client."""
        raise NotImplementedError

    def answer(self, peer: Peer, value: object) -> None:
        """Send a JSON message to one client."""
        self.send(peer, json.dumps(value, separators=(",", ":")).encode())


class SimKraken(SubscriptionExchange):
    """Version 2 of Kraken's API: an answer to each subscription, then a snapshot of the last `snapshot` trades.

    `newest_first` above 0: snapshots and frames have the newest trade first, and frames have that many trades.
    `unknown` symbols are refused.
    """

    def __init__(
        self,
        script: Script,
        *,
        skew_ms: int = 0,
        deaf_to: int = 0,
        snapshot: int = 0,
        newest_first: int = 0,
        unknown: Sequence[str] = (),
    ) -> None:
        super().__init__(script, skew_ms=skew_ms, deaf_to=deaf_to)
        self._unknown = frozenset(unknown)
        self._recent: deque[dict[str, Any]] = deque(maxlen=snapshot)
        self._newest_first = newest_first
        self._waiting: list[dict[str, Any]] = []

    def online(self, runtime: SimRuntime) -> SimNetwork:
        """Attach to a new process; trades waiting for a full frame are discarded."""
        self._waiting = []
        return super().online(runtime)

    def restart_numbering(self) -> None:
        """Restart the numbering and clear the history."""
        super().restart_numbering()
        self._recent.clear()

    def heard(self, peer: Peer, said: dict[str, Any]) -> None:
        """Confirm a subscription and send its snapshot, followed by trades."""
        if said.get("method") != "subscribe":
            return
        for symbol in said["params"]["symbol"]:
            if symbol in self._unknown:
                error = {"method": "subscribe", "success": False, "symbol": symbol}
                self.answer(peer, {**error, "error": f"Currency pair not supported {symbol}"})
                continue
            result = {"channel": "trade", "symbol": symbol, "snapshot": True}
            self.answer(peer, {"method": "subscribe", "result": result, "success": True})
            trades = [trade for trade in self._recent if trade["symbol"] == symbol]
            if trades:
                sent = trades[::-1] if self._newest_first else trades
                self.answer(peer, {"channel": "trade", "type": "snapshot", "data": sent})
        if not self._unknown.issuperset(said["params"]["symbol"]):
            self._asked.append(peer)

    def announce(self, status: str) -> None:
        """Send the status of the trading engine to every client."""
        for peer in self.listeners():
            self.answer(peer, {"channel": "status", "type": "update", "data": [{"system": status}]})

    def translate(self, message: bytes) -> bytes:
        """Convert a market tick to a Kraken frame; other messages are unchanged."""
        trade = self._trade(message)
        return message if trade is None else _update([trade])

    def broadcast(self, message: OutgoingFrame) -> None:
        """With `newest_first`, collect trades until a frame is full."""
        trade = self._trade(message.data) if self._newest_first and message.opcode == net.TEXT else None
        if trade is None:
            super().broadcast(message)
            return
        self._waiting.append(trade)
        if len(self._waiting) >= self._newest_first:
            text, self._waiting = _update(self._waiting[::-1]), []
            for peer in self.listeners():
                self.send(peer, text)

    def _trade(self, message: bytes) -> dict[str, Any] | None:
        """Convert a market tick to a trade; None for other messages."""
        tick = _tick_of(message)
        if tick is None:
            return None
        when = datetime.fromtimestamp(tick.ts // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        trade = {
            "symbol": tick.symbol,
            "side": self.taker_of(tick).lower(),
            "price": tick.price,
            "qty": tick.volume,
            "ord_type": "market",
            "trade_id": tick.seq,
            "timestamp": f"{when}.{tick.ts % 1000:03d}000Z",
        }
        last = next((old["trade_id"] for old in reversed(self._recent) if old["symbol"] == tick.symbol), None)
        if last is not None and tick.seq is not None and abs(tick.seq - last) > WINDOW:
            self._recent.clear()  # an exchange whose numbering restarts has no earlier history
        self._recent.append(trade)
        return trade


def _update(trades: list[dict[str, Any]]) -> bytes:
    return json.dumps({"channel": "trade", "type": "update", "data": trades}, separators=(",", ":")).encode()


class SimKuCoin(SubscriptionExchange):
    """KuCoin's classic API: a token for each connection, then topics. Tokens are never given twice."""

    def __init__(self, script: Script, *, skew_ms: int = 0) -> None:
        super().__init__(script, skew_ms=skew_ms)
        self.token_answers: deque[
            net.HandshakeRefused | net.HandshakeRejected | net.HandshakeUnanswered | net.StreamEnd
        ] = deque()
        """Results of the next token requests; if empty, a token is returned."""
        self.tokens: list[str] = []
        self.urls: list[str] = []

    def fetched(self, number: int, url: str) -> net.FetchOutcome:
        """A token, or the next entry of `token_answers`."""
        if self.token_answers:
            return self.token_answers.popleft()
        self.tokens.append(f"secret{number}token")
        servers = [{"endpoint": "wss://sim.kucoin.example/endpoint", "pingInterval": 18000, "pingTimeout": 10000}]
        return net.HttpAnswer(
            json.dumps({"code": "200000", "data": {"token": self.tokens[-1], "instanceServers": servers}})
        )

    def handshake(self, number: int, url: str) -> net.Handshake:
        """Accept only the newest token."""
        self.urls.append(url)
        if not self.tokens or f"token={self.tokens[-1]}" not in url:
            return net.HandshakeRejected(401)
        return super().handshake(number, url)

    def heard(self, peer: Peer, said: dict[str, Any]) -> None:
        """A ping or a subscription."""
        if said["type"] == "ping":
            self.answer(peer, {"id": said["id"], "type": "pong"})
        elif said["type"] == "subscribe":
            self.answer(peer, {"id": said["id"], "type": "ack"})
            self._asked.append(peer)

    def translate(self, message: bytes) -> bytes:
        """Convert a market tick to a KuCoin trade; other messages are unchanged."""
        tick = _tick_of(message)
        if tick is None:
            return message
        symbol = tick.symbol
        trade = {
            "symbol": symbol,
            "side": self.taker_of(tick).lower(),
            "type": "match",
            "price": str(tick.price),
            "size": str(tick.volume),
            "tradeId": tick.event_id,
            "sequence": str(tick.seq),
            "time": str(tick.ts * 1_000_000),
        }
        said = {"type": "message", "topic": f"/market/match:{symbol}", "subject": "trade.l3match", "data": trade}
        return json.dumps(said, separators=(",", ":")).encode()


class SimBinance(SubscriptionExchange):
    """Binance's plain streams: an answer with the message's number, and trades by their own numbers."""

    def heard(self, peer: Peer, said: dict[str, Any]) -> None:
        """A subscription is confirmed."""
        if said.get("method") == "SUBSCRIBE":
            self.answer(peer, {"result": None, "id": said["id"]})
            self._asked.append(peer)

    def announce_shutdown(self) -> None:
        """Announce the shutdown of this server: the old connection may overlap with a new one."""
        self.connections_max = 2
        for peer in self.listeners():
            self.answer(peer, {"e": "serverShutdown", "E": self._now_ms()})

    def translate(self, message: bytes) -> bytes:
        """Convert a market tick to a Binance trade; other messages are unchanged."""
        tick = _tick_of(message)
        if tick is None:
            return message
        trade = {
            "e": "trade", "E": tick.ts, "s": tick.symbol, "t": tick.seq, "p": str(tick.price), "q": str(tick.volume),
            "T": tick.ts, "m": self.taker_of(tick) == SELL, "M": True,
        }  # fmt: skip
        return json.dumps(trade, separators=(",", ":")).encode()


class SimBybit(SubscriptionExchange):
    """Bybit: trades of the topics that a client asked for; a message with one unknown topic is refused as a whole.

    `silenced`: symbols whose trades are no longer sent.
    """

    def __init__(self, script: Script, *, skew_ms: int = 0) -> None:
        super().__init__(script, skew_ms=skew_ms)
        self._known = frozenset(script.symbols)
        self._topics: dict[int, set[str]] = {}
        self.silenced: set[str] = set()

    def heard(self, peer: Peer, said: dict[str, Any]) -> None:
        """A ping or a subscription of up to ten topics."""
        if said["op"] == "ping":
            self.answer(peer, {"success": True, "ret_msg": "pong", "op": "ping"})
            return
        symbols = [topic.removeprefix("publicTrade.") for topic in said["args"]]
        assert len(symbols) <= 10, "more topics than a message may have"
        unknown = [symbol for symbol in symbols if symbol not in self._known]
        words = f"error:handler not found,topic:publicTrade.{unknown[0]}" if unknown else ""
        self.answer(peer, {"success": not unknown, "ret_msg": words, "op": "subscribe"})
        if not unknown:
            self._topics.setdefault(peer.number, set()).update(symbols)
            if peer not in self._asked:
                self._asked.append(peer)

    def send(self, peer: Peer, text: bytes) -> None:
        """Send only trades that the client subscribed to."""
        topic = json.loads(text).get("topic") if text.startswith(b'{"topic"') else None
        symbol = None if topic is None else topic.removeprefix("publicTrade.")
        if symbol is None or (symbol in self._topics.get(peer.number, ()) and symbol not in self.silenced):
            super().send(peer, text)

    def translate(self, message: bytes) -> bytes:
        """Convert a market tick to a Bybit frame; other messages are unchanged."""
        tick = _tick_of(message)
        if tick is None:
            return message
        trade = {
            "T": tick.ts, "s": tick.symbol, "S": self.taker_of(tick).capitalize(),
            "v": str(tick.volume), "p": str(tick.price),
            "i": tick.event_id or f"{tick.symbol}-{tick.seq}", "BT": False,
        }  # fmt: skip
        said = {"topic": f"publicTrade.{tick.symbol}", "type": "snapshot", "ts": tick.ts, "data": [trade]}
        return json.dumps(said, separators=(",", ":")).encode()
