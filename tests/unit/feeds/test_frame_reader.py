"""One frame to what it comes to: ticks, history, duplicates and gaps, or why it cannot be understood."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.talk import START_MS, Talk, priced, tick
from tradebot.config.model import History
from tradebot.core.events import Notice
from tradebot.feeds.base import Malformed
from tradebot.feeds.exchanges.base import Exchange, Unparseable
from tradebot.feeds.frame_reader import FrameReader
from tradebot.feeds.price_band import PriceBand
from tradebot.feeds.sequence_tracker import SequenceGuard


def reader(history: History = "drop", *, guarded: bool = True, symbols_max: int = 10) -> FrameReader:
    return FrameReader(Talk, history, SequenceGuard(symbols_max) if guarded else None)


def gap(missing: int, detail: str, symbol: str = "A") -> Notice:
    return Notice("GAP", START_MS, detail, symbol, missing)


def test_trades() -> None:
    read = reader().take("t A 1 2", START_MS)
    assert read.batch.ticks == [tick("A", 1), tick("A", 2)]
    assert read.parsed is not None and read.parsed.kind == "trades"
    assert read.problem is None


@pytest.mark.parametrize("word", ["beat", "book", "ack A", "error no", "hello?"])
def test_what_is_no_trade_says_nothing_in_the_batch(word: str) -> None:
    """Frames of other channels are ignored, never malformed."""
    subject = reader()
    subject.take("what", START_MS)
    read = subject.take(word, START_MS)
    assert (read.batch.ticks, read.batch.malformed, read.batch.notices, read.problem) == ([], 0, (), None)
    assert (subject.frames, subject.malformed_in_a_row) == (2, 0)


def test_what_cannot_be_understood() -> None:
    subject = reader()
    subject.take("t A 1", START_MS)
    for number in (1, 2, 3):
        read = subject.take("what", START_MS)
        assert read.parsed is None
        assert read.problem == "no such word, of 4 characters"
        assert (read.batch.malformed, read.batch.notes) == (1, (Malformed(number + 1, read.problem),))
        assert subject.malformed_in_a_row == number
    subject.take("t A 2", START_MS)
    assert subject.malformed_in_a_row == 0


def test_a_refusal_from_outside_counts_like_one_of_the_adapter() -> None:
    subject = reader()
    subject.frames += 1
    read = subject.refuse("a binary frame")
    assert (read.parsed, read.problem) == (None, "a binary frame")
    assert (read.batch.malformed, read.batch.notes) == (1, (Malformed(1, "a binary frame"),))
    assert subject.malformed_in_a_row == 1


def test_a_long_reason_is_cut() -> None:
    """What an adapter quotes ends up in logs."""

    class Verbose(Talk):
        def parse(self, text: str) -> object:  # type: ignore[override]
            raise Unparseable("x" * 5000)

    read = FrameReader(Verbose, "drop", None).take("", START_MS)
    assert read.problem == read.batch.notes[0].reason == "x" * 200


def test_history_dropped_is_counted_and_leaves_no_trace() -> None:
    """A live trade that was in the history too is no duplicate of what was dropped."""
    subject = reader("drop")
    read = subject.take("h A 1 2", START_MS)
    assert (read.batch.ticks, read.batch.history_dropped, read.batch.notices) == ([], 2, ())
    read = subject.take("t A 2 3", START_MS)
    assert (read.batch.ticks, read.batch.duplicates) == ([tick("A", 2), tick("A", 3)], 0)


def test_history_kept_comes_first_and_counts_as_seen() -> None:
    subject = reader("keep")
    read = subject.take("h A 1 2", START_MS)
    assert (read.batch.ticks, read.batch.history_dropped) == ([tick("A", 1), tick("A", 2)], 0)
    read = subject.take("t A 2 3", START_MS)
    assert (read.batch.ticks, read.batch.duplicates) == ([tick("A", 3)], 1)


@pytest.mark.parametrize("guarded", [True, False])
def test_history_and_trades_in_one_frame(guarded: bool) -> None:
    read = reader("keep", guarded=guarded).take("both A 1 2 3", START_MS)
    assert read.batch.ticks == [tick("A", 1), tick("A", 2), tick("A", 3)]
    read = reader("drop", guarded=guarded).take("both A 1 2 3", START_MS)
    assert (read.batch.ticks, read.batch.history_dropped) == ([tick("A", 2), tick("A", 3)], 1)


def test_gaps_stand_before_the_trade_after_them() -> None:
    """Gaps are counted, logged, stored: in-band, with the time the frame was received."""
    subject = reader()
    subject.take("t A 1", START_MS - 1)
    read = subject.take("t A 2 5 6 9", START_MS)
    assert read.batch.notices == ((1, gap(2, "seq 5 after 2")), (3, gap(2, "seq 9 after 6")))
    assert len(read.batch.ticks) == 4


def test_a_gap_between_history_and_trades() -> None:
    read = reader("keep").take("both A 1 4 5", START_MS)
    assert read.batch.notices == ((1, gap(2, "seq 4 after 1")),)


def test_numbers_of_what_is_no_trade_are_no_gap() -> None:
    subject = reader()
    subject.take("t A 1", START_MS)
    assert subject.take("skip A 2", START_MS).batch.notices == ()
    assert subject.take("t A 3", START_MS).batch.notices == ()
    read = subject.take("skip A 6", START_MS)
    assert (read.batch.notices, read.batch.ticks) == (((0, gap(2, "seq 6 after 3")),), [])


def test_without_a_guard_frames_are_taken_as_they_are() -> None:
    subject = reader(guarded=False, symbols_max=1)
    for _ in range(2):
        read = subject.take("t A 1 5", START_MS)
        assert (len(read.batch.ticks), read.batch.duplicates, read.batch.notices) == (2, 0, ())
    assert len(subject.take("t B 1", START_MS).batch.ticks) == 1
    assert subject.take("skip A 900", START_MS).batch.ticks == []


def test_trades_of_too_many_symbols_are_malformed_one_by_one() -> None:
    """received = malformed + ... counts trades; the frame itself was understood, and no limit is nearer for it."""
    subject = reader(symbols_max=1)
    subject.take("t A 1", START_MS)
    read = subject.take("t B 1 2", START_MS)
    assert (read.batch.ticks, read.batch.malformed, subject.malformed_in_a_row) == ([], 2, 0)
    assert read.problem == "2 trades of more symbols than feed.max_symbols allows"
    assert read.batch.notes == (Malformed(2, read.problem),)
    assert read.parsed is not None


def test_a_new_connection_has_a_new_adapter_but_the_same_guard() -> None:
    made: list[Exchange] = []

    def make() -> Exchange:
        made.append(Talk())
        return made[-1]

    factory: Callable[[], Exchange] = make
    subject = FrameReader(factory, "drop", SequenceGuard(10))
    subject.take("t A 1", START_MS)
    assert subject.exchange is made[0]
    assert subject.new_connection() is subject.exchange is made[1]
    assert subject.take("t A 1", START_MS).batch.duplicates == 1
    assert subject.frames == 2


@pytest.mark.parametrize("guarded", [True, False])
def test_trades_of_a_frame_are_put_in_the_order_of_their_times(guarded: bool) -> None:
    """Live, from captures and from plain files of frames."""
    subject = reader(guarded=guarded)
    subject.take("p A 1:1:0", START_MS)
    read = subject.take("p A 4:4:3 3:3:2 2:2:1", START_MS)
    assert read.batch.ticks == [priced("A", 2, 2.0, 1), priced("A", 3, 3.0, 2), priced("A", 4, 4.0, 3)]
    assert read.batch.notices == ()


class TestPriceBand:
    """The way of a trade: parse, sequence and duplicates, order in the frame, band."""

    def subject(self, jump: float = 10.0) -> FrameReader:
        made = FrameReader(Talk, "drop", SequenceGuard(10), PriceBand(jump))
        made.take("p A 1:100:0", START_MS)
        return made

    def test_a_refused_trade_is_counted_and_reported_in_its_place(self) -> None:
        read = self.subject().take("p A 2:100:1 3:5000:2 4:100:3", START_MS)
        assert read.batch.ticks == [priced("A", 2, 100.0, 1), priced("A", 4, 100.0, 3)]
        assert (read.batch.out_of_band, read.batch.malformed, read.problem) == (1, 0, None)
        [(index, notice)] = read.batch.notices
        assert (index, notice.kind, notice.symbol, notice.missing) == (1, "PRICE_BAND", "A", None)
        assert read.out_of_band == (notice.detail,)
        assert notice.detail.startswith("price 5000.0 of A is 50 times above 100.0")

    def test_a_refused_trade_uses_up_its_number(self) -> None:
        subject = self.subject()
        assert subject.take("p A 2:5000:1", START_MS).batch.out_of_band == 1
        read = subject.take("p A 2:5000:1 3:100:2", START_MS)
        assert (read.batch.duplicates, len(read.batch.ticks), read.batch.notices) == (1, 1, ())

    def test_a_gap_before_a_refused_trade_comes_before_the_next(self) -> None:
        read = self.subject().take("p A 2:100:1 5:5000:2 6:100:3", START_MS)
        assert [(index, notice.kind) for index, notice in read.batch.notices] == [(1, "GAP"), (1, "PRICE_BAND")]

    def test_the_band_sees_the_order_of_the_times(self) -> None:
        """Newest first: the three that agree are the last ones, and the oldest of them come first."""
        read = self.subject().take("p A 5:5003:4 4:5002:3 3:5001:2 2:100:1", START_MS)
        assert [tick.price for tick in read.batch.ticks] == [100.0, 5003.0]

    def test_without_a_band_every_price_is_accepted(self) -> None:
        subject = reader()
        assert len(subject.take("p A 1:1:0 2:1e9:1", START_MS).batch.ticks) == 2
