"""The swarm: sixty histories with every kind of fault, how they are drawn, and whether the checks detect errors."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from mockws_server.actions import Disconnect
from sim.kernel.clock import frozen
from sim.kernel.runtime import SimRuntime
from sim.runner.history import PAPER, History, HistoryOrder, drawn_scenario, play, shrink
from sim.scenarios import SCENARIOS, swarm
from sim.swarm.fault_kinds import KINDS
from sim.swarm.final_state import check_final_state
from sim.swarm.invariants import check_process
from sim.swarm.plan import FEEDS, Plan, draw_plan
from sim.swarm.swarm import Swarm
from sim.world.world import World
from tradebot.core.channel import Channel
from tradebot.core.events import TickChunk
from tradebot.threads.strategy import StrategyStage

ALL = tuple(KINDS.values())


def plan(seed: int, only: frozenset[str] | None = None, safety_s: float | None = None) -> Plan:
    return draw_plan(SimRuntime(seed).stream, ALL, only, safety_s)


# ---- sixty of them -------------------------------------------------------------------------------------------------


SEEDS: Final = 60  # `make sim` runs any number; each third one in mode PAPER
_TEN: Final = 10
_played: dict[int, History] = {}


def _mode(seed: int) -> str:
    return "paper_swarm" if seed % 3 == 0 else "swarm"


def histories(first: int, count: int) -> list[History]:
    """The histories of `count` seeds from `first` on, each run once in this process."""
    with frozen() as clock:
        for seed in range(first, first + count):
            if seed not in _played:
                _played[seed] = play(HistoryOrder(_mode(seed), seed), clock)
    return [_played[seed] for seed in range(first, first + count)]


@pytest.mark.parametrize("first", range(1, SEEDS + 1, _TEN))
@pytest.mark.timeout(120)
def test_no_seed_fails(first: int) -> None:
    """G5, I3, S8, S13 and others: the invariants hold, whatever happens to the engine."""
    failed = [history for history in histories(first, _TEN) if history.failure]
    assert not failed, "\n".join([f"{history.failure}\nrerun: {history.order.command}" for history in failed])


@pytest.mark.timeout(300)
def test_every_kind_of_fault_was_injected() -> None:
    injected: Counter[str] = Counter()
    for history in histories(1, SEEDS):
        injected.update(history.injected)
    assert set(injected) == set(KINDS)


@pytest.mark.timeout(300)
def test_each_seed_is_a_history_of_its_own() -> None:
    played = histories(1, SEEDS)
    assert len({history.digest for history in played}) == SEEDS
    with frozen() as clock:
        for seed in (17, 18):
            assert play(HistoryOrder(_mode(seed), seed), clock).digest == played[seed - 1].digest


# ---- the plan ------------------------------------------------------------------------------------------------------


def test_a_seed_draws_everything() -> None:
    plans = [plan(seed) for seed in range(300)]
    assert {drawn.feed for drawn in plans} == set(FEEDS)
    assert {kind for drawn in plans for kind in drawn.kinds} == set(KINDS)
    assert {len(drawn.process_faults) for drawn in plans} == {1, 2, 3}
    on = [kind for drawn in plans if drawn.feed == "mockws" for kind in drawn.kinds]
    share = len(on) / (len(KINDS) * sum(drawn.feed == "mockws" for drawn in plans))
    assert 0.28 < share < 0.39, "each kind is on in a third of the histories"


@pytest.mark.parametrize("seed", range(20))
def test_leaving_a_kind_out_changes_nothing_about_the_others(seed: int) -> None:
    """This makes it possible to shrink a failure."""
    whole = plan(seed)
    for kind in whole.kinds:
        rest = plan(seed, frozenset(whole.kinds) - {kind})
        assert rest.values == whole.values and rest.options == whole.options and rest.steps == whole.steps
        kept = [[fault for fault in life if fault.kind != kind] for life in whole.process_faults]
        assert [list(life) for life in rest.process_faults] == kept


def test_faults_can_be_bound() -> None:
    drawn = plan(3, frozenset({"kill", "mute"}), 5.0)
    assert set(drawn.kinds) <= {"kill", "mute"} and drawn.safety_s == 5.0
    assert all(fault.at_s <= 5.0 for life in drawn.process_faults for fault in life)
    assert plan(3, frozenset()).kinds == ()


def test_most_seeds_draw_the_swarm_and_every_other_scenario_has_its_turn() -> None:
    drawn = Counter(drawn_scenario(seed) for seed in range(5000))
    assert set(drawn) == set(SCENARIOS)
    of_paper = sum(drawn[name] for name in PAPER)
    assert 0.75 < (drawn["swarm"] + of_paper) / 5000 < 0.85
    assert 0.3 < of_paper / (drawn["swarm"] + of_paper) < 0.37


# ---- would it notice -----------------------------------------------------------------------------------------------


def lose_a_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The strategy silently discards every 40th chunk of ticks."""
    process, count = StrategyStage._process, [0]

    def forgetful(stage: StrategyStage, chunk: TickChunk) -> None:
        count[0] += 1
        if count[0] % 40:
            process(stage, chunk)

    monkeypatch.setattr(StrategyStage, "_process", forgetful)


