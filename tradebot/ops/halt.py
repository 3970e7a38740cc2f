"""`tradebot halt` and `tradebot resume`: write the halt file, and wait for a running engine to confirm it.

Without an engine the file is written all the same: the next start with a live feed reads it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from tradebot.core.errors import ConfigError
from tradebot.core.runtime import Runtime
from tradebot.execution.trips import trip_text
from tradebot.ops.health import refuse_unusable
from tradebot.output.json_answer import json_answer
from tradebot.output.redaction import escape
from tradebot.output.streams import GuardedStream
from tradebot.telemetry.halt_file import HaltRequest, halt_path, write_halt
from tradebot.telemetry.status_file import AS_ENGINE, Status, read_status, status_path

FORMAT: Final = 1
WAIT_S: Final = 10.0
"""How long a running engine has to confirm: it looks at the file once a second, and reports once a second."""
_LOOK_S: Final = 0.1
_NAMED_MAX: Final = 5

Reached = Literal["running", "replay", "none"]


class HaltAnswer(Struct, frozen=True, kw_only=True):
    """What the command has done.

    `engine`: running with a live feed; a replay, which reads no halt file; or none. `confirmed` says whether a running
    engine has taken the command into account (None if no engine could); `tripped` are the breakers that
    are tripped after that, in words. `failure`: why the file could not be written.
    """

    format: int = FORMAT
    database: str
    file: str
    halted: bool
    reason: str
    engine: Reached
    pid: int | None = None
    confirmed: bool | None = None
    tripped: tuple[str, ...] = ()
    failure: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the command is in effect, or will be from the next start on."""
        return self.failure is None and self.confirmed is not False


def run_halt(
    db_path: Path, halted: bool, reason: str, runtime: Runtime, answers: GuardedStream, as_json: bool = False
) -> int:
    """Write the file and wait for a running engine to confirm it, at most WAIT_S. Main thread.

    0 when the command is in effect or will be at the next start, else 1. Raises UsageError (see `refuse_unusable`).
    """
    refuse_unusable(db_path)
    answer = _give(db_path, HaltRequest(halted, runtime.now_ms(), reason), runtime)
    answers.write(json_answer(answer) if as_json else f"{escape(_text(answer))} [{escape(str(db_path))}]\n")
    return 0 if answer.ok else 1


def _give(db_path: Path, request: HaltRequest, runtime: Runtime) -> HaltAnswer:
    path, status = halt_path(db_path), _running(db_path, runtime)
    reached: Reached = "none" if status is None else "running" if status.push else "replay"
    pid = None if status is None else status.pid
    failure: str | None = None
    if not db_path.exists():
        failure = "there is no database, so no engine that could be halted; check --db"
    else:
        try:
            write_halt(path, request)
        except OSError as error:
            failure = f"{path} cannot be written: {error.strerror}; {AS_ENGINE}"
    confirmed = None
    if failure is None and reached == "running":
        status = _wait(db_path, request, runtime)
        confirmed = status is not None
    view = None if status is None else status.breakers
    return HaltAnswer(
        database=str(db_path),
        file=str(path),
        halted=request.halted,
        reason=request.reason,
        engine=reached,
        pid=pid,
        confirmed=confirmed,
        tripped=() if view is None else tuple(trip_text(trip) for trip in view.tripped),
        failure=failure,
    )


def _running(db_path: Path, runtime: Runtime) -> Status | None:
    """The status of an engine that is at work with this database, if there is one."""
    try:
        status = read_status(status_path(db_path))
    except ConfigError:
        return None
    return status if status is not None and status.fresh(runtime.monotonic()) else None


def _wait(db_path: Path, request: HaltRequest, runtime: Runtime) -> Status | None:
    """The first status that shows the command in effect; None when none came in time."""
    end_s = runtime.monotonic() + WAIT_S
    while True:
        status = _running(db_path, runtime)
        if status is not None and _in_effect(status, request):
            return status
        if status is None or runtime.monotonic() >= end_s:
            return None
        runtime.sleep(_LOOK_S)


def _in_effect(status: Status, request: HaltRequest) -> bool:
    view = status.breakers
    if view is None:
        return False
    return view.halted_since_ms is not None if request.halted else view.resumed_ms == request.written_ms


def _text(answer: HaltAnswer) -> str:
    """One line: what was done, and what happens next."""
    command = "halt" if answer.halted else "resume"
    if answer.failure is not None:
        return f"{command} failed: {answer.failure}"
    if answer.engine == "none":
        return f"no engine is running: {_next_start(answer)}"
    if answer.engine == "replay":
        return f"process {answer.pid} is replaying, which a {command} does not reach: {_next_start(answer)}"
    if not answer.confirmed:
        return (
            f"NOT CONFIRMED: {answer.file} is written, but process {answer.pid} has not taken it into account within"
            f" {WAIT_S:.0f} s; look at tradebot status"
        )
    if answer.halted:
        return f"halted: process {answer.pid} refuses orders that add exposure until tradebot resume"
    still = "; ".join(answer.tripped[:_NAMED_MAX])
    more = f"; and {len(answer.tripped) - _NAMED_MAX} more" if len(answer.tripped) > _NAMED_MAX else ""
    return f"resumed: process {answer.pid} " + (f"still has {still}{more}" if still else "accepts all orders again")


def _next_start(answer: HaltAnswer) -> str:
    if not answer.halted:
        return "the next start is not halted"
    return "the next start with a live feed refuses orders that add exposure until tradebot resume"
