"""The judgements of the doctor about this machine and its processes: each a pure function of what was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tradebot.core.errors import ExitCode
from tradebot.core.events import as_unix_ms
from tradebot.ops.doctor.advice import Advice
from tradebot.ops.doctor.finding import Finding, fail, ok, warn
from tradebot.ops.doctor.readings import ClockReading, Listener, LockReading, UnitReading
from tradebot.ops.health import HealthReading, code_text, span
from tradebot.ops.installed import DEFAULT
from tradebot.telemetry.status_file import Status
from tradebot.telemetry.throttle_file import Throttle

PYTHONS: Final = ((3, 11), (3, 14))
"""The first version that is supported, and the first that no longer is."""

# The race in the reset of the WAL (https://www.sqlite.org/wal.html#walresetbug): since 3.7.0, repaired in these
# releases and all after the last; versions between them have it.
_WAL_RESET_REPAIRED: Final = ((3, 44, 6), (3, 50, 7), (3, 51, 3))
_WITHDRAWN: Final = frozenset({(3, 52, 0)})

LIBRARIES: Final = (
    "docopt", "loguru", "msgspec", "peewee", "prometheus-client", "pyzmq", "tqdm", "websocket-client", "websockets",
    "zstandard",
)  # fmt: skip
"""What a run may need, by the names of the packages."""

STEP_MS_MAX: Final = 50.0
BEHIND_MS_MAX: Final = 2_000
AHEAD_SKEW_MS: Final = 1_000
LATE_SKEW_MS: Final = 5_000


def check_python(version: tuple[int, ...]) -> Finding:
    """Whether this Python is one that tradebot is tested on."""
    text = ".".join(map(str, version[:3]))
    first, beyond = PYTHONS
    if first <= version[:2] < beyond:
        return ok("python", text)
    return fail(
        "python",
        f"{text} is not supported",
        Advice.PYTHON,
        f"install tradebot with Python {first[0]}.{first[1]} to 3.13",
    )


def check_sqlite(version: tuple[int, ...]) -> Finding:
    """Whether SQLite is free of the known ways to damage a WAL database."""
    text = ".".join(map(str, version[:3]))
    if version[:3] in _WITHDRAWN:
        return warn(
            "sqlite",
            f"{text} was withdrawn by the SQLite project",
            Advice.SQLITE_WITHDRAWN,
            "use a Python whose SQLite is another release",
        )
    same_line = [good for good in _WAL_RESET_REPAIRED if good[:2] == version[:2]]
    repaired = version[:3] >= same_line[0] if same_line else version[:3] > _WAL_RESET_REPAIRED[-1]
    if repaired:
        return ok("sqlite", text)
    return warn(
        "sqlite",
        f"{text} has a rare race (WAL-reset bug, 3.7.0 to 3.51.2) that can damage a database that two connections"
        " write or checkpoint at the same moment, unless your distribution has fixed it",
        Advice.SQLITE_RACE,
        "use a Python with SQLite 3.51.3 or newer (or 3.50.7, 3.44.6) when you can; until then let no other program"
        " write the database while the engine runs, and keep backups (tradebot backup)",
    )


def check_libraries(versions: Mapping[str, str | None]) -> Finding:
    """Which versions are at work here, for a report of a fault. prometheus-client may be missing (extra `metrics`)."""
    return ok("libraries", ", ".join(f"{name} {version or 'not installed'}" for name, version in versions.items()))


def check_clock(clock: ClockReading, look: HealthReading) -> list[Finding]:
    """Whether the wall clock runs evenly, is kept right, and is not behind what was already written."""
    found = []
    if abs(clock.step_ms) > STEP_MS_MAX:
        found.append(
            warn(
                "clock",
                f"the wall clock moved {clock.step_ms:+.0f} ms against the monotonic clock within {clock.over_s:.1f} s",
                Advice.CLOCK_STEPS,
                "use one time service (systemd-timesyncd, chrony) that slews the clock instead of stepping it",
            )
        )
    newest_ms = max(
        (ms for ms in _written_times(look) if ms is not None),
        default=look.now_ms,
    )
    if newest_ms - look.now_ms > BEHIND_MS_MAX:
        found.append(
            fail(
                "clock",
                f"the wall clock is {span((newest_ms - look.now_ms) / 1000)} behind times that are already stored",
                Advice.CLOCK_BEHIND,
                "correct the clock before the next start; otherwise times in the database would go back",
            )
        )
    if clock.synchronised is False:
        found.append(
            warn(
                "clock",
                "according to the kernel no time service synchronises the wall clock",
                Advice.CLOCK_UNKEPT,
                "turn one on (timedatectl set-ntp true, or chrony); in a container the host must do this",
            )
        )
    if not found:
        kept = (
            "synchronised by a time service"
            if clock.synchronised
            else "cannot tell whether a time service synchronises it"
        )
        found.append(ok("clock", f"even within {abs(clock.step_ms):.0f} ms over {clock.over_s:.1f} s, {kept}"))
    return found


def _written_times(look: HealthReading) -> tuple[int | None, ...]:
    run = look.run
    status_ms = None if look.status is None else look.status.written_ms
    return (status_ms, None, None) if run is None else (status_ms, run.first_start_ms, run.last_end_ms)


def check_skew(before: Status | None, after: Status | None, now_s: float) -> Finding:
    """Feed time stamps against this clock, from two looks at a running engine about a second apart."""
    if after is None or not after.push or not after.fresh(now_s):
        return ok("feed times", "not compared: no engine with a live feed is running")
    if after.last_tick is None:
        return ok("feed times", "not compared: no tick has arrived yet")
    if before is None or before.run_id != after.run_id or before.counters["tick_count"] == after.counters["tick_count"]:
        return ok("feed times", "not compared: no tick arrived while the doctor was watching")
    # The tick came between the two looks, so that its time should be at most that old.
    late_ms = after.written_ms - as_unix_ms(after.last_tick.ts_ms)
    if late_ms < -AHEAD_SKEW_MS:
        return warn(
            "feed times",
            f"tick times are {span(-late_ms / 1000)} ahead of this clock",
            Advice.FEED_AHEAD,
            "this clock is behind (see the clock), or the exchange's is ahead",
        )
    allowed_ms = LATE_SKEW_MS + after.written_ms - before.written_ms
    if late_ms > allowed_ms:
        return warn(
            "feed times",
            f"tick times are {span(late_ms / 1000)} behind this clock on arrival",
            Advice.FEED_LATE,
            "this clock is ahead, the exchange sends late, or the link is slow; with execution.max_tick_age_ms signals"
            " are refused",
        )
    return ok("feed times", f"the last tick was {late_ms:,} ms old when it was checked")


def check_unit(unit: UnitReading) -> Finding:
    """Whether a service manager has a unit for this configuration, and understands it."""
    config = "" if unit.config is None else f" --config={unit.config}"
    own_name = Path(unit.name).stem
    named = "" if unit.name == DEFAULT.engine else f" --name={own_name}"
    if not unit.paths and unit.others:
        path, other = unit.others[0]
        return warn(
            "unit",
            f"{path} runs with {other or 'no configuration file'}, and no unit uses the configuration checked here",
            Advice.UNIT_OF_ANOTHER_CONFIG,
            f"check that one {'without --config' if other is None else f'with --config={other}'}; a second engine:"
            " tradebot install-unit --config=FILE --name=NAME",
        )
    if not unit.paths:
        if not unit.systemd_runs:
            return ok("unit", "systemd is not running here: something else must restart the engine after a failure")
        advice = f"`tradebot install-unit{config}` installs it"
        return warn("unit", f"{unit.name} is not installed", Advice.UNIT_MISSING, advice)
    where = ", ".join(unit.paths)
    if unit.complaint is None:
        return ok("unit", f"{where} (systemd-analyze is not available to verify it)")
    if unit.complaint:
        if unit.foreign:
            advice = f"correct it by hand, or move it away and create a new one: tradebot install-unit{config}"
            return fail("unit", f"{where}: {unit.complaint}", Advice.UNIT_FOREIGN, advice)
        advice = f"`tradebot install-unit{config}{named}` rewrites it for this installation"
        return fail("unit", f"{where}: {unit.complaint}", Advice.UNIT_WRONG, advice)
    return ok("unit", f"{where}, verified by systemd-analyze")


def check_port(
    name: str, port: int, listener: Listener | None, wanted: bool, away: tuple[Advice, str], key: str
) -> Finding:
    """Whether a port is free or used by a program of ours.

    `wanted`: one of ours should listen there now, and `away` is what to do where none does; `key`: what names the port.
    """
    if listener is None:
        if wanted:
            return warn("ports", f"nothing listens on {name} port {port}", *away)
        return ok("ports", f"{name} port {port} is free")
    if listener.ours:
        return ok("ports", f"{name} port {port} is used by {listener.owner}")
    who = listener.owner or "a process of another user"
    level = fail if wanted else warn
    advice = f"choose another port ({key}), or stop that program"
    return level("ports", f"{name} port {port} is taken by {who}", Advice.PORT_TAKEN, advice)


def check_processes(look: HealthReading, lock: LockReading, pid_alive: bool, unit: str) -> Finding:
    """Whether the holder of the database is alive and at work.

    `pid_alive`: the process that the status names; `unit`: that would be restarted.
    """
    status = look.status
    at_work = status is not None and status.fresh(look.now_s)
    if lock.held:
        if at_work:
            return ok("processes", f"one engine is running, process {lock.holder}")
        quiet = "" if status is None or status.state == "ended" else f" for {span(look.now_s - status.written_s)}"
        return fail(
            "processes",
            f"process {lock.holder} holds the database, but has not written a status{quiet}",
            Advice.ENGINE_SILENT,
            f"if it is not just starting, it hangs: `systemctl restart {unit}`, or send it SIGABRT to see its stacks",
        )
    if at_work and lock.known:
        return fail(
            "processes",
            f"process {status.pid if status else 0} reports that it writes the database, but does not hold its lock",
            Advice.ENGINE_WITHOUT_LOCK,
            "was the database moved or replaced while it ran? Stop that process and find out which file is correct",
        )
    if status is None or status.state == "ended" or at_work:
        return ok("processes", "no engine runs" if not at_work else "one engine is running")
    if pid_alive and not lock.known:
        return fail(
            "processes",
            f"process {status.pid} has written no status for {span(look.now_s - status.written_s)}",
            Advice.ENGINE_HANGS,
            f"it hangs: `systemctl restart {unit}`, or send it SIGABRT to see its stacks",
        )
    return warn(
        "processes",
        f"the last engine (process {status.pid}) was killed before it could record how it ended",
        Advice.ENGINE_KILLED,
        "nothing to repair: the next start continues from the stored data (a replay with --resume); check its log",
    )


def check_last_run(look: HealthReading) -> Finding:
    """How the last run ended."""
    run = look.run
    if run is None:
        return ok("last run", "none yet")
    at_work = look.status is not None and look.status.fresh(look.now_s)
    if at_work:
        return ok("last run", f"{run.run_id} is running")
    if run.exit_code is None:
        return warn(
            "last run",
            f"{run.run_id} has no end",
            Advice.RUN_WITHOUT_END,
            "it was killed: see its log for the last lines",
        )
    text = f"{run.run_id} ended with {code_text(run.exit_code)}"
    if run.exit_code == ExitCode.COMPLETE:
        return ok("last run", text)
    return warn("last run", text, Advice.RUN_FAILED, "the ERROR lines of its log say why")


def check_spill(
    waiting_bytes: int | None, ours: bool, path: str, engine_runs: bool, has_database: bool = True
) -> Finding:
    """Whether accepted events still wait outside the database. `ours`: the file begins as tradebot writes it.

    `has_database`: there is a database, and not an empty file, that a start could store them in.
    """
    if waiting_bytes is None:
        return ok("spill", "no events are waiting outside the database")
    if not ours:
        return warn(
            "spill",
            f"{path} is damaged or was not written by tradebot",
            Advice.SPILL_FOREIGN,
            f"nothing to do: the next start renames it to {path}.orphan-unknown and continues",
        )
    if engine_runs:
        return warn(
            "spill",
            f"the running engine has put {waiting_bytes:,} bytes of events into {path}: it cannot write the database",
            Advice.SPILL_GROWS,
            "find out what locks the database or fills the disk; the engine stores the events when it can write again,"
            " or exits with 13 and its next start stores them",
        )
    return warn(
        "spill",
        f"{waiting_bytes:,} bytes of accepted events are waiting in {path}",
        Advice.SPILL_WAITS,
        "start the engine with this database: it stores them first; do not delete the file"
        if has_database
        else "put the database that they belong to back before the next start: a start without it makes a new database,"
        " sets the file aside and stores none of them",
    )


def check_orphans(paths: Sequence[str]) -> list[Finding]:
    """Spill files that a start could not place: their events are in no database."""
    return [
        warn(
            "spill",
            f"{path} holds accepted events that a start could not store in this database (its log says SPILL_ORPHANED,"
            " with the reason)",
            Advice.SPILL_ORPHANED,
            "if it belongs to another database, stop that database's engine and move the file beside it, named as that"
            " database with .spill at the end: its next start stores the events; delete it if nobody needs them",
        )
        for path in paths
    ]


def check_throttle(throttle: Throttle | None, problem: str | None, now_ms: int, path: str, unit: str) -> Finding:
    """Whether the soak supervisor, or one that is long gone, makes the engine keep fewer ticks."""
    if problem is not None:
        return fail("throttle", problem, Advice.THROTTLE_UNREADABLE, f"`rm {path}`")
    if throttle is None or throttle.sample_every == 1:
        return ok("throttle", "every start keeps the ticks that its configuration specifies")
    age = span(max(0, now_ms - throttle.written_ms) / 1000)
    return warn(
        "throttle",
        f"{throttle.state} since {age}: a push feed keeps 1 of {throttle.sample_every} ticks",
        Advice.THROTTLED,
        f"if tradebot soak is no longer running: `rm {path}`, then `systemctl restart {unit}`",
    )
