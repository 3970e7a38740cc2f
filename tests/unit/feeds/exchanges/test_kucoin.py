"""KuCoin frames, classic and unified, written by hand after its documentation (there are no recorded ones)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.frames import frames_like
from tradebot.core.events import BUY, SELL, Tick
from tradebot.feeds.exchanges.base import HEARTBEAT, IGNORED, ParsedFrame, Unparseable
from tradebot.feeds.exchanges.kucoin import KuCoin

SPOT_TICK = Tick("SOL-USDT", 151.25, 2.5, 1_754_000_000_123, "77001", taker=BUY)
FUTURES_TICK = Tick("SOLUSDTM", 151.25, 3.0, 1_754_000_000_123, "77001", taker=SELL)


def spot(**other: object) -> dict[str, Any]:
    data = {
        "makerOrderId": "a1", "takerOrderId": "b2", "price": "151.25", "sequence": "77001", "side": "buy",
        "size": "2.50", "symbol": "SOL-USDT", "time": "1754000000123999999", "tradeId": "77001", "type": "match",
    }  # fmt: skip
    return {"topic": "/market/match:SOL-USDT", "type": "message", "subject": "trade.l3match", "data": data | other}


def futures(**other: object) -> dict[str, Any]:
    data = {
        "symbol": "SOLUSDTM", "sequence": 77001, "side": "sell", "size": 3, "price": "151.25", "takerOrderId": "1",
        "makerOrderId": "2", "tradeId": "77001", "ts": 1754000000123999999,
    }  # fmt: skip
    return {
        "topic": "/contractMarket/execution:SOLUSDTM", "type": "message", "subject": "match", "sn": 77001,
        "data": data | other,
    }  # fmt: skip


def unified(market: str = "SPOT", **other: object) -> dict[str, Any]:
    data = {
        "E": "77001", "M": "1754000000123999999", "S": "buy", "p": "151.25", "q": "2.50", "s": "SOL-USDT",
        "ti": "77001",
    }  # fmt: skip
    return {"T": f"trade.{market}", "P": "1754000000133000000", "d": data | other}


def parse(frame: object) -> ParsedFrame:
    return KuCoin().parse(json.dumps(frame))


def test_a_trade_of_each_api_with_its_time_cut_down_to_milliseconds() -> None:
    assert parse(spot()) == ParsedFrame("trades", [SPOT_TICK])
    assert parse(futures()) == ParsedFrame("trades", [FUTURES_TICK])
    assert parse(unified()) == ParsedFrame("trades", [SPOT_TICK])
    numbers = unified("FUTURES", M=1754000000123999999, ti=77001, s="SOLUSDTM", q="3", S="sell")
    assert parse(numbers) == ParsedFrame("trades", [FUTURES_TICK])


def test_futures_of_old_name_the_traded_size_and_the_time_otherwise() -> None:
    old = futures(matchSize=3, size=40, time=1754000000123000000)
    del old["data"]["ts"], old["type"]
    assert parse(old) == ParsedFrame("trades", [FUTURES_TICK])


def test_a_topic_without_a_subject_is_what_its_name_says() -> None:
    frame = spot()
    del frame["subject"]
    assert parse(frame) == ParsedFrame("trades", [SPOT_TICK])


def test_sequences_are_not_taken_for_numbers_of_trades() -> None:
    assert [parse(frame).ticks[0].seq for frame in (spot(), futures(), unified())] == [None] * 3


def test_welcome_acks_pongs_and_refusals() -> None:
    assert parse({"id": "tradebot", "type": "welcome"}) == IGNORED
    assert parse({"sessionId": "x", "message": "welcome", "pingInterval": 18000}) == IGNORED
    assert parse({"id": "1", "type": "pong", "timestamp": 1754000000123}) == HEARTBEAT
    assert parse({"id": "1", "type": "ack"}) == ParsedFrame("ack")
    assert parse({"id": "1", "result": True}) == ParsedFrame("ack")
    refusal = parse({"id": "1", "type": "error", "code": 404, "data": "topic /market/match:XX is not found"})
    assert refusal == ParsedFrame("error", detail='{"code":404,"data":"topic /market/match:XX is not found"}')
    assert parse({"id": "1", "result": False, "message": "no such channel"}).kind == "error"


@pytest.mark.parametrize(
    "frame",
    [
        {"topic": "/market/level2:SOL-USDT", "type": "message", "subject": "trade.l2update", "data": {}},
        {"topic": "/market/ticker:SOL-USDT", "type": "message", "subject": "trade.ticker", "data": {"price": "1"}},
        {"topic": "/market/candles:SOL-USDT_1min", "subject": "trade.candles.update", "data": {}},
        {"topic": "/contractMarket/tickerV2:SOLUSDTM", "subject": "tickerV2", "data": {}},
        {"topic": "/contractMarket/execution:SOLUSDTM", "subject": "something", "data": {}},
        {"topic": "/market/match", "subject": "trade.l3match"},
        {"T": "ticker.SPOT", "d": {}}, {"T": "obu.SPOT", "d": {}}, {"T": 3}, {"topic": None}, {}, [], 1, None, "pong",
    ],
)  # fmt: skip
def test_other_frames_are_ignored(frame: object) -> None:
    assert parse(frame) == IGNORED


@pytest.mark.parametrize(
    ("make", "inner", "keys"),
    [
        (spot, "data", ("symbol", "price", "size", "time", "tradeId")),
        (futures, "data", ("symbol", "price", "size", "ts", "tradeId")),
        (unified, "d", ("s", "p", "q", "M", "ti")),
    ],
)
def test_a_trade_without_a_field_cannot_be_understood(make: Any, inner: str, keys: tuple[str, ...]) -> None:
    for key in keys:
        missing = make()
        del missing[inner][key]
        for frame in (missing, make(**{key: None}), make(**{key: []}), make() | {inner: [make()[inner]]}):
            with pytest.raises(Unparseable):
                parse(frame)


def test_text_that_is_no_json() -> None:
    for text in ("", "pong", "{"):
        with pytest.raises(Unparseable):
            KuCoin().parse(text)


def requests(url: str, symbols: list[str]) -> list[dict[str, Any]]:
    exchange = KuCoin()
    assert exchange.connection_url(url, symbols) == url
    return [json.loads(text) for text in exchange.subscriptions(symbols)]


def test_classic_subscriptions_of_a_hundred_symbols_each() -> None:
    spots, contracts = [f"S{n}-USDT" for n in range(150)], [f"S{n}USDTM" for n in range(3)]
    found = requests(KuCoin.url, [*contracts, *spots])
    assert [request["topic"] for request in found] == [
        f"/market/match:{','.join(spots[:100])}",
        f"/market/match:{','.join(spots[100:])}",
        f"/contractMarket/execution:{','.join(contracts)}",
    ]
    rest = {"type": "subscribe", "privateChannel": False, "response": True}
    assert [{key: request[key] for key in rest} for request in found] == [rest] * 3
    assert len({request["id"] for request in found}) == 3
    assert KuCoin().subscriptions([]) == []


def test_unified_subscriptions_one_for_each_symbol() -> None:
    assert requests("wss://x-push-futures.kucoin.com", ["SOLUSDTM", "XBTUSDTM"]) == [
        {"id": "1", "action": "subscribe", "channel": "trade", "tradeType": "FUTURES", "symbol": "SOLUSDTM"},
        {"id": "2", "action": "subscribe", "channel": "trade", "tradeType": "FUTURES", "symbol": "XBTUSDTM"},
    ]
    assert requests("wss://x-push-spot.kucoin.com/", ["SOL-USDT"])[0]["tradeType"] == "SPOT"


def test_each_ping_has_an_id_of_its_own() -> None:
    exchange = KuCoin()
    pings = [json.loads(exchange.keepalive() or "") for _ in range(2)]
    assert pings == [{"id": "1", "type": "ping"}, {"id": "2", "type": "ping"}]


@pytest.mark.parametrize(
    ("url", "token_url"),
    [
        (KuCoin.url, "https://api.kucoin.com/api/v1/bullet-public"),
        ("wss://ws-api-futures.kucoin.com/", "https://api-futures.kucoin.com/api/v1/bullet-public"),
        ("wss://x-push-spot.kucoin.com", None),
        ("wss://x-push-futures.kucoin.com", None),
        ("ws://127.0.0.1:9001", None),
        ("wss://kucoin.com.example.org", None),
    ],
)
def test_the_address_says_whether_and_where_a_token_is_asked_for(url: str, token_url: str | None) -> None:
    exchange = KuCoin()
    exchange.connection_url(url, [])
    assert exchange.token_url == token_url
    assert KuCoin.token_url == KuCoin().token_url == "https://api.kucoin.com/api/v1/bullet-public"


def answer(token: object = "2neA_x-==.rI&A", endpoint: object = "wss://ws-9.kucoin.com/endpoint") -> dict[str, Any]:
    server = {
        "endpoint": endpoint,
        "encrypt": True,
        "protocol": "websocket",
        "pingInterval": 18000,
        "pingTimeout": 10000,
    }
    return {"code": "200000", "data": {"token": token, "instanceServers": [server]}}


def test_the_token_goes_to_the_server_that_the_answer_names() -> None:
    url = KuCoin().url_with_token(KuCoin.url, json.dumps(answer()))
    assert url == "wss://ws-9.kucoin.com/endpoint?token=2neA_x-%3D%3D.rI%26A&connectId=tradebot"
    url = KuCoin().url_with_token(KuCoin.url.rstrip("/"), json.dumps(answer(endpoint="wss://h/?a=1")))
    assert url == "wss://h/?a=1&token=2neA_x-%3D%3D.rI%26A&connectId=tradebot"


def test_another_address_than_the_default_one_is_kept() -> None:
    url = KuCoin().url_with_token("ws://127.0.0.1:9001/x", json.dumps(answer("t", None)))
    assert url == "ws://127.0.0.1:9001/x?token=t&connectId=tradebot"


def test_a_refused_token_names_the_code() -> None:
    with pytest.raises(Unparseable, match=r"^no token, code 429000$"):
        KuCoin().url_with_token(KuCoin.url, '{"code":"429000","msg":"too many requests"}')


@pytest.mark.parametrize(
    "text",
    [
        "", "<html>", "[]", "null", '{"code":"429000","msg":"too many"}', '{"data":[]}', '{"data":{"token":"t"}}',
        '{"data":{"token":"t","instanceServers":[]}}', '{"data":{"token":"t","instanceServers":[3]}}',
        json.dumps(answer(token=3)), json.dumps(answer(token="")), json.dumps(answer(endpoint=None)),
        json.dumps(answer(endpoint="ws://plain")), json.dumps(answer(endpoint="wss://h/\n")),
    ],
)  # fmt: skip
def test_an_answer_without_a_token_is_refused(text: str) -> None:
    with pytest.raises(Unparseable):
        KuCoin().url_with_token(KuCoin.url, text)


# Frames of every kind, which test_any_text.py breaks.
SAMPLES = [json.dumps(frame) for frame in (
    spot(), futures(), unified(), {"id": "1", "type": "error", "code": 404, "data": "x"}, {"id": "1", "result": True},
)]  # fmt: skip


@given(text=st.one_of(frames_like([json.dumps(answer())]), st.text()))
def test_no_answer_raises_anything_else(text: str) -> None:
    try:
        url = KuCoin().url_with_token(KuCoin.url, text)
    except Unparseable as error:
        assert str(error).isprintable()
    else:
        assert url.startswith("wss://") and "token=" in url and url.isprintable()
