"""`--ingest=realws` end to end, with servers on the loopback interface that imitate exchanges."""

from __future__ import annotations

import base64
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.e2e.live import IDLE_S, Live, in_time, notices, stored_ticks
from tests.e2e.live_peers import ExchangeServer, Talk
from tests.e2e.process import Engine, rows
from tradebot.core.events import Tick
from tradebot.core.log_events import LogEvent
from tradebot.strategy.registry import create

TS = 1_700_000_000_000


def realws(engine: Engine, server: ExchangeServer, exchange: str, symbols: str, *args: str, **how: Any) -> Live:
    """An engine with `server` as the exchange `exchange`."""
    chosen = ("--ingest=realws", f"--exchange={exchange}", f"--symbol={symbols}", f"--ws-url={server.url}/ws")
    return Live(engine, *chosen, *args, **how)


def binance(symbol: str, number: int, price: object = "100.25") -> dict[str, object]:
    """The frame of a trade."""
    trade = {"e": "trade", "s": symbol, "t": number, "p": price, "q": "0.001", "T": TS + number}
    return {**trade, "E": TS + number, "m": True, "M": True}


def test_binance_with_two_symbols(engine: Engine) -> None:
    """Subscribes, also after a loss; stores trades as sent, with separate numbers per symbol; ignores other frames."""

    def talk(this: Talk) -> None:
        assert this.path == "/ws"
        assert this.hear() == {"method": "SUBSCRIBE", "params": ["btcusdt@trade", "ethusdt@trade"], "id": 1}
        this.say({"result": None, "id": 1})
        if this.number == 1:
            this.say(
                {"error": {"code": 2, "msg": "Invalid request: \x1b[31munknown"}, "id": 2},
                binance("BTCUSDT", 11),
                {"e": "depthUpdate", "E": 1, "s": "BTCUSDT", "U": 1, "u": 2, "b": [["1", "2"]], "a": []},
                binance("ETHUSDT", 501, "2000.10"),
                binance("BTCUSDT", 12, "NaN"),
                binance("BTCUSDT", 12, "100.26"),
            )
            return
        this.say(
            binance("BTCUSDT", 12, "100.26"),
            binance("BTCUSDT", 15, "100.27"),
            {"stream": "ethusdt@trade", "data": binance("ETHUSDT", 502, "2000.15")},
        )
        this.listen()

    with ExchangeServer(talk) as server:
        live = realws(engine, server, "binance", "btcusdt,ethusdt")
        live.wait_ticks(5)
        done = live.stop()
    assert [tick[1:] for tick in stored_ticks(live.db)] == [
        ("BTCUSDT", 100.25, 0.001, TS + 11, "11", 11),
        ("ETHUSDT", 2000.1, 0.001, TS + 501, "501", 501),
        ("BTCUSDT", 100.26, 0.001, TS + 12, "12", 12),
        ("BTCUSDT", 100.27, 0.001, TS + 15, "15", 15),
        ("ETHUSDT", 2000.15, 0.001, TS + 502, "502", 502),
    ]
    assert [(notice.kind, notice.symbol, notice.missing) for notice in notices(live.db)] == [
        ("LINK_UP", None, None), ("EXCHANGE_NOTICE", None, None),
        ("LINK_LOST", None, None), ("LINK_RESTORED", None, None), ("GAP", "BTCUSDT", 2),
    ]  # fmt: skip
    assert len(done.all(LogEvent.SUBSCRIBED)) == 2
    assert "Invalid request" in done.one(LogEvent.EXCHANGE_ERROR)["detail"]
    assert "\x1b" not in done.stderr + done.stdout
    ledger = done.ledger
    assert (ledger["malformed"], ledger["duplicates"], ledger["stored"]) == (1, 1, 5)
    assert rows(live.db, "SELECT ingest, source FROM runs") == [("realws", "binance:btcusdt,ethusdt")]


