"""Random SIGKILLs during replays, each followed by a resume: `python -m tests.e2e.kills --kills=100 --seed=1`.

In SHADOW and in PAPER, so many kills in each; `--mode=paper` leaves out the other.

A seed determines the moment of each kill (while the engine opens the database, or some time after a number of ticks is
stored) and the channel sizes of each start, which never change a result. After every kill a copy of the file is
checked, so that the engine itself does the recovery. What it holds are the
first rows of an undisturbed run, in PAPER all rows that the stored ticks caused and no others. At the end of each
round, a resume must complete the database to exactly the rows of an undisturbed run. Many kills happen during a resumed
replay.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.e2e.paper import PAPER_TABLES, assert_paper_sound
from tests.e2e.process import (
    REPO,
    SESSION,
    SESSION_CONFIG,
    TABLES,
    Engine,
    assert_sound,
    rows,
    run_ids,
    tables,
    ticks_stored,
    wait_until,
)
from tradebot.core.ids import event_prefix
from tradebot.core.log_events import LogEvent

KILLS_A_ROUND_MAX: Final = 3
DELAY_S_MAX: Final = 0.004
EARLY: Final = (LogEvent.START, LogEvent.PRAGMA_VERIFICATION, LogEvent.INITIAL_DATABASE_STATE)
# (tick, signal, persist, batch): how finely the run is cut into transactions.
SIZES: Final = ((32, 4, 16, 10), (256, 64, 512, 100), (1000, 100, 64, 64), (16_384, 16_384, 16_384, 100))


class Replay(NamedTuple):
    """What is replayed: a file, with a configuration, whose results fill `tables`."""

    name: str
    file: Path
    config: str
    tables: Sequence[str]
    is_paper: bool = False

    def options(self, engine: Engine, sizes: tuple[int, int, int, int] | None = None) -> list[str]:
        """Of the command line but for the database; `sizes` as in SIZES, None: the engine's own."""
        text = self.config
        if sizes is not None:
            tick, signals, persist, batch = sizes
            channels = f"tick_channel_size = {tick}\nsignal_channel_size = {signals}\npersist_channel_size = {persist}"
            text += f"\n[channels]\n{channels}\n[persist]\nbatch_size = {batch}\n"
        name = "-".join(map(str, sizes or ("own",)))
        return [engine.config(f"sizes-{name}.toml", text), "--ingest=replay", f"--replay-file={self.file}"]

    def undisturbed(self, home: Path) -> Path:
        """The database of an uninterrupted run, made below `home`."""
        home.mkdir(parents=True)
        engine = Engine(home)
        engine.run(*self.options(engine), "--db=x.db").expect(0)
        return home / "x.db"


SHADOW: Final = Replay("SHADOW", SESSION, SESSION_CONFIG.read_text(), TABLES)
PAPER: Final = Replay(
    "PAPER",
    REPO / "fixtures" / "btcusdt_binance_spot_takers_20240808.jsonl",
    """mode = "PAPER"
[strategy]
desired_size = 0.01
[execution]
order_type = "limit"
[paper]
queue = "trades"
[account]
initial_balance = 3000
""",
    PAPER_TABLES,
    is_paper=True,
)
"""Limit orders, many of which stay open, and some for which there is no balance."""


def _rows_until(db: Path, run_id: str, tick: int, table: str) -> int:
    """How many rows of `table` the first `tick` ticks of the run caused, by an undisturbed database."""
    before = {
        "ticks": f"id <= {tick}",
        "order_events": f"tick <= {tick}",
        "trades": f"tick <= {tick}",
        "notices": f"ticks_before <= {tick}",
    }.get(table, f"event_id < '{event_prefix(run_id, tick + 1)}'")
    return int(rows(db, f"SELECT count(*) FROM {table} WHERE {before}")[0][0])


