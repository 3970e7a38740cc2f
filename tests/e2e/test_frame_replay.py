"""Replays of recorded frames through an exchange's adapter: plain files of frames, and captures of sessions."""

from __future__ import annotations

import gzip
import json
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.e2e.process import Engine, assert_sound, dump, rows, run_ids, wait_for_ticks
from tradebot.core.log_events import LogEvent
from tradebot.feeds.capture_file import CaptureWriter

START_MS = 1_700_000_000_000


def match(number: int, kind: str = "match") -> str:
    """A trade as the older Coinbase feed sends it; its first message is a `last_match`."""
    return json.dumps({
        "type": kind, "trade_id": number, "product_id": "BTC-USD", "price": f"{100 + number % 7}.25", "size": "0.5",
        "side": "buy", "time": f"2023-11-14T22:13:{number % 60:02d}.000Z",
    })  # fmt: skip


FRAMES = [
    json.dumps({"type": "subscriptions", "channels": [{"name": "matches", "product_ids": ["BTC-USD"]}]}),
    match(1, "last_match"),
    *(match(number) for number in range(2, 60)),
    json.dumps({"type": "heartbeat", "sequence": 1, "last_trade_id": 20, "product_id": "BTC-USD"}),
]
OPTIONS = ("--ingest=replay", "--exchange=coinbase")


def write(engine: Engine, name: str, frames: list[str], end: str = "\n") -> str:
    engine.path(name).write_bytes("".join(frame + end for frame in frames).encode())
    return f"--replay-file={name}"


def ids(db: Path) -> list[str]:
    return [row[0] for row in rows(db, "SELECT event_id FROM ticks ORDER BY id")]


def notices(db: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(db)) as connection:
        return connection.execute("SELECT * FROM notices ORDER BY id").fetchall()


def test_trades_from_before_the_subscription_are_dropped_or_kept(engine: Engine) -> None:
    """history = "drop" counts and drops them, --history=keep stores them: two runs, both complete."""
    file = write(engine, "x.jsonl", FRAMES)
    dropped = engine.run(*OPTIONS, file, "--db=x.db").expect(0).ledger
    assert (dropped["received"], dropped["history_dropped"], dropped["stored"]) == (59, 1, 58)
    kept = engine.run(*OPTIONS, file, "--db=y.db", "--history=keep").expect(0).ledger
    assert (kept["received"], kept["history_dropped"], kept["stored"]) == (59, 0, 59)
    assert (ids(engine.path("x.db"))[0], ids(engine.path("y.db"))[0]) == ("2", "1")
    assert run_ids(engine.path("x.db")) != run_ids(engine.path("y.db"))
    assert_sound(engine.path("y.db"))


def test_the_same_frames_as_another_exchanges_are_another_input(engine: Engine) -> None:
    file = write(engine, "x.jsonl", FRAMES)
    engine.run(*OPTIONS, file, "--db=x.db").expect(0)
    wrong = engine.run("--ingest=replay", "--exchange=gemini", file, "--db=x.db").expect(11)
    assert "looks like frames of coinbase; use --exchange=coinbase" in wrong.one(LogEvent.STAGE_FAILED)["detail"]
    assert len(set(run_ids(engine.path("x.db")))) == 2
    again = engine.run(*OPTIONS, file, "--db=x.db").expect(12)
    assert "--resume" in again.complaint


def test_a_source_says_whose_they_are_too(engine: Engine) -> None:
    """A source also sets the exchange of the frames, and `history`."""
    engine.path("s.toml").write_text("[mine]\nexchange = 'coinbase'\nsymbols = ['BTC-USD']\nhistory = 'keep'\n")
    file = write(engine, "x.jsonl", FRAMES)
    done = engine.run("--ingest=replay", "--ws-source=mine", "--ws-sources=s.toml", file, "--db=x.db").expect(0)
    assert done.ledger["stored"] == 59


