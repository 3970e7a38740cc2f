"""When to flush and how long to insist: pure decisions on a clock that is an argument."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradebot.store.policy import MAX_BATCH_EVENTS, WAL_BYTES_KEPT, FlushPolicy, RetryPolicy


class TestFlush:
    def test_at_the_batch_size(self) -> None:
        policy = FlushPolicy(100, 1.0)
        policy.added(10.0)
        assert not policy.due(99, 10.0)
        assert policy.due(100, 10.0)

    def test_at_the_interval_after_the_first_event(self) -> None:
        """The interval runs from the first event of the batch: a trickle does not put it off."""
        policy = FlushPolicy(100, 1.0)
        policy.added(10.0)
        policy.added(10.9)
        assert policy.wait_s(10.25) == 0.75
        assert not policy.due(2, 10.99)
        assert policy.due(2, 11.0)
        assert policy.wait_s(11.5) == 0.0

    def test_an_empty_batch_is_never_due(self) -> None:
        policy = FlushPolicy(100, 1.0)
        assert policy.wait_s(10.0) is None
        assert not policy.due(0, 1e9)
        policy.added(10.0)
        policy.flushed()
        assert policy.wait_s(10.0) is None
        assert not policy.due(0, 1e9)


class TestRetry:
    def test_backs_off_up_to_a_second_and_gives_up_in_time(self) -> None:
        """I6: retried with backoff for storage_retry_s, then no more."""
        retry, now, delays = RetryPolicy(5.0), 100.0, list[float]()
        while (delay := retry.next_delay_s(now, None)) is not None:
            delays.append(delay)
            now += delay
        assert delays[:6] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0]
        assert now == pytest.approx(105.0)

    def test_a_success_starts_anew(self) -> None:
        retry = RetryPolicy(5.0)
        retry.next_delay_s(100.0, None)
        retry.next_delay_s(104.0, None)
        retry.succeeded()
        assert retry.next_delay_s(200.0, None) == 0.05
        assert retry.next_delay_s(204.9, None) == pytest.approx(0.1)
        assert retry.next_delay_s(205.0, None) is None

    @given(
        patience=st.floats(0, 50),
        deadline=st.none() | st.floats(900, 1100),
        steps=st.lists(st.floats(0, 10), max_size=30),
    )
    def test_never_waits_past_the_end(self, patience: float, deadline: float | None, steps: list[float]) -> None:
        """S13: the deadline of a stop binds, however long storage_retry_s is."""
        retry, now = RetryPolicy(patience), 1000.0
        end = now + patience if deadline is None else min(now + patience, deadline)
        for step in steps:
            delay = retry.next_delay_s(now, deadline)
            if now >= end:
                assert delay is None
                return
            assert delay is not None
            assert 0 < delay <= 1.0
            assert now + delay <= end + 1e-9
            now += delay + step

    def test_no_patience_means_one_attempt(self) -> None:
        assert RetryPolicy(0.0).next_delay_s(5.0, None) is None


def test_an_attempt_waits_no_longer_than_the_patience_that_is_left() -> None:
    retry = RetryPolicy(3.0)
    assert retry.patience_s(100.0, None) == 3.0
    assert retry.patience_s(100.0, 101.0) == 1.0
    assert retry.next_delay_s(100.0, None) is not None
    assert retry.patience_s(102.5, None) == 0.5
    assert retry.patience_s(104.0, None) == 0.0
    retry.succeeded()
    assert retry.patience_s(104.0, None) == 3.0


def test_large_batches_while_a_reader_keeps_the_log_from_being_emptied() -> None:
    """A log beyond its usual size: only the interval and the bound of a batch count, until it is small again."""
    policy = FlushPolicy(100, 1.0)
    policy.added(0.0)
    policy.flushed(WAL_BYTES_KEPT + 1)
    policy.added(10.0)
    assert not policy.due(100, 10.9)
    assert policy.due(MAX_BATCH_EVENTS, 10.9)
    assert policy.due(100, 11.0)
    policy.flushed(WAL_BYTES_KEPT)
    policy.added(20.0)
    assert policy.due(100, 20.0)
