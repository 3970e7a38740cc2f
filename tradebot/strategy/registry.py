"""Strategies, found by name. Each module of this folder may hold some; adding one is adding one file.

A file that cannot be used (a syntax error, a missing method, a name that another strategy has) matters only to the runs
that ask for it: `broken` says what is wrong, and where.
"""

from __future__ import annotations

import importlib  # impure: adding a strategy is adding a file, so the folder's modules are looked up, once
import inspect
import pkgutil  # impure: the same look-up
import re  # impure: computes only, and is for names in a file that cannot be imported
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

import tradebot.strategy
from tradebot.config.validation import Checks, InvalidValue, check_choice, fold, show
from tradebot.core.errors import ConfigError
from tradebot.strategy.base import Strategy

if TYPE_CHECKING:
    from tradebot.config.model import Config

_NAME = re.compile(r"""^[ \t]+name\b[^=\n]*=[ \t]*["']([^"'\n]+)["']""", re.MULTILINE)


class _Registry(NamedTuple):
    usable: MappingProxyType[str, type[Strategy]]
    broken: MappingProxyType[str, str]


def strategies() -> MappingProxyType[str, type[Strategy]]:
    """Every strategy class of this folder that can be used, by name, in order of the names."""
    return _look_up().usable


def broken() -> MappingProxyType[str, str]:
    """What cannot be used, by the strategy's name and that of its file: "FILE:LINE: what is wrong"."""
    return _look_up().broken


def check_name(text: str) -> str:
    """The name of the strategy that `text` means, in any case, with or without underscore. Raises InvalidValue."""
    for name, reason in broken().items():
        if fold(name) == fold(text):
            raise InvalidValue(f"{show(name)} cannot be used: {reason}")
    return check_choice(text, strategies())


CHECKS: Final[Checks] = MappingProxyType({"strategy.name": check_name})
"""For what reads configurations: see `tradebot.config.validation.check_value`."""


def create(name: str, config: Config) -> Strategy:
    """A fresh strategy called `name`, with its parameters from `config`.

    Raises ConfigError when there is no such strategy, when it cannot be used, or when its parameters make no sense.
    """
    try:
        kind = strategies()[check_name(name)]
    except InvalidValue as error:
        raise ConfigError(f"strategy.name: {error}") from None
    try:
        strategy = kind.from_config(config)
        if not isinstance(strategy.lookback, int):
            raise TypeError("lookback is not a whole number")
    except ConfigError:
        raise
    except Exception as error:  # a mistake in a user's file, not a crash of the engine
        raise ConfigError(
            f"strategy.name: {name!r} cannot be used: {_describe_error(error, inspect.getfile(kind))}"
        ) from error
    return strategy


def unread_keys(name: str) -> frozenset[str]:
    """The configuration keys that strategy `name` does not read; none are known of one that cannot be used."""
    usable = strategies()
    return usable[name].unread if name in usable else frozenset()


def hears_notices(name: str) -> bool:
    """Whether notices can change what strategy `name` decides; not known, so yes, of one that cannot be used."""
    usable = strategies()
    return name not in usable or usable[name].on_notice is not Strategy.on_notice


@cache
def _look_up() -> _Registry:
    """Imports the folder's modules, once."""
    found: dict[str, list[type[Strategy]]] = {}
    unusable: dict[str, str] = {}
    for module_info in pkgutil.iter_modules(tradebot.strategy.__path__):
        module_name = module_info.name
        try:
            module = importlib.import_module(f"{__package__}.{module_name}")
        except (Exception, SystemExit) as error:
            file, text = _source(module_info)
            unusable |= dict.fromkeys((module_name, *_NAME.findall(text)), _describe_error(error, file))
            continue
        for item in vars(module).values():
            if not (inspect.isclass(item) and issubclass(item, Strategy) and item.__module__ == module.__name__):
                continue
            name, problem = vars(item).get("name"), _problem(item)
            if problem is None:
                found.setdefault(str(name), []).append(item)
            elif isinstance(name, str) or not inspect.isabstract(item):  # else one that others are made from
                unusable[name if isinstance(name, str) else module_name] = f"{_place(item)}: {problem}"
    usable = {name: kinds[0] for name, kinds in sorted(found.items()) if len(kinds) == 1}
    for name, kinds in found.items():
        if len(kinds) > 1:
            unusable[name] = f"{' and '.join(map(_place, kinds))}: two strategies have this name"
    # A file that cannot be read does not take the name from a strategy that can be used.
    rest = {name: reason for name, reason in sorted(unusable.items()) if name not in usable}
    return _Registry(MappingProxyType(usable), MappingProxyType(rest))


def _problem(kind: type[Strategy]) -> str | None:
    """Why a strategy cannot be used; None when it can."""
    missing = sorted(kind.__abstractmethods__)
    if missing:
        return f"class {kind.__name__} lacks {', '.join(missing)}"
    if not isinstance(vars(kind).get("name"), str):
        return f"class {kind.__name__} sets no name (name = ...)"
    return None


def _place(kind: type[Strategy]) -> str:
    """ "FILE:LINE" of a class."""
    try:
        return f"{inspect.getfile(kind)}:{inspect.getsourcelines(kind)[1]}"
    except (OSError, TypeError):  # the source has gone, or was never a file
        return kind.__module__


def _describe_error(error: BaseException, file: str) -> str:
    """ "FILE:LINE: what went wrong", the line being the last one of `file` that the error passed through."""
    line = None
    if isinstance(error, SyntaxError) and error.filename == file:
        line, said = error.lineno, error.msg
    else:
        said, trace = str(error), error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == file:
                line = trace.tb_lineno
            trace = trace.tb_next
    return f"{file}{'' if line is None else f':{line}'}: {type(error).__name__}: {said.partition(chr(10))[0]}"


def _source(module_info: pkgutil.ModuleInfo) -> tuple[str, str]:
    """File and text of a module that cannot be imported."""
    spec = module_info.module_finder.find_spec(module_info.name, None)
    file = None if spec is None else spec.origin
    read = getattr(None if spec is None else spec.loader, "get_data", None)
    if file is None or read is None:
        return module_info.name, ""
    return file, read(file).decode("utf-8", "replace")
