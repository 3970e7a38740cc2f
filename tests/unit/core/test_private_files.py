"""Files that only their owner may read: modes, links, fifos, and what an error leaves behind."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.ops.test_bundle import bundle_of
from tests.unit.telemetry.test_engine_side import status_of
from tradebot.core.errors import ConfigError
from tradebot.core.private_files import open_private, read_trusted, replace_private
from tradebot.feeds.capture_file import CaptureWriter
from tradebot.feeds.quarantine import Quarantine
from tradebot.ops.proofs.bundle import write_bundle
from tradebot.ops.soak.decision_log import DecisionLog, SoakLock
from tradebot.store.batch import StoredCounts
from tradebot.store.spill import Spill
from tradebot.telemetry.status_file import write_status
from tradebot.telemetry.throttle_file import Throttle, write_throttle

ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="only root can give a file away")
SOMEBODY = 12_345


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """The mode must come from the call, not from the umask."""
    old = os.umask(0)
    yield
    os.umask(old)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def created(path: Path, flags: int = os.O_WRONLY) -> Path:
    os.close(open_private(path, flags))
    return path


def test_a_new_file_is_for_its_owner_only(tmp_path: Path) -> None:
    assert mode(created(tmp_path / "a")) == 0o600
    replace_private(tmp_path / "b", b"x")
    assert mode(tmp_path / "b") == 0o600


def test_a_stricter_umask_counts(tmp_path: Path) -> None:
    os.umask(0o277)
    assert mode(created(tmp_path / "a")) == 0o400


def test_an_existing_file_keeps_its_mode_and_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"before")
    (tmp_path / "a").chmod(0o640)
    assert mode(created(tmp_path / "a")) == 0o640
    assert (tmp_path / "a").read_bytes() == b"before"


def test_an_existing_file_is_refused_with_o_excl(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        created(created(tmp_path / "a"), os.O_WRONLY | os.O_EXCL)


@pytest.mark.parametrize("target_exists", [True, False])
def test_a_symbolic_link_is_not_followed(tmp_path: Path, target_exists: bool) -> None:
    target = tmp_path / "target"
    if target_exists:
        target.write_bytes(b"of somebody else")
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(OSError) as caught:
        created(tmp_path / "link", os.O_WRONLY | os.O_TRUNC)
    assert caught.value.errno == errno.ELOOP
    assert target.exists() == target_exists
    assert not target_exists or target.read_bytes() == b"of somebody else"


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY])
def test_a_fifo_is_refused_without_waiting(tmp_path: Path, flags: int) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError) as caught:
        created(tmp_path / "fifo", flags)
    assert caught.value.errno in (errno.EINVAL, errno.ENXIO)


def test_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(OSError):
        created(tmp_path / "d", os.O_RDONLY)


@pytest.mark.parametrize("at", ["a", "a.part"])
def test_replacing_removes_a_link_and_leaves_its_target(tmp_path: Path, at: str) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"of somebody else")
    (tmp_path / at).symlink_to(target)
    replace_private(tmp_path / "a", b"new")
    assert target.read_bytes() == b"of somebody else"
    assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "a").read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "target"]


def test_replacing_is_whole_and_may_be_synced_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, move = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        done.append("sync")
        fsync(descriptor)

    def moved(source: Path, target: Path) -> None:
        assert source.read_bytes() == b"x" * 100_000
        done.append("replace")
        move(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", moved)
    replace_private(tmp_path / "a", b"x" * 100_000)
    replace_private(tmp_path / "a", b"x" * 100_000, sync=False)
    assert done == ["sync", "replace", "replace"]


def test_a_full_disk_leaves_the_earlier_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_private(tmp_path / "a", b"before")

    def full(descriptor: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        replace_private(tmp_path / "a", b"after")
    assert (tmp_path / "a").read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def spill(path: Path) -> None:
    reserve = Spill(path, 1)
    reserve.begin("r", StoredCounts(0, 0, 0, 0, 0))  # an unused one is deleted
    reserve.finish()


def quarantine(path: Path) -> None:
    kept = Quarantine(path)
    told = kept.keep("no JSON", 1, "reason")
    kept.close()
    if told is not None:
        raise OSError(told)


def decisions(path: Path) -> None:
    DecisionLog(path).close()


def soak_lock(path: Path) -> None:
    SoakLock(path.with_name(path.name.removesuffix(".soak.lock"))).release()


def throttle(path: Path) -> None:
    write_throttle(path, Throttle(5, "THROTTLE1", 1))


def status(path: Path) -> None:
    write_status(path, status_of())


def bundle(path: Path) -> None:
    write_bundle(path, bundle_of())


APPENDED = {"x.db.spill": spill, "x.db.quarantine.jsonl": quarantine, "x.db.decisions.jsonl": decisions,
            "x.db.soak.lock": soak_lock}  # fmt: skip
REPLACED = {"x.db.throttle.json": throttle, "x.db.status.json": status, "proof_bundle.json": bundle}
WRITERS = APPENDED | REPLACED


@pytest.mark.parametrize("name", WRITERS)
def test_every_writer_makes_its_file_for_its_owner_only(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    assert mode(tmp_path / name) == 0o600


def test_a_capture_is_for_its_owner_only(tmp_path: Path) -> None:
    capture = CaptureWriter(tmp_path / "c", "binance", ["X"], 1, 10_000, 2)
    capture.close()
    assert mode(capture.path) == 0o600


@pytest.mark.parametrize("name", WRITERS)
def test_no_writer_follows_a_link_at_its_predictable_name(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    (tmp_path / name).symlink_to(victim)
    if name in REPLACED:
        WRITERS[name](tmp_path / name)
        assert not (tmp_path / name).is_symlink()
    else:
        with pytest.raises((OSError, ConfigError), match="is a symbolic link, which is not followed"):
            WRITERS[name](tmp_path / name)
    assert victim.read_bytes() == b""


def test_a_trusted_file_is_read_and_no_more_than_was_asked_for(tmp_path: Path) -> None:
    replace_private(tmp_path / "a", b"0123456789")
    assert read_trusted(tmp_path / "a", 4) == b"0123"
    with pytest.raises(FileNotFoundError):
        read_trusted(tmp_path / "none", 4)


@needs_root
def test_the_owner_of_the_directory_is_trusted_and_another_user_is_not(tmp_path: Path) -> None:
    replace_private(tmp_path / "a", b"x")
    os.chown(tmp_path / "a", SOMEBODY, SOMEBODY)
    with pytest.raises(OSError, match="belongs to another user"):
        read_trusted(tmp_path / "a", 1)
    os.chown(tmp_path, SOMEBODY, SOMEBODY)
    assert read_trusted(tmp_path / "a", 1) == b"x"


@needs_root
def test_what_root_creates_belongs_to_the_owner_of_the_directory(tmp_path: Path) -> None:
    """Otherwise a service could not read what its administrator's command wrote beside its database."""
    os.chown(tmp_path, SOMEBODY, SOMEBODY)
    replace_private(tmp_path / "a", b"x")
    assert (tmp_path / "a").stat().st_uid == created(tmp_path / "b").stat().st_uid == SOMEBODY


@needs_root
def test_what_exists_already_is_given_to_nobody(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    os.chown(tmp_path, SOMEBODY, SOMEBODY)
    assert created(tmp_path / "a").stat().st_uid == 0
