"""Rates to the account currency: numbers, last prints, what is missing and why."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tradebot.config.money import InstrumentConfig, RateSymbol
from tradebot.core.currencies import Pair
from tradebot.core.errors import ConfigError
from tradebot.portfolio.instruments import Instruments
from tradebot.portfolio.money import money_of
from tradebot.portfolio.rates import Rates

CIRCLE: dict[str, float | RateSymbol] = {"BTC": RateSymbol("BTC/ETH"), "ETH": RateSymbol("ETH/BTC")}


def rates_of(rates: dict[str, float | RateSymbol], instruments: dict[str, InstrumentConfig] | None = None) -> Rates:
    return Rates(rates, Instruments(instruments or {}, 0.0))


def test_dollars_count_one_to_one_unless_the_configuration_says_otherwise() -> None:
    rates = rates_of({"DAI": 0.99, "EUR": 1.08})
    assert [rates.rate(name) for name in ("USD", "USDT", "USDC", None)] == [1, 1, 1, 1]
    assert (rates.rate("DAI"), rates.rate("EUR"), rates.rate("BTC")) == (Decimal("0.99"), Decimal("1.08"), None)


def test_a_rate_is_the_last_print_of_its_symbol() -> None:
    rates = rates_of({"EUR": RateSymbol("EUR/USDT")})
    assert rates.symbols == {"EUR/USDT"}
    assert rates.rate("EUR") is None
    rates.on_price("EUR/USDT", 1.08)
    rates.on_price("BTC/USDT", 60_000.0)
    assert rates.rate("EUR") == Decimal("1.08")
    rates.on_prices([("EUR/USDT", 1.09), ("EUR/USDT", 1.1)])
    assert rates.rate("EUR") == Decimal("1.1")


def test_a_print_is_worth_what_its_own_currency_is_worth() -> None:
    rates = rates_of({"SOL": RateSymbol("SOL/ETH"), "ETH": RateSymbol("ETH/EUR"), "EUR": 1.1, "USDT": 0.5})
    rates.on_price("SOL/ETH", 0.05)
    assert rates.rate("SOL") is None
    rates.on_price("ETH/EUR", 2000.0)
    assert rates.rate("SOL") == Decimal("110")
    of_dollars = rates_of({"BTC": RateSymbol("BTC/USDT"), "USDT": 0.5})
    of_dollars.on_price("BTC/USDT", 60_000.0)
    assert of_dollars.rate("BTC") == 30_000


def test_the_state_restores_the_prints() -> None:
    configured: dict[str, float | RateSymbol] = {"BTC": RateSymbol("BTC/USDT"), "ETH": RateSymbol("ETH/BTC")}
    rates, again = rates_of(configured), rates_of(configured)
    rates.on_prices([("BTC/USDT", 60_000.0), ("ETH/BTC", 0.05)])
    again.restore(rates.state())
    assert again.rate("ETH") == rates.rate("ETH") == 3000
    assert again.state() == rates.state()
    fewer = rates_of({"BTC": RateSymbol("BTC/USDT")})
    fewer.restore(rates.state())
    assert fewer.state() == {"prices": {"BTC/USDT": 60_000.0}}


def test_newer_prices_make_other_rates_and_leave_these() -> None:
    rates = rates_of({"BTC": RateSymbol("BTC/USDT")})
    rates.on_price("BTC/USDT", 1.0)
    assert rates.at({"BTC/USDT": 2.0}).rate("BTC") == 2
    assert rates.rate("BTC") == 1
    assert rates.at({"ETH/USDT": 2.0}) is rates


def test_one_to_one_counts_everything_as_dollars() -> None:
    assert money_of(one_to_one=True).rates.rate("BTC") == 1


@pytest.mark.parametrize(
    ("rates", "currency", "words"),
    [
        ({}, "BTC", "there is no rate to USD for BTC: set rates.BTC, for example rates.BTC = 1.5"),
        ({"BTC": RateSymbol("BTC/USDT")}, "BTC", "rates.BTC is the last price of BTC/USDT, and none has arrived yet"),
        ({"SOL": RateSymbol("SOL/ETH")}, "SOL", "no rate to USD for SOL: set rates.ETH,"),
    ],
)
def test_what_is_missing_is_said_with_its_key(rates: dict[str, float | RateSymbol], currency: str, words: str) -> None:
    found = rates_of(rates)
    found.on_price("SOL/ETH", 1.0)
    assert found.rate(currency) is None
    assert words in found.missing(currency)


@pytest.mark.parametrize(
    ("rates", "problem"),
    [
        ({"EUR": RateSymbol("EUR/USDT"), "SOL": RateSymbol("SOL/EUR")}, None),
        ({"EUR": RateSymbol("BTC/USDT")}, "rates.EUR: BTC/USDT is a price of BTC, not of EUR"),
        ({"BTC": RateSymbol("XBT/USD")}, None),
        (CIRCLE, "rates.BTC: depends on itself: BTC -> ETH -> BTC"),
        ({"BTC": RateSymbol("BTC/BTC")}, "rates.BTC: depends on itself: BTC -> BTC"),
        ({"BTC": RateSymbol("BTCUSDT")}, None),
    ],
)  # fmt: skip
def test_circles_and_wrong_symbols_are_found(rates: dict[str, float | RateSymbol], problem: str | None) -> None:
    assert rates_of(rates).problems() == ([] if problem is None else [problem])


def test_a_circle_ends() -> None:
    rates = rates_of(CIRCLE)
    rates.on_prices([("BTC/ETH", 20.0), ("ETH/BTC", 0.05)])
    assert rates.rate("BTC") is None
    assert "depends on itself" in rates.missing("BTC")


def test_rates_that_cannot_be_end_the_start_once_the_exchange_is_known() -> None:
    def pair_of(symbol: str) -> Pair | None:
        return Pair("BTC", "USDT") if symbol == "BTCUSDT" else None

    rates: dict[str, float | RateSymbol] = {"EUR": RateSymbol("BTCUSDT")}
    money_of(rates=rates)
    with pytest.raises(ConfigError, match=r"rates\.EUR: BTCUSDT is a price of BTC, not of EUR"):
        money_of(rates=rates, pair_of=pair_of)
