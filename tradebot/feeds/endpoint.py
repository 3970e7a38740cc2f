"""Which exchange a run listens to (or reads a recording of), from options, configuration and ws_sources.toml."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from tradebot.config.model import Config, Live, RunOptions, on_command_line
from tradebot.config.validation import did_you_mean
from tradebot.core.errors import HINT, ConfigError, UsageError
from tradebot.core.events import MAX_SYMBOL_CHARS
from tradebot.feeds import sources_file as source_files
from tradebot.feeds.exchanges import EXCHANGES
from tradebot.output.redaction import mask

_MOCKWS = "mockws"


class Sourced(NamedTuple):
    """The configuration with the limits of a source in it, where those came from, and what is listened to."""

    config: Config
    sources: dict[str, str]
    live: Live | None


def find_live(
    config: Config,
    options: RunOptions,
    origins: Mapping[str, str],
    config_path: Path | None,
    environ: Mapping[str, str],
    secret_url: str | None = None,
) -> Sourced:
    """What `config` and `options` ask to listen to; no `live` for feeds that have no exchange. Blocks (reads a file).

    `origins` say where each value came from: a default symbol is no choice, and the command line beats a source.
    `secret_url` (from the environment or a file) beats the URLs of configuration and source.
    Raises UsageError when an option is missing, ConfigError when the sources file is not usable.
    """
    mode = config.engine.ingest_mode
    if mode == "mockws":
        url = secret_url or config.engine.ws_url or EXCHANGES[_MOCKWS].url
        return Sourced(config, {}, Live(_MOCKWS, url, (), f"mockws:{mask(url)}"))
    # A file that names a source for live runs says nothing about what a replay's file holds, nor about an exchange
    # that the command line names.
    named_here = on_command_line(origins, "engine.ws_source")
    if config.engine.ws_source is not None and (named_here or (mode == "realws" and options.exchange is None)):
        return _from_source(config, options, origins, config_path, environ, secret_url)
    if mode == "replay":
        if options.exchange is None:
            return Sourced(config, {}, None)
        return Sourced(config, {}, Live(options.exchange, "", (), options.exchange))
    if mode != "realws":
        if len(config.app.symbol) > MAX_SYMBOL_CHARS:
            where = "--symbol" if on_command_line(origins, "app.symbol") else "app.symbol"
            raise UsageError(f"{where}: has more than {MAX_SYMBOL_CHARS} characters; the feed {mode} takes one symbol")
        return Sourced(config, {}, None)
    if options.exchange is None:
        raise UsageError(
            "the feed realws needs --ws-source=NAME, or --exchange=NAME and --symbol=SYM; see tradebot sources"
        )
    symbols = _symbols(config) if origins["app.symbol"] != "default" else ()
    if not symbols:
        raise UsageError(
            f"--exchange={options.exchange} needs --symbol=SYM, as the exchange writes it (separate several with"
            f" commas); {HINT}"
        )
    url = secret_url or config.engine.ws_url or EXCHANGES[options.exchange].url
    _check_symbols(options.exchange, url, symbols)
    return Sourced(config, {}, Live(options.exchange, url, symbols, _name(options.exchange, symbols)))


def _symbols(config: Config) -> tuple[str, ...]:
    """Those that `--symbol` lists, each once. Raises UsageError."""
    symbols = tuple(dict.fromkeys(part.strip() for part in config.app.symbol.split(",") if part.strip()))
    for symbol in symbols:
        if len(symbol) > MAX_SYMBOL_CHARS:
            raise UsageError(f"--symbol: {symbol[:MAX_SYMBOL_CHARS]}... has more than {MAX_SYMBOL_CHARS} characters")
    if len(symbols) > config.feed.max_symbols:
        raise UsageError(f"--symbol: has {len(symbols)} symbols, but feed.max_symbols is {config.feed.max_symbols}")
    return symbols


def _check_symbols(exchange: str, url: str, symbols: tuple[str, ...]) -> None:
    """Raises UsageError when the trades of two symbols would be stored as one, or a connection takes fewer symbols."""
    adapter = EXCHANGES[exchange]()
    if adapter.streams_max is not None and len(symbols) > adapter.streams_max:
        raise UsageError(
            f"{exchange}: takes at most {adapter.streams_max} symbols a connection, but {len(symbols)} are named;"
            " divide them among several engines, each with its own database"
        )
    adapter.connection_url(url, symbols)
    asked: dict[str, str] = {}
    for symbol in symbols:
        other = asked.setdefault(adapter.stored_symbol(symbol), symbol)
        if other != symbol:
            raise UsageError(
                f"{exchange}: the symbols {other} and {symbol} would both be stored as {adapter.stored_symbol(symbol)};"
                " name one of them"
            )


def _name(exchange: str, symbols: tuple[str, ...]) -> str:
    """What a restart looks for: the endpoint may change, exchange and symbols are what the results belong to."""
    return f"{exchange}:{','.join(sorted(symbols))}"


def _from_source(
    config: Config,
    options: RunOptions,
    origins: Mapping[str, str],
    config_path: Path | None,
    environ: Mapping[str, str],
    secret_url: str | None,
) -> Sourced:
    name = config.engine.ws_source
    assert name is not None
    found = source_files.find(options.ws_sources, config_path, environ)
    if found is None:
        raise UsageError(f"{_spelled(origins)}={name}: there is no ws_sources.toml; name one with --ws-sources")
    path, _how = found
    known = source_files.load(path)
    source = known.get(name)
    if source is None:
        hint = did_you_mean(name, known)
        raise ConfigError(f"{_spelled(origins)}: {path} has no source {name}{hint}; tradebot sources lists them")
    told = {key for key in source.limits if on_command_line(origins, f"feed.{key}")}
    feed: Any = source.feed_config(config.feed)
    feed = replace(feed, **{key: getattr(config.feed, key) for key in told})
    sources = {f"feed.{key}": f"{path} [{source.name}]" for key in source.limits if key not in told}
    url = source.url or EXCHANGES[source.exchange].url
    if config.engine.ws_url is not None and on_command_line(origins, "engine.ws_url"):
        url = config.engine.ws_url
    elif secret_url is not None:
        url = secret_url
    symbols = (_symbols(config) if on_command_line(origins, "app.symbol") else ()) or source.symbols
    _check_symbols(source.exchange, url, symbols)
    live = Live(source.exchange, url, symbols, _name(source.exchange, symbols))
    return Sourced(replace(config, feed=feed), sources, live)


def _spelled(origins: Mapping[str, str]) -> str:
    return "--ws-source" if on_command_line(origins, "engine.ws_source") else "engine.ws_source"
