"""The table `runs`: beginning, resuming and finishing, and what is said when a run is there already."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace
from peewee import SqliteDatabase

from tests.unit.store_helpers import full_batch, locked, new_database, rows, run_info, storage_of
from tradebot.core.errors import ConfigError
from tradebot.feeds.exchanges import EXCHANGES
from tradebot.store.batch import StoredCounts
from tradebot.store.database import connect
from tradebot.store.errors import StorageUnavailable
from tradebot.store.feed_identity import feed_name, feed_of_source, synthetic_name, takes_over
from tradebot.store.runs import RESULT_RULES, RunEnd, RunRecord, begin_run, finish_run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


@pytest.fixture
def db(path: Path) -> Iterator[SqliteDatabase]:
    with closing(new_database(path)) as made:
        yield made


def test_a_new_run(path: Path, db: SqliteDatabase) -> None:
    """What a run is and when it first started."""
    assert begin_run(db, run_info("r1"), 17, resume=False) == RunRecord(1, "r1")
    assert begin_run(db, run_info("l2", push=True, source="synthetic:A"), 18, resume=False) == RunRecord(2, "l2")
    sql = "SELECT run_id, version, mode, ingest, source, config_hash, first_start_ms, complete, exit_code FROM runs"
    assert rows(path, sql) == [
        ("r1", "0.1", "SHADOW", "replay", "file:x.jsonl", "c0ffee", 17, 0, None),
        ("l2", "0.1", "SHADOW", "synthetic", "synthetic:A", "c0ffee", 18, 0, None),
    ]


def test_a_new_run_with_resume_starts(db: SqliteDatabase) -> None:
    """With --resume one not yet held starts."""
    assert begin_run(db, run_info("r1"), 17, resume=True).is_new


class TestHeldAlready:
    def begun(self, path: Path, db: SqliteDatabase) -> RunRecord:
        record = begin_run(db, run_info("r1"), 17, resume=False)
        with storage_of(path, record) as storage:
            storage.write(full_batch(1, 10))
        return record

    def test_in_part(self, path: Path, db: SqliteDatabase) -> None:
        """Refused with 12 and a hint; nothing changes."""
        self.begun(path, db)
        before = rows(path, "SELECT * FROM runs")
        with pytest.raises(
            ConfigError, match=r"in part \(10 ticks\) \(run r1\); use --resume to complete it, or another"
        ):
            begin_run(db, run_info("r1"), 99, resume=False)
        assert rows(path, "SELECT * FROM runs") == before

    def test_resumed(self, path: Path, db: SqliteDatabase) -> None:
        """A partial one continues, from what it holds; its first start stays."""
        record = self.begun(path, db)
        finish_run(db, record.no, RunEnd(50, 13, complete=False, ledger={"received": 10}))
        again = begin_run(db, run_info("r1"), 99, resume=True)
        assert again == RunRecord(1, "r1", StoredCounts(10, 2, 2, 2), complete=False, is_new=False)
        assert rows(path, "SELECT first_start_ms, last_end_ms, exit_code FROM runs") == [(17, None, None)]
        with storage_of(path, again) as storage:
            storage.write(full_batch(11, 5))
        assert rows(path, "SELECT ticks, signals, first_tick_id, last_tick_id FROM runs") == [(15, 3, 1, 15)]

    def test_whole(self, path: Path, db: SqliteDatabase) -> None:
        """A complete one says so."""
        record = self.begun(path, db)
        finish_run(db, record.no, RunEnd(50, 0, complete=True, ledger={}))
        with pytest.raises(ConfigError, match=r"holds this replay, whole \(run r1\); use --resume to check that"):
            begin_run(db, run_info("r1"), 99, resume=False)
        assert begin_run(db, run_info("r1"), 99, resume=True).complete
        assert rows(path, "SELECT last_end_ms, exit_code, complete FROM runs") == [(50, 0, 1)]

    def test_a_push_feed_is_never_resumed(self, db: SqliteDatabase) -> None:
        """A restart with a push feed is a new run."""
        begin_run(db, run_info("l1", push=True), 17, resume=False)
        with pytest.raises(ConfigError, match="run id l1 is already in database"):
            begin_run(db, run_info("l1", push=True), 18, resume=True)

    def test_a_commit_in_doubt_is_found_again(self, db: SqliteDatabase) -> None:
        """The sync of the commit failed, so that it is tried again: the entry of this very start is no other run's."""
        record = begin_run(db, run_info("l1", push=True), 17, resume=False)
        assert begin_run(db, run_info("l1", push=True), 17, resume=False) == record
        db.execute_sql("UPDATE runs SET ticks = 1")
        with pytest.raises(ConfigError, match="run id l1 is already in database"):
            begin_run(db, run_info("l1", push=True), 17, resume=False)

    @pytest.mark.parametrize("first", [run_info("x", push=True), run_info("x", mode="PAPER")], ids=["feed", "mode"])
    def test_a_replay_does_not_go_on_in_a_run_of_another_kind(self, db: SqliteDatabase, first: object) -> None:
        """A --run-id of one's own may hit any run: its rows are not to be mixed with a replay's."""
        assert isinstance(first, type(run_info()))
        begin_run(db, first, 17, resume=False)
        with pytest.raises(ConfigError, match=r"run id x is already in database .* choose another --run-id"):
            begin_run(db, run_info("x"), 18, resume=True)


