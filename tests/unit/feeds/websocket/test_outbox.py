"""Messages leave in their order, and never more of them in a second than the exchange accepts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradebot.feeds.websocket.outbox import Outbox


def test_without_a_limit_all_are_due_at_once() -> None:
    outbox = Outbox(None)
    outbox.add(["a", "b"])
    outbox.add(["c"])
    assert outbox.due(5.0) == ["a", "b", "c"]
    assert outbox.due(5.0) == [] and outbox.wait_s(5.0, 0.5) == 0.5


def test_with_a_limit_they_are_spaced() -> None:
    outbox = Outbox(5.0)
    outbox.add("abc")
    assert outbox.due(1.0) == ["a"]
    assert outbox.wait_s(1.0, 0.5) == pytest.approx(0.2) and outbox.wait_s(1.0, 0.1) == 0.1
    assert outbox.due(1.1) == [] and outbox.due(1.25) == ["b"] and outbox.due(9.0) == ["c"]


@given(st.floats(0.5, 100.0), st.integers(0, 60), st.lists(st.floats(0.0, 0.7), max_size=200))
def test_no_second_holds_more_than_the_limit(rate: float, count: int, steps: list[float]) -> None:
    outbox, now_s = Outbox(rate), 10.0
    outbox.add(str(number) for number in range(count))
    sent: list[tuple[float, str]] = []
    for step in steps:
        now_s += step
        sent += [(now_s, message) for message in outbox.due(now_s)]
    assert [message for _at, message in sent] == [str(number) for number in range(len(sent))]
    for at_s, _message in sent:
        assert len([1 for other_s, _ in sent if at_s <= other_s < at_s + 1.0]) <= rate + 1
