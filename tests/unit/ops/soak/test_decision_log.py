"""The file of decisions: whole lines, on disk at once, bounded, and never two supervisors."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tradebot.core.errors import ConfigError, UsageError
from tradebot.ops.soak.decision_log import DecisionLog, SoakDecision, SoakLock, check_apart, decisions_path
from tradebot.ops.soak.psi import Pressure

DECISION = SoakDecision(
    timestamp="2026-01-02T03:04:05.678Z", ts_ms=1_767_323_045_678, state="THROTTLE1", action="ENGINE_RESTART",
    reason="Throttling up", pressure=Pressure(cpu_some_raw="some avg10=48.00", cpu_some_avg10=48.0),
    seconds_since_progress=1.5, seconds_since_tick=2.5, sample_every=5, restarts=1, stalls=0, engine_starts=1,
    unit_state="active", detail=None,
)  # fmt: skip


def lines(path: Path) -> list[dict[str, Any]]:
    """All lines, each of which must be a JSON object."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_has_all_fields_flat(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "d.jsonl")
    log.write(DECISION)
    log.close()
    (line,) = lines(log.path)
    assert list(line)[:5] == ["timestamp", "ts_ms", "state", "action", "reason"]
    assert (line["cpu_some_raw"], line["cpu_some_avg10"]) == ("some avg10=48.00", 48.0)
    assert line["io_full_raw"] is None and line["io_full_avg10"] is None
    assert line["seconds_since_progress"] == 1.5 and "pressure" not in line
    assert not {"cause", "withheld"} & line.keys(), "for code: the file has them in words"
    assert len(line) == len(SoakDecision.__struct_fields__) - 3 + len(Pressure.__struct_fields__)


def test_a_file_that_somebody_removed_is_made_anew(tmp_path: Path) -> None:
    """Found by hand: decisions went into a file that nobody could open any more."""
    log = DecisionLog(tmp_path / "d.jsonl")
    log.write(DECISION)
    log.path.unlink()
    log.write(DECISION)
    log.close()
    assert len(lines(log.path)) == 1


def test_each_line_is_synced_before_the_next_thing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = DecisionLog(tmp_path / "d.jsonl")
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda _fd: synced.append(len(lines(log.path))))
    log.write(DECISION)
    log.write(DECISION)
    log.close()
    assert synced == [1, 2]


def test_it_appends_and_a_torn_line_stays_alone(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"timestamp": 1}\n{"torn'.replace(": ", ":"))
    log = DecisionLog(path)
    log.write(DECISION)
    log.close()
    first, torn, last = path.read_text().splitlines()
    assert (json.loads(first), torn) == ({"timestamp": 1}, '{"torn')
    assert json.loads(last)["state"] == "THROTTLE1"


@pytest.mark.parametrize("content", [b"SQLite format 3\x00 and more", b"# notes\n", b'{"price":1}\n'])
def test_a_file_of_something_else_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    """Found by a newcomer: decisions were appended to the database, and a large one was rotated away."""
    path = tmp_path / "d.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="does not contain decisions"):
        DecisionLog(path, bytes_max=1)
    assert path.read_bytes() == content
    path.rename(tmp_path / "e.jsonl.1")
    with pytest.raises(UsageError, match=r"e\.jsonl\.1 does not contain decisions"):
        DecisionLog(tmp_path / "e.jsonl", bytes_max=1)


@pytest.mark.parametrize("torn", [b"", b"{", b'{"timest', b'{"timestamp":"2026-'])
def test_a_first_line_that_a_crash_has_torn_is_ours(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(torn)
    log = DecisionLog(path)
    log.write(DECISION)
    log.close()
    assert json.loads(path.read_text().splitlines()[-1])["state"] == "THROTTLE1"


def test_files_of_the_database_take_no_decisions(tmp_path: Path) -> None:
    db = tmp_path / "x.db"
    db.touch()
    (tmp_path / "link").symlink_to(db)
    (tmp_path / "hard").hardlink_to(db)
    for name in ("hard", "x.db", "x.db-wal", "x.db.throttle.json", "x.db.status.json", "link"):
        with pytest.raises(UsageError, match="belongs to the database"):
            check_apart(tmp_path / name, db)
    check_apart(decisions_path(db), db)


def test_files_are_bounded_and_nothing_between_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    for part in range(2):  # as by two supervisors, one after the other
        log = DecisionLog(path, bytes_max=4 * len(DECISION.as_line()), files_kept=2)
        for number in range(25):
            log.write(replace(DECISION, ts_ms=DECISION.ts_ms + 100 * part + number))
        log.close()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["d.jsonl", "d.jsonl.1", "d.jsonl.2"]
    kept = [
        line["ts_ms"] - DECISION.ts_ms
        for name in ("d.jsonl.2", "d.jsonl.1", "d.jsonl")
        for line in lines(tmp_path / name)
    ]
    assert kept == list(range(125 - len(kept), 125)) and 8 < len(kept) <= 12


@pytest.fixture
def small_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_after_a_full_disk_lines_are_whole_again(tmp_path: Path, small_files: None) -> None:
    log = DecisionLog(tmp_path / "d.jsonl")
    log.write(DECISION)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.path.stat().st_size + 10, hard))
    for _ in range(2):
        with pytest.raises(OSError):
            log.write(DECISION)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    log.write(DECISION)
    log.close()
    written = log.path.read_text().splitlines()
    assert [json.loads(line)["restarts"] for line in (written[0], written[-1])] == [1, 1]


def test_what_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a regular file"):
        DecisionLog(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        DecisionLog(tmp_path / "file" / "d.jsonl")


def test_beside_the_database_under_whatever_name(tmp_path: Path) -> None:
    (tmp_path / "real.db").write_text("")
    (tmp_path / "link.db").symlink_to("real.db")
    assert decisions_path(tmp_path / "link.db") == decisions_path(tmp_path / "real.db")


def test_one_supervisor_a_database(tmp_path: Path) -> None:
    lock = SoakLock(tmp_path / "x.db")
    with pytest.raises(ConfigError, match="another soak"):
        SoakLock(tmp_path / "x.db")
    lock.release()
    lock.release()
    SoakLock(tmp_path / "x.db").release()
