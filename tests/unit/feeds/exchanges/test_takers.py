"""The side of the taker, from every exchange: who is meant, what is no side, and that a mirrored one would be found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.unit.frames import ABSENT, ODD, check_file
from tradebot.core.events import BUY, SELL, Side, Tick
from tradebot.feeds.exchanges import EXCHANGES
from tradebot.feeds.exchanges.base import Exchange, ParsedFrame, opposite

TS = 1_700_000_000_123


class Protocol(NamedTuple):
    """A frame of one trade, the place of the side in it, and what is sent there when a BUY and when a SELL is taken.

    `before` is a frame that comes first on a connection.
    """

    exchange: str
    frame: Any
    place: tuple[str | int, ...]
    buy: object
    sell: object
    before: Any = None


def protocol(exchange: str, frame: Any, *place: str | int, buy: object = "buy", sell: object = "sell") -> Protocol:
    return Protocol(exchange, frame, place, buy, sell)


BINANCE = {"e": "trade", "s": "XYZUSDT", "t": 71, "p": "20.5", "q": "0.7", "T": TS}
COINBASE = {"product_id": "XYZ-USD", "trade_id": "41", "price": "2.25", "size": "0.3", "time": "2023-11-14T22:13:20Z"}
BITGET = {"action": "update", "arg": {"instType": "SPOT", "channel": "trade", "instId": "XYZUSDT"}}
BITGET_V3 = {"action": "update", "arg": {"instType": "spot", "topic": "publicTrade", "symbol": "XYZUSDT"}}
KUCOIN = {"symbol": "XYZ-USDT", "price": "2.25", "size": "3", "tradeId": "7", "time": str(TS * 1_000_000)}
KUCOIN_UNIFIED = {"s": "XYZ-USDT", "p": "2.25", "q": "3", "ti": "7", "M": str(TS * 1_000_000)}
PROTOCOLS = [
    # Whether the buyer is the maker.
    protocol("binance", BINANCE, "m", buy=False, sell=True),
    protocol("binance", BINANCE | {"e": "aggTrade", "a": 9}, "m", buy=False, sell=True),
    Protocol(
        "bitfinex",
        [7, "te", [1, TS, 0.5, 2.25]],
        (2, 2),
        0.5,
        -0.5,
        {"event": "subscribed", "channel": "trades", "chanId": 7, "symbol": "tXYZUSD"},
    ),
    protocol("bitget", BITGET | {"data": [[str(TS), "2.25", "3", ""]]}, "data", 0, 3),
    protocol("bitget", BITGET | {"data": [{"ts": TS, "price": "1", "size": "3", "tradeId": "7"}]}, "data", 0, "side"),
    protocol("bitget", BITGET_V3 | {"data": [{"T": TS, "p": "2.25", "v": "3", "i": "7"}]}, "data", 0, "S"),
    protocol(
        "bitstamp",
        {
            "event": "trade",
            "channel": "live_trades_xyzusd",
            "data": {"id": 7, "timestamp": "1700000000", "amount_str": "0.3", "price_str": "2.25"},
        },
        "data",
        "type",
        buy=0,
        sell=1,
    ),
    protocol(
        "bybit",
        {"topic": "publicTrade.XYZUSDT", "data": [{"T": TS, "s": "XYZUSDT", "v": "3", "p": "2.25", "i": "7"}]},
        "data",
        0,
        "S",
        buy="Buy",
        sell="Sell",
    ),
    # The maker's side.
    protocol(
        "coinbase",
        {"channel": "market_trades", "events": [{"type": "update", "trades": [COINBASE]}]},
        "events",
        0,
        "trades",
        0,
        "side",
        buy="SELL",
        sell="BUY",
    ),
    protocol("coinbase", {"type": "match", **COINBASE}, "side", buy="sell", sell="buy"),
    protocol(
        "crypto_com",
        {
            "method": "subscribe",
            "code": 0,
            "result": {
                "instrument_name": "XYZ_USD",
                "subscription": "trade.XYZ_USD",
                "channel": "trade",
                "data": [{"d": "7", "t": TS, "p": "2.25", "q": "3"}],
            },
        },
        "result",
        "data",
        0,
        "s",
        buy="BUY",
        sell="SELL",
    ),
    protocol(
        "gateio",
        {
            "channel": "spot.trades",
            "event": "update",
            "result": {"id": 7, "create_time_ms": str(TS), "currency_pair": "XYZ_USDT", "amount": "3", "price": "2.25"},
        },
        "result",
        "side",
    ),
    protocol(
        "gemini",
        {"type": "trade", "symbol": "XYZUSD", "price": "2.25", "quantity": "3", "tid": 7, "timestamp": TS},
        "side",
    ),
    protocol(
        "kraken",
        {
            "channel": "trade",
            "type": "update",
            "data": [
                {"symbol": "XYZ/USD", "price": 2.25, "qty": 3, "trade_id": 7, "timestamp": "2023-11-14T22:13:20Z"}
            ],
        },
        "data",
        0,
        "side",
    ),
    protocol("kraken", [7, [["2.25", "3", "1700000000.1", ""]], "trade", "XYZ/USD"], 1, 0, 3, buy="b", sell="s"),
    protocol(
        "kraken_futures",
        {
            "feed": "trade",
            "product_id": "PF_XYZUSD",
            "uid": "0c5a",
            "type": "fill",
            "seq": 41,
            "time": TS,
            "qty": 3,
            "price": 2.25,
        },
        "side",
    ),
    protocol("kucoin", {"topic": "/market/match:XYZ-USDT", "data": KUCOIN}, "data", "side"),
    protocol("kucoin", {"topic": "/contractMarket/execution:XYZUSDTM", "data": KUCOIN}, "data", "side"),
    protocol("kucoin", {"T": "trade.SPOT", "d": KUCOIN_UNIFIED}, "d", "S"),
    protocol("mockws", {"symbol": "XYZ/USD", "price": 2.25, "volume": 3.0, "ts": TS}, "taker", buy="BUY", sell="SELL"),
    protocol(
        "okx",
        {
            "arg": {"channel": "trades", "instId": "XYZ-USDT"},
            "data": [{"instId": "XYZ-USDT", "tradeId": "7", "px": "2.25", "sz": "3", "ts": str(TS)}],
        },
        "data",
        0,
        "side",
    ),
]
NAMES = [f"{each.exchange}-{n}" for n, each in enumerate(PROTOCOLS)]
RECORDED = {
    "binance": "binance_us", "bitfinex": "bitfinex", "bitstamp": "bitstamp", "bybit": "bybit", "coinbase": "coinbase",
    "gateio": "gateio", "gemini": "gemini", "kraken": "kraken", "kraken_futures": "kraken_futures", "okx": "okx",
}  # fmt: skip

New = Callable[[], Exchange]


def tick(new: New, spoken: Protocol, sent: object) -> Tick:
    """The tick of a frame in which the side is `sent`."""
    exchange, frame = new(), json.loads(json.dumps(spoken.frame))
    if spoken.before is not None:
        exchange.parse(json.dumps(spoken.before))
    inner = frame
    for key in spoken.place[:-1]:
        inner = inner[key]
    if sent != ABSENT or isinstance(inner, list):
        inner[spoken.place[-1]] = sent
    (found,) = exchange.parse(json.dumps(frame)).ticks
    return found


def check_sides(new: New, spoken: Protocol) -> None:
    takers = (tick(new, spoken, spoken.buy).taker, tick(new, spoken, spoken.sell).taker)
    assert takers == (BUY, SELL)


def mirrored(adapter: type[Exchange]) -> New:
    """An adapter that takes the maker for the taker."""

    def turned(found: list[Tick]) -> list[Tick]:
        return [replace(each, taker=opposite(each.taker)) for each in found]

    class Mirrored(adapter):  # type: ignore[misc, valid-type]
        def parse(self, text: str) -> ParsedFrame:
            parsed: ParsedFrame = super().parse(text)
            return replace(parsed, ticks=turned(parsed.ticks), history=turned(parsed.history))

    return Mirrored


@pytest.mark.parametrize("spoken", PROTOCOLS, ids=NAMES)
def test_the_taker_of_a_trade(spoken: Protocol) -> None:
    check_sides(EXCHANGES[spoken.exchange], spoken)


@pytest.mark.parametrize("spoken", PROTOCOLS, ids=NAMES)
def test_a_mirrored_side_is_found(spoken: Protocol) -> None:
    with pytest.raises(AssertionError):
        check_sides(mirrored(EXCHANGES[spoken.exchange]), spoken)


def test_every_exchange_is_here() -> None:
    assert {spoken.exchange for spoken in PROTOCOLS} == set(EXCHANGES)


@pytest.mark.parametrize("exchange", RECORDED)
def test_a_mirrored_side_is_found_in_recorded_frames(shared_data: Path, exchange: str) -> None:
    """By the comparison that each adapter's own test makes with the unchanged adapter."""
    with pytest.raises(AssertionError):
        check_file(mirrored(EXCHANGES[exchange]), shared_data, RECORDED[exchange])


