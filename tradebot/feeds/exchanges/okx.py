"""OKX v5, public trades: the channel `trades`, and `trades-all` where a capture holds it.

One message of `trades` may stand for several matches at one price (`count`), so trade ids do not grow by 1: no seq.
Volume is the exchange's own quantity: contracts for derivatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

import msgspec

from tradebot.core.currencies import CURRENCIES, Pair, pair_of_form
from tradebot.core.events import Tick
from tradebot.feeds.exchanges.asked import PendingSubscriptions, SubscriptionRefusal
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
    side,
)

# The limit is 64 KB a message and 480 messages an hour; 100 channels are below 12 KB with the longest symbols.
_ARGS_MAX: Final = 100
_CHANNELS: Final = ("trades", "trades-all")
_UPGRADE: Final = "64008"
_REFUSALS: Final = ("60012", "60018")  # an invalid message, a channel or symbol that does not exist


class Okx(Exchange):
    """Data frames have `arg` and `data`; answers and announcements have an `event`; "pong" is bare text."""

    name: ClassVar[str] = "okx"
    url: ClassVar[str] = "wss://ws.okx.com:8443/ws/v5/public"

    @classmethod
    def pair(cls, symbol: str, market: str = "") -> Pair | None:
        """BTC-USDT; swaps, futures and options are contracts, those quoted in USD inverse (USD_UM are not)."""
        parts = symbol.upper().split("-")
        if len(parts) < 3:
            return pair_of_form(symbol)
        quote = parts[1].partition("_")[0]
        inverse = parts[1] == "USD"
        return Pair(parts[0], quote, contracts=True, inverse=inverse) if quote in CURRENCIES else None

    def __init__(self) -> None:
        self._asked = PendingSubscriptions()

    def subscriptions(self, symbols: Sequence[str]) -> list[str]:
        """One channel per symbol, many in a message; each is acknowledged by itself."""
        args = [{"channel": "trades", "instId": symbol} for symbol in symbols]
        for at in range(0, len(symbols), _ARGS_MAX):
            self._asked.add(symbols[at : at + _ARGS_MAX])
        return [
            msgspec.json.encode({"op": "subscribe", "args": args[at : at + _ARGS_MAX]}).decode()
            for at in range(0, len(args), _ARGS_MAX)
        ]

    def keepalive(self) -> str | None:
        """Bare text; OKX closes a connection on which nothing has moved for 30 s."""
        return "ping"

    def parse(self, text: str) -> ParsedFrame:
        """The trades of a frame, in its order. Raises Unparseable."""
        if text == "pong":
            return HEARTBEAT
        value = decode_json(text)
        if type(value) is not dict:
            return IGNORED
        event = value.get("event")
        if event is not None:
            return self._announced(event, value)
        arg = value.get("arg")
        if type(arg) is not dict or arg.get("channel") not in _CHANNELS:
            return IGNORED
        trades = value.get("data")
        if type(trades) is not list:
            raise Unparseable("data: missing or not a list")
        return ParsedFrame("trades", [_tick(trade) for trade in trades])

    def _announced(self, event: object, value: dict[str, Any]) -> ParsedFrame:
        match event:
            case "subscribe":
                arg = value.get("arg")
                name = arg.get("instId") if type(arg) is dict and arg.get("channel") in _CHANNELS else None
                confirmed = (name,) if type(name) is str else ()
                self._asked.settle(confirmed)
                return ParsedFrame("ack", detail=detail(arg or ""), confirmed=confirmed)
            case "notice":
                # Sent a minute or less before the connection is closed for an upgrade of the service (64008).
                return announcement(value.get("msg") or event, reconnect=value.get("code") == _UPGRADE)
            case "error":
                words = detail(value.get("msg") or event)
                refused, ask_alone = (
                    self._asked.refuse(words) if value.get("code") in _REFUSALS else SubscriptionRefusal()
                )
                return ParsedFrame("error", detail=words, refused=refused, ask_alone=ask_alone)
            case "channel-conn-count-error":
                return ParsedFrame("error", detail=detail(value.get("msg") or event))
        return IGNORED


def _tick(trade: Any) -> Tick:
    if type(trade) is not dict:
        raise Unparseable("a trade that is not an object")
    return make_tick(
        trade.get("instId"),
        trade.get("px"),
        trade.get("sz"),
        integer(trade.get("ts"), "ts"),
        trade.get("tradeId"),
        taker=side(trade.get("side")),
    )
