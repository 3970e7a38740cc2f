"""Reasons are compared as values; their words are for people."""

import pytest

from tradebot.ops.soak.reasons import (
    ConfigurationRefused,
    EngineNeverSeen,
    ForeignDatabase,
    Obstacle,
    RestartFailed,
    SkipReason,
    ThrottleNotWritten,
    UnitBusy,
    UnitStopped,
)

UNIT = "a.service"


def test_another_process_is_another_reason() -> None:
    assert ForeignDatabase(UNIT, 7, None) == ForeignDatabase(UNIT, 7, None)
    assert ForeignDatabase(UNIT, 7, None) != ForeignDatabase(UNIT, 8, None)
    reasons: list[Obstacle] = [RestartFailed("denied"), ThrottleNotWritten("denied")]
    assert reasons[0] != reasons[1], "the same words for another thing"


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (ForeignDatabase(UNIT, 7, 9), "process 9 writes the status beside this database, and a.service is process 7"),
        (ForeignDatabase(UNIT, 7, None), "process 7 of a.service has written no status beside this database: is --db"),
        (UnitStopped(UNIT, "not running: inactive"), "a.service is not running: inactive, and a stopped unit"),
        (ConfigurationRefused(UNIT), "a.service ended with 12"),
        (EngineNeverSeen(UNIT, "x.db"), "no engine was ever seen in x.db"),
        (ThrottleNotWritten("No space left on device"), "throttle file: No space left on device"),
        (UnitBusy(UNIT, "activating"), "a.service is already activating"),
    ],
)
def test_words(reason: SkipReason | Obstacle, words: str) -> None:
    assert str(reason).startswith(words)
