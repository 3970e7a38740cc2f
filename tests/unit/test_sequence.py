"""Duplicates, late trades and gaps, told by the sender's numbers; a set-based model agrees."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradebot.events import Tick, TickChunk
from tradebot.feeds import sequence
from tradebot.feeds.sequence import Gap, SequenceGuard, Taken


def tick(seq: int | None, symbol: str = "A", event_id: str | None = None) -> Tick:
    return Tick(symbol, 100.0, 1.0, 1_700_000_000_000, event_id, seq)


def ticks(*seqs: int) -> list[Tick]:
    return [tick(seq) for seq in seqs]


def seqs(taken: Taken) -> list[int | None]:
    return [tick.seq for tick in taken.ticks]


class TestSeq:
    def test_consecutive_numbers_are_new_wherever_they_begin(self) -> None:
        guard, batch = SequenceGuard(10), ticks(1000, 1001, 1002)
        assert guard.take(batch) == Taken(batch)
        again = ticks(1003, 1004)
        assert guard.take(again).ticks is again

    def test_numbers_begin_at_zero_too(self) -> None:
        assert seqs(SequenceGuard(10).take(ticks(0, 1, 0))) == [0, 1]

    def test_a_number_seen_is_a_duplicate(self) -> None:
        guard = SequenceGuard(10)
        taken = guard.take(ticks(7, 7, 8, 7, 8, 9))
        assert seqs(taken) == [7, 8, 9]
        assert taken.duplicates == 3
        assert taken.gaps == ()
        assert guard.take(ticks(9)) == Taken([], duplicates=1)

    def test_a_jump_is_a_gap_before_its_tick(self) -> None:
        taken = SequenceGuard(10).take(ticks(7, 8, 12, 13, 15))
        assert seqs(taken) == [7, 8, 12, 13, 15]
        assert taken.gaps == (
            (2, Gap("A", 3, "seq 12 after 8")),
            (4, Gap("A", 1, "seq 15 after 13")),
        )

    def test_the_index_counts_what_was_let_through(self) -> None:
        taken = SequenceGuard(10).take(ticks(7, 7, 9))
        assert taken.gaps == ((1, Gap("A", 1, "seq 9 after 7")),)

    def test_late_ones_are_stored_once_where_they_come(self) -> None:
        guard = SequenceGuard(10)
        taken = guard.take(ticks(7, 10, 8, 9, 8, 9, 10, 11))
        assert seqs(taken) == [7, 10, 8, 9, 11]
        assert taken.duplicates == 3
        assert len(taken.gaps) == 1

    def test_lower_than_the_first_ever_is_late_not_a_duplicate(self) -> None:
        taken = SequenceGuard(10).take(ticks(100, 97, 100, 97, 98, 99, 99, 96))
        assert seqs(taken) == [100, 97, 98, 99, 96]
        assert taken.duplicates == 3
        assert taken.gaps == ()

    def test_far_below_is_a_new_numbering(self) -> None:
        guard = SequenceGuard(10, window=50)
        taken = guard.take([*ticks(100, 49, 50), *ticks(49), *ticks(51, 53)])
        assert seqs(taken) == [100, 49, 50, 51, 53]
        assert taken.duplicates == 1
        assert taken.gaps == (
            (1, Gap("A", None, "the numbering started anew: seq 49 after 100")),
            (4, Gap("A", 1, "seq 53 after 51")),
        )

    def test_the_window_includes_its_end(self) -> None:
        taken = SequenceGuard(10, window=50).take(ticks(100, 50, 50))
        assert seqs(taken) == [100, 50]
        assert taken.gaps == ()

    def test_symbols_are_numbered_apart(self) -> None:
        guard = SequenceGuard(10)
        batch = [tick(1, "A"), tick(50, "B"), tick(2, "A"), tick(51, "B")]
        assert guard.take(batch) == Taken(batch)
        assert guard.take([tick(3, "A"), tick(54, "B")]).gaps == ((1, Gap("B", 2, "seq 54 after 51")),)

    def test_one_symbol_does_not_go_on_where_another_was(self) -> None:
        guard = SequenceGuard(10)
        guard.take([tick(1, "A"), tick(50, "B")])
        assert guard.take([tick(2, "A"), tick(3, "B"), tick(51, "B")]) == Taken(
            [tick(2, "A"), tick(3, "B"), tick(51, "B")]
        )
        assert guard.take([tick(3, "A"), tick(51, "B")]) == Taken([tick(3, "A")], duplicates=1)

    def test_equal_values_are_no_duplicates(self) -> None:
        batch = ticks(1, 2, 3)
        assert {(t.price, t.volume, t.ts) for t in batch} == {(100.0, 1.0, 1_700_000_000_000)}
        assert len(SequenceGuard(10).take(batch).ticks) == 3

    def test_the_seq_alone_decides_where_there_is_one(self) -> None:
        guard = SequenceGuard(10)
        taken = guard.take([tick(1, event_id="x"), tick(2, event_id="x"), tick(2, event_id="y")])
        assert seqs(taken) == [1, 2]
        assert guard.take([tick(None, event_id="x")]).duplicates == 0

    def test_a_wide_gap_costs_no_memory(self) -> None:
        guard = SequenceGuard(10)
        guard.take(ticks(*range(0, 10**12, 10**8)))
        assert len(guard._numbering["A"]._starts) <= 1

    def test_many_holes_are_bounded_by_the_window(self) -> None:
        guard = SequenceGuard(10, window=100)
        guard.take(ticks(*range(0, 10_000, 2)))
        assert len(guard._numbering["A"]._starts) <= 51


class TestEventId:
    def test_an_id_seen_is_a_duplicate(self) -> None:
        guard = SequenceGuard(10)
        taken = guard.take([tick(None, event_id=name) for name in "abacb"])
        assert [t.event_id for t in taken.ticks] == ["a", "b", "c"]
        assert taken.duplicates == 2
        assert guard.take([tick(None, event_id="c")]) == Taken([], duplicates=1)

    def test_ids_belong_to_a_symbol(self) -> None:
        batch = [tick(None, "A", "x"), tick(None, "B", "x")]
        assert SequenceGuard(10).take(batch) == Taken(batch)

    def test_only_the_newest_are_remembered(self) -> None:
        guard = SequenceGuard(10, window=3)
        guard.take([tick(None, event_id=name) for name in "abcd"])
        assert guard.take([tick(None, event_id=name) for name in "bcd"]).duplicates == 3
        assert guard.take([tick(None, event_id="a")]).duplicates == 0

    def test_many_symbols_share_the_room(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sequence, "IDS_MAX", 200)
        guard = SequenceGuard(100, window=150)
        guard.take([tick(None, "A", f"{n}") for n in range(150)])
        guard.take([tick(None, "B", "0"), tick(None, "A", "150")])
        assert guard.take([tick(None, "A", "51")]).duplicates == 1
        assert guard.take([tick(None, "A", "50")]).duplicates == 0

    def test_without_any_number_all_are_new(self) -> None:
        batch = [tick(None)] * 3
        assert SequenceGuard(10).take(batch) == Taken(batch)
        chunk = TickChunk(batch, "A")
        assert SequenceGuard(10).take(chunk).ticks is chunk


class TestSymbols:
    def test_further_ones_are_refused_and_counted(self) -> None:
        guard = SequenceGuard(2)
        taken = guard.take([tick(1, "A"), tick(None, "B"), tick(1, "C"), tick(None, "D"), tick(2, "A")])
        assert [t.symbol for t in taken.ticks] == ["A", "B", "A"]
        assert taken.refused == 2
        assert guard.too_many(tick(1, "C"))
        assert not guard.too_many(tick(1, "B"))
        assert guard.take(TickChunk([tick(None, "E")] * 3, "E")) == Taken([], refused=3)
        assert guard.take(TickChunk([tick(None, "B")] * 3, "B")).refused == 0


class TestRestore:
    def test_what_was_stored_is_a_duplicate_and_a_jump_is_a_gap(self) -> None:
        guard = SequenceGuard(10)
        assert guard.restore("A", [5, 6, 8], ["x"])
        taken = guard.take([*ticks(6, 7, 8, 11), tick(None, event_id="x")])
        assert seqs(taken) == [7, 11]
        assert taken.duplicates == 3
        assert taken.gaps == ((1, Gap("A", 2, "seq 11 after 8")),)

    def test_nothing_stored_is_a_beginning(self) -> None:
        guard = SequenceGuard(10)
        guard.restore("A", [], [])
        assert guard.take(ticks(500)).gaps == ()

    def test_a_numbering_that_started_anew_is_restored_as_such(self) -> None:
        guard = SequenceGuard(10)
        guard.restore("A", [90_000, 90_001, 1, 2], [])
        assert guard.take(ticks(3)) == Taken(ticks(3))

    def test_no_room(self) -> None:
        guard = SequenceGuard(1)
        assert guard.restore("A", [1], [])
        assert not guard.restore("B", [1], [])


@pytest.mark.parametrize(("symbols_max", "window"), [(0, 10), (10, 0)])
def test_bounds_that_are_none_are_refused(symbols_max: int, window: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        SequenceGuard(symbols_max, window)


class Model:
    """What the guard must do, by sets that are never trimmed."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.seen: dict[str, set[int]] = {}

    def take(self, symbol: str, seq: int) -> tuple[bool, int | None]:
        """Whether it is stored, and how many are missing before it."""
        seen = self.seen.setdefault(symbol, set())
        if not seen:
            seen.add(seq)
            return True, 0
        highest = max(seen)
        if seq < highest - self.window:
            self.seen[symbol] = {seq}
            return True, None
        if seq in seen:
            return False, 0
        seen.add(seq)
        return True, max(0, seq - highest - 1)


