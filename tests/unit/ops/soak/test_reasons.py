"""Reasons are compared as values; their words are for people."""

import pytest

from tradebot.ops.soak.reasons import (
    ConfigurationRefused,
    DatabaseMissing,
    EngineNeverSeen,
    ForeignDatabase,
    Obstacle,
    Problem,
    RestartFailed,
    SkipReason,
    ThrottleNotWritten,
    UnitBusy,
    UnitNotRunning,
    UnitStopped,
    Unreadable,
)

UNIT = "a.service"


def test_another_process_is_another_reason() -> None:
    assert ForeignDatabase(UNIT, 7, None) == ForeignDatabase(UNIT, 7, None)
    assert ForeignDatabase(UNIT, 7, None) != ForeignDatabase(UNIT, 8, None)
    problems: list[Problem] = [Unreadable("psi", "gone"), Unreadable("ticks", "gone")]
    assert problems[0] != problems[1], "the same words for another source"
    reasons: list[Obstacle] = [RestartFailed("denied"), ThrottleNotWritten("denied")]
    assert reasons[0] != reasons[1], "the same words for another thing"


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (ForeignDatabase(UNIT, 7, 9), "process 9 writes the status beside this database, and a.service is process 7"),
        (ForeignDatabase(UNIT, 7, None), "process 7 of a.service has written no status beside this database: is --db"),
        (DatabaseMissing(7, ended=False), "the database does not exist, although process 7 writes it"),
        (DatabaseMissing(7, ended=True), "the database does not exist, although process 7 wrote it"),
        (UnitNotRunning(UNIT, "not known to the service manager"), "a.service is not known to the service manager"),
        (Unreadable("psi", "PSI /x/cpu: gone"), "PSI /x/cpu: gone"),
        (UnitStopped(UNIT, "not running: inactive"), "a.service is not running: inactive, and soak does not start"),
        (ConfigurationRefused(UNIT), "a.service exited with 12"),
        (EngineNeverSeen(UNIT, "x.db"), "no engine was ever seen in x.db"),
        (ThrottleNotWritten("No space left on device"), "throttle file: No space left on device"),
        (UnitBusy(UNIT, "activating"), "a.service is already activating"),
    ],
)
def test_words(reason: SkipReason | Obstacle | Problem | DatabaseMissing, words: str) -> None:
    assert str(reason).startswith(words)
