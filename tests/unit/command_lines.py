"""Command lines as tests write them down."""

from __future__ import annotations

import re


def words_of(line: str) -> list[str]:
    """A command and its options, each of the form --NAME or --NAME=VALUE: a VALUE may hold spaces, as paths can."""
    return re.split(r" +(?=--)", line) if line else []
