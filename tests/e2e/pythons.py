"""Interpreters of the other supported versions of Python, for tests that compare them with this one."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import freezegun
import pytest

from tests.e2e.process import REPO, environment


def _candidates() -> Iterator[Path]:
    """Interpreters that may have the required packages: environments created here, those in the path, pyenv's."""
    yield from sorted(REPO.glob(".venv*/bin/python"))
    yield from (Path(word) for word in os.environ.get("TRADEBOT_OTHER_PYTHONS", "").split(os.pathsep) if word)
    names = ("python3.11", "python3.12", "python3.13")
    yield from (Path(found) for name in names if (found := shutil.which(name)))
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from itertools.chain.from_iterable(sorted(pyenv.glob(f"versions/*/bin/{name}")) for name in names)


@functools.cache
def _other_pythons() -> dict[tuple[int, int], Path]:
    """One usable interpreter for each other version of Python."""
    probe = "import sys, msgspec, peewee, loguru, docopt, tqdm, zstandard; print(*sys.version_info[:2])"
    found: dict[tuple[int, int], Path] = {}
    for candidate in _candidates():
        answer = subprocess.run([candidate, "-c", probe], capture_output=True, text=True, env=environment(Path("/")))
        if answer.returncode == 0:
            major, minor = map(int, answer.stdout.split())
            if (3, 11) <= (major, minor) != sys.version_info[:2]:
                found.setdefault((major, minor), candidate)
    return found


def other_python(minor: int) -> Path:
    """A usable interpreter of Python 3.`minor`. Skips the test if this is that version, or if none is found."""
    if sys.version_info[:2] == (3, minor):
        pytest.skip("this is the Python of the tests")
    python = _other_pythons().get((3, minor))
    if python is None:
        pytest.skip(f"no Python 3.{minor} with the packages here; name one in TRADEBOT_OTHER_PYTHONS")
    return python


def lend_freezegun(place: Path) -> str:
    """A PYTHONPATH in `place` with this environment's freezegun, for interpreters without the test packages."""
    packages = Path(freezegun.__file__).parents[1]
    for name in ("freezegun", "dateutil", "six.py"):
        (place / name).symlink_to(packages / name)
    return str(place)
