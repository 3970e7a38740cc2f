"""sma_crossover: the oracle's records, decisions equal to exact arithmetic, runs of any size, restarts."""

from __future__ import annotations

import json
import math
import random
import struct
import sys
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradebot.config.model import Config
from tradebot.core.errors import ConfigError
from tradebot.core.events import Tick
from tradebot.strategy.base import SymbolHistory
from tradebot.strategy.sma_crossover import MAX_WINDOW, SmaCrossover

FIXTURES = Path(__file__).parents[3] / "fixtures"


def ticks_of(prices: Sequence[float]) -> list[Tick]:
    return [Tick("TEST/USD", price, 1.0, 1_700_000_000 + i) for i, price in enumerate(prices)]


def decided(prices: Sequence[float], short: int = 5, long: int = 20) -> list[tuple[int, str]]:
    return [(d.index, d.side) for d in SmaCrossover(short, long).on_ticks("TEST/USD", ticks_of(prices))]


def exact(prices: Sequence[float], short: int = 5, long: int = 20) -> list[tuple[int, str]]:
    """The definition, straight: averages of shortest decimals, as fractions, computed for each tick."""
    values = [Fraction(repr(price)) for price in prices]
    found: list[tuple[int, str]] = []
    previous: Fraction | None = None
    for end in range(long, len(values) + 1):
        diff = sum(values[end - short : end]) / Fraction(short) - sum(values[end - long : end]) / Fraction(long)
        if previous is not None and previous <= 0 and diff > 0:
            found.append((end - 1, "BUY"))
        if previous is not None and previous >= 0 and diff < 0:
            found.append((end - 1, "SELL"))
        previous = diff
    return found


def records_of(ticks: Sequence[Tick], short: int = 5, long: int = 20) -> list[Mapping[str, object]]:
    strategy = SmaCrossover(short, long)
    records: list[Mapping[str, object]] = []
    strategy.observer = records.append
    decisions = strategy.on_ticks(ticks[0].symbol, ticks)
    assert [d.index for d in decisions] == [i for i, record in enumerate(records) if record["emit"]]
    return records


def double(bits: int) -> float:
    return float(struct.unpack("<d", struct.pack("<Q", bits))[0])


def walk(seed: int, length: int, start: int, step: int, unit: float) -> list[float]:
    """A random walk on a tick grid, slow enough to give many equal averages."""
    draw = random.Random(seed)
    k, prices = start, []
    for _ in range(length):
        k = max(1, k + draw.choice((-step, 0, 0, 0, step)))
        prices.append(k / unit)
    return prices


# Any positive finite double by its bits; then what markets and mistakes look like; then a few values again and again.
any_double = st.integers(1, 0x7FEF_FFFF_FFFF_FFFF).map(double)
market_price = st.one_of(
    st.integers(1, 10**9).map(lambda k: k / 100),
    st.integers(1, 10**6).map(lambda k: k / 10**12),
    st.sampled_from([100.3, 100.1, 61837.63, 0.00001234, 1e-8, 0.000012345678, 12_345_678.9, 5e-324, 1.7e308, 1e22]),
)
awkward_price = st.one_of(st.sampled_from([0.1 + 0.2, 100.1 * 3, math.nextafter(100.3, 101), 2 / 3]), any_double)
few_values = st.lists(st.one_of(market_price, awkward_price), min_size=1, max_size=3).flatmap(
    lambda pool: st.lists(st.sampled_from(pool), max_size=80)
)
# Phases of one kind after another, long enough for the state to change its way of holding prices, and back.
phases = st.lists(
    st.one_of(
        st.lists(market_price, max_size=12),
        st.lists(awkward_price, max_size=3),
        st.builds(walk, st.integers(0, 99), st.integers(0, 60), st.integers(1, 50), st.just(1), st.just(100.0)),
        st.builds(walk, st.integers(0, 99), st.integers(0, 60), st.just(10**12), st.just(1), st.just(1e6)),
    ),
    max_size=6,
).map(lambda parts: [price for part in parts for price in part])
price_series = st.one_of(few_values, phases, st.lists(awkward_price, max_size=60))
windows = st.integers(1, 12).flatmap(lambda short: st.tuples(st.just(short), st.integers(short + 1, 30)))


def test_the_crossover_fixture_gives_one_buy_and_one_sell() -> None:
    lines = (FIXTURES / "crossover_scenario.jsonl").read_text().splitlines()
    ticks = [Tick(**json.loads(line)) for line in lines]
    decisions = SmaCrossover(5, 20).on_ticks("TEST/USD", ticks)
    assert [(ticks[d.index].ts, d.side, d.reason) for d in decisions] == [
        (1_700_000_020, "BUY", "SMA_CROSSOVER"),
        (1_700_000_037, "SELL", "SMA_CROSSOVER"),
    ]