@pytest.mark.slow
def test_exchanges_with_pings_of_their_own(engine: Engine) -> None:
    """The engine sends the exchange's pings every ping_interval_s and answers those it gets; neither is a trade."""

    def okx(this: Talk) -> None:
        [arg] = this.hear()["args"]
        assert arg == {"channel": "trades", "instId": "BTC-USDT"}
        this.say({"event": "subscribe", "arg": arg, "connId": "1"})
        for _ in range(4):  # longer than idle_timeout_s
            assert this.hear() == "ping"
            this.say("pong")
        trade = {"instId": "BTC-USDT", "tradeId": "7", "px": "1.5", "sz": "2", "side": "buy", "ts": str(TS)}
        this.say({"arg": arg, "data": [trade]})
        this.listen()

    def bybit(this: Talk) -> None:
        assert this.hear() == {"op": "subscribe", "args": ["publicTrade.BTCUSDT"]}
        this.say({"success": True, "ret_msg": "", "op": "subscribe", "conn_id": "1"})
        for _ in range(4):
            assert this.hear() == {"op": "ping"}
            this.say({"success": True, "ret_msg": "pong", "op": "ping", "conn_id": "1"})
        trade = {"T": TS, "s": "BTCUSDT", "S": "Buy", "v": "0.5", "p": "1.5"}
        trades = [{**trade, "i": "one"}, {**trade, "i": "two"}]
        this.say({"topic": "publicTrade.BTCUSDT", "type": "snapshot", "ts": TS, "data": trades})
        this.listen()

    def crypto_com(this: Talk) -> None:
        assert this.hear()["params"] == {"channels": ["trade.BTC_USDT"]}
        this.say({"id": 1, "code": 0, "method": "subscribe", "result": {"channel": "trade"}})
        for number in range(1, 4):
            this.say({"id": number, "method": "public/heartbeat", "code": 0})
            assert this.hear() == {"id": number, "method": "public/respond-heartbeat"}
        trade = {"d": "9", "t": TS, "p": "1.5", "q": "0.5", "s": "BUY", "i": "BTC_USDT"}
        result = {"channel": "trade", "subscription": "trade.BTC_USDT", "instrument_name": "BTC_USDT", "data": [trade]}
        this.say({"id": -1, "code": 0, "method": "subscribe", "result": result})
        this.listen()

    with ExchangeServer(okx) as one, ExchangeServer(bybit) as other, ExchangeServer(crypto_com) as third:
        lives = {
            realws(engine, one, "okx", "BTC-USDT", name="okx"): ["7"],
            realws(engine, other, "bybit", "BTCUSDT", name="bybit"): ["one", "two"],
            realws(engine, third, "crypto_com", "BTC_USDT", name="crypto_com"): ["9"],
        }
        for live, ids in lives.items():
            live.wait_ticks(len(ids))
            live.ask_to_stop()
        for live, ids in lives.items():
            ledger = live.end(0).ledger
            assert [tick.event_id for tick in stored_ticks(live.db)] == ids
            assert ledger["malformed"] == 0
            assert [notice.kind for notice in notices(live.db)] == ["LINK_UP"]


def test_a_subscription_that_is_not_confirmed(engine: Engine) -> None:
    """Heartbeats do not confirm a subscription: without a confirmation or a trade the engine reconnects."""

    def talk(this: Talk) -> None:
        assert this.hear()["method"] == "subscribe"
        if this.number > 1:
            this.say({"method": "subscribe", "success": True, "result": {"channel": "trade", "symbol": "BTC/USD"}})
        this.listen(beat={"channel": "heartbeat"})

    with ExchangeServer(talk) as server:
        live = realws(engine, server, "kraken", "BTC/USD")
        restored = live.wait_notice("LINK_RESTORED")
        live.running.wait_for(LogEvent.SUBSCRIBED)
        live.stop()
    up, lost, last = notices(live.db)
    in_time("subscription never confirmed", up.ts, lost.ts, IDLE_S)
    assert lost.detail == "subscription not confirmed within 1 s"
    assert last == restored


def kraken(kind: str, *numbers: int) -> dict[str, object]:
    """The frame of some trades; `kind` is snapshot or update."""
    trade = {"symbol": "BTC/USD", "side": "buy", "price": 60000.1, "qty": 0.5, "ord_type": "limit",
             "timestamp": "2023-11-14T22:13:20.000001Z"}  # fmt: skip
    return {"channel": "trade", "type": kind, "data": [{**trade, "trade_id": number} for number in numbers]}


def test_history_at_subscription_and_a_source_of_a_file(engine: Engine) -> None:
    """Past trades are counted and dropped, or stored once each; --ws-source sets limits from ws_sources.toml."""

    def talk(this: Talk) -> None:
        message = this.hear()
        assert message["params"] == {"channel": "trade", "symbol": ["BTC/USD"], "snapshot": True}
        this.say({"method": "subscribe", "success": True, "result": {"channel": "trade", "symbol": "BTC/USD"}})
        if this.number == 1:
            this.say(kraken("snapshot", 1, 2, 3), kraken("update", 4), kraken("update", 5, 6))
            return
        this.say(kraken("snapshot", 4, 5, 6, 7), kraken("update", 8))
        this.listen()

    sources = """
        [mine]
        exchange = "kraken"
        symbols = ["BTC/USD"]
        url = "{url}/v2"
        history = "keep"
        """
    with ExchangeServer(talk) as one, ExchangeServer(talk) as other:
        path = engine.path("mine.toml")
        path.write_text(sources.format(url=other.url))
        drop = realws(engine, one, "kraken", "BTC/USD", name="drop")
        keep = Live(engine, "--ingest=realws", "--ws-source=mine", f"--ws-sources={path}", name="keep")
        drop.wait_ticks(4)
        keep.wait_ticks(8)
        drop.ask_to_stop()
        keep.ask_to_stop()
        dropped, kept = drop.end(0).ledger, keep.end(0).ledger
    assert [tick.seq for tick in stored_ticks(drop.db)] == [4, 5, 6, 8]
    assert (dropped["received"], dropped["history_dropped"], dropped["duplicates"]) == (11, 7, 0)
    assert [gap.missing for gap in notices(drop.db, "GAP")] == [1], "7 came as history only"
    assert [tick.seq for tick in stored_ticks(keep.db)] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert (kept["received"], kept["history_dropped"], kept["duplicates"]) == (11, 0, 3)
    assert not notices(keep.db, "GAP")
    assert rows(keep.db, "SELECT source FROM runs") == [("kraken:BTC/USD",)]


