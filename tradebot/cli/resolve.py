"""From arguments, environment and configuration file to the `Settings` of a run: who wins, and what fits together."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

from tradebot.cli.program import Arguments
from tradebot.cli.set_option import read_sets
from tradebot.config import toml_file
from tradebot.config.cross_checks import cross_problems
from tradebot.config.model import (
    COMMAND_LINE,
    STDIN,
    Config,
    LogFormat,
    LogLevel,
    RunOptions,
    Secrets,
    Settings,
    db_path,
    expand_home,
    on_command_line,
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
from tradebot.core.errors import ConfigError, UsageError
from tradebot.feeds.endpoint import find_live
from tradebot.feeds.exchanges import EXCHANGES
from tradebot.feeds.replay.pacing import parse_speed
from tradebot.strategy.registry import CHECKS

ENV_LOG_LEVEL: Final = "TRADEBOT_LOG_LEVEL"

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

# A URL comes from the configuration or from a file of its own: the one that the command line names replaces the other.
_REPLACES: Final[Mapping[str, str]] = {
    "engine.ws_url": "engine.ws_url_file",
    "engine.ws_url_file": "engine.ws_url",
    "notify.webhook_url": "notify.webhook_url_file",
    "notify.webhook_url_file": "notify.webhook_url",
}


def path_of(text: str) -> str:
    """A path of the command line, `~` resolved. Raises InvalidValue."""
    return expand_home(str(check_value("engine.replay_file", text)))


def _exchange(text: str) -> str:
    return check_choice(text, EXCHANGES)


def _megabytes(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,7}", text) or not 1 <= int(text) <= 1_000_000:
        raise InvalidValue(f"must be a whole number of megabytes from 1 to 1_000_000, not {show(text)}")
    return int(text)


def log_level_of(text: str) -> str:
    """A log level in upper case. Raises InvalidValue."""
    return check_choice(text, get_args(LogLevel))


def log_format_of(text: str) -> str:
    """A log format. Raises InvalidValue."""
    return check_choice(text, get_args(LogFormat))


# Options that only the command line has: the field of RunOptions, and what their text means.
_OPTIONS: Final[Mapping[str, tuple[str, Callable[[str], object]]]] = {
    "--replay-db": ("replay_db", path_of),
    "--replay-run": ("replay_run", check_name),
    "--exchange": ("exchange", _exchange),
    "--speed": ("speed", parse_speed),
    "--ws-sources": ("ws_sources", path_of),
    "--out": ("out", path_of),
    "--max-mb": ("max_mb", _megabytes),
    "--log-level": ("log_level", log_level_of),
    "--log-format": ("log_format", log_format_of),
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


class FoundConfig(NamedTuple):
    """The result of --config, --db and --set: the configuration, its file if there is one, and the database.

    `sources`: see Settings.
    """

    config: Config
    config_path: Path | None
    db_path: Path
    sources: Mapping[str, str]


def find_config(arguments: Arguments, environ: Mapping[str, str]) -> FoundConfig:
    """The configuration for a command that looks after an engine: without what only a run asks for. Blocks (file I/O).

    Raises UsageError when only the command line is wrong, else ConfigError.
    """
    place, content = _read_file(arguments, environ)
    database = {option: value for option, value in arguments.given.items() if option == "--db"}
    gathered = _Gathered(content, _words(database, arguments))
    gathered.take_arguments()
    config = gathered.checked()
    return FoundConfig(config, place and place[0], db_path(config, environ), gathered.sources)


def resolve(arguments: Arguments, environ: Mapping[str, str], with_secrets: bool = True) -> Settings:
    """The settings of a run: command line over environment over configuration file over defaults. Blocks (file I/O).

    Without `with_secrets` neither the files nor the environment's variables that hold secret URLs are read.
    Raises UsageError when only the command line (or environment) is wrong, else ConfigError; either names all there is.
    """
    found, content = _read_file(arguments, environ)
    words = _words(arguments.given, arguments)
    gathered = _Gathered(content, words)
    gathered.take_environment(environ)
    gathered.take_arguments()
    if arguments.command == "capture":
        gathered.listen()
    config = gathered.checked()
    problems = misplaced(words.written, config, gathered.sources, _hint(arguments))
    if problems:
        raise UsageError(listed(problems))
    gathered.sources["config file"] = "none" if found is None else f"{found[0]} ({found[1]})"
    options = RunOptions(**gathered.options)
    secrets = find_secrets(config, gathered.sources, environ) if with_secrets else Secrets()
    path = None if found is None else found[0]
    sourced = find_live(config, options, gathered.sources, path, environ, secrets.ws_url)
    return Settings(sourced.config, options, gathered.sources | sourced.sources, sourced.live, secrets)


def _read_file(arguments: Arguments, environ: Mapping[str, str]) -> tuple[tuple[Path, str] | None, FileContent]:
    named = arguments.given.get("--config")
    found = toml_file.find(None if named is None else str(named), environ)
    return found, FileContent({}, {}, [], []) if found is None else toml_file.read(found[0], CHECKS)


def _hint(arguments: Arguments) -> str:
    return f"try tradebot {arguments.command} --help"


class _Words(NamedTuple):
    """What the command line says. A key that --set names stands under its option, where it has one.

    `written`: how each option was written, "--sample-every" or "--set engine.sample_every". `keys`: all other keys of
    --set with their texts.
    """

    given: dict[str, str | bool]
    written: dict[str, str]
    keys: dict[str, str]
    problems: list[str]


def _words(given: Mapping[str, str | bool], arguments: Arguments) -> _Words:
    """`given`: the options that say configuration keys or options of a run."""
    keys, problems = read_sets(arguments.sets)
    words = _Words(dict(given), {option: option for option in given}, keys, problems)
    for option, key in _OVERRIDES.items():
        if key not in keys:
            continue
        if option in given:
            problems.append(f"{option} and --set {key}: give one of them; {_hint(arguments)}")
        else:
            words.given[option], words.written[option] = keys.pop(key), f"--set {key}"
    return words


class _Gathered:
    """Values as they come in, later ones winning over earlier ones, with their sources."""

    def __init__(self, content: FileContent, words: _Words) -> None:
        self.values: dict[str, object] = dict(content.values)
        self.options: dict[str, Any] = {}
        self.sources = dict.fromkeys((*KEYS, *RunOptions.__struct_fields__), "default") | content.places
        self.problems: list[str] = list(words.problems)
        self._file_problems = content.problems
        self._unsure = list(content.unsure)
        self._words = words
        for key in _PATH_KEYS:
            if key in self.values:
                self.values[key] = expand_home(str(self.values[key]))

    def checked(self) -> Config:
        """The configuration that the values make.

        Raises UsageError when only the command line (or environment) is wrong, else ConfigError, with all that is.
        """
        config = build(self.values)
        file_problems, usage_problems = list(self._file_problems), list(self.problems)
        for problem in cross_problems(config, self._unsure):
            keys = problem.key, problem.other
            given = next((key for key in keys if on_command_line(self.sources, key)), None)
            if given is None:
                place = next((self.sources[key] for key in keys if self.sources[key] != "default"), "default")
                file_problems.append(f"{place}: {problem.key}: {problem.text}")
            else:
                written = self.sources[given].removeprefix(COMMAND_LINE)
                usage_problems.append(f"{written}: {problem.key}: {problem.text}")
        if file_problems or usage_problems:
            error = ConfigError if file_problems else UsageError
            raise error(listed(file_problems + usage_problems))
        return config

    def take_environment(self, environ: Mapping[str, str]) -> None:
        text = environ.get(ENV_LOG_LEVEL)
        if text:  # empty counts as not set
            place = f"environment {ENV_LOG_LEVEL}"
            self._option("log_level", log_level_of, text, place, place)

    def take_arguments(self) -> None:
        given = self._words.given
        for option, value in given.items():
            written = self._words.written[option]
            source = f"{COMMAND_LINE}{written}"
            if option in _FLAGS:
                self.options[_FLAGS[option]] = True
                self.sources[_FLAGS[option]] = source
            elif option in _OPTIONS:
                field, meaning = _OPTIONS[option]
                self._option(field, meaning, str(value), written, source)
            elif option in _OVERRIDES:
                self._override(_OVERRIDES[option], str(value), written)
        for key, text in self._words.keys.items():
            self._override(key, text, f"--set {key}")
        if "--replay-db" in given and "--replay-file" not in given:
            # The database asked for now replaces the file that a configuration names.
            self.values.pop("engine.replay_file", None)
            self.sources["engine.replay_file"] = f"{COMMAND_LINE}--replay-db"

    def listen(self) -> None:
        """A capture needs no --ingest: it records an exchange, unless the configuration names the other live feed."""
        given = self._words.given
        told = self.values.get("engine.ingest_mode") == "mockws" and not {"--exchange", "--ws-source"} & given.keys()
        if "--ingest" not in given and not told:
            self.values["engine.ingest_mode"] = "realws"
            self.sources["engine.ingest_mode"] = f"{COMMAND_LINE}capture"
        mode = self.values.get("engine.ingest_mode")
        if mode in ("synthetic", "replay"):
            written = self._words.written.get("--ingest", "--ingest")
            self.problems.append(f"{written}: only a live feed can be captured (realws or mockws), not {mode}")

    def _option(self, field: str, meaning: Callable[[str], object], text: str, name: str, source: str) -> None:
        try:
            self.options[field] = meaning(text)
            self.sources[field] = source
        except InvalidValue as error:
            self.problems.append(f"{name}: {error}")

    def _override(self, key: str, text: str, written: str) -> None:
        source, replaced = f"{COMMAND_LINE}{written}", _REPLACES.get(key)
        if replaced is not None and not on_command_line(self.sources, replaced):
            # The other way of naming the same URL, where only a configuration file names it.
            self.values.pop(replaced, None)
            self.sources[replaced] = source
        try:
            value = value_of_text(key, text, CHECKS)
            self.values[key] = expand_home(str(value)) if key in _PATH_KEYS else value
            self.sources[key] = source
        except InvalidValue as error:
            self.problems.append(f"{written}: {error}")
            self._unsure.append(key)


def misplaced(written: Mapping[str, str], config: Config, sources: Mapping[str, str], hint: str) -> list[str]:
    """Options of the command line that say nothing for this feed, or contradict each other, each with what to do.

    `written`: how each option was written.
    """
    feed = config.engine.ingest_mode
    told = f"the feed is {feed} ({sources['engine.ingest_mode']})"
    problems = [
        f"{written[option]}: only for the feed {' or '.join(feeds)}, but {told}"
        + (f"; add --ingest={feeds[0]}" if "--ingest" not in written and len(feeds) == 1 else "")
        for option, feeds in _ONLY_WITH.items()
        if option in written and feed not in feeds
    ]
    if "--exchange" in written and "--ws-source" in written:
        problems.append(f"--exchange and {written['--ws-source']}: give one of them; {hint}")
    elif "--ws-sources" in written and config.engine.ws_source is None:
        problems.append(f"--ws-sources: has no effect without a source; name one with --ws-source; {hint}")
    return problems if feed != "replay" else [*problems, *_misplaced_in_replay(written, config, sources, hint)]


def _misplaced_in_replay(
    written: Mapping[str, str], config: Config, sources: Mapping[str, str], hint: str
) -> list[str]:
    file = config.engine.replay_file
    if "--replay-file" in written and "--replay-db" in written:
        return [f"{written['--replay-file']} and --replay-db: give one of them; {hint}"]
    problems = []
    if "--replay-run" in written and file is not None:
        source = sources["engine.replay_file"]
        problems.append(
            f"--replay-run: chooses a run of a database, but a file is replayed ({source}); use --replay-db"
        )
    recorded = [written[option] for option in ("--exchange", "--ws-source") if option in written]
    if recorded and file is None:
        problems.append(f"{recorded[0]}: says how recorded frames are read; name their file with --replay-file")
    if "--run-id" in written and file != STDIN:
        problems.append(
            "--run-id: only for a replay from standard input (--replay-file=-); other replays derive theirs"
        )
    if "--resume" in written and file is None and "--replay-db" not in written:
        problems.append("--resume: nothing is written when a database replays itself, so there is nothing to resume")
    return problems
