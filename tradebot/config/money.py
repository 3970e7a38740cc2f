"""The sections [instruments], [rates] and [account]: types, defaults and bounds."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from tradebot.core.events import MAX_SYMBOL_CHARS

_Step = Annotated[float, Meta(gt=0, le=1e12)]
_Currency = Annotated[str, Meta(min_length=1, max_length=32)]


class InstrumentConfig(Struct, frozen=True, omit_defaults=True):
    """What an entry [instruments."SYMBOL"] says; None where it says nothing.

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


class RateSymbol(Struct, frozen=True):
    """A rate that is the last price of a symbol."""

    symbol: Annotated[str, Meta(min_length=1, max_length=MAX_SYMBOL_CHARS)]


Rate = Annotated[float, Meta(gt=0, le=1e12)]
"""What one unit of a currency is worth in the account currency."""


class AccountConfig(Struct, frozen=True):
    """The account of PAPER: its balance in the account currency, and whether and how far it may owe."""

    initial_balance: Annotated[float, Meta(gt=0, le=1e12)] = 10_000.0
    allow_short: bool = False
    max_leverage: Annotated[float, Meta(ge=1, le=1000)] = 1.0
