"""What must be true after the start that follows a kill, a loss of power or an error."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from sim.checks.checkers import check_run
from tests.e2e.process import Finished, assert_sound, dump, run_ids, synthetic_units
from tests.recovery.children import HUNG, started
from tests.recovery.disk import Image
from tests.recovery.scenarios import DB, Place, Scenario
from tests.recovery.shim import COUNTED
from tradebot.cli.arguments import parse
from tradebot.cli.resolve import resolve
from tradebot.core.log_events import LogEvent

Rows = dict[str, tuple[int, ...]]
"""Of each run, by its id: rows by table, as in COUNTED."""

FAULTS: Final = ("hung", "ended with 12", "ended with 1", "other end", "unsound", "lost", "unequal")
_BUGS: Final = ("Traceback", "internal error", "a bug", LogEvent.LEDGER_UNBALANCED, LogEvent.THREAD_CRASHED)


class Fault(Exception):
    """What is wrong; `kind` is one of FAULTS."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind


def most(one: Rows, other: Rows) -> Rows:
    """Of each run and table the higher count."""
    found = dict(one)
    for run, rows in other.items():
        found[run] = tuple(map(max, rows, found.get(run, rows)))
    return found


def write_image(image: Image, home: Path) -> None:
    """Make `home` hold these files and nothing else."""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    for name, data in image.items():
        with (home / name).open("wb") as file:
            # The reserve of a spill file is megabytes of zeros.
            file.write(data.rstrip(b"\0"))
            file.truncate(len(data))


def read_image(home: Path) -> Image:
    """The files in `home`, but for the index of the write-ahead log."""
    return {path.name: path.read_bytes() for path in sorted(home.iterdir()) if not path.name.endswith("-shm")}


def rows_of(image: Image) -> Rows:
    """The rows of each run that the database of an image holds."""
    if not image.get(DB):
        return {}
    with tempfile.TemporaryDirectory(dir=memory()) as place:
        files = {name: image[name] for name in (DB, f"{DB}-wal", f"{DB}-journal") if name in image}
        write_image(files, Path(place) / "x")
        return stored_rows(Path(place) / "x" / DB)


def memory() -> str | None:
    """A directory in memory, where a sync costs nothing; None on a system without one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def stored_rows(db: Path) -> Rows:
    """The rows of each run that a database holds; none while it has no tables yet."""
    with closing(sqlite3.connect(db)) as connection, suppress(sqlite3.OperationalError):
        return {row[0]: row[1:] for row in connection.execute(f"SELECT run_id, {', '.join(COUNTED)} FROM runs")}
    return {}


def spilled_rows(image: Image) -> Rows:
    """What a spill file says its run will come to: the counts in its header, and the whole lines after it."""
    lines = image.get(f"{DB}.spill", b"").split(b"\n")[:-1]
    with suppress(msgspec.DecodeError):
        records: list[list[Any]] = [msgspec.json.decode(line) for line in lines]
        if records and records[0][0] == "spill":
            _, _version, run, *counts = records[0]
            rows = dict(zip(COUNTED, counts, strict=False))
            for kind, *values in records[1:]:
                table = {"t": "ticks", "s": "signals", "o": "orders", "n": "notices"}.get(kind)
                if table is not None:
                    rows[table] += 1
                if table == "orders":
                    rows["trades"] += len(values[-2])  # fills come before the breach of a limit
            return {run: tuple(rows.get(table, 0) for table in COUNTED)}
    return {}


class Judge:
    """Judges the points of one scenario under one configuration."""

    def __init__(self, scenario: Scenario, place: Place, undisturbed: bytes | None) -> None:
        self._scenario = scenario
        self._undisturbed = undisturbed
        args = scenario.again(place)
        self._config = resolve(parse(args), {"HOME": str(place.inputs)}).config

    def victim(self, done: Finished, killed: bool) -> None:
        """How the disturbed run itself ended. Raises Fault."""
        if killed:
            if done.code not in (-9, self._scenario.code):
                self._ended(done, "killed")
            return
        if done.code not in (0, 13):
            self._ended(done, "under the error")
        self._no_bug(done)

    def again(self, done: Finished) -> None:
        """How the start after it ended. Raises Fault."""
        if done.code != 0:
            self._ended(done, "the start after it")
        self._no_bug(done)

    def _no_bug(self, done: Finished) -> None:
        for bug in _BUGS:
            if bug in done.stderr:
                raise Fault("ended with 1", f"{bug!r} in the log:\n{done.stderr[-3000:]}")

    def _ended(self, done: Finished, which: str) -> None:
        kind = {HUNG: "hung", 12: "ended with 12", 1: "ended with 1"}.get(done.code, "other end")
        raise Fault(kind, f"{which}: {done.code}; {done.complaint or done.stderr[-2000:]}")

    def stored(self, db: Path, required: Rows, victim: Finished | None) -> None:
        """What the database holds after the start that followed. Raises Fault."""
        try:
            assert_sound(db)
        except AssertionError as error:
            raise Fault("unsound", str(error)) from error
        held = stored_rows(db)
        for run, rows in most(required, self._accounted(victim)).items():
            missing = [
                f"{wanted - have} {table}"
                for table, wanted, have in zip(COUNTED, rows, held.get(run, (0,) * len(COUNTED)), strict=True)
                if wanted > have
            ]
            if missing:
                raise Fault("lost", f"of run {run}: {', '.join(missing)}, required {rows}, held {held.get(run)}")
        if self._undisturbed is not None:
            if dump(db) != self._undisturbed:
                raise Fault("unequal", "the four tables differ from those of an undisturbed run")
            return
        whole = self._accounted(victim) if self._nothing_lost(victim) else {}
        try:
            for run in run_ids(db):
                check_run(db, self._config, run, whole=run in whole)
            synthetic_units(db)
        except AssertionError as error:
            raise Fault("unsound", str(error)) from error

    def _accounted(self, victim: Finished | None) -> Rows:
        """The ticks that the ledger of a run that ended by itself calls stored or spilled."""
        if victim is None or victim.code not in (0, 13) or self._scenario.replay:
            return {}
        start, ledgers = started(victim), victim.all(LogEvent.LEDGER)
        if start is None or not ledgers:
            return {}
        ledger = ledgers[0]
        if not ledger["balanced"]:
            raise Fault("ended with 1", f"the ledger does not balance: {ledger}")
        return {start["run_id"]: (ledger["stored"] + ledger["spilled"], 0, 0, 0, 0)}

    def _nothing_lost(self, victim: Finished | None) -> bool:
        return victim is not None and not any(fields["events_lost"] for fields in victim.all(LogEvent.NOT_STORED))
