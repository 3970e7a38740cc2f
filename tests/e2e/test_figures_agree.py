"""Summary, status, metrics, log and database show the same figures for a run."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.process import SESSION, SESSION_CONFIG, Engine, Finished, rows
from tradebot.core.currencies import amount
from tradebot.core.log_events import LogEvent
from tradebot.core.number_format import money, number
from tradebot.telemetry.prometheus import families
from tradebot.telemetry.status_file import read_status, status_path

FAST = """
[engine]
tick_interval_ms = 2
signal_every_n_ticks = 7
heartbeat_interval_secs = 1
replay_file = "never-read.jsonl"
[persist]
flush_interval_ms = 20
"""


def summary_of(done: Finished) -> dict[str, str]:
    """The labelled figures of a summary, without thousands separators and units."""
    found = dict(re.findall(r"^ *([a-zA-Z ()_]+?):? {1,}([-+0-9,.]+)(?: USD| \(unit unknown\))?$", done.stdout, re.M))
    return {label: value.replace(",", "") for label, value in found.items()}


def exact_profit(db: Path, run: int | None = None) -> tuple[Decimal, Decimal, Decimal]:
    """Profit after fees, fees and net quantity of all fills (or of one run), recomputed from the rows."""
    of_run = "" if run is None else f" WHERE run = {run}"
    cash = fees = net = Decimal(0)
    for side, qty, price, fee in rows(db, f"SELECT side, fill_qty, fill_price, fees FROM trades{of_run} ORDER BY id"):
        signed = Decimal(repr(qty)) if side == "BUY" else -Decimal(repr(qty))
        cash -= signed * Decimal(repr(price))
        net += signed
        fees += Decimal(repr(fee))
    [(last,)] = rows(db, f"SELECT price FROM ticks{of_run} ORDER BY id DESC LIMIT 1")
    return cash + net * Decimal(repr(last)) - fees, fees, net


def check(engine: Engine, done: Finished, db: Path) -> dict[str, Any]:
    """Compare all outputs for the newest run with its rows; returns the answer of `status --json`."""
    [(run, run_id, ledger)] = rows(db, "SELECT id, run_id, ledger FROM runs ORDER BY id DESC LIMIT 1")
    profit, _, net = exact_profit(db)
    run_fees = exact_profit(db, run)[1]
    count = {table: rows(db, f"SELECT count(*) FROM {table} WHERE run = {run}")[0][0] for table in ("ticks", "signals")}
    orders = dict(rows(db, f"SELECT status, count(*) FROM orders WHERE run = {run} GROUP BY status"))
    [(fills,)] = rows(db, f"SELECT count(*) FROM trades WHERE run = {run}")
    [(symbol, last)] = rows(db, "SELECT symbol, price FROM ticks ORDER BY id DESC LIMIT 1")

    shown = summary_of(done)
    assert shown["profit after fees"] == money(float(profit)).replace(",", "")
    assert shown["fees"] == money(float(run_fees)).replace(",", "")
    assert int(shown["stored"]) == count["ticks"] == json.loads(ledger)["stored"]
    assert int(shown["signals"]) == count["signals"]
    assert int(shown["orders FILLED"]) == orders.get("FILLED", 0)
    assert int(shown["fills (simulated)"]) == fills
    assert f"FROM trades WHERE run = {run} GROUP BY" in done.stdout

    view = json.loads(engine.run("status", "--json", f"--db={db}").expect(0).stdout)
    book, counters = view["status"]["book"], view["status"]["counters"]
    assert view["status"]["run_id"] == run_id
    assert book["profit"] == pytest.approx(float(profit), rel=1e-9, abs=1e-9)
    assert book["net_qty"] == float(net)
    assert view["status"]["last_tick"]["price"] == last
    assert (counters["signal_count"], counters["trade_count"]) == (count["signals"], fills)

    text = engine.run("status", f"--db={db}").expect(0).stdout
    assert f"profit after fees {amount(book['profit'], book['unit'], plus=True)}\n" in text
    assert f"last tick   {symbol} {number(last)}\n" in text
    assert f"position    {number(float(net))} {symbol}, " in text

    status = read_status(status_path(db))
    assert status is not None
    metrics = {sample.name: sample.value for family in families(status, status.written_s) for sample in family.samples}
    assert metrics["tradebot_profit"] == book["profit"]
    assert metrics["tradebot_exposure"] == book["exposure"] == pytest.approx(abs(float(net) * last))
    assert metrics["tradebot_signals_total"] == count["signals"]
    assert metrics["tradebot_fills_total"] == fills

    final = done.one(LogEvent.FINAL_METRICS)
    assert (final["signal_count"], final["trade_count"]) == (count["signals"], fills)
    return dict(view)


def test_a_replay(engine: Engine) -> None:
    """Regression: a profit of -22.016155 in the status, -22.0235 in the summary, which used later prices."""
    db = engine.path("x.db")
    args = (f"--config={SESSION_CONFIG}", f"--replay-file={SESSION}", f"--db={db}")
    done = engine.run(*args).expect(0)
    view = check(engine, done, db)
    assert (view["healthy"], view["health"]) == (True, "the run is complete: nothing is left to do")
    assert engine.run("health", f"--db={db}").expect(0).stdout.startswith("healthy: the run is complete")

    again = engine.run(*args, "--resume").expect(0)
    assert again.stdout.startswith("The database already holds this whole replay: run r")
    first, second = (text[text.index("\nTicks\n") : text.index("What to try")] for text in (done.stdout, again.stdout))
    assert first == second
    assert f"input       replay, {SESSION}\n" in again.stdout


def test_a_live_run_that_continues_another(engine: Engine) -> None:
    """Fees and counts are the run's, positions and profit those of all runs; the input is the one that was read."""
    db = engine.path("x.db")
    args = (
        engine.config("fast.toml", FAST),
        "--ingest=synthetic",
        "--strategy=periodic",
        "--seconds=1.3",
        f"--db={db}",
    )
    done = engine.run(*args).expect(0)
    assert "(profit before fees)" in done.stdout
    check(engine, done, db)
    done = engine.run(*args).expect(0)
    view = check(engine, done, db)
    beat = done.one(LogEvent.HEARTBEAT)
    assert beat["symbol"] == "SOL/USDC" and beat["price"] > 0 and {"net_qty", "profit"} <= set(beat)
    assert list(beat).index("price") < list(beat).index("tick_count"), "first what people look for"
    assert len(done.all(LogEvent.BATCH_FLUSHED)) == 2, "not one for each of the many commits"
    assert "with the fills of earlier runs" in done.stdout
    assert view["healthy"], "its seconds were over: it did what it was asked for"
    assert "input       synthetic, synthetic:SOL/USDC\n" in done.stdout


