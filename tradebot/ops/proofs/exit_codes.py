"""Proof: every failure has its exit code, and the service manager restarts the engine after all but 0 and 12."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from peewee import SqliteDatabase

from tradebot.ops.proofs.base import Experiment, Means, ProofOutcome, failed, inconclusive, judged
from tradebot.ops.proofs.lab import ChildProcess, Evidence, Lab
from tradebot.ops.proofs.manager import Manager
from tradebot.store.database import connect

SIGTERM_GAP_S: Final = 0.5
ENDS_S: Final = 60.0
RESTARTS_S: Final = 30.0
SETTLE_S: Final = 4.0
"""RestartSec is 2: what has not been started again by then will not be."""
ENGINE_S: Final = 120

# As people and scripts know them. Not from tradebot.core.errors: this is what is to be shown about it.
COMPLETE, CRASH, NETWORK, PARSE, CONFIG, OVERLOAD = 0, 1, 10, 11, 12, 13
RESTARTED: Final = (CRASH, NETWORK, PARSE, OVERLOAD)

_PROPERTIES: Final = (
    *("ExecMainStatus", "ExecMainCode", "NRestarts", "Result", "ActiveState", "SubState"),
    *("Restart", "RestartUSec", "RestartPreventExitStatus"),
)


class _Case(NamedTuple):
    code: int
    why: str
    words: Sequence[str]


def _cases(lab: Lab) -> list[_Case]:
    bad = lab.path("bad.jsonl")
    bad.write_text("this is no tick\n", encoding="ascii")
    hasty = lab.config("hasty.toml", feed__reconnect_budget_s=0.0)
    plain = lab.config("plain.toml", engine__tick_interval_ms=20)
    # Two failing storages: one without retries, one that is retried until the second signal.
    short = lab.config("short.toml", persist__storage_retry_s=0.0, persist__drain_timeout_s=1.0)
    long = lab.config("long.toml", engine__tick_interval_ms=20, persist__storage_retry_s=60.0)

    def case(code: int, why: str, *words: str) -> _Case:
        return _Case(code, why, ["run", *words, f"--db={lab.path(f'exit-{code}.db')}", f"--seconds={ENGINE_S}"])

    return [
        _Case(COMPLETE, "--seconds is over", ["run", plain, f"--db={lab.path('exit-0.db')}", "--seconds=1"]),
        case(CRASH, "a second SIGTERM while its database is locked", long),
        case(
            NETWORK,
            "no server listens at the address that it connects to",
            hasty,
            "--ingest=mockws",
            "--ws-url=ws://127.0.0.1:1",
        ),
        case(
            *(PARSE, "a line that is not a tick, with --strict", plain),
            *("--ingest=replay", f"--replay-file={bad}", "--strict", "--resume"),
        ),
        case(CONFIG, "the LIVE gate", plain, "--mode=live"),
        case(OVERLOAD, "its database stays locked", short),
    ]


class _Locks:
    """Holds the write locks of databases, as another program would; one connection each."""

    def __init__(self) -> None:
        self._held: list[SqliteDatabase] = []

    def take(self, db_path: Path) -> None:
        """Wait for the lock, at most SQLite's busy timeout. Raises StorageUnavailable."""
        db = connect(db_path)
        self._held.append(db)
        db.begin("IMMEDIATE")

    def give_back(self) -> None:
        """Let all go."""
        while self._held:
            self._held.pop().close()


def run(lab: Lab, means: Means) -> ProofOutcome:
    """See the module."""
    cases = _cases(lab)
    evidence: Evidence = {"engines": []}
    locks = _Locks()
    try:
        if means.manager is None:
            return _as_children(lab, means, cases, locks, evidence)
        return _as_units(lab, means.manager, cases, locks, evidence)
    finally:
        locks.give_back()


def _end_twice(lab: Lab, db: Path, locks: _Locks, terminate: Callable[[], object]) -> None:
    """Lock the storage of a running engine and ask it to stop, twice: it must not wait for the storage any longer."""

    def works() -> bool:
        status = lab.status(db)
        return status is not None and status.counters["persist_count"] > 0

    lab.wait(works, "a running engine, to be stopped twice", ENDS_S)
    locks.take(db)
    terminate()
    lab.pause(SIGTERM_GAP_S)  # two signals at the same time would count as one
    terminate()


# ---- under a service manager -----------------------------------------------------------------------------------------


