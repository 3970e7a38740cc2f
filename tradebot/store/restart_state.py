"""What a restart of a push feed continues from: the tables `feeds` and `restart_state`, and what was stored after them.

`restart_state` is a function of what is stored: prices, last side, and positions of each symbol as its ticks, signals
and fills give them, up to where `feeds` says. What the feed itself remembers (the sender's numbers, recent prints)
comes with a `Checkpoint`, and never covers a tick that is not stored. Whatever the database holds, a start reads one
row a symbol and the few events after the newest checkpoint.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from peewee import SQL, SqliteDatabase, fn

from tradebot.core.errors import ConfigError
from tradebot.core.events import Checkpoint, Fill, SequenceState, Side, Tick
from tradebot.core.ids import arrival_of, event_prefix, tick_number_of
from tradebot.portfolio.positions import Positions, PositionState
from tradebot.store.bulk import insert_columns
from tradebot.store.bulk_read import column_types, fetch_rows, groups_of, rows_of
from tradebot.store.database import file_of
from tradebot.store.models import FeedRow, RestartRow, RunRow, SignalRow, TickRow, TradeRow, fields_of
from tradebot.store.saved_state import store_state

_TICKS_OF_FIRST_STEP: Final = 256
_TICKS_A_STEP: Final = 4096
_FILLS_A_STEP: Final = 1024
_SYMBOLS_A_STEP: Final = 100
_SYMBOLS_A_STATEMENT: Final = 10_000
_FILL_FIELDS: Final = fields_of(TradeRow, Fill)
_TICK_FIELDS: Final = fields_of(TickRow, Tick)
_FLOATS: Final = msgspec.json.Decoder(tuple[float, ...])
_SEQUENCE: Final = msgspec.msgpack.Decoder(SequenceState)
_PACKED: Final = msgspec.msgpack.Encoder()


class SymbolState(Struct, frozen=True, gc=False):
    """What is known of one symbol: a row of `restart_state`."""

    symbol: str
    last_tick: int = 0
    prices: tuple[float, ...] = ()
    last_side: Side | None = None
    since_signal: int = 0
    sequence: SequenceState | None = None
    prints: tuple[float, ...] = ()
    position: PositionState | None = None


class News(NamedTuple):
    """What was stored of one symbol since: `ticks` and their newest row id and prices; the last signal, if any.

    `since` counts the ticks after that signal's.
    """

    ticks: int
    last_tick: int
    prices: Collection[float]
    side: Side | None
    since: int


class Later(NamedTuple):
    """Ticks of a run that no checkpoint covers: `number` (from 1) of the first, and the row ids of first and last."""

    run: int
    run_id: str
    number: int
    first_id: int
    last_id: int

    @property
    def ticks(self) -> int:
        """How many, those between them that are not there included."""
        return self.last_id - self.first_id + 1


def advanced(state: SymbolState, news: News, prices_kept: int) -> SymbolState:
    """The state of a symbol after `news`, with at most `prices_kept` prices. Pure."""
    prices = (*state.prices, *news.prices)
    return replace(
        state,
        last_tick=max(state.last_tick, news.last_tick),
        prices=prices[max(0, len(prices) - prices_kept) :],
        last_side=state.last_side if news.side is None else news.side,
        since_signal=state.since_signal + news.ticks if news.side is None else news.since,
    )


def find_feed(db: SqliteDatabase, feed_id: int) -> dict[str, Any]:
    """The row of `feeds`. Inside the caller's error handling."""
    row: Any = FeedRow.select().where(FeedRow.id == feed_id).dicts().get(db)
    return dict(row)


