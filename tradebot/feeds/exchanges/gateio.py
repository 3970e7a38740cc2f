"""Gate v4, spot: the channel `spot.trades`, one trade a frame. Contracts (`futures.trades`) are other channels.

`id_market` is documented to grow without holes within a market, so it is the seq; frames from before 2025 have none.
The `time` of a subscription is left out: the exchange accepts that for public channels, and an adapter has no clock.
Its own ping is not used for the same reason; it answers WebSocket pings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

import msgspec

from tradebot.core.events import Tick
from tradebot.feeds.exchanges.asked import PendingSubscriptions, SubscriptionRefusal
from tradebot.feeds.exchanges.base import (
    HEARTBEAT,
    IGNORED,
    Exchange,
    ParsedFrame,
    Unparseable,
    announcement,
    decode_json,
    detail,
    integer,
    make_tick,
    number,
    side,
)

_PAIRS_MAX: Final = 100
_CHANNEL: Final = "spot.trades"
_SYSTEM: Final = "spot.system"


class GateIo(Exchange):
    """Frames are objects with `channel`, `event` and `result`; an `error` that is not null is a refusal."""

    name: ClassVar[str] = "gateio"
    url: ClassVar[str] = "wss://api.gateio.ws/ws/v4/"

    def __init__(self) -> None:
        self._asked = PendingSubscriptions()

    def subscriptions(self, symbols: Sequence[str]) -> list[str]:
        """Up to 100 pairs a message; one ack or one refusal a message, in their order."""
        messages = []
        for at in range(0, len(symbols), _PAIRS_MAX):
            some = list(symbols[at : at + _PAIRS_MAX])
            self._asked.add(some)
            messages.append(msgspec.json.encode({"channel": _CHANNEL, "event": "subscribe", "payload": some}).decode())
        return messages

    def parse(self, text: str) -> ParsedFrame:
        """The trade of a frame. Raises Unparseable."""
        value = decode_json(text)
        if type(value) is not dict:
            return IGNORED
        channel = value.get("channel")
        if type(channel) is not str:
            return _announced(value)
        if channel == _SYSTEM:
            return _announced(value.get("result"))
        if value.get("error") is not None:
            return self._refused(value)
        if channel == _CHANNEL and value.get("event") == "update":
            return ParsedFrame("trades", [_tick(value.get("result"))])
        if channel.endswith(".pong"):
            return HEARTBEAT
        if value.get("event") == "subscribe":
            confirmed = self._asked.confirm() if channel == _CHANNEL else ()
            return ParsedFrame("ack", detail=detail(value.get("payload") or channel), confirmed=confirmed)
        return IGNORED

    def _refused(self, value: dict[str, Any]) -> ParsedFrame:
        error = value["error"]
        message = error.get("message") if type(error) is dict else None
        words = detail(message or error)
        ours = value.get("channel") == _CHANNEL and value.get("event") == "subscribe"
        refused, ask_alone = self._asked.refuse(words) if ours else SubscriptionRefusal()
        return ParsedFrame("error", detail=words, refused=refused, ask_alone=ask_alone)


def _tick(trade: Any) -> Tick:
    if type(trade) is not dict:
        raise Unparseable("result: missing or not an object")
    market_id = trade.get("id_market")
    return make_tick(
        trade.get("currency_pair"),
        trade.get("price"),
        trade.get("amount"),
        _ts_ms(trade.get("create_time_ms")),
        trade.get("id"),
        None if market_id is None else integer(market_id, "id_market"),
        side(trade.get("side")),
    )


def _ts_ms(value: object) -> int:
    # Ms with decimals, as text: "1619093543708.123". The whole part is cut off as text: no rounding can change it.
    if type(value) is str:
        whole, point, decimals = value.partition(".")
        if point and not (decimals.isascii() and decimals.isdigit()):
            raise Unparseable("create_time_ms: not a time")
        return integer(whole, "create_time_ms")
    return int(number(value, "create_time_ms"))


def _announced(value: object) -> ParsedFrame:
    """A notice of the service; after an upgrade notice it closes the connection."""
    if type(value) is not dict or type(value.get("msg")) is not str or type(value.get("type")) is not str:
        return IGNORED
    return announcement(value["msg"], reconnect="upgrade" in value["type"])
