"""The spill file: what goes in comes back, wherever its writing was cut short, once and only into its own database."""

from __future__ import annotations

import errno
import os
import re
import signal as signals
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.e2e.tmpfs import small_disk
from tests.unit.outcomes import outcomes, outcomes_st
from tests.unit.store_helpers import (
    REPO,
    assert_counters,
    batch_of,
    counts,
    decided_st,
    dump,
    dump_of,
    full_batch,
    locked,
    memory_run,
    new_run,
    order,
    rows,
    signal,
    storage_of,
    tick,
    ticks_st,
    unprivileged,
)
from tradebot.core.errors import ConfigError
from tradebot.core.events import Notice, Order, Signal, StoredEvent, Tick, TickChunk, TickOutcome
from tradebot.store.adoption import Adopted, adopt, orphans
from tradebot.store.batch import StoredCounts, WriteBatch
from tradebot.store.database import connect
from tradebot.store.errors import StorageUnavailable
from tradebot.store.policy import MAX_BATCH_EVENTS
from tradebot.store.spill import Spill, SpillProbe, probe_spill, spill_path
from tradebot.store.spill_format import BYTES_AN_EVENT, in_causal_order
from tradebot.store.spill_format import batch_of as spilled_batch
from tradebot.store.writer import insert_batch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database that knows the run r1."""
    new_run(tmp_path / "x.db")
    return tmp_path / "x.db"


def spill(
    path: Path, *batches: WriteBatch, run_id: str = "r1", before: StoredCounts | None = None, end: bool = True
) -> Path:
    """A spill file beside `path`, of batches that follow on what the database holds; not `end`: it was killed."""
    made = Spill(spill_path(path), 10)
    made.begin(run_id, StoredCounts(*counts(path)) if before is None else before)
    for batch in batches:
        made.append(in_causal_order(batch, 0))
    if end:
        made.finish()
    else:
        made.close()
    return made.path


def adopted(path: Path) -> Adopted | None:
    with closing(connect(path)) as db:
        return adopt(db, spill_path(path))


def stored_plainly(path: Path, *batches: WriteBatch) -> dict[str, list[Any]]:
    """What an undisturbed run stores."""
    with storage_of(path, new_run(path)) as storage:
        for batch in batches:
            storage.write(batch)
    return dump(path)


class TestRoundTrip:
    @given(ticks=st.lists(ticks_st, max_size=8), decided=decided_st | outcomes_st)
    @hypothesis_settings(max_examples=40)
    def test_all_events_come_back_exactly(self, ticks: list[Tick], decided: list[StoredEvent]) -> None:
        """The rows are those that the writer would have made, to the last bit of each price."""
        batch = WriteBatch()
        for event in (*ticks, *decided):
            batch.add_event(event)
        with TemporaryDirectory() as place, memory_run() as (db, _), memory_run() as (plain, record):
            if batch.events:
                insert_batch(plain, record.no, batch, StoredCounts().plus(batch))
            file = spill(Path(place, "x.db"), batch, before=StoredCounts())
            assert adopt(db, file) == Adopted("r1", batch.events, 0, whole=True)
            assert dump_of(db) == dump_of(plain)
            assert not file.exists()

    def test_an_order_of_format_2_names_no_limit(self, path: Path) -> None:
        """As the version before wrote it: filled and refused orders come in, with the new columns empty."""
        fill = '["a-T","a-O","A","BUY",1.0,2.0,0.5,3,1]'
        lines = [
            '["spill",2,"r1",0,0,0,0,0]', '["s","a-S","A","BUY",0.75,"X",1.0,2.0,3]',
            f'["o","a-O","a-S","A","BUY",1.0,2.0,"FILLED","X",3,1,[{fill}]]',
            '["o","b-O","a-S","A","BUY",1.0,2.0,"REJECTED","RISK_CAP",3,1,[]]', '["end",3]',
        ]  # fmt: skip
        spill_path(path).write_text("\n".join(lines) + "\n")
        assert adopted(path) == Adopted("r1", 3, 0, whole=True)
        found = rows(path, "SELECT event_id, status, refused_by, refused_value, refused_limit FROM orders")
        assert found == [("a-O", "FILLED", None, None, None), ("b-O", "REJECTED", None, None, None)]
        assert rows(path, "SELECT event_id, order_id, fees FROM trades") == [("a-T", "a-O", 0.5)]

    def test_after_what_is_stored_already(self, path: Path, tmp_path: Path) -> None:
        with storage_of(path, _record(path)) as storage:
            storage.write(full_batch(1, 20))
        spill(path, full_batch(21, 20), full_batch(41, 3))
        assert adopted(path) == Adopted("r1", 31, 0, whole=True)
        assert dump(path) == stored_plainly(tmp_path / "y.db", full_batch(1, 43))

    def test_ids_that_the_sender_gave_and_odd_text(self, path: Path) -> None:
        ticks = [
            Tick("BTC/€ 価格\n\"'\\", 0.1, 0.0, 0, event_id="\0\x7f\u2028", seq=2**63 - 1),
            Tick("\U0001f680", 1.7e308, 5e-324, 2**63 - 1, seq=0),
        ]
        batch = WriteBatch()
        batch.add(TickChunk(ticks))
        spill(path, batch)
        adopted(path)
        assert rows(path, "SELECT symbol, price, volume, ts, event_id, seq FROM ticks") == [
            (t.symbol, t.price, t.volume, t.ts, t.event_id, t.seq) for t in ticks
        ]

    def test_marks_take_no_room(self, path: Path) -> None:
        """A signal may carry the prices of hundreds of symbols; they are not stored, so they are not spilled."""
        marked = msgspec.structs.replace(signal(1), marks=tuple((f"S{n}", 1.0) for n in range(1000)))
        batch = WriteBatch()
        batch.add_event(marked)
        assert spill(path, batch).stat().st_size < 2 * BYTES_AN_EVENT
        adopted(path)
        assert counts(path) == (0, 1, 0, 0)

    def test_a_usual_event_fits_its_share_of_the_reserve(self, path: Path) -> None:
        """The reserve must be enough for what it is said to hold."""
        run_id = "l1700000000000deadbeef"
        number = 9_999_999_999
        symbol = "1000PEPE/USDT"
        usual: list[StoredEvent] = [
            Tick(symbol, 0.012345678901234, 12345678.12345678, 1_700_000_000_000, "1234567890", 1234567890),
            msgspec.structs.replace(
                signal(number, run_id), symbol=symbol, price=0.012345678901234, ts=1_700_000_000_000
            ),
            msgspec.structs.replace(
                order(number, run_id), symbol=symbol, price=0.012345678901234, ts=1_700_000_000_000
            ),
        ]
        for event in usual:
            made = Spill(spill_path(path), 1)
            made.begin(run_id, StoredCounts())
            before = _written(made.path)
            made.append([event])
            assert _written(made.path) - before <= BYTES_AN_EVENT, event
            made.close()


def _written(path: Path) -> int:
    return len(path.read_bytes().rstrip(b"\0"))


def _record(path: Path) -> Any:
    from tests.unit.store_helpers import run_info
    from tradebot.store.runs import begin_run

    with closing(connect(path)) as db:
        return begin_run(db, run_info(), 1, resume=True)


class TestReserve:
    def test_room_is_taken_at_once_and_given_back_unused(self, tmp_path: Path) -> None:
        """A disk that fills up later cannot take it away."""
        made = Spill(tmp_path / "x.spill", 1000)
        assert made.path.stat().st_blocks * 512 >= 1000 * BYTES_AN_EVENT
        made.close()
        made.close()
        assert not made.path.exists()

    def test_is_bounded(self, tmp_path: Path) -> None:
        made = Spill(tmp_path / "x.spill", 10**12)
        assert made.path.stat().st_size == 64 * 1024 * 1024
        made.close()

    def test_what_is_not_used_is_given_back(self, path: Path) -> None:
        made = Spill(spill_path(path), 1000)
        made.begin("r1", StoredCounts())
        made.append([tick(1)])
        made.finish()
        made.finish()
        assert made.path.stat().st_size < 200
        assert made.path.read_bytes().endswith(b'["end",1]\n')

    def test_it_grows_beyond_the_reserve(self, path: Path, tmp_path: Path) -> None:
        spill(path, full_batch(1, 2000))
        assert spill_path(path).stat().st_size > 10 * BYTES_AN_EVENT
        adopted(path)
        assert dump(path) == stored_plainly(tmp_path / "y.db", full_batch(1, 2000))

    @pytest.mark.parametrize("size", [0, 1, 512, 3_000_000])
    def test_a_killed_engine_leaves_zeros_which_are_nothing(self, path: Path, size: int) -> None:
        spill_path(path).write_bytes(b"\0" * size)
        assert adopted(path) is None
        assert not spill_path(path).exists()

    def test_a_disk_without_room_for_it(self, tmp_path: Path) -> None:
        """The engine goes on without a spill file, and has the disk's last room for the database."""
        with small_disk(tmp_path / "disk", 2) as disk:
            with pytest.raises(OSError) as full:
                Spill(disk.place / "x.spill", 100_000)
            assert full.value.errno == errno.ENOSPC
            assert list(disk.place.iterdir()) == []

    def test_a_full_disk_does_not_touch_it(self, tmp_path: Path) -> None:
        """What is accepted and cannot be stored is spilled although the disk has not one byte left."""
        with small_disk(tmp_path / "disk", 3) as disk:
            path = disk.place / "x.db"
            new_run(path)
            made = Spill(spill_path(path), 1000)
            disk.fill()
            made.begin("r1", StoredCounts())
            made.append(in_causal_order(full_batch(1, 700), 0))
            made.finish()
            disk.free()
            assert adopted(path) == Adopted("r1", 980, 0, whole=True)
            assert counts(path) == (700, 140, 140, 140)

    def test_what_does_not_fit_on_a_full_disk_is_not_there_in_part(self, tmp_path: Path) -> None:
        """What is reported as lost does not turn up later."""
        with small_disk(tmp_path / "disk", 3) as disk:
            path = disk.place / "x.db"
            new_run(path)
            made = Spill(spill_path(path), 50)
            disk.fill()
            made.begin("r1", StoredCounts())
            made.append([tick(n) for n in range(1, 11)])
            with pytest.raises(OSError, match="No space left"):
                made.append([tick(n) for n in range(11, 4000)])
            made.close()
            disk.free()
            assert adopted(path) == Adopted("r1", 10, 0, whole=False)
            assert counts(path) == (10, 0, 0, 0)


