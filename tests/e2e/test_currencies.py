"""Orders for symbols priced in currencies other than dollars are refused; amounts of unknown currency are labelled."""

from __future__ import annotations

import json
import re

import pytest

from tests.e2e.process import Engine, rows
from tradebot.core.log_events import LogEvent


def replay(engine: Engine, symbol: str, *args: str) -> str:
    """The summary of a periodic replay of 40 ticks of `symbol`."""
    ticks = [{"symbol": symbol, "price": 100.0, "volume": 1.0, "ts": 1_700_000_000_000 + n} for n in range(40)]
    engine.path("t.jsonl").write_text("".join(json.dumps(tick) + "\n" for tick in ticks))
    done = engine.run(
        "--ingest=replay", "--replay-file=t.jsonl", "--db=x.db", "--strategy=periodic", "--log-level=warning", *args
    )
    done.expect(0)
    for refused in done.all(LogEvent.ORDER_REFUSED):
        assert refused["reason_code"] == "NO_RATE" and "no rate to USD" in refused["detail"]
    assert len(done.all(LogEvent.UNIT_UNKNOWN)) == (1 if "unit unknown" in done.stdout else 0), (
        "also at --log-level=warning"
    )
    return done.stdout


@pytest.mark.parametrize("symbol", ["ETH/BTC", "BTC-EUR", "BTC_KRW"])
def test_caps_in_dollars_refuse_other_currencies(engine: Engine, symbol: str) -> None:
    """A cap in dollars is never compared with an amount in bitcoins."""
    summary = replay(engine, symbol)
    assert re.search(r"refused NO_RATE +4\n", summary) and re.search(r"orders REJECTED +4\n", summary)
    assert "USD" not in summary
    stored = rows(engine.path("x.db"), "SELECT status, reason, COUNT(*) FROM orders GROUP BY 1, 2")
    assert stored == [("REJECTED", "NO_RATE", 4)]
    assert rows(engine.path("x.db"), "SELECT COUNT(*) FROM signals") == [(4,)]


@pytest.mark.parametrize(
    ("symbol", "label"),
    [("BTCUSD_PERP", "(unit unknown)"), ("PI_ETHUSD", "(unit unknown)"), ("USDT-FUTURES:BTCUSDT", "(unit unknown)"),
     ("SOL/USDC", "USD"), ("BTC-USDT", "USD")],
)  # fmt: skip
def test_amounts_are_labelled_with_what_is_known(engine: Engine, symbol: str, label: str) -> None:
    summary = replay(engine, symbol)
    assert re.search(r"orders FILLED +4\n", summary)
    assert f" 0.0400 {label}\n" in summary
    assert f"profit after fees: -0.0400 {label}\n" in summary


def test_rates_and_instruments_of_a_file_are_used(engine: Engine) -> None:
    """ETH/BTC at 100 BTC, 1 BTC = 2 USD: 0.1 ETH are 20 USD; rounded down to the lot, and with the entry's own fee."""
    config = engine.config("c.toml", '[rates]\nBTC = 2.0\n[instruments."ETH/BTC"]\nlot_size = 0.03\ntaker_fee = 0.01\n')
    summary = replay(engine, "ETH/BTC", config)
    assert re.search(r"orders FILLED +4\n", summary)
    assert rows(engine.path("x.db"), "SELECT DISTINCT qty FROM orders") == [(0.09,)]
    assert rows(engine.path("x.db"), "SELECT DISTINCT fees FROM trades") == [(0.09,)]
    # 4 x 0.09 BTC of fees, as dollars; the position in bitcoins.
    assert " 0.7200 USD\n" in summary and re.search(r"\n  ETH/BTC .* BTC\n", summary)


