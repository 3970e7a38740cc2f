"""Planted bugs in replays of stored runs."""

from __future__ import annotations

from typing import Final

from tests.sim.planted.bug import Bug

_SCENARIO: Final = "replay_of_live_run"

REPLAY_BUGS: Final = (
    Bug(
        "replay_executes_refused_signals",
        "a replay executes the signals that the run refused as stale or dropped",
        "tradebot/feeds/factory.py",
        "        refusals=found.repeated(),\n",
        "",
        20,
        _SCENARIO,
    ),
    Bug(
        "notice_replayed_a_tick_late",
        "a replay shows a notice after the tick that it preceded",
        "tradebot/store/replayed.py",
        "            yield before + at, notice\n",
        "            yield before + at + 1, notice\n",
        20,
        _SCENARIO,
    ),
    Bug(
        "replay_reads_the_halt_file",
        "a replay is halted by the file beside its database",
        "tradebot/engine.py",
        "halts.poll if source.push else None",
        "halts.poll",
        20,
        _SCENARIO,
    ),
)
