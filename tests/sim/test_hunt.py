"""`python -m sim`: its output, the order of its lines, its exit code; and the same output in any process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sim.__main__ import main
from sim.scenarios import SCENARIOS
from sim.swarm.fault_kinds import KINDS
from tests.e2e.pythons import lend_freezegun, other_python
from tradebot.core.log_events import LogEvent

REPO = Path(__file__).resolve().parents[2]
LINE = re.compile(
    r"seed=(\d+) history=[0-9a-f]{64} (ok|FAIL) steps=\d+ sim_s=\d+\.\d"
    r" faults=(none|[a-z0-9_]+(,[a-z0-9_]+)*)( \w+=\S+)*"
)
FEW = ("--seeds=8", "--first=40")


def hunt(*args: str, python: str | Path = sys.executable, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-m", "sim", *args],
        cwd=REPO,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **env},
        capture_output=True,
        text=True,
        timeout=55,
    )


def last_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if " history=" in line]


@pytest.fixture(scope="module")
def few() -> str:
    """The result of FEW in one process."""
    done = hunt(*FEW, "--jobs=1", PYTHONHASHSEED="0")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_history_ends_with_its_line(few: str) -> None:
    lines = few.splitlines()
    assert len(lines) == 16
    for seed, (first, last) in enumerate(zip(lines[::2], lines[1::2], strict=True), start=40):
        assert (found := LINE.fullmatch(last)) is not None, last
        assert found[1] == str(seed) and found[2] == "ok"
        assert first.startswith(f"seed={seed} scenario=") and f"faults={found[3]}" in first, (
            "what was drawn comes first"
        )


def test_the_same_lines_in_any_process(few: str) -> None:
    """S8: with another PYTHONHASHSEED and with several processes every byte is the same."""
    assert hunt(*FEW, "--jobs=2", PYTHONHASHSEED="4242").stdout == few


@pytest.mark.parametrize("minor", [11, 12, 13])
def test_the_same_lines_on_every_python(few: str, minor: int, tmp_path: Path) -> None:
    """S8: for every version of Python."""
    python = other_python(minor)
    assert hunt(*FEW, "--jobs=1", python=python, PYTHONPATH=lend_freezegun(tmp_path)).stdout == few


def test_the_last_line_sums_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds=3", "--scenario=swarm", "--faults=close_codes,mute", "--jobs=1"]) == 0
    [summary] = capsys.readouterr().err.splitlines()
    assert re.match(
        r"3 histories, 0 failed; [\d.]+ simulated hours in [\d.]+ min \([\d.]+ h per minute\); fault", summary
    )
    assert {kind for kind in KINDS if f" {kind} " in f"{summary} "} <= {"close_codes", "mute"}


def test_no_faults_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds=4", "--scenario=swarm", "--faults=none", "--jobs=1"]) == 0
    out, err = capsys.readouterr()
    assert all(" faults=none " in line for line in last_lines(out)) and err.endswith("faults injected: none\n")


def broken(world: object) -> None:
    """A scenario that fails."""
    raise AssertionError("on purpose")


@pytest.fixture
def one_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCENARIOS, "broken", broken)


@pytest.mark.usefixtures("one_is_broken")
def test_a_failure_says_what_is_wrong_and_how_to_see_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--scenario=broken", "--seed=3"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert " FAIL " in out[1]
    assert out[2:4] == ["wrong: on purpose", "rerun: python -m sim --scenario=broken --seed=3"]


@pytest.mark.usefixtures("one_is_broken")
def test_until_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--scenario=full_replay,broken", "--until-failure", "--jobs=1"]) == 1
    assert [line.split()[2] for line in last_lines(capsys.readouterr().out)] == ["ok", "FAIL"]


def test_a_failing_swarm_is_shrunk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from sim.scenarios import swarm

    monkeypatch.setattr(swarm, "check_final_state", _on_purpose)
    assert main(["--scenario=swarm", "--seed=2", "--jobs=1"]) == 1
    out = capsys.readouterr().out
    assert re.search(
        r"^  rerun: python -m sim --scenario=swarm --seed=2 --faults=none --sim-seconds=[\d.]+$", out, re.M
    )
    assert "what happened ([process] simulated time):\n[1]     0.0000 s  process starts\n" in out


def _on_purpose(_history: object) -> None:
    raise AssertionError("on purpose")


def test_trace_tells_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--scenario=swarm", "--seed=2", "--trace", "--jobs=1"]) == 0
    out = capsys.readouterr().out
    assert "[1]     0.0000 s  process starts" in out and LogEvent.BATCH_FLUSHED in out and LogEvent.HEARTBEAT in out


def test_minutes_bound_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--minutes=0.02", "--scenario=full_replay", "--jobs=1"]) == 0
    assert len(last_lines(capsys.readouterr().out)) >= 1


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    out = capsys.readouterr().out
    assert all(f"{name}: " in out for name in SCENARIOS) and all(kind in out for kind in KINDS)


def test_seeds_are_counted_from_the_seed(capsys: pytest.CaptureFixture[str]) -> None:
    """Regression: with --seed, --seeds was silently ignored."""
    assert main(["--seed=7", "--seeds=2", "--scenario=full_replay", "--jobs=1"]) == 0
    ended = [line.split()[0] for line in capsys.readouterr().out.splitlines() if " history=" in line]
    assert ended == ["seed=7", "seed=8"]


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("--scenario=nonsense", "unknown scenario nonsense; there are: "),
        ("--faults=mute,nonsense", "unknown kind of fault nonsense; there are: "),
        ("--seeds=many", "--seeds takes a whole number, not 'many'"),
        ("--seeds=-1", "--seeds is at least 0"),
        ("--jobs=0", "--jobs is at least 1"),
        ("--minutes=soon", "--minutes takes a number, not 'soon'"),
        ("--sim-seconds=inf", "--sim-seconds is finite"),
        ("--bogus", "unknown option"),
        ("--seed=3 --first=4", "--seed=3 and --first=4: give one of them"),
    ],
)
def test_misuse_is_one_line_and_12(argument: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argument.split()) == 12
    out, err = capsys.readouterr()
    assert out == "" and complaint in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_ends_it_in_order(jobs: str) -> None:
    command = [sys.executable, "-m", "sim", "--until-failure", "--scenario=full_replay", f"--jobs={jobs}"]
    with subprocess.Popen(
        command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        process.stdout.read()
        said = process.stderr.read()
        assert process.wait(30) == 130
    assert said.endswith("; interrupted\n") and "Traceback" not in said
