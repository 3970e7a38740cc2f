"""Building the shim (shim.c), and telling it in a forked child what to do with the file operations of the engine.

Operations are counted by kind; *changes* are those after which the disk can hold something else, syncs included. A
mode applies to files below one directory. The shared block outlives a killed child, so that its parent can read it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("shim.c")
_KINDS: Final = 12
_PR_SET_PDEATHSIG: Final = 1
COUNTED: Final = ("ticks", "signals", "orders", "trades", "notices")


class ShimUnavailable(Exception):
    """The shim cannot be built or loaded here; the text says why."""


class Mode(IntEnum):
    """What the shim does beside counting."""

    OFF = 0
    COUNT = 1
    KILL = 2
    """SIGKILL instead of change number `at`; `torn`: after half of it, where it is a write."""
    RECORD = 3
    """All changes with their data go to a file."""
    FAIL = 4
    """Operation number `at` of those in `mask` returns `error`; `lasting`: all later ones too."""


class Kind(IntFlag):
    """What an operation is. An open that may write, and one that creates or empties its file, are three and two."""

    OPEN = 1
    OPEN_WRITE = 2
    CREATE = 4
    WRITE = 8
    SYNC = 16
    TRUNCATE = 32
    ALLOCATE = 64
    UNLINK = 128
    RENAME = 256
    READ = 512
    CLOSE = 1024
    LOCK = 2048


class Control(ctypes.Structure):
    """`struct control` of shim.c, and after it what the engine's writer reported as stored."""

    mode: int
    at: int
    torn: int
    mask: int
    error: int
    lasting: int
    changes: int
    """So many changes were begun."""
    matched: int
    """So many operations were of the kinds in `mask`."""
    failed: int
    """So many of them were failed."""
    kinds: Sequence[int]
    record_error: int
    committed: ctypes.Array[ctypes.c_int64]
    """Rows of its run, by table as in COUNTED."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("mode", "at", "torn", "mask", "error", "lasting")),
        *((name, ctypes.c_int64) for name in ("changes", "matched", "failed")),
        ("kinds", ctypes.c_int64 * _KINDS),
        ("record_error", ctypes.c_int64),
        ("committed", ctypes.c_int64 * len(COUNTED)),
    )


def new_control() -> Control:
    """A block in memory that a forked child shares with its parent."""
    return Control.from_buffer(mmap.mmap(-1, mmap.PAGESIZE))


def build(into: Path) -> Path:
    """Compile the shim into a directory. Raises ShimUnavailable."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise ShimUnavailable("no C compiler (cc) on the search path")
    library = into / "shim.so"
    words = [compiler, "-std=gnu11", "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl", "-lpthread"]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise ShimUnavailable(f"the shim does not compile here: {done.stderr.strip()[-500:]}")
    return library


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Shim:
    """The library, as preloaded into this process. Armed in children only."""

    def __init__(self, library: Path) -> None:
        """Raises ShimUnavailable when it was not preloaded: then it would see no operation of anybody."""
        try:
            self._library = ctypes.CDLL(str(library))
        except OSError as error:
            raise ShimUnavailable(f"the shim cannot be loaded: {error}") from error
        if str(library) not in Path("/proc/self/maps").read_text():
            raise ShimUnavailable("the shim was not preloaded")

    def arm(self, directory: Path, control: Control, record: int = -1) -> None:
        """Watch the files below `directory` from now on; changes are recorded to the descriptor `record`."""
        self._library.lab_arm(os.fsencode(os.path.realpath(directory)), ctypes.byref(control), record)

    def mark(self, text: str) -> None:
        """Put a remark among the recorded operations."""
        self._library.lab_mark(text.encode())
