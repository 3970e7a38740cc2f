"""Bitget: public trades of API v2 (the default), v1 and v3, spot and futures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

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

_MESSAGE_BYTES_MAX: Final = 4096

_SPOT_MARKETS: Final = frozenset({"SPOT", "SP"})
"""How the versions of the API call the default market, whose symbols have no prefix."""

# Of an address: the market when a symbol names none, and what an argument calls the channel and the symbol.
_V1_SPOT: Final = ("sp", "channel", "trade", "instId")
_V1_FUTURES: Final = ("mc", "channel", "trade", "instId")
_V2: Final = ("SPOT", "channel", "trade", "instId")
_V3: Final = ("spot", "topic", "publicTrade", "symbol")
# What the fields of a trade are called: time, price, volume, id and side of the taker. v3 has the short names.
_NAMES: Final = ("ts", "price", "size", "tradeId", "side")
_SHORT_NAMES: Final = ("T", "p", "v", "i", "S")

_QUOTES: Final = ("USDT", "USDC", "BTC", "ETH", "EUR", "BRL", "TRY", "USD")
# Delivery contracts end in a letter for the month and two digits for the year.
_INVERSE: Final = re.compile(r"(.+?)USD(?:[FGHJKMNQUVXZ][0-9]{2})?")


class Bitget(Exchange):
    """Symbols as in BTCUSDT (spot); a market in front names another one, as in USDT-FUTURES:BTCUSDT.

    Ticks carry the market in the same way, because one connection may bring spot and futures of one name: spot without
    a prefix, any other market in capitals before the name. The address decides which API is spoken: .../v3/ws/public,
    .../spot/v1/stream, .../mix/v1/stream, and v2 for any other.
    """

    name: ClassVar[str] = "bitget"
    url: ClassVar[str] = "wss://ws.bitget.com/v2/ws/public"
    streams_max: ClassVar[int | None] = 1000
    messages_per_s: ClassVar[float | None] = 10.0

    @classmethod
    def pair(cls, symbol: str, market: str = "") -> Pair | None:
        """BTCUSDT; USDT-FUTURES:BTCUSDT and USDC-FUTURES:BTCPERP are in units of the base, COIN-FUTURES inverse."""
        futures, _, name = symbol.upper().rpartition(":")
        if futures == "USDC-FUTURES" and name.endswith("PERP"):
            return Pair(name.removesuffix("PERP"), "USDC")
        if futures == "COIN-FUTURES" or (futures == _V1_FUTURES[0].upper() and name.endswith("USD")):
            inverse = _INVERSE.fullmatch(name)
            return None if inverse is None else Pair(inverse[1], "USD", contracts=True, inverse=True)
        return pair_of_joined(name, _QUOTES)

    def __init__(self) -> None:
        self._api = _V2
        self._asked = PendingSubscriptions()
        self._requested: dict[tuple[object, object], str] = {}
        """The symbol as it was asked for, by the market and the name that answers repeat."""

    def connection_url(self, url: str, symbols: Sequence[str]) -> str:
        """Returns `url` unchanged; remembers to which API it belongs."""
        path = urlsplit(url).path
        self._api = (
            _V3 if path.startswith("/v3/")
            else _V1_SPOT if path.startswith("/spot/v1/")
            else _V1_FUTURES if path.startswith("/mix/v1/")
            else _V2
        )  # fmt: skip
        return url

    def subscriptions(self, symbols: Sequence[str]) -> list[str]:
        """Messages of at most 4096 bytes. (A connection takes 1000 channels; Bitget advises to stay below 50.)"""
        default_market, channel_key, channel, symbol_key = self._api
        messages: list[str] = []
        batch: list[bytes] = []
        some: list[str] = []
        for symbol in symbols:
            market, _, name = symbol.rpartition(":")
            argument = {"instType": market or default_market, channel_key: channel, symbol_key: name}
            self._requested[argument["instType"], name] = symbol
            batch.append(msgspec.json.encode(argument))
            some.append(symbol)
            if len(_request(batch)) > _MESSAGE_BYTES_MAX:
                messages.append(_request(batch[:-1]).decode())
                self._asked.add(some[:-1])
                batch, some = batch[-1:], some[-1:]
        if some:
            self._asked.add(some)
        return [*messages, _request(batch).decode()] if batch else []

    def keepalive(self) -> str | None:
        """Bitget closes a connection without such a text for two minutes, even if it gets WebSocket pings."""
        return "ping"

    def parse(self, text: str) -> ParsedFrame:
        """The trades of a frame, or its other content. The action "snapshot" is history, "update" is live."""
        if text == "pong":
            return HEARTBEAT
        value = decode_json(text)
        if not isinstance(value, dict):
            return IGNORED
        event, argument = value.get("event"), value.get("arg")
        if event == "error":
            return self._refused(value)
        if event == "subscribe":
            confirmed = self._named(argument)
            self._asked.settle(confirmed)
            return ParsedFrame("ack", detail=detail(argument), confirmed=confirmed)
        if event is not None or "data" not in value or not isinstance(argument, dict):
            return IGNORED
        if argument.get("channel") in ("trade", "tradeNew"):
            return _trades(value, _symbol(argument.get("instType"), argument.get("instId")))
        if argument.get("topic") == "publicTrade":
            return _trades(value, _symbol(argument.get("instType"), argument.get("symbol")))
        return IGNORED

    def stored_symbol(self, asked: str) -> str:
        """The symbol, preceded by its market unless that is spot."""
        market, _, name = asked.rpartition(":")
        return str(_symbol(market or self._api[0], name))

    def _named(self, argument: object) -> tuple[str, ...]:
        """The symbol, as requested, to which an answer refers."""
        if not isinstance(argument, dict):
            return ()
        name = argument.get("instId", argument.get("symbol"))
        market = argument.get("instType")
        if not isinstance(name, str) or not isinstance(market, str):
            return ()
        return (self._requested.get((market, name), name),)

    def _refused(self, value: dict[str, Any]) -> ParsedFrame:
        words = detail({"code": value.get("code"), "msg": value.get("msg"), "arg": value.get("arg")})
        refused = self._named(value.get("arg"))
        if refused:
            self._asked.settle(refused)
            return ParsedFrame("error", detail=words, refused=refused)
        refused, ask_alone = self._asked.refuse(str(value.get("msg")))
        return ParsedFrame("error", detail=words, refused=refused, ask_alone=ask_alone)


def _symbol(market: object, name: object) -> object:
    """The symbol of ticks; a value that is not a text is rejected later, with the other fields."""
    if not isinstance(market, str) or not isinstance(name, str) or market.upper() in _SPOT_MARKETS:
        return name
    return f"{market.upper()}:{name}"


def _trades(value: dict[str, Any], symbol: object) -> ParsedFrame:
    action, data = value.get("action"), value["data"]
    if not isinstance(data, list):
        raise Unparseable("data: not a list")
    if action not in ("snapshot", "update"):
        raise Unparseable("action: neither snapshot nor update")
    ticks = [_tick(entry, symbol) for entry in data]
    return ParsedFrame("trades", history=ticks) if action == "snapshot" else ParsedFrame("trades", ticks)


def _tick(entry: object, symbol: object) -> Tick:
    if isinstance(entry, list):
        if len(entry) < 4:
            raise Unparseable("trade: fewer than four elements")
        return make_tick(symbol, entry[1], entry[2], integer(entry[0], "ts"), taker=side(entry[3]))
    if not isinstance(entry, dict):
        raise Unparseable("trade: neither an object nor a list")
    ts, price, size, trade_id, taker = _SHORT_NAMES if "p" in entry else _NAMES
    if entry.get(trade_id) is None:
        raise Unparseable(f"{trade_id}: missing")
    return make_tick(
        symbol,
        entry.get(price),
        entry.get(size),
        integer(entry.get(ts), ts),
        entry[trade_id],
        taker=side(entry.get(taker)),
    )


def _request(arguments: list[bytes]) -> bytes:
    return b'{"op":"subscribe","args":[' + b",".join(arguments) + b"]}"
