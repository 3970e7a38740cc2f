"""`tradebot status`: what it shows of a running, an ended and a dead engine, and that its JSON keys stay."""

from __future__ import annotations

import errno
import json
import os
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.unit.ops.test_health import Clock
from tests.unit.store_helpers import batch_of, new_database, new_run, storage_of, tick
from tests.unit.telemetry.test_engine_side import status_of
from tradebot.core.errors import UsageError
from tradebot.core.events import STALE_MARKET
from tradebot.core.runtime import RealRuntime
from tradebot.execution.trips import BreakersView, Trip
from tradebot.ops.health import RunLook
from tradebot.ops.status_view import View, render, render_line, run_status, view_of
from tradebot.output.streams import GuardedStream
from tradebot.portfolio.book import Book
from tradebot.store.batch import StoredCounts
from tradebot.store.runs import RunEnd, finish_run
from tradebot.store.spill import Spill, spill_path
from tradebot.telemetry.publisher import status_line
from tradebot.telemetry.status_file import LastTick, status_path, write_status
from tradebot.telemetry.throttle_file import Throttle, throttle_path, write_throttle
from tradebot.threads.counters import COUNTERS

VIEW = View(
    database="/data/a.db", now_ms=11_000, engine="running", healthy=True, health="last stored 1.4 s ago",
    status_age_s=1.0, uptime_s=10.0, last_tick_age_s=1.5, last_stored_age_s=1.4, database_bytes=2_500_000,
    wal_bytes=300_000, spill_bytes=None, throttle=None, last_run=None, trouble=(),
    status=status_of(
        last_tick=LastTick("BTC/USD", 43123.25, 9_500), link_age_ms=250, sample_every=5,
        counters=dict.fromkeys(COUNTERS, 0) | {"ingest_received": 12_345, "risk_vetoes": 3},
    ),
)  # fmt: skip
RUN = RunLook("r9", "0.1.0", "SHADOW", "realws", "kraken:BTC/USD", 1_700_000_000_000, 1, 13, False, 1_234)

EXPECTED = """\
engine running, healthy: last stored 1.4 s ago
SHADOW: all fills are simulated, no order leaves this machine

database    /data/a.db (2.5 MB, WAL 0.3 MB)
run         r, tradebot 0.1.0, configuration c
process     7, since 1970-01-01 00:00:00 UTC (10 s)
input       mockws, s, 1 of 5 ticks kept
link        up, last message from the peer 0.2 s ago
last tick   BTC/USD 43,123.25, 1.5 s ago
position    0.30 BTC/USD, 1 open in all
exposure    30.4500 USD, profit after fees +1.2340 USD
last commit 1.4 s ago, took 0.5 ms
waiting     tick 0, signal 0, persist 0 (events in channels)

Counters since the start
  risk_vetoes                     3
  persist_count                   0
  ingest_received            12,345
  ingest_processed                0
  refused                         0
"""


def test_the_whole_view_of_a_running_engine() -> None:
    """S9: the second line says that all is simulated."""
    assert render(VIEW) == EXPECTED


def shown(status: dict[str, Any] | None = None, **changes: Any) -> str:
    """The view with changes."""
    assert VIEW.status is not None
    view = replace(VIEW, **changes)
    return render(view if status is None else replace(view, status=replace(VIEW.status, **status)))


def test_a_spill_that_an_engine_left_waits_for_the_next_start() -> None:
    text = render(replace(VIEW, spill_bytes=4096, engine="ended"))
    assert "spill       4,096 bytes of accepted events are waiting for the next start\n" in text


def test_what_blocks_orders_is_shown_with_its_reason_and_its_end() -> None:
    stale = tuple(Trip(STALE_MARKET, 8_000, 2.0, 1.0, f"S{number}") for number in range(12))
    lines = shown({"breakers": BreakersView(7_000, "tradebot halt: news", stale, 30)}).splitlines()
    assert "HALTED      since 1970-01-01 00:00:07 UTC by tradebot halt: news; see tradebot resume" in lines
    tripped = [line for line in lines if line.startswith("TRIPPED")]
    assert tripped[0] == (
        "TRIPPED     1970-01-01 00:00:08 UTC: STALE_MARKET: S0 had no tick for 2 ms, breakers.stale_ms = 1; its orders"
        " that add exposure are refused until its next tick in time"
    )
    assert len(tripped) == 11
    assert tripped[-1] == "TRIPPED     30 symbols in all are stale; status --json lists more"
    assert VIEW.status is not None
    halted = replace(VIEW.status, breakers=BreakersView(7, ""))
    assert "ORDERS BLOCKED: HALTED" in status_line(halted)
    assert "ORDERS BLOCKED" not in status_line(VIEW.status)


