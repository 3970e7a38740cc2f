"""Positions of the runs of one push feed, kept in the table `carried`, and the side of each last signal.

A restart continues from there and reads only the fills that came later; and what is summed up there may be pruned.
The table is a function of the fills that `runs.folded_trades` counts, in the order of their arrival: exactly the
positions that replaying them all would give.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from msgspec import Struct
from peewee import SqliteDatabase, fn

from tradebot.core.errors import ConfigError
from tradebot.core.events import Fill, Side
from tradebot.portfolio.positions import Positions, PositionState
from tradebot.store.database import file_of
from tradebot.store.errors import storage_errors
from tradebot.store.models import CarriedRow, RunRow, TradeRow, fields_of, of_runs

_CHUNK_ROWS: Final = 10_000
_FILL_FIELDS: Final = fields_of(TradeRow, Fill)


class _Base(Struct, frozen=True):
    """What is stored by now, as of one moment: the sums, how many fills of each run are in them, and what is not."""

    positions: Positions
    sides: dict[str, Side | None]
    folded: dict[int, int]
    trades: dict[int, int]
    first_id: int
    """Row id of the first fill that is not in the sums; all others that are not come later, in whichever run."""
    last_id: int


def chain_of(runs: Sequence[int]) -> int:
    """What the rows of `carried` call the feed that these runs listened to: its first run, which is never deleted."""
    return min(runs)


def fold_fills(db: SqliteDatabase, runs: Sequence[int], sides: Mapping[str, Side] | None = None) -> Positions:
    """Add the later fills to the stored sums; returns the positions after all fills of `runs`.

    `runs` are all of one push feed; `sides` those of the last signals, where they are to be kept too. Reads in short
    transactions and writes in one, so that it may be done beside an engine; another one that does the same at the same
    time does no harm. Raises StorageUnavailable, ConfigError (another program wrote into the table).
    """
    if not runs:
        return Positions()
    with storage_errors():
        while True:
            with db.atomic():
                base = _read(db, runs)
            for fill in _later_fills(db, base):
                base.positions.apply(fill)
            if base.folded == base.trades and sides is None:
                return base.positions
            with db.atomic("IMMEDIATE"):
                if _counts(db, runs)[1] == base.folded:
                    _write(db, runs, base, sides or {})
                    return base.positions


def read_sides(db: SqliteDatabase, runs: Sequence[int]) -> dict[str, Side]:
    """The side of each symbol's last signal, as kept. Inside the caller's error handling."""
    query = CarriedRow.select(CarriedRow.symbol, CarriedRow.last_side).where(CarriedRow.chain == chain_of(runs))
    return {symbol: side for symbol, side in query.tuples().execute(db) if side is not None}


def _counts(db: SqliteDatabase, runs: Sequence[int]) -> tuple[dict[int, int], dict[int, int]]:
    query = RunRow.select(RunRow.id, RunRow.trades, RunRow.folded_trades).where(of_runs(RunRow, runs, "id"))
    rows = list(query.tuples().execute(db))
    return {no: trades for no, trades, _folded in rows}, {no: folded for no, _trades, folded in rows}


def _read(db: SqliteDatabase, runs: Sequence[int]) -> _Base:
    trades, folded = _counts(db, runs)
    firsts = [_first_later(db, no, trades[no] - folded[no]) for no in trades if trades[no] > folded[no]]
    states, sides = [], {}
    for row in CarriedRow.select().where(CarriedRow.chain == chain_of(runs)).dicts().execute(db):
        sides[row["symbol"]] = row["last_side"]
        if row["net"] is not None:
            states.append(_state(db, row))
    last_id = TradeRow.select(fn.MAX(TradeRow.id)).scalar(db) or 0
    return _Base(Positions.of(states), sides, folded, trades, min(firsts, default=last_id + 1), last_id)


def _state(db: SqliteDatabase, row: dict[str, Any]) -> PositionState:
    try:
        net, cost, realized = (Decimal(row[name]) for name in ("net", "cost", "realized"))
        return PositionState(row["symbol"], net, cost, realized, float(row["fees"]), float(row["price"]))
    except (InvalidOperation, TypeError, ValueError) as error:
        raise ConfigError(
            f"database {file_of(db)}: table carried, row with id {row['id']}: is not a position; another program wrote"
            " it: restore a backup"
        ) from error


def _first_later(db: SqliteDatabase, run: int, later: int) -> int:
    """Row id of the first of the run's `later` newest fills. Walks over those only, from the newest row back."""
    query = TradeRow.select(TradeRow.id).where(TradeRow.run == run).order_by(TradeRow.id.desc())
    return query.offset(later - 1).limit(1).scalar(db) or 0


def _later_fills(db: SqliteDatabase, base: _Base) -> Iterator[Fill]:
    """Fills that are stored but not in the sums, in the order of their arrival."""
    after = base.first_id - 1
    later = [no for no, trades in base.trades.items() if trades > base.folded[no]]
    query = TradeRow.select(TradeRow.id, *_FILL_FIELDS).where(of_runs(TradeRow, later))
    while later:
        chunk = query.where((TradeRow.id > after) & (TradeRow.id <= base.last_id)).order_by(TradeRow.id)
        sql, params = chunk.limit(_CHUNK_ROWS).bind(db).sql()
        rows = db.connection().execute(sql, params).fetchall()
        for row in rows:
            yield Fill(*row[1:])
        if len(rows) < _CHUNK_ROWS:
            return
        after = rows[-1][0]


def _write(db: SqliteDatabase, runs: Sequence[int], base: _Base, sides: Mapping[str, Side]) -> None:
    chain = chain_of(runs)
    states = {state.symbol: state for state in base.positions.states()}
    kept = {**base.sides, **sides}
    CarriedRow.delete().where(CarriedRow.chain == chain).execute(db)
    for symbol in sorted({*states, *kept}):
        values: dict[str, Any] = {"chain": chain, "symbol": symbol, "last_side": kept.get(symbol)}
        if symbol in states:
            state = states[symbol]
            values |= {"net": str(state.net), "cost": str(state.cost), "realized": str(state.realized)}
            values |= {"fees": state.fees, "price": state.price}
        CarriedRow.insert(values).execute(db)
    for no, trades in base.trades.items():
        if trades != base.folded[no]:
            RunRow.update(folded_trades=trades).where(RunRow.id == no).execute(db)
