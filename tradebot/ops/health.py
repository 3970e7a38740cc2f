"""`tradebot health`: one line and an exit code from the age of the last progress. `status` uses it too.

The status file shows whether an engine runs and when it last stored data; the database must know the run that the
engine says it writes. A quiet market with a live link is healthy once trades have come; notices of the engine itself
are no progress. Nothing here writes, or asks for a lock that a writer needs.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct
from peewee import SqliteDatabase

from tradebot.core.errors import ConfigError, ExitCode, UsageError
from tradebot.core.runtime import Runtime
from tradebot.feeds.status import SymbolsLook
from tradebot.ops.soak.reasons import DatabaseMissing
from tradebot.output.json_answer import json_answer
from tradebot.output.redaction import escape
from tradebot.output.streams import GuardedStream
from tradebot.store.database import connect_readonly, file_of, reading
from tradebot.store.errors import StorageUnavailable
from tradebot.store.models import RunRow, fields_of
from tradebot.telemetry.status_file import AS_ENGINE, FRESH_S, Status, read_status, status_path

MAX_AGE_S: Final = 60.0
"""The default maximum age of the last progress."""

_NAMED_MAX: Final = 5
_COMPLETE: Final = "the run is complete: nothing is left to do"
_NAME_ANOTHER: Final = "name the right file with --db or app.db_path"


class Health(NamedTuple):
    """A verdict and its reason, on one line."""

    ok: bool
    text: str


class Unusable(NamedTuple):
    """Why there can be no database at a path, and what to do."""

    text: str
    advice: str


class RunLook(Struct, frozen=True):
    """The columns of a row of `runs` that are shown; `exit_code` is None while it runs, and after a kill."""

    run_id: str
    version: str
    mode: str
    ingest: str
    source: str
    first_start_ms: int
    last_end_ms: int | None
    exit_code: int | None
    complete: bool
    ticks: int


class HealthReading(Struct, frozen=True):
    """The readings beside one database at one moment.

    `locked` (it may pass) and `damage` (it will not) say why `run` could not be read.
    """

    now_s: float
    now_ms: int
    database_exists: bool
    status: Status | None
    run: RunLook | None
    """The run that the status names; without one, the newest."""
    locked: str | None = None
    damage: str | None = None

    @property
    def status_age_s(self) -> float | None:
        """How long ago the status was written; negative when it is of another boot of this machine."""
        return None if self.status is None else self.now_s - self.status.written_s

    @property
    def stored_age_s(self) -> float | None:
        """Seconds since the engine's last commit; None before the first commit, or without a status."""
        status = self.status
        if status is None or status.stored_age_s is None:
            return None
        return max(0.0, status.stored_age_s + self.now_s - status.written_s)


