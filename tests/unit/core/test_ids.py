"""Derived ids: the first of a tick is named as ever, later ones are numbered."""

from __future__ import annotations

from tradebot.core.ids import arrival_of, event_prefix, fill_id, order_id, signal_id


def test_the_first_of_a_tick_has_no_number_and_later_ones_have() -> None:
    stem = event_prefix("r1", 12)
    assert [signal_id(stem), signal_id(stem, 2)] == ["r1-0000000012-S", "r1-0000000012-S2"]
    assert [order_id(stem, 1), order_id(stem, 10)] == ["r1-0000000012-O", "r1-0000000012-O10"]
    assert [fill_id(stem), fill_id(stem, 3)] == ["r1-0000000012-T", "r1-0000000012-T3"]


def test_ids_sort_as_their_events_arose() -> None:
    ids = [fill_id(event_prefix("r-1", number), n) for number in (9, 10) for n in range(1, 12)]
    assert sorted(reversed(ids), key=arrival_of) == ids != sorted(ids)
