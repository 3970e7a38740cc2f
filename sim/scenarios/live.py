"""Shared by the live-feed scenarios: an exchange scripted with mockws actions, a run against it, and timings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from mockws_server.actions import Action
from mockws_server.script import Script
from sim.checks.checkers import check_accepted_stored, check_feed
from sim.scenarios.common import check_all, expect
from sim.world.exchange import SimExchange
from sim.world.network import SimNetwork
from sim.world.world import Faults, ProcessOutcome, World
from tradebot.config.model import Settings
from tradebot.core.log_events import LogEvent

SYMBOL: Final = "SOL/USDC"

AT_ONCE_S: Final = 0.05
"""The longest simulated time of an immediate action: threads take turns, steps cost microseconds."""

IDLE_S: Final = 6.0
PING_S: Final = 2.0
CONNECT_S: Final = 3.0
BACKOFF_MAX_S: Final = 4.0
STABLE_S: Final = 10.0
BUDGET_S: Final = 40.0


def live_settings(world: World, exchange: str | None = None, **keys: object) -> Settings:
    """Settings of the mockws feed or of an exchange's feed, with deadlines short enough for a simulated minute.

    The default symbol of an exchange is SYMBOL; all addresses lead to the one simulated server.
    """
    values: dict[str, object] = {
        "engine.ingest_mode": "mockws",
        "engine.run_seconds": 60.0,
        "strategy.name": "periodic",
        "engine.signal_every_n_ticks": world.between(1, 20),
        "strategy.desired_size": 1.0,
        "feed.connect_timeout_s": CONNECT_S,
        "feed.idle_timeout_s": IDLE_S,
        "feed.ping_interval_s": PING_S,
        "feed.backoff_max_s": BACKOFF_MAX_S,
        "feed.stable_after_s": STABLE_S,
        "feed.reconnect_budget_s": BUDGET_S,
    }
    if exchange is not None:
        values |= {"engine.ingest_mode": "realws", "app.symbol": SYMBOL}
    values |= {key.replace("__", "."): value for key, value in keys.items()}
    return world.settings(values, {} if exchange is None else {"exchange": exchange})


def script_of(world: World, *steps: Action, symbols: Sequence[str] = (SYMBOL,), repeat: int | None = 1) -> Script:
    """A script of `steps`; the seed determines the market's prices."""
    return Script("", steps, "", tuple(symbols), world.seed, repeat)


def exchange_of(
    world: World, *steps: Action, symbols: Sequence[str] = (SYMBOL,), repeat: int | None = 1
) -> SimExchange:
    """An exchange that plays `steps`; its clock is up to two seconds off."""
    return SimExchange(script_of(world, *steps, symbols=symbols, repeat=repeat), skew_ms=world.between(-2000, 2000))


def run_live(world: World, settings: Settings, exchange: SimExchange, code: int = 0, **faults: Any) -> ProcessOutcome:
    """Run one process that must end with `code`, with everything accepted stored and rows that match the feed model."""
    outcome = world.run(settings, Faults(network=exchange.online, **faults))
    expect(outcome, code)
    check_accepted_stored(outcome)
    check_all(world, settings, outcome, push=True)
    check_feed(world.db_path, settings, exchange, world.outcomes)
    return outcome


def losses_s(network: SimNetwork) -> list[float]:
    """When the loss of each connection but the last was detected."""
    times = [session.over_s for session in network.sessions[:-1]]
    return [time for time in times if time is not None]


def retries_s(network: SimNetwork) -> list[float]:
    """The time from each loss to the next connection attempt."""
    found = []
    for lost_s in losses_s(network):
        found.append(min([dialled_s for dialled_s in network.dialled_at_s if dialled_s >= lost_s]) - lost_s)
    return found


def missing(outcome: ProcessOutcome) -> int:
    """The total number of missing trades in all gaps of known size."""
    return sum([gap["missing"] or 0 for gap in outcome.events(LogEvent.GAP)])


def within(value: float, low: float, high: float, what: str) -> None:
    """Fail unless `low` <= `value` <= `high`."""
    assert low <= value <= high, f"{what}: {value}, not between {low} and {high}"
