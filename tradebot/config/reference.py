"""The reference page of the configuration: every key with type, default, bounds, unit and meaning. Pure.

Types, defaults and bounds come from `tradebot.config.model`, so the page cannot disagree with the program;
`bin/write-reference` writes it, and a test compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from msgspec import inspect as shapes

from tradebot.config.validation import KEYS, Key, toml


class Entry(NamedTuple):
    """Unit of a key's value ("" where it has none), and what the key does."""

    unit: str
    meaning: str


ENTRIES: Final[Mapping[str, Entry]] = {
    "mode": Entry("", "SHADOW records the orders that it would send. This release refuses PAPER and LIVE."),
    "live_armed": Entry("", "LIVE needs `true` here, besides the other conditions of the LIVE gate."),
    "app.symbol": Entry(
        "",
        "Symbol of the synthetic feed; symbols of an exchange's feed, separated by commas. It does not filter "
        "a replay.",
    ),
    "app.db_path": Entry(
        "",
        "Database file. Not set: `tradebot.db` in `$STATE_DIRECTORY`, else in `$XDG_STATE_HOME/tradebot` or "
        "`~/.local/state/tradebot`.",
    ),
    "engine.ingest_mode": Entry(
        "",
        "Where ticks come from: generated, a file or database, `bin/mockws`, or an exchange.",
    ),
    "engine.tick_interval_ms": Entry("ms", "Time between two ticks of the synthetic feed."),
    "engine.signal_every_n_ticks": Entry("ticks", "Distance between two signals of the strategy `periodic`."),
    "engine.heartbeat_interval_secs": Entry("s", "Time between two `HEARTBEAT` log lines."),
    "engine.run_seconds": Entry("s", "End the run with exit code 0 after this time. Not set: no limit."),
    "engine.ws_url": Entry(
        "",
        "WebSocket URL of the feed (`ws://` or `wss://`). Put a URL with credentials into "
        "`engine.ws_url_file` or `TRADEBOT_WS_URL`.",
    ),
    "engine.ws_url_file": Entry(
        "",
        "File whose only line is the feed's URL. A relative path starts at `$CREDENTIALS_DIRECTORY` where "
        "systemd sets it.",
    ),
    "engine.ws_source": Entry("", "Entry of `ws_sources.toml` to listen to; `tradebot sources` lists them."),
    "engine.sample_every": Entry(
        "ticks",
        "Keep every N-th good tick. The others are counted and neither decided on nor stored.",
    ),
    "engine.replay_file": Entry("", "File to replay: JSON lines, also `.gz` or `.zst`; `-` is standard input."),
    "risk_caps.max_exposure_usd": Entry(
        "USD",
        "Refuse an order that would take the sum of all positions, in absolute value, above this.",
    ),
    "risk_caps.max_symbol_exposure_usd": Entry(
        "USD",
        "Refuse an order that would take the position of its symbol above this.",
    ),
    "risk_caps.max_open_orders": Entry("orders", "Refuse an order while this many orders have no final status."),
    "channels.tick_channel_size": Entry(
        "events",
        "Capacity of the channel from ingest to strategy. Not set: 256 for a push feed, 16 384 for a replay.",
    ),
    "channels.signal_channel_size": Entry(
        "events",
        "Capacity of the channel from strategy to execution. Not set: 64 or 16 384.",
    ),
    "channels.persist_channel_size": Entry("events", "Capacity of the channel to the writer. Not set: 512 or 16 384."),
    "persist.batch_size": Entry("events", "Write a batch to the database when it has this many events."),
    "persist.flush_interval_ms": Entry("ms", "Write a smaller batch after this time."),
    "persist.synchronous": Entry(
        "",
        "SQLite's `PRAGMA synchronous`. FULL keeps every written batch through a power loss; NORMAL may lose "
        "the last ones, and is faster.",
    ),
    "persist.storage_retry_s": Entry("s", "Retry a locked or full database for this time, then end with exit code 13."),
    "persist.drain_timeout_s": Entry(
        "s",
        "Time that a stop may take to process what the channels hold. Keep it below systemd's `TimeoutStopSec`.",
    ),
    "persist.spill_max_mb": Entry(
        "MB",
        "Largest size of the spill file, which takes events while the database cannot be written.",
    ),
    "strategy.name": Entry("", "Strategy that decides. An unknown name is an error that lists the known ones."),
    "strategy.short_window": Entry(
        "ticks",
        "Short moving average of `sma_crossover`; smaller than `strategy.long_window`.",
    ),
    "strategy.long_window": Entry("ticks", "Long moving average of `sma_crossover`."),
    "strategy.desired_size": Entry("units of the symbol", "Quantity of each order."),
    "strategy.confidence": Entry("", "Confidence that is stored with each signal, from 0 to 1."),
    "execution.fee_rate": Entry("fraction", "Fee of a simulated fill, as a fraction of its value: 0.001 is 0.1 %."),
    "execution.max_tick_age_ms": Entry(
        "ms",
        "Refuse the signal of a tick that is older than this (`STALE_DATA`). 0: never. Replays ignore it.",
    ),
    "feed.connect_timeout_s": Entry("s", "Time for name lookup, TCP, TLS and WebSocket handshake together."),
    "feed.idle_timeout_s": Entry(
        "s",
        "Reconnect when no frame arrives for this time; pongs count as frames. Must exceed `feed.ping_interval_s`.",
    ),
    "feed.ping_interval_s": Entry("s", "Time between two pings."),
    "feed.reconnect_budget_s": Entry(
        "s",
        "End with exit code 10 when no handshake completes for this time. 0: one attempt. Time that a server "
        "asks for with `Retry-After` does not count.",
    ),
    "feed.backoff_max_s": Entry("s", "Longest pause between two attempts to connect."),
    "feed.stable_after_s": Entry(
        "s",
        "After a connection has lasted this long, pauses between attempts start short again.",
    ),
    "feed.parse_error_limit": Entry(
        "frames",
        "End with exit code 11 after this many malformed frames in a row. 0: never.",
    ),
    "feed.max_message_bytes": Entry("bytes", "Close a connection that sends a longer message."),
    "feed.max_symbols": Entry("symbols", "Refuse ticks of further symbols."),
    "feed.history": Entry(
        "",
        "Trades from before the subscription that the exchange sends first: `drop` or `keep` them.",
    ),
    "feed.max_price_jump": Entry(
        "factor",
        "Refuse a price that is more than this factor above or below the median of the symbol's recent "
        "prices, until three prices in a row agree.",
    ),
    "metrics.address": Entry(
        "",
        "Address on which the Prometheus endpoint listens. Any address but a loopback one lets other machines read it.",
    ),
    "metrics.port": Entry("", "Port of the endpoint. 0: no endpoint."),
    "metrics.hosts": Entry("", "Further names, separated by commas, that scrapers may send in the `Host` header."),
    "notify.webhook_url": Entry(
        "",
        "URL (`http://` or `https://`) that receives alerts as JSON by POST. Not set: no webhook.",
    ),
    "notify.webhook_url_file": Entry(
        "",
        "File whose only line is the webhook's URL, in place of `notify.webhook_url`.",
    ),
    "notify.link_lost_s": Entry("s", "Send an alert when the link has been down for this time."),
    "notify.refusals_per_minute": Entry(
        "orders per minute",
        "Send an alert when this many orders were refused within a minute.",
    ),
}
"""By key. A test holds that every key of the model has an entry."""

