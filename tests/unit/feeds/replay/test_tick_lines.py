"""JSON lines to ticks: what is accepted, what is malformed, and that the cutting of the input never matters."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tradebot.core.events import AMOUNT_MAX, BUY, SELL, TS_MS_MAX, Tick
from tradebot.feeds.base import NOTES_MAX, FeedBatch, Malformed
from tradebot.feeds.replay.line_splitter import LINE_BYTES_MAX
from tradebot.feeds.replay.tick_lines import BRACKETS_MAX, LineDecoder

GOOD = b'{"symbol":"a","price":1.5,"volume":2,"ts":3}'
TICK = Tick("a", 1.5, 2.0, 3)


def _line(symbol: str = '"a"', price: str = "1", volume: str = "1", ts: str = "1", more: str = "") -> bytes:
    return f'{{"symbol":{symbol},"price":{price},"volume":{volume},"ts":{ts}{more}}}'.encode()


MALFORMED = {
    "not json": b"hello",
    "half a tick": GOOD[:20],
    "a list of ticks": b"[" + GOOD + b"]",
    "null": b"null",
    "number": b"5",
    "text": b'"x"',
    "empty object": b"{}",
    "zero byte": b"\x00",
    "zero byte after a tick": GOOD + b"\x00",
    "two ticks": GOOD + GOOD,
    "two ticks, comma": GOOD + b"," + GOOD,
    "two ticks, space": GOOD + b" " + GOOD,
    "two ticks, lone carriage return": GOOD + b"\r" + GOOD,
    "trailing brace": GOOD + b"}",
    "trailing comma": GOOD[:-1] + b",}",
    "byte order mark not at the start": b"\xef\xbb\xbf" + GOOD,
    "bad UTF-8 symbol": _line().replace(b'"a"', b'"\xff"'),
    "bad UTF-8 in an unknown field": GOOD[:-1] + b',"x":"\xff"}',
    "bad UTF-8 after a tick": GOOD + b" \xc3",
    "UTF-16": GOOD.decode().encode("utf-16-le"),
    "lone surrogate": _line(symbol='"\\ud800"'),
    "NUL in symbol": _line(symbol='"a\\u0000"'),
    "raw control character in symbol": _line(symbol='"a\x01"'),
    "newline in symbol": _line(symbol='"a\\n"'),
    "escape character in symbol": _line(symbol='"\\u001b[31m"'),
    "DEL in symbol": _line(symbol='"a\x7f"'),
    "C1 control in symbol": _line(symbol='"a\x9b"'),
    "line separator in symbol": _line(symbol='"a\u2028"'),
    "control character in event_id": _line(more=',"event_id":"\\u0007"'),
    "symbol missing": b'{"price":1,"volume":1,"ts":1}',
    "symbol empty": _line(symbol='""'),
    "symbol too long": _line(symbol='"' + 65 * "s" + '"'),
    "symbol null": _line(symbol="null"),
    "symbol number": _line(symbol="1"),
    "price missing": b'{"symbol":"a","volume":1,"ts":1}',
    "price zero": _line(price="0"),
    "price minus zero": _line(price="-0.0"),
    "price negative": _line(price="-1"),
    "price text that is no number": _line(price='"1,5"'),
    "price text below zero": _line(price='"-1"'),
    "price text not finite": _line(price='"1e999"'),
    "price text empty": _line(price='""'),
    "price above the bound": _line(price="1.1e100"),
    "price text above the bound": _line(price='"1.1e100"'),
    "volume above the bound": _line(volume="1.1e100"),
    "price bool": _line(price="true"),
    "price null": _line(price="null"),
    "price list": _line(price="[1]"),
    "price NaN": _line(price="NaN"),
    "price infinite": _line(price="Infinity"),
    "price beyond a double": _line(price="1e999"),
    "price far beyond a double": _line(price="1e99999999999999999999"),
    "price below a double": _line(price="1e-999"),
    "price with leading zero": _line(price="01"),
    "price with plus": _line(price="+1"),
    "price without digits after the point": _line(price="1."),
    "price without digits before the point": _line(price=".5"),
    "volume missing": b'{"symbol":"a","price":1,"ts":1}',
    "volume negative": _line(volume="-0.1"),
    "volume infinite": _line(volume="1e400"),
    "volume bool": _line(volume="false"),
    "ts missing": b'{"symbol":"a","price":1,"volume":1}',
    "ts float": _line(ts="1.0"),
    "ts fraction": _line(ts="1.5"),
    "ts exponent": _line(ts="1e3"),
    "ts text": _line(ts='"1"'),
    "ts bool": _line(ts="true"),
    "ts null": _line(ts="null"),
    "ts negative": _line(ts="-1"),
    "ts beyond 64 bits": _line(ts=str(2**63)),
    "ts in the year 57000": _line(ts="1735689600000000"),
    "ts in nanoseconds after others": _line(ts="1735689600000000000"),
    "ts after 2100 in milliseconds": _line(ts=str(TS_MS_MAX + 1)),
    "ts between the units": _line(ts="99999999999999"),
    "ts text between the units": _line(ts='"99999999999999"'),
    "ts text with a sign": _line(ts='"+1735689600123"'),
    "ts with an offset beyond a day": _line(ts='"2025-01-01T00:00:00+99:00"'),
    "ts with an offset before 1970": _line(ts='"1970-01-01T00:00:00+01:00"'),
    "ts day without a time": _line(ts='"2025-01-01"'),
    "ts in the thirteenth month": _line(ts='"2025-13-01T00:00:00Z"'),
    "ts of 5000 digits": _line(ts=5000 * "9"),
    "event_id number of 200 digits": _line(more=',"event_id":' + 200 * "1"),
    "event_id number with decimals": _line(more=',"event_id":1.5'),
    "control character in a symbol with a price in text": _line(symbol='"a\\n"', price='"1"'),
    "event_id empty": _line(more=',"event_id":""'),
    "event_id too long": _line(more=',"event_id":"' + 129 * "e" + '"'),
    "seq negative": _line(more=',"seq":-1'),
    "seq float": _line(more=',"seq":1.0'),
    "taker another word": _line(more=',"taker":"maker"'),
    "taker empty": _line(more=',"taker":""'),
    "taker number": _line(more=',"taker":1'),
    "taker bool": _line(more=',"taker":true'),
    "taker list": _line(more=',"taker":["BUY"]'),
    "taker control character": _line(more=',"taker":"\\u001b[31m"'),
    "taker another word with a price in text": _line(price='"1"', more=',"taker":"maker"'),
    "nested lists": GOOD[:-1] + b',"x":' + 150 * b"[" + 150 * b"]" + b"}",
    "nested objects": GOOD[:-1] + b',"x":' + 150 * b'{"a":' + b"1" + 150 * b"}" + b"}",
    "nested beyond any stack": GOOD[:-1] + b',"x":' + 100_000 * b"[",
    "only brackets": 100_000 * b"[",
    "comment": b"# ticks",
    "csv": b"a,1,1,1",
}

ACCEPTED = {
    "plain": (GOOD, TICK),
    "spaces": (b' \t{ "symbol" : "a" , "price" : 1.5 , "volume" : 2 , "ts" : 3 } \t', TICK),
    "carriage return": (GOOD + b"\r", TICK),
    "carriage return inside": (GOOD.replace(b",", b",\r"), TICK),
    "other order": (b'{"ts":3,"volume":2.0,"price":15e-1,"symbol":"a"}', TICK),
    "unknown fields": (GOOD[:-1] + b',"x":[1,{"y":null}],"z":"{["}', TICK),
    "the last of a key given twice": (b'{"symbol":"z",' + GOOD[1:], TICK),
    "optional fields": (GOOD[:-1] + b',"event_id":"e","seq":7}', Tick("a", 1.5, 2.0, 3, "e", 7)),
    "optional fields null": (GOOD[:-1] + b',"event_id":null,"seq":null,"taker":null}', TICK),
    "taker": (GOOD[:-1] + b',"taker":"SELL"}', Tick("a", 1.5, 2.0, 3, taker=SELL)),
    "taker after the others": (
        GOOD[:-1] + b',"event_id":"e","seq":7,"taker":"BUY"}',
        Tick("a", 1.5, 2.0, 3, "e", 7, BUY),
    ),
    "taker in small letters": (GOOD[:-1] + b',"taker":"buy"}', Tick("a", 1.5, 2.0, 3, taker=BUY)),
    "taker with a capital": (GOOD[:-1] + b',"taker":"Sell"}', Tick("a", 1.5, 2.0, 3, taker=SELL)),
    "taker and prices in text": (
        _line(price='"1.50"', volume='"2"', more=',"taker":"sell"'),
        Tick("a", 1.5, 2.0, 1, taker=SELL),
    ),
    "a side is not said to be the taker's": (GOOD[:-1] + b',"side":"buy"}', TICK),
    "escaped slash": (_line(symbol='"SOL\\/USDC"'), Tick("SOL/USDC", 1.0, 1.0, 1)),
    "letters of the world": (_line(symbol='"БИТ/元 é"'), Tick("БИТ/元 é", 1.0, 1.0, 1)),
    "escaped letters": (_line(symbol='"\\u00e9\\ud83d\\ude00"'), Tick("é😀", 1.0, 1.0, 1)),
    "symbol of 64 letters": (_line(symbol='"' + 64 * "é" + '"'), Tick(64 * "é", 1.0, 1.0, 1)),
    "volume zero": (_line(volume="0"), Tick("a", 1.0, 0.0, 1)),
    "volume minus zero is zero": (_line(volume="-0.0"), Tick("a", 1.0, 0.0, 1)),
    "ts zero": (_line(ts="0"), Tick("a", 1.0, 1.0, 0)),
    "largest ts": (_line(ts=str(TS_MS_MAX)), Tick("a", 1.0, 1.0, TS_MS_MAX)),
    "seconds": (_line(ts="1735689600"), Tick("a", 1.0, 1.0, 1735689600)),
    "seconds with decimals": (_line(ts="1735689600.1239"), Tick("a", 1.0, 1.0, 1735689600123)),
    "milliseconds with decimals": (_line(ts="1735689600123.9"), Tick("a", 1.0, 1.0, 1735689600123)),
    "ISO time": (_line(ts='"2025-01-01T00:00:00.123456Z"'), Tick("a", 1.0, 1.0, 1735689600123)),
    "ISO time with an offset": (_line(ts='"2025-01-01T02:00:00.5+02:00"'), Tick("a", 1.0, 1.0, 1735689600500)),
    "ISO time west of UTC": (_line(ts='"2024-12-31 19:00:00-0500"'), Tick("a", 1.0, 1.0, 1735689600000)),
    "milliseconds as text": (_line(ts='"1735689600123"'), Tick("a", 1.0, 1.0, 1735689600123)),
    "seconds as text": (_line(ts='"1735689600"'), Tick("a", 1.0, 1.0, 1735689600)),
    "seconds with decimals as text": (_line(ts='"1735689600.1239"'), Tick("a", 1.0, 1.0, 1735689600123)),
    "ISO time without zone": (_line(ts='"2025-01-01 00:00:00"'), Tick("a", 1.0, 1.0, 1735689600000)),
    "price and volume in text": (_line(price='"1.50"', volume='"2"'), Tick("a", 1.5, 2.0, 1)),
    "event_id number": (_line(more=',"event_id":17'), Tick("a", 1.0, 1.0, 1, "17")),
    "smallest price": (_line(price="5e-324"), Tick("a", 5e-324, 1.0, 1)),
    "largest price": (_line(price="1e100"), Tick("a", 1e100, 1.0, 1)),
    "largest volume": (_line(volume="1e100"), Tick("a", 1.0, 1e100, 1)),
    "a hundred brackets": (
        GOOD[:-1] + b',"x":' + (BRACKETS_MAX - 1) * b"[" + (BRACKETS_MAX - 1) * b"]" + b"}",
        TICK,
    ),
}


def _decode(content: bytes, piece_bytes: int = 1 << 16, *, strict: bool = False) -> tuple[FeedBatch, int]:
    """Everything a decoder makes of `content` fed in pieces, notes not bounded, and how many lines it counted."""
    decoder = LineDecoder(strict=strict)
    pieces = [content[place : place + piece_bytes] for place in range(0, len(content), piece_bytes)]
    whole = FeedBatch([])
    notes: list[Malformed] = []
    for batch in [*map(decoder.feed, pieces), decoder.finish()]:
        whole.ticks += batch.ticks
        whole.malformed += batch.malformed
        notes += batch.notes
    whole.notes = tuple(notes)
    return whole, decoder.line


@pytest.mark.parametrize("kind", MALFORMED)
@pytest.mark.parametrize("piece_bytes", [1 << 20, 1 << 16, 7])
def test_a_malformed_line_is_counted_with_its_number_and_costs_nothing_else(kind: str, piece_bytes: int) -> None:
    content = GOOD + b"\n\n" + GOOD + b"\n" + MALFORMED[kind] + b"\n" + GOOD + b"\n" + GOOD
    found, lines = _decode(content, piece_bytes)
    assert found.ticks == [TICK] * 4
    assert [note.line for note in found.notes] == [4]
    assert found.malformed == 1
    assert lines == 6


@pytest.mark.parametrize("kind", MALFORMED)
def test_reasons_are_one_short_printable_line(kind: str) -> None:
    """A reason goes to logs and terminals: it never carries what the feed sent."""
    # In the second line: at the very start a byte order mark is fine.
    (note,) = _decode(GOOD + b"\n" + MALFORMED[kind])[0].notes
    assert 0 < len(note.reason) < 120
    assert note.reason.isprintable()


@pytest.mark.parametrize("kind", ACCEPTED)
@pytest.mark.parametrize("piece_bytes", [1 << 20, 7])
def test_accepted_forms(kind: str, piece_bytes: int) -> None:
    line, tick = ACCEPTED[kind]
    found, lines = _decode(GOOD + b"\n" + line + b"\n" + GOOD + b"\n", piece_bytes)
    assert found == FeedBatch([TICK, tick, TICK])
    assert lines == 3


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (_line(price="-1"), "price: expected `float` > 0.0"),
        (_line(ts="1.5"), "ts: not a time from 1990 to 2100 in seconds, milli-, micro- or nanoseconds"),
        (_line(ts='"1"'), "ts: not a time"),
        (_line(price="1e101"), "price: expected `float` <= 1e+100"),
        (_line(price='"1e101"'), "price: above 1e+100"),
        (_line(price='"x"'), "price: not a number"),
        (_line(more=',"taker":"maker"'), "taker: neither BUY nor SELL"),
        (_line(more=',"taker":1'), "taker: neither BUY nor SELL"),
        (b'{"price":1,"volume":1,"ts":1}', "object missing required field `symbol`"),
        (b"[]", "expected `object`, got `array`"),
        (GOOD + b"\xff", f"not UTF-8 (byte {len(GOOD)})"),
        (_line(symbol='"\\u0000"'), "symbol: control character"),
        (b"hello", "JSON is malformed: invalid character (byte 0)"),
    ],
)
def test_reasons_name_the_field_and_what_is_wrong(line: bytes, reason: str) -> None:
    assert _decode(line)[0].notes == (Malformed(1, reason),)


@pytest.mark.parametrize("blank", [b"", b" ", b"\t \t", b"\r", b" \r", b"\x0b", b"\x0c"])
@pytest.mark.parametrize("piece_bytes", [1 << 16, 3])
def test_blank_lines_are_nothing_but_count_as_lines(blank: bytes, piece_bytes: int) -> None:
    found, lines = _decode(blank + b"\n" + GOOD + b"\n" + blank + b"\n" + blank + b"\n?\n" + blank, piece_bytes)
    assert found.ticks == [TICK]
    assert [note.line for note in found.notes] == [5]
    assert lines >= 5


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n\r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_empty_input_is_nothing(content: bytes) -> None:
    assert _decode(content)[0] == FeedBatch([])


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("last_end", [True, False])
@pytest.mark.parametrize("piece_bytes", [1, 2, 50, 1 << 16])
def test_line_ends_and_byte_order_mark(end: bytes, start: bytes, last_end: bool, piece_bytes: int) -> None:
    content = start + end.join([GOOD] * 5) + (end if last_end else b"")
    assert _decode(content, piece_bytes) == (FeedBatch([TICK] * 5), 5)


def test_a_tick_over_two_lines_is_not_made_up_for_by_two_on_one() -> None:
    """The decoder's own idea of lines is any white space: counts alone would not show it."""
    content = GOOD + b"\n" + GOOD.replace(b',"price"', b',\n"price"') + GOOD + b"\n"
    found, _ = _decode(content)
    assert found.ticks == [TICK]
    assert [note.line for note in found.notes] == [2, 3]