def test_trouble_is_shown() -> None:
    text = shown(
        {
            "link": "down",
            "link_down_s": 75.0,
            "still_s": {"persist": 60.0},
            "last_tick": None,
            "book": None,
            "spilled_events": 1234,
        },
        throttle=Throttle(10, "THROTTLE2", 1),
        spill_bytes=4096,
        trouble=("database /data/a.db: busy",),
        last_stored_age_s=None,
    )
    for line in (
        "link        DOWN for 75 s, last message from the peer 0.2 s ago\n",
        "last tick   none yet\n",
        "last commit none yet, took 0.5 ms\n",
        "STILL       persist for 60 s\n",
        "throttle    THROTTLE2: the next start of a push feed keeps 1 of 10 ticks\n",
        "spill       1,234 events are waiting until the database can be written again\n",
        "trouble     database /data/a.db: busy\n",
    ):
        assert line in text
    assert "position" not in text


def test_a_tick_of_the_future_is_said_to_be_one() -> None:
    assert "last tick   BTC/USD 43,123.25, 4.0 s AHEAD of this clock\n" in shown(last_tick_age_s=-4.0)


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (13, "exit code   13 OVERLOAD: a push feed outpaced the pipeline, or the database stayed locked or full\n"),
        (None, "exit code   not recorded: the run was killed, or could not record it\n"),
    ],
)
def test_without_an_engine_the_last_run_is_shown(code: int | None, line: str) -> None:
    text = shown(engine="silent", healthy=False, last_run=replace(RUN, exit_code=code))
    assert text.startswith("engine silent, UNHEALTHY: ")
    assert "last run    r9: SHADOW realws, kraken:BTC/USD, begun 2023-11-14 22:13:20 UTC, 1,234 ticks\n" in text
    assert line in text
    assert "Counters" not in text and "simulated" not in text


def test_an_engine_that_has_ended_shows_what_it_came_to() -> None:
    """Found by use: `status` of a finished replay showed neither position nor profit."""
    text = shown({"run_id": "r9", "state": "ended"}, engine="ended", last_run=RUN)
    for line in (
        "SHADOW: all fills are simulated, no order leaves this machine\n",
        "last tick   BTC/USD 43,123.25\n",
        "position    0.30 BTC/USD, 1 open in all\n",
        "exposure    30.4500 USD, profit after fees +1.2340 USD\n",
        "Counters of run r9\n  risk_vetoes ",
    ):
        assert line in text.replace(", 1.5 s ago", "")


def test_what_came_from_outside_cannot_act_on_the_terminal() -> None:
    text = shown({"source": "wss://bob:secret@h\x1b[2J"}, trouble=("a\nb",))
    assert "secret" not in text and "\x1b" not in text
    assert "trouble     a\\nb\n" in text


def test_one_line_for_a_pipe() -> None:
    tick = LastTick("BTC/USD", 43123.25, 1_700_000_009_500)
    assert VIEW.status is not None
    status = replace(VIEW.status, written_ms=1_700_000_010_000, last_tick=tick)
    assert render_line(replace(VIEW, status=status)) == (
        "1970-01-01T00:00:11Z healthy: SHADOW mockws, BTC/USD 43,123.25, last tick 0.5 s ago, position 0.30,"
        " profit +1.2340 USD, 0 stored, 0 dropped, 1 of 5 ticks kept\n"
    )
    ended = replace(VIEW, engine="ended", healthy=False, health="x", status=replace(status, state="ended"))
    assert render_line(ended) == (
        "1970-01-01T00:00:11Z UNHEALTHY (x): engine ended, SHADOW mockws, BTC/USD 43,123.25, position 0.30,"
        " profit +1.2340 USD, 0 stored, 0 dropped, 1 of 5 ticks kept\n"
    )


@pytest.fixture
def database(tmp_path: Path) -> Path:
    record = new_run(tmp_path / "a.db", "r", push=True)
    with storage_of(tmp_path / "a.db", record) as storage:
        storage.write(batch_of(tick(1), tick(2)))
    return tmp_path / "a.db"


