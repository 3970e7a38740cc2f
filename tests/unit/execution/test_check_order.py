"""Caps with open orders counted, in the account currency: orders of PAPER, and signals of mixed quotes in SHADOW."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradebot.config.model import RiskCaps
from tradebot.config.money import InstrumentConfig, RateSymbol
from tradebot.core.currencies import Pair
from tradebot.core.events import (
    BUY,
    MIN_NOTIONAL,
    MIN_QTY,
    NO_BALANCE,
    NO_INSTRUMENT,
    NO_RATE,
    RISK_CAP,
    SELL,
    Fill,
    LimitBreach,
    Side,
    Signal,
)
from tradebot.execution.risk import (
    OPEN_ORDERS_CAP,
    SYMBOL_CAP,
    TOTAL_CAP,
    OpenOrder,
    Refusal,
    check_order,
    lowers,
    open_quantities,
    refusal_text,
    worst_case,
)
from tradebot.execution.shadow import ShadowExecution, refuse
from tradebot.portfolio.money import Money, money_of
from tradebot.portfolio.positions import Positions

CAPS = RiskCaps(max_exposure_usd=1_000.0, max_symbol_exposure_usd=600.0, max_open_orders=3)
QUOTES: dict[str, Fraction] = {
    "BTCUSDT": Fraction(1), "ETH/BTC": Fraction(50_000), "BTC/EUR": Fraction("1.08"), "BTC/KRW": Fraction("0.00075"),
}  # fmt: skip


def by_exchange(symbol: str) -> Pair | None:
    return {
        "BTCUSDT": Pair("BTC", "USDT"),
        "BTCUSD_PERP": Pair("BTC", "USD", contracts=True, inverse=True),
        "BTC-USDT-SWAP": Pair("BTC", "USDT", contracts=True),
    }.get(symbol)


def mixed_money(**rates: float | RateSymbol) -> Money:
    return money_of(0.001, rates=rates, pair_of=by_exchange)


def order(side: Side, qty: str, symbol: str = "A", reduce_only: bool = False, siblings: str | None = None) -> OpenOrder:
    return OpenOrder(symbol, side, Decimal(qty), reduce_only, siblings)


def holding(money: Money, **qty_of: float) -> Positions:
    positions = Positions(money.instruments)
    for symbol, qty in qty_of.items():
        positions.apply(Fill("T", "O", symbol, BUY if qty > 0 else SELL, abs(qty), 100.0, 0.0, 0))
    return positions


def judge(new: OpenOrder, open_orders: list[OpenOrder], positions: Positions, money: Money) -> Refusal | None:
    by_symbol: dict[str, list[OpenOrder]] = {}
    for each in open_orders:
        by_symbol.setdefault(each.symbol, []).append(each)
    return check_order(new, Decimal(100), by_symbol, lambda _: Decimal(100), positions, CAPS, money)


@pytest.mark.parametrize(
    ("new", "open_orders", "held", "refused_by"),
    [
        (order(BUY, "6"), [], {}, None),
        (order(BUY, "6.1"), [], {}, (SYMBOL_CAP, 610.0)),
        (order(BUY, "3"), [order(BUY, "3")], {}, None),
        (order(BUY, "3.1"), [order(BUY, "3")], {}, (SYMBOL_CAP, 610.0)),
        # The two sides are not netted: both may be filled, and either alone.
        (order(SELL, "6"), [order(BUY, "6")], {}, None),
        (order(SELL, "6.1"), [order(BUY, "6")], {}, (SYMBOL_CAP, 610.0)),
        # Other symbols with their open orders.
        (order(BUY, "4"), [order(SELL, "6", "B")], {}, None),
        (order(BUY, "4.1"), [order(SELL, "6", "B")], {}, (TOTAL_CAP, 1010.0)),
        (order(BUY, "4.1"), [order(SELL, "2", "B")], {"B": -4.0}, (TOTAL_CAP, 1010.0)),
        # Siblings once, reduce_only left out.
        (order(SELL, "5"), [order(SELL, "1", siblings="b")] * 2, {}, None),
        (order(SELL, "5.1"), [order(SELL, "1", siblings="b")] * 2, {}, (SYMBOL_CAP, 610.0)),
        (order(BUY, "6"), [order(BUY, "100", reduce_only=True)], {}, None),
        (order(BUY, "1"), [order(BUY, "1")] * 2 + [order(SELL, "1", "B")], {}, (OPEN_ORDERS_CAP, 4.0)),
        # What lowers a position passes every cap, also with too many orders open; reduce_only always does.
        (order(SELL, "1"), [order(BUY, "1", "B")] * 3, {"A": 9.0}, None),
        (order(SELL, "9"), [order(SELL, "9")], {"A": 9.0}, (SYMBOL_CAP, 900.0)),
        (order(BUY, "50", reduce_only=True), [order(BUY, "1")] * 3, {"A": -9.0}, None),
    ],
)  # fmt: skip
def test_the_worst_case_is_judged(
    new: OpenOrder, open_orders: list[OpenOrder], held: dict[str, float], refused_by: tuple[str, float] | None
) -> None:
    money = money_of()
    refusal = judge(new, open_orders, holding(money, **held), money)
    if refused_by is None:
        assert refusal is None
    else:
        assert refusal is not None and refusal.breach is not None and refusal.reason == RISK_CAP
        assert (refusal.breach.limit_key, refusal.breach.value) == refused_by


def test_rates_and_instruments_are_needed_but_for_what_lowers_a_position() -> None:
    money = mixed_money()
    assert judge(order(BUY, "1", "ETH/BTC"), [], holding(money), money) == Refusal(NO_RATE)
    assert judge(order(BUY, "1", "BTC-USDT-SWAP"), [], holding(money), money) == Refusal(NO_INSTRUMENT)
    held = holding(money, **{"ETH/BTC": 2.0, "BTC-USDT-SWAP": -2.0})
    assert judge(order(SELL, "1", "ETH/BTC"), [], held, money) is None
    assert judge(order(BUY, "1", "BTC-USDT-SWAP"), [], held, money) is None
    # What is held in bitcoins cannot be compared with the cap either.
    assert judge(order(BUY, "1"), [], held, money) == Refusal(NO_RATE)


SIDES = st.sampled_from((BUY, SELL))
SIZES = st.sampled_from(["0.5", "1", "2", "3.5"])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["submit", "submit", "submit", "fill", "cancel"]),
        st.sampled_from(["A", "ETH/BTC", "BTC/EUR"]),
        SIDES,
        SIZES,
        st.integers(0, 20),
    ),
    max_size=30,
)


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_no_cap_is_ever_passed_whatever_is_filled(steps: list[tuple[str, str, Side, str, int]]) -> None:
    """With constant prices: after any submissions, fills and cancels, every way to fill what is open is within caps."""
    money = money_of(rates={"BTC": 2.0, "EUR": 1.25})
    price = {"A": Fraction(100), "ETH/BTC": Fraction(40), "BTC/EUR": Fraction(90)}
    in_account = {"A": Fraction(1), "ETH/BTC": Fraction(2), "BTC/EUR": Fraction(5, 4)}
    positions = Positions(money.instruments)
    alive: list[OpenOrder] = []
    for what, symbol, side, qty, at in steps:
        if what == "submit":
            new = OpenOrder(symbol, side, Decimal(qty))
            open_orders: Mapping[str, list[OpenOrder]] = {s: [o for o in alive if o.symbol == s] for s in price}
            prices = {name: Decimal(int(number)) for name, number in price.items()}
            if check_order(new, prices[symbol], open_orders, prices.__getitem__, positions, CAPS, money) is None:
                bought, sold = open_quantities(open_orders[symbol])
                net = positions.at_stake(symbol)[0]
                alive.append(new)
                assert len(alive) <= 3 or lowers(net, side, new.qty, bought if side == BUY else sold)
        elif alive:
            done = alive.pop(at % len(alive))
            if what == "fill":
                number = float(price[done.symbol])
                positions.apply(Fill("T", "O", done.symbol, done.side, float(done.qty), number, 0.0, 0))
        worst = {}
        for name in price:
            bought, sold = open_quantities([each for each in alive if each.symbol == name])
            quantity = worst_case(positions.at_stake(name)[0], bought, sold)
            worst[name] = Fraction(quantity) * price[name] * in_account[name]
        assert max(worst.values()) <= 600 and sum(worst.values()) <= 1000


QTYS = st.sampled_from([0.001, 0.01, 0.1, 0.37, 2.0, 55.5])
PRICES = {"BTCUSDT": [49_999.9, 50_000.0], "ETH/BTC": [0.05, 0.0613], "BTC/EUR": [46_000.0, 47_000.5],
          "BTC/KRW": [66_000_000.0, 67_123_456.0]}  # fmt: skip
SIGNALS = st.sampled_from(sorted(QUOTES)).flatmap(
    lambda symbol: st.tuples(st.just(symbol), SIDES, QTYS, st.sampled_from(PRICES[symbol]))
)


@settings(max_examples=300, deadline=None)
@given(st.lists(SIGNALS, min_size=1, max_size=20))
def test_mixed_quotes_are_approved_and_refused_as_an_exact_calculation_says(
    signals: list[tuple[str, Side, float, float]],
) -> None:
    """BTCUSDT, ETH/BTC, BTC/EUR and BTC/KRW under the default caps, against fractions that know nothing of this code.

    BTC is worth 50 000 USD by the last price of BTC/USDT (USDT 1:1), EUR and KRW have numbers.
    """
    caps, money = RiskCaps(), mixed_money(EUR=1.08, KRW=0.00075, BTC=RateSymbol("BTC/USDT"))
    execution = ShadowExecution(caps, money)
    money.rates.on_price("BTC/USDT", 50_000.0)
    net = dict.fromkeys(QUOTES, Fraction(0))
    last = dict.fromkeys(QUOTES, Fraction(0))
    for number, (symbol, side, qty, price) in enumerate(signals):
        signal = Signal(f"r-{number}-S", symbol, side, 0.75, "X", qty, price, number)
        last[symbol] = Fraction(repr(price))
        after = net[symbol] + Fraction(repr(qty)) * (1 if side == BUY else -1)
        would_be = abs(after) * last[symbol] * QUOTES[symbol]
        others = sum(abs(net[s]) * last[s] * QUOTES[s] for s in QUOTES if s != symbol)
        approved = abs(after) < abs(net[symbol]) or (would_be <= 5_000 and would_be + others <= 10_000)
        order = execution.execute(signal)
        assert (order.status, order.reason) == (("FILLED", "SHADOW_RECORDED") if approved else ("REJECTED", RISK_CAP))
        if approved:
            net[symbol] = after
            (fill,) = order.fills
            assert fill.fees == float(Fraction(repr(qty)) * last[symbol] / 1000)
        else:
            capped = would_be if would_be > 5_000 else would_be + others
            assert order.breach is not None and order.breach.value == pytest.approx(float(capped), rel=1e-15)


@pytest.mark.parametrize(("symbol", "key"), [("ETH/BTC", "BTC"), ("BTC/EUR", "EUR"), ("BTC/KRW", "KRW")])
def test_without_a_rate_the_refusal_names_the_key(symbol: str, key: str) -> None:
    execution = ShadowExecution(RiskCaps(), mixed_money())
    order = execution.execute(Signal("r-1-S", symbol, BUY, 0.75, "X", 0.001, 100.0, 1))
    assert (order.status, order.reason, order.breach) == ("REJECTED", NO_RATE, None)
    text = execution.refusal_text(order)
    assert f"{symbol} is priced in {key}" in text and f"set rates.{key}" in text and "USD" in text


def test_a_position_without_a_rate_refuses_what_raises_another_and_says_why() -> None:
    money = mixed_money()
    execution = ShadowExecution(RiskCaps(), money)
    execution.restore([Fill("t", "o", "ETH/BTC", BUY, 1.0, 0.05, 0.0, 1)])
    order = execution.execute(Signal("r-1-S", "BTCUSDT", BUY, 0.75, "X", 0.001, 100.0, 1))
    assert order.reason == NO_RATE
    assert "a position is held that is priced in BTC" in execution.refusal_text(order)
    reducing = Signal("r-2-S", "ETH/BTC", SELL, 0.75, "X", 0.4, 0.05, 1)
    assert execution.execute(reducing).status == "FILLED"


def test_a_rate_moves_with_the_prints_that_travel_with_the_signals() -> None:
    """In-band: the marks of a signal, and its own price."""
    execution = ShadowExecution(RiskCaps(), mixed_money(BTC=RateSymbol("BTCUSDT")))

    def eth(number: int, marks: tuple[tuple[str, float], ...] = ()) -> str:
        return execution.execute(Signal(f"r-{number}-S", "ETH/BTC", BUY, 0.75, "X", 1.0, 0.05, number, marks)).reason

    assert eth(1) == NO_RATE
    assert "none has arrived yet" in refusal_text(
        execution.execute(Signal("r-2-S", "ETH/BTC", BUY, 0.75, "X", 1.0, 0.05, 2)), execution.money
    )
    assert eth(3, (("BTCUSDT", 100_000.1),)) == RISK_CAP
    execution.execute(Signal("r-4-S", "BTCUSDT", BUY, 0.75, "X", 0.001, 100_000.0, 4))
    assert eth(5) == "SHADOW_RECORDED"


def test_a_market_in_contracts_is_refused_without_its_entry() -> None:
    refused = ShadowExecution(RiskCaps(), mixed_money())
    for symbol, words in (("BTC-USDT-SWAP", "are contracts"), ("BTCUSD_PERP", "inverse contract, settled in BTC")):
        order = refused.execute(Signal("r-1-S", symbol, BUY, 0.75, "X", 0.1, 100.0, 1))
        assert order.reason == NO_INSTRUMENT
        text = refused.refusal_text(order)
        assert words in text and f'[instruments."{symbol}"]' in text
    entry = {"BTC-USDT-SWAP": InstrumentConfig(contract_size=0.01)}
    known = ShadowExecution(RiskCaps(), money_of(0.001, entry, pair_of=by_exchange))
    order = known.execute(Signal("r-1-S", "BTC-USDT-SWAP", BUY, 0.75, "X", 3.0, 50_000.0, 1))
    assert order.fills[0].fees == 1.5
    (view,) = known.positions.views()
    assert (view.exposure, view.currency) == (1500.0, "USDT")


def test_a_size_is_rounded_down_to_the_lot_and_small_orders_are_refused() -> None:
    entries = {"A": InstrumentConfig(lot_size=0.01, min_qty=0.05, min_notional=10.0, quote="EUR")}
    execution = ShadowExecution(RiskCaps(), money_of(0.001, entries, {"EUR": 1.08}))

    def ordered(qty: float, price: float) -> tuple[str, float, LimitBreach | None, str]:
        order = execution.execute(Signal("r-1-S", "A", BUY, 0.75, "X", qty, price, 1))
        return order.reason, order.qty, order.breach, execution.refusal_text(order)

    assert ordered(0.119, 100.0)[:2] == ("SHADOW_RECORDED", 0.11)
    assert ordered(0.049, 1000.0) == (
        "MIN_QTY", 0.049, LimitBreach('instruments."A".min_qty', 0.04, 0.05),
        'quantity 0.04 is below instruments."A".min_qty = 0.05',
    )  # fmt: skip
    assert ordered(0.0599, 199.9) == (
        "MIN_NOTIONAL", 0.0599, LimitBreach('instruments."A".min_notional', 9.995, 10.0),
        'the order is worth 9.995 EUR, below instruments."A".min_notional = 10.0',
    )  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (MIN_QTY, 'quantity 0.3 is less than one step, instruments."BTC/EUR".lot_size = 1.0'),
        (MIN_NOTIONAL, 'the price of the order is less than one step, instruments."BTC/EUR".tick_size = 500.0'),
    ],
)
def test_an_order_of_which_rounding_leaves_nothing_says_so(reason: str, text: str) -> None:
    refused = refuse(Signal("r-1-S", "BTC/EUR", BUY, 0.75, "X", 0.3, 100.0, 1), reason)
    money = money_of(0.0, {"BTC/EUR": InstrumentConfig(lot_size=1.0, tick_size=500.0)})
    assert refusal_text(refused, money) == text
    assert "is 0 when it is rounded down" in refusal_text(refused, money_of())


@pytest.mark.parametrize(
    ("breach", "text"),
    [
        (
            LimitBreach("account.initial_balance", 10_010.0, 10_000.0),
            "the order needs 10010.0 USD, and 10000.0 are free",
        ),
        (
            LimitBreach("account.allow_short", 0.3, 0.1),
            "0.3 BTC/EUR would be sold, and 0.1 are free; account.allow_short is false",
        ),
    ],
)
def test_an_order_beyond_the_balance_says_what_is_free(breach: LimitBreach, text: str) -> None:
    refused = refuse(Signal("r-1-S", "BTC/EUR", BUY, 0.75, "X", 0.3, 100.0, 1), NO_BALANCE, breach)
    assert refusal_text(refused, money_of()) == text
