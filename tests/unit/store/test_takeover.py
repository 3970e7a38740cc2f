"""What a restarted push feed takes over: from checkpoints and what was stored after them, as if it had read all."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from msgspec.structs import replace
from peewee import SqliteDatabase

from tests.unit.store_helpers import batch_of, full_batch, new_database, order, rows, signal, storage_of, tick
from tradebot.core.errors import ConfigError
from tradebot.core.events import BUY, SELL, Checkpoint, Event, Fill, Order, Side, Signal, SymbolMemory, Tick
from tradebot.feeds.memory import FeedMemory, chosen
from tradebot.feeds.price_band import PriceBand
from tradebot.feeds.sequence_tracker import SequenceGuard
from tradebot.portfolio.positions import Positions
from tradebot.store import joining
from tradebot.store.batch import WriteBatch
from tradebot.store.database import connect, migrate
from tradebot.store.restart_state import News, SymbolState, advanced, store_checkpoint
from tradebot.store.row_counts import row_counts
from tradebot.store.runs import RunInfo, RunRecord, begin_run
from tradebot.store.takeover import Carried, take_over
from tradebot.store.writer import insert_batch

FEED: Final = "synthetic:TEST/USD"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


def info(run_id: str, feed: str = FEED, push: bool = True, mode: str = "SHADOW", source: str = "") -> RunInfo:
    return RunInfo(run_id, "0.1", mode, "synthetic" if push else "replay", source or feed, "c0ffee", push, feed)


def begin(path: Path, run_id: str, feed: str = FEED, push: bool = True, mode: str = "SHADOW") -> RunRecord:
    with closing(new_database(path)) as db:
        return begin_run(db, info(run_id, feed, push, mode), 1_700_000_000_000, resume=False)


def push_run(
    path: Path, run_id: str, *batches: WriteBatch, feed: str = FEED, push: bool = True, mode: str = "SHADOW"
) -> None:
    """A run that stored these batches, and ended as a kill would end it."""
    with storage_of(path, begin(path, run_id, feed, push, mode)) as storage:
        for batch in batches:
            storage.write(batch)


def carried(path: Path, lookback: int = 3, feed: str = FEED, memory: FeedMemory | None = None) -> Carried:
    """What the next start takes over."""
    number = rows(path, "SELECT COUNT(*) FROM runs")[0][0] if path.exists() else 0
    record = begin(path, f"next{number}", feed)
    with closing(connect(path)) as db:
        return take_over(db, record.no, lookback, memory)


def prices(*numbers: int) -> tuple[float, ...]:
    return tuple(tick(n).price for n in numbers)


def checkpoint(ticks: int, *memories: SymbolMemory, kept: int = 3) -> Checkpoint:
    return Checkpoint(ticks, memories, kept)


class TestAdvanced:
    """The pure step: a state and what came after it."""

    STATE = SymbolState("A", 7, (1.0, 2.0), BUY, 4)

    def test_prices_are_the_newest_and_ticks_count_on(self) -> None:
        after = advanced(self.STATE, News(3, 12, (3.0, 4.0), None, 0), 3)
        assert after == SymbolState("A", 12, (2.0, 3.0, 4.0), BUY, 7)

    def test_a_signal_begins_the_count_again(self) -> None:
        assert advanced(self.STATE, News(3, 12, (3.0,), SELL, 1), 1) == SymbolState("A", 12, (3.0,), SELL, 1)


class TestTakeOver:
    def test_the_first_run_takes_nothing_over(self, path: Path) -> None:
        assert carried(path) == Carried(0, 0, {})

    @pytest.mark.parametrize("covered", range(13))
    def test_prices_side_and_ticks_since_the_signal(self, path: Path, covered: int) -> None:
        """Windows continue from the newest prices, oldest first, wherever the checkpoint was."""
        batch = full_batch(1, 12, every=5, run_id="l1")
        if covered:
            batch.add_event(checkpoint(covered))
        push_run(path, "l1", batch)
        found = carried(path)
        assert (found.runs, found.ticks) == (1, 12)
        state = found.symbols["TEST/USD"]
        assert (state.prices, state.last_side, state.since_signal) == (prices(10, 11, 12), SELL, 2)
        assert rows(path, "SELECT run, run_ticks, ticks FROM feeds") == [(2, 0, 12)]

    def test_a_signal_of_the_last_tick(self, path: Path) -> None:
        push_run(path, "l1", full_batch(1, 5, run_id="l1"))
        assert carried(path).symbols["TEST/USD"].since_signal == 0

    def test_no_signal_yet(self, path: Path) -> None:
        push_run(path, "l1", full_batch(1, 4, run_id="l1"))
        state = carried(path, lookback=10).symbols["TEST/USD"]
        assert (state.prices, state.last_side, state.since_signal) == (prices(1, 2, 3, 4), None, 4)

    def test_over_several_runs(self, path: Path) -> None:
        """All of them, for each continued the one before it; replays, other feeds and other modes are not ours."""
        push_run(path, "l1", full_batch(1, 5, run_id="l1"))
        push_run(path, "r1", full_batch(501, 7, every=1), push=False)
        push_run(path, "l2", full_batch(1, 2, run_id="l2"))
        push_run(path, "x1", full_batch(801, 7, every=1, run_id="x1"), feed="synthetic:OTHER")
        push_run(path, "x2", full_batch(901, 7, every=1, run_id="x2"), mode="PAPER")
        push_run(path, "l3", full_batch(1, 1, run_id="l3"))
        found = carried(path)
        assert (found.runs, found.ticks) == (3, 8)
        state = found.symbols["TEST/USD"]
        assert (state.prices, state.last_side, state.since_signal) == (prices(1, 2, 1), BUY, 3)
        assert carried(path, feed="synthetic:ELSE") == Carried(0, 0, {})

    def test_several_symbols_the_one_traded_last_first(self, path: Path) -> None:
        events = tick(1, "A"), tick(2, "B"), tick(3, "A"), signal(3, "l1", "A", SELL), tick(4, "B"), tick(5, "A")
        push_run(path, "l1", batch_of(*events))
        found = carried(path, lookback=2).symbols
        assert [(s.symbol, s.prices, s.last_side, s.since_signal) for s in found.values()] == [
            ("A", prices(3, 5), SELL, 1),
            ("B", prices(2, 4), None, 2),
        ]

    def test_after_a_kill_that_lost_the_last_signal(self, path: Path) -> None:
        """Ticks are stored before what was decided from them: the signal before counts, and all ticks since."""
        push_run(path, "l1", batch_of(*(tick(n) for n in range(1, 6)), signal(5, "l1", side=BUY), order(5, "l1")))
        push_run(path, "l2", batch_of(*(tick(n) for n in range(1, 8))))
        state = carried(path).symbols["TEST/USD"]
        assert (state.prices, state.last_side, state.since_signal) == (prices(5, 6, 7), BUY, 7)

    def test_a_quiet_symbol_is_known_however_much_another_one_traded(self, path: Path) -> None:
        """In the old way only the newest 200 000 ticks of the feed were looked at."""
        quiet = tick(1, "QUIET"), signal(1, "l1", "QUIET", SELL)
        push_run(path, "l1", batch_of(*quiet, *(tick(n) for n in range(2, 40)), checkpoint(39)))
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("DELETE FROM ticks")  # not read again
            db.execute("DELETE FROM signals")
        state = carried(path).symbols["QUIET"]
        assert (state.prices, state.last_side, state.since_signal) == (prices(1), SELL, 0)

    def test_a_run_id_with_dashes_beside_one_that_it_begins(self, path: Path) -> None:
        push_run(path, "my-own-id", full_batch(1, 6, run_id="my-own-id"))
        push_run(path, "my-own-id-2", full_batch(1, 6, run_id="my-own-id-2"), feed="synthetic:OTHER")
        found = carried(path)
        assert found.symbols["TEST/USD"].since_signal == 1
        assert found.symbols["TEST/USD"].position is not None
        assert found.symbols["TEST/USD"].position.net == Decimal("0.1")

    def test_a_longer_window_than_was_kept_is_filled_from_ticks_that_are_there(self, path: Path) -> None:
        push_run(path, "l1", full_batch(1, 12, run_id="l1"), batch_of(checkpoint(12, kept=2)))
        assert carried(path, lookback=2).symbols["TEST/USD"].prices == prices(11, 12)
        assert carried(path, lookback=5).symbols["TEST/USD"].prices == prices(8, 9, 10, 11, 12)

    def test_the_start_after_that_has_the_longer_window_too(self, path: Path) -> None:
        push_run(path, "l1", full_batch(1, 12, run_id="l1"), batch_of(checkpoint(12, kept=2)))
        first = carried(path, lookback=5)
        assert carried(path, lookback=5).symbols == first.symbols
        push_run(path, "l2", full_batch(13, 1, run_id="l2"))
        assert carried(path, lookback=5).symbols["TEST/USD"].prices == prices(9, 10, 11, 12, 13)

    def test_a_run_may_not_cover_what_it_has_not_stored(self, path: Path) -> None:
        """A checkpoint of ticks that come later counts only those that are there."""
        push_run(path, "l1", batch_of(tick(1), tick(2), checkpoint(2)), batch_of(tick(3)))
        assert rows(path, "SELECT run_ticks, ticks FROM feeds") == [(2, 2)]
        assert carried(path).ticks == 3


def fills_of(batches: Sequence[WriteBatch]) -> Positions:
    positions = Positions()
    for batch in batches:
        for one in batch.orders:
            for fill in one.fills:
                positions.apply(fill)
    return positions


class TestPositions:
    @pytest.mark.parametrize("covered", [0, 4, 12, 20])
    def test_each_fill_counts_once(self, path: Path, covered: int) -> None:
        batches = [full_batch(1, 20, every=3, run_id="l1"), full_batch(1, 9, every=2, run_id="l2")]
        wanted = fills_of(batches).states()
        batches[0].add_event(checkpoint(covered))
        push_run(path, "l1", batches[0])
        push_run(path, "l2", batches[1])
        assert carried(path).positions.states() == wanted
        assert carried(path).positions.states() == wanted

    def test_a_fill_that_is_stored_after_the_checkpoint_of_its_tick(self, path: Path) -> None:
        """Execution runs behind the strategy: its order may come when the tick is long covered."""
        first = batch_of(
            *(tick(n) for n in range(1, 6)), signal(2, "l1"), signal(4, "l1"), order(2, "l1"), checkpoint(5)
        )
        push_run(path, "l1", first, batch_of(order(4, "l1")))
        assert carried(path).positions.states()[0].net == Decimal("0.2")

    def test_what_somebody_else_wrote_is_refused(self, path: Path) -> None:
        push_run(path, "l1", full_batch(1, 5, run_id="l1"))
        carried(path)
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("UPDATE restart_state SET cost = 'much'")
        with pytest.raises(ConfigError, match=r"x\.db: table restart_state, row with id \d+: .*restore a backup"):
            carried(path)


def numbered(symbol: str, seq: int | None = None, event_id: str | None = None, price: float = 1.0) -> Tick:
    return Tick(symbol, price, 1.0, 1_700_000_000_000, event_id, seq)


def memory_of(symbols_max: int = 10, subscribed: Sequence[str] = ()) -> FeedMemory:
    return FeedMemory(SequenceGuard(symbols_max), PriceBand(10.0), subscribed, symbols_max)


class TestNumbers:
    """Sequence state continues, so that nothing is stored twice across a restart."""

    @pytest.mark.parametrize("covered", [0, 2, 3])
    @pytest.mark.parametrize("by_seq", [True, False])
    def test_a_restarted_feed_knows_what_is_stored(self, path: Path, by_seq: bool, covered: int) -> None:
        """It drops what is sent again, and sees the gap of its absence."""

        def trade(n: int) -> Tick:
            return numbered("A", n) if by_seq else numbered("A", event_id=f"id{n}")

        before = memory_of()
        trades = [trade(1), trade(2), trade(3)]
        before.guard.take(trades[:covered])
        push_run(path, "l1", batch_of(*trades, checkpoint(covered, *before.changed())))
        memory = memory_of()
        carried(path, memory=memory)
        taken = memory.guard.take([trade(2), trade(3), trade(6)])
        assert (taken.ticks, taken.duplicates) == ([trade(6)], 2)
        assert [gap.missing for _index, gap in taken.gaps] == ([2] if by_seq else [])

    def test_what_sampling_left_out_is_known_too(self, path: Path) -> None:
        """Only every second tick is stored; the checkpoint knows the numbers of all."""
        before = memory_of()
        before.guard.take([numbered("A", n) for n in (1, 2, 3, 4)])
        push_run(path, "l1", batch_of(numbered("A", 2), numbered("A", 4), checkpoint(2, *before.changed())))
        memory = memory_of()
        carried(path, memory=memory)
        assert memory.guard.take([numbered("A", 3)]).duplicates == 1

    def test_over_two_restarts(self, path: Path) -> None:
        """The state of a symbol that stays quiet passes through a run in which it never traded."""
        push_run(path, "l1", batch_of(numbered("A", 1), numbered("B", 7)))
        first = memory_of()
        carried(path, memory=first)
        push_run(path, "l2", batch_of(numbered("B", 8)))
        second = memory_of()
        carried(path, memory=second)
        taken = second.guard.take([numbered("A", 1), numbered("A", 2), numbered("B", 7), numbered("B", 8)])
        assert (taken.duplicates, taken.gaps) == (3, ())

    def test_the_band_goes_on_where_it_moved_to(self, path: Path) -> None:
        before = memory_of()
        quiet = [numbered("A", n, price=100.0) for n in range(1, 16)]
        before.guard.take(quiet)
        assert before.band.sift(quiet) is None
        stored = batch_of(*quiet, checkpoint(15, *before.changed()))
        moved = before.band.sift([numbered("A", n, price=5.0) for n in (16, 17, 18)])
        assert moved is not None and len(moved.ticks) == 1
        push_run(path, "l1", stored, batch_of(*moved.ticks))
        after = memory_of()
        carried(path, memory=after)
        assert after.band.sift([numbered("A", 19, price=5.0)]) is None

    def test_pending_symbols_wait_for_the_next_checkpoint(self) -> None:
        memory = memory_of()
        memory.guard.take([numbered("A", 1)])
        assert [one.symbol for one in memory.changed()] == ["A"]
        memory.guard.take([numbered("B", 1)])
        assert [one.symbol for one in memory.changed()] == ["A", "B"], "the first was not confirmed"
        memory.confirmed()
        assert memory.changed() == ()

    def test_a_checkpoint_that_is_not_stored_is_in_the_next_one(self) -> None:
        batch = WriteBatch()
        batch.add_event(checkpoint(3, SymbolMemory("A", memory_of().guard.state("A"))))
        batch.add_event(checkpoint(5, SymbolMemory("B", memory_of().guard.state("B"))))
        assert batch.checkpoint is not None
        assert batch.checkpoint.ticks_before == 5
        assert [one.symbol for one in batch.checkpoint.symbols] == ["A", "B"]
        assert (batch.events, batch.rows, batch.is_empty) == (0, 0, False)


class TestRoom:
    def test_all_where_there_is_room(self) -> None:
        assert chosen(["A", "B"], (), 2) == ["A", "B"]

    def test_symbols_of_long_ago_leave_room_for_those_that_are_asked_for(self) -> None:
        """The known ones among these first; one that was never met needs a place too."""
        assert chosen(["OLD1", "OLD2", "BTCUSDT", "OLD3"], ("btcusdt", "ethusdt"), 3) == ["BTCUSDT", "OLD1"]
        assert chosen(["OLD1", "OLD2"], ("a", "b"), 2) == []

    def test_the_guard_takes_new_symbols_after_a_restart(self, path: Path) -> None:
        push_run(path, "l1", batch_of(numbered("OLD1", 1), numbered("OLD2", 1)), feed="binance")
        carried(path, feed="binance", memory=memory_of(2))
        memory = memory_of(2, ("new1", "old1"))
        carried(path, feed="binance", memory=memory)
        assert memory.guard.take([numbered("NEW1", 1)]).refused == 0
        assert memory.guard.take([numbered("OLD1", 1)]).duplicates == 1


def older(path: Path, run_id: str, source: str, *events: Event, ingest: str = "realws") -> None:
    """A run as schema 3 stored it."""
    with closing(new_database(path)) as db:
        record = begin_run(
            db, RunInfo(run_id, "0.1", "SHADOW", ingest, source, "c0ffee", push=False), 1_700_000_000_000, resume=False
        )
        batch = batch_of(*events)
        with db.atomic():
            insert_batch(db, record.no, batch, record.counts.plus(batch))
        db.execute_sql("UPDATE runs SET result_rules = NULL WHERE id = ?", (record.no,))


def filled(number: int, run_id: str, symbol: str, side: Side, qty: float) -> tuple[Signal, Order]:
    stem = f"{run_id}-{number:010d}"
    fill = Fill(f"{stem}-T", f"{stem}-O", symbol, side, qty, 100.0, 0.01, number)
    made = Signal(f"{stem}-S", symbol, side, 0.75, "SMA_CROSSOVER", qty, 100.0, number)
    return made, Order(
        f"{stem}-O", f"{stem}-S", symbol, side, qty, 100.0, "FILLED", "SHADOW_RECORDED", number, 1, (fill,)
    )


def start(path: Path, feed: str, ingest: str = "realws", memory: FeedMemory | None = None) -> Carried:
    with closing(connect(path)) as db:
        number = rows(path, "SELECT COUNT(*) FROM runs")[0][0]
        new = RunInfo(f"new{number}", "0.1", "SHADOW", ingest, feed, "c0ffee", True, feed)
        return take_over(db, begin_run(db, new, 1_700_000_000_000, resume=False).no, 3, memory)


class TestJoining:
    """A feed is its exchange and market; what schema 3 kept apart by lists of symbols is joined."""

    def test_of_each_symbol_the_newest_goes_on(self, path: Path) -> None:
        older(
            path,
            "l1",
            "binance:btcusdt,ethusdt",
            tick(1, "BTC"),
            *filled(1, "l1", "BTC", BUY, 0.3),
            tick(2, "ETH"),
            *filled(2, "l1", "ETH", SELL, 0.2),
        )
        older(path, "l2", "binance:BTCUSDT", tick(3, "BTC"), *filled(1, "l2", "BTC", BUY, 0.5))
        older(path, "k1", "kraken:BTC", tick(4, "BTC"), *filled(1, "k1", "BTC", SELL, 9.0))
        found = start(path, "binance")
        assert (found.runs, found.ticks) == (2, 3)
        assert {s.symbol: s.net for s in found.positions.states()} == {"BTC": Decimal("0.5"), "ETH": Decimal("-0.2")}
        assert found.symbols["BTC"].prices == prices(1, 3)
        assert start(path, "binance").positions.states() == found.positions.states()
        assert start(path, "kraken").positions.states()[0].net == Decimal("-9.0")
        assert start(path, "binance:usdm").symbols == {}

    def test_the_chain_with_the_newest_tick_of_a_symbol_counts_not_the_one_that_began_last(self, path: Path) -> None:
        older(path, "l1", "binance:a", tick(1, "A"), *filled(1, "l1", "A", BUY, 0.1))
        older(path, "l2", "binance:a,b", tick(2, "A"), *filled(1, "l2", "A", BUY, 0.7))
        older(path, "l3", "binance:a", tick(3, "A"), *filled(1, "l3", "A", BUY, 0.1))
        assert start(path, "binance").positions.states()[0].net == Decimal("0.2")

    def test_numbers_of_all_of_them_are_known(self, path: Path) -> None:
        older(path, "l1", "mockws:ws://localhost:1", numbered("A", 1), numbered("A", 2), ingest="mockws")
        older(path, "l2", "mockws:ws://localhost:2", numbered("A", 3), ingest="mockws")
        memory = memory_of()
        start(path, "mockws", "mockws", memory)
        assert memory.guard.take([numbered("A", n) for n in (1, 2, 3, 4)]).duplicates == 3

    def test_looks_back_only_so_far(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(joining, "TICKS_MAX", 5)
        older(path, "l1", "binance:a", tick(1, "A"), *(tick(n, "B") for n in range(2, 12)), signal(1, "l1", "A", SELL))
        found = start(path, "binance")
        assert found.ticks == 11
        assert found.symbols["B"].prices == prices(9, 10, 11)
        assert (found.symbols["A"].prices, found.symbols["A"].last_side) == ((), SELL)

    def test_the_first_market_that_starts_takes_over_and_no_other(self, path: Path) -> None:
        """Schema 3 did not say which market an exchange's runs listened to."""
        older(path, "l1", "binance:btcusdt", tick(1, "BTCUSDT"), *filled(1, "l1", "BTCUSDT", BUY, 0.3))
        assert start(path, "binance:usdm").positions.states()[0].net == Decimal("0.3")
        assert start(path, "binance").symbols == {}

    def test_a_synthetic_feed_is_its_symbol(self, path: Path) -> None:
        older(path, "l1", "synthetic:A", tick(1, "A"), ingest="synthetic")
        older(path, "l2", "synthetic:B", tick(2, "B"), tick(3, "B"), ingest="synthetic")
        assert start(path, "synthetic:B", "synthetic").ticks == 2
        assert list(start(path, "synthetic:A", "synthetic").symbols) == ["A"]

    def test_a_service_that_was_restarted_very_often(self, path: Path) -> None:
        """More runs than SQLite has variables."""
        older(path, "l0", "binance:a", tick(1, "A"), *filled(1, "l0", "A", BUY, 0.1))
        with closing(connect(path)) as db:
            db.connection().setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 50)
            db.execute_sql(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)"
                " INSERT INTO runs (run_id, version, mode, ingest, source, config_hash, first_start_ms, complete,"
                " ticks, signals, orders, trades, notices)"
                " SELECT 'l' || i, '1', 'SHADOW', 'realws', 'binance:a', '', 1, 0, 0, 0, 0, 0, 0 FROM n"
            )
        found = start(path, "binance")
        assert (found.runs, found.ticks) == (201, 1)
        assert len(found.positions.states()) == 1


