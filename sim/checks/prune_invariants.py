"""Reconstructs the unpruned database and checks the pruned one against it.

Triggers save each deleted row in the transaction that deletes it, so after any kill every row is either present or
saved. With the saved rows restored, the checks for unpruned databases apply.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Final

from sim.world.world import TABLES
from tradebot.core.events import Fill
from tradebot.portfolio.positions import Positions

_DECIDED: Final = ("signals", "orders", "trades")
_ORDER: Final = {
    "ticks": "id",
    "notices": "ticks_before, id",
    "order_events": "tick, id",
    **dict.fromkeys(_DECIDED, "event_id"),
}
"""The order of the rows of a run; row ids are reused after all newer rows were pruned."""
_NUMBER: Final = "CAST(substr(event_id, -12, 10) AS INTEGER)"
"""The number of the tick that caused a signal, order or trade, from 1."""


def keep_deleted(path: Path) -> None:
    """Save all deleted rows from now on; those of a run until the run itself is deleted. May be repeated."""
    with closing(sqlite3.connect(path)) as db, db:
        for table in TABLES:
            columns = _columns(db, table)
            olds = ", ".join(f"OLD.{name}" for name in columns)
            db.execute(f"CREATE TABLE IF NOT EXISTS gone_{table} AS SELECT {', '.join(columns)} FROM {table} WHERE 0")
            db.execute(
                f"CREATE TRIGGER IF NOT EXISTS keep_{table} AFTER DELETE ON {table}"
                f" BEGIN INSERT INTO gone_{table} VALUES ({olds}); END"
            )
        forget = " ".join(f"DELETE FROM gone_{table} WHERE run = OLD.id;" for table in TABLES)
        db.execute(f"CREATE TRIGGER IF NOT EXISTS forget AFTER DELETE ON runs BEGIN {forget} END")


def _columns(db: sqlite3.Connection, table: str) -> list[str]:
    return [name for _no, name, *_rest in db.execute(f"PRAGMA table_info({table})")]


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A plain connection."""
    with closing(sqlite3.connect(path)) as db:
        yield db


def newest_gone(db: sqlite3.Connection) -> int:
    """The row id of the newest saved tick."""
    return int(db.execute("SELECT COALESCE(MAX(rowid), 0) FROM gone_ticks").fetchone()[0])


def unpruned(path: Path, copy: Path) -> Path:
    """Write to `copy` the database without any deletions, except completely deleted replays."""
    copy.unlink(missing_ok=True)
    with reading(path) as source, closing(sqlite3.connect(copy)) as db:
        source.backup(db)
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("PRAGMA synchronous = OFF")
        with db:
            for table in TABLES:
                db.execute(f"DROP TRIGGER keep_{table}")
                names = ", ".join(name for name in _columns(db, table) if name != "id")
                both = f"SELECT 0 AS live, * FROM gone_{table} UNION ALL SELECT 1, * FROM {table}"
                db.execute(
                    f"CREATE TABLE whole AS SELECT {names} FROM ({both}) ORDER BY run, {_order(table)}"
                )  # each run's in the order of its events
                db.execute(f"DELETE FROM {table}")
                db.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM whole ORDER BY rowid")
                db.execute("DROP TABLE whole")
                db.execute(f"UPDATE runs SET pruned_{table} = 0")
    return copy


def _order(table: str) -> str:
    # Deleted ticks and notices are always the oldest ones.
    return _ORDER[table] if table in _DECIDED else f"live, {_ORDER[table]}"


# ---- checks --------------------------------------------------------------------------------------------------------


def check_commit(db: sqlite3.Connection) -> None:
    """Invariants of every commit: every row has its cause, and the counters of deleted rows are correct."""
    for table in TABLES:
        for run_id, counted, rows in db.execute(
            f"SELECT run_id, {table} - pruned_{table}, (SELECT COUNT(*) FROM {table} AS t WHERE t.run = runs.id)"
            " FROM runs"
        ):
            assert counted == rows, f"pruned: run {run_id} should have {counted} {table} left, there are {rows}"
    for table in _DECIDED:
        query = f"SELECT t.event_id FROM {table} AS t JOIN runs ON runs.id = t.run WHERE {_NUMBER} <= pruned_ticks"
        found = db.execute(query).fetchone()
        assert found is None, f"pruned: {table} {found[0]} is there, but its tick is gone"
    for what, query in (
        ("order", "SELECT event_id FROM orders WHERE signal_id NOT IN (SELECT event_id FROM signals)"),
        ("trade", "SELECT event_id FROM trades WHERE order_id NOT IN (SELECT event_id FROM orders)"),
        ("tick", "SELECT t.id FROM ticks AS t JOIN runs ON runs.id = t.run WHERE t.id < first_tick_id + pruned_ticks"),
    ):
        found = db.execute(query).fetchone()
        assert found is None, f"pruned: {what} {found[0]} is there, but what it came from or after is gone"


def check_young(db: sqlite3.Connection, cutoff_ms: int, before: int) -> None:
    """No tick deleted since `newest_gone` was `before` is newer than the cutoff."""
    query = "SELECT COUNT(*), MAX(ts) FROM gone_ticks WHERE ts >= ? AND rowid > ?"
    young, newest_ms = db.execute(query, (cutoff_ms, before)).fetchone()
    assert not young, f"pruned: {young} ticks were deleted that are not older than {cutoff_ms}, up to {newest_ms}"


def covered(db: sqlite3.Connection) -> dict[int, int]:
    """For each feed, the row id of the last tick that a checkpoint covers; 0 without one."""
    query = (
        "SELECT feeds.id, MAX(CASE WHEN runs.id = feeds.run THEN first_tick_id + run_ticks - 1 ELSE last_tick_id END)"
        " FROM feeds JOIN runs ON runs.feed = feeds.id AND runs.id <= feeds.run GROUP BY feeds.id"
    )
    return {feed: int(last or 0) for feed, last in db.execute(query)}


