"""The environment of a simulated engine: one seed, one directory, settings, faults and results."""

from __future__ import annotations

import json
import os
import sqlite3
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, Final

from sim.checks.engine_observer import EngineObserver
from sim.kernel.clock import SettableClock
from sim.kernel.errors import SimExit, SimKilled
from sim.kernel.runtime import SimRuntime
from sim.world.calls import recording
from sim.world.disk import Disk
from sim.world.fake_systemd import FakeSystemd
from sim.world.faults import (
    FaultyStore,
    FaultyWriter,
    FileSnapshot,
    StorageFaults,
    WriterWorld,
    files_bounded,
    open_files,
)
from sim.world.journal import Journal, JournalRuntime, LogStream, enter_logs
from sim.world.network import SimNetwork
from sim.world.power import Loss, lose_power, recovered
from sim.world.side_process import SideProcess
from sim.world.slow_threads import FaultyRuntime
from sim.world.transport import SimTransport
from tradebot.config.model import Config, RunOptions, Settings, db_path
from tradebot.config.validation import KEYS, build, check_value
from tradebot.core.errors import ExitCode, TradebotError
from tradebot.core.log_events import LogEvent
from tradebot.engine import Edges, run_engine
from tradebot.feeds.base import Feed
from tradebot.feeds.endpoint import find_live
from tradebot.feeds.websocket.transport import Transport
from tradebot.report.output import Output
from tradebot.threads.ingest import CHECKPOINT_TICKS

TABLES: Final = ("ticks", "signals", "orders", "order_events", "trades", "notices")
_LIMIT_S: Final = 100_000.0


@dataclass
class ProcessOutcome:
    """How one simulated process ended."""

    exit_code: int | None
    """None when the process was killed."""
    error: str | None
    logs: list[dict[str, Any]]
    answers: str
    history: str
    steps: int
    sim_s: float
    times_s: list[float] = field(default_factory=list)
    """The time of each line of `logs`, in simulated seconds."""
    lost: int = 0
    """Stored ticks of its run that a power loss in this or a later process has lost."""
    covered_ticks: int = 0
    """The number of its ticks covered by a stored checkpoint."""

    @property
    def has_exact_ledger(self) -> bool:
        """Whether its ledger must be exact.

        It must if the process came to its end without a second signal (which interrupts counting) and lost no stored
        data.
        """
        at_once = self.events(LogEvent.SECOND_SIGNAL)
        return bool(self.events(LogEvent.FINAL_METRICS)) and not at_once and not self.lost

    def events(self, name: str) -> list[dict[str, Any]]:
        """Fields of the log lines whose `event` is `name`."""
        return [line["fields"] for line in self.logs if line["fields"].get("event") == name]

    def event(self, name: str) -> dict[str, Any]:
        """Fields of the last such line. Raises AssertionError without one."""
        found = self.events(name)
        if not found:
            raise AssertionError(f"no log line with event {name}")
        return found[-1]


@dataclass
class SimProcess:
    """A simulated process and the objects that the world may control."""

    number: int
    runtime: JournalRuntime
    seam: FaultyRuntime
    observer: EngineObserver
    network: SimNetwork | None
    manager: FakeSystemd
    disk: Disk
    power_cut: bool = False
    """Whether a power loss ended it, or followed immediately."""
    loss: Loss | None = None
    """The loss of that power cut."""
    made_another: bool = False
    """Whether it created a new database at the path of the moved one."""
    storage: FaultyWriter | None = None
    """Set when the engine opens it."""
    side_processes: list[SideProcess] = field(default_factory=list)
    """Concurrent commands; the history continues until they have ended too."""

    def close_leftovers(self) -> None:
        """Close what it left open when it was killed."""
        if self.storage is not None:
            self.storage._db = None  # of a stage that was killed as it closed it
        self.observer.close_leftovers()

    def cut_power(self) -> None:
        """Power loss: unsynced data may be lost."""
        self.power_cut = True
        self.runtime.say("the power is cut")
        self.runtime.kill()


@dataclass
class Faults:
    """What a scenario does to a process. Thread names are those of the seam, e.g. "tradebot-strategy".

    `signal_on`: the first log line of each of these events triggers SIGTERM.
    `jumps_ms` are (seconds, ms): the wall clock is set forward or back. `network` makes the network that the
    process's WebSocket connections go over (see `sim.world.exchange.SimExchange.online`); by default it has none.
    `begin` is called before the process starts: it may arrange anything with the world's calls of its runtime. A
    checkpoint comes every `checkpoint_ticks` ticks. Without `engine` only the commands run.
    """

    storage: StorageFaults = field(default_factory=StorageFaults)
    delays_s: Mapping[str, float] = field(default_factory=dict)
    crashes: Mapping[str, int] = field(default_factory=dict)
    signals_at_s: tuple[float, ...] = ()
    signal_on: tuple[LogEvent, ...] = ()
    kill_at_step: int | None = None
    kill_at_s: float | None = None
    power_cut_at_s: float | None = None
    power_cut_at_end: bool = False
    """Power loss immediately after the end of the process."""
    jumps_ms: tuple[tuple[float, int], ...] = ()
    wrap_feed: Callable[[Feed, SimRuntime], Feed] = lambda feed, _runtime: feed
    network: Callable[[SimRuntime], SimNetwork] | None = None
    begin: Callable[[SimProcess], None] = lambda _process: None
    engine: bool = True
    checkpoint_ticks: int = CHECKPOINT_TICKS


