"""Files that only their owner may read: created with mode 0600 (less what the umask takes away), never through a link.

The names beside a database are predictable, so another user could put a symbolic link or a fifo there first. Every
function refuses both: `open_private` with O_NOFOLLOW and a look at what was opened, `replace_private` by writing to a
new file and renaming it.

A file that root creates in a directory of another user is given to that user, as SQLite does with its WAL: a command
that an administrator runs must not leave files that the service cannot read.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

PRIVATE_MODE: Final = 0o600

PART_SUFFIX: Final = ".part"
"""What `replace_private` adds to a name while it writes."""


def open_private(path: Path, flags: int) -> int:
    """A descriptor of `path`, opened with `flags` and created when missing. Raises OSError; never waits for a fifo.

    Pass O_EXCL to refuse an existing file. A symbolic link is ELOOP, anything else that is not a regular file EINVAL.
    The mode of an existing file stays as it is.
    """
    created = True
    try:
        descriptor = _open(path, flags | os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        if flags & os.O_EXCL:
            raise
        created = False
        descriptor = _open(path, flags | os.O_CREAT)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        if created:
            _give_to_owner_of_directory(descriptor, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_trusted(path: Path, bytes_max: int) -> bytes:
    """The content of a file that no other user could have written, at most `bytes_max`. Never waits for a fifo.

    Trusted are this process's user, root, and the owner of the directory, who could put any file there. Raises OSError,
    with the reason as its strerror, for everything else, symbolic links included.
    """
    with open(_open(path, os.O_RDONLY), "rb") as file:
        status = os.fstat(file.fileno())
        untrusted = None
        if not stat.S_ISREG(status.st_mode):
            untrusted = "is not a regular file"
        elif status.st_uid not in (os.geteuid(), 0, os.stat(path.parent).st_uid):
            untrusted = f"belongs to another user (uid {status.st_uid})"
        elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            untrusted = f"other users can change it (mode {stat.S_IMODE(status.st_mode):04o})"
        if untrusted is not None:
            raise OSError(errno.EPERM, untrusted, str(path))
        return file.read(bytes_max)


def replace_private(path: Path, data: bytes, sync: bool = True) -> None:
    """Put a file with this content in the place of `path`: a reader sees the old one or the new one. Raises OSError.

    With `sync` the content is on disk before the new file takes the name; the rename itself is not synced. Blocks as
    the disk does. One writer a path: the temporary name is always the same, so that a killed writer leaves at most one.
    """
    part = path.with_name(path.name + PART_SUFFIX)
    part.unlink(missing_ok=True)  # left by a killed writer, or a symbolic link: the link itself is removed
    descriptor = open_private(part, os.O_WRONLY | os.O_EXCL)
    try:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            if sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):  # the first error is the one to report
            part.unlink(missing_ok=True)
        raise


def sync_directory(directory: Path) -> None:
    """Have the names in `directory` on disk. Blocks. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open(path: Path, flags: int) -> int:
    try:
        # O_NONBLOCK: opening a fifo would wait for its other end.
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, PRIVATE_MODE)
    except OSError as error:
        if error.errno == errno.ELOOP and path.is_symlink():
            raise OSError(errno.ELOOP, "is a symbolic link, which is not followed", str(path)) from None
        raise


def _give_to_owner_of_directory(descriptor: int, path: Path) -> None:
    if os.geteuid() != 0:
        return
    owner = os.stat(path.parent)
    if owner.st_uid != 0:
        with suppress(PermissionError):  # root of a container without CAP_CHOWN: then the file is root's
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