@pytest.mark.parametrize("form", ["gz", "zst", "crlf", "no last line end"])
def test_however_the_file_is_written(engine: Engine, form: str) -> None:
    """S8: the content matters, not its compression."""
    engine.run(*OPTIONS, write(engine, "x.jsonl", FRAMES), "--db=straight.db").expect(0)
    content = engine.path("x.jsonl").read_bytes()
    name = "x.jsonl"
    if form == "gz":
        engine.path(name := "x.jsonl.gz").write_bytes(gzip.compress(content))
    elif form == "zst":
        engine.path(name := "x.jsonl.zst").write_bytes(zstandard.compress(content))
    elif form == "crlf":
        write(engine, name, FRAMES, "\r\n")
    else:
        engine.path(name).write_bytes(content[:-1])
    engine.run(*OPTIONS, f"--replay-file={name}", "--db=other.db").expect(0)
    columns = "SELECT symbol, price, volume, ts, event_id, taker FROM ticks ORDER BY id"
    assert rows(engine.path("other.db"), columns) == rows(engine.path("straight.db"), columns)
    if form in ("gz", "zst"):
        assert dump(engine.path("other.db")) == dump(engine.path("straight.db"))


def test_malformed_lines_are_counted_and_named(engine: Engine) -> None:
    frames = [*FRAMES[:3], "{broken", "", *FRAMES[3:6], '{"type":"match","price":"x"}', *FRAMES[6:]]
    done = engine.run(*OPTIONS, write(engine, "x.jsonl", frames), "--db=x.db").expect(0)
    assert (done.ledger["malformed"], done.ledger["stored"]) == (2, 58)
    assert [each["line"] for each in done.all(LogEvent.MALFORMED_INPUT)] == [4, 9]
    assert done.all(LogEvent.MALFORMED_INPUT)[0]["reason"] == "not JSON"


def test_strict_ends_at_the_first_of_them(engine: Engine) -> None:
    """G5: exit 11, after the valid lines before it."""
    frames = [*FRAMES[:3], "{broken", *FRAMES[3:]]
    done = engine.run(*OPTIONS, write(engine, "x.jsonl", frames), "--db=x.db", "--strict").expect(11)
    assert "x.jsonl:4: not JSON (--strict stops at the first malformed line)" in done.stderr
    assert (done.ledger["malformed"], done.ledger["stored"]) == (1, 1)


def test_a_cut_off_file_gives_what_it_holds(engine: Engine) -> None:
    content = "".join(frame + "\n" for frame in FRAMES * 20).encode()
    engine.path("x.gz").write_bytes(gzip.compress(content)[:-200])
    done = engine.run(*OPTIONS, "--replay-file=x.gz", "--db=x.db").expect(0)
    assert done.ledger["malformed"] == 1
    assert done.ledger["stored"] > 0


def session(directory: Path) -> Path:
    """A captured session of two connections with numbered trades, some missing and some repeated."""
    writer = CaptureWriter(directory, "binance", ["btcusdt"], START_MS, 1 << 24, 1)
    numbers = [number for number in range(3000) if number % 97 not in (5, 6)]
    for index, number in enumerate(numbers):
        trade = {"e": "trade", "E": START_MS, "s": "BTCUSDT", "t": number, "p": f"{100 + number * 37 % 11}.5",
                 "q": "1", "T": START_MS + 10 * index, "m": True, "M": True}  # fmt: skip
        for _ in range(2 if number % 101 == 7 else 1):
            writer.write(START_MS + 10 * index, 1 if index < 1500 else 2, json.dumps(trade))
    writer.close()
    return writer.path


def test_a_resumed_replay_of_a_capture_is_as_if_nothing_had_happened(engine: Engine) -> None:
    """S8: killed and resumed, it has the rows, gaps and their positions of an uninterrupted replay."""
    file = f"--replay-file={session(engine.home)}"
    straight = engine.run("--ingest=replay", "--exchange=binance", file, "--db=straight.db").expect(0).ledger
    twice = sum(number % 101 == 7 and number % 97 not in (5, 6) for number in range(3000))
    assert (straight["duplicates"], straight["malformed"]) == (twice, 0)
    running = engine.start("--ingest=replay", "--exchange=binance", file, "--db=x.db", "--speed=2x")
    wait_for_ticks(engine.path("x.db"), 300)
    running.send(signal.SIGKILL)
    running.finish()
    assert 0 < rows(engine.path("x.db"), "SELECT ticks FROM runs")[0][0] < straight["stored"]
    engine.run("--ingest=replay", "--exchange=binance", file, "--db=x.db", "--resume").expect(0)
    assert dump(engine.path("x.db")) == dump(engine.path("straight.db"))
    assert notices(engine.path("x.db")) == notices(engine.path("straight.db"))
    assert len(notices(engine.path("x.db"))) == 31  # one for each gap
    assert rows(engine.path("x.db"), "SELECT complete FROM runs") == [(1,)]


