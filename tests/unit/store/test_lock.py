"""One file, one writer: a second engine is refused by whichever name it comes, and a removed lock file lets none in."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import signal
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.e2e.tmpfs import small_disk
from tests.unit.store_helpers import full_batch, new_run, python, storage_of
from tradebot.core.errors import PASSING_ERRNOS, ConfigError
from tradebot.core.private_files import open_private
from tradebot.store.errors import StorageUnavailable
from tradebot.store.lock import WriterLock, file_system, file_system_of, holder_of
from tradebot.store.spill import spill_path

HOLD = (
    "import sys, pathlib; from tradebot.store.lock import WriterLock\n"
    "lock = WriterLock(pathlib.Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
)


@contextmanager
def held_elsewhere(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    with python(HOLD, path, stdin=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == "held\n"
        yield other
        other.stdin.close()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_second_engine_is_refused(tmp_path: Path) -> None:
    """Another engine is writing it."""
    lock = WriterLock(tmp_path / "x.db")
    with pytest.raises(ConfigError, match=rf"another engine \(process {os.getpid()}\)"):
        WriterLock(tmp_path / "x.db")
    lock.release()
    lock.release()
    WriterLock(tmp_path / "x.db").release()


def test_another_process_holds_it_until_it_dies(tmp_path: Path) -> None:
    """After kill -9 the next start is free."""
    code = (
        "import sys, pathlib; from tradebot.store.lock import WriterLock\n"
        "lock = WriterLock(pathlib.Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    with python(code, tmp_path / "x.db", stdin=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=rf"another engine \(process {other.pid}\)"):
            WriterLock(tmp_path / "x.db")
        other.send_signal(signal.SIGKILL)
    WriterLock(tmp_path / "x.db").release()


def test_two_names_of_one_file_exclude_each_other(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    (tmp_path / "x.db").symlink_to(tmp_path / "link" / "real.db")
    lock = WriterLock(tmp_path / "x.db")
    for name in ("data/real.db", "link/real.db", "data/../x.db"):
        with pytest.raises(ConfigError, match="another engine"):
            WriterLock(tmp_path / name)
    lock.release()
    assert spill_path(tmp_path / "x.db") == spill_path(tmp_path / "link" / "real.db")


def test_a_lock_file_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "x.db.lock").mkdir()
    with pytest.raises(ConfigError, match=r"cannot create .*x\.db\.lock: Is a directory"):
        WriterLock(tmp_path / "x.db")


def test_on_a_full_disk(tmp_path: Path) -> None:
    """A database whose disk is full is waited for, which begins with its lock."""
    with small_disk(tmp_path / "disk", 1) as disk:
        disk.fill()
        lock = WriterLock(disk.place / "x.db")
        with pytest.raises(ConfigError, match=r"another engine \(process unknown\)"):
            WriterLock(disk.place / "x.db")
        lock.release()


def test_what_the_lock_file_says_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "x.db.lock").write_bytes(b"\xff\xfe")
    held = WriterLock(tmp_path / "x.db")
    (tmp_path / "x.db.lock").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="another engine"):
        WriterLock(tmp_path / "x.db")
    held.release()


def test_a_removed_lock_file_lets_nobody_in(tmp_path: Path) -> None:
    """The lock belongs to the database file; the process that holds it is still named."""
    with held_elsewhere(tmp_path / "x.db") as other:
        (tmp_path / "x.db.lock").unlink()
        for _ in range(2):  # the second time there is a lock file again, that of the attempt before
            with pytest.raises(ConfigError, match=rf"another engine \(process {other.pid}\) is writing this file"):
                WriterLock(tmp_path / "x.db")
    WriterLock(tmp_path / "x.db").release()


def test_a_hard_link_is_the_same_database(tmp_path: Path) -> None:
    """Another name, another lock file, the same inode."""
    new_run(tmp_path / "x.db")
    (tmp_path / "other").mkdir()
    os.link(tmp_path / "x.db", tmp_path / "other" / "y.db")
    with (
        held_elsewhere(tmp_path / "x.db") as other,
        pytest.raises(ConfigError, match=rf"process {other.pid}.*under another name"),
    ):
        WriterLock(tmp_path / "other" / "y.db")


def test_a_bind_mount_is_the_same_database(tmp_path: Path) -> None:
    """12.10."""
    new_run(tmp_path / "x.db")
    (tmp_path / "other").mkdir()
    bound = tmp_path / "other" / "y.db"
    bound.touch()
    if subprocess.run(["mount", "--bind", tmp_path / "x.db", bound], capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        with held_elsewhere(tmp_path / "x.db"), pytest.raises(ConfigError, match="another engine"):
            WriterLock(bound)
    finally:
        subprocess.run(["umount", bound], check=True)


def test_the_lock_leaves_sqlites_own_locks_alone(tmp_path: Path) -> None:
    """flock and POSIX locks do not meet, and the descriptor stays open as long as there are connections."""
    path = tmp_path / "x.db"
    lock = WriterLock(path)
    with storage_of(path, new_run(path)) as storage:
        storage.write(full_batch(1, 10))
        code = (
            "import sys, sqlite3; db = sqlite3.connect(sys.argv[1])\n"
            "print(*db.execute('SELECT COUNT(*) FROM ticks').fetchone()); db.close()"
        )
        with python(code, path) as other:
            assert other.communicate(timeout=30)[0] == "10\n"
        assert Path(f"{path}-wal").exists(), "the other one took itself for the last and deleted the WAL"
        storage.write(full_batch(11, 10))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        code = "import sys, sqlite3; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
        with python(code, path, stderr=subprocess.PIPE) as other:
            assert "database is locked" in other.communicate(timeout=30)[1]
    lock.release()


def test_new_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    """An existing database keeps its mode."""
    before = os.umask(0o022)
    try:
        WriterLock(tmp_path / "x.db").release()
        assert (mode(tmp_path / "x.db"), mode(tmp_path / "x.db.lock")) == (0o600, 0o600)
        (tmp_path / "x.db").chmod(0o660)
        with storage_of(tmp_path / "x.db", new_run(tmp_path / "x.db")) as storage:
            storage.write(full_batch(1, 1))
            assert mode(tmp_path / "x.db-wal") == 0o660
        WriterLock(tmp_path / "x.db").release()
        assert mode(tmp_path / "x.db") == 0o660
    finally:
        os.umask(before)


def test_a_link_in_the_place_of_the_lock_file_is_not_followed(tmp_path: Path) -> None:
    """11.11."""
    (tmp_path / "precious").write_text("content")
    (tmp_path / "x.db.lock").symlink_to("precious")
    with pytest.raises(ConfigError, match=r"cannot create .*x\.db\.lock \(it is a symbolic link"):
        WriterLock(tmp_path / "x.db")
    assert (tmp_path / "precious").read_text() == "content"


@pytest.mark.parametrize("number", sorted(PASSING_ERRNOS))
@pytest.mark.parametrize("at", [0, 1], ids=["lock file", "database"])
def test_a_passing_error_is_no_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, at: int) -> None:
    """And the attempt leaves nothing locked."""
    calls = itertools.count()

    def fails_once(path: Path, flags: int) -> int:
        if next(calls) == at:
            raise OSError(number, os.strerror(number))
        return open_private(path, flags)

    with monkeypatch.context() as patch:
        patch.setattr("tradebot.store.lock.open_private", fails_once)
        with pytest.raises(StorageUnavailable, match=os.strerror(number)) as failure:
            WriterLock(tmp_path / "x.db")
    assert (failure.value.code, failure.value.passing) == (errno.errorcode[number], True)
    WriterLock(tmp_path / "x.db").release()


def test_where_files_cannot_be_locked_the_lock_file_has_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told, so that nobody counts on more."""
    real = fcntl.flock

    def flock(descriptor: int, how: int) -> None:
        if os.path.samestat(os.fstat(descriptor), (tmp_path / "x.db").stat()):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        real(descriptor, how)

    (tmp_path / "x.db").touch()
    monkeypatch.setattr("tradebot.store.lock.fcntl.flock", flock)
    lock = WriterLock(tmp_path / "x.db")
    assert lock.unguarded == "its file system does not support this: Operation not supported"
    with pytest.raises(ConfigError, match="another engine"):
        WriterLock(tmp_path / "x.db")
    lock.release()


