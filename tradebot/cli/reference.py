"""docs/reference/commands.md, made from the registry (bin/write-reference writes it, a test holds it)."""

from __future__ import annotations

from tradebot.cli.program import Command, Program

_HEAD = """\
# Commands

<!-- Generated: edit tradebot/cli/commands/ or mockws_server/options.py, then run bin/write-reference. -->

Every command prints its own part of this page with `--help`. Options must be spelled out; a value follows after `=` or
as the next word. A mistake gets one message and ends with 12; for an unknown command, option or key the message names
the nearest one. Answers go to standard output, everything else to standard error.

`--set KEY=VALUE` sets any key of [configuration.md](configuration.md) and may be given several times. It ranks with the
other options: above the environment and the configuration file. A key that has an option of its own is treated like
that option, and it is a mistake to give both.

`--json` makes a command answer with one JSON object on one line, in ASCII. Its field `format` is the version of the
answer: fields may be added without a change of it. Names end in their unit (`_ms`, `_s`, `_bytes`); what is not known
is null; credentials in URLs are masked. Exit codes are the same with and without it.

Colours are written only by the log of `run`, `capture` and `soak` on a terminal, and not when `NO_COLOR` is set and not
empty.
"""


def commands_page(*programs: Program) -> str:
    """The whole page: every command of every program in the order of its help."""
    return "\n".join([_HEAD, *(_program(program) for program in programs)])


def _program(program: Program) -> str:
    if not program.names:
        [command] = program.commands
        return f"## {program.name}\n\n{_command(program, command)}"
    rows = [f"| `{command.name}` | {command.group} | {command.summary} |" for command in program.commands]
    table = "\n".join(["| command | group | what it does |", "|---|---|---|", *rows])
    parts = [f"### {program.called(command.name)}\n\n{_command(program, command)}" for command in program.commands]
    return "\n".join([f"## {program.name}\n\n{table}\n", *parts])


def _command(program: Program, command: Command) -> str:
    rows = [f"| {code} | {' '.join(meaning.split())} |" for code, meaning in command.exit_codes.items()]
    codes = "\n".join(["| exit code | when |", "|---|---|", *rows])
    fields = ", ".join(f"`{name}`" for name in command.json_fields)
    return f"{command.summary}\n\n```text\n{command.usage}```\n\n{codes}\n\nFields of `--json`: {fields}.\n"
