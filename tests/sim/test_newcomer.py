"""What new users of the simulator see: the example in the documentation, and the report of a failure."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sim.__main__ import main
from sim.kernel.clock import frozen
from sim.runner.history import HistoryOrder, play
from sim.scenarios import SCENARIOS
from sim.scenarios.common import replay_settings
from sim.world.world import World
from tradebot.core.log_events import LogEvent

PAGE = Path(__file__).resolve().parents[2] / "docs" / "determinism.md"


def example() -> str:
    """The scenario in the documentation."""
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(code)


def test_the_example_of_the_page_has_ten_lines_and_passes() -> None:
    code = example()
    body = code[code.index("@scenario") :].strip().splitlines()
    assert len(body) <= 10
    names = set(SCENARIOS)
    try:
        exec(compile(code, "example", "exec"), {})
        [added] = set(SCENARIOS) - names
        assert f"--scenario={added} " in PAGE.read_text()
        with frozen() as clock:
            assert [play(HistoryOrder(added, seed), clock).failure for seed in (1, 2, 3)] == [None, None, None]
    finally:
        for name in set(SCENARIOS) - names:
            del SCENARIOS[name]


def test_a_check_without_words_is_told_by_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(world: World) -> None:
        world.run(replay_settings(world))
        raise AssertionError  # like an `assert` that pytest has not rewritten

    monkeypatch.setitem(SCENARIOS, "wrong", wrong)
    with frozen() as clock:
        failure = play(HistoryOrder("wrong", 1), clock).failure
    assert failure is not None
    assert re.fullmatch(r"raise AssertionError .*\(test_newcomer\.py:\d+\)", failure)


def test_a_failure_is_told_from_what_is_wrong_to_what_happened(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(world: World) -> None:
        world.run(replay_settings(world))
        raise AssertionError("the sky is green")

    monkeypatch.setitem(SCENARIOS, "wrong", wrong)
    assert main(["--scenario=wrong", "--seed=3"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert " FAIL " in lines[1] and lines[1].endswith(" scenario=wrong")
    assert lines[2:5] == [
        "wrong: the sky is green",
        "rerun: python -m sim --scenario=wrong --seed=3",
        "what happened ([process] simulated time):",
    ]
    printed = "\n".join(lines[5:])
    assert (
        "process starts" in printed
        and LogEvent.REPLAY_FINISHED in printed
        and printed.endswith("process ended: exit code 0")
    )
    assert "more suppressed" not in printed, "what is dull is dull in sum too"
