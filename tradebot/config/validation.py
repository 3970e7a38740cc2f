"""What each configuration key accepts, from any source: file, command line or environment.

`KEYS` lists every key by its dotted name ("engine.sample_every"), read off the types and bounds in
`tradebot.config.model`. Values are checked one by one with `check_value`, put together with `build`, and checked
against each other with `config.cross_checks`. All pure.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import inspect as shapes

from tradebot.config.model import Config
from tradebot.config.money import InstrumentConfig, Rate, RateSymbol, Symbol
from tradebot.output.redaction import mask


class Key(NamedTuple):
    """One configuration key: its dotted name, the shape of its value and its default."""

    name: str
    shape: shapes.Type
    optional: bool
    default: object


Checks = Mapping[str, Callable[[str], str]]
"""What only the layers above can check, by key: a function from a text to what is stored, or raising InvalidValue."""

NO_CHECKS: Final[Checks] = MappingProxyType({})

_LISTED_MAX: Final = 50


class InvalidValue(ValueError):
    """A value that a key does not accept; the text says what is wrong, without the key."""


def _keys_of(struct: shapes.Type, prefix: str = "") -> Iterable[Key]:
    assert isinstance(struct, shapes.StructType)
    for field in struct.fields:
        shape, name = field.type, prefix + field.name
        if isinstance(shape, shapes.StructType):
            yield from _keys_of(shape, name + ".")
        if isinstance(shape, shapes.StructType | shapes.DictType):  # a table with free keys: see FREE_SECTIONS
            continue
        optional = isinstance(shape, shapes.UnionType)
        if isinstance(shape, shapes.UnionType):
            shape = next(part for part in shape.types if not isinstance(part, shapes.NoneType))
        yield Key(name, shape, optional, field.default)


KEYS: Final[Mapping[str, Key]] = {key.name: key for key in _keys_of(shapes.type_info(Config))}
"""Every configuration key by its dotted name, in the order of the configuration file."""

INSTRUMENT_KEYS: Final[Mapping[str, Key]] = {key.name: key for key in _keys_of(shapes.type_info(InstrumentConfig))}
"""What an entry [instruments."SYMBOL"] may say, by the last part of the key."""

FREE_SECTIONS: Final = ("instruments", "rates")
"""Sections whose keys the user names: `instruments."SYMBOL".KEY`, and `rates.CURRENCY`, a number or a RateSymbol."""

_RATE: Final = shapes.type_info(Rate)
_SYMBOL: Final = shapes.type_info(Symbol)

WITH_CREDENTIALS: Final = ("engine.ws_url", "notify.webhook_url")
"""Keys whose value is never shown unmasked."""

SECTIONS: Final = tuple(dict.fromkeys(name.split(".")[0] for name in KEYS if "." in name))


def flatten(config: Config) -> dict[str, Any]:
    """All values by dotted key, in the order of `KEYS`; then those of the free sections that are set."""
    flat: dict[str, Any] = {}
    for name in KEYS:
        section, _, leaf = name.rpartition(".")
        flat[name] = getattr(getattr(config, section) if section else config, leaf)
    for symbol, entry in config.instruments.items():
        said = {leaf: getattr(entry, leaf) for leaf in INSTRUMENT_KEYS}
        flat |= {free_name("instruments", symbol, leaf): each for leaf, each in said.items() if each is not None}
    return flat | {free_name("rates", currency): rate for currency, rate in config.rates.items()}


def build(values: Mapping[str, object]) -> Config:
    """The configuration with these (already checked) values by dotted key, and defaults for the rest."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *path, leaf = free_path(name) or name.split(".")
        table = nested
        for part in path:
            table = table.setdefault(part, {})
        table[leaf] = msgspec.to_builtins(value) if isinstance(value, RateSymbol) else value
    return msgspec.convert(nested, Config)


def free_name(*path: str) -> str:
    """The name of a key of a free section: as TOML has it, a symbol always in quotes."""
    section, *keys = path
    return ".".join(
        [section, *(toml(key) if section == "instruments" and not n else key for n, key in enumerate(keys))]
    )


