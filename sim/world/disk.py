"""What has reached the disk: syncs, name changes and transactions of a simulated process, recorded as they happen.

`sim.world.calls` reports them. At each *point* a kill or a power loss may happen: before and after a call and, if it
does several things, in the middle. `sim.world.power` computes the files after a power loss.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from sim.world.wal import HEADER_BYTES, Index, WalPosition, read_index, read_wal

_RESERVE_LEFT: Final = 4096
_BLOCK: Final = 1 << 16
_READS: Final = ("SELECT", "PRAGMA", "BEGIN", "ROLLBACK", "SAVEPOINT", "RELEASE")


class Name(NamedTuple):
    """A file name that was removed or reassigned since the last sync. `content` is that of the file it named before."""

    number: int
    content: bytes | None


class Disk:
    """The files of one database, from process to process. `live` says whether the process still runs."""

    def __init__(self, db_path: Path) -> None:
        self.db_path = db_path
        self.path = os.path.realpath(db_path)
        """The path of the database; all other names here begin with it."""
        self.wal_path = db_path.with_name(db_path.name + "-wal")
        self.shm_path = db_path.with_name(db_path.name + "-shm")
        self.journal_path = db_path.with_name(db_path.name + "-journal")
        self.synced: dict[Path, bytes] = {}
        """Content of the engine's own files at their last sync."""
        self.names: dict[Path, Name] = {}
        """Names that changed since the last sync of any file, with the newest change of each."""
        self.wal_synced: WalPosition | None = None
        """The position up to which the log was synced by a commit under FULL or by the engine; checkpoints sync it
        too.
        """
        self.instead: dict[Path, bytes | None] = {}
        """Content of files in the middle of the call in which the process died; None: the file did not exist."""
        self.points = 0
        """The number of points that the process has passed."""
        self._cut_at: int | None = None
        self._cut: Callable[[], None] = lambda: None
        self._live: Callable[[], bool] = lambda: False
        self._changes = 0
        self._held: sqlite3.Connection | None = None
        self._away: dict[Path, Path] = {}
        self._replaced = False

    # ---- what the world calls ------------------------------------------------------------------------------------

    def begin(self, live: Callable[[], bool]) -> None:
        """A process starts; it is alive while `live()`."""
        self._live, self.instead = live, {}

    def end(self) -> None:
        """The process has exited, or was killed and has unwound."""
        self._live, self._cut_at, self.points = lambda: False, None, 0

    def cut_after(self, points: int, cut: Callable[[], None]) -> None:
        """Call `cut`, which kills the process, at the `points`-th point from now (the next one is the first)."""
        self._cut_at, self._cut = self.points + points, cut

    def spare(self) -> None:
        """Cancel `cut_after`, if its point has not been reached."""
        self._cut_at = None

    def hold(self) -> None:
        """Another program opens the database: until `release` no closed connection is the last one."""
        if self._held is None and self.db_path.exists():
            self._held = sqlite3.connect(self.db_path, check_same_thread=False)
            with suppress(sqlite3.OperationalError):  # a failing disk fails for other programs too
                self._held.execute("SELECT COUNT(*) FROM sqlite_master").fetchall()

    def release(self) -> None:
        """The other program closes the database, if it is open."""
        if self._held is not None:
            self._held.close()
            self._held = None

    @property
    def is_away(self) -> bool:
        """Whether the database has been moved away."""
        return bool(self._away)

    def move_away(self, log_too: bool, replace: bool) -> None:
        """Move the database away, alone or with its log, and perhaps put another file in its place."""
        names = (self.db_path, self.wal_path, self.shm_path) if log_too else (self.db_path,)
        live, self._live = self._live, lambda: False  # not an action of the process
        for path in names:
            if path.exists():
                self._away[path] = path.with_name(f"away-{path.name}")
                path.rename(self._away[path])
        if replace:
            self.db_path.touch()
        self._replaced, self._live = replace, live

    def bring_back(self) -> bool:
        """Move everything back. Returns whether the engine had created a file in its place."""
        intruder = self.is_away and not self._replaced and self.db_path.exists()
        for path, away in self._away.items():
            path.unlink(missing_ok=True)
            away.rename(path)
        self._away = {}
        return intruder

    def own_files(self) -> list[Path]:
        """All files of the database but those that SQLite writes, in order."""
        by_sqlite = (self.db_path, self.wal_path, self.shm_path, self.journal_path)
        found = self.db_path.parent.glob(f"{self.db_path.name}?*")
        return sorted(path for path in found if path not in by_sqlite and path.is_file())

    def settle(self) -> None:
        """Everything has reached the disk."""
        self.synced = {path: content_of(path) for path in self.own_files()}
        self.names, self.wal_synced = {}, None
        wal = read_wal(_read(self.wal_path))
        if wal is not None:
            self.wal_synced = WalPosition(wal.salts, wal.ends[-1] if wal.ends else HEADER_BYTES)

    def index(self) -> Index | None:
        """The header of SQLite's shared-memory index of the log."""
        return read_index(_read(self.shm_path, 136))

    # ---- the engine's own files ----------------------------------------------------------------------------------

    @property
    def is_live(self) -> bool:
        """Whether there is a live process."""
        return self._live()

    def is_ours(self, path: str) -> bool:
        """Whether `path` is one of these files and the process is alive."""
        return path.startswith(self.path) and self._live()

    def point(self) -> None:
        """The process may die here."""
        if self._next_is_cut():
            self._cut()

    def sync(self, name: str) -> None:
        """`name` was synced, and with it every earlier name change."""
        path = self._path(name)
        self.names = {}
        if path == self.wal_path:
            wal = read_wal(_read(path))
            self.wal_synced = None if wal is None else WalPosition(wal.salts, path.stat().st_size)
        elif path.is_file():
            self.synced[path] = content_of(path)

    def forget_name(self, name: str) -> None:
        """`name` is about to be removed or reassigned."""
        path = self._path(name)
        self._changes += 1
        self.names.setdefault(path, Name(self._changes, content_of(path) if path.is_file() else None))

    def moved(self, old: str, new: str) -> None:
        """A file was renamed: its synced content stays synced."""
        content = self.synced.pop(self._path(old), None)
        self.synced.pop(self._path(new), None)
        if content is not None:
            self.synced[self._path(new)] = content

    def removed(self, name: str) -> None:
        """A file was removed."""
        self.synced.pop(self._path(name), None)

    def write(self, call: Callable[[memoryview], int], data: memoryview) -> int:
        """Write `data`; the process may die when half of it is written."""
        if self._next_is_cut():
            call(data[: len(data) // 2])
            self._cut()
        return call(data)

    def _path(self, name: str) -> Path:
        return self.db_path.with_name(os.path.basename(name))

    def _next_is_cut(self) -> bool:
        self.points += 1
        return self.points == self._cut_at

    # ---- SQLite's ------------------------------------------------------------------------------------------------

    def statement(self, full: bool, sql: str, run: Callable[[], Any]) -> Any:
        """Execute a statement outside a transaction, or one that ends a transaction. `full`: commits are synced."""
        words = sql.lstrip()[:40].upper()
        if words.startswith("PRAGMA JOURNAL_MODE") and self._live() and _size(self.db_path) == 0:
            return self._first_start(run)
        if words.startswith(_READS) or not self._live():
            return run()
        return self._commit(full, run)

    def close(self, run: Callable[[], None]) -> None:
        """Close a connection: closing the last one checkpoints the log, syncs the database and deletes the log."""
        if not self._live() or not self.wal_path.exists():
            run()
            return
        is_cut = self._next_is_cut()
        before, log = (_read(self.db_path), _read(self.wal_path)) if is_cut else (b"", b"")
        run()
        emptied = not self.wal_path.exists()
        if emptied:
            self.names = {}
        if is_cut:
            if emptied:
                self.instead = {self.wal_path: log, self.db_path: _mixed(before, _read(self.db_path))}
                self._log_is_synced(log)
            self._cut()
        self.point()

    def _commit(self, full: bool, run: Callable[[], Any]) -> Any:
        """A transaction is committed by `run`."""
        is_cut = self._next_is_cut()
        before = self.index() if full or is_cut else None
        database = _read(self.db_path) if is_cut else b""
        result = run()
        self.names.pop(self.journal_path, None)  # the log's header was synced before its first commit
        after = self.index() if full or is_cut else None
        changed = after is not None and (before is None or before[:2] != after[:2])
        if is_cut:
            if changed and after is not None:
                self._in_the_middle(before, after, database)
            self._cut()
        if full and changed and after is not None:
            self.names = {}
            wal = read_wal(_read(self.wal_path, HEADER_BYTES))
            if wal is not None:
                self.wal_synced = WalPosition(wal.salts, wal.frame_end(after.frames))
        self.point()
        return result

    def _in_the_middle(self, before: Index | None, after: Index, database: bytes) -> None:
        """The process dies in the middle of a commit.

        Half of its frames are written; if the commit included a checkpoint, all frames and a part of their pages.
        """
        log = _read(self.wal_path)
        wal = read_wal(log)
        if wal is None:
            return
        if after.backfilled:
            self.instead = {self.db_path: _mixed(database, _read(self.db_path))}
            self._log_is_synced(log)
            return
        began = wal.frame_end(before.frames) if before is not None and before.salts == after.salts else HEADER_BYTES
        middle = began + (wal.frame_end(after.frames) - began) // 2
        self.instead = {self.wal_path: log[:middle] + (b"" if wal.first else bytes(len(log) - middle))}

    def _log_is_synced(self, log: bytes) -> None:
        wal = read_wal(log)
        self.wal_synced = None if wal is None else WalPosition(wal.salts, len(log))

    def _first_start(self, run: Callable[[], Any]) -> Any:
        """A new database is switched to WAL mode: its first page is written under a rollback journal."""
        self.point()  # the file exists and is empty
        if self._next_is_cut():
            self.instead = {self.journal_path: rollback_journal()}
            self._cut()
        is_cut = self._next_is_cut()
        result = run()
        result.fetchall()  # the page is written when the statement has ended
        if is_cut:
            self.instead = {self.journal_path: rollback_journal()}
            self._cut()
        self._changes += 1
        self.names[self.journal_path] = Name(self._changes, rollback_journal())
        self.point()
        return result


def content_of(path: Path) -> bytes:
    """The content of a file, with a reserve of zeros at its end shortened."""
    with path.open("rb") as file:
        blocks = []
        for block in iter(lambda: file.read(_BLOCK), b""):
            blocks.append(block)
            if not block.strip(b"\0"):
                break
    content = b"".join(blocks)
    written = content.rstrip(b"\0")
    return written + bytes(min(_RESERVE_LEFT, len(content) - len(written)))


def rollback_journal() -> bytes:
    """The journal of a transaction on an empty database: a header of one sector, which says to cut the file to 0."""
    sector, page = 512, 4096
    words = (0, 0, 0, sector, page)  # no page was saved; a nonce; pages of the database before; sizes
    header = bytes.fromhex("d9d505f920a163d7") + b"".join([word.to_bytes(4, "big") for word in words])
    return header.ljust(sector, b"\0")


def _mixed(before: bytes, after: bytes) -> bytes:
    """Every other page of the new content, as after an interrupted checkpoint."""
    page = 4096
    pages = [
        after[start : start + page] if number % 2 or start >= len(before) else before[start : start + page]
        for number, start in enumerate(range(0, max(len(before), len(after)), page))
    ]
    return b"".join(pages)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1


def _read(path: Path, most: int = -1) -> bytes:
    with suppress(FileNotFoundError), path.open("rb") as file:
        return file.read(most)
    return b""
