"""What a program with commands consists of: the registry's form, shared by tradebot and mockws, and the help it gives.

A `Program` is a table of `Command`s. Everything else is read off it: `PROGRAM --help` lists the commands in groups,
`PROGRAM COMMAND --help` shows one command's usage text, docopt reads the same text (`tradebot.cli.words`), and
docs/reference/commands.md is checked against it.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Final, NamedTuple

from tradebot import __version__

HELP: Final = "help"
VERSION: Final = "version"

_OPTION: Final = re.compile(r"^  (?:-[A-Za-z] )?(--[a-z-]+)(=\S+)?(?:  .*)?$", re.M)
_NAME_CHARS: Final = 14


class Arguments(NamedTuple):
    """A command line taken apart: a command, `given` values by option ("--db"), True for options without a value.

    `file` is the word after the command, `sets` are the KEY=VALUE of each --set. The command is `HELP` or `VERSION`
    where that was asked for; `file` is then the command to explain, None for the program.
    """

    command: str
    given: dict[str, str | bool]
    file: str | None = None
    sets: tuple[str, ...] = ()


class Command(NamedTuple):
    """One row of the registry.

    `usage` begins with "Usage:" and is what docopt reads. `exit_codes` are those that the command itself can give, with
    their meaning. `json_fields` are the names in the object that --json answers with, beside "format". `function` gets
    the arguments and the environment and answers an exit code; it raises TradebotError.
    """

    name: str
    group: str
    summary: str
    usage: str
    exit_codes: Mapping[int, str]
    json_fields: tuple[str, ...]
    function: Callable[[Arguments, Mapping[str, str]], int]

    @property
    def options(self) -> Mapping[str, bool]:
        """The options of the command in the order of its help, and whether each takes a value."""
        return _options(self.usage)

    @property
    def repeatable(self) -> tuple[str, ...]:
        """Options that may be given more than once."""
        return tuple(re.findall(r"\[(--[a-z-]+)[^\]]*\]\.\.\.", self.usage_line))

    @property
    def required(self) -> tuple[str, ...]:
        """The required arguments as the usage text writes them: options ("--keep=AGE"), and FILE."""
        words = re.sub(r"\[[^\]]*\](?:\.\.\.)?", " ", self.usage_line).split()
        return tuple(word for word in words if word.startswith("--") or word == "FILE")

    @property
    def takes_file(self) -> bool:
        """Whether a FILE may follow the command."""
        return re.search(r"\bFILE\]?$", self.usage_line) is not None

    @property
    def usage_line(self) -> str:
        """The first usage line, such as "tradebot backup [options] FILE"."""
        return self.usage.splitlines()[1].strip()


class Program(NamedTuple):
    """The commands of a program, and the other texts of its help.

    A program with one command does not ask for its name. `default` runs when no command is named. `groups` are the
    headings of the help, in order. `explain` says what a word that is no command may have meant, or nothing.
    """

    name: str
    about: str
    groups: tuple[str, ...]
    commands: tuple[Command, ...]
    default: str
    notes: str
    explain: Callable[[str], str]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the commands."""
        return tuple(command.name for command in self.commands) if len(self.commands) > 1 else ()

    def command(self, name: str) -> Command:
        """The command with that name. Raises KeyError for an unknown name."""
        for command in self.commands:
            if command.name == name:
                return command
        raise KeyError(name)

    def takes_value(self) -> dict[str, bool]:
        """Every option of any command, --help and --version, and whether it takes a value."""
        options = {"--help": False, "--version": False}
        for command in self.commands:
            options |= command.options
        return options

    def called(self, command: str) -> str:
        """The command as users write it: "tradebot prune"; for a program with one command, the name of the program."""
        return f"{self.name} {command}" if self.names else self.name

    def help_text(self, name: str | None = None) -> str:
        """The output of --help: the commands in their groups, or everything about the command `name`."""
        if name is None and self.names:
            listed = "\n".join(f"{group}:\n{self._entries(group)}" for group in self.groups)
            return f"{self.about}\n{listed}\n{self.notes}"
        command = self.command(self.default if name is None else name)
        head = f"{self.about}\n" if not self.names else f"{command.summary}\n\n"
        return f"{head}{command.usage}\nExit codes:\n{listed_codes(command.exit_codes)}{'' if name else self.notes}"

    def _entries(self, group: str) -> str:
        rows = [command for command in self.commands if command.group == group]
        return "".join(f"  {command.name:<{_NAME_CHARS}}{command.summary}\n" for command in rows)

    def version_text(self) -> str:
        """The output of --version: the versions of the program, Python, SQLite and each library, one per line."""
        # Late: no other command pays for these imports.
        import sqlite3

        from tradebot.ops.doctor.checks import LIBRARIES
        from tradebot.ops.doctor.readings import read_libraries

        versions: dict[str, str | None] = {
            self.name: __version__,
            "Python": platform.python_version(),
            "SQLite": sqlite3.sqlite_version,
            **read_libraries(LIBRARIES),
        }
        return "".join(f"{name} {version or 'not installed'}\n" for name, version in versions.items())


@cache
def _options(usage: str) -> dict[str, bool]:
    return {name: bool(value) for name, value in _OPTION.findall(usage)}


def listed_codes(codes: Mapping[int, str]) -> str:
    """Exit codes with their meanings, one per line, as the help shows them."""
    return "".join(f"  {code:2}  {meaning}\n" for code, meaning in codes.items())
