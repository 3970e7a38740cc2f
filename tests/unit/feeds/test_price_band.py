"""Prices far from the recent ones are refused until three of them agree; a plain model agrees."""

from __future__ import annotations

import statistics
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradebot.core.events import Tick
from tradebot.feeds.price_band import AGREEING_PRINTS, EPISODE_PRINTS, RECENT_PRINTS, PriceBand, Sifted


def trade(price: float, symbol: str = "A") -> Tick:
    return Tick(symbol, price, 1.0, 1_700_000_000_000)


def trades(*prices: float) -> list[Tick]:
    return [trade(price) for price in prices]


def sift(band: PriceBand, *prices: float) -> Sifted:
    ticks = trades(*prices)
    return band.sift(ticks) or Sifted(ticks, (), (), ())


def prices(sifted: Sifted) -> list[float]:
    return [tick.price for tick in sifted.ticks]


def band_at(price: float, jump: float = 10.0) -> PriceBand:
    band = PriceBand(jump)
    sift(band, *[price] * RECENT_PRINTS)
    return band


def test_what_is_near_is_accepted() -> None:
    assert band_at(100.0).sift(trades(100.0, 250.0, 999.0, 11.0)) is None


@pytest.mark.parametrize(
    ("price", "kept"),
    [(1000.0, True), (1000.0001, False), (10.0, True), (9.9999, False), (1e100, False), (5e-324, False)],
)
def test_the_limits(price: float, kept: bool) -> None:
    sifted = sift(band_at(100.0), price)
    assert (prices(sifted) == [price]) is kept
    assert (len(sifted.refused), sifted.places) == ((0, ()) if kept else (1, (0,)))


def test_the_first_print_of_a_symbol_is_accepted() -> None:
    assert prices(sift(PriceBand(10.0), 1e9, 2e9, 1.0)) == [1e9, 2e9]


def test_a_refused_print_is_explained() -> None:
    sifted = sift(band_at(100.0), 101.0, 1e6)
    reason = "price 1000000.0 of A is 1e+04 times above 100.0, the median of its recent prints (feed.max_price_jump 10)"
    assert sifted.refused == (reason,)
    assert [(index, event.symbol, event.detail) for index, event in sifted.events] == [(1, "A", reason)]
    below = sift(band_at(100.0), 0.5)
    assert below.refused[0].startswith("price 0.5 of A is 200 times below 100.0,")


def test_three_prints_that_agree_move_the_band() -> None:
    band = band_at(100.0)
    sifted = sift(band, 5000.0, 5001.0, 5002.0, 5003.0, 100.0)
    assert prices(sifted) == [5002.0, 5003.0]
    assert sifted.places == (0, 1, 4)
    assert [(index, event.detail[:42]) for index, event in sifted.events] == [
        (0, "price 5000.0 of A is 50 times above 100.0,"),
        (2, "the last 3 prints agree on 5002.0; the med"),
    ]
    assert band.recent("A") == (5000.0, 5001.0, 5002.0, 5003.0)


def test_prints_that_do_not_agree_with_each_other_move_nothing() -> None:
    sifted = sift(band_at(100.0), 5000.0, 1.0, 1e6, 5000.0, 2e7, 1e6)
    assert prices(sifted) == []


def test_three_in_a_row_after_others_agree() -> None:
    assert prices(sift(band_at(100.0), 1.0, 5000.0, 5000.0, 5000.0)) == [5000.0]


def test_a_good_print_in_between_ends_the_row() -> None:
    sifted = sift(band_at(100.0), 5000.0, 5000.0, 100.0, 5000.0, 5000.0)
    assert prices(sifted) == [100.0]
    assert len(sifted.events) == 1


def test_an_episode_is_reported_once() -> None:
    band = band_at(100.0)
    assert len(sift(band, 5000.0, 100.0, 5000.0).events) == 1
    assert len(sift(band, *[100.0] * (EPISODE_PRINTS - 1), 5000.0).events) == 0
    assert len(sift(band, *[100.0] * EPISODE_PRINTS, 5000.0).events) == 1