def test_state_and_caps_hold_per_symbol(engine: Engine) -> None:
    """The symbols are independent: each decides by itself, and the cap of one does not affect others."""
    # The averages of each symbol cross often; with mixed symbols they would cross at other places.
    prices: dict[str, list[float]] = {
        "AAAUSDT": [100 + (n * 7 % 13) for n in range(60)],
        "BBBUSDT": [10 + (n * n % 5) for n in range(60)],
        "CCCUSDT": [1 + n % 7 / 10 for n in range(60)],
    }

    def talk(this: Talk) -> None:
        assert len(this.hear()["params"]) == 3
        this.say({"result": None, "id": 1})
        for number in range(60):
            this.say(*[binance(symbol, number, str(walk[number])) for symbol, walk in prices.items()])
        this.listen()

    with ExchangeServer(talk) as server:
        # One unit of A exceeds the cap of a symbol; one unit of B or C does not.
        live = realws(engine, server, "binance", "aaausdt,bbbusdt,cccusdt", strategy__desired_size=1.0,
                      risk_caps__max_symbol_exposure_usd=50.0)  # fmt: skip
        live.wait_ticks(180)
        live.stop()
    wanted = {}
    for symbol, walk in prices.items():
        alone = create("sma_crossover", live.config)
        ticks = [Tick(symbol, float(str(price)), 0.0, 0) for price in walk]
        wanted[symbol] = [(TS + found.index, found.side) for found in alone.on_ticks(symbol, ticks)]
        assert len(wanted[symbol]) > 5
    for symbol, decisions in wanted.items():
        held = rows(live.db, f"SELECT ts, side, status, reason FROM orders WHERE symbol = '{symbol}' ORDER BY id")
        assert [row[:2] for row in held] == decisions
        outcome = ("REJECTED", "RISK_CAP") if symbol == "AAAUSDT" else ("FILLED", "SHADOW_RECORDED")
        assert {row[2:] for row in held} == {outcome}


def server_side(authority: trustme.CA, name: str, not_after: datetime | None = None) -> ssl.SSLContext:
    """The TLS context of a server with a certificate for `name`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, not_after=not_after).configure_cert(context)
    return context


@pytest.mark.slow
def test_wss_with_credentials_and_with_certificates_that_are_wrong(engine: Engine, tmp_path: Path) -> None:
    """The certificate is verified (exit 10 with the reason if it is wrong); credentials are used and never shown."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    secrets = ("hunter2-of-the-user", "k3y-0f-th3-qu3ry-abcdef")

    def talk(this: Talk) -> None:
        assert this.path == f"/ws?token={secrets[1]}"
        assert this.authorization == "Basic " + base64.b64encode(f"joe:{secrets[0]}".encode()).decode()
        this.hear()
        this.say({"result": None, "id": 1}, binance("BTCUSDT", this.number))
        if this.number > 1:
            this.listen()

    def start(name: str, server: ExchangeServer, *, trusted: bool = True) -> Live:
        url = f"wss://joe:{secrets[0]}@localhost:{server.port}/ws?token={secrets[1]}"
        return Live(
            engine, "--ingest=realws", "--exchange=binance", "--symbol=btcusdt", f"--ws-url={url}",
            "--log-level=debug", name=name, feed__connect_timeout_s=10, feed__reconnect_budget_s=60 if trusted else 2,
            env={"SSL_CERT_FILE": "ca.pem"} if trusted else {},
        )  # fmt: skip

    expired = datetime(2020, 1, 1, tzinfo=UTC)
    with (
        ExchangeServer(talk, server_side(authority, "localhost")) as good,
        ExchangeServer(talk, server_side(authority, "other.example")) as misnamed,
        ExchangeServer(talk, server_side(authority, "localhost", expired)) as old,
    ):
        live = start("good", good)
        refused = {"not one for localhost": start("misnamed", misnamed), "has expired": start("old", old)}
        live.wait_ticks(2)
        texts = [live.stop()]
        for reason, other in refused.items():
            assert reason in other.running.wait_for(LogEvent.CONNECT_FAILED)["reason"]
            texts.append(other.stop())
        texts.append(done := start("unknown", good, trusted=False).end(10))
        assert "no authority known to this machine" in done.all(LogEvent.CONNECT_FAILED)[0]["reason"]
        # The last attempt may have had too little time to detect the same error.
        assert "within feed.reconnect_budget_s (2 s); the last attempt: " in done.one(LogEvent.STAGE_FAILED)["detail"]
    assert len(notices(live.db, "LINK_LOST")) == 1
    assert "***@localhost" in texts[0].stderr
    said = "".join(done.stdout + done.stderr for done in texts).encode()
    said += b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    for secret in (*secrets, base64.b64encode(f"joe:{secrets[0]}".encode()).decode()):
        assert secret.encode() not in said, f"{secret} was told"
