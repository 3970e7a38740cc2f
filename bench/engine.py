"""Runs the commands of tradebot that are measured, and reads the figures in their logs."""

from __future__ import annotations

import json
import sqlite3
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import measure

REPO = Path(__file__).resolve().parent.parent
CONFIG = REPO / "bench" / "bench.toml"
TABLES = ("ticks", "signals", "orders", "trades")


@dataclass(frozen=True)
class Replay:
    """One measured replay: the process from outside, and the fields of its FINAL METRICS line ({} if not logged)."""

    process: measure.Measured
    final: dict[str, Any]


def replay(scratch: Path, database: Path, ticks: Path | None, level: str, mode: str = "shadow") -> Replay:
    """Replay the file `ticks` into a fresh `database`; without a file, the database's own ticks, storing nothing.

    The log is written to a file, as JSON lines at `level`. Raises BenchError if the run fails.
    """
    if ticks is not None:
        remove(database)
    command: list[str | Path] = [REPO / "bin" / "tradebot", "--ingest=replay", f"--mode={mode}", f"--config={CONFIG}"]
    command += [f"--db={database}", f"--log-level={level}", "--log-format=json"]
    command += [f"--replay-file={ticks}"] if ticks is not None else []
    measured = measure.run(command, scratch, scratch)
    return Replay(measured, final_metrics(scratch / "stderr.txt"))


def final_metrics(log: Path) -> dict[str, Any]:
    """The fields of the last FINAL METRICS line of a JSON log; {} without such a line."""
    found: dict[str, Any] = {}
    with log.open() as lines:
        for line in lines:
            if '"FINAL METRICS"' in line:
                found = json.loads(line)["fields"]
    return found


def row_counts(database: Path) -> dict[str, int]:
    """The number of rows in each of the four tables."""
    connection = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)
    try:
        return {table: connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in TABLES}
    finally:
        connection.close()


def check_rows(database: Path, ticks: int) -> dict[str, int]:
    """The row counts. Raises BenchError unless all ticks and at least one row of each other table were stored."""
    counts = row_counts(database)
    if counts["ticks"] != ticks or not all(counts.values()):
        raise measure.BenchError(f"{database} does not hold what {ticks} ticks should give: {counts}")
    return counts


def remove(database: Path) -> None:
    """Delete a database and the files beside it whose names begin with its name."""
    for path in database.parent.glob(f"{database.name}*"):
        path.unlink()


def python(module: str, *arguments: object) -> list[str]:
    """The command that runs a module of the benchmarks in a separate process."""
    return [sys.executable, "-m", module, *map(str, arguments)]