class World:
    """One seed and one directory; `run` starts a process in it, one after the other, each with its own schedule.

    `only` restricts the kinds of faults that a scenario may draw (None: no restriction), `safety_s` limits their time.
    `drawn` are the drawn kinds, `injected` counts injected faults by kind.
    """

    def __init__(self, seed: int, directory: Path, freezer: SettableClock | None = None) -> None:
        self.seed = seed
        self.directory = directory
        self.db_path = directory / "sim.db"
        self._freezer = freezer
        self.random = SimRuntime(seed).stream("scenario")
        self.outcomes: list[ProcessOutcome] = []
        self.processes: list[SimProcess] = []
        self.disk = Disk(self.db_path)
        self.journal = Journal()
        self.only: frozenset[str] | None = None
        self.safety_s: float | None = None
        self.drawn: tuple[str, ...] = ()
        self.injected: Counter[str] = Counter()

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return self.random.random() < probability

    def between(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + int(self.random.random() * (high - low + 1))

    def settings(self, values: Mapping[str, object], options: Mapping[str, Any] | None = None) -> Settings:
        """Settings from dotted configuration keys, checked as a configuration file would be."""
        given = {"app.db_path": str(self.db_path), **values}
        config: Config = build({name: check_value(name, value) for name, value in given.items()})
        chosen = RunOptions(log_format="json", **(options or {}))
        origins = {**dict.fromkeys(KEYS, "default"), **dict.fromkeys(given, "command line")}
        sourced = find_live(config, chosen, origins, None, {})
        return Settings(sourced.config, chosen, {}, sourced.live)

    def run(self, settings: Settings, faults: Faults | None = None) -> ProcessOutcome:
        """Run one process to its end or kill. Raises SimError if the simulation itself fails."""
        faults = Faults() if faults is None else faults
        number = len(self.processes) + 1
        runtime = JournalRuntime(self.seed * 1009 + number, self.journal, number, freezer=self._freezer)
        answers, errors = StringIO(), LogStream(runtime, faults.signal_on)
        code: int | None = None
        error = None
        since = len(self.journal.entries)
        snapshot = FileSnapshot(db_path(settings.config))
        runtime.on_death = snapshot.save
        runtime.say("process starts")
        try:
            with files_bounded(), _leaving_files_open(), recording(self.disk, lambda: not runtime.killed):
                process = self._process(number, runtime, faults)
                edges = _edges(process, faults, Output(answers, errors))
                main = partial(_main, settings if faults.engine else None, edges, process.side_processes)
                code = int(runtime.run(main, until_s=_LIMIT_S))
        except SimKilled as death:
            code = death.code if isinstance(death, SimExit) else None
            with _leaving_files_open():
                self.processes[-1].observer.drop_tracebacks()
                self.processes[-1].close_leftovers()
        except TradebotError as failure:
            code, error = int(failure.exit_code), str(failure)
        finally:
            process = self.processes[-1]
            process.observer.drop_tracebacks()
            if process.power_cut and not runtime.was_killed:
                snapshot.save()
                with _leaving_files_open():
                    process.close_leftovers()
            self.disk.release()
            snapshot.restore_files()
            self._after_death(process)
            _close_inputs(self.directory)
            logs = [json.loads(line) for line in errors.getvalue().splitlines()]
            enter_logs(self.journal, number, logs, errors.times_s, since)
            how = "killed" if code is None else f"exit code {code}{f': {error}' if error else ''}"
            self.journal.add(number, runtime.elapsed_s, f"process ended: {how}")
        outcome = ProcessOutcome(
            code, error, logs, answers.getvalue(), runtime.history_hash(), runtime.steps, runtime.elapsed_s,
            errors.times_s, covered_ticks=covered_ticks(db_path(settings.config), logs),
        )  # fmt: skip
        self.outcomes.append(outcome)
        self._record_losses(process.loss)
        return outcome

    def _process(self, number: int, runtime: JournalRuntime, faults: Faults) -> SimProcess:
        seam = FaultyRuntime(runtime, faults.delays_s, faults.crashes)
        network = None if faults.network is None else faults.network(runtime)
        process = SimProcess(
            number, runtime, seam, EngineObserver(seam, runtime), network, FakeSystemd(runtime), self.disk
        )
        self.processes.append(process)
        for at_s in faults.signals_at_s:
            runtime.call_at(at_s, runtime.send_signal)
        if faults.kill_at_step is not None:
            runtime.kill_at_step(faults.kill_at_step)
        if faults.kill_at_s is not None:
            runtime.call_at(faults.kill_at_s, runtime.kill)
        if faults.power_cut_at_s is not None:
            runtime.call_at(faults.power_cut_at_s, process.cut_power)
        process.power_cut = faults.power_cut_at_end
        for at_s, ms in faults.jumps_ms:
            runtime.call_at(at_s, partial(runtime.jump_wall, ms))
        process.observer.check_periodically()
        faults.begin(process)
        return process

    def _after_death(self, process: SimProcess) -> None:
        """Set the files to their state in the interrupted call and, after a power loss, to an image of the disk."""
        process.made_another = self.disk.bring_back()
        for path, content in self.disk.instead.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(content)
        if process.power_cut:
            process.loss = lose_power(self.disk, process.runtime.stream("power"))
            lost = process.loss
            process.runtime.say(f"power is back: {lost.commits} of {lost.commits_before} commits in the log are lost")

    def _record_losses(self, loss: Loss | None) -> None:
        """Record with each process the ticks of its run that a power loss has lost."""
        for outcome in self.outcomes if loss is not None else ():
            for start in outcome.events(LogEvent.START):
                assert loss is not None
                outcome.lost += loss.ticks.get(start["run_id"], 0)

    def write_lines(self, name: str, lines: list[str]) -> Path:
        """An input file in the world's directory."""
        path = self.directory / name
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return path

    def dump(self, path: Path | None = None) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of the tables of events and notices, by row id."""
        return dump(self.db_path if path is None else path)


@contextmanager
def _leaving_files_open() -> Iterator[None]:
    """Suppress ResourceWarnings inside the block: a killed process does not close its files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield


def _close_inputs(directory: Path) -> None:
    """Close the input files in `directory` that a process left open."""
    for descriptor, name in open_files():
        if fnmatch(name, f"{directory}/*.jsonl"):
            os.close(descriptor)


def _edges(process: SimProcess, faults: Faults, output: Output) -> Edges:
    runtime = process.runtime

    def keep(writer: FaultyWriter) -> None:
        process.storage = writer

    world = WriterWorld(faults.storage, runtime, process.disk, keep)
    return Edges(
        runtime=process.observer,
        output=output,
        make_store=partial(FaultyStore, world=world),
        wrap_feed=lambda feed: process.observer.wrap_feed(faults.wrap_feed(feed, runtime)),
        make_transport=lambda _seam: _transport(runtime, process.network),
        make_notifier=lambda: process.manager,
        checkpoint_ticks=faults.checkpoint_ticks,
    )


def _main(settings: Settings | None, edges: Edges, side_processes: list[SideProcess]) -> ExitCode:
    """Run the engine, if there is one, then wait for the commands."""
    try:
        return ExitCode.COMPLETE if settings is None else run_engine(settings, edges)
    finally:
        for command in side_processes:
            command.wait()


def _transport(runtime: SimRuntime, network: SimNetwork | None) -> Transport:
    if network is None:
        raise AssertionError("this scenario has no network: Faults.network makes one")
    return SimTransport(runtime, network)


def covered_ticks(path: Path, logs: list[dict[str, Any]]) -> int:
    """How many ticks of the run that wrote `logs` the newest stored checkpoint of its feed covers.

    Reads a copy: closing the only connection checkpoints SQLite's log, but a kill leaves the log.
    """
    started = [line["fields"]["run_id"] for line in logs if line["fields"].get("event") == LogEvent.START]
    if not started:
        return 0
    with recovered(path) as db:
        if db is None or not db.execute("SELECT name FROM sqlite_master WHERE name = 'feeds'").fetchall():
            return 0
        query = "SELECT run_ticks FROM feeds JOIN runs ON runs.id = feeds.run WHERE runs.run_id = ?"
        found = db.execute(query, (started[-1],)).fetchone()
    return 0 if found is None else int(found[0])


def dump(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of the tables of events and notices, by row id; empty tables when there is no database yet."""
    if not path.exists():
        return {table: [] for table in TABLES}
    db = sqlite3.connect(path)
    try:
        present = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        return {t: db.execute(f"SELECT * FROM {t} ORDER BY id").fetchall() if t in present else [] for t in TABLES}
    finally:
        db.close()


__all__ = ["ExitCode", "Faults", "ProcessOutcome", "World", "dump"]
