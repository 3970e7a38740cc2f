"""The pages of docs/reference are complete and agree with the code."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from tradebot.config.reference import ENTRIES, configuration_page
from tradebot.config.validation import KEYS
from tradebot.core.errors import ExitCode
from tradebot.store.database import connect, migrate
from tradebot.store.models import MODELS, SCHEMA_VERSION


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
