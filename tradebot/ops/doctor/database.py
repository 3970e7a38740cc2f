"""The doctor's look at the database: shape, integrity, sizes, and for how long the disk will last."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

from msgspec import Struct
from peewee import SqliteDatabase

from tradebot.core.errors import ConfigError
from tradebot.core.runtime import Runtime
from tradebot.ops.doctor.advice import Advice
from tradebot.ops.doctor.finding import Finding, fail, ok, warn
from tradebot.ops.health import span
from tradebot.store.database import NewerSchemaError, beside, connect_readonly, reading, refuse_foreign
from tradebot.store.errors import StorageUnavailable
from tradebot.store.models import MODELS, SCHEMA_VERSION, RunRow

WHOLE_CHECK_BYTES: Final = 256_000_000
"""Up to this size the whole integrity_check is done; beyond, quick_check table by table."""

CHECK_S_MAX: Final = 60.0
"""How long a check may take beside a running engine: while it reads a table, the WAL cannot be reset."""

WAL_BYTES_MAX: Final = 64 * 1024 * 1024
FREE_BYTES_MIN: Final = 256_000_000
DAYS_WARN: Final = 14.0
DAYS_FAIL: Final = 2.0
_DAY_MS: Final = 86_400_000
_RUNS: Final = 50
_SPAN_MS_MIN: Final = 600_000
_PROBLEMS_MAX: Final = 5
_OPERATIONS: Final = 200_000


class RunSpan(NamedTuple):
    """When a run of a push feed began and ended (None: not yet, or unknown), and its ticks."""

    start_ms: int
    end_ms: int | None
    ticks: int


class DatabaseReading(Struct, frozen=True):
    """What SQLite says of the file, and the newest runs of push feeds, newest first."""

    journal_mode: str
    schema: int
    page_bytes: int
    pages: int
    free_pages: int
    tick_rows: int
    spans: tuple[RunSpan, ...]
    size: int
    wal_bytes: int
    written_ms: int
    """When the file or its WAL was last written."""
    disk_free: int
    bare: bool = False
    """Whether no table is in it."""

    @property
    def used_bytes(self) -> int:
        """Without the pages that deleted rows have left."""
        return self.page_bytes * (self.pages - self.free_pages)


class Growth(NamedTuple):
    """How fast a database grows, and how long the disk space will last; None if there is too little history."""

    bytes_per_tick: float | None
    ticks_per_day: float | None
    days_left: float | None


def read_database(path: Path) -> DatabaseReading:
    """Look at an existing database. Blocks at most for the busy timeout. Raises ConfigError, StorageUnavailable."""
    refuse_foreign(path)
    db = connect_readonly(path)
    try:
        with reading(db):
            shape = {name: _pragma(db, name) for name in ("user_version", "page_size", "page_count", "freelist_count")}
            mode = str(_row(db, "PRAGMA journal_mode")[0])
            tables = set(db.get_tables())
            rows = _tick_rows(db, tables)
            spans = _read_spans(db) if RunRow._meta.table_name in tables else ()
    finally:
        db.close()
    target, wal = beside(path, ""), beside(path, "-wal")
    disk = os.statvfs(target.parent)
    stats = [file.stat() for file in (target, wal) if file.exists()]
    return DatabaseReading(
        journal_mode=mode,
        schema=shape["user_version"],
        page_bytes=shape["page_size"],
        pages=shape["page_count"],
        free_pages=shape["freelist_count"],
        tick_rows=rows,
        spans=spans,
        size=stats[0].st_size,
        wal_bytes=stats[1].st_size if len(stats) > 1 else 0,
        written_ms=max(stat.st_mtime_ns for stat in stats) // 1_000_000,
        disk_free=disk.f_bavail * disk.f_frsize,
        bare=not tables,
    )


def _tick_rows(db: SqliteDatabase, tables: set[str]) -> int:
    """Rows of ticks without counting them, which would read a whole index."""
    columns = {column.name for column in db.get_columns("runs")} if "runs" in tables else set()
    if "pruned_ticks" in columns:
        rows = int(_row(db, "SELECT COALESCE(SUM(ticks - pruned_ticks), 0) FROM runs")[0])
        if rows:
            return rows
    if "ticks" not in tables:
        return 0
    # A file of the original system, or an older schema, which knows no prune: ids have no holes.
    first, last = _row(db, "SELECT MIN(id), MAX(id) FROM ticks")
    return 0 if last is None else int(last - first + 1)


def _pragma(db: SqliteDatabase, name: str) -> int:
    return int(_row(db, f"PRAGMA {name}")[0])


def _row(db: SqliteDatabase, sql: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] = db.execute_sql(sql).fetchone()  # type: ignore[no-untyped-call]  # peewee has no types
    return row


def _read_spans(db: SqliteDatabase) -> tuple[RunSpan, ...]:
    query = RunRow.select(RunRow.first_start_ms, RunRow.last_end_ms, RunRow.ticks).where(RunRow.ingest != "replay")
    return tuple(RunSpan(*row) for row in query.order_by(RunRow.id.desc()).limit(_RUNS).tuples().execute(db))


def growth(found: DatabaseReading) -> Growth:
    """From the runs of the last week (or the newest one, when it began before), pauses between them included. Pure."""
    per_tick = found.used_bytes / found.tick_rows if found.tick_rows else None
    now_ms = found.written_ms
    week = [span for at, span in enumerate(found.spans) if not at or span.start_ms >= now_ms - 7 * _DAY_MS]
    if not week:
        return Growth(per_tick, None, None)
    over_ms = (week[0].end_ms or now_ms) - min(span.start_ms for span in week)
    if over_ms < _SPAN_MS_MIN:
        return Growth(per_tick, None, None)
    per_day = sum(span.ticks for span in week) * _DAY_MS / over_ms
    room = found.disk_free + found.page_bytes * found.free_pages
    grows = 0.0 if per_tick is None else per_tick * per_day
    return Growth(per_tick, per_day, room / grows if grows > 0 else None)


def check_shape(found: DatabaseReading, synchronous: str, path: str) -> list[Finding]:
    """PRAGMAs that stay with the file; the others each connection of an engine sets and verifies at its start."""
    if found.bare:
        what = "holds no table" if found.size else "is empty (0 bytes)"
        text = f"the file {what}: no engine has written to it yet"
        return [warn("database", text, Advice.DATABASE_EMPTY, "the first run turns it into a database; check --db")]
    if found.schema < SCHEMA_VERSION:
        text = f"schema {found.schema} of an older tradebot"
        return [
            warn(
                "database",
                text,
                Advice.SCHEMA_OLDER,
                f"the next run upgrades it to {SCHEMA_VERSION}; make a backup first:"
                f" `tradebot backup {path}.schema{found.schema} --db={path}`",
            )
        ]
    if found.journal_mode != "wal":
        text = f"journal_mode is {found.journal_mode}, not wal: it was changed"
        return [warn("database", text, Advice.JOURNAL_MODE, "the next run sets it to wal again")]
    sizes = f"{found.size / 1e6:,.1f} MB, {found.tick_rows:,} ticks"
    return [ok("database", f"schema {found.schema}, wal, synchronous {synchronous} (as configured), {sizes}")]


def check_wal(wal_bytes: int, engine_runs: bool) -> Finding:
    """Whether the WAL stays as small as the writer keeps it."""
    text = f"{wal_bytes / 1e6:,.1f} MB"
    if wal_bytes > WAL_BYTES_MAX:
        summary = f"{text}: a reader has prevented its reset, or still does"
        if engine_runs:
            advice = (
                "end readers that hold a transaction open (sqlite3 shells, copies); the next checkpoint truncates it"
            )
            return warn("wal", summary, Advice.WAL_HELD, advice)
        return warn("wal", summary, Advice.WAL_LEFT, "start the engine once: it checkpoints and truncates the log")
    return ok("wal", text)


def check_disk(found: DatabaseReading, path: str) -> Finding:
    """Whether there is room, and for how many days at the pace of the last week."""
    pace = growth(found)
    free = f"{found.disk_free / 1e9:,.1f} GB free"
    advice = f"free space: `tradebot prune --keep=30d --db={path}`, another disk, or a larger engine.sample_every"
    summary = free
    if pace.bytes_per_tick is not None and pace.ticks_per_day is not None:
        daily = pace.bytes_per_tick * pace.ticks_per_day
        summary += (
            f", {daily / 1e6:,.1f} MB a day at {pace.ticks_per_day:,.0f} ticks of {pace.bytes_per_tick:.0f} bytes"
        )
    else:
        summary += ", too little history to tell how fast the database grows"
    if pace.days_left is not None:
        summary += f": {pace.days_left:,.0f} days left"
    full = found.disk_free < FREE_BYTES_MIN or (pace.days_left is not None and pace.days_left < DAYS_FAIL)
    if full or (pace.days_left is not None and pace.days_left < DAYS_WARN):
        return (fail if full else warn)("disk", summary, Advice.DISK_FULL, advice)
    return ok("disk", summary)


class Integrity(NamedTuple):
    """What SQLite's own check found; `unfinished` when its time was over first."""

    how: str
    problems: tuple[str, ...]
    unfinished: bool
    took_s: float


