"""What a store and its writer promise (`tradebot.store.protocol`): the real one, and the simulator's with faults."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from decimal import Decimal

import pytest
from msgspec.structs import replace

from tests.contract.stores import StoreDrive, Stores, drive_real, drive_simulated
from tests.unit.outcomes import outcome_batch
from tests.unit.store_helpers import batch_of, full_batch, order, run_info, signal, tick
from tradebot.core.errors import ConfigError, OverloadError
from tradebot.core.events import SELL, Checkpoint, LimitBreach, Notice, Order, Tick, TickChunk
from tradebot.core.ledger import Ledger
from tradebot.feeds.memory import FeedMemory
from tradebot.feeds.price_band import PriceBand
from tradebot.feeds.sequence_tracker import SequenceGuard
from tradebot.store.batch import StoredCounts, WriteBatch
from tradebot.store.errors import StorageUnavailable
from tradebot.store.protocol import BatchWriter, Store
from tradebot.store.runs import RunEnd, RunRecord
from tradebot.store.saved_state import SavedState, StoredItem
from tradebot.store.spill import spill_path

STARTED_MS = 1_700_000_000_000


@pytest.fixture(params=[drive_real, drive_simulated], ids=["real", "sim"])
def drive(request: pytest.FixtureRequest) -> StoreDrive:
    """Runs a body on the real store, or on the simulator's."""
    driver: StoreDrive = request.param
    return driver


@contextmanager
def writing(store: Store, record: RunRecord) -> Iterator[BatchWriter]:
    with closing(store.writer(record)) as writer:
        yield writer


def write(store: Store, record: RunRecord, *batches: WriteBatch) -> None:
    with writing(store, record) as writer:
        for batch in batches:
            writer.write(batch, patience_ms=100)


def begin(store: Store, run_id: str = "r1", *, push: bool = False, source: str = "synthetic:TEST/USD") -> RunRecord:
    info = run_info(run_id, push=push, source=source) if push else run_info(run_id)
    return store.begin_run(info, STARTED_MS, resume=False)


def stored_ticks(store: Store, record: RunRecord) -> list[Tick]:
    with closing(store.stored_ticks(record)) as ticks:
        return list(ticks)


def refused(number: int) -> Order:
    breach = LimitBreach("risk_caps.max_exposure_usd", 11.0, 10.0)
    return replace(order(number, fills=0), reason="RISK_CAP", breach=breach)


