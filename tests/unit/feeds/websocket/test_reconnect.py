"""When a feed connects again and when it gives up: on a clock and a randomness that are arguments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradebot.feeds.websocket.http import RETRY_AFTER_MAX_S
from tradebot.feeds.websocket.reconnect import ATTEMPT_LEAST_S, BASE_S, ReconnectPolicy

HIGH = 1 - 2**-53
"""The largest fraction: what is left of a delay is the delay."""


def link(backoff_max_s: float = 30.0, stable_after_s: float = 30.0, budget_s: float = 120.0) -> ReconnectPolicy:
    policy = ReconnectPolicy(backoff_max_s, stable_after_s, budget_s)
    policy.begin(100.0)
    return policy


def delays_of(policy: ReconnectPolicy, now_s: float, attempts: int, fraction: float = HIGH) -> list[float]:
    """The delays after `attempts` failures in a row, rounded."""
    delays = []
    for _ in range(attempts):
        policy.failed(now_s, fraction)
        delays.append(round(policy.next_attempt_s - now_s, 6))
        now_s = policy.next_attempt_s
    return delays


class TestDelays:
    def test_the_first_attempt_is_made_at_once(self) -> None:
        policy = link()
        assert policy.wait_s(100.0) == 0.0
        assert policy.attempts == 0

    def test_failures_back_off_up_to_the_cap(self) -> None:
        assert delays_of(link(budget_s=1e9), 100.0, 7) == [1, 2, 4, 8, 16, 30, 30]

    def test_full_jitter(self) -> None:
        """Any part of the delay, from none at all on."""
        assert delays_of(link(), 100.0, 4, 0.25) == [0.25, 0.5, 1, 2]
        assert delays_of(link(), 100.0, 4, 0.0) == [0, 0, 0, 0]

    def test_a_loss_is_retried_at_once_and_then_with_backoff(self) -> None:
        policy = link()
        policy.connected(101.0)
        policy.lost(200.0, 0.5)
        assert policy.wait_s(200.0) == 0.0
        assert delays_of(policy, 200.0, 3) == [1, 2, 4]

    def test_a_stable_connection_starts_the_backoff_anew(self) -> None:
        policy = link()
        delays_of(policy, 100.0, 4)
        policy.connected(120.0)
        policy.lost(150.0, HIGH)
        assert policy.wait_s(150.0) == 0.0
        assert delays_of(policy, 150.0, 2) == [1, 2]

    def test_a_connection_lost_too_early_goes_on_where_the_backoff_was(self) -> None:
        """A server that accepts and hangs up is not stormed: no second retry at once, and the delay grows on."""
        policy = link()
        delays_of(policy, 100.0, 2)
        now, waits = 110.0, []
        for _ in range(4):
            policy.connected(now)
            now += 29.9
            policy.lost(now, HIGH)
            waits.append(round(policy.wait_s(now), 6))
            now += policy.wait_s(now)
        assert waits == [4, 8, 16, 30]

    def test_the_first_loss_is_retried_at_once_even_when_it_came_early(self) -> None:
        policy = link()
        policy.connected(100.1)
        policy.lost(101.0, HIGH)
        assert policy.wait_s(101.0) == 0.0
        policy.connected(101.1)
        policy.lost(102.0, HIGH)
        assert policy.wait_s(102.0) == pytest.approx(1.0)

    def test_a_stable_time_of_nothing_makes_each_loss_retried_at_once(self) -> None:
        policy, now = link(stable_after_s=0.0), 100.0
        for _ in range(100):
            policy.connected(now)
            policy.lost(now, HIGH)
            assert policy.wait_s(now) == 0.0

    def test_thousands_of_failures_overflow_nothing(self) -> None:
        assert delays_of(link(budget_s=1e9), 100.0, 5000)[-1] == 30

    @pytest.mark.parametrize("fraction", [1.0, -0.1, float("nan")])
    def test_a_fraction_out_of_range_is_refused(self, fraction: float) -> None:
        with pytest.raises(ValueError, match="fraction"):
            link().failed(100.0, fraction)


class TestRetryAfter:
    def test_no_attempt_before_it_even_beyond_the_cap(self) -> None:
        policy = link(budget_s=1000.0)
        policy.failed(100.0, 0.5, retry_after_s=90.0)
        assert policy.next_attempt_s == 190.0
        assert policy.wait_s(100.0) == 90.0

    def test_it_never_shortens_the_delay(self) -> None:
        policy = link()
        policy.failed(100.0, 0.5, retry_after_s=0.25)
        assert policy.next_attempt_s == 100.5

    @pytest.mark.parametrize("retry_after_s", [1e12, float("inf")])
    def test_it_is_bounded(self, retry_after_s: float) -> None:
        policy = link(budget_s=1e9)
        policy.failed(100.0, 0.5, retry_after_s=retry_after_s)
        assert policy.next_attempt_s == 100.0 + RETRY_AFTER_MAX_S

    @pytest.mark.parametrize("retry_after_s", [-5.0, float("nan"), float("-inf")])
    def test_nonsense_is_nothing(self, retry_after_s: float) -> None:
        policy = link()
        policy.failed(100.0, 0.5, retry_after_s=retry_after_s)
        assert policy.next_attempt_s == 100.5

    def test_the_time_asked_for_does_not_count_against_the_budget(self) -> None:
        policy = link(budget_s=60.0)
        policy.failed(110.0, 0.5, retry_after_s=600.0)
        assert policy.wait_s(110.0) == 600.0
        assert not policy.exhausted(710.0)
        policy.failed(711.0, 0.5)
        assert policy.deadline_s == 760.0
        assert policy.exhausted(760.0) and not policy.exhausted(759.9)

    def test_what_an_earlier_process_was_asked_for_comes_before_the_first_attempt(self) -> None:
        policy = ReconnectPolicy(30.0, 30.0, 60.0)
        policy.begin(100.0, asked_s=20.0)
        assert policy.wait_s(100.0) == 20.0 and not policy.exhausted(1000.0)
        assert policy.deadline_s == 180.0


class TestBudget:
    def test_it_runs_from_the_start(self) -> None:
        """Exit 10: no completed handshake within the reconnect budget."""
        policy = link()
        assert policy.deadline_s == 220.0
        policy.failed(219.9, 0.5)
        assert not policy.exhausted(219.99)
        assert policy.exhausted(220.0)

    def test_it_runs_from_the_loss(self) -> None:
        policy = link()
        policy.failed(150.0, 0.5)
        policy.connected(200.0)
        deadline_s = policy.deadline_s  # a name of its own: mypy would take the property for a constant
        assert deadline_s is None
        assert not policy.exhausted(1e9)
        policy.lost(1000.0, 0.5)
        assert policy.deadline_s == 1120.0
        policy.failed(1119.0, 0.5)
        assert not policy.exhausted(1119.9)
        assert policy.exhausted(1120.0)

    def test_each_completed_handshake_restarts_it(self) -> None:
        """Only the backoff waits for stability."""
        policy = link()
        policy.failed(219.0, 0.5)
        policy.connected(219.9)
        policy.lost(220.5, 0.5)
        assert policy.deadline_s == 340.5
        assert not policy.exhausted(220.5)

    def test_failures_do_not_put_it_off(self) -> None:
        policy = link()
        delays_of(policy, 100.0, 5)
        assert policy.deadline_s == 220.0

    def test_a_sleep_ends_at_the_deadline(self) -> None:
        policy = link(budget_s=100.0)
        policy.failed(199.5, HIGH)
        assert policy.next_attempt_s > 200.0
        assert policy.wait_s(199.5) == 0.5
        assert policy.wait_s(201.0) == 0.0

    def test_none_means_one_attempt(self) -> None:
        policy = link(budget_s=0.0)
        assert not policy.exhausted(100.0)
        assert policy.attempt_timeout_s(100.0, 10.0) == 10.0
        policy.failed(101.0, 0.5)
        assert policy.exhausted(101.0)

    def test_none_means_one_attempt_after_each_loss_but_no_storm(self) -> None:
        policy = link(budget_s=0.0)
        policy.connected(100.0)
        policy.lost(100.0, HIGH)
        assert policy.wait_s(100.0) == 0.0
        policy.connected(100.0)
        policy.lost(100.0, HIGH)
        assert not policy.exhausted(100.0)
        assert policy.wait_s(100.0) == pytest.approx(BASE_S)
        assert not policy.exhausted(101.0)
        assert policy.attempt_timeout_s(101.0, 10.0) == 10.0
        policy.failed(102.0, HIGH)
        assert policy.exhausted(102.0)

    def test_a_delay_never_uses_up_the_budget(self) -> None:
        """Otherwise a server that hangs up early would end the run without being asked again."""
        policy, now = link(budget_s=4.0), 100.0
        for _ in range(10):
            policy.connected(now)
            policy.lost(now, HIGH)
            wait_s = policy.wait_s(now)
            now += wait_s
            assert policy.attempt_timeout_s(now, 10.0) == pytest.approx(4.0 - wait_s)
        assert wait_s == pytest.approx(2.0)


class TestAttemptTimeout:
    def test_what_is_left_of_the_budget_limits_it(self) -> None:
        policy = link(budget_s=15.0)
        assert policy.attempt_timeout_s(100.0, 10.0) == 10.0
        assert policy.attempt_timeout_s(112.0, 10.0) == 3.0

    def test_it_is_never_nothing(self) -> None:
        policy = link(budget_s=15.0)
        policy.failed(101.0, 0.5)
        assert policy.attempt_timeout_s(114.99, 10.0) == ATTEMPT_LEAST_S
        assert policy.attempt_timeout_s(200.0, 10.0) == ATTEMPT_LEAST_S
        assert policy.attempt_timeout_s(200.0, 0.05) == 0.05

    def test_a_first_attempt_that_comes_too_late_gets_all_of_it(self) -> None:
        assert link(budget_s=15.0).attempt_timeout_s(200.0, 10.0) == 10.0


def test_attempts_are_counted_since_the_loss() -> None:
    policy = link()
    policy.failed(101.0, 0.5)
    policy.failed(102.0, 0.5)
    assert policy.attempts == 2
    policy.connected(103.0)
    assert policy.attempts == 3
    policy.lost(200.0, 0.5)
    assert policy.attempts == 0


def test_events_that_cannot_be_are_refused() -> None:
    policy = link()
    with pytest.raises(ValueError, match="not connected"):
        policy.lost(100.0, 0.5)
    policy.connected(100.0)
    with pytest.raises(ValueError, match="connected"):
        policy.failed(100.0, 0.5)


@given(
    backoff_max_s=st.floats(0.1, 100),
    stable_after_s=st.floats(0, 100),
    budget_s=st.just(0.0) | st.floats(0.01, 500),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["fail", "drop"]),
            st.floats(0, 60),
            st.floats(0, HIGH),
            st.none() | st.floats(allow_nan=True, allow_infinity=True),
        ),
        max_size=40,
    ),
)
def test_waits_and_ends_are_bounded_whatever_happens(
    backoff_max_s: float,
    stable_after_s: float,
    budget_s: float,
    steps: list[tuple[str, float, float, float | None]],
) -> None:
    """Driven as the feed drives it: it never waits past the deadline, and gives up at it and not before."""
    policy, now = ReconnectPolicy(backoff_max_s, stable_after_s, budget_s), 1000.0
    policy.begin(now)
    since, asked_s = now, 0.0
    for kind, lasts_s, fraction, retry_after_s in steps:
        wait_s = policy.wait_s(now)
        assert 0 <= wait_s <= max(backoff_max_s, budget_s, BASE_S) + asked_s
        now += wait_s
        if policy.exhausted(now):
            assert policy.attempts > 0
            assert now >= since + budget_s + asked_s
            return
        assert now <= since + max(budget_s, BASE_S) + asked_s + 1e-6
        timeout_s = policy.attempt_timeout_s(now, 10.0)
        assert 0 < timeout_s <= 10.0
        if kind == "fail":
            now += min(lasts_s, timeout_s)
            policy.failed(now, fraction, retry_after_s)
            if retry_after_s is not None and retry_after_s > 0:
                asked_s += min(retry_after_s, RETRY_AFTER_MAX_S)
            assert policy.next_attempt_s <= now + max(backoff_max_s, RETRY_AFTER_MAX_S)
            assert policy.deadline_s == pytest.approx(since + budget_s + asked_s)
        else:
            policy.connected(now)
            assert policy.deadline_s is None
            now = since = now + lasts_s
            asked_s = 0.0
            policy.lost(now, fraction)
            assert policy.wait_s(now) <= min(backoff_max_s, budget_s / 2 or BASE_S) + 1e-6
