"""`tradebot doctor`: each check against what it must find, and the whole examination of real files."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sqlite3
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.unit.ops.test_health import LOOK, RUN
from tests.unit.store_helpers import ORIGINAL_SCHEMA, full_batch, new_run, storage_of
from tests.unit.telemetry.test_engine_side import status_of
from tradebot.core.runtime import RealRuntime
from tradebot.ops import installed
from tradebot.ops.doctor import checks, database, readings
from tradebot.ops.doctor.advice import Advice
from tradebot.ops.doctor.command import run_doctor
from tradebot.ops.doctor.database import DatabaseReading, Integrity, RunSpan
from tradebot.ops.doctor.finding import Finding, fail, ok, warn
from tradebot.ops.doctor.permissions import FileReading, Files, Judge, check_permissions
from tradebot.ops.doctor.readings import ClockReading, Listener, LockReading, UnitReading
from tradebot.ops.doctor.service_user import ServiceUser, user_of
from tradebot.ops.doctor.update import check_update
from tradebot.ops.health import HealthReading
from tradebot.ops.installed import InstalledUnit
from tradebot.output.streams import GuardedStream
from tradebot.store.lock import WriterLock
from tradebot.store.models import SCHEMA_VERSION
from tradebot.telemetry.status_file import LastTick, Status, status_path, write_status
from tradebot.telemetry.throttle_file import Throttle, throttle_path

DAY_MS = 86_400_000
NOW_MS = 1_700_000_000_000
UNIT = "tradebot.service"


class TestVersions:
    @pytest.mark.parametrize(
        ("version", "level"),
        [((3, 10, 9), "FAIL"), ((3, 11, 0), "ok"), ((3, 13, 7), "ok"), ((3, 14, 0), "FAIL"), ((4, 0, 0), "FAIL")],
    )
    def test_python(self, version: tuple[int, int, int], level: str) -> None:
        assert checks.check_python(version).level == level

    def test_the_pythons_are_those_of_the_package(self, repo: Path) -> None:
        first, beyond = (".".join(map(str, version)) for version in checks.PYTHONS)
        assert f'python_requires=">={first},<{beyond}"' in (repo / "setup.py").read_text()

    @pytest.mark.parametrize(
        ("version", "level"),
        [
            ((3, 7, 0), "warn"),
            ((3, 40, 1), "warn"),
            ((3, 44, 5), "warn"),
            ((3, 44, 6), "ok"),
            ((3, 45, 0), "warn"),
            ((3, 50, 6), "warn"),
            ((3, 50, 7), "ok"),
            ((3, 51, 2), "warn"),
            ((3, 51, 3), "ok"),
            ((3, 52, 0), "warn"),
            ((3, 52, 1), "ok"),
            ((3, 60, 0), "ok"),
            ((4, 0, 0), "ok"),
        ],
    )
    def test_sqlite_with_the_wal_reset_bug(self, version: tuple[int, int, int], level: str) -> None:
        """Since 3.7.0; repaired in 3.51.3, and in 3.50.7 and 3.44.6 for those lines."""
        assert checks.check_sqlite(version).level == level


class TestClock:
    GOOD = ClockReading(1.0, 1.2, True)

    def levels(self, clock: ClockReading, look: HealthReading = LOOK) -> list[str]:
        return [finding.level for finding in checks.check_clock(clock, look)]

    def test_an_even_clock_that_is_kept(self) -> None:
        assert self.levels(self.GOOD) == ["ok"]
        assert self.levels(self.GOOD._replace(synchronised=None)) == ["ok"]

    @pytest.mark.parametrize("step_ms", [51.0, -51.0, 3_600_000.0])
    def test_a_step(self, step_ms: float) -> None:
        (finding,) = checks.check_clock(self.GOOD._replace(step_ms=step_ms), LOOK)
        assert finding.level == "warn" and f"moved {step_ms:+.0f} ms" in finding.text

    def test_a_clock_that_nobody_keeps(self) -> None:
        assert self.levels(self.GOOD._replace(synchronised=False)) == ["warn"]

    @pytest.mark.parametrize(
        "changes",
        [
            {"status": status_of(written_ms=14_000)},
            {"run": replace(RUN, first_start_ms=14_000)},
            {"run": replace(RUN, last_end_ms=14_000)},
        ],
    )
    def test_a_clock_behind_what_was_written(self, changes: dict[str, Any]) -> None:
        (finding,) = checks.check_clock(self.GOOD, replace(LOOK, **changes))
        assert finding.level == "FAIL" and "3.0 s behind" in finding.text

    def test_reading_it_finds_a_step(self) -> None:
        class Stepping(RealRuntime):
            def now_ms(self) -> int:
                return 1_000 if not slept else 4_000

            def monotonic(self) -> float:
                return 10.0 + sum(slept)

            def sleep(self, seconds: float) -> None:
                slept.append(seconds)

        slept: list[float] = []
        reading = readings.read_clock(Stepping(), 1.0)
        assert (reading.step_ms, reading.over_s) == (2000.0, 1.0)
        assert reading.synchronised in (True, False, None)


class TestSkew:
    def looks(self, late_ms: int, ticks: int = 1, **changes: Any) -> Finding:
        """Two looks a second apart, the last tick `late_ms` old in the second, `ticks` ticks between them."""
        before = status_of(written_ms=NOW_MS - 1000, written_s=100.0)
        tick = LastTick("X", 1.0, NOW_MS - late_ms)
        counters = before.counters | {"tick_count": ticks}
        after = status_of(written_ms=NOW_MS, written_s=101.0, last_tick=tick, counters=counters, **changes)
        return checks.check_skew(before, after, 101.5)

    @pytest.mark.parametrize(
        ("late_ms", "level"), [(0, "ok"), (6000, "ok"), (6001, "warn"), (-1000, "ok"), (-1001, "warn")]
    )
    def test_ticks_of_the_past_and_of_the_future(self, late_ms: int, level: str) -> None:
        assert self.looks(late_ms).level == level

    def test_a_quiet_market_says_nothing_of_the_clock(self) -> None:
        finding = self.looks(3_600_000, ticks=0)
        assert finding == ok("feed times", "not compared: no tick arrived while the doctor was watching")

    @pytest.mark.parametrize("changes", [{"push": False}, {"state": "ended"}])
    def test_replays_and_dead_engines_are_not_compared(self, changes: dict[str, Any]) -> None:
        assert self.looks(3_600_000, **changes).level == "ok"

    def test_no_engine(self) -> None:
        assert checks.check_skew(None, None, 1.0).level == "ok"
        quiet = status_of(last_tick=None)
        assert checks.check_skew(quiet, quiet, 101.5) == ok("feed times", "not compared: no tick has arrived yet")


@pytest.mark.parametrize(
    ("unit", "level", "said"),
    [
        (UnitReading(False, (), None), "ok", "systemd is not running here"),
        (UnitReading(True, (), None), "warn", "not installed"),
        (UnitReading(True, ("/a",), ""), "ok", "/a, verified"),
        (UnitReading(True, ("/a",), None), "ok", "not available to verify"),
        (UnitReading(True, ("/a",), "/a:3: Unknown key"), "FAIL", "/a:3: Unknown key"),
    ],
)
def test_the_unit(unit: UnitReading, level: str, said: str) -> None:
    finding = checks.check_unit(unit)
    assert finding.level == level and said in finding.text


class TestUnitReading:
    def test_the_users_own_unit_is_found_and_verified(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(installed, "SYSTEM_FOLDERS", ())
        monkeypatch.setattr(installed, "USER_FOLDERS", ("~/units",))
        asked = []

        def verify(path: Path, how: tuple[str, ...]) -> str:
            asked.append((path, how))
            return "wrong"

        monkeypatch.setattr(readings, "verify", verify)
        assert readings.read_unit(tmp_path, None).paths == ()
        (tmp_path / "units").mkdir()
        unit = tmp_path / "units" / "tradebot.service"
        unit.write_text("[Unit]\n")
        found = readings.read_unit(tmp_path, None)
        assert (found.paths, found.complaint) == ((str(unit),), "wrong")
        assert asked == [(unit, ("--user",))]

    def test_it_is_the_unit_of_the_configuration_whatever_its_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(installed, "SYSTEM_FOLDERS", (str(tmp_path),))
        monkeypatch.setattr(installed, "USER_FOLDERS", ())
        monkeypatch.setattr(readings, "verify", lambda path, how: "")
        for name in ("tradebot", "tradebot-eth"):
            (tmp_path / f"{name}.service").write_text(
                f"{installed.WRITTEN}\n[Service]\nExecStart=/opt/tradebot run\n"
                f"Environment=TRADEBOT_CONFIG=/etc/{name}.toml\n"
            )
        found = readings.read_unit(None, Path("/etc/tradebot-eth.toml"))
        assert (found.name, found.paths) == ("tradebot-eth.service", (f"{tmp_path}/tradebot-eth.service",))
        finding = checks.check_unit(readings.read_unit(None, None))
        assert finding.level == "warn" and "tradebot.service runs with /etc/tradebot.toml" in finding.text
        assert "--config=/etc/tradebot.toml" in finding.advice

    @pytest.mark.parametrize(
        ("script", "complaint"),
        [
            ("exit 0", ""),
            ("echo 'a: b'; echo c >&2", "a: b | c"),
            ("exit 3", "systemd-analyze verify ended with 3"),
            ("echo 'Failed to initialize manager: No such device or address' >&2; exit 1", None),
        ],
    )
    def test_what_systemd_analyze_says(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, complaint: str | None
    ) -> None:
        program = tmp_path / "systemd-analyze"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
        assert readings.verify(tmp_path / "x.service", ()) == complaint

    def test_without_systemd_analyze(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert readings.verify(tmp_path / "x.service", ()) is None


class TestPermissions:
    DIRECTORY = FileReading("/d", 0o755)
    DATABASE = FileReading("/d/a.db", 0o644)
    CONFIG = FileReading("/c.toml", 0o644)
    ME = Judge("me")
    SERVICE = Judge("tradebot", "tradebot", True, "tradebot install-unit --config=/c.toml")

    def said(
        self, judge: Judge = ME, directory: FileReading = DIRECTORY, config: FileReading | None = None,
        database: FileReading | None = None, inputs: tuple[FileReading, ...] = (),
    ) -> list[tuple[str, str]]:  # fmt: skip
        files = Files(directory, () if database is None else (database,), config, inputs)
        return [(finding.level, finding.advice) for finding in check_permissions(files, judge)]

    def test_all_well(self) -> None:
        assert self.said() == [("ok", "")]
        assert self.said(self.SERVICE, config=self.CONFIG, database=self.DATABASE, inputs=(self.CONFIG,)) == [
            ("ok", "")
        ]
        assert self.said(directory=self.DIRECTORY._replace(mode=0o1777)) == [("ok", "")], "as /tmp"

    def test_who_may_not_work_here(self) -> None:
        closed = self.DATABASE._replace(readable=False, owned=False)
        for file in (closed, self.DATABASE._replace(writable=False)):
            assert self.said(self.SERVICE, database=file) == [("FAIL", "`chown tradebot: /d/a.db`")]
        [(level, advice)] = self.said(database=closed)
        assert level == "FAIL" and "as the user of the engine" in advice
        shut = self.DIRECTORY._replace(writable=False)
        assert self.said(self.SERVICE, directory=shut) == [("FAIL", "`chown tradebot: /d`")]
        [(level, advice)] = self.said(directory=shut)
        assert level == "FAIL" and "name another --db" in advice

    def test_others_who_may(self) -> None:
        """Where the service's user is one of the others, it must be given the file first."""
        open_, writable = self.DIRECTORY._replace(mode=0o777), self.DATABASE._replace(mode=0o666)
        assert self.said(directory=open_) == [("warn", "`chmod o-w /d`")]
        assert self.said(database=writable) == [("warn", "`chmod o-w /d/a.db`")]
        assert self.said(config=self.CONFIG._replace(mode=0o666)) == [("warn", "`chmod o-w /c.toml`")]
        assert self.said(self.SERVICE, directory=open_._replace(owned=False)) == [
            ("warn", "`chown tradebot: /d && chmod o-w /d`")
        ]
        assert self.said(self.SERVICE, database=writable._replace(owned=False)) == [
            ("warn", "`chown tradebot: /d/a.db && chmod o-w /d/a.db`")
        ]

    def test_a_secret_that_everybody_can_read(self) -> None:
        """Found by use: the advice was `chmod o-r`, the service then ended with 12, and the doctor said ok."""
        secret = self.CONFIG._replace(secret=True)
        assert self.said(config=secret) == [("warn", "`chmod o-r /c.toml`")]
        assert self.said(config=secret._replace(mode=0o640)) == [("ok", "")]
        command = "`chgrp tradebot /c.toml && chmod g+r,o-r /c.toml`"
        assert self.said(self.SERVICE, config=secret._replace(owned=False)) == [("warn", command)]

    def test_a_configuration_that_the_service_cannot_read_is_a_failure(self) -> None:
        closed = self.CONFIG._replace(mode=0o600, readable=False)
        assert self.said(self.SERVICE, config=closed) == [("FAIL", "`chgrp tradebot /c.toml && chmod g+r /c.toml`")]
        assert self.said(self.SERVICE, inputs=(closed,)) == [("FAIL", "`chgrp tradebot /c.toml && chmod g+r /c.toml`")]
        [(level, advice)] = self.said(self.SERVICE, config=self.CONFIG._replace(closed_above="/root"))
        assert level == "FAIL" and advice.startswith("`tradebot install-unit --config=/c.toml`")


