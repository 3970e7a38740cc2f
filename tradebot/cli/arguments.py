"""The command line of tradebot, taken apart."""

from __future__ import annotations

from collections.abc import Sequence

from tradebot.cli.program import Arguments
from tradebot.cli.registry import TRADEBOT
from tradebot.cli.words import take_apart

__all__ = ["Arguments", "parse"]


def parse(argv: Sequence[str]) -> Arguments:
    """Take the words after the program's name apart. Pure. Raises UsageError with one line and a hint."""
    return take_apart(TRADEBOT, argv)
