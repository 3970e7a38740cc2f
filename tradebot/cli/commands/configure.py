"""The group "Configure": shows the settings, checks a configuration file, installs the systemd units."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Final

from tradebot.cli.answers import answer, answer_json
from tradebot.cli.commands.options import CONFIG, HELP, JSON, LOGS, WS_SOURCES
from tradebot.cli.commands.run import RUN_OPTIONS
from tradebot.cli.given import Given
from tradebot.cli.program import Arguments, Command
from tradebot.cli.resolve import resolve
from tradebot.config import toml_file
from tradebot.core.errors import ConfigError, UsageError
from tradebot.core.runtime import RealRuntime
from tradebot.feeds import sources_file
from tradebot.strategy.registry import CHECKS

GROUP: Final = "Configure"

_SHOW_CONFIG: Final = f"""\
Usage:
  tradebot show-config [--set=KEY=VALUE]... [options]

Takes the options of run. The output is a valid configuration file; credentials in it are masked.

{RUN_OPTIONS}
Output options:
{LOGS}{JSON}{HELP}"""

_CHECK_CONFIG: Final = f"""\
Usage:
  tradebot check-config [options] [FILE]

Checks FILE or the file given with --config; without them, the file that run would read.

Options:
{CONFIG}{JSON}{HELP}"""

_SOURCES: Final = f"""\
Usage:
  tradebot sources [options]

Options:
{CONFIG}\
{WS_SOURCES}\
{JSON}{HELP}"""

_INSTALL_UNIT: Final = f"""\
Usage:
  tradebot install-unit [options]

Installs the units for the engine, for its supervisor (tradebot soak) and for a local feed (mockws).

Options:
{CONFIG}\
  --user              Install into your own service manager (systemctl --user), without root.
  --name=NAME         Install the units of a second engine: NAME.service, with its database in /var/lib/NAME.
  --replace           Allow a change of the configuration of an installed unit.
  --print             Print the engine's unit to standard output and install nothing.
{JSON}{HELP}"""


def _show_config(arguments: Arguments, environ: Mapping[str, str]) -> int:
    from tradebot.cli.show_config import as_object, describe

    # The user may not be allowed to read the secrets that a run reads.
    settings = resolve(arguments, environ, with_secrets=False)
    if "--json" in arguments.given:
        return answer_json(as_object(settings, environ))
    return answer("\n".join(describe(settings, environ)) + "\n")


def _check_config(arguments: Arguments, environ: Mapping[str, str]) -> int:
    given = Given(arguments, environ)
    as_json, named = given.flag("--json"), given.text("--config")
    if arguments.file is not None and named is not None:
        raise UsageError(f"give FILE or --config=FILE, not both; {given.hint}")
    found = toml_file.find(named if arguments.file is None else arguments.file, environ)
    if found is None:
        if not as_json:
            return answer("no configuration file: the defaults apply\n")
        return answer_json({"format": 1, "file": None, "named_by": None, "valid": True, "problems": [], "notes": []})
    from tradebot.ops.gate import unavailable

    path, named_by = found
    problems, notes = [], []
    try:
        notes = unavailable(toml_file.load(path, CHECKS), RealRuntime())
    except ConfigError as error:
        problems = str(error).splitlines()
    if as_json:
        by = "command line" if arguments.file else named_by
        verdict = {"file": str(path), "named_by": by, "valid": not problems, "problems": problems, "notes": notes}
        answer_json({"format": 1, **verdict})
    elif problems:
        answer("".join(f"{line}\n" for line in problems))
    else:
        noted = "".join(f"note: run would refuse it: {reason}\n" for reason in notes)
        answer(f"{path}: valid{'' if arguments.file else f' ({named_by})'}\n{noted}")
    return 1 if problems else 0


def _sources(arguments: Arguments, environ: Mapping[str, str]) -> int:
    given = Given(arguments, environ)
    found = toml_file.find(given.text("--config"), environ)
    place = sources_file.find(given.text("--ws-sources"), None if found is None else found[0], environ)
    known = {} if place is None else sources_file.load(place[0])
    if given.flag("--json"):
        return answer_json(sources_file.as_object(place, known.values()))
    return answer("\n".join(sources_file.describe(place, known.values())) + "\n")


def _install_unit(arguments: Arguments, environ: Mapping[str, str]) -> int:
    from tradebot.ops.units import InstallRequest, names_of, run_install_unit

    given = Given(arguments, environ)
    names, found = names_of(given.text("--name")), given.found()
    order = InstallRequest(
        found.config,
        found.config_path,
        given.flag("--user"),
        given.flag("--print"),
        names,
        given.flag("--replace"),
        given.flag("--json"),
    )
    return run_install_unit(order, environ, sys.stdout, sys.stderr)


COMMANDS: Final[tuple[Command, ...]] = (
    Command(
        "show-config",
        GROUP,
        "Print the configuration that run would use, with the source of each value.",
        _SHOW_CONFIG,
        {0: "printed", 1: "a file cannot be used; the message says why", 12: "the command line is wrong"},
        ("version", "config_hash", "config_file", "keys", "options", "listens"),
        _show_config,
    ),
    Command(
        "check-config",
        GROUP,
        "Check whether a configuration file is valid.",
        _CHECK_CONFIG,
        {0: "valid, or there is no file and the defaults apply", 1: "not valid", 12: "the command line is wrong"},
        ("file", "named_by", "valid", "problems", "notes"),
        _check_config,
    ),
    Command(
        "sources",
        GROUP,
        "List the supported exchanges and the entries of ws_sources.toml.",
        _SOURCES,
        {0: "listed", 1: "ws_sources.toml cannot be used", 12: "the command line is wrong"},
        ("exchanges", "file", "named_by", "sources"),
        _sources,
    ),
    Command(
        "install-unit",
        GROUP,
        "Install the systemd units, adapted to this installation.",
        _INSTALL_UNIT,
        {
            0: "installed, or printed",
            1: "not installed: no permission, or the configuration is not suitable for a service",
            12: "the command line or the configuration is wrong, or --replace is needed",
        },
        ("written", "changes", "to_do"),
        _install_unit,
    ),
)
