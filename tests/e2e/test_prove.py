"""`tradebot prove` and the LIVE gate with real processes, without a service manager."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tests.e2e.process import Engine, Finished, wait_until
from tests.unit.ops.test_bundle import bundle_of
from tradebot.config import toml_file as configfile
from tradebot.config.model import config_hash
from tradebot.core.runtime import RealRuntime
from tradebot.ops.proofs.bundle import FILE_NAME, NAMES, code_version, render
from tradebot.strategy.registry import CHECKS

KERNEL = "some avg10=1.25 avg60=0.50 avg300=0.10 total=12345\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=6\n"
PRESSURE = Path("/proc/pressure")
NO_MANAGER = "--systemctl=/nonexistent/systemctl"
# The same experiments, with shorter measurements.
SHORTENED = """
import sys
from tradebot.cli.main import main
from tradebot.ops.proofs import reading_while_writing, throttling
reading_while_writing.ALONE_S = reading_while_writing.TOGETHER_S = throttling.MEASURE_S = 1.0
sys.exit(main())
"""


def verdicts(done: Finished) -> dict[str, str]:
    words = [line.split() for line in done.stdout.splitlines()]
    return {line[1]: line[0] for line in words if len(line) > 1 and line[1] in NAMES}


def test_some_proofs_pass_and_leave_nothing_behind(engine: Engine) -> None:
    """S8 and others; neither the operator's database nor a bundle is changed."""
    only = "psi_integrity,deterministic_replay" if PRESSURE.is_dir() else "deterministic_replay"
    done = engine.run("prove", f"--only={only}", "--db=x.db", NO_MANAGER).expect(0)
    assert verdicts(done) == dict.fromkeys(only.split(","), "PASSED")
    assert done.stderr == "" and "No bundle was written" in done.stdout
    assert list(engine.home.iterdir()) == []


def test_made_up_pressure_files_prove_nothing(engine: Engine) -> None:
    """G1: only the kernel's own files count for the LIVE gate."""
    pressure = engine.path("pressure")
    pressure.mkdir()
    for name in ("cpu", "memory", "io"):
        (pressure / name).write_text(KERNEL)
    done = engine.run("prove", "--only=psi_integrity", "--db=x.db", "--psi-root=pressure", NO_MANAGER).expect(1)
    assert verdicts(done) == {"psi_integrity": "INCONCLUSIVE"}
    assert "pressure is not the kernel's /proc/pressure: run without --psi-root" in done.stdout


def test_the_list_and_a_wrong_name(engine: Engine) -> None:
    listed = engine.run("prove", "--list").expect(0)
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(NAMES)
    assert "there are psi_integrity, " in engine.run("prove", "--only=psi").expect(12).stderr


def test_interrupted_it_ends_its_engines_and_clears_away(engine: Engine) -> None:
    proving = engine.start("prove", "--only=throttling", "--db=x.db", NO_MANAGER)
    [status] = wait_until(lambda: list(engine.home.glob("tradebot-proof-*/throttling/*.status.json")), "an engine")
    pid = int(status.read_text().partition('"pid":')[2].partition(",")[0])
    proving.send(signal.SIGINT)
    done = proving.finish().expect(1)
    assert "interrupted" in done.stderr and done.stdout == ""
    assert not Path(f"/proc/{pid}").exists()
    assert list(engine.home.iterdir()) == []


def test_the_gate_by_the_bundle_beside_the_database(engine: Engine) -> None:
    """G0, G1: LIVE with a valid bundle still exits with 12 and the reason; each fault of the bundle is reported."""
    option = engine.config("live.toml", "mode = 'LIVE'\nlive_armed = true\n[app]\ndb_path = 'x.db'\n")
    live = configfile.load(engine.path("live.toml"), CHECKS)
    now_ms = RealRuntime().now_ms()
    good = {"config_hash": config_hash(live), "version": code_version(), "made_ms": now_ms}
    text = render(bundle_of(**good))
    cases = {
        "": text,
        "there is no proof bundle": None,
        "was altered or damaged": text.replace(b"1.5", b"1.4", 1),
        "more than 7 days": render(bundle_of(**good | {"made_ms": now_ms - 7 * 86_400_000 - 1})),
        "was made with another configuration": render(bundle_of(**good | {"config_hash": "0" * 12})),
    }
    for what, data in cases.items():
        engine.path(FILE_NAME).unlink(missing_ok=True)
        if data is not None:
            engine.path(FILE_NAME).write_bytes(data)
        done = engine.run(option).expect(12)
        lines = done.complaint.splitlines()
        assert lines[0] == "tradebot: mode LIVE is refused:" and "no live gateway is available" in lines[-1]
        assert len(lines) == (3 if what else 2), done.complaint
        assert what in lines[1]
    noted = engine.run("check-config", option).expect(0).stdout
    assert "was made with another configuration" in noted and "no live gateway" in noted


def test_all_of_them_without_a_service_manager_fail_at_once(engine: Engine) -> None:
    done = engine.run("prove", "--db=x.db", NO_MANAGER, timeout_s=20).expect(1)
    assert "no service manager answers: /nonexistent/systemctl" in done.stderr and done.stdout == ""
    assert "--only=psi_integrity,exit_codes," in done.stderr
    assert list(engine.home.iterdir()) == []


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.timeout(150)
def test_those_that_can_be_had_without_a_service_manager(engine: Engine) -> None:
    """Proofs that need systemd are INCONCLUSIVE, which does not count as passed: exit 1."""
    command = ("prove", "--only=stall_detection,exit_codes,deterministic_replay", "--db=x.db", NO_MANAGER)
    done = engine.run("-c", SHORTENED, *command, command=(sys.executable,), timeout_s=140).expect(1)
    found = verdicts(done)
    assert found["stall_detection"] == found["exit_codes"] == "INCONCLUSIVE"
    assert found["deterministic_replay"] == "PASSED"
    assert list(engine.home.iterdir()) == []