class TestServiceUser:
    def status(self, mode: int, uid: int = 0, gid: int = 0) -> os.stat_result:
        return os.stat_result((mode, 1, 1, 1, uid, gid, 0, 0, 0, 0))

    USER = ServiceUser(
        "tradebot", "tradebot", 990, frozenset({990, 44}), ("/root/checkout", "/var/lib/private/tradebot")
    )

    @pytest.mark.parametrize(
        ("mode", "uid", "gid", "may"),
        [
            (0o604, 0, 0, True), (0o640, 0, 0, False), (0o640, 0, 44, True), (0o604, 0, 44, False),
            (0o400, 990, 0, True), (0o044, 990, 990, False),
        ],
    )  # fmt: skip
    def test_the_bits_of_the_first_class_that_fits_count(self, mode: int, uid: int, gid: int, may: bool) -> None:
        assert self.USER.may(self.status(mode, uid, gid), 4) == may

    def test_what_the_unit_shows_is_reached_whatever_lies_above(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o755)
        shut = tmp_path / "shut"
        (shut / "in").mkdir(parents=True)
        file = shut / "in" / "c.toml"
        file.touch()
        shut.chmod(0o700)
        user = self.USER._replace(uid=12345, gids=frozenset({12345}))
        above = [parent for parent in reversed(file.parents) if not parent.stat().st_mode & 1]
        assert user.closed_above(file) == above[0]
        for shown in (str(file), str(shut / "in"), str(above[0])):
            assert user._replace(shown=(shown,)).closed_above(file) is None

    def test_of_a_unit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        path = tmp_path / "tradebot.service"
        path.write_text("User=daemon\nStateDirectory=bot\nBindReadOnlyPaths=-/opt/x\nBindPaths=/data/bot\n")
        user = user_of(InstalledUnit(path, None, None, user=False))
        assert user is not None and user.name == "daemon"
        assert user.shown == ("/opt/x", "/data/bot", "/var/lib/bot", "/var/lib/private/bot")
        assert user_of(InstalledUnit(path, None, None, user=True)) is None and user_of(None) is None
        path.write_text("User=nobody-of-that-name\n")
        assert user_of(InstalledUnit(path, None, None, user=False)) is None


