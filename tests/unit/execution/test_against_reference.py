"""PAPER against a second calculation of it (sim/paper_reference): every order, event and fill must be the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sim.checks.commanded_paper import assert_same, compare, run_decisions
from sim.paper_reference.calculation import calculate
from sim.paper_reference.schedule import schedule
from sim.paper_reference.values import Command, Instrument, OrderRow, Print, Request, Settings, Submit
from tests.paper_reference.series import instruments_of, made_up, recorded, tick_lines
from tests.paper_reference.small_markets import SmallMarket, small_markets
from tradebot.config.model import ExecutionConfig
from tradebot.config.paper import OrderType

# Queue, latency of orders and cancels, share of a print, slippage.
ASSUMPTIONS = [
    ("through", 100, Fraction(1, 4), Fraction(0)),
    ("trades", 0, Fraction(1), Fraction(3, 2)),
    ("front", 1000, Fraction(1, 10), Fraction(0)),
]


@pytest.fixture(scope="module")
def total() -> Iterator[Counter[str]]:
    """What was compared in recorded sessions; shown at the end where output is (`make paper-check`)."""
    counted: Counter[str] = Counter()
    yield counted
    print(f"\nin all: {counted['orders']} orders, {counted['events']} events, {counted['fills']} fills, 0 differ")
    print("fills by kind of order:", {kind: n for kind, n in sorted(counted.items()) if kind.isupper()})


@pytest.mark.slow
@pytest.mark.parametrize("assumptions", ASSUMPTIONS, ids=[one[0] for one in ASSUMPTIONS])
@pytest.mark.parametrize(("name", "every"), [("binance", 150), ("bybit", 2), ("kraken_futures", 3)])
def test_recorded_sessions(
    name: str,
    every: int,
    assumptions: tuple[str, int, Fraction, Fraction],
    shared_data: Path,
    total: Counter[str],
) -> None:
    prints = recorded(shared_data / "data" / "frames" / "expected" / f"{name}.jsonl")
    compare_session(name, prints, every, assumptions, total)


@pytest.mark.parametrize("assumptions", ASSUMPTIONS, ids=[one[0] for one in ASSUMPTIONS])
def test_a_session_that_every_checkout_has(
    assumptions: tuple[str, int, Fraction, Fraction], repo: Path, total: Counter[str]
) -> None:
    prints = tick_lines(repo / "fixtures" / "btcusdt_binance_spot_takers_20240808.jsonl")
    compare_session("bundled", prints, 80, assumptions, total)


def compare_session(
    name: str,
    prints: list[Print],
    every: int,
    assumptions: tuple[str, int, Fraction, Fraction],
    total: Counter[str],
) -> None:
    """An order about each `every` prints, in spot and on margin; a gap of one symbol, and one of all."""
    queue, latency_ms, participation, slippage_bps = assumptions
    instruments = instruments_of(prints, known=True)
    for allow_short in (False, True):
        assumed = Settings(
            latency_ms, latency_ms, participation, slippage_bps, queue,
            initial_balance=Fraction(10**9 if allow_short else 10**5), allow_short=allow_short,
        )  # fmt: skip
        commands = schedule(prints, instruments, every + allow_short, every, amends=allow_short)
        gaps = {len(prints) // 3: prints[len(prints) // 3].symbol, len(prints) // 2: None}
        found = compare(prints, commands, assumed, instruments, gaps)
        total.update(orders=len(found.orders), events=len(found.events), fills=len(found.fills))
        kinds = {row.order: kind_of(row) for row in found.orders}
        total.update(kinds[fill.order] for fill in found.fills)
        print(
            f"{name}, {queue}, {latency_ms} ms, {'margin' if allow_short else 'spot'}: {len(prints)} prints,"
            f" {len(found.orders)} orders, {len(found.events)} events, {len(found.fills)} fills, 0 differ"
        )


def kind_of(row: OrderRow) -> str:
    kind = f"{row.type} {row.time_in_force}{' POST_ONLY' * row.post_only}{' REDUCE_ONLY' * row.reduce_only}"
    return kind if row.parent is None else f"{row.type} OF BRACKET"


@given(market=small_markets(), cut=st.integers(0, 3))
def test_small_markets(market: SmallMarket, cut: int) -> None:
    compare(*market, cut=cut)


@settings(max_examples=10)
# A replacement whose old order was filled in part meanwhile holds back money for the rest only.
@example(
    seed=65537,
    assumptions=("trades", 0, Fraction(1), Fraction(3, 2)),
    allow_short=False,
    known=False,
    on_gap="keep",
    cut=0,
)
@given(
    seed=st.integers(0, 10**6),
    assumptions=st.sampled_from(ASSUMPTIONS),
    allow_short=st.booleans(),
    known=st.booleans(),
    on_gap=st.sampled_from(("keep", "cancel")),
    cut=st.integers(0, 3),
)
def test_many_orders_in_made_up_markets(
    seed: int, assumptions: tuple[str, int, Fraction, Fraction], allow_short: bool, known: bool, on_gap: str, cut: int
) -> None:
    prints = made_up(seed, 200, ("AB/USD", "CD/USD"))
    instruments = instruments_of(prints, known)
    queue, latency_ms, participation, slippage_bps = assumptions
    assumed = Settings(
        latency_ms, 100, participation, slippage_bps, queue, 5000, on_gap, Fraction(10**4), allow_short
    )  # fmt: skip
    commands = schedule(prints, instruments, seed, 2, amends=True)
    compare(prints, commands, assumed, instruments, {50: "AB/USD", 90: None, 150: "CD/USD"}, cut)


@pytest.mark.parametrize("side", ["BUY", "SELL"])
def test_a_margin_account_without_equity_is_liquidated(side: str) -> None:
    """Two positions on three times the balance; the price of one goes against it, and both are closed."""
    against = -1 if side == "BUY" else 1
    prints = [
        Print(symbol, Fraction(100 + against * step, 100), Fraction(50), 1_700_000_000_000 + 100 * place)
        for place, (symbol, step) in enumerate(
            [("AB/USD", 0), ("CD/USD", 0), ("AB/USD", 0), ("CD/USD", 0)] + 3 * [("AB/USD", 65), ("CD/USD", 0)]
        )
    ]
    waiting = Request("CD/USD", "BUY", Fraction(1), "LIMIT", limit=Fraction(1, 2))
    commands: dict[int, list[Command]] = {
        1: [Submit(0, Request("AB/USD", side, Fraction(10)))],
        2: [Submit(1, Request("CD/USD", side, Fraction(5))), Submit(2, waiting)],
        6: [Submit(3, Request("AB/USD", side, Fraction(1)))],
    }
    assumed = Settings(latency_ms=0, initial_balance=Fraction(6), allow_short=True, max_leverage=Fraction(3))
    found = compare(prints, commands, assumed, [Instrument("AB/USD", "USD"), Instrument("CD/USD", "USD")])
    ends = [(event.status, event.reason) for event in found.events if "LIQUIDATED" in event.reason]
    assert ends == [("CANCELED", "LIQUIDATED"), ("REJECTED", "LIQUIDATED")]
    assert found.positions == {}


@pytest.mark.parametrize("order_type", ["market", "limit"])
@settings(max_examples=10)
@given(
    seed=st.integers(0, 10**6), cut=st.integers(0, 3), offset_bps=st.sampled_from((0, 3, -5)), post_only=st.booleans()
)
def test_decisions_become_the_configured_orders(
    order_type: OrderType, seed: int, cut: int, offset_bps: int, post_only: bool
) -> None:
    random = Random(seed)
    prints = made_up(seed, 200, ("AB/USD", "CD/USD"))
    instruments = instruments_of(prints, known=bool(seed % 2))
    assumed = Settings(initial_balance=Fraction(10**6), allow_short=True)
    decided = {number: [random.choice(["BUY", "SELL"])] for number in range(1, 200) if random.random() < 0.2}
    commands: dict[int, list[Command]] = {}
    for name, (number, [side]) in enumerate(decided.items()):
        symbol, last = prints[number - 1].symbol, prints[number - 1].price
        request = Request(symbol, side, Fraction(3))
        if order_type == "limit":
            better = Fraction(offset_bps, 10_000) * (-1 if side == "BUY" else 1)
            request = Request(symbol, side, Fraction(3), "LIMIT", last * (1 + better), post_only=post_only)
        commands[number] = [Submit(name, request)]
    configured = ExecutionConfig(order_type=order_type, limit_offset_bps=offset_bps, post_only=post_only)
    found = run_decisions(prints, decided, assumed, instruments, configured, 3.0, cut)
    assert_same(found, calculate(prints, commands, assumed, instruments))
