"""Bitfinex v2: arrays on numbered channels; the number of a symbol is known from the ack of its subscription.

Every trade comes twice, "te" at once and "tu" a moment later, with the same id: "te" is taken. The first array of a
channel is a list of the last trades (newest first): history. Trades of funding currencies (fUSD) have a rate, not a
price: they are no ticks. The sign of the amount is the taker's side. More elements may follow what is read here
(sequence numbers, times: `conf` flags). Trade ids count over all markets, so they are no seq.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

import msgspec

from tradebot.core.currencies import CURRENCIES, Pair
from tradebot.core.events import BUY, SELL, Side, Tick
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
)
from tradebot.feeds.exchanges.base import text as checked_text

# Far more than the exchange allows on one connection.
_CHANNELS_MAX: Final = 1000

_ALREADY_SUBSCRIBED: Final = 10301
_RESTART: Final = 20051
# Maintenance begins with 20060. At its end Bitfinex advises to subscribe to everything again.
_MAINTENANCE_OVER: Final = 20061

_NAMES: Final = {"UST": "USDT", "UDC": "USDC", "TSD": "TUSD", "EUT": "EURT", "DSH": "DASH", "XBT": "BTC"}
"""What Bitfinex calls currencies by names of its own."""


def _usual(currency: str) -> str:
    """The usual name of a currency; F0 marks derivatives."""
    name = currency.removesuffix("F0")
    return _NAMES.get(name, name)


class Bitfinex(Exchange):
    """Data frames are arrays [channel number, ...]; everything else is an object with an `event`."""

    name: ClassVar[str] = "bitfinex"
    url: ClassVar[str] = "wss://api-pub.bitfinex.com/ws/2"
    streams_max: ClassVar[int | None] = 25

    @classmethod
    def pair(cls, symbol: str, market: str = "") -> Pair | None:
        """tBTCUSD, tDUSK:USD, and the perpetual tBTCF0:USTF0, in units of the base; currencies by their usual names."""
        if not symbol.startswith("t"):
            return None
        name = symbol[1:]
        base, colon, quote = name.partition(":")
        if not colon:
            base, quote = name[:-3], name[-3:]
        base, quote = (_usual(part) for part in (base, quote))
        return Pair(base, quote) if base and quote in CURRENCIES else None

    def __init__(self) -> None:
        self._symbols: dict[int, str] = {}

    def subscriptions(self, symbols: Sequence[str]) -> list[str]:
        """One message per symbol: the exchange takes one channel at a time."""
        return [
            msgspec.json.encode({"event": "subscribe", "channel": "trades", "symbol": symbol}).decode()
            for symbol in symbols
        ]

    def keepalive(self) -> str | None:
        """Answered with a "pong" event."""
        return '{"event":"ping"}'

    def parse(self, text: str) -> ParsedFrame:
        """The trade of a frame, or the trades before the subscription. Raises Unparseable.

        An array of a channel that no ack on this connection has named as one of trades belongs to another channel.
        """
        value = decode_json(text)
        if type(value) is list:
            return self._array(value)
        return self._event(value) if type(value) is dict else IGNORED

    def _array(self, value: list[Any]) -> ParsedFrame:
        if len(value) < 2 or type(value[0]) is not int:
            return IGNORED
        said = value[1]
        if said == "hb":
            return HEARTBEAT
        symbol = self._symbols.get(value[0])
        if symbol is None:
            return IGNORED
        if said == "te":
            return ParsedFrame("trades", [_tick(symbol, value[2] if len(value) > 2 else None)])
        if type(said) is str:
            return IGNORED
        if type(said) is not list:
            raise Unparseable("neither a trade nor a list of trades")
        return ParsedFrame("trades", history=[_tick(symbol, trade) for trade in said])

    def _event(self, value: dict[str, Any]) -> ParsedFrame:
        match value.get("event"):
            case "subscribed":
                return self._subscribed(value) if value.get("channel") == "trades" else ParsedFrame("ack")
            case "unsubscribed":
                self._symbols.pop(integer(value.get("chanId"), "chanId"), None)
            case "pong":
                return HEARTBEAT
            case "error":
                words = detail(value.get("msg") or value.get("code") or "no reason given")
                symbol = value.get("symbol")
                ours = type(symbol) is str and value.get("channel") == "trades"
                known = value.get("code") == _ALREADY_SUBSCRIBED
                return ParsedFrame("error", detail=words, refused=(str(symbol),) if ours and not known else ())
            case "info":
                return _announced(value)
        return IGNORED

    def _subscribed(self, value: dict[str, Any]) -> ParsedFrame:
        channel = integer(value.get("chanId"), "chanId")
        symbol = checked_text(value.get("symbol"), "symbol")
        if symbol.startswith("f"):
            words = detail(f"{symbol}: trades of a funding currency have no price: not read")
            return ParsedFrame("error", detail=words, refused=(symbol,))
        if len(self._symbols) >= _CHANNELS_MAX:
            raise Unparseable("too many channels on one connection")
        self._symbols[channel] = symbol
        return ParsedFrame("ack", detail=symbol, confirmed=(symbol,))


def _announced(value: dict[str, Any]) -> ParsedFrame:
    """The greeting of a connection, which reports maintenance, or other information messages."""
    if "code" in value:
        code = value["code"]
        return announcement(value.get("msg") or code, reconnect=code in (_RESTART, _MAINTENANCE_OVER))
    platform = value.get("platform")
    if type(platform) is dict and platform.get("status") == 0:
        return announcement("the platform is in maintenance")
    return IGNORED


def _tick(symbol: str, trade: Any) -> Tick:
    if type(trade) is not list or len(trade) < 4:
        raise Unparseable("a trade that is not a list of id, time, amount and price")
    amount = number(trade[2], "amount")
    taker: Side | None = BUY if amount > 0 else SELL if amount < 0 else None
    return make_tick(symbol, trade[3], abs(amount), integer(trade[1], "time"), trade[0], taker=taker)
