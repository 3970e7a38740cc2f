"""What a newcomer and an installed copy rely on: bin/, the set-up, the Makefile, the wheel, the fixtures."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

import tradebot
from tradebot.ops.doctor.checks import LIBRARIES

REPO = Path(__file__).resolve().parents[2]
PYTHONS = ("python3.13", "python3.12", "python3.11", "python3")


def run(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program to its end with nothing on standard input."""
    words = [str(word) for word in command]
    variables = {name: value for name, value in os.environ.items() if name != "TRADEBOT_PYTHON"} | dict(env or {})
    return subprocess.run(
        words, cwd=cwd, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=55, check=False
    )


def script(path: Path, text: str) -> Path:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def checkout(place: Path, cli: str) -> Path:
    """A checkout with the real bin/ whose tradebot/cli/main.py is `cli`."""
    shutil.copytree(REPO / "bin", place / "bin")
    for package in ("tradebot", "mockws_server"):
        module = place / package / ("cli/main.py" if package == "tradebot" else "cli.py")
        module.parent.mkdir(parents=True)
        (place / package / "__init__.py").touch()
        module.write_text(cli)
    return place


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A working directory that has nothing to do with the checkout, but modules that must not be picked up."""
    place = tmp_path / "else where"
    place.mkdir()
    (place / "tradebot.py").write_text("raise SystemExit('the wrong tradebot')")
    (place / "queue.py").write_text("raise SystemExit('the wrong queue')")
    return place


class TestBin:
    ECHO = "import os, sys\ndef main():\n    import queue\n    print(os.getpid(), sys.argv[1:])\n    return 7\n"

    @pytest.mark.parametrize("program", ["tradebot", "mockws"])
    def test_runs_from_anywhere_through_a_symlink_with_spaces(
        self, tmp_path: Path, elsewhere: Path, program: str
    ) -> None:
        home = checkout(tmp_path / "a check out", self.ECHO)
        link = tmp_path / "my link"
        link.symlink_to(home / "bin" / program)
        other = checkout(tmp_path / "another version, installed", "raise SystemExit('the wrong one')")
        env = {"TRADEBOT_PYTHON": sys.executable, "PYTHONPATH": str(other)}
        answer = run(link, "--db=a b.db", "", "x", cwd=elsewhere, env=env)
        assert answer.stderr == ""
        assert answer.stdout.split(" ", 1)[1].strip() == "['--db=a b.db', '', 'x']"
        assert answer.returncode == 7

    def test_its_process_id_is_the_engines(self, tmp_path: Path) -> None:
        """The script ends in an exec: a signal to its process reaches the engine."""
        home = checkout(tmp_path / "checkout", self.ECHO)
        command = [str(home / "bin" / "tradebot")]
        env = os.environ | {"TRADEBOT_PYTHON": sys.executable}
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
            said = process.communicate(timeout=30)[0]
        assert int(said.split()[0]) == process.pid

    def test_prefers_the_checkouts_environment(self, tmp_path: Path) -> None:
        home = checkout(tmp_path / "checkout", self.ECHO)
        script(home / ".venv" / "bin" / "python", "echo the environment")
        assert run(home / "bin" / "tradebot", cwd=tmp_path).stdout == "the environment\n"

    def test_a_python_with_an_equals_sign_in_its_path(self, tmp_path: Path) -> None:
        """Which env, that holds a Ctrl-C back while Python starts, would take for a variable."""
        home = checkout(tmp_path / "checkout", self.ECHO)
        script(tmp_path / "a=b" / "python", "echo it runs")
        env = {"TRADEBOT_PYTHON": str(tmp_path / "a=b" / "python")}
        assert run(home / "bin" / "tradebot", cwd=tmp_path, env=env).stdout == "it runs\n"

    def test_without_environment_it_takes_python3(self, tmp_path: Path) -> None:
        home = checkout(tmp_path / "checkout", self.ECHO)
        script(tmp_path / "path" / "python3", "echo the python3")
        path = f"{tmp_path / 'path'}:{os.environ['PATH']}"
        assert run(home / "bin" / "tradebot", cwd=tmp_path, env={"PATH": path}).stdout == "the python3\n"

    @pytest.mark.parametrize("program", ["tradebot", "mockws"])
    def test_missing_dependency_is_one_line_and_12(self, tmp_path: Path, program: str) -> None:
        home = checkout(tmp_path / "checkout", "import no_such_package.part\n")
        answer = run(home / "bin" / program, cwd=tmp_path, env={"TRADEBOT_PYTHON": sys.executable})
        expected = f"{program}: the Python package 'no_such_package' is missing; run `make setup` in {home}\n"
        assert (answer.returncode, answer.stderr) == (12, expected)

    def test_a_missing_module_of_our_own_is_a_bug_and_shown_as_one(self, tmp_path: Path) -> None:
        home = checkout(tmp_path / "checkout", "import tradebot.nothing\n")
        answer = run(home / "bin" / "tradebot", cwd=tmp_path, env={"TRADEBOT_PYTHON": sys.executable})
        assert answer.returncode == 1
        assert "Traceback" in answer.stderr

    def test_missing_python_is_one_line_and_12(self, tmp_path: Path) -> None:
        home = checkout(tmp_path / "checkout", self.ECHO)
        answer = run(home / "bin" / "tradebot", cwd=tmp_path, env={"TRADEBOT_PYTHON": "no-such-python"})
        assert answer.returncode == 12
        assert "'no-such-python'" in answer.stderr
        assert "make setup" in answer.stderr
        assert answer.stderr.count("\n") == 1

    def test_an_old_python_is_turned_away(self, tmp_path: Path) -> None:
        home = checkout(tmp_path / "checkout", self.ECHO)
        launch = (home / "bin" / "launch.py").read_text()
        (home / "bin" / "launch.py").write_text(launch.replace("sys.version_info[:2]", "(3, 10)"))
        answer = run(home / "bin" / "tradebot", cwd=tmp_path, env={"TRADEBOT_PYTHON": sys.executable})
        assert answer.returncode == 12
        assert answer.stderr.startswith("tradebot: needs Python 3.11 to 3.13, found ")
        assert answer.stderr.count("\n") == 1

    def test_users_never_see_docopts_invalid_escapes(self, tmp_path: Path) -> None:
        """Python 3.12 and newer warn whenever they compile docopt 0.6.2, as they do where nothing may be cached."""
        home = checkout(tmp_path / "checkout", "import docopt\ndef main():\n    return 0\n")
        site = tmp_path / "site"
        site.mkdir()
        (site / "docopt.py").write_text("X = '\\S'\n")
        env = {"TRADEBOT_PYTHON": sys.executable, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
        answer = run(home / "bin" / "tradebot", cwd=tmp_path, env=env)
        assert (answer.returncode, answer.stderr) == (0, "")


class TestMockws:
    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The placeholder, from this checkout."""
        return run(REPO / "bin" / "mockws", *arguments, cwd=REPO, env={"TRADEBOT_PYTHON": sys.executable})

    def test_version_and_help(self) -> None:
        version = self.run("--version")
        assert (version.returncode, version.stdout.splitlines()[0]) == (0, f"mockws {tradebot.__version__}")
        usage = self.run("--help")
        assert usage.returncode == 0
        assert "Usage:" in usage.stdout


