"""Live-feed data: malformed frames, duplicates, gaps, late trades, floods, many symbols; and the mockws scenarios."""

from __future__ import annotations

from mockws_server.actions import (
    Action,
    Burst,
    Disconnect,
    Duplicate,
    FrameOut,
    Garbage,
    OneTick,
    Raw,
    Reorder,
    Skip,
    Text,
    Ticks,
    Wait,
)
from mockws_server.script import load, names
from sim.scenarios.common import scenario
from sim.scenarios.live import SYMBOL, exchange_of, live_settings, missing, run_live
from sim.world.exchange import SimExchange
from sim.world.world import World
from tradebot.core.log_events import LogEvent

_SYMBOLS = ("SOL/USDC", "BTC/USD", "ETH/USD", "DOGE/EUR", "ADA/USD", "\u00c5\u00dfet/\u20ac")


@scenario
def malformed_below_limit(world: World) -> None:
    """Series of malformed frames, each shorter than parse_error_limit: counted, and the run continues."""
    limit = world.between(2, 40)
    steps: list[Action] = [Ticks(5, 10.0)]
    counts = [world.between(1, limit - 1) for _ in range(world.between(1, 6))]
    for count in counts:
        steps += [Garbage(count), Ticks(world.between(20, 40), 10.0)]
    exchange = exchange_of(world, *steps)
    outcome = run_live(world, live_settings(world, feed__parse_error_limit=limit), exchange)
    assert outcome.event(LogEvent.FINAL_METRICS)["malformed"] == sum(counts)
    assert not outcome.events(LogEvent.LINK_LOST)
    assert len(_quarantined(world)) == sum(counts)


@scenario
def malformed_at_limit(world: World) -> None:
    """parse_error_limit malformed frames in a row, with or without reconnects: exit 11, all accepted stored."""
    limit = world.between(2, 40)
    before = world.between(1, limit - 1)
    garbage: list[Action] = [Garbage(limit + world.between(0, 5))]
    if world.chance(0.5):
        garbage = [Garbage(before), Disconnect(1011), Wait(1.0), Garbage(limit - before)]
    exchange = exchange_of(world, Ticks(world.between(5, 100), 10.0), *garbage, Ticks(50, 5.0))
    outcome = run_live(world, live_settings(world, feed__parse_error_limit=limit), exchange, code=11)
    assert outcome.event(LogEvent.FINAL_METRICS)["malformed"] == limit
    assert len(_quarantined(world)) == limit


def _quarantined(world: World) -> list[str]:
    path = world.db_path.with_name(world.db_path.name + ".quarantine.jsonl")
    return path.read_text().splitlines() if path.exists() else []


@scenario
def duplicates_gaps_late_trades(world: World) -> None:
    """Repeated, missing and reordered trades: each is stored once, gaps match the missing trades."""
    steps: list[Action] = [Ticks(20, 10.0)]
    skipped = repeated = 0
    for _ in range(world.between(2, 8)):
        count = world.between(2, 12)
        kind = world.between(0, 2)
        if kind == 0:
            steps += [Skip(count), Ticks(count + 5, 10.0)]
            skipped += count
        elif kind == 1:
            steps.append(Duplicate(count))
            repeated += count
        else:
            steps += [Reorder(count), Ticks(count, 10.0)]
        steps.append(Ticks(20, 10.0))
    exchange = exchange_of(world, *steps)
    outcome = run_live(world, live_settings(world), exchange)
    metrics = outcome.event(LogEvent.FINAL_METRICS)
    assert metrics["duplicates"] == repeated
    turned = [step.count - 1 for step in steps if isinstance(step, Reorder)]
    # What comes in reverse order looks at first as if all but the last of it were missing.
    assert missing(outcome) == skipped + sum(turned), outcome.events(LogEvent.GAP)
    trades = len({sent.data for sent in exchange.sent})
    assert len(world.dump()["ticks"]) == trades


@scenario
def numbering_jumps_back(world: World) -> None:
    """Numbers far below the last ones: stored, with a gap of unknown size; numbering continues from there."""
    far = OneTick({"symbol": SYMBOL, "price": 50.0, "volume": 1.0, "ts": 1, "event_id": "far", "seq": 10_000})
    exchange = exchange_of(world, Ticks(world.between(5, 50), 10.0), far, Ticks(world.between(5, 50), 10.0))
    outcome = run_live(world, live_settings(world), exchange)
    assert [gap["missing"] is None for gap in outcome.events(LogEvent.GAP)] == [False, True]
    assert [row[6] is None for row in world.dump()["notices"] if row[2] == "GAP"] == [False, True]


