"""Small markets for hypothesis: every price, size, time and order is drawn by itself, so that failures shrink."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from hypothesis import strategies as st

from sim.paper_reference.values import (
    Amend,
    Cancel,
    Command,
    Instrument,
    Print,
    Request,
    Settings,
    Submit,
    milliseconds,
)

SYMBOLS = ("AB/USD", "CD/USD")
STARTS = st.sampled_from((1_700_000_000_000, 1_700_000_000_000, 1_700_000_000))  # the last one in seconds (old data)
TICKS = st.integers(-4, 4)  # around the price of 1.00, in cents
TIMES = st.sampled_from((100, 0, 100, 1, 100, 99, 100, 1000, -50))
QUOTES = (("USD", Fraction(1)), ("USD", Fraction(1)), ("EUR", Fraction(27, 25)), ("KRW", None))  # with rates
SIZES = st.sampled_from((40, 13, 5, 2, 1, 0, 40, 40))


class SmallMarket(NamedTuple):
    """All that a run needs."""

    prints: list[Print]
    commands: dict[int, list[Command]]
    settings: Settings
    instruments: list[Instrument]
    gaps: dict[int, str | None]


def price(ticks: int) -> Fraction:
    return Fraction(100 + ticks, 100)


@st.composite
def print_series(draw: st.DrawFn) -> list[Print]:
    drawn = draw(
        st.lists(
            st.tuples(
                st.sampled_from((0, 0, 0, 1)),
                TICKS,
                SIZES,
                TIMES,
                st.sampled_from(("BUY", "SELL", "BUY", "SELL", None)),
            ),
            min_size=4,
            max_size=25,
        )
    )
    prints = []
    ts = draw(STARTS)
    for which, ticks, size, step, taker in drawn:
        ts += step
        prints.append(Print(SYMBOLS[which], price(ticks), Fraction(size, 4), ts, taker))
    return prints


@st.composite
def a_request(draw: st.DrawFn, symbol: str, ts: int) -> Request:
    kind = draw(st.sampled_from(("MARKET", "LIMIT", "STOP", "STOP_LIMIT", "TRAILING_STOP")))
    side = draw(st.sampled_from(("BUY", "SELL")))
    limit = stop = trail_amount = trail_bps = expire_ts = None
    if kind in ("LIMIT", "STOP_LIMIT"):
        limit = price(draw(TICKS)) + draw(st.sampled_from((Fraction(0), Fraction(0), Fraction(1, 500))))
    if kind in ("STOP", "STOP_LIMIT"):
        stop = price(draw(TICKS))
    if kind == "TRAILING_STOP":
        if draw(st.booleans()):
            trail_amount = Fraction(draw(st.integers(1, 4)), 100)
        else:
            trail_bps = Fraction(draw(st.sampled_from((50, 125, 300))))
    time_in_force = draw(st.sampled_from(("GTC", "GTC", "GTC", "GTC", "GTC", "IOC", "FOK", "GTD")))
    if time_in_force == "GTD":
        expire_ts = ts + draw(st.sampled_from((0, 50, 100, 1000)))
    bracket = draw(st.sampled_from((False, False, True)))
    exits = sorted((draw(TICKS), draw(TICKS)), reverse=side == "SELL") if bracket else [0, 0]
    return Request(
        symbol,
        side,
        Fraction(draw(st.sampled_from((2, 1, 5, 20, 100))), draw(st.sampled_from((4, 4, 8)))),
        kind,
        limit,
        stop,
        trail_amount,
        trail_bps,
        time_in_force,
        expire_ts,
        post_only=kind == "LIMIT" and time_in_force in ("GTC", "GTD") and draw(st.sampled_from((False, False, True))),
        reduce_only=draw(st.sampled_from((False, False, False, False, False, True))),
        stop_loss=price(exits[0]) if bracket and draw(st.booleans()) else None,
        take_profit=price(exits[1]) if bracket else None,
    )


@st.composite
def settings_of(draw: st.DrawFn) -> Settings:
    latency = st.sampled_from((0, 0, 100, 1000))
    capped = draw(st.sampled_from((False, False, False, False, True)))
    allow_short = draw(st.sampled_from((True, True, False)))
    return Settings(
        draw(latency),
        draw(latency),
        draw(st.sampled_from((Fraction(1, 4), Fraction(1), Fraction(1, 10), Fraction(37, 100)))),
        draw(st.sampled_from((Fraction(0), Fraction(5, 2), Fraction(200)))),
        draw(st.sampled_from(("through", "trades", "front"))),
        draw(st.sampled_from((5000, 100, 1))),
        draw(st.sampled_from(("keep", "cancel"))),
        Fraction(draw(st.sampled_from((1_000_000, 1_000_000, 20, 3)))),
        allow_short,
        Fraction(draw(st.sampled_from((1, 3)))) if allow_short else Fraction(1),
        Fraction(draw(st.sampled_from((2, 10)))) if capped else None,
        Fraction(draw(st.sampled_from((1, 8)))) if capped else None,
        draw(st.sampled_from((0, 1, 3))) if capped else None,
    )


@st.composite
def instrument_of(draw: st.DrawFn, symbol: str) -> Instrument:
    known = draw(st.booleans())
    quote, rate = draw(st.sampled_from(QUOTES))
    return Instrument(
        symbol,
        quote,
        Fraction(draw(st.sampled_from((1, 2))), 100) if known else None,
        Fraction(1, draw(st.sampled_from((4, 2)))) if known else None,
        draw(st.sampled_from((None, None, None, None, Fraction(1, 2)))),
        draw(st.sampled_from((None, None, None, None, Fraction(1)))),
        draw(st.sampled_from((Fraction(1, 1000), Fraction(0), Fraction(-1, 10_000)))),
        draw(st.sampled_from((Fraction(1, 1000), Fraction(0)))),
        draw(st.sampled_from((Fraction(1), Fraction(1), Fraction(1, 10), Fraction(2)))),
        rate,
    )


@st.composite
def small_markets(draw: st.DrawFn) -> SmallMarket:
    prints = draw(print_series())
    settings = draw(settings_of())
    commands: dict[int, list[Command]] = {}
    sent: list[tuple[int, str]] = []  # tick and symbol of each order, whose place here is its name
    for number in sorted(draw(st.lists(st.integers(1, len(prints) - 2), max_size=10))):
        print_ = prints[number - 1]
        given = commands.setdefault(number, [])
        earlier = [name for name, (tick, symbol) in enumerate(sent) if tick < number and symbol == print_.symbol]
        what = draw(st.sampled_from(("submit", "submit", "submit", "cancel", "amend"))) if earlier else "submit"
        if what == "cancel":
            given.append(Cancel(draw(st.sampled_from(earlier))))
            continue
        request = draw(a_request(print_.symbol, milliseconds(print_.ts)))
        # Caps count an order and its replacement once; this is left to tests of the caps.
        if what == "amend" and settings.max_open_orders is None:
            given.append(Amend(draw(st.sampled_from(earlier)), len(sent), request))
        else:
            given.append(Submit(len(sent), request))
        sent.append((number, print_.symbol))
    gaps = {}
    if draw(st.sampled_from((False, False, True))):
        gaps = draw(st.dictionaries(st.integers(2, len(prints)), st.sampled_from((*SYMBOLS, None)), max_size=2))
    return SmallMarket(prints, commands, settings, [draw(instrument_of(symbol)) for symbol in SYMBOLS], gaps)
