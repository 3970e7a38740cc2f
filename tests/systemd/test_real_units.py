"""The units under a real systemd: which exits restart, how fast, what the watchdog finds, and that all is possible that
must be under the hardening. Slow, as most of it is waiting: so everything is started at once.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.systemd.namespace import Systemd
from tradebot.core.errors import ExitCode
from tradebot.ops.units import ENGINE, MOCKWS, SOAK

pytestmark = pytest.mark.slow

REPO = Path(__file__).resolve().parents[2]
RESTART_S = 2.0
STATE = "/var/lib/tradebot"
RESTARTED = {ExitCode.CRASH, ExitCode.NETWORK, ExitCode.PARSE, ExitCode.OVERLOAD}
BUS = ("dbus.socket", "dbus.service", "polkit.service")
DEBIAN_UNITS = Path("/lib/systemd/system")


def dropped_in(unit: str, command: str, more: str = "") -> str:
    """`unit` with another command and more lines of [Service], as a drop-in would have it."""
    return unit.replace("\n[Install]\n", f"\nExecStart=\nExecStart={command}\n{more}\n[Install]\n")


def engine(options: str) -> str:
    return f"{REPO}/bin/tradebot run {options}"


def held_back(faults: Mapping[str, object], options: str) -> str:
    return f"{sys.executable} {REPO}/tests/e2e/slow_engine.py '{json.dumps(faults)}' {options}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def exits(manager: Systemd, printed: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """By exit code, a unit whose engine, a real one each, ends with it; all of them started."""
    folder = tmp_path_factory.mktemp("exits")
    folder.chmod(0o755)
    (folder / "hasty.toml").write_text("[feed]\nreconnect_budget_s = 0\n")
    (folder / "small.toml").write_text("[engine]\ntick_interval_ms = 1\n[channels]\ntick_channel_size = 1\n")
    (folder / "bad.jsonl").write_text("no tick\n")
    crash: dict[str, object] = {"delays_s": {}, "crashes": {"tradebot-strategy": 4}}
    slow: dict[str, object] = {"delays_s": {"tradebot-strategy": 0.5}, "crashes": {}}
    commands = {
        ExitCode.COMPLETE: engine("--seconds=0.5"),
        ExitCode.CRASH: held_back(crash, ""),
        ExitCode.NETWORK: engine(f"--ingest=mockws --ws-url=ws://127.0.0.1:1 --config={folder}/hasty.toml"),
        ExitCode.PARSE: engine(f"--ingest=replay --replay-file={folder}/bad.jsonl --strict --resume"),
        ExitCode.CONFIG: engine(f"--config={folder}/missing.toml"),
        ExitCode.OVERLOAD: held_back(slow, f"--config={folder}/small.toml"),
    }
    more = f"Environment=PYTHONPATH={REPO}\nBindReadOnlyPaths={folder}"
    units = {
        f"exit-{code:d}.service": dropped_in(printed[ENGINE], f"{command} --db={STATE}/exit-{code:d}.db", more)
        for code, command in commands.items()
    }
    manager.write_all(units)
    manager.ctl("start", "--no-block", *units)
    return {int(code): name for code, name in zip(commands, units, strict=True)}


@pytest.fixture(scope="module")
def feed_port(
    manager: Systemd, printed: Mapping[str, str], exits: dict[int, str], tmp_path_factory: pytest.TempPathFactory
) -> int:
    """mockws.service and two engines that listen to it, started: tradebot.service, and one with a short watchdog."""
    port = free_port()
    steady = tmp_path_factory.mktemp("feed") / "steady.toml"
    steady.parent.chmod(0o755)
    steady.write_text(
        'description = "steady"\nsymbols = ["A/B"]\nrepeat = true\n[[step]]\ndo = "ticks"\ncount = 100\nper_s = 20\n'
    )
    listening = f"--ingest=mockws --ws-url=ws://127.0.0.1:{port}"
    example = (REPO / "etc/systemd/tradebot.service.d/example.conf").read_text()
    loopback = "\n".join(re.findall(r"^#(IPAddress\w+=.*)$", example, re.M))
    assert loopback.count("\n") == 1
    watched = engine(f"{listening} --db={STATE}/watched.db")
    manager.write_all(
        {
            MOCKWS: printed[MOCKWS]
            .replace("--port=9001 --scenario=storm", f"--port={port} --scenario={steady}")
            .replace("[Install]", f"BindReadOnlyPaths={steady}\n[Install]"),
            ENGINE: dropped_in(printed[ENGINE], engine(listening), loopback),
            "watched.service": dropped_in(printed[ENGINE], watched, "WatchdogSec=4"),
        }
    )
    manager.ctl("start", MOCKWS)
    manager.ctl("start", "--no-block", ENGINE, "watched.service")
    return port


def engine_status(manager: Systemd) -> dict[str, Any]:
    return dict(json.loads(manager.run("cat", f"{STATE}/tradebot.db.status.json")))


class TestExitCodes:
    """Which exit codes systemd restarts, each code from a real engine."""

    @pytest.mark.parametrize("code", sorted(RESTARTED))
    def test_restarted(self, manager: Systemd, exits: dict[int, str], code: int) -> None:
        """G5: 1, 10, 11 and 13 restart."""
        manager.wait(exits[code], lambda it: it["ExecMainStatus"] == str(code), "ExecMainStatus", within_s=20)
        manager.wait(exits[code], lambda it: int(it["NRestarts"]) >= 1, "NRestarts", within_s=20)

    @pytest.mark.parametrize(("code", "state"), [(ExitCode.COMPLETE, "inactive"), (ExitCode.CONFIG, "failed")])
    def test_not_restarted(self, manager: Systemd, exits: dict[int, str], code: int, state: str) -> None:
        """G5: 0 is done, and 12 is seen as ExecMainStatus and never restarted."""
        manager.wait(exits[code], lambda it: it["ActiveState"] == state, "ActiveState", within_s=20)
        ended_s = (
            int(manager.show(exits[code], "ExecMainExitTimestampMonotonic")["ExecMainExitTimestampMonotonic"]) / 1e6
        )
        time.sleep(max(0.0, ended_s + RESTART_S + 1 - time.clock_gettime(time.CLOCK_MONOTONIC)))
        seen = manager.show(exits[code], "ActiveState", "SubState", "ExecMainStatus", "NRestarts")
        assert seen == {
            "ActiveState": state,
            "SubState": seen["SubState"],
            "ExecMainStatus": f"{code:d}",
            "NRestarts": "0",
        }

    def test_a_crash_loop_ends(self, manager: Systemd, printed: Mapping[str, str]) -> None:
        """Not for ever: after StartLimitBurst starts the unit is failed."""
        name = "loop.service"
        manager.write(name, dropped_in(printed[ENGINE], "/bin/sh -c 'exit 1'", "RestartSec=1ms"))
        manager.ctl("start", name, check=False)
        manager.wait(name, lambda it: it["ActiveState"] == "failed", "ActiveState", within_s=20)
        assert manager.show(name, "NRestarts") == {"NRestarts": "20"}


class TestEngineWithFeed:
    """Both as hardened units, as install-unit writes them; the engine with the example's bounds to loopback."""

    @pytest.mark.usefixtures("feed_port")
    def test_ticks_reach_the_database(self, manager: Systemd) -> None:
        manager.wait(ENGINE, lambda it: it["ActiveState"] == "active", "ActiveState", within_s=20)
        manager.wait(
            ENGINE, lambda it: bool(re.search(r" [1-9]\d* stored", it["StatusText"])), "StatusText", within_s=20
        )
        query = (
            "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM ticks').fetchone())"
        )
        assert int(manager.run(sys.executable, "-c", query, f"{STATE}/tradebot.db")) > 0
        assert re.match(r"SHADOW mockws, \S+ [\d.]+, last tick ", manager.show(ENGINE, "StatusText")["StatusText"])
        files = manager.run("stat", "--format=%u %a", f"{STATE}/", f"{STATE}/tradebot.db").splitlines()
        user = Path(f"/proc/{manager.main_pid(ENGINE)}").stat().st_uid
        assert files == [f"{user} 700", f"{user} 600"]
        assert user > 0

    @pytest.mark.usefixtures("feed_port")
    def test_it_runs_as_niced_as_told_and_without_rights(self, manager: Systemd) -> None:
        manager.wait(ENGINE, lambda it: it["ActiveState"] == "active", "ActiveState", within_s=20)
        status = Path(f"/proc/{manager.main_pid(ENGINE)}/status").read_text()
        told = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert {told[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0000000000000000"}
        assert (told["NoNewPrivs"], told["Seccomp"]) == ("1", "2")
        assert os.getpriority(os.PRIO_PROCESS, manager.main_pid(ENGINE)) == 10

    @pytest.mark.usefixtures("feed_port")
    def test_killed_and_running_again(self, manager: Systemd) -> None:
        """SIGKILL to a new process within RestartSec + 1.5 s."""
        manager.wait(ENGINE, lambda it: it["ActiveState"] == "active", "ActiveState", within_s=20)
        before = manager.show(ENGINE, "MainPID", "NRestarts")
        os.kill(manager.main_pid(ENGINE), signal.SIGKILL)
        took_s = manager.wait(
            ENGINE, lambda it: it["MainPID"] not in ("0", before["MainPID"]), "MainPID", within_s=RESTART_S + 1.5
        )
        manager.wait(ENGINE, lambda it: it["ActiveState"] == "active", "ActiveState", within_s=20)
        assert int(manager.show(ENGINE, "NRestarts")["NRestarts"]) == int(before["NRestarts"]) + 1
        print(f"killed to running again: {took_s:.2f} s")

    @pytest.mark.usefixtures("feed_port")
    def test_the_watchdog_finds_a_stopped_engine(self, manager: Systemd) -> None:
        """SIGSTOP is found within WatchdogSec + 3 s, and all threads' stacks are in the log."""
        name, watchdog_s = "watched.service", 4.0
        manager.wait(name, lambda it: it["ActiveState"] == "active", "ActiveState", within_s=20)
        os.kill(manager.main_pid(name), signal.SIGSTOP)
        took_s = manager.wait(name, lambda it: it["Result"] == "watchdog", "Result", within_s=watchdog_s + 3)
        print(f"stopped to found: {took_s:.2f} s with WatchdogSec={watchdog_s:g}")
        assert took_s > watchdog_s - 2  # it had been fed until then
        manager.wait(name, lambda it: int(it["NRestarts"]) == 1, "NRestarts", within_s=20)
        stacks = re.findall(r"^(?:Current t|T)hread 0x\w+.*\(most recent call first\):$", manager.log(name), re.M)
        assert len(stacks) >= 5, manager.log(name)[-3000:]


class TestUnderTheHardening:
    @pytest.mark.parametrize("unit", [ENGINE, SOAK])
    def test_pressure_is_readable(self, manager: Systemd, printed: Mapping[str, str], unit: str) -> None:
        if not Path("/proc/pressure/cpu").exists():
            pytest.skip("this kernel has no /proc/pressure")
        name = f"psi-{unit}"
        manager.write(name, dropped_in(printed[unit], "/bin/cat /proc/pressure/cpu", "Type=oneshot\nRestart=no"))
        manager.ctl("start", name)
        assert manager.log(name).startswith("some avg10=")

    def test_nothing_else_can_be_written_or_run(self, manager: Systemd, printed: Mapping[str, str]) -> None:
        commands = (
            f"touch {STATE}/mine /tmp/mine && echo mine; touch /var/lib/other; touch {REPO}/other; touch /etc/other;"
            f" cp /bin/true {STATE}/run && chmod 700 {STATE}/run && {STATE}/run && echo ran; ls /root /home; ls /proc/1"
        )
        name = "tries.service"
        manager.write(name, dropped_in(printed[ENGINE], f"/bin/sh -c '{commands}'", "Type=oneshot\nRestart=no"))
        manager.ctl("start", name, check=False)
        log = manager.log(name)
        assert log.splitlines()[0] == "mine"
        assert log.count("Read-only file system") == 3, log
        assert "ran" not in log.splitlines() and "Permission denied" in log
        assert "/proc/1" in log and not (REPO / "other").exists()


@pytest.fixture(scope="module")
def said(manager: Systemd, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What install-unit said. Skips where the host's /etc would be written."""
    if not manager.has_own_etc:
        pytest.skip("this kernel has no overlayfs, so /etc would be the host's")
    manager.ctl("stop", "*.service")  # the passing user of earlier tests goes with its last service
    for name in (ENGINE, MOCKWS, SOAK):
        (manager.units / name).unlink(missing_ok=True)  # by earlier tests
    config = tmp_path_factory.mktemp("installed") / "tradebot.toml"
    config.parent.chmod(0o755)
    config.write_text("[engine]\ntick_interval_ms = 100\n")
    return manager.run(f"{REPO}/bin/tradebot", "install-unit", f"--config={config}")


class TestInstalled:
    """`tradebot install-unit` itself, run inside: its units, its user, its rule for the message bus."""

    def test_the_engine_runs(self, manager: Systemd, said: str) -> None:
        """Nothing is left to do but to enable it, and it runs with the configuration given."""
        to_do = [line for line in said.splitlines() if not line.startswith("wrote ")]
        assert to_do == [f"to do: systemctl enable --now {ENGINE} {SOAK}    (restart, if they are running)"]
        manager.ctl("start", ENGINE)
        manager.wait(ENGINE, lambda it: it["StatusText"].startswith("SHADOW synthetic"), "StatusText", within_s=20)
        assert engine_status(manager)["source"] == "synthetic:SOL/USDC"

    @pytest.mark.usefixtures("said")
    def test_the_supervisor_may_restart_the_engine_and_nothing_else(
        self, manager: Systemd, printed: Mapping[str, str]
    ) -> None:
        """Over the message bus, as its own user, by the polkit rule that install-unit puts in place."""
        if not all((DEBIAN_UNITS / unit).exists() for unit in BUS):
            pytest.skip("not installed: dbus, polkitd")
        manager.write_all({unit: (DEBIAN_UNITS / unit).read_text() for unit in BUS})
        manager.ctl("start", ENGINE, *BUS)
        commands = (
            f"systemctl restart {ENGINE} && echo restarted; systemctl stop {ENGINE} && echo stopped;"
            f" systemctl restart {MOCKWS} && echo other; systemctl show --property=MainPID {ENGINE}"
        )
        name = "bus.service"
        manager.write(name, dropped_in(printed[SOAK], f"/bin/sh -c '{commands}'", "Type=oneshot\nRestart=no"))
        manager.ctl("start", name)
        log = manager.log(name).splitlines()
        assert [line for line in log if not line.startswith(("Failed", "See", "MainPID"))] == ["restarted"], log
        assert sum("authentication required" in line for line in log) == 2
        assert re.fullmatch(r"MainPID=[1-9]\d*", log[-1])

    @pytest.mark.usefixtures("said")
    def test_a_second_engine_runs_beside_the_first(
        self, manager: Systemd, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """With a name, a database and a right to be restarted of its own; the first one's unit stays as it is."""
        if not all((DEBIAN_UNITS / unit).exists() for unit in BUS):
            pytest.skip("not installed: dbus, polkitd")
        config = tmp_path_factory.mktemp("second") / "second.toml"
        config.parent.chmod(0o755)
        config.write_text("[app]\nsymbol = 'ETH/USD'\n[engine]\ntick_interval_ms = 100\n")
        before = manager.run("cat", f"/etc/systemd/system/{ENGINE}")
        tradebot = f"{REPO}/bin/tradebot"
        refused = manager.run("sh", "-c", f"{tradebot} install-unit --config={config} 2>&1; echo $?")
        assert "--name=NAME" in refused and refused.endswith("\n12\n")
        manager.run(tradebot, "install-unit", f"--config={config}", "--name=eth")
        assert manager.run("cat", f"/etc/systemd/system/{ENGINE}") == before
        manager.write_all({unit: (DEBIAN_UNITS / unit).read_text() for unit in BUS})
        manager.ctl("start", ENGINE, "eth.service", *BUS)
        text = manager.run("cat", "/etc/systemd/system/eth-soak.service")
        manager.write(
            "bus-eth.service",
            dropped_in(
                text, "/bin/sh -c 'systemctl restart eth.service && echo restarted'", "Type=oneshot\nRestart=no"
            ),
        )
        manager.ctl("start", "bus-eth.service", check=False)
        assert manager.log("bus-eth.service") == "restarted\n"
        for unit, state, symbol in ((ENGINE, "tradebot", "SOL/USDC"), ("eth.service", "eth", "ETH/USD")):
            manager.wait(unit, lambda it: it["StatusText"].startswith("SHADOW synthetic"), "StatusText", within_s=20)
            status = json.loads(manager.run("cat", f"/var/lib/{state}/tradebot.db.status.json"))
            assert status["source"] == f"synthetic:{symbol}"
        doctor = manager.run(
            tradebot, "doctor", "--db=/var/lib/eth/tradebot.db", f"--config={config}", check=False, timeout_s=60
        )
        assert "/etc/systemd/system/eth.service" in doctor and "one engine is running" in doctor
