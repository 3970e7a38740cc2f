"""The interface of execution to the rest of the engine, and that of execution inside the strategy stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from tradebot.core.events import Notice, Order, Tick, TickOutcome
from tradebot.execution.breakers import Breakers
from tradebot.execution.paper_view import PaperView
from tradebot.execution.timing import TimingRefusals
from tradebot.portfolio.money import Money
from tradebot.portfolio.positions import Positions
from tradebot.strategy.base import Decision


class Executor(Protocol):
    """Turns decisions into orders and fills. Owned by one thread; nothing blocks."""

    @property
    def positions(self) -> Positions:
        """What the fills so far add up to."""
        ...

    @property
    def money(self) -> Money:
        """The instruments and rates it uses."""
        ...

    @property
    def fees_before(self) -> Mapping[str, float]:
        """By symbol: the fees of the fills of earlier runs that this one continues."""
        ...

    @property
    def view(self) -> PaperView | None:
        """The account as it was at the last `publish`; None in SHADOW. Any thread may read."""
        ...

    def refusal_text(self, order: Order) -> str:
        """Why `order`, one of the newest that were refused, was refused, for people."""
        ...


class InlineExecutor(Executor, Protocol):
    """Ticks, notices and decisions in, everything that they cause out: a pure function of these, in their order."""

    refusals: TimingRefusals | None
    """Which signals are refused for their timing."""

    @property
    def breakers(self) -> Breakers:
        """What may block orders; any thread may read their `view`."""
        ...

    def on_notice(self, notice: Notice) -> None:
        """Take note of a gap, a lost link, a halt or a resume at its place between two ticks.

        What follows from it is part of the outcome of the next tick.
        """
        ...

    def on_ticks(
        self, symbol: str, ticks: Sequence[Tick], first_number: int, decisions: Sequence[Decision]
    ) -> list[TickOutcome]:
        """What consecutive ticks of `symbol` cause, by tick; those that cause nothing are left out.

        `first_number` is the number of the first of them in the run, `decisions` are the strategy's on them. How ticks
        are cut into calls never changes a result. Raises ValueError for a decision that has no side.
        """
        ...

    def publish(self) -> None:
        """Bring `view` up to date."""
        ...

    def state(self) -> bytes:
        """What a restart continues from: bounded."""
        ...

    def continue_as(self, run_id: str) -> None:
        """The ticks that follow belong to run `run_id`, which continues where those before it ended."""
        ...

    def restore(self, state: bytes) -> None:
        """Continue from what `state` gave. Raises ValueError when it is not of this version."""
        ...
