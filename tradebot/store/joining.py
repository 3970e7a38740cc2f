"""Runs of schema 3, joined to the feed that they belong to when a restart meets it for the first time.

Schema 3 distinguished feeds by their list of symbols or their address (`runs.source`), and kept positions for each such
chain of runs. A feed takes over all chains of its exchange and market: of each symbol the position of the chain in
which it was traded last, and prices and numbers from the newest ticks. Done once, and bounded as restarts were then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from msgspec import Struct
from peewee import SqliteDatabase

from tradebot.core.events import Side
from tradebot.core.ids import event_prefix
from tradebot.portfolio.positions import PositionState
from tradebot.store.feed_identity import takes_over
from tradebot.store.models import FeedRow, RunRow, SignalRow, TickRow, TradeRow, fields_of, of_runs
from tradebot.store.older_positions import fold_fills, read_sides
from tradebot.store.restart_state import SymbolState, write_states

TICKS_MAX: Final = 200_000
"""How far back the newest ticks of a feed are read: about a day of a lively market."""
SIGNALS_MAX: Final = 200_000


class OlderRun(Struct, frozen=True):
    """A row of `runs`; `left` are its ticks that are not pruned."""

    id: int
    run_id: str
    source: str
    ticks: int
    pruned_ticks: int
    first_tick_id: int | None
    last_tick_id: int | None
    feed: int | None = None

    @property
    def left(self) -> int:
        """Its ticks that are still there."""
        return self.ticks - self.pruned_ticks


class Window(Struct, frozen=True):
    """Where reading begins: after the first `run_ticks` ticks of `run`; `ticks` lie before that over all runs."""

    run: int
    run_ticks: int
    ticks: int


def window_of(runs: Sequence[OlderRun], ticks_max: int) -> Window:
    """The newest `ticks_max` ticks of `runs` (at least one run, oldest first). Pure."""
    room = ticks_max
    for index in range(len(runs) - 1, -1, -1):
        run = runs[index]
        if run.left > room or index == 0:
            covered = max(run.ticks - room, run.pruned_ticks)
            return Window(run.id, covered, sum(before.ticks for before in runs[:index]) + covered)
        room -= run.left
    raise ValueError("no runs")


def join_older_runs(db: SqliteDatabase, feed: dict[str, Any], run: int) -> None:
    """Make the runs before `run` that belong to `feed` its own, and enter what they come to.

    Inside the caller's transaction. The ticks of `window_of` count as not covered yet. Raises ConfigError.
    """
    older = _older_runs(db, feed, run)
    if not older:
        return
    numbers = [one.id for one in older]
    RunRow.update(feed=feed["id"]).where(of_runs(RunRow, numbers, "id")).execute(db)
    window = window_of(older, TICKS_MAX)
    write_states(db, feed["id"], _states(db, older, window))
    FeedRow.update(
        runs=len(numbers) + 1,
        ticks=window.ticks,
        run=window.run,
        run_ticks=window.run_ticks,
        fill_run=numbers[-1],
        fill_id=_last_fill(db, older[-1]),
    ).where(FeedRow.id == feed["id"]).execute(db)


def _older_runs(db: SqliteDatabase, feed: dict[str, Any], run: int) -> list[OlderRun]:
    query = RunRow.select(*fields_of(RunRow, OlderRun)).where(
        (RunRow.mode == feed["mode"]) & (RunRow.ingest == feed["ingest"])
    )
    query = query.where((RunRow.id < run) & (RunRow.feed.is_null() | (RunRow.feed == feed["id"])))
    found = [OlderRun(*row) for row in query.order_by(RunRow.id).tuples().execute(db)]
    return [one for one in found if one.feed is not None or takes_over(feed["name"], feed["ingest"], one.source)]


def _last_fill(db: SqliteDatabase, run: OlderRun) -> str | None:
    """Event id of the run's last fill; found by the index, however many there are."""
    of_ids = (TradeRow.event_id > event_prefix(run.run_id, 0)) & (TradeRow.event_id < f"{run.run_id}.")
    query = TradeRow.select(TradeRow.event_id).where(of_ids & (TradeRow.run == run.id))
    found: str | None = query.order_by(TradeRow.event_id.desc()).limit(1).scalar(db)
    return found


def _states(db: SqliteDatabase, older: Sequence[OlderRun], window: Window) -> dict[str, SymbolState]:
    chains: dict[str, list[int]] = {}
    for one in older:
        chains.setdefault(one.source, []).append(one.id)
    newest_first = sorted(chains.values(), key=max, reverse=True)
    positions = [{state.symbol: state for state in fold_fills(db, chain).states()} for chain in newest_first]
    traded_last = _last_chains(db, older, window, newest_first)
    sides = _last_sides(db, [one.id for one in older])
    for chain in newest_first:
        for symbol, side in read_sides(db, chain).items():
            sides.setdefault(symbol, side)
    found: dict[str, SymbolState] = {}
    for symbol in {*sides, *traded_last}.union(*positions):
        of_chains = [known for known in positions if symbol in known]
        place: PositionState | None = of_chains[0][symbol] if of_chains else None
        if symbol in traded_last:
            place = positions[traded_last[symbol]].get(symbol)
        found[symbol] = SymbolState(symbol, last_side=sides.get(symbol), position=place)
    return found


def _last_chains(
    db: SqliteDatabase, older: Sequence[OlderRun], window: Window, chains: Sequence[Sequence[int]]
) -> dict[str, int]:
    """Which of `chains` holds the newest tick of each symbol, as far as the window reaches."""
    found: dict[str, int] = {}
    for one in reversed(older):
        if one.id < window.run or one.first_tick_id is None or one.last_tick_id is None:
            continue
        first = one.first_tick_id + (window.run_ticks if one.id == window.run else 0)
        ids = TickRow.id.between(first, one.last_tick_id)
        symbols = TickRow.select(TickRow.symbol).where((TickRow.run == one.id) & ids).distinct()
        (place,) = (index for index, chain in enumerate(chains) if one.id in chain)
        for (symbol,) in symbols.tuples().execute(db):
            found.setdefault(symbol, place)
    return found


def _last_sides(db: SqliteDatabase, runs: Sequence[int]) -> dict[str, Side]:
    """The side of each symbol's last signal, according to the newest SIGNALS_MAX signals."""
    query = SignalRow.select(SignalRow.symbol, SignalRow.kind).where(of_runs(SignalRow, runs))
    sql, params = query.order_by(SignalRow.id.desc()).limit(SIGNALS_MAX).bind(db).sql()
    found: dict[str, Side] = {}
    for symbol, kind in db.connection().execute(sql, params):
        if symbol not in found:
            found[symbol] = kind.split(":", 1)[0]
    return found