def test_the_view_of_a_running_engine(database: Path) -> None:
    write_status(status_path(database), status_of())
    view = view_of(database, Clock())
    assert (view.engine, view.healthy, view.trouble) == ("running", True, ())
    assert (view.status_age_s, view.uptime_s, view.last_stored_age_s) == (1.0, 10.0, 1.4)
    assert view.status == status_of()
    assert view.last_run is not None and (view.last_run.ticks, view.last_run.exit_code) == (2, None)
    assert view.database_bytes == database.stat().st_size
    assert view.throttle is None and view.spill_bytes is None


@pytest.mark.parametrize(("ts", "age_s"), [(9, 2.0), (1_700_000_000_000, -1_699_999_989.0)])
def test_the_age_of_a_tick_by_its_own_time_in_seconds_or_milliseconds(database: Path, ts: int, age_s: float) -> None:
    write_status(status_path(database), status_of(last_tick=LastTick("X", 1.0, ts)))
    assert view_of(database, Clock()).last_tick_age_s == age_s
    write_status(status_path(database), status_of(last_tick=LastTick("X", 1.0, ts), push=False))
    assert view_of(database, Clock()).last_tick_age_s is None, "a replay's ticks are of any time"


@pytest.mark.parametrize(
    ("changes", "engine"),
    [
        ({"state": "draining"}, "draining"),
        ({"state": "ended", "exit_code": 0}, "ended"),
        ({"written_s": 1.0}, "silent"),
    ],
)
def test_what_has_become_of_the_engine(database: Path, changes: dict[str, Any], engine: str) -> None:
    write_status(status_path(database), status_of(**changes))
    view = view_of(database, Clock())
    assert view.engine == engine
    assert (view.uptime_s is None) == (engine != "draining")


def test_without_an_engine_the_database_tells(database: Path) -> None:
    db = new_database(database)
    finish_run(db, 1, RunEnd(5, 10, False, {}))
    db.close()
    view = view_of(database, Clock())
    assert view.engine == "none"
    assert view.last_run is not None and view.last_run.exit_code == 10


def test_what_lies_beside_the_database(database: Path) -> None:
    write_throttle(throttle_path(database), Throttle(5, "THROTTLE1", 1))
    reserve = Spill(spill_path(database), 100)
    assert view_of(database, Clock()).spill_bytes is None, "the empty reserve of a running engine"
    reserve.begin("r", StoredCounts())
    reserve.append([tick(3)])
    reserve.finish()
    view = view_of(database, Clock())
    assert view.spill_bytes == spill_path(database).stat().st_size
    assert view.throttle == Throttle(5, "THROTTLE1", 1)


def test_damaged_files_are_trouble_not_an_end(database: Path) -> None:
    for path in (status_path(database), throttle_path(database)):
        path.write_bytes(b"{")
    view = view_of(database, Clock())
    assert [text.split()[0] for text in view.trouble] == ["status", "throttle"]


def test_the_keys_for_scripts_stay(database: Path) -> None:
    write_status(status_path(database), status_of())
    out = StringIO()
    assert run_status(database, True, False, Clock(), GuardedStream(out)) == 0
    answer = json.loads(out.getvalue())
    assert list(answer) == [
        "format", "database", "now_ms", "engine", "healthy", "health", "status_age_s", "uptime_s", "last_tick_age_s",
        "last_stored_age_s", "database_bytes", "wal_bytes", "spill_bytes", "throttle", "last_run", "status", "trouble",
    ]  # fmt: skip
    assert list(answer["last_run"]) == [
        "run_id", "version", "mode", "ingest", "source", "first_start_ms", "last_end_ms", "exit_code", "complete",
        "ticks",
    ]  # fmt: skip
    assert set(answer["status"]["counters"]) == set(COUNTERS)


def test_1_where_there_is_nothing_at_all(tmp_path: Path) -> None:
    out = StringIO()
    assert run_status(tmp_path / "none.db", False, False, Clock(), GuardedStream(out)) == 1
    assert "engine none" in out.getvalue() and "(not there)" in out.getvalue()


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "(empty: no engine has written to it yet)"),
        (b"SQLite format 3\0, and no more of it", "trouble     database "),
        (b"no database", "trouble     database "),
    ],
)
def test_1_where_the_file_tells_nothing(tmp_path: Path, content: bytes, line: str) -> None:
    (tmp_path / "a.db").write_bytes(content)
    out = StringIO()
    assert run_status(tmp_path / "a.db", False, False, Clock(), GuardedStream(out)) == 1
    assert line in out.getvalue()


