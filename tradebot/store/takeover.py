"""The start of a push feed: what it takes over from its earlier runs, read and written in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace
from peewee import SqliteDatabase

from tradebot.core.events import Checkpoint, SequenceState, SymbolMemory, Tick
from tradebot.portfolio.positions import Positions
from tradebot.store import joining
from tradebot.store.errors import storage_errors
from tradebot.store.models import RunRow
from tradebot.store.restart_state import (
    Later,
    SymbolState,
    find_feed,
    later_ticks,
    read_later,
    read_news,
    read_states,
    store_checkpoint,
    write_states,
)


class Memory(Protocol):
    """What a feed remembers across restarts; used by one thread at a time."""

    def restore(self, known: Sequence[tuple[str, SequenceState | None, tuple[float, ...]]]) -> None:
        """Continue from what is stored of each symbol, the one traded last first: its sequence and recent prints."""
        ...

    def remember(self, ticks: Iterable[Tick]) -> None:
        """Take note of all ticks that earlier runs stored after that, in their order. Called once."""
        ...

    def changed(self) -> tuple[SymbolMemory, ...]:
        """What is known of the symbols of which something came since `confirmed`."""
        ...

    def confirmed(self) -> None:
        """What `changed` gave last is on its way to the database."""
        ...


class Carried(Struct, frozen=True):
    """What a new run of a push feed takes over from the earlier ones: how many those are, and their ticks in all."""

    runs: int
    ticks: int
    symbols: dict[str, SymbolState]
    """By symbol, the one traded last first."""

    @property
    def positions(self) -> Positions:
        """The positions after all fills of the earlier runs."""
        return Positions.of(state.position for state in self.symbols.values() if state.position is not None)


def take_over(db: SqliteDatabase, run: int, lookback: int, memory: Memory | None) -> Carried:
    """What `run`, which has stored nothing yet, takes over; `lookback` prices of each symbol where there are so many.

    Reads what was stored since the newest checkpoint and makes one of it, in one transaction. `memory` must be fresh:
    when this raises StorageUnavailable it may be called again, with another one. Raises ConfigError.
    """
    with storage_errors(), db.atomic("IMMEDIATE"):
        feed = find_feed(db, RunRow.select(RunRow.feed).where(RunRow.id == run).scalar(db))
        is_first = feed["run"] is None
        if is_first:
            joining.join_older_runs(db, feed, run)
            feed = {**find_feed(db, feed["id"]), "prices": lookback}
        later = later_ticks(db, feed, run, 0)
        if memory is not None:
            states = read_states(db, feed["id"])
            memory.restore([(state.symbol, state.sequence, state.prints) for state in states.values()])
            memory.remember(tick for chunk in read_later(db, later) for tick in chunk)
        store_checkpoint(db, run, Checkpoint(0, () if memory is None else memory.changed(), lookback))
        found = read_states(db, feed["id"])
        if is_first:
            found = _counted_from_prices(found)
            write_states(db, feed["id"], found)
        if feed["prices"] < lookback:
            found = _with_older_prices(db, feed["id"], run, found, lookback)
            write_states(db, feed["id"], found)  # from now on so many are kept: no later start looks again
        if memory is not None:
            memory.confirmed()
        return Carried(feed["runs"] - 1, find_feed(db, feed["id"])["ticks"], found)


def _counted_from_prices(states: dict[str, SymbolState]) -> dict[str, SymbolState]:
    """Of a symbol that gave no signal the last prices stand for its ticks: how many there ever were is not known."""
    return {
        symbol: state if state.last_side is not None else replace(state, since_signal=len(state.prices))
        for symbol, state in states.items()
    }


def _with_older_prices(
    db: SqliteDatabase, feed_id: int, run: int, states: dict[str, SymbolState], lookback: int
) -> dict[str, SymbolState]:
    """More prices than were kept until now, as far as the newest ticks that are still there have them."""
    room = joining.TICKS_MAX
    prices: dict[str, tuple[float, ...]] = {}
    query = RunRow.select(RunRow.id, RunRow.run_id, RunRow.ticks, RunRow.pruned_ticks, RunRow.first_tick_id)
    query = query.where((RunRow.feed == feed_id) & (RunRow.id < run) & (RunRow.ticks > RunRow.pruned_ticks))
    for no, run_id, ticks, pruned, first_id in query.order_by(RunRow.id.desc()).tuples().iterator(db):
        before = max(pruned, ticks - room)
        part = Later(no, run_id, before + 1, first_id + before, first_id + ticks - 1)
        for symbol, news in read_news(db, part, lookback).items():
            prices[symbol] = (*news.prices, *prices.get(symbol, ()))[-lookback:]
        room -= part.ticks
        if room <= 0:
            break
    return {
        symbol: replace(state, prices=prices[symbol]) if len(prices.get(symbol, ())) > len(state.prices) else state
        for symbol, state in states.items()
    }
