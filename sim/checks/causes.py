"""Checks at every commit that no row is stored before its cause, because a kill may follow any commit."""

from __future__ import annotations

from collections.abc import Iterable

from tradebot.store.batch import StoredCounts, WriteBatch


class Causes:
    """The stored signals of one run. `wrong` describes the first row stored without its cause."""

    def __init__(self, signals: Iterable[str]) -> None:
        """`signals` are the ids of those that an earlier process stored."""
        self._signals = set(signals)
        self.wrong: str | None = None

    def committed(self, batch: WriteBatch, after: StoredCounts) -> None:
        """Check a batch that is being committed; afterwards the run has the rows of `after`."""
        self._signals.update([signal.event_id for signal in batch.signals])
        for signal in batch.signals:
            # An event id tells the number of its tick within the run, from 1.
            if int(signal.event_id.rsplit("-", 2)[1]) > after.ticks:
                self._found(f"signal {signal.event_id} was stored with the first {after.ticks} ticks only")
        for order in batch.orders:
            if order.signal_id not in self._signals:
                self._found(f"order {order.event_id} was stored before its signal")
        for notice in batch.notices:
            if notice.ticks_before > after.ticks:
                self._found(
                    f"notice {notice.kind} after {notice.ticks_before} ticks was stored with {after.ticks} only"
                )

    def _found(self, what: str) -> None:
        self.wrong = self.wrong or what
