"""What becomes of each symbol (`subscriptions.py`), and what is announced (`announcements.py`)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.talk import tick
from tradebot.feeds.exchanges.base import ParsedFrame
from tradebot.feeds.websocket.announcements import AGAIN_AFTER_S, NEWEST, Announcements
from tradebot.feeds.websocket.subscriptions import (
    ASK_AFTER_S,
    ASK_EVERY_S,
    CONFIRM_LEAST_S,
    SILENT_OTHERS,
    SILENT_S,
    UNTRADED_S,
    Named,
    Subscriptions,
)

BUDGET_S = 60.0


def opened(*symbols: str, confirms: bool = True) -> Subscriptions:
    subscriptions = Subscriptions(symbols)
    subscriptions.opened(0.0, confirms)
    return subscriptions


def refused(*symbols: str, words: str = "no such symbol", alone: tuple[str, ...] = ()) -> ParsedFrame:
    return ParsedFrame("error", detail=words, refused=symbols, ask_alone=alone)


def trade(subscriptions: Subscriptions, symbol: str, *times_s: float) -> None:
    for now_s in times_s:
        subscriptions.traded([tick(symbol, 1)], now_s)


class TestRefusals:
    def test_a_refused_symbol_is_named_once_with_the_exchanges_words(self) -> None:
        subscriptions = opened("A", "B")
        assert subscriptions.heard(refused("B"), 1.0) == [Named("SYMBOL_REFUSED", "B", "no such symbol")]
        assert subscriptions.heard(refused("B"), 2.0) == []
        subscriptions.opened(10.0, True)
        assert subscriptions.look(10.0).refused == {"B": "no such symbol"}, "as far as is known"
        assert subscriptions.heard(refused("B"), 11.0) == [], "not again at each connection"
        assert subscriptions.look(11.0).refused == {"B": "no such symbol"}

    def test_one_that_was_good_in_between_is_named_again(self) -> None:
        subscriptions = opened("A", "B")
        subscriptions.heard(refused("B"), 1.0)
        trade(subscriptions, "B", 2.0)
        assert subscriptions.look(2.0).refused_count == 0
        assert len(subscriptions.heard(refused("B"), 3.0)) == 1

    def test_the_name_may_be_written_otherwise(self) -> None:
        assert opened("btcusdt").heard(refused("BTCUSDT"), 1.0)[0].symbol == "btcusdt"
        assert opened("BTC/USD").heard(refused("XBT/USD"), 1.0)[0].symbol == "BTC/USD", "it is the only one"
        assert opened("A", "B").heard(refused("C"), 1.0)[0].symbol == "C"


class TestAskingAlone:
    def test_one_after_the_other_but_only_what_is_still_open(self) -> None:
        subscriptions = opened("A", "B", "C", "TYPO")
        subscriptions.heard(refused("TYPO", alone=("A", "B", "C")), 1.0)
        assert subscriptions.next_alone(1.0) is None, "answers may be on their way"
        assert subscriptions.wait_s(1.0, 5.0) == ASK_AFTER_S
        subscriptions.heard(ParsedFrame("ack", confirmed=("B",)), 1.1)
        now_s = 1.0 + ASK_AFTER_S
        assert [subscriptions.next_alone(now_s), subscriptions.next_alone(now_s)] == ["A", None]
        assert subscriptions.next_alone(now_s + ASK_EVERY_S) == "C"
        assert subscriptions.next_alone(now_s + 60) is None
        assert subscriptions.wait_s(now_s + 60, 5.0) == 5.0

    def test_a_new_connection_asks_for_all_and_forgets_it(self) -> None:
        subscriptions = opened("A", "B")
        subscriptions.heard(refused(alone=("A", "B")), 1.0)
        subscriptions.opened(2.0, True)
        assert subscriptions.next_alone(60.0) is None


class TestConfirmation:
    def test_no_word_but_errors_for_the_budget_is_given_up(self) -> None:
        subscriptions = opened("A")
        subscriptions.heard(refused("A", words="not supported"), 1.0)
        subscriptions.opened(40.0, True)
        assert not subscriptions.given_up(BUDGET_S - 0.1, BUDGET_S)
        assert subscriptions.given_up(BUDGET_S, BUDGET_S) and subscriptions.words == "not supported"
        assert subscriptions.look(50.0).confirmed is False

    def test_an_answer_is_waited_for_whatever_the_budget(self) -> None:
        assert not opened("A").given_up(CONFIRM_LEAST_S - 0.1, 0.0)
        assert opened("A").given_up(CONFIRM_LEAST_S, 0.0)

    def test_a_link_that_was_away_for_longer_is_given_time_for_an_answer_once(self) -> None:
        subscriptions = opened("A")
        subscriptions.opened(500.0, True)
        assert not subscriptions.given_up(500.0, BUDGET_S)
        assert subscriptions.given_up(500.0 + CONFIRM_LEAST_S, BUDGET_S)
        subscriptions.opened(501.0, True)
        assert subscriptions.given_up(501.0, BUDGET_S), "a server that hangs up at once is given no more"

    def test_one_confirmation_or_trade_is_enough_for_ever(self) -> None:
        for parsed in (ParsedFrame("ack"), ParsedFrame("trades", history=[tick("A", 1)])):
            subscriptions = opened("A", "B")
            subscriptions.heard(parsed, 1.0)
            subscriptions.opened(50.0, True)
            assert not subscriptions.given_up(1e6, BUDGET_S)
        subscriptions = opened("A", "B")
        trade(subscriptions, "A", 1.0)
        assert not subscriptions.given_up(1e6, BUDGET_S)

    def test_an_exchange_that_confirms_nothing_is_never_given_up(self) -> None:
        assert not opened("A", confirms=False).given_up(1e6, BUDGET_S)
        assert opened("A", confirms=False).look(1.0).confirmed is None


class TestSilence:
    def test_one_that_never_traded_is_listed_after_a_minute(self) -> None:
        subscriptions = opened("A", "B")
        trade(subscriptions, "A", 1.0)
        assert subscriptions.untraded(UNTRADED_S - 0.1) == []
        assert subscriptions.look(UNTRADED_S).untraded == ("B",)

    def test_one_that_stops_while_others_trade_is_named_once(self) -> None:
        subscriptions = opened("A", "B")
        trade(subscriptions, "A", 1.0, 2.0)
        trade(subscriptions, "B", *(float(second) for second in range(2, 3 + int(SILENT_S))))
        assert subscriptions.fallen_silent(2.0 + SILENT_S) == []
        [named] = subscriptions.fallen_silent(2.1 + SILENT_S)
        assert (named.kind, named.symbol) == ("SYMBOL_SILENT", "A") and "no trade for 300 s" in named.reason
        assert subscriptions.fallen_silent(1e5)[:1] != [named], "once"
        assert subscriptions.look(400.0).silent == ("A",)
        trade(subscriptions, "A", 500.0)
        assert subscriptions.look(500.0).silent == ()

    def test_a_quiet_market_is_no_silence(self) -> None:
        subscriptions = opened("A", "B")
        trade(subscriptions, "A", 1.0)
        trade(subscriptions, "B", *(float(second) for second in range(1, SILENT_OTHERS)))
        assert subscriptions.fallen_silent(1e5) == [], "fewer trades of others than would show anything"

    def test_a_symbol_with_long_pauses_has_longer(self) -> None:
        subscriptions = opened("A", "B")
        trade(subscriptions, "A", 1.0, 101.0)
        trade(subscriptions, "B", *(102.0 + second for second in range(200)))
        assert subscriptions.fallen_silent(101.0 + 20 * 100.0) == []
        assert [named.symbol for named in subscriptions.fallen_silent(102.0 + 20 * 100.0)] == ["A"]

    def test_while_the_link_is_away_nothing_is_silent(self) -> None:
        subscriptions = opened("A", "B")
        trade(subscriptions, "A", 1.0)
        trade(subscriptions, "B", *(float(second) for second in range(1, 200)))
        subscriptions.opened(10_000.0, True)
        assert subscriptions.fallen_silent(10_001.0) == []

    def test_an_exchange_that_uses_other_names_makes_nothing_silent(self) -> None:
        subscriptions = opened("BTC/USD", "ETH/USD")
        trade(subscriptions, "XBT/USD", *(float(second) for second in range(1, 1000)))
        assert subscriptions.untraded(1000.0) == [] and subscriptions.fallen_silent(1000.0) == []

    @given(st.lists(st.tuples(st.sampled_from("ABC"), st.floats(0.001, 400.0)), max_size=300))
    def test_one_that_traded_within_the_bound_is_never_silent(self, market: list[tuple[str, float]]) -> None:
        subscriptions = opened("A", "B")
        now_s, last = 0.0, dict.fromkeys("ABC", 0.0)
        for symbol, pause_s in market:
            now_s += pause_s
            last[symbol] = now_s
            trade(subscriptions, symbol, now_s)
            for named in subscriptions.fallen_silent(now_s):
                assert now_s - last[named.symbol] > SILENT_S


class TestAnnouncements:
    def test_the_same_text_is_news_once(self) -> None:
        announcements = Announcements()
        assert [announcements.is_news(text, 1.0) for text in ("a", "a", "b", "a")] == [True, False, True, False]
        assert (announcements.count, announcements.newest) == (2, ("a", "b"))

    def test_and_again_after_an_hour_without_it(self) -> None:
        announcements = Announcements()
        announcements.is_news("a", 0.0)
        assert not announcements.is_news("a", AGAIN_AFTER_S - 1)
        assert not announcements.is_news("a", 2 * AGAIN_AFTER_S - 2)
        assert announcements.is_news("a", 3 * AGAIN_AFTER_S)

    @given(st.lists(st.text(max_size=3), max_size=400))
    def test_what_is_remembered_is_bounded(self, texts: list[str]) -> None:
        announcements = Announcements()
        for number, text in enumerate(texts):
            announcements.is_news(text, float(number))
        assert len(announcements.newest) <= NEWEST and len(announcements._heard_s) <= 64
