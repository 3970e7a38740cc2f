"""Converts JSON lines to ticks: pure, incremental, bounded, with the same result however the input is split.

A line ends at LF; a CR before it belongs to the line end. Lines of nothing but white space are nothing, but they are
numbered. A byte order mark is accepted at the very start. What is no tick in the usual form may be one in the forms of
`loose_ticks`. Fields that a Tick does not have are ignored, and of a key
given twice the last counts (as JSON readers commonly do). Refused, beside what is no JSON or no Tick: bytes that are
not UTF-8, control characters and line separators in texts (they have no place in a symbol and would mislead anyone who
reads a log or a terminal), and lines with more than BRACKETS_MAX brackets (how deep JSON may nest before a decoder
gives up depends on the Python version; a result must not).
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from tradebot.core.events import Tick, TickChunk
from tradebot.feeds.base import NOTES_MAX, FeedBatch, Malformed
from tradebot.feeds.exchanges.base import Unparseable
from tradebot.feeds.replay.line_splitter import BOM, LINE_BYTES_MAX, TOO_LONG, LineCutter
from tradebot.feeds.replay.loose_ticks import LooseDecoder

BRACKETS_MAX: Final = 100

_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_WHERE: Final = re.compile(r"^(.*) - at `\$\.?(.*)`$", re.DOTALL)


class LineDecoder:
    """Feed it the bytes of a file in any pieces, then `finish`; each call returns what became complete.

    With `strict`, decoding ends for good at the first malformed line: its batch holds the good ticks before it.
    `line` is the number of complete lines so far. Memory: one line and the piece at hand.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.line = 0
        self._strict = strict
        self._decoder = msgspec.json.Decoder(Tick)
        self._loose = LooseDecoder()
        self._cutter = LineCutter()
        self._done = False

    def feed(self, data: bytes) -> FeedBatch:
        """Ticks and malformed lines that `data` completes. Never raises on any input; never blocks."""
        found = _Found()
        cut = self._cutter.feed(data)
        if cut.block and not self._done:
            self._decode(cut.block, found)
        if cut.too_long and not self._done:
            self._refuse(found, self.line + 1, TOO_LONG)
            self.line += 1
        return found.batch()

    def finish(self, damage: str | None = None) -> FeedBatch:
        """What is left at the end of the input: a last line without line end counts like any other.

        `damage`: the input broke off here, for this reason. That is one malformed line, which the unfinished line,
        unless it is a good tick as it stands, is part of.
        """
        found = _Found()
        if not self._done:
            rest = self._cutter.rest()
            if damage is None:
                if rest:
                    self._decode(rest + b"\n", found)
            else:
                self._decode_line(self._without_bom(rest), found, count_malformed=False)
                self._refuse(found, self.line + 1, damage)
        self._done = True
        return found.batch()

    def _without_bom(self, block: bytes) -> bytes:
        return block[len(BOM) :] if self.line == 0 and block.startswith(BOM) else block

    def _decode(self, block: bytes, found: _Found) -> None:
        """Decode whole lines; `block` ends with a line end."""
        block = self._without_bom(block)
        count = block.count(b"\n")
        if self._loose.takes_integers_as_they_come and _is_plain(block, count):
            try:
                ticks = self._decoder.decode_lines(block)
            except msgspec.DecodeError:
                pass  # line by line, below, finds out which
            else:
                self._loose.took_integer()
                self.line += count
                found.ticks = _chunk(ticks)
                return
        for line in block.split(b"\n")[:-1]:
            if self._done:
                return
            self._decode_line(line.removesuffix(b"\r"), found)
            self.line += 1

    def _decode_line(self, line: bytes, found: _Found, *, count_malformed: bool = True) -> None:
        if len(line) <= LINE_BYTES_MAX and not line.strip():
            return
        reason = _why_not(line)
        if reason is None:
            try:
                tick = self._tick(line)
            except Unparseable as error:
                reason = str(error)
            else:
                found.ticks.append(tick)
                return
        if count_malformed:
            self._refuse(found, self.line + 1, reason)

    def _tick(self, line: bytes) -> Tick:
        """The tick of a line. Raises Unparseable."""
        try:
            tick = self._decoder.decode(line)
        except UnicodeDecodeError:
            raise Unparseable("not UTF-8") from None
        except msgspec.DecodeError as error:
            loose = self._loose.decode(line)
            if loose is None:
                raise Unparseable(_explain(error)) from None
            return loose
        if not self._loose.takes_integers_as_they_come:
            return self._loose.decode(line) or tick
        reason = _unprintable(tick)
        if reason is not None:
            raise Unparseable(reason)
        self._loose.took_integer()
        return tick

    def _refuse(self, found: _Found, line: int, reason: str) -> None:
        found.refuse(line, reason)
        self._done = self._strict


