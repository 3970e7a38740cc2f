"""kill -9 at any moment, then resume. $TRADEBOT_KILLS says how many kills, $TRADEBOT_KILLS_SEED which ones."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.e2e.kills import PAPER, SHADOW, Replay, kill_and_resume
from tests.e2e.process import SESSION, SESSION_CONFIG, Engine, assert_sound, dump, ticks_stored, wait_until

KILLS = int(os.environ.get("TRADEBOT_KILLS", "6"))
SEED = int(os.environ.get("TRADEBOT_KILLS_SEED", "20240808"))


@pytest.mark.slow
@pytest.mark.timeout(60 + 3 * KILLS)
@pytest.mark.parametrize("replay", [SHADOW, PAPER], ids=lambda replay: replay.name)
def test_kills_at_random_moments_lose_nothing_that_a_resume_does_not_bring_back(tmp_path: Path, replay: Replay) -> None:
    """I3, S8: intact, no row without its cause, no acknowledged row missing; a resume restores all rows."""
    tally = kill_and_resume(tmp_path, KILLS, SEED, replay)
    assert tally["kills"] == KILLS
    assert tally["with rows"] > 0


def test_a_replay_held_in_part_is_refused_without_resume(engine: Engine, undisturbed: Path) -> None:
    """Refused with 12 and a hint; `--resume` continues it, and reports when it is complete."""
    args = (f"--config={SESSION_CONFIG}", f"--replay-file={SESSION}", "--db=x.db")
    db = engine.path("x.db")
    running = engine.start(*args, "--speed=50x")
    wait_until(lambda: ticks_stored(db) > 100, "100 ticks stored")
    assert running.kill().code == -signal.SIGKILL
    held = ticks_stored(db)
    refused = engine.run(*args).expect(12)
    assert "in part" in refused.complaint
    assert "--resume" in refused.complaint
    assert ticks_stored(db) == held
    ledger = engine.run(*args, "--resume").expect(0).ledger
    assert ledger["already_stored"] == held
    assert ledger["stored"] == 13_932 - held
    assert dump(db) == dump(undisturbed)
    assert_sound(db)
    again = engine.run(*args, "--resume").expect(0)
    assert "Nothing to do" in again.stdout
    refused = engine.run(*args).expect(12)
    assert "whole" in refused.complaint
    assert dump(db) == dump(undisturbed)
