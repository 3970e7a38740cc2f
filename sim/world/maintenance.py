"""Engines, prunes and backups of one database, in consecutive or concurrent processes, with checks after each."""

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
from sim.world.side_process import CommandFaults, SideProcess, Trouble
from sim.world.world import Faults, ProcessOutcome, SimProcess, World
from tradebot.config.model import Settings
from tradebot.core.log_events import LogEvent
from tradebot.core.runtime import Runtime
from tradebot.ops import backup
from tradebot.ops.backup import run_backup
from tradebot.ops.prune import run_prune
from tradebot.store import policy

KEPT: Final = 1
"""Ticks of each feed that are always kept: the newest one."""
_TROUBLES: Final[tuple[Trouble, ...]] = ("wait", "wait", "busy", "full", "torn", "doubt", "kill")
_BACKUP_STEPS: Final = 8
"""Steps of a backup at which other threads may run: fewer than the pages of any database, whatever its layout."""


def draw_command_faults(world: World, often: float = 0.15) -> CommandFaults:
    """Draw an optional kill and SIGTERM, and faults of some transactions."""
    trouble = {n: _TROUBLES[world.between(0, len(_TROUBLES) - 1)] for n in range(1, 16) if world.chance(often)}
    kill = world.between(1, 80) if world.chance(0.25) else None
    signal = world.between(1, 60) if world.chance(0.25) else None
    return CommandFaults(kill, signal, trouble)


@dataclass
class ScheduledCommand:
    """A scheduled command: starts at `at_s` (seconds of its process), or when the engine in the same process has
    ended.
    """

    name: str
    run: Callable[[SideProcess], int]
    faults: CommandFaults = field(default_factory=CommandFaults)
    at_s: float = 0.0
    leaves: Path | None = None
    committed: Callable[[SideProcess, Any], None] = lambda _side_process, _db: None
    side_process: SideProcess | None = None
    """Set when its process starts."""

    @property
    def code(self) -> int | None:
        """Its exit code; None: it was killed."""
        return None if self.side_process is None else self.side_process.code

    @property
    def said(self) -> str:
        """Its output."""
        assert self.side_process is not None
        return (
            self.side_process.answers.getvalue() + self.side_process.errors.getvalue() + (self.side_process.error or "")
        )

    def begin(self, process: SimProcess, alone: bool) -> None:
        """Schedule its start."""
        runtime = process.runtime
        side_process = self.side_process = SideProcess(runtime, self.name, self.run, self.faults, alone, self.leaves)
        side_process.committed = partial(self.committed, side_process)
        process.side_processes.append(side_process)
        runtime.call_at(self.at_s, side_process.start)


