"""Replay feeds: recorded ticks in their order of arrival, as fast as the pipeline takes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from tradebot.core.cancellation import Cancellation, Cancelled
from tradebot.core.errors import ConfigError, ParseError, TradebotError
from tradebot.core.events import Notice, Tick, TickChunk
from tradebot.feeds.base import FeedBatch
from tradebot.feeds.replay.byte_source import open_source
from tradebot.feeds.replay.decompress import Damaged, unpack
from tradebot.feeds.replay.line_splitter import BOM
from tradebot.feeds.replay.recognition import HEAD_BYTES, describe, has_commas_between
from tradebot.feeds.replay.tick_lines import LineDecoder
from tradebot.feeds.status import NO_LINK, FeedStatus

_LOOK_BYTES_MAX: Final = 1 << 16
_NOTICES_A_BATCH: Final = 1000


class Decoder(Protocol):
    """Converts the bytes of a file to ticks: `tick_lines.LineDecoder`, or `frame_lines.FrameLineDecoder` for frames."""

    def feed(self, data: bytes) -> FeedBatch:
        """What `data` completes."""
        ...

    def finish(self, damage: str | None = None) -> FeedBatch:
        """What is left at the end of the input, or where it broke off for the reason `damage`."""
        ...


class FileReplay:
    """Ticks of a file of JSON lines (or what `decoder` makes of its lines), plain, gzip or Zstandard, or of standard
    input (`-`) or another pipe.

    `position` and `total` are in bytes as stored (before decompression); `total` is None for a pipe. The constructor
    opens the file: raises ConfigError when that fails. Never blocks, except that a pipe is waited for READ_WAIT_S.
    `first_line` is shown the first line that is not blank before it is decoded, and may refuse the file: `read` and
    `content_digest` raise its ConfigError. `exchange` is the one whose frames `decoder` expects, for the message about
    an input without a single tick.
    """

    push: Final = False

    def __init__(
        self,
        path: str,
        *,
        strict: bool = False,
        decoder: Decoder | None = None,
        first_line: Callable[[bytes], None] = lambda line: None,
        exchange: str | None = None,
    ) -> None:
        self._strict = strict
        self._exchange = exchange
        self._head = b""
        self._ticks = self._malformed = 0
        self._source = open_source(path)
        self.total = self._source.total
        self.position = 0
        self._decoder: Decoder = LineDecoder(strict=strict) if decoder is None else decoder
        self._first_line = first_line
        self._pieces = self._looked_at(unpack(self._counted()))
        self._failure: TradebotError | None = None
        self._ended = False

    @property
    def name(self) -> str:
        """The name of the input in messages."""
        return self._source.name

    def content_digest(self, cancel: Cancellation) -> str | None:
        """SHA-256 (hex) of the decompressed content, or None for a pipe, which can be read only once.

        Reads the whole file once more: call it before the first `read`, from any thread. `cancel` is polled at each
        block. Of damaged compressed data, the part that can be read counts. Raises Cancelled when it is requested, or
        ConfigError when a read fails or the first line is refused.
        """
        if self.total is None:
            return None
        digest = hashlib.sha256()
        try:
            for piece in self._looked_at(unpack(self._source.blocks())):
                if cancel.is_requested():
                    raise Cancelled(f"{self.name}: reading was stopped")
                digest.update(piece)
        except Damaged:
            pass  # `read` reports it, in its place
        return digest.hexdigest()

    def _counted(self) -> Iterator[bytes]:
        for block in self._source.blocks():
            self.position += len(block)
            yield block

    def _looked_at(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """`pieces`; the first line is shown to `first_line` as soon as it is whole, or too long to be waited for."""
        start = b""
        for piece in pieces:
            start = (start + piece).removeprefix(BOM).lstrip()
            looked = b"\n" in start or len(start) > _LOOK_BYTES_MAX
            if looked:
                self._first_line(start.split(b"\n", 1)[0])
            yield piece
            if looked:
                break
        else:
            self._first_line(start)
        yield from pieces

    def read(self) -> FeedBatch | None:
        """The next ticks; see Feed. Raises ParseError after the good ticks before it: on a malformed line with
        `strict`, and at the end when no line was a tick, or only the last element of a JSON array, or the file changed
        while it was read.
        """
        if self._failure is not None:
            raise self._failure
        if self._ended:
            return None
        batch, self._ended = self._next_batch()
        self._ticks += len(batch.ticks) + batch.duplicates + batch.history_dropped
        self._malformed += batch.malformed
        if self._strict and batch.malformed:
            note = batch.notes[0]
            looks = "" if self._ticks else f"; the file {describe(self._head, self._exchange)}"
            self._failure = ParseError(
                f"{self.name}:{note.line}: {note.reason} (--strict stops at the first malformed line){looks}"
            )
        elif self._ended and self._source.changed():
            self._failure = ParseError(
                f"{self.name}: the file changed while it was replayed, so the result matches no version of it; "
                "replay a finished file into a new database"
            )
        elif self._ended and not self._ticks:
            self._failure = ParseError(f"{self.name}: no line is a tick: it {describe(self._head, self._exchange)}")
        elif self._ended and self._ticks == 1 < self._malformed and has_commas_between(self._head):
            looks = describe(self._head, self._exchange)
            self._failure = ParseError(f"{self.name}: only the last line is a tick: it {looks}")
        return batch

    def _next_batch(self) -> tuple[FeedBatch, bool]:
        """The next batch, and whether it is the last one."""
        try:
            piece = next(self._pieces, None)
        except Damaged as damage:
            return self._decoder.finish(str(damage)), True
        except ConfigError as error:
            self._failure = error
            raise
        if piece is None:
            return self._decoder.finish(), True
        if len(self._head) < HEAD_BYTES and not self._ticks:
            self._head += piece[: HEAD_BYTES - len(self._head)]
        return self._decoder.feed(piece), False

    def status(self) -> FeedStatus:
        """That of a feed without a link."""
        return NO_LINK

    def close(self) -> None:
        """Close the file (standard input stays open). Idempotent."""
        self._ended = True
        self._source.close()


class DatabaseReplay:
    """Ticks and notices of stored runs; `position` and `total` are in ticks.

    `rows` are chunks of ticks in their order of arrival, `notices` come with the number of ticks before them, in order.
    Of both only a chunk is held. Reading blocks and fails as the iterators do.
    """

    push: Final = False

    def __init__(
        self, rows: Iterator[list[Tick]], total_rows: int, notices: Iterator[tuple[int, Notice]] | None = None
    ) -> None:
        self._rows = rows
        self._notices = iter(()) if notices is None else notices
        self._ahead: tuple[int, Notice] | None = None
        """The notice that was read, but lies behind the ticks so far."""
        self._rest: list[Tick] | None = None
        """The part of a chunk that was too far behind its notices to be handed on with them."""
        self.total = total_rows
        self.position = 0

    def read(self) -> FeedBatch | None:
        """The next chunk with the notices before and between its ticks, or None at the end.

        With many notices, only as many ticks as lie before them.
        """
        ticks = next(self._rows, None) if self._rest is None else self._rest
        self._rest = None
        notices = self._before(self.position + len(ticks) if ticks is not None else None)
        if ticks is None:
            return FeedBatch([], notices=notices) if notices else None
        if len(notices) == _NOTICES_A_BATCH:
            ticks, self._rest = _cut(ticks, notices[-1][0])
        self.position += len(ticks)
        return FeedBatch(ticks, notices=notices) if notices else FeedBatch(ticks)

    def _before(self, end: int | None) -> tuple[tuple[int, Notice], ...]:
        """The next notices that come before tick `end` (None: all that are left), by their index in the batch."""
        found: list[tuple[int, Notice]] = []
        while len(found) < _NOTICES_A_BATCH:
            ahead = next(self._notices, None) if self._ahead is None else self._ahead
            if ahead is None or (end is not None and ahead[0] >= end):
                self._ahead = ahead
                break
            found.append((ahead[0] - self.position, ahead[1]))
            self._ahead = None
        return tuple(found)

    def status(self) -> FeedStatus:
        """That of a feed without a link."""
        return NO_LINK

    def close(self) -> None:
        """Give the iterators up: a generator runs its clean-up. Idempotent."""
        given = self._rows, self._notices
        self._rows, self._notices, self._ahead, self._rest = iter(()), iter(()), None, None
        for iterator in given:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()


def _cut(ticks: list[Tick], index: int) -> tuple[list[Tick], list[Tick]]:
    if isinstance(ticks, TickChunk):
        return ticks.part(0, index), ticks.part(index)
    return ticks[:index], ticks[index:]
