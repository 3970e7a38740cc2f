"""What may stand on the command line: arguments taken apart with docopt (the usage text is in `tradebot.cli.usage`).

docopt answers a mistake with the whole usage text, takes shortened options (whose meaning changes when an option is
added) and lets an option swallow the next one as its value. So the words are looked at first: every mistake gets one
line that says what is wrong, and options must be spelled out. What is left is docopt's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import docopt

from tradebot.cli.usage import (
    CHECK_CONFIG,
    COMMANDS,
    EXAMPLES,
    OF_OTHERS,
    RUN,
    TAKEN,
    TAKES_VALUE,
    USAGE,
    WITH_FILE,
    of_command,
)
from tradebot.config.validation import did_you_mean, show
from tradebot.core.errors import HINT, ExitCode, UsageError
from tradebot.output.redaction import mask

HELP: Final = "help"
VERSION: Final = "version"


class Arguments(NamedTuple):
    """A command line taken apart: a command, `given` values by option ("--db"), True for options without a value."""

    command: str
    given: dict[str, str | bool]
    file: str | None = None


def help_text(command: str | None = None) -> str:
    """What --help prints: usage, examples, exit codes as the program itself knows them; or the part of one command."""
    if command is not None:
        return f"{of_command(command)}\nExit codes: 0 yes, 1 no, 12 misused.\n"
    codes = "\n".join(f"  {code.value:2}  {code.name:9} {code.meaning}" for code in ExitCode)
    return (
        f"{USAGE}\n{EXAMPLES}\n"
        f"Exit codes of run:\n{codes}\n"
        "Other commands: 0 yes, 1 no, 12 misused.\n\n"
        "Configuration keys, their defaults and meanings: etc/tradebot/example.toml (installed: below share/tradebot)\n"
    )


def parse(argv: Sequence[str]) -> Arguments:
    """Take the words after the program's name apart. Pure. Raises UsageError with one line and a hint."""
    seen, words = _scan(argv)
    if "--help" in seen:
        return Arguments(HELP, {}, words[0] if words and words[0] in TAKEN else None)
    if "--version" in seen:
        return Arguments(VERSION, {})
    command = words[0] if words else RUN
    if command not in COMMANDS:
        raise UsageError(_unknown_command(command))
    _check_taken(command, seen)
    room = 1 if command in WITH_FILE else 0
    if len(words) > 1 + room:
        raise UsageError(f"unexpected argument {show(words[1 + room])}; {HINT}")
    if command == CHECK_CONFIG and "--config" in seen and len(words) > 1:
        raise UsageError(f"check-config: give FILE or --config=FILE, not both; {HINT}")
    try:
        taken = docopt.docopt(USAGE, list(argv), help=False)
    except docopt.DocoptExit:
        raise UsageError(f"cannot make sense of these arguments; {HINT}") from None
    return Arguments(command, {name: taken[name] for name in seen}, taken["FILE"])


def _check_taken(command: str, seen: Sequence[str]) -> None:
    """Raises UsageError for an option that the command would ignore."""
    taken = TAKEN.get(command)
    for option in seen:
        if taken is None and option in OF_OTHERS:
            whose = " and ".join(other for other in TAKEN if option in TAKEN[other])
            raise UsageError(f"{option}: only for tradebot {whose}; {HINT}")
        if taken is not None and option not in taken:
            more = "; show-config takes all options" if command == CHECK_CONFIG else ""
            raise UsageError(f"{option}: {command} only takes {', '.join(taken)}{more}; {HINT}")


def _scan(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of the options given, and the words that are none. Raises UsageError."""
    seen: list[str] = []
    words: list[str] = []
    waiting = iter(argv)
    for word in waiting:
        if not word.startswith("-") or word == "-":
            words.append(word)
            continue
        name, equals, value = word.partition("=")
        name = "--help" if name == "-h" else name
        if word == "--":
            raise UsageError(f"unexpected --; {HINT}")
        if name not in TAKES_VALUE:
            raise UsageError(f"unknown option {_plain(name)}{did_you_mean(name, TAKES_VALUE)}; {HINT}")
        if name in seen:
            raise UsageError(f"{name} is given twice; {HINT}")
        if not TAKES_VALUE[name] and equals:
            raise UsageError(f"{name} takes no value; {HINT}")
        if TAKES_VALUE[name]:
            if not equals:
                value = next(waiting, "")
            if not value or (not equals and value.startswith("--")):
                raise UsageError(f"{name} needs a value: {name}=...; {HINT}")
        seen.append(name)
    return seen, words


def _unknown_command(word: str) -> str:
    ending = word.lower().removesuffix(".gz").removesuffix(".zst")
    if ending.endswith(".toml"):
        hint = " (did you mean --config=FILE?)"
    elif ending.endswith((".jsonl", ".json")):
        hint = " (did you mean --ingest=replay --replay-file=FILE?)"
    else:
        hint = did_you_mean(word, (*COMMANDS, "--help", "--version"))
    return f"unknown command {_plain(word)}{hint}; {HINT}"


def _plain(word: str) -> str:
    return mask(word) if word and word.isprintable() and len(word) <= 60 else show(word)