class MaintainedDatabase:
    """One database and its wall clock, which continues across processes."""

    def __init__(self, world: World, settings: Settings, block: int) -> None:
        self.world = world
        self.settings = settings
        self.block = block
        self.elapsed_ms = 0
        """Time since the first process started."""
        self._gone = 0

    # ---- processes -----------------------------------------------------------------------------------------------

    def run_engine(
        self, *commands: ScheduledCommand, settings: Settings | None = None, **faults: Any
    ) -> ProcessOutcome:
        """An engine, beside it the errands; afterwards everything is looked at."""
        return self._run(settings or self.settings, commands, Faults(**faults))

    def run_alone(self, *commands: ScheduledCommand) -> None:
        """The errands, without an engine: a kill of the only one is a kill of the process."""
        self._run(self.settings, commands, Faults(engine=False))

    def pause(self, seconds: float) -> None:
        """Advance the clock without a process."""
        self.elapsed_ms += int(seconds * 1000)

    def _run(self, settings: Settings, commands: tuple[ScheduledCommand, ...], faults: Faults) -> ProcessOutcome:
        def begin(process: SimProcess) -> None:
            process.runtime.jump_wall(self.elapsed_ms)
            for command in commands:
                command.begin(process, alone=not faults.engine and len(commands) == 1)

        faults.begin = begin
        outcome = self.world.run(settings, faults)
        self.elapsed_ms += int(outcome.sim_s * 1000) + 1
        for command in commands:
            assert command.side_process is not None
            assert command.side_process.wrong is None, command.side_process.wrong
        if self.world.db_path.exists():
            self.check(settings, outcome)
        return outcome

    # ---- errands -------------------------------------------------------------------------------------------------

    def prune_command(
        self, keep_ms: int, faults: CommandFaults | None = None, at_s: float = 0.0, name: str = "prune"
    ) -> ScheduledCommand:
        """`tradebot prune`, with checks at its commits and at its end."""

        def run(side_process: SideProcess) -> int:
            with kept.reading(self.world.db_path) as db:
                covered = kept.covered(db)
            code = run_prune(
                self.world.db_path,
                keep_ms,
                False,
                side_process.runtime,
                side_process.answers,
                side_process.errors,
                side_process.database,
            )
            if code == 0 and "Left alone" not in side_process.answers.getvalue():
                with kept.reading(self.world.db_path) as db:
                    kept.check_finished(db, side_process.last_now_ms - keep_ms, covered, self.block)
            return code

        def committed(side_process: SideProcess, db: Any) -> None:
            kept.check_commit(db)
            kept.check_young(db, side_process.last_now_ms - keep_ms, self._gone)
            self._gone = kept.newest_gone(db)

        return ScheduledCommand(name, run, CommandFaults() if faults is None else faults, at_s, committed=committed)

    def backup_command(self, target: Path, faults: CommandFaults | None = None, at_s: float = 0.0) -> ScheduledCommand:
        """`tradebot backup`, in a fixed number of steps."""

        def run(side_process: SideProcess) -> int:
            with kept.reading(self.world.db_path) as db:
                pages = int(db.execute("PRAGMA page_count").fetchone()[0])
            _set(backup, "_STEP_PAGES", max(1, pages // _BACKUP_STEPS))
            runtime = _FewSleeps(side_process)
            return run_backup(
                self.world.db_path, target, True, runtime.runtime, side_process.answers, side_process.errors
            )

        part = target.with_name(target.name + ".part")
        return ScheduledCommand("backup", run, CommandFaults() if faults is None else faults, at_s, part)

    # ---- checks --------------------------------------------------------------------------------------------------

    def check(self, settings: Settings, outcome: ProcessOutcome) -> None:
        """Check the database; with all deleted rows restored it must equal an unpruned one."""
        path = self.world.db_path
        kept.keep_deleted(path)
        with kept.reading(path) as db:
            kept.check_commit(db)
            kept.check_kept(db)
        whole = kept.unpruned(path, self.world.directory / "unpruned.db")
        check_database(whole)
        kept.check_carried(path, whole)
        if outcome.events(LogEvent.START):
            observer, is_whole = self.world.processes[-1].observer, outcome.exit_code == 0
            positions = observer.positions if is_whole and observer.began else None
            check_run(whole, settings.config, run_id_of(outcome), is_whole, positions)

    def check_copy(self, target: Path) -> None:
        """Check a backup: it is sound, and its rows of each run are a prefix of those in the database."""
        assert target.exists(), "backup: the copy does not exist, though the command reported success"
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
    """A command's runtime that sleeps a fixed number of times."""

    def __init__(self, side_process: SideProcess) -> None:
        self._side_process = side_process
        self._left = _BACKUP_STEPS

    @property
    def runtime(self) -> Runtime:
        """This object as the command's runtime."""
        whole: Any = self
        runtime: Runtime = whole
        return runtime

    def __getattr__(self, name: str) -> Any:
        return getattr(self._side_process, name)

    def sleep(self, seconds: float) -> None:
        """Sleep, or return at once after the fixed number of sleeps."""
        if self._left:
            self._left -= 1
            self._side_process.sleep(seconds)


def _set(module: Any, name: str, value: Any) -> None:
    setattr(module, name, value)


@contextmanager
def maintained_database(world: World, settings: Settings) -> Iterator[MaintainedDatabase]:
    """A database whose prunes use small blocks."""
    block = world.between(2, 5)
    places: tuple[tuple[Any, str], ...] = (
        (policy, "_BLOCK_TICKS"), (backup, "_STEP_PAGES"),
    )  # fmt: skip
    before = [getattr(module, name) for module, name in places]
    _set(policy, "_BLOCK_TICKS", (block, block, block))
    try:
        yield MaintainedDatabase(world, settings, block)
    finally:
        for (module, name), value in zip(places, before, strict=True):
            _set(module, name, value)
