"""Binance: trades of spot, Binance.US, USD-M and COIN-M futures, from plain and combined streams.

Streams may be named in the URL (`.../ws/btcusdt@trade`, `.../stream?streams=...`); symbols that are not named there are
subscribed to. On futures hosts that is `aggTrade`, the documented stream, which holds market trades only; elsewhere it
is `trade`. USD-M hosts serve it below `/market` (wss://fstream.binance.com/market/ws). Contracts stay contracts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar, Final

import msgspec

from tradebot.core.currencies import Pair, pair_of_joined
from tradebot.core.events import BUY, SELL, Side
from tradebot.feeds.exchanges.asked import PendingSubscriptions, SubscriptionRefusal
from tradebot.feeds.exchanges.base import (
    IGNORED,
    Exchange,
    ParsedFrame,
    Unparseable,
    announcement,
    decode_json,
    detail,
    integer,
    make_tick,
    skipped,
)

# A connection carries up to 1024 streams and takes up to 5 messages a second, pongs among them; messages of 8 kB and
# more were seen to be refused without a word.
_STREAMS_A_MESSAGE: Final = 200
_SHUTDOWN: Final = "serverShutdown"
_FUTURES_HOST: Final = re.compile(r"\w+://[^/]*(?:fstream|dstream)")
_MARKETS: Final = (
    (re.compile(r"\w+://[^/]*fstream"), "usdm"),
    (re.compile(r"\w+://[^/]*dstream"), "coinm"),
    (re.compile(r"\w+://[^/]*\.binance\.us(?:[:/]|$)"), "us"),
)
_NAMED: Final = re.compile(r"([^/=&?@]+)@(?:trade|aggTrade)(?![^/&])")

_MICROSECONDS_FROM: Final = 100_000_000_000_000
"""Times from here on are microseconds (`timeUnit=MICROSECOND` in the URL): as milliseconds they were the year 5138."""

# Quote currencies of spot and USD-M futures.
_QUOTES: Final = (
    "USDT", "USDC", "FDUSD", "TUSD", "BUSD", "USDP", "USDS", "USD1", "DAI", "PAX", "UST", "USD", "BTC", "ETH", "BNB",
    "TRX", "XRP", "DOGE", "SOL", "DOT", "AUD", "BIDR", "BRL", "EUR", "EURI", "AEUR", "GBP", "JPY", "TRY", "RUB", "UAH",
    "NGN", "ZAR", "PLN", "RON", "ARS", "MXN", "COP", "CZK", "IDRT", "XUSD", "USDE",
)  # fmt: skip


class Binance(Exchange):
    """Raw trades (`trade`) and trades aggregated by price and taker (`aggTrade`), each with a numbering of its own."""

    name: ClassVar[str] = "binance"
    url: ClassVar[str] = "wss://stream.binance.com:9443/ws"
    streams_max: ClassVar[int | None] = 1024
    messages_per_s: ClassVar[float | None] = 5.0

    @classmethod
    def pair(cls, symbol: str, market: str = "") -> Pair | None:
        """BTCUSDT, also with a day of delivery (BTCUSDT_240628); BTCUSD_PERP and BTCUSD_240628 are inverse."""
        name, _, delivery = symbol.upper().partition("_")
        if delivery and name.endswith("USD"):
            return Pair(name.removesuffix("USD"), "USD", contracts=True, inverse=True)
        return pair_of_joined(name, _QUOTES)

    def __init__(self) -> None:
        self._stream = "trade"
        self._named: frozenset[str] = frozenset()
        self._asked = PendingSubscriptions()

    @classmethod
    def market_of(cls, url: str) -> str:
        """`usdm` and `coinm` futures, and Binance.US, have symbols of the same names as spot."""
        return next((market for host, market in _MARKETS if host.match(url)), "")

    def connection_url(self, url: str, symbols: Sequence[str]) -> str:
        """Returns `url` unchanged; its market and streams are kept for `subscriptions`."""
        self._stream = "aggTrade" if _FUTURES_HOST.match(url) else "trade"
        self._named = frozenset(symbol.lower() for symbol in _NAMED.findall(url))
        return url

    def stored_symbol(self, asked: str) -> str:
        """In capitals, as Binance sends it."""
        return asked.upper()

    def subscriptions(self, symbols: Sequence[str]) -> list[str]:
        """For symbols that are not in the URL; none if the URL contains all of them."""
        unnamed = [symbol for symbol in symbols if symbol.lower() not in self._named]
        messages: list[str] = []
        for start in range(0, len(unnamed), _STREAMS_A_MESSAGE):
            some = unnamed[start : start + _STREAMS_A_MESSAGE]
            params = [f"{symbol.lower()}@{self._stream}" for symbol in some]
            message = {"method": "SUBSCRIBE", "params": params, "id": int(self._asked.add(some))}
            messages.append(msgspec.json.encode(message).decode())
        return messages

    def parse(self, text: str) -> ParsedFrame:
        """One trade, or the other content of a frame. Ignores trades not made in the market. Raises Unparseable."""
        value = decode_json(text)
        data = value.get("data", value) if type(value) is dict else value
        if type(data) is dict:
            event = data.get("e")
            if event == "trade":
                return _trade(data, data.get("t"))
            if event == "aggTrade":
                return _trade(data, data.get("a"))
        return self._other(value, data)

    def _other(self, value: object, data: object) -> ParsedFrame:
        """The meaning of a frame without a trade. Raises Unparseable if it should contain a trade."""
        if type(value) is list:
            # Such as !ticker@arr on a plain stream. Trades never come as a list.
            if any(type(item) is dict and item.get("e") in ("trade", "aggTrade") for item in value):
                raise Unparseable("trades in a list")
            return IGNORED
        if type(value) is not dict:
            raise Unparseable("neither a JSON object nor a list")
        stream = value.get("stream")
        if type(stream) is str and stream.endswith(("@trade", "@aggTrade")):
            raise Unparseable("no trade in a frame of a stream of trades")
        if type(data) is dict and "e" not in data and "p" in data and "q" in data and "T" in data:
            raise Unparseable("e: missing from what looks like a trade")
        if _announces_shutdown(value) or _announces_shutdown(data):
            return announcement("serverShutdown: this server is about to shut down", reconnect=True)
        return self._answer(value)

    def _answer(self, value: dict[str, Any]) -> ParsedFrame:
        """A confirmation or refusal carries the number of the request, not its symbols."""
        error, key = value.get("error"), value.get("id")
        if error is not None or ("code" in value and "msg" in value):
            words = detail(error if error is not None else value)
            refused, ask_alone = self._asked.refuse(words, str(key)) if type(key) is int else SubscriptionRefusal()
            return ParsedFrame("error", detail=words, refused=refused, ask_alone=ask_alone)
        if "result" in value and "id" in value:
            return ParsedFrame("ack", detail=detail(f"request {detail(key)}"), confirmed=self._asked.confirm(str(key)))
        return IGNORED


def _announces_shutdown(value: object) -> bool:
    """In streams the event stands alone or in `data`; the API for orders wraps it in `event`."""
    if type(value) is not dict:
        return False
    inner = value.get("event")
    return value.get("e") == _SHUTDOWN or (type(inner) is dict and inner.get("e") == _SHUTDOWN)


def _trade(data: dict[str, Any], number: object) -> ParsedFrame:
    kind = data.get("X")
    if kind is not None and kind != "MARKET":
        if type(kind) is not str:
            raise Unparseable("X: not a text")
        # Insurance fund, auto-deleveraging, or a filler without price and quantity ("NA"): numbered like trades.
        return skipped(data.get("s"), number)
    trade_id, ts = integer(number, "trade id"), integer(data.get("T"), "T")
    if ts >= _MICROSECONDS_FROM:
        ts //= 1000
    buyer_is_maker = data.get("m")
    taker: Side | None = SELL if buyer_is_maker is True else BUY if buyer_is_maker is False else None
    return ParsedFrame(
        "trades", [make_tick(data.get("s"), data.get("p"), data.get("q"), ts, trade_id, trade_id, taker)]
    )
