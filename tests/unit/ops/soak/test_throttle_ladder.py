"""The ladder: up at once, down after a minute of calm, given up after three polls over at its end."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_purity import impurities
from tradebot.ops.soak.throttle_ladder import RUNGS, Ladder, rung_of

CALM, MIDDLE, OVER = 9.99, 15.0, 20.01


def states(ladder: Ladder, *looks: float | None) -> list[str]:
    """The state after each look."""
    found = []
    for value in looks:
        ladder.look(value)
        found.append(ladder.rung.state)
    return found


def test_the_rungs() -> None:
    assert [tuple(rung) for rung in RUNGS] == [("NORMAL", 1), ("THROTTLE1", 5), ("THROTTLE2", 10), ("THROTTLE3", 20)]


def test_every_poll_over_climbs_and_three_at_the_end_abort() -> None:
    ladder = Ladder()
    assert states(ladder, 20.0, OVER, OVER, OVER) == ["NORMAL", "THROTTLE1", "THROTTLE2", "THROTTLE3"]
    moves = [ladder.look(OVER).move for _ in range(4)]
    assert moves == [None, None, "abort", None]
    assert ladder.rung.state == "THROTTLE3"


def test_the_words_of_a_decision() -> None:
    assert Ladder().look(48.0).reason == "Throttling up to THROTTLE1 due to PSI: CPU 48.0"


def test_twelve_calm_polls_in_a_row_go_down_one_rung() -> None:
    ladder = Ladder(RUNGS[2])
    assert states(ladder, *[CALM] * 11) == ["THROTTLE2"] * 11
    assert ladder.look(CALM).move == "down" and ladder.rung.state == "THROTTLE1"
    assert states(ladder, *[CALM] * 12)[-2:] == ["THROTTLE1", "NORMAL"]
    assert states(ladder, *[CALM] * 30) == ["NORMAL"] * 30


@pytest.mark.parametrize("between", [10.0, MIDDLE, 20.0, None])
def test_what_is_not_calm_begins_the_row_anew(between: float | None) -> None:
    """10.0 is not under half of 20; a poll without PSI is not calm either."""
    ladder = Ladder(RUNGS[1])
    assert states(ladder, *[CALM] * 11, between, *[CALM] * 11) == ["THROTTLE1"] * 23
    assert ladder.look(CALM).move == "down"


def test_polls_over_at_the_end_count_until_it_comes_down() -> None:
    ladder = Ladder(RUNGS[3])
    assert states(ladder, OVER, MIDDLE, *[CALM] * 11, OVER, None) == ["THROTTLE3"] * 15
    assert ladder.look(OVER).move == "abort"
    ladder = Ladder(RUNGS[3])
    assert states(ladder, OVER, OVER, *[CALM] * 12, OVER) == ["THROTTLE3"] * 13 + ["THROTTLE2", "THROTTLE3"]
    assert [ladder.look(OVER).move for _ in range(3)] == [None, None, "abort"]


def test_the_calm_of_before_does_not_count_after_a_climb() -> None:
    ladder = Ladder(RUNGS[1])
    assert states(ladder, *[CALM] * 11, OVER, CALM) == ["THROTTLE1"] * 11 + ["THROTTLE2"] * 2


@pytest.mark.parametrize(
    ("every", "state"), [(1, "NORMAL"), (2, "THROTTLE1"), (5, "THROTTLE1"), (20, "THROTTLE3"), (999, "THROTTLE3")]
)
def test_a_throttle_of_no_rung_is_taken_for_the_next_one(every: int, state: str) -> None:
    assert rung_of(every).state == state


@given(st.lists(st.sampled_from([None, 0.0, CALM, 10.0, MIDDLE, 20.0, OVER, 100.0]), max_size=200))
def test_it_equals_a_plain_model(looks: list[float | None]) -> None:
    """Against a second telling: from the whole history instead of counters."""
    ladder = Ladder()
    at, since = 0, 0
    for now, value in enumerate(looks):
        step = ladder.look(value)
        history = looks[since : now + 1]
        row = history[-12:]
        move = None
        if value is not None and value > 20:
            if at < 3:
                move, at = "up", at + 1
            elif sum(v is not None and v > 20 for v in history) == 3:
                move = "abort"
        elif at > 0 and len(row) == 12 and all(v is not None and v < 10 for v in row):
            move, at = "down", at - 1
        if move in ("up", "down"):
            since = now + 1
        assert (step.move, ladder.rung) == (move, RUNGS[at])


def test_a_poll_without_a_reading_names_the_rung() -> None:
    ladder = Ladder()
    ladder.look(99.0)
    assert ladder.look(None).reason.endswith(f"the ladder stays at {ladder.rung.state}")


@pytest.mark.parametrize("name", ["throttle_ladder", "stall", "reasons"])
def test_decisions_are_pure(repo: Path, name: str) -> None:
    assert impurities((repo / "tradebot" / "ops" / "soak" / f"{name}.py").read_text()) == []
