"""What breakers report: which have tripped and why, in numbers and in words. Pure."""

from __future__ import annotations

from typing import Final

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

STALE_NAMED_MAX: Final = 20
"""So many symbols whose market is stale are named in a `BreakersView`; all count."""

KEYS: Final = {
    MAX_DRAWDOWN: "breakers.max_drawdown_pct",
    DAILY_LOSS: "breakers.daily_loss_usd",
    LOSSES_IN_A_ROW: "breakers.losses_in_a_row",
    REFUSALS_PER_MINUTE: "breakers.refusals_per_minute",
    ORDERS_PER_MINUTE: "breakers.orders_per_minute",
    STALE_MARKET: "breakers.stale_ms",
}
"""The configuration key of each breaker, by its code; where several have tripped, the first names the refusal."""

BLOCKING: Final = frozenset({HALTED, *KEYS})
"""Reason codes of orders that a halt or a breaker refused; these refusals do not count as refusals."""

BREACH_TEXTS: Final = {
    KEYS[MAX_DRAWDOWN]: "equity was {value!r} % below its peak, {key} = {limit!r}",
    KEYS[DAILY_LOSS]: "the loss of the day was {value!r}, {key} = {limit!r}",
    KEYS[LOSSES_IN_A_ROW]: "{value:.0f} trades in a row lost, {key} = {limit:.0f}",
    KEYS[REFUSALS_PER_MINUTE]: "{value:.0f} orders were refused within 60 s, {key} = {limit:.0f}",
    KEYS[ORDERS_PER_MINUTE]: "{value:.0f} orders were accepted within 60 s, {key} = {limit:.0f}",
    KEYS[STALE_MARKET]: "{symbol} had no tick for {value:.0f} ms, {key} = {limit:.0f}",
}
"""Why an order was refused, for people, by `LimitBreach.limit_key`; `{symbol}`, `{value}`, `{key}`, `{limit}`."""

_UNTIL: Final = {
    MAX_DRAWDOWN: "until `tradebot resume`",
    DAILY_LOSS: "until 00:00 UTC",
    LOSSES_IN_A_ROW: "until `tradebot resume`",
    REFUSALS_PER_MINUTE: "for 60 s",
    ORDERS_PER_MINUTE: "for 60 s",
    STALE_MARKET: "until its next tick in time",
}


class Trip(Struct, frozen=True):
    """A breaker that tripped: its code, when (event time, Unix ms), the value that reached the limit, and for
    STALE_MARKET the symbol that it concerns (else None: all symbols)."""

    code: str
    ts: int
    value: float
    limit: float
    symbol: str | None = None

    def breach(self) -> LimitBreach:
        """The evidence that is stored with each order that this refuses."""
        return LimitBreach(KEYS[self.code], self.value, self.limit)


class Release(Struct, frozen=True):
    """A breaker that no longer blocks: its code, when (event time, Unix ms), and its symbol where it has one."""

    code: str
    ts: int
    symbol: str | None = None


class BreakersView(Struct, frozen=True):
    """What blocks orders now; any thread may read it. `halted_since_ms` is None unless halted.

    `tripped` has at most STALE_NAMED_MAX symbols, of `stale_symbols`. `resumed_ms` is the time of the last RESUME, 0
    before the first.
    """

    halted_since_ms: int | None = None
    halt_detail: str = ""
    tripped: tuple[Trip, ...] = ()
    stale_symbols: int = 0
    resumed_ms: int = 0

    def count(self, code: str) -> int:
        """How often that breaker has tripped and is not released: 0 or 1, for STALE_MARKET the number of symbols."""
        return self.stale_symbols if code == STALE_MARKET else sum(trip.code == code for trip in self.tripped)

    def counts(self) -> dict[str, int]:
        """What `count` gives for each code that is not at 0."""
        return {code: count for code in KEYS if (count := self.count(code))}

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of what blocks, HALTED first; STALE_MARKET once."""
        halted = () if self.halted_since_ms is None else (HALTED,)
        return (*halted, *dict.fromkeys(trip.code for trip in self.tripped))


def as_notice(change: Trip | Release, ticks_before: int) -> Notice:
    """`change` as a row of `notices`; `ticks_before` counts the run's ticks up to and with the one that caused it."""
    if isinstance(change, Release):
        return Notice("BREAKER_RELEASED", change.ts, f"{change.code} released", change.symbol, None, ticks_before)
    return Notice("BREAKER_TRIPPED", change.ts, trip_text(change), change.symbol, None, ticks_before)


def blocked_texts(view: BreakersView) -> tuple[str, ...]:
    """Everything that blocks orders, for people."""
    halted = () if view.halted_since_ms is None else (f"{HALTED} by {view.halt_detail}, until `tradebot resume`",)
    return (*halted, *map(trip_text, view.tripped))


def trip_text(trip: Trip) -> str:
    """What tripped and why, and what ends it, for people."""
    key = KEYS[trip.code]
    words = BREACH_TEXTS[key].format(symbol=trip.symbol, value=trip.value, key=key, limit=trip.limit)
    which = "its orders" if trip.symbol is not None else "orders"
    return f"{trip.code}: {words}; {which} that add exposure are refused {_UNTIL[trip.code]}"
