"""An exchange whose protocol is a few words, for the tests of what stands around adapters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tradebot.core.events import Tick
from tradebot.feeds.exchanges.base import HEARTBEAT, IGNORED, Exchange, ParsedFrame, Unparseable, announcement

START_MS = 1_700_000_000_000


def tick(symbol: str, seq: int) -> Tick:
    return Tick(symbol, 1.0, 1.0, START_MS, None, seq)


def priced(symbol: str, seq: int, price: float, at_s: int) -> Tick:
    return Tick(symbol, price, 1.0, START_MS + 1000 * at_s, None, seq)


class Talk(Exchange):
    """A protocol of words: `t SYMBOL SEQ...` are trades, `h` past ones, `both` one past and then others.

    `p SYMBOL SEQ:PRICE:SECONDS...` are trades with prices and times (seconds after START_MS).

    `refuse SYMBOL OTHERS...` refuses SYMBOL, and OTHERS beside it; `say WORDS` and `restart` are announcements.

    `skip` uses up a number; `ack`, `error`, `hello?` (wants an answer), `beat` and `book` stand for themselves.
    """

    name: ClassVar[str] = "talk"
    url: ClassVar[str] = "wss://talk"
    made: ClassVar[int] = 0

    def __init__(self) -> None:
        type(self).made += 1

    def subscriptions(self, symbols: Sequence[str]) -> list[str]:
        return [f"sub {symbol}" for symbol in symbols]

    def parse(self, text: str) -> ParsedFrame:
        word, *rest = text.split()
        if word == "t":
            return ParsedFrame("trades", [tick(rest[0], int(each)) for each in rest[1:]])
        if word == "p":
            fields = [each.split(":") for each in rest[1:]]
            return ParsedFrame(
                "trades", [priced(rest[0], int(seq), float(price), int(at)) for seq, price, at in fields]
            )
        if word == "h":
            return ParsedFrame("trades", history=[tick(rest[0], int(each)) for each in rest[1:]])
        if word == "both":
            return ParsedFrame("trades", [tick(rest[0], int(each)) for each in rest[2:]], [tick(rest[0], int(rest[1]))])
        if word == "skip":
            return ParsedFrame("ignored", skipped=[(rest[0], int(rest[1]))])
        if word == "hello?":
            return ParsedFrame("heartbeat", reply="hello!")
        if word in ("ack", "error"):
            return ParsedFrame(word, detail=" ".join(rest))  # type: ignore[arg-type]
        if word == "refuse":
            return ParsedFrame("error", detail=f"no {rest[0]} here", refused=(rest[0],), ask_alone=tuple(rest[1:]))
        if word == "say":
            return announcement(" ".join(rest))
        if word == "restart":
            return announcement("this server restarts", reconnect=True)
        if word == "beat":
            return HEARTBEAT
        if word == "book":
            return IGNORED
        raise Unparseable(f"no such word, of {len(text)} characters")
