"""ws_sources.toml: named sources of live ticks (which exchange, which symbols, where, with what patience).

One TOML table for each source; etc/tradebot/ws_sources.toml is an example and is found when there is no other.
"""

from __future__ import annotations

import contextlib
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from msgspec import Struct
from msgspec import inspect as shapes
from msgspec.structs import replace

from tradebot.config.model import COMMAND_LINE, FeedConfig, expand_home, xdg_directory
from tradebot.config.toml_file import Document, may_exist, read_document
from tradebot.config.validation import (
    KEYS,
    InvalidValue,
    check_choice,
    check_name,
    check_value,
    did_you_mean,
    listed,
    show,
)
from tradebot.core.errors import ConfigError
from tradebot.core.events import MAX_SYMBOL_CHARS
from tradebot.feeds.exchanges import EXCHANGES
from tradebot.output.redaction import escape, mask

FILE_NAME: Final = "ws_sources.toml"
MAX_FILE_BYTES: Final = 1_048_576
LIMITS: Final = (
    "idle_timeout_s", "ping_interval_s", "connect_timeout_s", "max_message_bytes", "parse_error_limit", "history",
    "max_price_jump",
)  # fmt: skip
"""The keys of [feed] that a source may set for itself."""

_SYMBOLS_SHOWN: Final = 6


class Source(Struct, frozen=True):
    """One named source. `symbols` are as the exchange writes them; `url` None means the exchange's own.

    `limits` holds what the source sets of [feed], by key.
    """

    name: str
    exchange: str
    symbols: tuple[str, ...]
    url: str | None
    limits: dict[str, object]

    def feed_config(self, base: FeedConfig) -> FeedConfig:
        """`base` with this source's limits in it. Raises ConfigError when it has more symbols than `base` allows."""
        if len(self.symbols) > base.max_symbols:
            raise ConfigError(
                f"source {self.name}: has {len(self.symbols)} symbols, but feed.max_symbols is {base.max_symbols}"
            )
        limits: dict[str, Any] = self.limits
        return replace(base, **limits)


def find(explicit: str | None, config_path: Path | None, environ: Mapping[str, str]) -> tuple[Path, str] | None:
    """The sources file to read and how it was found; None if none was found. Blocks (looks for files).

    The command line's `explicit` (whether it exists is for `load` to say), else the one beside the configuration file
    in use, else the user's, else the example.
    """
    if explicit is not None:
        return Path(expand_home(explicit)), f"{COMMAND_LINE}--ws-sources"
    return next(((path, how) for path, how in _places(config_path, environ) if may_exist(path)), None)


