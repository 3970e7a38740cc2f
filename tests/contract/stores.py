"""How the store's contract suite is driven: one body, the real store once and the simulator's store over some seeds."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from sim import SimRuntime
from sim.world.disk import Disk
from sim.world.faults import FaultyStore, FaultyWriter, StorageFaults, WriterWorld
from tests.unit.store_helpers import Logged
from tradebot.core.runtime import RealRuntime
from tradebot.store.errors import StorageUnavailable
from tradebot.store.protocol import BatchWriter, Store
from tradebot.store.session import SqliteStore
from tradebot.store.writer import SqliteWriter

SEEDS = range(2)
FAILURE = StorageUnavailable("SQLITE_IOERR", "disk I/O error", passing=True)


class RealStores:
    """Real stores of one database, and what can happen to them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def open(self) -> Iterator[Store]:
        """A store that is opened, and closed at the end."""
        runtime = RealRuntime()
        with (
            closing(Logged().log) as log,
            closing(SqliteStore(self.path, "NORMAL", 0.0, runtime, log)) as it,
        ):
            yield it

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Another program writes meanwhile."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield

    @contextmanager
    def unconfirmed(self, _writer: BatchWriter) -> Iterator[None]:
        """The next commit of the writer is done, and reported as failed."""
        transact = SqliteWriter._transact

        def late(self: SqliteWriter, *arguments: Any) -> None:
            transact(self, *arguments)
            raise FAILURE

        with mock.patch.object(SqliteWriter, "_transact", late):
            yield


class SimulatedStores:
    """The simulator's stores of one database, and what its faults do to them."""

    def __init__(self, path: Path, runtime: SimRuntime) -> None:
        self.path = path
        self._runtime = runtime
        self._faults = StorageFaults()
        self._writers: list[FaultyWriter] = []

    @contextmanager
    def open(self) -> Iterator[Store]:
        """As RealStores."""
        world = WriterWorld(self._faults, self._runtime, Disk(self.path), self._writers.append)
        with (
            closing(Logged().log) as log,
            closing(FaultyStore(self.path, "NORMAL", 0.0, self._runtime, log, world)) as it,
        ):
            yield it

    @contextmanager
    def locked(self) -> Iterator[None]:
        """As RealStores."""
        self._faults.busy_until_s = float("inf")
        yield
        self._faults.busy_until_s = 0.0

    @contextmanager
    def unconfirmed(self, writer: BatchWriter) -> Iterator[None]:
        """As RealStores."""
        assert writer is self._writers[-1]
        self._faults.fail_after_commit = (self._writers[-1]._commits + 1,)
        yield


Stores = RealStores | SimulatedStores
StoreBody = Callable[[Stores], None]
StoreDrive = Callable[[StoreBody], None]


def drive_real(body: StoreBody) -> None:
    """Run the body on real stores."""
    with TemporaryDirectory() as place:
        body(RealStores(Path(place, "x.db")))


def drive_simulated(body: StoreBody) -> None:
    """Run the body on the simulator's stores, once a seed."""
    for seed in SEEDS:
        runtime = SimRuntime(seed)
        with ExitStack() as stack:
            stores = SimulatedStores(Path(stack.enter_context(TemporaryDirectory()), "x.db"), runtime)
            try:
                runtime.run(lambda stores=stores: body(stores))  # type: ignore[misc]  # mypy infers no lambda's default
            except BaseException as error:
                error.add_note(f"SimRuntime({seed})\n{runtime.trace.tail(30)}")
                raise