# ---- any history, cut anywhere: the same as reading everything -----------------------------------------------------

_steps = st.lists(
    st.tuples(st.sampled_from("ABC"), st.integers(1, 9), st.sampled_from([None, None, BUY, SELL]), st.booleans()),
    max_size=25,
)


def _events(run_id: str, steps: Sequence[tuple[str, int, Any, bool]]) -> Iterator[list[Event]]:
    for number, (symbol, price, side, is_filled) in enumerate(steps, 1):
        events: list[Event] = [Tick(symbol, price / 4, 1.0, number)]
        if side is not None:
            made, ordered = filled(number, run_id, symbol, side, price / 8)
            events += [made, ordered] if is_filled else [made]
        yield events


def _read_everything(runs: Sequence[Sequence[tuple[str, int, Any, bool]]], lookback: int) -> dict[str, SymbolState]:
    """The same from all events, by the simplest means."""
    known: dict[str, SymbolState] = {}
    positions = Positions()
    for index, steps in enumerate(runs):
        for (symbol, *_), events in zip(steps, _events(f"l{index}", steps), strict=True):
            before = known.get(symbol, SymbolState(symbol))
            first = events[0]
            assert isinstance(first, Tick)
            kept = (*before.prices, first.price)[-lookback:]
            side, since = before.last_side, before.since_signal + 1
            for event in events[1:]:
                if isinstance(event, Signal):
                    side, since = event.side, 0
                elif isinstance(event, Order):
                    for fill in event.fills:
                        positions.apply(fill)
            known[symbol] = SymbolState(symbol, 0, kept, side, since)
    places = {state.symbol: state for state in positions.states()}
    return {symbol: replace(state, position=places.get(symbol)) for symbol, state in known.items()}


