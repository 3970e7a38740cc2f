"""`tradebot backup FILE`: a consistent copy of the database, also while an engine writes.

SQLite's own online backup, in steps. A backup that reads the source without holding a transaction restarts whenever
another connection commits between two steps, so with a busy engine it would never end. Here one read transaction spans
all steps: one pass, and the copy is what was committed when it began. For that long the engine's write-ahead log is not
emptied.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TextIO

from tradebot.core.errors import ConfigError
from tradebot.core.private_files import PRIVATE_MODE, open_private, sync_directory
from tradebot.core.runtime import Runtime
from tradebot.output.json_answer import json_answer
from tradebot.output.progress_bar import ProgressBar
from tradebot.output.streams import GuardedStream
from tradebot.store.checks import check_existing
from tradebot.store.database import BUSY_TIMEOUT_MS, beside, refuse_foreign
from tradebot.store.errors import StorageUnavailable, storage_errors

_STEP_PAGES: Final = 1024
_PAUSE_S: Final = 0.002
_CHECK_STEPS: Final = 1_000_000
_ROOM_SPARE_BYTES: Final = 16 * 1024 * 1024


_OWN: Final = (
    *("", "-wal", "-shm", ".lock", ".spill", ".status.json", ".throttle.json", ".decisions.jsonl", ".soak.lock"),
    ".quarantine.jsonl",
)
_SQLITE_MAGIC: Final = b"SQLite format 3\x00"
_HELD: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_HELD_S_MAX: Final = 30.0


class BackupFailed(Exception):
    """No copy was made; the message gives the reason. The target is unchanged."""


def run_backup(
    db_path: Path,
    target: Path,
    force: bool,
    runtime: Runtime,
    answers: TextIO | None,
    errors: TextIO | None,
    as_json: bool = False,
) -> int:
    """`tradebot backup`: copy `db_path` to `target`, check it and sync it. Main thread; blocks until it is done.

    The copy is written to `<target>.part` and takes its name when it is whole. 0 when that is so, 1 when a signal, a
    full disk or a lock came between: then `target` is what it was before. Raises ConfigError.
    """
    runtime.catch_stop_signals()
    check_existing(db_path)
    refuse_foreign(db_path)
    _check_target(db_path, target, force)
    part = target.with_name(target.name + ".part")
    try:
        with _reserved(part) as descriptor, storage_errors():
            size = _copy(db_path, part, runtime, errors)
            os.fsync(descriptor)
            if not force and os.path.lexists(target):
                raise BackupFailed(f"{target} was created by another program in the meantime")
            os.replace(part, target)
            sync_directory(target.absolute().parent)
    except StorageUnavailable as error:
        if not error.passing:
            raise ConfigError(error.describe(db_path)) from error
        return _failed(errors, target, str(error))
    except OSError as error:
        return _failed(errors, target, f"{error.strerror or error}")
    except BackupFailed as error:
        return _failed(errors, target, str(error))
    text = f"{target}: {size / 1e6:,.1f} MB, checked, as {db_path} was when the backup began.\n"
    if as_json:
        text = json_answer({"format": 1, "file": str(target), "bytes": size, "database": str(db_path), "checked": True})
    GuardedStream(answers).write(text)
    return 0


def _failed(errors: TextIO | None, target: Path, why: str) -> int:
    GuardedStream(errors).write(f"tradebot: backup {target}: {why}; no backup was written\n")
    return 1


def _check_target(db_path: Path, target: Path, force: bool) -> None:
    """Raises ConfigError when the target cannot be written, or exists and --force was not given."""
    if target == Path():
        raise ConfigError("backup: the name of the file is empty, or that of this directory; name a file")
    try:
        if target.is_dir():
            raise ConfigError(f"backup {target}: is a directory; name a file, e.g. {target / 'tradebot.backup.db'}")
        if not target.absolute().parent.is_dir():
            raise ConfigError(f"backup {target}: there is no directory {target.absolute().parent}")
        own = [beside(db_path, end) for end in _OWN]
        for file in (target, target.with_name(target.name + ".part")):
            if not file.exists():
                continue
            if any(path.exists() and path.samefile(file) for path in own):
                raise ConfigError(f"backup {target}: {file} is the database itself or belongs to it; name another file")
            if not file.is_file():
                raise ConfigError(f"backup {target}: {file} is not a regular file")
        if os.path.lexists(target) and not force:
            raise ConfigError(f"backup {target}: exists already; name another file, or replace it with --force")
    except OSError as error:
        raise ConfigError(f"backup {target}: cannot be written: {error.strerror}") from error


@contextmanager
def _reserved(part: Path) -> Iterator[int]:
    """The empty file to write to, accessible to this process only; deleted at the end unless it was renamed."""
    try:
        descriptor = open_private(part, os.O_RDWR)
    except OSError as error:
        raise ConfigError(f"backup {part}: cannot be written: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"backup {part}: another backup is writing it") from error
        ours = os.fstat(descriptor).st_uid in (os.geteuid(), os.stat(part.absolute().parent).st_uid)
        known = (b"", _SQLITE_MAGIC, bytes(len(_SQLITE_MAGIC)))
        if not ours or os.pread(descriptor, len(_SQLITE_MAGIC), 0) not in known:
            raise ConfigError(f"backup {part}: already exists and is not an unfinished backup; move it")
        os.fchmod(descriptor, PRIVATE_MODE)
        os.ftruncate(descriptor, 0)  # what a killed one left
        try:
            yield descriptor
        finally:
            with suppress(OSError):
                if os.path.samestat(os.fstat(descriptor), os.lstat(part)):
                    part.unlink()
    finally:
        os.close(descriptor)


def _copy(db_path: Path, part: Path, runtime: Runtime, errors: TextIO | None) -> int:
    """Copy and check; the size in bytes. Raises sqlite3.Error, OSError, BackupFailed."""
    uri = f"{db_path.absolute().as_uri()}?mode=ro"
    with closing(_open(uri, uri=True)) as source, closing(_open(str(part.absolute()))) as copy:
        source.execute("BEGIN")
        _value(source, "SELECT COUNT(*) FROM sqlite_master")  # from here on one moment is read, to the end
        pages, page_bytes = (int(_value(source, f"PRAGMA {name}")) for name in ("page_count", "page_size"))
        disk = os.statvfs(part.absolute().parent)
        if pages * page_bytes + _ROOM_SPARE_BYTES > disk.f_bavail * disk.f_frsize:
            needed, free = (pages * page_bytes + _ROOM_SPARE_BYTES) / 1e6, disk.f_bavail * disk.f_frsize / 1e6
            spare = _ROOM_SPARE_BYTES / 1e6
            raise BackupFailed(
                f"needs {needed:,.1f} MB, {spare:,.1f} MB of it to spare, and {free:,.1f} MB are free there"
            )
        # A part that is not whole is thrown away, and a whole one is synced before it gets its name.
        copy.execute("PRAGMA synchronous = OFF")
        copy.execute("PRAGMA journal_mode = OFF")
        bar = ProgressBar(errors, pages * page_bytes, "B")

        moved_s = runtime.monotonic()

        def step(status: int, remaining: int, total: int) -> None:
            nonlocal moved_s
            if status not in _HELD:
                moved_s = runtime.monotonic()
            elif runtime.monotonic() - moved_s > _HELD_S_MAX:  # sqlite3 itself would retry endlessly
                raise BackupFailed(f"locked for {_HELD_S_MAX:g} s")
            bar.update((total - remaining) * page_bytes, None)
            _check_stop_requested(runtime)
            runtime.sleep(_PAUSE_S)

        try:
            source.backup(copy, pages=_STEP_PAGES, progress=step)
        finally:
            bar.close()
        source.execute("COMMIT")
    _check(part, runtime)
    return pages * page_bytes


def _check(part: Path, runtime: Runtime) -> None:
    # Immutable: no files are made beside it, though its header says WAL.
    with closing(_open(f"{part.absolute().as_uri()}?immutable=1", uri=True)) as copy:
        copy.set_progress_handler(lambda: int(runtime.stop_signals() > 0), _CHECK_STEPS)
        try:
            found = _value(copy, "PRAGMA integrity_check")
        except sqlite3.OperationalError:
            _check_stop_requested(runtime)
            raise
        if found != "ok":
            raise BackupFailed(f"the copy is damaged, so the database is damaged, too ({found}); see `tradebot doctor`")


def _open(name: str, uri: bool = False) -> sqlite3.Connection:
    return sqlite3.connect(name, uri=uri, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None)


def _value(db: sqlite3.Connection, sql: str) -> Any:
    return db.execute(sql).fetchone()[0]


def _check_stop_requested(runtime: Runtime) -> None:
    if runtime.stop_signals():
        raise BackupFailed("stopped by a signal")
