from __future__ import annotations

import tracemalloc
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.contract.peers import BINARY, CLOSE, CONT, PING, PONG, TEXT, close_frame, frame
from tradebot.feeds.websocket.frame_decoder import EMPTY_FRAGMENTS_MAX, FrameDecoder
from tradebot.feeds.websocket.transport import Frame


def decode(data: bytes, limit: int = 1 << 20, max_frames: int = 1 << 20) -> tuple[list[Frame], int | None]:
    """What is in `data`, and the code it ends with."""
    decoder = FrameDecoder(limit)
    decoder.feed(data)
    frames = decoder.take(max_frames)
    return frames, decoder.ending.code if decoder.ending else None


messages = st.one_of(
    st.text(max_size=300).map(lambda text: ([frame(TEXT, text.encode())], Frame("text", text))),
    st.binary(max_size=300).map(lambda data: ([frame(BINARY, data)], Frame("binary", data=data))),
    st.binary(max_size=125).map(lambda data: ([frame(PING, data)], Frame("ping", data=data))),
    st.binary(max_size=125).map(lambda data: ([frame(PONG, data)], Frame("pong", data=data))),
    st.lists(st.binary(max_size=20), min_size=2, max_size=5).map(
        lambda parts: (
            [frame(CONT if at else BINARY, part, fin=at == len(parts) - 1) for at, part in enumerate(parts)],
            Frame("binary", data=b"".join(parts)),
        )
    ),
)


@given(st.lists(messages, max_size=8), st.lists(st.integers(1, 200), min_size=1, max_size=20), st.integers(1, 4))
def test_the_same_frames_however_the_bytes_are_cut(
    sent: list[tuple[list[bytes], Frame]], cuts: list[int], limit: int
) -> None:
    data = b"".join(part for parts, _ in sent for part in parts)
    bounds = [0, *(end for end in accumulate(cuts) if end < len(data)), len(data)]
    decoder = FrameDecoder(1 << 20)
    received: list[Frame] = []
    for begin, end in pairwise(bounds):
        decoder.feed(data[begin:end])
        while frames := decoder.take(limit):
            assert len(frames) <= limit
            received += frames
    assert received == [expected for _, expected in sent]
    assert decoder.ending is None


@given(st.binary(max_size=200))
def test_no_bytes_are_a_crash(data: bytes) -> None:
    frames, code = decode(data, limit=100)
    assert code is None or code in range(1000, 5000)
    again, same = decode(data + b"\x00\xff", limit=100)
    if code is not None:
        assert (again, same) == (frames, code)
    assert again[: len(frames)] == frames


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_the_size_of_a_message_is_bounded_at_its_header(opcode: int) -> None:
    for length in (101, 1 << 32, 1 << 62, (1 << 64) - 1):
        assert decode(frame(opcode, length=length), limit=100) == ([], 1009)
    assert decode(frame(opcode, b"x" * 100), limit=100)[1] is None
    assert decode(frame(opcode, b"x" * 101)[:2], limit=100) == ([], 1009)
    assert decode(frame(opcode, b"x" * 126)[:4], limit=100) == ([], 1009)


def test_fragments_are_summed() -> None:
    first, second = frame(TEXT, b"x" * 60, fin=False), frame(CONT, b"x" * 40)
    assert decode(first + second, limit=100) == ([Frame("text", "x" * 100)], None)
    assert decode(first + second + first + second, limit=100) == ([Frame("text", "x" * 100)] * 2, None)
    assert decode(first + frame(CONT, b"x" * 41), limit=100) == ([], 1009)
    assert decode(first + frame(CONT, length=1 << 62), limit=100) == ([], 1009)


def test_control_frames_do_not_count_for_the_size_of_messages() -> None:
    ping = frame(PING, b"x" * 125)
    assert decode(ping + frame(TEXT, b"ab"), limit=2) == ([Frame("ping", data=b"x" * 125), Frame("text", "ab")], None)
    assert decode(frame(TEXT, b"a", fin=False) + ping + frame(CONT, b"b"), limit=2)[1] is None


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_long_or_fragmented_control_frames_are_refused_at_the_header(opcode: int) -> None:
    assert decode(frame(opcode, length=1 << 62)) == ([], 1002)
    assert decode(frame(opcode, fin=False)) == ([], 1002)


def test_a_server_must_not_mask() -> None:
    assert decode(b"\x81\x81") == ([], 1002)


@pytest.mark.parametrize("payload", [b"\x03", b"\xe8"])
def test_a_close_of_one_byte_is_broken(payload: bytes) -> None:
    assert decode(frame(CLOSE, payload)) == ([], 1002)