class TestRuns:
    def test_a_new_run_has_nothing_stored(self, drive: StoreDrive) -> None:
        def body(stores: Stores) -> None:
            with stores.open() as store:
                record = begin(store)
                assert (record.run_id, record.counts, record.complete, record.is_new) == (
                    "r1",
                    StoredCounts(),
                    False,
                    True,
                )
                assert stored_ticks(store, record) == []
                assert begin(store, "r2").no != record.no
                assert store.orphan is None

        drive(body)

    def test_a_partial_replay_is_found_again_with_resume_only(self, drive: StoreDrive) -> None:
        def body(stores: Stores) -> None:
            with stores.open() as store:
                first = begin(store)
                write(store, first, full_batch(1, 10))
            with stores.open() as store:
                with pytest.raises(ConfigError, match="already holds this replay, in part"):
                    begin(store)
                again = store.begin_run(run_info("r1"), STARTED_MS + 1, resume=True)
                assert (again.no, again.is_new, again.complete) == (first.no, False, False)
                assert again.counts == StoredCounts(ticks=10, signals=2, orders=2, trades=2)
                assert stored_ticks(store, again) == [tick(number) for number in range(1, 11)]
                write(store, again, full_batch(11, 10))
                longer = store.begin_run(run_info("r1"), STARTED_MS + 2, resume=True)
                assert longer.counts == StoredCounts(ticks=20, signals=4, orders=4, trades=4)

        drive(body)

    def test_a_push_run_is_never_resumed(self, drive: StoreDrive) -> None:
        def body(stores: Stores) -> None:
            with stores.open() as store:
                record = begin(store, push=True)
                assert begin(store, push=True) == record, "the same start, once more"
                write(store, record, full_batch(1, 1))
                with pytest.raises(ConfigError, match="run id r1 is already in database"):
                    store.begin_run(run_info("r1", push=True), STARTED_MS, resume=True)

        drive(body)

    def test_the_end_of_a_run_is_what_is_read_back(self, drive: StoreDrive) -> None:
        def body(stores: Stores) -> None:
            ledger = Ledger(received=10, accepted=10, stored=10)
            with stores.open() as store:
                record = begin(store)
                write(store, record, full_batch(1, 10), batch_of(signal(11), refused(11)))
                store.finish_run(record, RunEnd(STARTED_MS + 9, 0, True, ledger.as_dict()), patience_s=0.0)
            with stores.open() as store:
                again = store.begin_run(run_info("r1"), STARTED_MS + 10, resume=True)
                assert again.complete
                found = store.read_results(again)
                assert (found.ledger, found.signals, found.fills, found.gaps) == (ledger, 3, 2, 0)
                assert found.orders_by_status == {"FILLED": 2, "REJECTED": 1}
                assert found.refusals_by_reason == {"RISK_CAP": 1}
                assert [(view.symbol, view.net_qty) for view in found.positions.views()] == [("TEST/USD", 0.0)]

        drive(body)

    def test_an_end_that_cannot_be_recorded_is_an_overload(self, drive: StoreDrive) -> None:
        def body(stores: Stores) -> None:
            with stores.open() as store:
                record = begin(store)
                stores.path.rename(stores.path.with_name("moved.db"))
                with pytest.raises(OverloadError):
                    store.finish_run(record, RunEnd(STARTED_MS + 9, 0, True, {}), patience_s=0.0)

        drive(body)

    def test_one_engine_at_a_time(self, drive: StoreDrive) -> None:
        def body(stores: Stores) -> None:
            with stores.open() as store:
                with pytest.raises(ConfigError), stores.open():
                    pass
                store.close()
                with stores.open() as other:
                    begin(other)

        drive(body)

    def test_a_spill_file_that_cannot_be_stored_is_named(self, drive: StoreDrive) -> None:
        def body(stores: Stores) -> None:
            spill_path(stores.path).write_bytes(b"no spill file\n")
            with stores.open() as store:
                assert store.orphan is not None and store.orphan.path.exists()
                begin(store)

        drive(body)


