"""The units of etc/systemd as install-unit fills them in; under a real systemd they are tried in tests/systemd."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tradebot.cli.registry import TRADEBOT
from tradebot.config.model import AppConfig, Config, EngineConfig, NotifyConfig
from tradebot.core.errors import ConfigError, UsageError
from tradebot.ops import units
from tradebot.ops.installed import engine_units, unit_of
from tradebot.ops.units import (
    ENGINE,
    EXAMPLE,
    MOCKWS,
    SOAK,
    UNITS,
    Installation,
    InstallRequest,
    check_config,
    filled,
    find_template,
    names_of,
    run_install_unit,
    this_installation,
)
from tradebot.ops.user_units import SYSTEM_ONLY

IN_USR = Installation(
    {"tradebot": Path("/usr/bin/tradebot"), "mockws": Path("/usr/bin/mockws")}, {}, (Path("/usr"), Path("/etc/x.toml"))
)


def unit_line(name: str, word: str) -> str:
    """A line of a unit file: a path with a space stands in quotes, as TMPDIR may have one."""
    return f'{name}="{word}"' if " " in word else f"{name}={word}"


def directives(unit: str) -> list[str]:
    """The lines of a unit that are settings, continued ones in one piece."""
    return [line for line in unit.replace("\\\n", "").splitlines() if re.match(r"\w+=", line)]


def install(
    root: Path,
    config: Config | None = None,
    file: Path | None = None,
    user: bool = False,
    print_only: bool = False,
    name: str | None = None,
    replace: bool = False,
    as_json: bool = False,
) -> tuple[str, str]:
    """What install-unit says: standard output and standard error."""
    out, errors = io.StringIO(), io.StringIO()
    order = InstallRequest(config or Config(), file, user, print_only, names_of(name), replace, as_json)
    assert run_install_unit(order, {"HOME": str(root / "home")}, out, errors, root) == 0
    return out.getvalue(), errors.getvalue()


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.mark.usefixtures("as_root")
def test_an_installation_for_scripts(tmp_path: Path) -> None:
    """With --json: the same files, changes and steps as in the output for people."""
    told, _ = install(tmp_path / "people")
    answer = json.loads(install(tmp_path / "scripts", as_json=True)[0])
    lines = [f"wrote {path}".replace("scripts", "people") for path in answer["written"]]
    assert lines == [line for line in told.splitlines() if line.startswith("wrote ")]
    assert [f"to do: {step}" for step in answer["to_do"]] == [
        line for line in told.splitlines() if line.startswith("to do: ")
    ]
    assert list(answer) == ["format", *TRADEBOT.command("install-unit").json_fields]
    (tmp_path / "c.toml").write_text("")
    again = json.loads(install(tmp_path / "scripts", file=tmp_path / "c.toml", replace=True, as_json=True)[0])
    assert len(again["changes"]) == 1 and "will run with" in again["changes"][0] and answer["changes"] == []
    printed = json.loads(install(tmp_path, print_only=True, as_json=True)[0])
    assert printed["name"] == "tradebot.service" and "[Service]" in printed["unit"]


class TestRequiredSettings:
    """What operations rely on: restarts, watchdog, time to stop."""

    @pytest.mark.parametrize(
        "line",
        [
            *("Restart=on-failure", "RestartSec=2", "RestartPreventExitStatus=12", "Nice=10", "Type=notify"),
            *("WatchdogSec=60", "TimeoutStopSec=45"),
        ],
    )
    @pytest.mark.parametrize("user", [False, True])
    def test_the_engines_unit_says(self, line: str, user: bool) -> None:
        """G5: what restarts and what does not."""
        assert directives(filled(ENGINE, IN_USR, user)).count(line) == 1

    def test_a_crash_loop_ends_but_a_long_outage_does_not(self) -> None:
        told = dict(line.split("=", 1) for line in directives(filled(ENGINE, IN_USR, user=False)))
        interval_s, burst = int(told["StartLimitIntervalSec"]), int(told["StartLimitBurst"])
        pause_s = int(told["RestartSec"])
        assert (pause_s + 2) * burst < interval_s  # a crash within 2 s
        assert (pause_s + Config().feed.reconnect_budget_s) * burst > interval_s  # exit 10, attempt after attempt
        # The supervisor: two rungs (up after a poll of 5 s, down after twelve) and a stall each 45 s.
        assert interval_s / 65 * 2 + interval_s / 45 < burst

    def test_the_supervisor_outlives_the_restarts_it_asks_for(self) -> None:
        unit = filled(SOAK, IN_USR, user=False)
        assert not [line for line in directives(unit) if line.startswith(("PartOf=", "Requires=", "BindsTo="))]
        assert {"Restart=on-abnormal", "Wants=tradebot.service", "After=tradebot.service"} <= set(directives(unit))

    @pytest.mark.parametrize("name", [ENGINE, SOAK])
    def test_pressure_stays_visible(self, name: str) -> None:
        assert not [line for line in directives(filled(name, IN_USR, user=False)) if line.startswith("ProcSubset=")]

    def test_engine_and_supervisor_share_user_and_state(self) -> None:
        shared = [
            {line for line in directives(filled(name, IN_USR, user=False)) if re.match(r"User=|State|Dynamic", line)}
            for name in (ENGINE, SOAK)
        ]
        assert shared[0] == shared[1]
        assert len(shared[0]) == 4

    def test_every_setting_of_the_engine_has_its_reason(self) -> None:
        lines = find_template(ENGINE).read_text().partition("[Service]\n")[2].partition("[Install]")[0].splitlines()
        for above, line in zip(["", *lines], lines, strict=False):
            assert re.match(r"\w+=|#|$", line)
            assert not (re.match(r"\w+=", line) and above == ""), f"{line}: no reason above"

    def test_the_example_changes_nothing_as_it_is(self) -> None:
        assert directives(find_template(EXAMPLE).read_text()) == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
class TestAnalyzed:
    """What systemd itself thinks of the units, as filled in for this very installation."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for name in UNITS:
            (tmp_path / name).write_text(filled(name, this_installation(None, Config()), user=False))
        return tmp_path

    @staticmethod
    def exposure(path: Path) -> float:
        command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        [score] = re.findall(r"exposure level for \S+: ([\d.]+)", answer.stdout)
        return float(score)

    def test_verify_has_nothing_to_say(self, folder: Path) -> None:
        command = ["systemd-analyze", "verify", *(str(folder / name) for name in UNITS)]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert (answer.returncode, answer.stdout + answer.stderr) == (0, "")

    def test_verify_has_nothing_to_say_for_users(self, tmp_path: Path) -> None:
        for name in UNITS:
            (tmp_path / name).write_text(filled(name, this_installation(None, Config()), user=True))
        command = ["systemd-analyze", "--user", "verify", *(str(tmp_path / name) for name in UNITS)]
        environ = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)}
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=environ)
        assert (answer.returncode, answer.stdout + answer.stderr) == (0, "")

    @pytest.mark.parametrize(("name", "at_most"), [(ENGINE, 1.1), (SOAK, 0.5), (MOCKWS, 0.9)])
    def test_exposure(self, folder: Path, name: str, at_most: float) -> None:
        assert self.exposure(folder / name) <= at_most

    def test_exposure_of_an_engine_that_only_hears_this_machine(self, folder: Path) -> None:
        example = find_template(EXAMPLE).read_text()
        bounds = re.findall(r"^#(IPAddress(?:Deny|Allow)=\S+)$", example, re.M)
        assert len(bounds) == 2
        text = (folder / ENGINE).read_text().replace("\n[Install]\n", "\n" + "\n".join(bounds) + "\n\n[Install]\n")
        (folder / ENGINE).write_text(text)
        assert self.exposure(folder / ENGINE) <= 0.9


