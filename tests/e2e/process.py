"""Running the engine as a real process, waiting for what it says and stores, and reading what it left behind.

Nothing here synchronises by sleeping: tests wait for a line of the log or for rows in the database, with a deadline.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Final, TypeVar

from tradebot.core.log_events import LogEvent

REPO: Final = Path(__file__).resolve().parents[2]
CROSSOVER: Final = REPO / "fixtures" / "crossover_scenario.jsonl"
SESSION: Final = REPO / "fixtures" / "btcusdt_binance_spot_20240808.jsonl"
SESSION_CONFIG: Final = REPO / "etc" / "tradebot" / "session.toml"
TABLES: Final = ("ticks", "signals", "orders", "trades")
DEADLINE_S: Final = 30.0

Fields = dict[str, Any]
T = TypeVar("T")


def environment(home: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """A clean environment: a search path, a home directory, the time zone of the tests, this checkout, and `more`."""
    clean = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home), "PYTHONPATH": str(REPO)}
    clean |= {name: os.environ[name] for name in ("TZ",) if name in os.environ}
    return clean | dict(more or {})


def _is_record(line: str) -> bool:
    # The last line of a killed process may be torn.
    return line.startswith("{") and line.endswith("}\n")


@dataclass(frozen=True)
class Finished:
    """A process that has ended; `code` is negative if a signal ended it."""

    code: int
    stdout: str
    stderr: str

    @cached_property
    def logs(self) -> list[Fields]:
        """The fields of every JSON log line, in order, with "level" added."""
        lines = (json.loads(line) for line in self.stderr.splitlines(keepends=True) if _is_record(line))
        return [{**record["fields"], "level": record["level"]} for record in lines]

    @property
    def complaint(self) -> str:
        """The lines of standard error other than log lines."""
        return "\n".join(line for line in self.stderr.splitlines() if not line.startswith("{"))

    def all(self, event: str) -> list[Fields]:
        """The fields of all log lines whose event or message is `name`."""
        return [fields for fields in self.logs if fields.get("event") == event]

    def one(self, event: str) -> Fields:
        """The fields of the only log line of this event."""
        found = self.all(event)
        assert len(found) == 1, f"{len(found)} log lines {event!r} in:\n{self.stderr}"
        return found[0]

    @property
    def ledger(self) -> Fields:
        """The logged ledger, which must balance."""
        fields = self.one(LogEvent.LEDGER)
        assert fields["balanced"], fields
        assert not self.all(LogEvent.LEDGER_UNBALANCED)
        return fields

    def expect(self, code: int) -> Finished:
        """Check the exit code and that there is no traceback; returns the object itself."""
        assert self.code == code, f"exit {self.code}, wanted {code}; standard error:\n{self.stderr[-4000:]}"
        assert "Traceback" not in self.stderr + self.stdout, self.stderr
        return self


class Running:
    """A started process; threads collect its output, so that no pipe fills up."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.pid = process.pid
        self._changed = threading.Condition()
        self._lines: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._logs: list[Fields] = []
        streams = {"stdout": process.stdout, "stderr": process.stderr}
        self._readers = {
            name: threading.Thread(target=self._collect, args=(name, stream), daemon=True)
            for name, stream in streams.items()
            if stream is not None
        }
        self._open = set(self._readers)
        for reader in self._readers.values():
            reader.start()

    def _collect(self, name: str, stream: IO[bytes]) -> None:
        with stream:
            for raw in stream:
                line = raw.decode("utf-8", "backslashreplace")
                with self._changed:
                    self._lines[name].append(line)
                    if name == "stderr" and _is_record(line):
                        self._logs.append(json.loads(line)["fields"])
                        self._changed.notify_all()
        with self._changed:
            self._open.discard(name)
            self._changed.notify_all()

    def wait_for(self, event: str, deadline_s: float = DEADLINE_S) -> Fields:
        """Wait for the first log line whose event or message is `name`; returns its fields. Fails without one."""
        until = time.monotonic() + deadline_s
        looked_at = 0
        with self._changed:
            while True:
                fresh, looked_at = self._logs[looked_at:], len(self._logs)
                for fields in fresh:
                    if fields.get("event") == event:
                        return fields
                left = until - time.monotonic()
                if "stderr" not in self._open or left <= 0:
                    said = "".join(self._lines["stderr"])[-4000:]
                    raise AssertionError(f"no log line {event!r} (still open: {self._open}) in:\n{said}")
                self._changed.wait(left)

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def finish(self, timeout_s: float = DEADLINE_S) -> Finished:
        """Wait for the end, at most `timeout_s`."""
        code = self.process.wait(timeout_s)
        for reader in self._readers.values():
            reader.join(timeout_s)
        return Finished(code, "".join(self._lines["stdout"]), "".join(self._lines["stderr"]))

    def kill(self) -> Finished:
        """Send SIGKILL and wait for the end. The code is not -9 if the process had already ended."""
        self.process.kill()
        if self.process.stdin is not None:
            self.process.stdin.close()
        return self.finish()


