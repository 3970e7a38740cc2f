"""What a planted bug is, and how one is planted: in a copy of the program, never in the program itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final, NamedTuple

REPO: Final = Path(__file__).resolve().parents[3]
PACKAGES: Final = ("tradebot", "sim", "mockws_server")
"""All that `python -m sim` needs."""


class Stale(Exception):
    """A patch no longer fits the program: its old text is not there exactly once."""


class Bug(NamedTuple):
    """A mistake that somebody could make: in `file`, `old` (there exactly once) is replaced by `new`.

    `what` says in a sentence what the mistake is. Within `seeds` seeds from 1 on the simulator must find it. Unless
    `scenario` is given, the seed draws the scenario, as in every hunt.
    """

    name: str
    what: str
    file: str
    old: str
    new: str
    seeds: int
    scenario: str | None = None

    def planted_in(self, text: str) -> str:
        """The file's text with the bug in it. Raises Stale."""
        found = text.count(self.old)
        if found != 1:
            raise Stale(f"{self.name}: the text to replace occurs {found} times in {self.file}, not once: {self.old!r}")
        return text.replace(self.old, self.new)


def copy_program(to: Path) -> None:
    """Copy what `python -m sim` needs into the directory `to`."""
    for package in PACKAGES:
        shutil.copytree(REPO / package, to / package, ignore=shutil.ignore_patterns("__pycache__"))


def plant(bug: Bug | None, directory: Path) -> None:
    """Put `bug` (None: no bug) into the copy of the program in `directory`. Raises Stale."""
    if bug is not None:
        path = directory / bug.file
        path.write_text(bug.planted_in(path.read_text(encoding="utf-8")), encoding="utf-8")
