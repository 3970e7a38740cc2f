"""The currency that a symbol's prices are in, as far as the form of the symbol tells it.

`ETH/BTC`, `BTC-EUR` and `BTC_KRW` name their quote currency; `BTCUSDT`, `BTCUSD_PERP` and `PI_ETHUSD` do not, because
nothing says where the base ends. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tradebot.core.number_format import money

DOLLARS: Final = frozenset({"USD", "USDT", "USDC", "DAI", "FDUSD", "PYUSD", "TUSD"})
"""Counted 1:1 as US dollars."""

# Currencies of countries (ISO 4217) that exchanges quote in.
_NATIONAL: Final = """
AED ARS AUD BDT BGN BRL CAD CHF CLP CNH CNY COP CZK DKK EGP EUR GBP GEL GHS HKD HUF IDR ILS INR JPY KES KRW KZT MAD MXN
MYR NGN NOK NZD PEN PHP PKR PLN QAR RON RSD RUB SAR SEK SGD THB TRY TWD TZS UAH UGX UYU VES VND XAF XOF ZAR ZMW
"""
# Coins that others are quoted in.
_COINS: Final = """
ADA ATOM AVAX BCH BNB BTC CRO DOGE DOT EOS ETC ETH GT HT KCS LEO LINK LTC MATIC OKB POL SOL TON TRX WBTC WETH XBT XLM
XMR XRP XTZ
"""
# Tokens pegged to a currency or to gold, other than DOLLARS.
_PEGGED: Final = """
AEUR BIDR BRZ BUSD EURC EURI EURR EURS EURT GUSD GYEN IDRT LUSD MXNT PAX PAXG RLUSD SUSD TRYB USD1 USDD USDE USDG USDJ
USDP USDQ USDR USDS UST USTC XAUT XSGD XUSD ZUSD
"""

CURRENCIES: Final = DOLLARS.union(_NATIONAL.split(), _COINS.split(), _PEGGED.split())
"""What counts as a quote currency when it stands behind the separator of a symbol."""

UNKNOWN_UNIT: Final = "unit unknown"
"""The label of an amount whose currency nothing says."""

_DOLLAR_LABEL: Final = "USD"
_SEPARATORS: Final = str.maketrans("-_", "//")


def quote_currency(symbol: str) -> str | None:
    """The currency that the form of `symbol` names as its quote, in capitals; None where it names none.

    The form is BASE/QUOTE, BASE-QUOTE or BASE_QUOTE, behind an optional market (`USDT-FUTURES:`), with a QUOTE of
    `CURRENCIES`.
    """
    parts = symbol.rpartition(":")[2].upper().translate(_SEPARATORS).split("/")
    return parts[1] if len(parts) == 2 and parts[0] and parts[1] in CURRENCIES else None


def needs_rate(symbol: str) -> str | None:
    """The quote currency of `symbol` where it is known not to be a dollar, so that caps in dollars do not apply."""
    quote = quote_currency(symbol)
    return None if quote is None or quote in DOLLARS else quote


def unit_of(symbol: str) -> str:
    """The label of an amount of money in the quote currency of `symbol`: "USD", another currency, or `UNKNOWN_UNIT`."""
    quote = quote_currency(symbol)
    if quote is None:
        return UNKNOWN_UNIT
    return _DOLLAR_LABEL if quote in DOLLARS else quote


def common_unit(symbols: Iterable[str]) -> str:
    """The label of a sum over `symbols`: the unit that all of them have, `UNKNOWN_UNIT` where there is no such unit."""
    units = {unit_of(symbol) for symbol in symbols}
    return units.pop() if len(units) == 1 else UNKNOWN_UNIT


def amount(value: float, unit: str, plus: bool = False) -> str:
    """An amount of money with its currency, or a note that its currency is not known."""
    return f"{money(value, plus=plus)} {f'({unit})' if unit == UNKNOWN_UNIT else unit}"
