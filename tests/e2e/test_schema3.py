"""Files that the last version with schema 3 left behind (fixtures/schema3) open and go on under this one."""

from __future__ import annotations

import gzip
import hashlib
import json
import signal
from decimal import Decimal
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.live_peers import ExchangeServer, Talk
from tests.e2e.mockws import MockWsProcess
from tests.e2e.process import (
    REPO,
    SESSION,
    SESSION_CONFIG,
    Engine,
    assert_sound,
    dump,
    rows,
    synthetic_units,
    wait_for_ticks,
)

SCHEMA3: Final = REPO / "fixtures" / "schema3"
WHOLE_SHA256: Final = "fbfb7dd62b88d7c98fab106b361bdfe5a8c539d4b0530b92747f067f7022ce88"
"""Of what the version of then stored for the whole of `session.jsonl`: see `digest_of`."""

COLUMNS: Final = {
    "ticks": "symbol, price, volume, ts, event_id, seq",
    "signals": "symbol, kind, value, ts, event_id, desired_size, price",
    "orders": "symbol, side, qty, price, status, ts, event_id, signal_id, reason, is_shadow",
    "trades": "event_id, order_id, symbol, side, fill_qty, fill_price, fees, ts, is_shadow",
}
"""What schema 3 stores of an event."""


@pytest.fixture
def left(engine: Engine) -> Engine:
    """An engine whose home holds all files of schema 3, under the names that they had."""
    for path in SCHEMA3.iterdir():
        if path.suffix == ".gz":
            engine.path(path.stem).write_bytes(gzip.decompress(path.read_bytes()))
        else:
            engine.path(path.name).write_bytes(path.read_bytes())
    engine.path("session.jsonl").write_bytes(b"".join(SESSION.read_bytes().splitlines(keepends=True)[:3000]))
    return engine


def price_of(number: int) -> float:
    """The price of a trade of the fixtures, and of those that go on from them."""
    return 100 + (number % 20) * 0.5


def crossings(numbers: range, before: range) -> list[str]:
    """Sides of the signals that trades `numbers` give after trades `before`, by plain averages of 2 and 5 prices."""
    prices = [price_of(number) for number in (*before, *numbers)]
    sides = []
    for end in range(max(len(before), 5) + 1, len(prices) + 1):
        was, now = (sum(prices[at - 2 : at]) / 2 - sum(prices[at - 5 : at]) / 5 for at in (end - 1, end))
        if was <= 0 < now or was >= 0 > now:
            sides.append("BUY" if now > 0 else "SELL")
    return sides


def digest_of(db: Path) -> str:
    """SHA-256 over the columns of schema 3 of the four tables, every digit of every number in it."""
    answers = [rows(db, f"SELECT {columns} FROM {table} ORDER BY id") for table, columns in COLUMNS.items()]
    return hashlib.sha256("\n".join(repr(row) for answer in answers for row in answer).encode()).hexdigest()


def test_a_killed_replay_is_completed_to_what_its_own_version_would_have_stored(left: Engine) -> None:
    """Contract 6: the WAL that the kill left is recovered, and all four tables equal an uninterrupted run's."""
    replay = (f"--config={SESSION_CONFIG}", "--replay-file=session.jsonl")
    done = left.run(*replay, "--db=partial.db", "--resume").expect(0)
    assert done.ledger["already_stored"] == 950
    left.run(*replay, "--db=whole.db").expect(0)
    assert dump(left.path("partial.db")) == dump(left.path("whole.db"))
    assert digest_of(left.path("partial.db")) == WHOLE_SHA256
    assert_sound(left.path("partial.db"))