class TestTorn:
    def test_cut_at_any_byte(self, path: Path) -> None:
        """Killed while it wrote: what is whole is adopted, and that it is not all is known."""
        whole = spill(path, full_batch(1, 5), end=False).read_bytes().rstrip(b"\0")
        lines = whole.splitlines(keepends=True)
        with closing(connect(path)) as db:
            for cut in {*range(0, len(whole), 7), *(len(b"".join(lines[:n])) for n in range(len(lines) + 1))}:
                for padding in (b"", b"\0" * 5000):
                    spill_path(path).write_bytes(whole[:cut] + padding)
                    with db.atomic() as transaction:
                        found = adopt(db, spill_path(path))
                        transaction.rollback()
                    events = max(0, whole[:cut].count(b"\n") - 1)
                    assert found == (Adopted("r1", events, 0, whole=False) if cut >= len(lines[0]) else None)
                    assert not spill_path(path).exists()

    def test_killed_in_the_middle(self, path: Path) -> None:
        """A process that is killed while it spills: the file is adopted as far as it goes."""
        code = """
import sys, pathlib
from tradebot.core.events import Tick
from tradebot.store.batch import StoredCounts
from tradebot.store.spill import SpillProbe, probe_spill, Spill
spill = Spill(pathlib.Path(sys.argv[1]), 1000)
spill.begin("r1", StoredCounts())
for number in range(10**9):
    spill.append([Tick("A", 1.0, 1.0, number)])
    print(number, flush=True)
"""
        environment = {**os.environ, "PYTHONPATH": str(REPO)}
        command = [sys.executable, "-c", code, str(spill_path(path))]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            while int(process.stdout.readline()) < 50:
                pass
            process.send_signal(signals.SIGKILL)
            said = process.stdout.read().split("\n")
        found = adopted(path)
        assert found is not None
        assert not found.whole
        # What was reported as spilled is there: each chunk is on the disk when `append` returns.
        assert found.events >= int(([number for number in said[:-1] if number] or ["50"])[-1]) + 1
        assert rows(path, "SELECT ts FROM ticks ORDER BY id") == [(n,) for n in range(found.events)]
        assert_counters(path)

    def test_a_header_alone(self, path: Path) -> None:
        spill(path)
        assert adopted(path) == Adopted("r1", 0, 0, whole=True)
        assert not spill_path(path).exists()

    def test_nothing(self, path: Path) -> None:
        assert adopted(path) is None


