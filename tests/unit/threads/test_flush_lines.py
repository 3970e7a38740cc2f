"""Log lines of stored batches: few, and none of the rows untold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tradebot.threads.flush_lines import FLUSH_LINE_S, FlushLines


def test_a_live_feed_gives_a_line_every_ten_seconds() -> None:
    lines = FlushLines()
    given_at = [second for second in range(25) if lines.add(3, float(second)) is not None]
    assert given_at == [0, 10, 20]
    assert lines.take() == {"persisted": 12, "batches": 4}
    assert lines.take() is None


@given(st.lists(st.tuples(st.integers(1, 9), st.floats(0, 30))))
def test_every_row_is_told_once(commits: list[tuple[int, float]]) -> None:
    lines, now_s, told = FlushLines(), 0.0, []
    for rows, after_s in commits:
        now_s += after_s
        told.append(lines.add(rows, now_s))
    told.append(lines.take())
    written = [line for line in told if line is not None]
    assert sum(line["persisted"] for line in written) == sum(rows for rows, _ in commits)
    assert sum(line["batches"] for line in written) == len(commits)
    assert len(written) <= now_s / FLUSH_LINE_S + 2
