"""The world around a simulated engine: one seed, one directory, settings, faults, and what came of it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, Final

from sim.clock import Movable
from sim.errors import SimExit, SimKilled
from sim.faults import FaultyStorage, StorageFaults
from sim.heldback import HeldBack
from sim.network import SimNetwork
from sim.runtime import SimRuntime
from sim.wire import SimTransport
from tradebot.config import Config, RunOptions, Settings
from tradebot.configkeys import build, check_value
from tradebot.engine import Edges, run_engine
from tradebot.exits import ExitCode, TradebotError
from tradebot.feeds.base import Feed
from tradebot.feeds.wire import Transport
from tradebot.live import find_live
from tradebot.report.output import Output

TABLES: Final = ("ticks", "signals", "orders", "trades", "notices")
_LIMIT_S: Final = 100_000.0


@dataclass
class Outcome:
    """How one simulated process ended."""

    exit_code: int | None
    """None when the process was killed."""
    error: str | None
    logs: list[dict[str, Any]]
    answers: str
    history: str
    steps: int
    sim_s: float
    crashed_threads: list[str] = field(default_factory=list)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Fields of the log lines whose `event` is `name`."""
        return [line["fields"] for line in self.logs if line["fields"].get("event") == name]

    def event(self, name: str) -> dict[str, Any]:
        """Fields of the last such line; an error when there is none."""
        found = self.events(name)
        if not found:
            raise AssertionError(f"no log line with event {name}")
        return found[-1]


@dataclass
class Faults:
    """What a scenario does to a process. Thread names are those of the seam, e.g. "tradebot-strategy".

    `jumps_ms` are (seconds, ms): the wall clock is set forward or back by so much. `network` makes the network that the
    process's WebSocket connections go over (see `sim.exchange.Exchange.online`); without it there is none.
    """

    storage: StorageFaults = field(default_factory=StorageFaults)
    delays_s: Mapping[str, float] = field(default_factory=dict)
    crashes: Mapping[str, int] = field(default_factory=dict)
    signals_at_s: tuple[float, ...] = ()
    kill_at_step: int | None = None
    kill_at_s: float | None = None
    jumps_ms: tuple[tuple[float, int], ...] = ()
    wrap_feed: Callable[[Feed, SimRuntime], Feed] = lambda feed, _runtime: feed
    network: Callable[[SimRuntime], SimNetwork] | None = None


class World:
    """One seed and one directory; `run` starts a process in it, one after the other, each with its own schedule."""

    def __init__(self, seed: int, directory: Path, freezer: Movable | None = None) -> None:
        self.seed = seed
        self.directory = directory
        self.db_path = directory / "sim.db"
        self._freezer = freezer
        self._processes = 0
        self.random = SimRuntime(seed).stream("scenario")
        self.outcomes: list[Outcome] = []

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
        sourced = find_live(config, chosen, dict.fromkeys(given, "command line"), None, {})
        return Settings(sourced.config, chosen, {}, sourced.live)

    def run(self, settings: Settings, faults: Faults | None = None) -> Outcome:
        """One process from start to end, or to its kill. Raises SimError when the simulation itself fails."""
        faults = Faults() if faults is None else faults
        self._processes += 1
        runtime = SimRuntime(self.seed * 1009 + self._processes, freezer=self._freezer)
        for at_s in faults.signals_at_s:
            runtime.call_at(at_s, runtime.send_signal)
        if faults.kill_at_step is not None:
            runtime.kill_at_step(faults.kill_at_step)
        if faults.kill_at_s is not None:
            runtime.call_at(faults.kill_at_s, runtime.kill)
        for at_s, ms in faults.jumps_ms:
            runtime.call_at(at_s, partial(runtime.jump_wall, ms))
        answers, errors = StringIO(), StringIO()
        seam = HeldBack(runtime, faults.delays_s, faults.crashes) if faults.delays_s or faults.crashes else runtime
        network = None if faults.network is None else faults.network(runtime)
        edges = Edges(
            runtime=seam,
            output=Output(answers, errors),
            make_storage=lambda path, synchronous, run: FaultyStorage(path, synchronous, run, faults.storage, runtime),
            wrap_feed=lambda feed: faults.wrap_feed(feed, runtime),
            make_transport=lambda _seam: _transport(runtime, network),
        )
        code: int | None = None
        error = None
        try:
            code = int(runtime.run(lambda: run_engine(settings, edges), until_s=_LIMIT_S))
        except SimExit as exit_now:
            code = exit_now.code
        except SimKilled:
            pass
        except TradebotError as failure:
            code, error = int(failure.exit_code), str(failure)
        logs = [json.loads(line) for line in errors.getvalue().splitlines()]
        outcome = Outcome(
            code, error, logs, answers.getvalue(), runtime.history_hash(), runtime.steps, runtime.elapsed_s,
        )  # fmt: skip
        self.outcomes.append(outcome)
        return outcome

    def write_lines(self, name: str, lines: list[str]) -> Path:
        """An input file in the world's directory."""
        path = self.directory / name
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return path

    def dump(self, path: Path | None = None) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of the tables of events and notices, by row id."""
        return dump(self.db_path if path is None else path)


def _transport(runtime: SimRuntime, network: SimNetwork | None) -> Transport:
    if network is None:
        raise AssertionError("this scenario has no network: Faults.network makes one")
    return SimTransport(runtime, network)


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


__all__ = ["ExitCode", "Faults", "Outcome", "World", "dump"]
