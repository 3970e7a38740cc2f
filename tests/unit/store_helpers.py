"""What the tests of the store share: small databases with one run, events to put in, and looking at them from outside.

Looking is done with plain sqlite3, so that nothing is checked with the code that is tested.
"""

from __future__ import annotations

import io
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from peewee import SqliteDatabase

from tradebot.core.events import BUY, SELL, Event, Fill, LimitBreach, Order, Signal, Tick, TickChunk
from tradebot.core.log_events import LogEvent
from tradebot.core.runtime import RealRuntime
from tradebot.output.log import Log, setup_logging
from tradebot.store.batch import WriteBatch
from tradebot.store.database import connect, migrate
from tradebot.store.feed_identity import feed_of_source
from tradebot.store.runs import RunInfo, RunRecord, begin_run
from tradebot.store.writer import SqliteWriter

REPO = Path(__file__).resolve().parents[2]
TABLES = ("ticks", "signals", "orders", "trades")
NOBODY = 65534

# The schema of the original system: its columns and indexes, nothing else.
ORIGINAL_SCHEMA = """
CREATE TABLE ticks (id INTEGER PRIMARY KEY, symbol TEXT NOT NULL, price REAL NOT NULL, volume REAL NOT NULL,
    ts INTEGER NOT NULL);
CREATE INDEX idx_ticks_ts ON ticks (ts);
CREATE TABLE signals (id INTEGER PRIMARY KEY, symbol TEXT NOT NULL, kind TEXT NOT NULL, value REAL NOT NULL,
    ts INTEGER NOT NULL);
CREATE INDEX idx_signals_ts ON signals (ts);
CREATE TABLE orders (id INTEGER PRIMARY KEY, symbol TEXT NOT NULL, side TEXT NOT NULL, qty REAL NOT NULL, price REAL,
    status TEXT NOT NULL, ts INTEGER NOT NULL);
CREATE INDEX idx_orders_ts ON orders (ts);
CREATE TABLE trades (id INTEGER PRIMARY KEY, event_id TEXT NOT NULL UNIQUE, order_id TEXT NOT NULL,
    symbol TEXT NOT NULL, side TEXT NOT NULL, fill_qty REAL NOT NULL, fill_price REAL NOT NULL, fees REAL NOT NULL,
    ts INTEGER NOT NULL, is_shadow INTEGER NOT NULL DEFAULT 1);
CREATE INDEX idx_trades_ts ON trades (ts);
CREATE INDEX idx_trades_order_id ON trades (order_id);
INSERT INTO ticks (symbol, price, volume, ts) VALUES ('OLD/USD', 1.5, 2.0, 1700000000);
INSERT INTO ticks (symbol, price, volume, ts) VALUES ('OLD/USD', 1.6, 0.0, 1700000001);
INSERT INTO signals (symbol, kind, value, ts) VALUES ('OLD/USD', 'BUY:SMA_CROSSOVER', 0.75, 1700000001);
INSERT INTO orders (symbol, side, qty, price, status, ts) VALUES ('OLD/USD', 'BUY', 0.1, NULL, 'FILLED', 1700000001);
INSERT INTO trades (event_id, order_id, symbol, side, fill_qty, fill_price, fees, ts)
    VALUES ('old-1', 'old-o', 'OLD/USD', 'BUY', 0.1, 100.0, 0.01, 1700000001);
"""


def run_info(run_id: str = "r1", *, push: bool = False, source: str = "file:x.jsonl", mode: str = "SHADOW") -> RunInfo:
    ingest = "synthetic" if push else "replay"
    return RunInfo(run_id, "0.1", mode, ingest, source, "c0ffee", push, feed_of_source(ingest, source) if push else "")


def new_database(path: Path) -> SqliteDatabase:
    """A migrated database; the caller closes the connection."""
    db = connect(path)
    migrate(db)
    return db


def new_run(path: Path, run_id: str = "r1", *, push: bool = False, source: str = "file:x.jsonl") -> RunRecord:
    """A database with a run that has begun."""
    with closing(new_database(path)) as db:
        return begin_run(db, run_info(run_id, push=push, source=source), 1_700_000_000_000, resume=False)


