"""Answers of commands on standard output."""

from __future__ import annotations

import sys

from tradebot.core.errors import TradebotError
from tradebot.output.json_answer import json_answer
from tradebot.output.streams import GuardedStream


def answers() -> GuardedStream:
    """Standard output for a command that writes several times."""
    return GuardedStream(sys.stdout)


def answer(text: str) -> int:
    """Write `text` to standard output, even if its reader has gone; always 0. Raises TradebotError on a full disk."""
    if sys.stdout is None:
        return 0
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        pass  # `tradebot show-config | head`: the reader has enough
    except OSError as error:
        raise TradebotError(f"cannot write to standard output: {error.strerror}") from None
    return 0


def answer_json(value: object) -> int:
    """Write `value` as one JSON object on one line; always 0. Raises TradebotError on a full disk."""
    return answer(json_answer(value))
