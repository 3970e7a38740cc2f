"""The behaviour of exchanges in public bug reports, as functions for `live_peers.ExchangeServer`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from tests.e2e.live import now_ms
from tests.e2e.live_peers import Talk

START_MS: Final = 1_760_400_000_000
DAY_MS: Final = 86_400_000
GEMINI_BOOK_ROWS: Final = 58_000
"""Makes the first message 1.8 MB long."""
UNKNOWN_PAIR: Final = "Currency pair not supported XBT/USDC"
TRADES_EACH: Final = 42
"""So many of `binance_any_symbols` leave a position in each symbol, with windows 2 and 5."""
SPARSE_IDS: Final = (1, 2, 5, 6, 9, 12, 13, 14, 20)


def _binance_trade(symbol: str, number: int, price: float, ts: int) -> dict[str, Any]:
    return {
        "e": "trade", "E": ts, "s": symbol, "t": number, "p": f"{price:.2f}", "q": "1.0", "T": ts, "m": True, "M": True,
    }  # fmt: skip


def binance_ids_restart(this: Talk) -> None:
    """Trades 1 to 200 of one day, a lost connection, then other trades with the same ids on the next day."""
    request = this.hear()
    this.say({"result": None, "id": request["id"]})
    day = this.number - 1
    for number in range(200):
        ts = START_MS + day * DAY_MS + number * 10
        this.say(_binance_trade("ABCUSDT", 1 + number, 100 + day * 50 + number % 7, ts))
    if day == 0:
        return
    this.listen()


def binance_any_symbols(this: Talk) -> None:
    """TRADES_EACH trades of each subscribed symbol; the numbers continue across connections."""
    request = this.hear()
    this.say({"result": None, "id": request["id"]})
    for stream in request["params"]:
        symbol = stream.split("@")[0].upper()
        for number in range(TRADES_EACH):
            this.say(_binance_trade(symbol, TRADES_EACH * this.number + number, 100 + number % 20 / 2, now_ms()))
    this.listen()


def kraken_refuses(this: Talk) -> None:
    """Refuses the subscription permanently and keeps the connection open."""
    assert this.hear()["method"] == "subscribe"
    at = "2024-12-09T10:00:00Z"
    answer = {"error": UNKNOWN_PAIR, "method": "subscribe", "success": False, "symbol": "XBT/USDC"}
    this.say({**answer, "time_in": at, "time_out": at})
    this.listen()


def kraken_maintenance(this: Talk) -> None:
    """Announces maintenance before it confirms the subscription; trades follow."""
    assert this.hear()["method"] == "subscribe"
    status = {"version": "2.0.10", "system": "maintenance", "api_version": "v2", "connection_id": 1}
    this.say(
        {"channel": "status", "type": "update", "data": [status]},
        {"method": "subscribe", "result": {"channel": "trade", "snapshot": True, "symbol": "BTC/USD"}, "success": True,
         "time_in": "2025-11-05T10:00:00.000000Z", "time_out": "2025-11-05T10:00:00.000001Z"},
        {"channel": "trade", "type": "snapshot", "data": []},
        _kraken_trades(*(_kraken_trade(number, f"10:00:00.{number:06d}Z") for number in SPARSE_IDS)),
        json.dumps(_kraken_trades(_kraken_trade(21, "10:00:01Z"))).replace("1e-08", "0E-8"),
        _kraken_trades(_kraken_trade(22, "10:00:01.5+00:00")),
    )  # fmt: skip
    this.listen()


def _kraken_trade(number: int, time: str) -> dict[str, Any]:
    return {
        "symbol": "BTC/USD", "side": "sell", "price": 1e5, "qty": 1e-8, "ord_type": "market", "trade_id": number,
        "timestamp": f"2025-11-05T{time}",
    }  # fmt: skip


def _kraken_trades(*trades: dict[str, Any]) -> dict[str, Any]:
    return {"channel": "trade", "type": "update", "data": trades}


def bybit_refuses_a_message(this: Talk) -> None:
    """Refuses a message with one wrong topic as a whole; the topics of other messages get twenty trades each."""
    while True:
        request = this.hear()
        answer = {"conn_id": "x", "req_id": "", "op": request["op"]}
        wrong = [topic for topic in request.get("args", ()) if "TYPO" in topic]
        if request["op"] == "ping":
            this.say({"success": True, "ret_msg": "pong", **answer})
        elif wrong:
            this.say({"success": False, "ret_msg": f"error:handler not found,topic:{wrong[0]}", **answer})
        else:
            this.say({"success": True, "ret_msg": "", **answer})
            this.say(*(_bybit_trade(topic, number) for number in range(20) for topic in request["args"]))


def _bybit_trade(topic: str, number: int) -> dict[str, Any]:
    symbol, ts = topic.split(".")[1], START_MS + number
    trade = {
        "T": ts, "s": symbol, "S": "Buy", "v": "0.1", "p": str(100 + number), "i": f"{symbol}{number}", "BT": False,
        "RPI": False, "seq": number,
    }  # fmt: skip
    return {"topic": topic, "type": "snapshot", "ts": ts, "data": [trade]}


def bitget_two_markets(this: Talk) -> None:
    """Forty trades of each argument, in turn: 60 000 in the spot market, 61 000 in any other."""
    arguments: Sequence[dict[str, str]] = this.hear()["args"]
    this.say(*({"event": "subscribe", "arg": argument} for argument in arguments))
    for number in range(40):
        for argument in arguments:
            price = 60_000 if argument["instType"] == "SPOT" else 61_000
            trade = {
                "ts": str(START_MS + number * 1000), "price": str(price), "size": "0.1", "side": "buy",
                "tradeId": str(10**18 + 2 * number + (price > 60_000)),
            }  # fmt: skip
            this.say({"action": "update", "arg": argument, "data": [trade], "ts": 1})
    while True:
        if this.hear() == "ping":
            this.say("pong")


def gemini_big_book() -> Callable[[Talk], None]:
    """The first message contains the whole book; twenty trades follow."""
    book = [["buy", f"{60_000 - row / 100:.2f}", "0.12345678"] for row in range(GEMINI_BOOK_ROWS)]
    first = json.dumps({
        "type": "l2_updates", "symbol": "BTCUSD", "changes": book, "trades": [], "auction_events": [],
    })  # fmt: skip
    assert len(first) > 1_800_000

    def talk(this: Talk) -> None:
        assert this.hear()["type"] == "subscribe"
        this.say(first)
        for number in range(9000, 9020):
            this.say({
                "type": "trade", "symbol": "BTCUSD", "event_id": number, "timestamp": START_MS + number,
                "price": "60000.1", "quantity": "0.01", "side": "buy", "tid": number,
            })  # fmt: skip
        this.listen()

    return talk
