"""Replay from files, pipes and databases: equal results in every form, and errors that say what is wrong."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from tradebot.core.cancellation import Cancellation, Cancelled
from tradebot.core.errors import ConfigError, ExitCode, ParseError, UnreadableNow
from tradebot.core.events import Tick
from tradebot.core.runtime import RealRuntime
from tradebot.feeds.base import Feed, FeedBatch, Malformed
from tradebot.feeds.replay import byte_source as source
from tradebot.feeds.replay.byte_source import BLOCK_BYTES
from tradebot.feeds.replay.feed import DatabaseReplay, FileReplay

GOOD = b'{"symbol":"a","price":1.5,"volume":2,"ts":%d}\n'
NEVER = Cancellation(RealRuntime())
CONTENT = b"".join(GOOD % number for number in range(5000)) + b"?\n" + GOOD % 5000
TICKS = [Tick("a", 1.5, 2.0, number) for number in range(5001)]


def _drain(feed: Feed) -> FeedBatch:
    """All that a feed gives until it ends; then it stays ended."""
    whole = FeedBatch([])
    while (batch := feed.read()) is not None:
        whole.ticks += batch.ticks
        whole.malformed += batch.malformed
        whole.notes += batch.notes
    assert feed.read() is None
    return whole


def _drain_until(feed: Feed, kind: type[Exception]) -> tuple[list[Tick], int, str]:
    """What a feed gives before it raises `kind`, its malformed count, and the error's text; it goes on raising."""
    ticks: list[Tick] = []
    malformed = 0
    with pytest.raises(kind) as caught:
        while True:
            batch = feed.read()
            assert batch is not None, "the feed ended without an error"
            ticks += batch.ticks
            malformed += batch.malformed
    with pytest.raises(kind):
        feed.read()
    return ticks, malformed, str(caught.value)


@contextlib.contextmanager
def _open(path: Path | str, *, strict: bool = False) -> Iterator[FileReplay]:
    feed = FileReplay(str(path), strict=strict)
    try:
        yield feed
    finally:
        feed.close()
        feed.close()


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gz": gzip.compress,
    "zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_file_gives_the_same_ticks_and_digest(form: str, tmp_path: Path) -> None:
    """S8: told by content, not by name; the digest is that of the decompressed content."""
    path = tmp_path / "session.log"
    path.write_bytes(FORMS[form](CONTENT))
    with _open(path) as feed:
        assert feed.content_digest(NEVER) == hashlib.sha256(CONTENT).hexdigest()
        assert (feed.position, feed.total) == (0, path.stat().st_size)
        assert not feed.push
        found = _drain(feed)
        assert feed.position == feed.total
    assert found.ticks == TICKS
    assert (found.malformed, found.notes) == (1, (Malformed(5001, "JSON is malformed: invalid character (byte 0)"),))


def test_reads_are_small(tmp_path: Path) -> None:
    """Nothing of the file but a block is in memory at a time."""
    path = tmp_path / "m.jsonl"
    path.write_bytes(CONTENT)
    with _open(path) as feed:
        batch = feed.read()
        assert batch is not None
        assert 0 < len(batch.ticks) <= BLOCK_BYTES // 40
        assert feed.position == BLOCK_BYTES


