"""Kraken Futures: the `trade` feed, whose latest trades come first as `trade_snapshot`, the newest at its head.

Quantities of inverse contracts are contracts. Liquidations are kept: they are matched in the order book like any other
trade. Block trades (agreed elsewhere) and terminations (positions taken over) are not made by the market: ignored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar, Final

import msgspec

from tradebot.core.currencies import Pair, currency_name
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
    skipped,
)
from tradebot.feeds.exchanges.base import text as checked_text

# 100 messages a second are allowed.
_PRODUCTS_A_MESSAGE: Final = 100
_MARKET_TRADES: Final = ("fill", "liquidation")
# The exchange answers a wrong product with an error or an alert, which names neither message nor product.
_REFUSALS: Final = ("error", "alert", "subscribed_failed")
_ERRORS: Final = ("unsubscribed_failed",)

_PRODUCT: Final = re.compile(r"[PF]([FIV])_(.+)(USD)(?:_[0-9]{6})?")


class KrakenFutures(Exchange):
    """The `seq` of the feed numbers the trades of a product consecutively, across connections."""

    name: ClassVar[str] = "kraken_futures"
    url: ClassVar[str] = "wss://futures.kraken.com/ws/v1"

    @classmethod
    def pair(cls, symbol: str, market: str = "") -> Pair | None:
        """PF_XBTUSD and FF_XBTUSD_240628 are in units of the base, PI_XBTUSD and FI_XBTUSD_240628 inverse contracts."""
        product = _PRODUCT.fullmatch(symbol.upper())
        if product is None:
            return None
        inverse = product[1] == "I"
        return Pair(currency_name(product[2]), product[3], contracts=inverse, inverse=inverse)

    def __init__(self) -> None:
        self._asked = PendingSubscriptions()

    def subscriptions(self, symbols: Sequence[str]) -> list[str]:
        """Trades, and the heartbeat feed, because the server sends nothing in a market without trades."""
        messages: list[dict[str, Any]] = []
        for start in range(0, len(symbols), _PRODUCTS_A_MESSAGE):
            products = symbols[start : start + _PRODUCTS_A_MESSAGE]
            self._asked.add(products)
            messages.append({"event": "subscribe", "feed": "trade", "product_ids": products})
        if messages:
            messages.append({"event": "subscribe", "feed": "heartbeat"})
        return [msgspec.json.encode(message).decode() for message in messages]

    def parse(self, text: str) -> ParsedFrame:
        """The content of a frame; the trades of a snapshot are history. Raises Unparseable."""
        value = decode_json(text)
        if type(value) is not dict:
            raise Unparseable("not a JSON object")
        # Answers to a subscription name the feed as well.
        if "event" in value:
            return self._event(value)
        feed = value.get("feed")
        if feed == "trade":
            tick = _tick(value)
            return skipped(value.get("product_id"), value.get("seq")) if tick is None else ParsedFrame("trades", [tick])
        if feed == "trade_snapshot":
            trades = value.get("trades")
            if type(trades) is not list:
                raise Unparseable("trades: missing or not a list")
            return ParsedFrame("trades", [], [tick for tick in map(_tick, trades) if tick is not None])
        if feed == "heartbeat":
            return HEARTBEAT
        if type(feed) is not str and "product_id" in value:
            raise Unparseable("feed: missing")
        return IGNORED

    def _event(self, value: dict[str, Any]) -> ParsedFrame:
        event = value["event"]
        if event in _REFUSALS:
            words = detail(value.get("message") or value)
            refused, ask_alone = self._asked.refuse(words)
            return ParsedFrame("error", detail=words, refused=refused, ask_alone=ask_alone)
        if event in _ERRORS:
            return ParsedFrame("error", detail=detail(value.get("message") or value))
        if event == "subscribed" and value.get("feed") == "trade":
            products = value.get("product_ids")
            confirmed = tuple(each for each in products if type(each) is str) if type(products) is list else ()
            self._asked.settle(confirmed)
            return ParsedFrame("ack", detail=detail(products), confirmed=confirmed)
        if event == "pong":
            return HEARTBEAT
        return IGNORED


def _tick(trade: object) -> Tick | None:
    """The tick of one trade; None for one that the market did not make. Raises Unparseable."""
    if type(trade) is not dict:
        raise Unparseable("trade: not an object")
    if checked_text(trade.get("type"), "type") not in _MARKET_TRADES:
        return None
    return make_tick(
        trade.get("product_id"), trade.get("price"), trade.get("qty"), integer(trade.get("time"), "time"),
        checked_text(trade.get("uid"), "uid"), integer(trade.get("seq"), "seq"),
        side(trade.get("side")),
    )  # fmt: skip