def check_finished(db: sqlite3.Connection, cutoff_ms: int, covered_ids: dict[int, int], block: int) -> None:
    """After a finished prune no old ticks of a push feed are left, except those that must be kept.

    Only row ids up to `covered_ids` count: prune need not see ticks covered after its start.
    """
    query = (
        "SELECT runs.feed, COUNT(*) FROM ticks JOIN runs ON runs.id = ticks.run"
        " WHERE ts < ? AND ticks.id <= ? AND runs.feed = ? GROUP BY runs.feed"
    )
    for feed, last in covered_ids.items():
        for _feed, old in db.execute(query, (cutoff_ms, last, feed)):
            most = 1 + 2 * block
            assert old <= most, (
                f"pruned: {old} ticks of feed {feed} are old and left, there need be no more than {most}"
            )
    for run_id, pruned in db.execute("SELECT run_id, pruned_ticks FROM runs WHERE ingest = 'replay'"):
        assert not pruned, f"pruned: replay {run_id} is there in part, {pruned} ticks of it are gone"


def check_kept(db: sqlite3.Connection) -> None:
    """Ticks that no checkpoint covers are present, and so is the newest tick of each push feed."""
    query = (
        "SELECT feeds.name, SUM(runs.ticks), SUM(runs.ticks - pruned_ticks), MAX(CASE WHEN runs.id > feeds.run"
        " THEN pruned_ticks WHEN runs.id = feeds.run THEN pruned_ticks - run_ticks ELSE 0 END)"
        " FROM runs JOIN feeds ON feeds.id = runs.feed GROUP BY feeds.id"
    )
    for name, stored, left, too_many in db.execute(query):
        assert too_many <= 0, f"pruned: {too_many} ticks of {name} are gone that no checkpoint covers"
        assert left or not stored, f"pruned: all {stored} ticks of {name} are gone; the newest must stay"


def check_prefix(copied: Path, whole: Path) -> None:
    """The rows of each run in `copied` are a prefix of those in `whole`, and all its runs are known."""
    with reading(copied) as one, reading(whole) as other:
        for (no,) in one.execute("SELECT id FROM runs").fetchall():
            for table in TABLES:
                query = f"SELECT {', '.join(_columns(one, table)[1:])} FROM {table} WHERE run = ? ORDER BY id"
                rows, all_rows = one.execute(query, (no,)).fetchall(), other.execute(query, (no,)).fetchall()
                assert rows == all_rows[: len(rows)], f"backup: its {table} of run {no} are not the first of that run"


def check_carried(pruned: Path, whole: Path) -> None:
    """The restart state of each symbol matches the ticks, signals and fills that it covers."""
    with reading(pruned) as db, reading(whole) as all_rows:
        feeds = db.execute("SELECT id, run, run_ticks, fill_run, fill_id, prices FROM feeds").fetchall()
        for feed in feeds:
            if feed[1] is not None:
                _check_feed(db, all_rows, *feed)


def _check_feed(
    db: sqlite3.Connection, all_rows: sqlite3.Connection,
    feed: int, run: int, run_ticks: int, fill_run: int | None, fill_id: str | None, kept: int,
) -> None:  # fmt: skip
    prices: dict[str, list[float]] = {}
    sides: dict[str, str] = {}
    since: dict[str, int] = {}
    positions = Positions()
    columns = ", ".join(Fill.__struct_fields__)
    for (no,) in db.execute("SELECT id FROM runs WHERE feed = ? AND id <= ? ORDER BY id", (feed, run)):
        query = "SELECT symbol, kind, CAST(substr(event_id, -12, 10) AS INTEGER) FROM signals WHERE run = ?"
        signals = {number: (symbol, kind) for symbol, kind, number in all_rows.execute(query, (no,))}
        ticks = all_rows.execute("SELECT symbol, price FROM ticks WHERE run = ? ORDER BY id", (no,)).fetchall()
        for number, (symbol, price) in enumerate(ticks[: run_ticks if no == run else None], 1):
            prices.setdefault(symbol, []).append(price)
            since[symbol] = since.get(symbol, 0) + 1
            if number in signals:
                sides[symbol], since[symbol] = signals[number][1].partition(":")[0], 0
        last = fill_id if no == fill_run else "~"
        if fill_run is not None and no <= fill_run:
            query = f"SELECT {columns} FROM trades WHERE run = ? AND event_id <= ? ORDER BY event_id"
            for row in all_rows.execute(query, (no, last)):
                positions.apply(Fill(*row))
    columns = "prices, last_side, since_signal, net, cost, realized, fees, price"
    stored = {
        symbol: values
        for symbol, *values in db.execute(f"SELECT symbol, {columns} FROM restart_state WHERE feed = ?", (feed,))
    }
    places = {state.symbol: state for state in positions.states()}
    for symbol in {*prices, *places}:
        found = stored.get(symbol)
        assert found is not None, f"carried: {symbol} is not known"
        held = json.loads(found[0])[-kept:]  # fewer than are kept now where fewer were kept before
        all_prices = prices.get(symbol, [])
        wanted = [all_prices[len(all_prices) - len(held) :], sides.get(symbol), since.get(symbol, 0)]
        known = [held, *found[1:3]]
        assert known == wanted, f"carried: {symbol} is {known}, its ticks and signals come to {wanted}"
        place = places.get(symbol)
        sums = None if found[3] is None else (*map(Decimal, found[3:6]), *found[6:])
        fills = None if place is None else (place.net, place.cost, place.realized, place.fees, place.price)
        assert sums == fills, f"carried: {symbol} is {sums}, its fills come to {fills}"
