"""Parses the words of a command line with docopt, using the usage text of the command.

docopt answers a mistake with the whole usage text, takes shortened options (whose meaning changes when an option is
added) and lets an option swallow the next one as its value. So the words are looked at first: every mistake gets one
line that says what is wrong, and options must be spelled out. The rest is left to docopt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import docopt

from tradebot.cli.program import HELP, VERSION, Arguments, Command, Program
from tradebot.config.validation import did_you_mean, show
from tradebot.core.errors import UsageError
from tradebot.output.redaction import mask

_SHORT: Final = {"-h": "--help", "-V": "--version"}
_OWNERS_MAX: Final = 3


def take_apart(program: Program, argv: Sequence[str]) -> Arguments:
    """The arguments in the words after the program's name. Pure. Raises UsageError: one line with a hint."""
    named = _named(program, argv)
    hint = f"try {program.called(named)} --help"
    seen, words = _scan(program, named, argv, hint)
    if "--help" in seen:
        return Arguments(HELP, {}, words[0] if words and words[0] in program.names else None)
    if "--version" in seen:
        return Arguments(VERSION, {})
    if program.names and words and words[0] not in program.names:
        raise UsageError(f"{_unknown_command(program, words[0])}; try {program.name} --help")
    command = program.command(words[0] if words and program.names else program.default)
    for option in seen:
        if option not in command.options:
            raise UsageError(f"{_not_taken(program, command, option)}; {hint}")
    _check_words(program, command, words[1:] if program.names else words, hint)
    taken = _docopt(program, command, argv, seen, hint)
    given = {option: taken[option] for option in dict.fromkeys(seen) if option not in command.repeatable}
    return Arguments(command.name, given, taken.get("FILE"), tuple(taken.get("--set", ())))


def _named(program: Program, argv: Sequence[str]) -> str:
    """The command that the words most likely mean: its options apply, and the hint names its help."""
    return next((word for word in argv if word in program.names), program.default)


def _check_words(program: Program, command: Command, words: Sequence[str], hint: str) -> None:
    room = 1 if command.takes_file else 0
    if len(words) > room:
        raise UsageError(f"unexpected argument {show(words[room])}{program.explain(words[room])}; {hint}")


def _docopt(program: Program, command: Command, argv: Sequence[str], seen: Sequence[str], hint: str) -> dict[str, Any]:
    try:
        return dict(docopt.docopt(command.usage, list(argv), help=False))
    except docopt.DocoptExit:
        called = program.called(command.name)
        missing = [form for form in command.required if form == "FILE" or form.partition("=")[0] not in seen]
        if missing:
            raise UsageError(f"{command.name} needs {' and '.join(missing)}; {hint}") from None
        raise UsageError(f"these arguments do not fit together, {called} takes: {command.usage_line}; {hint}") from None


def _scan(program: Program, command: str, argv: Sequence[str], hint: str) -> tuple[list[str], list[str]]:
    """The names of the given options, and the other words. Raises UsageError."""
    takes_value = program.takes_value()
    repeatable = {option for one in program.commands for option in one.repeatable}
    seen: list[str] = []
    words: list[str] = []
    waiting = iter(argv)
    for word in waiting:
        if not word.startswith("-") or word == "-":
            words.append(word)
            continue
        name, equals, value = word.partition("=")
        name = _SHORT.get(name, name)
        if word == "--":
            raise UsageError(f"unexpected --; {hint}")
        if name not in takes_value:
            raise UsageError(f"unknown option {plain(name)}{_near_option(program, command, name)}; {hint}")
        if name in seen and name not in repeatable:
            raise UsageError(f"{name} is given twice; {hint}")
        if not takes_value[name] and equals:
            raise UsageError(f"{name} takes no value; {hint}")
        if takes_value[name]:
            if not equals:
                value = next(waiting, "")
            if not value or (not equals and value.startswith("--")):
                raise UsageError(f"{name} needs a value: {name}=...; {hint}")
        seen.append(name)
    return seen, words


def _near_option(program: Program, command: str, name: str) -> str:
    """A similar option of the command; otherwise one of another command, with the name of that command."""
    own = (*program.command(command).options, "--version")
    begun = [option for option in own if option.startswith(name)] if len(name) > 2 else []
    near = f" (did you mean {begun[0]}?)" if len(begun) == 1 else did_you_mean(name, own)
    if near:
        return near
    for other in program.commands:
        near = did_you_mean(name, other.options)
        if near:
            return f"{near[:-2]} of {program.called(other.name)}?)"
    return ""


def _not_taken(program: Program, command: Command, option: str) -> str:
    owners = [program.called(other.name) for other in program.commands if option in other.options]
    if len(owners) > _OWNERS_MAX:
        return f"{option}: {command.name} takes no such option"
    whose = " and ".join([", ".join(owners[:-1]), owners[-1]] if len(owners) > 1 else owners)
    return f"{option}: {command.name} takes no such option; it belongs to {whose}"


def _unknown_command(program: Program, word: str) -> str:
    hint = program.explain(word) or did_you_mean(word, (*program.names, "--help", "--version"))
    return f"unknown command {plain(word)}{hint}"


def plain(word: str) -> str:
    """A word as typed if it is short and printable, otherwise quoted and escaped; credentials are masked."""
    return mask(word) if word and word.isprintable() and len(word) <= 60 else show(word)
