"""The service manager through systemctl: only `restart UNIT` and `show UNIT`.

Nothing here starts, signals or owns an engine. Another program than systemctl may stand in for it; what it does not
answer is not known, and that is all.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final, Protocol

from msgspec import Struct

from tradebot.core.errors import UsageError
from tradebot.core.runtime import Runtime
from tradebot.output.redaction import clip, escape

DEFAULT_UNIT: Final = "tradebot.service"
DEFAULT_SYSTEMCTL: Final = "systemctl"
RESTART_S: Final = 180.0
"""How long a restart may take: the engine's drain (TimeoutStopSec=45), its start, and some patience."""
SHOW_S: Final = 10.0
_SLICE_S: Final = 0.1
_ANSWER_BYTES_MAX: Final = 1_000_000
_TALK_BYTES_MAX: Final = 64 * 1024 * 1024
"""More than that is not waited for: it is kept in memory."""
_UNIT: Final = re.compile(r"[A-Za-z0-9_:.\\@][A-Za-z0-9_:.\\@-]{0,254}")


class ServiceError(Exception):
    """A call of the service manager failed; the message is one line. A later call may succeed."""


class UnitLook(Struct, frozen=True):
    """What `show` reported about the engine's unit; None for properties that it did not report."""

    load: str | None = None
    active: str | None = None
    sub: str | None = None
    result: str | None = None
    main_pid: int | None = None
    exit_status: int | None = None
    invocation: str | None = None

    @property
    def stopped(self) -> bool:
        """Whether it was stopped, or its run is complete: not failed, and not about to be restarted."""
        return self.active == "inactive" and not self.missing

    @property
    def silent(self) -> bool:
        """Whether `show` reported nothing."""
        return self == UnitLook()

    @property
    def missing(self) -> bool:
        """Whether the manager knows no such unit."""
        return self.load == "not-found"

    @property
    def refused(self) -> bool:
        """Whether the engine exited with 12: a restart would not help until the configuration is corrected."""
        return self.active == "failed" and self.exit_status == 12 and self.result != "signal"

    @property
    def trouble(self) -> str | None:
        """Why the engine is not running, for people; None if it runs or nothing is known."""
        if self.missing:
            return "not known to the service manager"
        if self.active in (None, "active", "reloading", "refreshing"):
            return None
        sub = "" if self.sub in (None, self.active) else f" ({self.sub})"
        status = "" if self.exit_status is None else f", exit status {self.exit_status}"
        why = f": {self.result}{status}" if self.active == "failed" and self.result else ""
        return f"not running: {self.active}{sub}{why}"


class Service(Protocol):
    """The engine's unit and its manager. Both calls block, at most for a stated time, and raise ServiceError."""

    def restart(self) -> None:
        """Have it restarted; returns when that is done."""
        ...

    def show(self) -> UnitLook:
        """How it is."""
        ...


