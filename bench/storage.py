"""make bench-storage: how long readers, many readers, prune, backup and `synchronous` affect the writer.

Usage:
  bench.storage [--seconds=N] [--rate=N] [--only=PARTS]

Options:
  --seconds=N   The time for which a reader holds its transaction; the other parts run half as long [default: 60].
  --rate=N      The number of ticks per second sent to the engine [default: 5000].
  --only=PARTS  Run only these parts, separated by commas: wal, readers, flat, upkeep, synchronous.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from docopt import docopt

from bench import engine, live_run, measure
from bench.live_run import Engine, MockWs
from bench.replay import machine, whole_number
from tradebot.output.streams import run_tool

READERS = 4
WAL_MB_MAX, WAL_MB_NORMAL = 64, 8.5
LEAST_SHARE = 0.8
CONFIG = ""
"""The defaults: batches of 100, the crossover strategy."""

OLD_S = 5 * 86_400
OLD_TICKS = 400_000
_PARTS = ("wal", "readers", "flat", "upkeep", "synchronous")
_WORST = "worst write {worst_ms:.0f} ms, 99 of 100 within {p99_ms:.1f} ms"


class Workers:
    """Processes of bench.storage_work; use it in a `with` statement."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def start(self, *arguments: object, nice: int = 0) -> subprocess.Popen[str]:
        """Start a process: its task, the database, and options."""
        command = ["nice", "-n", str(nice), *engine.python("bench.storage_work", *arguments)]
        process = subprocess.Popen(command, cwd=engine.REPO, stdout=subprocess.PIPE, text=True)
        self._processes.append(process)
        return process

    def answers(self) -> list[dict[str, Any]]:
        """Wait for all processes and return their results. Raises BenchError if one failed."""
        found = []
        for process in self._processes:
            text, _nothing = process.communicate()
            if process.returncode:
                raise measure.BenchError(f"{process.args!r} exited with {process.returncode}")
            found.append(json.loads(text))
        self._processes.clear()
        return found


@contextmanager
def fed(scratch: Path, rate: int, seconds: float, watch: Callable[[Engine, float], None]) -> Any:
    """Send ticks at this rate to an engine until it has stored them or ended; `watch` is called during the run."""
    with ExitStack() as stack:
        mock = stack.enter_context(MockWs(scratch))
        process = stack.enter_context(Engine(scratch, mock.url, "writes", CONFIG))
        live_run.wait_client(mock, process)

        def look(sent: int) -> bool:
            measure.progress(f"{sent / rate:.0f} of {seconds:.0f} s")
            watch(process, sent / rate)
            return process.running()

        sent, _took_s = live_run.feed(mock.addresses["ticks"], rate, round(rate * seconds), look)
        process.wait_stored(sent)
        measure.progress("")
        yield process


def wal(scratch: Path, rate: int, seconds: int) -> str:
    """(w): the size of the WAL while a reader holds a transaction, and afterwards."""
    held: list[sqlite3.Connection] = []
    sizes: dict[bool, list[float]] = {True: [0.0], False: [0.0]}

    def watch(process: Engine, at_s: float) -> None:
        if not held and at_s >= 1:
            held.append(sqlite3.connect(process.database, isolation_level=None))
            held[0].execute("BEGIN")
            held[0].execute("SELECT COUNT(*) FROM ticks").fetchone()
        if held and at_s >= 1 + seconds:
            held[0].close()
        if held:
            wal_file = Path(f"{process.database}-wal")
            sizes[at_s < 1 + seconds].append(wal_file.stat().st_size / 1e6)

    with fed(scratch, rate, seconds + 11, watch) as process:
        code = process.stop()
        stored, want = process.stored(), rate * (seconds + 11)
    most, after = max(sizes[True]), sizes[False][-1]
    return "\n".join(
        [
            f"(w) {measure.count(rate)} ticks/s into the engine, a reader holds its transaction for {seconds} s:",
            f"    WAL at most {most:.1f} MB, target at most {WAL_MB_MAX}: {measure.met(most <= WAL_MB_MAX)}",
            f"    10 s later {after:.1f} MB, target at most {WAL_MB_NORMAL}: {measure.met(after <= WAL_MB_NORMAL)}",
            f"    {measure.count(stored)} of {measure.count(want)} ticks stored, exit {code}{process.overload()}",
        ]
    )


def readers(scratch: Path, rate: int, seconds: int) -> str:
    """(r): the engine at a fixed rate, alone and with readers at full speed."""
    lines, stored_s = [], []
    for count in (0, READERS):
        with Workers() as workers:

            def watch(process: Engine, at_s: float, workers: Workers = workers, count: int = count) -> None:
                while at_s >= 1 and count > 0:
                    workers.start("read", process.database, f"--seconds={seconds - 2}")
                    count -= 1
                watch.__defaults__ = (workers, count)

            with fed(scratch, rate, seconds, watch) as process:
                code = process.stop()
            stamps, stored = process.stamps(), process.stored()
            found = workers.answers()
        stored_s.append(stored / ((stamps["last_ns"] - stamps["first_ns"]) / 1e9))
        busy, asked = sum(one["busy"] for one in found), sum(one["queries"] for one in found)
        lines.append(
            f"    {count} readers: {measure.count(stored_s[-1])} ticks/s stored, the oldest"
            f" {stamps['age_ns_max'] / 1e6:.0f} ms old, exit {code}{process.overload()};"
            f" {measure.count(asked)} queries, {busy} SQLITE_BUSY"
        )
    share = f"    beside {READERS} readers / alone  {measure.verdict(stored_s[1] / stored_s[0], LEAST_SHARE)}"
    return "\n".join([f"(r) {measure.count(rate)} ticks/s into the engine:", *lines, share])


