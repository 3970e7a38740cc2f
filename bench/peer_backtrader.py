"""backtrader's Cerebro on the same ticks, strategy and orders: `python peer_backtrader.py TICKS.jsonl`.

Runs as a script in the environment of the peers and imports nothing from tradebot. Only `cerebro.run()` is timed; the
ticks are parsed before. backtrader processes bars, not trades, so each trade is a bar with one price. Observers and
standard statistics are off; runonce and preload, its fastest settings, stay on. The averages are its own indicators.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import backtrader as bt

SHORT, LONG = 5, 20
ORDER_SIZE = 0.0001


class Ticks(bt.feed.DataBase):  # type: ignore[misc]  # the library is untyped
    """Provides rows (date number, price, volume) from memory."""

    params = (("rows", None),)

    def start(self) -> None:
        """Start at the first row."""
        super().start()
        self.rows_left = iter(self.p.rows)

    def _load(self) -> bool:
        row = next(self.rows_left, None)
        if row is None:
            return False
        lines = self.lines
        lines.datetime[0], price, lines.volume[0] = row
        lines.open[0] = lines.high[0] = lines.low[0] = lines.close[0] = price
        lines.openinterest[0] = 0.0
        return True


class Crossover(bt.Strategy):  # type: ignore[misc]  # the library is untyped
    """Implements tradebot's sma_crossover, with a market order for each signal."""

    def __init__(self) -> None:
        self.short = bt.indicators.SimpleMovingAverage(self.data.close, period=SHORT)
        self.long = bt.indicators.SimpleMovingAverage(self.data.close, period=LONG)
        self.prev: float | None = None
        self.signals = self.filled = 0

    def next(self) -> None:
        """One tick: compare the averages."""
        diff = self.short[0] - self.long[0]
        prev, self.prev = self.prev, diff
        if prev is None:
            return
        if prev <= 0 and diff > 0:
            self.signals += 1
            self.buy(size=ORDER_SIZE)
        elif prev >= 0 and diff < 0:
            self.signals += 1
            self.sell(size=ORDER_SIZE)

    def notify_order(self, order: Any) -> None:
        """Count filled orders."""
        self.filled += order.status == order.Completed


def read_rows(path: Path) -> list[tuple[float, float, float]]:
    """The ticks of the file as (date number, price, volume)."""
    rows = []
    with path.open() as file:
        for line in file:
            row = json.loads(line)
            when = bt.date2num(datetime.fromtimestamp(row["ts"] / 1000, UTC).replace(tzinfo=None))
            rows.append((when, row["price"], row["volume"]))
    return rows


def main() -> None:
    """Measure one run; one JSON object on standard output."""
    rows = read_rows(Path(sys.argv[1]))
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.broker.setcash(1e9)
    cerebro.broker.setcommission(commission=0.001)
    cerebro.adddata(Ticks(rows=rows, timeframe=bt.TimeFrame.Ticks))
    cerebro.addstrategy(Crossover)
    begin = time.perf_counter()
    [strategy] = cerebro.run()
    seconds = time.perf_counter() - begin
    answer = {"peer": f"backtrader {bt.__version__}", "ticks": len(rows), "seconds": seconds}
    print(json.dumps(answer | {"signals": strategy.signals, "filled": strategy.filled}))


if __name__ == "__main__":
    main()
