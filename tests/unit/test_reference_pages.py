"""The pages of docs/reference are complete and agree with the code."""

from __future__ import annotations

import ast
import io
import re
import sqlite3
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from mockws_server.cli import MOCKWS
from tradebot.cli.reference import commands_page
from tradebot.cli.registry import TRADEBOT
from tradebot.config.reference import ENTRIES, configuration_page
from tradebot.config.validation import KEYS
from tradebot.core.errors import ExitCode
from tradebot.core.events import PERIODIC_TRIGGER, SMA_CROSSOVER, BreakerNoticeKind, FeedNoticeKind, OperatorNoticeKind
from tradebot.core.log_events import LogEvent
from tradebot.ops.soak.decision_log import Action
from tradebot.store.database import connect, migrate
from tradebot.store.models import MODELS, SCHEMA_VERSION

THIS = Path(__file__).name


@pytest.fixture(scope="module")
def reference(repo: Path) -> Path:
    """The folder of the pages."""
    return repo / "docs" / "reference"


def test_every_page_is_in_the_list_and_every_listed_page_exists(reference: Path) -> None:
    listed = set(re.findall(r"\]\(([a-z-]+\.md)\)", (reference / "README.md").read_text()))
    assert listed == {path.name for path in reference.glob("*.md")} - {"README.md"}


