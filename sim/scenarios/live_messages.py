"""Messages of exchanges other than trades: refused symbols and requests, silence, maintenance, announced restarts."""

from __future__ import annotations

from mockws_server.actions import Ticks, Wait
from sim.scenarios.common import check_all, expect, scenario
from sim.scenarios.live import BACKOFF_MAX_S, BUDGET_S, SYMBOL, live_settings, missing, run_live, script_of, within
from sim.world.exchange_protocols import SimBinance, SimBybit, SimKraken
from sim.world.world import Faults, ProcessOutcome, World
from tradebot.core.log_events import LogEvent
from tradebot.feeds.websocket.subscriptions import CONFIRM_LEAST_S
from tradebot.ops.health import Health, HealthReading, RunLook, judge
from tradebot.telemetry.status_file import Status, read_status, status_path

_TYPO = "TYPOUSDT"
_MAX_AGE_S = 20.0


def _named(world: World, outcome: ProcessOutcome, kind: str) -> list[str]:
    """The details of the stored notices of a kind, which must be in the log as well."""
    found = [row[4] for row in world.dump()["notices"] if row[2] == kind]
    assert [line["detail"] for line in outcome.events(kind)] == found
    return found


def _status(world: World) -> Status:
    status = read_status(status_path(world.db_path))
    assert status is not None
    return status


def _health(status: Status) -> Health:
    """The verdict of `tradebot health` on a status that was just written."""
    run = RunLook(status.run_id, status.version, status.mode, status.ingest, status.source, 0, None, None, False, 0)
    return judge(HealthReading(status.written_s, status.written_ms, True, status, run), _MAX_AGE_S)


@scenario
def wrong_topic_in_batch(world: World) -> None:
    """The exchange refuses ten topics because of one: nine are subscribed singly, the wrong one is named."""
    good = [f"S{number}USDT" for number in range(world.between(1, 14))]
    asked = list(good)
    asked.insert(world.between(0, len(good)), _TYPO)
    exchange = SimBybit(script_of(world, Wait(8.0), Ticks(40 * len(good), 10.0), symbols=good))
    settings = live_settings(world, "bybit", app__symbol=",".join(asked), engine__run_seconds=20.0 + 4.0 * len(good))
    outcome = run_live(world, settings, exchange)
    words = _named(world, outcome, "SYMBOL_REFUSED")
    assert len(words) == 1, f"the refused symbol was named {len(words)} times"
    assert _TYPO in words[0] and outcome.event(LogEvent.SYMBOL_REFUSED)["symbol"] == _TYPO
    symbols = _status(world).symbols
    assert symbols is not None and list(symbols.refused) == [_TYPO] and symbols.requested == len(asked)
    traded = {row[1] for row in world.dump()["ticks"]}
    assert traded == set(good), f"{sorted(set(good) - traded)} were asked for, and bring nothing"
    assert not outcome.events(LogEvent.LINK_LOST)


@scenario
def all_symbols_refused(world: World) -> None:
    """Only notices, no trades: unhealthy after a while; exit 10 within the budget, with the exchange's message."""
    exchange = SimKraken(script_of(world, Ticks(100, 1.0)), unknown=(SYMBOL,))
    settings = live_settings(world, "kraken", engine__run_seconds=300.0)
    looks: list[Health] = []

    def begin(process: object) -> None:
        runtime = exchange.network.runtime
        for second in range(2, int(BUDGET_S) - 2):
            runtime.call_at(second + 0.5, lambda: looks.append(_health(_status(world))))

    outcome = world.run(settings, Faults(network=exchange.online, begin=begin))
    expect(outcome, 10)
    check_all(world, settings, outcome, push=True)
    assert any("Currency pair not supported" in str(line["fields"].get("detail")) and "budget" in str(line["fields"])
               for line in outcome.logs), outcome.logs[-3:]  # fmt: skip
    assert len(_named(world, outcome, "SYMBOL_REFUSED")) == 1, "once, not at each connection"
    # A connection made one backoff after the end of the budget still gets the time for a first confirmation.
    most_s = BUDGET_S + BACKOFF_MAX_S + CONFIRM_LEAST_S + 1.0
    within(outcome.times_s[-1], BUDGET_S, most_s, "given up")
    assert looks[0].ok and not looks[-1].ok, looks
    late = looks[int(_MAX_AGE_S) :]
    assert late and not any(look.ok for look in late), "notices are no progress"
    assert SYMBOL in looks[-1].text


@scenario
def symbol_falls_silent(world: World) -> None:
    """One of two symbols stops trading: it is named once, after a long time; the other one continues."""
    symbols = ("AUSDT", "BUSDT")
    exchange = SimBybit(script_of(world, Ticks(1500, 3.0), symbols=symbols))
    silent_s = world.between(20, 60)
    exchange.at(silent_s, lambda: exchange.silenced.add("AUSDT"))
    settings = live_settings(world, "bybit", app__symbol=",".join(symbols), engine__run_seconds=silent_s + 400.0)
    outcome = run_live(world, settings, exchange)
    words = _named(world, outcome, "SYMBOL_SILENT")
    assert len(words) == 1, f"the silent symbol was named {len(words)} times"
    assert "no trade for" in words[0] and outcome.event(LogEvent.SYMBOL_SILENT)["symbol"] == "AUSDT"
    look = _status(world).symbols
    assert look is not None and look.silent == ("AUSDT",) and not look.refused


@scenario
def maintenance_announced(world: World) -> None:
    """An announcement of the exchange is reported once, at its position, and so is its end."""
    exchange = SimKraken(script_of(world, Ticks(200, 5.0)))
    for at_s, status in ((5, "maintenance"), (6, "maintenance"), (20, "online")):
        exchange.at(at_s + 0.5, lambda status=status: exchange.announce(status))  # type: ignore[misc]
    outcome = run_live(world, live_settings(world, "kraken", engine__run_seconds=30.0), exchange)
    assert [words.rpartition(" ")[2] for words in _named(world, outcome, "EXCHANGE_NOTICE")] == [
        "maintenance",
        "online",
    ]
    look = _status(world).symbols
    assert look is not None and look.announced == 2


@scenario
def restart_announced(world: World) -> None:
    """A server announces its shutdown: a new connection takes over before it, and no trade is missing."""
    symbol = "BTCUSDT"
    announced_s = 5.0 + 10 * world.random.random()
    exchange = SimBinance(script_of(world, Ticks(world.between(300, 600), 10.0), symbols=(symbol,)))
    exchange.at(announced_s, exchange.announce_shutdown)

    def shut_down() -> None:
        for peer in exchange.network.peers[:1]:
            if peer.open:
                peer.close(1001)

    exchange.at(announced_s + 10.0, shut_down)
    settings = live_settings(world, "binance", app__symbol=symbol, engine__run_seconds=70.0)
    outcome = run_live(world, settings, exchange)
    assert missing(outcome) == 0 and not outcome.events(LogEvent.GAP), "nothing is lost with two connections"
    assert outcome.event(LogEvent.FINAL_METRICS)["reconnects"] == 1
    lost = outcome.event(LogEvent.LINK_LOST)["detail"]
    assert "replaced by a new connection" in lost, "it was left before it was lost"
    first, second = exchange.network.sessions
    assert first.over_s is not None
    within(second.began_s, announced_s, announced_s + 1.0, "connected anew")
    within(first.over_s, second.began_s, announced_s + 10.0, "the old one was left after the new one was there")
    assert outcome.event(LogEvent.LEDGER)["duplicates"] > 0
