"""What a strategy is: ticks of one symbol in, decisions out. Pure: no thread, clock, random or database here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from msgspec import Struct

from tradebot.core.events import Notice, Side, Tick

if TYPE_CHECKING:
    from tradebot.config.model import Config

Observer = Callable[[Mapping[str, object]], None]


class Decision(NamedTuple):
    """A signal to be: the tick at `index` of the ticks handed in calls for `side`; `reason` is a reason code."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which no one looks for here
    side: Side
    reason: str


class SymbolHistory(Struct, frozen=True, gc=False):
    """The part of one symbol's history that a restart provides.

    `prices` are its last ticks' prices, oldest first, at least the strategy's `lookback` of them where that many exist
    (more do no harm). `last_side` is that of its last signal, none when it never gave one. `ticks_since_signal`
    counts its ticks after the one that gave the last signal, or all its ticks when it never gave one; where it is
    None, the number of `prices` stands for it.
    """

    prices: tuple[float, ...] = ()
    last_side: Side | None = None
    ticks_since_signal: int | None = None


class Strategy(ABC):
    """Turns ticks into decisions, with its own bounded state per symbol.

    One thread at a time may use an instance; nothing blocks. How a symbol's ticks are cut into calls never changes
    what is decided. A strategy is a subclass with a `name` in a module of its own in this folder: the registry finds
    it there, nothing else is to be edited.
    """

    name: ClassVar[str]
    """What `strategy.name` in the configuration and `--strategy` call it."""

    unread: ClassVar[frozenset[str]] = frozenset()
    """Configuration keys of strategies that this one does not read: they do not enter the run id of its replays."""

    lookback: int
    """How many last prices of a symbol `restore` needs."""

    observer: Observer | None = None
    """Called with the fields of a debug record for each tick, where the strategy has such records; None costs nothing.

    The mapping handed over is the observer's to keep.
    """

    @classmethod
    @abstractmethod
    def from_config(cls, config: Config) -> Strategy:
        """A fresh strategy with its parameters from `config`. Raises ConfigError when they make no sense."""

    @abstractmethod
    def on_ticks(self, symbol: str, ticks: Sequence[Tick]) -> list[Decision]:
        """Decide on the next ticks of `symbol`, all of them its own, in order of arrival; prices > 0 and finite.

        Decisions come in order of their index into `ticks`, at most one a tick.
        """

    def on_notice(self, notice: Notice) -> None:  # noqa: B027 - most strategies have no use for it
        """A live feed's link was lost or restored, or trades are missing, at this place between two ticks.

        Decides nothing by itself, but may change what comes: reset windows, wait for fresh ticks. Default: nothing.
        """

    @abstractmethod
    def restore(self, symbol: str, history: SymbolHistory) -> None:
        """Replace what is known of `symbol` by the state after `history`. Decides nothing."""
