"""The planted bugs of the live feed: its link, its deadlines, its numbering."""

from __future__ import annotations

from typing import Final

from tests.sim.planted.bug import Bug

FEED_BUGS: Final = (
    # ---- when to connect again ---------------------------------------------------------------------------------------
    Bug(
        "never_at_once_again",
        "only the first loss is answered at once; after a stable connection the delay is drawn",
        "tradebot/feeds/reconnect.py",
        "            self._exponent = 0\n            self._at_once = True\n        delay_s",
        "            self._exponent = 0\n        delay_s",
        200,
    ),
    Bug(
        "backoff_never_reset",
        "a stable connection does not let the pauses begin short again",
        "tradebot/feeds/reconnect.py",
        "            self._exponent = 0\n            self._at_once = True\n        delay_s",
        "            self._at_once = True\n        delay_s",
        20,
        "pauses_begin_short_again",
    ),
    Bug(
        "budget_never_exhausted",
        "the reconnect budget starts anew with each failed attempt",
        "tradebot/feeds/reconnect.py",
        "        self._attempts += 1\n        self._at_once = False\n",
        "        self._attempts += 1\n        self._at_once = False\n"
        "        self._deadline_s = now_s + self._budget_s\n",
        10,
        "budget_exhausted",
    ),
    Bug(
        "retry_after_ignored",
        "what a server asks for with Retry-After is not heeded",
        "tradebot/feeds/reconnect.py",
        "        if retry_after_s is not None and retry_after_s > delay_s:\n"
        "            delay_s = min(retry_after_s, RETRY_AFTER_MAX_S)\n",
        "",
        200,
    ),
    # ---- is the link alive -------------------------------------------------------------------------------------------
    Bug(
        "own_pings_count_as_life",
        "a ping that was sent moves the idle deadline, so that a mute peer is never found",
        "tradebot/feeds/liveness.py",
        '        """A ping was sent."""\n',
        '        """A ping was sent."""\n        self._idle_at_s = now_s + self._idle_timeout_s\n',
        200,
    ),
    Bug(
        "pings_not_sent",
        "no pings: a quiet market looks like a dead link",
        "tradebot/feeds/liveness.py",
        "        return now_s >= self._ping_at_s\n",
        "        return False\n",
        100,
    ),
    Bug(
        "dead_link_not_closed",
        "a link found dead is given up, but its socket is not given back",
        "tradebot/feeds/websocket.py",
        "            connection.close(CLOSE_GOING_AWAY)\n            return",
        "            return",
        200,
    ),
    Bug(
        "broken_for_ever",
        "a loss that was found while sending is remembered for the next connection too",
        "tradebot/feeds/websocket.py",
        "        self._connection = self._broken = None\n",
        "        self._connection = None\n",
        20,
        "resets_met_while_sending",
    ),
    Bug(
        "loss_told_before_its_frames",
        "the loss is told when the ping fails, before the frames that came before it are read",
        "tradebot/feeds/websocket.py",
        "        if self._failure is not None:\n            raise self._failure\n        while self._frames:\n",
        "        if self._failure is not None:\n            raise self._failure\n"
        "        if self._broken is not None and self._connection is not None:\n"
        "            return Batch([], notices=((0, self._lost(str(self._broken), self._broken.code)),))\n"
        "        while self._frames:\n",
        20,
        "resets_met_while_sending",
    ),
    # ---- what came over it -------------------------------------------------------------------------------------------
    Bug(
        "duplicates_not_dropped",
        "every trade below the highest number counts as late, also one that was seen",
        "tradebot/feeds/numbering.py",
        "        if place < 0 or seq >= self._ends[place]:\n            return False\n",
        "        if place < 0 or seq >= self._ends[place]:\n            return True\n",
        100,
    ),
    Bug(
        "one_missing_is_no_gap",
        "off by one: a single missing trade is not told as a gap",
        "tradebot/feeds/sequence.py",
        "                if missing > 0 or missing == RESTARTED:\n",
        "                if missing > 1 or missing == RESTARTED:\n",
        200,
    ),
    Bug(
        "gap_told_late",
        "off by one: a gap is told behind the trade that showed it",
        "tradebot/feeds/sequence.py",
        "gaps.append((len(kept), _gap(",
        "gaps.append((len(kept) + 1, _gap(",
        100,
    ),
    Bug(
        "notice_without_its_place",
        "a notice does not say how many ticks of the run came before it",
        "tradebot/threads/ingest.py",
        "self._tick_channel.offer([replace(piece[0], ticks_before=self._ticks_before)])\n",
        "self._tick_channel.offer([piece[0]])\n",
        100,
    ),
    Bug(
        "numbering_forgotten_with_the_link",
        "each connection starts with an empty memory of what was seen",
        "tradebot/feeds/frame_reader.py",
        "        self.exchange = self._make_exchange()\n        return self.exchange\n",
        "        self.exchange = self._make_exchange()\n        if self._guard is not None:\n"
        "            self._guard = SequenceGuard(self._guard._symbols_max)\n        return self.exchange\n",
        100,
    ),
    Bug(
        "errors_in_a_row_never_forgiven",
        "a good frame does not end a row of malformed ones, so that the limit is met sooner or later",
        "tradebot/feeds/frame_reader.py",
        "        self.malformed_in_a_row = 0\n        if not parsed.ticks",
        "        if not parsed.ticks",
        20,
        "garbage_below_the_limit",
    ),
    Bug(
        "history_counted_as_trades",
        "the last trades that an exchange sends with a subscription are kept, although they are not wanted",
        "tradebot/feeds/frame_reader.py",
        '        keep = self._history == "keep"\n',
        "        keep = True\n",
        200,
    ),
)
