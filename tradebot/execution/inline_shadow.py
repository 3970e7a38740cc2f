"""SHADOW with breakers: inside the strategy stage, because what is refused depends on ticks and earlier fills. Pure.

Until a breaker trips, its rows are those of `ShadowExecution` in a thread of its own: that is what executes here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec

from tradebot.core.events import BUY, SELL, Notice, Order, Signal, Tick, TickOutcome, as_unix_ms
from tradebot.core.ids import event_prefix, signal_id
from tradebot.execution.breakers import Breakers
from tradebot.execution.shadow import ShadowExecution
from tradebot.execution.timing import TimingRefusals
from tradebot.execution.trips import Release, Trip, as_notice
from tradebot.portfolio.exact import ZERO, add, exact, subtract
from tradebot.portfolio.money import Money
from tradebot.portfolio.positions import Positions, PositionState
from tradebot.portfolio.round_trips import RoundTrips
from tradebot.strategy.base import Decision

STATE_VERSION: Final = 1


class InlineShadow:
    """Signals, orders, fills and notices of one run in SHADOW. Owned by one thread; nothing blocks.

    Memory is bounded by the number of symbols. How ticks are cut into calls changes nothing.
    """

    view = None
    """SHADOW has no account."""

    def __init__(
        self,
        run_id: str,
        desired_size: float,
        confidence: float,
        shadow: ShadowExecution,
        breakers: Breakers,
        initial_balance: float,
        refusals: TimingRefusals | None = None,
    ) -> None:
        """`initial_balance` (USD) is what equity starts from: SHADOW itself needs no money.

        `refusals` are those that a replay of a stored run repeats.
        """
        self.breakers = breakers
        self._run_id = run_id
        self._desired_size = desired_size
        self._confidence = confidence
        self._shadow = shadow
        self.refusals = refusals
        self._worth = _Worth(exact(initial_balance))
        self._round_trips = RoundTrips()
        self._event_ms: dict[str, int] = {}
        self._now_ms = 0
        self._notices: list[Notice] = []

    def publish(self) -> None:
        """Nothing to do: there is no account."""

    @property
    def positions(self) -> Positions:
        """What the fills so far add up to."""
        return self._shadow.positions

    @property
    def money(self) -> Money:
        """The instruments and rates it uses."""
        return self._shadow.money

    @property
    def fees_before(self) -> Mapping[str, float]:
        """By symbol: the fees of the fills of earlier runs that this one continues."""
        return self._shadow.fees_before

    def refusal_text(self, order: Order) -> str:
        """Why `order`, one of the newest that were refused, was refused, for people."""
        return self._shadow.refusal_text(order)

    def on_notice(self, notice: Notice) -> None:
        """Take note of a halt, a resume or a restart at its place between two ticks.

        The breakers that it releases are notices of the next tick.
        """
        for change in self.breakers.on_notice(notice):
            self._notices.append(as_notice(change, notice.ticks_before))

    def on_ticks(
        self, symbol: str, ticks: Sequence[Tick], first_number: int, decisions: Sequence[Decision]
    ) -> list[TickOutcome]:
        """What consecutive ticks of `symbol` cause, by tick; those that cause nothing are left out.

        `first_number` is the number of the first of them in the run, `decisions` are the strategy's on them, by index.
        Raises ValueError for a decision that has no side.
        """
        outcomes: list[TickOutcome] = []
        position = 0
        for index, tick in enumerate(ticks):
            number = first_number + index
            notices = self._watch(tick, number)
            signals: list[Signal] = []
            orders: list[Order] = []
            while position < len(decisions) and decisions[position].index == index:
                signals.append(self._signal(tick, number, len(signals) + 1, decisions[position]))
                orders.append(self._execute(signals[-1], number, notices))
                position += 1
            if signals or notices:
                outcomes.append(TickOutcome(tick, number, tuple(signals), tuple(orders), notices=tuple(notices)))
        return outcomes

    # ---- one tick --------------------------------------------------------------------------------------------------

    def _watch(self, tick: Tick, number: int) -> list[Notice]:
        """Mark positions and rates at `tick`, and let the breakers look, unless the tick is late."""
        symbol, price, ts = tick.symbol, tick.price, as_unix_ms(tick.ts)
        notices, self._notices = self._notices, []
        self.positions.mark(symbol, price)
        rates = self.money.rates
        if rates.symbols:
            rates.on_price(symbol, price)
        breakers = self.breakers
        if ts < self._event_ms.get(symbol, 0) or not breakers.active:
            return notices
        self._event_ms[symbol] = ts
        self._now_ms = max(self._now_ms, ts)
        equity = ZERO
        if breakers.needs_equity:
            self._worth.value(symbol, self.positions, self.money)
            equity = self._worth.equity(self.money)
        self._add_notices(breakers.on_tick(self._now_ms, symbol, ts, equity), number, notices)
        return notices

    def _signal(self, tick: Tick, number: int, n: int, decision: Decision) -> Signal:
        if decision.side not in (BUY, SELL):
            raise ValueError(f"a strategy decided for side {decision.side!r}, which is not a side")
        return Signal(
            event_id=signal_id(event_prefix(self._run_id, number), n),
            symbol=tick.symbol,
            side=decision.side,
            confidence=self._confidence,
            reason=decision.reason,
            desired_size=self._desired_size,
            price=tick.price,
            ts=tick.ts,
        )

    def _execute(self, signal: Signal, number: int, notices: list[Notice]) -> Order:
        """The order for `signal`, and what it means to the breakers."""
        breakers, symbol, positions = self.breakers, signal.symbol, self.positions
        blocked = breakers.refusal(symbol)
        net, realized = positions.at_stake(symbol)[0], positions.realized(symbol)
        refused = None if self.refusals is None else self.refusals.of(number, signal.ts)
        order = self._shadow.execute(signal, None, blocked, refused)
        if not order.fills:
            self._add_notices(breakers.on_refusal(self._now_ms, order.reason), number, notices)
            return order
        for fill in order.fills:
            self._worth.pay(symbol, fill.fees)
            earned = subtract(positions.realized(symbol), realized)
            profit = self._round_trips.on_fill(symbol, net, positions.at_stake(symbol)[0], earned, fill.fees)
            if profit is not None:
                self._add_notices(breakers.on_fill_closed(self._now_ms, profit), number, notices)
        self._add_notices(breakers.on_order(self._now_ms), number, notices)
        return order

    def _add_notices(self, changes: Iterable[Trip | Release], number: int, notices: list[Notice]) -> None:
        notices += [as_notice(change, number) for change in changes]

    # ---- restart ---------------------------------------------------------------------------------------------------

    def continue_as(self, run_id: str) -> None:
        """The ticks that follow belong to run `run_id`, which continues where those before it ended."""
        self._run_id = run_id
        self._shadow.restore((), (), self.positions)

    def take_over(self, marks: Iterable[tuple[str, float]], positions: Positions) -> None:
        """Continue from what runs without breakers left behind: `positions`, and the prices as of the same moment."""
        self._shadow.restore((), marks, positions)
        self._worth.begin(positions.states())

    def state(self) -> bytes:
        """What a restart continues from: bounded."""
        found = {
            "version": STATE_VERSION,
            "now_ms": self._now_ms,
            "event_ms": self._event_ms,
            "breakers": self.breakers.state(),
            "round_trips": self._round_trips.state(),
            "rates": self.money.rates.state(),
            "positions": [position.plain() for position in self.positions.states()],
            "fees": self._worth.fees(),
            "notices": self._notices,
        }
        return msgspec.msgpack.encode(found)

    def restore(self, state: bytes) -> None:
        """Continue from what `state` gave. Raises ValueError when that is of another version or damaged."""
        found: Any = msgspec.msgpack.decode(state)
        if not isinstance(found, dict) or found.get("version") != STATE_VERSION:
            raise ValueError(f"the state of SHADOW with breakers is not of version {STATE_VERSION}")
        states = [PositionState.of_plain(position) for position in found["positions"]]
        self.money.rates.restore(found["rates"])
        self._shadow.restore((), (), Positions.of(states, self.money.instruments))
        self._worth.begin(states, found["fees"])
        self._now_ms, self._event_ms = found["now_ms"], found["event_ms"]
        self.breakers.restore(found["breakers"])
        self._round_trips.restore(found["round_trips"])
        self._notices = msgspec.convert(found["notices"], list[Notice])


class _Worth:
    """Equity in the account currency: the balance at the start, and the profit of every symbol after fees. Exact.

    Kept up to date by the symbol of each tick, so that a tick costs the same however many symbols there are.
    """

    def __init__(self, balance: Decimal) -> None:
        self._balance = balance
        self._fees: dict[str, Decimal] = {}
        self._earned: dict[str, Decimal] = {}
        self._sums: dict[str | None, Decimal] = {}
        self._unvalued: set[str] = set()

    def begin(self, states: Iterable[PositionState], fees: Mapping[str, str] | None = None) -> None:
        """Start from these positions; `fees` is the result of `fees()` where a state has it."""
        known = list(states)
        self._fees = {one.symbol: exact(one.fees) for one in known}
        self._fees |= {symbol: Decimal(paid) for symbol, paid in (fees or {}).items()}
        self._earned.clear()
        self._sums.clear()
        self._unvalued = {one.symbol for one in known}

    def fees(self) -> dict[str, str]:
        """The fees of each symbol as exact text."""
        return {symbol: str(paid) for symbol, paid in self._fees.items()}

    def pay(self, symbol: str, fees: float) -> None:
        """Add the fees of a fill of `symbol`. The next call of `value` computes its profit again."""
        self._fees[symbol] = add(self._fees.get(symbol, ZERO), exact(fees))
        self._unvalued.add(symbol)

    def value(self, symbol: str, positions: Positions, money: Money) -> None:
        """Take in what `symbol`, and every symbol with a fill since, has earned at its last price."""
        if symbol in self._fees:
            self._unvalued.add(symbol)
        for name in self._unvalued:
            earned = subtract(positions.profit(name), self._fees.get(name, ZERO))
            currency = money.instruments.of(name).currency
            change = subtract(earned, self._earned.get(name, ZERO))
            self._earned[name] = earned
            self._sums[currency] = add(self._sums.get(currency, ZERO), change)
        self._unvalued.clear()

    def equity(self, money: Money) -> Decimal:
        """The sum in the account currency at current rates; what has no rate counts 1:1."""
        total = self._balance
        for currency, earned in self._sums.items():
            total = add(total, money.rates.in_account(earned, currency))
        return total
