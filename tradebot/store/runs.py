"""The `runs` table: beginning, resuming and finishing a run, and what a restart takes over from the run before it."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct
from peewee import SqliteDatabase

from tradebot.exits import ConfigError
from tradebot.store.batch import StoredCounts
from tradebot.store.errors import storage_errors
from tradebot.store.models import RunRow


class RunInfo(Struct, frozen=True):
    """What identifies a run. `source` tells which feed it listens to, so that a restart finds its predecessor."""

    run_id: str
    version: str
    mode: str
    ingest: str
    source: str
    config_hash: str
    push: bool


class RunRecord(Struct, frozen=True):
    """A run as the database knows it: `no` is the row id that its events carry."""

    no: int
    run_id: str
    counts: StoredCounts = StoredCounts()
    complete: bool = False
    is_new: bool = True


def counts_of(row: dict[str, Any]) -> StoredCounts:
    """The stored rows that a row of `runs` counts."""
    return StoredCounts(row["ticks"], row["signals"], row["orders"], row["trades"], row["notices"])


def _record(row: dict[str, Any]) -> RunRecord:
    return RunRecord(row["id"], row["run_id"], counts_of(row), bool(row["complete"]), is_new=False)


def begin_run(db: SqliteDatabase, info: RunInfo, started_ms: int, resume: bool) -> RunRecord:
    """Enter the run, or with `resume` find it again. Raises ConfigError when it is held already and not resumed.

    May be repeated after a commit whose outcome is in doubt (a failed sync): the entry of this very start is found.
    """
    with storage_errors(), db.atomic("IMMEDIATE"):
        row = RunRow.select().where(RunRow.run_id == info.run_id).dicts().first(db)
        if row is not None and info.push and row["first_start_ms"] == started_ms and not counts_of(row).rows:
            return RunRecord(int(row["id"]), info.run_id)
        if row is not None:
            return _resumed(db, row, info, resume)
        no = RunRow.insert(
            run_id=info.run_id,
            version=info.version,
            mode=info.mode,
            ingest=info.ingest,
            source=info.source,
            config_hash=info.config_hash,
            first_start_ms=started_ms,
        ).execute(db)
    return RunRecord(int(no), info.run_id)


def _resumed(db: SqliteDatabase, row: dict[str, Any], info: RunInfo, resume: bool) -> RunRecord:
    record = _record(row)
    if info.push or (row["ingest"], row["mode"]) != (info.ingest, info.mode):
        raise ConfigError(f"run id {info.run_id} is already in database {db.database}; choose another --run-id")
    if row["pruned_ticks"]:
        raise ConfigError(
            f"database {db.database} held this replay (run {info.run_id}), but {row['pruned_ticks']} of its"
            f" {record.counts.ticks} ticks were pruned, so that it can be neither resumed nor compared; use another"
            " --db, or have `tradebot prune` finish: then it begins anew"
        )
    if not resume and (record.complete or record.counts.rows):  # else nothing of it is stored: it begins again
        state = "whole" if record.complete else f"in part ({record.counts.ticks} ticks)"
        raise ConfigError(
            f"database {db.database} already holds this replay, {state} (run {info.run_id});"
            " use --resume to " + ("check that" if record.complete else "complete it") + ", or another --db"
        )
    if not record.complete:
        RunRow.update(exit_code=None, last_end_ms=None).where(RunRow.id == record.no).execute(db)
    return record


def finish_run(
    db: SqliteDatabase, run_no: int, ended_ms: int, exit_code: int, complete: bool, ledger: dict[str, Any]
) -> None:
    """Write how the run ended. Raises StorageUnavailable."""
    with storage_errors(), db.atomic("IMMEDIATE"):
        RunRow.update(
            last_end_ms=ended_ms,
            exit_code=exit_code,
            complete=int(complete),
            ledger=msgspec.json.encode(ledger).decode(),
        ).where(RunRow.id == run_no).execute(db)
