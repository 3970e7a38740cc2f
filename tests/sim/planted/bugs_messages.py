"""Planted bugs in the handling of an exchange's messages: refused or silent symbols, announcements."""

from __future__ import annotations

from typing import Final

from tests.sim.planted.bug import Bug

WORDS_BUGS: Final = (
    Bug(
        "refused_symbol_unnamed",
        "a symbol refused by the exchange is logged as an error of the exchange, without its name",
        "tradebot/feeds/websocket/exchange_reports.py",
        "        notices = [_notice(named, now_ms) for named in self.subscriptions.heard(parsed, now_s)]\n",
        "        self.subscriptions.heard(parsed, now_s)\n        notices: list[Notice] = []\n",
        10,
        "wrong_topic_in_batch",
    ),
    Bug(
        "refused_batch_not_requested_again",
        "if the exchange refuses a whole request for one symbol, its other symbols are not requested again",
        "tradebot/feeds/websocket/subscriptions.py",
        "                self._alone.append(symbol)\n",
        "                pass\n",
        20,
        "wrong_topic_in_batch",
    ),
    Bug(
        "notices_count_as_progress",
        "the engine's own notices count as progress: a feed without a trade is healthy forever",
        "tradebot/threads/commit.py",
        "        if batch.rows > len(batch.notices):\n",
        "        if batch.rows:\n",
        10,
        "all_symbols_refused",
    ),
    Bug(
        "unconfirmed_feed_reconnects_forever",
        "the engine reconnects forever to an exchange that confirms no symbol",
        "tradebot/feeds/websocket/feed.py",
        "        self._reports.check_confirmed(now_s, self._config.reconnect_budget_s)\n",
        "",
        10,
        "all_symbols_refused",
    ),
    Bug(
        "silent_symbol_unnoticed",
        "a symbol that stops trading while others continue is treated as a quiet market",
        "tradebot/feeds/websocket/subscriptions.py",
        "                symbol.silent = True\n",
        "                continue\n",
        10,
        "symbol_falls_silent",
    ),
    Bug(
        "announced_restart_not_anticipated",
        "a restart announced by the exchange is reported, but the engine waits for the connection to be lost",
        "tradebot/feeds/websocket/feed.py",
        "        if self._reports.restart_planned and",
        "        if False and",
        10,
        "restart_announced",
    ),
    Bug(
        "announcement_ignored",
        "announcements of the exchange are ignored like frames of other channels",
        "tradebot/feeds/websocket/exchange_reports.py",
        "            notices += self._announced(parsed.announcement.text, now_s, now_ms)\n",
        "            pass\n",
        10,
        "maintenance_announced",
    ),
)
