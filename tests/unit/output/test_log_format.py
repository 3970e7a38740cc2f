"""One line of log: exactly the documented JSON, or columns for people; safe whatever is logged (G4)."""

from __future__ import annotations

import json
from collections import UserDict
from decimal import Decimal
from enum import IntEnum
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradebot.core.errors import ConfigError
from tradebot.output.log_format import (
    MAX_LINE_CHARS,
    MAX_TEXT_CHARS,
    exception_fields,
    json_line,
    text_columns,
    timestamp,
)

NOW_MS = 1_700_000_000_123


def fields_of(line: str) -> dict[str, Any]:
    """The fields of a line, without its message."""
    fields: dict[str, Any] = json.loads(line)["fields"]
    del fields["message"]
    return fields


def logged(**fields: object) -> dict[str, Any]:
    return fields_of(json_line(NOW_MS, "INFO", "m", fields, "t"))


def test_exact_form() -> None:
    line = json_line(NOW_MS, "INFO", "signal generated", {"event": "signal generated", "n": 1, "x": 0.1}, "strategy")
    assert line == (
        '{"timestamp":"2023-11-14T22:13:20.123Z","level":"INFO",'
        '"fields":{"message":"signal generated","event":"signal generated","n":1,"x":0.1},"target":"strategy"}'
    )


@pytest.mark.parametrize(
    ("now_ms", "shown"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (999, "1970-01-01T00:00:00.999Z"),
        (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
    ],
)
def test_timestamp_is_rfc_3339_with_milliseconds(now_ms: int, shown: str) -> None:
    assert timestamp(now_ms) == shown


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**200), 2**200))
def test_numbers_are_numbers_to_the_last_digit(real: float, whole: int) -> None:
    """SMA_CALC's fields are compared to the last digit. The text makes one line take the careful way."""
    for extra in ("plain", "wss://a:b@c"):
        fields = logged(real=real, whole=whole, extra=extra)
        assert repr(fields["real"]) == repr(real)
        assert fields["whole"] == whole


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_cannot_hold_become_text(value: float) -> None:
    assert logged(x=value, y=[value]) == {"x": str(value), "y": [str(value)]}


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(), inner, max_size=4),
    max_leaves=12,
)


@given(st.text(st.characters()), st.dictionaries(st.text(st.characters()), ANYTHING, max_size=5))
def test_any_line_is_one_ascii_line_of_valid_json(message: str, fields: dict[str, object]) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    line = json_line(NOW_MS, "INFO", message, {f"f_{key}": value for key, value in fields.items()}, "t")
    assert line.isascii()
    assert line.isprintable()
    record = json.loads(line, parse_constant=refuse)
    assert list(record) == ["timestamp", "level", "fields", "target"]
    assert next(iter(record["fields"])) == "message"
    assert len(record["fields"]) == 1 + len(fields)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=50).filter(lambda text: "://" not in text))
def test_text_comes_back_as_it_was(text: str) -> None:
    assert logged(x=text) == {"x": text}


def test_terminal_tricks_are_spelled_out() -> None:
    line = json_line(NOW_MS, "INFO", "m", {"symbol": "\x1b[31m\u202eX\n\x7f\x9b"}, "t")
    assert r'"\u001b[31m\u202eX\n\u007f\u009b"' in line


@pytest.mark.parametrize("char", ["\x00", "\n", "\r", "\x1b", "\x7f", "\x9b", "\u202e", "\u2028", "\ud800"])
def test_each_trick_alone_is_spelled_out(char: str) -> None:
    line = json_line(NOW_MS, "INFO", "m", {"symbol": char}, "t")
    assert char not in line
    assert line.isprintable()
    assert json.loads(line)["fields"]["symbol"] == char


def test_credentials_are_masked_wherever_they_stand() -> None:
    url, shown = "wss://bob:pw@host/?token=abc", "wss://***@host/?token=***"
    line = json_line(NOW_MS, "INFO", f"to {url}", {"a": url, "b": [url], "c": {url: {"d": url}}}, "t")
    assert json.loads(line)["fields"] == {
        "message": f"to {shown}",
        "a": shown,
        "b": [shown],
        "c": {shown: {"d": shown}},
    }


class Mode(IntEnum):
    SHADOW = 7


class Point(msgspec.Struct):
    x: float


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Mode.SHADOW, 7),
        (Decimal("1.10"), "1.10"),
        (Point(1.5), {"x": 1.5}),
        ((1, 2), [1, 2]),
        (b"ab", "YWI="),
        (None, None),
        (ValueError("bad"), "bad"),
        (UserDict(a=1), "{'a': 1}"),
        (Hostile(), "(unprintable Hostile: RuntimeError)"),
        pytest.param(2**20000, "(integer of 20001 bits)", id="huge"),
    ],
)
def test_other_types_look_the_same_on_the_fast_and_the_careful_way(value: object, shown: object) -> None:
    assert logged(x=value) == {"x": shown}
    assert logged(x=value, url="ws://h") == {"x": shown, "url": "ws://h"}


def test_a_structure_that_holds_itself_is_no_error() -> None:
    loop: list[object] = []
    loop.append(loop)
    assert "x" in logged(x=loop)


def test_long_texts_lose_their_middle() -> None:
    fields = logged(x="a" + "b" * 1_000_000 + "c")
    assert len(fields["x"]) < MAX_TEXT_CHARS + 50
    assert fields["x"].startswith("ab")
    assert fields["x"].endswith("bc")


def test_a_line_is_bounded_whatever_is_logged() -> None:
    many = {f"field{n}": "\U0001f600" * 5000 for n in range(90)}
    line = json_line(NOW_MS, "INFO", "\U0001f600" * 100_000, many, "t")
    assert len(line) <= 2 * MAX_LINE_CHARS
    assert json.loads(line)["fields"]["fields_left_out"] == 90


def test_exceptions_are_text() -> None:
    try:
        raise ValueError("cannot reach wss://a:b@c") from KeyError("k")
    except ValueError as error:
        fields = exception_fields(error)
    assert fields["error_type"] == "ValueError"
    assert fields["error"] == "cannot reach wss://***@c"
    assert "KeyError: 'k'" in str(fields["traceback"])
    assert "test_log_format.py" in str(fields["traceback"])
    assert "a:b" not in str(fields)


def test_errors_written_for_people_have_no_traceback() -> None:
    assert exception_fields(ConfigError("no such file")) == {"error_type": "ConfigError", "error": "no such file"}


def test_columns_for_people() -> None:
    columns = text_columns(NOW_MS, "batch flushed", {"persisted": 100, "took_ms": 0.25, "note": "a b", "empty": ""})
    assert columns == (
        "2023-11-14 22:13:20.123Z",
        "batch flushed",
        ' persisted=100 took_ms=0.25 note="a b" empty=""',
    )


def test_columns_cannot_be_forged() -> None:
    """A feed's text can neither end the line, nor colour it, nor pretend to be another field."""
    _, message, shown = text_columns(NOW_MS, "a\nb", {"symbol": 'X" mode=LIVE \\\n\x1b[2J\u202e', "url": "ws://a:b@c"})
    assert message == "a\\nb"
    assert shown == r' symbol="X\" mode=LIVE \\\n\x1b[2J\u202e" url=ws://***@c'


def test_a_traceback_stands_below_its_line_marked_as_belonging_to_it() -> None:
    _, _, shown = text_columns(NOW_MS, "crash", {"n": 1, "traceback": "one\n  two\x1b\n2023-11-14 INFO forged\n"})
    assert shown == " n=1\n    | one\n    |   two\\x1b\n    | 2023-11-14 INFO forged"
