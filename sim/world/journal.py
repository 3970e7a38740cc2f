"""A readable journal of the processes of one world, for understanding a failure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from io import StringIO
from typing import Any, Final, NamedTuple

from sim.kernel.runtime import Noted, SimRuntime
from tradebot.core.events import PERIODIC_TRIGGER, SMA_CROSSOVER
from tradebot.core.log_events import LogEvent

KEPT_ENTRIES: Final = 20_000
_ROUTINE_EVENTS: Final = frozenset(
    {
        LogEvent.HEARTBEAT, LogEvent.BATCH_FLUSHED, LogEvent.PRAGMA_VERIFICATION, LogEvent.INITIAL_DATABASE_STATE,
        LogEvent.ORDER_FILLED, LogEvent.ORDER_REFUSED, SMA_CROSSOVER, PERIODIC_TRIGGER,
    }
)  # fmt: skip
_DETAIL_CHARS_MAX: Final = 300


class JournalEntry(NamedTuple):
    """One event: its process (from 1), its time (simulated seconds of that process), and its text."""

    process: int
    at_s: float
    text: str
    routine: bool
    """True for frequent events: shown only in a full trace."""


class Journal:
    """The entries of one world; the oldest are dropped first."""

    def __init__(self) -> None:
        self.entries: deque[JournalEntry] = deque(maxlen=KEPT_ENTRIES)

    def add(self, process: int, at_s: float, text: str, routine: bool = False) -> None:
        """Append an entry."""
        self.entries.append(JournalEntry(process, at_s, text, routine))

    def lines(self, most: int | None = None) -> list[str]:
        """The newest `most` entries that are not dull; None: all there are, dull ones too. One line each."""
        chosen = [entry for entry in self.entries if most is None or not entry.routine]
        shown = chosen if most is None else chosen[-most:]
        lines = [f"[{entry.process}] {entry.at_s:10.4f} s  {entry.text}" for entry in shown]
        earlier = len(chosen) - len(shown)
        return [f"... {earlier} earlier ones", *lines] if earlier else lines


class JournalRuntime(SimRuntime):
    """A runtime that also writes its notes (of faults, network and storage) to the journal.

    `on_death` is called when the process is killed or exits at once, before any thread unwinds.
    """

    def __init__(self, seed: int, journal: Journal, process: int, **profile: Any) -> None:
        super().__init__(seed, **profile)
        self.journal = journal
        self.process = process
        self.on_death: Callable[[], None] = lambda: None
        self.was_killed = False
        """Killed by the world; `exit_now` does not count."""

    def note(self, *fields: Noted) -> None:
        """See `SimRuntime.note`."""
        super().note(*fields)
        if not self.killed:
            self.say(" ".join(map(str, fields)), routine=fields[0] == "stored")

    def say(self, text: str, routine: bool = False) -> None:
        """Add a journal entry that is not part of the history's hash."""
        self.journal.add(self.process, self.elapsed_s, text, routine)

    def exit_now(self, code: int) -> None:
        """See `SimRuntime.exit_now`."""
        if not self.killed:
            self.on_death()
        super().exit_now(code)

    def kill(self) -> None:
        """See `SimRuntime.kill`."""
        if not self.killed:
            self.was_killed = True
            self.say("killed")
            self.on_death()
        super().kill()


class LogStream(StringIO):
    """Collects the JSON log lines of one process with their times; lines after its death are ignored.

    `signal_on`: the first line of each of these events triggers a stop signal.
    """

    def __init__(self, runtime: JournalRuntime, signal_on: tuple[LogEvent, ...] = ()) -> None:
        super().__init__()
        self._runtime = runtime
        self._signal_on = list(signal_on)
        self.times_s: list[float] = []

    def write(self, text: str) -> int:
        """One whole line."""
        if not self._runtime.killed:
            self.times_s.append(self._runtime.elapsed_s)
            super().write(text)
            for event in [event for event in self._signal_on if f'"event":"{event}"' in text]:
                self._signal_on.remove(event)
                self._runtime.send_signal()
        return len(text)


def enter_logs(journal: Journal, process: int, logs: list[dict[str, Any]], times_s: list[float], since: int) -> None:
    """Merge a process's log lines into the journal entries from number `since` on."""
    entries = journal.entries
    own = [entries.pop() for _ in range(len(entries) - since)][::-1]
    for line, at_s in zip(logs, times_s, strict=True):
        own.append(JournalEntry(process, at_s, describe(line), _is_routine(line)))
    entries.extend(sorted(own, key=lambda entry: entry.at_s))  # stable: notes before the lines of the same moment


def _is_routine(line: Mapping[str, Any]) -> bool:
    return line["level"] != "ERROR" and line["fields"].get("event") in _ROUTINE_EVENTS


def describe(line: Mapping[str, Any]) -> str:
    """A log line as text: level, source, message, and as many fields as fit."""
    fields = dict(line["fields"])
    message = fields.pop("message")
    event = fields.pop("event", None)
    if event in (LogEvent.HEARTBEAT, LogEvent.FINAL_METRICS):
        shown_always = {name: value for name, value in fields.items() if name in _BEAT_FIELDS or "_depth" in name}
        fields = shown_always | {name: fields[name] for name in _NOTABLE_COUNTERS if fields.get(name)}
    shown = " ".join(f"{name}={value}" for name, value in fields.items() if value is not None)
    if len(shown) > _DETAIL_CHARS_MAX:
        shown = shown[: _DETAIL_CHARS_MAX - 3] + "..."
    return f"{line['level']:<7} {line['target']}: {message} {shown}".rstrip()


_BEAT_FIELDS: Final = frozenset({"ingest_received", "ingest_processed", "tick_count", "persist_count", "link"})
_NOTABLE_COUNTERS: Final = (
    "refused", "bp_drops_signal", "risk_vetoes", "stale_vetoes", "rate_vetoes", "persist_errors", "malformed",
    "duplicates", "gaps", "reconnects",
)  # fmt: skip
"""Shown if they are not 0."""
