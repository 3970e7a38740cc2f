"""The sums that a restart continues from: exactly what all fills one by one would give, each counted once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from peewee import SqliteDatabase

from tests.unit.store_helpers import memory_run, run_info
from tradebot.core.events import BUY, SELL, Fill, Side
from tradebot.portfolio.money import money_of
from tradebot.portfolio.positions import Positions
from tradebot.store import older_positions as carryover
from tradebot.store.older_positions import fold_fills, read_sides
from tradebot.store.runs import begin_run

FEED, OTHER = (1, 3), (2, 4)


@contextmanager
def four_runs() -> Iterator[SqliteDatabase]:
    """Runs 1 and 3 of one feed, 2 and 4 of another."""
    with memory_run("l1") as (db, _record):
        for number in (2, 3, 4):
            begin_run(db, run_info(f"l{number}", push=True), 1, resume=False)
        yield db


class Market:
    """Fills as they are stored, some of them deleted again; and what all of them come to."""

    def __init__(self, db: SqliteDatabase) -> None:
        self.db = db
        self.positions = Positions()
        self.filled = {run: 0 for run in (*FEED, *OTHER)}

    def fill(self, run: int, side: Any, qty: float, price: float, symbol: str = "A") -> None:
        self.filled[run] += 1
        stem = f"l{run}-{self.filled[run]:010d}"
        fill = Fill(f"{stem}-T", f"{stem}-O", symbol, side, qty, price, qty * price / 1000, 1)
        self.db.execute_sql(
            "INSERT INTO trades (event_id, order_id, symbol, side, fill_qty, fill_price, fees, ts, run)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?)",
            (fill.event_id, fill.order_id, symbol, side, qty, price, fill.fees, run),
        )
        self.db.execute_sql("UPDATE runs SET trades = trades + 1 WHERE id = ?", (run,))
        if run in FEED:
            self.positions.apply(fill)

    def prune(self, run: int, count: int) -> None:
        """Delete the oldest fills that are summed up already."""
        gone = self.db.execute_sql(
            "DELETE FROM trades WHERE id IN (SELECT id FROM trades WHERE run = ? ORDER BY id LIMIT"
            " (SELECT MIN(?, folded_trades - pruned_trades) FROM runs WHERE id = ?))",
            (run, count, run),
        ).rowcount
        self.db.execute_sql("UPDATE runs SET pruned_trades = pruned_trades + ? WHERE id = ?", (gone, run))


_fills = st.tuples(
    st.just("fill"), st.sampled_from((*FEED, *OTHER)), st.sampled_from([BUY, SELL]),
    st.sampled_from([0.1, 0.3, 7e-5, 1000.0]), st.sampled_from([100.1, 99.7, 3e-5]), st.sampled_from("AB"),
)  # fmt: skip
_steps = st.lists(
    _fills
    | _fills
    | st.tuples(st.just("fold"), st.sampled_from([FEED, OTHER]))
    | st.tuples(st.just("prune"), st.sampled_from((*FEED, *OTHER)), st.integers(1, 9)),
    max_size=30,
)


@given(steps=_steps)
@hypothesis_settings(max_examples=30, deadline=None)
def test_any_order_of_filling_summing_up_and_pruning(steps: list[Any]) -> None:
    """Exactly equal, to the last digit, also where runs of a feed lie one in the other."""
    with four_runs() as db:
        market = Market(db)
        for what, *values in steps:
            if what == "fill":
                market.fill(*values)
            elif what == "fold":
                fold_fills(db, values[0])
            else:
                market.prune(*values)
        assert fold_fills(db, FEED).states() == market.positions.states()
        assert fold_fills(db, FEED).states() == market.positions.states()
        assert db.execute_sql("SELECT SUM(trades - folded_trades) FROM runs WHERE id IN (1, 3)").fetchone() == (0,)


def test_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carryover, "_CHUNK_ROWS", 3)
    with four_runs() as db:
        market = Market(db)
        for n in range(20):
            market.fill((1, 2, 3)[n % 3], BUY if n % 4 else SELL, 0.1, 100.0 + n)
        assert fold_fills(db, FEED).states() == market.positions.states()


def test_another_one_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start of the engine beside a prune: neither counts a fill twice, nor misses what the other let be deleted."""
    with four_runs() as db:
        market = Market(db)
        for n in range(10):
            market.fill(1, BUY, 0.1, 100.0 + n)
        later_fills = carryover._later_fills

        def interrupted(db: SqliteDatabase, base: Any) -> Iterator[Fill]:
            monkeypatch.setattr(carryover, "_later_fills", later_fills)
            fold_fills(db, FEED)
            market.prune(1, 4)
            market.fill(3, SELL, 0.3, 99.0)
            yield from later_fills(db, base)

        monkeypatch.setattr(carryover, "_later_fills", interrupted)
        assert fold_fills(db, FEED).states() == market.positions.states()


def test_a_fill_that_comes_meanwhile_is_for_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine writes on while prune sums up."""
    with four_runs() as db:
        market = Market(db)
        market.fill(1, BUY, 0.1, 100.0)
        later_fills = carryover._later_fills

        def interrupted(db: SqliteDatabase, base: Any) -> Iterator[Fill]:
            market.fill(1, SELL, 0.3, 99.0)
            yield from later_fills(db, base)

        monkeypatch.setattr(carryover, "_later_fills", interrupted)
        fold_fills(db, FEED)
        monkeypatch.setattr(carryover, "_later_fills", later_fills)
        assert fold_fills(db, FEED).states() == market.positions.states()


def test_sides_are_kept_until_there_are_newer_ones() -> None:
    with four_runs() as db:
        market = Market(db)
        fold_fills(db, FEED, {"A": BUY, "B": SELL})
        market.fill(1, BUY, 0.1, 100.0)
        fold_fills(db, FEED)
        assert read_sides(db, FEED) == {"A": BUY, "B": SELL}
        fold_fills(db, FEED, {"B": BUY, "C": SELL})
        assert read_sides(db, FEED) == {"A": BUY, "B": BUY, "C": SELL}
        assert read_sides(db, OTHER) == {}
        assert [state.symbol for state in fold_fills(db, FEED).states()] == ["A"]


def test_a_feed_that_never_ran() -> None:
    with four_runs() as db:
        assert fold_fills(db, ()).states() == []
        assert fold_fills(db, FEED).states() == []


def test_positions_go_on_as_if_they_had_never_been_stored() -> None:
    """Also what is not stored itself: exposure, alone and in all."""
    first, second = Positions(), Positions()
    parts: list[tuple[str, Side, float, float]] = [
        ("A", BUY, 0.3, 100.1), ("B", SELL, 7.0, 3e-5), ("A", SELL, 0.1, 99.7), ("A", SELL, 1.0, 98.0),
    ]  # fmt: skip
    fills = [Fill("", "", symbol, side, qty, price, 0.1, 1) for symbol, side, qty, price in parts]
    for fill in fills:
        second = Positions.of(second.states())
        first.apply(fill)
        second.apply(fill)
        assert second.states() == first.states()
        assert second.views() == first.views()
        assert second.total_exposure(money_of().rates) == first.total_exposure(money_of().rates)
