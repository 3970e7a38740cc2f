"""Crypto.com Exchange, market data of API v1 (spot and derivatives): the channel `trade.{instrument_name}`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar, Final

import msgspec

from tradebot.core.currencies import Pair, pair_of_form
from tradebot.core.events import MAX_ID_CHARS, Tick
from tradebot.feeds.exchanges.asked import PendingSubscriptions
from tradebot.feeds.exchanges.base import (
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

_PREFIX: Final = "trade."
_CHANNELS_A_MESSAGE: Final = 100  # a connection takes 400
_REMEMBERED_MAX: Final = 10_000  # subscriptions; far more than a connection takes

_FUTURE: Final = re.compile(r"(.+)USD-(?:PERP|[0-9]{6})")


class CryptoCom(Exchange):
    """Symbols as in BTC_USDT (spot) and BTCUSD-PERP.

    A subscription begins with the last 50 trades, in a frame that looks like any other: the first one of its instrument
    after the subscription was asked for or confirmed. A first frame of a single trade counts as live, and so does every
    frame of a recording that does not show the subscription: to take a live trade for history would lose it.
    """

    name: ClassVar[str] = "crypto_com"
    url: ClassVar[str] = "wss://stream.crypto.com/exchange/v1/market"

    @classmethod
    def pair(cls, symbol: str, market: str = "") -> Pair | None:
        """BTC_USD; BTCUSD-PERP and BTCUSD-240628 are futures, in units of the base."""
        future = _FUTURE.fullmatch(symbol.upper())
        return pair_of_form(symbol) if future is None else Pair(future[1], "USD")

    def __init__(self) -> None:
        self._subscribed = False
        self._begun: set[str] = set()
        self._asked = PendingSubscriptions()

    def subscriptions(self, symbols: Sequence[str]) -> list[str]:
        """One message for each hundred instruments."""
        self._subscribed = True
        messages = []
        for some in _hundreds(list(symbols)):
            channels = [f"{_PREFIX}{symbol}" for symbol in some]
            number = int(self._asked.add(some))
            messages.append(_dump({"id": number, "method": "subscribe", "params": {"channels": channels}}))
        return messages

    def parse(self, text: str) -> ParsedFrame:
        """The trades of a frame, or its other content. Server heartbeats must be answered within five seconds."""
        value = decode_json(text)
        if not isinstance(value, dict):
            return IGNORED
        method, code, result = value.get("method"), value.get("code"), value.get("result")
        if method == "public/heartbeat":
            return ParsedFrame("heartbeat", reply=_heartbeat_reply(value.get("id")))
        if code is not None and code != 0:
            return self._refused(value)
        if isinstance(result, dict) and "data" in result:
            return self._trades(result) if _is_trade_channel(result.get("channel")) else IGNORED
        if method != "subscribe":
            return IGNORED
        self._subscribed = True
        named = _symbols(value.get("channel", result.get("subscription") if isinstance(result, dict) else None))
        self._asked.settle(named)
        confirmed = named or self._asked.confirm(str(value.get("id")))
        words = detail(result if result is not None else value.get("channel", ""))
        return ParsedFrame("ack", detail=words, confirmed=confirmed)

    def _refused(self, value: dict[str, Any]) -> ParsedFrame:
        words = detail({"code": value.get("code"), "message": value.get("message")})
        refused = _symbols(value.get("channel"))
        if refused:
            self._asked.settle(refused)
            return ParsedFrame("error", detail=words, refused=refused)
        refused, ask_alone = self._asked.refuse(words, str(value.get("id")))
        return ParsedFrame("error", detail=words, refused=refused, ask_alone=ask_alone)

    def _trades(self, result: dict[str, Any]) -> ParsedFrame:
        data, name = result["data"], result.get("subscription", result.get("instrument_name"))
        if not isinstance(data, list):
            raise Unparseable("data: not a list")
        # Noted before anything is raised: a broken snapshot does not make the next frame one.
        first = isinstance(name, str) and name not in self._begun
        if isinstance(name, str) and len(self._begun) < _REMEMBERED_MAX:
            self._begun.add(name)
        ticks = [_tick(entry, result.get("instrument_name")) for entry in data]
        if first and self._subscribed and len(ticks) > 1:
            return ParsedFrame("trades", history=ticks)
        return ParsedFrame("trades", ticks)


def _tick(entry: object, instrument: object) -> Tick:
    if not isinstance(entry, dict):
        raise Unparseable("trade: not an object")
    trade_id = entry.get("d")
    if trade_id is None:
        raise Unparseable("d: missing")
    ts_ms = integer(entry.get("t"), "t")
    return make_tick(
        entry.get("i", instrument), entry.get("p"), entry.get("q"), ts_ms, trade_id, taker=side(entry.get("s"))
    )


def _is_trade_channel(channel: object) -> bool:
    return isinstance(channel, str) and (channel == "trade" or channel.startswith("trade."))


def _heartbeat_reply(identifier: object) -> str | None:
    if type(identifier) is int or (isinstance(identifier, str) and len(identifier) <= MAX_ID_CHARS):
        return _dump({"id": identifier, "method": "public/respond-heartbeat"})
    return None


def _symbols(channel: object) -> tuple[str, ...]:
    """The symbol of a trade channel; None for other channels."""
    named = isinstance(channel, str) and channel.startswith(_PREFIX)
    return (str(channel).removeprefix(_PREFIX),) if named else ()


def _hundreds(symbols: list[str]) -> list[list[str]]:
    return [symbols[at : at + _CHANNELS_A_MESSAGE] for at in range(0, len(symbols), _CHANNELS_A_MESSAGE)]


def _dump(value: object) -> str:
    return msgspec.json.encode(value).decode()