def test_on_a_network_file_system_the_database_itself_is_not_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There an flock is a lock on the whole file, which would keep SQLite out."""
    monkeypatch.setattr("tradebot.store.lock.file_system", lambda device: "nfs4")
    lock = WriterLock(tmp_path / "x.db")
    assert lock.unguarded is not None and "nfs4" in lock.unguarded
    with (tmp_path / "x.db").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(ConfigError, match="another engine"):
        WriterLock(tmp_path / "x.db")
    lock.release()


def test_the_file_system_of_a_device(tmp_path: Path) -> None:
    mounts = [
        "22 27 0:20 / /proc rw,nosuid shared:12 - proc proc rw",
        "97 27 0:45 / /srv/data rw,relatime shared:48 master:1 - nfs4 server:/data rw,vers=4.2",
        "a torn line",
    ]
    assert file_system_of(mounts, os.makedev(0, 45)) == "nfs4"
    assert file_system_of(mounts, os.makedev(0, 46)) is None
    assert file_system(tmp_path.stat().st_dev, tmp_path / "none") is None


def test_the_holder_of_a_lock() -> None:
    lines = [
        "1: POSIX  ADVISORY  WRITE 4 08:01:77 0 EOF",
        "2: FLOCK  ADVISORY  READ  5 08:01:77 0 EOF",
        "2: -> FLOCK  ADVISORY  WRITE 6 08:01:77 0 EOF",
        "3: FLOCK  ADVISORY  WRITE 7 08:01:77 0 EOF",
        "",
    ]
    assert holder_of(lines, 77) == 7
    assert holder_of(lines, 7) is None