class TestOnce:
    @given(stored=st.integers(0, 12), spilled=st.integers(1, 12))
    @hypothesis_settings(max_examples=25)
    def test_rows_that_are_stored_already_are_passed_over(self, stored: int, spilled: int) -> None:
        """I3: a commit in doubt that did happen, or an adoption that was killed before it deleted the file."""
        first, in_doubt, rest = (
            full_batch(start, length, every=2) for start, length in ((1, 5), (6, stored), (6, spilled))
        )
        whole = full_batch(1, 5 + max(stored, spilled), every=2)
        before = StoredCounts().plus(first)
        with TemporaryDirectory() as place, memory_run() as (db, record), memory_run() as (plain, _):
            insert_batch(db, record.no, first, before)
            if stored:
                insert_batch(db, record.no, in_doubt, before.plus(in_doubt))
            found = adopt(db, spill(Path(place, "x.db"), rest, before=before))
            insert_batch(plain, record.no, whole, StoredCounts().plus(whole))
            assert found is not None
            assert found.events == max(0, rest.events - in_doubt.events)
            assert found.events + found.already_stored == rest.events
            assert dump_of(db) == dump_of(plain)

    def test_twice(self, path: Path) -> None:
        content = spill(path, full_batch(1, 20)).read_bytes()
        adopted(path)
        before = dump(path)
        spill_path(path).write_bytes(content)
        assert adopted(path) == Adopted("r1", 0, 28, whole=True)
        assert dump(path) == before

    def test_two_spills_of_one_run(self, path: Path, tmp_path: Path) -> None:
        """A replay that failed, was resumed and failed again."""
        for start in (1, 21):
            spill(path, full_batch(start, 20))
            adopted(path)
        assert dump(path) == stored_plainly(tmp_path / "y.db", full_batch(1, 40))

    def test_a_locked_database_keeps_the_file(self, path: Path) -> None:
        content = spill(path, full_batch(1, 20)).read_bytes()
        with closing(connect(path)) as db, locked(path):
            db.execute_sql("PRAGMA busy_timeout = 1")
            with pytest.raises(StorageUnavailable, match="SQLITE_BUSY"):
                adopt(db, spill_path(path))
        assert spill_path(path).read_bytes() == content
        assert adopted(path) == Adopted("r1", 28, 0, whole=True)

    def test_a_full_database_keeps_the_file(self, path: Path) -> None:
        spill(path, full_batch(1, 2000))
        with closing(connect(path)) as db:
            db.execute_sql("PRAGMA max_page_count = 5")
            with pytest.raises(StorageUnavailable, match="SQLITE_FULL"):
                adopt(db, spill_path(path))
        assert counts(path) == (0, 0, 0, 0)
        assert adopted(path) is not None
        assert counts(path) == (2000, 400, 400, 400)


