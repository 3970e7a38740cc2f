"""The engine as it is, but for clocks read on its way: `python -m bench.live_engine STAMPS.json WHAT [OPTION...]`.

STAMPS.json is written when the writer ends: when the first transaction began and the last one was done, and the
greatest age of a tick when it was stored, all in ns. With WHAT "orders" also, for each order, when its tick was [sent,
handed on by the feed, decided on, begun to be stored, stored]; "writes" leaves that out, as it costs a little for each
tick. Ages mean something for ticks whose `ts` is the monotonic clock at sending, in us (in ns it would be a time
after the year 2100, which is refused): a machine has only one such clock.
The last transaction with ticks counts for neither: it waits for ticks that the end of the feed keeps from coming.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.ticks import NS_A_TS
from tradebot.cli.arguments import parse
from tradebot.cli.resolve import resolve
from tradebot.config.model import Synchronous
from tradebot.engine import Edges, run_engine
from tradebot.feeds.base import Batch, Feed
from tradebot.store.batch import WriteBatch
from tradebot.store.runs import RunRecord
from tradebot.store.session import SqliteStore
from tradebot.store.writer import SqliteWriter
from tradebot.strategy.base import Decision
from tradebot.strategy.periodic import Periodic


class Stamps:
    """What the clocks said. Each deque is filled by one thread and emptied by the next one, in the order of the ticks.

    That order is the same everywhere, so that nothing needs to be looked up, and nothing is kept for long.
    """

    def __init__(self) -> None:
        self.read: deque[tuple[int, int]] = deque()
        self.decided: deque[tuple[int, int, int]] = deque()
        self.orders: list[tuple[int, int, int, int, int]] = []
        self.first_ns = 0
        self.last_ns = 0
        self.age_ns_max = 0
        self._last_age_ns = 0

    def decide(self, sent_ns: int, now_ns: int) -> None:
        """The tick sent then led to a signal."""
        read_ns = now_ns
        while self.read:
            sent, read_ns = self.read.popleft()
            if sent == sent_ns:
                break
        self.decided.append((sent_ns, read_ns, now_ns))

    def stored(self, batch: WriteBatch, begun_ns: int, done_ns: int) -> None:
        """The batch was stored. Rates and ages are those of batches with ticks: a checkpoint alone ends a run."""
        if batch.ticks:
            self.first_ns = self.first_ns or begun_ns
            self.last_ns = done_ns
            self.age_ns_max = max(self.age_ns_max, self._last_age_ns)
            self._last_age_ns = done_ns - batch.ticks[0].ts * NS_A_TS
        for order in batch.orders:
            while self.decided:
                stamps = self.decided.popleft()
                if stamps[0] == order.ts * NS_A_TS:
                    self.orders.append((*stamps, begun_ns, done_ns))
                    break

    def write(self, path: Path) -> None:
        """Write the file."""
        fields = {"first_ns": self.first_ns, "last_ns": self.last_ns, "age_ns_max": self.age_ns_max}
        orders = [order for order in self.orders if order[-1] != self.last_ns]
        path.write_text(json.dumps({**fields, "orders": orders}))


class StampedFeed:
    """A feed, and when it handed each tick on."""

    def __init__(self, feed: Feed, stamps: Stamps) -> None:
        self._feed = feed
        self._read = stamps.read

    def __getattr__(self, name: str) -> Any:
        return getattr(self._feed, name)

    def read(self) -> Batch | None:
        """As the feed."""
        batch = self._feed.read()
        if batch is not None and batch.ticks:
            now_ns = time.monotonic_ns()
            self._read.extend([(tick.ts * NS_A_TS, now_ns) for tick in batch.ticks])
        return batch


class StampedWriter(SqliteWriter):
    """The storage, and when each transaction began and was done."""

    def __init__(self, path: Path, synchronous: Synchronous, run: RunRecord, stamps: Stamps, file: Path) -> None:
        super().__init__(path, synchronous, run)
        self._stamps = stamps
        self._file = file

    def write(self, batch: WriteBatch, patience_ms: int = 5000) -> None:
        """As SqliteWriter."""
        begun_ns = time.monotonic_ns()
        super().write(batch, patience_ms)
        self._stamps.stored(batch, begun_ns, time.monotonic_ns())

    def close(self) -> None:
        """As SqliteWriter; then the stamps are complete."""
        super().close()
        self._stamps.write(self._file)


class StampedStore(SqliteStore):
    """The store, whose writer stamps."""

    def __init__(self, *arguments: Any, stamps: Stamps, file: Path) -> None:
        super().__init__(*arguments)
        self._stamps = stamps
        self._file = file

    def writer(self, record: RunRecord) -> StampedWriter:
        """As SqliteStore."""
        return StampedWriter(self.path, self.synchronous, record, self._stamps, self._file)


def stamp_decisions(stamps: Stamps) -> None:
    """Have the periodic strategy note when it decided: strategies are found by name, so the class itself is changed."""
    on_ticks = Periodic.on_ticks

    def stamped(self: Periodic, symbol: str, ticks: Sequence[Any]) -> list[Decision]:
        decisions = on_ticks(self, symbol, ticks)
        if decisions:
            now_ns = time.monotonic_ns()
            for decision in decisions:
                stamps.decide(ticks[decision.index].ts * NS_A_TS, now_ns)
        return decisions

    Periodic.on_ticks = stamped  # type: ignore[method-assign]


def main() -> int:
    """Run the engine; its exit code."""
    file, what, options = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    stamps = Stamps()
    edges = Edges(make_store=lambda *arguments: StampedStore(*arguments, stamps=stamps, file=file))
    if what == "orders":
        edges.wrap_feed = lambda feed: StampedFeed(feed, stamps)
        stamp_decisions(stamps)
    return int(run_engine(resolve(parse(options), os.environ), edges))


if __name__ == "__main__":
    sys.exit(main())
