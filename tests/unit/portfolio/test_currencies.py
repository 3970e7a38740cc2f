"""The currency of a symbol's prices, and the refusal of orders that caps in dollars cannot be held against."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradebot.config.model import RiskCaps
from tradebot.core.events import BUY, NO_RATE, RISK_CAP, SELL, Fill, Side, Signal
from tradebot.execution.risk import ApprovedOrder, RefusedOrder, check, refusal_text
from tradebot.execution.shadow import refuse
from tradebot.portfolio.currencies import (
    CURRENCIES,
    DOLLARS,
    UNKNOWN_UNIT,
    amount,
    common_unit,
    needs_rate,
    quote_currency,
    unit_of,
)
from tradebot.portfolio.positions import Positions

CAPS = RiskCaps()


def signal(symbol: str, side: Side = BUY, qty: float = 0.1, price: float = 100.0) -> Signal:
    return Signal("r-1-S", symbol, side, 0.75, "SMA_CROSSOVER", qty, price, 1)


@pytest.mark.parametrize(
    ("symbol", "quote"),
    [
        ("ETH/BTC", "BTC"), ("BTC-EUR", "EUR"), ("BTC_KRW", "KRW"), ("btc-usdt", "USDT"), ("SOL/USDC", "USDC"),
        ("binance:BTC/USDT", "USDT"), ("SPOT:ETH-BTC", "BTC"), ("XBT/USD", "USD"), ("1000SHIB_USDT", "USDT"),
        # No separator, or what stands behind it is no currency.
        ("BTCUSDT", None), ("BTCUSD_PERP", None), ("PI_ETHUSD", None), ("USDT-FUTURES:BTCUSDT", None),
        ("BTC-USDT-SWAP", None), ("BTC-USD-220527", None), ("FI_ETHUSD_220624", None), ("BTC-PERP", None),
        ("tBTCUSD", None), ("COIN-FUTURES:BTCUSD", None), ("XBTUSDTM", None),
        # No base.
        ("/BTC", None), ("BTC:EUR", None), ("-", None), ("", None),
    ],
)  # fmt: skip
def test_quote_currency(symbol: str, quote: str | None) -> None:
    assert quote_currency(symbol) == quote


def test_units() -> None:
    assert [unit_of(s) for s in ("BTC/USDT", "ETH/BTC", "BTCUSDT")] == ["USD", "BTC", UNKNOWN_UNIT]
    assert [needs_rate(s) for s in ("BTC/USDT", "ETH/BTC", "BTCUSDT")] == [None, "BTC", None]
    assert common_unit(["BTC/USD", "SOL/USDC"]) == "USD"
    assert common_unit(["BTC/USD", "BTCUSDT"]) == UNKNOWN_UNIT == common_unit([])
    assert amount(1.5, "USD") == "1.5000 USD"
    assert amount(-1.5, UNKNOWN_UNIT, plus=True) == "-1.5000 (unit unknown)"


@given(st.text(max_size=20), st.sampled_from(sorted(CURRENCIES)), st.sampled_from("/-_"))
def test_a_known_quote_behind_a_separator_is_found_or_the_form_is_another(base: str, quote: str, mark: str) -> None:
    found = quote_currency(f"{base}{mark}{quote}")
    assert found == (None if not base.rpartition(":")[2] or set(base.rpartition(":")[2]) & set("/-_") else quote)


@pytest.mark.parametrize("symbol", ["ETH/BTC", "BTC-EUR", "BTC_KRW"])
def test_an_order_that_no_cap_can_be_held_against_is_refused(symbol: str) -> None:
    for side in (BUY, SELL):
        verdict = check(signal(symbol, side), Positions(), CAPS, open_orders=0)
        assert isinstance(verdict, RefusedOrder) and verdict.reason == NO_RATE
        detail = refusal_text(refuse(verdict.signal, verdict.reason, verdict.breach))
        assert verdict.breach is None and str(needs_rate(symbol)) in detail and "USD" in detail


@pytest.mark.parametrize("symbol", ["BTCUSDT", "BTCUSD_PERP", "PI_ETHUSD", "USDT-FUTURES:BTCUSDT", "SOL/USDC"])
def test_unknown_currencies_and_dollars_are_held_against_the_caps(symbol: str) -> None:
    assert isinstance(check(signal(symbol), Positions(), CAPS, open_orders=0), ApprovedOrder)
    verdict = check(signal(symbol, qty=51.0), Positions(), CAPS, open_orders=0)
    assert isinstance(verdict, RefusedOrder) and verdict.reason == RISK_CAP


def test_an_order_that_reduces_a_position_needs_no_rate() -> None:
    positions = Positions()
    positions.apply(Fill("t", "o", "ETH/BTC", BUY, 1.0, 0.05, 0.0, 1))
    assert isinstance(check(signal("ETH/BTC", SELL, 0.4, 0.05), positions, CAPS, open_orders=0), ApprovedOrder)
    assert isinstance(check(signal("ETH/BTC", SELL, 2.0, 0.05), positions, CAPS, open_orders=0), RefusedOrder)


def test_the_shipped_list_is_upper_case_and_holds_the_dollars() -> None:
    assert DOLLARS < CURRENCIES and len(CURRENCIES) > 100
    assert all(name == name.upper() and 2 <= len(name) <= 5 for name in CURRENCIES)
