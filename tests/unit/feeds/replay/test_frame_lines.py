"""Recorded frames to ticks: captures and plain files of frames, however they are cut, and files that are neither."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.talk import START_MS, Talk, tick
from tradebot.config.model import History
from tradebot.core.cancellation import Cancellation
from tradebot.core.errors import ConfigError, ParseError
from tradebot.core.events import Notice
from tradebot.core.runtime import RealRuntime
from tradebot.feeds.base import NOTES_MAX, FeedBatch, Malformed
from tradebot.feeds.capture_file import CaptureWriter
from tradebot.feeds.exchanges.mockws import MockWs
from tradebot.feeds.replay import frame_lines
from tradebot.feeds.replay import line_splitter as line_cutter
from tradebot.feeds.replay.feed import FileReplay
from tradebot.feeds.replay.frame_lines import FrameLineDecoder, check_first_line

LONGEST = line_cutter.LINE_BYTES_MAX


def header(exchange: str = "talk") -> bytes:
    return b'{"tradebot_capture":1,"exchange":"%s","symbols":["A"],"started_ms":5}' % exchange.encode()


def record(text: str, connection: int = 1, received_ms: int = START_MS) -> bytes:
    return json.dumps({"received_ms": received_ms, "connection": connection, "text": text}).encode()


def decoder(history: History = "drop", symbols_max: int = 10, *, strict: bool = False) -> FrameLineDecoder:
    return FrameLineDecoder(Talk, history, symbols_max, strict=strict)


def joined(batches: Iterable[FeedBatch]) -> FeedBatch:
    """Batches as one; of their notes all."""
    whole = FeedBatch([])
    for batch in batches:
        start = len(whole.ticks)
        whole.notices += tuple((start + index, notice) for index, notice in batch.notices)
        whole.notes += batch.notes
        whole.ticks += batch.ticks
        whole.malformed += batch.malformed
        whole.duplicates += batch.duplicates
        whole.history_dropped += batch.history_dropped
        whole.out_of_band += batch.out_of_band
    return whole


def read(
    data: bytes, cuts: Iterable[int] = (), *, damage: str | None = None, subject: FrameLineDecoder | None = None
) -> FeedBatch:
    """All of `data`, fed in pieces that end at `cuts`, with what it comes to."""
    subject = decoder() if subject is None else subject
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    batches = [subject.feed(data[start:end]) for start, end in pairwise(places)]
    return joined([*batches, subject.finish(damage)])


def seqs(batch: FeedBatch) -> list[int | None]:
    return [each.seq for each in batch.ticks]


@contextmanager
def short_lines(longest: int = 90) -> Iterator[None]:
    """As if the longest line were much shorter."""
    with (
        mock.patch.object(frame_lines, "LINE_BYTES_MAX", longest),
        mock.patch.object(line_cutter, "_PENDING_BYTES_MAX", longest + 4),
    ):
        yield


class TestPlainFrames:
    def test_each_line_is_a_frame(self) -> None:
        batch = read(b"ack\nt A 1 2\nbeat\nt B 7\n")
        assert batch.ticks == [tick("A", 1), tick("A", 2), tick("B", 7)]
        assert batch.malformed == 0

    def test_no_session_so_no_duplicates_and_no_gaps(self) -> None:
        batch = read(b"t A 1\nt A 9\nt A 1\nskip A 100\n", subject=decoder(symbols_max=1))
        assert (seqs(batch), batch.duplicates, batch.notices) == ([1, 9, 1], 0, ())

    def test_the_last_line_needs_no_end(self) -> None:
        assert seqs(read(b"t A 1\nt A 2")) == [1, 2]
        assert read(b"t A 1\nwhat").notes == (Malformed(2, "no such word, of 4 characters"),)

    def test_line_ends_byte_order_mark_and_blank_lines(self) -> None:
        """Blank lines are nothing, but they are numbered, as in a replay of ticks."""
        batch = read(b"\xef\xbb\xbft A 1\r\n\r\n \t\nt A 2\r\nwhat\r\n\nt A 3\n")
        assert seqs(batch) == [1, 2, 3]
        assert batch.notes == (Malformed(5, "no such word, of 4 characters"),)

    def test_a_byte_order_mark_only_at_the_very_start(self) -> None:
        assert [note.line for note in read(b"t A 1\n\xef\xbb\xbft A 2\n").notes] == [2]
        assert [note.line for note in read(b"\n\xef\xbb\xbft A 2\n").notes] == [2]

    def test_bytes_that_are_no_text(self) -> None:
        batch = read(b"t A 1\n\xff\xfe\nt A 2\n")
        assert (seqs(batch), batch.malformed, batch.notes) == ([1, 2], 1, (Malformed(2, "not UTF-8 (byte 0)"),))

    def test_history_is_dropped_or_kept(self) -> None:
        data = b"h A 1 2\nt A 3\n"
        assert (seqs(read(data)), read(data).history_dropped) == ([3], 2)
        kept = read(data, subject=decoder("keep"))
        assert (seqs(kept), kept.history_dropped) == ([1, 2, 3], 0)

    def test_the_longest_line_and_one_byte_more(self) -> None:
        for line in (b"beat" + b" " * (LONGEST - 4), b"\xef\xbb\xbfbeat" + b" " * (LONGEST - 4) + b"\r"):
            assert read(line + b"\nt A 1\n").malformed == 0
        for line in (b"beat" + b" " * (LONGEST - 3), b" " * (LONGEST + 1), b"x" * (2 * LONGEST)):
            for data in (line + b"\nt A 1\n", b"t A 1\n" + line):
                batch = read(data, range(0, len(data), 1 << 16))
                assert (seqs(batch), batch.malformed) == ([1], 1)
                assert batch.notes[0].reason == f"longer than {LONGEST} bytes"
                assert batch.notes[0].line == (1 if data.startswith(line) else 2)

    def test_a_batch_describes_only_so_many(self) -> None:
        batch = decoder().feed(b"what\n" * 100)
        assert (batch.malformed, len(batch.notes)) == (100, NOTES_MAX)
        assert batch.notes[-1].line == NOTES_MAX


class TestCaptures:
    def test_a_recorded_session(self) -> None:
        """Duplicates and gaps as they were live, with the times the frames were received."""
        lines = [header(), record("ack"), record("t A 1 2"), record("t A 2 6", received_ms=START_MS + 9)]
        batch = read(b"\n".join(lines) + b"\n")
        assert (seqs(batch), batch.duplicates, batch.malformed) == ([1, 2, 6], 1, 0)
        assert batch.notices == ((2, Notice("GAP", START_MS + 9, "seq 6 after 2", "A", 3)),)

    def test_the_place_of_a_gap_counts_all_ticks_of_the_piece(self) -> None:
        batch = read(b"\n".join([record("t A 1 2 3"), record("t B 1"), record("t A 5 9")]) + b"\n")
        assert [index for index, _notice in batch.notices] == [4, 5]

    def test_connections_begin_anew_where_it_says_so(self) -> None:
        """A fresh adapter for each connection, and for each file of a capture; numbers are known across them."""
        before = Talk.made
        subject = decoder()
        created = Talk.made - before
        lines = [
            *(header(), record("t A 1"), record("t A 2")),
            *(record("t A 2", 2), record("t A 3", 2)),
            *(header(), record("t A 4", 2)),
        ]
        batch = read(b"\n".join(lines) + b"\n", subject=subject)
        assert (seqs(batch), batch.duplicates) == ([1, 2, 3, 4], 1)
        assert Talk.made - before - created == 3

    def test_a_damaged_line(self) -> None:
        batch = read(b'{"received_ms":1,"conn\n' + record("t A 1") + b"\n")
        assert (seqs(batch), batch.notes) == ([1], (Malformed(1, "damaged line of a capture file"),))

    def test_a_header_of_another_format(self) -> None:
        batch = read(header().replace(b":1,", b":2,") + b"\n")
        assert batch.notes == (Malformed(1, "capture format 2 is not supported; this version reads format 1"),)

    def test_a_frame_that_cannot_be_understood(self) -> None:
        assert read(record("what") + b"\n").notes == (Malformed(1, "no such word, of 4 characters"),)

    def test_trades_of_too_many_symbols(self) -> None:
        batch = read(b"\n".join([record("t A 1"), record("t B 1 2")]) + b"\n", subject=decoder(symbols_max=1))
        assert (seqs(batch), batch.malformed) == ([1], 2)
        assert batch.notes == (Malformed(2, "2 trades of more symbols than feed.max_symbols allows"),)


class TestTheEnd:
    def test_strict_ends_at_the_first_malformed_line(self) -> None:
        """Exit 11 is for the feed; the good ticks before are handed out, those behind never."""
        subject = decoder(strict=True)
        first = subject.feed(b"t A 1\nwhat\nt A 2\nwhat\n")
        assert (seqs(first), first.malformed) == ([1], 1)
        assert joined([subject.feed(b"t A 3\n" + b"x" * (2 * LONGEST)), subject.finish()]) == FeedBatch([])

    def test_strict_ends_at_a_line_that_is_too_long(self) -> None:
        batch = read(b"x" * (2 * LONGEST) + b"\nt A 1\n", subject=decoder(strict=True))
        assert (seqs(batch), batch.malformed) == ([], 1)

    def test_damage_is_one_malformed_line(self) -> None:
        """The unfinished line is part of it."""
        batch = read(b"t A 1\nt A", damage="gzip data is cut off")
        assert (seqs(batch), batch.malformed) == ([1], 1)
        assert batch.notes == (Malformed(2, "gzip data is cut off"),)
        assert read(b"t A 1\n", damage="cut off").notes == (Malformed(2, "cut off"),)

    def test_nothing_comes_after_the_end(self) -> None:
        subject = decoder()
        subject.finish()
        assert subject.feed(b"t A 1\nwhat\n") == FeedBatch([])

    def test_through_a_file_and_strict(self, tmp_path: Path) -> None:
        path = tmp_path / "x"
        path.write_bytes(b"t A 1\n\nwhat\nt A 2\n")
        feed = FileReplay(str(path), strict=True, decoder=decoder(strict=True))
        first = feed.read()
        assert first is not None and seqs(first) == [1]
        with pytest.raises(ParseError, match=r"x:3: no such word, of 4 characters \(--strict stops at"):
            feed.read()
        feed.close()


_texts = st.sampled_from(["t A 1", "t A 2 3", "t B 5 9", "h A 1 2", "beat", "what", "hello? é", "ack"])
_lines = st.one_of(
    _texts.map(str.encode),
    st.builds(record, _texts, st.integers(1, 3)),
    st.sampled_from(
        [header(), b"", b"  ", b"\xff\xfe", b"\xef\xbb\xbfbeat", b'{"received_ms":', b"z" * 200, b" " * 95]
    ),
)


class TestAnyCut:
    @given(
        parts=st.lists(st.tuples(_lines, st.sampled_from([b"\n", b"\r\n"])), max_size=NOTES_MAX),
        whole=st.booleans(),
        cuts=st.lists(st.integers(0, 2000), max_size=12),
        strict=st.booleans(),
        damage=st.none() | st.just("cut off"),
    )
    def test_the_same_however_it_is_cut(
        self, parts: list[tuple[bytes, bytes]], whole: bool, cuts: list[int], strict: bool, damage: str | None
    ) -> None:
        """S8: pieces are how the input happens to be read; of too long lines some are met half-way, some whole."""
        data = b"".join(line + end for line, end in parts)
        data = data if whole else data.rstrip(b"\r\n")
        with short_lines():
            straight = read(data, damage=damage, subject=decoder(strict=strict))
            assert read(data, cuts, damage=damage, subject=decoder(strict=strict)) == straight
            assert read(data, range(len(data)), damage=damage, subject=decoder(strict=strict)) == straight

    @given(data=st.binary(max_size=300))
    def test_any_bytes_are_ticks_or_malformed_lines(self, data: bytes) -> None:
        subject = FrameLineDecoder(MockWs, "drop", 10)
        batch = read(data, subject=subject)
        assert batch.malformed <= data.count(b"\n") + 1
        assert subject.line <= data.count(b"\n") + 1


WHOSE = (
    "x: holds recorded frames, not ticks; add --exchange=NAME, the exchange that sent them"
    " (tradebot sources lists the names)"
)


class TestFirstLine:
    @pytest.mark.parametrize(
        ("line", "exchange", "expected"),
        [
            (header("kraken"), None, "x: holds recorded frames, not ticks; add --exchange=kraken"),
            (record("a"), None, WHOSE),
            (header("no\\u001bsuch"), None, WHOSE),
            (header("kraken"), "binance", "x: holds frames recorded from kraken, not binance; give --exchange=kraken"),
        ],
    )  # fmt: skip
    def test_of_what_it_is_not_read_as(self, line: bytes, exchange: str | None, expected: str) -> None:
        with pytest.raises(ConfigError) as caught:
            check_first_line(line, "x", exchange)
        assert str(caught.value) == expected

    @pytest.mark.parametrize(
        ("line", "exchange"),
        [
            (header("kraken"), "kraken"),
            (header("private"), "kraken"),
            (record("a"), "kraken"),
            (b"t A 1", "kraken"),
            (b"", None),
            (b'{"symbol":"A","price":1,"volume":1,"ts":1,"received_ms":5}', None),
            (b'{"received_ms":5,"symbol":"A","price":1,"volume":1,"ts":1}', None),
            (b'{"received_ms":', None),
        ],
    )
    def test_otherwise_it_may_be_read(self, line: bytes, exchange: str | None) -> None:
        check_first_line(line, "x", exchange)

    def test_a_file_is_refused_before_anything_is_read(self, tmp_path: Path) -> None:
        """By the digest, so before a run has begun; and by read, for pipes."""
        capture = CaptureWriter(tmp_path, "kraken", ["A"], 1, 1 << 20, 2)
        capture.write(1, 1, "x")
        capture.close()

        def refuse(line: bytes) -> None:
            check_first_line(line, "it", None)

        for call in (lambda feed: feed.content_digest(Cancellation(RealRuntime())), FileReplay.read, FileReplay.read):
            feed = FileReplay(str(capture.path), first_line=refuse)
            with pytest.raises(ConfigError, match="add --exchange=kraken"):
                call(feed)
            feed.close()

    @pytest.mark.parametrize(
        ("data", "shown"),
        [
            (b"\xef\xbb\xbf\r\n \nfirst\r\nsecond\n", b"first\r"),
            (b"first", b"first"),
            (b"", b""),
            (b"x" * 200_000 + b"\nsecond\n", b"x" * 131_072),
        ],
    )
    def test_it_is_shown_once(self, tmp_path: Path, data: bytes, shown: bytes) -> None:
        """The first that is not blank; of one too long to be waited for, the beginning."""
        path = tmp_path / "x"
        path.write_bytes(data)
        seen: list[bytes] = []
        feed = FileReplay(str(path), first_line=seen.append)
        with pytest.raises(ParseError, match="no line is a tick"):
            while feed.read() is not None:
                pass
        feed.close()
        assert seen == [shown]
