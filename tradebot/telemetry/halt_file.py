"""The halt file: how `tradebot halt` and `tradebot resume` reach a running engine, and its next starts.

It lies beside the database (`<database>.halt.json`) and stays there: a halt outlives restarts until a resume replaces
it. An engine with a push feed polls it once a second and passes it on as a notice between two ticks (`HaltWatch`), so
that what follows from a halt can be computed again from what is stored. Replays never read it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from tradebot.core.errors import PASSING_ERRNOS, ConfigError
from tradebot.core.events import INT64_MAX, Notice
from tradebot.core.log_events import LogEvent
from tradebot.core.runtime import Runtime
from tradebot.output.log import Log
from tradebot.store.database import beside
from tradebot.telemetry.command_file import read_command, write_command

SUFFIX: Final = ".halt.json"
POLL_S: Final = 1.0
"""How often a running engine looks at the file."""
REASON_CHARS_MAX: Final = 200


class HaltRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The last command given: halt (`halted`) or resume, when (Unix ms; it identifies the command), and why."""

    halted: bool
    written_ms: Annotated[int, Meta(ge=0, le=INT64_MAX)]
    reason: Annotated[str, Meta(max_length=REASON_CHARS_MAX)] = ""

    def notice(self) -> Notice:
        """The notice that passes it on; its `ts` is `written_ms`."""
        kind: Literal["HALT", "RESUME"] = "HALT" if self.halted else "RESUME"
        command = f"tradebot {kind.lower()}"
        return Notice(kind, self.written_ms, f"{command}: {self.reason}" if self.reason else command)


def halt_path(db_path: Path) -> Path:
    """Where the halt file of the engine that writes `db_path` lies."""
    return beside(db_path, SUFFIX)


def write_halt(path: Path, request: HaltRequest) -> None:
    """Replace the file, on disk before this returns. Blocks. Raises OSError."""
    write_command(path, request)


def read_halt(path: Path) -> HaltRequest | None:
    """What the file says; None if it does not exist.

    Raises ConfigError when it cannot be understood, or when another user could have written it, and OSError when it
    cannot be read just now. Never waits.
    """
    return read_command(path, HaltRequest, "halt file", "`tradebot resume` replaces it", PASSING_ERRNOS)


class HaltWatch:
    """Turns changes of the halt file into notices. Used by the ingest thread only.

    A file that exists but cannot be used halts: what it should have said is not known. One that cannot be read because
    of a passing error changes nothing until it can be read again.
    """

    def __init__(self, path: Path, resumed_ms: int | None, runtime: Runtime, log: Log) -> None:
        """`resumed_ms`: the resume that the run, with what it continues, has taken into account (0: none yet).

        None: there is nothing that a resume given before the start could release, so it is not passed on. A halt given
        before the start is always passed on, by the first `poll`.
        """
        self._path = path
        self._resumed_ms = resumed_ms
        self._runtime = runtime
        self._log = log.bind("ingest")
        self._halted = False
        self._next_s: float | None = None
        self._unread = ""

    def poll(self) -> Notice | None:
        """What has changed since the notice before; looks at the file at most once in POLL_S.

        Reads one small file at most. Raises nothing.
        """
        now_s = self._runtime.monotonic()
        if self._next_s is not None and now_s < self._next_s:
            return None
        self._next_s = now_s + POLL_S
        try:
            found = read_halt(self._path)
        except ConfigError as error:
            return None if self._halted else self._passed_on(Notice("HALT", self._runtime.now_ms(), str(error)))
        except OSError as error:
            self._report_unread(error)
            return None
        self._unread = ""
        if self._resumed_ms is None:  # what was given before the start
            self._resumed_ms = 0 if found is None or found.halted else found.written_ms
        if found is None:
            removed = Notice("RESUME", self._runtime.now_ms(), f"halt file {self._path} was removed")
            return self._passed_on(removed) if self._halted else None
        if found.halted:
            return None if self._halted else self._passed_on(found.notice())
        return self._passed_on(found.notice()) if self._halted or found.written_ms != self._resumed_ms else None

    def _passed_on(self, notice: Notice) -> Notice:
        self._halted = notice.kind == "HALT"
        if not self._halted:
            self._resumed_ms = notice.ts
        return notice

    def _report_unread(self, error: OSError) -> None:
        """Log once why the file cannot be read, until it can be read again or fails in another way."""
        why = str(error)
        if why != self._unread:
            self._log.error(
                "the halt file cannot be read; trying again", event=LogEvent.HALT_FILE_UNREAD,
                file=str(self._path), detail=why,
            )  # fmt: skip
        self._unread = why
