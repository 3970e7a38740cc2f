"""What a proof works with: a directory of its own, engines, a limit of time, and a record of what was done.

All waits end: at their own limit, at the proof's, or when the prover is asked to stop. Every engine is started with
--seconds, so that none outlives a prover that was killed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import tradebot
from tradebot.config.model import Config
from tradebot.config.validation import flatten, toml
from tradebot.core.runtime import Runtime
from tradebot.output.redaction import clip, escape
from tradebot.telemetry.status_file import Status, read_status, status_path

T = TypeVar("T")

ENGINE: Final = (sys.executable, "-m", "tradebot")
POLL_S: Final = 0.05
STOP_S: Final = 20.0
_LOG_BYTES_MAX: Final = 2_000_000
_LINE_CHARS_MAX: Final = 400
_TAIL_LINES: Final = 12

# What an experiment never takes from the operator's configuration: notifications, ports, paths, other feeds; and sizes
# and patience, which would have it wait for longer than it may.
_OWN: Final[Mapping[str, object]] = {
    "mode": "SHADOW",
    "live_armed": False,
    "app.db_path": None,
    "engine.ingest_mode": "synthetic",
    "engine.run_seconds": None,
    "engine.ws_url": None,
    "engine.ws_url_file": None,
    "engine.ws_source": None,
    "engine.replay_file": None,
    "engine.sample_every": 1,
    "channels.tick_channel_size": None,
    "channels.signal_channel_size": None,
    "channels.persist_channel_size": None,
    "persist.batch_size": 100,
    "persist.flush_interval_ms": 50,
    "persist.storage_retry_s": 30.0,
    "persist.drain_timeout_s": 30.0,
    "metrics.port": 0,
    "notify.webhook_url": None,
    "notify.webhook_url_file": None,
}
_NOT_INHERITED: Final = ("TRADEBOT_", "NOTIFY_SOCKET", "WATCHDOG_", "STATE_DIRECTORY", "XDG_STATE_", "XDG_CONFIG_HOME",
                          "PYTHONHASHSEED")  # fmt: skip


class NotInTime(Exception):
    """What a proof waited for did not happen within its limit."""


class ProofStopped(Exception):
    """The prover was asked to stop."""


class Ended(NamedTuple):
    """A process that has ended; negative codes are signals."""

    code: int
    log: str


class ChildProcess:
    """A child process of the prover, its output in a file; `Lab` makes and ends it."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.popen = popen
        self.log = log

    @property
    def code(self) -> int | None:
        """The exit code, None while it runs."""
        return self.popen.poll()

    def ended(self) -> Ended | None:
        """How it ended; None while it runs."""
        return None if self.code is None else Ended(self.code, read_log(self.log))


