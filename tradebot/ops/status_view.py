"""`tradebot status`: what an engine is doing, for people, and with --json for scripts.

The JSON object is `View`: its keys stay, new ones may be added (`format` changes when one must go). Times named `_ms`
are Unix ms, `_s` lengths in seconds; whatever is not known is null. `status` is the status file as the engine wrote it
(tradebot.telemetry.status_file), with all counters since the start and the depths of the channels.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from tradebot.core.currencies import amount
from tradebot.core.errors import ConfigError
from tradebot.core.events import as_unix_ms
from tradebot.core.number_format import number
from tradebot.core.runtime import Runtime
from tradebot.execution.paper_view import LIQUIDATED_TEXT, PaperView, inferred_text
from tradebot.execution.trips import BreakersView, trip_text
from tradebot.feeds.status import SymbolsLook
from tradebot.ops.health import (
    MAX_AGE_S,
    Health,
    HealthReading,
    RunLook,
    code_text,
    judge,
    look_with,
    refuse_unusable,
    span,
)
from tradebot.output.json_answer import json_answer
from tradebot.output.redaction import clip, escape, mask
from tradebot.output.streams import GuardedStream
from tradebot.store.database import beside
from tradebot.store.spill import probe_spill, spill_path
from tradebot.telemetry.publisher import status_line
from tradebot.telemetry.status_file import Status, read_status, status_path
from tradebot.telemetry.throttle_file import Throttle, read_throttle, throttle_path
from tradebot.threads.counters import VETOES

FORMAT: Final = 1
EVERY_S: Final = 1.0
_SLICE_S: Final = 0.1
_LABEL_CHARS: Final = 12
_SYMBOLS_MAX: Final = 5
_BREAKERS_MAX: Final = 10
_LINE_CHARS_MAX: Final = 2000
_REDRAW: Final = "\x1b[H\x1b[J"

EngineState = Literal["running", "draining", "ended", "silent", "none"]


class View(Struct, frozen=True, kw_only=True):
    """Everything that `status` shows.

    `engine`: running or draining; ended (with a word); silent (a status that is no longer renewed: killed, hanging, or
    before the last boot); none. `healthy` and `health` are what `tradebot health` would say. `spill_bytes`: accepted
    events that wait in a spill file for the next start, None when there are none. `last_run`: the run of the status,
    or without one the newest of the database; its exit code is null while it runs and after a kill.
    """

    format: int = FORMAT
    database: str
    now_ms: int
    engine: EngineState
    healthy: bool
    health: str
    status_age_s: float | None
    uptime_s: float | None
    last_tick_age_s: float | None
    """By the exchange's time; None unless a push feed runs."""
    last_stored_age_s: float | None
    database_bytes: int | None
    wal_bytes: int | None
    spill_bytes: int | None
    throttle: Throttle | None
    last_run: RunLook | None
    status: Status | None
    trouble: tuple[str, ...]
    """What could not be read, and why."""

    @property
    def alive(self) -> bool:
        """Whether an engine is at work."""
        return self.engine in ("running", "draining")


def view_of(db_path: Path, runtime: Runtime) -> View:
    """Look at one database and what lies beside it. Blocks as `look_with`; what cannot be read is in `trouble`."""
    trouble: list[str] = []
    status: Status | None = None
    try:
        status = read_status(status_path(db_path))
    except ConfigError as error:
        trouble.append(str(error))
    look = look_with(status, db_path, runtime)
    health = Health(False, trouble[0]) if trouble else judge(look, MAX_AGE_S)
    trouble += [text for text in (look.locked, look.damage) if text is not None]
    throttle = None
    try:
        throttle = read_throttle(throttle_path(db_path))
    except ConfigError as error:
        trouble.append(str(error))
    alive = status is not None and status.fresh(look.now_s)
    spill = probe_spill(spill_path(db_path))
    return View(
        database=str(db_path),
        now_ms=look.now_ms,
        engine=_engine_state(status, alive),
        healthy=health.ok,
        health=health.text,
        status_age_s=_rounded(look.status_age_s),
        uptime_s=None if status is None or not alive else status.uptime_s,
        last_tick_age_s=_tick_age_s(look, alive),
        last_stored_age_s=_rounded(look.stored_age_s) if alive else None,
        database_bytes=_size(beside(db_path, "")),
        wal_bytes=_size(beside(db_path, "-wal")),
        spill_bytes=None if spill.foreign else spill.waiting_bytes,
        throttle=throttle,
        last_run=look.run,
        status=status,
        trouble=tuple(trouble),
    )


