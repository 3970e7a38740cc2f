"""Answers for scripts: one JSON object on one line, in ASCII, so that any stream can carry it unchanged."""

from __future__ import annotations

import json
import math

import msgspec

from tradebot.output.redaction import mask


def json_answer(value: object) -> str:
    """`value` (Structs, named tuples, mappings, plain values) as one line of JSON; credentials in URLs are masked.

    Numbers that are not finite become null, other things that JSON cannot express become text. The names of a named
    tuple's fields are kept.
    """
    return json.dumps(_plain(value)) + "\n"


def _plain(value: object) -> object:
    if isinstance(value, str):
        return mask(str(value))
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return mask(str(value))
