"""The resolved configuration: typed, frozen, with every key's default and bounds in one place.

Bounds are the `Meta` of each field; `tradebot.config.validation` checks values against them. Enumerations are stored in
one spelling: `mode` and `persist.synchronous` in upper case, `engine.ingest_mode` and `feed.history` in lower case
without underscore. Nothing here does I/O.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct

from tradebot.config.money import AccountConfig, InstrumentConfig, Rate, RateSymbol
from tradebot.config.paper import OrderType, PaperConfig
from tradebot.core.errors import ConfigError
from tradebot.core.ids import short_digest
from tradebot.output.redaction import MASK, mask

Mode = Literal["SHADOW", "PAPER", "LIVE"]
IngestMode = Literal["synthetic", "replay", "mockws", "realws"]
Synchronous = Literal["NORMAL", "FULL"]
History = Literal["drop", "keep"]

STDIN: Final = "-"
"""The `engine.replay_file` that means standard input."""

PUSH_CHANNEL_SIZES: Final = (256, 64, 512)
REPLAY_CHANNEL_SIZE: Final = 16_384
MAX_PATH_CHARS: Final = 4096
_YEAR_S: Final = 366 * 86_400

# What the fields below share. Bounds are wide enough for any sensible use and narrow enough to catch a slip of a digit.
_Path = Annotated[str, Meta(min_length=1, max_length=MAX_PATH_CHARS)]
_Usd = Annotated[float, Meta(ge=0, le=1e12)]
_ChannelSize = Annotated[int, Meta(ge=1, le=1_048_576)]
_Window = Annotated[int, Meta(ge=1, le=100_000)]
_Timeout = Annotated[float, Meta(ge=0.1, le=86_400)]
_Period = Annotated[float, Meta(ge=0, le=86_400)]


SYMBOL_LIST_CHARS_MAX: Final = 65_536
"""app.symbol of an exchange's feed is a list with commas, whose symbols are bounded by feed.max_symbols."""


class AppConfig(Struct, frozen=True):
    """What is traded and where results go."""

    symbol: Annotated[str, Meta(min_length=1, max_length=SYMBOL_LIST_CHARS_MAX)] = "SOL/USDC"
    db_path: _Path | None = None


class EngineConfig(Struct, frozen=True):
    """Where ticks come from, and how many of them are kept."""

    ingest_mode: IngestMode = "synthetic"
    tick_interval_ms: Annotated[int, Meta(ge=1, le=3_600_000)] = 500
    signal_every_n_ticks: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 10
    heartbeat_interval_secs: Annotated[float, Meta(ge=0.1, le=3600)] = 10.0
    run_seconds: Annotated[float, Meta(gt=0, le=_YEAR_S)] | None = None
    ws_url: Annotated[str, Meta(min_length=1, max_length=2048)] | None = None
    ws_url_file: _Path | None = None
    ws_source: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    sample_every: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    replay_file: _Path | None = None


class RiskCaps(Struct, frozen=True):
    """Limits that no order may take the exposure past; 0 allows only orders that lower it."""

    max_exposure_usd: _Usd = 10_000.0
    max_symbol_exposure_usd: _Usd = 5_000.0
    max_open_orders: Annotated[int, Meta(ge=0, le=1_000_000)] = 10


class ChannelSizes(NamedTuple):
    """Sizes of the three channels, in events."""

    tick: int
    signal: int
    persist: int


class ChannelsConfig(Struct, frozen=True):
    """Sizes of the channels in events; None where the configuration sets none (see `sizes`)."""

    tick_channel_size: _ChannelSize | None = None
    signal_channel_size: _ChannelSize | None = None
    persist_channel_size: _ChannelSize | None = None

    def sizes(self, push: bool) -> ChannelSizes:
        """The sizes to use: where none is set, 256/64/512 for a push feed and 16 384 each for a replay."""
        tick, signal, persist = PUSH_CHANNEL_SIZES if push else (REPLAY_CHANNEL_SIZE,) * 3
        return ChannelSizes(
            tick if self.tick_channel_size is None else self.tick_channel_size,
            signal if self.signal_channel_size is None else self.signal_channel_size,
            persist if self.persist_channel_size is None else self.persist_channel_size,
        )


