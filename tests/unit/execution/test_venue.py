"""The venue made of prints: each rule by one small example."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.execution.market import START_MS, SYMBOL, Market
from tradebot.core.events import BUY, SELL, Side, Tick
from tradebot.execution.venue import SymbolVenue

ACK = ["SUBMITTED", "ACKNOWLEDGED"]


def quoted(**settings: Any) -> Market:
    """A market of 99.99 to 100.00, by two prints."""
    market = Market(**settings)
    market.trade(99.99, taker=SELL)
    market.trade(100.00, taker=BUY)
    return market


# ---- time -----------------------------------------------------------------------------------------------


def test_an_order_is_active_at_the_first_print_after_its_latency() -> None:
    """The print of the decision is never seen, one within the latency neither; the activating print may fill."""
    market = quoted(latency_ms=150)
    order = market.order(BUY, 1)
    market.trade(100.00, taker=BUY, at=249)
    assert market.life(order) == ["SUBMITTED"]
    market.trade(100.00, taker=BUY, at=250)
    assert market.life(order) == [*ACK, "FILLED"]
    assert market.fills() == [("1", "100", "TAKER")]


def test_without_latency_an_order_still_never_sees_the_print_that_it_was_decided_on() -> None:
    market = quoted(latency_ms=0)
    order = market.order(BUY, 1)
    assert market.life(order) == ["SUBMITTED"]
    market.trade(100.00, taker=BUY, at=100)  # the same event time as the decision's print
    assert market.life(order)[-1] == "FILLED"


def test_a_late_print_does_nothing() -> None:
    """It is older than the event time: it moves no quote, activates, triggers and fills nothing."""
    market = quoted(latency_ms=0)
    order = market.order(BUY, 1)
    stop = market.order(SELL, 1, "STOP", stop="50")
    before = (market.venue.tape.bid, market.venue.tape.ask)
    market.trade(40.0, taker=SELL, at=99)
    assert (market.venue.tape.bid, market.venue.tape.ask) == before
    assert market.life(order) == market.life(stop) == ["SUBMITTED"]
    market.trade(100.0, taker=BUY)
    assert market.life(order)[-1] == "FILLED" and market.life(stop) == ACK


def test_each_order_waits_for_its_own_latency() -> None:
    market = quoted(latency_ms=150)
    first = market.order(BUY, 1)
    market.trade(100.0, taker=BUY, at=200)
    second = market.order(BUY, 1)
    market.trade(100.0, taker=BUY, at=300)
    assert market.life(first)[-1] == "FILLED" and market.life(second) == ["SUBMITTED"]


def test_a_late_print_fills_no_order_that_is_active() -> None:
    market = quoted()
    taker, resting = market.order(BUY, 30), market.order(BUY, 1, "LIMIT", limit="99.00")
    market.trade(100.0, volume=40, taker=BUY)
    market.trade(90.0, volume=1000, taker=SELL, at=150)
    assert market.fills() == [("10", "100", "TAKER")]
    assert market.life(taker)[-1] == "PARTIAL_FILL" and market.life(resting) == ACK


def test_seconds_of_old_data_are_compared_as_milliseconds() -> None:
    market = Market(latency_ms=1000)
    tick = market.trade
    tick(100.0, taker=BUY, at=1_700_000_000 - START_MS)
    order = market.order(BUY, 1)
    tick(100.0, taker=BUY, at=999)
    assert market.life(order) == ["SUBMITTED"]
    tick(100.0, taker=BUY, at=1000)
    assert market.life(order)[-1] == "FILLED"


def test_a_cancel_takes_its_time_and_fills_may_come_before() -> None:
    market = quoted(cancel_latency_ms=200)
    order = market.order(BUY, 30, "LIMIT", limit="99.50")
    market.trade(99.60, taker=SELL)
    assert market.venue.cancel(order) and not market.venue.cancel(order)
    market.trade(99.40, volume=10, taker=SELL)
    market.trade(99.40, volume=100, taker=SELL)
    assert market.life(order) == [*ACK, "PARTIAL_FILL", "CANCELED CANCEL_REQUESTED"]
    assert market.moves[-1].remaining == 20
    assert not market.venue.cancel(order) and market.venue.idle


def test_a_cancel_that_is_due_before_the_order_is_active_ends_it_unseen() -> None:
    market = quoted(latency_ms=500, cancel_latency_ms=100)
    order = market.order(BUY, 1)
    market.venue.cancel(order)
    market.trade(100.0, taker=BUY)
    assert market.life(order) == ["SUBMITTED", "CANCELED CANCEL_REQUESTED"]


def test_an_expired_order_is_never_filled() -> None:
    """GTD ends at the first print with an event time from its expiry on, before that print fills anything."""
    market = quoted()
    order = market.order(BUY, 1, "LIMIT", limit="99.00", time_in_force="GTD", expire_ts=START_MS + 400)
    market.trade(99.50, taker=SELL, at=399)
    market.trade(98.00, taker=SELL, at=400)
    assert market.life(order) == [*ACK, "EXPIRED"]
    assert market.fills() == []


def test_an_order_may_expire_before_it_is_active() -> None:
    """Also where the prints in between touch nothing, so that they pass in one call."""
    market = quoted(latency_ms=500)
    order = market.order(BUY, 1, "LIMIT", limit="99.00", time_in_force="GTD", expire_ts=START_MS + 300)
    ticks = [Tick(SYMBOL, 100.0, 1.0, START_MS + ms) for ms in (299, 300, 301)]
    assert market.venue.observe(ticks, 0, 3) == 1
    market.venue.on_print(ticks[1])
    assert market.life(order) == ["SUBMITTED", "EXPIRED"]


# ---- taking ---------------------------------------------------------------------------------------------


def test_a_taker_pays_the_quote_or_worse() -> None:
    """BUY pays the higher of print and ask, SELL gets the lower of print and bid."""
    market = quoted()
    buy, sell = market.order(BUY, 1), market.order(SELL, 1)
    market.trade(99.99, taker=SELL)
    assert market.fills(buy) == [("1", "100", "TAKER")]
    assert market.fills(sell) == [("1", "99.99", "TAKER")]


def test_slippage_worsens_the_price_rounded_against_the_taker() -> None:
    market = quoted(slippage_bps=1.5)  # 100.00 x 1.00015 = 100.015; 99.99 x 0.99985 = 99.9750015
    buy, sell = market.order(BUY, 1), market.order(SELL, 1)
    market.trade(99.99, taker=SELL)
    assert market.fills(buy) == [("1", "100.02", "TAKER")]
    assert market.fills(sell) == [("1", "99.97", "TAKER")]


def test_without_a_tick_size_slippage_is_rounded_to_1e_8_and_prints_are_prices() -> None:
    market = Market(tick_size=None, slippage_bps=0.7)
    market.trade(61837.63, taker=BUY)
    order = market.order(BUY, 1)
    market.trade(61837.63, taker=BUY)
    assert market.fills(order) == [("1", "61841.9586341", "TAKER")]
    plain = Market(tick_size=None)
    plain.trade(0.000000001234, taker=BUY)
    order = plain.order(SELL, 1)
    plain.trade(0.000000001234, taker=SELL)
    assert plain.fills(order) == [("1", "0.000000001234", "TAKER")]


def test_takers_share_the_participation_oldest_first_and_fill_in_parts() -> None:
    market = quoted(participation=0.25)
    first, second = market.order(BUY, 4), market.order(SELL, 4)
    market.trade(100.00, volume=20, taker=BUY)  # 5 for takers
    assert market.life(first) == [*ACK, "FILLED"]
    assert market.life(second) == [*ACK, "PARTIAL_FILL"]
    market.trade(100.00, volume=100, taker=BUY)
    assert [qty for qty, _price, _kind in market.fills(second)] == ["1", "3"]


def test_a_fill_is_whole_lots() -> None:
    market = quoted(participation=0.5, lot_size="0.2")
    order = market.order(BUY, 1)
    market.trade(100.0, volume=1.1, taker=BUY)
    assert market.fills(order) == [("0.4", "100", "TAKER")]
    market.trade(100.0, volume=0.1, taker=BUY)  # less than a lot: nothing
    assert len(market.fills(order)) == 1


def test_a_market_order_without_enough_volume_ends_after_its_timeout() -> None:
    """Counted from the activating print; the print that is due fills nothing any more."""
    market = quoted(market_timeout_ms=250)
    order = market.order(BUY, 10)
    market.trade(100.0, volume=4, taker=BUY, at=200)
    market.trade(100.0, volume=4, taker=BUY, at=449)
    market.trade(100.0, volume=4000, taker=BUY, at=450)
    assert market.life(order) == [*ACK, "PARTIAL_FILL", "PARTIAL_FILL", "CANCELED NO_LIQUIDITY"]
    assert market.moves[-1].remaining == 8


def test_a_reduce_only_market_order_never_times_out() -> None:
    market = quoted(market_timeout_ms=250)
    market.net = market.net + 10
    order = market.order(SELL, 10, reduce_only=True)
    market.trade(100.0, volume=4, taker=BUY)
    market.trade(100.0, volume=4000, taker=BUY, at=10_000)
    assert market.life(order) == [*ACK, "PARTIAL_FILL", "FILLED"]


def test_before_there_is_a_quote_the_last_print_stands_in_for_it() -> None:
    """Without a side no print tells a quote: a market order pays the print, a limit is compared with the last one."""
    market = Market()
    market.trade(100.0)
    above = market.order(BUY, 1, "LIMIT", limit="200", post_only=True)
    below = market.order(BUY, 1, "LIMIT", limit="99", post_only=True)
    taker = market.order(BUY, 1)
    market.trade(100.0)
    assert market.life(above) == ["SUBMITTED", "REJECTED POST_ONLY"]
    assert market.life(below) == ACK
    assert market.fills(taker) == [("1", "100", "TAKER")]


# ---- limits ---------------------------------------------------------------------------------------------


def test_a_marketable_limit_takes_until_its_limit_is_passed_then_rests_for_good() -> None:
    market = quoted()
    order = market.order(BUY, 30, "LIMIT", limit="100.01")
    market.trade(100.00, volume=40, taker=BUY)  # takes 10
    market.trade(100.01, volume=40, taker=BUY)  # takes 10
    market.trade(100.02, volume=40, taker=BUY)  # past the limit: rests from now on
    market.trade(100.01, volume=40, taker=BUY)  # would have taken
    market.trade(100.00, volume=40, taker=SELL)  # a print through it fills the rest, at the limit
    assert market.fills(order) == [("10", "100", "TAKER"), ("10", "100.01", "TAKER"), ("10", "100.01", "MAKER")]
    assert market.filled_at == [3, 4, 7]


def test_slippage_never_takes_a_fill_past_its_limit() -> None:
    market = quoted(slippage_bps=5)
    order = market.order(BUY, 1, "LIMIT", limit="100.02")
    market.trade(100.02, taker=BUY)  # 100.08 would be paid: it rests
    assert market.life(order) == ACK
    market.trade(100.00, taker=BUY)
    assert market.fills(order) == [("1", "100.02", "MAKER")]


def test_a_limit_that_rests_may_be_filled_by_the_print_that_makes_it_active() -> None:
    market = quoted()
    order = market.order(BUY, 1, "LIMIT", limit="99.00")
    market.trade(98.00, taker=SELL)
    assert market.fills(order) == [("1", "99", "MAKER")]


@pytest.mark.parametrize(
    ("side", "limit", "touch", "through"), [(BUY, "99.50", 99.5, 99.49), (SELL, "100.50", 100.5, 100.51)]
)
def test_a_touch_is_no_fill_a_print_through_is(side: Side, limit: str, touch: float, through: float) -> None:
    """By default even a print of the other side at the very price fills nothing."""
    market = quoted()
    order = market.order(side, 1, "LIMIT", limit=limit)
    other: Side = SELL if side == BUY else BUY
    market.trade(touch, volume=1e6, taker=other)
    market.trade(touch, volume=1e6, taker=other)
    assert market.life(order) == ACK
    market.trade(through, volume=1, taker=other)
    assert market.fills(order) == [("1", f"{float(limit):g}", "MAKER")]


def test_through_needs_a_whole_step() -> None:
    """With an inferred step of 1 a print 0.5 below the limit need not have gone through the queue there."""
    market = Market(tick_size=None)
    for price in (100.0, 101.0, 102.0):
        market.trade(price)
    order = market.order(BUY, 1, "LIMIT", limit="100.5")
    market.trade(101.0)
    assert market.venue.tape.tick_size == 1
    market.trade(100.0)
    assert market.life(order) == ACK
    market.trade(99.0)
    assert market.life(order)[-1] == "FILLED"


def test_resting_orders_share_one_print_better_price_first() -> None:
    """One print is one budget over all orders: what a taker took is gone for those that rest."""
    market = quoted(participation=0.5)
    low = market.order(BUY, 5, "LIMIT", limit="99.20")
    high = market.order(BUY, 5, "LIMIT", limit="99.30")
    same = market.order(BUY, 5, "LIMIT", limit="99.30")
    market.trade(99.99, volume=0, taker=SELL)
    taker = market.order(SELL, 4)
    market.trade(99.00, volume=11, taker=SELL)
    assert market.fills(taker) == [("4", "99", "TAKER")]
    assert market.fills(high) == [("5", "99.3", "MAKER")]
    assert market.fills(same) == [("2", "99.3", "MAKER")]
    assert market.fills(low) == []


def test_front_fills_at_the_price_by_the_other_side_only() -> None:
    market = quoted(queue="front")
    order = market.order(BUY, 5, "LIMIT", limit="99.99")
    market.trade(99.99, volume=2, taker=BUY)
    assert market.fills(order) == []
    market.trade(99.99, volume=2, taker=SELL)
    assert market.fills(order) == [("2", "99.99", "MAKER")]


def test_trades_waits_for_a_queue_of_twenty_mean_prints() -> None:
    """Prints of 1 and 2 before the activation: 30 are ahead, which sellers at the price consume."""
    market = Market(queue="trades")
    market.trade(99.99, volume=1, taker=SELL)
    market.trade(100.00, volume=2, taker=BUY)
    order = market.order(BUY, 5, "LIMIT", limit="99.99")
    market.trade(99.99, volume=29, taker=SELL)
    market.trade(99.99, volume=50, taker=BUY)
    assert market.fills(order) == []
    market.trade(99.99, volume=4, taker=SELL)
    assert market.fills(order) == [("3", "99.99", "MAKER")]
    market.trade(99.99, volume=1, taker=SELL)
    assert market.fills(order)[1:] == [("1", "99.99", "MAKER")]


def test_a_print_through_the_price_ends_the_queue() -> None:
    market = quoted(queue="trades")
    order = market.order(BUY, 5, "LIMIT", limit="99.50")
    market.trade(99.49, volume=2, taker=SELL)
    market.trade(99.50, volume=2, taker=SELL)
    assert market.fills(order) == [("2", "99.5", "MAKER"), ("2", "99.5", "MAKER")]


def test_two_orders_in_one_queue_never_get_more_than_came_past_it() -> None:
    market = Market(queue="trades", participation=1.0)
    market.trade(99.99, volume=0.1, taker=SELL)
    market.trade(100.00, volume=0.3, taker=BUY)  # a queue of 4
    first = market.order(BUY, 10, "LIMIT", limit="99.99")
    second = market.order(BUY, 10, "LIMIT", limit="99.99")
    market.trade(99.99, volume=10, taker=SELL)
    assert market.fills(first) == [("6", "99.99", "MAKER")]
    assert market.fills(second) == []


def test_a_queue_that_nothing_tells_is_never_passed() -> None:
    """No print before the activation: only a print through the price fills."""
    market = Market(queue="trades")
    order = market.order(BUY, 1, "LIMIT", limit="99.99")
    market.trade(100.00, volume=1e9, taker=BUY)
    market.trade(99.99, volume=1e9, taker=SELL)
    assert market.life(order) == ACK
    market.trade(99.98, taker=SELL)
    assert market.life(order)[-1] == "FILLED"


def test_post_only_is_judged_on_the_quote_before_the_print_that_makes_it_active() -> None:
    market = quoted()
    marketable = market.order(BUY, 1, "LIMIT", limit="100.00", post_only=True)
    resting = market.order(BUY, 1, "LIMIT", limit="99.99", post_only=True)
    market.trade(99.50, taker=BUY)  # the ask is 99.50 from this print on
    assert market.life(marketable) == ["SUBMITTED", "REJECTED POST_ONLY"]
    assert market.life(resting) == [*ACK, "FILLED"]


# ---- time in force --------------------------------------------------------------------------------------


def test_ioc_uses_the_activating_print_only() -> None:
    market = quoted()
    order = market.order(BUY, 30, time_in_force="IOC")
    market.trade(100.00, volume=40, taker=BUY)
    assert market.life(order) == [*ACK, "PARTIAL_FILL", "CANCELED IOC"]
    assert market.fills(order) == [("10", "100", "TAKER")]


def test_fok_is_all_or_nothing() -> None:
    market = quoted()
    small, large = market.order(BUY, 9, time_in_force="FOK"), market.order(BUY, 2, time_in_force="FOK")
    market.trade(100.00, volume=40, taker=BUY)
    assert market.life(small) == [*ACK, "FILLED"]
    assert market.life(large) == [*ACK, "CANCELED FOK"]  # 1 of 10 was left


@pytest.mark.parametrize("kind", ["IOC", "FOK"])
def test_ioc_and_fok_limits_that_are_not_marketable_end_at_once(kind: str) -> None:
    """Judged on the quote before; and where the print itself is past the limit there is no fill either."""
    market = quoted()
    below = market.order(BUY, 1, "LIMIT", limit="99.99", time_in_force=kind)
    at = market.order(BUY, 1, "LIMIT", limit="100.00", time_in_force=kind)
    market.trade(100.01, taker=BUY)
    assert market.life(below) == market.life(at) == [*ACK, f"CANCELED {kind}"]


def test_fok_is_not_cut_by_money() -> None:
    market = quoted()
    market.can_buy = market.net + 1
    order = market.order(BUY, 2, time_in_force="FOK")
    market.trade(100.00, taker=BUY)
    assert market.life(order) == [*ACK, "CANCELED FOK"]


def test_a_fill_that_money_cuts_ends_the_order() -> None:
    market = quoted()
    market.can_buy = market.net + 1
    order, none = market.order(BUY, 3), market.order(BUY, 3)
    market.trade(100.00, taker=BUY)
    assert market.life(order) == [*ACK, "PARTIAL_FILL", "CANCELED NO_BALANCE"]
    assert market.life(none) == [*ACK, "CANCELED NO_BALANCE"]


def test_reduce_only_never_opens_a_position() -> None:
    market = quoted()
    market.net = market.net + 2
    order = market.order(SELL, 3, reduce_only=True)
    market.trade(99.99, taker=SELL)
    assert market.life(order) == [*ACK, "PARTIAL_FILL", "CANCELED REDUCE_ONLY"]
    assert market.net == 0


# ---- stops ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "stop", "near", "at"), [(SELL, "99.50", 99.51, 99.5), (BUY, "100.50", 100.49, 100.5)])
def test_a_stop_is_triggered_by_a_print_and_filled_by_a_later_one(
    side: Side, stop: str, near: float, at: float
) -> None:
    market = quoted()
    order = market.order(side, 1, "STOP", stop=stop)
    market.trade(at, taker=side)  # makes it active: triggers nothing
    market.trade(near, taker=side)
    assert market.life(order) == ACK
    market.trade(at, taker=side)
    assert market.life(order) == [*ACK, "TRIGGERED"]
    market.trade(near, taker=side, at=20_000)  # long after a market order would have ended
    assert market.life(order) == [*ACK, "TRIGGERED", "FILLED"]
    assert market.filled_at == [6]


def test_a_stop_that_just_became_active_is_not_triggered_with_one_that_waits() -> None:
    market = quoted()
    first = market.order(SELL, 1, "STOP", stop="99.50")
    market.trade(99.99, taker=SELL)
    second = market.order(SELL, 1, "STOP", stop="99.50")
    market.trade(99.40, taker=SELL)
    assert market.life(first)[-1] == "TRIGGERED" and market.life(second) == ACK


def test_a_stop_limit_is_a_limit_from_its_trigger_on() -> None:
    market = quoted()
    takes = market.order(SELL, 1, "STOP_LIMIT", stop="99.50", limit="99.40")
    rests = market.order(SELL, 1, "STOP_LIMIT", stop="99.50", limit="99.60")
    market.trade(99.99, taker=SELL)
    market.trade(99.50, taker=SELL)
    market.trade(99.45, taker=SELL)
    assert market.fills(takes) == [("1", "99.45", "TAKER")]
    assert market.life(rests) == [*ACK, "TRIGGERED"]
    market.trade(99.61, taker=BUY)
    assert market.fills(rests) == [("1", "99.6", "MAKER")]


@pytest.mark.parametrize("distance", [{"trail_amount": "1"}, {"trail_bps": "100"}])
def test_a_trailing_stop_follows_the_best_price(distance: dict[str, str]) -> None:
    """From 101 it is triggered at 100 by an amount of 1, and at 99.99 by 1 % of 101."""
    market = quoted()
    order = market.order(SELL, 1, "TRAILING_STOP", **distance)
    for price in (100.00, 101.00, 100.50):
        market.trade(price, taker=BUY)
    market.trade(100.00, taker=SELL)
    if "trail_bps" in distance:
        assert market.life(order) == ACK
        market.trade(99.99, taker=SELL)
    assert market.life(order) == [*ACK, "TRIGGERED"]
    market.trade(98.00, taker=SELL)
    assert market.fills(order) == [("1", "98", "TAKER")]


def test_a_trailing_buy_mirrors_it() -> None:
    market = quoted()
    order = market.order(BUY, 1, "TRAILING_STOP", trail_amount="1")
    for price in (99.00, 98.00, 98.99):
        market.trade(price, taker=SELL)
    assert market.life(order) == ACK
    market.trade(99.00, taker=BUY)
    assert market.life(order) == [*ACK, "TRIGGERED"]


# ---- brackets -------------------------------------------------------------------------------------------


def test_each_entry_fill_is_protected_by_a_pair_of_its_size() -> None:
    market = quoted()
    entry = market.order(BUY, 20, take_profit="101.00", stop_loss="99.00")
    market.trade(100.00, volume=40, taker=BUY)
    market.trade(100.00, volume=40, taker=BUY)
    pairs = [(o.type, float(o.qty), o.parent_id, o.reduce_only) for o in market.venue.orders]
    assert pairs == [("LIMIT", 10.0, entry, True), ("STOP", 10.0, entry, True)] * 2
    assert market.life("O2") == market.life("O3") == ACK  # from the next print on
    assert market.life("O4") == market.life("O5") == ["SUBMITTED"]


def test_a_take_profit_shrinks_the_stop_and_ends_it() -> None:
    market = quoted()
    market.order(BUY, 10, take_profit="101.00", stop_loss="99.00")
    market.trade(100.00, taker=BUY)
    market.trade(101.01, volume=4, taker=BUY)
    assert market.life("O3") == [*ACK, "ACKNOWLEDGED OCO"]
    assert market.working_order("O3").remaining == 6
    market.trade(101.01, volume=6, taker=BUY)
    assert market.life("O2")[-1] == "FILLED" and market.life("O3")[-1] == "CANCELED OCO"
    assert market.net == 0 and market.venue.idle


def test_a_stop_cancels_its_take_profit_so_that_never_both_fill() -> None:
    market = quoted()
    market.order(BUY, 10, take_profit="101.00", stop_loss="99.00")
    market.trade(100.00, taker=BUY)
    market.trade(100.00, taker=BUY)
    market.trade(99.00, taker=SELL)
    assert market.life("O2") == [*ACK, "CANCELED OCO"]
    market.trade(102.00, taker=BUY)  # through the take-profit, which is gone
    assert market.life("O3") == [*ACK, "TRIGGERED", "FILLED"]
    assert market.net == 0


# ---- amend, gaps, the end -------------------------------------------------------------------------------


def test_an_amended_order_is_a_new_one_that_loses_its_place() -> None:
    market = quoted(cancel_latency_ms=200)
    first = market.order(BUY, 5, "LIMIT", limit="99.50")
    other = market.order(BUY, 5, "LIMIT", limit="99.50")
    market.trade(99.99, taker=SELL)
    new = market.amend(first, BUY, 5, limit="99.50")
    market.trade(99.49, volume=1, taker=SELL)  # still fills the first
    market.trade(99.49, volume=6, taker=SELL)
    assert market.life(first) == [*ACK, "PARTIAL_FILL", "CANCELED AMENDED"]
    assert market.life(other) == [*ACK, "FILLED"]
    assert market.fills(new) == [("1", "99.5", "MAKER")]
    assert market.working_order(new).remaining == 3  # 5, less the 1 that the old order still got, less 1


def test_an_amendment_that_comes_too_late_is_refused() -> None:
    market = quoted()
    first = market.order(BUY, 5, "LIMIT", limit="99.50")
    market.trade(99.99, taker=SELL)
    new = market.amend(first, BUY, 5, limit="99.60")
    market.trade(99.00, taker=SELL, at=250)
    market.trade(99.00, taker=SELL, at=300)
    assert market.life(first)[-1] == "FILLED"
    assert market.life(new) == ["SUBMITTED", "REJECTED UNKNOWN_ORDER"]


def test_an_amendment_that_has_nothing_left_is_refused() -> None:
    """The old order filled more in the meantime than the new one asks for."""
    market = quoted()
    first = market.order(BUY, 5, "LIMIT", limit="99.50")
    market.trade(99.99, taker=SELL)
    new = market.amend(first, BUY, 2, limit="99.50")
    market.trade(99.00, volume=3, taker=SELL, at=250)
    market.trade(99.00, volume=3, taker=SELL, at=300)
    assert market.life(first)[-2:] == ["PARTIAL_FILL", "CANCELED AMENDED"]
    assert market.life(new) == ["SUBMITTED", "REJECTED MIN_QTY"] and market.moves[-1].remaining == 2


@pytest.mark.parametrize("on_gap", ["keep", "cancel"])
def test_orders_that_were_open_across_a_gap_are_marked_or_end_before_the_next_print(on_gap: str) -> None:
    market = quoted(on_gap=on_gap)
    order = market.order(BUY, 5, "LIMIT", limit="99.50")
    market.venue.mark_gap()
    market.trade(99.00, taker=SELL)
    assert market.moves[-1].order.after_gap
    assert market.life(order) == ([*ACK, "FILLED"] if on_gap == "keep" else ["SUBMITTED", "CANCELED GAP"])


def test_all_orders_can_be_ended_at_once() -> None:
    market = quoted()
    order = market.order(BUY, 5, "LIMIT", limit="99.50")
    market.venue.cancel_all("LIQUIDATED")
    assert market.venue.idle and market.life(order) == ["SUBMITTED", "CANCELED LIQUIDATED"]


def test_a_restored_venue_goes_on() -> None:
    """An order that rests, one that waits for its trigger, a pending cancel and a bracket, over a restart."""
    market = quoted(cancel_latency_ms=200, queue="trades")
    resting = market.order(BUY, 5, "LIMIT", limit="99.50")
    stop = market.order(SELL, 1, "TRAILING_STOP", trail_amount="2")
    canceled = market.order(BUY, 5, "LIMIT", limit="99.00")
    entry = market.order(BUY, 1, take_profit="101", stop_loss="95")
    market.trade(100.0, taker=BUY)
    market.venue.cancel(canceled)
    state = market.venue.state()
    market.venue = SymbolVenue(market.instrument, market.settings, market)
    market.venue.restore(state)
    assert market.venue.state() == state and not market.venue.idle
    market.trade(99.40, volume=7, taker=SELL)
    market.trade(98.00, volume=7, taker=SELL)
    assert market.fills(resting) == [("5", "99.5", "MAKER")]
    assert market.life(stop)[-1] == "TRIGGERED"
    assert market.life(canceled)[-1] == "CANCELED CANCEL_REQUESTED"
    assert [order.parent_id for order in market.venue.orders] == [None, entry, entry]
