"""docs/reference/commands.md, generated from the registry (bin/write-reference writes it, a test compares it)."""

from __future__ import annotations

from tradebot.cli.program import Command, Program

_HEAD = """\
# Commands

<!-- Generated: edit tradebot/cli/commands/ or mockws_server/options.py, then run bin/write-reference. -->

Every command prints its own part of this page with `--help`. Option names cannot be abbreviated; a value follows after
`=` or as the next argument. A usage error prints one message and exits with 12; if a command, option or key is unknown,
the message suggests the most similar one. Results go to standard output, everything else to standard error.

`--set KEY=VALUE` sets any key of [configuration.md](configuration.md) and may be given several times. Like the other
options, it overrides the environment and the configuration file. If a key also has its own option, giving both is an
error.

With `--json` a command prints one JSON object on one line, in ASCII. The field `format` is the version of the format,
which does not change when fields are added. Field names end in their unit (`_ms`, `_s`, `_bytes`); unknown values are
null; credentials in URLs are masked. Exit codes are the same with and without `--json`.

Only the logs of `run`, `capture` and `soak` use colours, and only on a terminal. A non-empty `NO_COLOR` turns them off.
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
