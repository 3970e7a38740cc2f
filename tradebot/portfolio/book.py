"""The totals of all simulated fills: status, summary, heartbeat and metrics take their figures from here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from math import floor, fsum, log10
from types import MappingProxyType
from typing import Final

from msgspec import Struct

from tradebot.core.currencies import ACCOUNT_CURRENCY, UNKNOWN_UNIT, unit_of
from tradebot.portfolio.exact import ONE, ZERO, exact, finite, multiply
from tradebot.portfolio.money import Money
from tradebot.portfolio.positions import PositionView
from tradebot.portfolio.rates import Rates

_DIGITS: Final = 12
_NONE: Final[Mapping[str, float]] = MappingProxyType({})


class Book(Struct, frozen=True):
    """The totals of all simulated fills: open positions, and profit at the last known prices, fees taken off.

    `unit` is the label of its amounts: the account currency; the currency of all of them where it has no rate; or
    `UNKNOWN_UNIT`.
    """

    open_positions: int
    net_qty: float
    """Of the symbol of the last tick."""
    exposure: float
    profit: float
    fees: float = 0.0
    unit: str = UNKNOWN_UNIT
    realized: float = 0.0
    """Before fees, like `unrealized`."""
    unrealized: float = 0.0


def book_of(positions: Sequence[PositionView], symbol: str | None, money: Money) -> Book:
    """The sums over `positions`; `symbol` is that of the last tick, None before the first. Pure.

    Sums are rounded to 12 significant digits: what floating point adds behind those is noise.
    """
    currencies = [view.currency for view in positions] or (
        [] if symbol is None else [money.instruments.currency_of(symbol)]
    )
    paid = fees(positions, money.rates)
    realized = [_in_account(view.realized, view.currency, money.rates) for view in positions]
    unrealized = [_in_account(view.unrealized, view.currency, money.rates) for view in positions]
    return Book(
        open_positions=sum(view.net_qty != 0 for view in positions),
        net_qty=next((view.net_qty for view in positions if view.symbol == symbol), 0.0) + 0.0,
        exposure=total([_in_account(view.exposure, view.currency, money.rates) for view in positions]),
        profit=total([*realized, *unrealized], less=paid),
        fees=paid,
        unit=_unit_of_sums(currencies, money.rates),
        realized=total(realized),
        unrealized=total(unrealized),
    )


def fees(positions: Sequence[PositionView], rates: Rates, before: Mapping[str, float] = _NONE) -> float:
    """The fees of all fills less those that `before` names by symbol, in the unit of `book_of`."""
    return total(
        [_in_account(total([view.fees], less=before.get(view.symbol, 0.0)), view.currency, rates) for view in positions]
    )


def _unit_of_sums(currencies: Sequence[str | None], rates: Rates) -> str:
    """The label of sums over amounts in `currencies`."""
    if len(set(currencies)) == 1 and rates.rate(currencies[0]) is None:
        return unit_of(currencies[0])  # summed 1:1, in its own
    known = currencies and all(each is not None and rates.rate(each) is not None for each in currencies)
    return ACCOUNT_CURRENCY if known else UNKNOWN_UNIT


def _in_account(amount: float, currency: str | None, rates: Rates) -> float:
    """The amount in the account currency, 1:1 where there is no rate."""
    rate = rates.rate(currency)
    return amount if rate is None or rate is ONE else finite(multiply(exact(amount), rate))


def total(amounts: Sequence[float], less: float = 0.0) -> float:
    """The sum of finite `amounts`, less `less`, to 12 significant digits of the largest of them; never -0.0.

    A sum beyond the largest double is the largest double.
    """
    parts = [*amounts, -less]
    largest = max(map(abs, parts))
    if not largest:
        return 0.0
    try:
        return round(fsum(parts), _DIGITS - 1 - floor(log10(largest))) + 0.0
    except OverflowError:
        return finite(sum(map(Decimal, parts), ZERO))
