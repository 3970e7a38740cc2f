"""One file, one writer: the locks that an engine holds on its database as long as it runs.

Two flocks. That of `<database>.lock` is what earlier versions ask for, and its content names the owner. That of the
database file itself belongs to the inode, so that it is the same through a hard link or a bind mount, and stays when
the lock file is removed. SQLite's own locks are POSIX locks, which flock does not meet on a local file system;
but closing any descriptor of a file drops all POSIX locks that the process has on it. So the descriptor of the database
is opened before the first connection of the process and closed after the last.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from tradebot.core.errors import ConfigError
from tradebot.core.private_files import open_private
from tradebot.store.database import beside
from tradebot.store.errors import os_failure

SUFFIX: Final = ".lock"
_OWNER_BYTES_MAX: Final = 20
_BLOCK_BYTES: Final = 1 << 20
_UNSUPPORTED: Final = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_EMULATED: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs"})
"""File systems where a flock is, or may be, a lock on the whole file that SQLite's own locks meet."""


class WriterLock:
    """Held as long as an engine may write the database; a second engine is refused. Ends with the process.

    `unguarded` is why the database file itself could not be locked (only the lock file is then), or None.
    """

    def __init__(self, path: Path) -> None:
        """Creates both files where they are missing. Call before this process opens the database.

        Raises ConfigError when another engine holds it or a file cannot be used, StorageUnavailable when that can pass.
        """
        self.path = beside(path, SUFFIX)
        self.unguarded: str | None = None
        self._descriptors: list[int] = []
        try:
            self._lock_beside(path)
            self._lock_database(path)
            with suppress(OSError):  # a full disk: the process id is only information, the lock itself needs no space
                os.ftruncate(self._descriptors[0], 0)
                os.pwrite(self._descriptors[0], f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let another engine in. Call when no connection of this process is open any more. Idempotent."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def read_through(self) -> Iterator[None]:
        """Read the whole database through the descriptor that holds its lock, which SQLite does not mind; a step a MiB.

        Raises OSError where the disk cannot read it. Blocks as the disk does.
        """
        place = 0
        while block := os.pread(self._descriptors[-1], _BLOCK_BYTES, place):
            place += len(block)
            yield

    def _lock_beside(self, path: Path) -> None:
        try:
            descriptor = open_private(self.path, os.O_RDWR)
        except OSError as error:
            raise os_failure(error, f"database {path}: cannot create {self.path}{_why(error)}") from error
        self._descriptors.append(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(descriptor, _OWNER_BYTES_MAX, 0).decode("ascii", "replace").strip() or "unknown"
            raise ConfigError(
                f"database {path}: another engine (process {owner}) is writing it; stop that one or use another --db"
            ) from error
        except OSError as error:
            raise os_failure(error, f"database {path}: cannot lock {self.path}") from error

    def _lock_database(self, path: Path) -> None:
        target = beside(path, "")
        try:
            descriptor = open_private(target, os.O_RDWR)
        except OSError as error:
            raise os_failure(error, f"database {path}: cannot be opened") from error
        self._descriptors.append(descriptor)
        kind = file_system(os.fstat(descriptor).st_dev)
        if kind in _EMULATED:
            self.unguarded = f"its file system is {kind}, where that lock would conflict with SQLite's own"
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = holder(os.fstat(descriptor).st_ino)
            named = "" if not owner else f" (process {owner})"
            raise ConfigError(
                f"database {path}: another engine{named} is writing this file, under another name of it or after"
                f" {self.path} was removed; stop that one or use another --db"
            ) from error
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise os_failure(error, f"database {path}: cannot be locked") from error
            self.unguarded = f"its file system does not support this: {error.strerror}"


def _why(error: OSError) -> str:
    return " (it is a symbolic link, which is not followed)" if error.errno == errno.ELOOP else ""


def holder(inode: int, locks: Path = Path("/proc/locks")) -> int | None:
    """The process that holds a flock on the inode, or None. Takes no lock itself. Raises nothing."""
    with suppress(OSError):
        return holder_of(locks.read_text(encoding="ascii", errors="replace").splitlines(), inode)
    return None


def holder_of(lines: Iterable[str], inode: int) -> int | None:
    """The process that holds an flock on the inode, from the lines of /proc/locks.

    The device is not compared: some file systems show another one there than stat does.
    """
    for line in lines:
        words = line.split()
        if words[1:4] == ["FLOCK", "ADVISORY", "WRITE"] and words[5].rpartition(":")[2] == str(inode):
            return int(words[4])
    return None


def file_system(device: int, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """The type of a mounted file system, such as "ext4"; None where that cannot be found out. Raises nothing."""
    with suppress(OSError):
        return file_system_of(mounts.read_text(encoding="utf-8", errors="replace").splitlines(), device)
    return None


def file_system_of(lines: Iterable[str], device: int) -> str | None:
    """The type of the file system with this device number, from the lines of /proc/self/mountinfo. Pure."""
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in lines:
        mounted, _, described = line.partition(" - ")
        if mounted.split()[2:3] == [number] and described:
            return described.split()[0]
    return None