class TestMakeVenv:
    # A Python as make-venv sees one: answers everything, "makes" an environment by copying itself, notes what pip got.
    GOOD = (
        f'case "$*" in *make-venv.py*) exec {sys.executable} "$@";;'
        ' "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python";; *" pip "*) echo "$@" >>"$0.pip";; esac'
    )

    def make(
        self, tmp_path: Path, pythons: dict[str, str], *arguments: str, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run make-venv with exactly `pythons` (name: shell text) on the path."""
        path = tmp_path / "path"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        for name, text in pythons.items():
            script(path / name, text)
        for tool in ("sh", "rm", "mkdir", "cp", "dirname"):
            (path / tool).symlink_to(shutil.which(tool) or tool)
        words = arguments or ("new env", "-e", ".[dev]")
        return run(REPO / "bin" / "make-venv", *words, cwd=tmp_path, env={"PATH": str(path)} | env)

    @staticmethod
    def environments(tmp_path: Path) -> list[str]:
        """The directories of environments, without the link."""
        return sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("new env-"))

    def test_takes_the_newest_that_runs_and_passes_over_broken_shims(self, tmp_path: Path) -> None:
        pythons = {"python3.13": "exit 127", "python3.12": self.GOOD, "python3.11": self.GOOD, "python3": self.GOOD}
        answer = self.make(tmp_path, pythons)
        assert answer.returncode == 0, answer.stderr
        assert (tmp_path / "new env" / "bin" / "python").read_text() == (tmp_path / "path" / "python3.12").read_text()
        assert "install -qq -e .[dev]" in (tmp_path / "new env" / "bin" / "python.pip").read_text()

    def test_a_python_that_is_named_wins(self, tmp_path: Path) -> None:
        answer = self.make(tmp_path, {"python3.13": "exit 99", "mine": self.GOOD}, PYTHON="mine")
        assert answer.returncode == 0, answer.stderr

    @pytest.mark.parametrize("pythons", [{}, {"python3": "echo Python 3.9.2; exit 1"}])
    def test_no_suitable_python_is_said_in_words(self, tmp_path: Path, pythons: dict[str, str]) -> None:
        answer = self.make(tmp_path, pythons)
        assert answer.returncode == 1
        assert "needs Python 3.11, 3.12 or 3.13; found" in answer.stderr
        assert answer.stderr.count("\n") == 1

    def test_a_python_without_venv_is_said_in_words(self, tmp_path: Path) -> None:
        answer = self.make(tmp_path, {"python3.11": 'case "$2" in *ensurepip*) exit 1;; esac'})
        assert answer.returncode == 1
        assert "python3.11 cannot make virtual environments" in answer.stderr
        assert "apt install python3-venv" in answer.stderr

    NO_INDEX = GOOD.replace('echo "$@" >>"$0.pip"', "echo no index >&2; exit 1")
    NO_IMPORT = GOOD.replace("esac", '"-c import broken") echo "no module broken" >&2; exit 1;; esac')

    @pytest.mark.parametrize(
        ("python", "said"),
        [(NO_INDEX, "pip could not install what is needed"), (NO_IMPORT, "the new environment cannot import broken")],
    )
    @pytest.mark.parametrize("before", ["none", "a link", "a directory"])
    def test_what_fails_leaves_the_old_one_at_work_and_nothing_half_made(
        self, tmp_path: Path, python: str, said: str, before: str
    ) -> None:
        """Found by use: `make setup` deleted the environment first, and a failed download left the service none."""
        link = tmp_path / "new env"
        if before == "a link":
            assert self.make(tmp_path, {"python3.12": self.GOOD}).returncode == 0
        elif before == "a directory":
            script(link / "bin" / "python", "echo the old one")
        old = self.environments(tmp_path)
        answer = self.make(tmp_path, {"python3.12": python}, "--check=broken", "new env", "another")
        assert answer.returncode == 1 and said in answer.stderr
        assert self.environments(tmp_path) == old
        assert (link / "bin" / "python").exists() == (before != "none")
        assert link.is_symlink() == (before == "a link")
        assert ("stays in use" in answer.stderr) or before == "none"

    def test_a_directory_of_earlier_versions_becomes_a_link(self, tmp_path: Path) -> None:
        script(tmp_path / "new env" / "bin" / "python", "echo the old one")
        assert self.make(tmp_path, {"python3.12": self.GOOD}).returncode == 0
        [made] = self.environments(tmp_path)
        assert os.readlink(tmp_path / "new env") == made
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["new env", made, "path"])

    def test_the_way_back_needs_no_index(self, tmp_path: Path) -> None:
        """The environment before the present one stays; it is named by what is in it, so that it is found again."""
        for version in ("one", "two", "three"):
            assert self.make(tmp_path, {"python3.12": self.GOOD}, "new env", version).returncode == 0
        kept = self.environments(tmp_path)
        assert len(kept) == 2
        assert self.make(tmp_path, {"python3.12": self.NO_INDEX}, "new env", "two").returncode == 0
        assert "install -qq two" in (tmp_path / "new env" / "bin" / "python.pip").read_text()
        assert self.environments(tmp_path) == kept
        assert self.make(tmp_path, {"python3.12": self.NO_INDEX}, "new env", "one").returncode == 1

    def test_another_python_or_another_setup_is_another_environment(self, tmp_path: Path) -> None:
        names = set()
        for content in ("a", "b"):
            (tmp_path / "setup.py").write_text(content)
            helper = REPO / "bin" / "make-venv.py"
            asked = run(sys.executable, helper, "name", ".venv", "", "--editable", ".[dev]", cwd=tmp_path)
            names.add(asked.stdout)
        assert len(names) == 2 and all(name.startswith(f".venv-{sys.version.split()[0]}-") for name in names)

    def test_what_is_locked_is_fetched_by_its_hashes_alone(self, tmp_path: Path) -> None:
        minor = "3.12"
        python = self.GOOD.replace('case "$*" in', f'case "$*" in *platform*) echo {minor}.9;;')
        (tmp_path / "etc" / "requirements").mkdir(parents=True)
        answer = self.make(tmp_path, {"python3.12": python}, "--locked", "new env")
        assert answer.returncode == 1 and "build.txt is not there: make lock writes it" in answer.stderr
        for name in ("build.txt", f"{minor}.txt"):
            (tmp_path / "etc" / "requirements" / name).touch()
        assert self.make(tmp_path, {"python3.12": python}, "--locked", "new env").returncode == 0
        asked = (tmp_path / "new env" / "bin" / "python.pip").read_text().splitlines()
        assert [line.partition(" -qq ")[2] for line in asked] == [
            "--require-hashes --requirement etc/requirements/build.txt",
            "--require-hashes --no-build-isolation --requirement etc/requirements/3.12.txt",
            "--no-deps --no-build-isolation --editable .",
        ]


class TestLocks:
    @pytest.mark.parametrize("minor", ["3.11", "3.12", "3.13"])
    def test_every_package_of_a_run_is_pinned_with_hashes(self, minor: str) -> None:
        text = (REPO / "etc" / "requirements" / f"{minor}.txt").read_text()
        pins = dict(re.findall(r"^([a-z-]+)==(\S+) \\$", text, re.M))
        assert set(LIBRARIES) <= set(pins)
        assert all(re.search(rf"^{name}==\S+ \\\n    --hash=sha256:", text, re.M) for name in pins)

    @pytest.mark.parametrize("name", ["3.11", "3.12", "3.13", "build"])
    def test_nothing_else_is_in_them(self, name: str) -> None:
        """No index and no path of the machine that wrote them; nothing without a hash."""
        lines = (REPO / "etc" / "requirements" / f"{name}.txt").read_text().splitlines()
        allowed = r"[a-z-]+==\S+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?|#.*|"
        assert [line for line in lines if not re.fullmatch(allowed, line)] == []
        assert name != "build" or "setuptools==" in "\n".join(lines)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
class TestMakefile:
    TARGETS = (
        *("setup", "install", "lock", "run", "test", "lint", "types", "bench", "bench-memory", "bench-peers", "sim"),
        *("clean", "help"),
    )

    def test_without_a_target_it_lists_them_all(self) -> None:
        answer = run("make", "--no-print-directory", cwd=REPO)
        assert answer.returncode == 0
        assert set(self.TARGETS) <= set(re.findall(r"^  make (\S+)", answer.stdout, re.MULTILINE))

    @pytest.mark.parametrize("target", TARGETS)
    def test_every_target_is_understood(self, target: str) -> None:
        answer = run("make", "--dry-run", target, cwd=REPO)
        assert answer.returncode == 0, answer.stderr


TAKERS = "fixtures/btcusdt_binance_spot_takers_20240808.jsonl"


class TestFixtures:
    FILES = sorted(path.name for path in (REPO / "fixtures").glob("*.jsonl"))

    def test_each_is_described(self) -> None:
        described = (REPO / "fixtures" / "README.md").read_text()
        assert self.FILES
        assert [name for name in self.FILES if f"`{name}`" not in described] == []

    def test_the_recorded_session_is_whole_and_bears_its_licence(self) -> None:
        lines = (REPO / "fixtures" / "btcusdt_binance_spot_20240808.jsonl").read_text().splitlines()
        assert len(lines) == 13_932
        assert {tuple(json.loads(line)) for line in lines} == {("symbol", "price", "volume", "ts")}
        text = (REPO / "fixtures" / "README.md").read_text()
        assert "nkaz001/hftbacktest" in text
        assert "Copyright (c) 2022 nkaz001@protonmail.com" in text

    def test_the_session_with_takers_is_a_part_of_it(self) -> None:
        fields = ("symbol", "price", "volume", "ts")
        whole = (REPO / "fixtures" / "btcusdt_binance_spot_20240808.jsonl").read_text().splitlines()
        part = [json.loads(line) for line in (REPO / TAKERS).read_text().splitlines()]
        assert [{name: tick[name] for name in fields} for tick in part] == [
            json.loads(line) for line in whole[2000:4000]
        ]
        assert {tuple(tick) for tick in part} == {(*fields, "event_id", "taker")}
        ids = [int(tick["event_id"]) for tick in part]
        assert ids == list(range(ids[0], ids[0] + 2000))
        assert Counter(tick["taker"] for tick in part) == {"BUY": 771, "SELL": 1229}

    def test_its_takers_are_those_of_the_shared_frames(self, shared_data: Path) -> None:
        stated = (shared_data / "data" / "frames" / "expected" / "binance.jsonl").read_text().splitlines()
        takers = {trade["id"]: trade["side"].upper() for line in stated for trade in json.loads(line)["trades"]}
        part = [json.loads(line) for line in (REPO / TAKERS).read_text().splitlines()]
        assert [takers[tick["event_id"]] for tick in part] == [tick["taker"] for tick in part]

    def test_the_session_is_the_shared_one(self, shared_data: Path) -> None:
        name = "btcusdt_binance_spot_20240808.jsonl"
        assert (REPO / "fixtures" / name).read_bytes() == (shared_data / "data" / "trades" / name).read_bytes()


def test_the_changelog_begins_with_this_version() -> None:
    changelog = (REPO / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[([^\]]+)\]", changelog, re.MULTILINE)
    assert versions[0] == tradebot.__version__


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the checkout, without network."""
    pytest.importorskip("setuptools", minversion="70.1", reason="setuptools 70.1 or newer builds the wheel")
    place = tmp_path_factory.mktemp("wheel")
    ignore = shutil.ignore_patterns(".*", "var", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(REPO, place / "source", ignore=ignore)
    answer = run(
        sys.executable, "setup.py", "--quiet", "bdist_wheel", "--dist-dir", place / "dist", cwd=place / "source"
    )
    assert answer.returncode == 0, answer.stderr
    [built] = (place / "dist").glob("*.whl")
    return built


@pytest.mark.slow
class TestWheel:
    def test_holds_every_module_and_what_people_copy(self, wheel: Path) -> None:
        names = zipfile.ZipFile(wheel).namelist()
        packages = ("tradebot", "mockws_server")
        modules = {path.relative_to(REPO).as_posix() for name in packages for path in (REPO / name).rglob("*.py")}
        assert modules <= set(names)
        assert {f"{name}/py.typed" for name in packages} <= set(names), "type checkers ignore the annotations"
        assert {name.split("/")[0] for name in names if not name.startswith("tradebot-")} == set(packages)
        # What lies deeper in fixtures is for tests only.
        copied = [path for path in (*(REPO / "etc").rglob("*.*"), *(REPO / "fixtures").glob("*.*")) if path.is_file()]
        assert len(copied) > 10
        for path in copied:
            inside = f"data/share/tradebot/{path.relative_to(REPO).as_posix()}"
            assert any(name.endswith(inside) for name in names), path
        assert not [name for name in names if name.startswith(("tests", "bench"))]
        assert [name for name in names if name.endswith("licenses/LICENSE") or name.endswith("info/LICENSE")]

    def test_says_what_it_needs(self, wheel: Path) -> None:
        archive = zipfile.ZipFile(wheel)
        [metadata] = [archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA")]
        [entries] = [archive.read(name).decode() for name in archive.namelist() if name.endswith("/entry_points.txt")]
        assert f"Version: {tradebot.__version__}\n" in metadata
        [pythons] = re.findall(r"^Requires-Python: (.*)$", metadata, re.MULTILINE)
        assert sorted(pythons.replace(" ", "").split(",")) == ["<3.14", ">=3.11"]
        assert re.search(r"^Requires-Dist: websocket-client.*!=1\.9\.1", metadata, re.MULTILINE)
        assert "tradebot = tradebot.cli.startup:tradebot" in entries
        assert "mockws = mockws_server.startup:mockws" in entries

    def test_runs_without_the_checkout(self, wheel: Path, tmp_path: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tmp_path / "site")
        for module, name in (("tradebot.cli.main", "tradebot"), ("mockws_server.cli", "mockws")):
            # -S would hide the dependencies; the path goes first, so the extracted modules win over the checkout's.
            code = f"import sys; sys.path.insert(0, 'site'); from {module} import main; sys.exit(main())"
            where = f"import sys; sys.path.insert(0, 'site'); import {module} as it; print(it.__file__)"
            assert str(tmp_path) in run(sys.executable, "-c", where, cwd=tmp_path).stdout.replace("site", str(tmp_path))
            answer = run(sys.executable, "-c", code, "--version", cwd=tmp_path)
            assert answer.returncode == 0, answer.stderr
            assert answer.stdout.splitlines()[0] == f"{name} {tradebot.__version__}"
