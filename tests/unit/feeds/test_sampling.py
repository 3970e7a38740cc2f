"""The sampling invariant: every N-th good tick over all symbols, however the ticks are batched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradebot.core.events import Tick
from tradebot.feeds.sampling import Intake


def _ticks(first: int, count: int) -> list[Tick]:
    return [Tick("AB"[number % 2], 1.0, 1.0, number) for number in range(first, first + count)]


@given(
    sample_every=st.integers(1, 25),
    sizes=st.lists(st.integers(0, 40), max_size=12),
    before=st.integers(0, 100),
)
def test_keeps_the_ticks_whose_number_is_a_multiple(sample_every: int, sizes: list[int], before: int) -> None:
    """G5, S8: sequence % N == 0, sequence from 1 (or going on from an earlier run), over batches of any size."""
    intake = Intake(sample_every, before)
    kept: list[Tick] = []
    number = before + 1
    for size in sizes:
        kept += intake.keep(_ticks(number, size))
        number += size
    total = sum(sizes)
    assert [tick.ts for tick in kept] == [n for n in range(before + 1, before + total + 1) if n % sample_every == 0]
    assert intake.sequence == before + total
    assert intake.sampled_out == total - len(kept)


@pytest.mark.parametrize("sample_every", [1, 5, 10])
@pytest.mark.parametrize("count", [0, 1, 4, 5, 9, 10, 11, 1003])
def test_keeps_floor_of_n_over_n(sample_every: int, count: int) -> None:
    assert len(Intake(sample_every).keep(_ticks(1, count))) == count // sample_every


@pytest.mark.parametrize(("sample_every", "sequence"), [(0, 0), (-1, 0), (1, -1)])
def test_refuses_what_makes_no_sense(sample_every: int, sequence: int) -> None:
    with pytest.raises(ValueError):
        Intake(sample_every, sequence)