@pytest.mark.parametrize("spoken", PROTOCOLS, ids=NAMES)
def test_what_is_no_side_is_none_and_the_trade_is_good(spoken: Protocol) -> None:
    """A value that the adapter does not know counts like a missing one."""
    if spoken.exchange == "bitfinex":
        return  # the side is the sign of the amount, without which there is no trade
    without = replace(tick(EXCHANGES[spoken.exchange], spoken, spoken.buy), taker=None)
    for odd in (*ODD, ABSENT, "auction", "UNKNOWN", "buyer", "0", 2, 0.0, "bid"):
        if type(odd) is not type(spoken.buy) or odd not in (spoken.buy, spoken.sell):
            assert tick(EXCHANGES[spoken.exchange], spoken, odd) == without, odd


@given(amount=st.floats(-1e9, 1e9))
def test_the_sign_of_an_amount_of_bitfinex(amount: float) -> None:
    spoken = next(each for each in PROTOCOLS if each.exchange == "bitfinex")
    found = tick(EXCHANGES["bitfinex"], spoken, amount)
    expected: Side | None = BUY if amount > 0 else SELL if amount < 0 else None
    assert (found.volume, found.taker) == (abs(amount), expected)


@pytest.mark.parametrize("word", ["buy", "BUY", "Buy"])
def test_words_are_read_in_any_case(word: str) -> None:
    spoken = next(each for each in PROTOCOLS if each.exchange == "okx")
    assert tick(EXCHANGES["okx"], spoken, word).taker == BUY
