"""Restarts with a checkpoint every few ticks: quiet symbols, kills at any step, two feeds in one database."""

from __future__ import annotations

from typing import Any

from mockws_server.actions import Text, Ticks, Wait
from sim.checks import prune_invariants as kept
from sim.checks.checkers import check_database, check_feed, check_run
from sim.scenarios.common import run_id_of, scenario
from sim.scenarios.live import SYMBOL, exchange_of, live_settings, run_live, script_of
from sim.world.exchange import SimExchange
from sim.world.exchange_protocols import SimKraken, SimKuCoin
from sim.world.world import Faults, ProcessOutcome, World
from tradebot.config.model import Settings
from tradebot.core.log_events import LogEvent

_QUIET = "QUIET/USD"


def _any_end(world: World) -> dict[str, Any]:
    """The end of a process: a kill at a random step or second, a stop signal, or none."""
    ends: tuple[dict[str, Any], ...] = (
        {"kill_at_step": world.between(1, 3000)},
        {"kill_at_s": world.random.random() * 9},
        {"signals_at_s": (world.random.random() * 9,)},
        {},
    )
    return ends[world.between(0, len(ends) - 1)]


def _check(world: World, settings: Settings, exchange: SimExchange, outcomes: list[ProcessOutcome]) -> None:
    check_database(world.db_path)
    check_feed(world.db_path, settings, exchange, outcomes)
    kept.check_carried(world.db_path, world.db_path)
    for outcome in outcomes:
        if outcome.events(LogEvent.START):
            check_run(world.db_path, settings.config, run_id_of(outcome), whole=False)


@scenario
def quiet_symbol_state_kept(world: World) -> None:
    """A symbol trades in the first process only, another one in all: its numbers, window and position are kept.

    In any later process its repeated trades are dropped and its missing trades are reported.
    """
    exchange = exchange_of(world, Wait(9.0), symbols=(SYMBOL, _QUIET))
    strategy = "periodic" if world.chance(0.5) else "sma_crossover"
    keys: dict[str, Any] = {"strategy__name": strategy, "strategy__short_window": 2, "strategy__long_window": 5}
    settings = live_settings(world, engine__run_seconds=10.0, persist__batch_size=world.between(1, 5), **keys)

    def run(**faults: Any) -> None:
        exchange.perform_at(1.0 + world.random.random(), Ticks(world.between(10, 90), 20.0, [SYMBOL]))
        every = world.between(1, 20)
        world.run(settings, Faults(network=exchange.online, checkpoint_ticks=every, **faults))

    exchange.perform_at(0.5, Ticks(world.between(3, 12), 50.0, [_QUIET]))
    run(**_any_end(world))
    for _ in range(world.between(1, 3)):
        run(**_any_end(world))
    again = [sent.data.decode() for sent in exchange.sent if _QUIET.encode() in sent.data][-world.between(1, 12) :]
    for number, text in enumerate(again):
        exchange.perform_at(3.0 + number / 10, Text(text))
    exchange.perform_at(5.0, Ticks(world.between(1, 8), 20.0, [_QUIET]))
    run()
    _check(world, settings, exchange, world.outcomes)


@scenario
def two_feeds_in_one_database(world: World) -> None:
    """Two exchanges with the same symbol, in turn: neither continues the other's state."""
    script = script_of(world, Ticks(world.between(20, 100), 20.0))
    exchanges: dict[str, SimExchange] = {"kraken": SimKraken(script), "kucoin": SimKuCoin(script)}
    outcomes: dict[str, list[ProcessOutcome]] = {name: [] for name in exchanges}
    settings = {name: live_settings(world, name, engine__run_seconds=10.0) for name in exchanges}
    for turn in range(world.between(3, 6)):
        name = ("kraken", "kucoin")[turn % 2]
        faults = Faults(network=exchanges[name].online, checkpoint_ticks=world.between(1, 20), **_any_end(world))
        outcomes[name].append(world.run(settings[name], faults))
    for name, exchange in exchanges.items():
        _check(world, settings[name], exchange, outcomes[name])


@scenario
def sampled_feed_checkpoints(world: World) -> None:
    """Only every n-th trade is stored: after a stop the next process knows the numbers of all received trades."""
    exchange = exchange_of(world, Ticks(world.between(30, 100), 20.0))
    settings = live_settings(world, engine__run_seconds=8.0, engine__sample_every=world.between(2, 9))
    run_live(world, settings, exchange)
    for _ in range(world.between(1, 2)):
        exchange.while_away(world.between(0, 3))
        run_live(world, settings, exchange)