def test_the_end(path: Path, db: SqliteDatabase) -> None:
    """Exit code, last end and ledger, of this run alone."""
    for run_id in ("r1", "r2"):
        begin_run(db, run_info(run_id), 17, resume=False)
    finish_run(db, 2, RunEnd(50, 13, complete=False, ledger={"received": 10, "cause": None}))
    found = rows(path, "SELECT last_end_ms, exit_code, complete, ledger FROM runs ORDER BY id")
    assert found[0] == (None, None, 0, None)
    assert found[1][:3] == (50, 13, 0)
    assert json.loads(found[1][3]) == {"received": 10, "cause": None}


def test_locked(path: Path, db: SqliteDatabase) -> None:
    db.execute_sql("PRAGMA busy_timeout = 1")
    with locked(path):
        with pytest.raises(StorageUnavailable, match="SQLITE_BUSY"):
            begin_run(db, run_info(), 17, resume=False)
        with pytest.raises(StorageUnavailable, match="SQLITE_BUSY"):
            finish_run(db, 1, RunEnd(50, 0, complete=True, ledger={}))
    with closing(connect(path)) as again:
        begin_run(again, run_info(), 17, resume=False)


class TestResultRules:
    """What was begun under other rules is not continued under these."""

    def begun(self, path: Path, db: SqliteDatabase, rules: int | None, frames: bool = False) -> None:
        info = replace(run_info("r1"), frames=frames)
        with storage_of(path, begin_run(db, info, 17, resume=False)) as storage:
            storage.write(full_batch(1, 10))
        assert rows(path, "SELECT result_rules FROM runs") == [(RESULT_RULES,)]
        db.execute_sql("UPDATE runs SET result_rules = ?", (rules,))

    @pytest.mark.parametrize("rules", [1, RESULT_RULES + 1])
    def test_a_resume_under_other_rules_is_refused(self, path: Path, db: SqliteDatabase, rules: int) -> None:
        self.begun(path, db, rules)
        with pytest.raises(ConfigError, match=rf"begun by tradebot 0.1 under result rules {rules};.*another --db"):
            begin_run(db, run_info("r1"), 99, resume=True)

    def test_a_replay_of_ticks_from_before_is_completed_by_the_rules_of_then(
        self, path: Path, db: SqliteDatabase
    ) -> None:
        """Schema 3 did not record them; what changed since for ticks can still be left out (`risk.check`)."""
        self.begun(path, db, None)
        assert begin_run(db, run_info("r1"), 99, resume=True).result_rules == 1

    @pytest.mark.parametrize("frames", [False, True])
    def test_a_replay_under_rules_that_are_still_known_is_completed_by_them(
        self, path: Path, db: SqliteDatabase, frames: bool
    ) -> None:
        self.begun(path, db, 2, frames)
        assert begin_run(db, replace(run_info("r1"), frames=frames), 99, resume=True).result_rules == 2

    def test_a_replay_of_frames_from_before_is_not(self, path: Path, db: SqliteDatabase) -> None:
        """Frames that came newest first were read in another order."""
        self.begun(path, db, None, frames=True)
        with pytest.raises(ConfigError, match="under result rules 1;"):
            begin_run(db, replace(run_info("r1"), frames=True), 99, resume=True)

    def test_a_complete_one_is_shown_under_any_rules(self, path: Path, db: SqliteDatabase) -> None:
        self.begun(path, db, 1)
        finish_run(db, 1, RunEnd(20, 0, complete=True, ledger={}))
        assert begin_run(db, run_info("r1"), 99, resume=True).complete


