"""From arguments, environment and configuration file to the `Settings` of a run: who wins, and what fits together."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, get_args

from tradebot.cli.arguments import Arguments
from tradebot.cli.usage import CAPTURE
from tradebot.config import toml_file as configfile
from tradebot.config.model import (
    STDIN,
    Config,
    LogFormat,
    LogLevel,
    RunOptions,
    Secrets,
    Settings,
    expand_home,
)
from tradebot.config.secret_urls import find_secrets
from tradebot.config.toml_file import FileContent
from tradebot.config.validation import (
    KEYS,
    InvalidValue,
    build,
    check_choice,
    check_name,
    check_value,
    listed,
    show,
    value_of_text,
)
from tradebot.core.errors import HINT, ConfigError, UsageError
from tradebot.feeds.endpoint import find_live
from tradebot.feeds.exchanges import EXCHANGES
from tradebot.strategy.registry import CHECKS

ENV_LOG_LEVEL: Final = "TRADEBOT_LOG_LEVEL"
MAX_SPEED: Final = 1_000_000.0
MIN_SPEED: Final = 0.001

# Options that are another way of saying a configuration key.
_OVERRIDES: Final[Mapping[str, str]] = {
    "--mode": "mode",
    "--ingest": "engine.ingest_mode",
    "--db": "app.db_path",
    "--symbol": "app.symbol",
    "--strategy": "strategy.name",
    "--sample-every": "engine.sample_every",
    "--seconds": "engine.run_seconds",
    "--replay-file": "engine.replay_file",
    "--history": "feed.history",
    "--ws-url": "engine.ws_url",
    "--ws-source": "engine.ws_source",
}

_PATH_KEYS: Final = ("app.db_path", "engine.replay_file")


def _path(text: str) -> str:
    return expand_home(str(check_value("engine.replay_file", text)))


def _exchange(text: str) -> str:
    return check_choice(text, EXCHANGES)


def _megabytes(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,7}", text) or not 1 <= int(text) <= 1_000_000:
        raise InvalidValue(f"must be a whole number of megabytes from 1 to 1_000_000, not {show(text)}")
    return int(text)


def _speed(text: str) -> float | None:
    word = text.lower()
    if word in ("max", "realtime"):
        return None if word == "max" else 1.0
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)x", word)
    if match is None:
        raise InvalidValue(f"must be max, realtime or a multiple such as 10x, not {show(text)}")
    if not MIN_SPEED <= float(match[1]) <= MAX_SPEED:
        raise InvalidValue(f"must be between {MIN_SPEED:g}x and {MAX_SPEED:.0f}x, not {show(text)}")
    return float(match[1])


def _log_level(text: str) -> str:
    return check_choice(text, get_args(LogLevel))


def _log_format(text: str) -> str:
    return check_choice(text, get_args(LogFormat))


# Options that only the command line has: the field of RunOptions, and what their text means.
_OPTIONS: Final[Mapping[str, tuple[str, Callable[[str], object]]]] = {
    "--replay-db": ("replay_db", _path),
    "--replay-run": ("replay_run", check_name),
    "--exchange": ("exchange", _exchange),
    "--speed": ("speed", _speed),
    "--ws-sources": ("ws_sources", _path),
    "--out": ("out", _path),
    "--max-mb": ("max_mb", _megabytes),
    "--log-level": ("log_level", _log_level),
    "--log-format": ("log_format", _log_format),
    "--run-id": ("run_id", check_name),
}
_FLAGS: Final[Mapping[str, str]] = {"--resume": "resume", "--strict": "strict"}

# Options that mean nothing with another feed, and would otherwise be ignored in silence.
_ONLY_WITH: Final[Mapping[str, tuple[str, ...]]] = {
    "--replay-file": ("replay",),
    "--replay-db": ("replay",),
    "--replay-run": ("replay",),
    "--resume": ("replay",),
    "--strict": ("replay",),
    "--speed": ("replay",),
    "--run-id": ("replay",),
    "--history": ("replay", "mockws", "realws"),
    "--symbol": ("synthetic", "realws"),
    "--exchange": ("realws", "replay"),
    "--ws-source": ("realws", "replay"),
    "--ws-sources": ("realws", "replay"),
    "--ws-url": ("mockws", "realws"),
}


def resolve(arguments: Arguments, environ: Mapping[str, str], with_secrets: bool = True) -> Settings:
    """The settings of a run: command line over environment over configuration file over defaults. Blocks (file I/O).

    Without `with_secrets` neither the files nor the environment's variables that hold secret URLs are read.
    Raises UsageError when only the command line (or environment) is wrong, else ConfigError; either names all there is.
    """
    explicit = arguments.given.get("--config")
    found = configfile.find(None if explicit is None else str(explicit), environ)
    content = FileContent({}, {}, [], []) if found is None else configfile.read(found[0], CHECKS)
    gathered = _Gathered(content)
    gathered.take_environment(environ)
    gathered.take_arguments(arguments.given)
    if arguments.command == CAPTURE:
        gathered.listen(arguments.given)
    config = build(gathered.values)
    file_problems = content.problems + configfile.between_keys(config, content.places, content.unsure)
    usage_problems = gathered.problems
    if not file_problems and not usage_problems:
        usage_problems = misplaced(arguments.given, config, gathered.sources)
    if file_problems or usage_problems:
        error = ConfigError if file_problems else UsageError
        raise error(listed(file_problems + usage_problems))
    gathered.sources["config file"] = "none" if found is None else f"{found[0]} ({found[1]})"
    options = RunOptions(**gathered.options)
    secrets = find_secrets(config, gathered.sources, environ) if with_secrets else Secrets()
    path = None if found is None else found[0]
    sourced = find_live(config, options, gathered.sources, path, environ, secrets.ws_url)
    return Settings(sourced.config, options, gathered.sources | sourced.sources, sourced.live, secrets)


class _Gathered:
    """Values as they come in, later ones winning over earlier ones, with their sources."""

    def __init__(self, content: FileContent) -> None:
        self.values: dict[str, object] = dict(content.values)
        self.options: dict[str, Any] = {}
        self.sources = dict.fromkeys((*KEYS, *RunOptions.__struct_fields__), "default") | content.places
        self.problems: list[str] = []
        for key in _PATH_KEYS:
            if key in self.values:
                self.values[key] = expand_home(str(self.values[key]))

    def take_environment(self, environ: Mapping[str, str]) -> None:
        text = environ.get(ENV_LOG_LEVEL)
        if text:  # empty counts as not set
            self._option("log_level", _log_level, text, f"environment {ENV_LOG_LEVEL}", f"environment {ENV_LOG_LEVEL}")

    def take_arguments(self, given: Mapping[str, str | bool]) -> None:
        for option, value in given.items():
            source = f"command line {option}"
            if option in _FLAGS:
                self.options[_FLAGS[option]] = True
                self.sources[_FLAGS[option]] = source
            elif option in _OPTIONS:
                field, meaning = _OPTIONS[option]
                self._option(field, meaning, str(value), option, source)
            elif option in _OVERRIDES:
                self._override(_OVERRIDES[option], str(value), option, source)
        if "--replay-db" in given and "--replay-file" not in given:
            # The database asked for now replaces the file that a configuration names.
            self.values.pop("engine.replay_file", None)
            self.sources["engine.replay_file"] = "command line --replay-db"

    def listen(self, given: Mapping[str, str | bool]) -> None:
        """A capture needs no --ingest: it records an exchange, unless the configuration names the other live feed."""
        told = self.values.get("engine.ingest_mode") == "mockws" and not {"--exchange", "--ws-source"} & given.keys()
        if "--ingest" not in given and not told:
            self.values["engine.ingest_mode"] = "realws"
            self.sources["engine.ingest_mode"] = "command line capture"
        mode = self.values.get("engine.ingest_mode")
        if mode in ("synthetic", "replay"):
            self.problems.append(f"--ingest: only a live feed can be captured (realws or mockws), not {mode}")

    def _option(self, field: str, meaning: Callable[[str], object], text: str, name: str, source: str) -> None:
        try:
            self.options[field] = meaning(text)
            self.sources[field] = source
        except InvalidValue as error:
            self.problems.append(f"{name}: {error}")

    def _override(self, key: str, text: str, option: str, source: str) -> None:
        if key == "engine.ws_url":  # it replaces the file that a configuration names
            self.values.pop("engine.ws_url_file", None)
            self.sources["engine.ws_url_file"] = "command line --ws-url"
        try:
            value = value_of_text(key, text, CHECKS)
            self.values[key] = expand_home(str(value)) if key in _PATH_KEYS else value
            self.sources[key] = source
        except InvalidValue as error:
            self.problems.append(f"{option}: {error}")


def misplaced(given: Mapping[str, str | bool], config: Config, sources: Mapping[str, str]) -> list[str]:
    """Options of the command line that say nothing for this feed, or contradict each other, each with what to do."""
    feed = config.engine.ingest_mode
    told = f"the feed is {feed} ({sources['engine.ingest_mode']})"
    problems = [
        f"{option}: only for the feed {' or '.join(feeds)}, but {told}"
        + (f"; add --ingest={feeds[0]}" if "--ingest" not in given and len(feeds) == 1 else "")
        for option, feeds in _ONLY_WITH.items()
        if option in given and feed not in feeds
    ]
    if "--exchange" in given and "--ws-source" in given:
        problems.append(f"--exchange and --ws-source: give one of them; {HINT}")
    elif "--ws-sources" in given and config.engine.ws_source is None:
        problems.append(f"--ws-sources: says where a source is looked up; name the source with --ws-source; {HINT}")
    if feed != "replay":
        return problems
    file = config.engine.replay_file
    if "--replay-file" in given and "--replay-db" in given:
        return [*problems, f"--replay-file and --replay-db: give one of them; {HINT}"]
    if "--replay-run" in given and file is not None:
        source = sources["engine.replay_file"]
        problems.append(
            f"--replay-run: chooses a run of a database, but a file is replayed ({source}); use --replay-db"
        )
    recorded = [option for option in ("--exchange", "--ws-source") if option in given]
    if recorded and file is None:
        problems.append(f"{recorded[0]}: says how recorded frames are read; name their file with --replay-file")
    if "--run-id" in given and file != STDIN:
        problems.append(
            "--run-id: only for a replay from standard input (--replay-file=-); others have ids of their own"
        )
    if "--resume" in given and file is None and "--replay-db" not in given:
        problems.append("--resume: nothing is written when a database replays itself, so there is nothing to resume")
    return problems
