"""The registry and the help made of it, of both programs: what is listed, in which group, and docopt's own view."""

from __future__ import annotations

import platform
import re
import sqlite3
from collections import Counter
from importlib import metadata
from pathlib import Path

import docopt
import pytest

import tradebot
from mockws_server.cli import MOCKWS
from tradebot.cli.program import Command, Program
from tradebot.cli.registry import TRADEBOT
from tradebot.core.errors import ExitCode

PROGRAMS = (TRADEBOT, MOCKWS)
COMMANDS = [(program, command) for program in PROGRAMS for command in program.commands]
each_command = pytest.mark.parametrize(("program", "command"), COMMANDS, ids=lambda row: row.name)


def test_the_groups_are_run_look_operate_and_configure() -> None:
    assert TRADEBOT.groups == ("Run", "Look", "Operate", "Configure")
    assert {command.group for command in TRADEBOT.commands} == set(TRADEBOT.groups)
    text = TRADEBOT.help_text()
    listed = {
        group: re.findall(r"^  ([a-z-]+) ", text.partition(f"\n{group}:\n")[2].partition("\n\n")[0], re.M)
        for group in TRADEBOT.groups
    }
    assert listed == {
        "Run": ["run", "capture"],
        "Look": ["status", "health", "doctor"],
        "Operate": ["halt", "resume", "soak", "prove", "prune", "backup"],
        "Configure": ["show-config", "check-config", "sources", "install-unit"],
    }


def test_the_help_of_the_program_names_no_option_list_and_every_exit_code() -> None:
    text = TRADEBOT.help_text()
    assert not re.findall(r"^  --(?!help|version)", text, re.M)
    assert "tradebot COMMAND --help" in text and "NO_COLOR" in text and len(text.splitlines()) < 60
    for code in ExitCode:
        assert f"{code.value:2}  {code.name}" in text
        assert code.meaning in text


@each_command
def test_the_help_of_one_command_shows_that_command_alone(program: Program, command: Command) -> None:
    text = program.help_text(command.name)
    assert text.count("Usage:") == 1
    listed = re.findall(r"^  (?:-[A-Za-z] )?(--[a-z-]+)", text, re.M)
    assert listed == list(command.options)
    assert f"Exit codes:\n   0  {command.exit_codes[0]}" in text
    others = [other.name for other in program.commands if other is not command and other.name != "run"]
    assert not [name for name in others if re.search(rf"^  {name} ", text, re.M)]
    assert max(map(len, text.splitlines())) <= 120


@each_command
def test_every_option_stands_in_a_group_and_is_explained(program: Program, command: Command) -> None:
    lines = command.usage.splitlines()
    for option in command.options:
        at = next(n for n, line in enumerate(lines) if re.match(rf"  (?:-[A-Za-z] )?{option}[= ]", line))
        heading = next(line for line in reversed(lines[:at]) if line and not line.startswith(" "))
        assert re.fullmatch(r"([A-Z][a-z ]+ o|O)ptions:", heading), option
        assert re.search(r"\S  +[A-Za-z]", lines[at]), option


@each_command
def test_the_options_are_docopts(program: Program, command: Command) -> None:
    """docopt takes each line that begins with a dash for an option: none of the prose may begin so."""
    options = docopt.parse_defaults(command.usage)  # type: ignore[attr-defined,unused-ignore]
    assert Counter((option.long, option.argcount > 0) for option in options) == Counter(command.options.items())


@each_command
def test_an_option_has_one_shape_and_help_is_always_there(program: Program, command: Command) -> None:
    assert "--help" in command.options
    for other in program.commands:
        for option in command.options.keys() & other.options.keys():
            assert command.options[option] == other.options[option]


@each_command
def test_every_command_answers_in_json(program: Program, command: Command) -> None:
    assert command.options["--json"] is False


@each_command
def test_exit_codes_are_known_ones_with_misuse_among_them(program: Program, command: Command) -> None:
    known = {code.value for code in ExitCode} if command.name == "run" else {0, 1, ExitCode.CONFIG.value}
    assert set(command.exit_codes) == known


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_versions(program: Program) -> None:
    lines = program.version_text().splitlines()
    assert lines[:3] == [
        f"{program.name} {tradebot.__version__}",
        f"Python {platform.python_version()}",
        f"SQLite {sqlite3.sqlite_version}",
    ]
    for library in ("docopt", "loguru", "msgspec", "peewee", "pyzmq", "websocket-client", "zstandard"):
        assert f"{library} {metadata.version(library)}" in lines


def test_the_file_that_help_names_is_there() -> None:
    assert "etc/tradebot/example.toml" in TRADEBOT.help_text()
    assert (Path(__file__).resolve().parents[3] / "etc/tradebot/example.toml").is_file()


def test_no_command_has_two_entries() -> None:
    assert max(Counter(TRADEBOT.names).values()) == 1
    with pytest.raises(KeyError):
        TRADEBOT.command("frobnicate")
