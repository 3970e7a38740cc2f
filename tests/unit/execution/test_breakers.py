"""Breakers: when each trips and is released, that it stays tripped, and that a restart changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradebot.config.model import BreakersConfig
from tradebot.core.events import (
    DAILY_LOSS,
    HALTED,
    LOSSES_IN_A_ROW,
    MAX_DRAWDOWN,
    ORDERS_PER_MINUTE,
    REFUSALS_PER_MINUTE,
    RISK_CAP,
    STALE_MARKET,
    LimitBreach,
    Notice,
    NoticeKind,
    origin_of,
)
from tradebot.execution.breakers import DAY_MS, Breakers
from tradebot.execution.trips import BREACH_TEXTS, KEYS, STALE_NAMED_MAX, Release, Trip, as_notice

DAY = 20_000 * DAY_MS
"""00:00 UTC of some day, in Unix ms."""


def at_equities(breakers: Breakers, *equities: str, start_ms: int = DAY, every_ms: int = 1000) -> list[Trip | Release]:
    """One tick for each equity; what changed in all of them."""
    changes: list[Trip | Release] = []
    for number, equity in enumerate(equities):
        now_ms = start_ms + number * every_ms
        changes += breakers.on_tick(now_ms, "A", now_ms, Decimal(equity))
    return changes


def test_nothing_is_configured_by_default() -> None:
    """Without limits nothing trips, however bad it gets; a halt works all the same."""
    breakers = Breakers(BreakersConfig())
    assert not breakers.active
    assert at_equities(breakers, "10000", "0", "-5") == []
    assert breakers.on_order(DAY) + breakers.on_refusal(DAY, RISK_CAP) + breakers.on_fill_closed(DAY, Decimal(-1)) == []
    assert breakers.blocking("A") is None
    breakers.halt(DAY, "maintenance")
    assert breakers.blocking("A") == HALTED
    assert breakers.evidence("A") is None
    assert (breakers.view.halted_since_ms, breakers.view.halt_detail) == (DAY, "maintenance")
    assert breakers.resume() == []
    assert breakers.blocking("A") is None


def test_drawdown_trips_at_its_limit_and_stays_until_a_resume() -> None:
    """The peak follows equity; 10 % below 11 000 is 9 900. The resume makes the equity of that moment the peak."""
    breakers = Breakers(BreakersConfig(max_drawdown_pct=10.0))
    assert at_equities(breakers, "10000", "11000", "9900.01") == []
    trip = Trip(MAX_DRAWDOWN, DAY + 5000, 10.0, 10.0)
    assert at_equities(breakers, "9900", start_ms=DAY + 5000) == [trip]
    assert breakers.blocking("any symbol") == breakers.blocking() == MAX_DRAWDOWN
    assert breakers.evidence() == LimitBreach("breakers.max_drawdown_pct", 10.0, 10.0)
    assert at_equities(breakers, "9000", "20000", "10000", start_ms=DAY + 2 * DAY_MS) == []
    assert breakers.view.tripped == (trip,)
    assert breakers.resume() == [Release(MAX_DRAWDOWN, DAY + 2 * DAY_MS + 2000)]
    assert at_equities(breakers, "9000.01", start_ms=DAY + 3 * DAY_MS) == []
    assert at_equities(breakers, "9000", start_ms=DAY + 3 * DAY_MS + 1)[0].code == MAX_DRAWDOWN


@pytest.mark.parametrize("equity", ["0", "-1"])
def test_an_account_without_a_positive_peak_is_in_drawdown(equity: str) -> None:
    """No percentage exists of nothing; nothing can be risked either."""
    assert at_equities(Breakers(BreakersConfig(max_drawdown_pct=50.0)), equity) == [
        Trip(MAX_DRAWDOWN, DAY, 100.0, 50.0)
    ]


def test_the_loss_of_a_day_counts_from_the_last_equity_before_midnight_utc() -> None:
    """100 lost overnight belong to the new day; the first tick of the next day releases."""
    breakers = Breakers(BreakersConfig(daily_loss_usd=100.0))
    assert at_equities(breakers, "10000", "9950", start_ms=DAY) == []
    assert at_equities(breakers, "9850.01", start_ms=DAY + DAY_MS - 1) == [
        Trip(DAILY_LOSS, DAY + DAY_MS - 1, 149.99, 100.0)
    ]
    assert breakers.resume() == []
    assert breakers.blocking() == DAILY_LOSS, "a resume does not begin a new day"
    midnight = DAY + DAY_MS
    assert at_equities(breakers, "9750.02", start_ms=midnight) == [Release(DAILY_LOSS, midnight)]
    assert breakers.blocking() is None
    assert at_equities(breakers, "9750.01", start_ms=midnight + 1) == [Trip(DAILY_LOSS, midnight + 1, 100.0, 100.0)]
    late = midnight - 5
    assert at_equities(breakers, "9750.01", start_ms=late) == [], "a late tick does not go back to the day before"
    next_midnight = midnight + DAY_MS
    assert at_equities(breakers, "9650.01", start_ms=next_midnight) == [
        Release(DAILY_LOSS, next_midnight),
        Trip(DAILY_LOSS, next_midnight, 100.0, 100.0),
    ]


def test_losses_in_a_row_end_at_a_trade_without_loss_and_stay_until_a_resume() -> None:
    """A trade that ends at 0 is not a loss. More losses do not trip again."""
    breakers = Breakers(BreakersConfig(losses_in_a_row=2))
    profits = ["-1", "0", "-0.01", "5", "-1"]
    assert [breakers.on_fill_closed(DAY, Decimal(profit)) for profit in profits] == [[]] * 5
    assert breakers.on_fill_closed(DAY + 7, Decimal("-1E-9")) == [Trip(LOSSES_IN_A_ROW, DAY + 7, 2.0, 2.0)]
    assert breakers.on_fill_closed(DAY + 8, Decimal(-3)) + breakers.on_fill_closed(DAY + 9, Decimal(3)) == []
    assert breakers.blocking() == LOSSES_IN_A_ROW
    assert breakers.resume() == [Release(LOSSES_IN_A_ROW, DAY + 9)]
    assert breakers.on_fill_closed(DAY + 9, Decimal(-1)) == []


@pytest.mark.parametrize(
    ("limits", "code", "happens"),
    [
        (BreakersConfig(orders_per_minute=3), ORDERS_PER_MINUTE, lambda b, now_ms: b.on_order(now_ms)),
        (BreakersConfig(refusals_per_minute=3), REFUSALS_PER_MINUTE, lambda b, now_ms: b.on_refusal(now_ms, RISK_CAP)),
    ],
)
def test_limits_per_minute_look_back_60_s_and_block_for_60_s(
    limits: BreakersConfig, code: str, happens: Callable[[Breakers, int], list[Trip | Release]]
) -> None:
    """What is 60 s ago no longer counts. While it is tripped nothing counts, so that it does not trip again at once."""
    breakers = Breakers(limits)
    assert [happens(breakers, DAY + ms) for ms in (0, 59_999, 60_000)] == [[]] * 3
    trip_ms = DAY + 119_998
    assert happens(breakers, trip_ms) == [Trip(code, trip_ms, 3.0, 3.0)]
    assert breakers.blocking() == code
    assert [happens(breakers, trip_ms + ms) for ms in (1, 2, 3)] == [[]] * 3
    assert breakers.resume() == [], "only time releases it"
    assert breakers.on_tick(trip_ms + 59_999, "A", trip_ms + 59_999, Decimal(0)) == []
    assert breakers.on_tick(trip_ms + 60_000, "A", trip_ms + 60_000, Decimal(0)) == [Release(code, trip_ms + 60_000)]
    assert [happens(breakers, trip_ms + 60_000) for _ in range(3)] == [[], [], [Trip(code, trip_ms + 60_000, 3.0, 3.0)]]


def test_what_breakers_refuse_does_not_count_as_refused() -> None:
    """Otherwise one tripped breaker would trip the next, and keep itself tripped."""
    breakers = Breakers(BreakersConfig(refusals_per_minute=1))
    assert [breakers.on_refusal(DAY, code) for code in (HALTED, *KEYS)] == [[]] * 7
    assert breakers.on_refusal(DAY, RISK_CAP) == [Trip(REFUSALS_PER_MINUTE, DAY, 1.0, 1.0)]


def test_a_stale_market_blocks_its_symbol_until_a_tick_in_time() -> None:
    """The first tick after a silence trips, the next one that follows soon enough releases; others are unaffected."""
    breakers = Breakers(BreakersConfig(stale_ms=1000))

    def tick(symbol: str, ts: int) -> list[Trip | Release]:
        return breakers.on_tick(ts, symbol, ts, Decimal(0))

    assert tick("A", DAY) + tick("B", DAY) + tick("A", DAY + 1000) == []
    assert tick("A", DAY + 2001) == [Trip(STALE_MARKET, DAY + 2001, 1001.0, 1000.0, "A")]
    assert (breakers.blocking("A"), breakers.blocking("B"), breakers.blocking()) == (STALE_MARKET, None, None)
    assert breakers.evidence("A") == LimitBreach("breakers.stale_ms", 1001.0, 1000.0)
    assert breakers.evidence("B") is None
    assert tick("A", DAY + 4000) == [], "still late: it stays tripped"
    assert tick("A", DAY + 3999) == [], "older than the newest: it says nothing"
    assert tick("A", DAY + 5000) == [Release(STALE_MARKET, DAY + 5000, "A")]
    assert breakers.blocking("A") is None


def test_a_halt_comes_before_breakers_and_their_order_is_fixed() -> None:
    """One code names a refusal, the same whatever tripped first."""
    breakers = Breakers(BreakersConfig(max_drawdown_pct=10.0, daily_loss_usd=1.0, orders_per_minute=1, stale_ms=10))
    at_equities(breakers, "100", "1")
    breakers.on_order(DAY + 1000)
    assert [trip.code for trip in breakers.view.tripped] == [MAX_DRAWDOWN, DAILY_LOSS, ORDERS_PER_MINUTE, STALE_MARKET]
    assert breakers.on_notice(Notice("HALT", DAY + 2000, "news")) == []
    assert breakers.on_notice(Notice("HALT", DAY + 3000, "again")) == []
    assert breakers.on_notice(Notice("LINK_LOST", DAY + 3000, "")) == []
    assert (breakers.blocking("A"), breakers.view.halted_since_ms) == (HALTED, DAY + 2000)
    assert breakers.on_notice(Notice("RESUME", DAY + 4000, "")) == [Release(MAX_DRAWDOWN, DAY + 1000)]
    assert breakers.blocking("A") == DAILY_LOSS


def test_a_restart_ends_a_halt_and_releases_nothing() -> None:
    """A start that is halted says so with a HALT of its own; what has tripped stays tripped."""
    breakers = Breakers(BreakersConfig(max_drawdown_pct=10.0))
    at_equities(breakers, "100", "1")
    breakers.on_notice(Notice("HALT", DAY, "news"))
    assert breakers.on_notice(Notice("RESTART", DAY + 9, "")) == []
    assert (breakers.blocking(), breakers.view.halted_since_ms) == (MAX_DRAWDOWN, None)


def test_the_last_resume_is_remembered_also_by_a_restart() -> None:
    """So that a start does not take a resume of long ago for a new one."""
    breakers, after = Breakers(BreakersConfig()), Breakers(BreakersConfig())
    assert breakers.view.resumed_ms == 0
    breakers.on_notice(Notice("RESUME", DAY, ""))
    after.restore(breakers.state())
    assert after.view.resumed_ms == DAY


def test_changes_are_derived_notices_in_event_time() -> None:
    """A notice says code, value, key and limit, and what ends it."""
    drawdown = as_notice(Trip(MAX_DRAWDOWN, DAY, 10.5, 10.0), 7)
    assert (drawdown.kind, drawdown.ts, drawdown.symbol, drawdown.ticks_before) == ("BREAKER_TRIPPED", DAY, None, 7)
    assert drawdown.detail == (
        "MAX_DRAWDOWN: equity was 10.5 % below its peak, breakers.max_drawdown_pct = 10.0;"
        " orders that add exposure are refused until `tradebot resume`"
    )
    stale = as_notice(Trip(STALE_MARKET, DAY, 1001.0, 1000.0, "A"), 7)
    assert (stale.symbol, stale.detail) == (
        "A",
        "STALE_MARKET: A had no tick for 1001 ms, breakers.stale_ms = 1000;"
        " its orders that add exposure are refused until its next tick in time",
    )
    released = as_notice(Release(STALE_MARKET, DAY, "A"), 9)
    assert (released.kind, released.symbol, released.detail) == ("BREAKER_RELEASED", "A", "STALE_MARKET released")
    assert origin_of(drawdown.kind) == origin_of(released.kind) == "DERIVED"
    for code, key in KEYS.items():
        assert code in as_notice(Trip(code, DAY, 1.0, 1.0, "A" if code == STALE_MARKET else None), 1).detail
        assert key in BREACH_TEXTS


# ---- properties -----------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """Something that happens, `after_ms` after the step before."""

    what: str
    after_ms: int
    symbol: str = "A"
    amount: int = 0


LIMITS = BreakersConfig(
    max_drawdown_pct=12.5, daily_loss_usd=300.0, losses_in_a_row=2, refusals_per_minute=3, orders_per_minute=4,
    stale_ms=20_000,
)  # fmt: skip

steps = st.lists(
    st.builds(
        Step,
        st.sampled_from(["tick", "tick", "tick", "order", "refusal", "closed", "halt", "resume", "restart"]),
        st.one_of(st.integers(-5_000, 30_000), st.sampled_from([59_999, 60_000, DAY_MS, DAY_MS // 2])),
        st.sampled_from(["A", "B"]),
        st.integers(-400, 400),
    ),
    max_size=60,
)


def happen(breakers: Breakers, step: Step, now_ms: int) -> list[Trip | Release]:
    if step.what == "tick":
        return breakers.on_tick(now_ms, step.symbol, now_ms, Decimal(2000 + step.amount))
    if step.what == "order":
        return breakers.on_order(now_ms) if breakers.blocking(step.symbol) is None else []
    if step.what == "refusal":
        return breakers.on_refusal(now_ms, RISK_CAP)
    if step.what == "closed":
        return breakers.on_fill_closed(now_ms, Decimal(step.amount))
    kinds: dict[str, NoticeKind] = {"halt": "HALT", "resume": "RESUME", "restart": "RESTART"}
    return breakers.on_notice(Notice(kinds[step.what], now_ms, ""))


def with_times(walk: list[Step]) -> list[tuple[Step, int]]:
    now_ms, found = DAY, []
    for step in walk:
        now_ms += step.after_ms
        found.append((step, now_ms))
    return found


class Recount:
    """What must block after a history, computed from all of it with fractions, without any code of Breakers.

    Only what a reader of docs/breakers.md would compute: no state is kept between two histories.
    """

    def __init__(self, history: list[tuple[Step, int]]) -> None:
        self.now, self.blocked = 0, set[str]()
        self.since: dict[str, int] = {}
        day, day_start, equity, peak = None, Fraction(0), None, Fraction(0)
        self.losses, self.halted = 0, False
        counted: dict[str, list[int]] = {"order": [], "refusal": []}
        newest: dict[str, int] = {}
        self.stale: set[str] = set()
        for step, ts in history:
            if step.what in ("tick", "order", "refusal", "closed"):
                self.now = max(self.now, ts) if step.what != "order" or self.code(step.symbol) is None else self.now
            if step.what == "tick":
                for code in (ORDERS_PER_MINUTE, REFUSALS_PER_MINUTE):
                    if code in self.blocked and self.now >= self.since[code] + 60_000:
                        self.blocked.remove(code)
                if ts >= newest.get(step.symbol, 0):
                    silent = ts - newest.get(step.symbol, ts)
                    self.stale = self.stale | {step.symbol} if silent > 20_000 else self.stale - {step.symbol}
                    newest[step.symbol] = ts
                worth = Fraction(2000 + step.amount)
                if day != self.now // 86_400_000:
                    day, day_start = self.now // 86_400_000, worth if equity is None else equity
                    self.blocked.discard(DAILY_LOSS)
                peak = worth if equity is None else max(peak, worth)
                equity = worth
                if 1 - worth / peak >= Fraction(1, 8):
                    self.blocked.add(MAX_DRAWDOWN)
                if day_start - worth >= 300:
                    self.blocked.add(DAILY_LOSS)
            elif step.what in ("order", "refusal"):
                code, limit = (ORDERS_PER_MINUTE, 4) if step.what == "order" else (REFUSALS_PER_MINUTE, 3)
                if code in self.blocked or (step.what == "order" and self.code(step.symbol) is not None):
                    continue
                counted[step.what] = [ms for ms in counted[step.what] if ms > self.now - 60_000] + [self.now]
                if len(counted[step.what]) == limit:
                    counted[step.what] = []
                    self.blocked.add(code)
                    self.since[code] = self.now
            elif step.what == "closed":
                self.losses = self.losses + 1 if step.amount < 0 else 0
                if self.losses >= 2:
                    self.blocked.add(LOSSES_IN_A_ROW)
            else:
                self.halted = step.what == "halt"
                if step.what == "resume":
                    self.blocked -= {MAX_DRAWDOWN, LOSSES_IN_A_ROW}
                    self.losses, peak = 0, equity if equity is not None else peak

    def code(self, symbol: str) -> str | None:
        order = (
            MAX_DRAWDOWN, DAILY_LOSS, LOSSES_IN_A_ROW, REFUSALS_PER_MINUTE, ORDERS_PER_MINUTE,
        )  # fmt: skip
        found = [HALTED] if self.halted else [code for code in order if code in self.blocked]
        return found[0] if found else STALE_MARKET if symbol in self.stale else None


@given(steps)
def test_what_blocks_is_what_a_recount_of_the_whole_history_says(walk: list[Step]) -> None:
    """After every step, for both symbols, and every change is reported once."""
    breakers, history = Breakers(LIMITS), with_times(walk)
    tripped: set[tuple[str, str | None]] = set()
    for number, (step, now_ms) in enumerate(history, start=1):
        for change in happen(breakers, step, now_ms):
            key = (change.code, change.symbol)
            assert (key in tripped) == isinstance(change, Release)
            tripped ^= {key}
        recount = Recount(history[:number])
        assert (breakers.blocking("A"), breakers.blocking("B")) == (recount.code("A"), recount.code("B"))
        assert tripped == {(trip.code, trip.symbol) for trip in breakers.view.tripped}
        assert {code for code, symbol in tripped if symbol is None} == recount.blocked
        assert {symbol for _code, symbol in tripped if symbol is not None} == recount.stale


@given(steps, st.integers(0, 60))
def test_a_restart_at_any_step_changes_nothing(walk: list[Step], cut: int) -> None:
    """State travels as JSON here: exact, whatever carries it."""
    whole, first, second = Breakers(LIMITS), Breakers(LIMITS), Breakers(LIMITS)
    history = with_times(walk)
    for step, now_ms in history[:cut]:
        assert happen(whole, step, now_ms) == happen(first, step, now_ms)
    second.restore(json.loads(json.dumps(first.state())))
    assert second.view == first.view
    assert second.state() == first.state()
    for step, now_ms in history[cut:]:
        assert happen(second, step, now_ms) == happen(whole, step, now_ms)
        assert second.blocking(step.symbol) == whole.blocking(step.symbol)
    assert second.state() == whole.state()


def test_what_is_shown_is_bounded() -> None:
    """A feed may have thousands of symbols; all of them count, some are named."""
    breakers = Breakers(BreakersConfig(stale_ms=1))
    for ts in (DAY, DAY + 2):
        for number in range(STALE_NAMED_MAX + 5):
            breakers.on_tick(ts, f"S{number}", ts, Decimal(0))
    breakers.halt(DAY)
    assert (len(breakers.view.tripped), breakers.view.stale_symbols) == (STALE_NAMED_MAX, STALE_NAMED_MAX + 5)
    assert breakers.view.codes == (HALTED, STALE_MARKET)
    assert breakers.view.tripped[0].symbol == "S0"
    breakers.on_tick(DAY + 3, "S0", DAY + 3, Decimal(0))
    assert breakers.view.tripped[-1].symbol == f"S{STALE_NAMED_MAX}"


def test_state_is_bounded_by_limits_and_symbols() -> None:
    """Ten thousand orders and refusals leave no more than a minute's worth."""
    breakers = Breakers(LIMITS)
    for number in range(10_000):
        now_ms = DAY + 20_001 * number
        breakers.on_tick(now_ms, "AB"[number % 2], now_ms, Decimal(2000))
        breakers.on_order(now_ms)
        breakers.on_refusal(now_ms, RISK_CAP)
    assert len(json.dumps(breakers.state())) < 1000


def test_a_breaker_that_is_off_after_a_restart_no_longer_blocks() -> None:
    """Taking a limit out of the configuration and starting again is one way to release it; a halt stays."""
    tripped = Breakers(LIMITS)
    at_equities(tripped, "2000", "1000")
    tripped.halt(DAY, "news")
    after = Breakers(BreakersConfig(daily_loss_usd=300.0))
    after.restore(tripped.state())
    assert [trip.code for trip in after.view.tripped] == [DAILY_LOSS]
    assert after.blocking() == HALTED
    off = Breakers(BreakersConfig())
    off.restore(tripped.state())
    assert off.view.tripped == ()
    on_again = Breakers(LIMITS)
    on_again.restore(off.state())
    assert at_equities(on_again, "500", start_ms=DAY + 9 * DAY_MS) == [], "it begins with the equity of that moment"


def test_a_damaged_state_is_refused() -> None:
    """A damaged checkpoint is an error, not a breaker that forgot."""
    with pytest.raises(ValueError, match="losses"):
        Breakers(LIMITS).restore({**Breakers(LIMITS).state(), "losses": "two"})
