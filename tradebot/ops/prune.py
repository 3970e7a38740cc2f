"""`tradebot prune`: delete old data in passes until none is left, and report what was deleted and what was kept."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TextIO

from peewee import SqliteDatabase

from tradebot.core.errors import ConfigError
from tradebot.core.runtime import Runtime
from tradebot.output.json_answer import json_answer
from tradebot.output.progress_bar import ProgressBar
from tradebot.output.streams import GuardedStream
from tradebot.store.errors import StorageUnavailable, storage_errors
from tradebot.store.policy import RetryPolicy
from tradebot.store.pruner import Pruned, Pruner, PruneStopped, Waiting
from tradebot.store.session import open_existing
from tradebot.store.spill import spill_path, waiting_run

_RETRY_S: Final = 60.0
_COUNTED: Final = ("ticks", "signals", "orders", "trades", "order_events", "notices", "replays")
_NAMED: Final = 5


def run_prune(
    db_path: Path,
    keep_ms: int,
    dry_run: bool,
    runtime: Runtime,
    answers: TextIO | None,
    errors: TextIO | None,
    open_database: Callable[[Path], SqliteDatabase] = open_existing,
    as_json: bool = False,
) -> int:
    """`tradebot prune`: delete what is older than `keep_ms`. Main thread; blocks for as long as it takes.

    0 when all of that is gone, 1 when a stop signal, a database that stays locked or full or a spill file that cannot
    be read came between (what is deleted is deleted). `open_database` raises what `open_existing` does. Raises
    ConfigError.
    """
    runtime.catch_stop_signals()
    out = GuardedStream(answers)
    cutoff_ms = runtime.now_ms() - keep_ms
    total = Pruned()
    failure: str | None
    free_bytes: int | None = None
    retry = RetryPolicy(_RETRY_S)
    bar = ProgressBar(errors, None, "rows")
    try:
        while True:
            failure = None
            try:
                with closing(open_database(db_path)) as db:
                    waiting, unreadable = _waiting(db_path)
                    pruner = Pruner(db, cutoff_ms, dry_run, runtime, bar, waiting)
                    try:
                        pruner.prune()
                    finally:
                        _add(total, pruner.done, dry_run)
                        if pruner.done.ticks:
                            retry.succeeded()
                    free_bytes = _free_bytes(db)
                if total.refused:
                    failure = f"no replay was deleted, because the spill file may hold its events: {unreadable}"
            except PruneStopped as stop:
                failure = str(stop)
            except StorageUnavailable as error:
                if not error.passing:
                    raise ConfigError(error.describe(db_path)) from error
                failure = str(error)
                delay_s = retry.next_delay_s(runtime.monotonic(), None)
                if delay_s is not None and not runtime.stop_signals():
                    runtime.sleep(delay_s)
                    continue
            break
    finally:
        bar.close()
    report = _as_json if as_json else _report
    out.write(report(db_path, cutoff_ms, dry_run, total, free_bytes if failure is None else None, failure))
    return 0 if failure is None else 1


def _waiting(db_path: Path) -> tuple[Waiting, str]:
    """What lies in the spill file, and for one that cannot be read why."""
    try:
        run_id = waiting_run(spill_path(db_path))
    except ConfigError as error:
        return Waiting(readable=False), str(error)
    return Waiting(run_id), ""


def _add(total: Pruned, done: Pruned, dry_run: bool) -> None:
    """Add what a pass has deleted; a dry run has counted everything again."""
    for name in _COUNTED:
        setattr(total, name, getattr(done, name) + (0 if dry_run else getattr(total, name)))
    total.unfinished, total.spilled, total.refused = done.unfinished, done.spilled, done.refused


def _free_bytes(db: SqliteDatabase) -> int:
    with storage_errors():
        pages, size = (int(db.execute_sql(f"PRAGMA {name}").fetchone()[0]) for name in ("freelist_count", "page_size"))
    return pages * size


def _as_json(
    path: Path, cutoff_ms: int, dry_run: bool, done: Pruned, free_bytes: int | None, failure: str | None
) -> str:
    """The report for scripts. With `dry_run` the counts are what would be deleted."""
    return json_answer(
        {
            "format": 1,
            "database": str(path),
            "finished": not failure,
            "failure": failure,
            "dry_run": dry_run,
            "older_than_ms": cutoff_ms,
            "deleted": {name: getattr(done, name) for name in _COUNTED},
            "unfinished_replays": done.unfinished,
            "run_in_spill_file": done.spilled,
            "free_bytes": None if dry_run else free_bytes,
        }
    )


def _report(
    path: Path, cutoff_ms: int, dry_run: bool, done: Pruned, free_bytes: int | None, failure: str | None
) -> str:
    before = datetime.fromtimestamp(cutoff_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    shown = [name for name in _COUNTED if name != "order_events" or done.order_events]  # there are none in SHADOW
    counts = ", ".join(f"{getattr(done, name):,} {name.replace('_', ' ')}" for name in shown)
    lines = [f"{'Would delete' if dry_run else 'Deleted'} from {path} what is older than {before}: {counts}."]
    if done.unfinished:
        more = "" if len(done.unfinished) <= _NAMED else f" and {len(done.unfinished) - _NAMED} more"
        lines.append(
            f"Not deleted, because they are incomplete: replays {', '.join(done.unfinished[:_NAMED])}{more};"
            " complete them with --resume."
        )
    if done.spilled is not None:
        lines.append(
            f"Not deleted, because its events are waiting in {spill_path(path)}: run {done.spilled}; the next start of"
            " the engine stores them."
        )
    if free_bytes is not None and not dry_run:
        free_mb = free_bytes / 1e6
        lines.append(f"Free space inside the file for new events: {free_mb:,.1f} MB. The file itself does not shrink.")
    if failure:
        lines.append(f"Not finished: {failure}. Run it again to continue.")
    return "".join(f"{line}\n" for line in lines)
