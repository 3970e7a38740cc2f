"""What a file looks like in which no line is a tick: every shape is named, and nothing that it holds raises."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradebot.feeds.replay.recognition import describe, has_commas_between

TICK = {"symbol": "BTCUSDT", "price": 1.0, "volume": 1.0, "ts": 1}
BINANCE = json.dumps({
    "stream": "btcusdt@trade",
    "data": {"e": "trade", "E": 1, "s": "BTCUSDT", "t": 100, "p": "94000.10", "q": "0.001", "T": 1, "m": True},
})  # fmt: skip
CANDLES = "unix,date,symbol,open,high,low,close,Volume BTC\n1,2,BTC/USD,1,2,3,4,5\n2,2,BTC/USD,1,2,3,4,5\n"


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("ticks.jsonl", json.dumps(TICK))
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("ticks.jsonl")
        archive.addfile(info, io.BytesIO(b""))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"", ["is empty"]),
        (b" \n\t\n", ["white space"]),
        (zipped(), ["zip archive", "unpack"]),
        (tarred(), ["tar archive"]),
        (gzip.compress(b"x")[:8], ["gzip data that cannot be read"]),
        (b"PAR1\x15\x04", ["Parquet", "convert"]),
        (b"SQLite format 3\x00\x10", ["SQLite database", "--replay-db"]),
        (b"\x00\x01\x02rest", ["binary data"]),
        (json.dumps(TICK).encode("utf-16"), ["UTF-16", "iconv"]),
        (json.dumps(TICK).encode("utf-16-le"), ["UTF-16LE", "iconv"]),
        (json.dumps(TICK).encode("utf-16-be"), ["UTF-16BE"]),
        (json.dumps(TICK).encode("utf-32"), ["UTF-32"]),
        (json.dumps([TICK, TICK]).encode(), ["JSON array", "jq -c '.[]'"]),
        (json.dumps([TICK, TICK], indent=1).encode(), ["JSON array"]),
        (json.dumps([TICK] * 9)[:200].encode(), ["JSON array"]),
        (b'[1,2]\n[3,4]\n', ["lines of JSON arrays"]),
        (json.dumps({"data": [TICK]}, indent=2).encode(), ["one JSON document"]),
        (b'{"s":"X","p":1}\n{"s":"X","p":2}\n', ["JSON lines with s, p", "without symbol, price, volume, ts"]),
        (b'{"symbol":"X","price":1,\n', ["damaged"]),
        (BINANCE.encode(), ["frames of binance", "--exchange=binance"]),
        (f"1735689600000000000 {BINANCE}\n".encode() * 2, ["binance with a time before each", "sed"]),
        (f"1735689600.123: {BINANCE}\n".encode() * 2, ["binance with a time before each"]),
        (b"<!DOCTYPE html><html>", ["web page"]),
        (b"<?xml version='1.0'?>", ["XML"]),
        (b"1,94000.0,0.1,112.8,1735689600000000,False,True\n" * 3, ["CSV of Binance trades"]),
        (b"1,94000.0,0.1,112.8,1735689600000,true\n" * 3, ["CSV of Binance futures trades"]),
        (b"1,94000.0,0.1,1,2,1735689600000,True,True\n" * 3, ["CSV of Binance aggregate trades"]),
        (b"1672531200,95.4,0.1\n" * 3, ["three numbers per line", "Kraken"]),
        (CANDLES.encode(), ["CSV of candles with the columns unix, date"]),
        (b"https://www.example.com\n" + CANDLES.encode(), ["CSV of candles"]),
        (b"\xef\xbb\xbfprice;qty\r\n1;2\r\n3;4\r\n", ["CSV (semicolons) of rows with the columns price, qty"]),
        (b"time\tbid\task\n1\t2\t3\n2\t2\t3\n", ["tab-separated values of quotes"]),
        (b"symbol;price\nX;94000,5\nX;94000,6\nX;94000,7\n", ["CSV (semicolons) of rows with the columns symbol"]),
        (json.dumps(TICK).encode() + b"\r" + json.dumps(TICK).encode(), ["end with CR alone", "tr"]),
        (gzip.compress(json.dumps([TICK] * 99).encode()), ["gzip data that was compressed twice", "gunzip"]),
        (json.dumps(TICK).encode() * 3, ["several JSON objects on one line", "jq -c ."]),
        (b"%b,\n%b\n" % (json.dumps(TICK).encode(), json.dumps(TICK).encode()), ["commas between them", "sed"]),
        (json.dumps(TICK | {"ts": "soon"}).encode(), ["with symbol, price,", "is not a tick: ts: not a time"]),
        (b"hello there\nthis is prose\n", ["text that begins with 'hello there'"]),
    ],
)  # fmt: skip
def test_every_shape_is_named(head: bytes, words: list[str]) -> None:
    found = describe(head, None)
    for word in words:
        assert word in found
    assert "\n" not in found


def test_frames_without_a_trade_and_frames_of_another_exchange() -> None:
    book = '{"stream":"btcusdt@depth","data":{"e":"depthUpdate","s":"BTCUSDT"}}\n'
    assert "is --exchange=binance right?" in describe(book.encode() * 3, "binance")
    assert "use --exchange=binance" in describe(BINANCE.encode(), "okx")
    assert "leave out --exchange=okx" in describe(json.dumps(TICK).encode() + b"\n", "okx")


@pytest.mark.parametrize(
    ("head", "between"),
    [
        (b"[\n{},\n{}\n]\n", True),
        (b'  [{"a":1},\n{"a":2}]', True),
        (b'\xef\xbb\xbf{"a":1},\r\n{"a":2}\r\n', True),
        (b'{"a":1}\n{"a":2}\n', False),
        (b"[1,2]\n[3,4]\n", False),
        (b"a,b,\n1,2,\n", False),
        (b"\n \n", False),
    ],
)
def test_commas_between_objects_are_seen(head: bytes, between: bool) -> None:
    assert has_commas_between(head) is between


def test_the_files_of_public_reports_are_named(repo: Path) -> None:
    """Inputs made after public reports."""
    for name, words in (
        ("array.json", "JSON array"), ("binance_spot_trades_2025.csv", "CSV of Binance trades"),
        ("hft_binance.txt", "frames of binance with a time before each"), ("utf16.jsonl", "UTF-16"),
        ("ticks.zip", "zip archive"),
        ("coinbase_rising.jsonl", "--exchange=coinbase"),
    ):  # fmt: skip
        assert words in describe((repo / "fixtures" / "reports" / name).read_bytes()[: 1 << 16], None), name


@given(st.binary(max_size=300), st.sampled_from([None, "binance"]))
def test_any_bytes_give_one_printable_sentence(head: bytes, exchange: str | None) -> None:
    assert describe(head, exchange).isprintable()


@given(st.text(max_size=300), st.sampled_from([None, "kraken"]))
def test_any_text_gives_one_printable_sentence(text: str, exchange: str | None) -> None:
    assert describe(text.encode("utf-8", "replace"), exchange).isprintable()
