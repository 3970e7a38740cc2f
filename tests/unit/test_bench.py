"""The benchmarks measure what they say: same rows, same schema, the whole of a run, in small."""

from __future__ import annotations

import json
import resource
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from bench import live, live_run, measure
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
    own_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # the least that a child is said to have had
    size_mb = max(300, own_mb + 50)
    large = measure.run([sys.executable, "-c", f"x = b'x' * ({size_mb} << 20); print('hello')"], tmp_path, tmp_path)
    assert large.stdout == "hello\n"
    assert size_mb < large.peak_mb < size_mb + 30
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
        db.execute("PRAGMA synchronous = OFF")  # each of the 10 000 rows is a transaction, and no disk needs to know
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
        "(p)",
        "c/a",
        "INFO / at ERROR",
        "in PAPER (p) / in SHADOW (c)",
        "processor seconds of each stage",
    ):
        assert part in answer.stdout


@pytest.mark.slow
def test_a_small_memory_bench_prints_both_sizes() -> None:
    answer = bench("memory", "--ticks=2000", "--times=2")
    assert answer.returncode == 0, answer.stderr
    assert "peak memory at        2 000 ticks" in answer.stdout
    assert "peak memory at        4 000 ticks" in answer.stdout


@pytest.mark.parametrize(("share", "value"), [(50, 500), (99, 990), (99.9, 999), (100, 1000), (0.01, 1)])
def test_percentiles_are_values_that_were_seen(share: float, value: int) -> None:
    assert live.percentile(list(range(1000, 0, -1)), share) == value
    assert live.percentile([7.0], share) == 7.0


def test_a_rate_that_holds_has_every_tick_stored_and_every_order_timed(tmp_path: Path) -> None:
    outcome = live_run.paced(tmp_path, 500, 1.0, "orders", live.NO_BATCH, 30.0)
    assert (outcome.why, outcome.sent, outcome.stored) == ("", 500, 500)
    orders = outcome.stamps["orders"]
    assert 49 <= len(orders) <= 50  # what the last transaction held does not count
    assert all(list(order) == sorted(order) and order[0] < order[-1] for order in orders)
    assert len({order[0] for order in orders}) == len(orders)


def test_a_rate_that_does_not_hold_says_why(tmp_path: Path) -> None:
    slow = f"{live.STRATEGY}[channels]\ntick_channel_size = 1\n"
    assert live_run.paced(tmp_path, 20_000, 5.0, "writes", slow, 30.0).why.startswith("OVERLOAD after ")
    assert live_run.paced(tmp_path, 200, 0.5, "writes", live.NO_BATCH, 1e-6).why.endswith(" s behind")


@pytest.mark.slow
def test_a_small_flood_is_read_whole_by_each_reader(tmp_path: Path) -> None:
    table = live.Bench(tmp_path, seconds=1, frames=2000, rounds=1).floods()
    assert [line.partition(")")[0] for line in table.splitlines()[1:]] == ["(e", "(f", "(g"]


def outcome_of(rate: float, why: str) -> live_run.Outcome:
    stamps = {"age_ns_max": 25_000_000, "orders": [[0, 1_000_000, 1_500_000, 9_500_000, 12_000_000]] * 10}
    return live_run.Outcome(round(rate), 6000, 0.5, 6000, stamps, {"ingest": 0.06, "persist": 0.03}, why)


def test_the_highest_rate_that_holds_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[float] = []

    def paced(rate: float, seconds: float) -> live_run.Outcome:
        # A long run is harder than a short one.
        holds = rate <= (12_000 if seconds == 60 else 13_000)
        held.extend([rate] if holds and seconds == 60 else [])
        return outcome_of(rate, "" if holds else "OVERLOAD after 0.1 s")

    bench_live = live.Bench(tmp_path, seconds=60, frames=1, rounds=1)
    bench_live.whole.add(40_000, 1.0, 1.0)
    monkeypatch.setattr(bench_live, "paced", paced)
    text = bench_live.sustained()
    assert len(held) == 1
    assert 0.85 * 12_000 < held[0] <= 12_000
    assert "(h) 12 000 ticks/s for 60 s, default sizes (0.30 of g)" in text
    assert "processor us a tick: ingest 10.0, persist 5.0" in text
    assert "did not hold: 20 000: OVERLOAD after 0.1 s" in text
    assert "for 60 s: OVERLOAD" in text


def test_no_rate_holds_is_said_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench_live = live.Bench(tmp_path, seconds=1, frames=1, rounds=1)
    bench_live.whole.add(40_000, 1.0, 1.0)
    monkeypatch.setattr(bench_live, "paced", lambda rate, seconds: outcome_of(rate, "OVERLOAD after 0.1 s"))
    assert bench_live.sustained().startswith("(h) no rate held:")


def test_a_line_of_latency_names_the_whole_and_the_median_of_each_part() -> None:
    words = live.latency_text(outcome_of(1000, "")).split()
    assert words == ["10", "12.00", "12.00", "12.00", "12.00", "1.00", "0.50", "8.00", "2.50"]
    assert live.latency_text(outcome_of(1000, "OVERLOAD after 0.1 s")).endswith("   OVERLOAD after 0.1 s")