def unusable(db_path: Path) -> Unusable | None:
    """Why no engine could have its database at the path, or why this user cannot know; None if it is usable.

    None as well when nothing is there yet, and for a file that is damaged or no database: that is an answer about an
    engine. Opens nothing, so that a FIFO or a device cannot block.
    """
    try:
        mode = db_path.stat().st_mode
        if stat.S_ISDIR(mode):
            return Unusable(f"database {db_path}: is a directory", f"name a file, e.g. {db_path / 'tradebot.db'}")
        if not stat.S_ISREG(mode):
            return Unusable(f"database {db_path}: is not a regular file", _NAME_ANOTHER)
        if not os.access(db_path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except FileNotFoundError:
        return None
    except PermissionError as error:
        return Unusable(f"database {db_path}: cannot be read: {error.strerror}", AS_ENGINE)
    except OSError as error:
        links = error.errno == errno.ELOOP
        what = "its symbolic links form a loop" if links else f"cannot be examined: {error.strerror}"
        return Unusable(f"database {db_path}: {what}", _NAME_ANOTHER)
    return None


def refuse_unusable(db_path: Path) -> None:
    """Raises UsageError for such a path: a script must not treat it as an unhealthy engine."""
    found = unusable(db_path)
    if found is not None:
        raise UsageError(f"{found.text}; {found.advice}")


def look_at(db_path: Path, runtime: Runtime) -> HealthReading:
    """Read status file and database. Blocks at most for SQLite's busy timeout. Raises ConfigError (status damaged)."""
    return look_with(read_status(status_path(db_path)), db_path, runtime)


def look_with(status: Status | None, db_path: Path, runtime: Runtime) -> HealthReading:
    """Like `look_at`, for callers that already tried to read the status file. Raises nothing."""
    wrong = unusable(db_path)
    run, locked, damage = None, None, None if wrong is None else wrong.text
    exists = wrong is not None or db_path.is_file()
    if exists and wrong is None:
        try:
            db = connect_readonly(db_path)
            try:
                run = read_run(db, None if status is None else status.run_id)
            finally:
                db.close()
        except StorageUnavailable as error:
            locked, damage = (str(error), None) if error.passing else (None, str(error))
        except ConfigError as error:
            damage = str(error)
    return HealthReading(runtime.monotonic(), runtime.now_ms(), exists, status, run, locked, damage)


def read_run(db: SqliteDatabase, run_id: str | None) -> RunLook | None:
    """The row of that run; of the newest for None. None when there is no such row. Raises as `reading` does."""
    with reading(db):
        if RunRow._meta.table_name not in db.get_tables():
            return None
        fields = fields_of(RunRow, RunLook)
        query = RunRow.select(*fields)
        query = query.order_by(RunRow.id.desc()) if run_id is None else query.where(RunRow.run_id == run_id)
        row = query.dicts().first(db)
    try:
        # Not strict: SQLite has no booleans.
        return None if row is None else msgspec.convert(row, RunLook, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"database {file_of(db)}: table runs: {error}; it is damaged or not tradebot's") from error


def judge(look: HealthReading, max_age_s: float) -> Health:
    """Whether the engine makes progress, or has nothing left to do. Pure."""
    status = look.status
    if status is None and look.run is not None and look.run.complete and look.damage is None:
        return Health(True, _COMPLETE)  # as of a copy of a database, which has no status beside it
    if status is None:
        none = "no engine: there is no status file beside this database"
        if not look.database_exists:
            none = "no engine: there is neither a database nor a status file; check --db"
        return Health(False, none if look.damage is None else f"{none}; {look.damage}")
    if _complete(look, status):
        trouble = database_trouble(look, status)
        return Health(trouble is None, trouble or _COMPLETE)
    trouble = _absent(look, status) or database_trouble(look, status)
    if trouble is not None:
        return Health(False, trouble)
    if status.still_s:
        stages = ", ".join(f"{stage} for {for_s:.0f} s" for stage, for_s in status.still_s.items())
        return Health(False, f"stalled: {stages}")
    return _by_progress(look, status, max_age_s)


def _complete(look: HealthReading, status: Status) -> bool:
    """Whether the run did everything requested; read from the database if an older version wrote the status."""
    by_database = look.run is not None and look.run.run_id == status.run_id and look.run.complete
    return status.state == "ended" and status.exit_code == ExitCode.COMPLETE and (status.complete or by_database)


def _absent(look: HealthReading, status: Status) -> str | None:
    """Why no engine is running, if that is so."""
    age_s = look.now_s - status.written_s
    if status.state == "ended":
        stopped = "was stopped, and ended" if status.exit_code == ExitCode.COMPLETE else "has ended"
        return f"the engine {stopped} with {code_text(status.exit_code)}"
    if age_s < 0:
        return "no engine has run since this machine booted"
    if age_s > FRESH_S:
        return f"no status from the engine (process {status.pid}) for {span(age_s)}: it was killed or hangs"
    return None


def database_trouble(look: HealthReading, status: Status) -> str | None:
    """What is wrong with the database that an engine says it writes or wrote. Pure."""
    if not look.database_exists:
        return str(DatabaseMissing(status.pid, status.state == "ended"))
    if look.damage is not None:
        return look.damage
    if look.locked is None and look.run is None:
        writes = "wrote" if status.state == "ended" else "writes"
        return f"the database has no run {status.run_id}, which process {status.pid} {writes}: was it replaced?"
    return None


def _by_progress(look: HealthReading, status: Status, max_age_s: float) -> Health:
    stored_s = look.stored_age_s
    stored = "nothing stored yet" if stored_s is None else f"last stored {span(stored_s)} ago"
    note = _blocked_note(status.blocking) + _symbols_note(status.symbols)
    note += "" if look.locked is None else f"; the database is locked: {look.locked}"
    if (status.uptime_s if stored_s is None else stored_s) <= max_age_s:
        return Health(True, stored + note)
    if status.ingest_alive(look.now_s):
        if status.link is not None and (wrong := _unfed(status, stored_s)) is not None:
            return Health(False, f"{stored}; {wrong}{note}")
        heard = (
            "" if status.link_age_ms is None else f", last message from the peer {span(status.link_age_ms / 1000)} ago"
        )
        link = "the link is up" if status.link == "up" else "ingest is running"
        return Health(True, f"{stored}, but {link}{heard}: a quiet market{note}")
    if status.link == "down":
        return Health(False, f"{stored}; the link is down for {span(status.link_down_s or 0.0)}{note}")
    return Health(False, f"{stored}; ingest has ended{note}")


def _unfed(status: Status, stored_s: float | None) -> str | None:
    """Why a link that is up without new ticks is a fault; None if the market is quiet."""
    symbols = status.symbols
    if symbols is not None and symbols.confirmed is False:
        return "the link is up, but the exchange has confirmed no symbol"
    if symbols is not None and 0 < symbols.requested <= symbols.refused_count:
        return "the link is up, but the exchange refuses every symbol"
    if stored_s is None:
        return f"the link is up, but no trade has arrived since the start {span(status.uptime_s)} ago"
    return None


def _blocked_note(codes: tuple[str, ...]) -> str:
    """What keeps orders from being sent. It is wanted, so it is no fault of the engine."""
    return f"; ORDERS BLOCKED: {', '.join(codes)}" if codes else ""


def _symbols_note(symbols: SymbolsLook | None) -> str:
    """Which symbols the exchange refuses, and which are silent."""
    if symbols is None:
        return ""
    note = ""
    if symbols.refused_count:
        shown = [f"{name} ({words})" for name, words in list(symbols.refused.items())[:_NAMED_MAX]]
        note += f"; refused: {_list(shown, symbols.refused_count)}"
    if symbols.silent_count:
        note += f"; silent: {_list(symbols.silent[:_NAMED_MAX], symbols.silent_count)}"
    if symbols.untraded_count:
        note += f"; no trade yet: {_list(symbols.untraded[:_NAMED_MAX], symbols.untraded_count)}"
    return note


def _list(names: Sequence[str], count: int) -> str:
    more = f" and {count - len(names)} more" if count > len(names) else ""
    return ", ".join(names) + more


def run_health(db_path: Path, max_age_s: float, runtime: Runtime, answers: GuardedStream, as_json: bool = False) -> int:
    """One line (`as_json`: of JSON), and 0 for healthy or 1. Blocks as `look_at`.

    Raises UsageError (see `unusable`), nothing else.
    """
    refuse_unusable(db_path)
    try:
        health = judge(look_at(db_path, runtime), max_age_s)
    except ConfigError as error:
        health = Health(False, str(error))
    if as_json:
        found = {"format": 1, "healthy": health.ok, "health": health.text, "database": str(db_path)}
        answers.write(json_answer(found))
        return 0 if health.ok else 1
    answers.write(f"{'healthy' if health.ok else 'UNHEALTHY'}: {escape(health.text)} [{escape(str(db_path))}]\n")
    return 0 if health.ok else 1


def code_text(code: int | None) -> str:
    """An exit code and its meaning."""
    return f"{code} {ExitCode(code).name}: {ExitCode(code).meaning}" if code in tuple(ExitCode) else f"exit code {code}"


def span(seconds: float) -> str:
    """A duration for people: "0.4 s", "75 s", "2 h 3 min", "5 d 2 h"."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    whole = int(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86_400
    if hours < 1:
        return f"{minutes} min {whole % 60} s"
    return f"{hours} h {minutes % 60} min" if days < 2 else f"{days} d {hours % 24} h"
