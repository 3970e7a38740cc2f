"""Which failures of the storage can pass: told from the error, through whatever peewee wrapped around it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import peewee
import pytest

from tests.unit.store_helpers import full_batch, locked, new_database, new_run, storage_of
from tradebot.core.errors import ExitCode
from tradebot.store.database import connect
from tradebot.store.errors import StorageUnavailable, classify, storage_errors


def sqlite_error(code: int, text: str = "told") -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


PASSING = ["BUSY", "LOCKED", "FULL", "IOERR", "CANTOPEN", "PROTOCOL", "READONLY"]
LASTING = ["CORRUPT", "NOTADB"]


@pytest.mark.parametrize("name", PASSING + LASTING)
def test_codes(name: str) -> None:
    """Locked and full can pass, a damaged file cannot."""
    found = classify(sqlite_error(getattr(sqlite3, f"SQLITE_{name}")))
    assert found is not None
    assert (found.code, found.passing) == (f"SQLITE_{name}", name in PASSING)
    assert str(found).startswith(f"told (SQLITE_{name}")


def test_extended_codes_count_as_their_primary_one() -> None:
    for code, name in ((sqlite3.SQLITE_IOERR_FSYNC, "SQLITE_IOERR"), (sqlite3.SQLITE_BUSY_SNAPSHOT, "SQLITE_BUSY")):
        found = classify(sqlite_error(code))
        assert found is not None
        assert found.code == name


@pytest.mark.parametrize("error", [ValueError("x"), sqlite3.ProgrammingError("x"), sqlite_error(sqlite3.SQLITE_ERROR)])
def test_what_is_a_bug_is_no_storage_failure(error: Exception) -> None:
    assert classify(error) is None
    with pytest.raises(type(error)), storage_errors():
        raise error


def test_exit_codes() -> None:
    """G5: a failure that can pass ends like a locked database (13), a damaged file is unusable (12)."""
    assert StorageUnavailable("SQLITE_BUSY", "x", passing=True).exit_code is ExitCode.OVERLOAD
    assert StorageUnavailable("SQLITE_CORRUPT", "x", passing=False).exit_code is ExitCode.CONFIG


def test_a_locked_database_is_seen_through_peewee(tmp_path: Path) -> None:
    new_database(tmp_path / "x.db").close()
    with closing(connect(tmp_path / "x.db")) as db, locked(tmp_path / "x.db"):
        db.execute_sql("PRAGMA busy_timeout = 1")
        with pytest.raises(StorageUnavailable) as failure, storage_errors(), db.atomic("IMMEDIATE"):
            raise AssertionError("the lock does not hold")
    assert failure.value.code == "SQLITE_BUSY"


def test_a_full_database_is_seen_behind_cannot_rollback(tmp_path: Path) -> None:
    """peewee rolls back what SQLite has rolled back already: the cause is only in the context of its complaint."""
    path = tmp_path / "x.db"
    new_database(path).close()
    with closing(connect(path)) as db:
        pages = db.execute_sql("PRAGMA page_count").fetchone()[0]
        db.execute_sql(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(peewee.OperationalError) as hidden, db.atomic("IMMEDIATE"):
            for ts in range(10_000):
                db.execute_sql("INSERT INTO ticks (symbol, price, volume, ts) VALUES ('A', 1, 1, ?)", (ts,))
    assert "rollback" in str(hidden.value)
    found = classify(hidden.value)
    assert found is not None
    assert (found.code, found.passing) == ("SQLITE_FULL", True)


def test_a_damaged_file_is_not_retried(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    record = new_run(path)
    with storage_of(path, record) as storage:
        storage.write(full_batch(1, 2000))
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\x5a" * (path.stat().st_size - 4096))
    with storage_of(path, record) as storage, pytest.raises(StorageUnavailable) as failure:
        storage.write(full_batch(1, 10))
    assert (failure.value.code, failure.value.passing) == ("SQLITE_CORRUPT", False)
    assert "integrity_check" in str(failure.value)


def test_a_loop_in_the_chain_ends() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__context__, other.__context__ = other, one
    assert classify(one) is None
