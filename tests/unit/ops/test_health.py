"""`tradebot health`: what counts as progress, and every reason to say no."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.unit.store_helpers import ORIGINAL_SCHEMA, new_run
from tests.unit.telemetry.test_engine_side import status_of
from tradebot.core.errors import UsageError
from tradebot.core.events import DAILY_LOSS
from tradebot.core.runtime import RealRuntime
from tradebot.execution.trips import BreakersView, Trip
from tradebot.ops.health import Health, HealthReading, RunLook, judge, look_at, run_health, span, unusable
from tradebot.output.streams import GuardedStream
from tradebot.telemetry.status_file import status_path, write_status

RUN = RunLook("r", "0.1.0", "SHADOW", "mockws", "s", 0, None, None, False, 5)
LOOK = HealthReading(101.0, 11_000, True, status_of(), RUN)


class Clock(RealRuntime):
    """A runtime with constant clocks: `status_of` was written a second ago."""

    def monotonic(self) -> float:
        return 101.0

    def now_ms(self) -> int:
        return 11_000


def judged(max_age_s: float = 60.0, look: HealthReading = LOOK, **status: Any) -> Health:
    """The verdict on a healthy engine with changes of its status."""
    return judge(replace(look, status=status_of(**status)), max_age_s)


def test_an_engine_that_stores_is_healthy() -> None:
    assert judged() == (True, "last stored 1.4 s ago")


def test_what_blocks_orders_is_named_and_no_fault() -> None:
    """An operator or a limit wants it so; a supervisor that restarted the engine for it would help nobody."""
    assert judged(breakers=BreakersView(7, "news", (Trip(DAILY_LOSS, 8, 9.0, 9.0),))) == (
        True,
        "last stored 1.4 s ago; ORDERS BLOCKED: HALTED, DAILY_LOSS",
    )
    assert judged(breakers=None) == judged()


def test_no_engine() -> None:
    assert judge(replace(LOOK, status=None), 60) == (
        False,
        "no engine: there is no status file beside this database",
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"state": "ended", "exit_code": 10}, "ended with 10 NETWORK: no completed handshake"),
        ({"state": "ended", "exit_code": 99}, "ended with exit code 99"),
        ({"written_s": 90.0}, "no status from the engine (process 7) for 11 s: it was killed or hangs"),
        ({"written_s": 500.0}, "no engine has run since this machine booted"),
        ({"still_s": {"persist": 61.5}}, "stalled: persist for 62 s"),
    ],
)
def test_an_engine_that_is_gone_or_stuck_is_not_healthy_whatever_it_stored(
    changes: dict[str, Any], reason: str
) -> None:
    health = judged(**changes)
    assert not health.ok
    assert reason in health.text


class TestARunThatIsOver:
    """A complete run is healthy."""

    OVER: dict[str, Any] = {"state": "ended", "exit_code": 0, "running": ()}  # noqa: RUF012

    def test_one_that_did_all_it_was_asked_for_is_healthy_however_long_ago(self) -> None:
        assert judged(complete=True, **self.OVER) == (True, "the run is complete: nothing is left to do")
        assert judged(complete=True, written_s=5000.0, **self.OVER).ok, "before the last boot"

    def test_the_database_tells_it_of_a_status_of_earlier_versions(self) -> None:
        assert judged(look=replace(LOOK, run=replace(RUN, complete=True)), **self.OVER).ok

    def test_so_it_does_of_a_copy_without_a_status(self) -> None:
        copy = replace(LOOK, status=None, run=replace(RUN, complete=True))
        assert judge(copy, 60) == (True, "the run is complete: nothing is left to do")
        assert not judge(replace(copy, damage="damaged"), 60).ok

    def test_one_that_a_signal_stopped_is_not(self) -> None:
        health = judged(**self.OVER)
        assert not health.ok and health.text.startswith("the engine was stopped, and ended with 0 COMPLETE")

    def test_none_that_failed_is(self) -> None:
        assert not judged(complete=True, **{**self.OVER, "exit_code": 13}).ok

    def test_the_database_must_still_be_there(self) -> None:
        over = status_of(complete=True, **self.OVER)
        health = judge(replace(LOOK, status=over, run=None), 60)
        assert health == (False, "the database has no run r, which process 7 wrote: was it replaced?")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"database_exists": False, "run": None}, "the database does not exist, although process 7 writes it"),
        ({"damage": "database x: file is damaged"}, "database x: file is damaged"),
        ({"run": None}, "has no run r"),
    ],
)
def test_the_database_must_hold_what_the_engine_says(changes: dict[str, Any], reason: str) -> None:
    """A status alone is no proof: the file may have been deleted or replaced under the engine."""
    health = judge(replace(LOOK, **changes), 60)
    assert not health.ok
    assert reason in health.text


def test_a_locked_database_is_judged_by_the_status() -> None:
    health = judge(replace(LOOK, run=None, locked="busy"), 60)
    assert health == (True, "last stored 1.4 s ago; the database is locked: busy")


def test_the_age_of_the_last_commit_decides_for_a_link_that_is_down() -> None:
    down: dict[str, Any] = {"link": "down", "link_down_s": 50.0}
    assert judged(1.5, **down).ok
    assert judged(1.3, **down) == (False, "last stored 1.4 s ago; the link is down for 50 s")


def test_a_wall_clock_that_was_set_back_makes_no_commit_younger() -> None:
    in_an_hour: dict[str, Any] = {"last_stored_ms": 3_600_000, "stored_age_s": 70.0}
    assert judged(60.0, link="down", link_down_s=65.0, **in_an_hour) == (
        False,
        "last stored 71 s ago; the link is down for 65 s",
    )


def test_a_quiet_market_is_healthy() -> None:
    """S7: quiet is not dead while the link lives."""
    assert judged(stored_age_s=310.0) == (
        True,
        "last stored 5 min 11 s ago, but the link is up, last message from the peer 0.0 s ago: a quiet market",
    )
    assert judged(stored_age_s=None, uptime_s=310.0, link=None, link_age_ms=None) == (
        True,
        "nothing stored yet, but ingest is running: a quiet market",
    )


def test_nothing_stored_yet_is_healthy_for_as_long_as_progress_may_be_old() -> None:
    begun: dict[str, Any] = {"stored_age_s": None, "link": "down", "link_down_s": 9.0}
    assert judged(10.0, **begun).ok
    assert judged(9.9, **begun) == (False, "nothing stored yet; the link is down for 9.0 s")


def test_ingest_that_has_ended_excuses_no_silence() -> None:
    health = judged(1.0, running=("persist",))
    assert health == (False, "last stored 1.4 s ago; ingest has ended")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    new_run(tmp_path / "a.db", "r")
    return tmp_path / "a.db"


def test_the_command_reads_status_and_database(database: Path) -> None:
    write_status(status_path(database), status_of())
    out = StringIO()
    assert run_health(database, 60, Clock(), GuardedStream(out)) == 0
    assert out.getvalue() == f"healthy: last stored 1.4 s ago [{database}]\n"


def test_the_command_answers_1_and_one_line(database: Path) -> None:
    write_status(status_path(database), status_of(run_id="another"))
    out = StringIO()
    assert run_health(database, 60, Clock(), GuardedStream(out)) == 1
    assert out.getvalue().startswith("UNHEALTHY: the database has no run another")
    assert out.getvalue().count("\n") == 1


def test_a_damaged_status_file_is_no_health(database: Path) -> None:
    status_path(database).write_bytes(b"{")
    out = StringIO()
    assert run_health(database, 60, Clock(), GuardedStream(out)) == 1
    assert out.getvalue().startswith("UNHEALTHY: status file")


def test_looking_finds_the_run_of_the_status_else_the_newest(database: Path) -> None:
    new_run(database, "newer")
    runtime = Clock()
    found = look_at(database, runtime).run
    assert found is not None and found.run_id == "newer"
    write_status(status_path(database), status_of(run_id="r"))
    found = look_at(database, runtime).run
    assert found is not None and (found.run_id, found.exit_code, found.complete) == ("r", None, False)


def test_looking_never_raises_for_a_database(tmp_path: Path) -> None:
    runtime = Clock()
    assert look_at(tmp_path / "none.db", runtime) == HealthReading(101.0, 11_000, False, None, None)
    (tmp_path / "text.db").write_text("no database at all" * 100)
    damage = look_at(tmp_path / "text.db", runtime).damage
    assert damage is not None and "not a database" in damage
    with closing(sqlite3.connect(tmp_path / "old.db")) as db:
        db.executescript(ORIGINAL_SCHEMA)
    assert look_at(tmp_path / "old.db", runtime) == HealthReading(101.0, 11_000, True, None, None)


def test_looking_writes_nothing(database: Path) -> None:
    """The writer is never disturbed: no lock is asked for, and the file stays as it was."""
    before = database.read_bytes()
    with closing(sqlite3.connect(database, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO ticks (symbol, price, volume, ts) VALUES ('X', 1, 1, 1)")
        assert look_at(database, Clock()).locked is None
        writer.execute("ROLLBACK")
    assert database.read_bytes() == before


def test_no_database_and_no_status_may_be_a_wrong_name() -> None:
    health = judge(replace(LOOK, status=None, run=None, database_exists=False), 60)
    assert health == (False, "no engine: there is neither a database nor a status file; check --db")


def test_damage_is_told_where_no_engine_is() -> None:
    health = judge(replace(LOOK, status=None, run=None, damage="database x: damaged"), 60)
    assert health == (False, "no engine: there is no status file beside this database; database x: damaged")


def test_a_row_of_runs_that_cannot_be_understood_is_damage(database: Path) -> None:
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("UPDATE runs SET ticks = 'many'")
    damage = look_at(database, Clock()).damage
    assert damage is not None and "table runs" in damage and "damaged or not tradebot's" in damage


class TestPathsThatAreMisuse:
    def test_a_file_or_none_yet_is_no_misuse(self, tmp_path: Path, database: Path) -> None:
        (tmp_path / "text").write_text("damaged, or no database: that is an answer")
        (tmp_path / "to_nowhere").symlink_to(tmp_path / "none")
        for name in ("a.db", "text", "none", "none/x.db", "to_nowhere"):
            assert unusable(tmp_path / name) is None

    @pytest.mark.parametrize(
        ("name", "told"),
        [
            (".", "is a directory; name a file, e.g. "),
            ("fifo", "is not a regular file; name the right file with --db or app.db_path"),
            ("/dev/null", "is not a regular file; name"),
            ("circle", "its symbolic links form a loop; name"),
            ("text/x.db", "cannot be examined: Not a directory; name"),
            ("x" * 300, "cannot be examined: File name too long; name"),
        ],
    )
    def test_what_can_be_no_database(self, tmp_path: Path, name: str, told: str) -> None:
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "circle").symlink_to(tmp_path / "circle")
        (tmp_path / "text").write_text("x")
        path = tmp_path / name
        out = StringIO()
        with pytest.raises(UsageError) as caught:
            run_health(path, 60, Clock(), GuardedStream(out))
        assert str(caught.value).startswith(f"database {path}: {told}")
        assert out.getvalue() == "" and "\n" not in str(caught.value)

    def test_what_this_user_may_not_read(self, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As root mode bits do not bind: both ways of the system to say no are made up."""
        told = f"database {database}: cannot be read: Permission denied; run this as the user of the engine, or as root"
        with monkeypatch.context() as patch:
            patch.setattr("os.access", lambda path, how: path != database)
            with pytest.raises(UsageError) as caught:
                run_health(database, 60, Clock(), GuardedStream(StringIO()))
            assert str(caught.value) == told
        with monkeypatch.context() as patch:
            patch.setattr(Path, "stat", refused)
            wrong = unusable(database)
        assert wrong is not None and f"{wrong.text}; {wrong.advice}" == told


def refused(path: Path, **_how: object) -> None:
    """What the system says to who may not enter the directory."""
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0 s"),
        (9.96, "10.0 s"),
        (10, "10 s"),
        (119.9, "119 s"),
        (120, "2 min 0 s"),
        (3600, "1 h 0 min"),
        (172_799, "47 h 59 min"),
        (180_000, "2 d 2 h"),
    ],
)
def test_spans_for_people(seconds: float, text: str) -> None:
    assert span(seconds) == text