def test_sma_calc_equals_the_original_to_the_last_digit() -> None:
    """G4: the 50 SMA_CALC records of the original, compared as JSON text."""
    lines = (FIXTURES / "crossover_scenario.jsonl").read_text().splitlines()
    records = records_of([Tick(**json.loads(line)) for line in lines])
    assert {record["symbol"] for record in records} == {"TEST/USD"}
    found = [json.dumps({k: v for k, v in record.items() if k != "symbol"}) for record in records]
    assert found == (FIXTURES / "sma_calc_expected.jsonl").read_text().splitlines()


@pytest.mark.parametrize("start", [100.3, 100.1])
def test_a_step_down_or_up_trades_once_and_a_flat_market_never(start: float) -> None:
    """S8: plain float sums buy in the flat market after the first series and miss the buy of the second."""
    after = 100.1 if start == 100.3 else 100.3
    expected = [(25, "SELL" if start == 100.3 else "BUY")]
    assert decided([start] * 25 + [after] * 40) == expected


@pytest.mark.parametrize("price", [100.3, 0.1 + 0.2, 1 / 3, 5e-324, 1.7e308, 61837.63, 1.2345e-5, 123456789.123456789])
def test_a_flat_market_never_trades(price: float) -> None:
    assert decided([price] * 200) == []
    assert decided([price] * 200, 7, 11) == []


@pytest.mark.parametrize("unit", [1.0, 10.0, 100.0, 1e4, 1e8, 1e12])
@pytest.mark.parametrize("seed", range(3))
def test_random_walks_with_many_ties(unit: float, seed: int) -> None:
    prices = walk(seed, 1500, 1000, 1, unit)
    expected = exact(prices)
    assert len(expected) > 20
    assert decided(prices) == expected


def test_no_drift_over_many_ticks() -> None:
    """S8: what came long ago leaves no trace, so a flat market stays flat after any history."""
    prices = walk(5, 60_000, 10_030, 7, 100.0) + [0.1 + 0.2, 1e300] * 20 + walk(6, 20_000, 10_030, 7, 1e3)
    strategy = SmaCrossover(5, 20)
    strategy.on_ticks("TEST/USD", ticks_of(prices))
    assert [d.index for d in strategy.on_ticks("TEST/USD", ticks_of([61837.63] * 10_000)) if d.index >= 20] == []


@pytest.mark.parametrize("seed", range(10))
def test_sums_as_large_as_prices_with_15_digits_make_them(seed: int) -> None:
    """S8: where price x 10**e still is a whole double but the sums of 20 no longer would be."""
    draw = random.Random(seed)
    prices: list[float] = []
    for _ in range(30):
        prices += [draw.choice([99_999.9999999999, 88_888.8888888887, 1e-10, 3e-10])] * draw.choice([1, 4, 5, 20])
        prices += [50_000.0000000001] * draw.choice([0, 0, 30]) + [50_000.0000000002] * draw.choice([0, 1, 5])
    assert decided(prices) == exact(prices)


@pytest.mark.parametrize(
    "pool",
    [
        [100.0, 100.3],
        [61837.63, 59999.99, 60000.0],
        [0.00001234, 0.00001233],
        [1e-8, 0.000012345678],
        [12_345_678.9, 12_345_678.91],
        [99_999.123456789, 0.5],
        [3e-22, 1.7e-21],
        [4e14, 3e14],
    ],
)
def test_prices_of_markets_are_held_in_floats(pool: list[float]) -> None:
    """The fast way, ten times the speed of the other; awkward prices leave it, and it is taken up again after them."""
    strategy = SmaCrossover(5, 20)

    def floats_after(prices: list[float]) -> bool:
        strategy.on_ticks("TEST/USD", ticks_of(prices))
        return not strategy._windows["TEST/USD"]._whole

    assert floats_after(pool * 20)
    assert not floats_after([0.1 + 0.2])
    assert floats_after(pool[:1] * 40)


@settings(max_examples=200, deadline=None)
@given(prices=price_series)
def test_decisions_equal_exact_arithmetic(prices: list[float]) -> None:
    """S8: for any doubles, tiny and huge, decisions are those of fractions of their shortest decimals."""
    assert decided(prices) == exact(prices)


@settings(max_examples=80, deadline=None)
@given(prices=price_series, lengths=windows)
def test_decisions_equal_exact_arithmetic_for_any_windows(prices: list[float], lengths: tuple[int, int]) -> None:
    assert decided(prices, *lengths) == exact(prices, *lengths)


@pytest.mark.parametrize(("short", "long"), [(997, 1009), (1, 1500), (1499, 1500)])
def test_long_windows(short: int, long: int) -> None:
    prices = walk(3, 3_200, 6_183_763, 1, 100.0)
    values = [round(price * 100) for price in prices]
    diffs = [
        long * sum(values[end - short : end]) - short * sum(values[end - long : end])
        for end in range(long, len(values) + 1)
    ]
    expected = [
        (long + i, "BUY" if now > 0 else "SELL")
        for i, (before, now) in enumerate(pairwise(diffs))
        if before <= 0 < now or before >= 0 > now
    ]
    assert decided(prices, short, long) == expected