class TestOrphans:
    """What cannot be placed is set aside by name, and never keeps an engine from starting."""

    def set_aside(self, path: Path, reason: str, name: str, stored: tuple[int, int, int, int] = (0, 0, 0, 0)) -> None:
        content = spill_path(path).read_bytes()
        found = adopted(path)
        assert found is not None and found.orphan is not None
        assert re.search(reason, found.orphan.reason), found.orphan.reason
        assert found.orphan.path == path.with_name(f"{path.name}.spill.orphan-{name}")
        assert found.orphan.path.read_bytes() == content, "nothing of it is lost"
        assert not spill_path(path).exists()
        assert counts(path) == stored
        assert found.orphan.path in orphans(path)
        assert adopted(path) is None, "the next start has nothing to do with it"

    def test_of_another_database(self, path: Path) -> None:
        """The database was deleted or replaced, its spill was not."""
        spill(path, full_batch(1, 5, run_id="r9"), run_id="r9")
        self.set_aside(path, "the database has no run r9", "r9")

    def test_of_a_database_that_held_more(self, path: Path) -> None:
        """Rows between the database's and the spill's would be missing, and a resume would never notice."""
        spill(path, full_batch(21, 5), before=StoredCounts(20, 4, 4, 4))
        self.set_aside(path, "after 20 ticks of run r1, .* lost some of the 32 rows before it and holds 0", "r1")

    def test_names_that_are_taken(self, path: Path) -> None:
        for number, name in enumerate(("r9", "r9-2", "r9-3"), 1):
            spill(path, full_batch(1, number, run_id="r9"), run_id="r9")
            self.set_aside(path, "has no run r9", name)
        assert len(orphans(path)) == 3

    def test_a_run_id_that_is_no_file_name(self, path: Path) -> None:
        spill(path, full_batch(1, 5), run_id="../../etc/x")
        self.set_aside(path, "has no run", ".._.._etc_x")

    def test_rows_that_do_not_fit(self, path: Path) -> None:
        """A fill of that id is there already, under another run: no traceback, and no part of a batch."""
        with storage_of(path, new_run(path, "r2")) as storage:
            storage.write(full_batch(1, 5, run_id="r1"))
        spill(path, full_batch(1, 5), before=StoredCounts())
        self.set_aside(path, "its rows do not match those of run r1: UNIQUE constraint failed", "r1", (5, 1, 1, 1))

    @pytest.mark.parametrize("line", [3, 5, 8])
    def test_a_line_that_is_damaged_in_the_middle(self, path: Path, line: int) -> None:
        """The events before it are stored; the file is kept unchanged, so that it can be repaired by hand."""
        lines = spill(path, full_batch(1, 5)).read_bytes().splitlines(keepends=True)
        lines[line - 1] = b'["t","A",1.0,1.\n'
        spill_path(path).write_bytes(b"".join(lines))
        ticks = min(5, line - 2)
        stored = (ticks, int(line > 7), int(line > 8), int(line > 8))
        self.set_aside(path, f"line {line} is damaged or was not written by tradebot", "r1", stored)

    def test_after_a_kill_between_storing_and_setting_aside(self, path: Path) -> None:
        lines = spill(path, full_batch(1, 5)).read_bytes().splitlines(keepends=True)
        damaged = b"".join([*lines[:4], b"null\n", *lines[5:]])
        for _ in range(2):
            spill_path(path).write_bytes(damaged)
            found = adopted(path)
            assert found is not None and found.orphan is not None
        assert found is not None and (found.events, found.already_stored) == (0, 3)
        assert counts(path) == (3, 0, 0, 0)

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"my notes\nare here\n", "line 1 is damaged or was not written by tradebot"),
            (b"my notes, without an end", "line 1 .* is not a header"),
            (b"\xff\xfe\n", "line 1 is damaged or was not written by tradebot"),
            (b'["spill",1,"r1",0,0,0]\n', "line 1 is damaged or was not written by tradebot"),
            (b'["spill",1,"r1",0,0,0,"x"]\n', "line 1 is damaged or was not written by tradebot"),
            (b'["spill",5,"r1",0,0,0,0]\n["t"]\n', "line 1 .*format 5 is not supported; this version reads up to 4"),
        ],
    )
    def test_a_file_of_another_kind(self, path: Path, content: bytes, reason: str) -> None:
        spill_path(path).write_bytes(content)
        self.set_aside(path, reason, "unknown")

    @pytest.mark.parametrize(
        ("rest", "line"),
        [
            (b"[]\n", 2),
            (b'["x",1]\n', 2),
            (b'["t","A",1.0]\n', 2),
            (b'["t","A",-1.0,1.0,1,null,null]\n', 2),
            (b'["o",1]\n', 2),
            (b'["o",1,[1]]\n', 2),
            (
                b'["o","a-O","a-S","A","BUY",1.0,1.0,"REJECTED","RISK_CAP",1,1,[],["a limit",1.0]]\n',
                2,
            ),
            (b"null\n", 2),
            (b"x" * 17_000_000, 2),
        ],
    )
    def test_a_first_line_that_is_damaged(self, path: Path, rest: bytes, line: int) -> None:
        spill_path(path).write_bytes(b'["spill",1,"r1",0,0,0,0]\n' + rest)
        self.set_aside(path, f"line {line} is damaged or was not written by tradebot", "r1")

    def test_an_end_mark_of_another_number(self, path: Path) -> None:
        """Lines are missing: what is there is stored, and the file is kept."""
        spill_path(path).write_bytes(b'["spill",1,"r1",0,0,0,0]\n["t","A",1.0,1.0,1,null,null]\n["end",7]\n')
        self.set_aside(path, "line 3 is damaged or was not written by tradebot", "r1", (1, 0, 0, 0))

    @given(content=st.binary(max_size=200), header=st.booleans())
    @hypothesis_settings(max_examples=30)
    def test_any_bytes_are_adopted_or_set_aside(self, content: bytes, header: bool) -> None:
        start = b'["spill",1,"r9",0,0,0,0]\n' if header else b""
        with TemporaryDirectory() as place, memory_run() as (db, _):
            file = Path(place, "x.spill")
            file.write_bytes(start + content)
            found = adopt(db, file)
            assert not file.exists()
            if found is None:
                assert not header and b"\n" not in content.partition(b"\0")[0]
            else:
                assert found.orphan is not None and found.orphan.path.read_bytes() == start + content

    @pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("x.db")])
    def test_something_else_in_its_place(self, path: Path, make: Callable[[Path], Any]) -> None:
        """A directory, a fifo or a link is moved away, neither followed nor waited for."""
        make(spill_path(path))
        found = adopted(path)
        assert found is not None and found.orphan is not None
        assert os.path.lexists(found.orphan.path) and not os.path.lexists(spill_path(path))
        assert counts(path) == (0, 0, 0, 0)