def test_links_between_documents_lead_somewhere(repo: Path) -> None:
    """Files by path; parts of a page by their heading."""
    for page in (*repo.glob("*.md"), *(repo / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
            if "://" in target or target.startswith("mailto:"):
                continue
            path, _, part = target.partition("#")
            linked = page.parent / path if path else page
            assert linked.exists(), f"{page.name}: {target}"
            if part:
                headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.M)
                anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
                assert part in anchors, f"{page.name}: {target}"


def test_every_file_that_a_document_names_exists(repo: Path) -> None:
    """ARCHITECTURE.md has its own test, and a changelog speaks of the past."""
    of_users = {"tradebot/tradebot.toml", "tradebot/tradebot.db"}
    missing = []
    for page in (*repo.glob("*.md"), *(repo / "docs").rglob("*.md")):
        if page.name not in ("ARCHITECTURE.md", "CHANGELOG.md"):
            for name in set(re.findall(r"`((?:[a-z_.]+/)+[A-Za-z_.-]*)`", page.read_text())) - of_users:
                if not any((repo / place / name).exists() for place in ("", "tradebot", "sim")):
                    missing.append(f"{page.name}: {name}")
    assert missing == []


def test_nothing_cites_a_page_that_readers_do_not_have(repo: Path) -> None:
    """Sections of a specification or an issue by number say nothing to them: give the reason, a rule id or a page."""
    numbered = re.compile(r"\b(?:contract|issue|design)(?:'s)? (?:section )?#?\d|\b(?:contract|house)\.md\b", re.I)
    cited = []
    for root in ("tradebot", "sim", "mockws_server", "bench", "tests", "bin", "etc", "docs"):
        for path in (repo / root).rglob("*"):
            if path.suffix in (".py", ".md", ".toml", ".service", ".sh", "") and path.is_file() and path.name != THIS:
                lines = path.read_text(errors="replace").splitlines()
                cited += [f"{path.relative_to(repo)}:{no}" for no, line in enumerate(lines, 1) if numbered.search(line)]
    assert cited == []


class TestConfiguration:
    def test_every_key_is_described(self) -> None:
        assert list(ENTRIES) == list(KEYS)

    def test_the_page_is_what_the_code_says(self, reference: Path) -> None:
        page = (reference / "configuration.md").read_text()
        assert page == configuration_page(), "run bin/write-reference"

    def test_units_in_names_are_the_units_of_the_page(self) -> None:
        units = {"_ms": "ms", "_s": "s", "_secs": "s", "_seconds": "s", "_usd": "USD", "_mb": "MB", "_bytes": "bytes"}
        for name, entry in ENTRIES.items():
            for ending, unit in units.items():
                assert not name.endswith(ending) or entry.unit == unit, name

    def test_every_variable_that_the_program_reads_is_described(self, repo: Path, reference: Path) -> None:
        page = (reference / "configuration.md").read_text()
        code = "\n".join(path.read_text() for path in (repo / "tradebot").rglob("*.py") if path.name != "reference.py")
        read = re.findall(r'environ(?:\)|\b)[^\n]{0,12}(?:\.get\(|\[)"([A-Z_]+)"', code)
        read += re.findall(r'^ENV_[A-Z_]+: Final = "([A-Z_]+)"', code, re.M)
        assert len(set(read)) >= 7
        assert sorted(name for name in set(read) if f"| `{name}` |" not in page) == []


def test_commands_are_those_of_the_registry(reference: Path) -> None:
    """Every command of both programs, its usage text and its exit codes."""
    page = (reference / "commands.md").read_text()
    assert page == commands_page(TRADEBOT, MOCKWS), "run bin/write-reference"
    for program in (TRADEBOT, MOCKWS):
        for command in program.commands:
            assert f"# {program.called(command.name)}\n" in page
            assert command.usage in page
            assert all(
                f"| {int(code)} | {' '.join(what.split())} |" in page for code, what in command.exit_codes.items()
            )


def test_exit_codes_are_those_of_the_code(reference: Path) -> None:
    """G5."""
    page = (reference / "exit-codes.md").read_text()
    rows = re.findall(r"^\| (\d+) \| ([A-Z]+) \| (.+) \|$", page, re.M)
    assert rows == [(str(code.value), code.name, code.meaning) for code in sorted(ExitCode)]
    parts = re.findall(r"^## (\d+) ([A-Z]+)$", page, re.M)
    assert parts == [(str(code.value), code.name) for code in sorted(ExitCode)]


def test_the_schema_page_has_every_table_and_column_of_a_new_database(reference: Path, tmp_path: Path) -> None:
    """Names, types and nulls as SQLite has them, not as the models are written."""
    page = (reference / "schema.md").read_text()
    assert f"schema version {SCHEMA_VERSION} " in page
    told = {}
    for part in page.split("\n## ")[1:]:
        rows = re.findall(r"^\| `(\w+)` \| ([A-Z]+) \| (yes|no) \| (.+) \|$", part, re.M)
        told[part.split("`")[1]] = [row[:3] for row in rows]
        assert all(meaning for *_, meaning in rows)
    path = tmp_path / "new.db"
    made = connect(path)
    migrate(made)
    made.close()
    with sqlite3.connect(path) as db:
        found = {
            model._meta.table_name: [
                (name, "INTEGER" if kind == "SMALLINT" else kind, "no" if notnull or key else "yes")
                for _cid, name, kind, notnull, _default, key in db.execute(
                    f"PRAGMA table_info({model._meta.table_name})"
                )
            ]
            for model in MODELS
        }
    db.close()
    assert told == found


def literals(kind: object) -> Iterator[str]:
    """The values of a Literal, or of a union of them."""
    for part in get_args(kind):
        if isinstance(part, str):
            yield part
        else:
            yield from literals(part)


class TestLogEvents:
    ROW = re.compile(r"^\| `([^`]+)` \| ([A-Z, ]+) \|(?: [^|]*\|){3}$", re.M)

    @staticmethod
    def logged(repo: Path) -> dict[str, set[str]]:
        """By the name of an event, the levels at which the code logs it, as far as the call shows them."""
        found: dict[str, set[str]] = {}
        for path in (repo / "tradebot").rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call):
                    continue
                for keyword in node.keywords:
                    if keyword.arg != "event":
                        continue
                    assert not isinstance(keyword.value, ast.Constant), f"{path}:{node.lineno}: use LogEvent"
                    value, _, name = ast.unparse(keyword.value).partition(".")
                    if value == "LogEvent":
                        level = ast.unparse(node.func).rpartition(".")[2].upper()
                        found.setdefault(LogEvent[name], set()).add(level)
        return found

    def test_every_line_above_debug_has_an_event(self, repo: Path) -> None:
        """Nothing needs to recognize a line by its message."""
        without = []
        for path in (repo / "tradebot").rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call) or "event" in {keyword.arg for keyword in node.keywords}:
                    continue
                if re.search(r"log\.(info|warning|error)$", ast.unparse(node.func)):
                    without.append(f"{path.relative_to(repo)}:{node.lineno}")
        assert without == []

    def test_the_fields_that_a_call_names_are_on_the_page(self, repo: Path, reference: Path) -> None:
        """Fields that come as a mapping cannot be seen here."""
        page = (reference / "log-events.md").read_text()
        told = dict(re.findall(r"^\| `([^`]+)` \| [A-Z, ]+ \| ([^|]*)\|", page, re.M))
        words = {"event", "exc_info", "hint", "note"}
        missing = []
        for path in (repo / "tradebot").rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                fields = {word.arg: word.value for word in getattr(node, "keywords", ()) if word.arg}
                value, _, name = ast.unparse(fields["event"]).partition(".") if "event" in fields else ("", "", "")
                if value == "LogEvent":
                    unknown = set(fields) - words - set(re.findall(r"\w+", told[LogEvent[name]]))
                    missing += [f"{LogEvent[name]}: {field}" for field in sorted(unknown)]
        assert missing == []

    def test_every_event_is_described_with_its_level(self, repo: Path, reference: Path) -> None:
        rows = self.ROW.findall((reference / "log-events.md").read_text())
        told = {name: set(levels.split(", ")) for name, levels in rows}
        assert len(rows) == len(told), "an event is described twice"
        logged = self.logged(repo)
        values = (FeedNoticeKind, OperatorNoticeKind, BreakerNoticeKind, Action)  # logged as what a field holds
        drawn = {name for kind in values for name in literals(kind)} | {"RESTART"}
        assert set(LogEvent) == set(logged) | drawn, "names that nothing logs"
        assert set(told) == set(LogEvent) | {SMA_CROSSOVER, PERIODIC_TRIGGER}
        for name, levels in logged.items():
            known = levels & {"DEBUG", "INFO", "WARNING", "ERROR"}
            assert known <= told[name], name


