"""The persist stage when its storage stays away and the spill file has no room for all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from tests.unit.store_helpers import Logged, order, signal, tick
from tradebot.channel import Channel
from tradebot.control import Control
from tradebot.events import Event, Notice
from tradebot.exits import ExitCode
from tradebot.metrics import Metrics
from tradebot.runtime import RealRuntime
from tradebot.store.batch import Batch, StoredCounts
from tradebot.store.errors import StorageUnavailable
from tradebot.store.policy import FlushPolicy, RetryPolicy
from tradebot.store.spill import Spill
from tradebot.threads.persist import PersistStage


class Away:
    """A storage that fails for good."""

    counts = StoredCounts()
    wal_bytes = 0

    def open(self) -> None:
        pass

    def write(self, batch: Batch, patience_ms: int) -> None:
        raise StorageUnavailable("SQLITE_CORRUPT", "malformed", passing=False)

    def close(self) -> None:
        pass


class SmallSpill:
    """A spill file with room for so many events."""

    used = False
    events = 0
    path = Path("x.spill")

    def __init__(self, room: int) -> None:
        self.room = room
        self.kinds: list[str] = []

    def begin(self, run_id: str, counts: StoredCounts) -> None:
        self.used = True

    def append(self, chunk: Sequence[Event]) -> None:
        if self.events + len(chunk) > self.room:
            raise OSError(27, "File too large")
        self.kinds += [type(event).__name__ for event in chunk]
        self.events += len(chunk)

    def finish(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize("room", range(5))
def test_a_batch_is_spilled_whole_or_counted_as_lost(room: int) -> None:
    """Contract 6: no tick without the gap before it, no order without its signal, however little room there is."""
    runtime, logged, spill = RealRuntime(), Logged(), SmallSpill(room)
    control = Control(runtime, ["persist"])
    channel: Channel[Event] = Channel(runtime, "persist", 10)
    stage = PersistStage(
        channel, Away(), cast(Spill, cast(Any, spill)), "r1", FlushPolicy(100, 1.0), RetryPolicy(0.0), Metrics(),
        control, logged.log, runtime,
    )  # fmt: skip
    for events in ([Notice("GAP", 1, "", "TEST/USD", 2)], [tick(5)], [signal(5)], [order(5)]):
        channel.send(events)
    channel.close()
    stage.run()
    logged.log.close()
    assert spill.kinds == (["Notice", "Tick", "Signal", "Order"] if room >= 4 else [])
    assert stage.events_lost == (0 if room >= 4 else 4)
    assert stage.ticks_spilled == (1 if room >= 4 else 0)
    assert control.failure is not None and control.failure.code is ExitCode.OVERLOAD