class TestWriter:
    @pytest.mark.parametrize("sizes", [[12], [1] * 12, [5, 7], [7, 3, 2]])
    def test_how_events_are_cut_into_batches_changes_nothing(self, drive: StoreDrive, sizes: Sequence[int]) -> None:
        def body(stores: Stores) -> None:
            with stores.open() as store:
                record = begin(store)
                with writing(store, record) as writer:
                    start = 1
                    for size in sizes:
                        writer.write(full_batch(start, size), patience_ms=100)
                        start += size
                        assert writer.counts.ticks == start - 1
                again = store.begin_run(run_info("r1"), STARTED_MS, resume=True)
                assert again.counts == writer.counts == StoredCounts(ticks=12, signals=2, orders=2, trades=2)
                assert stored_ticks(store, again) == [tick(number) for number in range(1, 13)]

        drive(body)

    def test_a_batch_that_failed_is_stored_once_when_it_comes_again(self, drive: StoreDrive) -> None:
        def body(stores: Stores) -> None:
            with stores.open() as store:
                record = begin(store)
                with writing(store, record) as writer:
                    writer.write(full_batch(1, 5), patience_ms=100)
                    with stores.locked(), pytest.raises(StorageUnavailable) as failure:
                        writer.write(full_batch(6, 5), patience_ms=1)
                    assert failure.value.passing and writer.counts.ticks == 5
                    writer.write(full_batch(6, 5), patience_ms=100)
                    assert writer.counts == StoredCounts(ticks=10, signals=2, orders=2, trades=2)
                again = store.begin_run(run_info("r1"), STARTED_MS, resume=True)
                assert again.counts == writer.counts
                assert len(stored_ticks(store, again)) == 10

        drive(body)

    @pytest.mark.parametrize("checkpoint", [False, True])
    def test_a_batch_whose_commit_was_not_confirmed_is_stored_once(self, drive: StoreDrive, checkpoint: bool) -> None:
        def body(stores: Stores) -> None:
            with stores.open() as store:
                record = begin(store, push=True)
                store.read_restart_state(record, 3, lambda: None)
                batch = full_batch(1, 5)
                if checkpoint:
                    batch.add_event(Checkpoint(5, prices=3))
                with writing(store, record) as writer:
                    with stores.unconfirmed(writer), pytest.raises(StorageUnavailable):
                        writer.write(batch, patience_ms=100)
                    assert writer.counts == StoredCounts()
                    writer.write(batch, patience_ms=100)
                    writer.write(full_batch(6, 5), patience_ms=100)
                    assert writer.counts == StoredCounts(ticks=10, signals=2, orders=2, trades=2)
                    writer.sync_wal()
                    assert writer.wal_bytes >= 0
                following = begin(store, "r2", push=True)
                carried, _ = store.read_restart_state(following, 3, lambda: None)
                assert (carried.ticks, carried.symbols["TEST/USD"].prices) == (10, (102.0, 102.25, 102.5))

        drive(body)

    def test_closing_twice_is_closing(self, drive: StoreDrive) -> None:
        def body(stores: Stores) -> None:
            with stores.open() as store:
                writer = store.writer(begin(store))
                writer.close()
                writer.write(full_batch(1, 1), patience_ms=100)
                writer.close()
                writer.close()
                store.close()

        drive(body)

    @pytest.mark.parametrize("sizes", [[13], [1] * 13, [5, 8], [7, 3, 3]])
    def test_outcomes_are_stored_with_their_ticks(self, drive: StoreDrive, sizes: Sequence[int]) -> None:
        """However they are cut; one that failed, or was stored and reported as failed, is stored once."""

        def body(stores: Stores) -> None:
            whole = StoredCounts().plus(outcome_batch(1, 13))
            assert (whole.order_events, whole.trades) == (10, 4)
            with stores.open() as store:
                record = begin(store)
                with writing(store, record) as writer:
                    start = 1
                    for size in sizes:
                        with stores.locked(), pytest.raises(StorageUnavailable):
                            writer.write(outcome_batch(start, size), patience_ms=1)
                        writer.write(outcome_batch(start, size), patience_ms=100)
                        start += size
                    assert writer.counts == whole
                    with stores.unconfirmed(writer), pytest.raises(StorageUnavailable):
                        writer.write(outcome_batch(14, 5), patience_ms=100)
                    writer.write(outcome_batch(14, 5), patience_ms=100)
                    whole = whole.plus(outcome_batch(14, 5))
                    assert writer.counts == whole
                again = store.begin_run(run_info("r1"), STARTED_MS, resume=True)
                assert again.counts == whole
                assert stored_ticks(store, again) == [tick(number) for number in range(1, 19)]
                store.finish_run(again, RunEnd(STARTED_MS, 0, True, {}), patience_s=0.0)
                found = store.read_results(again)
                assert found.orders_by_status == {"FILLED": 3, "REJECTED": 3}

        drive(body)


