"""The group "Operate": halting, the supervisor, the proofs, and maintenance of the database."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tradebot.cli.answers import answers
from tradebot.cli.commands.options import CONFIG, DB, HELP, JSON, LOGS, PSI_ROOT, SET, SYSTEMCTL
from tradebot.cli.given import DAY_S, Given
from tradebot.cli.program import Arguments, Command
from tradebot.cli.resolve import resolve
from tradebot.config.model import db_path, expand_home
from tradebot.core.runtime import RealRuntime
from tradebot.output.streams import GuardedStream

GROUP: Final = "Operate"

_HALT: Final = f"""\
Usage:
  tradebot halt [--set=KEY=VALUE]... [options]

A running engine refuses every order that adds exposure, from now on and after restarts, until `tradebot resume`.
Without one the next start with a live feed is halted. Replays are not affected.

Options:
{CONFIG}{SET}{DB}\
  --reason=TEXT       Why, at most 200 characters: shown in status, log, notices and alerts.
{JSON}{HELP}"""

_RESUME: Final = f"""\
Usage:
  tradebot resume [--set=KEY=VALUE]... [options]

Ends a halt, and releases the breakers MAX_DRAWDOWN and LOSSES_IN_A_ROW: the peak of equity becomes the present equity,
the count of losses starts at 0. Other breakers are released by time.

Options:
{CONFIG}{SET}{DB}{JSON}{HELP}"""

_SOAK: Final = f"""\
Usage:
  tradebot soak [--set=KEY=VALUE]... [options]

Runs until --duration has passed, the pressure remains too high, or a stop signal arrives.

Options:
{CONFIG}{SET}{DB}\
  --unit=NAME         The engine's unit. Default: the installed unit that runs with this configuration, else
                      tradebot.service.
{SYSTEMCTL}{PSI_ROOT}\
  --poll=S            Check pressure and progress every S seconds. Default: 5.
  --psi-actions=WORD  on or off. With off, the supervisor only records how it would react to pressure. Default: on.
  --decisions=FILE    Write one JSON line for each decision to this file. Default: beside the database.
  --duration=S        Stop after S seconds. Default: never.

Output options:
{LOGS}{JSON}{HELP}"""

_PROVE: Final = f"""\
Usage:
  tradebot prove [--set=KEY=VALUE]... [options]

The experiments take minutes. They use a separate directory beside the database and do not open the database. Give
the same --config, --db and --set as for the LIVE run: the bundle is valid only for that configuration.

Options:
{CONFIG}{SET}{DB}\
  --list              List the proofs.
  --only=NAMES        Run only these proofs, separated by commas; no bundle is written.
{SYSTEMCTL}{PSI_ROOT}{JSON}{HELP}"""

_PRUNE: Final = f"""\
Usage:
  tradebot prune --keep=AGE [--set=KEY=VALUE]... [options]

Options:
  --keep=AGE          Delete events older than this, for example 30d, 12h, 90m or 3600s.
{CONFIG}{SET}{DB}\
  --dry-run           Show what would be deleted, and delete nothing.
{JSON}{HELP}"""

_BACKUP: Final = f"""\
Usage:
  tradebot backup [--set=KEY=VALUE]... [options] FILE

