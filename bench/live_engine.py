"""The unmodified engine with time stamps: `python -m bench.live_engine STAMPS.json WHAT [OPTION...]`.

STAMPS.json is written when the writer ends. It contains the start of the first transaction, the end of the last one,
and the greatest age of a tick when it was stored, all in ns. With WHAT "orders" it also contains, for each order, when
its tick was [sent, returned by the feed, decided on, about to be stored, stored]; "writes" omits these times, which
take a little time per tick. The ages are valid for ticks whose `ts` is the monotonic clock at sending, in us (in ns it
would be a time after the year 2100, which is refused); all processes of a machine share this clock.
The last transaction with ticks is ignored: it waits for ticks that do not arrive because the feed has ended.
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
from tradebot.feeds.base import Feed, FeedBatch
from tradebot.store.batch import WriteBatch
from tradebot.store.runs import RunRecord
from tradebot.store.session import SqliteStore
from tradebot.store.writer import SqliteWriter
from tradebot.strategy.base import Decision
from tradebot.strategy.periodic import Periodic


class Stamps:
    """The time stamps. Each deque is filled by one thread and emptied by the next, in the order of the ticks.

    The order is the same in all stages, so no lookup is needed, and no stamp is kept for long.
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
        """The tick sent at that time caused a signal."""
        read_ns = now_ns
        while self.read:
            sent, read_ns = self.read.popleft()
            if sent == sent_ns:
                break
        self.decided.append((sent_ns, read_ns, now_ns))

    def stored(self, batch: WriteBatch, begun_ns: int, done_ns: int) -> None:
        """The batch was stored. Only batches with ticks count: the last batch of a run contains only a checkpoint."""
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
        """Write STAMPS.json."""
        fields = {"first_ns": self.first_ns, "last_ns": self.last_ns, "age_ns_max": self.age_ns_max}
        orders = [order for order in self.orders if order[-1] != self.last_ns]
        path.write_text(json.dumps({**fields, "orders": orders}))


class StampedFeed:
    """A feed that records when it returned each tick."""

    def __init__(self, feed: Feed, stamps: Stamps) -> None:
        self._feed = feed
        self._read = stamps.read

    def __getattr__(self, name: str) -> Any:
        return getattr(self._feed, name)

    def read(self) -> FeedBatch | None:
        """Like the wrapped feed."""
        batch = self._feed.read()
        if batch is not None and batch.ticks:
            now_ns = time.monotonic_ns()
            self._read.extend([(tick.ts * NS_A_TS, now_ns) for tick in batch.ticks])
        return batch


class StampedWriter(SqliteWriter):
    """A writer that records the start and end of each transaction."""

    def __init__(self, path: Path, synchronous: Synchronous, run: RunRecord, stamps: Stamps, file: Path) -> None:
        super().__init__(path, synchronous, run)
        self._stamps = stamps
        self._file = file

    def write(self, batch: WriteBatch, patience_ms: int = 5000) -> None:
        """Like SqliteWriter."""
        begun_ns = time.monotonic_ns()
        super().write(batch, patience_ms)
        self._stamps.stored(batch, begun_ns, time.monotonic_ns())

    def close(self) -> None:
        """Like SqliteWriter; then the stamps are complete."""
        super().close()
        self._stamps.write(self._file)


class StampedStore(SqliteStore):
    """A store whose writer records time stamps."""

    def __init__(self, *arguments: Any, stamps: Stamps, file: Path) -> None:
        super().__init__(*arguments)
        self._stamps = stamps
        self._file = file

    def writer(self, record: RunRecord) -> StampedWriter:
        """Like SqliteStore."""
        return StampedWriter(self.path, self.synchronous, record, self._stamps, self._file)


def stamp_decisions(stamps: Stamps) -> None:
    """Make the periodic strategy record its decisions. Strategies are found by name, so this patches the class."""
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
    """Run the engine and return its exit code."""
    file, what, options = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    stamps = Stamps()
    edges = Edges(make_store=lambda *arguments: StampedStore(*arguments, stamps=stamps, file=file))
    if what == "orders":
        edges.wrap_feed = lambda feed: StampedFeed(feed, stamps)
        stamp_decisions(stamps)
    return int(run_engine(resolve(parse(options), os.environ), edges))


if __name__ == "__main__":
    sys.exit(main())
