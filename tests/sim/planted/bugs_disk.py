"""Planted bugs in syncing data to the disk and in detecting replaced files."""

from __future__ import annotations

from typing import Final

from tests.sim.planted.bug import Bug

DISK_BUGS: Final = (
    Bug(
        "spill_not_synced",
        "events count as spilled although the file was not synced",
        "tradebot/store/spill.py",
        "                view = view[written:]\n            os.fdatasync(self._descriptor)\n",
        "                view = view[written:]\n",
        40,
        "spill_then_power_cut",
    ),
    Bug(
        "commits_not_synced_before_a_spill",
        "the spill's header counts commits that a power loss can still undo",
        "tradebot/threads/spilling.py",
        "        try:\n            sync_wal()\n",
        "        try:\n            pass\n",
        40,
        "spill_then_power_cut",
    ),
    Bug(
        "adoption_not_synced",
        "the spill file is deleted when its events are committed, but not yet on disk",
        "tradebot/store/session.py",
        '        db.execute_sql("PRAGMA synchronous = FULL")\n',
        "",
        40,
        "adoption_then_power_cut",
    ),
    Bug(
        "hot_journal_refused",
        "a start checks the database before SQLite has rolled back an interrupted transaction",
        "tradebot/store/database.py",
        '        if error.code != "SQLITE_READONLY":\n            raise\n',
        "        raise\n",
        40,
        "first_start_interrupted",
    ),
    Bug(
        "file_replaced_unnoticed",
        "the engine does not check whether the database is still the file that it opened",
        "tradebot/store/file_identity.py",
        "        now = identity_of(self._database) if self._opened is None else",
        "        return\n        now = identity_of(self._database) if self._opened is None else",
        200,
    ),
    Bug(
        "refused_notice_dropped",
        "a notice refused by the full tick channel is discarded silently, and the run continues",
        "tradebot/threads/ingest.py",
        "full = not self._tick_channel.offer(replace(",
        "full = 0 > self._tick_channel.offer(replace(",
        200,
    ),
    Bug(
        "watchdog_always_fed",
        "the watchdog is fed even if a stage is stalled",
        "tradebot/telemetry/publisher.py",
        "        if not status.still_s:\n            self._notifier.alive()\n",
        "        self._notifier.alive()\n",
        200,
    ),
)