class PersistConfig(Struct, frozen=True):
    """How the writer batches, and how long it insists."""

    batch_size: Annotated[int, Meta(ge=1, le=8192)] = 100
    flush_interval_ms: Annotated[int, Meta(ge=1, le=60_000)] = 1000
    synchronous: Synchronous = "NORMAL"
    storage_retry_s: Annotated[float, Meta(ge=0, le=3600)] = 30.0
    drain_timeout_s: Annotated[float, Meta(ge=0, le=3600)] = 30.0
    spill_max_mb: Annotated[int, Meta(ge=1, le=65_536)] = 256


class StrategyConfig(Struct, frozen=True):
    """Which strategy decides, with what parameters. Windows are in ticks, `desired_size` in units of the symbol."""

    name: Annotated[str, Meta(min_length=1, max_length=64)] = "sma_crossover"
    short_window: _Window = 5
    long_window: _Window = 20
    desired_size: Annotated[float, Meta(gt=0, le=1e9)] = 0.1
    confidence: Annotated[float, Meta(ge=0, le=1)] = 0.75


class ExecutionConfig(Struct, frozen=True):
    """What a simulated fill costs, how old a tick may be (0 = any age; never applied in a replay), and which orders a
    signal makes in PAPER.

    `limit_offset_bps` is how far a limit lies on the passive side of the signal's price; negative: beyond it.
    """

    fee_rate: Annotated[float, Meta(ge=0, le=1)] = 0.001
    max_tick_age_ms: Annotated[int, Meta(ge=0, le=604_800_000)] = 0
    order_type: OrderType = "market"
    limit_offset_bps: Annotated[float, Meta(ge=-5000, le=5000)] = 0.0
    post_only: bool = False


class BreakersConfig(Struct, frozen=True):
    """The limits at which no order that adds exposure is sent (`tradebot.execution.breakers`); None: breaker off.

    `cancel_open`: open orders are canceled, too.
    """

    max_drawdown_pct: Annotated[float, Meta(gt=0, le=100)] | None = None
    daily_loss_usd: Annotated[float, Meta(gt=0, le=1e12)] | None = None
    losses_in_a_row: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    refusals_per_minute: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    orders_per_minute: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    stale_ms: Annotated[int, Meta(ge=1, le=604_800_000)] | None = None
    cancel_open: bool = False


class FeedConfig(Struct, frozen=True):
    """Patience and limits of WebSocket feeds.

    `max_price_jump`: prices more than so many times above or below the recent ones of their symbol are refused.
    """

    connect_timeout_s: _Timeout = 10.0
    idle_timeout_s: _Timeout = 30.0
    ping_interval_s: _Timeout = 10.0
    reconnect_budget_s: _Period = 120.0
    backoff_max_s: _Timeout = 30.0
    stable_after_s: _Period = 30.0
    parse_error_limit: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 100
    max_message_bytes: Annotated[int, Meta(ge=64, le=67_108_864)] = 1_048_576
    max_symbols: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    history: History = "drop"
    max_price_jump: Annotated[float, Meta(gt=1, le=1e12)] = 10.0


class MetricsConfig(Struct, frozen=True):
    """Where the Prometheus endpoint listens; port 0 is off. `hosts`: names a scraper may use, commas between."""

    address: Annotated[str, Meta(min_length=1, max_length=255)] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 0
    hosts: Annotated[str, Meta(min_length=1, max_length=2048)] | None = None


class NotifyConfig(Struct, frozen=True):
    """The webhook, and the conditions under which it gets an alert."""

    webhook_url: Annotated[str, Meta(min_length=1, max_length=2048)] | None = None
    webhook_url_file: _Path | None = None
    link_lost_s: _Timeout = 60.0
    refusals_per_minute: Annotated[int, Meta(ge=1, le=1_000_000)] = 100


