"""Whether a connection is alive: deadlines on a clock that is an argument."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tradebot.feeds.websocket.keepalive import Liveness

IDLE = "no frame for 30 s"
UNCONFIRMED = "subscription not confirmed within 10 s"


def opened(expects_ack: bool = False, *, idle_s: float = 30.0, ping_s: float = 10.0) -> Liveness:
    live = Liveness(idle_s, ping_s, 10.0)
    live.opened(100.0, expects_ack)
    return live


class TestIdle:
    def test_a_mute_peer_is_dead_after_the_timeout(self) -> None:
        live = opened()
        assert live.dead(129.99) is None
        assert live.dead(130.0) == IDLE

    def test_any_frame_is_life(self) -> None:
        """Pongs count: a quiet market is not a dead feed."""
        live = opened()
        live.received(129.0)
        assert live.dead(158.9) is None
        assert live.dead(159.0) == IDLE

    def test_our_own_pings_are_no_life(self) -> None:
        """Half-open: what we send goes nowhere, and only the missing answer tells."""
        live = opened()
        for now in (110.0, 120.0):
            live.pinged(now)
        assert live.dead(130.0) == IDLE

    def test_the_text_has_the_timeout_as_configured(self) -> None:
        live = Liveness(0.5, 10.0, 10.0)
        live.opened(0.0, False)
        assert live.dead(1.0) == "no frame for 0.5 s"


class TestSubscription:
    def test_unconfirmed_is_dead_though_frames_come(self) -> None:
        live = opened(expects_ack=True)
        live.received(109.0)
        assert live.dead(109.9) is None
        assert live.dead(110.0) == UNCONFIRMED

    def test_confirmed_in_time(self) -> None:
        live = opened(expects_ack=True)
        live.received(105.0)
        live.confirmed()
        assert live.dead(134.9) is None
        assert live.dead(135.0) == IDLE

    def test_an_exchange_without_acks_is_not_waited_for(self) -> None:
        live = opened(expects_ack=False)
        live.received(109.0)
        assert live.dead(115.0) is None

    def test_of_two_reasons_the_one_that_came_first(self) -> None:
        assert opened(expects_ack=True).dead(1000.0) == UNCONFIRMED
        assert opened(expects_ack=True, idle_s=5.0).dead(1000.0) == "no frame for 5 s"

    def test_every_connection_is_confirmed_anew(self) -> None:
        live = opened(expects_ack=True)
        live.confirmed()
        live.opened(200.0, True)
        assert live.dead(209.9) is None
        assert live.dead(210.0) == UNCONFIRMED


class TestPings:
    def test_due_at_a_fixed_interval(self) -> None:
        live = opened()
        assert not live.ping_due(109.9)
        assert live.ping_due(110.0)
        live.pinged(110.5)
        assert not live.ping_due(120.4)
        assert live.ping_due(120.5)

    def test_due_though_frames_come(self) -> None:
        """Exchanges hang up on clients that say nothing, however much they themselves say."""
        live = opened()
        live.received(109.9)
        assert live.ping_due(110.0)

    def test_a_new_connection_counts_anew(self) -> None:
        live = opened()
        live.opened(109.0, False)
        assert not live.ping_due(118.9)
        assert live.ping_due(119.0)


class TestWait:
    def test_until_the_next_thing_to_do(self) -> None:
        live = opened(ping_s=60.0, expects_ack=True)
        assert live.wait_s(104.0, 99.0) == 6.0
        live.confirmed()
        assert live.wait_s(104.0, 99.0) == 26.0
        live.received(120.0)
        live.received(140.0)
        assert live.wait_s(145.0, 99.0) == 15.0
        assert live.wait_s(145.0, 0.5) == 0.5

    def test_nothing_when_something_is_overdue(self) -> None:
        assert opened().wait_s(111.0, 0.5) == 0.0


@given(
    idle_s=st.integers(1, 50),
    ping_s=st.integers(1, 50),
    subscribe_s=st.integers(1, 50),
    expects_ack=st.booleans(),
    steps=st.lists(
        st.tuples(st.integers(0, 20), st.sampled_from(["frame", "ping", "confirm", "nothing"])), max_size=30
    ),
)
def test_sleeping_as_told_misses_no_deadline(
    idle_s: int, ping_s: int, subscribe_s: int, expects_ack: bool, steps: list[tuple[int, str]]
) -> None:
    """At the end of `wait_s` something is due; before it nothing new is."""
    live, now = Liveness(idle_s, ping_s, subscribe_s), 0.0
    live.opened(now, expects_ack)
    frame_at, confirmed = now, not expects_ack
    for pause, kind in steps:
        wait = live.wait_s(now, 1000.0)
        due_now = live.dead(now) is not None or live.ping_due(now)
        assert (wait == 0) == due_now
        assert live.dead(now + wait) is not None or live.ping_due(now + wait)
        if wait > 0:
            assert live.dead(now + wait - 0.5) is None
            assert not live.ping_due(now + wait - 0.5)
        now += pause
        if kind == "frame":
            live.received(now)
            frame_at = now
        elif kind == "ping":
            live.pinged(now)
        elif kind == "confirm":
            live.confirmed()
            confirmed = True
        dead = now - frame_at >= idle_s or (not confirmed and now >= subscribe_s)
        assert (live.dead(now) is not None) == dead
