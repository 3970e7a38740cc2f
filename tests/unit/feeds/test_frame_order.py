"""The trades of one frame reach the strategy oldest first, each symbol in its own places."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.talk import START_MS
from tradebot.core.events import Tick
from tradebot.feeds.frame_order import in_time_order
from tradebot.feeds.sequence_tracker import Gap, SequenceGuard


def trade(ts: int, seq: int | None = None, symbol: str = "A") -> Tick:
    return Tick(symbol, 100.0, 1.0, START_MS + ts, None, seq)


def test_newest_first_is_turned() -> None:
    assert in_time_order([trade(3), trade(2), trade(1)]) == [trade(1), trade(2), trade(3)]


def test_what_is_in_order_is_handed_on() -> None:
    ticks = [trade(1), trade(1), trade(2)]
    assert in_time_order(ticks) is ticks


def test_equal_times_stay_as_they_were_sent() -> None:
    assert in_time_order([trade(2, 9), trade(1, 7), trade(1, 8)]) == [trade(1, 7), trade(1, 8), trade(2, 9)]


def test_other_symbols_keep_their_places() -> None:
    ticks = [trade(ts, symbol=symbol) for ts, symbol in ((5, "A"), (9, "B"), (3, "A"), (8, "B"), (4, "A"))]
    assert in_time_order(ticks) == [
        trade(3, symbol="A"), trade(8, symbol="B"), trade(4, symbol="A"), trade(9, symbol="B"), trade(5, symbol="A"),
    ]  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("AB"), st.integers(0, 99)), max_size=30))
def test_each_symbol_is_sorted_stably_in_its_places(drawn: list[tuple[int, str, int]]) -> None:
    ticks = [trade(ts, number, symbol) for ts, symbol, number in drawn]
    result = in_time_order(list(ticks))
    assert [tick.symbol for tick in result] == [tick.symbol for tick in ticks]
    for symbol in "AB":
        own = [tick for tick in ticks if tick.symbol == symbol]
        assert [tick for tick in result if tick.symbol == symbol] == sorted(own, key=lambda tick: tick.ts)


class TestGaps:
    """A gap is decided by the numbers, and comes before the first tick after the hole in the order of the times."""

    def test_in_a_frame_that_is_newest_first(self) -> None:
        guard = SequenceGuard(10)
        guard.take([trade(0, 7)])
        taken = guard.take([trade(12, 12), trade(11, 11), trade(9, 9), trade(8, 8)])
        assert taken.ticks == [trade(8, 8), trade(9, 9), trade(11, 11), trade(12, 12)]
        assert taken.gaps == ((2, Gap("A", 1, "seq 11 after 9")),)

    def test_where_times_and_numbers_disagree(self) -> None:
        guard = SequenceGuard(10)
        guard.take([trade(0, 7)])
        taken = guard.take([trade(8, 8), trade(12, 11), trade(11, 12)])
        assert taken.ticks == [trade(8, 8), trade(11, 12), trade(12, 11)]
        assert taken.gaps == ((1, Gap("A", 2, "seq 11 after 8")),)

    def test_a_late_trade_belongs_before_the_hole_it_fills(self) -> None:
        guard = SequenceGuard(10)
        taken = guard.take([trade(7, 7), trade(10, 10), trade(8, 8)])
        assert taken.ticks == [trade(7, 7), trade(8, 8), trade(10, 10)]
        assert taken.gaps == ((2, Gap("A", 2, "seq 10 after 7")),)

    def test_of_several_symbols_and_with_duplicates(self) -> None:
        guard = SequenceGuard(10)
        guard.take([trade(1, 1), trade(1, 1, "B")])
        sent = [trade(5, 5, "B"), trade(4, 4), trade(4, 4, "B"), trade(1, 1), trade(2, 2, "B")]
        taken = guard.take(sent)
        assert taken.ticks == [trade(2, 2, "B"), trade(4, 4), trade(4, 4, "B"), trade(5, 5, "B")]
        assert taken.gaps == ((1, Gap("A", 2, "seq 4 after 1")), (2, Gap("B", 1, "seq 4 after 2")))
        assert taken.duplicates == 1
