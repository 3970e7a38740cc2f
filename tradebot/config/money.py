"""The sections [instruments], [rates] and [account]: types, defaults, bounds, and what does not fit together. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from decimal import Context, Decimal
from typing import Annotated, Final, NamedTuple

from msgspec import Meta, Struct

from tradebot.core.currencies import ACCOUNT_CURRENCY, CURRENCIES, Pair, pair_of_form, rate_problems
from tradebot.core.events import MAX_SYMBOL_CHARS

_Step = Annotated[float, Meta(gt=0, le=1e12)]
_Currency = Annotated[str, Meta(min_length=1, max_length=32)]

_EXACT: Final = Context(prec=400)
"""Has room for the quotient of the largest size, 1e12, and the smallest double."""


class InstrumentConfig(Struct, frozen=True):
    """An entry [instruments."SYMBOL"]; None for keys that are not set.

    Fees None: `execution.fee_rate`. `contract_size` is what one unit of quantity stands for: of the base currency, or
    of the quote currency where `inverse` is true.
    """

    base: _Currency | None = None
    quote: _Currency | None = None
    tick_size: _Step | None = None
    lot_size: _Step | None = None
    min_qty: Annotated[float, Meta(ge=0, le=1e12)] | None = None
    min_notional: Annotated[float, Meta(ge=0, le=1e12)] | None = None
    maker_fee: Annotated[float, Meta(ge=-0.1, le=1)] | None = None
    taker_fee: Annotated[float, Meta(ge=0, le=1)] | None = None
    contract_size: Annotated[float, Meta(gt=0, le=1e12)] = 1.0
    inverse: bool = False


Symbol = Annotated[str, Meta(min_length=1, max_length=MAX_SYMBOL_CHARS)]
"""A symbol, as the feed writes it."""


class RateSymbol(Struct, frozen=True):
    """A rate that is the last price of a symbol."""

    symbol: Symbol


Rate = Annotated[float, Meta(gt=0, le=1e9)]
"""What one unit of a currency is worth in the account currency."""


class AccountConfig(Struct, frozen=True):
    """The account of PAPER: its balance in the account currency, and whether and how far it may owe."""

    initial_balance: Annotated[float, Meta(gt=0, le=1e12)] = 10_000.0
    allow_short: bool = False
    max_leverage: Annotated[float, Meta(ge=1, le=1000)] = 1.0


class Mistake(NamedTuple):
    """What is wrong with a value of [instruments] or [rates]: the key within its section, and the text."""

    section: str
    key: tuple[str, ...]
    text: str


def mistakes(instruments: Mapping[str, InstrumentConfig], rates: Mapping[str, float | RateSymbol]) -> list[Mistake]:
    """What is wrong with values that are each right by themselves."""
    found = [each for symbol, entry in instruments.items() for each in _of_instrument(symbol, entry, rates)]
    named = {currency for entry in instruments.values() for currency in (entry.quote, entry.base)}
    for currency in rates:
        if currency == ACCOUNT_CURRENCY:
            found.append(Mistake("rates", (currency,), f"{currency} is the currency of the account: it has no rate"))
        elif currency not in CURRENCIES and currency not in named:
            text = f"{_unknown(currency)}; a currency of your own is the quote or base of an entry of [instruments]"
            found.append(Mistake("rates", (currency,), text))
    symbols = {currency: rate.symbol for currency, rate in rates.items() if isinstance(rate, RateSymbol)}
    problems = rate_problems(symbols, lambda symbol: _pair(symbol, instruments))
    return found + [Mistake("rates", (problem.currency,), problem.text) for problem in problems]


def _of_instrument(symbol: str, entry: InstrumentConfig, rates: Mapping[str, float | RateSymbol]) -> Iterator[Mistake]:
    key = (symbol, "quote")
    if entry.quote is not None and entry.quote not in CURRENCIES and entry.quote not in rates:
        text = f"{_unknown(entry.quote)}; give it a rate in [rates] if it is one"
        yield Mistake("instruments", key, text)
    if entry.base is not None and entry.base == entry.quote:
        yield Mistake(
            "instruments", (symbol, "base"), f"{entry.base} is the quote, too: a market is between two currencies"
        )
    if entry.inverse and entry.base is None:
        text = "needs base, the currency that an inverse contract is settled in"
        yield Mistake("instruments", (symbol, "inverse"), text)
    lot, smallest = entry.lot_size, entry.min_qty
    if lot is not None and smallest is not None and _EXACT.remainder(Decimal(repr(smallest)), Decimal(repr(lot))):
        text = f"must be a multiple of lot_size, but {smallest!r} is not a multiple of {lot!r}"
        yield Mistake("instruments", (symbol, "min_qty"), text)


def _unknown(currency: str) -> str:
    near = difflib.get_close_matches(currency.upper(), CURRENCIES, n=1, cutoff=0.6)
    return f"unknown currency{f' (did you mean {near[0]}?)' if near else ''}"


def _pair(symbol: str, instruments: Mapping[str, InstrumentConfig]) -> Pair | None:
    """Base and quote by configuration and form; an exchange may know more when a run begins."""
    entry, by_form = instruments.get(symbol), pair_of_form(symbol)
    if entry is None:
        return by_form
    pair = by_form or Pair(None, None)
    return Pair(entry.base or pair.base, entry.quote or pair.quote)
