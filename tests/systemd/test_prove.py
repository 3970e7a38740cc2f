"""`tradebot prove` under a real systemd: all six proofs pass, and only what no proof can give keeps the gate shut."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.systemd.namespace import Systemd
from tradebot.ops.gate import NO_GATEWAY
from tradebot.ops.proofs.bundle import FILE_NAME, NAMES, parse

pytestmark = [pytest.mark.slow, pytest.mark.proof]

REPO = Path(__file__).resolve().parents[2]
UNITS = "/run/systemd/system"
WITHIN_S = 40.0


@pytest.fixture
def state(manager: Systemd, tmp_path: Path) -> Path:
    """A directory for the operator's database, which the manager sees too."""
    if UNITS not in manager.ctl("show", "--property=UnitPath"):
        pytest.skip(f"this manager does not read {UNITS}")
    return tmp_path


def inside(manager: Systemd, state: Path, *words: str) -> list[str]:
    """A command line that runs tradebot where the manager runs."""
    variables = [f"HOME={state}", f"PYTHONPATH={REPO}", f"PATH={os.environ['PATH']}"]
    enter = manager.systemctl.read_text().partition("exec ")[2].partition(" systemctl ")[0].split()
    return [*enter, "env", "-i", *variables, sys.executable, "-m", "tradebot", *words]


def nothing_left(manager: Systemd, state: Path) -> bool:
    """No unit, no unit file, no directory of experiments."""
    units = manager.ctl("list-units", "--all", "--no-legend", "tradebot-proof-*")
    files = manager.run("ls", UNITS, check=False)
    return "tradebot-proof-" not in units + files and not list(state.glob("tradebot-proof-*"))


@pytest.mark.timeout(400)
def test_all_pass_and_the_gate_names_what_is_left(manager: Systemd, state: Path) -> None:
    """G0, G1."""
    config = state / "live.toml"
    config.write_text(f"mode = 'LIVE'\nlive_armed = true\n[app]\ndb_path = '{state}/x.db'\n")
    begun_s = time.monotonic()
    proving = subprocess.run(
        inside(manager, state, "prove", f"--config={config}"), capture_output=True, text=True, timeout=380
    )
    took_s = time.monotonic() - begun_s
    assert proving.returncode == 0, proving.stdout + proving.stderr
    assert [line.split()[:2] for line in proving.stdout.splitlines()[:6]] == [["PASSED", name] for name in NAMES]
    assert proving.stderr == ""
    assert nothing_left(manager, state)
    print(f"{took_s:.0f} s\n{proving.stdout}")
    assert took_s < 240

    bundle = parse((state / FILE_NAME).read_bytes())
    assert bundle.unpassed() == [] and bundle.machine["service_manager"].startswith("systemd 2")
    evidence = {proof.name: proof.evidence for proof in bundle.proofs}
    by_code = {one["code"]: one["show"] for one in evidence["exit_codes"]["engines"]}
    assert (by_code[12]["ExecMainStatus"], by_code[12]["NRestarts"]) == ("12", "0")
    stalled = evidence["stall_detection"]["engines"]
    assert [one["psi_actions"] for one in stalled] == ["off", "on"]
    assert all(45 <= one["stall_decisions"][0]["seconds_since_progress"] <= 53 for one in stalled)
    assert evidence["throttling"]["engine"].startswith("a unit of systemd")

    live = subprocess.run(inside(manager, state, f"--config={config}"), capture_output=True, text=True, timeout=60)
    assert live.returncode == 12
    assert live.stderr == f"tradebot: mode LIVE is refused:\n  - {NO_GATEWAY}\n"
    config.write_text(config.read_text().replace("live_armed = true", "live_armed = false"))
    live = subprocess.run(inside(manager, state, f"--config={config}"), capture_output=True, text=True, timeout=60)
    assert live.returncode == 12
    assert live.stderr.count("\n  - ") == 2 and "live_armed is not true" in live.stderr


def test_interrupted_it_leaves_no_unit(manager: Systemd, state: Path) -> None:
    """Ctrl-C in the middle: the engines' units are stopped and removed."""
    words = inside(manager, state, "prove", "--only=stall_detection", f"--db={state}/x.db")
    proving = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        until_s = time.monotonic() + WITHIN_S
        while not list(state.glob("tradebot-proof-*/stall_detection/*.decisions.jsonl")):
            assert proving.poll() is None and time.monotonic() < until_s, proving.communicate()
            time.sleep(0.05)
        [status] = list(state.glob("tradebot-proof-*/stall_detection/on.db.status.json"))
        assert json.loads(status.read_text())["state"] == "running"
        assert not nothing_left(manager, state)
        # nsenter forks for the namespace of processes: the prover is its only child.
        [prover] = Path(f"/proc/{proving.pid}/task/{proving.pid}/children").read_text().split()
        os.kill(int(prover), signal.SIGINT)
        out, errors = proving.communicate(timeout=WITHIN_S)
    finally:
        proving.kill()
        proving.wait()
    assert (proving.returncode, out) == (1, "") and "interrupted" in errors
    assert nothing_left(manager, state)