@pytest.mark.parametrize("exchange", ["okx", "bitfinex", "gemini"])
def test_recorded_frames_of_an_exchange(engine: Engine, shared_data: Path, exchange: str) -> None:
    """Exactly the trades that another program found in the recording."""
    frames = shared_data / "data" / "frames" / f"{exchange}.jsonl"
    stated = shared_data / "data" / "frames" / "expected" / f"{exchange}.jsonl"
    if not frames.exists():
        pytest.skip(f"no recorded frames of {exchange}")
    trades = [trade for line in stated.read_text().splitlines() for trade in json.loads(line)["trades"]]
    live = [each for each in trades if not each.get("snapshot")]
    options = ("--ingest=replay", f"--exchange={exchange}", f"--replay-file={frames}")
    dropped = engine.run(*options, "--db=x.db").expect(0).ledger
    assert (dropped["malformed"], dropped["history_dropped"]) == (0, len(trades) - len(live))
    assert rows(engine.path("x.db"), "SELECT price, volume, ts, taker FROM ticks ORDER BY id") == [
        (float(each["price"]), float(each["qty"]), each["ts"], each["side"].upper()) for each in live
    ]
    kept = engine.run(*options, "--db=y.db", "--history=keep").expect(0).ledger
    assert (kept["history_dropped"], kept["stored"]) == (0, len(trades))


def trades_frame(*trades: tuple[int, float]) -> str:
    """A frame of Coinbase's newer feed: (number, price) of each trade, in this order, at second `number`."""
    made = [
        {
            "product_id": "BTC-USD", "trade_id": str(number), "price": str(price), "size": "0.1", "side": "BUY",
            "time": f"2023-11-14T22:13:{number:02d}.000000Z",
        }
        for number, price in trades
    ]  # fmt: skip
    return json.dumps({"channel": "market_trades", "sequence_num": 0, "events": [{"type": "update", "trades": made}]})


def capture(*frames: str) -> list[str]:
    """The lines of a capture with these frames."""
    head = {"tradebot_capture": 1, "exchange": "coinbase", "symbols": ["BTC-USD"], "started_ms": START_MS}
    records = [{"received_ms": START_MS + n, "connection": 1, "text": frame} for n, frame in enumerate(frames)]
    return [json.dumps(line) for line in (head, *records)]


NEWEST_FIRST = (trades_frame((3, 103.0), (2, 102.0), (1, 101.0)), trades_frame((6, 106.0), (5, 9e6), (4, 104.0)))


def prices(db: Path) -> list[float]:
    return [row[0] for row in rows(db, "SELECT price FROM ticks ORDER BY id")]


def test_frames_newest_first_are_stored_oldest_first(engine: Engine) -> None:
    """For plain files of frames and for captures; only a capture is a session with a price band."""
    plain = write(engine, "plain.jsonl", list(NEWEST_FIRST))
    engine.run(*OPTIONS, plain, "--db=x.db").expect(0)
    assert prices(engine.path("x.db")) == [101.0, 102.0, 103.0, 104.0, 9e6, 106.0]
    captured = write(engine, "captured.jsonl", capture(*NEWEST_FIRST))
    ledger = engine.run(*OPTIONS, captured, "--db=y.db").expect(0).ledger
    assert prices(engine.path("y.db")) == [101.0, 102.0, 103.0, 104.0, 106.0]
    assert (ledger["received"], ledger["out_of_band"], ledger["stored"]) == (6, 1, 5)
    assert [row[2] for row in notices(engine.path("y.db"))] == ["PRICE_BAND"]


def test_another_price_band_is_another_input(engine: Engine) -> None:
    captured = write(engine, "captured.jsonl", capture(*NEWEST_FIRST))
    for name, jump in (("default", "10.0"), ("wide", "1e12")):
        engine.path(f"{name}.toml").write_text(f"[feed]\nmax_price_jump = {jump}\n")
        engine.run(*OPTIONS, captured, "--db=x.db", f"--config={name}.toml").expect(0)
    assert 9e6 in prices(engine.path("x.db"))
    assert len(set(run_ids(engine.path("x.db")))) == 2
    assert "--resume" in engine.run(*OPTIONS, captured, "--db=x.db").expect(12).complaint, "the default is no other"
