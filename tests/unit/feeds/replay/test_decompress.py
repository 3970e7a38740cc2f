"""Decompression by content: equal to the original however it comes, bounded, and keeping what is good."""

from __future__ import annotations

import gzip
import os
import tracemalloc
import zlib
from collections.abc import Callable, Iterator

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tradebot.feeds.replay.decompress import PIECE_BYTES, Damaged, unpack


def _gzip(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def _zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(content)


PACKERS = pytest.mark.parametrize("pack", [_gzip, _zstd])
# Noise hardly compresses, so that a place in the packed bytes is about that place in the content.
NOISE = b"".join(zlib.crc32(number.to_bytes(4, "big")).to_bytes(4, "big") for number in range(100_000))


def _blocks(packed: bytes, size: int = 1 << 16) -> Iterator[bytes]:
    return (packed[place : place + size] for place in range(0, len(packed), size))


def _unpack(packed: bytes, size: int = 1 << 16) -> tuple[bytes, str | None]:
    """The content, and how it is damaged."""
    content = b""
    try:
        for piece in unpack(_blocks(packed, size)):
            assert len(piece) <= max(size, PIECE_BYTES)
            content += piece
    except Damaged as damage:
        return content, str(damage)
    return content, None


@pytest.mark.parametrize("pack", [_gzip, _zstd, bytes])
@pytest.mark.parametrize("size", [1, 3, 4, 1000, 1 << 16])
@pytest.mark.parametrize("content", [b"", b"x", b"{}\n" * 5, NOISE[:5000], 70_000 * b"z", PIECE_BYTES * b"z"])
def test_content_is_the_same_packed_or_not(pack: Callable[[bytes], bytes], size: int, content: bytes) -> None:
    assert _unpack(pack(content), size) == (content, None)


@given(
    parts=st.lists(st.binary(max_size=2000) | st.integers(0, 200_000).map(lambda count: count * b"a"), max_size=4),
    size=st.integers(1, 5000),
    kind=st.sampled_from([_gzip, _zstd]),
)
def test_several_members_in_one_file_are_one_content(
    parts: list[bytes], size: int, kind: Callable[[bytes], bytes]
) -> None:
    assert _unpack(b"".join(map(kind, parts)), size) == (b"".join(parts), None)


def test_zeros_after_a_gzip_member_are_padding() -> None:
    assert _unpack(_gzip(b"abc") + bytes(1000), 7) == (b"abc", None)


def test_zstandard_skippable_frames_are_passed_over() -> None:
    skippable = b"\x52\x2a\x4d\x18\x03\x00\x00\x00abc"
    assert _unpack(skippable + _zstd(b"one") + skippable + _zstd(b"two"), 5) == (b"onetwo", None)


@pytest.mark.parametrize("head", [b"\x1f", b"\x28\xb5\x2f", b"\x1fx", b"\x50\x2a\x4d", b"(\xb5/", b"\x00"])
def test_what_only_begins_like_a_packed_file_is_plain(head: bytes) -> None:
    assert _unpack(head, 1) == (head, None)


@PACKERS
def test_nothing_yet_is_passed_on_as_nothing(pack: Callable[[bytes], bytes]) -> None:
    """A pipe that is silent must not hold up the reader, at whatever place."""
    packed = pack(b"abcdef")
    pieces = list(unpack(block for byte in packed for block in (bytes([byte]), b"")))
    assert b"".join(pieces) == b"abcdef"
    assert pieces.count(b"") >= len(packed) - 4


def test_a_silent_pipe_is_noticed_before_its_kind_is_known() -> None:
    pieces = unpack(iter([b"\x1f", b"", b"xyz"]))
    assert [next(pieces), next(pieces)] == [b"", b"\x1fxyz"]


def test_a_cut_in_well_packed_gzip_loses_nothing_that_was_there() -> None:
    """zlib may have taken all input and still hold output back when a piece is full."""
    packed = _gzip((1 << 20) * b"z")
    for cut in range(20, len(packed) - 8):
        assert _unpack(packed[:cut])[0] == zlib.decompressobj(wbits=31).decompress(packed[:cut])


@PACKERS
@pytest.mark.parametrize("cut", [5, 1000, 150_000, 300_000, -9, -2, -1])
def test_a_cut_off_file_gives_what_is_there(pack: Callable[[bytes], bytes], cut: int) -> None:
    content, damage = _unpack(pack(NOISE)[:cut])
    assert NOISE.startswith(content)
    assert damage is not None
    assert f"cut off after {len(content)} decompressed bytes" in damage
    # zstd hands on whole blocks of 128 KiB, and so that many bytes may be missing at the cut.
    assert len(content) >= (cut if cut > 0 else len(NOISE)) - (1 << 17) - 1000
    if pack is _gzip or cut < 0:
        assert len(content) >= (cut if cut > 0 else len(NOISE)) - 40_000


def test_corrupt_gzip_gives_all_before_the_place() -> None:
    """zlib drops the output of a failing call; a small file would be lost whole."""
    lines = b"".join(b'{"n":%d}\n' % number for number in range(2000))
    flush = zlib.compressobj(wbits=31)
    good = flush.compress(lines) + flush.flush(zlib.Z_FULL_FLUSH)
    content, damage = _unpack(good + b"\xff" * 20)
    assert content == lines
    assert damage == f"gzip data is corrupt after {len(lines)} decompressed bytes"


def test_a_wrong_gzip_checksum_keeps_the_content() -> None:
    packed = bytearray(_gzip(b"hello\n"))
    packed[-5] ^= 1
    assert _unpack(bytes(packed)) == (b"hello\n", "gzip data is corrupt after 6 decompressed bytes")


@PACKERS
def test_garbage_after_a_member_is_damage(pack: Callable[[bytes], bytes]) -> None:
    content, damage = _unpack(pack(b"hello\n") + b"garbage!")
    assert content == b"hello\n"
    assert damage is not None
    assert "corrupt after 6 decompressed bytes" in damage


@PACKERS
def test_corruption_in_the_middle_keeps_what_came_before(pack: Callable[[bytes], bytes]) -> None:
    packed = bytearray(pack(NOISE))
    packed[300_000:300_050] = bytes(50)
    content, damage = _unpack(bytes(packed))
    assert damage is not None
    assert content[:100_000] == NOISE[:100_000]


@given(
    packed=st.binary(max_size=200), magic=st.sampled_from([b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18"])
)
def test_random_bytes_behind_a_magic_number_are_damage_at_worst(packed: bytes, magic: bytes) -> None:
    _unpack(magic + packed, 16)


def _zstd_bomb(megabytes: int) -> bytes:
    """A frame of blocks that repeat one byte 128 KiB long: 4 bytes each, the worst that the format allows."""
    header = b"\x28\xb5\x2f\xfd" + b"\x00" + b"\x58"  # no checksum, window 2 MiB
    last = 8 * megabytes - 1
    blocks = [
        (((1 << 17) << 3) | (1 << 1) | (number == last)).to_bytes(3, "little") + b"z" for number in range(last + 1)
    ]
    return header + b"".join(blocks)


@pytest.mark.parametrize("packed", [_gzip(64 * (1 << 20) * b"z"), _zstd_bomb(64)], ids=["gzip", "zstd"])
def test_a_decompression_bomb_stays_small(packed: bytes) -> None:
    """Memory is bounded by the piece, not by what the input expands to."""
    tracemalloc.start()
    try:
        total = sum(map(len, unpack(_blocks(packed))))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 64 << 20
    assert peak < 24 << 20


def test_a_frame_that_asks_for_too_much_history_is_refused() -> None:
    """A window of 1 GiB would have to be kept in memory."""
    window_log = 30
    frame = b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([(window_log - 10) << 3]) + b"\x01\x00\x00"
    content, damage = _unpack(frame)
    assert content == b""
    assert damage is not None


def test_the_decoder_is_the_same_for_a_pipe_fed_byte_by_byte() -> None:
    content = os.urandom(3000)
    for pack in (_gzip, _zstd):
        assert _unpack(pack(content), 1) == (content, None)
