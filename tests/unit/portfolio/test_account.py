"""The account of PAPER: every unit of money accounted for in every currency, nothing spent or sold twice."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradebot.config.money import AccountConfig, InstrumentConfig, RateSymbol
from tradebot.core.events import BUY, SELL, Fill, LimitBreach
from tradebot.portfolio.account import Account
from tradebot.portfolio.instruments import Instrument
from tradebot.portfolio.money import Money, money_of

Side = Literal["BUY", "SELL"]

INSTRUMENTS = {
    "SWAP/USDT": InstrumentConfig(contract_size=0.01),
    "PERP": InstrumentConfig(base="BTC", quote="USD", contract_size=100.0, inverse=True),
    "LOT/EUR": InstrumentConfig(lot_size=0.25, taker_fee=0.01),
}
SYMBOLS = ("BTC/USD", "SWAP/USDT", "ETH/BTC", "LOT/EUR", "PERP", "UNKNOWN")
SIZES = st.sampled_from([0.1, 0.25, 1.0, 3.0, 0.0007, 1e-8])
PRICES = st.sampled_from([0.05, 1.0, 99.9, 100.0, 333.3, 60_000.0])
FEES = st.sampled_from([0.0, 0.0101, 1e-9, 7.3, -0.002])


def money() -> Money:
    found = money_of(0.001, INSTRUMENTS, {"EUR": 1.08, "BTC": RateSymbol("BTC/USD")})
    found.rates.on_price("BTC/USD", 50_000.0)
    return found


def account(of: Money | None = None, **settings_: Any) -> tuple[Account, Money]:
    of = of or money()
    return Account(AccountConfig(**settings_), of.instruments, of.rates), of


def fill(symbol: str, side: Side, qty: float, price: float, fees: float = 0.0) -> Fill:
    return Fill("T", "O", symbol, side, qty, price, fees, 0)


def apply(to: Account, of: Money, each: Fill) -> None:
    to.apply(each, of.instruments.of(each.symbol))


def refusal(
    by: Account, instrument: Instrument, side: Side, qty: str, price: int, fee_rate: str = "0"
) -> LimitBreach | None:
    needed = by.needed(instrument, side, Decimal(qty), Decimal(price), Decimal(fee_rate))
    return by.refuses(instrument, side, Decimal(qty), needed)


FILLS = st.builds(fill, st.sampled_from(SYMBOLS), st.sampled_from((BUY, SELL)), SIZES, PRICES, FEES)
MARKS = st.tuples(st.sampled_from(SYMBOLS), PRICES)


def value_in(symbol: str, qty: Fraction, price: float) -> Fraction:
    """An independent valuation, in the currency of the symbol; an inverse contract is worth -size/price each."""
    number = Fraction(repr(price))
    if symbol == "PERP":
        return -qty * 100 / number
    return qty * number * (Fraction(1, 100) if symbol == "SWAP/USDT" else 1)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(FILLS, MARKS), max_size=25))
def test_cash_and_positions_are_the_balance_and_profit_less_fees_in_every_currency(steps: list[Any]) -> None:
    """Exactly, in every currency; and cash is what an independent calculation with fractions says."""
    held, of = account(allow_short=True)
    cash: dict[str | None, Fraction] = {"USD": Fraction(10_000)}
    traded: set[str] = set()
    for step in steps:
        if isinstance(step, Fill):
            apply(held, of, step)
            currency = of.instruments.currency_of(step.symbol)
            qty = Fraction(repr(step.fill_qty)) * (1 if step.side == BUY else -1)
            paid = value_in(step.symbol, qty, step.fill_price) + Fraction(repr(step.fees))
            cash[currency] = cash.get(currency, Fraction(0)) - paid
            traded.add(step.symbol)
        else:
            held.mark(*step)
    found = held.cash()
    for currency, amount in cash.items():
        assert abs(Fraction(found[currency]) - amount) <= (Fraction(1, 10**30) if currency == "BTC" else 0)
        ours = [symbol for symbol in traded if of.instruments.currency_of(symbol) == currency]
        profit = sum((Fraction(held.positions.profit(symbol)) for symbol in ours), Fraction(0))
        fees = sum((Fraction(held.fees_of(symbol)) for symbol in ours), Fraction(0))
        value = sum((Fraction(held.positions.value(symbol)) for symbol in ours), Fraction(0))
        initial = 10_000 if currency == "USD" else 0
        assert Fraction(found[currency]) + value == initial + profit - fees


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(FILLS, MARKS), max_size=20), st.lists(st.one_of(FILLS, MARKS), max_size=10))
def test_a_restored_account_goes_on_as_the_one_that_was_never_stopped(first: list[Any], then: list[Any]) -> None:
    whole, of = account(allow_short=True)
    whole.reserve("r-1-O", "BTC", Decimal("0.1"))
    whole.reserve_qty("r-2-O", "ETH/BTC", Decimal("1e-9"))
    for step in first:
        apply(whole, of, step) if isinstance(step, Fill) else whole.mark(*step)
    stored = msgspec.msgpack.decode(msgspec.msgpack.encode([whole.state(), of.rates.state()]))
    again, of_again = account(allow_short=True)
    again.restore(stored[0])
    of_again.rates.restore(stored[1])
    assert (again.state(), again.equity(), again.free()) == (whole.state(), whole.equity(), whole.free())
    for step in then:
        for each, its in ((whole, of), (again, of_again)):
            apply(each, its, step) if isinstance(step, Fill) else each.mark(*step)
    assert (again.state(), again.equity(), again.free()) == (whole.state(), whole.equity(), whole.free())
    assert again.positions.views() == whole.positions.views()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(SYMBOLS[:4]), st.sampled_from((BUY, SELL)), SIZES, PRICES), max_size=20),
    st.sampled_from([1.0, 100.0, 10_000.0]),
)
def test_spot_spends_at_most_the_balance_and_sells_at_most_the_holdings(
    orders: list[tuple[str, Side, float, float]], initial: float
) -> None:
    """Each order is cut to what is free, as a fill is; what is free never goes below zero by that."""
    held, of = account(initial_balance=initial)
    for symbol, side, size, price in orders:
        instrument, qty = of.instruments.of(symbol), Decimal(repr(size))
        held.mark(symbol, price)
        fee = instrument.taker_fee
        if side == SELL:
            qty = min(qty, held.free_qty(symbol))
        else:
            qty = held.affordable(instrument, qty, Decimal(repr(price)), fee)
        if qty <= 0:
            continue
        before = held.free()
        cost = Decimal(repr(price)) * qty * instrument.contract_size
        apply(held, of, fill(symbol, side, float(qty), price, float(cost * fee)))
        assert side == SELL or held.free() >= min(Decimal(0), before) - Decimal("1e-9")
        assert held.positions.at_stake(symbol)[0] >= 0
    assert held.free() == sum(
        (amount * (of.rates.rate(currency) or 0) for currency, amount in held.cash().items()), Decimal(0)
    )


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(SYMBOLS[:4]), SIZES, PRICES, st.sampled_from(["0", "0.001", "0.01"]))
def test_affordable_is_the_most_that_can_be_paid(symbol: str, size: float, price: float, fee: str) -> None:
    held, of = account(initial_balance=50.0)
    instrument, qty, at, rate = of.instruments.of(symbol), Decimal(repr(size)), Decimal(repr(price)), Decimal(fee)
    found = held.affordable(instrument, qty, at, rate)
    step = instrument.lot_size or Decimal("1e-8")
    in_account = Fraction(of.rates.rate(instrument.currency) or 0)

    def cost(amount: Decimal) -> Fraction:
        return Fraction(amount) * Fraction(at) * Fraction(instrument.contract_size) * (1 + Fraction(rate)) * in_account

    assert cost(found) <= 50 and found <= qty
    assert found == qty or cost(found + step) > 50


def test_reservations_are_free_for_their_own_order_only() -> None:
    held, of = account()
    held.reserve("a", "USD", Decimal(3000))
    held.reserve("b", "EUR", Decimal(100))
    assert held.free() == 10_000 - 3000 - 108
    assert held.free("a") == 10_000 - 108
    held.reserve("a", "USD", Decimal(500))
    held.release("a", Decimal(1000))
    assert held.free() == 10_000 - 2500 - 108
    held.release("a", Decimal(9999))
    held.release_all("b")
    held.release_all("never reserved")
    assert held.free() == 10_000
    apply(held, of, fill("BTC/USD", BUY, 0.1, 50_000.0))
    held.reserve_qty("c", "BTC/USD", Decimal("0.06"))
    assert held.free_qty("BTC/USD") == Decimal("0.04")
    held.release_qty("c", Decimal("0.01"))
    assert held.free_qty("BTC/USD") == Decimal("0.05")
    held.release_all("c")
    assert (held.free_qty("BTC/USD"), held.free_qty("ETH/BTC")) == (Decimal("0.1"), Decimal(0))


@pytest.mark.parametrize(
    ("settings_", "side", "qty", "refused"),
    [
        ({}, BUY, "0.1", None),
        ({}, BUY, "0.2", LimitBreach("account.initial_balance", 10_010.0, 10_000.0)),
        ({}, SELL, "0.01", LimitBreach("account.allow_short", 0.01, 0.0)),
        ({"max_leverage": 3.0}, BUY, "0.5", None),
        ({"max_leverage": 3.0}, BUY, "0.6", LimitBreach("account.initial_balance", 30_030.0, 30_000.0)),
        ({"allow_short": True}, SELL, "0.1", None),
        ({"allow_short": True}, SELL, "0.2", LimitBreach("account.initial_balance", 10_010.0, 10_000.0)),
    ],
)
def test_orders_beyond_the_balance_are_refused(
    settings_: dict[str, Any], side: Side, qty: str, refused: LimitBreach | None
) -> None:
    held, of = account(**settings_)
    found = refusal(held, of.instruments.of("BTC/USD"), side, qty, 50_000, fee_rate="0.001")
    assert found == refused


def test_what_closes_a_short_position_needs_no_balance() -> None:
    held, of = account(allow_short=True)
    apply(held, of, fill("BTC/USD", SELL, 0.15, 50_000.0))
    held.mark("BTC/USD", 80_000.0)
    assert held.free() < 0
    instrument = of.instruments.of("BTC/USD")
    assert refusal(held, instrument, BUY, "0.15", 80_000) is None
    assert refusal(held, instrument, BUY, "0.16", 80_000) is not None


def test_an_inverse_contract_earns_its_base_currency() -> None:
    """10 contracts of 100 USD from 50 000 to 60 000: 1000 USD x (1/50 000 - 1/60 000) BTC, valued at 60 000."""
    held, of = account(max_leverage=2.0)
    held.mark("BTC/USD", 50_000.0)
    apply(held, of, fill("PERP", BUY, 10.0, 50_000.0, fees=0.00002))
    assert held.equity() == Decimal(10_000) - 1  # the fee
    held.mark("PERP", 60_000.0)
    held.mark("BTC/USD", 60_000.0)
    profit = Fraction(1000, 50_000) - Fraction(1000, 60_000)
    expected = 10_000 + (profit - Fraction("0.00002")) * 60_000
    assert abs(Fraction(held.equity()) - expected) < Fraction(1, 10**40)
    (view,) = held.positions.views()
    assert (view.average_cost, view.currency) == (50_000.0, "BTC")
    assert view.exposure == 1000 / 60_000


def test_spot_buys_inverse_contracts_for_at_most_the_balance() -> None:
    """100 USD each, at most 100 of them with 10 000 USD: what they are worth is owed, not paid."""
    held, of = account()
    perp, price = of.instruments.of("PERP"), Decimal(50_000)
    assert held.affordable(perp, Decimal(150), price, Decimal(0)) == 100
    apply(held, of, fill("PERP", BUY, 60.0, 50_000.0))
    assert held.free() == 4000
    assert held.affordable(perp, Decimal(150), price, Decimal(0)) == 40
    assert refusal(held, perp, BUY, "41", 50_000) is not None


def test_a_share_of_the_equity_as_a_size() -> None:
    """share x equity / (price x (1 + slippage + taker's fee)), down to a lot."""
    held, of = account()
    plain = of.instruments.of("BTC/USD")
    expected = Fraction(5000) / (50_000 * (1 + Fraction("0.0005") + Fraction("0.001")))
    found = held.size_of_share(Decimal("0.5"), plain, Decimal(50_000), Decimal("0.0005"))
    assert 0 <= expected - Fraction(found) < Fraction(1, 10**8)
    lots = of.instruments.of("LOT/EUR")
    # 10 000 USD / (100 EUR x 1.08 x 1.01) = 91.67...
    assert held.size_of_share(Decimal(1), lots, Decimal(100)) == Decimal("91.5")
    assert held.size_of_share(Decimal(1), money_of().instruments.of("ADA/SEK"), Decimal(1)) == 0


def test_an_account_that_has_lost_everything_says_so() -> None:
    held, of = account(allow_short=True, initial_balance=1000.0)
    apply(held, of, fill("BTC/USD", SELL, 0.02, 50_000.0))
    held.mark("BTC/USD", 99_999.0)
    assert not held.is_ruined()
    held.mark("BTC/USD", 100_000.0)
    assert held.equity() == 0 and held.is_ruined()
    assert held.size_of_share(Decimal(1), of.instruments.of("BTC/USD"), Decimal(1)) == 0
    assert held.affordable(of.instruments.of("BTC/USD"), Decimal(1), Decimal(1), Decimal(0)) == 0
