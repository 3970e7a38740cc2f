"""One pass of `tradebot prune`: old events deleted in small transactions, also while an engine writes.

Whole causes go at once: a tick with its signal, its order and the fills, oldest first, so that at no commit a row
misses the row it came from (`store.order_families` has the orders that outlive their tick), and a kill at any moment
leaves nothing but a database pruned less far. What a restart needs stays: the ticks, signals and fills of each push
feed that no checkpoint covers yet (`store.restart_state`, `store.saved_state`), and its newest tick. Of a feed that no
engine of this version has run yet the newest ticks stay, and before any fill goes, the positions it led to are summed
up in `carried`, as schema 3 did. A replay goes as a whole or not at all: a part of it could be neither resumed nor
compared. What events in a spill file belong to stays too: the start that adopts them must find their run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any, Final

from msgspec import Struct
from peewee import SqliteDatabase

from tradebot.core.events import as_unix_ms
from tradebot.core.runtime import Runtime
from tradebot.output.progress_bar import ProgressBar
from tradebot.store import joining
from tradebot.store.errors import storage_errors
from tradebot.store.models import NoticeRow, RunRow, TickRow, TradeRow, fields_of
from tradebot.store.older_positions import fold_fills
from tradebot.store.order_families import count_decided, delete_decided
from tradebot.store.policy import BlockPolicy
from tradebot.store.prune_plan import Block, Covered, PrunedRun, covered_feeds
from tradebot.store.reader import last_signals

_NOTICES: Final = 500
_REPLAY: Final = "replay"
_RUN_FIELDS: Final = fields_of(RunRow, PrunedRun)


class Pruned(Struct):
    """What was deleted, or would be."""

    ticks: int = 0
    signals: int = 0
    orders: int = 0
    trades: int = 0
    order_events: int = 0
    notices: int = 0
    replays: int = 0
    unfinished: list[str] = []
    """Old replays that were kept because they have no recorded end."""
    spilled: str | None = None
    """The old run that was kept because the spill file contains events of it."""
    refused: int = 0
    """Replays that were kept because the spill file cannot be read, so its run is not known."""

    def add(self, gone: Mapping[str, int]) -> None:
        """Count deleted rows, by table."""
        for table, rows in gone.items():
            setattr(self, table, getattr(self, table) + rows)


class Waiting(Struct, frozen=True):
    """What lies in the spill file: events of run `run_id` (None: none), or something that is not `readable`."""

    run_id: str | None = None
    readable: bool = True


NOTHING_WAITS: Final = Waiting()


class PruneStopped(Exception):
    """Somebody else is in the way, or a stop signal came; what is deleted is deleted."""


class Pruner:
    """One pass over a database on one connection. Blocks as SQLite does, and pauses on purpose."""

    def __init__(
        self,
        db: SqliteDatabase,
        cutoff_ms: int,
        dry_run: bool,
        runtime: Runtime,
        bar: ProgressBar,
        waiting: Waiting = NOTHING_WAITS,
    ) -> None:
        """`cutoff_ms`: what is older goes (Unix ms). `waiting`: what lies in the spill file beside the database."""
        self.done = Pruned()
        self._waiting = waiting
        self._db = db
        self._cutoff_ms = cutoff_ms
        self._dry_run = dry_run
        self._runtime = runtime
        self._bar = bar
        self._policy = BlockPolicy()

    def prune(self) -> None:
        """Do it. Raises StorageUnavailable, after which it may be done again, and PruneStopped."""
        with storage_errors():
            rows = RunRow.select(*_RUN_FIELDS).order_by(RunRow.id).tuples().execute(self._db)
            runs = [PrunedRun(*row) for row in rows]
            covered = covered_feeds(self._db)
        joined = [run for run in runs if run.feed in covered]
        older = [run for run in runs if run.ingest != _REPLAY and run.feed not in covered]
        for feed, chain in groupby(sorted(joined, key=lambda run: run.feed or 0), lambda run: run.feed or 0):
            self._feed(list(chain), covered[feed])  # sorting is stable: oldest first in each
        for _source, chain in groupby(sorted(older, key=_source_of), _source_of):
            self._feed(list(chain), None)
        for run in runs:
            if run.ingest == _REPLAY:
                self._replay(run)

    def _feed(self, chain: list[PrunedRun], covered: Covered | None) -> None:
        """The runs of one push feed, oldest first, up to the first that is too young."""
        numbers, folded = [run.id for run in chain], covered is not None
        # The newest tick stays in any case: row ids after it must be new ones.
        spare = sum(run.left for run in chain) - (joining.TICKS_MAX if covered is None else 1)
        if not self._dry_run and not folded:
            fold_fills(self._db, numbers)  # whether or not anything goes: the next restart need not read them
        for run, following in zip(chain, [*chain[1:], None], strict=True):
            # A run that was killed ended before the next one began, unless the clock was not set yet at that start.
            end_ms = run.last_end_ms
            if end_ms is None and following is not None and following.first_start_ms >= run.first_start_ms:
                end_ms = following.first_start_ms
            over = end_ms is not None and end_ms < self._cutoff_ms
            if not over and run.first_start_ms >= self._cutoff_ms:
                return
            if self._is_awaited(run):
                return
            at = run.pruned_ticks
            most = run.ticks if covered is None else covered.ticks_of(run)
            for block in self._blocks(run, over, spare, most):
                if not folded and not self._dry_run:
                    folded = True
                    with storage_errors():
                        sides = last_signals(self._db, {run.id: run.first_tick_id for run in chain})
                    fold_fills(self._db, numbers, {symbol: side for symbol, (side, _id) in sides.items()})
                if not self._take(block, covered):
                    return
                spare -= block.upto - block.at
                at = block.upto
            if over:
                spare -= run.ticks - at  # gone by another prune, or by hand: nothing more goes of other runs for them
            gone = (NoticeRow.run == run.id) & (NoticeRow.ticks_before <= at)
            which = gone if covered is None else covered.notices_of(run, at)
            self._notices(run, which & (NoticeRow.ts < self._cutoff_ms))

    def _replay(self, run: PrunedRun) -> None:
        if run.last_end_ms is None:
            if run.first_start_ms < self._cutoff_ms:
                self.done.unfinished.append(run.run_id)
            return
        if run.last_end_ms >= self._cutoff_ms and not run.pruned_ticks:
            return
        if not self._waiting.readable:
            self.done.refused += 1
            return
        if self._is_awaited(run):
            return
        for block in self._blocks(run, True, run.left, run.ticks):
            if not self._take(block, None):
                return
        self._notices(run, NoticeRow.run == run.id)
        if not self._dry_run and not self._forget(run):
            return
        self.done.replays += 1

    def _is_awaited(self, run: PrunedRun) -> bool:
        if run.run_id != self._waiting.run_id:
            return False
        self.done.spilled = run.run_id
        return True

    def _blocks(self, run: PrunedRun, over: bool, spare: int, most: int) -> Iterator[Block]:
        """What may go of the first `most` ticks of a run, at most about `spare` of them.

        Where it is not over as a whole, by the ticks' own times.

        A block of ticks goes when most of those in the block after it are too old: so a few with a wrong time neither
        stop all others nor take younger ones with them.
        """
        at, first = run.pruned_ticks, run.first_tick_id
        if first is None:
            return
        next_id = first + at
        query = TickRow.select(TickRow.id, TickRow.ts).where(TickRow.run == run.id).order_by(TickRow.id)
        while (size := min(self._policy.ticks, spare, most - at)) > 0:
            window = query.where(TickRow.id.between(next_id, run.last_tick_id)).limit(size if over else 2 * size)
            with storage_errors():
                rows = list(window.tuples().execute(self._db))
            after = rows[size:]
            if not rows or not (over or _mostly_old(after, size, self._cutoff_ms)):
                return
            ids = rows[0][0], rows[:size][-1][0]
            upto = run.number_of(ids[1]) or at + len(rows[:size])
            yield Block(run, at, upto, ids)
            spare, at, next_id = spare - (upto - at), upto, ids[1] + 1

    def _take(self, block: Block, covered: Covered | None) -> bool:
        """Delete a block; False when a fill of it is in no position yet.

        Raises PruneStopped when the run has changed.
        """
        if self._dry_run:
            self._count(block)
            return True
        began_s = self._runtime.monotonic()
        with storage_errors(), self._db.atomic("IMMEDIATE"):
            if not self._is_as_found(block.run, block.at):
                raise PruneStopped("another prune is running, or a replay is being resumed")
            if covered is not None and TradeRow.select().where(covered.later_fills(block)).exists(self._db):
                return False
            gone = delete_decided(self._db, block)
            ticks = int(TickRow.delete().where(block.ticks).execute(self._db))
            RunRow.update(pruned_ticks=block.upto).where(RunRow.id == block.run.id).execute(self._db)
        done = self.done
        done.ticks += ticks
        done.add(gone)
        self._bar.update(done.ticks, done.ticks)
        self._pause(began_s)
        return True

    def _count(self, block: Block) -> None:
        with storage_errors():
            self.done.ticks += TickRow.select().where(block.ticks).count(self._db)
            self.done.add(count_decided(self._db, block))
        self._policy.pause_s(0.0)  # a dry run only reads: blocks may be larger
        self._check_stop_requested()

    def _is_as_found(self, run: PrunedRun, pruned: int) -> bool:
        fields = RunRow.pruned_ticks, RunRow.last_end_ms, RunRow.pruned_trades, RunRow.folded_trades
        row = (
            RunRow.select(*fields).where((RunRow.id == run.id) & (RunRow.run_id == run.run_id)).tuples().first(self._db)
        )
        return row is not None and row[0] == pruned and (run.ingest != _REPLAY or row[1] is not None)

    def _notices(self, run: PrunedRun, of_run: Any) -> None:
        if self._dry_run:
            with storage_errors():
                self.done.notices += NoticeRow.select().where(of_run).count(self._db)
            return
        gone = _NOTICES
        while gone == _NOTICES:
            began_s = self._runtime.monotonic()
            some = NoticeRow.select(NoticeRow.id).where(of_run).order_by(NoticeRow.id).limit(_NOTICES)
            with storage_errors(), self._db.atomic("IMMEDIATE"):
                gone = int(NoticeRow.delete().where(NoticeRow.id.in_(some)).execute(self._db))
                if gone:
                    counted = RunRow.update(pruned_notices=RunRow.pruned_notices + gone)
                    counted.where(RunRow.id == run.id).execute(self._db)
            self.done.notices += gone
            if gone:
                self._pause(began_s)

    def _forget(self, run: PrunedRun) -> bool:
        """A replay without remaining rows may be stored again, as if it had never been stored."""
        with storage_errors(), self._db.atomic("IMMEDIATE"):
            empty = (RunRow.pruned_ticks >= RunRow.ticks) & RunRow.last_end_ms.is_null(False)
            gone = RunRow.delete().where((RunRow.id == run.id) & (RunRow.run_id == run.run_id) & empty)
            return bool(gone.execute(self._db))

    def _pause(self, began_s: float) -> None:
        self._runtime.sleep(self._policy.pause_s(self._runtime.monotonic() - began_s))
        self._check_stop_requested()

    def _check_stop_requested(self) -> None:
        if self._runtime.stop_signals():
            raise PruneStopped("stopped by a signal")


def _source_of(run: PrunedRun) -> tuple[str, str, str]:
    return run.mode, run.ingest, run.source


def _mostly_old(rows: list[tuple[int, int]], size: int, cutoff_ms: int) -> bool:
    """Whether these are `size` rows (not the end of what is stored) and most of their times are before the cutoff."""
    old = sum(as_unix_ms(ts) < cutoff_ms for _id, ts in rows)
    return len(rows) == size and 2 * old > size
