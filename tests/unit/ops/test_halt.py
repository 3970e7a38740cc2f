"""`tradebot halt` and `tradebot resume`: what they write, what they wait for, and what they say. One line each."""

from __future__ import annotations

import io
import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.telemetry.test_engine_side import status_of
from tradebot.core.errors import UsageError
from tradebot.core.events import MAX_DRAWDOWN
from tradebot.core.runtime import RealRuntime
from tradebot.execution.trips import BreakersView, Trip
from tradebot.ops.halt import WAIT_S, run_halt
from tradebot.output.streams import GuardedStream
from tradebot.telemetry.halt_file import HaltRequest, halt_path, read_halt
from tradebot.telemetry.status_file import Status, status_path, write_status

NOW_MS = 1_700_000_000_000


class World(RealRuntime):
    """A clock that moves when the command waits, and an engine that reports whatever `report` says."""

    def __init__(self, db: Path) -> None:
        super().__init__()
        self.db = db
        self.now_s = 100.0
        self.report: Callable[[], Status | None] = lambda: None

    def monotonic(self) -> float:
        return self.now_s

    def now_ms(self) -> int:
        return NOW_MS

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.write()

    def write(self) -> None:
        status = self.report()
        if status is not None:
            write_status(status_path(self.db), status)

    def give(self, command: str, reason: str = "", as_json: bool = False) -> tuple[int, str]:
        """The exit code and what stands on standard output."""
        self.write()
        out = io.StringIO()
        code = run_halt(self.db, command == "halt", reason, self, GuardedStream(out), as_json)
        return code, out.getvalue()


@pytest.fixture
def world(tmp_path: Path) -> World:
    db = tmp_path / "a.db"
    db.touch()
    return World(db)


def test_without_an_engine_the_next_start_is_halted(world: World) -> None:
    assert world.give("halt", "news") == (
        0,
        "no engine is running: the next start with a live feed refuses orders that add exposure until tradebot resume"
        f" [{world.db}]\n",
    )
    assert read_halt(halt_path(world.db)) == HaltRequest(True, NOW_MS, "news")
    assert stat.S_IMODE(halt_path(world.db).stat().st_mode) == 0o600
    assert world.give("resume") == (0, f"no engine is running: the next start is not halted [{world.db}]\n")
    assert read_halt(halt_path(world.db)) == HaltRequest(False, NOW_MS)


def test_an_engine_that_was_killed_is_none(world: World) -> None:
    """Its status is old: nobody would confirm."""
    world.report = lambda: status_of(written_s=world.now_s - 60, breakers=BreakersView())
    assert world.give("halt")[1].startswith("no engine is running")


def test_a_replay_is_not_halted(world: World) -> None:
    world.report = lambda: status_of(written_s=world.now_s, push=False, breakers=BreakersView())
    code, text = world.give("halt")
    assert (code, text.partition(":")[0]) == (0, "process 7 is replaying, which a halt does not reach")


def engine(world: World, takes_s: float, tripped: tuple[Trip, ...] = ()) -> Callable[[], Status]:
    """An engine that takes a command into account after so many seconds."""
    began_s = world.now_s

    def report() -> Status:
        request = read_halt(halt_path(world.db)) if world.now_s - began_s >= takes_s else None
        view = BreakersView()
        if request is not None:
            since_ms = request.written_ms if request.halted else None
            view = BreakersView(since_ms, request.reason, tripped, 0, 0 if request.halted else request.written_ms)
        return status_of(written_s=world.now_s, breakers=view)

    return report


def test_a_running_engine_confirms(world: World) -> None:
    world.report = engine(world, 2.0)
    assert world.give("halt") == (
        0,
        f"halted: process 7 refuses orders that add exposure until tradebot resume [{world.db}]\n",
    )
    assert world.now_s >= 102.0
    assert world.give("resume") == (0, f"resumed: process 7 accepts all orders again [{world.db}]\n")


def test_a_resume_names_what_is_still_tripped(world: World) -> None:
    world.report = engine(world, 0.0, (Trip("DAILY_LOSS", NOW_MS, 120.0, 100.0),))
    code, text = world.give("resume")
    assert code == 0
    assert text.startswith("resumed: process 7 still has DAILY_LOSS: the loss of the day was 120.0")
    assert "until 00:00 UTC" in text


def test_an_engine_that_does_not_confirm_is_an_error(world: World) -> None:
    """The operator must not believe what did not happen. The file stays: the next start reads it."""
    world.report = lambda: status_of(written_s=world.now_s, breakers=BreakersView())
    code, text = world.give("halt")
    assert code == 1
    assert text == (
        f"NOT CONFIRMED: {halt_path(world.db)} is written, but process 7 has not taken it into account within"
        f" {WAIT_S:.0f} s; look at tradebot status [{world.db}]\n"
    )
    assert read_halt(halt_path(world.db)) == HaltRequest(True, NOW_MS)


def test_an_engine_of_an_older_version_cannot_confirm(world: World) -> None:
    world.report = lambda: status_of(written_s=world.now_s, breakers=None)
    assert world.give("halt")[0] == 1


def test_an_engine_that_dies_meanwhile_is_not_waited_for(world: World) -> None:
    """A status that ended, or grows old, will confirm nothing."""
    world.report = lambda: status_of(
        written_s=world.now_s, state="running" if world.now_s < 101 else "ended", exit_code=0
    )
    code, _text = world.give("halt")
    assert code == 1 and world.now_s < 102


def test_without_a_database_nothing_is_written(tmp_path: Path) -> None:
    """A path with a slip must not look like a halt."""
    world = World(tmp_path / "typo.db")
    code, text = world.give("halt")
    assert (code, text) == (
        1,
        f"halt failed: there is no database, so no engine that could be halted; check --db [{world.db}]\n",
    )
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_one_line(world: World) -> None:
    halt_path(world.db).mkdir()
    code, text = world.give("resume")
    assert code == 1
    assert text.startswith(f"resume failed: {halt_path(world.db)} cannot be written: ") and text.count("\n") == 1


def test_what_cannot_be_a_database_is_misuse(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a directory"):
        World(tmp_path).give("halt")


def test_the_answer_for_scripts(world: World) -> None:
    world.report = engine(world, 0.5, (Trip(MAX_DRAWDOWN, NOW_MS, 11.0, 10.0),))
    code, text = world.give("halt", "news", as_json=True)
    answer = json.loads(text)
    assert code == 0 and text.count("\n") == 1
    assert answer["tripped"][0].startswith("MAX_DRAWDOWN: equity was 11.0 % below its peak")
    assert {name: answer[name] for name in answer if name not in ("tripped",)} == {
        "format": 1, "database": str(world.db), "file": str(halt_path(world.db)), "halted": True, "reason": "news",
        "engine": "running", "pid": 7, "confirmed": True, "failure": None,
    }  # fmt: skip
