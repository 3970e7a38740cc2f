"""How a process has to end: which exit codes, and which complaints, its fate explains. Pure.

Facts come from the world (what it did, what went over the network, what the storage answered), and from the engine only
where nobody else can know: that its patience with the drain ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from sim.swarm.fault_kinds import KINDS
from tradebot.core.errors import ExitCode
from tradebot.core.log_events import LogEvent


class ProcessFacts(Struct, frozen=True, kw_only=True):
    """What happened to one process. Times are simulated seconds of that process; None: did not happen."""

    ended_s: float
    over_s: float | None = None
    """When everything had been stored or abandoned; only the end of the run remains to be recorded."""
    killed: bool = False
    """By the world: kill -9, or a stop signal before the process caught them."""
    began: bool = True
    """Whether the pipeline ran."""
    signals_s: tuple[float, ...] = ()
    """When stop signals came."""
    run_seconds: float | None = None
    fed_out: bool = False
    """The feed ended: the end of a replay, in this process or in an earlier one that exited with 0."""
    crashed: bool = False
    refused: int = 0
    """Events refused by the full tick channel of a push feed."""
    storage_failing: bool = False
    """The last attempt to store a batch failed."""
    file_moved_s: float | None = None
    """When the database was moved away under it."""
    disk_failing_s: float = 0.0
    """The longest time during which files could not be written. Reading a database may create files too."""
    storage_retry_s: float = 0.0
    drain_timed_out: bool = False
    end_unrecorded: bool = False
    """How the run ended could not be written into the database."""
    no_handshake_s: float = 0.0
    """Time without a completed handshake when the process ended (0: a connection was open)."""
    budget_s: float | None = None
    unreadable: int = 0
    """The longest series of malformed frames among those returned."""
    surely_unreadable: int = 0
    """The same among frames that were certainly read: more frames were requested after them."""
    unreadable_limit: int = 0
    strict_malformed: bool = False
    """A replay with --strict has a malformed line."""


class ExitCause(Struct, frozen=True):
    """Why a process ends as it does: `possible` says whether it can be the cause, `certain` whether it must be."""

    name: str
    code: ExitCode
    possible: Callable[[ProcessFacts], bool]
    certain: Callable[[ProcessFacts], bool]


_NOTICED_S: Final = 0.3
"""The main thread looks for signals every tenth of a second."""


def _unreadable(facts: ProcessFacts, frames: int) -> bool:
    return 0 < facts.unreadable_limit <= frames


def _no_link(facts: ProcessFacts, slack_s: float) -> bool:
    return facts.budget_s is not None and facts.no_handshake_s >= facts.budget_s + slack_s


def _second_signal(facts: ProcessFacts, slack_s: float) -> bool:
    until_s = facts.ended_s if facts.over_s is None else facts.over_s
    return len(facts.signals_s) >= 2 and until_s - facts.signals_s[1] >= slack_s


def _gone(facts: ProcessFacts) -> bool:
    """Whether data remained to be written when the file was moved away, at least the end of the run."""
    return facts.file_moved_s is not None and facts.over_s is not None and facts.file_moved_s < facts.over_s


EXIT_CAUSES: Final[tuple[ExitCause, ...]] = (
    ExitCause("a crash", ExitCode.CRASH, lambda f: f.crashed, lambda f: f.crashed),
    ExitCause(
        "a second signal", ExitCode.CRASH, lambda f: _second_signal(f, 0.0), lambda f: _second_signal(f, _NOTICED_S)
    ),
    ExitCause("overload", ExitCode.OVERLOAD, lambda f: f.refused > 0, lambda f: f.refused > 0),
    ExitCause("a storage that failed", ExitCode.OVERLOAD, lambda f: f.storage_failing, lambda f: f.storage_failing),
    ExitCause("a drain out of time", ExitCode.OVERLOAD, lambda f: f.drain_timed_out, lambda f: f.drain_timed_out),
    ExitCause("a database that is gone", ExitCode.OVERLOAD, lambda f: f.file_moved_s is not None, lambda f: _gone(f)),
    ExitCause("an end not recorded", ExitCode.OVERLOAD, lambda f: f.end_unrecorded, lambda f: f.end_unrecorded),
    ExitCause("a disk that failed", ExitCode.OVERLOAD, lambda f: f.disk_failing_s > 0, lambda _f: False),
    ExitCause("no handshake", ExitCode.NETWORK, lambda f: _no_link(f, -0.01), lambda f: _no_link(f, 5.0)),
    ExitCause(
        "unreadable frames",
        ExitCode.PARSE,
        lambda f: _unreadable(f, f.unreadable),
        lambda f: _unreadable(f, f.surely_unreadable),
    ),
    ExitCause("a malformed line", ExitCode.PARSE, lambda f: f.strict_malformed, lambda _f: False),
)
"""All causes of a non-zero exit code of a correctly configured run."""


def expected_exit(facts: ProcessFacts) -> frozenset[int | None]:
    """The exit codes that may follow from what happened; None stands for a killed process.

    A crash outranks everything; of several other causes the first one counts, and which that was is not known here.
    A stop, the end of the time and the end of the feed give 0, when nothing else happened before.
    """
    if facts.killed:
        return frozenset({None})
    if not facts.began:
        codes: set[int | None] = set()
        if facts.signals_s or facts.fed_out:
            codes.add(int(ExitCode.COMPLETE))
        if 0 < facts.disk_failing_s >= facts.storage_retry_s:
            codes.add(int(ExitCode.OVERLOAD))
        return frozenset(codes)
    certain: set[int | None] = {int(cause.code) for cause in EXIT_CAUSES if cause.certain(facts)}
    possible: set[int | None] = {int(cause.code) for cause in EXIT_CAUSES if cause.possible(facts)}
    if int(ExitCode.CRASH) in certain:
        return frozenset({int(ExitCode.CRASH)})
    codes = {*possible}
    if not certain and _may_be_over(facts):
        codes.add(int(ExitCode.COMPLETE))
    return frozenset(codes)


def describe(facts: ProcessFacts) -> str:
    """The facts that differ from an uneventful run, in one line."""
    unusual = [
        f"{name} {value:.3f}" if isinstance(value, float) else name if value is True else f"{name} {value}"
        for name, value, usual in zip(
            facts.__struct_fields__, msgspec.structs.astuple(facts), (None, *facts.__struct_defaults__), strict=True
        )
        if value != usual and name not in ("run_seconds", "budget_s", "unreadable_limit", "storage_retry_s")
    ]
    return ", ".join(unusual)


def _may_be_over(facts: ProcessFacts) -> bool:
    """Whether there is a reason to end with 0."""
    time_over = facts.run_seconds is not None and facts.ended_s >= facts.run_seconds
    return bool(facts.signals_s) or time_over or facts.fed_out


# ---- complaints ----------------------------------------------------------------------------------------------------

_LOSSES: Final = frozenset(
    {
        "close_codes", "reset", "half_frame", "mute", "drop_pings", "broken_utf8", "broken_bytes", "server_away",
        "link_down", "full_channel", "refuse", "http_429", "http_503", "slow_handshake", "no_handshake",
    }
)  # fmt: skip
_HANDSHAKE: Final = frozenset(
    {"refuse", "http_429", "http_503", "slow_handshake", "no_handshake", "server_away", "link_down", "latency"}
)
_STORAGE: Final = frozenset(
    {"storage_busy", "storage_full", "storage_error", "commit_doubt", "disk_errors", "storage_torn", "file_moved"}
)
_SLOW: Final = frozenset(
    {"slow_ingest", "slow_strategy", "slow_execution", "slow_persist", "storage_slow", "storage_busy", "storage_full"}
)
_ENDS: Final = _STORAGE | _SLOW | {"crash", "hang", "second_signal"}
_KILLS: Final = frozenset({"kill", "kill_in_call", "power_cut", "storage_torn"})
ALWAYS: Final = frozenset({"always"})
"""Needs no fault: refusals by a cap, malformed lines in the generated replay file."""
EARLIER: Final[Mapping[str, frozenset[str]]] = {
    "GAP": ALWAYS,  # the market went on
    LogEvent.RETRY_AFTER: frozenset({"http_429", "http_503"}),
    "PRICE_BAND": frozenset({"price_spikes"}),  # the exchange's history holds it
    LogEvent.STATUS_REPLACED: frozenset({"power_cut"}),  # it is not synced
    LogEvent.SPILL_ADOPTED: _STORAGE | _SLOW,
    LogEvent.SPILL_CUT_SHORT: _KILLS | {"second_signal", "spill_fails", "disk_errors"},
}
"""Log lines explained by faults of an earlier process, with the kinds that explain them."""

EXPLAINED_BY: Final[Mapping[str, frozenset[str]]] = {
    "LINK_LOST": _LOSSES,
    "LINK_RESTORED": _LOSSES,
    LogEvent.CONNECT_FAILED: _HANDSHAKE,
    "GAP": _LOSSES | {"gaps", "reorder", "numbering", "numbers_restart", "price_spikes"},
    "PRICE_BAND": frozenset({"price_spikes"}),
    LogEvent.MALFORMED_INPUT: ALWAYS,  # their number is checked elsewhere
    LogEvent.MALFORMED_SUPPRESSED: frozenset({"garbage", "broken_bytes"}),
    LogEvent.QUARANTINE_FAILED: frozenset({"spill_fails", "disk_errors"}),
    LogEvent.STATUS_FAILED: frozenset({"spill_fails", "disk_errors"}),
    LogEvent.STORAGE_UNAVAILABLE: _STORAGE | {"spill_fails"},
    LogEvent.STORAGE_FAILED: _STORAGE | _SLOW,
    LogEvent.SPILLED: _STORAGE | _SLOW,
    LogEvent.SPILL_BEGUN: _STORAGE | _SLOW,
    LogEvent.SPILL_FAILED: frozenset({"spill_fails", "disk_errors"}),
    LogEvent.CLEANUP_FAILED: frozenset({"spill_fails", "disk_errors"}),
    LogEvent.SPILL_NO_ROOM: frozenset({"spill_fails", "disk_errors"}),
    LogEvent.NOT_STORED: _ENDS,
    LogEvent.FINISH_FAILED: frozenset({"spill_fails", "disk_errors", "file_moved"}),
    LogEvent.DRAIN_TIMEOUT: _ENDS,
    LogEvent.STAGES_NOT_ENDED: _ENDS,
    LogEvent.STAGE_STALLED: frozenset({"hang"}),
    LogEvent.OVERLOAD: ALWAYS,  # checked against the facts
    LogEvent.ORDER_REFUSED: ALWAYS,  # checked against the reference
    LogEvent.THREAD_CRASHED: frozenset({"crash"}),
    LogEvent.STAGE_FAILED: _HANDSHAKE | {"garbage", "broken_bytes"} | ALWAYS,
    LogEvent.SECOND_SIGNAL: frozenset({"second_signal"}),
}
"""The kinds of fault that explain each WARNING and ERROR line, by its event."""


def unexplained(logs: Iterable[Mapping[str, Any]], kinds: Iterable[str], earlier: Iterable[str] | None) -> list[str]:
    """The unexplained warnings and errors.

    `kinds` are enabled for this process, `earlier` for the processes before it (None: it was the first).
    """
    known, before = {*kinds, *ALWAYS}, set() if earlier is None else {*earlier, *ALWAYS}
    found = []
    for line in logs:
        if line["level"] not in ("WARNING", "ERROR"):
            continue
        fields = line["fields"]
        name = str(fields.get("event"))
        if not EXPLAINED_BY.get(name, _NOTHING) & known and not EARLIER.get(name, _NOTHING) & before:
            found.append(f"{line['level']} {fields['message']} {fields}")
    return found


_NOTHING: Final = frozenset[str]()

assert all(kind in KINDS or kind in ALWAYS for kinds in (*EXPLAINED_BY.values(), *EARLIER.values()) for kind in kinds)