@settings(max_examples=50, deadline=None)
@given(prices=price_series, cuts=st.lists(st.integers(0, 100)), watched=st.booleans())
def test_how_ticks_are_cut_changes_nothing(prices: list[float], cuts: list[int], watched: bool) -> None:
    """S8: channel and batch sizes, and a watching debug log, never change a decision."""
    strategy = SmaCrossover(3, 8)
    if watched:
        strategy.observer = lambda record: None
    ticks = ticks_of(prices)
    edges = sorted({0, len(ticks), *(min(cut, len(ticks)) for cut in cuts)})
    found: list[tuple[int, str]] = []
    for start, end in pairwise(edges):
        found += [(start + d.index, d.side) for d in strategy.on_ticks("TEST/USD", ticks[start:end])]
    assert found == exact(prices, 3, 8)


@settings(max_examples=50, deadline=None)
@given(prices=price_series, cut=st.integers(0, 100), spare=st.integers(0, 10))
def test_a_restart_changes_nothing(prices: list[float], cut: int, spare: int) -> None:
    """S8: after `restore` with the last `lookback` prices (or more) decisions go on as if nothing had happened."""
    cut = min(cut, len(prices))
    strategy = SmaCrossover(3, 8)
    strategy.restore("TEST/USD", SymbolHistory(tuple(prices[max(0, cut - strategy.lookback - spare) : cut])))
    found = [(cut + d.index, d.side) for d in strategy.on_ticks("TEST/USD", ticks_of(prices)[cut:])]
    assert found == [decision for decision in exact(prices, 3, 8) if decision[0] >= cut]


@pytest.mark.parametrize("cut", range(51))
def test_a_restart_within_the_crossover_fixture(cut: int) -> None:
    """S8: also when the very next tick decides."""
    lines = (FIXTURES / "crossover_scenario.jsonl").read_text().splitlines()
    ticks = [Tick(**json.loads(line)) for line in lines]
    strategy = SmaCrossover(5, 20)
    strategy.restore("TEST/USD", SymbolHistory(tuple(tick.price for tick in ticks[:cut][-strategy.lookback :])))
    found = [(cut + d.index, d.side) for d in strategy.on_ticks("TEST/USD", ticks[cut:])]
    assert found == [decision for decision in [(20, "BUY"), (37, "SELL")] if decision[0] >= cut]


def test_symbols_do_not_touch_each_other() -> None:
    strategy = SmaCrossover(1, 2)
    found = []
    for price in (1.0, 1.0, 2.0):
        found += strategy.on_ticks("A", [Tick("A", price, 1.0, 0)])
        found += strategy.on_ticks("B", [Tick("B", 5.0 - price, 1.0, 0)])
    assert [d.side for d in found] == ["BUY", "SELL"]


@settings(max_examples=50, deadline=None)
@given(prices=price_series.filter(bool))
def test_sma_calc_tells_the_averages_exactly_rounded(prices: list[float]) -> None:
    """G4: averages so far in the warm-up, then of the windows; differences never contradict the action."""
    records = records_of(ticks_of(prices), 3, 8)
    values = [Fraction(repr(price)) for price in prices]
    previous: object = 0.0
    for i, record in enumerate(records):
        short, long = values[max(0, i - 2) : i + 1], values[max(0, i - 7) : i + 1]
        assert record["short"] == float(sum(short) / Fraction(len(short)))
        assert record["long"] == float(sum(long) / Fraction(len(long)))
        assert record["prev_diff"] == previous
        assert record["curr_diff"] == float(sum(short) / Fraction(len(short))) - float(sum(long) / Fraction(len(long)))
        assert (record["action"] == "WARMUP") == (i < 7)
        assert record["emit"] == (record["action"] in ("BUY", "SELL"))
        if i >= 7:
            previous = record["curr_diff"]


def test_state_is_bounded() -> None:
    """Memory of a symbol does not grow with its ticks."""
    strategy = SmaCrossover(5, 20)

    def size() -> int:
        window = strategy._windows["TEST/USD"]
        return sys.getsizeof(window._ring) + sum(sys.getsizeof(k) for k in window._ring) + sys.getsizeof(window._d)

    sizes = []
    for seed in range(4):
        # The integers needed for these prices have some 2 100 bits, whatever came before.
        strategy.on_ticks("TEST/USD", ticks_of([5e-324, 1.7e308, 1 / 3] * 100 + walk(seed, 200, 1000, 1, 100.0)))
        strategy.on_ticks("TEST/USD", ticks_of([5e-324, 1.7e308, 1 / 3] * 100))
        sizes.append(size())
    assert len(set(sizes)) == 1


@pytest.mark.parametrize("lengths", [(0, 20), (20, 20), (21, 20), (-1, 5), (5, MAX_WINDOW + 1)])
def test_senseless_windows_are_refused(lengths: tuple[int, int]) -> None:
    """G5: exit 12, naming the keys."""
    with pytest.raises(ConfigError, match=r"strategy\.short_window = .*strategy\.long_window"):
        SmaCrossover(*lengths)


def test_parameters_come_from_the_configuration() -> None:
    assert SmaCrossover.from_config(Config()).lookback == 20
