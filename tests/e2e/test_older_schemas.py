"""Files written by earlier versions (fixtures/schema3 to fixtures/schema5): this version continues from them."""

from __future__ import annotations

import gzip
import hashlib
import json
import signal
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.e2e.live_peers import ExchangeServer, Talk
from tests.e2e.mockws import MockWsProcess
from tests.e2e.process import (
    REPO,
    SESSION,
    SESSION_CONFIG,
    Engine,
    Finished,
    assert_sound,
    rows,
    run_ids,
    synthetic_units,
    wait_for_ticks,
)
from tradebot.core.log_events import LogEvent


class Written(NamedTuple):
    """Files written by an earlier version, and their known content."""

    schema: int
    replay_config: Path
    replayed_ticks: int
    """Ticks of `partial.db`."""
    whole_sha256: str
    """Of what that version stored for the whole of `session.jsonl`: see `digest_of`."""
    spill_options: tuple[str, ...]
    spill_ticks: tuple[int, int]
    """Ticks in `spilled.db` and in its spill file."""
    spill_events: int
    net: dict[str, Decimal]
    """Positions that a restart of the feed of `exchange.db` takes over."""
    status_run_id: str
    config_hash: str

    @property
    def folder(self) -> Path:
        """The directory of its files."""
        return REPO / "fixtures" / f"schema{self.schema}"


SCHEMA_3: Final = Written(
    schema=3,
    replay_config=SESSION_CONFIG,
    replayed_ticks=950,
    whole_sha256="fbfb7dd62b88d7c98fab106b361bdfe5a8c539d4b0530b92747f067f7022ce88",
    spill_options=("--config=tradebot.toml", "--strategy=periodic"),
    spill_ticks=(64, 85),
    spill_events=101,
    # Each of the two lists of symbols was a chain of its own: the newest one of BTCUSDT had sold once.
    net={"BTCUSDT": Decimal("-0.1"), "ETHUSDT": Decimal("-0.1")},
    status_run_id="l1796067549189ab1dcd89",
    config_hash="fabf9150b0fd",
)
SCHEMA_4: Final = Written(
    schema=4,
    replay_config=Path("replay.toml"),
    replayed_ticks=949,
    whole_sha256="7fe35b6d65a4aca09e102f14f1346c7e53f0ada6d1ec85d20ddccc4a0cb9c5ee",
    spill_options=("--config=spilled.toml",),
    spill_ticks=(69, 99),
    spill_events=119,
    net={"BTCUSDT": Decimal("-0.1"), "ETHUSDT": Decimal("-0.1")},
    status_run_id="l179608338370215115fcc",
    config_hash="dd4a75d1d8a3",
)
SCHEMA_5: Final = Written(
    schema=5,
    replay_config=Path("replay.toml"),
    replayed_ticks=966,
    whole_sha256="7fe35b6d65a4aca09e102f14f1346c7e53f0ada6d1ec85d20ddccc4a0cb9c5ee",
    spill_options=("--config=spilled.toml",),
    spill_ticks=(60, 101),
    spill_events=121,
    net={"BTCUSDT": Decimal("-0.1"), "ETHUSDT": Decimal("-0.1")},
    status_run_id="l179609420766340dc5b21",
    config_hash="dd4a75d1d8a3",
)

COLUMNS: Final = {
    "ticks": "symbol, price, volume, ts, event_id, seq",
    "signals": "symbol, kind, value, ts, event_id, desired_size, price",
    "orders": "symbol, side, qty, price, status, ts, event_id, signal_id, reason, is_shadow",
    "trades": "event_id, order_id, symbol, side, fill_qty, fill_price, fees, ts, is_shadow",
}
"""What schema 3 stores of an event."""


REFUSED_BY: Final = ("refused_by", "refused_value", "refused_limit")
"""What schema 5 stores of an order beside that."""
SCHEMA_5_COLUMNS: Final = {
    "ticks": "id, symbol, price, volume, ts, run, event_id, seq",
    "signals": "id, symbol, kind, value, ts, event_id, desired_size, price, run",
    "orders": "id, symbol, side, qty, price, status, ts, event_id, signal_id, reason, is_shadow, run, refused_by,"
    " refused_value, refused_limit",
    "trades": "id, event_id, order_id, symbol, side, fill_qty, fill_price, fees, ts, is_shadow, run",
}
SCHEMA_5_SHA256: Final = "f6ba7e2afe8214a03e14eea886318be7933fad6aee26839fd45178b0ef3c97cf"
"""Of all columns that schema 5 stored for the whole of `session.jsonl` with `replay.toml`."""