@contextmanager
def memory_run(run_id: str = "r1") -> Iterator[tuple[SqliteDatabase, RunRecord]]:
    """A run in a database in memory: for properties, which would wait for the disk at each example."""
    db = SqliteDatabase(":memory:", autoconnect=False)
    db.connect()
    with closing(db):
        migrate(db)
        yield db, begin_run(db, run_info(run_id), 1_700_000_000_000, resume=False)


def dump_of(db: SqliteDatabase) -> dict[str, list[Any]]:
    return {
        table: db.execute_sql(f"SELECT * FROM {table} ORDER BY id").fetchall()
        for table in (*TABLES, "order_events", "notices", "runs")
    }


@contextmanager
def storage_of(path: Path, record: RunRecord) -> Iterator[SqliteWriter]:
    storage = SqliteWriter(path, "NORMAL", record)
    try:
        yield storage
    finally:
        storage.close()


def tick(number: int, symbol: str = "TEST/USD", price: float | None = None) -> Tick:
    return Tick(symbol, 100.0 + number / 4 if price is None else price, 1.0, 1_700_000_000_000 + number)


def signal(number: int, run_id: str = "r1", symbol: str = "TEST/USD", side: Any = BUY) -> Signal:
    return Signal(f"{run_id}-{number:010d}-S", symbol, side, 0.75, "SMA_CROSSOVER", 0.1, 100.0 + number / 4, number)


def order(number: int, run_id: str = "r1", fills: int = 1, side: Any = BUY) -> Order:
    stem = f"{run_id}-{number:010d}"
    parts = tuple(
        Fill(f"{stem}-F{i}", f"{stem}-O", "TEST/USD", side, 0.1 / fills, 100.0 + number / 4, 0.01, number)
        for i in range(fills)
    )
    status: Any = "FILLED" if fills else "REJECTED"
    return Order(f"{stem}-O", f"{stem}-S", "TEST/USD", side, 0.1, 100.0, status, "SHADOW_RECORDED", number, 1, parts)


def batch_of(*events: Event) -> WriteBatch:
    batch = WriteBatch()
    for event in events:
        batch.add_event(event)
    return batch


def full_batch(start: int, ticks: int, every: int = 5, run_id: str = "r1") -> WriteBatch:
    """Ticks numbered from `start`; every `every`-th gives a signal and a filled order."""
    batch = WriteBatch()
    numbers = range(start, start + ticks)
    if ticks:
        batch.add(TickChunk([tick(number) for number in numbers]))
    for number in numbers:
        if number % every == 0:
            side = BUY if number % (2 * every) else SELL
            batch.add_event(signal(number, run_id, side=side))
            batch.add_event(order(number, run_id, side=side))
    return batch


def rows(path: Path, sql: str, *values: object) -> list[Any]:
    """What plain sqlite3 answers."""
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql, values).fetchall()


def dump(path: Path) -> dict[str, list[Any]]:
    return {table: rows(path, f"SELECT * FROM {table} ORDER BY id") for table in TABLES}


def counts(path: Path) -> tuple[int, int, int, int]:
    """Rows of ticks, signals, orders and trades."""
    found = [rows(path, f"SELECT COUNT(*) FROM {table}")[0][0] for table in TABLES]
    return found[0], found[1], found[2], found[3]


def assert_counters(path: Path) -> None:
    """The counters of every run are its rows, and its tick ids are those of its first and last row."""
    for no, *stored in rows(path, "SELECT id, ticks, signals, orders, trades, first_tick_id, last_tick_id FROM runs"):
        found = [rows(path, f"SELECT COUNT(*) FROM {table} WHERE run = ?", no)[0][0] for table in TABLES]
        assert stored == [*found, *rows(path, "SELECT MIN(id), MAX(id) FROM ticks WHERE run = ?", no)[0]]


