"""Gemini v2 market data: trades come with the channel `l2`, beside the order book, which is ignored.

The first frame of a symbol carries its last trades (`trades`, oldest first): history. It is the only confirmation of a
subscription; without trades in it, it is an ack. Auction and block trades are ticks like the others: the exchange
publishes them as trades, without the side of a taker. Trade ids (`tid`) count over all markets, so they are no seq;
`event_id` may be shared by several trades and stands in only where a recording is too old to have `tid`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

import msgspec

from tradebot.core.currencies import Pair, pair_of_joined
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
    make_tick,
    side,
)

_QUOTES: Final = ("USD", "GUSD", "USDT", "USDC", "RLUSD", "DAI", "BTC", "ETH", "BCH", "LTC", "SOL", "EUR", "GBP", "SGD")


class Gemini(Exchange):
    """Frames are objects with a `type`. The exchange has no ping messages: it sends heartbeats."""

    name: ClassVar[str] = "gemini"
    url: ClassVar[str] = "wss://api.gemini.com/v2/marketdata"
    # Its first message holds the whole book: 1.8 MB were seen.
    message_bytes: ClassVar[int] = 8 << 20

    @classmethod
    def pair(cls, symbol: str, market: str = "") -> Pair | None:
        """BTCUSD, and the perpetual BTCGUSDPERP, in units of the base."""
        return pair_of_joined(symbol.upper().removesuffix("PERP"), _QUOTES)

    def __init__(self) -> None:
        self._asked = PendingSubscriptions()

    def subscriptions(self, symbols: Sequence[str]) -> list[str]:
        """One message for all symbols; none for no symbol."""
        if not symbols:
            return []
        self._asked.add(symbols)
        message = {"type": "subscribe", "subscriptions": [{"name": "l2", "symbols": list(symbols)}]}
        return [msgspec.json.encode(message).decode()]

    def parse(self, text: str) -> ParsedFrame:
        """The trade of a frame, or the trades before the subscription. Raises Unparseable."""
        value = decode_json(text)
        if type(value) is not dict:
            return IGNORED
        match value.get("type"):
            case "trade":
                return ParsedFrame("trades", [_tick(value)])
            case "l2_updates":
                return self._history(value) if "trades" in value else IGNORED
            case "heartbeat":
                return HEARTBEAT
            case "error":
                return self._error(value)
        return self._error(value) if value.get("result") == "error" else IGNORED

    def _history(self, value: dict[str, Any]) -> ParsedFrame:
        trades, symbol = value["trades"], value.get("symbol")
        if type(trades) is not list:
            raise Unparseable("trades: not a list")
        confirmed = (symbol,) if type(symbol) is str else ()
        self._asked.settle(confirmed)
        if not trades:
            return ParsedFrame("ack", detail=detail(symbol or ""), confirmed=confirmed)
        return ParsedFrame("trades", history=[_tick(trade) for trade in trades], confirmed=confirmed)

    def _error(self, value: dict[str, Any]) -> ParsedFrame:
        words = detail(value.get("message") or value.get("reason") or "no reason given")
        refused, ask_alone = self._asked.refuse(words)
        return ParsedFrame("error", detail=words, refused=refused, ask_alone=ask_alone)


def _tick(trade: Any) -> Tick:
    if type(trade) is not dict:
        raise Unparseable("a trade that is not an object")
    return make_tick(
        trade.get("symbol"),
        trade.get("price"),
        trade.get("quantity"),
        integer(trade.get("timestamp"), "timestamp"),
        trade.get("tid", trade.get("event_id")),
        taker=side(trade.get("side")),
    )
