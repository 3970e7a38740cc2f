"""What is refused before SQLite sees a database: paths, permissions, files beside it. Only these; whose it is, SQLite
tells (`tradebot.store.database.refuse_foreign`).
"""

from __future__ import annotations

import os
import pwd
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from tradebot.core.errors import ConfigError
from tradebot.store.database import beside
from tradebot.store.errors import may_access, os_failure

_BLOCK_BYTES: Final = 1 << 20
_SQLITE_MAGIC: Final = b"SQLite format 3\x00"
_PATH_BYTES_MAX: Final = 504
"""SQLite's own limit (512) without the longest name that it adds."""
_OPENED: Final = ("-wal", "-shm", "-journal", ".lock", ".spill")
"""Files beside the database that an engine opens in place, following no symbolic link."""
_LONGEST_SUFFIX: Final = ".quarantine.jsonl.1"
_RECOVERY_MAGIC: Final = {
    "-journal": (b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7",),
    "-wal": (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83"),
}
"""How the files begin from which SQLite restores a database (https://www.sqlite.org/fileformat.html)."""


def check_path(path: Path) -> None:
    """Refuse what cannot be our database before SQLite sees it; creates the parent directory.

    Raises ConfigError, StorageUnavailable where the failure can pass.
    """
    try:
        if path.is_dir():
            raise ConfigError(f"database {path}: is a directory; name a file, e.g. {path / 'tradebot.db'}")
        target = beside(path, "")
        if target.is_symlink():
            raise ConfigError(f"database {path}: its symbolic links form a loop")
        length = len(os.fsencode(target))
        if length > _PATH_BYTES_MAX:
            raise ConfigError(
                f"database {path}: its path has {length} bytes; SQLite takes {_PATH_BYTES_MAX} at most, from the root"
                " and with symbolic links resolved"
            )
        _check_directory(path, target.parent)
        if target.exists():
            _check_file(path, target)
    except OSError as error:
        raise os_failure(error, f"database {path}: cannot be opened") from error


def check_companions(path: Path) -> None:
    """Refuse what lies beside the database and could not be written there: opening it would fail again and again.

    For an engine, which writes them all. Raises ConfigError naming the file, StorageUnavailable.
    """
    try:
        longest = beside(path, _LONGEST_SUFFIX)
        if len(longest.name) > os.pathconf(longest.parent, "PC_NAME_MAX"):
            raise ConfigError(
                f"database {path}: its name is too long for the files beside it, such as {longest.name}; choose a"
                f" shorter one"
            )
        for suffix in _OPENED:
            _check_companion(path, beside(path, suffix))
        _check_owner(path, beside(path, ".status.json"))
    except OSError as error:
        raise os_failure(error, f"database {path}: the files beside it cannot be examined") from error


def _check_directory(path: Path, directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise os_failure(error, f"database {path}: cannot create its directory {directory}") from error
    if not may_access(directory, os.W_OK | os.X_OK):
        raise ConfigError(f"database {path}: its directory {directory} is not writable (SQLite keeps its WAL there)")


def _check_file(path: Path, target: Path) -> None:
    if not target.is_file():
        raise ConfigError(f"database {path}: is not a regular file")
    if not may_access(target, os.R_OK | os.W_OK):
        raise ConfigError(f"database {path}: is not readable and writable for this user")
    # Only before this process has a connection to it: closing a file gives up all locks that the process has on it.
    with target.open("rb") as file:
        head = file.read(len(_SQLITE_MAGIC))
    if head and head != _SQLITE_MAGIC and not _can_be_recovered(target):
        raise ConfigError(f"database {path}: exists but is not a SQLite database; name another file with --db")


def _can_be_recovered(target: Path) -> bool:
    """Whether a journal or WAL lies beside the file, from which SQLite will restore its first page.

    A kill or a power loss while that page was written leaves it so. Raises OSError.
    """
    for suffix, magics in _RECOVERY_MAGIC.items():
        try:
            with Path(f"{target}{suffix}").open("rb") as file:
                if file.read(len(magics[0])) in magics:
                    return True
        except FileNotFoundError:
            continue
    return False


def _check_companion(path: Path, file: Path) -> None:
    try:
        mode = file.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        kind = "a symbolic link, which is not followed" if stat.S_ISLNK(mode) else "not a regular file"
        raise ConfigError(f"database {path}: {file} is {kind}; remove it, or use another --db")
    _check_owner(path, file)
    if not may_access(file, os.R_OK | os.W_OK):
        raise ConfigError(f"database {path}: {file} is not readable and writable for this user; change its mode")


def _check_owner(path: Path, file: Path) -> None:
    """Refuse a file of another user that this one may not write."""
    try:
        owner = file.lstat().st_uid
    except FileNotFoundError:
        return
    if owner != os.geteuid() and not may_access(file, os.R_OK | os.W_OK):
        raise ConfigError(
            f"database {path}: {file} belongs to {_user(owner)}, and this user may not read and write it;"
            " change its owner, or run as the user that wrote it"
        )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def check_existing(path: Path) -> None:
    """Refuse what is no database file that this user may write. Raises ConfigError; makes nothing."""
    try:
        if not path.exists():
            raise ConfigError(f"database {path}: does not exist")
        if path.is_file() and not path.stat().st_size:
            raise ConfigError(f"database {path}: is empty: no engine has run with it")
    except OSError as error:
        raise os_failure(error, f"database {path}: cannot be opened") from error
    check_path(path)


def check_readable(path: Path) -> None:
    """Read a database and its log from end to end, to distinguish a damaged file from a disk read error.

    Only where this process has no connection to it: closing a file gives up all locks that the process has on it.
    Blocks as the disk does. Raises StorageUnavailable or ConfigError naming the file.
    """
    for suffix in ("", "-wal"):
        file = beside(path, suffix)
        try:
            with suppress(FileNotFoundError), file.open("rb") as content:
                while content.read(_BLOCK_BYTES):
                    pass
        except OSError as error:
            raise os_failure(error, f"database {path}: {file} cannot be read") from error