def later_ticks(db: SqliteDatabase, feed: Mapping[str, Any], run: int, run_ticks: int) -> list[Later]:
    """What is stored of `feed` after its newest checkpoint, up to `run_ticks` ticks of `run`; oldest first."""
    fields = RunRow.id, RunRow.run_id, RunRow.ticks, RunRow.first_tick_id, RunRow.last_tick_id
    query = RunRow.select(*fields).where((RunRow.id >= (feed["run"] or 0)) & (RunRow.id <= run))
    query = query.where((RunRow.feed == feed["id"]) & RunRow.first_tick_id.is_null(False)).order_by(RunRow.id)
    found = []
    for no, run_id, ticks, first_id, last_id in query.tuples().execute(db):
        covered = feed["run_ticks"] if no == feed["run"] else 0
        if no == run:
            ticks, last_id = min(ticks, run_ticks), min(last_id, first_id + run_ticks - 1)
        if ticks > covered:
            found.append(Later(no, run_id, covered + 1, first_id + covered, last_id))
    return found


def read_later(db: SqliteDatabase, later: Iterable[Later]) -> Iterator[list[Tick]]:
    """Those ticks, oldest first, in chunks."""
    for part in later:
        query = TickRow.select(*_TICK_FIELDS).where(_of(part)).order_by(TickRow.id)
        for rows in rows_of(db, query):
            yield [Tick(*row) for row in rows]


def _of(part: Later) -> Any:
    return (TickRow.run == part.run) & TickRow.id.between(part.first_id, part.last_id)


def read_news(db: SqliteDatabase, part: Later, prices_kept: int) -> dict[str, News]:
    """What `part` adds to each symbol.

    Ticks are counted by SQLite and read from the newest back, as far as one of their prices or places still matters.
    """
    signals = _last_signals(db, part)
    at_signal = {symbol: part.first_id + number - part.number for symbol, (_side, number) in signals.items()}
    ticks, last_id = fn.COUNT(TickRow.id).alias("ticks"), fn.MAX(TickRow.id).alias("last_id")
    query = TickRow.select(TickRow.symbol, ticks, last_id).where(_of(part)).group_by(TickRow.symbol)
    rows = fetch_rows(db, query, {"symbol": str, "ticks": int, "last_id": int})
    counts = {symbol: (ticks, last_id) for symbol, ticks, last_id in rows}
    prices: dict[str, list[float]] = {symbol: [] for symbol in counts}
    since: dict[str, int] = {}
    seen = dict.fromkeys(counts, 0)
    open_symbols = set(counts)
    for tick_id, symbol, price in _newest_first(db, part):
        if symbol not in open_symbols:
            continue
        newest_first = prices[symbol]
        if len(newest_first) < prices_kept:
            newest_first.append(price)
        if tick_id == at_signal.get(symbol):
            since[symbol] = seen[symbol]
        seen[symbol] += 1
        if seen[symbol] >= prices_kept and tick_id <= at_signal.get(symbol, tick_id):
            open_symbols.remove(symbol)
            if not open_symbols:
                break
    return {
        symbol: News(
            ticks,
            last_id,
            prices[symbol][::-1],
            signals[symbol][0] if symbol in since else None,
            since.get(symbol, ticks),
        )
        for symbol, (ticks, last_id) in counts.items()
    }


def _newest_first(db: SqliteDatabase, part: Later) -> Iterator[list[Any]]:
    """Id, symbol and price of the ticks of `part`."""
    rows = _TICKS_OF_FIRST_STEP
    last_id = part.last_id
    while last_id >= part.first_id:
        first_id = max(part.first_id, last_id - rows + 1)
        step = part._replace(first_id=first_id, last_id=last_id)
        query = TickRow.select(TickRow.id, TickRow.symbol, TickRow.price).where(_of(step))
        yield from sorted(fetch_rows(db, query, {"id": int, "symbol": str, "price": float}), reverse=True)
        last_id = first_id - 1
        rows = _TICKS_A_STEP


def _last_signals(db: SqliteDatabase, part: Later) -> dict[str, tuple[Side, int]]:
    """Side and tick number of each symbol's last signal in `part`: event ids grow with the number of the tick."""
    low, high = event_prefix(part.run_id, part.number), event_prefix(part.run_id, part.number + part.ticks)
    of_ids = (SignalRow.event_id >= low) & (SignalRow.event_id < high)
    # SQLite takes the other columns from the row that has the maximum: https://www.sqlite.org/lang_select.html#bareagg
    newest = fn.MAX(SignalRow.event_id).alias("event_id")
    query = SignalRow.select(SignalRow.symbol, SignalRow.kind, newest).where(of_ids & (SignalRow.run == part.run))
    found: dict[str, tuple[Side, int]] = {}
    columns = {"symbol": str, "kind": str, "event_id": str}
    for symbol, kind, event_id in fetch_rows(db, query.group_by(SignalRow.symbol), columns):
        found[symbol] = kind.split(":", 1)[0], tick_number_of(event_id)
    return found


