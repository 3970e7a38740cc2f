"""The schema, as peewee models: the one source of tables, columns, indexes and statements.

Columns that the original system had keep their names and types; what was added is nullable, so that older files open
and older queries work. Models are unbound: every query names its database (`query.execute(db)`), because one process
may hold two databases (a replay out of one into another).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from msgspec import Struct
from peewee import SQL, AutoField, BlobField, FloatField, IntegerField, Model, ModelIndex, SmallIntegerField, TextField

SCHEMA_VERSION: Final = 6


class RunRow(Model):
    """One run of the engine; `ticks` .. `notices`, `order_events` and `checkpoints` count the rows it stored and change
    in the same transaction as they.

    `pruned_*` count those of them that were deleted since, always the oldest; of orders with their signals, fills and
    transitions, those that were final. `feed` is the `feeds.id` of a push feed;
    null in runs of schema 3 until a restart joins them to their feed. `folded_trades` is of that time too: how many of
    its trades, the oldest, are summed up in the table `carried`. `result_rules` is `runs.RESULT_RULES` as it was when
    the run began; null in older files.
    """

    id = AutoField()
    run_id = TextField()
    version = TextField()
    mode = TextField()
    ingest = TextField()
    source = TextField()
    config_hash = TextField()
    first_start_ms = IntegerField()
    last_end_ms = IntegerField(null=True)
    exit_code = IntegerField(null=True)
    complete = SmallIntegerField(default=0)
    ledger = TextField(null=True)
    ticks = IntegerField(default=0)
    signals = IntegerField(default=0)
    orders = IntegerField(default=0)
    trades = IntegerField(default=0)
    notices = IntegerField(default=0)
    first_tick_id = IntegerField(null=True)
    last_tick_id = IntegerField(null=True)
    pruned_ticks = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])
    pruned_signals = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])
    pruned_orders = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])
    pruned_trades = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])
    pruned_notices = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])
    folded_trades = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])
    feed = IntegerField(null=True)
    result_rules = IntegerField(null=True)
    order_events = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])
    checkpoints = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])
    pruned_order_events = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])
    pruned_checkpoints = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])

    class Meta:
        table_name = "runs"
        legacy_table_names = False


class TickRow(Model):
    """A kept tick. `run` is `runs.id`; `event_id`, `seq` and `taker` are the sender's own, where it has them."""

    id = AutoField()
    symbol = TextField()
    price = FloatField()
    volume = FloatField()
    ts = IntegerField()
    run = IntegerField(null=True)
    event_id = TextField(null=True)
    seq = IntegerField(null=True)
    taker = TextField(null=True)

    class Meta:
        table_name = "ticks"


class NoticeRow(Model):
    """What a live feed said between two ticks (link up, lost, restored; a gap), after `ticks_before` ticks of its run.

    `ts` is when it was noticed (Unix ms); `symbol` and `missing` (trades) are those of a gap.
    """

    id = AutoField()
    run = IntegerField()
    kind = TextField()
    ts = IntegerField()
    detail = TextField()
    symbol = TextField(null=True)
    missing = IntegerField(null=True)
    ticks_before = IntegerField()

    class Meta:
        table_name = "notices"


class SignalRow(Model):
    """A decision of the strategy: `kind` is "SIDE:REASON", `value` the confidence."""

    id = AutoField()
    symbol = TextField()
    kind = TextField()
    value = FloatField()
    ts = IntegerField()
    event_id = TextField(null=True)
    desired_size = FloatField(null=True)
    price = FloatField(null=True)
    run = IntegerField(null=True)

    class Meta:
        table_name = "signals"


class OrderRow(Model):
    """An order that would have been sent, or was refused (status REJECTED and the reason).

    Of an order that was refused because of a limit, `refused_by` is the configuration key of the limit,
    `refused_limit` its value then, and `refused_value` what would have exceeded it, both in the unit of that key. Null
    for other refusals, and for orders of schema 4 and before. The columns after them are null in SHADOW and in rows of
    schema 5 and before; `core.events.Order` explains them.
    """

    id = AutoField()
    symbol = TextField()
    side = TextField()
    qty = FloatField()
    price = FloatField(null=True)
    status = TextField()
    ts = IntegerField()
    event_id = TextField(null=True)
    signal_id = TextField(null=True)
    reason = TextField(null=True)
    is_shadow = IntegerField(default=1, constraints=[SQL("DEFAULT 1")])
    run = IntegerField(null=True)
    refused_by = TextField(null=True)
    refused_value = FloatField(null=True)
    refused_limit = FloatField(null=True)
    order_type = TextField(null=True)
    limit_price = FloatField(null=True)
    stop_price = FloatField(null=True)
    time_in_force = TextField(null=True)
    expire_ts = IntegerField(null=True)
    post_only = SmallIntegerField(null=True)
    reduce_only = SmallIntegerField(null=True)
    parent_id = TextField(null=True)

    class Meta:
        table_name = "orders"