@st.composite
def numbered(draw: st.DrawFn) -> list[tuple[str, int]]:
    """Mostly consecutive numbers of a few symbols, with jumps, repetitions and steps back of every size."""
    position = {"A": draw(st.integers(0, 100)), "B": 1000}
    result = []
    steps = st.sampled_from([1, 1, 1, 1, 0, 2, 3, 7, 25, -1, -2, -5, -11, -12, -13, -40])
    for symbol, step in draw(st.lists(st.tuples(st.sampled_from("AAAB"), steps), max_size=80)):
        position[symbol] = max(0, position[symbol] + step)
        result.append((symbol, position[symbol]))
    return result


def newest_first(batch: list[Tick]) -> bool:
    """At least two ticks of a symbol, and no tick with a number that is not below that of its symbol before it."""
    by_symbol = [[one.seq or 0 for one in batch if one.symbol == symbol] for symbol in "AB"]
    falling = all(a > b for seqs in by_symbol for a, b in itertools.pairwise(seqs))
    return falling and any(len(seqs) > 1 for seqs in by_symbol)


class TestNewestFirst:
    """Some exchanges send the trades of a frame newest first: that is no gap, and their order is kept."""

    def test_consecutive_frames(self) -> None:
        guard = SequenceGuard(10)
        for batch in (ticks(7, 6, 5), ticks(9, 8), ticks(10)):
            assert guard.take(batch) == Taken(batch)

    def test_a_gap_between_frames_or_within_one_is_told_before_the_frame(self) -> None:
        guard = SequenceGuard(10)
        guard.take(ticks(5))
        assert guard.take(ticks(9, 8)) == Taken(ticks(9, 8), ((0, Gap("A", 2, "seq 8 after 5")),))
        assert guard.take(ticks(12, 10)).gaps == ((0, Gap("A", 1, "seq 12 after 10")),)

    def test_duplicates_of_a_frame_seen_before(self) -> None:
        guard = SequenceGuard(10)
        guard.take(ticks(7, 6, 5))
        taken = guard.take(ticks(8, 7, 6))
        assert (seqs(taken), taken.duplicates, taken.gaps) == ([8], 2, ())

    def test_several_symbols(self) -> None:
        guard, batch = SequenceGuard(10), [tick(3), tick(2), tick(9, "B"), tick(8, "B")]
        assert guard.take(batch) == Taken(batch)
        assert guard.take([tick(4), tick(10, "B")]).gaps == ()


