"""Describes a replay input without ticks: one sentence that says what the file looks like and what to do. Pure.

Only the beginning is looked at. Nothing is read differently because of what is found here.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

import msgspec

from tradebot.feeds.exchanges import EXCHANGES, NAMES
from tradebot.feeds.exchanges.base import Unparseable
from tradebot.feeds.replay.line_splitter import BOM
from tradebot.feeds.replay.tick_lines import LineDecoder

HEAD_BYTES: Final = 1 << 16
"""How much of an input `describe` wants to see."""

_LINES_MAX: Final = 50
_FIELDS_SHOWN: Final = 8
_CHARS_SHOWN: Final = 60
_TICK_LINES: Final = 'one {"symbol","price","volume","ts"} per line'
_CONVERT: Final = f"convert it to tick lines first: {_TICK_LINES}"
_UNPACK: Final = "unpack it and give the file inside"

_MAGIC: Final[tuple[tuple[bytes, str, str], ...]] = (
    (b"PK\x03\x04", "a zip archive", _UNPACK),
    (b"PK\x05\x06", "an empty zip archive", "give a file with ticks in it"),
    (b"\xfd7zXZ\x00", "an xz archive", _UNPACK + " (xz -dk FILE)"),
    (b"BZh", "a bzip2 archive", _UNPACK + " (bunzip2 -k FILE)"),
    (b"\x04\x22\x4d\x18", "an lz4 archive", _UNPACK + " (lz4 -d FILE)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"PAR1", "a Parquet file", _CONVERT),
    (b"ARROW1", "an Arrow file", _CONVERT),
    (b"SQLite format 3\x00", "a SQLite database", "to replay a run of a tradebot database, use --replay-db=FILE"),
    (b"\x89HDF", "an HDF5 file", _CONVERT),
    (b"\x93NUMPY", "a NumPy array", _CONVERT),
    (b"%PDF", "a PDF document", "give a file with ticks in it"),
    (b"\x7fELF", "a program", "give a file with ticks in it"),
    (b"\x1f\x8b", "gzip data that cannot be read", "fetch the file again: it is damaged"),
    (b"\x28\xb5\x2f\xfd", "Zstandard data that cannot be read", "fetch the file again: it is damaged"),
)
_TAR: Final = (257, b"ustar")
_UTF_BOMS: Final = (
    (b"\xff\xfe\x00\x00", "UTF-32"), (b"\x00\x00\xfe\xff", "UTF-32"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"),
)  # fmt: skip
_TIME_IN_FRONT: Final = re.compile(r"\s*\d{9,19}(?:\.\d+)?[\s:;,|]+(?=[\[{])")
_NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
# Commas last: they may be decimal commas, or stand in a text.
_TABLES: Final = ((";", "CSV (semicolons)"), ("\t", "tab-separated values"), ("|", "CSV (bars)"), (",", "CSV"))
_CANDLE_WORDS: Final = frozenset({"open", "high", "low", "close"})
_OBJECTS_ON_ONE_LINE: Final = re.compile(r"\}\s*\{")
_decode: Final = msgspec.json.Decoder().decode


def describe(head: bytes, exchange: str | None) -> str:
    """What an input that begins with `head` (HEAD_BYTES are enough) looks like, and what to do about it.

    `exchange` is the one whose frames it was read as, None when it was read as tick lines. Never raises.
    """
    if not head:
        return "is empty"
    if head.startswith(b"\x1f\x8b") and _is_gzip(head):
        return "looks like gzip data that was compressed twice; decompress it once (gunzip <FILE >NEW)"
    for magic, what, advice in _MAGIC:
        if head.startswith(magic):
            return f"looks like {what}; {advice}"
    if head[_TAR[0] :].startswith(_TAR[1]):
        return f"looks like a tar archive; {_UNPACK}"
    encoding = _wide_encoding(head)
    if encoding is not None:
        return f"looks like {encoding} text; convert it: iconv -f {encoding} -t UTF-8 FILE >NEW"
    if b"\x00" in head:
        return f"looks like binary data; tick lines are text: {_TICK_LINES}"
    lines = _lines(head)
    if not lines:
        return "contains only white space"
    if b"\n" not in head and b"\r" in head.strip():
        return "looks like text whose lines end with CR alone; convert the line ends to LF (tr '\\r' '\\n' <FILE >NEW)"
    return _frames(lines, exchange) or _json(head, lines, exchange) or _markup(lines) or _table(lines) or _text(lines)


def has_commas_between(head: bytes) -> bool:
    """Whether an input begins as JSON objects separated by commas, of which only the last can be a tick line."""
    lines = _lines(head)
    if not lines:
        return False
    first = lines[0].strip()
    if first in ("[", "[{"):
        return True
    return first.startswith(("{", "[{")) and first.endswith("},")


def _is_gzip(head: bytes) -> bool:
    """Whether the data can be unpacked, at least its beginning."""
    try:
        return bool(zlib.decompressobj(wbits=31).decompress(head, 1))
    except zlib.error:
        return False


def _wide_encoding(head: bytes) -> str | None:
    for mark, name in _UTF_BOMS:
        if head.startswith(mark):
            return name
    sample = head[:512]
    # Latin text in UTF-16 without a mark: every other byte is zero.
    for name, zeros, others in (("UTF-16LE", sample[1::2], sample[::2]), ("UTF-16BE", sample[::2], sample[1::2])):
        if len(zeros) > 3 and not zeros.strip(b"\x00") and b"\x00" not in others:
            return name
    return None


def _lines(head: bytes) -> list[str]:
    """The first lines that are not blank; the last of them may be cut short."""
    text = head.removeprefix(BOM).decode("utf-8", "replace")
    return [line for line in text.splitlines() if line.strip()][:_LINES_MAX]


def _frames(lines: Sequence[str], exchange: str | None) -> str | None:
    """Frames of an exchange, perhaps each preceded by its time of receipt."""
    bare = [_TIME_IN_FRONT.sub("", line, count=1) for line in lines]
    found = _exchange_of(bare)
    if found is None:
        return None
    if bare != list(lines):
        return (
            f"looks like frames of {found} with a time before each frame; remove the times"
            f" (sed -E 's/^[^[{{]*//' FILE >NEW) and replay that with --exchange={found}"
        )
    if exchange == found:
        return f"contains frames of {found}, but no trades; record its trade channel"
    return f"looks like frames of {found}; use --exchange={found}"


def _exchange_of(lines: Sequence[str]) -> str | None:
    """The exchange whose trade frames these are."""
    for name in NAMES:
        if name == "mockws":
            continue  # its frames are tick lines
        adapter = EXCHANGES[name]()
        for line in lines:
            try:
                parsed = adapter.parse(line)
            except Unparseable:
                continue
            if parsed.ticks or parsed.history:
                return name
    return None


def _json(head: bytes, lines: Sequence[str], exchange: str | None) -> str | None:
    first = lines[0].lstrip()
    if first.startswith("["):
        if len(first) > 1 and _value(first) is not None and len(lines) > 1:
            return f"looks like lines of JSON arrays; {_CONVERT}"
        return f"looks like one JSON array; write its elements as lines (jq -c '.[]' FILE >NEW): {_TICK_LINES}"
    if not first.startswith("{"):
        return None
    value = _value(first)
    if isinstance(value, dict):
        if exchange is not None and _reason(first) is None:
            return f"looks like tick lines, which need no --exchange; leave out --exchange={exchange}"
        if exchange is not None:
            return f"contains JSON lines, but no trade frames of {exchange}; is --exchange={exchange} right?"
        keys = ", ".join(_short(str(key)) for key in list(value)[:_FIELDS_SHOWN])
        missing = [key for key in ("symbol", "price", "volume", "ts") if key not in value]
        if not missing and (reason := _reason(first)) is not None:
            return f"contains JSON lines with {keys}, but the first is not a tick: {reason}"
        lacks = f", without {', '.join(missing)}" if missing else ""
        return f"looks like JSON lines with {keys or 'no fields'}{lacks}; {_CONVERT}"
    if first.strip() == "{" or _value(head.removeprefix(BOM).decode("utf-8", "replace")) is not None:
        return f"looks like one JSON document over several lines; {_CONVERT}"
    if isinstance(_value(first.rstrip().removesuffix(",")), dict):
        return "looks like JSON objects with commas between them; remove the commas (sed 's/},$/}/' FILE >NEW)"
    if _OBJECTS_ON_ONE_LINE.search(first):
        return f"looks like several JSON objects on one line; write one per line (jq -c . FILE >NEW): {_TICK_LINES}"
    return f"looks like JSON that is damaged from its first line on; tick lines are {_TICK_LINES}"


def _reason(line: str) -> str | None:
    """Why a line is not a tick."""
    notes = LineDecoder().feed(line.encode("utf-8", "replace") + b"\n").notes
    return notes[0].reason if notes else None


def _value(text: str) -> Any:
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _markup(lines: Sequence[str]) -> str | None:
    first = lines[0].lstrip().lower()
    if not first.startswith("<"):
        return None
    what = "a web page" if first.startswith(("<!doctype html", "<html")) else "XML"
    return f"looks like {what}; was the download refused? Give a file with ticks in it"


def _table(lines: Sequence[str]) -> str | None:
    """Lines with an equal number of fields, separated by the same character."""
    # The last line may be cut short, and a first line without separators may be a title.
    body = list(lines[:-1]) or list(lines)
    for separator, name in _TABLES:
        titled = len(body) > 2 and body[0].count(separator) != body[1].count(separator)
        counts = [line.count(separator) for line in (body[1:] if titled else body)]
        if min(counts) < 1 or any(a != b for a, b in pairwise(counts)):
            continue
        rows = list(_rows(body[1:] if titled else body, separator))
        return f"looks like {name} of {_columns(rows)}; {_CONVERT}"
    return None


def _rows(lines: Sequence[str], separator: str) -> Iterator[list[str]]:
    for line in lines:
        yield [field.strip().strip('"').strip() for field in line.split(separator)]


def _columns(rows: Sequence[Sequence[str]]) -> str:
    first = rows[0]
    if not any(_NUMBER.fullmatch(field) for field in first):
        names = [field.lower() for field in first]
        what = "candles" if {name.rpartition(" ")[2] for name in names} >= _CANDLE_WORDS else "rows"
        if what == "rows" and {"bid", "ask"} <= set(names):
            what = "quotes"
        shown = ", ".join(_short(field) for field in first[:_FIELDS_SHOWN])
        return f"{what} with the columns {shown}{', ...' if len(first) > _FIELDS_SHOWN else ''}"
    booleans = [field.lower() in ("true", "false") for field in first]
    if len(first) == 7 and booleans[5:] == [True, True]:
        return "Binance trades (id, price, qty, quote_qty, time, is_buyer_maker, is_best_match)"
    if len(first) == 6 and booleans[5]:
        return "Binance futures trades (id, price, qty, quote_qty, time, is_buyer_maker)"
    if len(first) in (7, 8) and booleans[6]:
        return "Binance aggregate trades (id, price, qty, first id, last id, time, is_buyer_maker)"
    if len(first) == 3 and all(_NUMBER.fullmatch(field) for field in first):
        return "three numbers per line, as in Kraken's trade files (time, price, volume)"
    return f"{len(first)} fields a line"


def _text(lines: Sequence[str]) -> str:
    return f"looks like text that begins with {_short(lines[0])!r}; tick lines are {_TICK_LINES}"


def _short(text: str) -> str:
    plain = "".join(char if char.isprintable() else "?" for char in text.strip())
    return plain if len(plain) <= _CHARS_SHOWN else plain[: _CHARS_SHOWN - 3] + "..."
