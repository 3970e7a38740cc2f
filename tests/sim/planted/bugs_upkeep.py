"""The planted bugs in prune, backup and what a restart takes over of them."""

from __future__ import annotations

from typing import Final

from tests.sim.planted.bug import Bug

UPKEEP_BUGS: Final = (
    Bug(
        "prune_without_a_transaction",
        "prune deletes a block statement by statement, so that a tick can be gone and its order not yet",
        "tradebot/store/pruner.py",
        '        with storage_errors(), self._db.atomic("IMMEDIATE"):\n            if not self._is_as_found',
        "        with storage_errors():\n            if not self._is_as_found",
        20,
        "prune_between_runs",
    ),
    Bug(
        "prune_miscounts",
        "off by one: prune counts one order less than it deletes",
        "tradebot/store/pruner.py",
        "pruned_orders=RunRow.pruned_orders + orders,",
        "pruned_orders=RunRow.pruned_orders + max(0, orders - 1),",
        100,
    ),
    Bug(
        "prune_cutoff_off_by_a_block",
        "prune judges a block by its own ticks instead of by those after it, and takes young ones with them",
        "tradebot/store/pruner.py",
        "            after = rows[size:]\n",
        "            after = rows[:size]\n",
        20,
        "prune_beside_an_engine",
    ),
    Bug(
        "checkpoint_forgets_the_last_side",
        "a checkpoint forgets on which side the last signal was when no other one came since",
        "tradebot/store/restart.py",
        "last_side=state.last_side if news.side is None else news.side,",
        "last_side=news.side,",
        40,
        "prune_between_runs",
    ),
    Bug(
        "two_prunes_at_once",
        "prune does not look whether another one has deleted the block meanwhile",
        "tradebot/store/pruner.py",
        "            if not self._is_as_found(block.run, block.at):\n",
        "            if False:\n",
        40,
        "prune_beside_an_engine",
    ),
    Bug(
        "prune_overlooks_the_spill",
        "prune deletes a replay of which events wait in the spill file",
        "tradebot/store/pruner.py",
        "        if run.run_id != self._waiting.run_id:\n",
        "        if True:\n",
        20,
        "prune_waits_for_a_spill",
    ),
    Bug(
        "spill_deleted_before_it_is_stored",
        "the spill file is deleted when it was read, before its events are stored",
        "tradebot/store/adoption.py",
        "    stored, passed, reason = 0, 0, None\n",
        "    stored, passed, reason = 0, 0, None\n    path.unlink()\n",
        40,
        "prune_beside_the_adoption_of_a_spill",
    ),
    Bug(
        "fills_summed_up_in_another_order",
        "fills are summed up newest first, so that the sums are those of another history",
        "tradebot/store/carryover.py",
        ".order_by(TradeRow.id)\n        sql",
        ".order_by(TradeRow.id.desc())\n        sql",
        20,
        "prune_between_runs",
    ),
    Bug(
        "sums_written_blindly",
        "sums are written though others have written newer ones since they were read",
        "tradebot/store/carryover.py",
        "                if _counts(db, runs)[1] == base.folded:\n",
        "                if base.folded is not None:\n",
        100,
        "prune_beside_an_engine",
    ),
    Bug(
        "backup_in_place",
        "a backup is written to its place at once instead of beside it",
        "tradebot/store/backup.py",
        '    part = target.with_name(target.name + ".part")\n    try:\n',
        "    part = target\n    try:\n",
        40,
        "backup_beside_an_engine",
    ),
)
