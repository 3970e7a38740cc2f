"""What a live feed remembers of each symbol, kept across restarts: which trades were seen, and recent prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

from tradebot.core.events import SequenceState, SymbolMemory, Tick
from tradebot.feeds.price_band import PriceBand
from tradebot.feeds.sequence_tracker import SequenceGuard

_CHUNK_TICKS: Final = 1000


class FeedMemory:
    """The memory of one feed (`store.takeover.Memory`): its guard, its band, and what the database does not know yet.

    Used by the main thread until the pipeline runs, then by ingest alone. `subscribed` are the symbols that the feed
    asks for, as the exchange writes them; `symbols_max` is how many the guard has room for.
    """

    def __init__(self, guard: SequenceGuard, band: PriceBand, subscribed: Sequence[str], symbols_max: int) -> None:
        self.guard = guard
        self.band = band
        self._subscribed = tuple(subscribed)
        self._symbols_max = symbols_max
        self._pending: set[str] = set()

    def restore(self, known: Sequence[tuple[str, SequenceState | None, tuple[float, ...]]]) -> None:
        """See `store.takeover.Memory`. Symbols of long ago take no room from those that are asked for."""
        states = {symbol: (sequence, prints) for symbol, sequence, prints in known}
        for symbol in chosen(list(states), self._subscribed, self._symbols_max):
            sequence, prints = states[symbol]
            if sequence is not None:
                self.guard.restore(symbol, sequence)
            self.band.restore(symbol, prints)

    def remember(self, ticks: Iterable[Tick]) -> None:
        """See `store.takeover.Memory`."""
        waiting = iter(ticks)
        while chunk := list(islice(waiting, _CHUNK_TICKS)):
            self.guard.remember(chunk)
            self.band.remember(chunk)

    def changed(self) -> tuple[SymbolMemory, ...]:
        """See `store.takeover.Memory`."""
        self._pending.update(self.guard.changed())
        state, recent = self.guard.state, self.band.recent
        return tuple(SymbolMemory(symbol, state(symbol), recent(symbol)) for symbol in sorted(self._pending))

    def confirmed(self) -> None:
        """See `store.takeover.Memory`."""
        self._pending.clear()


def chosen(known: Sequence[str], subscribed: Sequence[str], symbols_max: int) -> list[str]:
    """Which of the `known` symbols (the one traded last first) are restored where there is not room for all. Pure.

    Those that are asked for, in whatever case, and of the others as many as leave room for what is asked for and was
    never met.
    """
    asked = {symbol.casefold() for symbol in subscribed}
    wanted = [symbol for symbol in known if symbol.casefold() in asked]
    others = [symbol for symbol in known if symbol.casefold() not in asked]
    new = len(asked) - len({symbol.casefold() for symbol in wanted})
    return [*wanted, *others[: max(0, symbols_max - len(wanted) - new)]][:symbols_max]
