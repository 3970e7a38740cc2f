from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mockws_server.actions import (
    DATA_BYTES_MAX,
    NAMES,
    Action,
    BadAction,
    Burst,
    DelayHandshake,
    Disconnect,
    DropPings,
    Duplicate,
    FrameOut,
    Garbage,
    HalfFrame,
    OneTick,
    Quit,
    Raw,
    Refuse,
    Reject,
    Reorder,
    Reset,
    Skip,
    Stall,
    Text,
    Ticks,
    Wait,
    decode,
    describe,
    encode,
    from_table,
)

EXAMPLES: list[tuple[dict[str, Any], Action]] = [
    ({"do": "ticks", "count": 3, "per_s": 2}, Ticks(3, 2.0)),
    ({"do": "ticks", "count": 3, "per_s": 0.5, "symbols": ["A", "B"]}, Ticks(3, 0.5, ["A", "B"])),
    ({"do": "burst", "count": 3}, Burst(3)),
    ({"do": "burst", "count": 3, "seconds": 1.5}, Burst(3, 1.5)),
    ({"do": "tick", "tick": {"price": "no number"}}, OneTick({"price": "no number"})),
    ({"do": "text", "data": "hello"}, Text("hello")),
    ({"do": "raw", "data": "gQJoaQ=="}, Raw(b"\x81\x02hi")),
    ({"do": "frame", "opcode": 1, "data": "//8="}, FrameOut(1, b"\xff\xff")),
    ({"do": "frame", "opcode": 2, "fin": False}, FrameOut(2, fin=False)),
    ({"do": "garbage", "count": 12}, Garbage(12)),
    ({"do": "wait", "seconds": 3}, Wait(3.0)),
    ({"do": "stall", "seconds": 3}, Stall(3.0)),
    ({"do": "half_frame"}, HalfFrame()),
    ({"do": "disconnect"}, Disconnect(1000)),
    ({"do": "disconnect", "code": 1011, "reason": "busy"}, Disconnect(1011, "busy")),
    ({"do": "reset"}, Reset()),
    ({"do": "refuse", "count": 2}, Refuse(2)),
    ({"do": "refuse", "seconds": 2, "reset": True}, Refuse(None, 2.0, True)),
    ({"do": "delay_handshake", "seconds": 2}, DelayHandshake(2.0)),
    ({"do": "reject", "status": 429, "retry_after_s": 1}, Reject(429, 1, 1)),
    ({"do": "drop_pings", "seconds": 2}, DropPings(2.0)),
    ({"do": "duplicate", "count": 5}, Duplicate(5)),
    ({"do": "skip", "count": 5}, Skip(5)),
    ({"do": "reorder", "count": 5}, Reorder(5)),
    ({"do": "quit"}, Quit()),
]


@pytest.mark.parametrize(("table", "action"), EXAMPLES, ids=lambda value: value["do"] if type(value) is dict else "")
def test_each_action_in_json_and_in_toml(table: dict[str, Any], action: Action) -> None:
    assert decode(json.dumps(table).encode()) == action
    assert from_table(table) == action
    assert decode(encode(action)) == action
    assert describe(action).split()[0] == table["do"]


def test_all_actions_are_among_the_examples() -> None:
    assert {table["do"] for table, _ in EXAMPLES} == set(NAMES)
    assert len(NAMES) == len(get_args(Action)) == 20


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "truncated"),
        ("[]", "expected `object`"),
        ('{"count": 3}', "do: missing; it is one of ticks, "),
        ('{"do": "tick s"}', "do: unknown action"),
        ('{"do": "ticks", "count": 3}', "missing required field `per_s`"),
        ('{"do": "ticks", "count": 0, "per_s": 1}', "count: expected `int` >= 1"),
        ('{"do": "ticks", "count": 1.5, "per_s": 1}', "count: expected `int`"),
        ('{"do": "ticks", "count": "3", "per_s": 1}', "count: expected `int`"),
        ('{"do": "ticks", "count": 3, "per_s": 0}', "per_s: expected `float` >= 0.001"),
        ('{"do": "ticks", "count": 3, "per_s": 1e7}', "per_s: expected `float` <= "),
        ('{"do": "ticks", "count": 3, "per_s": 1, "symbols": []}', "symbols: expected `array`"),
        ('{"do": "burst", "count": 99999999}', "count: expected `int` <= 10000000"),
        ('{"do": "tick", "tick": []}', "tick: expected `object`"),
        ('{"do": "raw", "data": "?"}', "data: invalid base64"),
        ('{"do": "frame", "opcode": 16}', "opcode: expected `int` <= 15"),
        ('{"do": "wait", "seconds": 0}', "seconds: expected `float` > 0"),
        ('{"do": "disconnect", "code": 65536}', "code: expected `int` <= 65535"),
        (json.dumps({"do": "disconnect", "reason": "é" * 100}), "reason: longer than 123 bytes"),
        ('{"do": "refuse"}', "refuse: needs either count or seconds"),
        ('{"do": "refuse", "count": 1, "seconds": 1}', "refuse: needs either count or seconds"),
        ('{"do": "reject"}', "missing required field `status`"),
        ('{"do": "reject", "status": 200}', "status: expected `int` >= 300"),
        ('{"do": "reorder", "count": 1}', "count: expected `int` >= 2"),
        ('{"do": "duplicate", "count": 1001}', "count: expected `int` <= 1000"),
        ('{"do": "reset", "code": 3}', "object contains unknown field `code`"),
    ],
)
def test_what_is_wrong_is_said_on_one_line(text: str, says: str) -> None:
    with pytest.raises(BadAction) as caught:
        decode(text.encode())
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_action_of_a_file_gets_a_hint() -> None:
    with pytest.raises(BadAction, match=r'^do: unknown action "disconect" \(did you mean disconnect\?\)$'):
        from_table({"do": "disconect"})


def test_deep_nesting_and_bytes_that_are_no_text_are_refused() -> None:
    for data in (b"\xff", b'{"do":"text","data":"\xff"}', b'{"do":"tick","tick":{"a":' + b"[" * 100_000):
        with pytest.raises(BadAction):
            decode(data)


def test_data_is_bounded() -> None:
    data = base64.b64encode(b"x" * (DATA_BYTES_MAX + 1)).decode()
    with pytest.raises(BadAction, match="data: expected `bytes` of length <="):
        decode(json.dumps({"do": "raw", "data": data}).encode())


@given(st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(msgspec.json.encode))
def test_any_bytes_are_an_action_or_refused(data: bytes) -> None:
    with suppress(BadAction):
        decode(data)


def test_descriptions_are_short_and_say_what_differs() -> None:
    assert describe(Disconnect(1000)) == "disconnect code=1000"
    assert describe(Disconnect(1011, "a\nb")) == 'disconnect code=1011 reason="a\\u000ab"'
    assert describe(Ticks(5, 2.5)) == "ticks count=5 per_s=2.5"
    assert describe(Raw(b"abc")) == "raw data=3 bytes"
    assert describe(Refuse(seconds=2.0, reset=True)) == "refuse seconds=2 reset=True"
    assert describe(Quit()) == "quit"
    assert len(describe(OneTick({"x": "y" * 1000}))) <= 160
