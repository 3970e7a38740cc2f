"""Answers for scripts: one line of ASCII that is JSON whatever is in it, and nothing secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from tradebot.core.errors import ExitCode
from tradebot.output.json_answer import json_answer


class Row(Struct, frozen=True):
    name: str
    inner: tuple[int, ...]


class Pair(NamedTuple):
    left: object
    right: object


def test_structs_tuples_and_plain_values() -> None:
    value = {"row": Row("a", (1, 2)), "pair": Pair(None, True), "code": ExitCode.OVERLOAD, "path": Path("/x"), 3: [0.5]}
    assert json.loads(json_answer(value)) == {
        "row": {"name": "a", "inner": [1, 2]},
        "pair": {"left": None, "right": True},
        "code": 13,
        "path": "/x",
        "3": [0.5],
    }


def test_any_text_is_one_line_of_ascii() -> None:
    text = 'é\n\x1b[2J\u202e\udcff"\\'
    line = json_answer({"text": text})
    assert line.isascii() and line.count("\n") == 1 and "\x1b" not in line
    assert json.loads(line) == {"text": text}


def test_numbers_that_json_has_not_are_null() -> None:
    assert json.loads(json_answer([float("nan"), float("inf"), -float("inf"), 1e300])) == [None, None, None, 1e300]


def test_credentials_are_masked_wherever_they_are() -> None:
    url = "wss://user:hunter2@h/?token=hunter2"
    line = json_answer({"a": url, "b": [Row(url, ())], "c": Pair({"d": url}, f"see {url}")})
    assert "hunter2" not in line and line.count("wss://***@h/?token=***") == 4
