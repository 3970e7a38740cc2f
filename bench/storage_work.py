"""A process that writes to a database or reads from it, for bench.storage; one JSON object on standard output.

Usage:
  bench.storage_work write DB [--seconds=S] [--ticks=N] [--synchronous=WORD] [--batch=N] [--age=S]
  bench.storage_work read DB [--seconds=S]

Options:
  --seconds=S         Stop after S seconds [default: 5].
  --ticks=N           For write: also stop after N ticks; 0: no limit [default: 0].
  --synchronous=WORD  For write: NORMAL or FULL [default: NORMAL].
  --batch=N           For write: the number of ticks in a transaction, with N/15 signals and orders [default: 100].
  --age=S             For write: the age of the ticks in seconds [default: 0].

`write` uses tradebot's storage at full speed, as a run of a push feed. `read` continuously runs queries like those of
people and tools; it never waits for a lock, so that each SQLITE_BUSY is counted.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from docopt import docopt

from tradebot import __version__
from tradebot.config.model import Synchronous
from tradebot.core.events import BUY, SELL, Fill, Order, OrderStatus, Side, Signal, Tick, TickChunk
from tradebot.store.batch import WriteBatch
from tradebot.store.database import connect, migrate
from tradebot.store.runs import RunInfo, RunRecord, begin_run
from tradebot.store.writer import SqliteWriter

SIGNAL_EVERY = 15
QUERIES = (
    "SELECT MAX(id), MAX(ts) FROM ticks",
    "SELECT id, run_id, ticks, signals, orders, trades, last_end_ms FROM runs ORDER BY id DESC LIMIT 5",
    "SELECT ts, price FROM ticks ORDER BY id DESC LIMIT 200",
    "SELECT o.ts, o.side, o.status, s.kind, t.fill_price FROM orders o JOIN signals s ON s.event_id = o.signal_id"
    " JOIN trades t ON t.order_id = o.event_id ORDER BY o.id DESC LIMIT 50",
    "SELECT symbol, COUNT(*), MIN(price), MAX(price) FROM (SELECT * FROM ticks ORDER BY id DESC LIMIT 20000)"
    " GROUP BY symbol",
)


def begin(db_path: Path, age_s: float) -> RunRecord:
    """Begin a run that started `age_s` ago; creates the database if it does not exist."""
    now_ms = time.time_ns() // 1_000_000
    info = RunInfo(f"l{now_ms}", __version__, "SHADOW", "mockws", "ws://bench", "bench", push=True)
    with closing(connect(db_path)) as db:
        migrate(db)
        return begin_run(db, info, now_ms - round(age_s * 1000), resume=False)


def batch_of(run_id: str, first: int, ticks: int, start_ms: int) -> WriteBatch:
    """Ticks from number `first` on, at intervals of 200 us, with an order for every 15th tick."""
    batch, numbers = WriteBatch(), range(first, first + ticks)
    batch.add(TickChunk([Tick("BTCUSDT", 60_000 + n % 997 / 100, 0.125, start_ms + n // 5, None, n) for n in numbers]))
    for number in numbers:
        if number % SIGNAL_EVERY == 0:
            stem, ts, price = f"{run_id}-{number:010d}", start_ms + number // 5, 60_000 + number % 997 / 100
            side: Side = BUY if number % 2 else SELL
            fill = Fill(f"{stem}-T", f"{stem}-O", "BTCUSDT", side, 0.1, price, 6.0, ts)
            batch.add_event(Signal(f"{stem}-S", "BTCUSDT", side, 0.75, "SMA_CROSSOVER", 0.1, price, ts))
            stored: OrderStatus = "FILLED"
            parts = (side, 0.1, price, stored, "SHADOW_RECORDED", ts, 1, (fill,))
            batch.add_event(Order(f"{stem}-O", f"{stem}-S", "BTCUSDT", *parts))
    return batch


def write(db_path: Path, seconds: float, ticks: int, synchronous: Synchronous, size: int, age_s: float) -> Any:
    """Write until the time is over or the number of ticks is reached."""
    record = begin(db_path, age_s)
    start_ms = time.time_ns() // 1_000_000 - round(age_s * 1000)
    storage = SqliteWriter(db_path, synchronous, record)
    storage.open()
    took_s, stored, began_s = [], 0, time.perf_counter()
    while time.perf_counter() - began_s < seconds and not 0 < ticks <= stored:
        batch = batch_of(record.run_id, stored + 1, size, start_ms)
        begun_s = time.perf_counter()
        storage.write(batch)
        took_s.append(time.perf_counter() - begun_s)
        stored += size
    elapsed_s = time.perf_counter() - began_s
    storage.close()
    took_s.sort()
    p99_ms, worst_ms = took_s[int(len(took_s) * 0.99)] * 1000, took_s[-1] * 1000
    return {"ticks": stored, "seconds": elapsed_s, "in_writes_s": sum(took_s), "p99_ms": p99_ms, "worst_ms": worst_ms}


def read(db_path: Path, seconds: float) -> Any:
    """Read until the time is over."""
    answered = busy = 0
    began_s = time.perf_counter()
    with closing(sqlite3.connect(f"{db_path.absolute().as_uri()}?mode=ro", uri=True, timeout=0)) as db:
        while time.perf_counter() - began_s < seconds:
            try:
                db.execute(QUERIES[(answered + busy) % len(QUERIES)]).fetchall()
                answered += 1
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                busy += 1
    return {"queries": answered, "busy": busy, "seconds": time.perf_counter() - began_s}


def main() -> None:
    """Write or read, and print the result."""
    given = docopt(__doc__ or "")
    db_path, seconds = Path(given["DB"]), float(given["--seconds"])
    if given["write"]:
        numbers = int(given["--ticks"]), given["--synchronous"], int(given["--batch"]), float(given["--age"])
        found = write(db_path, seconds, *numbers)
    else:
        found = read(db_path, seconds)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
