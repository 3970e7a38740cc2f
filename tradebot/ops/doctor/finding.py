"""What a check of the doctor says."""

from __future__ import annotations

from typing import Literal, NamedTuple

from tradebot.ops.doctor.advice import Advice
from tradebot.output.redaction import clip, escape, mask

Level = Literal["ok", "warn", "FAIL"]

_CHECK_CHARS = 12
_TEXT_CHARS_MAX = 600


class Finding(NamedTuple):
    """One line of the list; `advice` says what to do, where something is to be done, and `name` names that."""

    check: str
    level: Level
    text: str
    advice: str = ""
    name: Advice | None = None

    def lines(self) -> str:
        """For people, ending in a newline; safe to show."""
        shown = f"{self.level:<5} {self.check:<{_CHECK_CHARS}} {_shown(self.text)}\n"
        if self.advice:
            shown += f"{'':<6}{'':<{_CHECK_CHARS}} -> {_shown(self.advice)}\n"
        return shown


def ok(check: str, text: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", text)


def warn(check: str, text: str, name: Advice, advice: str) -> Finding:
    """It works, but should be seen to."""
    return Finding(check, "warn", text, advice, name)


def fail(check: str, text: str, name: Advice, advice: str) -> Finding:
    """An engine cannot work like this, or results are in danger."""
    return Finding(check, "FAIL", text, advice, name)


def _shown(text: str) -> str:
    return clip(escape(mask(text.strip().replace("\n", "; "))), _TEXT_CHARS_MAX)