@pytest.mark.parametrize(
    ("listener", "wanted", "level"),
    [
        (None, False, "ok"),
        (None, True, "warn"),
        (Listener(9, "process 5 (tradebot run)", True), True, "ok"),
        (Listener(9, "process 5 (nginx)", False), False, "warn"),
        (Listener(9, None, False), True, "FAIL"),
    ],
)
def test_ports(listener: Listener | None, wanted: bool, level: str) -> None:
    assert checks.check_port("metrics", 9, listener, wanted, (Advice.METRICS_AWAY, "do"), "metrics.port").level == level


@pytest.mark.parametrize(
    ("command", "ours"),
    [
        ("/opt/venv/bin/python /opt/venv/bin/tradebot run", True),
        ("python3 -m tradebot", True),
        ("/x/.venv/bin/python /x/bin/launch.py tradebot.cli.main run", True),
        ("/x/.venv/bin/python /x/bin/launch.py mockws_server.cli --port=0", True),
        ("python3 -m mockws_server", True),
        ("/home/me/tradebot/.venv/bin/python -c pass", False),
        ("nginx -c /srv/tradebot/nginx.conf", False),
        ("/usr/bin/datasette tradebot.db", False),
        ("/usr/local/bin/tradebot --db=x", True),
    ],
)
def test_which_programs_are_ours(command: str, ours: bool) -> None:
    """A checkout is often named tradebot: that makes no program of another package ours."""
    assert readings.runs_our_program(command.split()) is ours