def _store(db: SqliteDatabase, run_id: str, steps: Sequence[tuple[str, int, Any, bool]], every: int, cut: int) -> None:
    """A run whose batches hold `cut` ticks, with a checkpoint after every `every` ticks, orders coming a tick late."""
    record = begin_run(db, info(run_id), 1, resume=False)
    take_over(db, record.no, 3, None)
    storage = _InMemory(db, record)
    batch, late = WriteBatch(), []
    for number, events in enumerate(_events(run_id, steps), 1):
        for event in events:
            if isinstance(event, Order):
                late.append(event)
            else:
                batch.add_event(event)
        if number % every == 0:
            batch.add_event(Checkpoint(number, (), 3))
        if number % cut == 0:
            for one in late[:-1]:
                batch.add_event(one)
            del late[:-1]
            storage.write(batch)
            batch = WriteBatch()
    for one in late:
        batch.add_event(one)
    if batch.events:
        storage.write(batch)


class _InMemory:
    """A storage of a database in memory."""

    def __init__(self, db: SqliteDatabase, record: RunRecord) -> None:
        self._db, self._record, self._counts = db, record, record.counts

    def write(self, batch: WriteBatch) -> None:
        self._counts = self._counts.plus(batch)
        with self._db.atomic():
            insert_batch(self._db, self._record.no, batch, self._counts)
            if batch.checkpoint is not None:
                store_checkpoint(self._db, self._record.no, batch.checkpoint)