def test_amounts_are_in_their_own_currency_and_sums_in_dollars(engine: Engine) -> None:
    ticks = [
        {"symbol": symbol, "price": 100.0, "volume": 1.0, "ts": 1_700_000_000_000 + n}
        for n in range(30)
        for symbol in ("BTC/EUR", "SOL/USDT")
    ]
    engine.path("t.jsonl").write_text("".join(json.dumps(tick) + "\n" for tick in ticks))
    done = engine.run(
        "--ingest=replay", "--replay-file=t.jsonl", "--db=x.db", "--strategy=periodic", "--set=rates.EUR=1.5"
    ).expect(0)
    assert re.search(r"\n  BTC/EUR .* EUR\n", done.stdout) and re.search(r"\n  SOL/USDT .* USDT\n", done.stdout)
    # Three orders each: 3 x 0.01 EUR and 3 x 0.01 USDT of fees.
    assert re.search(r"\n  fees +0\.0750 USD\n", done.stdout)
    assert "profit after fees: -0.0750 USD\n" in done.stdout
    assert done.all(LogEvent.UNIT_UNKNOWN) == []


def binance(symbol: str, price: str, n: int) -> str:
    trade = {"e": "trade", "s": symbol, "t": n, "p": price, "q": "1", "T": 1_700_000_000_000 + n, "m": False}
    return json.dumps(trade) + "\n"


def test_the_exchange_says_what_a_symbol_is_priced_in(engine: Engine) -> None:
    """Its form does not: BTCUSDT and ETHBTC; the last print of BTCUSDT is the rate of ETHBTC, at its place."""
    frames = "".join(
        binance(*symbol, n)
        for n in range(40)
        for symbol in (("ETHBTC", "0.05"), ("BTCUSDT", "100.0"), ("BTCUSD_PERP", "100.0"))
    )
    engine.path("t.jsonl").write_text(frames)
    args = ("--ingest=replay", "--replay-file=t.jsonl", "--exchange=binance", "--strategy=periodic")
    done = engine.run(*args, "--db=a.db").expect(0)
    by_symbol = "SELECT symbol, status, reason, COUNT(*) FROM orders GROUP BY 1, 2, 3 ORDER BY 1"
    assert rows(engine.path("a.db"), by_symbol) == [
        ("BTCUSDT", "FILLED", "SHADOW_RECORDED", 4), ("BTCUSD_PERP", "REJECTED", "NO_INSTRUMENT", 4),
        ("ETHBTC", "REJECTED", "NO_RATE", 4),
    ]  # fmt: skip
    details = {line["symbol"]: line["detail"] for line in done.all(LogEvent.ORDER_REFUSED)}
    assert "no rate to USD for BTC: set rates.BTC" in details["ETHBTC"]
    assert '[instruments."BTCUSD_PERP"]' in details["BTCUSD_PERP"]
    assert done.all(LogEvent.UNIT_UNKNOWN) == []
    rated = engine.run(*args, "--db=b.db", "--set=rates.BTC=BTCUSDT").expect(0)
    assert rows(engine.path("b.db"), by_symbol)[2] == ("ETHBTC", "FILLED", "SHADOW_RECORDED", 4)
    # 4 x 0.1 x 100 x 0.001 USDT and 4 x 0.1 x 0.05 x 0.001 BTC at 100 USDT.
    assert re.search(r"\n  fees +0\.0420 USD\n", rated.stdout)
    again = engine.run(*args, "--db=b.db", "--set=rates.BTC=BTCUSDT", "--resume").expect(0)
    figures = rated.stdout[rated.stdout.index("\nSignals, orders") : rated.stdout.index("\nWhat to try")]
    assert "already holds this whole replay" in again.stdout and figures in again.stdout
    assert re.search(r"\n  ETHBTC .* BTC\n", rated.stdout) and re.search(r"\n  BTCUSDT .* USDT\n", rated.stdout)


def test_a_rate_by_a_symbol_of_another_currency_ends_the_start(engine: Engine) -> None:
    engine.path("t.jsonl").write_text(binance("BTCUSDT", "100", 1))
    args = ("--ingest=replay", "--replay-file=t.jsonl", "--exchange=binance", "--db=a.db")
    done = engine.run(*args, "--set=rates.EUR=BTCUSDT").expect(12)
    assert "rates.EUR: BTCUSDT is a price of BTC, not of EUR" in done.stderr
    assert not engine.path("a.db").exists()