@pytest.mark.parametrize(("as_json", "watch"), [(False, False), (True, False), (False, True), (True, True)])
def test_what_can_be_no_database_is_misuse(tmp_path: Path, as_json: bool, watch: bool) -> None:
    out = StringIO()
    with pytest.raises(UsageError, match=r"is a directory; name a file, e\.g\. .*/tradebot\.db$"):
        run_status(tmp_path, as_json, watch, Watched(102.5), GuardedStream(out))
    assert out.getvalue() == ""


def test_a_status_that_cannot_be_read_is_not_the_same_as_none(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by trying it as another user: "no engine" was said of one that ran."""
    write_status(status_path(database), status_of())
    opened = Path.open

    def refuse(path: Path, *how: Any, **more: Any) -> Any:
        if path == status_path(database):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, *how, **more)

    monkeypatch.setattr(Path, "open", refuse)
    view = view_of(database, Clock())
    assert view.health == view.trouble[0]
    assert view.health.endswith("cannot be read: Permission denied; run this as the user of the engine, or as root")
    assert view.last_run is not None and view.last_run.run_id == "r", "the database is read all the same"


@pytest.mark.parametrize("suffix", ["status.json", "spill"])
def test_a_fifo_beside_the_database_holds_nobody_up(database: Path, suffix: str) -> None:
    os.mkfifo(f"{database}.{suffix}")
    view = view_of(database, Clock())
    assert view.spill_bytes is None
    assert [text.partition(": ")[2] for text in view.trouble] == (
        ["is not a regular file; remove it, the engine creates a new one"] if suffix == "status.json" else []
    )


def test_nothing_is_never_negative() -> None:
    """Found by reading: `profit -0.00`."""
    book = Book(0, -0.0, -0.0, -0.0, unit="USD")
    assert "position    0.00 BTC/USD, 0 open in all\nexposure    0.0000 USD, profit after fees +0.0000 USD\n" in shown(
        {"book": book}
    )
    assert ", position 0.00, profit +0.0000 USD, " in status_line(status_of(book=book))
    assert ", position -0.50, profit -0.0060 USD, " in status_line(
        status_of(book=Book(1, -0.5, 1.0, -0.006, unit="USD"))
    )


def test_a_time_that_is_no_date(database: Path) -> None:
    assert "since 9000000000000000000 ms, which is not a date (" in shown({"started_ms": 9 * 10**18})


class Watched(RealRuntime):
    """A runtime that lets the time pass at once, until somebody presses Ctrl-C."""

    def __init__(self, until_s: float) -> None:
        super().__init__()
        self.now_s = 101.0
        self._until_s = until_s

    def monotonic(self) -> float:
        return self.now_s

    def now_ms(self) -> int:
        return int(self.now_s * 1000) - 90_000

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        if self.now_s > self._until_s:
            raise KeyboardInterrupt


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_watching_into_a_pipe_gives_a_line_a_second_and_ctrl_c_is_no_failure(database: Path) -> None:
    write_status(status_path(database), status_of())
    out = StringIO()
    assert run_status(database, False, True, Watched(103.5), GuardedStream(out)) == 0
    lines = out.getvalue().splitlines()
    assert [line[:20] for line in lines] == [f"1970-01-01T00:00:{second}Z" for second in (11, 12, 13)]


def test_watching_json_gives_an_object_a_second(database: Path) -> None:
    out = StringIO()
    assert run_status(database, True, True, Watched(102.5), GuardedStream(out)) == 0
    assert [json.loads(line)["now_ms"] for line in out.getvalue().splitlines()] == [11_000, 12_000]


def test_watching_on_a_terminal_redraws_and_fits(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((20, 5)))
    write_status(status_path(database), status_of())
    out = Terminal()
    assert run_status(database, False, True, Watched(102.5), GuardedStream(out)) == 0
    frames = out.getvalue().split("\x1b[H\x1b[J")[1:]
    assert len(frames) == 2
    for frame in frames:
        lines = frame.strip("\n").split("\n")
        assert len(lines) <= 4 and all(len(line) <= 19 for line in lines)


def test_watching_ends_when_nobody_reads(database: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        runtime = Watched(500.0)
        assert run_status(database, False, True, runtime, GuardedStream(gone)) == 0
        assert runtime.now_s < 103.0