def test_an_empty_file_ends_at_once(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.touch()
    with _open(path) as feed:
        assert feed.content_digest(NEVER) == hashlib.sha256(b"").hexdigest()
        assert _drain_until(feed, ParseError) == ([], 0, f"{path}: no line is a tick: it is empty")


def test_an_array_with_an_element_a_line_is_refused(tmp_path: Path) -> None:
    """Only its last element is a tick line; then the run did not read what the file holds."""
    path = tmp_path / "m.json"
    element = '{"symbol":"A","price":1,"volume":1,"ts":%d}'
    path.write_text("[\n" + ",\n".join(element % ts for ts in range(9)) + "\n]\n")
    with _open(path) as feed:
        ticks, malformed, message = _drain_until(feed, ParseError)
    assert ([tick.ts for tick in ticks], malformed) == ([8], 10)
    assert "only the last line is a tick: it looks like one JSON array" in message
    path.write_text("[\nnoise\n" + "".join(element % ts + "\n" for ts in range(9)))
    with _open(path) as feed:
        assert len(_drain(feed).ticks) == 9


@pytest.mark.parametrize("form", FORMS)
def test_a_file_of_random_bytes_is_counted_and_refused(form: str, tmp_path: Path) -> None:
    path = tmp_path / "noise"
    path.write_bytes(FORMS[form](b"\x00" + os.urandom(200_000)))
    with _open(path) as feed:
        ticks, malformed, message = _drain_until(feed, ParseError)
    assert ticks == []
    assert malformed > 100
    assert "no line is a tick: it looks like binary data" in message
    with _open(path, strict=True) as feed:
        assert _drain_until(feed, ParseError)[1] == 1


@pytest.mark.parametrize("form", ["gz", "zst"])
def test_a_truncated_file_keeps_what_is_good_and_says_where_it_ends(form: str, tmp_path: Path) -> None:
    line = b'{"symbol":"a","price":1.5,"volume":0.%d,"ts":%d}\n'
    lines = b"".join(line % (zlib.crc32(b"%d" % n), n) for n in range(20_000))
    packed = FORMS[form](lines)
    path = tmp_path / "m"
    path.write_bytes(packed[: len(packed) * 3 // 4])
    with _open(path) as feed:
        digest = feed.content_digest(NEVER)
        found = _drain(feed)
        assert digest is not None
    assert 5000 < len(found.ticks) < 20_000
    assert [tick.ts for tick in found.ticks] == list(range(len(found.ticks)))
    assert found.malformed == 1
    assert found.notes[0].line == len(found.ticks) + 1
    assert "cut off after" in found.notes[0].reason
    with _open(path, strict=True) as feed:
        ticks, malformed, text = _drain_until(feed, ParseError)
    assert (ticks, malformed) == (found.ticks, 1)
    assert "cut off after" in text


@pytest.mark.parametrize("form", FORMS)
def test_strict_raises_after_the_good_ticks_before_the_line(form: str, tmp_path: Path) -> None:
    """G5: exit 11, naming file, line and reason; nothing good before it is lost, and the line itself is counted."""
    path = tmp_path / "m.jsonl"
    path.write_bytes(FORMS[form](CONTENT))
    with _open(path, strict=True) as feed:
        ticks, malformed, text = _drain_until(feed, ParseError)
    assert ticks == TICKS[:5000]
    assert malformed == 1
    assert text.startswith(f"{path}:5001: JSON is malformed")
    assert ParseError.exit_code is ExitCode.PARSE


def test_strict_accepts_a_good_file(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(GOOD % 0 + b"\n" + GOOD % 1)
    with _open(path, strict=True) as feed:
        assert _drain(feed) == FeedBatch(TICKS[:2])


def test_what_is_appended_after_opening_is_not_read_and_the_end_says_so(tmp_path: Path) -> None:
    """S8: the digest names the content that was replayed, and nothing else is."""
    path = tmp_path / "m.jsonl"
    path.write_bytes(GOOD % 0)
    with _open(path) as feed:
        digest = feed.content_digest(NEVER)
        with path.open("ab") as more:
            more.write(GOOD % 1)
        assert feed.content_digest(NEVER) == digest
        ticks, malformed, text = _drain_until(feed, ParseError)
    assert (ticks, malformed) == (TICKS[:1], 0)
    assert "changed while it was replayed" in text


@pytest.mark.parametrize("content", [b"", GOOD % 7])
def test_a_file_overwritten_meanwhile_ends_in_an_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(GOOD % 0)
    os.utime(path, ns=(1, 1))
    with _open(path) as feed:
        feed.content_digest(NEVER)
        path.write_bytes(content)
        assert "changed while it was replayed" in _drain_until(feed, ParseError)[2]


def test_a_file_replaced_by_another_is_read_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(GOOD % 0)
    with _open(path) as feed:
        path.rename(tmp_path / "old.jsonl")
        path.write_bytes(GOOD % 1)
        assert _drain(feed).ticks == TICKS[:1]


class ThirdTime(Cancellation):
    """Requested when it is polled for the third time."""

    polls = 0

    def is_requested(self) -> bool:
        self.polls += 1
        return self.polls == 3


def test_hashing_ends_when_that_is_requested(tmp_path: Path) -> None:
    """S13."""
    path = tmp_path / "m.jsonl"
    path.write_bytes(CONTENT)
    with _open(path) as feed, pytest.raises(Cancelled):
        feed.content_digest(ThirdTime(RealRuntime()))


def test_missing_directory_and_strange_paths_are_configuration_errors(tmp_path: Path) -> None:
    """G5: exit 12 with the path and what is wrong with it."""
    for path, what in {
        str(tmp_path / "none.jsonl"): "No such file.*--replay-file",
        str(tmp_path): "is a directory",
        "": "No such file",
        "a\0b": "null",
        str(tmp_path / ("x" * 5000)): "too long",
    }.items():
        with pytest.raises(ConfigError, match=what):
            FileReplay(path)
    assert ConfigError.exit_code is ExitCode.CONFIG


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_a_configuration_error(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.touch(0o000)
    with pytest.raises(ConfigError, match="Permission denied"):
        FileReplay(str(path))


def test_a_failing_read_is_a_configuration_error_after_the_good_ticks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(CONTENT)
    pread = os.pread

    def failing(fd: int, count: int, place: int) -> bytes:
        if place >= BLOCK_BYTES:
            raise OSError(5, "Input/output error")
        return pread(fd, count, place)

    monkeypatch.setattr(os, "pread", failing)
    with _open(path) as feed:
        ticks, _, text = _drain_until(feed, UnreadableNow)
    assert ticks == TICKS[: len(ticks)]
    assert len(ticks) > 1000
    assert text == f"{path}: cannot be read after byte {BLOCK_BYTES}: Input/output error"
    assert UnreadableNow.exit_code is ExitCode.OVERLOAD, "it can pass, so a service is started again"


class _Pipe:
    """A pipe whose reading end stands in for standard input."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.out, self.into = os.pipe()
        monkeypatch.setattr(source, "_STDIN_FD", self.out)
        # So that "nothing came" is known at once instead of after half a second.
        monkeypatch.setattr(source, "READ_WAIT_S", 0.0)


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Pipe]:
    pipe = _Pipe(monkeypatch)
    yield pipe
    os.close(pipe.out)


@pytest.mark.parametrize("form", FORMS)
def test_standard_input_gives_ticks_as_they_come(form: str, pipe: _Pipe) -> None:
    """A silent pipe gives empty batches, so that a stop is noticed; packed input is told by content here too."""
    content = b"".join(GOOD % number for number in range(100)) + b"?"
    packed = FORMS[form](content)
    ticks: list[Tick] = []
    with _open("-") as feed:
        assert feed.content_digest(NEVER) is None
        assert feed.total is None
        for place in range(0, len(packed), 50):
            os.write(pipe.into, packed[place : place + 50])
            while (batch := feed.read()) != FeedBatch([]):
                assert batch is not None
                ticks += batch.ticks
            assert feed.read() == FeedBatch([])
        if form == "plain":
            assert ticks == TICKS[:100]
        os.close(pipe.into)
        rest = _drain(feed)
        assert feed.position == len(packed)
    assert ticks + rest.ticks == TICKS[:100]
    assert [note.line for note in rest.notes] == [101]
    os.fstat(pipe.out)  # close() leaves standard input open


def test_strict_on_standard_input_names_it(pipe: _Pipe) -> None:
    os.write(pipe.into, GOOD % 0 + b"?\n")
    os.close(pipe.into)
    with _open("-", strict=True) as feed:
        ticks, _, text = _drain_until(feed, ParseError)
    assert ticks == TICKS[:1]
    assert text.startswith("standard input:2: ")


def test_closed_standard_input_and_a_directory_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    monkeypatch.setattr(source, "_STDIN_FD", fd)
    with pytest.raises(ConfigError, match="is a directory"):
        FileReplay("-")
    os.close(fd)
    with pytest.raises(ConfigError, match="closed"):
        FileReplay("-")


def test_a_file_as_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(CONTENT)
    with path.open("rb") as file:
        monkeypatch.setattr(source, "_STDIN_FD", file.fileno())
        with _open("-") as feed:
            assert feed.content_digest(NEVER) is None
            assert _drain(feed).ticks == TICKS


def test_a_named_pipe_is_a_stream_that_may_wait_for_its_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening never blocks, and no writer yet is not the end."""
    monkeypatch.setattr(source, "READ_WAIT_S", 0.0)
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with _open(path) as feed:
        assert feed.content_digest(NEVER) is None
        assert [feed.read() for _ in range(3)] == [FeedBatch([])] * 3
        with path.open("wb", buffering=0) as writer:
            writer.write(GOOD % 0)
            first = feed.read()
        assert first == FeedBatch(TICKS[:1]) or _drain(feed).ticks == TICKS[:1]
        assert _drain(feed) == FeedBatch([])


def test_database_replay_hands_on_the_chunks_and_counts_rows() -> None:
    closed = []

    def rows() -> Iterator[list[Tick]]:
        try:
            yield TICKS[:3]
            yield TICKS[3:5]
            yield TICKS[5:7]
        finally:
            closed.append(True)

    chunks = rows()  # held here, so that only close() can end it
    feed = DatabaseReplay(chunks, 7)
    assert not feed.push
    assert (feed.position, feed.total) == (0, 7)
    assert feed.read() == FeedBatch(TICKS[:3])
    assert feed.position == 3
    assert feed.read() == FeedBatch(TICKS[3:5])
    feed.close()
    feed.close()
    assert closed == [True]
    assert feed.read() is None


def test_database_replay_ends() -> None:
    assert _drain(DatabaseReplay(iter([TICKS[:3], TICKS[3:4]]), 4)).ticks == TICKS[:4]
