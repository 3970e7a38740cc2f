"""Input that a live feed must check: the order within a frame, reused numbers, implausible prices."""

from __future__ import annotations

from itertools import pairwise

from mockws_server.actions import Action, Disconnect, OneTick, Skip, Ticks, Wait
from sim.scenarios.common import scenario
from sim.scenarios.live import SYMBOL, exchange_of, live_settings, run_live, script_of
from sim.world.exchange_protocols import SimKraken
from sim.world.world import ProcessOutcome, World
from tradebot.core.log_events import LogEvent


def _trade(price: float, event_id: str, ts: int = 1) -> OneTick:
    return OneTick({"symbol": SYMBOL, "price": price, "volume": 1.0, "ts": ts, "event_id": event_id})


@scenario
def frames_newest_first(world: World) -> None:
    """Frames and snapshots with the newest trade first: the strategy gets each symbol oldest first, gaps included."""
    trades = world.between(2, 8)
    steps: list[Action] = [Ticks(60, 10.0), Skip(world.between(1, 9)), Ticks(60, 10.0), Disconnect(1011)]
    symbols = (SYMBOL, "BTC/USD")[: world.between(1, 2)]
    script = script_of(world, *steps, Ticks(100, 10.0), symbols=symbols)
    exchange = SimKraken(script, snapshot=world.between(0, 30), newest_first=trades)
    settings = live_settings(world, "kraken", app__symbol=",".join(symbols), feed__history="keep")
    outcome = run_live(world, settings, exchange)
    for symbol in symbols:
        times = [row[4] for row in world.dump()["ticks"] if row[1] == symbol]
        # A frame may hold trades from before the one that an answer to a subscription brought.
        assert sum(later < earlier for earlier, later in pairwise(times)) <= 2 * trades, symbol
    assert outcome.events(LogEvent.GAP)


@scenario
def numbering_restarts(world: World) -> None:
    """Numbering restarts at 1, as after a reset of a test network: all trades are stored, and it is reported once."""
    before, after = world.between(20, 150), world.between(20, 300)
    exchange = exchange_of(world, Ticks(before, 10.0), Disconnect(1001), Wait(2.0), Ticks(after, 10.0))
    exchange.at(before / 10.0 + 1.0, exchange.restart_numbering)
    outcome = run_live(world, live_settings(world), exchange)
    assert outcome.event(LogEvent.LEDGER)["duplicates"] == 0
    assert [gap["missing"] for gap in outcome.events(LogEvent.GAP)] == [None], outcome.events(LogEvent.GAP)
    assert len(world.dump()["ticks"]) == len(exchange.sent)


@scenario
def numbering_restarts_between_runs(world: World) -> None:
    """The next process knows the numbers of the previous one and the contents of their trades."""
    exchange = exchange_of(world, Ticks(world.between(50, 200), 20.0))
    settings = live_settings(world, engine__run_seconds=15.0)
    run_live(world, settings, exchange)
    exchange.restart_numbering()
    outcome = run_live(world, settings, exchange)
    assert outcome.event(LogEvent.LEDGER)["duplicates"] == 0
    assert [gap["missing"] for gap in outcome.events(LogEvent.GAP)] == [None], outcome.events(LogEvent.GAP)


@scenario
def constant_event_id(world: World) -> None:
    """A sender with a constant id: its trades are stored, and it is reported once; a repeated trade is dropped."""
    count = world.between(20, 100)
    steps: list[Action] = [Wait(1.0)]
    for number in range(count):
        steps += [_trade(100.0 + number % 3, "0", number), Wait(0.05)]
    exchange = exchange_of(world, *steps, steps[1])
    outcome = run_live(world, live_settings(world), exchange)
    assert len(world.dump()["ticks"]) == count
    assert outcome.event(LogEvent.LEDGER)["duplicates"] == 1
    assert len(outcome.events(LogEvent.GAP)) == 1, outcome.events(LogEvent.GAP)


@scenario
def out_of_band_prices(world: World) -> None:
    """Single spikes never reach the strategy; a real change of the price level is accepted with the third price."""
    steps: list[Action] = [Ticks(30, 10.0)]
    spikes = world.between(2, 6)
    for number in range(spikes):
        steps += [_trade((1e7, 1e-4)[number % 2], f"spike {number}"), Ticks(world.between(1, 30), 10.0)]
    steps += [_trade(price, f"level {price}") for price in (50_000.0, 50_001.0, 50_002.0, 50_003.0)]
    exchange = exchange_of(world, *steps, Ticks(20, 10.0))
    outcome = run_live(world, live_settings(world), exchange)
    prices = [row[2] for row in world.dump()["ticks"]]
    assert max(prices) == 50_003.0 and min(prices) >= 1.0, (min(prices), max(prices))
    assert prices[-1] < 1000.0, "the band moved back"
    assert outcome.event(LogEvent.LEDGER)["out_of_band"] == spikes + 4
    assert len(_quarantined(world)) == spikes + 4
    assert 1 <= len(outcome.events(LogEvent.PRICE_BAND)) <= spikes + 3


@scenario
def out_of_band_price_after_restart(world: World) -> None:
    """The first price of the next process is checked against the prices that the previous one stored."""
    exchange = exchange_of(world, Wait(1.0), Ticks(world.between(40, 100), 20.0))
    settings = live_settings(world, engine__run_seconds=10.0)
    run_live(world, settings, exchange)
    exchange.perform_at(0.5, _trade((1e7, 1e-4)[world.between(0, 1)], "spike"))
    outcome = run_live(world, settings, exchange)
    _only_one_refused(outcome)
    assert not [row for row in world.dump()["ticks"] if "spike" in row]


def _only_one_refused(outcome: ProcessOutcome) -> None:
    assert outcome.event(LogEvent.LEDGER)["out_of_band"] == 1, outcome.event(LogEvent.LEDGER)
    assert len(outcome.events(LogEvent.PRICE_BAND)) == 1


def _quarantined(world: World) -> list[str]:
    path = world.db_path.with_name(world.db_path.name + ".quarantine.jsonl")
    return path.read_text().splitlines() if path.exists() else []
