"""Derives alerts from successive statuses. Pure: each status contains its time."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from tradebot.core.errors import ExitCode
from tradebot.execution.trips import BreakersView, trip_text
from tradebot.feeds.status import SymbolsLook
from tradebot.telemetry.status_file import Status

Event = Literal[
    "start", "stop", "exit_code", "stall", "ladder", "link_lost", "refusal_burst", "spill_orphaned",
    "symbol_refused", "symbol_silent", "exchange_notice", "halt", "breaker",
]  # fmt: skip
Severity = Literal["info", "warning", "error"]

LINK_LOST_S: Final = 60.0
REFUSALS_PER_MINUTE: Final = 100
_HOLDS_S: Final = 10.0
"""A link that has been up for so long holds: what is asked of the exchange is refused or confirmed well before."""
_WINDOW_S: Final = 60.0
_LOOKS_MAX: Final = 600
_NAMED_MAX: Final = 10
_REFUSALS: Final = ("risk_vetoes", "stale_vetoes", "rate_vetoes", "bp_drops_signal")


class Alert(NamedTuple):
    """One event: a line for people, and `fields` for programs. A restored link is a link_lost of severity info."""

    event: Event
    severity: Severity
    text: str
    fields: Mapping[str, object] = {}


class Alerts:
    """Remembers which alerts were sent. Call `look` with each status, oldest first."""

    def __init__(self, link_lost_s: float = LINK_LOST_S, refusals_per_minute: int = REFUSALS_PER_MINUTE) -> None:
        """Tell of a link that has not held for `link_lost_s`, and of more refusals within a minute than that."""
        self._link_lost_s = link_lost_s
        self._refusals_per_minute = refusals_per_minute
        self._began = False
        self._stopping = False
        self._lost_told = False
        self._gone_since_s: float | None = None
        self._held_since_s: float | None = None
        self._still: frozenset[str] = frozenset()
        self._burst_told = False
        self._refusals: deque[tuple[float, int]] = deque(maxlen=_LOOKS_MAX)
        self._refused: frozenset[str] = frozenset()
        self._silent: frozenset[str] = frozenset()
        self._announced = 0
        self._breakers = BreakersView()

    def look(self, status: Status) -> list[Alert]:
        """What is new since the status before."""
        if status.state == "ended":
            # A drain has usually ended before the next look; the stop is reported all the same.
            stop = self._stop() if self._began else []
            return [*stop, exit_alert(status.exit_code)]
        found: list[Alert] = []
        if not self._began:
            self._began = True
            found.append(_start(status))
        if status.state == "draining":
            found += self._stop()
        found += self._stalls(status)
        found += self._link(status)
        found += self._burst(status)
        if status.symbols is not None:
            found += self._symbols(status.symbols)
        if status.breakers is not None:
            found += self._halts(status.breakers)
        return found

    def _halts(self, view: BreakersView) -> list[Alert]:
        """A halt and its end; breakers that tripped or were released since the status before, by code."""
        found: list[Alert] = []
        before, self._breakers = self._breakers, view
        if (view.halted_since_ms is None) != (before.halted_since_ms is None):
            halted = view.halted_since_ms is not None
            text = "the halt has ended"
            if halted:
                text = f"halted by {view.halt_detail}: orders that add exposure are refused"
            found.append(Alert("halt", "warning" if halted else "info", text, {"halted": halted}))
        counts, counts_before = view.counts(), before.counts()
        codes = {"tripped": counts}
        new = [trip for trip in view.tripped if counts.get(trip.code, 0) > counts_before.get(trip.code, 0)]
        if new:
            words = "; ".join(trip_text(trip) for trip in new[:_NAMED_MAX])
            found.append(Alert("breaker", "error", f"tripped: {words}", codes))
        gone = [code for code in counts_before if code not in counts]
        if gone:
            found.append(Alert("breaker", "info", f"released: {', '.join(gone)}", codes))
        return found

    def _symbols(self, symbols: SymbolsLook) -> list[Alert]:
        """Symbols that are refused or silent, each once, and what the exchange announced."""
        found: list[Alert] = []
        new = [name for name in symbols.refused if name not in self._refused]
        self._refused |= frozenset(new)
        if new:
            words = "; ".join(f"{name}: {symbols.refused[name]}" for name in new[:_NAMED_MAX])
            more = f"; and {len(new) - _NAMED_MAX} more" if len(new) > _NAMED_MAX else ""
            fields = {"symbols": new, "refused": symbols.refused_count, "requested": symbols.requested}
            found.append(Alert("symbol_refused", "error", f"the exchange refuses symbols: {words}{more}", fields))
        silent = frozenset(symbols.silent)
        fallen, self._silent = sorted(silent - self._silent), silent
        if fallen:
            text = f"no trades of {', '.join(fallen[:_NAMED_MAX])} while other symbols trade"
            found.append(Alert("symbol_silent", "warning", text, {"symbols": fallen, "silent": symbols.silent_count}))
        count, self._announced = symbols.announced - self._announced, symbols.announced
        for text in symbols.announcements[-count:] if count > 0 else ():
            found.append(Alert("exchange_notice", "warning", f"the exchange announces: {text}", {"announced": text}))
        return found

    def _stop(self) -> list[Alert]:
        if self._stopping:
            return []
        self._stopping = True
        return [Alert("stop", "info", "the engine is stopping: it stores the events that it has accepted")]

    def _stalls(self, status: Status) -> list[Alert]:
        still, before = frozenset(status.still_s), self._still
        self._still = still
        if still - before:
            names = ", ".join(f"{stage} for {status.still_s[stage]:.0f} s" for stage in sorted(still))
            return [Alert("stall", "error", f"stalled: {names}", {"still_s": dict(status.still_s)})]
        if before and not still:
            return [Alert("stall", "info", "all stages make progress again", {"still_s": {}})]
        return []

    def _link(self, status: Status) -> list[Alert]:
        """A link that keeps coming and going counts as lost, like one that stays down, until it is stable again."""
        now_s, down_s = status.written_s, status.link_down_s
        if status.link is None:
            return []
        if down_s is not None:
            self._held_since_s = None
            if self._gone_since_s is None:
                self._gone_since_s = now_s - down_s
        elif self._held_since_s is None:
            self._held_since_s = now_s
        if self._held_since_s is not None and now_s - self._held_since_s >= _HOLDS_S:
            self._gone_since_s = None
        if self._gone_since_s is None:
            if not self._lost_told:
                return []
            self._lost_told = False
            return [Alert("link_lost", "info", "the link is up again and stable", {"down_s": 0.0})]
        gone_s = now_s - self._gone_since_s
        if gone_s <= self._link_lost_s or self._lost_told or down_s is None:
            return []
        self._lost_told = True
        whole = down_s > self._link_lost_s
        text = f"the link has been {'down' if whole else 'unstable'} for {gone_s:.0f} s"
        return [Alert("link_lost", "warning", text, {"down_s": round(gone_s, 3)})]

    def _burst(self, status: Status) -> list[Alert]:
        now_s, total = status.written_s, sum(status.counters[name] for name in _REFUSALS)
        looks = self._refusals
        if not looks:
            looks.append((now_s, total))  # a burst before the first look is one of the run's own beginning
        while len(looks) > 1 and looks[1][0] <= now_s - _WINDOW_S:
            looks.popleft()
        looks.append((now_s, total))
        within = total - looks[0][1]
        limit = self._refusals_per_minute
        if within > limit and not self._burst_told:
            self._burst_told = True
            counts = {name: status.counters[name] for name in _REFUSALS}
            text = f"{within:,} signals were refused within a minute"
            return [Alert("refusal_burst", "warning", text, {"within_60_s": within, **counts})]
        if within <= limit // 2:
            self._burst_told = False
        return []


def _start(status: Status) -> Alert:
    kept = f", keeping 1 of {status.sample_every} ticks" if status.sample_every > 1 else ""
    return Alert(
        "start",
        "info",
        f"tradebot {status.version} runs: {status.mode} {status.ingest}{kept}; all fills are simulated",
        {"mode": status.mode, "ingest": status.ingest, "source": status.source, "sample_every": status.sample_every},
    )


def exit_alert(code: int | None, cause: str | None = None) -> Alert:
    """How a run ended; `cause` for one that could not even begin."""
    known = code is not None and code in tuple(ExitCode)
    meaning = f" {ExitCode(code).name}: {ExitCode(code).meaning}" if known and code is not None else ""
    because = "" if cause is None else f"; {cause}"
    severity: Severity = "info" if code == ExitCode.COMPLETE else "error"
    return Alert("exit_code", severity, f"the engine has ended with {code}{meaning}{because}", {"exit_code": code})


def orphan_alert(file: str, reason: str) -> Alert:
    """The start found a spill file whose events it could not store, and has set it aside."""
    return Alert("spill_orphaned", "error", f"{file}: accepted events could not be stored: {reason}", {"file": file})


def stall_alert(reason: str, seconds: float | None) -> Alert:
    """The soak supervisor has found that nothing new is stored, and asked for a restart."""
    return Alert("stall", "error", f"soak: {reason}", {"seconds_since_progress": seconds})


def ladder_alert(state: str, sample_every: int, reason: str) -> Alert:
    """The soak supervisor has moved on its ladder."""
    severity: Severity = "info" if sample_every == 1 else "warning"
    kept = "all ticks" if sample_every == 1 else f"1 of {sample_every} ticks"
    text = f"soak: {state}, {kept} kept: {reason}"
    return Alert("ladder", severity, text, {"state": state, "sample_every": sample_every})