class Config(Struct, frozen=True):
    """Everything a configuration file can say, with defaults filled in."""

    mode: Mode = "SHADOW"
    live_armed: bool = False
    app: AppConfig = AppConfig()
    engine: EngineConfig = EngineConfig()
    risk_caps: RiskCaps = RiskCaps()
    channels: ChannelsConfig = ChannelsConfig()
    persist: PersistConfig = PersistConfig()
    strategy: StrategyConfig = StrategyConfig()
    execution: ExecutionConfig = ExecutionConfig()
    paper: PaperConfig = PaperConfig()
    account: AccountConfig = AccountConfig()
    breakers: BreakersConfig = BreakersConfig()
    instruments: dict[str, InstrumentConfig] = {}
    rates: dict[str, Rate | RateSymbol] = {}
    feed: FeedConfig = FeedConfig()
    metrics: MetricsConfig = MetricsConfig()
    notify: NotifyConfig = NotifyConfig()


LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
LogFormat = Literal["json", "text"]


class RunOptions(Struct, frozen=True):
    """What only the command line (or the environment) says about one run.

    `speed` is a factor of real time for a replay, None meaning as fast as possible. `log_format` None means: coloured
    text on a terminal, JSON otherwise. `replay_run` None means the newest run of the database replayed.
    `ws_sources` is the file that `engine.ws_source` is looked up in; `out` (a directory) and `max_mb` are those of
    capture.
    """

    replay_db: str | None = None
    replay_run: str | None = None
    exchange: str | None = None
    resume: bool = False
    strict: bool = False
    speed: float | None = None
    ws_sources: str | None = None
    out: str | None = None
    max_mb: int = 1024
    log_level: LogLevel = "INFO"
    log_format: LogFormat | None = None
    run_id: str | None = None


class Live(Struct, frozen=True):
    """What a live feed listens to, or what a recording of one is read as: an exchange by its adapter's name.

    `source` names it in the `runs` table, without credentials. `symbols` are as the exchange writes them.
    """

    exchange: str
    url: str
    symbols: tuple[str, ...]
    source: str


class Secrets(Struct, frozen=True):
    """URLs from the environment or from files, which override the configuration's (`tradebot.config.secret_urls`)."""

    ws_url: str | None = None
    webhook_url: str | None = None

    def __repr__(self) -> str:
        return "Secrets(***)"


COMMAND_LINE: Final = "command line "
"""Prefix, in `Settings.sources`, of the place of a value from the command line; the option follows."""


def on_command_line(sources: Mapping[str, str], key: str) -> bool:
    """Whether the command line itself gave `key`: then it wins over everything else. `sources`: see Settings."""
    return sources.get(key, "").startswith(COMMAND_LINE)


class Settings(Struct, frozen=True):
    """A run as asked for: configuration, options, what it listens to, and where each value came from.

    `sources` maps a dotted configuration key, or the name of an option, to "command line --sample-every",
    "environment TRADEBOT_LOG_LEVEL", "FILE:LINE" or "default".
    """

    config: Config
    options: RunOptions
    sources: Mapping[str, str]
    live: Live | None = None
    secrets: Secrets = Secrets()


def _digest(values: Mapping[str, object]) -> str:
    # Canonical JSON: sorted keys, floats as repr, which is the same on every Python we support.
    return short_digest(json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False))


_ALWAYS_HASHED: Final = frozenset({
    "mode", "live_armed", "app.symbol", "app.db_path", "engine.ingest_mode", "engine.tick_interval_ms",
    "engine.signal_every_n_ticks", "engine.heartbeat_interval_secs", "engine.run_seconds", "engine.ws_url",
    "engine.ws_source", "engine.sample_every", "engine.replay_file", "risk_caps.max_exposure_usd",
    "risk_caps.max_symbol_exposure_usd", "risk_caps.max_open_orders", "channels.tick_channel_size",
    "channels.signal_channel_size", "channels.persist_channel_size", "persist.batch_size",
    "persist.flush_interval_ms", "persist.synchronous", "persist.storage_retry_s", "persist.drain_timeout_s",
    "strategy.name", "strategy.short_window", "strategy.long_window", "strategy.desired_size",
    "strategy.confidence", "execution.fee_rate", "execution.max_tick_age_ms", "feed.connect_timeout_s",
    "feed.idle_timeout_s", "feed.ping_interval_s", "feed.reconnect_budget_s", "feed.backoff_max_s",
    "feed.stable_after_s", "feed.parse_error_limit", "feed.max_message_bytes", "feed.max_symbols", "feed.history",
    "metrics.address", "metrics.port", "notify.webhook_url", "notify.link_lost_s", "notify.refusals_per_minute",
})  # fmt: skip
"""The keys of the first release. This list never grows: a later key enters hashes only when it is not its default, so
that the hash (and a replay's run id) of a configuration that does not use the key stays what it was."""


