"""Parses the command line of tradebot."""

from __future__ import annotations

from collections.abc import Sequence

from tradebot.cli.program import Arguments
from tradebot.cli.registry import TRADEBOT
from tradebot.cli.words import take_apart

__all__ = ["Arguments", "parse"]


def parse(argv: Sequence[str]) -> Arguments:
    """Parse the words after the program's name. Pure. Raises UsageError with a message of one line and a hint."""
    return take_apart(TRADEBOT, argv)
