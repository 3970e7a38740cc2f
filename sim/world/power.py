"""A power loss: computes an image of the files that a simulated machine restarts with.

Any image that the syncs permit is possible. Synced data is present. Unsynced data may be partly present: of SQLite's
log some whole commits and at most one torn one (its checksums fail), of the engine's own files any part of what was
written since. Name changes are undone in reverse order; a later sync makes them permanent. The memory shared by
SQLite's connections is lost. docs/determinism.md lists the limits of this model.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from msgspec import Struct

from sim.world.disk import Disk, content_of
from sim.world.wal import HEADER_BYTES, Wal, read_wal, torn

_EIGHTHS: Final = 8


class Loss(Struct, frozen=True):
    """The loss of a power cut: commits in SQLite's log, and ticks by run id."""

    commits: int
    commits_before: int
    ticks: dict[str, int]


def lose_power(disk: Disk, random_of: random.Random) -> Loss:
    """Replace the files of a dead process by an image. Raises AssertionError if the image is damaged."""
    dice = _Dice(random_of)
    before = ticks_of(disk.db_path)
    _give_names_back(disk, dice)
    for path in disk.own_files():
        _keep_part(disk, path, dice)
    lost, commits = _tear_log(disk, dice)
    disk.shm_path.unlink(missing_ok=True)
    after = ticks_of(disk.db_path)
    disk.settle()
    return Loss(lost, commits, {run: count - after[run] for run, count in before.items() if count > after[run]})


def ticks_of(db_path: Path) -> Counter[str]:
    """The number of ticks of each run, after SQLite's recovery."""
    with recovered(db_path) as db:
        if db is None:
            return Counter()
        sound = db.execute("PRAGMA integrity_check").fetchall()
        assert sound == [("ok",)], f"power: the image is damaged: {sound[:2]}"
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
        if not {"runs", "ticks"} <= tables:
            return Counter()
        query = "SELECT run_id, COUNT(*) FROM ticks JOIN runs ON runs.id = ticks.run GROUP BY run_id"
        return Counter(dict(db.execute(query).fetchall()))


@contextmanager
def recovered(db_path: Path) -> Iterator[sqlite3.Connection | None]:
    """The database as SQLite recovers it from the files of a dead process; None if the process left none.

    Uses a copy: opening the files themselves would roll them back, or checkpoint their log, before the next process.
    """
    with tempfile.TemporaryDirectory(dir=db_path.parent, prefix="copy-") as directory:
        copy = Path(directory) / db_path.name
        for suffix in ("", "-wal", "-journal"):
            path = db_path.with_name(db_path.name + suffix)
            if path.exists():
                shutil.copyfile(path, copy.with_name(copy.name + suffix))
        if not copy.exists():
            yield None
            return
        with closing(sqlite3.connect(copy)) as db:
            yield db


class _Dice:
    """Draws with `random` only, which is the same in every Python version."""

    def __init__(self, stream: random.Random) -> None:
        self._random = stream.random

    def one_of(self, count: int) -> int:
        """A number below `count`."""
        return int(self._random() * count)


def _give_names_back(disk: Disk, dice: _Dice) -> None:
    """Undo some of the newest name changes, newest first."""
    changes = sorted(disk.names.items(), key=lambda item: item[1].number)
    undone = dice.one_of(2) * dice.one_of(len(changes) + 1)
    for path, name in reversed(changes[len(changes) - undone :]):
        if name.content is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(name.content)
        disk.synced.pop(path, None)
        if name.content is not None:
            disk.synced[path] = name.content


def _keep_part(disk: Disk, path: Path, dice: _Dice) -> None:
    """Reduce one of the engine's own files to its synced content and any part of later writes."""
    fate, part, whole_length = dice.one_of(4), dice.one_of(_EIGHTHS + 1), dice.one_of(2)
    synced, written = disk.synced.get(path), content_of(path)
    if written == synced or fate == 0:
        return
    if synced is None and fate == 1:
        path.unlink()
        return
    old = b"" if synced is None else synced
    length = max(len(old), len(written)) if whole_length else max(len(old), len(written) * part // _EIGHTHS)
    cut = min(length, len(written) * part // _EIGHTHS)
    path.write_bytes(written[:cut] + old[cut:length].ljust(length - cut, b"\0"))


def _tear_log(disk: Disk, dice: _Dice) -> tuple[int, int]:
    """Drop some of the newest unsynced commits. Returns the number dropped and the number in the log."""
    share, whole, style = dice.one_of(_EIGHTHS + 1), dice.one_of(4), dice.one_of(3)
    if not disk.wal_path.exists():
        return 0, 0
    content = disk.wal_path.read_bytes()
    wal = read_wal(content)
    if wal is None:
        disk.wal_path.unlink()  # it has no header yet
        return 0, 0
    synced = synced_end(disk, wal)
    unsynced = [end for end in wal.ends if end > synced]
    kept = 0 if whole == 0 else len(unsynced) if whole == 1 else len(unsynced) * share // _EIGHTHS
    if kept == len(unsynced):
        return 0, len(wal.ends)
    left = wal.ends[: len(wal.ends) - len(unsynced) + kept]
    begin = left[-1] if left else HEADER_BYTES
    disk.wal_path.write_bytes(torn(content, begin, unsynced[kept], style, wal.first))
    return len(unsynced) - kept, len(wal.ends)


def synced_end(disk: Disk, wal: Wal) -> int:
    """The position up to which the log is synced: by a commit under FULL, by the engine, or before a checkpoint."""
    mark, index = disk.wal_synced, disk.index()
    end = mark.end if mark is not None and mark.salts == wal.salts else HEADER_BYTES
    if index is not None and index.salts == wal.salts and index.backfilled:
        end = max(end, wal.frame_end(index.backfilled))
    return end