class TestPassOver:
    """Numbers of what came and is no trade."""

    def test_no_gap_where_they_were(self) -> None:
        guard = SequenceGuard(10)
        guard.take(ticks(5))
        assert guard.pass_over([("A", 6), ("A", 7)]) == []
        assert guard.take(ticks(8)) == Taken(ticks(8))

    def test_a_gap_before_one(self) -> None:
        guard = SequenceGuard(10)
        guard.take(ticks(5))
        assert guard.pass_over([("A", 8)]) == [Gap("A", 2, "seq 8 after 5")]
        assert guard.take(ticks(9)).gaps == ()

    def test_symbols_there_is_no_room_for(self) -> None:
        guard = SequenceGuard(1)
        guard.take(ticks(5))
        assert guard.pass_over([("B", 8)]) == []


@given(numbered(), st.integers(1, 12), st.integers(1, 20))
def test_a_model_of_sets_agrees(numbers: list[tuple[str, int]], window: int, batch_size: int) -> None:
    model, guard = Model(window), SequenceGuard(5, window)
    for start in range(0, len(numbers), batch_size):
        batch = [tick(seq, symbol) for symbol, seq in numbers[start : start + batch_size]]
        kept: list[Tick] = []
        gaps: list[tuple[int, str, int | None]] = []
        # A frame whose first trade is just the next one cannot have begun with the newest.
        turned = newest_first(batch) and batch[0].seq != max(model.seen.get(batch[0].symbol, {-2})) + 1
        for one in batch[::-1] if turned else batch:
            assert one.seq is not None
            stored, missing = model.take(one.symbol, one.seq)
            if missing != 0:
                gaps.append((len(kept), one.symbol, missing))
            if stored:
                kept.append(one)
        if turned:
            kept, gaps = kept[::-1], [(0, symbol, missing) for _index, symbol, missing in gaps]
        taken = guard.take(list(batch))
        assert taken.ticks == kept
        assert taken.duplicates == len(batch) - len(kept)
        assert [(index, gap.symbol, gap.missing) for index, gap in taken.gaps] == gaps


@given(st.permutations(range(500, 560)), st.lists(st.integers(0, 59), max_size=60))
def test_in_any_order_each_is_stored_once(order: list[int], repeated: list[int]) -> None:
    """Within the window: every number once, none lost, none twice, and the order kept."""
    sent = [*order, *(500 + n for n in repeated)]
    taken = SequenceGuard(1, window=60).take(ticks(*sent))
    assert seqs(taken) == list(dict.fromkeys(sent))
    assert taken.duplicates == len(sent) - len(taken.ticks)


@given(st.lists(st.text("abcdef", min_size=1, max_size=2), max_size=100), st.integers(1, 10))
def test_ids_agree_with_a_model(names: list[str], window: int) -> None:
    remembered: list[str] = []
    kept = []
    for name in names:
        if name not in remembered:
            kept.append(name)
            remembered = [*remembered, name][-window:]
    taken = SequenceGuard(1, window).take([tick(None, event_id=name) for name in names])
    assert [t.event_id for t in taken.ticks] == kept
