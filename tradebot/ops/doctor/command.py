"""`tradebot doctor`: the checks in their order, each printed as soon as it is done."""

from __future__ import annotations

import shlex
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tradebot import __version__
from tradebot.config import toml_file as configfile
from tradebot.config.model import Config, db_path, home_directory
from tradebot.core.errors import AdvisedError, ConfigError, ExitCode
from tradebot.core.runtime import Runtime
from tradebot.feeds.exchanges import EXCHANGES
from tradebot.feeds.sources_file import FILE_NAME as SOURCES_FILE
from tradebot.ops.doctor import checks, readings
from tradebot.ops.doctor.advice import Advice
from tradebot.ops.doctor.database import (
    CHECK_S_MAX,
    check_disk,
    check_integrity,
    check_shape,
    check_wal,
    read_database,
    read_integrity,
    unreadable,
)
from tradebot.ops.doctor.finding import Finding, fail, ok, warn
from tradebot.ops.doctor.permissions import Files, Judge, check_permissions
from tradebot.ops.doctor.service_user import ServiceUser, user_of
from tradebot.ops.doctor.update import check_update
from tradebot.ops.health import HealthReading, database_trouble, look_at, look_with, unusable
from tradebot.ops.installed import DEFAULT, engine_units, unit_of
from tradebot.output.json_answer import json_answer
from tradebot.output.redaction import mask
from tradebot.output.streams import GuardedStream
from tradebot.store.adoption import orphans
from tradebot.store.database import beside
from tradebot.store.errors import StorageUnavailable
from tradebot.store.spill import probe_spill, spill_path
from tradebot.strategy.registry import CHECKS
from tradebot.telemetry.throttle_file import Throttle, read_throttle, throttle_path

WATCH_S: Final = 1.2
"""How long the doctor looks on: long enough for a running engine to write its next status."""

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_WIPE: Final = "\r\x1b[K"
_BESIDE: Final = ("", "-wal", "-shm", ".lock", ".spill")
"""What the engine reads and writes of the database and beside it."""


def run_doctor(
    config_file: str | None,
    db: Path | None,
    environ: Mapping[str, str],
    runtime: Runtime,
    answers: GuardedStream,
    errors: GuardedStream,
    before_update: bool = False,
    as_json: bool = False,
) -> int:
    """Print every finding; 0, 1 when one is FAIL, or 12 when there can be no database at the path that was named.

    `config_file` and `db` as given on the command line. `before_update`: also whether this version can take over.
    `as_json`: all of it in one object at the end.

    Blocks for a few seconds, longer for a large database (see `read_integrity`). Changes nothing.
    """
    counts: Counter[str] = Counter()
    findings: list[Finding] = []
    examination = Examination(config_file, db, environ, runtime, errors, before_update)
    for finding in examination.findings():
        counts[finding.level] += 1
        findings.append(finding)
        if not as_json:
            answers.write(finding.lines())
    if as_json:
        totals = {"ok": counts["ok"], "warnings": counts["warn"], "failed": counts["FAIL"]}
        answers.write(json_answer({"format": 1, **totals, "findings": findings}))
    else:
        answers.write(f"\n{counts['ok']} ok, {counts['warn']} warnings, {counts['FAIL']} failed\n")
    if examination.misused:
        return ExitCode.CONFIG
    return 1 if counts["FAIL"] else 0