class TradeRow(Model):
    """A fill; `order_id` is its order's `event_id`. `liquidity` and what follows: as in `core.events.Fill`."""

    id = AutoField()
    event_id = TextField(constraints=[SQL("UNIQUE")])
    order_id = TextField()
    symbol = TextField()
    side = TextField()
    fill_qty = FloatField()
    fill_price = FloatField()
    fees = FloatField()
    ts = IntegerField()
    is_shadow = IntegerField(default=1, constraints=[SQL("DEFAULT 1")])
    run = IntegerField(null=True)
    liquidity = TextField(null=True)
    tick = IntegerField(null=True)
    slippage_bps = FloatField(null=True)
    after_gap = SmallIntegerField(null=True)

    class Meta:
        table_name = "trades"


class OrderEventRow(Model):
    """A transition of an order's status; see `core.events.OrderEvent`. Rows are only added, never changed.

    `run` is the run that stored it: after a restart, another one than its order's.
    """

    id = AutoField()
    run = IntegerField()
    order_id = TextField()
    n = IntegerField()
    status = TextField()
    reason = TextField()
    ts = IntegerField()
    tick = IntegerField()
    remaining = FloatField()

    class Meta:
        table_name = "order_events"


class CheckpointRow(Model):
    """The state of strategy, orders and account after the first `ticks_before` ticks of a run; the newest of a feed.

    `inputs` is how many notices of origin INPUT between that tick and the next one are included.
    """

    id = AutoField()
    run = IntegerField()
    ticks_before = IntegerField()
    inputs = IntegerField()
    state = BlobField()

    class Meta:
        table_name = "checkpoints"


class CarriedRow(Model):
    """What the runs of one push feed came to for one symbol, as schema 3 kept it; read when a feed is first met.

    `chain` is the `runs.id` of the first run of that mode, ingest and source. `last_side` is that of the symbol's last
    signal, as far as that may have been pruned. `net`, `cost` and `realized` are exact decimals, `price` the last
    fill's; all of them are null for a symbol that was never traded.
    """

    id = AutoField()
    chain = IntegerField()
    symbol = TextField()
    last_side = TextField(null=True)
    net = TextField(null=True)
    cost = TextField(null=True)
    realized = TextField(null=True)
    fees = FloatField(null=True)
    price = FloatField(null=True)

    class Meta:
        table_name = "carried"


class FeedRow(Model):
    """A push feed, by mode, ingest and `name` (exchange and market), and how far `restart_state` covers what it stored.

    Covered are all its runs before `run`, and of that one the first `run_ticks` ticks with the signals they gave;
    `ticks` in all. `run` is null until the first checkpoint. The fills in the positions are those of the runs before
    `fill_run`, and of that one those up to event id `fill_id`. `runs` counts its runs; `prices` is how many last prices
    of each symbol are kept.
    """

    id = AutoField()
    mode = TextField()
    ingest = TextField()
    name = TextField()
    runs = IntegerField(default=0)
    ticks = IntegerField(default=0)
    run = IntegerField(null=True)
    run_ticks = IntegerField(default=0)
    fill_run = IntegerField(null=True)
    fill_id = TextField(null=True)
    prices = IntegerField(default=0)

    class Meta:
        table_name = "feeds"


class RestartRow(Model):
    """What a restart needs to know of one symbol of a feed, as of what `feeds` says is covered.

    `last_tick` is the row id of the symbol's newest tick, `prices` a JSON array of its last prices, oldest first, as
    many as the strategy looks back. `last_side` is its last signal's, `since_signal` counts its ticks after that, or
    all of them. `sequence` (a `SequenceState` as MessagePack) and `prints` (a JSON array) are the feed's: what was seen
    of the sender's numbers, and recent prices as received. `net`, `cost` and `realized` are exact decimals, `price` the
    last fill's; null while it was never traded.
    """

    id = AutoField()
    feed = IntegerField()
    symbol = TextField()
    last_tick = IntegerField(default=0)
    prices = TextField(default="[]")
    last_side = TextField(null=True)
    since_signal = IntegerField(default=0)
    sequence = BlobField(null=True)
    prints = TextField(default="[]")
    net = TextField(null=True)
    cost = TextField(null=True)
    realized = TextField(null=True)
    fees = FloatField(null=True)
    price = FloatField(null=True)

    class Meta:
        table_name = "restart_state"


