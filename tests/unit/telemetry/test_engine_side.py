"""What the engine says of itself: progress, status file, throttle file, the service manager's socket."""

from __future__ import annotations

import os
import socket
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.conftest import REPO
from tests.unit.store_helpers import Logged
from tradebot.core.errors import ConfigError
from tradebot.core.log_events import LogEvent
from tradebot.core.runtime import RealRuntime
from tradebot.execution.trips import BreakersView
from tradebot.portfolio.book import Book, book_of
from tradebot.portfolio.exact import finite
from tradebot.portfolio.money import money_of
from tradebot.portfolio.positions import PositionView
from tradebot.telemetry.publisher import Publisher, status_line
from tradebot.telemetry.sd_notify import NoManager, SystemdNotifier, find_notifier
from tradebot.telemetry.snapshot import Observer
from tradebot.telemetry.status_file import LastTick, Status, read_status, status_path, write_status
from tradebot.telemetry.throttle_file import Throttle, read_throttle, throttle_path, write_throttle
from tradebot.threads.counters import COUNTERS
from tradebot.threads.stall_detector import StageProgress, StallTimer


def status_of(**changes: Any) -> Status:
    """A status of a healthy engine, with changes."""
    status = Status(
        version="0.1.0", pid=7, run_id="r", mode="SHADOW", ingest="mockws", source="s", config_hash="c",
        sample_every=1, push=True, state="running", exit_code=None, started_ms=0, uptime_s=10.0, written_ms=10_000,
        written_s=100.0,
        running=("execution", "ingest", "persist", "strategy"), still_s={}, link="up", link_age_ms=5, link_down_s=None,
        last_tick=LastTick("SOL/USDC", 101.5, 9_500), last_stored_ms=9_600, stored_age_s=0.4,
        book=Book(1, 0.3, 30.45, 1.234, unit="USD"), counters=dict.fromkeys(COUNTERS, 0),
        depths={"tick": 0, "signal": 0, "persist": 0}, commit_ms=0.5, breakers=BreakersView(),
    )  # fmt: skip
    return replace(status, **changes)


class TestProgress:
    def test_a_busy_stage_that_comes_no_further_is_told_after_its_time(self) -> None:
        progress = StallTimer()
        assert progress.look(0.0, [StageProgress("persist", True, 1, 10.0)]) == {}
        assert progress.look(10.0, [StageProgress("persist", True, 1, 10.0)]) == {}
        assert progress.look(10.5, [StageProgress("persist", True, 1, 10.0)]) == {"persist": 10.5}

    def test_coming_further_or_having_nothing_to_do_starts_its_time_anew(self) -> None:
        progress = StallTimer()
        progress.look(0.0, [StageProgress("a", True, 1, 10.0), StageProgress("b", True, 1, 10.0)])
        progress.look(9.0, [StageProgress("a", True, 2, 10.0), StageProgress("b", False, 1, 10.0)])
        assert progress.look(18.0, [StageProgress("a", True, 2, 10.0), StageProgress("b", True, 1, 10.0)]) == {}
        assert progress.look(19.5, [StageProgress("a", True, 2, 10.0), StageProgress("b", True, 1, 10.0)]) == {
            "a": 10.5,
            "b": 10.5,
        }

    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 1)), min_size=1, max_size=50))
    def test_it_is_told_exactly_when_all_looks_of_its_time_were_alike(self, looks: list[tuple[bool, int]]) -> None:
        progress = StallTimer()
        since = 0
        for now, (busy, reached) in enumerate(looks):
            told = progress.look(float(now), [StageProgress("x", busy, reached, 3.0)])
            if not busy or now == 0 or looks[now - 1][1] != reached:
                since = now
            assert bool(told) == (now - since > 3)


class TestStatusFile:
    def test_what_was_written_is_read(self, tmp_path: Path) -> None:
        path = status_path(tmp_path / "a.db")
        assert read_status(path) is None
        write_status(path, status_of())
        write_status(path, status_of(pid=8))
        assert read_status(path) == status_of(pid=8)
        assert [entry.name for entry in tmp_path.iterdir()] == ["a.db.status.json"]

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"format": 1}'])
    def test_damage_is_said_with_what_to_do(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "x.status.json"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"status file .*x.status.json: .*next start"):
            read_status(path)

    def test_fresh_and_alive(self) -> None:
        status = status_of()
        assert status.fresh(110.0) and not status.fresh(110.1)
        assert not status.fresh(99.0), "written after another boot's clock"
        assert status.ingest_alive(101.0)
        assert replace(status, link=None).ingest_alive(101.0)
        for change in ({"link": "down"}, {"running": ("persist",)}, {"still_s": {"ingest": 50.0}}, {"state": "ended"}):
            assert not replace(status, **change).ingest_alive(101.0), change


class TestThrottleFile:
    def test_what_was_written_is_read(self, tmp_path: Path) -> None:
        path = throttle_path(tmp_path / "a.db")
        assert read_throttle(path) is None
        write_throttle(path, Throttle(5, "THROTTLE1", 1))
        assert read_throttle(path) == Throttle(5, "THROTTLE1", 1)
        path.chmod(0o620)
        with pytest.raises(ConfigError, match=r"other users can change it \(mode 0620\); remove it to keep all ticks"):
            read_throttle(path)
        path.unlink()
        os.mkfifo(path)  # opening it would wait for a writer
        with pytest.raises(ConfigError, match="is not a regular file; remove it to keep all ticks"):
            read_throttle(path)

    @pytest.mark.parametrize(
        "content", [b"", b"{}", b"5", b'{"sample_every":0,"state":"","written_ms":0}', b'{"sample_every":5,"x":1}']
    )
    def test_damage_is_said_with_what_to_do(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "x.throttle.json"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="remove it to keep all ticks"):
            read_throttle(path)