def _normalised(config: Config) -> dict[str, Any]:
    """Values by dotted key, with numbers as their fields have them: 5000 made by hand hashes like 5000.0."""
    values, defaults = (
        _flat(msgspec.to_builtins(msgspec.convert(msgspec.to_builtins(each), Config))) for each in (config, Config())
    )
    entry = msgspec.to_builtins(InstrumentConfig())
    for name, said in values.items():
        if name.startswith("instruments."):  # a default is a default, written out or not
            values[name] = {leaf: value for leaf, value in said.items() if value != entry[leaf]}
    return {key: value for key, value in values.items() if key in _ALWAYS_HASHED or value != defaults.get(key)}


def _flat(nested: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= {f"{key}.{leaf}": inner for leaf, inner in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def config_hash(config: Config) -> str:
    """12 hex digits over the whole configuration but `mode` and `live_armed` (the LIVE gate compares these hashes).

    Of secrets only the fact counts: that there is a webhook, and the feed's URL without its credentials.
    """
    values = {k: v for k, v in _normalised(config).items() if k not in ("mode", "live_armed")}
    if config.notify.webhook_url is not None:
        values["notify.webhook_url"] = MASK
    if config.engine.ws_url is not None:
        values["engine.ws_url"] = mask(config.engine.ws_url)
    return _digest(values)


RESULT_SECTIONS: Final = (
    "strategy", "execution", "paper", "risk_caps", "account", "breakers", "instruments", "rates",
)  # fmt: skip
"""The sections whose keys can change a result."""


def result_hash(config: Config, replay: bool, unread: Collection[str]) -> str:
    """12 hex digits over the keys that can change a result: a part of a replay's run id.

    These are mode, strategy (with what it reads of [engine]), execution, paper, risk caps, account, breakers,
    instruments and rates, sampling and history; not paths, sizes, batching or patience. `replay` leaves out what is
    never applied there (max_tick_age_ms); `unread` are the keys that the strategy does not read (`Strategy.unread`).
    """
    left_out = set(unread)
    if replay:
        left_out.add("execution.max_tick_age_ms")
    singles = {"mode", "engine.signal_every_n_ticks", "engine.sample_every", "feed.history"}
    counted = {
        name: value
        for name, value in _normalised(config).items()
        if name not in left_out and (name in singles or name.split(".")[0] in RESULT_SECTIONS)
    }
    return _digest(counted)


def home_directory(environ: Mapping[str, str]) -> Path:
    """$HOME, else the home directory of the system's user database. Raises ConfigError without one."""
    home = environ.get("HOME") or os.path.expanduser("~")
    if not os.path.isabs(home):
        raise ConfigError("no home directory: set HOME, or name the database and the configuration (--db, --config)")
    return Path(home)


def xdg_directory(environ: Mapping[str, str], variable: str, below_home: str) -> Path:
    """The directory an XDG variable names; as its specification asks, empty or relative values are ignored."""
    named = environ.get(variable, "")
    return Path(named) if os.path.isabs(named) else home_directory(environ) / below_home


def expand_home(path: str) -> str:
    """`path` with a leading ~ made a home directory: a shell leaves it alone in --db=~/x.db. Raises ConfigError."""
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:
        raise ConfigError(f"{path}: there is no such home directory") from None


def db_path(config: Config, environ: Mapping[str, str] | None = None) -> Path:
    """Where the database is: the configured path, else tradebot.db in the state directory of systemd or of the user.

    `environ` None means the process's. Touches no file. Raises ConfigError when there is no home directory to look in.
    """
    environ = os.environ if environ is None else environ
    if config.app.db_path is not None:
        return Path(expand_home(config.app.db_path))
    service = next((part for part in environ.get("STATE_DIRECTORY", "").split(":") if part), None)
    if service is not None:
        return Path(service) / "tradebot.db"
    return xdg_directory(environ, "XDG_STATE_HOME", ".local/state") / "tradebot" / "tradebot.db"
