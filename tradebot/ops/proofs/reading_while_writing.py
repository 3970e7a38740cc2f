"""Proof: readers at full speed beside a writer under load never meet SQLITE_BUSY, and do not slow it down much."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from peewee import SqliteDatabase, fn

from tradebot.core.errors import ConfigError
from tradebot.core.log_events import LogEvent
from tradebot.core.runtime import Event
from tradebot.ops.proofs.base import Experiment, Means, ProofOutcome, judged
from tradebot.ops.proofs.inputs import write_input
from tradebot.ops.proofs.lab import ChildProcess, Evidence, Lab, rounded
from tradebot.store.database import connect_readonly, reading
from tradebot.store.errors import StorageUnavailable
from tradebot.store.models import EVENT_MODELS, OrderRow, RunRow, SignalRow, TickRow

TICKS_PER_S: Final = 5000
READERS: Final = 4
ALONE_S: Final = 4.0
TOGETHER_S: Final = 8.0
SPARE_S: Final = 5.0
RATE_MIN: Final = 0.8
"""Of the writer's rate without readers."""
START_S: Final = 30.0


class Reader:
    """Reads in consecutive transactions until stopped; a thread of its own runs `run`."""

    def __init__(self, db_path: Path, stop: Event) -> None:
        self._db_path = db_path
        self._stop = stop
        self.transactions = 0
        self.errors: Counter[str] = Counter()
        self.torn = 0
        """Transactions in which the tables did not belong together."""

    def run(self) -> None:
        """Until `stop` is set; raises nothing."""
        db: SqliteDatabase | None = None
        try:
            db = connect_readonly(self._db_path)
            db.pragma("busy_timeout", 0)  # a wait for a lock must be noticed, not waited out
            while not self._stop.is_set():
                try:
                    with reading(db), db.atomic():
                        self.torn += not _whole(db)
                    self.transactions += 1
                except StorageUnavailable as error:
                    self.errors[error.code] += 1
        except (ConfigError, StorageUnavailable) as error:
            self.errors[getattr(error, "code", str(error))] += 1
        finally:
            if db is not None:
                db.close()


def _whole(db: SqliteDatabase) -> bool:
    """Whether one moment's tables fit together: counted rows are there, and no order misses its signal."""
    counted: Any = RunRow.select(RunRow.ticks, RunRow.last_tick_id).tuples().get(db)
    ticks: Any = TickRow.select(fn.COUNT(TickRow.id), fn.MAX(TickRow.id)).tuples().get(db)
    signals = SignalRow.select(SignalRow.event_id)
    orphans = OrderRow.select().where(OrderRow.signal_id.not_in(signals))
    return tuple(ticks) == tuple(counted) and not orphans.exists(db)


def run(lab: Lab, means: Means) -> ProofOutcome:
    """See the module."""
    source, db = lab.path("input.jsonl"), lab.path("engine.db")
    ticks = int(TICKS_PER_S * (ALONE_S + TOGETHER_S + SPARE_S))
    write_input(source, ticks, step_ms=1)
    words = [
        "run",
        "--ingest=replay",
        f"--replay-file={source}",
        f"--speed={TICKS_PER_S / 1000:g}x",
        f"--db={db}",
        f"--seconds={START_S + ALONE_S + TOGETHER_S + SPARE_S:g}",
        lab.config("engine.toml"),
    ]
    engine = lab.start("engine", words)
    monitor = lab.wait(lambda: _first_ticks(db, engine), "the first ticks", START_S)
    try:
        alone = _rate(lab, monitor, ALONE_S)
        stop = lab.runtime.event()
        readers = [Reader(db, stop) for _ in range(READERS)]
        threads = [lab.runtime.spawn(f"reader-{n}", reader.run) for n, reader in enumerate(readers, 1)]
        try:
            together = _rate(lab, monitor, TOGETHER_S)
        finally:
            stop.set()
            for thread in threads:
                thread.join(START_S)
    finally:
        monitor.close()
    ended = lab.stop(engine)
    errors = sum((reader.errors for reader in readers), Counter[str]())
    complaints = [lab.shown(line) for line in ended.log.splitlines() if "SQLITE_" in line or "locked" in line]
    evidence: Evidence = {
        "asked_ticks_per_s": TICKS_PER_S,
        "ticks_per_s_alone": rounded(alone),
        "ticks_per_s_with_readers": rounded(together),
        "readers": READERS,
        "seconds": TOGETHER_S,
        "reader_transactions": [reader.transactions for reader in readers],
        "reader_errors": dict(errors),
        "sqlite_busy": errors["SQLITE_BUSY"],
        "writer_complaints": complaints[:5],
        "ledger": lab.lines(ended.log, LogEvent.LEDGER),
        "rows": _counts(db),
        "commands": lab.shown_commands(),
    }
    faults = faults_of(readers, complaints, ended.code, alone, together)
    reads = sum(reader.transactions for reader in readers)
    return judged(
        faults,
        f"0 SQLITE_BUSY in {reads:,} reads of {READERS} readers; {together:.0f} ticks/s stored, {alone:.0f} without",
        evidence,
    )


def faults_of(
    readers: Sequence[Reader], complaints: Sequence[str], code: int, alone: float, together: float
) -> list[str]:
    """What speaks against the claim; rates in ticks a second. Pure."""
    errors = sum((reader.errors for reader in readers), Counter[str]())
    torn = sum(reader.torn for reader in readers)
    faults = [f"readers got {count} x {error}" for error, count in errors.items()]
    faults += [f"{torn} reads saw tables that contradict each other"] if torn else []
    faults += ["a reader completed no read"] if any(not reader.transactions for reader in readers) else []
    faults += [f"the writer logged: {complaints[0]}"] if complaints else []
    faults += [f"the engine ended with {code}"] if code else []
    if together < RATE_MIN * alone or not alone:
        faults.append(f"{together:.0f} ticks/s stored beside readers, {alone:.0f} without")
    return faults


def _first_ticks(db_path: Path, engine: ChildProcess) -> SqliteDatabase | None:
    """A connection to look with, as soon as there is something to see. Raises ConfigError when the engine is gone."""
    if engine.code is not None:
        raise ConfigError(f"the engine ended with {engine.code} before it stored a tick")
    if not db_path.exists():
        return None
    try:
        db = connect_readonly(db_path)
    except (ConfigError, StorageUnavailable):  # not yet all there
        return None
    if db.table_exists("runs") and db.table_exists("ticks") and _stored(db):
        return db
    db.close()
    return None


def _stored(db: SqliteDatabase) -> int:
    with reading(db):
        return int(RunRow.select(fn.COALESCE(fn.SUM(RunRow.ticks), 0)).scalar(db))


def _rate(lab: Lab, db: SqliteDatabase, seconds: float) -> float:
    """Ticks stored a second, over so long."""
    before, began_s = _stored(db), lab.runtime.monotonic()
    lab.pause(seconds)
    return (_stored(db) - before) / (lab.runtime.monotonic() - began_s)


def _counts(db_path: Path) -> dict[str, int]:
    db = connect_readonly(db_path)
    try:
        with reading(db):
            return {model._meta.table_name: int(model.select().count(db)) for model in EVENT_MODELS}
    finally:
        db.close()


EXPERIMENT: Final = Experiment(
    "reading_while_writing",
    f"{READERS} readers at full speed beside a writer under load: no SQLITE_BUSY, the writer keeps 80 % of its rate",
    90,
    False,
    run,
)