@given(st.lists(_steps, min_size=1, max_size=4), st.integers(1, 7), st.integers(1, 9), st.integers(1, 3))
@hypothesis_settings(max_examples=50)
def test_any_history_cut_anywhere_comes_to_what_all_its_events_come_to(
    runs: list[list[tuple[str, int, Any, bool]]], every: int, cut: int, lookback: int
) -> None:
    """Checkpoints change nothing of what a restart finds."""
    db = SqliteDatabase(":memory:", autoconnect=False)
    db.connect()
    with closing(db):
        migrate(db)
        found = Carried(0, 0, {})
        for index, steps in enumerate([*runs, []]):
            if index == len(runs):
                record = begin_run(db, info("last"), 1, resume=False)
                found = take_over(db, record.no, lookback, None)
            else:
                _store(db, f"l{index}", steps, every, cut)
    wanted = _read_everything(runs, lookback)
    assert found.ticks == sum(map(len, runs))
    plain = {s: replace(state, last_tick=0, prices=state.prices[-lookback:]) for s, state in found.symbols.items()}
    assert plain == wanted


# ---- a start is constant -------------------------------------------------------------------------------------------


def _steps_of_a_start(ticks: int, covered: int) -> int:
    """How much SQLite works (in hundreds of instructions) for a start on a database of so many ticks of two symbols."""
    db = SqliteDatabase(":memory:", autoconnect=False)
    db.connect()
    with closing(db):
        migrate(db)
        _store(db, "l0", [("A", 4, BUY, True)], 1, 1)
        columns = "symbol, price, volume, ts, run"
        numbers = f"WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < {ticks})"
        db.execute_sql(f"INSERT INTO ticks ({columns}) {numbers} SELECT 'B', 1 + i % 9, 1.0, i, 1 FROM n")
        for table, names, values in (
            ("signals", "symbol, kind, value, ts, event_id, price", "'B', 'BUY:X', 1, i, printf('l0-%010d-S', i), 1"),
            ("trades", "symbol, side, event_id, order_id, fill_qty, fill_price, fees, ts",
             "'B', 'BUY', printf('l0-%010d-T', i), printf('l0-%010d-O', i), 0.1, 1, 0, i"),
        ):  # fmt: skip
            db.execute_sql(f"INSERT INTO {table} ({names}, run) {numbers} SELECT {values}, 1 FROM n")
        db.execute_sql("UPDATE runs SET ticks = ?, signals = ?, trades = ?, last_tick_id = ticks", (ticks,) * 3)
        db.execute_sql("UPDATE runs SET last_tick_id = ticks")
        last = f"l0-{covered:010d}-T"
        db.execute_sql("UPDATE feeds SET ticks = ?, run_ticks = ?, fill_run = 1, fill_id = ?", (covered, covered, last))
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        db.connection().set_progress_handler(count, 100)
        row_counts(db)
        record = begin_run(db, info("next"), 1, resume=False)
        found = take_over(db, record.no, 3, memory_of())
        db.connection().set_progress_handler(None, 100)
    assert found.ticks == ticks
    return steps


def test_a_start_costs_the_same_whatever_the_database_holds() -> None:
    """It reads what came after the newest checkpoint, and of the rest nothing."""
    small, large = _steps_of_a_start(2_000, 1_500), _steps_of_a_start(40_000, 39_500)
    assert large < 1.2 * small, (small, large)
    assert _steps_of_a_start(2_000, 500) > 1.5 * small, "what is to be read counts"
