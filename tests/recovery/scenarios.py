"""What is done to a database while the lab kills it, cuts its power or fails its calls; and the start after that."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.e2e.process import SESSION
from tests.recovery.children import Lock, Orders, run
from tests.recovery.shim import Mode, Shim, new_control
from tradebot.config.model import Synchronous

SYNCHRONOUS: Final[tuple[Synchronous, ...]] = ("NORMAL", "FULL")

DB: Final = "x.db"
_SESSION_TICKS: Final = 900
# Small channels keep the reserve of the spill file small, and make the transactions of a replay small and so many that
# the write-ahead log grows until SQLite writes it back (at 4 MB).
_CONFIG: Final = """
[engine]
tick_interval_ms = 1
signal_every_n_ticks = 5
[channels]
tick_channel_size = {tick}
signal_channel_size = 64
persist_channel_size = {persist}
[persist]
batch_size = 20
flush_interval_ms = 20
storage_retry_s = 0.25
drain_timeout_s = 3.0
synchronous = "{synchronous}"
[strategy]
name = "periodic"
desired_size = 0.001
"""
_CHANNELS: Final = {"push": (256, 512), "replay": (16, 32)}


def write_inputs(place: Path) -> None:
    """The configuration files and the replay's input, which lie outside of the directory that is watched."""
    for synchronous in SYNCHRONOUS:
        for feed, (tick, persist) in _CHANNELS.items():
            text = _CONFIG.format(synchronous=synchronous, tick=tick, persist=persist)
            _config(place, synchronous, feed).write_text(text)
    with SESSION.open() as lines:
        _session(place).write_text("".join(itertools.islice(lines, _SESSION_TICKS)))


def _config(place: Path, synchronous: Synchronous, feed: str) -> Path:
    return place / f"{feed}-{synchronous}.toml"


def _session(place: Path) -> Path:
    return place / "session.jsonl"


@dataclass(frozen=True)
class Place:
    """Where a scenario's inputs lie, and the shim, for the scenarios that begin with a kill."""

    inputs: Path
    shim: Shim
    synchronous: Synchronous

    def push(self, seconds: float) -> list[str]:
        """A run of the synthetic feed, a tick each millisecond, that ends by itself."""
        config = _config(self.inputs, self.synchronous, "push")
        return [f"--config={config}", f"--db={DB}", f"--seconds={seconds}"]

    def replay(self, *more: str) -> list[str]:
        """A replay of the first ticks of the recorded session."""
        config, source = _config(self.inputs, self.synchronous, "replay"), f"--replay-file={_session(self.inputs)}"
        return [f"--config={config}", "--ingest=replay", source, f"--db={DB}", *more]

    def killed(self, home: Path, args: list[str], at: int) -> None:
        """Run until the `at`-th change of the disk, and kill it there."""
        control = new_control()
        control.mode, control.at = Mode.KILL, at
        code = run(home, args, Orders(self.shim, control)).code
        assert code == -9, f"was to be killed, but ended with {code}"

    def done(self, home: Path, args: list[str], code: int = 0, lock: Lock | None = None) -> None:
        """Run to the end."""
        run(home, args, lock=lock).expect(code)


@dataclass(frozen=True)
class Scenario:
    """`begin` makes what is there before, `args` are what is disturbed, `again` is the start after that."""

    name: str
    what: str
    begin: Callable[[Place, Path], None]
    args: Callable[[Place], list[str]]
    again: Callable[[Place], list[str]]
    lock: Lock | None = None
    code: int = 0
    """What it ends with when it is not disturbed."""
    replay: bool = False
    """In the end the four tables must be those of an undisturbed run."""


def _nothing(_place: Place, _home: Path) -> None:
    """No database yet."""


def _again(place: Place) -> list[str]:
    return place.push(0.05)


def _resume(place: Place) -> list[str]:
    return place.replay("--resume")


def _run_before(place: Place, home: Path) -> None:
    place.done(home, place.push(0.1))


def _killed_before(place: Place, home: Path) -> None:
    place.killed(home, place.push(5), 1500)


def _killed_replay_before(place: Place, home: Path) -> None:
    place.killed(home, place.replay(), 1000)


# Much longer than the engine has patience (storage_retry_s), but not until its end, which would wait 5 s for it.
_SPILLING: Final = Lock(after_commits=3, seconds=1.0)


def _spill_before(place: Place, home: Path) -> None:
    _run_before(place, home)
    place.done(home, place.push(1.0), 13, _SPILLING)


SCENARIOS: Final = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "first-start", "a push feed into a database that is not there yet, then a stop",
            _nothing, lambda place: place.push(0.1), _again,
        ),
        Scenario(
            "run", "a push feed after one that was killed, with commits and a log that is written back, then a stop",
            _killed_before, lambda place: place.push(0.4), _again,
        ),
        Scenario(
            "replay", "a replay into a database that is not there yet",
            _nothing, lambda place: place.replay(), _resume, replay=True,
        ),
        Scenario(
            "resume", "the resumption of a replay that was killed",
            _killed_replay_before, _resume, _resume, replay=True,
        ),
        Scenario(
            "spill", "a push feed whose database another program locks for too long: spilled, exit code 13",
            _run_before, lambda place: place.push(1.0), _again, _SPILLING, 13,
        ),
        Scenario(
            "lock", "a push feed whose database another program locks for a while",
            _run_before, lambda place: place.push(0.5), _again, Lock(3, 0.15),
        ),
        Scenario(
            "adoption", "a start that finds what was spilled, then a stop",
            _spill_before, lambda place: place.push(0.1), _again,
        ),
    )
}  # fmt: skip
