"""What `tradebot prune` may delete of a run: blocks of ticks, as far as no restart needs them."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct
from peewee import Model, SqliteDatabase

from tradebot.core.ids import event_prefix
from tradebot.store.models import FeedRow, NoticeRow, TickRow, TradeRow
from tradebot.store.saved_state import newest_covered

_PAPER: Final = "PAPER"


class PrunedRun(Struct, frozen=True):
    """A row of `runs`."""

    id: int
    run_id: str
    mode: str
    ingest: str
    source: str
    first_start_ms: int
    last_end_ms: int | None
    ticks: int
    pruned_ticks: int
    first_tick_id: int | None
    last_tick_id: int | None
    feed: int | None
    order_events: int

    @property
    def left(self) -> int:
        """Its ticks that are still there."""
        return self.ticks - self.pruned_ticks

    def number_of(self, tick_id: int) -> int | None:
        """Which of its ticks (from 1) has this row id; None when its ids do not lie side by side."""
        if self.first_tick_id is None or self.last_tick_id is None:
            return None
        unbroken = self.last_tick_id - self.first_tick_id + 1 == self.ticks
        return tick_id - self.first_tick_id + 1 if unbroken else None


class Block(Struct, frozen=True):
    """Ticks of a run that go in one transaction: those after the first `at` up to number `upto`, by row id."""

    run: PrunedRun
    at: int
    upto: int
    ids: tuple[int, int]

    def decided(self, model: type[Model]) -> Any:
        """What was decided from these ticks and came of it: their ids begin with the run and the number of the tick."""
        event_id, run = model._meta.fields["event_id"], model._meta.fields["run"]
        low, high = event_prefix(self.run.run_id, self.at + 1), event_prefix(self.run.run_id, self.upto + 1)
        return (run == self.run.id) & (event_id >= low) & (event_id < high)

    @property
    def ticks(self) -> Any:
        """The ticks themselves."""
        return (TickRow.run == self.run.id) & TickRow.id.between(*self.ids)


class Covered(Struct, frozen=True):
    """What a restart does not need any more of a feed: see `models.FeedRow`.

    `has_state`: it continues from a state in `checkpoints`, which covers no more than this.
    """

    id: int
    run: int
    run_ticks: int
    fill_run: int | None
    fill_id: str | None
    has_state: bool

    def ticks_of(self, run: PrunedRun) -> int:
        """How many ticks of a run, from its first, are covered."""
        if run.id == self.run:
            return self.run_ticks
        return run.ticks if run.id < self.run else 0

    def notices_of(self, run: PrunedRun, ticks: int) -> Any:
        """The notices of a run that may go with its first `ticks` ticks; none that a state may not include yet."""
        last = min(ticks, self.run_ticks - 1) if self.has_state and run.id == self.run else ticks
        return (NoticeRow.run == run.id) & (NoticeRow.ticks_before <= last)

    def later_fills(self, block: Block) -> Any:
        """Fills that came of a block and are in no position yet."""
        decided = block.decided(TradeRow)
        if self.fill_run is None or block.run.id > self.fill_run:
            return decided
        return decided & (TradeRow.event_id > (self.fill_id or "")) & (TradeRow.run == self.fill_run)


def covered_feeds(db: SqliteDatabase) -> dict[int, Covered]:
    """By `feeds.id`, what is covered of each feed; those without a checkpoint are left out."""
    rows: list[dict[str, Any]] = list(FeedRow.select().where(FeedRow.run.is_null(False)).dicts().execute(db))
    return {row["id"]: _covered(row, newest_covered(db, row["id"])) for row in rows}


def _covered(feed: dict[str, Any], state: tuple[int, int] | None) -> Covered:
    """Pure. A state matters as long as the newest run stores states too, or has stored nothing yet.

    In PAPER every run does: there, nothing is covered before the first state.
    """
    at = feed["run"], feed["run_ticks"]
    if state is None and feed["mode"] == _PAPER:
        state = 0, 0
    has_state = state is not None and (feed["mode"] == _PAPER or state[0] == at[0] or at[1] == 0)
    run, run_ticks = min(at, state) if has_state and state is not None else at
    return Covered(feed["id"], run, run_ticks, feed["fill_run"], feed["fill_id"], has_state)