def python(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Another process with this checkout's package."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(REPO)}, stdout=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


@contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """The database while another program writes it, until the connection is closed."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


class FakeRuntime(RealRuntime):
    """Time passes only in `sleep`, during which `on_sleep` is called; `signal` sends a stop signal."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.slept: list[float] = []
        self.on_sleep: Any = lambda: None

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds
        self.on_sleep()

    def signal(self) -> None:
        self._stop_signals += 1


class Logged:
    """A log that keeps its lines."""

    def __init__(self, runtime: RealRuntime | None = None) -> None:
        self._stream = io.StringIO()
        self.log: Log = setup_logging("DEBUG", "json", RealRuntime() if runtime is None else runtime, self._stream)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]

    def all(self, event: LogEvent) -> list[dict[str, Any]]:
        """The fields of the lines of this event."""
        return [line["fields"] for line in self.lines() if line["fields"].get("event") == event]

    def one(self, event: LogEvent) -> dict[str, Any]:
        (found,) = self.all(event)
        return found


@contextmanager
def unprivileged() -> Iterator[None]:
    """As somebody whom file permissions hold back: root becomes nobody for a while."""
    try:
        os.setresuid(NOBODY, NOBODY, 0)
    except PermissionError:  # not root, or a root without its powers
        yield
        return
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


_names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
_prices = st.floats(min_value=5e-324, max_value=1.7e308)
_amounts = st.floats(min_value=0, max_value=1.7e308).filter(lambda x: str(x) != "-0.0")
_whole = st.integers(0, 2**63 - 1)
_sides = st.sampled_from([BUY, SELL])

ticks_st = st.builds(
    Tick, _names, _prices, _amounts, _whole,
    event_id=st.none() | _names, seq=st.none() | st.integers(0, 2**63 - 1), taker=st.none() | _sides,
)  # fmt: skip
"""Any tick that the decoder would let through; but -0.0, which SQLite stores as 0.0."""


_papers: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    order_type=st.sampled_from(["MARKET", "LIMIT", "STOP", "STOP_LIMIT", "TRAILING_STOP"]),
    limit_price=st.none() | _prices,
    stop_price=st.none() | _prices,
    time_in_force=st.sampled_from(["GTC", "IOC", "FOK", "GTD"]),
    expire_ts=st.none() | _whole,
    post_only=st.integers(0, 1),
    reduce_only=st.integers(0, 1),
    parent_id=st.none() | _names,
)
"""What an order of PAPER has beside."""


def _numbered(parts: Sequence[tuple[str, Any, float, float, float | None, int, dict[str, Any] | None]]) -> list[Event]:
    events: list[Event] = []
    for number, (symbol, side, price, amount, order_price, fills, paper) in enumerate(parts):
        of_fill = (None,) * 4 if paper is None else ("MAKER", number + 1, amount, 1)
        stem = f"r1-{number:010d}"
        events.append(
            Signal(f"{stem}-S", symbol, side, 0.75, "SMA_CROSSOVER", amount, price, number, marks=((symbol, price),))
        )
        made = tuple(
            Fill(f"{stem}-F{i}", f"{stem}-O", symbol, side, amount, price, amount, number, 1, *of_fill)
            for i in range(fills)
        )
        breach = None if made else LimitBreach("risk_caps.max_exposure_usd", price, amount)
        status: Any = "FILLED" if made else "REJECTED"
        parts_of = (f"{stem}-O", f"{stem}-S", symbol, side, amount, order_price, status, "RISK_CAP", number, 1, made)
        events.append(Order(*parts_of, breach, **(paper or {})))
    return events


decided_st = st.lists(
    st.tuples(_names, _sides, _prices, _amounts, st.none() | _prices, st.integers(0, 3), st.none() | _papers),
    max_size=6,
).map(_numbered)
"""Signals and orders with any number of fills; ids are unique."""


def a_foreign_database(path: Path) -> None:
    """A database of another program."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE other (x)")


NOT_OURS: list[tuple[Callable[[Path], Any], str]] = [
    (lambda path: None, "does not exist"),
    (lambda path: path.mkdir(), "is a directory"),
    (lambda path: path.write_text("some text\n"), "not a SQLite database"),
    (lambda path: path.write_bytes(b""), "is empty"),
    (a_foreign_database, "belongs to another program"),
]
"""What may be at a path instead of a database of tradebot (a function that makes it), and what the error says of it."""
