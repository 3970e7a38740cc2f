"""What a live feed reports about its exchange: refused and silent symbols, errors, announcements.

From parsed frames to log lines and in-band notices; the decisions are in `subscriptions` and `announcements`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from msgspec.structs import replace

from tradebot.core.errors import NetworkError
from tradebot.core.events import MAX_SYMBOL_CHARS, Notice
from tradebot.core.log_events import LogEvent
from tradebot.feeds.exchanges.base import ParsedFrame
from tradebot.feeds.status import SymbolsLook
from tradebot.feeds.websocket.announcements import Announcements
from tradebot.feeds.websocket.subscriptions import UNTRADED_S, Named, Subscriptions
from tradebot.output.log import Log

_LOOK_EVERY_S: Final = 1.0
_LOGGED_NAMES_MAX: Final = 20


class ExchangeReports:
    """The reports of one feed, across connections. Used by one thread, except `look`, which any thread may read.

    `restart_planned`: the exchange will close this connection and has asked for a new one before that.
    """

    def __init__(self, symbols: Sequence[str], where: str, log: Log) -> None:
        """`where`: the feed's address, safe to show."""
        self._where = where
        self._log = log
        self._announcements = Announcements()
        self._look_at_s = float("-inf")
        self._untraded_at_s: float | None = None
        self._traded = False
        self._loss: str | None = None
        self.subscriptions = Subscriptions(symbols)
        self.restart_planned = False
        self.look = SymbolsLook()

    def opened(self, now_s: float, confirms: bool, stored_symbol: Callable[[str], str]) -> None:
        """A new connection; see `Subscriptions.opened`."""
        self.subscriptions.opened(now_s, confirms, stored_symbol)
        self.restart_planned = False
        self._untraded_at_s = now_s + UNTRADED_S
        self._traded = False
        self._look_at_s = now_s
        self._look_again(now_s)

    def lost(self, reason: str) -> None:
        """The connection was lost, for `reason`: it may be why nothing was confirmed."""
        self._loss = reason

    def check_confirmed(self, now_s: float, budget_s: float) -> None:
        """Raises NetworkError if the exchange has confirmed no symbol for feed.reconnect_budget_s."""
        if self.subscriptions.given_up(now_s, budget_s):
            words = self.subscriptions.words
            said = f"the exchange said: {words}" if words else "the exchange sent no error message"
            if self._loss is not None:
                said += f"; the last connection was lost: {self._loss}"
            raise NetworkError(
                f"{self._where} confirmed no symbol within feed.reconnect_budget_s ({budget_s:g} s); {said}"
            )

    def heard(self, parsed: ParsedFrame, now_s: float, now_ms: int) -> list[Notice]:
        """Process a frame, received at `now_s` (monotonic) and `now_ms` (Unix); returns what to report in-band."""
        kind = parsed.kind
        if kind == "trades":
            if parsed.ticks:
                self._traded = True
                self.subscriptions.traded(parsed.ticks, now_s)
            elif parsed.history or parsed.confirmed:
                self.subscriptions.heard(parsed, now_s)
            return []
        if kind in ("heartbeat", "ignored"):
            return []
        self._look_at_s = now_s
        if kind == "ack":
            self._log.info("subscription confirmed", event=LogEvent.SUBSCRIBED, detail=parsed.detail)
        elif kind == "error":
            self._log.error("exchange reports an error", event=LogEvent.EXCHANGE_ERROR, detail=parsed.detail)
        notices = [_notice(named, now_ms) for named in self.subscriptions.heard(parsed, now_s)]
        if parsed.announcement is not None:
            self.restart_planned = self.restart_planned or parsed.announcement.reconnect
            notices += self._announced(parsed.announcement.text, now_s, now_ms)
        elif kind == "error" and not parsed.refused and not parsed.ask_alone:
            # Not about a symbol: a limit that was passed, an outage. Told like an announcement.
            notices += self._announced(parsed.detail, now_s, now_ms)
        return notices

    def check_due(self, now_s: float) -> bool:
        """Whether `check` has something to do."""
        return now_s >= self._look_at_s

    def check(self, now_s: float, now_ms: int, frames: int) -> list[Notice]:
        """Call this often: checks the symbols once a second. `frames`: number received so far, for the log."""
        if now_s < self._look_at_s:
            return []
        self._look_at_s = now_s + _LOOK_EVERY_S
        notices = [_notice(named, now_ms) for named in self.subscriptions.fallen_silent(now_s)]
        if self._untraded_at_s is not None and now_s >= self._untraded_at_s:
            self._untraded_at_s = None
            self._report_untraded(self.subscriptions.untraded(now_s), frames)
        self._look_again(now_s)
        return notices

    def _look_again(self, now_s: float) -> None:
        news = self._announcements
        self.look = replace(self.subscriptions.look(now_s), announced=news.count, announcements=news.newest)

    def _report_untraded(self, names: Sequence[str], frames: int) -> None:
        shown = list(names[:_LOGGED_NAMES_MAX])
        if not self._traded:
            self._log.warning(
                "no trade yet on this connection", event=LogEvent.NO_TRADES, after_s=UNTRADED_S, frames=frames,
                symbols=shown, hint="the market may be quiet; check the symbol and the exchange",
            )  # fmt: skip
        elif shown:
            self._log.warning(
                "no trade yet for some symbols", event=LogEvent.SYMBOLS_UNTRADED, after_s=UNTRADED_S, frames=frames,
                symbols=shown, count=len(names), hint="they may be quiet, renamed or delisted",
            )  # fmt: skip

    def _announced(self, text: str, now_s: float, now_ms: int) -> Iterable[Notice]:
        if not self._announcements.is_news(text, now_s):
            return ()
        return (Notice("EXCHANGE_NOTICE", now_ms, text),)


def _notice(named: Named, now_ms: int) -> Notice:
    return Notice(named.kind, now_ms, named.reason, named.symbol[:MAX_SYMBOL_CHARS])
