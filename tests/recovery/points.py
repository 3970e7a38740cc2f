"""Where the lab strikes: which changes of the disk, which calls, and with which errors."""

from __future__ import annotations

import errno
import itertools
import random
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from tests.recovery.shim import Kind
from tradebot.config.model import Synchronous

PointKind = Literal["kill", "torn", "power", "error"]
POINT_KINDS: Final[tuple[PointKind, ...]] = ("kill", "torn", "power", "error")

_MAKE_ROOM: Final = Kind.CREATE | Kind.WRITE | Kind.ALLOCATE
_ALTER: Final = Kind.OPEN_WRITE | Kind.WRITE | Kind.TRUNCATE | Kind.ALLOCATE | Kind.UNLINK | Kind.RENAME


@dataclass(frozen=True)
class Error:
    """Calls of some kinds fail with an error, from the N-th on: once, or all of them (`lasting`)."""

    name: str
    kinds: Kind
    errno: int
    lasting: bool


def _errors() -> Iterator[Error]:
    for name, kinds, numbers in (
        ("open", Kind.OPEN, (errno.EMFILE, errno.EIO)),
        ("write", Kind.WRITE, (errno.EIO,)),
        ("sync", Kind.SYNC, (errno.EIO,)),
        ("truncate", Kind.TRUNCATE, (errno.EIO,)),
        ("allocate", Kind.ALLOCATE, (errno.EIO,)),
        ("unlink", Kind.UNLINK, (errno.EIO,)),
        ("rename", Kind.RENAME, (errno.EIO,)),
        ("read", Kind.READ, (errno.EIO,)),
        ("room", _MAKE_ROOM, (errno.ENOSPC, errno.EDQUOT)),
        ("alter", _ALTER, (errno.EROFS,)),
    ):
        for number in numbers:
            for lasting in (False, True):
                yield Error(f"{name}-{errno.errorcode[number]}{'-lasting' if lasting else ''}", kinds, number, lasting)


ERRORS: Final = {error.name: error for error in _errors()}


@dataclass(frozen=True)
class Point:
    """One place to strike: `at` is the number of the change or, for an error, of the call; from 1."""

    scenario: str
    synchronous: Synchronous
    kind: PointKind
    at: int
    detail: str = ""
    """The error's name, or what the image is."""

    @property
    def name(self) -> str:
        """Fit for a directory."""
        words = (self.scenario, self.synchronous, self.kind, str(self.at), self.detail)
        return "-".join(word.replace(" ", "-") for word in words if word)

    def command(self, seed: int) -> str:
        """The command that strikes there again."""
        words = [f"--scenario={self.scenario}", f"--synchronous={self.synchronous}", f"--kind={self.kind}"]
        words += [f"--at={self.at}", *([f"--detail={self.detail}"] if self.detail else []), f"--seed={seed}"]
        return f"make recovery ARGS={shlex.quote(' '.join(map(shlex.quote, words)))}"


def spread(total: int, limit: int, chance: random.Random) -> list[int]:
    """At most `limit` numbers of 1 to `total`: all, or the ends and one drawn from each of equal stretches between."""
    if total <= limit:
        return list(range(1, total + 1))
    if limit <= 2:
        return [1, total][: max(0, limit)]
    edges = [2 + (total - 2) * part // (limit - 2) for part in range(limit - 1)]
    return [1, *(chance.randrange(low, high) for low, high in itertools.pairwise(edges)), total]
