"""A resume continues with the same input or is refused, also for standard input, which has no digest."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from tests.e2e.process import Engine, counts, dump, rows, wait_for_ticks

ARGS = ("--ingest=replay", "--replay-file=-", "--run-id=mine", "--db=x.db")


def _lines(repo: Path) -> list[bytes]:
    return (repo / "fixtures" / "btcusdt_binance_spot_20240808.jsonl").read_bytes().splitlines(keepends=True)[:3000]


def _begin(engine: Engine, first: list[bytes]) -> None:
    """Store `first`, then get killed while the pipe stays open."""
    running = engine.start(*ARGS, stdin=subprocess.PIPE)
    assert running.process.stdin is not None
    running.process.stdin.write(b"".join(first))
    running.process.stdin.flush()
    wait_for_ticks(engine.path("x.db"), 100)
    running.send(signal.SIGTERM)
    running.finish().expect(0)


def _resume(engine: Engine, lines: list[bytes], name: str) -> subprocess.Popen[bytes]:
    path = engine.path(name)
    path.write_bytes(b"".join(lines))
    return subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE)


def test_another_input_is_refused_and_changes_nothing(engine: Engine, repo: Path) -> None:
    """S8: all rows stored under a run id come from one input."""
    lines = _lines(repo)
    _begin(engine, lines[:500])
    before = counts(engine.path("x.db"))
    with _resume(engine, lines[1000:2000], "other.jsonl") as cat:
        refused = engine.run(*ARGS, "--resume", stdin=cat.stdout)
    assert refused.code == 12
    assert "the input differs from the one this run began with" in refused.stderr
    assert refused.ledger["accepted"] == 0
    assert counts(engine.path("x.db")) == before


def test_the_same_input_completes_to_the_straight_result(engine: Engine, repo: Path) -> None:
    lines = _lines(repo)
    _begin(engine, lines[:500])
    with _resume(engine, lines, "same.jsonl") as cat:
        engine.run(*ARGS, "--resume", stdin=cat.stdout).expect(0)
    with _resume(engine, lines, "same.jsonl") as cat:
        engine.run(*ARGS[:3], "--db=straight.db", stdin=cat.stdout).expect(0)
    assert rows(engine.path("x.db"), "SELECT complete, ticks FROM runs") == [(1, 3000)]
    assert dump(engine.path("x.db")) == dump(engine.path("straight.db"))
