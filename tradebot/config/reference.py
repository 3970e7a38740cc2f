"""The reference page of the configuration: every key with type, default, bounds, unit and meaning. Pure.

Types, defaults and bounds come from `tradebot.config.model`, so the page cannot disagree with the program;
`bin/write-reference` writes it, and a test compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from msgspec import inspect as shapes

from tradebot.config.validation import INSTRUMENT_KEYS, KEYS, Key, toml


class Entry(NamedTuple):
    """The unit of a key's value ("" without one), and the meaning of the key."""

    unit: str
    meaning: str


ENTRIES: Final[Mapping[str, Entry]] = {
    "mode": Entry(
        "",
        "`SHADOW` records the orders that it would send, each as filled immediately. `PAPER` simulates a venue, which "
        "fills orders from the trades that follow. This release refuses `LIVE`.",
    ),
    "live_armed": Entry("", "LIVE requires `true` here, in addition to the other conditions of the LIVE gate."),
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
        "Source of ticks: generated, a file or database (`replay`), `bin/mockws`, or an exchange (`realws`).",
    ),
    "engine.tick_interval_ms": Entry("ms", "Time between two ticks of the synthetic feed."),
    "engine.signal_every_n_ticks": Entry("ticks", "Number of ticks between two signals of the strategy `periodic`."),
    "engine.heartbeat_interval_secs": Entry("s", "Time between two `HEARTBEAT` log lines."),
    "engine.run_seconds": Entry("s", "End the run with exit code 0 after this time. Not set: no limit."),
    "engine.ws_url": Entry(
        "",
        "WebSocket URL of the feed (`ws://` or `wss://`). For a URL with credentials use "
        "`engine.ws_url_file` or `TRADEBOT_WS_URL`.",
    ),
    "engine.ws_url_file": Entry(
        "",
        "File that contains only the feed's URL. A relative path is relative to `$CREDENTIALS_DIRECTORY` if "
        "systemd sets it.",
    ),
    "engine.ws_source": Entry("", "Entry of `ws_sources.toml` to connect to; `tradebot sources` lists the entries."),
    "engine.sample_every": Entry(
        "ticks",
        "Keep every N-th valid tick. The others are counted, but neither given to the strategy nor stored. Not applied "
        "to stored ticks (`--replay-db`), which were sampled when they were stored.",
    ),
    "engine.replay_file": Entry("", "File to replay: JSON lines, also `.gz` or `.zst`; `-` is standard input."),
    "risk_caps.max_exposure_usd": Entry(
        "USD",
        "Refuse an order that would raise the sum of the absolute values of all positions above this.",
    ),
    "risk_caps.max_symbol_exposure_usd": Entry(
        "USD",
        "Refuse an order that would raise the absolute value of its symbol's position above this.",
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
        "SQLite's `PRAGMA synchronous`. With FULL a power loss loses no committed batch; NORMAL is faster, and "
        "a power loss may lose the last batches.",
    ),
    "persist.storage_retry_s": Entry("s", "Retry a locked or full database for this time, then end with exit code 13."),
    "persist.drain_timeout_s": Entry(
        "s",
        "Time that a stop may take to drain the channels. Must be below systemd's `TimeoutStopSec`.",
    ),
    "persist.spill_max_mb": Entry(
        "MB",
        "Largest size of the spill file, which holds events while the database cannot be written.",
    ),
    "strategy.name": Entry("", "Name of the strategy. The error message for an unknown name lists the known ones."),
    "strategy.short_window": Entry(
        "ticks",
        "Window of the short moving average of `sma_crossover`; must be smaller than `strategy.long_window`.",
    ),
    "strategy.long_window": Entry("ticks", "Window of the long moving average of `sma_crossover`."),
    "strategy.desired_size": Entry("units of the symbol", "Quantity of each order."),
    "strategy.confidence": Entry("", "Confidence that is stored with each signal, from 0 to 1."),
    "execution.fee_rate": Entry("fraction", "Fee of a simulated fill, as a fraction of its value: 0.001 is 0.1 %."),
    "execution.max_tick_age_ms": Entry(
        "ms",
        "Refuse the signal of a tick that is older than this (`STALE_DATA`). 0: never. Replays ignore it.",
    ),
    "execution.order_type": Entry(
        "", "PAPER: a signal makes a `market` order, or a `limit` order that stays until it is filled."
    ),
    "execution.limit_offset_bps": Entry(
        "bps",
        "PAPER: a limit order to buy is priced this far below the price of the signal's tick, one to sell this far "
        "above it. Negative: on the other side, so that it fills like a market order with a worst price.",
    ),
    "execution.post_only": Entry(
        "",
        "PAPER: a limit order that would take liquidity when it reaches the venue is refused (`POST_ONLY`). Needs "
        '`order_type = "limit"`.',
    ),
    "paper.latency_ms": Entry("ms", "Time from a signal to the moment at which the venue has the order."),
    "paper.cancel_latency_ms": Entry("ms", "Time from a cancel request to the moment at which the venue has it."),
    "paper.participation": Entry("fraction", "Share of a trade's volume that all own orders together may fill."),
    "paper.slippage_bps": Entry("bps", "How much worse than the quote an order that takes liquidity is filled."),
    "paper.queue": Entry(
        "",
        "When a resting order is filled by trades exactly at its limit. `through`: never, only by trades beyond it; "
        "`trades`: after an estimated queue ahead of it has traded; `front`: immediately.",
    ),
    "paper.market_timeout_ms": Entry(
        "ms", "Cancel what a market order has not filled after this time (`NO_LIQUIDITY`), counted from its activation."
    ),
    "paper.on_gap": Entry(
        "", "After missing trades or a lost link, `keep` open orders of the symbols concerned, or `cancel` them."
    ),
    "account.initial_balance": Entry("USD", "Balance of the account of PAPER, in its currency, US dollars."),
    "account.allow_short": Entry(
        "", "PAPER accepts a sale of more than is held; otherwise it is refused (`NO_BALANCE`)."
    ),
    "account.max_leverage": Entry(
        "factor",
        "PAPER accepts orders up to this multiple of the account's equity. 1: what is bought is paid from the balance. "
        "Funding and interest are not modelled.",
    ),
    "breakers.max_drawdown_pct": Entry(
        "%",
        "Trip when equity is this far below its peak (`MAX_DRAWDOWN`), until `tradebot resume`, which makes the equity "
        "of that moment the peak. Not set: off.",
    ),
    "breakers.daily_loss_usd": Entry(
        "USD",
        "Trip when equity is this much below that of the last tick before 00:00 UTC (`DAILY_LOSS`), until the first "
        "tick of the next day (UTC). Not set: off.",
    ),
    "breakers.losses_in_a_row": Entry(
        "trades",
        "Trip when this many trades in a row lost (`LOSSES_IN_A_ROW`), until `tradebot resume`. A trade is flat to "
        "flat, after fees. Not set: off.",
    ),
    "breakers.refusals_per_minute": Entry(
        "orders",
        "Trip when this many orders were refused within 60 s (`REFUSALS_PER_MINUTE`), for 60 s. Refusals by breakers "
        "and halts do not count. Not set: off.",
    ),
    "breakers.orders_per_minute": Entry(
        "orders", "Trip when this many orders were accepted within 60 s (`ORDERS_PER_MINUTE`), for 60 s. Not set: off."
    ),
    "breakers.stale_ms": Entry(
        "ms",
        "Trip for a symbol at its first tick more than this after its previous one (`STALE_MARKET`), until its next "
        "tick that follows within this time. Not set: off.",
    ),
    "breakers.cancel_open": Entry("", "A breaker that trips, and a halt, also cancel the open orders of PAPER."),
    "feed.connect_timeout_s": Entry("s", "Total time for DNS lookup, TCP, TLS and WebSocket handshake."),
    "feed.idle_timeout_s": Entry(
        "s",
        "Reconnect when no frame arrives for this time; pongs count as frames. Must exceed `feed.ping_interval_s`.",
    ),
    "feed.ping_interval_s": Entry("s", "Time between two pings."),
    "feed.reconnect_budget_s": Entry(
        "s",
        "End with exit code 10 if no handshake completes for this time. 0: one attempt. A wait that a server "
        "requests with `Retry-After` does not count.",
    ),
    "feed.backoff_max_s": Entry("s", "Longest pause between two attempts to connect."),
    "feed.stable_after_s": Entry(
        "s",
        "A connection that lasts this long resets the backoff.",
    ),
    "feed.parse_error_limit": Entry(
        "frames",
        "End with exit code 11 after this many malformed frames in a row. 0: never.",
    ),
    "feed.max_message_bytes": Entry("bytes", "Close a connection that sends a longer message."),
    "feed.max_symbols": Entry("symbols", "Refuse ticks of further symbols."),
    "feed.history": Entry(
        "",
        "`drop` or `keep` trades from before the subscription, which some exchanges send first.",
    ),
    "feed.max_price_jump": Entry(
        "factor",
        "Refuse a price that is more than this factor above or below the median of the symbol's recent "
        "prices, until three prices in a row agree.",
    ),
    "metrics.address": Entry(
        "",
        "Address of the Prometheus endpoint. With an address other than loopback, other machines can read it.",
    ),
    "metrics.port": Entry("", "Port of the endpoint. 0: no endpoint."),
    "metrics.hosts": Entry("", "Additional names, separated by commas, that are accepted in the `Host` header."),
    "notify.webhook_url": Entry(
        "",
        "URL (`http://` or `https://`) that receives each alert as JSON in a POST request. Not set: no webhook.",
    ),
    "notify.webhook_url_file": Entry(
        "",
        "File that contains only the webhook's URL; replaces `notify.webhook_url`.",
    ),
    "notify.link_lost_s": Entry("s", "Send an alert when the link has been down for this time."),
    "notify.refusals_per_minute": Entry(
        "orders per minute",
        "Send an alert when this many orders are refused within a minute.",
    ),
}
"""By key. A test holds that every key of the model has an entry."""

