"""Duplicates, late trades and gaps, told by the sender's numbers; a set-based model agrees."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tradebot.core.events import BUY, SequenceState, Tick, TickChunk, content_digest
from tradebot.feeds import sequence_tracker as sequence
from tradebot.feeds.numbering import SETTLED
from tradebot.feeds.sequence_tracker import Gap, SequenceGuard, Taken

START_MS = 1_700_000_000_000


def tick(
    seq: int | None,
    symbol: str = "A",
    event_id: str | None = None,
    price: float = 100.0,
    volume: float = 1.0,
    ts: int = START_MS,
) -> Tick:
    return Tick(symbol, price, volume, ts, event_id, seq)


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
            (1, Gap("A", None, "the sender's numbering restarted: seq 49 after 100")),
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
        assert len(guard._numbering["A"].missing()) <= 1

    def test_many_holes_are_bounded_by_the_window(self) -> None:
        guard = SequenceGuard(10, window=100)
        guard.take(ticks(*range(0, 10_000, 2)))
        assert len(guard._numbering["A"].missing()) <= 51


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
        assert guard.take(TickChunk([tick(None, "E")] * 3, "E")) == Taken([], refused=3)
        assert guard.take(TickChunk([tick(None, "B")] * 3, "B")).refused == 0


class TestIdentity:
    """A duplicate has the number and the content of a trade seen before; another content is a restarted numbering."""

    def test_numbers_that_restart_at_one_are_stored_and_reported_once(self) -> None:
        guard = SequenceGuard(10)
        guard.take([tick(n, price=100.0 + n % 7) for n in range(1, 201)])
        later = [tick(n, price=200.0 + n % 7, ts=START_MS + 86_400_000) for n in range(1, 201)]
        taken = [guard.take([one]) for one in later]
        assert [one for part in taken for one in part.ticks] == later
        assert sum(part.duplicates for part in taken) == 0
        assert [part.gaps for part in taken if part.gaps] == [
            ((0, Gap("A", None, "the sender's numbering restarted: seq 1 after 200")),)
        ]
        assert guard.take(later[100:]).duplicates == 100

    def test_numbers_that_restart_below_the_first_one_met_are_stored(self) -> None:
        """Down to the first number of the old numbering they look late."""
        guard = SequenceGuard(10)
        guard.take([tick(n) for n in range(150, 200)])
        taken = [guard.take([tick(n, price=7.0)]) for n in range(1, 200)]
        assert sum(len(part.ticks) for part in taken) == 199
        assert [part.gaps[0][1].missing for part in taken if part.gaps] == [None]

    def test_the_taker_is_no_part_of_the_content(self) -> None:
        """An earlier version has stored trades without it: their repetitions are duplicates nevertheless."""
        for number in ({"seq": 5}, {"event_id": "x", "seq": None}):
            old, new = tick(**number), replace(tick(**number), taker=BUY)
            for first, again in ((old, new), (new, old)):
                guard = SequenceGuard(10)
                guard.take([first])
                assert guard.take([again]) == Taken([], duplicates=1)
                restarted = SequenceGuard(10)
                restarted.restore("A", guard.state("A"))
                assert restarted.take([again]) == Taken([], duplicates=1)

    @pytest.mark.parametrize("field", [{"price": 7.0}, {"volume": 7.0}, {"ts": START_MS + 1}])
    def test_each_part_of_the_content_counts(self, field: dict[str, Any]) -> None:
        for number in ({"seq": 5}, {"event_id": "x", "seq": None}):
            guard = SequenceGuard(10)
            first, other = tick(**number), tick(**number, **field)
            guard.take([first])
            assert guard.take([first]).duplicates == 1
            taken = guard.take([other])
            assert (taken.ticks, taken.duplicates, [gap.missing for _index, gap in taken.gaps]) == ([other], 0, [None])
            assert guard.take([other]).duplicates == 1

    @pytest.mark.parametrize("number", [{"seq": 0}, {"event_id": "0", "seq": None}])
    def test_a_constant_number_is_stored_and_reported_once(self, number: dict[str, Any]) -> None:
        guard = SequenceGuard(10)
        sent = [tick(**number, ts=START_MS + n) for n in range(50)]
        taken = [guard.take([one]) for one in sent]
        assert [one for part in taken for one in part.ticks] == sent
        assert sum(len(part.gaps) for part in taken) == 1
        assert guard.take(sent[-1:]).duplicates == 1

    def test_a_second_restart_is_reported_when_the_numbering_had_continued(self) -> None:
        guard = SequenceGuard(10)
        gaps = []
        for restart, count in enumerate((40, 3, SETTLED, SETTLED + 1, 40)):
            taken = [guard.take([tick(n, price=1.0 + restart)]) for n in range(1, count + 1)]
            assert all(part.ticks for part in taken)
            gaps.append(sum(len(part.gaps) for part in taken))
        # Of 3 and of SETTLED numbers the highest is not yet SETTLED above the first.
        assert gaps == [0, 1, 0, 0, 1]

    def test_ids_of_before_the_restart_are_still_known(self) -> None:
        guard = SequenceGuard(10)
        old = [tick(None, event_id=str(n)) for n in range(50)]
        new = [tick(None, event_id=str(n), price=7.0) for n in range(50)]
        guard.take(old)
        taken = guard.take(new)
        assert (taken.ticks, len(taken.gaps)) == (new, 1)
        assert guard.take([*new, *old]).duplicates == 100

    def test_a_content_that_is_forgotten_is_told_by_its_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A trade that is sent again has its old time, one of a restarted numbering is newer than all before it."""
        monkeypatch.setattr(sequence, "CONTENTS_MAX", 16)
        guard = SequenceGuard(10)
        sent = [tick(n, ts=START_MS + n) for n in range(100)]
        guard.take(sent)
        assert guard.take(sent) == Taken([], duplicates=100)
        again = tick(5, ts=START_MS + 100)
        assert guard.take([again]).ticks == [again]

    def test_the_memory_is_shared_by_all_symbols(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sequence, "CONTENTS_MAX", 1 << 12)
        guard = SequenceGuard(1000)
        guard.take([tick(n, "first") for n in range(5000)])
        assert len(guard.state("first").contents) == 1024
        for number in range(63):
            guard.take([tick(n, f"S{number}") for n in range(100)])
        assert [len(guard.state(symbol).contents) for symbol in ("first", "S0", "S62")] == [64, 64, 64]
        assert guard.state("first").contents[-1][0] == 4999

    def test_a_digest_is_the_same_in_every_process(self) -> None:
        assert content_digest(Tick("A", 100.5, 0.25, 1_700_000_000_123)) == 3_790_059_713
        assert content_digest(Tick("A", 1.0, -0.0, 1)) == content_digest(Tick("B", 1.0, 0.0, 1, "id", 7))


