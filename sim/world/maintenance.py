"""Engines, prunes and backups of one database, one process after the other or at once, and what must come of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from sim.checks import prune_invariants as kept
from sim.checks.checkers import check_database, check_run
from sim.scenarios.common import run_id_of
from sim.world.side_process import Beside, Trouble, Woe
from sim.world.world import Faults, Outcome, Process, World
from tradebot.config.model import Settings
from tradebot.core.runtime import Runtime
from tradebot.ops import backup
from tradebot.ops.backup import run_backup
from tradebot.ops.prune import run_prune
from tradebot.store import policy

KEPT: Final = 1
"""Ticks of each feed that stay in any case: the newest."""
_TROUBLES: Final[tuple[Trouble, ...]] = ("wait", "wait", "busy", "full", "torn", "doubt", "kill")
_BACKUP_STEPS: Final = 8
"""Steps of a backup at which others may run: fewer than any database has pages, however SQLite lays them out."""


def draw_woe(world: World, often: float = 0.15) -> Woe:
    """A kill or a SIGTERM at some point, perhaps, and trouble with some transactions."""
    trouble = {n: _TROUBLES[world.between(0, len(_TROUBLES) - 1)] for n in range(1, 16) if world.chance(often)}
    kill = world.between(1, 80) if world.chance(0.25) else None
    signal = world.between(1, 60) if world.chance(0.25) else None
    return Woe(kill, signal, trouble)


@dataclass
class Errand:
    """A command that is to run: from `at_s` on (seconds of its process), or when the engine beside it has ended."""

    name: str
    run: Callable[[Beside], int]
    woe: Woe = field(default_factory=Woe)
    at_s: float = 0.0
    leaves: Path | None = None
    committed: Callable[[Beside, Any], None] = lambda _beside, _db: None
    beside: Beside | None = None
    """Once its process has begun."""

    @property
    def code(self) -> int | None:
        """How it ended; None: it was killed."""
        return None if self.beside is None else self.beside.code

    @property
    def said(self) -> str:
        """What it wrote."""
        assert self.beside is not None
        return self.beside.answers.getvalue() + self.beside.errors.getvalue() + (self.beside.error or "")

    def begin(self, process: Process, alone: bool) -> None:
        """Have it start in its time."""
        runtime = process.runtime
        beside = self.beside = Beside(runtime, self.name, self.run, self.woe, alone, self.leaves)
        beside.committed = partial(self.committed, beside)
        process.beside.append(beside)
        runtime.call_at(self.at_s, beside.start)


class Upkeep:
    """One database and its wall clock, which goes on from process to process."""

    def __init__(self, world: World, settings: Settings, block: int) -> None:
        self.world = world
        self.settings = settings
        self.block = block
        self.elapsed_ms = 0
        """Since the first process began."""
        self._gone = 0

    # ---- processes -----------------------------------------------------------------------------------------------

    def engine(self, *errands: Errand, settings: Settings | None = None, **faults: Any) -> Outcome:
        """An engine, beside it the errands; afterwards everything is looked at."""
        return self._run(settings or self.settings, errands, Faults(**faults))

    def alone(self, *errands: Errand) -> None:
        """The errands, without an engine: a kill of the only one is a kill of the process."""
        self._run(self.settings, errands, Faults(engine=False))

    def pause(self, seconds: float) -> None:
        """Nobody runs."""
        self.elapsed_ms += int(seconds * 1000)

    def _run(self, settings: Settings, errands: tuple[Errand, ...], faults: Faults) -> Outcome:
        def begin(process: Process) -> None:
            process.runtime.jump_wall(self.elapsed_ms)
            for errand in errands:
                errand.begin(process, alone=not faults.engine and len(errands) == 1)

        faults.begin = begin
        outcome = self.world.run(settings, faults)
        self.elapsed_ms += int(outcome.sim_s * 1000) + 1
        for errand in errands:
            assert errand.beside is not None
            assert errand.beside.wrong is None, errand.beside.wrong
        if self.world.db_path.exists():
            self.check(settings, outcome)
        return outcome

    # ---- errands -------------------------------------------------------------------------------------------------

    def prune(self, keep_ms: int, woe: Woe | None = None, at_s: float = 0.0, name: str = "prune") -> Errand:
        """`tradebot prune`; what must hold at its commits and at its end is looked at there."""

        def run(beside: Beside) -> int:
            with kept.reading(self.world.db_path) as db:
                covered = kept.covered(db)
            code = run_prune(
                self.world.db_path, keep_ms, False, beside.runtime, beside.answers, beside.errors, beside.database
            )
            if code == 0 and "Left alone" not in beside.answers.getvalue():
                with kept.reading(self.world.db_path) as db:
                    kept.check_finished(db, beside.told_ms - keep_ms, covered, self.block)
            return code

        def committed(beside: Beside, db: Any) -> None:
            kept.check_commit(db)
            kept.check_young(db, beside.told_ms - keep_ms, self._gone)
            self._gone = kept.newest_gone(db)

        return Errand(name, run, Woe() if woe is None else woe, at_s, committed=committed)

    def backup(self, target: Path, woe: Woe | None = None, at_s: float = 0.0) -> Errand:
        """`tradebot backup`, in a number of steps that does not depend on SQLite."""

        def run(beside: Beside) -> int:
            with kept.reading(self.world.db_path) as db:
                pages = int(db.execute("PRAGMA page_count").fetchone()[0])
            _set(backup, "_STEP_PAGES", max(1, pages // _BACKUP_STEPS))
            runtime = _FewSleeps(beside)
            return run_backup(self.world.db_path, target, True, runtime.runtime, beside.answers, beside.errors)

        part = target.with_name(target.name + ".part")
        return Errand("backup", run, Woe() if woe is None else woe, at_s, part)

    # ---- checks --------------------------------------------------------------------------------------------------

    def check(self, settings: Settings, outcome: Outcome) -> None:
        """The database is sound; with all that was deleted put back it is what one is that nobody pruned."""
        path = self.world.db_path
        kept.keep_deleted(path)
        with kept.reading(path) as db:
            kept.check_commit(db)
            kept.check_kept(db)
        whole = kept.unpruned(path, self.world.directory / "unpruned.db")
        check_database(whole)
        kept.check_carried(path, whole)
        if outcome.events("START"):
            watch, is_whole = self.world.processes[-1].watch, outcome.exit_code == 0
            positions = watch.positions if is_whole and watch.began else None
            check_run(whole, settings.config, run_id_of(outcome), is_whole, positions)

    def check_copy(self, target: Path) -> None:
        """A backup is sound, and each run in it is the beginning of what it is in the database."""
        assert target.exists(), "backup: there is none, though it said there is"
        with kept.reading(target) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)], "backup: it is damaged"
            kept.check_commit(db)
        directory = self.world.directory
        copied = kept.unpruned(target, directory / "unpruned_copy.db")
        check_database(copied)
        kept.check_carried(target, copied)
        kept.check_prefix(copied, kept.unpruned(self.world.db_path, directory / "unpruned.db"))

    def restore(self, target: Path) -> None:
        """Put a backup in the database's place, as docs/storage.md says."""
        for path in self.world.directory.glob(f"{self.world.db_path.name}*"):
            path.unlink()
        self.world.db_path.write_bytes(target.read_bytes())