INSTRUMENT_ENTRIES: Final[Mapping[str, Entry]] = {
    "base": Entry("", "Currency that is traded. Not set: as the symbol or the exchange says."),
    "quote": Entry("", "Currency of prices, profit and fees. Not set: as the symbol or the exchange says."),
    "tick_size": Entry("quote currency", "Step of prices."),
    "lot_size": Entry("units of the symbol", "Step of quantities: an order is rounded down to a multiple of it."),
    "min_qty": Entry("units of the symbol", "Refuse a smaller quantity (`MIN_QTY`). A multiple of `lot_size`."),
    "min_notional": Entry("quote currency", "Refuse an order of a smaller value (`MIN_NOTIONAL`)."),
    "maker_fee": Entry("fraction", "Fee of a fill that waited in the market; below 0: a rebate. PAPER only."),
    "taker_fee": Entry("fraction", "Fee of a fill that did not wait; all fills of SHADOW are such."),
    "contract_size": Entry(
        "base currency",
        "What one unit of quantity stands for, where quantities are contracts. In units of the quote currency where "
        "`inverse` is true.",
    ),
    "inverse": Entry("", "The contract is settled in its base currency, which `base` must name. PAPER only."),
}
"""By the last part of the key of an entry of [instruments]."""

VARIABLES: Final[Mapping[str, str]] = {
    "TRADEBOT_CONFIG": "Configuration file; `--config` overrides it.",
    "TRADEBOT_LOG_LEVEL": "DEBUG, INFO, WARNING or ERROR; `--log-level` overrides it.",
    "TRADEBOT_WS_URL": "URL of the feed; overrides `engine.ws_url` and `engine.ws_url_file`; `--ws-url` overrides it.",
    "TRADEBOT_WEBHOOK_URL": "URL of the webhook; overrides `notify.webhook_url` and `notify.webhook_url_file`.",
    "TRADEBOT_PYTHON": "Python interpreter for `bin/tradebot` and `bin/mockws` in a checkout, instead of `.venv`.",
    "STATE_DIRECTORY": "Directory of the default database; systemd sets it.",
    "CREDENTIALS_DIRECTORY": "Directory of `engine.ws_url_file` and `notify.webhook_url_file` if those are "
    "relative; systemd sets it.",
    "NOTIFY_SOCKET": "Socket for READY, STATUS and WATCHDOG messages; systemd sets it.",
    "WATCHDOG_USEC": "Interval within which systemd expects a WATCHDOG message; systemd sets it.",
    "XDG_CONFIG_HOME": "Directory that contains `tradebot/tradebot.toml`; `~/.config` if not set.",
    "XDG_RUNTIME_DIR": "Directory where commands run without root find the user's systemd.",
    "XDG_STATE_HOME": "Directory that contains `tradebot/tradebot.db`; `~/.local/state` if not set.",
    "HOME": "Home directory; replaces a leading `~` in paths.",
    "NO_COLOR": "If set and not empty, turns colours off.",
    "SSL_CERT_FILE": "File with trusted certificate authorities, read by OpenSSL.",
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
    instrument = "".join(_row(leaf, key, INSTRUMENT_ENTRIES[leaf]) for leaf, key in INSTRUMENT_KEYS.items())
    parts.append(f"{_INSTRUMENTS_HEAD}{_COLUMNS}{instrument}")
    parts.append(_RATES)
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
    """The bounds of a number, or the maximum length of a text, for people."""
    if isinstance(shape, shapes.StrType):
        return "" if shape.max_length is None else f"up to {_number(shape.max_length)} characters"
    if not isinstance(shape, shapes.IntType | shapes.FloatType):
        return ""
    low = f"above {_number(shape.gt)}" if shape.gt is not None else _number(shape.ge)
    return f"{low} to {_number(shape.le)}" if shape.gt is None else f"{low}, up to {_number(shape.le)}"


def _number(value: float | None) -> str:
    assert value is not None, "every number of the model has bounds"
    return f"{value:,.15g}".replace(",", " ") if abs(value) < 1e12 else f"{value:g}".replace("+", "")


_INSTRUMENTS_HEAD: Final = """\
## `[instruments."SYMBOL"]`

What is known of one symbol, as the feed writes it: `[instruments."BTCUSDT"]`. All keys are optional. Fees that are not
set are `execution.fee_rate`; other keys that are not set neither round nor refuse anything. A market whose quantities
are contracts, or that is inverse, needs an entry: without one its orders are refused (`NO_INSTRUMENT`).

"""

_RATES: Final = """\
## `[rates]`

What one unit of a currency is worth in US dollars, the currency of the risk caps and of the account: a number (above 0,
up to 1 000 000 000), or the last price of a symbol that the run receives, times the rate of that symbol's own currency.

```toml
[rates]
EUR = 1.08
BTC = { symbol = "BTCUSDT" }
```

USDT, USDC, DAI, FDUSD, PYUSD and TUSD count 1:1 unless they have a rate here. Orders in another currency without a rate
are refused (`NO_RATE`). On the command line: `--set rates.EUR=1.08`, `--set rates.BTC=BTCUSDT`,
`--set 'instruments."BTCUSDT".tick_size=0.01'`.
"""

_COLUMNS: Final = "| key | type | default | bounds | unit | meaning |\n|---|---|---|---|---|---|\n"

_HEAD: Final = """\
# Configuration

<!-- Generated: edit tradebot/config/reference.py, then run bin/write-reference. -->

The configuration is a TOML file: `--config=FILE`, else `$TRADEBOT_CONFIG`, else `~/.config/tradebot/tradebot.toml`. An
unknown key is an error (exit code 12). Each value comes from the first of these sources that sets it: command line
(`--set KEY=VALUE`, or the key's own option), environment, throttle file (only `engine.sample_every` of a push feed),
configuration file, default.

`tradebot check-config FILE` lists all errors of a file, `tradebot show-config` shows each value and its source, and
[etc/tradebot/example.toml](../../etc/tradebot/example.toml) contains every key.

Words such as `SHADOW` are accepted in any case, with or without underscore (`MOCK_WS`, `mockws`). Relative paths are
relative to the working directory; a leading `~` is your home directory.

`mode`, `feed.history`, `engine.sample_every`, `engine.signal_every_n_ticks` and all keys in `[strategy]`,
`[execution]`, `[paper]`, `[risk_caps]`, `[account]`, `[breakers]`, `[instruments]` and `[rates]` can change the result
of a replay and are therefore part of its run id.
"""

_VARIABLES_HEAD: Final = """\
## Environment variables

An empty variable counts as not set.

| variable | meaning |
|---|---|
"""
