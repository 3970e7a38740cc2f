"""Reports the disk calls of a simulated process to a `Disk`; the product itself contains no hook for this.

Calls on the engine's own files are observed by wrapping the functions of `os` that sync, rename, delete and write to a
descriptor. SQLite's are observed through its connections: which statement ends a transaction, and its `synchronous`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from sim.world.disk import Disk

_IN_TRANSACTION: Final = ("COMMIT", "END")


@contextmanager
def recording(disk: Disk, live: Callable[[], bool]) -> Iterator[None]:
    """Report the calls of one process to `disk` inside the block, while `live()`."""
    system: Any = os
    library: Any = sqlite3  # the module that peewee uses too
    recorder = _CallRecorder(disk)
    wrapped: dict[str, Callable[..., Callable[..., Any]]] = {
        "fsync": recorder.sync, "fdatasync": recorder.sync, "replace": recorder.move, "rename": recorder.move,
        "unlink": recorder.remove, "remove": recorder.remove, "pwrite": recorder.write, "write": recorder.write,
    }  # fmt: skip
    real = {name: getattr(system, name) for name in wrapped}
    connect = library.connect
    disk.begin(live)
    try:
        for name, wrap in wrapped.items():
            setattr(system, name, wrap(real[name]))
        library.connect = recorder.connect(connect)
        yield
    finally:
        library.connect = connect
        for name, call in real.items():
            setattr(system, name, call)
        disk.end()


class RecordedConnection(sqlite3.Connection):
    """A connection that reports its transactions to the disk."""

    disk: Disk | None = None
    full = True
    """Whether a commit is synced (the default)."""

    def cursor(self, factory: Any = None) -> Any:
        """A cursor that reports its statements too."""
        return super().cursor(_Cursor if factory is None else factory)

    def execute(self, sql: str, parameters: Any = ()) -> Any:
        """Execute a statement on a cursor of its own."""
        return self.cursor().execute(sql, parameters)

    def close(self) -> None:
        """Close it."""
        if self.disk is None:
            super().close()
        else:
            self.disk.close(super().close)


class _Cursor(sqlite3.Cursor):
    def execute(self, sql: str, parameters: Any = ()) -> Any:
        connection, run = self.connection, super().execute
        assert isinstance(connection, RecordedConnection)
        if connection.disk is None or (connection.in_transaction and not sql.startswith(_IN_TRANSACTION)):
            return run(sql, parameters)
        if sql.upper().startswith("PRAGMA SYNCHRONOUS ="):
            connection.full = "FULL" in sql.upper()
        return connection.disk.statement(connection.full, sql, lambda: run(sql, parameters))


class _CallRecorder:
    """Wraps functions so that they report what they do to the disk's files."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def connect(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """`sqlite3.connect`."""

        def connect(*args: Any, **options: Any) -> Any:
            connection = call(*args, **{"factory": RecordedConnection, **options})
            name = str(args[0]).removeprefix("file://").partition("?")[0]
            if os.path.realpath(name) == self._disk.path and isinstance(connection, RecordedConnection):
                connection.disk = self._disk
            return connection

        return connect

    def sync(self, call: Callable[[int], None]) -> Callable[..., None]:
        """Wrap `os.fsync` or a similar function."""

        def sync(descriptor: Any) -> None:
            number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
            name = _path_of(number)
            if not self._disk.is_ours(name):
                call(number)
                return
            self._disk.point()
            call(number)
            self._disk.sync(name)
            self._disk.point()

        return sync

    def move(self, call: Callable[..., None]) -> Callable[..., None]:
        """Wrap `os.replace` or a similar function."""

        def move(old: Any, new: Any, **folders: Any) -> None:
            names = os.path.realpath(os.fspath(old)), os.path.realpath(os.fspath(new))
            if not self._disk.is_ours(names[1]):
                call(old, new, **folders)
                return
            self._disk.point()
            self._disk.forget_name(names[1])
            call(old, new, **folders)
            self._disk.moved(*names)
            self._disk.point()

        return move

    def remove(self, call: Callable[..., None]) -> Callable[..., None]:
        """Wrap `os.unlink` or a similar function."""

        def remove(path: Any, **folders: Any) -> None:
            name = os.path.realpath(os.fspath(path))
            if not self._disk.is_ours(name) or not os.path.exists(name):
                call(path, **folders)
                return
            self._disk.point()
            self._disk.forget_name(name)
            call(path, **folders)
            self._disk.removed(name)
            self._disk.point()

        return remove

    def write(self, call: Callable[..., int]) -> Callable[..., int]:
        """Wrap `os.write` or a similar function."""

        def write(descriptor: int, data: Any, *offset: int) -> int:
            if not self._disk.is_live or not self._disk.is_ours(_path_of(descriptor)):
                return call(descriptor, data, *offset)
            return self._disk.write(lambda part: call(descriptor, part, *offset), memoryview(data))

        return write


def _path_of(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""
