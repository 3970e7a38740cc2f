"""Proof: the soak supervisor finds an engine that was stopped in its tracks, and has it restarted until ticks flow.

Two engines and two supervisors at once, one with PSI actions and one without. Their pressure files are made up and
calm: a machine under pressure would have the ladder restart the engine, and its stall would be over too soon.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tradebot.core.errors import TradebotError
from tradebot.ops.proofs.base import Experiment, Means, ProofOutcome, judged
from tradebot.ops.proofs.lab import ChildProcess, Evidence, Lab, rounded
from tradebot.ops.proofs.manager import Manager
from tradebot.ops.soak.decision_log import decisions_path
from tradebot.ops.soak.last_tick import newest_tick
from tradebot.ops.soak.psi import RESOURCES
from tradebot.ops.soak.stall import STALL_S

POLL_S: Final = 5.0
SLACK_S: Final = 3.0
"""What a busy machine may add to the limit and one poll."""
START_S: Final = 40.0
FLOW_S: Final = 40.0
WORK_TICKS: Final = 20
LIFE_S: Final = 240
CALM: Final = "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
ACTIONS: Final = ("off", "on")


class _Watched:
    """One engine as a unit, and its supervisor."""

    def __init__(self, lab: Lab, manager: Manager, actions: str) -> None:
        self.actions = actions
        self.db = lab.path(f"{actions}.db")
        self.unit = manager.write_engine(
            lab,
            f"stall-{actions}",
            [
                "run",
                f"--db={self.db}",
                f"--seconds={LIFE_S}",
                lab.config(f"{actions}.toml", engine__tick_interval_ms=20),
            ],
        )
        self.soak: ChildProcess | None = None
        self.stopped_s = 0.0
        self.stopped_at_id = 0
        self.before: dict[str, str] = {}
        self.stall_s = 0.0
        """Without progress when the supervisor decided."""

    def supervise(self, lab: Lab, manager: Manager, psi_root: Path) -> None:
        self.soak = lab.start(
            f"soak-{self.actions}",
            [
                "soak",
                f"--db={self.db}",
                f"--unit={self.unit}",
                f"--systemctl={manager.command}",
                f"--psi-root={psi_root}",
                f"--psi-actions={self.actions}",
                f"--poll={POLL_S:g}",
                f"--duration={LIFE_S}",
            ],
        )

    def decisions(self) -> list[dict[str, Any]]:
        """What the supervisor has recorded so far; a line may be under way."""
        path = decisions_path(self.db)
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def stalls(self) -> list[dict[str, Any]]:
        return [decision for decision in self.decisions() if decision["action"] == "STALL"]

    def at_work(self) -> bool:
        return self.newest_id() >= WORK_TICKS and bool(self.decisions())

    def newest_id(self) -> int:
        try:
            return newest_tick(self.db).id or 0
        except TradebotError:  # while it is being made
            return 0


def run(lab: Lab, means: Means) -> ProofOutcome:
    """See the module."""
    manager = means.manager
    assert manager is not None, "needs_systemd"
    psi_root = lab.path("pressure")
    psi_root.mkdir()
    for name in RESOURCES:
        (psi_root / name).write_text(CALM, encoding="ascii")
    watched = [_Watched(lab, manager, actions) for actions in ACTIONS]
    manager.reload()
    manager.call("start", *(it.unit for it in watched), within_s=START_S)
    for it in watched:
        it.supervise(lab, manager, psi_root)
    for it in watched:
        lab.wait(it.at_work, f"{it.unit} at work", START_S)
    for it in watched:
        it.before = manager.show(it.unit, "MainPID", "InvocationID")
        manager.call("kill", "--signal=STOP", it.unit)
        it.stopped_s = lab.runtime.monotonic()
    lab.pause(1.0)  # what was on its way to the disk when the signal came
    for it in watched:
        it.stopped_at_id = it.newest_id()
    evidence: Evidence = {"limit_s": STALL_S, "poll_s": POLL_S, "pressure_files": CALM.splitlines(), "engines": []}
    faults: list[str] = []
    found_s = _wait_for_stalls(lab, watched)
    for it in watched:
        faults += _judge(lab, manager, it, found_s.get(it.actions), evidence)
    evidence["commands"] = lab.shown_commands()
    took = " and ".join(f"{it.stall_s:.1f} s (PSI actions {it.actions})" for it in watched)
    return judged(faults, f"STALL after {took} without progress; restarted, and ticks flow again", evidence)


def _wait_for_stalls(lab: Lab, watched: Sequence[_Watched]) -> dict[str, float]:
    """Seconds from SIGSTOP until each supervisor had its engine restarted; without those that never did."""
    found: dict[str, float] = {}
    until_s = max(it.stopped_s for it in watched) + STALL_S + POLL_S + SLACK_S + START_S
    while len(found) < len(watched) and lab.runtime.monotonic() < until_s:
        for it in watched:
            if it.actions not in found and it.stalls():
                found[it.actions] = lab.runtime.monotonic() - it.stopped_s
        lab.pause(0.1)
    return found


def _judge(lab: Lab, manager: Manager, it: _Watched, found_s: float | None, evidence: Evidence) -> list[str]:
    where = f"PSI actions {it.actions}"
    decisions, stalls = it.decisions(), it.stalls()
    seen: dict[str, Any] = {
        "psi_actions": it.actions,
        "unit": it.unit,
        "restarted_after_s": None if found_s is None else rounded(found_s),
        "decisions": len(decisions),
        "first_decision": decisions[0],
        "stall_decisions": stalls[:3],
        "before": it.before,
    }
    evidence["engines"].append(seen)
    if found_s is None:
        seen["log"] = lab.tail(lab.path(f"soak-{it.actions}.log").read_text(errors="replace"))
        return [f"{where}: no STALL within {STALL_S + POLL_S + SLACK_S + START_S:.0f} s"]
    lab.wait(lambda: it.newest_id() >= it.stopped_at_id + WORK_TICKS, f"ticks after the restart of {it.unit}", FLOW_S)
    seen["after"] = after = manager.show(it.unit, "MainPID", "InvocationID", "NRestarts", "ActiveState")
    seen["ticks_before"], seen["ticks_after"] = it.stopped_at_id, it.newest_id()
    it.stall_s = float(stalls[0]["seconds_since_progress"])
    restarted = after["InvocationID"] != it.before["InvocationID"]
    # systemd counts its own restarts; a requested restart resets the counter.
    by_itself = after["NRestarts"] != "0"
    actions = [one["action"] for one in decisions]
    return [f"{where}: {fault}" for fault in faults_of(actions, it.stall_s, restarted, by_itself)]


def faults_of(actions: Sequence[str], stall_s: float, restarted: bool, by_itself: bool) -> list[str]:
    """What is wrong with a supervisor that took these actions, the stall after so long without progress. Pure.

    `by_itself`: the service manager had restarted the engine without being asked, for its watchdog.
    """
    faults = []
    if not STALL_S <= stall_s <= STALL_S + POLL_S + SLACK_S:
        faults.append(f"STALL after {stall_s:.1f} s without progress, expected {STALL_S:g} to {STALL_S + POLL_S:g}")
    if not restarted:
        faults.append("the unit was not restarted")
    if by_itself:
        faults.append("systemd's watchdog restarted the unit, not the supervisor")
    if sorted(set(actions)) != ["NONE", "STALL"] or actions.count("STALL") != 1:
        faults.append(
            f"expected exactly one STALL and no other action, got: {', '.join(one for one in actions if one != 'NONE')}"
        )
    return faults


EXPERIMENT: Final = Experiment(
    "stall_detection",
    f"an engine stopped by SIGSTOP is detected after {STALL_S:g} s and restarted, with PSI actions off and on",
    200,
    True,
    run,
)