def free_path(name: str) -> tuple[str, ...] | None:
    """Section, symbol and key, or section and currency, of a name such as `free_name` makes; None for other names.

    The symbol may stand without quotes, which a shell takes away, and a rate may end in `.symbol`.
    """
    section, _, rest = name.partition(".")
    if section == "rates":
        currency = rest.removesuffix(".symbol")
        return (section, currency) if re.fullmatch(r"[A-Za-z0-9]{1,32}", currency) else None
    symbol, _, leaf = rest.rpartition(".")
    if section != "instruments" or not symbol or leaf not in INSTRUMENT_KEYS:
        return None
    if symbol[:1] in ("'", '"'):
        try:
            symbol = tomllib.loads(f"symbol = {symbol}")["symbol"]
        except ValueError:
            return None
    return section, symbol, leaf


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ " (did you mean ...?)" when a known word is near, else nothing."""
    # Without the dashes of options, which would make any two of them alike.
    folded = {fold(name).strip("-"): name for name in known}
    near = difflib.get_close_matches(fold(word).strip("-"), folded, n=1, cutoff=0.6)
    return f" (did you mean {folded[near[0]]}?)" if near else ""


def near_key(key: str) -> str:
    """ " (did you mean ...?)" when a known key has a similar name, in this section or another one, else nothing."""
    section, _, leaf = key.rpartition(".")
    # Of two keys with one name, that of this section comes last and stays.
    names = sorted(KEYS, key=lambda name: name.rpartition(".")[0] == section)
    leaves = {fold(name.rpartition(".")[2]): name for name in names}
    near = difflib.get_close_matches(fold(leaf), leaves, n=1, cutoff=0.6)
    return f" (did you mean {leaves[near[0]]}?)" if near else ""


def toml(value: object) -> str:
    """A text, number, truth value or rate as a configuration file would have it, on one line and printable."""
    if isinstance(value, RateSymbol):
        return f"{{ symbol = {toml(value.symbol)} }}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return str(value)
    # Escaped: text from files and command lines must not be able to drive a terminal.
    return '"' + "".join(char if char.isprintable() and char not in '"\\' else _escape(char) for char in value) + '"'


def _escape(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def show(value: object) -> str:
    """Any value for an error message: printable, on one line, shortened when it is long, credentials in URLs masked."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, int) and abs(value) >= 10**30:
        return "a number of more than 30 digits"
    text = mask(toml(value))
    return text if len(text) <= 80 else text[:70] + '..."'


def check_value(name: str, value: object, checks: Checks = NO_CHECKS) -> object:
    """`value` as key `name` stores it (one spelling of enumerations, int made float where a float is meant).

    `checks` says more of single keys: a strategy's name must be looked up (`tradebot.strategy.registry.CHECKS`).
    Raises InvalidValue saying what is wrong with the value.
    """
    path = free_path(name)
    if path is not None:
        return _check_free(path, value)
    return _check_shape(KEYS[name].shape, name, value, checks)


def _check_free(path: tuple[str, ...], value: object) -> object:
    """A value of a free section. Raises InvalidValue."""
    _check_shape(_SYMBOL, "", path[1], NO_CHECKS)
    if path[0] == "instruments":
        return _check_shape(INSTRUMENT_KEYS[path[2]].shape, "", value, NO_CHECKS)
    if isinstance(value, RateSymbol):
        value = {"symbol": value.symbol}
    if isinstance(value, str):
        raise InvalidValue(f"must be a number, or a table such as {{ symbol = {show(value)} }}")
    if not isinstance(value, dict):
        return _check_shape(_RATE, "", value, NO_CHECKS)
    unknown = next((key for key in value if key != "symbol"), None)
    if unknown is not None:
        raise InvalidValue(f"unknown key {show(unknown)}{did_you_mean(unknown, ['symbol'])}")
    if "symbol" not in value:
        raise InvalidValue('must be a number, or a table such as { symbol = "EURUSDT" }')
    return RateSymbol(str(_check_shape(_SYMBOL, "", value["symbol"], NO_CHECKS)))


def _check_shape(shape: shapes.Type, name: str, value: object, checks: Checks) -> object:
    if isinstance(shape, shapes.BoolType):
        if not isinstance(value, bool):
            raise InvalidValue(f"must be true or false, not {show(value)}")
        return value
    if isinstance(shape, shapes.IntType | shapes.FloatType):
        return _check_number(shape, value)
    if not isinstance(value, str):
        raise InvalidValue(f"must be text in quotes, not {show(value)}")
    if isinstance(shape, shapes.LiteralType):
        return check_choice(value, [str(choice) for choice in shape.values])
    assert isinstance(shape, shapes.StrType)
    _check_text(shape, value)
    special = _SPECIAL.get(name) or checks.get(name)
    return value if special is None else special(value)


def value_of_text(name: str, text: str, checks: Checks) -> object:
    """What `text` from a command line means for key `name`, checked like `check_value`. Raises InvalidValue."""
    path = free_path(name)
    if path is not None and path[0] == "rates":
        number = _number_of(text)
        return check_value(name, {"symbol": text} if number is None else number)
    shape = KEYS[name].shape if path is None else INSTRUMENT_KEYS[path[-1]].shape
    if isinstance(shape, shapes.BoolType):
        return check_value(name, {"true": True, "false": False}.get(text.lower(), text))
    if isinstance(shape, shapes.IntType):
        if not re.fullmatch(r"[+-]?[0-9](_?[0-9]){0,39}", text):
            raise InvalidValue(f"must be a whole number, not {show(text)}")
        return check_value(name, int(text))
    if isinstance(shape, shapes.FloatType):
        number = _number_of(text)
        if number is None:
            raise InvalidValue(f"must be a number, not {show(text)}")
        return check_value(name, number)
    return check_value(name, text, checks)


