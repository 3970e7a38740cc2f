"""Planted bugs: each replacement still applies, and some bugs are found here; `make planted` searches all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sim.planted.bug import REPO, Bug, Stale
from tests.sim.planted.bugs import BUGS
from tests.sim.planted.finder import Odd, check_of, find, hunt, program

QUICK = {
    "lost_final_flush": 6,
    "sampling_off_by_one": 6,
    "close_wakes_no_consumer": 3,
}
"""Bugs that are found with few seeds, and the limit of seeds here: about a quarter of a second each."""

NAMED = {bug.name: bug for bug in BUGS}
TABLE = REPO / "docs" / "planted-bugs.md"


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_every_patch_still_fits(bug: Bug) -> None:
    """The text to replace occurs exactly once, and the result is still valid Python."""
    planted = bug.planted_in((REPO / bug.file).read_text(encoding="utf-8"))
    compile(planted, bug.file, "exec")


def test_a_patch_that_does_not_fit_says_so() -> None:
    bug = BUGS[0]
    for text in ("", bug.old + bug.old):
        with pytest.raises(Stale, match=f"{bug.name}: the text to replace occurs {text.count(bug.old)} times in"):
            bug.planted_in(text)
    assert bug.planted_in(f"one{bug.old}two") == f"one{bug.new}two"


def test_there_are_many_and_each_has_its_row() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+) \| (\d+) \|$", TABLE.read_text(encoding="utf-8"), re.M)
    assert [(name, what) for name, what, _check, _seeds in rows] == [(bug.name, bug.what) for bug in BUGS]
    assert len(NAMED) == len(BUGS) >= 18
    for name, _what, check, seeds in rows:
        assert int(seeds) <= NAMED[name].seeds, f"{name} took more seeds than it may"
        assert "not found" not in check


@pytest.fixture(scope="module")
def sound() -> Iterator[Path]:
    """The program without a bug."""
    with program(None) as directory:
        yield directory


@pytest.mark.parametrize("name", QUICK)
def test_it_is_found(name: str, sound: Path) -> None:
    """By `python -m sim` as everybody runs it, with the scenario drawn by the seed."""
    found = find(NAMED[name]._replace(seeds=QUICK[name]))
    assert found is not None, f"not found within {QUICK[name]} seeds: {NAMED[name].what}"
    assert hunt(sound, found.seed, 1, None) == (1, None), "found without the bug too"


@pytest.mark.parametrize(
    ("words", "scenario", "check"),
    [
        ("Deadlock: no thread can run", "swarm", "deadlock"),
        ("process 1: exit code 0, but what happened means 13: refused 3", "swarm", "exit code"),
        ("process 2: no fault explains: ERROR thread crashed {}", "swarm", "complaints"),
        ("signals: stored 3, the reference has 4", "swarm", "reference"),
        ("exit code 0 instead of 13: ", "overload_by_persist", "expectation of overload_by_persist"),
    ],
)
def test_who_speaks(words: str, scenario: str, check: str) -> None:
    assert check_of(words, scenario) == check


@pytest.mark.parametrize("words", ["NameError: name 'x' is not defined", "peewee.OperationalError: locked", "hm"])
def test_an_exception_is_no_finding(words: str) -> None:
    """A bug that breaks the program or the simulator itself was not found by a check."""
    with pytest.raises(Odd):
        check_of(words, "swarm")
