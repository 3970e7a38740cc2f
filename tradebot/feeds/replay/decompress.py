"""Decompression of a stream of blocks: gzip and Zstandard, recognised by their first bytes, not by the file name. Pure.

Memory is bounded whatever the input expands to: gzip gives at most PIECE_BYTES at a time; Zstandard is fed a few
bytes at a time, since its decoder hands back all that its input expands to.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

PIECE_BYTES: Final = 1 << 16
"""Largest piece handed on."""

# A Zstandard block expands 3 or 4 bytes to 128 KiB at most, so these expand to 8 MiB at most.
_ZSTD_SLICE_BYTES: Final = 256
# What the zstd program accepts by default: a frame that asks for more history than this is refused.
_ZSTD_WINDOW_BYTES_MAX: Final = 1 << 27
_GZIP_MAGIC: Final = b"\x1f\x8b"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE_TAIL: Final = b"\x2a\x4d\x18"
_MAGIC_BYTES: Final = 4
_GZIP_WBITS: Final = 16 + zlib.MAX_WBITS


class Damaged(Exception):
    """Compressed data is truncated or corrupt. All readable data was returned; the message gives the position."""


def unpack(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The content of `blocks`, decompressed if it is compressed, in pieces of at most PIECE_BYTES (or a plain block).

    An empty block (nothing has come yet) gives an empty piece. Blocks only where `blocks` does. Raises Damaged.
    """
    head = b""
    while len(head) < _MAGIC_BYTES:
        block = next(blocks, None)
        if block is None:
            break
        head += block
        if not block:
            yield b""
    if head.startswith(_GZIP_MAGIC):
        yield from _gunzip(_chain(head, blocks))
    elif head.startswith(_ZSTD_MAGIC) or (head[1:4] == _ZSTD_SKIPPABLE_TAIL and head[0] & 0xF0 == 0x50):
        yield from _unzstd(_chain(head, blocks))
    else:
        if head:
            yield head
        yield from blocks


def _chain(head: bytes, blocks: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from blocks


def _gunzip(blocks: Iterator[bytes]) -> Iterator[bytes]:
    member: zlib._Decompress | None = None
    members = done = 0
    for block in blocks:
        data, more = block, bool(block)
        while more:
            if member is None:
                # Zeros after a member are padding and usual; anything else there must be another member.
                data = data.lstrip(b"\0") if members else data
                if not data:
                    break
                member = zlib.decompressobj(wbits=_GZIP_WBITS)
                members += 1
            before = member.copy()
            try:
                piece = member.decompress(data, PIECE_BYTES)
            except zlib.error:
                piece = _good_part(before, data)
                yield piece
                raise Damaged(f"gzip data is corrupt after {done + len(piece)} decompressed bytes") from None
            done += len(piece)
            if piece:
                yield piece
            if member.eof:
                data, member = member.unused_data, None
                more = bool(data)
            else:
                # A full piece may have left output behind inside, with all input taken: ask again with nothing.
                data = member.unconsumed_tail
                more = bool(data) or len(piece) == PIECE_BYTES
        yield b""
    if member is not None:
        raise Damaged(f"gzip data is cut off after {done} decompressed bytes")


def _good_part(member: zlib._Decompress, data: bytes) -> bytes:
    """What `data` gives before the byte that is in error: zlib drops the output of the call that fails."""
    good = bytearray()
    try:
        for place in range(len(data)):
            good += member.decompress(data[place : place + 1])
    except zlib.error:
        pass
    return bytes(good)


def _unzstd(blocks: Iterator[bytes]) -> Iterator[bytes]:
    import zstandard  # here, since few runs need it and it costs memory and start-up time

    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES_MAX)
    frame: zstandard.ZstdDecompressionObj | None = None
    done = 0
    for block in blocks:
        for start in range(0, len(block), _ZSTD_SLICE_BYTES):
            data = block[start : start + _ZSTD_SLICE_BYTES]
            while data:
                if frame is None:
                    frame = decompressor.decompressobj()
                try:
                    content = frame.decompress(data)
                except zstandard.ZstdError as error:
                    raise Damaged(f"Zstandard data is corrupt after {done} decompressed bytes ({error})") from None
                done += len(content)
                for place in range(0, len(content), PIECE_BYTES):
                    yield content[place : place + PIECE_BYTES]
                if not frame.eof:
                    break
                data, frame = frame.unused_data, None
        yield b""
    if frame is not None:
        raise Damaged(f"Zstandard data is cut off after {done} decompressed bytes")
