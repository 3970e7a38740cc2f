"""Kraken spot: the `trade` channel of the WebSocket API v2 (objects) and v1 (arrays).

The symbols of the two differ (v2 BTC/USD, v1 XBT/USD) and are used as sent. Version 2 numbers the trades of a book
without holes; version 1 has no trade ids at all. Both send a heartbeat for every second without other news.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar, Final

import msgspec

from tradebot.core.events import Tick
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
    iso_ms,
    make_tick,
    side,
)

_V1_URL: Final = re.compile(r"\w+://[^/]*kraken\.com(?::\d+)?(?!.*/v2)")
# The allowed rate of messages is undocumented: send few.
_SYMBOLS_A_MESSAGE: Final = 200
_SECONDS: Final = re.compile(r"(\d{1,15})(?:\.(\d{1,9}))?", re.ASCII)


class Kraken(Exchange):
    """Supports both versions; the URL selects one (Kraken's own hosts without /v2: version 1)."""

    name: ClassVar[str] = "kraken"
    url: ClassVar[str] = "wss://ws.kraken.com/v2"

    def __init__(self) -> None:
        self._v1 = False
        self._troubled = False

    def connection_url(self, url: str, symbols: Sequence[str]) -> str:
        """Returns `url` unchanged; the version to which it belongs is kept for `subscriptions`."""
        self._v1 = _V1_URL.match(url) is not None
        return url

    def subscriptions(self, symbols: Sequence[str]) -> list[str]:
        """Trades; version 2 is asked for the latest ones too, as history."""
        messages = []
        for start in range(0, len(symbols), _SYMBOLS_A_MESSAGE):
            some = symbols[start : start + _SYMBOLS_A_MESSAGE]
            message: dict[str, Any]
            if self._v1:
                message = {"event": "subscribe", "pair": some, "subscription": {"name": "trade"}}
            else:
                params = {"channel": "trade", "symbol": some, "snapshot": True}
                message = {"method": "subscribe", "params": params}
            messages.append(msgspec.json.encode(message).decode())
        return messages

    def parse(self, text: str) -> ParsedFrame:
        """What a frame of either version says; a snapshot of trades is history. Raises Unparseable."""
        value = decode_json(text)
        if type(value) is dict:
            channel = value.get("channel")
            if channel == "trade":
                return _v2_trades(value)
            if channel == "heartbeat":
                return HEARTBEAT
            if channel == "status":
                return self._status(_first(value.get("data")).get("system"))
            if value.get("event") == "systemStatus":
                return self._status(value.get("status"))
            return _v2_other(value) if channel is None else IGNORED
        if type(value) is list:
            return _v1_trades(value) if "trade" in value else IGNORED
        raise Unparseable("neither a JSON object nor a list")

    def _status(self, status: object) -> ParsedFrame:
        """Sent after connecting and at each change. Any status other than "online" is reported, and also its end."""
        if type(status) is not str or (status == "online" and not self._troubled):
            return IGNORED
        self._troubled = status != "online"
        return announcement(f"status of the trading engine: {status}")


def _first(data: object) -> dict[str, Any]:
    return data[0] if type(data) is list and data and type(data[0]) is dict else {}


def _v2_trades(value: dict[str, Any]) -> ParsedFrame:
    kind, data = value.get("type"), value.get("data")
    if kind not in ("update", "snapshot") or type(data) is not list:
        raise Unparseable("not an update or a snapshot with a list of trades")
    ticks = [_v2_tick(trade) for trade in data]
    return ParsedFrame("trades", ticks) if kind == "update" else ParsedFrame("trades", [], ticks)


def _v2_tick(trade: object) -> Tick:
    if type(trade) is not dict:
        raise Unparseable("trade: not an object")
    trade_id = integer(trade.get("trade_id"), "trade_id")
    ts = iso_ms(trade.get("timestamp"), "timestamp")
    taker = side(trade.get("side"))
    return make_tick(trade.get("symbol"), trade.get("price"), trade.get("qty"), ts, trade_id, trade_id, taker)


def _v1_trades(value: list[Any]) -> ParsedFrame:
    # [channel, [[price, volume, time, side, order type, misc], ...], "trade", pair]
    if len(value) != 4 or value[2] != "trade" or type(value[1]) is not list:
        raise Unparseable("a list with trade in it, not [channel, trades, trade, pair]")
    pair = value[3]
    return ParsedFrame("trades", [_v1_tick(trade, pair) for trade in value[1]])


def _v1_tick(trade: object, pair: object) -> Tick:
    if type(trade) is not list or len(trade) < 3:
        raise Unparseable("trade: not a list of price, volume and time")
    match = _SECONDS.fullmatch(trade[2]) if type(trade[2]) is str else None
    if match is None:
        raise Unparseable("time: not seconds with a fraction, as a text")
    ts = int(match[1]) * 1000 + int(((match[2] or "") + "000")[:3])
    return make_tick(pair, trade[0], trade[1], ts, taker=side(trade[3]) if len(trade) > 3 else None)


def _v2_other(value: dict[str, Any]) -> ParsedFrame:
    """Frames without a channel: answers of version 2, everything but data of version 1."""
    if "event" in value:
        return _v1_event(value)
    error = value.get("error") or value.get("Error")
    method = value.get("method")
    if method == "pong":
        return HEARTBEAT
    symbol = _what(value)
    symbols = (symbol,) if type(symbol) is str else ()
    if type(error) is str or (method is not None and value.get("success") is False):
        words = detail(": ".join(part for part in (error, symbol) if type(part) is str))
        return ParsedFrame("error", detail=words, refused=symbols if method == "subscribe" else ())
    if method == "subscribe":
        result = value.get("result")
        named = type(result) is dict and result.get("channel") == "trade"
        if named and value.get("success") is True:
            return ParsedFrame("ack", detail=detail(result), confirmed=symbols)
        return IGNORED
    if "data" in value:
        raise Unparseable("channel: missing")
    return IGNORED


def _what(value: dict[str, Any]) -> object:
    """The symbol in an answer, if there is one."""
    result = value.get("result")
    return value.get("symbol") or (result.get("symbol") if type(result) is dict else None)


def _v1_event(value: dict[str, Any]) -> ParsedFrame:
    event, status, pair = value["event"], value.get("status"), value.get("pair")
    pairs = (pair,) if type(pair) is str else ()
    if event in ("heartbeat", "pong"):
        return HEARTBEAT
    if event == "error" or status == "error":
        words = detail(": ".join(part for part in (value.get("errorMessage"), pair) if type(part) is str))
        return ParsedFrame("error", detail=words, refused=pairs if event == "subscriptionStatus" else ())
    subscription = value.get("subscription")
    named = type(subscription) is dict and subscription.get("name") == "trade"
    return ParsedFrame("ack", detail=detail(pair), confirmed=pairs) if named and status == "subscribed" else IGNORED