class _FewSleeps:
    """A command's runtime; it sleeps as often as every backup does, and no more."""

    def __init__(self, beside: Beside) -> None:
        self._beside = beside
        self._left = _BACKUP_STEPS

    @property
    def runtime(self) -> Runtime:
        """This, as the command sees it."""
        whole: Any = self
        runtime: Runtime = whole
        return runtime

    def __getattr__(self, name: str) -> Any:
        return getattr(self._beside, name)

    def sleep(self, seconds: float) -> None:
        """Sleep, or do nothing."""
        if self._left:
            self._left -= 1
            self._beside.sleep(seconds)


def _set(module: Any, name: str, value: Any) -> None:
    setattr(module, name, value)


@contextmanager
def upkeep(world: World, settings: Settings) -> Iterator[Upkeep]:
    """A database whose prunes delete few ticks at once."""
    block = world.between(2, 5)
    places: tuple[tuple[Any, str], ...] = (
        (policy, "_BLOCK_TICKS"), (backup, "_STEP_PAGES"),
    )  # fmt: skip
    before = [getattr(module, name) for module, name in places]
    _set(policy, "_BLOCK_TICKS", (block, block, block))
    try:
        yield Upkeep(world, settings, block)
    finally:
        for (module, name), value in zip(places, before, strict=True):
            _set(module, name, value)
