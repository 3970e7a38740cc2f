"""The stall detector: 45 seconds from the last progress, whatever was restarted in between; a quiet market is none."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tradebot.ops.soak.stall import Newest, StallDetector

A, B = Newest(1, 1000), Newest(2, 1000)


def test_no_tick_for_45_seconds_is_a_stall() -> None:
    stall = StallDetector(100.0)
    assert not stall.look(100.0, A, None)
    assert not stall.look(140.0, A, None)
    assert not stall.look(144.999, A, None)
    assert stall.due_s == 145.0
    assert stall.look(145.0, A, None)
    assert stall.since_progress_s(145.0) == 45.0


def test_an_id_or_a_time_that_changes_is_progress() -> None:
    stall = StallDetector(0.0)
    stall.look(0.0, A, None)
    stall.look(40.0, B, None)
    assert not stall.look(80.0, Newest(2, 1001), None)
    assert not stall.look(124.0, Newest(2, 1001), None)
    assert stall.look(125.0, Newest(2, 1001), None)


def test_the_first_ticks_are_progress_and_what_was_there_before_is_not() -> None:
    fresh, old = StallDetector(0.0), StallDetector(0.0)
    fresh.look(0.0, Newest(None, None), None)
    fresh.look(40.0, A, None)
    assert fresh.due_s == 85.0
    old.look(40.0, A, None)
    assert old.due_s == 45.0
    assert fresh.moved and not old.moved


def test_a_table_that_is_made_is_no_tick() -> None:
    stall = StallDetector(0.0)
    stall.look(0.0, Newest(None, None, made=False), None)
    stall.look(40.0, Newest(None, None), None)
    assert stall.due_s == 45.0 and not stall.moved
    stall.look(41.0, A, None)
    stall.look(42.0, Newest(None, None, made=False), None)
    assert stall.due_s == 86.0, "nor is one that went away"


def test_a_database_that_cannot_be_read_is_no_progress() -> None:
    stall = StallDetector(0.0)
    stall.look(0.0, A, None)
    for now_s in (10.0, 20.0, 30.0):
        assert not stall.look(now_s, None, None)
    assert stall.look(45.0, None, None)
    assert stall.look(46.0, A, None), "what it was before"


def test_restarts_do_not_hide_a_stall_and_those_for_one_are_apart() -> None:
    stall = StallDetector(0.0)
    stall.look(0.0, A, None)
    assert stall.look(50.0, A, None)
    assert stall.look(55.0, A, None), "not carried out yet"
    stall.restarted(56.0)
    assert not stall.look(100.9, A, None)
    assert stall.since_progress_s(100.9) == 100.9 and stall.stalled(100.9)
    assert stall.look(101.0, A, None)


def test_a_restart_that_helped_leaves_the_usual_45_seconds() -> None:
    stall = StallDetector(0.0)
    stall.look(0.0, A, None)
    assert stall.look(45.0, A, None)
    stall.restarted(46.0)
    assert not stall.look(50.0, B, None)
    assert stall.due_s == 95.0


def test_quiet_is_not_dead_as_long_as_the_engine_says_so() -> None:
    stall = StallDetector(0.0)
    for now_s in range(0, 500, 5):
        assert not stall.look(float(now_s), A, now_s - 0.7)
    assert stall.since_tick_s(495.0) == 495.0
    # From here on the words are the same ones.
    assert not stall.look(535.0, A, 494.3)
    assert stall.look(539.3, A, 494.3)


def test_words_of_long_ago_do_not_count_and_none_counts_for_later_than_now() -> None:
    stall = StallDetector(100.0)
    stall.look(110.0, A, 5000.0)
    assert stall.due_s == 155.0
    stall.look(120.0, A, 3.0)
    assert stall.due_s == 155.0


def test_an_engine_that_was_stopped_on_purpose_is_waited_for() -> None:
    stall = StallDetector(0.0)
    for now_s in (40.0, 80.0, 1000.0):
        assert not stall.look(now_s, A, None, held=True)
    assert not stall.look(1044.0, A, None)
    assert stall.look(1045.0, A, None)


@given(st.lists(st.tuples(st.integers(1, 60), st.booleans(), st.booleans(), st.booleans()), max_size=60))
def test_never_early_never_late_never_close_together(looks: list[tuple[int, bool, bool, bool]]) -> None:
    """Due exactly when both the last progress and the last restart for a stall are 45 s ago."""
    stall = StallDetector(0.0)
    now_s, tick, progress_s, stall_s = 0.0, 1, 0.0, -1000.0
    stall.look(0.0, Newest(tick, 0), None)
    for after_s, ticked, alive, carried_out in looks:
        now_s += after_s
        tick += ticked
        if ticked or alive:
            progress_s = now_s
        due = stall.look(now_s, Newest(tick, 0), now_s if alive else None)
        assert due == (now_s - progress_s >= 45 and now_s - stall_s >= 45)
        if due and carried_out:
            stall.restarted(now_s)
            stall_s = now_s
