"""Batches: events by table, counted as channels count them and as the database does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.store_helpers import order, signal, tick
from tradebot.core.events import Event, OrderChunk, SignalChunk, TickChunk
from tradebot.store.batch import StoredCounts, WriteBatch


@given(parts=st.lists(st.tuples(st.sampled_from("tso"), st.integers(1, 4), st.integers(0, 3)), max_size=20))
def test_order_is_kept_and_all_is_counted(parts: list[tuple[str, int, int]]) -> None:
    """An order and its fills are one event, and a row each."""
    batch, events, number = WriteBatch(), list[Event](), 0
    for kind, length, fills in parts:
        numbers = range(number + 1, number + length + 1)
        number += length
        chunk: TickChunk | SignalChunk | OrderChunk
        if kind == "t":
            chunk = TickChunk(map(tick, numbers))
        elif kind == "s":
            chunk = SignalChunk(map(signal, numbers))
        else:
            chunk = OrderChunk([order(each, fills=fills) for each in numbers])
        batch.add(chunk)
        events += chunk
    by_table = sorted(events, key=lambda event: "TSO".index(type(event).__name__[0]))
    assert [*batch.ticks, *batch.signals, *batch.orders] == by_table
    assert batch.events == len(events)
    assert len(batch.fills) == sum(len(one.fills) for one in batch.orders)
    assert batch.rows == len(events) + len(batch.fills)
    before = StoredCounts(1, 2, 3, 4)
    after = before.plus(batch)
    assert after == StoredCounts(
        1 + len(batch.ticks), 2 + len(batch.signals), 3 + len(batch.orders), 4 + len(batch.fills)
    )
    assert after.rows == before.rows + batch.rows


def test_an_empty_batch_has_nothing() -> None:
    batch = WriteBatch()
    assert (batch.events, batch.rows) == (0, 0)
    assert StoredCounts().plus(batch) == StoredCounts()
