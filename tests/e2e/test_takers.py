"""The side of the taker from where it comes in to the database and back: files, frames, mockws, stored runs."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from tests.e2e.mockws import MockWsProcess
from tests.e2e.process import REPO, SESSION_CONFIG, Engine, dump, rows, run_ids, wait_for_ticks

FIXTURE = REPO / "fixtures" / "btcusdt_binance_spot_takers_20240808.jsonl"
TICKS = "SELECT symbol, price, volume, ts, event_id, taker FROM ticks ORDER BY id"


def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in FIXTURE.read_text().splitlines()]


def as_rows(ticks: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [tuple(tick.values()) for tick in ticks]


def replayed(engine: Engine, name: str, *options: str | Path) -> Path:
    engine.run(f"--config={SESSION_CONFIG}", "--ingest=replay", f"--db={name}", *options).expect(0)
    return engine.path(name)


def test_a_file_and_the_replay_of_its_run(engine: Engine) -> None:
    """S8: what was stored with a side is replayed with it, and gives the same rows, run ids aside."""
    first = replayed(engine, "first.db", f"--replay-file={FIXTURE}")
    assert rows(first, TICKS) == as_rows(lines())
    second = replayed(engine, "second.db", f"--replay-db={first}")
    (origin,), (copy,) = run_ids(first), run_ids(second)
    assert dump(second).replace(copy.encode(), origin.encode()) == dump(first)


def test_the_side_is_part_of_the_input(engine: Engine) -> None:
    """The same trades with another side, or without one, are another run."""
    first = replayed(engine, "first.db", f"--replay-file={FIXTURE}")
    for number, (sent, other) in enumerate([('"SELL"', '"BUY"'), (',"taker":"SELL"', "")]):
        name = f"{number}.jsonl"
        engine.path(name).write_text(FIXTURE.read_text().replace(sent, other, 1))
        stored = replayed(engine, f"{number}.db", f"--replay-file={name}")
        assert run_ids(stored) != run_ids(first)
        again = replayed(engine, f"{number}-again.db", f"--replay-db={stored}")
        assert run_ids(again) != run_ids(replayed(engine, f"{number}-first.db", f"--replay-db={first}"))


def test_frames_of_an_exchange(engine: Engine) -> None:
    """Binance says whether the buyer is the maker."""
    ticks = lines()[:50]
    frames = [
        {"e": "trade", "E": tick["ts"], "s": tick["symbol"], "t": int(tick["event_id"]), "p": str(tick["price"]),
         "q": str(tick["volume"]), "T": tick["ts"], "m": tick["taker"] == "SELL", "M": True}
        for tick in ticks
    ]  # fmt: skip
    engine.path("frames.jsonl").write_text("".join(json.dumps(frame) + "\n" for frame in frames))
    stored = replayed(engine, "x.db", "--exchange=binance", "--replay-file=frames.jsonl")
    assert rows(stored, TICKS) == as_rows(ticks)


def test_a_live_feed_that_gives_it(engine: Engine, tmp_path: Path) -> None:
    """From mockws; its replay has the same ticks."""
    scenario = engine.path("mine.toml")
    scenario.write_text(
        'description = "fifty trades of a thin market"\nmarket = "thin"\n[[step]]\ndo = "burst"\ncount = 50\n'
    )
    with MockWsProcess(tmp_path, f"--scenario={scenario}") as mockws:
        running = engine.start("--ingest=mockws", f"--ws-url={mockws.url}", "--db=live.db")
        wait_for_ticks(engine.path("live.db"), 50)
        running.send(signal.SIGTERM)
        running.finish().expect(0)
    stored = rows(engine.path("live.db"), TICKS)
    assert len(stored) == 50 and {row[-1] for row in stored} == {"BUY", "SELL"}
    again = replayed(engine, "again.db", f"--replay-db={engine.path('live.db')}")
    assert rows(again, TICKS) == stored
