"""The documents tell the truth about the code: exit codes, options, files, formats."""

from __future__ import annotations

import re
from pathlib import Path

from tradebot.cli.arguments import parse
from tradebot.cli.usage import USAGE
from tradebot.core.errors import ExitCode


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
    text = (repo / "ARCHITECTURE.md").read_text()
    names = {name for name in re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.(?:py|md|toml)|(?:[a-z_]+/)+)`", text)}
    assert len(names) > 30
    places = ("", "tradebot", "tradebot/feeds", "tradebot/strategy", "sim", "mockws_server")
    roots = [repo / place for place in places]
    missing = [name for name in sorted(names) if not any((root / name).exists() for root in roots)]
    assert not missing


def test_every_run_option_of_the_contract_is_in_the_help() -> None:
    options = {
        *("ingest", "mode", "config", "db", "replay-file", "replay-db", "replay-run", "exchange", "resume", "strict"),
        *("speed", "history", "ws-url", "ws-source", "symbol", "sample-every", "seconds", "strategy"),
        *("log-level", "log-format", "run-id"),
    }
    assert [name for name in options if f"--{name}" not in USAGE] == []
