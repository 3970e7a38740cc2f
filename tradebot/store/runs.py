"""The `runs` table: beginning, resuming and finishing a run, and what a restart takes over from the run before it."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct
from peewee import SqliteDatabase

from tradebot.core.errors import ConfigError
from tradebot.store.batch import StoredCounts
from tradebot.store.errors import storage_errors
from tradebot.store.models import FeedRow, RunRow

RESULT_RULES: Final = 3
"""Rises when the program itself gives other results for the same input and configuration.

1: all versions before it was recorded. 2: the trades of a frame reach the strategy oldest first, and orders for symbols
that are not quoted in dollars are refused. 3: where the form of a symbol names no currencies, its exchange does.
"""

NO_RATE_RULES: Final = 2
"""Since which rules orders are refused NO_RATE."""
EXCHANGE_PAIR_RULES: Final = 3
"""Since which rules the exchange says what a symbol's currencies are."""
_OLDER_RULES: Final = (2,)
"""Rules by which a run that began under them is completed."""
_RULES_UNRECORDED: Final = 1


class RunInfo(Struct, frozen=True):
    """What identifies a run. `source` says what it reads, for people.

    `feed` is the name of a push feed (`feed_identity.feed_name`), by which a restart finds its predecessors. `frames`
    says whether frames of an exchange are read, live or from a recording.
    """

    run_id: str
    version: str
    mode: str
    ingest: str
    source: str
    config_hash: str
    push: bool
    feed: str = ""
    frames: bool = False


class RunRecord(Struct, frozen=True):
    """A run as the database knows it: `no` is the row id that its events carry."""

    no: int
    run_id: str
    counts: StoredCounts = StoredCounts()
    complete: bool = False
    is_new: bool = True
    result_rules: int = RESULT_RULES
    """By which rules the run gives its results: a resumed one by those that it began with."""


def counts_of(row: dict[str, Any]) -> StoredCounts:
    """The stored rows that a row of `runs` counts."""
    return StoredCounts(**{name: row[name] for name in StoredCounts.__struct_fields__})


def _record(row: dict[str, Any]) -> RunRecord:
    rules = row["result_rules"] or _RULES_UNRECORDED
    return RunRecord(row["id"], row["run_id"], counts_of(row), bool(row["complete"]), False, rules)


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
            feed=_feed_of(db, info) if info.push else None,
            result_rules=RESULT_RULES,
        ).execute(db)
    return RunRecord(int(no), info.run_id)


def _feed_of(db: SqliteDatabase, info: RunInfo) -> int:
    """The row of `feeds` that a new run belongs to, which has one run more from now on."""
    key = {"mode": info.mode, "ingest": info.ingest, "name": info.feed}
    FeedRow.insert(key).on_conflict_ignore().execute(db)
    is_it = (FeedRow.mode == info.mode) & (FeedRow.ingest == info.ingest) & (FeedRow.name == info.feed)
    FeedRow.update(runs=FeedRow.runs + 1).where(is_it).execute(db)
    return int(FeedRow.select(FeedRow.id).where(is_it).scalar(db))


def _resumed(db: SqliteDatabase, row: dict[str, Any], info: RunInfo, resume: bool) -> RunRecord:
    record = _record(row)
    if info.push or (row["ingest"], row["mode"]) != (info.ingest, info.mode):
        raise ConfigError(f"run id {info.run_id} is already in database {db.database}; choose another --run-id")
    if row["pruned_ticks"]:
        raise ConfigError(
            f"database {db.database} held this replay (run {info.run_id}), but {row['pruned_ticks']} of its"
            f" {record.counts.ticks} ticks were pruned, so that it can be neither resumed nor compared; use another"
            " --db, or let `tradebot prune` finish: the replay then starts again from the beginning"
        )
    if not resume and (record.complete or record.counts.rows):  # else nothing of it is stored: it begins again
        state = "whole" if record.complete else f"in part ({record.counts.ticks} ticks)"
        raise ConfigError(
            f"database {db.database} already holds this replay, {state} (run {info.run_id});"
            " use --resume to " + ("check that" if record.complete else "complete it") + ", or another --db"
        )
    if not record.complete:
        _check_rules(db, row, info)
        RunRow.update(exit_code=None, last_end_ms=None).where(RunRow.id == record.no).execute(db)
    return record


def _check_rules(db: SqliteDatabase, row: dict[str, Any], info: RunInfo) -> None:
    """The rest of a replay must be computed as its beginning was. Raises ConfigError.

    A replay of ticks from before rules were recorded is completed by the rules of that time
    (`RunRecord.result_rules`), and so is one under rules that this version still knows. One of frames from before is
    not, since their order is decided while they are read.
    """
    began = row["result_rules"]
    if began == RESULT_RULES or began in _OLDER_RULES or (began is None and not info.frames):
        return
    raise ConfigError(
        f"database {db.database} holds this replay in part (run {info.run_id}), begun by tradebot {row['version']}"
        f" under result rules {began or _RULES_UNRECORDED}; this version ({info.version}) has rules {RESULT_RULES}, and"
        " would compute other results: complete it with that version, or replay it into another --db"
    )


class RunEnd(Struct, frozen=True):
    """How a run ended: `ended_ms` in Unix ms; `complete`: a replay that was read to its end; `ledger` as logged."""

    ended_ms: int
    exit_code: int
    complete: bool
    ledger: dict[str, Any]


def finish_run(db: SqliteDatabase, run_no: int, end: RunEnd) -> None:
    """Write how the run ended. Raises StorageUnavailable."""
    with storage_errors(), db.atomic("IMMEDIATE"):
        RunRow.update(
            last_end_ms=end.ended_ms,
            exit_code=end.exit_code,
            complete=int(end.complete),
            ledger=msgspec.json.encode(end.ledger).decode(),
        ).where(RunRow.id == run_no).execute(db)
