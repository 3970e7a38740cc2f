"""What the engine and its stages see of the storage, whatever stores it: a run begins, batches are written, it ends.

`tradebot.store.session.SqliteStore` is the implementation; the simulator puts faults in front of it. Both pass
`tests/contract/test_store_contract.py`. The spill file and the other files beside the database are not part of this.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Protocol, TypeVar

from tradebot.core.events import Tick
from tradebot.store.adoption import Orphan
from tradebot.store.batch import StoredCounts, WriteBatch
from tradebot.store.results import StoredResults
from tradebot.store.runs import RunEnd, RunInfo, RunRecord
from tradebot.store.saved_state import SavedState, StoredItem
from tradebot.store.takeover import Carried, Memory

M = TypeVar("M", bound="Memory | None")


class BatchWriter(Protocol):
    """Writes the events of one run. One thread writes and closes; `sync_wal` and the properties: any thread."""

    @property
    def counts(self) -> StoredCounts:
        """Rows of this run known to be stored."""
        ...

    @property
    def wal_bytes(self) -> int:
        """Size of the file that commits are appended to before they reach the database."""
        ...

    def write(self, batch: WriteBatch, patience_ms: int) -> None:
        """Store the whole batch in one transaction, or nothing of it.

        Blocks; where the storage is locked, at most `patience_ms`. Raises StorageUnavailable: then the caller writes
        the same batch again, and it is stored once, also when the failed attempt did store it.
        """
        ...

    def sync_wal(self) -> None:
        """Have on disk what was committed. Takes no lock of the storage. Blocks as the disk does. Raises OSError."""
        ...

    def close(self) -> None:
        """Give the connection back. Idempotent. Raises StorageUnavailable."""
        ...


class Store(Protocol):
    """The storage of one engine, which no other engine may write until `close`. All methods: the main thread.

    What can pass (locked, disk full) is tried again, for as long as the configuration says. After that the methods
    raise OverloadError; ConfigError when the storage is damaged or not tradebot's, Cancelled on a stop signal
    meanwhile.
    """

    @property
    def orphan(self) -> Orphan | None:
        """The spill file of an earlier run that opening could not store, or not to its end, and has set aside."""
        ...

    def begin_run(self, info: RunInfo, started_ms: int, resume: bool) -> RunRecord:
        """Enter a new run; with `resume`, find a replay again that is stored in part or whole.

        `started_ms` is the start of this process (Unix ms). Raises ConfigError when the run is stored already and is
        not or cannot be resumed.
        """
        ...

    def read_restart_state(self, record: RunRecord, lookback: int, make_memory: Callable[[], M]) -> tuple[Carried, M]:
        """What a new run of a push feed continues from: of each symbol its position, last signal and last prices.

        `lookback` is how many of the last prices are wanted. `make_memory` makes an empty memory of the feed, or None
        for a feed without one; called again when reading is tried again, and the one that was filled is returned.
        """
        ...

    def read_saved_state(self, record: RunRecord) -> SavedState | None:
        """The newest state that earlier runs of the same push feed stored with a checkpoint; None without one."""
        ...

    def stored_since(self, record: RunRecord, saved: SavedState | None) -> Generator[StoredItem, None, None]:
        """What earlier runs of that feed stored after the state (None: all): ticks, and notices of origin INPUT.

        In the order in which they came; memory does not grow with their number. On any one thread, from the first
        `next` to `close`. Raises ConfigError, OverloadError while they are read.
        """
        ...

    def stored_ticks(self, record: RunRecord) -> Generator[Tick, None, None]:
        """The ticks that `record` counts, in their order. On any one thread, from the first `next` to `close`.

        Raises ConfigError, OverloadError while they are read.
        """
        ...

    def read_results(self, record: RunRecord) -> StoredResults:
        """The figures of a run that has ended. Reads all its rows."""
        ...

    def writer(self, record: RunRecord) -> BatchWriter:
        """A writer for the events of the run, which connects at its first write. There may be one at a time."""
        ...

    def finish_run(self, record: RunRecord, end: RunEnd, patience_s: float) -> None:
        """Record how the run ended; stop signals do not interrupt it.

        Tries again for `patience_s`; raises OverloadError whatever is wrong with the storage.
        """
        ...

    def close(self) -> None:
        """Let another engine in. After the writer is closed. Idempotent."""
        ...
