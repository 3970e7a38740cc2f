"""A live feed end to end: an engine with short deadlines, and the times at which it reports events of its link.

The times are those that the engine recorded, in notices and log lines. Tests read the same clock before they inject a
fault.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from sim.checks.checkers import check_database, check_run
from tests.e2e.process import (
    REPO,
    Engine,
    Fields,
    Finished,
    assert_sound,
    environment,
    rows,
    run_ids,
    ticks_stored,
    wait_until,
)
from tradebot.cli.arguments import parse
from tradebot.cli.resolve import resolve
from tradebot.config.model import Config
from tradebot.core.log_events import LogEvent

HELDBACK: Final = (sys.executable, REPO / "tests" / "e2e" / "slow_engine.py")

SLACK_S: Final = 1.0
"""How long after its deadline a fault may be detected."""

EARLY_S: Final = 0.1
"""How long before: the last frame arrived before the fault, and the clock has whole milliseconds."""

IDLE_S: Final = 1.0
CONNECT_S: Final = 0.8
BACKOFF_S: Final = 0.2
KEYS: Final[Mapping[str, object]] = {
    "feed.idle_timeout_s": IDLE_S,
    "feed.ping_interval_s": 0.3,
    "feed.connect_timeout_s": CONNECT_S,
    "feed.reconnect_budget_s": 30,
    "feed.backoff_max_s": BACKOFF_S,
    "feed.stable_after_s": 0,
    "channels.tick_channel_size": 16_384,
    "persist.flush_interval_ms": 20,
    "strategy.short_window": 2,
    "strategy.long_window": 5,
}
"""Short deadlines, an immediate retry after each loss, and signals within a few ticks.

