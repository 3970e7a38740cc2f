"""The commands of operations: what their options mean, and which module does the work (imported only then)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from msgspec.structs import replace

from tradebot import configfile
from tradebot.config import Config, db_path, expand_home
from tradebot.configkeys import InvalidValue, check_value, show
from tradebot.options import HINT, Arguments, UsageError

_UNITS_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DAY_S: Final = 86_400.0


class Found(NamedTuple):
    """What --config and --db come to: the configuration, its file where there is one, and the database."""

    config: Config
    config_path: Path | None
    db_path: Path


def run_operation(arguments: Arguments, environ: Mapping[str, str]) -> int:
    """Do one command and answer its exit code. Main thread; blocks as long as it takes. Raises TradebotError."""
    return _COMMANDS[arguments.command](_Given(arguments, environ))


class _Given:
    """The options of one command, each checked when it is asked for. All raise UsageError."""

    def __init__(self, arguments: Arguments, environ: Mapping[str, str]) -> None:
        self.arguments = arguments
        self.environ = environ

    def flag(self, option: str) -> bool:
        return option in self.arguments.given

    def text(self, option: str) -> str | None:
        value = self.arguments.given.get(option)
        return None if value is None else str(value)

    def path(self, option: str) -> Path | None:
        text = self.text(option)
        if text is None:
            return None
        try:
            return Path(expand_home(str(check_value("engine.replay_file", text))))
        except InvalidValue as error:
            raise UsageError(f"{option}: {error}; {HINT}") from None

    def seconds(self, option: str, default: float | None, low: float, high: float) -> float | None:
        text = self.text(option)
        if text is None:
            return default
        if not re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,6})?", text) or not low <= float(text) <= high:
            raise UsageError(f"{option}: must be seconds from {low:g} to {high:g}, not {show(text)}; {HINT}")
        return float(text)

    def age_ms(self, option: str) -> int:
        text = self.text(option)
        if text is None:
            raise UsageError(f"{self.arguments.command} needs {option}=AGE, such as {option}=30d; {HINT}")
        match = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
        if match is None or not int(match[1]):
            raise UsageError(f"{option}: must be an age such as 30d, 12h, 90m or 3600s, not {show(text)}; {HINT}")
        return int(match[1]) * _UNITS_MS[match[2]]

    def choice(self, option: str, default: str, choices: tuple[str, ...]) -> str:
        text = self.text(option)
        if text is None:
            return default
        if text.lower() not in choices:
            raise UsageError(f"{option}: must be {' or '.join(choices)}, not {show(text)}; {HINT}")
        return text.lower()

    def found(self) -> Found:
        """The configuration that `run` would read, and its database."""
        place = configfile.find(self.text("--config"), self.environ)
        config = Config() if place is None else configfile.load(place[0])
        named = self.path("--db")
        if named is not None:
            config = replace(config, app=replace(config.app, db_path=str(named)))
        return Found(config, None if place is None else place[0], db_path(config, self.environ))


_COMMANDS: Final[Mapping[str, Callable[[_Given], int]]] = {}
