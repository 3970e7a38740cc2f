"""Breakers: conditions under which no order that adds exposure is sent. Pure; the time is event time.

Each breaker of [breakers] trips when its value reaches its limit (STALE_MARKET: exceeds it), and stays tripped:

| code | value | released |
|---|---|---|
| MAX_DRAWDOWN | how far equity is below its peak, in percent of the peak | by a RESUME, which sets the peak to equity |
| DAILY_LOSS | how far equity is below that of the last tick before 00:00 UTC | at the first tick of the next day |
| LOSSES_IN_A_ROW | losing trades since the last one that lost nothing | by a RESUME, which starts the count at 0 |
| REFUSALS_PER_MINUTE | orders refused within 60 s | at the first tick 60 s later |
| ORDERS_PER_MINUTE | orders accepted within 60 s | at the first tick 60 s later |
| STALE_MARKET | ms between two ticks of one symbol; concerns that symbol only | at its next tick that is not too late |

A HALT stops all symbols until a RESUME or a RESTART: a start that is halted begins with a HALT of its own. What a
tripped breaker means for open orders is for the caller (`Breakers.cancel_open`).
"""

from __future__ import annotations

from collections import deque
from decimal import Context, Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from tradebot.core.events import (
    DAILY_LOSS,
    HALTED,
    LOSSES_IN_A_ROW,
    MAX_DRAWDOWN,
    ORDERS_PER_MINUTE,
    REFUSALS_PER_MINUTE,
    STALE_MARKET,
    LimitBreach,
    Notice,
)
from tradebot.execution.risk import Refusal
from tradebot.execution.trips import BLOCKING, KEYS, STALE_NAMED_MAX, BreakersView, Release, Trip
from tradebot.portfolio.exact import exact, finite, multiply, subtract

if TYPE_CHECKING:
    from tradebot.config.model import BreakersConfig

MINUTE_MS: Final = 60_000
DAY_MS: Final = 86_400_000

_BY_RESUME: Final = (MAX_DRAWDOWN, LOSSES_IN_A_ROW)
_PER_MINUTE: Final = (REFUSALS_PER_MINUTE, ORDERS_PER_MINUTE)
_HUNDRED: Final = Decimal(100)
_SHOWN: Final = Context(prec=12)
"""Rounds a percentage that is shown; what is decided is compared without dividing."""


class _State(Struct):
    """All that a restart needs. Decimals are text, so that any encoding keeps them exact."""

    now_ms: int = 0
    day: int | None = None
    day_start: str | None = None
    equity: str | None = None
    peak: str | None = None
    losses: int = 0
    refusals: list[int] = []
    orders: list[int] = []
    last_ts: dict[str, int] = {}
    halted_since_ms: int | None = None
    halt_detail: str = ""
    resumed_ms: int = 0
    tripped: list[Trip] = []


