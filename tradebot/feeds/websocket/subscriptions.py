"""The state of each requested symbol of a feed: confirmed, refused, trading, or silent.

Pure: the monotonic time is an argument. A quiet market is no fault, so a symbol counts as silent only beside others
that trade, and after a time that is long compared with its own pauses.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from tradebot.core.events import MAX_SYMBOL_CHARS, NoticeKind, Tick
from tradebot.feeds.exchanges.base import ParsedFrame
from tradebot.feeds.status import SymbolsLook

UNTRADED_S: Final = 60.0
"""A symbol without a trade for so long since its link is up is listed; that alone is no alarm."""
SILENT_S: Final = 300.0
SILENT_PAUSES: Final = 20.0
SILENT_OTHERS: Final = 100
"""A symbol is silent after SILENT_S, and SILENT_PAUSES times its longest pause so far, without a trade, while at least
SILENT_OTHERS frames brought trades of others."""
ASK_EVERY_S: Final = 0.25
"""Between two messages that ask for one symbol alone: the strictest limit of an exchange is 5 a second."""
ASK_AFTER_S: Final = 0.5
"""Answers about single symbols may still be on their way when the first refusal comes."""
CONFIRM_LEAST_S: Final = 5.0
"""An answer to a subscription is given this long, however small the budget, and however long the link was away."""
NAMES_MAX: Final = 100
REASON_CHARS_MAX: Final = 200
_OTHERS_MAX: Final = 10_000


class Named(NamedTuple):
    """A symbol to report, with kind and reason."""

    kind: NoticeKind
    symbol: str
    reason: str


class _Symbol:
    """The record of one symbol; times are monotonic seconds."""

    __slots__ = (
        "answered", "flows", "frames", "has_traded", "name", "named", "pause_s", "reason", "requested", "silent",
        "traded_s",
    )  # fmt: skip

    def __init__(self, name: str, requested: bool) -> None:
        self.name = name
        self.requested = requested
        self.answered = False
        """Confirmed or refused on this connection."""
        self.reason: str | None = None
        """Why it is refused, as far as is known: kept until it is confirmed or trades."""
        self.named = False
        self.silent = False
        self.flows = False
        """It has traded on this connection, and nothing is wrong with it."""
        self.has_traded = False
        self.traded_s = float("-inf")
        self.pause_s = 0.0
        self.frames = 0


class Subscriptions:
    """The symbols of one feed, across connections. One thread."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self._symbols = {symbol.casefold(): _Symbol(symbol, True) for symbol in symbols}
        self._traded: dict[str, _Symbol] = {}
        """By the symbol of ticks."""
        self._strangers = 0
        self._frames = 0
        self._up_s: float | None = None
        self._up_before_s: float | None = None
        self._first_up_s: float | None = None
        self._confirms = False
        self._confirmed = False
        self._ever_confirmed = False
        self._alone: deque[_Symbol] = deque()
        self._alone_at_s = 0.0
        self.words = ""
        """The message of the exchange's newest error."""

    def opened(self, now_s: float, confirms: bool, stored_symbol: Callable[[str], str] = str) -> None:
        """A new connection, on which all symbols were requested. `confirms`: an answer is expected.

        `stored_symbol`: what the ticks of a symbol call it.
        """
        self._up_before_s, self._up_s = self._up_s, now_s
        for symbol in self._symbols.values():
            if symbol.requested:
                self._traded[stored_symbol(symbol.name)] = symbol
        if self._first_up_s is None:
            self._first_up_s = now_s
        self._confirms = confirms
        self._confirmed = False
        self._alone.clear()
        for symbol in self._symbols.values():
            symbol.answered = symbol.flows = False
            symbol.frames = self._frames

    def heard(self, parsed: ParsedFrame, now_s: float) -> list[Named]:
        """Process a frame about subscriptions; returns the symbols that are refused for the first time."""
        if parsed.kind in ("ack", "trades"):
            self._confirmed = self._ever_confirmed = True
        for name in parsed.confirmed:
            symbol = self._symbols.get(name.casefold())
            if symbol is not None:
                self._good(symbol)
        if parsed.kind == "error":
            self.words = parsed.detail
        self._ask_alone(parsed.ask_alone, now_s)
        return [named for name in parsed.refused if (named := self._refuse(name, parsed.detail)) is not None]

    def traded(self, ticks: Iterable[Tick], now_s: float) -> None:
        """A frame contained these live trades."""
        self._frames += 1
        self._confirmed = self._ever_confirmed = True
        last: str | None = None
        for tick in ticks:
            if tick.symbol == last:
                continue
            last = tick.symbol
            symbol = self._traded.get(last)
            if symbol is None or not symbol.flows:
                self._trade(last, now_s)
                continue
            # Nearly every frame of a run comes this way.
            pause_s = now_s - symbol.traded_s
            if pause_s > symbol.pause_s:
                symbol.pause_s = pause_s
            symbol.traded_s = now_s
            symbol.frames = self._frames

    def next_alone(self, now_s: float) -> str | None:
        """A symbol to request singly now, at most one per ASK_EVERY_S; None: none yet."""
        while self._alone and now_s >= self._alone_at_s:
            symbol = self._alone.popleft()
            if not symbol.answered:
                self._alone_at_s = now_s + ASK_EVERY_S
                return symbol.name
        return None

    def wait_s(self, now_s: float, most_s: float) -> float:
        """How long a receive may block, from 0 to `most_s`."""
        return max(0.0, min(most_s, self._alone_at_s - now_s)) if self._alone else most_s

    def fallen_silent(self, now_s: float) -> list[Named]:
        """Symbols that have become silent since the last call. Call about once a second."""
        found = []
        for symbol in self._symbols.values():
            since_s = self._since_s(symbol)
            if since_s is None or symbol.silent or symbol.reason is not None or self._maybe_renamed(symbol):
                continue
            quiet_s = now_s - since_s
            others = self._frames - symbol.frames
            if quiet_s > max(SILENT_S, SILENT_PAUSES * symbol.pause_s) and others >= SILENT_OTHERS:
                symbol.silent = True
                symbol.flows = False
                has = "no trade" if symbol.has_traded else "no trade yet"
                reason = f"{has} for {quiet_s:.0f} s, while others trade: halted, renamed or delisted?"
                found.append(Named("SYMBOL_SILENT", symbol.name, reason))
        return found

    def given_up(self, now_s: float, budget_s: float) -> bool:
        """Whether an exchange that confirms has confirmed no symbol within `budget_s` of the first connection.

        The first connection made after that time, or shortly before it, is given CONFIRM_LEAST_S for an answer.
        """
        if self._ever_confirmed or not self._confirms or self._first_up_s is None or self._up_s is None:
            return False
        deadline_s = self._first_up_s + budget_s
        before_s = self._up_before_s
        tried = before_s is not None and before_s >= deadline_s - CONFIRM_LEAST_S
        return now_s >= deadline_s and (tried or now_s >= self._up_s + CONFIRM_LEAST_S)

    def untraded(self, now_s: float) -> list[str]:
        """Symbols that were not refused and have had no trade for UNTRADED_S since the link came up."""
        if self._up_s is None or now_s < self._up_s + UNTRADED_S:
            return []
        waiting = (symbol for symbol in self._symbols.values() if not symbol.has_traded and symbol.reason is None)
        return [symbol.name for symbol in waiting if not symbol.silent and not self._maybe_renamed(symbol)]

    def look(self, now_s: float) -> SymbolsLook:
        """The state of all symbols, for people."""
        refused = {symbol.name: symbol.reason for symbol in self._symbols.values() if symbol.reason is not None}
        silent = [symbol.name for symbol in self._symbols.values() if symbol.silent and symbol.reason is None]
        untraded = self.untraded(now_s)
        return SymbolsLook(
            requested=sum(symbol.requested for symbol in self._symbols.values()),
            confirmed=self._confirmed if self._confirms else None,
            refused=dict(list(refused.items())[:NAMES_MAX]),
            refused_count=len(refused),
            silent=tuple(silent[:NAMES_MAX]),
            silent_count=len(silent),
            untraded=tuple(untraded[:NAMES_MAX]),
            untraded_count=len(untraded),
        )

    def _trade(self, name: str, now_s: float) -> None:
        symbol = self._traded.get(name)
        if symbol is None:
            symbol = self._symbols.get(name.casefold())
            if symbol is None:
                if self._strangers >= _OTHERS_MAX:
                    return
                # Named otherwise than it was asked for, or sent without being asked for.
                self._strangers += 1
                symbol = _Symbol(name, False)
            self._traded[name] = symbol
        since_s = self._since_s(symbol)
        if since_s is not None and symbol.has_traded:
            symbol.pause_s = max(symbol.pause_s, now_s - since_s)
        symbol.traded_s = now_s
        symbol.has_traded = True
        symbol.frames = self._frames
        self._good(symbol)
        symbol.flows = True

    def _since_s(self, symbol: _Symbol) -> float | None:
        """The time since which the symbol has had no trade although the link was up."""
        return self._up_s if self._up_s is None else max(symbol.traded_s, self._up_s)

    def _maybe_renamed(self, symbol: _Symbol) -> bool:
        """Whether it may trade under another name: some exchanges use different names in their answers."""
        return not symbol.has_traded and self._strangers > 0

    def _good(self, symbol: _Symbol) -> None:
        symbol.answered = True
        symbol.reason = None
        symbol.named = symbol.silent = False

    def _refuse(self, name: str, words: str) -> Named | None:
        symbol = self._symbols.get(name.casefold())
        if symbol is None:
            requested = [each for each in self._symbols.values() if each.requested]
            if len(requested) == 1:
                symbol = requested[0]  # by another name
            elif len(self._symbols) < _OTHERS_MAX:
                symbol = self._symbols[name.casefold()] = _Symbol(name[:MAX_SYMBOL_CHARS], False)
            else:
                return None
        symbol.answered = True
        symbol.flows = False
        symbol.reason = words[:REASON_CHARS_MAX]
        if symbol.named:
            return None
        symbol.named = True
        return Named("SYMBOL_REFUSED", symbol.name, symbol.reason)

    def _ask_alone(self, names: Iterable[str], now_s: float) -> None:
        for name in names:
            symbol = self._symbols.get(name.casefold())
            if symbol is not None and symbol not in self._alone:
                self._alone.append(symbol)
                self._alone_at_s = max(self._alone_at_s, now_s + ASK_AFTER_S)
