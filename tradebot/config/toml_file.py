"""The configuration file: TOML read with tomllib, every mistake in it reported at once as `file:line: key: what`.

tomllib gives no positions, so `key_lines` looks for them in the text once tomllib has accepted it; where it is not
sure, the line of the section has to do. `read_document` does this for any TOML file of the program.
"""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from tradebot.config.cross_checks import cross_problems
from tradebot.config.model import COMMAND_LINE, Config, expand_home, xdg_directory
from tradebot.config.validation import (
    FREE_SECTIONS,
    INSTRUMENT_KEYS,
    KEYS,
    SECTIONS,
    Checks,
    InvalidValue,
    build,
    check_value,
    did_you_mean,
    free_name,
    free_path,
    listed,
    near_key,
    show,
)
from tradebot.core.errors import ConfigError, unreadable

MAX_FILE_BYTES: Final = 65_536
ENV_CONFIG: Final = "TRADEBOT_CONFIG"

KeyPath = tuple[str, ...]


class FileContent(NamedTuple):
    """What a configuration file says: checked values and "FILE:LINE" by dotted key, and all that is wrong.

    `unsure` are the keys it has whose values are wrong and therefore not among the values.
    """

    values: dict[str, object]
    places: dict[str, str]
    problems: list[str]
    unsure: list[str]


class Document(NamedTuple):
    """A TOML file as parsed: its name as shown in messages, its content, and the lines of its sections and keys."""

    name: str
    content: dict[str, Any]
    lines: Mapping[KeyPath, int]

    def place(self, path: KeyPath) -> str:
        """ "FILE:LINE" of a key, or of its section where the key's own line is not known."""
        return f"{self.name}:{self.lines.get(path) or self.lines.get(path[:2]) or self.lines.get(path[:1]) or 1}"

    def problem(self, path: KeyPath, text: str) -> str:
        """ "FILE:LINE: KEY: text"."""
        shown = ".".join(part if re.fullmatch(r"[\w-]+", part) else show(part) for part in path)
        return f"{self.place(path)}: {shown}: {text}"


def find(explicit: str | None, environ: Mapping[str, str]) -> tuple[Path, str] | None:
    """The configuration file to read and who named it, or None when nobody did and the default one does not exist.

    Looks at the command line's `explicit`, then $TRADEBOT_CONFIG (empty counts as not set), then the user's
    configuration directory. Touches the file system only for the last.
    """
    if explicit is not None:
        return Path(expand_home(explicit)), f"{COMMAND_LINE}--config"
    named = environ.get(ENV_CONFIG)
    if named:
        return Path(expand_home(named)), f"environment {ENV_CONFIG}"
    try:
        path = default_path(environ)
    except ConfigError:
        return None  # no home directory, no file in it
    return (path, "default place") if may_exist(path) else None


