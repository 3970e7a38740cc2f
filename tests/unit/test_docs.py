"""The documents tell the truth about the code: exit codes, options, files, formats."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.test_layers import ORDER
from tradebot.cli.arguments import parse
from tradebot.cli.registry import TRADEBOT
from tradebot.core.errors import ExitCode

# Files of users, which no checkout has.
ELSEWHERE = ("acme.py", "ws_sources.toml")


def _blocks(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text) + [
        line for block in re.findall(r"```\n(.*?)```", text, re.S) for line in block.splitlines()
    ]


def test_the_exit_codes_of_the_readme_are_those_of_the_code(repo: Path) -> None:
    """G5: one enumeration, read by code, tests and documentation."""
    rows = re.findall(r"^\| (\d+) \| ([A-Z]+) \| (.+) \|$", (repo / "README.md").read_text(), re.M)
    assert rows == [(str(code.value), code.name, code.meaning) for code in sorted(ExitCode)]


def test_every_command_line_in_the_readme_parses(repo: Path) -> None:
    lines = [line for line in _blocks((repo / "README.md").read_text()) if line.startswith("bin/tradebot ")]
    assert len(lines) >= 4
    for line in lines:
        parse(line.split()[1:])


def test_every_make_target_in_the_readme_exists(repo: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (repo / "Makefile").read_text(), re.M))
    named = {line.split()[1] for line in _blocks((repo / "README.md").read_text()) if re.match(r"make [a-z-]+", line)}
    assert named and named <= targets


def test_every_file_of_the_architecture_page_exists(repo: Path) -> None:
    """In the table of folders, names are relative to the folder of their row."""
    missing = []
    found = 0
    for line in (repo / "ARCHITECTURE.md").read_text().splitlines():
        row = re.match(r"\| `([a-z_/]+/)` \|", line)
        places = [repo / row[1]] if row else [repo / place for place in ("", "tradebot", "tradebot/feeds", "sim")]
        for name in re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.(?:py|md|toml)|(?:[a-z_]+/)+)`", line):
            found += 1
            if not any((place / name).exists() for place in (*places, repo)) and name not in ELSEWHERE:
                missing.append(f"{row[1] if row else ''}: {name}")
    assert found > 100
    assert missing == []


def test_the_architecture_page_has_a_row_for_every_folder_from_the_ground_up(repo: Path) -> None:
    rows = re.findall(r"^\| `([a-z_/]+?)/?(?:\.py)?` \|", (repo / "ARCHITECTURE.md").read_text(), re.M)
    folders = {
        str(path.parent.relative_to(repo))
        for root in ("tradebot", "mockws_server", "sim")
        for path in (repo / root).rglob("*.py")
    } - {"tradebot", "sim"}
    assert folders - set(rows) == set()
    tops = list(dict.fromkeys(row.removeprefix("tradebot/").split("/")[0] for row in rows))
    assert tops == [name for name in ORDER if name in tops]


@pytest.mark.slow
@pytest.mark.timeout(240)  # ruff, mypy and some tests, on a machine that may be busy
def test_the_exchange_of_the_architecture_page_passes_when_pasted(repo: Path, tmp_path: Path) -> None:
    """Style, types of the adapter, and the tests that look at every exchange, in a copy of the checkout."""
    page = (repo / "ARCHITECTURE.md").read_text()
    example, source = (re.search(rf"```{kind}\n(.*?)```", page, re.S) for kind in ("python", "toml"))
    assert example is not None and source is not None
    copy = tmp_path / "check out"
    ignore = shutil.ignore_patterns(".*", "var", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(repo, copy, ignore=ignore)
    exchanges = copy / "tradebot" / "feeds" / "exchanges"
    (exchanges / "acme.py").write_text(example[1])
    names = exchanges / "__init__.py"
    text = names.read_text()
    names.write_text(text.replace('    "binance",\n', '    "acme",\n    "binance",\n', 1))
    assert names.read_text() != text
    with (copy / "etc" / "tradebot" / "ws_sources.toml").open("a") as sources:
        sources.write(f"\n{source[1]}")
    tests = [f"tests/unit/{name}.py" for name in ("feeds/test_sources_file", "feeds/test_endpoint", "cli/test_resolve")]
    for command in (
        ("ruff", "check", "tradebot"),
        ("ruff", "format", "--check", "tradebot"),
        ("mypy", "--cache-dir=.mypy_cache", "tradebot/feeds/exchanges"),
        ("pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", "exchange or example_names", *tests),
    ):
        tool = importlib.util.find_spec(command[0])
        if tool is None:  # the extra `test` has no tools for style and types
            continue
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)},
            capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-1000:]}"


def test_every_run_option_is_in_the_help() -> None:
    options = {
        *("ingest", "mode", "config", "db", "replay-file", "replay-db", "replay-run", "exchange", "resume", "strict"),
        *("speed", "history", "ws-url", "ws-source", "symbol", "sample-every", "seconds", "strategy"),
        *("log-level", "log-format", "run-id"),
    }
    assert [name for name in options if f"--{name}" not in TRADEBOT.command("run").options] == []