class TestRestore:
    def test_what_was_stored_is_a_duplicate_and_a_jump_is_a_gap(self) -> None:
        guard = SequenceGuard(10)
        guard.remember([*ticks(5, 6, 8), tick(None, event_id="x")])
        taken = guard.take([*ticks(6, 7, 8, 11), tick(None, event_id="x")])
        assert seqs(taken) == [7, 11]
        assert taken.duplicates == 3
        assert taken.gaps == ((1, Gap("A", 2, "seq 11 after 8")),)

    def test_nothing_stored_is_a_beginning(self) -> None:
        guard = SequenceGuard(10)
        guard.remember([])
        assert guard.restore("A", SequenceState())
        assert guard.take(ticks(500)).gaps == ()

    def test_a_numbering_that_restarted_is_restored_as_such(self) -> None:
        guard = SequenceGuard(10)
        guard.remember(ticks(90_000, 90_001, 1, 2))
        assert guard.take(ticks(3)) == Taken(ticks(3))

    def test_no_room(self) -> None:
        guard = SequenceGuard(1)
        assert guard.restore("A", SequenceState())
        assert not guard.restore("B", SequenceState())

    def test_a_restart_that_was_reported_is_not_reported_by_the_next_process(self) -> None:
        before, after = SequenceGuard(10), SequenceGuard(10)
        before.take([tick(0, price=1.0 + n) for n in range(50)])
        after.restore("A", before.state("A"))
        assert after.take([tick(0, price=99.0)]).gaps == ()

    def test_a_restarted_numbering_is_found_after_a_restart_of_the_process(self) -> None:
        before, after = SequenceGuard(10), SequenceGuard(10)
        before.take([tick(n) for n in range(1, 201)])
        after.restore("A", before.state("A"))
        sent = [tick(n, price=7.0) for n in range(1, 201)]
        taken = after.take(sent)
        assert (taken.ticks, taken.duplicates, len(taken.gaps)) == (sent, 0, 1)

    def test_which_symbols_changed(self) -> None:
        guard = SequenceGuard(10)
        guard.take([tick(1, "B"), tick(1, "A"), tick(2, "A")])
        guard.take(TickChunk([tick(None, "C")], "C"))
        guard.pass_over([("D", 1)])
        assert guard.changed() == ["A", "B", "C", "D"]
        assert guard.changed() == []
        guard.take([tick(2, "A")])
        assert guard.changed() == ["A"]

    def test_a_state_can_be_encoded(self) -> None:
        guard = SequenceGuard(10)
        guard.take([*ticks(1, 2, 5), tick(None, event_id="x")])
        state = guard.state("A")
        assert state.missing == ((3, 5),)
        assert msgspec.json.decode(msgspec.json.encode(state), type=SequenceState) == state


def test_nothing_is_remembered_of_a_symbol_for_which_there_is_no_room() -> None:
    guard = SequenceGuard(1)
    guard.take(ticks(1))
    for number in range(100):
        assert guard.take([tick(1, f"X{number}"), tick(2, f"X{number}")]).refused == 2
    assert guard.changed() == ["A"]