def may_exist(path: Path) -> bool:
    """Whether a file is there, or cannot be looked for: reading it will then say what is wrong. Blocks (I/O)."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):  # ValueError: a NUL in the name
        pass
    return True


def default_path(environ: Mapping[str, str]) -> Path:
    """Where the configuration file is looked for when none is named. Raises ConfigError when there is no home."""
    return xdg_directory(environ, "XDG_CONFIG_HOME", ".config") / "tradebot" / "tradebot.toml"


def load(path: Path, checks: Checks) -> Config:
    """The configuration that the file at `path` describes. Raises ConfigError with all that is wrong. Blocks (I/O)."""
    content = read(path, checks)
    config = build(content.values)
    problems = content.problems + between_keys(config, content.places, content.unsure)
    if problems:
        raise ConfigError(listed(problems))
    return config


def between_keys(config: Config, places: Mapping[str, str], unsure: Iterable[str]) -> list[str]:
    """What is wrong between keys, each with its place; without the rules that need a key of `unsure`."""
    return [
        f"{places.get(problem.key) or places.get(problem.other) or 'default'}: {problem.key}: {problem.text}"
        for problem in cross_problems(config, unsure)
    ]


def read(path: Path, checks: Checks) -> FileContent:
    """Read and check the file at `path`; `checks` as for `check_value`. Blocks (I/O).

    Raises ConfigError when it cannot be read, is not UTF-8 or not TOML; all other mistakes are in `problems`.
    """
    walk = _Walk(read_document(path, "configuration file", MAX_FILE_BYTES), checks)
    walk.top()
    return FileContent(walk.values, walk.places, walk.problems, walk.unsure)


def read_document(path: Path, kind: str, bytes_max: int) -> Document:
    """Parse the TOML file at `path`, which messages call `kind`. Blocks (I/O).

    Raises ConfigError when it cannot be read, is larger than `bytes_max`, is not UTF-8 or not TOML.
    """
    return parse_document(_name(path), read_bytes(path, kind, bytes_max))


def parse_document(name: str, raw: bytes) -> Document:
    """Parse the bytes of a TOML file that messages call `name`. Pure. Raises ConfigError: not UTF-8 or not TOML."""
    try:
        text = raw.decode("utf-8-sig")  # editors on Windows put a byte order mark in front
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{name}:{line}: not UTF-8 text (byte 0x{raw[error.start]:02x})") from None
    try:
        content = tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{name}: not valid TOML: nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, and what tomllib lets through, such as a number of 5000 digits
        raise ConfigError(_syntax_message(name, text, error)) from None
    return Document(name, content, key_lines(text))


def read_bytes(path: Path, kind: str, bytes_max: int) -> bytes:
    """The bytes of the file at `path`, which messages call `kind`. Blocks (I/O). Raises ConfigError."""
    try:
        with path.open("rb") as file:
            raw = file.read(bytes_max + 1)
    except FileNotFoundError:
        raise ConfigError(f"{_name(path)}: no such {kind}") from None
    except IsADirectoryError:
        raise ConfigError(f"{_name(path)}: is a directory, not a {kind}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise unreadable(error, f"{_name(path)}: cannot read the {kind}: {reason}") from None
    if len(raw) > bytes_max:
        raise ConfigError(f"{_name(path)}: larger than {bytes_max:_} bytes: too large for a {kind}")
    return raw


def _name(path: Path) -> str:
    return str(path) if str(path).isprintable() else show(str(path))


def _syntax_message(name: str, text: str, error: ValueError) -> str:
    if not isinstance(error, tomllib.TOMLDecodeError):
        return f"{name}: not valid TOML: {error}"
    message = str(error).replace("Invalid value", "Invalid value; text needs quotes")
    place = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
    if place is None:
        return f"{name}: not valid TOML: {message}"
    line = place[1] or max(1, len(text.splitlines()))
    column = f" (column {place[2]})" if place[2] else " (at the end of the file)"
    return f"{name}:{line}: not valid TOML: {message[: place.start()]}{column}"


class _Walk:
    """Goes through a parsed document, collecting values, their places and everything that is wrong."""

    def __init__(self, document: Document, checks: Checks) -> None:
        self._document = document
        self._checks = checks
        self.values: dict[str, object] = {}
        self.places: dict[str, str] = {}
        self.problems: list[str] = []
        self.unsure: list[str] = []

    def top(self) -> None:
        for key, value in self._document.content.items():
            if key in SECTIONS or key in FREE_SECTIONS:
                if isinstance(value, dict):
                    self._table(key, value)
                else:
                    self._problem((key,), f"must be a section, [{key}], not {show(value)}")
            elif key in KEYS:
                self._value((key,), value)
            elif isinstance(value, dict):
                self._problem((key,), f"unknown section{did_you_mean(key, (*SECTIONS, *FREE_SECTIONS))}")
            else:
                self._problem((key,), f"unknown key{near_key(key)}")

    def _table(self, section: str, table: Mapping[str, Any]) -> None:
        if section == "rates":
            for currency, rate in table.items():
                if free_path(free_name(section, currency)) is None:
                    self._problem((section, currency), "is not a currency: use its letters and digits")
                else:
                    self._value((section, currency), rate)
        elif section == "instruments":
            for symbol, entry in table.items():
                self._instrument(symbol, entry)
        else:
            self._section(section, table)

    def _instrument(self, symbol: str, entry: object) -> None:
        path = ("instruments", symbol)
        if not isinstance(entry, dict):
            hint = f" (did you mean [instruments.{show('SYMBOL')}]?)" if symbol in INSTRUMENT_KEYS else ""
            self._problem(path, f"must be a section, [instruments.{show(symbol)}], not {show(entry)}{hint}")
            return
        for key, value in entry.items():
            if key in INSTRUMENT_KEYS:
                self._value((*path, key), value)
            else:
                self._problem((*path, key), f"unknown key{did_you_mean(key, INSTRUMENT_KEYS)}")
        if not entry:
            name = free_name(*path, "inverse")  # an empty entry counts, as one that says what holds anyway
            self.values[name], self.places[name] = False, self._document.place(path)

    def _section(self, section: str, table: Mapping[str, Any]) -> None:
        for key, value in table.items():
            name = f"{section}.{key}"
            if name in KEYS:
                self._value((section, key), value)
            else:
                self._problem((section, key), f"unknown key{near_key(name)}")

    def _value(self, path: KeyPath, value: object) -> None:
        name = free_name(*path) if path[0] in FREE_SECTIONS else ".".join(path)
        try:
            self.values[name] = check_value(name, value, self._checks)
        except InvalidValue as error:
            self._problem(path, str(error))
            self.unsure.append(name)
        else:
            self.places[name] = self._document.place(path)

    def _problem(self, path: KeyPath, text: str) -> None:
        self.problems.append(self._document.problem(path, text))


_PART = r"""(?:[A-Za-z0-9_-]+|"(?:\\.|[^"\\\n])*"|'[^'\n]*')"""
_KEY = rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*"
_STRING = r'''"""(?:\\[\s\S]|[^\\])*?"""+|\'\'\'[\s\S]*?\'\'\'+|"(?:\\.|[^"\\\n])*"|'[^'\n]*\''''
_TOKEN = re.compile(
    rf"^[ \t]*\[(?P<table>\[)?[ \t]*(?P<header>{_KEY})[ \t]*\](?(table)\])|(?P<key>{_KEY})(?=[ \t]*=)"
    rf"|{_STRING}|#[^\n]*|(?P<open>[\[{{])|(?P<close>[\]}}])|[\w+:.-]+",
    re.MULTILINE,
)
_DEPTH = 3  # no key of ours is deeper; deeper ones of a mistaken file need no place of their own


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line (from 1) of each section and key of a valid TOML `text`, where it could be found; never raises."""
    lines: dict[KeyPath, int] = {}
    # Positions are a courtesy: a missing one falls back to the section's line.
    with contextlib.suppress(IndexError, RecursionError, ValueError):
        _find_lines(text, lines)
    return lines


def _find_lines(text: str, lines: dict[KeyPath, int]) -> None:
    section: KeyPath = ()
    path: KeyPath = ()
    around: list[KeyPath] = []  # the keys of the arrays and inline tables that are open
    line, seen = 1, 0
    for token in _TOKEN.finditer(text):
        line, seen = line + text.count("\n", seen, token.start()), token.start()
        if token["open"]:
            around.append(path)
        elif token["close"]:
            path = around.pop()
        elif token["key"] or (token["header"] and not around):  # [x] within an array is no header
            path = () if token["header"] else around[-1] if around else section
            # tomllib itself decodes quotes, escapes and dots.
            inner: Any = tomllib.loads(f"{token['key'] or token['header']} = 0")
            while isinstance(inner, dict) and len(path) < _DEPTH:
                ((part, inner),) = inner.items()
                path = (*path, part)
                lines.setdefault(path, line)
            section = path if token["header"] else section