Options:
{CONFIG}{SET}{DB}\
  --force             Replace FILE if it exists.
{JSON}{HELP}"""


def _halt(arguments: Arguments, environ: Mapping[str, str]) -> int:
    from tradebot.telemetry.halt_file import REASON_CHARS_MAX

    given = Given(arguments, environ)
    return _write_halt(given, True, given.line("--reason", REASON_CHARS_MAX))


def _resume(arguments: Arguments, environ: Mapping[str, str]) -> int:
    return _write_halt(Given(arguments, environ), False, "")


def _write_halt(given: Given, halted: bool, reason: str) -> int:
    from tradebot.ops.halt import run_halt

    return run_halt(given.found().db_path, halted, reason, RealRuntime(), answers(), given.flag("--json"))


def _soak(arguments: Arguments, environ: Mapping[str, str]) -> int:
    from tradebot.config.secret_urls import find_webhook
    from tradebot.ops.installed import engine_units, unit_of
    from tradebot.ops.soak.command import SoakOrder, run_soak

    given = Given(arguments, environ)
    found = given.found()
    webhook_url = find_webhook(found.config, found.sources, environ) or found.config.notify.webhook_url
    order = SoakOrder(found.db_path, webhook_url=webhook_url)
    duration_s = given.seconds("--duration", 0.0, 1.0, 366 * DAY_S) if given.flag("--duration") else None
    order = order._replace(
        unit=given.text("--unit") or unit_of(found.config_path, engine_units(None)) or order.unit,
        systemctl=given.text("--systemctl") or order.systemctl,
        psi_root=given.path("--psi-root") or order.psi_root,
        poll_s=given.seconds("--poll", order.poll_s, 0.1, 60.0),
        psi_actions=given.choice("--psi-actions", "on", ("on", "off")) == "on",
        decisions=given.path("--decisions"),
        duration_s=duration_s,
        log_level=given.log_level(),
        log_format=given.choice("--log-format", "json", ("json", "text")) if given.flag("--log-format") else None,
        as_json=given.flag("--json"),
    )
    return run_soak(order, RealRuntime(), sys.stdout, sys.stderr)


def _prove(arguments: Arguments, environ: Mapping[str, str]) -> int:
    from tradebot.ops.proofs.prove import list_proofs, run_prove

    given, errors = Given(arguments, environ), GuardedStream(sys.stderr)
    as_json = given.flag("--json")
    if given.flag("--list"):
        return list_proofs(answers(), as_json)
    # As run has it, with the limits of a source in it: the gate compares the hashes of both.
    named = {option: value for option, value in arguments.given.items() if option in ("--config", "--db")}
    config = resolve(Arguments("run", named, None, arguments.sets), environ, with_secrets=False).config
    database, only, systemctl = db_path(config, environ), given.text("--only"), given.text("--systemctl")
    psi_root = given.path("--psi-root")
    return run_prove(config, database, only, systemctl, psi_root, environ, RealRuntime(), answers(), errors, as_json)


def _prune(arguments: Arguments, environ: Mapping[str, str]) -> int:
    from tradebot.ops.prune import run_prune

    given = Given(arguments, environ)
    keep_ms, dry_run, as_json = given.age_ms("--keep"), given.flag("--dry-run"), given.flag("--json")
    path = given.found().db_path
    return run_prune(path, keep_ms, dry_run, RealRuntime(), sys.stdout, sys.stderr, as_json=as_json)


def _backup(arguments: Arguments, environ: Mapping[str, str]) -> int:
    from tradebot.ops.backup import run_backup

    given = Given(arguments, environ)
    assert arguments.file is not None  # its usage asks for it
    target, force = Path(expand_home(arguments.file)), given.flag("--force")
    path, as_json = given.found().db_path, given.flag("--json")
    return run_backup(path, target, force, RealRuntime(), sys.stdout, sys.stderr, as_json)


_PRUNE_FIELDS: Final = (
    "database",
    "finished",
    "failure",
    "dry_run",
    "older_than_ms",
    "deleted",
    "unfinished_replays",
    "run_in_spill_file",
    "free_bytes",
)  # fmt: skip

_HALT_FIELDS: Final = (
    "database", "file", "halted", "reason", "engine", "pid", "confirmed", "tripped", "failure",
)  # fmt: skip

_UNREACHED: Final = "the file could not be written, or a running engine did not confirm it within 10 s"

COMMANDS: Final[tuple[Command, ...]] = (
    Command(
        "halt",
        GROUP,
        "Refuse every order that adds exposure, now and after restarts, until resume.",
        _HALT,
        {
            0: "the running engine is halted, or no engine is running and the next start is halted",
            1: _UNREACHED,
            12: "the command line or the configuration is wrong",
        },
        _HALT_FIELDS,
        _halt,
    ),
    Command(
        "resume",
        GROUP,
        "End a halt, and release the breakers that wait for it.",
        _RESUME,
        {
            0: "the running engine has resumed, or no engine is running and the next start is not halted",
            1: _UNREACHED,
            12: "the command line or the configuration is wrong",
        },
        _HALT_FIELDS,
        _resume,
    ),
    Command(
        "soak",
        GROUP,
        "Supervise an engine under systemd: throttle it under pressure, restart it when it stalls.",
        _SOAK,
        {
            0: "stopped by a signal, or the engine is healthy after --duration",
            1: "the engine is not healthy at the end, the pressure remained too high, or supervision could not start",
            12: "the command line or the configuration is wrong",
        },
        ("good", "ending", "state", "verdict", "elapsed_s", "restarts", "stalls", "decisions"),
        _soak,
    ),
    Command(
        "prove",
        GROUP,
        "Run the proofs against a real engine and write the bundle that the LIVE gate requires.",
        _PROVE,
        {
            0: "every proof passed",
            1: "a proof did not pass, or the proofs could not run (no service manager, an invalid configuration file)",
            12: "the command line is wrong",
        },
        ("passed", "took_s", "bundle", "config_hash", "proofs"),
        _prove,
    ),
    Command(
        "prune",
        GROUP,
        "Delete old events in small transactions; an engine may be running.",
        _PRUNE,
        {
            0: "all older events are deleted",
            1: "not finished, or the database cannot be used",
            12: "the command line or the configuration is wrong",
        },
        _PRUNE_FIELDS,
        _prune,
    ),
    Command(
        "backup",
        GROUP,
        "Copy the database to FILE; an engine may be running.",
        _BACKUP,
        {
            0: "FILE is a complete, checked copy",
            1: "no copy was made; FILE is unchanged",
            12: "the command line or the configuration is wrong",
        },
        ("file", "bytes", "database", "checked"),
        _backup,
    ),
)