class TestRules:
    ID = re.compile(r"\b[GIS]\d{1,2}\b")

    def test_every_rule_that_code_and_documents_cite_is_described(self, repo: Path, reference: Path) -> None:
        """In comments and docstrings only: other texts may be symbols of a test."""
        described = set(re.findall(r"^\| ([A-Z]\d+) \|", (reference / "rules.md").read_text(), re.M))
        cited: dict[str, str] = {}
        for root in ("tradebot", "sim", "mockws_server", "bench", "tests"):
            for path in (repo / root).rglob("*.py"):
                source = path.read_text()
                if self.ID.search(source):  # a quick look: parsing all files takes seconds
                    for text in comments_and_docstrings(source):
                        cited |= dict.fromkeys(self.ID.findall(text), path.name)
        for page in (*repo.glob("*.md"), *(repo / "docs").rglob("*.md")):
            cited |= dict.fromkeys(self.ID.findall(page.read_text()), page.name)
        assert len(described) > 10
        assert {rule: place for rule, place in cited.items() if rule not in described} == {}

    def test_the_tests_of_a_rule_exist_and_cite_it(self, repo: Path, reference: Path) -> None:
        rows = re.findall(r"^\| ([A-Z]\d+) \| .* \| (.+) \|$", (reference / "rules.md").read_text(), re.M)
        for rule, tests in rows:
            for name in re.findall(r"`([^`]+)`", tests):
                assert re.search(rf"\b{rule}\b", (repo / name).read_text()), f"{name} does not cite {rule}"


def comments_and_docstrings(source: str) -> Iterator[str]:
    """What a Python file says to people."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield ast.get_docstring(node) or ""
