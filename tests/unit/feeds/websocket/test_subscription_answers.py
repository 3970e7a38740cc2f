"""Which symbols an exchange's answer is about, and what exchanges announce: every adapter, by its own frames."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradebot.feeds.exchanges import EXCHANGES
from tradebot.feeds.exchanges.asked import PendingSubscriptions, SubscriptionRefusal
from tradebot.feeds.exchanges.base import Announcement, Exchange, ParsedFrame

BYBIT_SYMBOLS = [f"S{number}USDT" for number in range(9)] + ["TYPOUSDT", "LINKUSDT", "UNIUSDT"]
SAID_BY_BYBIT: dict[str, Any] = {"success": True, "ret_msg": "", "conn_id": "x", "req_id": "", "op": "subscribe"}


def asked(name: str, *symbols: str) -> Exchange:
    """An adapter that has subscribed to `symbols`."""
    exchange = EXCHANGES[name]()
    exchange.connection_url(exchange.url, symbols)
    assert exchange.subscriptions(symbols)
    return exchange


def answer(exchange: Exchange, frame: dict[str, Any]) -> ParsedFrame:
    return exchange.parse(json.dumps(frame))


class TestAsked:
    def test_answers_in_order_confirm_message_after_message(self) -> None:
        waiting = PendingSubscriptions()
        assert [waiting.add(["A", "B"]), waiting.add(["C"])] == ["1", "2"]
        assert [waiting.confirm(), waiting.confirm(), waiting.confirm()] == [("A", "B"), ("C",), ()]

    def test_a_number_finds_its_message_and_an_unknown_one_none(self) -> None:
        waiting = PendingSubscriptions()
        waiting.add(["A"])
        waiting.add(["B"])
        assert [waiting.confirm("2"), waiting.confirm("2"), waiting.confirm("7")] == [("B",), (), ()]

    def test_a_named_symbol_is_refused_and_the_others_are_asked_for_alone(self) -> None:
        waiting = PendingSubscriptions()
        waiting.add(["A", "B", "C"])
        assert waiting.refuse("no such topic: trade.B") == SubscriptionRefusal(("B",), ("A", "C"))

    def test_the_name_finds_the_message(self) -> None:
        waiting = PendingSubscriptions()
        waiting.add(["A"])
        waiting.add(["B"])
        assert waiting.refuse("trade.b: unknown") == SubscriptionRefusal(("B",))
        assert waiting.confirm() == ("A",)

    def test_no_part_of_a_longer_symbol_is_taken_for_its_name(self) -> None:
        waiting = PendingSubscriptions()
        waiting.add(["BTC", "BTC-USD", "BTC-USD-SWAP"])
        assert waiting.refuse("instId:BTC-USD doesn't exist").refused == ("BTC-USD",)

    def test_words_that_name_none_or_all_leave_all_to_be_asked_for_alone(self) -> None:
        for words in ("bad request", "A,B: bad request"):
            waiting = PendingSubscriptions()
            waiting.add(["A", "B"])
            assert waiting.refuse(words) == SubscriptionRefusal((), ("A", "B"))

    def test_what_was_answered_by_name_is_not_asked_for_again(self) -> None:
        waiting = PendingSubscriptions()
        waiting.add(["A", "B", "C"])
        waiting.settle(["a"])
        assert waiting.refuse("bad request") == SubscriptionRefusal((), ("B", "C"))
        assert waiting.refuse("bad request") == SubscriptionRefusal()

    @given(st.lists(st.lists(st.sampled_from("ABCDEF"), min_size=1, max_size=4, unique=True), max_size=4), st.text())
    def test_a_refusal_is_of_one_message_and_leaves_out_none_of_it(self, messages: list[list[str]], words: str) -> None:
        waiting = PendingSubscriptions()
        for symbols in messages:
            waiting.add(symbols)
        refusal = waiting.refuse(words)
        whole = sorted(refusal.refused + refusal.ask_alone)
        assert whole in [sorted(symbols) for symbols in messages] if messages else whole == []


def test_bybit_refuses_a_whole_message_for_one_topic_that_it_names() -> None:
    exchange = asked("bybit", *BYBIT_SYMBOLS)
    words = "error:handler not found,topic:publicTrade.TYPOUSDT"
    refusal = answer(exchange, {**SAID_BY_BYBIT, "success": False, "ret_msg": words})
    assert (refusal.refused, refusal.ask_alone) == (("TYPOUSDT",), tuple(BYBIT_SYMBOLS[:9]))
    assert answer(exchange, SAID_BY_BYBIT).confirmed == ("LINKUSDT", "UNIUSDT")
    assert exchange.subscriptions(["S1USDT"]) == ['{"op":"subscribe","args":["publicTrade.S1USDT"]}']
    assert answer(exchange, SAID_BY_BYBIT).confirmed == ("S1USDT",)


def test_bybits_answers_in_order_where_nothing_is_named() -> None:
    exchange = asked("bybit", *BYBIT_SYMBOLS)
    assert answer(exchange, SAID_BY_BYBIT).confirmed == tuple(BYBIT_SYMBOLS[:10])
    refusal = answer(exchange, {**SAID_BY_BYBIT, "success": False, "ret_msg": "request too fast"})
    assert (refusal.refused, refusal.ask_alone) == ((), ("LINKUSDT", "UNIUSDT"))


def test_numbered_answers() -> None:
    binance = asked("binance", "BTCUSDT", "NO/NE")
    invalid = {"error": {"code": 2, "msg": "Invalid request"}, "id": 1}
    assert answer(binance, invalid).ask_alone == ("BTCUSDT", "NO/NE")
    [alone] = binance.subscriptions(["BTCUSDT"])
    assert json.loads(alone)["id"] == 2, "a number is used once"
    assert answer(binance, {"result": None, "id": 2}).confirmed == ("BTCUSDT",)

    kucoin = asked("kucoin", "BTC-USDT", "XX-USDT", "XBTUSDTM")
    gone = {"id": "1", "type": "error", "code": 404, "data": "topic /market/match:XX-USDT is not found"}
    refusal = answer(kucoin, gone)
    assert (refusal.refused, refusal.ask_alone) == (("XX-USDT",), ("BTC-USDT",))
    assert answer(kucoin, {"id": "2", "type": "ack"}).confirmed == ("XBTUSDTM",)

    crypto_com = asked("crypto_com", "BTC_USDT", "NO_NE")
    refusal = answer(crypto_com, {"id": 1, "method": "subscribe", "code": 40003, "message": "Unknown symbol"})
    assert refusal.ask_alone == ("BTC_USDT", "NO_NE")


@pytest.mark.parametrize(
    ("name", "symbols", "frame", "refused", "ask_alone"),
    [
        ("kraken", ["BTC/USD", "XBT/USDC"],
         {"error": "Currency pair not supported XBT/USDC", "method": "subscribe", "success": False,
          "symbol": "XBT/USDC"}, ("XBT/USDC",), ()),
        ("bitfinex", ["tBTCUSD", "tNOUSD"],
         {"event": "error", "channel": "trades", "symbol": "tNOUSD", "msg": "symbol: invalid", "code": 10300},
         ("tNOUSD",), ()),
        ("bitget", ["BTCUSDT", "NOUSDT"],
         {"event": "error", "code": 30001, "msg": "doesn't exist",
          "arg": {"instType": "SPOT", "channel": "trade", "instId": "NOUSDT"}}, ("NOUSDT",), ()),
        ("bitget", ["USDT-FUTURES:NOUSDT"],
         {"event": "error", "code": 30001, "msg": "doesn't exist",
          "arg": {"instType": "USDT-FUTURES", "channel": "trade", "instId": "NOUSDT"}}, ("USDT-FUTURES:NOUSDT",), ()),
        ("bitget", ["BTCUSDT", "NOUSDT"], {"event": "error", "code": 30001, "msg": "instId:NOUSDT doesn't exist"},
         ("NOUSDT",), ("BTCUSDT",)),
        ("bitstamp", ["btcusd", "nousd"],
         {"event": "bts:error", "channel": "live_trades_nousd", "data": {"message": "Bad subscription string."}},
         ("nousd",), ()),
        ("coinbase", ["BTC-USD", "NO-NE"],
         {"type": "error", "message": "Failed to subscribe", "reason": "NO-NE is not a valid product"},
         ("NO-NE",), ("BTC-USD",)),
        ("gateio", ["BTC_USDT", "NO_NO"],
         {"channel": "spot.trades", "event": "subscribe", "error": {"code": 2, "message": "unknown pair NO_NO"}},
         ("NO_NO",), ("BTC_USDT",)),
        ("gemini", ["BTCUSD", "NOUSD"], {"result": "error", "reason": "InvalidSymbol", "message": "NOUSD"},
         ("NOUSD",), ("BTCUSD",)),
        ("kraken_futures", ["PF_XBTUSD", "PF_NO"], {"event": "alert", "message": "Bad request"},
         (), ("PF_XBTUSD", "PF_NO")),
        ("okx", ["BTC-USDT", "NO-USDT"],
         {"event": "error", "code": "60018", "msg": "Wrong URL or channel:trades,instId:NO-USDT doesn't exist."},
         ("NO-USDT",), ("BTC-USDT",)),
    ],
)  # fmt: skip
def test_a_refusal_names_its_symbols(
    name: str, symbols: list[str], frame: dict[str, Any], refused: tuple[str, ...], ask_alone: tuple[str, ...]
) -> None:
    parsed = answer(asked(name, *symbols), frame)
    assert (parsed.kind, parsed.refused, parsed.ask_alone) == ("error", refused, ask_alone)


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("bybit", {"op": "auth", "success": False, "retMsg": "Invalid key"}),
        ("okx", {"event": "error", "code": "60014", "msg": "Requests too frequent."}),
        ("kraken", {"error": "Exceeded msg rate"}),
        ("gateio", {"channel": "spot.book", "event": "subscribe", "error": {"code": 2, "message": "BTC_USDT"}}),
        ("bitfinex", {"event": "error", "channel": "trades", "symbol": "tBTCUSD", "code": 10301, "msg": "dup"}),
    ],
)
def test_an_error_about_something_else_refuses_no_symbol(name: str, frame: dict[str, Any]) -> None:
    parsed = answer(asked(name, "tBTCUSD"), frame)
    assert (parsed.kind, parsed.refused, parsed.ask_alone) == ("error", (), ())


@pytest.mark.parametrize(
    ("name", "frame", "words", "reconnect"),
    [
        ("binance", {"e": "serverShutdown", "E": 1}, "serverShutdown", True),
        ("binance", {"stream": "", "data": {"e": "serverShutdown", "E": 1}}, "serverShutdown", True),
        ("binance", {"event": {"e": "serverShutdown", "E": 1}}, "serverShutdown", True),
        ("bitfinex", {"event": "info", "code": 20051, "msg": "Stopping"}, "Stopping", True),
        ("bitfinex", {"event": "info", "code": 20060, "msg": "Maintenance"}, "Maintenance", False),
        ("bitfinex", {"event": "info", "code": 20061, "msg": "Maintenance ended"}, "ended", True),
        ("bitfinex", {"event": "info", "version": 2, "platform": {"status": 0}}, "maintenance", False),
        ("bitstamp", {"event": "bts:request_reconnect", "channel": "", "data": ""}, "request_reconnect", True),
        ("gateio", {"type": "service_upgrade", "msg": "The connection will be closed."}, "closed", True),
        ("gateio", {"channel": "spot.system", "event": "update", "result": {"type": "upgrade", "msg": "soon"}},
         "soon", True),
        ("kraken", {"channel": "status", "type": "update", "data": [{"system": "maintenance"}]}, "maintenance", False),
        ("kraken", {"event": "systemStatus", "status": "post_only"}, "post_only", False),
        ("okx", {"event": "notice", "code": "64008", "msg": "closed for a service upgrade"}, "upgrade", True),
        ("okx", {"event": "notice", "code": "1", "msg": "News"}, "News", False),
    ],
)  # fmt: skip
def test_what_an_exchange_announces(name: str, frame: dict[str, Any], words: str, reconnect: bool) -> None:
    parsed = answer(EXCHANGES[name](), frame)
    assert parsed.kind == "announcement" and isinstance(parsed.announcement, Announcement)
    assert words in parsed.announcement.text and parsed.announcement.reconnect == reconnect


def test_krakens_good_status_is_news_only_after_a_bad_one() -> None:
    exchange = EXCHANGES["kraken"]()

    def status(value: str) -> ParsedFrame:
        return answer(exchange, {"channel": "status", "type": "update", "data": [{"system": value}]})

    kinds = [status(value).kind for value in ("online", "maintenance", "online", "online")]
    assert kinds == ["ignored", "announcement", "announcement", "ignored"]