VARIABLES: Final[Mapping[str, str]] = {
    "TRADEBOT_CONFIG": "Configuration file; `--config` has precedence.",
    "TRADEBOT_LOG_LEVEL": "DEBUG, INFO, WARNING or ERROR; `--log-level` has precedence.",
    "TRADEBOT_WS_URL": "URL of the feed, in place of `engine.ws_url` and `engine.ws_url_file`; `--ws-url` precedes it.",
    "TRADEBOT_WEBHOOK_URL": "URL of the webhook, in place of `notify.webhook_url` and `notify.webhook_url_file`.",
    "TRADEBOT_PYTHON": "Python that `bin/tradebot` and `bin/mockws` of a checkout run with, instead of `.venv`.",
    "STATE_DIRECTORY": "Directory of the default database; systemd sets it.",
    "CREDENTIALS_DIRECTORY": "Directory of `engine.ws_url_file` and `notify.webhook_url_file` where those are "
    "relative; systemd sets it.",
    "NOTIFY_SOCKET": "Socket for READY, STATUS and WATCHDOG messages; systemd sets it.",
    "WATCHDOG_USEC": "Time in which systemd expects a WATCHDOG message; systemd sets it.",
    "XDG_CONFIG_HOME": "Where `tradebot/tradebot.toml` is looked for; `~/.config` if not set.",
    "XDG_RUNTIME_DIR": "Where `tradebot prove` and the commands for units find the user's systemd, without root.",
    "XDG_STATE_HOME": "Where `tradebot/tradebot.db` is kept; `~/.local/state` if not set.",
    "HOME": "Your home directory: a leading `~` in paths.",
    "NO_COLOR": "When set, text logs have no colours.",
    "SSL_CERT_FILE": "File with trusted certificate authorities, as OpenSSL reads it.",
}
"""Every environment variable that the program reads, and what for."""