class Systemctl:
    """Implements `Service` with a program. One thread only."""

    def __init__(self, command: str, unit: str, runtime: Runtime, restart_s: float = RESTART_S) -> None:
        """`command` as for `command_words`. Raises UsageError for an invalid name of a unit."""
        if not _UNIT.fullmatch(unit):
            raise UsageError(f"--unit: {escape(clip(unit, 60))!r} is not the name of a unit, such as {DEFAULT_UNIT}")
        self._words = command_words(command)
        self._unit = unit
        self._runtime = runtime
        self._restart_s = restart_s

    def restart(self) -> None:
        """Blocks until the manager is done with it, RESTART_S at most, or until this process is asked to stop."""
        self._call("restart", self._restart_s)

    def show(self) -> UnitLook:
        """Blocks SHOW_S at most."""
        return parse_show(self._call("show", SHOW_S))

    def _call(self, verb: str, limit_s: float) -> str:
        call = f"{' '.join(self._words)} {verb} {self._unit}"
        # Files in memory, not pipes: an engine that a stand-in started may have inherited them, and never closes them.
        with _memory("stdout") as out, _memory("stderr") as errors:
            try:
                process = subprocess.Popen(
                    [*self._words, verb, self._unit],
                    stdin=subprocess.DEVNULL,  # no one can type a password
                    stdout=out,
                    stderr=errors,
                    env={**os.environ, "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""},
                )
            except (OSError, ValueError) as error:
                raise ServiceError(f"{call}: {getattr(error, 'strerror', None) or error}") from None
            self._wait(process, call, limit_s, (out, errors))
            answer, complaint = _content(out), _content(errors)
        if process.returncode:
            said = (complaint or answer).strip().splitlines()
            last = clip(escape(said[-1]), 300) if said else "no error message"
            raise ServiceError(f"{call}: exit {process.returncode}: {last}")
        return answer

    def _wait(self, process: subprocess.Popen[bytes], call: str, limit_s: float, files: Sequence[IO[bytes]]) -> None:
        """Wait for the end of the client. A timeout ends only the client: the requested action continues."""
        monotonic, signals = self._runtime.monotonic, self._runtime.stop_signals
        until_s, before = monotonic() + limit_s, signals()
        while True:
            try:
                process.wait(_SLICE_S)
                return
            except subprocess.TimeoutExpired:
                why = f"no answer within {limit_s:g} s" if monotonic() >= until_s else ""
                if signals() > before:
                    why = "cancelled: soak was asked to stop"
                if sum(os.fstat(file.fileno()).st_size for file in files) > _TALK_BYTES_MAX:
                    why = "cancelled: its output is too long for a service manager"
            if why:
                process.kill()
                process.wait()
                raise ServiceError(f"{call}: {why}")


def _memory(name: str) -> IO[bytes]:
    return open(os.memfd_create(f"tradebot-systemctl-{name}"), "w+b", buffering=0)


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(_ANSWER_BYTES_MAX).decode("utf-8", "backslashreplace")


def command_words(command: str) -> list[str]:
    """A program, with arguments where `command` is no file's name itself ("systemctl --user"). Raises UsageError."""
    if Path(command).is_file():
        return [os.path.abspath(command)]
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"--systemctl: {error}") from None
    if not words:
        raise UsageError("--systemctl: names no program")
    return words


def parse_show(text: str) -> UnitLook:
    """KEY=VALUE lines; keys that are unknown, missing or make no sense are passed over. Pure."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and key not in found:
            found[key.strip()] = value.strip()
    return UnitLook(
        load=_word(found, "LoadState"),
        active=_word(found, "ActiveState"),
        sub=_word(found, "SubState"),
        result=_word(found, "Result"),
        main_pid=_number(found, "MainPID"),
        exit_status=_number(found, "ExecMainStatus"),
        invocation=_word(found, "InvocationID"),
    )


def _word(found: Mapping[str, str], key: str) -> str | None:
    return clip(escape(found[key]), 60) if found.get(key) else None


def _number(found: Mapping[str, str], key: str) -> int | None:
    text = found.get(key, "")
    return int(text) if re.fullmatch(r"[0-9]{1,10}", text) else None


class Starts:
    """Counts the engine's starts, requested by the soak or not: every requested restart resets the manager's
    NRestarts.
    """

    def __init__(self) -> None:
        self._known: str | None = None
        self.count = 0
        """Starts seen after the first look, at most one a look."""

    def look(self, unit: UnitLook) -> None:
        """One look at the unit; one that runs nothing, or says nothing of what it runs, is passed over."""
        running = unit.invocation if unit.invocation is not None else str(unit.main_pid or "")
        if not running or unit.main_pid == 0:
            return
        if self._known is not None and running != self._known:
            self.count += 1
        self._known = running


class Sight:
    """When the unit was last seen: without reports from the manager the supervisor is blind."""

    def __init__(self) -> None:
        self._seen_s: float | None = None
        self._why = "not polled yet"

    def look(self, now_s: float, why: str | None) -> None:
        """One look, in which it was seen (None) or not."""
        if why is None:
            self._seen_s = now_s
        else:
            self._why = why

    def lost(self, now_s: float, limit_s: float) -> str | None:
        """What is wrong with that, for people; None when it was seen, and not longer ago than the limit."""
        if self._seen_s is None:
            return f"the unit was never seen: {self._why}"
        if now_s - self._seen_s < limit_s:
            return None
        return f"the unit was not seen for {now_s - self._seen_s:.0f} s: {self._why}"
