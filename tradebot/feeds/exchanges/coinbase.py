"""Coinbase: `market_trades` of Advanced Trade, and `matches` of the older Exchange feed (hosts ws-feed, ws-direct).

Both number the trades of a product without holes, and both give the maker's side, not the taker's. Advanced Trade sends
several trades a frame, the newest first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar, Final

import msgspec

from tradebot.core.currencies import Pair, pair_of_form
from tradebot.core.events import Tick
from tradebot.feeds.exchanges.asked import PendingSubscriptions
from tradebot.feeds.exchanges.base import (
    HEARTBEAT,
    IGNORED,
    Exchange,
    ParsedFrame,
    Unparseable,
    decode_json,
    detail,
    integer,
    iso_ms,
    make_tick,
    opposite,
    side,
)

_OLDER_HOST: Final = re.compile(r"\w+://ws-(?:feed|direct)")
# 8 messages a second are allowed.
_PRODUCTS_A_MESSAGE: Final = 250


class Coinbase(Exchange):
    """Both feeds; the host of the URL decides which one is subscribed, and received messages identify themselves."""

    name: ClassVar[str] = "coinbase"
    url: ClassVar[str] = "wss://advanced-trade-ws.coinbase.com"
    messages_per_s: ClassVar[float | None] = 8.0

    @classmethod
    def pair(cls, symbol: str, market: str = "") -> Pair | None:
        """BTC-USD; the perpetual BTC-PERP-INTX, in units of the base; futures such as BIT-28JUN24-CDE are contracts."""
        name = symbol.upper()
        if name.endswith("-PERP-INTX"):
            return Pair(name.removesuffix("-PERP-INTX"), "USDC")
        return Pair(None, "USD", contracts=True) if name.endswith("-CDE") else pair_of_form(symbol)

    def __init__(self) -> None:
        self._older = False
        self._asked = PendingSubscriptions()

    def connection_url(self, url: str, symbols: Sequence[str]) -> str:
        """`url` unchanged; which of the two feeds it belongs to is kept for `subscriptions`."""
        self._older = _OLDER_HOST.match(url) is not None
        return url

    def subscriptions(self, symbols: Sequence[str]) -> list[str]:
        """Trades, and heartbeats: without them Advanced Trade closes a channel that is quiet for a minute."""
        messages: list[dict[str, Any]] = []
        for start in range(0, len(symbols), _PRODUCTS_A_MESSAGE):
            products = symbols[start : start + _PRODUCTS_A_MESSAGE]
            self._asked.add(products)
            asked = {"channels": ["matches", "heartbeat"]} if self._older else {"channel": "market_trades"}
            messages.append({"type": "subscribe", "product_ids": products, **asked})
        if messages and not self._older:
            messages.append({"type": "subscribe", "channel": "heartbeats"})
        return [msgspec.json.encode(message).decode() for message in messages]

    def parse(self, text: str) -> ParsedFrame:
        """The content of a frame of either feed; trades before the subscription are history. Raises Unparseable."""
        value = decode_json(text)
        if type(value) is not dict:
            raise Unparseable("not a JSON object")
        channel = value.get("channel")
        if channel is None:
            return self._without_channel(value)
        if channel == "market_trades":
            return _market_trades(value)
        if channel == "heartbeats":
            return HEARTBEAT
        if channel == "subscriptions":
            return self._confirmed(value, "market_trades")
        return IGNORED

    def _without_channel(self, value: dict[str, Any]) -> ParsedFrame:
        """All frames of the older feed, and errors of both."""
        kind = value.get("type")
        if kind == "match":
            return ParsedFrame("trades", [_tick(value)])
        if kind == "last_match":
            return ParsedFrame("trades", [], [_tick(value)])
        if kind == "heartbeat":
            return HEARTBEAT
        if kind == "subscriptions":
            return self._confirmed(value, "matches")
        if kind == "error":
            parts = (value.get("message"), value.get("reason"))
            words = detail(": ".join(part for part in parts if type(part) is str))
            refused, ask_alone = self._asked.refuse(words)
            return ParsedFrame("error", detail=words, refused=refused, ask_alone=ask_alone)
        if type(kind) is not str and ("events" in value or "trade_id" in value):
            raise Unparseable("neither a channel nor a type")
        return IGNORED

    def _confirmed(self, value: dict[str, Any], channel: str) -> ParsedFrame:
        """An ack if `channel` is among the confirmed ones: heartbeats alone do not confirm the trades."""
        confirmed = value.get("events" if channel == "market_trades" else "channels")
        products = _products(confirmed, channel) if type(confirmed) is list else None
        if products is None:
            return IGNORED
        self._asked.settle(products)
        return ParsedFrame("ack", detail=detail(confirmed), confirmed=products)


def _market_trades(value: dict[str, Any]) -> ParsedFrame:
    events = value.get("events")
    if type(events) is not list:
        raise Unparseable("events: missing or not a list")
    ticks: list[Tick] = []
    history: list[Tick] = []
    for event in events:
        kind, trades = (event.get("type"), event.get("trades")) if type(event) is dict else (None, None)
        if kind not in ("update", "snapshot") or type(trades) is not list:
            raise Unparseable("events: not all of them are updates or snapshots with trades")
        into = ticks if kind == "update" else history
        for trade in trades:
            into.append(_tick(trade))
    return ParsedFrame("trades", ticks, history)


def _products(confirmed: list[Any], channel: str) -> tuple[str, ...] | None:
    """The confirmed products of `channel`; None if it is not confirmed."""
    for item in confirmed:
        if type(item) is dict:
            subscriptions = item.get("subscriptions")
            if item.get("name") == channel:
                return _texts(item.get("product_ids"))
            if type(subscriptions) is dict and channel in subscriptions:
                return _texts(subscriptions[channel])
    return None


def _texts(value: object) -> tuple[str, ...]:
    return tuple(each for each in value if type(each) is str) if type(value) is list else ()


def _tick(trade: object) -> Tick:
    """Raises Unparseable."""
    if type(trade) is not dict:
        raise Unparseable("trade: not an object")
    trade_id = integer(trade.get("trade_id"), "trade_id")
    return make_tick(
        trade.get("product_id"), trade.get("price"), trade.get("size"), iso_ms(trade.get("time"), "time"), trade_id,
        trade_id, opposite(side(trade.get("side"))),
    )  # fmt: skip