_TYPES: Final = ((shapes.BoolType, "boolean"), (shapes.IntType, "integer"), (shapes.FloatType, "number"))


def configuration_page() -> str:
    """docs/reference/configuration.md as text."""
    sections: dict[str, list[str]] = {}
    for name, key in KEYS.items():
        section, _, leaf = name.rpartition(".")
        sections.setdefault(section, []).append(_row(leaf, key, ENTRIES[name]))
    parts = [_HEAD]
    for section, rows in sections.items():
        title = f"`[{section}]`" if section else "Top level"
        parts.append(f"## {title}\n\n{_COLUMNS}" + "".join(rows))
    variables = "".join(f"| `{name}` | {meaning} |\n" for name, meaning in VARIABLES.items())
    parts.append(f"{_VARIABLES_HEAD}{variables}")
    return "\n".join(parts)


def _row(leaf: str, key: Key, entry: Entry) -> str:
    default = "none" if key.default is None else f"`{toml(key.default)}`"
    cells = (f"`{leaf}`", _type(key.shape), default, _bounds(key.shape), entry.unit, entry.meaning)
    return "".join(f"| {cell} " if cell else "| " for cell in cells) + "|\n"


def _type(shape: shapes.Type) -> str:
    if isinstance(shape, shapes.LiteralType):
        return "one of " + ", ".join(f"`{value}`" for value in shape.values)
    return next((name for kind, name in _TYPES if isinstance(shape, kind)), "text")


def _bounds(shape: shapes.Type) -> str:
    """Readable bounds of a number; the longest length of a text."""
    if isinstance(shape, shapes.StrType):
        return "" if shape.max_length is None else f"up to {_number(shape.max_length)} characters"
    if not isinstance(shape, shapes.IntType | shapes.FloatType):
        return ""
    low = f"above {_number(shape.gt)}" if shape.gt is not None else _number(shape.ge)
    return f"{low} to {_number(shape.le)}" if shape.gt is None else f"{low}, up to {_number(shape.le)}"


def _number(value: float | None) -> str:
    assert value is not None, "every number of the model has bounds"
    return f"{value:,.15g}".replace(",", " ") if abs(value) < 1e12 else f"{value:g}".replace("+", "")


_COLUMNS: Final = "| key | type | default | bounds | unit | meaning |\n|---|---|---|---|---|---|\n"

_HEAD: Final = """\
# Configuration

<!-- Generated: edit tradebot/config/reference.py, then run bin/write-reference. -->

The configuration is a TOML file: `--config=FILE`, else `$TRADEBOT_CONFIG`, else `~/.config/tradebot/tradebot.toml`. A
key that is not set has its default; an unknown key is an error (exit code 12). A value comes from the first of these
that sets it: command line (`--set KEY=VALUE`, or the key's own option), environment, throttle file
(`engine.sample_every` of a push feed), configuration file, default.
`tradebot check-config FILE` lists all mistakes of a file, `tradebot show-config` shows each value and where it comes
from, and [etc/tradebot/example.toml](../../etc/tradebot/example.toml) is a file with every key.

Words such as `SHADOW` are accepted in any case, with or without underscore (`MOCK_WS`, `mockws`). Paths are relative to
the working directory; a leading `~` is your home directory.

`mode`, `feed.history`, `engine.sample_every`, `engine.signal_every_n_ticks` and everything in `[strategy]`,
`[execution]` and `[risk_caps]` can change the result of a replay, and are part of its run id.
"""

_VARIABLES_HEAD: Final = """\
## Environment variables

An empty variable counts as not set.

| variable | meaning |
|---|---|
"""
