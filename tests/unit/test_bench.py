"""The benchmarks measure what they say: same rows, same schema, the whole of a run, in small."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from bench import measure
from bench.ticks import LEAST_VOLUME, write_ticks

REPO = Path(__file__).resolve().parents[2]


def bench(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a benchmark as `make` does."""
    command = [sys.executable, "-m", f"bench.{module}", *arguments]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=55, check=False)


def test_the_same_seed_gives_the_same_ticks(tmp_path: Path) -> None:
    first, second, other = tmp_path / "1", tmp_path / "2", tmp_path / "3"
    write_ticks(first, 500)
    write_ticks(second, 500)
    write_ticks(other, 500, seed=2)
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()
    ticks = [json.loads(line) for line in first.read_text().splitlines()]
    assert len(ticks) == 500
    assert all(tick["volume"] >= LEAST_VOLUME and round(tick["price"], 2) == tick["price"] for tick in ticks)


def test_peak_memory_is_that_of_the_program(tmp_path: Path) -> None:
    large = measure.run([sys.executable, "-c", "x = b'x' * (300 << 20); print('hello')"], tmp_path, tmp_path)
    assert large.stdout == "hello\n"
    assert 300 < large.peak_mb < 330
    assert large.wall_s > 0
    assert large.cpu_s > 0


def test_a_program_that_fails_is_named_with_what_it_wrote(tmp_path: Path) -> None:
    with pytest.raises(measure.BenchError, match=r"(?s)exited with 3 and wrote:.*why"):
        measure.run(
            [sys.executable, "-c", "import sys; print('why', file=sys.stderr); sys.exit(3)"], tmp_path, tmp_path
        )


def test_plain_stores_the_very_rows_under_the_same_schema(tmp_path: Path) -> None:
    source, target = tmp_path / "source.db", tmp_path / "target.db"
    with closing(sqlite3.connect(source, isolation_level=None)) as db:
        for table in ("ticks", "signals", "orders", "trades"):
            db.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, name TEXT UNIQUE, value REAL)")
            db.execute(f"CREATE INDEX idx_{table} ON {table} (value)")
            rows = [(f"{table}{n}", n / 7 if n % 3 else None) for n in range(2500)]
            db.executemany(f"INSERT INTO {table} (name, value) VALUES (?, ?)", rows)
    answer = bench("plain", str(source), str(target))
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["rows"] == 10_000
    assert json.loads(answer.stdout)["seconds"] > 0
    with closing(sqlite3.connect(source)) as wanted, closing(sqlite3.connect(target)) as got:
        assert list(got.iterdump()) == list(wanted.iterdump())


@pytest.mark.parametrize("arguments", [("--ticks=0",), ("--ticks=-5",), ("--rounds=x",)])
def test_nonsense_is_refused(arguments: tuple[str, ...]) -> None:
    answer = bench("replay", *arguments)
    assert answer.returncode == 1
    assert "not a whole number" in answer.stderr


@pytest.mark.slow
def test_a_small_bench_prints_the_whole_table() -> None:
    answer = bench("replay", "--ticks=3000", "--rounds=1")
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""
    for part in (
        "3 000 ticks",
        "(a)",
        "(b)",
        "(c)",
        "(d)",
        "c/a",
        "INFO / at ERROR",
        "processor seconds of each stage",
    ):
        assert part in answer.stdout


@pytest.mark.slow
def test_a_small_memory_bench_prints_both_sizes() -> None:
    answer = bench("memory", "--ticks=2000", "--times=2")
    assert answer.returncode == 0, answer.stderr
    assert "peak memory at        2 000 ticks" in answer.stdout
    assert "peak memory at        4 000 ticks" in answer.stdout
