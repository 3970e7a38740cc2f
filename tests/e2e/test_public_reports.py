"""Public bug reports about similar systems, each as a run.

The inputs are files of fixtures/reports, and exchanges that behave as reported (`reported_exchanges`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import reported_exchanges as reported
from tests.e2e.hook import Hook
from tests.e2e.live import Live, notices, stored_ticks
from tests.e2e.live_peers import ExchangeServer
from tests.e2e.process import REPO, Engine, Finished, assert_sound, rows, wait_until
from tradebot.core.log_events import LogEvent
from tradebot.telemetry.status_file import status_path

REPORTS = REPO / "fixtures" / "reports"
START_2025_MS = 1_735_689_600_000
LONG_WAIT_S = 30.0
"""An idle limit that no test reaches: the results must not depend on a lost link."""


def realws(engine: Engine, server: ExchangeServer, exchange: str, symbols: str, *args: str, **how: Any) -> Live:
    """An engine with `server` as the exchange `exchange`."""
    chosen = ("--ingest=realws", f"--exchange={exchange}", f"--symbol={symbols}", f"--ws-url={server.url}/")
    return Live(engine, *chosen, *args, **how)


def replay(engine: Engine, name: str, *args: str) -> Finished:
    return engine.run("--ingest=replay", f"--replay-file={REPORTS / name}", "--db=x.db", *args)


def because(done: Finished) -> str:
    """The line of the summary with the reason of the end."""
    [line] = [line for line in done.stdout.splitlines() if line.startswith("because")]
    return line


# --- files ---


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("array.json", ["one JSON array", "jq -c '.[]'"]),
        ("binance_spot_trades_2025.csv", ["CSV of Binance trades (id, price, qty, quote_qty, time,", "convert it"]),
        ("hft_binance.txt", ["frames of binance with a time before each", "--exchange=binance"]),
        ("utf16.jsonl", ["UTF-16 text", "iconv -f UTF-16 -t UTF-8"]),
        ("ticks.zip", ["a zip archive", "unpack it"]),
    ],
)
def test_a_file_that_holds_no_tick_lines_is_named(engine: Engine, name: str, words: list[str]) -> None:
    """Reported: exit 0 COMPLETE with every line malformed. Now 11, and one message that says what the file is."""
    done = replay(engine, name).expect(11)
    assert done.ledger["stored"] == 0
    assert f"{name}: no line is a tick: it looks like" in because(done)
    for word in words:
        assert word in because(done)


def test_prices_as_text_are_read(engine: Engine) -> None:
    """Reported: all sixty lines were malformed."""
    done = replay(engine, "strings.jsonl").expect(0)
    assert (done.ledger["stored"], done.ledger["malformed"]) == (60, 0)
    assert rows(engine.path("x.db"), "SELECT price, volume, ts FROM ticks ORDER BY id LIMIT 2") == [
        (94_000.0, 0.1, START_2025_MS), (94_001.0, 0.1, START_2025_MS + 1),
    ]  # fmt: skip


def test_microseconds_are_stored_as_milliseconds(engine: Engine) -> None:
    """Reported: they were stored as the year 57 000."""
    replay(engine, "ts_us.jsonl").expect(0)
    times = [ts for (ts,) in rows(engine.path("x.db"), "SELECT ts FROM ticks ORDER BY id")]
    assert times == [START_2025_MS + 250 * number for number in range(60)]


def test_frames_newest_first_in_a_rising_market_give_no_sell(engine: Engine) -> None:
    """Reported: the averages saw each frame backwards: 38 signals, half of them to sell."""
    windows = engine.config("windows.toml", "[strategy]\nshort_window = 2\nlong_window = 5\n")
    done = replay(engine, "coinbase_rising.jsonl", "--exchange=coinbase", windows).expect(0)
    assert (done.ledger["stored"], done.ledger["duplicates"], done.ledger["malformed"]) == (120, 0, 0)
    db = engine.path("x.db")
    prices = [price for (price,) in rows(db, "SELECT price FROM ticks ORDER BY id")]
    assert all(before < after for before, after in pairwise(prices))
    assert rows(db, "SELECT count(*) FROM signals WHERE kind LIKE 'SELL%'") == [(0,)]
    assert rows(db, "SELECT count(*) FROM orders WHERE side = 'SELL'") == [(0,)]


# --- exchanges ---


def test_ids_that_restart_at_one_are_new_trades(engine: Engine) -> None:
    """Reported: after the reset 200 of 200 new trades were dropped as duplicates."""
    with ExchangeServer(reported.binance_ids_restart) as server:
        live = realws(engine, server, "binance", "ABCUSDT")
        live.wait_ticks(400)
        live.ask_to_stop()
        done = live.running.finish().expect(0)
    assert (done.ledger["stored"], done.ledger["duplicates"]) == (400, 0)
    [gap] = notices(live.db, "GAP")
    assert (gap.symbol, gap.missing, gap.ticks_before) == ("ABCUSDT", None, 200)
    assert "numbering restarted" in gap.detail
    assert len(done.all(LogEvent.GAP)) == 1
    assert_sound(live.db)


def test_spot_and_future_of_one_name_are_two_symbols(engine: Engine) -> None:
    """Reported: they were one series, whose price jumped by 1 000 at each trade."""
    with ExchangeServer(reported.bitget_two_markets) as server:
        live = realws(engine, server, "bitget", "BTCUSDT,USDT-FUTURES:BTCUSDT")
        live.wait_ticks(80)
        live.stop()
    prices = rows(live.db, "SELECT symbol, price, count(*) FROM ticks GROUP BY 1, 2 ORDER BY 1")
    assert prices == [("BTCUSDT", 60_000.0, 40), ("USDT-FUTURES:BTCUSDT", 61_000.0, 40)]
    assert rows(live.db, "SELECT count(*) FROM signals") == [(0,)], "neither price ever moved"


def test_a_symbol_that_is_added_leaves_the_others_their_positions(engine: Engine) -> None:
    """Reported: with a longer list of symbols on the same database all positions began at 0.

    A position at the end of the second run equals the sum of the fills of both runs.
    """
    with ExchangeServer(reported.binance_any_symbols) as server:
        first = realws(engine, server, "binance", "BTCUSDT,ETHUSDT")
        first.wait_ticks(2 * reported.TRADES_EACH)
        first.stop()
        held = nets(first.db)
        assert set(held) == {"BTCUSDT", "ETHUSDT"} and all(held.values()), held
        second = realws(engine, server, "binance", "BTCUSDT,ETHUSDT,SOLUSDT")
        second.wait_ticks(5 * reported.TRADES_EACH)
        done = second.stop()
    carried = done.one(LogEvent.CARRIED_OVER)
    assert (carried["symbols"], carried["ticks"]) == (2, 2 * reported.TRADES_EACH)
    assert positions(done) == nets(second.db)


def nets(db: Path) -> Mapping[str, float]:
    """The sum of the fills of each symbol, over all runs."""
    query = "SELECT symbol, round(sum(CASE side WHEN 'BUY' THEN fill_qty ELSE -fill_qty END), 9) FROM trades GROUP BY 1"
    return dict(rows(db, query))


def positions(done: Finished) -> Mapping[str, float]:
    """The final positions in the summary of the engine."""
    table = done.stdout.partition("\nPositions (")[2].partition("\n\n")[0].splitlines()[2:]
    return {line.split()[0]: float(line.split()[1]) for line in table if line.split()[0].endswith("USDT")}


def test_a_first_message_of_a_megabyte_and_more_is_taken(engine: Engine) -> None:
    """Reported: with Gemini's complete book the engine reconnected endlessly."""
    with ExchangeServer(reported.gemini_big_book()) as server:
        live = realws(engine, server, "gemini", "BTCUSD")
        live.wait_ticks(20)
        done = live.stop()
    assert done.ledger["malformed"] == 0
    assert [notice.kind for notice in notices(live.db)] == ["LINK_UP"]


