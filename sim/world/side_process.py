"""A command in a separate simulated process: a thread of the same history, on the same database as the engine.

It shares only time and schedule with the engine; signals and kills are separate. It may be interrupted before and after
each transaction and between single statements, but not within a write transaction: another writer would then block
while it holds the baton.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, cast

from msgspec import Struct
from peewee import SqliteDatabase

from sim.world.faults import FileSnapshot
from sim.world.journal import JournalRuntime
from tradebot.core.errors import ExitCode, TradebotError
from tradebot.core.runtime import Runtime, Thread
from tradebot.store import session as opening
from tradebot.store.database import BUSY_TIMEOUT_MS
from tradebot.store.session import open_existing

Trouble = Literal["wait", "busy", "full", "torn", "doubt", "kill"]
_WAIT_S: Final = 1.5
_ERRORS: Final = {
    "busy": (sqlite3.SQLITE_BUSY, "database is locked"),
    "full": (sqlite3.SQLITE_FULL, "database or disk is full"),
    "torn": (sqlite3.SQLITE_IOERR, "disk I/O error"),
    "doubt": (sqlite3.SQLITE_IOERR, "disk I/O error"),
}


class CommandFaults(Struct, frozen=True):
    """Faults of a command. Points are where it can be interrupted; transactions are those that write; both count from
    1.

    `trouble` by transaction: "wait" (a short wait for a lock), "busy" (locked for longer than its timeout), "full" (at
    the first statement), "torn" (an I/O error at the second), "doubt" (an I/O error although it was committed), "kill"
    (in the middle of it).
    """

    kill_at_point: int | None = None
    signal_at_point: int | None = None
    trouble: dict[int, Trouble] = {}


class Killed(BaseException):
    """The command's process was killed; the engine's continues."""


class SideProcess:
    """One command. `run` gets this object as its runtime. `alone`: no engine runs, so killing it kills the whole
    process.

    `leaves` is a file that keeps its content at the moment of a kill, whatever unwinding does to it.
    """

    def __init__(
        self,
        runtime: JournalRuntime,
        name: str,
        run: Callable[[SideProcess], int],
        faults: CommandFaults | None = None,
        alone: bool = False,
        leaves: Path | None = None,
    ) -> None:
        self.code: int | None = None
        """Its exit code; None: it was killed."""
        self.error: str | None = None
        self.wrong: str | None = None
        """The failure of a check on its thread."""
        self.last_now_ms = 0
        """The last time returned by `now_ms` (Unix ms)."""
        self.answers = StringIO()
        self.errors = StringIO()
        self.signalled = False
        self.failures = 0
        """How often its storage failed."""
        self.committed: Callable[[sqlite3.Connection], None] = lambda _connection: None
        """Called after each of its commits, on its own connection."""
        self._runtime = runtime
        self._name = name
        self._run = run
        self._faults = CommandFaults() if faults is None else faults
        self._alone = alone
        self._snapshot = None if leaves is None else FileSnapshot(leaves)
        self._points = 0
        self._transactions = 0
        self._catching = False
        self._signals = 0
        self._dying = runtime.event()
        self._started = False
        self._thread: Thread | None = None

    # ---- what the world calls ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it, if it is not started."""
        if not self._started:
            self._started = True  # first: starting a thread is a point at which the world may start it too
            self._thread = self._runtime.spawn(self._name, self._body)

    def wait(self) -> None:
        """Start it if necessary and wait for its end. Call on a thread of the history."""
        self.start()
        assert self._thread is not None
        self._thread.join()

    def kill(self) -> None:
        """kill -9."""
        self._runtime.note("kill", self._name)
        if self._alone:
            self._runtime.kill()
        if self._snapshot is not None and not self._dying.is_set():
            self._snapshot.save()
        self._dying.set()

    def signal(self) -> None:
        """SIGTERM."""
        if not self._catching:
            self.kill()
            return
        self._runtime.note("signal", self._name)
        self._signals += 1
        self.signalled = True

    # ---- what the command calls: tradebot.core.runtime.Runtime -------------------------------------------------------

    @property
    def runtime(self) -> Runtime:
        """This object as the command's runtime."""
        return cast(Runtime, self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def now_ms(self) -> int:
        """The simulated wall clock."""
        self.last_now_ms = self._runtime.now_ms()
        return self.last_now_ms

    def catch_stop_signals(self) -> None:
        """Count stop signals from now on; before, they kill."""
        self._catching = True
        self.point()

    def stop_signals(self) -> int:
        """How many came."""
        return self._signals

    def sleep(self, seconds: float) -> None:
        """Sleep, or until killed."""
        self._count()
        self._dying.wait(seconds)
        self._die_if_killed()

    def point(self) -> None:
        """A point: it may be interrupted, signalled or killed here."""
        self._count()
        self._runtime.checkpoint()
        self._die_if_killed()

    def database(self, path: Path) -> SqliteDatabase:
        """`open_existing`, in steps."""
        self.point()
        opened: Any = open_existing(path)
        whole = opened._db if isinstance(opened, Stepped) else opened  # inside `opened_in_steps`
        return cast(SqliteDatabase, Stepped(whole, self.point, self._meet, self._done))

    # ---- inside --------------------------------------------------------------------------------------------------

    def _body(self) -> None:
        code: int | None = None
        try:
            code = self._run(self)
        except Killed:
            pass
        except AssertionError as error:
            self.wrong = str(error)
        except TradebotError as error:
            code, self.error = int(ExitCode.CONFIG), str(error)
        if self._snapshot is not None:
            self._snapshot.restore_files()
        self.code = code
        self._runtime.note("ended", self._name, code)
        self._runtime.say(f"{self._name}: {self.answers.getvalue()}{self.errors.getvalue()}{self.error or ''}".rstrip())

    def _count(self) -> None:
        self._points += 1
        if self._points == self._faults.signal_at_point:
            self.signal()
        if self._points == self._faults.kill_at_point:
            self.kill()
        self._die_if_killed()

    def _die_if_killed(self) -> None:
        if self._dying.is_set():
            raise Killed

    def _meet(self, statement: int) -> None:
        """A write transaction begins (0), or its next statement is about to run."""
        if statement == 0:
            self._transactions += 1
        trouble = self._faults.trouble.get(self._transactions)
        if (trouble, statement) == ("wait", 0):
            self.sleep(_WAIT_S)
        elif (trouble, statement) == ("busy", 0):
            self.sleep(BUSY_TIMEOUT_MS / 1000)
            self._fail("busy")
        elif (trouble, statement) == ("full", 1):
            self._fail("full")
        elif (trouble, statement) == ("torn", 2):
            self._fail("torn")
        elif (trouble, statement) == ("kill", 2):
            self.kill()
            self._die_if_killed()

    def _done(self, connection: sqlite3.Connection) -> None:
        """A transaction that writes is committed."""
        self.committed(connection)
        if self._faults.trouble.get(self._transactions) == "doubt":
            self._fail("doubt")

    def _fail(self, trouble: Trouble) -> None:
        self._runtime.note("storage", self._name, trouble)
        self.failures += 1
        code, text = _ERRORS[trouble]
        error = sqlite3.OperationalError(text)
        error.sqlite_errorcode = code
        raise error


class Stepped:
    """The part of a peewee database that commands need, with points at which the calling thread may be interrupted.

    `point` is called outside transactions that write, `meet` in them with the number of the statement (0: BEGIN).
    """

    def __init__(
        self,
        db: SqliteDatabase,
        point: Callable[[], None],
        meet: Callable[[int], None] = lambda _statement: None,
        done: Callable[[sqlite3.Connection], None] = lambda _connection: None,
    ) -> None:
        self._db: Any = db
        self.point = point
        self.meet = meet
        self.done = done
        self.statement: int | None = None
        """The number of the statement in a transaction that writes; None outside one."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def atomic(self, *kind: str) -> _Transaction:
        """A transaction: one that writes if its kind is IMMEDIATE."""
        return _Transaction(self, self._db, kind)

    def connection(self) -> _Statements:
        """For plain statements."""
        return _Statements(self, self._db.connection())

    def execute(self, query: Any, **context: Any) -> Any:
        """Execute a query of peewee's."""
        self.step()
        before = self._db.connection().total_changes
        cursor = self._db.execute(query, **context)
        if self.statement is None and self._db.connection().total_changes != before:
            self.done(self._db.connection())  # a transaction of one statement
        return cursor

    def execute_sql(self, sql: str, params: Any = None) -> Any:
        """Execute a statement."""
        self.step()
        return self._db.execute_sql(sql, params)

    def step(self) -> None:
        """One more statement is to be executed."""
        if self.statement is None:
            self.point()
        else:
            self.statement += 1
            self.meet(self.statement)


class _Statements:
    def __init__(self, stepped: Stepped, connection: Any) -> None:
        self._stepped = stepped
        self._connection = connection

    def execute(self, sql: str, values: Any = ()) -> Any:
        self._stepped.step()
        return self._connection.execute(sql, values)


class _Transaction:
    def __init__(self, stepped: Stepped, db: Any, kind: tuple[str, ...]) -> None:
        self._stepped = stepped
        self._db = db
        self._writes = "IMMEDIATE" in kind
        self._inner = db.atomic(*kind)

    def __enter__(self) -> object:
        stepped = self._stepped
        if stepped.statement is None:
            stepped.point()
        if self._writes:
            stepped.meet(0)
        entered = self._inner.__enter__()
        if self._writes:
            stepped.statement = 0
        return entered

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stepped = self._stepped
        if self._writes:
            stepped.statement = None
        self._inner.__exit__(kind, error, trace)
        if kind is None and stepped.statement is None:
            if self._writes:
                stepped.done(self._db.connection())
            stepped.point()


@contextmanager
def opened_in_steps(point: Callable[[], None]) -> Iterator[None]:
    """Inside the block engines also open their database in steps."""
    module: Any = opening
    connect = module.connect
    module.connect = lambda *args: Stepped(connect(*args), point)
    try:
        yield
    finally:
        module.connect = connect