def _engine_state(status: Status | None, alive: bool) -> EngineState:
    if status is None:
        return "none"
    return status.state if alive or status.state == "ended" else "silent"


def _tick_age_s(look: HealthReading, alive: bool) -> float | None:
    status = look.status
    if status is None or not alive or not status.push or status.last_tick is None:
        return None
    return (look.now_ms - as_unix_ms(status.last_tick.ts_ms)) / 1000


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def render(view: View) -> str:
    """The view as lines for people. Pure; safe to show."""
    return "".join(f"{clip(escape(mask(line)), _LINE_CHARS_MAX)}\n" for line in _lines(view))


def render_line(view: View) -> str:
    """The view as one line, for --watch into a pipe or file."""
    status = view.status
    at = datetime.fromtimestamp(view.now_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    parts = [at, "healthy:" if view.healthy else f"UNHEALTHY ({view.health}):"]
    if status is None:
        parts.append("engine none")
    else:
        parts.append(status_line(status) if view.alive else f"engine {view.engine}, {status_line(status)}")
    return clip(escape(mask(" ".join(parts))), _LINE_CHARS_MAX) + "\n"


def _lines(view: View) -> Iterator[str]:
    status, run = view.status, view.last_run
    if not view.alive and run is not None and status is not None and status.run_id != run.run_id:
        status = None  # of a run that the database does not know: its figures say nothing of this database
    yield f"engine {view.engine}, {'healthy' if view.healthy else 'UNHEALTHY'}: {view.health}"
    if status is not None:
        yield f"{status.mode}: all fills are simulated, no order leaves this machine"
    yield ""
    size = "not there" if view.database_bytes is None else _megabytes(view.database_bytes)
    if view.database_bytes == 0:
        size = "empty: no engine has written to it yet"
    wal = "" if view.wal_bytes is None else f", WAL {_megabytes(view.wal_bytes)}"
    yield _pair("database", f"{view.database} ({size}{wal})")
    if status is not None and view.alive:
        yield from _running_lines(view, status)
    elif run is not None:
        yield from _last_run_lines(run)
        if status is not None:
            yield from _book_lines(status)
    if view.throttle is not None and view.throttle.sample_every > 1:
        kept = f"1 of {view.throttle.sample_every} ticks"
        yield _pair("throttle", f"{view.throttle.state}: the next start of a push feed keeps {kept}")
    if view.spill_bytes is not None:
        if view.alive and status is not None:
            waiting = f"{status.spilled_events:,} events are waiting until the database can be written again"
        else:
            waiting = f"{view.spill_bytes:,} bytes of accepted events are waiting for the next start"
        yield _pair("spill", waiting)
    for text in view.trouble:
        yield _pair("trouble", text)
    if status is not None:
        yield ""
        yield "Counters since the start" if view.alive else f"Counters of run {status.run_id}"
        yield from _counter_lines(status.counters)


def _running_lines(view: View, status: Status) -> Iterator[str]:
    yield _pair("run", f"{status.run_id}, tradebot {status.version}, configuration {status.config_hash}")
    yield _pair("process", f"{status.pid}, since {_date(status.started_ms)} ({span(view.uptime_s or 0.0)})")
    kept = f", 1 of {status.sample_every} ticks kept" if status.sample_every > 1 else ""
    yield _pair("input", f"{status.ingest}, {status.source}{kept}")
    if status.link is not None:
        down = f"DOWN for {span(status.link_down_s or 0.0)}"
        heard = (
            "" if status.link_age_ms is None else f", last message from the peer {span(status.link_age_ms / 1000)} ago"
        )
        asked_s = status.retry_after_s
        waits = "" if asked_s is None else f", waiting {span(asked_s)} more as the server requested (Retry-After)"
        yield _pair("link", ("up" if status.link == "up" else down) + heard + waits)
    yield from _symbol_lines(status.symbols)
    yield from _blocked_lines(status.breakers)
    yield from _book_lines(status, "" if view.last_tick_age_s is None else f", {_tick_age(view.last_tick_age_s)}")
    stored = "none yet" if view.last_stored_age_s is None else f"{span(view.last_stored_age_s)} ago"
    took = "" if status.commit_ms is None else f", took {status.commit_ms:,.1f} ms"
    yield _pair("last commit", stored + took)
    depths = ", ".join(f"{name} {depth:,}" for name, depth in status.depths.items())
    yield _pair("waiting", f"{depths} (events in channels)")
    if status.still_s:
        yield _pair("STILL", ", ".join(f"{stage} for {span(for_s)}" for stage, for_s in status.still_s.items()))


def _symbol_lines(symbols: SymbolsLook | None) -> Iterator[str]:
    """What is wrong with the symbols that were asked for, and the exchange's newest announcement."""
    if symbols is None:
        return
    for name, words in list(symbols.refused.items())[:_SYMBOLS_MAX]:
        yield _pair("refused", f"{name}: {words}")
    if symbols.refused_count > _SYMBOLS_MAX:
        yield _pair(
            "refused", f"{symbols.refused_count} of {symbols.requested} symbols in all; status --json lists more"
        )
    for title, names, count in (
        ("silent", symbols.silent, symbols.silent_count),
        ("no trade yet", symbols.untraded, symbols.untraded_count),
    ):
        if count:
            more = f" and {count - _SYMBOLS_MAX} more" if count > _SYMBOLS_MAX else ""
            yield _pair(title, ", ".join(names[:_SYMBOLS_MAX]) + more)
    if symbols.announcements:
        yield _pair("announced", f"{symbols.announcements[-1]} ({symbols.announced} in this run)")


def _blocked_lines(view: BreakersView | None) -> Iterator[str]:
    """What keeps orders from being sent, and until when."""
    if view is None:
        return
    if view.halted_since_ms is not None:
        yield _pair("HALTED", f"since {_date(view.halted_since_ms)} by {view.halt_detail}; see tradebot resume")
    for trip in view.tripped[:_BREAKERS_MAX]:
        yield _pair("TRIPPED", f"{_date(trip.ts)}: {trip_text(trip)}")
    if len(view.tripped) > _BREAKERS_MAX:
        yield _pair("TRIPPED", f"{view.stale_symbols} symbols in all are stale; status --json lists more")


def _book_lines(status: Status, age: str = "") -> Iterator[str]:
    """Last tick and positions: of an engine that has ended, those at its end."""
    tick, book = status.last_tick, status.book
    yield _pair("last tick", "none yet" if tick is None else f"{tick.symbol} {number(tick.price)}{age}")
    if book is not None:
        symbol = "" if tick is None else f" {tick.symbol}"
        yield _pair("position", f"{number(book.net_qty)}{symbol}, {book.open_positions} open in all")
        profit = amount(book.profit, book.unit, plus=True)
        yield _pair("exposure", f"{amount(book.exposure, book.unit)}, profit after fees {profit}")
    if status.paper is not None:
        yield from _account_lines(status.paper, status.counters)


def _account_lines(paper: PaperView, counters: dict[str, int]) -> Iterator[str]:
    """Orders by what became of them, the account, and how far the side of the taker is known."""
    ended = {
        "filled": counters["shadow_orders"],
        "canceled": counters["orders_canceled"],
        "expired": counters["orders_expired"],
        "refused by the venue": counters["orders_bounced"],
        "refused": sum(counters[name] for name in set(VETOES.values())),
    }
    if paper.liquidated:
        yield _pair("BLOCKED", LIQUIDATED_TEXT)
    parts = [f"{paper.open_orders:,} open", *(f"{count:,} {name}" for name, count in ended.items() if count)]
    yield _pair("orders", ", ".join(parts))
    free = "" if paper.free is None else f", free to spend {amount(paper.free, paper.unit)}"
    yield _pair("equity", amount(paper.equity, paper.unit) + free)
    yield _pair("cash", ", ".join(amount(held, unit) for unit, held in paper.cash.items()))
    if share := inferred_text(paper):
        yield _pair("taker side", share)


def _last_run_lines(run: RunLook) -> Iterator[str]:
    started = _date(run.first_start_ms)
    yield _pair(
        "last run", f"{run.run_id}: {run.mode} {run.ingest}, {run.source}, begun {started}, {run.ticks:,} ticks"
    )
    unknown = "not recorded: the run was killed, or could not record it"
    yield _pair("exit code", unknown if run.exit_code is None else code_text(run.exit_code))


def _date(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):  # a damaged file, or a clock that was far off
        return f"{ms} ms, which is not a date"


def _tick_age(seconds: float) -> str:
    # A feed's clock may be ahead of ours.
    return f"{span(seconds)} ago" if seconds >= 0 else f"{span(-seconds)} AHEAD of this clock"


def _counter_lines(counters: dict[str, int]) -> Iterator[str]:
    always = ("ingest_received", "ingest_processed", "persist_count", "refused")
    shown = {name: count for name, count in counters.items() if count or name in always}
    width = max((len(name) for name in shown), default=0)
    for name, count in shown.items():
        yield f"  {name:<{width}}  {count:>15,}"


def _megabytes(size: int) -> str:
    return f"{size / 1_000_000:,.1f} MB"


def _pair(label: str, value: str) -> str:
    return f"{label:<{_LABEL_CHARS}}{value}"


def run_status(db_path: Path, as_json: bool, watch: bool, runtime: Runtime, answers: GuardedStream) -> int:
    """Print the view once (0; 1 when neither status file nor database has data), or every second until Ctrl-C (0).

    Watching, a terminal is redrawn; a pipe gets one line a second, with `as_json` one object a line. Raises UsageError
    before it prints anything (see `refuse_unusable`).
    """
    refuse_unusable(db_path)
    if not watch:
        view = view_of(db_path, runtime)
        answers.write(_json(view) if as_json else render(view))
        return 0 if _has_answer(view) else 1
    try:
        while not answers.lost:  # the reader is still there
            answers.write(_frame(view_of(db_path, runtime), as_json, answers))
            _rest(runtime)
    except KeyboardInterrupt:
        if answers.isatty():
            answers.write("\n")
    return 0


def _has_answer(view: View) -> bool:
    known = view.status is not None or view.last_run is not None
    return known or bool(view.database_bytes and not view.trouble)


def _frame(view: View, as_json: bool, answers: GuardedStream) -> str:
    if as_json:
        return _json(view)
    if not answers.isatty():
        return render_line(view)
    columns, rows = shutil.get_terminal_size()
    lines = [line[: max(1, columns - 1)] for line in render(view).splitlines()[: max(1, rows - 1)]]
    return _REDRAW + "\n".join(lines) + "\n"


def _rest(runtime: Runtime) -> None:
    end_s = runtime.monotonic() + EVERY_S
    while (left_s := end_s - runtime.monotonic()) > 0:
        runtime.sleep(min(_SLICE_S, left_s))


def _json(view: View) -> str:
    return json_answer(view)
