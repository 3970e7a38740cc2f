"""Deterministic orders for a series of prints: every kind of order, small and large, canceled and amended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from random import Random

from sim.paper_reference.values import (
    Amend,
    Cancel,
    Command,
    Instrument,
    Print,
    Request,
    Submit,
    down_to,
    milliseconds,
)

KINDS = (
    "market",
    "limit away",
    "limit at",
    "limit through",
    "post_only",
    "ioc market",
    "ioc limit",
    "fok market",
    "fok limit",
    "gtd",
    "stop",
    "stop limit",
    "stop limit ioc",
    "trailing amount",
    "trailing bps",
    "bracket market",
    "bracket limit",
    "reduce_only market",
    "reduce_only limit",
)


def schedule(
    prints: Sequence[Print], instruments: Sequence[Instrument], seed: int, every: int, amends: bool
) -> dict[int, list[Command]]:
    """About one order each `every` prints, by the number of the tick at whose end it is given."""
    random = Random(seed)
    known = {instrument.symbol: instrument for instrument in instruments}
    sizes: dict[str, Fraction] = {}
    for symbol in known:
        volumes = [print_.volume for print_ in prints if print_.symbol == symbol]
        sizes[symbol] = sum(volumes, Fraction(0)) / len(volumes)
    commands: dict[int, list[Command]] = {}
    sent: list[Request] = []  # the place of a request here is its name
    for number, print_ in enumerate(prints, 1):
        given: list[Command] = []
        before = len(sent)
        for _ in range(2):
            if random.random() * every * 2 < 1:
                instrument = known[print_.symbol]
                request = a_request(random, random.choice(KINDS), print_, instrument, sizes[print_.symbol])
                given.append(Submit(len(sent), request))
                sent.append(request)
        if before and random.random() * every * 4 < 1:
            name = random.randrange(max(0, before - 5), before)
            if sent[name].symbol == print_.symbol:
                given.append(a_change(random, name, sent, known[print_.symbol], amends))
        if given:
            commands[number] = given
    return commands


def a_change(random: Random, name: int, sent: list[Request], instrument: Instrument, amends: bool) -> Command:
    """A cancel, or an amend whose order joins `sent`."""
    request = sent[name]
    if not amends or random.random() < 0.6:
        return Cancel(name)
    step = (instrument.tick_size or Fraction(1, 100)) * random.randint(-3, 3)
    limit = None if request.limit is None else request.limit + step
    stop = None if request.stop is None else request.stop + step
    qty = random.choice((request.qty, decimal(request.qty / 2), request.qty * 2))
    sent.append(replace(request, qty=qty, limit=limit, stop=stop))
    return Amend(name, len(sent) - 1, sent[-1])


def a_request(random: Random, kind: str, print_: Print, instrument: Instrument, mean_size: Fraction) -> Request:
    """An order of this kind near the print. Some sizes and prices are off the grid."""
    tick = instrument.tick_size or Fraction(1, 100)
    side = random.choice(("BUY", "BUY", "SELL"))
    ahead = 1 if side == "BUY" else -1  # towards prices at which it would take
    ticks = random.choice((0, 1, 1, 2, 5, 20, Fraction(3, 2)))
    price = print_.price
    plain = Request(print_.symbol, side, decimal(mean_size * random.choice((Fraction(1, 10), Fraction(1, 2), 5, 30))))
    at = price + random.choice((-1, 0, 1)) * tick
    away = price - ahead * ticks * tick
    through = price + ahead * (ticks + 1) * tick
    first, second = kind.split(" ")[0], kind.split(" ")[-1]
    if kind == "limit away":
        return replace(plain, type="LIMIT", limit=away)
    if kind == "limit at":
        return replace(plain, type="LIMIT", limit=at)
    if kind == "limit through":
        return replace(plain, type="LIMIT", limit=through)
    if kind == "post_only":
        return replace(plain, type="LIMIT", limit=at, post_only=True)
    if first in ("ioc", "fok"):
        limit = None if second == "market" else random.choice((at, through))
        return replace(plain, type=second.upper(), limit=limit, time_in_force=first.upper())
    if kind == "gtd":
        expire_ts = milliseconds(print_.ts) + random.choice((50, 500, 5_000, 60_000))
        return replace(plain, type="LIMIT", limit=away, time_in_force="GTD", expire_ts=expire_ts)
    if kind == "stop":
        return replace(plain, type="STOP", stop=through)
    if kind == "stop limit":
        return replace(plain, type="STOP_LIMIT", stop=through, limit=through + random.choice((-2, 0, 2)) * tick)
    if kind == "stop limit ioc":
        stop = through + random.choice((-2, 0, 2)) * tick
        return replace(plain, type="STOP_LIMIT", stop=through, limit=stop, time_in_force=random.choice(("IOC", "FOK")))
    if kind == "trailing amount":
        return replace(plain, type="TRAILING_STOP", trail_amount=(ticks + 1) * tick)
    if kind == "trailing bps":
        return replace(
            plain, type="TRAILING_STOP", trail_bps=random.choice((Fraction(1, 2), Fraction(2), Fraction(10)))
        )
    if first == "bracket":
        exits = replace(
            plain, take_profit=price + ahead * (ticks + 2) * tick, stop_loss=price - ahead * (ticks + 2) * tick
        )
        return exits if second == "market" else replace(exits, type="LIMIT", limit=at)
    if kind == "reduce_only limit":
        return replace(plain, type="LIMIT", limit=away, reduce_only=True)
    if kind == "reduce_only market":
        return replace(plain, reduce_only=True)
    assert kind == "market", kind
    return plain


def decimal(amount: Fraction) -> Fraction:
    """The amount cut to ten decimal places."""
    return down_to(Fraction(1, 10**10), amount)
