"""What a live feed makes of its exchange's words: refusals, announcements, and a restart that is announced."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tests.unit.feeds.websocket.test_feed import CONFIG, MASKED, Line, Make, Rig, Silent, every, lost, rig, text
from tradebot.core.errors import NetworkError
from tradebot.core.events import Notice
from tradebot.feeds.websocket.transport import ConnectFailed

__all__ = ["rig"]


def told(made: Rig, seconds: float) -> list[object]:
    """What the feed says until so many seconds after the start, in order: notices, and ticks by their seq."""
    said: list[object] = []
    for batch in made.after(seconds):
        for index in range(len(batch.ticks) + 1):
            said += [notice for at, notice in batch.notices if at == index]
            said += [tick.seq for tick in batch.ticks[index : index + 1]]
    return said


def seqs(said: list[object]) -> list[object]:
    return [each for each in said if not isinstance(each, Notice)]


def of_kind(said: list[object], *kinds: str) -> list[Notice]:
    return [each for each in said if isinstance(each, Notice) and (not kinds or each.kind in kinds)]


class TestTheExchangesWords:
    """Symbols refused or silent, announcements, and the end of a feed that nothing confirms."""

    def test_a_refused_symbol_is_named_and_the_others_are_asked_for_alone(self, rig: Make) -> None:
        line = Line(text("refuse TYPO A B"), *every(5.0, text("beat")))
        made = rig(line, symbols=("A", "B", "TYPO"))
        said = told(made, 5.0)
        assert line.said[:3] == ["sub A", "sub B", "sub TYPO"]
        assert [what for what in line.said[3:] if str(what).startswith("sub")] == ["sub A", "sub B"]
        [named] = of_kind(said, "SYMBOL_REFUSED")
        assert (named.symbol, named.detail) == ("TYPO", "no TYPO here")

    def test_no_confirmation_within_the_budget_ends_the_feed_with_the_exchanges_words(self, rig: Make) -> None:
        config = replace(CONFIG, reconnect_budget_s=40.0)
        lines = [Line(text("refuse A"), *every(5.0, text("beat"))) for _ in range(3)]
        made = rig(*lines, config=config, symbols=("A",))
        words = r"confirmed no symbol within .* \(40 s\); the exchange said: no A here; the last .* lost: subscription"
        with pytest.raises(NetworkError, match=words) as raised:
            made.after(500.0)
        assert 91.0 <= made.clock.seconds <= 92.0 and MASKED in str(raised.value)

    def test_one_that_confirms_nothing_is_not_given_up(self, rig: Make) -> None:
        made = rig(Line(*every(5.0, text("beat"))), exchange=Silent)
        made.after(119.0)

    def test_what_is_announced_is_a_notice_once_and_so_is_an_error_about_no_symbol(self, rig: Make) -> None:
        made = rig(Line(text("t A 1", "say slow down", "t A 2", "say slow down", "error too many", "t A 3")))
        said = [(notice.kind, notice.detail) for notice in of_kind(told(made, 2.0), "EXCHANGE_NOTICE")]
        assert said == [("EXCHANGE_NOTICE", "slow down"), ("EXCHANGE_NOTICE", "too many")]


class TestAnAnnouncedRestart:
    """A new connection takes over while the old one is still there."""

    def test_nothing_is_lost_and_nothing_is_twice(self, rig: Make) -> None:
        old = Line(text("ack", "t A 1", "restart"), 2.0, text("t A 2"), 1.5, text("t A 3"), 60.0, text("t A 9"))
        new = Line(text("ack", "t A 2"), 0.1, text("t A 3"), 10.0, text("t A 4"))
        made = rig(old, new)
        said = told(made, 20.0)
        assert seqs(said) == [1, 2, 3, 4]
        kinds = [notice.kind for notice in of_kind(said)]
        assert kinds == ["LINK_UP", "EXCHANGE_NOTICE", "LINK_LOST", "LINK_RESTORED"], "and no gap"
        assert old.said[-1] == 1001 and new.said[0] == "sub A" and not new.is_over
        assert made.feed.status().link == "up"

    def test_when_the_old_one_is_lost_the_new_one_is_there(self, rig: Make) -> None:
        made = rig(Line(text("ack", "t A 1", "restart"), 0.2, lost()), Line(text("ack", "t A 1", "t A 2")))
        assert seqs(told(made, 5.0)) == [1, 2]
        assert len(made.network.dialled) == 2

    def test_without_a_new_one_the_old_one_is_used_to_its_end(self, rig: Make) -> None:
        old = Line(text("ack", "t A 1", "restart"), 2.0, text("t A 2"), lost())
        made = rig(old, ConnectFailed("connection refused"), Line(text("ack", "t A 3")))
        assert seqs(told(made, 10.0)) == [1, 2, 3]

    def test_a_server_that_asks_for_a_pause_gets_it_whatever_becomes_of_the_old_one(self, rig: Make) -> None:
        old = Line(text("ack", "t A 1", "restart"), 2.0, lost())
        made = rig(old, ConnectFailed("HTTP 429", 429, 300.0), Line(text("ack", "t A 2")))
        assert seqs(told(made, 320.0)) == [1, 2]
        assert made.network.dialled_s[2] - made.network.dialled_s[1] >= 300.0

    def test_a_pause_that_the_server_asked_for_holds_while_the_old_one_lives(self, rig: Make) -> None:
        old = Line(text("ack", "restart"), *every(0.5, text("beat")))
        made = rig(old, ConnectFailed("HTTP 429", 429, 90.0), Line(text("ack")))
        made.after(100.0)
        assert len(made.network.dialled) == 3
        assert made.network.dialled_s[2] - made.network.dialled_s[1] >= 90.0

    def test_one_announcement_after_the_other_makes_no_storm(self, rig: Make) -> None:
        lines = [Line(*every(0.5, text("ack", "restart"))) for _ in range(20)]
        made = rig(*lines)
        made.after(100.0)
        assert len(made.network.dialled) <= 1 + 100 / CONFIG.stable_after_s + 1

    def test_closing_the_feed_in_between_closes_both(self, rig: Make) -> None:
        old, new = Line(text("ack", "restart"), 60.0), Line(text("ack"), 60.0)
        made = rig(old, new)
        made.until(lambda: bool(new.said))
        made.feed.close()
        assert old.is_over and new.is_over