def test_a_tick_spread_over_lines_that_begin_with_braces_is_malformed() -> None:
    content = GOOD + b'\n{"x":\n{},' + GOOD[1:] + GOOD + b"\n"
    found, _ = _decode(content)
    assert found.ticks == [TICK]
    assert [note.line for note in found.notes] == [2, 3]


@pytest.mark.parametrize("piece_bytes", [1 << 12, 1 << 16, 1 << 22, LINE_BYTES_MAX + 4])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize(("extra", "malformed"), [(0, 0), (1, 1), (5, 1), (100_000, 1)])
def test_a_line_is_at_most_one_mebibyte(piece_bytes: int, start: bytes, end: bytes, extra: int, malformed: int) -> None:
    """Without its line end and the mark; whatever the pieces, and a plain-looking line as well."""
    head, tail = GOOD[:-1] + b',"x":"', b'"}'
    long = head + (LINE_BYTES_MAX + extra - len(head) - len(tail)) * b"x" + tail
    found, lines = _decode(start + long + end + GOOD + end, piece_bytes)
    assert found.malformed == malformed
    assert found.ticks == [TICK] * (2 - malformed)
    assert [note.line for note in found.notes] == [1] * malformed
    assert lines == 2


def test_an_endless_line_is_not_kept() -> None:
    """The bound binds: what is too long is dropped as it comes, counted once, and decoding goes on behind it."""
    decoder = LineDecoder()
    counted = 0
    for _ in range(100):
        counted += decoder.feed((1 << 16) * b"[").malformed
        assert len(decoder._cutter._pending) <= LINE_BYTES_MAX + 8
    assert counted == 1
    assert decoder.feed(b"]\n" + GOOD + b"\n" + GOOD) == FeedBatch([TICK])
    assert decoder.finish() == FeedBatch([TICK])
    assert decoder.line == 3