class Examination:
    """One look over everything: what was given, and what is known so far. Main thread; `findings` once."""

    def __init__(
        self,
        config_file: str | None,
        db: Path | None,
        environ: Mapping[str, str],
        runtime: Runtime,
        errors: GuardedStream,
        before_update: bool = False,
    ) -> None:
        self._before_update = before_update
        self._config_file = config_file
        self._db = db
        self._environ = environ
        self._runtime = runtime
        self._errors = errors
        self._config = Config()
        self._config_path: Path | None = None
        self._engine_runs = False
        self._unit_name = DEFAULT.engine
        self._service: ServiceUser | None = None
        self.misused = False
        """Whether the path of the database is misuse; what depends on the database is then left out."""

    def findings(self) -> Iterator[Finding]:
        """All of them, in the order of the list; each is looked for when it is asked for."""
        yield checks.check_python(sys.version_info[:3])
        yield checks.check_sqlite(sqlite3.sqlite_version_info)
        yield checks.check_libraries(readings.read_libraries(checks.LIBRARIES))
        yield self._read_config()
        units = engine_units(self._home())
        name = unit_of(self._config_path, units)
        self._unit_name = name or DEFAULT.engine
        self._service = user_of(next((unit for unit in units if unit.name == name), None))
        try:
            path = db_path(self._config, self._environ) if self._db is None else self._db
        except ConfigError as error:
            yield fail("database", str(error), Advice.DATABASE_UNNAMED, "name it with --db=FILE")
            return
        wrong = unusable(path)
        if wrong is None:
            yield from self._of_database(path)
        else:
            self.misused = True
            yield fail("database", wrong.text, Advice.DATABASE_UNUSABLE, wrong.advice)
        yield checks.check_unit(readings.read_unit(self._home(), self._config_path))
        yield from self._ports(self._engine_runs)

    def _of_database(self, path: Path) -> Iterator[Finding]:
        before, trouble = self._look(path)
        clock = readings.read_clock(self._runtime, WATCH_S)
        after, _trouble = self._look(path)
        self._engine_runs = _at_work(after)
        yield from self._database(path, after)
        yield from self._permissions(path)
        yield from checks.check_clock(clock, after)
        yield checks.check_skew(before.status, after.status, after.now_s)
        if trouble is None:
            yield checks.check_processes(after, readings.read_lock(path), _names_living(after), self._unit_name)
        else:
            yield fail("processes", trouble[0], Advice.STATUS_UNREADABLE, trouble[1])
        yield checks.check_last_run(after)
        yield self._spill(path, self._engine_runs)
        yield from checks.check_orphans([str(orphan) for orphan in orphans(beside(path, ""))])
        yield self._throttle(path, after.now_ms)

    def _read_config(self) -> Finding:
        found = configfile.find(self._config_file, self._environ)
        if found is None:
            return ok("config", "no file: the defaults apply")
        path, named_by = found
        self._config_path = path
        try:
            self._config = configfile.load(path, CHECKS)
        except ConfigError as error:
            advice = (
                "correct it: the engine would exit with 12 (tradebot check-config); the checks below assume defaults"
            )
            return fail("config", str(error), Advice.CONFIG_INVALID, advice)
        return ok("config", f"{path}: valid ({named_by})")

    def _look(self, path: Path) -> tuple[HealthReading, tuple[str, str] | None]:
        try:
            return look_at(path, self._runtime), None
        except AdvisedError as error:
            return look_with(None, path, self._runtime), (error.problem, error.advice)

    def _database(self, path: Path, look: HealthReading) -> Iterator[Finding]:
        at_work = look.status if _at_work(look) else None
        lost = None if at_work is None or look.damage is not None else database_trouble(look, at_work)
        if lost is not None:
            chown = self._and_chown(path)
            advice = f"stop the engine, move the right file back{chown}, start it: it writes to the file that it opened"
            yield fail("database", lost, Advice.DATABASE_LOST, advice)
        elif not path.exists():
            advice = "the first run creates it; check --db"
            yield warn("database", f"{path} does not exist", Advice.DATABASE_MISSING, advice)
        if not path.exists():
            return
        try:
            found = read_database(path)
            yield from check_shape(found, self._config.persist.synchronous, shlex.quote(str(path)))
            yield check_wal(found.wal_bytes, _at_work(look))
            yield check_disk(found, shlex.quote(str(path)))
            limit_s = CHECK_S_MAX if _at_work(look) else None
            integrity = read_integrity(path, found.size, self._runtime, limit_s, self._show_progress)
            yield check_integrity(integrity, self._restore(path))
            if self._before_update:
                running = None if at_work is None else at_work.version
                yield from check_update(found, shlex.quote(str(path)), running, __version__)
        except (ConfigError, StorageUnavailable) as error:
            yield unreadable(error, self._restore(path))
        except OSError as error:
            advice = "find out what is wrong with the file system or the disk below it"
            yield fail("database", f"{path}: {error.strerror}", Advice.DATABASE_DISK, advice)
        finally:
            self._show_progress("")

    def _show_progress(self, line: str) -> None:
        if self._errors.isatty():
            self._errors.write(_WIPE + line)

    def _and_chown(self, path: Path) -> str:
        """What root must do with a file that it puts in the database's place."""
        return "" if self._service is None else f", `chown {self._service.name}: {shlex.quote(str(path))}`"

    def _restore(self, path: Path) -> str:
        return (
            f"stop the engine, put the last backup in its place, remove {path}-wal and {path}-shm"
            f"{self._and_chown(path)}, start"
        )

    def _permissions(self, path: Path) -> list[Finding]:
        target, service = beside(path, ""), self._service
        directory = readings.read_file(target.parent, service=service)
        if directory is None:
            return [ok("permissions", f"directory {target.parent} does not exist yet: the first run creates it")]
        ws_url = self._config.engine.ws_url or ""
        secret = self._config.notify.webhook_url is not None or mask(ws_url) != ws_url
        files = [readings.read_file(beside(path, suffix), service=service) for suffix in _BESIDE]
        config_path, inputs = self._config_path, []
        if config_path is not None:
            inputs.append(config_path.parent / SOURCES_FILE)
        if self._config.engine.ingest_mode == "replay" and self._config.engine.replay_file is not None:
            inputs.append(Path(self._config.engine.replay_file))
        for secret_file in (self._config.engine.ws_url_file, self._config.notify.webhook_url_file):
            if secret_file is not None and secret_file.startswith("/"):  # others are systemd's credentials
                inputs.append(Path(secret_file))
        judge = Judge(readings.user_name())
        if service is not None:
            judge = Judge(service.name, service.group, True, self._reinstall())
        looked_at = Files(
            directory,
            [file for file in files if file is not None],
            None if config_path is None else readings.read_file(config_path, secret, service),
            [file for file in (readings.read_file(place, service=service) for place in inputs) if file is not None],
        )
        return check_permissions(looked_at, judge)

    def _reinstall(self) -> str:
        config = "" if self._config_path is None else f" --config={shlex.quote(str(self._config_path))}"
        name = Path(self._unit_name).stem
        return f"tradebot install-unit{config}" + ("" if self._unit_name == DEFAULT.engine else f" --name={name}")

    def _spill(self, path: Path, engine_runs: bool) -> Finding:
        spill, database, has_database = spill_path(path), beside(path, ""), False
        with suppress(OSError):
            has_database = database.is_file() and database.stat().st_size > 0
        found = probe_spill(spill)
        return checks.check_spill(found.waiting_bytes, not found.foreign, str(spill), engine_runs, has_database)

    def _throttle(self, path: Path, now_ms: int) -> Finding:
        place = throttle_path(path)
        throttle: Throttle | None = None
        problem = None
        try:
            throttle = read_throttle(place)
        except ConfigError as error:
            problem = str(error)
        return checks.check_throttle(throttle, problem, now_ms, shlex.quote(str(place)), self._unit_name)

    def _home(self) -> Path | None:
        try:
            return home_directory(self._environ)
        except ConfigError:
            return None

    def _ports(self, engine_runs: bool) -> Iterator[Finding]:
        feeds_on_it = self._config.engine.ingest_mode == "mockws"
        parts = urlsplit((self._config.engine.ws_url if feeds_on_it else None) or EXCHANGES["mockws"].url)
        if parts.hostname in _LOOPBACK and parts.port:
            listener = readings.read_listener(parts.port)
            if listener is not None and feeds_on_it:
                listener = listener._replace(ours=True)  # whatever serves the feed that is asked for
            away = Advice.MOCKWS_AWAY, "start it: bin/mockws, or `systemctl start mockws.service`"
            yield checks.check_port("mockws", parts.port, listener, feeds_on_it, away, "engine.ws_url")
        port = self._config.metrics.port
        if port:
            text = f"the running engine was started without metrics.port: `systemctl restart {self._unit_name}`"
            away = Advice.METRICS_AWAY, text
            listener = readings.read_listener(port)
            yield checks.check_port("metrics", port, listener, engine_runs, away, "metrics.port")


def _at_work(look: HealthReading) -> bool:
    return look.status is not None and look.status.fresh(look.now_s)


def _names_living(look: HealthReading) -> bool:
    return look.status is not None and readings.pid_alive(look.status.pid)
