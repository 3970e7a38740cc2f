"""The engine's counters: plain integers, each with exactly one writing thread, so that none needs a lock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tradebot.core.events import (
    BP_DROP_SIGNAL,
    LIQUIDATED,
    MIN_NOTIONAL,
    MIN_QTY,
    NO_BALANCE,
    NO_INSTRUMENT,
    NO_RATE,
    RISK_CAP,
    STALE_DATA,
    OrderStatus,
)
from tradebot.execution.trips import BLOCKING

COUNTERS: Final = (
    # strategy thread
    "tick_count",
    "signal_count",
    "bp_drops_signal",
    # execution thread
    "shadow_orders",
    "trade_count",
    "risk_vetoes",
    "stale_vetoes",
    "rate_vetoes",
    "instrument_vetoes",
    "min_qty_vetoes",
    "min_notional_vetoes",
    "balance_vetoes",
    "breaker_vetoes",
    "paper_orders",
    "orders_canceled",
    "orders_expired",
    "orders_bounced",
    # writer thread
    "persist_count",
    "persist_errors",
    # ingest thread
    "ingest_received",
    "ingest_processed",
    "bp_drops_tick",
    "bp_drops_persist",
    "malformed",
    "duplicates",
    "gaps",
    "reconnects",
    "history_dropped",
    "out_of_band",
    "sampled_out",
    "already_stored",
    "refused",
)
"""Every counter, grouped by its writing thread: the order of `Metrics.snapshot`."""


VETOES: Final[Mapping[str, str]] = {
    RISK_CAP: "risk_vetoes",
    STALE_DATA: "stale_vetoes",
    NO_RATE: "rate_vetoes",
    NO_INSTRUMENT: "instrument_vetoes",
    MIN_QTY: "min_qty_vetoes",
    MIN_NOTIONAL: "min_notional_vetoes",
    NO_BALANCE: "balance_vetoes",
    LIQUIDATED: "breaker_vetoes",
    BP_DROP_SIGNAL: "bp_drops_signal",
    **dict.fromkeys(BLOCKING, "breaker_vetoes"),
}
"""The counter of each reason for which execution refuses a signal; in a replay, BP_DROP_SIGNAL as recorded."""

_REFUSED_BY_EXECUTION: Final = frozenset(VETOES.values()) - {"bp_drops_signal"}

ENDED: Final[Mapping[OrderStatus, str]] = {
    "FILLED": "shadow_orders",
    "CANCELED": "orders_canceled",
    "EXPIRED": "orders_expired",
    "REJECTED": "orders_bounced",
}
"""The counter of each status with which an order ends that the venue of PAPER had."""


class Metrics:
    """Counters of one run, from zero. A counter is added to by its one writing thread only; any thread may read.

    Strategy thread:
        tick_count        accepted ticks the strategy has taken
        signal_count      signals it decided, the dropped ones included
        bp_drops_signal   signals refused because the signal channel was full; in a replay that repeats such refusals
                          the execution thread counts them
    Execution thread:
        shadow_orders     orders filled in simulation
        trade_count       fills
        risk_vetoes       signals refused by a risk cap
        stale_vetoes      signals refused because their tick was too old
        rate_vetoes       signals refused because their currency has no rate to the account currency
        instrument_vetoes  signals refused because what a contract of their symbol is worth is not known
        min_qty_vetoes    signals refused because their quantity is smaller than the instrument takes
        min_notional_vetoes  signals refused because their value is smaller than the instrument takes
        balance_vetoes    signals refused because the account of PAPER cannot pay for them
        breaker_vetoes    signals refused by a halt, a breaker or a liquidation
        paper_orders      orders that the simulated venue of PAPER accepted
        orders_canceled   those of them that were canceled
        orders_expired    those of them that expired
        orders_bounced    those of them that the venue refused when they reached it
    Writer thread:
        persist_count     events stored: ticks, signals, orders and trades
        persist_errors    failed attempts to store a batch
    Ingest thread:
        ingest_received   trades that arrived, plus one for each malformed line or frame
        ingest_processed  trades accepted: they entered the tick channel
        bp_drops_tick     ticks the full tick channel refused
        bp_drops_persist  those of them for which persistence was the cause
        malformed         lines or frames that could not be understood
        duplicates        trades dropped because they had been seen before
        gaps              holes in a sender's numbering
        reconnects        connections made after the first
        history_dropped   trades from before the connection, dropped by history = "drop"
        out_of_band       trades whose price was too far from the recent prints of their symbol
        sampled_out       good trades that sample_every left out
        already_stored    trades a resumed run found in the database
        refused           trades lost to overload: the refused tick and what else its frame held
    """

    __slots__ = (*COUNTERS, "vetoes")

    tick_count: int
    signal_count: int
    bp_drops_signal: int
    shadow_orders: int
    trade_count: int
    risk_vetoes: int
    stale_vetoes: int
    rate_vetoes: int
    instrument_vetoes: int
    min_qty_vetoes: int
    min_notional_vetoes: int
    balance_vetoes: int
    breaker_vetoes: int
    paper_orders: int
    orders_canceled: int
    orders_expired: int
    orders_bounced: int
    persist_count: int
    persist_errors: int
    ingest_received: int
    ingest_processed: int
    bp_drops_tick: int
    bp_drops_persist: int
    malformed: int
    duplicates: int
    gaps: int
    reconnects: int
    history_dropped: int
    out_of_band: int
    sampled_out: int
    already_stored: int
    refused: int

    def __init__(self) -> None:
        for name in COUNTERS:
            setattr(self, name, 0)
        self.vetoes: dict[str, int] = {}
        """How many signals execution refused, by reason code; several codes may share a counter."""

    @property
    def orders_rejected(self) -> int:
        """Signals that were refused, for whatever reason."""
        return sum([getattr(self, counter) for counter in set(VETOES.values())])

    @property
    def executed(self) -> int:
        """Signals that the execution thread is done with. Those that found no space never reached it."""
        refused: int = sum([getattr(self, counter) for counter in _REFUSED_BY_EXECUTION])
        return self.shadow_orders + refused

    def count_veto(self, reason: str) -> None:
        """Count a signal that execution refused for `reason`. Execution thread."""
        counter = VETOES[reason]
        setattr(self, counter, getattr(self, counter) + 1)
        self.vetoes[reason] = self.vetoes.get(reason, 0) + 1

    def snapshot(self) -> dict[str, int]:
        """All counters by name, in the order of COUNTERS. Any thread; not one instant while the pipeline runs."""
        return {name: getattr(self, name) for name in COUNTERS}