@pytest.fixture(params=[SCHEMA_3, SCHEMA_4, SCHEMA_5], ids=lambda written: f"schema {written.schema}")
def written(request: pytest.FixtureRequest) -> Iterator[Written]:
    """The files of one of the earlier versions."""
    yield request.param


@pytest.fixture
def left(engine: Engine, written: Written) -> Engine:
    """An engine whose home contains all files of that version, under their original names."""
    for path in written.folder.iterdir():
        if path.suffix == ".gz":
            engine.path(path.stem).write_bytes(gzip.decompress(path.read_bytes()))
        else:
            engine.path(path.name).write_bytes(path.read_bytes())
    engine.path("session.jsonl").write_bytes(b"".join(SESSION.read_bytes().splitlines(keepends=True)[:3000]))
    return engine


def price_of(number: int) -> float:
    """The price of a trade of the fixtures, and of later trades."""
    return 100 + (number % 20) * 0.5


def crossings(numbers: range, before: range) -> list[str]:
    """Sides of the signals that trades `numbers` cause after trades `before`, by simple averages of 2 and 5 prices."""
    prices = [price_of(number) for number in (*before, *numbers)]
    sides = []
    for end in range(max(len(before), 5) + 1, len(prices) + 1):
        was, now = (sum(prices[at - 2 : at]) / 2 - sum(prices[at - 5 : at]) / 5 for at in (end - 1, end))
        if was <= 0 < now or was >= 0 > now:
            sides.append("BUY" if now > 0 else "SELL")
    return sides


def digest_of(db: Path, columns: Mapping[str, str] = COLUMNS) -> str:
    """SHA-256 over columns of the four tables, by default those of schema 3, with every digit of every number."""
    answers = [rows(db, f"SELECT {names} FROM {table} ORDER BY id") for table, names in columns.items()]
    return hashlib.sha256("\n".join(repr(row) for answer in answers for row in answer).encode()).hexdigest()


def test_a_killed_replay_is_completed_to_what_its_own_version_would_have_stored(left: Engine, written: Written) -> None:
    """The WAL left by the kill is recovered, and all four tables equal those of an uninterrupted run.

    Only data that schema 4 did not store is missing: the limits of orders refused before the kill.
    """
    partial, whole = left.path("partial.db"), left.path("whole.db")
    orders_then = rows(partial, "SELECT COUNT(*) FROM orders")[0][0]
    replay = (f"--config={written.replay_config}", "--replay-file=session.jsonl")
    done = left.run(*replay, "--db=partial.db", "--resume").expect(0)
    assert done.ledger["already_stored"] == written.replayed_ticks
    left.run(*replay, "--db=whole.db").expect(0)
    assert digest_of(partial) == digest_of(whole) == written.whole_sha256
    limits = f"SELECT {', '.join(REFUSED_BY)} FROM orders ORDER BY id"
    limits_now = rows(whole, limits)
    without = orders_then if written.schema < 5 else 0
    assert rows(partial, limits) == [(None, None, None)] * without + limits_now[without:]
    refused = f"SELECT {', '.join(REFUSED_BY)}, qty * price FROM orders WHERE status = 'REJECTED'"
    for key, value, limit, notional in rows(whole, refused):
        assert (key, limit) == ("risk_caps.max_symbol_exposure_usd", 6183.0)
        assert value > limit
        assert min(abs(value - notional), abs(value - 2 * notional)) < 1e-9, "from flat, or on a position of one order"
    assert len(rows(whole, refused)) == (0 if written.schema == 3 else 33)
    assert_sound(partial)


@pytest.mark.parametrize("written", [SCHEMA_5], indirect=True)
def test_a_replay_stores_what_schema_5_stored_and_nothing_in_new_columns(left: Engine) -> None:
    """Byte for byte, row ids included; columns and tables of PAPER stay empty."""
    whole = left.path("whole.db")
    left.run("--config=replay.toml", "--replay-file=session.jsonl", "--db=whole.db").expect(0)
    assert digest_of(whole, SCHEMA_5_COLUMNS) == SCHEMA_5_SHA256
    for table, names in SCHEMA_5_COLUMNS.items():
        added = {name for _no, name, *_ in rows(whole, f"PRAGMA table_info({table})")} - set(names.split(", "))
        assert bool(added) == (table != "signals")
        for name in added:
            assert rows(whole, f"SELECT COUNT({name}) FROM {table}") == [(0,)], name


