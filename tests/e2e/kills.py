"""Random SIGKILLs during a replay, each followed by a resume: `python -m tests.e2e.kills --kills=100 --seed=1`.

A seed determines the moment of each kill (while the engine opens the database, or some time after a number of ticks is
stored) and the channel sizes of each start, which never change a result. After every kill a copy of the file is
checked, so that the engine itself does the recovery. At the end of each round, a resume must complete the database to
exactly the rows of an undisturbed run. Many kills happen during a resumed replay.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.e2e.process import (
    SESSION,
    SESSION_CONFIG,
    TABLES,
    Engine,
    assert_sound,
    dump,
    tables,
    ticks_stored,
    wait_until,
)
from tradebot.core.log_events import LogEvent

KILLS_A_ROUND_MAX: Final = 3
DELAY_S_MAX: Final = 0.004
EARLY: Final = (LogEvent.START, LogEvent.PRAGMA_VERIFICATION, LogEvent.INITIAL_DATABASE_STATE)
# (tick, signal, persist, batch): how finely the run is cut into transactions.
SIZES: Final = ((32, 4, 16, 10), (256, 64, 512, 100), (1000, 100, 64, 64), (16_384, 16_384, 16_384, 100))


def _config(engine: Engine, sizes: tuple[int, int, int, int]) -> str:
    tick, signals, persist, batch = sizes
    channels = f"tick_channel_size = {tick}\nsignal_channel_size = {signals}\npersist_channel_size = {persist}"
    text = f"{SESSION_CONFIG.read_text()}\n[channels]\n{channels}\n[persist]\nbatch_size = {batch}\n"
    return engine.config("sizes-" + "-".join(map(str, sizes)) + ".toml", text)


class _Round:
    """One database, from its first start to the resume that completes it."""

    def __init__(self, home: Path, chance: random.Random, undisturbed: Path) -> None:
        home.mkdir(parents=True)
        self.engine = Engine(home)
        self.db = home / "x.db"
        self.rows = 0
        self._chance = chance
        self._undisturbed = undisturbed
        self._wanted = tables(undisturbed)
        self._ticks = 0

    def strike(self, resume: bool) -> bool:
        """Start the replay, kill it, and check what it left; False if it ended before the kill."""
        chance, engine = self._chance, self.engine
        # All are drawn before anything runs, needed or not, so that only the seed determines them.
        sizes, line, is_early = chance.choice(SIZES), chance.choice(EARLY), chance.random() < 0.2
        delay_s, part = chance.random() * DELAY_S_MAX, chance.random()
        goal = self._ticks + 1 + int(part * 0.95 * (len(self._wanted["ticks"]) - self._ticks))
        more = ["--resume"] if resume else []
        running = engine.start(_config(engine, sizes), f"--replay-file={SESSION}", f"--db={self.db.name}", *more)
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
        assert_sound(copy)
        held = tables(copy)
        for table in TABLES:
            assert held[table] == self._wanted[table][: len(held[table])], table
        rows = sum(map(len, held.values()))
        assert rows >= self.rows, "rows of an earlier start are gone"
        self.rows = rows

    def complete(self) -> None:
        """Resume to the end: the rows must be those of an undisturbed run."""
        args = (f"--config={SESSION_CONFIG}", f"--replay-file={SESSION}", f"--db={self.db.name}", "--resume")
        self.engine.run(*args).expect(0)
        assert dump(self.db) == dump(self._undisturbed)
        assert_sound(self.db)


def kill_and_resume(home: Path, kills: int, seed: int, undisturbed: Path) -> dict[str, int]:
    """Kill replays `kills` times. Returns the number of rounds, and of kills that hit a resume or found rows.

    Raises AssertionError if anything is lost, duplicated, torn or different from `undisturbed`.
    """
    chance = random.Random(seed)
    tally = {"kills": 0, "rounds": 0, "of a resume": 0, "with rows": 0}
    while tally["kills"] < kills:
        tally["rounds"] += 1
        this = _Round(home / f"round-{tally['rounds']}", chance, undisturbed)
        try:
            for number in range(min(chance.randint(1, KILLS_A_ROUND_MAX), kills - tally["kills"])):
                if not this.strike(resume=number > 0):
                    break
                tally["kills"] += 1
                tally["of a resume"] += number > 0
                tally["with rows"] += this.rows > 0
            this.complete()
        except AssertionError as error:
            error.add_note(
                f"seed {seed}, round {tally['rounds']}, after kill {tally['kills']}; files: {this.db.parent}"
            )
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
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="tradebot-kills-"))
    (home / "undisturbed").mkdir()
    args = (f"--config={SESSION_CONFIG}", f"--replay-file={SESSION}", "--db=x.db")
    Engine(home / "undisturbed").run(*args).expect(0)
    tally = kill_and_resume(home, options.kills, options.seed, home / "undisturbed" / "x.db")
    shutil.rmtree(home)
    print(f"all survived: {tally} (seed {options.seed})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
