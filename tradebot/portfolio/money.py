"""Instruments and rates together: what an amount of a symbol is in, and what it is worth in the account currency."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from tradebot.core.errors import ConfigError
from tradebot.portfolio.instruments import Instruments, PairOf
from tradebot.portfolio.rates import Rates

if TYPE_CHECKING:
    from tradebot.config.money import InstrumentConfig, RateSymbol


class Money(NamedTuple):
    """What turns quantities and prices into money. Owned by one thread."""

    instruments: Instruments
    rates: Rates


_NO_INSTRUMENTS: Final[Mapping[str, InstrumentConfig]] = MappingProxyType({})
_NO_RATES: Final[Mapping[str, float | RateSymbol]] = MappingProxyType({})


def money_of(
    fee_rate: float = 0.0,
    instruments: Mapping[str, InstrumentConfig] = _NO_INSTRUMENTS,
    rates: Mapping[str, float | RateSymbol] = _NO_RATES,
    pair_of: PairOf | None = None,
    one_to_one: bool = False,
) -> Money:
    """Instruments and rates from the sections of the configuration; see `Instruments` and `Rates`.

    Raises ConfigError for rates that contradict what the exchange knows of their symbols.
    """
    known = Instruments(instruments, fee_rate, pair_of)
    money = Money(known, Rates(rates, known, one_to_one))
    problems = money.rates.problems()
    if problems:
        raise ConfigError("\n".join(problems))
    return money