@pytest.mark.parametrize("written", [SCHEMA_5], indirect=True)
def test_a_replay_of_stored_ticks_has_the_run_id_that_schema_5_gave_it(left: Engine) -> None:
    """The id is a hash of the ticks, which have no taker's side; with sides of takers they are other ticks."""
    replay = ("--ingest=replay", "--replay-db=exchange.db", "--config=tradebot.toml")
    left.run(*replay, "--db=again.db").expect(0)
    assert run_ids(left.path("again.db")) == ["r1d65b40543b1"]
    with closing(sqlite3.connect(left.path("exchange.db"))) as db, db:
        db.execute("ALTER TABLE ticks ADD COLUMN taker TEXT")
        db.execute("UPDATE ticks SET taker = 'BUY' WHERE id = (SELECT MAX(id) FROM ticks)")
    left.run(*replay, "--db=again.db").expect(0)
    db_path = left.path("again.db")
    assert run_ids(db_path)[0] == "r1d65b40543b1" != run_ids(db_path)[1]
    assert [taker for (taker,) in rows(db_path, "SELECT taker FROM ticks WHERE run = 2")] == [None] * 19 + ["BUY"]


def test_a_spill_file_is_adopted_and_the_feed_goes_on(left: Engine, written: Written) -> None:
    """An older format is stored in order, and prices and sides continue without a gap."""
    db = left.path("spilled.db")
    spilled = left.path("spilled.db.spill").read_text().rstrip("\0").splitlines()
    orders_then = rows(db, "SELECT COUNT(*) FROM orders")[0][0] + sum(line.startswith('["o"') for line in spilled)
    done = left.run(*written.spill_options, "--db=spilled.db", "--seconds=0.3").expect(0)
    adopted = done.one(LogEvent.SPILL_ADOPTED)
    assert (adopted["stored"], adopted["already_stored"], adopted["whole"]) == (written.spill_events, 0, True)
    assert done.one(LogEvent.CARRIED_OVER)["ticks"] == sum(written.spill_ticks)
    assert not left.path("spilled.db.spill").exists()
    units = synthetic_units(db)
    assert len(units) == sum(written.spill_ticks) + done.ledger["stored"]
    limits = rows(db, "SELECT status, refused_by FROM orders ORDER BY id")
    cap = "risk_caps.max_exposure_usd"
    without = orders_then if written.schema < 5 else 0
    assert {key for _, key in limits[:without]} <= {None}
    assert all(key == (cap if status == "REJECTED" else None) for status, key in limits[without:])
    assert ("REJECTED" in dict(limits)) == (written.schema >= 4)
    kinds = [kind for (kind,) in rows(db, "SELECT kind FROM signals ORDER BY id")]
    assert kinds == [("SELL", "BUY")[n % 2] + ":PERIODIC_TRIGGER" for n in range(len(units) // 10)]
    assert_sound(db)


def binance_trade(symbol: str, number: int) -> dict[str, Any]:
    """The message of a trade that continues those of the fixtures."""
    ts, price = 1_700_000_000_000 + number * 10, f"{price_of(number):.2f}"
    return {"e": "trade", "E": ts, "s": symbol, "t": number, "p": price, "q": "1.0", "T": ts, "m": True, "M": True}


def run_exchange_feed(left: Engine, talk: Callable[[Talk], None], symbols: str, new_ticks: int) -> Finished:
    """Run the feed of `exchange.db`, which contains 102 ticks, until `count` more are stored."""
    with ExchangeServer(talk) as server:
        running = left.start(
            "--ingest=realws", "--exchange=binance", f"--symbol={symbols}", f"--ws-url={server.url}",
            "--config=tradebot.toml", "--db=exchange.db",
        )  # fmt: skip
        wait_for_ticks(left.path("exchange.db"), 102 + new_ticks)
        running.send(signal.SIGTERM)
        return running.finish().expect(0)


def test_an_exchange_feed_goes_on(left: Engine) -> None:
    """Window, numbering and position of BTCUSDT continue from its last trade."""

    def talk(peer: Talk) -> None:
        message = peer.hear()
        peer.say({"result": None, "id": message["id"]})
        for number in (60, *range(61, 100)):  # the first one was stored by the version before
            peer.say(binance_trade("BTCUSDT", number))
        peer.listen()

    db = left.path("exchange.db")
    signals_then = rows(db, "SELECT COUNT(*) FROM signals")[0][0]
    done = run_exchange_feed(left, talk, "BTCUSDT", new_ticks=39)
    assert (done.ledger["duplicates"], done.ledger["stored"]) == (1, 39)
    assert rows(db, "SELECT COUNT(*) FROM notices WHERE kind = 'GAP'") == [(0,)]
    kinds = [kind.partition(":")[0] for (kind,) in rows(db, "SELECT kind FROM signals ORDER BY id")]
    assert kinds[signals_then:] == crossings(range(61, 100), range(41, 61))
    assert_sound(db)


def net(db: Path) -> dict[str, Decimal]:
    """The positions in the restart state of the database."""
    stored = rows(db, "SELECT symbol, net FROM restart_state WHERE net IS NOT NULL")
    return {symbol: Decimal(text) for symbol, text in stored}


def fills_of(db: Path) -> dict[str, Decimal]:
    """The positions computed from all fills in the database."""
    sums: dict[str, Decimal] = {}
    for symbol, side, qty in rows(db, "SELECT symbol, side, fill_qty FROM trades"):
        sums[symbol] = sums.get(symbol, Decimal(0)) + (Decimal(repr(qty)) if side == "BUY" else -Decimal(repr(qty)))
    return sums


def test_a_feed_goes_on_with_another_list_of_symbols(left: Engine, written: Written) -> None:
    """The list does not identify the feed: each symbol continues from its newest run, and a new one starts."""
    asked: list[str] = []

    def talk(peer: Talk) -> None:
        message = peer.hear()
        asked.extend(message["params"])
        peer.say({"result": None, "id": message["id"]})
        for symbol, last in (("BTCUSDT", 60), ("ETHUSDT", 40), ("SOLUSDT", 9)):
            for number in (last, last + 1):
                peer.say(binance_trade(symbol, number))
        peer.listen()

    db = left.path("exchange.db")
    done = run_exchange_feed(left, talk, "SOLUSDT,ETHUSDT,btcusdt", new_ticks=4)
    assert len(asked) == 3
    carried = done.one(LogEvent.CARRIED_OVER)
    assert (carried["runs"], carried["ticks"], carried["symbols"]) == (2, 102, 2)
    assert (done.ledger["duplicates"], done.ledger["stored"]) == (2, 4)
    assert rows(db, "SELECT COUNT(*) FROM notices WHERE kind = 'GAP'") == [(0,)]
    assert net(db) == written.net
    assert rows(db, "SELECT DISTINCT feeds.name FROM runs JOIN feeds ON feeds.id = runs.feed") == [("binance",)]
    assert_sound(db)


def test_a_mockws_feed_goes_on(left: Engine, tmp_path: Path) -> None:
    """Two symbols, one with a partly filled gap; the second run was ended by a kill."""
    db = left.path("push.db")
    before = fills_of(db)
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
    carried = done.one(LogEvent.CARRIED_OVER)
    assert (carried["runs"], carried["ticks"], carried["symbols"]) == (2, 308, 2)
    assert (done.ledger["duplicates"], done.ledger["stored"]) == (3, 3)
    [(no,)] = rows(db, "SELECT MAX(id) FROM runs")
    query = f"SELECT symbol, missing FROM notices WHERE kind = 'GAP' AND run = {no}"
    assert rows(db, query) == [("ETH/USDC", 2)]
    assert set(before) == {"SOL/USDC", "ETH/USDC"} and net(db) == fills_of(db)
    assert_sound(db)


def test_the_status_file_is_read(left: Engine, written: Written) -> None:
    """`status` and `health` read the status file of an earlier version."""
    told = left.run("status", "--db=push.db", "--json")
    said = json.loads(told.stdout)
    assert "Traceback" not in told.stderr
    assert (said["status"]["run_id"], said["status"]["state"]) == (written.status_run_id, "ended")


def test_the_throttle_file_is_obeyed(left: Engine) -> None:
    """An engine with a push feed keeps every fifth tick, as the file requires."""
    left.path("push.db.throttle.json").rename(left.path("fresh.db.throttle.json"))
    done = left.run("--config=tradebot.toml", "--db=fresh.db", "--seconds=0.3").expect(0)
    assert done.one(LogEvent.THROTTLED)["sample_every"] == 5
    assert done.ledger["sampled_out"] >= 4 * done.ledger["stored"] > 0


def test_the_configuration_is_accepted_and_means_the_same(left: Engine, written: Written) -> None:
    """A key of a later version is in no hash while it has its default."""
    left.run("check-config", "tradebot.toml").expect(0)
    shown = left.run("show-config", "--config=tradebot.toml").expect(0).stdout
    assert f"configuration {written.config_hash}," in shown.splitlines()[0]


def test_every_fixture_is_described(written: Written) -> None:
    """The README describes how each file was made, and the files are small."""
    described = (written.folder / "README.md").read_text()
    names = sorted(path.name for path in written.folder.iterdir() if path.name != "README.md")
    assert [name for name in names if f"`{name.removesuffix('.gz')}`" not in described] == []
    assert sum(path.stat().st_size for path in written.folder.iterdir()) < 300_000
