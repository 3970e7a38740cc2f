"""A database that the disk cannot read: 13, since it can pass; 12 only where the file itself is at fault (11.8)."""

from __future__ import annotations

import errno
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.store_helpers import full_batch, new_run, storage_of
from tradebot.core.cancellation import Cancellation
from tradebot.core.errors import ExitCode, OverloadError
from tradebot.core.events import Tick
from tradebot.core.runtime import RealRuntime
from tradebot.feeds.replay.stored_runs import find_stored_runs
from tradebot.store import reader, replayed
from tradebot.store.database import connect_readonly
from tradebot.store.errors import StorageUnavailable
from tradebot.store.reader import read_ticks, stored_ticks
from tradebot.store.runs import RunRecord

CORRUPT = StorageUnavailable("SQLITE_CORRUPT", "database disk image is malformed", passing=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "x.db"
    with storage_of(path, new_run(path)) as storage:
        storage.write(full_batch(1, 50))
    return path


def failing(monkeypatch: pytest.MonkeyPatch, times: int) -> Callable[[], int]:
    """The next reads of ticks fail as SQLite's do where the disk cannot read a page; how many there were."""
    calls = 0

    def read(*arguments: Any) -> Iterator[list[Tick]]:
        nonlocal calls
        calls += 1
        if calls <= times:
            raise CORRUPT
        yield from read_ticks(*arguments)

    for module in (reader, replayed):
        monkeypatch.setattr(module, "read_ticks", read)
    return lambda: calls


def test_stored_ticks_that_cannot_be_read_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resume compares with what it opened a moment ago."""
    failing(monkeypatch, 1)
    with pytest.raises(OverloadError, match=r"x\.db: database disk image is malformed"):
        next(stored_ticks(path, RunRecord(1, "r1")))


def test_one_failed_read_of_a_source_is_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = failing(monkeypatch, 1)
    find_stored_runs(path, None, False, Cancellation(RealRuntime()))
    assert calls() == 2


def test_a_damaged_source_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte of it can be read, and the second attempt says the same."""
    calls = failing(monkeypatch, 9)
    with pytest.raises(StorageUnavailable) as failure:
        find_stored_runs(path, None, False, Cancellation(RealRuntime()))
    assert (failure.value.exit_code, calls()) == (ExitCode.CONFIG, 2)


def test_a_source_that_the_disk_cannot_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, 9)

    def fail(*_arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("tradebot.store.checks.Path.open", fail)
    with pytest.raises(StorageUnavailable, match=r"x\.db cannot be read: Input/output error \(EIO") as failure:
        find_stored_runs(path, None, False, Cancellation(RealRuntime()))
    assert failure.value.exit_code is ExitCode.OVERLOAD


def test_a_source_for_which_no_descriptor_is_left(path: Path) -> None:
    """SQLite only says that it cannot open it; this user may, so it can pass."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with path.open() as file:
        lowest = file.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        with pytest.raises(StorageUnavailable, match="SQLITE_CANTOPEN") as failure:
            connect_readonly(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert failure.value.exit_code is ExitCode.OVERLOAD
