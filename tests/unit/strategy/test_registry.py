"""The registry: strategies by name, from the files of the folder."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tradebot.strategy.registry
from tradebot.config.model import Config
from tradebot.config.validation import InvalidValue, check_value
from tradebot.core.errors import ConfigError
from tradebot.core.events import Tick
from tradebot.strategy.periodic import Periodic
from tradebot.strategy.registry import CHECKS, broken, create, hears_notices, strategies
from tradebot.strategy.sma_crossover import SmaCrossover

ONE_FILE = """
from tradebot.core.events import BUY, THRESHOLD_CROSSED
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
    for forget in (None, tmp_path):
        tradebot.strategy.registry._look_up.cache_clear()
        for name in {file.stem for file in tmp_path.iterdir()}:
            sys.modules.pop(f"tradebot.strategy.{name}", None)
        if forget is None:
            yield tmp_path


def test_the_built_in_ones_in_order_of_their_names() -> None:
    """S8: the order never hangs on the file system."""
    assert dict(strategies()).items() >= {"periodic": Periodic, "sma_crossover": SmaCrossover}.items()
    assert list(strategies()) == sorted(strategies())


def test_each_is_created_with_its_parameters() -> None:
    assert isinstance(create("sma_crossover", Config()), SmaCrossover)
    assert create("periodic", Config()).lookback == 10


def test_an_unknown_name_is_refused_with_a_hint() -> None:
    """G5: exit 12; never silently another strategy."""
    known = ", ".join(strategies())
    with pytest.raises(ConfigError, match=rf'"sma_crosover" is not one of {known} \(did you mean sma_crossover\?\)'):
        create("sma_crosover", Config())


def test_a_new_strategy_is_one_file(folder: Path) -> None:
    built_in = list(strategies())
    tradebot.strategy.registry._look_up.cache_clear()
    (folder / "dropped_in_always.py").write_text(ONE_FILE.format(name="always"))
    assert list(strategies()) == sorted([*built_in, "always"])
    decisions = create("always", Config()).on_ticks("A", [Tick("A", 1.0, 1.0, 0)])
    assert [tuple(d) for d in decisions] == [(0, "BUY", "THRESHOLD_CROSSED")]


BROKEN = {
    "a syntax error": ("x = (\n", "", 1, "SyntaxError: "),
    "an error at import": ("\nimport no_such_module\n", "", 2, "ModuleNotFoundError: No module named"),
    "an end at import": ("raise SystemExit(3)\n", "", 1, "SystemExit: 3"),
    "a name twice": ("", "periodic", 7, "two strategies have this name"),
    "a missing method": ("def on_ticks(", "def on_tick(", 7, "class Always lacks on_ticks"),
    "no name": ('    name = "{name}"\n', "", 7, "class Always sets no name"),
    "a parent's name": ('(Strategy):\n    name = "{name}"', "(Periodic):", 7, "class Always sets no name"),
}


def spoiled(what: str) -> str:
    """ONE_FILE, called mine and broken."""
    old, new, *_ = BROKEN[what]
    if what == "a name twice":
        return ONE_FILE.format(name=new)
    if old in ONE_FILE:
        return ONE_FILE.replace(old, new).replace("{name}", "mine")
    return old + ONE_FILE.format(name="mine")


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_file_is_named_when_it_is_chosen_and_matters_to_nobody_else(folder: Path, what: str) -> None:
    file = folder / "mine.py"
    file.write_text(spoiled(what))
    _, _, line, said = BROKEN[what]
    chosen = "periodic" if what == "a name twice" else "mine"
    assert isinstance(create("sma_crossover", Config()), SmaCrossover)
    assert chosen not in strategies()
    with pytest.raises(ConfigError) as caught:
        create(chosen, Config())
    assert f"{file}:{line}: " in str(caught.value) or f"{file}:{line} and " in str(caught.value)
    assert said in str(caught.value)
    with pytest.raises(InvalidValue, match=re.escape(f"{file}:{line}")):
        check_value("strategy.name", chosen, CHECKS)
    assert check_value("strategy.name", "sma_crossover", CHECKS) == "sma_crossover"


def test_a_file_is_found_by_the_name_in_it_too(folder: Path) -> None:
    (folder / "any_file.py").write_text("x = (\n" + ONE_FILE.format(name="mine"))
    for name in ("any_file", "mine"):
        with pytest.raises(ConfigError, match=r"any_file\.py:1: SyntaxError"):
            create(name, Config())


def test_a_file_that_cannot_be_imported_takes_no_name_away(folder: Path) -> None:
    (folder / "any_file.py").write_text("x = (\n" + ONE_FILE.format(name="periodic"))
    assert isinstance(create("periodic", Config()), Periodic)
    assert list(broken()) == ["any_file"]


def test_what_others_are_made_from_is_no_strategy(folder: Path) -> None:
    (folder / "mine.py").write_text(
        "from tradebot.strategy.base import Strategy\n\n\nclass Base(Strategy):\n    pass\n"
    )
    assert broken() == {}
    assert "Base" not in {strategy.__name__ for strategy in strategies().values()}


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("return cls()", "return cls(1)", 13, "TypeError: "),
        ("return cls()", "return 1 / 0", 13, "ZeroDivisionError: "),
        ("    lookback = 0\n", "", None, "AttributeError: "),
        ("lookback = 0", "lookback = None", None, "TypeError: lookback is not a whole number"),
    ],
)
def test_one_that_cannot_be_made_is_a_mistake_of_its_file(
    folder: Path, old: str, new: str, line: int | None, said: str
) -> None:
    file = folder / "dropped_in_bad.py"
    file.write_text(ONE_FILE.format(name="mine").replace(old, new))
    place = f"{file}: " if line is None else f"{file}:{line}: "
    with pytest.raises(ConfigError, match=f"^strategy.name: 'mine' cannot be used: {re.escape(place + said)}"):
        create("mine", Config())


def test_which_strategies_hear_notices(folder: Path) -> None:
    """Only for these do notices count as input of a replay; in doubt they do."""
    (folder / "deaf.py").write_text(ONE_FILE.format(name="deaf"))
    hearing = "\n    def on_notice(self, notice):\n        pass\n"
    (folder / "hearing.py").write_text(ONE_FILE.format(name="hearing") + hearing)
    names = ["deaf", "periodic", "sma_crossover", "hearing", "unknown"]
    assert [name for name in names if hears_notices(name)] == ["hearing", "unknown"]