The channels are large, so that a pause of a busy machine causes no overload.
"""


class Notice(NamedTuple):
    """A row of the table `notices`."""

    kind: str
    ts: int
    detail: str
    symbol: str | None
    missing: int | None
    ticks_before: int


class StoredTick(NamedTuple):
    """A row of the table `ticks`."""

    run: int
    symbol: str
    price: float
    volume: float
    ts: int
    event_id: str | None
    seq: int | None


def now_ms() -> int:
    """The current Unix time in milliseconds, from the clock that the engine reads."""
    return time.time_ns() // 1_000_000


def notices(db: Path, kind: str | None = None, run: int | None = None) -> list[Notice]:
    """The stored notices, oldest first, optionally of one kind or run. Empty while there is no table."""
    if not db.exists():
        return []
    query = f"SELECT run, {', '.join(Notice._fields)} FROM notices ORDER BY id"
    try:
        stored = [(row[0], Notice(*row[1:])) for row in rows(db, query)]
    except sqlite3.OperationalError:  # or no WAL index yet
        return []
    return [notice for no, notice in stored if kind in (None, notice.kind) and run in (None, no)]


def stored_ticks(db: Path) -> list[StoredTick]:
    """All ticks, oldest first."""
    return [StoredTick(*row) for row in rows(db, f"SELECT {', '.join(StoredTick._fields)} FROM ticks ORDER BY id")]


class Live:
    """A running engine with the database NAME.db and a live feed, which is mockws unless `args` say otherwise."""

    def __init__(
        self,
        engine: Engine,
        *args: str,
        name: str = "x",
        env: Mapping[str, str] | None = None,
        delays_s: Mapping[str, float] | None = None,
        **keys: Any,
    ) -> None:
        """Start it. `keys` are configuration keys, with `feed__history` for feed.history.

        With `delays_s` (by thread), the named threads are slow.
        """
        self.db = engine.path(f"{name}.db")
        values = {**KEYS, **{key.replace("__", "."): value for key, value in keys.items()}}
        engine.config(f"{name}.toml", toml(values))
        chosen = [] if any(arg.startswith("--ingest=") for arg in args) else ["--ingest=mockws"]
        every = [f"--config={engine.path(f'{name}.toml')}", f"--db={self.db.name}", *chosen, *args]
        self.config: Config = resolve(parse(every), environment(engine.home)).config
        if delays_s is None:
            self.running = engine.start(*every, env=env)
        else:
            faults = json.dumps({"delays_s": dict(delays_s), "crashes": {}})
            self.running = engine.start(faults, *every, env=env, command=HELDBACK)

    def wait_notice(self, kind: str, number: int = 1) -> Notice:
        """Wait until `count` notices of a kind are stored; returns the last one."""

        def found() -> list[Notice]:
            self._must_run()
            return notices(self.db, kind)[number - 1 :]

        return wait_until(found, f"notice {number} of {kind}")[0]

    def wait_ticks(self, count: int) -> None:
        """Wait until `count` ticks of all runs are stored."""

        def stored() -> bool:
            self._must_run()
            return ticks_stored(self.db) >= count

        wait_until(stored, f"{count} ticks in {self.db}")

    def wait_back(self, number: int = 1) -> Notice:
        """Wait until the link is restored and ticks are stored again; returns the notice."""
        restored = self.wait_notice("LINK_RESTORED", number)
        self.wait_ticks(restored.ticks_before + 3)
        return restored

    def ask_to_stop(self) -> None:
        """Send SIGTERM without waiting."""
        self.running.send(signal.SIGTERM)

    def stop(self) -> Finished:
        """Send SIGTERM and check the end."""
        self.ask_to_stop()
        return self.end(0)

    def end(self, code: int) -> Finished:
        """Wait for the end with `code`: everything accepted is stored, and everything missing is explained."""
        done = self.running.finish().expect(code)
        ledger = done.ledger
        assert ledger["not_stored"] == 0, ledger
        run = rows(self.db, "SELECT MAX(id) FROM runs")[0][0]
        assert rows(self.db, f"SELECT exit_code, ticks FROM runs WHERE id = {run}") == [(code, ledger["stored"])]
        metrics, said = done.one(LogEvent.FINAL_METRICS), notices(self.db, run=run)
        for counter, kind in (("gaps", "GAP"), ("reconnects", "LINK_RESTORED")):
            assert metrics[counter] == sum(notice.kind == kind for notice in said), counter
            assert len(done.all(kind)) == metrics[counter]
        assert_feed_sound(self.db)
        check_run(self.db, self.config, run_ids(self.db)[-1], whole=True)
        return done

    def _must_run(self) -> None:
        if self.running.process.poll() is not None:
            raise AssertionError(f"the engine has ended:\n{self.running.finish().stderr[-4000:]}")


def assert_feed_sound(db: Path) -> None:
    """The file is intact, no tick is stored twice, and missing numbers have a GAP notice in the right place."""
    assert_sound(db)
    check_database(db)
    ticks = stored_ticks(db)
    for what in ("seq", "event_id"):
        known = [(tick.symbol, getattr(tick, what)) for tick in ticks if getattr(tick, what) is not None]
        assert len(set(known)) == len(known), f"{what}: {len(known) - len(set(known))} ticks are stored twice"
    assert _gaps_told(db, ticks) == _gaps_between(ticks)
    for run in {tick.run for tick in ticks}:
        links = [notice.kind for notice in notices(db, run=run) if notice.kind.startswith("LINK_")]
        assert links == ["LINK_UP", *("LINK_LOST", "LINK_RESTORED") * len(links)][: len(links)], links


_Gap = tuple[int, int, str, int]  # run, ticks of the run before it, symbol, missing


def _gaps_between(ticks: list[StoredTick]) -> list[_Gap]:
    """The missing numbers, computed only from the stored ticks."""
    found = []
    highest: dict[str, int] = {}
    run, before = 0, 0
    for tick in ticks:
        run, before = tick.run, before + 1 if tick.run == run else 0
        if tick.seq is not None:
            missing = tick.seq - highest.get(tick.symbol, tick.seq - 1) - 1
            if missing > 0:
                found.append((run, before, tick.symbol, missing))
            highest[tick.symbol] = max(tick.seq, highest.get(tick.symbol, tick.seq))
    return found


def _gaps_told(db: Path, ticks: list[StoredTick]) -> list[_Gap]:
    """The gaps in the notices, except one after the last tick of a run: the kill lost the tick that revealed it."""
    found = []
    for run in sorted({tick.run for tick in ticks}):
        held = sum(tick.run == run for tick in ticks)
        for notice in notices(db, "GAP", run):
            if notice.ticks_before < held:
                assert notice.symbol is not None and notice.missing is not None
                found.append((run, notice.ticks_before, notice.symbol, notice.missing))
    return found


def logged(done: Finished, name: str) -> list[tuple[int, Fields]]:
    """The time (Unix ms) and the fields of each log line whose event is `name`."""
    found = []
    for line in done.stderr.splitlines():
        record = json.loads(line) if line.startswith("{") else {"fields": {}}
        if record["fields"].get("event") == name:
            written = datetime.fromisoformat(record["timestamp"])
            found.append((round(written.timestamp() * 1000), record["fields"]))
    return found


def in_time(
    fault: str, from_ms: int, found_ms: int, deadline_s: float, result: str = "recovered", least_s: float | None = None
) -> None:
    """Check that a fault was detected at its deadline or at most SLACK_S later, and print a row (`pytest -s`).

    It must not be detected earlier, unless `least_s` allows it.
    """
    found_s = (found_ms - from_ms) / 1000
    print(f"\n| {fault} | {deadline_s:g} s | {found_s:.3f} s | {result} |")
    least_s = deadline_s - EARLY_S if least_s is None else least_s
    assert least_s <= found_s <= deadline_s + SLACK_S, f"{fault}: {found_s} s, deadline {deadline_s} s"


def toml(values: Mapping[str, object]) -> str:
    """The text of a configuration file with keys given as "section.key"."""
    tables: dict[str, list[str]] = {}
    for name, value in values.items():
        table, _, key = name.rpartition(".")
        tables.setdefault(table, []).append(f"{key} = {json.dumps(value)}\n")
    return "".join(f"[{table}]\n{''.join(lines)}" for table, lines in tables.items())
