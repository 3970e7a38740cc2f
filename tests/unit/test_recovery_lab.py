"""The lab's model of a disk after a loss of power, and where it strikes."""

from __future__ import annotations

import random

import pytest

from tests.recovery.disk import Disk, Operation
from tests.recovery.judge import most, spilled_rows
from tests.recovery.points import ERRORS, Point, spread

CREATED, EMPTIED, DIRECTORY = 1, 2, 4


class Recorder:
    """Builds a record as the shim would, and applies it."""

    def __init__(self, image: dict[str, bytes] | None = None) -> None:
        self.disk = Disk("/d", {} if image is None else image)

    def do(
        self, code: str, descriptor: int = 3, path: str = "", offset: int = 0, data: bytes = b"", flags: int = 0
    ) -> None:
        self.disk.apply(Operation(code, descriptor, flags, path, offset, data, 0))

    def create(self, name: str, data: bytes, descriptor: int = 3) -> None:
        self.do("O", descriptor, f"/d/{name}", flags=CREATED)
        self.do("W", descriptor, data=data)

    def sync_directory(self) -> None:
        self.do("O", 9, "/d", flags=DIRECTORY)
        self.do("S", 9)
        self.do("C", 9)


def images(recorder: Recorder, seed: int = 1) -> dict[str, dict[str, bytes]]:
    return dict(recorder.disk.images(random.Random(seed)))


def test_what_was_not_synced_may_be_gone() -> None:
    recorder = Recorder({"x": b"before"})
    recorder.do("O", path="/d/x")
    recorder.do("W", data=b"AFTER!", offset=0)
    assert recorder.disk.safe == {"x": b"before"}
    assert recorder.disk.latest == {"x": b"AFTER!"}
    recorder.do("S")
    assert recorder.disk.safe == {"x": b"AFTER!"}


def test_a_synced_file_needs_its_name_synced_too() -> None:
    recorder = Recorder()
    recorder.create("x", b"data")
    recorder.do("S")
    assert recorder.disk.safe == {}
    assert recorder.disk.synced == {"x": b"data"}
    recorder.sync_directory()
    assert recorder.disk.safe == {"x": b"data"}


def test_a_removal_may_not_have_happened() -> None:
    recorder = Recorder({"x": b"data"})
    recorder.do("U", path="/d/x")
    assert recorder.disk.safe == {"x": b"data"}
    assert recorder.disk.latest == {}
    recorder.sync_directory()
    assert recorder.disk.safe == {}


def test_a_renamed_file_may_have_its_old_name_or_its_new_one() -> None:
    recorder = Recorder({"x": b"old"})
    recorder.create("x.part", b"new")
    recorder.do("S")
    recorder.do("R", path="/d/x.part", data=b"/d/x")
    assert recorder.disk.safe == {"x": b"old"}
    assert recorder.disk.synced == {"x": b"new"}


def test_the_last_write_may_be_torn_or_missing_and_lengths_may_be_without_data() -> None:
    recorder = Recorder({"x": b"...."})
    recorder.do("O", path="/d/x")
    recorder.do("W", data=b"abcd", offset=0)
    recorder.do("W", data=b"efgh", offset=4)
    found = images(recorder)
    assert found["all but the last write"] == {"x": b"abcd"}
    assert found["half of the last write"] == {"x": b"abcdef"}
    assert found["lengths without data"] == {"x": b"....\0\0\0\0"}
    assert found["nothing unsynced"] == {"x": b"...."}


def test_writes_of_one_file_may_be_there_without_those_of_another() -> None:
    recorder = Recorder({"x": b"", "y": b""})
    for descriptor, name in ((3, "x"), (4, "y")):
        recorder.do("O", descriptor, f"/d/{name}")
        recorder.do("W", descriptor, data=b"data")
    found = images(recorder)
    assert found["only the writes of x"] == {"x": b"data", "y": b""}
    assert found["only the writes of y"] == {"x": b"", "y": b"data"}


def test_any_subset_of_writes_may_be_there() -> None:
    recorder = Recorder({"x": b"\0\0"})
    recorder.do("O", path="/d/x")
    recorder.do("W", data=b"a", offset=0)
    recorder.do("W", data=b"b", offset=1)
    found = {images(recorder, seed)["some writes and names"]["x"] for seed in range(100)}
    assert found == {b"\0\0", b"a\0", b"\0b", b"ab"}


def test_cutting_allocating_and_emptying() -> None:
    recorder = Recorder({"x": b"data"})
    recorder.do("O", path="/d/x")
    recorder.do("A", offset=6)
    assert recorder.disk.latest == {"x": b"data\0\0"}
    recorder.do("T", offset=1)
    assert recorder.disk.latest == {"x": b"d"}
    recorder.do("O", 4, "/d/x", flags=EMPTIED)
    assert recorder.disk.latest == {"x": b""}
    assert recorder.disk.safe == {"x": b"data"}


def test_the_index_of_the_log_is_no_part_of_it() -> None:
    recorder = Recorder()
    recorder.create("x-shm", b"data")
    recorder.sync_directory()
    assert recorder.disk.latest == {}


@pytest.mark.parametrize("total", [1, 7, 8, 100])
def test_spread(total: int) -> None:
    found = spread(total, 8, random.Random(1))
    assert found[0] == 1
    assert found[-1] == total
    assert sorted(set(found)) == found
    assert len(found) == min(total, 8)


def test_what_a_spill_file_promises() -> None:
    lines = b'["spill",2,"r",10,2,1,1,0]\n["t","A",1.0,1.0,1]\n["o","x",[["f"]]]\n["t",half'
    assert spilled_rows({"x.db.spill": lines + bytes(100)}) == {"r": (11, 2, 2, 2, 0)}
    assert spilled_rows({"x.db.spill": bytes(100)}) == {}
    assert spilled_rows({}) == {}


def test_the_higher_count_is_required() -> None:
    assert most({"r": (1, 5)}, {"r": (2, 4), "s": (1, 1)}) == {"r": (2, 5), "s": (1, 1)}


def test_a_point_names_the_command_that_strikes_there_again() -> None:
    point = Point("spill", "FULL", "error", 7, next(iter(ERRORS)))
    assert point.command(3) == (
        "make recovery ARGS='--scenario=spill --synchronous=FULL --kind=error --at=7 --detail=open-EMFILE --seed=3'"
    )
