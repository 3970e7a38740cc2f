"""`--set KEY=VALUE`: any configuration key on the command line, checked like those of the file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tradebot.cli.words import plain
from tradebot.config.validation import KEYS, SECTIONS, did_you_mean, show


class SetKeys(NamedTuple):
    """The --set options: an unchecked text for each key, and the errors in the options."""

    texts: dict[str, str]
    problems: list[str]


def read_sets(sets: Sequence[str]) -> SetKeys:
    """The keys and texts of KEY=VALUE words. Pure. Problems never quote a value, because it may be a secret."""
    texts: dict[str, str] = {}
    problems = []
    for word in sets:
        key, equals, text = word.partition("=")
        if not equals:
            problems.append(f"--set: {show(key)} has no value{_meant(key)}; write --set KEY=VALUE")
        elif key not in KEYS:
            problems.append(f"--set {plain(key)}: {_unknown(key)}")
        elif key in texts:
            problems.append(f"--set {key}: is given twice; give it once")
        else:
            texts[key] = text
    return SetKeys(texts, problems)


def _unknown(key: str) -> str:
    if key in SECTIONS:
        keys = [name for name in KEYS if name.startswith(f"{key}.")]
        return f"is a section; name one of its keys, for example {keys[0]}"
    return f"unknown key{_meant(key)}; tradebot show-config lists all keys"


def _meant(key: str) -> str:
    """A hint with a similar key, in particular for a key named without its section."""
    if key in KEYS:
        return ""
    leaves = [name for name in KEYS if name.rpartition(".")[2] == key.rpartition(".")[2]]
    return f" (did you mean {leaves[0]}?)" if len(leaves) == 1 else did_you_mean(key, KEYS)
