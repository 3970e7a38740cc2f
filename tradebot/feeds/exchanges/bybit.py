"""Bybit v5, public trades: `publicTrade.SYMBOL` of spot, and with another `--ws-url` of linear and inverse contracts.

Volume is the exchange's own quantity (for inverse contracts, of 1 USD each). Block trades (`BT`) and RPI trades are
ticks like the others: the exchange publishes them in this channel. `seq` of a trade counts over all of a symbol's
events, not by 1 per trade, so it is not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

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

_ARGS_MAX: Final = 10
_PREFIX: Final = "publicTrade."


class Bybit(Exchange):
    """Frames are objects with a `topic`; answers to our own messages have an `op` instead."""

    name: ClassVar[str] = "bybit"
    url: ClassVar[str] = "wss://stream.bybit.com/v5/public/spot"

    def subscriptions(self, symbols: Sequence[str]) -> list[str]:
        """Ten topics a message: the limit of spot."""
        topics = [_PREFIX + symbol for symbol in symbols]
        return [
            msgspec.json.encode({"op": "subscribe", "args": topics[at : at + _ARGS_MAX]}).decode()
            for at in range(0, len(topics), _ARGS_MAX)
        ]

    def keepalive(self) -> str | None:
        """Answered with "pong"; to be sent about every 20 s."""
        return '{"op":"ping"}'

    def parse(self, text: str) -> Parsed:
        """The trades of a frame, in its order. Raises Unparseable."""
        value = decode_json(text)
        if type(value) is not dict:
            return IGNORED
        topic = value.get("topic")
        if type(topic) is not str:
            return _answer(value)
        if not topic.startswith(_PREFIX):
            return IGNORED
        trades = value.get("data")
        if type(trades) is not list:
            raise Unparseable("data: missing or not a list")
        return Parsed("trades", [_tick(trade) for trade in trades])


def _tick(trade: Any) -> Tick:
    if type(trade) is not dict:
        raise Unparseable("a trade that is not an object")
    return make_tick(trade.get("s"), trade.get("p"), trade.get("v"), integer(trade.get("T"), "time T"), trade.get("i"))


def _answer(value: dict[str, Any]) -> Parsed:
    if value.get("success") is False:
        return Parsed("error", detail=detail(value.get("ret_msg") or value.get("retMsg") or "refused without a reason"))
    match value.get("op"):
        case "ping" | "pong":
            return HEARTBEAT
        case "subscribe" if value.get("success") is True:
            return Parsed("ack")
    return IGNORED
