"""The halt file: its content, and when a running engine reads it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.feeds.clock import HandClock
from tests.unit.store_helpers import Logged
from tests.unit.talk import START_MS as NOW_MS
from tradebot.core.errors import ConfigError
from tradebot.core.events import Notice
from tradebot.core.log_events import LogEvent
from tradebot.telemetry import halt_file
from tradebot.telemetry.halt_file import (
    POLL_S,
    REASON_CHARS_MAX,
    HaltRequest,
    HaltWatch,
    halt_path,
    read_halt,
    write_halt,
)


class Watched:
    """A halt file and a watch of it; only polls advance its clock."""

    def __init__(self, path: Path, logged: Logged, resumed_ms: int | None = None) -> None:
        self.path = path
        self.clock = HandClock()
        self.watch = HaltWatch(path, resumed_ms, self.clock, logged.log)

    def poll(self) -> Notice | None:
        """The next poll that looks at the file."""
        notice = self.watch.poll()
        self.clock.seconds += POLL_S
        return notice


@pytest.fixture
def watched(tmp_path: Path, logged: Logged) -> Watched:
    return Watched(halt_path(tmp_path / "a.db"), logged)


def test_it_lies_beside_the_database_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = halt_path(tmp_path / "a.db")
    assert path == tmp_path / "a.db.halt.json"
    assert read_halt(path) is None
    request = HaltRequest(True, NOW_MS, "news")
    write_halt(path, request)
    assert read_halt(path) == request
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "truncated"),
        (b'{"halted": true', "truncated"),
        (b'{"halted": "yes", "written_ms": 1}', "halted"),
        (b'{"halted": true, "written_ms": -1}', "written_ms"),
        (b'{"halted": true}', "written_ms"),
        (b'{"halted": true, "written_ms": 1, "until": 2}', "until"),
        (b'{"halted": true, "written_ms": 1, "reason": "%s"}' % (b"x" * (REASON_CHARS_MAX + 1)), "reason"),
        (b"\xff\xfe", ""),
        (b" " * 20_000 + b'{"halted": false, "written_ms": 1}', "truncated"),
    ],
)
def test_what_cannot_be_understood_halts_and_says_what_to_do(watched: Watched, content: bytes, problem: str) -> None:
    """What it should have said is not known, so the safe reading is taken; once, and until a resume."""
    watched.path.write_bytes(content)
    watched.path.chmod(0o600)
    with pytest.raises(ConfigError, match=f"a.db.halt.json: .*{problem}.*`tradebot resume` replaces it"):
        read_halt(watched.path)
    notice = watched.poll()
    assert notice is not None and (notice.kind, notice.ts) == ("HALT", NOW_MS)
    assert "`tradebot resume` replaces it" in notice.detail
    assert watched.poll() is None
    write_halt(watched.path, HaltRequest(False, NOW_MS + 1500))
    assert watched.poll() == Notice("RESUME", NOW_MS + 1500, "tradebot resume")


@pytest.mark.parametrize("kind", ["link", "mode", "directory"])
def test_what_another_user_could_have_written_halts(watched: Watched, kind: str, tmp_path: Path) -> None:
    """A user who can create a file there can also remove the database; ignoring the file could ignore an operator."""
    if kind == "link":
        watched.path.symlink_to(tmp_path / "elsewhere")
    elif kind == "directory":
        watched.path.mkdir()
    else:
        write_halt(watched.path, HaltRequest(False, NOW_MS))
        watched.path.chmod(0o666)
    notice = watched.poll()
    assert notice is not None and notice.kind == "HALT"


def test_a_halt_and_a_resume_are_each_passed_on_once(watched: Watched) -> None:
    assert watched.poll() is None
    write_halt(watched.path, HaltRequest(True, NOW_MS + 1, "news"))
    assert watched.poll() == Notice("HALT", NOW_MS + 1, "tradebot halt: news")
    assert watched.poll() is None
    write_halt(watched.path, HaltRequest(True, NOW_MS + 2))
    assert watched.poll() is None, "a second halt changes nothing"
    write_halt(watched.path, HaltRequest(False, NOW_MS + 3))
    assert watched.poll() == Notice("RESUME", NOW_MS + 3, "tradebot resume")
    assert watched.poll() is None
    write_halt(watched.path, HaltRequest(False, NOW_MS + 4))
    assert watched.poll() == Notice("RESUME", NOW_MS + 4, "tradebot resume"), "it releases breakers, halted or not"


def test_the_file_is_read_once_a_second(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often ingest asks: it asks once for each batch."""
    reads = []

    def counted(path: Path) -> HaltRequest | None:
        reads.append(path)
        return None

    monkeypatch.setattr(halt_file, "read_halt", counted)
    for _ in range(100):
        watched.watch.poll()
        watched.clock.seconds += POLL_S / 50
    assert len(reads) == 2


