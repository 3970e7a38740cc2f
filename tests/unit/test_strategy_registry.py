"""The registry: strategies by name, from the files of the folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import tradebot.strategy
from tradebot.config import Config
from tradebot.events import Tick
from tradebot.exits import ConfigError
from tradebot.strategy import create, strategies
from tradebot.strategy.periodic import Periodic
from tradebot.strategy.sma_crossover import SmaCrossover

ONE_FILE = """
from tradebot.events import BUY, THRESHOLD_CROSSED
from tradebot.strategy.base import Decision, Strategy
from tradebot.strategy.periodic import Periodic  # what is imported is not offered twice


class Always(Strategy):
    name = "{name}"
    lookback = 0

    @classmethod
    def from_config(cls, config):
        return cls()

    def on_ticks(self, symbol, ticks):
        return [Decision(index, BUY, THRESHOLD_CROSSED) for index in range(len(ticks))]

    def restore(self, symbol, history):
        pass
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A second folder of the strategy package, searched as if its files lay in the first."""
    monkeypatch.setattr(tradebot.strategy, "__path__", [*tradebot.strategy.__path__, str(tmp_path)])
    strategies.cache_clear()
    yield tmp_path
    strategies.cache_clear()


def test_the_built_in_ones_in_order_of_their_names() -> None:
    """S8: the order never hangs on the file system."""
    assert dict(strategies()) == {"periodic": Periodic, "sma_crossover": SmaCrossover}
    assert list(strategies()) == sorted(strategies())


def test_each_is_created_with_its_parameters() -> None:
    assert isinstance(create("sma_crossover", Config()), SmaCrossover)
    assert create("periodic", Config()).lookback == 10


def test_an_unknown_name_is_refused_with_a_hint() -> None:
    """G5: exit 12; never silently another strategy."""
    with pytest.raises(
        ConfigError, match=r"'sma_crosover' \(did you mean 'sma_crossover'\?\).*periodic, sma_crossover"
    ):
        create("sma_crosover", Config())


def test_a_new_strategy_is_one_file(folder: Path) -> None:
    (folder / "dropped_in_always.py").write_text(ONE_FILE.format(name="always"))
    assert list(strategies()) == ["always", "periodic", "sma_crossover"]
    decisions = create("always", Config()).on_ticks("A", [Tick("A", 1.0, 1.0, 0)])
    assert [tuple(d) for d in decisions] == [(0, "BUY", "THRESHOLD_CROSSED")]


def test_two_of_one_name_are_a_mistake(folder: Path) -> None:
    (folder / "dropped_in_twice.py").write_text(ONE_FILE.format(name="periodic"))
    with pytest.raises(TypeError, match="two strategies are called 'periodic'"):
        strategies()
