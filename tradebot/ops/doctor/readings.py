"""What the doctor reads off this machine. Everything here looks and changes nothing; what cannot be read is None."""

from __future__ import annotations

import ctypes
import getpass
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Final, NamedTuple

from tradebot.core.runtime import Runtime
from tradebot.ops.doctor.permissions import FileReading
from tradebot.ops.doctor.service_user import ServiceUser
from tradebot.ops.installed import DEFAULT, WRITTEN, engine_units
from tradebot.store.database import beside
from tradebot.store.lock import SUFFIX, holder_of

_VERIFY_S: Final = 20.0
# Of a user's unit where that user has no session: it says nothing about the unit.
_NO_MANAGER: Final = b"Failed to initialize manager"
_LISTEN: Final = "0A"
_TIMEX_BYTES: Final = 512
_TIME_ERROR: Final = 5
_OUR_PROGRAMS: Final = ("tradebot", "mockws", "mockws_server")


class ClockReading(NamedTuple):
    """How far the wall clock moved against the monotonic one, and whether the kernel says it is kept right."""

    step_ms: float
    over_s: float
    synchronised: bool | None


class LockReading(NamedTuple):
    """Who holds the writer lock of a database. `known` is False where the system does not provide it."""

    known: bool
    holder: int | None

    @property
    def held(self) -> bool:
        """Whether a process is known to hold it."""
        return self.holder is not None


class Listener(NamedTuple):
    """A process that listens on a port; `owner` is None if this user cannot examine it."""

    port: int
    owner: str | None
    ours: bool


class UnitReading(NamedTuple):
    """Where the unit that runs with this configuration was found, and what systemd-analyze verify said of it.

    `complaint`: "" for nothing, None where it did not run. `others`: engines' units with another configuration, each
    with its file's path (None: it has none).
    """

    systemd_runs: bool
    paths: tuple[str, ...]
    complaint: str | None
    others: tuple[tuple[str, str | None], ...] = ()
    config: str | None = None
    """The file of that configuration."""
    foreign: bool = False
    """Whether it was not written by install-unit."""

    @property
    def name(self) -> str:
        """What systemctl calls it; the default name where it is not known."""
        return Path(self.paths[0]).name if self.paths else DEFAULT.engine


def read_libraries(names: Iterable[str]) -> dict[str, str | None]:
    """The installed versions of packages; None for those that are not there."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def read_clock(runtime: Runtime, seconds: float) -> ClockReading:
    """Watch both clocks for so long. Blocks."""
    wall_ms, began_s = runtime.now_ms(), runtime.monotonic()
    runtime.sleep(seconds)
    over_s = runtime.monotonic() - began_s
    return ClockReading(runtime.now_ms() - wall_ms - over_s * 1000, over_s, read_synchronised())


def read_synchronised() -> bool | None:
    """Whether the kernel counts its clock as synchronised (adjtimex(2), which changes nothing with modes 0)."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def user_name() -> str:
    """Who runs this process."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in a container
        return f"user {os.geteuid()}"


def read_file(path: Path, secret: bool = False, service: ServiceUser | None = None) -> FileReading | None:
    """What the service's user, else this user, may do with it; None when it is not there."""
    try:
        status = path.stat()
        mode = status.st_mode & 0o7777
        if service is None:
            how = os.W_OK | os.X_OK if path.is_dir() else os.W_OK
            owned = status.st_uid == os.geteuid()
            return FileReading(str(path), mode, os.access(path, os.R_OK), os.access(path, how), owned, secret=secret)
        closed = service.closed_above(path)
        return FileReading(
            str(path),
            mode,
            readable=service.reads(path),
            writable=service.works_in(path),
            owned=status.st_uid == service.uid,
            of_group=status.st_gid in service.gids,
            closed_above=None if closed is None else str(closed),
            secret=secret,
        )
    except OSError:
        return None


def read_lock(db_path: Path, locks: Path = Path("/proc/locks")) -> LockReading:
    """Who holds the writer lock, without asking for it: an engine that starts at this moment is not disturbed.

    The lock of the database file counts as that of the lock file, which may have been removed.
    """
    try:
        lines = locks.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return LockReading(False, None)
    for suffix in (SUFFIX, ""):
        with suppress(OSError):
            pid = holder_of(lines, beside(db_path, suffix).stat().st_ino)
            if pid is not None:
                return LockReading(True, pid)
    return LockReading(True, None)


def pid_alive(pid: int) -> bool:
    """Whether a process has that id."""
    return Path(f"/proc/{pid}").exists()


def read_listener(port: int, proc: Path = Path("/proc")) -> Listener | None:
    """Who listens on a TCP port of this machine, without connecting to it or binding it."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            inodes |= set(listening((proc / "net" / table).read_text(encoding="ascii").splitlines(), port))
    if not inodes:
        return None
    for pid, words in _owners(proc, inodes):
        return Listener(port, f"process {pid} ({' '.join(words).strip()[:80]})", runs_our_program(words))
    return Listener(port, None, False)


def runs_our_program(words: Sequence[str]) -> bool:
    """Whether a command line runs tradebot or mockws: as a program, or as a script or module of Python.

    A directory or an argument of that name does not count.
    """
    is_python = words[0].rpartition("/")[2].startswith("python")
    programs = words[:3] if is_python else words[:1]
    return any(word.rpartition("/")[2].partition(".")[0] in _OUR_PROGRAMS for word in programs)


def listening(lines: Iterable[str], port: int) -> Iterator[str]:
    """Inodes of the listening sockets on a port, from the lines of /proc/net/tcp."""
    for line in lines:
        words = line.split()
        if len(words) > 9 and words[3] == _LISTEN and int(words[1].rpartition(":")[2], 16) == port:
            yield words[9]


def _owners(proc: Path, inodes: set[str]) -> Iterator[tuple[str, list[str]]]:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for place in proc.glob("[0-9]*"):
        with suppress(OSError):  # gone, or somebody else's
            if any(os.readlink(link) in wanted for link in (place / "fd").iterdir()):
                words = (place / "cmdline").read_bytes().split(b"\0")
                yield place.name, [word.decode("utf-8", "replace") for word in words]


def read_unit(home: Path | None, config: Path | None) -> UnitReading:
    """Find the unit that runs with this configuration (None: no file), and have it verified. Blocks for up to 20 s."""
    units = engine_units(home)
    mine = [unit for unit in units if unit.runs_with(config)]
    complaints = [verify(unit.path, ("--user",) if unit.user else ()) for unit in mine]
    complaint = None if not mine or None in complaints else "; ".join(text for text in complaints if text)
    return UnitReading(
        Path("/run/systemd/system").is_dir(),
        tuple(str(unit.path) for unit in mine),
        complaint,
        tuple((str(unit.path), unit.config) for unit in units if unit not in mine),
        None if config is None else str(config),
        any(WRITTEN not in unit.path.read_text(errors="replace") for unit in mine),
    )


def verify(path: Path, how: tuple[str, ...]) -> str | None:
    """What systemd-analyze has against a unit, on one line; "" for nothing, None when it cannot be asked. Blocks."""
    program = shutil.which("systemd-analyze")
    if program is None:
        return None
    words = [program, *how, "verify", "--man=no", str(path)]
    try:
        done = subprocess.run(words, capture_output=True, timeout=_VERIFY_S, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if _NO_MANAGER in done.stdout + done.stderr:
        return None
    said = b" | ".join((done.stdout + done.stderr).split(b"\n")).decode("utf-8", "replace").strip(" |")
    return said or (f"systemd-analyze verify ended with {done.returncode}" if done.returncode else "")