class TestIdentity:
    """A feed is its exchange and market."""

    @pytest.mark.parametrize(
        ("ingest", "source", "name"),
        [
            ("realws", "binance:btcusdt,ethusdt", "binance"),
            ("realws", "binance:BTCUSDT", "binance"),
            ("realws", "bitget:USDT-FUTURES:BTCUSDT", "bitget"),
            ("realws", "kraken_futures:PF_XBTUSD", "kraken_futures"),
            ("mockws", "mockws:ws://localhost:9001", "mockws"),
            ("mockws", "mockws:wss://user:***@[::1]:9001/x", "mockws"),
            ("synthetic", "synthetic:SOL/USDC", "synthetic:SOL/USDC"),
        ],
    )
    def test_of_a_run_of_schema_3(self, ingest: str, source: str, name: str) -> None:
        assert feed_of_source(ingest, source) == name

    def test_markets_are_kept_apart(self) -> None:
        assert feed_name("binance") == "binance"
        assert feed_name("binance", "usdm") == "binance:usdm"
        assert synthetic_name("A") == feed_of_source("synthetic", "synthetic:A")

    def test_who_takes_over_a_run_of_schema_3(self) -> None:
        """Its market is not known: the first feed of its exchange that starts."""
        assert takes_over("binance", "realws", "binance:btcusdt")
        assert takes_over("binance:usdm", "realws", "binance:btcusdt")
        assert not takes_over("kraken", "realws", "binance:btcusdt")
        assert not takes_over("synthetic:A", "synthetic", "synthetic:B")

    @pytest.mark.parametrize(
        ("exchange", "url", "market"),
        [
            ("binance", "wss://stream.binance.com:9443/ws", ""),
            ("binance", "wss://data-stream.binance.vision/ws", ""),
            ("binance", "wss://fstream.binance.com/market/ws", "usdm"),
            ("binance", "wss://dstream.binance.com/ws", "coinm"),
            ("binance", "wss://stream.binance.us:9443/ws", "us"),
            ("binance", "ws://127.0.0.1:9001", ""),
            ("bybit", "wss://stream.bybit.com/v5/public/spot", ""),
            ("bybit", "wss://stream.bybit.com/v5/public/linear", "linear"),
            ("bybit", "wss://stream-testnet.bybit.com/v5/public/inverse?x=1", "inverse"),
            ("kucoin", "wss://ws-api-spot.kucoin.com/", ""),
            ("kucoin", "wss://ws-api-futures.kucoin.com/", "futures"),
            ("kucoin", "wss://x-push-futures.kucoin.com", "futures"),
            ("okx", "wss://ws.okx.com:8443/ws/v5/public", ""),
        ],
    )
    def test_the_market_of_an_endpoint(self, exchange: str, url: str, market: str) -> None:
        assert EXCHANGES[exchange].market_of(url) == market

    def test_runs_of_one_feed_share_its_row(self, path: Path, db: SqliteDatabase) -> None:
        for number, symbols in enumerate(("a", "a,b", "A")):
            info = replace(
                run_info(f"l{number}", push=True), ingest="realws", source=f"binance:{symbols}", feed="binance"
            )
            begin_run(db, info, 17, resume=False)
        begin_run(db, replace(run_info("k", push=True), ingest="realws", feed="kraken"), 17, resume=False)
        begin_run(
            db, replace(run_info("p", push=True), ingest="realws", feed="binance", mode="PAPER"), 17, resume=False
        )
        assert rows(path, "SELECT feed FROM runs ORDER BY id") == [(1,), (1,), (1,), (2,), (3,)]
        assert rows(path, "SELECT name, mode, runs FROM feeds ORDER BY id") == [
            ("binance", "SHADOW", 3), ("kraken", "SHADOW", 1), ("binance", "PAPER", 1),
        ]  # fmt: skip