@pytest.mark.parametrize("piece_bytes", [1 << 16, 1 << 22])
def test_a_blank_line_may_be_too_long_as_well(piece_bytes: int) -> None:
    found, _ = _decode((LINE_BYTES_MAX + 1) * b" " + b"\n" + GOOD + b"\n", piece_bytes)
    assert (found.ticks, found.malformed) == ([TICK], 1)
    assert _decode(LINE_BYTES_MAX * b" " + b"\n" + GOOD + b"\n", piece_bytes)[0] == FeedBatch([TICK])


def test_an_endless_line_at_the_end_is_counted_once() -> None:
    found, _ = _decode(GOOD + b"\n" + (LINE_BYTES_MAX + 100_000) * b" ")
    assert (found.ticks, found.malformed) == ([TICK], 1)


def test_notes_are_bounded_and_counts_are_not() -> None:
    batch = LineDecoder().feed(b"?\n" * 1000)
    assert batch.malformed == 1000
    assert [note.line for note in batch.notes] == list(range(1, NOTES_MAX + 1))


def test_after_a_bad_block_the_next_is_decoded_at_one_go_again(monkeypatch: pytest.MonkeyPatch) -> None:
    singly = []
    decode_line = LineDecoder._decode_line

    def spy(self: LineDecoder, line: bytes, *args: object, **more: object) -> None:
        singly.append(line)
        decode_line(self, line, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(LineDecoder, "_decode_line", spy)
    decoder = LineDecoder()
    good = 100 * (GOOD + b"\n")
    decoder.feed(good)
    assert singly == []
    assert len(decoder.feed(good + b"?\n").ticks) == 100
    assert len(singly) == 101
    assert decoder.feed(good).ticks == [TICK] * 100
    assert len(singly) == 101
    assert decoder.line == 301


@pytest.mark.parametrize("piece_bytes", [1 << 16, 5])
def test_strict_ends_at_the_first_malformed_line_with_all_before_it(piece_bytes: int) -> None:
    content = GOOD + b"\n\n" + GOOD + b"\n?\n" + GOOD + b"\n?\n" + GOOD
    found, _ = _decode(content, piece_bytes, strict=True)
    assert found.ticks == [TICK] * 2
    assert (found.malformed, [note.line for note in found.notes]) == (1, [4])


@pytest.mark.parametrize(("rest", "ticks"), [(b"", 1), (GOOD[:30], 1), (GOOD, 2), (b"?", 1)])
def test_damage_is_one_malformed_line_and_keeps_what_is_good(rest: bytes, ticks: int) -> None:
    decoder = LineDecoder()
    before = decoder.feed(GOOD + b"\n" + rest)
    end = decoder.finish("cut off")
    assert before.ticks + end.ticks == [TICK] * ticks
    assert (end.malformed, end.notes) == (1, (Malformed(2, "cut off"),))


def test_strict_says_nothing_more_at_a_damaged_end() -> None:
    decoder = LineDecoder(strict=True)
    assert decoder.feed(b"?\n" + GOOD).malformed == 1
    assert decoder.finish("cut off") == FeedBatch([])


def _reference(content: bytes) -> tuple[list[Tick], list[int]]:
    """The format, line by line and without any cleverness: good ticks and numbers of malformed lines."""
    ticks, bad = [], []
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            line.decode()
            assert line.count(b"{") + line.count(b"[") <= BRACKETS_MAX
            tick = msgspec.json.decode(line, type=Tick)
            for text in (tick.symbol, tick.event_id or ""):
                assert not any(ord(char) < 32 or 127 <= ord(char) < 160 or char in "\u2028\u2029" for char in text)
        except (AssertionError, ValueError, RecursionError):
            bad.append(number)
        else:
            ticks.append(tick)
    return ticks, bad


_TICK_LINES = st.builds(
    lambda **fields: json.dumps(fields).encode(),
    symbol=st.text(min_size=1, max_size=5),
    price=st.floats(min_value=5e-324, allow_nan=False, allow_infinity=False) | st.integers(1, 10**30),
    volume=st.floats(min_value=0, allow_nan=False, allow_infinity=False),
    ts=st.integers(0, TS_MS_MAX),
    taker=st.sampled_from([None, BUY, SELL]),
)
_PLAIN_LINES = st.builds(
    lambda price, ts: _line(price=repr(price), ts=str(ts)), st.floats(0.01, 1e6), st.integers(0, 9)
)
# What is malformed only behind a time in another unit is left out.
_GARBAGE = st.sampled_from(
    [line for kind, line in MALFORMED.items() if len(line) < 1000 and not kind.startswith("ts in")]
) | st.binary(max_size=30)
_BLANK = st.sampled_from([b"", b" ", b"\r", b"\t"])
_PIECES_OF_TICKS = st.sampled_from([GOOD[:14], GOOD[14:], b'{"x":', b"{},", b"{", b"}", GOOD + GOOD, GOOD[1:] + GOOD])


@given(
    lines=st.lists(_PLAIN_LINES | _TICK_LINES | _GARBAGE | _BLANK | _PIECES_OF_TICKS | st.just(GOOD), max_size=30),
    end=st.sampled_from([b"\n", b"\r\n"]),
    last=st.booleans(),
    start=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    piece_bytes=st.integers(1, 2000),
)
def test_equals_the_reference_however_it_is_cut(
    lines: list[bytes], end: bytes, last: bool, start: bytes, piece_bytes: int
) -> None:
    """S8: ticks, malformed count and line numbers depend on the content alone."""
    content = start + end.join(lines) + (end if last else b"")
    ticks, bad = _reference(content)
    for size in (piece_bytes, 1 << 20):
        found, _ = _decode(content, size)
        assert found.ticks == ticks
        assert found.malformed == len(bad)
        if len(bad) <= NOTES_MAX:
            assert [note.line for note in found.notes] == bad


class TestTimes:
    """The first good line of a file decides in which unit its times are."""

    def times(self, *ts: str) -> tuple[list[int], list[str]]:
        content = b"\n".join(_line(ts=each) for each in ts)
        found = [_decode(content, size)[0] for size in (1 << 16, 30)]
        assert found[0] == found[1]
        return [tick.ts for tick in found[0].ticks], [note.reason for note in found[0].notes]

    def test_microseconds_become_milliseconds(self) -> None:
        assert self.times("1735689600000999", "1735689600250000.5") == ([1735689600000, 1735689600250], [])

    def test_nanoseconds_become_milliseconds(self) -> None:
        assert self.times("1735689600000999999", "1735689600250000000") == ([1735689600000, 1735689600250], [])

    def test_the_years_1990_and_2100(self) -> None:
        assert self.times("631152000000000")[0] == [631152000000]
        assert self.times("4102444799999999")[0] == [4102444799999]
        assert self.times("631151999999999") == ([], [_line_reason("1.5")])
        assert self.times("4102444800000000") == ([], [_line_reason("1.5")])

    def test_another_unit_in_a_file_of_microseconds_is_malformed(self) -> None:
        good = "1735689600000000"
        others = ["1735689600000", "1735689600", "5", "1735689600000000000", "1735689600.5"]
        times, reasons = self.times(good, *others, good)
        assert times == [1735689600000] * 2
        assert reasons == [
            "ts: in milliseconds, but the first time of this file is in microseconds",
            "ts: in seconds, but the first time of this file is in microseconds",
            _line_reason("1.5"),
            "ts: in nanoseconds, but the first time of this file is in microseconds",
            "ts: in seconds, but the first time of this file is in microseconds",
        ]

    def test_microseconds_in_a_file_of_milliseconds_are_malformed(self) -> None:
        reason = "ts: in microseconds, but the first time of this file is in seconds or milliseconds"
        for first in ("1735689600000", "1735689600", "5", "1735689600000.5", '"2025-01-01T00:00:00Z"'):
            times, reasons = self.times(first, "1735689600000000", "1735689600001")
            assert (len(times), times[-1], reasons) == (2, 1735689600001, [reason])

    def test_integer_seconds_and_milliseconds_are_stored_as_they_came(self) -> None:
        assert self.times("1735689600", "1735689600000", "7") == ([1735689600, 1735689600000, 7], [])

    def test_a_file_of_seconds_with_decimals_has_some_without(self) -> None:
        times, reasons = self.times("1735689600.5", "1735689601", "1735689601.25", "1735689602000")
        assert times == [1735689600500, 1735689601000, 1735689601250]
        assert reasons == ["ts: in milliseconds, but the first time of this file is in seconds"]

    def test_a_malformed_line_decides_nothing(self) -> None:
        content = _line(ts="1735689600000000", price="-1") + b"\n" + GOOD
        assert _decode(content)[0].ticks == [TICK]

    def test_times_as_text_have_a_unit_like_numbers(self) -> None:
        assert self.times('"1735689600123456789"', "1735689600124000000") == ([1735689600123, 1735689600124], [])

    def test_iso_times_are_read_in_every_file(self) -> None:
        assert self.times("1735689600000000", '"2025-01-01T00:00:01Z"') == ([1735689600000, 1735689601000], [])


def _line_reason(ts: str) -> str:
    return _decode(_line(ts=ts))[0].notes[0].reason


@pytest.mark.parametrize(
    ("odd", "marked"),
    [
        (GOOD, True),
        (_line(symbol='"b"'), False),
        (_line(more=',"seq":0'), False),
        (_line(more=',"event_id":"e"'), False),
        (_line(more=',"taker":"BUY"'), False),
        (_line(more=',"other":"seq"'), True),
        (_line(more=',"other":"x","seq":null,"taker":null'), True),
    ],
)
def test_ticks_that_are_all_alike_are_marked_as_such(odd: bytes, marked: bool) -> None:
    decoded = LineDecoder().feed(b"\n".join([GOOD, odd, GOOD, b""])).ticks
    assert getattr(decoded, "symbol", None) == ("a" if marked else None)


@given(content=st.binary(max_size=400), piece_bytes=st.integers(1, 50))
def test_random_bytes_never_raise_and_never_lose_a_line(content: bytes, piece_bytes: int) -> None:
    found, _ = _decode(content, piece_bytes)
    ticks, bad = _reference(content)
    assert (found.ticks, found.malformed) == (ticks, len(bad))


_DECIMALS = st.from_regex(r"(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)


@given(price=_DECIMALS, volume=_DECIMALS)
@example(price="9007199254740993", volume="9007199254740993.0000000001")
@example(price="2.2250738585072011e-308", volume="123456789012345678901234567890")
@example(price="0.1", volume="17.976931348623158e307")
def test_price_and_volume_are_the_nearest_doubles(price: str, volume: str) -> None:
    """S8: exactly float(text), to the last bit."""
    p, v = float(price), float(volume)
    found, _ = _decode(_line(price=price, volume=volume))
    if 0 < p <= AMOUNT_MAX and v <= AMOUNT_MAX:
        assert [(tick.price, tick.volume) for tick in found.ticks] == [(p, v)]
    else:
        assert (found.ticks, found.malformed) == ([], 1)