MIXED = """
mode = "PAPER"
[strategy]
name = "periodic"
desired_size = 0.5
[engine]
signal_every_n_ticks = 5
[execution]
order_type = "limit"
limit_offset_bps = 3.0
[risk_caps]
max_open_orders = 4
[rates]
EUR = 1.25
BTC = {symbol = "BTC/EUR"}
"""


def mixed_ticks() -> str:
    """Two symbols in two currencies; of every third print nothing says who took."""
    lines = []
    for n in range(240):
        price = (40.0, 0.05)[n % 2] * (1 + (n * 7 % 23 - 11) / 2000)
        tick = {"symbol": ("BTC/EUR", "ETH/BTC")[n % 2], "price": round(price, 6), "volume": 1.5, "ts": 1.7e12 + 50 * n}
        lines.append(json.dumps(tick | ({} if n % 3 == 0 else {"taker": ("BUY", "SELL")[n // 4 % 2]})))
    return "\n".join(lines) + "\n"


def test_paper_in_two_currencies(engine: Engine) -> None:
    """Orders by what became of them, cash of each currency, equity: summary, status, metrics and rows agree."""
    engine.path("mixed.jsonl").write_text(mixed_ticks())
    db = engine.path("x.db")
    args = (engine.config("m.toml", MIXED), "--ingest=replay", "--replay-file=mixed.jsonl", f"--db={db}")
    done = engine.run(*args).expect(0)
    statuses = dict(rows(db, "SELECT status, count(*) FROM orders_now GROUP BY status"))
    still_open = sum(statuses.get(status, 0) for status in ("SUBMITTED", "ACKNOWLEDGED", "PARTIAL_FILL"))
    assert still_open and statuses["FILLED"] and statuses["REJECTED"], statuses
    cash, held = {"USD": Fraction(10_000), "EUR": Fraction(0), "BTC": Fraction(0)}, dict[str, Fraction]()
    query = "SELECT symbol, side, fill_qty, fill_price, fees FROM trades"
    for symbol, side, *values in rows(db, query):
        qty, price, fees = map(Fraction, map(repr, values))
        signed = qty if side == "BUY" else -qty
        cash[symbol[4:]] -= signed * price + fees
        held[symbol] = held.get(symbol, Fraction(0)) + signed
    assert len(held) == 2
    last = {symbol: Fraction(repr(price)) for symbol, price in rows(db, "SELECT symbol, price FROM ticks ORDER BY id")}
    rate = {"USD": Fraction(1), "EUR": Fraction("1.25"), "BTC": last["BTC/EUR"] * Fraction("1.25")}
    equity = sum((rate[unit] * amount for unit, amount in cash.items()), Fraction(0))
    equity += sum(qty * last[symbol] * rate[symbol[4:]] for symbol, qty in held.items())

    view = json.loads(engine.run("status", "--json", f"--db={db}").expect(0).stdout)["status"]["paper"]
    assert (view["unit"], view["open_orders"]) == ("USD", still_open)
    assert view["equity"] == pytest.approx(float(equity), rel=1e-14)
    assert view["cash"] == {unit: pytest.approx(float(amount), rel=1e-14) for unit, amount in cash.items()}
    assert view["free"] < view["equity"]
    inferred = rows(db, "SELECT count(*) FROM ticks WHERE taker IS NULL")[0][0] - 1  # BTC/EUR begins with one
    assert (view["sides_given"], view["sides_inferred"]) == (160, inferred)
    shown = engine.run("status", f"--db={db}").expect(0).stdout
    assert f"orders      {still_open} open, {statuses['FILLED']} filled, {statuses['REJECTED']} refused\n" in shown
    free = amount(view["free"], "USD")
    assert f"equity      {amount(view['equity'], 'USD')}, free to spend {free}\n" in shown
    cash_text = ", ".join(amount(held, unit) for unit, held in view["cash"].items())
    assert f"cash        {cash_text}\n" in shown
    assert f"taker side  inferred for 33.1% of {160 + inferred} prints\n" in shown

    again = engine.run(*args, "--resume").expect(0)
    for text in (done.stdout, again.stdout):
        assert int(re.findall(r"orders OPEN +(\d+)", text)[0]) == still_open
        assert int(re.findall(r"orders FILLED +(\d+)", text)[0]) == statuses["FILLED"]
        account = text[text.index("\nAccount") : text.index("What to try")]
        figures = re.findall(r"^  (equity|cash) +([-0-9,.]+) (\w+)$", account, re.M)
        figures = [(label, value.replace(",", ""), unit) for label, value, unit in figures]
        assert sorted(figures) == sorted(
            [("equity", money(float(equity)).replace(",", ""), "USD")]
            + [("cash", money(float(amount)).replace(",", ""), unit) for unit, amount in cash.items()]
        )
    assert "side of the taker inferred for 33.1% of" in done.stdout

    status = read_status(status_path(db))
    assert status is not None
    metrics = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families(status, status.written_s)
        for sample in family.samples
    }
    assert metrics["tradebot_equity", "USD"] == view["equity"]
    assert {unit: metrics["tradebot_cash", unit] for unit in cash} == view["cash"]
    assert metrics["tradebot_free_balance", "USD"] == view["free"]
    assert metrics["tradebot_open_orders",] == still_open
    assert metrics["tradebot_taker_sides", "inferred"] == inferred


def test_an_account_that_is_used_up_is_shown(engine: Engine) -> None:
    """A short sale, and a price that rises for good: the reason why no order is sent is at the end of all outputs."""
    lines = [
        json.dumps({"symbol": "SOL/USDC", "price": 100 + 3.0 * max(0, n - 10), "volume": 50, "ts": 1.7e12 + 200 * n})
        for n in range(60)
    ]
    engine.path("rise.jsonl").write_text("\n".join(lines) + "\n")
    account = "initial_balance = 1000\nallow_short = true\nmax_leverage = 10\n"
    caps = "max_exposure_usd = 1e6\nmax_symbol_exposure_usd = 1e6\n"
    strategy = '[engine]\nsignal_every_n_ticks = 8\n[strategy]\nname = "periodic"\ndesired_size = 80\n'
    config = engine.config("c.toml", f'mode = "PAPER"\n{strategy}[account]\n{account}[risk_caps]\n{caps}')
    args = (config, "--ingest=replay", "--replay-file=rise.jsonl", "--db=x.db")
    for done in (engine.run(*args), engine.run(*args, "--resume")):
        assert "blocked at the end: LIQUIDATED: the account has lost all it had" in done.expect(0).stdout
    assert "BLOCKED     LIQUIDATED: the account" in engine.run("status", "--db=x.db").stdout
    status = read_status(status_path(engine.path("x.db")))
    assert status is not None and status.blocking == ("LIQUIDATED",)
    metrics = {sample.name: sample.value for family in families(status, status.written_s) for sample in family.samples}
    assert metrics["tradebot_liquidated"] == 1
    assert metrics["tradebot_free_balance"] == 0


def test_the_smallest_prices(engine: Engine) -> None:
    """Regression: a price of 0.0000001234 was printed as 0.00000013 and its fees as 0.0000."""
    lines = [
        json.dumps({"symbol": "PEPE", "price": 1.234e-7 + n % 3 * 1e-9, "volume": 1.0, "ts": 1_700_000_000_000 + n})
        for n in range(40)
    ]
    engine.path("small.jsonl").write_text("\n".join(lines) + "\n")
    db = engine.path("x.db")
    args = ("--ingest=replay", "--replay-file=small.jsonl", "--strategy=periodic", f"--db={db}")
    done = engine.run(*args).expect(0)
    check(engine, done, db)
    assert "  0.0000001234  " in done.stdout
    assert float(summary_of(done)["fees"]) > 0
