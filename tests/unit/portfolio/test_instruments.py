"""Instruments: what is known of a symbol and from where, value, rounding, smallest orders."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradebot.config.money import InstrumentConfig
from tradebot.core.currencies import Pair
from tradebot.portfolio.instruments import Instrument, Instruments, round_down, round_up, too_small, value_of

STEPS = st.sampled_from(["1", "0.1", "0.25", "0.001", "1e-8", "5", "0.0005"]).map(Decimal)
AMOUNTS = st.decimals(min_value=-1_000_000, max_value=1_000_000, allow_nan=False, places=10)


def by_exchange(symbol: str) -> Pair | None:
    return {
        "BTCUSDT": Pair("BTC", "USDT"), "BTCUSD_PERP": Pair("BTC", "USD", contracts=True, inverse=True),
        "BTC_USDT": Pair("BTC", "USDT", contracts=True),
    }.get(symbol)  # fmt: skip


def test_the_configuration_comes_before_the_form_and_the_form_before_the_exchange() -> None:
    configured = {"BTCUSDT": InstrumentConfig(quote="EUR"), "ETH/BTC": InstrumentConfig(taker_fee=0.002)}
    instruments = Instruments(configured, 0.001, by_exchange)
    assert instruments.of("BTCUSDT") == Instrument(
        "BTCUSDT", "BTC", "EUR", maker_fee=Decimal("0.001"), taker_fee=Decimal("0.001")
    )
    assert (instruments.of("ETH/BTC").quote, instruments.of("ETH/BTC").taker_fee) == ("BTC", Decimal("0.002"))
    assert instruments.of("ETH/BTC").maker_fee == Decimal("0.001")
    assert instruments.currency_of("SOLXYZ") is None
    assert Instruments({}, 0.001, by_exchange).currency_of("BTCUSDT") == "USDT"
    assert Instruments({}, 0.001).currency_of("BTCUSDT") is None


def test_a_market_in_contracts_needs_its_entry() -> None:
    bare = Instruments({}, 0.001, by_exchange)
    assert [bare.of(symbol).needs_entry for symbol in ("BTCUSDT", "BTCUSD_PERP", "BTC_USDT")] == [False, True, True]
    entry = InstrumentConfig(base="BTC", contract_size=100.0, inverse=True)
    known = Instruments({"BTCUSD_PERP": entry}, 0.001, by_exchange).of("BTCUSD_PERP")
    assert (known.needs_entry, known.inverse, known.currency) == (False, True, "BTC")


def test_each_symbol_is_looked_up_once() -> None:
    asked: list[str] = []

    def pair_of(symbol: str) -> Pair | None:
        asked.append(symbol)
        return None

    instruments = Instruments({}, 0.0, pair_of)
    assert instruments.of("A") is instruments.of("A")
    assert asked == ["A"]


def test_values() -> None:
    price, qty = Decimal("50000"), Decimal("3")
    assert value_of(Instrument("A"), qty, price) == 150_000
    assert value_of(Instrument("A", contract_size=Decimal("0.01")), qty, price) == 1500
    inverse = Instrument("A", contract_size=Decimal("100"), inverse=True)
    assert value_of(inverse, qty, price) == Decimal("0.006")
    third = value_of(inverse, Decimal(1), Decimal(300))
    assert abs(Fraction(third) - Fraction(1, 3)) < Fraction(1, 10**45)


@given(AMOUNTS, STEPS)
def test_rounding_gives_the_nearest_multiple_of_its_side(value: Decimal, step: Decimal) -> None:
    down, up = round_down(value, step), round_up(value, step)
    exact_value, exact_step = Fraction(value), Fraction(step)
    assert Fraction(down) == exact_value // exact_step * exact_step
    assert Fraction(up) == -(-exact_value // exact_step) * exact_step
    assert round_down(value, None) == value == round_up(value, None)


@pytest.mark.parametrize(
    ("instrument", "qty", "price", "refused"),
    [
        (Instrument("A", min_qty=Decimal("0.01")), "0.01", "1", None),
        (Instrument("A", min_qty=Decimal("0.01")), "0.0099", "1", ("MIN_QTY", 'instruments."A".min_qty', 0.0099, 0.01)),
        (Instrument("A", lot_size=Decimal("0.5")), "0", "1", ("MIN_QTY", 'instruments."A".lot_size', 0.0, 0.5)),
        (Instrument("A", min_notional=Decimal(5)), "0.5", "10", None),
        (
            Instrument("A", min_notional=Decimal(5)),
            "0.5",
            "9.99",
            ("MIN_NOTIONAL", 'instruments."A".min_notional', 4.995, 5.0),
        ),
        (Instrument("A"), "1e-30", "1", None),
    ],
)
def test_smallest_orders(
    instrument: Instrument, qty: str, price: str, refused: tuple[str, str, float, float] | None
) -> None:
    found = too_small(instrument, Decimal(qty), Decimal(price))
    if refused is None:
        assert found is None
    else:
        assert found is not None
        assert (found.reason, found.breach.limit_key, found.breach.value, found.breach.limit) == refused