def check_integrity(found: Integrity, restore: str) -> Finding:
    """What the check means; `restore`: how a backup is put back."""
    if found.problems:
        return fail(
            "integrity",
            f"{found.how}: {'; '.join(found.problems)}",
            Advice.INTEGRITY,
            f"keep a copy of the file and of its -wal, then {restore}; sqlite3's .recover extracts what can be read"
            " from the damaged file",
        )
    if found.unfinished:
        return warn(
            "integrity",
            f"{found.how}: not finished within {found.took_s:.0f} s, no error found so far",
            Advice.INTEGRITY_UNFINISHED,
            "run the doctor again while the engine is stopped: then there is no time limit",
        )
    return ok("integrity", f"{found.how}: ok ({span(found.took_s)})")


def read_integrity(
    path: Path, size: int, runtime: Runtime, limit_s: float | None, on_progress: Callable[[str], None]
) -> Integrity:
    """Have SQLite check the file. Blocks: minutes for many GB, at most about `limit_s`. KeyboardInterrupt passes.

    `on_progress` gets a progress line about every second. Raises ConfigError, or StorageUnavailable when the
    file cannot be opened.
    """
    whole = size <= WHOLE_CHECK_BYTES
    db = connect_readonly(path)
    try:
        with reading(db):
            present = set(db.get_tables())
        tables = [model._meta.table_name for model in MODELS if model._meta.table_name in present]
        statements = ["PRAGMA integrity_check"] if whole else [f'PRAGMA quick_check("{name}")' for name in tables]
        watch = _Watch(runtime, limit_s, on_progress, size)
        connection: sqlite3.Connection = db.connection()  # type: ignore[no-untyped-call]  # peewee has no types
        problems, finished = _run(connection, statements, watch)
    finally:
        db.close()
    how = "integrity_check" if whole else "quick_check of each table"
    return Integrity(how, tuple(problems[:_PROBLEMS_MAX]), not finished, watch.took_s())


