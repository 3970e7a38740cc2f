"""PAPER: decisions become orders, which trade prints fill. No network. Pure.

Everything is a function of the ticks, notices and decisions in their order, and of the configuration. Time is event
time. What happens at one tick, and in which order, is `PaperExecution._at_tick`, with `SymbolVenue.on_print` for the
part of the venue.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tradebot.core.events import (
    BUY,
    HALTED,
    LIQUIDATED,
    SELL,
    Notice,
    Order,
    Side,
    Tick,
    TickOutcome,
    as_unix_ms,
)
from tradebot.execution.breakers import Breakers
from tradebot.execution.desk import PaperDesk
from tradebot.execution.order_entry import OrderEntry, PaperSettings
from tradebot.execution.orders import Cancel, Command, OrderRequest, working
from tradebot.execution.paper_view import PaperView, view_of
from tradebot.execution.risk import refusal_text
from tradebot.execution.timing import TimingRefusals
from tradebot.execution.trips import Release, Trip, as_notice
from tradebot.execution.venue import SymbolVenue
from tradebot.portfolio.account import Account
from tradebot.portfolio.exact import ZERO
from tradebot.portfolio.money import Money
from tradebot.portfolio.positions import Positions
from tradebot.strategy.base import Decision

if TYPE_CHECKING:
    from tradebot.config.model import RiskCaps
    from tradebot.config.money import AccountConfig

STATE_VERSION: Final = 1


class PaperExecution:
    """Orders, fills and the account of one run. Owned by one thread; nothing blocks.

    Memory is bounded by the symbols and by the orders that are open. How ticks are cut into calls changes nothing.
    """

    def __init__(
        self, run_id: str, settings: PaperSettings, money: Money, account: AccountConfig, caps: RiskCaps,
        breakers: Breakers, refusals: TimingRefusals | None = None, configured: str = "",
    ) -> None:  # fmt: skip
        """`refusals` are those that a replay of a stored run repeats.

        `configured` is the configuration of all of this as text: part of each state (`configured_of`).
        """
        self.configured = configured
        self._settings = settings
        self.money = money
        self.breakers = breakers
        self._account = Account(account, money.instruments, money.rates)
        self._margin = not self._account.is_spot
        self._marks_first = self._margin or bool(money.rates.symbols)  # fills of spot in dollars need no prices
        self._watches = breakers.active or self._margin  # something is decided by the account at each tick
        self._desk = PaperDesk(run_id, self._account, money.instruments, breakers.active)
        self._venues: dict[str, SymbolVenue] = {}
        self._entry = OrderEntry(settings, self._desk, self._venues, money, caps, breakers)
        self.refusals = refusals
        self._now_ms = 0
        self._notices: list[Notice] = []
        self._view = self._look()
        self.fees_before: Mapping[str, float] = {}
        """By symbol: the fees of the fills of the earlier runs that this one continues."""

    # ---- what the stage calls --------------------------------------------------------------------------------------

    @property
    def positions(self) -> Positions:
        """What the fills so far add up to."""
        return self._account.positions

    @property
    def account(self) -> Account:
        """Cash, positions and what is held back; to be read only."""
        return self._account

    @property
    def taker_sides(self) -> tuple[int, int]:
        """For how many prints the sender named the taker, and for how many the tick rule inferred it."""
        tapes = [venue.tape for venue in self._venues.values()]
        return sum([tape.sided for tape in tapes]), sum([tape.inferred for tape in tapes])

    @property
    def view(self) -> PaperView:
        """The account as it was at the last `publish`. Any thread may read."""
        return self._view

    def publish(self) -> None:
        """Bring `view` up to date."""
        self._view = self._look()

    def _look(self) -> PaperView:
        open_orders = sum([len(venue.orders) for venue in self._venues.values()])
        return view_of(self._account, self.money.rates, open_orders, self._entry.closed is not None, self.taker_sides)

    def venue(self, symbol: str) -> SymbolVenue:
        """The venue of `symbol`; to be read only."""
        found = self._venues.get(symbol)
        if found is None:
            instrument = self.money.instruments.of(symbol)
            found = self._venues[symbol] = SymbolVenue(instrument, self._settings.paper, self._desk)
        return found

    def refusal_text(self, order: Order) -> str:
        """Why `order`, one of the newest that were refused, was refused, for people."""
        return refusal_text(order, self.money, self.positions)

    def on_notice(self, notice: Notice) -> None:
        """Take note of a gap, a lost link, a halt or a resume at its place between two ticks.

        What follows from it is part of the outcome of the next tick.
        """
        if notice.kind == "GAP" and notice.symbol is not None:
            gapped = self._venues.get(notice.symbol)
            if gapped is not None:
                gapped.mark_gap()
        elif notice.kind in ("LINK_LOST", "RESTART"):  # prints were missed meanwhile
            for venue in self._venues.values():
                venue.mark_gap()
        changes = self.breakers.on_notice(notice)
        self._notices += [as_notice(change, notice.ticks_before) for change in changes]
        if notice.kind == "HALT" and self.breakers.cancel_open:
            self._cancel_open(HALTED)

    def on_ticks(
        self, symbol: str, ticks: Sequence[Tick], first_number: int, decisions: Sequence[Decision]
    ) -> list[TickOutcome]:
        """What consecutive ticks of `symbol` cause, by tick; those that cause nothing are left out.

        `first_number` is the number of the first of them in the run, `decisions` are the strategy's on them, by index.
        Raises ValueError for a decision that has no side.
        """
        venue = self.venue(symbol)
        outcomes: list[TickOutcome] = []
        at, position = 0, 0
        while at < len(ticks):
            end = len(ticks) if position == len(decisions) else decisions[position].index + 1
            # Ticks that can touch no order pass at once, up to and with the next one that is decided on.
            reached = at if self._watches and self._looks_at_each_tick(symbol) else venue.observe(ticks, at, end)
            passed = reached == end
            index = reached - 1 if passed else reached
            begin = position
            while position < len(decisions) and decisions[position].index == index:
                position += 1
            if position > begin or not passed:
                tick = ticks[index]
                commands = [self._entry.command(tick, decision) for decision in decisions[begin:position]]
                outcome = self._at_tick(venue, tick, first_number + index, commands, passed)
                if outcome is not None:
                    outcomes.append(outcome)
            at = index + 1
        self._mark(venue)
        return outcomes

    def on_tick(self, tick: Tick, number: int, commands: Sequence[Command] = ()) -> TickOutcome | None:
        """What one tick causes, and the commands that are given at its end; None: nothing.

        Raises ValueError for a command that contradicts itself.
        """
        for command in commands:
            if not isinstance(command, Cancel):
                command.request.check()
        venue = self.venue(tick.symbol)
        outcome = self._at_tick(venue, tick, number, commands, passed=False)
        self._mark(venue)
        return outcome

    # ---- one tick --------------------------------------------------------------------------------------------------

    def _at_tick(
        self, venue: SymbolVenue, tick: Tick, number: int, commands: Sequence[Command], passed: bool
    ) -> TickOutcome | None:
        """All that one tick does, in this order; `passed`: the venue has seen it, and it touches no order."""
        desk, on_time = self._desk, False
        if self._marks_first:
            self._mark(venue)  # at the print before this one, at which fills find the account
        now_ms = venue.tape.now_ms
        desk.begin(tick, number, now_ms if passed else max(now_ms, as_unix_ms(tick.ts)))
        if self._notices:
            desk.notices += self._notices  # of what was decided between the ticks
            self._notices.clear()
        if not passed:
            on_time = venue.on_print(tick)  # event time; ends that are due; arrivals; quote; triggers; fills
        if commands or self._watches:
            self._mark(venue)
        if self._watches and on_time:
            self._watch_account(venue, tick)  # breakers, liquidation
        counts = self.breakers.active
        if counts:
            self._count_orders()  # those that the venue refused
        if commands and self.refusals is not None:
            self._entry.repeated = self.refusals.of(number, tick.ts)
        for command in commands:
            self._entry.obey(venue, tick, command)  # these orders never see this print
            if counts:
                self._count_orders()  # the next command may find a breaker tripped
        return desk.outcome()

    def _looks_at_each_tick(self, symbol: str) -> bool:
        """Whether every tick of `symbol` may have consequences, even where no order is open."""
        if self.breakers.active or self._notices:
            return True
        if not self._margin or self._entry.closed is not None:
            return False
        return bool(self.positions.at_stake(symbol)[0]) or symbol in self.money.rates.symbols

    def _mark(self, venue: SymbolVenue) -> None:
        """Value positions and rates at the newest print."""
        tape = venue.tape
        if tape.last_price:
            self._account.mark(venue.instrument.symbol, tape.last_price)
            if tape.now_ms > self._now_ms:
                self._now_ms = tape.now_ms

    # ---- account and breakers --------------------------------------------------------------------------------------

    def _watch_account(self, venue: SymbolVenue, tick: Tick) -> None:
        breakers, symbol = self.breakers, venue.instrument.symbol
        if breakers.active:
            equity = self._account.equity() if breakers.needs_equity else ZERO
            self._take_changes(breakers.on_tick(self._now_ms, symbol, as_unix_ms(tick.ts), equity))
            for profit in self._desk.closed:
                self._take_changes(breakers.on_fill_closed(self._now_ms, profit))
            self._desk.closed.clear()
        if self._margin and self._entry.closed is None and self._account.is_ruined():
            self._liquidate()

    def _count_orders(self) -> None:
        """What became of orders since the last call counts for the breakers per minute."""
        breakers, desk = self.breakers, self._desk
        accepted, desk.accepted = desk.accepted, 0
        refusals, desk.refusals = desk.refusals, []
        for _ in range(accepted):
            self._take_changes(breakers.on_order(self._now_ms))
        for reason in refusals:
            self._take_changes(breakers.on_refusal(self._now_ms, reason))

    def _take_changes(self, changes: Iterable[Trip | Release]) -> None:
        for change in changes:
            self._desk.notices.append(as_notice(change, self._desk.number))
            if isinstance(change, Trip) and self.breakers.cancel_open:
                self._cancel_open(change.code, change.symbol)

    def _cancel_open(self, reason: str, symbol: str | None = None) -> None:
        """Ask for the end of all open orders, those of `symbol` alone where it is given."""
        for name, venue in self._venues.items():
            if symbol is None or name == symbol:
                for order_id in [order.order_id for order in venue.orders]:
                    venue.cancel(order_id, reason)

    def _liquidate(self) -> None:
        """Nothing is left: all orders end, and each position is closed at the next prints of its symbol."""
        self._entry.closed = LIQUIDATED
        for name in sorted(self._venues):
            self._venues[name].cancel_all(LIQUIDATED)
        for state in self.positions.states():
            if not state.net:
                continue
            side: Side = SELL if state.net > ZERO else BUY
            venue, qty = self.venue(state.symbol), state.net.copy_abs()
            signal = self._desk.new_signal(state.symbol, side, 1.0, LIQUIDATED, float(qty), state.price)
            request = OrderRequest(state.symbol, side, qty, reduce_only=True)
            venue.submit(working(request, self._desk.new_order_id(), signal.event_id, state.price), latency_ms=0)

    # ---- restart ---------------------------------------------------------------------------------------------------

    def state(self) -> bytes:
        """What a restart continues from: bounded."""
        found = {
            "version": STATE_VERSION,
            "configured": self.configured,
            "now_ms": self._now_ms,
            "closed": self._entry.closed,
            "account": self._account.state(),
            "rates": self.money.rates.state(),
            "breakers": self.breakers.state(),
            "round_trips": self._desk.round_trips.state(),
            "venues": {symbol: venue.state() for symbol, venue in self._venues.items()},
            "notices": self._notices,
        }
        return msgspec.msgpack.encode(found)

    def continue_as(self, run_id: str) -> None:
        """The ticks that follow belong to run `run_id`, which continues where those before it ended."""
        self._desk.continue_as(run_id)
        self.fees_before = {view.symbol: view.fees for view in self.positions.views()}
        self.publish()

    def restore(self, state: bytes) -> None:
        """Continue from what `state` gave. Raises ValueError when that is of another version or damaged."""
        found: Any = msgspec.msgpack.decode(state)
        if not isinstance(found, dict) or found.get("version") != STATE_VERSION:
            raise ValueError(f"the state of PAPER is not of version {STATE_VERSION}")
        self._now_ms, self._entry.closed = found["now_ms"], found["closed"]
        self.money.rates.restore(found["rates"])
        self._account.restore(found["account"])
        self.breakers.restore(found["breakers"])
        self._desk.round_trips.restore(found["round_trips"])
        self._notices = msgspec.convert(found["notices"], list[Notice])
        self._venues.clear()
        for symbol, state_of_venue in found["venues"].items():
            self.venue(symbol).restore(state_of_venue)


def configured_of(state: bytes) -> str | None:
    """The `configured` of the executor that gave `state`; None where it had none, or there is no such state."""
    found: Any = msgspec.msgpack.decode(state)
    return found.get("configured") or None if isinstance(found, dict) else None
