"""The options of one command as values: each is checked when it is asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tradebot.cli.program import Arguments
from tradebot.cli.resolve import FoundConfig, find_config
from tradebot.config.model import expand_home
from tradebot.config.validation import InvalidValue, check_value, show
from tradebot.core.errors import ConfigError, UsageError

_UNITS_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
DAY_S: Final = 86_400.0


class Given:
    """The options of one command, each checked when it is asked for. All raise UsageError."""

    def __init__(self, arguments: Arguments, environ: Mapping[str, str]) -> None:
        self.arguments = arguments
        self.environ = environ

    @property
    def hint(self) -> str:
        """Ends the message about an option."""
        return f"try tradebot {self.arguments.command} --help"

    def flag(self, option: str) -> bool:
        """Whether the option is given."""
        return option in self.arguments.given

    def text(self, option: str) -> str | None:
        """Its value as written; None when it is not given."""
        value = self.arguments.given.get(option)
        return None if value is None else str(value)

    def path(self, option: str) -> Path | None:
        """Its value as a path; None when it is not given."""
        text = self.text(option)
        if text is None:
            return None
        try:
            return Path(expand_home(str(check_value("engine.replay_file", text))))
        except InvalidValue as error:
            raise UsageError(f"{option}: {error}; {self.hint}") from None

    def seconds(self, option: str, default: float, low: float, high: float) -> float:
        """Its value as seconds between two bounds."""
        text = self.text(option)
        if text is None:
            return default
        if not re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,6})?", text) or not low <= float(text) <= high:
            raise UsageError(f"{option}: must be seconds from {low:g} to {high:.0f}, not {show(text)}; {self.hint}")
        return float(text)

    def age_ms(self, option: str) -> int:
        """Its value as an age in ms."""
        text = self.text(option) or ""
        match = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
        if match is None or not int(match[1]):
            raise UsageError(f"{option}: must be an age such as 30d, 12h, 90m or 3600s, not {show(text)}; {self.hint}")
        return int(match[1]) * _UNITS_MS[match[2]]

    def choice(self, option: str, default: str, choices: tuple[str, ...]) -> str:
        """Its value as one of the choices, in lower case."""
        text = self.text(option)
        if text is None:
            return default
        if text.lower() not in choices:
            raise UsageError(f"{option}: must be {' or '.join(choices)}, not {show(text)}; {self.hint}")
        return text.lower()

    def found(self) -> FoundConfig:
        """The configuration that `run` would read, with --db and --set in it, and its database."""
        # Misuse (12) where it is not usable, and not the answer "no" (1) that a script would take for a sick engine.
        try:
            return find_config(self.arguments, self.environ)
        except ConfigError as error:
            raise UsageError(str(error)) from None
