"""Bybit v5, public trades: `publicTrade.SYMBOL` of spot, and with another `--ws-url` of linear and inverse contracts.

Volume is the exchange's own quantity (for inverse contracts, of 1 USD each). Block trades (`BT`) and RPI trades are
ticks like the others: the exchange publishes them in this channel. `seq` of a trade counts over all of a symbol's
events, not by 1 per trade, so it is not used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar, Final

import msgspec

from tradebot.core.currencies import Pair, pair_of_joined
from tradebot.core.events import Tick
from tradebot.feeds.exchanges.asked import PendingSubscriptions, SubscriptionRefusal
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

_ARGS_MAX: Final = 10
_PREFIX: Final = "publicTrade."
_MARKET: Final = re.compile(r"/v5/public/([a-z]+)")

_QUOTES: Final = ("USDT", "USDC", "BTC", "ETH", "EUR", "BRL", "DAI", "TRY", "PLN", "USDE", "USD1", "GBP")
# Delivery contracts end in a letter for the month and two digits for the year.
_INVERSE: Final = re.compile(r"(.+?)USD(?:[FGHJKMNQUVXZ][0-9]{2})?")


class Bybit(Exchange):
    """Frames are objects with a `topic`; answers to our own messages have an `op` instead."""

    name: ClassVar[str] = "bybit"
    url: ClassVar[str] = "wss://stream.bybit.com/v5/public/spot"

    @classmethod
    def market_of(cls, url: str) -> str:
        """The last part of the address: `linear`, `inverse` or `option`; none for spot."""
        found = _MARKET.search(url)
        return "" if found is None or found[1] == "spot" else found[1]

    @classmethod
    def pair(cls, symbol: str, market: str = "") -> Pair | None:
        """BTCUSDT; BTCPERP and BTC-27DEC24 are futures in USDC; BTCUSD and BTCUSDH25 are inverse contracts of 1 USD.

        Spot has no market in USD.
        """
        name, dash, _ = symbol.upper().partition("-")
        inverse = None if market in ("linear", "option") else _INVERSE.fullmatch(name)
        if inverse is not None:
            return Pair(inverse[1], "USD", contracts=True, inverse=True)
        if market == "option":
            return None
        if name.endswith("PERP"):
            return Pair(name.removesuffix("PERP"), "USDC")
        found = pair_of_joined(name, _QUOTES)
        return Pair(name, "USDC") if dash and found is None else found

    def __init__(self) -> None:
        self._asked = PendingSubscriptions()

    def subscriptions(self, symbols: Sequence[str]) -> list[str]:
        """Ten topics a message: the limit of spot. One wrong topic, and the exchange refuses the whole message."""
        messages = []
        for at in range(0, len(symbols), _ARGS_MAX):
            some = symbols[at : at + _ARGS_MAX]
            self._asked.add(some)
            message = {"op": "subscribe", "args": [_PREFIX + symbol for symbol in some]}
            messages.append(msgspec.json.encode(message).decode())
        return messages

    def keepalive(self) -> str | None:
        """Answered with "pong"; to be sent about every 20 s."""
        return '{"op":"ping"}'

    def parse(self, text: str) -> ParsedFrame:
        """The trades of a frame, in its order. Raises Unparseable."""
        value = decode_json(text)
        if type(value) is not dict:
            return IGNORED
        topic = value.get("topic")
        if type(topic) is not str:
            return self._answer(value)
        if not topic.startswith(_PREFIX):
            return IGNORED
        trades = value.get("data")
        if type(trades) is not list:
            raise Unparseable("data: missing or not a list")
        return ParsedFrame("trades", [_tick(trade) for trade in trades])

    def _answer(self, value: dict[str, Any]) -> ParsedFrame:
        """Answers to subscriptions come in their order; that to a batch of topics names none or a wrong one."""
        op = value.get("op")
        if value.get("success") is False:
            words = detail(value.get("ret_msg") or value.get("retMsg") or "refused without a reason")
            refused, ask_alone = self._asked.refuse(words) if op in ("subscribe", None) else SubscriptionRefusal()
            return ParsedFrame("error", detail=words, refused=refused, ask_alone=ask_alone)
        match op:
            case "ping" | "pong":
                return HEARTBEAT
            case "subscribe" if value.get("success") is True:
                return ParsedFrame("ack", confirmed=self._asked.confirm())
        return IGNORED


def _tick(trade: Any) -> Tick:
    if type(trade) is not dict:
        raise Unparseable("a trade that is not an object")
    return make_tick(
        trade.get("s"),
        trade.get("p"),
        trade.get("v"),
        integer(trade.get("T"), "time T"),
        trade.get("i"),
        taker=side(trade.get("S")),
    )
