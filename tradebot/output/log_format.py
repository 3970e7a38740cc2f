"""One log line as JSON or as text for people. Pure: what is logged goes in, a line comes out."""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import isfinite
from typing import Final

import msgspec

from tradebot.core.errors import TradebotError
from tradebot.output.redaction import clip, escape, mask

Fields = Mapping[str, object]

MAX_TEXT_CHARS: Final = 8192
"""A longer text in a message or field loses its middle."""
MAX_LINE_CHARS: Final = 65536
_MAX_ITEMS: Final = 100
_MAX_DEPTH: Final = 3
_MAX_INTEGER_BITS: Final = 256
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_encode_fast: Final = msgspec.json.Encoder().encode
_encode_ascii: Final = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"), default=str).encode


def timestamp(now_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds: 2023-11-14T22:13:20.000Z."""
    second, ms = divmod(now_ms, 1000)
    return f"{_second(second)}.{ms:03d}Z"


@lru_cache(maxsize=4)
def _second(unix_s: int) -> str:
    return (_EPOCH + timedelta(seconds=unix_s)).strftime("%Y-%m-%dT%H:%M:%S")


def json_line(now_ms: int, level: str, message: str, fields: Fields, target: str) -> str:
    """One JSON object on one line, without the newline. Never raises; the line is ASCII and bounded in length.

    Numbers are unrounded; what JSON cannot hold (not-a-number, other types) becomes text.
    """
    all_fields = {"message": message, **fields}
    record: dict[str, object] = {"timestamp": timestamp(now_ms), "level": level, "fields": all_fields, "target": target}
    return _plain_line(record) or _careful_line(record, all_fields)


def _plain_line(record: dict[str, object]) -> str | None:
    """The line, if it is an ordinary one (nearly all are): then no field needs a look of its own. Else None."""
    try:
        line = _encode_fast(record)
    except Exception:
        # Whatever a field's type does when encoded, a log line must not fail because of what it shows.
        return None
    # Not ASCII, or a delete character: could act on a terminal. null: may stand for not-a-number. "://": may need
    # masking. Long: needs clipping.
    if len(line) > MAX_TEXT_CHARS or not line.isascii() or b"://" in line or b"null" in line or b"\x7f" in line:
        return None
    return line.decode("ascii")


def _careful_line(record: dict[str, object], fields: Fields) -> str:
    cleaned = plain_fields(fields)
    # ASCII only: every control character and bidi override is spelled out, and the line fits a stream of any encoding.
    line = _encode_ascii({**record, "fields": cleaned})
    if len(line) > MAX_LINE_CHARS:
        message = cleaned["message"]
        line = _encode_ascii({**record, "fields": {"message": message, "fields_left_out": len(cleaned) - 1}})
    return line


def plain_fields(fields: Fields) -> dict[str, object]:
    """`fields` with plain values only: masked, clipped, finite or text, bounded in depth and number. Never raises."""
    return {_text(key): _plain(_builtin(value), _MAX_DEPTH) for key, value in list(fields.items())[:_MAX_ITEMS]}


def _builtin(value: object) -> object:
    """`value` as the fast encoder would see it, so that both ways to a line show it alike."""
    try:
        return msgspec.to_builtins(value, enc_hook=_text)
    except Exception:
        return value


def _plain(value: object, depth: int) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        bits = value.bit_length()
        return int(value) if bits <= _MAX_INTEGER_BITS else f"(integer of {bits} bits)"
    if isinstance(value, float):
        return float(value) if isfinite(value) else str(float(value))
    if depth and isinstance(value, dict):
        return {_text(key): _plain(item, depth - 1) for key, item in list(value.items())[:_MAX_ITEMS]}
    if depth and isinstance(value, list | tuple):
        return [_plain(item, depth - 1) for item in value[:_MAX_ITEMS]]
    return _text(value)


def _text(value: object) -> str:
    try:
        text = str(value)
    except Exception as error:
        return f"(unprintable {type(value).__name__}: {type(error).__name__})"
    return clip(mask(text), MAX_TEXT_CHARS)


def exception_fields(error: BaseException) -> dict[str, object]:
    """Type, message and traceback of an exception as text; an error written for people needs no traceback."""
    fields: dict[str, object] = {"error_type": type(error).__name__, "error": _text(error)}
    if not isinstance(error, TradebotError):
        fields["traceback"] = _text("".join(traceback.format_exception(error)))
    return fields


def text_columns(now_ms: int, message: str, fields: Fields) -> tuple[str, str, str]:
    """Time, message and fields for a terminal: escaped, on one line except for a traceback, indented below. UTC."""
    stamp = timestamp(now_ms).replace("T", " ")
    cleaned = plain_fields(fields)
    trace = cleaned.pop("traceback", None)
    shown = "".join(f" {escape(key)}={_shown(value)}" for key, value in cleaned.items())
    if trace is not None:
        # The bar marks every line as belonging to the one above, so that no text can pose as a line of its own.
        shown += "".join(f"\n    | {escape(line)}" for line in str(trace).rstrip().split("\n"))
    return stamp, escape(_text(message)), shown


def _shown(value: object) -> str:
    text = str(value) if isinstance(value, str | float | int) else _encode_ascii(value)
    if isinstance(value, str) and (not text or any(char in text for char in ' "=')):
        text = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return escape(text)
