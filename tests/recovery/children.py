"""The engine in forked children of a process that has imported it: a start costs no import.

The parent must have no threads. A child has its own standard streams (files), a clean environment, and the shim's
orders; it ends without the interpreter's farewell, as a service that is done would.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sqlite3
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, NoReturn

import tradebot.cli.commands
import tradebot.engine  # noqa: F401
from tests.e2e.process import Fields, Finished
from tests.recovery.shim import COUNTED, Control, Mode, Shim
from tradebot.cli import main as cli
from tradebot.cli.arguments import Arguments, parse
from tradebot.core.events import StoredEvent
from tradebot.core.log_events import LogEvent
from tradebot.store.batch import WriteBatch
from tradebot.store.database import BUSY_TIMEOUT_MS
from tradebot.store.spill import Spill
from tradebot.store.writer import SqliteWriter

DEADLINE_S: Final = 60.0
HUNG: Final = -1000
"""The code of a child that had to be killed because it did not end."""

SPILLED: Final = "spilled"
"""The mark in a record after which the spill file is as the engine calls it safe."""

_PYTHON_FAILED: Final = 70


@dataclass(frozen=True)
class Lock:
    """Another program writes the database: after so many commits of the engine, for so long (None: till its end)."""

    after_commits: int
    seconds: float | None = None


@dataclass(frozen=True)
class Orders:
    """What the shim is to do in a child. The directory watched is the child's working directory."""

    shim: Shim
    control: Control
    record: Path | None = None


def run(
    home: Path, args: Sequence[str], orders: Orders | None = None, lock: Lock | None = None, db: str = "x.db"
) -> Finished:
    """Run `tradebot` with `args` in `home`; wait for its end, at most DEADLINE_S. Logs are left in `home`'s parent."""
    out, err = home.parent / f"{home.name}.out", home.parent / f"{home.name}.err"
    holder = None if lock is None else _Holder(home / db, lock)
    sys.stdout.flush()
    sys.stderr.flush()
    arguments = _parsed(*args)
    child = os.fork()
    if not child:
        _engine(home, args, arguments, out, err, orders, holder)
    try:
        code = _wait(child)
    finally:
        if holder is not None:
            holder.end()
    return Finished(code, _read(out), _read(err))


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "backslashreplace")


def _wait(child: int) -> int:
    descriptor = os.pidfd_open(child)
    try:
        ended, _, _ = select.select([descriptor], [], [], DEADLINE_S)
    finally:
        os.close(descriptor)
    if not ended:
        os.kill(child, signal.SIGABRT)  # faulthandler writes where each thread is
        ended, _, _ = select.select([], [], [], 0.5)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return HUNG
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@cache
def _parsed(*args: str) -> Arguments:
    """Reading the command line costs more than all the rest of a start, and is always the same here."""
    return parse(args)


def _engine(
    home: Path,
    args: Sequence[str],
    arguments: Arguments,
    out: Path,
    err: Path,
    orders: Orders | None,
    holder: _Holder | None,
) -> NoReturn:
    code = _PYTHON_FAILED
    try:
        for descriptor, path in ((1, out), (2, err)):
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(file, descriptor)
            os.close(file)
        os.chdir(home)
        os.environ.clear()
        os.environ.update({"PATH": os.defpath, "HOME": str(home.parent)})
        if orders is not None or holder is not None:
            _watch_commits(orders, holder)
        if orders is not None:
            record = -1
            if orders.record is not None:
                record = os.open(orders.record, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            orders.shim.arm(home, orders.control, record)
        setattr(cli, "parse", lambda _words: arguments)  # noqa: B010 - it is not cli's own
        code = cli.main(list(args))
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        if orders is not None:
            orders.control.mode = Mode.OFF
        os._exit(code)


def _watch_commits(orders: Orders | None, holder: _Holder | None) -> None:
    """Have the writer tell after each commit how many rows of its run it calls stored."""
    write = SqliteWriter.write
    commits = 0

    def watched(self: SqliteWriter, batch: WriteBatch, patience_ms: int = BUSY_TIMEOUT_MS) -> None:
        nonlocal commits
        write(self, batch, patience_ms)
        commits += 1
        stored = [getattr(self.counts, table) for table in COUNTED]
        if orders is not None:
            orders.control.committed[:] = stored
            orders.shim.mark(json.dumps(stored))
        if holder is not None and commits == holder.lock.after_commits:
            holder.take()

    SqliteWriter.write = watched  # type: ignore[method-assign]
    if orders is not None:
        _watch_spill(orders.shim)


def _watch_spill(shim: Shim) -> None:
    """Have the spill tell when it calls what it holds safe."""
    append = Spill.append

    def watched(self: Spill, events: Sequence[StoredEvent], at_end: bool = False) -> None:
        append(self, events, at_end)
        shim.mark(SPILLED)

    Spill.append = watched  # type: ignore[method-assign]


class _Holder:
    """The other program: a process that takes the lock on command, and exits without closing anything.

    It must not close its connection: the last one to do so would write the log back into the database.
    """

    def __init__(self, db: Path, lock: Lock) -> None:
        self.lock = lock
        self._asked, self._ask = os.pipe()
        self._answer, self._answered = os.pipe()
        self._child = os.fork()
        if not self._child:
            os.close(self._ask)
            try:
                self._hold(db)
            finally:
                os._exit(0)
        os.close(self._asked)
        os.close(self._answered)

    def _hold(self, db: Path) -> None:
        if not os.read(self._asked, 1):
            return
        connection = sqlite3.connect(db, timeout=DEADLINE_S, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        os.write(self._answered, b"x")
        select.select([self._asked], [], [], self.lock.seconds)
        os._exit(0)

    def take(self) -> None:
        """In the engine: returns when the database is locked."""
        os.write(self._ask, b"x")
        os.read(self._answer, 1)

    def end(self) -> None:
        """In the parent, when the engine has ended: give the lock back."""
        os.close(self._ask)
        os.close(self._answer)
        os.waitpid(self._child, 0)


def started(done: Finished) -> Fields | None:
    """The fields of the engine's first log line; None when it did not come so far."""
    found = done.all(LogEvent.START)
    return found[0] if found else None
