"""One input and one configuration give one result, for every process, hash seed, size, compression and Python."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
import zstandard

from tests.e2e.process import (
    CROSSOVER,
    SESSION,
    SESSION_CONFIG,
    Engine,
    assert_sound,
    dump,
    rows,
    run_ids,
)
from tests.e2e.pythons import other_python
from tradebot.core.log_events import LogEvent

# Sizes and batches far from the defaults; the keys that affect decisions are those of etc/tradebot/session.toml.
TINY = """
[engine]
ingest_mode = "REPLAY"
replay_file = "session.jsonl"
[strategy]
name = "sma_crossover"
desired_size = 0.001
[channels]
tick_channel_size = 7
signal_channel_size = 1
persist_channel_size = 3
[persist]
batch_size = 13
flush_interval_ms = 5
synchronous = "FULL"
"""


def test_processes_with_different_hash_seeds_and_sizes_store_the_same_bytes(engine: Engine, undisturbed: Path) -> None:
    """S8: two processes with PYTHONHASHSEED 1 and 2 and different channel and batch sizes: equal, ids included."""
    shutil.copy(SESSION, engine.path("session.jsonl"))
    tiny = engine.config("tiny.toml", TINY)
    one = engine.start(tiny, "--db=one.db", env={"PYTHONHASHSEED": "1"})
    two = engine.start(
        f"--config={SESSION_CONFIG}", f"--replay-file={SESSION}", "--db=two.db", env={"PYTHONHASHSEED": "2"}
    )
    one.finish().expect(0)
    two.finish().expect(0)
    first, second = dump(engine.path("one.db")), dump(engine.path("two.db"))
    assert first.count(b"\n") > 15_000
    assert first == second == dump(undisturbed)
    assert_sound(engine.path("one.db"))


def test_a_replay_of_a_replay_gives_the_same_rows(engine: Engine, undisturbed: Path) -> None:
    """S8: `--replay-db` into a third database: the same rows except for run ids."""
    engine.run(f"--config={SESSION_CONFIG}", f"--replay-db={undisturbed}", "--db=third.db").expect(0)
    third = engine.path("third.db")
    (origin,), (copy,) = run_ids(undisturbed), run_ids(third)
    assert origin != copy
    assert dump(third).replace(copy.encode(), origin.encode()) == dump(undisturbed)


def test_a_database_replays_its_own_ticks_and_writes_nothing(engine: Engine, undisturbed: Path) -> None:
    """Without a file or database only the summary is printed."""
    own = engine.path("own.db")
    shutil.copy(undisturbed, own)
    before = own.read_bytes()
    config = engine.config("own.toml", '[engine]\ningest_mode = "REPLAY"\n[strategy]\ndesired_size = 0.001\n')
    done = engine.run(config, "--db=own.db").expect(0)
    assert own.read_bytes() == before
    assert done.ledger["not_stored"] == done.ledger["accepted"] == 13_932
    assert "nothing was stored" in done.stdout
    assert rows(own, "SELECT COUNT(*) FROM runs") == [(1,)]


@pytest.mark.parametrize("form", ["gz", "zst", "stdin", "gz on stdin", "named pipe"])
def test_the_packing_changes_nothing(engine: Engine, undisturbed: Path, form: str) -> None:
    """S8: gzip, Zstandard, standard input and a pipe give the same rows; with the same run id, the same bytes."""
    plain = SESSION.read_bytes()
    packed = {"gz": gzip.compress, "zst": zstandard.ZstdCompressor().compress}
    given: list[str] = []
    if form in packed:
        engine.path(f"ticks.{form}").write_bytes(packed[form](plain))
        given = [f"--replay-file=ticks.{form}"]
    args = (f"--config={SESSION_CONFIG}", "--db=x.db")
    (run_id,) = run_ids(undisturbed)
    if form in packed:
        engine.run(*args, *given).expect(0)
    elif form == "named pipe":
        os.mkfifo(engine.path("pipe"))
        running = engine.start(*args, "--replay-file=pipe")
        engine.path("pipe").write_bytes(plain)
        running.finish().expect(0)
        (own_id,) = run_ids(engine.path("x.db"))
        assert dump(engine.path("x.db")).replace(own_id.encode(), run_id.encode()) == dump(undisturbed)
        return
    else:
        source = engine.path("input")
        source.write_bytes(gzip.compress(plain) if "gz" in form else plain)
        with subprocess.Popen(["cat", source], stdout=subprocess.PIPE) as cat:
            engine.run(*args, "--replay-file=-", f"--run-id={run_id}", stdin=cat.stdout).expect(0)
    assert dump(engine.path("x.db")) == dump(undisturbed)


def crossings(prices: list[Decimal], short: int, long: int) -> Iterator[tuple[int, str]]:
    """A simple crossover strategy in exact arithmetic: positions in `prices`, and sides."""
    previous: Decimal | None = None
    for place in range(long, len(prices) + 1):
        window = prices[place - long : place]
        difference = sum(window[-short:]) * long - sum(window) * short
        if previous is not None and previous <= 0 < difference:
            yield place - 1, "BUY"
        elif previous is not None and previous >= 0 > difference:
            yield place - 1, "SELL"
        previous = Decimal(difference)


def test_the_recorded_session_decides_what_exact_arithmetic_decides(undisturbed: Path) -> None:
    """S8: every signal, order and fill of the session, computed only from the text of the file."""
    ticks = [json.loads(line, parse_float=Decimal) for line in SESSION.read_text().splitlines()]
    wanted = list(crossings([tick["price"] for tick in ticks], 5, 20))
    assert len(wanted) > 100
    signals = [(f"{side}:SMA_CROSSOVER", float(ticks[n]["price"]), ticks[n]["ts"]) for n, side in wanted]
    assert rows(undisturbed, "SELECT kind, price, ts FROM signals ORDER BY id") == signals
    # Small orders with alternating sides: far below every cap.
    orders = [
        (side, 0.001, float(ticks[n]["price"]), ticks[n]["ts"], "FILLED", "SHADOW_RECORDED") for n, side in wanted
    ]
    assert rows(undisturbed, "SELECT side, qty, price, ts, status, reason FROM orders ORDER BY id") == orders
    fees = [float(ticks[n]["price"] * Decimal("0.000001")) for n, _side in wanted]
    fills = [(side, 0.001, price, fee) for (side, _, price, *_), fee in zip(orders, fees, strict=True)]
    assert rows(undisturbed, "SELECT side, fill_qty, fill_price, fees FROM trades ORDER BY id") == fills


def mixed_ticks() -> list[dict[str, object]]:
    """Ticks of several symbols in runs of uneven length, some with seq, event id or taker; coarse price grid."""
    chance = random.Random(20240808)
    symbols = ("BTC/USD", "ETH/USD", "\u00d8re", 'quote"d', "A")
    prices = dict.fromkeys(symbols, 1000)
    made: list[dict[str, object]] = []
    while len(made) < 6000:
        symbol = chance.choice(symbols)
        for _ in range(chance.choice((1, 1, 2, 3, 700))):
            prices[symbol] = max(1, prices[symbol] + chance.choice((-2, -1, 0, 0, 1, 2)))
            tick = {"symbol": symbol, "price": prices[symbol] / 10, "volume": 0.5, "ts": 1_700_000_000_000 + len(made)}
            taker = {"taker": chance.choice(("BUY", "SELL"))}
            numbered = {"event_id": f"e{len(made)}", "seq": len(made)}
            more = chance.choice(({}, {}, {"seq": len(made)}, numbered, taker, numbered | taker))
            made.append(tick | more)
    return made


def test_several_symbols_keep_their_own_state_and_every_tick_its_own_fields(engine: Engine) -> None:
    """S8: ticks are stored unchanged, symbols are independent, whatever the sizes."""
    ticks = mixed_ticks()
    engine.path("session.jsonl").write_text("".join(json.dumps(tick) + "\n" for tick in ticks))
    engine.run(engine.config("tiny.toml", TINY), "--db=tiny.db").expect(0)
    config = engine.config("plain.toml", '[engine]\ningest_mode = "REPLAY"\n[strategy]\ndesired_size = 0.001\n')
    engine.run(config, "--replay-file=session.jsonl", "--db=x.db").expect(0)
    db = engine.path("x.db")
    assert dump(db) == dump(engine.path("tiny.db"))
    names = ("symbol", "price", "volume", "ts", "event_id", "seq", "taker")
    assert rows(db, f"SELECT {', '.join(names)} FROM ticks ORDER BY id") == [
        tuple(tick.get(name) for name in names) for tick in ticks
    ]
    wanted = []
    for symbol in dict.fromkeys(tick["symbol"] for tick in ticks):
        own = [tick for tick in ticks if tick["symbol"] == symbol]
        found = crossings([Decimal(repr(tick["price"])) for tick in own], 5, 20)
        wanted += [(own[n]["ts"], symbol, f"{side}:SMA_CROSSOVER", own[n]["price"]) for n, side in found]
    assert len(wanted) > 100
    assert rows(db, "SELECT ts, symbol, kind, price FROM signals ORDER BY id") == sorted(wanted)
    engine.run(config, "--replay-db=x.db", "--db=again.db").expect(0)
    (origin,), (copy,) = run_ids(db), run_ids(engine.path("again.db"))
    assert dump(engine.path("again.db")).replace(copy.encode(), origin.encode()) == dump(db)


@pytest.mark.parametrize("minor", [11, 12, 13])
def test_every_python_gives_the_same_bytes(engine: Engine, undisturbed: Path, minor: int) -> None:
    """S8: 3.11 to 3.13 (whose sum() of floats differs) store equal rows and log equal averages."""
    command = (other_python(minor), "-m", "tradebot")
    args = (f"--config={SESSION_CONFIG}", f"--replay-file={SESSION}", "--db=other.db")
    engine.run(*args, command=command).expect(0)
    assert dump(engine.path("other.db")) == dump(undisturbed)
    args = ("--ingest=replay", f"--replay-file={CROSSOVER}", "--log-level=debug")
    here, there = engine.run(*args, "--db=here.db"), engine.run(*args, "--db=there.db", command=command)
    assert len(here.all(LogEvent.SMA_CALC)) == 50
    assert here.all(LogEvent.SMA_CALC) == there.all(LogEvent.SMA_CALC)
