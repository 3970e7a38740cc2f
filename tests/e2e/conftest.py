"""Fixtures of the end-to-end tests: an engine with its own home directory, and the result of an undisturbed run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.hook import Hook, running_hook
from tests.e2e.process import SESSION, SESSION_CONFIG, Engine


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """Starts engines in a home and working directory of the test."""
    started = Engine(tmp_path)
    yield started
    started.close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    """A webhook that records the requests posted to it."""
    with running_hook() as server:
        yield server


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of an undisturbed replay of the recorded session, with the configuration of `make run`."""
    home = tmp_path_factory.mktemp("undisturbed")
    done = Engine(home).run(f"--config={SESSION_CONFIG}", f"--replay-file={SESSION}", "--db=session.db")
    done.expect(0)
    return home / "session.db"
