"""Strategies, found by name. Each module of this folder may hold some; adding one is adding one file."""

from __future__ import annotations

import difflib
import importlib  # impure: adding a strategy is adding a file, so the folder's modules are looked up, once
import inspect
import pkgutil  # impure: the same look-up
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from tradebot.exits import ConfigError
from tradebot.strategy.base import Decision, Observer, Strategy, SymbolHistory

if TYPE_CHECKING:
    from tradebot.config import Config

__all__ = ["Decision", "Observer", "Strategy", "SymbolHistory", "create", "strategies"]


@cache
def strategies() -> MappingProxyType[str, type[Strategy]]:
    """Every strategy class of this folder by name, in order of the names. Imports the folder's modules once.

    Raises TypeError when two strategies share a name (a mistake in the code, not in a configuration).
    """
    found: dict[str, type[Strategy]] = {}
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        for item in vars(module).values():
            if not (inspect.isclass(item) and issubclass(item, Strategy)) or inspect.isabstract(item):
                continue
            if item.__module__ != module.__name__:
                continue
            if item.name in found:
                raise TypeError(f"two strategies are called {item.name!r}: {found[item.name]} and {item}")
            found[item.name] = item
    return MappingProxyType(dict(sorted(found.items())))


def create(name: str, config: Config) -> Strategy:
    """A fresh strategy called `name`, with its parameters from `config`.

    Raises ConfigError when there is no such strategy, or when its parameters make no sense.
    """
    known = strategies()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ConfigError(f"strategy.name: unknown strategy {name!r}{hint}; there are: {', '.join(known)}")
    return known[name].from_config(config)
