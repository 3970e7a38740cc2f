"""SHADOW execution: an order per signal, filled at its price or refused with a code."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradebot.config.model import RiskCaps
from tradebot.core.events import BP_DROP_SIGNAL, BUY, SELL, Fill, LimitBreach, Order, Signal
from tradebot.execution.risk import refusal_text
from tradebot.execution.shadow import ShadowExecution, refuse
from tradebot.portfolio.money import money_of


def signal(
    side: Literal["BUY", "SELL"] = BUY,
    price: float = 101.0,
    *,
    symbol: str = "TEST/USD",
    qty: float = 0.1,
    ts: int = 1_700_000_020,
    marks: tuple[tuple[str, float], ...] = (),
    event_id: str = "rabc-0000000021-S",
) -> Signal:
    return Signal(event_id, symbol, side, 0.75, "SMA_CROSSOVER", qty, price, ts, marks)


def test_an_approved_signal_is_filled_at_its_price() -> None:
    """S9: recorded as a shadow fill, linked by ids that derive from the signal's (I3)."""
    execution = ShadowExecution(RiskCaps(), money_of(0.001))
    order = execution.execute(signal())
    fill = Fill("rabc-0000000021-T", "rabc-0000000021-O", "TEST/USD", "BUY", 0.1, 101.0, 0.0101, 1_700_000_020, 1)
    assert order == Order(
        event_id="rabc-0000000021-O",
        signal_id="rabc-0000000021-S",
        symbol="TEST/USD",
        side="BUY",
        qty=0.1,
        price=101.0,
        status="FILLED",
        reason="SHADOW_RECORDED",
        ts=1_700_000_020,
        is_shadow=1,
        fills=(fill,),
    )
    view = execution.positions.view("TEST/USD")
    assert view is not None and (view.net_qty, view.fees) == (0.1, 0.0101)


@pytest.mark.parametrize(
    ("qty", "price", "fees"),
    [(0.1, 101.0, 0.0101), (0.1, 102.0, 0.0102), (0.001, 61837.63, 0.06183763), (0.3, 3.0, 9e-4)],
)
def test_fees_are_the_shortest_right_decimals(qty: float, price: float, fees: float) -> None:
    """0.1 * 101.0 * 0.001 in floats is 0.010100000000000001."""
    order = ShadowExecution(RiskCaps(), money_of(0.001)).execute(signal(qty=qty, price=price))
    assert order.fills[0].fees == fees


def test_a_signal_past_a_cap_is_refused_and_leaves_no_trace() -> None:
    """I2: status REJECTED, reason RISK_CAP, no fill, no position."""
    execution = ShadowExecution(RiskCaps(max_symbol_exposure_usd=10.0), money_of(0.001))
    order = execution.execute(signal())
    assert (order.status, order.reason, order.fills, order.is_shadow) == ("REJECTED", "RISK_CAP", (), 1)
    assert (order.event_id, order.signal_id) == ("rabc-0000000021-O", "rabc-0000000021-S")
    assert (order.qty, order.price, order.ts) == (0.1, 101.0, 1_700_000_020)
    assert order.breach == LimitBreach("risk_caps.max_symbol_exposure_usd", 10.1, 10.0)
    assert (
        refusal_text(order, money_of())
        == "exposure in TEST/USD would be 10.1 USD, above risk_caps.max_symbol_exposure_usd = 10.0"
    )
    assert execution.positions.views() == []
    assert execution.execute(signal(qty=0.01)).breach is None


def test_no_open_orders_allowed_means_no_orders() -> None:
    """I2: a shadow order is open for an instant, which is one too many for a cap of 0."""
    assert ShadowExecution(RiskCaps(max_open_orders=1), money_of(0.0)).execute(signal()).status == "FILLED"
    assert ShadowExecution(RiskCaps(max_open_orders=0), money_of(0.0)).execute(signal()).reason == "RISK_CAP"


@pytest.mark.parametrize("refused_first", [False, True])
def test_prices_of_other_symbols_travel_with_the_signals(refused_first: bool) -> None:
    """I2: exposure is as of the signal's tick; marks that came with a refused signal count from then on."""
    execution = ShadowExecution(RiskCaps(max_exposure_usd=1_000.0), money_of(0.0))
    execution.execute(signal(symbol="A", qty=1.0, price=100.0))
    marks: tuple[tuple[str, float], ...] = (("A", 950.0), ("never traded", 1.0))
    if refused_first:
        assert execution.execute(signal(symbol="B", qty=1.0, price=51.0, marks=marks)).status == "REJECTED"
        marks = ()
    assert execution.execute(signal(symbol="B", qty=1.0, price=50.0, marks=marks)).status == "FILLED"
    assert execution.execute(signal(symbol="B", qty=0.01, price=50.0)).status == "REJECTED"


