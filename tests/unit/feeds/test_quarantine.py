"""The quarantine file: what could not be understood is kept, within bounds, and never disturbs the feed."""

from __future__ import annotations

import base64
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradebot.feeds.quarantine import FRAME_BYTES_MAX, REASON_CHARS_MAX, Quarantine, _line, quarantine_path

SMALL = 1 << 15


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_frame_is_kept_as_it_came(tmp_path: Path) -> None:
    kept = Quarantine(tmp_path / "q")
    assert kept.keep('{"price": "ü\n"', 1_700_000_000_123, "not JSON") is None
    kept.close()
    assert records(tmp_path / "q") == [
        {"received_ms": 1_700_000_000_123, "reason": "not JSON", "bytes": 15, "text": '{"price": "ü\n"'}
    ]


def test_binary_that_is_text_is_kept_as_text_and_other_as_base64(tmp_path: Path) -> None:
    kept = Quarantine(tmp_path / "q")
    kept.keep("prix élevé".encode(), 1, "a")
    kept.keep(b"\xff\x00garbage", 2, "b")
    first, second = records(tmp_path / "q")
    assert first["text"] == "prix élevé"
    assert base64.b64decode(second["base64"]) == b"\xff\x00garbage"
    assert second["bytes"] == 9
    assert "text" not in second


@pytest.mark.parametrize(("frame", "held"), [("x" * 10_000, FRAME_BYTES_MAX), ("a" + "é" * 5000, FRAME_BYTES_MAX - 1)])
def test_a_long_frame_is_cut_and_its_length_told(tmp_path: Path, frame: str, held: int) -> None:
    kept = Quarantine(tmp_path / "q")
    kept.keep(frame, 1, "r" * 10_000)
    (record,) = records(tmp_path / "q")
    assert record["bytes"] == len(frame.encode())
    assert frame.startswith(record["text"])
    assert len(record["text"].encode()) == held
    assert len(record["reason"]) == REASON_CHARS_MAX


def test_the_file_is_made_with_the_first_frame(tmp_path: Path) -> None:
    kept = Quarantine(tmp_path / "q")
    kept.close()
    assert list(tmp_path.iterdir()) == []


def test_it_goes_on_where_an_earlier_run_stopped(tmp_path: Path) -> None:
    for frame in ("one", "two"):
        kept = Quarantine(tmp_path / "q")
        kept.keep(frame, 1, "r")
        kept.close()
        kept.close()
    assert [record["text"] for record in records(tmp_path / "q")] == ["one", "two"]


def test_at_most_twice_the_bound_is_on_disk_always_with_the_newest(tmp_path: Path) -> None:
    kept, path, old = Quarantine(tmp_path / "q", SMALL), tmp_path / "q", tmp_path / "q.1"
    for number in range(100):
        kept.keep(f"{number:04d}" + "x" * 3000, number, "r")
        sizes = [place.stat().st_size for place in (path, old) if place.exists()]
        assert max(sizes) <= SMALL
    assert sorted(tmp_path.iterdir()) == [path, old]
    numbers = [record["received_ms"] for place in (old, path) for record in records(place)]
    assert numbers == list(range(numbers[0], 100))
    assert len(records(old)) == 10
    assert len(numbers) > 10


def test_trouble_with_the_disk_is_told_once_and_never_raised(tmp_path: Path) -> None:
    directory = tmp_path / "missing"
    kept = Quarantine(directory / "q")
    assert kept.keep("a", 1, "r") == (
        f"quarantine file {directory / 'q'}: No such file or directory; malformed frames are not saved"
    )
    assert kept.keep("b", 2, "r") is None
    told = kept.error
    assert told is not None
    directory.mkdir()
    assert kept.keep("c", 3, "r") is None
    told = kept.error
    assert told is None
    assert [record["text"] for record in records(directory / "q")] == ["c"]
    kept.close()
    (directory / "q").unlink()
    (directory / "q").mkdir()
    assert "Is a directory" in str(kept.keep("d", 4, "r"))


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Quarantine(tmp_path / "q")
    kept.keep("good", 1, "r")
    write, room = os.write, [10]

    def full(descriptor: int, data: bytes) -> int:
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[: room.pop()])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        assert "No space left on device" in str(kept.keep("lost", 2, "r"))
    kept.keep("again", 3, "r")
    assert [record["text"] for record in records(tmp_path / "q")] == ["good", "again"]


def test_a_named_pipe_in_its_place_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "q")
    assert Quarantine(tmp_path / "q").keep("a", 1, "r") is not None


def test_it_lies_beside_the_database(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "real" / "t.db")
    assert quarantine_path(tmp_path / "link.db") == tmp_path / "real" / "t.db.quarantine.jsonl"


def test_a_bound_below_a_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bytes_max"):
        Quarantine(tmp_path / "q", SMALL - 1)


@given(st.binary(max_size=100) | st.text(st.characters(exclude_categories=())), st.integers(1, 9000), st.text())
def test_any_frame_is_one_bounded_line(frame: bytes | str, times: int, reason: str) -> None:
    """Lone surrogates and control characters included."""
    line = _line(frame * times if isinstance(frame, str) else frame * min(times, 200), 1, reason * 100)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert len(line) <= SMALL
    assert json.loads(line)["received_ms"] == 1
