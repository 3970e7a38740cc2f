"""Links that are lost, slow or never established: the real WebSocket feed and ingest thread over a simulated network.

The network faults are actions of mockws, so bin/mockws could play most of these scripts too.
"""

from __future__ import annotations

from mockws_server.actions import (
    Action,
    DelayHandshake,
    Disconnect,
    DropPings,
    HalfFrame,
    Refuse,
    Reject,
    Reset,
    Stall,
    Ticks,
    Wait,
)
from sim.checks.deadlines import ATTEMPT_KEYS, check_attempts
from sim.scenarios.common import scenario
from sim.scenarios.live import (
    AT_ONCE_S,
    BACKOFF_MAX_S,
    BUDGET_S,
    CONNECT_S,
    IDLE_S,
    PING_S,
    STABLE_S,
    exchange_of,
    live_settings,
    losses_s,
    missing,
    retries_s,
    run_live,
    within,
)
from sim.world.exchange import SimExchange
from sim.world.network import Handshake, HandshakeRefused, HandshakeRejected, HandshakeUnanswered, SimNetwork
from sim.world.world import World
from tradebot.core.log_events import LogEvent

_LATENCY_MAX_S = 0.05


@scenario
def link_lost(world: World) -> None:
    """Any close code, no code, or a reset: restored immediately, missed trades are a gap, nothing is duplicated."""
    codes = (1000, 1001, 1005, 1006, 1011, 1012, 1013, 4000)
    code = codes[world.between(0, len(codes) - 1)]
    loss: Action = Disconnect(code)
    if world.chance(0.2):
        loss, code = Reset(), 1006
    exchange = exchange_of(world, Ticks(50, 5.0), loss, Ticks(150, 5.0))
    outcome = run_live(world, live_settings(world), exchange)
    assert outcome.event(LogEvent.FINAL_METRICS)["reconnects"] == 1
    assert f"close code {code}" in outcome.event(LogEvent.LINK_LOST)["detail"], outcome.event(LogEvent.LINK_LOST)
    assert retries_s(exchange.network)[0] <= AT_ONCE_S
    assert [row[2] for row in world.dump()["notices"] if row[2] != "GAP"] == ["LINK_UP", "LINK_LOST", "LINK_RESTORED"]


@scenario
def all_close_codes(world: World) -> None:
    """All close codes in turn, each on a stable connection: the feed reconnects immediately every time."""
    codes = (1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4000, 4999)
    steps = [step for code in codes for step in (Ticks(world.between(15, 25), 10.0), Disconnect(code))]
    settings = live_settings(world, feed__stable_after_s=1.0, engine__run_seconds=len(codes) * 3.0)
    exchange = exchange_of(world, *steps, Ticks(50, 10.0))
    outcome = run_live(world, settings, exchange)
    assert outcome.event(LogEvent.FINAL_METRICS)["reconnects"] == len(codes)
    for lost, code in zip(outcome.events(LogEvent.LINK_LOST), codes, strict=True):
        assert f"close code {code}" in lost["detail"], (code, lost)
    assert max(retries_s(exchange.network)) <= AT_ONCE_S


@scenario
def reconnect_storm(world: World) -> None:
    """A server that accepts and hangs up, many times: backoff grows up to the cap; a stable link resets it."""
    rounds = world.between(16, 25)
    storm_s = rounds * (BACKOFF_MAX_S + 1.0)
    # A tick a second is enough to see gaps; after the storm one loss of a stable connection.
    exchange = exchange_of(world, Ticks(int(storm_s + 2 * STABLE_S), 1.0), Disconnect(1001), Ticks(50, 5.0))
    exchange.hang_up_on(rounds, after_s=world.random.random())
    settings = live_settings(world, engine__run_seconds=storm_s + 2 * STABLE_S + 5.0)
    run_live(world, settings, exchange)
    waits_s = retries_s(exchange.network)
    assert len(waits_s) == rounds + 1
    assert waits_s[0] <= AT_ONCE_S, "the first retry is made at once"
    for number, wait_s in enumerate(waits_s[1:-1]):
        within(wait_s, 0.0, min(BACKOFF_MAX_S, 2.0**number) + AT_ONCE_S, f"retry {number + 2}")
    # All of them below 1 s by chance: once in 10 million histories.
    assert max(waits_s[4:-1]) > 1.0, f"retries do not grow apart: {waits_s}"
    assert waits_s[-1] <= AT_ONCE_S, "after a stable connection the first retry is made at once again"


