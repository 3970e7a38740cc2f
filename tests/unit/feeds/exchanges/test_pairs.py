"""What each adapter says of real symbols: base and quote, which count in contracts, which are inverse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradebot.core.currencies import CURRENCIES, Pair
from tradebot.feeds.exchanges import EXCHANGES, NAMES


def inverse(base: str) -> Pair:
    return Pair(base, "USD", contracts=True, inverse=True)


PAIRS: dict[str, dict[str, Pair | None]] = {
    "binance": {
        "BTCUSDT": Pair("BTC", "USDT"), "BNBBTC": Pair("BNB", "BTC"), "LRCBTC": Pair("LRC", "BTC"),
        "OMGBUSD": Pair("OMG", "BUSD"), "NKNUSDT": Pair("NKN", "USDT"), "BTCFDUSD": Pair("BTC", "FDUSD"),
        "WBTCETH": Pair("WBTC", "ETH"), "USDTTRY": Pair("USDT", "TRY"), "1000SHIBUSDT": Pair("1000SHIB", "USDT"),
        "BTCUSD": Pair("BTC", "USD"), "BTCUSDT_240628": Pair("BTC", "USDT"), "ETHUSDC": Pair("ETH", "USDC"),
        "BTCUSD_PERP": inverse("BTC"), "ETHUSD_240628": inverse("ETH"), "???": None,
    },
    "bitfinex": {
        "tBTCUSD": Pair("BTC", "USD"), "tMNABTC": Pair("MNA", "BTC"), "tIOTETH": Pair("IOT", "ETH"),
        "tBTCUST": Pair("BTC", "USDT"), "tDUSK:USD": Pair("DUSK", "USD"), "tBTCF0:USTF0": Pair("BTC", "USDT"),
        "tLINK:UST": Pair("LINK", "USDT"), "tDSHBTC": Pair("DASH", "BTC"), "tXAUT:XYZ": None, "fUSD": None,
    },
    "bitget": {
        "BTCUSDT": Pair("BTC", "USDT"), "ETHBTC": Pair("ETH", "BTC"), "USDT-FUTURES:BTCUSDT": Pair("BTC", "USDT"),
        "USDC-FUTURES:BTCPERP": Pair("BTC", "USDC"), "COIN-FUTURES:BTCUSD": inverse("BTC"),
        "COIN-FUTURES:ETHUSDH25": inverse("ETH"), "MC:BTCUSDT": Pair("BTC", "USDT"), "MC:BTCUSD": inverse("BTC"),
    },
    "bitstamp": {
        "btcusd": Pair("BTC", "USD"), "ethusd": Pair("ETH", "USD"), "ethbtc": Pair("ETH", "BTC"),
        "xrpeur": Pair("XRP", "EUR"), "btcusdt": Pair("BTC", "USDT"), "btcusd-perp": Pair("BTC", "USD"),
    },
    "bybit": {
        "BTCUSDT": Pair("BTC", "USDT"), "ETHBTC": Pair("ETH", "BTC"), "BTCUSDC": Pair("BTC", "USDC"),
        "BTCPERP": Pair("BTC", "USDC"), "BTC-27DEC24": Pair("BTC", "USDC"), "BTCUSDT-27DEC24": Pair("BTC", "USDT"),
        "BTCUSD": inverse("BTC"), "BTCUSDH25": inverse("BTC"), "DOGEUSDT": Pair("DOGE", "USDT"),
    },
    "coinbase": {
        "BTC-USD": Pair("BTC", "USD"), "DASH-BTC": Pair("DASH", "BTC"), "NMR-EUR": Pair("NMR", "EUR"),
        "BTC-PERP-INTX": Pair("BTC", "USDC"), "BIT-28JUN24-CDE": Pair(None, "USD", contracts=True),
    },
    "crypto_com": {
        "BTC_USD": Pair("BTC", "USD"), "CRO_USDT": Pair("CRO", "USDT"), "BTCUSD-PERP": Pair("BTC", "USD"),
        "ETHUSD-240628": Pair("ETH", "USD"),
    },
    "gateio": {
        "NEO_BTC": Pair("NEO", "BTC"), "DIS_USDT": Pair("DIS", "USDT"), "ZKS_ETH": Pair("ZKS", "ETH"),
        "GT_USDT": Pair("GT", "USDT"),
    },
    "gemini": {
        "BTCUSD": Pair("BTC", "USD"), "ETHUSDT": Pair("ETH", "USDT"), "BTCEUR": Pair("BTC", "EUR"),
        "SOLUSDCPERP": Pair("SOL", "USDC"), "BTCGUSDPERP": Pair("BTC", "GUSD"), "ETHBTC": Pair("ETH", "BTC"),
    },
    "kraken": {
        "BTC/USD": Pair("BTC", "USD"), "XBT/USD": Pair("BTC", "USD"), "SC/EUR": Pair("SC", "EUR"),
        "ETH/XBT": Pair("ETH", "BTC"),
    },
    "kraken_futures": {
        "PF_XBTUSD": Pair("BTC", "USD"), "FF_XBTUSD_240628": Pair("BTC", "USD"), "PI_ETHUSD": inverse("ETH"),
        "PI_XBTUSD": inverse("BTC"), "FI_XBTUSD_210730": inverse("BTC"), "FI_BCHUSD_210924": inverse("BCH"),
        "pi_xbtusd": inverse("BTC"), "in_xbtusd": None,
    },
    "kucoin": {
        "BTC-USDT": Pair("BTC", "USDT"), "ETH-BTC": Pair("ETH", "BTC"),
        "XBTUSDTM": Pair("BTC", "USDT", contracts=True), "ETHUSDCM": Pair("ETH", "USDC", contracts=True),
        "XBTUSDM": inverse("BTC"), "XBTMH25": inverse("BTC"), "XBTUSDT": None,
    },
    "mockws": {"SOL/USDC": Pair("SOL", "USDC"), "BTCUSDT": None},
    "okx": {
        "BTC-USDT": Pair("BTC", "USDT"), "BTC-USD": Pair("BTC", "USD"),
        "BTC-USDT-SWAP": Pair("BTC", "USDT", contracts=True), "BTC-USDT-220325": Pair("BTC", "USDT", contracts=True),
        "BTC-USD-220325": inverse("BTC"), "UNI-USD-SWAP": inverse("UNI"), "BTC-USD-240628-50000-C": inverse("BTC"),
        "BTC-USD_UM-SWAP": Pair("BTC", "USD", contracts=True),
    },
}  # fmt: skip


def test_every_adapter_is_here() -> None:
    assert set(PAIRS) == set(NAMES)


@pytest.mark.parametrize(("name", "symbol"), [(name, symbol) for name, symbols in PAIRS.items() for symbol in symbols])
def test_pairs_of_real_symbols(name: str, symbol: str) -> None:
    assert EXCHANGES[name].pair(symbol) == PAIRS[name][symbol]


def test_the_market_of_the_endpoint_decides_where_the_symbol_does_not() -> None:
    bybit = EXCHANGES["bybit"]
    assert bybit.pair("BTCUSD", "inverse") == inverse("BTC")
    assert bybit.pair("BTC-27DEC24-50000-C", "option") is None


@given(st.sampled_from(NAMES), st.text(max_size=64))
def test_any_text_is_a_pair_or_none(name: str, symbol: str) -> None:
    pair = EXCHANGES[name].pair(symbol)
    assert pair is None or (pair.quote in CURRENCIES and pair.base != "" and (pair.contracts or not pair.inverse))
