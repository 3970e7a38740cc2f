"""What the stages log and count of a flood of signals: each one is written or summed up, never lost."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from tradebot.config.model import BreakersConfig, RiskCaps
from tradebot.core.channel import Channel
from tradebot.core.events import (
    BUY,
    PERIODIC_TRIGGER,
    SELL,
    PersistItem,
    Side,
    Signal,
    SignalChunk,
    Tick,
    TickChunk,
    TickItem,
)
from tradebot.core.log_events import LogEvent
from tradebot.core.runtime import RealRuntime
from tradebot.execution.breakers import Breakers
from tradebot.execution.shadow import ShadowExecution
from tradebot.output.log import MAX_INFO_PER_S, Log, setup_logging
from tradebot.portfolio.money import money_of
from tradebot.store.batch import StoredCounts
from tradebot.strategy.decider import Decider
from tradebot.strategy.periodic import Periodic
from tradebot.threads.counters import Metrics
from tradebot.threads.execution import ExecutionStage
from tradebot.threads.strategy import StrategyStage

SIGNALS = 4 * MAX_INFO_PER_S


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(stream: io.StringIO) -> Log:
    return setup_logging("INFO", "json", RealRuntime(), stream)


def channel(name: str) -> Channel[Any]:
    return Channel(RealRuntime(), name, 10 * SIGNALS)


def describe(stream: io.StringIO, log: Log, event: str) -> tuple[int, int]:
    """Lines of this event, and how many more were summed up."""
    log.flush_suppressed()
    fields = [json.loads(line)["fields"] for line in stream.getvalue().splitlines()]
    counts = [each.get("suppressed") for each in fields if each.get("event") == event]
    return counts.count(None), sum(filter(None, counts))


@pytest.mark.parametrize("chunk", [1, 7, SIGNALS])
def test_every_signal_is_told_or_summed_up(chunk: int, stream: io.StringIO, log: Log) -> None:
    """G4: however signals come in chunks, and at a bounded number of lines."""
    metrics = Metrics()
    ticks: Channel[TickItem] = channel("tick")
    strategy = StrategyStage(
        Decider(Periodic(1), "r", 0.1, 0.75),
        (ticks, channel("signal"), channel("persist")),
        push=False,
        stored=StoredCounts(),
        metrics=metrics,
        log=log,
        breakers=Breakers(BreakersConfig()),
    )
    for start in range(0, SIGNALS, chunk):
        ticks.send(TickChunk([Tick("A", 100.0, 1.0, at) for at in range(start, min(start + chunk, SIGNALS))]))
    ticks.close()
    strategy.run()
    written, summed_up = describe(stream, log, PERIODIC_TRIGGER)
    assert written + summed_up == metrics.signal_count == SIGNALS
    assert written >= MAX_INFO_PER_S


@pytest.mark.parametrize("chunk", [1, 7, SIGNALS])
def test_every_fill_is_told_or_summed_up_and_every_refusal_told(chunk: int, stream: io.StringIO, log: Log) -> None:
    """G4, I2: fills and refusals of one chunk have separate counters and lines."""
    metrics, runtime = Metrics(), RealRuntime()
    signals: Channel[SignalChunk] = channel("signal")
    persist: Channel[PersistItem] = channel("persist")
    execution = ShadowExecution(RiskCaps(), money_of(0.001))
    stage = ExecutionStage(execution, (signals, persist), False, 0, metrics, log, runtime)
    refused = 0
    made: list[Signal] = []
    for at in range(SIGNALS):
        too_much = at % 10 == 3
        refused += too_much
        side: Side = BUY if at % 2 else SELL
        size = 1000.0 if too_much else 0.1
        made.append(Signal(f"r-{at:010d}-S", "A", side, 0.75, "PERIODIC_TRIGGER", size, 100.0, at))
    for start in range(0, SIGNALS, chunk):
        signals.send(SignalChunk(made[start : start + chunk]))
    signals.close()
    stage.run()
    written, summed_up = describe(stream, log, LogEvent.ORDER_FILLED)
    assert written + summed_up == metrics.shadow_orders == metrics.trade_count == SIGNALS - refused
    assert written >= MAX_INFO_PER_S
    assert sum(describe(stream, log, LogEvent.ORDER_REFUSED)) == metrics.risk_vetoes == refused
    assert persist.depth == SIGNALS
    for line in map(json.loads, stream.getvalue().splitlines()):
        fields = line["fields"]
        if fields["event"] == LogEvent.ORDER_REFUSED:
            found = tuple(fields[name] for name in ("refused_by", "refused_value", "refused_limit"))
            assert found[0] == "risk_caps.max_symbol_exposure_usd" and found[1] > found[2] == 5_000.0