def test_a_message_above_a_limit_of_ones_own_names_the_key(engine: Engine) -> None:
    """With an explicit limit it exits with 12, and the message names the key to raise."""
    with ExchangeServer(reported.gemini_big_book()) as server:
        live = realws(engine, server, "gemini", "BTCUSD", feed__max_message_bytes=100_000)
        done = live.running.finish().expect(12)
    assert "feed.max_message_bytes" in because(done)


def health(engine: Engine, *args: str) -> Finished:
    return engine.run("health", "--db=x.db", *args)


def _lines_with(word: str, done: Finished) -> Iterator[str]:
    return (line for line in done.stdout.splitlines() if word in line)


def unhealthy(engine: Engine, live: Live, *args: str) -> str:
    """Wait until `tradebot health` reports the running engine as unhealthy; returns the line.

    The first status may come later than the first log line of the feed: before it health knows of no engine.
    """
    wait_until(status_path(live.db).exists, "the first status")

    def answer() -> str:
        assert live.running.process.poll() is None, live.running.finish().stderr
        done = health(engine, *args)
        return done.stdout if done.code == 1 else ""

    return wait_until(answer, "an unhealthy engine")


def test_a_subscription_that_is_refused_for_good(engine: Engine, hook: Hook) -> None:
    """Reported: the engine stayed healthy, because its own notices of the link counted as progress."""
    with ExchangeServer(reported.kraken_refuses) as server:
        live = realws(engine, server, "kraken", "XBT/USDC", feed__idle_timeout_s=LONG_WAIT_S,
                      feed__reconnect_budget_s=10, notify__webhook_url=hook.url)  # fmt: skip
        assert reported.UNKNOWN_PAIR in live.running.wait_for(LogEvent.EXCHANGE_ERROR)["detail"]
        line = unhealthy(engine, live, "--max-age=1")
        done = live.running.finish().expect(10)
    assert line.startswith("UNHEALTHY") and reported.UNKNOWN_PAIR in line
    assert "feed.reconnect_budget_s" in because(done) and reported.UNKNOWN_PAIR in because(done)
    [told] = hook.texts("symbol_refused")
    assert "XBT/USDC" in told and reported.UNKNOWN_PAIR in told
    assert [notice.symbol for notice in notices(live.db, "SYMBOL_REFUSED")] == ["XBT/USDC"]