def rate_of(found: dict[str, Any]) -> float:
    """The number of ticks stored per second."""
    return float(found["ticks"] / found["in_writes_s"])


def flat(scratch: Path, _rate: int, seconds: int) -> str:
    """(f): the storage at full speed, alone and with readers at full speed."""
    db, lines, alone = scratch / "flat.db", [], 0.0
    for count, nice in ((0, 0), (READERS, 19), (READERS, 0)):
        engine.remove(db)
        with Workers() as workers:
            workers.start("write", db, "--seconds=1")
            workers.answers()
            workers.start("write", db, f"--seconds={seconds}")
            for _ in range(count):
                workers.start("read", db, f"--seconds={seconds}", nice=nice)
            writer, *found = workers.answers()
        alone = alone or rate_of(writer)
        busy, asked = sum(one["busy"] for one in found), sum(one["queries"] for one in found)
        lines.append(
            f"    {count} readers{f', nice {nice}' if nice else '':<9} {measure.count(rate_of(writer)):>9} ticks/s"
            f" ({rate_of(writer) / alone:.2f}), {_WORST.format(**writer)};"
            f" {measure.count(asked)} queries, {busy} SQLITE_BUSY"
        )
    cores = os.cpu_count() or 1
    return "\n".join([f"(f) storage flat out, batches of 100 ({READERS + 1} busy processes on {cores} cores):", *lines])


def upkeep(scratch: Path, _rate: int, seconds: int) -> str:
    """(u): the storage at full speed, alone and with prune and backup."""
    db, copy, lines = scratch / "old.db", scratch / "copy.db", []
    commands = {
        "beside prune": ["prune", f"--db={db}", "--keep=1h"],
        "beside backup": ["backup", str(copy), f"--db={db}", "--force"],
    }
    alone = 0.0
    for what in ("alone", *commands):
        engine.remove(db)
        with Workers() as workers:
            workers.start("write", db, "--seconds=600", f"--ticks={OLD_TICKS}", "--batch=2000", f"--age={OLD_S}")
            workers.answers()
            workers.start("write", db, f"--seconds={seconds}")
            time.sleep(1)  # let the writer reach full speed
            begun_s = time.perf_counter()
            text = ""
            if what in commands:
                command = [sys.executable, "-m", "tradebot", *commands[what]]
                done = subprocess.run(command, cwd=engine.REPO, capture_output=True, text=True)
                text = f"; {time.perf_counter() - begun_s:.1f} s, exit {done.returncode}: {done.stdout.strip()}"
                text += done.stderr.strip()
            (writer,) = workers.answers()
        alone = alone or rate_of(writer)
        share = rate_of(writer) / alone
        numbers = f"{measure.count(rate_of(writer)):>9} ticks/s ({share:.2f}), {_WORST.format(**writer)}"
        lines.append(f"    {what:<14} {numbers}{text}")
    return "\n".join([f"(u) storage flat out, {measure.count(OLD_TICKS)} old ticks in the file:", *lines])


def synchronous(scratch: Path, _rate: int, seconds: int) -> str:
    """(s): the cost of commits that are synced to disk."""
    db, rates, lines = scratch / "sync.db", [], []
    for word in ("NORMAL", "FULL"):
        engine.remove(db)
        with Workers() as workers:
            workers.start("write", db, f"--seconds={seconds}", f"--synchronous={word}")
            (writer,) = workers.answers()
        rates.append(rate_of(writer))
        lines.append(f"    {word:<7} {measure.count(rates[-1]):>9} ticks/s, {_WORST.format(**writer)}")
    lines.append(f"    FULL / NORMAL  {rates[1] / rates[0]:.2f}")
    return "\n".join(["(s) storage flat out, batches of 100:", *lines])


def parts(text: str | None) -> Sequence[str]:
    """The selected parts; exits with a message if one is unknown."""
    names = _PARTS if text is None else tuple(text.split(","))
    if unknown := [name for name in names if name not in _PARTS]:
        raise SystemExit(f"--only: unknown {', '.join(unknown)}; there are {', '.join(_PARTS)}")
    return names


def main() -> None:
    """Measure, and print each part as soon as it is complete."""
    arguments = docopt(__doc__ or "")
    seconds, rate = whole_number(arguments, "--seconds"), whole_number(arguments, "--rate")
    known: dict[str, Callable[[Path, int, int], str]] = {
        "wal": wal, "readers": readers, "flat": flat, "upkeep": upkeep, "synchronous": synchronous,
    }  # fmt: skip
    chosen = parts(arguments["--only"])
    print(f"storage\n{machine()}\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="tradebot-bench-") as scratch:
        for name in chosen:
            try:
                print(
                    f"{known[name](Path(scratch), rate, seconds if name == 'wal' else max(4, seconds // 2))}\n",
                    flush=True,
                )
            except measure.BenchError as error:
                sys.exit(f"bench: {error}")


if __name__ == "__main__":
    run_tool(main)
