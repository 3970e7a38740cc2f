"""The exit code that follows from the facts of a process, and the expected warnings and errors."""

from __future__ import annotations

from typing import Any

import pytest

from sim.swarm.fault_kinds import KINDS
from sim.swarm.oracle import EARLIER, EXPLAINED_BY, ProcessFacts, describe, expected_exit, unexplained
from tradebot.core.log_events import LogEvent

RUN: dict[str, Any] = {"ended_s": 60.1, "run_seconds": 60.0, "over_s": 60.05, "budget_s": 40.0, "unreadable_limit": 5}


@pytest.mark.parametrize(
    ("happened", "codes"),
    [
        ({}, {0}),
        ({"ended_s": 30.0, "over_s": 30.0}, set()),
        ({"ended_s": 30.0, "over_s": 30.0, "signals_s": (29.9,)}, {0}),
        ({"run_seconds": None, "fed_out": True}, {0}),
        ({"killed": True}, {None}),
        ({"began": False, "signals_s": (0.1,)}, {0}),
        ({"began": False}, set()),
        ({"began": False, "fed_out": True}, {0}),
        ({"began": False, "disk_failing_s": 3.0, "storage_retry_s": 2.0}, {13}),
        ({"began": False, "disk_failing_s": 1.0, "storage_retry_s": 2.0}, set()),
        ({"crashed": True}, {1}),
        ({"crashed": True, "refused": 3, "storage_failing": True}, {1}),
        ({"signals_s": (30.0, 30.5), "ended_s": 30.9, "over_s": 30.85}, {1}),
        ({"signals_s": (30.0, 30.5), "ended_s": 30.55, "over_s": 30.55}, {0, 1}),
        ({"signals_s": (30.0, 30.5), "ended_s": 35.0, "over_s": 30.1}, {0}),
        ({"refused": 1, "ended_s": 30.0}, {13}),
        ({"storage_failing": True, "ended_s": 30.0}, {13}),
        ({"storage_failing": True}, {13}),
        ({"drain_timed_out": True, "signals_s": (30.0,)}, {13}),
        ({"end_unrecorded": True}, {13}),
        ({"file_moved_s": 10.0}, {13}),
        ({"file_moved_s": 10.0, "signals_s": (30.0,)}, {13}),
        ({"file_moved_s": 60.07}, {0, 13}),
        ({"disk_failing_s": 1.0}, {0, 13}),
        ({"disk_failing_s": 1.0, "ended_s": 30.0}, {13}),
        ({"no_handshake_s": 40.0, "ended_s": 50.0}, {10}),
        ({"no_handshake_s": 40.0}, {0, 10}),
        ({"no_handshake_s": 50.0}, {10}),
        ({"no_handshake_s": 39.0}, {0}),
        ({"unreadable": 5, "surely_unreadable": 5}, {11}),
        ({"unreadable": 5, "surely_unreadable": 4}, {0, 11}),
        ({"unreadable": 4, "surely_unreadable": 4}, {0}),
        ({"unreadable": 50, "surely_unreadable": 50, "unreadable_limit": 0}, {0}),
        ({"strict_malformed": True, "run_seconds": None, "ended_s": 1.0}, {11}),
        ({"refused": 1, "no_handshake_s": 41.0}, {10, 13}),
    ],
)
def test_exit_codes(happened: dict[str, Any], codes: set[int | None]) -> None:
    """The cases of docs/reference/exit-codes.md."""
    assert expected_exit(ProcessFacts(**(RUN | happened))) == codes


def line(level: str, message: str, **fields: object) -> dict[str, Any]:
    return {"level": level, "fields": {"message": message, **fields}}


def test_complaints_need_an_explanation() -> None:
    lost = line("WARNING", "link lost", event=LogEvent.LINK_LOST)
    assert unexplained([lost], ["mute"], None) == []
    assert len(unexplained([lost], ["kill", "storage_full"], None)) == 1
    assert len(unexplained([line("ERROR", "never heard of")], list(KINDS), list(KINDS))) == 1
    assert unexplained([line("INFO", "never heard of")], [], None) == []
    held_back = line("WARNING", "7 more suppressed: link lost", event=LogEvent.LINK_LOST, suppressed=7)
    assert len(unexplained([held_back], [], None)) == 1


def test_what_happened_before_explains_some() -> None:
    cut = line("ERROR", "spill file is incomplete", event=LogEvent.SPILL_CUT_SHORT)
    assert unexplained([cut], [], ["kill"]) == []
    assert len(unexplained([cut], [], ["mute"])) == 1
    assert len(unexplained([cut], ["kill"], None)) == 1
    gap = line("WARNING", "trades missing", event=LogEvent.GAP)
    assert len(unexplained([gap], [], None)) == 1
    assert unexplained([gap], [], []) == []


def test_every_explanation_is_a_kind_of_fault() -> None:
    named = {kind for kinds in (*EXPLAINED_BY.values(), *EARLIER.values()) for kind in kinds}
    assert named - set(KINDS) == {"always"}


def test_facts_are_told_in_a_line() -> None:
    told = describe(ProcessFacts(**RUN, refused=3, crashed=True))
    assert "refused 3" in told and "crashed" in told and "killed" not in told and "\n" not in told
