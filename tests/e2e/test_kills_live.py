"""Repeated kill -9 of an engine with a live feed. `make kills-live` or $TRADEBOT_KILLS_LIVE increases the number."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.e2e.kills_live import kill_and_restart

KILLS = int(os.environ.get("TRADEBOT_KILLS_LIVE", "8"))


@pytest.mark.slow
@pytest.mark.timeout(90 + 5 * KILLS)
def test_kills_of_a_live_feed_store_nothing_twice_and_report_every_hole(tmp_path: Path) -> None:
    """Each restart continues after the stored ticks; every gap between them has its notice."""
    tally = kill_and_restart(tmp_path, KILLS, seed=20240808)
    assert tally["kills"] == KILLS
    assert tally["with rows"] > 0
    assert tally["gaps told"] > 0