class TestListeners:
    def test_who_listens_is_found_without_connecting(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            found = readings.read_listener(port)
            assert found is not None and found.owner is not None
            assert found.owner.startswith(f"process {os.getpid()} (")
            server.settimeout(0)
            with pytest.raises(BlockingIOError):
                server.accept()
        assert readings.read_listener(port) is None

    def test_lines_of_the_kernel(self) -> None:
        lines = [
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
            "   0: 0100007F:2329 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1 0 100 0",
            "   1: 0100007F:2329 0100007F:A000 01 00000000:00000000 00:00000000 00000000     0        0 78 1 0 100 0",
            "   2: 0100007F:232A 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 79 1 0 100 0",
        ]
        assert list(readings.listening(lines, 0x2329)) == ["77"]


class TestProcesses:
    FREE = LockReading(True, None)
    HELD = LockReading(True, 7)

    def level(self, lock: LockReading, alive: bool = True, **status: Any) -> str:
        return checks.check_processes(replace(LOOK, status=status_of(**status)), lock, alive, UNIT).level

    def test_one_at_work(self) -> None:
        assert self.level(self.HELD) == "ok"
        assert self.level(LockReading(False, None)) == "ok"

    def test_none(self) -> None:
        assert self.level(self.FREE, state="ended") == "ok"
        assert checks.check_processes(replace(LOOK, status=None), self.FREE, False, UNIT).level == "ok"

    def test_one_that_hangs(self) -> None:
        assert self.level(self.HELD, written_s=10.0) == "FAIL"
        assert self.level(LockReading(False, None), written_s=10.0) == "FAIL"
        assert checks.check_processes(replace(LOOK, status=None), self.HELD, False, UNIT).level == "FAIL"

    def test_one_that_was_killed(self) -> None:
        """Also when its process id belongs to somebody else by now: the lock is what counts."""
        assert self.level(self.FREE, written_s=10.0, alive=False) == "warn"
        assert self.level(self.FREE, written_s=10.0, alive=True) == "warn"
        assert self.level(LockReading(False, None), written_s=10.0, alive=False) == "warn"

    def test_one_that_writes_a_file_that_is_gone(self) -> None:
        assert self.level(self.FREE) == "FAIL"

    def test_the_lock_is_read_and_not_asked_for(self, tmp_path: Path) -> None:
        path = tmp_path / "a.db"
        assert readings.read_lock(path) == self.FREE
        lock = WriterLock(path)
        assert readings.read_lock(path) == LockReading(True, os.getpid())
        (tmp_path / "a.db.lock").unlink()
        assert readings.read_lock(path) == LockReading(True, os.getpid()), "the database's own lock tells"
        lock.release()
        assert readings.read_lock(path) == self.FREE
        with (tmp_path / "a.db.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            assert readings.read_lock(path) == self.FREE, "a shared lock is no engine's"
        assert readings.read_lock(path, tmp_path / "none") == LockReading(True, None)._replace(known=False)

    def test_processes_live_or_not(self) -> None:
        assert readings.pid_alive(os.getpid())
        assert not readings.pid_alive(2**22 + 1)


def test_the_last_run() -> None:
    assert checks.check_last_run(LOOK).level == "ok", "under way"
    gone = replace(LOOK, status=None)
    assert checks.check_last_run(gone) == warn(
        "last run", "r has no end", Advice.RUN_WITHOUT_END, "it was killed: see its log for the last lines"
    )
    assert checks.check_last_run(replace(gone, run=replace(RUN, exit_code=0))).level == "ok"
    overrun = checks.check_last_run(replace(gone, run=replace(RUN, exit_code=13)))
    assert overrun.level == "warn" and "ended with 13 OVERLOAD" in overrun.text
    assert checks.check_last_run(replace(gone, run=None)).level == "ok"


def test_spill_and_throttle() -> None:
    assert checks.check_spill(None, True, "s", False).level == "ok"
    assert checks.check_spill(10, True, "s", False).level == "warn"
    assert checks.check_spill(10, True, "s", True).level == "warn"
    assert checks.check_spill(10, False, "s", False).level == "warn", "the next start sets it aside"
    assert "start the engine with this database" in checks.check_spill(10, True, "s", False).advice
    assert "put the database that they belong to back" in checks.check_spill(10, True, "s", False, False).advice
    assert checks.check_orphans([]) == []
    (orphan,) = checks.check_orphans(["x.db.spill.orphan-r1"])
    assert orphan.level == "warn" and "x.db.spill.orphan-r1" in orphan.text and ".spill" in orphan.advice
    assert checks.check_throttle(None, None, 0, "t", UNIT).level == "ok"
    assert checks.check_throttle(Throttle(1, "NORMAL", 0), None, 0, "t", UNIT).level == "ok"
    assert checks.check_throttle(None, "bad", 0, "t", UNIT) == fail(
        "throttle", "bad", Advice.THROTTLE_UNREADABLE, "`rm t`"
    )
    left = checks.check_throttle(Throttle(5, "THROTTLE1", 0), None, 60_000, "t", UNIT)
    assert left.level == "warn" and left.text.startswith("THROTTLE1 since 60 s")


READING = DatabaseReading(
    journal_mode="wal", schema=SCHEMA_VERSION, page_bytes=4096, pages=1000, free_pages=0, tick_rows=40_960,
    spans=(RunSpan(NOW_MS - DAY_MS, None, 864_000),), size=4_096_000, wal_bytes=0, written_ms=NOW_MS,
    disk_free=10_000_000_000,
)  # fmt: skip


class TestGrowth:
    def days(self, **changes: Any) -> float | None:
        return database.growth(replace(READING, **changes)).days_left

    def test_of_a_day(self) -> None:
        pace = database.growth(READING)
        assert (pace.bytes_per_tick, pace.ticks_per_day) == (100.0, 864_000)
        assert pace.days_left == pytest.approx(10_000_000_000 / 86_400_000)

    def test_pauses_and_restarts_count(self) -> None:
        spans = (RunSpan(NOW_MS - DAY_MS, NOW_MS, 864_000), RunSpan(NOW_MS - 4 * DAY_MS, NOW_MS - 3 * DAY_MS, 864_000))
        assert database.growth(replace(READING, spans=spans)).ticks_per_day == 2 * 864_000 / 4

    def test_runs_before_the_last_week_do_not(self) -> None:
        old = RunSpan(NOW_MS - 90 * DAY_MS, NOW_MS - 80 * DAY_MS, 10**9)
        assert self.days(spans=(*READING.spans, old)) == self.days()

    def test_but_the_newest_run_does_whenever_it_began(self) -> None:
        pace = database.growth(replace(READING, spans=(RunSpan(NOW_MS - 90 * DAY_MS, None, 90_000),)))
        assert pace.ticks_per_day == 1000

    def test_room_that_deleted_rows_have_left_is_room(self) -> None:
        pace = database.growth(replace(READING, free_pages=500, tick_rows=20_480))
        assert pace.bytes_per_tick == 100.0
        assert pace.days_left == pytest.approx((10_000_000_000 + 500 * 4096) / 86_400_000)

    @pytest.mark.parametrize(
        "changes",
        [{"spans": ()}, {"spans": (RunSpan(NOW_MS - 500_000, None, 500),)}, {"tick_rows": 0}, {
            "spans": (RunSpan(NOW_MS - DAY_MS, None, 0),)
        }],
    )  # fmt: skip
    def test_too_little_to_tell(self, changes: dict[str, Any]) -> None:
        assert self.days(**changes) is None

    @pytest.mark.parametrize(
        ("free", "level"),
        [(10**10, "ok"), (1_200_000_000, "warn"), (172_000_000, "FAIL"), (200_000_000, "FAIL")],
    )
    def test_how_bad_it_is(self, free: int, level: str) -> None:
        """14 days are a warning, 2 days or 256 MB a failure."""
        assert database.check_disk(replace(READING, disk_free=free), "a.db").level == level

    def test_a_small_disk_is_bad_whatever_grows(self) -> None:
        assert database.check_disk(replace(READING, disk_free=255_000_000, spans=()), "a.db").level == "FAIL"
        assert database.check_disk(replace(READING, disk_free=257_000_000, spans=()), "a.db").level == "ok"


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({}, "ok"),
        ({"schema": 0}, "warn"),
        ({"journal_mode": "delete"}, "warn"),
    ],
)
def test_the_shape(changes: dict[str, Any], level: str) -> None:
    """G3, S1: what stays with the file."""
    assert [finding.level for finding in database.check_shape(replace(READING, **changes), "NORMAL", "a.db")] == [level]