class Engine:
    """Starts processes of tradebot in a separate home directory, and kills those that a test leaves running."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._started: list[Running] = []

    def start(
        self,
        *args: str | Path,
        env: Mapping[str, str] | None = None,
        command: Sequence[str | Path] = (sys.executable, "-m", "tradebot"),
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        **options: Any,
    ) -> Running:
        """Start a command (by default tradebot) with `args` in its home, without waiting."""
        streams: dict[str, Any] = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        words = [str(word) for word in (*command, *args)]
        process = subprocess.Popen(words, cwd=self.home, env=environment(self.home, env), **streams)
        running = Running(process)
        self._started.append(running)
        return running

    def run(self, *args: str | Path, timeout_s: float = DEADLINE_S, **options: Any) -> Finished:
        """Start a command and wait for its end."""
        return self.start(*args, **options).finish(timeout_s)

    def config(self, name: str, text: str) -> str:
        """Write a configuration file into the home; returns the option that selects it."""
        (self.home / name).write_text(text)
        return f"--config={name}"

    def path(self, name: str) -> Path:
        """A path in the home."""
        return self.home / name

    def close(self) -> None:
        """Kill the processes that are still running."""
        for running in self._started:
            if running.process.poll() is None:
                running.kill()
            elif running.process.stdin is not None:
                running.process.stdin.close()


def wait_until(true: Callable[[], T], what: str, deadline_s: float = DEADLINE_S) -> T:
    """Call a function repeatedly until its result is true, at most `deadline_s`; returns the result."""
    until = time.monotonic() + deadline_s
    while not (answer := true()):
        assert time.monotonic() < until, f"{what}: not within {deadline_s} s"
        time.sleep(0.002)  # between two questions; what is waited for is the answer
    return answer


@contextmanager
def reading(db: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection."""
    with closing(sqlite3.connect(f"{db.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
        yield connection


def rows(db: Path, query: str) -> list[tuple[Any, ...]]:
    """The result of a query."""
    with reading(db) as connection:
        return connection.execute(query).fetchall()


def ticks_stored(db: Path) -> int:
    """The number of ticks in the database, also while an engine writes; 0 without a database."""
    if not db.exists():
        return 0
    try:
        return int(rows(db, "SELECT COALESCE(SUM(ticks), 0) FROM runs")[0][0])
    except sqlite3.OperationalError:  # no table yet, or no WAL index yet
        return 0


def wait_for_ticks(db: Path, ticks: int) -> None:
    """Wait until an engine has stored that many ticks, of all runs."""
    wait_until(lambda: ticks_stored(db) >= ticks, f"{ticks} ticks in {db}")


def tables(db: Path, names: Sequence[str] = TABLES) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of the four tables, or of those named: all columns, in the order of their ids."""
    with reading(db) as connection:
        return {table: connection.execute(f"SELECT * FROM {table} ORDER BY id").fetchall() for table in names}


def counts(db: Path) -> dict[str, int]:
    """The number of rows of each of the four tables."""
    return {table: rows(db, f"SELECT COUNT(*) FROM {table}")[0][0] for table in TABLES}


def dump(db: Path) -> bytes:
    """The tables as text: columns, then rows with all digits of all numbers. Equal text means equal results."""
    lines = []
    with reading(db) as connection:
        for table in (*TABLES, "order_events"):
            cursor = connection.execute(f"SELECT * FROM {table} ORDER BY id")
            lines.append(f"{table}: {[column[0] for column in cursor.description]}")
            lines += map(repr, cursor)
    return "\n".join(lines).encode()


def run_ids(db: Path) -> list[str]:
    """The ids of the runs in the database, oldest first."""
    return [row[0] for row in rows(db, "SELECT run_id FROM runs ORDER BY id")]


_ORPHANS: Final = {
    "trades without their order": "SELECT * FROM trades WHERE order_id NOT IN (SELECT event_id FROM orders)",
    "orders without their signal": "SELECT * FROM orders WHERE signal_id NOT IN (SELECT event_id FROM signals)",
    "transitions without their order": "SELECT * FROM order_events WHERE order_id NOT IN (SELECT event_id FROM orders)",
    "filled orders without a trade": (
        "SELECT * FROM orders WHERE status = 'FILLED' AND event_id NOT IN (SELECT order_id FROM trades)"
    ),
}


def assert_sound(db: Path) -> None:
    """The file is intact, no row lacks the row to which it belongs, and the counters of each run equal its rows."""
    with reading(db) as connection:
        connection.execute("BEGIN")  # one moment, though an engine may be writing
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        for what, query in _ORPHANS.items():
            assert connection.execute(query).fetchall() == [], what
        counted_tables = (*TABLES, "order_events")
        left = ", ".join(f"{table} - pruned_{table}" for table in counted_tables)
        for no, *counted in connection.execute(f"SELECT id, {left} FROM runs").fetchall():
            for table, count in zip(counted_tables, counted, strict=True):
                held = connection.execute(f"SELECT COUNT(*) FROM {table} WHERE run = ?", (no,)).fetchone()[0]
                assert held == count, f"run {no} counts {count} {table}, the table holds {held}"


def synthetic_units(db: Path) -> list[int]:
    """The prices of all synthetic runs in units of 1/40, which must be one walk without gap or repetition."""
    query = "SELECT price FROM ticks WHERE run IN (SELECT id FROM runs WHERE ingest = 'synthetic') ORDER BY id"
    units = [round(price * 40) for (price,) in rows(db, query)]
    steps = [(2, -1, 2, 2, -1)[n % 5] for n in range(len(units))]
    assert [after - before for before, after in zip([4000, *units], units, strict=False)] == steps
    return units