def overfill(monkeypatch: pytest.MonkeyPatch) -> None:
    """A channel that accepts one event more than it may."""

    def put(channel: Channel[Any], item: Any, start: int, total: int) -> int:
        fits = min(total - start, channel.maxsize + 1 - channel._events)
        if fits:
            channel.queue.append(item if fits == total else item.part(start, start + fits))
            channel._events += fits
            channel.high_water = max(channel.high_water, channel._events)
            channel.entered += fits
            channel.not_empty.notify()
        return fits

    monkeypatch.setattr(Channel, "_put_part", put)


@pytest.mark.parametrize(
    ("bug", "complaint"), [(lose_a_tick, "hands|reference|stored|file has"), (overfill, "its bound is")]
)
def test_a_broken_engine_is_found_within_ten_seeds(
    monkeypatch: pytest.MonkeyPatch, bug: Callable[[pytest.MonkeyPatch], None], complaint: str
) -> None:
    bug(monkeypatch)
    found: list[str | None] = []
    with frozen() as clock:
        for seed in range(1, 11):
            found.append(play(HistoryOrder("swarm", seed), clock).failure)
            if re.search(complaint, found[-1] or ""):
                return
    pytest.fail(f"not found: {found}")


def test_a_failure_is_shrunk_to_the_faults_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that fails after any close code: only this kind of fault remains, and a short time."""
    play_on = Swarm.play

    def touchy(history: Swarm, after_each: object) -> None:
        play_on(history, lambda _history: None)
        assert not history.world.injected["close_codes"], "a close code came"

    seed = next(
        history.order.seed
        for history in histories(1, _TEN)
        if history.order.scenario == "swarm" and history.injected.get("close_codes") and len(history.faults) > 5
    )
    monkeypatch.setattr(Swarm, "play", touchy)
    with frozen() as clock:
        failed = play(HistoryOrder("swarm", seed), clock)
        shrunk = shrink(failed, clock)
    assert shrunk is not None
    assert shrunk.history.faults == ("close_codes",)
    assert shrunk.history.failure == failed.failure == "a close code came"
    assert shrunk.history.order.safety_s is not None and shrunk.history.order.safety_s < 40.0
    assert "--faults=close_codes --sim-seconds=" in shrunk.history.order.command


def test_the_journal_tells_of_faults_and_logs_in_order() -> None:
    with tempfile.TemporaryDirectory() as directory, frozen() as clock:
        world = World(1, Path(directory), clock)
        world.only = frozenset({"close_codes"})
        for seed in range(1, 20):
            world = World(seed, Path(directory) / str(seed), clock)
            world.directory.mkdir()
            world.only = frozenset({"close_codes"})
            history = Swarm(world)
            if history.exchange is not None:
                break
        history.play(check_process)
        check_final_state(history)
    observer = history.process_runs[0].process.observer
    assert observer.quiet_checks > 5 and observer.turn_checks > 5, "the running engine was looked at"
    text = "\n".join(world.journal.lines(500))
    assert "FAULT close_codes: disconnect" in text
    assert text.index("FAULT close_codes") < text.index("WARNING ingest: link lost") < text.index("link restored")
    assert text.endswith("process ended: exit code 0")
    codes = [fault.what for life in history.plan.process_faults for fault in life]
    assert all(isinstance(code, Disconnect) for code in codes)


def test_killed_processes_leave_no_file_open(tmp_path: Path) -> None:
    """Hunts last for hours, so the simulator must release what a killed process would have released."""
    with frozen() as clock:
        play(HistoryOrder("kill_and_resume", 1), clock)
        before = len(list(Path("/proc/self/fd").iterdir()))
        for seed in range(2, 8):
            play(HistoryOrder("kill_and_resume", seed), clock)
        assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_scenario_is_registered() -> None:
    assert SCENARIOS["swarm"] is swarm.swarm and SCENARIOS["paper_swarm"] is swarm.paper_swarm


def test_paper_changes_settings_alone() -> None:
    """The same seed in mode PAPER draws the same feed, faults and sizes."""
    for seed in range(1, 30):
        shadow, paper = plan(seed), draw_plan(SimRuntime(seed).stream, ALL, paper=True)
        assert (paper.feed, paper.process_faults, paper.steps) == (shadow.feed, shadow.process_faults, shadow.steps)
        assert paper.values["mode"] == "PAPER" and "mode" not in shadow.values