def test_a_refused_signals_own_price_counts_from_then_on() -> None:
    """I2: as marks do."""
    execution = ShadowExecution(RiskCaps(max_exposure_usd=1_000.0), money_of(0.0))
    execution.execute(signal(symbol="A", qty=1.0, price=100.0))
    assert execution.execute(signal(symbol="A", qty=1.0, price=950.0)).status == "REJECTED"
    assert execution.execute(signal(symbol="B", qty=1.0, price=51.0)).status == "REJECTED"


@pytest.mark.parametrize(
    ("ts", "now_ms", "limit_ms", "reason"),
    [
        (1_700_000_000_000, 1_700_000_000_500, 500, "SHADOW_RECORDED"),
        (1_700_000_000_000, 1_700_000_000_501, 500, "STALE_DATA"),
        (1_700_000_000_000, 1_800_000_000_000, 0, "SHADOW_RECORDED"),
        (1_700_000_000_000, None, 500, "SHADOW_RECORDED"),
        (1_700_000_000_000, 1_600_000_000_000, 500, "SHADOW_RECORDED"),
        (1_700_000_000, 1_700_000_000_500, 500, "SHADOW_RECORDED"),
        (1_700_000_000, 1_700_000_000_501, 500, "STALE_DATA"),
    ],
)
def test_stale_data(ts: int, now_ms: int | None, limit_ms: int, reason: str) -> None:
    """S7: older than max_tick_age_ms is refused; 0 is off, a replay has no clock, old data count seconds."""
    execution = ShadowExecution(RiskCaps(), money_of(0.001), limit_ms)
    order = execution.execute(signal(ts=ts), now_ms)
    assert order.reason == reason
    assert order.status == ("REJECTED" if reason == "STALE_DATA" else "FILLED")
    if reason == "STALE_DATA":
        assert order.breach == LimitBreach("execution.max_tick_age_ms", 501.0, 500.0)
        assert (
            refusal_text(order, money_of())
            == "the tick of TEST/USD is 501 ms old, above execution.max_tick_age_ms = 500"
        )


def test_a_dropped_signal_becomes_a_stored_refusal() -> None:
    order = refuse(signal(), BP_DROP_SIGNAL)
    assert (order.event_id, order.signal_id) == ("rabc-0000000021-O", "rabc-0000000021-S")
    assert (order.status, order.reason, order.fills, order.breach) == ("REJECTED", "BP_DROP_SIGNAL", (), None)


def test_ids_that_do_not_end_in_s_are_a_mistake() -> None:
    """I3: anything else could give two rows one id."""
    with pytest.raises(ValueError, match="does not end in -S"):
        refuse(signal(event_id="rabc-0000000021"), BP_DROP_SIGNAL)


steps = st.lists(
    st.tuples(
        st.sampled_from(["A", "B"]),
        st.sampled_from([BUY, SELL]),
        st.integers(1, 10**6).map(lambda k: k / 100),
        st.sampled_from([(), (("A", 77.7),), (("B", 3.21), ("C", 1.0))]),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(steps=steps, cut=st.integers(0, 30))
def test_restored_from_fills_and_marks_it_goes_on_as_if_never_stopped(
    steps: list[tuple[str, Literal["BUY", "SELL"], float, tuple[tuple[str, float], ...]]], cut: int
) -> None:
    """S8: orders after a restart equal those of an uninterrupted run, and so do the positions."""
    caps = RiskCaps(max_exposure_usd=3_000.0, max_symbol_exposure_usd=2_000.0)
    signals = [
        signal(side, price, symbol=symbol, marks=marks, event_id=f"r-{i}-S")
        for i, (symbol, side, price, marks) in enumerate(steps)
    ]
    whole = ShadowExecution(caps, money_of(0.001))
    orders = [whole.execute(each) for each in signals]
    last: dict[str, float] = {}
    for each in signals[:cut]:
        last |= {**dict(each.marks), each.symbol: each.price}
    resumed = ShadowExecution(caps, money_of(0.001))
    resumed.restore([fill for order in orders[:cut] for fill in order.fills], last.items())
    assert [resumed.execute(each) for each in signals[cut:]] == orders[cut:]
    assert resumed.positions.views() == whole.positions.views()
