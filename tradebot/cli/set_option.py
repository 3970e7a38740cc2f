"""`--set KEY=VALUE`: any configuration key on the command line, checked like those of the file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tradebot.cli.words import plain
from tradebot.config.validation import (
    FREE_SECTIONS,
    INSTRUMENT_KEYS,
    KEYS,
    SECTIONS,
    did_you_mean,
    free_name,
    free_path,
    near_key,
    show,
)


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
        free = free_path(key)
        if free is not None:
            key = free_name(*free)
        if not equals:
            hint = "" if free is not None or key in KEYS else near_key(key)
            problems.append(f"--set: {show(key)} has no value{hint}; write --set KEY=VALUE")
        elif free is None and key not in KEYS:
            problems.append(f"--set {plain(key)}: {_unknown(key)}")
        elif key in texts:
            problems.append(f"--set {key}: is given twice; give it once")
        else:
            texts[key] = text
    return SetKeys(texts, problems)


def _unknown(key: str) -> str:
    section, _, rest = key.partition(".")
    if section in FREE_SECTIONS:
        example = 'instruments."BTC/USDT".tick_size' if section == "instruments" else "rates.EUR"
        if not rest:
            return f"is a section; name one of its keys, for example {example}"
        near = did_you_mean(rest.rpartition(".")[2], INSTRUMENT_KEYS) if section == "instruments" else ""
        return f"unknown key{near}; write it as in {example}"
    if key in SECTIONS:
        keys = [name for name in KEYS if name.startswith(f"{key}.")]
        return f"is a section; name one of its keys, for example {keys[0]}"
    return f"unknown key{near_key(key)}; tradebot show-config lists all keys"
