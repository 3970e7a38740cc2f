"""What a database would be that nobody had ever pruned, and whether the pruned one agrees with it.

Triggers in the database keep each row that is deleted, in the transaction that deletes it: so whatever is killed, every
row is either there or kept. Put back, they make the database that the checks for unpruned ones are for.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from sim.world import TABLES
from tradebot.events import Fill
from tradebot.execution.positions import Positions

_DECIDED: Final = ("signals", "orders", "trades")
_ORDER: Final = {"ticks": "id", "notices": "ticks_before, id", **dict.fromkeys(_DECIDED, "event_id")}
"""The order in which the rows of a run came; row ids are given anew once all newer rows were pruned."""
_NUMBER: Final = "CAST(substr(event_id, -12, 10) AS INTEGER)"
"""Of a signal, order or trade: which tick of its run it came from, from 1."""


def keep_deleted(path: Path) -> None:
    """From now on all rows that are deleted are kept; those of a run only until it is forgotten. May be repeated."""
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
    """Up to where deleted ticks are kept."""
    return int(db.execute("SELECT COALESCE(MAX(rowid), 0) FROM gone_ticks").fetchone()[0])


def unpruned(path: Path, copy: Path) -> Path:
    """Write to `copy` what the database would be if nothing had ever been deleted, replays that went whole aside."""
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
    # Of ticks and notices what is gone is always what came first.
    return _ORDER[table] if table in _DECIDED else f"live, {_ORDER[table]}"


# ---- checks --------------------------------------------------------------------------------------------------------


def check_commit(db: sqlite3.Connection) -> None:
    """What must hold at every commit: no row misses its cause, and the counters of what is gone say what is gone."""
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
    """Of the ticks that were deleted since `newest_gone` was `before` none is young."""
    query = "SELECT COUNT(*), MAX(ts) FROM gone_ticks WHERE ts >= ? AND rowid > ?"
    young, newest_ms = db.execute(query, (cutoff_ms, before)).fetchone()
    assert not young, f"pruned: {young} ticks were deleted that are not older than {cutoff_ms}, up to {newest_ms}"


def newest_tick(db: sqlite3.Connection) -> int:
    """The highest row id of a tick."""
    return int(db.execute("SELECT COALESCE(MAX(id), 0) FROM ticks").fetchone()[0])


def check_finished(db: sqlite3.Connection, cutoff_ms: int, newest: int, kept: int, block: int) -> None:
    """After a prune that says it is finished: no more old ticks of a push feed are left than must stay.

    Of those up to row id `newest`: what was stored since it began it need not have seen.
    """
    query = (
        "SELECT runs.source, COUNT(*) FROM ticks JOIN runs ON runs.id = ticks.run"
        " WHERE ts < ? AND ticks.id <= ? AND ingest != 'replay' GROUP BY mode, ingest, source"
    )
    for source, old in db.execute(query, (cutoff_ms, newest)):
        most = kept + 2 * block
        assert old <= most, f"pruned: {old} ticks of {source} are old and left, there need be no more than {most}"
    for run_id, pruned in db.execute("SELECT run_id, pruned_ticks FROM runs WHERE ingest = 'replay'"):
        assert not pruned, f"pruned: replay {run_id} is there in part, {pruned} ticks of it are gone"


def check_kept(db: sqlite3.Connection, kept: int) -> None:
    """The newest ticks of each push feed are there, as many as a restart looks at."""
    query = (
        "SELECT source, SUM(ticks), SUM(ticks - pruned_ticks) FROM runs WHERE ingest != 'replay'"
        " GROUP BY mode, ingest, source"
    )
    for source, stored, left in db.execute(query):
        assert left >= min(stored, kept), f"pruned: {left} of {stored} ticks of {source} are left, {kept} must stay"


def check_prefix(copied: Path, whole: Path) -> None:
    """What `copied` holds of each run is the beginning of what `whole` holds of it; and none of its runs is unknown."""
    with reading(copied) as one, reading(whole) as other:
        for (no,) in one.execute("SELECT id FROM runs").fetchall():
            for table in TABLES:
                query = f"SELECT {', '.join(_columns(one, table)[1:])} FROM {table} WHERE run = ? ORDER BY id"
                rows, all_rows = one.execute(query, (no,)).fetchall(), other.execute(query, (no,)).fetchall()
                assert rows == all_rows[: len(rows)], f"backup: its {table} of run {no} are not the first of that run"


def check_carried(pruned: Path, whole: Path) -> None:
    """The sums are what the fills that are in them come to, one by one; and who lost his last signal knows its side."""
    with reading(pruned) as db, reading(whole) as all_rows:
        chains: dict[int, list[tuple[int, int]]] = {}
        firsts: dict[tuple[Any, ...], int] = {}
        query = "SELECT id, folded_trades, mode, ingest, source FROM runs WHERE ingest != 'replay' ORDER BY id"
        for no, folded, *feed in db.execute(query):
            chains.setdefault(firsts.setdefault(tuple(feed), no), []).append((no, folded))
        for chain, runs in chains.items():
            _check_chain(db, all_rows, chain, runs)


def _check_chain(db: sqlite3.Connection, all_rows: sqlite3.Connection, chain: int, runs: list[tuple[int, int]]) -> None:
    positions = Positions()
    sides: dict[str, str] = {}
    columns = ", ".join(Fill.__struct_fields__)
    for no, folded in runs:
        query = f"SELECT {columns} FROM trades WHERE run = ? ORDER BY id LIMIT ?"
        for row in all_rows.execute(query, (no, folded)):
            positions.apply(Fill(*row))
        gone_sides = db.execute("SELECT symbol, kind FROM gone_signals WHERE run = ? ORDER BY event_id", (no,))
        sides |= {symbol: kind.partition(":")[0] for symbol, kind in gone_sides}
        left = db.execute("SELECT DISTINCT symbol FROM signals WHERE run = ?", (no,))
        for (symbol,) in left:
            sides.pop(symbol, None)
    query = "SELECT symbol, last_side, net, cost, realized, fees, price FROM carried WHERE chain = ?"
    carried = {symbol: values for symbol, *values in db.execute(query, (chain,))}
    for state in positions.states():
        wanted = (state.net, state.cost, state.realized, state.fees, state.price)
        _side, *sums = carried.get(state.symbol, [None] * 6)
        found = None if sums[0] is None else (*map(Decimal, sums[:3]), *sums[3:])
        assert found == wanted, f"carried: {state.symbol} is {found}, its fills come to {wanted}"
    for symbol, side in sides.items():
        found_side = carried.get(symbol, [None])[0]
        assert found_side == side, f"carried: the last side of {symbol} is {found_side}, its last signal was {side}"
