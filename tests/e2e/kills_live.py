"""Random SIGKILLs of an engine with a live feed, each followed by a restart: `python -m tests.e2e.kills_live`.

One mockws runs through all kills, with two busy symbols and a quiet one, missing numbers, repeated trades and dropped
links. Each engine is killed 0.05 to 1.5 s after its start, or up to 0.4 s after its link was up: while it starts,
connects or stores. A copy of its files is checked, so that every start finds the files as the kill left them: nothing
is stored twice, every gap between two numbers has its notice in the right place, and no row lacks its cause. At
intervals and at the end, signals and fills are recomputed, with positions continued from run to run.

With `--mode=paper` open orders and the account continue from run to run, and at the end a replay of all runs must give
the same signals, orders, order events, fills and notices.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sim.checks.checkers import check_database, check_run
from tests.e2e.live import KEYS, assert_feed_sound, toml
from tests.e2e.mockws import MockWsProcess
from tests.e2e.paper import assert_paper_sound, assert_replay_same
from tests.e2e.process import Engine, assert_sound, environment, run_ids, ticks_stored, wait_for_ticks
from tradebot.cli.arguments import parse
from tradebot.cli.resolve import resolve
from tradebot.config.model import Config
from tradebot.core.log_events import LogEvent

BUSY: Final = ["BTC/USD", "ETH/USD"]
QUIET: Final = "QUIET/USD"
EARLIEST_S: Final = 0.05
LATEST_S: Final = 1.5
LINKED_LATEST_S: Final = 0.4
RECOMPUTED_EVERY: Final = 50
_DB: Final = "x.db"
PAPER_KEYS: Final[Mapping[str, object]] = {
    "execution.order_type": "limit",
    "execution.limit_offset_bps": 2.0,
    "paper.latency_ms": 20,
    "paper.queue": "trades",
    "strategy.desired_size": 0.5,
}

# A round takes 1.5 s, longer than most engines live, so kills occur everywhere in it.
FEED: Final = f"""
description = "continues with or without clients: gaps, trades sent again, a quiet symbol, a cut link"
symbols = {BUSY}
market = "fast"
repeat = true
[[step]]
do = "ticks"
count = 120
per_s = 200
[[step]]
do = "skip"
count = 4
[[step]]
do = "ticks"
count = 80
per_s = 200
[[step]]
do = "ticks"
count = 1
per_s = 100
symbols = ["{QUIET}"]
[[step]]
do = "duplicate"
count = 10
[[step]]
do = "ticks"
count = 100
per_s = 200
[[step]]
do = "skip"
count = 1
[[step]]
do = "ticks"
count = 2
per_s = 100
symbols = ["{QUIET}"]
[[step]]
do = "duplicate"
count = 5
[[step]]
do = "disconnect"
code = 1011
"""


@dataclass
class Account:
    """The expected content of the database, computed from the numbers of the stored ticks; updated as it grows."""

    ticks: int = 0
    gaps: int = 0
    missing: int = 0
    _seen: set[tuple[str, int]] = field(default_factory=set)
    _highest: dict[str, int] = field(default_factory=dict)
    _held: dict[int, int] = field(default_factory=dict)
    _last_tick: int = 0
    _last_notice: int = 0

    def read(self, db: Path) -> None:
        """Read the rows stored since the last call. Raises AssertionError if they are wrong."""
        with closing(sqlite3.connect(db)) as connection:
            query = "SELECT id, run, symbol, seq FROM ticks WHERE id > ? ORDER BY id"
            ticks = connection.execute(query, (self._last_tick,)).fetchall()
            query = (
                "SELECT id, run, symbol, missing, ticks_before FROM notices WHERE id > ? AND kind = 'GAP' ORDER BY id"
            )
            notices = connection.execute(query, (self._last_notice,)).fetchall()
        between = [gap for number, run, symbol, seq in ticks for gap in self._next(number, run, symbol, seq)]
        # A notice after the last stored tick of a run: the kill lost the tick to which it refers.
        told = [
            (run, before, symbol, missing) for _, run, symbol, missing, before in notices if before < self._held[run]
        ]
        assert told == between, f"holes between numbers: {_unlike(between, told)}; told: {_unlike(told, between)}"
        self._last_notice = max([self._last_notice, *(notice[0] for notice in notices)])
        self.gaps += len(told)
        self.missing += sum(gap[3] for gap in told)

    def _next(self, number: int, run: int, symbol: str, seq: int) -> list[tuple[int, int, str, int]]:
        assert (symbol, seq) not in self._seen, f"{symbol} {seq} is stored twice, again as tick {number} in run {run}"
        self._seen.add((symbol, seq))
        before = self._held.get(run, 0)
        missing = seq - self._highest.get(symbol, seq - 1) - 1
        self._highest[symbol] = max(seq, self._highest.get(symbol, seq))
        self._held[run] = before + 1
        self._last_tick = number
        self.ticks += 1
        return [(run, before, symbol, missing)] if missing > 0 else []


def _unlike(some: list[tuple[int, int, str, int]], others: list[tuple[int, int, str, int]]) -> list[str]:
    return [str(one) for one in some if one not in others][:5]


class _Engines:
    """Consecutive engines on one database."""

    def __init__(self, home: Path, url: str, chance: random.Random, paper: bool) -> None:
        self.engine = Engine(home)
        self.db = home / _DB
        self.account = Account()
        self._chance = chance
        self._copy = home / "copy"
        self._paper = paper
        keys = {**KEYS, **(PAPER_KEYS if paper else {})}
        configs = [
            self.engine.config(f"batch-{size}.toml", toml({**keys, "persist.batch_size": size}))
            for size in (1, 10, 100)
        ]
        mode = "--mode=paper" if paper else "--mode=shadow"
        self._commands = [(config, f"--db={_DB}", "--ingest=mockws", f"--ws-url={url}", mode) for config in configs]
        args = [f"--config={home / configs[0].removeprefix('--config=')}", *self._commands[0][1:]]
        self.config: Config = resolve(parse(args), environment(home)).config

    def strike(self) -> bool:
        """Start an engine, kill it, and check what it left; whether it had stored anything."""
        chance = self._chance
        command = chance.choice(self._commands)
        linked = chance.random() < 0.5
        delay_s = chance.uniform(0, LINKED_LATEST_S) if linked else chance.uniform(EARLIEST_S, LATEST_S)
        running = self.engine.start(*command)
        if linked:
            running.wait_for(LogEvent.LINK_UP)
        time.sleep(delay_s)  # no condition: the kill may occur anywhere
        done = running.kill()
        assert done.code == -signal.SIGKILL, f"ended by itself with {done.code}:\n{done.stderr[-4000:]}"
        assert "Traceback" not in done.stderr, done.stderr
        before = self.account.ticks
        copy = self._copied()
        if ticks_stored(copy):
            if self._paper:
                assert_paper_sound(copy)
            else:
                assert_sound(copy)
            self.account.read(copy)
        return self.account.ticks > before

    def _copied(self) -> Path:
        shutil.rmtree(self._copy, ignore_errors=True)
        self._copy.mkdir()
        for suffix in ("", "-wal", "-journal"):
            if (part := self.db.with_name(_DB + suffix)).exists():
                shutil.copy(part, self._copy / part.name)
        return self._copy / _DB

    def recompute(self) -> None:
        """Signals, orders and fills of the newest run follow from its ticks and from the earlier runs."""
        copy = self._copied()
        if ticks_stored(copy) and not self._paper:
            check_database(copy)
            check_run(copy, self.config, run_ids(copy)[-1], whole=False)

    def finish(self) -> None:
        """Run one more engine without a kill, then check everything."""
        running = self.engine.start(*self._commands[0])
        running.wait_for(LogEvent.LINK_UP)
        wait_for_ticks(self.db, ticks_stored(self.db) + 100)
        running.send(signal.SIGTERM)
        done = running.finish().expect(0)
        assert done.ledger["not_stored"] == 0, done.ledger
        self.account.read(self.db)
        if self._paper:
            again = ("--ingest=replay", f"--replay-db={_DB}", "--db=again.db")
            self.engine.run(self._commands[0][0], "--mode=paper", *again).expect(0)
            assert_replay_same(self.db, self.engine.path("again.db"))
            return
        assert_feed_sound(self.db)
        check_run(self.db, self.config, run_ids(self.db)[-1], whole=True)


def kill_and_restart(home: Path, kills: int, seed: int, paper: bool = False) -> dict[str, float]:
    """Kill engines of one feed; returns a summary. Raises AssertionError with the failure."""
    (home / "feed.toml").write_text(FEED)
    begun_s, with_rows = time.monotonic(), 0
    with MockWsProcess(home, "--scenario=./feed.toml") as mockws:
        engines = _Engines(home, mockws.url, random.Random(seed), paper)
        try:
            for number in range(1, kills + 1):
                try:
                    with_rows += engines.strike()
                    if number % RECOMPUTED_EVERY == 0:
                        engines.recompute()
                except AssertionError as error:
                    error.add_note(f"seed {seed}, kill {number}; files: {home}")
                    raise
            engines.finish()
        finally:
            engines.engine.close()
    account, seconds = engines.account, time.monotonic() - begun_s
    return {
        "kills": kills,
        "with rows": with_rows,
        "ticks": account.ticks,
        "gaps told": account.gaps,
        "numbers missing": account.missing,
        "seconds a kill": round(seconds / kills, 2),
    }


def main() -> int:
    """The command. Exit code 0: the engines survived all kills."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.kills_live", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mode", choices=("shadow", "paper"), default="shadow")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="tradebot-kills-live-"))
    tally = kill_and_restart(home, options.kills, options.seed, options.mode == "paper")
    shutil.rmtree(home)
    print(f"all survived: {tally} (seed {options.seed})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