@scenario
def backoff_resets(world: World) -> None:
    """A storm, a stable link, then a server that refuses: the backoff starts at its minimum again."""
    rounds = world.between(6, 10)
    storm_s = rounds * (BACKOFF_MAX_S + 1.0)
    calm, refused_s = int(storm_s + 2 * STABLE_S), 10.0
    exchange = exchange_of(
        world, Ticks(calm, 1.0), Disconnect(1001), Refuse(seconds=refused_s), Ticks(int(refused_s) + 20, 1.0)
    )
    exchange.hang_up_on(rounds, after_s=world.random.random())
    settings = live_settings(world, engine__run_seconds=calm + refused_s + 15.0)
    run_live(world, settings, exchange)
    feed = settings.config.feed
    check_attempts(exchange.network, {name: getattr(feed, name) for name in ATTEMPT_KEYS})


@scenario
def handshake_timeout(world: World) -> None:
    """A server that accepts connections and never answers, or too late: each attempt ends at its timeout."""
    attempts = world.between(1, 4)
    exchange = exchange_of(world, Ticks(275, 5.0))
    if world.chance(0.5):
        exchange.answer_next(*[HandshakeUnanswered()] * attempts)
    else:
        exchange.perform_at(0.0, DelayHandshake(CONNECT_S + 1.0, attempts))
    outcome = run_live(world, live_settings(world), exchange)
    assert len(outcome.events(LogEvent.CONNECT_FAILED)) == attempts
    dialled_s = exchange.network.dialled_at_s
    for number in range(attempts):
        apart_s = dialled_s[number + 1] - dialled_s[number]
        within(apart_s, CONNECT_S, CONNECT_S + min(BACKOFF_MAX_S, 2.0**number) + AT_ONCE_S, f"attempt {number + 2}")
    assert outcome.event(LogEvent.FINAL_METRICS)["reconnects"] == 0, "the first connection restores nothing"


@scenario
def retry_after(world: World) -> None:
    """429 and then 503 with Retry-After: no attempt is made before that; without Retry-After the backoff decides."""
    first_s, second_s = world.between(5, 9), world.between(5, 9)
    exchange = exchange_of(
        world, Reject(429, retry_after_s=first_s), Reject(503, retry_after_s=second_s), Reject(503), Ticks(250, 5.0)
    )
    outcome = run_live(world, live_settings(world), exchange)
    assert [failed["status"] for failed in outcome.events(LogEvent.CONNECT_FAILED)] == [429, 503, 503]
    dialled_s = exchange.network.dialled_at_s
    within(dialled_s[1] - dialled_s[0], first_s, first_s + 4 * _LATENCY_MAX_S, "after 429")
    within(dialled_s[2] - dialled_s[1], second_s, second_s + 4 * _LATENCY_MAX_S, "after 503")
    within(dialled_s[3] - dialled_s[2], 0.0, BACKOFF_MAX_S + 4 * _LATENCY_MAX_S, "after 503 without Retry-After")


@scenario
def retry_after_survives_restart(world: World) -> None:
    """Retry-After exceeds the reconnect budget: no exit and no earlier request, even after a restart."""
    asked_s = world.between(300, 2000)
    first_s = float(world.between(2, 60)) + BUDGET_S
    exchange = exchange_of(world, Reject(429, retry_after_s=asked_s), Ticks(50, 5.0))
    begun = run_live(world, live_settings(world, engine__run_seconds=first_s), exchange)
    failed = begun.event(LogEvent.CONNECT_FAILED)
    assert failed["status"] == 429 and len(exchange.network.attempts) == 1
    again = run_live(world, live_settings(world, engine__run_seconds=asked_s + 60.0), exchange)
    left_s = again.event(LogEvent.RETRY_AFTER)["wait_s"]
    # The wall clock of each simulated process starts at the same time, as one that was set back between the two.
    within(left_s, asked_s - 1.0, asked_s, "left of the time that was asked for")
    within(exchange.network.dialled_at_s[0], left_s, left_s + 1.0, "the first attempt")
    assert len(exchange.network.attempts) == 1