class Breakers:
    """The breakers of one run. Owned by the thread that executes orders; nothing blocks.

    Memory is bounded by the limits per minute and by the number of symbols. Times are event time, Unix ms: `now_ms` is
    the highest of all symbols, and one that is lower than before counts as the one before. Methods return what changed,
    in order; each change becomes a notice (`as_notice`).
    """

    view: BreakersView
    """What blocks orders now. Any thread may read."""

    def __init__(self, limits: BreakersConfig) -> None:
        self._limits = limits
        drawdown, loss = limits.max_drawdown_pct, limits.daily_loss_usd
        self._max_drawdown = None if drawdown is None else exact(drawdown)
        self._daily_loss = None if loss is None else exact(loss)
        self._stale_ms = limits.stale_ms
        self.cancel_open = limits.cancel_open
        """Whether open orders are canceled, too, by a HALT and by a breaker that trips (those of its symbol)."""
        self.needs_equity = drawdown is not None or loss is not None
        """Whether `on_tick` reads the equity at all."""
        self.active = self.needs_equity or any(
            limit is not None
            for limit in (
                limits.losses_in_a_row, limits.refusals_per_minute, limits.orders_per_minute, limits.stale_ms,
            )
        )  # fmt: skip
        """Whether any breaker is configured."""
        self._now_ms = 0
        self._day: int | None = None
        self._day_start: Decimal | None = None
        self._equity: Decimal | None = None
        self._peak: Decimal | None = None
        self._losses = 0
        self._refusals: deque[int] = deque()
        self._orders: deque[int] = deque()
        self._last_ts: dict[str, int] = {}
        self._halted_since_ms: int | None = None
        self._halt_detail = ""
        self._resumed_ms = 0
        self._tripped: dict[str, Trip] = {}
        self._stale: dict[str, Trip] = {}
        self._changed()

    # ---- what may be sent ------------------------------------------------------------------------------------------

    def blocking(self, symbol: str | None = None) -> str | None:
        """The reason code with which an order is refused unless it lowers exposure; None where nothing blocks.

        `symbol` is that of the order; without one, what concerns a single symbol does not count.
        """
        if self._halted_since_ms is not None:
            return HALTED
        if self._tripped:
            return next(code for code in KEYS if code in self._tripped)
        return STALE_MARKET if self._stale and symbol in self._stale else None

    def evidence(self, symbol: str | None = None) -> LimitBreach | None:
        """Value and limit of the breaker that `blocking` names; None for HALTED and where nothing blocks."""
        code = self.blocking(symbol)
        if code is None or code == HALTED:
            return None
        return (self._stale[symbol] if code == STALE_MARKET and symbol is not None else self._tripped[code]).breach()

    def refusal(self, symbol: str) -> Refusal | None:
        """How an order for `symbol` is refused unless it lowers exposure; None where nothing blocks."""
        code = self.blocking(symbol)
        return None if code is None else Refusal(code, self.evidence(symbol))

    # ---- what happens ----------------------------------------------------------------------------------------------

    def on_tick(self, now_ms: int, symbol: str, ts: int, equity: Decimal) -> list[Trip | Release]:
        """After a tick is marked: `ts` is its time, `equity` what the account is worth at its price, in USD."""
        changes: list[Trip | Release] = []
        now_ms = self._advance(now_ms)
        for code in _PER_MINUTE:
            trip = self._tripped.get(code)
            if trip is not None and now_ms - trip.ts >= MINUTE_MS:
                changes.append(self._release(code))
        if self._stale_ms is not None:
            changes += self._look_for_silence(symbol, ts, self._stale_ms)
        if self.needs_equity:
            changes += self._look_at_equity(equity)
        return changes

    def on_order(self, now_ms: int) -> list[Trip | Release]:
        """An order was accepted, also one that passed because it lowers exposure; children of a bracket do not count.

        With a limit of N, the N-th order trips: there are never more than N orders that add exposure within 60 s.
        """
        return self._count(ORDERS_PER_MINUTE, self._orders, self._limits.orders_per_minute, now_ms)

    def on_refusal(self, now_ms: int, reason: str) -> list[Trip | Release]:
        """An order was refused for `reason`, at its submission or later; refusals by breakers do not count."""
        if reason in BLOCKING:
            return []
        return self._count(REFUSALS_PER_MINUTE, self._refusals, self._limits.refusals_per_minute, now_ms)

    def on_fill_closed(self, now_ms: int, profit: Decimal) -> list[Trip | Release]:
        """A fill closed a trade (`portfolio.round_trips`) with this profit after fees; 0 is no loss."""
        limit = self._limits.losses_in_a_row
        if limit is None:
            return []
        self._advance(now_ms)
        self._losses = self._losses + 1 if profit < 0 else 0
        if self._losses < limit or LOSSES_IN_A_ROW in self._tripped:
            return []
        return [self._trip(LOSSES_IN_A_ROW, self._losses, limit)]

    def on_notice(self, notice: Notice) -> list[Trip | Release]:
        """HALT, RESUME and RESTART; other kinds change nothing."""
        if notice.kind == "HALT":
            self.halt(notice.ts, notice.detail)
        elif notice.kind == "RESUME":
            return self.resume(notice.ts)
        elif notice.kind == "RESTART":
            self._end_halt()
        return []

    def halt(self, since_ms: int, detail: str = "") -> None:
        """Refuse every order that adds exposure until `resume`. A second halt changes nothing."""
        if self._halted_since_ms is None:
            self._halted_since_ms, self._halt_detail = since_ms, detail
            self._changed()

    def resume(self, resumed_ms: int = 0) -> list[Trip | Release]:
        """End a halt, and release the breakers that nothing else releases. The peak becomes the last equity."""
        self._resumed_ms = resumed_ms
        self._peak, self._losses = self._equity, 0
        self._end_halt()
        return [self._release(code) for code in _BY_RESUME if code in self._tripped]

    # ---- restart ---------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, as plain values with exact decimals as text."""
        tripped = [*self._tripped.values(), *self._stale.values()]
        state: dict[str, Any] = msgspec.to_builtins(
            _State(
                self._now_ms, self._day, _text(self._day_start), _text(self._equity), _text(self._peak), self._losses,
                list(self._refusals), list(self._orders), self._last_ts, self._halted_since_ms, self._halt_detail,
                self._resumed_ms, tripped,
            )
        )  # fmt: skip
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave, also of a run with other limits: breakers that are off now are released.

        Raises msgspec.ValidationError (a ValueError) for anything that `state` did not give.
        """
        found = msgspec.convert(state, _State)
        self._now_ms, self._day = found.now_ms, found.day
        self._day_start, self._equity, self._peak = map(_decimal, (found.day_start, found.equity, found.peak))
        self._halted_since_ms, self._halt_detail = found.halted_since_ms, found.halt_detail
        self._resumed_ms = found.resumed_ms
        kept = [trip for trip in found.tripped if self._limit_of(trip.code) is not None]
        # The values of a breaker that is off would be out of date when it is on again.
        limits = self._limits
        self._losses = 0 if limits.losses_in_a_row is None else found.losses
        self._refusals = deque(() if limits.refusals_per_minute is None else found.refusals)
        self._orders = deque(() if limits.orders_per_minute is None else found.orders)
        self._last_ts = {} if limits.stale_ms is None else found.last_ts
        if not self.needs_equity:
            self._day = self._day_start = self._equity = self._peak = None
        self._tripped = {trip.code: trip for trip in kept if trip.symbol is None}
        self._stale = {trip.symbol: trip for trip in kept if trip.symbol is not None}
        self._changed()

    # ---- the parts -------------------------------------------------------------------------------------------------

    def _end_halt(self) -> None:
        self._halted_since_ms, self._halt_detail = None, ""
        self._changed()

    def _advance(self, now_ms: int) -> int:
        self._now_ms = max(self._now_ms, now_ms)
        return self._now_ms

    def _look_for_silence(self, symbol: str, ts: int, stale_ms: int) -> list[Trip | Release]:
        """The time between two ticks of a symbol; a tick that is older than its newest one is ignored."""
        before = self._last_ts.get(symbol)
        if before is not None and ts < before:
            return []
        self._last_ts[symbol] = ts
        silent_ms = 0 if before is None else ts - before
        if silent_ms > stale_ms and symbol not in self._stale:
            return [self._trip(STALE_MARKET, silent_ms, stale_ms, symbol)]
        if silent_ms <= stale_ms and symbol in self._stale:
            return [self._release(STALE_MARKET, symbol)]
        return []

    def _look_at_equity(self, equity: Decimal) -> list[Trip | Release]:
        changes: list[Trip | Release] = []
        day = self._now_ms // DAY_MS
        if self._day_start is None or day != self._day:
            self._day = day
            self._day_start = equity if self._equity is None else self._equity
            if DAILY_LOSS in self._tripped:
                changes.append(self._release(DAILY_LOSS))
        self._equity = equity
        peak = self._peak = equity if self._peak is None else max(self._peak, equity)
        if self._max_drawdown is not None and MAX_DRAWDOWN not in self._tripped:
            below = subtract(peak, equity)
            if multiply(below, _HUNDRED) >= multiply(peak, self._max_drawdown):
                percent = _SHOWN.divide(multiply(below, _HUNDRED), peak) if peak > 0 else _HUNDRED
                changes.append(self._trip(MAX_DRAWDOWN, percent, finite(self._max_drawdown)))
        if self._daily_loss is not None and DAILY_LOSS not in self._tripped:
            loss = subtract(self._day_start, equity)
            if loss >= self._daily_loss:
                changes.append(self._trip(DAILY_LOSS, loss, finite(self._daily_loss)))
        return changes

    def _count(self, code: str, times: deque[int], limit: int | None, now_ms: int) -> list[Trip | Release]:
        """One more within the last 60 s. While tripped nothing is counted, so that it does not trip again at once."""
        now_ms = self._advance(now_ms)
        if limit is None or code in self._tripped:
            return []
        while times and now_ms - times[0] >= MINUTE_MS:
            times.popleft()
        times.append(now_ms)
        if len(times) < limit:
            return []
        return [self._trip(code, limit, limit)]

    def _trip(self, code: str, value: Decimal | float, limit: float, symbol: str | None = None) -> Trip:
        trip = Trip(code, self._now_ms, finite(value), float(limit), symbol)
        if symbol is None:
            self._tripped[code] = trip
        else:
            self._stale[symbol] = trip
        self._changed()
        return trip

    def _release(self, code: str, symbol: str | None = None) -> Release:
        if symbol is None:
            del self._tripped[code]
        else:
            del self._stale[symbol]
        self._changed()
        return Release(code, self._now_ms, symbol)

    def _limit_of(self, code: str) -> float | None:
        key = KEYS.get(code)
        limit: float | None = None if key is None else getattr(self._limits, key.rpartition(".")[2])
        return limit

    def _changed(self) -> None:
        tripped = [self._tripped[code] for code in KEYS if code in self._tripped]
        tripped += islice(self._stale.values(), STALE_NAMED_MAX)
        self.view = BreakersView(
            self._halted_since_ms, self._halt_detail, tuple(tripped), len(self._stale), self._resumed_ms
        )


def _text(value: Decimal | None) -> str | None:
    return None if value is None else str(value)


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)