def test_a_file_that_is_removed_ends_the_halt_it_gave(watched: Watched) -> None:
    write_halt(watched.path, HaltRequest(True, NOW_MS + 1))
    watched.poll()
    watched.path.unlink()
    notice = watched.poll()
    assert notice is not None and (notice.kind, notice.ts) == ("RESUME", NOW_MS + 1000)
    assert notice.detail == f"halt file {watched.path} was removed"
    assert watched.poll() is None


def test_a_passing_error_changes_nothing_and_is_logged_once(
    watched: Watched, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that has no descriptors left for a moment is neither halted nor resumed by that."""
    write_halt(watched.path, HaltRequest(True, NOW_MS + 1))
    watched.poll()
    real, failing = os.open, [True]

    def refuse(path: os.PathLike[str], *more: int) -> int:
        if failing and os.fspath(path) == os.fspath(watched.path):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))
        return real(path, *more)

    monkeypatch.setattr(os, "open", refuse)
    assert [watched.poll(), watched.poll()] == [None, None]
    assert "Too many open files" in logged.one(LogEvent.HALT_FILE_UNREAD)["detail"]
    failing.clear()
    assert watched.poll() is None


class TestAtAStart:
    def test_a_start_while_halted_begins_with_a_halt(self, watched: Watched, logged: Logged) -> None:
        """Also if an earlier start has passed on the same halt: the halt outlives the restart, the notice does not."""
        write_halt(watched.path, HaltRequest(True, NOW_MS - 5, "news"))
        first, second = watched.poll(), Watched(watched.path, logged).poll()
        assert first == second == Notice("HALT", NOW_MS - 5, "tradebot halt: news")

    def test_a_resume_before_the_start_is_not_passed_on_if_it_can_release_nothing(self, watched: Watched) -> None:
        write_halt(watched.path, HaltRequest(False, NOW_MS - 5))
        assert watched.poll() is None
        assert watched.poll() is None
        write_halt(watched.path, HaltRequest(False, NOW_MS))
        assert watched.poll() is not None

    def test_the_first_resume_after_the_start_is_passed_on(self, watched: Watched) -> None:
        """There was no file at the start, and no halt since: a resume that comes now is a new one."""
        assert watched.poll() is None
        write_halt(watched.path, HaltRequest(False, NOW_MS))
        assert watched.poll() is not None

    @pytest.mark.parametrize(("resumed_ms", "passed_on"), [(0, True), (NOW_MS - 9, True), (NOW_MS - 5, False)])
    def test_a_resume_given_while_no_engine_ran_is_passed_on_unless_the_run_before_had_it(
        self, tmp_path: Path, logged: Logged, resumed_ms: int, passed_on: bool
    ) -> None:
        """So a breaker that tripped after a resume is not released by the next restart."""
        again = Watched(halt_path(tmp_path / "a.db"), logged, resumed_ms)
        write_halt(again.path, HaltRequest(False, NOW_MS - 5))
        assert (again.poll() is not None) == passed_on
        assert again.poll() is None


@given(st.lists(st.sampled_from(["halt", "resume", "remove", "damage", "nothing"]), max_size=12))
def test_the_last_notice_is_what_the_file_says(tmp_path_factory: pytest.TempPathFactory, commands: list[str]) -> None:
    """After each poll the stream is halted exactly when the file halts, and no notice repeats the one before."""
    logged = Logged()
    watched = Watched(halt_path(tmp_path_factory.mktemp("halt") / "a.db"), logged, 0)
    halted = False
    for number, command in enumerate(commands):
        if command in ("halt", "resume"):
            write_halt(watched.path, HaltRequest(command == "halt", NOW_MS + number))
        elif command == "remove":
            watched.path.unlink(missing_ok=True)
        elif command == "damage":
            watched.path.write_text("?")
        asked = {"halt": True, "damage": True, "resume": False, "remove": False}.get(command, halted)
        notice = watched.poll()
        if notice is not None:
            assert not (halted and notice.kind == "HALT")
            halted = notice.kind == "HALT"
        assert halted == asked
        assert (notice is not None) >= (command == "resume")
    logged.log.close()
