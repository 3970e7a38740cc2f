"""KuCoin: public trades of the classic API, which asks for a token, and of the unified one (UTA), which does not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final
from urllib.parse import quote, urlsplit

import msgspec

from tradebot.core.currencies import Pair, currency_name, pair_of_form, pair_of_joined
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
    text,
)

_FUTURES_TOKEN_URL: Final = "https://api-futures.kucoin.com/api/v1/bullet-public"
_UNIFIED_HOSTS: Final = {"x-push-spot.kucoin.com": "SPOT", "x-push-futures.kucoin.com": "FUTURES"}
_CONNECT_ID: Final = "tradebot"  # comes back in the welcome; it need not be unique
_SYMBOLS_A_MESSAGE: Final = 100
_TOKEN_CHARS_MAX: Final = 4096

_SPOT: Final = "/market/match"
_FUTURES: Final = "/contractMarket/execution"
_SUBJECTS: Final = {_SPOT: "trade.l3match", _FUTURES: "match"}

_FUTURES_QUOTES: Final = ("USDT", "USDC", "USD")
# A letter for the month and two digits for the year.
_DELIVERY: Final = re.compile(r"(.+)M[FGHJKMNQUVXZ][0-9]{2}")


class KuCoin(Exchange):
    """Symbols as in BTC-USDT (spot) and XBTUSDTM (futures); futures volumes are contracts.

    The address decides: the default one is the classic spot API, wss://ws-api-futures.kucoin.com the classic futures,
    wss://x-push-spot.kucoin.com and wss://x-push-futures.kucoin.com the unified API. Other servers than KuCoin's are
    asked for no token. KuCoin wants a ping every 18 s (feed.ping_interval_s must stay below) and closes after 24 h.
    """

    name: ClassVar[str] = "kucoin"
    url: ClassVar[str] = "wss://ws-api-spot.kucoin.com/"
    streams_max: ClassVar[int | None] = 300
    messages_per_s: ClassVar[float | None] = 10.0
    token_url: str | None = "https://api.kucoin.com/api/v1/bullet-public"

    @classmethod
    def market_of(cls, url: str) -> str:
        """`futures` on the hosts of futures."""
        return "futures" if "futures" in (urlsplit(url).hostname or "") else ""

    @classmethod
    def pair(cls, symbol: str, market: str = "") -> Pair | None:
        """BTC-USDT; futures are contracts: XBTUSDTM of a part of the base, XBTUSDM and XBTMH25 inverse."""
        if "-" in symbol:
            return pair_of_form(symbol)
        name = symbol.upper()
        delivery = _DELIVERY.fullmatch(name)
        joined = pair_of_joined(name.removesuffix("M"), _FUTURES_QUOTES)
        found = joined if delivery is None else Pair(delivery[1], "USD")
        if found is None or not found.base or not (delivery or name.endswith("M")):
            return None
        return Pair(currency_name(found.base), found.quote, contracts=True, inverse=found.quote == "USD")

    def __init__(self) -> None:
        self._unified_market: str | None = None
        self._last_id = 0
        self._asked = PendingSubscriptions()
        self._messages: dict[str, str] = {}
        """Of each id that was used to subscribe: the number of the message."""

    def connection_url(self, url: str, symbols: Sequence[str]) -> str:
        """Returns `url` unchanged; remembers its API, and sets whether and where a token is requested."""
        host = urlsplit(url).hostname or ""
        self._unified_market = _UNIFIED_HOSTS.get(host)
        classic = self._unified_market is None and host.endswith(".kucoin.com")
        # A class attribute otherwise: which token this one connection needs depends on its address.
        self.token_url = None if not classic else _FUTURES_TOKEN_URL if "futures" in host else type(self).token_url
        return url

    def url_with_token(self, url: str, answer: str) -> str:
        """The URL with the token of `answer`; an address in `answer` replaces the default one."""
        value = decode_json(answer)
        data = value.get("data") if isinstance(value, dict) else None
        if not isinstance(data, dict):
            code = value.get("code") if isinstance(value, dict) else None
            known = isinstance(code, str) and re.fullmatch(r"[0-9A-Za-z]{1,20}", code)
            raise Unparseable(f"no token{f', code {code}' if known else ''}")
        token = text(data.get("token"), "token", _TOKEN_CHARS_MAX)
        if url.rstrip("/") == self.url.rstrip("/"):
            url = _endpoint(data.get("instanceServers"))
        separator = "&" if "?" in url else "?"
        return f"{url}{separator}token={quote(token, safe='')}&connectId={_CONNECT_ID}"

    def subscriptions(self, symbols: Sequence[str]) -> list[str]:
        """Classic: one message for each hundred symbols of a market. Unified: one for each symbol."""
        if self._unified_market is not None:
            unified = {"action": "subscribe", "channel": "trade", "tradeType": self._unified_market}
            return [_dump({"id": self._asking([symbol])} | unified | {"symbol": symbol}) for symbol in symbols]
        request = {"type": "subscribe", "privateChannel": False, "response": True}
        return [
            _dump({"id": self._asking(names)} | request | {"topic": f"{prefix}:{','.join(names)}"})
            for prefix, names in _topics(symbols)
        ]

    def keepalive(self) -> str | None:
        """KuCoin expects these instead of WebSocket pings."""
        return _dump({"id": self._new_id(), "type": "ping"})

    def parse(self, text: str) -> ParsedFrame:
        """The trades of a frame, or its other content; KuCoin sends no history."""
        value = decode_json(text)
        if not isinstance(value, dict):
            return IGNORED
        kind, topic = value.get("type"), value.get("topic")
        if kind == "pong":
            return HEARTBEAT
        if kind == "error" or ("result" in value and value["result"] in (False, "false")):
            said = {name: value[name] for name in ("code", "data", "reason", "message") if name in value}
            words = detail(said)
            message = self._messages.pop(str(value.get("id")), "")
            refused, ask_alone = self._asked.refuse(words, message)
            return ParsedFrame("error", detail=words, refused=refused, ask_alone=ask_alone)
        if kind == "ack" or "result" in value:
            message = self._messages.pop(str(value.get("id")), "")
            return ParsedFrame("ack", confirmed=self._asked.confirm(message))
        if isinstance(topic, str):
            prefix, colon, _symbols = topic.partition(":")
            subject = _SUBJECTS.get(prefix)
            if colon and subject is not None and value.get("subject", subject) == subject:
                return ParsedFrame("trades", [_classic_tick(value.get("data"), prefix)])
        channel = value.get("T")
        if isinstance(channel, str) and channel.startswith("trade."):
            return ParsedFrame("trades", [_unified_tick(value.get("d"))])
        return IGNORED

    def _asking(self, symbols: Sequence[str]) -> str:
        """The id of a message that subscribes to `symbols`."""
        identifier = self._new_id()
        self._messages[identifier] = self._asked.add(symbols)
        return identifier

    def _new_id(self) -> str:
        self._last_id += 1
        return str(self._last_id)


def _classic_tick(data: object, prefix: str) -> Tick:
    fields = _object(data)
    # Futures: once `matchSize` was what traded and `size` what was left of the order, and the time was called `time`.
    size = fields.get("matchSize", fields.get("size")) if prefix == _FUTURES else fields.get("size")
    time = fields.get("ts", fields.get("time")) if prefix == _FUTURES else fields.get("time")
    return _tick(fields.get("symbol"), fields.get("price"), size, time, fields.get("tradeId"), fields.get("side"))


def _unified_tick(data: object) -> Tick:
    fields = _object(data)
    return _tick(*(fields.get(name) for name in ("s", "p", "q", "M", "ti", "S")))


def _tick(symbol: object, price: object, size: object, time_ns: object, trade_id: object, taker: object) -> Tick:
    # No seq: KuCoin's sequences grow, but not by one a trade.
    if trade_id is None:
        raise Unparseable("trade id: missing")
    return make_tick(symbol, price, size, integer(time_ns, "time") // 1_000_000, trade_id, taker=side(taker))


def _object(data: object) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise Unparseable("trade: not an object")
    return data


def _endpoint(servers: object) -> str:
    first = servers[0] if isinstance(servers, list) and servers else None
    endpoint = text(first.get("endpoint") if isinstance(first, dict) else None, "endpoint", 2048)
    if not re.fullmatch(r"wss://[!-~]+", endpoint):
        raise Unparseable("endpoint: not a wss:// address")
    return endpoint


def _topics(symbols: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Prefixes of topics, each with up to a hundred symbols; spot symbols have a dash, futures have none."""
    for prefix, names in (
        (_SPOT, [symbol for symbol in symbols if "-" in symbol]),
        (_FUTURES, [symbol for symbol in symbols if "-" not in symbol]),
    ):
        for at in range(0, len(names), _SYMBOLS_A_MESSAGE):
            yield prefix, names[at : at + _SYMBOLS_A_MESSAGE]


def _dump(value: object) -> str:
    return msgspec.json.encode(value).decode()
