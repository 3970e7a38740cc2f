"""The limiter: never more than its limit in any second, nothing held back uncounted, bounded memory."""

from __future__ import annotations

from itertools import pairwise
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from tradebot.output.log_rate_limit import MAX_KIND_CHARS, OTHER_KINDS, RateLimiter

STEPS_S = st.lists(st.floats(0, 1.5) | st.just(0.0) | st.just(1.0), max_size=80)


def test_limit_lines_then_none_until_a_window_after_the_first() -> None:
    limiter = RateLimiter(3)
    assert [limiter.admit("a", now_s) for now_s in (0.0, 0.4, 0.5, 0.6, 0.99)] == [True, True, True, False, False]
    # The first of the three is a second old, so one more fits; the next room comes a second after the second.
    assert [limiter.admit("a", now_s) for now_s in (1.0, 1.0, 1.39, 1.4, 1.4)] == [True, False, False, True, False]


@given(STEPS_S, st.integers(1, 5))
def test_no_window_wherever_it_begins_holds_more_than_the_limit(steps_s: list[float], limit: int) -> None:
    limiter = RateLimiter(limit)
    now_s, written = 1000.0, []
    for step_s in steps_s:
        now_s += step_s
        if limiter.admit("a", now_s):
            written.append(now_s)
    for first, one_more in zip(written, written[limit:], strict=False):
        assert one_more >= first + 1.0
    assert all(a <= b for a, b in pairwise(written))


@given(st.lists(st.tuples(st.floats(0, 0.5), st.sampled_from("abcdefgh"), st.sampled_from(["admit", 1, 7, "take"]))))
def test_every_line_is_written_or_reported_once(steps: list[tuple[float, str, str | int]]) -> None:
    """G4: counts are kept through asking, reporting and forgetting of kinds, with more kinds than the table holds."""
    limiter = RateLimiter(2, max_kinds=3)
    now_s, asked, written, reported = 0.0, 0, 0, 0
    for step_s, kind, action in steps:
        now_s += step_s
        if action == "take":
            reported += sum(each.lines for each in limiter.take_suppressed())
        elif isinstance(action, int):  # as many lines at once
            asked += 0 if limiter.has_room(kind, now_s, action) else action
        else:
            asked += 1
            written += limiter.admit(kind, now_s)
    assert written + reported + sum(each.lines for each in limiter.take_suppressed()) == asked
    assert limiter.take_suppressed() == []


def test_kinds_have_their_own_allowance() -> None:
    limiter = RateLimiter(1)
    assert [limiter.admit(kind, 0.0) for kind in "aabb"] == [True, False, True, False]
    assert limiter.take_suppressed() == [("a", None, 1), ("b", None, 1)]


def test_asking_for_room_costs_an_allowance_nothing() -> None:
    limiter = RateLimiter(1)
    assert limiter.has_room("a", 0.0)
    assert limiter.has_room("a", 0.0)
    assert limiter.take_suppressed() == []
    assert limiter.admit("a", 0.0)
    assert not limiter.has_room("a", 0.5)
    assert not limiter.has_room("a", 0.5, 3)
    assert limiter.report_at_s == 1.5
    assert limiter.take_suppressed() == [("a", None, 4)]
    assert limiter.has_room("a", 1.0)


def test_report_is_due_a_window_after_the_first_line_held_back() -> None:
    limiter = RateLimiter(1)
    limiter.admit("a", 5.0)
    assert limiter.report_at_s == inf
    limiter.admit("a", 5.25)
    limiter.admit("a", 5.5)
    assert limiter.report_at_s == 6.25
    limiter.take_suppressed()
    assert limiter.report_at_s == inf


def test_more_kinds_than_the_table_holds_share_one_allowance() -> None:
    limiter = RateLimiter(1, max_kinds=2)
    assert [limiter.admit(kind, 0.0) for kind in ("a", "b", "c", "d", "e")] == [True, True, True, False, False]
    assert limiter.take_suppressed() == [(OTHER_KINDS, None, 2)]


def test_quiet_kinds_make_room_for_new_ones() -> None:
    limiter = RateLimiter(1, max_kinds=2)
    limiter.admit("a", 0.0)
    limiter.admit("b", 0.9)
    assert limiter.admit("c", 1.0)
    assert limiter.admit("d", 1.0)  # b was still active: c took the place of a, d shares
    assert not limiter.admit("e", 1.0)
    assert limiter.take_suppressed() == [(OTHER_KINDS, None, 1)]


def test_memory_is_bounded_whatever_the_kinds() -> None:
    limiter = RateLimiter(50, max_kinds=16)
    for number in range(2000):
        limiter.admit(f"{number}" + "x" * 1000, number / 100)
    kinds = limiter._kinds
    assert len(kinds) <= 17  # and the shared one
    assert max(map(len, kinds)) <= MAX_KIND_CHARS


def test_a_quiet_kind_is_not_forgotten_before_it_is_reported() -> None:
    limiter = RateLimiter(1, max_kinds=1)
    limiter.admit("a", 0.0)
    limiter.admit("a", 0.1)
    limiter.admit("b", 50.0)
    assert limiter.take_suppressed() == [("a", None, 1)]
    limiter.admit("c", 100.0)
    assert "a" not in limiter._kinds


def test_the_table_is_searched_for_quiet_kinds_at_most_once_a_window() -> None:
    """A flood of new kinds would otherwise pay for a search of the whole table with each line."""
    limiter = RateLimiter(1, max_kinds=1)
    limiter.admit("a", 0.5)
    limiter.admit("b", 1.0)  # searched in vain
    limiter.admit("c", 1.9)
    assert "a" in limiter._kinds
    limiter.admit("d", 2.0)
    assert "a" not in limiter._kinds