class TestSavedState:
    def test_a_feed_gives_back_its_newest_state_and_what_followed(self, drive: StoreDrive) -> None:
        """Stored with the ticks before it, also when the commit is not confirmed; a replay has none."""

        def body(stores: Stores) -> None:
            with stores.open() as store:
                replay = begin(store, "r1")
                assert store.read_saved_state(replay) is None
                first = begin(store, "l1", push=True)
                store.read_restart_state(first, 3, lambda: None)
                assert store.read_saved_state(first) is None
                batch = outcome_batch(1, 7, "l1")
                batch.add_event(Checkpoint(6, prices=3, state=b"after six"))
                halt = Notice("HALT", STARTED_MS, "by hand", ticks_before=7)
                batch.add_event(halt)
                with writing(store, first) as writer:
                    with stores.unconfirmed(writer), pytest.raises(StorageUnavailable):
                        writer.write(batch, patience_ms=100)
                    writer.write(batch, patience_ms=100)
            with stores.open() as store:
                second = begin(store, "l2", push=True)
                store.read_restart_state(second, 3, lambda: None)
                saved = store.read_saved_state(second)
                assert saved == SavedState(first.no, "l1", 6, 0, b"after six")
                with closing(store.stored_since(second, saved)) as items:
                    assert list(items) == [StoredItem("l1", 7, TickChunk([tick(7)])), StoredItem("l1", 8, halt)]
                with closing(store.stored_since(second, None)) as items:
                    ticks = TickChunk([tick(number) for number in range(1, 8)])
                    assert [item._replace(decisions=()) for item in items] == [
                        StoredItem("l1", 1, ticks), StoredItem("l1", 8, halt),
                    ]  # fmt: skip
                assert [view.net_qty for view in store.read_restart_state(second, 3, lambda: None)[0].positions.views()]

        drive(body)


class TestRestartState:
    def test_a_feed_continues_where_its_runs_ended(self, drive: StoreDrive) -> None:
        """Whether the last run recorded its end or not, and not with what another feed stored."""

        def body(stores: Stores) -> None:
            with stores.open() as store:
                first = begin(store, "l1", push=True)
                carried, memory = store.read_restart_state(first, 3, lambda: None)
                assert (carried.runs, carried.ticks, carried.symbols, memory) == (0, 0, {}, None)
                write(store, first, full_batch(1, 10, run_id="l1"))
                store.finish_run(first, RunEnd(STARTED_MS, 0, False, {}), patience_s=0.0)
                other = begin(store, "l2", push=True, source="synthetic:OTHER")
                write(store, other, batch_of(tick(1, "OTHER")))
                second = begin(store, "l3", push=True)
                assert store.read_restart_state(second, 3, lambda: None)[0].ticks == 10
                write(store, second, batch_of(tick(11), signal(1, "l3", side=SELL), order(1, "l3", side=SELL)))
            with stores.open() as store:
                third = begin(store, "l4", push=True)
                carried, _ = store.read_restart_state(third, 3, lambda: None)
                assert (carried.runs, carried.ticks, list(carried.symbols)) == (2, 11, ["TEST/USD"])
                state = carried.symbols["TEST/USD"]
                assert (state.prices, state.last_side, state.since_signal) == ((102.25, 102.5, 102.75), SELL, 0)
                assert state.position is not None and state.position.net == Decimal("-0.1")
                assert [view.net_qty for view in carried.positions.views()] == [-0.1]

        drive(body)

    def test_the_memory_of_the_feed_is_filled(self, drive: StoreDrive) -> None:
        def memory() -> FeedMemory:
            return FeedMemory(SequenceGuard(10), PriceBand(10.0), (), 10)

        def body(stores: Stores) -> None:
            numbered = [Tick("A", 100.0, 1.0, STARTED_MS + number, seq=number) for number in range(1, 6)]
            with stores.open() as store:
                first = begin(store, "l1", push=True)
                _, empty = store.read_restart_state(first, 3, memory)
                assert empty.guard.state("A").highest is None
                write(store, first, batch_of(*numbered))
                second = begin(store, "l2", push=True)
                _, filled = store.read_restart_state(second, 3, memory)
                assert filled is not empty and filled.guard.state("A").highest == 5

        drive(body)