def test_the_wal() -> None:
    assert database.check_wal(64 * 1024 * 1024, True).level == "ok"
    assert database.check_wal(64 * 1024 * 1024 + 1, True).level == "warn"


class TestIntegrity:
    def read(self, path: Path, size: int = 0, limit_s: float | None = None) -> Integrity:
        return database.read_integrity(path, size, RealRuntime(), limit_s, lambda _line: None)

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        record = new_run(tmp_path / "a.db")
        with storage_of(tmp_path / "a.db", record) as storage:
            storage.write(full_batch(1, 5000))
        return tmp_path / "a.db"

    @pytest.mark.parametrize(("size", "how"), [(0, "integrity_check"), (10**12, "quick_check of each table")])
    def test_a_sound_file(self, path: Path, size: int, how: str) -> None:
        found = self.read(path, size)
        assert found._replace(took_s=0.0) == Integrity(how, (), False, 0.0)
        assert database.check_integrity(found, "put back a backup").level == "ok"

    @pytest.mark.parametrize("size", [0, 10**12])
    def test_a_damaged_file(self, path: Path, size: int) -> None:
        with closing(sqlite3.connect(path)) as db:
            (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'orders'").fetchone()
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with path.open("r+b") as file:
            file.seek((page - 1) * 4096 + 2000)
            file.write(b"\xff" * 2096)
        found = self.read(path, size)
        assert 1 <= len(found.problems) <= 5
        assert database.check_integrity(found, "put back a backup").level == "FAIL"

    def test_time_that_is_over(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(database, "_OPERATIONS", 10)
        found = self.read(path, limit_s=0.0)
        assert found.unfinished and not found.problems
        assert database.check_integrity(found, "put back a backup").level == "warn"

    def test_ctrl_c_ends_it(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(database, "_OPERATIONS", 10)

        def interrupt(_watch: object) -> int:
            raise KeyboardInterrupt

        monkeypatch.setattr(database._Watch, "look", interrupt)
        with pytest.raises(KeyboardInterrupt):
            self.read(path)

    def test_it_tells_how_long_it_takes(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Slow(RealRuntime):
            now_s = 0.0

            def monotonic(self) -> float:
                self.now_s += 0.6
                return self.now_s

        monkeypatch.setattr(database, "_OPERATIONS", 1000)
        told: list[str] = []
        database.read_integrity(path, 5_000_000, Slow(), None, told.append)
        assert told[0] == "checking 5 MB: 1 s (Ctrl-C ends it)"


class Doctor:
    """The command with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.path = home / "data" / "a.db"
        self.path.parent.mkdir()
        self.said = ""

    def run(self, config: str | None = None) -> dict[str, Finding]:
        """The findings by name (the last of each); `code` and `said` tell the rest."""
        out, err = StringIO(), StringIO()
        environ = {"HOME": str(self.home)}
        self.code = run_doctor(config, self.path, environ, Hasty(), GuardedStream(out), GuardedStream(err))
        self.said = out.getvalue()
        assert err.getvalue() == ""
        lines = [line for line in self.said.splitlines() if line[:4] in ("ok  ", "warn", "FAIL")]
        return {line[6:18].strip(): Finding(line[6:18].strip(), line[:5].strip(), line[19:]) for line in lines}  # type: ignore[arg-type]


class Hasty(RealRuntime):
    """Does not sleep: the doctor's look takes no time."""

    def sleep(self, seconds: float) -> None:
        pass


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    return Doctor(tmp_path)


def living(**changes: Any) -> Status:
    """A status that was written now."""
    runtime = RealRuntime()
    now_ms = runtime.now_ms()
    return status_of(
        written_s=runtime.monotonic(), written_ms=now_ms, started_ms=now_ms - 5000, last_stored_ms=now_ms, **changes
    )


ALWAYS = {"python", "libraries", "config", "database", "permissions", "clock", "feed times", "processes", "last run",
          "spill", "throttle", "unit", "ports", "sqlite"}  # fmt: skip


def test_before_the_first_run(doctor: Doctor) -> None:
    found = doctor.run()
    assert set(found) == ALWAYS
    assert found["database"].level == "warn" and "does not exist" in found["database"].text
    assert doctor.code == 0
    assert "-> the first run creates it; check --db" in doctor.said
    assert [entry.name for entry in doctor.path.parent.iterdir()] == [], "the doctor makes nothing"


def test_a_database_in_good_order(doctor: Doctor) -> None:
    record = new_run(doctor.path, "r")
    with storage_of(doctor.path, record) as storage:
        storage.write(full_batch(1, 100))
    found = doctor.run()
    assert set(found) == ALWAYS | {"wal", "disk", "integrity"}
    assert {name for name, finding in found.items() if finding.level == "FAIL"} == set()
    assert found["integrity"].text.startswith("integrity_check: ok")
    assert found["database"].text.endswith("100 ticks")
    assert doctor.said.splitlines()[-1].endswith(" 0 failed")


def test_an_engine_at_work(doctor: Doctor) -> None:
    new_run(doctor.path, "r")
    lock = WriterLock(doctor.path)
    write_status(status_path(doctor.path), living(pid=os.getpid()))
    found = doctor.run()
    lock.release()
    assert found["processes"].text == f"one engine is running, process {os.getpid()}"
    assert found["last run"].text == "r is running"
    assert found["feed times"].text == "not compared: no tick arrived while the doctor was watching"


@pytest.mark.parametrize(
    ("spoil", "check"),
    [
        (lambda doctor: doctor.path.write_text("no database " * 100), "database"),
        (lambda doctor: throttle_path(doctor.path).write_text("{"), "throttle"),
        (lambda doctor: status_path(doctor.path).write_text("{"), "processes"),
    ],
)
def test_what_is_broken_is_a_failure(doctor: Doctor, spoil: Any, check: str) -> None:
    new_run(doctor.path, "r")
    spoil(doctor)
    found = doctor.run()
    assert {name for name, finding in found.items() if finding.level == "FAIL"} == {check}
    assert doctor.code == 1


def test_a_broken_configuration_does_not_keep_the_doctor_from_the_rest(doctor: Doctor) -> None:
    (doctor.home / "c.toml").write_text("[engine]\nsample_every = 0\n")
    found = doctor.run(str(doctor.home / "c.toml"))
    assert found["config"].level == "FAIL" and "c.toml:2: engine.sample_every" in found["config"].text
    assert set(found) == ALWAYS


def test_a_webhook_that_others_can_read(doctor: Doctor) -> None:
    config = doctor.home / "c.toml"
    config.write_text('[notify]\nwebhook_url = "https://h/x"\n')
    config.chmod(0o644)
    assert doctor.run(str(config))["permissions"].level == "warn"
    config.chmod(0o600)
    assert doctor.run(str(config))["permissions"].level == "ok"


def test_ports_of_the_configuration(doctor: Doctor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        config = doctor.home / "c.toml"
        config.write_text(
            f'[engine]\ningest_mode = "mockws"\nws_url = "ws://localhost:{port}"\n[metrics]\nport = {port}\n'
        )
        doctor.run(str(config))
    said = [line for line in doctor.said.splitlines() if "ports " in line]
    assert f"ok    ports        mockws port {port} is used by process {os.getpid()}" in said[0]
    assert said[1].startswith("warn") and f"metrics port {port}" in said[1]
    doctor.run(str(config))
    assert f"warn  ports        nothing listens on mockws port {port}" in doctor.said
    assert f"ok    ports        metrics port {port} is free" in doctor.said


def test_a_database_of_the_original_system(doctor: Doctor) -> None:
    with closing(sqlite3.connect(doctor.path)) as db:
        db.executescript(ORIGINAL_SCHEMA)
    found = doctor.run()
    assert found["database"].level == "warn" and "schema 0" in found["database"].text
    assert found["integrity"].level == "ok"


def test_an_empty_file_is_no_database_of_an_older_tradebot(doctor: Doctor) -> None:
    doctor.path.touch()
    found = doctor.run()
    text = "the file is empty (0 bytes): no engine has written to it yet"
    assert found["database"] == Finding("database", "warn", text)
    assert doctor.code == 0
    with closing(sqlite3.connect(doctor.path)) as db:
        db.execute("VACUUM")
        db.executescript("CREATE TABLE x (y); DROP TABLE x")
    assert doctor.run()["database"].text == text.replace("is empty (0 bytes)", "holds no table")


def test_a_path_that_can_be_no_database_is_misuse(doctor: Doctor) -> None:
    """12, as of status and health; nothing is advised about a file that is none of ours (chmod o-w /dev/null)."""
    doctor.path = Path("/dev/null")
    found = doctor.run()
    assert doctor.code == 12
    assert found["database"].level == "FAIL" and "is not a regular file" in found["database"].text
    assert set(found) == {"python", "sqlite", "libraries", "config", "database", "unit", "ports"}
    assert "/dev/null" not in doctor.said.replace(found["database"].text, "")
    doctor.path = doctor.home
    assert doctor.run()["database"].text == f"database {doctor.home}: is a directory"
    assert f"-> name a file, e.g. {doctor.home}/tradebot.db\n" in doctor.said


@pytest.mark.parametrize("replaced", [False, True])
def test_a_database_that_is_gone_under_its_engine(doctor: Doctor, replaced: bool) -> None:
    write_status(status_path(doctor.path), living(pid=os.getpid()))
    lock = WriterLock(doctor.path)
    doctor.path.unlink()
    if replaced:
        new_run(doctor.path, "another")
    doctor.run()
    lock.release()
    what = "has no run r" if replaced else "does not exist, although process"
    assert f"FAIL  database     the database {what}" in doctor.said
    assert doctor.code == 1


def test_a_status_that_cannot_be_read(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    """No advice to remove it: it is another user's, and the run is read all the same."""
    new_run(doctor.path, "r")
    status_path(doctor.path).mkdir()
    found = doctor.run()
    assert found["processes"].level == "FAIL" and found["processes"].text.endswith(": is not a regular file")
    status_path(doctor.path).rmdir()
    opened = Path.open

    def refuse(path: Path, *how: Any, **more: Any) -> Any:
        if path == status_path(doctor.path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, *how, **more)

    write_status(status_path(doctor.path), living())
    monkeypatch.setattr(Path, "open", refuse)
    found = doctor.run()
    assert found["processes"].text.endswith("cannot be read: Permission denied")
    assert "-> run this as the user of the engine, or as root\n" in doctor.said
    assert found["last run"].text == "r has no end"


def test_units_below_a_home_that_may_not_be_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by running the doctor as another user: it ended in the middle of its list."""

    def refuse(path: Path) -> bool:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "is_file", refuse)
    assert readings.read_unit(Path("/home/another"), None).paths == ()


class TestBeforeAnUpdate:
    @staticmethod
    def said(**changes: Any) -> list[tuple[str, str, str]]:
        found = check_update(replace(READING, schema=SCHEMA_VERSION, **changes), "a.db", "0.9", "1.0")
        return [(finding.level, finding.text, finding.advice) for finding in found]

    def test_the_same_schema_and_room_for_a_backup(self) -> None:
        (who, room, schema) = self.said()
        assert who == ("ok", "this is tradebot 1.0; tradebot 0.9 is running", "")
        assert (room[0], schema[0]) == ("ok", "ok")

    def test_no_room_for_a_backup(self) -> None:
        assert [level for level, _text, _advice in self.said(disk_free=1_000)] == ["ok", "FAIL", "ok"]

    def test_a_schema_that_rises_is_no_way_back(self) -> None:
        found = list(check_update(replace(READING, schema=SCHEMA_VERSION - 1), "a.db", None, "1.0"))
        assert found[-1].level == "warn" and "a downgrade needs a backup" in found[-1].text
        assert found[-1].advice == "`tradebot backup a.db.before-update --force --db=a.db`"

    def test_the_command_asks_for_it(self, doctor: Doctor) -> None:
        new_run(doctor.path)
        assert "update" not in doctor.run()
        out = StringIO()
        environ = {"HOME": str(doctor.home)}
        run_doctor(None, doctor.path, environ, Hasty(), GuardedStream(out), GuardedStream(StringIO()), True)
        assert "ok    update       this is tradebot " in out.getvalue()


def test_a_newer_schema_is_no_damage(doctor: Doctor) -> None:
    new_run(doctor.path)
    with closing(sqlite3.connect(doctor.path)) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    found = doctor.run()["database"]
    assert found.level == "FAIL" and "newer tradebot" in found.text
    assert "-> upgrade tradebot, or name another --db\n" in doctor.said


def test_a_finding_on_one_line_safe_to_show() -> None:
    finding = warn("x", "wss://bob:pw@h/ \x1b[2J\n", Advice.PYTHON, "do")
    assert finding.lines() == "warn  x            wss://***@h/ \\x1b[2J\n                   -> do\n"


def test_a_spill_that_tradebot_did_not_write_is_told(doctor: Doctor) -> None:
    """Whatever its first byte is: the next start sets it aside."""
    doctor.path.with_name(doctor.path.name + ".spill").write_bytes(b"\x7f\xb0l" * 100)
    assert "is damaged or was not written by tradebot" in doctor.run()["spill"].text


def test_spill_files_that_were_set_aside_are_listed(doctor: Doctor) -> None:
    """A spill that could be placed nowhere is explained."""
    new_run(doctor.path, "r")
    aside = doctor.path.with_name(doctor.path.name + ".spill.orphan-r9")
    aside.write_text("x")
    finding = doctor.run()["spill"]
    assert finding.level == "warn" and str(aside) in finding.text