@scenario
def many_symbols(world: World) -> None:
    """One source with several symbols, each with its own numbers, strategy state and position; losses affect all."""
    symbols = _SYMBOLS[: world.between(2, len(_SYMBOLS))]
    strategy = "periodic" if world.chance(0.5) else "sma_crossover"
    exchange = exchange_of(
        world,
        Ticks(100, 10.0),
        Skip(len(symbols)),
        Ticks(50, 10.0),
        Disconnect(1006),
        Ticks(300, 10.0),
        symbols=symbols,
    )
    settings = live_settings(world, strategy__name=strategy, strategy__short_window=2, strategy__long_window=5)
    outcome = run_live(world, settings, exchange)
    gaps = outcome.events(LogEvent.GAP)
    assert {gap["symbol"] for gap in gaps[: len(symbols)]} == set(symbols), gaps
    assert [gap["missing"] for gap in gaps[: len(symbols)]] == [1] * len(symbols)
    assert {row[1] for row in world.dump()["ticks"]} == set(symbols)


@scenario
def sampling_across_reconnects(world: World) -> None:
    """Every n-th good trade is kept, counted over duplicates, gaps and connections."""
    every = world.between(2, 7)
    steps: list[Action] = []
    for _ in range(world.between(2, 5)):
        steps += [Ticks(world.between(10, 60), 10.0), Duplicate(world.between(1, 9)), Disconnect(1011)]
    exchange = exchange_of(world, *steps, Ticks(50, 5.0), symbols=_SYMBOLS[: world.between(1, 3)])
    outcome = run_live(world, live_settings(world, engine__sample_every=every), exchange)
    ledger = outcome.event(LogEvent.LEDGER)
    good = ledger["received"] - ledger["malformed"] - ledger["duplicates"]
    assert ledger["accepted"] == good // every, ledger


@scenario
def broken_bytes(world: World) -> None:
    """Bytes that violate the WebSocket protocol: the connection is closed with the correct code and reopened."""
    breaches: tuple[tuple[Action, int], ...] = (
        (FrameOut(1, b"\xc3\x28"), 1007),
        (Raw(b"HTTP/1.1 200 OK\r\n\r\n"), 1002),
        (FrameOut(0, b"continues nothing"), 1002),
        (FrameOut(11), 1002),
        (Text("x" * 5000), 1009),
    )
    breach, code = breaches[world.between(0, len(breaches) - 1)]
    exchange = exchange_of(world, Ticks(50, 10.0), breach, Ticks(100, 5.0))
    outcome = run_live(world, live_settings(world, feed__max_message_bytes=4096), exchange)
    assert f"close code {code}" in outcome.event(LogEvent.LINK_LOST)["detail"]
    close_codes = [message.code for message in exchange.network.peers[0].received if message.kind == "close"]
    assert close_codes == [code]


@scenario
def other_messages_ignored(world: World) -> None:
    """Messages of other kinds are ignored, fragmented or whole; a fragmented trade is read."""
    trade = b'{"symbol":"SOL/USDC","price":50.5,"volume":1.0,"ts":1,"event_id":"in parts"}'
    cut = world.between(1, len(trade) - 1)
    parts: list[Action] = [FrameOut(1, trade[:cut], fin=False), FrameOut(9, b"?"), FrameOut(0, trade[cut:])]
    exchange = exchange_of(world, Ticks(20, 10.0), Text('{"channel":"status"}'), *parts, Ticks(20, 10.0))
    outcome = run_live(world, live_settings(world), exchange)
    assert outcome.event(LogEvent.FINAL_METRICS)["malformed"] == 0
    assert len([row for row in world.dump()["ticks"] if "in parts" in row]) == 1


@scenario
def live_flood_overload(world: World) -> None:
    """A feed faster than the strategy: exit 13 names it, every accepted trade is stored (G5)."""
    exchange = exchange_of(world, Ticks(20, 10.0), Burst(world.between(200, 1000), 2.0), Ticks(50, 5.0))
    settings = live_settings(world, channels__tick_channel_size=world.between(1, 32), persist__drain_timeout_s=600.0)
    outcome = run_live(world, settings, exchange, code=13, delays_s={"tradebot-strategy": 0.5})
    assert outcome.event(LogEvent.OVERLOAD)["stage"] == "strategy", outcome.event(LogEvent.OVERLOAD)
    assert outcome.event(LogEvent.LEDGER)["refused"] >= 1


@scenario
def mockws_scenarios(world: World) -> None:
    """Each scenario of mockws, for two minutes with default timeouts: the run continues."""
    known = names()
    script = load(known[world.between(0, len(known) - 1)])
    settings = live_settings(
        world,
        engine__run_seconds=120.0,
        feed__connect_timeout_s=10.0,
        feed__idle_timeout_s=30.0,
        feed__ping_interval_s=10.0,
        feed__backoff_max_s=30.0,
        feed__stable_after_s=30.0,
        feed__reconnect_budget_s=120.0,
    )
    run_live(world, settings, SimExchange(script))
