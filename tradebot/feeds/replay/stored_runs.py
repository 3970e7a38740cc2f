"""Runs of a database as the input of a replay: found and hashed first, then read in step with the replay."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from tradebot.core.cancellation import Cancellation, Cancelled
from tradebot.core.events import Notice, NoticeKind, Tick
from tradebot.core.ids import short_digest
from tradebot.execution.timing import TimingRefusals
from tradebot.feeds.replay.feed import DatabaseReplay
from tradebot.store.checks import check_readable
from tradebot.store.errors import DAMAGED, StorageUnavailable
from tradebot.store.reader import TickReader, open_reader, reopen_reader
from tradebot.store.replayed import (
    RecordedRefusals,
    ReplaySource,
    find_replay_source,
    read_all_ticks,
    read_notices,
    read_refusals,
)

_ENCODER: Final = msgspec.json.Encoder()
_HALTS: Final[frozenset[NoticeKind]] = frozenset({"HALT", "RESUME", "RESTART"})
"""The notices that change the results of every mode and strategy."""


class StoredRuns(Struct, frozen=True):
    """What a replay of stored runs will read: how many `notices` and `refusals`, and the `digest` of all of it."""

    path: Path
    origin: ReplaySource
    digest: str
    notices: int
    refusals: int

    def feed(self) -> DatabaseReplay:
        """The ticks and notices. Connections open with the first `read`, in the thread that reads."""
        notices = self._notices() if self.notices else None
        return DatabaseReplay(self._ticks(), self.origin.rows, notices)

    def repeated(self) -> TimingRefusals | None:
        """The refusals that the replay repeats, for the thread that decides on orders; None if it has none."""
        if not self.refusals:
            return None
        return RecordedRefusals(read_refusals(self.origin, lambda: reopen_reader(self.path)))

    def _ticks(self) -> Iterator[list[Tick]]:
        with reopen_reader(self.path) as reader:
            yield from read_all_ticks(reader.db, self.origin)

    def _notices(self) -> Iterator[tuple[int, Notice]]:
        with reopen_reader(self.path) as reader:
            yield from read_notices(reader.db, self.origin)


def find_stored_runs(path: Path, run_id: str | None, all_count: bool, cancel: Cancellation) -> StoredRuns:
    """The run `run_id` of the database at `path`, or its newest, with what it continued, all of it hashed.

    `all_count`: every notice can change the result (in PAPER, or with a strategy that hears them) and counts in the
    digest. Raises ConfigError, StorageUnavailable, Cancelled.
    """
    for attempt in (1, 2):
        try:
            with open_reader(path) as reader:
                return _read(path, reader, run_id, all_count, cancel)
        except StorageUnavailable as error:
            if error.code not in DAMAGED:
                raise
            check_readable(path)  # SQLite calls damaged what the disk cannot read
            if attempt == 2:
                raise
    raise AssertionError("the second attempt returns or raises")


def _read(path: Path, reader: TickReader, run_id: str | None, all_count: bool, cancel: Cancellation) -> StoredRuns:
    origin = find_replay_source(reader.db, run_id)
    ticks, others = hashlib.sha256(), hashlib.sha256()
    for chunk in read_all_ticks(reader.db, origin):
        _check_wanted(path, cancel)
        # What has no taker's side is hashed as before there was one: such replays keep their ids. No symbol holds
        # these bytes, since in a JSON text a backslash precedes a quotation mark.
        ticks.update(_ENCODER.encode_lines(chunk).replace(b',"taker":null', b""))
    notices = counted = refusals = 0
    for at, notice in read_notices(reader.db, origin):
        _check_wanted(path, cancel)
        notices += 1
        if all_count or notice.kind in _HALTS:
            counted += 1
            fields = at, notice.kind, notice.ts, notice.detail, notice.symbol, notice.missing
            others.update(_ENCODER.encode(fields))
    for refusal in read_refusals(origin, lambda: nullcontext(reader)):
        _check_wanted(path, cancel)
        refusals += 1
        others.update(_ENCODER.encode(refusal))
    digest = ticks.hexdigest()
    if counted or refusals:
        # Only then: where nothing but ticks can change the result, replays keep the ids that they had before anything
        # else was read.
        digest = short_digest("ticks and others", digest, others.hexdigest())
    return StoredRuns(path, origin, digest, notices, refusals)


def _check_wanted(path: Path, cancel: Cancellation) -> None:
    if cancel.is_requested():
        raise Cancelled(f"{path}: reading was stopped")
