"""bin/mockws: every frame is one tick as JSON, in the form of replay lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from tradebot.feeds.exchanges.base import (
    IGNORED,
    Exchange,
    ParsedFrame,
    Unparseable,
    decode_json,
    integer,
    make_tick,
    side,
)

_FIELDS: Final = ("symbol", "price", "volume", "ts")


class MockWs(Exchange):
    """The local feed server: no subscription, ticks as they come."""

    name: ClassVar[str] = "mockws"
    url: ClassVar[str] = "ws://localhost:9001"
    acknowledges: ClassVar[bool] = False
    unreachable_hint: ClassVar[str | None] = "is bin/mockws running? start it in another terminal: bin/mockws"

    def subscriptions(self, symbols: Sequence[str]) -> list[str]:
        """None: the server sends everything to everyone."""
        return []

    def parse(self, text: str) -> ParsedFrame:
        """One tick; an object with none of a tick's fields is ignored. Raises Unparseable."""
        value = decode_json(text)
        if not isinstance(value, dict):
            raise Unparseable("not a JSON object")
        if not any(name in value for name in _FIELDS):
            return IGNORED
        event_id, seq = value.get("event_id"), value.get("seq")
        tick = make_tick(
            value.get("symbol"),
            _plain_number(value.get("price"), "price"),
            _plain_number(value.get("volume"), "volume"),
            _plain_int(value.get("ts"), "ts"),
            _plain_text(event_id),
            None if seq is None else _plain_int(seq, "seq"),
            side(value.get("taker")),
        )
        return ParsedFrame("trades", [tick])


def _plain_number(value: object, name: str) -> object:
    # As in replay lines, numbers are JSON numbers.
    if isinstance(value, str):
        raise Unparseable(f"{name}: a text, not a number")
    return value


def _plain_int(value: object, name: str) -> int:
    if type(value) is not int:
        raise Unparseable(f"{name}: not a whole number")
    return integer(value, name)


def _plain_text(value: object) -> object:
    if value is not None and type(value) is not str:
        raise Unparseable("event_id: not a text")
    return value