def test_a_market_may_move_any_way_in_small_steps() -> None:
    walk = [1.05**n for n in range(400)] + [1.05**400 * 0.95**n for n in range(800)]
    band = PriceBand(10.0)
    assert prices(sift(band, *walk)) == walk


def test_symbols_have_bands_of_their_own() -> None:
    band = band_at(100.0)
    ticks = [trade(1.0, "B"), trade(100.0), trade(1.1, "B"), trade(99.0)]
    assert band.sift(ticks) is None
    sifted = band.sift([trade(100.0, "B"), trade(1.0)])
    assert sifted is not None and len(sifted.refused) == 2


def test_a_restart_restores_the_band() -> None:
    before, after = band_at(100.0), PriceBand(10.0)
    after.restore("A", before.recent("A"))
    after.restore("B", ())
    assert prices(sift(after, 5000.0, 100.0)) == [100.0]
    assert after.recent("B") == ()


def test_ticks_of_an_earlier_run_are_remembered() -> None:
    band = PriceBand(10.0)
    band.remember([*trades(20.0, 90.0, 100.0, 110.0), trade(5.0, "B")])
    assert (band.recent("A"), band.recent("B")) == ((20.0, 90.0, 100.0, 110.0), (5.0,))
    assert prices(sift(band, 5000.0, 100.0)) == [100.0]


def test_a_band_that_moved_after_the_checkpoint_has_moved_for_a_restart_too() -> None:
    """A price out of band is stored only because others, which are not, agreed with it."""
    before, after = band_at(100.0), PriceBand(10.0)
    after.restore("A", before.recent("A"))
    after.remember(trades(*prices(sift(before, 5.0, 5.0, 5.0))))
    assert after.recent("A") == before.recent("A") == (5.0, 5.0, 5.0)
    assert prices(sift(after, 5.0, 100.0, 5.0)) == prices(sift(before, 5.0, 100.0, 5.0)) == [5.0, 5.0]


def test_off() -> None:
    assert PriceBand(0).sift(trades(1.0, 1e9, 1.0)) is None


@pytest.mark.parametrize("jump", [1.0, 0.5, -1.0, float("inf"), float("nan")])
def test_bounds_that_are_none_are_refused(jump: float) -> None:
    with pytest.raises(ValueError, match="neither 0 nor above 1"):
        PriceBand(jump)


class Model:
    """The band by medians alone."""

    def __init__(self, jump: float) -> None:
        self.jump = jump
        self.recent: deque[float] = deque(maxlen=RECENT_PRINTS)
        self.row: list[float] = []

    def take(self, price: float) -> bool:
        median = statistics.median_high(self.recent) if self.recent else price
        if max(price, median) <= min(price, median) * self.jump:
            self.recent.append(price)
            self.row = []
            return True
        self.row.append(price)
        newest = self.row[-AGREEING_PRINTS:]
        if len(newest) == AGREEING_PRINTS and max(newest) <= min(newest) * self.jump:
            self.recent = deque(newest, RECENT_PRINTS)
            self.row = []
            return True
        return False


PRICES = st.one_of(st.floats(90.0, 110.0), st.sampled_from([1.0, 31.0, 32.0, 316.0, 1000.0, 5000.0, 1e6]))


@given(st.lists(PRICES, max_size=90), st.integers(1, 20), st.sampled_from([1.5, 10.0, 3.0]))
def test_a_model_agrees_however_it_is_cut(drawn: list[float], size: int, jump: float) -> None:
    model, band = Model(jump), PriceBand(jump)
    kept: list[float] = []
    for start in range(0, len(drawn), size):
        kept += prices(sift(band, *drawn[start : start + size]))
    assert kept == [price for price in drawn if model.take(price)]
    assert band.recent("A") == tuple(model.recent)
