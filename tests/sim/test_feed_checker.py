"""The checker of live feeds detects errors: each case changes a correct database, or the count, in one way."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from mockws_server.actions import Disconnect, Duplicate, Skip, Ticks
from sim.checks.checkers import check_feed
from sim.checks.feed_model import DuplicateItem, FeedModel, GapItem, NumberingModel
from sim.kernel.clock import frozen
from sim.scenarios.live import exchange_of, live_settings
from sim.world.exchange import SimExchange
from sim.world.world import Faults, World
from tradebot.config.model import Settings
from tradebot.core.events import Tick
from tradebot.core.log_events import LogEvent
from tradebot.feeds.exchanges.kraken import Kraken


class Finished:
    """A world after one process with a gap, duplicates and a lost connection."""

    def __init__(self, directory: Path) -> None:
        with frozen() as freezer:
            self.world = World(3, directory, freezer)
            self.exchange: SimExchange = exchange_of(
                self.world,
                Ticks(20, 10.0),
                Skip(3),
                Ticks(20, 10.0),
                Duplicate(4),
                Disconnect(1011),
                Ticks(40, 10.0),
            )
            self.settings: Settings = live_settings(self.world, engine__run_seconds=10.0)
            self.world.run(self.settings, Faults(network=self.exchange.online))

    def check(self, path: Path) -> None:
        check_feed(path, self.settings, self.exchange, self.world.outcomes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    yield Finished(tmp_path_factory.mktemp("world"))


def test_a_sound_database_passes(finished: Finished) -> None:
    finished.check(finished.world.db_path)
    assert len(finished.world.dump()["notices"]) >= 4


@pytest.mark.parametrize(
    ("sql", "complaint"),
    [
        ("DELETE FROM ticks WHERE id = 10", "account"),
        ("DELETE FROM ticks WHERE id = (SELECT MAX(id) FROM ticks)", "stored, refused or not stored"),
        (
            "INSERT INTO ticks (symbol, price, volume, ts, run, event_id, seq)"
            " SELECT symbol, price, volume, ts, run, event_id, seq FROM ticks WHERE id = 10",
            "was not sent, or not in this order",
        ),
        ("UPDATE ticks SET price = price + 1 WHERE id = 10", "was not sent"),
        ("UPDATE ticks SET id = 1000 WHERE id = 10", "was not sent, or not in this order"),
        ("DELETE FROM notices WHERE kind = 'GAP' AND id = (SELECT MIN(id) FROM notices WHERE kind = 'GAP')", "account"),
        ("UPDATE notices SET missing = missing + 1 WHERE kind = 'GAP'", "account"),
        ("UPDATE notices SET ticks_before = ticks_before + 1 WHERE kind = 'GAP'", "account|follows"),
        ("DELETE FROM notices WHERE kind = 'LINK_LOST'", "account"),
    ],
)
def test_a_broken_database_does_not(finished: Finished, tmp_path: Path, sql: str, complaint: str) -> None:
    path = tmp_path / "broken.db"
    shutil.copy(finished.world.db_path, path)
    db = sqlite3.connect(path)
    assert db.execute(sql).rowcount >= 1
    db.commit()
    db.close()
    with pytest.raises(AssertionError, match=complaint):
        finished.check(path)


@pytest.mark.parametrize(
    ("name", "off", "complaint"),
    [("received", 1, "ledger says"), ("duplicates", 1, "ledger says"), ("malformed", 1, "ledger says")],
)
def test_a_wrong_count_does_not(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, name: str, off: int, complaint: str
) -> None:
    ledger = finished.world.outcomes[0].event(LogEvent.LEDGER)
    monkeypatch.setitem(ledger, name, ledger[name] + off)
    with pytest.raises(AssertionError, match=complaint):
        finished.check(finished.world.db_path)


def test_a_socket_left_open_does_not(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finished.exchange.network, "sockets", 1)
    with pytest.raises(AssertionError, match="left open"):
        finished.check(finished.world.db_path)


def numbered(seq: int, price: float = 1.0) -> Tick:
    return Tick("A", price, 1.0, 1, None, seq)


def test_the_account_of_numbers() -> None:
    numbering = NumberingModel()
    said = [numbering.take(numbered(seq), seq) for seq in (5, 6, 9, 7, 7, 8, 10, 20_000, 3, 4)]
    assert said == [
        [],
        [],
        [GapItem("A", 2)],
        [],
        [DuplicateItem("A")],
        [],
        [],
        [GapItem("A", 19_989)],
        [GapItem("A", None)],
        [],
    ]


def test_the_account_of_numbers_with_other_contents() -> None:
    numbering = NumberingModel()
    said = [
        numbering.take(numbered(seq, price), seq) for seq, price in ((5, 1.0), (5, 2.0), (5, 2.0), (5, 3.0), (6, 1.0))
    ]
    assert said == [[], [GapItem("A", None)], [DuplicateItem("A")], [], []]


def test_the_account_of_a_frame_that_begins_with_its_newest_trade() -> None:
    """As the feed reads it (seed 703227): no trade is missing from a frame in reverse order."""
    account = FeedModel(Kraken, (), keep_history=False)
    ticks = [Tick("A", 1.0, 1.0, seq, None, seq) for seq in (3, 7, 6, 5)]
    assert list(account._trades(ticks[:1])) == ticks[:1]
    assert list(account._trades(ticks[1:])) == [GapItem("A", 1), *ticks[:0:-1]]
    assert list(account._trades([*ticks[2:], ticks[1]])) == [DuplicateItem("A")] * 3