class TestFailures:
    """A disk that fails while a spill is adopted: the file stays, and the next attempt completes it."""

    @pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.EROFS])
    def test_passing_errors_are_no_misuse(self, path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        """Retried, then 13; never 12."""
        spill(path, full_batch(1, 5))
        content = spill_path(path).read_bytes()

        def fails(*_arguments: object) -> bytes:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(os, "pread", fails)
            with pytest.raises(StorageUnavailable, match=r"spill file .*x\.db\.spill: ") as failure:
                adopted(path)
        assert failure.value.passing
        assert spill_path(path).read_bytes() == content
        assert adopted(path) == Adopted("r1", 7, 0, whole=True)

    def test_a_file_that_may_not_be_read(self, path: Path) -> None:
        spill(path, full_batch(1, 5))
        spill_path(path).chmod(0)
        spill_path(path).parent.chmod(0o777)
        with closing(connect(path)) as db, unprivileged():
            if os.access(spill_path(path), os.R_OK):
                pytest.skip("file permissions hold nobody back here")
            with pytest.raises(ConfigError, match=r"spill file .*cannot be stored in the database: Permission denied"):
                adopt(db, spill_path(path))

    def test_memory_does_not_grow_with_the_file(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A spill may have 256 MB. It is stored in blocks, each whole, in order."""
        blocks: list[int] = []

        def spy(db: Any, no: int, batch: WriteBatch, after: StoredCounts) -> None:
            blocks.append(batch.events)
            insert_batch(db, no, batch, after)

        monkeypatch.setattr("tradebot.store.adoption.insert_batch", spy)
        spill(path, *[full_batch(1 + 1000 * n, 1000) for n in range(20)])
        assert adopted(path) == Adopted("r1", 28_000, 0, whole=True)
        assert max(blocks) <= MAX_BATCH_EVENTS and len(blocks) == 4
        assert_counters(path)


@given(data=st.data(), ticks=st.integers(0, 8), decided=decided_st)
def test_every_prefix_of_a_spilled_batch_is_causal(data: st.DataObject, ticks: int, decided: list[StoredEvent]) -> None:
    """Wherever the file is cut, no notice stands before its ticks, no order before its signal."""
    before = data.draw(st.integers(0, 5))
    places = sorted(data.draw(st.lists(st.integers(before, before + ticks), max_size=4)))
    notices: list[StoredEvent] = [Notice("GAP", 1, "", "A", 1, ticks_before=place) for place in places]
    made = [tick(number) for number in range(ticks)]
    batch = WriteBatch()
    for event in (*notices, *made, *decided):
        batch.add_event(event)
    events = in_causal_order(batch, before)
    assert [e for e in events if isinstance(e, Tick)] == made
    assert [e for e in events if isinstance(e, Notice)] == notices
    assert [e for e in events if isinstance(e, Signal | Order)] == [*batch.signals, *batch.orders]
    seen = before
    for event in events:
        seen += isinstance(event, Tick)
        if isinstance(event, Notice):
            assert event.ticks_before == seen
        elif isinstance(event, Signal | Order):
            assert seen == before + ticks, "decisions come after all ticks of their batch"


@given(ticks=st.integers(0, 12), places=st.lists(st.integers(0, 12), max_size=4))
def test_outcomes_are_spilled_whole_and_in_their_place(ticks: int, places: list[int]) -> None:
    """Plain ticks and notices between them stay where they were; what an outcome holds is in its line alone."""
    notices = [Notice("GAP", 1, "", "A", 1, ticks_before=place) for place in sorted(places) if place <= ticks]
    arrived: list[StoredEvent] = []
    for number, event in enumerate(outcomes(1, ticks), 1):
        arrived += [notice for notice in notices if notice.ticks_before == number - 1]
        arrived.append(event)
    arrived += [notice for notice in notices if notice.ticks_before == ticks]
    batch = batch_of(*arrived)
    assert in_causal_order(batch, 0) == arrived
    assert batch.events == len(arrived)
    again = spilled_batch(arrived)
    parts = ("ticks", "signals", "orders", "fills", "order_events", "notices", "outcomes")
    assert [getattr(again, name) for name in parts] == [getattr(batch, name) for name in parts]
    assert in_causal_order(again, 0) == arrived


def test_events_are_counted(path: Path) -> None:
    made = Spill(spill_path(path), 10)
    assert (made.used, made.events) == (False, 0)
    made.begin("r1", StoredCounts())
    made.append([tick(1), tick(2)])
    made.append([order(1)])
    assert (made.used, made.events) == (True, 3)
    made.finish()


def test_the_types_of_event_are_the_ones_that_are_spilled() -> None:
    """A new type of event needs its line here."""
    assert set(StoredEvent.__args__) == {Tick, Notice, Signal, Order, TickOutcome}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, SpillProbe(None)),
        (b"", SpillProbe(None)),
        (bytes(4096), SpillProbe(None)),
        (b'["spill",4,"r",0,0,0,0,0]\n', SpillProbe(26)),
        (b"not ours", SpillProbe(8, foreign=True)),
        (b'["other",', SpillProbe(9, foreign=True)),
    ],
)
def test_a_probe_tells_waiting_events_from_a_reserve_and_from_foreign_files(
    tmp_path: Path, content: bytes | None, found: SpillProbe
) -> None:
    path = tmp_path / "x.spill"
    if content is not None:
        path.write_bytes(content)
    assert probe_spill(path) == found


def test_a_probe_does_not_wait_for_a_named_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.spill")
    assert probe_spill(tmp_path / "x.spill") == SpillProbe(None)
