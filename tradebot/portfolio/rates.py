"""What one unit of a currency is worth in the account currency, from the section [rates] and from prints. Pure.

A rate is a number, or the last print of a symbol that the run receives, times the rate of the currency that this symbol
is priced in. Prints arrive in-band, so that a rate never depends on timing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from tradebot.core.currencies import ACCOUNT_CURRENCY, DOLLARS, rate_problems
from tradebot.portfolio.exact import ONE, exact, multiply
from tradebot.portfolio.instruments import Instruments

if TYPE_CHECKING:
    from tradebot.config.money import RateSymbol

_CHAIN_MAX: Final = 8
"""Rates that depend on each other: more than so many in a row are a circle."""

_ALWAYS_KNOWN: Final[Mapping[str | None, Decimal]] = dict.fromkeys((None, *DOLLARS), ONE)


class Rates:
    """Rates to the account currency. Owned by one thread; nothing blocks, memory is bounded by the configuration."""

    def __init__(
        self, configured: Mapping[str, float | RateSymbol], instruments: Instruments, one_to_one: bool = False
    ) -> None:
        """`configured` is the section [rates]; `instruments` know the currencies of its symbols.

        `one_to_one`: every currency counts as the account currency, as under result rules 1.
        """
        self._instruments = instruments
        self._numbers_and_symbols = configured
        self._one_to_one = one_to_one
        self._numbers = {name: exact(rate) for name, rate in configured.items() if isinstance(rate, float | int)}
        self._symbols = {name: rate.symbol for name, rate in configured.items() if not isinstance(rate, float | int)}
        self.symbols: frozenset[str] = frozenset(self._symbols.values())
        """The symbols whose prints are needed (`on_price`)."""
        self._prices: dict[str, float] = {}
        self._known = self._all()

    def rate(self, currency: str | None) -> Decimal | None:
        """What one unit of `currency` is worth in the account currency; None: not known, so that nothing may be bought.

        An unknown currency (None) counts 1:1, and so do dollars that [rates] does not name. Any thread may ask.
        """
        return ONE if self._one_to_one else self._known.get(currency)

    def in_account(self, amount: Decimal, currency: str | None) -> Decimal:
        """`amount` of `currency` in the account currency, exactly; 1:1 where there is no rate."""
        rate = self.rate(currency)
        return amount if rate is None or rate is ONE else multiply(amount, rate)

    def on_price(self, symbol: str, price: float) -> None:
        """Take in the newest print of `symbol`; one that no rate names is ignored."""
        if symbol in self.symbols and self._prices.get(symbol) != price:
            self._prices[symbol] = price
            self._known = self._all()

    def on_prices(self, prices: Iterable[tuple[str, float]]) -> None:
        """`on_price` for several symbols."""
        for symbol, price in prices:
            self.on_price(symbol, price)

    def at(self, newer: Mapping[str, float]) -> Rates:
        """These rates, at the prices of `newer` where it has any that they need. Any thread."""
        found = {symbol: newer[symbol] for symbol in self.symbols if symbol in newer}
        if not found:
            return self
        other = Rates(self._numbers_and_symbols, self._instruments, self._one_to_one)
        other._prices = self._prices | found
        other._known = other._all()
        return other

    def missing(self, currency: str) -> str:
        """Why there is no rate of `currency`, and which key sets it, for people."""
        said = f"there is no rate to {ACCOUNT_CURRENCY} for {currency}"
        for _ in range(_CHAIN_MAX):
            symbol = self._symbols.get(currency)
            if symbol is None:
                example = f'rates.{currency} = 1.5 or rates.{currency}.symbol = "{currency}/{ACCOUNT_CURRENCY}"'
                return f"{said}: set rates.{currency}, for example {example}"
            if symbol not in self._prices:
                return f"{said}: rates.{currency} is the last price of {symbol}, and none has arrived yet"
            priced_in = self._instruments.of(symbol).quote
            if priced_in is None or priced_in in self._numbers:
                break
            currency = priced_in
        return f"{said}: rates.{currency} depends on itself"

    def problems(self) -> list[str]:
        """What is wrong between the configured rates, each as "rates.X: what"."""
        return [f"rates.{currency}: {text}" for currency, text in rate_problems(self._symbols, self._instruments.pair)]

    def state(self) -> dict[str, Any]:
        """The last prints, as plain values; see `restore`."""
        return {"prices": dict(sorted(self._prices.items()))}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` gave. Prints that the configuration no longer names are left out."""
        self._prices = {symbol: price for symbol, price in state["prices"].items() if symbol in self.symbols}
        self._known = self._all()

    def _all(self) -> dict[str | None, Decimal | None]:
        """The rate of every currency that has one. Computed whole, so that other threads never see a part of it."""
        known: dict[str | None, Decimal | None] = dict(_ALWAYS_KNOWN)
        for currency in (*self._numbers, *self._symbols):
            known[currency] = self._find(currency)
        return known

    def _find(self, currency: str | None) -> Decimal | None:
        rate = ONE
        for _ in range(_CHAIN_MAX):
            if currency is None or currency == ACCOUNT_CURRENCY:
                return rate
            number = self._numbers.get(currency)
            if number is not None:
                return multiply(rate, number)
            symbol = self._symbols.get(currency)
            if symbol is None:
                return rate if currency in DOLLARS else None
            price = self._prices.get(symbol)
            if price is None:
                return None
            rate = multiply(rate, exact(price))
            currency = self._instruments.of(symbol).quote
        return None