class OriginalRow(Model):
    """How many rows of a table belong to no run: those of the original system, counted once, when it is migrated."""

    id = AutoField()
    table = TextField(column_name="of_table")
    rows = IntegerField()

    class Meta:
        table_name = "original_rows"


EVENT_MODELS: Final[tuple[type[Model], ...]] = (TickRow, SignalRow, OrderRow, TradeRow)
_RESTART_MODELS: Final[tuple[type[Model], ...]] = (CarriedRow, FeedRow, RestartRow, OriginalRow)
_PAPER_MODELS: Final[tuple[type[Model], ...]] = (OrderEventRow, CheckpointRow)
MODELS: Final[tuple[type[Model], ...]] = (RunRow, *EVENT_MODELS, NoticeRow, *_RESTART_MODELS, *_PAPER_MODELS)


def fields_of(model: type[Model], row: type[Struct]) -> list[Any]:
    """The fields of `model` that a struct holds, in the order of the struct: to be selected and made one of."""
    return [model._meta.fields[name] for name in row.__struct_fields__]


def of_runs(model: type[Model], numbers: Iterable[int], column: str = "run") -> Any:
    """The rows of these runs. The numbers stand in the text: there may be more of them than SQLite has variables."""
    return model._meta.fields[column].in_(SQL(f"({', '.join(str(int(number)) for number in numbers)})"))


def _index(model: type[Model], name: str, *columns: str, unique: bool = False) -> ModelIndex:
    return ModelIndex(model, [model._meta.fields[column] for column in columns], unique=unique, name=name)


INDEXES: Final[tuple[ModelIndex, ...]] = (
    _index(RunRow, "uq_runs_run_id", "run_id", unique=True),
    _index(TickRow, "idx_ticks_ts", "ts"),
    _index(NoticeRow, "idx_notices_run", "run"),
    _index(SignalRow, "idx_signals_ts", "ts"),
    _index(SignalRow, "uq_signals_event_id", "event_id", unique=True),
    _index(OrderRow, "idx_orders_ts", "ts"),
    _index(OrderRow, "uq_orders_event_id", "event_id", unique=True),
    _index(TradeRow, "idx_trades_ts", "ts"),
    _index(TradeRow, "idx_trades_order_id", "order_id"),
    _index(CarriedRow, "uq_carried", "chain", "symbol", unique=True),
    _index(FeedRow, "uq_feeds", "mode", "ingest", "name", unique=True),
    _index(RestartRow, "uq_restart_state", "feed", "symbol", unique=True),
    _index(OriginalRow, "uq_original_rows", "table", unique=True),
    _index(OrderEventRow, "uq_order_events", "order_id", "n", unique=True),
    _index(OrderEventRow, "idx_order_events_run", "run", "tick"),
    _index(CheckpointRow, "uq_checkpoints", "run", "ticks_before", unique=True),
    _index(OrderRow, "idx_orders_parent_id", "parent_id").where(OrderRow.parent_id.is_null(False)),
)

_SAME_IN_ORDERS_NOW: Final = (
    "id", "run", "event_id", "signal_id", "symbol", "side", "qty", "price", "order_type", "limit_price", "stop_price",
    "time_in_force", "expire_ts", "post_only", "reduce_only", "parent_id", "is_shadow", "ts",
)  # fmt: skip
ORDERS_NOW: Final = "orders_now"
VIEWS: Final[dict[str, str]] = {
    ORDERS_NOW: f"""
    SELECT {", ".join(f"o.{name}" for name in _SAME_IN_ORDERS_NOW)},
        COALESCE(e.status, o.status) AS status,
        COALESCE(e.reason, o.reason) AS reason,
        COALESCE(e.remaining, CASE o.status WHEN 'FILLED' THEN 0.0 ELSE o.qty END) AS remaining,
        COALESCE(e.ts, o.ts) AS status_ts
    FROM orders AS o LEFT JOIN order_events AS e
        ON e.order_id = o.event_id AND e.n = (SELECT MAX(n) FROM order_events WHERE order_id = o.event_id)
    """,
}
"""Names and queries. `orders_now`: each order as its newest transition left it; without one, as it was stored."""
