"""The beacon: once a second the engine's main thread writes the status file and speaks to the service manager.

WATCHDOG=1 is sent only while no stage is stuck: what counts is what was taken, stored, and heard from the peer, not
that a loop goes round.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from tradebot.core.currencies import amount
from tradebot.core.errors import ConfigError
from tradebot.core.events import as_unix_ms
from tradebot.core.log_events import LogEvent
from tradebot.core.number_format import number
from tradebot.core.runtime import Runtime
from tradebot.output.log import Log
from tradebot.telemetry.sd_notify import Notifier
from tradebot.telemetry.snapshot import Observer
from tradebot.telemetry.status_file import Status, read_status, write_status

EVERY_S: Final = 1.0


class Publisher:
    """Main thread only. Blocks as long as writing a small file takes; never raises for it."""

    def __init__(
        self,
        path: Path | None,
        observer: Observer,
        notifier: Notifier,
        runtime: Runtime,
        log: Log,
        watchers: tuple[Callable[[Status], None], ...] = (),
    ) -> None:
        """`path` None: a run that stores nothing keeps no status file. `watchers` see every status, once a second."""
        self._path = path
        self._observer = observer
        self._notifier = notifier
        self._runtime = runtime
        self._log = log.bind("engine")
        self._watchers = watchers
        self._next_s = runtime.monotonic()
        self._began = False
        self._stopping = False
        self._still: list[str] = []
        self._unwritten = False
        self._looked = False

    def poll(self) -> None:
        """Called often while the pipeline runs: acts once a second."""
        now_s = self._runtime.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + EVERY_S
        status = self._observer.look()
        if not self._began:
            self._began = True
            self._notifier.ready()
        if status.state == "draining" and not self._stopping:
            self._stopping = True
            self._notifier.stopping()
        self._notifier.status(status_line(status))
        self._report_stalls(status)
        if not status.still_s:
            self._notifier.alive()
        self._write(status)
        for watcher in self._watchers:
            watcher(status)

    def end(self, exit_code: int) -> None:
        """The last status: that the run is over, and with which code."""
        status = self._observer.look(exit_code)
        if not self._began:  # a service that ends without having been ready counts as failed
            self._notifier.ready()
        self._notifier.status(f"ended with {exit_code}")
        self._write(status)
        for watcher in self._watchers:
            watcher(status)

    def _report_stalls(self, status: Status) -> None:
        still = sorted(status.still_s)
        if still and still != self._still:
            self._log.error(
                "stages are stalled: systemd's watchdog is not notified until they make progress",
                event=LogEvent.STAGE_STALLED,
                for_s=status.still_s,
            )
        elif self._still and not still:
            self._log.warning("all stages make progress again", event=LogEvent.STAGE_RECOVERED)
        self._still = still

    def _write(self, status: Status) -> None:
        if self._path is None:
            return
        if not self._looked:
            self._looked = True
            self._check_last(self._path)
        try:
            write_status(self._path, status)
        except OSError as error:
            if not self._unwritten:  # reported once: a full disk causes enough other lines
                self._log.warning("status file cannot be written", event=LogEvent.STATUS_FAILED, detail=str(error))
            self._unwritten = True
        else:
            self._unwritten = False

    def _check_last(self, path: Path) -> None:
        """Say so when the status that the last run left cannot be read: it is about to be replaced."""
        try:
            read_status(path)
        except ConfigError as error:
            self._log.warning(
                "the status file of the last run was unreadable and is replaced",
                event=LogEvent.STATUS_REPLACED,
                detail=str(error),
            )


def status_line(status: Status) -> str:
    """One line for people: mode, symbol, last price, position, profit, age of the last tick, drops."""
    parts = [f"{status.mode} {status.ingest}"]
    tick, book = status.last_tick, status.book
    if tick is None:
        parts.append("no tick yet")
    else:
        parts.append(f"{tick.symbol} {number(tick.price)}")
        if status.push and status.state != "ended":
            parts.append(f"last tick {max(0, status.written_ms - as_unix_ms(tick.ts_ms)) / 1000:.1f} s ago")
    if book is not None:
        parts.append(f"position {number(book.net_qty)}")
        parts.append(f"profit {amount(book.profit, book.unit, plus=True)}")
    if status.paper is not None:
        parts.append(f"{status.paper.open_orders} open orders")
    counters = status.counters
    parts.append(f"{counters['persist_count']} stored")
    parts.append(f"{counters['refused'] + counters['bp_drops_signal']} dropped")
    if status.link == "down":
        parts.append(f"LINK DOWN for {status.link_down_s or 0:.0f} s")
    if status.retry_after_s is not None:
        parts.append(f"waiting {status.retry_after_s:.0f} s as the server requested")
    if status.symbols is not None and (quiet := status.symbols.refused_count + status.symbols.silent_count):
        parts.append(f"{quiet} of {status.symbols.requested} symbols refused or silent")
    if codes := status.blocking:
        parts.append("ORDERS BLOCKED: " + ", ".join(codes))
    if status.sample_every > 1:
        parts.append(f"1 of {status.sample_every} ticks kept")
    if status.state == "draining":
        parts.append("draining")
    if status.still_s:
        parts.append("STALLED: " + ", ".join(status.still_s))
    return ", ".join(parts)
