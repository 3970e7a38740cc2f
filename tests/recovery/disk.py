"""What a disk may hold after the power was lost: a model of files and names, fed with recorded operations.

Of a file, what was there when it was last synced is safe. What was written later may be there or not, in any
combination: none of it, all of it, all but the last write, half of the last write, the length without the data (zeros),
the writes of one file and not of another, any subset. Of a directory, the names as of its last sync are safe; later
creations, renames and removals may or may not have happened, in their order. A sync of a file does not sync the name
of the file: POSIX promises no more, SQLite relies on no more, though common file systems do more.

The index of the write-ahead log (-shm) is no part of it: SQLite makes it anew when nobody has the database open.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from tests.recovery.shim import Kind

_ENTRY: Final = struct.Struct("=4i3q")
_CREATED, _EMPTIED, _DIRECTORY = 1, 2, 4
CHANGES: Final = {
    "O": Kind.CREATE,
    "W": Kind.WRITE,
    "S": Kind.SYNC,
    "T": Kind.TRUNCATE,
    "A": Kind.ALLOCATE,
    "U": Kind.UNLINK,
    "R": Kind.RENAME,
    "L": Kind.RENAME,
}

Image = dict[str, bytes]
"""Files by their names below the directory."""


class Operation(NamedTuple):
    """One entry of a record. `number`: so many changes had been begun, this one included."""

    code: str
    descriptor: int
    flags: int
    path: str
    offset: int
    data: bytes
    number: int

    @property
    def changes(self) -> bool:
        """Whether the disk may hold something else after it."""
        return self.code in CHANGES and (self.code != "O" or self.flags & (_CREATED | _EMPTIED) != 0)


def read_record(path: Path) -> list[Operation]:
    """The operations that the shim recorded, in their order."""
    raw, at, found = path.read_bytes(), 0, []
    while at < len(raw):
        code, descriptor, flags, path_bytes, offset, data_bytes, number = _ENTRY.unpack_from(raw, at)
        at += _ENTRY.size
        name = raw[at : at + path_bytes].decode()
        at += path_bytes
        # An allocation and a cut have a length but no data.
        data = raw[at : at + data_bytes]
        at += data_bytes
        found.append(Operation(chr(code), descriptor, flags, name, offset, data, number))
    return found


@dataclass
class _File:
    now: bytearray
    safe: bytes
    pending: list[tuple[int, Operation]] = field(default_factory=list)
    """What came since the last sync, each with its number among all operations."""


Choice = Callable[["Disk", _File], bytes]


def _apply(content: bytearray, operation: Operation, data: bytes | None = None) -> None:
    data = operation.data if data is None else data
    if operation.code == "W":
        missing = operation.offset - len(content)
        if missing > 0:
            content.extend(bytes(missing))
        content[operation.offset : operation.offset + len(data)] = data
    elif operation.code == "A":
        content.extend(bytes(max(0, operation.offset - len(content))))
    else:
        size = operation.offset if operation.code == "T" else 0
        del content[size:]
        content.extend(bytes(size - len(content)))


class Disk:
    """The files of one directory, as operations change them."""

    def __init__(self, directory: str, image: Image) -> None:
        """Begin with an image, all of which is safe. `directory` is the path in the record."""
        self._directory = directory
        self._files = {number: _File(bytearray(data), data) for number, data in enumerate(image.values())}
        self._names = {name: number for number, name in enumerate(image)}
        self._safe_names = dict(self._names)
        self._renamings: list[tuple[str, str, int]] = []
        self._open: dict[int, int | None] = {}
        self._count = 0
        self.syncs = 0

    def apply(self, operation: Operation) -> None:
        """The next operation has happened."""
        self._count += 1
        match operation.code:
            case "O":
                self._opened(operation)
            case "C":
                self._open.pop(operation.descriptor, None)
            case "S":
                self._sync(self._open[operation.descriptor])
            case "U":
                self._name("U", self._local(operation.path), -1)
            case "R" | "L":
                old = self._local(operation.path)
                self._name("L", self._local(operation.data.decode()), self._names[old])
                if operation.code == "R":
                    self._name("U", old, -1)
            case "W" | "T" | "A":
                self._change(self._open[operation.descriptor], operation)

    def _local(self, path: str) -> str:
        return path.removeprefix(self._directory).lstrip("/")

    def _opened(self, operation: Operation) -> None:
        name = self._local(operation.path)
        if operation.flags & _DIRECTORY or not name:
            self._open[operation.descriptor] = None
            return
        if operation.flags & _CREATED:
            number = len(self._files)
            self._files[number] = _File(bytearray(), b"")
            self._name("L", name, number)
        self._open[operation.descriptor] = self._names[name]
        if operation.flags & _EMPTIED:
            self._change(self._names[name], operation)

    def _change(self, number: int | None, operation: Operation) -> None:
        assert number is not None
        file = self._files[number]
        _apply(file.now, operation)
        file.pending.append((self._count, operation))

    def _sync(self, number: int | None) -> None:
        self.syncs += 1
        if number is None:
            self._safe_names, self._renamings = dict(self._names), []
        else:
            file = self._files[number]
            if file.pending:
                file.safe, file.pending = bytes(file.now), []

    def _name(self, code: str, name: str, number: int) -> None:
        _rename(self._names, (code, name, number))
        self._renamings.append((code, name, number))

    def image(self, choose: Choice, names: int | None = None) -> Image:
        """What may be there: of each file what `choose` answers, after the first `names` unsynced renamings (all)."""
        known = dict(self._safe_names)
        for renaming in self._renamings[:names]:
            _rename(known, renaming)
        return {name: choose(self, self._files[number]) for name, number in known.items() if not name.endswith("-shm")}

    def images(self, chance: random.Random) -> Iterator[tuple[str, Image]]:
        """Images that a loss of power at this moment may leave, each with what it is."""
        yield "nothing unsynced", self.image(_nothing, 0)
        yield "nothing unsynced but names", self.image(_nothing)
        last = max((file.pending[-1][0] for file in self._files.values() if file.pending), default=0)
        yield "half of the last write", self.image(_until(last, torn=True))
        yield "all but the last write", self.image(_until(last, torn=False))
        yield "lengths without data", self.image(_zeros)
        for name, number in self._names.items():
            if self._files[number].pending and not name.endswith("-shm"):
                yield f"only the writes of {name}", self.image(_only(self._files[number]))
        # Drawn last, so that what is above does not depend on how often this was asked for.
        yield "some writes and names", self.image(_some(chance), chance.randint(0, len(self._renamings)))
        yield "everything but names", self.image(_everything, 0)

    @property
    def safe(self) -> Image:
        """What no loss of power can take."""
        return self.image(_nothing, 0)

    @property
    def latest(self) -> Image:
        """What every process sees now."""
        return self.image(_everything)

    @property
    def synced(self) -> Image:
        """The same under the names that the files have now."""
        return self.image(_nothing)


def _rename(names: dict[str, int], renaming: tuple[str, str, int]) -> None:
    code, name, number = renaming
    if code == "L":
        names[name] = number
    else:
        names.pop(name, None)


def _nothing(_disk: Disk, file: _File) -> bytes:
    return file.safe


def _everything(_disk: Disk, file: _File) -> bytes:
    return bytes(file.now)


def _only(chosen: _File) -> Choice:
    return lambda _disk, file: bytes(file.now) if file is chosen else file.safe


def _until(last: int, torn: bool) -> Choice:
    def choose(_disk: Disk, file: _File) -> bytes:
        content = bytearray(file.safe)
        for number, operation in file.pending:
            if number < last:
                _apply(content, operation)
            elif torn and operation.code == "W":
                half = len(operation.data) // 2
                _apply(content, operation, operation.data[: half // 512 * 512 if half >= 512 else half])
        return bytes(content)

    return choose


def _zeros(_disk: Disk, file: _File) -> bytes:
    content = bytearray(file.safe)
    content.extend(bytes(max(0, len(file.now) - len(content))))
    return bytes(content[: len(file.now)])


def _some(chance: random.Random) -> Choice:
    def choose(_disk: Disk, file: _File) -> bytes:
        content = bytearray(file.safe)
        share = chance.random()
        for _, operation in file.pending:
            if chance.random() < share:
                _apply(content, operation)
        return bytes(content)

    return choose
