"""The plan of a swarm history: feed, settings, and faults with their times. Drawn from the seed; pure.

Every kind of fault has a random stream of its own, so leaving one kind out does not change the others. This makes
it possible to shrink a failure. The kinds themselves are in `sim.swarm.fault_kinds`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from msgspec import Struct

T = TypeVar("T")
Stream = Callable[[str], random.Random]
"""A random stream that depends on the seed and a name alone."""

SYNTHETIC: Final = "synthetic"
MOCKWS: Final = "mockws"
REPLAY: Final = "replay"
FEEDS: Final = (SYNTHETIC, MOCKWS, REPLAY)
_FEED_TICKETS: Final = (SYNTHETIC, MOCKWS, MOCKWS, MOCKWS, REPLAY)

ON_CHANCES: Final = (0.1, 0.3, 0.6)
"""The probability that a kind of fault is enabled; a seed draws one of them.

With many faults nothing lasts long, such as a stable connection; with few faults, few combinations occur.
"""

ASKED_RETRY_AFTER_MAX_S: Final = 5
SYMBOLS: Final = ("SOL/USDC", "BTC/USD", "ETH/USD", "DOGE/EUR")


class Draw:
    """Draws from one stream, with `random` only: other methods may differ between Python versions."""

    def __init__(self, stream: random.Random) -> None:
        self._random = stream.random

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return self._random() < probability

    def whole(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + int(self._random() * (high - low + 1))

    def seconds(self, low: float, high: float) -> float:
        """A time between `low` and `high`, to the millisecond."""
        return round(low + self._random() * (high - low), 3)

    def pick(self, choices: Sequence[T]) -> T:
        """One of `choices`."""
        return choices[int(self._random() * len(choices))]

    def times(self, horizon_s: float, most: int) -> list[float]:
        """One to `most` times within the horizon, in order."""
        return sorted([self.seconds(0.0, horizon_s) for _ in range(self.whole(1, most))])


AT_END: Final = "the end"
"""As `what` of a fault: after the end of the process."""


class Point(Struct, frozen=True):
    """As `what` of a fault: the number of disk points (see `sim.world.disk`) after its time."""

    number: int


class Moved(Struct, frozen=True):
    """As `what` of a fault: what is moved away, and at which step (None: at the fault's time)."""

    log_too: bool
    replace: bool
    step: int | None


class Fault(Struct, frozen=True):
    """One fault of one process: its kind, start, duration and kind-specific data."""

    kind: str
    at_s: float
    for_s: float = 0.0
    what: Any = None


class PlannedProcess(Struct, frozen=True):
    """A planned process, numbered from 1, with a safety phase of `safety_s`.

    `by_step`: the feed ends within milliseconds of simulated time, so steps are the better clock.
    """

    number: int
    feed: str
    safety_s: float
    by_step: bool


class FaultKind(Struct, frozen=True):
    """A kind of fault: its name, its feeds, and a function that draws the faults of one process."""

    name: str
    feeds: frozenset[str]
    draw: Callable[[Draw, PlannedProcess], list[Fault]]


class Plan(Struct, frozen=True):
    """One swarm history. `process_faults` are the faults of each process; one more process without faults follows.

    `values` are configuration keys, `options` those of the command line. `kinds` names the kinds of fault that are on.
    """

    feed: str
    kinds: tuple[str, ...]
    values: dict[str, object]
    options: dict[str, Any]
    symbols: tuple[str, ...]
    steps: tuple[tuple[str, float, float], ...]
    lines: int
    safety_s: float
    process_faults: tuple[tuple[Fault, ...], ...]
    market_style: str | None = None


def draw_plan(
    stream: Stream,
    kinds: Sequence[FaultKind],
    only: frozenset[str] | None = None,
    safety_s: float | None = None,
    paper: bool = False,
) -> Plan:
    """The plan of a seed. `only`: exactly these kinds are enabled, if the feed supports them.

    `safety_s`: no fault comes later than this in any process. With `paper` the same seed draws the same, and the
    settings of PAPER on top.
    """
    shape = Draw(stream("shape"))
    feed = shape.pick(_FEED_TICKETS)
    drawn_safety_s = shape.seconds(8.0, 40.0)
    processes = shape.pick((1, 1, 1, 2, 2, 3))
    rate = shape.pick((2.0, 5.0, 10.0, 20.0))
    speed = shape.pick((None, 1.0, 2.0, 4.0)) if feed == REPLAY else None
    safety_s = drawn_safety_s if safety_s is None else min(safety_s, drawn_safety_s)
    planned_processes = [
        PlannedProcess(n, feed, drawn_safety_s, feed == REPLAY and speed is None) for n in range(1, processes + 1)
    ]
    on_chance = Draw(stream("on")).pick(ON_CHANCES)
    on: list[str] = []
    faults: list[list[Fault]] = [[] for _ in planned_processes]
    for kind in kinds:
        draw = Draw(stream(f"fault:{kind.name}"))
        is_on = draw.chance(on_chance)  # always drawn: later draws of this stream must not depend on `only`
        if not (is_on if only is None else kind.name in only) or feed not in kind.feeds:
            continue
        on.append(kind.name)
        for planned, own in zip(planned_processes, faults, strict=True):
            own += [fault for fault in kind.draw(draw, planned) if fault.at_s <= safety_s]
    values, options = draw_settings(Draw(stream("settings")), feed, speed)
    style = None
    if paper:
        of_paper = Draw(stream("paper"))
        values |= draw_paper(of_paper)
        style = of_paper.pick((None, "thin", "fast", "gapping"))
    market = Draw(stream("market"))
    return Plan(
        feed=feed,
        kinds=tuple(on),
        values=values,
        options=options,
        symbols=SYMBOLS[: market.pick((1, 1, 2, 4))],
        steps=_market_steps(market, rate),
        lines=shape.whole(50, 400),
        safety_s=safety_s,
        process_faults=tuple([tuple(sorted(own, key=lambda fault: fault.at_s)) for own in faults]),
        market_style=style,
    )


def _market_steps(draw: Draw, rate: float) -> tuple[tuple[str, float, float], ...]:
    """The market without faults: (action, count or duration, ticks per second), repeated for ever."""
    steps: list[tuple[str, float, float]] = []
    for _ in range(draw.whole(1, 4)):
        steps.append(("ticks", draw.whole(5, 100), rate * draw.pick((0.5, 1.0, 2.0))))
        if draw.chance(0.3):
            steps.append(("burst", draw.whole(2, 30), 0.0))
        if draw.chance(0.3):
            steps.append(("wait", draw.seconds(0.5, 8.0), 0.0))
    return tuple(steps)


def draw_settings(draw: Draw, feed: str, speed: float | None) -> tuple[dict[str, object], dict[str, Any]]:
    """Configuration keys and options: small and large bounds, and short deadlines."""
    roomy = draw.chance(0.5)
    values: dict[str, object] = {
        "engine.ingest_mode": feed,
        "engine.sample_every": draw.pick((1, 1, 1, 2, 5)),
        "engine.signal_every_n_ticks": draw.whole(1, 12),
        "engine.heartbeat_interval_secs": draw.pick((1.0, 2.5, 10.0)),
        "engine.tick_interval_ms": draw.pick((20, 50, 100, 333)),
        "channels.tick_channel_size": draw.pick((128, 256, 1024)) if roomy else draw.whole(1, 32),
        "channels.signal_channel_size": draw.pick((1, 2, 8, 64)),
        "channels.persist_channel_size": draw.pick((64, 512)) if roomy else draw.whole(1, 32),
        "persist.batch_size": draw.pick((1, 7, 50, 100, 400)),
        "persist.flush_interval_ms": draw.pick((50, 300, 1000, 2000)),
        "persist.storage_retry_s": draw.pick((0.0, 2.0, 8.0, 20.0)),
        "persist.synchronous": draw.pick(("NORMAL", "NORMAL", "FULL")),
        "persist.drain_timeout_s": draw.pick((2.0, 10.0, 30.0)),
        "strategy.name": draw.pick(("periodic", "sma_crossover")),
        "strategy.short_window": draw.whole(1, 3),
        "strategy.long_window": draw.whole(4, 9),
        "strategy.desired_size": draw.pick((0.1, 1.0, 7.0)),
        "risk_caps.max_exposure_usd": draw.pick((10_000.0, 10_000.0, 500.0)),
        "risk_caps.max_symbol_exposure_usd": draw.pick((5_000.0, 300.0)),
        "risk_caps.max_open_orders": draw.pick((10, 10, 10, 1, 0)),
        "execution.max_tick_age_ms": draw.pick((0, 0, 500, 5_000)),
        "feed.connect_timeout_s": draw.pick((2.0, 4.0)),
        "feed.idle_timeout_s": draw.pick((4.0, 6.0, 8.0)),
        "feed.ping_interval_s": draw.pick((1.0, 2.0)),
        "feed.backoff_max_s": draw.pick((1.0, 4.0)),
        "feed.stable_after_s": draw.pick((2.0, 10.0)),
        "feed.reconnect_budget_s": draw.pick((10.0, 40.0, 60.0)),
        "feed.parse_error_limit": draw.pick((0, 5, 20, 100)),
        "feed.max_message_bytes": 16_384,
        "feed.history": draw.pick(("drop", "keep")),
    }
    options: dict[str, Any] = {}
    if feed == REPLAY:
        options = {"resume": True, "speed": speed, "strict": draw.chance(0.15)}
    return values, options


def draw_paper(draw: Draw) -> dict[str, object]:
    """Configuration keys of PAPER: every assumption, orders of both kinds, accounts too small for what is wanted."""
    limit = draw.chance(0.5)
    margin = draw.chance(0.25)
    return {
        "mode": "PAPER",
        "execution.max_tick_age_ms": 0,
        "execution.order_type": "limit" if limit else "market",
        "execution.limit_offset_bps": draw.pick((0.0, 5.0, 25.0, -10.0)) if limit else 0.0,
        "execution.post_only": limit and draw.chance(0.3),
        "execution.fee_rate": draw.pick((0.0, 0.001, 0.01)),
        "paper.latency_ms": draw.pick((0, 100, 100, 1000)),
        "paper.cancel_latency_ms": draw.pick((0, 100)),
        "paper.participation": draw.pick((0.25, 0.25, 1.0, 0.1)),
        "paper.slippage_bps": draw.pick((0.0, 0.0, 2.5)),
        "paper.queue": draw.pick(("through", "trades", "front")),
        "paper.market_timeout_ms": draw.pick((5000, 1000, 100)),
        "paper.on_gap": draw.pick(("keep", "cancel")),
        "account.initial_balance": draw.pick((10_000.0, 10_000.0, 400.0, 50.0)),
        "account.allow_short": margin,
        "account.max_leverage": draw.pick((1.0, 3.0)) if margin else 1.0,
    }


def recovery_s(values: dict[str, object]) -> float:
    """The maximum time in seconds after the last fault until a push feed is live and caught up.

    A silent peer is detected after idle_timeout; then follow a backoff, possibly a hanging attempt, another backoff and
    a Retry-After. Storage is retried within a second.
    """

    def number(key: str) -> float:
        value = values[f"feed.{key}"]
        assert isinstance(value, float)
        return value

    return (
        number("idle_timeout_s")
        + number("connect_timeout_s")
        + 2 * number("backoff_max_s")
        + ASKED_RETRY_AFTER_MAX_S
        + 5.0
    )