def test_nothing_is_decoded_or_kept_after_the_end() -> None:
    decoder = FrameDecoder(100)
    decoder.feed(frame(TEXT, b"a") + close_frame(1001) + frame(TEXT, b"b"))
    assert decoder.take(10) == [Frame("text", "a")]
    decoder.feed(frame(TEXT, b"c"))
    assert decoder.take(10) == []
    assert decoder.ending is not None and decoder.ending.code == 1001


def test_an_ending_waits_for_the_frames_before_it() -> None:
    decoder = FrameDecoder(100)
    decoder.feed(frame(TEXT, b"a") + frame(TEXT, b"b") + frame(TEXT, b"\xff"))
    assert decoder.take(2) == [Frame("text", "a"), Frame("text", "b")]
    endings = [decoder.ending]
    assert decoder.take(2) == []
    endings.append(decoder.ending)
    assert [ending and ending.code for ending in endings] == [None, 1007]


def test_the_reason_of_a_close_is_shown_safely() -> None:
    decoder = FrameDecoder(100)
    decoder.feed(close_frame(4001, "see wss://me:hunter2@a.example/ \x1b[2J\u202e".encode()))
    decoder.take(1)
    assert decoder.ending is not None
    assert decoder.ending.reason.isprintable() and "hunter2" not in decoder.ending.reason
    assert decoder.ending.answer == b"\x0f\xa1"


@pytest.mark.parametrize("first", [frame(TEXT, fin=False), frame(BINARY, b"x", fin=False)])
def test_empty_fragments_without_end_are_refused(first: bytes) -> None:
    """They never reach the bound on the size of a message: a peer could keep a core busy with two bytes at a time."""
    left = EMPTY_FRAGMENTS_MAX - (len(first) == 2)
    assert decode(first + frame(CONT, fin=False) * left) == ([], None)
    assert decode(first + frame(CONT, fin=False) * left + frame(CONT, b"x"))[1] is None
    assert decode(first + frame(CONT, fin=False) * (left + 1)) == ([], 1002)
    decoder = FrameDecoder(1 << 20)
    decoder.feed(first + frame(CONT, fin=False) * 1_000_000)
    assert decoder.take(256) == []
    assert decoder.ending is not None and "empty fragments" in decoder.ending.reason


def test_empty_fragments_are_counted_for_each_message_anew() -> None:
    message = frame(TEXT, fin=False) + frame(CONT, fin=False) * (EMPTY_FRAGMENTS_MAX - 1) + frame(CONT, b"x")
    assert decode(message * 3) == ([Frame("text", "x")] * 3, None)


@pytest.mark.parametrize("opcode", [TEXT, BINARY, CONT])
@pytest.mark.parametrize(
    ("announced", "code"),
    [
        (b"\x7e\x00\x7d", 1002), (b"\x7e\x00\x00", 1002), (b"\x7e\x00\x7e", None),
        (b"\x7f" + (65_535).to_bytes(8, "big"), 1002), (b"\x7f" + bytes(8), 1002),
        (b"\x7f" + (65_536).to_bytes(8, "big"), None), (b"\x7f" + ((1 << 63) - 1).to_bytes(8, "big"), 1009),
    ],
)  # fmt: skip
def test_a_length_has_one_form_only(opcode: int, announced: bytes, code: int | None) -> None:
    """RFC 6455, 5.2: it is written in the minimal number of bytes."""
    before = frame(TEXT, b"a", fin=False) if opcode == CONT else b""
    assert decode(before + bytes([0x80 | opcode]) + announced)[1] == code


def test_a_frame_that_drips_in_costs_no_more_than_one_that_comes_at_once() -> None:
    """A peer that sends a large frame byte by byte must not cost quadratic time (it would take hours)."""
    size = 500_000
    decoder = FrameDecoder(1 << 20)
    for byte in frame(TEXT, b"x" * size):
        decoder.feed(bytes([byte]))
        frames = decoder.take(1)
    assert frames == [Frame("text", "x" * size)]


def test_many_small_fragments_cost_little_memory() -> None:
    size = 60_000
    decoder = FrameDecoder(1 << 20)
    tracemalloc.start()
    try:
        decoder.feed(frame(BINARY, b"x", fin=False))
        for _ in range(size // 1000):
            decoder.feed(frame(CONT, b"x", fin=False) * 1000 + frame(CONT, fin=False))
            assert decoder.take(1) == []
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * size
    decoder.feed(frame(CONT))
    assert decoder.take(1) == [Frame("binary", data=b"x" * (size + 1))]
