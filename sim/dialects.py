"""Simulated exchanges that speak as real ones do: they want to be asked for trades, and confirm that or do not."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from mockws_server.script import Script
from sim import network as net
from sim.account import WINDOW
from sim.exchange import Exchange
from sim.network import Peer, Received, SimNetwork
from sim.runtime import SimRuntime
from tradebot.events import Tick

_TICK = msgspec.json.Decoder(Tick)


class Asked(Exchange):
    """Sends trades only to those who asked, in its own form. `deaf_to`: so many connections are never confirmed."""

    def __init__(self, script: Script, *, skew_ms: int = 0, deaf_to: int = 0) -> None:
        super().__init__(script, skew_ms=skew_ms)
        self._deaf_to = deaf_to
        self._asked: list[Peer] = []

    def online(self, runtime: SimRuntime) -> SimNetwork:
        """A new process has asked for nothing yet."""
        self._asked = []
        return super().online(runtime)

    def listeners(self) -> Sequence[Peer]:
        """Those who asked for trades."""
        self._asked = [peer for peer in self._asked if peer.open]
        return self._asked

    def opened(self, peer: Peer) -> None:
        """As of every exchange; the first ones meet deaf ears."""
        super().opened(peer)
        peer.deaf = self._deaf_to > 0
        self._deaf_to -= peer.deaf

    def received(self, peer: Peer, message: Received) -> None:
        """A text is heard, unless this connection meets deaf ears."""
        if message.kind == "text" and peer.open and not peer.deaf:
            self.heard(peer, json.loads(message.data))

    def heard(self, peer: Peer, said: dict[str, Any]) -> None:
        """What a client said."""
        raise NotImplementedError

    def answer(self, peer: Peer, value: object) -> None:
        """A message to one client."""
        self.send(peer, json.dumps(value, separators=(",", ":")).encode())


class Kraken(Asked):
    """Version 2 of Kraken's API: an answer to each subscription, then a snapshot of the last `snapshot` trades."""

    def __init__(self, script: Script, *, skew_ms: int = 0, deaf_to: int = 0, snapshot: int = 0) -> None:
        super().__init__(script, skew_ms=skew_ms, deaf_to=deaf_to)
        self._recent: deque[dict[str, Any]] = deque(maxlen=snapshot)

    def heard(self, peer: Peer, said: dict[str, Any]) -> None:
        """A subscription is confirmed and its snapshot sent, behind which the trades follow."""
        if said.get("method") != "subscribe":
            return
        for symbol in said["params"]["symbol"]:
            result = {"channel": "trade", "symbol": symbol, "snapshot": True}
            self.answer(peer, {"method": "subscribe", "result": result, "success": True})
            trades = [trade for trade in self._recent if trade["symbol"] == symbol]
            if trades:
                self.answer(peer, {"channel": "trade", "type": "snapshot", "data": trades})
        self._asked.append(peer)

    def translate(self, message: bytes) -> bytes:
        """A tick of the market as a trade of Kraken's; anything else as it is."""
        try:
            tick = _TICK.decode(message)
        except msgspec.DecodeError:
            return message
        when = datetime.fromtimestamp(tick.ts // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        trade = {
            "symbol": tick.symbol,
            "side": "buy",
            "price": tick.price,
            "qty": tick.volume,
            "ord_type": "market",
            "trade_id": tick.seq,
            "timestamp": f"{when}.{tick.ts % 1000:03d}000Z",
        }
        last = next((old["trade_id"] for old in reversed(self._recent) if old["symbol"] == tick.symbol), None)
        if last is not None and tick.seq is not None and abs(tick.seq - last) > WINDOW:
            self._recent.clear()  # an exchange whose numbering restarts has no history from before
        self._recent.append(trade)
        return json.dumps({"channel": "trade", "type": "update", "data": [trade]}, separators=(",", ":")).encode()


class KuCoin(Asked):
    """KuCoin's classic API: a token for each connection, then topics. Tokens are never given twice."""

    def __init__(self, script: Script, *, skew_ms: int = 0) -> None:
        super().__init__(script, skew_ms=skew_ms)
        self.token_answers: deque[net.Refuse | net.Reject | net.NoAnswer | net.End] = deque()
        """What the next requests for a token meet; a token when it is empty."""
        self.tokens: list[str] = []
        self.urls: list[str] = []

    def fetched(self, number: int, url: str) -> net.Answer | net.Refuse | net.Reject | net.NoAnswer | net.End:
        """A token, or what stands in `token_answers`."""
        if self.token_answers:
            return self.token_answers.popleft()
        self.tokens.append(f"secret{number}token")
        servers = [{"endpoint": "wss://sim.kucoin.example/endpoint", "pingInterval": 18000, "pingTimeout": 10000}]
        return net.Answer(
            json.dumps({"code": "200000", "data": {"token": self.tokens[-1], "instanceServers": servers}})
        )

    def handshake(self, number: int, url: str) -> net.Handshake:
        """Only with the newest token."""
        self.urls.append(url)
        if not self.tokens or f"token={self.tokens[-1]}" not in url:
            return net.Reject(401)
        return super().handshake(number, url)

    def heard(self, peer: Peer, said: dict[str, Any]) -> None:
        """A ping or a subscription."""
        if said["type"] == "ping":
            self.answer(peer, {"id": said["id"], "type": "pong"})
        elif said["type"] == "subscribe":
            self.answer(peer, {"id": said["id"], "type": "ack"})
            self._asked.append(peer)

    def translate(self, message: bytes) -> bytes:
        """A tick of the market as a trade of KuCoin's; anything else as it is."""
        try:
            tick = _TICK.decode(message)
        except msgspec.DecodeError:
            return message
        symbol = tick.symbol
        trade = {
            "symbol": symbol,
            "side": "sell",
            "type": "match",
            "price": str(tick.price),
            "size": str(tick.volume),
            "tradeId": tick.event_id,
            "sequence": str(tick.seq),
            "time": str(tick.ts * 1_000_000),
        }
        said = {"type": "message", "topic": f"/market/match:{symbol}", "subject": "trade.l3match", "data": trade}
        return json.dumps(said, separators=(",", ":")).encode()
