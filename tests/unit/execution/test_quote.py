"""What prints tell: who took, the quote, the step of prices, event time."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradebot.core.events import BUY, SELL, Side, Tick
from tradebot.execution.quote import SIZES_MAX, Tape

D = Decimal
START_MS = 1_700_000_000_000


def print_at(price: float, taker: Side | None = None, volume: float = 1.0, ts: int = START_MS) -> Tick:
    return Tick("TEST/USD", price, volume, ts, taker=taker)


def tape_of(*ticks: Tick, tick_size: str | None = "0.01", sizes: bool = False) -> Tape:
    tape = Tape(None if tick_size is None else D(tick_size), sizes)
    assert tape.observe(ticks, 0, len(ticks)) == len(ticks)
    return tape


def quote(tape: Tape) -> tuple[Decimal | None, Decimal | None]:
    return tape.bid, tape.ask


def test_a_buyer_shows_the_ask_and_pushes_the_bid_below_it() -> None:
    first = tape_of(print_at(100.0, BUY))
    assert quote(first) == (D("99.99"), D(100))  # the side not yet seen starts one step away
    wide = tape_of(print_at(99.0, SELL), print_at(100.0, BUY))
    assert quote(wide) == (D(99), D(100))
    fallen = tape_of(print_at(99.0, SELL), print_at(100.0, BUY), print_at(98.0, BUY))
    assert quote(fallen) == (D("97.99"), D(98))


def test_a_seller_mirrors_it() -> None:
    assert quote(tape_of(print_at(100.0, SELL))) == (D(100), D("100.01"))
    risen = tape_of(print_at(100.0, BUY), print_at(99.0, SELL), print_at(101.0, SELL))
    assert quote(risen) == (D(101), D("101.01"))


def test_the_tick_rule_stands_in_for_an_unknown_side() -> None:
    """Lee and Ready 1991: against the last different price; equal prices keep what the last change said."""
    tape = tape_of(print_at(100.0))
    assert (tape.side, quote(tape)) == (None, (None, None))
    sides = []
    for price in (100.0, 101.0, 101.0, 100.5, 100.5, 100.6):
        tape.observe((print_at(price),), 0, 1)
        sides.append(tape.side)
    assert sides == [None, BUY, BUY, SELL, SELL, BUY]
    assert (tape.sided, tape.inferred) == (0, 5)
    tape.observe((print_at(100.7, SELL),), 0, 1)  # who says it is believed
    assert (tape.side, tape.sided, tape.inferred) == (SELL, 1, 5)
    tape.observe((print_at(100.7),), 0, 1)  # the rule still goes by prices
    assert tape.side == BUY


def test_an_unknown_step_is_the_smallest_difference_of_consecutive_prints() -> None:
    tape = tape_of(print_at(100.0), tick_size=None)
    steps = []
    for price in (100.0, 100.5, 100.3, 100.3, 101.3, 101.2, 101.10000001):
        tape.observe((print_at(price),), 0, 1)
        steps.append(tape.tick_size)
    assert steps == [D(0), D("0.5"), D("0.2"), D("0.2"), D("0.2"), D("0.1"), D("0.09999999")]


def test_a_smaller_step_changes_nothing_that_was_said_before() -> None:
    tape = tape_of(print_at(100.0, SELL), print_at(101.0, SELL), tick_size=None)
    assert quote(tape) == (D(101), D(102))
    tape.observe((print_at(100.9, SELL),), 0, 1)
    assert quote(tape) == (D("100.9"), D(102))


def test_a_late_print_changes_nothing_but_its_count() -> None:
    tape = tape_of(print_at(100.0, BUY))
    before = tape.state()
    late = print_at(50.0, SELL, ts=START_MS - 1)
    tape.observe((late,), 0, 1)
    assert tape.state() == {**before, "late": 1}


def test_a_run_stops_before_the_first_print_that_needs_a_look() -> None:
    ticks = [print_at(100.0 + i, ts=START_MS + i) for i in range(5)]
    assert Tape(None).observe(ticks, 0, 5, until_ms=START_MS + 3) == 3
    assert Tape(None).observe(ticks, 1, 5, high=103.0) == 3
    assert Tape(None).observe(ticks, 0, 5, low=100.0) == 0
    tape = Tape(None)
    assert tape.observe(ticks, 0, 5, until_ms=START_MS + 3) == 3
    assert (tape.last_price, tape.now_ms) == (102.0, START_MS + 2)


def test_sizes_are_bounded_and_only_kept_where_asked_for() -> None:
    ticks = [print_at(100.0, volume=float(i)) for i in range(SIZES_MAX + 10)]
    total, count = tape_of(*ticks, sizes=True).mean_size()
    assert count == SIZES_MAX and total == sum(range(10, SIZES_MAX + 10))
    assert tape_of(*ticks).mean_size()[1] == 0


class PlainTape:
    """The same rules, print by print, in fractions."""

    def __init__(self, step: str | None) -> None:
        self.known = step is not None
        self.step = Fraction(step or 0)
        self.now = -1
        self.last: Fraction | None = None
        self.rule: Side | None = None
        self.bid: Fraction | None = None
        self.ask: Fraction | None = None

    def print(self, tick: Tick) -> None:
        if tick.ts < self.now:
            return
        self.now = tick.ts
        price = Fraction(repr(tick.price))
        if self.last is not None and price != self.last:
            self.rule = BUY if price > self.last else SELL
            if not self.known and (not self.step or abs(price - self.last) < self.step):
                self.step = abs(price - self.last)
        self.last = price
        side = tick.taker or self.rule
        if side == BUY:
            self.ask = price
            self.bid = price - self.step if self.bid is None else min(self.bid, price - self.step)
        elif side == SELL:
            self.bid = price
            self.ask = price + self.step if self.ask is None else max(self.ask, price + self.step)


prices = st.one_of(
    st.integers(9_990, 10_010).map(lambda cents: cents / 100),
    st.floats(0.5, 2.0),
    st.sampled_from([61837.63, 61837.64, 61837.62, 1e-8, 3e-8, 1e15, 0.1, 0.30000000000000004, 0.3]),
)
sides: st.SearchStrategy[Literal["BUY", "SELL"] | None] = st.sampled_from([None, BUY, SELL])
runs = st.lists(st.tuples(prices, sides, st.integers(-5, 20)), max_size=40)


@settings(deadline=None, max_examples=300)
@given(run=runs, step=st.sampled_from([None, "0.01"]), cut=st.integers(0, 40))
def test_it_says_exactly_what_the_rules_say_however_it_is_cut(
    run: list[tuple[float, Side | None, int]], step: str | None, cut: int
) -> None:
    """Also over a restart at the cut."""
    ts, ticks = START_MS, []
    for price, side, later_ms in run:
        ts += later_ms
        ticks.append(print_at(price, side, ts=ts))
    plain = PlainTape(step)
    for tick in ticks:
        plain.print(tick)
    size = None if step is None else D(step)
    before = Tape(size)
    before.observe(ticks, 0, min(cut, len(ticks)))
    tape = Tape(size)
    tape.restore(before.state())
    tape.observe(ticks, min(cut, len(ticks)), len(ticks))
    found = [None if value is None else Fraction(value) for value in (tape.bid, tape.ask, tape.tick_size)]
    assert found == [plain.bid, plain.ask, plain.step]
    whole = Tape(size)
    whole.observe(ticks, 0, len(ticks))
    assert (whole.bid, whole.ask, whole.now_ms) == (tape.bid, tape.ask, tape.now_ms)


@pytest.mark.parametrize("count", [1, 2])
def test_restoring_keeps_the_configured_step(count: int) -> None:
    state = tape_of(*[print_at(100.0 + i) for i in range(count)], tick_size=None).state()
    tape = Tape(D("0.5"))
    tape.restore(state)
    assert tape.tick_size == D("0.5")
