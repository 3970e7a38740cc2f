"""The order of the trades of one frame: each symbol oldest first, however the exchange sends them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tradebot.core.events import Tick


def in_time_order(ticks: list[Tick]) -> list[Tick]:
    """Each symbol's ticks sorted by time, stably, within the positions the symbol occupied in `ticks`.

    Returns `ticks` itself when nothing is to be moved.
    """
    latest = -1
    for tick in ticks:
        if tick.ts < latest:
            return _sorted(ticks)
        latest = tick.ts
    return ticks


def _sorted(ticks: Sequence[Tick]) -> list[Tick]:
    positions: dict[str, list[int]] = {}
    for index, tick in enumerate(ticks):
        positions.setdefault(tick.symbol, []).append(index)
    result = list(ticks)
    for places in positions.values():
        for place, tick in zip(places, sorted([ticks[place] for place in places], key=_time), strict=True):
            result[place] = tick
    return result


def _time(tick: Tick) -> int:
    return tick.ts


def index_of_first(ticks: Sequence[Tick], wanted: Iterable[Tick]) -> int:
    """The lowest index in `ticks` of one of `wanted` (these very objects, one of which is there)."""
    identities = {id(tick) for tick in wanted}
    return next(index for index, tick in enumerate(ticks) if id(tick) in identities)
