"""The options of one command as values; each is checked when it is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tradebot.cli.program import Arguments
from tradebot.cli.resolve import ENV_LOG_LEVEL, FoundConfig, find_config, log_level_of, path_of
from tradebot.config.validation import InvalidValue, show
from tradebot.core.errors import ConfigError, UsageError

_UNITS_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
DAY_S: Final = 86_400.0


class Given:
    """The options of one command; each is checked when it is read. All methods raise UsageError."""

    def __init__(self, arguments: Arguments, environ: Mapping[str, str]) -> None:
        self.arguments = arguments
        self.environ = environ

    @property
    def hint(self) -> str:
        """The end of a message about an option."""
        return f"try tradebot {self.arguments.command} --help"

    def flag(self, option: str) -> bool:
        """Whether the option is given."""
        return option in self.arguments.given

    def text(self, option: str) -> str | None:
        """The value as written; None if the option is not given."""
        value = self.arguments.given.get(option)
        return None if value is None else str(value)

    def line(self, option: str, chars_max: int) -> str:
        """Its value as one line of printable text, trimmed; "" when it is not given."""
        text = (self.text(option) or "").strip()
        if len(text) > chars_max:
            raise UsageError(f"{option}: must have at most {chars_max} characters, not {len(text)}; {self.hint}")
        if not text.isprintable():
            raise UsageError(f"{option}: must be one line without control characters: {show(text)}; {self.hint}")
        return text

    def path(self, option: str) -> Path | None:
        """The value as a path; None if the option is not given."""
        text = self.text(option)
        if text is None:
            return None
        try:
            return Path(path_of(text))
        except InvalidValue as error:
            raise UsageError(f"{option}: {error}; {self.hint}") from None

    def seconds(self, option: str, default: float, low: float, high: float) -> float:
        """The value as seconds within bounds."""
        text = self.text(option)
        if text is None:
            return default
        if not re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,6})?", text) or not low <= float(text) <= high:
            raise UsageError(f"{option}: must be seconds from {low:g} to {high:.0f}, not {show(text)}; {self.hint}")
        return float(text)

    def age_ms(self, option: str) -> int:
        """The value as an age in ms."""
        text = self.text(option) or ""
        match = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
        if match is None or not int(match[1]):
            raise UsageError(f"{option}: must be an age such as 30d, 12h, 90m or 3600s, not {show(text)}; {self.hint}")
        return int(match[1]) * _UNITS_MS[match[2]]

    def choice(self, option: str, default: str, choices: tuple[str, ...]) -> str:
        """The value as one of the choices, in lower case."""
        text = self.text(option)
        if text is None:
            return default
        if text.lower() not in choices:
            raise UsageError(f"{option}: must be {' or '.join(choices)}, not {show(text)}; {self.hint}")
        return text.lower()

    def log_level(self) -> str:
        """The level of --log-level, else of $TRADEBOT_LOG_LEVEL, else INFO."""
        text, variable = self.text("--log-level"), self.environ.get(ENV_LOG_LEVEL)
        if text is None and not variable:
            return "INFO"
        try:
            return log_level_of(text or variable or "")
        except InvalidValue as error:
            where = f"environment {ENV_LOG_LEVEL}" if text is None else "--log-level"
            raise UsageError(f"{where}: {error}; {self.hint}") from None

    def found(self) -> FoundConfig:
        """The configuration that `run` would read, with --db and --set in it, and its database."""
        # Misuse (12) where it is not usable, and not the answer "no" (1) that a script would take for a sick engine.
        try:
            return find_config(self.arguments, self.environ)
        except ConfigError as error:
            raise UsageError(str(error)) from None
