"""The capture format: what was written can be read, up to the last flush; files are bounded and never overwritten."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradebot.core.errors import ConfigError
from tradebot.feeds import capture_file
from tradebot.feeds.capture_file import (
    CaptureFailed,
    CaptureHeader,
    CaptureWriter,
    Record,
    decode_record,
    frame_of_line,
)
from tradebot.feeds.exchanges.base import Unparseable
from tradebot.feeds.replay.decompress import unpack

STARTED_MS = 1_700_000_000_000
HEADER = CaptureHeader(1, "kraken", ("BTC/USD", "ETH/USD"), STARTED_MS)
HEADER_LINE = b'{"tradebot_capture":1,"exchange":"kraken","symbols":["BTC/USD","ETH/USD"],"started_ms":1700000000000}'


def writer(path: Path, bytes_max: int = 1 << 20, files_max: int = 8) -> CaptureWriter:
    return CaptureWriter(path, "kraken", ["BTC/USD", "ETH/USD"], STARTED_MS, bytes_max, files_max)


def lines(path: Path) -> list[bytes]:
    """The lines of a capture file as a replay reads it, at whatever moment."""
    return b"".join(unpack(iter([path.read_bytes()]))).splitlines()


def content(path: Path) -> list[Record | CaptureHeader | str]:
    return [frame_of_line(line) for line in lines(path)]


def names(directory: Path) -> list[str]:
    return sorted(place.name for place in directory.iterdir())


def incompressible(number: int) -> str:
    return f"{number:06d}" + os.urandom(1500).hex()


class TestLines:
    def test_the_format(self, tmp_path: Path) -> None:
        capture = writer(tmp_path / "c")
        capture.write(STARTED_MS + 5, 1, '{"p":"1,5 €"}\n')
        capture.close()
        assert lines(capture.path) == [
            HEADER_LINE,
            '{"received_ms":1700000000005,"connection":1,"text":"{\\"p\\":\\"1,5 €\\"}\\n"}'.encode(),
        ]

    def test_records_headers_and_raw_frames_are_told_apart(self) -> None:
        assert frame_of_line(HEADER_LINE) == HEADER
        assert frame_of_line(b'{"received_ms":5,"connection":2,"text":"pong"}\r') == Record(5, 2, "pong")
        raw = '{"e":"trade","p":"1.5 €"}'
        assert frame_of_line(raw.encode() + b"\r") == raw
        assert decode_record(raw.encode()) is None
        for other in ("pong", "", "[]", '[0,"hb"]', "{", '{"text":"x"}'):
            assert frame_of_line(other.encode()) == other

    def test_order_spaces_and_further_fields_do_not_matter(self) -> None:
        """A capture may have been through another program."""
        line = b' { "connection": 2, "received_ms" : 5 , "text": "x", "note": [1] } '
        assert frame_of_line(line) == Record(5, 2, "x")

    def test_a_raw_frame_may_mention_our_names(self) -> None:
        for raw in (
            '{"data":{"received_ms":5}}',
            '["received_ms"]',
            '{"id":1,"received_ms":"5"}',
            '{"say":"tradebot_capture"}',
            '{"e":"tradebot_capture"',
        ):
            assert frame_of_line(raw.encode()) == raw

    @pytest.mark.parametrize(
        "line",
        [
            b'{"received_ms":5,"connection":1,"te',
            b'{"received_ms":5,"connection":1}',
            b' { "received_ms" :"5","connection":1,"text":"x"}',
            b'{"received_ms":-5,"connection":1,"text":"x"}',
            b'{"tradebot_capture":1,"exchange":"kraken"}',
        ],
    )
    def test_a_damaged_line_of_ours_is_no_raw_frame(self, line: bytes) -> None:
        with pytest.raises(Unparseable, match="damaged"):
            frame_of_line(line)

    def test_another_format_is_refused(self) -> None:
        line = HEADER_LINE.replace(b'"tradebot_capture":1', b'"tradebot_capture":2')
        with pytest.raises(Unparseable, match="capture format 2 is not supported; this version reads format 1"):
            frame_of_line(line)

    def test_bytes_that_are_no_text_are_refused(self) -> None:
        with pytest.raises(Unparseable, match=r"not UTF-8 \(byte 2\)"):
            frame_of_line(b'{"\xff"}')

    def test_deep_nesting_is_no_crash(self) -> None:
        deep = '{"received_ms":' + "[" * 100_000
        with pytest.raises(Unparseable):
            frame_of_line(deep.encode())

    @given(st.binary())
    def test_any_line_is_something_or_refused(self, line: bytes) -> None:
        try:
            found = frame_of_line(line)
        except Unparseable:
            return
        assert isinstance(found, Record | CaptureHeader | str)

    @given(st.integers(0, 2**63 - 1), st.integers(0, 2**31), st.text())
    def test_any_text_comes_back(self, received_ms: int, connection: int, text: str) -> None:
        record = Record(received_ms, connection, text)
        assert frame_of_line(msgspec.json.encode(record)) == record


class TestFlush:
    def test_a_flush_makes_the_file_whole_at_any_moment(self, tmp_path: Path) -> None:
        """As after kill -9: what was flushed is there, and the file is not damaged."""
        capture = writer(tmp_path / "c")
        assert content(capture.path) == [HEADER]
        expected: list[Record | CaptureHeader | str] = [HEADER]
        for number in range(5):
            capture.write(STARTED_MS + number, 1, f"frame {number}")
            assert content(capture.path) == expected
            capture.flush()
            capture.flush()
            expected.append(Record(STARTED_MS + number, 1, f"frame {number}"))
            assert content(capture.path) == expected
            assert capture.frames == number + 1

    def test_much_at_once_does_not_wait_in_memory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(capture_file, "PIECE_BYTES", 1000)
        capture = writer(tmp_path / "c")
        for number in range(100):
            capture.write(number, 1, "x" * 100)
        assert len(content(capture.path)) > 90

    def test_it_compresses(self, tmp_path: Path) -> None:
        capture = writer(tmp_path / "c")
        for number in range(1000):
            capture.write(number, 1, '{"e":"trade","s":"BTCUSDT","p":"100.5"}')
        capture.close()
        assert capture.path.stat().st_size < 20_000

    def test_close_flushes_and_is_idempotent(self, tmp_path: Path) -> None:
        capture = writer(tmp_path / "c")
        capture.write(1, 1, "x")
        capture.close()
        capture.close()
        assert content(capture.path) == [HEADER, Record(1, 1, "x")]


class TestFiles:
    def test_names(self, tmp_path: Path) -> None:
        assert writer(tmp_path).path == tmp_path / "kraken-000001.jsonl.zst"
        assert writer(tmp_path / "mine").path == tmp_path / "mine-000001.jsonl.zst"
        assert writer(tmp_path / "mine.jsonl.zst").path == tmp_path / "mine-000002.jsonl.zst"
        assert writer(tmp_path / "new" / "deep" / "x").path == tmp_path / "new" / "deep" / "x-000001.jsonl.zst"

    def test_numbers_continue_and_nothing_is_overwritten(self, tmp_path: Path) -> None:
        (tmp_path / "c-000041.jsonl.zst").write_bytes(b"earlier")
        for other in ("c-000099.jsonl", "cc-000098.jsonl.zst", "c-97.jsonl.zst", "c-0000096.jsonl.zst"):
            (tmp_path / other).write_bytes(b"other")
        assert writer(tmp_path / "c").path.name == "c-000042.jsonl.zst"
        assert (tmp_path / "c-000041.jsonl.zst").read_bytes() == b"earlier"
        (tmp_path / "c-1000000.jsonl.zst").write_bytes(b"million")
        assert writer(tmp_path / "c").path.name == "c-1000001.jsonl.zst"

    def test_size_and_number_are_bounded_and_the_newest_stay(self, tmp_path: Path) -> None:
        capture = writer(tmp_path / "c", bytes_max=10_000, files_max=3)
        for number in range(60):
            capture.write(number, 1, incompressible(number))
            capture.flush()
            assert len(names(tmp_path)) <= 3
        capture.close()
        assert max(place.stat().st_size for place in tmp_path.iterdir()) <= 10_000
        read: list[int] = []
        for name in names(tmp_path):
            header, *records = content(tmp_path / name)
            assert header == HEADER
            read += [record.received_ms for record in records if isinstance(record, Record)]
        assert read == list(range(read[0], 60))
        assert 6 <= len(read) <= 18

    def test_files_of_earlier_captures_count(self, tmp_path: Path) -> None:
        for _ in range(3):
            writer(tmp_path / "c", files_max=2).close()
        (tmp_path / "other-000001.jsonl.zst").write_bytes(b"")
        writer(tmp_path / "c", files_max=2).close()
        assert names(tmp_path) == ["c-000003.jsonl.zst", "c-000004.jsonl.zst", "other-000001.jsonl.zst"]

    def test_one_flush_longer_than_a_file_makes_a_file(self, tmp_path: Path) -> None:
        capture = writer(tmp_path / "c", bytes_max=1)
        for number in range(3):
            capture.write(number, 1, incompressible(number))
            capture.flush()
        assert [len(content(tmp_path / name)) for name in names(tmp_path)] == [2, 2, 2]

    def test_a_further_file_of_a_connection_begins_with_its_acks(self, tmp_path: Path) -> None:
        """Bitfinex says only there which channel is which: each file is read on its own."""
        capture = writer(tmp_path / "c", bytes_max=1)
        for connection in (1, 2):
            at_ms = 100 * connection
            capture.write(at_ms, connection, "ack")
            capture.repeat("ack")
            for number in range(1, 4):
                capture.write(at_ms + number, connection, f"trade {number}")
                if number > 1:
                    capture.flush()
        files = [content(place)[1:] for place in sorted(tmp_path.iterdir())]
        assert files == [
            [Record(100, 1, "ack"), Record(101, 1, "trade 1"), Record(102, 1, "trade 2")],
            [Record(103, 1, "ack"), Record(103, 1, "trade 3")],
            [Record(200, 2, "ack"), Record(201, 2, "trade 1"), Record(202, 2, "trade 2")],
            [Record(203, 2, "ack"), Record(203, 2, "trade 3")],
        ]

    def test_frames_of_two_connections_are_never_flushed_as_one(self, tmp_path: Path) -> None:
        """Else the frames of the first could come to stand in a file without its acks."""
        capture = writer(tmp_path / "c", bytes_max=1)
        capture.write(1, 1, "ack")
        capture.repeat("ack")
        capture.flush()
        capture.write(2, 1, "x")
        capture.write(3, 2, "y")
        capture.close()
        assert [content(place)[1:] for place in sorted(tmp_path.iterdir())] == [
            [Record(1, 1, "ack")],
            [Record(2, 1, "ack"), Record(2, 1, "x")],
            [Record(3, 2, "y")],
        ]

    def test_an_ack_that_filled_a_piece_is_repeated_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(capture_file, "PIECE_BYTES", 1)
        capture = writer(tmp_path / "c", bytes_max=1)
        capture.write(1, 1, "ack")
        capture.repeat("ack")
        capture.write(2, 1, "x")
        assert content(capture.path) == [HEADER, Record(2, 1, "ack"), Record(2, 1, "x")]

    def test_what_is_repeated_is_bounded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(capture_file, "REPEATED_CHARS_MAX", 30)
        capture = writer(tmp_path / "c", bytes_max=1)
        for number in range(100):
            capture.write(number, 1, "ack")
            capture.repeat("ack")
        capture.flush()
        capture.write(1, 1, "x")
        capture.flush()
        assert len(content(capture.path)) == 1 + 10 + 1


class TestTrouble:
    @pytest.mark.parametrize("name", ["file/c", "dir/c", "nul\0/c"])
    def test_a_place_that_cannot_be_written_is_told_at_once(
        self, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_bytes(b"")
        (tmp_path / "dir").mkdir()
        if name == "dir/c":

            def refuse(*_: object) -> int:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))

            monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(ConfigError, match=r"^capture file "):
            writer(tmp_path / name)

    def test_a_full_disk_ends_it_and_leaves_what_was_flushed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        capture = writer(tmp_path / "c")
        capture.write(1, 1, "good")
        capture.flush()
        capture.write(2, 1, "lost")
        capture.write(3, 1, "lost too")
        disk = Disk(room=10)
        monkeypatch.setattr(os, "write", disk.write)
        with pytest.raises(CaptureFailed, match="No space left on device; 1 frames were captured, 2 are lost"):
            capture.flush()
        capture.close()
        assert content(capture.path) == [HEADER, Record(1, 1, "good")]
        capture.write(4, 1, "late")
        with pytest.raises(CaptureFailed, match="is closed"):
            capture.flush()

    def test_no_room_for_a_first_file_leaves_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "write", Disk(room=10).write)
        with pytest.raises(ConfigError, match="No space left on device"):
            writer(tmp_path / "c")
        assert names(tmp_path) == []

    def test_a_number_taken_in_the_same_moment_is_not_overwritten(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = writer(tmp_path / "c")
        monkeypatch.setattr(os, "listdir", lambda _: [])
        with pytest.raises(ConfigError, match="File exists"):
            writer(tmp_path / "c")
        assert content(first.path) == [HEADER]

    @pytest.mark.parametrize(("bytes_max", "files_max"), [(0, 1), (1, 0)])
    def test_bounds_that_are_none_are_refused(self, tmp_path: Path, bytes_max: int, files_max: int) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            writer(tmp_path / "c", bytes_max, files_max)


class Disk:
    """`os.write` of a disk that takes `room` more bytes."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._write = os.write

    def write(self, descriptor: int, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = self._write(descriptor, data[: self.room])
        self.room -= taken
        return taken


def test_the_files_are_plain_zstandard(tmp_path: Path) -> None:
    """Any zstd program reads them."""
    import zstandard

    capture = writer(tmp_path / "c")
    capture.write(1, 1, "x")
    capture.flush()
    capture.write(2, 1, "y")
    capture.close()
    with zstandard.ZstdDecompressor().stream_reader(
        io.BytesIO(capture.path.read_bytes()), read_across_frames=True
    ) as r:
        assert r.read().count(b"\n") == 3