class TestFilledIn:
    def test_of_an_installation_that_nothing_hides(self) -> None:
        unit = filled(ENGINE, IN_USR, user=False)
        assert "ExecStart=/usr/bin/tradebot run" in directives(unit)
        assert "ProtectHome=yes" in directives(unit)
        assert (
            "Bind" not in unit and "TemporaryFileSystem" not in unit and "/usr/local" not in unit and "#:" not in unit
        )

    def test_this_one_runs_this_python_and_this_configuration(self, tmp_path: Path, repo: Path) -> None:
        file = tmp_path / "t.toml"
        found = this_installation(file, Config())
        assert found.programs == {"tradebot": repo / "bin" / "tradebot", "mockws": repo / "bin" / "mockws"}
        assert found.environment["TRADEBOT_CONFIG"] == str(file)
        assert Path(found.environment["TRADEBOT_PYTHON"]).exists()
        assert {file, tmp_path / "ws_sources.toml", repo} <= set(found.needed)

    def test_a_replayed_file_is_needed(self) -> None:
        config = Config(engine=EngineConfig(ingest_mode="replay", replay_file="/data/x.jsonl"))
        assert Path("/data/x.jsonl") in this_installation(None, config).needed

    def test_files_of_secrets_are_needed_and_credentials_are_not(self) -> None:
        config = Config(engine=EngineConfig(ws_url_file="/etc/x/feed"), notify=NotifyConfig(webhook_url_file="webhook"))
        check_config(config, user=False)
        needed = this_installation(None, config).needed
        assert Path("/etc/x/feed") in needed and not any("webhook" in str(path) for path in needed)
        home = Config(notify=NotifyConfig(webhook_url_file="~/hook"))
        check_config(home, user=True)
        with pytest.raises(ConfigError, match=r"notify\.webhook_url_file = ~/hook: a service has no home"):
            check_config(home, user=False)

    def test_what_lies_in_a_home_or_in_tmp_is_shown_to_the_service(self) -> None:
        needed = ("/root/venv", "/root/venv/lib", "/tmp/checkout", "/home/me/c.toml", "/usr/lib/python3.11")
        unit = filled(ENGINE, IN_USR._replace(needed=tuple(map(Path, needed))), user=False)
        shown = [line for line in directives(unit) if line.startswith("BindReadOnly")]
        assert shown == [f"BindReadOnlyPaths=-{path}" for path in ("/home/me/c.toml", "/root/venv", "/tmp/checkout")]
        assert "ProtectHome=tmpfs" in directives(unit)

    def test_a_link_is_shown_with_what_it_leads_to(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "real")
        unit = filled(ENGINE, IN_USR._replace(needed=(tmp_path / "link",)), user=False)
        assert {unit_line("BindReadOnlyPaths", f"-{tmp_path}/{name}") for name in ("link", "real")} <= set(
            directives(unit)
        )

    def test_a_directory_that_only_its_owner_may_enter_is_covered(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(units, "_TEMPORARY", ())
        monkeypatch.setattr(units, "_may_enter", lambda place: place != tmp_path)
        needed = (tmp_path / "a" / "b", tmp_path / "c")
        unit = filled(ENGINE, IN_USR._replace(needed=needed), user=False)
        assert [line for line in directives(unit) if str(tmp_path) in line] == [
            unit_line("TemporaryFileSystem", f"{tmp_path}:ro"),
            unit_line("BindReadOnlyPaths", f"-{tmp_path}/a/b"),
            unit_line("BindReadOnlyPaths", f"-{tmp_path}/c"),
        ]

    def test_words_are_written_as_systemd_reads_them(self) -> None:
        program = {"tradebot": Path("/opt/my bots/100%/tradebot"), "mockws": Path("/usr/bin/mockws")}
        unit = filled(ENGINE, IN_USR._replace(programs=program), user=False)
        assert 'ExecStart="/opt/my bots/100%%/tradebot" run' in directives(unit)

    @pytest.mark.parametrize("name", ['a"b', "a'b", "a\\b", "a:b", "a\nb", "a$b"])
    def test_what_cannot_be_written_is_refused(self, name: str) -> None:
        with pytest.raises(ConfigError, match="cannot be used in a path of a unit file"):
            filled(ENGINE, IN_USR._replace(needed=(Path("/tmp") / name,)), user=False)

    @pytest.mark.parametrize("name", UNITS)
    def test_for_a_user_without_root(self, name: str) -> None:
        unit = filled(name, IN_USR, user=True)
        left = {line.partition("=")[0] for line in directives(unit)}
        assert not left & SYSTEM_ONLY
        assert {"NoNewPrivileges", "SystemCallFilter", "RestrictAddressFamilies", "MemoryDenyWriteExecute"} <= left
        assert "WantedBy=default.target" in directives(unit)
        assert "network-online" not in unit and "\n\n\n" not in unit
        assert not re.search(r"^#.*\n\n", unit.partition("[Unit]")[2], re.M), "a reason without its setting"

    def test_a_users_supervisor_speaks_to_the_users_manager(self) -> None:
        assert '"--systemctl=systemctl --user"' in filled(SOAK, IN_USR, user=True)
        assert "--systemctl" not in filled(SOAK, IN_USR, user=False)


class TestConfiguration:
    @pytest.mark.parametrize(
        "config",
        [
            Config(app=AppConfig(db_path="var/x.db")),
            Config(app=AppConfig(db_path="~/x.db")),
            Config(engine=EngineConfig(ingest_mode="replay", replay_file="x.jsonl")),
        ],
    )
    def test_relative_paths_are_refused(self, config: Config, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="give the absolute path"):
            install(tmp_path, config, print_only=True)

    def test_a_user_has_a_home(self, tmp_path: Path) -> None:
        install(tmp_path, Config(app=AppConfig(db_path="~/x.db")), user=True, print_only=True)

    def test_a_database_elsewhere_is_let_in_and_warned_of(self, tmp_path: Path) -> None:
        out, errors = install(tmp_path, Config(app=AppConfig(db_path="/data/bot/x.db")), print_only=True)
        assert "BindPaths=/data/bot" in directives(out)
        assert "chown tradebot /data/bot" in errors

    def test_a_database_in_the_state_directory_is_nothing_special(self, tmp_path: Path) -> None:
        out, errors = install(tmp_path, Config(app=AppConfig(db_path="/var/lib/tradebot/x.db")), print_only=True)
        assert "BindPaths" not in out
        assert "app.db_path" not in errors

    def test_a_configuration_that_the_service_may_not_read_is_warned_of(self, tmp_path: Path) -> None:
        file = tmp_path / "t.toml"
        file.touch(0o600)
        assert f"chmod o+r {file}" in install(tmp_path, file=file, print_only=True)[1]
        file.chmod(0o644)
        assert str(file) not in install(tmp_path, file=file, print_only=True)[1]

    def test_a_secret_configuration_may_belong_to_the_services_group(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "t.toml"
        file.touch(0o640)
        assert f"chgrp tradebot {file}" in install(tmp_path, file=file, print_only=True)[1]
        monkeypatch.setattr(units, "_group", lambda gid: "tradebot" if gid == file.stat().st_gid else None)
        assert str(file) not in install(tmp_path, file=file, print_only=True)[1]


class TestInstall:
    def test_print_writes_the_engines_unit_and_changes_nothing(self, tmp_path: Path) -> None:
        out, _ = install(tmp_path, print_only=True)
        assert out == filled(ENGINE, this_installation(None, Config()), user=False)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.usefixtures("as_root")
    def test_all_files_are_put_in_place(self, tmp_path: Path) -> None:
        out, _ = install(tmp_path)
        found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
        assert found == {
            *(f"etc/systemd/system/{name}" for name in (*UNITS, EXAMPLE)),
            "etc/polkit-1/rules.d/50-tradebot.rules",
            "etc/sysusers.d/tradebot.conf",
        }
        assert all(str(tmp_path / name) in out for name in found)
        assert "systemctl enable --now tradebot.service" in out
        assert "systemctl daemon-reload" in out  # not done: this is not the machine's own root

    @pytest.mark.usefixtures("as_root")
    def test_again_it_replaces_its_own_files_but_no_drop_in(self, tmp_path: Path) -> None:
        install(tmp_path)
        unit, drop_in = (tmp_path / "etc/systemd/system" / name for name in (ENGINE, EXAMPLE))
        unit.write_text(unit.read_text() + "# changed\n")
        drop_in.write_text("[Service]\nNice=5\n")
        install(tmp_path)
        assert "# changed" not in unit.read_text()
        assert drop_in.read_text() == "[Service]\nNice=5\n"

    @pytest.mark.usefixtures("as_root")
    def test_a_unit_of_somebody_else_is_left_alone(self, tmp_path: Path) -> None:
        unit = tmp_path / "etc/systemd/system" / SOAK
        unit.parent.mkdir(parents=True)
        unit.write_text("[Service]\nExecStart=/bin/mine\n")
        with pytest.raises(ConfigError, match=r"tradebot-soak.service was not written by tradebot install-unit"):
            install(tmp_path)
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == [unit]

    def test_only_root_installs_for_all(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(ConfigError, match="--user"):
            install(tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_a_user_installs_into_the_own_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        out, _ = install(tmp_path, user=True)
        found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
        assert found == {f"home/.config/systemd/user/{name}" for name in (*UNITS, EXAMPLE)}
        assert "systemctl --user enable --now tradebot.service" in out

    @pytest.mark.usefixtures("as_root")
    def test_what_cannot_be_written_is_said_in_words(self, tmp_path: Path) -> None:
        (tmp_path / "etc").write_text("")
        with pytest.raises(ConfigError, match="cannot be written: Not a directory"):
            install(tmp_path)

    def test_the_soak_command_of_the_unit_is_the_engines(self) -> None:
        assert f"--unit={ENGINE}" in filled(SOAK, IN_USR, user=False)


@pytest.mark.usefixtures("as_root")
class TestAnotherConfiguration:
    """Found by use: install-unit for a second engine had the first one's unit run with another configuration."""

    @staticmethod
    def files(root: Path) -> dict[str, str]:
        return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}

    @pytest.fixture
    def first(self, tmp_path: Path) -> Path:
        install(tmp_path, file=Path("/etc/first.toml"))
        return tmp_path

    @pytest.mark.parametrize("file", [Path("/etc/second.toml"), None])
    @pytest.mark.parametrize("user", [False, True])
    def test_it_is_refused_and_nothing_is_changed(self, tmp_path: Path, file: Path | None, user: bool) -> None:
        install(tmp_path, file=Path("/etc/first.toml"), user=user)
        before = self.files(tmp_path)
        with pytest.raises(ConfigError, match=r"runs with /etc/first.toml; .*--name=NAME .*--replace.*first.toml"):
            install(tmp_path, file=file, user=user)
        assert self.files(tmp_path) == before

    def test_so_it_is_where_the_first_had_none(self, tmp_path: Path) -> None:
        install(tmp_path)
        with pytest.raises(ConfigError, match="runs with no configuration file; this would"):
            install(tmp_path, file=Path("/etc/second.toml"))

    def test_the_same_one_by_another_path_is_no_other(self, tmp_path: Path) -> None:
        (tmp_path / "real.toml").touch()
        (tmp_path / "link.toml").symlink_to("real.toml")
        install(tmp_path, file=tmp_path / "real.toml")
        install(tmp_path, file=tmp_path / "link.toml")

    def test_replace_does_it_and_says_so(self, first: Path) -> None:
        out, _ = install(first, file=Path("/etc/second.toml"), replace=True)
        assert "tradebot.service: ran with /etc/first.toml, will run with /etc/second.toml from its next start\n" in out
        assert "TRADEBOT_CONFIG=/etc/second.toml" in (first / "etc/systemd/system" / ENGINE).read_text()

    def test_another_installation_is_said(self, first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        unit = first / "etc/systemd/system" / ENGINE
        unit.write_text(re.sub(r"ExecStart=\S+", "ExecStart=/opt/old/bin/tradebot", unit.read_text()))
        out, _ = install(first, file=Path("/etc/first.toml"))
        assert "tradebot.service: ran /opt/old/bin/tradebot, will run /" in out

    def test_a_second_engine_has_names_of_its_own(self, first: Path) -> None:
        before = self.files(first)
        out, _ = install(first, file=Path("/etc/second.toml"), name="tradebot-eth")
        after = self.files(first)
        assert {name: after[name] for name in before} == before | {
            "etc/sysusers.d/tradebot.conf": after["etc/sysusers.d/tradebot.conf"]
        }
        units_of = "etc/systemd/system"
        assert set(after) - set(before) == {
            f"{units_of}/tradebot-eth.service", f"{units_of}/tradebot-eth-soak.service",
            f"{units_of}/tradebot-eth.service.d/example.conf", "etc/polkit-1/rules.d/50-tradebot-eth.rules",
        }  # fmt: skip
        engine, soak = (after[f"{units_of}/tradebot-eth{part}.service"] for part in ("", "-soak"))
        for unit in (engine, soak):
            assert {"StateDirectory=tradebot-eth", "User=tradebot"} <= set(directives(unit))
            assert "Environment=TRADEBOT_CONFIG=/etc/second.toml" in directives(unit)
            assert "/var/lib/private/tradebot-eth" in unit and "/private/tradebot\n" not in unit
        assert "--unit=tradebot-eth.service" in soak and "Wants=tradebot-eth.service" in directives(soak)
        assert 'lookup("unit") == "tradebot-eth.service"' in after["etc/polkit-1/rules.d/50-tradebot-eth.rules"]
        assert "enable --now tradebot-eth.service tradebot-eth-soak.service" in out

    def test_a_users_second_engine_has_a_database_of_its_own(self, tmp_path: Path) -> None:
        install(tmp_path, user=True, name="eth.service")
        for unit in ("eth.service", "eth-soak.service"):
            text = (tmp_path / "home/.config/systemd/user" / unit).read_text()
            assert unit_line("Environment", f"STATE_DIRECTORY={tmp_path}/home/.local/state/eth") in directives(text)

    def test_a_unit_of_the_system_is_not_covered(self, tmp_path: Path) -> None:
        other = tmp_path / "usr/lib/systemd/system/cron.service"
        other.parent.mkdir(parents=True)
        other.write_text("[Service]\nExecStart=/usr/sbin/cron\n")
        with pytest.raises(ConfigError, match=r"cron.service was not written by tradebot install-unit"):
            install(tmp_path, name="cron")

    @pytest.mark.parametrize("name", ["", "a b", "../x", "A", "mockws", "eth-soak", "x" * 41])
    def test_what_can_be_no_name(self, name: str) -> None:
        with pytest.raises(UsageError, match=r"--name: .*such as tradebot-eth"):
            names_of(name)


def test_the_supervisor_follows_the_unit_of_its_configuration(tmp_path: Path, as_root: None) -> None:
    install(tmp_path, file=Path("/etc/first.toml"))
    install(tmp_path, file=Path("/etc/second.toml"), name="eth")
    found = engine_units(None, tmp_path)
    assert unit_of(Path("/etc/second.toml"), found) == "eth.service"
    assert unit_of(Path("/etc/first.toml"), found) == ENGINE
    assert unit_of(Path("/etc/third.toml"), found) is None and unit_of(None, found) is None