def _run(connection: sqlite3.Connection, statements: Iterable[str], watch: _Watch) -> tuple[list[str], bool]:
    problems: list[str] = []
    connection.set_progress_handler(watch.look, _OPERATIONS)
    for statement in statements:
        try:
            # The PRAGMA stops at 100 problems by itself.
            problems += [str(row[0]) for row in connection.execute(statement) if row[0] != "ok"]
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_INTERRUPT:
                problems.append(str(error))  # too damaged for the check itself
            elif watch.is_over:
                return problems, False
            else:
                raise KeyboardInterrupt from None
    return problems, True


class _Watch:
    """Called by SQLite periodically: shows the elapsed time, and ends the check when its time limit is over."""

    def __init__(self, runtime: Runtime, limit_s: float | None, on_progress: Callable[[str], None], size: int) -> None:
        self._runtime = runtime
        self._began_s = self._told_s = runtime.monotonic()
        self._limit_s = limit_s
        self._on_progress = on_progress
        self._size = size
        self.is_over = False

    def took_s(self) -> float:
        return self._runtime.monotonic() - self._began_s

    def look(self) -> int:
        """1 ends the check. An exception (Ctrl-C) does too, but SQLite does not hand it on: see `_run`."""
        now_s = self._runtime.monotonic()
        if now_s - self._told_s >= 1.0:
            self._told_s = now_s
            self._on_progress(f"checking {self._size / 1e6:,.0f} MB: {now_s - self._began_s:.0f} s (Ctrl-C ends it)")
        self.is_over = self._limit_s is not None and now_s - self._began_s > self._limit_s
        return int(self.is_over)


def unreadable(error: ConfigError | StorageUnavailable, restore: str) -> Finding:
    """A database that cannot be examined; `restore`: how a backup is put back."""
    if isinstance(error, NewerSchemaError):
        return fail("database", error.problem, Advice.SCHEMA_NEWER, "upgrade tradebot, or name another --db")
    if isinstance(error, StorageUnavailable) and error.passing:
        return warn(
            "database", str(error), Advice.DATABASE_LOCKED, "end the program that locks it, and run the doctor again"
        )
    return fail("database", str(error), Advice.DATABASE_UNREADABLE, f"name another --db, or {restore}")
