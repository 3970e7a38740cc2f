"""How processes with a live feed exit and restart: stop signals, kills, failing storage, restarts."""

from __future__ import annotations

from mockws_server.actions import Action, Burst, Disconnect, HalfFrame, OneTick, Skip, Stall, Ticks, Wait
from sim.checks.checkers import check_run
from sim.scenarios.common import check_all, expect, flat_values, run_id_of, scenario
from sim.scenarios.live import exchange_of, live_settings, run_live
from sim.world.faults import StorageFaults
from sim.world.network import HandshakeRefused, HandshakeRejected, HandshakeUnanswered
from sim.world.world import Faults, World
from tradebot.core.log_events import LogEvent

_SYMBOLS = ("SOL/USDC", "BTC/USD")
_STOP_S = 2.0
"""From a stop signal to the exit: detection within 0.1 s, the feed within 0.5 s, and the drain."""


@scenario
def stop_in_any_link_state(world: World) -> None:
    """A stop signal while connecting, backing off, receiving or idle: exit 0, soon, all stored (S13)."""
    exchange = exchange_of(world, Ticks(20, 10.0), *_state(world), Ticks(500, 5.0))
    never_up = (None, HandshakeUnanswered(), HandshakeRefused(), HandshakeRejected(503, 3600.0))[world.between(0, 3)]
    exchange.answer_always(never_up)
    at_s = 0.2 + world.random.random() * 20
    settings = live_settings(
        world, engine__run_seconds=300.0, feed__connect_timeout_s=60.0, feed__reconnect_budget_s=80.0
    )
    outcome = run_live(world, settings, exchange, signals_at_s=(at_s,))
    assert outcome.sim_s <= at_s + _STOP_S, f"{outcome.sim_s - at_s} s from the signal to the end"


def _state(world: World) -> tuple[Action, ...]:
    states: tuple[tuple[Action, ...], ...] = (
        (),
        (Wait(5.0),),
        (Stall(30.0),),
        (HalfFrame(),),
        (Disconnect(1013), Disconnect(1013)),
    )
    return states[world.between(0, len(states) - 1)]


@scenario
def live_kill_and_restart(world: World) -> None:
    """kill -9 at any moment, repeatedly: no trade twice, no orphan row, missed trades are a stored gap."""
    exchange = exchange_of(
        world, Ticks(75, 5.0), Skip(3), Ticks(50, 10.0), Disconnect(1011), Ticks(500, 5.0), symbols=_SYMBOLS
    )
    settings = live_settings(world, engine__run_seconds=20.0)
    for _ in range(world.between(1, 3)):
        kill: dict[str, object] = {"kill_at_step": world.between(1, 2000)}
        if world.chance(0.3):
            kill = {"kill_at_s": world.random.random() * 19}
        world.run(settings, Faults(network=exchange.online, **kill))  # type: ignore[arg-type]
        exchange.while_away(world.between(0, 50))
    run_live(world, settings, exchange)
    for outcome in world.outcomes:
        if outcome.events(LogEvent.START):
            check_run(world.db_path, settings.config, run_id_of(outcome), whole=False)


@scenario
def numbering_kept_over_restart(world: World) -> None:
    """A clean stop and a restart: numbering continues, and the trades in between are a gap."""
    exchange = exchange_of(world, Ticks(500, 5.0), symbols=_SYMBOLS[: world.between(1, 2)])
    settings = live_settings(world, engine__run_seconds=10.0)
    first = run_live(world, settings, exchange)
    assert not first.events(LogEvent.GAP)
    away = world.between(0, 30)
    exchange.while_away(away)
    second = run_live(world, settings, exchange)
    assert second.events(LogEvent.CARRIED_OVER)
    # The first trades of each process go out before anyone listens.
    assert sum([gap["missing"] for gap in second.events(LogEvent.GAP)]) >= away
    assert world.dump()["ticks"]


@scenario
def live_storage_locked(world: World) -> None:
    """A temporarily locked database: the link is kept, nothing is lost."""
    busy_s = 1.0 + world.random.random() * 15
    exchange = exchange_of(world, Ticks(50, 5.0), Disconnect(1006), Ticks(250, 5.0))
    storage = StorageFaults(busy_from_s=5.0, busy_until_s=5.0 + busy_s)
    outcome = run_live(world, live_settings(world), exchange, storage=storage)
    assert outcome.event(LogEvent.FINAL_METRICS)["reconnects"] == 1


@scenario
def notices_spilled(world: World) -> None:
    """A storage that stays full: exit 13, ticks and notices go to the spill file, which the next start stores (G5)."""
    exchange = exchange_of(
        world,
        Ticks(30, 10.0),
        Skip(2),
        Ticks(20, 10.0),
        Disconnect(1006),
        Ticks(20, 10.0),
        Burst(50, 5.0),
        Ticks(450, 5.0),
    )
    settings = live_settings(world, persist__storage_retry_s=2.0)
    outcome = world.run(
        settings,
        Faults(network=exchange.online, storage=StorageFaults(full_from_s=world.random.random() * 8, full_until_s=1e9)),
    )
    expect(outcome, 13)
    ledger = outcome.event(LogEvent.LEDGER)
    assert ledger["balanced"] and ledger["spilled"] == ledger["not_stored"] > 0, ledger
    next_settings = world.settings({**flat_values(settings), "engine.run_seconds": 20.0})
    second = run_live(world, next_settings, exchange)
    assert second.event(LogEvent.SPILL_ADOPTED)["whole"]
    check_run(world.db_path, settings.config, run_id_of(outcome), whole=True)
    kinds = [row[2] for row in world.dump()["notices"]]
    assert kinds.count("LINK_UP") == 2, kinds


@scenario
def live_execution_slow(world: World) -> None:
    """Execution slower than a live feed: its signals are refused, and the link is not affected (G5, I6)."""
    exchange = exchange_of(world, Ticks(150, 10.0), Disconnect(1012), Ticks(150, 10.0))
    settings = live_settings(world, engine__signal_every_n_ticks=1, channels__signal_channel_size=2)
    outcome = run_live(world, settings, exchange, delays_s={"tradebot-execution": 1.0})
    assert outcome.event(LogEvent.FINAL_METRICS)["bp_drops_signal"] > 0
    assert outcome.event(LogEvent.FINAL_METRICS)["reconnects"] == 1


@scenario
def last_prices_kept_over_restart(world: World) -> None:
    """A short position counts at the last price, after a restart too (I2)."""
    dear = float(world.between(901, 990))  # no more than ten times what it was: within the price band
    settings = live_settings(
        world,
        engine__run_seconds=5.0,
        engine__signal_every_n_ticks=2,
        risk_caps__max_exposure_usd=1000.0,
        risk_caps__max_symbol_exposure_usd=1000.0,
        feed__max_price_jump=100.0,
    )
    for symbol, prices in (("SOL/USDC", (100.0, 100.0, dear)), ("BTC/USD", (100.0, 100.0))):
        ticks = [
            OneTick(
                {"symbol": symbol, "price": price, "volume": 1.0, "ts": 1, "event_id": f"{symbol}-{seq}", "seq": seq}
            )
            for seq, price in enumerate(prices, start=1)
        ]
        exchange = exchange_of(world, Wait(1.0), *ticks, Wait(10.0))
        outcome = world.run(settings, Faults(network=exchange.online))
        expect(outcome, 0)
        check_all(world, settings, outcome, push=True)
    orders = [(row[1], row[9]) for row in world.dump()["orders"]]
    assert orders == [("SOL/USDC", "SHADOW_RECORDED"), ("BTC/USD", "RISK_CAP")], orders
