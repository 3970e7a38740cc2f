"""Currencies: those that exchanges quote in, and the one that the form of a symbol names.

`ETH/BTC`, `BTC-EUR` and `BTC_KRW` name their quote currency; `BTCUSDT`, `BTCUSD_PERP` and `PI_ETHUSD` do not, because
they do not show where the base ends. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from tradebot.core.number_format import money

ACCOUNT_CURRENCY: Final = "USD"
"""What balances, caps and sums are in."""

DOLLARS: Final = frozenset({"USD", "USDT", "USDC", "DAI", "FDUSD", "PYUSD", "TUSD"})
"""Counted 1:1 as US dollars unless [rates] says otherwise."""

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
"""The label of an amount whose currency is not known."""

_SEPARATORS: Final = str.maketrans("-_", "//")


_ALIASES: Final = {"XBT": "BTC", "XDG": "DOGE"}
"""The names that some exchanges have for a currency, with the usual name."""


def currency_name(name: str) -> str:
    """The usual name of a currency: XBT is BTC."""
    return _ALIASES.get(name, name)


class Pair(NamedTuple):
    """What a symbol trades (None where that is not known) and the currency of its prices (likewise).

    `contracts`: quantities are numbers of contracts, whose size the symbol does not say. `inverse`: these are settled
    in the base currency.
    """

    base: str | None
    quote: str | None
    contracts: bool = False
    inverse: bool = False


def pair_of_form(symbol: str) -> Pair | None:
    """Base and quote in capitals as the form of `symbol` names them; None where it names none.

    The form is BASE/QUOTE, BASE-QUOTE or BASE_QUOTE, behind an optional market (`USDT-FUTURES:`), with a QUOTE of
    `CURRENCIES`.
    """
    parts = symbol.rpartition(":")[2].upper().translate(_SEPARATORS).split("/")
    if len(parts) != 2 or not parts[0] or parts[1] not in CURRENCIES:
        return None
    return Pair(currency_name(parts[0]), currency_name(parts[1]))


def pair_of_joined(joined: str, quotes: Iterable[str] = ()) -> Pair | None:
    """Base and quote of a symbol without a separator, such as BTCUSDT: the longest of `quotes` that it ends with.

    `quotes` are those of an exchange; empty: every currency that is known. For adapters, which know that their
    symbols have this form.
    """
    name = joined.upper()
    known = CURRENCIES.intersection(quotes) if quotes else CURRENCIES
    found = max((quote for quote in known if name.endswith(quote) and name != quote), key=len, default=None)
    return None if found is None else Pair(name.removesuffix(found), found)


class RateProblem(NamedTuple):
    """A currency whose rate makes no sense, and why."""

    currency: str
    text: str


def rate_problems(symbols: Mapping[str, str], pair_of: Callable[[str], Pair | None]) -> list[RateProblem]:
    """What is wrong with rates that are prints: `symbols` by currency.

    The symbol is no price of its currency, or rates depend on each other in a circle, which is reported once.
    """
    found: list[RateProblem] = []
    reported: set[str] = set()
    for currency, symbol in symbols.items():
        pair = pair_of(symbol) or Pair(None, None)
        if symbol.upper() == currency:
            text = f"{symbol} is the currency itself: name a market, such as {currency}/{ACCOUNT_CURRENCY}"
            found.append(RateProblem(currency, text))
        elif pair.base is not None and currency_name(pair.base) != currency_name(currency):
            found.append(RateProblem(currency, f"{symbol} is a price of {pair.base}, not of {currency}"))
        elif currency not in reported:
            circle = _circle(currency, symbols, pair_of)
            if circle:
                reported.update(circle)
                found.append(RateProblem(currency, f"depends on itself: {' -> '.join(circle)}"))
    return found


def _circle(currency: str, symbols: Mapping[str, str], pair_of: Callable[[str], Pair | None]) -> list[str]:
    """The currencies whose rates `currency` needs, up to the first that is needed twice; empty without a circle."""
    chain = [currency]
    while (symbol := symbols.get(chain[-1])) is not None:
        quote = (pair_of(symbol) or Pair(None, None)).quote
        if quote is None:
            return []
        chain.append(quote)
        if quote in chain[:-1]:
            return chain
    return []


def unit_of(currency: str | None) -> str:
    """The label of an amount in `currency`: its name, or `UNKNOWN_UNIT`."""
    return UNKNOWN_UNIT if currency is None else currency


def amount(value: float, unit: str, plus: bool = False) -> str:
    """An amount of money with its currency, or a note that its currency is not known."""
    return f"{money(value, plus=plus)} {f'({unit})' if unit == UNKNOWN_UNIT else unit}"
