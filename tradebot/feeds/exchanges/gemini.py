"""Gemini v2 market data: trades come with the channel `l2`, beside the order book, which is ignored.

The first frame of a symbol carries its last trades (`trades`, oldest first): history. It is the only confirmation of a
subscription; without trades in it, it is an ack. Auction and block trades are ticks like the others: the exchange
publishes them as trades. Trade ids (`tid`) count over all markets, so they are no seq; `event_id` may be shared by
several trades and stands in only where a recording is too old to have `tid`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from tradebot.events import Tick
from tradebot.feeds.exchanges.base import (
    HEARTBEAT,
    IGNORED,
    Exchange,
    Parsed,
    Unparseable,
    decode_json,
    detail,
    integer,
    make_tick,
)


class Gemini(Exchange):
    """Frames are objects with a `type`. There is no ping of the exchange's own: it sends heartbeats by itself."""

    name: ClassVar[str] = "gemini"
    url: ClassVar[str] = "wss://api.gemini.com/v2/marketdata"

    def subscriptions(self, symbols: Sequence[str]) -> list[str]:
        """One message for all symbols; none for no symbol."""
        if not symbols:
            return []
        message = {"type": "subscribe", "subscriptions": [{"name": "l2", "symbols": list(symbols)}]}
        return [msgspec.json.encode(message).decode()]

    def parse(self, text: str) -> Parsed:
        """The trade of a frame, or the trades before the subscription. Raises Unparseable."""
        value = decode_json(text)
        if type(value) is not dict:
            return IGNORED
        match value.get("type"):
            case "trade":
                return Parsed("trades", [_tick(value)])
            case "l2_updates":
                return _history(value) if "trades" in value else IGNORED
            case "heartbeat":
                return HEARTBEAT
            case "error":
                return _error(value)
        return _error(value) if value.get("result") == "error" else IGNORED


def _history(value: dict[str, Any]) -> Parsed:
    trades = value["trades"]
    if type(trades) is not list:
        raise Unparseable("trades: not a list")
    if not trades:
        return Parsed("ack", detail=detail(value.get("symbol") or ""))
    return Parsed("trades", history=[_tick(trade) for trade in trades])


def _tick(trade: Any) -> Tick:
    if type(trade) is not dict:
        raise Unparseable("a trade that is not an object")
    return make_tick(
        trade.get("symbol"),
        trade.get("price"),
        trade.get("quantity"),
        integer(trade.get("timestamp"), "timestamp"),
        trade.get("tid", trade.get("event_id")),
    )


def _error(value: dict[str, Any]) -> Parsed:
    return Parsed("error", detail=detail(value.get("message") or value.get("reason") or "no reason given"))
