"""What the persist stage does with the spill file: it begins, appends, empties, finishes, and counts losses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tradebot.config.model import Config
from tradebot.core.errors import ExitCode
from tradebot.core.log_events import LogEvent
from tradebot.output.log import Log
from tradebot.store.batch import StoredCounts, WriteBatch
from tradebot.store.policy import MAX_BATCH_EVENTS
from tradebot.store.spill import Spill, spill_path
from tradebot.store.spill_format import in_causal_order
from tradebot.threads.shutdown import Control
from tradebot.threads.strategy import MAX_TAKE


class Spilling:
    """The spill of one run. Used by the persist thread; blocks as the disk does.

    A batch is spilled whole or not at all, and none after one that was lost: every table stays a prefix of the run.
    """

    def __init__(self, spill: Spill | None, run_id: str, control: Control, log: Log) -> None:
        self._spill = spill
        self._run_id = run_id
        self._control = control
        self._log = log
        self._refused = False
        self.path = None if spill is None else spill.path
        self.events_lost = 0

    @property
    def is_on(self) -> bool:
        """Whether the file holds events."""
        return self._spill is not None and self._spill.used

    @property
    def events(self) -> int:
        """Events in the file, stored or not."""
        return 0 if self._spill is None else self._spill.events

    @property
    def size(self) -> int:
        """Bytes of the file that are written and on disk."""
        return 0 if self._spill is None else self._spill.size

    def begin(self, sync_wal: Callable[[], None], counts: StoredCounts, first: WriteBatch) -> bool:
        """Begin the file with `first`, the batch after `counts` whose commit has an unknown outcome.

        The log of the database is synced before: a power loss must not take what the header counts. False when the
        disk does not allow it.
        """
        if self._spill is None:
            return False
        try:
            sync_wal()
        except OSError as error:
            self._log.warning("write-ahead log could not be synced", event=LogEvent.WAL_SYNC_FAILED, detail=str(error))
        try:
            self._spill.begin(self._run_id, counts, in_causal_order(first, counts.ticks))
        except OSError as error:
            self._report(self._spill, error)
            return False
        self._refused = False
        return True

    def append(self, batch: WriteBatch, ticks_before: int) -> bool:
        """Append a batch that follows `ticks_before` ticks of the run. False when the disk does not allow it."""
        if self._spill is None:
            return False
        try:
            self._spill.append(in_causal_order(batch, ticks_before), at_end=self._control.stop.is_requested())
        except OSError as error:
            self._report(self._spill, error)
            return False
        self._refused = False
        return True

    def lose(self, batch: WriteBatch) -> None:
        """Give a batch up; and with it the file, for what follows would not fit to what is in it."""
        self.events_lost += batch.events
        spill, self._spill = self._spill, None
        if spill is not None:
            self._clean_up(spill.close)

    def empty(self) -> None:
        """All of the file is stored: make it an unused reserve again."""
        assert self._spill is not None
        try:
            self._spill.reset()
        except OSError as error:
            # Its events are stored: the next start passes over them. There is no spill for the rest of this run.
            spill, self._spill = self._spill, None
            self._report(spill, error)
            self._clean_up(spill.close)

    def finish(self, waiting_events: int) -> None:
        """Close the file, with an end mark when it is used. `waiting_events` of it are not stored."""
        spill, self._spill = self._spill, None
        if spill is None:
            return
        self._clean_up(spill.finish)
        if waiting_events:
            self._log.error(
                "events spilled", event=LogEvent.SPILLED, events=waiting_events, spill_file=str(spill.path),
                hint="the next start with this database stores them",
            )  # fmt: skip

    def _report(self, spill: Spill, error: OSError) -> None:
        """Once for as long as the file refuses."""
        if not self._refused:
            self._refused = True
            self._log.error(
                "spill failed", event=LogEvent.SPILL_FAILED, spill_file=str(spill.path), detail=str(error),
                events_spilled=spill.events,
            )  # fmt: skip

    def _clean_up(self, step: Callable[[], None]) -> None:
        """Do a step of cleaning up. A failing disk must not hide how the run ended, so it is reported as 13."""
        try:
            step()
        except OSError as error:
            self._log.error("clean-up failed", event=LogEvent.CLEANUP_FAILED, file="spill file", detail=str(error))
            self._control.fail(ExitCode.OVERLOAD, "persist", f"cannot close the spill file: {error}")


def reserve_spill(db_path: Path, config: Config, push: bool, log: Log) -> Spill | None:
    """Room beside the database for every event that can be on its way; blocks as the disk does.

    None, with a warning, where there is no such room: the run begins all the same.
    """
    batches = 2 if push else 1  # beside the open one, a push feed has one in commit
    reserve = sum(config.channels.sizes(push)) + 2 * MAX_TAKE + batches * MAX_BATCH_EVENTS
    try:
        return Spill(spill_path(db_path), reserve, config.persist.spill_max_mb)
    except OSError as error:
        log.warning(
            "the spill file cannot be created: if the database fails, events are lost",
            event=LogEvent.SPILL_NO_ROOM,
            detail=str(error),
        )
        return None
