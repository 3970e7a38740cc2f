"""Planted bugs: their definition, and how one is inserted into a copy of the program, never into the original."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final, NamedTuple

REPO: Final = Path(__file__).resolve().parents[3]
PACKAGES: Final = ("tradebot", "sim", "mockws_server")
"""Everything that `python -m sim` needs."""


class Stale(Exception):
    """A planted bug no longer applies: its text does not occur exactly once."""


class Bug(NamedTuple):
    """A realistic mistake: in `file`, `old` (which occurs exactly once) is replaced by `new`."""

    name: str
    what: str
    file: str
    old: str
    new: str
    seeds: int
    scenario: str | None = None

    def planted_in(self, text: str) -> str:
        """The text of the file with the bug. Raises Stale."""
        found = text.count(self.old)
        if found != 1:
            raise Stale(f"{self.name}: the text to replace occurs {found} times in {self.file}, not once: {self.old!r}")
        return text.replace(self.old, self.new)


def copy_program(to: Path) -> None:
    """Copy what `python -m sim` needs into the directory `to`."""
    for package in PACKAGES:
        shutil.copytree(REPO / package, to / package, ignore=shutil.ignore_patterns("__pycache__"))


def plant(bug: Bug | None, directory: Path) -> None:
    """Insert `bug` (None: no bug) into the copy of the program in `directory`. Raises Stale."""
    if bug is not None:
        path = directory / bug.file
        path.write_text(bug.planted_in(path.read_text(encoding="utf-8")), encoding="utf-8")