class _Fills(NamedTuple):
    """Fills that are in no position yet, and where that leads to."""

    fills: list[Fill]
    run: int | None
    last_id: str | None


def _later_fills(db: SqliteDatabase, feed: Mapping[str, Any], run: int) -> _Fills:
    """In the order of their arrival."""
    query = RunRow.select(RunRow.id, RunRow.run_id).where((RunRow.feed == feed["id"]) & (RunRow.trades > 0))
    runs = query.where((RunRow.id >= (feed["fill_run"] or 0)) & (RunRow.id <= run)).order_by(RunRow.id)
    fills: list[Fill] = []
    done = feed["fill_run"], feed["fill_id"]
    for no, run_id in runs.tuples().execute(db):
        after = feed["fill_id"] if no == feed["fill_run"] else None
        low, high = after or event_prefix(run_id, 0), f"{run_id}."
        of_run = list(_fills_between(db, no, low, high))
        if of_run:
            fills += sorted(of_run, key=lambda fill: arrival_of(fill.event_id))
            done = no, of_run[-1].event_id
    return _Fills(fills, *done)


def _fills_between(db: SqliteDatabase, run: int, low: str, high: str) -> Iterator[Fill]:
    """The fills of `run` whose event ids lie between these, in the order of their ids."""
    found = _FILLS_A_STEP
    while found == _FILLS_A_STEP:
        of_ids = (TradeRow.event_id > low) & (TradeRow.event_id < high) & (TradeRow.run == run)
        query = TradeRow.select(*_FILL_FIELDS).where(of_ids).order_by(TradeRow.event_id).limit(_FILLS_A_STEP)
        rows = fetch_rows(db, query, column_types(_FILL_FIELDS))
        for fill in sorted((Fill(*row) for row in rows), key=lambda fill: fill.event_id):
            low = fill.event_id
            yield fill
        found = len(rows)


def store_checkpoint(db: SqliteDatabase, run: int, checkpoint: Checkpoint) -> None:
    """Bring `restart_state` up to the first `ticks_before` ticks of `run`: inside the caller's transaction.

    These must be stored, or be stored in this transaction before. Blocks as SQLite does; the same checkpoint again
    changes nothing. Raises sqlite3 errors as they come, ConfigError (another program wrote into the table).
    """
    feed_id = RunRow.select(RunRow.feed).where(RunRow.id == run).scalar(db)
    if feed_id is None:
        return
    feed = find_feed(db, feed_id)
    memories = {memory.symbol: memory for memory in checkpoint.symbols}
    later = later_ticks(db, feed, run, checkpoint.ticks_before)
    news = [read_news(db, part, checkpoint.prices) for part in later]
    fills = _later_fills(db, feed, run)
    touched = {*memories, *(fill.symbol for fill in fills.fills)}.union(*news)
    states = read_states(db, feed_id, touched)
    for part in news:
        for symbol, one in part.items():
            state = states.get(symbol, SymbolState(symbol))
            states[symbol] = advanced(state, one, checkpoint.prices)
    _settle(states, fills.fills)
    for symbol, memory in memories.items():
        state = states.get(symbol, SymbolState(symbol))
        states[symbol] = replace(state, sequence=memory.sequence, prints=memory.prints)
    write_states(db, feed_id, states)
    FeedRow.update(
        ticks=feed["ticks"] + sum(one.ticks for part in news for one in part.values()),
        run=run,
        run_ticks=max(checkpoint.ticks_before, feed["run_ticks"] if feed["run"] == run else 0),
        fill_run=fills.run,
        fill_id=fills.last_id,
        prices=checkpoint.prices,
    ).where(FeedRow.id == feed_id).execute(db)
    store_state(db, feed_id, run, checkpoint)