class _Round:
    """One database, from its first start to the resume that completes it."""

    def __init__(self, home: Path, chance: random.Random, replay: Replay, undisturbed: Path) -> None:
        home.mkdir(parents=True)
        self.engine = Engine(home)
        self._replay = replay
        self.db = home / "x.db"
        self.rows = 0
        self._chance = chance
        self._undisturbed = undisturbed
        self._wanted = tables(undisturbed, replay.tables)
        self._ticks = 0

    def strike(self, resume: bool) -> bool:
        """Start the replay, kill it, and check what it left; False if it ended before the kill."""
        chance, engine = self._chance, self.engine
        # All are drawn before anything runs, needed or not, so that only the seed determines them.
        sizes, line, is_early = chance.choice(SIZES), chance.choice(EARLY), chance.random() < 0.2
        delay_s, part = chance.random() * DELAY_S_MAX, chance.random()
        goal = self._ticks + 1 + int(part * 0.95 * (len(self._wanted["ticks"]) - self._ticks))
        more = ["--resume"] if resume else []
        running = engine.start(*self._replay.options(engine, sizes), f"--db={self.db.name}", *more)
        if is_early:
            running.wait_for(line)
        else:
            wait_until(lambda: running.process.poll() is not None or ticks_stored(self.db) >= goal, f"{goal} ticks")
        time.sleep(delay_s)  # so that kills occur between two transactions as well as within one
        done = running.kill()
        if done.code == 0:
            return False
        assert done.code == -signal.SIGKILL, f"exit {done.code}:\n{done.stderr[-4000:]}"
        before = self.rows
        self._examine()
        # What the log reports as stored is stored. This is a lower bound: lines beyond 50 a second are suppressed, and
        # one line gives their number.
        flushed = sum(fields["persisted"] for fields in done.all(LogEvent.BATCH_FLUSHED) if "suppressed" not in fields)
        assert self.rows - before >= flushed, f"logged {flushed} rows as stored, {self.rows} - {before} are"
        return True

    def _examine(self) -> None:
        """Check a copy of the killed database: intact, with the first rows of the undisturbed run in each table."""
        place = self.db.parent / "examined"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for suffix in ("", "-wal", "-journal"):
            if (part := self.db.with_name(self.db.name + suffix)).exists():
                shutil.copy(part, place / part.name)
        copy = place / self.db.name
        self._ticks = ticks_stored(copy)
        if not self._ticks:
            assert not self.rows
            return
        held = tables(copy, self._replay.tables)
        for table, wanted in self._wanted.items():
            assert held[table] == wanted[: len(held[table])], table
        if self._replay.is_paper:
            assert_paper_sound(copy)
            [run_id] = run_ids(copy)
            for table in held:
                assert len(held[table]) == _rows_until(self._undisturbed, run_id, self._ticks, table), table
        else:
            assert_sound(copy)
        count = sum(map(len, held.values()))
        assert count >= self.rows, "rows of an earlier start are gone"
        self.rows = count

    def complete(self) -> None:
        """Resume to the end: the rows must be those of an undisturbed run."""
        self.engine.run(*self._replay.options(self.engine), f"--db={self.db.name}", "--resume").expect(0)
        assert tables(self.db, self._replay.tables) == self._wanted
        assert_sound(self.db)


def kill_and_resume(home: Path, kills: int, seed: int, replay: Replay) -> dict[str, int]:
    """Kill replays `kills` times. Returns the number of rounds, and of kills that hit a resume or found rows.

    Raises AssertionError if anything is lost, duplicated, torn or different from an undisturbed run.
    """
    undisturbed = replay.undisturbed(home / "undisturbed")
    chance = random.Random(seed)
    tally = {"kills": 0, "rounds": 0, "of a resume": 0, "with rows": 0}
    while tally["kills"] < kills:
        tally["rounds"] += 1
        this = _Round(home / f"round-{tally['rounds']}", chance, replay, undisturbed)
        try:
            for number in range(min(chance.randint(1, KILLS_A_ROUND_MAX), kills - tally["kills"])):
                if not this.strike(resume=number > 0):
                    break
                tally["kills"] += 1
                tally["of a resume"] += number > 0
                tally["with rows"] += this.rows > 0
            this.complete()
        except AssertionError as error:
            where = f"seed {seed}, round {tally['rounds']}, after kill {tally['kills']}"
            error.add_note(f"{replay.name}, {where}; files: {this.db.parent}")
            raise
        finally:
            this.engine.close()
        shutil.rmtree(this.db.parent)
    return tally


def main() -> int:
    """The command. Exit code 0: the replays survived all kills."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.kills", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mode", choices=("both", "shadow", "paper"), default="both")
    options = parser.parse_args()
    for replay in (SHADOW, PAPER):
        if options.mode in ("both", replay.name.lower()):
            home = Path(tempfile.mkdtemp(prefix="tradebot-kills-"))
            tally = kill_and_resume(home, options.kills, options.seed, replay)
            shutil.rmtree(home)
            print(f"{replay.name}: all survived: {tally} (seed {options.seed})", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