class _Found:
    """A batch that is being built."""

    __slots__ = ("malformed", "notes", "ticks")

    def __init__(self) -> None:
        self.ticks: list[Tick] = []
        self.malformed = 0
        self.notes: list[Malformed] = []

    def refuse(self, line: int, reason: str) -> None:
        self.malformed += 1
        if len(self.notes) < NOTES_MAX:
            self.notes.append(Malformed(line, reason))

    def batch(self) -> FeedBatch:
        return FeedBatch(self.ticks, self.malformed, tuple(self.notes))


def _chunk(ticks: list[Tick]) -> list[Tick]:
    """The ticks of a block, marked if they are all alike."""
    # Looking for the keys in the text of the block takes several times as long.
    more = [1 for tick in ticks if tick.seq is not None or tick.event_id is not None or tick.taker is not None]
    if more or len({tick.symbol for tick in ticks}) != 1:
        return ticks
    return TickChunk(ticks, ticks[0].symbol)


def _is_plain(block: bytes, lines: int) -> bool:
    """Whether a block may be decoded as a whole: each line is then one tick, or the decoder rejects the block.

    The decoder takes any white space between values, so it would also accept a tick spread over two lines or two
    ticks on one, depending on where a block ends. Here every line begins with a brace, there are no other braces,
    and no text can hold anything that the line-by-line checks look for.
    """
    return (
        len(block) <= LINE_BYTES_MAX
        and block.startswith(b"{")
        and block.count(b"{") == lines
        # Lines of one writer begin alike, and a long needle is found several times faster than a short one.
        and (block.count(b"}\n" + block[:10]) == lines - 1 or block.count(b"}\n{") == lines - 1)
        and block.isascii()
        and b"[" not in block
        and b"\\" not in block
        and b"\x7f" not in block
    )


def _why_not(line: bytes) -> str | None:
    """The error of a line that can be seen without decoding it, or None."""
    if len(line) > LINE_BYTES_MAX:
        return TOO_LONG
    if line.count(b"{") + line.count(b"[") > BRACKETS_MAX:
        return f"more than {BRACKETS_MAX} brackets"
    if not line.isascii():
        # The decoder passes over texts of unknown fields without looking.
        try:
            line.decode()
        except UnicodeDecodeError as error:
            return f"not UTF-8 (byte {error.start})"
    return None


def _unprintable(tick: Tick) -> str | None:
    """Why a tick's texts are not acceptable, or None."""
    if _UNPRINTABLE.search(tick.symbol):
        return "symbol: control character"
    if tick.event_id is not None and _UNPRINTABLE.search(tick.event_id):
        return "event_id: control character"
    return None


def _explain(error: msgspec.DecodeError) -> str:
    """The decoder's message with the field first: `price: expected `float` > 0.0`. It never quotes the input."""
    text = str(error)
    where = _WHERE.match(text)
    if where is not None and where[2] == "taker":
        return "taker: neither BUY nor SELL"
    if where is None or not where[2]:
        return text[:1].lower() + text[1:] if not text.startswith("JSON") else text
    return f"{where[2]}: {where[1][:1].lower()}{where[1][1:]}"