class TestNotifier:
    @pytest.mark.parametrize("abstract", [False, True])
    def test_datagrams_as_systemd_reads_them(self, tmp_path: Path, abstract: bool) -> None:
        name = f"@tradebot-test-{tmp_path.name}-{id(tmp_path)}" if abstract else str(tmp_path / "n")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind("\0" + name[1:] if abstract else name)
            manager.settimeout(5)
            notifier = find_notifier({"NOTIFY_SOCKET": name})
            notifier.ready()
            notifier.status("one\nREADY=0 two")
            notifier.alive()
            notifier.stopping()
            notifier.close()
            said = [manager.recv(1000) for _ in range(4)]
        assert said == [b"READY=1", b"STATUS=one READY=0 two", b"WATCHDOG=1", b"STOPPING=1"]

    def test_a_manager_that_is_gone_or_does_not_read_holds_nobody_up(self, tmp_path: Path) -> None:
        lost = SystemdNotifier(str(tmp_path / "gone"))
        lost.ready()
        lost.close()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(tmp_path / "n"))
            notifier = SystemdNotifier(str(tmp_path / "n"))
            for _ in range(2000):
                notifier.status("x" * 200)
            notifier.close()

    @pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
    def test_without_a_manager_nobody_is_told(self, environ: dict[str, str]) -> None:
        assert isinstance(find_notifier(environ), NoManager)


def test_a_status_file_of_the_first_release_is_read() -> None:
    """Its amounts were all called USD, whatever they were: now nothing says what their unit is."""
    status = read_status(REPO / "fixtures" / "schema3" / "push.db.status.json")
    assert status is not None and status.book == Book(2, -0.1, 20.0, -2.222, unit="unit unknown")


def test_the_line_for_people() -> None:
    counters = dict.fromkeys(COUNTERS, 0) | {"persist_count": 42, "refused": 1, "bp_drops_signal": 2}
    seen = status_of(
        counters=counters, written_ms=1_700_000_010_000, last_tick=LastTick("SOL/USDC", 101.5, 1_700_000_009_500)
    )
    assert status_line(seen) == (
        "SHADOW mockws, SOL/USDC 101.50, last tick 0.5 s ago, position 0.30, profit +1.2340 USD, 42 stored, 3 dropped"
    )
    in_seconds = replace(seen, last_tick=LastTick("A", 1.0, 1_700_000_008))
    assert "last tick 2.0 s ago" in status_line(in_seconds)
    worse = status_of(
        link="down", link_down_s=12.3, last_tick=None, sample_every=5, state="draining", still_s={"persist": 60.0}
    )
    assert status_line(worse) == (
        "SHADOW mockws, no tick yet, position 0.30, profit +1.2340 USD, 0 stored, 0 dropped, LINK DOWN for 12 s,"
        " 1 of 5 ticks kept, draining, STALLED: persist"
    )


class Looking:
    """Sees the same status whenever it looks."""

    def look(self, exit_code: int | None = None) -> Status:
        return status_of(exit_code=exit_code)


@pytest.mark.parametrize("left", [b"\x00\xff", b"{}", b'{"format":' + b"[" * 50_000, None])
def test_an_unreadable_status_file_is_reported_and_replaced(tmp_path: Path, left: bytes | None) -> None:
    path = tmp_path / "x.db.status.json"
    if left is None:
        os.mkfifo(path)
    else:
        path.write_bytes(left)
    runtime, logged = RealRuntime(), Logged()
    beacon = Publisher(path, cast(Observer, Looking()), NoManager(), runtime, logged.log)
    beacon.poll()
    beacon.end(0)
    logged.log.close()
    told = logged.one(LogEvent.STATUS_REPLACED)
    assert str(path) in told["detail"]
    assert read_status(path) == status_of(exit_code=0)


def test_a_first_status_file_is_no_news(tmp_path: Path) -> None:
    logged = Logged()
    Publisher(tmp_path / "s.json", cast(Observer, Looking()), NoManager(), RealRuntime(), logged.log).end(0)
    logged.log.close()
    assert logged.lines() == []


def test_amounts_beyond_the_largest_double_can_be_stored_and_read(tmp_path: Path) -> None:
    """Files of earlier versions hold prices up to the largest double."""
    beyond = finite(Decimal("1e400"))
    huge = PositionView("A", 1.0, 1e308, 1e308, beyond, beyond, beyond, 1.0)
    book = book_of([huge, huge._replace(symbol="B")], "A", money_of())
    assert book.exposure == book.profit == sys.float_info.max
    path = tmp_path / "s.json"
    write_status(path, status_of(book=book, last_tick=LastTick("A", 1.7e308, 2**63 - 1)))
    status = read_status(path)
    assert status is not None and status.book == book
    assert "profit" in status_line(status)
    assert finite(Decimal("-1e400")) == -sys.float_info.max
