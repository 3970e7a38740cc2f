"""Which currencies the form of a symbol names, and how amounts are labelled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradebot.core.currencies import (
    CURRENCIES,
    DOLLARS,
    UNKNOWN_UNIT,
    Pair,
    amount,
    currency_name,
    pair_of_form,
    pair_of_joined,
    unit_of,
)


def quote_currency(symbol: str) -> str | None:
    pair = pair_of_form(symbol)
    return None if pair is None else pair.quote


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
    assert [unit_of(currency) for currency in ("USDT", "BTC", None)] == ["USDT", "BTC", UNKNOWN_UNIT]
    assert amount(1.5, "USD") == "1.5000 USD"
    assert amount(-1.5, UNKNOWN_UNIT, plus=True) == "-1.5000 (unit unknown)"


@pytest.mark.parametrize(
    ("joined", "quotes", "pair"),
    [
        ("BTCUSDT", (), Pair("BTC", "USDT")), ("btcusd", (), Pair("BTC", "USD")), ("ETHBTC", (), Pair("ETH", "BTC")),
        # The longest suffix: USDT, not DT; FDUSD, not USD.
        ("BTCFDUSD", (), Pair("BTC", "FDUSD")), ("BTCFDUSD", ("USD",), Pair("BTCFD", "USD")),
        ("USDT", (), None), ("XYZ", (), None), ("", (), None),
    ],
)  # fmt: skip
def test_pair_of_joined(joined: str, quotes: tuple[str, ...], pair: Pair | None) -> None:
    assert pair_of_joined(joined, quotes) == pair


@given(st.text(max_size=20), st.sampled_from(sorted(CURRENCIES)), st.sampled_from("/-_"))
def test_a_known_quote_behind_a_separator_is_found_or_the_form_is_another(base: str, quote: str, mark: str) -> None:
    found = quote_currency(f"{base}{mark}{quote}")
    assert found == (
        None if not base.rpartition(":")[2] or set(base.rpartition(":")[2]) & set("/-_") else currency_name(quote)
    )


def test_the_shipped_list_is_upper_case_and_holds_the_dollars() -> None:
    assert DOLLARS < CURRENCIES and len(CURRENCIES) > 100
    assert all(name == name.upper() and 2 <= len(name) <= 5 for name in CURRENCIES)