def _places(config_path: Path | None, environ: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    if config_path is not None:
        yield config_path.parent / FILE_NAME, "beside the configuration file"
    with contextlib.suppress(ConfigError):  # no home directory, no file in it
        yield xdg_directory(environ, "XDG_CONFIG_HOME", ".config") / "tradebot" / FILE_NAME, "default place"
    # Of an installation there is no etc/ beside the package: where there is one, its code is what runs.
    yield Path(__file__).parents[2] / "etc" / "tradebot" / FILE_NAME, "the example of the source tree"
    for scheme in (sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user")):
        yield Path(sysconfig.get_path("data", scheme), "share/tradebot/etc/tradebot", FILE_NAME), "the example"


def load(path: Path) -> dict[str, Source]:
    """The sources of the file at `path` by name, in its order. Raises ConfigError with all that is wrong. Blocks."""
    document = read_document(path, "sources file", MAX_FILE_BYTES)
    reader = _Reader(document)
    sources = [reader.source(name, table) for name, table in document.content.items()]
    if reader.problems:
        raise ConfigError(listed(reader.problems))
    return {source.name: source for source in sources if source is not None}


class _Reader:
    """Turns the tables of a document into sources, collecting everything that is wrong."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self.problems: list[str] = []
        self._checks: dict[str, Callable[[object], object]] = {
            "exchange": _exchange,
            "symbols": _symbols,
            "url": lambda value: check_value("engine.ws_url", value),
        }

    def source(self, name: str, table: object) -> Source | None:
        """The source that a table describes; None, with its problems noted, when it describes none."""
        try:
            check_name(name)
        except InvalidValue as error:
            self._problem((name,), str(error))
        if not isinstance(table, dict):
            self._problem((name,), f"must be a source, [{show(name)[1:-1]}], not {show(table)}")
            return None
        values: dict[str, Any] = {}
        for key, value in table.items():
            try:
                values[key] = self._value(key, value)
            except InvalidValue as error:
                self._problem((name, key), str(error))
        for key in ("exchange", "symbols"):
            if key not in table:
                self._problem((name,), f"has no {key}{_instead(key, table)}")
        if "exchange" not in values or "symbols" not in values:
            return None
        limits: dict[str, object] = {key: values[key] for key in LIMITS if key in values}
        return Source(name, values["exchange"], values["symbols"], values.get("url"), limits)

    def _value(self, key: str, value: object) -> object:
        if key in self._checks:
            return self._checks[key](value)
        if key in LIMITS:
            return check_value(f"feed.{key}", value)
        if f"feed.{key}" in KEYS:
            raise InvalidValue("is not a key of a source: set it in [feed] of the configuration file, for all sources")
        raise InvalidValue(f"unknown key{did_you_mean(key, (*self._checks, *LIMITS))}")

    def _problem(self, path: tuple[str, ...], text: str) -> None:
        self.problems.append(self._document.problem(path, text))


def _instead(key: str, table: Mapping[str, object]) -> str:
    if key == "exchange":
        return f" (one of {', '.join(EXCHANGES)})"
    return "" if "symbol" in table else ' (such as symbols = ["BTC-USD"], as the exchange writes them)'


def _exchange(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidValue(f"must be text in quotes, not {show(value)}")
    return check_choice(value, EXCHANGES)


def _symbols(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InvalidValue(f'must be a list, such as ["BTC-USD"], not {show(value)}')
    most = _symbols_max()
    if not 1 <= len(value) <= most:
        raise InvalidValue(f"must be 1 to {most:_} symbols, not {len(value)}")
    seen: set[str] = set()
    for symbol in value:
        try:
            checked = str(check_value("app.symbol", symbol))
            if len(checked) > MAX_SYMBOL_CHARS:
                raise InvalidValue(f"must have at most {MAX_SYMBOL_CHARS} characters, not {len(checked)}")
        except InvalidValue as error:
            raise InvalidValue(f"each {error}") from None
        if checked in seen:
            raise InvalidValue(f"{show(checked)} is listed twice")
        seen.add(checked)
    return tuple(value)


def _symbols_max() -> int:
    shape = KEYS["feed.max_symbols"].shape
    assert isinstance(shape, shapes.IntType) and shape.le is not None
    return shape.le


def describe(found: tuple[Path, str] | None, sources: Iterable[Source]) -> list[str]:
    """What `tradebot sources` prints: the exchanges that are known, the file and the sources in it. Nothing secret."""
    exchanges = [
        (name, exchange.url, "" if exchange.token_url is None else "requests a token before each connection")
        for name, exchange in EXCHANGES.items()
    ]
    lines = ["exchanges (--exchange=NAME --symbol=SYMBOL):", *_table(("NAME", "URL", ""), exchanges), ""]
    if found is None:
        return [*lines, f"no sources: there is no {FILE_NAME} beside the configuration file or in its default place"]
    rows = [
        (
            source.name,
            source.exchange,
            _shortened(source.symbols),
            "default" if source.url is None else mask(source.url),
            " ".join(f"{key}={value}" for key, value in source.limits.items()),
        )
        for source in sources
    ]
    lines.append(f"sources (--ws-source=NAME) of {found[0]} ({found[1]}):")
    lines += (
        _table(("NAME", "EXCHANGE", "SYMBOLS", "URL", "LIMITS"), rows) if rows else ["  none: the file has no sources"]
    )
    return [escape(line) for line in lines]


def as_object(found: tuple[Path, str] | None, sources: Iterable[Source]) -> dict[str, object]:
    """The same for scripts. Nothing secret."""
    exchanges = [
        {"name": name, "url": exchange.url, "needs_token": exchange.token_url is not None}
        for name, exchange in EXCHANGES.items()
    ]
    entries = [
        {
            "name": source.name,
            "exchange": source.exchange,
            "symbols": source.symbols,
            "url": None if source.url is None else mask(source.url),
            "limits": source.limits,
        }
        for source in sources
    ]
    file, named_by = (None, None) if found is None else (str(found[0]), found[1])
    return {"format": 1, "exchanges": exchanges, "file": file, "named_by": named_by, "sources": entries}


def _shortened(symbols: tuple[str, ...]) -> str:
    more = [f"and {len(symbols) - _SYMBOLS_SHOWN} more"] if len(symbols) > _SYMBOLS_SHOWN else []
    return " ".join([*symbols[:_SYMBOLS_SHOWN], *more])


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    return [
        ("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in (head, *rows)
    ]