def _settle(states: dict[str, SymbolState], fills: Sequence[Fill]) -> None:
    """Take fills into the positions."""
    traded = {fill.symbol for fill in fills}
    known = [state.position for symbol, state in states.items() if symbol in traded and state.position is not None]
    positions = Positions.of(known)
    for fill in fills:
        positions.apply(fill)
    for position in positions.states():
        state = states.get(position.symbol, SymbolState(position.symbol))
        states[position.symbol] = replace(state, position=position)


def read_states(db: SqliteDatabase, feed_id: int, symbols: Iterable[str] | None = None) -> dict[str, SymbolState]:
    """The stored states of a feed: of `symbols`, or of all, newest traded first. Raises ConfigError."""
    query = RestartRow.select().where(RestartRow.feed == feed_id).order_by(RestartRow.last_tick.desc(), RestartRow.id)
    if symbols is None:
        return {row["symbol"]: _state(db, row) for row in query.dicts().execute(db)}
    found = {}
    columns = column_types(RestartRow._meta.sorted_fields)
    for some in groups_of(symbols, _SYMBOLS_A_STEP):
        for values in fetch_rows(db, query.where(_symbol_in(some)), columns):
            row = dict(zip(columns, values, strict=True))
            found[row["symbol"]] = _state(db, row)
    return found


def _symbol_in(symbols: Sequence[str]) -> Any:
    """Written out, since peewee takes 40 us for each value of a list."""
    return RestartRow.symbol.in_(SQL(f"({', '.join('?' * len(symbols))})", symbols))


def _state(db: SqliteDatabase, row: dict[str, Any]) -> SymbolState:
    symbol = row["symbol"]
    try:
        position = None
        if row["net"] is not None:
            net, cost, realized = (Decimal(row[name]) for name in ("net", "cost", "realized"))
            position = PositionState(symbol, net, cost, realized, float(row["fees"]), float(row["price"]))
        if row["last_side"] not in (None, "BUY", "SELL"):
            raise ValueError(f"last_side is {row['last_side']!r}")
        sequence = None if row["sequence"] is None else _SEQUENCE.decode(row["sequence"])
        prices, prints = _FLOATS.decode(row["prices"]), _FLOATS.decode(row["prints"])
    except (InvalidOperation, TypeError, ValueError) as error:
        raise ConfigError(
            f"database {file_of(db)}: table restart_state, row with id {row['id']}: {error}; another program wrote it:"
            " restore a backup"
        ) from error
    since = row["since_signal"]
    return SymbolState(symbol, row["last_tick"], prices, row["last_side"], since, sequence, prints, position)


def write_states(db: SqliteDatabase, feed_id: int, states: Mapping[str, SymbolState]) -> None:
    """Replace the rows of these symbols: inside the caller's transaction."""
    for some in groups_of(states, _SYMBOLS_A_STATEMENT):
        RestartRow.delete().where((RestartRow.feed == feed_id) & _symbol_in(some)).execute(db)
        rows = [states[symbol] for symbol in some]
        places = [state.position for state in rows]
        columns: dict[str, list[Any]] = {
            "symbol": [state.symbol for state in rows],
            "last_tick": [state.last_tick for state in rows],
            "prices": [msgspec.json.encode(state.prices).decode() for state in rows],
            "last_side": [state.last_side for state in rows],
            "since_signal": [state.since_signal for state in rows],
            "sequence": [None if state.sequence is None else _PACKED.encode(state.sequence) for state in rows],
            "prints": [msgspec.json.encode(state.prints).decode() for state in rows],
            "net": [None if place is None else str(place.net) for place in places],
            "cost": [None if place is None else str(place.cost) for place in places],
            "realized": [None if place is None else str(place.realized) for place in places],
            "fees": [None if place is None else place.fees for place in places],
            "price": [None if place is None else place.price for place in places],
        }
        insert_columns(db, RestartRow, {"feed": feed_id}, columns)