class Lab:
    """Where one proof is made. One thread; `close` gives everything back."""

    def __init__(self, folder: Path, config: Config, runtime: Runtime, at_most_s: float) -> None:
        """`folder` exists, is empty, and is removed by its creator. `config` is the operator's."""
        self.folder = folder
        self.runtime = runtime
        self.commands: list[str] = []
        """What was started, as one would type it."""
        self._config = config
        self._until_s = runtime.monotonic() + at_most_s
        self._processes: list[ChildProcess] = []

    def path(self, name: str) -> Path:
        """A file of this proof."""
        return self.folder / name

    def config(self, name: str, **changes: object) -> str:
        """Write a configuration file, the operator's but for what experiments must not share; the option naming it.

        Changes by key, with two underscores for the dot: persist__batch_size=7. None takes a key out.
        """
        values = flatten(self._config) | dict(_OWN) | {key.replace("__", "."): value for key, value in changes.items()}
        sections: dict[str, list[str]] = {}
        for key, value in values.items():
            section, _, leaf = key.rpartition(".")
            if value is not None:
                sections.setdefault(section, []).append(f"{leaf} = {toml(value)}\n")
        text = "".join((f"\n[{section}]\n" if section else "") + "".join(lines) for section, lines in sections.items())
        self.path(name).write_text(text, encoding="utf-8")
        return f"--config={self.path(name)}"

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """For engines: a home of their own, this installation's code, and nothing that would change a result."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
        package = str(Path(tradebot.__file__).parents[1])
        paths = os.pathsep.join(filter(None, (package, kept.get("PYTHONPATH"))))
        return kept | {"HOME": str(self.folder), "PYTHONPATH": paths} | dict(more or {})

    def start(self, name: str, words: Sequence[str], env: Mapping[str, str] | None = None) -> ChildProcess:
        """Start `tradebot WORDS...` with its output in NAME.log. Does not wait."""
        more = dict(env or {})
        self.commands.append(" ".join([*(f"{key}={value}" for key, value in more.items()), "tradebot", *words]))
        log = self.path(f"{name}.log")
        with open(log, "ab") as output:
            popen = subprocess.Popen(
                [*ENGINE, *words],
                cwd=self.folder,
                env=self.environment(more),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # a Ctrl-C at the terminal is for the prover, which ends them
            )
        process = ChildProcess(popen, log)
        self._processes.append(process)
        return process

    def run(self, name: str, words: Sequence[str], within_s: float, env: Mapping[str, str] | None = None) -> Ended:
        """The same, and wait for its end. Raises NotInTime, ProofStopped."""
        return self.wait(self.start(name, words, env).ended, f"the end of {name}", within_s)

    def stop(self, process: ChildProcess) -> Ended:
        """SIGTERM, and wait. Raises NotInTime, ProofStopped."""
        if process.code is None:
            process.popen.terminate()
        return self.wait(process.ended, "the end of an engine after SIGTERM", STOP_S)

    def wait(self, answer: Callable[[], T | None], what: str, within_s: float) -> T:
        """Ask until there is an answer that is not None or False. Raises NotInTime, ProofStopped."""
        began_s = self.runtime.monotonic()
        until_s = min(began_s + within_s, self._until_s)
        while True:
            found = answer()
            if found is not None and found is not False:
                return found
            self.check_stop()
            now_s = self.runtime.monotonic()
            if now_s >= until_s:
                raise NotInTime(f"{what}: timed out after {now_s - began_s:.1f} s")
            self.runtime.sleep(POLL_S)

    def pause(self, seconds: float) -> None:
        """Let time pass in which something is measured. Raises NotInTime (the proof's own limit), ProofStopped."""
        until_s = self.runtime.monotonic() + seconds
        self.wait(lambda: self.runtime.monotonic() >= until_s, "the time to measure", seconds + 1)

    def check_stop(self) -> None:
        """Raises ProofStopped when the prover was asked to stop, at whatever time."""
        if self.runtime.stop_signals():
            raise ProofStopped

    def status(self, db: Path) -> Status | None:
        """What the engine that writes `db` says of itself; None as long as it says nothing."""
        return read_status(status_path(db))

    def shown(self, text: str) -> str:
        """A line for the evidence: safe, bounded, without the experiment's directory."""
        return clip(escape(text.replace(f"{self.folder}/", "")), _LINE_CHARS_MAX)

    def tail(self, log: str) -> list[str]:
        """The last lines of a log, for evidence."""
        return [self.shown(line) for line in log.splitlines()[-_TAIL_LINES:]]

    def lines(self, log: str, word: str) -> list[str]:
        """The last of the lines that hold `word`, for evidence."""
        return [self.shown(line) for line in log.splitlines() if word in line][-_TAIL_LINES:]

    def shown_commands(self) -> list[str]:
        """Everything that was started."""
        return [self.shown(command) for command in self.commands]

    def close(self) -> None:
        """End what still runs. Idempotent."""
        for process in self._processes:
            if process.code is None:
                process.popen.kill()
            with suppress(subprocess.TimeoutExpired):
                process.popen.wait(STOP_S)
        self._processes.clear()


def read_log(path: Path) -> str:
    """The end of a log file; "" if the file does not exist."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _LOG_BYTES_MAX))
            return file.read(_LOG_BYTES_MAX).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def rounded(value: float, digits: int = 3) -> float:
    """A number for the evidence."""
    return round(value, digits)


Evidence = dict[str, Any]
