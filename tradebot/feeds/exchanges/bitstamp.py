"""Bitstamp v2: one channel `live_trades_SYMBOL` per symbol, one trade a frame.

The symbol is only in the name of the channel. Trade ids count over all markets, so they are no seq.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

import msgspec

from tradebot.core.currencies import Pair, pair_of_joined
from tradebot.core.events import BUY, SELL, Side
from tradebot.feeds.exchanges.asked import PendingSubscriptions
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
)

_PREFIX: Final = "live_trades_"

_QUOTES: Final = ("USD", "EUR", "GBP", "USDC", "USDT", "BTC", "ETH", "PAX", "DAI")


class Bitstamp(Exchange):
    """Frames are objects with `event`, `channel` and `data`."""

    name: ClassVar[str] = "bitstamp"
    url: ClassVar[str] = "wss://ws.bitstamp.net"

    @classmethod
    def pair(cls, symbol: str, market: str = "") -> Pair | None:
        """btcusd, and the perpetual btcusd-perp, in units of the base."""
        return pair_of_joined(symbol.upper().removesuffix("-PERP"), _QUOTES)

    def __init__(self) -> None:
        self._asked = PendingSubscriptions()

    def subscriptions(self, symbols: Sequence[str]) -> list[str]:
        """One message per symbol: the exchange takes one channel at a time."""
        for symbol in symbols:
            self._asked.add([symbol])
        return [
            msgspec.json.encode({"event": "bts:subscribe", "data": {"channel": _PREFIX + symbol}}).decode()
            for symbol in symbols
        ]

    def keepalive(self) -> str | None:
        """Answered with an event of the same name."""
        return '{"event":"bts:heartbeat"}'

    def parse(self, text: str) -> ParsedFrame:
        """The trade of a frame. Raises Unparseable."""
        value = decode_json(text)
        if type(value) is not dict:
            return IGNORED
        if value.get("event") != "trade":
            return self._announced(value)
        channel, trade = value.get("channel"), value.get("data")
        if type(channel) is not str:
            raise Unparseable("channel: missing or not a text")
        if not channel.startswith(_PREFIX):
            return IGNORED  # a private channel's own trades
        if type(trade) is not dict:
            raise Unparseable("data: missing or not an object")
        tick = make_tick(
            channel.removeprefix(_PREFIX),
            trade.get("price_str", trade.get("price")),
            trade.get("amount_str", trade.get("amount")),
            _ts_ms(trade),
            trade.get("id"),
            taker=_taker(trade.get("type")),
        )
        return ParsedFrame("trades", [tick])

    def _announced(self, value: dict[str, Any]) -> ParsedFrame:
        match value.get("event"):
            case "bts:subscription_succeeded":
                confirmed = _symbols(value.get("channel"))
                self._asked.settle(confirmed)
                return ParsedFrame("ack", detail=detail(value.get("channel") or ""), confirmed=confirmed)
            case "bts:heartbeat":
                return HEARTBEAT
            case "bts:request_reconnect":
                # The server ends the connection a few seconds later.
                return announcement("bts:request_reconnect: this server is about to be maintained", reconnect=True)
            case "bts:error":
                data = value.get("data")
                words = detail(data.get("message") or data if type(data) is dict else data)
                refused = _symbols(value.get("channel"))
                self._asked.settle(refused)
                return ParsedFrame("error", detail=words, refused=refused or self._asked.refuse(words).refused)
        return IGNORED


def _ts_ms(trade: dict[str, Any]) -> int:
    if "microtimestamp" in trade:
        return integer(trade["microtimestamp"], "microtimestamp") // 1000
    return integer(trade.get("timestamp"), "timestamp") * 1000


def _taker(kind: object) -> Side | None:
    """0 is a buy, 1 a sell."""
    return None if type(kind) is not int else BUY if kind == 0 else SELL if kind == 1 else None


def _symbols(channel: object) -> tuple[str, ...]:
    """The symbol of a trade channel; None for other channels."""
    named = type(channel) is str and channel.startswith(_PREFIX)
    return (str(channel).removeprefix(_PREFIX),) if named else ()