def _as_units(lab: Lab, manager: Manager, cases: Sequence[_Case], locks: _Locks, evidence: Evidence) -> ProofOutcome:
    units = {case.code: manager.write_engine(lab, f"exit-{case.code}", case.words) for case in cases}
    manager.reload()
    locks.take(lab.path("exit-13.db"))
    manager.call("start", "--no-block", *units.values())
    crash = units[CRASH]
    _end_twice(lab, lab.path("exit-1.db"), locks, lambda: manager.call("kill", "--signal=TERM", crash))
    for case in cases:
        lab.wait(partial(_ends, lab, f"exit-{case.code}"), f"the end of the engine for {case.code}", ENDS_S)
    ended_s = lab.runtime.monotonic()
    for code in RESTARTED:
        lab.wait(partial(_restarts, manager, units[code]), f"the restart after {code}", RESTARTS_S)
    lab.pause(max(0.0, ended_s + SETTLE_S - lab.runtime.monotonic()))
    faults = []
    for case in cases:
        name = f"exit-{case.code}"
        seen, ends = manager.show(units[case.code], *_PROPERTIES), _ends(lab, name) or []
        evidence["engines"].append(
            {
                "code": case.code,
                "why": case.why,
                "unit": units[case.code],
                "ends_seen_by_systemd": ends[:5],
                "show": seen,
                "log": lab.tail(lab.path(f"{name}.log").read_text(errors="replace"))[-2:],
            }
        )
        faults += faults_of(case.code, seen, ends)
    evidence["commands"] = lab.shown_commands()
    reason = "0, 1, 10, 11, 12 and 13 seen by systemd; restarted for all but 0 and 12, 12 as ExecMainStatus"
    return judged(faults, reason, evidence)


def _restarts(manager: Manager, unit: str) -> int | None:
    return int(manager.show(unit, "NRestarts")["NRestarts"] or 0) or None


def _ends(lab: Lab, name: str) -> list[str] | None:
    """One line for each exit of a unit's engine, as the manager reported it; None before the first."""
    with contextlib.suppress(OSError):
        return lab.path(f"{name}.ends").read_text().splitlines() or None
    return None


def faults_of(code: int, seen: Mapping[str, str], ends: Sequence[str]) -> list[str]:
    """What is wrong with a unit that should have ended with `code`: its properties, and its ends as noted. Pure."""
    faults = []
    first = ends[0] if ends else "none"
    result = "success" if code == COMPLETE else "exit-code"
    if first != f"{result} exited {code}":
        faults.append(f"expected exit code {code}, but its first end was {first!r}")
    if code in RESTARTED:
        if not int(seen["NRestarts"] or 0):
            faults.append(f"not restarted after {code}")
        return faults
    if seen["NRestarts"] != "0" or len(ends) != 1:
        faults.append(f"restarted after {code}: NRestarts {seen['NRestarts']}, {len(ends)} ends")
    state = "inactive" if code == COMPLETE else "failed"
    if seen["ActiveState"] != state or seen["ExecMainStatus"] != f"{code}":
        faults.append(f"after {code}: {seen['ActiveState']}, ExecMainStatus {seen['ExecMainStatus']}")
    return faults


# ---- without one -----------------------------------------------------------------------------------------------------


def _as_children(lab: Lab, means: Means, cases: Sequence[_Case], locks: _Locks, evidence: Evidence) -> ProofOutcome:
    locks.take(lab.path("exit-13.db"))
    started: dict[int, ChildProcess] = {case.code: lab.start(f"exit-{case.code}", case.words) for case in cases}
    _end_twice(lab, lab.path("exit-1.db"), locks, started[CRASH].popen.terminate)
    faults = []
    for case in cases:
        ended = lab.wait(started[case.code].ended, f"the end of the engine for {case.code}", ENDS_S)
        evidence["engines"].append(
            {"code": ended.code, "wanted": case.code, "why": case.why, "log": lab.tail(ended.log)[-2:]}
        )
        if ended.code != case.code:
            faults.append(f"expected exit code {case.code}, got {ended.code}")
    evidence["commands"] = lab.shown_commands()
    if faults:
        return failed("; ".join(faults), evidence)
    return inconclusive(
        "0, 1, 10, 11, 12 and 13 seen; restarts were not checked, for lack of a service manager: " + means.no_manager,
        evidence,
    )


EXPERIMENT: Final = Experiment(
    "exit_codes",
    "every failure of an engine has its exit code; systemd restarts it after all codes except 0 and 12",
    120,
    False,
    run,
)
