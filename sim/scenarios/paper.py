"""Mode PAPER with the engine's threads: markets of all kinds, restarts with open orders, spills, gaps, halts, resumes.

Every process is compared with `sim.checks.paper`: its rows, also after a kill, and its account at the end.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from mockws_server.actions import Action, Burst, Disconnect, Skip, Ticks, Wait
from mockws_server.script import Script
from sim.checks.checkers import check_database, check_outcome
from sim.checks.paper import check_paper_run
from sim.scenarios.common import expect, flat_values, replay_settings, run_id_of, scenario
from sim.scenarios.halts import Operator, check_commands
from sim.scenarios.live import live_settings
from sim.scenarios.replays import check_as_uninterrupted
from sim.swarm.plan import Draw, draw_paper
from sim.world.exchange import SimExchange
from sim.world.faults import StorageFaults
from sim.world.world import Faults, ProcessOutcome, World
from tradebot.config.model import Settings
from tradebot.core.log_events import LogEvent

_SYMBOLS: Final = ("SOL/USDC", "BTC/USD", "ETH/USD")
_STYLES: Final = ("thin", "fast", "gapping")


def _drawn(world: World, **keys: object) -> dict[str, object]:
    """Settings of PAPER, drawn, but for `keys`."""
    return draw_paper(Draw(world.random)) | {key.replace("__", "."): value for key, value in keys.items()}


def _live(world: World, **keys: object) -> Settings:
    """PAPER with the mockws feed, orders every few ticks."""
    values = _drawn(world, **{"engine__signal_every_n_ticks": world.between(1, 4), "engine__run_seconds": 12.0, **keys})
    of_feed: dict[str, Any] = {key.replace(".", "__"): value for key, value in values.items()}
    return live_settings(world, **of_feed)


def _exchange(world: World, *steps: Action, style: str | None = None) -> SimExchange:
    """An exchange whose market has the sides of takers."""
    symbols = _SYMBOLS[: world.between(1, 3)]
    drawn = _STYLES[world.between(0, 2)]
    return SimExchange(Script("", steps, "", symbols, world.seed, None, market=style or drawn))


def _check(world: World, settings: Settings, outcome: ProcessOutcome) -> None:
    """Its rows, and its account if it came to its end with everything stored."""
    check_database(world.db_path)
    if not outcome.events(LogEvent.START):
        return
    account = None
    if outcome.exit_code == 0:
        check_outcome(outcome, settings.config, settings.config.engine.ingest_mode != "replay")
        account = world.processes[-1].observer.account
    check_paper_run(world.db_path, settings.config, run_id_of(outcome), account)


def _any_end(world: World) -> dict[str, Any]:
    """A kill at a random step or time, a stop signal, or the end of the time."""
    ends: tuple[dict[str, Any], ...] = (
        {"kill_at_step": world.between(1, 4000)},
        {"kill_at_s": world.between(1, 110) / 10},
        {"signals_at_s": (world.between(1, 110) / 10,)},
        {},
    )
    return ends[world.between(0, len(ends) - 1)]


@scenario
def paper_market(world: World) -> None:
    """A thin, a fast and a gapping market, with any assumption: orders, events, fills and the account are exact.

    The link may be lost, now and then.
    """
    rate = float(world.between(5, 40))
    lost = (Disconnect(1012),) if world.chance(0.3) else ()
    exchange = _exchange(world, Ticks(world.between(20, 80), rate), Burst(world.between(2, 60)), *lost, Wait(0.5))
    settings = _live(world)
    outcome = world.run(settings, Faults(network=exchange.online))
    expect(outcome, 0)
    _check(world, settings, outcome)
    assert world.dump()["order_events"], "no order was sent"


@scenario
def paper_replay_resumed(world: World) -> None:
    """kill -9 at any step, repeatedly: the resumed replay has the rows of an uninterrupted one, ids included."""
    settings = replay_settings(world, options={"resume": True})
    values = flat_values(settings) | _drawn(world, strategy__name="periodic", strategy__desired_size=1.0)
    values["engine.signal_every_n_ticks"] = world.between(1, 6)
    settings = world.settings(values, {"resume": True})
    for _ in range(world.between(1, 4)):
        outcome = world.run(settings, Faults(kill_at_step=world.between(1, 600)))
        if outcome.exit_code is None and world.dump()["ticks"]:
            _check(world, settings, outcome)
    outcome = world.run(settings)
    expect(outcome, 0)
    if outcome.events(LogEvent.LEDGER):  # not all of it was stored before
        _check(world, settings, outcome)
    check_as_uninterrupted(world, settings)


@scenario
def paper_restarted_with_open_orders(world: World) -> None:
    """Kills, stops and restarts while orders rest: each run continues with them, as one that was never killed."""
    exchange = _exchange(world, Ticks(world.between(10, 60), float(world.between(5, 30))), Wait(0.3))
    settings = _live(
        world,
        execution__order_type="limit",
        execution__limit_offset_bps=(2.0, 10.0, 40.0)[world.between(0, 2)],
        execution__post_only=False,
        paper__on_gap="keep",
        account__initial_balance=10_000.0,
        persist__batch_size=world.between(1, 20),
        persist__flush_interval_ms=world.between(50, 500),
    )
    for _ in range(world.between(2, 4)):
        every = (world.between(1, 20), 100_000)[world.between(0, 1)]
        outcome = world.run(settings, Faults(network=exchange.online, checkpoint_ticks=every, **_any_end(world)))
        assert outcome.exit_code in (0, None), outcome.error
        _check(world, settings, outcome)
        exchange.while_away(world.between(0, 5))
    outcome = world.run(settings, Faults(network=exchange.online))
    expect(outcome, 0)
    _check(world, settings, outcome)


@scenario
def paper_spilled(world: World) -> None:
    """The database is locked for longer than channels can buffer, a kill may come: outcomes are spilled whole."""
    exchange = _exchange(world, Ticks(world.between(20, 60), 30.0), Wait(0.2))
    settings = _live(
        world,
        channels__persist_channel_size=world.between(4, 32),
        channels__tick_channel_size=256,
        persist__batch_size=world.between(1, 20),
        persist__storage_retry_s=20.0,
    )
    locked = StorageFaults(busy_from_s=world.between(10, 40) / 10, busy_until_s=world.between(60, 90) / 10)
    kill_s = world.between(50, 110) / 10 if world.chance(0.5) else None
    outcome = world.run(settings, Faults(network=exchange.online, storage=locked, kill_at_s=kill_s))
    assert outcome.exit_code in (0, None), f"exit code {outcome.exit_code}"
    if outcome.exit_code == 0:
        _check(world, settings, outcome)
    again = world.run(settings, Faults(network=exchange.online))
    expect(again, 0)
    if outcome.events(LogEvent.START):
        check_paper_run(world.db_path, settings.config, run_id_of(outcome))
    _check(world, settings, again)


@scenario
def paper_gaps_cancel(world: World) -> None:
    """Trades are missing while orders rest: with `on_gap = "cancel"` they end before the next print."""
    steps: list[Action] = []
    for _ in range(6):
        steps += [Ticks(world.between(5, 20), 20.0), Skip(world.between(1, 5))]
    exchange = _exchange(world, *steps, style="thin")
    settings = _live(
        world,
        execution__order_type="limit",
        execution__limit_offset_bps=100.0,
        execution__post_only=False,
        paper__on_gap="cancel",
        account__initial_balance=10_000.0,
        account__allow_short=True,
    )
    outcome = world.run(settings, Faults(network=exchange.online))
    expect(outcome, 0)
    _check(world, settings, outcome)
    ended = [row for row in world.dump()["order_events"] if "GAP" in row]
    assert ended, "no order was canceled for a gap"


@scenario
def paper_halted(world: World) -> None:
    """Halts and resumes while engines run, between them and across kills: what adds exposure is refused in between."""
    operator = Operator(world)
    exchange = _exchange(world, Ticks(world.between(20, 60), 20.0), Wait(0.2))
    settings = _live(world, account__initial_balance=10_000.0, persist__flush_interval_ms=world.between(100, 1000))
    for _ in range(3):
        if world.chance(0.3):
            operator.give(world.chance(0.6))
        began_halted, began_resumed = operator.halted, operator.given > 0 and not operator.halted
        commands = operator.draw(12.0)
        kill_s = world.between(1, 110) / 10 if world.chance(0.6) else None
        every = world.between(1, 40)
        faults = Faults(
            network=exchange.online, kill_at_s=kill_s, begin=partial(operator.begin, commands), checkpoint_ticks=every
        )
        outcome = world.run(settings, faults)
        assert outcome.exit_code in (0, None), outcome.error
        _check(world, settings, outcome)
        if outcome.events(LogEvent.START):
            check_commands(world, outcome, began_halted, commands, began_resumed)
