"""A simulated kill is like a real one: the remaining files contain nothing that dying threads cleaned up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from sim.checks.checkers import check_database
from sim.kernel.clock import frozen
from sim.scenarios.common import flat_values, synthetic_settings
from sim.world.faults import StorageFaults
from sim.world.world import Faults, ProcessOutcome, SimProcess, World
from tradebot.core.events import StoredEvent
from tradebot.core.log_events import LogEvent
from tradebot.store.spill import Spill, spill_path


def spilling(world: World, faults: Faults) -> ProcessOutcome:
    """A push feed whose disk is full from the third second on, with a long drain, so that batches are spilled."""
    values = {"engine.tick_interval_ms": 50, "persist.storage_retry_s": 1.0, "persist.batch_size": 2}
    settings = world.settings({**flat_values(synthetic_settings(world)), **values})
    return world.run(settings, faults)


@pytest.mark.parametrize("end", ["kill", "exit"])
def test_a_spill_that_was_being_written_has_no_end_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """S13: a stage's `finally` completes the file; a killed process does not."""
    processes: list[SimProcess] = []
    append = Spill.append

    def deadly(spill: Spill, events: Sequence[StoredEvent], at_end: bool = False) -> None:
        append(spill, events, at_end)
        runtime = processes[0].runtime
        runtime.kill() if end == "kill" else runtime.exit_now(1)

    monkeypatch.setattr(Spill, "append", deadly)
    with frozen() as clock:
        world = World(1, tmp_path, clock)
        faults = Faults(storage=StorageFaults(full_from_s=3.0, full_until_s=1e9), begin=processes.append)
        outcome = spilling(world, faults)
        assert outcome.exit_code == (None if end == "kill" else 1)
        written = spill_path(world.db_path).read_bytes()
        assert written.startswith(b'["spill"') and b'["t"' in written and b'["end"' not in written
        monkeypatch.setattr(Spill, "append", append)
        following = spilling(world, Faults())
    assert following.event(LogEvent.SPILL_ADOPTED)["whole"] is False
    assert following.events(LogEvent.SPILL_CUT_SHORT)
    check_database(world.db_path)


def test_sqlites_log_is_left_as_it_was(tmp_path: Path) -> None:
    """Closing the last connection checkpoints and deletes the log; a killed process does not close it."""
    with frozen() as clock:
        world = World(1, tmp_path, clock)
        settings = synthetic_settings(world)
        outcome = world.run(settings, Faults(kill_at_s=8.0))
        assert outcome.exit_code is None and outcome.events(LogEvent.BATCH_FLUSHED)
        (tmp_path / "copy.db").write_bytes(world.db_path.read_bytes())
        without_log = world.dump(tmp_path / "copy.db")
        assert len(world.dump()["ticks"]) > len(without_log["ticks"])
        assert world.run(settings).exit_code == 0
    check_database(world.db_path)


def test_files_that_the_dying_make_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that they overwrite or delete are restored, too: status and quarantine files as well."""
    with frozen() as clock:
        world = World(1, tmp_path, clock)
        status = Path(f"{world.db_path}.status.json")

        def begin(process: SimProcess) -> None:
            def dying() -> None:
                process.runtime.kill()
                status.write_text("written by the dead")
                Path(f"{world.db_path}.quarantine.jsonl").write_text("as well")

            process.runtime.call_at(2.5, dying)

        world.run(synthetic_settings(world), Faults(begin=begin))
    assert '"state":"running"' in status.read_text()
    assert not Path(f"{world.db_path}.quarantine.jsonl").exists()


@pytest.mark.parametrize(
    ("said", "exact"),
    [
        ([LogEvent.LEDGER], False),
        ([LogEvent.LEDGER, LogEvent.FINAL_METRICS], True),
        ([LogEvent.SECOND_SIGNAL, LogEvent.LEDGER, LogEvent.FINAL_METRICS], False),
    ],
)
def test_an_account_must_be_exact_when_it_was_given_to_its_end(said: list[str], exact: bool) -> None:
    """Not required after a kill between the ledger and the last line, or after a second signal."""
    logs = [{"level": "INFO", "fields": {"message": name, "event": name}} for name in said]
    assert ProcessOutcome(None, None, logs, "", "", 0, 0.0).has_exact_ledger is exact