@pytest.mark.parametrize(("symbols_max", "window"), [(0, 10), (10, 0)])
def test_bounds_that_are_none_are_refused(symbols_max: int, window: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        SequenceGuard(symbols_max, window)


class Model:
    """What the guard must do, by dictionaries that are never trimmed."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.seen: dict[str, dict[int, Tick]] = {}
        self.reported: set[str] = set()

    def take(self, one: Tick) -> tuple[bool, int | None]:
        """Whether it is stored, and how many are missing before it (None: a restart to be reported)."""
        assert one.seq is not None
        seen = self.seen.setdefault(one.symbol, {})
        if not seen:
            seen[one.seq] = one
            return True, 0
        highest = max(seen)
        if one.seq < highest - self.window or seen.get(one.seq, one) != one:
            report = one.symbol not in self.reported or highest - min(seen) >= SETTLED
            self.reported.add(one.symbol)
            self.seen[one.symbol] = {one.seq: one}
            return True, None if report else 0
        if one.seq in seen:
            return False, 0
        seen[one.seq] = one
        return True, max(0, one.seq - highest - 1)


@st.composite
def numbered(draw: st.DrawFn) -> list[Tick]:
    """Mostly consecutive numbers of a few symbols, with jumps, repetitions and steps back of every size, and now and
    then another content."""
    position = {"A": draw(st.integers(0, 100)), "B": 1000}
    result = []
    steps = st.sampled_from([1, 1, 1, 1, 0, 2, 3, 7, 25, -1, -2, -5, -11, -12, -13, -40])
    prices = st.sampled_from([1.0] * 9 + [2.0])
    for symbol, step, price in draw(st.lists(st.tuples(st.sampled_from("AAAB"), steps, prices), max_size=80)):
        position[symbol] = max(0, position[symbol] + step)
        result.append(tick(position[symbol], symbol, price=price))
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


@given(numbered(), st.integers(1, 12), st.integers(1, 20), st.integers(0, 4))
def test_a_model_of_sets_agrees(numbers: list[Tick], window: int, batch_size: int, restart_at: int) -> None:
    model, guard = Model(window), SequenceGuard(5, window)
    for count, start in enumerate(range(0, len(numbers), batch_size)):
        batch = numbers[start : start + batch_size]
        kept: list[Tick] = []
        gaps: list[tuple[int, str, int | None]] = []
        # A frame whose first trade is just the next one cannot have begun with the newest.
        turned = newest_first(batch) and batch[0].seq != max(model.seen.get(batch[0].symbol, {-2: 0})) + 1
        for one in batch[::-1] if turned else batch:
            stored, missing = model.take(one)
            if missing != 0:
                gaps.append((len(kept), one.symbol, missing))
            if stored:
                kept.append(one)
        if turned:
            # All times are equal, so the order stays; the first one after a hole was decided last of its symbol.
            kept = kept[::-1]
            first = {symbol: next((n for n, one in enumerate(kept) if one.symbol == symbol), 0) for symbol in "AB"}
            gaps = sorted([(first[symbol], symbol, missing) for _index, symbol, missing in gaps], key=lambda g: g[0])
        taken = guard.take(list(batch))
        assert taken.ticks == kept
        assert taken.duplicates == len(batch) - len(kept)
        assert [(index, gap.symbol, gap.missing) for index, gap in taken.gaps] == gaps
        if count == restart_at:  # what a restart continues from decides the same
            later = SequenceGuard(5, window)
            for symbol in guard.changed():
                later.restore(symbol, guard.state(symbol))
            guard = later


@given(st.permutations(range(500, 560)), st.lists(st.integers(0, 59), max_size=60))
def test_in_any_order_each_is_stored_once(order: list[int], repeated: list[int]) -> None:
    """Within the window: every number once, none lost, none twice, and the order kept."""
    sent = [*order, *(500 + n for n in repeated)]
    taken = SequenceGuard(1, window=60).take(ticks(*sent))
    assert seqs(taken) == list(dict.fromkeys(sent))
    assert taken.duplicates == len(sent) - len(taken.ticks)


@given(st.lists(st.tuples(st.text("abcdef", min_size=1, max_size=1), st.sampled_from([1.0, 2.0, 3.0])), max_size=100))
def test_ids_agree_with_a_model(sent: list[tuple[str, float]]) -> None:
    kept = list(dict.fromkeys(sent))
    taken = SequenceGuard(1).take([tick(None, event_id=name, price=price) for name, price in sent])
    assert [(t.event_id, t.price) for t in taken.ticks] == kept


@given(st.lists(st.text("abcdef", min_size=1, max_size=2), max_size=100), st.integers(1, 10))
def test_only_so_many_ids_are_remembered(names: list[str], window: int) -> None:
    remembered: list[str] = []
    kept = []
    for name in names:
        if name not in remembered:
            kept.append(name)
            remembered = [*remembered, name][-window:]
    taken = SequenceGuard(1, window).take([tick(None, event_id=name) for name in names])
    assert [t.event_id for t in taken.ticks] == kept
