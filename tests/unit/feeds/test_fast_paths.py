"""The short cuts that nearly every frame of a live feed takes come to the same as the long way, trade by trade."""

from __future__ import annotations

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tradebot.core.events import SequenceState, Tick
from tradebot.feeds.price_band import PriceBand, Sifted
from tradebot.feeds.sequence_tracker import Gap, SequenceGuard

_PRICES = st.sampled_from([1.0, 1.0, 1.0, 2.0, 9.0, 100.0, 5000.0])
_STEPS = st.sampled_from([1, 1, 1, 1, 0, -1, -3, 2, 3])

Came = tuple[list[Tick], tuple[tuple[int, Gap], ...], Sifted | None]


@st.composite
def sessions(draw: st.DrawFn) -> list[Tick]:
    """Trades of two symbols, mostly numbered one after the other."""
    at = {"A": 5, "B": 5}
    sent = []
    for symbol, step, price, ts in draw(
        st.lists(st.tuples(st.sampled_from("AB"), _STEPS, _PRICES, st.integers(0, 5)), max_size=40)
    ):
        at[symbol] = max(0, at[symbol] + step)
        sent.append(Tick(symbol, price, 1.0, 1000 + ts, None, at[symbol]))
    return sent


def quickly(guard: SequenceGuard, band: PriceBand, tick: Tick) -> Came:
    """As `FrameReader` does it."""
    if guard.take_next(tick):
        return [tick], (), None if band.take_usual(tick) else band.sift([tick])
    taken = guard.take([tick])
    return taken.ticks, taken.gaps, band.sift(taken.ticks)


def slowly(guard: SequenceGuard, band: PriceBand, tick: Tick) -> Came:
    taken = guard._take_one_by_one([tick], 0)
    return taken.ticks, taken.gaps, band._sift_one_by_one(taken.ticks, 0)


def missing_in_window(state: SequenceState, window: int) -> list[tuple[int, int]]:
    """What lies below the window decides nothing, and is dropped now and then."""
    lowest = (state.highest or 0) - window
    return [(max(start, lowest), end) for start, end in state.missing if end > lowest]


@given(sessions(), st.sampled_from([2, 16]))
@hypothesis_settings(deadline=None)
def test_the_short_cuts_agree_with_the_long_way(sent: list[Tick], window: int) -> None:
    fast, slow = SequenceGuard(2, window), SequenceGuard(2, window)
    fast_band, slow_band = PriceBand(10.0), PriceBand(10.0)
    for tick in sent:
        assert quickly(fast, fast_band, tick) == slowly(slow, slow_band, tick)
    assert fast.changed() == slow.changed()
    for symbol in "AB":
        one, other = fast.state(symbol), slow.state(symbol)
        assert missing_in_window(one, window) == missing_in_window(other, window)
        assert (one.highest, one.lowest, one.contents, one.restarted) == (
            other.highest, other.lowest, other.contents, other.restarted,
        )  # fmt: skip
        assert fast_band.recent(symbol) == slow_band.recent(symbol)