def _number_of(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def check_choice(value: str, choices: Iterable[str]) -> str:
    """The choice that `value` means, in any case, with or without underscore. Raises InvalidValue."""
    known = {fold(choice): choice for choice in choices}
    choice = known.get(fold(value))
    if choice is None:
        names = ", ".join(known.values())
        raise InvalidValue(f"{show(value)} is not one of {names}{did_you_mean(value, known.values())}")
    return choice


def fold(word: str) -> str:
    """`word` with what does not tell two names apart taken out: case, underscores, space around it."""
    return word.lower().replace("_", "").strip()


def _readable(limit: float) -> str:
    return f"{int(limit) if limit == int(limit) else limit:_}"


def _check_number(shape: shapes.IntType | shapes.FloatType, value: object) -> int | float:
    whole = isinstance(shape, shapes.IntType)
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise InvalidValue(f"must be a {'whole ' if whole else ''}number, not {show(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidValue(f"must be a finite number, not {value}")
    if shape.ge is not None and value < shape.ge:
        raise InvalidValue(f"must be at least {_readable(shape.ge)}, not {show(value)}")
    if shape.gt is not None and value <= shape.gt:
        raise InvalidValue(f"must be more than {_readable(shape.gt)}, not {show(value)}")
    if shape.le is not None and value > shape.le:
        raise InvalidValue(f"must be at most {_readable(shape.le)}, not {show(value)}")
    return value if whole else float(value) + 0.0  # + 0.0 makes -0.0 the 0.0 it equals: the two must hash alike


def _check_text(shape: shapes.StrType, value: str) -> None:
    if not value.strip() and shape.min_length:
        raise InvalidValue("must not be empty")
    if shape.max_length is not None and len(value) > shape.max_length:
        raise InvalidValue(f"must have at most {shape.max_length} characters, not {len(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidValue("is not valid UTF-8") from None
    if re.search(r"[\x00-\x1f\x7f-\x9f]", value):
        raise InvalidValue(f"must not contain control characters: {show(value)}")


def _check_db_path(value: str) -> str:
    if value == ":memory:":
        raise InvalidValue("must be a file: every thread has its own connection, and :memory: would give each its own")
    return value


def _check_ws_url(value: str) -> str:
    return _check_url(value, "ws", "wss")


def _check_webhook_url(value: str) -> str:
    return _check_url(value, "http", "https")


def _check_url(value: str, plain: str, secure: str) -> str:
    # The value itself is never quoted: it may hold credentials.
    try:
        url = urlsplit(value)
        scheme, host = url.scheme, url.hostname
    except ValueError:
        raise InvalidValue("is not a valid URL: bad host") from None
    try:
        port = url.port
    except ValueError:
        raise InvalidValue("is not a valid URL: bad port") from None
    if scheme not in (plain, secure):
        raise InvalidValue(f"must begin with {plain}:// or {secure}://")
    if not host or port == 0 or re.search(r"\s", value):
        raise InvalidValue(f"is not a valid URL: it needs the form {plain}://HOST[:PORT][/PATH]")
    return value


def _check_hosts(value: str) -> str:
    for name in value.split(","):
        if not re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})", name.strip()):
            raise InvalidValue(f"{show(name.strip())} is not a host name; separate several with commas, without ports")
    return value


def check_name(text: str) -> str:
    """A name of a source, a run or the like. Raises InvalidValue."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}", text):
        raise InvalidValue(
            f"{show(text)} is not a valid name: use up to 64 letters and digits, with . _ : - between them"
        )
    return text


_SPECIAL: Final = {
    "app.db_path": _check_db_path,
    "engine.ws_url": _check_ws_url,
    "engine.ws_source": check_name,
    "metrics.hosts": _check_hosts,
    "notify.webhook_url": _check_webhook_url,
}


def listed(problems: Sequence[str]) -> str:
    """Several problems as the text of one error, one a line; a single one stands alone, of many the first are said."""
    if len(problems) == 1:
        return problems[0]
    more = [f"and {len(problems) - _LISTED_MAX} more"] if len(problems) > _LISTED_MAX else []
    return "\n".join([f"{len(problems)} things are wrong:", *problems[:_LISTED_MAX], *more])