@scenario
def reconnect_budget_exhausted(world: World) -> None:
    """No completed handshake within the budget: exit 10, in time, with everything accepted stored."""
    hopeless: tuple[Handshake, ...] = (
        HandshakeUnanswered(),
        HandshakeRefused(),
        HandshakeRejected(503),
        HandshakeRejected(429),
    )
    exchange = exchange_of(world, Ticks(world.between(5, 200), 10.0), Disconnect(1011))
    never_up = world.chance(0.3)
    for_ever = hopeless[world.between(0, len(hopeless) - 1)]
    exchange.at(0.0 if never_up else 0.5, lambda: exchange.answer_always(for_ever))
    outcome = run_live(world, live_settings(world, engine__run_seconds=300.0), exchange, code=10)
    network = exchange.network
    lost_s = network.sessions[0].over_s if network.sessions else network.dialled_at_s[0]
    assert lost_s is not None and bool(network.sessions) != never_up
    within(outcome.sim_s - lost_s, BUDGET_S, BUDGET_S + 0.5, "until the end")
    assert len(world.dump()["ticks"]) == outcome.event(LogEvent.FINAL_METRICS)["ingest_processed"]


@scenario
def reconnect_budget_resets(world: World) -> None:
    """Down for longer than the budget in total, but never without a handshake for so long: the run continues."""
    down_s = float(world.between(15, 25))
    steps = (Ticks(20, 10.0), Disconnect(1001), Refuse(seconds=down_s), Wait(down_s + BACKOFF_MAX_S + 1.0))
    exchange = exchange_of(world, *steps, repeat=4)
    outcome = run_live(world, live_settings(world, engine__run_seconds=4 * (down_s + 7.0) + 1.0), exchange)
    assert outcome.event(LogEvent.FINAL_METRICS)["reconnects"] == 4
    assert 4 * down_s > BUDGET_S


@scenario
def mute_peer_detected(world: World) -> None:
    """A peer goes silent, between or within frames: the link is lost idle_timeout_s after the last frame."""
    silence: Action = Stall(30.0) if world.chance(0.5) else HalfFrame()
    exchange = exchange_of(world, Ticks(world.between(1, 100), 10.0), silence, Ticks(200, 5.0))
    outcome = run_live(world, live_settings(world, feed__idle_timeout_s=IDLE_S), exchange)
    assert "no frame" in outcome.event(LogEvent.LINK_LOST)["detail"]
    assert outcome.event(LogEvent.FINAL_METRICS)["reconnects"] == 1
    first = exchange.network.sessions[0]
    assert first.over_s is not None
    within(first.over_s - first.last_frame_s, IDLE_S, IDLE_S + AT_ONCE_S, "found")
    assert retries_s(exchange.network)[0] <= AT_ONCE_S


@scenario
def quiet_market_keeps_link(world: World) -> None:
    """Minutes without a trade, with pongs: the link is kept, and each ping is sent on time."""
    quiet_s = float(world.between(120, 600))
    exchange = exchange_of(world, Ticks(10, 10.0), Wait(quiet_s), Ticks(10, 10.0))
    outcome = run_live(world, live_settings(world, engine__run_seconds=quiet_s + 3.0), exchange)
    assert not outcome.events(LogEvent.LINK_LOST)
    assert outcome.event(LogEvent.FINAL_METRICS)["ingest_received"] == len(exchange.sent)
    pings = sum(message.kind == "ping" for message in exchange.network.peers[0].received)
    within(pings, quiet_s / PING_S * 0.9, quiet_s / PING_S + 2, "pings")


@scenario
def missing_pongs(world: World) -> None:
    """Without pongs a quiet link is lost at its deadline, every time; a link with trades is not."""
    busy = world.chance(0.5)
    between: Action = Ticks(150, 5.0) if busy else Wait(30.0)
    exchange = exchange_of(world, Ticks(50, 10.0), DropPings(30.0), between, Ticks(100, 5.0))
    outcome = run_live(world, live_settings(world), exchange)
    losses = outcome.events(LogEvent.LINK_LOST)
    within(len(losses), 0 if busy else 3, 0 if busy else 5, "losses")
    for session in exchange.network.sessions[:-1]:
        assert session.over_s is not None
        within(session.over_s - session.last_frame_s, IDLE_S, IDLE_S + AT_ONCE_S, "found")


