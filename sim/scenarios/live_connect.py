"""Connecting to exchanges with subscriptions: confirmed or not, with history, with tokens."""

from __future__ import annotations

from mockws_server.actions import Action, Disconnect, Ticks, Wait
from sim.scenarios.common import scenario
from sim.scenarios.live import (
    AT_ONCE_S,
    BACKOFF_MAX_S,
    CONNECT_S,
    IDLE_S,
    live_settings,
    missing,
    run_live,
    script_of,
    within,
)
from sim.world.exchange_protocols import SimKraken, SimKuCoin
from sim.world.network import HandshakeRefused, HandshakeRejected, HandshakeUnanswered
from sim.world.world import Faults, World
from tradebot.core.log_events import LogEvent


@scenario
def subscription_not_confirmed(world: World) -> None:
    """A server that answers pings but no subscription: reconnect after idle_timeout_s, as often as necessary."""
    deaf_to = world.between(1, 3)
    exchange = SimKraken(script_of(world, Ticks(290, 5.0)), deaf_to=deaf_to)
    outcome = run_live(world, live_settings(world, "kraken"), exchange)
    losses = outcome.events(LogEvent.LINK_LOST)
    assert len(losses) == deaf_to and all("not confirmed" in loss["detail"] for loss in losses), losses
    for session in exchange.network.sessions[:-1]:
        assert session.over_s is not None
        within(session.over_s - session.began_s, IDLE_S, IDLE_S + AT_ONCE_S, "given up")
    assert outcome.events(LogEvent.SUBSCRIBED)
    asked = [len([said for said in peer.received if said.kind == "text"]) for peer in exchange.network.peers]
    assert asked == [1] * (deaf_to + 1), "each connection is asked once"


@scenario
def quiet_confirmed_subscription(world: World) -> None:
    """A confirmed subscription is kept, however long no trade arrives."""
    exchange = SimKraken(script_of(world, Wait(1.0), Wait(100.0), Ticks(10, 10.0)))
    outcome = run_live(world, live_settings(world, "kraken", engine__run_seconds=105.0), exchange)
    assert not outcome.events(LogEvent.LINK_LOST)
    assert outcome.event(LogEvent.FINAL_METRICS)["ingest_received"] == 10


@scenario
def history_on_connect(world: World) -> None:
    """The last trades are sent with each subscription: they are dropped, or kept and then fill the gap of a loss."""
    keep = world.chance(0.5)
    snapshot = world.between(1, 60)
    steps: list[Action] = [Ticks(20, 10.0)]
    for _ in range(world.between(1, 3)):
        steps += [Ticks(world.between(20, 60), 10.0), Disconnect(1011)]
    exchange = SimKraken(script_of(world, *steps, Ticks(50, 5.0)), snapshot=snapshot)
    settings = live_settings(world, "kraken", feed__history="keep" if keep else "drop")
    outcome = run_live(world, settings, exchange)
    ledger = outcome.event(LogEvent.LEDGER)
    assert (ledger["history_dropped"] > 0) != keep
    if keep and snapshot >= 10:
        assert missing(outcome) == 0, "a snapshot longer than the loss leaves no gap"
        assert ledger["duplicates"] > 0 or snapshot < 20


@scenario
def history_on_restart(world: World) -> None:
    """Killed and restarted with history kept: stored trades are duplicates, missed ones are stored."""
    exchange = SimKraken(script_of(world, Ticks(200, 5.0)), snapshot=200)
    settings = live_settings(world, "kraken", feed__history="keep", engine__run_seconds=20.0)
    world.run(settings, Faults(network=exchange.online, kill_at_s=5.0 + 10 * world.random.random()))
    exchange.while_away(world.between(0, 20))
    outcome = run_live(world, settings, exchange)
    assert missing(outcome) == 0
    seqs = [seq for *_others, seq, _taker in world.dump()["ticks"]]
    assert outcome.event(LogEvent.LEDGER)["duplicates"] > 0
    assert outcome.events(LogEvent.CARRIED_OVER)
    assert seqs == sorted(seqs), "nothing was late"


@scenario
def connection_tokens(world: World) -> None:
    """A token is requested before each connection; without one the attempt fails, and no token is ever logged."""
    symbol = "SOL-USDC"
    exchange = SimKuCoin(script_of(world, Ticks(100, 5.0), Disconnect(1001), Ticks(200, 5.0), symbols=(symbol,)))
    failures = (HandshakeRefused(), HandshakeRejected(429, 5.0), HandshakeRejected(500), HandshakeUnanswered())
    failing = [failures[world.between(0, len(failures) - 1)] for _ in range(world.between(0, 3))]
    exchange.token_answers.extend(failing)
    outcome = run_live(world, live_settings(world, "kucoin", app__symbol=symbol), exchange)
    network = exchange.network
    assert len(outcome.events(LogEvent.CONNECT_FAILED)) == len(failing)
    assert network.fetches == len(failing) + len(network.dialled_at_s), "one request for each attempt"
    assert len(set(exchange.urls)) == len(exchange.urls) == len(network.sessions) == 2
    most_s = sum([max(CONNECT_S, 5.0) + BACKOFF_MAX_S for _ in failing]) + 1.0
    within(network.sessions[0].began_s, 0.0, most_s, "connected")
    leaks = [line for line in outcome.logs if any(token in str(line) for token in exchange.tokens)]
    assert not leaks, leaks
    pings = [said for said in network.peers[0].received if said.kind == "text" and b'"ping"' in said.data]
    assert pings, "KuCoin's own pings are sent"
