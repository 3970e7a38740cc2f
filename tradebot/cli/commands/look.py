"""The group "Look": commands that only read."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Final

from tradebot.cli.answers import answers
from tradebot.cli.commands.options import CONFIG, DB, HELP, JSON, SET
from tradebot.cli.given import DAY_S, Given
from tradebot.cli.program import Arguments, Command
from tradebot.core.runtime import RealRuntime
from tradebot.output.streams import GuardedStream

GROUP: Final = "Look"

_STATUS: Final = f"""\
Usage:
  tradebot status [--set=KEY=VALUE]... [options]

Options:
{CONFIG}{SET}{DB}\
  --watch             Repeat every second until Ctrl-C. With --json: one object per line.
{JSON}{HELP}"""

_HEALTH: Final = f"""\
Usage:
  tradebot health [--set=KEY=VALUE]... [options]

Options:
{CONFIG}{SET}{DB}\
  --max-age=S         Require progress within the last S seconds. Default: 60.
{JSON}{HELP}"""

_DOCTOR: Final = f"""\
Usage:
  tradebot doctor [options]

Options:
{CONFIG}{DB}\
  --before-update     Also check, after installing a new version and before the restart, whether it can use this
                      database, and whether a downgrade is possible.
{JSON}{HELP}"""


def _status(arguments: Arguments, environ: Mapping[str, str]) -> int:
    from tradebot.ops.status_view import run_status

    given = Given(arguments, environ)
    return run_status(given.found().db_path, given.flag("--json"), given.flag("--watch"), RealRuntime(), answers())


def _health(arguments: Arguments, environ: Mapping[str, str]) -> int:
    from tradebot.ops.health import run_health

    given = Given(arguments, environ)
    max_age_s = given.seconds("--max-age", 60.0, 1.0, DAY_S)
    return run_health(given.found().db_path, max_age_s, RealRuntime(), answers(), given.flag("--json"))


def _doctor(arguments: Arguments, environ: Mapping[str, str]) -> int:
    from tradebot.ops.doctor.command import run_doctor

    given = Given(arguments, environ)
    config, db, before_update = given.text("--config"), given.path("--db"), given.flag("--before-update")
    errors, as_json = GuardedStream(sys.stderr), given.flag("--json")
    return run_doctor(config, db, environ, RealRuntime(), answers(), errors, before_update, as_json)


_STATUS_FIELDS: Final = (
    "database",
    "now_ms",
    "engine",
    "healthy",
    "health",
    "status_age_s",
    "uptime_s",
    "last_tick_age_s",
    "last_stored_age_s",
    "database_bytes",
    "wal_bytes",
    "spill_bytes",
    "throttle",
    "last_run",
    "status",
    "trouble",
)  # fmt: skip

COMMANDS: Final[tuple[Command, ...]] = (
    Command(
        "status",
        GROUP,
        "Show what the engine is doing: prices, positions, profit, channel depths, drops, stalled stages.",
        _STATUS,
        {
            0: "the status was shown",
            1: "no status file and no run was found, or the database cannot be used",
            12: "the command line or the configuration is wrong, or the path cannot be a database",
        },
        _STATUS_FIELDS,
        _status,
    ),
    Command(
        "health",
        GROUP,
        "Exit with 0 if the engine makes progress, otherwise with 1; for scripts.",
        _HEALTH,
        {
            0: "healthy",
            1: "not healthy; the line says why",
            12: "the command line or the configuration is wrong, or the path cannot be a database",
        },
        ("healthy", "health", "database"),
        _health,
    ),
    Command(
        "doctor",
        GROUP,
        "Check everything that an unattended engine depends on, and say what to do.",
        _DOCTOR,
        {
            0: "no check failed (there may be warnings)",
            1: "a check failed",
            12: "the command line is wrong, or the path cannot be a database",
        },
        ("ok", "warnings", "failed", "findings"),
        _doctor,
    ),
)