BYBIT_SYMBOLS = "BTCUSDT,ETHUSDT,SOLUSDT,XRPUSDT,ADAUSDT,DOGEUSDT,LTCUSDT,DOTUSDT,AVAXUSDT,TYPOUSDT"


@pytest.mark.parametrize(("by_file", "good"), [(False, 9), (True, 11)])
def test_one_wrong_topic_does_not_silence_the_others(engine: Engine, hook: Hook, by_file: bool, good: int) -> None:
    """Reported: Bybit refused the whole message of ten topics: ten symbols were silent, and the engine healthy."""
    how: dict[str, Any] = {"feed__idle_timeout_s": LONG_WAIT_S, "notify__webhook_url": hook.url}
    with ExchangeServer(reported.bybit_refuses_a_message) as server:
        if by_file:
            sources = engine.path("bybit12.toml")
            sources.write_text(f'{(REPORTS / "bybit12.toml").read_text()}url = "{server.url}/v5/public/spot"\n')
            live = Live(engine, "--ingest=realws", "--ws-source=many", f"--ws-sources={sources}", **how)
        else:
            live = realws(engine, server, "bybit", BYBIT_SYMBOLS, **how)
        live.wait_ticks(20 * good)
        refused = live.wait_notice("SYMBOL_REFUSED")
        wait_until(lambda: hook.texts("symbol_refused"), "a post to the webhook")
        told = wait_until(lambda: next(_lines_with("TYPOUSDT", health(engine)), ""), "TYPOUSDT in health")
        status = json.loads(engine.run("status", "--db=x.db", "--json").expect(0).stdout)
        done = live.stop()
    assert len({tick.symbol for tick in stored_ticks(live.db)}) == good
    assert "TYPOUSDT" not in {tick.symbol for tick in stored_ticks(live.db)}
    assert (refused.symbol, len(notices(live.db, "SYMBOL_REFUSED"))) == ("TYPOUSDT", 1)
    assert "handler not found" in refused.detail and "handler not found" in told
    assert "TYPOUSDT" in done.one(LogEvent.SYMBOL_REFUSED)["symbol"]
    assert list(status["status"]["symbols"]["refused"]) == ["TYPOUSDT"]
    [posted] = hook.texts("symbol_refused")
    assert "TYPOUSDT" in posted


def test_a_maintenance_notice_reaches_log_notices_and_webhook(engine: Engine, hook: Hook) -> None:
    """Reported: the announcement was ignored."""
    with ExchangeServer(reported.kraken_maintenance) as server:
        live = realws(engine, server, "kraken", "BTC/USD", feed__idle_timeout_s=LONG_WAIT_S,
                      notify__webhook_url=hook.url)  # fmt: skip
        live.wait_ticks(11)
        announced = live.wait_notice("EXCHANGE_NOTICE")
        wait_until(lambda: hook.texts("exchange_notice"), "a post to the webhook")
        done = live.stop()
    assert "maintenance" in announced.detail
    assert "maintenance" in done.one(LogEvent.EXCHANGE_NOTICE)["detail"]
    assert "maintenance" in hook.texts("exchange_notice")[0]
    assert len(notices(live.db, "EXCHANGE_NOTICE")) == 1
