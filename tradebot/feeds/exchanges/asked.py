"""Which symbols an exchange's answer is about, where the answer names its message, one symbol of it, or nothing. Pure.

An exchange that takes several symbols a message often answers for the whole message, and refuses all of it for one
wrong symbol. An adapter of such an exchange keeps its messages here until they are answered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple


class SubscriptionRefusal(NamedTuple):
    """`refused` symbols do not exist, as far as the exchange says; `ask_alone` were refused only beside them."""

    refused: tuple[str, ...] = ()
    ask_alone: tuple[str, ...] = ()


class PendingSubscriptions:
    """The unanswered subscription messages of one connection, oldest first; at most those that were sent."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[str]] = {}
        self._messages = 0

    def add(self, symbols: Iterable[str]) -> str:
        """Record a message to be sent; returns its number (from "1"), for exchanges that repeat it."""
        self._messages += 1
        key = str(self._messages)
        self._waiting[key] = list(symbols)
        return key

    def confirm(self, key: str | None = None) -> tuple[str, ...]:
        """Remove the message `key` (None: the oldest one, for answers in order) and return its symbols.

        Empty for an unknown one.
        """
        if key is None:
            key = next(iter(self._waiting), None)
        return tuple(self._waiting.pop(key, ())) if key is not None else ()

    def settle(self, symbols: Iterable[str]) -> None:
        """These symbols were confirmed or refused by name; the other symbols of their messages still wait."""
        known = {symbol.casefold() for symbol in symbols}
        for key, waiting in list(self._waiting.items()):
            left = [symbol for symbol in waiting if symbol.casefold() not in known]
            if left:
                self._waiting[key] = left
            else:
                del self._waiting[key]

    def refuse(self, words: str, key: str | None = None) -> SubscriptionRefusal:
        """The effect of a refused request, given the exchange's message.

        `key` None: the message with a symbol that `words` name, else the oldest. The symbols that are named, or a
        message's only one, are refused; the others are to be asked for alone.
        """
        if key is None:
            key = next((each for each, symbols in self._waiting.items() if _named(symbols, words)), None)
        symbols = self.confirm(key)
        named = _named(symbols, words)
        if len(symbols) == 1:
            return SubscriptionRefusal(symbols)
        # Words that repeat the whole message name none.
        refused = () if len(named) == len(symbols) else named
        return SubscriptionRefusal(refused, tuple(symbol for symbol in symbols if symbol not in refused))


def _named(symbols: Iterable[str], words: str) -> tuple[str, ...]:
    return tuple(
        symbol
        for symbol in symbols
        if re.search(rf"(?<![A-Za-z0-9_/-]){re.escape(symbol)}(?![A-Za-z0-9_/-])", words, re.IGNORECASE)
    )
