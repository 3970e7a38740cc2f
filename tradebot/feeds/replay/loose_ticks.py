"""Tick lines as other programs write them: prices and volumes as text, ids as numbers, times in many forms. Pure.

The side of the taker may be written in small letters. It is read from `taker` alone: what other programs call `side`
may be the maker's.

A time is an integer or a number with decimals, also as text, or an ISO 8601 text (in UTC unless it has an offset). The
unit of a number is told by its size, since the years 1990 to 2100 in seconds, milliseconds, microseconds and
nanoseconds do not overlap. The first good line of a file decides: in a file of microseconds or nanoseconds, or one that
begins with seconds with decimals, all numbers are in that unit; in any other, none is in micro- or nanoseconds. A line
that differs is refused. Integer seconds and milliseconds, and small integers of data without real times, are stored as
they came; all other times in milliseconds, what is beyond them cut off.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta, Struct

from tradebot.core.events import BUY, MAX_ID_CHARS, MAX_SYMBOL_CHARS, SELL, SEQ_MAX, TS_MS_MAX, Tick
from tradebot.feeds.exchanges.base import Unparseable, iso_ms, make_tick, side

_FROM_S: Final = 631_152_000  # 1990-01-01
_TO_S: Final = TS_MS_MAX // 1000


class _Unit(NamedTuple):
    """A unit of time: its name, and how many of it make a second."""

    name: str
    per_s: int


_SECONDS: Final = _Unit("seconds", 1)
_MILLISECONDS: Final = _Unit("milliseconds", 1000)
_FINER: Final = (_Unit("microseconds", 1_000_000), _Unit("nanoseconds", 1_000_000_000))
_NUMBER_TEXT: Final = re.compile(r"\d{9,19}(?:\.\d{1,9})?", re.ASCII)
_UNITS: Final = (_SECONDS, _MILLISECONDS, *_FINER)


class _Line(Struct):
    """The fields of a line."""

    symbol: Annotated[str, Meta(min_length=1, max_length=MAX_SYMBOL_CHARS)]
    price: float | str
    volume: float | str
    ts: int | float | str
    event_id: Annotated[str, Meta(min_length=1, max_length=MAX_ID_CHARS)] | int | None = None
    seq: Annotated[int, Meta(ge=0, le=SEQ_MAX)] | None = None
    taker: str | None = None


class LooseDecoder:
    """Decodes the lines of one file in order."""

    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(_Line).decode
        self._unit: _Unit | None = None
        self._converts = False

    @property
    def takes_integers_as_they_come(self) -> bool:
        """Whether an integer time up to TS_MS_MAX is stored unchanged; also true before the first valid line."""
        return not self._converts

    def took_integer(self) -> None:
        """Record that a valid line had an integer time up to TS_MS_MAX."""
        self._unit = self._unit or _MILLISECONDS

    def decode(self, line: bytes) -> Tick | None:
        """The tick of a line in one of these forms, or None. Raises Unparseable with a more exact reason."""
        try:
            found = self._decode(line)
        except (msgspec.DecodeError, UnicodeError):
            return None
        ts: int | float | Decimal | str = found.ts
        usual_time = type(ts) is int and ts <= TS_MS_MAX and not self._converts
        loose = isinstance(found.price, str) or isinstance(found.volume, str) or type(found.event_id) is int
        if usual_time and not loose and found.taker in (None, BUY, SELL):
            return None
        taker = side(found.taker)
        if taker is None and found.taker is not None:
            raise Unparseable("taker: neither BUY nor SELL")
        if isinstance(ts, str) and _NUMBER_TEXT.fullmatch(ts):
            ts = Decimal(ts) if "." in ts else int(ts)
        unit, ts_ms = self._time(ts)
        tick = make_tick(found.symbol, found.price, found.volume, ts_ms, found.event_id, found.seq, taker)
        if self._unit is None:
            # Files with seconds that have decimals also have some that have none.
            self._converts = unit in _FINER or (unit is _SECONDS and type(ts) is not int)
            self._unit = unit
        return tick

    def _time(self, ts: int | float | Decimal | str) -> tuple[_Unit, int]:
        """The unit of a time, and the value to store. Raises Unparseable."""
        if isinstance(ts, str):
            return self._unit or _MILLISECONDS, iso_ms(ts, "ts")
        unit, as_it_came = _unit_of(ts), type(ts) is int and not self._converts
        if unit is None:
            if as_it_came and 0 <= ts <= TS_MS_MAX:
                return _MILLISECONDS, int(ts)
            raise Unparseable("ts: not a time from 1990 to 2100 in seconds, milli-, micro- or nanoseconds")
        if self._unit not in (None, unit) and (self._converts or unit in _FINER):
            here = self._unit.name if self._converts and self._unit else "seconds or milliseconds"
            raise Unparseable(f"ts: in {unit.name}, but the first time of this file is in {here}")
        if as_it_came and unit not in _FINER:
            return unit, int(ts)
        return unit, int(Decimal(str(ts)) * 1000 / unit.per_s)


def _unit_of(ts: float | Decimal) -> _Unit | None:
    """The unit in which `ts` is a time from 1990 to 2100, if there is one."""
    return next((unit for unit in _UNITS if _FROM_S * unit.per_s <= ts < _TO_S * unit.per_s), None)