@scenario
def link_outage(world: World) -> None:
    """The network fails: after a short outage nothing is lost; after a longer one the link is restored with a gap."""
    down_s = world.random.random() * 30 if world.chance(0.7) else world.random.random() * 3
    at_s = 5.0 + world.random.random() * 10
    exchange = exchange_of(world, Ticks(300, 5.0))
    unreachable = world.chance(0.3)
    exchange.at(at_s, lambda: exchange.network.link_down(unreachable))
    exchange.at(at_s + down_s, lambda: exchange.network.link_up())
    outcome = run_live(world, live_settings(world), exchange)
    network = exchange.network
    if not outcome.events(LogEvent.LINK_LOST):
        assert down_s < IDLE_S + 1.0
        assert missing(outcome) == 0, "what waited in the network came"
        return
    assert down_s > IDLE_S - 1.0
    [lost_s] = losses_s(network)
    within(lost_s - network.sessions[0].last_frame_s, IDLE_S, IDLE_S + AT_ONCE_S, "found")
    back_s = network.sessions[1].began_s - (at_s + down_s)
    within(back_s, 0.0, CONNECT_S + BACKOFF_MAX_S + 4 * _LATENCY_MAX_S, "back")
    assert missing(outcome) > 0


@scenario
def server_restart(world: World) -> None:
    """The server stops and restarts while its market continues: the link is restored as soon as it listens again."""
    exchange = exchange_of(world, Ticks(500, 5.0))
    at_s, away_s = world.between(3, 20), world.between(1, 20)
    exchange.at(at_s, exchange.quit)
    exchange.at(at_s + away_s, exchange.come_back)
    outcome = run_live(world, live_settings(world), exchange)
    assert "close code 1001" in outcome.event(LogEvent.LINK_LOST)["detail"]
    within(exchange.network.sessions[1].began_s - at_s, away_s, away_s + BACKOFF_MAX_S + 1.0, "back")


@scenario
def wall_clock_jumps(world: World) -> None:
    """The wall clock is set by hours, forward or back: no deadline of the feed depends on it."""
    hours = world.between(1, 48) * (1 if world.chance(0.5) else -1)
    exchange = exchange_of(world, Ticks(50, 5.0), Wait(20.0), Ticks(50, 5.0))
    jumps = ((world.random.random() * 40, hours * 3_600_000), (40.0 + world.random.random(), -hours * 3_600_000))
    outcome = run_live(world, live_settings(world), exchange, jumps_ms=jumps)
    assert not outcome.events(LogEvent.LINK_LOST)
    assert outcome.event(LogEvent.FINAL_METRICS)["ingest_received"] == len(exchange.sent)


@scenario
def reset_while_sending(world: World) -> None:
    """A slow reader finds a reset while sending a ping: trades that arrived before it still count."""
    exchange = exchange_of(world, Ticks(300, 10.0))
    for number in range(world.between(1, 6)):
        exchange.at(3.0 + 4.0 * number + world.random.random(), lambda: _reset_all(exchange))
    settings = live_settings(world, feed__ping_interval_s=0.1, engine__run_seconds=60.0)
    outcome = run_live(world, settings, exchange, delays_s={"tradebot-ingest": 0.05 + world.random.random() * 0.1})
    assert outcome.events(LogEvent.LINK_LOST)


def _reset_all(exchange: SimExchange) -> None:
    for peer in exchange.listeners():
        peer.reset()


def _all_lost_in_time(network: SimNetwork) -> None:
    for session in network.sessions[:-1]:
        assert session.over_s is not None
        within(session.over_s - session.last_frame_s, 0.0, IDLE_S + AT_ONCE_S, "found")


@scenario
def mixed_network_faults(world: World) -> None:
    """Network faults in any order: each is detected in time, and the stored rows match the model of the feed."""
    steps: list[Action] = []
    for _ in range(world.between(5, 12)):
        misfortunes: tuple[Action, ...] = (
            Disconnect((1000, 1006, 1011)[world.between(0, 2)]),
            Reset(),
            Stall(float(world.between(1, 10))),
            HalfFrame(),
            Refuse(count=world.between(1, 2), reset=world.chance(0.5)),
            Reject(503, retry_after_s=world.between(0, 3)),
            DelayHandshake(float(world.between(1, 5))),
            DropPings(float(world.between(1, 10))),
        )
        steps += [Ticks(world.between(1, 60), 10.0), misfortunes[world.between(0, len(misfortunes) - 1)]]
    exchange = exchange_of(world, *steps, Ticks(50, 5.0))
    run_live(world, live_settings(world, engine__run_seconds=90.0), exchange)
    _all_lost_in_time(exchange.network)
