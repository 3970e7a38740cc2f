"""Series of prints with taker sides: recorded ones, and small ones made from a seed."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from random import Random

from sim.paper_reference.values import Instrument, Print, a_print

TAKER_SIDES = {"buy": "BUY", "sell": "SELL"}


def recorded(path: Path) -> list[Print]:
    """The trades that a recorded session is known to hold, `{"line", "trades": [...]}` a line, as they arrived.

    Snapshots list the past from the newest trade backwards and are turned; within a symbol a session may still hold
    late prints, which are part of the matter.
    """
    prints = []
    for line in path.read_text().splitlines():
        trades = json.loads(line)["trades"]
        if trades and trades[0].get("snapshot"):
            trades = sorted(trades, key=lambda trade: trade["ts"])
        for trade in trades:
            prints.append(
                a_print(trade["symbol"], trade["price"], trade["qty"], trade["ts"], TAKER_SIDES.get(trade["side"]))
            )
    return prints


def tick_lines(path: Path) -> list[Print]:
    """The prints of a replay file, with the digits that it has."""
    ticks = [json.loads(line, parse_float=str, parse_int=str) for line in path.read_text().splitlines()]
    return [
        a_print(tick["symbol"], tick["price"], tick["volume"], int(tick["ts"]), tick.get("taker")) for tick in ticks
    ]


def made_up(seed: int, count: int, symbols: tuple[str, ...] = ("AB/USD",)) -> list[Print]:
    """A small market that walks in ticks of a cent, with late prints, prints of unknown takers, and volumes of 0."""
    random = Random(seed)
    cents = dict.fromkeys(symbols, 10_000)
    ts = 1_700_000_000_000
    prints = []
    for _ in range(count):
        symbol = random.choice(symbols)
        cents[symbol] += random.choice((-3, -1, -1, 0, 0, 0, 0, 1, 1, 3))
        ts += random.choice((0, 0, 5, 40, 100, 700))
        late = random.random() < 0.03
        prints.append(
            Print(
                symbol,
                Fraction(cents[symbol], 100),
                Fraction(random.choice((0, 1, 5, 20, 100, 1_000)), 100),
                ts - 300 if late else ts,
                random.choice(("BUY", "SELL", "BUY", "SELL", None)),
            )
        )
    return prints


def instruments_of(prints: list[Print], known: bool) -> list[Instrument]:
    """For each symbol either all that its prints show (their common grid), or nothing but the fees."""
    found = []
    for symbol in dict.fromkeys(print_.symbol for print_ in prints):
        own = [print_ for print_ in prints if print_.symbol == symbol]
        if not known:
            found.append(Instrument(symbol))
            continue
        found.append(
            Instrument(
                symbol,
                tick_size=grid_of([print_.price for print_ in own]),
                lot_size=grid_of([print_.volume for print_ in own]),
                maker_fee=Fraction(2, 10_000),
                taker_fee=Fraction(5, 10_000),
            )
        )
    return found


def grid_of(amounts: list[Fraction]) -> Fraction:
    """The largest power of ten that divides all of them."""
    step = Fraction(1000)
    while any(amount % step for amount in amounts):
        step /= 10
    return step
