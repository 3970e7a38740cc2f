"""The state that a run of a push feed takes over from earlier runs, computed from all stored rows."""

from __future__ import annotations

import sqlite3
from typing import Final, NamedTuple

from tradebot.core.events import Fill
from tradebot.execution.shadow import ShadowExecution
from tradebot.strategy.base import Strategy, SymbolHistory

_FEED: Final = "CASE {0}.ingest WHEN 'synthetic' THEN {0}.source ELSE substr({0}.source, 1, instr({0}.source, ':')) END"
"""The key of a feed within one mode and ingest: the exchange, or the symbol of the synthetic feed."""


class _Signal(NamedTuple):
    """A symbol's newest signal: its side, and the index of its tick among all ticks."""

    side: str
    place: int


def take_over(db: sqlite3.Connection, run: int, strategy: Strategy, execution: ShadowExecution) -> None:
    """Bring both into the state after the earlier runs of the same feed as run number `run`."""
    query = (
        "SELECT earlier.id FROM runs AS earlier, runs AS this WHERE this.id = ? AND earlier.id < this.id"
        " AND (earlier.mode, earlier.ingest) = (this.mode, this.ingest)"
        f" AND {_FEED.format('earlier')} = {_FEED.format('this')} ORDER BY earlier.id"
    )
    runs = [no for (no,) in db.execute(query, (run,))]
    ticks: list[tuple[str, float]] = []
    newest: dict[str, _Signal] = {}
    fills: list[Fill] = []
    for no in runs:
        first = len(ticks)
        ticks += db.execute("SELECT symbol, price FROM ticks WHERE run = ? ORDER BY id", (no,)).fetchall()
        for event_id, symbol, kind in db.execute(
            "SELECT event_id, symbol, kind FROM signals WHERE run = ? ORDER BY id", (no,)
        ):
            # An event id tells the number of its tick within the run, from 1.
            newest[symbol] = _Signal(kind.partition(":")[0], first + int(event_id.rsplit("-", 2)[1]) - 1)
        columns = ", ".join(Fill.__struct_fields__)
        fills += [Fill(*row) for row in db.execute(f"SELECT {columns} FROM trades WHERE run = ? ORDER BY id", (no,))]
    marks: dict[str, float] = dict(ticks)
    for symbol in marks:
        prices = tuple([price for other, price in ticks if other == symbol])[-max(1, strategy.lookback) :]
        signal = newest.get(symbol)
        if signal is None:
            history = SymbolHistory(prices, None, None)
        else:
            since = sum(other == symbol for other, _price in ticks[signal.place + 1 :])
            history = SymbolHistory(prices, "BUY" if signal.side == "BUY" else "SELL", since)
        strategy.restore(symbol, history)
    execution.restore(fills, marks.items())
