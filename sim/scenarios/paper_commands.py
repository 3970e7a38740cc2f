"""Orders that no configuration makes yet: stops, brackets, IOC, FOK, GTD, reduce_only, cancels and amends. No threads.

The program's PAPER and `sim.paper_reference` get the same drawn market and commands.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final

from mockws_server.market import STYLES, Market
from sim.checks.commanded_paper import compare
from sim.checks.paper import exact, print_of
from sim.paper_reference.schedule import schedule
from sim.paper_reference.values import Instrument, Print, Settings
from sim.scenarios.common import scenario
from sim.world.world import World

_SYMBOLS: Final = ("SOL/USDC", "BTC/USD")
_PRINTS: Final = 250
_CENT: Final = Fraction(1, 100)


def _prints(world: World) -> list[Print]:
    """A market of any style, with late prints."""
    style = STYLES[("thin", "fast", "gapping")[world.between(0, 2)]]
    market = Market(_SYMBOLS[: world.between(1, 2)], world.seed, style=style)
    found, ts = [], 1_700_000_000_000
    for _ in range(_PRINTS):
        ts += (0, 5, 40, 100, 700)[world.between(0, 4)]
        late_ms = 300 if world.chance(0.03) else 0
        found += [print_of(tick) for tick in market.ticks(1, ts - late_ms)]
    return found


def _settings(world: World) -> Settings:
    allow_short = world.chance(0.7)
    return Settings(
        latency_ms=(0, 100, 1000)[world.between(0, 2)],
        cancel_latency_ms=(0, 100)[world.between(0, 1)],
        participation=(Fraction(1, 4), Fraction(1), Fraction(1, 10))[world.between(0, 2)],
        slippage_bps=(Fraction(0), Fraction(5, 2))[world.between(0, 1)],
        queue=("through", "trades", "front")[world.between(0, 2)],
        market_timeout_ms=(5000, 500)[world.between(0, 1)],
        on_gap=("keep", "cancel")[world.between(0, 1)],
        initial_balance=Fraction((1_000_000, 2_000)[world.between(0, 1)]),
        allow_short=allow_short,
        max_leverage=Fraction(world.between(1, 3)) if allow_short else Fraction(1),
    )


def _instrument(world: World, symbol: str) -> Instrument:
    quote = symbol.rpartition("/")[2]
    if world.chance(0.5):
        return Instrument(symbol, quote)
    fees = exact(0.0002), exact(0.0005)
    return Instrument(symbol, quote, tick_size=_CENT, lot_size=_CENT, maker_fee=fees[0], taker_fee=fees[1])


@scenario
def paper_commands(world: World) -> None:
    """Every order, transition and fill is that of the second calculation, whatever the state is restored between."""
    prints = _prints(world)
    instruments = [_instrument(world, symbol) for symbol in dict.fromkeys(print_.symbol for print_ in prints)]
    settings = _settings(world)
    commands = schedule(prints, instruments, world.seed, world.between(2, 12), amends=True)
    gaps: dict[int, str | None] = {}
    for _ in range(world.between(0, 2)):
        symbol = prints[0].symbol if world.chance(0.5) else None
        gaps[world.between(2, _PRINTS)] = symbol
    compare(prints, commands, settings, instruments, gaps, cut=world.between(0, 9))
