"""The figures that docs/paper.md shows are those of this version, with the same order of assumptions and costs."""

from __future__ import annotations

from tests.e2e.paper_table import PAGE, table, table_of


def test_the_page_shows_what_the_engine_computes() -> None:
    """Known answers: SHADOW and PAPER on the session that comes with the project.

    After an intended change, `python -m tests.e2e.paper_table` writes the page.
    """
    assert table_of(PAGE.read_text(encoding="utf-8")) == table()