def test_a_spill_file_is_adopted_and_the_feed_goes_on(left: Engine) -> None:
    """Contract 6: format 2 is stored in its place, and prices and sides continue without a step left out."""
    db = left.path("spilled.db")
    done = left.run("--config=tradebot.toml", "--strategy=periodic", "--db=spilled.db", "--seconds=0.3").expect(0)
    adopted = done.one("SPILL_ADOPTED")
    assert (adopted["stored"], adopted["already_stored"], adopted["whole"]) == (101, 0, True)
    assert done.one("CARRIED_OVER")["ticks"] == 149
    assert not left.path("spilled.db.spill").exists()
    units = synthetic_units(db)
    assert len(units) == 149 + done.ledger["stored"]
    kinds = [kind for (kind,) in rows(db, "SELECT kind FROM signals ORDER BY id")]
    assert kinds == [("SELL", "BUY")[n % 2] + ":PERIODIC_TRIGGER" for n in range(len(units) // 10)]
    assert_sound(db)


def test_an_exchange_feed_goes_on(left: Engine) -> None:
    """Contract 3 and 6: window, numbering and position of BTCUSDT are those that its last trade left."""

    def talk(peer: Talk) -> None:
        message = peer.hear()
        peer.say({"result": None, "id": message["id"]})
        for number in (60, *range(61, 100)):  # the first one was stored by the version before
            ts = 1_700_000_000_000 + number * 10
            trade = {"e": "trade", "E": ts, "s": "BTCUSDT", "t": number, "p": f"{price_of(number):.2f}", "q": "1.0"}
            peer.say(trade | {"T": ts, "m": True, "M": True})
        peer.listen()

    db = left.path("exchange.db")
    signals_then = rows(db, "SELECT COUNT(*) FROM signals")[0][0]
    with ExchangeServer(talk) as server:
        running = left.start(
            "--ingest=realws", "--exchange=binance", "--symbol=BTCUSDT", f"--ws-url={server.url}",
            "--config=tradebot.toml", "--db=exchange.db",
        )  # fmt: skip
        wait_for_ticks(db, 102 + 39)
        running.send(signal.SIGTERM)
        done = running.finish().expect(0)
    assert (done.ledger["duplicates"], done.ledger["stored"]) == (1, 39)
    assert rows(db, "SELECT COUNT(*) FROM notices WHERE kind = 'GAP'") == [(0,)]
    kinds = [kind.partition(":")[0] for (kind,) in rows(db, "SELECT kind FROM signals ORDER BY id")]
    assert kinds[signals_then:] == crossings(range(61, 100), range(41, 61))
    assert_sound(db)


def net(db: Path) -> dict[str, Decimal]:
    """Positions as the database keeps them for a restart."""
    stored = rows(db, "SELECT symbol, net FROM restart_state WHERE net IS NOT NULL")
    return {symbol: Decimal(text) for symbol, text in stored}


def test_a_feed_goes_on_with_another_list_of_symbols(left: Engine) -> None:
    """Issue 12.7: the list is not the feed: each symbol continues from its newest run, and a new one begins."""
    asked: list[str] = []

    def talk(peer: Talk) -> None:
        message = peer.hear()
        asked.extend(message["params"])
        peer.say({"result": None, "id": message["id"]})
        for symbol, last in (("BTCUSDT", 60), ("ETHUSDT", 40), ("SOLUSDT", 9)):
            for number in (last, last + 1):
                ts = 1_700_000_000_000 + number * 10
                trade = {"e": "trade", "E": ts, "s": symbol, "t": number, "p": f"{price_of(number):.2f}", "q": "1.0"}
                peer.say(trade | {"T": ts, "m": True, "M": True})
        peer.listen()

    db = left.path("exchange.db")
    with ExchangeServer(talk) as server:
        running = left.start(
            "--ingest=realws", "--exchange=binance", "--symbol=SOLUSDT,ETHUSDT,btcusdt", f"--ws-url={server.url}",
            "--config=tradebot.toml", "--db=exchange.db",
        )  # fmt: skip
        wait_for_ticks(db, 102 + 4)
        running.send(signal.SIGTERM)
        done = running.finish().expect(0)
    assert len(asked) == 3
    carried = done.one("CARRIED_OVER")
    assert (carried["runs"], carried["ticks"], carried["symbols"]) == (2, 102, 2)
    assert (done.ledger["duplicates"], done.ledger["stored"]) == (2, 4)
    assert rows(db, "SELECT COUNT(*) FROM notices WHERE kind = 'GAP'") == [(0,)]
    # Each of the two lists was a chain of its own: the newest one of BTCUSDT had sold once.
    assert net(db) == {"BTCUSDT": Decimal("-0.1"), "ETHUSDT": Decimal("-0.1")}
    assert rows(db, "SELECT DISTINCT feeds.name FROM runs JOIN feeds ON feeds.id = runs.feed") == [("binance",)]
    assert_sound(db)


def test_a_mockws_feed_goes_on(left: Engine, tmp_path: Path) -> None:
    """Contract 3 and 6: two symbols, one with a hole that was half filled; the second run ended by a kill."""
    db = left.path("push.db")
    left.path("push.db.throttle.json").unlink()
    with MockWsProcess(tmp_path) as mockws:
        running = left.start("--ingest=mockws", f"--ws-url={mockws.url}", "--config=tradebot.toml", "--db=push.db")
        mockws.wait_clients(1)
        # Known: 180 and 130, and the late 51. Late: 50. Missing: 131 and 132.
        for symbol, number in (
            *(("SOL/USDC", 180), ("SOL/USDC", 181)),
            *(("ETH/USDC", 130), ("ETH/USDC", 51), ("ETH/USDC", 50), ("ETH/USDC", 133)),
        ):
            ts, price = 1_700_000_000_000 + number * 10, price_of(number)
            mockws.tick(symbol, price, 1.0, ts, seq=number, event_id=f"{symbol}-{number}")
        wait_for_ticks(db, 308 + 3)
        running.send(signal.SIGTERM)
        done = running.finish().expect(0)
    carried = done.one("CARRIED_OVER")
    assert (carried["runs"], carried["ticks"], carried["symbols"]) == (2, 308, 2)
    assert (done.ledger["duplicates"], done.ledger["stored"]) == (3, 3)
    [(no,)] = rows(db, "SELECT MAX(id) FROM runs")
    query = f"SELECT symbol, missing FROM notices WHERE kind = 'GAP' AND run = {no}"
    assert rows(db, query) == [("ETH/USDC", 2)]
    fills = rows(db, f"SELECT symbol, side FROM trades WHERE run = {no}")
    change = {symbol: sum(Decimal("0.1") if side == "BUY" else Decimal("-0.1") for s, side in fills if s == symbol)
              for symbol in ("SOL/USDC", "ETH/USDC")}  # fmt: skip
    assert net(db) == {"SOL/USDC": Decimal("-0.1") + change["SOL/USDC"], "ETH/USDC": change["ETH/USDC"]}
    assert_sound(db)


def test_the_status_file_is_read(left: Engine) -> None:
    """Contract 8 and 9: a status of then is understood by `status` and `health` of now."""
    told = left.run("status", "--db=push.db", "--json")
    said = json.loads(told.stdout)
    assert "Traceback" not in told.stderr
    assert (said["status"]["run_id"], said["status"]["state"]) == ("l1796067549189ab1dcd89", "ended")


def test_the_throttle_file_is_obeyed(left: Engine) -> None:
    """Contract 9: an engine with a push feed keeps every fifth tick, as the file asks."""
    left.path("push.db.throttle.json").rename(left.path("fresh.db.throttle.json"))
    done = left.run("--config=tradebot.toml", "--db=fresh.db", "--seconds=0.3").expect(0)
    assert done.one("THROTTLED")["sample_every"] == 5
    assert done.ledger["sampled_out"] >= 4 * done.ledger["stored"] > 0


def test_the_configuration_is_accepted_and_means_the_same(left: Engine) -> None:
    """Contract 2: a key of a later version enters no hash while it has its default."""
    left.run("check-config", "tradebot.toml").expect(0)
    shown = left.run("show-config", "--config=tradebot.toml").expect(0).stdout
    assert "configuration fabf9150b0fd," in shown.splitlines()[0]


def test_every_fixture_is_described() -> None:
    """No file without a word on how it was made, and small enough to be kept."""
    described = (SCHEMA3 / "README.md").read_text()
    names = sorted(path.name for path in SCHEMA3.iterdir() if path.name != "README.md")
    assert [name for name in names if f"`{name.removesuffix('.gz')}`" not in described] == []
    assert sum(path.stat().st_size for path in SCHEMA3.iterdir()) < 300_000
